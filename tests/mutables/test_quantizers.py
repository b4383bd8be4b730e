"""Quantizers: levels and gradients by hand arithmetic, in float64 unless the dtype is the point."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nni_spos.errors import QuantizationError
from nni_spos.mutables.quantizers import (
    check_bits,
    positive_clip,
    quantize_activation,
    quantize_signed_activation,
    quantize_weight,
)

WEIGHTS = (-1, -0.25, 0, 0.1, 0.5, 2)
INPUTS = (-0.5, 0, 0.3, 0.5, 0.9, 1, 1.7, 2, 2.6)
LOW_BITS = range(1, 9)
LISTS = st.lists(st.floats(-20, 20, allow_subnormal=False), min_size=1, max_size=40)


def numbers(*values: float, requires_grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def new_clip(value: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def images(channels_last: bool = False) -> Tensor:
    x = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    return x.to(memory_format=torch.channels_last) if channels_last else x


def quantize_all(x: Tensor, bits: int, clip: float = 2.0) -> dict[str, Tensor]:
    results = {
        "weight": quantize_weight(x, bits),
        "activation": quantize_activation(x, new_clip(clip), bits),
    }
    if bits > 1:
        results["signed activation"] = quantize_signed_activation(x, new_clip(clip), bits)
    return results


def formula_of_weights(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return m (2 R(n u) / n - 1) as published, and where n u is not halfway between numbers."""
    t, n = torch.tanh(weight), 2**bits - 1
    m = t.abs().max()
    position = n * (t / (2 * m) + 0.5)
    off_ties = (position - position.floor() - 0.5).abs() > 1e-9
    return m * (2 * torch.round(position) / n - 1), off_ties


def with_gradient_of(x: Tensor, value: Tensor) -> Tensor:
    return x + (value - x).detach()


@pytest.mark.parametrize(
    ("bits", "odd_numbers"),
    [(2, (-3, -1, 1, 1, 1, 3)), (3, (-5, -1, 1, 1, 3, 7)), (4, (-11, -3, 1, 1, 7, 15))],
)
def test_weights_take_the_levels_worked_out_by_hand(bits, odd_numbers):
    expected = numbers(*odd_numbers) * math.tanh(2) / (2**bits - 1)
    result = quantize_weight(numbers(*WEIGHTS), bits)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("bits", "odd_numbers"),
    [(2, (-3, -1, 1, 1, 3)), (3, (-7, -3, 1, 3, 7)), (4, (-15, -5, 1, 5, 15))],
)
def test_weights_are_odd_multiples_of_half_a_step(bits, odd_numbers):
    weight = torch.atanh(numbers(-0.9, -0.3, 0, 0.3, 0.9))
    multiples = quantize_weight(weight, bits) * (2**bits - 1) / 0.9
    torch.testing.assert_close(multiples, numbers(*odd_numbers), rtol=0, atol=1e-14)


def test_one_bit_weights_are_signs_times_the_mean_magnitude():
    mean = (1 + 0.25 + 0 + 0.1 + 0.5 + 2) / 6
    result = quantize_weight(numbers(*WEIGHTS), 1)
    torch.testing.assert_close(result, mean * numbers(-1, -1, 1, 1, 1, 1), rtol=0, atol=1e-15)
    assert quantize_weight(numbers(-0.0, -2, 1), 1).tolist() == [1, -1, 1]


def test_one_bit_weights_differ_from_the_formula_of_more_bits_taken_at_one():
    general, _ = formula_of_weights(numbers(*WEIGHTS), 1)
    m = math.tanh(2)
    # Zero goes down, as a half goes to the even number, and the scale is another.
    torch.testing.assert_close(general, numbers(-m, -m, -m, m, m, m), rtol=0, atol=1e-15)
    assert ((quantize_weight(numbers(*WEIGHTS), 1) - general).abs() > 0.3).all()


@pytest.mark.parametrize("bits", LOW_BITS)
def test_gradients_of_weights_pass_through_the_tanh_alone_if_there_is_one(bits):
    weight = numbers(*WEIGHTS, requires_grad=True)
    quantize_weight(weight, bits).backward(numbers(1, 2, 3, 4, 5, 6))
    slopes = [1 - math.tanh(w) ** 2 if bits > 1 else 1 for w in WEIGHTS]
    expected = numbers(*(c * slope for c, slope in enumerate(slopes, start=1)))
    torch.testing.assert_close(weight.grad, expected, rtol=0, atol=1e-14)


@given(LISTS, st.integers(2, 8))
def test_weights_follow_the_published_formula_off_ties(values, bits):
    expected, off_ties = formula_of_weights(numbers(*values, 1), bits)
    result = quantize_weight(numbers(*values, 1), bits)
    torch.testing.assert_close(result[off_ties], expected[off_ties], rtol=0, atol=1e-12)


