"""Structures of masks, as a setting that no method knows of."""

import copy
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import pytest
import torch
from dstbench_gmp import GMP
from dstbench_granet import GraNet
from dstbench_magran import MagRan
from dstbench_rigl import RigL
from dstbench_static import Static
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity_methods import (
    GradientGrowth,
    RandomGrowth,
    assert_same_parameters,
    assert_zero_outside_masks,
    make,
    train,
)
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.sparsity import DynamicSparsifier, Layer, Sparsifier, largest
from dstbench.sparsity.distribution import active_counts
from dstbench.sparsity.shapes import WeightShape, weight_shapes
from dstbench.sparsity.structure import NM, UNSTRUCTURED, Channels, parse_structure, whole_counts

TWO_OF_FOUR = {"structure": "2:4", "distribution": "uniform"}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.0)


def attached(kind: type[Sparsifier], model: nn.Module, sparsity: float, **given: Any) -> Any:
    return make(kind, sparsity, **given).attach(model, sgd(model))


def convnet() -> nn.Module:
    """Weights of every orientation, some that groups of four do not fit into."""
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ConvTranspose2d(8, 4, 1),
        nn.Conv2d(4, 3, 1),
        nn.Flatten(),
        nn.Linear(48, 12),
    )


def in_blocks(mask: Tensor, m: int) -> Tensor:
    """Active connections of every block of m inputs."""
    return mask.movedim(1, -1).reshape(-1, m).sum(1)


def assert_whole(layer: Layer) -> None:
    assert int(layer.mask.count_nonzero()) == layer.active
    if isinstance(layer.structure, Channels):
        assert layer.active % layer.group == 0
        groups = layer.mask.reshape(-1, layer.group, *layer.mask.shape[1:])
        assert torch.equal(groups, groups[:, :1].expand_as(groups)), layer.name
    if isinstance(layer.structure, NM):
        assert (in_blocks(layer.mask, layer.structure.m) == layer.structure.n).all(), layer.name


@pytest.mark.parametrize("text", ["unstructured", "channels:4", "channels:2", "2:4", "1:16"])
def test_what_is_written_is_read(text: str) -> None:
    assert str(parse_structure(text)) == text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("4:2", 'as in "2:4"'),
        ("0:4", 'as in "1:4"'),
        ("4:4", 'as in "1:4"'),
        ("0:0", 'as in "1:2"'),
        ("channels:0", 'as in "channels:2"'),
        ("channels:1", 'is "unstructured"'),
        ("chanels:4", 'did you mean "channels:4"?'),
        ("chanels:8", 'did you mean "channels:8"?'),
        ("channels", 'did you mean "channels:4"?'),
        ("unstructred", 'did you mean "unstructured"?'),
        ("channels:-4", 'did you mean "channels:4"?'),
        ("n:m", '"N:M", such as "2:4"'),
        ("2 : 4", '"N:M", such as "2:4"'),
        ("", '"N:M", such as "2:4"'),
    ],
)
def test_what_would_be_right_is_said(text: str, right: str) -> None:
    with pytest.raises(SparsityError) as refused:
        Static(0.5, total_steps=1, structure=text)
    assert f'"{text}"' in str(refused.value)
    assert right in str(refused.value)


def test_cells_that_had_no_choice_are_the_same() -> None:
    assert "structure" not in RigL.Settings().model_dump(mode="json")
    dumped = RigL.Settings(structure="channels:4").model_dump(mode="json")
    assert dumped["structure"] == "channels:4"
    assert RigL.Settings(**dumped).structure == "channels:4"


def test_groups_of_four_channels_in_a_convolution() -> None:
    model = nn.Conv2d(4, 8, 3, bias=False)
    sparsifier = attached(Static, model, 0.5, structure="channels:4")
    (layer,) = sparsifier.layers
    assert (layer.group, layer.active, sparsifier.active) == (4, 144, 144)
    first, second = layer.mask[:4], layer.mask[4:]
    assert all(torch.equal(channel, first[0]) for channel in first)
    assert all(torch.equal(channel, second[0]) for channel in second)
    assert not torch.equal(first[0], second[0])


