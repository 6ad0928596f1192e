"""Nearest training images, of features whose distances are plain."""

import torch

from dstbench.contracts import Features
from dstbench.metrics import nearest


def test_distances_by_hand() -> None:
    training = Features(torch.tensor([[0.0, 0], [3, 4], [3, 10], [60, 0]]))  # 5, 5, 6, 57.1… apart
    samples = Features(torch.tensor([[0.0, 1], [3, 9], [59, 0], [30, 4]]))  # 1, 1, 1, 27 apart
    indices, found = nearest(samples, training)
    assert indices.tolist() == [0, 2, 3, 1]
    assert found.model_dump() == {"samples": 1, "training": 5, "closer": 0.75, "count": 4}


def test_a_training_image_that_was_memorised_is_found() -> None:
    training = Features(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    indices, found = nearest(Features(training.features[[7, 30]]), training)
    assert indices.tolist() == [7, 30]
    assert found.samples < 1e-3 < found.training
    assert found.closer == 1
