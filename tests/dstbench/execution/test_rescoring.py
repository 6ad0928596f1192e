"""Trained cells scored again: other extractors, metrics and sampling, no training."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from dstbench.api import load_results
from dstbench.contracts import Workspace
from dstbench.errors import ConfigError, ScoreError, StoreError
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.rescoring import Rescoring, evaluations, rescore, trained_cells
from dstbench.execution.scheduler import Scheduler
from dstbench.grid import Cell
from dstbench.plugins.registry import Plugins
from dstbench.records import Record
from dstbench.report.side_by_side import side_by_side
from dstbench.store import CellFolder, Store
from dstbench.store.rescored import rescored

STEPS = """
from pydantic import Field
from dstbench import hookimpl
from toys import ToyModel, SIZE
import torch

class Stepping(ToyModel):
    '''Takes as many sampling steps as it is told.'''

    name = "stepping"

    class Settings(ToyModel.Settings):
        sampling_steps: int = Field(3, ge=1, description="steps")

    sampling_settings = ("sampling_steps",)

    def sample(self, denoiser, count, batch_size, rng):
        images = torch.randn(count, 1, SIZE, SIZE, generator=rng)
        for _ in range(self.settings.sampling_steps):
            images = images - denoiser(images) / self.settings.sampling_steps
        return (images.clamp(-1, 1) * 127.5 + 127.5).to(torch.uint8)

    @property
    def calls_per_sample(self):
        return self.settings.sampling_steps

@hookimpl
def dstbench_models():
    return [Stepping]
"""

BLIND = """
from pydantic import Field
from dstbench import hookimpl
from dstbench.contracts import FeatureExtractor, Features, PluginSettings

class Blind(FeatureExtractor["Blind.Settings"]):
    "Sees pixels, and knows no classes."

    name = "blind"
    library = "numpy"
    weights_hash = "0" * 64
    resize = "none"

    class Settings(PluginSettings):
        contrast: float = Field(1, gt=0, description="factor of the pixels")

    def __call__(self, images):
        return Features(self.settings.contrast * images[:, 0].float().flatten(1) / 255)

@hookimpl
def dstbench_feature_extractors():
    return [Blind]
