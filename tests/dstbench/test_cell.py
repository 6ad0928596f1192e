"""The names of cells, and what follows from their settings."""

import pickle

from dstbench.cell import Cell

CELL = Cell(model="ldm", dataset="digits", sparsifier="static", sparsity=0.5, seed=0)


def test_a_copy_has_an_id_of_its_own() -> None:
    assert CELL.id.startswith("ldm-digits-static-0.5-0-")
    copied = CELL.model_copy(update={"seed": 1, "model_settings": {"layers": 2}})
    fresh = Cell(**copied.model_dump())
    assert (copied.id, copied.kin) == (fresh.id, fresh.kin)
    assert copied.id != CELL.id
    assert copied.kin != CELL.kin


def test_cells_are_equal_whatever_was_asked_of_them() -> None:
    assert CELL.id
    assert CELL == Cell(**CELL.model_dump()) == pickle.loads(pickle.dumps(CELL))


def test_kin_differ_in_method_and_seed_alone() -> None:
    dense = CELL.model_copy(update={"sparsifier": "dense", "sparsity": 0.0, "seed": 3})
    assert dense.kin == CELL.kin
    assert CELL.model_copy(update={"dataset": "moon"}).kin != CELL.kin
