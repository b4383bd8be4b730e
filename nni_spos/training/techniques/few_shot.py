"""Weights of their own behind each choice of a unit: ``few_shot``."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError, unknown
from nni_spos.path import PathSpace
from nni_spos.recipe.settings import TEXT, real, sequence_of, setting
from nni_spos.training.technique import SUPERNET, Technique

if TYPE_CHECKING:
    from nni.nas.nn.pytorch import ModelSpace
    from torch import Tensor, nn

    from nni_spos.data import ImageData
    from nni_spos.path import Choice, Path
    from nni_spos.training.sampling import Sampling

MOST_COPIES = 64


class FewShot(Technique):
    """Split a supernet at units whose choices it misjudges, after a part of the training.

    What lies behind a unit has weights of its own for each choice of the unit; what lies before it
    is shared as ever. With several units there is a copy for each combination. In the first part of
    the training all paths use the first copy; then the others begin with its weights, and each path
    trains the copy of its own choices. A search uses that one too. Momentum of the copies begins
    anew.

    Behind a unit is what the space registers after it. Layers without weights are not copied.

    References
    ----------
    Zhao et al., Few-shot Neural Architecture Search, ICML 2021. There all layers are split.
    """

    title = "few_shot"
    sections = (SUPERNET,)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        few_shot
            Labels of units that are choices of blocks.
        few_shot_after
            Share of the steps in which all paths use the same copy.
        """

        few_shot: tuple[str, ...] = setting(
            sequence_of(TEXT, "a list of labels such as [layer_1]"), ()
        )
        few_shot_after: float = setting(real(0, 1), 0.5)

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        if len(set(settings.few_shot)) < len(settings.few_shot):
            raise RecipeError("few_shot: names a label twice. Name it once.")
        if any(x.name == "model_ema" and x.is_on() for x in training.settings.techniques):
            raise RecipeError(
                "few_shot: model_ema averages the copies before they are trained. Leave one of "
                "them out."
            )
        self._splits: list[Any] = []
        self._is_tied = False
        self._num_tied = 0

    @classmethod
    def change_supernet(cls, settings: Settings, supernet: ModelSpace) -> None:
        known = PathSpace.from_model_space(supernet)
        copies = 1
        for label in settings.few_shot:
            if label not in known:
                raise RecipeError(f"few_shot: {unknown('label', label, list(known))}")
            if not all(isinstance(choice, str) for choice in known[label]):
                raise RecipeError(
                    f"few_shot: the choices of '{label}' are {_listed(known[label])}, and only "
                    "units that are choices of blocks can be split. Name another label."
                )
            copies *= len(known[label])
        if copies > MOST_COPIES:
            raise RecipeError(
                f"few_shot: these labels have {copies} combinations, of at most {MOST_COPIES}. "
                "Name fewer labels."
            )
        for label in settings.few_shot:
            if not _split_behind(supernet, label, _SplitWalk()):
                raise RecipeError(
                    f"few_shot: nothing with weights lies behind '{label}'. Name an earlier label."
                )

    def check_network(self, network: nn.Module) -> None:
        if not any(_splits_of(network)):
            raise RecipeError(
                "few_shot: the supernet was built without it. Let FewShot.change_supernet split it "
                "before it is trained."
            )

    def prior(self, sampling: Sampling) -> Any:
        self._num_tied = round(self.settings.few_shot_after * sampling.num_steps)
        return sampling.prior

    def begin(self, network: nn.Module, data: ImageData | None) -> None:
        self._splits = list(_splits_of(network))

    def paths(self, paths: Sequence[Path], sampling: Sampling, step: int) -> Sequence[Path]:
        self._is_tied = step < self._num_tied
        return paths

    def batch(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        self._tie()
        return images

    def begin_path(self, path: Path, position: int) -> None:
        self._tie()

    def after_step(self, network: nn.Module, step: int) -> None:
        if step == self._num_tied:
            for split in self._splits:
                first, *others = (split[name] for name in split.names)
                for other in others:
                    other.load_state_dict(first.state_dict())

    def _tie(self) -> None:
        """Let the path that is set use the first copies."""
        if self._is_tied:
            for split in self._splits:
                split._sampled = split.names[0]


def names_of_one_copy(network: nn.Module) -> dict[str, str]:
    """Return the names of all tensors as they would be had the supernet not been split.

    Parameters
    ----------
    network
        A supernet, split or not.

    Returns
    -------
    Name in the state dict to name without the copies; only of tensors that are copied.
    """
    found = {name: name for name in network.state_dict()}
    modules = network.named_modules(remove_duplicate=False)
    prefixes = [f"{name}." for name, module in modules if _is_split(module)]
    for prefix in sorted(prefixes, key=len, reverse=True):  # the inner ones first
        for name, plain in found.items():
            if name.startswith(prefix):
                found[name] = prefix + plain[len(prefix) :].partition(".")[2]
    return {name: plain for name, plain in found.items() if name != plain}


@dataclass
class _SplitWalk:
    """Of a walk through a space: the unit if it was passed, and what was replaced by what."""

    unit: Any = None
    replaced: dict[int, nn.Module] = field(default_factory=dict)


def _split_behind(module: nn.Module, label: str, walk: _SplitWalk) -> bool:
    """Replace what has weights and lies behind a unit by copies. Whether there is such."""
    from nni.nas.nn.pytorch import LayerChoice
    from torch import nn

    found = False
    # named_children has a layer that is in two places once.
    children = [(name, x) for name, x in vars(module)["_modules"].items() if x is not None]
    for name, child in children:
        if isinstance(child, LayerChoice) and child.label == label and not _is_split(child):
            walk.unit = child
        elif _has_unit(child, label) or type(child).forward is nn.Module.forward:  # such as a list
            found |= _split_behind(child, label, walk)
        elif walk.unit is not None and child.state_dict():
            if id(child) not in walk.replaced:
                walk.replaced[id(child)] = _copies(child, walk.unit)
            setattr(module, name, walk.replaced[id(child)])
            found = True
    return found


def _copies(module: nn.Module, unit: Any) -> nn.Module:
    """Return a choice like a unit's, of copies of a module."""
    from torch import nn

    made = copy.deepcopy(unit)  # NNI makes one only inside of a space's constructor
    vars(made).update({name: x for name, x in vars(nn.Module()).items() if "hook" in name})
    for number, name in enumerate(made.names):
        made.add_module(name, copy.deepcopy(module) if number else module)
    made.is_few_shot = True
    return made


def _splits_of(network: nn.Module) -> Iterator[Any]:
    return (module for module in network.modules() if _is_split(module))


def _is_split(module: nn.Module) -> bool:
    return getattr(module, "is_few_shot", False)


def _has_unit(module: nn.Module, label: str) -> bool:
    from nni.nas.nn.pytorch import LayerChoice

    units = (x for x in module.modules() if isinstance(x, LayerChoice) and not _is_split(x))
    return any(x.label == label for x in units)


def _listed(choices: Sequence[Choice]) -> str:
    return ", ".join(map(str, choices))
