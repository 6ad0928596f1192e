"""Trials that go on in a new process: ``python -m dstbench.testing.trials.resuming FOLDER``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dstbench.testing.trials.processes import imported, run_module
from dstbench.testing.trials.trial import Trial

TRIALS = "trials.json"


class Stopped(NamedTuple):
    """A trial between two of its steps."""

    told: dict[str, Any]
    """All that a new process needs to make the same trial, as JSON has it."""
    saved: dict[str, Any]
    """The state that it goes on from."""

    @classmethod
    def now(cls, trial: Trial) -> Stopped:
        """A trial as it is now, whatever becomes of it."""
        return cls(_told(trial), deepcopy(trial.saved()))


def resumed(stopped: Sequence[Stopped], more_steps: int) -> list[dict[str, Tensor]]:
    """The states after so many more steps, taken in a new process that loads what was saved."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        told = {
            "threads": torch.get_num_threads(),
            "more_steps": more_steps,
            "trials": [each.told for each in stopped],
        }
        (folder / TRIALS).write_text(json.dumps(told))
        torch.save([each.saved for each in stopped], folder / "saved.pt")
        run_module(__name__, name)
        ends: list[dict[str, Tensor]] = torch.load(folder / "ends.pt", weights_only=True)
        return ends


def _told(trial: Trial) -> dict[str, Any]:
    sparsifier = trial.sparsifier
    assert sparsifier is not None
    return {
        "module": type(sparsifier).__module__,
        "qualname": type(sparsifier).__qualname__,
        "network": trial.name,
        "sparsity": trial.sparsity,
        "arguments": {
            **trial.arguments,
            "settings": sparsifier.settings.model_dump(mode="json"),
        },
    }


def _made(module: str, qualname: str, arguments: dict[str, Any], **where: Any) -> Trial:
    return Trial(imported(module, qualname), **where, **arguments)


def _resume(folder: Path) -> None:
    told = json.loads((folder / TRIALS).read_text())
    torch.set_num_threads(told["threads"])
    states = torch.load(folder / "saved.pt", weights_only=True)
    ends = []
    for of_trial, state in zip(told["trials"], states, strict=True):
        trial = _made(**of_trial)
        trial.restore(state)
        trial.train(told["more_steps"])
        ends.append(trial.state())
        trial.end()
    torch.save(ends, folder / "ends.pt")


if __name__ == "__main__":
    _resume(Path(sys.argv[1]))
