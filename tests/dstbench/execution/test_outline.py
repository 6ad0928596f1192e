"""What settings tell of a denoiser."""

import pytest

from dstbench.errors import PluginError
from dstbench.execution.outline import parameters
from dstbench.grid import Cell
from dstbench.plugins.registry import Plugins


def test_the_number_of_parameters_takes_no_data(plugins: Plugins) -> None:
    cell = Cell(model="ldm", dataset="digits", sparsifier="dense", sparsity=0, seed=0)
    small = cell.model_copy(
        update={
            "model_settings": {
                "block_out_channels": [32, 64],
                "attention": [False, True],
                "layers_per_block": 1,
                "norm_num_groups": 8,
                "autoencoder": {"latent_channels": 1},
            }
        }
    )
    assert parameters(small, plugins) < 1_000_000 < 100_000_000 < parameters(cell, plugins)


def test_a_dataset_that_is_to_be_loaded_first(plugins: Plugins) -> None:
    cell = Cell(model="toy-net", dataset="toy-images", sparsifier="dense", sparsity=0, seed=0)
    with pytest.raises(PluginError, match="does not tell the shape of its items"):
        parameters(cell, plugins)
