"""What comes out of a trial."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a trial has tried, and what was not as it should be."""

    name: str
    count: int
    tried: str
    problems: Sequence[str]


def drawn(cases: Sequence[T], span: range, chance: random.Random) -> list[T]:
    """Some of the cases, in an order that is drawn: those at the places of a span."""
    return chance.sample(cases, len(cases))[span.start : span.stop]
