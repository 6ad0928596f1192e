"""A dataset loaded in a new process: ``python -m dstbench.testing.trials.reloading JSON``."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from dstbench.cache import Cache
from dstbench.contracts import Workspace
from dstbench.testing.trials.loaded import summary
from dstbench.testing.trials.processes import imported


def _summary_of(module: str, qualname: str, settings: dict[str, Any], cache: str) -> dict[str, Any]:
    cls = imported(module, qualname)
    workspace = Workspace(torch.device("cpu"), Cache(Path(cache)))
    return summary(cls(cls.Settings(**settings)).load(workspace))


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # what the plugin prints is no part of the answer
        found = _summary_of(**json.loads(sys.argv[1]))
    print(json.dumps(found))
