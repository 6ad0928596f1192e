"""The base of all sparsifiers: masks that are chosen once, and kept while a network is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dstbench.errors import SparsityError
from dstbench.settings import PluginSettings
from dstbench.sparsity.attachment import check_attachable
from dstbench.sparsity.distribution import Distribution, active_counts
from dstbench.sparsity.layers import Layer, apply_mask_, matching, sparsifiable_weights
from dstbench.sparsity.optimizers import mixes_elements, state_of
from dstbench.sparsity.selection import largest, random_scores


class Sparsifier:
    """Keeps a network at a sparsity, from the first step to the last, with a fixed random mask.

    Attached to a network and its optimizer it needs no further call: gradients are masked as
    autograd accumulates them, so that clipping, the optimizer's moments and its weight decay see
    zeros at inactive weights. Two sparsifiers with the same seed, sparsity and layer distribution
    start from the same mask.

    A subclass may choose other masks: how many weights of each layer are active
    (:meth:`layer_counts`), by which scores (:meth:`first_scores`, which may use the gradient of the
    first batch: :attr:`needs_initial_gradient`), and under which structure (:meth:`select_mask`).
    """

    name: ClassVar[str]

    needs_initial_gradient: ClassVar[bool] = False
    """Whether the first mask is chosen by the gradient of the training loss at the initial weights:
    each layer's ``dense_gradient`` is there while it is."""

    exact_sparsity: ClassVar[bool] = True
    """Whether exactly round((1 − S) · N) weights are active. ``False``: the shapes of the network's
    weights decide how near to it they come."""

    class Settings(PluginSettings):
        distribution: Distribution = Field(
            "erk", description="how the sparsity is spread over layers"
        )
        keep_dense: tuple[str, ...] = Field(
            (), description="shell patterns of parameter names that are left dense; such weights "
            "do not count as sparsifiable"
        )  # fmt: skip

    trial_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings with which a trial takes seconds: what ``dstbench check`` uses."""

    def __init__(self, sparsity: float, *, total_steps: int, seed: int = 0, **settings: Any):
        """
        Args:
            sparsity: fraction of the sparsifiable weights that are zero, in [0, 1).
            total_steps: optimizer steps of the whole training, on which schedules depend.
            seed: seed of the first mask and of random growth.
            settings: values of the class's ``Settings``.

        Raises:
            SparsityError: for a sparsity out of range or settings that are not the class's. A
                method that is not possible at every sparsity raises it here too: a benchmark that
                asks for such a cell is refused before anything is trained.
        """
        if not 0 <= sparsity < 1:
            raise SparsityError(f"sparsity must be at least 0 and below 1, not {sparsity}")
        try:
            self.settings: Any = self.Settings(**settings)
        except ValidationError as error:
            raise SparsityError(f"{type(self).__name__}: {error}") from None
        self.sparsity = sparsity
        self.total_steps = total_steps
        self.seed = seed
        self.step = 0
        """Optimizer steps taken since the training began."""
        self.topology_updates = 0
        """Topology updates made since the training began."""
        self.skipped_updates = 0
        """Topology updates left out because a gradient was not finite."""
        self.on_topology_update: Callable[[int, int], object] | None = None
        """Function that is called after each topology update, with the optimizer step that the
        update follows and the number of connections that it replaced by others."""
        self.layers: list[Layer] = []
        self._optimizer: torch.optim.Optimizer
        self._averaged: nn.Module | None = None
        self._rng: torch.Generator
        self._handles: list[RemovableHandle] = []

    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        weights: Mapping[str, nn.Parameter] | None = None,
        averaged: nn.Module | None = None,
        backward: Callable[[], None] | None = None,
    ) -> Self:
        """Mask ``model`` and keep it masked while ``optimizer`` trains it.

        Args:
            weights: what may be masked, by parameter name; by default what
                :func:`sparsifiable_weights` finds.
            averaged: a copy of the model with averaged weights (EMA), kept under the same masks.
            backward: accumulates the gradients of one training batch, as the training loop does
                before the optimizer's step. It is called once, before anything is masked, and only
                where the method needs it (:attr:`needs_initial_gradient`, at S > 0); the model's
                gradients are cleared then.

        Raises:
            SparsityError: if a weight is frozen, not the optimizer's, given twice, missing in
                ``averaged`` or stored in a way that cannot be masked in place, if there is
                nothing to mask, or if the method needs ``backward`` and it is not given.
        """
        if self._handles or self.layers:
            raise SparsityError("this sparsifier is attached already; make another one")
        if not (self.needs_initial_gradient and self.sparsity):
            backward = None
        elif backward is None:
            raise SparsityError(
                f"{type(self).__name__} chooses its first mask by the gradient of a training "
                "batch: give attach(backward=...), which accumulates it"
            )
        if weights is None:
            weights = sparsifiable_weights(model, self.settings.keep_dense)
        else:
            left_dense = matching(weights, self.settings.keep_dense)
            weights = {name: w for name, w in weights.items() if name not in left_dense}
        check_attachable(weights, optimizer, averaged)
        self._optimizer = optimizer
        self._averaged = averaged
        self._rng = torch.Generator(next(iter(weights.values())).device).manual_seed(self.seed)
        self.layers = [
            Layer(name, weight, _full_mask(weight), weight.numel())
            for name, weight in weights.items()
        ]
        if backward is not None:
            self._take_initial_gradient(model, backward)
        self._choose_first_masks()
        self._apply_masks()
        for layer in self.layers:
            hook = partial(self._after_backward, layer)
            handle = layer.weight.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
            self._handles.append(handle)
        self._handles.append(optimizer.register_step_post_hook(self._after_optimizer_step))
        return self

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Number of active weights of each layer, by parameter name as are the ``shapes``.

        Counts that follow from more than shapes are known while the sparsifier is being attached:
        :attr:`layers` are there then, still dense, with what :attr:`needs_initial_gradient` gives.

        Raises:
            SparsityError: for a shape that the layer distribution is not defined for, and before
                the sparsifier is attached where the counts do not follow from shapes.
        """
        return active_counts(shapes, self.sparsity, self.settings.distribution)

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        """Scores in the shape of ``layer.weight``; connections with the highest are the first mask.

        All randomness comes from ``rng``, which is on the weight's device.
        """
        return random_scores(layer, rng)

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        """The mask of a layer: what is ``kept`` (bool; nothing, of a first mask), and the further
        connections of highest ``scores`` that bring it to ``layer.active``.

        Ties go to the lower index. A method whose masks have a structure imposes it here.
        """
        missing = layer.active - int(kept.count_nonzero())
        return largest(scores, ~kept, missing).logical_or_(kept)

    def dense_gradient_steps(self, steps: int) -> int:
        """Number of the first ``steps`` optimizer steps that compute the gradient of inactive
        weights; what :attr:`needs_initial_gradient` asks for is none of them."""
        return 0

    def detach(self) -> None:
        """Stop masking; the weights stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def sparse_layers(self) -> list[Layer]:
        """The layers that have inactive weights."""
        return [layer for layer in self.layers if layer.density < 1]

    @property
    def densities(self) -> dict[str, float]:
        """Fraction of active weights by parameter name."""
        return {layer.name: layer.density for layer in self.layers}

    @property
    def active(self) -> int:
        """Number of active sparsifiable weights."""
        return sum(layer.active for layer in self.layers)

    @property
    def sparsifiable(self) -> int:
        """Number of sparsifiable weights, active or not."""
        return sum(layer.mask.numel() for layer in self.layers)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the network's and the optimizer's states."""
        return {
            "step": self.step,
            "rng": self._rng.get_state(),
            "masks": {layer.name: layer.mask for layer in self.sparse_layers},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`.

        Attach first, then load the states of network, optimizer and sparsifier, in any order:
        attaching masks the network anew, which would clear weights that were grown in training.

        Raises:
            SparsityError: if the state is not that of this network at this sparsity, or of another
                kind of sparsifier.
        """
        if missing := self.state_dict().keys() - state.keys():
            raise SparsityError(f"the saved state has no {', '.join(sorted(missing))}")
        masks: Mapping[str, Tensor] = state["masks"]
        shapes = {layer.name: layer.mask.shape for layer in self.layers}
        of_this_network = all(shapes.get(name) == mask.shape for name, mask in masks.items())
        # Counts that follow from a gradient may differ on another machine, but not their sum.
        counts = {layer.name: layer.mask.numel() for layer in self.layers}
        counts |= {name: int(mask.count_nonzero()) for name, mask in masks.items()}
        if not of_this_network or sum(counts.values()) != self.active:
            raise SparsityError("the saved masks are not of this network at this sparsity")
        self.step = state["step"]
        self._rng.set_state(state["rng"].cpu())
        for layer in self.layers:
            layer.active = counts[layer.name]
            layer.mask.copy_(masks.get(layer.name, _full_mask(layer.weight)))
        self._apply_masks()

    def _take_initial_gradient(self, model: nn.Module, backward: Callable[[], None]) -> None:
        model.zero_grad()
        backward()
        for layer in self.layers:
            gradient = layer.weight.grad
            layer.dense_gradient = torch.zeros_like(layer.weight) if gradient is None else gradient
        model.zero_grad()

    @torch.no_grad()
    def _choose_first_masks(self) -> None:
        counts = self.layer_counts({each.name: tuple(each.weight.shape) for each in self.layers})
        for layer in self.layers:
            layer.active = counts[layer.name]
        for layer in self.sparse_layers:
            scores = self.first_scores(layer, self._rng)
            layer.mask.copy_(self.select_mask(layer, torch.zeros_like(layer.mask), scores))
        for layer in self.layers:
            del layer.dense_gradient

    def _after_backward(self, layer: Layer, weight: Tensor) -> None:
        if layer.density < 1 and weight.grad is not None:
            self._gradient_accumulated(layer, weight.grad)

    def _gradient_accumulated(self, layer: Layer, gradient: Tensor) -> None:
        apply_mask_(gradient, layer.mask)

    @torch.no_grad()
    def _after_optimizer_step(self, *_: Any) -> None:
        self.step += 1
        if self._optimizer_moves_inactive_weights():
            for layer in self.sparse_layers:
                apply_mask_(layer.weight, layer.mask)

    def _optimizer_moves_inactive_weights(self) -> bool:
        return mixes_elements(self._optimizer)

    @torch.no_grad()
    def _apply_masks(self) -> None:
        for layer in self.sparse_layers:
            apply_mask_(layer.weight, layer.mask)
            for tensor in self._companions(layer):
                apply_mask_(tensor, layer.mask)

    def _companions(self, layer: Layer) -> Iterable[Tensor]:
        """Tensors masked with a layer's weight: its averaged copy, the optimizer's state of it."""
        if self._averaged is not None:
            yield self._averaged.get_parameter(layer.name)
        yield from state_of(self._optimizer, layer.weight)


def _full_mask(weight: Tensor) -> Tensor:
    return torch.ones_like(weight, dtype=torch.bool, requires_grad=False)
