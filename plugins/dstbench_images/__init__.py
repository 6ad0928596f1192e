"""Image datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstbench import hookimpl

if TYPE_CHECKING:
    from dstbench.contracts import Dataset


@hookimpl
def dstbench_datasets() -> list[type[Dataset]]:
    from dstbench_images.digits import Digits
    from dstbench_images.image_folder import ImageFolder

    return [Digits, ImageFolder]
