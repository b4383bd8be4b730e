"""Quantized layers, whose bit widths may be choices, for users' own model spaces."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import nni
import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import ParametrizedModule
from torch import Tensor, nn

from nni_spos.errors import QuantizationError
from nni_spos.mutables.convolution import convolve
from nni_spos.mutables.quantizer_kinds import find_quantizer
from nni_spos.mutables.quantizers import FULL_PRECISION, check_bits

INITIAL_CLIP = 6.0
"""First value of every clipping value, as in PACT's released code."""

_PAIR = re.compile(r"([0-9]+)w([0-9]+)a")


class BitsChoice(NamedTuple):
    """One choice of a pair of bit widths; its parts are arguments of quantized layers."""

    weight: MutableExpression[int]
    activation: MutableExpression[int]


def bits_choice(label: str, pairs: Sequence[tuple[int, int]]) -> BitsChoice:
    """Make the choice between pairs of bit widths, such as 2-bit weights and 4-bit activations.

    Parameters
    ----------
    label
        Name of the choice. Its choices are texts such as ``2w4a``.
    pairs
        (weight bits, activation bits), each 1 to 8 or 32, which leaves the values as they are.

    Returns
    -------
    The two expressions ``.weight`` and ``.activation``, for ``weight_bits`` and
    ``activation_bits`` of as many layers as share the choice.

    Raises
    ------
    QuantizationError
        There are no pairs, one occurs twice, or a bit width is not allowed.

    Examples
    --------
    >>> bits = bits_choice("bits", [(2, 4), (4, 4)])
    >>> bits.weight.freeze({"bits": "2w4a"}), bits.activation.freeze({"bits": "2w4a"})
    (2, 4)
    """
    if not pairs:
        raise QuantizationError(f"bits_choice('{label}'): needs at least one pair of bit widths.")
    names: list[str] = []
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise QuantizationError(
                f"bits_choice('{label}'): a pair is (weight bits, activation bits), got {pair!r}."
            )
        name = pair_name(*(check_bits(bits) for bits in pair))
        if name in names:
            raise QuantizationError(f"bits_choice('{label}'): the pair {name} occurs twice.")
        names.append(name)
    choice = nni.choice(label, names)
    return BitsChoice(
        MutableExpression(_weight_bits, "{}.weight", [choice]),
        MutableExpression(_activation_bits, "{}.activation", [choice]),
    )


def pair_name(weight_bits: int, activation_bits: int) -> str:
    """Return how a pair of bit widths is written: ``2w4a``."""
    return f"{weight_bits}w{activation_bits}a"


def _split(name: str) -> tuple[int, int]:
    match = _PAIR.fullmatch(name)
    if match is None:
        raise QuantizationError(f"{name!r:.80} is not a pair of bit widths such as '2w4a'.")
    return int(match[1]), int(match[2])


def _weight_bits(name: str) -> int:
    return _split(name)[0]


def _activation_bits(name: str) -> int:
    return _split(name)[1]


