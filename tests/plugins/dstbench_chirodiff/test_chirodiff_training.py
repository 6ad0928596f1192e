"""Sparse training of ChiroDiff through the harness."""

from pathlib import Path

import pytest
import torch
from chirodiff_sketches import seeded, tiny_model
from dstbench_chirodiff.model import ChiroDiff
from dstbench_rigl import RigL
from torch import Tensor

from dstbench.cache import Cache
from dstbench.execution.training import Trainer
from dstbench.settings import TrainingSettings
from dstbench.sparsity import Sparsifier
from dstbench.store import CellFolder

SETTINGS = TrainingSettings(
    steps=12, batch_size=4, learning_rate=1e-2, gradient_clip=0.1, ema_decay=0.9
)


def rigl(sparsity: float = 0.5) -> RigL:
    return RigL(sparsity, total_steps=12, exploration_frequency=2, distribution="er")


def trainer(model: ChiroDiff, sparsifier: Sparsifier | None) -> Trainer:
    torch.manual_seed(0)
    return Trainer(model, model.build(), sparsifier, SETTINGS, seed=0)


def advance(training: Trainer, steps: int) -> list[float]:
    losses = [training.take_step() for _ in range(steps)]
    if training.sparsifier:
        training.sparsifier.unpack()
    return losses


def test_rigl_keeps_the_masks_and_uses_what_it_grows(cache: Cache) -> None:
    model = tiny_model(cache)
    sparsifier = rigl()
    training = trainer(model, sparsifier)
    counts = {layer.name: layer.active for layer in sparsifier.layers}
    first_masks = {layer.name: layer.mask.clone() for layer in sparsifier.layers}
    advance(training, 12)
    assert sparsifier.topology_updates == 4  # after steps 2, 4, 6, 8 of 12
    for layer in sparsifier.sparse_layers:
        assert int(layer.mask.sum()) == counts[layer.name]
        averaged = training.averaged.module.get_parameter(layer.name)
        assert not layer.weight[~layer.mask].any()
        assert not averaged[~layer.mask].any()
    hidden = next(each for each in sparsifier.layers if each.name == "gru.weight_hh_l1")
    grown = hidden.mask & ~first_masks[hidden.name]
    assert hidden.weight[grown].any()


@pytest.mark.parametrize("gradients", [True, False])
def test_a_changed_weight_changes_what_is_predicted(cache: Cache, gradients: bool) -> None:
    """No copy of the weights is left behind, in the averaged network either."""
    model = tiny_model(cache)
    training = trainer(model, rigl())
    points = torch.randn(1, 6, 3, generator=seeded()), torch.tensor([6]), torch.tensor([0.5])

    def predict(network: torch.nn.Module) -> Tensor:
        with torch.set_grad_enabled(gradients):
            return network(*points).detach()

    for network in training.denoiser, training.averaged.module:
        for name in "gru.weight_ih_l0", "gru.weight_hh_l1_reverse":
            before = predict(network)
            with torch.no_grad():
                network.get_parameter(name).zero_()
            assert not torch.allclose(predict(network), before)


def test_er_densities_are_those_of_the_matrices_shapes(cache: Cache) -> None:
    """Erdős–Rényi: a matrix of m × n has density ∝ (m + n) / (m · n), its gates as one."""
    model = tiny_model(cache, layers=2, units=32)
    sparsifier = rigl(0.9)
    trainer(model, sparsifier)
    densities = sparsifier.densities
    scale = densities["gru.weight_hh_l0"] / ((96 + 32) / (96 * 32))
    assert densities["gru.weight_ih_l1"] == pytest.approx(scale * (96 + 64) / (96 * 64), rel=0.02)
    assert densities["gru.weight_ih_l1_reverse"] == densities["gru.weight_ih_l1"]


def test_training_learns(cache: Cache) -> None:
    model = tiny_model(cache, units=16)
    settings = SETTINGS.model_copy(update={"steps": 150, "gradient_clip": 1.0})
    torch.manual_seed(0)
    losses = advance(Trainer(model, model.build(), None, settings, seed=0), 150)
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])


def test_resumed_training_is_bit_identical(cache: Cache, tmp_path: Path) -> None:
    """Also in the middle of an epoch (of five steps), whose batches are then made anew."""
    model = tiny_model(cache)
    whole = trainer(model, rigl())
    losses = advance(whole, 12)

    first = trainer(model, rigl())
    assert advance(first, 7) == losses[:7]
    folder = CellFolder(tmp_path)
    first.save(folder)
    second = trainer(model, rigl())
    second.resume(folder)
    assert advance(second, 5) == losses[7:]
    for name, parameter in whole.denoiser.named_parameters():
        assert torch.equal(parameter, second.denoiser.get_parameter(name))


def test_all_methods_see_the_same_examples(cache: Cache) -> None:
    class Recording(ChiroDiff):
        def batch(self, split: str, indices: Tensor) -> object:
            seen.append(indices.tolist())
            return super().batch(split, indices)

    runs = []
    for sparsifier in None, rigl():
        seen: list[list[int]] = []
        model = tiny_model(cache)
        model.__class__ = Recording
        advance(trainer(model, sparsifier), 7)
        runs.append(seen)
    assert runs[0] == runs[1]
    assert sorted(index for batch in runs[0][:5] for index in batch) == list(range(20))
    assert runs[0][:2] != runs[0][5:7]
