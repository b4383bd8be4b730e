"""Our tasks keep the promises of every task; so does one of a user's, in at most 40 lines."""

import shutil
from pathlib import Path

import pytest

from nni_spos.recipe.registries import TASKS
from nni_spos.testing.tasks import CHECKS, TaskCase

EXAMPLE = Path(__file__).parents[1] / "plugin" / "example_plugin" / "grades.py"

CASES = {
    "classification": {},
    "classification of one rank": {"topk": [2], "class_weights": [1.0, 2.0, 0.5]},
    "multilabel": {"positive_weights": [1.0, 2.0, 0.5]},
    "regression": {"criterion": "huber"},
    "segmentation": {},
    "segmentation with dice": {"dice": 0.5, "class_weights": [1.0, 2.0, 0.5]},
}
"""Title, whose first word is the name of the task, to its keys."""


def test_every_task_is_checked():
    assert {title.split()[0] for title in CASES} == set(TASKS.ours)


@pytest.mark.parametrize("title", CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_of_tasks(title, check):
    check(TaskCase(title.split()[0], **CASES[title]))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_users_task_keeps_it_too(check, tmp_path):
    shutil.copy(EXAMPLE, tmp_path)
    check(TaskCase("grades:Grades", folder=tmp_path))


def test_a_users_task_is_short():
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    code = [x for x in lines if x.strip() and not x.lstrip().startswith(("import ", "from "))]
    assert len(code) <= 40
