"""What is promised of a model: checked on a few small items."""

from dstbench.testing.checks import settings
from dstbench.testing.checks.models.counting import (
    calls_are_counted,
    example_is_typical,
    flops_are_counted,
    narrower_networks_fit,
    outline_fits_the_denoiser,
    sparsifiable_table_is_complete,
)
from dstbench.testing.checks.models.sampling import (
    divergence_is_told,
    exported_models_sample_the_same,
    samples_do_not_depend_on_batch_size,
    samples_draw_from_the_rng,
    samples_fit_the_data,
)
from dstbench.testing.checks.models.subject import ModelSubject
from dstbench.testing.checks.models.training import (
    batches_cover_an_epoch,
    building_is_deterministic,
    loss_draws_from_the_rng,
    loss_falls,
    loss_is_finite,
    metadata_can_be_recorded,
    only_the_denoiser_is_trained,
    preparing_is_deterministic,
    sparsifiable_weights_are_trained,
    the_denoiser_can_be_saved,
    training_under_masks_works,
)

__all__ = ["CHECKS", "ModelSubject"]

CHECKS = (
    *settings.CHECKS,
    preparing_is_deterministic,
    building_is_deterministic,
    batches_cover_an_epoch,
    loss_is_finite,
    loss_draws_from_the_rng,
    loss_falls,
    samples_fit_the_data,
    samples_draw_from_the_rng,
    samples_do_not_depend_on_batch_size,
    divergence_is_told,
    exported_models_sample_the_same,
    calls_are_counted,
    flops_are_counted,
    example_is_typical,
    sparsifiable_table_is_complete,
    sparsifiable_weights_are_trained,
    only_the_denoiser_is_trained,
    outline_fits_the_denoiser,
    narrower_networks_fit,
    the_denoiser_can_be_saved,
    training_under_masks_works,
    metadata_can_be_recorded,
)
