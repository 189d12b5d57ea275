"""Memory of an NVIDIA card and of its host, and CUDA's errors as sentences."""

from contextlib import ExitStack
from ctypes import c_uint8
from math import prod
from typing import Any

import numpy as np
from cuda.bindings import runtime as cuda
from numpy.typing import NDArray

from engines.bundle import EngineError

TO_CARD = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
TO_HOST = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
ON_CARD = cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice


def done(result: tuple[Any, ...]) -> Any:
    """What a CUDA call gave. Raises EngineError, one sentence for a person, where it failed."""
    error, *values = result
    if error == cuda.cudaError_t.cudaErrorMemoryAllocation:
        raise EngineError("the NVIDIA card is out of memory: close other programs on it, or take another --engine")
    if error != cuda.cudaError_t.cudaSuccess:
        words = cuda.cudaGetErrorString(error)[1].decode()
        raise EngineError(f"the NVIDIA card failed or is gone ({words}): see what nvidia-smi says, and start again")
    return values[0] if values else None


def card_memory(size: int, stack: ExitStack) -> int:
    """The address of `size` bytes on the current card, which `stack` gives back."""
    place: int = done(cuda.cudaMalloc(size))
    stack.callback(cuda.cudaFree, place)
    return place


def pinned_array(shape: tuple[int, ...], kind: np.dtype[Any], stack: ExitStack) -> NDArray[Any]:
    """An array in page-locked memory of the host, which `stack` gives back: it must not be used after that."""
    size = prod(shape) * kind.itemsize
    place = done(cuda.cudaHostAlloc(size, cuda.cudaHostAllocDefault))
    stack.callback(cuda.cudaFreeHost, place)
    memory: NDArray[Any] = np.ctypeslib.as_array((c_uint8 * size).from_address(place))
    return memory.view(kind).reshape(shape)
