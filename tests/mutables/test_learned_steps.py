"""Learned steps: levels and gradients by hand, and against PyTorch's own learned quantizers."""

from __future__ import annotations

import pytest
import torch

from nni_spos.errors import QuantizationError
from nni_spos.mutables.learned_steps import (
    LEAST_STEP,
    activation_step,
    first_step,
    integer_range,
    quantize_to_steps,
    weight_steps,
)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def gradients(output, *inputs):
    weights = torch.linspace(-1, 2, output.numel()).view_as(output)
    return torch.autograd.grad((output * weights).sum(), inputs)


@pytest.mark.parametrize(
    ("bits", "signed", "expected"),
    [
        # In steps of 0.5 the values are -3, -0.5, 0.5, 1.4, 1.5, 2.6 and 40.
        (2, True, [-1, 0, 0, 0.5, 0.5, 0.5, 0.5]),
        (3, True, [-1.5, 0, 0, 0.5, 1, 1.5, 1.5]),
        (1, False, [0, 0, 0, 0.5, 0.5, 0.5, 0.5]),
        (2, False, [0, 0, 0, 0.5, 1, 1.5, 1.5]),
        (4, False, [0, 0, 0, 0.5, 1, 1.5, 7.5]),
    ],
)
def test_levels_are_integers_times_the_step(bits, signed, expected):
    x = torch.tensor([-1.5, -0.25, 0.25, 0.7, 0.75, 1.3, 20])
    assert quantize_to_steps(x, torch.tensor(0.5), bits, signed).tolist() == expected


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_one_step_has_the_gradients_of_pytorchs_learned_quantizer(bits, signed):
    x, step = numbers(4, 3, 5, 5).requires_grad_(), torch.tensor(0.11, requires_grad=True)
    low, high = integer_range(bits, signed)
    factor = (high * x[0].numel()) ** -0.5
    scale, zero = step.detach().view(1).requires_grad_(), torch.zeros(1)
    theirs = torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero, low, high, factor)
    ours = quantize_to_steps(x, step, bits, signed)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    for one, other in zip(gradients(ours, x, step), gradients(theirs, x, scale), strict=True):
        torch.testing.assert_close(one, other.view_as(one), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_step_for_each_row_has_the_gradients_of_pytorchs_learned_quantizer(bits):
    x, step = numbers(6, 3, 3, 3).requires_grad_(), torch.linspace(0.05, 0.4, 6).requires_grad_()
    low, high = integer_range(bits, True)
    factor, zeros = (high * x[0].numel()) ** -0.5, torch.zeros(6)
    theirs = torch._fake_quantize_learnable_per_channel_affine(x, step, zeros, 0, low, high, factor)
    ours = quantize_to_steps(x, step, bits, signed=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    for one, other in zip(gradients(ours, x, step), gradients(theirs, x, step), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_step_by_hand():
    # In steps: -3, 0.4, 1.75 and 9; as integers of 2 bits with a sign -2, 0, 1 and 1. Only those
    # within the range lose their own value; 1.75 is rounded to 2, which is not.
    x = torch.tensor([[-1.5, 0.2, 0.875, 4.5]], dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    d_x, d_step = torch.autograd.grad(quantize_to_steps(x, step, 2, signed=True).sum(), (x, step))
    assert d_x.tolist() == [[0, 1, 0, 0]]
    assert d_step.item() == pytest.approx((-2 + (0 - 0.4) + 1 + 1) / 4**0.5)


def test_a_step_of_sgd_moves_the_step_as_a_parameter_of_its_own():
    weight = numbers(5, 8)
    factor = torch.full((5,), 1.25, requires_grad=True)
    steps = weight_steps(weight, factor, 4)
    first = weight_steps(weight, torch.ones(5), 4)
    assert torch.allclose(steps, 1.25 * first)
    own = steps.detach().clone().requires_grad_()
    for step in (steps, own):
        quantize_to_steps(weight, step, 4, signed=True).square().sum().backward()
    moved = weight_steps(weight, factor.detach() - 0.01 * factor.grad, 4)
    torch.testing.assert_close(moved, own.detach() - 0.01 * own.grad)


def test_the_first_step_is_the_papers_where_that_holds_the_largest_value():
    mean, largest = torch.tensor(0.5), torch.tensor(2.0)
    assert first_step(mean, largest, 2, False).item() == pytest.approx(2 * 0.5 / 3**0.5)
    assert first_step(mean, largest, 8, True).item() == pytest.approx(2 / 127)
    weight = torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    steps = weight_steps(weight, torch.ones(2), 2)
    assert steps.tolist() == pytest.approx([3.0, LEAST_STEP])
    assert quantize_to_steps(weight, steps, 2, signed=True).tolist() == [[0, -3], [0, 0]]


def test_a_step_that_was_never_set_ends_at_the_first_clipping_value():
    assert activation_step(torch.tensor(0.0), 6, 4, False).item() == pytest.approx(6 / 15)
    assert activation_step(torch.tensor(0.25), 6, 4, False).item() == 0.25
    below = torch.tensor(-0.1, requires_grad=True)
    step = activation_step(below, 6, 4, False)
    step.backward()
    assert (step.item(), below.grad.item()) == (pytest.approx(LEAST_STEP), 1)


def test_bits_are_checked_and_32_leave_values_as_they_are():
    x = numbers(3)
    assert quantize_to_steps(x, torch.tensor(0.5), 32, signed=True) is x
    with pytest.raises(QuantizationError, match="bits must be a whole number from 1 to 8"):
        quantize_to_steps(x, torch.tensor(0.5), 9, signed=True)


def test_half_precision_comes_in_and_single_comes_out():
    x, step = numbers(4, 4).half().requires_grad_(), torch.tensor(0.1, requires_grad=True)
    output = quantize_to_steps(x, step, 4, signed=True)
    assert output.dtype is torch.float32
    output.sum().backward()
    assert (x.grad.dtype, step.grad.dtype) == (torch.float16, torch.float32)
