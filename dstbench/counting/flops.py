"""FLOPs of a network under masks, and of its training.

FLOPs saved by masks are theoretical: dense hardware does not skip the zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from dstbench.counting.tracing import trace_flops
from dstbench.errors import CountingError


class Flops(NamedTuple):
    """FLOPs of one forward pass, without and with masks."""

    dense: float
    masked: float


@dataclass(frozen=True)
class FlopsByWeight:
    """FLOPs of one forward pass without masks, from which those under any masks follow."""

    by_weight: Mapping[str, float]
    """FLOPs by the name of the parameter that a product uses; ``""``: those without one."""
    parameters: frozenset[str]
    """Names of all parameters, used or not."""

    def under(self, densities: Mapping[str, float]) -> Flops:
        """FLOPs where a fraction of each weight is active.

        The FLOPs of every product with a masked weight are scaled by that weight's density; all
        others (attention's products of activations, norms) are counted in full. Elementwise
        operators count as zero.

        Args:
            densities: fraction of active weights, in [0, 1], by parameter name; others are dense.

        Raises:
            CountingError: for a density that is out of range, of no parameter, or of one that is
                used in a way that cannot be followed.
        """
        for name, density in densities.items():
            if name not in self.parameters:
                raise CountingError(f"a density is given for '{name}', which is no parameter")
            if not 0 <= density <= 1:
                raise CountingError(
                    f"the density of '{name}' must be between 0 and 1, not {density}"
                )
            if density < 1 and name not in self.by_weight:
                raise CountingError(
                    f"the masked parameter '{name}' takes part in no operator that is counted: it "
                    "is unused, or not used as it is"
                )
        return Flops(
            dense=sum(self.by_weight.values()),
            masked=sum(n * densities.get(weight, 1.0) for weight, n in self.by_weight.items()),
        )


def flops_by_weight(module: nn.Module, inputs: tuple[Any, ...]) -> FlopsByWeight:
    """FLOPs of one forward pass of ``module(*inputs)`` in evaluation mode, for any masks.

    ``inputs`` are tensors on the module's device.

    Raises:
        CountingError: for an operator that may be heavy and for which there is no rule.
    """
    parameters = frozenset(name for name, _ in module.named_parameters())
    return FlopsByWeight(trace_flops(module, inputs), parameters)


def training_flops(
    flops: Flops, examples_per_step: int, steps: int, dense_gradient_steps: int = 0
) -> float:
    """FLOPs of a training run, summed step by step.

    Per example, a step costs three times the forward pass: forward, gradient of the activations,
    gradient of the weights. At the ``dense_gradient_steps`` of the ``steps`` the last of these is
    dense (Evci et al., *Rigging the Lottery*, ICML 2020, Appendix H).

    Raises:
        CountingError: if there are more dense-gradient steps than steps.
    """
    if not 0 <= dense_gradient_steps <= steps:
        raise CountingError(f"{dense_gradient_steps} of {steps} steps cannot have dense gradients")
    sparse = 3 * flops.masked * (steps - dense_gradient_steps)
    with_dense_gradient = (2 * flops.masked + flops.dense) * dense_gradient_steps
    return examples_per_step * (sparse + with_dense_gradient)
