"""``dstbench new``: a small installable package to begin a plugin with.

The templates, ``templates/KIND/``, are such packages themselves, each of a plugin called
``my-KIND`` that works as it stands; a new package is a copy under another name.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dstbench.cell import RESERVED
from dstbench.errors import PluginError, StoreError
from dstbench.plugins.plugin import Kind, check_name
from dstbench.plugins.registry import Plugins

Template = Literal[
    "sparsifier", "model", "dataset", "feature-extractor", "metric", "executor", "tracker"
]

_KINDS: dict[Template, Kind] = {
    "sparsifier": "sparsifier",
    "model": "model",
    "dataset": "dataset",
    "feature-extractor": "feature extractor",
    "metric": "metric",
    "executor": "executor",
    "tracker": "tracker",
}
_TEMPLATES = Path(__file__).with_name("templates")
_SUFFIXES = {".py", ".toml", ".md"}
"""Suffixes of a template's files; others (caches) do not belong to it."""


def write_package(template: Template, name: str, folder: Path, plugins: Plugins) -> None:
    """Write the package of a plugin called ``name`` into ``folder``, which it makes.

    Raises:
        PluginError: for a name that cannot be one, or is taken by what is installed.
        StoreError: if the folder is there already, or cannot be written.
    """
    words = _words(template, name)
    _refuse_taken(_KINDS[template], name, plugins)
    try:
        folder.mkdir(parents=True)
        for path, text in _files(template, words):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise StoreError(
            f"{folder}: is there already, and stays as it is; name another folder with --to"
        ) from None
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}") from None


def next_commands(name: str, folder: Path) -> list[str]:
    """What to do with a new package, as one would type it."""
    return [
        f"python -m pip install --editable {shlex.quote(f'{folder}[test]')}",
        f"dstbench check {name}",
        f"dstbench run {shlex.quote(str(folder / 'benchmark.toml'))}",
    ]


def _words(template: Template, name: str) -> dict[str, str]:
    """What a template's own names become: the plugin's, its module's and its class's."""
    mine = f"my-{template}"
    words = {mine: name, _snake(mine): _snake(name), _camel(mine): _camel(name)}
    try:
        check_name(name)
    except ValueError as error:
        raise PluginError(str(error)) from None
    if not re.fullmatch(r"[a-z]([a-z0-9_-]*[a-z0-9])?", name):
        raise PluginError(
            f"'{name}' cannot name a package: begin with a letter, end with a letter or digit, and "
            "use '-' rather than '.'"
        )
    if name != mine and (keyword.iskeyword(_camel(name)) or _camel(name) in _used(template)):
        raise PluginError(
            f"'{name}' would make a class called {_camel(name)}, a word that its module uses for "
            "something else; choose another name"
        )
    return words


def _refuse_taken(kind: Kind, name: str, plugins: Plugins) -> None:
    if kind == "sparsifier" and name in RESERVED:
        raise PluginError(f"'{name}' is the name of {RESERVED[name]}; choose another")
    for plugin in plugins.listing:
        if plugin.name == name and plugin.kind in (kind, None):
            raise PluginError(
                f"there is a {kind} '{name}' already, of {plugin.origin}; choose another name"
            )
    module = f"dstbench_{_snake(name)}"
    if importlib.util.find_spec(module):
        raise PluginError(f"a module '{module}' is installed already; choose another name")


def _files(template: Template, words: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Path and text of each file of the package."""
    old = re.compile("|".join(map(re.escape, words)))

    def renamed(text: str) -> str:
        return old.sub(lambda match: words[match[0]], text)

    folder = _TEMPLATES / template
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SUFFIXES:
            yield (
                Path(renamed(str(path.relative_to(folder)))),
                renamed(path.read_text(encoding="utf-8")),
            )


def _used(template: Template) -> set[str]:
    """The words in a template's code."""
    modules = (_TEMPLATES / template).rglob("*.py")
    return {word for path in modules for word in re.findall(r"\w+", path.read_text("utf-8"))}


def _snake(name: str) -> str:
    return name.replace("-", "_")


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in re.split(r"[-_]", name))
