import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_spos.errors import PathError
from nni_spos.path import PathSpace, load_path, save_path

CHOICE = (
    st.text(max_size=5)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
)
CHOICES = st.lists(CHOICE, min_size=1, max_size=4, unique_by=lambda c: (type(c), c))
SPACES = st.dictionaries(st.text(max_size=5), CHOICES, min_size=1, max_size=4).map(PathSpace)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.fixture
def space():
    return PathSpace({"layer": ["k3", "k5"], "width": [16, 32, 64], "bits": [2]})


def test_a_space_is_a_mapping_in_the_order_given(space):
    assert dict(space) == {"layer": ("k3", "k5"), "width": (16, 32, 64), "bits": (2,)}
    assert space.labels == ("layer", "width", "bits")
    assert space.num_choices == (2, 3, 1)
    assert space.size == 6


def test_size_is_exact_beyond_64_bits():
    assert PathSpace({str(i): [0, 1, 2, 3] for i in range(50)}).size == 4**50


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "a search space needs at least one label with choices."),
        ({1: ["k3"]}, "label 1 must be text."),
        ({"a": []}, "label 'a' has no choices."),
        ({"a": ["k3", "k5", "k3"]}, "label 'a' names a choice twice: k3, k5, k3."),
        ({"a": [None]}, "label 'a': None cannot be a choice. Allowed: text, finite numbers"),
        ({"a": [["k3"]]}, r"label 'a': \['k3'\] cannot be a choice."),
        ({"a": [1.0, float("nan")]}, "label 'a': nan cannot be a choice."),
        ({"a": [float("inf")]}, "label 'a': inf cannot be a choice."),
        ({"a": [np.int64(3)]}, r"label 'a': (np.int64\()?3\)? cannot be a choice."),
    ],
)
def test_refuses_what_is_not_a_space(choices, message):
    with pytest.raises(PathError, match=message):
        PathSpace(choices)


@pytest.mark.parametrize(
    "choices",
    [{"1": ["k3"]}, {"a": ["k3"]}, {"": [""]}, {"a": [1, 1.0, True, "1"]}, {"a": [1e308, -0.5]}],
)
def test_accepts_the_neighbours(choices):
    assert dict(PathSpace(choices)) == {label: tuple(c) for label, c in choices.items()}


def test_equality_knows_types_and_order():
    ones = PathSpace({"a": [1, 2], "b": [0]})
    assert ones == PathSpace({"a": [1, 2], "b": [0]})
    assert hash(ones) == hash(PathSpace({"a": [1, 2], "b": [0]}))
    assert ones != PathSpace({"a": [True, 2], "b": [0]})
    assert ones != PathSpace({"a": [1.0, 2], "b": [0]})
    assert ones != PathSpace({"a": [2, 1], "b": [0]})
    assert ones != PathSpace({"b": [0], "a": [1, 2]})
    assert ones != {"a": (1, 2), "b": (0,)}


def test_validate_orders_the_labels(space):
    path = space.validate({"bits": 2, "width": 16, "layer": "k5"})
    assert list(path.items()) == [("layer", "k5"), ("width", 16), ("bits", 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "k9"}, "label 'layer': 'k9' is not a choice. Choices: k3, k5."),
        (
            {"width": "16"},
            r"label 'width': '16' is not a choice \(did you mean 16, a int\?\). "
            "Choices: 16, 32, 64.",
        ),
        ({"width": 16.0}, "label 'width': 16.0 is not a choice. Choices: 16, 32, 64."),
        ({"bits": True}, "label 'bits': True is not a choice. Choices: 2."),
        ({"bits": [2]}, r"label 'bits': \[2\] is not a choice"),
        (
            {"wdith": 16},
            "'wdith' is not in the search space; did you mean 'width'[?] Labels: layer",
        ),
        ({"zzz": 16}, "label 'zzz' is not in the search space. Labels: layer, width, bits."),
    ],
)
def test_validate_refuses(space, change, message):
    with pytest.raises(PathError, match=message):
        space.validate({"layer": "k3", "width": 16, "bits": 2} | change)


def test_validate_names_the_missing_labels(space):
    with pytest.raises(PathError, match=r"the path has no choice for width, bits."):
        space.validate({"layer": "k3"})
    with pytest.raises(PathError, match="a path maps every label to a choice, got list"):
        space.validate(["k3", 16, 2])


def test_long_lists_are_shortened():
    space = PathSpace({"a": list(range(100))})
    with pytest.raises(PathError, match=r"Choices: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..., 99\.$"):
        space.validate({"a": 100})


