"""Sparsifiers that each break a promise: one that ``caught_by`` names."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor, nn
from wrong_plugins import Wrong

from dstbench.contracts import PluginSettings
from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier, largest, random_scores


class Growing(DynamicSparsifier):
    """Right: grows at random."""

    name = "growing"

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return random_scores(layer, rng)


class ByFirstGradient(Sparsifier):
    """Right: keeps the weights of the largest gradient at initialisation, in all layers at once."""

    name = "by-first-gradient"
    needs_initial_gradient = True

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        if not self.layers:
            raise SparsityError("counts follow from the gradient of the first batch")
        if self.sparsity == 0:
            return {layer.name: layer.weight.numel() for layer in self.layers}
        scores = torch.cat([self.first_scores(each, self._rng).flatten() for each in self.layers])
        count = round((1 - self.sparsity) * len(scores))
        chosen = torch.zeros_like(scores, dtype=torch.bool)
        chosen[scores.topk(count).indices] = True
        parts = chosen.split([layer.weight.numel() for layer in self.layers])
        return {layer.name: int(part.sum()) for layer, part in zip(self.layers, parts, strict=True)}

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs()


class Uneven(Sparsifier):
    """Right: rounds each layer's count down, and says so."""

    name = "uneven"
    exact_sparsity = False

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        return {name: int((1 - self.sparsity) * math.prod(shape)) for name, shape in shapes.items()}


