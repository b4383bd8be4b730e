"""Layers whose arguments are choices, in the form that shares one weight tensor.

NNI has such layers (``MixedConv2d`` and so on), but its convolution cannot be frozen without a
bias nor its BatchNorm without weights, and every step walks through all expressions again. These
take their place, for the same ``MutableConv2d``, ``MutableLinear`` and ``MutableBatchNorm2d`` of
``nni.nas.nn.pytorch``.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

# NNI's two packages import each other: with oneshot first, nni.nas.strategy would hold stand-ins
# that only fail.
import nni.nas.strategy  # noqa: F401
import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import MutableLinear, ParametrizedModule
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from nni.nas.oneshot.pytorch.supermodule.sampling import MixedOpPathSamplingPolicy
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nni_spos.errors import SpaceError, SposError
from nni_spos.mutables.adoption import HOOKS, Grown, become
from nni_spos.mutables.boxes import Slices
from nni_spos.mutables.parts import ChannelParts
from nni_spos.path import Choice

MAX_COMBINATIONS = 100_000
"""Largest number of combinations of the choices that one layer's arguments depend on."""


@dataclass(frozen=True)
class ActivePart:
    """What a path uses of a layer.

    Parameters
    ----------
    arguments
        All arguments of the constructor of the path's own layer.
    slices
        Which part of each parameter and buffer, under the name that the tensor has in the
        supernet's layer; () for all of it.
    """

    arguments: Mapping[str, Any]
    slices: Mapping[str, Slices]


