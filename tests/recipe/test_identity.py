"""Each part of what results depend on is changed in turn: exactly the right ones become stale."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from nni_spos.components import declared_keys
from nni_spos.data import dataset_spec
from nni_spos.errors import CheckpointError
from nni_spos.files.digests import digest_weights
from nni_spos.files.tensors import replace_tensors, save_tensors
from nni_spos.recipe import identity
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.dataset import find_dataset
from nni_spos.recipe.datasets import DATASETS
from nni_spos.recipe.identity import PARTS, PARTS_OF, Result, describe
from nni_spos.recipe.image_digest import EXTENSIONS
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.registries import PRIORS
from nni_spos.recipe.techniques import technique_keys
from nni_spos.recipe.training_settings import RetrainSettings, SupernetSettings
from nni_spos.training import check_finished
from nni_spos.values import changes

CONTENT = {
    "output": "output",
    "space": {"name": "own_model:Space", "width": 8},
    "data": {"name": "image_folder", "root": "images", "image_size": 8},
    "supernet": {
        "epochs": 1,
        "prior": "own_prior:Prior",
        "techniques": ["own_technique:Technique"],
    },
    "search": {"algorithm": "own_search:Search", "patience": 3},
    "metrics": ["own_metric:Energy"],
    "retrain": {
        "epochs": 1,
        "initial_weights": "supernet",
        "techniques": [{"name": "own_late:Technique", "rho": 1}],
    },
}
OWN = ("prior", "search", "metric", "technique", "late")
ALL = set(Result)
SCORED = {Result.SEARCH, Result.SCORES, Result.WORKER, Result.MACHINES}
PRICED = {Result.COSTS, Result.SEARCH, Result.MACHINES, Result.STEP}
RETRAINED = {Result.STANDALONE, Result.BASELINE, Result.NETWORK}
NO_WEIGHTS = {Result.COSTS, Result.WORKER, Result.MACHINES, Result.SUPERNET, Result.STEP}


@pytest.fixture
def recipe_file(tmp_path):
    """A recipe with a space of the user's, images in folders, and weights."""
    for part in ("train", "val"):
        for i, name in enumerate(("cat", "dog")):
            for number in range(2):
                pixels = np.random.default_rng([i, number]).integers(0, 256, (8, 8, 3), np.uint8)
                write_image(tmp_path / "images" / part / name / f"{number}.bmp", pixels)
    (tmp_path / "own_model.py").write_text("import own_block  # the only one")
    (tmp_path / "own_block.py").write_text("value = 1")
    for name in OWN:
        (tmp_path / f"own_{name}.py").write_text(f"{name} = 1")
    file = write(tmp_path)
    save_weights(load_recipe(file).checkpoint, 1.0, seconds=3)
    return file


