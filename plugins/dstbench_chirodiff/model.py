"""ChiroDiff, as the harness drives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dstbench.contracts import Data, Items, Model, Outline, SamplingState, Split, Workspace
from dstbench.errors import DataError, DivergedError
from dstbench_chirodiff.denoiser import Denoiser
from dstbench_chirodiff.diffusion import Diffusion
from dstbench_chirodiff.settings import ChiroDiffSettings, Representation

PEN_UP = 0.8
"""A generated pen above this is lifted."""

MOST = 1_000_000
"""Points at most of a sketch that an exported model makes."""

POOL = 16
"""Batches that are filled by length from as many batches' worth of random sketches."""


@dataclass(frozen=True)
class Batch:
    """Padded sequences of points (N, T, 3) and how many of each count (N,), on the CPU."""

    points: Tensor
    lengths: Tensor


class ChiroDiff(Model[ChiroDiffSettings]):
    """ChiroDiff: a bidirectional GRU predicts the noise in the points of a sketch.

    *ChiroDiff: Modelling chirographic data with Diffusion Models* (Das et al., ICLR 2023, arXiv
    2304.03785), unconditional. A sketch's first point, which is the origin, is not diffused.

    Sparsifiable are all matrices of the GRU and both linear layers. The Erdős–Rényi densities of a
    GRU matrix are those of its two-dimensional shape, (3 · units, inputs): its three gates are one
    matrix.

    Raises :class:`~dstbench.errors.DataError` for a sketch of fewer than two points.
    """

    name = "chirodiff"
    accepts = "sketches"
    Settings = ChiroDiffSettings
    sampling_settings = ("sampling_steps", "timestep_spacing", "sampler", "variance_strength")
    trial_settings: ClassVar[Mapping[str, Any]] = {"layers": 2, "units": 8, "sampling_steps": 4}

    def __init__(self, settings: ChiroDiffSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        self.diffusion = Diffusion(settings.diffusion_steps)
        self.sequences: dict[Split, list[Tensor]] = {
            "train": _sequences(data, "train", settings.representation),
            "validation": _sequences(data, "validation", settings.representation),
        }
        self.lengths = torch.tensor([len(sequence) for sequence in self.sequences["train"]])

    @classmethod
    def for_sampling(
        cls,
        settings: ChiroDiffSettings,
        data: Data,
        state: SamplingState,
        workspace: Workspace,
    ) -> ChiroDiff:
        lengths = torch.as_tensor(state["lengths"]).long()
        if lengths.ndim != 1 or not len(lengths) or not 0 < lengths.min() <= lengths.max() <= MOST:
            raise ValueError(f"lengths are from 1 to {MOST:,} points")
        model = cls(settings, data, workspace)
        model.lengths = lengths
        return model

    def sampling_state(self) -> SamplingState:
        """The number of diffused points of each training sketch: samples have those of random
        ones."""
        return {"lengths": self.lengths.int()}

    @classmethod
    def outline(cls, settings: ChiroDiffSettings, items: Items) -> Outline:
        """The GRU, called on all points but the first of an item (points, 3)."""
        inputs = _example(items.shape[0] - 1)
        return Outline(_denoiser(settings), inputs, settings.sampling_steps)

    @classmethod
    def narrower(cls, settings: ChiroDiffSettings) -> list[ChiroDiffSettings]:
        """Fewer units per layer, in steps of a thousandth at least."""
        units = range(settings.units, 0, -max(1, settings.units // 1000))
        return [settings.model_copy(update={"units": each}) for each in reversed(units)]

    def batches(self, batch_size: int, rng: torch.Generator) -> Sequence[Tensor]:
        """Sketches of about the same length together, so that little time goes into padding."""
        count = len(self.lengths) // batch_size
        chosen = torch.randperm(len(self.lengths), generator=rng)[: count * batch_size]
        pools = torch.split(chosen, POOL * batch_size)
        by_length = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools])
        return by_length.view(count, batch_size)[torch.randperm(count, generator=rng)].unbind()

    def batch(self, split: Split, indices: Tensor) -> Batch:
        sequences = [self.sequences[split][index] for index in indices.tolist()]
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        return Batch(_padded(sequences).to(self.workspace.device), lengths)

    def loss(self, denoiser: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        """Mean squared error of the predicted noise over each sequence's points, then over the
        sequences."""
        points, lengths = batch.points, batch.lengths
        steps = torch.randint(1, self.diffusion.steps + 1, (len(lengths),), generator=rng)
        # Padding takes no random numbers, so that it cannot change the loss.
        noises = torch.randn(int(lengths.sum()), points.shape[-1], generator=rng)
        noise = torch.zeros_like(points)
        counts = (torch.arange(points.shape[1]) < lengths[:, None]).to(points.device)
        noise[counts] = noises.to(points.device)
        noisy = self.diffusion.noisy(points, noise, steps)
        predicted = denoiser(noisy, lengths, self._times(steps))
        errors = (predicted - noise).square().mean(dim=-1)
        per_sequence = torch.where(counts, errors, 0).sum(dim=1) / lengths.to(points.device)
        return per_sequence.mean()

    @torch.no_grad()
    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> list[Tensor]:
        """Sketches (points, 3), by ancestral sampling or DDIM; their lengths are those of random
        training sketches.

        Raises :class:`~dstbench.errors.DivergedError` where the denoiser's output is not finite.
        """
        seeds = torch.randint(2**62, (count,), generator=rng).tolist()
        # Each sample has its own random numbers, whichever batch it is in.
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        choices = [torch.randint(len(self.lengths), (), generator=each) for each in rngs]
        lengths = self.lengths[torch.stack(choices)]
        samples: dict[int, Tensor] = {}
        was_training = denoiser.training
        denoiser.eval()
        try:
            for chosen in torch.split(lengths.argsort(stable=True), batch_size):
                points = self._denoise(denoiser, lengths[chosen], [rngs[i] for i in chosen])
                samples |= zip(chosen.tolist(), points, strict=True)
        finally:
            denoiser.train(was_training)
        return [to_sketch(samples[i], self.settings.representation) for i in range(count)]

    def example(self) -> tuple[Tensor, Tensor, Tensor]:
        """A sequence (1, T, 3) of the training sketches' mean length, that length and a time."""
        with self.workspace.device:
            return _example(round(float(self.lengths.double().mean())))

    def metadata(self) -> dict[str, float | int | str]:
        """The mean number of diffused points of a training sketch, and the dense denoiser's FLOPs
        for each: every weight is used once."""
        with torch.device("meta"):
            weights = self.sparsifiable(_denoiser(self.settings)).values()
        return {
            "mean_points": float(self.lengths.double().mean()),
            "dense_flops_per_point": sum(weight.numel() for weight in weights),
        }

    def _times(self, steps: Tensor) -> Tensor:
        return (steps / self.diffusion.steps).to(self.workspace.device)

    def _denoise(
        self, denoiser: nn.Module, lengths: Tensor, rngs: Sequence[torch.Generator]
    ) -> list[Tensor]:
        """Sequences of the given lengths, each from its own noise, on the CPU."""

        def noise() -> Tensor:
            shapes = zip(lengths.tolist(), rngs, strict=True)
            drawn = [torch.randn(length, 3, generator=rng) for length, rng in shapes]
            return _padded(drawn).to(self.workspace.device)

        points, settings, diffusion = noise(), self.settings, self.diffusion
        denoised = diffusion.denoised_by_ddim if settings.sampler == "ddim" else diffusion.denoised
        leading = settings.timestep_spacing == "leading"
        for step, to in diffusion.levels(settings.sampling_steps, leading=leading):
            times = self._times(torch.tensor(step)).expand(len(lengths))
            predicted = denoiser(points, lengths, times)
            strength = settings.variance_strength
            points, deviation = denoised(points, predicted, step, to, strength)
            if to > 0:
                points = points + deviation * noise()
        parts = zip(points.cpu(), lengths.tolist(), strict=True)
        sequences = [sequence[:length] for sequence, length in parts]
        if not all(bool(sequence.isfinite().all()) for sequence in sequences):
            raise DivergedError("the denoiser's samples are not finite: its training has diverged")
        return sequences


def _denoiser(settings: ChiroDiffSettings) -> Denoiser:
    return Denoiser(settings.representation, settings.layers, settings.units)


def _example(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """A sequence (1, length, 3), its length on the CPU, and a time."""
    lengths = torch.tensor([length], device="cpu")
    return torch.zeros(1, length, 3), lengths, torch.ones(1)


def to_sequence(sketch: Tensor, representation: Representation) -> Tensor:
    """What is diffused of a sketch (points, 3): all points but the first, (points - 1, 3), as
    places or as steps from the point before."""
    if representation == "absolute":
        return sketch[1:].clone()
    return torch.cat([sketch[:, :2].diff(dim=0), sketch[1:, 2:]], dim=1)


def to_sketch(sequence: Tensor, representation: Representation) -> Tensor:
    """A sketch (points, 3) from its diffused points; its first point is the origin, where the pen
    stays down."""
    places = sequence[:, :2]
    if representation == "velocity":
        places = places.cumsum(dim=0)
    pens = (sequence[:, 2:] > PEN_UP).to(sequence.dtype)
    return torch.cat([sequence.new_zeros(1, 3), torch.cat([places, pens], dim=1)])


def _sequences(data: Data, split: Split, representation: Representation) -> list[Tensor]:
    for index, sketch in enumerate(data.split(split)):
        if len(sketch) < 2:
            raise DataError(
                f"sketch {index} of the {split} split has {len(sketch)} point(s); chirodiff needs "
                "at least two"
            )
    return [to_sequence(sketch, representation) for sketch in data.split(split)]


def _padded(sequences: list[Tensor]) -> Tensor:
    padded: Tensor = pad_sequence(sequences, batch_first=True)
    return padded
