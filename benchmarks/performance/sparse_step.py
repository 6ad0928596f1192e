"""What a masked step and a topology update cost, as ratios to the dense step.

    python benchmarks/performance/sparse_step.py [--rounds 40] [--device cpu] [--channels-last]
                                                 [--out results/performance/sparse_step.md]

A diffusers U-Net of about 7 M parameters, batch 16 of 4×16×16, AdamW. In every round the dense
network takes a step, and so does each sparse one, first without and then with a topology update,
so that whatever else the machine does hits all of them alike. Without a GPU all runs in one thread,
and what is measured is that thread's CPU time. Reported are medians over rounds of the paired
ratios, with their 95 % bootstrap intervals; the row of a second dense network says how much of them
is noise.
"""

import argparse
import copy
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DModel
from methods import compare_methods
from torch import Tensor, nn

from dstbench.execution.machine import environment
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
        sparsifier.attach(model, optimizer, kernels="masked")
    noisy, timesteps, noise = batch
    wait = torch.cuda.synchronize if noisy.is_cuda else lambda: None
    clock = time.perf_counter if noisy.is_cuda else time.thread_time

    def step() -> float:
        wait()
        start = clock()
        prediction = model(noisy, timesteps, return_dict=False)[0]
        nn.functional.mse_loss(prediction, noise).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait()
        return clock() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--out", type=Path, help="markdown file to write, besides printing it")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    model = unet().to(args.device, memory_format=memory_format)
    noise = torch.randn(16, 4, 16, 16, device=args.device)
    batch = (noise, torch.randint(1000, (16,), device=args.device), torch.randn_like(noise))

    table, dense_seconds = compare_methods(
        lambda sparsifier: stepper(copy.deepcopy(model), batch, sparsifier), args.rounds
    )
    here = environment(noise.device)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dense_step_seconds": round(dense_seconds, 5),
        "clock": "wall time" if noise.is_cuda else "CPU time of one thread",
        "torch": torch.__version__,
        "machine": here.gpu or here.cpu,
        "load_average": round(os.getloadavg()[0], 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    options = f"--rounds {args.rounds}"
    if args.device != "cpu":
        options += f" --device {args.device}"
    if args.channels_last:
        options += " --channels-last"
    page = PAGE.format(options=options, facts=json.dumps(facts), table=table.to_markdown())
    print(page)
    if args.out:
        args.out.write_text(page, encoding="utf-8")


PAGE = """# What masks cost, as ratios to the dense step

`python benchmarks/performance/sparse_step.py {options}`:

```
{facts}
```

{table}

Medians over rounds, and their 95 % bootstrap intervals. A second dense network, whose ratio should
be 1 and whose second step costs nothing more, says how much of the other rows is noise.
"""


if __name__ == "__main__":
    main()
