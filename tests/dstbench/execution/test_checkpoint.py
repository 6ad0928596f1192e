"""What is in a checkpoint, of a toy with three convolutions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from dstbench_rigl import RigL
from toys import ToyImages, ToyModel

from dstbench.contracts import Workspace
from dstbench.execution.checkpoint import unpack_checkpoint
from dstbench.execution.training import Trainer
from dstbench.settings import TrainingSettings
from dstbench.store import CellFolder

STEPS = 8


def trained(workspace: Workspace, sparsity: float = 0.9, **settings: Any) -> Trainer:
    """A trainer that has taken four steps, with a topology update after each."""
    trainer = untrained(workspace, sparsity, **settings)
    for _ in range(4):
        trainer.take_step()
    return trainer


def untrained(workspace: Workspace, sparsity: float = 0.9, **settings: Any) -> Trainer:
    data = ToyImages(ToyImages.Settings()).load(workspace)
    model = ToyModel(ToyModel.Settings(), data, workspace)
    sparsifier = RigL(sparsity, total_steps=STEPS, exploration_frequency=1, **settings)
    training = TrainingSettings(steps=STEPS, batch_size=6, learning_rate=1e-2)
    return Trainer(model, model.build(), sparsifier, training, seed=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "cell").mkdir()
    return tmp_path / "cell" / "checkpoint.pt"


def saved(trainer: Trainer, path: Path) -> Any:
    trainer.save(CellFolder(path.parent))
    return torch.load(path, weights_only=True)


def test_masked_weights_and_their_state_are_packed(workspace: Workspace, path: Path) -> None:
    trainer = trained(workspace)
    state = saved(trainer, path)
    assert trainer.sparsifier is not None
    for layer in trainer.sparsifier.layers:
        assert state["denoiser"][f"{layer.name}:active"].shape == (layer.active,)
        assert state["averaged"][f"module.{layer.name}:active"].shape == (layer.active,)
        assert state["masks"][layer.name].nbytes == -(-layer.mask.numel() // 8)
    for position in (0, 2, 4):  # the biases have the others
        assert state["optimizer"]["state"][position].keys() == {
            "step", "exp_avg:active", "exp_avg_sq:active"
        }  # fmt: skip


def test_moments_outside_the_mask_are_kept_where_there_are_any(
    workspace: Workspace, path: Path
) -> None:
    trainer = trained(workspace, grown_state="keep")
    state = saved(trainer, path)
    assert "exp_avg" in state["optimizer"]["state"][0]
    assert "0.weight:active" in state["denoiser"]
    resumed = untrained(workspace, grown_state="keep")
    resumed.load(path)
    check_same(resumed, trainer)


def test_a_dense_layer_is_not_packed(workspace: Workspace, path: Path) -> None:
    state = saved(trained(workspace, sparsity=0.0), path)
    assert state["masks"] == {}
    assert "0.weight" in state["denoiser"]


def test_a_checkpoint_of_an_earlier_version_is_read(workspace: Workspace, path: Path) -> None:
    trainer = trained(workspace)
    state = saved(trainer, path)
    assert trainer.sparsifier is not None
    whole = unpack_checkpoint(state, trainer.sparsifier, trainer.optimizer)
    del whole["masks"]  # as earlier versions wrote it
    torch.save(whole, path)
    resumed = untrained(workspace)
    resumed.load(path)
    check_same(resumed, trainer)


def check_same(one: Trainer, other: Trainer) -> None:
    assert one.sparsifier is not None
    assert other.sparsifier is not None
    for ours, theirs in zip(one.sparsifier.layers, other.sparsifier.layers, strict=True):
        assert torch.equal(ours.mask, theirs.mask)
        assert torch.equal(ours.weight, theirs.weight)
        moments, others = one.optimizer.state[ours.weight], other.optimizer.state[theirs.weight]
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(moments[name], others[name])
    averaged, theirs_averaged = one.averaged.state_dict(), other.averaged.state_dict()
    assert all(torch.equal(averaged[name], theirs_averaged[name]) for name in averaged)
