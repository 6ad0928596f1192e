"""Optimizers as masks see them: the state they keep of a weight, the elements they mix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn, optim

from dstbench.errors import SparsityError
from dstbench.sparsity.layers import Layer

_ELEMENTWISE = frozenset(
    getattr(optim, name)
    for name in (
        "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam",
        "RMSprop", "Rprop", "SGD", "SparseAdam",
    )
    if hasattr(optim, name)
)  # fmt: skip
"""Types whose step leaves an element at zero whose gradient and state are zero."""


def is_elementwise(optimizer: optim.Optimizer) -> bool:
    """Whether the optimizer is known to leave an element at zero whose gradient and state are zero.

    A subclass is, if it overrides no method that takes a step or changes what one does; so is an
    optimizer whose ``step`` is wrapped by one of torch's learning-rate schedulers, but not one
    whose ``step`` was replaced by something else.
    """
    replaced = vars(optimizer).get("step")
    if replaced is not None and not hasattr(replaced, "_wrapped_by_lr_sched"):
        return False
    for cls in type(optimizer).__mro__:
        if cls in _ELEMENTWISE:
            return True
        if not vars(cls).keys() <= _HARMLESS:
            return False
    return False


def starts_at_zero(optimizer: optim.Optimizer) -> bool:
    """Whether the optimizer is known to treat each element of a weight by itself, whatever the
    weight's shape, with a state that is zero at first."""
    known = optim.Adam, optim.Adamax, optim.NAdam, optim.RAdam, optim.RMSprop, optim.SGD
    return is_elementwise(optimizer) and isinstance(optimizer, known)


_HARMLESS = frozenset({"__module__", "__doc__", "__qualname__", "__firstlineno__",
                       "__static_attributes__", "__annotations__", "__init__"})  # fmt: skip
"""What a subclass may define without being another optimizer."""


def state_of(optimizer: optim.Optimizer, weight: nn.Parameter) -> Iterator[Tensor]:
    """The tensors in the weight's shape that the optimizer keeps of it, such as Adam's moments.

    Those that are no plain tensors of floating-point (or complex) numbers are left out: what zero
    is in the codes of an 8-bit optimizer, only that optimizer knows.
    """
    for value in _in_shape(optimizer, weight):
        if _is_plain(value):
            yield value


def refuse_partial_step(trained: Sequence[Layer], layers: Sequence[Layer]) -> None:
    """Raise :class:`SparsityError` for a step of an optimizer that trains some of the layers."""
    if len(trained) < len(layers):
        raise SparsityError(
            f"an optimizer has taken a step with {len(trained)} of the {len(layers)} masked "
            "weights; a topology update follows the step of one optimizer that trains all of them: "
            "put them into one, or attach a sparsifier to each"
        )


def refuse_coded_state(optimizer: optim.Optimizer, layers: Iterable[Layer]) -> None:
    """Raise :class:`SparsityError` where the optimizer keeps state of a layer in codes, which
    cannot be set to zero element by element."""
    for layer in layers:
        for value in _in_shape(optimizer, layer.weight):
            if _is_plain(value) or value.dtype == torch.bool:
                continue
            codes = value.dtype if type(value) is Tensor else type(value).__name__
            raise SparsityError(
                f"{type(optimizer).__name__} keeps state of {layer.name} as {codes} codes, of "
                "which grown connections cannot be given fresh ones: set grown_state = "
                '"keep", or train with an optimizer that keeps plain floats'
            )


def _in_shape(optimizer: optim.Optimizer, weight: nn.Parameter) -> Iterator[Tensor]:
    for value in optimizer.state.get(weight, {}).values():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            yield value


def _is_plain(value: Tensor) -> bool:
    floats = value.is_floating_point() or value.is_complex()
    return type(value) in (Tensor, nn.Parameter) and floats


class HeldBack:
    """The gradients of an optimizer, taken away so that its step does nothing."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._gradients = [(weight, weight.grad) for weight in weights]
        for weight in weights:
            weight.grad = None

    def give_back(self) -> None:
        """Put the gradients back in their place."""
        for weight, gradient in self._gradients:
            weight.grad = gradient


def start_second_moments_at_mean(
    optimizer: optim.Optimizer, weight: nn.Parameter, grown: Tensor, kept: int
) -> None:
    """Give ``grown`` elements (bool, in the weight's shape) the mean second moment of the ``kept``
    active ones; those of all others are zero."""
    state = optimizer.state.get(weight, {})
    for key in ("exp_avg_sq", "square_avg"):
        if key in state and kept:
            state[key].masked_fill_(grown, state[key].sum() / kept)
