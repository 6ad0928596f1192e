"""How much faster sparse networks really are: steps and sampling calls, as ratios to dense ones.

    OMP_NUM_THREADS=1 python benchmarks/performance/real_speed.py [--threads 1] [--seconds 12]
        [--only unet,chirodiff,layers,updates,large] [--out results/performance/real_speed.md]

Every ratio is measured in one process, ours and the dense network's turn by turn, until its 95 %
interval is within ±3 % or the seconds are over: the geometric mean of the rounds' ratios. With one
thread it is of CPU time where wall-clock and CPU time disagree (a machine that others use, too). A
second dense network, whose ratio should be 1, says how much of the others is noise.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from diffusers import UNet2DModel
from dstbench_chirodiff.denoiser import Denoiser
from dstbench_magran import MagRan
from dstbench_rigl import RigL
from dstbench_static import Static
from torch import Tensor, nn

from dstbench.execution.machine import environment
from dstbench.execution.timing import paired_ratio
from dstbench.kernels import Choice, fixed_weights, library, use_kernels
from dstbench.kernels.thresholds import choice_of_machine
from dstbench.records import Ratio
from dstbench.sparsity import Sparsifier

Batch = tuple[Tensor, ...]
SPARSITIES = (0.5, 0.75, 0.9, 0.95)
STRUCTURES = ("unstructured", "channels:4")
CPU = torch.device("cpu")


def unet(size: int, channels: int, widths: tuple[int, ...], layers: int) -> nn.Module:
    torch.manual_seed(0)
    attention = len(widths) - 1
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=layers,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", *["AttnDownBlock2D"] * attention),
        up_block_types=(*["AttnUpBlock2D"] * attention, "UpBlock2D"),
        attention_head_dim=32,
    )


def small_unet() -> nn.Module:
    return unet(16, 4, (64, 128, 192), 1)


def chirodiff() -> nn.Module:
    torch.manual_seed(0)
    return Denoiser("velocity", layers=3, units=96)


def images(count: int, channels: int = 4, size: int = 16) -> Batch:
    noisy = torch.randn(count, channels, size, size)
    return noisy, torch.randint(1000, (count,))


def sketches(count: int) -> Batch:
    lengths = torch.randint(30, 61, (count,))
    lengths[0] = 60
    return torch.randn(count, 60, 3), lengths, torch.rand(count)


class Run:
    """A network that takes training steps and sampling calls with one batch."""

    def __init__(self, model: nn.Module, batch: Batch, sparsifier: Sparsifier | None) -> None:
        self.model = model
        self.batch = batch
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.sparsifier = sparsifier
        if sparsifier is not None:
            choice = choice_of_machine("auto")
            sparsifier.attach(model, self.optimizer, kernels=choice)

    def step(self) -> None:
        if self.sparsifier is not None:
            self.sparsifier.pack()
        predicted = self.model(*self.batch)
        predicted = predicted if isinstance(predicted, Tensor) else predicted.sample
        predicted.square().mean().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def two_steps(self) -> None:
        self.step()
        self.step()

    @torch.no_grad()
    def sample(self) -> None:
        self.model(*self.batch)


def networks(
    make: Callable[[], nn.Module], batch: Batch, seconds: float, name: str
) -> Iterator[dict[str, str]]:
    """A row for each sparsity and structure of a network."""
    dense = Run(make(), batch, None)
    cases: list[tuple[str, float | None]] = [("dense again", None)]
    cases += product(STRUCTURES, SPARSITIES)
    for structure, sparsity in cases:
        sparsifier = None
        if sparsity is not None:
            sparsifier = Static(sparsity, total_steps=10**6, structure=structure)
        run = Run(make(), batch, sparsifier)
        step = paired_ratio(run.step, dense.step, device=CPU, seconds=seconds)
        if sparsifier is not None:  # as a network that is kept is
            sparsifier.unpack()
        with fixed_weights():  # as while a benchmark draws its samples
            sample = paired_ratio(run.sample, dense.sample, device=CPU, seconds=seconds / 2)
        yield {
            "network": name,
            "structure": structure,
            "S": f"{sparsity or 0:g}",
            "step ÷ dense": ratio(step),
            "sampling, times faster": inverse(sample),
            "kernels": sparsifier.kernels.describe() if sparsifier else "dense",
        }


def updates(
    make: Callable[[], nn.Module], batch: Batch, seconds: float
) -> Iterator[dict[str, str]]:
    """What a topology update adds, in dense steps, with everything that is rebuilt after it, and
    with the dense gradient that RigL's needs."""
    for kind, sparsity in product((MagRan, RigL), (0.5, 0.9)):
        dense = Run(make(), batch, None)
        plain = Run(make(), batch, Static(sparsity, total_steps=10**6))
        moving = Run(make(), batch, kind(sparsity, total_steps=10**6, exploration_frequency=2))

        more = paired_ratio(moving.two_steps, plain.two_steps, device=CPU, seconds=seconds)
        two = paired_ratio(plain.two_steps, dense.step, device=CPU, seconds=seconds / 2).ratio
        low, middle, high = ((each - 1) * two for each in (more.low, more.ratio, more.high))
        yield {
            "method": kind.name,
            "S": f"{sparsity:g}",
            "two steps, one with an update ÷ two without": ratio(more),
            "two steps without ÷ dense step": f"{two:.2f}",
            "update ÷ dense step": f"{middle:.2f} [{low:.2f}, {high:.2f}]",
        }


