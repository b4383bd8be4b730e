"""What trials that end without a result say, by the command that they run."""

from __future__ import annotations

import pytest

from nni_spos.errors import ExperimentError, SearchError
from nni_spos.experiment.exchange import reported_error
from nni_spos.experiment.manager import Manager
from nni_spos.experiment.trial_end import NO_REPORT, TrialEnds

PATH = {"a": "k3", "b": "k5", "ratio": 2.0}
FULL = {"problem": "OSError: [Errno 28] No space left on device: 'runs/workers'."}
FAILS = {"failed": "ValueError: no such axis"}
OURS = ["nni-spos trial recipe.yml", "python -m nni_spos.cli trial recipe.yml"]


def write_words(folder, text, job="mine"):
    """Write what a trial said into the file that NNI keeps; return the file."""
    place = folder / "abcd" / "environments" / "local-env" / "trials" / job
    place.mkdir(parents=True, exist_ok=True)
    (place / "trial.stderr").write_bytes(text)
    return place / "trial.stderr"


@pytest.fixture
def ends(manager, tmp_path):
    manager.add_job("mine", PATH, "FAILED")

    def make(command):
        return TrialEnds(Manager(manager.port), tmp_path / "abcd", command)

    return make


@pytest.fixture
def job(manager, ends):
    return Manager(manager.port).trial_job("mine")


@pytest.mark.parametrize("command", [*OURS, "python my_trial.py", ""])
def test_what_a_trial_said_counts_whatever_its_command(ends, manager, job, command):
    manager.intermediate = {"mine": FAILS}
    assert ends(command).reason(job) == "ValueError: no such axis"
    manager.intermediate = {"mine": FULL}
    with pytest.raises(SearchError) as raised:
        ends(command).reason(job)
    assert str(raised.value) == (
        "trial mine, of the path 'k3 k5 2.0', failed, and not for its path: OSError: [Errno 28] No "
        "space left on device: 'runs/workers'. Mend that, then go on with: nni-spos resume abcd"
    )


@pytest.mark.parametrize("command", OURS)
def test_the_silence_of_our_trials_is_trouble(ends, job, command, tmp_path):
    with pytest.raises(SearchError, match=r"without a result or a reason \(see trial.stderr"):
        ends(command).reason(job)
    write_words(tmp_path, b"x" * 10_000 + b"\nRecipeError: not \xff valid.\n\n")
    with pytest.raises(SearchError, match=r"its last words: RecipeError: not . valid\. \(see /"):
        ends(command).reason(job)
    write_words(tmp_path, b"")
    with pytest.raises(SearchError, match="its last words: none"):
        ends(command).reason(job)


@pytest.mark.parametrize("command", ["python my_trial.py", "bash run.sh", ""])
def test_the_silence_of_others_fails_the_path(ends, manager, job, command, tmp_path):
    file = write_words(tmp_path, b"Traceback\n 10%|#  |\rKeyError: 'top\x1b1'\n\n")
    said = f"the trial failed; its last words: KeyError: 'top\\x1b1' (see {file})"
    assert ends(command).reason(job) == said
    manager.intermediate = {"mine": [1.5, "text", {"default": 2.0}]}
    assert ends(command).reason(job) == said


def test_a_command_that_succeeds_without_a_report_is_told_what_is_missing(ends, manager, tmp_path):
    manager.add_job("mine", PATH, "SUCCEEDED")
    job = Manager(manager.port).trial_job("mine")
    reason = ends("python my_trial.py").reason(job)
    assert "a call of report is missing, e.g. nni_spos.experiment.exchange.open_trial()" in reason
    assert reason.endswith(
        "below {} or on the machine where it ran)".format(tmp_path / "abcd" / "environments")
    )
    file = write_words(tmp_path, b"")
    assert (
        ends("python my_trial.py").reason(job) == f"{NO_REPORT}; its last words: none (see {file})"
    )


def test_what_was_said_before_it_was_run_again_is_void(ends, manager, job, tmp_path):
    again = {"again": True}
    silent = f"the trial failed; its last words: none (see {write_words(tmp_path, b'')})"
    for said, expected in [
        ([FULL, again], silent),
        ([FULL, again, FAILS], FAILS["failed"]),
        ([FAILS, again, FULL, again], silent),
        ([{"default": 1.0}, FAILS, 3.0], FAILS["failed"]),
    ]:
        manager.intermediate = {"mine": said}
        assert ends("python my_trial.py").reason(job) == expected
    manager.intermediate = {"mine": [FAILS, again, FULL]}
    found = reported_error(Manager(manager.port), "mine")
    assert found == ("problem", FULL["problem"])


def test_trials_that_are_killed_again_and_again(ends, job, tmp_path):
    file = write_words(tmp_path, b"Killed\n")
    killed = f"the trial was killed 3 times; its last words: Killed (see {file})"
    assert ends("python my_trial.py").reason_of_kills(job, 3) == killed
    with pytest.raises(SearchError, match=r"path 'k3 k5 2.0', was killed, as 2 before it.*resume"):
        ends(OURS[0]).reason_of_kills(job, 3)


def test_when_all_trials_of_a_users_command_fail(ends):
    problem = SearchError("all 6 candidates failed, the search cannot go on.")
    text = str(ends("python my_trial.py").advise(problem))
    assert text.startswith("all 6 candidates failed, the search cannot go on. No trial of the ")
    assert "'python my_trial.py'" in text
    assert "Mend the command" in text
    assert ends(OURS[0]).advise(problem) is problem


def test_a_manager_that_does_not_answer_is_no_reason(ends, manager, job):
    manager.refusals = 1
    with pytest.raises(ExperimentError, match="refused GET"):
        ends("python my_trial.py").reason(job)
