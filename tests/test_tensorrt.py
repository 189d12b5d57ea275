"""TensorRT: plans and their cache on any machine, what is missing in a sentence, and the runner on an NVIDIA card."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from numpy.typing import NDArray

import run
from engines import nvidia
from engines.bundle import GRAPHS, Bundle, EngineError
from engines.cache import cache_folder
from engines.load import best_engine, load_models
from engines.nvidia import Card
from realtime.landmarks import heatmap_points, render_heatmaps
from realtime.parity import difference, portrait_faces

Image = NDArray[np.uint8]
WHEEL = importlib.util.find_spec("tensorrt_rtx") is not None
needs_wheel = pytest.mark.skipif(not WHEEL, reason="there is no tensorrt_rtx wheel for this kind of machine")
needs_card = pytest.mark.skipif(not nvidia.present(), reason="there is no NVIDIA card")
ADA = Card(0, "NVIDIA GeForce RTX 4090", (8, 9))
HOPPER = Card(0, "NVIDIA H200", (9, 0))


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose NVIDIA driver is not installed."""
    monkeypatch.setattr(nvidia, "LIBRARY", "libcuda-of-no-machine.so")
    nvidia.cards.cache_clear()
    yield
    nvidia.cards.cache_clear()


@needs_wheel
@pytest.mark.parametrize(("precision", "half"), [("f32", None), ("f16", "Half"), ("bf16", "BFloat16")])
def test_the_graphs_compile_without_a_card(bundle: Bundle, precision: str, half: str | None) -> None:
    from engines import plan

    for name in GRAPHS:
        program, layers, types = plan.compiled(plan.prepared(bundle, name, precision), name, None)
        assert len(program) > 1_000_000
        assert layers >= 20, name
        assert set(types) <= {"Float", "UInt8", half}, name
        assert types["Float"] > 10, name  # coordinates, inputs and outputs
        assert half is None or types[half] > 40, name


@needs_wheel
def test_the_program_hands_over_pictures_as_it_holds_them(bundle: Bundle) -> None:
    from engines import plan

    detector, generator = (plan.prepared(bundle, name, "f16") for name in ("detector", "generator"))
    for model in (detector, generator):
        onnx.checker.check_model(model, full_check=True)
    (crop,) = detector.graph.input
    assert crop.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_value for dim in crop.type.tensor_type.shape.dim] == [1, 256, 256, 3]
    colour = next(tensor for tensor in generator.graph.output if tensor.name == "colour")
    assert [dim.dim_value for dim in colour.type.tensor_type.shape.dim] == [1, 256, 256, 3]


