"""A fixed mask: what is attached, how it is kept, saved and taken off."""

import copy
import io
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sparsity_methods import (
    GradientGrowth,
    RandomGrowth,
    all_tensors,
    assert_same_parameters,
    assert_zero_outside_masks,
    convnet,
    make,
    mlp,
    train,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dstbench.errors import SparsityError
from dstbench.sparsity import Sparsifier

METHODS = (Sparsifier, RandomGrowth, GradientGrowth)
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw foreach": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, fused=True),
    "adamw loop": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, foreach=False),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, initial_accumulator_value=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.5),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
}


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), 0.01)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_inactive_weights_and_their_moments_stay_exactly_zero(
    kind: type[Sparsifier], name: str
) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    sparsifier = make(kind, 0.7).attach(model, optimizer)
    assert_zero_outside_masks(sparsifier, optimizer, moments=False)
    before = copy.deepcopy(model.state_dict())

    def check() -> None:
        assert_zero_outside_masks(sparsifier, optimizer, moments=sparsifier.step > 1)

    train(model, optimizer, range(11), after_step=check)
    for layer in sparsifier.sparse_layers:
        assert (layer.weight != before[layer.name])[layer.mask].float().mean() > 0.9, "not trained"
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["Muon", "LBFGS"])
@pytest.mark.parametrize("kind", METHODS)
def test_optimizers_that_mix_the_elements_of_a_weight(kind: type[Sparsifier], name: str) -> None:
    if not hasattr(torch.optim, name):
        pytest.skip(f"this torch has no {name}")
    torch.manual_seed(0)
    model = nn.Linear(6, 8, bias=False)
    inputs, targets = torch.randn(20, 6), torch.randn(20, 8)
    settings = {"max_iter": 3} if name == "LBFGS" else {}
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1, **settings)
    sparsifier = make(kind, 0.6).attach(model, optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        return loss

    losses = []
    for _ in range(8):
        losses.append(optimizer.step(closure).item())
        assert_zero_outside_masks(sparsifier, optimizer, moments=False)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
def test_the_number_of_active_weights_is_exact(sparsity: float, distribution: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ConvTranspose2d(7, 5, 1), nn.Linear(5, 11))
    total = 3 * 7 * 9 + 7 * 5 + 5 * 11
    sparsifier = Sparsifier(sparsity, total_steps=1, distribution=distribution)
    sparsifier.attach(model, adamw(model))
    assert sparsifier.sparsifiable == total
    assert sparsifier.active == round((1 - sparsity) * total)
    assert sum(int(layer.mask.count_nonzero()) for layer in sparsifier.layers) == sparsifier.active
    assert sparsifier.densities == {
        layer.name: int(layer.mask.count_nonzero()) / layer.weight.numel()
        for layer in sparsifier.layers
    }


@pytest.mark.parametrize("kind", METHODS)
def test_sparsity_zero_is_dense_training_bit_for_bit(kind: type[Sparsifier]) -> None:
    dense, masked = convnet(), convnet()
    dense_optimizer, masked_optimizer = adamw(dense), adamw(masked)
    sparsifier = make(kind, 0).attach(masked, masked_optimizer)
    train(dense, dense_optimizer, range(20), shape=(3, 5, 5))
    train(masked, masked_optimizer, range(20), shape=(3, 5, 5))
    assert_same_parameters(dense, masked)
    assert sparsifier.active == sparsifier.sparsifiable == 3 * 8 * 9 + 8 * 3


def test_same_seed_same_first_mask_whatever_the_method() -> None:
    def first_masks(kind: type[Sparsifier], seed: int) -> torch.Tensor:
        model = mlp()
        layers = make(kind, 0.8, seed=seed).attach(model, adamw(model)).layers
        return torch.cat([layer.mask.flatten() for layer in layers])

    static = first_masks(Sparsifier, 1)
    assert torch.equal(static, first_masks(RandomGrowth, 1))
    assert torch.equal(static, first_masks(GradientGrowth, 1))
    assert not torch.equal(static, first_masks(Sparsifier, 2))


def test_layers_of_one_shape_have_different_masks() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    one, other = Sparsifier(0.5, total_steps=1).attach(model, adamw(model)).layers
    assert not torch.equal(one.mask, other.mask)


@pytest.mark.parametrize("kind", METHODS)
def test_torchs_global_generator_is_left_alone(kind: type[Sparsifier]) -> None:
    model = mlp()
    optimizer = adamw(model)
    before = torch.get_rng_state()
    sparsifier = make(kind, 0.5).attach(model, optimizer)
    train(model, optimizer, range(7))  # its data come from generators of their own
    assert sparsifier.step == 7
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", METHODS)
def test_clipping_sees_the_norm_of_the_masked_gradient(kind: type[Sparsifier]) -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    optimizer = adamw(model)
    make(kind, 0.8, every=1).attach(model, optimizer)
    twin.load_state_dict(model.state_dict())  # the same masked weights, without a sparsifier
    inputs = torch.randn(5, 6)
    model(inputs).square().sum().backward()
    twin(inputs).square().sum().backward()
    masks = {name: weight != 0 for name, weight in model.named_parameters() if weight.ndim == 2}
    expected = [
        (p.grad * masks[name] if name in masks else p.grad).square().sum()
        for name, p in twin.named_parameters()
        if p.grad is not None
    ]
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    torch.testing.assert_close(norm, torch.stack(expected).sum().sqrt())
    dense_norm = torch.nn.utils.get_total_norm(p.grad for p in twin.parameters())
    assert norm < 0.9 * dense_norm


@pytest.mark.parametrize("kind", METHODS)
def test_memory_beside_the_network_is_one_byte_per_weight(kind: type[Sparsifier]) -> None:
    model = convnet()
    optimizer = adamw(model)
    sparsifier = make(kind, 0.5, every=2).attach(model, optimizer)
    train(model, optimizer, range(5), shape=(3, 5, 5))
    held = [
        tensor
        for owner in (sparsifier, *sparsifier.layers)
        for name, value in vars(owner).items()
        if name not in ("weight", "shown")
        for tensor in all_tensors(value)
    ]
    assert sum(tensor.nbytes for tensor in held) == sparsifier.sparsifiable
    assert {tensor.dtype for tensor in held} == {torch.bool}


def test_explicit_weights_are_the_only_ones_masked() -> None:
    model = mlp()
    weights = {"0.weight": model[0].weight, "3.weight": model[3].weight}
    sparsifier = Sparsifier(0.5, total_steps=1, keep_dense=["3.*"])
    sparsifier.attach(model, adamw(model), weights=weights)
    assert [layer.name for layer in sparsifier.layers] == ["0.weight"]
    assert model[3].weight.count_nonzero() == model[3].weight.numel()


def test_keep_dense_weights_do_not_count() -> None:
    model = mlp()
    sparsifier = Sparsifier(0.5, total_steps=1, keep_dense=["0.*"]).attach(model, adamw(model))
    assert sparsifier.sparsifiable == 64
    assert sparsifier.densities == {"3.weight": 0.5}


def test_detached_training_is_dense_again() -> None:
    model = mlp()
    optimizer = adamw(model)
    sparsifier = make(GradientGrowth, 0.8).attach(model, optimizer)
    train(model, optimizer, range(5))
    sparsifier.detach()
    reference = copy.deepcopy(model)
    reference_optimizer = adamw(reference)
    reference_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, range(5, 10))
    train(reference, reference_optimizer, range(5, 10))
    assert_same_parameters(model, reference)
    assert model[0].weight.count_nonzero() == model[0].weight.numel()
    assert sparsifier.step == 5


