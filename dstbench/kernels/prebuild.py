"""Kernels compiled beforehand, for wheels whose users may have no compiler.

``python -m dstbench.kernels.prebuild`` puts them beside this module.
"""

from __future__ import annotations

import platform
from pathlib import Path

from dstbench.kernels.library import PREBUILT, compile_to


def main() -> None:
    """Compile for each architecture of this machine's kind."""
    PREBUILT.mkdir(exist_ok=True)
    kinds = {"x86_64": ("x86-64-v3", "x86-64-v4")}
    for architecture in kinds.get(platform.machine(), ("generic",)):
        path = Path(PREBUILT / f"{architecture}.so")
        compile_to(path, architecture, threads=True)
        print(f"written: {path}")


if __name__ == "__main__":
    main()
