import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_spos.constraint import Constraint, format_cost
from nni_spos.errors import ConstraintError
from nni_spos.metrics import format_metric

METRICS = st.from_regex(r"[a-z][a-z0-9_]{0,8}(\([A-Za-z0-9_.:-]{1,8}\))?", fullmatch=True)
BOUNDS = (
    st.floats(0, allow_infinity=False)
    | st.integers(0, 10**12).map(float)
    | st.builds(math.ldexp, st.integers(0, 10**6), st.sampled_from([9, 10, 20, 30]))
)


@pytest.mark.parametrize(
    ("text", "metric", "low", "high"),
    [
        ("flops <= 330M", "flops", -math.inf, 330e6),
        ("flops<=330M", "flops", -math.inf, 330e6),
        ("  params  >=  1.5 k ", "params", 1500, math.inf),
        ("290M <= flops <= 360M", "flops", 290e6, 360e6),
        ("5 <= flops <= 5", "flops", 5, 5),
        ("0 <= flops <= 2e3k", "flops", 0, 2e6),
        ("bitops <= 6.32G", "bitops", -math.inf, 6_320_000_000),
        ("bitops <= 6.32Gi", "bitops", -math.inf, 6_786_048_327.68),
        ("1Ki <= params <= 1.5 Mi", "params", 1024, 1_572_864),
        ("params >= 2e1Ki", "params", 20_480, math.inf),
        ("latency_ms(gpu-1.v2) <= 2.5", "latency_ms(gpu-1.v2)", -math.inf, 2.5),
    ],
)
def test_parse(text, metric, low, high):
    assert Constraint.parse(text) == Constraint(metric, low, high)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flops < 330M", "'flops < 330M' is not a constraint. Write METRIC <= NUMBER, METRIC >="),
        ("330M >= flops", "is not a constraint"),
        ("flops <= 330M extra", "is not a constraint"),
        ("flops <= -1", "is not a constraint"),
        ("flops <= nan", "is not a constraint"),
        ("Flops <= 1", "is not a constraint"),
        ("flops <= 1,000", "is not a constraint"),
        ("flops <= \u0663", "is not a constraint"),
        ("", "is not a constraint"),
        (330, "330 is not a constraint"),
        (None, "None is not a constraint"),
        ("flops <= 330m", "'flops <= 330m': unknown unit 'm'. Write METRIC"),
        ("flops <= 330 MB", "unknown unit 'MB'"),
        (
            "bitops <= 1Gib",
            r"unknown unit 'Gib'.* in Ki, Mi or Gi \(2\^10, 2\^20, 2\^30\), or in %, a share",
        ),
        ("bitops <= 1ki", "unknown unit 'ki'"),
        ("bitops <= 1Ti", "unknown unit 'Ti'"),
        ("flops <= 1e999", "'flops <= 1e999': the number is too large. Leave the limit out"),
        ("1e308G >= flops", "is not a constraint"),
        ("flops <= 1e308G", "too large"),
        ("bitops <= 1e300Gi", "too large"),
        ("2k <= flops <= 1k", "constraint on flops: the lower bound 2k exceeds the upper bound 1k"),
        ("3.5Gi <= bitops <= 2Gi", "the lower bound 3.5Gi exceeds the upper bound 2Gi"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ConstraintError, match=message):
        Constraint.parse(text)


def test_the_largest_numbers_that_units_allow():
    assert Constraint.parse("flops <= 1e299G").high == 1e308
    assert Constraint.parse("bitops <= 1e298Gi").high == 1e298 * 2**30


def test_bounds_must_be_numbers():
    with pytest.raises(ConstraintError, match=r"constraint on flops: a bound is not a number."):
        Constraint("flops", high=math.nan)


def test_both_bounds_are_allowed_values():
    limit = Constraint.parse("3 <= flops <= 5")
    assert [cost for cost in range(8) if limit.allows(cost)] == [3, 4, 5]
    assert Constraint.parse("flops <= 5").allows(0)
    assert Constraint.parse("flops >= 5").allows(1e300)
    assert not limit.allows(math.nan)


def test_a_unit_costs_no_precision():
    # 0.268028144 * 1e9 is 268028143.99999997 in floating point.
    assert Constraint.parse("flops <= 0.268028144G").allows(268_028_144)
    assert Constraint.parse("flops >= 0.268028144G").allows(268_028_144)


@given(st.integers(0, 10**12), st.sampled_from(["k", "M", "G"]))
def test_decimals_before_a_unit_are_exact(cost, unit):
    digits = {"k": 3, "M": 6, "G": 9}[unit]
    whole, fraction = divmod(cost, 10**digits)
    limit = Constraint.parse(f"flops <= {whole}.{fraction:0{digits}d}{unit}")
    assert limit.high == cost


