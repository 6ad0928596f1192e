"""Trials that go on in a new process: ``python -m dstbench.testing.resuming FOLDER``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from dstbench.testing.checking import Broken
from dstbench.testing.trials import Trial

TRIALS = "trials.json"


def importable(cls: type[Any]) -> str | None:
    """Why a new process could not import the class; ``None``: it can."""
    try:
        found = _imported(cls.__module__, cls.__qualname__)
    except (ImportError, AttributeError):
        found = None
    if found is cls and cls.__module__ != "__main__":
        return None
    return f"a new process cannot import {cls.__qualname__} from {cls.__module__}"


def resumed(trials: Sequence[Trial], more_steps: int) -> list[dict[str, Tensor]]:
    """The states after so many more steps, taken in a new process that loads what these save."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        told = {
            "threads": torch.get_num_threads(),
            "more_steps": more_steps,
            "trials": [
                [
                    type(trial.sparsifier).__module__,
                    type(trial.sparsifier).__qualname__,
                    trial.name,
                    trial.sparsity,
                    trial.arguments,
                ]
                for trial in trials
            ],
        }
        (folder / TRIALS).write_text(json.dumps(told))
        torch.save([trial.saved() for trial in trials], folder / "saved.pt")
        done = subprocess.run(
            [sys.executable, "-m", __name__, name],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Broken(f"loading failed in the new process\n{done.stderr.strip()}")
        ends: list[dict[str, Tensor]] = torch.load(folder / "ends.pt", weights_only=True)
        return ends


def _resume(folder: Path) -> None:
    told = json.loads((folder / TRIALS).read_text())
    torch.set_num_threads(told["threads"])
    states = torch.load(folder / "saved.pt", weights_only=True)
    ends = []
    for (module, qualname, network, sparsity, arguments), state in zip(
        told["trials"], states, strict=True
    ):
        trial = Trial(_imported(module, qualname), network, sparsity, **arguments)
        trial.restore(state)
        trial.train(told["more_steps"])
        ends.append(trial.state())
    torch.save(ends, folder / "ends.pt")


def _imported(module: str, qualname: str) -> Any:
    return attrgetter(qualname)(import_module(module))


if __name__ == "__main__":
    _resume(Path(sys.argv[1]))
