"""Trained cells, scored in other ways than their benchmark asked for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dstbench.cell import Cell
from dstbench.contracts import Model
from dstbench.errors import ConfigError, ScoreError, StoreError, did_you_mean
from dstbench.execution.pipeline import Pipeline
from dstbench.records import Counts, Record, Times
from dstbench.settings import METRICS, EvaluationSettings
from dstbench.store.folder import CellFolder
from dstbench.store.rescored import read_rescored, write_rescored
from dstbench.store.store import Store


@dataclass(frozen=True)
class Rescoring:
    """What is to be other than in the cells' own evaluation."""

    extractor: str | None = None
    metrics: tuple[str, ...] = ()
    """Scores beside the cells' own."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the model that change how it is sampled from, not how it is trained."""
    noises: int | None = None
    """Noises to sample from; ``None``: those of the cell."""
    extractor_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the extractor: of another one beside its defaults, of the cells' own beside
    theirs."""

    def applied(self, cell: Cell, pipeline: Pipeline) -> Cell:
        """The cell that would have been evaluated so: what its scores are kept under.

        Raises :class:`ConfigError` for an unknown plugin and settings that a plugin refuses.
        """
        evaluation = cell.evaluation_settings
        update = {
            "extractor": self.extractor or evaluation.extractor,
            "metrics": tuple(dict.fromkeys((*evaluation.metrics, *self.metrics))),
            "sampling_seeds": self.noises or evaluation.sampling_seeds,
            "also": (),
        }
        changed = EvaluationSettings(**evaluation.model_dump() | update)
        versions = dict(cell.versions)
        for name in changed.metrics:
            metric = pipeline.plugins.get("metric", name)
            if name not in METRICS:
                versions[f"metric {name}"] = metric.origin
        settings = cell.extractor_settings
        if changed.extractor != evaluation.extractor:
            plugin = pipeline.plugins.get("feature extractor", changed.extractor)
            versions["feature extractor"] = plugin.origin
            settings = self._extractor_settings(pipeline, changed.extractor, {})
        elif self.extractor_settings:
            settings = self._extractor_settings(pipeline, changed.extractor, settings)
        return cell.model_copy(
            update={
                "evaluation": changed.model_dump(mode="json"),
                "extractor_settings": settings,
                "model_settings": self._model_settings(cell, pipeline),
                "versions": versions if cell.versions else {},
            }
        )

    def _extractor_settings(
        self, pipeline: Pipeline, extractor: str, own: Mapping[str, Any]
    ) -> dict[str, Any]:
        cls = pipeline.plugins.find("feature extractor", extractor)
        try:
            settings = cls.Settings(**{**own, **self.extractor_settings})
        except ValidationError as error:
            raise ConfigError(f"feature extractor '{extractor}': {error}") from None
        told: dict[str, Any] = settings.model_dump(mode="json")
        return told

    def _model_settings(self, cell: Cell, pipeline: Pipeline) -> dict[str, Any]:
        cls: type[Model] = pipeline.plugins.find("model", cell.model)
        for name in self.sampling:
            if name not in cls.sampling_settings:
                hint = did_you_mean(name, cls.sampling_settings)
                raise ConfigError(
                    f"model '{cell.model}' has no setting '{name}' of its sampling; {hint}"
                )
        try:
            settings = cls.Settings(**cell.model_settings | dict(self.sampling)).model_dump(
                mode="json"
            )
        except ValidationError as error:
            raise ConfigError(f"model '{cell.model}': {error}") from None
        return settings if self.sampling else cell.model_settings


def evaluations(
    extractor: str | None = None,
    metrics: Sequence[str] = (),
    sampling: Sequence[tuple[str, Sequence[Any]]] = (),
    noises: int | None = None,
    extractor_settings: Mapping[str, Any] | None = None,
) -> list[Rescoring]:
    """One for each combination of the values of settings of the sampling, given by name.

    Raises :class:`ConfigError` where nothing is asked for.
    """
    if not (extractor or metrics or sampling or noises or extractor_settings):
        raise ConfigError(
            "nothing would be other than it was: ask for --extractor, --extractor-set, --metric, "
            "--steps, --eta, --set or --noises"
        )
    axes = [[(name, value) for value in values] for name, values in sampling]
    return [
        Rescoring(extractor, tuple(metrics), dict(values), noises, dict(extractor_settings or {}))
        for values in itertools.product(*axes)
    ]


def unsampled(pipeline: Pipeline, folder: CellFolder, cell: Cell) -> Iterator[Rescoring]:
    """What is left of the cell's ``[[evaluation.also]]``, once it is trained."""
    if not (ways := cell.evaluation_settings.also):
        return
    record = folder.record()
    if record is None or record.status != "done":
        return
    for sampling in ways:
        asked = Rescoring(sampling=sampling)
        scored = asked.applied(record.cell, pipeline)
        if scored.id != record.cell.id and read_rescored(folder, scored) is None:
            yield asked


