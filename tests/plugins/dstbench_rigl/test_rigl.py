import copy

import dstbench_rigl
import torch
from dstbench_rigl import RigL
from torch import nn


def test_an_update_by_hand() -> None:
    """y = W x for one input x and target gradient g has the dense gradient g xᵀ."""
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    sparsifier = RigL(
        0.5, total_steps=100, exploration_frequency=1, prune_rate=0.67, prune_schedule="constant"
    ).attach(model, optimizer)
    (layer,) = sparsifier.layers
    with torch.no_grad():
        layer.mask.copy_(torch.tensor([[True, True, False], [False, False, True]]))
        model.weight.copy_(torch.tensor([[0.5, -2.0, 0.0], [0.0, 0.0, 0.1]]))
    x, g = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([-1.0, 4.0])
    (model(x) * g).sum().backward()
    # what the optimizer sees of g xᵀ = [[−1, 2, −3], [4, −8, 12]] is the active part
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[-1.0, 2.0, 0.0], [0.0, 0.0, 12.0]]
    optimizer.step()
    # two of three are dropped: 0.5 and 0.1; grown are 12 (its weight, 0.1, goes on) and −8
    assert layer.mask.int().tolist() == [[0, 1, 0], [0, 1, 1]]
    torch.testing.assert_close(model.weight, torch.tensor([[0.0, -2.0, 0.0], [0.0, 0.0, 0.1]]))
    momentum = optimizer.state[model.weight]["momentum_buffer"]
    assert momentum.tolist() == [[0.0, 2.0, 0.0], [0.0, 0.0, 12.0]]
    assert (sparsifier.topology_updates, sparsifier.connections_changed) == (1, 1)
    assert not layer.has_dense_gradient


def test_it_grows_as_a_plain_reading_of_the_algorithm() -> None:
    """Algorithm 1 of Evci et al. (2020) with sorted lists, for every layer of a network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparsifier = RigL(
        0.8, total_steps=8, exploration_frequency=2, prune_rate=0.4, prune_schedule="linear"
    ).attach(model, optimizer)
    for step in range(1, 6):
        inputs = torch.randn(4, 3, 4, 4)
        twin = copy.deepcopy(model)
        twin(inputs).square().mean().backward()
        masks = [layer.mask.flatten().tolist() for layer in sparsifier.layers]
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for layer, mask in zip(sparsifier.layers, masks, strict=True):
            expected = mask
            if step in (2, 4):
                gradient = twin.get_parameter(layer.name).grad
                trained = twin.get_parameter(layer.name).detach() - 0.01 * gradient * layer_mask(
                    mask, gradient
                )
                count = round(0.4 * (1 - step / 6) * layer.active)
                expected = reference_update(mask, trained, gradient, count)
            assert layer.mask.flatten().tolist() == expected, (layer.name, step)
    assert sparsifier.topology_updates == 2


def layer_mask(mask: list[bool], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(mask).reshape(like.shape)


def reference_update(
    mask: list[bool], weight: torch.Tensor, gradient: torch.Tensor, count: int
) -> list[bool]:
    magnitude, slope = weight.abs().flatten().tolist(), gradient.abs().flatten().tolist()
    active = [i for i, on in enumerate(mask) if on]
    kept = set(sorted(active, key=lambda i: (-magnitude[i], i))[: len(active) - count])
    candidates = [i for i in range(len(mask)) if i not in kept]
    grown = set(sorted(candidates, key=lambda i: (-slope[i], i))[:count])
    return [i in kept or i in grown for i in range(len(mask))]


def test_it_registers_itself() -> None:
    assert dstbench_rigl.dstbench_sparsifiers() == [RigL]
    assert RigL.name == "rigl"
