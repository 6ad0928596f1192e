"""What a training step of ChiroDiff costs: ways to run its GRU, and masks.

    python benchmarks/performance/chirodiff_step.py [--rounds 15] [--device cpu] [--units 96] ...

Random sketches of random lengths. The first table compares ways to train on the same 256 of them,
in random batches or in batches by length; in every round each way takes a step with every batch,
so that whatever else the machine does hits all of them alike. Reported are the medians over rounds
of the time per step, of its ratio to packed sequences in random batches, and how far the predicted
noise is from that of packed sequences. The second table is that of ``sparse_step.py``: what a
masked step and a topology update cost, as ratios to the dense step; the row of a second dense
network says how much of them is noise.
"""

import argparse
import copy
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from dstbench_chirodiff.denoiser import Denoiser
from dstbench_chirodiff.model import Batch, ChiroDiff
from dstbench_chirodiff.recurrence import bidirectional_gru
from methods import compare_methods
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Data, Workspace
from dstbench.sparsity import Sparsifier

SKETCHES = 256

Gru = Callable[[nn.GRU, Tensor, Tensor], Tensor]


def packed(gru: nn.GRU, inputs: Tensor, lengths: Tensor) -> Tensor:
    sequence = nn.utils.rnn.pack_padded_sequence(
        inputs, lengths, batch_first=True, enforce_sorted=False
    )
    return nn.utils.rnn.pad_packed_sequence(gru(sequence)[0], batch_first=True)[0]


def padded(gru: nn.GRU, inputs: Tensor, lengths: Tensor) -> Tensor:
    """Not exact: the backward direction starts in the padding."""
    return gru(inputs)[0]


