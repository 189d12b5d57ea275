"""Who may know whom: the table of docs/design.md, and only declared dependencies."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "realtime": ("realtime",),
    "engines": ("engines",),
    "trainer": ("trainer", "realtime", "engines"),
    "web": ("web", "realtime"),
}
FILES = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules to the distributions that bring them; dlib's is named, because its wheel does not say, and CUDA's, because
# cuda-python is but a name for its parts.
OWNERS = {**packages_distributions(), "dlib": ["dlib-bin"], "cuda": ["cuda-python"]}
# The reference engine is the one part of the program that the `train` extra brings.
TRAIN = {"engines/torch.py", "engines/graph.py"}
# What runs on NVIDIA cards comes with the `tensorrt` extra.
NVIDIA = {"engines/tensorrt.py", "engines/plan.py", "engines/half.py", "engines/cuda.py"}
BROWSER = {"web/bench.py"}  # and the browser benchmark is run by who works on it


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports, also those inside functions: `from a.b import c` gives a.b.c."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def declared(*extras: str) -> set[str]:
    """Distributions that the project and some of its extras name, in lower case with hyphens."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {re.split(r"[<>=!~ ;\[]", line)[0].lower().replace("_", "-") for line in lines}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_rooms_keep_to_themselves(file: Path) -> None:
    room = file.parts[0]
    for name in imports(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if name.split(".")[0] in (*ROOMS, "run", "tests"):
            assert any(name == known or name.startswith(f"{known}.") for known in ROOMS[room]), f"{file}: {name}"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_are_declared(file: Path) -> None:
    training = file.parts[0] == "trainer" or file.as_posix() in TRAIN
    extras = ("train", "eval") if training else ("dev",) if file.as_posix() in BROWSER else ()
    extras += ("tensorrt",) if file.as_posix() in NVIDIA else ()
    extras += ("virtual-camera",) if file.name == "virtualcam.py" else ()
    allowed = declared(*extras)
    for name in imports(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        module = name.split(".")[0]
        if module not in (*ROOMS, *sys.stdlib_module_names):
            found = {owner.lower().replace("_", "-") for owner in OWNERS.get(module, [module])}
            assert found & allowed, f"{file}: {module} of {found}"


def test_package_files_are_empty() -> None:
    assert [file for file in FILES if file.name == "__init__.py" and (ROOT / file).stat().st_size] == []


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert declared("train", "eval", "tensorrt", "dev") <= pinned
    assert "opencv-python" not in pinned
