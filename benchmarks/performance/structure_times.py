"""What structure buys in time: steps with structured masks less those with unstructured ones.

    python benchmarks/performance/structure_times.py results/structure/cells.csv

Per model, S and structure: the difference of step times, each ÷ the dense twin's, paired over seeds
and methods, its 95 % interval, and p of a two-sided t-test, alone and Holm-corrected over all rows.
"""

import sys

import pandas as pd
from scipy import stats

from dstbench.report.statistics import holm

STRUCTURE = "sparsifier_settings.structure"


def main(path: str) -> None:
    cells = pd.read_csv(path).query("sparsity > 0").fillna({STRUCTURE: "unstructured"})
    rows = []
    for (model, sparsity), group in cells.groupby(["model", "sparsity"]):
        times = group.pivot_table("step_time_ratio", ["sparsifier", "seed"], STRUCTURE)
        for structure in times.columns.drop("unstructured"):
            paired = stats.ttest_1samp(times[structure] - times["unstructured"], 0)
            low, high = paired.confidence_interval()
            mean = (low + high) / 2
            rows.append((model, sparsity, structure, len(times), mean, low, high, paired.pvalue))
    columns = ["model", "S", "structure", "pairs", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table["p (Holm)"] = holm(list(table["p"]))
    print(table.to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main(*sys.argv[1:])
