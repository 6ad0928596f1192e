"""``dstbench machine``: which kernels there are, and when they are used."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dstbench import cli
from dstbench.kernels import library, thresholds
from dstbench.kernels.choice import DEFAULT_THRESHOLDS

Machine = Callable[..., tuple[int, str, str]]
"""Exit code, output and errors of the command with these options."""


@pytest.fixture
def machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Machine:
    """In this process, with an empty cache."""
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "cache"))

    def machine(*options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dstbench", "machine", *options])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return int(exited.value.code or 0), *capsys.readouterr()

    return machine


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    load = library.load.__wrapped__
    for module in (library, thresholds):
        monkeypatch.setattr(module, "load", load)


def table(output: str) -> dict[str, list[float]]:
    rows = re.findall(r"^([\w:]+) +([\d.]+) +([\d.]+) +([\d.]+)$", output, re.MULTILINE)
    return {kind: [float(each) for each in densities] for kind, *densities in rows}


def test_thresholds_that_are_shipped(machine: Machine) -> None:
    code, output, errors = machine()
    assert (code, errors) == (0, "")
    first, second, *_ = output.splitlines()
    assert first == f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    assert second == library.describe()
    assert "(those shipped; --measure finds this machine's)" in output
    assert table(output) == {kind: list(each) for kind, each in DEFAULT_THRESHOLDS.items()}
    assert "medium: from 1,024 positions" in output


def test_thresholds_that_are_measured(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def layers(kind: str) -> Iterator[tuple[nn.Module, Tensor]]:
        for count in (2, 4, 8):
            yield nn.Linear(8, 8), torch.randn(count, 8)

    if library.describe().startswith("masked dense"):
        pytest.skip("no sparse kernels here")
    monkeypatch.setattr(thresholds, "_layers", layers)
    monkeypatch.setattr(thresholds, "_ROUNDS", 1)
    monkeypatch.setattr(thresholds, "_ratio", lambda layer, inputs, density, group: density / 0.22)
    code, output, errors = machine("--measure")
    assert (code, errors) == (0, "")
    for kind in DEFAULT_THRESHOLDS:
        assert f"    {kind}: 0.2, 0.2, 0.2\n" in output
    assert "(measured here)" in output
    assert table(output) == {kind: [0.2, 0.2, 0.2] for kind in DEFAULT_THRESHOLDS}

    code, again, _ = machine()
    assert "(measured here)" in again
    assert table(again) == table(output)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler(machine: Machine) -> None:
    code, output, errors = machine()
    assert (code, errors) == (0, "")
    said = "there is no C++ compiler (c++, g++ or clang++) on the path"
    assert output.splitlines()[1] == f"masked dense kernels only: {said}"


@pytest.mark.usefixtures("no_compiler")
def test_there_is_nothing_to_measure_without_a_compiler(machine: Machine) -> None:
    code, _, errors = machine("--measure")
    assert code != 0
    assert errors == "error: there is no C++ compiler (c++, g++ or clang++) on the path\n"
