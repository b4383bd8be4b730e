"""The tuner in the hands of a dispatcher that does what NNI 3.0 was seen to do."""

import base64
import dataclasses
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import torch
from small_experiments import SPACE, reference, score, write_recipe
from waiting import PATIENCE

from nni_spos.costs.stored import load_costs
from nni_spos.errors import ExperimentError
from nni_spos.experiment import tuner as tuner_module
from nni_spos.experiment.trial_end import TrialEnds
from nni_spos.experiment.tuner import EvolutionTuner
from nni_spos.files.atomic import write_atomically
from nni_spos.files.tensors import save_tensors
from nni_spos.recipe.identity import WEIGHTS, Result, describe
from nni_spos.recipe.output import SearchFolder, search_of_experiment
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.results import load_results
from nni_spos.search.run_record import read_run_record
from nni_spos.search.unused_limit import unused_line


class FakeDispatcher:
    """Runs trials in threads: reports and ends come in any order, requests once per end."""

    def __init__(self, tuner, manager, fate, concurrency=4, seed=0):
        self.tuner, self.manager, self.fate = tuner, manager, fate
        self.concurrency = concurrency
        self.random = random.Random(seed)
        self.errors = []
        self.issued = []
        self.lock = threading.Lock()
        self.next_id = 0
        self.running = 0
        self.num_running = []
        self.reported = {}
        """What every trial reports besides."""
        self.least_issued = lambda index: 0
        """Paths that are issued before the trial of this index reports."""

    def report_error(self, text):
        self.errors.append(text)

    def send(self, parameter_id, path):
        with self.lock:
            self.issued.append(path)
            self.running += 1
            self.num_running.append(self.running)
            self.manager.add_job(f"job{parameter_id}", path, parameter_id=parameter_id)
        threading.Thread(target=self.trial, args=(parameter_id, path), daemon=True).start()

    def request(self, count):
        with self.lock:
            ids = list(range(self.next_id, self.next_id + count))
            self.next_id += count
        assert self.tuner.generate_multiple_parameters(ids, st_callback=self.send) == []

    def trial(self, parameter_id, path):
        time.sleep(self.random.random() * 0.02)
        least, end = self.least_issued(self.issued.index(path)), time.monotonic() + 5
        while len(self.issued) < least and time.monotonic() < end:
            time.sleep(0.001)
        fate = self.fate(path)
        value = {"default": score(path), "path": path, **self.reported}
        steps = [lambda: self.end(parameter_id)]
        if fate in ("scores", "late", "twice"):  # the manager has it before the trial can end
            self.manager.metrics[f"job{parameter_id}"] = value
        if fate in ("scores", "late"):
            steps.append(lambda: self.result(parameter_id, value))
        if fate == "twice":
            steps += [lambda: self.result(parameter_id, value)] * 2
        if fate == "nan":
            steps.append(lambda: self.result(parameter_id, {**value, "default": float("nan")}))
        if fate != "late":
            self.random.shuffle(steps)
        for step in steps:
            step()
        self.request(1)

    def result(self, parameter_id, value):
        self.manager.metrics[f"job{parameter_id}"] = value
        self.tuner.receive_trial_result(parameter_id, "", value, trial_job_id=f"job{parameter_id}")

    def end(self, parameter_id):
        with self.lock:
            self.manager.jobs[f"job{parameter_id}"]["status"] = "SUCCEEDED"
            self.running -= 1
        self.tuner.trial_end(parameter_id, True)

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not (condition() or self.errors):
            assert time.monotonic() < end, "the search stalled"
            time.sleep(0.01)


@pytest.fixture
def nni(manager, tmp_path, monkeypatch):
    """NNI's environment of a tuner, with short delays."""
    (tmp_path / "checkpoint").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path / "checkpoint"))
    monkeypatch.setenv("NNI_TUNER_COMMAND_CHANNEL", f"ws://localhost:{manager.port}/tuner")
    monkeypatch.setenv("NNI_MODE", "start")
    monkeypatch.setattr(EvolutionTuner, "GRACE", 0.2)
    monkeypatch.setattr(EvolutionTuner, "TICK", 0.02)
    monkeypatch.setattr(EvolutionTuner, "POLL", 0.05)
    tuners = []

    def make(**class_args):
        tuner = EvolutionTuner(**{"recipe": "recipe.yml", **class_args})
        tuners.append(tuner)
        return tuner

    yield make
    for tuner in tuners:
        tuner._on_exit()


def fate_by_path(path):
    """A third of the trials do not score."""
    fates = ["scores", "silent", "scores", "nan", "scores", "scores", "twice", "scores", "late"]
    return fates[sum((i + 1) * place for i, place in enumerate(SPACE.key(path))) % len(fates)]


def fails(path):
    return fate_by_path(path) in ("silent", "nan")


