"""A validated benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dstbench.cell import SMALL_DENSE
from dstbench.settings import (
    EvaluationSettings,
    ExecutionSettings,
    PluginSettings,
    ReportSettings,
    TargetSettings,
    TrainingSettings,
)


class SettingsFrom(NamedTuple):
    """A sparsifier's settings from a sparsity on: one for each combination of its axes' values."""

    sparsity: float
    settings: tuple[PluginSettings, ...]


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
    """Distribution and version of model, dataset, extractor and further metrics, by kind."""
    sparsifier_versions: Mapping[str, str] = field(default_factory=dict)
    """Distribution and version of each sparsifier, by its name."""
    settings_from: Mapping[str, tuple[SettingsFrom, ...]] = field(default_factory=dict)
    """What takes the place of ``sparsifier_settings`` at high sparsities, by sparsifier and in
    ascending order."""

    def methods(
        self, sparsifier: str, sparsities: Sequence[float]
    ) -> Iterator[tuple[PluginSettings, float]]:
        """The settings that a sparsifier has at each sparsity: the first ones at every sparsity,
        then the second ones, and so on."""
        without_settings = (PluginSettings(),) if sparsifier == SMALL_DENSE else ()
        usual = self.sparsifier_settings.get(sparsifier, without_settings)
        at = dict.fromkeys(sparsities, usual)
        for level in self.settings_from.get(sparsifier, ()):
            at |= {S: level.settings for S in sparsities if level.sparsity <= S}
        for position in range(max(map(len, at.values()), default=0)):
            for sparsity, settings in at.items():
                if position < len(settings):
                    yield settings[position], sparsity


@dataclass(frozen=True)
class Benchmark:
    """A validated benchmark file."""

    name: str
    """The file's name and, after a hyphen, the preset's."""
    seeds: tuple[int, ...]
    sparsities: tuple[float, ...]
    sparsifiers: tuple[str, ...]
    """As named in the file, then those that were added; ``dense`` is the reference, ``small-dense``
    the narrower dense network."""
    tasks: tuple[Task, ...]
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    added: tuple[str, ...] = ()
    """Those of the sparsifiers that only a command line names."""
    targets: tuple[TargetSettings, ...] = ()
    """Published scores, to be shown under the leaderboard; none of a preset."""
    executors: Mapping[str, PluginSettings] = field(default_factory=dict)
    """Settings of executors, by name: of the one to be used, and of those with a table."""
    trackers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of the trackers to be told, as JSON has them, by name."""
