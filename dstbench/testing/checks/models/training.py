"""What is promised of a model in training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from dstbench.execution.training import Trainer
from dstbench.settings import TrainingSettings
from dstbench.sparsity import DynamicSparsifier, Layer
from dstbench.testing.checking import Broken, empty_workspace, seeded
from dstbench.testing.checks.models.subject import (
    BATCH,
    ModelSubject,
    copied_weights,
    generator,
    trained_parameters,
)
from dstbench.testing.trials.trial import first_difference

STEPS = 100
"""Optimizer steps within which the loss of one batch must fall."""

FALL = 0.9
"""Fraction of the first loss that a later one must be below."""


def preparing_is_deterministic(subject: ModelSubject) -> None:
    """What a model prepares is the same each time, whatever the global generators, and the same
    from the cache."""
    first, denoiser = subject.model, subject.build().eval()
    before = subject.loss(denoiser).item()
    for how, workspace in (("anew", empty_workspace()), ("from the cache", first.workspace)):
        with seeded(1):
            again = subject.cls(subject.settings, first.data, workspace)
        if (after := subject.loss(denoiser, model=again).item()) != before:
            raise Broken(
                f"the loss of the same denoiser, batch and rng was {before}; with the model "
                f"prepared {how}, it is {after}"
            )


def building_is_deterministic(subject: ModelSubject) -> None:
    """The denoiser's initial weights follow from torch's global generator alone: the same seed
    makes the same, another seed others."""
    states = []
    for others in (1, 2):
        with seeded(others):  # NumPy's and Python's generators differ, torch's does not
            states.append(copied_weights(subject.build(seed=0)))
    if difference := first_difference(*states):
        raise Broken(f"built twice under the same seed, {difference}")
    if not first_difference(states[0], copied_weights(subject.build(seed=1))):
        raise Broken("built under seeds 0 and 1, the denoiser has the same weights")


def batches_cover_an_epoch(subject: ModelSubject) -> None:
    """An epoch's batches are len(train) // batch_size tensors of batch_size indices (int64, CPU),
    no example twice, and follow from the rng alone."""
    model, examples = subject.model, len(subject.model.data.train)
    for size in sorted({1, 3, min(BATCH, examples)}):
        drawn = []
        for global_seed in (1, 2):
            with seeded(global_seed):
                drawn.append(list(model.batches(size, generator(0))))
        first, second = drawn
        for batch in first:
            if not (batch.dtype == torch.int64 and batch.shape == (size,) and not batch.is_cuda):
                raise Broken(
                    f"a batch of size {size} is {batch.dtype} of shape {tuple(batch.shape)} on "
                    f"{batch.device}"
                )
        indices = torch.cat(first).tolist() if first else []
        if len(first) != examples // size or len(set(indices)) != len(indices):
            raise Broken(
                f"{len(first)} batches of size {size} hold {len(set(indices))} different examples "
                f"of {examples}; there should be {examples // size} without an example twice"
            )
        if not set(indices) <= set(range(examples)):
            raise Broken(f"batches of size {size} hold index {max(indices)}, of {examples}")
        if [b.tolist() for b in first] != [b.tolist() for b in second]:
            raise Broken(f"with the same rng, the batches of size {size} are others each time")


def loss_is_finite(subject: ModelSubject) -> None:
    """The loss is a finite scalar with a gradient, on a batch of either split, one example
    included."""
    model, denoiser = subject.model, subject.build()
    for split, count in (("train", BATCH), ("train", 1), ("validation", 1)):
        indices = torch.arange(min(count, len(model.data.split(split))))  # type: ignore[arg-type]
        if not len(indices):
            continue
        batch = model.batch(split, indices)  # type: ignore[arg-type]
        loss = model.loss(denoiser, batch, generator(0))
        where = f"the loss of {len(indices)} examples of {split}"
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            what = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise Broken(f"{where} is no scalar tensor but {what}")
        if not loss.isfinite():
            raise Broken(f"{where} is {loss.item()}")
        if not loss.requires_grad:
            raise Broken(f"{where} has no gradient")


def loss_draws_from_the_rng(subject: ModelSubject) -> None:
    """In evaluation mode, the loss of a batch follows from the rng alone, whatever the global
    generators."""
    denoiser = subject.build().eval()
    losses = []
    for global_seed in (1, 1, 2):
        with seeded(global_seed):
            losses.append(subject.loss(denoiser).item())
    first, same, other = losses
    if first != same:
        raise Broken(f"with the same rng twice, the loss is {first} and {same}")
    if first != other:
        raise Broken(
            f"with the same rng, but other seeds of the global generators, the loss is {first} and "
            f"{other}: something is drawn from one of them"
        )


def loss_falls(subject: ModelSubject) -> None:
    """The loss of one batch under one noise falls by a tenth within 100 steps of AdamW."""
    denoiser = subject.build().train()
    optimizer = torch.optim.AdamW(trained_parameters(denoiser), lr=2e-3)
    losses: list[float] = []
    for _ in range(STEPS):
        torch.manual_seed(0)  # the same dropout, too
        loss = subject.loss(denoiser)
        losses.append(loss.item())
        if losses[-1] < FALL * losses[0]:
            return
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    raise Broken(
        f"it was {losses[0]:.4g} before the first step, {losses[STEPS // 2]:.4g} after "
        f"{STEPS // 2}, and {losses[-1]:.4g} after {STEPS - 1} (AdamW, learning rate 0.002, "
        f"{BATCH} examples)"
    )


def sparsifiable_weights_are_trained(subject: ModelSubject) -> None:
    """Each weight that may be masked receives a gradient in the first steps of a training."""
    denoiser = subject.build().train()
    untrained = dict(subject.model.sparsifiable(denoiser))
    optimizer = torch.optim.AdamW(trained_parameters(denoiser), lr=1e-3)
    for step in range(3):  # the first gradients vanish behind layers that start at zero
        optimizer.zero_grad()
        subject.loss(denoiser, seed=step).backward()  # type: ignore[no-untyped-call]
        untrained = {
            name: weight
            for name, weight in untrained.items()
            if weight.grad is None or not weight.grad.count_nonzero()
        }
        optimizer.step()
    if untrained:
        raise Broken(f"{', '.join(untrained)}: no gradient in three steps; is it used in the loss?")


def only_the_denoiser_is_trained(subject: ModelSubject) -> None:
    """Everything that the loss has a gradient for is a parameter of the denoiser: nothing else is
    trained, counted or masked."""
    denoiser = subject.build().train()
    own = {id(parameter) for parameter in denoiser.parameters()}
    for leaf in _leaves(subject.loss(denoiser)):
        if id(leaf) not in own:
            known = {
                id(parameter): f"{name} of the model's {attribute}"
                for attribute, value in vars(subject.model).items()
                if isinstance(value, nn.Module)
                for name, parameter in value.named_parameters()
            }
            what = known.get(id(leaf), "a tensor")
            raise Broken(
                f"the loss has a gradient for {what}, of shape {tuple(leaf.shape)}, which is no "
                "parameter of the denoiser"
            )


def the_denoiser_can_be_saved(subject: ModelSubject) -> None:
    """The state_dict of a denoiser, loaded into another one, makes the same of it: nothing that it
    computes with is left out."""
    denoiser, other = subject.build(seed=0), subject.build(seed=1)
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "denoiser.safetensors")
        save_model(denoiser, path)
        load_model(other, path)
    losses = [subject.loss(each.eval()).item() for each in (denoiser, other)]
    if losses[0] != losses[1]:
        raise Broken(
            f"the loss was {losses[0]}; after saving, and loading into a denoiser built under "
            f"another seed, it is {losses[1]}: register what is drawn at random as a buffer"
        )


def training_under_masks_works(subject: ModelSubject) -> None:
    """The harness can train the model sparsely: with averaged weights, clipping and
    micro-batches, in fp32 and bf16, and in channels_last; the optimizer alone changes weights."""
    variants: list[dict[str, Any]] = [{}, {"precision": "bf16"}, {"channels_last": True}]
    for variant in variants:
        sparsifier = _ByGradient(0.5, total_steps=8, exploration_frequency=2)
        training = TrainingSettings(
            steps=8, batch_size=4, micro_batches=2, gradient_clip=1.0, **variant
        )
        trainer = Trainer(subject.model, subject.build(), sparsifier, training, seed=0)
        for _ in range(4):
            trainer.take_step()
            sparsifier.unpack()
            before = [layer.weight.detach().clone() for layer in sparsifier.layers]
            with torch.no_grad():
                subject.loss(trainer.denoiser)
            for layer, weight in zip(sparsifier.layers, before, strict=True):
                outside = layer.weight.detach()[~layer.mask]
                if outside.count_nonzero():
                    raise Broken(
                        f"{layer.name} is not zero at {int(outside.count_nonzero())} of "
                        f"{len(outside)} inactive connections after step {trainer.step}, with "
                        f"{variant or 'fp32'}: something else than the optimizer changes it"
                    )
                if not torch.equal(layer.weight, weight):
                    raise Broken(
                        f"{layer.name} is another after a loss was computed, with "
                        f"{variant or 'fp32'}: what a model writes to a masked weight is lost"
                    )


def metadata_can_be_recorded(subject: ModelSubject) -> None:
    """The model's metadata are numbers and strings, which a record can hold."""
    metadata = subject.model.metadata()
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, float | int | str):
            raise Broken(f"{name} = {value!r} is a {type(value).__name__}")
    json.dumps(metadata)


class _ByGradient(DynamicSparsifier):
    """Grows by gradient."""

    needs_dense_gradient = True

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs()


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """The tensors that a backward pass would give a gradient."""
    todo, seen = [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        todo += [each for each, _ in node.next_functions]
