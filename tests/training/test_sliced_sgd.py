"""SGD on slices of weights, bit for bit."""

from __future__ import annotations

import io
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from nni_spos.errors import RecipeError
from nni_spos.training.optimizer import SlicedSGD

OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "momentum": {"momentum": 0.9},
    "both": {"momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    "maximize": {"momentum": 0.9, "weight_decay": 0.1, "maximize": True},
    "foreach": {"momentum": 0.9, "weight_decay": 0.1, "foreach": True},
}

# Sizes that are no multiples of what a vector instruction holds.
PARTS = {
    "linear": ((37, 29), (slice(13), slice(17))),
    "pointwise": ((37, 29, 1, 1), (slice(13), slice(17))),
    "depthwise": ((37, 1, 7, 7), (slice(13),)),
    "dense": ((20, 19, 3, 3), (slice(7), slice(11))),
    "inputs only": ((20, 19, 3, 3), (slice(None), slice(11))),
    "vector": ((41,), (slice(23),)),
    "one element": ((41,), (slice(1),)),
    "whole": ((37, 29), (slice(37), slice(29))),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def bits(tensor):
    """The bits of float32 numbers: 0.0 and -0.0 are equal numbers."""
    return tensor.detach().contiguous().view(torch.int32).tolist()


def awkward(*shape):
    """Random numbers, a quarter of them zeros of both signs."""
    numbers = torch.randn(*shape)
    kind = torch.randint(8, shape)
    return numbers.masked_fill(kind == 0, 0.0).masked_fill(kind == 1, -0.0)


def momentum_of(optimizer, parameter):
    return optimizer.state[parameter]["momentum_buffer"]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("shape", "part"), PARTS.values(), ids=PARTS)
def test_a_slice_is_trained_as_a_parameter_of_its_own(shape, part, options):
    weight = nn.Parameter(awkward(*shape))
    alone = nn.Parameter(weight.detach()[part].clone())
    optimizer = SlicedSGD([weight], lr=0.1, slices=lambda: {weight: [part]}, **options)
    expected = torch.optim.SGD([alone], lr=0.1, **options)
    for _ in range(4):
        weight.grad = awkward(*shape)
        alone.grad = weight.grad[part].clone()
        optimizer.step()
        expected.step()
        assert bits(weight[part]) == bits(alone)
        if "momentum" in options:
            assert bits(momentum_of(optimizer, weight)[part]) == bits(momentum_of(expected, alone))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("foreach", [False, True])
def test_every_weight_is_trained_in_the_steps_that_use_it(foreach, layout):
    # The other side: 48 parameters of one number, without gradient where a step does not use them.
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "foreach": foreach}
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=layout))
    numbers = [nn.Parameter(number.clone()) for number in weight.detach().flatten()]
    expected = torch.optim.SGD(numbers, **options)
    widths = [(2, 1), (4, 3), (1, 3), (3, 2), (2, 1), (4, 2)]
    parts = iter([(slice(c), slice(d)) for c, d in widths])
    optimizer = SlicedSGD([weight], slices=lambda: {weight: [next(parts)]}, **options)
    for c, d in widths:
        weight.grad = torch.randn(4, 3, 2, 2).contiguous(memory_format=layout)
        is_used = torch.zeros(4, 3, 2, 2, dtype=torch.bool)
        is_used[:c, :d] = True
        for number, gradient, used in zip(
            numbers, weight.grad.flatten(), is_used.flatten(), strict=True
        ):
            number.grad = gradient.clone() if used else None
        optimizer.step()
        expected.step()
        assert bits(weight.flatten()) == bits(torch.stack(numbers))
    momenta = torch.stack([momentum_of(expected, number) for number in numbers])
    assert bits(momentum_of(optimizer, weight).flatten()) == bits(momenta)


def test_several_slices_of_a_step_are_trained_like_one():
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    weight = nn.Parameter(torch.randn(4, 3))
    whole = nn.Parameter(weight.detach().clone())
    pieces = [(slice(0, 2), slice(0, 3)), (slice(2, 4), slice(0, 1)), (slice(2, 4), slice(1, 3))]
    optimizer = SlicedSGD([weight], slices=lambda: {weight: pieces}, **options)
    expected = torch.optim.SGD([whole], **options)
    for _ in range(3):
        weight.grad = torch.randn(4, 3)
        whole.grad = weight.grad.clone()
        optimizer.step()
        expected.step()
        assert bits(weight) == bits(whole)
    before = weight.detach().clone()
    del pieces[1]
    optimizer.step()
    changed = weight.detach() != before
    assert changed[:2].all()
    assert changed[2:].tolist() == [[False, True, True]] * 2


