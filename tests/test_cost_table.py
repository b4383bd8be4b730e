import functools
import itertools
import json
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_spos import cost_table
from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import CostError, PathError
from nni_spos.path import PathSpace

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


WHOLE = st.integers(-(10**6), 10**12)
REAL = st.floats(-1e9, 1e9)


@st.composite
def tables(draw, entries=WHOLE):
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    space = PathSpace({f"unit_{i}": [f"c{j}" for j in range(n)] for i, n in enumerate(sizes)})
    factors = []
    for labels in draw(st.lists(st.permutations(list(space)), max_size=5)):
        labels = tuple(labels[: draw(st.integers(0, 3))])
        shape = [len(space[label]) for label in labels]
        numbers = draw(st.lists(entries, min_size=(n := int(np.prod(shape))), max_size=n))
        factors.append(Factor(labels, np.array(numbers).reshape(shape)))
    return CostTable("flops", space, draw(entries), factors)


def brute_force(table: CostTable) -> list:
    """Costs of all paths in lexicographic order, straight from the definition."""
    costs = []
    for choices in itertools.product(*table.space.values()):
        position = {
            label: table.space[label].index(c)
            for label, c in zip(table.space, choices, strict=True)
        }
        entries = [f.table[tuple(position[x] for x in f.labels)].item() for f in table.factors]
        # Not with sum(), which has made up for rounding since Python 3.12.
        costs.append(functools.reduce(operator.add, entries, table.constant))
    return costs


@pytest.fixture
def space():
    return PathSpace({"a": ["k3", "k5"], "b": [16, 32, 64]})


@pytest.fixture
def table(space):
    pair = Factor(("b", "a"), np.array([[0, 100], [200, 300], [400, 500]]))
    return CostTable("flops", space, 7, [Factor(("a",), np.array([10, 20])), pair])


def test_price_by_hand(table):
    assert table.price({"a": "k3", "b": 16}) == 7 + 10 + 0
    assert table.price({"a": "k5", "b": 16}) == 7 + 20 + 100
    assert table.price({"b": 64, "a": "k3"}) == 7 + 10 + 400
    assert table.price_many(table.space.enumerate()).tolist() == [17, 217, 417, 127, 327, 527]
    assert table.price_many(table.space.encode([])).shape == (0,)


def test_whole_numbers_stay_whole(table):
    assert type(table.price({"a": "k3", "b": 16})) is int
    assert table.price_many(table.space.enumerate()).dtype == np.int64


def test_extremes_by_hand(table):
    assert table.cheapest() == (17, {"a": "k3", "b": 16})
    assert table.dearest() == (527, {"a": "k5", "b": 64})


def test_a_constant_alone(space):
    table = CostTable("flops", space, 3)
    assert table.price({"a": "k3", "b": 16}) == 3
    assert table.price_many(space.enumerate()).tolist() == [3] * 6
    assert table.cheapest() == (3, {"a": "k3", "b": 16})


@given(tables())
def test_prices_equal_brute_force(table):
    expected = brute_force(table)
    indices = table.space.enumerate()
    assert table.price_many(indices).tolist() == expected
    assert [table.price(path) for path in table.space.decode(indices)] == expected


@given(tables(REAL))
def test_prices_in_floating_point_equal_brute_force(table):
    expected = brute_force(table)
    indices = table.space.enumerate()
    assert table.price_many(indices).tolist() == expected
    assert [table.price(path) for path in table.space.decode(indices)] == expected


@given(tables())
def test_extremes_equal_brute_force(table):
    expected = brute_force(table)
    for (cost, path), extreme in ((table.cheapest(), min), (table.dearest(), max)):
        assert cost == extreme(expected)
        assert table.price(path) == cost
        assert table.space.validate(path) == path


def test_small_integers_do_not_overflow(space):
    hundred = Factor(("a",), np.array([100, 120], dtype=np.int8))
    table = CostTable("flops", space, 0, [hundred, hundred, hundred])
    assert table.price({"a": "k5", "b": 16}) == 360
    assert table.price_many(space.enumerate()).tolist() == [300] * 3 + [360] * 3
    assert table.dearest()[0] == 360


def test_extremes_of_a_long_chain():
    """Twenty labels, each with a factor that it shares with the next: 4^20 combinations."""
    space = PathSpace({f"width_{i:02d}": [8, 16, 24, 32] for i in range(20)})
    labels = list(space)
    product = np.outer([8, 16, 24, 32], [8, 16, 24, 32])
    pairs = itertools.pairwise(labels)
    table = CostTable("flops", space, 0, [Factor(pair, product) for pair in pairs])
    assert table.cheapest() == (19 * 64, dict.fromkeys(labels, 8))
    assert table.dearest() == (19 * 1024, dict.fromkeys(labels, 32))


def test_joint_tables_are_bounded(space, monkeypatch):
    factors = [Factor((label,), np.zeros(len(space[label]))) for label in space]
    chain = [*factors, Factor(("a", "b"), np.zeros((2, 3)))]
    monkeypatch.setattr(cost_table, "MAX_JOINT_SIZE", 6)
    assert CostTable("flops", space, 0, chain).cheapest()[0] == 0
    monkeypatch.setattr(cost_table, "MAX_JOINT_SIZE", 5)
    assert CostTable("flops", space, 0, factors).dearest()[0] == 0
    message = "cost table flops: the costs around a depend on each other in more than 5 comb"
    for extreme in ("cheapest", "dearest"):
        with pytest.raises(CostError, match=message):
            getattr(CostTable("flops", space, 0, chain), extreme)()


