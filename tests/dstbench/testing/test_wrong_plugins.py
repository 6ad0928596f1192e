"""Every check of the suite passes right plugins, and catches a wrong one."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from toys import ToyImages, ToyModel
from wrong_datasets import RightImages, RightSketches
from wrong_executors import InThreads, RightExecutor
from wrong_extractors import RightFeatures
from wrong_metrics import RightMetric
from wrong_models import RightModel, RightSketchModel, RightTransformer
from wrong_plugins import all_wrong
from wrong_sparsifiers import ByFirstGradient, Growing, Thinning, Uneven
from wrong_trackers import RightTracker

from dstbench.contracts import Data, Dataset, Executor, FeatureExtractor, Metric, Model, Tracker
from dstbench.sparsity import Sparsifier
from dstbench.testing import Check, CheckFailed, availability, checks
from dstbench.testing.checking import empty_workspace
from dstbench.testing.checks import executors, trackers

RIGHT: dict[type[Any], list[type[Any]]] = {
    Sparsifier: [Growing, ByFirstGradient, Thinning, Uneven],
    Dataset: [RightImages, RightSketches, ToyImages],
    Model: [RightModel, RightTransformer, RightSketchModel, ToyModel],
    FeatureExtractor: [RightFeatures],
    Metric: [RightMetric],
    Executor: [RightExecutor, InThreads],
    Tracker: [RightTracker],
}
"""By kind: plugins that keep all promises."""

START_A_PROCESS = {"training-survives-a-new-process", "another-process-loads-the-same"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of wrong executors may outlive their check, whose folder is in the current one."""
    monkeypatch.chdir(tmp_path)


def of_a_check(cls: type[Any], check: str) -> Any:
    marks = pytest.mark.slow if check in START_A_PROCESS else ()
    return pytest.param(cls, check, marks=marks, id=f"{cls.__name__}-{check}")


@cache
def checks_of_right(cls: type[Any]) -> dict[str, Check]:
    """By name: its checks, which share what they look at, as in ``dstbench check``."""
    data = toy_images() if cls is ToyModel else None  # it takes no other
    return {str(check): check for check in checks(cls, data=data)}


@cache
def toy_images() -> Data:
    return ToyImages(ToyImages.Settings()).load(empty_workspace())


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize(
    ("cls", "name"), [of_a_check(cls, cls.caught_by) for cls in all_wrong(object)]
)
def test_a_wrong_plugin_is_caught(
    cls: type[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (availability, executors, trackers):
        monkeypatch.setattr(module, "SECONDS", getattr(cls, "patience", module.SECONDS))
    (check,) = [check for check in checks(cls) if str(check) == name]
    with pytest.raises(CheckFailed) as caught:
        check()
    report = str(caught.value)
    assert f"Promised: {check.promise}" in report
    assert cls.happens in caught.value.happened
    assert cls.__name__ in caught.value.reproduce


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        of_a_check(cls, str(check))
        for each in RIGHT.values()
        for cls in each
        for check in checks(cls)
    ],
)
def test_a_right_plugin_passes(cls: type[Any], name: str) -> None:
    checks_of_right(cls)[name]()


@pytest.mark.parametrize(("kind", "right"), RIGHT.items())
def test_each_check_catches_a_wrong_plugin(kind: type[Any], right: list[type[Any]]) -> None:
    assert {cls.caught_by for cls in all_wrong(kind)} == {str(check) for check in checks(right[0])}
