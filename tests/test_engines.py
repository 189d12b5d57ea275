"""Engines on the bundle that ships: agreement with the reference, the cache, and what is refused."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from numpy.typing import NDArray

from engines.bundle import CONTRACT, GRAPHS, QUANTIZED_FILES, Bundle, EngineError, load_bundle, weights_hash
from engines.cache import cache_folder
from engines.graph import Graph
from engines.load import load_models
from realtime.head import make_head
from realtime.landmarks import heatmap_points, render_heatmaps
from realtime.prior import driving_prior

Image = NDArray[np.uint8]


def _outputs(models: Any, crop: Image) -> dict[str, NDArray[np.float32]]:
    """Everything that the models say of a face that opens its mouth and looks to the side."""
    heatmaps = models.detect(crop).copy()
    points = heatmap_points(heatmaps)[0]
    driving = points * np.float32([1.02, 1.05]) - 4
    features = models.encode_target(crop, heatmaps)
    flow, mask, colour = models.generate(render_heatmaps(driving), driving_prior(driving, make_head(points)), features)
    made = {"heatmaps": heatmaps, "points": points, "flow": flow, "mask": mask, "colour": colour}
    return {name: array.copy() for name, array in made.items()}


@pytest.fixture(scope="module")
def reference(bundle: Bundle, crop: Image) -> Iterator[dict[str, NDArray[np.float32]]]:
    models = load_models("torch", None, bundle, "cpu")
    yield _outputs(models, crop)
    models.close()


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))


def _edit_card(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((folder / "card.json").read_text())
    edit(card)
    (folder / "card.json").write_text(json.dumps(card))


def test_the_graphs_are_what_the_card_says(bundle: Bundle) -> None:
    for name in GRAPHS:
        model = onnx.load(bundle.graph(name))
        onnx.checker.check_model(model)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
        for side, tensors in (("inputs", model.graph.input), ("outputs", model.graph.output)):
            shapes = {t.name: [d.dim_value for d in t.type.tensor_type.shape.dim] for t in tensors}
            assert shapes == bundle.card["graphs"][name][side]


def test_reference_agrees_with_onnx_runtime(
    bundle: Bundle, crop: Image, reference: dict[str, NDArray[np.float32]]
) -> None:
    session = onnxruntime.InferenceSession(str(bundle.graph("detector")))
    picture = crop.transpose(2, 0, 1)[None].astype(np.float32) / 255
    assert session.run(None, {"crop": picture})[0][0] == pytest.approx(reference["heatmaps"], abs=1e-4)


# How far an engine may be from the reference, on average and for all but a thousandth: f32 differs by the order of
# sums, bf16 keeps eight bits, int8 has 256 levels. Where a heatmap is flat, its peak may fall on the neighbouring cell.
TOLERANCE = {
    "f32": dict.fromkeys(("heatmaps", "points", "flow", "mask", "colour"), (1e-05, 0.001)),
    "bf16": {
        "heatmaps": (1e-3, 0.02),
        "points": (0.1, 2.0),
        "flow": (0.05, 0.25),
        "mask": (0.005, 0.1),  # steep at the lips: a bf16 step there is a few per cent of a blend
        "colour": (0.01, 0.1),
    },
    "int8": {
        "heatmaps": (1e-3, 0.1),
        "points": (0.3, 2.0),
        "flow": (0.1, 0.6),
        "mask": (0.03, 0.4),
        "colour": (0.02, 0.2),
    },
}


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_openvino_agrees_with_the_reference(
    bundle: Bundle, crop: Image, reference: dict[str, NDArray[np.float32]], precision: str
) -> None:
    if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    models = load_models("openvino", precision, bundle)
    assert models.precision == precision
    made = _outputs(models, crop)
    for name, (average, worst) in TOLERANCE[models.precision].items():
        assert made[name].shape == reference[name].shape
        assert made[name].dtype == np.float32
        error = np.abs(made[name] - reference[name])
        assert error.mean() < average, name
        assert np.percentile(error, 99.9) < worst, name
    models.close()


def test_int8_is_taken_where_the_bundle_has_it(bundle: Bundle, copy: Path) -> None:
    assert load_models("openvino", None, bundle).precision == "int8"
    for name in QUANTIZED_FILES:
        (copy / name).unlink()
    _edit_card(copy, lambda card: card.update(weights_sha256=weights_hash(copy)))
    assert load_models("openvino", None, load_bundle(copy)).precision != "int8"
    with pytest.raises(EngineError, match=r"has no int8 graphs: `export --data` makes them"):
        load_models("openvino", "int8", load_bundle(copy))


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_what_lips_uncover_is_painted(engine: str, bundle: Bundle, crop: Image) -> None:
    models = load_models(engine, None, bundle)
    heatmaps = models.detect(crop).copy()
    points = heatmap_points(heatmaps)[0]
    driving = points.copy()
    driving[[51, 52, 53]] += np.float32([0, 12])
    features = models.encode_target(crop, heatmaps)
    mask = models.generate(render_heatmaps(driving), driving_prior(driving, make_head(points)), features)[1]
    hidden = np.kron(driving_prior(driving, make_head(points))[2] == 1, np.ones((2, 2), np.uint8))
    inner = cv2.erode(hidden, np.ones((5, 5), np.uint8)) == 1  # cells are interpolated to pixels
    assert inner.sum() > 100
    assert mask[inner].max() < 1e-3
    models.close()


@pytest.mark.parametrize("shape", [(256, 256, 1), (128, 128, 3)])
def test_a_crop_of_another_shape_or_type_is_refused(bundle: Bundle, crop: Image, shape: tuple[int, ...]) -> None:
    models = load_models("openvino", None, bundle)
    with pytest.raises(ValueError, match="crop should be uint8 of"):
        models.detect(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="not float32"):
        models.detect(crop.astype(np.float32))
    models.close()


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_photos_do_not_mix(engine: str, bundle: Bundle, crop: Image) -> None:
    models = load_models(engine, "f32", bundle)
    other = np.ascontiguousarray(crop[:, ::-1])
    heatmaps = models.detect(crop).copy()
    driving, prior = render_heatmaps(heatmap_points(heatmaps)[0]), np.zeros((3, 128, 128), np.float32)
    first, second = (models.encode_target(photo, models.detect(photo)) for photo in (crop, other))
    colours = [models.generate(driving, prior, features)[2].copy() for features in (first, second, first)]
    assert np.array_equal(colours[0], colours[2])
    assert np.abs(colours[0] - colours[1]).max() > 1e-3
    models.close()


@pytest.fixture
def cached(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Loads with a cache of its own, and says how each graph was come by."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def load() -> list[str]:
        said: list[str] = []
        load_models("openvino", "f32", bundle, say=said.append).close()
        return ["cache" if "from the cache" in word else "compiled" for word in said]

    return load


def test_a_second_start_takes_the_cache(cached: Callable[[], list[str]]) -> None:
    assert cached() == ["compiled"] * 3
    assert cached() == ["cache"] * 3
    assert {path.suffix for path in cache_folder().rglob("*") if path.is_file()} == {".program"}


def test_a_damaged_cache_entry_is_rebuilt(cached: Callable[[], list[str]]) -> None:
    cached()
    detector, encoder, generator = (next(cache_folder().rglob(f"*-{name}-*")) for name in GRAPHS)
    content = bytearray(detector.read_bytes())
    content[len(content) // 2] ^= 1
    detector.write_bytes(content)
    encoder.write_bytes(b"")
    generator.write_bytes(generator.read_bytes()[:-1])
    assert cached() == ["compiled"] * 3
    assert cached() == ["cache"] * 3


def test_a_stale_cache_entry_is_rebuilt(cached: Callable[[], list[str]]) -> None:
    cached()
    detector, encoder = (next(cache_folder().rglob(f"*-{name}-*")) for name in ("detector", "target_encoder"))
    shutil.copy(encoder, detector)  # whole, but compiled from something else
    assert cached() == ["compiled", "cache", "cache"]


def test_a_cache_that_cannot_be_written_is_only_slower(
    cached: Callable[[], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "puppetcam").write_text("a file where the folder should be")
    assert cached() == ["compiled"] * 3
    assert "are not kept" in capsys.readouterr().err


def test_a_damaged_bundle_is_refused(copy: Path) -> None:
    graph = copy / "generator.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(EngineError, match="damaged or belong to another card"):
        load_bundle(copy)
    graph.unlink()
    (copy / "detector_int8.bin").unlink()
    with pytest.raises(EngineError, match=r"lacks generator\.onnx, detector_int8\.bin"):
        load_bundle(copy)
    with pytest.raises(EngineError, match="there is no model bundle"):
        load_bundle(copy / "elsewhere")


@pytest.mark.parametrize("card", ["", "[]", "{}", '{"weights_sha256": 1, "graphs": {}}'])
def test_a_damaged_card_is_refused(copy: Path, card: str) -> None:
    (copy / "card.json").write_text(card)
    with pytest.raises(EngineError, match=r"card of the model bundle .* is damaged"):
        load_bundle(copy)


def test_other_shapes_are_refused(copy: Path) -> None:
    _edit_card(copy, lambda card: card["graphs"]["generator"]["outputs"].update(flow=[1, 2, 32, 32]))
    with pytest.raises(EngineError, match="flow"):
        load_bundle(copy)
    _edit_card(copy, lambda card: card["graphs"]["generator"].update(CONTRACT["generator"]))
    with pytest.raises(EngineError, match="should take the encoder's outputs"):
        load_bundle(copy)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_graph_that_is_none_is_refused(engine: str, copy: Path) -> None:
    (copy / "detector.onnx").write_bytes(b"no graph at all")
    _edit_card(copy, lambda card: card.update(weights_sha256=weights_hash(copy)))
    with pytest.raises(EngineError, match=r"detector\.onnx"):
        load_models(engine, "f32", load_bundle(copy))


def test_an_int8_graph_that_is_none_is_refused(copy: Path) -> None:
    (copy / "detector_int8.xml").write_bytes(b"no graph at all")
    _edit_card(copy, lambda card: card.update(weights_sha256=weights_hash(copy)))
    with pytest.raises(EngineError, match=r"detector_int8\.xml"):
        load_models("openvino", None, load_bundle(copy))


@pytest.mark.parametrize(
    ("engine", "precision", "device", "message"),
    [
        ("tensorflow", None, None, "there is no engine 'tensorflow': choose one of tensorrt, openvino, torch"),
        ("openvino", "int3", None, "there is no precision 'int3': choose one of int8, f32, bf16, f16"),
        ("openvino", None, "TPU", "no device 'TPU'"),
        ("torch", None, "cuda:63", "no device 'cuda:63'"),
        ("torch", "int3", None, "there is no precision 'int3': choose one of f32, f16, bf16"),
        ("torch-graph", None, "cpu", "torch-graph needs an NVIDIA card"),
        ("torch-compiled", None, "cpu", "torch-compiled needs an NVIDIA card"),
    ],
)
def test_what_is_not_there_is_refused(
    bundle: Bundle, engine: str, precision: str | None, device: str | None, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        load_models(engine, precision, bundle, device)


def test_an_engine_that_is_not_installed_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineError, match=r"'torch' is not installed: pip install 'puppetcam\[train\]'"):
        load_models("torch", None, bundle)


def test_reference_refuses_an_operator_it_does_not_know(bundle: Bundle) -> None:
    model = onnx.load(bundle.graph("detector"))
    model.graph.node[0].op_type = "Det"
    with pytest.raises(EngineError, match="does not know the operators Det"):
        Graph(model, "cpu")
