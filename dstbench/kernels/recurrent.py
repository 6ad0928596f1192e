"""A GRU as a differentiable function that goes over the active connections alone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dstbench.kernels.connections import CLayer, Connections
from dstbench.kernels.library import Long, address

_WIDTH = 64
"""Sequences that are computed together: their states stay in the first-level cache."""

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _CDirection(ctypes.Structure):
    """``struct Direction`` of source/recurrence.h."""

    _fields_ = [
        *[(name, CLayer) for name in ("input", "recurrent")],
        *[(name, ctypes.c_void_p) for name in (*WEIGHTS, "gates", "hidden")],
        *[(f"of_{name}", ctypes.c_void_p) for name in WEIGHTS],
    ]


class _CSequences(ctypes.Structure):
    """``struct Sequences`` of source/recurrence.h."""

    _fields_ = [
        *[(n, Long) for n in ("chunks", "time", "vectors", "features", "units", "directions")],
        ("valid", ctypes.c_void_p),
    ]


def gru_states(
    gru: nn.GRU,
    inputs: Tensor,
    lengths: Tensor | None,
    connections: Sequence[Sequence[tuple[Connections, Connections]]],
) -> tuple[Tensor, Tensor]:
    """States of the last layer, (N, T, directions · units), of sequences (N, T, features), and of
    all layers and directions at their last step, (layers · directions, N, units).

    Args:
        lengths: (N,), points of each sequence, as if they were packed; what follows a sequence's
            end is zero. ``None``: all of them.
        connections: of weight_ih and weight_hh, by layer and direction.
    """
    n, time, _ = inputs.shape
    width, places = sequence_places(n, connections[0][0][0].library)
    chunks = places // width
    filled = nn.functional.pad(inputs, (0, 0, 0, 0, 0, places - n))
    states = filled.view(chunks, width, time, -1).permute(0, 2, 3, 1).contiguous()
    valid = None
    if lengths is not None:
        ends = nn.functional.pad(lengths, (0, places - n)).view(chunks, 1, width)
        valid = (torch.arange(time)[:, None] < ends).to(inputs.dtype)
    last = []
    for index, directions in enumerate(connections):
        suffixes = [f"_l{index}{way}" for way in ("", "_reverse")[: len(directions)]]
        parameters = [gru.get_parameter(name + end) for end in suffixes for name in WEIGHTS]
        states = _Layer.apply(states, valid, directions, *parameters)
        by_sequence = states.permute(0, 3, 1, 2).reshape(places, time, -1)[:n]
        ways = by_sequence.unflatten(2, (len(directions), -1))
        ends = torch.full((n,), time - 1) if lengths is None else lengths - 1
        last += [ways[torch.arange(n), ends, 0], *([ways[:, 0, 1]] if len(directions) > 1 else [])]
    return by_sequence, torch.stack(last)


def sequence_places(n: int, library: ctypes.CDLL) -> tuple[int, int]:
    """Sequences that are computed together, of a batch of ``n``, and how many the vectors have room
    for in all: as many together as leave little room empty."""
    lanes: int = library.lanes()
    least = -(-n // lanes) * lanes
    width = _WIDTH
    while width > lanes and -(-n // width) * width > 1.15 * least:
        width //= 2
    return width, -(-n // width) * width


class _Layer(torch.autograd.Function):
    """One layer: from (chunks, T, features, width) to (chunks, T, directions · units, width)."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        valid: Tensor | None,
        connections: Sequence[tuple[Connections, Connections]],
        *parameters: Tensor,
    ) -> Tensor:
        chunks, time, features, width = inputs.shape
        units = parameters[1].shape[1]
        count = len(connections)
        library = connections[0][0].library
        gates = inputs.new_empty(count, chunks, time, 3 * units, width)
        hidden = inputs.new_empty(count, chunks, time, units, width)
        states = inputs.new_empty(chunks, time, count * units, width)
        sizes = (chunks, time, width // library.lanes(), features, units, count)
        ctx.sequences = _CSequences(*sizes, address(valid))
        directions = _directions(connections, parameters, gates, hidden)
        library.recurrence(
            ctypes.byref(ctx.sequences), directions, Long(torch.get_num_threads()),
            address(inputs), address(states),
        )  # fmt: skip
        ctx.save_for_backward(inputs, states, gates, hidden, valid, *parameters)
        ctx.connections = connections
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, states, gates, hidden, _, *parameters = ctx.saved_tensors
        connections = ctx.connections
        gradient = gradient.contiguous()
        results = [torch.empty_like(parameter) for parameter in parameters]
        directions = _directions(connections, parameters, gates, hidden, results)
        of_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        connections[0][0].library.recurrence_backward(
            ctypes.byref(ctx.sequences), directions, Long(torch.get_num_threads()),
            address(inputs), address(states), address(gradient), address(of_inputs),
        )  # fmt: skip
        for index, pair in enumerate(connections):
            for each, result in zip(pair, results[4 * index :], strict=False):
                each.note_gradient(result)
        return of_inputs, None, None, *results


def _directions(
    connections: Sequence[tuple[Connections, Connections]],
    parameters: Sequence[Tensor],
    gates: Tensor,
    hidden: Tensor,
    results: Sequence[Tensor] | None = None,
) -> Any:
    made = []
    for index, (of_input, of_state) in enumerate(connections):
        own = slice(4 * index, 4 * index + 4)
        made.append(
            _CDirection(
                of_input.index(), of_state.index(), *map(address, parameters[own]),
                address(gates[index]), address(hidden[index]),
                *(map(address, results[own]) if results else [None] * 4),
            )
        )  # fmt: skip
    return (_CDirection * len(made))(*made)