class Thinning(Growing):
    """Right: from dense to S in three updates, and one connection moves from layer to layer."""

    name = "thinning"

    def density_at(self, step: int) -> float:
        return 1 - self.sparsity * min(step // 3 / 3, 1)

    def counts_after_update(self, step: int) -> Mapping[str, int]:
        counts = dict(super().counts_after_update(step))
        sizes = {layer.name: layer.mask.numel() for layer in self.layers}
        room = [name for name in counts if counts[name] < sizes[name]]
        full = [name for name in counts if counts[name] > 1 and name != (room or [None])[0]]
        if room and full:
            counts[room[0]] += 1
            counts[full[-1]] -= 1
        return counts


class GrowingByGradient(DynamicSparsifier):
    """Right: grows by gradient."""

    name = "growing-by-gradient"
    needs_dense_gradient = True

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs()


class Undocumented(Wrong, Growing):
    """Has a setting without a description."""

    caught_by = "settings-are-documented"
    happens = "strength: no description"

    class Settings(Growing.Settings):
        strength: float = 1.0


class Nameless(Wrong, Growing):
    __doc__ = None
    caught_by = "settings-are-documented"
    happens = "Nameless has no docstring"


class Lenient(Wrong, Growing):
    """Ignores unknown keys."""

    caught_by = "settings-are-validated"
    happens = "no_such_setting = 1, was not refused"

    class Settings(Growing.Settings):
        model_config = ConfigDict(extra="ignore")


class Changeable(Wrong, Growing):
    """Its settings can be changed."""

    caught_by = "settings-are-validated"
    happens = "can be changed after the settings were made"

    class Settings(Growing.Settings):
        model_config = ConfigDict(frozen=False)


class Estranged(Wrong, Growing):
    """Its settings lack those of its base class."""

    caught_by = "settings-are-validated"
    happens = "does not derive from DynamicSparsifier.Settings"

    class Settings(PluginSettings):
        exploration_frequency: int = Field(3, description="optimizer steps between two updates")


class BadDefault(Wrong, Growing):
    """Its default is out of range."""

    caught_by = "settings-are-validated"
    happens = "Input should be greater than 1"

    class Settings(Growing.Settings):
        strength: float = Field(1.0, gt=1, description="how strong")


class Drifting(Wrong, Growing):
    """A setting doubles each time that it is read."""

    caught_by = "settings-survive-a-record"
    happens = "strength = 2.0 came back as 4.0"

    class Settings(Growing.Settings):
        strength: float = Field(1.0, description="how strong")

        @field_validator("strength")
        @classmethod
        def _doubled(cls, value: float) -> float:
            return 2 * value


class Swallowing(Wrong, Growing):
    """Swallows arguments that it does not know."""

    caught_by = "arguments-are-validated"
    happens = "no_such_setting: was not refused"

    def __init__(self, sparsity: float, *, total_steps: int, seed: int = 0, **settings: Any):
        known = {key: settings[key] for key in settings if key in self.Settings.model_fields}
        super().__init__(sparsity, total_steps=total_steps, seed=seed, **known)


class Unwilling(Wrong, Sparsifier):
    """Refuses everything."""

    caught_by = "sparsity-is-possible"
    happens = "was refused: not today"

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        raise SparsityError("not today")


class OneTooMany(Wrong, Sparsifier):
    """One weight more is active than it should."""

    caught_by = "counts-are-exact"
    happens = "are active, instead of round("

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        counts = super().layer_counts(shapes)
        return counts | {next(iter(counts)): counts[next(iter(counts))] + 1}


class Undeclared(Wrong, Uneven):
    """Rounds each layer's count down, and does not say so."""

    caught_by = "counts-are-exact"
    happens = "are active, instead of round("
    exact_sparsity = True


class Retelling(Wrong, Sparsifier):
    """Tells other counts before it is attached than after."""

    caught_by = "counts-are-exact"
    happens = "that layer_counts says"

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        counts = super().layer_counts(shapes)
        first, second = sorted(counts, key=lambda name: -counts[name])[:2]
        if self.layers or counts[first] == 1:
            return counts
        return counts | {first: counts[first] - 1, second: counts[second] + 1}


class TwiceAsDense(Wrong, Uneven):
    """Has twice as many connections as asked for, which its structure is no reason for."""

    caught_by = "counts-are-exact"
    happens = ", give or take 25%"

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        counts = super().layer_counts(shapes)
        return {name: min(2 * counts[name], math.prod(shapes[name])) for name in shapes}


class Late(Wrong, Growing):
    """Begins to move when the trial is over."""

    caught_by = "topology-moves"
    happens = "no mask changed within 10 of 24 steps, with {'exploration_frequency': 3}"

    def updates_at(self, step: int) -> bool:
        return super().updates_at(step) and step > 12


class Multiplying(Wrong, Growing):
    """Grows one connection more than it drops."""

    caught_by = "counts-stay"
    happens = "instead of its"

    def _drop_and_grow(self, layer: Layer, prune_rate: float, count: int) -> int:
        changed = super()._drop_and_grow(layer, prune_rate, count)
        free = (~layer.mask).nonzero()
        if len(free):
            layer.mask[tuple(free[0])] = True
        return changed


class Shrinking(Wrong, Growing):
    """Loses a connection at every update, and says so."""

    caught_by = "counts-stay"
    happens = "are active, instead of round("

    def counts_after_update(self, step: int) -> Mapping[str, int]:
        counts = dict(super().counts_after_update(step))
        largest = max(counts, key=lambda name: counts[name])
        return counts | {largest: counts[largest] - 1}


class Deaf(Wrong, Growing):
    """Moves a connection from layer to layer, which its counts do not say."""

    caught_by = "counts-stay"
    happens = "were chosen in the latest update, or at first"

    def _update_topology(self, ready: Sequence[Layer]) -> None:
        super()._update_topology(ready)
        (few, *_, many) = sorted(self.layers, key=lambda layer: layer.active)
        if few.density == 1:
            return
        for layer, value in ((few, True), (many, False)):
            mask = layer.mask.clone()
            mask[tuple((mask != value).nonzero()[0])] = value
            layer.allot(int(mask.count_nonzero()))
            layer.replace_mask(mask)
            self._keeper.mask_anew(layer)


class Secret(Wrong, Growing):
    """Gives each mask further connections, which nothing else knows of."""

    caught_by = "counts-stay"
    happens = "instead of its"

    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        for layer in self.sparse_layers:
            layer.mask.view(-1)[:] |= self.step == 5


class Relaxing(Wrong, Growing):
    """Activates all connections in the middle of training, and denies it."""

    caught_by = "counts-stay"
    happens = "were chosen in the latest update, or at first"

    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        if self.step == 4:
            for layer in self.layers:
                layer.allot(layer.mask.numel())
                layer.replace_mask(torch.ones_like(layer.mask))

    def verify(self) -> None:
        pass


class Dense(Wrong, Growing):
    """Activates all connections at its first update, for which its structure is no reason."""

    caught_by = "counts-stay"
    happens = ", give or take 25%"
    exact_sparsity = False

    def counts_after_update(self, step: int) -> Mapping[str, int]:
        return {layer.name: layer.mask.numel() for layer in self.layers}


class Restless(Wrong, Growing):
    """Chooses its whole mask anew, kept connections or not."""

    caught_by = "kept-connections-stay"
    happens = "kept connections"

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        return super().select_mask(layer, torch.zeros_like(kept), scores)


class Ungrouped(Wrong, Sparsifier):
    """Selects single connections, whatever it is shown."""

    caught_by = "groups-stay-whole"
    happens = "the mask that was selected for 0.weight has the shape"

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        self.seen = layer, super().first_scores(layer, rng)
        return self.seen[1]

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        layer, scores = self.seen
        return super().select_mask(layer, torch.zeros_like(layer.mask), scores)


class Crumbling(Wrong, Growing):
    """Moves one more connection after each update."""

    caught_by = "groups-stay-whole"
    happens = "does not have the layer's structure"

    def _drop_and_grow(self, layer: Layer, prune_rate: float, count: int) -> int:
        changed = super()._drop_and_grow(layer, prune_rate, count)
        for value in (True, False) if layer.density < 1 else ():
            layer.mask[tuple((layer.mask != value).nonzero()[-1])] = value
        self._keeper.mask_anew(layer)
        return changed


class Straying(Wrong, Growing):
    """Grows anywhere in the layer, whatever its structure."""

    caught_by = "blocks-stay-whole"
    happens = 'does not have the structure "2:4"'

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        if not kept.any():
            return super().select_mask(layer, kept, scores)
        return largest(scores, ~kept, layer.active - int(kept.count_nonzero())) | kept


class Meddling(Wrong, Sparsifier):
    """Zeroes biases too."""

    caught_by = "only-weights-are-masked"
    happens = "before and after attaching"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
        return super().attach(model, optimizer, **arguments)


class Overlooking(Wrong, Sparsifier):
    """Leaves the first weight out."""

    caught_by = "only-weights-are-masked"
    happens = "its layers are not the weights that may be masked: "

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        weights = dict(list(arguments.pop("weights").items())[1:])
        return super().attach(model, optimizer, weights=weights, **arguments)


class Unmasking(Wrong, Sparsifier):
    """Masks nothing at all."""

    caught_by = "only-weights-are-masked"
    happens = "its layers are not the weights that may be masked: "

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        return self


class Releasing(Wrong, Sparsifier):
    """Lets go of the weights as soon as they are masked."""

    caught_by = "inactive-weights-are-zero"
    happens = "the weight 0.weight is not zero at"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        super().attach(model, optimizer, **arguments)
        self.detach()
        return self


class Leaky(Wrong, Sparsifier):
    """Lets weights leak out of the mask."""

    caught_by = "inactive-weights-are-zero"
    happens = "the weight 0.weight is not zero at"

    @torch.no_grad()
    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        for layer in self.sparse_layers:
            layer.weight.add_(1e-3)


class Regrowing(Wrong, Growing):
    """Leaves the values of connections that it drops."""

    caught_by = "inactive-weights-are-zero"
    happens = "after step 3: the weight"

    def _drop_and_grow(self, layer: Layer, prune_rate: float, count: int) -> int:
        weight = layer.weight.detach().clone()
        changed = super()._drop_and_grow(layer, prune_rate, count)
        layer.weight.copy_(weight)
        return changed


class Unaveraged(Wrong, Growing):
    """Forgets the averaged copy."""

    caught_by = "averaged-weights-are-masked"
    happens = "the averaged weight 0.weight is not zero"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        return super().attach(model, optimizer, **arguments | {"averaged": None})


class LateMasking(Wrong, Sparsifier):
    """Masks gradients after they were clipped."""

    caught_by = "gradients-are-masked"
    happens = "the gradient of 0.weight is not zero"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        super().attach(model, optimizer, **arguments)
        for handle in self._keeper._handles:  # what is left masks before the optimizer's step
            handle.remove()
        return self


class StaleMoments(Wrong, Growing):
    """Leaves the moments of dropped connections as they were."""

    caught_by = "moments-are-zero"
    happens = "exp_avg of 0.weight is not zero"

    def _keeps_inactive_state(self) -> bool:
        return True


class Unseeded(Wrong, Growing):
    """Grows by torch's global generator."""

    caught_by = "training-is-deterministic"
    happens = "the global generators are seeded differently"

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return torch.rand(layer.weight.shape)


class UnseededPython(Wrong, Growing):
    """Grows by Python's global generator."""

    caught_by = "training-is-deterministic"
    happens = "the global generators are seeded differently"

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        count = layer.weight.numel()
        return torch.tensor(random.sample(range(count), count)).view_as(layer.weight)


class Fickle(Wrong, Growing):
    """Grows by a generator that is seeded anew from the system."""

    caught_by = "training-is-deterministic"
    happens = "two runs with the same seed differ: "

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        fickle = torch.Generator()
        fickle.seed()
        return torch.rand(layer.weight.shape, generator=fickle)


class Forgetful(Wrong, Growing):
    """Drops by averaged magnitudes, which it does not save."""

    caught_by = "training-survives-a-new-process"
    happens = "uninterrupted and saved after step 7, the runs differ: "

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.magnitudes: dict[str, Tensor] = {}

    @torch.no_grad()
    def _step_taken(self, trained: Sequence[Layer]) -> None:
        for layer in self.sparse_layers:
            earlier = self.magnitudes.get(layer.name, torch.zeros_like(layer.weight))
            self.magnitudes[layer.name] = 0.9 * earlier + 0.1 * layer.weight.abs()
        super()._step_taken(trained)

    def survival_scores(self, layer: Layer) -> Tensor:
        return self.magnitudes[layer.name]


class Unreadable(Wrong, Growing):
    """Saves what must not be unpickled."""

    caught_by = "training-survives-a-new-process"
    happens = "it failed in a new process"

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"settings": self.settings}


