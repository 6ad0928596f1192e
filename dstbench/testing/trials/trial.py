"""A small network in training under a sparsifier, as the harness trains one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dstbench.kernels import Mode
from dstbench.seeds import derive
from dstbench.sparsity import Sparsifier, sparsifiable_weights
from dstbench.testing.checking import imports
from dstbench.testing.trials.networks import NETWORKS

TOTAL_STEPS = 24
BATCH = 4

Disturbance = Callable[["Trial", str, Tensor], Tensor]
"""Makes another gradient of a trial, a weight's name and the gradient that autograd computed."""


class Trial:
    """Trains one of :data:`NETWORKS` with AdamW, weight decay, clipping and averaged weights.

    The data of a step depend on its number alone.

    Raises :class:`~dstbench.errors.SparsityError` where the sparsifier refuses.
    """

    def __init__(
        self,
        cls: type[Sparsifier] | None,
        network: str,
        sparsity: float = 0.0,
        *,
        seed: int = 0,
        total_steps: int = TOTAL_STEPS,
        settings: Mapping[str, Any] | None = None,
        micro_batches: int = 1,
        bf16: bool = False,
        channels_last: bool = False,
        kernels: Mode = "masked",
        packs: bool = False,
        disturb: Disturbance | None = None,
    ) -> None:
        self.arguments: dict[str, Any] = {
            "seed": seed,
            "total_steps": total_steps,
            "settings": dict(settings or {}),
            "micro_batches": micro_batches,
            "bf16": bf16,
            "channels_last": channels_last,
            "kernels": kernels,
            "packs": packs,
        }
        self.cls = cls
        self.name = network
        self.sparsity = sparsity
        self.step = 0
        self.loss = 0.0
        """Loss of the batch whose gradients were accumulated last."""
        self.initial_gradients = 0
        """Number of times that the sparsifier has asked for the gradient of the first batch."""
        self.micro_batches = micro_batches
        self.bf16 = bf16
        self.channels_last = channels_last
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            self.network = NETWORKS[network].build()
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.weights = sparsifiable_weights(self.network)
        if disturb is not None:
            for name, weight in self.weights.items():
                weight.register_hook(partial(disturb, self, name))  # type: ignore[no-untyped-call]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=1e-2, weight_decay=0.1, fused=True
        )
        average = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.network, multi_avg_fn=average)
        self.sparsifier: Sparsifier | None = None
        if cls is not None:
            self.sparsifier = cls(
                sparsity, total_steps=total_steps, seed=seed, **self.arguments["settings"]
            )
            self.sparsifier.attach(
                self.network,
                self.optimizer,
                weights=self.weights,
                averaged=self.averaged.module,
                backward=self._backward_without_step,
                kernels=kernels,
            )

    def __str__(self) -> str:
        assert self.cls is not None
        settings = self.arguments["settings"]
        with_settings = f", settings {settings}" if settings else ""
        return (
            f"{self.cls.__name__} at S = {self.sparsity:g}, seed {self.arguments['seed']}"
            f"{with_settings}, on the network '{self.name}', after step {self.step}"
        )

    def code(self) -> str:
        """Python code that brings a trial to this one's step."""
        assert self.cls is not None
        defaults = {**(Trial.__init__.__kwdefaults__ or {}), "settings": {}}
        given = {key: value for key, value in self.arguments.items() if value != defaults[key]}
        keywords = "".join(f", {key}={value!r}" for key, value in given.items())
        return "\n".join(
            [
                "from dstbench.testing.trials import Trial",
                imports(self.cls),
                f"trial = Trial({self.cls.__qualname__}, {self.name!r}, {self.sparsity}{keywords})",
                f"trial.train({self.step})  # trial.network, trial.optimizer, trial.sparsifier",
            ]
        )

    @property
    def masks(self) -> dict[str, Tensor]:
        """Masks (bool, in the shape of the weight) by name of the weight."""
        return (
            {layer.name: layer.mask for layer in self.sparsifier.layers} if self.sparsifier else {}
        )

    def declares(self, step: int) -> bool:
        """Whether optimizer step ``step`` is said to compute the gradient of inactive weights."""
        assert self.sparsifier is not None
        before, after = map(self.sparsifier.dense_gradient_steps, (step - 1, step))
        return after > before

    def steps(self, count: int) -> Iterator[int]:
        """The number of steps taken: now, and after each of ``count`` more steps."""
        yield self.step
        for _ in range(count):
            self.take_step()
            yield self.step

    def train(self, count: int) -> None:
        for _ in self.steps(count):
            pass

    def take_step(self) -> None:
        self.backward()
        self.finish_step()

    def finish_step(self) -> None:
        """Clip the accumulated gradients, update the weights, and average them."""
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averaged.update_parameters(self.network)
        if self.sparsifier:
            self.sparsifier.unpack()
        self.step += 1

    def backward(self) -> None:
        """Accumulate the gradients of the next step."""
        if self.sparsifier and self.arguments["packs"]:
            self.sparsifier.pack()
        data = torch.Generator().manual_seed(derive(0, "data", self.step))
        inputs = torch.randn(BATCH, *NETWORKS[self.name].inputs, generator=data)
        if self.channels_last:
            inputs = inputs.to(memory_format=torch.channels_last)
        self.loss = 0.0
        for part in inputs.chunk(self.micro_batches):
            with torch.autocast("cpu", torch.bfloat16, self.bf16):
                output = self.network(part).float()
            target = torch.randn(output.shape, generator=data)
            loss = (output - target).square().mean() / self.micro_batches
            loss.backward()
            self.loss += loss.item()

    def _backward_without_step(self) -> None:
        self.initial_gradients += 1
        self.backward()

    def end(self) -> None:
        """Leave the network to itself: steps of other trials are not told to this one any more."""
        if self.sparsifier is not None:
            self.sparsifier.detach()

    def moments(self) -> Iterator[tuple[str, str, Tensor]]:
        """The optimizer's moments of each weight that may be masked: the weight's name, the
        moment's name, the moment."""
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    yield name, key, value

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors that training changes, by what they are."""
        found = {f"mask of {name}": mask for name, mask in self.masks.items()}
        found |= {f"weight {name}": value for name, value in self.network.named_parameters()}
        averaged = self.averaged.module.named_parameters()
        found |= {f"averaged weight {name}": value for name, value in averaged}
        found |= {f"{key} of {name}": value for name, key, value in self.moments()}
        return {key: value.detach().clone() for key, value in found.items()}

    def saved(self) -> dict[str, Any]:
        """The state that the harness saves in a checkpoint."""
        assert self.sparsifier is not None
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparsifier": self.sparsifier.state_dict(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, as the harness does."""
        assert self.sparsifier is not None
        self.network.load_state_dict(saved["network"])
        self.averaged.load_state_dict(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.sparsifier.load_state_dict(saved["sparsifier"])
        self.step = saved["step"]


def first_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """The first difference between tensors of the same name, in words; ``None`` where all are the
    same, bit for bit."""
    for name in one.keys() ^ other.keys():
        return f"{name} is only in one of the two"
    for name, mine in one.items():
        theirs = other[name]
        if mine.shape != theirs.shape:
            return f"{name} has shape {tuple(mine.shape)} and {tuple(theirs.shape)}"
        differs = (mine != theirs) & ~(mine.isnan() & theirs.isnan())
        if differs.any():
            at = differs.nonzero()[0].tolist()
            first, second = mine[tuple(at)].item(), theirs[tuple(at)].item()
            return (
                f"{name} differs in {int(differs.count_nonzero())} of {differs.numel()} elements; "
                f"at {at} it is {first} and {second}"
            )
    return None
