"""A model bundle: a folder with three ONNX graphs and the card that describes them, and perhaps int8 graphs.

Two of the graphs may be there once more in OpenVINO's own format, quantized to int8.

The card must hold `weights_sha256`, which is `weights_hash(folder)`, and `graphs`: for each graph its `inputs` and
`outputs`, name to shape, in the graph's order. The rest of it (training data, credits, metrics) is for people.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAPHS = ("detector", "target_encoder", "generator")
QUANTIZED = ("detector", "generator")  # the graphs of every frame
QUANTIZED_FILES = tuple(f"{name}_int8.{suffix}" for name in QUANTIZED for suffix in ("xml", "bin"))
CROP, HEATMAPS = [1, 3, 256, 256], [1, 56, 64, 64]
# Tensors the program relies on; the features that lead from the encoder to the generator are the bundle's own affair.
CONTRACT: dict[str, dict[str, dict[str, list[int]]]] = {
    "detector": {"inputs": {"crop": CROP}, "outputs": {"heatmaps": HEATMAPS}},
    "target_encoder": {"inputs": {"crop": CROP, "heatmaps": HEATMAPS}, "outputs": {}},
    "generator": {
        "inputs": {"driving": HEATMAPS, "prior": [1, 3, 128, 128]},
        "outputs": {"flow": [1, 2, 128, 128], "mask": [1, 1, 256, 256], "colour": CROP},
    },
}


class EngineError(RuntimeError):
    """A bundle or an engine that cannot be used. The message is one sentence for a person."""


@dataclass(frozen=True)
class Bundle:
    """A checked bundle. `features` are the encoder's outputs, name to shape, which the generator takes as inputs."""

    folder: Path
    card: dict[str, Any]
    weights_hash: str

    def graph(self, name: str) -> Path:
        """The ONNX file of one of GRAPHS."""
        return self.folder / f"{name}.onnx"

    @property
    def quantized(self) -> bool:
        """Whether it has int8 graphs."""
        return all((self.folder / name).is_file() for name in QUANTIZED_FILES)

    def int8_graph(self, name: str) -> Path:
        """OpenVINO's int8 graph of one of QUANTIZED; the ONNX file of another."""
        return self.folder / f"{name}_int8.xml" if name in QUANTIZED else self.graph(name)

    @property
    def features(self) -> dict[str, list[int]]:
        return dict(self.card["graphs"]["target_encoder"]["outputs"])

    def summary(self) -> dict[str, Any]:
        """The card without the networks' settings and tensors."""
        return {
            name: {k: v for k, v in entry.items() if k != "settings"} if isinstance(entry, dict) else entry
            for name, entry in self.card.items()
            if name != "graphs"
        }


def weights_hash(folder: Path) -> str:
    """SHA-256 over the graphs' files, in the order of GRAPHS, then of QUANTIZED_FILES, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in (*(f"{name}.onnx" for name in GRAPHS), *QUANTIZED_FILES):
        if (file := folder / name).is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def load_bundle(folder: Path) -> Bundle:
    """Read and check a bundle. Raises EngineError where a file is missing, damaged, or not what the program needs."""
    if not folder.is_dir():
        raise EngineError(f"there is no model bundle {folder}: it is a folder with three ONNX graphs and card.json")
    wanted = ["card.json", *(f"{name}.onnx" for name in GRAPHS)]
    if any((folder / name).is_file() for name in QUANTIZED_FILES):
        wanted += QUANTIZED_FILES
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise EngineError(f"the model bundle {folder} lacks {', '.join(missing)}: it needs {', '.join(wanted)}")
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        recorded = str(card["weights_sha256"])
        _check_shapes(card["graphs"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"the card of the model bundle {folder} is damaged: {error!r}") from error
    actual = weights_hash(folder)
    if actual != recorded:
        raise EngineError(
            f"the weights in {folder} are damaged or belong to another card: "
            f"their hash is {actual[:12]}, the card says {recorded[:12]}"
        )
    return Bundle(folder, card, actual)


def default_bundle() -> Bundle:
    """The bundle that ships with the program."""
    return load_bundle(Path(__file__).parent / "weights")


def _check_shapes(graphs: dict[str, Any]) -> None:
    for graph, sides in CONTRACT.items():
        for side, tensors in sides.items():
            for tensor, shape in tensors.items():
                if (found := graphs[graph][side].get(tensor)) != shape:
                    raise EngineError(f"{graph}.onnx should have {side} {tensor!r} of shape {shape}, not {found}")
    features = graphs["target_encoder"]["outputs"]
    taken = {k: v for k, v in graphs["generator"]["inputs"].items() if k not in CONTRACT["generator"]["inputs"]}
    if not features or features != taken:
        raise EngineError(f"generator.onnx should take the encoder's outputs {features}, but takes {taken}")
