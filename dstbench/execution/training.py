"""The training loop of one cell, which can stop at any step and go on in another process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dstbench.contracts import Model
from dstbench.errors import DivergedError
from dstbench.execution.batches import check_size
from dstbench.execution.checkpoint import no_checkpoint, pack_checkpoint, unpack_checkpoint
from dstbench.execution.history import History, ignore, restore, tables
from dstbench.execution.losses import Losses
from dstbench.execution.optimization import build_average, build_optimizer, set_learning_rate
from dstbench.execution.timing import Elapsed, read_clocks
from dstbench.kernels import Choice
from dstbench.kernels.thresholds import choice_of_machine
from dstbench.records import Budget
from dstbench.settings import TrainingSettings
from dstbench.sparsity import Sparsifier
from dstbench.stopping import Held
from dstbench.store.folder import CellFolder
from dstbench.store.sealed import DamagedError, load_sealed


class Trainer:
    """Trains a denoiser, keeps its averaged weights, and can be saved and loaded at any step.

    All randomness of a step comes from the cell's seed and the step's number. So two runs of the
    same seed see the same data and noise whatever their method, and a resumed run goes on exactly
    where it stopped.
    """

    def __init__(
        self,
        model: Model,
        denoiser: nn.Module,
        sparsifier: Sparsifier | None,
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        check_size(len(model.data.train), settings)
        if settings.channels_last:
            denoiser.to(memory_format=torch.channels_last)
        self.model = model
        self.denoiser = denoiser
        self.sparsifier = sparsifier
        self.settings = settings
        self.seed = seed
        self.budget: Budget | None = None
        """What the number of steps is of, where it is not the cell's own; kept in checkpoints."""
        trained = [weight for weight in denoiser.parameters() if weight.requires_grad]
        self.optimizer = build_optimizer(trained, settings)
        self.averaged = build_average(denoiser, settings)
        self.step = 0
        self.seconds = 0.0
        """Wall-clock time of all steps so far, those of earlier processes included."""
        self._packs = True
        self._saved_at = time.monotonic()
        self.step_times: list[Elapsed] = []
        """Time of each step of this process."""
        self.updated_at: list[int] = []
        """Positions in ``step_times`` of the steps that a topology update followed."""
        self._losses = Losses(model, settings, seed)
        self._unwritten: list[tuple[float, float]] = []
        """Loss and seconds of the steps since the latest row of the history."""
        if sparsifier is not None:
            sparsifier.attach(
                denoiser,
                self.optimizer,
                weights=model.sparsifiable(denoiser),
                averaged=self.averaged.module,
                backward=self._backward_without_step,
                kernels=choice_of_machine(settings.kernels),
            )

    def train(
        self,
        folder: CellFolder,
        on_step: Callable[[int, float], None],
        on_row: Callable[..., object] = ignore,
    ) -> None:
        """Take the steps that are left, writing history and checkpoints into the cell's folder.

        ``on_step(step, loss)`` is called after every step, and ``on_row`` with the ``step``, mean
        ``loss`` and ``seconds_per_step`` of every row of the history.

        Ctrl-C, and signals like it, end the training when its step is whole and a checkpoint
        saved.

        Raises:
            DivergedError: at a loss that is not finite.
        """
        history = History(folder.history, self.step, on_row)
        with Held() as held:
            while self.step < self.settings.steps:
                loss = self.take_step()
                on_step(self.step, loss)
                last = self.step == self.settings.steps
                if self.step % self.settings.log_every == 0 or last:
                    history.write(self.step, self._unwritten, self._topology_updates)
                    self._unwritten = []
                if last or held.received is not None or self._checkpoint_is_due():
                    self.save(folder)
                if held.received is not None:
                    self.model.workspace.report(
                        f"stopped after step {self.step} of {self.settings.steps}, which is saved: "
                        f"{folder.checkpoint}"
                    )
                    held.deliver()

    def seconds_per_step(self) -> float:
        """Median over this process's steps; the mean over all where it took none."""
        return statistics.median(
            [each.wall for each in self.step_times] or [self.seconds / self.step]
        )

    def validation_loss(self) -> float | None:
        """Mean loss of the averaged denoiser over the validation split; ``None`` without one."""
        return self._losses.validation(self.averaged.module)

    def pack(self) -> None:
        """Hold weights as its steps do: the active ones alone, where the model's loss allows it."""
        if self.sparsifier and self._packs:
            self.sparsifier.pack()

    def save(self, folder: CellFolder) -> None:
        """Write a checkpoint into the cell's folder; it appears whole or not at all, and the one
        before it is kept."""
        if self.sparsifier:
            self.sparsifier.unpack()
        state = {
            "cell": folder.path.name,
            "step": self.step,
            "seconds": self.seconds,
            "denoiser": self.denoiser.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparsifier": self.sparsifier.state_dict() if self.sparsifier else None,
            "kernels": self.sparsifier.kernels.choice.to_json() if self.sparsifier else None,
            "packs": self._packs,
            "unwritten": self._unwritten,
            "budget": self.budget.model_dump(mode="json") if self.budget else None,
            "tables": tables(folder),
        }
        if self.sparsifier:
            state = pack_checkpoint(state, self.sparsifier, self.optimizer)
        folder.write_checkpoint(state)
        self._saved_at = time.monotonic()

    def resume(self, folder: CellFolder) -> None:
        """Go on from the cell's latest checkpoint, and its tables as they were then; one that is
        damaged is set aside, and the one before it taken, or none.

        Raises:
            Exception: if a checkpoint is whole, but of another network, or cannot be read now.
        """
        for path in folder.checkpoints:
            try:
                state = self._read(path)
            except DamagedError as error:
                aside = folder.set_aside(path)
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                self.model.workspace.report(f"{path}: damaged ({reason}); it is {aside.name} now")
            else:
                self._take_over(state, path)
                for table in restore(folder, state.get("tables", {})):
                    self.model.workspace.report(f"{table}: damaged; it is as it was saved again")
                return

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            StoreError: if the file cannot be read, or is not a checkpoint of this cell.
        """
        try:
            state = self._read(path)
        except Exception as error:
            raise no_checkpoint(path) from error
        self._take_over(state, path)

    def _read(self, path: Path) -> dict[str, Any]:
        """What is in a checkpoint of this cell. Raises what :func:`load_sealed` does."""
        state = load_sealed(path, self.model.workspace.device)
        if state.get("cell") != path.parent.name:
            raise DamagedError(f"of {state.get('cell')}")
        return state

    def _take_over(self, state: dict[str, Any], path: Path) -> None:
        try:
            if self.sparsifier:
                state = unpack_checkpoint(state, self.sparsifier, self.optimizer)
            self._restore(state)
        except Exception as error:
            raise no_checkpoint(path) from error

    def _restore(self, state: dict[str, Any]) -> None:
        if self.sparsifier:
            self.sparsifier.unpack()
        self.denoiser.load_state_dict(state["denoiser"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.sparsifier is not None:
            self.sparsifier.load_state_dict(state["sparsifier"])
            if "kernels" in state:  # not in those of earlier versions
                self.sparsifier.kernels.choose(Choice.from_json(state["kernels"]))
        self.step = state["step"]
        self.seconds = state["seconds"]
        self._unwritten = state["unwritten"]
        self._packs = state.get("packs", True)

    def take_step(self) -> float:
        """Take the next optimizer step, and time it; the mean loss of its batch.

        Raises:
            DivergedError: at a loss that is not finite.
        """
        device, updates = self.model.workspace.device, self._topology_updates
        start = read_clocks(device)
        loss = self._step()
        took = start.until(read_clocks(device))
        self.seconds += took.wall
        if self._topology_updates > updates:
            self.updated_at.append(len(self.step_times))
        self.step_times.append(took)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {self.step}")
        self._unwritten.append((loss, took.wall))
        return loss

    @property
    def _topology_updates(self) -> int:
        return self.sparsifier.topology_updates if self.sparsifier else 0

    def _checkpoint_is_due(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        return (
            self.step % self.settings.checkpoint_every == 0
            or minutes >= self.settings.checkpoint_minutes
        )

    def _step(self) -> float:
        """One optimizer step; the mean loss of its batch."""
        self.pack()
        packed = self.sparsifier is not None and self.sparsifier.is_packed
        loss = self._packed_backward() if packed else self._backward()
        if self.settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.settings.gradient_clip)
        set_learning_rate(self.optimizer, self.settings, self.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averaged.update_parameters(self.denoiser)
        self.step += 1
        return loss.item()

    def _packed_backward(self) -> Tensor:
        """Accumulate the gradients of the next step's batch with active weights alone; with whole
        ones from now on, where the model's loss cannot be computed so. The mean loss of the batch.
        """
        assert self.sparsifier
        try:
            loss = self._backward()
            if loss.isfinite():
                return loss
            reason = f"it is {loss.item()}"
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
        self._packs = False
        self.sparsifier.unpack()
        self.optimizer.zero_grad()
        whole = self._backward()
        if whole.isfinite():
            self.model.workspace.report(
                "weights are trained with their zeros: without them, the loss of this model "
                f"cannot be computed ({reason})"
            )
        return whole

    def _backward(self) -> Tensor:
        """Accumulate the gradients of the next step's batch; its mean loss."""
        return self._losses.accumulate(self.denoiser, self.step)

    def _backward_without_step(self) -> None:
        """Accumulate the gradients of the next step's batch, which that step sees again; what a
        forward pass leaves in buffers is undone.

        Raises:
            DivergedError: at a loss that is not finite.
        """
        before = [buffer.clone() for buffer in self.denoiser.buffers()]
        loss = self._backward().item()
        for buffer, value in zip(self.denoiser.buffers(), before, strict=True):
            buffer.copy_(value)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} before the first step")
