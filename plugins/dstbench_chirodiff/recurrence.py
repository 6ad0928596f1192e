"""A bidirectional GRU over sequences of different lengths, as fast as a CPU trains it exactly.

``torch.nn.GRU`` takes the two directions one after the other, updates its weights' gradients at
every time step, and loses more time still on packed sequences. Here both directions are one batch,
and all that need not wait for the previous time step is done for all time steps at once. A
sequence's backward direction reads its points in reverse, so that padding comes last in both
directions and never reaches a point that counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def bidirectional_gru(gru: nn.GRU, inputs: Tensor, lengths: Tensor) -> Tensor:
    """What ``gru`` makes of padded sequences, as if they were packed.

    Args:
        gru: bidirectional, with biases, without dropout.
        inputs: (N, T, features).
        lengths: (N,), points that count in each sequence, 1 ≤ length ≤ T.

    Returns:
        (N, T, 2 · hidden_size); what follows a sequence's end is undefined, but finite.
    """
    batch, time, _ = inputs.shape
    points = batch * time
    step = torch.arange(time)[:, None]
    from_the_end = torch.where(step < lengths, lengths - 1 - step, step)
    sequence = torch.arange(batch)
    # Rows of each direction's inputs (2, T, N) among the given points, then among the
    # directions' states, where each point has two.
    given = torch.stack([sequence * time + order for order in (step, from_the_end)])
    same, reverse = (order * batch + sequence for order in (step, from_the_end))
    forward_first = torch.stack([same, reverse + points], dim=-1)
    backward_first = torch.stack([reverse, same + points], dim=-1)
    of_layer_below = torch.stack([forward_first, backward_first])

    rows, sources = given.to(inputs.device), inputs.flatten(0, 1)
    for layer in range(gru.num_layers):
        both = sources.index_select(0, rows.flatten()).view(2, points, -1)
        weights, biases = _both(gru, "weight_ih", layer), _both(gru, "bias_ih", layer)
        gates = torch.baddbmm(biases.unsqueeze(1), both, weights.mT).view(2, time, batch, -1)
        recurrent = _both(gru, "weight_hh", layer), _both(gru, "bias_hh", layer)
        # Autocast leaves the recurrence alone: it takes no lower precision.
        states: Tensor = _Recurrence.apply(gates.to(recurrent[0].dtype), *recurrent)
        rows, sources = of_layer_below.to(inputs.device), states.flatten(0, 2)
    rows = forward_first.transpose(0, 1).flatten().to(inputs.device)
    return sources.index_select(0, rows).view(batch, time, -1)


def _both(gru: nn.GRU, name: str, layer: int) -> Tensor:
    """A parameter of both directions (2, …)."""
    return torch.stack(
        [gru.get_parameter(f"{name}_l{layer}{suffix}") for suffix in ("", "_reverse")]
    )


class _Recurrence(torch.autograd.Function):
    """One layer's walk through time, both directions at once.

    From what the inputs contribute to the gates (2, T, N, 3H), ``weight_hh`` (2, 3H, H) and
    ``bias_hh`` (2, 3H) to the states (2, T, N, H), which start at zero. Gates and formulas are
    those of ``torch.nn.GRU``: reset r, update z, new n.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        _, time, batch, width = gates.shape
        units = width // 3
        states = gates.new_zeros(2, time + 1, batch, units)
        recurrent = torch.empty_like(gates)
        resets_updates = gates.new_empty(2, time, batch, 2 * units)
        news = gates.new_empty(2, time, batch, units)
        bias = bias.unsqueeze(1)
        for t in range(time):
            part, rz, n = recurrent[:, t], resets_updates[:, t], news[:, t]
            torch.baddbmm(bias, states[:, t], weight.mT, out=part)
            torch.add(gates[:, t, :, : 2 * units], part[..., : 2 * units], out=rz).sigmoid_()
            r, z = rz.chunk(2, dim=-1)
            torch.addcmul(gates[:, t, :, 2 * units :], r, part[..., 2 * units :], out=n).tanh_()
            torch.lerp(n, states[:, t], z, out=states[:, t + 1])
        ctx.save_for_backward(resets_updates, news, recurrent, states, weight)
        return states[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        resets_updates, news, recurrent, states, weight = ctx.saved_tensors
        _, time, batch, units = news.shape
        r, z = resets_updates.chunk(2, dim=-1)
        previous = states[:, :-1]

        # How the state changes with the gates before their activations: first the derivatives at
        # all time steps, which the loop then multiplies by the gradient of the state.
        of_recurrent = torch.empty_like(recurrent)
        of_reset, of_update, of_new = of_recurrent.chunk(3, dim=-1)
        slope = 1 - news.square()
        slope.addcmul_(slope, z, value=-1)
        torch.mul(slope, r, out=of_new)
        torch.mul(of_new, recurrent[..., 2 * units :], out=of_reset)
        of_reset.addcmul_(of_reset, r, value=-1)
        torch.sub(previous, news, out=of_update).mul_(z)
        of_update.addcmul_(of_update, z, value=-1)

        of_states = torch.empty_like(news)
        of_states[:, -1] = gradient[:, -1]
        by_gate = of_recurrent.view(2, time, batch, 3, units)
        for t in reversed(range(time)):
            of_state = of_states[:, t]
            by_gate[:, t].mul_(of_state.unsqueeze(-2))
            if t > 0:
                direct = torch.addcmul(gradient[:, t - 1], of_state, z[:, t])
                torch.baddbmm(direct, of_recurrent[:, t], weight, out=of_states[:, t - 1])

        of_weight = of_recurrent.flatten(1, 2).mT @ previous.flatten(1, 2)
        of_bias = of_recurrent.sum(dim=(1, 2))
        # The new gate's recurrent part is multiplied by r, its input part is not.
        torch.mul(of_states, slope, out=of_new)
        return of_recurrent, of_weight, of_bias
