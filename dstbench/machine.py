"""What a result depends on beside its settings: hardware, software, memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil
import torch

from dstbench.records import Environment

_PACKAGES = (
    "dstbench", "torch", "torchvision", "diffusers", "torch-fidelity", "fvcore", "numpy",
)  # fmt: skip


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def environment(device: torch.device) -> Environment:
    """The machine and software that this process runs on."""
    installed = {dist.name for dist in metadata.distributions()}
    return Environment(
        python=platform.python_version(),
        packages={name: metadata.version(name) for name in _PACKAGES if name in installed},
        platform=platform.platform(),
        cpu=_cpu(),
        threads=torch.get_num_threads(),
        device=str(device),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        git_revision=_git_revision(),
    )


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """Of the checkout that dstbench runs from, with ``-dirty`` after uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).resolve().parent
    try:
        ran = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far (on a CPU: where the system is Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Bytes since the last reset: the GPU's allocations, else the process's resident set.

    ``None`` where the system cannot tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return getattr(psutil.Process().memory_info(), "peak_wset", None)
