"""Another optimizer than SGD: ``opt``, with timm's names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError, text_of, unknown
from nni_spos.recipe.settings import TEXT, Rule, mapping_of, optional, real, sequence_of, setting
from nni_spos.training.technique import Technique

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

ANY = Rule(lambda x: isinstance(x, bool | int | float | str | list), "a value")
KWARGS = mapping_of(TEXT, ANY, "a mapping such as {amsgrad: true}")


def _pairs(mapping: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(mapping.items())


class Opt(Technique):
    """Update the weights with any optimizer of ``torch.optim``.

    Every weight is trained as if it were a parameter of its own that takes part in the steps whose
    paths use it, as `nni_spos.training.optimizer.SlicedSGD` does: where a step's path was not,
    neither decay nor moments change, nor is a step counted.

    Notes
    -----
    ``learning_rate`` and ``weight_decay`` are those of the section; so is ``momentum`` where an
    optimizer has it.
    """

    title = "opt"

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        opt
            Optimizer: sgd, adamw, rmsprop, or the name of any class of torch.optim.
        opt_eps
            Its epsilon; by default PyTorch's.
        opt_betas
            Its decay rates of the moments, for those of Adam's kind; by default PyTorch's.
        opt_kwargs
            More arguments of its class.
        """

        opt: str = setting(TEXT, "sgd")
        opt_eps: float | None = setting(optional(real(0)), None)
        opt_betas: tuple[float, ...] | None = setting(
            optional(sequence_of(real(0, 1), "a list such as [0.9, 0.99]")), None
        )
        opt_kwargs: tuple[tuple[str, Any], ...] = setting(KWARGS, (), _pairs)

    @classmethod
    def is_on(cls, settings: Settings) -> bool:
        """SGD as it is without this technique stays that."""
        return settings != cls.Settings()

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        self._cls = _find(settings.opt)
        self._options = self._arguments()
        import torch

        weight = torch.nn.Parameter(torch.zeros(2, 2))
        try:
            made = self._cls([weight], **self._options)
        except (TypeError, ValueError, IndexError, RuntimeError) as problem:
            raise RecipeError(f"opt: {settings.opt} refuses {text_of(problem)}.") from None
        if "closure" in _required(made.step):
            raise RecipeError(
                f"opt: {settings.opt} computes the loss several times in a step, which a training "
                "does not do. Choose another one, such as adamw."
            )

    def optimizer(self, groups: list[dict[str, Any]], network: nn.Module) -> Optimizer:
        from nni_spos.mutables import sliced_operations
        from nni_spos.training.sliced_optimizer import SlicedOptimizer

        is_sliced = self.training.settings.update_scope == "slice"
        if is_sliced and any(sliced_operations(network)):
            return SlicedOptimizer(self._cls, groups, self._options, network)
        return self._cls(groups, **self._options)

    def check_network(self, network: nn.Module) -> None:
        from nni_spos.mutables import sliced_operations
        from nni_spos.training.sliced_optimizer import check_elementwise

        is_sliced = self.training.settings.update_scope == "slice"
        if is_sliced and any(sliced_operations(network)):
            check_elementwise(self._cls)
        parameters = [{"params": [p]} for p in network.parameters()]
        try:
            self._cls(parameters, **self._options)
        except (TypeError, ValueError, IndexError, RuntimeError) as problem:
            raise RecipeError(
                f"opt: {self.settings.opt} cannot train this network ({text_of(problem)})."
            ) from None

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of the optimizer's class. Raises RecipeError."""
        settings, train = self.settings, self.training.settings
        known = list(inspect.signature(self._cls).parameters)[1:]
        given = {"eps": settings.opt_eps, "betas": settings.opt_betas, **dict(settings.opt_kwargs)}
        given = {name: x for name, x in given.items() if x is not None}
        for name in given:
            if name not in known:
                problem = unknown("argument", name, known)
                raise RecipeError(f"opt: {settings.opt} has it not: {problem}")
            if name in ("lr", "momentum", "weight_decay"):
                key = "learning_rate" if name == "lr" else name
                raise RecipeError(f"opt_kwargs: {name} is the section's {key}. Give it there.")
        found = {"lr": train.learning_rate, "weight_decay": train.weight_decay}
        if "momentum" in known:
            found["momentum"] = train.momentum
        found = {name: x for name, x in found.items() if name in known}
        return found | {k: tuple(x) if isinstance(x, list) else x for k, x in given.items()}


def _required(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [x.name for x in parameters if x.default is inspect.Parameter.empty]


def _find(name: str) -> Any:
    """Return the class of torch.optim of a name in any case. Raises RecipeError."""
    import torch

    known = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
    }
    if name.lower() not in known:
        raise RecipeError(f"opt: {unknown('optimizer', name, sorted(known))}")
    return known[name.lower()]