@given(LISTS, st.integers(1, 8))
def test_weights_have_odd_symmetry_off_ties(values, bits):
    weight = numbers(*values, 1)
    _, off_ties = formula_of_weights(weight, bits)
    there, back = quantize_weight(weight, bits), quantize_weight(-weight, bits)
    assert torch.equal(there[off_ties], -back[off_ties])


@pytest.mark.parametrize("bits", [*LOW_BITS, 32])
def test_a_weight_of_zeros_stays_one_and_gets_the_gradient(bits):
    weight = numbers(0, 0, 0, requires_grad=True)
    result = quantize_weight(weight, bits)
    result.backward(numbers(5, 6, 7))
    assert result.tolist() == [0, 0, 0]
    assert weight.grad.tolist() == [5, 6, 7]  # tanh has slope 1 at 0


@pytest.mark.parametrize(
    ("bits", "steps"),
    [
        (1, (0, 0, 0, 0, 0, 0, 1, 1, 1)),
        (2, (0, 0, 0, 1, 1, 2, 3, 3, 3)),
        (3, (0, 0, 1, 2, 3, 4, 6, 7, 7)),
        (4, (0, 0, 2, 4, 7, 8, 13, 15, 15)),
    ],
)
def test_activations_take_the_levels_worked_out_by_hand(bits, steps):
    result = quantize_activation(numbers(*INPUTS), new_clip(2.0), bits)
    expected = numbers(*steps) * 2 / (2**bits - 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("bits", LOW_BITS)
def test_activations_pass_gradients_inside_and_give_the_clip_those_above(bits):
    x, clip = numbers(*INPUTS, requires_grad=True), new_clip(2.0)
    quantize_activation(x, clip, bits).backward(numbers(*range(1, 10)))
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 7, 0, 0]
    assert clip.grad == 8 + 9


def clamp_splits_ties():
    x, clip = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    torch.clamp(x, torch.zeros(()), clip).backward()
    return x.grad == clip.grad == 0.5


splits_ties = pytest.mark.skipif(
    not clamp_splits_ties(), reason="this version of PyTorch gives a tie's gradient to one side"
)


@splits_ties
def test_a_clamp_that_splits_the_tie_gives_the_clip_another_gradient():
    clip = new_clip(2.0)
    clipped = torch.clamp(numbers(*INPUTS), torch.zeros_like(clip), clip)
    split = with_gradient_of(clipped, torch.round(clipped * 3 / clip) * clip / 3)
    split.backward(numbers(*range(1, 10)))
    torch.testing.assert_close(split, quantize_activation(numbers(*INPUTS), clip, 2))
    assert clip.grad == 8 / 2 + 9  # not 17


@splits_ties
def test_a_clip_left_in_the_scale_gets_another_gradient():
    clip = new_clip(2.0)
    position = torch.clamp(numbers(*INPUTS), torch.zeros_like(clip), clip) * 3 / clip
    scaled = with_gradient_of(position, torch.round(position)) * clip / 3
    scaled.backward(numbers(*range(1, 10)))
    torch.testing.assert_close(scaled, quantize_activation(numbers(*INPUTS), clip, 2))
    # Rounding errors in units of the clip, times their gradients; 13 is that of the split tie.
    errors = 3 * -0.15 + 4 * (1 / 3 - 0.25) + 5 * (1 / 3 - 0.45) + 6 * (2 / 3 - 0.5) + 7 * 0.15
    assert clip.grad.item() == pytest.approx(errors + 13) == pytest.approx(14.35)  # not 17


@pytest.mark.parametrize("bits", LOW_BITS)
def test_halves_between_activation_levels_go_to_the_even_one(bits):
    n = 2**bits - 1
    result = quantize_activation(numbers(*range(n)) + 0.5, new_clip(float(n)), bits)
    assert result.tolist() == [q + q % 2 for q in range(n)]
    middle = quantize_activation(torch.ones(()), new_clip(2.0, torch.float32), bits)
    assert middle.item() == pytest.approx(round(n / 2) * 2 / n)  # also where 2 / n is not exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_next_to_the_limits_are_on_the_right_side_of_them(dtype):
    tiny, clip = torch.finfo(dtype).tiny, new_clip(1.7, dtype)
    limit = clip.detach()
    beside = [torch.nextafter(limit, torch.full_like(limit, end)) for end in (0, 2)]
    near_zero = torch.tensor([-2 * tiny, -0.0, 0, tiny], dtype=dtype)
    x = torch.stack([*near_zero, beside[0], limit, beside[1]]).requires_grad_()
    quantize_activation(x, clip, 4).backward(torch.tensor([1, 2, 4, 8, 16, 32, 64], dtype=dtype))
    assert x.grad.tolist() == [0, 2, 4, 8, 16, 0, 0]
    assert clip.grad == 32 + 64


