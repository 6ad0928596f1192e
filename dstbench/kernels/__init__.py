"""Kernels that compute a masked layer from its active weights alone, on a CPU."""

from dstbench.kernels.choice import Choice, Mode
from dstbench.kernels.fixed import fixed_weights
from dstbench.kernels.modules import SparseGRU
from dstbench.kernels.use import KernelUse, use_kernels

__all__ = ["Choice", "KernelUse", "Mode", "SparseGRU", "fixed_weights", "use_kernels"]
