"""The settings of latent diffusion: the paper's scale, and what is refused."""

from typing import Any

import pytest
import torch
from dstbench_ldm.autoencoder import build_autoencoder
from dstbench_ldm.denoiser import build_denoiser
from dstbench_ldm.settings import AutoencoderSettings, LatentDiffusionSettings
from pydantic import ValidationError


def test_default_denoiser_is_the_papers() -> None:
    with torch.device("meta"):
        denoiser = build_denoiser(LatentDiffusionSettings())
        noise = denoiser(torch.empty(1, 3, 64, 64), torch.empty(1))
    assert sum(p.numel() for p in denoiser.parameters()) == 274_056_163
    assert noise.shape == (1, 3, 64, 64)


def test_default_first_stage_is_vq_f4() -> None:
    """The published weights hold 55.3 million parameters."""
    with torch.device("meta"):
        autoencoder = build_autoencoder(AutoencoderSettings(), channels=3)
        latents = autoencoder.encode(torch.empty(1, 3, 256, 256)).latents
    assert latents.shape == (1, 3, 64, 64)
    assert autoencoder.quantize.embedding.weight.shape == (8192, 3)
    assert round(autoencoder.num_parameters() / 1e6, 1) == 55.3


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"attention": [True]}, "attention has 1 values.*block_out_channels has 4"),
        ({"norm_num_groups": 30}, "norm_num_groups is 30.*block_out_channels, which has 224"),
        ({"attention_head_dim": 100}, "attention_head_dim is 100.*which has 448"),
        (
            {"block_out_channels": [64, 96], "attention": [True, False], "attention_head_dim": 64},
            "attention_head_dim is 64.*which has 96",  # the middle block's
        ),
        ({"block_out_channels": [], "attention": []}, "block_out_channels"),
        ({"beta_start": 0.02, "beta_end": 0.02}, "beta_start is 0.02: it must be less"),
        ({"sampling_steps": 30}, "sampling_steps is 30: it must divide diffusion_steps, 1000"),
        ({"sampling_steps": 2000}, "sampling_steps is 2000"),
        ({"autoencoder": {"norm_num_groups": 48}}, "norm_num_groups is 48.*which has 128"),
        ({"autoencoder": {"code": 5}}, "autoencoder.code"),
        ({"chanels": 3}, "chanels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        LatentDiffusionSettings.model_validate(settings)


def test_every_setting_says_what_it_means() -> None:
    for settings in AutoencoderSettings, LatentDiffusionSettings:
        for name, field in settings.model_fields.items():
            assert field.description, name
