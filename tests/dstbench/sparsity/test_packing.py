"""Weights held as their active values alone: what is computed with them, and who sees them so."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from dstbench_magran import MagRan
from dstbench_rigl import RigL
from dstbench_static import Static
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RAdam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dstbench.errors import SparsityError
from dstbench.kernels import library
from dstbench.sparsity import Layer, Sparsifier, packing
from dstbench.sparsity.optimizers import state_of

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason="no sparse kernels here")


@pytest.fixture(autouse=True)
def pack_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LEAST", 0)


IMAGES = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """Every kind of layer and block that kernels take, and a layer that they do not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.block = ResnetBlock2D(in_channels=32, temb_channels=None, groups=4)
        self.attention = Attention(
            32, heads=4, dim_head=8, norm_num_groups=4, residual_connection=True
        )
        self.dilated = nn.Conv2d(32, 16, 3, dilation=2, padding=2)
        self.gru = nn.GRU(16, 12, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 16)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.block(self.down(self.conv(images).relu()), None)
        hidden = self.dilated(self.attention(hidden))
        states, _ = self.gru(hidden.flatten(2).mT)
        return self.head(states)


class Training:
    """A training loop, which packs before every step or never."""

    def __init__(
        self,
        method: type[Sparsifier],
        packs: bool,
        *,
        kernels: Any = "sparse",
        sparsity: float = 0.8,
        make: Callable[[Any], Optimizer] = lambda p: AdamW(p, lr=0.01),
        **settings: Any,
    ) -> None:
        torch.manual_seed(0)
        self.network = Network()
        self.optimizer = make(self.network.parameters())
        self.averaged = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        if method is not Static:
            settings = {"exploration_frequency": 5} | settings
        self.sparsifier = method(
            sparsity, total_steps=40, distribution="uniform", **settings
        ).attach(self.network, self.optimizer, averaged=self.averaged.module, kernels=kernels)
        self.packs = packs
        self.packed: list[bool] = []

    def take(self, steps: int) -> Training:
        for _ in range(steps):
            if self.packs:
                self.sparsifier.pack()
            self.packed.append(self.sparsifier.layers[0].values is not None)
            self.network(IMAGES).square().mean().backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 0.1)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.averaged.update_parameters(self.network)
        return self

    def everything(self) -> dict[str, Tensor]:
        """Weights, averages and the optimizer's state, in the shapes of the weights."""
        self.sparsifier.unpack()
        found = {f"weight {n}": p for n, p in self.network.named_parameters()}
        found |= {f"average {n}": p for n, p in self.averaged.named_parameters()}
        for layer in self.sparsifier.layers:
            for i, state in enumerate(state_of(self.optimizer, layer.weight)):
                found[f"state {i} of {layer.name}"] = state
        return {name: each.detach().clone() for name, each in found.items()}


@pytest.mark.parametrize("method", [Static, RigL, MagRan])
@pytest.mark.parametrize("kernels", ["sparse", "auto"])
@pytest.mark.parametrize("structure", ["unstructured", "channels:4"])
def test_packed_steps_are_the_same_but_for_rounding(
    method: type[Sparsifier], kernels: str, structure: str
) -> None:
    given = {"kernels": kernels, "structure": structure}
    packed = Training(method, True, **given).take(12)
    whole = Training(method, False, **given).take(12)
    assert packed.sparsifier.topology_updates == whole.sparsifier.topology_updates
    expected = whole.everything()
    assert packed.everything().keys() == expected.keys()
    for name, value in packed.everything().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4, msg=name)
    for one, other in zip(packed.sparsifier.layers, whole.sparsifier.layers, strict=True):
        assert torch.equal(one.mask, other.mask)


