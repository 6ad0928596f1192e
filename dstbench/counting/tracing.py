"""FLOPs of a traced network, by the weight that each product uses.

The counting is fvcore's, made to follow weights: one multiply-add is one FLOP.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn

from dstbench.errors import CountingError

with warnings.catch_warnings():
    # fvcore compiles a loss as it is imported, in a way that torch has deprecated.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape, norm_flop_counter

Handle = Callable[[list[Any], list[Any]], Any]
"""Function from the inputs and outputs of an operator in a trace to its FLOPs, as in fvcore."""


def trace_flops(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, float]:
    """FLOPs of one forward pass of ``module(*inputs)`` in evaluation mode, by parameter name.

    ``""`` stands for products without a parameter, and for what is not a product. A module's
    parameters and its training mode are left as they are.

    Raises:
        CountingError: for an operator that may be heavy and for which there is no rule.
    """
    analysis = _WeightAnalysis(module, inputs)
    with _evaluation_mode(module), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_module = analysis.by_module_and_operator()
    _refuse_unsupported(analysis, by_module)
    return dict(by_module[""])


def _shape(value: Any) -> list[int]:
    shape: list[int] = get_shape(value)
    return shape


def _product(inputs: list[Any], outputs: list[Any]) -> int:
    """A (batched, broadcast) matrix product: the size of the result times the inner dimension."""
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _added_product(inputs: list[Any], outputs: list[Any]) -> int:
    """``input + a @ b`` with the batch, if there is one, kept."""
    return _product(inputs[1:], outputs)


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Queries (…, L, E) with keys (…, S, E), and the weights with values (…, S, V)."""
    *batch, length, width = _shape(inputs[0])
    *_, source, value_width = _shape(inputs[2])
    return prod(batch) * length * source * (width + value_width)


_RULES: dict[str, Handle] = {
    "aten::mm": _product,
    "aten::mv": _product,
    "aten::bmm": _product,
    "aten::matmul": _product,
    "aten::addmm": _added_product,
    "aten::baddbmm": _added_product,
    "aten::rms_norm": norm_flop_counter(2),
    "aten::scaled_dot_product_attention": _attention,
}
"""Rules beside fvcore's own, or in their place where those do not know every shape."""

_RECURRENT = ("aten::gru", "aten::lstm", "aten::rnn_tanh", "aten::rnn_relu")

_VIEWS = """
    alias chunk clone contiguous detach expand flatten narrow permute reshape select slice split
    split_with_sizes squeeze t to transpose type_as unbind unsafe_chunk unsafe_split unsqueeze view
"""
_SAME_WEIGHT = frozenset(f"aten::{name}" for name in _VIEWS.split()) | {"prim::ListUnpack"}
"""Operators that can stand between a parameter and the product that it is used in."""

_CHEAP = """
    abs adaptive_avg_pool1d adaptive_max_pool2d add addcdiv addcmul alias all amax amin any argmax
    argmin argsort atan2 avg_pool1d avg_pool2d avg_pool3d bitwise_and bitwise_or Bool bool
    broadcast_tensors broadcast_to ceil celu clamp clamp_max clamp_min clone cos cumprod cumsum
    diff div elu embedding empty_like erf exp expand_as expm1 exponential eye feature_dropout flip
    Float FloatImplicit floor fmod frac gelu glu hardsigmoid hardswish hardtanh index_add
    index_copy index_fill index_put index_select IntImplicit is_floating_point isfinite isnan item
    le leaky_relu lerp lift_fresh linalg_vector_norm linspace log log10 log1p log2 log_sigmoid
    log_softmax logical_and logical_not logical_or logical_xor logsumexp lt masked_fill
    masked_scatter masked_select max_pool1d max_pool2d max_pool3d maximum mean meshgrid min
    minimum mish movedim mul ne neg new_ones norm normal numel numpy_T one_hot ones_like outer
    _pack_padded_sequence pad _pad_packed_sequence pixel_shuffle pixel_unshuffle pow prelu prod
    rand rand_like randint randint_like randn randn_like reciprocal reflection_pad1d
    reflection_pad2d relu6 repeat repeat_interleave replication_pad1d replication_pad2d reshape_as
    round rsqrt rsub scatter scatter_add selu _shape_as_tensor sigmoid sign silu sin softmax
    softplus sort sqrt square squeeze std sub sum swapaxes take_along_dim tan tanh tensor_split
    tile topk transpose tril triu true_divide unflatten uniform unique_consecutive unsafe_chunk
    unsafe_split upsample_nearest1d var view_as where zero
"""
"""Elementwise operators, reductions, look-ups and changes of shape, as zero FLOPs (fvcore's own
list of them is longer still). What is in none of the lists is an error."""