def trained_cells(folder: Path) -> list[CellFolder]:
    """The trained cells of a benchmark's results, or the one whose folder it is.

    Raises :class:`StoreError` if there are none.
    """
    found = Store(folder).cells() or [CellFolder(folder)]
    trained = [each for each in found if each.denoiser.exists()]
    if not trained:
        raise StoreError(
            f"{folder}: no trained cells are here; name the folder of a benchmark that was run, "
            "such as results/quickstart, or one under its cells"
        )
    return trained


def rescore(
    pipeline: Pipeline,
    folder: CellFolder,
    asked: Rescoring,
    *,
    download: bool = False,
    trusted: bool = False,
) -> Record | None:
    """Score a trained cell so, and keep that beside its record, unless it is there already.

    The record of it: the cell's own where nothing would be other; ``None`` of a cell without a
    result. Of a cell that is not ``trusted``, nothing is read from where its record says.

    Raises:
        ConfigError: for an unknown plugin, and settings that a plugin refuses.
        ScoreError: where the feature extractor's weights are not there.
        StoreError: for a folder whose cell cannot be sampled from.
    """
    record = folder.record()
    if record is None or record.status != "done":
        return None
    cell = asked.applied(record.cell, pipeline)
    if cell.id == record.cell.id:
        return record
    if known := read_rescored(folder, cell):
        return known
    _require_weights(pipeline, cell, download)
    with folder.locked():
        pipeline.workspace.report(f"{record.cell.id}: scored again")
        found = _rescored(pipeline, folder, cell, asked, trusted or download)
        write_rescored(folder, found)
    return found


def _rescored(
    pipeline: Pipeline, folder: CellFolder, cell: Cell, asked: Rescoring, trusted: bool
) -> Record:
    if not trusted:
        pipeline.refuse_outside(cell, folder)
    trained = pipeline.trained(folder, asked.sampling)
    scorer = pipeline.scorer(cell)
    record, model, denoiser = trained.record, trained.model, trained.denoiser
    # What was kept to sample with has no first stage that encodes.
    whole = pipeline.model(record.cell, scorer.data) if folder.sampling.exists() else model
    noises, start = cell.evaluation_settings.noises, time.perf_counter()
    images = pipeline.images(model, denoiser, cell, noises[0])
    seconds = (time.perf_counter() - start) / len(images)
    fake = scorer.features(images)
    further = (pipeline.images(model, denoiser, cell, noise) for noise in noises[1:])
    changed = {
        "cell": cell,
        "untrained_scores": None,
        "floors": (),
        "nearest": None,
        **scorer.score_all(fake, further),
        **scorer.beside_real_images(whole, pipeline.first_stage(cell), fake, None),
    }
    if asked.sampling:
        assert isinstance(record.counts, Counts)
        assert isinstance(record.times, Times)
        flops = record.counts.inference_flops * model.calls_per_sample
        changed |= {
            "counts": record.counts.model_copy(update={"sample_flops": flops}),
            "times": record.times.model_copy(update={"sample": seconds}),
            "measurement": None,
        }
    return record.model_copy(update=changed)


def _require_weights(pipeline: Pipeline, cell: Cell, download: bool) -> None:
    """Raise :class:`ScoreError` where the extractor's weights are not there and not to be got."""
    name = cell.evaluation_settings.extractor
    cls = pipeline.plugins.find("feature extractor", name)
    found = cls.availability(cls.Settings(**cell.extractor_settings), pipeline.workspace)
    if found.state == "missing":
        raise ScoreError(f"feature extractor '{name}' is not there: {found.detail}")
    if found.state == "download" and not download:
        raise ScoreError(
            f"feature extractor '{name}' is not downloaded yet ({found.detail}); --yes gets it"
        )
