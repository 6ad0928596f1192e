"""The tables of a benchmark file in words: ``dstbench help`` and docs/benchmark-files.md."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from dstbench.grid.schema import FileTables, GridTable, PresetTables, TaskTables
from dstbench.plugins.describe import Setting, describe, describe_field
from dstbench.settings import (
    EvaluationSettings,
    ExecutionSettings,
    ReportSettings,
    TargetSettings,
    TrackingSettings,
    TrainingSettings,
)


@dataclass(frozen=True)
class Topic:
    """A table of benchmark files."""

    header: str
    """As it stands in a file; empty for what stands above all tables."""
    text: str
    keys: list[Setting]
    """Those that are required first; none where a plugin decides which there are."""

    @property
    def summary(self) -> str:
        return self.text.partition("\n")[0]


def _topic(header: str, schema: type[BaseModel]) -> Topic:
    keys = [describe_field(name, field) for name, field in schema.model_fields.items()]
    return Topic(
        header, describe(schema), sorted(keys, key=lambda setting: setting.default != "required")
    )


def _of_plugins(kinds: str, word: str, example: str) -> Topic:
    text = (
        f"Settings of {word}, a table for each by its name.\n\n"
        f"dstbench plugins lists what is installed, and dstbench plugins {example} the keys of "
        f"[{kinds}.{example}]."
    )
    return Topic(f"[{kinds}.NAME]", text, [])


TOPICS = {
    "benchmark": _topic("", FileTables),
    "grid": _topic("[grid]", GridTable),
    "tasks": _topic("[[tasks]]", TaskTables),
    "training": _topic("[training]", TrainingSettings),
    "evaluation": _topic("[evaluation]", EvaluationSettings),
    "execution": _topic("[execution]", ExecutionSettings),
    "report": _topic("[report]", ReportSettings),
    "tracking": _topic("[tracking]", TrackingSettings),
    "targets": _topic("[[targets]]", TargetSettings),
    "presets": _topic("[presets.NAME]", PresetTables),
    "models": _of_plugins("models", "models", "ldm"),
    "datasets": _of_plugins("datasets", "datasets", "kanjivg"),
    "sparsifiers": _of_plugins("sparsifiers", "sparsifiers", "rigl"),
    "extractors": _of_plugins("extractors", "feature extractors", "inception"),
    "executors": _of_plugins("executors", "executors", "slurm"),
}