class Rescaling(Wrong, Sparsifier):
    """Scales the first weights up, even if none is masked."""

    caught_by = "zero-sparsity-is-dense"
    happens = "without and with the sparsifier, weight 0.weight differs"

    @torch.no_grad()
    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        super().attach(model, optimizer, **arguments)
        for layer in self.layers:
            layer.weight.mul_(1.1)
        return self


class Dividing(Wrong, Growing):
    """Divides by the number of active weights."""

    caught_by = "nearly-all-can-be-zero"
    happens = "ZeroDivisionError"

    def _drop_and_grow(self, layer: Layer, prune_rate: float, count: int) -> int:
        assert 1 / layer.active
        return super()._drop_and_grow(layer, prune_rate, count)


class Standardising(Wrong, Growing):
    """Wants a standard deviation, even of a single weight."""

    caught_by = "single-weights-work"
    happens = "a weight of one is too small"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        for name, weight in arguments["weights"].items():
            if weight.numel() == 1:
                raise ValueError(f"a weight of one is too small: {name}")
        return super().attach(model, optimizer, **arguments)


class ByActivations(Wrong, Growing):
    """Looks at activations with NumPy, which has no bf16."""

    caught_by = "bf16-works"
    happens = "BFloat16"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            assert output.detach().numpy().size

        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(look)
        return super().attach(model, optimizer, **arguments)