@pytest.mark.parametrize(
    ("seed", "algorithm"), [(0, "evolution"), (1, "evolution"), (2, "evolution"), (0, "nsga2")]
)
def test_order_and_failures_do_not_change_the_search(nni, manager, tmp_path, seed, algorithm):
    recipe_file = write_recipe(tmp_path, algorithm=algorithm)
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, fate_by_path, seed=seed)
    dispatcher.least_issued = lambda index: index // 6 * 6 + 4  # four of each generation's six
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    expected = [(c.path, c.generation, c.state) for c in reference(recipe_file, fails).candidates]
    found = load_results(tmp_path).candidates
    assert [(c.path, c.generation, c.state) for c in found] == expected
    assert Counter(map(SPACE.key, dispatcher.issued)) == Counter(
        SPACE.key(path) for path, _, _ in expected
    )
    kinds = {fate_by_path(path) for path, _, _ in expected}
    assert {"scores", "silent", "nan"} <= kinds, "the seed should give failures"
    # No slot is lost to a failure: with each generation all four are in use again.
    starts = [0, 6, 12]
    assert all(max(dispatcher.num_running[i : i + 6]) == 4 for i in starts)
    # The experiment ends by itself after exactly its trials.
    path, profile = manager.puts[0]
    assert path.endswith("/experiment?update_type=MAX_TRIAL_NUM")
    assert profile["params"]["maxTrialNumber"] == len(expected) == 18
    time.sleep(0.2)
    assert len(manager.puts) == 1


@pytest.mark.parametrize("limits", [["flops <= 1000"], []])
def test_the_end_says_what_is_left_of_a_limit(nni, manager, tmp_path, caplog, limits):
    write_recipe(tmp_path, constraints=limits, num_generations=1)
    caplog.set_level("INFO", "nni_spos")
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    dispatcher.wait(lambda: tuner._is_closed)
    tuner._on_exit()
    assert (dispatcher.errors, tuner._failure) == ([], None)
    with tuner._lock:  # the line comes with the end
        line = unused_line(load_results(tmp_path), load_costs(tuner.recipe)[1])
    assert bool(line) == bool(limits)
    lines = [x.getMessage() for x in caplog.records if x.name == tuner_module.__name__]
    assert lines[-1] == (line or "the search is over after 6 trials")


class FakeBeginning:
    """Is over when it is told so."""

    def __init__(self, paths):
        self.is_over, self.found = False, paths

    def paths(self):
        if self.found is None:
            raise ExperimentError("it could not.")
        return self.found


def of_a_converted_network(tuner):
    search = dataclasses.replace(tuner.recipe.search, sensitivity=True)
    tuner.recipe = dataclasses.replace(tuner.recipe, search=search)
    return tuner


def test_trials_wait_for_what_the_search_begins_with(nni, manager, recipe_file, monkeypatch):
    write_weights(recipe_file, 1.0)
    first = [{"a": "k7", "b": "k3", "ratio": 4.0}, {"a": "k3", "b": "k7", "ratio": 0.5}]
    beginning = FakeBeginning(first)
    monkeypatch.setattr(tuner_module, "Beginning", lambda *_: beginning)
    tuner = of_a_converted_network(nni())
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    time.sleep(0.2)
    assert (dispatcher.issued, dispatcher.errors) == ([], [])
    beginning.is_over = True
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    assert dispatcher.issued[:2] == first
    assert len(dispatcher.issued) == 18


@pytest.mark.parametrize(
    "reason", ["it could not.", "the supernet is not trained yet.", "trials are on other machines."]
)
def test_without_a_beginning_paths_are_random(nni, recipe_file, tmp_path, monkeypatch, reason):
    beginning = FakeBeginning(None)
    beginning.is_over = True
    monkeypatch.setattr(tuner_module, "Beginning", lambda *_: beginning)
    if "trained" not in reason:
        write_weights(recipe_file, 1.0)
    if "machines" in reason:
        monkeypatch.setattr(tuner_module, "training_platform", lambda: "remote")
        monkeypatch.setattr(tuner_module, "publish_supernet", lambda *_: None)
    tuner = of_a_converted_network(nni())
    tuner.update_search_space(SPACE.to_search_space())
    assert (tuner._failure, tuner._beginning) == (None, None)
    text = f"sensitivity: {reason} The search begins with random paths."
    assert read_run_record(SearchFolder(tmp_path / "checkpoint")).notes == (text,)


def write_weights(recipe_file, value):
    save_tensors(load_recipe(recipe_file).checkpoint, {"weights": {"a": torch.full((3,), value)}})


def test_a_supernet_that_the_first_trial_trains_is_noted(nni, manager, recipe_file, tmp_path):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    assert WEIGHTS not in load_results(tmp_path).settings
    write_weights(recipe_file, 1.0)
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    expected = describe(Result.SEARCH, load_recipe(recipe_file))[WEIGHTS]
    assert load_results(tmp_path).settings[WEIGHTS] == expected
    tuner._on_exit()
    again = nni()
    again.update_search_space(SPACE.to_search_space())
    assert again._failure is None, "the same search goes on"
    again._on_exit()
    write_weights(recipe_file, 2.0)
    last = nni()
    last.update_search_space(SPACE.to_search_space())
    assert last._failure is None, "with its own supernet"
    assert load_results(tmp_path).settings[WEIGHTS] == expected


DISTURBANCES = {
    "replaced": lambda file: write_weights(file, 2.0),
    "deleted": lambda file: load_recipe(file).checkpoint.unlink(missing_ok=True),
    "no archive": lambda file: write_atomically(
        load_recipe(file).checkpoint, lambda stream: stream.write(b"damaged")
    ),
}


