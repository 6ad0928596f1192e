"""The masks with which a training begins: how many connections each layer has, and which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dstbench.sparsity.active import ActiveLayers
from dstbench.sparsity.choosing import set_first_masks, take_initial_gradients
from dstbench.sparsity.distribution import active_counts
from dstbench.sparsity.layers import Layer, layers_of, matching
from dstbench.sparsity.replicas import Replicas
from dstbench.sparsity.scores import random_scores
from dstbench.sparsity.structure import Structure, whole_counts


class FirstMasks(ActiveLayers):
    """Chooses the first masks of a network's layers, at random unless a subclass says by what."""

    needs_initial_gradient: ClassVar[bool] = False
    """Whether the first mask is chosen by the gradient of the training loss at the initial weights:
    each layer's ``dense_gradient`` is there while it is."""

    initial_passes: ClassVar[int] = 1
    """Number of gradients of the first batch that are computed for it, of which each costs as much
    as a step of a dense training; more than one, where :meth:`see_first_batch` asks for more."""

    exact_sparsity: ClassVar[bool] = True
    """Whether exactly round((1 − S) · N) weights are active, or what whole groups of channels come
    nearest to. ``False``: the shapes of the network's weights decide how near they come."""

    settings: Any
    structure: Structure
    sparsity: float
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self.count_history: list[tuple[int, dict[str, int]]] = []
        """Number of active weights of each layer, by parameter name, and the optimizer step from
        which on they were active: one entry, but where the density changes in training."""
        self._rng: torch.Generator
        self._replicas: Replicas

    def masked_names(self, names: Iterable[str]) -> list[str]:
        """Those of the names of weights that might be masked which are, by the settings."""
        names = list(names)
        left_dense = matching(names, self.settings.keep_dense)
        masked = [name for name in names if name not in left_dense]
        return masked[self.settings.keep_first_dense :]

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Number of active weights of each layer, by parameter name as are the ``shapes``.

        Counts that follow from more than shapes are known while the sparsifier is being attached:
        :attr:`layers` are there then, still dense, with what :attr:`needs_initial_gradient` gives.

        Raises:
            SparsityError: for a shape that the layer distribution is not defined for, and before
                the sparsifier is attached where the counts do not follow from shapes.
        """
        return active_counts(shapes, self.sparsity, self.settings.distribution)

    def count_phases(
        self, shapes: Mapping[str, Sequence[int]]
    ) -> Iterator[tuple[int, dict[str, int]]]:
        """What :attr:`count_history` will be for weights of these shapes, as far as it follows
        from them.

        Raises:
            SparsityError: as :meth:`layer_counts`.
        """
        yield 0, whole_counts(self.structure, self.layer_counts(shapes), shapes)

    def see_first_batch(self, again: Callable[[], None]) -> None:
        """Look at the first batch, where :attr:`needs_initial_gradient` asks for it: by default its
        gradient, which each layer has in ``dense_gradient`` by now, is all that is needed.

        ``again()`` gives layers the gradient of the same batch at their weights as they are then:
        for methods that need others than the initial ones, which have to be back at the end. It is
        called :attr:`initial_passes` − 1 times.
        """

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        """Scores in the shape of ``layer.weight``; connections with the highest are the first mask.

        All randomness comes from ``rng``, which is on the weight's device.
        """
        return random_scores(layer, rng)

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        """The mask of a layer: what is ``kept`` (bool; nothing, of a first mask), and the further
        connections of highest ``scores`` that bring it to ``layer.active``.

        Ties go to the lower index. A method whose masks have a structure of its own imposes it
        here. Where groups of output channels share one mask (:attr:`Settings.structure`), a
        connection is such a group: ``layer`` has one row for each group, and so has its ``mask``;
        ``active`` counts groups, ``scores`` are sums over members, ``weight`` and
        ``dense_gradient`` sums of magnitudes. The mask has the shape of ``kept``.
        """
        return layer.structure.fill(kept, scores, layer.active)

    def _choose_first_masks(
        self,
        model: nn.Module,
        weights: Mapping[str, nn.Parameter],
        backward: Callable[[], None] | None,
    ) -> None:
        identity = type(self).__qualname__, self.sparsity, self.seed, repr(self.settings)
        self._replicas = Replicas(identity, weights)
        self._rng = torch.Generator(next(iter(weights.values())).device).manual_seed(self.seed)
        self.layers = layers_of(model, weights, self.structure)
        try:
            if self.needs_initial_gradient and self.sparsity > 0:
                take = partial(
                    take_initial_gradients,
                    type(self).__name__,
                    self.layers,
                    model,
                    backward,
                    self._replicas,
                )
                take()
                self.see_first_batch(take)
            with torch.no_grad():
                _, counts = next(iter(self.count_phases(self.shapes)))
                set_first_masks(self.layers, counts, self.first_scores, self.select_mask, self._rng)
        except BaseException:
            self.layers = []
            raise
        self.count_history = [(0, counts)]
