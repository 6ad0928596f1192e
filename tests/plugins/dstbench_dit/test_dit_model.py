"""The diffusion transformer: what it computes, diffuses and counts, in either space."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from dstbench_dit import dstbench_models
from dstbench_dit.model import DiffusionTransformer
from dstbench_dit.settings import DiffusionTransformerSettings
from dstbench_dit.transformer import Transformer
from dstbench_ldm.settings import AutoencoderSettings, LatentDiffusionSettings
from pydantic import ValidationError
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Data, Items, Pictures, Workspace
from dstbench.counting.counts import measure
from dstbench.errors import ConfigError

SMALL: dict[str, Any] = {
    "autoencoder": AutoencoderSettings(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, codes=16, steps=4,
        batch_size=4,
    ),
    "layers": 2,
    "width": 16,
    "heads": 2,
    "sampling_steps": 5,
}  # fmt: skip

KINDS = [
    (space, objective) for space in ("pixel", "latent") for objective in ("ddpm", "flow-matching")
]


def images(height: int = 16, width: int = 16) -> Data:
    rng = torch.Generator().manual_seed(0)
    content = torch.randint(256, (24, 1, height, width), generator=rng, dtype=torch.uint8)
    labels = {"train": [0, 1, 2, 3] * 4, "validation": [0, 1, 2, 3] * 2}
    return Data.of_images(list(content[:16]), list(content[16:]), labels=labels)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(torch.device("cpu"), Cache(tmp_path_factory.mktemp("cache")))


def make(workspace: Workspace, **changed: Any) -> DiffusionTransformer:
    return DiffusionTransformer(
        DiffusionTransformerSettings(**SMALL | changed), images(), workspace
    )


def built(model: DiffusionTransformer, seed: int = 0) -> nn.Module:
    """A denoiser none of whose weights are zero."""
    torch.manual_seed(seed)
    denoiser = model.build()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return denoiser


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_plugin_offers_the_model_and_does_not_import_diffusers() -> None:
    assert dstbench_models() == [DiffusionTransformer]
    code = (
        "import sys, dstbench_dit as plugin; plugin.dstbench_models(); "
        "sys.exit('diffusers' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_its_default_size_is_that_of_dit_s() -> None:
    """33 million parameters and 6.06 GFLOPs (Peebles & Xie, table 4) for latents of 4×32×32 and
    1,000 classes."""
    settings = DiffusionTransformerSettings(class_conditional=True)
    with torch.device("meta"):
        network = Transformer(settings, (4, 32, 32), classes=1000)
        inputs = torch.zeros(1, 4, 32, 32), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    assert sum(p.numel() for p in network.parameters()) == 32_858_896
    weights = {name: p for name, p in network.named_parameters() if p.ndim == 2}
    counted = measure(network, weights, inputs, 1).flops
    assert sum(counted.by_weight.values()) == pytest.approx(6.06e9, rel=0.01)
    attention = 12 * 2 * 256**2 * 384
    assert counted.by_weight[""] >= attention


def test_it_computes_what_diffusers_dit_computes() -> None:
    """With the same weights. Theirs has an embedding of times and labels for each block, and other
    frequencies in it; ours are as published."""
    theirs = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=2, out_channels=2, num_layers=1,
        sample_size=8, patch_size=2, num_embeds_ada_norm=3, norm_eps=1e-6,
    ).eval()  # fmt: skip
    theirs.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift = 0
    settings = DiffusionTransformerSettings(layers=1, width=16, heads=2, class_conditional=True)
    ours = Transformer(settings, (2, 8, 8), classes=3).eval()
    ours.load_state_dict(dict(_renamed(theirs.state_dict())))
    examples, times, labels = torch.randn(3, 2, 8, 8), torch.tensor([1, 30, 999]), torch.arange(3)
    with torch.no_grad():
        expected = theirs(examples, times, labels).sample
        torch.testing.assert_close(ours(examples, times, labels), expected, atol=1e-5, rtol=1e-4)


def _renamed(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights of diffusers' transformer of one block by our names."""
    block = "transformer_blocks.0."
    for kind in ("weight", "bias"):
        patches = state[f"pos_embed.proj.{kind}"]
        yield f"embed.{kind}", patches.flatten(1) if kind == "weight" else patches
        of_time = f"{block}norm1.emb.timestep_embedder.linear_"
        for part in ("1", "2"):
            yield f"time.linear_{part}.{kind}", state[f"{of_time}{part}.{kind}"]
        names = [f"{block}attn1.to_{part}.{kind}" for part in "qkv"]
        yield f"blocks.0.qkv.{kind}", torch.cat([state[name] for name in names])
        for our, their in (
            ("blocks.0.project", f"{block}attn1.to_out.0"),
            ("blocks.0.widen", f"{block}ff.net.0.proj"),
            ("blocks.0.narrow", f"{block}ff.net.2"),
            ("blocks.0.modulation", f"{block}norm1.linear"),
            ("modulation", "proj_out_1"),
        ):
            yield f"{our}.{kind}", state[f"{their}.{kind}"]
        last = state[f"proj_out_2.{kind}"]  # theirs has the channels last
        yield f"last.{kind}", last.unflatten(0, (2, 2, 2)).movedim(2, 0).flatten(0, 2)
    yield "label.weight", state[f"{block}norm1.emb.class_embedder.embedding_table.weight"]


def test_patches_become_the_image_again(workspace: Workspace) -> None:
    network = make(workspace, space="pixel", patch_size=4).build()
    picture = torch.randn(2, 1, 16, 16)
    patches = network._patches(picture)
    assert torch.equal(patches[0, 1].view(4, 4), picture[0, 0, :4, 4:8])
    assert torch.equal(network._whole(patches), picture)


