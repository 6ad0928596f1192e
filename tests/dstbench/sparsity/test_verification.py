import torch
from torch import nn

from dstbench.sparsity.layers import Layer
from dstbench.sparsity.verification import WriteDetector


def test_the_last_weights_of_a_large_layer_are_looked_at_and_none_beyond() -> None:
    weight = nn.Parameter(torch.zeros(2, 2**23 + 1))  # float32 cannot count its elements
    layer = Layer("large", weight)
    layer.mask.zero_()
    detector = WriteDetector()
    detector.note_mask(layer)
    assert not detector.weight_is_uncovered(layer)

    weight.data[-1, -1] = 1

    assert detector.weight_is_uncovered(layer)
