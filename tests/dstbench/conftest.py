import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstbench.cache import Cache
from dstbench.contracts import Workspace
from dstbench.grid import Cell
from dstbench.plugins.registry import Plugins, load_plugins
from dstbench.records import (
    Counts,
    Environment,
    Measurement,
    Protocol,
    Ratio,
    Record,
    Scores,
    Sizes,
    Times,
    UpdateCost,
)
from dstbench.settings import EvaluationSettings, TrainingSettings


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Makes the record of a cell: 100 of 120 parameters sparsifiable, counts as exact as S.

    ``timed`` are the times of its step and its sampling call relative to the dense twin; ``sized``
    says whether its sizes are known.
    """
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
    timed: tuple[float, float] | None = None,
    sized: bool = False,
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
            mean_active_sparsifiable=100 * density,
            inference_flops=2e9 * density,
            dense_inference_flops=2e9,
            sample_flops=50 * 2e9 * density,
            training_flops=6e12 * density,
            dense_training_flops=6e12,
        ),
        "times": Times(training_step=step, training=100 * step, sample=0.25),
    }
    if sparsifier != "dense" and timed is not None:
        finished["measurement"] = _measurement(*timed)
    if sized:
        dense_state, dense_model = 2400, 480
        finished["sizes"] = Sizes(
            state_bytes=dense_state + (100 if sparsity else 0),
            dense_state_bytes=dense_state,
            model_bytes=round(dense_model * (density if sparsity else 1)),
            dense_model_bytes=dense_model,
        )
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


def _measurement(step: float, sample: float) -> Measurement:
    """Steady ratios of both, by wall-clock time, each ± 0.02."""

    def ratio(of: float) -> Ratio:
        return Ratio(
            ratio=of, low=of - 0.02, high=of + 0.02, clock="wall", wall_ratio=of, cpu_ratio=of,
            rounds=12,
        )  # fmt: skip

    return Measurement(
        step=ratio(step),
        sample=ratio(sample),
        samples=64,
        update=UpdateCost(dense_steps=0.4, interval=100),
        kernels="masked dense",
        threads=2,
        load_before=0.25,
        load_after=1.5,
    )


TOYS = Path(__file__).parent
"""The folder of the module ``toys``."""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """On the CPU, with a cache of its own."""
    import torch

    return Workspace(torch.device("cpu"), Cache(tmp_path / "cache"))


@pytest.fixture
def toys_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs the plugins of ``toys``, as a distribution; the folder it is installed in."""
    folder = tmp_path / "site-packages"
    info = folder / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dstbench]\ntoys = toys\n")
    monkeypatch.syspath_prepend(TOYS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{TOYS}", prepend=os.pathsep)
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def folder(toys_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with toys.toml in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "toys.toml").write_bytes((TOYS / "toys.toml").read_bytes())
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def plug_in(toys_installed: Path) -> Iterator[Callable[[str, str], None]]:
    """Installs a distribution beside the toys, with a module behind an entry point of its name."""
    modules: list[str] = []

    def plug_in(name: str, source: str) -> None:
        module = f"plugged_{name.replace('-', '_')}"
        modules.append(module)
        (toys_installed / f"{module}.py").write_text(source)
        info = toys_installed / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dstbench]\n{name} = {module}\n")
        importlib.invalidate_caches()

    yield plug_in
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def plugins(toys_installed: Path) -> Plugins:
    """The toys, and what ships with dstbench."""
    return load_plugins()


@pytest.fixture
def make_cell() -> Callable[..., Cell]:
    """Makes a cell of the toys that is done in a fraction of a second."""
    return _make_cell


def _make_cell(
    sparsifier: str = "dense",
    sparsity: float = 0.0,
    seed: int = 0,
    *,
    training: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    **fields: Any,
) -> Cell:
    few_steps = {"steps": 12, "batch_size": 6, "learning_rate": 1e-2, "log_every": 5}
    few_samples = {"extractor": "toy-features", "samples": 9, "kid_subsets": 2}
    return Cell(
        model="toy-net",
        dataset="toy-images",
        sparsifier=sparsifier,
        sparsity=sparsity,
        seed=seed,
        training=TrainingSettings(**few_steps | (training or {})).model_dump(mode="json"),
        evaluation=EvaluationSettings(**few_samples | (evaluation or {})).model_dump(mode="json"),
        **fields,
    )
