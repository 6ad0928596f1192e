"""Sparsifiers whose layers are computed from their active weights alone."""

import copy
import io
from typing import Any

import pytest
import torch
from dstbench_magran import MagRan
from dstbench_rigl import RigL
from dstbench_static import Static
from kernels_here import with_kernels
from sparsity_methods import assert_same_parameters, assert_zero_outside_masks, make
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.kernels import Choice
from dstbench.sparsity import Sparsifier

METHODS: list[type[Sparsifier]] = [Static, RigL, MagRan]


pytestmark = with_kernels


class UNet(nn.Module):
    """Down, a projection of tokens, and up again, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, 24)
        self.tokens = nn.Linear(24, 24)
        self.up = nn.Conv2d(24, 16, 1)
        self.leave = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        fine = nn.functional.silu(self.enter(images))
        coarse = nn.functional.silu(self.norm(self.down(fine)))
        coarse = coarse + self.tokens(coarse.movedim(1, -1)).movedim(-1, 1)
        again = nn.functional.interpolate(self.up(coarse), scale_factor=2)
        out: Tensor = self.leave(torch.cat([fine, again], dim=1))
        return out


class Strokes(nn.Module):
    """A bidirectional GRU of two layers, and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 16, 2, bidirectional=True, batch_first=True)
        self.leave = nn.Linear(32, 3)

    def forward(self, sequences: Tensor) -> Tensor:
        out: Tensor = self.leave(self.gru(sequences)[0])
        return out


NETWORKS: dict[type[nn.Module], tuple[int, ...]] = {UNet: (5, 3, 8, 8), Strokes: (5, 7, 3)}
"""With the shape of a batch."""

TAKEN = {UNet: 5, Strokes: 9}
"""Number of weights that kernels take."""


class Training:
    """A network in training; the data of a step depend on its number alone."""

    def __init__(
        self,
        network: type[nn.Module],
        kind: type[Sparsifier] | None,
        kernels: Any = "sparse",
        sparsity: float = 0.8,
        **settings: Any,
    ) -> None:
        torch.manual_seed(0)
        self.model = network()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-2)
        self.shape = NETWORKS[network]
        self.sparsifier = None
        if kind:
            settings = {"distribution": "uniform"} | settings
            self.sparsifier = make(kind, sparsity, **settings)
            self.sparsifier.attach(self.model, self.optimizer, kernels=kernels)
        self.steps = 0

    def batch(self) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(self.steps)
        inputs, targets = torch.randn(2, *self.shape, generator=rng)
        return inputs, targets

    def take(self, steps: int, parts: int = 1, clip: float | None = None) -> list[float]:
        losses = []
        for _ in range(steps):
            losses.append(0.0)
            pairs = zip(*(each.chunk(parts) for each in self.batch()), strict=True)
            for inputs, targets in pairs:
                loss = (self.model(inputs) - targets).square().sum() / targets.numel() / parts
                loss.backward()
                losses[-1] += loss.item()
            if clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
            if self.sparsifier:
                assert_zero_outside_masks(self.sparsifier, self.optimizer)
        return losses

    def state(self) -> dict[str, Any]:
        assert self.sparsifier
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparsifier": self.sparsifier.state_dict(),
        }


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    "conditions", [{}, {"parts": 2}, {"clip": 0.1}], ids=["plain", "accumulated", "clipped"]
)
def test_training_is_that_of_masked_kernels(
    network: type[nn.Module], kind: type[Sparsifier], conditions: dict[str, Any]
) -> None:
    sparse, masked = Training(network, kind), Training(network, kind, "masked")
    losses = sparse.take(10, **conditions)
    assert losses == pytest.approx(masked.take(10, **conditions), abs=1e-4)
    taken = TAKEN[network]
    assert sparse.sparsifier.kernels.describe() in (
        f"sparse in {taken} of {taken} layers that they take",
        # a GRU is dense at the steps that need the gradient of all its weights
        f"sparse in 1 of {taken} layers that they take",
    )
    assert masked.sparsifier.kernels.describe() == "masked dense"
    for one, other in zip(sparse.sparsifier.layers, masked.sparsifier.layers, strict=True):
        assert one.active == other.active
        assert torch.equal(one.mask, other.mask)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", [RigL, MagRan])
