"""An exported model on the Hugging Face hub, where it is asked for."""

from __future__ import annotations

from pathlib import Path

from dstbench.errors import StoreError
from dstbench.exporting.card import NAME
from dstbench.plugins import require

SENT = {".json", ".md", ".onnx", ".png", ".safetensors"}
"""Endings of the files that an export writes."""


def push(folder: Path, repository: str, *, public: bool) -> str:
    """Upload an exported model with the user's own login (``hf auth login``); where it is now.

    Raises:
        StoreError: for a folder that is no export, and where the hub refuses.
        PluginError: if the package huggingface_hub is not installed.
    """
    hub = require("huggingface_hub", needed_by="dstbench push", extra="dstbench[hub]")
    if not (folder / NAME).is_file():
        raise StoreError(f"{folder}: no exported model is here; dstbench export writes one")
    files = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    for path in files:
        if path.is_symlink() or path.suffix not in SENT:
            raise StoreError(f"{path}: no file that dstbench export writes; move it elsewhere")
    try:
        api = hub.HfApi()
        api.create_repo(repository, private=not public, exist_ok=True)
        names = [path.relative_to(folder).as_posix() for path in files]
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=names,
            commit_message="Model trained by dstbench",
        )
    except Exception as error:  # of the hub's many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StoreError(f"{repository}: not uploaded: {reason}") from error
    return f"{api.endpoint}/{repository}"
