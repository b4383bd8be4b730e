"""Any optimizer of PyTorch for weights that wider and narrower paths share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nni_spos.errors import RecipeError
from nni_spos.mutables import ActiveSlices, sliced_operations
from nni_spos.mutables.boxes import Slices
from nni_spos.training.optimizer import WHOLE, run_closure

Cell = tuple[Slices, nn.Parameter]
"""Where in a parameter, and a view of it."""

ELEMENTWISE = (
    "ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD",
)  # fmt: skip
"""Optimizers that update each element of a tensor by itself."""


def check_elementwise(cls: type[torch.optim.Optimizer]) -> None:
    """Refuse an optimizer that looks at tensors as a whole. Raises RecipeError."""
    if cls.__name__ not in ELEMENTWISE:
        names = ", ".join(sorted(x.lower() for x in ELEMENTWISE))
        raise RecipeError(
            f"opt: {cls.__name__.lower()} updates whole tensors, of which a path of this space "
            f"uses a part. Choose one of {names}; or let all of a tensor be updated in every step: "
            "update_scope: tensor."
        )


class SlicedOptimizer(torch.optim.Optimizer):
    """Let an optimizer update the part of a parameter that the step's path used.

    A parameter of which paths use different parts is cut into *cells* along the edges of all those
    parts: a path uses some of the cells, and each of them as a whole. The optimizer sees cells
    instead of the parameter, as parameters of their own, those without a gradient where the path
    was not. So every weight is trained as it would be alone, in the steps whose paths use it: its
    moments, its decay and the number of its steps too.

    Parameters
    ----------
    cls
        The optimizer: one of `ELEMENTWISE`.
    groups
        Groups of parameters.
    options
        Arguments of `cls`.
    network
        The supernet.

    Raises
    ------
    RecipeError
        See `check_elementwise`.
    """

    def __init__(
        self,
        cls: type[torch.optim.Optimizer],
        groups: Iterable[Mapping[str, Any]],
        options: Mapping[str, Any],
        network: nn.Module,
    ):
        check_elementwise(cls)
        groups = [{**group, "params": list(group["params"])} for group in groups]
        edges = _edges(network)
        self._slices = ActiveSlices(network)
        self._cells = {
            p: _cells(p, edges[p]) for group in groups for p in group["params"] if p in edges
        }
        self._inner = cls(
            [{**group, "params": self._parts(group["params"])} for group in groups], **options
        )
        # What clips gradients, or scales them, looks for the parameters themselves.
        super().__init__(groups, self._inner.defaults)
        self._copy_options(self._inner.param_groups, self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights that the step's path used; return the closure's loss, if any."""
        loss = run_closure(closure)
        used = self._slices()
        active = []
        for parameter, cells in self._cells.items():
            if parameter.grad is None:
                continue
            parts = used.get(parameter, WHOLE)
            for place, cell in cells:
                if any(_covers(part, place) for part in parts):
                    # Anew in every step: a change of memory format moves a parameter's storage.
                    cell.data = parameter.data[place]
                    cell.grad = parameter.grad[place]
                    active.append(cell)
        self._copy_options(self.param_groups, self._inner.param_groups)
        self._inner.step()
        for cell in active:
            cell.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all cells, and the options of the groups."""
        self._copy_options(self.param_groups, self._inner.param_groups)
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._inner.load_state_dict(state_dict)
        self._copy_options(self._inner.param_groups, self.param_groups)

    def _parts(self, parameters: Iterable[nn.Parameter]) -> list[Tensor]:
        found: list[Tensor] = []
        for parameter in parameters:
            cells = self._cells.get(parameter)
            found += [parameter] if cells is None else [cell for _, cell in cells]
        return found

    @staticmethod
    def _copy_options(source: list[dict[str, Any]], target: list[dict[str, Any]]) -> None:
        for one, other in zip(source, target, strict=True):
            other.update({name: value for name, value in one.items() if name != "params"})


def _edges(network: nn.Module) -> dict[nn.Parameter, list[set[int]]]:
    """Return where the parts that paths use begin and end, by parameter and dimension."""
    found: dict[nn.Parameter, list[set[int]]] = {}
    for _, operation in sliced_operations(network):
        for sample in operation.samples():
            for name, slices in operation.part_at(sample).slices.items():
                tensor = operation.get_tensor(name)
                if not isinstance(tensor, nn.Parameter) or not slices:
                    continue
                edges = found.setdefault(tensor, [{0, size} for size in tensor.shape])
                for dimension, part in enumerate(slices):
                    begin, end, _ = part.indices(tensor.shape[dimension])
                    edges[dimension] |= {begin, end}
    return found


def _cells(parameter: nn.Parameter, edges: list[set[int]]) -> list[Cell]:
    """Return views of a parameter that together are all of it, and where they are."""
    places = (itertools.starmap(slice, itertools.pairwise(sorted(x))) for x in edges)
    return [
        (place, nn.Parameter(parameter.detach()[place], parameter.requires_grad))
        for place in itertools.product(*places)
    ]


def _covers(used: Slices, place: Slices) -> bool:
    """Whether a cell is in the part that a path uses; () is all of a parameter."""
    return all(
        (part.start or 0) <= cell.start and (part.stop is None or cell.stop <= part.stop)
        for part, cell in zip(used, place, strict=False)
    )
