"""What is promised of a model's samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import SkipTest

import torch
from safetensors.torch import load, save
from torch import Tensor

from dstbench.contracts import Data, Pictures, SamplingState
from dstbench.errors import DivergedError
from dstbench.testing.checking import Broken, empty_workspace, seeded
from dstbench.testing.checks.models.subject import ModelSubject
from dstbench.testing.items import check_pictures, item_problem
from dstbench.testing.trials.trial import first_difference


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


def exported_models_sample_the_same(subject: ModelSubject) -> None:
    """A model that for_sampling makes of sampling_state and a single blank item builds the same
    denoiser, and samples with it what the model samples."""
    model, denoiser = subject.model, subject.build()
    item = model.data.train[0]
    if not isinstance(item, Tensor):
        raise SkipTest("its items are no tensors, so that it cannot be exported")
    data = Data.blank(item.shape, item.dtype, Pictures(model.data.to_images))
    state = _written_and_read(model.sampling_state())
    other = subject.cls.for_sampling(subject.settings, data, state, empty_workspace())
    built = other.build()
    try:
        built.load_state_dict(denoiser.state_dict())
    except RuntimeError as error:
        raise Broken(f"it builds another denoiser: {error}") from None
    drawn = _as_tensors(subject.samples(denoiser, 3, 2))
    without_data = _as_tensors(subject.samples(built, 3, 2, model=other))
    if difference := first_difference(drawn, without_data):
        raise Broken(f"as drawn by the model, and by one that was made without data, {difference}")


def _written_and_read(state: SamplingState) -> SamplingState:
    """The state as it comes back from files."""
    for name, value in state.items():
        if not isinstance(value, Tensor | float | int | str):
            raise Broken(
                f"sampling_state has {name} of type {type(value).__name__}: it is neither a "
                "tensor nor a number nor a text"
            )
    tensors = {
        name: value.cpu().clone().contiguous()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    others = {name: value for name, value in state.items() if name not in tensors}
    return {**json.loads(json.dumps(others)), **load(save(tensors))}


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
