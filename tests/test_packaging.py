"""What is shipped, and that the layout keeps what it promises."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = [
    "dinov2", "hub", "kanjivg", "lsun", "mlflow", "onnx", "prdc", "ray", "slurm", "tensorboard",
    "wandb",
]  # fmt: skip
APART = ["photographs"]
"""Extras with weights whose licence is not stated: asked for by name, or not at all."""
INSTALLED_AS = {
    "PIL": "pillow",
    "pydantic_core": "pydantic",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
PLUGINS = sorted(path.name for path in (ROOT / "plugins").glob("dstbench_*"))
SHARED = {"dstbench_dit": {"dstbench_ldm"}}
"""What a plugin has from another: both models of images share first stage, labels and sampler."""


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", sorted((ROOT / "dstbench").rglob("*.py")), ids=str)
def test_the_harness_knows_no_plugin(path):
    assert not {name.partition(".")[0] for name in imported_modules(path)} & set(PLUGINS)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins_do_not_know_each_other(plugin):
    for path in (ROOT / "plugins" / plugin).rglob("*.py"):
        others = {name.partition(".")[0] for name in imported_modules(path)} & set(PLUGINS)
        assert others <= {plugin} | SHARED.get(plugin, set())


def test_every_plugin_has_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(project["entry-points"]["dstbench"].values()) == PLUGINS


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = {*project["dependencies"], *(p for name in [*EXTRAS, *APART] for p in extras[name])}
    declared = {re.match(r"[\w-]+", package)[0] for package in listed}
    assert imported_packages() - declared == set()


def imported_packages():
    """Names, where they are installed from, of what the harness and the plugins import."""
    paths = [path for name in ("dstbench", "plugins") for path in (ROOT / name).rglob("*.py")]
    modules = {
        name.partition(".")[0]
        for path in paths
        if "templates" not in path.parts
        for name in imported_modules(path)
    }
    theirs = modules - sys.stdlib_module_names - {"dstbench", *PLUGINS}
    return {INSTALLED_AS.get(name, name).replace("_", "-") for name in theirs}


def test_one_extra_is_all_of_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert sorted(extras) == sorted([*EXTRAS, *APART, "all", "dev", "docs"])
    assert extras["all"] == [f"dstbench[{','.join(EXTRAS)}]"]
    assert "dstbench[all]" in extras["dev"]


@pytest.mark.slow
def test_the_wheel_holds_everything(tmp_path):
    source = tmp_path / "source"  # building writes into the source tree
    for name in ("dstbench", "plugins"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            tmp_path,
            source,
        ],
        check=True,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for folder in (ROOT, ROOT / "plugins"):
        for path in folder.glob("dstbench*/**/*"):
            if path.suffix in {".py", ".typed", ".json", ".safetensors", ".toml", ".md"}:
                assert path.relative_to(folder).as_posix() in shipped
