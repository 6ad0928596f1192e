"""Whether a training split fills the batches that are asked for."""

from __future__ import annotations

from dstbench.errors import DataError
from dstbench.settings import TrainingSettings


def check_size(examples: int, settings: TrainingSettings) -> None:
    """Raise :class:`DataError` if the training split is smaller than a batch."""
    if examples < settings.batch_size:
        raise DataError(
            f"the dataset has {examples} training examples, fewer than training.batch_size = "
            f"{settings.batch_size}; a batch size of at most {examples} would fit"
        )
    if settings.batch_size < settings.micro_batches:
        raise DataError(
            f"training.micro_batches = {settings.micro_batches} is more than "
            f"training.batch_size = {settings.batch_size}"
        )
