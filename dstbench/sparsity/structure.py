"""Structures of masks: which connections are active together, or in turn.

A method scores connections, and knows nothing of this. Where connections form groups that share
one place in the mask, the score of a group is the sum of its members' scores: what a layer loses
with a group is what it loses with all of its members.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from dstbench.errors import SparsityError
from dstbench.sparsity.selection import count_true, largest
from dstbench.sparsity.shapes import units_of


class Structure:
    """What the mask of a layer has to look like: here, each connection is by itself.

    Tensors are in the shape of a weight, (n_out, n_in, *kernel), or in that of its groups, which
    differ in :class:`Channels` only.
    """

    group: int = 1
    """Number of neighbouring output channels that share one mask."""
    wants: ClassVar[str] = "two dimensions"
    """What a weight has that the structure fits."""

    def __str__(self) -> str:
        return "unstructured"

    def check(self, sparsity: float, distribution: str, changes: bool) -> None:
        """Refuse what the structure leaves no room for: a sparsity, a layer distribution, a method
        that ``changes`` how many connections layers have.

        Raises:
            SparsityError: saying what would be right.
        """

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this shape can have the structure."""
        return True

    def whole(self, counts: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, int]:
        """Numbers of connections that the structure allows, near ``counts``, for layers of these
        ``sizes`` that it fits."""
        return dict(counts)

    def sums(self, scores: Tensor) -> Tensor:
        """Scores of groups, from those of connections."""
        return scores

    def of_groups(self, mask: Tensor) -> Tensor:
        """The mask of groups, from one of connections in which they are whole."""
        return mask

    def of_connections(self, mask: Tensor) -> Tensor:
        """The mask of connections, from one of groups."""
        return mask

    def holds(self, mask: Tensor) -> bool:
        """Whether a mask of connections has the structure."""
        return True

    def fill(self, kept: Tensor, scores: Tensor, count: int) -> Tensor:
        """The mask of groups with ``count`` of them: ``kept``, then the highest ``scores``; ties
        go to the lower index."""
        return largest(scores, ~kept, count - count_true(kept)).logical_or_(kept)


UNSTRUCTURED = Structure()


@dataclass(frozen=True)
class Channels(Structure):
    """Groups of neighbouring output channels whose connections to one input are active together."""

    group: int
    wants = "a number of output channels (in each gate or projection) that the group divides"

    def __str__(self) -> str:
        return f"channels:{self.group}"

    def fits(self, shape: Sequence[int]) -> bool:
        units = units_of(shape)
        return units > 0 and units % self.group == 0

    def whole(self, counts: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, int]:
        """Multiples of the group's size, which together are the one nearest to the sum of
        ``counts``: rounded down, and groups for what is missing go to the largest remainders."""
        rest = {name: count % self.group for name, count in counts.items()}
        groups = round(sum(rest.values()) / self.group)
        raised = set(sorted(rest, key=lambda name: -rest[name])[:groups])
        return {
            name: count - rest[name] + self.group * (name in raised)
            for name, count in counts.items()
        }

    def sums(self, scores: Tensor) -> Tensor:
        precise = torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else None
        return self._in_groups(scores).sum(1, dtype=precise)

    def of_groups(self, mask: Tensor) -> Tensor:
        return self._in_groups(mask)[:, 0]

    def of_connections(self, mask: Tensor) -> Tensor:
        return mask.repeat_interleave(self.group, 0)

    def holds(self, mask: Tensor) -> bool:
        groups = self._in_groups(mask)
        return bool((groups == groups[:, :1]).all())

    def _in_groups(self, tensor: Tensor) -> Tensor:
        """(n_out, …) to (groups, members, …)."""
        return tensor.reshape(-1, self.group, *tensor.shape[1:])


