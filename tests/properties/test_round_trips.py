"""What is written is what is read."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hostile import STABLE
from hypothesis import given
from hypothesis import strategies as st

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.evolution import Candidate, Journal, State, read_journal
from nni_spos.latency.table import (
    LatencyConditions,
    LatencyTable,
    LatencyValidation,
    read_latency_table,
)
from nni_spos.path import PathSpace, load_path, save_path
from nni_spos.process.stage_cost import StageCost, read_stage_cost
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.search_settings import EvaluationSettings, SearchSettings
from nni_spos.recipe.training_settings import RetrainSettings

NAMES = st.text(max_size=6)
REALS = st.floats(-1e9, 1e9)
CHOICES = st.lists(
    NAMES | st.integers(-(2**70), 2**70) | REALS | st.booleans(),
    min_size=1,
    max_size=4,
    unique_by=lambda choice: (type(choice), choice),
)
SPACES = st.dictionaries(NAMES, CHOICES, min_size=1, max_size=4).map(PathSpace)
POSITIVE = st.integers(1, 2**63 - 1)
COUNTS = st.integers(0, 2**63 - 1)
SHARES = st.floats(0, 1)
TEXTS = st.from_regex(r"[a-z~][a-z0-9_./ -]{0,20}", fullmatch=True)
LIMITS = st.builds(
    lambda metric, bounds, sides: Constraint(
        metric,
        -math.inf if sides == "high" else min(bounds),
        math.inf if sides == "low" else max(bounds),
    ),
    st.from_regex(r"[a-z][a-z0-9_]{0,8}(\([A-Za-z0-9_.:-]{1,8}\))?", fullmatch=True),
    st.tuples(*[st.floats(0, allow_infinity=False)] * 2),
    st.sampled_from(["low", "high", "both"]),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("round_trips")


def a_path(draw, space: PathSpace) -> dict:
    return {label: draw(st.sampled_from(choices)) for label, choices in space.items()}


def typed(path: dict) -> list:
    return [(label, type(choice), choice) for label, choice in path.items()]


@STABLE
@given(SPACES, st.data())
def test_paths(folder, space, data):
    path = a_path(data.draw, space)
    save_path(folder / "path.json", path)
    assert typed(load_path(folder / "path.json", space)) == typed(path)
    assert typed(load_path(folder / "path.json")) == typed(path)


@STABLE
@given(SPACES)
def test_search_spaces(space):
    again = PathSpace.from_search_space(json.loads(json.dumps(space.to_search_space())))
    assert again == space
    assert hash(again) == hash(space)


@STABLE
@given(LIMITS)
def test_constraints(limit):
    assert Constraint.parse(str(limit)) == limit


@st.composite
def tables(draw, metric: str = "flops", low: int = -(2**40)) -> CostTable:
    space = draw(SPACES)
    numbers = draw(st.sampled_from([st.integers(low, 2**40), st.floats(max(low, -1e9), 1e9)]))
    factors = []
    for _ in range(draw(st.integers(0, 3))):
        labels = draw(st.lists(st.sampled_from(space.labels), unique=True, max_size=2))
        shape = [len(space[label]) for label in labels]
        entries = draw(st.lists(numbers, min_size=math.prod(shape), max_size=math.prod(shape)))
        factors.append(Factor(tuple(labels), np.array(entries).reshape(shape)))
    return CostTable(metric, space, draw(numbers), factors)


def same(one: CostTable, other: CostTable) -> bool:
    return one.space == other.space and one.to_json() == other.to_json()


@STABLE
@given(tables(), st.data())
def test_cost_tables(table, data):
    content = json.loads(json.dumps(table.to_json(), allow_nan=False))
    again = CostTable.from_json(content, table.space)
    assert same(again, table)
    path = a_path(data.draw, table.space)
    assert (type(again.price(path)), again.price(path)) == (
        type(table.price(path)), table.price(path),
    )  # fmt: skip


@STABLE
@given(
    tables("latency_ms(cpu)", low=0),
    st.lists(st.tuples(*[st.floats(1e-3, 1e6)] * 2), min_size=1, max_size=4),
    NAMES,
    st.booleans(),
)
@pytest.mark.slow
def test_latency_tables(folder, costs, latencies, name, has_flops):
    predicted, measured = zip(*latencies, strict=True)
    table = LatencyTable(
        costs,
        LatencyConditions("cpu", name, 2, 4, (3, 8, 8), True, "2.6", "2026-01-01"),
        LatencyValidation.compare(predicted, measured),
        CostTable("flops", costs.space, 5) if has_flops else None,
        name,
    )
    table.save(folder / "latency.json")
    again = read_latency_table(folder / "latency.json")
    assert same(again.costs, table.costs)
    assert again.to_json() == table.to_json()
    assert (again.conditions, again.validation, again.name) == (
        table.conditions, table.validation, table.name,
    )  # fmt: skip


@STABLE
@given(SPACES, st.lists(st.tuples(REALS, st.booleans(), NAMES), max_size=4), st.data())
@pytest.mark.slow
def test_journals(folder, space, outcomes, data):
    file = folder / "search.jsonl"
    file.unlink(missing_ok=True)
    settings = {"space": space.to_search_space(), "seed": 1}
    journal = Journal(file, settings)
    candidates = []
    for i, (value, is_done, reason) in enumerate(outcomes):
        path = a_path(data.draw, space)
        candidate = Candidate(path, i, i // 2, {"flops": abs(value)})
        if is_done:
            candidate.state, candidate.metrics = State.DONE, {"top1": value}
        else:
            candidate.state, candidate.reason = State.FAILED, reason
        journal.append(candidate)
        candidates.append(candidate)
    assert read_journal(file) == (settings, candidates)
    assert len(Journal(file, settings).outcomes) == len(candidates)


SECTIONS = {
    "data": st.fixed_dictionaries(
        {"name": st.sampled_from(["digits", "cifar10"])},
        optional={
            "download": st.booleans(),
            "image_size": st.none() | POSITIVE,
            "split_seed": COUNTS,
            "augmentation": st.none() | st.sampled_from(["none", "shift"]),
        },
    ),
    "supernet": st.fixed_dictionaries({"epochs": POSITIVE}),
    "retrain": st.fixed_dictionaries(
        {"steps": POSITIVE},
        optional={
            "learning_rate": st.floats(0, 1e6),
            "momentum": SHARES,
            "seed": COUNTS,
            "initial_weights": st.sampled_from(["random", "supernet"]),
        },
    ),
    "evaluation": st.fixed_dictionaries(
        {}, optional={"recalibrate": st.booleans(), "devices": st.just("auto") | POSITIVE}
    ),
    "search": st.fixed_dictionaries(
        {},
        optional={
            "mutation_prob": SHARES,
            "objective": TEXTS,
            "seed": COUNTS,
            "constraints": st.lists(LIMITS.map(str), max_size=3),
        },
    ),
}
CLASSES = {
    "data": DataSettings,
    "evaluation": EvaluationSettings,
    "search": SearchSettings,
    "retrain": RetrainSettings,
}


def default(field: dataclasses.Field) -> object:
    make = field.default_factory
    return field.default if make is dataclasses.MISSING else make()


def value_of(section: object, key: str) -> object:
    """Return a setting, which may be one of the component that the section names."""
    return getattr(section, key) if hasattr(section, key) else section.arguments[key]


@STABLE
@given(st.fixed_dictionaries(SECTIONS), TEXTS.filter(lambda text: not text.startswith("~")))
@pytest.mark.slow
def test_recipes(folder, sections, output):
    content = {"output": output, "space": {"name": "any:Space", "width": 2}, **sections}
    file = folder / "recipe.yml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    recipe = load_recipe(file)
    for name, cls in CLASSES.items():
        section = getattr(recipe, name)
        assert type(section) is cls
        given_values = {key: value_of(section, key) for key in sections[name]}
        expected = dict(sections[name])
        if "constraints" in expected:
            expected["constraints"] = tuple(map(Constraint.parse, expected["constraints"]))
        assert given_values == expected
        absent = {f.name: default(f) for f in dataclasses.fields(cls) if f.name not in expected}
        absent.pop("folder", None)  # where the recipe is
        absent.pop("arguments", None)  # settings of the component
        assert {key: getattr(section, key) for key in absent} == absent
    assert recipe.space.arguments == {"width": 2}


@STABLE
@given(st.floats(0, 1e12), st.none() | COUNTS, NAMES)
def test_stage_costs(seconds, peak, device):
    cost = StageCost(seconds, peak, device)
    assert read_stage_cost(json.loads(json.dumps(cost.to_json()))) == cost