@pytest.mark.parametrize("what", DISTURBANCES)
@pytest.mark.parametrize("when", ["before the first request", "between trials"])
def test_a_search_keeps_its_supernet(nni, manager, recipe_file, tmp_path, what, when):
    write_weights(recipe_file, 1.0)
    expected = describe(Result.SEARCH, load_recipe(recipe_file))[WEIGHTS]
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())

    def disturbed(path):
        DISTURBANCES[what](recipe_file)
        return "scores"

    if when == "before the first request":
        DISTURBANCES[what](recipe_file)
    dispatcher = FakeDispatcher(tuner, manager, disturbed)
    dispatcher.request(2)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    found = load_results(tmp_path)
    assert [x.path for x in found.candidates] == [x.path for x in reference(recipe_file).candidates]
    assert found.settings[WEIGHTS] == expected
    assert tuner.recipe.kept == expected["digest"]


def test_a_search_that_is_stopped_while_its_journal_is_new(nni, manager, recipe_file, tmp_path):
    write_weights(recipe_file, 1.0)
    expected = describe(Result.SEARCH, load_recipe(recipe_file))[WEIGHTS]
    first = nni()
    first.update_search_space(SPACE.to_search_space())
    first._on_exit()
    write_weights(recipe_file, 2.0)
    again = nni()
    again.update_search_space(SPACE.to_search_space())
    assert again._failure is None
    assert load_results(tmp_path).settings[WEIGHTS] == expected
    manager.profile["id"] = "another"
    (tmp_path / "checkpoint" / "search.jsonl").unlink()
    new = nni()
    new.update_search_space(SPACE.to_search_space())
    assert load_results(tmp_path).settings[WEIGHTS] != expected


def test_a_supernet_that_is_written_into_ends_the_search(nni, manager, recipe_file, tmp_path):
    write_weights(recipe_file, 1.0)
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    file = load_recipe(recipe_file).checkpoint

    def written_into(path):
        other = file.with_name("other.pt")
        save_tensors(other, {"weights": {"a": torch.full((3,), 2.0)}})
        file.write_bytes(other.read_bytes())  # as cp does
        return "scores"

    dispatcher = FakeDispatcher(tuner, manager, written_into)
    dispatcher.request(2)
    dispatcher.wait(lambda: tuner._failure)
    assert ".pt: was written into during the search" in tuner._failure
    assert load_results(tmp_path).candidates == []


@pytest.mark.parametrize("damage", ["at the start", "of trials that need none"])
def test_a_supernet_that_cannot_be_kept_is_the_trials_affair(
    nni, manager, recipe_file, tmp_path, damage
):
    file = load_recipe(recipe_file).checkpoint
    file.parent.mkdir(exist_ok=True)
    if damage == "at the start":
        file.write_bytes(b"damaged")
    tuner = nni(num_generations=1)
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(2)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    assert tuner.recipe.kept is None
    assert load_results(tmp_path).num_done == 6


@pytest.mark.parametrize(
    ("reported", "peak", "device"),
    [
        ({"memory": {"peak_memory_bytes": 7, "device": "a GPU"}}, 7, "a GPU"),
        ({}, None, ""),
        ({"memory": {"peak_memory_bytes": -1, "device": "a GPU"}}, None, ""),
        ({"memory": "much"}, None, ""),
    ],
)
def test_recipe_and_cost_are_recorded_beside_the_journal(
    nni, manager, recipe_file, tmp_path, reported, peak, device
):
    tuner = nni(num_generations=1)
    begin = time.monotonic()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.reported = reported
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    elapsed = time.monotonic() - begin
    record = read_run_record(search_of_experiment(tmp_path))
    assert record.recipe == recipe_file
    assert 0 < record.cost.seconds <= elapsed
    assert (record.cost.peak_memory_bytes, record.cost.device) == (peak, device)
    assert all(set(c.metrics) == {"top1"} for c in load_results(tmp_path).candidates)


def test_the_end_is_announced_although_the_manager_was_busy(nni, manager, recipe_file):
    tuner = nni(num_generations=1)
    tuner.update_search_space(SPACE.to_search_space())
    manager.refusals = 3
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    assert manager.puts[0][1]["params"]["maxTrialNumber"] == 6


def test_an_end_that_nni_did_not_announce_is_found(nni, manager, recipe_file, tmp_path):
    tuner = nni(num_generations=1)
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    lost = []
    end = dispatcher.end

    def forgetful(parameter_id):
        if parameter_id == 2:
            lost.append(parameter_id)
            manager.jobs["job2"]["status"] = "FAILED"
            manager.metrics.pop("job2")
        else:
            end(parameter_id)

    dispatcher.end = forgetful
    dispatcher.result = lambda parameter_id, value: (
        None if parameter_id == 2 else FakeDispatcher.result(dispatcher, parameter_id, value)
    )
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert lost == [2]
    assert load_results(tmp_path).num_failed == 1
    assert load_results(tmp_path).num_done == 5