@dataclass(frozen=True)
class NM(Structure):
    """N of every M neighbouring inputs of a unit, along dimension 1, are active."""

    n: int
    m: int
    wants = "a number of inputs that M divides"

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def check(self, sparsity: float, distribution: str, changes: bool) -> None:
        wanted = (1 - sparsity) * self.m
        if abs(wanted - self.n) > 1e-9 * self.m:
            near = min(max(round(wanted), 1), self.m - 1)
            right = f'"{near}:{self.m}"' if abs(near - wanted) < 1e-9 * self.m else "no N"
            raise SparsityError(
                f'structure = "{self}" is S = {1 - self.n / self.m:g}; for S = {sparsity:g}, '
                f"{right} is right"
            )
        if distribution != "uniform":
            raise SparsityError(
                f'structure = "{self}" makes all layers alike: set distribution = "uniform"'
            )
        if changes:
            raise SparsityError(
                f'structure = "{self}" leaves no room for a method that changes how many '
                'connections there are in training; "channels:G" does'
            )

    def fits(self, shape: Sequence[int]) -> bool:
        return units_of(shape) > 0 and shape[1] % self.m == 0

    def whole(self, counts: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, int]:
        return {name: sizes[name] * self.n // self.m for name in counts}

    def holds(self, mask: Tensor) -> bool:
        return bool((self._in_blocks(mask).sum(-1) == self.n).all())

    def fill(self, kept: Tensor, scores: Tensor, count: int) -> Tensor:
        """The mask with N in each block: ``kept``, then the highest ``scores`` there; ties go to
        the lower index."""
        ranked = scores if scores.is_floating_point() else scores.double()
        if ranked.isnan().any():
            raise SparsityError("cannot choose by scores of which some are NaN")
        ranked = ranked.clamp(max=torch.finfo(ranked.dtype).max).masked_fill(kept, torch.inf)
        blocks = self._in_blocks(ranked)
        order = blocks.argsort(dim=-1, descending=True, stable=True)
        mask = torch.zeros_like(blocks, dtype=torch.bool)
        mask.scatter_(-1, order[..., : self.n], True)
        return mask.flatten(-2).movedim(-1, 1)

    def _in_blocks(self, tensor: Tensor) -> Tensor:
        """(n_out, n_in, …) to (n_out, …, blocks, M)."""
        inputs_last = tensor.movedim(1, -1)
        return inputs_last.reshape(*inputs_last.shape[:-1], -1, self.m)


def parse_structure(text: str) -> Structure:
    """The structure that is written as ``unstructured``, ``channels:4`` or ``2:4``.

    Raises:
        ValueError: for anything else, saying what would be right.
    """
    if text == str(UNSTRUCTURED):
        return UNSTRUCTURED
    written = re.fullmatch(r"([a-z]+|\d{1,9}):(\d{1,9})", text, re.ASCII)
    kind, last = written.groups() if written else (text.partition(":")[0], "")
    if kind == "channels" and last:
        if int(last) < 2:
            raise ValueError(
                f'"{text}": a group has at least two output channels, as in "channels:2"; each '
                'connection by itself is "unstructured"'
            )
        return Channels(int(last))
    if kind.isdecimal() and last:
        n, m = int(kind), int(last)
        if not 0 < n < m:
            right = f"{m}:{n}" if 0 < m < n else f"1:{max(m, 2)}"
            raise ValueError(
                f'"{text}": of every M neighbouring inputs, N are active in N:M, at least one and '
                f'not all, as in "{right}"'
            )
        return NM(n, m)
    near = get_close_matches(kind, ["unstructured", "channels"], n=1)
    whole = {"unstructured": "unstructured", "channels": f"channels:{last or 4}"}
    hint = f'did you mean "{whole[near[0]]}"? ' if near else ""
    raise ValueError(
        f'there is no structure "{text}"; {hint}(known: "unstructured"; "channels:G", such as '
        '"channels:4"; "N:M", such as "2:4")'
    )


def whole_counts(
    structure: Structure, counts: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Numbers of active connections that a structure allows, near ``counts``, by parameter name.

    Those of weights that it does not fit, which stay unstructured, are left as they are. Numbers
    that are allowed already do not change.

    Raises:
        SparsityError: if it fits none of the weights.
    """
    sizes = {name: prod(shape) for name, shape in shapes.items() if structure.fits(shape)}
    if shapes and not sizes:
        raise SparsityError(
            f'structure = "{structure}" fits none of the {len(shapes)} weights: no weight has '
            + structure.wants
        )
    fitting = {name: counts[name] for name in sizes if name in counts}
    return {**counts, **structure.whole(fitting, sizes)}
