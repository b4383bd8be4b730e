"""Paths that cannot be among the best are dropped early; the best are scored on all images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import yaml

from nni_spos.data import open_data
from nni_spos.errors import RecipeError
from nni_spos.path import PathSpace
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring import evaluation as scoring
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths
from nni_spos.scoring.prefix_tree import PrefixTree
from nni_spos.scoring.racing import ERROR, Race
from nni_spos.search.score_cache import ScoreCache
from nni_spos.search.scorer import NUM_IMAGES, PathScorer
from nni_spos.spaces import Form, build_space
from nni_spos.supernet import SinglePathOneShot
from nni_spos.tasks.classification import Classification

NUM_IMAGES_IN_ALL = 1024
BATCH = 32
SETTINGS = EvaluationSettings(recalibrate=False, batch_size=20, precision="32-true")


def run(race, shares, generator, common=0.6):
    """Race paths that get a share of the images right, mostly the same ones."""
    difficulty = generator.random(NUM_IMAGES_IN_ALL)
    own = generator.random((len(shares), NUM_IMAGES_IN_ALL))
    shared = generator.random(NUM_IMAGES_IN_ALL) < common
    right = np.where(shared, difficulty, own) < np.array(shares)[:, None]
    heat = race.start(len(shares), NUM_IMAGES_IN_ALL)
    seen, targets = 0, torch.ones(BATCH, dtype=torch.long)
    for number in heat.rounds(NUM_IMAGES_IN_ALL // BATCH):
        for _ in range(number):
            for path in heat.left:
                part = torch.tensor(right[path, seen : seen + BATCH])
                heat.add(path, torch.stack([~part, part], dim=1).float(), targets)
            seen += BATCH
        heat.drop()
        if not heat.left:
            break
    return heat, right.mean(axis=1) * 100


def test_the_best_are_never_dropped():
    wrong, scored = 0, []
    for seed in range(15):
        generator = np.random.default_rng(seed)
        race = Race(3, "top1", Classification())
        heat, scores = run(race, generator.uniform(0.5, 0.8, 30), generator)
        best = np.argsort(-scores, kind="stable")[:3]
        worst = np.sort(scores)[-3]
        wrong += any(scores[i] > worst and i not in heat.left for i in best)
        scored.append(heat._num_seen.sum() / heat._values.size)
    assert wrong / 15 <= 3 * ERROR
    assert np.mean(scored) < 0.6


def test_a_leader_of_before_counts():
    generator = np.random.default_rng(0)
    race = Race(1, "top1", Classification())
    heat, _ = run(race, [0.9], generator)
    evaluations = [scoring.Evaluation({"top1": 90.0, "loss": 1.0}, NUM_IMAGES_IN_ALL)]
    assert heat.conclude(evaluations) == evaluations
    assert len(race.leaders) == 1
    heat, _ = run(race, [0.4], np.random.default_rng(0))
    assert heat.left == []
    partial = [scoring.Evaluation({"top1": 33.0, "loss": 2.0}, 64)]
    (estimated,) = heat.conclude(partial)
    leader = race.leaders[0].mean()
    assert 30 < estimated.top1 < 50 < leader
    assert estimated.loss == 2.0
    assert estimated.num_images == 64
    assert race.num_scored < race.num_images == 2 * NUM_IMAGES_IN_ALL


def test_estimates_stay_below_the_best():
    for seed in range(20):
        generator = np.random.default_rng(seed)
        race = Race(2, "top1", Classification())
        heat, _ = run(race, generator.uniform(0.3, 0.8, 12), generator)
        raw = [scoring.Evaluation({"top1": 99.0, "loss": 1.0}, 1) for _ in range(12)]
        found = heat.conclude(raw)
        finished = sorted((float(x.mean()) for x in race.leaders), reverse=True)
        dropped = [x.top1 for i, x in enumerate(found) if i not in heat.left]
        assert dropped
        assert max(dropped) < finished[1]


def test_nobody_is_dropped_where_all_have_a_place():
    race = Race(5, "top1", Classification())
    heat, _ = run(race, [0.1, 0.9, 0.5, 0.5, 0.2], np.random.default_rng(0))
    assert heat.left == [0, 1, 2, 3, 4]


def test_a_tree_without_some_paths():
    space = PathSpace({x: [0, 1, 2] for x in "abc"})
    paths = space.decode(space.enumerate())
    calls = [frozenset(x) for x in "abc"]
    tree = PrefixTree(space, paths, calls)
    dropped = {1, 2, 9, 10, 11, 26}
    rest = tree.without(dropped)
    kept = [path for i, path in enumerate(paths) if i not in dropped]
    anew = PrefixTree(space, kept, calls)
    assert rest.shared == anew.shared
    assert [paths[i] for i in rest.order] == [kept[i] for i in anew.order]
    assert rest.num_nodes == anew.num_nodes < tree.num_nodes
    # What is known of the parts stays known, and is shared as before.
    for place, index in enumerate(rest.order):
        assert rest.nodes[place] == tree.nodes[tree.order.index(index)]


@pytest.fixture(scope="module")
def data():
    settings = DataSettings("digits", image_size=8, augmentation="none", num_validation=200)
    return open_data(settings)


@pytest.fixture(scope="module")
def supernet():
    """Some paths of it are better than others: one block is trained to be the digits' mean."""
    torch.manual_seed(0)
    arguments = {
        "stem_channels": 4,
        "stem_stride": 1,
        "stage_repeats": [1, 1],
        "stage_channels": [8, 16],
        "last_channels": 16,
    }
    shape = {"num_classes": 10, "in_channels": 1, "input_size": 8}
    return SinglePathOneShot().mutate_model(
        build_space("shufflenet", arguments, Form.SUPERNET, **shape)
    )


