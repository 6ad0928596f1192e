"""Scores against values worked by hand, and their invariances.

The extractor of these tests takes an image's pixels as its features and logits, so that features
with known means, covariances and distances can be written down as images.
"""

import math

import dstbench_features
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dstbench.cache import Cache
from dstbench.contracts import FeatureExtractor, Features, Metric, PluginSettings, Workspace
from dstbench.errors import ScoreError
from dstbench.metrics import extract, sample_features
from dstbench.metrics import score as score_features
from dstbench.records import Quantity, Scores
from dstbench.settings import EvaluationSettings


class Pixels(FeatureExtractor):
    name = "pixels"
    weights_hash = "0" * 64
    resize = "none"

    def __call__(self, images: Tensor) -> Features:
        pixels = images.flatten(1).float()
        return Features(pixels, pixels)


class Broken(Pixels):
    """Its logits overflow."""

    def __call__(self, images: Tensor) -> Features:
        features = super().__call__(images).features
        return Features(features, features * math.inf)


class OneFeature(Pixels):
    def __call__(self, images: Tensor) -> Features:
        features = super().__call__(images).features
        return Features(features[:, :1], features)


def make(kind: type[FeatureExtractor] = Pixels) -> FeatureExtractor:
    return kind(PluginSettings(), Workspace(torch.device("cpu"), Cache()))


def images(*pixels: tuple[int, ...]) -> Tensor:
    """One image of one row per tuple."""
    return torch.tensor(pixels, dtype=torch.uint8)[:, None, None, :]


def features_of(pictures: Tensor) -> Features:
    return extract([pictures], make())


def metrics_of(settings: EvaluationSettings) -> list[Metric]:
    """Those that every benchmark has."""
    return [cls(PluginSettings(), settings) for cls in dstbench_features.dstbench_metrics()[:4]]


def score(
    samples: Tensor, real: Features, extractor: FeatureExtractor, settings: EvaluationSettings
) -> Scores:
    fake = sample_features(samples, extractor, settings)
    return score_features(fake, real, settings, metrics_of(settings))


def evaluation(**values: int) -> EvaluationSettings:
    return EvaluationSettings(**{"neighbours": 1, "kid_subsets": 3, **values})


def random_images(count: int, seed: int, width: int = 4) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 1, width), generator=rng, dtype=torch.uint8)


def test_fid_of_two_gaussians_worked_by_hand() -> None:
    """Means (1, 1) and (13, 13), covariances 4/3 and 12 times the identity: the distance is
    2·12² + 2·(√12 − √(4/3))² = 288 + 32/3."""
    real = images((0, 0), (2, 0), (0, 2), (2, 2))
    samples = images((10, 10), (16, 10), (10, 16), (16, 16))
    scores = score(samples, features_of(real), make(), evaluation())
    assert scores.fid == pytest.approx(288 + 32 / 3)


def test_kid_worked_by_hand() -> None:
    """With the kernel (x·y / 2 + 1)³ the mean over distinct pairs is 1 within the samples and 27
    within the real images, and 30/4 over all pairs of both: 1 + 27 − 2 · 30/4 = 13. A subset is
    as large as either side, so that all subsets are the same."""
    samples = images((0, 0), (2, 0))
    real = images((0, 2), (2, 2))
    scores = score(samples, features_of(real), make(), evaluation())
    assert scores.kid == pytest.approx(13)
    assert scores.kid_std == pytest.approx(0, abs=1e-9)


def test_kid_takes_subsets_of_the_size_asked_for() -> None:
    samples, real = random_images(40, seed=0), random_images(60, seed=1)
    scores = score(samples, features_of(real), make(), evaluation(kid_subset_size=10))
    assert scores.kid_std is not None
    assert scores.kid_std > 0


def test_inception_score_worked_by_hand() -> None:
    """Ten samples are ten parts of one, and one sample's classes are their own mean: 1. Twenty
    samples of two certain classes are parts with one class (1) or with both (2)."""
    real = features_of(random_images(5, seed=0, width=2))
    few = images(*[(0, 255), (255, 0)] * 5)
    scores = score(few, real, make(), evaluation())
    assert (scores.inception_score, scores.inception_score_std) == (1, 0)
    many = images(*[(0, 255), (255, 0)] * 500)
    scores = score(many, real, make(), evaluation())
    assert scores.inception_score == pytest.approx(2, abs=0.05)


def test_precision_and_recall_worked_by_hand() -> None:
    """Real images reach as far as their nearest neighbour: 10, 10 and 100. Samples reach 6, 6 and
    194. The samples at 4 and 10 are near real images; the one at 204 is 94 away from 110."""
    real = images((0, 0), (10, 0), (110, 0))
    samples = images((4, 0), (10, 0), (204, 0))
    scores = score(samples, features_of(real), make(), evaluation())
    assert scores.precision == 1
    assert scores.recall == 1
    far = images((4, 0), (10, 0), (250, 0), (255, 0))
    scores = score(far, features_of(real), make(), evaluation())
    assert scores.precision == 0.5
    assert scores.recall == pytest.approx(2 / 3)


def test_a_set_has_no_distance_from_itself() -> None:
    pictures = random_images(200, seed=0)
    scores = score(pictures, features_of(pictures), make(), evaluation(kid_subset_size=200))
    assert scores.fid == pytest.approx(0, abs=1e-4)  # of covariances around 5000
    assert scores.precision == scores.recall == 1