@pytest.mark.parametrize("kind", METHODS)
def test_the_averaged_copy_obeys_the_masks(kind: type[Sparsifier]) -> None:
    model = mlp()
    optimizer = adamw(model)
    averaged = AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    sparsifier = make(kind, 0.7)
    sparsifier.attach(model, optimizer, averaged=averaged.module)

    def check() -> None:
        for layer in sparsifier.sparse_layers:
            weight = averaged.module.get_parameter(layer.name)
            assert weight[~layer.mask].count_nonzero() == 0

    def average_and_check() -> None:
        check()  # right after a topology update
        averaged.update_parameters(model)
        check()

    check()
    train(model, optimizer, range(10), after_step=average_and_check)
    changed = averaged.module[0].weight - model[0].weight
    assert changed.abs().max() > 0


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: AveragedModel(model).module])
def test_a_copy_of_an_attached_network_is_free(copier: Callable[[nn.Module], nn.Module]) -> None:
    model = mlp()
    optimizer = adamw(model)
    sparsifier = make(RandomGrowth, 0.7).attach(model, optimizer)
    train(model, optimizer, range(2))
    duplicate = copier(model)
    assert_same_parameters(model, duplicate)
    train(duplicate, adamw(duplicate), range(5))
    assert duplicate[0].weight.count_nonzero() == duplicate[0].weight.numel()
    assert sparsifier.step == 2
    train(model, optimizer, range(2, 6))
    assert_zero_outside_masks(sparsifier, optimizer)


