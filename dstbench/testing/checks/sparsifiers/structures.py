"""What is promised of a sparsifier whose masks have a structure by its settings."""

from __future__ import annotations

from unittest import SkipTest

from dstbench.errors import SparsityError
from dstbench.testing.checking import merged
from dstbench.testing.checks.sparsifiers.counts import check_counts, check_total
from dstbench.testing.checks.sparsifiers.subject import STEPS, SparsifierSubject
from dstbench.testing.trials.trajectory import record
from dstbench.testing.trials.trial import TOTAL_STEPS, Trial

NETWORKS = ("convolutions", "recurrence", "attention")
"""Those that groups fit into."""


def groups_stay_whole(subject: SparsifierSubject) -> None:
    """With structure = "channels:4", groups of output channels share one mask throughout training,
    and counts are right, or __init__ refuses the structure with a SparsityError."""
    settings = merged(subject.values, {"structure": "channels:4"})
    try:
        subject.cls(0.5, total_steps=TOTAL_STEPS, **settings)
    except SparsityError as error:
        raise SkipTest(f"refused: {error}") from None
    for network in NETWORKS:
        trial = Trial(subject.cls, network, 0.5, settings=settings)
        for snapshot in record(trial, STEPS):
            check_counts(snapshot)
            check_total(snapshot, network, subject.cls.exact_sparsity)
        trial.end()


def blocks_stay_whole(subject: SparsifierSubject) -> None:
    """With structure = "2:4", two of every four inputs are active throughout training, or the
    structure is refused with a SparsityError before the first step."""
    settings = merged(subject.values, {"structure": "2:4", "distribution": "uniform"})
    for network in NETWORKS:
        try:
            trial = Trial(subject.cls, network, 0.5, settings=settings)
        except SparsityError as error:
            raise SkipTest(f"refused: {error}") from None
        for snapshot in record(trial, STEPS):
            check_counts(snapshot)
        trial.end()
