"""Models that each break a promise: one that ``caught_by`` names."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from toys import SAMPLING_STEPS, ToyModel, ToyWidths
from wrong_plugins import Wrong

from dstbench.contracts import Data, Items, Model, Outline, PluginSettings, Split, Workspace
from dstbench.errors import ConfigError, DivergedError

WIDTH = 8


class RightModel(ToyModel):
    """Right: convolutions, for grey images of any even size."""

    def __init__(self, settings: PluginSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        self.shape = tuple(data.train[0].shape)

    def build(self) -> nn.Module:
        return Convolutions()

    @classmethod
    def outline(cls, settings: Any, items: Items) -> Outline | None:
        return Outline(Convolutions(), (torch.zeros(1, *items.shape),), SAMPLING_STEPS)

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        noise = torch.randn(count, *self.shape, generator=rng)
        return torch.cat([self._denoise(denoiser, part) for part in noise.split(batch_size)])

    def example(self) -> tuple[Any, ...]:
        return (torch.zeros(1, *self.shape),)


class Convolutions(nn.Module):
    """Two convolutions with a norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.norm = nn.GroupNorm(2, WIDTH)
        self.leave = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.inside(self.norm(self.enter(images)).relu())
        left: Tensor = self.leave(hidden)
        return left

    def inside(self, hidden: Tensor) -> Tensor:
        return hidden


