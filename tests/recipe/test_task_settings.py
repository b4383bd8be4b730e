"""What a recipe says about its task, and what the rest of the recipe makes of it."""

import pytest
import yaml

from nni_spos.errors import DataError, RecipeError
from nni_spos.recipe.identity import TASK_CODE, Result, describe
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.task import find_task
from nni_spos.tasks.lookup import describe_figures, main_figure, recorded_task

RECIPE = {
    "output": "output",
    "space": {"name": "shufflenet_small"},
    "data": {"name": "digits"},
    "supernet": {"steps": 1},
    "retrain": {"steps": 1},
}
OWN = """
from dataclasses import dataclass
from nni_spos.tasks.base import Figure, Task

@dataclass(frozen=True)
class Own(Task):
    targets = ("class",)
    figures = (Figure("cost", is_better="lower"), Figure("gain"))

    def loss(self, outputs, targets):
        return outputs.mean()

    def tally(self, outputs, targets):
        return outputs.sum(0)

    def conclude(self, sums, num_images):
        return {"cost": sums[0], "gain": sums[1]}
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "own_task.py").write_text(OWN)

    def load(**sections):
        file = tmp_path / "recipe.yml"
        file.write_text(yaml.safe_dump({**RECIPE, **sections}))
        return load_recipe(file)

    return load


def test_without_a_task_a_recipe_is_of_a_classification(load):
    for given in ({}, {"task": None}, {"task": "classification"}):
        recipe = load(**given)
        assert recipe.task.name == "classification"
        assert recipe.search.maximised == "top1"
        names = [x.name for x in find_task(recipe.task).figures]
        assert names == ["top1", "top5"]


@pytest.mark.parametrize(
    ("task", "objective"),
    [
        ({"name": "classification", "topk": [3]}, "top3"),
        ("multilabel", "map"),
        ("regression", "r2"),
        ("segmentation", "miou"),
        ("own_task:Own", "gain"),
    ],
)
def test_a_search_maximises_what_the_task_says(load, task, objective):
    assert load(task=task).search.maximised == objective
    named = load(task=task, search={"objective": "log_likelihood"}).search
    assert named.maximised == "log_likelihood"
    assert describe(Result.SEARCH, load(task=task))["search"]["objective"] == objective


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"task": 5}, "task: must be a name such as classification, or a mapping with the key"),
        ({"task": {"topk": [1]}}, "task: must be a name such as classification, or a mapping"),
        ({"task": "regresion"}, "task: unknown task 'regresion'; did you mean 'regression'?"),
        (
            {"task": {"name": "classification", "topks": [1]}},
            "task: task classification: unknown key 'topks'; did you mean 'topk'?",
        ),
        (
            {"task": {"name": "regression", "criterion": "l2"}},
            "task: task regression.criterion: got 'l2'; must be one of mse, l1, huber.",
        ),
        (
            {"task": {"name": "classification", "topk": [1, 1]}},
            "task: task classification: topk: must name ranks, each once, got [1, 1].",
        ),
        (
            {"task": "regression", "search": {"objective": "mae"}},
            "search: objective: must be something to maximise, got mae. Use r2 or log_likelihood, "
            "which is minus the loss.",
        ),
        (
            {"search": {"objective": "loss"}},
            "search: objective: must be something to maximise, got loss. Use log_likelihood, which "
            "is minus the loss.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(load, sections, message):
    load(task="regression", search={"objective": "r2"})
    with pytest.raises(RecipeError) as caught:
        load(**sections)
    assert str(caught.value).startswith(f"recipe.yml: {message}")
    assert "\n" not in str(caught.value)


def test_an_objective_that_the_task_does_not_have_is_refused(load):
    task = find_task(load().task)
    task.check_objective("top5")
    task.check_objective("speed", is_complete=False)  # a trial of one's own may report it
    with pytest.raises(RecipeError, match="unknown figure 'top3'; did you mean 'top5'"):
        task.check_objective("top3")


def test_a_task_takes_its_kind_of_targets_only():
    from nni_spos.data import dataset_spec
    from nni_spos.recipe.data_settings import DataSettings
    from nni_spos.recipe.task import TaskSettings

    spec = dataset_spec(DataSettings("digits"))
    find_task(TaskSettings("classification")).check_data("classification", spec)
    with pytest.raises(DataError, match="of the kind mask, and the data set digits has class"):
        find_task(TaskSettings("segmentation")).check_data("segmentation", spec)
    weighted = find_task(TaskSettings("classification", {"class_weights": [1.0, 2.0]}))
    with pytest.raises(RecipeError, match="class_weights: got 2, but digits has 10 classes"):
        weighted.check_data("classification", spec)


def test_results_depend_on_the_task_and_on_a_users_code(load, tmp_path):
    kinds = (Result.SEARCH, Result.SCORES, Result.SUPERNET, Result.NETWORK, Result.WORKER)
    for result in kinds:
        before = describe(result, load())
        same = {"name": "classification", "topk": [1, 5]}
        assert describe(result, load(task=same)) == before, result
        other = {"name": "classification", "topk": [1]}
        assert describe(result, load(task=other)) != before, result
        own = describe(result, load(task="own_task:Own"))
        (tmp_path / "own_task.py").write_text(OWN + "CHANGED = 1\n")
        assert describe(result, load(task="own_task:Own"))[TASK_CODE] != own[TASK_CODE], result
        (tmp_path / "own_task.py").write_text(OWN)
    assert describe(Result.COSTS, load(task=other)) == describe(Result.COSTS, load())


def test_results_are_shown_as_their_task_says(load):
    made_for = describe(Result.SCORES, load(task={"name": "classification", "topk": [3, 1]}))
    assert describe_figures(made_for, {"top3": 81.25, "loss": 0.5}) == "top-3 81.25 %, loss 0.5000"
    assert main_figure(made_for, {"loss": 0.5, "top3": 81.25}).full_title == "top-3 accuracy (%)"
    assert recorded_task({"name": "os:system"}) is None
    assert recorded_task({"name": "classification", "unknown": 1}) is None
    assert main_figure({"task": {"name": "own_task:Own"}}, {"gain": 1.0}).name == "gain"
