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
        *[(name, Long) for name in ("count", "time", "chunks", "vectors")],
        *[(name, Long) for name in ("features", "units", "directions")],
        *[(name, ctypes.c_void_p) for name in ("starts", "order", "lengths")],
    ]


class _Sequences:
    """Which sequences are computed together, and in which rows: chunks of as many as there are
    vectors for, the longest first, each for as many steps as its longest sequence has.

    Args:
        lengths: (N,), steps of each of the sequences, which have room for ``time``.
    """

    def __init__(self, lengths: Tensor, time: int, library: ctypes.CDLL) -> None:
        self.library = library
        self.time = time
        self.width, places = sequence_places(len(lengths), library)
        self.order = lengths.argsort(descending=True, stable=True)
        self._lengths = torch.zeros(places)
        self._lengths[: len(lengths)] = lengths[self.order]
        before_first, longest = torch.ones(1).long(), self._lengths[:: self.width].long()
        self._starts = torch.cat([before_first, longest + 1]).cumsum(0)
        self.rows = int(self._starts[-1])

    def __len__(self) -> int:
        return len(self.order)

    def sizes(self, features: int, units: int = 0, directions: int = 0) -> Any:
        """What kernels are told of them, for as long as this lives."""
        chunks, vectors = len(self._starts) - 1, self.width // self.library.lanes()
        indices = self._starts, self.order, self._lengths
        sizes = len(self), self.time, chunks, vectors, features, units, directions
        return ctypes.byref(_CSequences(*sizes, *map(address, indices)))

    def ends(self, layers: Sequence[Tensor], directions: int) -> Tensor:
        """States (layers · directions, N, units) at the last step of each direction, of those that
        layers have in all rows."""
        place = self.order.argsort()
        lane, first = place % self.width, self._starts[place // self.width]
        last = first + self._lengths[place].long() - 1
        by_sequence = [
            states.view(self.rows, directions, -1, self.width).permute(0, 3, 1, 2)
            for states in layers
        ]
        rows = (last, first)[:directions]
        return torch.stack(
            [states[row, lane, way] for states in by_sequence for way, row in enumerate(rows)]
        )


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
    lengths = torch.full((n,), time) if lengths is None else lengths
    sequences = _Sequences(lengths, time, connections[0][0][0].library)
    states = _Pack.apply(inputs.contiguous(), sequences)
    layers = []
    for index, directions in enumerate(connections):
        suffixes = [f"_l{index}{way}" for way in ("", "_reverse")[: len(directions)]]
        parameters = [gru._parameters[name + end] for end in suffixes for name in WEIGHTS]
        states = _Layer.apply(states, sequences, directions, torch.is_grad_enabled(), *parameters)
        layers.append(states)
    return _Unpack.apply(states, sequences), sequences.ends(layers, len(connections[0]))


class _Pack(torch.autograd.Function):
    """From sequences (N, T, features) to (rows, features, width)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, sequences: _Sequences) -> Tensor:
        ctx.sequences = sequences
        return _packed(inputs, sequences)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _unpacked(gradient.contiguous(), ctx.sequences), None


class _Unpack(torch.autograd.Function):
    """The way back."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, sequences: _Sequences) -> Tensor:
        ctx.sequences = sequences
        return _unpacked(packed, sequences)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _packed(gradient.contiguous(), ctx.sequences), None


def _packed(inputs: Tensor, sequences: _Sequences) -> Tensor:
    features = inputs.shape[2]
    packed = inputs.new_empty(sequences.rows, features, sequences.width)
    sequences.library.pack(
        sequences.sizes(features), Long(torch.get_num_threads()), address(inputs), address(packed)
    )
    return packed


def _unpacked(packed: Tensor, sequences: _Sequences) -> Tensor:
    features = packed.shape[1]
    found = packed.new_empty(len(sequences), sequences.time, features)
    sequences.library.unpack(
        sequences.sizes(features), Long(torch.get_num_threads()), address(packed), address(found)
    )
    return found


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
    """One layer: from (rows, features, width) to (rows, directions · units, width)."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        sequences: _Sequences,
        connections: Sequence[tuple[Connections, Connections]],
        keeps_gates: bool,
        *parameters: Tensor,
    ) -> Tensor:
        rows, features, width = inputs.shape
        units = connections[0][1].mask.shape[1]
        count = len(connections)
        kept = (count, rows if keeps_gates else 0)
        gates, hidden = (inputs.new_empty(*kept, parts * units, width) for parts in (3, 1))
        states = inputs.new_empty(rows, count * units, width)
        sequences.library.recurrence(
            sequences.sizes(features, units, count),
            _directions(connections, parameters, gates, hidden),
            Long(torch.get_num_threads()), address(inputs), address(states),
        )  # fmt: skip
        if keeps_gates:
            ctx.save_for_backward(inputs, states, gates, hidden, *parameters)
            ctx.sequences, ctx.connections = sequences, connections
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, states, gates, hidden, *parameters = ctx.saved_tensors
        sequences, connections = ctx.sequences, ctx.connections
        gradient = gradient.contiguous()
        results = [torch.empty_like(parameter) for parameter in parameters]
        of_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        sequences.library.recurrence_backward(
            sequences.sizes(inputs.shape[1], hidden.shape[2], len(connections)),
            _directions(connections, parameters, gates, hidden, results),
            Long(torch.get_num_threads()), address(inputs), address(states), address(gradient),
            address(of_inputs),
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
