"""The densities up to which sparse kernels are the faster ones on this machine: measured once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.kernels.choice import DEFAULT_THRESHOLDS, Choice, Mode
from dstbench.kernels.library import architecture, load, processor, source_digest
from dstbench.kernels.use import use_kernels

DENSITIES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95)

_ROUNDS = 5

Thresholds = Mapping[str, tuple[float, float, float]]


def choice_of_machine(mode: Mode) -> Choice:
    """A choice by the thresholds that were measured on this machine, or else by those shipped."""
    return Choice(mode, measured() or DEFAULT_THRESHOLDS)


def measured() -> Thresholds | None:
    """The thresholds that were measured on this machine, if any were."""
    try:
        saved = json.loads(_path().read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(saved, dict) or saved.keys() != DEFAULT_THRESHOLDS.keys():
        return None  # damaged, or of another version
    return {kind: tuple(densities) for kind, densities in saved.items()}


def measure(report: Callable[[str], object]) -> Thresholds:
    """Measure the thresholds of this machine, in one thread, and keep them in the cache.

    A threshold is the highest density at which the forward and backward pass of a layer takes less
    time over active weights than over all of them, as it does at all lower ones.

    Raises:
        NoKernelsError: if there are no sparse kernels here.
    """
    load()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {}
        for kind in DEFAULT_THRESHOLDS:
            alone, _, group = kind.partition(":")
            small, medium, large = (_threshold(*each, int(group or 1)) for each in _layers(alone))
            found[kind] = small, medium, large
            report(f"{kind}: {small:g}, {medium:g}, {large:g}")
    finally:
        torch.set_num_threads(threads)
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def _path() -> Path:
    name = f"{processor()}-{architecture()}-{source_digest()[:16]}.json"
    return Cache().root / "thresholds" / name


def _layers(kind: str) -> Iterator[tuple[nn.Module, Tensor]]:
    """A layer of each size, as they are in small denoisers, and what it is given."""
    images = ((192, 4), (128, 8), (64, 16))
    tokens = ((192, 256), (128, 1024), (64, 4096))
    sequences = ((32, 16), (32, 60), (128, 60))
    if kind == "narrow":
        for _, side in images:
            yield nn.Conv2d(4, 64, 3, padding=1), torch.randn(16, 4, side, side)
    elif kind in ("conv", "pointwise"):
        size = 3 if kind == "conv" else 1
        for channels, side in images:
            layer = nn.Conv2d(channels, channels, size, padding=size // 2)
            yield layer, torch.randn(16, channels, side, side)
    elif kind == "linear":
        for features, count in tokens:
            yield nn.Linear(features, features), torch.randn(count, features)
    else:
        for count, length in sequences:
            gru = nn.GRU(96, 96, batch_first=True, bidirectional=True)
            yield gru, torch.randn(count, length, 96)


def _threshold(layer: nn.Module, inputs: Tensor, group: int) -> float:
    best = 0.0
    for density in DENSITIES:
        if _ratio(layer, inputs, density, group) >= 1:
            break
        best = density
    return best


def _ratio(layer: nn.Module, inputs: Tensor, density: float, group: int) -> float:
    """Time of the layer's sparse pass ÷ that of its masked dense one."""
    rng = torch.Generator().manual_seed(0)
    masks = {}
    for name, weight in layer.named_parameters():
        if name.startswith("weight"):
            few = torch.rand(len(weight) // group, *weight.shape[1:], generator=rng) < density
            masks[name] = few.repeat_interleave(group, dim=0)
            with torch.no_grad():
                weight.normal_(std=0.1, generator=rng).mul_(masks[name])
    inputs = inputs.requires_grad_()
    times: dict[str, list[float]] = {"masked": [], "sparse": []}
    for _ in range(_ROUNDS + 1):
        for mode in ("masked", "sparse"):
            use = use_kernels([layer], masks, Choice("sparse" if mode == "sparse" else "masked"))
            _pass(layer, inputs)  # indexes the connections
            times[mode].append(min(_pass(layer, inputs) for _ in range(3)))
            use.stop()
    return min(times["sparse"][1:]) / min(times["masked"][1:])


def _pass(layer: nn.Module, inputs: Tensor) -> float:
    start = time.thread_time()
    outputs = layer(inputs)
    outputs = outputs if isinstance(outputs, Tensor) else outputs[0]
    torch.autograd.grad(outputs, [inputs, *layer.parameters()], torch.ones_like(outputs))
    return time.thread_time() - start
