"""What keeps inactive weights at zero while an optimizer trains the others."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dstbench.kernels.use import left_masked
from dstbench.sparsity import steps
from dstbench.sparsity.layers import Layer, apply_mask_
from dstbench.sparsity.optimizers import is_elementwise, state_of
from dstbench.sparsity.places import Places
from dstbench.sparsity.verification import WriteDetector


class MaskKeeper(steps.Listener):
    """Keeps layers masked, from one step to the next.

    Gradients are masked as autograd accumulates them and, where something has written to them
    since, before the optimizer sees them. After every step weights are zero at inactive
    connections: known to be, where the optimizer and the training loop are, and masked elsewhere.

    Args:
        model: the network that holds the layers.
        averaged: copy of the network with averaged weights, masked with it.
        keeps_state: whether the optimizer's state of inactive weights is left as it is.
        on_gradient: called with a layer and its gradient, not yet masked, after each backward pass.
        on_start: called before each whole step, with the optimizer that takes it.
        on_step: called after each whole step, with the layers that it has trained.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        averaged: nn.Module | None,
        *,
        keeps_state: bool,
        on_gradient: Callable[[Layer, Tensor], None],
        on_start: Callable[[torch.optim.Optimizer], None],
        on_step: Callable[[Sequence[Layer]], None],
    ) -> None:
        self.layers = layers
        self.optimizer = optimizer
        """The one that took the latest step; before the first, the one that was named."""
        self.averaged = averaged
        self.keeps_state = keeps_state
        self.on_gradient = on_gradient
        self.on_start = on_start
        self.on_step = on_step
        self.writes = WriteDetector()
        self.places = Places(model, layers)
        self._handles: list[RemovableHandle] = []
        self._held: tuple[list[list[nn.Parameter]], list[Layer]] = [], []

    def start(self) -> None:
        """Mask all layers now, and keep them masked."""
        for layer in self.layers:
            self.mask_anew(layer)
            self._handles.append(self.follow(layer))
        steps.listen(self)

    def follow(self, layer: Layer) -> RemovableHandle:
        """See the gradients of a layer's parameter, for as long as that is there."""
        hook = partial(self._after_backward, layer)
        return layer.parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call, no-any-return]

    def parameters_changed(self, layers: Sequence[Layer]) -> None:
        """Take the layers' parameters as they are now for theirs, and follow some of them."""
        self.places.look()
        for layer in self.layers:
            self.writes.note_weight(layer)
        for layer in layers:
            self.follow(layer)

    def stop(self) -> None:
        """Leave the layers to themselves."""
        steps.stop_listening(self)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def mask_anew(self, layer: Layer) -> None:
        """Mask what belongs to a layer that has another mask than before."""
        self.writes.note_mask(layer)
        if layer.density < 1 and layer.values is None:
            self.mask(layer)

    def mask(self, layer: Layer) -> None:
        """Set to zero what belongs to inactive connections of a layer."""
        apply_mask_(layer.weight, layer.mask)
        for tensor in self._companions(layer):
            apply_mask_(tensor, layer.mask)
        self.writes.note_weight(layer)

    @torch.no_grad()
    def before_step(self, optimizer: torch.optim.Optimizer, whole: bool) -> None:
        self.places.check()
        held = self._held_by(optimizer)
        if whole and held:
            self.on_start(optimizer)
        for layer in held:
            if layer.density == 1 or layer.values is not None:
                continue
            if self.writes.weight_was_written(layer):
                self.mask(layer)
            gradient = layer.weight.grad
            if gradient is not None and (
                _is_away(layer) or self.writes.gradient_was_written(layer)
            ):
                apply_mask_(gradient, layer.mask)
            self.writes.note_gradient(layer)

    @torch.no_grad()
    def after_step(self, optimizer: torch.optim.Optimizer, whole: bool) -> None:
        held = self._held_by(optimizer)
        if not held:
            return
        self.optimizer = optimizer
        trusted = is_elementwise(optimizer) and not self.keeps_state
        for layer in held:
            if layer.density < 1 and layer.values is None:
                self._cover(layer, trusted)
        if whole:
            self.on_step(held)

    def _cover(self, layer: Layer, trusted: bool) -> None:
        """Mask a layer after a step, unless its weight is known to be zero where it should be."""
        writes = self.writes
        known = trusted and not writes.gradient_is_another(layer)
        if known and _is_away(layer):
            apply_mask_(layer.weight, layer.mask)
        elif not known or writes.weight_is_uncovered(layer):
            self.mask(layer)
        writes.note_weight(layer)

    def _held_by(self, optimizer: torch.optim.Optimizer) -> list[Layer]:
        """The layers whose weights the optimizer trains."""
        groups = [group["params"] for group in optimizer.param_groups]
        same = len(groups) == len(self._held[0])
        if not (same and all(map(operator.is_, groups, self._held[0]))):
            ids = {id(weight) for group in groups for weight in group}
            self._held = groups, [layer for layer in self.layers if id(layer.parameter) in ids]
        return self._held[1]

    def _after_backward(self, layer: Layer, weight: Tensor) -> None:
        gradient = weight.grad
        if gradient is None:
            return
        self.on_gradient(layer, gradient)
        if layer.density < 1 and layer.values is None:
            if not left_masked(weight, gradient):
                apply_mask_(gradient, layer.mask)
            self.writes.note_gradient(layer)

    def _companions(self, layer: Layer) -> Iterable[Tensor]:
        """Tensors masked with a layer's weight: its averaged copy, the optimizer's state of it."""
        if self.averaged is not None:
            yield self.averaged.get_parameter(layer.name)
        if not self.keeps_state:
            yield from state_of(self.optimizer, layer.weight)


def _is_away(layer: Layer) -> bool:
    """Whether a weight is on a GPU, which would have to be waited for to see what it holds: masking
    it takes less."""
    return not layer.weight.is_cpu


def kept_weights() -> Iterator[nn.Parameter]:
    """The weights that are kept masked by now."""
    for listener in steps.listeners():
        if isinstance(listener, MaskKeeper):
            for layer in listener.layers:
                yield layer.parameter
