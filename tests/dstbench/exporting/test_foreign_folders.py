"""Folders that anybody may have made: what is wrong with them is said, and nothing is executed."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dstbench
from dstbench.errors import DstbenchError, PluginError, StoreError
from dstbench.store import CellFolder


@pytest.fixture
def exported(trained: Callable[..., CellFolder], tmp_path: Path) -> Path:
    dstbench.export_model(trained().path, tmp_path / "out")
    return tmp_path / "out"


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what the file tells beside its tensors."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    told = json.loads(header["__metadata__"]["dstbench"])
    change(told)
    header["__metadata__"]["dstbench"] = json.dumps(told)
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + content[8 + size :])


def cell(**changed: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda told: told["model"]["cell"].update(changed)


def model(**changed: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda told: told["model"].update(changed)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (cell(model="nobody-has-this"), PluginError, "unknown model"),
        (cell(model="../../etc/passwd"), PluginError, "unknown model"),
        (cell(model_settings={"dropout": 7}), StoreError, "dropout"),
        (cell(evaluation={"samples": "many"}), StoreError, "damaged"),
        (model(format=1), StoreError, "format"),
        (model(extra=1), StoreError, "extra"),
        (model(kernels={"mode": "faster"}), StoreError, "damaged"),
        (lambda told: told.pop("model"), StoreError, "no model"),
        (lambda told: told.update(model=[1]), StoreError, "no model"),
        (
            lambda told: told["shapes"].update({"0.weight": [10**9, 10**9, 1]}),
            StoreError,
            "damaged",
        ),
        (lambda told: told["shapes"].clear(), StoreError, "damaged"),
        (lambda told: told.update(shapes=3), StoreError, "metadata are not dstbench's"),
    ],
)
def test_what_a_file_tells_is_not_believed(
    exported: Path,
    change: Callable[[dict[str, Any]], Any],
    error: type[DstbenchError],
    message: str,
) -> None:
    rewrite(exported / "model.safetensors", change)
    with pytest.raises(error, match=message):
        dstbench.load_model(exported)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"item_shape": [10**12, 10**12]}, "items of shape"),
        ({"item_shape": [0]}, "items of shape"),
        ({"item_dtype": "object"}, "item_dtype"),
        ({"extra": 1}, "extra"),
        ({"state": {"a": [1]}}, "state"),
    ],
)
def test_what_it_samples_with_is_not_believed(
    exported: Path, changed: dict[str, Any], message: str
) -> None:
    rewrite(exported / "sampling.safetensors", lambda told: told.update(changed))
    with pytest.raises(StoreError, match=message):
        dstbench.load_model(exported)


@pytest.mark.parametrize("name", ["model.safetensors", "sampling.safetensors"])
def test_a_file_that_is_none(exported: Path, name: str) -> None:
    path = exported / name
    whole = path.read_bytes()
    for content in (b"", whole[:20], whole[:-1], b"\xff" * 64, pickle.dumps({"a": Mine()})):
        path.write_bytes(content)
        with pytest.raises(StoreError):
            dstbench.load_model(exported)
    assert not Mine.unpickled
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="pipe"):
        dstbench.load_model(exported)
    path.unlink()
    missing = "no trained cell" if name == "model.safetensors" else "damaged"
    with pytest.raises(StoreError, match=missing):
        dstbench.load_model(exported)


class Mine:
    unpickled: list[bool] = []  # noqa: RUF012

    def __reduce__(self) -> Any:
        return Mine.unpickled.append, (True,)