@pytest.mark.parametrize("how", ["announced", "not announced"])
def test_a_killed_trial_is_followed_by_another_of_its_path(
    nni, manager, recipe_file, tmp_path, how
):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    trial = dispatcher.trial

    begun = []

    def killed(parameter_id, path):
        with dispatcher.lock:
            is_first = path not in begun
            begun.append(path)
        if not is_first or len(begun) not in (2, 3, 10):
            return trial(parameter_id, path)
        with dispatcher.lock:
            manager.jobs[f"job{parameter_id}"]["status"] = "USER_CANCELED"
            dispatcher.running -= 1
        if how == "announced":
            tuner.trial_end(parameter_id, False)
        dispatcher.request(1)

    dispatcher.trial = killed
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    found = load_results(tmp_path).candidates
    assert [(c.path, c.state) for c in found] == [
        (c.path, c.state) for c in reference(recipe_file).candidates
    ]
    times = Counter(map(SPACE.key, dispatcher.issued))
    num_again = len(dispatcher.issued) - 18
    assert num_again >= 2
    assert max(times.values()) == 2
    assert manager.puts[0][1]["params"]["maxTrialNumber"] == 18 + num_again


def test_a_trial_that_failed_after_its_report_is_no_failure(
    nni, manager, recipe_file, tmp_path, monkeypatch
):
    first = [c.path for c in reference(recipe_file).candidates if c.generation == 0]
    value = {"default": score(first[0]), "path": first[0]}
    manager.add_job("old0", first[0], "FAILED")
    manager.metrics["old0"] = value  # its record does not have it
    monkeypatch.setenv("NNI_MODE", "resume")
    tuner = nni(num_generations=1)
    tuner.update_search_space(SPACE.to_search_space())
    tuner.import_data([{"parameter": first[3], "value": value, "trialJobId": "old0"}])
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert first[0] not in dispatcher.issued
    assert [c.state.value for c in load_results(tmp_path).candidates] == ["done"] * 6
    assert (tmp_path / "checkpoint" / "search.jsonl").read_text().count("\n") == 7


def test_a_trial_killed_before_a_resume_is_followed_by_another(
    nni, manager, recipe_file, tmp_path, monkeypatch
):
    first = [c.path for c in reference(recipe_file).candidates if c.generation == 0]
    manager.add_job("old0", first[0], "USER_CANCELED")
    manager.add_job("old1", first[1], "FAILED")
    monkeypatch.setenv("NNI_MODE", "resume")
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    issued = Counter(map(SPACE.key, dispatcher.issued))
    assert issued[SPACE.key(first[0])] == 1
    assert issued[SPACE.key(first[1])] == 0
    states = {SPACE.key(c.path): c.state.value for c in load_results(tmp_path).candidates}
    assert [states[SPACE.key(path)] for path in first[:2]] == ["done", "failed"]


STRANGE = [
    float("nan"), float("inf"), float("-inf"), "text", None, True, [1.0], {}, {"default": "99"},
    10**400, "[" * 5000, {"default": 99.0, "loss": 10**400}, {"default": 99.0, "a": float("nan")},
]  # fmt: skip


def test_strange_results_do_not_change_the_search(nni, manager, recipe_file, tmp_path):
    """Late, twice, for unknown ids and of any kind: the same candidates and the same winner."""
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    result, end = dispatcher.result, dispatcher.end
    stranger = {"a": "k9", "b": "k3", "ratio": 1.0}

    def disturb(parameter_id, path):
        for value in STRANGE:
            tuner.receive_trial_result(parameter_id, "", value)
            tuner.receive_trial_result(1000 + parameter_id, "", value)
            tuner.receive_trial_result(1000 + parameter_id, "", {"default": value, "path": path})
            tuner.import_data([{"parameter": path, "value": value}])
        tuner.receive_trial_result(parameter_id, "", {"default": 99.0, "path": path})
        tuner.receive_trial_result(1000, "", {"default": 99.0, "path": stranger})
        tuner.receive_trial_result(1000, "", {"default": 99.0})
        tuner.trial_end(2000 + parameter_id, False)

    def with_more(parameter_id, value):
        result(parameter_id, value)
        disturb(parameter_id, value["path"])

    def ended_twice(parameter_id):
        end(parameter_id)
        tuner.trial_end(parameter_id, True)

    dispatcher.result, dispatcher.end = with_more, ended_twice
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    found, expected = load_results(tmp_path), reference(recipe_file)
    assert [(c.path, c.state) for c in found.candidates] == [
        (c.path, c.state) for c in expected.candidates
    ]
    assert found.best.path == expected.top(1)[0].path
    assert found.best.metrics["top1"] == score(found.best.path)
    num_lines = (tmp_path / "checkpoint" / "search.jsonl").read_text().count("\n")
    assert num_lines == 1 + len(expected.candidates)


def test_all_trials_failing_is_an_error(nni, manager, recipe_file):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "silent")
    dispatcher.request(4)
    dispatcher.wait(lambda: False)
    assert len(dispatcher.errors) == 1
    assert "Traceback" in dispatcher.errors[0]
    assert "all 6 candidates failed" in dispatcher.errors[0]
    assert manager.puts == []


