"""The optimizer steps of this process, told to those whose weights they train.

A step is one outermost call of ``step()``: what a subclass or a wrapper calls within it is a part
of it. Whichever torch optimizer holds the weights is heard, not only the one that was named first.
"""

from __future__ import annotations

import sys
import weakref
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

_WRAPPER = torch.optim.Optimizer.profile_hook_step(lambda self: None).__code__
"""The code in which every torch optimizer's ``step()`` runs its hooks."""

_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
_hooked = False


class Listener(ABC):
    """Hears of steps that optimizers take."""

    @abstractmethod
    def before_step(self, optimizer: torch.optim.Optimizer, whole: bool) -> None:
        """``optimizer`` is about to take a step; it is ``whole`` unless it is a part of another."""

    @abstractmethod
    def after_step(self, optimizer: torch.optim.Optimizer, whole: bool) -> None:
        """``optimizer`` has taken a step; it is ``whole`` unless it is a part of another."""


def listen(listener: Listener) -> None:
    """Tell ``listener`` of all steps, for as long as it lives."""
    global _hooked
    _listeners.add(listener)
    if not _hooked:
        # A compiled step runs these as they are. To say so takes a second of imports.
        register_optimizer_step_pre_hook(torch.compiler.disable(_before))  # type: ignore[no-untyped-call]
        register_optimizer_step_post_hook(torch.compiler.disable(_after))  # type: ignore[no-untyped-call]
        _hooked = True


def stop_listening(listener: Listener) -> None:
    """Tell ``listener`` of no further steps."""
    _listeners.discard(listener)


def listeners() -> list[Listener]:
    """Those that are told of steps."""
    return list(_listeners)


def _before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    whole = under_way() <= 1
    for listener in listeners():
        listener.before_step(optimizer, whole)


def _after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    whole = under_way() <= 1
    for listener in listeners():
        listener.after_step(optimizer, whole)


def under_way() -> int:
    """Number of ``step()`` calls on this thread's stack, which an exception clears as well."""
    frame, count = sys._getframe(), 0
    while frame.f_back is not None:
        frame = frame.f_back
        count += frame.f_code is _WRAPPER
    return count
