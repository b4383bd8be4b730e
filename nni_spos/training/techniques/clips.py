"""Where clipping values and steps of quantized inputs begin, and how fast they learn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import either, mapping_of, one_of, optional, real, setting
from nni_spos.training.technique import Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nni_spos.data import ImageData


SHARE = real(0.5, 1)
_EACH = mapping_of(one_of(*range(1, 9)), SHARE, "")
SHARES = either(
    SHARE, _EACH, f"{SHARE.words}, or a mapping of bits from 1 to 8 to such, {{2: 0.97, 4: 0.999}}"
)


def _pairs(shares: float | Mapping[int, float]) -> float | tuple[tuple[int, float], ...]:
    return tuple(sorted(shares.items())) if isinstance(shares, Mapping) else shares


class Clips(Technique):
    """Let the highest level of quantized inputs begin with a quantile of what there is to round.

    A clipping value learns from the inputs beyond it alone, so that one which lies above them all
    stays where it is. Quantiles are found before the first step, for each layer and each of its bit
    widths, which then learn by themselves. Also those of ``initial_weights: supernet`` begin anew.
    Clipping values and steps have no weight decay.

    References
    ----------
    Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, arXiv
    1805.06085 (what a clipping value learns from).
    """

    title = "clip_quantile"

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        clip_quantile
            Share of the inputs of a quantized layer that begin within its highest level, or a share
            for each bit width of inputs, such as {2: 0.97, 4: 0.999}. Other bit widths begin as by
            default: with initial_clip, or as LSQ says.
        clip_learning_rate_factor
            By what the learning rate of clipping values and of the steps of inputs is multiplied.
        """

        clip_quantile: float | tuple[tuple[int, float], ...] | None = setting(
            optional(SHARES), None, _pairs
        )
        clip_learning_rate_factor: float = setting(real(0), 1.0)

    @classmethod
    def switches(cls) -> list[str]:
        """Each does something without the other."""
        return ["clip_quantile", "clip_learning_rate_factor"]

    @classmethod
    def is_on(cls, settings: Settings) -> bool:
        """A factor of 1 changes nothing."""
        return settings != cls.Settings()

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        self._before: list[tuple[Tensor, Tensor]] = []

    def check_network(self, network: nn.Module) -> None:
        if not list(_learned(network)):
            key = "clip_quantile" if self.settings.clip_quantile else "clip_learning_rate_factor"
            raise RecipeError(
                f"{key}: no layer of the network quantizes its inputs. Leave {key} out, or choose "
                "a space or a path with quantized activations."
            )

    def parameter_groups(
        self, groups: list[dict[str, Any]], network: nn.Module
    ) -> list[dict[str, Any]]:
        factor = self.settings.clip_learning_rate_factor
        if factor == 1:
            return groups
        learned = {id(x) for x in _learned(network)}
        kept, apart = [], []
        for group in groups:
            theirs = [x for x in group["params"] if id(x) in learned]
            others = [x for x in group["params"] if id(x) not in learned]
            if others:
                kept.append({**group, "params": others})
            if theirs:
                lr = group["lr"] * factor
                apart.append({**group, "params": theirs, "lr": lr, "weight_decay": 0.0})
        return [*kept, *apart]  # the rate of the first group is shown

    def begin(self, network: nn.Module, data: ImageData | None) -> None:
        shares = self._shares()
        if not shares or data is None:
            return
        from nni_spos.mutables.quantizer_kinds import find_quantizer
        from nni_spos.training.input_quantiles import measure_inputs, quantized_inputs

        self._before = [(x, x.detach().clone()) for x in _learned(network)]
        train = self.training.settings
        found = measure_inputs(network, data, train.batch_size, {*shares.values()}, train.seed)
        for name, layer in quantized_inputs(network).items():
            kind = find_quantizer(layer.quantizer)
            for bits, learned in layer.activation_tensors().items():
                highest = found[name].get(shares.get(bits, math.nan))
                if highest is not None:
                    kind.start(learned, highest, bits, signed=layer.signed)

    def _shares(self) -> dict[int, float]:
        """Return the share of each bit width that has one."""
        given = self.settings.clip_quantile
        if isinstance(given, tuple):
            return dict(given)
        return {} if given is None else dict.fromkeys(range(1, 9), given)

    def state_dict(self) -> dict[str, Any]:
        return {"has_begun": True} if self._shares() else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # They have learned since they began: what the checkpoint had stays.
        import torch

        with torch.no_grad():
            for learned, content in self._before:
                learned.copy_(content)


def _learned(network: nn.Module) -> Iterator[Tensor]:
    """Yield the clipping values and steps of inputs, of all bit widths."""
    from nni_spos.training.input_quantiles import quantized_inputs

    for layer in quantized_inputs(network).values():
        yield from layer.activation_tensors().values()
