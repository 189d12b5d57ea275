"""Compiled programs, kept in the user's cache folder so that the next start is quick.

A file is the SHA-256 digest of its key and its program, then the program: an entry that is damaged, or that was
compiled from other weights, for another device or by another version of the engine, does not match and is not used.
"""

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

DIGEST_SIZE = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """Where this user's compiled programs live; the folder need not exist yet. `XDG_CACHE_HOME` moves it."""
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "puppetcam"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "puppetcam" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "puppetcam"
    return Path.home() / ".cache" / "puppetcam"


@dataclass(frozen=True)
class Entry:
    """One graph of one bundle, compiled by one version of an engine for one device and precision."""

    weights_hash: str
    graph: str
    engine: str
    version: str
    device: str
    precision: str

    @property
    def path(self) -> Path:
        return cache_folder() / self.weights_hash[:12] / f"{self.engine}-{self.graph}-{self.precision}.program"

    def read(self) -> bytes | None:
        """The compiled program, or None where there is none that can be trusted."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        program = content[DIGEST_SIZE:]
        return program if content[:DIGEST_SIZE] == self._digest(program) else None

    def write(self, program: bytes) -> None:
        """Keep a program, whole or not at all. Raises OSError where the folder cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self._digest(program))
                file.write(program)
            os.replace(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise

    def keep(self, program: bytes) -> None:
        """Write a program, or say why the next start will be slow, too."""
        try:
            self.write(program)
        except OSError as error:
            print(f"compiled models are not kept, so every start will be as slow as this one: {error}", file=sys.stderr)

    def _digest(self, program: bytes) -> bytes:
        return hashlib.sha256(repr(self).encode() + program).digest()