def test_nothing_outside_of_the_slice_changes():
    weight = nn.Parameter(torch.randn(5, 4))
    part = [(slice(5), slice(4))]
    optimizer = SlicedSGD(
        [weight], lr=0.1, momentum=0.9, weight_decay=0.1, slices=lambda: {weight: part}
    )
    weight.grad = torch.randn(5, 4)
    optimizer.step()
    before, momentum = weight.detach().clone(), momentum_of(optimizer, weight).clone()
    part[0] = (slice(3), slice(2))
    weight.grad = torch.full((5, 4), 7.0)
    gradient = weight.grad
    optimizer.step()
    outside = torch.ones(5, 4, dtype=torch.bool)
    outside[:3, :2] = False
    assert bits(weight[outside]) == bits(before[outside])
    assert bits(momentum_of(optimizer, weight)[outside]) == bits(momentum[outside])
    assert (weight[:3, :2] != before[:3, :2]).all()
    assert weight.grad is gradient
    assert (gradient == 7).all()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_other_parameters_are_trained_as_by_sgd(options):
    start = [awkward(6, 5), awkward(7), awkward(3, 3)]
    sliced, *others = (nn.Parameter(x.clone()) for x in start)
    _, *expected = (nn.Parameter(x.clone()) for x in start)
    groups = [{"params": [sliced, others[0]]}, {"params": [others[1]], "lr": 0.3}]
    optimizer = SlicedSGD(groups, lr=0.1, slices=lambda: {sliced: [(slice(2),)]}, **options)
    groups = [{"params": [expected[0]]}, {"params": [expected[1]], "lr": 0.3}]
    sgd = torch.optim.SGD(groups, lr=0.1, **options)
    for _ in range(3):
        sliced.grad = awkward(6, 5)
        for one, other in zip(others, expected, strict=True):
            one.grad = awkward(*one.shape)
            other.grad = one.grad.clone()
        optimizer.step()
        sgd.step()
        assert [bits(x) for x in others] == [bits(x) for x in expected]


def test_parameters_without_gradient_are_left_alone():
    unused, used = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = SlicedSGD(
        [unused, used], lr=0.1, momentum=0.9, weight_decay=0.1,
        slices=lambda: {unused: [(slice(2),)], used: [(slice(2),)]},
    )  # fmt: skip
    used.grad = torch.zeros(3)
    optimizer.step()
    assert unused.tolist() == [1, 1, 1]
    assert unused not in optimizer.state
    # 1 - 0.1 * 0.1 * 1
    assert used.tolist() == pytest.approx([0.99, 0.99, 1])


def test_a_layer_with_channel_numbers():
    weight = nn.Parameter(torch.randn(6, 4, 1, 1))
    before = weight.detach().clone()
    part = (slice(3), slice(2))
    optimizer = SlicedSGD(
        [weight], lr=0.1, momentum=0.9, weight_decay=0.5, slices=lambda: {weight: [part]}
    )
    functional.conv2d(torch.randn(2, 2, 5, 5), weight[part]).square().sum().backward()
    optimizer.step()
    changed = weight.detach() != before
    assert changed[part].all()
    assert int(changed.sum()) == 6


def test_the_slices_of_a_step_are_asked_for_once_after_the_closure():
    calls = []
    weight, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def slices():
        calls.append("slices")
        return {weight: [(slice(1),)], other: [(slice(2),)]}

    def closure():
        calls.append("closure")
        optimizer.zero_grad()
        loss = (weight + other).sum()
        loss.backward()
        return loss

    optimizer = SlicedSGD([{"params": [weight]}, {"params": [other]}], lr=0.5, slices=slices)
    loss = optimizer.step(closure)
    assert calls == ["closure", "slices"]
    assert float(loss) == 6
    assert (weight.tolist(), other.tolist()) == ([0.5, 1, 1], [0.5, 0.5, 1])
    assert optimizer.step() is None


