"""What a cell is made of: its plugins, given its settings and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dstbench.cache import digest
from dstbench.cell import RESERVED, Cell
from dstbench.contracts import Data, Dataset, FeatureExtractor, Items, Metric, Model, Workspace
from dstbench.counting.counts import Network, measure
from dstbench.execution.outline import Undertaking
from dstbench.execution.scoring import Scorer
from dstbench.plugins.plugin import Kind
from dstbench.plugins.registry import Plugins
from dstbench.seeds import derive, seed_generators
from dstbench.sparsity import Sparsifier


@dataclass
class Parts:
    """Makes the parts of cells. What several cells share, a loaded dataset and the counts of their
    network, is made once."""

    plugins: Plugins
    workspace: Workspace
    _loaded: dict[str, Data] = field(default_factory=dict)
    _counted: dict[str, Network] = field(default_factory=dict)

    def load(self, cell: Cell) -> Data:
        """The cell's dataset."""
        key = digest({"dataset": cell.dataset, "settings": cell.dataset_settings})
        if key not in self._loaded:
            dataset: Dataset = self._plugin("dataset", cell.dataset, cell.dataset_settings)
            self._loaded[key] = dataset.load(self.workspace)
        return self._loaded[key]

    def extractor(self, cell: Cell) -> FeatureExtractor:
        """The cell's feature extractor."""
        name = cell.evaluation_settings.extractor
        extractor: FeatureExtractor = self._plugin(
            "feature extractor", name, cell.extractor_settings, self.workspace
        )
        return extractor

    def scorer(self, cell: Cell) -> Scorer:
        """What scores the cell's samples."""
        return Scorer(
            self.load(cell),
            cell.dataset,
            self.extractor(cell),
            cell.evaluation_settings,
            self.metrics(cell),
            self.workspace,
        )

    def metrics(self, cell: Cell) -> list[Metric]:
        """The metrics that the cell is scored by."""
        evaluation = cell.evaluation_settings
        return [self._plugin("metric", name, {}, evaluation) for name in evaluation.metrics]

    def sparsifier(self, cell: Cell, steps: int | None = None) -> Sparsifier | None:
        """The cell's sparsifier for a training of so many steps, by default those of its settings,
        attached to nothing; ``None`` for a dense cell."""
        if cell.sparsifier in RESERVED:
            return None
        cls: type[Sparsifier] = self.plugins.find("sparsifier", cell.sparsifier)
        return cls(
            cell.sparsity,
            total_steps=steps or cell.training_settings.steps,
            seed=derive(cell.seed, "masks"),
            **cell.sparsifier_settings,
        )

    def model(self, cell: Cell, data: Data, changed: Mapping[str, Any] | None = None) -> Model:
        """The model that a cell trains, with settings ``changed`` if need be."""
        cls: type[Model] = self.plugins.find("model", cell.model)
        shape = getattr(data.train[0], "shape", ())
        settings = cls.Settings(**cell.model_settings | dict(changed or {}))
        items = Items(tuple(shape), classes=len(data.classes))
        task = Undertaking(cls, settings, items).of(cell)
        return cls(task.settings, data, self.workspace)

    def full_model(self, cell: Cell, data: Data) -> Model:
        """The model of a ``small-dense`` cell before it is made narrower."""
        model: Model = self._plugin("model", cell.model, cell.model_settings, data, self.workspace)
        return model

    def build(self, model: Model, cell: Cell) -> nn.Module:
        """The model's denoiser, with the initial weights of the cell's seed."""
        seed_generators(derive(cell.seed, "weights"), self.workspace.device)
        return model.build()

    def network(self, cell: Cell, model: Model, denoiser: nn.Module) -> Network:
        """The counts of a model's denoiser that do not depend on masks; the cell's seed makes no
        other network of it."""
        of_model = {"model": cell.model, "settings": model.settings.model_dump(mode="json")}
        of_data = {"dataset": cell.dataset, "dataset_settings": cell.dataset_settings}
        key = digest(of_model | of_data)
        if key not in self._counted:
            sparsifiable, inputs = model.sparsifiable(denoiser), model.example()
            self._counted[key] = measure(denoiser, sparsifiable, inputs, model.calls_per_sample)
        return self._counted[key]

    def first_stage(self, cell: Cell) -> dict[str, Any]:
        """All that determines what the cell's model shares with others of its dataset."""
        version = self.plugins.get("model", cell.model).origin
        return {"model": cell.model, "settings": cell.model_settings, "version": version}

    def _plugin(self, kind: Kind, name: str, settings: dict[str, Any], *rest: Any) -> Any:
        """An instance of a plugin, given its validated settings and whatever else it takes."""
        cls = self.plugins.find(kind, name)
        return cls(cls.Settings(**settings), *rest)