def test_a_problem_of_all_trials_ends_the_search_and_not_its_path(
    nni, manager, recipe_file, tmp_path, monkeypatch
):
    first = next(c.path for c in reference(recipe_file).candidates)
    problem = {"problem": "CheckpointError: supernet.pt: is damaged."}
    manager.intermediate = {f"job{number}": problem for number in range(4)}
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "silent")
    dispatcher.request(4)
    dispatcher.wait(lambda: False)
    assert "not for its path: CheckpointError: supernet.pt: is damaged." in dispatcher.errors[0]
    assert not tuner._scheduler.journal.outcomes

    # The supernet was mended.
    manager.jobs = {"job0": {**manager.jobs["job0"], "status": "FAILED"}}
    manager.intermediate = {"job0": problem}
    monkeypatch.setenv("NNI_MODE", "resume")
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.next_id = 1
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    assert [c.state.value for c in load_results(tmp_path).candidates] == ["done"] * 18
    assert first in dispatcher.issued


@pytest.fixture
def our_command(monkeypatch):
    """NNI runs ``nni-spos trial``."""
    configuration = {"tuner": {}, "trainingService": {"trialCommand": "nni-spos trial recipe.yml"}}
    option = base64.b64encode(json.dumps(configuration).encode()).decode()
    monkeypatch.setattr(sys, "argv", ["-m", "--exp_params", option])


def resumed(nni, manager, monkeypatch, next_id, fate=lambda path: "scores"):
    """Resume a search whose trials have all ended, with a machine that is mended."""
    monkeypatch.setenv("NNI_MODE", "resume")
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, fate)
    dispatcher.next_id = next_id
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    return dispatcher


@pytest.mark.parametrize("how", ["silence", "a full disk", "little memory"])
def test_trouble_in_the_middle_costs_no_candidate(
    nni, manager, recipe_file, tmp_path, monkeypatch, our_command, how
):
    """The search stops, is mended and resumed, and has the winner of an undisturbed one."""
    said = {
        "silence": None,
        "a full disk": "OSError: [Errno 28] No space left on device",
        "little memory": "there is too little memory for the path 'k3' (MemoryError)",
    }
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    unlucky = []
    dispatcher = FakeDispatcher(
        tuner, manager, lambda path: "silent" if path in unlucky else "scores"
    )

    def begin(parameter_id, path, trial=dispatcher.trial):
        if parameter_id >= 9:
            if said[how]:
                manager.intermediate[f"job{parameter_id}"] = {"problem": said[how]}
            unlucky.append(path)
        trial(parameter_id, path)

    dispatcher.trial = begin
    dispatcher.request(4)
    dispatcher.wait(lambda: dispatcher.errors)
    assert (said[how] or "without a result or a reason") in dispatcher.errors[0]
    assert f"nni-spos resume {tmp_path.name}" in dispatcher.errors[0]
    assert {c.state.value for c in load_results(tmp_path).candidates} == {"done"}
    tuner._on_exit()
    time.sleep(0.1)  # trials that were begun before end
    manager.puts.clear()
    again = resumed(nni, manager, monkeypatch, dispatcher.next_id)
    found, expected = load_results(tmp_path), reference(recipe_file)
    assert [(c.path, c.state) for c in found.candidates] == [
        (c.path, c.state) for c in expected.candidates
    ]
    assert found.best.path == expected.top(1)[0].path
    assert again.issued


def test_a_path_that_fails_for_itself_has_its_reason_in_the_journal(
    nni, manager, recipe_file, tmp_path, our_command
):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(
        tuner, manager, lambda path: "silent" if path["a"] == "k7" else "scores"
    )

    def begin(parameter_id, path, trial=dispatcher.trial):
        if path["a"] == "k7":
            manager.intermediate[f"job{parameter_id}"] = {"failed": "ValueError: no such axis"}
        trial(parameter_id, path)

    dispatcher.trial = begin
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    failed = [c for c in load_results(tmp_path).candidates if c.state.value == "failed"]
    assert failed
    assert {(c.path["a"], c.reason) for c in failed} == {("k7", "ValueError: no such axis")}
    expected = reference(recipe_file, lambda path: path["a"] == "k7").candidates
    assert [c.path for c in load_results(tmp_path).candidates] == [c.path for c in expected]


def test_a_reason_from_before_a_resume_is_in_the_journal(
    nni, manager, recipe_file, tmp_path, monkeypatch, our_command
):
    first = [c.path for c in reference(recipe_file).candidates if c.generation == 0]
    manager.add_job("old0", first[0], "FAILED")
    manager.add_job("old1", first[1], "FAILED")
    manager.add_job("old2", first[2], "FAILED")
    manager.intermediate = {
        "old0": {"failed": "ValueError: no such axis"},
        "old1": {"problem": "OSError: No space left on device"},
    }
    dispatcher = resumed(nni, manager, monkeypatch, 3)
    assert first[0] not in dispatcher.issued
    assert first[1] in dispatcher.issued, "the disk has room again"
    assert first[2] in dispatcher.issued, "nobody knows why it ended"
    reasons = [c.reason for c in load_results(tmp_path).candidates[:3]]
    assert reasons == ["ValueError: no such axis", "", ""]


