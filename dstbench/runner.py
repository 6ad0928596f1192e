"""From cells to records: :meth:`Runner.run_cell` is the way of one, ``run_grid`` of all."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from dstbench import metrics
from dstbench.contracts import (
    Availability,
    Data,
    Dataset,
    Executor,
    FeatureExtractor,
    Features,
    Model,
    Workspace,
)
from dstbench.counting import count, measure
from dstbench.errors import (
    DataError,
    DivergedError,
    DstbenchError,
    HeldError,
    PluginError,
    ScoreError,
    StoreError,
)
from dstbench.execution import CellRunner, in_this_process, run_all, run_by, time_limit
from dstbench.failures import FAILURES, contained, within
from dstbench.grid import DENSE, Cell
from dstbench.machine import environment, peak_memory, reset_peak_memory
from dstbench.metrics.features import require_neighbours
from dstbench.needs import Need, needs
from dstbench.plugins import Kind, Plugins
from dstbench.records import Environment, Record, Scores, Times
from dstbench.seeds import derive
from dstbench.settings import EvaluationSettings, TrainingSettings
from dstbench.sparsity import DynamicSparsifier, Sparsifier
from dstbench.store import CellFolder, RecordVersion, Store, now
from dstbench.training import Trainer, check_size

Unable = Literal["skipped", "failed"]
"""Of a cell that is not run: its data is not there; one of its plugins fails."""

KEPT_SAMPLES = 64
"""Sample images kept of each cell, for its grid and the leaderboard's sheet."""


