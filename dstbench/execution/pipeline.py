"""The way of one cell: :meth:`Pipeline.run` is the place to start reading."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dstbench.cell import DENSE, SMALL_DENSE, Cell
from dstbench.contracts import Data, Model
from dstbench.counting.counts import check_claims, count
from dstbench.errors import PluginError, StoreError
from dstbench.execution.budget import budget_of, lasting
from dstbench.execution.history import TopologyLog
from dstbench.execution.kept import KEPT_SAMPLES, keep_reals, keep_samples
from dstbench.execution.machine import peak_memory, reset_peak_memory
from dstbench.execution.measurement import measure_against_dense, sizes
from dstbench.execution.outside import outside
from dstbench.execution.parts import Parts
from dstbench.execution.room import check_room
from dstbench.execution.sampling import Trained, draw_samples
from dstbench.execution.scoring import Scorer
from dstbench.execution.training import Trainer
from dstbench.execution.versions import other_versions
from dstbench.execution.without_data import kept_of, read_kept, restored, write_kept
from dstbench.kernels import Choice, use_kernels
from dstbench.plugins.isolation import FAILURES
from dstbench.records import Measurement, Record, Scores, Times
from dstbench.store.folder import CellFolder
from dstbench.store.weights import read_masks


class Pipeline(Parts):
    """Takes cells from their plugins to the parts of their records, one after another."""

    def run(self, cell: Cell, folder: CellFolder, measure_seconds: float = 0) -> dict[str, Any]:
        """Load → build → attach → train → sample → score → count → measure; the parts of the
        record.

        A cell that is not dense is timed against its dense twin for so many seconds at most, and no
        longer than it was trained.
        """
        evaluation = cell.evaluation_settings
        reset_peak_memory(self.workspace.device)

        data = self.load(cell)
        model = self.model(cell, data)
        full = self.full_model(cell, data) if cell.sparsifier == SMALL_DENSE else model
        denoiser = self.build(model, cell)
        network = self.network(cell, model, denoiser)
        dense = network if full is model else self.network(cell, full, self.build(full, cell))
        budget = budget_of(cell, self, folder, models=(model, full), networks=(network, dense))
        if budget:  # trainings that were given up are no part of the cell
            reset_peak_memory(self.workspace.device)
        training = lasting(cell.training_settings, budget)
        sparsifier = self.sparsifier(cell, training.steps)
        trainer = Trainer(model, denoiser, sparsifier, training, cell.seed)
        trainer.budget = budget
        if sparsifier:  # what is wrong from the beginning is not worth training
            check_claims(network, sparsifier, trainer.averaged.module)
        check_room(folder, denoiser, sparsifier)
        trainer.resume(folder)

        hook = self.plugins.manager.hook
        if sparsifier:
            tell = partial(hook.dstbench_layers_changed, cell=cell)
            log = TopologyLog(folder.topology, sparsifier, training.steps, trainer.step, tell)
            log.follow(partial(hook.dstbench_topology_updated, cell=cell))
        steps = budget.steps if budget else None
        on_row = partial(hook.dstbench_progressed, cell=cell)
        trainer.train(
            folder, lambda step, loss: self._on_step(cell, folder, step, loss, steps), on_row
        )
        masks = {each.name: each.mask for each in sparsifier.sparse_layers} if sparsifier else {}
        model_bytes = folder.write_denoiser(trainer.averaged.module, masks)
        self._keep_sampling(cell, folder, model)
        if sparsifier:
            check_claims(network, sparsifier, trainer.averaged.module)
        counts = count(
            network, sparsifier, cell.training_settings, steps=training.steps, full=dense
        )

        start = time.perf_counter()
        images = self.images(model, trainer.averaged.module, cell, evaluation.noises[0])
        seconds = time.perf_counter() - start
        keep_samples(folder, images[:KEPT_SAMPLES])
        keep_reals(folder, data, evaluation.reference)

        scorer = self.scorer(cell)
        fake = scorer.features(images)
        further = (
            self.images(model, trainer.averaged.module, cell, noise)
            for noise in evaluation.noises[1:]
        )
        outcome: dict[str, Any] = {
            **scorer.score_all(fake, further),
            "untrained_scores": self._untrained_scores(model, cell, scorer),
            "counts": counts,
            "times": Times(
                training_step=trainer.seconds_per_step(),
                training=trainer.seconds,
                sample=seconds / len(images),
            ),
            "validation_loss": trainer.validation_loss(),
            "topology_updates": sparsifier.topology_updates if sparsifier else 0,
            "skipped_topology_updates": sparsifier.skipped_updates if sparsifier else 0,
            "metadata": model.metadata(),
            "budget": budget,
            "narrowed": model.settings.model_dump(mode="json") if full is not model else None,
            "kernels": sparsifier.kernels.choice.to_json() if sparsifier else None,
            "peak_memory": peak_memory(self.workspace.device),
            "sizes": sizes(trainer, model_bytes, full),
        }
        outcome |= scorer.beside_real_images(model, self.first_stage(cell), fake, folder)
        limit = min(measure_seconds, trainer.seconds)
        if cell.sparsifier != DENSE and limit:
            # It goes on to train: all that is kept of the cell is known by now.
            outcome["measurement"] = self._measure(
                trainer,
                full,
                seconds=limit,
                sampling_batch=min(evaluation.batch_size, evaluation.samples),
                seconds_per_sample=seconds / len(images),
            )
        return outcome

    def sample(
        self, folder: CellFolder, count: int, *, trusted: bool = True
    ) -> tuple[Data, Sequence[Any] | Tensor]:
        """``count`` samples of a trained cell, and what makes pictures of them.

        They start from the same noise as those that were scored. Of a cell that is not ``trusted``,
        nothing is read from where its record says, or fetched.

        Raises:
            StoreError: for a folder without a trained cell, or one of another version; where
                something would be read or fetched for a cell that is not trusted.
        """
        trained = self.trained(folder, trusted=trusted)
        noise = trained.record.cell.evaluation_settings.noises[0]
        return trained.model.data, self._sample(
            trained.model, trained.denoiser, trained.record.cell, count, noise
        )

    def trained(
        self,
        folder: CellFolder,
        changed: Mapping[str, Any] | None = None,
        *,
        trusted: bool = True,
    ) -> Trained:
        """A trained cell, ready to sample, its model with settings ``changed`` if need be; it is
        computed as when its scored samples were drawn. Of one that is not ``trusted``, nothing is
        read from where its record says, or fetched.

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
        kept = folder.read(folder.sampling, read_kept) if folder.sampling.exists() else None
        if not (trusted or kept):
            self.refuse_outside(cell, folder)
        for difference in other_versions(cell, self.plugins, "model", "dataset"):
            self.workspace.report(f"the cell was trained with {difference}")
        try:
            model = (
                restored(kept, cell, self.plugins, self.workspace, changed)
                if kept
                else self.model(cell, self.load(cell), changed)
            )
            denoiser = self.build(model, cell)
            denoiser.load_state_dict(folder.denoiser_state())
            masks = self._masks(model, denoiser, record, folder)
        except (ValueError, KeyError, TypeError, RuntimeError, StoreError) as error:
            raise StoreError(
                f"{folder.path}: this cell is damaged, or of another version of dstbench or of "
                f"'{cell.model}' than is installed: {error}"
            ) from error
        if record.kernels is not None:
            use_kernels([denoiser], masks, Choice.from_json(record.kernels))
        return Trained(record, model, denoiser.eval(), masks)

    def with_data(self, cell: Cell, folder: CellFolder, *, trusted: bool) -> Model:
        """A trained cell's model with its dataset, and all that is prepared from it. Of a cell that
        is not ``trusted``, nothing is read from where its record says, or fetched.

        Raises :class:`StoreError` where that is not what the cell was sampled with: first stages
        that were trained on different machines differ.
        """
        if not trusted:
            self.refuse_outside(cell, folder)
        model = self.model(cell, self.load(cell))
        if folder.sampling.exists():
            kept, state = folder.read(folder.sampling, read_kept), model.sampling_state()
            for name, tensor in kept.tensors.items():
                if not torch.equal(torch.as_tensor(state[name]).cpu(), tensor):
                    raise StoreError(
                        f"{folder.path}: what is prepared here from dataset '{cell.dataset}' is "
                        f"not what the cell was trained with ({name} differs)"
                    )
        return model

    def refuse_outside(self, cell: Cell, folder: CellFolder) -> None:
        """Raise :class:`StoreError` where a cell's record has something read from elsewhere, or
        fetched."""
        if places := outside(cell, self.plugins, self.workspace):
            raise StoreError(
                f"{folder.path}: to sample as its record says, {'; '.join(places)}; --yes allows it"
            )

    def _keep_sampling(self, cell: Cell, folder: CellFolder, model: Model) -> None:
        """Keep what its model samples with, unless that is its dataset."""
        try:
            kept = kept_of(cell, model, self.plugins)
        except StoreError:
            return
        folder.write(folder.sampling, lambda path: write_kept(path, kept))

    def _masks(
        self, model: Model, denoiser: nn.Module, record: Record, folder: CellFolder
    ) -> dict[str, Tensor]:
        """The masks (bool) of a stored network by parameter name, full ones of what its sparsifier
        left dense."""
        masks = {}
        with suppress(PluginError):  # the sparsifier need not be installed to sample
            if sparsifier := self.sparsifier(record.cell):
                weights = model.sparsifiable(denoiser)
                masks = {
                    name: torch.ones_like(weights[name], dtype=torch.bool)
                    for name in sparsifier.masked_names(weights)
                }
        return masks | folder.read(folder.denoiser, read_masks)

    def _on_step(
        self, cell: Cell, folder: CellFolder, step: int, loss: float, steps: int | None
    ) -> None:
        folder.heartbeat(step, loss, steps)
        self.plugins.manager.hook.dstbench_step(cell=cell, step=step, loss=loss)

    def images(self, model: Model, denoiser: nn.Module, cell: Cell, noise: int) -> Tensor:
        """The samples that are scored, as images."""
        count = cell.evaluation_settings.samples
        return model.data.to_images(self._sample(model, denoiser, cell, count, noise))

    def _sample(
        self, model: Model, denoiser: nn.Module, cell: Cell, count: int, noise: int
    ) -> Sequence[Any] | Tensor:
        batch_size = cell.evaluation_settings.batch_size
        return draw_samples(model, denoiser, cell.seed, count, batch_size, noise)

    def _measure(self, trainer: Trainer, full: Model, **limits: Any) -> Measurement | None:
        """The cell against its dense twin; ``None`` where that fails, which costs it nothing."""
        if trainer.sparsifier:
            trainer.sparsifier.on_topology_update = None
        try:
            return measure_against_dense(trainer, full, **limits)
        except FAILURES as error:
            self.workspace.report(f"its times were not measured: {type(error).__name__}: {error}")
            return None

    def _untrained_scores(self, model: Model, cell: Cell, scorer: Scorer) -> Scores | None:
        evaluation = cell.evaluation_settings
        if cell.sparsifier != DENSE or not evaluation.untrained:
            return None
        untrained = self.build(model, cell)
        return scorer.score(self.images(model, untrained, cell, evaluation.noises[0]))
