"""Averaging gradients over processes that train the same path."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import Tensor, nn

from nni_spos.mutables import ActiveSlices
from nni_spos.training.optimizer import WHOLE

BUCKET_BYTES = 25 * 2**20
"""Of gradients that are sent together, as in PyTorch's DistributedDataParallel."""


class SampledGradients(DDPStrategy):
    """Average the gradients of the sampled weights, and send nothing of the others.

    All processes train the same path, so each knows without asking which weights of the supernet
    have a gradient. PyTorch's wrapper would search them in every step, and send zeros for the
    others. Of a weight with channels as choices only the slice that the path uses is sent; beyond
    it gradients are zero. What a step leaves out has no gradient, as in a single process.
    """

    def configure_ddp(self) -> None:
        """Begin with the weights of rank 0; there is no wrapper around the module."""
        assert isinstance(self.model, nn.Module)
        self._slices = ActiveSlices(self.model)
        with torch.no_grad():
            for tensor in itertools.chain(self.model.parameters(), self.model.buffers()):
                content = tensor.contiguous()
                torch.distributed.broadcast(content, src=0)
                tensor.copy_(content)

    def backward(self, closure_loss: Tensor, *arguments: Any, **options: Any) -> Tensor:
        loss: Tensor = super().backward(closure_loss, *arguments, **options)
        average_gradients(self.model.parameters(), self._slices)
        return loss


def choose_strategy(name: str, num_processes: int) -> str | Strategy:
    """Return Lightning's strategy for a recipe's name; a process alone needs none."""
    if num_processes == 1:
        return "auto"
    return SampledGradients() if name == "auto" else name


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], slices: ActiveSlices) -> None:
    """Replace the gradients that there are by their averages over all processes.

    Parameters
    ----------
    parameters
        In the same order in all processes.
    slices
        Of a supernet with channels as choices, what the paths of the step used of a parameter.
    """
    used = slices()
    parts = []
    for parameter in parameters:
        if parameter.grad is not None:
            # Laid out as the parameter is, which is the same everywhere.
            parts += [
                (parameter[place], parameter.grad[place]) for place in used.get(parameter, WHOLE)
            ]
    sent = [_send(bucket) for bucket in _buckets(parts)]
    for work, views, gradients in sent:
        work.wait()
        torch._foreach_copy_(gradients, views)


Part = tuple[Tensor, Tensor]
"""Of a parameter and of its gradient."""


def _buckets(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yield parts of one type that together are not much larger than `BUCKET_BYTES`."""
    bucket: list[Part] = []
    size = 0
    for part in parts:
        gradient = part[1]
        if bucket and (size >= BUCKET_BYTES or gradient.dtype != bucket[0][1].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(part)
        size += gradient.numel() * gradient.element_size()
    if bucket:
        yield bucket


def _send(bucket: list[Part]) -> tuple[Any, list[Tensor], list[Tensor]]:
    """Begin to average a bucket; return the work, where results will be, and where they belong."""
    gradients = [gradient for _, gradient in bucket]
    flat = gradients[0].new_empty(sum(gradient.numel() for gradient in gradients))
    pieces = flat.split([gradient.numel() for gradient in gradients])
    views = [_like(piece, part) for piece, (part, _) in zip(pieces, bucket, strict=True)]
    torch._foreach_copy_(views, gradients)
    flat.div_(torch.distributed.get_world_size())
    return torch.distributed.all_reduce(flat, async_op=True), views, gradients


def _like(piece: Tensor, part: Tensor) -> Tensor:
    """Return a flat tensor in the shape of another one, and if that has no gaps in its layout."""
    is_last = part.dim() == 4 and part.is_contiguous(memory_format=torch.channels_last)
    if is_last or part.is_contiguous():
        return piece.as_strided(part.size(), part.stride(), piece.storage_offset())
    return piece.view(part.size())
