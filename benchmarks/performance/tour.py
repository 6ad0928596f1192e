"""How long a stranger's tour takes: install, run, report, export, load, own sparsifier, compare.

Installs the clone that it lies in into a new virtual environment, does what pages of the
documentation say, line by line, and runs the quickstart. Prints a row of a table for each command.

    python benchmarks/performance/tour.py FOLDER
"""

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
PAGES = (
    "get-started.md",
    "how-to/load-a-model.md",
    "how-to/write-a-sparsifier.md",
    "how-to/compare-two-runs.md",
)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    programs = folder / "venv" / "bin"
    there = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "DSTBENCH_CACHE": str(folder / "cache"),
    }
    there.pop("PYTHONPATH", None)
    print("| command | seconds by the clock | seconds of the CPU |\n| --- | --: | --: |")

    def step(command: str) -> None:
        begun, used = time.perf_counter(), cpu()
        subprocess.run(
            ["bash", "-c", command], cwd=folder, env=there, stdout=sys.stderr, check=True
        )
        seconds = f"{time.perf_counter() - begun:.0f} | {cpu() - used:.0f}"
        print(f"| `{command.replace(str(CLONE), '.')}` | {seconds} |", flush=True)

    step("python3 -m venv venv")
    step(f"pip install {CLONE}")
    for page in PAGES:
        text = (CLONE / "docs" / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        script = f"{Path(page).stem}.py"
        (folder / script).write_text("\n".join(code for kind, code in blocks if kind == "python"))
        for kind, code in blocks:
            if kind == "toml" and (named := re.match(r"# (\w+\.toml)(, at its end)?\n", code)):
                with (folder / named[1]).open("a") as file:
                    file.write(code)
            for line in code.splitlines() if kind == "sh" else ():
                if not line.startswith("pip "):
                    step(line)
        step(f"python {script}")
    step(f"dstbench run {CLONE}/benchmarks/quickstart.toml --results runs")


def cpu() -> float:
    """Seconds of the CPU that ended child processes, and theirs, have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
