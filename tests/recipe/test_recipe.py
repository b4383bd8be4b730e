import copy
import dataclasses
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nni_spos.constraint import Constraint
from nni_spos.errors import RecipeError
from nni_spos.evolution.evolution import EvolutionSettings
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.recipe.search_settings import SearchSettings
from nni_spos.recipe.spaces import SPACES
from nni_spos.recipe.training_settings import RetrainSettings

RECIPE = """
output: runs/digits
space: {name: shufflenet, width: 0.5, stages: [4, 4]}
data: {name: digits, root: data, augmentation: shift}
supernet: {epochs: 30, batch_size: 64, learning_rate: 0.1}
evaluation: {recalibration_images: 512}
search:
  constraints: [flops <= 330M, "1M <= params <= 4M"]
  population_size: 10
  num_generations: 3
  seed: 1
retrain: {steps: 500}
"""


@pytest.fixture
def load(tmp_path):
    """Load the recipe above with the given sections or keys replaced; None removes."""

    def load(changes=None, text=None):
        content = yaml.safe_load(RECIPE)
        for name, change in (changes or {}).items():
            if isinstance(change, dict) and isinstance(content.get(name), dict):
                content[name] |= change
            elif change is None:
                del content[name]
            else:
                content[name] = change
        file = tmp_path / "run.yml"
        file.write_text(yaml.safe_dump(content) if text is None else text)
        return load_recipe(file)

    return load


def test_values_and_defaults(load, tmp_path):
    recipe = load()
    assert recipe.file == tmp_path / "run.yml"
    assert recipe.space.name == "shufflenet"
    assert recipe.space.arguments == {"width": 0.5, "stages": [4, 4]}
    assert (recipe.data.name, recipe.data.augmentation) == ("digits", "shift")
    assert (recipe.supernet.epochs, recipe.supernet.steps) == (30, None)
    assert (recipe.supernet.prior, recipe.supernet.momentum) == ("uniform", 0.9)
    assert (recipe.retrain.steps, recipe.retrain.batch_size) == (500, 1024)
    assert recipe.search.constraints == (
        Constraint("flops", high=330e6),
        Constraint("params", 1e6, 4e6),
    )


def test_the_defaults_of_the_search_are_the_papers(load):
    search = load({"search": None}).search
    assert search == SearchSettings()
    assert (search.population_size, search.num_generations) == (50, 20)
    assert (search.algorithm, search.maximised) == ("evolution", "top1")
    assert search.own() == EvolutionSettings(None, None, 0.1, 10)


def test_evaluation_and_search_are_optional_and_sections_may_be_empty(load):
    assert load({"evaluation": None}).evaluation.recalibration_images == 20_000
    text = RECIPE.partition("evaluation:")[0] + "evaluation:\nsearch:\nretrain: {epochs: 1}\n"
    recipe = load(text=text)
    assert recipe.search == SearchSettings()
    assert recipe.evaluation == load({"evaluation": None}).evaluation