def test_infinite_activations_are_clipped_and_those_that_are_no_number_stay_so():
    result = quantize_activation(numbers(-math.inf, math.inf, math.nan), new_clip(2.0), 4)
    torch.testing.assert_close(result, numbers(0, 2, math.nan), equal_nan=True)


@pytest.mark.parametrize(
    ("bits", "steps"),
    [
        (2, (-1, -1, -1, 0, 0, 0, 1, 1, 1)),
        (3, (-3, -3, -2, -1, 0, 1, 2, 3, 3)),
        (4, (-7, -7, -4, -2, 0, 2, 4, 7, 7)),
    ],
)
def test_signed_activations_take_the_levels_worked_out_by_hand(bits, steps):
    x = numbers(-2.6, -2, -1.1, -0.5, 0, 0.5, 1.1, 2, 2.6)
    result = quantize_signed_activation(x, new_clip(2.0), bits)
    expected = numbers(*steps) * 2 / (2 ** (bits - 1) - 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("bits", range(2, 9))
def test_signed_activations_give_the_clip_the_gradients_of_both_ends(bits):
    x, clip = numbers(-2.6, -2, -1.1, 0, 0.5, 2, 2.6, requires_grad=True), new_clip(2.0)
    quantize_signed_activation(x, clip, bits).backward(numbers(1, 2, 4, 8, 16, 32, 64))
    assert x.grad.tolist() == [0, 0, 4, 8, 16, 0, 0]
    assert clip.grad == -1 - 2 + 32 + 64


@given(LISTS, st.floats(0.01, 10), st.integers(2, 8))
def test_signed_activations_have_odd_symmetry(values, clip, bits):
    x = numbers(*values)
    there = quantize_signed_activation(x, new_clip(clip), bits)
    assert torch.equal(there, -quantize_signed_activation(-x, new_clip(clip), bits))


@pytest.mark.parametrize("bits", LOW_BITS)
def test_there_are_as_many_values_as_bits_can_hold(bits):
    fine = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    numbers_of_values = {k: q.unique().numel() for k, q in quantize_all(fine, bits).items()}
    assert numbers_of_values.pop("signed activation", 2**bits - 1) == 2**bits - 1
    assert numbers_of_values == {"weight": 2**bits, "activation": 2**bits}


@given(LISTS, st.integers(1, 8))
def test_larger_numbers_are_never_quantized_to_smaller_ones(values, bits):
    for result in quantize_all(numbers(*sorted(values)), bits).values():
        assert (result.diff() >= 0).all()
        assert result.unique().numel() <= 2**bits


@given(LISTS, st.integers(2, 8))
def test_activations_are_within_half_a_step_of_what_was_clipped(values, bits):
    x, results = numbers(*values), quantize_all(numbers(*values), bits, clip=2.0)
    error = (results["activation"] - x.clamp(0, 2)).abs().max()
    assert error <= 1 / (2**bits - 1) + 1e-12
    error = (results["signed activation"] - x.clamp(-2, 2)).abs().max()
    assert error <= 1 / (2 ** (bits - 1) - 1) + 1e-12


def test_32_bits_return_the_very_tensor():
    for x in (images(), images().bfloat16()):
        assert all(result is x for result in quantize_all(x, 32).values())


def test_another_bit_width_in_between_changes_nothing():
    before, other, after = (quantize_all(images(), bits) for bits in (4, 2, 4))
    for name in before:
        assert torch.equal(before[name], after[name]), name
        assert not torch.equal(before[name], other[name]), name


@pytest.mark.parametrize("bits", LOW_BITS)
def test_channels_last_stays_so_in_both_passes(bits):
    for name in quantize_all(images(), bits):
        x = images(channels_last=True).requires_grad_()
        result = quantize_all(x, bits)[name]
        result.backward(torch.ones_like(result))
        for tensor in (result, x.grad):
            assert tensor.is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("quantize", [quantize_activation, quantize_signed_activation])
def test_a_gradient_in_another_memory_format_gives_the_same(quantize):
    found = []
    for channels_last in (False, True):
        x, clip = images(channels_last).requires_grad_(), new_clip(0.8, torch.float32)
        quantize(x, clip, 4).backward(images() + 1)
        found.append((x.grad, clip.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("bits", LOW_BITS)
def test_empty_tensors_stay_empty(bits):
    for name in quantize_all(torch.zeros(0, 3, 4, 4), bits):
        x = torch.zeros(0, 3, 4, 4, requires_grad=True)
        result = quantize_all(x, bits)[name]
        result.sum().backward()
        assert result.shape == x.grad.shape == (0, 3, 4, 4), name


@pytest.mark.parametrize("quantize", [quantize_activation, quantize_signed_activation])
def test_the_input_alone_or_the_clip_alone_may_need_a_gradient(quantize):
    both, single = [numbers(*INPUTS, requires_grad=True) for _ in range(2)]
    clip, alone = new_clip(2.0), new_clip(2.0)
    for x, limit in ((both, clip), (single, alone.detach()), (single.detach(), alone)):
        quantize(x, limit, 4).backward(numbers(*range(1, 10)))
    assert torch.equal(single.grad, both.grad)
    assert alone.grad == clip.grad == 17


@pytest.mark.parametrize("quantize", [quantize_activation, quantize_signed_activation])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_but_the_inputs_is_kept_for_the_backward_pass(quantize, dtype):
    x, clip = images().to(dtype).requires_grad_(), new_clip(1.0, torch.float32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        quantize(x, clip, 4)
    assert sorted(t.data_ptr() for t in kept) == sorted([x.data_ptr(), clip.data_ptr()])


@pytest.mark.parametrize("bits", LOW_BITS)
def test_autocast_changes_nothing(bits):
    found: dict[bool, list[Tensor]] = {}
    for enabled in (False, True):
        x = images().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            results = list(quantize_all(x, bits).values())
        sum((result * images()).sum() for result in results).backward()
        found[enabled] = [*results, x.grad]
    for plain, lowered in zip(found[False], found[True], strict=True):
        assert lowered.dtype == torch.float32
        assert torch.equal(plain, lowered)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_lower_precision_comes_in_and_float32_comes_out(dtype, bits):
    for name, expected in quantize_all(images().to(dtype).float(), bits).items():
        x = images().to(dtype).requires_grad_()
        result = quantize_all(x, bits)[name]
        result.sum().backward()
        assert result.dtype == torch.float32, name
        assert torch.equal(result, expected), name
        assert x.grad.dtype == dtype, name


def test_a_clip_is_not_rounded_to_the_precision_of_the_input():
    # 2 and 2.015625 are neighbours in bfloat16.
    x = torch.tensor([2.0, 2.015625], dtype=torch.bfloat16, requires_grad=True)
    clip = new_clip(2.001, torch.float32)
    quantize_activation(x, clip, 4).backward(torch.tensor([1.0, 2.0]))
    assert x.grad.tolist() == [1, 0]
    assert clip.grad == 2


@pytest.mark.parametrize(
    ("value", "expected"), [(-3.0, 1e-3), (0.0, 1e-3), (1e-3, 1e-3), (0.5, 0.5), (6.0, 6.0)]
)
def test_clips_have_a_floor_and_pass_their_gradient_below_it(value, expected):
    clip = new_clip(value)
    result = positive_clip(clip)
    (7 * result).backward()
    assert result.item() == expected
    assert clip.grad == 7


@pytest.mark.parametrize("bits", [*LOW_BITS, 32])
def test_bit_widths_from_1_to_8_and_32_are_accepted(bits):
    assert check_bits(bits) == bits
    assert quantize_activation(numbers(1), new_clip(1.0), bits) == 1


@pytest.mark.parametrize("bits", [0, -1, 9, 16, 31, 33, 2.0, "2", True, None])
def test_other_bit_widths_are_refused(bits):
    for call in (
        lambda: check_bits(bits),
        lambda: quantize_weight(numbers(1), bits),
        lambda: quantize_activation(numbers(1), new_clip(), bits),
        lambda: quantize_signed_activation(numbers(1), new_clip(), bits),
    ):
        with pytest.raises(QuantizationError) as caught:
            call()
        assert str(caught.value).startswith("bits must be a whole number from 1 to 8, or 32 for ")
        assert str(caught.value).endswith(f", got {bits!r}.")


def test_signed_activations_need_two_bits():
    with pytest.raises(QuantizationError, match=r"from 2 to 8, or 32 .* got 1\. Put a ReLU"):
        quantize_signed_activation(numbers(1), new_clip(1.0), 1)
    assert quantize_signed_activation(numbers(1), new_clip(1.0), 2) == 1


@pytest.mark.parametrize("quantize", [quantize_activation, quantize_signed_activation])
def test_clips_with_dimensions_are_refused(quantize):
    with pytest.raises(QuantizationError, match=r"without dimensions, got shape \(1,\)"):
        quantize(numbers(1), numbers(1), 4)
    assert quantize(numbers(1), new_clip(1.0), 4) == 1


def test_gradients_of_gradients_are_refused():
    x = numbers(*INPUTS, requires_grad=True)
    loss = quantize_activation(x, new_clip(), 4).square().sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
