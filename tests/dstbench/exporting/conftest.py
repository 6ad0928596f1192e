from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstbench.contracts import Workspace
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.execution.worker import RunOptions
from dstbench.grid import Cell
from dstbench.plugins.registry import Plugins
from dstbench.store import CellFolder, Store


@pytest.fixture
def trained(
    plugins: Plugins, workspace: Workspace, tmp_path: Path, make_cell: Callable[..., Cell]
) -> Callable[..., CellFolder]:
    """Trains a cell of the toys, and returns its folder."""

    def trained(sparsifier: str = "rigl", sparsity: float = 0.5, **fields: Any) -> CellFolder:
        if sparsifier == "rigl":
            fields["sparsifier_settings"] = {"exploration_frequency": 3}
        cell = make_cell(sparsifier, sparsity, **fields)
        store = Store(tmp_path / "results" / "toys")
        options = RunOptions(measure_seconds=0)
        (record,) = Scheduler(store, Pipeline(plugins, workspace), options).run([cell])
        assert record.status == "done", record.error
        return store.cell(cell)

    return trained
