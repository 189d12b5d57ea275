"""What a bug report needs to know of the machine it was seen on."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    *("puppetcam", "numpy", "opencv-contrib-python", "mediapipe", "av", "openvino", "torch", "onnx"),
    *("tensorrt-rtx", "tensorrt", "cuda-python"),
)


def processor() -> dict[str, Any]:
    """Name, cores and the number formats that the processor multiplies natively; null where it cannot be told."""
    found: dict[str, Any] = {"name": platform.processor() or platform.machine(), "bf16": None, "amx": None}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "flags" in facts:
        flags = facts["flags"].split()
        found |= {"name": facts["model name"], "bf16": "avx512_bf16" in flags, "amx": "amx_bf16" in flags}
    return found | {"cores": psutil.cpu_count(logical=False), "threads": psutil.cpu_count()}


def package_versions() -> dict[str, str | None]:
    """The versions of the packages that matter; null for what is not installed."""
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
