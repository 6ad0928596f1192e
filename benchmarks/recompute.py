"""The comparisons of a leaderboard, computed again from its ``cells.csv`` with scipy alone.

    python benchmarks/recompute.py results/kanjivg/cells.csv

prints, as CSV, what stands in ``comparisons.csv`` beside it: of every score differences paired over
seeds, their 95 % intervals, p-values, the same after Holm's correction, and the marks of the
leaderboard. It shares no code with dstbench: whoever doubts a mark can read how it comes about
here.
"""

import argparse
import csv
import math
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import fmean

from scipy.stats import ttest_1samp, ttest_rel

LOWER_IS_BETTER = {
    "fid": True, "kid": True, "inception_score": False, "precision": False, "recall": False
}  # fmt: skip
"""The scores that every benchmark has; cells name further ones, and which way they are better."""
LEVEL, FEWEST_SEEDS = 0.05, 3

Key = tuple[str, float]
"""A row of a leaderboard: method and sparsity."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cells", type=Path, help="a benchmark's cells.csv")
    parser.add_argument("--against", default="dense", help="the method that rows are compared with")
    parser.add_argument("--margin", type=float, default=0.05, help="fraction of its mean score")
    given = parser.parse_args()
    tables = defaultdict(list)
    with given.cells.open(encoding="utf-8", newline="") as file:
        for cell in csv.DictReader(file):
            tables[cell["table"]].append(cell)
    writer = None
    for table, cells in tables.items():
        for score, lower in (LOWER_IS_BETTER | further_scores(cells)).items():
            for line in compare(cells, score, lower, given.against, given.margin):
                if writer is None:
                    writer = csv.DictWriter(sys.stdout, ["table", *line], lineterminator="\n")
                    writer.writeheader()
                writer.writerow({"table": table} | {key: shown(line[key]) for key in line})


def further_scores(cells: list[dict]) -> dict[str, bool]:
    """The scores that a table has beside those of every benchmark, and whether lower is better."""
    named = next(filter(None, (cell.get("further_scores") for cell in cells)), "")
    pairs = (score.rsplit(" ", 1) for score in named.split("; ") if score)
    return {name: better == "lower" for name, better in pairs}


def compare(cells: list[dict], score: str, lower: bool, against: str, margin: float) -> list[dict]:
    """The comparisons of one score in one table."""
    rows: dict[Key, dict[int, float]] = {}
    for cell in cells:
        scores = rows.setdefault((cell["method"], float(cell["sparsity"])), {})
        if cell[score] and math.isfinite(float(cell[score])):
            scores[int(cell["seed"])] = float(cell[score])

    lines = []
    for a, b, with_reference in pairs(list(rows), against):
        if seeds := sorted(rows[a].keys() & rows[b].keys()):
            ours, theirs = ([rows[row][seed] for seed in seeds] for row in (a, b))
            bound = margin * abs(fmean(theirs)) if with_reference else math.nan
            names = {
                "score": score, "method": a[0], "sparsity": a[1], "against": b[0],
                "against_sparsity": b[1], "with_reference": with_reference, "seeds": len(seeds),
            }  # fmt: skip
            lines.append(names | tested(ours, theirs, bound, lower))
    for test in ("p", "equivalence_p", "not_worse_p"):
        for line, corrected in zip(lines, holm([line[test] for line in lines]), strict=True):
            line[f"{test[:-1]}holm_p"] = corrected
    return [ordered(line, lower) for line in lines]


def pairs(rows: list[Key], against: str) -> list[tuple[Key, Key, bool]]:
    """Each row and its reference, then each two other rows at one sparsity."""
    found = [
        (row, other, True)
        for row in rows
        for other in [(against, 0.0 if against == "dense" else row[1])]
        if row[0] != against and other in rows
    ]
    known = [{a, b} for a, b, _ in found]
    return found + [
        (a, b, False) for a, b in combinations(rows, 2) if a[1] == b[1] and {a, b} not in known
    ]


def tested(ours: list[float], theirs: list[float], bound: float, lower: bool) -> dict:
    """Mean difference, its interval, and p-values: of a difference, of one within ± bound, and of
    being worse by less than it."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    low = high = p = equivalence = not_worse = math.nan
    rounding = 1e-9 * max(map(abs, ours + theirs))
    if len(differences) > 1 and max(differences) - min(differences) > rounding:
        test = ttest_rel(ours, theirs)
        p, (low, high) = test.pvalue, test.confidence_interval(1 - LEVEL)
        if not math.isnan(bound):
            above = ttest_1samp(differences, -bound, alternative="greater").pvalue
            below = ttest_1samp(differences, bound, alternative="less").pvalue
            equivalence, not_worse = max(above, below), below if lower else above
    return {
        "difference": fmean(differences), "low": low, "high": high, "margin": bound,
        "p": p, "equivalence_p": equivalence, "not_worse_p": not_worse,
    }  # fmt: skip


def holm(ps: list[float]) -> list[float]:
    """Holm's step-down correction; NaN is no test."""
    tests = sorted(p for p in ps if not math.isnan(p))
    steps = [min(1.0, (len(tests) - rank) * p) for rank, p in enumerate(tests)]
    return [math.nan if math.isnan(p) else max(steps[: tests.index(p) + 1]) for p in ps]


def ordered(line: dict, lower: bool) -> dict:
    """The line as dstbench orders it, with its mark."""
    tests = [f"{test}{p}" for test in ("", "equivalence_", "not_worse_") for p in ("p", "holm_p")]
    gain = -line["difference"] if lower else line["difference"]
    enough = line["seeds"] >= FEWEST_SEEDS
    mark = ""
    if enough and line["holm_p"] < LEVEL:
        mark += "▲" if gain > 0 else "▼"
    if enough and line["equivalence_holm_p"] < LEVEL:
        mark += "≈"
    names = [key for key in line if not key.endswith("p")]
    return {key: line[key] for key in [*names, *tests]} | {"mark": mark}


def shown(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    main()