def test_groups_are_chosen_by_the_sum_of_scores() -> None:
    class ByWeight(Sparsifier):
        def first_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
            return layer.weight.abs()

    model = nn.Linear(3, 4, bias=False)
    with torch.no_grad():
        rows = [[1.0, 9, 2], [5, 0, 3], [0, 4, 4], [0, 5, 4]]
        model.weight.copy_(torch.tensor(rows))
    (layer,) = attached(ByWeight, model, 1 / 3, structure="channels:2").layers
    # sums: 6 9 5 and 0 9 8
    assert layer.mask.int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 1]]


def test_an_update_of_groups_by_hand() -> None:
    model = nn.Linear(4, 4, bias=False)
    given = {"prune_rate": 0.5, "prune_schedule": "constant", "structure": "channels:2"}
    sparsifier = make(RigL, 0.5, every=1, **given)
    optimizer = sgd(model)
    sparsifier.attach(model, optimizer)
    (layer,) = sparsifier.layers
    rows = [[9.0, 1, 0, 0], [0.5, 3, 0, 0], [0, 0, 2, 1], [0, 0, 2, 5]]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        layer.mask.copy_(torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]))
    gradient = torch.tensor([[0.0, 1, 3, 2], [0, 1, -3, 3], [8, 1, 1, 0], [-1, 1, 1, 0]])
    (layer.weight * gradient).sum().backward()
    optimizer.step()
    # magnitudes 9.5 4 and 4 6: drops 4 and 4; gradients of the rest 2 6 5 and 9 2 2: grows 9 and 6
    assert layer.mask.int().tolist() == [[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1]]
    assert layer.weight.tolist() == [[9, 0, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 5]]
    assert sparsifier.connections_changed == 4


def test_groups_stay_within_a_gate() -> None:
    fitting = {n: layer.group for n, layer in zip("ih", gru(3, 8), strict=True)}
    assert fitting == {"i": 4, "h": 4}
    with pytest.raises(SparsityError, match='"channels:4" fits none of the 2 weights: no weight'):
        gru(3, 6)  # 18 rows, but six to a gate
    assert [layer.group for layer in gru(3, 6, "channels:3")] == [3, 3]


def gru(inputs: int, units: int, structure: str = "channels:4") -> list[Layer]:
    layers: list[Layer] = attached(Static, nn.GRU(inputs, units), 0.5, structure=structure).layers
    for layer in layers:
        assert_whole(layer)
    return layers


def test_what_groups_do_not_fit_into_stays_unstructured() -> None:
    sparsifier = attached(MagRan, convnet(), 0.5, structure="channels:4")
    groups = {layer.name: layer.group for layer in sparsifier.layers}
    # three outputs; two groups of four outputs each; a transposed convolution
    assert groups == {"0.weight": 4, "3.weight": 4, "4.weight": 1, "5.weight": 1, "7.weight": 4}
    blocks = attached(MagRan, convnet(), 0.5, **TWO_OF_FOUR)
    structures = {layer.name: str(layer.structure) for layer in blocks.layers}
    assert structures == dict.fromkeys(groups, "2:4") | {"4.weight": "unstructured"}
    assert blocks.active * 2 == blocks.sparsifiable
    for layer in sparsifier.layers + blocks.layers:
        assert_whole(layer)
    sparsifier.verify()


def test_blocks_are_filled_by_the_highest_scores() -> None:
    (layer,) = attached(RandomGrowth, nn.Linear(8, 2, bias=False), 0.5, **TWO_OF_FOUR).layers
    kept = torch.zeros(2, 8, dtype=torch.bool)
    kept[0, 0] = kept[1, 6] = kept[1, 7] = True
    scores = torch.tensor([[0, 1, 3, 2, 5, 5, 5, 9], [1, 2, 3, 4, 9, 9, 0, 0]])
    expected = [[1, 0, 1, 0, 1, 0, 0, 1], [0, 0, 1, 1, 0, 0, 1, 1]]
    assert layer.structure.fill(kept, scores, layer.active).int().tolist() == expected
    infinite = scores.float().masked_fill(~kept, torch.inf)
    assert (layer.structure.fill(kept, infinite, layer.active) >= kept).all()
    with pytest.raises(SparsityError, match="NaN"):
        layer.structure.fill(kept, scores.float().fill_(torch.nan), layer.active)


