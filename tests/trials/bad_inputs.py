"""Benchmark files and command lines that are wrong: exit code 2, and a line that says what is."""

import random
import time
from collections.abc import Iterator
from typing import NamedTuple

from trial import Outcome, drawn
from world import BENCHMARK, Done, World, remove

Command = tuple[str, ...]
RUN: Command = ("run", "toys.toml")
LONGEST = 1000
"""Characters of a message at most."""


class Case(NamedTuple):
    """A command that is wrong, or a benchmark file that is."""

    command: Command
    text: str
    """The benchmark file."""
    names: str
    """What the message has to name: the key, the option, the line or the file."""


def of_keys() -> Iterator[Case]:
    """Each key of the file with a value of another type, one out of bounds, and misspelt."""
    section = ""
    for line in BENCHMARK.splitlines():
        if line.startswith("["):
            section = line
        elif section:
            key = line.partition(" = ")[0]
            other = '"many"' if "[" not in line and '"' not in line else "7.5"
            for new in (f"{key} = {{}}", f"{key} = {other}", f"{key} = -1", f"{key}s = 1",
                        f"{line}\n{line}", f"{key} ="):  # fmt: skip
                yield Case(RUN, BENCHMARK.replace(f"{line}\n", f"{new}\n", 1), key)


def of_values() -> Iterator[Case]:
    """Values that no key of their type may have."""
    for old, new, names in (
        ("[0.5]", "[1.0]", "sparsities"),
        ("[0.5]", "[nan]", "sparsities"),
        ("[0.5]", "[-0.1]", "sparsities"),
        ("[0.5]", "[0.5, 0.5]", "sparsities"),
        ("seeds = [0]", "seeds = [0, 0]", "seeds"),
        ("seeds = [0]", "seeds = []", "seeds"),
        ("seeds = [0]", "seeds = [0.5]", "seeds"),
        ("seeds = [0]", "seeds = [99999999999999999999]", "seeds"),
        ('"leftmost"', '"rightmost"', "rightmost"),
        ('"leftmost"', '"leftmost", "leftmost"', "sparsifiers"),
        ('"toy-net"', '"toy-nut"', "toy-net"),
        ('"toy-images"', '"toy-image"', "toy-images"),
        ('model = "ldm"', 'model = "chirodiff"', "toy-images"),
        ('"toy-features"', '"toy-future"', "toy-features"),
        ("[training]", "[trainings]", "training"),
        ("[grid]", "[gird]", "grid"),
        ("[execution]", "[executions]", "execution"),
        ("[models.ldm]", "[models.lmd]", "lmd"),
        ("steps = 12", "steps = inf", "steps"),
        ("steps = 12", f"steps = {10**40}", "steps"),
        ("steps = 12", "steps = 12\nbetas = [1.5, 2.0]", "betas"),
        ("steps = 12", 'steps = 12\nprecision = "fp8"', "precision"),
        ("steps = 12", 'steps = 12\noptimizer = "adam2"', "optimizer"),
        ("steps = 12", "steps = 12\nlearning_rate = -1", "learning_rate"),
        ("steps = 12", "steps = 12\nema_decay = 2", "ema_decay"),
        ("batch_size = 6", "batch_size = 6\nmicro_batches = 7", "micro_batches"),
        ("batch_size = 6", "batch_size = 1000", "batch_size"),
        ("samples = 9", "samples = 10_000_000_000", "samples"),
        ("samples = 9", "samples = 2", "samples"),
        ("samples = 9", 'samples = 9\nmetrics = ["fad"]', "fad"),
        ("samples = 9", 'samples = 9\nreference = "test"', "reference"),
        ("kid_subsets = 2", "kid_subsets = 1_000_000_000", "kid_subsets"),
        ("measure_seconds = 0", "minutes_per_cell = 1e300", "minutes_per_cell"),
        ("measure_seconds = 0", 'executor = "cloud"', "cloud"),
        ("jobs = 1", "jobs = 0", "jobs"),
        ("norm_num_groups = 4", "norm_num_groups = 3", "norm_num_groups"),
        ("sampling_steps = 4", "sampling_steps = 3", "sampling_steps"),
        ("attention = [false, true]", "attention = [true]", "attention"),
        ('name = "toys"', 'name = "../toys"', "name"),
        ('name = "toys"', 'name = "a/b"', "name"),
        ('name = "toys"', 'name = ""', "name"),
        ('name = "toys"', f'name = "{"x" * 300}"', "name"),
        ('name = "toys"', 'name = "a\\u001b[2Jb"', "name"),
        ('name = "toys"', "", "name"),
        ("[[tasks]]", "[tasks]", "toys.toml"),
        ("[grid]", "[grid", "line 3"),
        ("[grid]", "x = " + "[" * 50_000 + "\n[grid]", "toys.toml"),
        ("[grid]", f"x = {'1' * 5000}\n[grid]", "toys.toml"),
        ("[grid]", "[grid]\n[grid]", "line 4"),
        ("[grid]", "\x00[grid]", "line 3"),
        ("[grid]", '[sparsifiers.leftmost]\nprune_rate = 2\n[grid]', "prune_rate"),
        ("[grid]", '[sparsifiers.leftmost]\ndistribution = "erko"\n[grid]', "distribution"),
        ("[grid]", "[datasets.toy-images]\ntrain = 0\n[grid]", "train"),
        ("[grid]", "[report]\nmargin = -1\n[grid]", "margin"),
        ("[grid]", "[presets.cpu.training]\nsteps = 0\n[grid]", "steps"),
    ):  # fmt: skip
        command = (*RUN, "--preset", "cpu") if "presets" in new else RUN
        yield Case(command, BENCHMARK.replace(old, new, 1), names)


