"""Updates that would never come, or do nothing: neither happens unnoticed."""

from __future__ import annotations

import warnings

from dstbench.errors import SparsityError
from dstbench.sparsity import steps
from dstbench.sparsity.layers import Layer
from dstbench.sparsity.verification import WriteDetector


class MissedSteps:
    """Tells weights that are trained by something else than an optimizer's ``step()``."""

    ENOUGH = 3
    """Number of backward passes between which weights change without a step that is heard of, after
    which it is clear that no step will be."""

    def __init__(self) -> None:
        self._missed = 0

    def clear(self) -> None:
        """A step was heard of."""
        self._missed = 0

    def look(self, layer: Layer, writes: WriteDetector) -> None:
        """Look at a layer after a backward pass.

        Raises:
            SparsityError: if its weight keeps changing without a step.
        """
        by_step = steps.under_way() > 0  # LBFGS looks at several points within one
        self._missed += not by_step and writes.weight_was_written(layer)
        writes.note_weight(layer)
        if self._missed >= self.ENOUGH:
            raise SparsityError(
                f"{layer.name} has changed {self._missed} times without a step() of a torch "
                "optimizer that holds all masked weights, so that no topology update would ever "
                "come; attach the sparsifier to the optimizer whose step() the training loop calls "
                "(of a wrapper, its .optimizer or .base_optimizer)"
            )


class EmptyUpdates:
    """Tells topology updates for which no layer has what they need."""

    def __init__(self) -> None:
        self._in_succession = 0

    def clear(self) -> None:
        """An update was made."""
        self._in_succession = 0

    def tell(self, step: int) -> None:
        """Warn of the update after ``step``.

        Raises:
            SparsityError: if it is the second in succession.
        """
        self._in_succession += 1
        if self._in_succession == 2:
            raise SparsityError(
                f"no layer had what the topology updates until step {step} need, twice in "
                "succession: there was no new gradient at the steps that they follow (step() "
                "called twice after one backward pass?), or all masked weights are frozen"
            )
        warnings.warn(
            f"the topology update after step {step} is left out: no layer has what it needs",
            stacklevel=2,
        )
