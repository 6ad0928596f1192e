"""The table ``[tracking]`` of a benchmark file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dstbench.grid.finding import Finder
from dstbench.grid.problems import Problems
from dstbench.grid.tables import Table
from dstbench.settings import TrackingSettings


def trackers(
    table: Callable[..., Table], finder: Finder, problems: Problems
) -> dict[str, dict[str, Any]]:
    """The settings of the trackers that a benchmark names, as JSON has them, by name.

    Args:
        table: gives the table at some keys.
    """
    whole = table("tracking")
    own = {key: value for key, value in whole.values.items() if not isinstance(value, dict)}
    names = problems.validate(TrackingSettings, replace(whole, values=own)).trackers
    problems.stop_if_any()
    found = {
        name: finder.find("tracker", name, problems.place(whole.locate(("trackers", index))))
        for index, name in enumerate(names)
    }
    problems.stop_if_any()
    settings = {
        name: problems.validate_plugin(each.cls.Settings, table("tracking", name))
        for name, each in found.items()
    }
    return {name: each.model_dump(mode="json") for name, each in settings.items()}
