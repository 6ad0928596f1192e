"""A validated benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dstbench.settings import (
    EvaluationSettings,
    ExecutionSettings,
    PluginSettings,
    ReportSettings,
    TrainingSettings,
)


@dataclass(frozen=True)
class Task:
    """A model on a dataset, with every setting resolved."""

    model: str
    dataset: str
    model_settings: PluginSettings
    dataset_settings: PluginSettings
    sparsifier_settings: Mapping[str, tuple[PluginSettings, ...]]
    """Settings by sparsifier: one for each combination of the values of its axes."""
    extractor_settings: PluginSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    versions: Mapping[str, str] = field(default_factory=dict)
    """Distribution and version of model, dataset and feature extractor, by kind."""
    sparsifier_versions: Mapping[str, str] = field(default_factory=dict)
    """Distribution and version of each sparsifier, by its name."""


@dataclass(frozen=True)
class Benchmark:
    """A validated benchmark file."""

    name: str
    """The file's name and, after a hyphen, the preset's."""
    seeds: tuple[int, ...]
    sparsities: tuple[float, ...]
    sparsifiers: tuple[str, ...]
    """As named in the file, then those that were added; ``dense`` is the reference."""
    tasks: tuple[Task, ...]
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    added: tuple[str, ...] = ()
    """Those of the sparsifiers that only a command line names."""
    executors: Mapping[str, PluginSettings] = field(default_factory=dict)
    """Settings of executors, by name: of the one to be used, and of those with a table."""
