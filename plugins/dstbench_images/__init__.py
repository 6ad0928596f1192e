"""Image datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dstbench import hookimpl

if TYPE_CHECKING:
    from dstbench.contracts import Dataset


@hookimpl
def dstbench_datasets() -> list[type[Dataset]]:
    from dstbench_images.celeba_hq import CelebAHQ
    from dstbench_images.digits import Digits
    from dstbench_images.image_folder import ImageFolder
    from dstbench_images.imagenette import Imagenette
    from dstbench_images.lsun_bedrooms import LSUNBedrooms

    return [CelebAHQ, Digits, ImageFolder, Imagenette, LSUNBedrooms]
