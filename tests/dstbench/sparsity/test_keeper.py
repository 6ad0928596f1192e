"""Inactive weights stay zero, whatever the training loop and the optimizer do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sparsity_methods import GradientGrowth, RandomGrowth, make
from torch import Tensor, nn, optim
from torch.func import functional_call, grad

from dstbench.errors import SparsityError
from dstbench.sparsity import Sparsifier

STEPS = 7
Loop = Callable[[nn.Module], None]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4)
    )


def loss(model: nn.Module, step: int = 0) -> Tensor:
    data = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 16, generator=data)
    return (model(inputs) - torch.randn(8, 4, generator=data)).square().mean()


def outside(sparsifier: Sparsifier) -> int:
    """Number of inactive weights that are not zero."""
    return sum(int(each.weight[~each.mask].count_nonzero()) for each in sparsifier.layers)


class Shampoo(optim.Optimizer):
    """Multiplies the gradient by a matrix from the left."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.ndim == 2:
                    full = torch.ones(len(p), len(p)) / len(p) + torch.eye(len(p))
                    p.sub_(group["lr"] * full @ p.grad)


class Langevin(optim.SGD):
    """Adds noise to what SGD does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(0.01 * torch.randn_like(p))


class OldLangevin(Langevin):
    """The same by ``.data``, whose writes torch does not count."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        optim.SGD.step(self, closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(0.01 * torch.randn_like(p))


class Lookahead(optim.Optimizer):
    """Every other step halfway back to slow weights."""

    def __init__(self, inner: optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner
        self.slow = [p.detach().clone() for g in inner.param_groups for p in g["params"]]
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        self.steps += 1
        if self.steps % 2 == 0:
            fast = [p for g in self.inner.param_groups for p in g["params"]]
            for slow, p in zip(self.slow, fast, strict=True):
                slow.lerp_(p, 0.5)
                p.copy_(slow)


def muon(model: nn.Module) -> optim.Optimizer:
    class MyMuon(optim.Muon):  # type: ignore[misc,name-defined]
        pass

    return MyMuon([p for p in model.parameters() if p.ndim == 2])


OPTIMIZERS: dict[str, Callable[[nn.Module], optim.Optimizer]] = {
    "adamw": lambda m: optim.AdamW(m.parameters(), weight_decay=0.1),
    "sgd with momentum": lambda m: optim.SGD(m.parameters(), 0.1, momentum=0.9, nesterov=True),
    "a subclass of Muon": muon,
    "Shampoo": lambda m: Shampoo(m.parameters()),
    "Langevin": lambda m: Langevin(m.parameters(), 0.1),
    "Langevin by .data": lambda m: OldLangevin(m.parameters(), 0.1),
    "Lookahead": lambda m: Lookahead(optim.AdamW(m.parameters())),
    "lbfgs": lambda m: optim.LBFGS(m.parameters(), lr=0.1),
}


@pytest.mark.parametrize("kind", [Sparsifier, RandomGrowth, GradientGrowth])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whatever_the_optimizer_does(name: str, kind: type[Sparsifier]) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model)
    sparsifier = make(kind, 0.8).attach(model, optimizer)
    for step in range(1, STEPS + 1):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            value = loss(model, step)
            value.backward()
            return value

        optimizer.step(closure) if name == "lbfgs" else (closure(), optimizer.step())
        assert outside(sparsifier) == 0
        assert sparsifier.step == step
    sparsifier.verify()


def set_by_autograd(model: nn.Module) -> None:
    weights = list(model.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(loss(model), weights), strict=True):
        weight.grad = gradient


def set_by_func(model: nn.Module) -> None:
    inputs = torch.randn(8, 16)

    def of(weights: dict[str, Tensor]) -> Tensor:
        output: Tensor = functional_call(model, weights, (inputs,))
        return output.square().mean()

    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    for name, gradient in grad(of)(weights).items():
        model.get_parameter(name).grad = gradient


def noise(model: nn.Module) -> None:
    loss(model).backward()
    for weight in model.parameters():
        assert weight.grad is not None
        weight.grad.add_(0.1 * torch.randn_like(weight))


def noise_by_data(model: nn.Module) -> None:
    loss(model).backward()
    for weight in model.parameters():
        assert weight.grad is not None
        weight.grad.data.add_(0.1 * torch.randn_like(weight))