@pytest.mark.parametrize("make", [
    lambda p: Adam(p, lr=0.01), lambda p: RAdam(p, lr=0.01), lambda p: AdamW(p, amsgrad=True),
    lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: SGD(p, lr=0.1),
    lambda p: AdamW(p, lr=0.01, fused=True), lambda p: AdamW(p, lr=0.01, foreach=True),
])  # fmt: skip
def test_the_optimizer_state_goes_along(make: Callable[[Any], Optimizer]) -> None:
    packed = Training(MagRan, True, make=make).take(12)
    expected = Training(MagRan, False, make=make).take(12).everything()
    assert any(packed.packed)
    for name, value in packed.everything().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_what_is_held_while_packed() -> None:
    training = Training(Static, True).take(2)
    held = {layer.name: layer for layer in training.sparsifier.layers}
    assert held.pop("dilated.weight").values is None  # which no kernel takes
    for name, layer in held.items():
        values = dict(training.network.named_parameters())[name]
        assert values is layer.values
        assert values.shape == (layer.active,)
        averaged = dict(training.averaged.module.named_parameters())[name]
        assert averaged.shape == (layer.active,)
        assert {t.shape for t in training.optimizer.state[values].values()} == {(), values.shape}
        assert layer.weight.isnan().all()
        assert layer.weight.untyped_storage().nbytes() == 4
        assert layer.weight not in training.optimizer.state
    trained = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in training.network.parameters()}


def test_the_weights_that_come_back_are_those_that_went() -> None:
    training = Training(Static, True)
    before = dict(training.network.named_parameters())
    values = {name: each.detach().clone() for name, each in before.items()}
    training.sparsifier.pack()
    training.sparsifier.unpack()
    for name, weight in training.network.named_parameters():
        assert weight is before[name]
        assert torch.equal(weight, values[name])
    assert [*training.network.state_dict()] == [*Network().state_dict()]


def test_updates_leave_weights_packed() -> None:
    training = Training(RigL, False)
    training.sparsifier.pack()
    training.take(12)
    assert training.packed == [True] * 12
    assert training.sparsifier.topology_updates == 2
    for layer in training.sparsifier.layers:
        assert layer.values is None or layer.weight.isnan().all()


class Observing(MagRan):
    """Looks at weights after every third step."""

    name = "observing"

    def observes_at(self, step: int) -> bool:
        return step % 3 == 0

    def observe(self, layer: Layer, step: int) -> None:
        assert layer.weight.shape == layer.mask.shape
        assert layer.weight.any()


@pytest.mark.parametrize("packs", [True, False])
def test_weights_are_whole_where_a_method_observes_them(packs: bool) -> None:
    training = Training(Observing, packs)
    training.sparsifier.pack()
    training.take(9)
    assert training.packed == ([True, True, False] * 3 if packs else [True] * 2 + [False] * 7)


class Thinning(MagRan):
    """Has fewer connections at every update, and then more."""

    name = "thinning"

    def density_at(self, step: int) -> float:
        return {0: 0.6, 5: 0.3, 10: 0.2, 15: 0.4}.get(step - step % 5, 0.2)


@pytest.mark.parametrize("grown_state", ["zero", "mean"])
def test_numbers_of_connections_may_change(grown_state: str) -> None:
    packed = Training(Thinning, True, grown_state=grown_state).take(24)
    assert packed.packed == [False] * 5 + [True] * 19
    expected = Training(Thinning, False, grown_state=grown_state).take(24).everything()
    for name, value in packed.everything().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("given", [
    {"make": lambda p: Adagrad(p, lr=0.01, initial_accumulator_value=0.1)},
    {"kernels": "masked"}, {"sparsity": 0.0}, {"sparsity": 0.4},
    {"grown_state": "keep"},
])  # fmt: skip
def test_weights_stay_whole_where_they_cannot_be_packed(given: dict[str, Any]) -> None:
    assert not any(Training(MagRan, True, **given).take(4).packed)


def test_small_networks_stay_whole_unless_kernels_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "LEAST", 10**6)
    assert not any(Training(Static, True, kernels="auto").take(3).packed)
    assert all(Training(Static, True, kernels="sparse").take(3).packed)


