"""The sparsifiable weights of a network, and the layer that holds one of them with its mask."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from dstbench.errors import SparsityError
from dstbench.sparsity.selection import count_true
from dstbench.sparsity.shapes import WeightShape, weight_shapes
from dstbench.sparsity.structure import UNSTRUCTURED, Structure

_CONNECTIONS: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (nn.Linear, ("weight",)),
    (nn.Bilinear, ("weight",)),
    (nn.modules.conv._ConvNd, ("weight",)),
    (nn.RNNBase, ("weight_*",)),
    (nn.RNNCellBase, ("weight_*",)),
    (nn.MultiheadAttention, ("*_proj_weight",)),
)
"""Module types and the names of their parameters that hold connections between units."""

NEVER_MASKED: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.EmbeddingBag,
)


def sparsifiable_weights(
    module: nn.Module, keep_dense: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """The weights of a network that may be masked, by their names in ``named_parameters()``.

    These are the weights of linear, bilinear, convolution, recurrent and attention layers; never
    norms, embeddings, biases or frozen parameters. ``keep_dense`` leaves out what matches one of
    its shell patterns (``"conv_in.*"``, ``"*.time_emb_proj.weight"``).

    Raises:
        SparsityError: for a trainable parameter of two or more dimensions whose module is of none
            of these types, so that no layer is missed silently; and for a pattern of
            ``keep_dense`` that matches nothing.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    left_dense = matching(names.values(), keep_dense)
    for owner in module.modules():
        if isinstance(owner, NEVER_MASKED):  # an embedding may also be a linear layer's weight
            left_dense |= {names[id(parameter)] for parameter in owner.parameters(recurse=False)}
    found: dict[str, nn.Parameter] = {}
    unruled: dict[str, str] = {}
    for owner in module.modules():
        for own_name, parameter in owner.named_parameters(recurse=False):
            name = names[id(parameter)]
            if name in left_dense or name in found or not parameter.requires_grad:
                continue
            if is_connection(owner, own_name):
                found[name] = parameter
            elif parameter.ndim >= 2 and not own_name.startswith("bias"):
                unruled[name] = type(owner).__name__
    if unruled:
        _refuse(unruled, names.values())
    return found


def _refuse(unruled: Mapping[str, str], names: Iterable[str]) -> NoReturn:
    """Name all parameters of modules that there is no rule for, and what would leave them dense."""
    patterns: list[str] = []
    left = list(unruled)
    for own_name in dict.fromkeys(name.rpartition(".")[2] for name in unruled):
        alike = fnmatch.filter(names, f"*.{own_name}")
        if len(alike) > 1 and set(alike) <= unruled.keys():
            patterns.append(f"*.{own_name}")
            left = [name for name in left if name not in alike]
    patterns += left
    kinds = ", ".join(f"{name} (of a {owner})" for name, owner in unruled.items())
    quoted = ", ".join(f'"{pattern}"' for pattern in patterns)
    raise SparsityError(
        f"dstbench has no rule for parameters of these modules: {kinds}; keep_dense = [{quoted}] "
        "leaves them dense, or say yourself which weights may be masked (attach(weights=...), or "
        "sparsifiable() of a model plugin)"
    )


