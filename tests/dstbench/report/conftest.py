"""Results to make reports of."""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dstbench.errors import StoreError
from dstbench.records import Record
from dstbench.report.leaderboard import tables
from dstbench.store import Store

Keep = Callable[[Path, Iterable[Record]], Path]


@pytest.fixture
def keep() -> Keep:
    """Keeps records, with a few samples of each cell, in a results folder."""

    def keep(results: Path, records: Iterable[Record]) -> Path:
        for record in records:
            folder = Store(results).cell(record.cell)
            folder.path.mkdir(parents=True, exist_ok=True)
            if record.status == "done":
                folder.write_images(folder.samples, np.zeros((2, 4, 4, 1), np.uint8))
            folder.write_record(record)
        return results

    return keep


class Shown(SimpleNamespace):
    @property
    def tables(self):
        return tables(self.records)


@pytest.fixture
def shown(make_record):
    """Finished cells of two seeds, with histories, samples and real images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    steps = np.arange(1, 1001)
    history = pd.DataFrame({"step": steps, "loss": 1 / steps})

    def reals(cell):
        if cell.seed != 3:
            return images
        raise StoreError("none were kept")

    def topology(cell):
        if cell.sparsifier == "dense":
            raise StoreError("no masks")
        rows = [(step, layer, 0.5, step) for step in (0, 10, 20) for layer in ("first", "second")]
        return pd.DataFrame(rows, columns=["step", "layer", "density", "changed"])

    return Shown(
        name="quick",
        records=[
            make_record(sparsifier, sparsity, seed, fid=10 + 20 * sparsity + seed / 10)
            for sparsifier, sparsities in {
                "dense": [0.0], "static": [0.5, 0.9], "rigl": [0.5],
            }.items()
            for sparsity in sparsities
            for seed in (3, 4)
        ],
        history=lambda cell: history,
        topology=topology,
        samples=lambda cell: images,
        reals=reals,
        neighbours=lambda cell: 255 - images[:3],
    )  # fmt: skip