@pytest.fixture
def built(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Builds with a cache of its own, and says how each graph was come by."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from engines import plan

    def build() -> list[str]:
        said: list[str] = []
        plan.build(bundle, "f16", None, said.append)
        return ["cache" if "from the cache" in word else "compiled" for word in said]

    return build


@needs_wheel
def test_plans_are_kept_and_rebuilt_when_damaged_or_stale(
    built: Callable[[], list[str]], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines import plan

    assert built() == ["compiled"] * 3
    assert built() == ["cache"] * 3
    detector, encoder = (next(cache_folder().rglob(f"*-{name}-*")) for name in ("detector", "target_encoder"))
    shutil.copy(encoder, detector)  # whole, but of another graph
    encoder.write_bytes(encoder.read_bytes()[:-1])
    assert built() == ["compiled", "compiled", "cache"]
    assert {path.suffix for path in cache_folder().rglob("*") if path.is_file()} == {".program"}
    assert plan.entry(bundle, "detector", "f16", None).read() is not None
    assert plan.entry(bundle, "detector", "f16", ADA).read() is None  # another card's
    monkeypatch.setattr(plan, "RECIPE", plan.RECIPE + 1)
    assert plan.entry(bundle, "detector", "f16", None).read() is None  # another program's


@needs_wheel
def test_the_parser_says_what_it_does_not_know(bundle: Bundle) -> None:
    from engines import plan

    model = plan.prepared(bundle, "detector", "f32")
    next(node for node in model.graph.node if node.op_type == "Conv").op_type = "Det"
    with pytest.raises(EngineError, match=r"TensorRT cannot read detector\.onnx: .*operator: Det .*UNSUPPORTED_NODE"):
        plan.compiled(model, "detector", None)


@needs_wheel
@pytest.mark.usefixtures("no_driver")
def test_build_needs_no_card_and_tells_the_cost_of_half_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run.main(["build", "--engine", "tensorrt", "--precision", "fp16"]) == 0
    said = capsys.readouterr().out
    assert all(f"{graph}: " in said for graph in GRAPHS)
    assert "f16 against f32: at most 0.0" in said
    assert len(list(tmp_path.rglob("tensorrt_rtx-*-f16.program"))) == 3


@needs_wheel
def test_rtx_knows_its_cards() -> None:
    from engines import plan

    rtx = plan.flavour(None)
    assert plan.supports(rtx, ADA)
    assert not plan.supports(rtx, HOPPER)


@needs_wheel
@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize(
    "command",
    [
        ["live", "--port=0"],
        ["video", "--source=motion:talking", "--output=out.mp4"],
        ["bench"],
        ["build", "--device=cuda:0"],
    ],
    ids=lambda command: command[0],
)
def test_without_a_card_there_is_a_sentence_and_no_other_engine(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.main([*command, "--engine", "tensorrt"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (sentence,) = [line for line in error.splitlines() if line.startswith("puppetcam: ")]
    assert "--engine tensorrt cannot run here: no NVIDIA driver is installed here: install version" in sentence
    assert "engine: " not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_driver")
def test_without_a_card_the_processor_is_chosen_and_why_is_said(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert best_engine() == ("openvino", "no NVIDIA driver is installed here")
    load_models(None, None, bundle).close()
    assert "engine: openvino" in (said := capsys.readouterr().err)
    assert "the best here: no NVIDIA driver is installed here" in said


def test_a_wheel_that_is_not_there_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt_rtx", "tensorrt"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"'tensorrt' is not installed: pip install 'puppetcam\[tensorrt\]'"):
        load_models("tensorrt", None, bundle)


# On an NVIDIA card.


@pytest.fixture(scope="module")
def on_card(bundle: Bundle) -> Iterator[Any]:
    models = load_models("tensorrt", None, bundle)
    yield models
    models.close()


def _frames(models: Any, crop: Image, count: int) -> None:
    heatmaps = models.detect(crop).copy()
    features = models.encode_target(crop, heatmaps)
    driving, prior = render_heatmaps(heatmap_points(heatmaps)[0]), np.zeros((3, 128, 128), np.float32)
    for _ in range(count):
        models.detect(crop)
        models.generate(driving, prior, features)


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("engine", ["tensorrt", "torch", "torch-compiled", "torch-graph"])
def test_a_card_agrees_with_the_reference(engine: str, bundle: Bundle) -> None:
    models, reference = load_models(engine, None, bundle), load_models("torch", "f32", bundle, "cpu")
    worst = difference(models, reference, list(portrait_faces(reference)))
    assert worst["flow"] < 0.25
    assert worst["colour"] < 2
    models.close()


@pytest.mark.gpu
@needs_card
def test_a_thousand_frames_take_no_memory(on_card: Any, crop: Image) -> None:
    from cuda.bindings import runtime as cuda

    _frames(on_card, crop, 100)
    before, resident = cuda.cudaMemGetInfo()[1], psutil.Process().memory_info().rss
    places = [on_card.detect(crop).ctypes.data for _ in range(2)]
    _frames(on_card, crop, 1000)
    assert cuda.cudaMemGetInfo()[1] == before
    assert psutil.Process().memory_info().rss - resident < 4 << 20
    assert places[0] == places[1] == on_card.detect(crop).ctypes.data


@pytest.mark.gpu
@needs_card
def test_photos_do_not_mix_on_a_card(on_card: Any, crop: Image) -> None:
    other = np.ascontiguousarray(crop[:, ::-1])
    heatmaps = on_card.detect(crop).copy()
    driving, prior = render_heatmaps(heatmap_points(heatmaps)[0]), np.zeros((3, 128, 128), np.float32)
    first, second = (on_card.encode_target(photo, on_card.detect(photo)) for photo in (crop, other))
    colours = [on_card.generate(driving, prior, features)[2].copy() for features in (first, second, first)]
    assert np.array_equal(colours[0], colours[2])
    assert np.abs(colours[0] - colours[1]).max() > 1e-3


@pytest.mark.gpu
@needs_card
def test_a_second_start_on_a_card_takes_the_cache(on_card: Any, bundle: Bundle) -> None:
    said: list[str] = []
    load_models("tensorrt", on_card.precision, bundle, say=said.append).close()
    assert all("from the cache" in word for word in said)


@pytest.mark.gpu
@needs_card
def test_a_card_runs_the_layers_that_were_listed(bundle: Bundle) -> None:
    from engines import plan

    card = nvidia.card(None)
    tensorrt = plan.flavour(card)
    made = plan.compiled(plan.prepared(bundle, "generator", "f16"), "generator", card)
    engine = tensorrt.Runtime(plan.log_of(tensorrt)).deserialize_cuda_engine(made.program)
    listing = engine.create_engine_inspector().get_engine_information(tensorrt.LayerInformationFormat.ONELINE)
    assert plan.layers(listing)[0] == made.layers
