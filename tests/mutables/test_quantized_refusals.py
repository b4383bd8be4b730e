"""Bit widths, clipping values and inputs that quantized layers refuse, and accepted neighbours."""

from __future__ import annotations

import pytest
import torch
from small_spaces import Chain, build_supernet, choose, images, paths_of, set_path
from torch import nn

from nni_spos.errors import QuantizationError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import (
    QuantConv2d,
    QuantLinear,
    SwitchableBatchNorm2d,
    bits_choice,
    share_weights,
)
from nni_spos.mutables.quantization import QuantizedConv2d, QuantizedLinear
from nni_spos.supernet import SinglePathOneShot

ALLOWED = "bits must be a whole number from 1 to 8, or 32 for full precision, got"
WRONG = [0, -1, 9, 16, 31, 33, 2.0, "2", True]

FOUR = {"weight_bits": 4, "activation_bits": 4}
LAYERS = {
    "convolution": lambda **bits: QuantConv2d(2, 2, 1, **bits),
    "linear layer": lambda **bits: QuantLinear(2, 2, **bits),
    "norm": lambda **bits: SwitchableBatchNorm2d(2, **FOUR | bits),
    "plain convolution": lambda **bits: QuantizedConv2d(2, 2, 1, **bits),
    "plain linear layer": lambda **bits: QuantizedLinear(2, 2, **bits),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("argument", ["weight_bits", "activation_bits"])
@pytest.mark.parametrize("bits", WRONG)
def test_a_layer_is_not_built_with_other_bits(name, argument, bits):
    with pytest.raises(QuantizationError) as caught:
        Chain(lambda: LAYERS[name](**{argument: bits}))
    assert str(caught.value) == f"{ALLOWED} {bits!r}."


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [1, 8, 32])
def test_a_layer_is_built_with_1_to_8_and_32_bits(name, bits):
    (layer,) = Chain(lambda: LAYERS[name](weight_bits=bits, activation_bits=bits)).layers
    assert (layer.weight_bits, layer.activation_bits) == (bits, bits)


@pytest.mark.parametrize("bits", WRONG)
@pytest.mark.parametrize("position", [0, 1])
def test_a_choice_of_bits_with_a_wrong_one_is_refused_wherever_it_is(bits, position):
    wrong = (bits, 4) if position == 0 else (4, bits)
    for pairs in ([wrong], [wrong, (2, 2)], [(2, 2), (4, 4), wrong]):
        with pytest.raises(QuantizationError, match=f"{ALLOWED} {bits!r}"):
            bits_choice("b", pairs)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "needs at least one pair of bit widths."),
        ([(2, 2), (4, 4), (2, 2)], "the pair 2w2a occurs twice."),
        ([(2,)], "a pair is (weight bits, activation bits), got (2,)."),
        ([4], "a pair is (weight bits, activation bits), got 4."),
    ],
)
def test_pairs_that_are_none_or_not_two_numbers_are_refused(pairs, words):
    with pytest.raises(QuantizationError) as caught:
        bits_choice("b", pairs)
    assert str(caught.value) == f"bits_choice('b'): {words}"


def test_pairs_are_texts_in_a_path_and_numbers_in_a_layer():
    bits = bits_choice("b", [[1, 8], (32, 2)])
    (choice,) = bits.weight.simplify().values()
    assert list(choice.values) == ["1w8a", "32w2a"]
    for path, numbers in (({"b": "1w8a"}, (1, 8)), ({"b": "32w2a"}, (32, 2))):
        assert (bits.weight.freeze(path), bits.activation.freeze(path)) == numbers


@pytest.mark.parametrize("mutate", [share_weights, SinglePathOneShot().mutate_model])
@pytest.mark.parametrize("argument", ["weight_bits", "activation_bits"])
@pytest.mark.parametrize("name", ["convolution", "linear layer", "norm"])
def test_one_wrong_bit_width_among_choices_is_refused_with_the_layers_name(name, argument, mutate):
    # The space is built with the first choice, and the supernet's layer with the largest.
    for bits in (0, 9):
        options = {argument: choose("a", 2, bits, 32)}
        wrong = Chain(nn.ReLU, lambda options=options: LAYERS[name](**options))
        with pytest.raises(QuantizationError) as caught:
            mutate(wrong)
        assert str(caught.value) == f"layer 'layers.1': {ALLOWED} {bits}."
    mutate(Chain(nn.ReLU, lambda: LAYERS[name](**{argument: choose("a", 2, 8, 32)})))


