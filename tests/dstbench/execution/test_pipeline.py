"""What the pipeline keeps of a cell's samples, and what it does not believe; its way is
tested with the scheduler."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dstbench.contracts import Data, Workspace
from dstbench.execution.kept import keep_reals, keep_samples
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.worker import Worker
from dstbench.images import stack_images
from dstbench.plugins.registry import load_plugins
from dstbench.sparsity import DynamicSparsifier, Layer, random_scores
from dstbench.store import CellFolder, Store


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_and_their_picture(tmp_path: Path, channels: int) -> None:
    folder = CellFolder(tmp_path)
    images = torch.arange(5 * 2 * 3 * channels).to(torch.uint8).reshape(5, channels, 2, 3)
    keep_samples(folder, images)
    kept = np.load(folder.samples, allow_pickle=False)
    np.testing.assert_array_equal(kept, images.permute(0, 2, 3, 1).numpy())
    picture = np.asarray(Image.open(folder.sheet))
    assert picture.shape == (4, 9, 3)
    np.testing.assert_array_equal(picture[:2, :, :channels], np.concatenate([*kept[:3]], axis=1))
    np.testing.assert_array_equal(picture[2:, :6, :channels], np.concatenate([*kept[3:]], axis=1))
    assert not picture[2:, 6:].any()


@pytest.mark.parametrize(("count", "kept"), [(24, list(range(0, 24, 2))), (3, [0, 1, 2])])
def test_real_images_are_kept_from_all_of_a_split(
    tmp_path: Path, count: int, kept: list[int]
) -> None:
    items = [torch.full((1, 2, 2), i, dtype=torch.uint8) for i in range(count)]
    data = Data(train=items, validation=[], fingerprint="x", to_images=stack_images)
    keep_reals(CellFolder(tmp_path), data, "train")
    assert np.load(CellFolder(tmp_path).reals)[:, 0, 0, 0].tolist() == kept


class Wrong(DynamicSparsifier):
    """Grows at random, which is right; those below it lie about how many connections they have."""

    error: ClassVar[str]
    """Part of the error in the cell's record."""
    steps: ClassVar[int]
    """Steps that are taken before it is noticed."""

    class Settings(DynamicSparsifier.Settings):
        exploration_frequency: int = 3

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return random_scores(layer, rng)


class Unmasking(Wrong):
    name = "unmasking"
    error = "keeps 0 weights masked, where its settings say 3: 0.weight is not among them"
    steps = 0

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        return self


class Overlooking(Wrong):
    name = "overlooking"
    error = "keeps 2 weights masked, where its settings say 3: 0.weight is not among them"
    steps = 0

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        weights = dict(list(arguments.pop("weights").items())[1:])
        return super().attach(model, optimizer, weights=weights, **arguments)


class TwiceAsDense(Wrong):
    name = "twice-as-dense"
    error = "where 216, give or take 25%, would be right for a density of 0.3"
    steps = 0
    exact_sparsity = False

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        return {name: round(0.6 * math.prod(shape)) for name, shape in shapes.items()}


class Secret(Wrong):
    """Gives masks further connections, behind the engine's back."""

    name = "secret"
    error = "the mask of 0.weight holds 72 of 72 connections, instead of "
    steps = 5

    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        if self.step == 5:
            self.layers[0].mask.fill_(True)


class Relaxing(Wrong):
    """Has all connections at the end of the training, and denies it."""

    name = "relaxing"
    error = "0.weight has 72 active connections, where "
    steps = 12

    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        if self.step == 12:
            for layer in self.layers:
                layer.allot(layer.mask.numel())
                layer.replace_mask(torch.ones_like(layer.mask))

    def verify(self) -> None:
        pass


class Releasing(Wrong):
    """Trains a dense network after the tenth step."""

    name = "releasing"
    error = "the weight 0.weight is not zero at"
    steps = 12

    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        if self.step == 10:
            self.detach()


class Overgrown(Wrong):
    """Grows all connections, for which no structure is a reason."""

    name = "overgrown"
    error = "720 of 720 sparsifiable weights are active, where 216, give or take 25%"
    steps = 12
    exact_sparsity = False

    def counts_after_update(self, step: int) -> Mapping[str, int]:
        return {layer.name: layer.mask.numel() for layer in self.layers}


@pytest.mark.parametrize(
    "kind", [Unmasking, Overlooking, TwiceAsDense, Secret, Relaxing, Releasing, Overgrown]
)
def test_a_sparsifier_that_lies_about_its_density_fails_its_cell(
    kind: Any, workspace: Workspace, toys_installed: Path, make_cell: Any, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    cell = make_cell(kind.name, 0.7, training={"log_every": 1})
    Worker(store, Pipeline(load_plugins([kind]), workspace))(cell)
    record = store.cell(cell).record()
    assert record is not None
    assert record.status == "failed"
    assert record.error is not None
    assert kind.error in record.error.splitlines()[-1]
    history = store.cell(cell).history
    rows = history.read_text().splitlines()[1:] if history.exists() else []
    assert len(rows) == kind.steps