def test_price_refuses_a_path_of_another_space(table):
    with pytest.raises(PathError, match=r"label 'a': 'k9' is not a choice. Choices: k3, k5."):
        table.price({"a": "k9", "b": 16})
    with pytest.raises(PathError, match="label 'b': '16' is not a choice"):
        table.price({"a": "k3", "b": "16"})
    with pytest.raises(PathError, match=r"label 'b': \[16\] is not a choice"):
        table.price({"a": "k3", "b": [16]})
    with pytest.raises(PathError, match=r"the path has no choice for b."):
        table.price({"a": "k3"})


@pytest.mark.parametrize(
    ("labels", "entries", "message"),
    [
        (("c",), [1, 2], "cost table flops: label 'c' is not in the space."),
        (("a", "a"), [[1, 2], [3, 4]], "the factor of a, a names a label twice."),
        (
            ("a",),
            [1, 2, 3],
            r"the factor of a has shape \(3,\); the space's choices need \(2,\).",
        ),
        (("b", "a"), [[1, 2, 3], [4, 5, 6]], r"of b, a has shape \(2, 3\).* need \(3, 2\)."),
        (("a",), [1, float("nan")], "the factor of a has an entry that is not a finite number."),
        (("a",), [1, float("inf")], "an entry that is not a finite number"),
        (("a",), ["1", "2"], "an entry that is not a finite number"),
        (("a",), [True, False], "an entry that is not a finite number"),
        (("a",), [1, 10**30], "an entry that is not a finite number"),
        (("a",), [1, None], "an entry that is not a finite number"),
    ],
)
def test_refuses_a_wrong_factor(space, labels, entries, message):
    factor = Factor(labels, np.array(entries))
    with pytest.raises(CostError, match=message):
        CostTable("flops", space, 0, [factor])


def test_refuses_a_wrong_constant(space):
    with pytest.raises(CostError, match=r"cost table flops: the constant nan is not finite."):
        CostTable("flops", space, float("nan"))
    assert CostTable("flops", space, 1.5).cheapest()[0] == 1.5


def through_json(table: CostTable) -> CostTable:
    text = json.dumps(table.to_json(), allow_nan=False)
    return CostTable.from_json(json.loads(text), table.space)


@given(tables() | tables(REAL))
@settings(max_examples=50)
def test_json_round_trip(table):
    again = through_json(table)
    assert again.metric == table.metric
    assert brute_force(again) == brute_force(table)
    assert [type(cost) for cost in brute_force(again)] == [type(c) for c in brute_force(table)]
    assert again.to_json() == table.to_json()


DAMAGE = [
    ({"constant": "7"}, "not a cost table"),
    ({"constant": None}, "not a cost table"),
    ({"constant": 10**400}, "not a cost table"),
    ({"constant": float("inf")}, "the constant inf is not finite"),
    ({"metric": 3}, "the name of a cost must be text, got 3."),
    ({"factors": None}, "not a cost table"),
    ({"factors": [{"labels": ["a"]}]}, r"not a cost table \(KeyError: 'table'\)"),
    ({"factors": [{"labels": ["a"], "table": [[1], [2, 3]]}]}, "not a cost table"),
    ({"factors": [{"labels": [["a"]], "table": [1, 2]}]}, "not a cost table"),
    ({"factors": [{"labels": ["z"], "table": [1, 2]}]}, "label 'z' is not in the space"),
    ({"factors": [{"labels": ["a"], "table": []}]}, r"has shape \(0,\)"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGE)
def test_damaged_json_is_refused(table, change, message):
    with pytest.raises(CostError, match=message):
        CostTable.from_json(table.to_json() | change, table.space)


@pytest.mark.parametrize("key", ["metric", "constant", "factors"])
def test_json_without_a_key_is_refused(table, key):
    content = table.to_json()
    del content[key]
    with pytest.raises(CostError, match="not a cost table"):
        CostTable.from_json(content, table.space)


def test_json_of_another_space_is_refused(table):
    other = PathSpace({"a": ["k3", "k5"], "b": [16, 32]})
    with pytest.raises(CostError, match="the factor of b, a has shape"):
        CostTable.from_json(table.to_json(), other)


@given(
    JSON
    | st.fixed_dictionaries(
        {
            "metric": st.just("flops") | JSON,
            "constant": st.integers() | JSON,
            "factors": JSON
            | st.lists(
                st.fixed_dictionaries(
                    {
                        "labels": st.lists(st.sampled_from("ab")) | JSON,
                        "table": st.lists(st.integers(), min_size=2, max_size=3) | JSON,
                    }
                )
            ),
        }
    )
)
def test_any_json_is_read_or_refused(content):
    space = PathSpace({"a": ["k3", "k5"], "b": [16, 32, 64]})
    try:
        table = CostTable.from_json(content, space)
    except CostError:
        return
    assert brute_force(table) == [table.price(p) for p in space.decode(space.enumerate())]
