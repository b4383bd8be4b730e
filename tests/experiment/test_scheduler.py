import logging

import pytest
from small_experiments import SPACE, reference, score, write_recipe

from nni_spos.costs.stored import load_costs
from nni_spos.evolution import Journal, State
from nni_spos.experiment.scheduler import Scheduler
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import build_search


@pytest.fixture
def make(recipe_file, tmp_path):
    def make(name="search.jsonl"):
        recipe = load_recipe(recipe_file)
        search = build_search(recipe.search, *load_costs(recipe))
        return Scheduler(search, Journal(tmp_path / name, {}))

    return make


def metrics(path):
    return {"default": score(path), "loss": 1.0, "path": path}


def state(scheduler, path):
    return scheduler.search.find(path).state


def test_requests_wait_for_the_next_generation(make):
    scheduler = make()
    scheduler.request(range(9))
    first = scheduler.hand_out()
    assert [parameter_id for parameter_id, _ in first] == [0, 1, 2, 3, 4, 5]
    assert scheduler.is_idle
    for parameter_id, path in first:
        assert scheduler.hand_out() == []
        scheduler.take(metrics(path), parameter_id)
    second = scheduler.hand_out()
    assert [parameter_id for parameter_id, _ in second] == [6, 7, 8]
    scheduler.request([9])
    assert [parameter_id for parameter_id, _ in scheduler.hand_out()] == [9]
    assert not scheduler.is_idle


def test_a_result_counts_for_the_path_that_was_evaluated(make, caplog):
    scheduler = make()
    scheduler.request(range(6))
    handed = dict(scheduler.hand_out())
    # NNI mixed up 0 and 1; both trials say what they did.
    scheduler.take(metrics(handed[1]), 0)
    assert "instead of" in caplog.text
    scheduler.end(0, now=1.0)
    scheduler.give_up(dict.fromkeys(scheduler.overdue(9.0), "silent"))
    assert state(scheduler, handed[0]) is State.PENDING, "trial 1 is evaluating it"
    assert scheduler.search.find(handed[1]).metrics == {"top1": score(handed[1]), "loss": 1.0}
    scheduler.take(metrics(handed[0]), 1)
    scheduler.end(1, now=1.0)
    assert scheduler.search.find(handed[0]).metrics["top1"] == score(handed[0])
    assert set(scheduler.trials) == {2, 3, 4, 5}
    # A trial that evaluated a path of nobody: its own fails when it ends.
    new = next(p for p in SPACE.decode(SPACE.enumerate()) if scheduler.search.find(p) is None)
    scheduler.take(metrics(new), 2)
    scheduler.end(2, now=1.0)
    scheduler.give_up(dict.fromkeys(scheduler.overdue(1.0), "silent"))
    assert state(scheduler, handed[2]) is State.FAILED


def test_a_swapped_trial_that_fails_fails_its_own_path(make):
    scheduler = make()
    scheduler.request(range(6))
    handed = dict(scheduler.hand_out())
    scheduler.take(metrics(handed[1]), 0)
    scheduler.end(0, now=1.0)
    scheduler.end(1, now=1.0)
    scheduler.give_up(dict.fromkeys(scheduler.overdue(2.0), "silent"))
    assert state(scheduler, handed[1]) is State.DONE
    assert state(scheduler, handed[0]) is State.FAILED


