"""One topology update: what is dropped, what is grown, and with which optimizer state."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity_methods import (
    GradientGrowth,
    RandomGrowth,
    assert_zero_outside_masks,
    convnet,
    make,
    mlp,
    state_tensors,
    train,
)
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier


class ByTable(DynamicSparsifier):
    """Grows by scores that the test sets."""

    table: Tensor

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return self.table


def masked_linear(
    weight: Tensor,
    mask: Tensor,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    kind: type[DynamicSparsifier] = GradientGrowth,
    **settings: Any,
) -> tuple[nn.Linear, torch.optim.Optimizer, Any]:
    """A linear layer without bias with just these weights and connections."""
    model = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    chosen = optimizer(model.parameters())
    density = int(mask.sum()) / mask.numel()
    sparsifier = make(
        kind,
        1 - density,
        **{"every": 1, "prune_rate": 0.5, "prune_schedule": "constant"} | settings,
    ).attach(model, chosen)
    (layer,) = sparsifier.layers
    assert layer.active == mask.sum()
    with torch.no_grad():
        layer.mask.copy_(mask)
        layer.weight.copy_(weight * mask)
    return model, chosen, sparsifier


def still(parameters: Any) -> torch.optim.Optimizer:
    """An optimizer that moves nothing, so that an update can be followed by hand."""
    return torch.optim.SGD(parameters, lr=0.0, momentum=0.9)


FIRST_ROW = torch.tensor([[True] * 4, [False] * 4])


def test_gradient_growth_by_hand() -> None:
    weight = torch.tensor([[3.0, -1.0, 2.0, -4.0], [0.0, 0.0, 0.0, 0.0]])
    gradient = torch.tensor([[0.0, 5.0, 1.0, 0.0], [0.0, -7.0, 2.0, 6.0]])
    model, optimizer, sparsifier = masked_linear(weight, FIRST_ROW, still)
    (model.weight * gradient).sum().backward()
    optimizer.step()
    # drops 2 of 4: −1 and 2; grows the largest |gradient| of all but 3 and −4: −7 and 6
    assert sparsifier.layers[0].mask.int().tolist() == [[1, 0, 0, 1], [0, 1, 0, 1]]
    assert model.weight.tolist() == [[3.0, 0.0, 0.0, -4.0], [0.0, 0.0, 0.0, 0.0]]
    assert sparsifier.connections_changed == 2
    assert sparsifier.topology_updates == 1


def test_what_is_dropped_and_grown_again_keeps_value_and_momentum() -> None:
    weight = torch.tensor([[3.0, -1.0, 2.0, -4.0], [0.0, 0.0, 0.0, 0.0]])
    gradient = torch.tensor([[0.5, 9.0, 1.0, 0.5], [0.0, -7.0, 2.0, 6.0]])
    model, optimizer, sparsifier = masked_linear(weight, FIRST_ROW, still)
    (model.weight * gradient).sum().backward()
    optimizer.step()
    # drops −1 and 2 again; of the candidates −1 itself has the largest gradient, then −7
    assert sparsifier.layers[0].mask.int().tolist() == [[1, 1, 0, 1], [0, 1, 0, 0]]
    assert model.weight.tolist() == [[3.0, -1.0, 0.0, -4.0], [0.0, 0.0, 0.0, 0.0]]
    momentum = optimizer.state[model.weight]["momentum_buffer"]
    assert momentum.tolist() == [[0.5, 9.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]
    assert sparsifier.connections_changed == 1


def test_zero_valued_active_weights_are_dropped_before_others_by_index() -> None:
    weight = torch.tensor([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    model, optimizer, sparsifier = masked_linear(weight, FIRST_ROW, still, ByTable, prune_rate=0.25)
    sparsifier.table = torch.tensor([[0, 0, 0, 0], [0, 0, 5, 0]])
    model.weight.sum().backward()
    optimizer.step()
    # kept are 2 and, of three zeros, the first two
    assert sparsifier.layers[0].mask.int().tolist() == [[1, 1, 1, 0], [0, 0, 1, 0]]


def test_growth_ties_go_to_the_lower_index_also_under_channels_last() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 2, 2, bias=False).to(memory_format=torch.channels_last)
    optimizer = still(model.parameters())
    sparsifier = make(ByTable, 0.5, every=1, prune_rate=1.0, prune_schedule="constant")
    sparsifier.table = torch.ones(2, 3, 2, 2)
    sparsifier.attach(model, optimizer)
    model(torch.randn(1, 3, 2, 2)).sum().backward()
    optimizer.step()
    assert sparsifier.layers[0].mask.flatten().nonzero().flatten().tolist() == list(range(12))


def test_the_whole_layer_may_be_replaced() -> None:
    weight = torch.arange(1.0, 9).reshape(2, 4)
    model, optimizer, sparsifier = masked_linear(weight, FIRST_ROW, still, ByTable, prune_rate=1.0)
    sparsifier.table = ~FIRST_ROW
    model.weight.sum().backward()
    optimizer.step()
    assert torch.equal(sparsifier.layers[0].mask, ~FIRST_ROW)
    assert model.weight.count_nonzero() == 0
    assert sparsifier.connections_changed == 4


def test_a_prune_rate_of_zero_changes_nothing() -> None:
    weight = torch.arange(1.0, 9).reshape(2, 4)
    model, optimizer, sparsifier = masked_linear(weight, FIRST_ROW, still, prune_rate=0)
    model.weight.sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, weight * FIRST_ROW)
    assert (sparsifier.topology_updates, sparsifier.connections_changed) == (1, 0)


def test_the_prune_rate_follows_its_schedule() -> None:
    """100 active weights, p = 0.4; exploration stops after 6 of 8 steps, updates every second."""
    changed = {}
    for schedule in ("constant", "linear", "cosine"):
        torch.manual_seed(0)
        model = nn.Linear(20, 10, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        sparsifier = make(
            ByTable, 0.5, total_steps=8, every=2, prune_rate=0.4, prune_schedule=schedule
        )
        sparsifier.attach(model, optimizer)
        (layer,) = sparsifier.layers
        counts: list[tuple[int, int]] = []
        sparsifier.on_topology_update = lambda step, changed, to=counts: to.append((step, changed))
        for _ in range(8):
            with torch.no_grad():
                layer.weight.copy_(torch.randn(10, 20) * layer.mask)
            sparsifier.table = (~layer.mask).int()
            optimizer.step()
        changed[schedule] = counts
    # progress 2/6 and 4/6; at step 6 exploration is over
    assert changed == {
        "constant": [(2, 40), (4, 40)],
        "linear": [(2, 27), (4, 13)],  # 40 · 2/3, 40 · 1/3
        "cosine": [(2, 30), (4, 10)],  # 20 · (1 + 1/2), 20 · (1 − 1/2)
    }


@pytest.mark.parametrize(
    ("stop_fraction", "expected"), [(0.75, [3, 6]), (1.0, [3, 6, 9]), (0.0, []), (0.76, [3, 6, 9])]
)
def test_when_the_topology_is_updated(stop_fraction: float, expected: list[int]) -> None:
    sparsifier = make(GradientGrowth, 0.5, total_steps=12, stop_fraction=stop_fraction)
    updates = [step for step in range(1, 13) if sparsifier.updates_at(step)]
    assert updates == expected
    assert sparsifier.dense_gradient_steps(12) == len(expected), "before it is attached, too"
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    sparsifier.attach(model, optimizer)
    assert [sparsifier.dense_gradient_steps(n) for n in (0, 3, 12)] == [
        0,
        len([step for step in expected if step <= 3]),
        len(expected),
    ]
    train(model, optimizer, range(12))
    assert sparsifier.topology_updates == len(expected)


def test_only_methods_that_use_it_compute_the_dense_gradient() -> None:
    model = mlp()
    sparsifier = make(RandomGrowth, 0.5).attach(model, torch.optim.AdamW(model.parameters()))
    assert sparsifier.dense_gradient_steps(100) == 0
    dense = make(GradientGrowth, 0).attach(mlp_ := mlp(), torch.optim.AdamW(mlp_.parameters()))
    assert dense.dense_gradient_steps(100) == 0


@settings(max_examples=40, deadline=None)
@given(
    sparsity=st.floats(0, 0.99),
    prune_rate=st.floats(0, 1),
    kind=st.sampled_from([RandomGrowth, GradientGrowth]),
    distribution=st.sampled_from(["uniform", "er", "erk"]),
    seed=st.integers(0, 100),
)
def test_no_update_changes_a_layers_count(
    sparsity: float,
    prune_rate: float,
    kind: type[DynamicSparsifier],
    distribution: str,
    seed: int,
) -> None:
    model = convnet(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(
        kind, sparsity, every=1, prune_rate=prune_rate, distribution=distribution, seed=seed
    ).attach(model, optimizer)
    counts = [layer.active for layer in sparsifier.layers]
    assert sum(counts) == round((1 - sparsity) * 240)
    for step in range(3):
        masks = [layer.mask.clone() for layer in sparsifier.layers]
        train(model, optimizer, range(step, step + 1), shape=(3, 4, 4))
        assert [int(layer.mask.count_nonzero()) for layer in sparsifier.layers] == counts
        assert_zero_outside_masks(sparsifier, optimizer)
        replaced = sum(
            int((layer.mask & ~before).count_nonzero())
            for layer, before in zip(sparsifier.layers, masks, strict=True)
        )
        if sparsifier.sparse_layers:
            assert replaced == sparsifier.connections_changed


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adam fused": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "amsgrad": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
}
STATES = {
    "adam": {"exp_avg", "exp_avg_sq"},
    "adam fused": {"exp_avg", "exp_avg_sq"},
    "amsgrad": {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
    "sgd": {"momentum_buffer"},
    "rmsprop": {"square_avg", "momentum_buffer", "grad_avg"},
    "adagrad": {"sum"},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_grown_connections_start_from_nothing_and_others_go_on(name: str) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    sparsifier = make(RandomGrowth, 0.5, every=5, prune_rate=0.8, prune_schedule="constant")
    sparsifier.attach(model, optimizer)
    twin = copy.deepcopy(model)
    twin_optimizer = OPTIMIZERS[name](twin.parameters())
    twin_sparsifier = make(RandomGrowth, 0.5, every=100).attach(twin, twin_optimizer)
    train(model, optimizer, range(5))
    train(twin, twin_optimizer, range(5))  # the same up to the update, which it does not have
    for layer, before in zip(sparsifier.layers, twin_sparsifier.layers, strict=True):
        survived = layer.mask & before.mask
        grown = layer.mask & ~before.mask
        dropped = before.mask & ~layer.mask
        assert min(survived.sum(), grown.sum(), dropped.sum()) > 0
        assert survived.sum() > round(0.2 * layer.active), "none was dropped and grown again"
        assert grown.sum() == dropped.sum()
        assert torch.equal(layer.weight[survived], before.weight[survived])
        assert layer.weight[~survived].count_nonzero() == 0
        states = state_tensors(optimizer, layer.weight)
        assert states.keys() == STATES[name]
        for key, value in state_tensors(twin_optimizer, before.weight).items():
            assert torch.equal(states[key][survived], value[survived])
            assert states[key][~survived].count_nonzero() == 0
            assert value[dropped].count_nonzero() > 0


def late_adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.001, betas=(0.9, 0.999), eps=1e-12)


def first_update_of_a_grown_weight(grown_state: str) -> tuple[float, Any, Any]:
    """Size in learning rates; every gradient is 2, and Adam's step count is at 20,000."""
    weight = torch.tensor([[5.0, 6.0], [0.0, 0.0]])
    mask = torch.tensor([[True, True], [False, False]])
    model, optimizer, sparsifier = masked_linear(
        weight, mask, late_adam, ByTable, every=2, prune_rate=0.5, grown_state=grown_state
    )
    sparsifier.table = torch.tensor([[0, 0], [1, 0]])
    for step in range(2):
        (2 * model.weight).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 0:
            state = optimizer.state[model.weight]
            state["step"].fill_(20_000)
            state["exp_avg"].copy_(2.0 * sparsifier.layers[0].mask)
            state["exp_avg_sq"].copy_(4.0 * sparsifier.layers[0].mask)
    assert sparsifier.layers[0].mask.tolist() == [[False, True], [True, False]]
    assert model.weight[1, 0] == 0
    (2 * model.weight).sum().backward()
    optimizer.step()
    assert model.weight[0, 0] == model.weight[1, 1] == 0
    return abs(model.weight[1, 0].item()) / 0.001, optimizer.state[model.weight], model.weight