class Quantized(nn.Module):
    """What quantized convolutions and linear layers have in common.

    Which of the parameters a layer has is up to its quantizer and its bits; the others are None.
    """

    weight_bits: int
    activation_bits: int
    signed: bool
    quantizer: str
    clip: nn.Parameter | None
    step: nn.Parameter | None
    weight_factor: nn.Parameter | None
    layer_name: str = ""
    """Dotted name in the supernet, for messages."""

    def set_bits(
        self,
        weight_bits: int,
        activation_bits: int,
        signed: bool,
        initial_clip: float,
        quantizer: str,
    ) -> None:
        """Keep the bit widths, and make the parameters that they need."""
        check_layer_bits(weight_bits, activation_bits, signed, initial_clip, quantizer)
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.signed = signed
        self.initial_clip = initial_clip
        self.quantizer = quantizer
        self.clip = self.step = self.weight_factor = None
        kind = find_quantizer(quantizer)
        if activation_bits != FULL_PRECISION:
            setattr(self, kind.activation_tensor, self.new_activation_tensor())
        if weight_bits != FULL_PRECISION and kind.weight_tensor:
            setattr(self, kind.weight_tensor, self.new_weight_tensor())
        self._sign_is_known = signed
        self._has_begun = False

    def new_activation_tensor(self) -> nn.Parameter:
        """Return a parameter for inputs of one bit width, beside the weights."""
        weight: Any = self.weight
        return find_quantizer(self.quantizer).new_activation_tensor(weight, self.initial_clip)

    def new_weight_tensor(self) -> nn.Parameter:
        """Return a parameter for weights of one bit width, beside the weights."""
        weight: Any = self.weight
        return find_quantizer(self.quantizer).new_weight_tensor(weight)

    def trust_inputs(self) -> None:
        """Look no more for negative inputs: the layer was trained with such as it will get."""
        self._sign_is_known = True

    def quantize(self, x: Tensor, learned: Tensor | None, bits: int) -> Tensor:
        """Return activations at a bit width.

        Parameters
        ----------
        x
            Inputs of the layer.
        learned
            The parameter for inputs of this bit width; None with 32 bits.
        bits
            The bit width.

        Raises
        ------
        QuantizationError
            There are negative ones, which the layer would cut off; looked for in its first batch.
        """
        if _has_values(x):
            self._begin(x)
        if learned is None:
            return x
        if _has_values(x):
            self._check_sign(x)
        kind = find_quantizer(self.quantizer)
        return kind.activation(x, learned, bits, signed=self.signed, initial_clip=self.initial_clip)

    def quantize_weights(self, weight: Tensor, learned: Tensor | None, bits: int) -> Tensor:
        """Return weights at a bit width; `learned` is their parameter, if there is one."""
        return find_quantizer(self.quantizer).weight(weight, learned, bits)

    def activation_tensors(self) -> Mapping[int, Tensor]:
        """Return the parameters for inputs by their bits."""
        learned = getattr(self, find_quantizer(self.quantizer).activation_tensor)
        return {} if learned is None else {self.activation_bits: learned}

    def operands_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and weights at the bit widths of a layer without choices."""
        kind = find_quantizer(self.quantizer)
        weight: Any = self.weight
        x = self.quantize(x, getattr(self, kind.activation_tensor), self.activation_bits)
        return x, self.quantize_weights(weight, self.weight_factor, self.weight_bits)

    def _begin(self, x: Tensor) -> None:
        """Let the first batch of a training, at any bits, say where the parameters begin."""
        if self.training and not self._has_begun:
            kind = find_quantizer(self.quantizer)
            kind.begin(x.detach(), self.activation_tensors(), signed=self.signed)
            self._has_begun = True

    def _check_sign(self, x: Tensor) -> None:
        if not self._sign_is_known:
            if (lowest := float(x.detach().amin())) < 0:
                raise QuantizationError(
                    f"{self._title()} quantizes activations from 0 up, but its input reaches down "
                    f"to {lowest:.3g}. Put a ReLU before it, or build it with signed=True."
                )
            self._sign_is_known = True

    def _title(self) -> str:
        if self.layer_name:
            return f"layer '{self.layer_name}'"
        return f"the {type(self).__name__} with weights of shape {tuple(self.weight.shape)}"


def trust_inputs(network: nn.Module) -> None:
    """Let the quantized layers of a trained network look no more for negative inputs."""
    for module in network.modules():
        if isinstance(module, Quantized):
            module.trust_inputs()


@contextlib.contextmanager
def beginning(network: nn.Module) -> Iterator[None]:
    """Let quantized layers begin with the images that a network runs on, as a training does.

    Everything else runs in the mode that it has. Where nothing is trained, the learned steps of
    inputs would else end at a fixed clipping value.
    """
    layers = [module for module in network.modules() if isinstance(module, Quantized)]
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode


def _has_values(x: Tensor) -> bool:
    """Whether the numbers in a tensor can be looked at: not where a graph of calls is recorded."""
    return not (x.is_meta or torch.compiler.is_compiling() or torch.jit.is_tracing())


def check_layer_bits(
    weight_bits: Any,
    activation_bits: Any,
    signed: bool = False,
    initial_clip: float = 1.0,
    quantizer: Any = "dorefa",
) -> None:
    """Refuse bit widths and a clipping value that no layer can have. Raises QuantizationError."""
    check_bits(weight_bits)
    check_bits(activation_bits)
    if signed and activation_bits == 1:
        raise QuantizationError(
            "1 bit cannot hold signed activations, whose zero is a level. Use 2 or more bits."
        )
    if not isinstance(initial_clip, Real) or not 0 < initial_clip < math.inf:
        raise QuantizationError(f"initial_clip must be a number above 0, got {initial_clip!r}.")
    find_quantizer(quantizer).check(weight_bits)


class QuantizedConv2d(Quantized, nn.Conv2d):
    """What a `QuantConv2d` is on one path; the parameters are the same, without choices."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        weight_bits: int = 32,
        activation_bits: int = 32,
        signed: bool = False,
        initial_clip: float = INITIAL_CLIP,
        quantizer: str = "dorefa",
    ):
        nn.Conv2d.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.set_bits(weight_bits, activation_bits, signed, initial_clip, quantizer)

    def forward(self, x: Tensor) -> Tensor:
        x, weight = self.operands_of(x)
        return convolve(x, weight, self.bias, vars(self))

    def extra_repr(self) -> str:
        bits = pair_name(self.weight_bits, self.activation_bits)
        return f"{super().extra_repr()}, bits={bits}"