def write(folder: Path, **sections) -> Path:
    content = {key: CONTENT.get(key) for key in {**CONTENT, **sections}}
    for name, section in sections.items():
        content[name] = (
            {**(content[name] or {}), **section} if isinstance(section, dict) else section
        )
    (folder / "recipe.yml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yml"


def write_image(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def save_weights(file, value, seconds):
    replace_tensors(file, {"weights": {"a": torch.full((3,), value)}, "cost": {"seconds": seconds}})


def rewritten(file, old=None, new=None):
    """Write a file as another one of the same name, size and time."""
    text = file.read_bytes()
    file.write_bytes(text[:-1] + bytes([text[-1] ^ 1]) if old is None else text.replace(old, new))


def change_settings(section, **values):
    return lambda folder: write(folder, **{section: values})


def change_default(folder):
    write(folder, data={"augmentation": "imagenet", "crop_pct": 0.875, "num_classes": 2})


def move_images(folder):
    shutil.copytree(folder / "images", folder / "moved", copy_function=shutil.copyfile)
    shutil.rmtree(folder / "images")
    write(folder, data={"root": "moved"})


def rename_output(folder):
    (folder / "output").rename(folder / "other")
    write(folder, output="other")


def move_everything(folder):
    own = [f"own_{x}.py" for x in ("model", "block", *OWN)]
    for name in ("images", *own, "output", "recipe.yml"):
        (folder / "elsewhere").mkdir(exist_ok=True)
        shutil.move(folder / name, folder / "elsewhere" / name)
    return folder / "elsewhere" / "recipe.yml"


def change_metrics(*metrics):
    return lambda folder: write(folder, metrics=list(metrics))


def list_metric(folder):
    write(folder, metrics=[{"name": "own_metric:Energy"}])


def change_metric(folder):
    rewritten(folder / "own_metric.py", b"1", b"2")


def add_class(folder):
    for part in ("train", "val"):
        shutil.copytree(folder / "images" / part / "cat", folder / "images" / part / "eel")


NOTHING = [
    ("held_mb", change_settings("data", held_mb=1)),
    ("workers", change_settings("data", workers=2)),
    ("a default that is written down", change_default),
    ("worker", change_settings("evaluation", evaluator="inline", worker_idle_s=5, cache=False)),
    ("devices", change_settings("supernet", devices=2, keep_checkpoints=3)),
    ("a moved output folder", rename_output),
    ("a comment", lambda x: rewritten(x / "own_model.py", b"# the", b"# The")),
    ("an own metric that is listed in another way", list_metric),
    ("one of our metrics", change_metrics("own_metric:Energy", "flops")),
    ("another module", lambda x: (x / "own_other.py").write_text("value = 3")),
    ("a file that is no image", lambda x: (x / "images/train/notes.txt").write_text("x")),
    ("techniques that are off", change_settings("retrain", opt="sgd", mixup=0.0, model_ema=False)),
    ("another logger", change_settings("supernet", logger="csv")),
    ("the same weights", lambda x: save_weights(x / "output/supernet.pt", 1.0, seconds=99)),
]
CHANGES = [
    ("space: width was 8 and now is 9", change_settings("space", width=9), ALL),
    ("code of the space was", lambda x: rewritten(x / "own_block.py", b"1", b"2"), ALL),
    (
        "size of the images: image_size was 8 and now is 16",
        change_settings("data", image_size=16),
        ALL,
    ),
    (
        "data: split_seed was 0 and now is 1",
        change_settings("data", split_seed=1),
        ALL - {Result.COSTS},
    ),
    (
        "data: num_train was none and now is 2",
        change_settings("data", num_train=2),
        ALL - {Result.COSTS},
    ),
    (
        "training images was",
        lambda x: rewritten(x / "images/train/cat/1.bmp"),
        ALL - {Result.COSTS, Result.WORKER},
    ),
    (
        "training images was",
        lambda x: shutil.copy(x / "images/train/cat/1.bmp", x / "images/train/cat/2.bmp"),
        ALL - {Result.COSTS},
    ),
    (
        "training images was",
        lambda x: os.rename(x / "images/train/cat/1.bmp", x / "images/train/dog/2.bmp"),
        ALL - {Result.COSTS},
    ),
    ("num_classes was 2 and now is 3", add_class, ALL),
    (
        "test images was",
        lambda x: rewritten(x / "images/val/dog/0.bmp"),
        {Result.BASELINE, Result.NETWORK, Result.STEP},
    ),
    (
        "supernet: epochs was 1 and now is 2",
        change_settings("supernet", epochs=2),
        {Result.SUPERNET, Result.SEARCH, Result.STEP},
    ),
    (
        "channels_last was True and now is False",
        change_settings("supernet", channels_last=False),
        SCORED | {Result.SUPERNET, Result.STEP},
    ),
    (
        "weights",
        lambda x: save_weights(x / "output/supernet.pt", 2.0, seconds=3),
        ALL - NO_WEIGHTS,
    ),
    (
        "evaluation: recalibrate was True and now is False",
        change_settings("evaluation", recalibrate=False),
        SCORED | {Result.STEP},
    ),
    (
        "code of the prior was",
        lambda x: rewritten(x / "own_prior.py", b"1", b"2"),
        {Result.SUPERNET, Result.SEARCH, Result.STEP},
    ),
    (
        "code of the search was",
        lambda x: rewritten(x / "own_search.py", b"1", b"2"),
        {Result.SEARCH, Result.STEP},
    ),
    (
        "code of the techniques of the supernet: own_technique:Technique was",
        lambda x: rewritten(x / "own_technique.py", b"1", b"2"),
        {Result.SUPERNET, Result.SEARCH, Result.STEP},
    ),
    (
        "code of the techniques of retraining: own_late:Technique was",
        lambda x: rewritten(x / "own_late.py", b"1", b"2"),
        RETRAINED | {Result.STEP},
    ),
    (
        "retrain: techniques",
        change_settings("retrain", techniques=[{"name": "own_late:Technique", "rho": 2}]),
        RETRAINED | {Result.STEP},
    ),
    (
        "supernet: techniques",
        change_settings("supernet", mixup=0.2),
        {Result.SUPERNET, Result.SEARCH, Result.STEP},
    ),
    (
        "search: patience was 3 and now is 4",
        change_settings("search", patience=4),
        {Result.SEARCH, Result.STEP},
    ),
    # A prior of the user's may ask for any cost.
    ("code of the metrics: own_metric:Energy was", change_metric, PRICED | {Result.SUPERNET}),
    (
        "metrics: own_metric:Energy was {} and now is {'pj': 3}",
        change_metrics({"name": "own_metric:Energy", "pj": 3}),
        PRICED | {Result.SUPERNET},
    ),
    ("metrics: own_metric:Energy was", change_metrics(), PRICED | {Result.SUPERNET}),
    (
        "search: seed was 0 and now is 1",
        change_settings("search", seed=1),
        {Result.SEARCH, Result.STEP},
    ),
    (
        "retrain: epochs was 1 and now is 2",
        change_settings("retrain", epochs=2),
        RETRAINED | {Result.STEP},
    ),
]


def described(file):
    recipe = load_recipe(file)
    return {result: describe(result, recipe) for result in Result}


@pytest.mark.parametrize(("text", "change", "stale"), CHANGES, ids=[x[0] for x in CHANGES])
def test_exactly_what_depends_on_a_part_becomes_stale(recipe_file, text, change, stale):
    before = described(recipe_file)
    change(recipe_file.parent)
    lines = {x: changes(before[x], now) for x, now in described(recipe_file).items()}
    assert {x for x, line in lines.items() if line} == stale
    said = [line for line in lines.values() if text in line]
    assert said
    assert not any("\n" in line for line in lines.values())
    if text == "size of the images: image_size was 8 and now is 16":
        assert lines[Result.COSTS] == text


@pytest.mark.parametrize(("name", "change"), NOTHING, ids=[x[0] for x in NOTHING])
def test_what_decides_nothing_makes_nothing_stale(recipe_file, name, change):
    before = described(recipe_file)
    change(recipe_file.parent)
    after = described(recipe_file)
    # The stamp of a folder changes more often than its images do; a worker is then started anew.
    assert {x for x in Result if before[x] != after[x]} <= {Result.WORKER}


TRAINING = {
    "epochs": {"epochs": 2},
    "steps": {"epochs": None, "steps": 5},
    **{
        name: {name: value}
        for name, value in {
            "batch_size": 512,
            "learning_rate": 0.25,
            "momentum": 0.8,
            "weight_decay": 0.1,
            "label_smoothing": 0.2,
            "warmup_steps": 3,
            "gradient_clip": 1.0,
            "channels_last": False,
            "precision": "32-true",
            "seed": 1,
            "update_scope": "tensor",
            "sync_batchnorm": True,
            "learning_rate_factors": {"classifier": 0.1},
            "progressive_resizing": {4: 0.5},
            "keep_checkpoints": 3,
            "devices": 2,
            "num_nodes": 2,
            "strategy": "ddp",
        }.items()
    },
}
OURS = {"prior": "constrained", "prior_quantiles": [0, 0.5]}
TECHNIQUES = {
    "techniques": {"techniques": ["own_other:Technique"]},
    "opt": {"opt": "adamw"},
    "opt_eps": {"opt": "adamw", "opt_eps": 1e-6},
    "opt_betas": {"opt": "adamw", "opt_betas": [0.8, 0.9]},
    "opt_kwargs": {"opt": "sgd", "opt_kwargs": {"nesterov": True}},
    "sched": {"sched": "cosine"},
    "min_lr": {"sched": "linear", "min_lr": 0.1},
    "decay_epochs": {"sched": "step", "decay_epochs": 3},
    "decay_rate": {"sched": "step", "decay_rate": 0.3},
    "clip_quantile": {"clip_quantile": {2: 0.97, 4: 0.999}},
    "clip_learning_rate_factor": {"clip_learning_rate_factor": 10.0},
    "accumulate": {"accumulate": 2},
    "model_ema": {"model_ema": True},
    "model_ema_decay": {"model_ema": True, "model_ema_decay": 0.9},
    "model_ema_warmup": {"model_ema": True, "model_ema_warmup": False},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "mixup_prob": {"mixup": 0.2, "mixup_prob": 0.5},
    "mixup_switch_prob": {"mixup": 0.2, "mixup_switch_prob": 0.7},
    "aa": {"aa": "trivial"},
    "reprob": {"reprob": 0.1},
    "class_balanced": {"class_balanced": True},
    "drop": {"drop": 0.1},
    "drop_path": {"drop_path": 0.1},
    "kd": {"kd": "teacher.pt"},
    "kd_weights": {"kd": "torchvision:resnet50", "kd_weights": "IMAGENET1K_V1"},
    "kd_temperature": {"kd": "teacher.pt", "kd_temperature": 2.0},
    "kd_weight": {"kd": "teacher.pt", "kd_weight": 0.1},
    "logger": {"logger": "csv"},
    "logger_uri": {"logger": "mlflow", "logger_uri": "runs"},
    "logger_project": {"logger": "wandb", "logger_project": "cats"},
}
TAUGHT = {"paths": 3, "inplace_distillation": True}
SEVERAL = {
    "paths": {"paths": 3},
    "sandwich": {"paths": 3, "sandwich": True},
    "shrinking": {"shrinking": 0.5},
    "shrinking_hold": {"shrinking": 0.5, "shrinking_hold": 0.1},
    "limit_schedule": {"limit_schedule": {"flops >= 60%": 0.5}},
    "few_shot": {"few_shot": ["layer_1"]},
    "few_shot_after": {"few_shot": ["layer_1"], "few_shot_after": 0.25},
    "complexity_decay": {"complexity_decay": 2.0},
    "momentum_groups": {"momentum_groups": 2},
    "inplace_distillation": TAUGHT,
    "inplace_temperature": {**TAUGHT, "inplace_temperature": 2.0},
    "inplace_weight": {**TAUGHT, "inplace_weight": 0.5},
}
EARLY = {
    "early_stopping": {"early_stopping": 3},
    "early_stopping_monitor": {"early_stopping": 3, "early_stopping_monitor": "validation_top1"},
    "early_stopping_min_delta": {"early_stopping": 3, "early_stopping_min_delta": 0.1},
}
SETTINGS = {
    "supernet": {
        **TRAINING,
        **TECHNIQUES,
        "prior": OURS,
        **SEVERAL,
        "prior_quantiles": OURS,
        "prior_bins": {"prior": "constrained", "prior_bins": ["flops <= 3M"]},
        "prior_metric": {**OURS, "prior_metric": "params"},
        "prior_method": {**OURS, "prior_method": "rejection"},
        "channel_warmup_steps": {"channel_warmup_steps": 5},
        # A space has no original weights; those of a network: tests/conversion.
        "initial_weights": {"initial_weights": "float.pt"},
    },
    "retrain": {
        **TRAINING,
        **TECHNIQUES,
        **EARLY,
        "initial_weights": {"initial_weights": "random"},
    },
    "data": {
        name: {name: value}
        for name, value in {
            "image_size": [16, 24],
            "channels": 1,
            "bits": 16,
            "normalisation": "from data",
            "channel_order": "bgr",
            "num_classes": 3,
            "crop_pct": 0.5,
            "augmentation": "shift",
            "num_train": 2,
            "num_validation": 2,
            "num_test": 2,
            "on_error": "skip",
            "split_seed": 1,
            "download": True,
            "workers": 3,
            "held_mb": 1,
        }.items()
    }
    | {name: {"mean": [0.4] * 3, "std": [0.3] * 3} for name in ("mean", "std")},
}
DECIDE_NOTHING = {
    *("keep_checkpoints", "devices", "num_nodes", "strategy"),
    *("logger", "logger_uri", "logger_project"),
    *("download", "workers", "held_mb"),
}


@pytest.mark.parametrize(
    ("section", "name"), [(x, name) for x, names in SETTINGS.items() for name in names]
)
def test_a_finished_training_is_one_of_exactly_its_settings(recipe_file, section, name):
    """What ``--continue`` and ``--resume`` compare, for every setting that there is."""
    result = Result.NETWORK if section == "retrain" else Result.SUPERNET
    if name.startswith("prior_m"):
        write(recipe_file.parent, supernet=OURS)
    made_for = describe(result, load_recipe(recipe_file))
    write(recipe_file.parent, **{section: SETTINGS[section][name]})
    now = describe(result, load_recipe(recipe_file))
    if name in DECIDE_NOTHING:
        check_finished(recipe_file, made_for, now)
        return
    with pytest.raises(CheckpointError, match=f"{name}|techniques|initial weights") as raised:
        check_finished(recipe_file, made_for, now)
    assert "\n" not in str(raised.value)


def test_no_setting_is_forgotten():
    classes = {"supernet": SupernetSettings, "retrain": RetrainSettings, "data": DataSettings}
    for section, cls in classes.items():
        names = {field.name for field in dataclasses.fields(cls) if field.metadata}
        if section != "data":
            names |= set(technique_keys(section))
        if section == "supernet":
            names |= set(declared_keys(PRIORS.find("constrained")))
        assert names - {"name", "root"} == set(SETTINGS[section])


def test_a_product_that_does_not_say_what_it_is_of_is_not_todays(recipe_file):
    with pytest.raises(CheckpointError, match="does not say with which settings"):
        check_finished(recipe_file, None, describe(Result.SUPERNET, load_recipe(recipe_file)))


@pytest.mark.parametrize(
    ("prior", "depends"),
    [
        ({"prior": "uniform"}, False),
        (OURS, False),
        ({**OURS, "prior_metric": "energy"}, True),
        ({"prior": "own_prior:Prior"}, True),
    ],
)
def test_a_training_depends_on_the_metrics_that_its_prior_may_be_of(recipe_file, prior, depends):
    write(recipe_file.parent, supernet=prior)
    before = described(recipe_file)
    change_metric(recipe_file.parent)
    after = described(recipe_file)
    stale = {x for x in Result if before[x] != after[x]}
    assert stale == PRICED | ({Result.SUPERNET} if depends else set())


def test_a_default_of_our_search_is_as_if_it_were_written_down(recipe_file):
    content = yaml.safe_load(recipe_file.read_text())
    found = []
    for search in ({}, {"top_k": 10}, {"algorithm": "evolution"}, {"top_k": 9}):
        recipe_file.write_text(yaml.safe_dump({**content, "search": search}))
        found.append(describe(Result.SEARCH, load_recipe(recipe_file)))
    assert found[0] == found[1] == found[2]
    assert changes(found[0], found[3]) == "search: top_k was 10 and now is 9"


PRIOR = {"prior": "constrained", "prior_metric": "latency_ms(cpu)", "prior_quantiles": [0, 0.5]}


def test_a_training_depends_on_the_latencies_that_its_prior_is_of(recipe_file):
    folder = recipe_file.parent

    def measure(milliseconds):
        content = {
            "metric": "latency_ms(cpu)",
            "table": [milliseconds],
            "date": os.urandom(4).hex(),
        }
        (folder / "cpu.json").write_text(json.dumps(content))
        return describe(Result.SUPERNET, load_recipe(recipe_file))

    write(folder, supernet=PRIOR)
    content = yaml.safe_load(recipe_file.read_text())
    recipe_file.write_text(yaml.safe_dump({**content, "latency": ["other.json", "cpu.json"]}))
    first = measure(1.0)
    assert measure(1.0) == first
    assert changes(first, measure(2.0)).startswith(
        "latency table of the prior: latency_ms(cpu) was '"
    )
    (folder / "cpu.json").rename(folder / "other.json")
    (folder / "cpu.json").write_text("damaged")
    assert changes(measure(2.0), first)
    content["supernet"] = {"epochs": 1}
    recipe_file.write_text(yaml.safe_dump({**content, "latency": ["cpu.json"]}))
    assert measure(1.0) == measure(2.0), "the uniform prior has none"


def test_a_training_depends_on_the_file_that_it_begins_with(recipe_file):
    folder = recipe_file.parent
    write(folder, supernet={"initial_weights": "float.pt"})
    save_weights(folder / "float.pt", 1.0, seconds=3)
    before = described(recipe_file)
    save_weights(folder / "float.pt", 1.0, seconds=4)
    assert described(recipe_file) == before
    (folder / "float.pt").rename(folder / "other.pt")
    write(folder, supernet={"initial_weights": "other.pt"})
    assert described(recipe_file) == before
    save_weights(folder / "other.pt", 2.0, seconds=3)
    after = described(recipe_file)
    stale = {x for x in Result if before[x] != after[x]}
    assert stale == {Result.SUPERNET, Result.SEARCH, Result.STEP}
    line = changes(before[Result.SUPERNET], after[Result.SUPERNET])
    assert line.startswith("supernet: initial_weights was '")


@pytest.mark.parametrize("change", [move_images, move_everything])
def test_what_is_moved_stays_the_same(recipe_file, change):
    before = described(recipe_file)
    after = described(change(recipe_file.parent) or recipe_file)
    # A worker holds files, wherever they are, and is no result.
    assert {x for x in Result if before[x] != after[x]} == {Result.WORKER}


def test_a_path_that_begins_anew_depends_on_no_supernet(recipe_file):
    write(recipe_file.parent, retrain={"initial_weights": "random"})
    before = described(recipe_file)
    save_weights(load_recipe(recipe_file).checkpoint, 2.0, seconds=3)
    after = described(recipe_file)
    assert {x for x in Result if before[x] != after[x]} == {Result.SEARCH, Result.SCORES}


def test_every_part_is_of_some_result(monkeypatch, recipe_file):
    assert {name for parts in PARTS_OF.values() for name in parts} == set(PARTS)
    assert set(PARTS_OF) == ALL
    before = described(recipe_file)
    for name in ("__version__", "COSTS_VERSION", "SCORES_VERSION"):
        monkeypatch.setattr(identity, name, 99)
    after = described(recipe_file)
    stale = {x for x in Result if before[x] != after[x]}
    assert stale == {*SCORED, Result.COSTS}


def test_defaults_are_those_of_the_data(recipe_file):
    recipe = load_recipe(recipe_file)
    spec, found = dataset_spec(recipe.data), describe(Result.SUPERNET, recipe)["data"]
    for name in ("num_classes", "image_size", "augmentation", "crop_pct"):
        assert found[name] == getattr(spec, name)
    files = {"image_folder", "csv", "segmentation_folder"}
    assert set(DATASETS.ours) == {"digits", "fashion_mnist", "cifar10", *files}
    assert EXTENSIONS == IMG_EXTENSIONS


def test_weights_are_known_by_their_values(tmp_path):
    file = tmp_path / "a.pt"
    assert digest_weights(file) is None
    found = []
    for value, cost in ((1.0, 1), (1.0, 2), (1.5, 1)):
        save_tensors(file, {"weights": {"a": torch.full((3,), value)}, "cost": cost})
        found.append(digest_weights(file))
    assert found[0] == found[1] != found[2]
    content = file.read_bytes()
    for text in (b"", b"no archive", content[:-40], content[:-1] + b"x"):
        file.write_bytes(text)
        assert digest_weights(file) not in found[:2]


def test_images_in_many_files_are_known_by_some(recipe_file, monkeypatch):
    monkeypatch.setattr("nni_spos.recipe.image_digest.MOST_SIZES", 2)
    monkeypatch.setattr("nni_spos.recipe.image_digest.MOST_CONTENTS", 1)
    recipe = load_recipe(recipe_file)
    before = find_dataset(recipe.data).digest_training_images()
    folder = recipe_file.parent / "images" / "train"
    rewritten(folder / "dog" / "1.bmp")
    assert find_dataset(recipe.data).digest_training_images() == before
    rewritten(folder / "cat" / "0.bmp")
    assert find_dataset(recipe.data).digest_training_images() != before
    (folder / "cat" / "again").symlink_to(folder)  # a link back
    find_dataset(recipe.data).digest_training_images()


def digest_fashion_mnist(folder):
    return find_dataset(DataSettings("fashion_mnist", str(folder))).digest_training_images()


def test_fashion_mnist_is_known_by_what_is_in_its_files(tmp_path):
    images, labels = (f"train-{x}-ubyte" for x in ("images-idx3", "labels-idx1"))
    found = []
    for folder, text, pack in (("a", b"1", True), ("b", b"1", False), ("c", b"2", True)):
        for name in (images, labels):
            file = tmp_path / folder / (f"{name}.gz" if pack else name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(gzip.compress(text) if pack else text)
        found.append(digest_fashion_mnist(tmp_path / folder))
    assert found[0] == found[1] != found[2]
    assert digest_fashion_mnist(tmp_path / "none") is None
