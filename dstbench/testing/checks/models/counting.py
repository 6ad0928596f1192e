"""What is promised of a model that is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dstbench.contracts import Items
from dstbench.counting.counts import measure
from dstbench.sparsity.layers import NEVER_MASKED, is_connection
from dstbench.testing.checking import Broken
from dstbench.testing.checks.models.subject import BATCH, ModelSubject


def calls_are_counted(subject: ModelSubject) -> None:
    """calls_per_sample is the number of times that the denoiser is called for one sample, from
    which FLOPs per sample follow."""
    denoiser = subject.build()
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    denoiser.register_forward_pre_hook(count)
    subject.samples(denoiser, 1, 1)
    told = subject.model.calls_per_sample
    if calls != told:
        raise Broken(f"calls_per_sample is {told}, but sample called the denoiser {calls} times")


def flops_are_counted(subject: ModelSubject) -> None:
    """Every heavy operator of the denoiser is counted: none is unknown to the count, and a second
    counter (torch's) finds no more than the first."""
    model, denoiser = subject.model, subject.build()
    inputs = model.example()
    network = measure(denoiser, model.sparsifiable(denoiser), inputs, model.calls_per_sample)
    counted = sum(network.flops.by_weight.values())
    with torch.no_grad():
        found = _flops(lambda: denoiser.eval()(*inputs))
    if found > 1.02 * counted:
        raise Broken(
            f"one call on model.example() takes {found:,.0f} FLOPs (multiply-adds) by torch's "
            f"counter, of which {counted:,.0f} were counted: an operator is hidden where the "
            "denoiser is traced"
        )


def example_is_typical(subject: ModelSubject) -> None:
    """The forward pass of the loss takes, per example, the FLOPs of one call on model.example(),
    within a factor of two: training FLOPs are counted from that."""
    model, denoiser = subject.model, subject.build()
    output = denoiser(*model.example())
    if isinstance(output, Tensor) and not output.isfinite().all():
        raise Broken("the denoiser's output for model.example() is not finite")
    of_example = _flops(lambda: denoiser(*model.example()))
    examples = min(BATCH, len(model.data.train))
    of_loss = _flops(lambda: subject.loss(denoiser)) / examples
    if not of_example / 2 <= of_loss <= of_example * 2:
        raise Broken(
            f"per example, the loss takes {of_loss:,.0f} FLOPs (multiply-adds), and one call on "
            f"model.example() {of_example:,.0f}"
        )


def sparsifiable_table_is_complete(subject: ModelSubject) -> None:
    """sparsifiable names each trained weight of convolutions, linear, recurrent and attention
    layers, and each other matrix that a counted product uses; all are parameters of the denoiser,
    and none is of a norm, an embedding or a bias."""
    model, denoiser = subject.model, subject.build()
    table = model.sparsifiable(denoiser)
    parameters = dict(denoiser.named_parameters())
    for name, weight in table.items():
        if parameters.get(name) is not weight:
            raise Broken(f"it names {name}, which is not that parameter of the denoiser")
        if not weight.requires_grad:
            raise Broken(f"it names {name}, which is frozen")
    listed = {id(weight) for weight in table.values()}
    network = measure(denoiser, table, model.example(), model.calls_per_sample)
    used = {id(parameters[name]) for name in network.flops.by_weight if name in parameters}
    for name, owner, own_name, parameter in _owned(denoiser):
        kind = type(owner).__name__
        never = isinstance(owner, NEVER_MASKED) or own_name.startswith("bias")
        if never or parameter.ndim < 2:
            if id(parameter) in listed:
                raise Broken(f"it names {name}, which is no matrix of connections: a {kind}'s")
        elif id(parameter) not in listed and parameter.requires_grad:
            if is_connection(owner, own_name):
                raise Broken(f"it does not name {name}, a weight of a {kind}")
            if id(parameter) in used:
                raise Broken(f"it does not name {name} of a {kind}, which a product uses")


def outline_fits_the_denoiser(subject: ModelSubject) -> None:
    """outline, given the shape of the items, makes a denoiser with the same parameters as build,
    and the same inputs and calls."""
    model, denoiser = subject.model, subject.build()
    shapes = [tuple(item.shape) for item in model.data.train]
    mean = round(sum(shape[0] for shape in shapes) / len(shapes))
    same_shape = len(set(shapes)) == 1
    assumption = "" if same_shape else f"{mean} on average"
    items = Items((mean, *shapes[0][1:]), assumption, model.items.classes)
    with torch.device("meta"):
        outline = subject.cls.outline(subject.settings, items)
    if outline is None:
        raise SkipTest("it has no outline")
    of_outline, of_build = (
        {name: tuple(parameter.shape) for name, parameter in each.named_parameters()}
        for each in (outline.denoiser, denoiser)
    )
    for name in of_build | of_outline:
        if of_outline.get(name) != of_build.get(name):
            raise Broken(
                f"{name} has shape {of_build.get(name)} in the denoiser, "
                f"{of_outline.get(name)} in the outline's, for items {items.shape}"
            )
    inputs, example = outline.inputs, model.example()
    told, real = (
        [tuple(x.shape) if same_shape else x.ndim for x in each if isinstance(x, Tensor)]
        for each in (inputs, example)
    )
    if told != real:
        raise Broken(f"its inputs have shapes {told}, those of model.example() {real}")
    if outline.calls_per_sample != model.calls_per_sample:
        raise Broken(
            f"it tells {outline.calls_per_sample} calls per sample, the model "
            f"{model.calls_per_sample}"
        )


def narrower_networks_fit(subject: ModelSubject) -> None:
    """narrower gives settings that survive a record, from the narrowest to the model's own, and
    numbers of parameters do not fall along them; a model of the narrowest has a finite loss."""
    sizes = list(subject.cls.narrower(subject.settings))
    if not sizes:
        raise SkipTest("it has no narrower networks")
    data = subject.model.data
    items = subject.model.items
    counts: list[int] = []
    for size in sizes:
        told = size.model_dump(mode="json")
        if (read := subject.cls.Settings(**told).model_dump(mode="json")) != told:
            raise Broken(f"the settings {told} are {read} when they are read back")
        with torch.device("meta"):
            outline = subject.cls.outline(size, items)
        if outline is None:
            raise Broken("it has no outline, from which parameters are counted before training")
        counts.append(sum(weight.numel() for weight in outline.denoiser.parameters()))
    if counts != sorted(counts):
        raise Broken(f"the numbers of parameters are {counts}, from the narrowest to the widest")
    own = sum(weight.numel() for weight in subject.build().parameters())
    if counts[-1] != own:
        raise Broken(f"the last of them has {counts[-1]:,} parameters, the model's own {own:,}")
    narrowest = subject.cls(sizes[0], data, subject.model.workspace)
    if not subject.loss(narrowest.build(), model=narrowest).isfinite():
        raise Broken("the loss of the narrowest is not finite")


def _owned(denoiser: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Each parameter's name, the module it is in, its name there, and itself."""
    for place, owner in denoiser.named_modules():
        for own_name, parameter in owner.named_parameters(recurse=False):
            yield f"{place}.{own_name}".lstrip("."), owner, own_name, parameter


def _flops(call: Any) -> float:
    """The multiply-adds of a call, by torch's counter, which counts each of them twice."""
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return counter.get_total_flops() / 2
