"""Our metrics keep the promises of every metric."""

import pytest

from nni_spos.metrics import Unit
from nni_spos.metrics.units import unit_of
from nni_spos.recipe.registries import METRICS
from nni_spos.testing.metrics import CHECKS, MetricCase


@pytest.mark.parametrize("name", METRICS.ours)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.slow
def test_the_contract_of_metrics(check, name):
    check(MetricCase(name))


@pytest.mark.parametrize("name", METRICS.ours)
def test_a_metric_has_the_name_of_the_registry(name):
    metric = MetricCase(name).make()
    assert metric.name == name
    assert unit_of(name) == metric.unit != Unit()
