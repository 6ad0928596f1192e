"""What an error message ends with when a word is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word nearest to ``word``, if any is near, and the list of all of them."""
    words = sorted(set(known))
    if not words:
        return "there are none"
    listed = f"known: {', '.join(words)}"
    near = get_close_matches(word, words, n=1)
    return f"did you mean '{near[0]}'? ({listed})" if near else listed