@pytest.mark.parametrize("ends_with", ["a result", "a failure", "a kill"])
def test_a_trial_that_runs_again_is_not_judged_by_its_first_run(
    nni, manager, recipe_file, tmp_path, monkeypatch, our_command, ends_with
):
    first = [c.path for c in reference(recipe_file).candidates if c.generation == 0]
    manager.add_job("old0", first[0], "RUNNING")
    before = [{"problem": "OSError: No space left on device"}, {"again": True}]
    manager.intermediate = {"old0": before}
    monkeypatch.setenv("NNI_MODE", "resume")
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.next_id = 1
    dispatcher.request(3)
    value = {"default": score(first[0]), "path": first[0]}
    if ends_with == "a result":
        tuner.import_data([{"parameter": first[0], "value": value}])
    if ends_with == "a failure":
        manager.intermediate = {"old0": [*before, {"failed": "ValueError: no such axis"}]}
    status = {"a result": "SUCCEEDED", "a failure": "FAILED", "a kill": "USER_CANCELED"}
    manager.jobs["old0"]["status"] = status[ends_with]
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    states = {SPACE.key(c.path): c.state.value for c in load_results(tmp_path).candidates}
    expected = "failed" if ends_with == "a failure" else "done"
    assert states[SPACE.key(first[0])] == expected
    assert (first[0] in dispatcher.issued) == (ends_with == "a kill")


@pytest.mark.parametrize("command", ["ours", "theirs"])
def test_trials_of_a_path_that_are_always_killed(nni, manager, tmp_path, request, command):
    recipe_file = write_recipe(tmp_path)
    if command == "ours":
        request.getfixturevalue("our_command")
    first = next(c.path for c in reference(recipe_file).candidates)
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")

    def begin(parameter_id, path, trial=dispatcher.trial):
        if path != first:
            return trial(parameter_id, path)
        with dispatcher.lock:
            manager.jobs[f"job{parameter_id}"]["status"] = "USER_CANCELED"
            dispatcher.running -= 1
        tuner.trial_end(parameter_id, False)
        dispatcher.request(1)

    dispatcher.trial = begin
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.issued.count(first) == 3
    if command == "ours":
        assert "was killed, as 2 before it" in dispatcher.errors[0]
        assert first not in [c.path for c in load_results(tmp_path).candidates]
    else:
        assert dispatcher.errors == []
        reason = load_results(tmp_path).candidates[0].reason
        assert reason.startswith("the trial was killed 3 times (see trial.stderr of trial job")


def test_a_busy_manager_fails_no_path(
    nni, manager, recipe_file, tmp_path, monkeypatch, our_command
):
    """What a trial said is asked for again until it is known."""
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(
        tuner, manager, lambda path: "silent" if path["a"] == "k7" else "scores"
    )
    refused, real = [], TrialEnds.reason

    def reason(self, job):
        if refused.count(job.id) < 2:
            refused.append(job.id)
            raise ExperimentError("the NNI manager refused GET /metric-data: 500.")
        return real(self, job)

    monkeypatch.setattr(TrialEnds, "reason", reason)
    manager.intermediate = {f"job{n}": {"failed": "ValueError: no such axis"} for n in range(100)}
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    reasons = {c.reason for c in load_results(tmp_path).candidates if c.path["a"] == "k7"}
    assert reasons == {"ValueError: no such axis"}
    assert len(refused) >= 2


def test_trials_of_an_earlier_run_may_have_the_same_numbers(nni, manager, recipe_file, tmp_path):
    first = [c.path for c in reference(recipe_file).candidates if c.generation == 0]
    manager.add_job("old0", first[1], "SUCCEEDED", metrics={"default": 99.0, "path": first[1]})
    for name in ("old1", "old2"):
        manager.add_job(name, first[2], "RUNNING")
    tuner = nni(num_generations=1)
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(
        tuner, manager, lambda path: "silent" if path == first[0] else "scores"
    )
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    lost, *others = load_results(tmp_path).candidates
    assert lost.path == first[0]
    assert lost.state.value == "failed"
    assert [c.metrics["top1"] for c in others] == [score(c.path) for c in others]


def test_a_result_that_did_not_arrive_is_taken_from_the_records(
    nni, manager, recipe_file, tmp_path
):
    tuner = nni(num_generations=1)
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")

    def lost(parameter_id, value, result=dispatcher.result):
        if parameter_id != 2:
            return result(parameter_id, value)
        packed = json.dumps(json.dumps(value))
        manager.jobs["job2"]["finalMetricData"] = [{"data": packed}]

    dispatcher.result = lost
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert {c.state.value for c in load_results(tmp_path).candidates} == {"done"}


def test_all_trials_of_a_users_command_failing_says_what_to_do(nni, manager, recipe_file):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "silent")
    dispatcher.request(4)
    dispatcher.wait(lambda: False)
    assert "all 6 candidates failed" in dispatcher.errors[0]
    assert dispatcher.errors[0].count("a call of report is missing") == 1
    assert "(see trial.stderr of trial job" in dispatcher.errors[0]


def test_notes_of_trials_are_beside_the_journal(nni, manager, recipe_file, tmp_path):
    tuner = nni(num_generations=1)
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.reported = {"notes": ["it is noisy", "it\nis slow", 5, "it is noisy"]}
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    assert read_run_record(search_of_experiment(tmp_path)).notes == ("it is noisy", "it is slow")
    assert all(set(c.metrics) == {"top1"} for c in load_results(tmp_path).candidates)


