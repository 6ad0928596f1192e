"""The losses of a training: of a step's batch, with its gradients, and of the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dstbench.contracts import Model
from dstbench.seeds import derive, seed_generators
from dstbench.settings import TrainingSettings


class Losses:
    """Computes a model's loss. All randomness comes from the seed, and the step's number."""

    def __init__(self, model: Model, settings: TrainingSettings, seed: int) -> None:
        self.model = model
        self.settings = settings
        self.seed = seed
        self._epoch = -1
        self._batches: Sequence[Tensor] = ()
        """The batches of that epoch."""

    def accumulate(self, denoiser: nn.Module, step: int) -> Tensor:
        """Accumulate the gradients of the batch of the step that ``step`` others came before; its
        mean loss."""
        denoiser.train()
        rng = _generator(derive(self.seed, "step", step))
        device = self.model.workspace.device
        seed_generators(derive(self.seed, "dropout", step), device)
        indices = self._indices(step)
        total = torch.zeros((), device=device)
        for part in indices.tensor_split(self.settings.micro_batches):
            loss = self._loss(denoiser, part, rng) * (len(part) / len(indices))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    @torch.no_grad()
    def validation(self, denoiser: nn.Module) -> float | None:
        """Mean loss of a denoiser over the validation split, under fixed noise.

        ``None`` for a dataset without one.
        """
        count = len(self.model.data.validation)
        if count == 0:
            return None
        denoiser.eval()
        rng = _generator(derive(self.seed, "validation"))
        total = 0.0
        for indices in torch.split(torch.arange(count), self.settings.batch_size):
            batch = self.model.batch("validation", indices)
            total += self.model.loss(denoiser, batch, rng).item() * len(indices)
        return total / count

    def _loss(self, denoiser: nn.Module, indices: Tensor, rng: torch.Generator) -> Tensor:
        batch = self.model.batch("train", indices)
        low_precision = self.settings.precision == "bf16"
        with torch.autocast(self.model.workspace.device.type, torch.bfloat16, low_precision):
            return self.model.loss(denoiser, batch, rng)

    def _indices(self, step: int) -> Tensor:
        """The examples of a step, from the epoch's batches."""
        size = self.settings.batch_size
        epoch, position = divmod(step, len(self.model.data.train) // size)
        if epoch != self._epoch:
            rng = _generator(derive(self.seed, "order", epoch))
            self._epoch, self._batches = epoch, self.model.batches(size, rng)
        return self._batches[position]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
