"""A model bundle: a folder with three ONNX graphs and the card that describes them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAPHS = ("detector", "target_encoder", "generator")


class EngineError(RuntimeError):
    """A bundle or an engine that cannot be used. The message is one sentence for a person."""
