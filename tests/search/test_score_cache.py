"""A search does not pay for what another one with the same supernet has scored."""

import dataclasses
import shutil

import pytest
from trained_recipes import write_trained

from nni_spos.errors import PathError
from nni_spos.files.digests import digest_weights
from nni_spos.path import PathSpace
from nni_spos.search import scorer as scoring
from nni_spos.search.running import run_search
from nni_spos.search.score_cache import ScoreCache, open_score_cache

SPACE = PathSpace({"layer": ["k3", "k5"], "width": [16, 32]})
PATH = {"layer": "k3", "width": 32}
RESULTS = {"top1": 81.25, "top5": 99.0, "loss": 0.5}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "scores" / "key.jsonl"


def test_results_come_back_as_they_went_in(file):
    cache = ScoreCache(file, SPACE)
    assert cache.get(PATH) is None
    cache.put(PATH, RESULTS)
    assert cache.get(dict(reversed(PATH.items()))) == RESULTS
    assert cache.get({**PATH, "width": 16}) is None
    assert ScoreCache(file, SPACE).get(PATH) == RESULTS


def test_results_of_another_process_are_seen(file):
    one, other = ScoreCache(file, SPACE), ScoreCache(file, SPACE)
    assert one.get(PATH) is other.get(PATH) is None
    one.put(PATH, RESULTS)
    assert other.get(PATH) == RESULTS


def test_a_returned_result_can_be_changed(file):
    cache = ScoreCache(file, SPACE)
    cache.put(PATH, RESULTS)
    cache.get(PATH)["top1"] = 0.0
    assert cache.get(PATH) == RESULTS


@pytest.mark.parametrize(
    "damage",
    [
        b'{"path": {"layer": "k3", "wid',
        b"\n\xff\xfe\n",
        b"[1, 2]\n",
        b'{"path": {"layer": "k9", "width": 32}, "results": {"top1": 1}}\n',
        b'{"path": {"layer": "k3", "width": 32}, "results": {"top1": "high"}}\n',
        b'{"path": {"layer": "k3", "width": 32}}\n',
    ],
)
def test_a_damaged_line_is_no_result_and_hides_no_other(file, damage):
    ScoreCache(file, SPACE).put(PATH, RESULTS)
    with open(file, "ab") as stream:
        stream.write(damage)
    cache = ScoreCache(file, SPACE)
    assert cache.get(PATH) == RESULTS
    other = {**PATH, "width": 16}
    assert cache.get(other) is None
    cache.put(other, RESULTS)
    assert ScoreCache(file, SPACE).get(other) == RESULTS


def test_a_changed_digit_is_no_result(file):
    cache = ScoreCache(file, SPACE)
    cache.put(PATH, RESULTS)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"81.25", b"91.25"))
    assert ScoreCache(file, SPACE).get(PATH) is None
    file.write_bytes(content)
    assert ScoreCache(file, SPACE).get(PATH) == RESULTS
    # Lines of before there were hashes count.
    file.write_text('{"path": {"layer": "k3", "width": 32}, "results": {"top1": 1}}\n')
    assert ScoreCache(file, SPACE).get(PATH) == {"top1": 1.0}


def test_a_path_of_another_space_is_refused(file):
    with pytest.raises(PathError, match="'k9' is not a choice"):
        ScoreCache(file, SPACE).get({**PATH, "layer": "k9"})


def name_of(recipe, space):
    return open_score_cache(recipe, space, digest_weights(recipe.checkpoint)).file.name


def test_the_key_is_all_that_decides_a_score(tmp_path):
    recipe = write_trained(tmp_path)
    space = PathSpace({"layer_1": ["k3"]})
    name = name_of(recipe, space)
    assert name_of(recipe, space) == name
    evaluation = recipe.evaluation
    same = [
        dataclasses.replace(evaluation, evaluator="inline", worker_idle_s=7, cache=False),
        evaluation,
    ]
    for settings in same:
        assert name_of(dataclasses.replace(recipe, evaluation=settings), space) == name
    workers = dataclasses.replace(recipe.data, workers=3)
    assert name_of(dataclasses.replace(recipe, data=workers), space) == name
    others = [
        {"evaluation": dataclasses.replace(evaluation, seed=5)},
        {"evaluation": dataclasses.replace(evaluation, batch_size=17)},
        {"data": dataclasses.replace(recipe.data, split_seed=5)},
    ]
    names = {name_of(dataclasses.replace(recipe, **change), space) for change in others}
    assert len(names | {name}) == 4
    content = recipe.checkpoint.read_bytes()
    middle = len(content) // 2
    recipe.checkpoint.write_bytes(content[:middle] + bytes(8) + content[middle + 8 :])
    assert name_of(recipe, space) not in names | {name}
    recipe.checkpoint.write_bytes(content)
    assert name_of(recipe, space) == name


@pytest.mark.slow
def test_a_second_search_reuses_the_scores(tmp_path, monkeypatch):
    recipe = write_trained(tmp_path)
    scored = []
    original = scoring.evaluate_paths

    def count(supernet, paths, *rest):
        scored.append(len(paths))
        return original(supernet, paths, *rest)

    monkeypatch.setattr(scoring, "evaluate_paths", count)
    first = run_search(recipe, progress=False)
    assert sum(scored) == len(first.candidates)
    shutil.rmtree(recipe.output / "search")
    del scored[:]
    again = run_search(recipe, progress=False)
    assert sum(scored) == 0
    assert [c.metrics for c in again.candidates] == [c.metrics for c in first.candidates]
    shutil.rmtree(recipe.output / "search")
    run_search(recipe, progress=False, cached=False)
    assert sum(scored) == len(first.candidates)
