"""What is promised of a sparsifier: checked by training small networks."""

from dstbench.testing.checks import settings
from dstbench.testing.checks.sparsifiers.conditions import (
    accumulation_works,
    any_length_and_seed_work,
    bf16_works,
    channels_last_works,
    nearly_all_can_be_zero,
    single_weights_work,
    sparse_kernels_work,
)
from dstbench.testing.checks.sparsifiers.counts import (
    arguments_are_validated,
    counts_are_exact,
    counts_stay,
    kept_connections_stay,
    sparsity_is_possible,
    topology_moves,
)
from dstbench.testing.checks.sparsifiers.gradients import (
    bad_gradients_move_nothing,
    dense_gradients_are_declared,
)
from dstbench.testing.checks.sparsifiers.runs import (
    training_is_deterministic,
    training_survives_a_new_process,
    zero_sparsity_is_dense,
)
from dstbench.testing.checks.sparsifiers.structures import blocks_stay_whole, groups_stay_whole
from dstbench.testing.checks.sparsifiers.subject import SparsifierSubject
from dstbench.testing.checks.sparsifiers.zeros import (
    averaged_weights_are_masked,
    gradients_are_masked,
    inactive_weights_are_zero,
    moments_are_zero,
    only_weights_are_masked,
)

__all__ = ["CHECKS", "SparsifierSubject"]

CHECKS = (
    *settings.CHECKS,
    arguments_are_validated,
    sparsity_is_possible,
    counts_are_exact,
    topology_moves,
    counts_stay,
    kept_connections_stay,
    groups_stay_whole,
    blocks_stay_whole,
    only_weights_are_masked,
    inactive_weights_are_zero,
    averaged_weights_are_masked,
    gradients_are_masked,
    moments_are_zero,
    training_is_deterministic,
    training_survives_a_new_process,
    zero_sparsity_is_dense,
    nearly_all_can_be_zero,
    single_weights_work,
    bf16_works,
    channels_last_works,
    accumulation_works,
    sparse_kernels_work,
    any_length_and_seed_work,
    dense_gradients_are_declared,
    bad_gradients_move_nothing,
)