def layers(seconds: float) -> Iterator[dict[str, str]]:
    """Forward passes of single convolutions, beside torch's own sparse tensors (CSR, unfolded), and
    SparseProp's layers (Nikdan et al., 2023) where they are installed."""
    shapes = ((16, 128, 16), (16, 256, 8), (64, 128, 16))
    for (count, channels, size), sparsity in product(shapes, SPARSITIES):
        inputs = torch.randn(count, channels, size, size)
        row = {"layer": f"N{count} C{channels} {size}×{size}, 3×3", "S": f"{sparsity:g}"}
        measured: dict[str, Callable[[Tensor], Tensor]] = {
            "ours, unstructured": sparse_layer(channels, sparsity, 1),
            "ours, channels:4": sparse_layer(channels, sparsity, 4),
            "torch CSR": csr_layer(channels, sparsity),
        }
        if find_spec("sparseprop"):
            measured["SparseProp"] = sparseprop_layer(channels, sparsity, inputs)
        yield row | {
            name: inverse(forward_ratio(layer, inputs, seconds)) for name, layer in measured.items()
        }


def sparse_layer(channels: int, sparsity: float, group: int) -> nn.Module:
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    few = torch.rand(channels // group, channels, 3, 3) >= sparsity
    mask = few.repeat_interleave(group, dim=0)
    with torch.no_grad():
        layer.weight.mul_(mask)
    use_kernels([layer], {"weight": mask}, Choice("sparse"))
    return layer


def csr_layer(channels: int, sparsity: float) -> Callable[[Tensor], Tensor]:
    dense = nn.Conv2d(channels, channels, 3, padding=1)
    weight = dense.weight.detach() * (torch.rand_like(dense.weight) >= sparsity)
    matrix = weight.flatten(1).to_sparse_csr()

    def forward(inputs: Tensor) -> Tensor:
        columns = nn.functional.unfold(inputs, 3, padding=1)
        return torch.stack([matrix @ each for each in columns])

    return forward


def sparseprop_layer(channels: int, sparsity: float, inputs: Tensor) -> nn.Module:
    """The faster of its two ways, by its own timing."""
    from sparseprop.modules import sparsify_conv2d_auto

    dense = nn.Conv2d(channels, channels, 3, padding=1)
    with torch.no_grad():
        dense.weight.mul_(torch.rand_like(dense.weight) >= sparsity)
    layer: nn.Module = sparsify_conv2d_auto(dense, inputs.shape)
    return layer


def forward_ratio(layer: Callable[[Tensor], Tensor], inputs: Tensor, seconds: float) -> Ratio:
    channels = inputs.shape[1]
    dense = nn.Conv2d(channels, channels, 3, padding=1)

    def timed(each: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: each(inputs))

    return paired_ratio(timed(layer), timed(dense), device=CPU, seconds=seconds)


def large(seconds: float) -> Iterator[dict[str, str]]:
    """Sampling calls of the 274 M network of the paper."""
    batch = images(16, 3, 64)

    def make() -> nn.Module:
        return unet(64, 3, (224, 448, 672, 896), 2)

    dense = Run(make().eval(), batch, None)
    for structure, sparsity in product(STRUCTURES, (0.75, 0.9)):
        sparsifier = Static(sparsity, total_steps=10**6, structure=structure)
        run = Run(make().eval(), batch, sparsifier)
        with fixed_weights():
            sample = paired_ratio(run.sample, dense.sample, device=CPU, seconds=seconds)
        yield {"structure": structure, "S": f"{sparsity:g}", "times faster": inverse(sample)}
        del run, sparsifier  # before the next one is made: each takes gigabytes


def ratio(measured: Ratio) -> str:
    return f"{measured.ratio:.2f} [{measured.low:.2f}, {measured.high:.2f}]"


def inverse(measured: Ratio) -> str:
    return f"{1 / measured.ratio:.2f} [{1 / measured.high:.2f}, {1 / measured.low:.2f}]"


def compilation() -> float:
    """Seconds of CPU time that the kernels take to compile."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.times()
        library.compile_to(Path(folder) / "kernels.so", library.architecture(), threads=True)
        after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=12, help="for each ratio, at most")
    parser.add_argument("--only", default="unet,chirodiff,layers,updates,large")
    parser.add_argument("--out", type=Path, help="markdown file to write, besides printing it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seconds = args.seconds
    parts: dict[str, tuple[str, Callable[[], Iterator[dict[str, str]]]]] = {
        "unet": (
            "Whole networks: a U-Net of 7.4 M parameters, 4×16×16",
            lambda: (
                row
                for count in (16, 64)
                for row in networks(small_unet, images(count), seconds, f"U-Net, batch {count}")
            ),
        ),
        "chirodiff": (
            "Whole networks: ChiroDiff, 3 layers of 96 units, 60 points",
            lambda: (
                row
                for count in (32, 128)
                for row in networks(chirodiff, sketches(count), seconds, f"GRU, batch {count}")
            ),
        ),
        "layers": ("Single layers, forward: times faster", lambda: layers(seconds / 4)),
        "updates": (
            "Topology updates of the U-Net, batch 16",
            lambda: updates(small_unet, images(16), seconds),
        ),
        "large": (
            "A sampling call of the U-Net of 274 M parameters, batch 16 of 3×64×64",
            lambda: large(seconds),
        ),
    }
    load = os.getloadavg()[0]
    here = environment(CPU)
    facts = {
        "machine": here.cpu,
        "threads": args.threads,
        "torch": torch.__version__,
        "kernels": library.describe(),
        "compilation_seconds": round(compilation(), 1),
        "load_average_before": round(load, 1),
    }
    page = [
        "# How much faster sparse networks are",
        f"`OMP_NUM_THREADS={args.threads} python benchmarks/performance/real_speed.py "
        f"--threads {args.threads} --seconds {seconds:g} --only {args.only}`",
        f"```\n{json.dumps(facts, ensure_ascii=False)}\n```",
        "Ratios to the dense network or layer, in turns in one process, with 95 % intervals.",
    ]
    for name in args.only.split(","):
        title, rows = parts[name]
        table = pd.DataFrame(list(rows())).to_markdown(index=False, disable_numparse=True)
        page += [f"## {title}", table]
        print(f"\n## {title}\n\n{table}", flush=True)
    if args.out:
        args.out.write_text("\n\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
