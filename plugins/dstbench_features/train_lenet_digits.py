"""Train the network of ``lenet-digits`` and write its weights into this package.

Run as ``python -m dstbench_features.train_lenet_digits``; it takes less than a minute.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dstbench.cache import file_digest
from dstbench_features.lenet import SIZE, LeNet
from dstbench_features.lenet_digits import WEIGHTS

SEED = 0
EPOCHS = 20
BATCH_SIZE = 50
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
LARGEST_SHIFT = 3
LARGEST_NOISE = 0.1


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images, held-out images, training labels, held-out labels.

    scikit-learn's 1,797 digits as uint8 images (N, 1, 32, 32), light strokes on black, split into
    1,500 and 297 exactly as the dataset ``digits`` is.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    small = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) * (255 / 16)
    images = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    kept, held_out = train_test_split(
        range(len(labels)), test_size=297, random_state=0, stratify=labels
    )
    images, labels = images.round().to(torch.uint8), torch.tensor(labels)
    return images[kept], images[held_out], labels[kept], labels[held_out]


def accuracy(network: LeNet, images: Tensor, labels: Tensor) -> float:
    """Fraction of the images whose largest logit is their label's."""
    with torch.no_grad():
        _, logits = network(images)
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
    """Each image shifted by a few pixels, with another contrast and some noise."""
    count = len(images)
    padded = F.pad(images, [LARGEST_SHIFT] * 4)
    corners = torch.randint(2 * LARGEST_SHIFT + 1, (count, 2)).tolist()
    shifted = torch.stack(
        [
            image[:, y : y + SIZE, x : x + SIZE]
            for image, (y, x) in zip(padded, corners, strict=True)
        ]
    )
    contrast = 0.6 + 0.4 * torch.rand(count, 1, 1, 1)
    noise = 255 * LARGEST_NOISE * torch.rand(count, 1, 1, 1) * torch.randn(shifted.shape)
    return (shifted * contrast + noise).clamp(0, 255).to(torch.uint8)


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # another number of threads adds up in another order
    torch.use_deterministic_algorithms(True)
    train_images, held_out_images, train_labels, held_out_labels = digits()
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
        "packages": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
    }
    WEIGHTS.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
