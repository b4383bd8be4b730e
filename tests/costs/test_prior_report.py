"""What ``nni-spos prior`` says and draws."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image
from trained_recipes import write_untrained

from nni_spos.cli import main
from nni_spos.cost_table import CostTable, Factor
from nni_spos.costs import prior_report
from nni_spos.costs.prior_report import describe_prior, plot_prior_of
from nni_spos.path import PathSpace
from nni_spos.priors import ConstrainedPrior, UniformPrior

SPACE = PathSpace({"a": ["k3", "k5"], "layer": ["k3", "k5"]})
COST = CostTable("flops", SPACE, 100, [Factor((x,), np.array([0, 10])) for x in SPACE])


def test_constrained():
    prior = ConstrainedPrior(SPACE, COST, [(100, 110), (120, 130)])
    assert describe_prior(prior).splitlines() == [
        "4 paths in the space",
        "  100 <= flops <= 110: 3 paths (75 %)",
        "  120 <= flops <= 130: 1 paths (25 %)",
        "probability of each choice:",
        "  a      k3 0.333  k5 0.667",
        "  layer  k3 0.333  k5 0.667",
    ]


def test_uniform():
    assert describe_prior(UniformPrior(SPACE)).splitlines() == [
        "4 paths in the space",
        "  all alike",
        "probability of each choice:",
        "  a      k3 0.500  k5 0.500",
        "  layer  k3 0.500  k5 0.500",
    ]


@pytest.mark.parametrize("constrained", [True, False])
def test_plot(tmp_path, monkeypatch, constrained):
    drawn = []
    monkeypatch.setattr(prior_report, "plot_cost_distribution", lambda *x: drawn.append(x))
    prior = ConstrainedPrior(SPACE, COST, (110, 1e9)) if constrained else UniformPrior(SPACE)
    plot_prior_of(prior, COST, tmp_path / "a.png")
    metric, edges, space, shares, bins, file = drawn[0]
    assert (metric, file) == ("flops", tmp_path / "a.png")
    assert (edges[0], edges[-1]) == (100, 120)
    assert space[[0, 40, 79]] == pytest.approx([0.25, 0.5, 0.25])
    expected = [0, 2 / 3, 1 / 3] if constrained else [0.25, 0.5, 0.25]
    assert shares[[0, 40, 79]] == pytest.approx(expected, abs=0.02)
    assert list(bins) == ([(110, 120)] if constrained else [])


def test_command(tmp_path, capsys):
    recipe = write_untrained(tmp_path, supernet={"prior": "constrained", "prior_quantiles": [0, 1]})
    assert main(["prior", str(recipe.file), "--plot", str(tmp_path / "prior.png")]) == 0
    output = capsys.readouterr().out
    assert "64 paths in the space" in output
    assert "64 paths (100 %)" in output
    assert Image.open(tmp_path / "prior.png").size == (1050, 600)
    content = yaml.safe_load(recipe.file.read_text())
    content["supernet"]["prior_metric"] = "flop"
    recipe.file.write_text(yaml.safe_dump(content))
    assert main(["prior", str(recipe.file)]) == 2
    assert "unknown metric 'flop'; did you mean 'flops'?" in capsys.readouterr().err
