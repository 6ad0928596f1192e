"""One task of Ray's for each cell whose turn is not over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from rich.text import Text

from dstbench.contracts import Ended
from dstbench.errors import HeldError, StoreError
from dstbench.grid import Cell
from dstbench_ray.files import File
from dstbench_ray.nodes import Conditions, Failed, Started
from dstbench_ray.results import Apart, Delivery, Shared

TRIES = 3
"""Number of times that a cell is tried whose process dies while the node lives on. One death may be
the doing of a neighbour that took all the memory, or of a node about to go down; three are the
cell's."""
WAITING = 64
"""Tasks that Ray has been given and that have not begun, at most; where more are running, as many
as these, so that a large cluster fills soon. Each item that is heard takes a look at all tasks: at
a thousand that takes longer than a small cell's record."""
SECONDS_BETWEEN_LOOKS = 10
"""How long nothing is heard before nodes are looked at: where one is gone without a word, Ray tells
within a minute or two, and of the tasks that it had only long after that."""
SECONDS_TO_CANCEL = 10
"""Time that tasks have to end, once they are cancelled."""


@dataclass
class Turn:
    """The turn of a cell, over all its tries."""

    cell: Cell
    latest: Started | None = None
    """The node and machine where the cell is, or was when its process died."""
    deaths: list[str] = field(default_factory=list)
    """The machine of each death of its process."""
    delivery: Delivery | None = None
    error: str | None = None

    def close(self) -> None:
        if self.delivery:
            self.delivery.close()


class Tasks:
    """The tasks, which Ray starts in the order of their cells.

    Each is a generator on a node, heard item by item. Ray itself is not to try any again: it would
    count the deaths of nodes as it counts those of processes.
    """

    def __init__(
        self, ray: Any, place: Shared | Apart, resources: dict[str, float], conditions: Conditions
    ) -> None:
        self.ray = ray
        self.place = place
        self.conditions = conditions
        self.function = ray.remote(place.function)
        self.given = [ray.put(place.run_cell)]  # once: it knows all cells, and is large with many
        variables = place.environment()
        if not resources["num_gpus"]:
            variables["CUDA_VISIBLE_DEVICES"] = ""  # Ray would leave all to be seen
        self.options = {
            **resources,
            "max_retries": 0,
            "num_returns": "streaming",
            "runtime_env": {"env_vars": variables},
        }
        self.turns: dict[Any, Turn] = {}
        """The turns that are not over, by their tasks."""

    def ended(self, cells: Sequence[Cell]) -> Iterator[Ended]:
        """Run the cells; each, as soon as its turn is over."""
        left = iter(cells)
        while True:
            for cell in islice(left, self._room()):
                turn = Turn(cell)
                self.turns[self._start(turn)] = turn
            if not self.turns:
                return
            heard, _ = self.ray.wait(
                list(self.turns), timeout=SECONDS_BETWEEN_LOOKS, fetch_local=False
            )
            if not heard:
                self._leave_dead_nodes()
                continue
            task = heard[0]
            turn = self.turns[task]
            successor = self._hear(task, turn)
            del self.turns[task]
            if successor:
                self.turns[successor] = turn
            else:
                turn.close()
                yield Ended(turn.cell, turn.error)

    def close(self) -> None:
        """End what is running, and wait for its end."""
        for task in self.turns:
            self.ray.cancel(task, force=True)
        if ends := [task.completed() for task in self.turns]:
            self.ray.wait(ends, num_returns=len(ends), timeout=SECONDS_TO_CANCEL, fetch_local=False)
        for turn in self.turns.values():
            turn.close()

    def _leave_dead_nodes(self) -> None:
        """Start those turns again whose node is dead."""
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        for task, turn in list(self.turns.items()):
            if turn.latest and turn.latest.node not in alive:
                self.ray.cancel(task, force=True)
                del self.turns[task]
                self.turns[self._start_elsewhere(turn)] = turn

    def _room(self) -> int:
        """How many tasks more Ray may be given."""
        running = sum(turn.latest is not None for turn in self.turns.values())
        return max(0, max(WAITING, running) + running - len(self.turns))

    def _start(self, turn: Turn) -> Any:
        """A task for a turn, behind all that are waiting."""
        where: dict[str, Any] = {}
        if turn.delivery and turn.latest:  # the cell's checkpoint is there, if the node still is
            affinity = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            where["scheduling_strategy"] = affinity(turn.latest.node, soft=True)
        function = self.function.options(**self.options, **where)
        arguments = self.place.arguments(turn.cell)
        return function.remote(self.given, turn.cell, self.conditions, *arguments)

    def _start_elsewhere(self, turn: Turn) -> Any:
        """A task for a turn whose node is dead, and which is nowhere until it begins again."""
        turn.latest = None
        return self._start(turn)

    def _hear(self, task: Any, turn: Turn) -> Any | None:
        """Take the next item of a task; the task to listen to then, unless the turn is over."""
        errors = self.ray.exceptions
        try:
            self._take(self.ray.get(next(task)), turn)
        except StopIteration:
            return None
        except errors.NodeDiedError:
            return self._start_elsewhere(turn)
        except errors.ObjectLostError:
            return self._start(turn)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            turn.deaths.append(turn.latest.host if turn.latest else "an unknown node")
            if len(turn.deaths) < TRIES:
                return self._start(turn)
            hosts = ", ".join(dict.fromkeys(turn.deaths))
            turn.error = (
                f"its process died {TRIES} times (on {hosts}): killed, perhaps for want of memory, "
                f"or by an error in C code; Ray says: {error}"
            )
            return None
        except (StoreError, OSError, errors.RayError) as error:
            self.ray.cancel(task, force=True)
            turn.error = None if isinstance(error, HeldError) else _text(error)
            return None
        return task

    def _take(self, item: Started | File | Failed, turn: Turn) -> None:
        match item:
            case Started():
                turn.latest = item
                turn.delivery = turn.delivery or self.place.expect(turn.cell)
            case File():
                assert turn.delivery is not None
                turn.delivery.receive(item)
            case Failed():
                turn.error = item.error


def _text(error: Exception) -> str:
    """The message of an error, without the colours that Ray gives it."""
    return Text.from_ansi(str(error)).plain
