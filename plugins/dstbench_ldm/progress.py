"""How far the training of a first stage is, in a file from which it can go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dstbench.contracts import Workspace
from dstbench.store import DamagedError, load_sealed, save_sealed, write_atomically

SECONDS_BETWEEN_SAVES = 60


class Progress:
    """All that a training changes from step to step, saved and loaded."""

    def __init__(
        self,
        path: Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        rng: torch.Generator,
    ) -> None:
        self.path = path
        self.network = network
        self.optimizer = optimizer
        self.schedule = schedule
        self.rng = rng
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether the latest save was some time ago."""
        return time.monotonic() - self._saved_at >= SECONDS_BETWEEN_SAVES

    def save(self, step: int) -> None:
        """Save all as it is after so many steps."""
        state: dict[str, Any] = {
            "step": step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": self.rng.get_state(),
            "global_rng": torch.get_rng_state(),
        }
        write_atomically(self.path, lambda path: save_sealed(state, path))
        self._saved_at = time.monotonic()

    def load(self, workspace: Workspace) -> int:
        """Make all as it was when it was saved; how many steps were taken by then, 0 where nothing
        was saved, or what was is damaged."""
        if not self.path.exists():
            return 0
        try:
            state = load_sealed(self.path, torch.device("cpu"))
        except DamagedError as error:
            workspace.report(f"{self.path}: damaged, and left out: {error}")
            return 0
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.rng.set_state(state["rng"])
        torch.set_rng_state(state["global_rng"])
        return int(state["step"])

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
