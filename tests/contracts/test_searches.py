"""Our searches keep the promises of every search."""

import pytest

from nni_spos.recipe.registries import SEARCHES
from nni_spos.testing.searches import CHECKS, SearchCase


@pytest.mark.parametrize("name", SEARCHES.ours)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_of_searches(check, name):
    check(SearchCase(name))


@pytest.mark.parametrize("name", SEARCHES.ours)
def test_another_seed_has_other_candidates(name):
    found = {str([SearchCase(name).make(seed=seed).ask() for _ in range(9)]) for seed in range(5)}
    assert len(found) > 1