@pytest.mark.parametrize("structure", ["unstructured", "channels:4"])
def test_kernels_follow_topology_updates(
    network: type[nn.Module], kind: type[Sparsifier], structure: str
) -> None:
    training = Training(network, kind, structure=structure)
    for updates in (1, 2):
        before = [layer.mask.clone() for layer in training.sparsifier.layers]
        training.take(3)
        assert training.sparsifier.topology_updates == updates
        masks = [layer.mask for layer in training.sparsifier.layers]
        assert not all(map(torch.equal, before, masks))
        inputs, _ = training.batch()
        found = training.model(inputs)
        dense = copy.deepcopy(training.model)
        torch.testing.assert_close(found, dense(inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_dense_gradients_are_those_of_masked_kernels(network: type[nn.Module]) -> None:
    def shown(kernels: str) -> dict[str, Tensor]:
        training, gradients = Training(network, RigL, kernels, sparsity=0.8), {}
        original = training.sparsifier.growth_scores

        def growth_scores(layer: Any, rng: torch.Generator) -> Tensor:
            gradients[layer.name] = layer.dense_gradient.clone()
            scores: Tensor = original(layer, rng)
            return scores

        training.sparsifier.growth_scores = growth_scores
        training.take(3)
        return gradients

    sparse, masked = shown("sparse"), shown("masked")
    assert len(masked) == TAKEN[network]
    for name, gradient in masked.items():
        torch.testing.assert_close(sparse[name], gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", METHODS)
def test_a_resumed_training_is_the_same_bit_for_bit(
    network: type[nn.Module], kind: type[Sparsifier]
) -> None:
    whole, first = Training(network, kind), Training(network, kind)
    losses = whole.take(9)
    assert first.take(4) == losses[:4]
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = Training(network, kind)
    resumed.model.load_state_dict(saved["model"])
    resumed.optimizer.load_state_dict(saved["optimizer"])
    resumed.sparsifier.load_state_dict(saved["sparsifier"])
    resumed.steps = 4
    assert resumed.take(5) == losses[4:]
    assert_same_parameters(resumed.model, whole.model)
    for one, other in zip(resumed.sparsifier.layers, whole.sparsifier.layers, strict=True):
        assert torch.equal(one.mask, other.mask)


def test_the_average_is_computed_likewise() -> None:
    torch.manual_seed(0)
    model = UNet()
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters())
    sparsifier = Static(0.8, total_steps=10)
    sparsifier.attach(model, optimizer, averaged=average, kernels="sparse")
    inputs = torch.randn(NETWORKS[UNet])
    assert torch.equal(model(inputs), average(inputs))
    assert type(average.down) is type(model.down) is not nn.Conv2d


def kinds(model: nn.Module) -> list[type[nn.Module]]:
    return [type(module) for module in model.modules()]


@pytest.mark.parametrize("network", NETWORKS)
def test_detaching_gives_classes_back(network: type[nn.Module]) -> None:
    before = kinds(network())
    training = Training(network, Static)
    assert kinds(training.model) != before
    training.take(1)
    inputs, _ = training.batch()
    expected = training.model(inputs)
    training.sparsifier.detach()
    assert kinds(training.model) == before
    torch.testing.assert_close(training.model(inputs), expected, atol=1e-5, rtol=1e-4)
    training.sparsifier.attach(training.model, training.optimizer, kernels="sparse")
    assert torch.equal(training.model(inputs), expected)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", METHODS)
def test_at_sparsity_zero_all_is_as_without(
    network: type[nn.Module], kind: type[Sparsifier]
) -> None:
    attached, plain = Training(network, kind, sparsity=0.0), Training(network, None)
    assert attached.take(7) == plain.take(7)
    assert_same_parameters(attached.model, plain.model)
    assert kinds(attached.model) == kinds(plain.model)


def test_autocast_is_left_to_dense_kernels() -> None:
    def outputs(kernels: str) -> Tensor:
        training = Training(UNet, Static, kernels)
        with torch.autocast("cpu", torch.bfloat16):
            found: Tensor = training.model(training.batch()[0])
        return found

    assert torch.equal(outputs("sparse"), outputs("masked"))


@pytest.mark.parametrize("network", NETWORKS)
def test_tiny_layers_are_left_to_dense_kernels(network: type[nn.Module]) -> None:
    auto, masked = Training(network, RigL, "auto"), Training(network, RigL, "masked")
    assert auto.take(4) == masked.take(4)
    assert_same_parameters(auto.model, masked.model)
    assert auto.sparsifier.kernels.describe() == "masked dense"
    assert auto.sparsifier.kernels.bytes == 0


def test_a_choice_of_ones_own() -> None:
    never = Choice("auto", dict.fromkeys(Choice().thresholds, (0.0, 0.0, 0.0)))
    chosen, masked = Training(UNet, Static, never), Training(UNet, Static, "masked")
    assert chosen.take(2) == masked.take(2)


def test_kernels_that_there_are_not() -> None:
    model = UNet()
    with pytest.raises(SparsityError, match='are "auto", "masked" or "sparse", not "dense"'):
        Static(0.8, total_steps=10).attach(
            model,
            torch.optim.SGD(model.parameters()),
            kernels="dense",  # type: ignore[arg-type]
        )
