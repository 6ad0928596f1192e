"""Cells of toys, run by a scheduler."""

from pathlib import Path

import pytest

from dstbench.contracts import Workspace
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.plugins.registry import Plugins
from dstbench.store import Store


@pytest.fixture
def texts() -> list[str]:
    """What was reported."""
    return []


@pytest.fixture
def scheduler(
    plugins: Plugins, workspace: Workspace, tmp_path: Path, texts: list[str]
) -> Scheduler:
    place = Workspace(workspace.device, workspace.cache, texts.append)
    return Scheduler(Store(tmp_path / "results" / "toys"), Pipeline(plugins, place))
