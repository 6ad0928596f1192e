"""The engine alone needs torch, NumPy and pydantic, and nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

ALONE = """
import sys

import numpy, pydantic, torch


class Bounded(pydantic.BaseModel):  # some of what they need they import when they are first used
    number: int = pydantic.Field(ge=1)


network = torch.nn.Linear(2, 2)
network(torch.ones(1, 2)).sum().backward()
torch.optim.AdamW(network.parameters()).step()
brought = {name.partition(".")[0] for name in sys.modules}
ALLOWED = brought | sys.stdlib_module_names | {"dstbench"}

for name in ["dstbench", "pluggy", "pandas", "typer", "rich", "fvcore", "scipy", "platformdirs"]:
    assert name not in brought, f"{name} is imported before the engine"


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is not there", name=name)


sys.meta_path.insert(0, Refuse())

from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Sparsifier, random_scores


class MagRan(DynamicSparsifier):
    def growth_scores(self, layer, rng):
        return random_scores(layer, rng)


class RigL(DynamicSparsifier):
    needs_dense_gradient = True

    def growth_scores(self, layer, rng):
        return layer.dense_gradient.abs_()


for kind, settings in [
    (Sparsifier, {}),
    (MagRan, {"exploration_frequency": 2}),
    (RigL, {"exploration_frequency": 2, "grown_state": "mean"}),
]:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    sparsifier = kind(0.9, total_steps=10, **settings).attach(model, optimizer)
    for _ in range(5):
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    sparsifier.load_state_dict(sparsifier.state_dict())
    print(kind.__name__, sparsifier.active, sparsifier.sparsifiable, sparsifier.topology_updates)
try:
    Sparsifier(0.5, total_steps=1, distribution="even")
except SparsityError as error:
    print(str(error).splitlines()[0])
"""


def test_the_engine_runs_where_nothing_else_can_be_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Sparsifier 14 144 0",
        "MagRan 14 144 2",
        "RigL 14 144 2",
        "Sparsifier: 1 validation error for Settings",
    ]
