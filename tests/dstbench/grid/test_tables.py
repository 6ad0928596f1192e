"""Line numbers of keys."""

import pytest

from dstbench.grid.tables import KeyPath, TomlLines, dotted

TEXT = """\
name = "x"
[grid]
seeds = [
  0,  # = 1
]
[[tasks]]  # the first
model = "a"
[tasks.models."a.b"]
depth = 1
[tasks.training]
steps = 1
[[tasks]]
model = 'b = c'
[tasks.training]
steps = 2
ema.decay = 0.1
[ models . ldm ]
"quoted key" = 1
inline = {a = 1, b = 2}
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 1),
        (("grid",), 2),
        (("grid", "seeds"), 3),
        (("grid", "seeds", 0), 3),
        (("grid", "missing"), 2),
        (("tasks", 0), 6),
        (("tasks", 0, "model"), 7),
        (("tasks", 0, "models", "a.b", "depth"), 9),
        (("tasks", 0, "training", "steps"), 11),
        (("tasks", 1), 12),
        (("tasks", 1, "model"), 13),
        (("tasks", 1, "training", "steps"), 15),
        (("tasks", 1, "training", "ema", "decay"), 16),
        (("models", "ldm"), 17),
        (("models", "ldm", "quoted key"), 18),
        (("models", "ldm", "inline", "b"), 19),
        (("nowhere",), None),
        ((), None),
    ],
)
def test_find(path: KeyPath, line: int | None) -> None:
    assert TomlLines(TEXT).find(path) == line


def test_dotted() -> None:
    assert dotted(("tasks", 0, "training", "steps")) == "tasks[0].training.steps"
    assert dotted(()) == ""
