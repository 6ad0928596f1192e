"""The tables of a benchmark file in words."""

import subprocess
import sys

import pytest

from dstbench.grid.reference import TOPICS
from dstbench.grid.schema import FileTables
from dstbench.settings import TrainingSettings


def test_there_is_a_topic_for_each_table() -> None:
    assert set(TOPICS) == {"benchmark", *FileTables.model_fields} - {"name"}


@pytest.mark.parametrize("topic", TOPICS)
def test_every_key_has_a_meaning(topic: str) -> None:
    assert TOPICS[topic].summary.endswith(".")
    for key in TOPICS[topic].keys:
        assert key.type
        assert key.default
        assert key.meaning, f"{topic}.{key.name} has no description"


def test_the_keys_are_those_of_the_settings() -> None:
    keys = TOPICS["training"].keys
    assert [key.name for key in keys] == list(TrainingSettings.model_fields)
    assert keys[0] == ("steps", "int, ≥ 1, ≤ 1e+09", "100000", "optimizer steps")


def test_what_is_required_comes_first() -> None:
    keys = TOPICS["benchmark"].keys
    assert [key.name for key in keys if key.default == "required"] == ["name", "grid", "tasks"]
    assert [(key.name, key.type) for key in keys[:4]] == [
        ("name", "str"),
        ("grid", "table"),
        ("tasks", "list[table]"),
        ("models", "table"),
    ]


def test_it_needs_no_torch() -> None:
    code = "import sys, dstbench.grid.reference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
