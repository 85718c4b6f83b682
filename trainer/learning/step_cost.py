"""What a step costs before it is run: memory and arithmetic, from a run on tensors that have shapes but no contents."""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from trainer.data.batch import ViewBatch
from trainer.learning.micro_batches import MicroBatch
from trainer.learning.module import Distillation


@final
class StepMeter(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, while they exist, and the arithmetic of the operations."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """Begin at zero.

        Args:
            known: tensors that are there already, whose bytes do not count.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most, self.flop = 0, 0, 0
        self._seen = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in known)}
        self._freed: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flop += int(formula(*args, **(kwargs or {}), out_val=result))
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = id(storage), storage.nbytes()
        if place in self._seen:
            return
        # torch keeps the Python object of a storage for as long as the storage lives
        self._seen[place] = weakref.ref(storage, lambda _: self._forget(place, size))  # type: ignore[assignment]
        self.now += size
        self.most = max(self.most, self.now)

    def _forget(self, place: int, size: int) -> None:
        self._seen.pop(place, None)
        self.now -= size


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PieceCost:
    """What the forward and the backward pass of one micro-batch cost on one process."""

    activations: int
    """Largest number of bytes at one moment, beyond weights, gradients and the batch itself."""
    flop: int
    """Floating-point operations of matrix products, convolutions and attention; an addition and a multiplication are
    two. What activation checkpointing repeats is counted."""


def piece_costs(module: Distillation, pieces: Sequence[MicroBatch], *, first: bool) -> Iterator[PieceCost]:
    """Yield what micro-batches cost. Nothing is computed: tensors have shapes and no contents.

    Args:
        module: with the model on the device `meta`. It cannot be used afterwards.
        pieces: micro-batches. Their contents do not matter.
        first: whether gradients do not exist yet when a micro-batch begins, because it is the only one of its step.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        for model in (module.model, module.average):
            if model is not None:
                model.to_empty(device="cpu")
        weights = [weight for weight in module.model.parameters() if weight.requires_grad]
        gradients = sum(weight.nbytes for weight in weights)
        for piece in pieces:
            for weight in weights:
                weight.grad = None if first else torch.empty_like(weight)
            views = piece.views.changed(fake.from_tensor)
            meter = StepMeter(_known(module, views))
            with meter:
                with _precision(module):
                    loss = module._loss(MicroBatch(views=views, share=piece.share), {})
                loss.backward()
            yield PieceCost(activations=max(meter.most - (gradients if first else 0), 0), flop=meter.flop)


def _known(module: Distillation, views: ViewBatch) -> list[Tensor]:
    """Return the tensors that are there before a micro-batch runs."""
    batch: list[Tensor] = []
    views.changed(lambda tensor: batch.append(tensor) or tensor)  # type: ignore[func-returns-value]
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    return [*module.parameters(), *module.buffers(), *gradients, *batch]


def _precision(module: Distillation) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if module.recipe.precision == "bf16" else nullcontext()