def test_weights_that_another_optimizer_trains_stay_whole() -> None:
    network = Network()
    heads = SGD(network.head.parameters(), lr=0.1)
    others = [p for name, p in network.named_parameters() if not name.startswith("head")]
    optimizer = SGD(others, lr=0.1)
    weights = {f"{n}.weight": getattr(network, n).weight for n in ("conv", "down")}
    sparsifier = Static(0.8, total_steps=9, distribution="uniform").attach(
        network, optimizer, weights=weights, kernels="sparse"
    )
    optimizer.param_groups[0]["params"] = [p for p in others if p is not network.down.weight]
    heads.add_param_group({"params": [network.down.weight]})
    sparsifier.pack()
    packed = {layer.name for layer in sparsifier.layers if layer.values is not None}
    assert packed == {"conv.weight"}


def test_weights_stay_whole_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "why_not", lambda: "none here")
    assert not any(Training(Static, True, kernels="auto").take(3).packed)


def test_a_weight_that_a_module_without_kernels_uses_too_stays_whole() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 16), nn.Bilinear(4, 4, 16))
    network[1].weight = nn.Parameter(torch.randn(16, 4, 4))
    network.append(nn.Embedding(16, 16))
    network[2].weight = network[0].weight
    weights = {"0.weight": network[0].weight}
    optimizer = AdamW(network.parameters())
    sparsifier = Static(0.9, total_steps=9).attach(
        network, optimizer, weights=weights, kernels="sparse"
    )
    sparsifier.pack()
    assert sparsifier.layers[0].values is None


