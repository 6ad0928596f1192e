"""What comes out of a trial."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What a trial has tried, and what was not as it should be."""

    name: str
    count: int
    tried: str
    problems: Sequence[str]