def reversed_valid_parts(gru: nn.GRU, inputs: Tensor, lengths: Tensor) -> Tensor:
    """torch's GRU layer by layer and direction by direction, each with its padding at the end."""
    step = torch.arange(inputs.shape[1])
    order = torch.where(step < lengths[:, None], lengths[:, None] - 1 - step, step)
    order = order.unsqueeze(-1).to(inputs.device)

    def backwards(sequences: Tensor) -> Tensor:
        return sequences.gather(1, order.expand_as(sequences))

    start = inputs.new_zeros(1, len(inputs), gru.hidden_size)
    for layer in range(gru.num_layers):
        directions = []
        for suffix, each in (("", inputs), ("_reverse", backwards(inputs))):
            weights = [
                gru.get_parameter(f"{name}_l{layer}{suffix}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            directions.append(torch.gru(each, start, weights, True, 1, 0.0, True, False, True)[0])
        inputs = torch.cat([directions[0], backwards(directions[1])], dim=-1)
    return inputs


class Variant(Denoiser):
    """The denoiser with another way to run its GRU."""

    run: Gru

    def _states(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return self.run(self.gru, inputs, lengths)


def variant(denoiser: Denoiser, run: Gru) -> Denoiser:
    made = copy.deepcopy(denoiser)
    made.__class__ = Variant
    made.run = run
    return made


def stepper(
    model: ChiroDiff,
    denoiser: nn.Module,
    batches: Sequence[Tensor],
    sparsifier: Sparsifier | None = None,
    low_precision: bool = False,
) -> Callable[[], float]:
    """A function that takes one training step with each batch and returns its mean seconds."""
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)
    if sparsifier is not None:
        weights = model.sparsifiable(denoiser)
        sparsifier.attach(denoiser, optimizer, weights=weights, kernels="masked")
    device = model.workspace.device
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def step() -> float:
        wait()
        start = time.perf_counter()
        for number, indices in enumerate(batches):
            rng = torch.Generator().manual_seed(number)
            with torch.autocast(device.type, torch.bfloat16, low_precision):
                loss = model.loss(denoiser, model.batch("train", indices), rng)
            loss.backward()
            nn.utils.clip_grad_norm_(denoiser.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
        wait()
        return (time.perf_counter() - start) / len(batches)

    return step


@torch.no_grad()
def difference(denoiser: Denoiser, run: Gru, batch: Batch, low_precision: bool) -> float:
    """Largest absolute difference of the predicted noise from that of packed sequences."""
    times = torch.linspace(0.1, 1, len(batch.lengths), device=batch.points.device)
    counts = torch.arange(batch.points.shape[1]) < batch.lengths[:, None]
    exact = variant(denoiser, packed)(batch.points, batch.lengths, times)
    with torch.autocast(times.device.type, torch.bfloat16, low_precision):
        ours = variant(denoiser, run)(batch.points, batch.lengths, times)
    return float((ours - exact)[counts.to(times.device)].abs().max())


def compare_ways(model: ChiroDiff, denoiser: Denoiser, size: int, rounds: int) -> pd.DataFrame:
    shuffled = torch.randperm(SKETCHES, generator=torch.Generator().manual_seed(0)).split(size)
    by_length = model.batches(size, torch.Generator().manual_seed(0))
    ways: dict[str, tuple[Gru, Sequence[Tensor], bool]] = {
        "packed, random batches": (packed, shuffled, False),
        "packed, by length": (packed, by_length, False),
        "padded (not exact), by length": (padded, by_length, False),
        "valid parts reversed, by length": (reversed_valid_parts, by_length, False),
        "packed, by length, bf16": (packed, by_length, True),
    }
    if model.workspace.device.type == "cpu":
        ways |= {
            "both directions at once, random batches": (bidirectional_gru, shuffled, False),
            "both directions at once, by length": (bidirectional_gru, by_length, False),
            "both directions at once, by length, bf16": (bidirectional_gru, by_length, True),
        }
    steps = {
        way: stepper(model, variant(denoiser, run), batches, low_precision=low)
        for way, (run, batches, low) in ways.items()
    }
    for step in steps.values():
        step()
    times = pd.DataFrame([{way: step() for way, step in steps.items()} for _ in range(rounds)])
    batch = model.batch("train", shuffled[0])
    return pd.DataFrame(
        {
            "ms per step": (1e3 * times.median()).round(1),
            "ratio": times.div(times["packed, random batches"], axis=0).median().round(2),
            "difference": {
                way: f"{difference(denoiser, run, batch, low):.0e}"
                for way, (run, _, low) in ways.items()
            },
        }
    )


def middle_batch(model: ChiroDiff, size: int) -> Tensor:
    """The indices of a batch of middling length."""
    batches = model.batches(size, torch.Generator())
    return sorted(batches, key=lambda batch: int(model.lengths[batch].sum()))[len(batches) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--units", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--mean-points", type=int, default=60)
    args = parser.parse_args()

    rng = torch.Generator().manual_seed(0)
    spread = args.mean_points / 3
    lengths = (args.mean_points + spread * torch.randn(SKETCHES, generator=rng)).clamp(5, 300)
    sketches = [torch.randn(int(length), 3, generator=rng) for length in lengths]
    data = Data(sketches, [], "random", lambda items: torch.zeros(len(items)))
    settings = ChiroDiff.Settings(layers=args.layers, units=args.units)
    workspace = Workspace(torch.device(args.device), Cache(Path(tempfile.gettempdir())))
    model = ChiroDiff(settings, data, workspace)
    torch.manual_seed(0)
    denoiser = model.build()

    machine = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor()
    print(
        json.dumps(
            {
                "settings": vars(args),
                "parameters": sum(p.numel() for p in denoiser.parameters()),
                "torch": torch.__version__,
                "machine": machine or platform.machine(),
                "threads": torch.get_num_threads(),
            }
        )
    )
    print(compare_ways(model, denoiser, args.batch_size, args.rounds).to_markdown())
    print()
    batches = [middle_batch(model, args.batch_size)]
    table, _ = compare_methods(
        lambda sparsifier: stepper(model, copy.deepcopy(denoiser), batches, sparsifier),
        3 * args.rounds,
    )
    print(table.to_markdown())


if __name__ == "__main__":
    main()
