"""How a recipe asks for training techniques, and what it is told when that is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from nni_spos.components import declared_keys
from nni_spos.errors import RecipeError
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.registries import TECHNIQUES
from nni_spos.recipe.techniques import technique_keys
from nni_spos.recipe.training_settings import RetrainSettings

CONTENT = {
    "output": "output",
    "space": {"name": "shufflenet_small"},
    "data": {"name": "digits"},
    "supernet": {"epochs": 1},
    "retrain": {"epochs": 1},
}


@pytest.fixture
def load(tmp_path):
    def load(**sections):
        content = {name: {**x, **sections.get(name, {})} if isinstance(x, dict) else x
                   for name, x in CONTENT.items()}  # fmt: skip
        (tmp_path / "recipe.yml").write_text(yaml.safe_dump(content))
        return load_recipe(tmp_path / "recipe.yml")

    return load


def test_keys_stand_beside_those_of_the_section(load, tmp_path):
    recipe = load(
        supernet={"prior": "constrained", "prior_quantiles": [0, 1], "opt": "adamw"},
        retrain={"mixup": 0.2, "cutmix": 1.0, "model_ema": True, "techniques": ["own:Sam"]},
    )
    assert [x.name for x in recipe.supernet.techniques] == ["opt"]
    assert recipe.supernet.arguments == {"prior_quantiles": [0, 1]}
    names = [x.name for x in recipe.retrain.techniques]
    assert names == ["model_ema", "mixing", "own:Sam"]  # in which they act
    mixing = recipe.retrain.techniques[1]
    assert mixing.arguments == {"mixup": 0.2, "cutmix": 1.0}
    assert (mixing.place.folder, mixing.place.space) == (tmp_path, "shufflenet_small")
    assert load().retrain.techniques == ()


def test_settings_that_decide_nothing_leave_a_training_as_it_was(load):
    plain = load()
    for keys in ({"logger": "csv"}, {"opt": "sgd"}, {"mixup": 0.0}, {"model_ema": False}):
        asked = load(supernet=keys, retrain=keys)
        assert asked.retrain.techniques
        assert asked.retrain.deciding() == plain.retrain.deciding()
        assert asked.supernet.deciding() == plain.supernet.deciding()
    on = load(retrain={"aa": "trivial", "techniques": [{"name": "own:Sam", "rho": 1}]})
    found = on.retrain.deciding()["techniques"]
    assert found == {"aa": {"aa": "trivial"}, "own:Sam": {"rho": 1}}


def test_a_teacher_counts_by_its_weights(load, tmp_path):
    from nni_spos.files.tensors import replace_tensors

    def content(value, name="teacher.pt"):
        import torch

        weights = {"a": torch.full((2,), value)}
        replace_tensors(tmp_path / name, {"weights": weights, "cost": {"seconds": value}})
        return load(retrain={"kd": name}).retrain.deciding()["techniques"]["kd"]

    first = content(1.0)
    assert first == content(1.0) != content(2.0)
    assert first == content(1.0, "moved.pt")


@pytest.mark.parametrize(
    ("section", "keys", "words"),
    [
        ("retrain", {"mixpu": 0.1}, "retrain: unknown key 'mixpu'; did you mean 'mixup'?"),
        ("supernet", {"mixpu": 0.1}, "supernet: unknown key 'mixpu'; did you mean 'mixup'?"),
        ("supernet", {"prior_quantils": [0, 1]}, "did you mean 'prior_quantiles'?"),
        ("retrain", {"mixup": -1}, "retrain.mixup: got -1; must be a number >= 0."),
        ("retrain", {"sched": "cosin"}, "retrain.sched: got 'cosin'; must be one of linear, cosi"),
        ("retrain", {"model_ema_decay": 0.9}, "model_ema_decay does nothing without model_ema."),
        ("retrain", {"mixup_prob": 0.9}, "mixup_prob does nothing without mixup or cutmix."),
        ("retrain", {"sched": "cosine", "decay_epochs": 2}, "decay_epochs: is for sched: step."),
        ("retrain", {"logger": "csv", "logger_uri": "x"}, "logger_uri: is for logger: mlflow."),
        ("retrain", {"aa": "rand-m12"}, "aa: got 'rand-m12'; must be rand-m9"),
        ("retrain", {"techniques": "own:Sam"}, "must be a list such as [my_technique:Sam]"),
        ("retrain", {"techniques": ["sam"]}, "unknown technique 'sam'"),
        ("retrain", {"techniques": [{"name": "aa", "aaa": 1}]}, "did you mean 'aa'?"),
        ("retrain", {"techniques": ["own:Sam", {"name": "own:Sam"}]}, "own:Sam is there twice."),
        ("retrain", {"aa": "trivial", "techniques": ["aa"]}, "the technique aa is there twice."),
    ],
)
def test_refusals(load, section, keys, words):
    with pytest.raises(RecipeError) as raised:
        load(**{section: keys})
    text = str(raised.value)
    assert words in text
    assert text.startswith(f"recipe.yml: {section}")
    assert "\n" not in text


def test_what_a_recipe_says_can_be_said_in_python(load):
    settings = RetrainSettings(epochs=1, techniques=[{"name": "aa", "aa": "trivial"}, "own:Sam"])
    recipe = load(retrain={"aa": "trivial", "techniques": ["own:Sam"]})
    assert settings == recipe.retrain
    with pytest.raises(RecipeError, match="unknown technique 'sam'"):
        RetrainSettings(epochs=1, techniques=["sam"])


def test_a_prior_of_the_users_may_have_any_key(load):
    recipe = load(supernet={"prior": "own:Prior", "mixpu": 1, "mixup": 0.2})
    assert recipe.supernet.arguments == {"mixpu": 1}
    assert [x.name for x in recipe.supernet.techniques] == ["mixing"]


def test_every_technique_is_complete():
    sections = {"supernet", "retrain"}
    for name in TECHNIQUES.ours:
        cls = TECHNIQUES.find(name)
        keys = declared_keys(cls)
        assert keys, name
        assert all(key.description for key in keys.values()), name
        assert not any(key.is_required for key in keys.values()), name
        assert not cls.is_on(cls.Settings()), f"{name} is on without having been asked for"
        assert set(cls.sections) <= sections
        assert set(cls.switches()) <= set(keys)
    declared = [key for name in TECHNIQUES.ours for key in declared_keys(TECHNIQUES.find(name))]
    assert len(declared) == len(technique_keys())  # each key is of one technique


def test_reading_a_recipe_with_techniques_imports_no_pytorch(load, tmp_path):
    load(retrain={"opt": "adamw", "mixup": 0.2, "kd": "largest"})
    program = (
        "import sys; from nni_spos.recipe.recipe import load_recipe\n"
        f"load_recipe({str(tmp_path / 'recipe.yml')!r}).retrain.deciding()\n"
        "print([x for x in ('torch', 'nni', 'pytorch_lightning') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
