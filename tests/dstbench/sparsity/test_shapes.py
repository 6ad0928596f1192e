"""Shapes of weights that know which of their rows belong together."""

import copy

from torch import nn

from dstbench.sparsity.shapes import weight_shapes


def test_weights_know_which_rows_are_alike() -> None:
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(6, 4),
            "grouped": nn.Conv2d(4, 8, 3, groups=2),
            "transposed": nn.ConvTranspose2d(4, 8, 3),
            "gru": nn.GRU(3, 5),
            "lstm": nn.LSTM(3, 8, proj_size=2),
            "rnn": nn.RNN(3, 6),
            "cell": nn.GRUCell(3, 5),
            "attention": nn.MultiheadAttention(8, 2),
        }
    )
    weights = {name: p for name, p in model.named_parameters() if "weight" in name}
    units = {name: shape.units for name, shape in weight_shapes(model, weights).items()}
    assert units == {
        "linear.weight": 4,
        "grouped.weight": 4,
        "transposed.weight": 0,
        "gru.weight_ih_l0": 5,
        "gru.weight_hh_l0": 5,
        "lstm.weight_ih_l0": 8,
        "lstm.weight_hh_l0": 8,
        "lstm.weight_hr_l0": 2,
        "rnn.weight_ih_l0": 6,
        "rnn.weight_hh_l0": 6,
        "cell.weight_ih": 5,
        "cell.weight_hh": 5,
        "attention.in_proj_weight": 8,
        "attention.out_proj.weight": 8,
    }
    shape = weight_shapes(model, weights)["gru.weight_ih_l0"]
    assert shape == (15, 3)
    assert copy.deepcopy(shape).units == 5
