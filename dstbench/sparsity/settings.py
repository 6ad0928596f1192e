"""The settings that all sparsifiers have, and those of all dynamic ones."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dstbench.settings import PluginSettings, unless
from dstbench.sparsity.distribution import Distribution
from dstbench.sparsity.schedules import Schedule
from dstbench.sparsity.structure import UNSTRUCTURED, parse_structure


class SparsifierSettings(PluginSettings):
    """Where a network is sparse."""

    distribution: Distribution = Field("erk", description="how the sparsity is spread over layers")
    keep_dense: tuple[str, ...] = Field(
        (), description="shell patterns of parameter names that are left dense; such weights "
        "do not count as sparsifiable"
    )  # fmt: skip
    keep_first_dense: bool = Field(
        False,
        description="whether the first of the weights that may be masked is left dense, as in "
        "the published RigL with distribution 'uniform'; it does not count as sparsifiable",
    )
    structure: str = Field(
        str(UNSTRUCTURED),
        exclude_if=unless(str(UNSTRUCTURED)),
        description="which connections are active together: unstructured (each by itself), "
        "channels:G (G neighbouring output channels share one mask), N:M (N of every M "
        "neighbouring inputs are active, which S has to be: 2:4 at S = 0.5, distribution uniform)",
    )

    @field_validator("structure")
    @classmethod
    def _known(cls, structure: str) -> str:
        return str(parse_structure(structure))


class DynamicSparsifierSettings(SparsifierSettings):
    """When connections are replaced, how many, and what grown ones begin with."""

    prune_rate: float = Field(
        0.5, ge=0, le=1, description="fraction of a layer's active weights that an update drops"
    )
    prune_schedule: Schedule = Field(
        "cosine", description="how the prune rate falls until exploration stops"
    )
    exploration_frequency: int = Field(
        100, ge=1, description="optimizer steps between two topology updates"
    )
    stop_fraction: float = Field(
        0.75, ge=0, le=1, description="fraction of the training after which exploration stops"
    )
    grown_state: Literal["zero", "mean", "keep"] = Field(
        "zero",
        description="optimizer state of grown weights: zero (Adam's first updates of them are "
        "then up to 3.2 times the learning rate, because its step count is large already), "
        "mean (zero, but the second moment is the layer's mean: small first updates), "
        "keep (whatever was left there when the connection was dropped)",
    )
    update_replaces_step: bool = Field(
        False,
        description="whether a topology update takes the place of the optimizer's step, as in "
        "the published RigL, instead of following it",
    )
