"""What it costs that OpenMP's threads spin while they wait, on a quiet and on a loaded machine.

Times a small and a larger convolution, and a GRU, forward and backward, each with one and with two
threads under each way of waiting, alone and beside processes that do nothing but loop. Rounds take
turns, each in a process of its own, because OpenMP reads its variables once.

    python benchmarks/performance/spinning.py --rounds 5
    python benchmarks/performance/spinning.py --rounds 8 --seconds 0.5 --beside 0    # 4 minutes
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from statistics import median

WAYS: dict[str, dict[str, str]] = {
    "OpenMP's default": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=30000": {"GOMP_SPINCOUNT": "30000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}

TIMED = """
import json, sys, time, torch
from torch import nn
torch.set_num_threads(int(sys.argv[1]))
networks = {
    "small convolution": (nn.Conv2d(32, 32, 3, padding=1), torch.randn(16, 32, 16, 16)),
    "large convolution": (nn.Conv2d(128, 128, 3, padding=1), torch.randn(16, 128, 32, 32)),
    "GRU": (nn.GRU(96, 96, batch_first=True), torch.randn(32, 48, 96)),
}
found = {}
for name, (network, inputs) in networks.items():
    def step():
        output = network(inputs)
        (output[0] if isinstance(output, tuple) else output).sum().backward()
    step()
    times = []
    begin = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < float(sys.argv[2]):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    found[name] = 1000 * sum(times) / len(times)
print(json.dumps(found))
"""

LOOPING = "while True: pass"


def milliseconds(threads: int, way: dict[str, str], seconds: float) -> dict[str, float]:
    """Mean milliseconds of a step of each network, in a process of its own."""
    known = {"OMP_NUM_THREADS", *(name for each in WAYS.values() for name in each)}
    environment = {name: text for name, text in os.environ.items() if name not in known} | way
    command = [sys.executable, "-c", TIMED, str(threads), str(seconds)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(told.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each network and round")
    parser.add_argument("--beside", type=int, nargs="*", default=[0, 1], help="looping processes")
    args = parser.parse_args()
    quiet = min(args.beside)
    settings = [(1, next(iter(WAYS))), *((2, way) for way in WAYS)]
    times: dict[tuple[str, int, str, int], list[float]] = {}
    loads = [os.getloadavg()[0]]
    for _ in range(args.rounds):
        for beside in args.beside:
            with ExitStack() as stack:
                for _ in range(beside):
                    looping = stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOPING]))
                    stack.callback(looping.kill)
                time.sleep(0.1)
                for threads, way in settings:
                    for name, took in milliseconds(threads, WAYS[way], args.seconds).items():
                        times.setdefault((name, threads, way, beside), []).append(took)
        loads.append(os.getloadavg()[0])
    heads = [f"ms, {beside} looping beside it" for beside in args.beside]
    print("|", " | ".join(["network", "threads", "waiting", *heads]), "|")
    print("|---|---:|---|" + "---:|" * len(heads))
    for name in dict.fromkeys(key[0] for key in times):
        for threads, way in settings:
            cells = [
                f"{median(found):.1f} ({min(found):.1f} to {max(found):.1f})"
                for beside in args.beside
                for found in [times[name, threads, way, beside]]
            ]
            print("|", " | ".join([name, str(threads), way, *cells]), "|")
    usual, *others = WAYS
    print(f"\nTime of two threads ÷ that with {usual}, round by round, {quiet} looping:\n")
    for way in others:
        ratios = []
        for name in dict.fromkeys(key[0] for key in times):
            pairs = zip(times[name, 2, way, quiet], times[name, 2, usual, quiet], strict=True)
            of = [one / other for one, other in pairs]
            ratios.append(f"{name} {median(of):.2f} ({min(of):.2f} to {max(of):.2f})")
        print(f"- {way}:", "; ".join(ratios))
    print(
        f"\nMedians of {args.rounds} rounds, and their range; load of the machine "
        f"{min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} cores."
    )


if __name__ == "__main__":
    main()
