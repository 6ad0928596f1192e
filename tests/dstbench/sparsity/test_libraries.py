"""What libraries do to model and optimizer: it works, or is refused in our words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sparsity_methods import GradientGrowth, RandomGrowth, assert_zero_outside_masks, make, mlp
from torch import Tensor, nn, optim

from dstbench.errors import SparsityError
from dstbench.sparsity import Sparsifier

METHODS = [Sparsifier, RandomGrowth, GradientGrowth]


def loss(model: nn.Module, step: int) -> Tensor:
    data = torch.Generator().manual_seed(step)
    output: Tensor = model(torch.randn(4, 6, generator=data))
    return output.float().square().mean()


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("order", ["prepare, attach", "attach, prepare"])
def test_accelerate(order: str, precision: str, accumulated: int, kind: type[Sparsifier]) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(
        cpu=True, mixed_precision=precision, gradient_accumulation_steps=accumulated
    )
    model: Any = mlp()
    optimizer: Any = optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(kind, 0.5)
    if order == "attach, prepare":
        sparsifier.attach(model, optimizer)
    model, optimizer = accelerator.prepare(model, optimizer)
    if order == "prepare, attach":
        sparsifier.attach(model, optimizer)
    for step in range(14):
        with accelerator.accumulate(model):
            accelerator.backward(loss(model, step))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        assert_zero_outside_masks(sparsifier, optimizer.optimizer)
    sparsifier.verify()
    assert sparsifier.step == 14 // accumulated
    assert sparsifier.topology_updates == (sparsifier.step // 3) * (kind is not Sparsifier)


@pytest.mark.slow  # it compiles its step
@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("grown_state", ["zero", "keep"])
def test_eight_bit_state_of_torchao(grown_state: str, kind: type[Sparsifier]) -> None:
    torchao_optim = pytest.importorskip("torchao.optim")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 1024), nn.Linear(1024, 8))
    optimizer = torchao_optim.AdamW8bit(model.parameters(), lr=0.01)
    settings = {} if kind is Sparsifier else {"grown_state": grown_state}
    sparsifier = make(kind, 0.5, **settings).attach(model, optimizer)
    loss(model, 0).backward()
    if settings == {"grown_state": "zero"}:
        with pytest.raises(SparsityError, match=r'as OptimState8bit codes, .*"keep", or train'):
            optimizer.step()
        return
    for step in range(1, 8):
        optimizer.step()
        optimizer.zero_grad()
        assert_zero_outside_masks(sparsifier, optimizer, moments=False)
        loss(model, step).backward()
    sparsifier.verify()
    assert sparsifier.step == 7
    assert sparsifier.topology_updates == 2 * (kind is not Sparsifier)


SHARDED = """
import sys
import torch
from sparsity_methods import GradientGrowth, make, mlp
from torch import distributed, optim
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from dstbench.errors import SparsityError
from dstbench.sparsity import Sparsifier

rank, path = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))


def refused(do):
    try:
        do()
    except SparsityError as error:
        return str(error)
    raise AssertionError("it was not refused")


for kind in (Sparsifier, GradientGrowth):
    model = fully_shard(mlp(), mesh=mesh)
    optimizer = optim.AdamW(model.parameters())
    error = refused(lambda: make(kind, 0.5).attach(model, optimizer))
    assert "0.weight is sharded over processes (a DTensor)" in error, error

    model = mlp()
    sparsifier = make(kind, 0.5).attach(model, optim.AdamW(model.parameters()))
    fully_shard(model, mesh=mesh)
    optimizer = optim.AdamW(model.parameters())
    model(torch.randn(4, 6)).sum().backward()
    error = refused(optimizer.step)
    assert "weights that fully_shard shards cannot be masked" in error, error
    assert refused(sparsifier.verify) == error
"""


def test_sharded_weights_are_refused_whenever_they_are_sharded(tmp_path: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{SHARDED}"
    commands = [[sys.executable, "-c", script, str(rank), str(tmp_path)] for rank in (0, 1)]
    processes = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:  # they may wait for each other
        for process in processes:
            process.kill()
