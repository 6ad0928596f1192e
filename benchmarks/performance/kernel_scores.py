"""Scores of the same cells with masked dense and with sparse kernels, next to those of other seeds.

    python benchmarks/performance/kernel_scores.py [--folder runs/kernel_scores]
                                                   [--out results/performance/kernel_scores.md]

The quickstart's networks, Static at S = 0.9, three seeds. Sums in another order change the last
bits, which training makes grow: a cell is another sample of the same method, as with another seed.
"""

import argparse
import tomllib
from pathlib import Path

import pandas as pd

import dstbench

QUICKSTART = Path(__file__).parents[1] / "quickstart.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/kernel_scores"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="markdown file to write, besides printing it")
    args = parser.parse_args()
    benchmark = tomllib.loads(QUICKSTART.read_text(encoding="utf-8"))
    benchmark["grid"] = {"seeds": [0, 1, 2], "sparsities": [0.9], "sparsifiers": ["static"]}
    benchmark.pop("sparsifiers", None)  # settings of methods that are not run here
    rows = []
    for kernels in ("masked", "sparse"):
        benchmark["training"]["kernels"] = kernels
        results = dstbench.run(benchmark, results=args.folder / kernels, jobs=args.jobs)
        for cell in results.cells.itertuples():
            rows.append((cell.model, kernels, cell.seed, cell.fid))
    cells = pd.DataFrame(rows, columns=["model", "kernels", "seed", "FID"])
    table = cells.pivot(index=["model", "kernels"], columns="seed", values="FID")
    table = table.rename(columns="seed {}".format)
    table["mean"], table["standard deviation"] = table.mean(axis=1), table.std(axis=1)
    page = PAGE.format(table=table.round(2).reset_index().to_markdown(index=False))
    print(page)
    if args.out:
        args.out.write_text(page, encoding="utf-8")


PAGE = """# Scores with masked dense and with sparse kernels

`python benchmarks/performance/kernel_scores.py`: FID (lenet-digits, 512 samples) of the
quickstart's networks under Static at S = 0.9.

{table}
"""


if __name__ == "__main__":
    main()
