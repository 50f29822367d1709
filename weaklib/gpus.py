"""The GPUs of this machine, counted without importing torch, and how many a stage takes."""

import os
import re
import subprocess

from weaklib.parameters import RequestError


def needed(parameters: dict) -> int:
    """GPUs of a stage with these parameters: none on a CPU, one, or those it is launched on."""
    if parameters.get("device") != "cuda":
        return 0
    return parameters.get("training", {}).get("launch", {}).get("processes", 1)


def groups(device: str, size: int) -> list[str]:
    """``CUDA_VISIBLE_DEVICES`` of each worker: ``size`` GPUs for every one.

    Raises:
        RequestError: there are fewer than ``size``.
    """
    if device == "cpu":
        return []
    there = visible()
    if len(there) < size:
        raise RequestError(f"device: {device}: a stage needs {size} GPUs, this machine shows {len(there)}")
    return [",".join(there[start : start + size]) for start in range(0, len(there) - size + 1, size)]


def visible() -> list[str]:
    """As ``CUDA_VISIBLE_DEVICES`` names them, or by ``nvidia-smi``'s identifiers."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return re.findall(r"UUID: (GPU-[^)]+)", listed)