@pytest.mark.parametrize("clip", [0, -1.0, float("nan"), float("inf"), "6"])
def test_a_first_clipping_value_must_be_above_zero(clip):
    for name in ("convolution", "linear layer"):
        make = LAYERS[name]
        with pytest.raises(QuantizationError) as caught:
            Chain(lambda make=make: make(activation_bits=4, initial_clip=clip))
        assert str(caught.value) == f"initial_clip must be a number above 0, got {clip!r}."
        (layer,) = Chain(lambda make=make: make(activation_bits=4, initial_clip=0.1)).layers
        assert layer.clip.item() == pytest.approx(0.1)


def test_signed_activations_need_two_bits():
    words = "1 bit cannot hold signed activations, whose zero is a level. Use 2 or more bits."
    for name in ("convolution", "linear layer"):
        make = LAYERS[name]
        with pytest.raises(QuantizationError) as caught:
            Chain(lambda make=make: make(activation_bits=1, signed=True))
        assert str(caught.value) == words
        space = Chain(lambda make=make: make(activation_bits=choose("a", 2, 1), signed=True))
        with pytest.raises(QuantizationError) as caught:
            share_weights(space)
        assert str(caught.value) == f"layer 'layers.0': {words}"
        for options in ({"activation_bits": choose("a", 3, 2), "signed": True},
                        {"activation_bits": choose("a", 2, 1)}):  # fmt: skip
            share_weights(Chain(lambda make=make, options=options: make(**options)))


NEGATIVE = images(2, 2, 4, 4)
REFUSALS = {
    "convolution": r"layer 'layers\.0' quantizes",
    "linear layer": r"layer 'layers\.0' quantizes",
    "plain convolution": r"the QuantizedConv2d with weights of shape \(2, 2, 1, 1\) quantizes",
    "plain linear layer": r"the QuantizedLinear with weights of shape \(2, 2\) quantizes",
}


def network(name, *before, **bits):
    makers = (*before, lambda: LAYERS[name](**bits))
    return Chain(*makers) if name.startswith("plain") else build_supernet(*makers)


@pytest.mark.parametrize("name", REFUSALS)
def test_the_first_batch_with_negative_inputs_is_refused(name):
    x = NEGATIVE if "conv" in name else NEGATIVE.mean((2, 3))
    lowest = f"{x.min().item():.3g}"
    refusing = network(name, activation_bits=4)
    set_path(refusing, {})
    for _ in range(2):  # and also when it is tried again
        with pytest.raises(QuantizationError) as caught:
            refusing(x)
        assert str(caught.value).endswith(
            f" quantizes activations from 0 up, but its input reaches down to {lowest}. Put a ReLU "
            "before it, or build it with signed=True."
        )
        caught.match(REFUSALS[name])
    assert refusing(x.abs()).isfinite().all()


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize(
    ("before", "options"),
    [
        ((nn.ReLU,), {"activation_bits": 4}),
        ((), {"activation_bits": 4, "signed": True}),
        ((), {"activation_bits": 32}),
        ((), {"weight_bits": 2, "activation_bits": 32}),
    ],
)
def test_behind_a_relu_with_signs_or_in_full_precision_they_are_accepted(name, before, options):
    x = NEGATIVE if "conv" in name else NEGATIVE.mean((2, 3))
    accepting = network(name, *before, **options)
    set_path(accepting, {})
    assert accepting(x).isfinite().all()


def test_only_the_first_batch_that_is_quantized_is_looked_at():
    supernet = build_supernet(lambda: QuantConv2d(2, 2, 1, activation_bits=choose("a", 32, 2, 4)))
    set_path(supernet, {"a": 32})
    supernet(NEGATIVE)
    for bits in (2, 4):
        set_path(supernet, {"a": bits})
        with pytest.raises(QuantizationError, match="Put a ReLU before it"):
            supernet(NEGATIVE)
    supernet(NEGATIVE.relu())
    cut_off = supernet(NEGATIVE)
    assert torch.equal(cut_off, supernet(NEGATIVE.relu()))
    # A frozen path is another layer, which looks at its own first batch.
    with pytest.raises(QuantizationError, match="Put a ReLU before it"):
        extract_subnet(supernet, {"a": 4})(NEGATIVE)


def test_shapes_can_be_found_without_looking_at_numbers():
    with torch.device("meta"):
        supernet = share_weights(
            Chain(lambda: QuantConv2d(choose("c", 2, 4), 3, 3, activation_bits=choose("a", 2, 4)))
        )
    for path in paths_of(supernet):
        assert supernet(torch.empty(1, path["c"], 5, 5, device="meta")).shape == (1, 3, 3, 3)
