"""The comparison that the scripts in this folder share: what masks cost, next to the dense step."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from dstbench_magran import MagRan
from dstbench_rigl import RigL
from dstbench_static import Static

from dstbench.sparsity import Sparsifier

Step = Callable[[], float]
"""Takes one training step and returns its seconds."""


RESAMPLINGS = 2000


def compare_methods(
    stepper: Callable[[Sparsifier | None], Step], rounds: int
) -> tuple[pd.DataFrame, float]:
    """Every method's ratios to the dense step, and that step's seconds.

    A ratio is the median over rounds, with its 95 % interval by a bootstrap over rounds. In each
    round every method's steps alternate with dense ones. ``stepper`` makes a network of its own,
    and trains it with the sparsifier it is given.
    """
    dense = stepper(None)
    sparse = {"dense again": stepper(None)}
    sparse |= {
        f"{kind.name} S={sparsity}": stepper(kind(sparsity, total_steps=10**6, **settings))
        for sparsity in (0.5, 0.9)
        for kind, settings in (
            (Static, {}),
            (RigL, {"exploration_frequency": 2}),  # the second of two steps updates
            (MagRan, {"exploration_frequency": 2}),
        )
    }
    for step in (dense, *sparse.values()):
        step(), step()

    rows = []
    for _ in range(rounds):
        for name, step in sparse.items():
            rows.append((name, dense(), step(), dense(), step()))
    times = pd.DataFrame(rows, columns=["method", "dense", "masked", "dense 2", "update"])
    base = times[["dense", "dense 2"]].mean(axis=1)
    ratios = pd.DataFrame(
        {
            "method": times["method"],
            "masked step / dense step": times["masked"] / base,
            "topology update / dense step": (times["update"] - times["masked"]) / base,
        }
    )
    return ratios.groupby("method", sort=False).agg(median_with_interval), float(base.median())


def median_with_interval(values: pd.Series) -> str:
    """The median and its 95 % bootstrap interval, such as ``1.013 [1.008, 1.019]``."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLINGS, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return f"{values.median():.3f} [{low:.3f}, {high:.3f}]"
