"""Spaces of users that ask for the values of their tensors."""

import pytest

from nni_spos.errors import CostError, SpaceError
from nni_spos.recipe.recipe import load_recipe
from nni_spos.supernet.building import build_analytic_costs

MODEL = """
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

class Space(ModelSpace):
    def __init__(self, num_classes=10):
        super().__init__()
        self.mean = torch.tensor(0.3)
        self.stem = nn.Conv2d(1, 4, 3, 2, 1)
        self.unit = LayerChoice({"k1": nn.Conv2d(4, 4, 1), "no": nn.Identity()}, label="unit")
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        assert x.isfinite().all()
        x = self.unit(self.stem(x - self.mean)) + torch.zeros(1)
        return self.head(x.mean((2, 3)))
"""


@pytest.fixture
def costs_of(tmp_path):
    """Return the costs of a space of this code, for the digits."""
    recipe = tmp_path / "recipe.yml"

    def build(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        recipe.write_text(
            f"output: runs\nspace: {{name: '{name}:Space'}}\ndata: {{name: digits}}\n"
            "supernet: {epochs: 1, batch_size: 64, learning_rate: 0.5}\nretrain: {epochs: 1}\n"
        )
        return build_analytic_costs(load_recipe(recipe))

    return build


def test_values_and_tensors_made_on_the_cpu(costs_of):
    _, costs = costs_of("asks_for_values", MODEL)
    # 8x8 pixels of 4 outputs from 3x3 inputs, the unit, and the head.
    assert costs["flops"].price({"unit": "k1"}) == 64 * 36 + 64 * 16 + 40


def test_the_shape_of_the_logits_is_still_looked_at(costs_of):
    with pytest.raises(SpaceError, match=r"a tensor of shape \(1, 7\) for one image"):
        costs_of("too_few_logits", MODEL.replace("(4, num_classes)", "(4, 7)"))


def test_what_does_not_run_is_said_with_its_place(costs_of):
    code = MODEL.replace("x.isfinite().all()", "x.isnan().all(), 'all are finite'")
    with pytest.raises(CostError) as error:
        costs_of("never_runs", code)
    line = 1 + code.splitlines().index("        assert x.isnan().all(), 'all are finite'")
    assert str(error.value) == (
        "with images of shape (1, 16, 16) the space does not run: AssertionError: all are finite "
        f"(never_runs.py, line {line})"
    )
