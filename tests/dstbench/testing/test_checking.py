"""Checks and their reports."""

import random
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
import torch
from toys import ToyImages
from wrong_models import RightModel, UnknownKind
from wrong_sparsifiers import Drifting, Growing, LateMasking, Shrinking, Unwilling

from dstbench.contracts import Data, Executor
from dstbench.errors import ConfigError, DataError
from dstbench.execution import in_this_process
from dstbench.sparsity import Layer
from dstbench.testing import CheckFailed, checks
from dstbench.testing.checking import Subject, empty_workspace, make_check, merged, seeded
from dstbench.testing.running import run
from dstbench.testing.trials.trial import Trial, first_difference


def failure(check: Any) -> CheckFailed:
    with pytest.raises(CheckFailed) as caught:
        check()
    return caught.value


def the_check(cls: type[Any], name: str, *given: Any, **more: Any) -> Any:
    return next(check for check in checks(cls, *given, **more) if str(check) == name)


def test_a_report_says_what_was_promised_what_happened_and_how_to_see_it_again() -> None:
    assert str(failure(the_check(Drifting, "settings-survive-a-record", {"strength": 3}))) == (
        "\nPromised: Settings come back as they were from the JSON in which a cell's record keeps "
        "them, and which is all that a benchmark can say."
        "\nHappened: strength = 6.0 came back as 12.0"
        "\nReproduce:"
        "\n    from dstbench.testing import checks"
        "\n    from wrong_sparsifiers import Drifting"
        "\n    next(c for c in checks(Drifting, {'strength': 3}) "
        "if str(c) == 'settings-survive-a-record')()"
    )


def test_a_failure_is_an_assertion_error_with_its_parts() -> None:
    failed = failure(the_check(Shrinking, "counts-stay"))
    assert isinstance(failed, AssertionError)
    assert failed.promised == the_check(Shrinking, "counts-stay").promise
    assert failed.happened.startswith(
        "Shrinking at S = 0.5, seed 0, settings {'exploration_frequency': 3}, on the network "
        "'convolutions', after step 3: 431 weights of 864 are active, instead of round(0.5 · 864) "
    )


def test_what_is_to_reproduce_a_failure_does() -> None:
    here: dict[str, Any] = {}
    exec(failure(the_check(Shrinking, "counts-stay")).reproduce, here)
    trial: Trial = here["trial"]
    assert (trial.step, trial.cls, trial.sparsity) == (3, Shrinking, 0.5)
    exec(failure(the_check(LateMasking, "gradients-are-masked")).reproduce, here)
    trial = here["trial"]
    (layer, *_) = trial.sparsifier.layers
    assert layer.weight.grad[~layer.mask].any()
    with pytest.raises(CheckFailed):
        exec(failure(the_check(Unwilling, "sparsity-is-possible")).reproduce, {})


def test_looks_at_a_training_share_it_and_tell_its_exception_alike() -> None:
    class Failing(Growing):
        """Fails at the second topology update."""

        steps_taken = 0

        def _step_taken(self, trained: Sequence[Layer]) -> None:
            Failing.steps_taken += 1
            super()._step_taken(trained)
            if self.step == 6:
                raise ValueError("no more")

    looks = [
        "sparsity-is-possible",
        "topology-moves",
        "counts-stay",
        "inactive-weights-are-zero",
        "averaged-weights-are-masked",
        "gradients-are-masked",
        "moments-are-zero",
    ]
    by_name = {str(check): check for check in checks(Failing)}
    happened = {failure(by_name[name]).happened for name in looks}
    assert Failing.steps_taken == 6
    (told,) = happened
    assert told.startswith("ValueError was raised\nTraceback")
    assert told.endswith("ValueError: no more")


class Raising(ToyImages):
    """Cannot be loaded."""

    def load(self, workspace: Any) -> Data:
        return 1 / 0  # type: ignore[return-value]


def test_an_exception_of_the_plugin_is_told_from_where_it_leaves_the_suite() -> None:
    happened = failure(the_check(Raising, "splits-are-disjoint")).happened
    assert happened.startswith("ZeroDivisionError was raised\nTraceback (most recent call last):")
    assert "return 1 / 0" in happened
    assert "testing/checking.py" not in happened.replace("test_checking", "")
    assert "testing/checks/" not in happened


def test_a_plugin_that_would_end_the_process_fails_the_check() -> None:
    def ends(subject: Subject) -> None:
        """It goes on."""
        raise SystemExit(3)

    assert "SystemExit" in failure(make_check(ends, Subject(Growing, {}))).happened


def test_what_cannot_be_checked_is_skipped_with_the_reason() -> None:
    check = the_check(ToyImages, "items-are-of-their-kind", {"away": "person"})
    with pytest.raises(SkipTest, match=r"its data is not there \(missing\): ask the toymaker"):
        check()
    the_check(ToyImages, "availability-is-told", {"away": "person"})()


def test_names_and_promises() -> None:
    for cls in (Growing, ToyImages, RightModel):
        names = [str(check) for check in checks(cls)]
        assert len(set(names)) == len(names)
        for check in checks(cls):
            assert check.promise.endswith(".")
            assert "\n" not in check.promise