def test_an_update_of_blocks_by_hand() -> None:
    model = nn.Linear(8, 1, bias=False)
    given = {"prune_rate": 0.5, "prune_schedule": "constant", **TWO_OF_FOUR}
    sparsifier = make(RigL, 0.5, every=1, **given)
    sparsifier.attach(model, optimizer := sgd(model))
    (layer,) = sparsifier.layers
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[9.0, 8, 0, 0, 2, 1, 0, 0]]))
        layer.mask.copy_(layer.weight != 0)
    gradient = torch.tensor([[9.0, 9, 9, 9, 1, 3, -5, 4]])
    (layer.weight * gradient).sum().backward()
    optimizer.step()
    # of the whole layer 2 and 1 are dropped; their block grows where |gradient| is 5 and 4
    assert layer.mask.int().tolist() == [[1, 1, 0, 0, 0, 0, 1, 1]]


def test_blocks_lie_along_the_inputs_of_a_convolution() -> None:
    (layer,) = attached(
        Static, nn.Conv2d(8, 3, 3), 0.75, structure="1:4", distribution="uniform"
    ).layers
    assert layer.mask.unflatten(1, (2, 4)).sum(2).eq(1).all()


@pytest.mark.parametrize(
    ("sparsity", "given", "message"),
    [
        (0.75, TWO_OF_FOUR, 'structure = "2:4" is S = 0.5; for S = 0.75, "1:4" is right'),
        (0.9, TWO_OF_FOUR, 'structure = "2:4" is S = 0.5; for S = 0.9, no N is right'),
        (0.0, TWO_OF_FOUR, 'structure = "2:4" is S = 0.5'),
        (0.5, {"structure": "2:4"}, 'set distribution = "uniform"'),
    ],
)
def test_what_blocks_leave_no_room_for(
    sparsity: float, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(SparsityError, match=message):
        Static(sparsity, total_steps=1, **given)


def test_rounding_is_no_obstacle() -> None:
    given = {"structure": "1:10", "distribution": "uniform"}
    model = nn.Linear(30, 7)  # (1 − 0.9) · 10 is 0.9999999999999998
    assert attached(Static, model, 0.9, **given).active == 21


@pytest.mark.parametrize("method", [GMP, GraNet])
def test_blocks_are_refused_where_counts_change(method: type[DynamicSparsifier]) -> None:
    with pytest.raises(SparsityError, match="changes how many connections there are"):
        method(0.5, total_steps=1000, **TWO_OF_FOUR)


SHAPES = st.lists(
    st.tuples(st.integers(1, 24), st.integers(1, 9), st.sampled_from([(), (3,), (2, 3)])).map(
        lambda each: (each[0], each[1], *each[2])
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(
    SHAPES,
    st.floats(0, 0.99),
    st.integers(2, 8),
    st.sampled_from(["uniform", "er", "erk"]),
)
def test_counts_are_whole_groups_and_together_the_nearest(
    shapes: list[tuple[int, ...]], sparsity: float, group: int, distribution: Any
) -> None:
    named = dict(enumerate(shapes))
    by_name = {str(name): shape for name, shape in named.items()}
    wanted = active_counts(by_name, sparsity, distribution)
    if not any(shape[0] % group == 0 for shape in shapes):
        with pytest.raises(SparsityError, match="fits none"):
            whole_counts(Channels(group), wanted, by_name)
        return
    counts = whole_counts(Channels(group), wanted, by_name)
    fitting = {name for name, shape in by_name.items() if shape[0] % group == 0}
    for name, shape in by_name.items():
        assert 0 <= counts[name] <= prod(shape)
        assert abs(counts[name] - wanted[name]) < group
        assert counts[name] % group == 0 if name in fitting else counts[name] == wanted[name]
    assert abs(sum(counts.values()) - sum(wanted.values())) <= group // 2
    assert whole_counts(Channels(group), counts, by_name) == counts
    assert whole_counts(UNSTRUCTURED, wanted, by_name) == wanted


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 3)),
    group=st.integers(2, 6),
    sparsity=st.floats(0.05, 0.9),
    prune_rate=st.floats(0, 1),
    gradient=st.booleans(),
)
def test_masks_are_the_same_within_groups(
    shape: tuple[int, int, int], group: int, sparsity: float, prune_rate: float, gradient: bool
) -> None:
    torch.manual_seed(0)
    outputs, inputs, kernel = shape
    model = nn.Sequential(
        nn.Conv2d(inputs, outputs * group, kernel, padding=1),
        nn.Tanh(),
        nn.Conv2d(outputs * group, 3, 1),
    ).to(memory_format=torch.channels_last)
    kind = GradientGrowth if gradient else RandomGrowth
    given = {"structure": f"channels:{group}", "prune_rate": prune_rate}
    sparsifier = make(kind, sparsity, every=1, **given)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    try:
        sparsifier.attach(model, optimizer)
    except SparsityError as error:
        assert "would be active" in str(error)  # noqa: PT017
        return
    asked = round((1 - sparsity) * sparsifier.sparsifiable)
    for step in range(3):
        assert abs(sparsifier.active - asked) <= sparsifier.rounding <= group // 2
        for layer in sparsifier.layers:
            assert_whole(layer)
        assert_zero_outside_masks(sparsifier, optimizer, moments=step > 0)
        train(model, optimizer, range(step, step + 1), (inputs, 3, 3))


