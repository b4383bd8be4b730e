"""A small space with known costs and scores, and a stand-in for an experiment."""

import numpy as np
import pytest

from nni_spos.cost_table import CostTable, Factor
from nni_spos.evolution import Signal
from nni_spos.path import PathSpace


def additive_costs(space: PathSpace, metric: str = "flops") -> dict[str, CostTable]:
    """One table: every choice costs its position, so a path costs the sum of its key."""
    factors = [Factor((label,), np.arange(len(space[label]))) for label in space]
    return {metric: CostTable(metric, space, 0, factors)}


@pytest.fixture(scope="session")
def space():
    return PathSpace({f"unit_{i}": ["a", "b", "c"] for i in range(6)})


@pytest.fixture(scope="session")
def costs(space):
    return additive_costs(space)


@pytest.fixture(scope="session")
def make_costs():
    return additive_costs


@pytest.fixture(scope="session")
def score(space):
    """Score paths so that no two have the same score."""

    def score(path):
        return {"top1": sum(3.0**i * place for i, place in enumerate(space.key(path)))}

    return score


@pytest.fixture(scope="session")
def run():
    """Run a search to its end with some workers that finish in random order."""

    def run(search, evaluate, workers=1, seed=0, told=None):
        """Return the paths in the order they were asked for; `told` collects the outcomes."""
        generator = np.random.default_rng(seed)
        asked, running = [], []
        while True:
            answer = Signal.WAIT
            while len(running) < workers and isinstance(answer := search.ask(), dict):
                asked.append(answer)
                running.append(answer)
            if answer is Signal.FINISHED:
                assert not running
                return asked
            path = running.pop(generator.integers(len(running)))
            outcome = evaluate(path)
            if isinstance(outcome, str):
                search.tell_failure(path, outcome)
            else:
                search.tell(path, outcome)
            if told is not None:
                told.append((path, outcome))

    return run
