"""Memory of activations: by hand, and against what a run really keeps."""

from __future__ import annotations

import functools
import itertools
import operator

import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor, PeakTable
from nni_spos.errors import CostError
from nni_spos.evolution.feasible import FeasibleSampler
from nni_spos.metrics.peak_activation_bytes import PeakActivationBytes
from nni_spos.metrics.weight_bytes import WeightBytes
from nni_spos.mutables import channel_choice
from nni_spos.path import PathSpace
from nni_spos.priors import ConstrainedPrior, UniformPrior
from nni_spos.profilers import build_costs
from nni_spos.spaces import Form, build_space, default_input_shape

METRICS = (PeakActivationBytes(), WeightBytes())


class TwoUnits(ModelSpace):
    """A stem, a unit with a residual connection, and another one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        wide = nn.Sequential(nn.Conv2d(4, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))
        self.one = LayerChoice({"wide": wide, "thin": nn.Conv2d(4, 4, 1)}, label="one")
        self.two = LayerChoice({"conv": nn.Conv2d(4, 2, 1), "wide": self.wider()}, label="two")

    def wider(self):
        return nn.Sequential(nn.Conv2d(4, 10, 1), nn.BatchNorm2d(10), nn.Conv2d(10, 2, 1))

    def forward(self, images):
        x = self.stem(images)
        x = x + self.one(x)
        return self.two(x)


def test_by_hand():
    costs = build_costs(TwoUnits(), (1, 8, 8), METRICS)
    peaks, pixel = costs["peak_activation_bytes"], 4 * 64
    found = {
        tuple(path.values()): peaks.price(path) / pixel
        for path in peaks.space.decode(peaks.space.enumerate())
    }
    # Kept input 4, hidden 16, result 4; or 4 + 4; and behind it 4 + 10 or 4 + 2.
    assert found == {
        ("wide", "conv"): 24, ("wide", "wide"): 24, ("thin", "conv"): 8, ("thin", "wide"): 14,
    }  # fmt: skip
    assert peaks.cheapest() == (8 * pixel, {"one": "thin", "two": "conv"})
    assert peaks.dearest()[0] == 24 * pixel
    weights = costs["weight_bytes"].price({"one": "thin", "two": "conv"})
    assert weights == 4 * (40 + 8 + 20 + 10)


def test_only_a_recipe_that_lists_them_has_them():
    assert set(build_costs(TwoUnits(), (1, 8, 8))) == {"flops", "params"}


def test_widths_that_are_choices():
    class Widths(ModelSpace):
        def __init__(self):
            super().__init__()
            from nni.nas.nn.pytorch import MutableConv2d

            one, two = (channel_choice(x, 8, [0.5, 1.0, 1.5]) for x in ("one", "two"))
            self.layers = nn.Sequential(
                MutableConv2d(1, one, 1), nn.ReLU(), MutableConv2d(one, two, 1),
                MutableConv2d(two, 2, 1),
            )  # fmt: skip

        def forward(self, images):
            return self.layers(images)

    peaks = build_costs(Widths(), (1, 8, 8), METRICS)["peak_activation_bytes"]
    for path in peaks.space.decode(peaks.space.enumerate()):
        assert peaks.price(path) == 4 * 64 * (path["one"] + path["two"])
    assert ("one", "two") in {factor.labels for factor in peaks.factors}


SPACE = PathSpace({x: [1, 2, 3] for x in "abcd"})


def random_peaks(seed):
    generator = np.random.default_rng(seed)
    groups = [("a",), ("a", "b"), ("b", "c"), ("d", "a"), ("c", "d")][seed % 3 :]
    factors = [Factor(x, generator.integers(0, 99, [3] * len(x))) for x in groups]
    return PeakTable("peak_activation_bytes", SPACE, int(generator.integers(40)), factors)


@pytest.mark.parametrize("seed", range(6))
def test_extremes_are_those_of_all_paths(seed):
    table = random_peaks(seed)
    costs = table.price_many(SPACE.enumerate())
    for (cost, path), expected in ((table.cheapest(), costs.min()), (table.dearest(), costs.max())):
        assert cost == expected
        assert table.price(path) == cost
    kept = CostTable.from_json(table.to_json(), SPACE)
    assert type(kept) is PeakTable
    assert np.array_equal(kept.price_many(SPACE.enumerate()), costs)


def test_searches_keep_a_limit_on_a_maximum():
    table = random_peaks(1)
    limit = Constraint(
        "peak_activation_bytes", 0, float(np.median(table.price_many(SPACE.enumerate())))
    )
    sums = CostTable("flops", SPACE, 0, [Factor((x,), np.array([1, 2, 3])) for x in "abcd"])
    costs = {"peak_activation_bytes": table, "flops": sums}
    sampler = FeasibleSampler(SPACE, costs, [limit, Constraint("flops", 5, 10)])
    found = set(itertools.islice(sampler.stream(np.random.default_rng(0)), 81))
    expected = {
        tuple(row)
        for row in SPACE.enumerate().tolist()
        if limit.allows(table.price_many([row])[0]) and 5 <= sums.price_many([row])[0] <= 10
    }
    assert found == expected
    with pytest.raises(CostError, match="Use prior_method: rejection"):
        ConstrainedPrior(SPACE, table, [limit])
    prior = ConstrainedPrior(SPACE, table, [limit], method="rejection")
    assert all(limit.allows(table.price(prior.path(step))) for step in range(20))


class Keeping(fx.Interpreter):
    """Runs a network, and looks after each operator at which memory somebody still holds."""

    def __init__(self, network):
        super().__init__(fx.symbolic_trace(network))
        self.seen: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def run_node(self, node):
        dying = self.user_to_last_uses.get(node, [])
        result = self.run_over(node, dying)
        if node.op == "placeholder":
            self.image = node, result.untyped_storage().nbytes()  # the caller keeps it
        elif isinstance(result, torch.Tensor):
            storage = result.untyped_storage()
            # By number of values: a tensor of 4 bytes each.
            self.seen.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        alive = [size for reference, size in self.seen.values() if not reference.expired()]
        image, size = self.image
        self.peak = max(self.peak, sum(alive) + size * (image in self.env or image is node))
        return result

    def run_over(self, node, dying):
        """Compute over an input that nobody reads later, as a runtime does."""
        args, _ = self.fetch_args_kwargs_from_env(node)
        module = self.fetch_attr(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.ReLU | nn.ReLU6 | nn.Hardswish | nn.Hardsigmoid | nn.Sigmoid):
            over = type(module)(inplace=True) if hasattr(module, "inplace") else torch.sigmoid_
            return over(args[0]) if node.args[0] in dying else type(module)()(args[0])
        if node.target in (functional.relu, torch.relu):
            return functional.relu(args[0], inplace=node.args[0] in dying)
        for kind, over in ((operator.add, torch.Tensor.add_), (operator.mul, torch.Tensor.mul_)):
            if node.target is kind:
                for i in (0, 1):
                    if node.args[i] in dying and args[i].shape == (args[0] + args[1]).shape:
                        return over(args[i], args[1 - i])
        return super().run_node(node)


def without_norms(network):
    for name, module in [*network.named_modules()]:
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["proxylessnas_small", "fbnet_small", "nasbench_macro"])
def test_a_run_keeps_so_much(name):
    build = functools.partial(build_space, name, {}, Form.SUBNET)
    space = build()
    shape = default_input_shape(space)
    peaks = build_costs(space, shape, METRICS)["peak_activation_bytes"]
    drawn = UniformPrior(peaks.space).draw(3, np.random.default_rng(1))
    for path in [*peaks.space.decode(drawn), peaks.cheapest()[1], peaks.dearest()[1]]:
        runner = Keeping(without_norms(build(path=path)))
        with torch.no_grad():
            runner.run(torch.randn(1, *shape), enable_io_processing=False)
        assert runner.peak == peaks.price(path)