def centralised(model: nn.Module) -> None:
    loss(model).backward()
    for weight in model.parameters():
        if weight.ndim == 2 and weight.grad is not None:
            weight.grad -= weight.grad.mean(1, keepdim=True)


def replaced(model: nn.Module) -> None:
    loss(model).backward()
    for weight in model.parameters():
        assert weight.grad is not None
        weight.grad = weight.grad + 0.1


GRADIENTS = [set_by_autograd, set_by_func, noise, noise_by_data, centralised, replaced]


@pytest.mark.parametrize("gradients", GRADIENTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [Sparsifier, RandomGrowth])
def test_whatever_makes_the_gradients(gradients: Loop, kind: type[Sparsifier]) -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(kind, 0.8).attach(model, optimizer)
    for _ in range(STEPS):
        gradients(model)
        optimizer.step()
        optimizer.zero_grad()
        assert outside(sparsifier) == 0
    for layer in sparsifier.layers:
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not optimizer.state[layer.weight][moment][~layer.mask].any()


@torch.no_grad()
def initialised(model: nn.Module) -> None:
    for weight in model.parameters():
        nn.init.normal_(weight)


def loaded(model: nn.Module) -> None:
    model.load_state_dict(network(1).state_dict())


def written_by_data(model: nn.Module) -> None:
    for weight in model.parameters():
        weight.data.add_(1)


def new_data(model: nn.Module) -> None:
    for weight in model.parameters():
        weight.data = torch.ones_like(weight)


@pytest.mark.parametrize("write", [initialised, loaded, written_by_data, new_data])
def test_whatever_writes_to_weights(write: Loop) -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(Sparsifier, 0.8).attach(model, optimizer)
    write(model)
    inactive = sparsifier.sparsifiable - sparsifier.active
    assert outside(sparsifier) > 0.99 * inactive
    name = sparsifier.layers[0].name
    with pytest.raises(SparsityError, match=rf"the weight {name} is not zero at \d+ of \d+ inact"):
        sparsifier.verify()
    with pytest.raises(SparsityError, match="is not zero at"):
        sparsifier.state_dict()
    loss(model).backward()
    optimizer.step()
    assert outside(sparsifier) == 0
    sparsifier.state_dict()


def test_moments_that_are_loaded_are_masked_with_the_weights() -> None:
    """A resumed run that forgets the sparsifier's state."""
    model, other = network(), network()
    optimizer, dense = (optim.AdamW(each.parameters(), 0.01) for each in (model, other))
    loss(other).backward()
    dense.step()
    sparsifier = make(Sparsifier, 0.8).attach(model, optimizer)
    model.load_state_dict(other.state_dict())
    optimizer.load_state_dict(dense.state_dict())
    for _ in range(3):
        loss(model).backward()
        optimizer.step()
        assert outside(sparsifier) == 0


def test_moments_that_are_loaded_alone() -> None:
    model, other = network(), network()
    optimizer, dense = (optim.AdamW(each.parameters(), 0.01) for each in (model, other))
    loss(other).backward()
    dense.step()
    sparsifier = make(Sparsifier, 0.8).attach(model, optimizer)
    optimizer.load_state_dict(dense.state_dict())
    for _ in range(3):
        loss(model).backward()
        optimizer.step()
        assert outside(sparsifier) == 0


def test_a_step_fused_into_backward_by_a_hook_set_before() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    singles = {p: optim.SGD([p], 0.1, momentum=0.9) for p in model.parameters()}

    def fused(parameter: nn.Parameter) -> None:
        singles[parameter].step()
        singles[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(fused)  # type: ignore[no-untyped-call]
    sparsifier = make(Sparsifier, 0.8).attach(model, optimizer)
    for step in range(STEPS):
        loss(model, step).backward()
        assert outside(sparsifier) == 0


def test_one_optimizer_per_weight_moves_no_topology() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)
    singles = [optim.SGD([p], 0.1) for p in model.parameters()]
    make(RandomGrowth, 0.8).attach(model, optimizer)
    loss(model).backward()
    with pytest.raises(SparsityError, match="with 1 of the 3 masked weights"):
        singles[0].step()


