import dataclasses
import json
from pathlib import Path as FilePath

import pytest
from small_experiments import SPACE, reference, score, write_recipe

from nni_spos.cli import main
from nni_spos.constraint import Constraint
from nni_spos.errors import ExperimentError
from nni_spos.evolution import Candidate, Journal, State
from nni_spos.path import load_path
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import fingerprint
from nni_spos.search.results import Results, load_results
from nni_spos.search.running import run_search
from nni_spos.tasks.segmentation import Segmentation


@pytest.fixture
def search(recipe_file):
    return reference(recipe_file, lambda path: path["a"] == "k7")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "nni-experiments").mkdir(parents=True)
    return tmp_path / "home" / "nni-experiments"


@pytest.fixture
def write(recipe_file, search):
    """Write the journal of the search, in an order in which trials might have ended."""

    def write(folder, count=99):
        journal = Journal(folder / "search.jsonl", fingerprint(load_recipe(recipe_file), SPACE, {}))
        for candidate in search.candidates[::-1][:count]:
            journal.append(candidate)
        return journal.file

    return write


def test_results_of_a_folder(tmp_path, write, search):
    write(tmp_path / "run")
    results = load_results(tmp_path / "run")
    assert [c.path for c in results.candidates] == [c.path for c in search.candidates]
    assert results.num_failed == sum(c.state is State.FAILED for c in search.candidates) > 0
    assert results.num_done == 18 - results.num_failed
    assert results.best.path == search.top(1)[0].path
    assert [c.path for c in results.top(5)] == [c.path for c in search.top(5)]
    results.save_best(tmp_path / "best.json")
    assert load_path(tmp_path / "best.json", SPACE) == search.top(1)[0].path


def test_the_table_has_results_costs_and_path(tmp_path, write):
    write(tmp_path)
    table = load_results(tmp_path).format_table(3).splitlines()
    header = "rank top-1 (%) flops generation path (a .. ratio)"
    assert table[0].split() == header.split()
    assert len(table) == 4
    best = load_results(tmp_path).best
    rank, top1, flops, generation, *path = table[1].split()
    assert (rank, float(top1)) == ("1", score(best.path))
    assert int(flops) == sum(SPACE.key(best.path)) + 1
    assert int(generation) == best.generation
    assert path == [str(choice) for choice in best.path.values()]


def results_of(task, objective, own_task=None):
    metrics = [{objective: 12.345678, "loss": 0.1}, {objective: 7.0, "loss": 0.25}]
    candidates = [
        Candidate({"a": "k3"}, i, 0, {"flops": 5}, State.DONE, x) for i, x in enumerate(metrics)
    ]
    settings = {"task": {"name": task}, "search": {"objective": objective}}
    return Results(FilePath("search.jsonl"), settings, candidates, own_task)


@pytest.mark.parametrize(
    ("results", "title", "number"),
    [
        (results_of("segmentation", "miou"), "mIoU (%)", "12.35"),
        (results_of("regression", "r2"), "R2", "12.3457"),
        (results_of("mine:Own", "gain"), "gain", "12.35"),
        (results_of("mine:Own", "miou", Segmentation()), "mIoU (%)", "12.35"),
    ],
)
def test_titles_and_digits_are_those_of_the_task(results, title, number):
    header, best, _ = results.format_table().splitlines()
    assert f" {title} " in header
    assert best.split()[1] == number


def test_the_front_is_shown(tmp_path, capsys):
    recipe = load_recipe(write_recipe(tmp_path, algorithm="nsga2"))
    results = run_search(recipe, lambda path: {"top1": score(path)}, progress=False)
    costs = {c.number: (c.costs["flops"], c.metrics["top1"]) for c in results.candidates}
    expected = [
        number
        for number, (flops, top1) in sorted(costs.items(), key=lambda item: item[1])
        if not any(
            (cost, -other) != (flops, -top1) and cost <= flops and other >= top1
            for cost, other in costs.values()
        )
    ]
    assert [c.number for c in results.front()] == expected
    assert 1 < len(expected) < 18
    heading, header, *rows = results.format_front().splitlines()
    assert heading == f"front of top-1 against flops, {len(expected)} candidates:"
    assert header.split()[:4] == ["rank", "top-1", "(%)", "flops"]
    assert [int(row.split()[2]) for row in rows] == [costs[n][0] for n in expected]
    assert main(["results", str(results.file.parent)]) == 0
    output = capsys.readouterr().out
    assert output == f"{results.format_table()}\n\n{results.format_front()}\n"