def test_zeroed_moments_make_a_first_update_of_sqrt_ten_learning_rates() -> None:
    # without bias correction: 0.1 g / √(0.001 g²) = √10
    size, _, _ = first_update_of_a_grown_weight("zero")
    assert size == pytest.approx(math.sqrt(10), rel=1e-4)


def test_the_mean_second_moment_bounds_the_first_update() -> None:
    # the mean is g² = 4, so 0.1 g / √(0.999 g² + 0.001 g²) = 0.1
    size, state, _ = first_update_of_a_grown_weight("mean")
    assert size == pytest.approx(0.1, rel=1e-4)
    assert state["exp_avg_sq"][~torch.tensor([[False, True], [True, False]])].count_nonzero() == 0


def test_mean_is_over_the_weights_that_have_a_second_moment() -> None:
    weight = torch.tensor([[3.0, -1.0, 2.0, -4.0], [0.0, 0.0, 0.0, 0.0]])
    model, optimizer, sparsifier = masked_linear(
        weight, FIRST_ROW, late_adam, ByTable, grown_state="mean"
    )
    sparsifier.table = torch.tensor([[0, 9, 0, 0], [0, 8, 0, 0]])
    (model.weight * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    optimizer.step()
    # exp_avg_sq is 0.001 g²; −1 is dropped and grown again, so the mean is of 1, 4 and 16
    squares = optimizer.state[model.weight]["exp_avg_sq"] / 0.001
    expected = [[1.0, 4.0, 0.0, 16.0], [0.0, 7.0, 0.0, 0.0]]
    torch.testing.assert_close(squares, torch.tensor(expected))
    assert optimizer.state[model.weight]["exp_avg"][1].count_nonzero() == 0


def test_keep_keeps_what_was_left_in_the_moments() -> None:
    weight = torch.tensor([[3.0, -1.0, 2.0, -4.0], [0.0, 0.0, 0.0, 0.0]])
    model, optimizer, sparsifier = masked_linear(
        weight, FIRST_ROW, late_adam, ByTable, every=2, grown_state="keep"
    )
    sparsifier.table = torch.tensor([[0, 0, 0, 0], [9, 8, 0, 0]])
    model.weight.sum().backward()
    optimizer.step()
    state = optimizer.state[model.weight]
    for key in ("exp_avg", "exp_avg_sq"):
        state[key].copy_(torch.arange(1.0, 9).reshape(2, 4))
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()
    assert sparsifier.layers[0].mask.int().tolist() == [[1, 0, 0, 1], [1, 1, 0, 0]]
    assert model.weight[~sparsifier.layers[0].mask].count_nonzero() == 0
    expected = torch.arange(1.0, 9).reshape(2, 4)
    torch.testing.assert_close(state["exp_avg"], 0.9 * expected)
    torch.testing.assert_close(state["exp_avg_sq"], 0.999 * expected)


@pytest.mark.parametrize("kind", [RandomGrowth, GradientGrowth])
@pytest.mark.parametrize("grown_state", ["zero", "mean", "keep"])
def test_inactive_weights_are_zero_after_every_step(
    kind: type[DynamicSparsifier], grown_state: str
) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    sparsifier = make(kind, 0.7, grown_state=grown_state).attach(model, optimizer)

    def check() -> None:
        assert_zero_outside_masks(sparsifier, optimizer, moments=grown_state != "keep")

    train(model, optimizer, range(13), after_step=check)
    assert sparsifier.topology_updates == 4
    left = [
        value[~layer.mask].count_nonzero() > 0
        for layer in sparsifier.layers
        for value in state_tensors(optimizer, layer.weight).values()
    ]
    assert all(left) if grown_state == "keep" else not any(left)


def unmasked_gradients(model: nn.Module, *batches: Tensor) -> dict[str, Tensor]:
    """Mean-loss gradients of a copy that has no sparsifier, at the same masked weights."""
    twin = copy.deepcopy(model)
    for batch in batches:
        (twin(batch).square().mean() / len(batches)).backward()
    return {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_the_dense_gradient_is_that_of_an_unmasked_backward(
    micro_batches: int, set_to_none: bool
) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(GradientGrowth, 0.8, every=2).attach(model, optimizer)
    for step in range(1, 7):
        batches = torch.randn(12, 6, generator=torch.Generator().manual_seed(step))
        expected = unmasked_gradients(model, batches)
        sparsifier.shown.clear()
        for batch in batches.chunk(micro_batches):
            (model(batch).square().mean() / micro_batches).backward()
            held = [layer.has_dense_gradient for layer in sparsifier.layers]
            assert held == [step % 2 == 0] * 2, "kept at the steps that need it, and only there"
        for layer in sparsifier.layers:
            assert layer.weight.grad is not None
            torch.testing.assert_close(layer.weight.grad, expected[layer.name] * layer.mask)
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        assert sparsifier.shown.keys() == ({"0.weight", "3.weight"} if step % 2 == 0 else set())
        for name, gradient in sparsifier.shown.items():
            torch.testing.assert_close(gradient, expected[name])
        assert not any(layer.has_dense_gradient for layer in sparsifier.layers)


class WithoutAsking(RandomGrowth):
    """Forgets needs_dense_gradient."""

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs_()


class WithoutAskingAtFirst(Sparsifier):
    """Forgets needs_initial_gradient."""

    def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return layer.dense_gradient.abs_()


@pytest.mark.parametrize("kind", [WithoutAsking, WithoutAskingAtFirst])
def test_a_dense_gradient_that_nobody_asked_for(kind: type[Sparsifier]) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def first_update() -> None:
        make(kind, 0.5, every=1).attach(model, optimizer)
        train(model, optimizer, range(1))

    with pytest.raises(SparsityError) as caught:
        first_update()
    assert str(caught.value) == (
        "0.weight has no dense gradient here: set needs_dense_gradient = True to have it in "
        "topology updates, needs_initial_gradient = True to have it while the first mask is chosen"
    )


def test_a_listener_is_told_of_each_update() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(RandomGrowth, 0.5, total_steps=12, every=3).attach(model, optimizer)
    unheard = sparsifier.state_dict().keys()
    masks = [layer.mask.clone() for layer in sparsifier.layers]
    heard, expected = [], []

    def hear(step: int, changed: int) -> None:
        heard.append((step, changed))
        now = [layer.mask.clone() for layer in sparsifier.layers]
        grown = sum(int((new & ~old).sum()) for new, old in zip(now, masks, strict=True))
        expected.append((sparsifier.step, grown))
        masks[:] = now

    sparsifier.on_topology_update = hear
    train(model, optimizer, range(12))
    assert heard == expected
    assert [step for step, _ in heard] == [3, 6]  # exploration stops after nine steps
    assert all(changed > 0 for _, changed in heard)
    assert sparsifier.state_dict().keys() == unheard


def test_a_skipped_update_is_not_told() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparsifier = make(RandomGrowth, 0.5, every=1).attach(model, optimizer)
    sparsifier.on_topology_update = lambda step, changed: pytest.fail("nothing was updated")
    (model.weight.sum() * math.nan).backward()
    optimizer.step()
    assert sparsifier.skipped_updates == 1


class Poisoned(nn.Module):
    """Its output's gradient is not finite at one chosen element of one parameter."""

    def __init__(self, where: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.where = where
        self.linear = nn.Linear(4, 4)
        self.poison: float | None = None

    def loss(self, mask: Tensor) -> Tensor:
        coefficients = torch.ones(4, 4)
        if self.poison is not None and self.where != "bias":
            chosen = mask if self.where == "active" else ~mask
            coefficients[tuple(chosen.nonzero()[0])] = self.poison
        bias = 1.0 if self.poison is None or self.where != "bias" else self.poison
        return (self.linear.weight * coefficients).sum() + (self.linear.bias * bias).sum()


@pytest.mark.parametrize("kind", [RandomGrowth, GradientGrowth])
@pytest.mark.parametrize("where", ["inactive", "active", "bias"])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("poisoned_micro_batch", [0, 1])
def test_a_gradient_that_is_not_finite_skips_the_update(
    kind: type[DynamicSparsifier], where: str, poison: float, poisoned_micro_batch: int
) -> None:
    model = Poisoned(where)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparsifier = make(kind, 0.5, every=2).attach(model, optimizer)
    (layer,) = sparsifier.layers
    for step in range(1, 5):
        mask = layer.mask.clone()
        for micro_batch in range(2):
            poisoned = step == 2 and micro_batch == poisoned_micro_batch
            model.poison = poison if poisoned else None
            model.loss(mask).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert not layer.has_dense_gradient
        if step == 2:
            assert (sparsifier.topology_updates, sparsifier.skipped_updates) == (0, 1)
            assert torch.equal(layer.mask, mask)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.nan_to_num_(0.1, 0.1, 0.1)
    assert (sparsifier.topology_updates, sparsifier.skipped_updates) == (1, 1)
    assert not torch.equal(layer.mask, mask)
    assert layer.weight[~layer.mask].count_nonzero() == 0


def test_a_skipped_optimizer_step_leaves_no_dense_gradient_behind() -> None:
    """As a gradient scaler does after an overflow: zero the gradients, and try again."""
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(GradientGrowth, 0.5, every=1).attach(model, optimizer)
    first, second = torch.randn(5, 6), torch.randn(5, 6)
    model(first).square().mean().backward()
    optimizer.zero_grad()
    expected = unmasked_gradients(model, second)
    model(second).square().mean().backward()
    optimizer.step()
    for name, gradient in sparsifier.shown.items():
        torch.testing.assert_close(gradient, expected[name])
    assert sparsifier.shown.keys() == {"0.weight", "3.weight"}


def test_an_overflow_that_a_scaler_caught_does_not_cost_an_update() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    sparsifier = make(GradientGrowth, 0.5, every=1).attach(model, optimizer)
    for factor in (math.inf, 1.0):
        scaler.scale(model(torch.ones(2, 6)).square().mean() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() == 512.0
    assert sparsifier.step == 1
    assert (sparsifier.topology_updates, sparsifier.skipped_updates) == (1, 0)
    assert_zero_outside_masks(sparsifier, optimizer)


def test_random_growth_takes_every_candidate_equally_often() -> None:
    weight = torch.tensor([[9.0, 8.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    _, optimizer, sparsifier = masked_linear(weight, FIRST_ROW, still, RandomGrowth, seed=4)
    (layer,) = sparsifier.layers
    sparsifier.total_steps = 10**6
    draws, grown = 1500, torch.zeros(2, 4)
    for _ in range(draws):
        with torch.no_grad():
            layer.mask.copy_(FIRST_ROW)
            layer.weight.copy_(weight)
        optimizer.step()
        assert layer.mask[0, :2].all()
        grown += layer.mask
    counts = grown.flatten()[2:]
    assert counts.sum() == 2 * draws
    # drawing 2 of 6 without replacement: a count's variance is n · 1/3 · 2/3, covariances negative;
    # scaled by 5/6 · 3/2 the statistic is χ² with 5 degrees of freedom (99.9 % quantile: 20.5)
    statistic = ((counts - draws / 3).square() / (draws / 3)).sum() * (5 / 6) * (3 / 2)
    assert statistic < 20.5


def test_unused_layers_are_left_alone_by_gradient_growth() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(GradientGrowth, 0.5, every=1).attach(model, optimizer)
    used, unused = sparsifier.layers
    masks = used.mask.clone(), unused.mask.clone()
    model[0](torch.randn(3, 6)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(used.mask, masks[0])
    assert torch.equal(unused.mask, masks[1])
    assert sparsifier.topology_updates == 1


@pytest.mark.parametrize("kind", [RandomGrowth, GradientGrowth])
def test_a_step_without_any_gradient(kind: type[DynamicSparsifier]) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(kind, 0.5, every=1).attach(model, optimizer)
    idle = (
        pytest.warns(UserWarning, match="is left out") if kind is GradientGrowth else nullcontext()
    )
    with idle:
        optimizer.step()
    assert sparsifier.step == 1
    assert_zero_outside_masks(sparsifier, optimizer, moments=False)


@pytest.mark.parametrize("kind", [RandomGrowth, GradientGrowth])
def test_a_layer_frozen_later_keeps_its_connections(kind: type[DynamicSparsifier]) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(kind, 0.5, every=2).attach(model, optimizer)
    train(model, optimizer, range(2))
    model[0].requires_grad_(False)
    frozen, trained = sparsifier.layers
    before = frozen.weight.clone(), frozen.mask.clone(), trained.mask.clone()
    train(model, optimizer, range(2, 8))
    assert torch.equal(frozen.weight, before[0])
    assert torch.equal(frozen.mask, before[1])
    assert not torch.equal(trained.mask, before[2])
    assert_zero_outside_masks(sparsifier, optimizer)
