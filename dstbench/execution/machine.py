"""What a result depends on beside its settings: hardware, software, memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dstbench.errors import ConfigError
from dstbench.records import Environment

_PACKAGES = (
    "dstbench",
    "torch",
    "torchvision",
    "diffusers",
    "torch-fidelity",
    "fvcore",
    "numpy",
    "pillow",
)


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU if there is one, else the CPU.

    Raises :class:`ConfigError` for a device that is not there.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    known = ["cpu", *(["cuda"] if gpus else []), *gpus]
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    if name not in known:
        raise ConfigError(
            f"there is no device '{name}' on this machine; choose among auto, {', '.join(known)}"
        )
    return torch.device(name)


def environment(device: torch.device) -> Environment:
    """The machine and software that this process runs on."""
    return Environment(
        **_lasting(),
        threads=torch.get_num_threads(),
        device=str(device),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    )


@cache
def _lasting() -> dict[str, Any]:
    """What stays the same while a process lives, as it was when its first cell was recorded: that
    takes longer to find out than a small cell to train."""
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "git_revision": _git_revision(),
    }


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """The revision of the checkout that dstbench runs from, ``-dirty`` with uncommitted changes.

    ``None`` for an installed package, which may well lie inside a repository of something else.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()


def reset_peak_memory(device: torch.device) -> None:
    """Forget the GPU's peak so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Largest number of bytes allocated on the GPU since the last reset; ``None`` on a CPU, where
    the peak of a process depends on all that it did before."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
