"""Measuring from a name or a recipe, and what uses the tables: searches and retraining."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_experiments import SPACE, reference, save_table, write_recipe
from trained_recipes import change_recipe

from nni_spos.cli import main
from nni_spos.cost_table import CostTable, Factor
from nni_spos.costs.figures import plot_latency
from nni_spos.costs.measuring import run_latency
from nni_spos.costs.stored import load_costs
from nni_spos.errors import ConstraintError, CostError, InfeasibleError, RecipeError
from nni_spos.latency import table as latency_table
from nni_spos.latency.profiler import LatencyProfiler
from nni_spos.latency.table import LatencyWarning, read_latency_table
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining.network import load_network
from nni_spos.retraining.retrain import retrain
from nni_spos.search.building import build_search, fingerprint
from nni_spos.search.running import run_search

LIMIT = "latency_ms(cpu) <= 4"


@pytest.fixture
def write(tmp_path):
    """Write a recipe that names latency tables; their files are up to the test."""

    def write(*files, **search):
        file = write_recipe(tmp_path, **search)
        content = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump({**content, "latency": list(files)}))
        return load_recipe(file)

    return write


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", LatencyWarning)
        yield


def test_a_recipe_has_its_tables(tmp_path, write):
    save_table(tmp_path / "cpu.json")
    save_table(tmp_path / "tables" / "cuda.json", "cuda", scale=2)
    space, costs = load_costs(write("cpu.json", "tables/cuda.json"))
    assert space == SPACE
    assert list(costs) == ["flops", "latency_ms(cpu)", "latency_ms(cuda)"]
    path = {"a": "k5", "b": "k7", "ratio": 4.0}
    assert costs["latency_ms(cpu)"].price(path) == 1 + 0.5 * (1 + 2 + 3)
    assert costs["latency_ms(cuda)"].price(path) == 1 + 1.0 * (1 + 2 + 3)


@pytest.mark.parametrize("algorithm", ["evolution", "nsga2", "random"])
def test_a_search_keeps_a_limit_on_latency(tmp_path, write, algorithm):
    save_table(tmp_path / "cpu.json")
    recipe = write("cpu.json", constraints=[LIMIT, "flops >= 3"], algorithm=algorithm)
    results = run_search(recipe, lambda path: {"top1": sum(SPACE.key(path))}, progress=False)
    assert len(results.candidates) == 18
    for candidate in results.candidates:
        latency = 1 + 0.5 * sum(SPACE.key(candidate.path))
        assert candidate.costs["latency_ms(cpu)"] == latency <= 4
    header, best = results.format_table(1).splitlines()
    titles = header.replace("top-1 (%)", "top-1").split()
    assert best.split()[titles.index("latency_ms(cpu)")] == "4"


def test_a_search_goes_on_only_with_the_same_table(tmp_path, write):
    save_table(tmp_path / "cpu.json")
    save_table(tmp_path / "cuda.json", "cuda")

    def made(*files, **search):
        recipe = write(*files, **search)
        return fingerprint(recipe, *load_costs(recipe))

    limited = made("cpu.json", constraints=[LIMIT])
    assert limited == json.loads(json.dumps(limited))
    assert limited == made("cpu.json", "cuda.json", constraints=[LIMIT]), "another metric"
    (tmp_path / "cpu.json").rename(tmp_path / "moved.json")
    assert limited == made("moved.json", constraints=[LIMIT])
    free = made("moved.json", constraints=["flops <= 5"])
    save_table(tmp_path / "moved.json", scale=1.5)
    assert limited != made("moved.json", constraints=[LIMIT])
    assert (
        free == made("moved.json", constraints=["flops <= 5"]) == made(constraints=["flops <= 5"])
    )
    assert "latency" not in free
    minimised = made("moved.json", algorithm="nsga2", cost_objectives=["latency_ms(cpu)"])
    save_table(tmp_path / "moved.json", scale=2.0)
    again = made("moved.json", algorithm="nsga2", cost_objectives=["latency_ms(cpu)"])
    assert minimised.pop("latency") != again.pop("latency")
    assert minimised == again


def test_a_latency_to_minimise_without_a_table(tmp_path, write):
    search = {"algorithm": "nsga2", "cost_objectives": ["flops", "latency_ms(cuda)"]}
    recipe = write(**search)
    with pytest.raises(ConstraintError, match=r"^cost_objectives: there is no table of 'latency_"):
        build_search(recipe.search, *load_costs(recipe))
    save_table(tmp_path / "cuda.json", "cuda")
    recipe = write("cuda.json", **search)
    found = build_search(recipe.search, *load_costs(recipe))
    assert found.cost_objectives == ("flops", "latency_ms(cuda)")


@pytest.mark.parametrize(
    ("metric", "device"),
    [("latency_ms(cpu)", "cpu"), ("latency_ms(cuda)", "cuda"), ("latency_ms", "cpu")],
)
def test_a_limit_without_a_table(write, metric, device):
    recipe = write(constraints=[f"{metric} <= 12"])
    with pytest.raises(ConstraintError) as caught:
        build_search(recipe.search, *load_costs(recipe))
    assert str(caught.value) == (
        f"constraint '{metric} <= 12': there is no table of '{metric}'. Measure "
        f"latency_ms({device}) with 'nni-spos latency RECIPE --device {device} --output "
        f"latency_{device}.json', and name the file in the recipe: "
        f"'latency: [latency_{device}.json]'."
    )


def test_a_limit_that_no_path_meets(tmp_path, write):
    save_table(tmp_path / "cpu.json")
    recipe = write("cpu.json", constraints=["latency_ms(cpu) <= 0.9"])
    with pytest.raises(InfeasibleError, match=r"latency_ms\(cpu\) of this space lies between 1 "):
        build_search(recipe.search, *load_costs(recipe))


def test_a_table_that_is_not_there(tmp_path, write):
    recipe = write("cpu.json")
    with pytest.raises(CostError) as caught:
        load_costs(recipe)
    assert str(caught.value) == (
        f"{tmp_path / 'cpu.json'}: no such file, which recipe.yml names as a latency table. "
        "Make it: nni-spos latency recipe.yml --device cpu --output cpu.json"
    )
    save_table(tmp_path / "cpu.json")
    load_costs(recipe)


def test_two_tables_of_one_device(tmp_path, write):
    save_table(tmp_path / "one.json")
    save_table(tmp_path / "two.json")
    with pytest.raises(CostError) as caught:
        load_costs(write("one.json", "two.json"))
    assert str(caught.value) == (
        "recipe.yml: latency: two tables are of latency_ms(cpu); two.json is the second. "
        "Name one for each device."
    )


def test_a_table_of_other_layers(tmp_path, write):
    factors = [Factor((label,), 2 * np.arange(len(SPACE[label]))) for label in SPACE]
    save_table(tmp_path / "cpu.json", flops=CostTable("flops", SPACE, 1, factors))
    with pytest.raises(CostError, match="its labels are the same, but its layers have other"):
        load_costs(write("cpu.json"))
    save_table(tmp_path / "cpu.json", flops=load_costs(write())[1]["flops"])
    load_costs(write("cpu.json"))


def test_a_table_of_another_machine_warns(tmp_path, write):
    save_table(tmp_path / "cpu.json", machine="Processor 9")
    with pytest.warns(LatencyWarning, match="was measured with machine Processor 9, and is used"):
        _, costs = load_costs(write("cpu.json"))
    assert "latency_ms(cpu)" in costs


@pytest.fixture
def tiny(folder):
    """The file of a table, and the space that it is for; a recipe names it."""
    space = PathSpace({f"layer_{i}": ["k3", "k5", "k7", "xcep"] for i in (1, 2, 3)})
    recipe = yaml.safe_load(Path("recipe.yml").read_text())
    Path("recipe.yml").write_text(yaml.safe_dump({**recipe, "latency": ["cpu.json"]}))
    return folder / "cpu.json", space


@pytest.mark.slow
def test_a_search_warns_in_a_line_of_a_table_and_as_usual_of_the_rest(tiny, monkeypatch, capsys):
    file, space = tiny
    monkeypatch.setattr(latency_table, "this_machine", lambda device: "Processor 1")
    save_table(file, machine="Processor 9", space=space)
    change_recipe("data", download=True)
    with pytest.warns(UserWarning, match="data: 'download' is ignored") as caught:
        assert main(["search", "recipe.yml"]) == 0
    assert not [w for w in caught if issubclass(w.category, LatencyWarning)]
    errors = capsys.readouterr().err
    assert errors.splitlines()[0] == (
        f"warning: {file}: was measured with machine Processor 9, and is used for Processor 1."
    )
    assert errors.count("was measured with") == 1


@pytest.mark.slow
def test_a_retrained_network_has_its_latency(tiny):
    file, space = tiny
    save_table(file, space=space)
    recipe = load_recipe("recipe.yml")
    trained = retrain(recipe, {"layer_1": "k5", "layer_2": "xcep", "layer_3": "k3"})
    assert list(trained.costs) == [*load_costs(recipe)[1]]
    assert trained.costs["latency_ms(cpu)"] == 1 + 0.5 * (1 + 3 + 0)
    assert load_network(recipe.files.retrained).costs == trained.costs


def test_other_searches_do_not_need_the_tables_again(write):
    """As when a finished search is read where its tables are not."""
    assert fingerprint(write("gone.json"), SPACE, {}) == fingerprint(write(), SPACE, {})
    assert reference(write().file).num_candidates == 18


@pytest.fixture
def profiler():
    return LatencyProfiler(rounds=1, repeats=1)


@pytest.mark.slow
def test_a_space_by_name(tmp_path, profiler, capsys):
    file, plot = tmp_path / "new" / "latency.json", tmp_path / "new" / "latency.png"
    table = run_latency("shufflenet_small", file, num_paths=2, plot=plot, profiler=profiler)
    assert read_latency_table(file).validation == table.validation
    assert (table.name, table.conditions.input_shape) == ("shufflenet_small", (3, 32, 32))
    assert len(table.validation.measured_ms) == 2
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "latency" in capsys.readouterr().err, "a progress bar"


@pytest.mark.slow
def test_a_recipe_is_measured_and_then_uses_it(tmp_path, profiler, capsys):
    file = tmp_path / "digits.yaml"
    content = {
        "output": "output",
        "space": {"name": "shufflenet_small", "stage_repeats": [1, 1], "stage_channels": [32, 64]},
        "data": {"name": "digits"},
        "supernet": {"epochs": 1},
        "retrain": {"epochs": 1, "channels_last": False},
        "latency": ["latency_cpu.json"],
    }
    file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(file)
    table = run_latency(
        file, recipe.latency[0], num_paths=2, threads=1, progress=False, profiler=profiler
    )
    assert table.conditions.input_shape[0] == 1
    assert table.costs.space.labels == ("layer_1", "layer_2")
    assert not capsys.readouterr().err
    space, costs = load_costs(recipe)
    assert space == PathSpace.from_search_space(table.costs.space.to_search_space())
    assert costs["flops"].to_json() == table.flops.to_json()
    assert costs["latency_ms(cpu)"].to_json() == table.costs.to_json()


def test_what_cannot_be_measured(tmp_path):
    file = tmp_path / "latency.json"
    with pytest.raises(RecipeError, match="unknown space 'shufflnet'; did you mean 'shufflenet"):
        run_latency("shufflnet", file)
    with pytest.raises(RecipeError, match="no such file"):
        run_latency(tmp_path / "recipe.yml", file)
    with pytest.raises(CostError, match="unknown device 'tpu'"):
        run_latency("shufflenet_small", file, device="tpu")
    with pytest.raises(CostError, match="threads must be at least 1"):
        run_latency("shufflenet_small", file, threads=0)
    assert not list(tmp_path.iterdir())


def test_a_plot_of_equal_latencies(tmp_path):
    plot_latency([1.0, 1.0], [1.0, 1.0], tmp_path / "equal.png")
    assert (tmp_path / "equal.png").stat().st_size > 1000
