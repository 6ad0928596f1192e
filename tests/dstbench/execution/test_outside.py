"""What the record of a stranger's cell would have read or fetched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstbench.contracts import Workspace
from dstbench.errors import StoreError
from dstbench.execution.outside import outside
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.scheduler import Scheduler
from dstbench.grid import Cell
from dstbench.plugins.registry import Plugins
from dstbench.store import Store

MakeCell = Callable[..., Cell]


@pytest.mark.parametrize("place", ["/etc", "~", "../mine", "C:/mine", "~/Pictures", "$HOME"])
def test_places_that_a_record_names(
    plugins: Plugins, workspace: Workspace, make_cell: MakeCell, place: str
) -> None:
    cell = make_cell().model_copy(
        update={"dataset": "image-folder", "dataset_settings": {"path": place}}
    )
    assert f"dataset 'image-folder' reads {place}" in outside(cell, plugins, workspace)


@pytest.mark.parametrize(
    ("first_stage", "found"),
    [("train", []), ("somebody/network", ["model 'ldm' reads somebody/network"])],
)
def test_a_network_from_the_web(
    plugins: Plugins, workspace: Workspace, make_cell: MakeCell, first_stage: str, found: list[str]
) -> None:
    cell = make_cell().model_copy(
        update={"model": "ldm", "model_settings": {"first_stage": first_stage}}
    )
    assert outside(cell, plugins, workspace) == found


def test_a_dataset_that_would_be_downloaded(
    plugins: Plugins, workspace: Workspace, make_cell: MakeCell, tmp_path: Path
) -> None:
    cell = make_cell(dataset_settings={"away": "web"})
    pipeline = Pipeline(plugins, workspace)
    scheduler = Scheduler(Store(tmp_path / "results"), pipeline)
    (record,) = scheduler.run([cell], download=True)
    assert record.status == "done"
    folder = scheduler.store.cell(cell)
    pipeline.sample(folder, 2, trusted=False)  # it is there by now
    elsewhere = Workspace(workspace.device, type(workspace.cache)(tmp_path / "another cache"))
    stranger: Any = Pipeline(plugins, elsewhere)
    assert len(stranger.sample(folder, 2, trusted=False)[1]) == 2  # which takes no dataset
    folder.sampling.unlink()  # as of a dataset whose items are no tensors
    with pytest.raises(StoreError, match=r"'toy-images' is downloaded \(1 kB .*--yes allows it"):
        stranger.sample(folder, 2, trusted=False)
    assert len(stranger.sample(folder, 2)[1]) == 2
