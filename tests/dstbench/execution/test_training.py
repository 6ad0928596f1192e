"""The training loop, on the toys: three convolutions with dropout, on 26 images of 4×4."""

import copy
import csv
import dataclasses
import errno
import os
import pickle
import signal
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from dstbench_magran import MagRan
from dstbench_rigl import RigL
from dstbench_static import Static
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toys import Leftmost, ToyImages, ToyModel

from dstbench.cache import Cache
from dstbench.contracts import Model, Workspace
from dstbench.errors import DataError, DivergedError, StoreError
from dstbench.execution.history import HISTORY
from dstbench.execution.measurement import sizes
from dstbench.execution.training import Trainer
from dstbench.seeds import derive
from dstbench.settings import TrainingSettings
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier, packing
from dstbench.sparsity.optimizers import state_of
from dstbench.store import CellFolder

DYNAMIC: list[type[DynamicSparsifier]] = [RigL, MagRan, Leftmost]
METHODS: list[type[Sparsifier] | None] = [None, Static, *DYNAMIC]

MakeTrainer = Callable[..., Trainer]


class Killed(BaseException):
    """The process ends here."""


def make_trainer(
    workspace: Workspace,
    method: type[Sparsifier] | None = None,
    sparsity: float = 0.5,
    *,
    seed: int = 0,
    model: type[Model] = ToyModel,
    images: dict[str, Any] | None = None,
    dropout: float = 0.2,
    **changed: Any,
) -> Trainer:
    """A trainer as the runner makes it, all of its objects new."""
    few = {"steps": 20, "batch_size": 6, "learning_rate": 1e-2, "ema_decay": 0.9}
    training = TrainingSettings(**few | changed)
    data = ToyImages(ToyImages.Settings(**images or {})).load(workspace)
    toy = model(ToyModel.Settings(dropout=dropout), data, workspace)
    torch.manual_seed(derive(seed, "weights"))
    denoiser = toy.build()
    sparsifier = None
    if method is not None:
        often = {"exploration_frequency": 3} if issubclass(method, DynamicSparsifier) else {}
        masks = derive(seed, "masks")
        sparsifier = method(sparsity, total_steps=training.steps, seed=masks, **often)
    return Trainer(toy, denoiser, sparsifier, training, seed)


@pytest.fixture
def make(workspace: Workspace) -> MakeTrainer:
    return partial(make_trainer, workspace)


@pytest.fixture
def folder(tmp_path: Path) -> CellFolder:
    return make_folder(tmp_path / "cell")


def make_folder(path: Path) -> CellFolder:
    path.mkdir()
    return CellFolder(path)


def train(trainer: Trainer, folder: CellFolder) -> list[float]:
    """The loss of every step."""
    losses = []
    trainer.train(folder, lambda step, loss: losses.append(loss))
    return losses


def train_until(step: int, trainer: Trainer, folder: CellFolder) -> None:
    """Stop as a killed process does, in the middle of everything."""

    def stop(taken: int, loss: float) -> None:
        if taken == step:
            raise Killed

    with pytest.raises(Killed):
        trainer.train(folder, stop)


def state(trainer: Trainer) -> dict[str, Any]:
    """Every tensor and number that the training left behind, by its path."""
    sparsifier = trainer.sparsifier.state_dict() if trainer.sparsifier else {}
    return dict(
        leaves(
            {
                "denoiser": trainer.denoiser.state_dict(),
                "averaged": trainer.averaged.state_dict(),
                "optimizer": trainer.optimizer.state_dict(),
                "sparsifier": sparsifier,
                "step": trainer.step,
            }
        )
    )


def leaves(tree: Any, path: str = "") -> Any:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, tree


