"""The NVIDIA cards of this machine, asked of the driver itself: no package is needed to know what is missing."""

import ctypes
import sys
from dataclasses import dataclass
from functools import cache

from engines.bundle import EngineError

CUDA = 13  # what the wheels that requirements.lock pins are built for
DRIVER = 580  # the first driver of CUDA 13
LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
SMALLEST = (7, 5)  # Turing, the oldest that TensorRT still knows


@dataclass(frozen=True)
class Card:
    """A card by the driver's number for it; capability: its compute capability, such as (8, 9)."""

    number: int
    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return "{}, compute capability {}.{}".format(self.name, *self.capability)


@cache
def cards() -> tuple[Card, ...]:
    """The cards that programs may use. Raises EngineError, and says what to do, where there is none."""
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        raise EngineError(
            f"no NVIDIA driver is installed here: install version {DRIVER} or later, if this machine has an NVIDIA card"
        ) from None
    number, version = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value < CUDA * 1000:
        had = f"{version.value // 1000}.{version.value % 1000 // 10}"
        raise EngineError(f"the NVIDIA driver knows CUDA {had} and {CUDA} is needed: update it to {DRIVER} or later")
    if (error := driver.cuInit(0)) or driver.cuDeviceGetCount(ctypes.byref(number)) or not number.value:
        raise EngineError(
            f"the NVIDIA driver finds no card it can use (CUDA error {error}): see that nvidia-smi lists it, that "
            "CUDA_VISIBLE_DEVICES does not hide it, and that a container was given it"
        )
    return tuple(_card(driver, index) for index in range(number.value))


def _card(driver: ctypes.CDLL, number: int) -> Card:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
    return Card(number, name.value.decode(), (major.value, minor.value))


def card(device: str | None) -> Card:
    """The card that `device` names, "cuda:0" or None for the first one. Raises EngineError where it cannot be used."""
    found = cards()
    names = [f"cuda:{one.number}" for one in found]
    if device not in (None, "cuda", *names):
        raise EngineError(f"there is no NVIDIA card {device!r} here: choose one of {', '.join(names)}")
    chosen = found[names.index(device) if device in names else 0]
    if chosen.capability < SMALLEST:
        raise EngineError(
            f"TensorRT is not for {chosen}: {SMALLEST[0]}.{SMALLEST[1]} or later is needed, a GeForce RTX 20 or newer"
        )
    return chosen


def present() -> bool:
    """Whether there is a card that programs may use."""
    try:
        return bool(cards())
    except EngineError:
        return False


def devices() -> dict[str, str]:
    """The cards as `--device` takes them, with their names; where there is none, what is missing."""
    try:
        return {f"cuda:{one.number}": str(one) for one in cards()}
    except EngineError as error:
        return {"none": str(error)}
