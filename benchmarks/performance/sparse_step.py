"""What a masked step and a topology update cost, as ratios to the dense step.

    python benchmarks/performance/sparse_step.py [--rounds 40] [--device cpu] [--channels-last]

A diffusers U-Net of about 7 M parameters, batch 16 of 4×16×16, AdamW. In every round the dense
network takes a step, and so does each sparse one, first without and then with a topology update,
so that whatever else the machine does hits all of them alike. Reported are medians over rounds of
the paired ratios; the row of a second dense network says how much of them is noise.
"""

import argparse
import copy
import json
import platform
import resource
import time
from collections.abc import Callable

import torch
from diffusers import UNet2DModel
from methods import compare_methods
from torch import Tensor, nn

from dstbench.sparsity import Sparsifier


def unet() -> nn.Module:
    return UNet2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
    )


def stepper(
    model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], sparsifier: Sparsifier | None
) -> Callable[[], float]:
    """A function that takes one training step and returns its seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if sparsifier is not None:
        sparsifier.attach(model, optimizer)
    noisy, timesteps, noise = batch
    wait = torch.cuda.synchronize if noisy.is_cuda else lambda: None

    def step() -> float:
        wait()
        start = time.perf_counter()
        prediction = model(noisy, timesteps, return_dict=False)[0]
        nn.functional.mse_loss(prediction, noise).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait()
        return time.perf_counter() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    model = unet().to(args.device, memory_format=memory_format)
    noise = torch.randn(16, 4, 16, 16, device=args.device)
    batch = (noise, torch.randint(1000, (16,), device=args.device), torch.randn_like(noise))

    table, dense_seconds = compare_methods(
        lambda sparsifier: stepper(copy.deepcopy(model), batch, sparsifier), args.rounds
    )
    machine = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor()
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in model.parameters()),
                "dense_step_seconds": dense_seconds,
                "torch": torch.__version__,
                "machine": machine or platform.machine(),
                "threads": torch.get_num_threads(),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )
    print(table.to_markdown())


if __name__ == "__main__":
    main()
