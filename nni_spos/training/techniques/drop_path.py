"""Stochastic depth: ``drop_path``, as timm has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import real, setting
from nni_spos.training.technique import Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nni_spos.data import ImageData


class DropPath(Technique):
    """Leave out the residual branches of blocks at random, for each image by itself.

    A block says which branch that is: its attribute ``residual_branch`` is the module whose output
    it adds to something else, or None. The share rises linearly with the depth of the block.

    References
    ----------
    Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.
    """

    title = "drop_path"

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        drop_path
            Share of the images for which the last residual branch is left out; it rises from 0.
        """

        drop_path: float = setting(real(0, 0.999), 0.0)

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        self._hooks: list[Any] = []

    def check_network(self, network: nn.Module) -> None:
        if not list(_branches(network)):
            raise RecipeError(
                "drop_path: no block of the network has a residual branch that could be left out. "
                "Leave drop_path out, or let your blocks have an attribute residual_branch."
            )

    def begin(self, network: nn.Module, data: ImageData | None) -> None:
        branches = list(_branches(network))
        depths = list(dict.fromkeys(place for place, _ in branches))
        last = max(1, len(depths) - 1)
        for place, branch in branches:
            probability = self.settings.drop_path * depths.index(place) / last
            if len(depths) == 1:
                probability = self.settings.drop_path
            if probability:
                self._hooks.append(branch.register_forward_hook(_dropper(probability)))

    def end(self, network: nn.Module) -> None:
        for hook in self._hooks:
            hook.remove()


def _branches(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield residual branches and where they are; those that a unit chooses among are at one."""
    from nni.nas.nn.pytorch import LayerChoice

    modules = dict(network.named_modules())
    for name, module in modules.items():
        branch = getattr(module, "residual_branch", None)
        if branch is not None:
            parent = name.rpartition(".")[0]
            yield (parent if isinstance(modules.get(parent), LayerChoice) else name), branch


def _dropper(probability: float) -> Any:
    def drop(branch: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not branch.training:
            return None
        shape = (len(output), *(1 for _ in output.shape[1:]))
        kept = output.new_empty(shape).bernoulli_(1 - probability)
        return output * kept.div_(1 - probability)

    return drop