def matching(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The names that match any of the shell patterns.

    Raises:
        SparsityError: for a pattern that matches none.
    """
    names = list(names)
    matched: set[str] = set()
    for pattern in patterns:
        hits = fnmatch.filter(names, pattern)
        if not hits:
            near = get_close_matches(pattern, names, n=1, cutoff=0)
            raise SparsityError(
                f'keep_dense: "{pattern}" matches no parameter'
                + (f'; the nearest is "{near[0]}"' if near else "")
            )
        matched.update(hits)
    return matched


def is_connection(owner: nn.Module, name: str) -> bool:
    """Whether the parameter of this name in a module holds connections between units."""
    return any(
        isinstance(owner, kind) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        for kind, patterns in _CONNECTIONS
    )


_SAME_SIZE_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def apply_mask_(tensor: Tensor, mask: Tensor) -> None:
    """Set the elements outside ``mask`` to exactly +0, in place.

    Their bits, taken as an integer, are multiplied by one or zero: faster than multiplying floats
    by booleans, and infinity, NaN and negative numbers become +0 too. On one thread NumPy takes
    half the time.
    """
    integer = _SAME_SIZE_INTEGER.get(tensor.element_size())
    if integer is None:  # complex128, which no integer is as large as
        tensor.masked_fill_(~mask, 0)
    elif tensor.is_cpu and torch.get_num_threads() <= 2:
        bits = tensor.detach().view(integer).numpy()
        np.multiply(bits, mask.view(torch.int8).numpy(), out=bits)
        increment_version(tensor)
    else:
        tensor.view(integer).mul_(mask.view(torch.int8))


class Layer:
    """One masked weight, and which of its connections are active."""

    def __init__(
        self,
        name: str,
        weight: nn.Parameter,
        shape: WeightShape | None = None,
        structure: Structure = UNSTRUCTURED,
    ) -> None:
        self.name = name
        """Parameter name in the network's ``named_parameters()``."""
        self.weight = weight
        self.shape = shape or WeightShape(weight.shape)
        self.structure = structure if structure.fits(self.shape) else UNSTRUCTURED
        """What its mask looks like; unstructured where the one that was asked for does not fit."""
        self.group = self.structure.group
        """Number of neighbouring output channels that share one mask; 1: each has its own."""
        self.mask = torch.ones_like(weight, dtype=torch.bool, requires_grad=False)
        """Boolean, True = active, with the weight's shape and strides."""
        self.values: nn.Parameter | None = None
        """The active weights, (active,), where they are held without the others; :attr:`weight` is
        NaN then, but in a topology update."""
        self._active = weight.numel()
        self._dense_gradient: Tensor | None = None

    def __repr__(self) -> str:
        return f"Layer({self.name!r}, {self._active} of {self.mask.numel()} active)"

    @property
    def parameter(self) -> nn.Parameter:
        """What the network and the optimizer have of the layer: its weight, or its values."""
        return self.weight if self.values is None else self.values

    @property
    def active(self) -> int:
        """Number of active connections; a sparsifier alone sets it."""
        return self._active

    @active.setter
    def active(self, count: int) -> None:
        raise SparsityError(
            f"the number of active connections of {self.name} follows from the sparsifier's "
            "schedule: override layer_counts, density_at or counts_after_update to change it"
        )

    def allot(self, count: int) -> None:
        """Set the number of connections that the next mask of :meth:`replace_mask` has to hold."""
        self._active = count

    def replace_mask(self, mask: Tensor) -> None:
        """Take another mask, of exactly :attr:`active` connections.

        Raises:
            SparsityError: for a mask of another number, or without the layer's structure.
        """
        if (count := count_true(mask)) != self._active:
            raise SparsityError(
                f"the mask that was selected for {self.name} holds {count} of "
                f"{self.mask.numel()} connections, instead of {self._active}"
            )
        self.check_structure(mask)
        self.mask.copy_(mask)

    def check_structure(self, mask: Tensor) -> None:
        """Raise :class:`SparsityError` unless a mask has the layer's structure."""
        if not self.structure.holds(mask):
            raise SparsityError(
                f'the mask of {self.name} does not have the structure "{self.structure}"'
            )

    @property
    def density(self) -> float:
        """Fraction of active connections."""
        return self._active / self.mask.numel()

    @property
    def dense_gradient(self) -> Tensor:
        """Gradient of all connections, inactive ones too, in the weight's shape, summed over
        micro-batches; free to be overwritten.

        Raises:
            SparsityError: outside a topology update of a method that asks for it, and outside the
                choice of a first mask that asks for it.
        """
        if self._dense_gradient is None:
            raise SparsityError(
                f"{self.name} has no dense gradient here: set needs_dense_gradient = True to have "
                "it in topology updates, needs_initial_gradient = True to have it while the first "
                "mask is chosen"
            )
        return self._dense_gradient

    @dense_gradient.setter
    def dense_gradient(self, gradient: Tensor) -> None:
        self._dense_gradient = gradient

    @dense_gradient.deleter
    def dense_gradient(self) -> None:
        self._dense_gradient = None

    @property
    def has_dense_gradient(self) -> bool:
        """Whether :attr:`dense_gradient` is there."""
        return self._dense_gradient is not None


def layers_of(
    model: nn.Module, weights: Mapping[str, nn.Parameter], structure: Structure
) -> list[Layer]:
    """A layer for each weight of a model, by its name there, under a structure where that fits."""
    shapes = weight_shapes(model, weights)
    return [Layer(name, weight, shapes[name], structure) for name, weight in weights.items()]


def allot(layers: Sequence[Layer], counts: Mapping[str, int]) -> None:
    """Set the number of connections of each layer, by its name, before masks are chosen.

    Raises:
        SparsityError: if it is none of all layers.
    """
    if not sum(counts.values()):
        raise SparsityError(
            f"none of the {sum(layer.mask.numel() for layer in layers)} sparsifiable weights would "
            "be active; a lower sparsity leaves some"
        )
    for layer in layers:
        layer.allot(counts[layer.name])