@settings(max_examples=15, deadline=None)
@given(batch_size=st.integers(1, 50), chosen=st.integers(1, 50))
def test_batch_size_changes_no_score(batch_size: int, chosen: int) -> None:
    samples, real = random_images(37, seed=2), features_of(random_images(41, seed=3))
    assert score(samples, real, make(), evaluation(batch_size=batch_size)) == score(
        samples, real, make(), evaluation(batch_size=chosen)
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), samples=st.integers(2, 30), real=st.integers(2, 30))
def test_any_samples_have_finite_scores_within_their_bounds(
    seed: int, samples: int, real: int
) -> None:
    scores = score(
        random_images(samples, seed),
        features_of(random_images(real, seed + 1)),
        make(),
        evaluation(),
    )
    assert all(math.isfinite(value) for value in scores.model_dump(exclude={"others"}).values())
    assert 1 - 1e-9 <= scores.inception_score <= 4 + 1e-9
    assert 0 <= scores.precision <= 1
    assert 0 <= scores.recall <= 1
    assert scores.fid > -1e-3


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_samples_that_are_all_equal_have_finite_scores(grey: int) -> None:
    real = features_of(random_images(50, seed=0))
    scores = score(images(*[(grey,) * 4] * 20), real, make(), evaluation())
    assert all(math.isfinite(value) for value in scores.model_dump(exclude={"others"}).values())
    assert scores.inception_score == pytest.approx(1)


def test_scores_are_repeatable() -> None:
    samples, real = random_images(50, seed=0), features_of(random_images(60, seed=1))
    torch.manual_seed(0)
    first = score(samples, real, make(), evaluation(kid_subset_size=20))
    torch.manual_seed(1)
    assert score(samples, real, make(), evaluation(kid_subset_size=20)) == first


@pytest.mark.parametrize(
    "wrong", [torch.zeros(5, 1, 1, 4), torch.zeros(5, 4).byte(), torch.zeros(5, 2, 2, 1).byte()]
)
def test_samples_that_are_no_images_are_refused(wrong: Tensor) -> None:
    with pytest.raises(ScoreError, match=r"must be torch\.uint8 of shape"):
        score(wrong, features_of(random_images(9, seed=0)), make(), evaluation())


@pytest.mark.parametrize(("samples", "real", "few"), [(3, 9, "3 samples"), (9, 2, "2 real images")])
def test_too_few_images_are_refused(samples: int, real: int, few: str) -> None:
    with pytest.raises(ScoreError, match=f"there are {few}, .* at least 4"):
        score(
            random_images(samples, seed=0),
            features_of(random_images(real, seed=1)),
            make(),
            evaluation(neighbours=3),
        )


def test_real_features_of_another_width_are_refused() -> None:
    real = features_of(random_images(9, seed=0, width=6))
    with pytest.raises(ScoreError, match="4 features, the real images 6"):
        score(random_images(9, seed=0), real, make(), evaluation())


@pytest.mark.parametrize(
    ("kind", "message"), [(Broken, "not all finite"), (OneFeature, "D of at least 2")]
)
def test_an_extractor_that_goes_wrong_is_named(kind: type[FeatureExtractor], message: str) -> None:
    with pytest.raises(ScoreError, match=f"extractor 'pixels' .*{message}"):
        extract([random_images(4, seed=0)], make(kind))


def test_a_score_that_is_no_number_is_an_error() -> None:
    """Logits 800 apart: a softmax of exactly 0, whose logarithm Inception Score cannot take."""

    class Extreme(Pixels):
        def __call__(self, pictures: Tensor) -> Features:
            features = super().__call__(pictures).features
            return Features(features, features * 1e4)

    real = features_of(random_images(9, seed=0))
    with pytest.raises(ScoreError, match="inception_score"):
        score(random_images(9, seed=1), real, make(Extreme), evaluation())


class Width(Metric):
    """The number of features, which is as large as can be."""

    name = "width"
    quantities = (Quantity(name="width", title="width", better="higher", decimals=0),)
    value = 1.0

    def __call__(self, samples: Features, real: Features) -> dict[str, float]:
        return {"width": self.value * samples.features.shape[1]}


def test_a_further_metric_is_kept_by_its_name() -> None:
    pictures = features_of(random_images(9, seed=0))
    scores = score_features(
        pictures, pictures, evaluation(), [Width(PluginSettings(), evaluation())]
    )
    assert scores.others == {"width": 4}
    assert scores.get("width") == 4
    assert scores.get("fid") is scores.get("unheard-of") is None


def test_what_needs_logits_is_left_out_where_there_are_none() -> None:
    bare = Features(features_of(random_images(9, seed=0)).features)
    scores = score_features(bare, bare, evaluation(), metrics_of(evaluation()))
    assert scores.inception_score is None
    assert scores.fid == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": math.nan}, "width: not a finite number"),
        (
            {"quantities": (*Width.quantities, Quantity(name="b", title="b", better="lower"))},
            "no b",
        ),
    ],
)
def test_a_metric_that_goes_wrong_is_named(change: dict[str, object], message: str) -> None:
    wrong = type("Wrong", (Width,), change)(PluginSettings(), evaluation())
    pictures = features_of(random_images(9, seed=0))
    with pytest.raises(ScoreError, match=message):
        score_features(pictures, pictures, evaluation(), [wrong])


def test_two_metrics_cannot_give_the_same_number() -> None:
    pictures, metric = features_of(random_images(9, seed=0)), Width(PluginSettings(), evaluation())
    with pytest.raises(ScoreError, match="two metrics give width"):
        score_features(pictures, pictures, evaluation(), [metric, metric])


def test_the_mean_of_scores_is_that_of_each() -> None:
    one, two = Scores(fid=1, kid=3, others={"a": 2}), Scores(fid=2, others={"a": 4})
    assert Scores.mean_of([one, two]) == Scores(fid=1.5, others={"a": 3})
