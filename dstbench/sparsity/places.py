"""Where in a network its masked weights are, so that one that is replaced there is noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dstbench.errors import SparsityError
from dstbench.sparsity.layers import Layer


class Places:
    """The places of masked weights in a network: which modules hold them, and those modules."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self._model = model
        self._layers = layers
        self.look()

    def look(self) -> None:
        """Take the places of the layers as they are now for theirs."""
        self._masked = {id(layer.parameter): layer.name for layer in self._layers}
        self._held = self._search()
        self._names = self._masked_there(self._held)

    def check(self) -> None:
        """Make sure that the network still has the weights that are masked.

        Raises:
            SparsityError: naming a weight that was there, and is no longer.
        """
        if all(held.get(key) is what for held, key, what in self._held):
            return
        now = self._search()  # a parametrization moves a weight, which is still trained
        for name in self._names - self._masked_there(now):
            raise SparsityError(
                f"{name}, which is masked, is no longer in the network, which trains something "
                "else in its place, without a mask: whatever replaces parameters (a conversion, "
                "load_state_dict(assign=True)) comes first, then the optimizer, then attach(); "
                "weights that fully_shard shards cannot be masked"
            )
        self._held = now

    def _search(self) -> list[tuple[Mapping[str, Any], str, Any]]:
        """What holds a module or a masked weight, by which key, and the module or weight."""
        return [
            (held, key, what)
            for module in self._model.modules()
            for held in (module._modules, module._parameters)
            for key, what in held.items()
            if isinstance(what, nn.Module) or id(what) in self._masked
        ]

    def _masked_there(self, held: Sequence[tuple[Mapping[str, Any], str, Any]]) -> set[str]:
        return {self._masked[id(what)] for *_, what in held if id(what) in self._masked}