METHODS = [
    *[(cls, 0.75, {"structure": "channels:4"}) for cls in (Static, RigL, MagRan, GMP, GraNet)],
    *[(cls, 0.5, TWO_OF_FOUR) for cls in (Static, RigL, MagRan)],
]


def training(kind: Any, sparsity: float, given: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    torch.manual_seed(1)
    model = convnet()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparsifier = make(kind, sparsity, total_steps=20, every=2, **given).attach(model, optimizer)
    return model, optimizer, sparsifier


@pytest.mark.parametrize(("kind", "sparsity", "given"), METHODS)
def test_every_method_keeps_it_and_resumes_bit_for_bit(
    kind: Any, sparsity: float, given: dict[str, Any]
) -> None:
    whole, half, rest = (training(kind, sparsity, given) for _ in range(3))
    before = [layer.mask.clone() for layer in whole[2].layers]

    def look() -> None:
        for layer in whole[2].layers:
            assert_whole(layer)
        whole[2].verify()

    shape = (4, 4, 4)
    train(whole[0], whole[1], range(18), shape, after_step=look)
    sparsifier = whole[2]
    assert sparsifier.topology_updates == (0 if kind is Static else 7)
    asked = round(sparsifier.final_density * sparsifier.sparsifiable)
    assert abs(sparsifier.active - asked) <= sparsifier.rounding
    moved = [not torch.equal(x, y.mask) for x, y in zip(before, sparsifier.layers, strict=True)]
    assert any(moved) == (kind is not Static)

    train(half[0], half[1], range(7), shape)
    for part, saved in zip(rest, half, strict=True):
        part.load_state_dict(copy.deepcopy(saved.state_dict()))
    train(rest[0], rest[1], range(7, 18), shape)
    assert_same_parameters(whole[0], rest[0])


def test_counts_are_known_before_and_after() -> None:
    model = nn.Sequential(nn.Linear(5, 12), nn.GRU(12, 6))
    for kind in (Static, GMP):
        sparsifier = make(kind, 0.7, structure="channels:4")
        weights = {n: p for n, p in model.named_parameters() if p.ndim == 2}
        before = list(sparsifier.count_phases(weight_shapes(model, weights)))
        sparsifier.attach(model, sgd(model))
        assert before[0] == sparsifier.count_history[0]
        sparsifier.detach()
    assert sparsifier.layers[1].group == 1, "six units to a gate"


class ByOwnScores(DynamicSparsifier):
    """Grows where inputs come late, and never asks what its masks look like."""

    def growth_scores(self, layer: Layer, rng: torch.Generator) -> Tensor:
        return torch.arange(layer.weight.numel()).view(layer.weight.shape)


class SameFanIn(RandomGrowth):
    """The same number of inputs of each unit."""

    exact_sparsity = False

    def layer_counts(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        counts = super().layer_counts(shapes)
        return {name: counts[name] // shape[0] * shape[0] for name, shape in shapes.items()}

    def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
        assert layer.weight.shape == layer.mask.shape == kept.shape == scores.shape
        assert layer.active >= int(kept.count_nonzero())
        ranked = scores.double().masked_fill(kept, torch.inf)
        order = ranked.argsort(dim=1, descending=True, stable=True)
        mask = torch.zeros_like(kept)
        return mask.scatter_(1, order[:, : layer.active // len(mask)], True)


@pytest.mark.parametrize("kind", [ByOwnScores, SameFanIn])
def test_a_strangers_method_takes_groups_without_knowing(kind: type[DynamicSparsifier]) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    given = {"structure": "channels:4", "prune_schedule": "constant"}
    sparsifier = make(kind, 0.5, every=1, **given).attach(model, optimizer)

    def look() -> None:
        for layer in sparsifier.layers:
            assert layer.group == 4
            assert_whole(layer)
            if kind is SameFanIn:
                assert len(set(layer.mask.sum(1).tolist())) == 1

    look()
    train(model, optimizer, range(5), after_step=look)
    assert sparsifier.topology_updates == 5


def test_a_layer_of_groups_is_a_layer() -> None:
    seen: list[Layer] = []

    class Looking(GradientGrowth):
        def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
            seen.append(layer)
            return super().select_mask(layer, kept, scores)

    model = nn.Linear(5, 8, bias=False)
    optimizer = sgd(model)
    sparsifier = make(Looking, 0.5, every=1, structure="channels:4").attach(model, optimizer)
    weight = model.weight.detach().clone()
    mask = sparsifier.layers[0].mask.clone()
    model(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    groups = seen[1]
    assert (groups.name, groups.active, groups.density) == ("weight", 5, 0.5)
    assert torch.equal(groups.mask, mask[::4])
    torch.testing.assert_close(groups.weight.detach(), weight.abs().view(2, 4, 5).sum(1))
    torch.testing.assert_close(groups.dense_gradient, torch.full((2, 5), 4.0))


def test_a_mask_without_the_structure_is_refused() -> None:
    class Anywhere(RandomGrowth):
        def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
            return largest(scores, ~kept, layer.active - int(kept.count_nonzero())) | kept

    class Whole(RandomGrowth):
        def select_mask(self, layer: Layer, kept: Tensor, scores: Tensor) -> Tensor:
            return torch.ones(8, 8, dtype=torch.bool)

    message = 'the mask of weight does not have the structure "2:4"'
    with pytest.raises(SparsityError, match=message):
        attached(Anywhere, nn.Linear(8, 8), 0.5, **TWO_OF_FOUR)
    with pytest.raises(SparsityError, match=r"for weight has the shape \(8, 8\), instead of that"):
        attached(Whole, nn.Linear(8, 8), 0.5, structure="channels:4")
    sparsifier = attached(Static, nn.Linear(8, 8), 0.5, structure="channels:4")
    (layer,) = sparsifier.layers
    chequered = torch.arange(8)[:, None].add(torch.arange(8)) % 2 == 0
    with pytest.raises(SparsityError, match='the mask of weight does not have the structure "ch'):
        layer.replace_mask(chequered)
    layer.mask.copy_(chequered)
    with pytest.raises(SparsityError, match='the mask of weight does not have the structure "ch'):
        sparsifier.verify()


def test_a_state_of_another_structure_is_refused() -> None:
    saved = attached(Static, nn.Linear(8, 8), 0.5).state_dict()
    sparsifier = attached(Static, nn.Linear(8, 8), 0.5, structure="channels:4")
    with pytest.raises(SparsityError, match='does not have the structure "channels:4"'):
        sparsifier.load_state_dict(saved)


def test_a_shape_without_a_model_is_that_of_a_linear_layer() -> None:
    counts = make(Static, 0.5, structure="channels:4").count_phases({"a": (8, 3), "b": (6, 3)})
    assert list(counts) == [(0, {"a": 12, "b": 9})]
    transposed = {"a": WeightShape((8, 3), units=0)}
    with pytest.raises(SparsityError, match="fits none"):
        list(make(Static, 0.5, structure="channels:4").count_phases(transposed))