@pytest.mark.parametrize("kind", METHODS)
def test_attaching_after_some_training(kind: type[Sparsifier]) -> None:
    model = mlp()
    optimizer = adamw(model)
    train(model, optimizer, range(5))
    sparsifier = make(kind, 0.7).attach(model, optimizer)
    assert_zero_outside_masks(sparsifier, optimizer)
    train(model, optimizer, range(5, 12))
    assert_zero_outside_masks(sparsifier, optimizer)


def test_several_parameter_groups() -> None:
    model = mlp()
    groups = [
        {"params": model[0].parameters(), "lr": 0.1},
        {"params": itertools.chain(model[1].parameters(), model[3].parameters())},
    ]
    optimizer = torch.optim.SGD(groups, 0.01, momentum=0.9)
    sparsifier = make(GradientGrowth, 0.7).attach(model, optimizer)
    train(model, optimizer, range(8))
    assert sparsifier.topology_updates == 2
    assert_zero_outside_masks(sparsifier, optimizer)


@pytest.mark.parametrize("kind", METHODS)
def test_a_weight_shared_by_two_modules_has_one_mask(kind: type[Sparsifier]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    optimizer = adamw(model)
    sparsifier = make(kind, 0.5).attach(model, optimizer)
    train(model, optimizer, range(8))
    assert sparsifier.sparsifiable == 36
    assert model[2].weight.count_nonzero() == 18
    assert_zero_outside_masks(sparsifier, optimizer)


@pytest.mark.parametrize("kind", METHODS)
def test_n_plus_m_steps_equal_n_and_m_from_a_file(kind: type[Sparsifier]) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer, Any, nn.Module]:
        model = mlp()
        optimizer = adamw(model)
        averaged = AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        sparsifier = make(kind, 0.6, total_steps=30).attach(
            model, optimizer, averaged=averaged.module
        )
        return model, optimizer, sparsifier, averaged

    def run(parts: Any, steps: range) -> None:
        train(parts[0], parts[1], steps, after_step=lambda: parts[3].update_parameters(parts[0]))

    whole, half, rest = fresh(), fresh(), fresh()
    run(whole, range(20))
    run(half, range(10))  # one step after a topology update
    file = io.BytesIO()
    torch.save([part.state_dict() for part in half], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    train(rest[0], rest[1], range(100, 104))  # somewhere else first: all must come from the file
    for part, state in zip(rest, states, strict=True):
        part.load_state_dict(state)
    run(rest, range(10, 20))

    assert_same_parameters(whole[0], rest[0])
    assert_same_parameters(whole[3], rest[3])
    before, after = (all_tensors(parts[1].state_dict()) for parts in (whole, rest))
    assert len(before) > 0
    assert all(itertools.starmap(torch.equal, zip(before, after, strict=True)))
    left, right = whole[2].state_dict(), rest[2].state_dict()
    assert left["step"] == right["step"] == 20
    assert left.get("updates") == right.get("updates") == (None if kind is Sparsifier else 6)
    before, after = all_tensors(left), all_tensors(right)
    assert all(itertools.starmap(torch.equal, zip(before, after, strict=True)))
    assert not torch.equal(whole[2].layers[0].mask, half[2].layers[0].mask) or kind is Sparsifier


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_states_may_be_loaded_in_any_order(order: tuple[int, ...]) -> None:
    def fresh() -> list[Any]:
        model = mlp()
        optimizer = adamw(model)
        return [model, optimizer, make(RandomGrowth, 0.6).attach(model, optimizer)]

    one, other = fresh(), fresh()
    train(one[0], one[1], range(7))
    for index in order:
        other[index].load_state_dict(copy.deepcopy(one[index].state_dict()))
    train(one[0], one[1], range(7, 12))
    train(other[0], other[1], range(7, 12))
    assert_same_parameters(one[0], other[0])


def test_loaded_masks_hold_at_once() -> None:
    one, other = mlp(), mlp()
    optimizers = adamw(one), adamw(other)
    saved = make(RandomGrowth, 0.6, seed=1).attach(one, optimizers[0]).state_dict()
    sparsifier = make(RandomGrowth, 0.6, seed=2).attach(other, optimizers[1])
    sparsifier.load_state_dict(saved)
    assert_zero_outside_masks(sparsifier, optimizers[1], moments=False)
    assert all(torch.equal(layer.mask, saved["masks"][layer.name]) for layer in sparsifier.layers)


def attached(kind: type[Sparsifier], sparsity: float = 0.5, model: nn.Module | None = None) -> Any:
    model = model or nn.Linear(4, 8)
    return make(kind, sparsity).attach(model, adamw(model))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: attached(RandomGrowth, 0.75).state_dict(), "not of this network"),
        (lambda: attached(RandomGrowth, 0.5, nn.Linear(8, 4)).state_dict(), "not of this network"),
        (lambda: attached(RandomGrowth, 0.5, mlp()).state_dict(), "not of this network"),
        (lambda: attached(Sparsifier).state_dict(), "has no skipped, updated_at, updates"),
        (lambda: {}, "has no counts, masks, rng, skipped, step, updated_at, updates"),
    ],
    ids=["sparsity", "shape", "network", "method", "empty"],
)
def test_a_wrong_state_is_refused_and_changes_nothing(
    state: Callable[[], dict[str, Any]], message: str
) -> None:
    sparsifier = attached(RandomGrowth)
    before = copy.deepcopy(sparsifier.state_dict())
    with pytest.raises(SparsityError, match=message):
        sparsifier.load_state_dict(state())
    after = sparsifier.state_dict()
    assert before.keys() == after.keys()
    assert before["step"] == after["step"]
    assert all(map(torch.equal, all_tensors(before), all_tensors(after)))


