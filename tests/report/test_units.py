"""How the costs of a path are divided among its units."""

from __future__ import annotations

import pytest
from small_report import BEST, COSTS, SPACE

from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.report.units import cost_per_label, divide, group_labels
from nni_spos.spaces import Form, build_space, default_input_shape


def test_a_shared_cost_counts_for_the_last_of_its_labels():
    # k3, 4 bits, k3: (100) for layer_1, (30) of bits_1 with layer_1, (1) of layer_2 with layer_1.
    assert cost_per_label(COSTS["flops"], BEST) == {"layer_1": 100, "bits_1": 30, "layer_2": 1}


def test_units_hold_the_labels_of_one_number():
    first, second = divide(BEST, SPACE, COSTS)
    assert (first.name, first.choices) == ("1", {"layer_1": "k3", "bits_1": 4})
    assert first.costs == {"flops": 130, "bitops": 100}
    assert first.places == {"layer_1": (0, 2), "bits_1": (1, 2)}
    assert (second.name, second.costs) == ("layer_2", {"flops": 1, "bitops": 0})


def test_labels_of_a_number_that_are_apart_keep_names_of_their_own():
    space = PathSpace({label: [1] for label in ("a_1", "b_1", "width", "c_1", "d_1", "x_2")})
    assert list(group_labels(space).items()) == [
        ("a_1 + b_1", ["a_1", "b_1"]),
        ("width", ["width"]),
        ("c_1 + d_1", ["c_1", "d_1"]),
        ("x_2", ["x_2"]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_units"), [("shufflenet_small", 8), ("shufflenet_joint", 20), ("resnet_small", 6)]
)
def test_the_units_and_the_fixed_layers_sum_to_the_cost(name, num_units):
    model = build_space(name, {}, Form.SUBNET)
    costs = build_costs(model, default_input_shape(model))
    space = PathSpace.from_model_space(model)
    for place in (0, -1):
        path = {label: choices[place] for label, choices in space.items()}
        units = divide(path, space, costs)
        assert len(units) == num_units
        for metric, table in costs.items():
            parts = sum(unit.costs[metric] for unit in units)
            assert parts + table.constant == table.price(path)