@given(
    st.integers(0, 10**18),
    st.integers(0, 12),
    st.sampled_from([("Ki", 2**10), ("Mi", 2**20), ("Gi", 2**30), ("k", 10**3), ("G", 10**9)]),
)
def test_a_bound_is_the_float_nearest_to_what_the_text_means(digits, num_decimals, unit):
    name, scale = unit
    whole, fraction = divmod(digits, 10**num_decimals)
    limit = Constraint.parse(f"bitops <= {whole}.{fraction:0{num_decimals}d}{name}")
    # Dividing whole numbers rounds once, correctly.
    assert limit.high == digits * scale / 10**num_decimals


def test_a_long_number_is_rounded_once():
    # Halfway between 1 and the next float, as a multiple of 2^10: 63 decimals.
    halfway = f"0.{(2**53 + 1) * 5**63:063d}"
    assert Constraint.parse(f"bitops <= {halfway}Ki").high == 1
    assert Constraint.parse(f"bitops <= {halfway}01Ki").high == 1 + 2**-52


@pytest.mark.parametrize(
    "text",
    [
        "flops <= 330M",
        "flops >= 1.5k",
        "290M <= flops <= 360M",
        "flops <= 322918720",
        "flops <= 322.919M",
        "latency_ms(cpu) <= 0.1",
        "bitops <= 6.32Gi",
        "bitops >= 14.21Gi",
        "1Ki <= params <= 1.5Mi",
        "bitops <= 6.3164063Gi",
        "bitops <= 1025Ki",
    ],
)
def test_text_is_as_short_as_is_exact(text):
    assert str(Constraint.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("params <= 2000Ki", "params <= 2.048M"),  # as long, so the SI unit
        ("params <= 2200Ki", "params <= 2200Ki"),  # 2252800 is longer, 2.2528M as well
        ("params <= 1048576", "params <= 1Mi"),
        ("bitops <= 6786048327.68", "bitops <= 6.32Gi"),
        ("bitops <= 1536Mi", "bitops <= 1.5Gi"),
        ("bitops <= 0.5Ki", "bitops <= 512"),
    ],
)
def test_other_texts_of_a_bound_become_the_shortest(text, written):
    assert str(Constraint.parse(text)) == written


@given(METRICS, BOUNDS, BOUNDS, st.sampled_from(["low", "high", "both"]))
def test_text_round_trip(metric, one, other, sides):
    low, high = sorted([one, other])
    limit = Constraint(
        metric, -math.inf if sides == "high" else low, math.inf if sides == "low" else high
    )
    assert Constraint.parse(str(limit)) == limit


@given(
    st.text(max_size=30) | st.lists(st.sampled_from(
        ["flops", "<=", ">=", " ", "1", "1.5", "e", "9" * 30, "k", "M", "x", "(", ")", "\n", "-"]
    )).map("".join)
)  # fmt: skip
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        limit = Constraint.parse(text)
    except ConstraintError as problem:
        message = str(problem)
        assert "\n" not in message
    else:
        assert limit.low <= limit.high
        assert math.isfinite(limit.low) or math.isfinite(limit.high)


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (322_918_720, "322.919M"),
        (6.32e9, "6.32G"),
        (-2000, "-2k"),
        (0.25, "0.25"),
        (math.inf, "inf"),
    ],
)
def test_format_cost(cost, text):
    assert format_cost(cost) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1Ki"),
        (1_572_864, "1.5Mi"),
        (6_786_048_327.68, "6.32Gi"),
        (-2048, "-2Ki"),
        (math.inf, "inf"),
    ],
)
def test_format_cost_in_binary_units(cost, text):
    assert format_cost(cost, binary=True) == text


@pytest.mark.parametrize(
    ("metric", "cost", "text"),
    [
        # ResNet-18 with 2-bit weights and activations: 1,695,547,392 multiply-adds times 4.
        ("bitops", 6_782_189_568, "6.31641Gi"),
        ("size_bytes", 11_689_512, "11.6895MB"),
        ("size_bytes", 512, "512B"),
        ("flops", 322_918_720, "322.919M"),
        ("params", 1024, "1.024k"),
        ("latency_ms(cpu)", 12.5, "12.5"),
    ],
)
def test_format_metric(metric, cost, text):
    assert format_metric(metric, cost) == text


@pytest.mark.parametrize("kind", [int, float, np.int64, np.float64])
def test_a_path_that_costs_exactly_its_share_is_allowed(kind):
    """0.29 * 100 is less than 29, and 0.07 * 100 more than 7."""
    for percent in range(1, 101):
        limit = Constraint.parse(f"flops <= {percent}%").of(kind(700))
        assert limit == Constraint("flops", high=7 * percent)
    assert str(Constraint.parse("30.07% <= flops <= 60.1%").of(kind(1400))) == (
        "420.98 <= flops <= 841.4"
    )