@dataclass
class Runner:
    """Runs cells one after another, with what they share loaded once."""

    plugins: Plugins
    store: Store
    workspace: Workspace
    _loaded: dict[str, Data] = field(default_factory=dict)

    def availability(self, cells: Sequence[Cell]) -> list[tuple[Need, Availability]]:
        """What those of the cells need that have no result, and whether it is there; what cannot
        be told, because its plugin fails, is left out."""
        known = []
        for need in needs([cell for cell in cells if self._is_open(cell)]):
            with suppress(*FAILURES):
                known.append((need, need.availability(self.plugins, self.workspace)))
        return known

    def run_grid(
        self,
        cells: Sequence[Cell],
        *,
        download: bool = False,
        executor: Executor | None = None,
        minutes: float | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> list[Record]:
        """The record of every cell; those that have a result already are not run again.

        A cell whose data is not there is recorded as skipped, one that fails (any of its plugins
        may, in any way) as failed, and the others go on; both are tried again on the next run.
        What can be downloaded is not there unless ``download`` is asked for, which is then done
        before anything is trained.
        A cell that another process is running is waited for, and taken over if that process ends
        without a record.

        Args:
            executor: where the cells are run; by default in this process, one after another.
            minutes: after which a cell is stopped, and recorded as failed. It is stopped by ending
                its process, so that it takes an executor that runs cells in others.
            threads: CPU threads of each process that the executor starts.
            device: how each of them chooses its own (``auto``, ``cpu``, …); by default the
                workspace's.

        Raises:
            DataError: before anything is trained, if a dataset cannot be loaded or is too small.
            ScoreError: before anything is trained, if there will be too few images to score.
            PluginError: if the executor fails.
        """
        unable = self._unable([cell for cell in cells if self._is_open(cell)], download, minutes)
        to_run = [cell for cell in cells if self._is_open(cell) and cell.id not in unable]
        for cell in cells:
            if cell.id in unable:
                self.attempt(self._leave_out, cell, *unable[cell.id])
        versions = {cell.id: self.store.cell(cell).version() for cell in to_run}
        run = in_this_process if executor is None else partial(run_by, executor)
        run_all(to_run, run, CellRunner(self, versions, minutes, threads, device))
        return [record for cell in cells if (record := self._readable(cell))]

    def attempt(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Whether it could be done in the store; reported, if not."""
        try:
            function(*arguments)
        except StoreError as error:
            self.workspace.report(str(error))
            return False
        return True

    def _readable(self, cell: Cell) -> Record | None:
        """Its record, if there is one; reported, if it cannot be read."""
        try:
            return self.store.cell(cell).record()
        except StoreError as error:
            self.workspace.report(str(error))
            return None

    def _finished(self, cell: Cell) -> Record | None:
        record = self.store.cell(cell).record()
        return None if record is None or record.status in ("failed", "skipped") else record

    def _is_open(self, cell: Cell) -> bool:
        """Whether it is to be run: it has no result, and no record that cannot be read."""
        with suppress(StoreError):
            return self._finished(cell) is None
        return False

    def _unable(
        self, cells: Sequence[Cell], download: bool, minutes: float | None
    ) -> dict[str, tuple[Unable, str]]:
        """By id of the cells that cannot be run: the status of their record, and the reason."""
        unable: dict[str, tuple[Unable, str]] = {}

        def note(cells: Sequence[Cell], status: Unable, reason: str) -> None:
            unable.update({cell.id: (status, reason) for cell in cells})

        def able(cells: Sequence[Cell]) -> list[Cell]:
            return [cell for cell in cells if cell.id not in unable]

        for cell in cells:
            with contained(partial(note, [cell], "failed")):
                self._try_plugins(cell)
        for need in needs(able(cells)):
            waiting = able(need.cells)
            with contained(partial(note, waiting, "failed"), but=(DstbenchError,)):
                if waiting and (reason := self._reason(need, download)):
                    note(waiting, "skipped", reason)
        for need in needs(able(cells)):
            if need.kind == "dataset":
                with contained(partial(note, need.cells, "failed"), but=(DstbenchError,)):
                    within(minutes, partial(self._check, need.cells))
        failures = Counter(reason for status, reason in unable.values() if status == "failed")
        for reason, times in failures.items():
            last_line = reason.strip().splitlines()[-1]
            self.workspace.report(f"cells that cannot be run: {times} ({last_line})")
        return unable

    def _try_plugins(self, cell: Cell) -> None:
        """Raise what the cell's plugins would, as far as it is quick to know."""
        plugins: tuple[tuple[Kind, str, dict[str, Any]], ...] = (
            ("model", cell.model, cell.model_settings),
            ("dataset", cell.dataset, cell.dataset_settings),
            ("feature extractor", _extractor_name(cell), cell.extractor_settings),
        )
        for kind, name, settings in plugins:
            self.plugins.find(kind, name).Settings(**settings)
        self._sparsifier(cell, TrainingSettings(**cell.training))

    def _reason(self, need: Need, download: bool) -> str | None:
        """Why the cells that need it cannot be run; what is to be downloaded is, here."""
        availability = need.availability(self.plugins, self.workspace)
        if availability.state == "ready":
            return None
        if availability.state == "missing":
            return availability.detail or f"{need.kind} '{need.name}' is not there"
        if not download:
            return f"{need.kind} '{need.name}' is not downloaded yet ({availability.detail})"
        try:
            self._get(need)
        except (DataError, ScoreError) as error:
            # What is wrong with data that is there by now, is found where all data is checked.
            after = need.availability(self.plugins, self.workspace)
            return None if after.state == "ready" else str(error)
        return None

    def _get(self, need: Need) -> None:
        if need.kind == "dataset":
            self._load(need.cells[0])
        else:
            self._extractor(need.cells[0])

    def _leave_out(self, cell: Cell, status: Unable, reason: str) -> None:
        """Record why the cell was not run; a checkpoint of it stays."""
        folder = self.store.cell(cell)
        with folder.locked():
            if not self._finished(cell):
                folder.write_record(self._without_result(cell, status, reason))

    def _without_result(self, cell: Cell, status: Unable, reason: str) -> Record:
        return Record(
            cell=cell,
            status=status,
            error=reason,
            started=now(),
            environment=self._environment,
        )

    @cached_property
    def _environment(self) -> Environment:
        """For the many cells that may be left out: finding it out takes a moment."""
        return environment(self.workspace.device)

    def run(self, cell: Cell, version: RecordVersion | None, minutes: float | None = None) -> None:
        """Run a cell, unless its record is no longer of that version: another process was quicker.

        Raises:
            HeldError: if another process is running it.
            StoreError: if nothing can be written there.
        """
        folder = self.store.cell(cell)
        with folder.locked():
            if folder.version() != version:
                return
            if folder.last_words():
                record = self._stopped(cell, folder)
            else:
                with time_limit(minutes, folder.stuck):
                    record = self._run(cell, folder)
            folder.write_record(record)
            if record.status in ("done", "diverged"):
                folder.checkpoint.unlink(missing_ok=True)
        try:
            self.plugins.manager.hook.dstbench_cell_finished(cell=cell, record=record)
        except FAILURES:  # of a listener's; the cell is well
            self.workspace.report(f"a plugin failed after {cell.id}:\n{traceback.format_exc()}")

    def bury(self, cell: Cell, version: RecordVersion | None, error: str) -> None:
        """Record a cell as failed whose process died, unless another process has it by now."""
        folder = self.store.cell(cell)
        with suppress(HeldError), folder.locked():
            if folder.version() == version:
                stopped = folder.last_words()
                folder.write_record(
                    self._stopped(cell, folder)
                    if stopped
                    else self._without_result(cell, "failed", error)
                )

    def _stopped(self, cell: Cell, folder: CellFolder) -> Record:
        """The record of a cell whose time limit ended its process."""
        where = folder.last_words()
        folder.stuck.unlink()
        return self._without_result(
            cell,
            "failed",
            f"{where}\nstopped by the benchmark's time limit, where the traceback says; the next "
            "run goes on from its checkpoint",
        )

    def _run(self, cell: Cell, folder: CellFolder) -> Record:
        started = now()
        outcome: dict[str, Any]
        measurable = reset_peak_memory(self.workspace.device)
        try:
            self._require_versions(cell)
            self.plugins.manager.hook.dstbench_cell_started(cell=cell)
            outcome = {"status": "done", **self.run_cell(cell, folder)}
        except DivergedError as error:
            outcome = {"status": "diverged", "error": str(error)}
        except DataError as error:  # of what the model needs beside the dataset
            outcome = {"status": "skipped", "error": str(error)}
        except FAILURES:
            outcome = {"status": "failed", "error": traceback.format_exc()}
        return Record(
            cell=cell,
            started=started,
            environment=environment(self.workspace.device),
            peak_memory=peak_memory(self.workspace.device) if measurable else None,
            **outcome,
        )

    def run_cell(self, cell: Cell, folder: CellFolder) -> dict[str, Any]:
        """Load → build → attach → train → sample → score → count; the parts of the record."""
        training = TrainingSettings(**cell.training)
        evaluation = EvaluationSettings(**cell.evaluation)

        data = self._load(cell)
        model: Model = self._plugin("model", cell.model, cell.model_settings, data, self.workspace)
        denoiser = self._build(model, cell)
        sparsifier = self._sparsifier(cell, training)
        trainer = Trainer(model, denoiser, sparsifier, training, cell.seed)
        sparsifiable, inputs = model.sparsifiable(denoiser), model.example()
        network = measure(denoiser, sparsifiable, inputs, model.calls_per_sample)
        if folder.checkpoint.exists():
            trainer.load(folder.checkpoint)
        counts = count(network, sparsifier, training)

        trainer.train(folder, lambda step, loss: self._tell(cell, folder, sparsifier, step, loss))
        folder.write_denoiser(trainer.averaged.module)

        start = time.perf_counter()
        samples = self._sample(model, trainer.averaged.module, cell, evaluation.samples)
        images = data.to_images(samples)
        seconds = time.perf_counter() - start
        folder.write_samples(_as_array(images[:KEPT_SAMPLES]))

        extractor = self._extractor(cell)
        real = metrics.real_features(data, cell.dataset, extractor, evaluation, self.workspace)
        scores = metrics.score(images, real, extractor, evaluation)
        return {
            "scores": scores,
            "untrained_scores": self._untrained(model, cell, evaluation, extractor, real),
            "protocol": metrics.protocol(cell.dataset, extractor, evaluation, real),
            "counts": counts,
            "times": Times(
                training_step=trainer.seconds_per_step(),
                training=trainer.seconds,
                sample=seconds / len(images),
            ),
            "validation_loss": trainer.validation_loss(),
            "topology_updates": getattr(sparsifier, "topology_updates", 0),
            "skipped_topology_updates": getattr(sparsifier, "skipped_updates", 0),
            "facts": model.facts(),
        }

    def sample(self, folder: CellFolder, count: int) -> tuple[Data, Sequence[Any] | Tensor]:
        """``count`` samples of a trained cell, and the dataset whose items they are.

        They start from the same noise as those that were scored.

        Raises:
            StoreError: for a folder without a trained cell, or one of another version.
        """
        record = folder.record()
        if record is None or not folder.denoiser.exists():
            raise StoreError(
                f"{folder.path}: no trained cell is here; name a folder under a benchmark's cells, "
                "such as results/quickstart/cells/…"
            )
        cell = record.cell
        for difference in self._other_versions(cell, "model", "dataset"):
            self.workspace.report(f"the cell was trained with {difference}")
        try:
            data = self._load(cell)
            model = self._plugin("model", cell.model, cell.model_settings, data, self.workspace)
            denoiser = self._build(model, cell)
            load_model(denoiser, folder.denoiser)
        except (ValidationError, RuntimeError, SafetensorError) as error:
            raise StoreError(
                f"{folder.path}: this cell is damaged, or of another version of dstbench or of "
                f"'{cell.model}' than is installed: {error}"
            ) from error
        return data, self._sample(model, denoiser, cell, count)

    def _require_versions(self, cell: Cell) -> None:
        """Raise :class:`PluginError` where this machine has others than the one that made it."""
        kinds: tuple[Kind, ...] = ("model", "dataset", "sparsifier", "feature extractor")
        if differences := self._other_versions(cell, *kinds):
            raise PluginError(f"the cell is to be run with {'; '.join(differences)}")

    def _other_versions(self, cell: Cell, *kinds: Kind) -> list[str]:
        """In words, the cell's plugins of these kinds that are installed in another version."""
        names: dict[Kind, str] = {
            "model": cell.model,
            "dataset": cell.dataset,
            "sparsifier": cell.sparsifier,
            "feature extractor": _extractor_name(cell),
        }
        return [
            f"{kind} '{names[kind]}' of {version}, but {installed} is installed"
            for kind in kinds
            if (version := cell.versions.get(kind))
            and (installed := self.plugins.get(kind, names[kind]).origin) != version
        ]

    def _check(self, cells: Sequence[Cell]) -> None:
        """Whether there are enough images to train each cell with, and to score it."""
        for cell in cells:
            evaluation = EvaluationSettings(**cell.evaluation)
            reference = evaluation.reference
            try:
                data = self._load(cell)
                check_size(len(data.train), TrainingSettings(**cell.training))
                require_neighbours(len(data.split(reference)), f"{reference} images", evaluation)
                require_neighbours(evaluation.samples, "samples", evaluation)
            except (DataError, ScoreError) as error:
                raise type(error)(f"{cell.task}: {error}") from None

    def _load(self, cell: Cell) -> Data:
        key = f"{cell.dataset} {cell.dataset_settings}"
        if key not in self._loaded:
            dataset: Dataset = self._plugin("dataset", cell.dataset, cell.dataset_settings)
            self._loaded[key] = dataset.load(self.workspace)
        return self._loaded[key]

    def _extractor(self, cell: Cell) -> FeatureExtractor:
        extractor: FeatureExtractor = self._plugin(
            "feature extractor", _extractor_name(cell), cell.extractor_settings, self.workspace
        )
        return extractor

    def _plugin(self, kind: Any, name: str, settings: dict[str, Any], *rest: Any) -> Any:
        """An instance of a plugin, given its validated settings and whatever else it takes."""
        cls = self.plugins.find(kind, name)
        return cls(cls.Settings(**settings), *rest)

    def _build(self, model: Model, cell: Cell) -> nn.Module:
        torch.manual_seed(derive(cell.seed, "weights"))
        return model.build()

    def _sparsifier(self, cell: Cell, training: TrainingSettings) -> Sparsifier | None:
        if cell.sparsifier == DENSE:
            return None
        cls: type[Sparsifier] = self.plugins.find("sparsifier", cell.sparsifier)
        seed = derive(cell.seed, "masks")
        return cls(cell.sparsity, total_steps=training.steps, seed=seed, **cell.sparsifier_settings)

    def _tell(
        self, cell: Cell, folder: CellFolder, sparsifier: Sparsifier | None, step: int, loss: float
    ) -> None:
        folder.tell(step, loss)
        hook = self.plugins.manager.hook
        hook.dstbench_step(cell=cell, step=step, loss=loss)
        if isinstance(sparsifier, DynamicSparsifier) and sparsifier.updated_at == step:
            changed = sparsifier.connections_changed
            hook.dstbench_topology_updated(cell=cell, step=step, changed=changed)

    def _sample(
        self, model: Model, denoiser: nn.Module, cell: Cell, count: int
    ) -> Sequence[Any] | Tensor:
        rng = torch.Generator().manual_seed(derive(cell.seed, "samples"))
        batch_size = EvaluationSettings(**cell.evaluation).batch_size
        denoiser.eval()
        with torch.no_grad():
            return model.sample(denoiser, count, batch_size, rng)

    def _untrained(
        self,
        model: Model,
        cell: Cell,
        evaluation: EvaluationSettings,
        extractor: FeatureExtractor,
        real: Features,
    ) -> Scores | None:
        if cell.sparsifier != DENSE or not evaluation.untrained:
            return None
        samples = self._sample(model, self._build(model, cell), cell, evaluation.samples)
        return metrics.score(model.data.to_images(samples), real, extractor, evaluation)


def _extractor_name(cell: Cell) -> str:
    return EvaluationSettings(**cell.evaluation).extractor


def _as_array(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images (N, C, H, W) as an array (N, H, W, C)."""
    return images.permute(0, 2, 3, 1).contiguous().numpy()
