"""The weight-sharing form of ``MutableBatchNorm2d``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nni.nas.nn.pytorch import MutableBatchNorm2d
from torch import Tensor, nn

from nni_spos.mutables.boxes import Slices
from nni_spos.mutables.sliced import SlicedOperation, check_numbers

STATISTICS = ("running_mean", "running_var")
NORM_TENSORS = ("weight", "bias", *STATISTICS)


class SlicedBatchNorm2d(SlicedOperation, nn.BatchNorm2d):
    """BatchNorm whose number of features may be a choice.

    In training mode a path updates the running statistics of its own features only. Those of a
    feature are over all widths that have it, hence the recalibration before a path is scored.
    """

    bound_type = MutableBatchNorm2d
    plain = nn.BatchNorm2d
    input_channels = (1, "num_features")
    tensor_sizes: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        NORM_TENSORS, ("num_features",)
    )
    argument_list: ClassVar[list[str]] = ["num_features", "eps", "momentum"]

    @classmethod
    def check(cls, **arguments: Any) -> None:
        check_numbers(arguments, "num_features")

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        return norm_slices(self, arguments["num_features"])

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        normalized = normalize(x, tensors, arguments, self.training)
        if self.parts and self.training:
            self._keep_statistics(tensors)
        return normalized

    def _keep_statistics(self, tensors: Mapping[str, Tensor]) -> None:
        """Write statistics back that a path has updated in an order of its own."""
        for name in STATISTICS:
            if name in tensors:
                own = self.get_tensor(name)[self.part.slices[name]]
                for dim, parts in self._parted(name):
                    own.index_copy_(dim, parts.order(len(own), own.device), tensors[name])


def norm_slices(norm: nn.Module, num_features: int, prefix: str = "") -> dict[str, Slices]:
    """Return the slices of a BatchNorm's tensors, those that it has."""
    slices: dict[str, Slices] = {
        f"{prefix}{name}": (slice(num_features),)
        for name in NORM_TENSORS
        if getattr(norm, name) is not None
    }
    if norm.num_batches_tracked is not None:
        slices[f"{prefix}num_batches_tracked"] = ()
    return slices


def normalize(
    x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any], training: bool
) -> Tensor:
    """Do what ``nn.BatchNorm2d`` does, with tensors that may be views of larger ones."""
    mean, variance = tensors.get("running_mean"), tensors.get("running_var")
    momentum = arguments.get("momentum", 0.1)
    if training and mean is not None:
        count = tensors["num_batches_tracked"]
        count.add_(1)
        momentum = 1.0 / float(count) if momentum is None else momentum
    return nn.functional.batch_norm(
        x,
        mean,
        variance,
        tensors.get("weight"),
        tensors.get("bias"),
        training or mean is None,
        0.0 if momentum is None else momentum,
        arguments.get("eps", 1e-5),
    )
