"""A trained model with its sampler, as one module of torch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dstbench.cell import Cell
from dstbench.contracts import Model
from dstbench.errors import ConfigError, PluginError
from dstbench.execution.sampling import draw_samples


class TrainedModel(nn.Module):
    """A trained denoiser, which a call calls, and the sampler that it was scored with."""

    def __init__(
        self, cell: Cell, model: Model, denoiser: nn.Module, masks: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.cell = cell
        """The training run that it comes from, with every setting."""
        self.denoiser = denoiser
        self.masks = dict(masks)
        """Masks (bool) of sparse weights by parameter name; none of a dense model."""
        self._model = model
        self._batch_size = cell.evaluation_settings.batch_size
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        """The denoiser's output for inputs such as its model gives it."""
        return self.denoiser(*inputs)

    @property
    def labels(self) -> Sequence[str | int]:
        """The labels that samples can be asked for: none, unless the model is conditional on
        them."""
        return self._model.labels

    def sample(
        self,
        count: int = 16,
        *,
        seed: int | None = None,
        labels: Sequence[str | int] | None = None,
    ) -> Tensor:
        """Sample images: uint8 (count, C, H, W), on the CPU; sketches are drawn.

        A seed's first samples start from the same noise however many are asked for. The samples of
        the cell's own seed, which is the default, are those that it was scored with. A model that
        has ``labels`` takes one for each sample; else it draws them, as often as each occurs in
        the training set.

        Raises:
            ConfigError: for labels that the model does not have, or not one for each sample.
            DivergedError: where the denoiser's output is not finite.
            PluginError: if the module was moved to another device than it was loaded onto.
        """
        return self._model.data.to_images(self.sample_items(count, seed=seed, labels=labels))

    def sample_items(
        self,
        count: int = 16,
        *,
        seed: int | None = None,
        labels: Sequence[str | int] | None = None,
    ) -> Sequence[Any] | Tensor:
        """The same samples as items of the dataset, such as the points of sketches."""
        if labels is not None:
            self._check_labels(labels, count)
        asked: dict[str, Any] = {} if labels is None else {"labels": labels}
        device = self._model.workspace.device
        moved = {tensor.device for tensor in self.denoiser.state_dict().values()} - {device}
        if {place.type for place in moved} - {device.type}:
            raise PluginError(
                f"the model was loaded onto {device}, and its weights have been moved since; load "
                "it onto the device that it is to sample on: load_model(…, device=…)"
            )
        was_training = self.training
        try:
            chosen = self.cell.seed if seed is None else seed
            return draw_samples(
                self._model, self.denoiser, chosen, count, self._batch_size, **asked
            )
        finally:
            self.train(was_training)

    def _check_labels(self, labels: Sequence[str | int], count: int) -> None:
        if not self.labels:
            raise ConfigError(f"this '{self.cell.model}' is not conditional: it takes no labels")
        if len(labels) != count:
            raise ConfigError(f"{len(labels)} labels for {count} samples: give one for each")
        if unknown := [label for label in labels if label not in self.labels]:
            known = ", ".join(map(repr, self.labels[:20])) + ", …" * (len(self.labels) > 20)
            raise ConfigError(f"label {unknown[0]!r} is none of {known}")