class RightTransformer(RightModel):
    """Right: a transformer over rows of RGB images of 16×16 pixels, and refuses others."""

    def __init__(self, settings: PluginSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        if self.shape != (3, 16, 16):
            raise ConfigError("images must be 3×16×16")

    def build(self) -> nn.Module:
        return Transformer()

    @classmethod
    def outline(cls, settings: Any, items: Items) -> Outline | None:
        return None


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(16, 16)
        self.embed = nn.Linear(48, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.leave = nn.Linear(16, 48)
        nn.init.zeros_(self.leave.weight)  # as diffusion models have it

    def forward(self, images: Tensor) -> Tensor:
        rows = images.permute(0, 2, 1, 3).flatten(2)
        tokens = self.layer(self.embed(rows) + self.places(torch.arange(16)))
        left: Tensor = self.leave(tokens).unflatten(2, (3, 16)).permute(0, 2, 1, 3)
        return left


class RightSketchModel(Model):
    """Right: a GRU over sketches, all cut to as many points as the shortest has."""

    name = "cut-sketches"
    accepts = "sketches"

    def __init__(self, settings: PluginSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        self.points = min(map(len, data.train))

    def build(self) -> nn.Module:
        return Recurrent()

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        items = self.data.split(split)
        return torch.stack([items[index][: self.points] for index in indices.tolist()])

    def loss(self, denoiser: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.randn(batch.shape, generator=rng)
        return nn.functional.mse_loss(denoiser((batch + noise) / 2), noise)

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> list[Tensor]:
        noise = torch.randn(count, self.points, 3, generator=rng)
        points = torch.cat([part - denoiser(part) for part in noise.split(batch_size)])
        if not points.isfinite().all():
            raise DivergedError("not finite")
        points[..., 2] = (points[..., 2] > 0.5).float()
        return list(points)

    def example(self) -> tuple[Any, ...]:
        return (torch.zeros(1, self.points, 3),)

    @property
    def calls_per_sample(self) -> int:
        return 1


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, WIDTH, batch_first=True)
        self.leave = nn.Linear(WIDTH, 3)

    def forward(self, points: Tensor) -> Tensor:
        left: Tensor = self.leave(self.gru(points)[0])
        return left


class UnknownKind(RightModel):
    """Right, for all that the suite can tell: takes what the suite has none of."""

    accepts = "sounds"


class Undocumented(Wrong, RightModel):
    """Has a setting without a description."""

    caught_by = "settings-are-documented"
    happens = "width: no description"

    class Settings(RightModel.Settings):
        width: int = 3


class Open(Wrong, RightModel):
    """Takes any setting."""

    caught_by = "settings-are-validated"
    happens = "was not refused"

    class Settings(RightModel.Settings, extra="allow"):
        pass


class Growing(Wrong, RightModel):
    """A setting grows each time that it is read."""

    caught_by = "settings-survive-a-record"
    happens = "dropout = 0.1 came back as 0.05"

    class Settings(RightModel.Settings):
        dropout: float = Field(0.2, description="of activations")

        @field_validator("dropout")
        @classmethod
        def _halved(cls, value: float) -> float:
            return value / 2


class Unprepared(Wrong, RightModel):
    """Prepares a scale at random."""

    caught_by = "preparing-is-deterministic"
    happens = "with the model prepared anew"

    def __init__(self, settings: PluginSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        self.scale = 1 + torch.rand(())

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        return super().batch(split, indices) * self.scale


class Remembering(Wrong, RightModel):
    """Prepares something else where the cache knows it already."""

    caught_by = "preparing-is-deterministic"
    happens = "with the model prepared from the cache"

    def __init__(self, settings: PluginSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        self.scale = 2 if workspace.cache.has("scale", {}) else 1
        workspace.cache.folder("scale", {}, lambda folder: None)

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        return super().batch(split, indices) * self.scale


class Spontaneous(Wrong, RightModel):
    """Scales its first weights by Python's generator."""

    caught_by = "building-is-deterministic"
    happens = "built twice under the same seed, enter.weight differs"

    def build(self) -> nn.Module:
        denoiser = Convolutions()
        with torch.no_grad():
            denoiser.enter.weight.mul_(1 + random.random())
        return denoiser


class Stubborn(Wrong, RightModel):
    """Always starts from the same weights."""

    caught_by = "building-is-deterministic"
    happens = "built under seeds 0 and 1, the denoiser has the same weights"

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return Convolutions()


class Incomplete(Wrong, RightModel):
    """Keeps the incomplete batch."""

    caught_by = "batches-cover-an-epoch"
    happens = "a batch of size 3 is torch.int64 of shape (1,)"

    def batches(self, batch_size: int, rng: torch.Generator) -> Sequence[Tensor]:
        return torch.randperm(len(self.data.train), generator=rng).split(batch_size)


class WithReplacement(Wrong, RightModel):
    """Draws examples with replacement."""

    caught_by = "batches-cover-an-epoch"
    happens = "there should be 16 without an example twice"

    def batches(self, batch_size: int, rng: torch.Generator) -> Sequence[Tensor]:
        examples = len(self.data.train)
        shape = examples // batch_size, batch_size
        return torch.randint(examples, shape, generator=rng).unbind()


class GlobalOrder(Wrong, RightModel):
    """Shuffles by the global generator."""

    caught_by = "batches-cover-an-epoch"
    happens = "with the same rng, the batches of size 1 are others each time"

    def batches(self, batch_size: int, rng: torch.Generator) -> Sequence[Tensor]:
        return super().batches(batch_size, torch.Generator().manual_seed(torch.initial_seed()))


class PastTheEnd(Wrong, RightModel):
    """Counts examples from one."""

    caught_by = "batches-cover-an-epoch"
    happens = "batches of size 1 hold index 16, of 16"

    def batches(self, batch_size: int, rng: torch.Generator) -> Sequence[Tensor]:
        return [batch + 1 for batch in super().batches(batch_size, rng)]


class OtherLoss(RightModel):
    """Changes the loss of the right model."""

    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        return self.changed(super().loss(denoiser, batch, rng))

    def changed(self, loss: Tensor) -> Tensor:
        return loss


class NoNumber(Wrong, OtherLoss):
    """Its loss is NaN."""

    caught_by = "loss-is-finite"
    happens = "the loss of 8 examples of train is nan"

    def changed(self, loss: Tensor) -> Tensor:
        return loss - loss.detach().log().sub(1e9).sqrt()


class Vector(Wrong, OtherLoss):
    """Its loss is a vector."""

    caught_by = "loss-is-finite"
    happens = "is no scalar tensor but (1,)"

    def changed(self, loss: Tensor) -> Tensor:
        return loss[None]


class Detached(Wrong, OtherLoss):
    """Its loss has no gradient."""

    caught_by = "loss-is-finite"
    happens = "has no gradient"

    def changed(self, loss: Tensor) -> Tensor:
        return loss.detach()


class Alone(Wrong, RightModel):
    """Divides by the standard deviation over a batch, which one example has not."""

    caught_by = "loss-is-finite"
    happens = "the loss of 1 examples of train is nan"

    def batch(self, split: Split, indices: Tensor) -> Tensor:
        batch = super().batch(split, indices)
        return batch / batch.std(dim=0).mean()


class GlobalNoise(Wrong, RightModel):
    """Draws the noise of training from the global generator."""

    caught_by = "loss-draws-from-the-rng"
    happens = "something is drawn from one of them"

    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        noise = torch.randn(batch.shape)
        return nn.functional.mse_loss(denoiser(batch + noise), noise)


class Counting(Wrong, OtherLoss):
    """Its loss depends on how often it was asked."""

    caught_by = "loss-draws-from-the-rng"
    happens = "with the same rng twice, the loss is"
    asked = 0

    def changed(self, loss: Tensor) -> Tensor:
        self.asked += 1
        return loss * self.asked


class Rising(Wrong, OtherLoss):
    """Its gradient points upwards."""

    caught_by = "loss-falls"
    happens = "before the first step"

    def changed(self, loss: Tensor) -> Tensor:
        return 2 * loss.detach() - loss


class OtherSamples(RightModel):
    """Changes the samples of the right model."""

    def sample(self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator) -> Any:
        return self.changed(super().sample(denoiser, count, batch_size, rng))

    def changed(self, samples: Any) -> Any:
        return samples


class FloatSamples(Wrong, OtherSamples):
    """Samples of floats."""

    caught_by = "samples-fit-the-data"
    happens = "sample 0 of 3 is torch.float32"

    def changed(self, samples: Any) -> Any:
        return samples / 255


class SmallSamples(Wrong, OtherSamples):
    """Samples of another size."""

    caught_by = "samples-fit-the-data"
    happens = "sample 0 of 3 has shape (1, 4, 4); training images have (1, 8, 8)"

    def changed(self, samples: Any) -> Any:
        return samples[..., ::2, ::2]


class ManySamples(Wrong, RightModel):
    """Only ever fills whole batches."""

    caught_by = "samples-fit-the-data"
    happens = "sample(3, batch_size=2) made 4 samples"

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        return super().sample(denoiser, -(-count // batch_size) * batch_size, batch_size, rng)


class OpenPens(Wrong, RightSketchModel):
    """Leaves pens as they come out of the denoiser."""

    caught_by = "samples-fit-the-data"
    happens = "which is neither 0 nor 1"

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> list[Tensor]:
        sketches = super().sample(denoiser, count, batch_size, rng)
        return [sketch * 0.3 for sketch in sketches]


class GlobalSamples(Wrong, RightModel):
    """Draws the noise of samples from the global generator."""

    caught_by = "samples-draw-from-the-rng"
    happens = "with the same rng and other seeds of the global generators, sample 0 differs"

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        return super().sample(denoiser, count, batch_size, torch.default_generator)


class SameSamples(Wrong, RightModel):
    """Always starts from the same noise."""

    caught_by = "samples-draw-from-the-rng"
    happens = "with the seeds 0 and 1 of the rng, the samples are the same"

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        return super().sample(denoiser, count, batch_size, torch.Generator().manual_seed(0))


class Batchwise(Wrong, RightModel):
    """Starts each batch from the same noise."""

    caught_by = "samples-do-not-depend-on-batch-size"
    happens = "of 5 is another one with batch size 1 than with 5"

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        seed = int(torch.randint(2**31, (), generator=rng))
        batches = torch.arange(count).split(batch_size)
        return torch.cat(
            [
                super(Batchwise, self).sample(
                    denoiser, len(batch), batch_size, torch.Generator().manual_seed(seed)
                )
                for batch in batches
            ]
        )


class Carefree(Wrong, RightModel):
    """Makes images of NaN."""

    caught_by = "divergence-is-told"
    happens = "sampling went on as if all was well"

    def _denoise(self, denoiser: nn.Module, images: Tensor) -> Tensor:
        return super()._denoise(lambda x: denoiser(x).nan_to_num(), images)  # type: ignore[arg-type]


class Miscounting(Wrong, RightModel):
    """Counts one call too few."""

    caught_by = "calls-are-counted"
    happens = "calls_per_sample is 2, but sample called the denoiser 3 times"

    @property
    def calls_per_sample(self) -> int:
        return SAMPLING_STEPS - 1


class Other(RightModel):
    """Has another denoiser."""

    denoiser: type[nn.Module]

    def build(self) -> nn.Module:
        return type(self).denoiser()

    @classmethod
    def outline(cls, settings: Any, items: Items) -> Outline | None:
        return None


class Fourier(Convolutions):
    def inside(self, hidden: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(hidden)).real


class Uncounted(Wrong, Other):
    """Uses an operator that nobody can count."""

    caught_by = "flops-are-counted"
    happens = "no rule counts the FLOPs of aten::fft"
    denoiser = Fourier


class Shy(Convolutions):
    def __init__(self) -> None:
        super().__init__()
        self.heavy = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def inside(self, hidden: Tensor) -> Tensor:
        return hidden if torch.jit.is_tracing() else self.heavy(hidden)


class Hiding(Wrong, Other):
    """Leaves out a layer where it is counted."""

    caught_by = "flops-are-counted"
    happens = "an operator is hidden where the denoiser is traced"
    denoiser = Shy


class Modest(Wrong, RightModel):
    """Is counted on a smaller image than it is trained on."""

    caught_by = "example-is-typical"
    happens = "per example, the loss takes"

    def example(self) -> tuple[Any, ...]:
        return (torch.zeros(1, 1, 4, 4),)


class Infinite(Wrong, RightModel):
    """Is counted on an image of nothing."""

    caught_by = "example-is-typical"
    happens = "the denoiser's output for model.example() is not finite"

    def example(self) -> tuple[Any, ...]:
        return (torch.full((1, *self.shape), torch.nan),)


class Matrix(Convolutions):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def inside(self, hidden: Tensor) -> Tensor:
        return (hidden.movedim(1, -1) @ self.matrix).movedim(-1, 1)


class OtherTable(Other):
    denoiser = Convolutions

    @classmethod
    def sparsifiable(cls, denoiser: nn.Module) -> Mapping[str, nn.Parameter]:
        parameters = dict(denoiser.named_parameters())
        return {name: parameters[name] for name in cls.names()}

    @classmethod
    def names(cls) -> list[str]:
        return ["enter.weight", "leave.weight"]


class HiddenMatrix(Wrong, OtherTable):
    """Leaves a matrix of its own dense."""

    caught_by = "sparsifiable-table-is-complete"
    happens = "it does not name matrix of a Matrix, which a product uses"
    denoiser = Matrix


class HiddenLayer(Wrong, OtherTable):
    """Leaves the last layer dense."""

    caught_by = "sparsifiable-table-is-complete"
    happens = "it does not name leave.weight, a weight of a Conv2d"

    @classmethod
    def names(cls) -> list[str]:
        return ["enter.weight"]


class MaskedNorm(Wrong, OtherTable):
    """Masks a norm, too."""

    caught_by = "sparsifiable-table-is-complete"
    happens = "it names norm.weight, which is no matrix of connections: a GroupNorm's"

    @classmethod
    def names(cls) -> list[str]:
        return ["enter.weight", "norm.weight", "leave.weight"]


class Elsewhere(Wrong, OtherTable):
    """Names weights that the denoiser does not have."""

    caught_by = "sparsifiable-table-is-complete"
    happens = "it names enter.weight, which is not that parameter of the denoiser"

    @classmethod
    def sparsifiable(cls, denoiser: nn.Module) -> Mapping[str, nn.Parameter]:
        return super().sparsifiable(Convolutions())


class Decorated(Convolutions):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Conv2d(WIDTH, WIDTH, 1)


class Unused(Wrong, Other):
    """Has a layer that it never uses."""

    caught_by = "sparsifiable-weights-are-trained"
    happens = "spare.weight: no gradient in three steps"
    denoiser = Decorated


class Accompanied(Wrong, RightModel):
    """Trains a layer outside of the denoiser."""

    caught_by = "only-the-denoiser-is-trained"
    happens = "the loss has a gradient for weight of the model's before, of shape (1, 1, 1, 1)"

    def __init__(self, settings: PluginSettings, data: Data, workspace: Workspace) -> None:
        super().__init__(settings, data, workspace)
        torch.manual_seed(0)
        self.before = nn.Conv2d(1, 1, 1, bias=False)

    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        return super().loss(denoiser, self.before(batch), rng)


class Wider(Wrong, RightModel):
    """Plans a wider denoiser than it builds."""

    caught_by = "outline-fits-the-denoiser"
    happens = "enter.weight has shape (8, 1, 3, 3) in the denoiser, None in the outline's"

    @classmethod
    def outline(cls, settings: Any, items: Items) -> Outline | None:
        return Outline(nn.Conv2d(1, 9, 3), (torch.zeros(1, *items.shape),), SAMPLING_STEPS)


class Smaller(Wrong, RightModel):
    """Plans with a smaller example."""

    caught_by = "outline-fits-the-denoiser"
    happens = "its inputs have shapes [(1, 1, 4, 4)]"

    @classmethod
    def outline(cls, settings: Any, items: Items) -> Outline | None:
        return Outline(Convolutions(), (torch.zeros(1, 1, 4, 4),), SAMPLING_STEPS)


class Quicker(Wrong, RightModel):
    """Plans with fewer calls."""

    caught_by = "outline-fits-the-denoiser"
    happens = "it tells 1 calls per sample, the model 3"

    @classmethod
    def outline(cls, settings: Any, items: Items) -> Outline | None:
        return Outline(Convolutions(), (torch.zeros(1, *items.shape),), 1)


class Scaled(Convolutions):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1 + torch.rand(WIDTH, 1, 1)

    def inside(self, hidden: Tensor) -> Tensor:
        return hidden * self.scale


class Forgetful(Wrong, Other):
    """Computes with random numbers that its state does not hold."""

    caught_by = "the-denoiser-can-be-saved"
    happens = "register what is drawn at random as a buffer"
    denoiser = Scaled


class Noisy(Convolutions):
    def inside(self, hidden: Tensor) -> Tensor:
        if self.training:
            self.enter.weight.data.add_(1e-3)
        return hidden


class SelfChanging(Wrong, Other):
    """Changes its weights as it is used."""

    caught_by = "training-under-masks-works"
    happens = "enter.weight is not zero at"
    denoiser = Noisy


class SelfScaling(Wrong, Other):
    """Keeps its weights at a norm while it is used."""

    caught_by = "training-under-masks-works"
    happens = "enter.weight is another after a loss was computed"

    class Normalized(Convolutions):
        def inside(self, hidden: Tensor) -> Tensor:
            self.enter.weight.data.mul_(3 / self.enter.weight.data.norm())
            return super().inside(hidden)

    denoiser = Normalized


class Doubled(Wrong, Other):
    """Cannot do with less than float32."""

    caught_by = "training-under-masks-works"
    happens = "bf16 is too coarse"

    class Refusing(Convolutions):
        def inside(self, hidden: Tensor) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                raise TypeError("bf16 is too coarse")
            return hidden

    denoiser = Refusing


class Homesick(Wrong, RightModel):
    """Samples are as bright as the data, which it does not keep for sampling."""

    caught_by = "exported-models-sample-the-same"
    happens = "by one that was made without data, sample 0 differs"

    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Tensor:
        return super().sample(denoiser, count, batch_size, rng) // 2 + self.data.train[0] // 2


class Uncut(Wrong, RightSketchModel):
    """Makes sketches as long as its longest, which it keeps in a list."""

    caught_by = "exported-models-sample-the-same"
    happens = "lengths of type list"

    def sampling_state(self) -> Any:
        return {"lengths": [len(sketch) for sketch in self.data.train]}


class TensorFacts(Wrong, RightModel):
    """Tells a tensor for a fact."""

    caught_by = "metadata-can-be-recorded"
    happens = "size = tensor(4) is a Tensor"

    def metadata(self) -> dict[str, Any]:
        return {"size": torch.tensor(4)}


class FromTheWidest(Wrong, ToyWidths):
    """Tells its widths from the widest on."""

    caught_by = "narrower-networks-fit"
    happens = "the numbers of parameters are [737, 582"

    @classmethod
    def narrower(cls, settings: Any) -> list[Any]:
        return super().narrower(settings)[::-1]
