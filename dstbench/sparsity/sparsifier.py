"""The base of all sparsifiers: masks that are chosen once, and kept while a network is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from dstbench.errors import SparsityError
from dstbench.kernels import Choice, KernelUse, Mode, use_kernels
from dstbench.sparsity.arguments import check_arguments, validated
from dstbench.sparsity.attachment import check_attachable
from dstbench.sparsity.first_masks import FirstMasks
from dstbench.sparsity.keeper import MaskKeeper, kept_weights
from dstbench.sparsity.layers import Layer, sparsifiable_weights
from dstbench.sparsity.packing import Packing
from dstbench.sparsity.saved import check_complete, saved_masks, take_up_masks
from dstbench.sparsity.settings import SparsifierSettings
from dstbench.sparsity.structure import parse_structure
from dstbench.sparsity.verification import verify


class Sparsifier(FirstMasks):
    """Keeps a network at a sparsity, from the first step to the last, with a fixed random mask.

    Attached to a network and its optimizer it needs no further call: gradients are masked as
    autograd accumulates them, so that clipping, the optimizer's moments and its weight decay see
    zeros at inactive weights. After every step inactive weights are exactly zero, whatever the
    training loop and the optimizer do: what may have moved them is masked again. Two sparsifiers
    with the same seed, sparsity and layer distribution start from the same mask.

    A subclass may choose other masks: how many weights of each layer are active
    (:meth:`layer_counts`), by which scores (:meth:`first_scores`, which may use the gradient of the
    first batch: :attr:`needs_initial_gradient`), under which structure (:meth:`select_mask`).
    """

    name: ClassVar[str]

    class Settings(SparsifierSettings):
        pass

    trial_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings with which a trial takes seconds: what ``dstbench check`` uses."""

    def __init__(self, sparsity: float, *, total_steps: int, seed: int = 0, **settings: Any):
        """
        Args:
            sparsity: fraction of the sparsifiable weights that are zero, in [0, 1).
            total_steps: optimizer steps of the whole training, on which schedules depend.
            seed: seed of the first mask and of random growth.
            settings: values of the class's ``Settings``.

        Raises:
            SparsityError: for a sparsity out of range or settings that are not the class's. A
                method that is not possible at every sparsity raises it here too: a benchmark that
                asks for such a cell is refused before anything is trained.
        """
        super().__init__()
        check_arguments(sparsity, total_steps)
        self.settings: Any = validated(self.Settings, settings, type(self).__name__)
        self.structure = parse_structure(self.settings.structure)
        """What the setting says of masks; :attr:`Layer.structure` is what it is to each."""
        self.structure.check(sparsity, self.settings.distribution, self._changes_counts)
        self.sparsity = sparsity
        self.total_steps = total_steps
        self.seed = seed
        self.step = 0
        """Optimizer steps taken since the training began."""
        self.topology_updates = 0
        """Topology updates made since the training began."""
        self.skipped_updates = 0
        """Topology updates left out because a gradient was not finite."""
        self.changes: dict[str, int] = {}
        """Number of connections of each layer that the latest topology update replaced or added."""
        self.on_topology_update: Callable[[int, int], object] | None = None
        """Function that is called after each topology update, with the optimizer step that the
        update follows and the number of connections that it replaced by others."""
        self.kernels: KernelUse
        """Which layers of an attached network are computed by which kernels."""
        self._keeper: MaskKeeper
        self._packing: Packing
        self._is_attached = False
        self._is_loading = False

    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        weights: Mapping[str, nn.Parameter] | None = None,
        averaged: nn.Module | None = None,
        backward: Callable[[], None] | None = None,
        kernels: Mode | Choice = "auto",
    ) -> Self:
        """Mask ``model`` and keep it masked while ``optimizer`` trains it.

        After :meth:`detach`, a sparsifier may be attached to the same weights again: its masks and
        its step stay as they were.

        Args:
            weights: what may be masked, by parameter name; by default what
                :func:`sparsifiable_weights` finds.
            averaged: a copy of the model with averaged weights (EMA), kept under the same masks.
            backward: accumulates the gradients of one training batch, as the training loop does
                before the optimizer's step. It is called before anything is masked, and only where
                the method needs it (:attr:`needs_initial_gradient`, at S > 0), which takes the same
                batch :attr:`initial_passes` times; the model's gradients are cleared then.
            kernels: which kernels masked layers are computed with, until :meth:`detach`: dense ones
                ("masked"), those that go over active connections alone ("sparse"), or per layer
                whichever is expected to be faster ("auto"). Where there are no sparse ones, or they
                do not take a layer, it is computed by dense kernels.

        Raises:
            SparsityError: if a weight is frozen, sharded, not the optimizer's, given twice, masked
                by another sparsifier, missing in ``averaged`` or stored in a way that cannot be
                masked in place, if nothing is to be masked or would be active, or if the method
                needs ``backward`` and it is not given.
        """
        if self._is_attached:
            raise SparsityError("this sparsifier is attached already; make another one")
        choice = kernels if isinstance(kernels, Choice) else Choice(kernels)
        if weights is None:
            weights = sparsifiable_weights(model, self.settings.keep_dense)
            masked = list(weights)[self.settings.keep_first_dense :]
        else:
            masked = self.masked_names(weights)
        weights = {name: weights[name] for name in masked}
        check_attachable(weights, optimizer, averaged, kept_weights())
        if not self.layers:
            self._choose_first_masks(model, weights, backward)
        elif [id(layer.weight) for layer in self.layers] != [id(w) for w in weights.values()]:
            raise SparsityError("this sparsifier was attached to other weights; make another one")
        self._keeper = MaskKeeper(
            self.layers,
            model,
            optimizer,
            averaged,
            keeps_state=self._keeps_inactive_state(),
            on_gradient=self._gradient_accumulated,
            on_start=self._step_begins,
            on_step=self._step_taken,
        )
        self._keeper.start()
        networks = [network for network in (model, averaged) if network is not None]
        self.kernels = use_kernels(
            networks,
            {layer.name: layer.mask for layer in self.layers} if self.sparsity else {},
            choice,
            self._needs_dense_gradient_now,
        )
        self._packing = Packing(self.layers, networks, self.kernels)
        self._is_attached = True
        return self

    def pack(self) -> None:
        """Hold layers as their active weights alone, until :meth:`unpack`: to be called between an
        optimizer's step and the next forward pass, before every step or now and then.

        A layer that sparse kernels take, of a density of one half at most, then has a 1-D parameter
        of its active values, (active,), in its weight's place: in the network, in its averaged copy
        and in the optimizer, whose state of it shrinks alike; gradients that it has by then are
        dropped. A module that is asked for its weight (``layer.weight``) shows the whole one, of
        which writes are lost. Layers stay whole with optimizers other than Adam and its kin,
        RMSprop and SGD, where state of inactive weights is kept, in processes that exchange
        gradients, and before steps after which a method observes them.
        """
        if not self._is_attached or self._keeper.keeps_state:
            return
        if self._needs_whole_weights_now():
            self.unpack()
        elif layers := self._packing.pack(self._keeper.optimizer):
            self._keeper.parameters_changed(layers if self.moves else [])

    @property
    def is_packed(self) -> bool:
        """Whether any layer is held as its active weights alone now."""
        return self._is_attached and self._packing.is_on

    def unpack(self) -> None:
        """Hold whole weights again: to be called before weights are saved, loaded or written to."""
        if self.is_packed:
            self._packing.unpack(self._keeper.optimizer)
            self._keeper.parameters_changed([])

    def dense_gradient_steps(self, steps: int) -> int:
        """Number of the first ``steps`` optimizer steps that compute the gradient of inactive
        weights; what :attr:`needs_initial_gradient` asks for is none of them."""
        return 0

    def verify(self) -> None:
        """Make sure that what is said to be masked is.

        Raises:
            SparsityError: naming the first layer whose mask holds another number of connections
                than :attr:`Layer.active <dstbench.sparsity.Layer.active>` or
                :attr:`count_history` say, whose weight (or averaged weight) is not zero at an
                inactive connection, or in whose place the network has another weight.
        """
        if self._is_attached:
            self._keeper.places.check()
        if self.layers:
            verify(self.layers, self.count_history[-1][1], self._keeper.averaged)

    def detach(self) -> None:
        """Stop masking; the weights stay as they are."""
        if self._is_attached:
            self.unpack()
            self._keeper.stop()
            self.kernels.stop()
            self._is_attached = False

    @property
    def final_density(self) -> float:
        """Fraction of the sparsifiable weights that are active at the end of the training; of an
        attached sparsifier, since its latest topology update."""
        return 1 - self.sparsity

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the network's and the optimizer's states.

        Raises:
            SparsityError: as :meth:`verify`, and where weights are packed.
        """
        if self.is_packed:
            raise SparsityError("weights are packed: unpack() before states are saved or loaded")
        if not self._is_loading:
            self.verify()
        return {
            "step": self.step,
            "rng": self._rng.get_state(),
            "masks": saved_masks(self.layers),
            "counts": [[step, counts] for step, counts in self.count_history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`.

        Attach first, then load the states of network, optimizer and sparsifier, in any order:
        attaching masks the network anew, which would clear weights that were grown in training.

        Raises:
            SparsityError: if the state is not that of this network at this sparsity, or of another
                kind of sparsifier.
        """
        self._is_loading = True  # weights may be loaded by now, and the masks not yet
        try:
            check_complete(state, self.state_dict())
        finally:
            self._is_loading = False
        take_up_masks(self.layers, state["masks"], self._total_at(state))
        self.step = state["step"]
        self.count_history = [(step, dict(counts)) for step, counts in state["counts"]]
        self._rng.set_state(state["rng"].cpu())
        for layer in self.layers:
            self._keeper.mask_anew(layer)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._is_attached:
            raise SparsityError(
                "an attached sparsifier cannot be copied or pickled: its copy would mask nothing. "
                "Save state_dict(), attach a new sparsifier to the copied model and optimizer, and "
                "load it there"
            )
        return super().__reduce_ex__(protocol)

    def _needs_whole_weights_now(self) -> bool:
        """Whether the step being taken is one after which a method observes weights."""
        return False

    def _needs_dense_gradient_now(self) -> bool:
        """Whether the step being taken needs the gradient of inactive weights."""
        return False

    @property
    def update_bytes(self) -> int:
        """Bytes that a topology update holds beside what there is before an optimizer's step."""
        return 0

    @property
    def moves(self) -> bool:
        """Whether topology updates replace connections by others."""
        return False

    @property
    def _changes_counts(self) -> bool:
        """Whether the method changes how many connections layers have."""
        return False

    def _keeps_inactive_state(self) -> bool:
        """Whether the optimizer's state of inactive weights is left as it is, and moves them."""
        return False

    def _step_begins(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer is about to take a step with masked weights."""

    def _step_taken(self, trained: Sequence[Layer]) -> None:
        """An optimizer has taken a step that has trained these layers."""
        if len(trained) == len(self.layers):
            self.step += 1
        if self._needs_whole_weights_now():
            self.unpack()

    def _total_at(self, state: Mapping[str, Any]) -> int:
        """Number of weights that are active in a saved state of this network."""
        return self.active

    def _gradient_accumulated(self, layer: Layer, gradient: Tensor) -> None:
        """A backward pass has accumulated the gradient of a layer, which is not masked yet."""