def test_a_missing_result_is_given_up_after_a_grace_and_taken_when_late(make):
    scheduler = make()
    scheduler.request([0, 1])
    (_, early), (_, late) = scheduler.hand_out()
    for parameter_id in (0, 1):
        scheduler.end(parameter_id, now=10.0)
    scheduler.give_up(dict.fromkeys(scheduler.overdue(9.9), "silent"))
    assert state(scheduler, early) is State.PENDING
    scheduler.take(metrics(early), 0)
    scheduler.give_up(dict.fromkeys(scheduler.overdue(10.0), "silent"))
    assert state(scheduler, early) is State.DONE
    assert state(scheduler, late) is State.FAILED
    assert scheduler.trials == {}
    scheduler.take(metrics(late), 1)
    assert state(scheduler, late) is State.DONE


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), None, "text", True, {"default": None}, {"loss": 1.0}]
)
def test_a_result_without_a_score_is_a_failure(make, value):
    scheduler = make()
    scheduler.request([0])
    [(_, path)] = scheduler.hand_out()
    scheduler.take(value, 0)
    candidate = scheduler.search.find(path)
    assert candidate.state is State.FAILED
    assert "top1" in candidate.reason


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (10**400, "top1"),
        (-(10**5000), "top1"),
        ("[" * 5000, "top1"),
        (nested(5000), "top1"),
        ({"default": 10**309}, "top1"),
        ({"default": 1.0, "loss": float("nan")}, "loss"),
        ({"default": 1.0, "loss": 10**400}, "loss"),
        ({"default": 1.0, "parts": nested(5000)}, "parts"),
        ({"default": 1.0, "parts": {"a": float("inf")}}, "parts"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_that_cannot_be_kept_is_a_failure_also_after_a_resume(make, value, named):
    scheduler = make()
    scheduler.request([0, 1, 2])
    (_, first), (_, second), (_, third) = scheduler.hand_out()
    scheduler.take(value, 0)
    scheduler.take({"default": 10**300, "note": "fine", "parts": [1, None]}, 1)
    assert state(scheduler, second) is State.DONE
    again = make()
    again.recall(third, value if isinstance(value, dict) else {"default": value})
    again.request(range(4))
    again.hand_out()
    for path, one in ((first, scheduler), (first, again), (third, again)):
        candidate = one.search.find(path)
        assert candidate.state is State.FAILED
        assert candidate.reason.startswith(f"the trial reported {named} = ")
        assert len(candidate.reason) < 150
    assert state(again, second) is State.DONE


def test_a_bare_number_counts_for_the_issued_path(make):
    scheduler = make()
    scheduler.request([0])
    [(_, path)] = scheduler.hand_out()
    scheduler.take(12.5, 0)
    assert scheduler.search.find(path).metrics == {"top1": 12.5}


def test_a_path_of_another_space_is_a_failure(make):
    scheduler = make()
    scheduler.request([0])
    [(_, path)] = scheduler.hand_out()
    scheduler.take({"default": 1.0, "path": {"a": "k9"}}, 0)
    assert "another path" in scheduler.search.find(path).reason


def test_duplicates_and_strangers_are_ignored(make, caplog):
    caplog.set_level(logging.INFO)
    scheduler = make()
    scheduler.request([0])
    [(_, path)] = scheduler.hand_out()
    scheduler.take(metrics(path), 0)
    scheduler.take({"default": 0.0, "path": path}, 0)
    assert scheduler.search.find(path).metrics["top1"] == score(path)
    scheduler.end(0, 0.0)
    scheduler.end(77, 0.0)
    scheduler.take({"default": 1.0}, 88)
    assert "second result" in caplog.text
    assert "77" in caplog.text
    assert "88" in caplog.text
    assert len(scheduler.journal.file.read_text().splitlines()) == 2


def test_the_path_of_a_killed_trial_is_handed_out_again_but_not_for_ever(make):
    scheduler = make()
    scheduler.request([0])
    [(_, path)] = scheduler.hand_out()
    for parameter_id in (1, 2):
        scheduler.end(parameter_id - 1, now=1.0)
        assert scheduler.overdue(2.0) == {parameter_id - 1: path}
        assert scheduler.retry(path)
        assert scheduler.overdue(2.0) == {}
        scheduler.request([parameter_id])
        assert scheduler.hand_out() == [(parameter_id, path)]
        assert state(scheduler, path) is State.PENDING
    scheduler.end(2, now=1.0)
    assert not scheduler.retry(path)
    assert scheduler.overdue(2.0) == {}
    assert state(scheduler, path) is State.PENDING
    scheduler.settle(path, "the trial was killed 3 times")
    assert state(scheduler, path) is State.FAILED
    scheduler.request([3])
    assert scheduler.hand_out()[0][1] != path


def test_a_killed_trial_whose_result_comes_late_is_not_repeated(make):
    scheduler = make()
    scheduler.request([0])
    [(_, path)] = scheduler.hand_out()
    scheduler.end(0, now=1.0)
    scheduler.retry(path)
    scheduler.take(metrics(path), 0)
    assert state(scheduler, path) is State.DONE
    scheduler.request([1])
    [(parameter_id, other)] = scheduler.hand_out()
    assert parameter_id == 1
    assert other != path
    scheduler.retry(path)  # its end is seen once more
    assert state(scheduler, path) is State.DONE


def test_numbers_that_nni_changed_are_understood(make):
    scheduler = make()
    scheduler.request(range(6))
    handed = scheduler.hand_out()
    whole = [(i, path) for i, path in handed if path["ratio"] in (1.0, 2.0, 4.0)]
    assert whole
    for parameter_id, path in whole:
        changed = {**path, "ratio": int(path["ratio"])}
        scheduler.take({"default": 3.0, "path": changed}, parameter_id)
        assert state(scheduler, path) is State.DONE


def run_to_end(scheduler, count=99):
    """Evaluate up to `count` candidates, three at a time."""
    done = []
    scheduler.request(range(3))
    waiting = scheduler.hand_out()
    number = 3
    while waiting and len(done) < count:
        parameter_id, path = waiting.pop(0)
        scheduler.take(metrics(path), parameter_id)
        scheduler.end(parameter_id, 0.0)
        done.append(path)
        scheduler.request([number])
        number += 1
        waiting += scheduler.hand_out()
    return done


def test_a_resumed_search_repeats_nothing_and_finds_the_same(make, recipe_file):
    expected = [candidate.path for candidate in reference(recipe_file).candidates]
    done = run_to_end(make(), count=8)
    again = make()
    done += run_to_end(again)
    assert sorted(map(SPACE.key, done)) == sorted(map(SPACE.key, expected))
    assert [candidate.path for candidate in again.search.candidates] == expected
    assert again.is_finished
    third = make()
    third.request([0])
    assert third.hand_out() == []
    assert third.is_finished


def test_trials_of_an_earlier_run_are_adopted_or_recalled(make, recipe_file):
    first = [c.path for c in reference(recipe_file).candidates if c.generation == 0]
    scheduler = make()
    scheduler.recall(first[0], metrics(first[0]))
    scheduler.recall(first[1], "the trial ended without a result")
    scheduler.recall(first[2], {"default": float("nan"), "path": first[2]})
    scheduler.recall({"a": "k9"}, 1.0)
    for path in first[3:5]:
        scheduler.adopt(path)
    scheduler.adopt({"a": "k9"})
    scheduler.request(range(3))
    assert scheduler.hand_out() == [(0, first[5])]
    states = [state(scheduler, path) for path in first]
    assert states[:3] == [State.DONE, State.FAILED, State.FAILED]
    assert states[3:] == [State.PENDING] * 3
    # Recalled outcomes are in the journal from now on.
    assert len(scheduler.journal.file.read_text().splitlines()) == 1 + 3
    scheduler.take(metrics(first[3]), path=first[0])
    scheduler.settle(first[4], "silent")
    assert state(scheduler, first[3]) is State.DONE
    assert state(scheduler, first[4]) is State.FAILED
    assert scheduler.adopted == {}
    scheduler.take(metrics(first[5]), 0)
    assert len(scheduler.hand_out()) == 2


def test_settle_ends_a_trial_whose_end_was_lost(make):
    scheduler = make()
    scheduler.request([0, 1])
    (_, reported), (_, silent) = scheduler.hand_out()
    scheduler.settle(reported, metrics(reported))
    scheduler.settle(silent, "silent")
    assert state(scheduler, reported) is State.DONE
    assert state(scheduler, silent) is State.FAILED
    assert scheduler.trials == {}


def test_mixed_up_trials_cost_no_more_when_there_are_many(tmp_path, monkeypatch):
    write_recipe(tmp_path, population_size=36, num_generations=1)
    recipe = load_recipe(tmp_path / "recipe.yml")
    search = build_search(recipe.search, *load_costs(recipe))
    scheduler = Scheduler(search, Journal(tmp_path / "many.jsonl", {}))
    scheduler.request(range(36))
    paths = [path for _, path in scheduler.hand_out()]
    validate, calls = PathSpace.validate, []
    monkeypatch.setattr(PathSpace, "validate", lambda *x: calls.append(x) or validate(*x))
    # Each reports the path of the one that was started last of those that have not reported.
    for parameter_id, path in enumerate(reversed(paths)):
        calls.clear()
        scheduler.take(metrics(path), parameter_id)
        assert len(calls) <= 10, "the other trials' paths are not looked up"
    assert all(state(scheduler, path) is State.DONE for path in paths)
