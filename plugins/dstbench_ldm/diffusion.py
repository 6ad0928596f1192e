"""What models that diffuse images, or their latents, have in common: loss, sampling, labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dstbench.contracts import Data, Items, Model, SamplingState, Split, Workspace
from dstbench.errors import DivergedError
from dstbench_ldm.classes import Classes
from dstbench_ldm.settings import LabelSettings

S = TypeVar("S", bound=LabelSettings)

Predict = Callable[[Tensor, Tensor], Tensor]
"""The denoiser's output for noisy examples (N, C, h, w) at times (N,)."""

CLASSES = "classes"
"""The name of the labels in a sampling state."""


class Encoded(Protocol):
    """A dataset's images in the form that is diffused, and the way back."""

    @property
    def metadata(self) -> Mapping[str, float | int | str]:
        """What is worth recording."""

    def examples(self, split: Split, indices: Tensor) -> Tensor:
        """Float examples (N, C, h, w) on the model's device, or, where either is to be seen, pairs
        (N, 2, C, h, w) of an image and its mirror image."""

    def decode(self, examples: Tensor) -> Tensor:
        """Examples (N, C, h, w) to uint8 images (N, C, H, W)."""


class Objective(Protocol):
    """How examples become noisy, what the denoiser learns of them, and how samples are drawn."""

    def times(self, count: int, rng: torch.Generator) -> Tensor:
        """Random times (count,) of training, as the denoiser is told them."""

    def noisy(self, examples: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the denoiser sees of examples (N, C, h, w) at these times."""

    def target(self, examples: Tensor, noise: Tensor) -> Tensor:
        """What it is to predict."""

    def fresh(self, count: int, rng: torch.Generator) -> Sequence[torch.Generator]:
        """A source of noise for each sample; none where no noise is added. ``rng`` is left as it
        is."""

    def denoised(self, predict: Predict, noise: Tensor, fresh: Sequence[torch.Generator]) -> Tensor:
        """Examples made of pure noise (N, C, h, w)."""


class ImageDiffusion(Model[S]):
    """A diffusion model of images, conditional on their labels where the settings say so.

    Its denoiser takes noisy examples (N, C, h, w), times (N,), and indices of labels (N,) where it
    is conditional. The derived class sets ``first_stage`` and ``objective``, and has an outline.

    Raises :class:`~dstbench.errors.ConfigError` where it is conditional on labels that are not
    there.
    """

    accepts: ClassVar[str] = "images"
    first_stage: Encoded
    objective: Objective

    def __init__(self, settings: S, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        self.classes = Classes.of(data) if settings.class_conditional else None
        self._indices = (
            {split: self.classes.indices(data.labels[split]) for split in data.labels}
            if self.classes
            else {}
        )

    @classmethod
    def without_data(
        cls, settings: S, data: Data, state: SamplingState, workspace: Workspace
    ) -> Self:
        """What :meth:`for_sampling` can begin with: the labels are those of the state."""
        model = cls.__new__(cls)
        Model.__init__(model, settings, data, workspace)
        conditional = settings.class_conditional
        model.classes = Classes.from_text(state[CLASSES]) if conditional else None
        return model

    def sampling_state(self) -> SamplingState:
        return {CLASSES: self.classes.to_text()} if self.classes else {}

    @property
    def items(self) -> Items:
        classes = len(self.classes.names) if self.classes else None
        return Items(tuple(self.data.train[0].shape), classes=classes)

    @property
    def labels(self) -> Sequence[str | int]:
        return self.classes.names if self.classes else ()

    @property
    @abstractmethod
    def example_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of what is diffused."""

    def batch(self, split: Split, indices: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Examples (N, C, h, w) as the denoiser is to make them; with horizontal flips, those for
        training are pairs (N, 2, C, h, w): of the image, and of its mirror image. With labels,
        also their indices (N,)."""
        examples = self.first_stage.examples(split, indices)
        if not self.classes:
            return examples
        return examples, self._indices[split][indices].to(examples.device)

    def loss(
        self,
        denoiser: nn.Module,
        batch: Tensor | tuple[Tensor, Tensor],
        rng: torch.Generator,
    ) -> Tensor:
        """Mean squared error of what is predicted; of a pair, either example is seen."""
        examples, labels = batch if isinstance(batch, tuple) else (batch, None)
        times = self.objective.times(len(examples), rng)
        noise = torch.randn((len(examples), *examples.shape[-3:]), generator=rng)
        noise = noise.to(examples.device)
        if examples.dim() == 5:
            chosen = torch.randint(2, (len(examples),), generator=rng)
            examples = examples[torch.arange(len(examples)), chosen]
        told = []
        if self.classes and labels is not None:
            told = [self.classes.partly_hidden(labels, self.settings.label_dropout, rng)]
        times = times.to(examples.device)
        noisy = self.objective.noisy(examples, noise, times)
        predicted = denoiser(noisy, times, *told)
        return F.mse_loss(predicted, self.objective.target(examples, noise))

    @torch.no_grad()
    def sample(
        self,
        denoiser: nn.Module,
        count: int,
        batch_size: int,
        rng: torch.Generator,
        labels: Sequence[str | int] | None = None,
    ) -> Tensor:
        """Samples, with labels that are given or drawn.

        Every sample starts from the same noise whatever the settings of the sampler are, and has
        fresh noise of its own in each step, if any, whichever batch it is in.

        Raises :class:`~dstbench.errors.DivergedError` where the denoiser's output is not finite.
        """
        fresh = self.objective.fresh(count, rng)
        indices = self._chosen(labels, count, rng)
        noise = torch.randn((count, *self.example_shape), generator=rng)
        device = self.workspace.device
        was_training = denoiser.training
        denoiser.eval()
        images = []
        try:
            for start in range(0, count, batch_size):
                part = slice(start, start + batch_size)
                told = None if indices is None else indices[part].to(device)
                examples = self.objective.denoised(
                    self._predict(denoiser, told), noise[part].to(device), fresh[part]
                )
                # A first stage could turn NaN into an ordinary code: the images would look fine.
                if not examples.isfinite().all():
                    raise DivergedError(
                        "the denoiser's samples are not finite: its training has diverged"
                    )
                images.append(self.first_stage.decode(examples).cpu())
        finally:
            denoiser.train(was_training)
        return torch.cat(images)

    def metadata(self) -> dict[str, float | int | str]:
        return dict(self.first_stage.metadata)

    def _chosen(
        self, labels: Sequence[str | int] | None, count: int, rng: torch.Generator
    ) -> Tensor | None:
        if not self.classes:
            return None
        return self.classes.drawn(count, rng) if labels is None else self.classes.indices(labels)

    def _predict(self, denoiser: nn.Module, indices: Tensor | None) -> Predict:
        """The denoiser for examples of these labels, guided where the settings say so.

        'Classifier-Free Diffusion Guidance' (Ho & Salimans, 2022, arXiv 2207.12598), equation 6,
        whose w is our scale less 1.
        """
        if not self.classes or indices is None:
            return denoiser
        hidden, scale = torch.full_like(indices, self.classes.hidden), self.settings.guidance_scale

        def predict(examples: Tensor, times: Tensor) -> Tensor:
            with_label: Tensor = denoiser(examples, times, indices)
            if scale == 1:
                return with_label
            without: Tensor = denoiser(examples, times, hidden)
            return without + scale * (with_label - without)

        return predict
