"""Dense gradients: of the step that is taken, finite or not, of any dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sparsity_methods import GradientGrowth, RandomGrowth, make
from torch import Tensor, nn, optim

from dstbench.errors import SparsityError
from dstbench.sparsity import Layer, drop_and_grow
from dstbench.sparsity.gradients import is_finite


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).to(dtype)


def backward(model: nn.Module, step: int, scale: float = 1.0) -> None:
    data = torch.Generator().manual_seed(step)
    inputs = torch.randn(4, 8, generator=data)
    (scale * model(inputs).square().mean()).backward()


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("kind", [GradientGrowth, RandomGrowth])
def test_a_batch_that_is_left_out_leaves_nothing_behind(kind: Any, to_none: bool) -> None:
    """As a guard against NaN does, or a scaler after an overflow."""
    masks = []
    for with_bad_batch in (False, True):
        model = network()
        optimizer = optim.AdamW(model.parameters(), 0.01)
        sparsifier = make(kind, 0.8).attach(model, optimizer)
        for step in range(1, 7):
            if with_bad_batch and step % 3 == 0:
                backward(model, 100 + step, scale=float("inf"))
                optimizer.zero_grad(set_to_none=to_none)
            backward(model, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)
        assert (sparsifier.topology_updates, sparsifier.skipped_updates) == (2, 0)
        masks.append([layer.mask for layer in sparsifier.layers])
    assert all(map(torch.equal, *masks))


@pytest.mark.parametrize("to_none", [True, False])
def test_micro_batches_add_up(to_none: bool) -> None:
    model, dense = network(), network()
    optimizer = optim.SGD(model.parameters(), 0.0)
    sparsifier = make(GradientGrowth, 0.8, every=1).attach(model, optimizer)
    for _ in range(2):
        dense.load_state_dict(model.state_dict())
        dense.zero_grad()
        for step in range(3):
            backward(model, step)
            backward(dense, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=to_none)
        for name, shown in sparsifier.shown.items():
            torch.testing.assert_close(shown, dense.get_parameter(name).grad)


def test_half_precision_sums_may_overflow() -> None:
    model = network(torch.float16)
    optimizer = optim.SGD(model.parameters(), 1e-6)
    sparsifier = make(GradientGrowth, 0.5, every=1).attach(model, optimizer)
    for weight in model.parameters():
        weight.grad = None
    for layer in sparsifier.layers:
        (layer.weight * 60_000).sum().backward()
    optimizer.step()
    assert (sparsifier.topology_updates, sparsifier.skipped_updates) == (1, 0)


def test_complex_weights() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 8, dtype=torch.complex128)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.inner(x)
            return output

    torch.manual_seed(0)
    model = Complex()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(RandomGrowth, 0.5, every=1).attach(model, optimizer)
    for _ in range(3):
        model(torch.randn(2, 4, dtype=torch.complex128)).abs().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        (layer,) = sparsifier.layers
        assert not layer.weight[~layer.mask].any()
    assert sparsifier.topology_updates == 3


class Coded(optim.AdamW):
    """Keeps its first moment in codes, of which 0 means −1."""

    dtype = torch.uint8

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    codes = self.state[p].setdefault(
                        "moment", torch.full_like(p, 128, dtype=torch.uint8)
                    )
                    codes.add_(p.grad.sign().to(torch.int8).to(torch.uint8))
                    p.sub_(1e-3 * (codes.float() - 128))


def test_codes_are_not_zeroed_blindly() -> None:
    model = network()
    optimizer = Coded(model.parameters())
    make(RandomGrowth, 0.5).attach(model, optimizer)
    backward(model, 0)
    with pytest.raises(SparsityError, match=r'of 0\.weight as torch\.uint8 codes, .*"keep"'):
        optimizer.step()


def test_codes_of_an_optimizer_that_takes_over_are_not_zeroed_either() -> None:
    model = network()
    make(RandomGrowth, 0.5).attach(model, optim.AdamW(model.parameters()))
    optimizer = Coded(model.parameters())
    backward(model, 0)
    with pytest.raises(SparsityError, match=r"of 0\.weight as torch\.uint8 codes"):
        optimizer.step()


def test_state_is_looked_at_after_the_first_step_and_at_updates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    model = network()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(RandomGrowth, 0.5, every=5).attach(model, optimizer)
    monkeypatch.setattr(
        drop_and_grow, "refuse_coded_state", lambda *_: looks.append(sparsifier.step)
    )
    for step in range(12):
        backward(model, step)
        optimizer.step()
    assert sorted(set(looks)) == [1, 5, 10]


def test_codes_are_kept() -> None:
    model = network()
    optimizer = Coded(model.parameters())
    sparsifier = make(RandomGrowth, 0.5, grown_state="keep").attach(model, optimizer)
    for step in range(7):
        backward(model, step)
        optimizer.step()
    layer = sparsifier.layers[0]
    assert (sparsifier.topology_updates, int(layer.weight[~layer.mask].count_nonzero())) == (2, 0)
    assert 0 not in optimizer.state[layer.weight]["moment"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite(value: float) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.complex64):
        tensor = torch.full((3, 3), 3e4, dtype=dtype)
        assert is_finite(tensor)
        tensor[1, 2] = value
        assert not is_finite(tensor)
    assert is_finite(torch.empty(0))


class Remembering(RandomGrowth):
    """Remembers every dense gradient, and grows nothing by it."""

    needs_dense_gradient = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[str, int]] = []

    def observes_at(self, step: int) -> bool:
        return step % 2 == 0

    def observe(self, layer: Layer, step: int) -> None:
        assert layer.dense_gradient[~layer.mask].any()
        self.seen.append((layer.name, step))


def test_a_method_observes_when_it_asks_to() -> None:
    model = network()
    optimizer = optim.AdamW(model.parameters())
    sparsifier = make(Remembering, 0.8, every=5, total_steps=8).attach(model, optimizer)
    for step in range(8):
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()
    assert sparsifier.seen == [(n, s) for s in (2, 4, 6, 8) for n in ("0.weight", "2.weight")]
    assert sparsifier.dense_gradient_steps(8) == 5  # 2, 4, 6, 8 to observe, and 5 to update
    assert not any(layer.has_dense_gradient for layer in sparsifier.layers)