def test_two_sparsifiers_on_one_weight() -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters())
    first = make(Sparsifier, 0.8).attach(model, optimizer)
    with pytest.raises(SparsityError, match=r"0\.weight is masked by another sparsifier already"):
        make(Sparsifier, 0.5).attach(model, optimizer)
    first.detach()
    make(Sparsifier, 0.5).attach(model, optimizer)


def test_two_sparsifiers_side_by_side() -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters())
    weights = {n: p for n, p in model.named_parameters() if p.ndim == 2}
    halves = [{n: weights[n] for n in names} for names in (["0.weight"], ["2.weight", "4.weight"])]
    both = [make(RandomGrowth, 0.8).attach(model, optimizer, weights=half) for half in halves]
    for step in range(STEPS):
        loss(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert [each.topology_updates for each in both] == [2, 2]
    assert [outside(each) for each in both] == [0, 0]


# Steps are counted as they are taken


class TwiceNamed(optim.AdamW):
    """Calls the step of a class whose steps are heard, too."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)


def test_a_step_within_a_step_is_none() -> None:
    optim.AdamW([nn.Parameter(torch.zeros(1))])  # from now on its step() runs hooks
    model = network()
    optimizer = TwiceNamed(model.parameters())
    sparsifier = make(RandomGrowth, 0.8).attach(model, optimizer)
    for step in range(1, STEPS + 1):
        loss(model).backward()
        optimizer.step()
        assert sparsifier.step == step
    assert sparsifier.topology_updates == 2


def test_a_step_that_fails_is_none() -> None:
    class Failing(optim.SGD):
        fails = True

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            if self.fails:
                raise RuntimeError("a stone")
            super().step(closure)

    model = network()
    optimizer = Failing(model.parameters(), 0.1)
    sparsifier = make(RandomGrowth, 0.8).attach(model, optimizer)
    loss(model).backward()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a stone"):
            optimizer.step()
    optimizer.fails = False
    optimizer.step()
    assert sparsifier.step == 1


def test_steps_without_a_gradient_between_them() -> None:
    """step() twice after each backward pass: every update of RigL's kind lacks its gradient."""
    model = network()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(GradientGrowth, 0.8, every=2).attach(model, optimizer)
    loss(model).backward()
    optimizer.step()
    optimizer.zero_grad()
    with pytest.warns(UserWarning, match="update after step 2 is left out: no layer has what it"):
        optimizer.step()
    assert sparsifier.topology_updates == 0
    loss(model).backward()
    optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(SparsityError, match=r"twice in succession.*no new gradient"):
        optimizer.step()


def test_another_optimizer_takes_over() -> None:
    model = network()
    sparsifier = make(RandomGrowth, 0.8).attach(model, optim.SGD(model.parameters(), 0.1))
    successor = optim.AdamW(model.parameters())
    for _ in range(STEPS):
        loss(model).backward()
        successor.step()
        successor.zero_grad()
    assert (sparsifier.step, sparsifier.topology_updates, outside(sparsifier)) == (STEPS, 2, 0)
    for layer in sparsifier.layers:
        assert not successor.state[layer.weight]["exp_avg"][~layer.mask].any()


class SAM(optim.Optimizer):
    """Sharpness-aware minimisation: its loop calls first_step and second_step, never step."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})
        self.base_optimizer = optim.SGD(self.param_groups, 0.1)

    @torch.no_grad()
    def first_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            self.state[p]["ascent"] = 0.05 * p.grad / (p.grad.norm() + 1e-12)
            p.add_(self.state[p]["ascent"])

    @torch.no_grad()
    def second_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            p.sub_(self.state[p]["ascent"])
        self.base_optimizer.step()


def test_the_steps_of_sharpness_aware_minimisation() -> None:
    model = network()
    optimizer = SAM(list(model.parameters()))
    sparsifier = make(RandomGrowth, 0.8).attach(model, optimizer)
    for step in range(1, STEPS + 1):
        loss(model).backward()
        optimizer.first_step()
        model.zero_grad()
        loss(model).backward()
        optimizer.second_step()
        model.zero_grad()
        assert (sparsifier.step, outside(sparsifier)) == (step, 0)
    assert sparsifier.topology_updates == 2


def test_a_loop_without_an_optimizers_steps() -> None:
    model = network()
    make(RandomGrowth, 0.8).attach(model, optim.SGD(model.parameters(), 0.1))

    def by_hand() -> None:
        for _ in range(9):
            loss(model).backward()
            with torch.no_grad():
                for weight in model.parameters():
                    assert weight.grad is not None
                    weight -= 0.1 * weight.grad
                    weight.grad = None

    with pytest.raises(SparsityError, match=r"has changed 3 times without a step\(\)"):
        by_hand()


def test_a_wrapper_that_never_began_as_an_optimizer() -> None:
    """As accelerate wraps one: a subclass whose __init__ is not Optimizer's."""

    class Accelerated(optim.Optimizer):
        def __init__(self, inner: optim.Optimizer) -> None:
            self.optimizer = inner

        @property
        def param_groups(self) -> Any:  # type: ignore[override]
            return self.optimizer.param_groups

        @property
        def state(self) -> Any:  # type: ignore[override]
            return self.optimizer.state

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.optimizer.step(closure)

    model = network()
    optimizer = Accelerated(optim.AdamW(model.parameters()))
    sparsifier = make(RandomGrowth, 0.8).attach(model, optimizer)
    for step in range(1, STEPS + 1):
        loss(model).backward()
        optimizer.step()
        assert (sparsifier.step, outside(sparsifier)) == (step, 0)
    assert sparsifier.topology_updates == 2


def test_a_compiled_step() -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(RandomGrowth, 0.8).attach(model, optimizer)
    optimizer.step = torch.compile(optimizer.step, backend="eager")  # type: ignore[method-assign]
    for step in range(1, STEPS + 1):
        loss(model).backward()
        optimizer.step()
        assert (sparsifier.step, outside(sparsifier)) == (step, 0)
    assert sparsifier.topology_updates == 2


def test_a_learning_rate_schedule_changes_nothing() -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters())
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    sparsifier = make(RandomGrowth, 0.8).attach(model, optimizer)
    for _ in range(STEPS):
        loss(model).backward()
        optimizer.step()
        schedule.step()
    assert (sparsifier.step, outside(sparsifier)) == (STEPS, 0)