def different(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The paths of what is not equal, bit for bit."""
    return [p for p in a.keys() | b.keys() if p not in a or p not in b or not same(a[p], b[p])]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    return bool(a == b)


def history(folder: CellFolder) -> list[dict[str, str]]:
    with folder.history.open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(folder: CellFolder) -> list[dict[str, str]]:
    return [row | {"seconds_per_step": ""} for row in history(folder)]


# Resuming

EVERYTHING = {"micro_batches": 2, "gradient_clip": 0.5, "checkpoint_every": 4, "log_every": 5}


def check_resuming(make: MakeTrainer, tmp_path: Path, *method: Any, **changed: Any) -> Trainer:
    """20 steps are 11 steps, of which a checkpoint keeps 8, and the other 12."""
    whole, parts = make_folder(tmp_path / "whole"), make_folder(tmp_path / "parts")
    uninterrupted = make(*method, **changed)
    before = state(uninterrupted)
    train(uninterrupted, whole)

    train_until(11, make(*method, **changed), parts)
    torch.manual_seed(123456)  # a new process knows nothing of the old one's generators
    resumed = make(*method, **changed)
    resumed.load(parts.checkpoint)
    assert resumed.step == 8
    train(resumed, parts)

    assert different(state(resumed), state(uninterrupted)) == []
    assert without_times(parts) == without_times(whole)
    assert different(before, state(uninterrupted)) != []
    return resumed


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one(
    make: MakeTrainer, tmp_path: Path, method: type[Sparsifier] | None
) -> None:
    resumed = check_resuming(make, tmp_path, method, **EVERYTHING)
    if isinstance(resumed.sparsifier, DynamicSparsifier):
        assert resumed.sparsifier.topology_updates == 4  # after steps 3, 6, 9 and 12


@pytest.mark.parametrize(
    "changed", [{"precision": "bf16"}, {"channels_last": True}, {"kernels": "sparse"}]
)
def test_resuming_in_other_formats(
    make: MakeTrainer, tmp_path: Path, changed: dict[str, Any]
) -> None:
    check_resuming(make, tmp_path, RigL, **EVERYTHING | changed)


@pytest.mark.parametrize("method", [None, RigL])
@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate_schedule": "cosine", "warmup_steps": 10, "ema_warmup": True},
        {"optimizer": "adam", "learning_rate_schedule": "step", "decay_every": 3},
        {"optimizer": "radam", "learning_rate_schedule": "cosine"},
        {"optimizer": "sgd", "warmup_steps": 9},
        {"optimizer": "sgd", "momentum": 0.0},
    ],
)
def test_resuming_with_other_optimizers_and_schedules(
    make: MakeTrainer,
    tmp_path: Path,
    method: type[Sparsifier] | None,
    changed: dict[str, Any],
) -> None:
    check_resuming(make, tmp_path, method, **EVERYTHING | changed)


@settings(max_examples=8, deadline=None)
@given(stop=st.integers(1, 9), checkpoint_every=st.integers(1, 10), log_every=st.integers(1, 10))
def test_it_does_not_matter_where_a_run_is_stopped(
    tmp_path_factory: pytest.TempPathFactory, stop: int, checkpoint_every: int, log_every: int
) -> None:
    path = tmp_path_factory.mktemp("stopped")
    make = partial(make_trainer, Workspace(torch.device("cpu"), Cache(path / "cache")), MagRan)
    changed = {"steps": 10, "checkpoint_every": checkpoint_every, "log_every": log_every}
    whole, parts = make_folder(path / "whole"), make_folder(path / "parts")
    uninterrupted, resumed = make(**changed), make(**changed)
    train(uninterrupted, whole)
    train_until(stop, make(**changed), parts)
    if parts.checkpoint.exists():
        resumed.load(parts.checkpoint)
    train(resumed, parts)
    assert different(state(resumed), state(uninterrupted)) == []
    assert without_times(parts) == without_times(whole)


def test_a_trained_network_goes_on_by_not_training(make: MakeTrainer, folder: CellFolder) -> None:
    train(make(RigL), folder)
    rows = history(folder)
    resumed = make(RigL)
    resumed.load(folder.checkpoint)
    assert train(resumed, folder) == []
    assert history(folder) == rows
    assert resumed.seconds_per_step() == resumed.seconds / 20


def test_time_adds_up_over_processes(make: MakeTrainer, folder: CellFolder) -> None:
    train_until(6, make(checkpoint_every=5), folder)
    resumed = make(checkpoint_every=5)
    resumed.load(folder.checkpoint)
    earlier = resumed.seconds
    assert earlier > 0
    train(resumed, folder)
    assert len(resumed.step_times) == 15
    assert resumed.seconds == pytest.approx(earlier + sum(t.wall for t in resumed.step_times))


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("the checkpoint was unpickled",)


BOMB = pickle.dumps(Bomb(), protocol=2)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", BOMB])
def test_a_checkpoint_that_cannot_be_read(
    make: MakeTrainer, folder: CellFolder, content: bytes
) -> None:
    folder.checkpoint.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        make().load(folder.checkpoint)
    assert str(caught.value) == (
        f"{folder.checkpoint}: this is not a checkpoint of this cell, or it is damaged; "
        "delete it to start the cell from its first step"
    )


@pytest.mark.parametrize(("minutes", "saved"), [(1e-9, [1, 2, 3, 4, 5]), (60, [3, 5])])
def test_checkpoints_are_due_by_steps_or_minutes(
    make: MakeTrainer, folder: CellFolder, minutes: float, saved: list[int]
) -> None:
    trainer = make(steps=5, checkpoint_every=3, checkpoint_minutes=minutes)
    steps: list[int] = []
    trainer.save = lambda path: steps.append(trainer.step)  # type: ignore[method-assign]
    train(trainer, folder)
    assert steps == saved


@pytest.mark.parametrize("method", [Static, RigL])
def test_a_checkpoint_of_another_cell(
    make: MakeTrainer, folder: CellFolder, method: type[Sparsifier]
) -> None:
    train(make(method, 0.5, steps=2), folder)
    for other in (make(method, 0.9, steps=2), make(DynamicBlind, 0.5, model=WiderToyModel)):
        with pytest.raises(StoreError, match="delete it to start the cell from its first step"):
            other.load(folder.checkpoint)


def test_a_checkpoint_of_a_cell_that_differs_in_settings_alone(
    make: MakeTrainer, folder: CellFolder
) -> None:
    train(make(steps=2), folder)
    other = CellFolder(folder.path.with_name("other"))
    other.path.mkdir()
    folder.checkpoint.rename(other.checkpoint)
    with pytest.raises(StoreError, match="this is not a checkpoint of this cell"):
        make(steps=2, learning_rate=1e-5).load(other.checkpoint)


def flip(path: Path) -> None:
    """Turn one bit of a file over, in the middle of its tensors."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [flip, cut, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize(("damaged", "begins"), [(1, 4), (2, 0)])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(
    workspace: Workspace,
    tmp_path: Path,
    harm: Callable[[Path], None],
    damaged: int,
    begins: int,
) -> None:
    told: list[str] = []
    make = partial(make_trainer, Workspace(workspace.device, workspace.cache, told.append), MagRan)
    whole, parts = make_folder(tmp_path / "whole"), make_folder(tmp_path / "parts")
    uninterrupted, resumed = make(**EVERYTHING), make(**EVERYTHING)
    train(uninterrupted, whole)
    train_until(11, make(**EVERYTHING), parts)
    assert parts.checkpoints == [parts.checkpoint, parts.previous_checkpoint]
    hurt = parts.checkpoints[:damaged]
    for path in hurt:
        harm(path)
    resumed.resume(parts)
    assert resumed.step == begins
    assert [path.name for path in parts.path.glob("*.damaged")] == [
        f"{path.name}.damaged" for path in reversed(hurt)
    ] or damaged == 2
    assert [text.startswith(f"{path}: damaged (") for text, path in zip(told, hurt, strict=True)]
    train(resumed, parts)
    assert different(state(resumed), state(uninterrupted)) == []
    assert without_times(parts) == without_times(whole)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("CUDA error: busy")],
)
def test_a_checkpoint_that_cannot_be_read_now_is_no_damaged_one(
    make: MakeTrainer,
    folder: CellFolder,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train_until(5, make(**EVERYTHING), folder)
    before = [path.read_bytes() for path in folder.checkpoints]

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", fail)
        with pytest.raises(type(error)):
            make(**EVERYTHING).resume(folder)
    assert [path.read_bytes() for path in folder.checkpoints] == before
    again = make(**EVERYTHING)
    again.resume(folder)
    assert again.step == 4


def test_every_part_of_a_checkpoint_is_summed(make: MakeTrainer, folder: CellFolder) -> None:
    train(make(RigL, steps=2), folder)
    whole = folder.checkpoint.read_bytes()
    for byte in range(0, len(whole) - 80, 997):
        content = bytearray(whole)
        content[byte] ^= 1
        folder.checkpoint.write_bytes(content)
        resumed = make(RigL, steps=2)
        resumed.resume(folder)
        assert resumed.step == 0
        assert folder.checkpoints == []


def test_a_checkpoint_of_an_earlier_version_has_no_sum(
    make: MakeTrainer, folder: CellFolder
) -> None:
    train(make(RigL, steps=2), folder)
    torch.save(torch.load(folder.checkpoint, weights_only=True), folder.checkpoint)
    resumed = make(RigL, steps=2)
    resumed.resume(folder)
    assert resumed.step == 2


class FullDisk:
    """A disk with room for so many bytes of checkpoints."""

    def __init__(self, folder: CellFolder, room: int) -> None:
        self.folder, self.room = folder, room

    def write(self, file: Any, content: Any) -> int:
        taken = sum(path.stat().st_size for path in self.folder.path.glob("checkpoint*"))
        if taken + len(content) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(file.file.write(content))


@pytest.mark.parametrize(("room", "kept"), [(3.5, 2), (2.5, 2), (1.5, None)])
def test_a_full_disk_keeps_the_latest_checkpoint(
    make: MakeTrainer,
    folder: CellFolder,
    monkeypatch: pytest.MonkeyPatch,
    room: float,
    kept: int | None,
) -> None:
    from dstbench.store import sealed

    train(make(steps=1, checkpoint_every=1), folder)
    disk = FullDisk(folder, int(room * folder.checkpoint.stat().st_size))

    def write(file: Any, content: Any) -> int:
        file.sum.update(content)
        file.file.flush()
        return disk.write(file, content)

    monkeypatch.setattr(sealed._Summed, "write", write)
    longer = make(steps=4, checkpoint_every=1)
    longer.resume(folder)
    if kept is None:
        with pytest.raises(StoreError, match=r"checkpoint\.pt: cannot be written: No space left"):
            train(longer, folder)
    else:
        train(longer, folder)
        assert len(folder.checkpoints) == kept
    assert list(folder.path.glob("*.partial")) == []
    again = make(steps=4, checkpoint_every=1)
    again.resume(folder)
    assert again.step == (4 if kept else 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stop", [1, 7, 20])
def test_a_signal_loses_no_step(
    workspace: Workspace, tmp_path: Path, number: signal.Signals, stop: int
) -> None:
    told: list[str] = []
    make = partial(make_trainer, Workspace(workspace.device, workspace.cache, told.append), RigL)
    whole, parts = make_folder(tmp_path / "whole"), make_folder(tmp_path / "parts")
    uninterrupted, stopped, resumed = make(), make(), make()
    train(uninterrupted, whole)
    steps: list[int] = []

    def on_step(step: int, loss: float) -> None:
        steps.append(step)
        if step == stop:
            signal.raise_signal(number)
            signal.raise_signal(number)  # the same request, to all processes of a group

    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stopped.train(parts, on_step)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert steps == list(range(1, stop + 1))
    assert told == [f"stopped after step {stop} of 20, which is saved: {parts.checkpoint}"]
    resumed.resume(parts)
    assert resumed.step == stop
    train(resumed, parts)
    assert different(state(resumed), state(uninterrupted)) == []
    assert without_times(parts) == without_times(whole)


def test_a_second_signal_is_not_waited_with(
    make: MakeTrainer, folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dstbench.stopping.SAME_REQUEST", 0)

    def on_step(step: int, loss: float) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt):
        make().train(folder, on_step)
    assert folder.checkpoints == []


def test_a_signal_that_nobody_handles_ends_the_process_after_its_step(
    make: MakeTrainer, folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def on_step(step: int, loss: float) -> None:
        steps.append(step)
        if step == 7:
            signal.raise_signal(signal.SIGTERM)

    def kill(process: int, number: int) -> None:
        assert (process, number) == (os.getpid(), signal.SIGTERM)
        assert signal.getsignal(number) is signal.SIG_DFL
        raise SystemExit

    monkeypatch.setattr(os, "kill", kill)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit):
            make().train(folder, on_step)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert steps == list(range(1, 8))
    assert folder.checkpoints == [folder.checkpoint]


def test_an_ignored_signal_stays_ignored(make: MakeTrainer, folder: CellFolder) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        make(steps=3).train(folder, lambda *_: signal.raise_signal(signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class DynamicBlind(DynamicSparsifier):
    """Never reaches an update."""

    name = "blind"

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        raise NotImplementedError


class WiderToyModel(ToyModel):
    def build(self) -> nn.Module:
        return nn.Conv2d(1, 1, 5, padding=2)


@pytest.mark.parametrize("torn", ["", "25", "25,0.31", "25,0.31,0.001"])
def test_rows_of_steps_that_are_taken_again_are_forgotten(
    make: MakeTrainer, folder: CellFolder, torn: str
) -> None:
    train_until(11, make(steps=30, log_every=5, checkpoint_every=5), folder)
    with folder.history.open("a") as file:
        file.write("15,9.9,9.9,0\r\n20,9.9,9.9,0\r\n" + torn)
    resumed = make(steps=30, log_every=5, checkpoint_every=5)
    resumed.load(folder.checkpoint)
    train(resumed, folder)
    assert [row["step"] for row in history(folder)] == ["5", "10", "15", "20", "25", "30"]
    assert "9.9" not in folder.history.read_text()


# The gradient that a first mask is chosen by


class BySensitivity(Sparsifier):
    """Keeps the connections of largest |gradient|, and the gradients it was shown."""

    name = "sensitivity"
    needs_initial_gradient = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shown: dict[str, Tensor] = {}

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        self.shown[layer.name] = layer.dense_gradient.clone()
        return layer.dense_gradient.abs()


class NormedToyModel(ToyModel):
    """With batch statistics, which a forward pass changes."""

    def build(self) -> nn.Module:
        return nn.Sequential(super().build(), nn.BatchNorm2d(1))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_first_mask_sees_the_gradient_of_the_first_batch(
    make: MakeTrainer, micro_batches: int
) -> None:
    trainer = make(BySensitivity, 0.9, dropout=0.0, micro_batches=micro_batches)
    dense = make(dropout=0.0, micro_batches=micro_batches)
    dense.optimizer.step = dense.optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
    dense.take_step()
    assert isinstance(trainer.sparsifier, BySensitivity)
    assert len(trainer.sparsifier.shown) == 3
    for name, gradient in trainer.sparsifier.shown.items():
        assert torch.equal(gradient, dense.denoiser.get_parameter(name).grad)


def test_choosing_by_gradient_leaves_no_other_trace(make: MakeTrainer) -> None:
    trainer = make(BySensitivity, model=NormedToyModel)
    untouched = make(model=NormedToyModel)
    buffers = dict(untouched.denoiser.named_buffers())
    assert len(buffers) == 3
    for name, buffer in trainer.denoiser.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    assert all(parameter.grad is None for parameter in trainer.denoiser.parameters())
    assert trainer.step == 0
    assert trainer.optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("changed", [{}, {"precision": "bf16"}, {"channels_last": True}])
def test_resuming_a_method_that_chose_by_gradient(
    make: MakeTrainer, tmp_path: Path, changed: dict[str, Any]
) -> None:
    check_resuming(make, tmp_path, BySensitivity, model=NormedToyModel, **EVERYTHING | changed)


def test_a_loss_that_is_not_finite_before_the_first_step(make: MakeTrainer) -> None:
    class Explosive(ToyModel):
        def loss(self, *args: Any) -> Tensor:
            return super().loss(*args) * torch.inf

    with pytest.raises(DivergedError, match=r"^the loss is inf before the first step$"):
        make(BySensitivity, model=Explosive)


# What every method has in common


def batches(trainer: Trainer, folder: CellFolder) -> list[list[int]]:
    """The training examples of every step, in order."""
    seen: list[list[int]] = []
    original = trainer.model.batch

    def batch(split: Any, indices: Tensor) -> Any:
        if split == "train":
            seen.append(indices.tolist())
        return original(split, indices)

    trainer.model.batch = batch  # type: ignore[method-assign]
    train(trainer, folder)
    return seen


def test_every_epoch_is_another_permutation(make: MakeTrainer, folder: CellFolder) -> None:
    seen = batches(make(steps=12), folder)  # of 26 examples, 4 batches of 6 and 2 left over
    epochs = [list(chain.from_iterable(seen[start : start + 4])) for start in (0, 4, 8)]
    for epoch in epochs:
        assert len(set(epoch)) == 24
        assert set(epoch) <= set(range(26))
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_the_seed_alone(make: MakeTrainer, tmp_path: Path) -> None:
    def order(name: str, *method: Any, **changed: Any) -> list[list[int]]:
        return batches(make(*method, **changed), make_folder(tmp_path / name))

    dense = order("dense")
    assert all(order(str(m), m) == dense for m in (Static, *DYNAMIC))
    assert order("another seed", seed=1) != dense


@pytest.mark.parametrize("method", [Static, *DYNAMIC])
def test_sparsity_zero_is_dense_training_bit_for_bit(
    make: MakeTrainer, tmp_path: Path, method: type[Sparsifier]
) -> None:
    dense, sparse = make(**EVERYTHING), make(method, 0.0, **EVERYTHING)
    losses = train(dense, make_folder(tmp_path / "dense"))
    assert train(sparse, make_folder(tmp_path / "sparse")) == losses
    ours = {path: leaf for path, leaf in state(sparse).items() if "/sparsifier" not in path}
    assert different(ours, state(dense)) == []
    assert sparse.validation_loss() == dense.validation_loss()


def test_dropout_drops_the_same_for_all_methods(make: MakeTrainer, tmp_path: Path) -> None:
    masks: dict[str, list[Tensor]] = {"dense": [], "rigl": []}
    for name, trainer in (("dense", make()), ("rigl", make(RigL))):

        def record(module: nn.Module, inputs: Any, output: Tensor, name: str = name) -> None:
            masks[name].append((output == 0) & (inputs[0] != 0))

        trainer.denoiser[2].register_forward_hook(record)  # type: ignore[operator, index]
        train(trainer, make_folder(tmp_path / name))
    assert len(masks["dense"]) == 20
    assert any(mask.any() for mask in masks["dense"])
    assert all(map(torch.equal, masks["dense"], masks["rigl"]))
    assert not torch.equal(masks["dense"][0], masks["dense"][1])


# A step


class Echo(ToyModel):
    """Its loss is a plain mean over the examples, without any noise."""

    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        return (denoiser(batch) - 1).square().mean()


@pytest.mark.parametrize("micro_batches", [2, 4, 5])
def test_micro_batches_add_up_to_the_batch(
    make: MakeTrainer, tmp_path: Path, micro_batches: int
) -> None:
    """Of 5 examples, 2 micro-batches are 3 and 2: each counts for as much as it holds."""
    plain = {"steps": 4, "batch_size": 5, "model": Echo, "dropout": 0.0}
    whole, parts = make(RigL, **plain), make(RigL, micro_batches=micro_batches, **plain)
    losses = train(whole, make_folder(tmp_path / "whole"))
    assert train(parts, make_folder(tmp_path / "parts")) == pytest.approx(losses, rel=1e-5)
    for ours, theirs in zip(parts.denoiser.parameters(), whole.denoiser.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_gradients_are_masked_before_they_are_clipped(
    make: MakeTrainer, folder: CellFolder
) -> None:
    trainer = make(RigL, gradient_clip=1e-3)
    norms: list[float] = []

    def look(optimizer: Any, *_: Any) -> None:
        gradients = [p.grad for p in trainer.denoiser.parameters() if p.grad is not None]
        norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        assert trainer.sparsifier is not None
        for layer in trainer.sparsifier.sparse_layers:
            gradient = layer.parameter.grad
            assert gradient is not None
            assert gradient.shape == (layer.active,) or not gradient[~layer.mask].any()

    trainer.optimizer.register_step_pre_hook(look)
    train(trainer, folder)
    assert norms == pytest.approx([1e-3] * 20, rel=1e-2)


def test_the_averaged_weights_by_hand(make: MakeTrainer, folder: CellFolder) -> None:
    trainer = make(steps=3, ema_decay=0.75)
    weights: list[Tensor] = []
    name = "0.weight"
    trainer.train(
        folder, lambda *_: weights.append(trainer.denoiser.get_parameter(name).detach().clone())
    )
    expected = 0.75 * (0.75 * weights[0] + 0.25 * weights[1]) + 0.25 * weights[2]
    torch.testing.assert_close(trainer.averaged.module.get_parameter(name).detach(), expected)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "radam", "sgd"])
@pytest.mark.parametrize("method", [Static, *DYNAMIC])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_weights_averages_and_moments_are_as_sparse_as_the_masks(
    make: MakeTrainer,
    folder: CellFolder,
    method: type[Sparsifier],
    sparsity: float,
    optimizer: str,
) -> None:
    trainer = make(method, sparsity, optimizer=optimizer)
    sparsifier = trainer.sparsifier
    assert sparsifier is not None

    def look(step: int, loss: float) -> None:
        sparsifier.unpack()
        for layer in sparsifier.sparse_layers:
            averaged = trainer.averaged.module.get_parameter(layer.name)
            moments = list(state_of(trainer.optimizer, layer.weight))
            assert len(moments) == (1 if optimizer == "sgd" else 2)
            for tensor in (layer.weight, averaged, *moments):
                assert not tensor[~layer.mask].any()
        assert sum(int(layer.mask.sum()) for layer in sparsifier.layers) == round(
            (1 - sparsity) * 720
        )

    trainer.train(folder, look)
    assert trainer.step == 20


@pytest.mark.parametrize("method", [None, RigL])
def test_a_loss_that_is_not_finite_names_its_step(
    make: MakeTrainer, folder: CellFolder, method: type[Sparsifier] | None
) -> None:
    class Explodes(ToyModel):
        losses = 0

        def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
            self.losses += 1
            loss = super().loss(denoiser, batch, rng)
            return loss * torch.inf if self.losses >= 7 else loss

    trainer = make(method, model=Explodes, checkpoint_every=1)
    told: list[int] = []
    with pytest.raises(DivergedError, match=r"^the loss is inf at step 7$"):
        trainer.train(folder, lambda step, loss: told.append(step))
    assert told == [1, 2, 3, 4, 5, 6]


# Formats


def test_bf16_is_for_the_forward_pass_only(make: MakeTrainer, tmp_path: Path) -> None:
    exact, rounded = make(RigL, dropout=0.0), make(RigL, dropout=0.0, precision="bf16")
    exact_losses = train(exact, make_folder(tmp_path / "fp32"))
    rounded_losses = train(rounded, make_folder(tmp_path / "bf16"))
    assert rounded_losses != exact_losses
    assert rounded_losses[:3] == pytest.approx(exact_losses[:3], rel=2e-2)
    assert {p.dtype for p in rounded.denoiser.parameters()} == {torch.float32}


def test_channels_last_changes_the_layout_alone(make: MakeTrainer, tmp_path: Path) -> None:
    plain, channels_last = make(dropout=0.0), make(dropout=0.0, channels_last=True)
    losses = train(plain, make_folder(tmp_path / "plain"))
    assert train(channels_last, make_folder(tmp_path / "last")) == pytest.approx(losses, rel=1e-3)


def test_channels_last_lasts(make: MakeTrainer, folder: CellFolder) -> None:
    trainer = make(RigL, channels_last=True)
    train(trainer, folder)
    for network in (trainer.denoiser, trainer.averaged.module):
        weight = network.get_parameter("3.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()


# Validation and history


def test_validation_is_under_fixed_noise_and_without_dropout(
    make: MakeTrainer, folder: CellFolder
) -> None:
    trainer = make(batch_size=4, dropout=0.5)
    train(trainer, folder)
    loss = trainer.validation_loss()
    torch.manual_seed(99)
    assert trainer.validation_loss() == loss
    rng = torch.Generator().manual_seed(derive(0, "validation"))
    network = trainer.averaged.module.eval()
    parts = [torch.arange(4), torch.arange(4, 7)]
    with torch.no_grad():
        by_hand = [
            float(trainer.model.loss(network, trainer.model.batch("validation", part), rng))
            for part in parts
        ]
    assert loss == pytest.approx((4 * by_hand[0] + 3 * by_hand[1]) / 7)


def test_a_dataset_without_validation_images(make: MakeTrainer, folder: CellFolder) -> None:
    trainer = make(steps=1, images={"validation": 0})
    train(trainer, folder)
    assert trainer.validation_loss() is None


def test_the_history_has_a_row_every_few_steps_and_after_the_last(
    make: MakeTrainer, folder: CellFolder
) -> None:
    losses = train(make(MagRan, steps=12, log_every=5), folder)
    rows = history(folder)
    assert tuple(rows[0]) == HISTORY
    assert [int(row["step"]) for row in rows] == [5, 10, 12]
    means = [sum(losses[a:b]) / (b - a) for a, b in ((0, 5), (5, 10), (10, 12))]
    assert [float(row["loss"]) for row in rows] == pytest.approx(means, rel=1e-5)
    # after steps 3 and 6; exploration stops at 0.75 × 12 = 9
    assert [int(row["topology_updates"]) for row in rows] == [1, 2, 2]
    assert all(float(row["seconds_per_step"]) > 0 for row in rows)


# Sizes


def test_a_batch_larger_than_the_dataset(make: MakeTrainer) -> None:
    make(batch_size=26)
    with pytest.raises(DataError) as caught:
        make(batch_size=27)
    assert str(caught.value) == (
        "the dataset has 26 training examples, fewer than training.batch_size = 27; "
        "a batch size of at most 26 would fit"
    )


def test_more_micro_batches_than_examples_in_a_batch(make: MakeTrainer) -> None:
    make(batch_size=3, micro_batches=3)
    with pytest.raises(DataError, match=r"micro_batches = 4 is more than .*batch_size = 3"):
        make(batch_size=3, micro_batches=4)


def test_a_signal_in_a_step_that_fails_is_heard(make: MakeTrainer, folder: CellFolder) -> None:
    def fail(step: int, loss: float) -> None:
        signal.raise_signal(signal.SIGINT)
        raise ValueError("this step")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            make().train(folder, fail)
    finally:
        signal.signal(signal.SIGINT, before)


class Remembering(ToyModel):
    """Penalises weights that it was given once."""

    def build(self) -> nn.Module:
        denoiser = super().build()
        self.weights = list(denoiser.parameters())
        return denoiser

    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        penalty = torch.stack([weight.square().sum() for weight in self.weights]).sum()
        return super().loss(denoiser, batch, rng) + 1e-3 * penalty


class Teaching(ToyModel):
    """Has a teacher that follows the denoiser's parameters, one by one."""

    teacher: nn.Module | None = None

    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        self.teacher = self.teacher or copy.deepcopy(denoiser)
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), denoiser.parameters(), strict=True):
                old.lerp_(new, 0.5)
        distance = sum(weight.square().mean() for weight in self.teacher.parameters())
        return super().loss(denoiser, batch, rng) * (1 + distance)


@pytest.mark.parametrize("model", [Remembering, Teaching])
@pytest.mark.parametrize("method", [Static, RigL])
def test_a_model_that_needs_whole_weights_has_them(
    make: MakeTrainer,
    folder: CellFolder,
    model: type[Model],
    method: type[Sparsifier],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "LEAST", 0)
    trainer = make(method, model=model, gradient_clip=0.1)
    masked = make(method, model=model, gradient_clip=0.1, kernels="masked")
    told: list[str] = []
    trainer.model.workspace = dataclasses.replace(trainer.model.workspace, report=told.append)
    for _ in range(8):
        assert trainer.take_step() == masked.take_step()
    for weight, other in zip(
        trainer.denoiser.parameters(), masked.denoiser.parameters(), strict=True
    ):
        assert torch.equal(weight, other)
    found, expected = (sizes(each, 0, each.model).state_bytes for each in (trainer, masked))
    assert trainer.sparsifier is not None
    assert found == expected + trainer.sparsifier.kernels.bytes
    (line,) = told
    assert "the loss of this model cannot be computed" in line

    trainer.save(folder)
    resumed = make(method, model=ToyModel, gradient_clip=0.1)
    resumed.load(folder.checkpoint)
    found = sizes(resumed, 0, resumed.model).state_bytes
    assert resumed.sparsifier is not None
    assert found == expected + resumed.sparsifier.kernels.bytes
