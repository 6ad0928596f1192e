"""Kernels put to use in a network, and taken out of use again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from dstbench.kernels import library, modules, semi_structured
from dstbench.kernels.choice import NARROW, Choice
from dstbench.kernels.connections import Connections


class KernelUse:
    """The modules of a network whose forward passes go over active connections where that pays."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.layers: dict[str, Connections] = {}
        """The connections of each weight that kernels take, by parameter name."""
        self._replaced: list[tuple[nn.Module, type[nn.Module]]] = []

    def start(
        self,
        networks: Iterable[nn.Module],
        masks: Mapping[str, Tensor],
        dense_gradient: Callable[[], bool],
    ) -> None:
        """Let networks that have the same parameters, masked alike, use kernels.

        Args:
            masks: boolean masks by parameter name, which may change in place.
            dense_gradient: whether the step being taken needs the gradient of inactive weights.
        """
        if self.choice.mode == "masked" or not masks:
            return
        for network in networks:
            names = {id(weight): name for name, weight in network.named_parameters()}
            for module in network.modules():
                weights = _masked_weights(module, names, masks)
                kind = self._replacement(module)
                if not (weights and kind):
                    continue
                made = {
                    name: _connections(name, module, masks[name], self.choice, dense_gradient)
                    for name in weights
                }
                if all(self._agree(name, each) for name, each in made.items()):
                    for name, weight in weights.items():
                        modules.known[weight] = self.layers.setdefault(name, made[name])
                    self._replace(module, kind)
            self._replace_blocks(network)

    def _replace_blocks(self, network: nn.Module) -> None:
        """Let blocks of diffusers compute what is around their sparse layers with them."""
        sparse = self.modules
        for module in network.modules():
            kind = type(module).__module__, type(module).__name__
            if kind == ("diffusers.models.resnet", "ResnetBlock2D"):
                from dstbench.kernels.residual import SparseResnetBlock2D  # diffusers is slow

                if sparse & {module.conv1, module.conv2}:
                    self._replace(module, SparseResnetBlock2D)
            elif kind == ("diffusers.models.attention_processor", "Attention"):
                from dstbench.kernels.attention import SparseAttention

                if module.to_q in sparse:
                    self._replace(module, SparseAttention)

    def _replace(self, module: nn.Module, kind: type[nn.Module]) -> None:
        self._replaced.append((module, type(module)))
        module.__class__ = kind

    @property
    def modules(self) -> set[nn.Module]:
        """The modules that use kernels."""
        return {module for module, _ in self._replaced}

    def _replacement(self, module: nn.Module) -> type[nn.Module] | None:
        """The class that takes a module's place, if kernels take modules like this one."""
        weights = [w for n, w in module.named_parameters(recurse=False) if n.startswith("weight")]
        if all(map(modules.stored_plainly, weights)):
            return modules.replacement(module)
        # No threshold says yet when these pay: they are used where they are asked for.
        wanted = self.choice.mode == "sparse" and semi_structured.takes_layer(module)
        return semi_structured.SemiStructuredLinear if wanted else None

    def _agree(self, name: str, made: Connections) -> bool:
        """Whether a weight that another module uses, too, is used in the same way."""
        return name not in self.layers or self.layers[name].geometry == made.geometry

    def choose(self, choice: Choice) -> None:
        """Go on by the thresholds of another choice, that of an earlier process for example."""
        self.choice = choice
        for layer in self.layers.values():
            layer.choice = choice

    def stop(self) -> None:
        """Let all modules compute as before."""
        for module, before in self._replaced:
            for weight in module.parameters(recurse=False):
                modules.known.pop(weight, None)
            module.__class__ = before
        self._replaced.clear()
        self.layers.clear()

    def describe(self) -> str:
        """Which kernels the latest forward pass went through, in a few words."""
        sparse = sum(each.in_use for each in self.layers.values())
        if sparse:
            return f"sparse in {sparse} of {len(self.layers)} layers that they take"
        missing = any(each.is_missing_kernels for each in self.layers.values())
        return "masked dense" + (f" ({library.why_not()})" if missing else "")

    @property
    def bytes(self) -> int:
        """Memory that the indices of active connections take."""
        return sum(each.bytes for each in self.layers.values())


def use_kernels(
    networks: Iterable[nn.Module],
    masks: Mapping[str, Tensor],
    choice: Choice,
    dense_gradient: Callable[[], bool] = lambda: False,
) -> KernelUse:
    """Kernels in use in networks until :meth:`KernelUse.stop`; see :meth:`KernelUse.start`."""
    use = KernelUse(choice)
    use.start(networks, masks, dense_gradient)
    return use


def left_masked(weight: Tensor, gradient: Tensor) -> bool:
    """Whether kernels made this gradient of a weight, which then is zero at inactive weights."""
    connections = modules.known.get(weight)
    return connections is not None and connections.made(gradient)


def _masked_weights(
    module: nn.Module, names: Mapping[int, str], masks: Mapping[str, Tensor]
) -> dict[str, nn.Parameter]:
    """The masked weights of a module by parameter name; none where one is not masked."""
    own = {
        names[id(weight)]: weight
        for name, weight in module.named_parameters(recurse=False)
        if name.startswith("weight") and id(weight) in names
    }
    masked = all(name in masks and masks[name].is_contiguous() for name in own)
    return own if masked else {}


def _connections(
    name: str,
    module: nn.Module,
    mask: Tensor,
    choice: Choice,
    dense_gradient: Callable[[], bool],
) -> Connections:
    if isinstance(module, nn.Conv2d):
        rows, columns = (int(size) for size in module.padding)
        narrow = min(module.in_channels, module.out_channels) < NARROW
        wide = "pointwise" if module.kernel_size == (1, 1) else "conv"
        return Connections(
            "narrow" if narrow else wide, mask, choice, dense_gradient,
            stride=module.stride[0], padding=(rows, columns),
        )  # fmt: skip
    if isinstance(module, nn.GRU):
        recurrent = "weight_hh" in name
        return Connections("gru", mask, choice, dense_gradient, gates=3, recurrent=recurrent)
    return Connections("linear", mask, choice, dense_gradient)
