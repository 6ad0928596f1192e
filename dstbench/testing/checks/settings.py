"""What is promised of every plugin's ``Settings``."""

from __future__ import annotations

import json

from pydantic import ValidationError

from dstbench.plugins.describe import describe, describe_settings
from dstbench.testing.checking import Broken, Subject


def settings_are_documented(subject: Subject) -> None:
    """The class has a docstring, and each of its settings a description, for users to read."""
    if not describe(subject.cls) or subject.cls.__doc__ == subject.cls.__base__.__doc__:
        raise Broken(f"{subject.cls.__qualname__} has no docstring")
    bare = [each.name for each in describe_settings(subject.cls.Settings) if not each.meaning]
    if bare:
        raise Broken(
            f"{', '.join(bare)}: no description; write "
            f'{bare[0]}: … = Field(…, description="what it means")'
        )


def settings_are_validated(subject: Subject) -> None:
    """Settings extend those of the base class, hold valid defaults, refuse unknown keys and never
    change."""
    settings = subject.cls.Settings
    for base in subject.cls.__mro__:
        theirs = vars(base).get("Settings")
        if theirs is not None and not issubclass(settings, theirs):
            raise Broken(
                f"{settings.__qualname__} does not derive from {theirs.__qualname__}, whose "
                f"settings {base.__qualname__} uses"
            )
    valid = subject.settings
    unknown = {"no_such_setting": 1}
    try:
        settings(**subject.values, **unknown)
    except ValidationError:
        pass
    else:
        raise Broken("a key that no setting has, no_such_setting = 1, was not refused")
    for name in settings.model_fields:
        try:
            setattr(valid, name, getattr(valid, name))
        except (ValidationError, AttributeError):
            continue
        raise Broken(f"{name} can be changed after the settings were made: frozen is switched off")


def settings_survive_a_record(subject: Subject) -> None:
    """Settings come back as they were from the JSON in which a cell's record keeps them, and which
    is all that a benchmark can say."""
    dumped = subject.settings.model_dump(mode="json")
    again = subject.cls.Settings.model_validate_json(json.dumps(dumped), strict=True)
    came_back = again.model_dump(mode="json")
    for key, value in dumped.items():
        if came_back[key] != value:
            raise Broken(f"{key} = {value!r} came back as {came_back[key]!r}")


CHECKS = (settings_are_documented, settings_are_validated, settings_survive_a_record)
