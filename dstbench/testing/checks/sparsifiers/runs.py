"""What is promised of a sparsifier's runs: which of them are the same, bit for bit."""

from __future__ import annotations

from dstbench.testing.checks.sparsifiers.subject import STEPS, SparsifierSubject, broken
from dstbench.testing.trials.processes import require_importable
from dstbench.testing.trials.resuming import Stopped, resumed
from dstbench.testing.trials.trial import Trial, first_difference

STOP_EARLY = 7
"""The step after which a run is saved, between two topology updates."""


def training_is_deterministic(subject: SparsifierSubject) -> None:
    """Weights and masks follow from the seed alone: not from the global generators of torch, NumPy
    and Python, nor from anything else."""
    for trajectory, trial in subject.again(seed=1):
        if first_difference(trajectory.end, trial.state()):
            break
    else:
        return
    for trajectory, trial in subject.again():
        if difference := first_difference(trajectory.end, trial.state()):
            raise broken(trial, f"two runs with the same seed differ: {difference}")
    for trajectory, trial in subject.again(seed=1):
        if difference := first_difference(trajectory.end, trial.state()):
            raise broken(
                trial,
                "two runs with the same seed differ where the global generators are seeded "
                f"differently: {difference}. Draw from the rng that is given, or from a "
                "torch.Generator seeded with self.seed",
            )


def training_survives_a_new_process(subject: SparsifierSubject) -> None:
    """Saved after some steps and loaded in a new process, training goes on to the same weights,
    masks, moments and averages, bit for bit."""
    require_importable(subject.cls)
    uninterrupted, stopped = [], []
    for trial in subject.trials():
        trial.train(STOP_EARLY)
        stopped.append(Stopped.now(trial))
        trial.train(STEPS)
        uninterrupted.append((trial, trial.state()))
    ends = resumed(stopped, more_steps=STEPS)
    for (trial, state), end in zip(uninterrupted, ends, strict=True):
        if difference := first_difference(state, end):
            raise broken(
                trial,
                f"uninterrupted and saved after step {STOP_EARLY}, the runs differ: {difference}. "
                "Is all that a step depends on in state_dict?",
            )


def zero_sparsity_is_dense(subject: SparsifierSubject) -> None:
    """At S = 0, training goes on exactly as without a sparsifier, bit for bit."""
    for trial in subject.trials(sparsities=[0.0]):
        dense = Trial(None, trial.name)
        for _ in trial.steps(STEPS):
            with_sparsifier = {k: v for k, v in trial.state().items() if not k.startswith("mask ")}
            if difference := first_difference(dense.state(), with_sparsifier):
                raise broken(trial, f"without and with the sparsifier, {difference}")
            dense.take_step()
