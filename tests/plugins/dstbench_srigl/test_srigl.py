import dstbench_srigl
import pytest
import torch
from dstbench_srigl import SRigL, fewest
from torch import nn


def test_an_update_by_hand() -> None:
    model = nn.Linear(4, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = SRigL(
        0.5, total_steps=100, exploration_frequency=1, prune_rate=0.5, prune_schedule="constant"
    ).attach(model, optimizer)
    (layer,) = sparsifier.layers
    with torch.no_grad():
        layer.mask.copy_(torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]))
        layer.weight.copy_(torch.tensor([[9.0, 8, 0, 0], [0, 0, 2, 1]]))
    gradient = torch.tensor([[9.0, 9, 9, 9], [1, 3, -5, 4]])
    (layer.weight * gradient).sum().backward()
    optimizer.step()
    # of the whole layer 2 and 1 are dropped; the second unit grows where |gradient| is 5 and 4
    assert layer.mask.int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    (layer.weight * torch.tensor([[9.0, 9, 9, 9], [-6, 3, 5, 4]])).sum().backward()
    optimizer.zero_grad()
    (layer.weight * torch.tensor([[9.0, 9, 9, 9], [-6, 3, 5, 4]])).sum().backward()
    optimizer.step()
    assert layer.mask.int().tolist() == [[1, 1, 0, 0], [1, 0, 1, 0]]


def test_counts_are_multiples_of_the_units_and_near_what_is_asked() -> None:
    shapes = {"first": (4, 4), "second": (8, 4), "third": (6, 4)}
    counts = SRigL(0.6, total_steps=1, distribution="uniform").layer_counts(shapes)
    # asked are 6, 13 and 10, which is 29 of 72: rounded down to 4, 8 and 6. Of the 11 that are
    # missing the third gets 6 (remainder 4/6) and the first 4 (2/4), where 8 do not fit any more
    assert counts == {"first": 8, "second": 8, "third": 12}


@pytest.mark.parametrize(
    ("sparsity", "counts"),
    [
        # asked are 1.6 of 8 and 12.8 of 64: one input for each of the first 4 units, and of the 10
        # that are left one for each of the other 8
        (0.8, {"first": 4, "second": 8}),
        (0.85, {"first": 0, "second": 8}),  # asked are 11 in all: not enough for both
    ],
)
def test_no_layer_is_cut_off_while_others_have_connections_to_give(
    sparsity: float, counts: dict[str, int]
) -> None:
    shapes = {"first": (4, 2), "second": (8, 8)}
    assert SRigL(sparsity, total_steps=1, distribution="uniform").layer_counts(shapes) == counts


def test_every_unit_has_the_same_fan_in_throughout_training() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 2, 1))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = SRigL(0.8, total_steps=100, exploration_frequency=2).attach(model, optimizer)
    before = sparsifier.layers[1].mask.clone()
    for step in range(7):
        model(torch.randn(2, 3, 6, 6)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for layer in sparsifier.layers:
            fan_in = layer.mask.flatten(1).sum(1)
            fan_in = fan_in[fan_in > 0]
            assert (fan_in == layer.active // len(fan_in)).all(), (step, layer.name)
    assert not torch.equal(sparsifier.layers[1].mask, before)


def ablating(last: bool, **settings: float) -> tuple[nn.Parameter, torch.optim.Optimizer, SRigL]:
    """A weight of four units with two inputs each, half of which every update drops."""
    layers = [nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False)]
    model = nn.Sequential(*layers[::-1] if last else layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    settings = {"distribution": "uniform", "prune_schedule": "constant", **settings}
    sparsifier = SRigL(0.5, total_steps=100, exploration_frequency=1, **settings)
    layer = sparsifier.attach(model, optimizer).layers[last]
    with torch.no_grad():
        layer.mask.copy_(torch.tensor([1, 1, 0, 0]))
        layer.weight.copy_(torch.tensor([[9.0, 8, 0, 0], [7, 6, 0, 0], [2, 1, 0, 0], [1, 2, 0, 0]]))
    return layer.weight, optimizer, sparsifier


def step(weight: nn.Parameter, optimizer: torch.optim.Optimizer, gradient: list) -> None:
    optimizer.zero_grad()
    (weight * torch.tensor(gradient)).sum().backward()
    optimizer.step()


IN_THE_FIRST = [[0.0, 0, 5, 5], [0, 0, 5, 5], [1, 1, 1, 1], [1, 1, 1, 1]]
IN_THE_OTHERS = [[0.0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 1, 1], [1, 1, 5, 5]]


def test_units_of_few_salient_inputs_are_ablated_and_come_back_by_hand() -> None:
    weight, optimizer, sparsifier = ablating(last=False)
    layer = sparsifier.layers[0]
    step(weight, optimizer, IN_THE_FIRST)
    # kept are 9, 8, 7, 6, and the four largest gradients lie in the same units: the others, of
    # which no input is salient, are ablated, and the fan-in becomes four
    assert layer.mask.int().tolist() == 2 * [[1, 1, 1, 1]] + 2 * [[0, 0, 0, 0]]
    step(weight, optimizer, IN_THE_OTHERS)
    assert layer.mask.int().tolist() == 2 * [[1, 1, 0, 0]] + [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert sparsifier.count_history == [(0, {"0.weight": 8, "1.weight": 2})]


@pytest.mark.parametrize(
    ("last", "settings"), [(True, {}), (False, {"min_salient": 0})], ids=["outputs", "switched-off"]
)
def test_what_is_never_ablated(last: bool, settings: dict[str, float]) -> None:
    weight, optimizer, sparsifier = ablating(last, **settings)
    step(weight, optimizer, IN_THE_FIRST)
    assert sparsifier.layers[last].mask.sum(1).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("count", "enough", "units", "inputs", "number"),
    [
        (8, 2, 4, 4, 2),
        (8, 3, 4, 4, 4),  # three do not share eight
        (8, 1, 4, 4, 2),  # one cannot have more than four
        (8, 0, 4, 8, 1),
        (384, 40, 64, 500, 48),
        (0, 3, 4, 4, 3),
    ],
)
def test_the_fewest_units_that_share_evenly(
    count: int, enough: int, units: int, inputs: int, number: int
) -> None:
    assert fewest(count, enough, units, inputs) == number


def test_it_registers_itself() -> None:
    assert dstbench_srigl.dstbench_sparsifiers() == [SRigL]
    assert SRigL.name == "srigl"
