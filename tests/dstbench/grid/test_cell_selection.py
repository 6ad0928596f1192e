"""Selecting cells by what they are."""

import pytest

from dstbench.errors import ConfigError
from dstbench.grid import Cell
from dstbench.grid.selection import select, sparsifiers_named

METHODS = [("dense", 0.0), ("static", 0.5), ("static", 0.9), ("rigl", 0.5), ("rigl", 0.9)]
CELLS = [
    Cell(model=model, dataset=dataset, sparsifier=sparsifier, sparsity=sparsity, seed=seed)
    for model, dataset in (("ldm", "digits"), ("chirodiff", "kanjivg"))
    for seed in (0, 1)
    for sparsifier, sparsity in METHODS
]


def selected(*only: str, skip: tuple[str, ...] = ()) -> list[str]:
    """In words."""
    return [f"{c.model} {c.sparsifier} {c.sparsity:g} {c.seed}" for c in select(CELLS, only, skip)]


def test_without_criteria_all_cells_are_selected() -> None:
    assert select(CELLS, (), ()) == CELLS
    assert select([], (), ()) == []


def test_values_of_a_key_unite_and_keys_intersect() -> None:
    expected = ["chirodiff static 0.9 1", "chirodiff rigl 0.9 1"]
    assert selected("model=chirodiff", "seed=1", "sparsity=0.9") == expected
    united = ["ldm dense 0 0", "ldm static 0.5 0", "ldm static 0.9 0"]
    assert selected("model=ldm", "sparsifier=dense,static", "seed=0") == united
    assert selected("sparsifier=static", "model=ldm", "sparsifier=dense", "seed=0") == united


def test_numbers_are_equal_however_they_are_written() -> None:
    assert selected("sparsity=0.50, 9e-1") == selected("sparsity=0.5,0.9")
    assert len(selected("sparsity=0.50")) == 8


def test_a_cell_is_skipped_for_any_key() -> None:
    expected = ["chirodiff dense 0 0", "chirodiff static 0.5 0", "chirodiff rigl 0.5 0"]
    assert selected(skip=("model=ldm", "seed=1", "sparsity=0.9")) == expected
    assert selected("model=chirodiff", skip=("seed=1", "sparsity=0.9")) == expected


def test_the_sparsifiers_that_are_named_each_once() -> None:
    only = ["sparsifier=mine, static", "seed=0", "sparsifier=static,dense"]
    assert sparsifiers_named(only) == ["mine", "static", "dense"]
    assert sparsifiers_named(()) == []
    with pytest.raises(ConfigError, match="--only mine: should be KEY=VALUE"):
        sparsifiers_named(["mine"])


@pytest.mark.parametrize(
    ("only", "skip", "message"),
    [
        (("ldm",), (), "--only ldm: should be KEY=VALUE, such as model=ldm"),
        (("modle=ldm",), (), "--only modle=ldm: unknown key; did you mean 'model'? "
         "(known: dataset, model, seed, sparsifier, sparsity)"),
        ((), ("sparsifier=rigel",), "--skip sparsifier=rigel: no cell has sparsifier 'rigel'; did "
         "you mean 'rigl'? (known: dense, rigl, static)"),
        (("sparsity=0.75",), (), "--only sparsity=0.75: no cell has sparsity '0.75'; did you mean "
         "'0.5'? (known: 0, 0.5, 0.9)"),
        (("seed=one",), (), "--only seed=one: no cell has seed 'one'; known: 0, 1"),
        (("dataset=",), (), "--only dataset=: no cell has dataset ''; known: digits, kanjivg"),
        (("model=ldm", "dataset=kanjivg"), (), "no cell is left by --only model=ldm "
         "--only dataset=kanjivg; there are: model ldm, chirodiff; dataset digits, kanjivg; "
         "sparsifier dense, static, rigl; sparsity 0, 0.5, 0.9; seed 0, 1"),
        ((), ("seed=0,1",), "no cell is left by --skip seed=0,1; there are: model ldm, chirodiff; "
         "dataset digits, kanjivg; sparsifier dense, static, rigl; sparsity 0, 0.5, 0.9; "
         "seed 0, 1"),
    ],
)  # fmt: skip
def test_criteria_that_are_wrong(
    only: tuple[str, ...], skip: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        select(CELLS, only, skip)
    assert str(caught.value) == message
