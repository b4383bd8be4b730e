"""Any value and any bytes: a valid object, or one clear line."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hostile import JSON, NUMBERS, STABLE, TEXTS, changed, read_or_refused
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import MAX_LENGTH, DataError, PathError, one_line
from nni_spos.evolution import Journal
from nni_spos.files.atomic import read_json
from nni_spos.files.tensors import load_tensors
from nni_spos.files.yaml_files import read_yaml
from nni_spos.latency.table import (
    LatencyConditions,
    LatencyTable,
    LatencyValidation,
    read_latency_table,
)
from nni_spos.path import PathSpace, load_path
from nni_spos.process.stage_cost import read_stage_cost
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.results import load_results
from nni_spos.search.run_record import read_run_record
from nni_spos.search.score_cache import ScoreCache
from nni_spos.spaces.nasbench_macro import SPACE, load_nas_bench_macro
from nni_spos.spaces.trained_networks import NUM_TRAININGS
from nni_spos.supernet import load_supernet
from nni_spos.training.checkpoints import check_identity
from nni_spos.values import expands_beyond, is_finite, plain_parts, shown
from nni_spos.worker.reception import Reception

A_SPACE = PathSpace({"a": ["k3", "k5"], "b": [1, 1.0, True]})
PATH = {"a": "k3", "b": 1.0}
TABLE = CostTable("flops", A_SPACE, 7, [Factor(("a",), np.array([1, 2]))])
CONDITIONS = LatencyConditions("cpu", "m", 1, 1, (1, 8, 8), True, "2.6", "2026-01-01")
LATENCY = LatencyTable(
    CostTable("latency_ms(cpu)", A_SPACE, 1.5, [Factor(("b",), np.array([0.5, 1.0, 2.0]))]),
    CONDITIONS,
    LatencyValidation.compare([1.0, 2.0], [1.0, 2.5]),
    TABLE,
).to_json()
LATENCY = json.loads(json.dumps(LATENCY))
RECIPE = {
    "output": "runs",
    "space": {"name": "shufflenet", "stage_repeats": [1, 2]},
    "data": {"name": "digits", "root": "data"},
    "supernet": {"epochs": 3, "prior": "constrained", "prior_quantiles": [0, 1]},
    "search": {"constraints": ["flops <= 3M"], "population_size": 3},
    "retrain": {"steps": 4, "learning_rate": 0.1},
    "latency": ["cpu.json"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@STABLE
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b'{"a": 1, "a": 2}')
def test_any_bytes_as_json(folder, content):
    (folder / "any.json").write_bytes(content)
    read_or_refused(lambda: read_json(folder / "any.json", PathError), "any.json")


@STABLE
@given(changed(st.just(PATH)))
def test_any_path(folder, content):
    file = folder / "path.json"
    file.write_text(json.dumps(content))
    path = read_or_refused(lambda: load_path(file, A_SPACE), "path.json")
    assert path is None or A_SPACE.key(path)
    path = read_or_refused(lambda: load_path(file), "path.json")
    assert not path or PathSpace({label: [choice] for label, choice in path.items()})


@STABLE
@given(changed(st.just(A_SPACE.to_search_space())))
def test_any_search_space(content):
    space = read_or_refused(lambda: PathSpace.from_search_space(content))
    if space is not None:
        json.dumps(space.to_search_space(), allow_nan=False)
        read_or_refused(lambda: space.validate(content if isinstance(content, dict) else {}))


@STABLE
@given(TEXTS | JSON | st.lists(st.sampled_from(
    ["flops", "<=", ">=", " ", "1", "1.5", "e", "9" * 400, "k", "Gi", "(", ")", "-", "e308"]
), max_size=8).map("".join))  # fmt: skip
@example("9" * 1_000_000)
@example("flops <= " + "9" * 300)
@example("flops <= 1." + "1" * 100_000)
def test_any_constraint(text):
    limit = read_or_refused(lambda: Constraint.parse(text))
    assert limit is None or limit.low <= limit.high


@STABLE
@given(changed(st.just(TABLE.to_json())))
def test_any_cost_table(content):
    table = read_or_refused(lambda: CostTable.from_json(content, A_SPACE))
    if table is not None:
        paths = A_SPACE.enumerate()
        exact = [table.price(path) for path in A_SPACE.decode(paths)]
        assert table.price_many(paths).tolist() == pytest.approx(exact)
        assert all(map(is_finite, exact))
        assert table.cheapest()[0] <= table.dearest()[0]


@pytest.mark.parametrize(
    ("constant", "entry", "is_accepted"),
    [
        (2**62, 2**62 - 1, True),
        (2**62, 2**62, False),
        (-(2**62), 2**62, False),
        (0, -(2**63), False),
        (1e308, 0.7e308, True),
        (1e308, 1e308, False),
        (0.5, 2**62, True),
    ],
)
def test_costs_that_are_too_large_to_be_added_up(constant, entry, is_accepted):
    content = {**TABLE.to_json(), "constant": constant}
    content["factors"] = [{"labels": ["a"], "table": [0, entry]}]
    table = read_or_refused(lambda: CostTable.from_json(content, A_SPACE))
    assert (table is not None) == is_accepted
    if table is not None:
        assert table.price_many(np.array([[1, 0]])).tolist() == [constant + entry]


@STABLE
@given(changed(st.just(LATENCY)))
def test_any_latency_table(folder, content):
    (folder / "latency.json").write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = lambda: read_latency_table(folder / "latency.json")  # noqa: E731
        table = read_or_refused(read, "latency.json")
        if table is not None:
            assert table.describe()
            json.dumps(table.to_json(), allow_nan=False)


@STABLE
@given(changed(st.just(RECIPE)))
@pytest.mark.slow
def test_any_recipe(folder, content):
    file = folder / "recipe.yml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    recipe = read_or_refused(lambda: load_recipe(file), "recipe.yml")
    if recipe is not None:
        assert not recipe.checkpoint.exists()
        assert not any(table.exists() for table in recipe.latency)


@STABLE
@given(st.text(max_size=30) | st.lists(st.sampled_from([
    "a: ", "- ", "&x ", "*x", "<<: *x", "\n", "[", "]", "{", "}", ", ", "!!int ", "!!set ", "? ",
    "0x" + "f" * 5000, "1:" * 400 + "1", "9" * 5000, "!!python/name:os.system ", "!!binary x", "=",
    "!!timestamp 2024-99-99", "\ud800", "\0", "'", '"', "|", "~", "%TAG ! x", "---", "...",
]), max_size=8).map("".join))  # fmt: skip
def test_any_yaml(folder, text):
    file = folder / "any.yml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    content = read_or_refused(lambda: read_yaml(file), "any.yml")
    assert content is None or repr(content)


HEADER = {"journal_version": 1, "settings": {"search": {"objective": "top1"}}}
RECORD = {
    "number": 0, "generation": 0, "path": PATH, "costs": {"flops": 8}, "metrics": {"top1": 5.0},
}  # fmt: skip


@STABLE
@given(changed(st.just(HEADER)), st.lists(changed(st.just(RECORD)), max_size=3))
def test_any_journal(folder, header, records):
    lines = [json.dumps(line) for line in (header, *records)]
    (folder / "search.jsonl").write_text("".join(f"{line}\n" for line in lines))
    results = read_or_refused(lambda: load_results(folder), "search.jsonl")
    if results is not None:
        table = results.format_table()
        assert all(line.isprintable() for line in table.split("\n"))
        assert len(table.split("\n")) in (1, results.num_done + 1)
        assert results.num_done + results.num_failed == len(results.candidates)
        assert all(isinstance(text, str) for text in [results.objective])
    settings = header.get("settings") if isinstance(header, dict) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_or_refused(lambda: Journal(folder / "search.jsonl", settings or {}), "search.jsonl")


@STABLE
@given(changed(st.just({"recipe": "r.yml", "cost": {"seconds": 1, "peak_memory_bytes": 2}})))
@example({"cost": {"seconds": 10**400}})
@example({"cost": {"seconds": 1, "peak_memory_bytes": float("nan")}})
def test_any_run_record(folder, content):
    (folder / "run.json").write_text(json.dumps(content))
    record = read_run_record(SearchFolder(folder))
    assert record.cost is None or is_finite(record.cost.seconds)
    cost = content.get("cost") if isinstance(content, dict) else None
    assert read_stage_cost(cost) is None or cost["seconds"] >= 0


@STABLE
@given(st.lists(changed(st.just({"path": PATH, "results": {"top1": 5.0}})), max_size=3))
def test_any_score_cache(folder, entries):
    file = folder / "scores.jsonl"
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    cache = ScoreCache(file, A_SPACE)
    found = cache.get(PATH)
    assert found is None or all(isinstance(value, float) for value in found.values())
    cache.put(PATH, {"top1": 4.0})
    assert cache.get(PATH) == {"top1": 4.0}


class FakeTrial:
    """A connected trial that sends one message and takes the answer."""

    def __init__(self, message):
        self._message = message

    def receive(self):
        return self._message


@STABLE
@given(changed(st.just({"manager": [1, 2.0], "path": PATH})))
@example({"manager": [-5, 1.0], "path": PATH})
@example({"manager": [float("inf"), 1.0], "path": PATH})
def test_any_message_to_a_worker(message):
    reception = Reception(endpoint=None)
    try:
        request = reception._read(FakeTrial(message))
    except (ValueError, LookupError, TypeError, OverflowError):
        pass  # what the worker answers in a line
    else:
        assert isinstance(request.path, dict)
    assert reception.is_deserted() in (True, False)


ENTRY = {"test_acc": [90.0] * NUM_TRAININGS, "params": 5, "flops": 7}
WHOLE = {"".join(map(str, key)): ENTRY for key in SPACE.enumerate().tolist()}


@pytest.mark.slow
@settings(STABLE, max_examples=25)  # the table is large
@given(changed(st.just(ENTRY)))
def test_any_entry_of_nas_bench_macro(folder, entry):
    content = json.dumps({**WHOLE, "00000000": entry})
    (folder / "macro.json").write_text(content)
    table = read_or_refused(lambda: load_nas_bench_macro(folder / "macro.json"), "macro.json")
    assert table is None or np.isfinite(table.accuracies).all()


@STABLE
@given(st.binary(max_size=60))
def test_any_bytes_as_checkpoint(folder, content):
    (folder / "any.pt").write_bytes(content)
    assert read_or_refused(lambda: load_tensors(folder / "any.pt"), "any.pt") is None


SUPERNET = {
    "supernet_version": 1,
    "space": A_SPACE.to_search_space(),
    "weights": {"a": torch.zeros(2)},
    "preprocessing": {"image_size": 8},
}


@STABLE
@given(changed(st.just(SUPERNET)))
def test_any_content_of_a_supernet(folder, content):
    torch.save(content, folder / "supernet.pt")
    found = read_or_refused(lambda: load_supernet(folder / "supernet.pt"), "supernet.pt")
    assert found is None or isinstance(found.space, PathSpace)


TRAINING = {"loops": {}, "nni_spos": {"settings": {"epochs": 3}, "space": {"name": "x"}}}


@STABLE
@given(changed(st.just(TRAINING)))
def test_any_checkpoint_of_a_training(folder, content):
    file = folder / "step_0000001.ckpt"
    torch.save(content, file)
    read_or_refused(lambda: check_identity(file, copy.deepcopy(TRAINING["nni_spos"])), file.name)


@STABLE
@given(st.text() | TEXTS)
@example("\x1b" * MAX_LENGTH)
def test_any_text_of_an_error(text):
    line = str(DataError(text))
    assert line == "" or line.isprintable()
    assert len(line) <= MAX_LENGTH
    assert one_line(line) == line, "once is enough"
    assert line == text or not text.isprintable() or len(text) > MAX_LENGTH


@STABLE
@given(JSON | st.binary() | NUMBERS)
def test_any_value_is_shown(value):
    assert 0 < len(shown(value)) <= 80


def size(value) -> int:
    if isinstance(value, dict):
        return 1 + sum(size(x) for pair in value.items() for x in pair)
    return 1 + sum(map(size, value)) if isinstance(value, list) else 1


@STABLE
@given(JSON, st.integers(1, 20))
def test_parts_are_counted(value, limit):
    shared = [value, value, {"again": value}]
    assert expands_beyond(shared, limit, plain_parts) == (size(shared) > limit)
