"""Latent diffusion that is told labels: training, guidance, sampling without the data."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from dstbench_ldm.classes import Classes
from dstbench_ldm.model import LatentDiffusion
from dstbench_ldm.settings import LatentDiffusionSettings
from pydantic import ValidationError
from test_ldm_model import CPU, SETTINGS, images, seeded
from torch import Tensor, nn

from dstbench.cache import Cache
from dstbench.contracts import Data, Items, Pictures, Workspace
from dstbench.counting.counts import measure
from dstbench.errors import ConfigError

LABELS = {
    "train": ["b", 7, "a", "a"] * 5,
    "validation": ["a", 7] * 5,
}


def labelled(**changed: Any) -> Data:
    return replace(images(), labels=LABELS | changed)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def make(cache: Cache, **changed: Any) -> LatentDiffusion:
    told = {"class_conditional": True} | changed
    return LatentDiffusion(SETTINGS.model_copy(update=told), labelled(), Workspace(CPU, cache))


def built(model: LatentDiffusion) -> nn.Module:
    torch.manual_seed(0)
    return model.build()


class Watched(nn.Module):
    """A network that predicts the index of the label everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Tensor] = []

    def forward(self, latents: Tensor, steps: Tensor, labels: Tensor) -> Tensor:
        self.told.append(labels)
        return torch.zeros_like(latents) + labels.view(-1, 1, 1, 1)


