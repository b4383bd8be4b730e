"""The search in one process: the same as under NNI, resumed wherever it was cut off."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import filelock
import pytest
from small_experiments import SPACE, reference, score, write_recipe
from trained_recipes import write_trained, write_untrained

from nni_spos.cli import main
from nni_spos.errors import (
    CheckpointError,
    EvaluatorError,
    ExperimentError,
    InfeasibleError,
    SearchError,
)
from nni_spos.evolution import State
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import fingerprint
from nni_spos.search.running import run_search
from nni_spos.search.scorer import PathScorer, open_scorer


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file)


class Scorer:
    """Scores without a network; the call number `breaks_at` raises."""

    def __init__(self, breaks_at=None, error=KeyboardInterrupt):
        self.paths: list[dict] = []
        self.breaks_at = breaks_at
        self.error = error

    def __call__(self, path):
        if len(self.paths) == self.breaks_at:
            raise self.error
        self.paths.append(path)
        return {"top1": score(path), "loss": 0.5}


def summary(candidates):
    return [(c.number, c.generation, c.path, c.state, c.costs) for c in candidates]


def test_it_is_the_same_search_as_under_nni(recipe_file, recipe):
    results = run_search(recipe, Scorer(), progress=False)
    expected = reference(recipe_file)
    assert summary(results.candidates) == summary(expected.candidates)
    assert results.best.path == expected.top(1)[0].path
    assert results.best.metrics == {"top1": score(results.best.path), "loss": 0.5}
    assert results.settings == fingerprint(recipe, SPACE, {})


@pytest.mark.parametrize("breaks_at", [0, 3, 6, 17])
def test_a_search_that_was_cut_off_goes_on(recipe_file, recipe, breaks_at):
    first, second = Scorer(breaks_at), Scorer()
    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, first, progress=False)
    results = run_search(recipe, second, progress=False)
    assert first.paths + second.paths == [c.path for c in reference(recipe_file).candidates]
    assert len(second.paths) == 18 - breaks_at
    assert summary(results.candidates) == summary(reference(recipe_file).candidates)


def test_a_finished_search_is_only_read(recipe):
    run_search(recipe, Scorer(), progress=False)
    again = run_search(recipe, Scorer(breaks_at=0), progress=False)
    assert again.num_done == 18
    assert run_search(recipe, progress=False).best == again.best, "nothing needs a supernet"


def test_another_search_of_the_supernet_has_a_folder_of_its_own(recipe):
    first = run_search(recipe, Scorer(), progress=False)
    other = dataclasses.replace(recipe, search=dataclasses.replace(recipe.search, seed=1))
    with pytest.raises(SearchError):
        run_search(other, Scorer(), progress=False)
    second = run_search(other, Scorer(), progress=False, folder="second")
    assert second.file == recipe.output / "second" / "search.jsonl"
    assert [c.path for c in second.candidates] != [c.path for c in first.candidates]


class Together(Scorer):
    """Scores paths together, if nothing is wrong."""

    def score_many(self, paths, progress):
        return [self(path) for path in paths]


def test_a_path_that_cannot_be_scored_is_excluded(recipe_file, recipe):
    def scorer(path):
        if path["a"] == "k7":
            raise RuntimeError("shapes cannot be\nmultiplied")
        return {"top1": score(path)}

    results = run_search(recipe, scorer, progress=False)
    expected = reference(recipe_file, lambda path: path["a"] == "k7")
    assert summary(results.candidates) == summary(expected.candidates)
    failed = [c for c in results.candidates if c.state is State.FAILED]
    assert failed
    assert {c.reason for c in failed} == {"RuntimeError: shapes cannot be multiplied"}
    assert run_search(recipe, Scorer(breaks_at=0), progress=False).num_failed == len(failed)


@pytest.mark.parametrize("kind", [Scorer, Together])
@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes"),
    ],
    ids=repr,
)
def test_a_path_that_runs_out_of_memory_ends_the_search(recipe_file, recipe, problem, kind):
    class Short(kind):
        is_short = True

        def __call__(self, path):
            if path["a"] == "k7" and self.is_short:
                raise problem
            return super().__call__(path)

    with pytest.raises(EvaluatorError, match=r"too little memory for the path 'k7 .*goes on\.$"):
        run_search(recipe, Short(), progress=False)
    Short.is_short = False
    results = run_search(recipe, Short(), progress=False)
    assert summary(results.candidates) == summary(reference(recipe_file).candidates)


def test_what_runs_out_of_memory_together_only_is_scored_one_by_one(recipe_file, recipe):
    class Large(Scorer):
        def score_many(self, paths, progress):
            raise MemoryError

    results = run_search(recipe, Large(), progress=False)
    assert summary(results.candidates) == summary(reference(recipe_file).candidates)


@pytest.mark.parametrize(
    "problem", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")]
)
def test_trouble_of_files_is_not_tried_path_by_path(recipe_file, recipe, problem):
    scorer = Together(8, problem)
    with pytest.raises(type(problem)):
        run_search(recipe, scorer, progress=False)
    assert len(scorer.paths) == 8
    results = run_search(recipe, Together(), progress=False)
    assert summary(results.candidates) == summary(reference(recipe_file).candidates)


@pytest.mark.slow
def test_the_command_says_in_a_line_that_memory_is_short(tmp_path, monkeypatch, capsys):
    recipe = write_trained(tmp_path)

    def evaluate(self, paths, progress=None):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(PathScorer, "evaluate", evaluate)
        assert main(["search", str(recipe.file)]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "Error" in x]
        assert line.startswith("EvaluatorError: there is too little memory for the path '")
        assert main(["correlate", str(recipe.file), "--retrain", "2"]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "Error" in x]
        assert line.startswith("MemoryError: there is too little memory (RuntimeError: Default")
    assert main(["search", str(recipe.file)]) == 0


def test_a_score_that_is_not_a_number_excludes_the_path(recipe):
    def scorer(path):
        return {"top1": float("nan") if path["a"] == "k7" else score(path)}

    results = run_search(recipe, scorer, progress=False)
    assert {c.path["a"] for c in results.candidates if c.state is State.FAILED} == {"k7"}
    assert "k7" not in {c.path["a"] for c in results.top(99)}


@pytest.mark.parametrize(
    "error", [CheckpointError, ValueError, RuntimeError("CUDA error: device-side assert triggered")]
)
def test_other_errors_end_the_search(recipe, error):
    with pytest.raises(error if isinstance(error, type) else RuntimeError):
        run_search(recipe, Scorer(2, error), progress=False)
    assert run_search(recipe, Scorer(), progress=False).num_failed == 0


def test_results_without_the_objective_end_the_search(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path, objective="top3"))
    with pytest.raises(SearchError, match="'top3' must be a finite number, got None"):
        run_search(recipe, Scorer(), progress=False)


def test_every_candidate_fails(recipe):
    def scorer(path):
        raise RuntimeError("no memory")

    with pytest.raises(SearchError, match=r"all 6 candidates failed.*RuntimeError: no memory"):
        run_search(recipe, scorer, progress=False)


def test_other_settings_are_refused(tmp_path, recipe):
    run_search(recipe, Scorer(), progress=False)
    other = load_recipe(write_recipe(tmp_path, seed=1))
    with pytest.raises(
        SearchError, match=r"search\.jsonl: .*other settings \(search: seed was 0 and"
    ):
        run_search(other, Scorer(), progress=False)
    (recipe.output / "search" / "search.jsonl").rename(tmp_path / "old.jsonl")
    assert run_search(other, Scorer(), progress=False).num_done == 18


def test_an_infeasible_search_leaves_nothing(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path, constraints=["flops <= 0"]))
    with pytest.raises(InfeasibleError, match="no path meets"):
        run_search(recipe, Scorer(), progress=False)
    assert not (recipe.output / "search").exists()


def test_two_searches_in_one_folder_are_refused(recipe):
    folder = recipe.output / "search"
    folder.mkdir(parents=True)
    program = (
        "import sys, filelock\n"
        f"with filelock.FileLock({str(folder / '.lock')!r}): print('held', flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ExperimentError, match="another process is searching here") as caught:
            run_search(recipe, Scorer(), progress=False)
        other.communicate("\n")
    assert "\n" not in str(caught.value)
    assert run_search(recipe, Scorer(), progress=False).num_done == 18


def test_the_lock_is_free_after_an_interrupt(recipe):
    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, Scorer(2), progress=False)
    with filelock.FileLock(recipe.output / "search" / ".lock", timeout=0):
        pass


def test_the_bar_shows_generation_and_best_result(recipe, capsys):
    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, Scorer(7), progress=True)
    capsys.readouterr()
    results = run_search(recipe, Scorer(), progress=True)
    shown = capsys.readouterr().err.split("\r")
    assert "7/18" in shown[1]
    assert "18/18" in shown[-1]
    assert "generation=2" in shown[-1]
    assert f"top-1={results.best.metrics['top1']:.2f} %" in shown[-1]


def test_no_bar_when_it_is_not_wanted(recipe, capsys):
    run_search(recipe, Scorer(), progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_supernet_of_the_recipe_scores(tmp_path):
    recipe = write_trained(tmp_path)
    results = run_search(recipe, progress=False)
    assert results.num_done == 8
    scorer = open_scorer(recipe)
    assert scorer(results.best.path) == results.best.metrics
    assert set(results.best.costs) == {"flops", "params"}


def test_without_a_supernet_the_error_says_what_to_do(tmp_path):
    recipe = write_untrained(tmp_path)
    with pytest.raises(CheckpointError, match="nni-spos train RECIPE"):
        run_search(recipe, progress=False)