class QuantizedLinear(Quantized, nn.Linear):
    """What a `QuantLinear` is on one path; the parameters are the same, without choices."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        weight_bits: int = 32,
        activation_bits: int = 32,
        signed: bool = False,
        initial_clip: float = INITIAL_CLIP,
        quantizer: str = "dorefa",
    ):
        nn.Linear.__init__(self, in_features, out_features, bias, device, dtype)
        self.set_bits(weight_bits, activation_bits, signed, initial_clip, quantizer)

    def forward(self, x: Tensor) -> Tensor:
        x, weight = self.operands_of(x)
        return nn.functional.linear(x, weight, self.bias)

    def extra_repr(self) -> str:
        bits = pair_name(self.weight_bits, self.activation_bits)
        return f"{super().extra_repr()}, bits={bits}"


class QuantConv2d(ParametrizedModule, QuantizedConv2d, wraps=QuantizedConv2d):  # type: ignore[call-arg]
    """Convolution with quantized weights and inputs; any argument may be a choice.

    The arguments are those of ``nn.Conv2d``, and those below. In a supernet all bit widths share
    the float weights; what a quantizer learns there is one for each bit width.

    Parameters
    ----------
    weight_bits, activation_bits
        1 to 8, or 32, which leaves the values as they are. Numbers, choices between numbers, or
        the parts of a `bits_choice`.
    signed
        Whether inputs can be negative. By default they must come from a ReLU or the like.
    initial_clip
        First clipping value. With ``symmetric`` it only counts until the first batch of a training.
    quantizer
        ``dorefa``: weights as in DoReFa-Net, to 2^bits levels that are symmetric around zero;
        inputs as in PACT, from 0 to a learned clipping value. ``symmetric``: integers times a
        learned step, one for each output channel of the weights and one for the inputs, as in LSQ;
        weights then have 2 or more bits. Not a choice.

    Raises
    ------
    QuantizationError
        Another bit width or quantizer, or, at the first batch, negative inputs.

    Notes
    -----
    Input of shape (N, in_channels, H, W), output as of ``nn.Conv2d``.

    References
    ----------
    Zhou et al., DoReFa-Net, arXiv 1606.06160; Choi et al., PACT, arXiv 1805.06085;
    Esser et al., LSQ, arXiv 1902.08153.
    """


class QuantLinear(ParametrizedModule, QuantizedLinear, wraps=QuantizedLinear):  # type: ignore[call-arg]
    """Linear layer with quantized weights and inputs; see `QuantConv2d`.

    The arguments are those of ``nn.Linear``, then ``weight_bits``, ``activation_bits``,
    ``signed``, ``initial_clip`` and ``quantizer``.
    """