def test_every_linear_layer_can_be_masked_and_is_counted(workspace: Workspace) -> None:
    model = make(workspace, class_conditional=True)
    denoiser = model.build()
    table = model.sparsifiable(denoiser)
    linear = {f"{n}.weight" for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)}
    assert table.keys() == linear
    network = measure(denoiser, table, model.example(), model.calls_per_sample)
    assert network.flops.by_weight.keys() >= linear
    tokens = (8 // 2) ** 2
    assert network.flops.by_weight["blocks.0.qkv.weight"] == tokens * 16 * 3 * 16


@pytest.mark.parametrize(("space", "objective"), KINDS)
def test_samples_are_images_alike_without_the_data(
    workspace: Workspace, space: str, objective: str
) -> None:
    model = make(workspace, space=space, objective=objective)
    denoiser = built(model)
    samples = model.sample(denoiser, 3, 2, seeded())
    assert (samples.shape, samples.dtype) == ((3, 1, 16, 16), torch.uint8)
    data = Data.blank((1, 16, 16), torch.uint8, Pictures())
    nowhere = replace(workspace, cache=Cache(Path("/dev/null/none")))
    other = DiffusionTransformer.for_sampling(model.settings, data, model.sampling_state(), nowhere)
    other_denoiser = other.build()
    other_denoiser.load_state_dict(denoiser.state_dict())
    assert torch.equal(other.sample(other_denoiser, 3, 2, seeded()), samples)
    found = model.reconstructions("train", torch.arange(2))
    assert found is None if space == "pixel" else found.shape == (2, 1, 16, 16)


class Oracle(nn.Module):
    """The exact prediction where all data are one point."""

    def __init__(self, model: DiffusionTransformer, point: Tensor) -> None:
        super().__init__()
        self.model, self.point = model, point

    def forward(self, examples: Tensor, times: Tensor) -> Tensor:
        if self.model.settings.objective == "flow-matching":
            return (examples - self.point) / (times / 1000).view(-1, 1, 1, 1)
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        signal = (1 - betas).cumprod(0)[times].float().view(-1, 1, 1, 1)
        return (examples - signal.sqrt() * self.point) / (1 - signal).sqrt()


@pytest.mark.parametrize(("space", "objective"), KINDS)
def test_a_perfect_denoiser_has_no_loss_and_recovers_the_point(
    workspace: Workspace, space: str, objective: str
) -> None:
    model = make(workspace, space=space, objective=objective)
    point = model.batch("train", torch.tensor([4]))
    oracle = Oracle(model, point)
    assert model.loss(oracle, point.expand(8, -1, -1, -1), seeded()).item() < 1e-4
    samples = model.sample(oracle, 3, 2, seeded())
    assert (samples.int() - model.first_stage.decode(point).int()).abs().max() <= 1


def test_pixels_are_seen_from_either_side(workspace: Workspace) -> None:
    model = make(workspace, space="pixel", horizontal_flip=True)
    pairs = model.batch("train", torch.arange(3))
    assert torch.equal(pairs[:, 0], pairs[:, 1].flip(-1))
    pixels = torch.stack(list(model.data.train[:3]))
    assert torch.equal(model.first_stage.decode(pairs[:, 0]), pixels)
    assert model.batch("validation", torch.arange(3)).shape == (3, 1, 16, 16)


def test_it_shares_the_first_stage_of_latent_diffusion(workspace: Workspace) -> None:
    from dstbench_ldm.model import LatentDiffusion

    settings = LatentDiffusionSettings(
        autoencoder=SMALL["autoencoder"], block_out_channels=(8,), attention=(False,),
        attention_head_dim=8, norm_num_groups=4, layers_per_block=1,
    )  # fmt: skip
    make(workspace)
    before = set(workspace.cache.root.iterdir())
    LatentDiffusion(settings, images(), workspace)
    assert set(workspace.cache.root.iterdir()) == before


def test_labels_and_guidance(workspace: Workspace) -> None:
    model = make(workspace, space="pixel", class_conditional=True, guidance_scale=2.0)
    denoiser = built(model)
    assert model.calls_per_sample == 10
    assert model.loss(denoiser, model.batch("train", torch.arange(4)), seeded()).isfinite()
    one, other = (model.sample(denoiser, 2, 2, seeded(), labels=[n, n]) for n in (0, 3))
    assert not torch.equal(one, other)
    assert DiffusionTransformer.outline(model.settings, Items((1, 16, 16))) is None


def test_it_starts_at_zero_as_published_or_not(workspace: Workspace) -> None:
    example = torch.randn(1, 1, 16, 16), torch.zeros(1)
    assert not make(workspace, space="pixel").build()(*example).any()
    assert make(workspace, space="pixel", zero_init=False).build()(*example).any()


@pytest.mark.parametrize(
    ("settings", "shape", "complaint"),
    [
        ({"space": "pixel", "patch_size": 3}, (1, 16, 16), "patch_size is 3.*multiples of 3"),
        ({"patch_size": 4}, (1, 16, 20), "halves them to 1/2, and patch_size is 4.*of 8"),
    ],
)
def test_images_that_do_not_fit(
    settings: dict[str, Any], shape: tuple[int, int, int], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        DiffusionTransformer.outline(DiffusionTransformerSettings(**SMALL | settings), Items(shape))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"heads": 5}, "heads is 5: it must divide width, which is 384"),
        ({"width": 6, "heads": 2}, "width is 6: it must be a multiple of 4"),
        ({"sampling_steps": 30}, "sampling_steps is 30: it must divide diffusion_steps, 1000"),
        ({"beta_start": 0.02}, "beta_start is 0.02: it must be less"),
        ({"objective": "consistency"}, "objective"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DiffusionTransformerSettings(**settings)
    DiffusionTransformerSettings(objective="flow-matching", sampling_steps=30)
