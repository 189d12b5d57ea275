"""Where results may be written, checked before any work is done for them."""

from pathlib import Path

from realtime.errors import InputError


def check_path(path: Path, suffix: str) -> None:
    """Raise InputError unless a file of a kind can be put there."""
    if path.suffix.lower() != suffix:
        raise InputError(f"{path} must end in {suffix}")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: a file in a folder that exists is needed")


def check_folder(path: Path, option: str) -> None:
    """Raise InputError where an option's folder is a file."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{option} {path} is a file: a folder is needed")


def make_folder(path: Path) -> None:
    """Make the folder of --output. Raises InputError where there is a file of that name."""
    check_folder(path, "--output")
    path.mkdir(parents=True, exist_ok=True)
