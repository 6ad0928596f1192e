"""A model card: what a model is, how good, how to use it, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dstbench.cell import DENSE, Cell
from dstbench.records import Record
from dstbench.report.text import render

NAME = "README.md"


@dataclass(frozen=True)
class Usage:
    """How a model is loaded and used, as the lines of a program."""

    library: str
    code: str
    note: str = ""

    def called_with(self, arguments: Mapping[str, Any]) -> Usage:
        """The same, with the arguments of a call."""
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return replace(self, code=self.code.format(arguments=given))


LOADED = Usage(
    "dstbench",
    """import dstbench

model = dstbench.load_model(".")  # this folder
images = model.sample(16, seed=0)  # uint8 (16, C, H, W)
""",
    "`model` is a module of torch's; a call of it calls the denoiser. With the seed of the "
    "training run (below) the samples are those that were scored.",
)

DIFFUSERS = Usage(
    "diffusers",
    """from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(".")  # this folder
images = pipeline(batch_size=16, {arguments}).images
""",
    "Masked weights are zeros here: what is computed is dense.",
)

ONNX = Usage(
    "onnx",
    """import onnxruntime

denoiser = onnxruntime.InferenceSession("denoiser.onnx")
print([(each.name, each.shape) for each in denoiser.get_inputs()])
""",
    "This is the denoiser alone, without its sampler. Masked weights are zeros here: what is "
    "computed is dense.",
)


def write_card(folder: Path, record: Record, licence: str, usage: Usage, pictured: bool) -> None:
    """Write the card of a cell's model, with a picture of samples if there is one."""
    cell = record.cell
    parts = [
        _front_matter(cell, licence, usage),
        render([record], "markdown", _title(cell)).rstrip(),
        *(["![Samples](samples.png)"] if pictured else []),
        f"## Use\n\n```python\n{usage.code}```",
        *([usage.note] if usage.note else []),
        "## Where it comes from",
        "Trained by [dstbench](https://arxiv.org/abs/2504.21380) "
        f"{record.environment.packages.get('dstbench', '')}, on {_code(record.environment.machine)}"
        f", begun {_code(record.started)}, as the cell {_code(cell.id)}. All of its settings:",
        f"```json\n{json.dumps(cell.identity, indent=2)}\n```",
    ]
    (folder / NAME).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _title(cell: Cell) -> str:
    method = (
        cell.sparsifier if cell.sparsifier == DENSE else f"{cell.sparsifier} S{cell.sparsity:g}"
    )
    return f"{cell.task}, {method}, seed {cell.seed}"


def _front_matter(cell: Cell, licence: str, usage: Usage) -> str:
    """What the Hugging Face hub reads; JSON is YAML, too."""
    told = {
        "library_name": usage.library,
        "license": licence,
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["dstbench", "diffusion", "sparse-training", cell.model, cell.sparsifier],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in told.items()]
    return "\n".join(["---", *lines, "---"])


def _code(text: str) -> str:
    return f"`{text.replace('`', ' ')}`"
