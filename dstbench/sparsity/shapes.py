"""Shapes of weights, and which of their rows belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn


class WeightShape(tuple[int, ...]):
    """The shape of a weight, (n_out, n_in, *kernel), that knows of parts along its dimension 0."""

    units: int
    """Number of neighbouring output units that are alike: those of one gate, one projection, one
    group of a convolution; 0, where dimension 0 holds inputs."""

    def __new__(cls, shape: Iterable[int], units: int | None = None) -> WeightShape:
        made = super().__new__(cls, shape)
        made.units = (made[0] if made else 0) if units is None else units
        return made


def units_of(shape: Sequence[int]) -> int:
    """The :attr:`WeightShape.units` of a shape; of a plain one of two dimensions or more, all."""
    if len(shape) < 2:
        return 0
    return shape.units if isinstance(shape, WeightShape) else shape[0]


def weight_shapes(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, WeightShape]:
    """The shape of each weight of a model, by its name there.

    The gates of a recurrent layer (3 in GRUs, 4 in LSTMs), the three projections of an attention
    and the groups of a convolution are parts of their matrices. Transposed convolutions have their
    inputs along dimension 0.
    """
    owners = {
        id(parameter): (owner, name)
        for owner in model.modules()
        for name, parameter in owner.named_parameters(recurse=False)
    }
    return {
        name: WeightShape(weight.shape, _units(weight, *owners.get(id(weight), (model, ""))))
        for name, weight in weights.items()
    }


_GATES: tuple[tuple[type[nn.Module], int], ...] = (
    (nn.GRU, 3),
    (nn.GRUCell, 3),
    (nn.LSTM, 4),
    (nn.LSTMCell, 4),
)


def _units(weight: Tensor, owner: nn.Module, name: str) -> int:
    rows = len(weight) if weight.ndim else 0
    if isinstance(owner, nn.modules.conv._ConvTransposeNd):
        return 0
    if isinstance(owner, nn.modules.conv._ConvNd):
        return rows // owner.groups
    if name == "in_proj_weight":
        return rows // 3
    gates = next((gates for kind, gates in _GATES if isinstance(owner, kind)), 1)
    return rows if name.startswith("weight_hr") else rows // gates