class SlicedOperation(MixedOperation):
    """A layer at its largest size, of which a path uses a part.

    Sub-classes say which arguments may be choices (``argument_list``), which mutable class they
    stand in for (``bound_type``), which part of each tensor a path uses (`slices`), and what the
    layer computes with it (`compute`). The choices of several arguments may depend on the same
    labels, also through expressions such as ``width * 3``.

    Raises
    ------
    SpaceError
        An argument that cannot be a choice, or values of the choices that no layer can have.
    """

    plain: ClassVar[type[nn.Module]]
    """Class of the layer on one path."""
    input_channels: ClassVar[tuple[int, str]]
    """Dimension of the input that has the channels, and the argument that is their number."""
    tensor_sizes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Arguments that are the sizes of the first dimensions, by name of the plain layer's tensor."""
    parts: Mapping[str, ChannelParts] = {}
    """Of channels that are concatenated, by the argument that is their number; see
    `nni_spos.mutables.parts`. Set on the layer of a space before it shares weights."""
    layer_name: str = ""
    """Dotted name in the supernet, for messages."""
    grown: Mapping[str, Grown] = {}
    """Tensors that are larger than in the space that was given."""
    noted: list[ActivePart] | None = None
    """What the paths of a step used so far, where a step has several."""

    def __init__(self, module_kwargs: dict[str, Any]):
        expressions = {k: v for k, v in module_kwargs.items() if isinstance(v, MutableExpression)}
        for name in expressions:
            if name not in self.argument_list:
                raise SpaceError(
                    f"the argument '{name}' cannot be a choice. Allowed: "
                    f"{', '.join(self.argument_list)}."
                )
        self._choices = _choices(expressions)
        self._options = list(self._evaluate(expressions, module_kwargs))
        for options in self._options:
            self.check(**options)
        super().__init__(module_kwargs)
        self._parts: dict[tuple[Choice, ...], ActivePart] = {}
        self._part: ActivePart | None = None

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> nn.Module | bool | None:
        """Make a mutable layer one that shares weights, in place: a mutation hook of NNI.

        A layer without choices becomes a plain one.
        """
        if isinstance(module, SlicedOperation):
            return True  # it is one already: keeps NNI's hooks from it
        if not isinstance(module, cls.bound_type) or not isinstance(module, ParametrizedModule):
            return None
        # What a user's own class does is not known.
        is_own = parametrize.type_before_parametrizations(module) is not cls.bound_type
        if not module.mutables:
            if not is_own and not parametrize.is_parametrized(module):
                module.__class__ = cls.plain
                if hasattr(module, "layer_name"):
                    module.layer_name = name
            return True
        if is_own:
            raise SpaceError(
                f"layer '{name}': its class is derived from "
                f"{cls.bound_type.__name__}, so which part of it a path uses is not known. Use "
                f"{cls.bound_type.__name__} itself, in a module of your own if you add to it."
            )
        policy = mutate_kwargs.get("mixed_op_sampling", MixedOpPathSamplingPolicy)
        if not issubclass(policy, MixedOpPathSamplingPolicy):
            raise SpaceError(
                f"layer '{name}': strategies that sum over choices ({policy.__name__}) are not "
                "supported. Use SinglePathOneShot or another strategy that samples paths."
            )
        try:
            become(module, cls(dict(module.trace_kwargs)), memo)
        except SposError as problem:
            raise type(problem)(f"layer '{name}': {problem}") from None
        except ValueError as problem:  # what PyTorch finds out about its arguments
            raise SpaceError(f"layer '{name}': {problem}.") from None
        module.layer_name = name
        module._nest()
        return module

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that the arguments depend on."""
        return tuple(self._choices)

    @property
    def part(self) -> ActivePart:
        """What the current path uses."""
        if self._part is None:
            raise RuntimeError("a path must be set before a supernet runs.")
        return self._part

    def samples(self) -> Iterator[dict[str, Choice]]:
        """Yield every combination of the choices of `labels`."""
        for values in itertools.product(*self._choices.values()):
            yield dict(zip(self._choices, values, strict=True))

    def part_at(self, sample: Mapping[str, Any]) -> ActivePart:
        """Return what a path uses. Raises KeyError for a missing label."""
        key = tuple([sample[label] for label in self._choices])
        if key not in self._parts:
            own = dict(zip(self._choices, key, strict=True))
            arguments = {
                **self.init_arguments,
                **{name: m.freeze(own) for name, m in self.mutable_arguments.items()},
            }
            slices = {
                name: _shorten(part, self.get_tensor(name).shape)
                for name, part in self.slices(**arguments).items()
            }
            self._parts[key] = ActivePart(arguments, slices)
        return self._parts[key]

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Follow the path in `memo`; labels that it does not have are drawn by NNI's generator."""
        if missing := self.export(memo):  # never in our training: every layer does this every step
            memo = {**memo, **missing}
        self._part = self.part_at(memo)
        return {label: memo[label] for label in self._choices}

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Return a random choice for each label that `memo` does not have, as NNI's layers do."""
        missing = [label for label in self._choices if label not in memo]
        space = self.simplify() if missing else {}
        return {label: space[label].random() for label in missing}

    def forward(self, x: Tensor) -> Tensor:
        if self.noted is not None:
            self.noted.append(self.part)
        return self.compute(x, self.tensors(), self.part.arguments)

    def tensors(self) -> dict[str, Tensor]:
        """Return what the current path uses of each parameter and buffer, by name."""
        found = {}
        for name, slices in self.part.slices.items():
            tensor = self.get_tensor(name)
            # Not even a view where all of it is used: gradients of views of weights cost time.
            found[name] = self.arranged(name, tensor[slices] if slices else tensor)
            is_whole = found[name] is tensor
            if not is_whole and tensor.dim() == 4 and not torch.is_grad_enabled():
                # Laid out as in the path's own layer, so that results agree to the last digit.
                found[name] = found[name].contiguous(memory_format=_layout(tensor))
        return found

    def freeze(self, sample: Mapping[str, Any]) -> nn.Module:
        """Return the layer of a path, with copies of its part of the tensors."""
        first = next(itertools.chain(self.parameters(), self.buffers()), torch.empty(()))
        layer = self.build_plain(sample, first.device).to(first.dtype)
        slices = self.part_at(sample).slices
        layer.load_state_dict(
            {
                self.plain_name(x): self.arranged(x, self.get_tensor(x)[part])
                for x, part in slices.items()
            }
        )
        for own in slices:
            if isinstance(tensor := self.get_tensor(own), nn.Parameter):
                layer.get_parameter(self.plain_name(own)).requires_grad_(tensor.requires_grad)
        for hooks in HOOKS:
            vars(layer)[hooks] = copy.copy(vars(self)[hooks])
        layouts = [_layout(tensor) for tensor in self.parameters() if tensor.dim() == 4]
        if layouts:
            layer.to(memory_format=layouts[0])
        return layer.train(self.training)

    def arranged(self, name: str, tensor: Tensor) -> Tensor:
        """Return what a path uses of a tensor in the order in which its channels arrive."""
        for dim, parts in self._parted(name):
            order = parts.order(tensor.shape[dim], tensor.device)
            tensor = tensor.index_select(dim, order)
        return tensor

    def _parted(self, name: str) -> Iterator[tuple[int, ChannelParts]]:
        """Yield the dimensions of a tensor that have concatenated parts."""
        for dim, argument in enumerate(self.tensor_sizes.get(self.plain_name(name), ())):
            if argument in self.parts:
                yield dim, self.parts[argument]

    def _nest(self) -> None:
        """Bring tensors into the order of which every path has the first channels, in place."""
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            for dim, parts in self._parted(name):
                with torch.no_grad():
                    tensor.copy_(tensor.index_select(dim, parts.nesting().to(tensor.device)))

    def build_plain(self, sample: Mapping[str, Any], device: torch.device | str) -> nn.Module:
        """Return the layer of a path, its tensors not set."""
        arguments = {**self.part_at(sample).arguments, "device": device}
        if device == "meta":  # nothing to initialise, and skip_init takes longer
            layer: nn.Module = self.plain(**arguments)
            return layer
        return nn.utils.skip_init(self.plain, **arguments)

    def resize(self, shape: tuple[int, ...], sample: Mapping[str, Any]) -> tuple[int, ...]:
        """Return an input's shape with the channels that the layer of a path takes."""
        dimension, argument = self.input_channels
        channels = self.part_at(sample).arguments[argument]
        sizes = list(shape)
        sizes[dimension] = channels
        return tuple(sizes)

    def get_tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer by its dotted name."""
        value: Any = self
        for part in name.split("."):
            value = getattr(value, part)
        return value

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.mutable_arguments.items())

    @staticmethod
    def plain_name(name: str) -> str:
        """Return the name that a tensor of the supernet's layer has in the plain layer."""
        return name

    def super_init_argument(self, name: str, value_choice: MutableExpression) -> Any:
        return max(options[name] for options in self._options)

    @classmethod
    def check(cls, **arguments: Any) -> None:
        """Refuse arguments that no layer can have; called for every combination of choices."""

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        """Return which part of each tensor a layer with these arguments uses."""
        raise NotImplementedError

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        """Return what the plain layer with these tensors and arguments returns."""
        raise NotImplementedError

    def _evaluate(
        self, expressions: Mapping[str, MutableExpression], given: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield the arguments that were given, for every combination of choices."""
        number = math.prod(len(choices) for choices in self._choices.values())
        if number > MAX_COMBINATIONS:
            raise SpaceError(
                f"its arguments depend on {', '.join(self._choices)}, in {number} combinations; "
                f"at most {MAX_COMBINATIONS} are allowed."
            )
        for sample in self.samples():
            yield {**given, **{name: e.freeze(sample) for name, e in expressions.items()}}


class SlicedLinear(SlicedOperation, nn.Linear):
    """Linear layer whose numbers of features may be choices; the first features are used."""

    bound_type = MutableLinear
    plain = nn.Linear
    input_channels = (-1, "in_features")
    tensor_sizes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "weight": ("out_features", "in_features"),
        "bias": ("out_features",),
        "weight_factor": ("out_features",),
    }
    argument_list: ClassVar[list[str]] = ["in_features", "out_features"]

    @classmethod
    def check(cls, **arguments: Any) -> None:
        check_numbers(arguments, "in_features", "out_features")

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        outputs = slice(arguments["out_features"])
        found: dict[str, Slices] = {"weight": (outputs, slice(arguments["in_features"]))}
        return found | ({"bias": (outputs,)} if self.bias is not None else {})

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        return nn.functional.linear(x, tensors["weight"], tensors.get("bias"))


def check_numbers(arguments: Mapping[str, Any], *names: str) -> None:
    """Refuse arguments that are not whole numbers of at least 1. Raises SpaceError."""
    for name in names:
        value = arguments[name]
        if type(value) is not int or value < 1:
            raise SpaceError(f"{name} must be a whole number of at least 1, got {value!r}.")


def _choices(expressions: Mapping[str, MutableExpression]) -> dict[str, tuple[Choice, ...]]:
    """Return labels and their choices, of all expressions."""
    found: dict[str, tuple[Choice, ...]] = {}
    for name, expression in expressions.items():
        for label, mutable in expression.simplify().items():
            if not hasattr(mutable, "values"):
                raise SpaceError(f"{name}: '{label}' is a {type(mutable).__name__}, not a choice.")
            values = tuple(mutable.values)
            if found.setdefault(str.__str__(label), values) != values:
                raise SpaceError(
                    f"the label '{label}' has the choices {found[label]} in one argument and "
                    f"{values} in '{name}'. Use one choice object, or two labels."
                )
    return found


def _layout(tensor: Tensor) -> torch.memory_format:
    """Return the memory format of a weight with four dimensions, as convolutions see it.

    Those of a 1x1 kernel, or of one channel, are contiguous in both formats: convolutions, whose
    output is in the format of the weight, tell them by their strides.
    """
    _, channels, height, width = tensor.shape
    usual = (channels * height * width, height * width, width, 1)
    last = (channels * height * width, 1, width * channels, channels)
    return torch.channels_last if usual != tensor.stride() == last else torch.contiguous_format


def _shorten(slices: Slices, shape: torch.Size) -> Slices:
    """Return () for slices that leave nothing out."""
    whole = all(range(size)[part] == range(size) for part, size in zip(slices, shape, strict=False))
    return () if whole else slices