class Training:
    """Random gradients and widths, with a schedule of the learning rate."""

    def __init__(self):
        self.weights = [nn.Parameter(torch.zeros(6, 5)), nn.Parameter(torch.ones(7))]
        self.width = 1
        self.optimizer = SlicedSGD(
            self.weights, lr=0.8, momentum=0.9, weight_decay=0.1,
            slices=lambda: {self.weights[0]: [(slice(self.width), slice(self.width))]},
        )  # fmt: skip
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / 2**step)

    def train(self, steps):
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            self.width = int(torch.randint(1, 6, (), generator=generator))
            for weight in self.weights:
                weight.grad = torch.randn(weight.shape, generator=generator)
            self.optimizer.step()
            self.schedule.step()
        return [bits(weight) for weight in self.weights]


def test_training_goes_on_from_a_saved_state_bit_for_bit():
    expected = Training().train(range(6))
    first = Training()
    first.train(range(3))
    saved = io.BytesIO()
    parts = (first.weights, first.optimizer.state_dict(), first.schedule.state_dict())
    torch.save(parts, saved)
    saved.seek(0)
    weights, optimizer, schedule = torch.load(saved, weights_only=True)
    second = Training()
    with torch.no_grad():
        for weight, value in zip(second.weights, weights, strict=True):
            weight.copy_(value)
    second.optimizer.load_state_dict(optimizer)
    second.schedule.load_state_dict(schedule)
    assert second.train(range(3, 6)) == expected
    assert Training().train(range(3)) != expected


def test_a_schedule_sets_the_learning_rate():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = SlicedSGD([weight], lr=0.8, slices=lambda: {weight: [(slice(1),)]})
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / 2**step)
    for _ in range(3):
        weight.grad = torch.ones(2)
        optimizer.step()
        schedule.step()
    # -0.8 - 0.4 - 0.2
    assert weight.tolist() == pytest.approx([-1.4, 0])


def test_a_state_of_sgd_is_taken_over():
    weight = nn.Parameter(torch.zeros(2))
    sgd = torch.optim.SGD([weight], lr=1, momentum=0.5)
    weight.grad = torch.tensor([1.0, 2.0])
    sgd.step()
    optimizer = SlicedSGD([weight], lr=7, slices=lambda: {weight: [(slice(1),)]})
    optimizer.load_state_dict(sgd.state_dict())
    weight.grad = torch.zeros(2)
    optimizer.step()
    # Momentum 0.5 * 1 and rate 1 for the first number.
    assert weight.tolist() == [-1.5, -2]
    assert momentum_of(optimizer, weight).tolist() == [0.5, 2]


def test_scaled_gradients():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SlicedSGD([weight], lr=0.5, slices=lambda: {weight: [(slice(2),)]})
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((weight[:2] * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    # Two steps of 0.5; the infinite gradient is skipped.
    assert weight.tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["dampening", "fused", "differentiable"])
def test_options_that_slices_do_not_go_with_are_refused(name):
    weight = nn.Parameter(torch.ones(3))
    value = 0.1 if name == "dampening" else True
    message = re.escape(f"SlicedSGD does not support {name}={value}. Leave this option out.")
    options = {"lr": 0.1, "momentum": 0.9}
    with pytest.raises(RecipeError, match=message):
        SlicedSGD([weight], slices=dict, **options, **{name: value})
    with pytest.raises(RecipeError, match=message):
        SlicedSGD([{"params": [weight], name: value}], slices=dict, **options)
    optimizer = SlicedSGD([weight], slices=dict, **options, **{name: 0})
    with pytest.raises(RecipeError, match=message):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], name: value})


def test_a_state_with_options_that_slices_do_not_go_with_is_refused():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SlicedSGD([weight], slices=dict, momentum=0.9)
    damped = torch.optim.SGD([weight], momentum=0.9, dampening=0.5)
    with pytest.raises(RecipeError, match=r"does not support dampening=0\.5"):
        optimizer.load_state_dict(damped.state_dict())
    optimizer.load_state_dict(torch.optim.SGD([weight], momentum=0.9).state_dict())


def test_slices_must_be_a_function():
    weight = nn.Parameter(torch.ones(3))
    with pytest.raises(RecipeError, match=r"slices must be a function .* got \{\}"):
        SlicedSGD([weight], slices={})
    with pytest.raises(TypeError, match="slices"):
        SlicedSGD([weight])


def test_options_of_sgd_are_checked_as_sgd_does():
    weight = nn.Parameter(torch.ones(3))
    for options in ({"lr": -1}, {"momentum": -1}, {"weight_decay": -1}, {"nesterov": True}):
        for make in (torch.optim.SGD, lambda *x, **y: SlicedSGD(*x, **y, slices=dict)):
            with pytest.raises(ValueError, match=r"Invalid|Nesterov"):
                make([weight], **options)
