"""A GRU as a differentiable function that goes over the active connections alone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dstbench.kernels.connections import CLayer, Connections
from dstbench.kernels.fixed import known_values
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
    library = connections[0][0][0].library
    width, places = sequence_places(n, library)
    chunks = places // width
    valid = None
    if lengths is not None:
        known = nn.functional.pad(lengths, (0, places - n)).view(chunks, 1, width)
        valid = (torch.arange(time)[:, None] < known).to(inputs.dtype)
    states = _Pack.apply(inputs.contiguous(), width, library)
    sequence = torch.arange(n)
    ends = time - 1 if lengths is None else lengths - 1
    last = []
    for index, directions in enumerate(connections):
        suffixes = [f"_l{index}{way}" for way in ("", "_reverse")[: len(directions)]]
        parameters = [gru._parameters[name + end] for end in suffixes for name in WEIGHTS]
        states = _Layer.apply(states, valid, directions, torch.is_grad_enabled(), *parameters)
        by_sequence = states.permute(0, 3, 1, 2).unflatten(3, (len(directions), -1))
        for way in range(len(directions)):
            at = 0 if way else ends
            last.append(by_sequence[sequence // width, sequence % width, at, way])
    return _Unpack.apply(states, n, library), torch.stack(last)


class _Pack(torch.autograd.Function):
    """From sequences (N, T, features) to (chunks, T, features, width), filled up with zeros."""

    @staticmethod
    def forward(ctx: Any, sequences: Tensor, width: int, library: ctypes.CDLL) -> Tensor:
        ctx.n, ctx.library = len(sequences), library
        return _packed(sequences, width, library)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _unpacked(gradient.contiguous(), ctx.n, ctx.library), None, None


class _Unpack(torch.autograd.Function):
    """The way back."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, n: int, library: ctypes.CDLL) -> Tensor:
        ctx.width, ctx.library = packed.shape[-1], library
        return _unpacked(packed, n, library)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _packed(gradient.contiguous(), ctx.width, ctx.library), None, None


def _packed(sequences: Tensor, width: int, library: ctypes.CDLL) -> Tensor:
    n, time, features = sequences.shape
    packed = sequences.new_empty(-(-n // width), time, features, width)
    sizes = _CSequences(len(packed), time, width // library.lanes(), features)
    library.pack(
        ctypes.byref(sizes), Long(torch.get_num_threads()), Long(n), address(sequences),
        address(packed),
    )  # fmt: skip
    return packed


def _unpacked(packed: Tensor, n: int, library: ctypes.CDLL) -> Tensor:
    chunks, time, features, width = packed.shape
    sequences = packed.new_empty(n, time, features)
    sizes = _CSequences(chunks, time, width // library.lanes(), features)
    library.unpack(
        ctypes.byref(sizes), Long(torch.get_num_threads()), Long(n), address(packed),
        address(sequences),
    )  # fmt: skip
    return sequences


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
        keeps_gates: bool,
        *parameters: Tensor,
    ) -> Tensor:
        chunks, time, features, width = inputs.shape
        units = connections[0][1].mask.shape[1]
        count = len(connections)
        library = connections[0][0].library
        kept = (count, chunks, time) if keeps_gates else (count, 0, 0)
        gates, hidden = (inputs.new_empty(*kept, parts * units, width) for parts in (3, 1))
        states = inputs.new_empty(chunks, time, count * units, width)
        sizes = (chunks, time, width // library.lanes(), features, units, count)
        ctx.sequences = _CSequences(*sizes, address(valid))
        directions = _directions(connections, parameters, gates, hidden)
        library.recurrence(
            ctypes.byref(ctx.sequences), directions, Long(torch.get_num_threads()),
            address(inputs), address(states),
        )  # fmt: skip
        if keeps_gates:
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
        return of_inputs, None, None, None, *results


def _directions(
    connections: Sequence[tuple[Connections, Connections]],
    parameters: Sequence[Tensor],
    gates: Tensor,
    hidden: Tensor,
    results: Sequence[Tensor] | None = None,
) -> Any:
    made = []
    for index, pair in enumerate(connections):
        of_input, of_state = (each.index() for each in pair)
        held = list(parameters[4 * index : 4 * index + 4])
        if results is None:
            for place, (each, layer) in enumerate(zip(pair, (of_input, of_state), strict=True)):
                values = known_values(held[place], each)
                if values is not None:
                    held[place], layer.packed = values, True
        found = map(address, results[4 * index : 4 * index + 4]) if results else [None] * 4
        kept = address(gates[index]), address(hidden[index])
        made.append(_CDirection(of_input, of_state, *map(address, held), *kept, *found))
    return (_CDirection * len(made))(*made)