@pytest.mark.parametrize("objective", ["top1", "log_likelihood"])
@pytest.mark.slow
def test_paths_of_a_supernet(data, supernet, objective):
    space = PathSpace.from_model_space(supernet)
    paths = space.decode(space.enumerate()[:8])
    whole = evaluate_paths(supernet, paths, data, SETTINGS)
    race = Race(2, objective, data.task)
    raced = evaluate_paths(supernet, paths, data, SETTINGS, race=race)
    figure = "loss" if objective == "log_likelihood" else "top1"
    for one, other in zip(raced, whole, strict=True):
        if one.num_images == other.num_images:
            assert one.loss == pytest.approx(other.loss, rel=1e-5)
            assert one.top1 == other.top1
        else:
            assert one.figures[figure] != other.figures[figure]
    sign = -1 if figure == "top1" else 1
    order = [sorted(range(8), key=lambda i: sign * x[i].figures[figure]) for x in (raced, whole)]
    assert raced[order[0][0]].figures[figure] == pytest.approx(whole[order[1][0]].figures[figure])
    # One at a time, against the best of these.
    again = [evaluate_path(supernet, path, data, SETTINGS, race=race) for path in paths]
    assert race.num_images == 16 * 200
    kept = [i for i in range(8) if again[i].num_images == 200]
    assert order[1][0] in kept


def test_partial_scores_are_not_kept(data, supernet, tmp_path, monkeypatch):
    space = PathSpace.from_model_space(supernet)
    race = Race(1, "top1", data.task)
    cache = ScoreCache(tmp_path / "scores.jsonl", space)
    scorer = PathScorer(supernet, data, SETTINGS, cache=cache, race=race)
    paths = space.decode(space.enumerate()[:2])
    results = [{"top1": 50.0, "loss": 1.0, NUM_IMAGES: n} for n in (200, 80)]
    monkeypatch.setattr(scorer, "evaluate", lambda paths, progress: results)
    found = scorer.score_many(paths)
    assert [x[NUM_IMAGES] for x in found] == [200, 80]
    assert [cache.get(path) is not None for path in paths] == [True, False]


def test_only_means_over_images_can_be_raced(tmp_path):
    content = {
        "output": "output",
        "space": {"name": "shufflenet_small"},
        "data": {"name": "digits"},
        "supernet": {"epochs": 1},
        "evaluation": {"racing": 10},
        "search": {"objective": "top5"},
    }
    file = tmp_path / "recipe.yml"
    file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(file)
    assert recipe.evaluation.deciding()["racing"] == 10
    plain = dataclasses.replace(recipe.evaluation, racing=None)
    assert "racing" not in plain.deciding()
    content["search"]["objective"] = "own"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(
        RecipeError, match=r"evaluation.racing: 'own' is no mean over images; these"
    ):
        load_recipe(file)
    content |= {"task": "multilabel", "search": {}}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"nor is any other figure of the task"):
        load_recipe(file)
