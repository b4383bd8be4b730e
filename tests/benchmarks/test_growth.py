"""A candidate costs the same work and the same bytes, however many came before it."""

import dataclasses
import itertools
import os
import sys
from collections import Counter

import psutil
import pytest
from simulated import (
    SimulatedManager,
    Simulation,
    fails,
    journal_of,
    make_space,
    started_tuner,
    write_experiment,
)

from nni_spos.evolution import read_journal
from nni_spos.recipe.output import search_of_experiment
from nni_spos.search.results import load_results

SPACE = make_space(num_units=8, num_choices=4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where an experiment is; waiting for the disk is not what is tested here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return tmp_path


def calls_of(work):
    """Count the calls of functions in this thread."""
    calls = Counter()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls["call"] + calls["c_call"]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["evolution", "nsga2", "random"])
def test_the_last_of_2000_candidates_cost_what_the_first_do(folder, algorithm):
    settings = {"population_size": 20, "num_generations": 100, "algorithm": algorithm}
    write_experiment(folder, SPACE, **settings)
    manager, calls, sizes, record_sizes = SimulatedManager(SPACE), [], [], set()
    with started_tuner(folder, SPACE, manager) as tuner:
        simulation = Simulation(tuner, manager, concurrency=1)
        for _ in range(10):
            calls.append(calls_of(lambda: simulation.end_trials(200)))
            sizes.append(journal_of(folder).stat().st_size)
            record_sizes.add(search_of_experiment(folder).record.stat().st_size)
        simulation.end_trials()
    assert len(load_results(folder).candidates) == 2000
    # The first tenth has the random generation; the rest differ by what was proposed in vain.
    assert max(calls[5:]) < 1.25 * max(calls[1:3])
    lines = [after - before for before, after in itertools.pairwise(sizes)]
    assert max(lines) < 1.05 * min(lines)
    assert max(lines) < 200 * 400
    assert max(record_sizes) < 300


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's counters")
def test_a_tell_writes_its_own_line_and_no_other(folder):
    write_experiment(folder, SPACE, population_size=20, num_generations=100)
    manager, written = SimulatedManager(SPACE), []
    with started_tuner(folder, SPACE, manager) as tuner:
        simulation = Simulation(tuner, manager, concurrency=1)
        for _ in range(20):
            before = psutil.Process().io_counters().write_chars
            simulation.end_trials(100)
            written.append((psutil.Process().io_counters().write_chars - before) / 100)
    # About 300 bytes in the journal and 200 in the record of the run.
    assert max(written) < 1000
    assert max(written[10:]) < 1.1 * max(written[:10])


@pytest.mark.slow
def test_a_thousand_trials_side_by_side_find_what_they_find_one_by_one(folder):
    found, most = [], []
    for concurrency in (1, 1000):
        place = folder / str(concurrency)
        place.mkdir()
        write_experiment(place, SPACE, population_size=1000, num_generations=2)
        manager = SimulatedManager(SPACE)
        with started_tuner(place, SPACE, manager) as tuner:
            failing = frozenset({"silent", "not a number"})
            simulation = Simulation(tuner, manager, concurrency, failing, seed=concurrency)
            simulation.end_trials()
        assert manager.max_trial_number == 2000
        most.append(simulation.most_running)
        # Reasons name the trial and its log.
        candidates = read_journal(journal_of(place))[1]
        found.append([dataclasses.replace(x, reason=x.reason[:60]) for x in candidates])
    assert most == [1, 1000]
    assert found[0] == found[1]
    ways = Counter(fails(candidate.path) for candidate in found[0])
    assert min(ways["silent"], ways["not a number"]) > 10
    assert sum(bool(candidate.reason) for candidate in found[0]) == 2000 - ways[""]


def test_a_finished_search_is_resumed_without_a_trial(folder):
    write_experiment(folder, SPACE, population_size=20, num_generations=20)
    for expected in (400, 0):
        manager = SimulatedManager(SPACE)
        with started_tuner(folder, SPACE, manager) as tuner:
            assert Simulation(tuner, manager, concurrency=4).end_trials() == expected
    assert len(load_results(folder).candidates) == 400