class _WeightAnalysis(FlopCountAnalysis):  # type: ignore[misc]
    """fvcore's analysis by weight instead of by operator.

    The counters of each module hold, in place of operators' names, those of the parameters that a
    product uses; ``""`` for products without one.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        super().__init__(module, inputs)
        names: dict[int, str] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            names.setdefault(id(tensor), name)
        self._names = list(names.values())
        self._matrices = {n for n, p in module.named_parameters() if p.ndim >= 2}
        self.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        for name in _CHEAP.split():
            self.set_op_handle(f"aten::{name}", None, f"aten::{name}_", None)
        for name, handle in {**self._op_handles, **_RULES}.items():
            self.set_op_handle(name, self._by_weight(handle))
        for name in _RECURRENT:
            self.set_op_handle(name, self._recurrent)

    def _by_weight(self, handle: Handle) -> Handle:
        def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
            flops = handle(inputs, outputs)
            total = sum(flops.values()) if isinstance(flops, Counter) else flops
            weights = {name for value in _tensors(inputs) if (name := self._matrix(value))}
            return Counter({weights.pop() if len(weights) == 1 else "": total})

        return count

    def _recurrent(self, inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        """A GRU, LSTM or RNN: each of its matrices is used once per time step and sequence.

        Its inputs are (input, state, weights, …), or (packed input, batch sizes, state,
        weights, …); the packed input holds all steps of all sequences in its first dimension.
        """
        is_packed = inputs[3].node().kind() == "prim::ListConstruct"
        time_steps = prod(_shape(inputs[0])[:-1])
        counts: Counter[str] = Counter()
        for weight in inputs[3 if is_packed else 2].node().inputs():
            shape = _shape(weight)
            if len(shape) == 2:
                counts[self._matrix(weight)] += time_steps * prod(shape)
        return counts

    def _matrix(self, value: Any) -> str:
        """The name of the parameter that a value in the trace is, or is a view of; or ``""``."""
        node = value.node()
        while node.kind() in _SAME_WEIGHT:
            value = next(node.inputs())
            node = value.node()
        if node.kind() != "prim::Param":
            return ""
        # The parameters and buffers are the last inputs of the graph.
        graph_inputs = [each.debugName() for each in node.outputs()]
        names = dict(zip(reversed(graph_inputs), reversed(self._names), strict=False))
        name = names.get(value.debugName(), "")
        return name if name in self._matrices else ""


def _tensors(values: list[Any]) -> Iterator[Any]:
    """The values, and in place of lists (einsum's operands) what is in them."""
    for value in values:
        if value.node().kind() == "prim::ListConstruct":
            yield from value.node().inputs()
        else:
            yield value


def _refuse_unsupported(analysis: FlopCountAnalysis, modules: Mapping[str, Any]) -> None:
    for operator in analysis.unsupported_ops():
        where = max((n for n in modules if operator in analysis.unsupported_ops(n)), key=len)
        raise CountingError(
            f"no rule counts the FLOPs of {operator}, used in "
            f"{f'module {where!r}' if where else 'the network itself'}"
        )


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode, and attention as products that can be counted."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for submodule, mode in modes.items():
            submodule.training = mode