@pytest.mark.parametrize("sparsity", [1, 1.2, -0.5, float("nan")])
def test_sparsity_out_of_range_is_refused(sparsity: float) -> None:
    with pytest.raises(SparsityError, match="at least 0 and below 1"):
        Sparsifier(sparsity, total_steps=1)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Sparsifier, {"distribution": "erdos"}),
        (Sparsifier, {"prune_rate": 0.5}),
        (RandomGrowth, {"prune_rte": 0.5}),
        (RandomGrowth, {"prune_rate": 1.5}),
        (RandomGrowth, {"exploration_frequency": 0}),
        (RandomGrowth, {"grown_state": "none"}),
    ],
)
def test_settings_of_another_kind_are_refused(
    kind: type[Sparsifier], settings: dict[str, Any]
) -> None:
    with pytest.raises(SparsityError, match=next(iter(settings))):
        kind(0.5, total_steps=1, **settings)


def test_attaching_twice_is_refused() -> None:
    sparsifier = attached(Sparsifier)
    model = mlp()
    with pytest.raises(SparsityError, match="attached already"):
        sparsifier.attach(model, adamw(model))
    sparsifier.detach()
    with pytest.raises(SparsityError, match="attached to other weights; make another one"):
        sparsifier.attach(model, adamw(model))


def frozen_linear() -> nn.Module:
    return nn.Linear(4, 4).requires_grad_(False)


def gappy_linear() -> nn.Module:
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(torch.randn(4, 8)[:, ::2])
    return model


def expanded_linear() -> nn.Module:
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(torch.randn(1, 4).expand(4, 4))
    return model


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (nn.LayerNorm(4), lambda model: {}, "no weights that may be masked"),
        (frozen_linear(), lambda model: {}, "no weights that may be masked"),
        (frozen_linear(), lambda model: {"weights": {"w": model.weight}}, "w is frozen"),
        (
            nn.Linear(4, 4),
            lambda model: {"weights": {"a": model.weight, "b": model.weight}},
            "under two names",
        ),
        (
            nn.Linear(4, 4),
            lambda model: {"averaged": AveragedModel(model)},
            r"averaged copy has no weight of shape \(4, 4\)",
        ),
        (nn.Linear(4, 4), lambda model: {"averaged": nn.Linear(4, 5)}, "averaged copy has no"),
        (gappy_linear(), lambda model: {}, "stored with gaps"),
        (expanded_linear(), lambda model: {}, "stored with gaps"),
    ],
    ids=["nothing", "all frozen", "frozen", "twice", "wrapper", "averaged", "gaps", "expanded"],
)
def test_what_cannot_be_masked_is_refused_and_left_alone(
    model: Any, arguments: Callable[[Any], dict[str, Any]], message: str
) -> None:
    before = copy.deepcopy(model.state_dict())
    sparsifier = Sparsifier(0.5, total_steps=1)
    with pytest.raises(SparsityError, match=message):
        sparsifier.attach(model, adamw(model), **arguments(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.weight._post_accumulate_grad_hooks is None


def test_a_weight_of_another_optimizer_is_refused() -> None:
    model = mlp()
    with pytest.raises(SparsityError, match=r"0\.weight is not among the optimizer's parameters"):
        Sparsifier(0.5, total_steps=1).attach(model, adamw(model[3]))
    sparsifier = Sparsifier(0.5, total_steps=1, keep_dense=["0.weight"])
    assert sparsifier.attach(model, adamw(model[3])).sparsifiable == 64
