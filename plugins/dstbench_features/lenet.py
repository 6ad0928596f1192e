"""The network of ``lenet-digits``."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 32
FEATURES = 64
CLASSES = 10


class LeNet(nn.Module):
    """Three convolutions and two linear layers, after LeCun et al. (1998).

    The features are what enters the last layer, before its activation: smooth in the image, and
    none of them constant over a whole dataset. Batch normalisation gives each about unit variance
    over the digits: KID's kernel, cubic in their products, is meant for such a scale.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, FEATURES),
            nn.BatchNorm1d(FEATURES, affine=False),
        )
        self.classify = nn.Sequential(nn.SiLU(), nn.Linear(FEATURES, CLASSES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 64) and logits (N, 10) of uint8 images (N, C, H, W), C = 1 or 3."""
        features = self.embed(as_input(images))
        return features, self.classify(features)


def as_input(images: Tensor) -> Tensor:
    """Grey images (N, 1, 32, 32) in [0, 1] from uint8 images (N, C, H, W), C = 1 or 3."""
    pixels = images.float() / 255
    if pixels.shape[1] == 3:
        luma = pixels.new_tensor([0.299, 0.587, 0.114])  # ITU-R BT.601
        pixels = torch.einsum("nchw,c->nhw", pixels, luma).unsqueeze(1)
    return F.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear", antialias=True)


def load(weights: Path) -> LeNet:
    """The network with the weights of a safetensors file, ready to be evaluated."""
    with torch.device("meta"):  # no initialisation: it would be overwritten
        network = LeNet()
    network.load_state_dict(load_file(weights), assign=True)
    return network.requires_grad_(False).eval()