def test_classes_are_the_labels_of_training() -> None:
    classes = Classes.of(labelled())
    assert (classes.names, classes.counts, classes.hidden) == ((7, "a", "b"), (5, 10, 5), 3)
    assert classes.indices(["b", 7]).tolist() == [2, 0]
    assert Classes.from_text(classes.to_text()) == classes


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ({"train": [], "validation": []}, "the dataset has no labels"),
        ({"train": [""] * 20}, "all training images have one label"),
        ({"validation": []}, "0 labels for 10 validation images"),
        ({"validation": ["c"] * 10}, "no training image has the label 'c', which validation"),
    ],
)
def test_labels_that_are_not_there(labels: Any, complaint: str, tmp_path: Any) -> None:
    """It is known before the first stage is trained."""
    settings = SETTINGS.model_copy(update={"class_conditional": True})
    with pytest.raises(ConfigError, match=complaint):
        LatentDiffusion(settings, labelled(**labels), Workspace(CPU, Cache(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_labels_are_drawn_as_often_as_they_occur() -> None:
    classes, rng = Classes.of(labelled()), seeded()
    drawn = classes.drawn(4000, rng)
    assert Counter(drawn.tolist())[1] == pytest.approx(2000, rel=0.1)
    assert torch.equal(classes.drawn(7, rng), drawn[:7])
    assert not torch.equal(classes.drawn(4000, seeded(1)), drawn)
    assert torch.equal(rng.get_state(), seeded().get_state())


@pytest.mark.parametrize(
    "text",
    ["3", "[]", '[["a", 1]]', '[["a", 0], ["b", 1]]', '[["a", 1], [null, 1]]', '["ab", "cd"]'],
)
def test_a_text_of_no_classes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="class"):
        Classes.from_text(text)


def test_without_labels_nothing_changes(cache: Cache) -> None:
    plain = make(cache, class_conditional=False)
    assert plain.labels == ()
    assert "classes" not in plain.sampling_state()
    assert isinstance(plain.batch("train", torch.arange(3)), Tensor)
    later = {"class_conditional", "label_dropout", "guidance_scale"}
    assert not plain.settings.model_dump().keys() & later
    shared = built(plain).state_dict()
    more = built(make(cache)).state_dict().keys() - shared.keys()
    assert more == {"class_embedding.weight"}


def test_some_labels_are_hidden_in_training(cache: Cache) -> None:
    model, watched = make(cache, label_dropout=0.5), Watched()
    latents, labels = model.batch("train", torch.arange(20))
    assert labels.tolist() == [2, 0, 1, 1] * 5
    for _ in range(2):
        model.loss(watched, (latents, labels), seeded())
    told, again = watched.told
    assert torch.equal(told, again)
    assert 4 < int((told == 3).sum()) < 16
    assert torch.equal(told[told != 3], labels[told != 3])


def test_guidance_goes_beyond_the_label(cache: Cache) -> None:
    model = make(cache, guidance_scale=3.0)
    examples, times = torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    predict = model._predict(Watched(), torch.tensor([0, 2]))
    guided = predict(examples, times)[:, 0, 0, 0]
    assert guided.tolist() == [3 + 3 * (0 - 3), 3 + 3 * (2 - 3)]


@pytest.mark.parametrize(("scale", "calls"), [(1.0, 5), (2.0, 10)])
def test_guidance_doubles_what_a_sample_costs(cache: Cache, scale: float, calls: int) -> None:
    model, watched = make(cache, guidance_scale=scale), Watched()
    model.sample(watched, 2, 2, seeded())
    assert len(watched.told) == model.calls_per_sample == calls
    denoiser = built(model)
    network = measure(denoiser, model.sparsifiable(denoiser), model.example(), calls)
    assert network.calls_per_sample == calls
    assert "class_embedding.weight" not in model.sparsifiable(denoiser)


def test_guidance_is_of_the_sampling_alone(cache: Cache) -> None:
    plain, guided = make(cache), make(cache, guidance_scale=2.0)
    assert "guidance_scale" in LatentDiffusion.sampling_settings
    denoisers = [built(model) for model in (plain, guided)]
    losses = [
        model.loss(denoiser, model.batch("train", torch.arange(20)), seeded())
        for model, denoiser in zip((plain, guided), denoisers, strict=True)
    ]
    assert torch.equal(*losses)


def test_samples_of_labels_that_are_asked_for(cache: Cache) -> None:
    model, watched = make(cache), Watched()
    asked = model.sample(watched, 3, 2, seeded(), labels=["b", 7, "b"])
    assert [told.tolist() for told in watched.told[::5]] == [[2, 0], [2]]
    drawn = model.sample(watched, 3, 2, seeded())
    assert asked.shape == drawn.shape
    assert model.labels == (7, "a", "b")


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_it_samples_without_its_data(cache: Cache, scale: float) -> None:
    model = make(cache, guidance_scale=scale)
    denoiser = built(model)
    data = Data.blank((1, 16, 16), torch.uint8, Pictures())
    other = LatentDiffusion.for_sampling(
        model.settings, data, model.sampling_state(), model.workspace
    )
    other_denoiser = other.build()
    other_denoiser.load_state_dict(denoiser.state_dict())
    for labels in (None, ["a", 7, "b"]):
        samples = [
            each.sample(network, 3, 2, seeded(), labels)
            for each, network in ((model, denoiser), (other, other_denoiser))
        ]
        assert torch.equal(*samples)


def test_what_diffusers_cannot_carry_is_refused(cache: Cache) -> None:
    model = make(cache)
    with pytest.raises(ConfigError, match=r"does not take labels.*packed or dense"):
        model.diffusers_pipeline(built(model))


def test_the_outline_needs_the_number_of_classes(cache: Cache) -> None:
    model = make(cache)
    assert LatentDiffusion.outline(model.settings, Items((1, 16, 16))) is None
    with pytest.raises(ConfigError, match="no labels"):
        LatentDiffusion.outline(model.settings, Items((1, 16, 16), classes=0))
    outline = LatentDiffusion.outline(model.settings, model.items)
    assert outline is not None
    assert outline.denoiser.class_embedding.weight.shape[0] == 4
    assert len(outline.inputs) == 3


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"guidance_scale": 2}, "guidance_scale is 2.0: it needs class_conditional = true"),
        ({"label_dropout": 0.2}, "label_dropout is 0.2: it needs class_conditional"),
        ({"class_conditional": True, "guidance_scale": 0.5}, "guidance_scale"),
        (
            {"class_conditional": True, "guidance_scale": 2, "label_dropout": 0},
            "label_dropout must be more than 0",
        ),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        LatentDiffusionSettings(**settings)
