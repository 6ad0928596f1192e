"""Plugins and their settings, in words."""

from __future__ import annotations

import inspect
import json
import re
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dstbench.plugins.isolation import FAILURES

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


class Setting(NamedTuple):
    """One field of a settings class, in words."""

    name: str
    type: str
    default: str
    """The default as it would be written in a benchmark; ``required`` or ``none``."""
    meaning: str


def describe(thing: object) -> str:
    """The docstring of a class, or of a module, as plain text, without Sphinx's markup."""
    text = inspect.cleandoc(thing.__doc__ or "")
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return re.sub(r"\*(\S[^*]*)\*|``", r"\1", text)


def describe_settings(settings: type[BaseModel], prefix: str = "") -> list[Setting]:
    """The fields of a ``Settings`` class, in the order of their declaration.

    Fields of nested settings are named as in ``autoencoder.steps``.
    """
    described = []
    for name, field in settings.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            described += describe_settings(nested, f"{prefix}{name}.")
        else:
            described.append(describe_field(prefix + name, field))
    return described


def describe_field(name: str, field: FieldInfo) -> Setting:
    """A field in words; one that is a table is not taken apart."""
    return Setting(name, _type(field), _default(field), field.description or "")


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(constraint, bound):g}"
        for constraint in field.metadata
        for bound, sign in _BOUNDS.items()
        if hasattr(constraint, bound)
    ]
    return ", ".join([_in_words(field.annotation), *bounds])


def _in_words(annotation: Any) -> str:
    """A type as TOML has it, without the constraints on its parts."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    if origin is tuple:
        return f"list[{', '.join(_in_words(each) for each in arguments if each is not ...)}]"
    if origin is Annotated:
        return _in_words(arguments[0])
    if origin is Literal:
        return " | ".join(json.dumps(argument, default=str) for argument in arguments)
    names = [_in_words(argument) for argument in arguments]
    if origin in (Union, UnionType):
        return " | ".join(names)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(names)}]"
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    try:
        value = field.get_default(call_default_factory=True, validated_data={})
    except FAILURES as error:  # a factory may need other settings, or fail
        return f"not known ({type(error).__name__})"
    return "none" if value is None else json.dumps(value, default=str, ensure_ascii=False)


def summary(thing: object) -> str:
    """The first line of the docstring of a class, or of a module, as plain text."""
    return describe(thing).partition("\n")[0]
