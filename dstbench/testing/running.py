"""``dstbench check``: finding plugins, running their checks, reporting the outcomes."""

from __future__ import annotations

import json
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from unittest import SkipTest

from dstbench.errors import ConfigError, PluginError
from dstbench.plugins.plugin import Plugin
from dstbench.plugins.registry import Plugins
from dstbench.testing.checking import Check, CheckFailed, merged

State = Literal["kept", "broken", "skipped"]

SIGNS: dict[State, str] = {"kept": "✓", "broken": "✗", "skipped": "–"}


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check."""

    check: Check
    state: State
    failure: CheckFailed | None = None
    reason: str = ""
    """Why a skipped check was skipped; otherwise empty."""


def run(checks: Iterable[Check]) -> Iterator[Outcome]:
    """The outcome of each check, as soon as it is known."""
    for check in checks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check()
        except CheckFailed as failure:
            yield Outcome(check, "broken", failure)
        except SkipTest as skipped:
            yield Outcome(check, "skipped", reason=str(skipped))
        else:
            yield Outcome(check, "kept")


def line(outcome: Outcome, earlier: Sequence[Outcome]) -> str:
    """An outcome in one line, given those of earlier lines."""
    reason = f": {outcome.reason}" if outcome.reason else ""
    if reason and outcome.reason in (other.reason for other in earlier):
        reason = ": as above"
    return f"{SIGNS[outcome.state]} {outcome.check}{reason}"


def report(outcomes: Sequence[Outcome]) -> str:
    """A paragraph about each broken promise, and the number of outcomes of each state."""
    told: dict[str, str] = {}
    parts = []
    for outcome in outcomes:
        if failure := outcome.failure:
            earlier = told.setdefault(failure.happened, outcome.check.name)
            text = str(failure)
            if earlier != outcome.check.name:
                text = f"\nPromised: {failure.promised}\nHappened: the same as in {earlier}"
            parts.append(f"{SIGNS['broken']} {outcome.check}{text}\n")
    states = Counter(outcome.state for outcome in outcomes)
    parts.append(", ".join(f"{states[state]} {state}" for state in SIGNS))
    return "\n".join(parts)


def find(plugins: Plugins, name: str, kind: str | None) -> Plugin:
    """The plugin of this name, and kind if there are several.

    Raises :class:`PluginError` if there is none, it is broken or switched off, or several are.
    """
    named = plugins.named(name)
    found = [plugin for plugin in named if plugin.cls is not None and kind in (None, plugin.kind)]
    if len(found) == 1:
        return found[0]
    if found:
        kinds = ", ".join(f'"{plugin.kind}"' for plugin in found)
        raise PluginError(f"there are several plugins called '{name}'; choose with --kind: {kinds}")
    for plugin in named:
        if plugin.traceback:
            raise PluginError(f"the plugin '{name}' is broken:\n{plugin.traceback}")
    states = ", ".join(f"{plugin.kind or 'plugin'}, {plugin.state}" for plugin in named)
    raise PluginError(f"there is no {kind or 'loaded plugin'} '{name}'; what is there: {states}")


def parse_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """Settings from ``key=value``: keys may be dotted, values are TOML, or else plain text.

    Raises :class:`ConfigError` for what is not of this form.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: should be KEY=VALUE")
        settings = merged(settings, _parsed(key, value))
    return settings


def _parsed(key: str, value: str) -> dict[str, Any]:
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        pass
    try:
        return tomllib.loads(f"{key} = {json.dumps(value)}")
    except tomllib.TOMLDecodeError:
        raise ConfigError(f"--set {key}=…: '{key}' is not a key") from None
