"""Thresholds that are measured on a machine, and kept for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kernels_here import with_kernels
from torch import Tensor, nn

from dstbench.kernels import thresholds
from dstbench.kernels.choice import DEFAULT_THRESHOLDS, Choice
from dstbench.kernels.library import NoKernelsError
from dstbench.kernels.thresholds import choice_of_machine, measure, measured


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty one."""
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of tiny layers, of one round and two densities."""

    def layers(kind: str) -> Iterator[tuple[nn.Module, Tensor]]:
        for count in (2, 4, 8):
            if kind == "gru":
                yield nn.GRU(4, 8, batch_first=True, bidirectional=True), torch.randn(count, 3, 4)
            else:
                yield nn.Linear(8, 8), torch.randn(count, 8)

    monkeypatch.setattr(thresholds, "_layers", layers)
    monkeypatch.setattr(thresholds, "_ROUNDS", 1)
    monkeypatch.setattr(thresholds, "DENSITIES", (0.1, 0.5))


def ratios(monkeypatch: pytest.MonkeyPatch, slower_from: float) -> None:
    """Let sparse passes be the slower ones from a density on."""
    monkeypatch.setattr(
        thresholds,
        "_ratio",
        lambda layer, inputs, density, group: 2.0 if density >= slower_from else 0.5,
    )


def test_those_shipped_are_for_machines_that_were_not_measured() -> None:
    assert measured() is None
    assert choice_of_machine("auto") == Choice("auto", DEFAULT_THRESHOLDS)
    assert choice_of_machine("sparse").mode == "sparse"


@with_kernels
@pytest.mark.usefixtures("quick")
def test_what_is_measured_is_kept() -> None:
    said: list[str] = []
    threads = torch.get_num_threads()
    found = measure(said.append)
    assert torch.get_num_threads() == threads
    assert found.keys() == DEFAULT_THRESHOLDS.keys()
    assert all(density in (0, 0.1, 0.5) for each in found.values() for density in each)
    assert [line.rpartition(":")[0] for line in said] == list(found)
    assert measured() == found
    assert choice_of_machine("auto") == Choice("auto", found)


@with_kernels
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("slower_from", "threshold"), [(0.1, 0), (0.2, 0.1), (0.9, 0.5)])
def test_a_threshold_is_the_last_density_at_which_sparse_is_faster(
    monkeypatch: pytest.MonkeyPatch, slower_from: float, threshold: float
) -> None:
    ratios(monkeypatch, slower_from)
    assert set(measure(lambda line: None).values()) == {(threshold,) * 3}


def test_every_kind_has_three_sizes() -> None:
    for kind in DEFAULT_THRESHOLDS:
        kind = kind.removesuffix(":4")
        layers = list(thresholds._layers(kind))
        assert len(layers) == 3
        weights = {name: w for name, w in layers[0][0].named_parameters() if w.ndim > 1}
        assert weights
        masks = {name: torch.rand_like(weight) < 0.5 for name, weight in weights.items()}
        use = thresholds.use_kernels([layers[0][0]], masks, Choice("sparse"))
        assert {each.kind for each in use.layers.values()} <= {kind}
        use.stop()


@with_kernels
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"conv": [1, 1, 1]}'])
def test_a_file_that_is_damaged_or_of_another_version(
    monkeypatch: pytest.MonkeyPatch, cache: Path, text: str
) -> None:
    ratios(monkeypatch, 0.2)
    measure(lambda line: None)
    (file,) = cache.glob("thresholds/*.json")
    file.write_text(text)
    assert measured() is None
    assert choice_of_machine("auto") == Choice("auto", DEFAULT_THRESHOLDS)


def test_another_architecture_has_its_own(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(thresholds, "load", lambda: None)
    ratios(monkeypatch, 0.2)
    measure(lambda line: None)
    monkeypatch.setenv("DSTBENCH_KERNELS_ARCH", "x86-64-v2")
    assert measured() is None


def test_without_kernels_there_is_nothing_to_measure(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def fail() -> None:
        raise NoKernelsError("there is no C++ compiler")

    monkeypatch.setattr(thresholds, "load", fail)
    with pytest.raises(NoKernelsError, match="there is no C"):
        measure(lambda line: None)
    assert measured() is None


def test_a_choice_survives_a_checkpoint() -> None:
    choice = Choice("auto", dict.fromkeys(DEFAULT_THRESHOLDS, (0.1, 0.2, 0.3)))
    assert Choice.from_json(choice.to_json()) == choice
