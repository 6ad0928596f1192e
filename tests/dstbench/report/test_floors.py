"""What a table says of floors, noise and nearest training images."""

from dstbench.records import Floor, Interval, Nearest, Quantity, Scores
from dstbench.report.leaderboard import leaderboard
from dstbench.report.text import render

FLOORS = (
    Floor(name="real (validation)", kind="real", images=300, reference_images=1437,
          scores=Scores(fid=1.25, kid=0.01)),
    Floor(name="real, blurred", kind="distorted", images=1000, reference_images=1437,
          scores=Scores(fid=8.4, kid=0.5)),
    Floor(name="real, upside down", kind="distorted", images=1000, reference_images=1437,
          scores=Scores(fid=50, kid=0.6)),
)  # fmt: skip

HEAD = (
    "**By FID, the dense row (10.00) is worse than distorted real images (real, blurred: 8.40): "
    "the differences below say little of the quality of images.**"
)


def test_floors_stand_below_the_table(make_record):
    assert (
        "- Images that no model has generated, under the same protocol: real (validation) (300): "
        "FID 1.25, KID 0.0100; real, blurred (1,000): FID 8.40, KID 0.5000; real, upside down "
        "(1,000): FID 50.00, KID 0.6000."
    ) in render([make_record(fid=1.0), make_record(seed=1, fid=2.0, floors=FLOORS)])


def test_a_dense_row_that_is_worse_than_distorted_images_is_said_at_the_head(make_record):
    records = [make_record(seed=s, fid=f, floors=FLOORS) for s, f in ((0, 9.0), (1, 11.0))]
    text = render(records)
    assert HEAD in text
    assert text.index(HEAD) < text.index("| method")
    assert "worse than distorted real images (real, blurred: 8.40)" in render(records, "latex")


def test_no_warning_without_a_dense_row_or_where_it_is_better(make_record):
    assert "worse than distorted" not in render([make_record(fid=8.0, floors=FLOORS)])
    assert "worse than distorted" not in render([make_record("rigl", 0.5, fid=90, floors=FLOORS)])
    assert "worse than distorted" not in render([make_record(fid=90.0)])


def test_noise_of_sampling_is_told_apart_from_that_of_training(make_record):
    """Within cells the variances are 2 and 8, pooled 5; over seeds, that of 10 and 20 is 50."""
    noises = {0: (9.0, 11.0), 1: (18.0, 22.0)}
    interval = Interval(low=8, high=12, resamples=100)
    records = [
        make_record(
            seed=seed,
            fid=sum(fids) / 2,
            scores_by_noise=[Scores(fid=fid) for fid in fids],
            fid_interval=interval,
        )
        for seed, fids in noises.items()
    ]
    assert (
        "- Noise of FID: standard deviation over 2 noises that the same weights are sampled from "
        "2.24, over training seeds 7.07, 95 % interval of a cell's FID ± 2 on average (100 "
        "bootstrap resamples of its samples, whose mean is shifted to the FID)."
    ) in render(records)


def test_how_near_training_images_are_is_one_line(make_record):
    near = {
        "fid": 1.0,
        "nearest": Nearest(samples=3, training=2, closer=0.1, count=64),
    }
    far = {"nearest": Nearest(samples=1, training=2, closer=0.9, count=64)}
    text = render([make_record(**near), make_record("rigl", 0.5, fid=2.0, **far)])
    assert "far below 1 is memorised: dense 1.50, rigl (S = 0.5) 0.50." in text


def test_further_metrics_have_columns_of_their_own(make_record):
    quantity = Quantity(name="density", title="density", better="higher", decimals=2)
    records = [
        make_record(
            *cell,
            scores=Scores(fid=1, others={"density": value}),
            protocol={"others": (quantity,)},
        )
        for cell, value in ((("dense", 0.0), 0.5), (("rigl", 0.5), 0.75))
    ]
    assert list(leaderboard(records)["density_mean"]) == [0.5, 0.75]
    text = render(records)
    assert "density ↑" in text
    assert "0.750" in text