@pytest.mark.parametrize("notes", ["text", 5, None, {"a": 1}, [[1]]])
def test_notes_that_are_none(nni, manager, recipe_file, tmp_path, notes):
    tuner = nni(num_generations=1)
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.reported = {"notes": notes}
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    assert read_run_record(search_of_experiment(tmp_path)).notes == ()


def test_resume_adopts_running_trials_and_recalls_the_rest(
    nni, manager, recipe_file, tmp_path, monkeypatch
):
    first = [c.path for c in reference(recipe_file).candidates if c.generation == 0]
    done = {"default": score(first[0]), "path": first[0]}
    manager.add_job("old0", first[0], "SUCCEEDED", metrics=done)
    manager.add_job("old1", first[1], "RUNNING")
    manager.add_job("old2", first[2], "ADD_RESUMED")  # soon it is running
    monkeypatch.setenv("NNI_MODE", "resume")
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    # NNI tells all that it has, under the wrong parameters.
    tuner.import_data([{"parameter": first[4], "value": done, "trialJobId": "old0"}])
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    # One of the adopted reports through import_data, the other ends without a result.
    value = {"default": score(first[1]), "path": first[1]}
    tuner.import_data([{"parameter": first[2], "value": value}])
    manager.jobs["old1"]["status"] = manager.jobs["old2"]["status"] = "SUCCEEDED"
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    issued = [SPACE.key(path) for path in dispatcher.issued]
    assert len(issued) == len(set(issued)) == 18 - 3
    assert not {SPACE.key(path) for path in first[:3]} & set(issued)
    expected = reference(recipe_file, lambda path: path == first[2]).candidates
    found = load_results(tmp_path).candidates
    assert [(c.path, c.state) for c in found] == [(c.path, c.state) for c in expected]
    assert manager.puts[0][1]["params"]["maxTrialNumber"] == 18


def test_a_trial_that_nni_forgot_is_handed_out_again(
    nni, manager, recipe_file, tmp_path, monkeypatch
):
    """The manager was killed again before it ran the trial: nothing happens to it any more."""
    first = [c.path for c in reference(recipe_file).candidates if c.generation == 0]
    manager.add_job("old0", first[0], "ADD_RESUMED")
    manager.add_job("old1", first[1], "RUNNING")
    monkeypatch.setenv("NNI_MODE", "resume")
    monkeypatch.setattr(EvolutionTuner, "PATIENCE", 0.5)
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    dispatcher.wait(lambda: SPACE.key(first[0]) in map(SPACE.key, dispatcher.issued))
    value = {"default": score(first[1]), "path": first[1]}
    tuner.receive_trial_result(77, "", value)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    issued = Counter(map(SPACE.key, dispatcher.issued))
    assert issued[SPACE.key(first[0])] == 1
    assert issued[SPACE.key(first[1])] == 0, "it runs, however long that takes"
    paths = [(c.path, c.state.value) for c in load_results(tmp_path).candidates]
    assert paths == [(c.path, "done") for c in reference(recipe_file).candidates]


def test_a_second_tuner_goes_on_from_the_journal(nni, manager, recipe_file, tmp_path):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(2)
    dispatcher.wait(lambda: len(load_results(tmp_path).candidates) >= 4)
    tuner._on_exit()
    with tuner._lock:
        tuner._failure, tuner._failure_reported = "stopped", True  # deaf from here on
        before = {SPACE.key(c.path) for c in load_results(tmp_path).candidates}
    dispatcher.wait(lambda: dispatcher.running == 0)
    manager.jobs.clear()
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(2)
    dispatcher.wait(lambda: manager.puts)
    assert before.isdisjoint(map(SPACE.key, dispatcher.issued))
    paths = [c.path for c in load_results(tmp_path).candidates]
    assert paths == [c.path for c in reference(recipe_file).candidates]


@pytest.mark.parametrize(
    ("class_args", "message"),
    [
        ({"num_generation": 3}, "did you mean 'num_generations'"),
        ({"population_size": 0}, "population_size: got 0; must be a whole number > 0"),
        ({"recipe": "missing.yml"}, "missing.yml: no such file"),
        ({"recipe": None}, "the key 'recipe' must name a file"),
        ({"constraints": ["flops >= 99"]}, "no path meets 'flops >= 99'"),
    ],
)
def test_wrong_arguments_are_reported_at_the_first_request(
    nni, manager, recipe_file, class_args, message
):
    tuner = nni(**class_args)  # NNI would hide an exception here
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    tuner.trial_end(0, True)
    assert len(dispatcher.errors) == 1
    assert message in dispatcher.errors[0]
    assert "Traceback" in dispatcher.errors[0]


def test_right_arguments_change_the_search(nni, recipe_file):
    tuner = nni(num_generations=7, constraints=["flops <= 4"])
    assert tuner._failure is None
    assert tuner.recipe.search.num_generations == 7
    assert str(tuner.recipe.search.constraints[0]) == "flops <= 4"
    assert tuner.recipe.search.population_size == 6


