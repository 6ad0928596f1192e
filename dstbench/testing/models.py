"""What is promised of a model: checked on a few small items."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import SkipTest

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dstbench.contracts import Data, Items, Model
from dstbench.counting import measure
from dstbench.errors import DivergedError
from dstbench.settings import TrainingSettings
from dstbench.sparsity import DynamicSparsifier, Layer
from dstbench.sparsity.layers import NEVER_MASKED, is_connection
from dstbench.testing import settings
from dstbench.testing.checking import Broken, Subject, empty_workspace, seeded
from dstbench.testing.datasets import check_pictures, item_problem
from dstbench.testing.synthetic import CANDIDATES
from dstbench.testing.trials import first_difference
from dstbench.training import Trainer

BATCH = 8

STEPS = 100
"""In which the loss of one batch must fall."""

FALL = 0.9
"""Part of the first loss that the last one must be below."""


@dataclass
class ModelSubject(Subject):
    """A model, prepared once for all checks."""

    cls: type[Model]

    @cached_property
    def model(self) -> Model:
        """On the first data that it can be trained with, and makes samples like."""
        if self.given_data is not None:
            return self.prepared(self.given_data)
        if self.cls.accepts not in CANDIDATES:
            raise SkipTest(
                f"the suite has no data of kind '{self.cls.accepts}': give checks(…, data=…)"
            )
        usable: list[Model] = []
        failure: Exception | None = None
        for make in CANDIDATES[self.cls.accepts]:
            try:
                usable.append(self.prepared(make()))
                if self._samples_fit(usable[-1]):
                    return usable[-1]
            except Exception as error:  # of any kind: the model was made for other items
                failure = error
        if failure and not usable:
            raise failure
        return usable[0]

    def prepared(self, data: Data) -> Model:
        """The model on this data, with which a loss can be computed."""
        model = self.cls(self.settings, data, empty_workspace())
        torch.manual_seed(0)
        model.loss(model.build(), model.batch("train", torch.arange(2)), generator(0))
        return model

    def _samples_fit(self, model: Model) -> bool:
        """Whether it makes items of the shape of these, where all have the same."""
        if model.accepts != "images":
            return True
        with torch.no_grad():
            samples = model.sample(model.build().eval(), 1, 1, generator(0))
        return bool(samples[0].shape == model.data.train[0].shape)

    def build(self, seed: int = 0) -> nn.Module:
        model = self.model
        torch.manual_seed(seed)
        return model.build()

    def loss(self, denoiser: nn.Module, seed: int = 0, model: Model | None = None) -> Tensor:
        """Of the first examples."""
        model = model or self.model
        count = min(BATCH, len(model.data.train))
        batch = model.batch("train", torch.arange(count))
        return model.loss(denoiser, batch, generator(seed))

    @torch.no_grad()
    def samples(
        self, denoiser: nn.Module, count: int, batch_size: int, seed: int = 0
    ) -> Sequence[Any] | Tensor:
        """As the harness draws them."""
        denoiser.eval()
        return self.model.sample(denoiser, count, batch_size, generator(seed))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
            states.append(_weights(subject.build(seed=0)))
    if difference := first_difference(*states):
        raise Broken(f"built twice under the same seed, {difference}")
    if not first_difference(states[0], _weights(subject.build(seed=1))):
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
    optimizer = torch.optim.AdamW(_trained(denoiser), lr=2e-3)
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


def samples_fit_the_data(subject: ModelSubject) -> None:
    """Samples are items such as the dataset has them, as many as asked for, on the CPU, and
    to_images takes them."""
    model, denoiser = subject.model, subject.build()
    item = model.data.train[0]
    for count, batch_size in ((3, 2), (1, 4)):
        samples = subject.samples(denoiser, count, batch_size)
        if len(samples) != count:
            raise Broken(f"sample({count}, batch_size={batch_size}) made {len(samples)} samples")
        for index in range(count):
            sample = samples[index]
            if problem := item_problem(model.accepts, sample):
                raise Broken(f"sample {index} of {count} {problem}")
            if isinstance(sample, Tensor) and sample.device.type != "cpu":
                raise Broken(f"sample {index} of {count} is on {sample.device}")
            if model.accepts == "images" and sample.shape != item.shape:
                raise Broken(
                    f"sample {index} of {count} has shape {tuple(sample.shape)}; training images "
                    f"have {tuple(item.shape)}"
                )
        check_pictures(model.data.to_images, samples, "samples")


def samples_draw_from_the_rng(subject: ModelSubject) -> None:
    """Samples follow from the rng alone, whatever the global generators; another rng makes
    others."""
    denoiser = subject.build()
    drawn = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 1)):
        with seeded(global_seed):
            drawn.append(_as_tensors(subject.samples(denoiser, 3, 2, seed)))
    same_rng, other_rng = first_difference(drawn[0], drawn[1]), first_difference(drawn[0], drawn[2])
    if same_rng:
        raise Broken(f"with the same rng and other seeds of the global generators, {same_rng}")
    if not other_rng:
        raise Broken("with the seeds 0 and 1 of the rng, the samples are the same")


def samples_do_not_depend_on_batch_size(subject: ModelSubject) -> None:
    """A sample starts from the same noise whatever the batch size, and is the same but for the
    rounding of sums."""
    denoiser = subject.build()
    together = _as_tensors(subject.samples(denoiser, 5, 5))
    for batch_size in (1, 2):
        apart = _as_tensors(subject.samples(denoiser, 5, batch_size))
        for name, sample in together.items():
            other = apart[name]
            if sample.shape != other.shape or not _about_the_same(sample, other):
                raise Broken(
                    f"{name} of 5 is another one with batch size {batch_size} than with 5: "
                    f"{_shown(other)}, not {_shown(sample)}"
                )


def divergence_is_told(subject: ModelSubject) -> None:
    """Where the denoiser's output is not finite, sampling raises a DivergedError."""
    denoiser = subject.build()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.fill_(torch.nan)
    try:
        subject.samples(denoiser, 2, 2)
    except DivergedError:
        return
    raise Broken("with a denoiser whose weights are all NaN, sampling went on as if all was well")


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
    counted = sum(network.flops.modules[""].values())
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