def test_what_computes_densely_has_all_weights() -> None:
    training = Training(Static, True).take(1)
    network, sparsifier = training.network, training.sparsifier
    sparsifier.unpack()
    expected = network(IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = network(IMAGES)
    sparsifier.pack()
    torch.testing.assert_close(network(IMAGES), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(IMAGES), coarse)
        network(IMAGES).float().square().mean().backward()
    for layer in sparsifier.sparse_layers:
        assert layer.parameter.grad is not None
        assert layer.parameter.grad.isfinite().all()
    sparsifier.unpack()
    torch.testing.assert_close(copy.deepcopy(network)(IMAGES), expected)


def test_copies_have_whole_weights() -> None:
    training = Training(Static, True).take(2)
    training.sparsifier.pack()
    network = training.network
    copied = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    training.sparsifier.unpack()
    for each in copied:
        assert each.state_dict().keys() == network.state_dict().keys()
        for name, weight in each.state_dict().items():
            assert torch.equal(weight, network.state_dict()[name])
        torch.testing.assert_close(each(IMAGES), network(IMAGES))
        each(IMAGES).sum().backward()
        assert all(p.grad is not None for p in each.parameters())


def test_a_network_that_uses_its_weights_by_hand() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, tokens: Tensor) -> Tensor:
            hidden = nn.functional.linear(tokens, self.first.weight / 2, self.first.bias)
            return self.second(hidden) @ self.get_parameter("second.weight")

    def train(packs: bool) -> list[Tensor]:
        torch.manual_seed(0)
        network = Tied()
        optimizer = SGD(network.parameters(), lr=0.1)
        sparsifier = Static(0.7, total_steps=9).attach(network, optimizer, kernels="sparse")
        for _ in range(3):
            if packs:
                sparsifier.pack()
            network(torch.ones(5, 12)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        sparsifier.unpack()
        return [layer.weight.detach() for layer in sparsifier.layers]

    for one, other in zip(train(True), train(False), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_gradients_while_packed() -> None:
    def penalty(packs: bool) -> list[Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 4, 1))
        optimizer = AdamW(network.parameters())
        sparsifier = Static(0.7, total_steps=9).attach(network, optimizer, kernels="sparse")
        if packs:
            sparsifier.pack()
        images = IMAGES.clone().requires_grad_()
        of_images = torch.autograd.grad(network(images).sum(), images, create_graph=True)[0]
        (of_images.square().sum() + network(images).square().sum()).backward()
        optimizer.step()
        sparsifier.unpack()
        return [layer.weight.detach().clone() for layer in sparsifier.layers]

    for one, other in zip(penalty(True), penalty(False), strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_weights_stay_frozen() -> None:
    training = Training(MagRan, True)
    training.network.conv.weight.requires_grad_(False)
    before = training.network.conv.weight.detach().clone()
    training.take(3)
    training.network.head.requires_grad_(False)
    training.take(4)
    training.sparsifier.unpack()
    assert torch.equal(training.network.conv.weight, before)
    trained = {name for name, each in training.network.named_parameters() if each.requires_grad}
    assert not {"conv.weight", "head.weight"} & trained
    assert "down.weight" in trained


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kernels", ["sparse", "auto"])
def test_the_gradient_of_all_connections_is_that_of_a_dense_pass(parts: int, kernels: str) -> None:
    seen: dict[str, Tensor] = {}

    class Noting(RigL):
        def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
            seen[layer.name] = layer.dense_gradient.clone()
            assert layer.weight.grad is not None
            assert layer.weight.grad.shape == layer.weight.shape
            return super().growth_scores(layer, rng)

    training = Training(Noting, True, kernels=kernels).take(4)
    training.sparsifier.unpack()
    dense = copy.deepcopy(training.network)
    dense(IMAGES).square().mean().backward()
    training.sparsifier.pack()
    for part in IMAGES.chunk(parts):
        (training.network(part).square().mean() / parts).backward()
    training.optimizer.step()
    assert training.sparsifier.topology_updates == 1
    for name, gradient in seen.items():
        expected = dense.get_parameter(name).grad
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4, msg=name)


def test_micro_batches_add_up() -> None:
    def train(packs: bool) -> dict[str, Tensor]:
        training = Training(MagRan, packs)
        for _ in range(8):
            if packs:
                training.sparsifier.pack()
            for part in IMAGES.chunk(2):
                training.network(part).square().mean().backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        return training.everything()

    expected = train(False)
    for name, value in train(True).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_states_are_not_saved_or_loaded_while_packed() -> None:
    training = Training(MagRan, True).take(2)
    with pytest.raises(SparsityError, match=r"unpack\(\) before states are saved"):
        training.sparsifier.state_dict()
    training.sparsifier.unpack()
    state = training.sparsifier.state_dict()
    training.sparsifier.pack()
    with pytest.raises(SparsityError, match=r"unpack\(\) before"):
        training.sparsifier.load_state_dict(state)


def test_training_goes_on_bit_for_bit_where_it_was_saved() -> None:
    through = Training(MagRan, True).take(16)
    first = Training(MagRan, True).take(8)
    first.sparsifier.unpack()
    states = copy.deepcopy(
        [first.network.state_dict(), first.averaged.state_dict(), first.optimizer.state_dict()]
    )
    second = Training(MagRan, True)
    parts = second.network, second.averaged, second.optimizer
    for each, state in zip(parts, states, strict=True):
        each.load_state_dict(state)
    second.sparsifier.load_state_dict(first.sparsifier.state_dict())
    expected = through.everything()
    for name, value in second.take(8).everything().items():
        assert torch.equal(value, expected[name]), name


def test_detaching_leaves_whole_weights() -> None:
    training = Training(Static, True).take(2)
    training.sparsifier.detach()
    assert training.network.conv.weight.shape == (16, 3, 3, 3)
    assert type(training.network.conv) is nn.Conv2d
    training.network(IMAGES).sum().backward()


def test_another_sparsifier_is_not_attached_to_packed_weights() -> None:
    training = Training(Static, True).take(1)
    other = Static(0.5, total_steps=9)
    values = {"conv.weight": dict(training.network.named_parameters())["conv.weight"]}
    with pytest.raises(SparsityError, match="masked by another sparsifier already"):
        other.attach(training.network, training.optimizer, weights=values)


def test_a_weight_that_is_replaced_while_packed_is_noticed() -> None:
    training = Training(Static, True).take(1)
    training.network.conv.weight = nn.Parameter(torch.zeros(16, 3, 3, 3))
    with pytest.raises(SparsityError, match=r"conv\.weight, which is masked, is no longer"):
        training.optimizer.step()