def test_key_encode_and_decode_by_hand(space):
    paths = [{"layer": "k5", "width": 64, "bits": 2}, {"bits": 2, "width": 16, "layer": "k3"}]
    assert space.key(paths[0]) == (1, 2, 0)
    indices = space.encode(paths)
    assert indices.dtype == np.int64
    assert indices.tolist() == [[1, 2, 0], [0, 0, 0]]
    assert space.decode(indices) == paths
    assert space.encode([]).shape == (0, 3)
    assert space.decode(space.encode([])) == []


def test_choices_of_equal_value_and_different_type_stay_apart():
    space = PathSpace({"a": [1, 1.0, True, "1"]})
    decoded = [path["a"] for path in space.decode([[0], [1], [2], [3]])]
    assert [type(choice) for choice in decoded] == [int, float, bool, str]
    assert space.encode([{"a": choice} for choice in decoded]).tolist() == [[0], [1], [2], [3]]


def test_enumerate_is_every_path_in_lexicographic_order(space):
    assert space.enumerate().tolist() == [
        list(row) for row in itertools.product(range(2), range(3), range(1))
    ]


def test_enumerate_knows_no_limit_on_labels():
    # numpy's own grids end at 64 dimensions (32 before numpy 2).
    space = PathSpace({str(i): [0, 1] if i in (3, 99) else [0] for i in range(100)})
    indices = space.enumerate()
    assert indices.shape == (4, 100)
    assert indices[:, [3, 99]].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert indices.sum() == 4


@given(SPACES, st.data())
def test_encode_and_decode_are_inverse(space, data):
    rows = st.tuples(*(st.integers(0, n - 1) for n in space.num_choices))
    indices = data.draw(st.lists(rows, max_size=5))
    paths = space.decode(np.array(indices, dtype=np.int64).reshape(len(indices), len(space)))
    assert [tuple(row) for row in space.encode(paths).tolist()] == indices
    assert [space.validate(path) for path in paths] == paths


@given(SPACES)
def test_search_space_json_round_trip(space):
    text = json.dumps(space.to_search_space(), allow_nan=False)
    assert PathSpace.from_search_space(json.loads(text)) == space


@given(JSON | st.dictionaries(st.text(max_size=5), st.fixed_dictionaries({}, optional={
    "_type": st.just("choice") | JSON, "_value": st.lists(CHOICE, max_size=3) | JSON,
})))  # fmt: skip
def test_any_search_space_is_read_or_refused(content):
    try:
        space = PathSpace.from_search_space(content)
    except PathError:
        return
    assert space.to_search_space().keys() == content.keys()


def test_search_space_of_nni():
    content = {"a": {"_type": "choice", "_value": ["k3", 5]}}
    assert PathSpace.from_search_space(content).to_search_space() == content


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"_type": "uniform", "_value": [0, 1]},
            "label 'a': {'_type': 'uniform', '_value': .0, 1.} is not supported. "
            r'Allowed: {"_type": "choice", "_value": \[...\]}.',
        ),
        ({"_type": "choice"}, "is not supported"),
        ({"_type": "choice", "_value": "k3"}, "is not supported"),
        ({"_type": "choice", "_value": [{"_name": "nested"}]}, "cannot be a choice"),
        (["k3"], "is not supported"),
        ({("not", "json")}, "is not supported"),
    ],
)
def test_search_space_refuses_other_types(entry, message):
    with pytest.raises(PathError, match=message):
        PathSpace.from_search_space({"a": entry})


def test_search_space_must_be_a_mapping():
    with pytest.raises(PathError, match="maps every label to its choices"):
        PathSpace.from_search_space([])


def test_model_space_with_single_choices_only():
    mutables = {"a": SimpleNamespace(values=["k3", "k5"]), "b": SimpleNamespace(values=[1, 2])}
    model_space = SimpleNamespace(simplify=lambda: mutables)
    assert PathSpace.from_model_space(model_space) == PathSpace({"a": ["k3", "k5"], "b": [1, 2]})
    mutables["c"] = SimpleNamespace(values=[1, 2], n_chosen=2)
    with pytest.raises(PathError, match="label 'c' is a SimpleNamespace; only single choices"):
        PathSpace.from_model_space(model_space)


def test_save_and_load(space, tmp_path):
    file = tmp_path / "best.json"
    path = {"layer": "k5", "width": 16, "bits": 2}
    save_path(file, path)
    assert json.loads(file.read_text()) == path
    assert load_path(file) == path
    assert load_path(file, space) == path


def test_load_names_the_file(space, tmp_path):
    file = tmp_path / "best.json"
    with pytest.raises(PathError, match=r"best.json: no such file."):
        load_path(file)
    file.write_text("[1]")
    with pytest.raises(PathError, match=r"best.json: a path is one JSON object"):
        load_path(file)
    file.write_text('{"layer": "k9", "width": 16, "bits": 2}')
    with pytest.raises(PathError, match=r"best.json: label 'layer': 'k9' is not a choice"):
        load_path(file, space)
    assert load_path(file)["layer"] == "k9"
