"""CelebA-HQ: faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from dstbench_images.image_folder import PATH, ImageFolder


class CelebAHQ(ImageFolder):
    """30,000 faces, of which 12,500 are for training and 500 for validation by default.

    Karras et al., 'Progressive Growing of GANs' (ICLR 2018); the numbers of images are those of
    'Sparse-to-Sparse Training of Diffusion Models' (TMLR 2025). Its licence allows no download by
    a program: get the images (any size from 256 pixels, as files or a zip of them) by way of
    https://github.com/tkarras/progressive_growing_of_gans or, as part of CelebAMask-HQ, of
    https://github.com/switchablenorms/CelebAMask-HQ.
    """

    name = "celeba-hq"
    expected = (
        "a folder or zip file of its images, of 256 pixels or more (by way of "
        "https://github.com/switchablenorms/CelebAMask-HQ)"
    )
    trial_settings: ClassVar[Mapping[str, Any]] = {"image_size": 32, "train": 100, "validation": 40}

    class Settings(ImageFolder.Settings):
        path: str = Field(
            "$DSTBENCH_DATA/celeba-hq",
            description=f"folder or zip file of the images{PATH}",
        )
        train: int | None = Field(12_500, ge=1, description="images to train with")
        validation: int | None = Field(500, ge=1, description="images for validation")
