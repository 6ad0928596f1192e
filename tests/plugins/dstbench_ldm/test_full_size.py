"""The denoiser at the paper's size: 274 million parameters."""

from pathlib import Path

import pytest
import torch
from dstbench_ldm.denoiser import build_denoiser
from dstbench_ldm.settings import LatentDiffusionSettings
from dstbench_rigl import RigL
from torch.nn import functional as F


@pytest.mark.slow
def test_a_step_and_a_topology_update_of_the_papers_denoiser_fit_into_12_gb() -> None:
    torch.manual_seed(0)
    denoiser = build_denoiser(LatentDiffusionSettings())
    denoiser.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-5, fused=True)
    sparsifier = RigL(0.9, total_steps=100, exploration_frequency=1).attach(denoiser, optimizer)
    assert (sparsifier.sparsifiable, sparsifier.active) == (273_872_704, 27_387_270)
    measurable = reset_peak_memory()

    latents = torch.randn(1, 3, 64, 64)
    loss = F.mse_loss(denoiser(latents, torch.tensor([500])), torch.randn(1, 3, 64, 64))
    loss.backward()
    optimizer.step()

    assert sparsifier.topology_updates == 1
    assert sparsifier.connections_changed > 0
    assert sum(int(layer.mask.sum()) for layer in sparsifier.layers) == 27_387_270
    for layer in sparsifier.layers:
        assert not layer.weight[~layer.mask].any()
    if measurable:
        assert peak_memory() < 12e9


def reset_peak_memory() -> bool:
    """Forget the peak of the process so far, where the system lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """Bytes of the largest resident set of the process since the reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) * 1024
