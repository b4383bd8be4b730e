"""An optimizer for weights that wider and narrower paths share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from nni_spos.errors import RecipeError
from nni_spos.mutables.boxes import Slices

UsedSlices = Mapping[nn.Parameter, Sequence[Slices]]
"""The parts of each shared weight that the paths of a step use, which do not overlap."""

WHOLE: Sequence[Slices] = ((),)
"""What a step uses of a weight that is not shared, or of which it uses all."""

_PASSED = ("lr", "momentum", "weight_decay", "nesterov", "maximize", "foreach")
_REFUSED = ("dampening", "fused", "differentiable")


def run_closure(closure: Callable[[], Any] | None) -> Any:
    """Return the loss that an optimizer's closure computes, with gradients; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class SlicedSGD(torch.optim.SGD):
    """SGD that updates only the slice of a parameter which the step's path used.

    With channel numbers as choices, paths use prefixes of one weight tensor. Its gradient has the
    full shape, so plain SGD would go on with momentum and weight decay where the path never was.
    Here every weight is trained as if it were a parameter of its own that takes part in the steps
    whose paths use it: inside the slice bit for bit what `torch.optim.SGD` does to such a
    parameter; outside neither weights nor momentum change.

    Parameters
    ----------
    params, lr, momentum, weight_decay, nesterov
        As in `torch.optim.SGD`.
    dampening
        Must be 0: SGD does not dampen a weight's first step, which differs between the weights of
        one tensor.
    slices
        Called once in every step, after the closure: parameters to the slices that the step used,
        which do not overlap. A parameter that is not named is updated as a whole.
    options
        `maximize` and `foreach` of `torch.optim.SGD`. Not supported are `fused`, whose kernel
        needs tensors without gaps, and `differentiable`.

    Raises
    ------
    RecipeError
        `slices` cannot be called, or an option is not supported; from `add_param_group` and
        `load_state_dict` as well.

    Notes
    -----
    A parameter without gradient is left alone, as in SGD. Gradients outside of the slices are not
    looked at.

    Examples
    --------
    >>> weight = nn.Parameter(torch.ones(3))
    >>> used = {weight: [(slice(2),)]}
    >>> optimizer = SlicedSGD([weight], lr=1, weight_decay=0.5, slices=lambda: used)
    >>> weight.grad = torch.zeros(3)
    >>> optimizer.step()
    >>> weight.tolist()
    [0.5, 0.5, 1.0]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        slices: Callable[[], UsedSlices],
        **options: Any,
    ):
        if not callable(slices):
            raise RecipeError(
                f"slices must be a function that returns them for a step, got {slices!r:.80}."
            )
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, **options)
        self.slices = slices

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _check_options(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Loading a state ends here too.
        super().__setstate__(state)
        for group in self.param_groups:
            _check_options(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights that the step's path used; return the closure's loss, if any."""
        loss = run_closure(closure)
        slices = self.slices()
        for group in self.param_groups:
            self._update(group, slices)
        return loss

    def _update(self, group: dict[str, Any], slices: UsedSlices) -> None:
        # A tensor with gaps keeps a whole call from the kernels for many tensors.
        dense: list[list[Tensor]] = [[], [], []]
        gapped: list[list[Tensor]] = [[], [], []]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            tensors = [parameter, parameter.grad]
            if group["momentum"]:
                tensors.append(self._momentum(parameter))
            for part in slices.get(parameter, WHOLE):
                views = [tensor[part] for tensor in tensors] if part else tensors
                kind = gapped if part and not views[0].is_contiguous() else dense
                for column, tensor in zip(kind, views, strict=False):
                    column.append(tensor)
        for parameters, gradients, momenta in (dense, gapped):
            sgd(
                parameters,
                gradients,
                momenta or [None for _ in parameters],
                has_sparse_grad=any(gradient.is_sparse for gradient in gradients),
                dampening=0,
                **{name: group[name] for name in _PASSED},
            )

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if state.get("momentum_buffer") is None:
            # SGD begins with the gradient. So does the sum with -0.0, for every gradient; 0.0
            # would change the sign of a gradient of -0.0.
            state["momentum_buffer"] = torch.full_like(parameter, -0.0)
        return state["momentum_buffer"]


def _check_options(group: Mapping[str, Any]) -> None:
    for name in _REFUSED:
        if group.get(name):
            raise RecipeError(
                f"SlicedSGD does not support {name}={group[name]!r}. Leave this option out."
            )
