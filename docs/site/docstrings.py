"""An extension of griffe: docstrings in the markdown that mkdocstrings wants.

Roles of Sphinx become links, where the site has what they name, and doctests code.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Alias, Extension, Module, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr):`(?:([^`<]+) <)?(~?)([\w.]+)>?`")
_DOCTEST = re.compile(r"(?:^>>> .*\n?(?:^(?!>>>).+\n?)*)+", re.MULTILINE)


class Markdown(Extension):
    def on_package(self, *, pkg: Module, **_: Any) -> None:
        _translate(pkg)


def _translate(thing: Object) -> None:
    if thing.docstring:
        text = _ROLE.sub(lambda role: _link(thing, *role.groups()), thing.docstring.value)
        thing.docstring.value = _DOCTEST.sub(_fenced, text)
    for member in thing.members.values():
        if not isinstance(member, Alias):
            _translate(member)


def _link(thing: Object, title: str | None, short: str, path: str) -> str:
    text = title or (path.rpartition(".")[2] if short else path)
    where = _path(thing, path)
    return f'<autoref identifier="{where}" optional><code>{text}</code></autoref>'


def _path(thing: Object, name: str) -> str:
    """The full path of what a docstring names, which is looked for outwards from its object."""
    scope: Object | None = thing
    while scope is not None:
        if name in scope.members:
            member = scope.members[name]
            return member.target_path if isinstance(member, Alias) else member.path
        scope = scope.parent
    return name


def _fenced(found: re.Match[str]) -> str:
    return f"```pycon\n{found[0].rstrip()}\n```\n"