def test_a_check_leaves_global_generators_and_threads_as_they_were() -> None:
    def draws(subject: Subject) -> None:
        """Draws."""
        torch.rand(3), random.random(), np.random.rand()
        assert torch.get_num_threads() == 1

    threads = torch.get_num_threads()
    with seeded(5):
        expected = torch.rand(()).item(), random.random(), np.random.rand()
    with seeded(5):
        make_check(draws, Subject(Growing, {}))()
        assert (torch.rand(()).item(), random.random(), np.random.rand()) == expected
    assert torch.get_num_threads() == threads


def test_settings_go_over_those_for_trials() -> None:
    trial = {"a": 1, "table": {"b": 2, "c": 3}}
    assert merged(trial, {"table": {"b": 4}, "d": 5}) == {
        "a": 1,
        "table": {"b": 4, "c": 3},
        "d": 5,
    }
    assert trial == {"a": 1, "table": {"b": 2, "c": 3}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prune_ratee": 1}, "growing: prune_ratee: unknown key; did you mean 'prune_rate'?"),
        ({"prune_rate": 2}, "growing: prune_rate: should be less than or equal to 1, is 2"),
    ],
)
def test_settings_that_are_wrong_are_refused_at_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checks(Growing, given)
    assert str(refused.value).startswith(message)


def test_a_model_takes_the_first_images_that_it_can() -> None:
    class Choosy(RightModel):
        def build(self) -> Any:
            if self.shape[-1] < 16:
                raise ValueError("too small")
            return super().build()

    seen = []
    for cls in (RightModel, Choosy):
        check = the_check(cls, "loss-is-finite")
        check()
        seen.append(check._body.__closure__[1].cell_contents.model.shape)
    assert seen == [(1, 8, 8), (1, 16, 16)]


def test_a_model_of_a_kind_without_data_is_skipped_unless_it_is_given_some() -> None:
    with pytest.raises(SkipTest, match=r"no data of kind 'sounds': give checks\(…, data=…\)"):
        the_check(UnknownKind, "loss-is-finite")()
    data = ToyImages(ToyImages.Settings()).load(empty_workspace())
    the_check(UnknownKind, "loss-is-finite", data=data)()


def test_data_that_is_damaged_is_told_in_a_line() -> None:
    class Damaged(ToyImages):
        """Says that all is well."""

        def load(self, workspace: Any) -> Data:
            raise DataError("images.zip: half a file")

    with pytest.raises(CheckFailed) as caught:
        the_check(Damaged, "labels-fit-the-items")()
    told = "availability says that the data is there; but load: images.zip: half a file"
    assert caught.value.happened == told


def test_a_class_of_no_kind() -> None:
    with pytest.raises(ConfigError, match="int is no plugin: it derives from none of Sparsifier,"):
        checks(int)


def test_an_executor_that_starts_no_processes_has_none_to_end() -> None:
    class Here(Executor):
        """Runs cells in this process."""

        name = "here"

        def run(self, run_cell: Any, cells: Any) -> Any:
            return in_this_process(run_cell, cells)

    outcomes = list(run(checks(Here)))
    assert {outcome.state for outcome in outcomes} == {"kept", "skipped"}
    skipped = {str(each.check): each.reason for each in outcomes if each.state == "skipped"}
    assert skipped == dict.fromkeys(
        ("a-dead-process-ends-its-cell-alone", "closing-leaves-no-process-behind"),
        "it runs cells in the process that asks for them",
    )


def test_an_executor_whose_cluster_is_not_there_is_skipped() -> None:
    class Away(Executor):
        """Runs nothing here."""

        name = "away"

        def run(self, run_cell: Any, cells: Any) -> Any:
            raise ConfigError("there is no cluster")

    with pytest.raises(SkipTest, match="it runs no cells here: there is no cluster"):
        the_check(Away, "every-cell-is-run-once")()


def test_the_first_difference() -> None:
    one = {"a": torch.zeros(2), "b": torch.tensor([[1.0, torch.nan], [3.0, 4.0]])}
    assert first_difference(one, {name: value.clone() for name, value in one.items()}) is None
    other = {**one, "b": torch.tensor([[1.0, torch.nan], [3.0, 5.0]])}
    assert first_difference(one, other) == (
        "b differs in 1 of 4 elements; at [1, 1] it is 4.0 and 5.0"
    )
    assert first_difference(one, {"a": one["a"]}) == "b is only in one of the two"
    assert first_difference(one, {**one, "a": torch.zeros(3)}) == "a has shape (2,) and (3,)"


def test_genuine_duplicates_may_be_in_both_splits() -> None:
    class Repeating(ToyImages):
        """Ten images, over and over."""

        def load(self, workspace: Any) -> Data:
            data = super().load(workspace)
            few, rng = data.train[:10], random.Random(0)
            drawn = [few[rng.randrange(10)].clone() for _ in range(200)]
            return Data(drawn[:150], drawn[150:], "repeating", data.to_images)

    the_check(Repeating, "splits-are-disjoint")()


@pytest.mark.slow
def test_the_suite_needs_no_pytest() -> None:
    code = "import sys, dstbench.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
