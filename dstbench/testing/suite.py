"""The checks of each kind of plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from dstbench.contracts import Data, Dataset, Executor, FeatureExtractor, Metric, Model, Tracker
from dstbench.errors import ConfigError
from dstbench.grid.problems import explain
from dstbench.sparsity import Sparsifier
from dstbench.testing.checking import Check, Subject, make_check
from dstbench.testing.checks import (
    datasets,
    executors,
    extractors,
    metrics,
    models,
    sparsifiers,
    trackers,
)

_KINDS: dict[type[Any], tuple[type[Any], tuple[Callable[[Any], None], ...]]] = {
    Sparsifier: (sparsifiers.SparsifierSubject, sparsifiers.CHECKS),
    Dataset: (datasets.DatasetSubject, datasets.CHECKS),
    Model: (models.ModelSubject, models.CHECKS),
    FeatureExtractor: (extractors.FeatureExtractorSubject, extractors.CHECKS),
    Metric: (metrics.MetricSubject, metrics.CHECKS),
    Executor: (executors.ExecutorSubject, executors.CHECKS),
    Tracker: (trackers.TrackerSubject, trackers.CHECKS),
}
"""The subject and the check functions of each kind of plugin, by its base class."""


def checks(
    cls: type[Any], settings: Mapping[str, Any] | None = None, *, data: Data | None = None
) -> list[Check]:
    """All checks of a plugin's class, whose base class tells its kind.

    Args:
        settings: put over the class's ``trial_settings``.
        data: what a model is checked on, in place of small synthetic data.

    Raises:
        ConfigError: for settings that the class refuses, and where it needs one that is not given;
            for a class of no kind.
    """
    found = [kind for base, kind in _KINDS.items() if issubclass(cls, base)]
    if not found:
        bases = ", ".join(base.__name__ for base in _KINDS)
        raise ConfigError(f"{cls.__qualname__} is no plugin: it derives from none of {bases}")
    kind, functions = found[0]
    subject = kind(cls, settings or {}, data)
    _refuse_wrong_settings(subject)
    return [make_check(function, subject) for function in functions]


def _refuse_wrong_settings(subject: Subject) -> None:
    """Raise :class:`ConfigError` for settings that were given wrongly, or not given though needed.

    What is wrong with the class's own settings is for a check to report.
    """
    try:
        _ = subject.settings
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            location = detail["loc"]
            if detail["type"] == "missing" or (subject.given and location[:1] <= (*subject.given,)):
                raise ConfigError(
                    f"{subject.cls.name}: {'.'.join(map(str, location))}: "
                    f"{explain(detail, subject.cls.Settings)}"
                ) from None
