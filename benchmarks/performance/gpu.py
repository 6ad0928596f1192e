"""What sparse training saves on a GPU: whole steps, sampling calls, peak memory, and a small grid.

    make gpu        or        python benchmarks/performance/gpu.py [--results runs]

The paper's U-Net of 274 M parameters with batches of 12, and blocks of linear layers that sparse
tensor cores take, in bfloat16 by autocast; then benchmarks/gpu.toml, beside whose leaderboard
speed.md has the measured times. Each network takes turns with a dense one in one process; a second
dense network, whose ratio should be 1, says how much of the others is noise. Without a GPU
everything is shrunken until it shows that the script works, no more.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from dstbench_static import Static
from real_speed import images, inverse, ratio, unet
from torch import Tensor, nn

import dstbench
from dstbench.execution.machine import environment
from dstbench.execution.timing import paired_ratio
from dstbench.kernels import Choice
from dstbench.sparsity import Sparsifier

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
GRID = Path(__file__).parent.parent / "gpu.toml"

UNET = (64, 3, (224, 448, 672, 896), 2) if HAS_GPU else (16, 3, (32, 64), 1)
IMAGES = 12 if HAS_GPU else 2
BLOCKS = ((384, 12), (1152, 12), (4096, 4)) if HAS_GPU else ((64, 2),)
"""Features of a token, and blocks."""
TOKENS = 16_384 if HAS_GPU else 64


@dataclass(frozen=True)
class Masks:
    """What a row's network is trained with; without a sparsity it is dense."""

    name: str
    sparsity: float = 0
    structure: str = "unstructured"
    distribution: str = "erk"
    kernels: str = "masked"

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sparsifier | None:
        if not self.sparsity:
            return None
        sparsifier = Static(
            self.sparsity,
            total_steps=10**6,
            structure=self.structure,
            distribution=self.distribution,
        )
        return sparsifier.attach(model, optimizer, kernels=Choice(self.kernels))


DENSE = Masks("dense again")
TWO_OF_FOUR = Masks("2:4, sparse tensor cores", 0.5, "2:4", "uniform", "sparse")
MASKED_TWO_OF_FOUR = Masks("2:4, masked", 0.5, "2:4", "uniform")


class Blocks(nn.Module):
    """Residual blocks of two linear layers each, as the larger part of a transformer has."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(features),
                nn.Linear(features, 4 * features),
                nn.GELU(),
                nn.Linear(4 * features, features),
            )
            for _ in range(blocks)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return tokens


class Run:
    """A network that takes training steps and sampling calls with one batch, in bfloat16."""

    def __init__(
        self, make: Callable[[], nn.Module], batch: tuple[Tensor, ...], masks: Masks
    ) -> None:
        if HAS_GPU:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if HAS_GPU else 0
        torch.manual_seed(0)
        self.model = make().to(DEVICE)
        self.batch = tuple(each.to(DEVICE) for each in batch)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.sparsifier = masks.attach(self.model, self.optimizer)
        self.step()
        self.step()
        self.peak = torch.cuda.max_memory_allocated() - before if HAS_GPU else None

    def step(self) -> None:
        self._forward().float().square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def sample(self) -> None:
        self._forward()

    def _forward(self) -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            out = self.model(*self.batch)
        return out if isinstance(out, Tensor) else out.sample


def rows(
    name: str,
    make: Callable[[], nn.Module],
    batch: tuple[Tensor, ...],
    networks: tuple[Masks, ...],
    seconds: float,
) -> Iterator[dict[str, str]]:
    """One row for each network, against a dense one that stays."""
    dense = Run(make, batch, DENSE)
    for masks in networks:
        run = Run(make, batch, masks)
        step = paired_ratio(run.step, dense.step, device=DEVICE, seconds=seconds)
        sample = paired_ratio(run.sample, dense.sample, device=DEVICE, seconds=seconds / 2)
        yield {
            "network": name,
            "masks": masks.name,
            "S": f"{masks.sparsity:g}",
            "step ÷ dense": ratio(step),
            "sampling call, times faster": inverse(sample),
            "peak MiB of a step": "—" if run.peak is None else f"{run.peak / 2**20:,.0f}",
            "kernels": run.sparsifier.kernels.describe() if run.sparsifier else "dense",
        }


def measured(seconds: float) -> Iterator[dict[str, str]]:
    size, channels, *_ = UNET
    masked = (Masks("masked", 0.5), Masks("masked", 0.9))
    yield from rows(
        f"U-Net, batch {IMAGES}",
        partial(unet, *UNET),
        images(IMAGES, channels, size),
        (DENSE, *masked, MASKED_TWO_OF_FOUR, TWO_OF_FOUR),
        seconds,
    )
    for features, blocks in BLOCKS:
        yield from rows(
            f"{blocks} blocks of {features} features, {TOKENS:,} tokens",
            partial(Blocks, features, blocks),
            (torch.randn(TOKENS, features),),
            (DENSE, MASKED_TWO_OF_FOUR, TWO_OF_FOUR),
            seconds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4, help="for each ratio, at most")
    parser.add_argument("--jobs", type=int, default=5, help="cells of the grid at a time")
    parser.add_argument("--results", default="runs", help="folder of all results")
    args = parser.parse_args()
    seconds = args.seconds if HAS_GPU else 0.1
    here = environment(DEVICE)
    facts = {
        "machine": torch.cuda.get_device_name() if HAS_GPU else "no GPU: a shrunken trial",
        "cpu": here.cpu,
        "torch": torch.__version__,
    }
    table = pd.DataFrame(list(measured(seconds))).to_markdown(index=False, disable_numparse=True)
    page = "\n\n".join(
        (
            "# What sparse training saves on a GPU",
            f"`python benchmarks/performance/gpu.py --seconds {args.seconds:g}`",
            f"```\n{json.dumps(facts, ensure_ascii=False)}\n```",
            "bfloat16 by autocast; ratios to a dense network, in turns in one process, with 95 % "
            "intervals.",
            table,
        )
    )
    print(page, flush=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    preset = None if HAS_GPU else "cpu"
    found = dstbench.run(str(GRID), preset, results=args.results, jobs=args.jobs if HAS_GPU else 1)
    (found.folder / "speed.md").write_text(page + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
