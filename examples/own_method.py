# %% [markdown]
# # A sparse-training method of one's own, from idea to leaderboard, without a package
#
# The cells of a notebook: run them one after another in an editor that knows `# %%`, or all of
# them with `python own_method.py`. It takes a minute on a CPU; so short a training tells how it
# is done, not which method is better.

# %% The idea: SET's random growth, but rather where the inputs' weights are small
import torch
from pydantic import Field

import dstbench
from dstbench.sparsity import DynamicSparsifier, Layer


class Balancing(DynamicSparsifier):
    """Drop by magnitude; grow at random, rather at inputs that carry little weight."""

    name = "balancing"

    class Settings(DynamicSparsifier.Settings):
        strength: float = Field(1.0, ge=0, description="how much rather; 0: anywhere")

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> torch.Tensor:
        others = [dimension for dimension in range(layer.weight.ndim) if dimension != 1]
        load = layer.weight.abs().mean(others, keepdim=True)
        noise = torch.rand(layer.weight.shape, generator=rng, device=rng.device)
        return noise / (load + 1e-6) ** self.settings.strength


# %% The benchmark: ChiroDiff on digits traced to pen strokes, dense and three methods, two seeds
benchmark = {
    "name": "own-method",
    "grid": {
        "seeds": [0, 1],
        "sparsities": [0.9],
        "sparsifiers": ["dense", "static", "magran", "balancing"],
    },
    "tasks": [{"model": "chirodiff", "dataset": "digits-strokes"}],
    "models": {"chirodiff": {"layers": 1, "sampling_steps": 10}},
    "training": {"steps": 100, "batch_size": 16, "learning_rate": 5e-3, "ema_decay": 0.9},
    "evaluation": {"extractor": "lenet-digits", "samples": 128},
    "sparsifiers": {
        "magran": {"exploration_frequency": 10},
        "balancing": {"exploration_frequency": 10, "strength": [0.5, 2.0]},  # an axis of the grid
    },
}

# %% What would it cost?
plan = dstbench.plan(benchmark, only="seed=0", plugins=[Balancing])
print(plan[["sparsifier", "sparsity", "active_parameters_ratio", "training_flops_ratio"]])

# %% Run it. Whatever has its result already is not run again
results = dstbench.run(benchmark, plugins=[Balancing])
print(results)

# %% The leaderboard, and every cell
print(results.table[["method", "sparsity", "seeds", "fid_mean", "fid_std"]].to_string())
print(results.cells[["sparsifier", "seed", "fid", "training_step_seconds"]].to_string())

# %% How the topology moved, and what was drawn, in one cell
cell = results.cells.query("sparsifier == 'balancing'").index[0]
print(results.history(cell))
print("samples:", results.samples(cell).shape)
