"""What 2:4 sparsity saves on a GPU: steps and sampling calls on sparse tensor cores ÷ dense ones.

    python benchmarks/performance/semi_structured.py [--seconds 10] [--out PAGE.md]

Residual blocks of two linear layers each, in bfloat16 by autocast. Both networks take turns in one
process; a second dense network, whose ratio should be 1, says how much of the others is noise.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from dstbench_static import Static
from real_speed import inverse, ratio
from torch import Tensor, nn

from dstbench.execution.machine import environment
from dstbench.execution.timing import paired_ratio
from dstbench.sparsity import Sparsifier

GPU = torch.device("cuda")
SIZES = ((384, 12, 16_384), (1152, 12, 16_384), (4096, 4, 16_384))
"""Features, blocks, and tokens of a batch."""


class Blocks(nn.Module):
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
    """A network that takes training steps and sampling calls with one batch."""

    def __init__(self, features: int, blocks: int, tokens: int, sparse: bool) -> None:
        torch.manual_seed(0)
        self.model = Blocks(features, blocks).to(GPU)
        self.batch = torch.randn(tokens, features, device=GPU)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.sparsifier: Sparsifier | None = None
        if sparse:
            self.sparsifier = Static(
                0.5, total_steps=10**6, structure="2:4", distribution="uniform"
            )
            self.sparsifier.attach(self.model, self.optimizer, kernels="sparse")

    def step(self) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.model(self.batch).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def sample(self) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            self.model(self.batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="for each ratio, at most")
    parser.add_argument("--out", type=Path, help="markdown file to write, besides printing it")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "there is no GPU here\n")
    rows = []
    for size in SIZES:
        dense = Run(*size, sparse=False)
        for kind in ("dense again", "2:4"):
            run = Run(*size, sparse=kind == "2:4")
            step = paired_ratio(run.step, dense.step, device=GPU, seconds=args.seconds)
            sample = paired_ratio(run.sample, dense.sample, device=GPU, seconds=args.seconds)
            rows.append(
                {
                    "features, blocks, tokens": "{} × {} × {:,}".format(*size),
                    "network": kind,
                    "step ÷ dense": ratio(step),
                    "sampling, times faster": inverse(sample),
                    "kernels": run.sparsifier.kernels.describe() if run.sparsifier else "dense",
                }
            )
    facts = {"machine": torch.cuda.get_device_name(), "torch": torch.__version__}
    page = [
        "# What 2:4 sparsity saves on a GPU",
        f"`python benchmarks/performance/semi_structured.py --seconds {args.seconds:g}`",
        f"```\n{json.dumps(facts | {'cpu': environment(GPU).cpu}, ensure_ascii=False)}\n```",
        pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True),
    ]
    print("\n\n".join(page))
    if args.out:
        args.out.write_text("\n\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
