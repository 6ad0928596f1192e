"""How kernels are compiled, and what is said where they cannot be."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dstbench.kernels import Choice, library, prebuild, use_kernels


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and nothing loaded."""
    monkeypatch.setenv("DSTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    monkeypatch.setattr(library, "why_not", library.why_not.__wrapped__)


def a_use() -> str:
    model = nn.Sequential(nn.Linear(8, 8))
    mask = torch.rand(8, 8) < 0.5
    with torch.no_grad():
        model[0].weight.mul_(mask)
    kernels = use_kernels([model], {"0.weight": mask}, Choice("sparse"))
    model(torch.randn(3, 8))
    return kernels.describe()


@pytest.mark.usefixtures("anew")
def test_without_a_compiler_masked_dense_kernels_compute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    said = "there is no C++ compiler (c++, g++ or clang++) on the path"
    assert library.describe() == f"masked dense kernels only: {said}"
    assert a_use() == f"masked dense ({said})"


@pytest.mark.usefixtures("anew")
def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert a_use() == f"masked dense ({broken} cannot compile them: out of order)"


@pytest.mark.usefixtures("anew")
def test_a_library_that_does_not_load_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "compile_to", lambda path, *_, **__: path.write_text("no code"))
    assert a_use().startswith("masked dense (the compiled kernels do not load: ")


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="architectures of x86-64")
@pytest.mark.usefixtures("anew")
def test_prebuilt_kernels_serve_where_there_is_no_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (library, prebuild):
        monkeypatch.setattr(module, "PREBUILT", tmp_path / "prebuilt")
    prebuild.main()
    made = sorted(path.name for path in library.PREBUILT.iterdir())
    assert made == ["x86-64-v3.so", "x86-64-v4.so"]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert library.describe().endswith("lanes, as this package brings them")
    assert a_use() == "sparse in 1 of 1 layers that they take"


COMPARE = """
import torch
from torch import nn
from dstbench.kernels import Choice, use_kernels
from dstbench.kernels.library import load

torch.manual_seed(0)
layer = nn.Conv2d(12, 8, 3, padding=1)
mask = torch.rand_like(layer.weight) < 0.3
with torch.no_grad():
    layer.weight.mul_(mask)
gru = nn.GRU(5, 8, 1, bidirectional=True)
masks = {n: torch.rand_like(w) < 0.3 for n, w in gru.named_parameters() if "weight" in n}
with torch.no_grad():
    for name, each in masks.items():
        gru.get_parameter(name).mul_(each)
images, points = torch.randn(5, 12, 9, 11), torch.randn(6, 40, 5)
expected = layer(images), gru(points)[0]
both = ([layer], {"weight": mask}), ([gru], masks)
uses = [use_kernels(*each, Choice("sparse")) for each in both]
found = layer(images), gru(points)[0]
assert all(each.in_use for use in uses for each in use.layers.values())
for one, other in zip(found, expected, strict=True):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
print(load().lanes())
"""


def run_compare(tmp_path: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMPARE],
        env={**os.environ, "DSTBENCH_CACHE": str(tmp_path), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_that_want_them_at_once(tmp_path: Path) -> None:
    both = [run_compare(tmp_path), run_compare(tmp_path)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert len(list(tmp_path.glob("kernels*/"))) == 1


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="architectures of x86-64")
@pytest.mark.parametrize(("architecture", "lanes"), [("x86-64-v3", "8"), ("x86-64-v2", "4")])
def test_the_same_source_for_narrower_vectors(
    tmp_path: Path, architecture: str, lanes: str
) -> None:
    process = run_compare(tmp_path, DSTBENCH_KERNELS_ARCH=architecture)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.strip() == lanes