def of_commands() -> Iterator[Case]:
    """Command lines that are wrong, with a benchmark file that is not."""
    for words, names in (
        ("run", "FILE"),
        ("run nowhere.toml", "nowhere.toml"),
        ("run .", "."),
        ("run /dev/zero", "/dev/zero"),
        ("run toys.toml --preset gpu", "gpu"),
        ("run toys.toml --only", "--only"),
        ("run toys.toml --only seed", "seed"),
        ("run toys.toml --only seed=x", "seed"),
        ("run toys.toml --only seed=9", "seed=9"),
        ("run toys.toml --only colour=red", "colour"),
        ("run toys.toml --only sparsifier=rightmost", "rightmost"),
        ("run toys.toml --only sparsity=2", "sparsity"),
        ("run toys.toml --skip seed=0", "seed=0"),
        ("run toys.toml --skip model", "model"),
        ("run toys.toml --jobs 0", "--jobs"),
        ("run toys.toml --jobs many", "--jobs"),
        ("run toys.toml --jobs -1", "--jobs"),
        ("run toys.toml --jobs 99999999999", "--jobs"),
        ("run toys.toml --threads 0", "--threads"),
        ("run toys.toml --threads 100000", "--threads"),
        ("run toys.toml --threads x", "--threads"),
        ("run toys.toml --device gpu", "gpu"),
        ("run toys.toml --device cuda:99", "cuda:99"),
        ("run toys.toml --executor cloud", "cloud"),
        ("run toys.toml --executor slurm --jobs 2", "--jobs"),
        ("run toys.toml --results toys.toml", "toys.toml"),
        ("run toys.toml --results /dev/null", "/dev/null"),
        ("run toys.toml --results /proc/none", "/proc/none"),
        ("run toys.toml --unknown", "--unknown"),
        ("run toys.toml another.toml", "another.toml"),
        ("plan", "FILE"),
        ("plan nowhere.toml", "nowhere.toml"),
        ("plan toys.toml --format xml", "--format"),
        ("plan toys.toml --threads 0", "--threads"),
        ("status", "FOLDER"),
        ("status nowhere", "nowhere"),
        ("status toys.toml", "toys.toml"),
        ("leaderboard", "FOLDER"),
        ("leaderboard nowhere", "nowhere"),
        ("leaderboard nowhere --format xml", "--format"),
        ("leaderboard nowhere --margin -1", "--margin"),
        ("report", "FOLDERS"),
        ("report nowhere", "nowhere"),
        ("sample", "CELL"),
        ("sample nowhere", "nowhere"),
        ("score nowhere --steps 10", "nowhere"),
        ("export nowhere there", "nowhere"),
        ("push nowhere me/mine", "nowhere"),
        ("plugins nothing", "nothing"),
        ("check nothing", "nothing"),
        ("new", "KIND"),
        ("new house mine", "house"),
        ("new sparsifier ../mine", "../mine"),
        ("new sparsifier", "NAME"),
        ("help nothing", "nothing"),
        ("machine --threads 0", "--threads"),
        ("nonsense", "nonsense"),
        ("--nonsense", "--nonsense"),
    ):
        yield Case(tuple(words.split()), BENCHMARK, names)


CASES = [*of_values(), *of_commands(), *of_keys()]


def problem_of(case: Case, done: Done) -> str:
    """What is wrong with what was said; empty: nothing."""
    if done.code != 2:
        return f"exit code {done.code}: {done.said[-300:]}"
    if done.has_traceback:
        return "a traceback"
    if case.names.lower() not in " ".join(done.said.split()).lower():
        return f"'{case.names}' is not named: {done.said[:400]}"
    if len(done.said) > LONGEST:
        return f"{len(done.said)} characters are said: {done.said[:400]}"
    if "\x1b[2J" in done.said:
        return "the terminal is told what to do"
    return ""


def bad_inputs(world: World, span: range, chance: random.Random, deadline: float) -> Outcome:
    """Each case, or as many of them as there is time for."""
    problems, tried = [], 0
    trial = world.copy("bad")
    for case in drawn(CASES, span, chance):
        if time.monotonic() > deadline:
            break
        trial.file.write_text(case.text)
        done = trial.dstbench(*case.command)
        tried += 1
        if problem := problem_of(case, done):
            changed = sorted({*case.text.splitlines()} - {*BENCHMARK.splitlines()})
            problems.append(f"{' '.join(case.command)} {str(changed)[:200]}: {problem}")
        if (trial.results / "cells").exists():
            problems.append(f"{case.command} {case.names}: something was begun")
            remove(trial.results)
    remove(trial.folder)
    return Outcome("bad inputs", tried, "benchmark files and command lines", problems)
