"""The parts of the pages under docs/ that are made from the code.

``python -m dstbench.cli.reference docs`` writes them anew, each between the lines
``<!-- made: PART -->`` and ``<!-- end -->``. A test holds the pages and the code together.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from dstbench.cli.app import app
from dstbench.grid.reference import TOPICS
from dstbench.plugins.describe import Setting, describe, describe_settings
from dstbench.plugins.registry import load_plugins
from dstbench.report.formatting import escape_markdown

_PART = re.compile(r"(<!-- made: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renew(page: str) -> str:
    """The page, with each of its parts as the code says now.

    Parts are ``commands``, the names of :data:`~dstbench.grid.reference.TOPICS`, and ``plugins``
    with a kind, such as ``plugins model``.
    """
    return _PART.sub(lambda found: f"{found[1]}\n{part(found[2])}\n\n{found[3]}", page)


def part(name: str) -> str:
    """One part, in markdown."""
    if name == "commands":
        return "\n\n".join(_commands())
    if name.startswith("plugins "):
        return "\n\n".join(_plugins(name.removeprefix("plugins ")))
    topic = TOPICS[name]
    keys = [_settings("key", topic.keys)] if topic.keys else []
    return "\n\n".join([_paragraphs(topic.text), *keys])


def _plugins(kind: str) -> Iterator[str]:
    """A section for each plugin of the kind that comes with dstbench."""
    for plugin in load_plugins().listing:
        if (plugin.kind, plugin.distribution) == (kind, "dstbench") and plugin.cls:
            yield f"### `{plugin.name}`"
            yield _paragraphs(describe(plugin.cls))
            if settings := describe_settings(plugin.cls.Settings):
                yield _settings("setting", settings)


def _commands() -> Iterator[str]:
    """A section for each command."""
    for command in app.registered_commands:
        assert command.callback is not None
        yield from _command(command.callback)


def _command(function: Callable[..., Any]) -> Iterator[str]:
    usage, rows = [f"dstbench {function.__name__}"], []
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if get_origin(hints[name]) is not Annotated:
            continue  # the context, which nobody types
        annotation, info = get_args(hints[name])
        meaning, choices = escape_markdown(info.help or ""), _choices(annotation)
        if isinstance(info, ArgumentInfo):
            word = info.metavar or name.upper()
            usage.append(word if parameter.default is parameter.empty else f"[{word}]")
            rows.append((_code(word), "", f"{meaning} {_code(choices)}" if choices else meaning))
        elif isinstance(info, OptionInfo):
            value = "" if annotation is bool else f" {info.metavar or choices or name.upper()}"
            typed = [_code(f"{each}{value}") for each in _names(name, info)]
            none = parameter.default in (None, False, parameter.empty)
            default = "" if none else _code(parameter.default)
            rows.append((", ".join(typed), default, meaning))
    yield f"## `{function.__name__}`"
    yield f"```\n{' '.join(usage)}\n```"
    yield _paragraphs(inspect.getdoc(function) or "")
    yield _table(["argument or option", "default", "meaning"], rows)


def _names(parameter: str, option: OptionInfo) -> list[str]:
    """An option's names; typer keeps the first that is given as if it were a default."""
    given = [option.default, *(option.param_decls or ())]
    names = [name for name in given if isinstance(name, str) and name.startswith("-")]
    return names or [f"--{parameter.replace('_', '-')}"]


def _choices(annotation: Any) -> str:
    """The words that may be given, where not any will do."""
    return "|".join(get_args(annotation)) if get_origin(annotation) is Literal else ""


def _paragraphs(text: str) -> str:
    """Plain text as markdown; lines below one that ends with a colon are a list."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        first, *others = paragraph.splitlines()
        if others and first.endswith(":"):
            items = "\n".join(f"- {escape_markdown(line)}" for line in others)
            paragraphs.append(f"{escape_markdown(first)}\n\n{items}")
        else:
            paragraphs.append(escape_markdown(paragraph))
    return "\n\n".join(paragraphs)


def _settings(word: str, settings: Iterable[Setting]) -> str:
    rows = [
        (_code(each.name), _code(each.type), _code(each.default), escape_markdown(each.meaning))
        for each in settings
    ]
    return _table([word, "type", "default", "meaning"], rows)


def _code(value: object) -> str:
    """Code that may stand in a table."""
    return f"`{value}`".replace("|", "\\|")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (renewed := renew(text)) != text:
            path.write_text(renewed, encoding="utf-8")
            print(f"written: {path}")