@pytest.mark.parametrize(
    "space", [SPACE.to_search_space(), {"x": {"_type": "choice", "_value": [1]}}]
)
def test_a_second_search_space_is_refused_and_the_search_goes_on(
    nni, manager, recipe_file, tmp_path, caplog, space
):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.request(4)
    tuner.update_search_space(space)
    dispatcher.wait(lambda: manager.puts)
    assert not dispatcher.errors
    assert "search space of a running search cannot be changed" in caplog.text
    found = [candidate.path for candidate in load_results(tmp_path).candidates]
    assert found == [candidate.path for candidate in reference(recipe_file).candidates]


def test_an_exception_in_a_callback_is_reported(nni, manager, recipe_file):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    dispatcher = FakeDispatcher(tuner, manager, lambda path: "scores")
    dispatcher.concurrency = 0

    def append(candidate):
        raise OSError("disk full")

    tuner._scheduler.journal.append = append
    dispatcher.request(1)
    dispatcher.wait(lambda: False)
    assert "disk full" in dispatcher.errors[0]
    assert "in append" in dispatcher.errors[0]


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Trials run on other machines; the experiment has a folder for its logs."""
    configuration = {"tuner": {}, "trainingService": {"platform": "remote"}}
    option = base64.b64encode(json.dumps(configuration).encode()).decode()
    monkeypatch.setattr(sys, "argv", ["-m", "--exp_params", option])
    (tmp_path / "log").mkdir()


def test_trials_elsewhere_that_read_their_records(nni, manager, elsewhere, tmp_path):
    recipe_file = write_recipe(tmp_path)
    checkpoint = load_recipe(recipe_file).checkpoint
    write_weights(recipe_file, 1.0)
    weights = checkpoint.read_bytes()
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    assert (tmp_path / "log" / "supernet.pt").read_bytes() == weights
    dispatcher = FakeDispatcher(tuner, manager, fate_by_path)
    dispatcher.request(4)
    dispatcher.wait(lambda: manager.puts)
    assert dispatcher.errors == []
    assert len(load_results(tmp_path).candidates) == 18


@pytest.mark.parametrize("with_path", [True, False])
def test_a_trial_elsewhere_with_the_path_of_another(nni, manager, elsewhere, tmp_path, with_path):
    write_recipe(tmp_path)
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    sent, errors = {}, []

    class Channel:
        def report_error(self, text):
            errors.append(text)

        def send(self, parameter_id, path):
            sent[parameter_id] = path

    tuner.generate_multiple_parameters([0, 1], st_callback=Channel().send)
    # NNI's queue: each trial has the other's path and parameter id.
    manager.add_job("job0", sent[0], parameter_id=0)
    manager.add_job("job1", sent[1], parameter_id=1)
    value = {"default": 1.0, "path": sent[1]} if with_path else 1.0
    tuner.receive_trial_result(1, "", value, trial_job_id="job0")
    (error,) = errors
    evaluated, recorded = (" ".join(map(str, sent[i].values())) for i in (1, 0))
    assert f"trial job0 evaluated the path '{evaluated}'" in error
    assert f"NNI's record of it has '{recorded}' (a, b, ratio)" in error
    assert load_results(tmp_path).candidates == []


def test_a_trial_here_with_the_path_of_another(nni, manager, tmp_path):
    write_recipe(tmp_path)
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    sent = {}
    tuner.generate_multiple_parameters([0, 1], st_callback=sent.__setitem__)
    manager.add_job("job0", sent[0], parameter_id=0)
    tuner.receive_trial_result(1, "", {"default": 1.0, "path": sent[1]}, trial_job_id="job0")
    (candidate,) = load_results(tmp_path).candidates
    assert candidate.path == sent[1]


@pytest.mark.slow
def test_importing_the_tuner_is_light():
    """NNI gives a tuner ten seconds to connect."""
    code = "import sys, nni_spos.experiment.tuner; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_ended_trials_are_read_twice_at_most(nni, manager, recipe_file, monkeypatch):
    tuner = nni()
    tuner.update_search_space(SPACE.to_search_space())
    tuner._on_exit()  # the test looks itself
    sent = []
    tuner.generate_multiple_parameters([0], st_callback=lambda number, path: sent.append(path))
    tuner._scheduler.request([1] * 9)  # they wait, so the manager is asked
    for number, path in enumerate(SPACE.decode(SPACE.enumerate())):
        manager.add_job(f"job{number}", path, "SUCCEEDED" if path not in sent else "RUNNING")
    read = []
    restore = tuner_module.restore_numbers
    monkeypatch.setattr(tuner_module, "restore_numbers", lambda *x: read.append(x) or restore(*x))
    counts = []
    for _ in range(4):
        tuner._scheduler._queue.clear()
        tuner._poll()
        counts.append(len(read))
    assert counts[0] == 35
    assert counts[-1] <= 2 * 35
    assert counts[2] == counts[3]


def test_looking_at_many_trials_takes_a_tenth_of_the_time(nni, manager, recipe_file, monkeypatch):
    monkeypatch.setattr(EvolutionTuner, "POLL", 0.0)
    looks = []
    monkeypatch.setattr(EvolutionTuner, "_poll", lambda self: looks.append(1) or time.sleep(0.15))
    nni().update_search_space(SPACE.to_search_space())
    time.sleep(1.2)
    assert 1 <= len(looks) <= 2