def test_files_are_relative_to_the_recipe(load, tmp_path, monkeypatch):
    recipe = load()
    assert recipe.output == tmp_path / "runs" / "digits"
    assert recipe.checkpoint == tmp_path / "runs" / "digits" / "supernet.pt"
    assert recipe.data.root == str(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("run.yml") == recipe
    tables = load({"latency": ["cpu.json", "/tables/cuda.json"]}).latency
    assert tables == (tmp_path / "cpu.json", Path("/tables/cuda.json"))
    absolute = load({"output": "/runs/../out", "data": {"root": "/data"}})
    assert (absolute.output, absolute.data.root) == (Path("/out"), "/data")


def test_a_folder_that_links_lead_to_has_one_name(tmp_path, monkeypatch):
    """Else processes that know it by other names would mean other files."""
    real = tmp_path / "data" / "recipes"
    real.mkdir(parents=True)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    link, second = tmp_path / "link", tmp_path / "deep" / "er" / "link"
    link.symlink_to(real)
    second.symlink_to(link)
    changes = {"output": "../out", "latency": ["../cpu.json"], "data": {"name": "digits"}}
    content = {**yaml.safe_load(RECIPE), **changes}
    content["data"]["root"] = "../images"
    (real / "run.yml").write_text(yaml.safe_dump(content))
    recipe = load_recipe(real / "run.yml")
    assert recipe.output == tmp_path / "data" / "out"
    assert load_recipe(link / "run.yml") == load_recipe(second / "run.yml") == recipe
    assert load_recipe(second / ".." / "recipes" / "run.yml") == recipe
    monkeypatch.chdir(link)
    assert load_recipe("run.yml") == recipe
    # A link to the recipe alone is a recipe where the link is.
    (tmp_path / "deep" / "run.yml").symlink_to(real / "run.yml")
    assert load_recipe(tmp_path / "deep" / "run.yml").output == tmp_path / "out"


def test_an_output_folder_that_is_a_link_is_known_by_its_own_name(load, tmp_path):
    (tmp_path / "disk" / "runs").mkdir(parents=True)
    (tmp_path / "here").symlink_to("disk/runs")
    assert load({"output": "here/a"}).output == tmp_path / "disk" / "runs" / "a"
    assert load({"output": "here/../a"}).output == tmp_path / "disk" / "a"


@pytest.mark.parametrize("name", [b"caf\xe9.yml", b"caf\xe9/run.yml"])
def test_names_that_are_not_utf_8(tmp_path, name):
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    try:
        file.parent.mkdir(exist_ok=True)
        file.write_text(RECIPE)
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    with pytest.raises(RecipeError, match="is not UTF-8") as caught:
        load_recipe(file)
    assert str(caught.value).isprintable()
    good = Path(str(file).replace("\udce9", "é"))
    good.parent.mkdir(exist_ok=True)
    good.write_text(RECIPE)
    assert load_recipe(good).file == good


def test_names_in_a_recipe_that_are_not_utf_8(load):
    name = "caf\udce9"
    for changes in ({"output": name}, {"latency": [name]}, {"data": {"root": name}}):
        with pytest.raises(RecipeError, match=r"the name of a f|a list of files"):
            load(changes)
    assert load({"output": "café"}).output.name == "café"


def test_home_folders(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    recipe = load({"output": "~/runs", "data": {"root": "~/data"}})
    assert (recipe.output, recipe.data.root) == (Path("/home/me/runs"), "/home/me/data")
    recipe = load({"output": "~no-such-user/runs"})
    assert recipe.output == tmp_path / "~no-such-user" / "runs"


def test_a_recipe_is_frozen(load):
    recipe = load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.search.seed = 2


def test_the_processes_of_a_training_do_not_decide_its_weights(load):
    alone = load().supernet
    together = load({"supernet": {"devices": 8, "num_nodes": 2, "strategy": "ddp"}}).supernet
    assert together.deciding() == alone.deciding()
    names = {"devices", "num_nodes", "strategy", "sync_batchnorm", "keep_checkpoints"}
    assert not names & set(alone.deciding())
    synchronised = load({"supernet": {"devices": 8, "sync_batchnorm": True}}).supernet
    assert synchronised.deciding() == {**alone.deciding(), "sync_batchnorm": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serach": {}}, "unknown key 'serach'; did you mean 'search'? Keys: output, space, model, "
         "choices, task, data, supernet, evaluation, search, retrain, latency, metrics."),
        ({5: {}}, "unknown key 5. Keys: output, space, model, choices, task, data, supernet, "
         "evaluation, search, retrain, latency, metrics."),
        ({"output": None}, "the key 'output' is missing."),
        ({"supernet": None}, "the key 'supernet' is missing."),
        ({"retrain": {"epochs": None, "steps": None}}, "retrain: give either 'epochs' or 'steps'."),
        ({"output": 5}, "output: must be the name of a folder."),
        ({"space": "shufflenet"}, "space: must be a mapping with the key 'name', got "
         "'shufflenet'."),
        ({"space": {"name": 5}}, "space: must be a mapping with the key 'name', got "
         "{'name': 5, 'stages': [4, 4], 'width': 0.5}."),
        ({"space": {"name": "fbnets"}}, "space: unknown space 'fbnets'; did you mean 'fbnet'? "
         f"Spaces: {', '.join(SPACES.ours)}, or module:Class."),
        ({"data": {"name": "digit"}}, "data.name: unknown data set 'digit'; did you mean 'digits'? "
         "Data sets: digits, fashion_mnist, cifar10, image_folder, csv, segmentation_folder, or "
         "torchvision:CLASS, huggingface:NAME or module:Class."),
        ({"data": {"name": 5}}, "data.name: got 5; must be the name of a data set, or "
         "module:Class."),
        ({"data": {"rot": "x"}}, "data: unknown key 'rot'; did you mean 'root'? Keys: name, root, "
         "download, image_size, channels, bits, mean, std, normalisation, channel_order, "
         "num_classes, crop_pct, augmentation, num_train, num_validation, num_test, split_seed, "
         "on_error, workers, held_mb."),
        ({"data": {"augmentation": "flip"}}, "data.augmentation: got 'flip'; must be one of none, "
         "shift, crop_flip, imagenet, or null."),
        ({"data": [1]}, "data: must map keys to values, got [1]."),
        ({"supernet": {"prior": "normal"}}, "supernet.prior: unknown prior 'normal'; did you "
         "mean 'uniform'? Priors: uniform, constrained, or module:Class."),
        ({"search": {"algorithm": "evolve"}}, "search.algorithm: unknown search 'evolve'. "
         "Searches: evolution, nsga2, bayesian, random, or module:Class."),
        ({"search": {"topk": 3}}, "search: unknown key 'topk'; did you mean 'top_k'? Keys: "
         "algorithm, constraints, population_size, num_generations, objective, seed, "
         "sensitivity, "
         "num_mutations, num_crossovers, mutation_prob, top_k."),
        ({"search": {"sensitivity": True}}, "search.sensitivity: is of a 'model', and there is a "
         "'space', in which no path is known to be good."),
        ({"search": {"top_k": 0}}, "search.top_k: got 0; must be a whole number > 0, below 2^63."),
        ({"search": {"algorithm": "random", "top_k": 0}}, "search.top_k: got 0; must be a whole "
         "number > 0, below 2^63."),
        ({"supernet": {"prior_bins": ["flops <= 9"]}}, "supernet: the prior uniform has no "
         "prior_bins; did you mean 'prior: constrained'?"),
        ({"supernet": {"prior": "constrained"}}, "supernet: the constrained prior needs either "
         "prior_bins, e.g. ['290M <= flops <= 300M'], or prior_quantiles, e.g. [0, 0.25, 0.5]."),
        ({"supernet": {"prior": "constrained", "prior_bins": ["flops <= 9", "params <= 9"]}},
         "supernet: prior_bins: all bins must limit the same metric."),
        ({"supernet": {"prior": "constrained", "prior_quantiles": [0, 2]}},
         "supernet.prior_quantiles: got [0, 2]; must be a list such as [0, 0.25, 0.5]."),
        ({"supernet": {"steps": 5}}, "supernet: give either 'epochs' or 'steps'."),
        ({"supernet": {"epochs": None}}, "supernet: give either 'epochs' or 'steps'."),
        ({"retrain": {"prior": "uniform"}}, "retrain: unknown key 'prior'. Keys: epochs, steps, "
         "batch_size, learning_rate, momentum, weight_decay, label_smoothing, warmup_steps, "
         "gradient_clip, channels_last, precision, seed, keep_checkpoints, update_scope, "
         "devices, num_nodes, strategy, sync_batchnorm, learning_rate_factors, "
         "progressive_resizing, techniques, initial_weights, opt, opt_eps, opt_betas, opt_kwargs, "
         "sched, min_lr, decay_epochs, decay_rate, clip_quantile, clip_learning_rate_factor, "
         "accumulate, model_ema, model_ema_decay, model_ema_warmup, mixup, cutmix, mixup_prob, "
         "mixup_switch_prob, aa, reprob, class_balanced, drop, drop_path, kd, kd_weights, "
         "kd_temperature, kd_weight, early_stopping, early_stopping_monitor, "
         "early_stopping_min_delta, logger, logger_uri, logger_project."),
        ({"retrain": {"learning_rate_factors": {"classifier": -1}}}, "retrain."
         "learning_rate_factors: got {'classifier': -1}; must be a mapping such as "
         "{classifier: 0.1}."),
        ({"supernet": {"progressive_resizing": {"16": 0.5}}}, "supernet.progressive_resizing: got "
         "{'16': 0.5}; must be a mapping of sizes in pixels to shares of the steps such as "
         "{16: 0.6, 24: 0.2}."),
        ({"supernet": {"progressive_resizing": {16: 0.6, 24: 0.5}}}, "supernet: "
         "progressive_resizing: the shares must add up to at most 1, got 1.1."),
        ({"supernet": {"devices": 3}}, "supernet: batch_size: 3 processes (devices x num_nodes) "
         "cannot share 64 images evenly. Give a multiple of 3, or fewer devices."),
        ({"retrain": {"devices": 8, "num_nodes": 3}}, "retrain: batch_size: 24 processes (devices "
         "x num_nodes) cannot share 1024 images evenly. Give a multiple of 24, or fewer devices."),
        ({"supernet": {"devices": 0}}, "supernet.devices: got 0; must be auto, or a whole number "
         "> 0."),
        ({"supernet": {"num_nodes": "auto"}}, "supernet.num_nodes: got 'auto'; must be a whole "
         "number > 0, below 2^63."),
        ({"supernet": {"strategy": "fsdp"}}, "supernet.strategy: got 'fsdp'; must be one of auto, "
         "ddp, ddp_find_unused_parameters_true."),
        ({"supernet": {"sync_batchnorm": 1}}, "supernet.sync_batchnorm: got 1; must be true or "
         "false."),
        ({"retrain": {"learning_rate": float("inf")}}, "retrain.learning_rate: got inf; must be a "
         "number >= 0."),
        ({"search": {"constraints": "flops <= 330M"}}, "search.constraints: got 'flops <= 330M'; "
         "must be a list such as ['flops <= 330M']."),
        ({"search": {"constraints": ["flops = 1"]}}, "search.constraints: 'flops = 1' is not a "
         "constraint. Write METRIC <= NUMBER, METRIC >= NUMBER or NUMBER <= METRIC <= NUMBER, "
         "where a number may end in k, M or G (thousand, million, billion), in Ki, Mi or Gi "
         "(2^10, 2^20, 2^30), or in %, a share of what the dearest path costs, e.g. "
         "'flops <= 330M' or 'flops <= 50%'."),
        ({"search": {"objective": "loss"}}, "search: objective: must be something to "
         "maximise, got loss. Use log_likelihood, which is minus the loss."),
        ({"search": {"cost_objectives": "flops"}}, "search.cost_objectives: got 'flops'; must be "
         "a list such as [flops, params]."),
        ({"search": {"cost_objectives": [""]}}, "search.cost_objectives: got ['']; must be a list "
         "such as [flops, params]."),
        ({"metrics": "flops"}, "metrics: must be a list such as [my_metric:Energy], or with the "
         "metric's keys [{name: my_metric:Energy, pj_per_mac: 3}], got 'flops'."),
        ({"metrics": [{"pj_per_mac": 3}]}, "metrics: must be a list such as [my_metric:Energy], or "
         "with the metric's keys [{name: my_metric:Energy, pj_per_mac: 3}], got "
         "[{'pj_per_mac': 3}]."),
        ({"metrics": ["flop"]}, "metrics: unknown metric 'flop'; did you mean 'flops'? Metrics: "
         "flops, params, bitops, size_bytes, weight_bytes, peak_activation_bytes, or "
         "module:Class."),
        ({"metrics": ["a:B", {"name": "a:B", "c": 1}]}, "metrics: a:B is there twice."),
        ({"latency": "cpu.json"}, "latency: must be a list of files such as [latency_cpu.json], "
         "got 'cpu.json'."),
        ({"latency": [5]}, "latency: must be a list of files such as [latency_cpu.json], got [5]."),
        ({"search": {"num_mutations": 6, "num_crossovers": 5}}, "search: num_mutations + "
         "num_crossovers must be at most population_size = 10, got 11."),
    ],
)  # fmt: skip
def test_refuses(load, changes, message):
    with pytest.raises(RecipeError) as caught:
        load(changes)
    assert str(caught.value) == f"run.yml: {message}"


