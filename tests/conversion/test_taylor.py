"""Channels are sorted by what the loss would change without them."""

import pytest
import torch
from everyday_networks import make
from torch import nn

from nni_spos import convert, extract_subnet
from nni_spos.conversion.choices import largest
from nni_spos.conversion.taylor import weight_effects
from nni_spos.errors import RecipeError, SpaceError
from nni_spos.recipe.conversion_settings import read_conversion

TAYLOR = {"channels": [0.5, 1.0], "importance": "taylor"}


def batches(inputs, number=2):
    draws = torch.Generator().manual_seed(0)
    return [
        (x + 0.1 * i, torch.randint(10, (len(x),), generator=draws))
        for i in range(number)
        for x in inputs
    ]


def test_effects_are_those_of_derivatives_by_hand():
    network = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        network.weight[:] = torch.tensor([[3.0, -1.0]])
    x, y = torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double()
    found = weight_effects(network, [(x, y), (2 * x, y)], nn.functional.mse_loss)
    # d/dw (w x)^2 = 2 (w x) x, with w x = 1, and 2 for the second batch
    gradients = [torch.tensor([[2.0, 4.0]]), torch.tensor([[8.0, 16.0]])]
    expected = sum((torch.tensor([[3.0, -1.0]]) * g).square() for g in gradients) / 2
    assert torch.equal(found["weight"], expected.double())
    assert network.weight.grad is None


@pytest.mark.parametrize("name", ["plain", "mobile", "grouped", "concatenated"])
def test_the_largest_path_stays_the_network(name):
    network, inputs = make(name)
    choices = {**TAYLOR, "residual": True}
    space = convert(network, inputs, choices, calibration=batches(inputs))
    whole = extract_subnet(space, largest(space.plan))
    assert torch.allclose(whole(*inputs), network(*inputs), rtol=0, atol=1e-10)
    assert not any(p.grad is not None for p in network.parameters())


def test_channels_that_no_loss_depends_on_go_first():
    network, inputs = make("plain")
    with torch.no_grad():  # long, and read by nothing
        network.features[0].weight[:8] *= 100
        network.features[4].weight[:, :8] = 0
    kept = {}
    for importance in ("l2", "taylor"):
        choices = {**TAYLOR, "importance": importance}
        more = {"calibration": batches(inputs)} if importance == "taylor" else {}
        space = convert(network, inputs, choices, **more)
        half = extract_subnet(space, {**largest(space.plan), "features.0.channels": 8}).network
        kept[importance] = half.features[0].weight.abs().amax((1, 2, 3))
    assert kept["l2"].min() > 2
    assert kept["taylor"].max() < 2


class Weird:
    def __call__(self, outputs, targets):
        return outputs


@pytest.mark.parametrize(
    ("choices", "more", "message"),
    [
        (
            TAYLOR,
            {},
            "importance taylor and calibration, batches of (inputs, targets), go together",
        ),
        ({}, {"calibration": []}, "importance taylor and calibration"),
        (TAYLOR, {"calibration": []}, "calibration has no batches. Give batches of"),
        (TAYLOR, {"calibration": [torch.zeros(1)]}, "a batch of calibration is a Tensor. Give"),
        (
            TAYLOR,
            {"calibration": [(torch.zeros(1, 4, 8, 8).double(), torch.zeros(1).long())]},
            "a batch of calibration does not run (",
        ),
        (
            TAYLOR,
            {
                "calibration": [(torch.zeros(1, 3, 8, 8).double(), torch.zeros(1).long())],
                "loss": Weird(),
            },
            "the loss of calibration is no number to derive",
        ),
        (
            TAYLOR,
            {
                "calibration": [
                    (torch.full((1, 3, 8, 8), torch.nan).double(), torch.zeros(1).long())
                ]
            },
            "the loss of a batch of calibration is not finite",
        ),
    ],
)
def test_refuses(choices, more, message):
    network, inputs = make("plain")
    with pytest.raises(SpaceError) as caught:
        convert(network, inputs, choices, **more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_has_no_batches(tmp_path):
    with pytest.raises(RecipeError) as caught:
        read_conversion({"name": "torchvision:resnet18"}, TAYLOR, "recipe.yml", tmp_path)
    assert "recipe.yml: choices.importance: taylor needs batches" in str(caught.value)
    read_conversion({"name": "torchvision:resnet18"}, {"importance": "l2"}, "r.yml", tmp_path)
