"""The largest path of a step teaches the others: ``inplace_distillation``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import BOOL, real, setting
from nni_spos.training.technique import SUPERNET, Compute, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nni_spos.path import Path
    from nni_spos.recipe.techniques import TechniqueSettings
    from nni_spos.training.sampling import Sampling


DISTILLATION_LOSS = "distillation_loss"
"""Name under which is logged how far the paths that learn are from their teacher."""

ALONE = (
    "inplace_distillation: a step has one path, and nobody to teach. Give paths: 2 or more, best 3 "
    "or more with sandwich: true."
)


class InplaceDistillation(Technique):
    """Let the largest path of a step, which learns the targets, say to the others what to return.

    It runs first. The loss of the others is ``(1 - weight) * loss + weight * T^2 * KL(teacher / T,
    path / T)`` of the softmax of both outputs, with the temperature T; no gradient flows into the
    teacher. The loss and ``T^2 * KL`` are logged each by itself. Largest is what has the most bit
    operations, or multiply-adds in a space without bits.

    References
    ----------
    Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019.
    Yu et al., BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models, ECCV
    2020.
    """

    title = "inplace_distillation"
    sections = (SUPERNET,)
    targets = ("class",)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        inplace_distillation
            Whether the largest path of a step teaches the others.
        inplace_temperature
            What outputs are divided by.
        inplace_weight
            Share of the teacher in the loss of the others.
        """

        inplace_distillation: bool = setting(BOOL, default=False)
        inplace_temperature: float = setting(real(0.01), 1.0)
        inplace_weight: float = setting(real(0, 1), 1.0)

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        # Of a user's own technique only the training itself knows how many paths it gives.
        if not any(_gives_paths(x) for x in training.settings.techniques):
            raise RecipeError(ALONE)
        self._position = 0
        self._teacher: Tensor | None = None
        self._figures: Mapping[str, Tensor] = {}

    def paths(self, paths: Sequence[Path], sampling: Sampling, step: int) -> Sequence[Path]:
        if len(paths) < 2:
            raise RecipeError(ALONE)
        # Of equal ones the first: sorting keeps their order.
        return sorted(paths, key=lambda path: -sampling.size.price(path))

    def begin_path(self, path: Path, position: int) -> None:
        self._position = position

    def loss(self, compute: Compute, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        if self._position == 0:
            self._teacher, self._figures = outputs.detach(), {}
            return compute(outputs, targets)
        assert self._teacher is not None
        temperature, weight = self.settings.inplace_temperature, self.settings.inplace_weight
        ours, theirs = (
            functional.log_softmax(x.float() / temperature, 1) for x in (outputs, self._teacher)
        )
        distance = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        # With a weight of 1 the targets are not learned, and their loss is only shown.
        plain = compute(outputs if weight < 1 else outputs.detach(), targets)
        shown = temperature**2 * distance.detach()
        self._figures = {"loss": plain.detach(), DISTILLATION_LOSS: shown}
        if weight == 1:
            return temperature**2 * distance
        return (1 - weight) * plain + weight * temperature**2 * distance

    def step_figures(self) -> Mapping[str, Tensor]:
        return self._figures

    def after_step(self, network: nn.Module, step: int) -> None:
        self._teacher = None


def _gives_paths(asked: TechniqueSettings) -> bool:
    """Whether a technique may give a step several paths."""
    return not asked.is_ours or (asked.name == "paths" and asked.is_on())