@pytest.mark.parametrize("text", ["", "retrain:\n", "retrain: null\n"])
def test_without_a_section_a_path_is_trained_as_the_supernet_is(tmp_path, text):
    rest = (
        "output: out\nspace: {name: shufflenet_small}\ndata: {name: digits}\n"
        "supernet: {steps: 70, batch_size: 32, seed: 3, learning_rate_factors: {classifier: 0.5}, "
        "channel_warmup_steps: 5, mixup: 0.2, opt: adamw}\n"
    )
    file = tmp_path / "run.yml"
    file.write_text(rest + text)
    recipe = load_recipe(file)
    assert recipe.retrain == RetrainSettings(
        steps=70,
        batch_size=32,
        seed=3,
        learning_rate_factors=(("classifier", 0.5),),
        techniques=recipe.supernet.techniques,
    )
    assert {x.name for x in recipe.retrain.techniques} == {"mixing", "opt"}
    # A section of its own has the defaults of a training, and not the supernet's settings.
    file.write_text(rest + "retrain: {epochs: 2}")
    assert load_recipe(file).retrain == RetrainSettings(epochs=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"supernet": {"steps": 5, "epochs": None}},
        {"data": {"augmentation": None, "root": None}},
        {"retrain": {"learning_rate": 1}},
        {"retrain": None},
        {"supernet": {"devices": 4, "strategy": "ddp", "sync_batchnorm": True}},
        {"supernet": {"devices": "auto", "num_nodes": 3}},
        {"retrain": {"devices": 8, "num_nodes": 4}},
        {"search": {"constraints": []}},
        {"search": {"num_mutations": 6, "num_crossovers": 4}},
        {"search": {"num_mutations": 10}},
        {"search": {"algorithm": "random", "top_k": 3, "num_mutations": 6}},
        {"search": {"algorithm": "no_module:Search", "anything": 3}},
        {"supernet": {"prior": "no_module:Prior", "anything": [1]}},
        {"metrics": ["flops", "no_module:Metric", {"name": "no_module:Other", "anything": 3}]},
        {"search": {"objective": "log_likelihood"}},
        {"retrain": {"learning_rate_factors": {"classifier": 0.5}}},
        {"supernet": {"progressive_resizing": {16: 0.6, 24: 0.4}}},
        {"search": {"cost_objectives": ["flops"]}},
        {"space": {"name": "my_module:Anything"}},
        {"latency": ["cpu.json"]},
        {"latency": []},
    ],
)
def test_accepts_the_neighbours(load, changes):
    assert isinstance(load(changes), Recipe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a YAML mapping of keys to values."),
        ("- 1", "must be a YAML mapping of keys to values."),
        ("a: [", "is not valid YAML (while parsing"),
        ("a: 1\nb: c: d", "is not valid YAML (mapping values are not allowed here"),
        ("[1]: {[2]: 3}", "is not valid YAML (while constructing a mapping"),
        ("a: 2024-99-99", "is not valid YAML (month must be in 1..12"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML (could not determine a con"),
        ("a: !!bool x", "is not valid YAML ("),
        ("a: !!int ''", "is not valid YAML ("),
        ("a: !!timestamp x", "is not valid YAML ("),
        ("[" * 5000, "is not valid YAML ("),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_refuses_what_is_not_yaml(load, tmp_path, text, message):
    with pytest.raises(RecipeError) as caught:
        load(text=text)
    assert str(caught.value).startswith(f"{tmp_path / 'run.yml'}: {message}")
    assert "\n" not in str(caught.value)


def test_refuses_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match=r"run.yml: no such file\."):
        load_recipe(tmp_path / "run.yml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)
    (tmp_path / "run.yml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RecipeError, match=r"run.yml: cannot be read"):
        load_recipe(tmp_path / "run.yml")


def test_with_search_changes_some_keys(load):
    recipe = load()
    changed = recipe.with_search({"seed": 5, "constraints": ["flops <= 3"]}, "classArgs")
    assert changed.search == dataclasses.replace(
        recipe.search, seed=5, constraints=(Constraint("flops", high=3),)
    )
    assert dataclasses.replace(changed, search=recipe.search) == recipe
    assert recipe.with_search({}, "classArgs") == recipe


def test_with_search_checks_the_keys_together_with_the_recipe(load):
    big = load({"search": {"population_size": 100}})
    assert big.with_search({"num_mutations": 60}, "classArgs").search.own().num_mutations == 60
    with pytest.raises(RecipeError, match=r"^classArgs: num_mutations .* at most .* = 10, got 11"):
        load().with_search({"num_mutations": 11}, "classArgs")


def test_with_search_refuses(load):
    with pytest.raises(RecipeError, match=r"^classArgs: unknown key 'sead'; did you mean 'seed'"):
        load().with_search({"sead": 5}, "classArgs")
    with pytest.raises(RecipeError, match=r"^classArgs.seed: got -5; must be a whole number >= 0"):
        load().with_search({"seed": -5}, "classArgs")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes") / "run.yml"


def read_or_refused(file, text):
    file.write_text(text, encoding="utf-8")
    try:
        recipe = load_recipe(file)
    except RecipeError as problem:
        message = str(problem)
        assert len(message.splitlines()) == 1
        assert "run.yml" in message
    else:
        assert isinstance(recipe, Recipe)


PIECES = st.sampled_from([
    "\n", ": ", "- ", "? ", "! ", "!!int ''", "!!bool x", "!!binary x", "!!set", "&a ", "*a", "|",
    "<<: *a", "~", "~no/", ".inf", ".nan", "1e999", "-1", "0b_", "=", "2024-99-99", "{", "}", "[",
    "]", ",", "'", '"', "#", "%", "\0", "\t", "\u2028", "\\", "null", "true", "flops <= 1e99",
    "output: ", "steps: 1", "---\n", "...\n",
])  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(0, len(RECIPE)), st.integers(0, 20), PIECES | st.text(max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_any_text_is_read_or_refused_in_one_line(scratch, edits):
    text = RECIPE
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    read_or_refused(scratch, text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.dates()
    | st.binary(max_size=3)
    | st.sampled_from([10**400, "~nobody", "flops <= 1", "imagenet", "digits"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=5,
)
CONTENT = yaml.safe_load(RECIPE)
KEYS = [(name,) for name in CONTENT] + [
    (name, key) for name, section in CONTENT.items() if isinstance(section, dict) for key in section
]


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["set", "add", "drop"]), VALUES),
             min_size=1, max_size=3)
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_content_is_read_or_refused_in_one_line(scratch, edits):
    content = copy.deepcopy(CONTENT)
    for (*section, key), action, value in edits:
        inner = content.get(section[0]) if section else content
        if not isinstance(inner, dict):
            continue
        if action == "set":
            inner[key] = value
        elif action == "add":
            inner[str(value)[:8]] = value
        else:
            inner.pop(key, None)
    read_or_refused(scratch, yaml.safe_dump(content, allow_unicode=True))
