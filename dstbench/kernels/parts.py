"""Parts of a block that may be computed together, without a call of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from dstbench.kernels.modules import stored_plainly

_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def are_watched(parts: Iterable[nn.Module | None]) -> bool:
    """Whether calling any of these modules does more than its class says."""
    some: bool = _has_any_global_hook()  # type: ignore[no-untyped-call]
    return some or any(each is not None and _is_watched(each) for each in parts)


def _is_watched(part: nn.Module) -> bool:
    has = vars(part)
    return "forward" in has or any(has[hooks] for hooks in _HOOKS)


def is_group_norm(norm: nn.Module) -> TypeGuard[nn.GroupNorm]:
    """Whether a module is a group normalization with scale and shift, as kernels compute it."""
    return type(norm) is nn.GroupNorm and all(
        isinstance(each, Tensor) and stored_plainly(each) for each in (norm.weight, norm.bias)
    )
