from collections.abc import Callable
from typing import Any

import pytest

from dstbench.grid import Cell
from dstbench.records import Counts, Environment, Protocol, Record, Scores, Times


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Makes the record of a cell: 100 of 120 parameters sparsifiable, counts as exact as S."""
    return _make_record


def _make_record(
    sparsifier: str = "dense",
    sparsity: float = 0.0,
    seed: int = 0,
    fid: float | None = None,
    status: str = "done",
    *,
    cell: dict[str, Any] | None = None,
    protocol: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    step: float = 0.05,
    **fields: Any,
) -> Record:
    density = 1 - sparsity
    finished: dict[str, Any] = {
        "scores": Scores(fid=fid),
        "protocol": Protocol(
            **{
                "extractor": "lenet",
                "weights_hash": "0123456789abcdef",
                "resize": "none",
                "samples": 1000,
                "reference": "digits/train",
                "reference_images": 1437,
                "features": 84,
            }
            | (protocol or {})
        ),
        "counts": Counts(
            parameters=120,
            active_parameters=20 + round(100 * density),
            sparsifiable=100,
            active_sparsifiable=round(100 * density),
            inference_flops=2e9 * density,
            dense_inference_flops=2e9,
            sample_flops=50 * 2e9 * density,
            training_flops=6e12 * density,
            dense_training_flops=6e12,
        ),
        "times": Times(training_step=step, training=100 * step, sample=0.25),
        "peak_memory": 300 * 2**20,
    }
    return Record(
        cell=Cell(
            **{
                "model": "ldm",
                "dataset": "digits",
                "sparsifier": sparsifier,
                "sparsity": sparsity,
                "seed": seed,
            }
            | (cell or {})
        ),
        status=status,
        started="2026-01-01T00:00:00+00:00",
        environment=Environment(
            **{
                "python": "3.11",
                "packages": {},
                "platform": "Linux",
                "cpu": "Abacus 2",
                "threads": 2,
                "device": "cpu",
                "gpu": None,
                "git_revision": None,
            }
            | (environment or {})
        ),
        **(finished if status == "done" else {}) | fields,
    )