# Copies


def test_copies_that_would_mask_nothing_are_refused() -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(RandomGrowth, 0.8).attach(model, optimizer)
    with pytest.raises(SparsityError, match=r"its copy would mask nothing\. Save state_dict"):
        copy.deepcopy((model, optimizer, sparsifier))
    with pytest.raises(SparsityError, match="cannot be copied or pickled"):
        torch.save((model, optimizer, sparsifier), "/dev/null")
    copy.deepcopy((model, optimizer))
    copy.deepcopy(make(RandomGrowth, 0.8))


def test_what_the_refusal_says_to_do_works() -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(GradientGrowth, 0.8).attach(model, optimizer)
    for step in range(4):
        loss(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    copied_model, copied_optimizer = copy.deepcopy((model, optimizer))
    other = make(GradientGrowth, 0.8).attach(copied_model, copied_optimizer)
    copied_model.load_state_dict(model.state_dict())
    copied_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.load_state_dict(copy.deepcopy(sparsifier.state_dict()))
    for step in range(4, 9):
        for each, by in ((model, optimizer), (copied_model, copied_optimizer)):
            loss(each, step).backward()
            by.step()
            by.zero_grad()
    for one, two in zip(model.parameters(), copied_model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_detached_and_attached_again_it_goes_on() -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(RandomGrowth, 0.8).attach(model, optimizer)
    for _ in range(4):
        loss(model).backward()
        optimizer.step()
    masks = [layer.mask.clone() for layer in sparsifier.layers]
    sparsifier.detach()
    other = optim.SGD(model.parameters(), 0.1)
    sparsifier.attach(model, other)
    assert all(torch.equal(m, each.mask) for m, each in zip(masks, sparsifier.layers, strict=True))
    for _ in range(3):
        loss(model).backward()
        other.step()
        assert outside(sparsifier) == 0
    assert (sparsifier.step, sparsifier.topology_updates) == (7, 2)


def test_a_count_is_not_for_others_to_set() -> None:
    model = network()
    sparsifier = make(Sparsifier, 0.8).attach(model, optim.AdamW(model.parameters()))
    with pytest.raises(SparsityError, match="override layer_counts, density_at or counts_after"):
        sparsifier.layers[0].active = 3
    sparsifier.layers[0].mask.fill_(True)
    with pytest.raises(SparsityError, match="holds 512 of 512 connections, instead of"):
        sparsifier.verify()