def test_other_searches_have_no_front(tmp_path, write, capsys):
    write(tmp_path)
    results = load_results(tmp_path)
    assert (results.front(), results.format_front()) == ([], "")
    assert main(["results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        f"{results.format_table()}\n\n{results.num_failed} candidates failed:\n  planned\n"
    )


def test_why_candidates_failed_is_shown_once(tmp_path, write):
    results = load_results(write(tmp_path).parent)
    failed = [c for c in results.candidates if c.state is State.FAILED]
    for number, candidate in enumerate(failed):
        candidate.reason = f"the trial failed; its last words: no \x1b memory (see /{number}/log)"
    assert results.format_failures().splitlines() == [
        f"{len(failed)} candidates failed:",
        "  the trial failed; its last words: no \\x1b memory (see /0/log)",
    ]
    done = [c for c in results.candidates if c.state is State.DONE]
    assert dataclasses.replace(results, candidates=done).format_failures() == ""
    assert dataclasses.replace(results, candidates=failed[:1]).format_failures().startswith("1 can")


def test_the_best_within_a_limit(tmp_path, write, search, capsys):
    folder = str(write(tmp_path / "run").parent)
    best = max(
        (c for c in search.candidates if c.state is State.DONE and 3 <= c.costs["flops"] <= 4),
        key=lambda c: c.metrics["top1"],
    )
    assert best.path != search.top(1)[0].path
    file = tmp_path / "best.json"
    limits = ["--limit", "flops <= 4", "--limit", "flops >= 3"]
    assert main(["results", folder, *limits, "--output", str(file)]) == 0
    assert load_path(file, SPACE) == best.path
    results = load_results(folder).within([Constraint.parse("flops <= 6")])
    cheap = [c for c in search.candidates if c.costs["flops"] <= 6]
    assert [c.number for c in results.candidates] == [c.number for c in cheap]
    assert 0 < results.num_failed == sum(c.state is State.FAILED for c in cheap)
    capsys.readouterr()
    assert main(["results", folder, "--limit", "flop <= 4"]) == 2
    assert "unknown metric 'flop'; did you mean 'flops'? Metrics: flops." in capsys.readouterr().err
    assert main(["results", folder, "--limit", "flops <= 0"]) == 2
    assert "no finished candidate meets 'flops <= 0'." in capsys.readouterr().err


def test_an_experiment_is_found_by_its_id(tmp_path, home, write):
    write(tmp_path / "elsewhere" / "aBcDe" / "checkpoint")
    write(home / "fGhIj" / "checkpoint")
    manifest = {"aBcDe": {"logDir": str(tmp_path / "elsewhere"), "status": "STOPPED"}}
    (home / ".experiment").write_text(json.dumps(manifest))
    for name in ("aBcDe", "fGhIj", home / "fGhIj"):
        assert load_results(name).num_done > 0


def test_a_journal_that_is_being_written(tmp_path, write):
    file = write(tmp_path, count=4)
    with file.open("ab") as stream:
        stream.write(b'{"number": 7, "gen')
    size = file.stat().st_size
    assert len(load_results(tmp_path).candidates) == 4
    assert file.stat().st_size == size, "reading changes nothing"


def test_nothing_finished_yet(tmp_path, write):
    write(tmp_path, count=0)
    results = load_results(tmp_path)
    assert results.format_table() == "no candidate is finished yet"
    with pytest.raises(ExperimentError, match="no candidate is finished yet"):
        results.save_best(tmp_path / "best.json")
    assert not (tmp_path / "best.json").exists()


def test_a_recipe_is_not_the_name_of_a_search(tmp_path, home):
    (tmp_path / "recipe.yml").touch()
    with pytest.raises(ExperimentError, match=r"recipe\.yml: is a file\. Give the ID of an NNI"):
        load_results(tmp_path / "recipe.yml")


def test_errors(tmp_path, home, write):
    with pytest.raises(ExperimentError, match="'xyz' is neither a folder nor an NNI experiment"):
        load_results("xyz")
    (home / ".experiment").write_text("damaged")
    with pytest.raises(ExperimentError, match="'xyz' is neither"):
        load_results("xyz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExperimentError, match="has no results yet"):
        load_results(tmp_path / "empty")
    (tmp_path / "empty" / "search.jsonl").write_text("[]\n")
    with pytest.raises(ExperimentError, match="not a search journal"):
        load_results(tmp_path / "empty")