class Flattening(Wrong, Growing):
    """Takes weights for contiguous ones."""

    caught_by = "channels-last-works"
    happens = "view size is not compatible"

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return torch.rand(layer.weight.view(-1).shape, generator=rng).view_as(layer.weight)


class Impatient(Wrong, Growing):
    """Takes every backward pass for a step."""

    caught_by = "accumulation-works"
    happens = "a gradient was accumulated twice"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        self.seen: set[int] = set()
        optimizer.register_step_post_hook(lambda *_: self.seen.clear())
        for weight in arguments["weights"].values():
            weight.register_post_accumulate_grad_hook(self._see)
        return super().attach(model, optimizer, **arguments)

    def _see(self, weight: Tensor) -> None:
        if id(weight) in self.seen:
            raise RuntimeError("a gradient was accumulated twice")
        self.seen.add(id(weight))


class Furtive(Wrong, Growing):
    """Moves connections, with their weights, through ``.data``: of that torch tells no one. Weights
    that are packed cannot be moved so."""

    caught_by = "sparse-kernels-work"
    happens = "RuntimeError was raised"

    def _step_taken(self, trained: Sequence[Layer]) -> None:
        super()._step_taken(trained)
        if self.step == 1:
            for layer in self.sparse_layers:
                for values in (layer.mask.data, layer.weight.data):
                    values.copy_(values.flip(0, 1))


class Scheduled(Wrong, Growing):
    """Cannot be scheduled over fewer than ten steps."""

    caught_by = "any-length-and-seed-work"
    happens = "ZeroDivisionError"

    def updates_at(self, step: int) -> bool:
        return step % (self.total_steps // 10) == 0


class Peeking(Wrong, Growing):
    """Grows by the latest gradient of inactive weights, and does not say so."""

    caught_by = "dense-gradients-are-declared"
    happens = "only at steps that dense_gradient_steps does not count, differ"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        self.seen: dict[int, Tensor] = {}
        for weight in arguments["weights"].values():
            weight.register_post_accumulate_grad_hook(self._see)
        return super().attach(model, optimizer, **arguments)

    def _see(self, weight: Tensor) -> None:
        assert weight.grad is not None
        self.seen[id(weight)] = weight.grad.abs()

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return self.seen[id(layer.weight)]


class Sneaking(Wrong, Sparsifier):
    """Asks for the first gradient, and does not say so."""

    caught_by = "dense-gradients-are-declared"
    happens = "the gradient of the first batch was computed 1 times"

    def attach(self, model: nn.Module, optimizer: Any, **arguments: Any) -> Self:
        arguments["backward"]()
        model.zero_grad()
        return super().attach(model, optimizer, **arguments)


class Overcounting(Wrong, GrowingByGradient):
    """Counts a step's dense gradient twice."""

    caught_by = "dense-gradients-are-declared"
    happens = "a step has dense gradients or has not"

    def dense_gradient_steps(self, steps: int) -> int:
        return 2 * super().dense_gradient_steps(steps)


class Reckless(Wrong, GrowingByGradient):
    """Grows by gradients that are not finite, too."""

    caught_by = "bad-gradients-move-nothing"
    happens = "and before and after the step the mask of"

    def _gradients_are_finite(self) -> bool:
        return True

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return super().growth_scores(layer, rng).nan_to_num(nan=-1.0)

    def survival_scores(self, layer: Layer) -> Tensor:
        return super().survival_scores(layer).nan_to_num()