def maskable_table_is_complete(subject: ModelSubject) -> None:
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
    used = {id(parameters[name]) for name in network.flops.modules[""] if name in parameters}
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


def maskable_weights_are_trained(subject: ModelSubject) -> None:
    """Each weight that may be masked receives a gradient in the first steps of a training."""
    denoiser = subject.build().train()
    untrained = dict(subject.model.sparsifiable(denoiser))
    optimizer = torch.optim.AdamW(_trained(denoiser), lr=1e-3)
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


def outline_fits_the_denoiser(subject: ModelSubject) -> None:
    """outline, told the shape of the items, makes a denoiser with the same parameters as build, and
    the same inputs and calls."""
    model, denoiser = subject.model, subject.build()
    shapes = [tuple(item.shape) for item in model.data.train]
    mean = round(sum(shape[0] for shape in shapes) / len(shapes))
    same_shape = len(set(shapes)) == 1
    items = Items((mean, *shapes[0][1:]), "" if same_shape else f"{mean} on average")
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
    """The harness can train it sparsely: with averaged weights, clipping and micro-batches, in fp32
    and bf16, and in channels_last."""
    variants: list[dict[str, Any]] = [{}, {"precision": "bf16"}, {"channels_last": True}]
    for variant in variants:
        sparsifier = _ByGradient(0.5, total_steps=8, exploration_frequency=2)
        training = TrainingSettings(
            steps=8, batch_size=4, micro_batches=2, gradient_clip=1.0, **variant
        )
        trainer = Trainer(subject.model, subject.build(), sparsifier, training, seed=0)
        for _ in range(4):
            trainer.take_step()
            for layer in sparsifier.layers:
                outside = layer.weight.detach()[~layer.mask]
                if outside.count_nonzero():
                    raise Broken(
                        f"{layer.name} is not zero at {int(outside.count_nonzero())} of "
                        f"{len(outside)} inactive connections after step {trainer.step}, with "
                        f"{variant or 'fp32'}: something else than the optimizer changes it"
                    )


def facts_can_be_recorded(subject: ModelSubject) -> None:
    """facts are numbers and texts, which a record can hold."""
    facts = subject.model.facts()
    for name, value in facts.items():
        if not isinstance(name, str) or not isinstance(value, float | int | str):
            raise Broken(f"{name} = {value!r} is a {type(value).__name__}")
    json.dumps(facts)


CHECKS = (
    *settings.CHECKS,
    preparing_is_deterministic,
    building_is_deterministic,
    batches_cover_an_epoch,
    loss_is_finite,
    loss_draws_from_the_rng,
    loss_falls,
    samples_fit_the_data,
    samples_draw_from_the_rng,
    samples_do_not_depend_on_batch_size,
    divergence_is_told,
    calls_are_counted,
    flops_are_counted,
    example_is_typical,
    maskable_table_is_complete,
    maskable_weights_are_trained,
    only_the_denoiser_is_trained,
    outline_fits_the_denoiser,
    the_denoiser_can_be_saved,
    training_under_masks_works,
    facts_can_be_recorded,
)


class _ByGradient(DynamicSparsifier):
    """Grows by gradient."""

    needs_dense_gradient = True

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        assert layer.dense_gradient is not None
        return layer.dense_gradient.abs()


def _weights(denoiser: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in denoiser.state_dict().items()}


def _trained(denoiser: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in denoiser.parameters() if parameter.requires_grad]


def _owned(denoiser: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Each parameter's name, the module it is in, its name there, and itself."""
    for place, owner in denoiser.named_modules():
        for own_name, parameter in owner.named_parameters(recurse=False):
            yield f"{place}.{own_name}".lstrip("."), owner, own_name, parameter


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


def _flops(call: Any) -> float:
    """Multiply-adds, by torch's counter, which counts each of them twice."""
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return counter.get_total_flops() / 2


def _as_tensors(samples: Sequence[Any] | Tensor) -> Mapping[str, Tensor]:
    return {f"sample {index}": torch.as_tensor(sample) for index, sample in enumerate(samples)}


def _about_the_same(one: Tensor, other: Tensor) -> bool:
    """Nearly all elements are nearly equal: a threshold may turn an invisible difference into a
    visible one, but not often."""
    one, other = one.double(), other.double()
    tolerance = 0.02 * float((one - one.mean()).abs().max()) + 1e-6
    return float(((one - other).abs() > tolerance).double().mean()) <= 0.05


def _shown(sample: Tensor) -> str:
    return f"{tuple(sample.shape)}, mean {float(sample.double().mean()):.4g}"
