"""What stands below a table: how its numbers came about, and what to bear in mind."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from textwrap import shorten

from dstbench.cell import SMALL_DENSE
from dstbench.metrics import caveats, in_words
from dstbench.records import Record
from dstbench.report.floors import floor_notes, noise_notes
from dstbench.report.leaderboard import Table, machines
from dstbench.report.published import published
from dstbench.report.rows import FID
from dstbench.report.verdicts import marks, recommendation

ROUNDING = 0.001
"""Difference of two sparsities below which the numbers of connections are but rounded."""


def told_sparsities(table: Table) -> dict[str, str]:
    """Column titles, and names in the table's frame, of sparsities that are not everywhere the one
    that was asked for."""
    frame = table.frame
    return {
        title: name
        for title, name in (("final S", "final_sparsity"), ("mean S", "mean_sparsity"))
        if ((frame[name] - frame["sparsity"]).abs() > ROUNDING).any()
    }


def why_skipped(table: Table) -> str:
    """All there is to say of a table whose cells were all skipped."""
    count = len(table.records)
    reasons = dict.fromkeys(record.error or "no reason given" for record in table.records)
    cells = "1 cell" if count == 1 else f"{count} cells"
    return f"{table.heading}: {cells} skipped: {'; '.join(reasons)}"


def notes_below(table: Table) -> Iterator[str]:
    """All that is told below a table."""
    protocol = table.protocol
    if recommended := recommendation(table):
        yield recommended
    yield from published(table)
    if failures := [
        f"{row.method}, S = {row.sparsity:g}, seed {record.cell.seed}: {_reason(record)}"
        for row in table.rows
        for record in row.unfinished
    ]:
        cells = "1 cell" if len(failures) == 1 else f"{len(failures)} cells"
        yield f"{cells} did not finish, and no number above includes them: {'; '.join(failures)}."
    for caveat in caveats(protocol) if protocol else ():
        yield f"Warning: {caveat}"
    if protocol:
        yield (
            "Scores: mean ± sample standard deviation over seeds; feature extractor "
            f"{protocol.extractor} (weights {protocol.weights_hash[:12]}), {protocol.samples:,} "
            f"samples against {protocol.reference_images:,} images of {protocol.reference}, "
            f"resize: {protocol.resize}."
        )
        if details := in_words(protocol):
            yield details
        yield from floor_notes(table)
        yield from noise_notes(table)
        yield marks(table)
    if untrained := _untrained(table):
        yield untrained
    yield _meaning_of_s(table)
    yield from _small_dense(table)
    yield from _budget(table)
    yield (
        "Theoretical FLOPs: a masked weight costs nothing, one multiply-add = one FLOP; GFLOPs are "
        f"those of one denoiser call{_calls_per_sample(table)}; decoder not included."
    )
    yield from _measured(table)


def _measured(table: Table) -> Iterator[str]:
    """How times and sizes came about."""
    done = [record for record in table.records if record.status == "done"]
    if any(record.sizes for record in done):
        yield (
            "State: bytes of weights, gradients, optimizer, averaged weights, masks, and what a "
            "method remembers or a topology update holds beside, counted, at the time when they "
            "are most; model: of the kept network, of masked weights the active values and a bit "
            "per connection."
        )
    timed = [record for record in done if record.measurement]
    found = [record.measurement for record in timed if record.measurement]
    if not found:
        return
    ends = [end for each in found for end in (each.load_before, each.load_after)]
    loads = [load for load in ends if load is not None]
    load = f"; load of the machine {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    yield (
        "Step time, sample time: of the cell's own optimizer step and sampling call ÷ those of its "
        "dense twin, in turns in one process, ± the 95 % interval (of several seeds, all their "
        f"intervals), on {'; '.join(machines(timed))}, kernels: "
        f"{'; '.join(dict.fromkeys(each.kernels for each in found))}{load}."
    )
    if any("cpu" in (each.step.clock, each.sample.clock) for each in found):
        yield (
            "(CPU): of CPU time, because wall-clock time disagreed with it or was too unsteady, "
            "as on a loaded machine."
        )
    if updates := [each.update for each in found if each.update]:
        yield (
            "Topology updates are not in the step time; spread over all steps, they add up to "
            f"{max(each.per_step for each in updates):.3f} dense steps to each."
        )


def _meaning_of_s(table: Table) -> str:
    told = told_sparsities(table)
    asked = "S is the fraction of the sparsifiable weights that are zero"
    if told:
        asked = "S is the fraction of the sparsifiable weights that was to be zero"
    final = ", final S that which is zero at the end of the training" if "final S" in told else ""
    mean = ", mean S the average over its steps" if "mean S" in told else ""
    if mean and not final:
        mean = ", mean S the average over the training's steps"
    return f"{asked}{final}{mean}, whole-model S that of all parameters; (×): relative to dense."


def _small_dense(table: Table) -> Iterator[str]:
    """What the rows of narrower dense networks are, and how near their sizes come."""
    found = [
        (record.counts, row.sparsity)
        for row in table.rows
        for record in row.done
        if row.sparsifier == SMALL_DENSE and record.counts
    ]
    if not found:
        return
    ratios = [
        counts.active_parameters
        / (counts.parameters - counts.sparsifiable + round((1 - sparsity) * counts.sparsifiable))
        for counts, sparsity in found
    ]
    yield (
        f"{SMALL_DENSE}: a dense network that is narrower, in the width nearest to as many "
        f"parameters as a sparse network of that S has active ({min(ratios):.3f} to "
        f"{max(ratios):.3f} of them); its S is the fraction of the weights that it lacks."
    )


def _budget(table: Table) -> Iterator[str]:
    """What the number of steps of each row comes from."""
    training = table.records[0].cell.training
    known = {
        "flops": ("theoretical training FLOPs", "counted"),
        "time": (
            "training time",
            "measured before each training, topology updates included; only these numbers of steps "
            "make the results reproducible",
        ),
    }
    if found := known.get(str(training.get("budget"))):
        of, how = found
        yield f"Steps: as many as take the {of} of {training.get('steps')} dense steps, {how}."


def _untrained(table: Table) -> str | None:
    before = [
        record.untrained_scores.fid
        for record in table.records
        if record.untrained_scores and record.untrained_scores.fid is not None
    ]
    if not before:
        return None
    text = f"Untrained denoiser: FID {fmean(before):.2f}"
    dense = table.dense.scores(FID) if table.dense else {}
    if not (dense and fmean(before)):
        return f"{text}."
    return f"{text}; the dense cells reach {fmean(dense.values()) / fmean(before):.3f} of it."


def _calls_per_sample(table: Table) -> str:
    counts = next((record.counts for record in table.records if record.counts), None)
    if counts is None:
        return ""
    return f", of which a sample takes {counts.sample_flops / counts.inference_flops:.0f}"


def _reason(record: Record) -> str:
    """The status, and why, in a line."""
    why = shorten(record.reason, 200, placeholder="…")
    return f"{record.status}, {why}" if why else record.status
