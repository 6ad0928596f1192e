"""What is told about the machine."""

import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import torch

from dstbench import __version__
from dstbench.errors import ConfigError
from dstbench.execution import machine
from dstbench.execution.machine import choose_device, environment, peak_memory, reset_peak_memory

CPU = torch.device("cpu")


def pretend_gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("gpus", "name", "device"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_devices(gpus: int, name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(gpus, monkeypatch)
    assert str(choose_device(name)) == device


@pytest.mark.parametrize(
    ("gpus", "name", "known"),
    [
        (0, "cuda", "auto, cpu"),
        (0, "nonsense", "auto, cpu"),
        (0, "meta", "auto, cpu"),
        (0, "", "auto, cpu"),
        (2, "cuda:2", "auto, cpu, cuda, cuda:0, cuda:1"),
    ],
)
def test_devices_that_are_not_there(
    gpus: int, name: str, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(gpus, monkeypatch)
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    assert str(caught.value) == (
        f"there is no device '{name}' on this machine; choose among {known}"
    )


def test_the_environment_names_all_that_scores_depend_on() -> None:
    found = environment(CPU)
    names = ["torch", "torchvision", "diffusers", "torch-fidelity", "fvcore", "numpy", "pillow"]
    assert found.packages == {"dstbench": __version__} | {n: metadata.version(n) for n in names}
    assert found.threads == torch.get_num_threads()
    assert (found.device, found.gpu) == ("cpu", None)
    assert found.cpu


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def revision_from(root: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What is recorded if dstbench is the package in this folder."""
    monkeypatch.setattr(machine, "__file__", str(root / "dstbench" / "execution" / "machine.py"))
    machine._lasting.cache_clear()  # as in a new process
    try:
        return environment(CPU).git_revision
    finally:
        machine._lasting.cache_clear()


def test_the_revision_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dstbench" / "execution").mkdir(parents=True)
    source = tmp_path / "dstbench" / "execution" / "machine.py"
    source.write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "v1")
    revision = git(tmp_path, "rev-parse", "HEAD")
    assert revision_from(tmp_path, monkeypatch) == revision
    source.write_text("2")
    assert revision_from(tmp_path, monkeypatch) == f"{revision}-dirty"

    # An installed package knows no revision, least of all that of the repository around it.
    installed = tmp_path / ".venv" / "site-packages"
    (installed / "dstbench" / "execution").mkdir(parents=True)
    assert revision_from(installed, monkeypatch) is None


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert revision_from(tmp_path, monkeypatch) is None


def test_there_is_no_peak_memory_of_a_cpu() -> None:
    reset_peak_memory(CPU)
    assert peak_memory(CPU) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_peak_memory_of_a_gpu_is_that_since_the_reset() -> None:
    gpu = torch.device("cuda")
    reset_peak_memory(gpu)
    before = peak_memory(gpu)
    torch.zeros(2**20, device=gpu)
    after = peak_memory(gpu)
    assert before is not None
    assert after is not None
    assert after >= before + 4 * 2**20
    reset_peak_memory(gpu)
    assert peak_memory(gpu) == before