"""


@pytest.fixture
def pipeline(
    plug_in: Callable[[str, str], None], workspace: Workspace, request: pytest.FixtureRequest
) -> Pipeline:
    plug_in("stepping", STEPS)
    plug_in("blind", BLIND)
    plugins: Plugins = request.getfixturevalue("plugins")
    return Pipeline(plugins, workspace)


@pytest.fixture
def trained(
    pipeline: Pipeline, tmp_path: Path, make_cell: Callable[..., Cell]
) -> tuple[Record, CellFolder]:
    store = Store(tmp_path / "results" / "mine")
    cell = make_cell().model_copy(update={"model": "stepping"})
    (record,) = Scheduler(store, pipeline).run([cell])
    assert record.status == "done", record.error
    return record, store.cell(cell)


def again(pipeline: Pipeline, folder: CellFolder, **asked: object) -> Record:
    before = rescored(folder)
    rescore(pipeline, folder, Rescoring(**asked), download=False)  # type: ignore[arg-type]
    (new,) = [record for record in rescored(folder) if record not in before]
    return new


def test_another_extractor_scores_the_same_samples(
    pipeline: Pipeline, trained: tuple[Record, CellFolder]
) -> None:
    record, folder = trained
    before = folder.version()
    scored = again(pipeline, folder, extractor="lenet-digits")
    assert folder.version() == before  # the record is as it was
    assert folder.record() == record
    assert scored.protocol is not None
    assert (scored.protocol.extractor, scored.protocol.features) == ("lenet-digits", 64)
    assert scored.scores != record.scores
    assert scored.cell.id != record.cell.id
    assert (scored.counts, scored.times) == (record.counts, record.times)


def test_an_extractor_without_logits_gives_all_scores_but_one(
    pipeline: Pipeline, trained: tuple[Record, CellFolder]
) -> None:
    _, folder = trained
    plain = again(pipeline, folder, extractor="blind")
    assert plain.scores is not None
    assert plain.scores.inception_score is None
    assert None not in (plain.scores.fid, plain.scores.kid, plain.scores.recall)
    assert plain.protocol is not None
    assert plain.protocol.inception_score_splits is None
    assert plain.protocol.library is not None
    assert plain.protocol.library.endswith(f", numpy {version('numpy')}")
    text = load_results(folder.path.parent.parent).text()
    assert "IS: none, because blind has no logits;" in text
    assert "IS: over " in text


def test_an_extractor_is_told_its_settings(
    pipeline: Pipeline, trained: tuple[Record, CellFolder]
) -> None:
    _, folder = trained
    plain = again(pipeline, folder, extractor="blind")
    doubled = again(pipeline, folder, extractor="blind", extractor_settings={"contrast": 2})
    assert doubled.cell.extractor_settings == {"contrast": 2}
    assert doubled.scores is not None
    assert plain.scores is not None
    assert doubled.scores.fid != plain.scores.fid
    with pytest.raises(ConfigError, match=r"feature extractor 'blind': .*\s*contrast"):
        again(pipeline, folder, extractor="blind", extractor_settings={"contrast": 0})


def test_what_is_kept_of_the_same_evaluation_has_the_same_scores(
    pipeline: Pipeline, trained: tuple[Record, CellFolder]
) -> None:
    record, folder = trained
    scored = again(pipeline, folder, sampling={"sampling_steps": 7})
    assert scored.scores != record.scores
    assert scored.counts is not None
    assert record.counts is not None
    assert scored.counts.sample_flops == pytest.approx(record.counts.sample_flops * 7 / 3)
    same = {"sampling_steps": 3}  # which the cell, of a benchmark without this key, does not name
    assert again(pipeline, folder, sampling=same).scores == record.scores


def test_a_way_of_scoring_is_a_table_of_its_own_and_done_once(
    pipeline: Pipeline, trained: tuple[Record, CellFolder]
) -> None:
    _, folder = trained
    for asked in evaluations(sampling=[("sampling_steps", (5, 7))]):
        rescore(pipeline, folder, asked, download=False)
    results = load_results(folder.path.parent.parent)
    assert len(results.records) == 3
    assert "sampling_steps=5" in results.text()
    assert len(results.table) == 3
    times = [path.stat().st_mtime_ns for path in folder.path.glob("scores-*.json")]
    rescore(pipeline, folder, Rescoring(sampling={"sampling_steps": 5}), download=False)
    assert [path.stat().st_mtime_ns for path in folder.path.glob("scores-*.json")] == times


def test_a_damaged_record_is_made_anew(
    pipeline: Pipeline, trained: tuple[Record, CellFolder]
) -> None:
    _, folder = trained
    scored = again(pipeline, folder, sampling={"sampling_steps": 7})
    (path,) = folder.path.glob("scores-*.json")
    path.write_text(path.read_text().replace('"fid": ', '"fid": 1'))
    assert rescored(folder) == []
    assert again(pipeline, folder, sampling={"sampling_steps": 7}).scores == scored.scores


def test_a_new_record_makes_scores_of_old_weights_void(
    pipeline: Pipeline, trained: tuple[Record, CellFolder]
) -> None:
    record, folder = trained
    again(pipeline, folder, sampling={"sampling_steps": 7})
    folder.write_record(record)
    assert rescored(folder) == []


def test_nothing_is_loaded_of_a_dataset_that_may_not_be_fetched(
    pipeline: Pipeline, trained: tuple[Record, CellFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = trained
    loaded: list[Cell] = []
    monkeypatch.setattr(
        "dstbench.execution.pipeline.outside", lambda *_: ["dataset 'toy-images' is downloaded"]
    )
    monkeypatch.setattr(pipeline, "load", loaded.append)
    with pytest.raises(StoreError, match="is downloaded; --yes allows it"):
        again(pipeline, folder, sampling={"sampling_steps": 7})
    assert loaded == []


def test_what_cannot_be_is_refused(
    pipeline: Pipeline, trained: tuple[Record, CellFolder], tmp_path: Path
) -> None:
    _, folder = trained
    for asked, error, message in (
        (
            {"sampling": {"eta": 1.0}},
            ConfigError,
            "model 'stepping' has no setting 'eta' of its sampling; known: sampling_steps",
        ),
        ({"sampling": {"sampling_steps": 0}}, ConfigError, "greater than or equal to 1"),
        ({"extractor": "inception"}, ScoreError, "not downloaded yet .* --yes gets it"),
    ):
        with pytest.raises(error, match=message):
            again(pipeline, folder, **asked)
    with pytest.raises(ConfigError, match="ask for --extractor"):
        evaluations()
    with pytest.raises(StoreError, match="no trained cells"):
        trained_cells(tmp_path / "nowhere")
    assert [each.path for each in trained_cells(folder.path)] == [folder.path]
    assert [each.path for each in trained_cells(folder.path.parent.parent)] == [folder.path]


def test_a_benchmark_may_sample_a_trained_cell_in_several_ways(
    pipeline: Pipeline, tmp_path: Path, make_cell: Callable[..., Cell]
) -> None:
    """Where it is trained; and later, without being trained again."""
    cell = make_cell().model_copy(update={"model": "stepping"})

    def sampled(*also: dict[str, int]) -> Cell:
        return cell.model_copy(update={"evaluation": cell.evaluation | {"also": also}})

    store = Store(tmp_path / "results" / "mine")
    (record,) = Scheduler(store, pipeline).run([sampled({"sampling_steps": 7})])
    assert record.cell.id == cell.id
    (scored,) = rescored(store.cell(cell))
    assert scored.cell.model_settings["sampling_steps"] == 7
    weights = store.cell(cell).denoiser.stat().st_mtime_ns

    more = sampled({"sampling_steps": 7}, {"sampling_steps": 3}, {"sampling_steps": 5}, {})
    assert Scheduler(store, pipeline).run([more]) == [record]
    steps = {each.cell.model_settings["sampling_steps"] for each in rescored(store.cell(cell))}
    assert steps >= {5, 7}
    assert store.cell(cell).denoiser.stat().st_mtime_ns == weights


def test_a_way_of_sampling_that_fails_costs_the_cell_nothing(
    pipeline: Pipeline,
    tmp_path: Path,
    make_cell: Callable[..., Cell],
    workspace: Workspace,
) -> None:
    told: list[str] = []
    pipeline.workspace = replace(workspace, report=told.append)
    cell = make_cell().model_copy(update={"model": "stepping"})
    also = cell.model_copy(update={"evaluation": cell.evaluation | {"also": ({"eta": 1},)}})
    (record,) = Scheduler(Store(tmp_path), pipeline).run([also])
    assert record.status == "done"
    assert any("has no setting 'eta' of its sampling; known: sampling_steps" in t for t in told)


def test_several_noises(pipeline: Pipeline, trained: tuple[Record, CellFolder]) -> None:
    record, folder = trained
    scored = again(pipeline, folder, noises=3)
    assert scored.scores_by_noise[0] == record.scores
    assert len(scored.scores_by_noise) == 3
    header, body = side_by_side([record, scored])
    assert header[:2] == [record.cell.id, "FID"]
    assert [line[0] for line in body] == ["as the benchmark says", "sampling_seeds=3"]
    assert record.scores is not None
    assert body[0][1] == f"{record.scores.fid:.2f}"
    assert " ± " in body[1][1]
