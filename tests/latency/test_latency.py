"""Figures by hand: modules take as long as a test says, on a clock that nothing else moves."""

import itertools
import json
import warnings

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d
from scipy import stats
from torch import nn

from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import CostError
from nni_spos.latency import table as latency_table
from nni_spos.latency.accuracy import mape, spearman
from nni_spos.latency.profiler import LatencyProfiler
from nni_spos.latency.switched import MAX_COMBINATIONS
from nni_spos.latency.table import (
    LatencyConditions,
    LatencyTable,
    LatencyValidation,
    LatencyWarning,
    load_latency_table,
    read_latency_table,
)
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.spaces import ShuffleNetV2Space

IMAGE = (3, 6, 6)
# In the usual memory format: a look at the other one would be runs as well.
QUIET = {"rounds": 3, "repeats": 2, "channels_last": False}


class Clock:
    """A stopwatch whose time is moved by the modules below, and what they did."""

    def __init__(self, stretch=lambda calls: 1.0):
        self.now = 0.0
        self.stretch = stretch  # number of calls so far to how slow the machine is
        self.log = []

    def __deepcopy__(self, memo):
        return self

    def read(self):
        return self.now

    def finish(self):
        pass

    def milliseconds(self, start, end):
        return end - start

    def take(self, name, ms):
        self.now += ms * self.stretch(len(self.log))
        self.log.append(name)


class Takes(nn.Identity):
    def __init__(self, clock, ms, name=""):
        super().__init__()
        self.clock, self.ms, self.name = clock, ms, name

    def forward(self, x):
        if not x.is_meta:  # when multiply-adds are counted
            self.clock.take(self.name, self.ms)
        return x


class Space(ModelSpace):
    """Layers one behind the other, built within the constructor as NNI wants it."""

    def __init__(self, build_layers):
        super().__init__()
        self.layers = nn.Sequential(*build_layers())

    def forward(self, x):
        return self.layers(x)


def unit(clock, label, *times):
    names = [f"t{ms:g}".replace(".", "_") for ms in times]
    choices = {name: Takes(clock, ms, (label, name)) for name, ms in zip(names, times, strict=True)}
    return LayerChoice(choices, label=label)


def two_units(clock):
    yield Takes(clock, 2, "stem")
    yield unit(clock, "a", 1, 3, 5)
    yield unit(clock, "b", 1, 8)
    yield Takes(clock, 0.5, "head")


def profile(layers, clock=None, num_paths=6, **settings):
    clock = clock or Clock()
    profiler = LatencyProfiler(stopwatch=clock, **{**QUIET, **settings})
    return profiler.profile(Space(lambda: layers(clock)), IMAGE, num_paths=num_paths)


def tables(table):
    return {factor.labels: factor.table.tolist() for factor in table.costs.factors}


def test_the_table_is_what_the_modules_take():
    table = profile(two_units)
    assert table.costs.metric == "latency_ms(cpu)"
    assert table.costs.constant == pytest.approx(2.5)
    assert tables(table) == {("a",): pytest.approx([1, 3, 5]), ("b",): pytest.approx([1, 8])}
    assert table.costs.price({"a": "t3", "b": "t8"}) == pytest.approx(13.5)


def test_the_validation_is_on_as_many_paths_as_asked_for():
    validation = profile(two_units, num_paths=5).validation
    assert len(validation.predicted_ms) == len(validation.measured_ms) == 5
    assert len(set(validation.measured_ms)) == 5
    assert validation.mape_percent == pytest.approx(0)
    assert validation.spearman == pytest.approx(1)
    assert len(profile(two_units, num_paths=30).validation.measured_ms) == 6, "all paths"


def test_every_round_times_every_choice_after_an_untimed_run():
    clock = Clock()
    profile(two_units, clock, rounds=2, repeats=3, num_paths=2)
    runs = [clock.log[i : i + 4] for i in range(0, len(clock.log), 4)]
    assert {run[0] for run in runs} == {"stem"}
    del runs[0]  # to see that the images fit
    visits = [(path, len(list(group))) for path, group in itertools.groupby(runs)]
    assert all(count % 4 == 0 for _, count in visits), "one untimed and three timed runs"
    # 3 switched networks and up to 8 + 2 whole ones a round; all three choices are in the first 3.
    whole = (len(runs) // 4 - 2 * 3) // 2
    assert whole == 6 + 2
    per_visit = runs[::4]
    for start in (0, 3 + whole):
        chosen = per_visit[start : start + 3]
        assert {run[1] for run in chosen} == {("a", "t1"), ("a", "t3"), ("a", "t5")}
        assert {run[2] for run in chosen} == {("b", "t1"), ("b", "t8")}


def test_the_first_run_after_a_switch_does_not_count():
    last = {}

    class Cold(Clock):
        def take(self, name, ms):
            label = name[0]
            super().take(name, ms if last.get(label) == name else 10 * ms)
            last[label] = name

    table = profile(lambda clock: [unit(clock, "a", 1, 3), unit(clock, "b", 2, 4)], Cold())
    assert tables(table) == {("a",): pytest.approx([1, 3]), ("b",): pytest.approx([2, 4])}


def test_a_machine_that_slows_down_hits_all_choices_alike():
    def layers(clock):
        yield unit(clock, "a", 1, 1.001, 1.002, 1.003)
        yield unit(clock, "b", 2, 2.001, 2.002, 2.003)

    table = profile(layers, Clock(lambda calls: 1 + calls / 5000), rounds=30, num_paths=16)
    for factor, ms in zip(table.costs.factors, (1, 2), strict=True):
        assert np.ptp(factor.table) / factor.table.mean() < 0.03
        assert factor.table.min() > 1.1 * ms, "it did slow down"


def test_rounds_on_a_busy_machine_are_brought_to_one_speed():
    slow = [1, 3, 1.5, 2, 3, 1, 2, 2]
    per_round = (3 + 6 + 6) * (1 + QUIET["repeats"]) * 4

    def stretch(calls):  # the first four calls show that the images fit
        return slow[max(0, calls - 4) // per_round]

    table = profile(two_units, clock := Clock(stretch), rounds=len(slow))
    assert len(clock.log) == 4 + len(slow) * per_round
    speed = table.costs.constant / 2.5
    assert 1 < speed < 3
    for factor, times in zip(table.costs.factors, ([1, 3, 5], [1, 8]), strict=True):
        assert (factor.table / speed).tolist() == pytest.approx(times)
    assert table.validation.mape_percent == pytest.approx(0)


def test_disturbed_runs_do_not_move_medians():
    clock = Clock(lambda calls: 50.0 if calls % 29 < 3 else 1.0)
    table = profile(two_units, clock, rounds=20)
    assert tables(table) == {("a",): pytest.approx([1, 3, 5]), ("b",): pytest.approx([1, 8])}
    assert table.costs.constant == pytest.approx(2.5)


def test_the_constant_is_never_negative():
    class Rushed(Clock):
        """Shows units as slower than whole networks, as noise may."""

        def milliseconds(self, start, end):
            return (end - start) * (0.5 if end - start > 5 else 1)

    table = profile(lambda clock: [unit(clock, "a", 3, 4), unit(clock, "b", 3, 4)], Rushed())
    assert table.costs.constant == 0
    assert table.validation.mape_percent > 50


def nested(clock):
    inner = unit(clock, "inner", 1, 2)
    deep = nn.Sequential(Takes(clock, 10, "deep"), inner)
    yield LayerChoice({"plain": Takes(clock, 5, "plain"), "deep": deep}, label="outer")


def test_units_inside_units_are_timed_in_every_combination():
    (factor,) = profile(nested).costs.factors
    assert factor.labels == ("outer", "inner")
    np.testing.assert_allclose(factor.table, [[5, 5], [11, 12]])


def shared_label(clock):
    yield unit(clock, "kernel", 1, 3)
    yield Takes(clock, 1, "between")
    yield unit(clock, "other", 2, 4)
    yield LayerChoice(
        {"t1": Takes(clock, 10, "x"), "t3": Takes(clock, 20, "y")},
        label="kernel",
    )


def test_units_with_one_label_are_one_factor():
    table = profile(shared_label)
    assert tables(table) == {
        ("kernel",): pytest.approx([11, 23]),
        ("other",): pytest.approx([2, 4]),
    }
    assert table.costs.constant == pytest.approx(1)


class Twice(Space):
    def forward(self, x):
        return self.layers[1](self.layers[0](self.layers[0](x)))


def test_a_unit_that_runs_twice_costs_twice():
    clock = Clock()
    space = Twice(lambda: [unit(clock, "a", 1, 3), unit(clock, "b", 2, 4)])
    table = LatencyProfiler(stopwatch=clock, **QUIET).profile(space, IMAGE)
    assert tables(table) == {("a",): pytest.approx([2, 6]), ("b",): pytest.approx([2, 4])}
    assert table.validation.mape_percent == pytest.approx(0)


def test_too_many_combinations_are_refused():
    def layers(clock, num_inner):
        choices = {f"o{i}": unit(clock, f"inner_{i}", 1, 2, 3, 4) for i in range(num_inner)}
        yield LayerChoice(choices, label="outer")

    with pytest.raises(CostError, match=r"choices of outer, .* more than the 256 combinations"):
        profile(lambda clock: layers(clock, 4))
    assert MAX_COMBINATIONS >= 3 * 4**3
    profile(lambda clock: layers(clock, 3), rounds=1)


def test_other_mutables_are_refused():
    def layers(width):
        yield MutableConv2d(3, width, 1)
        yield LayerChoice([nn.Identity(), nn.ReLU()], label="unit")

    profiler = LatencyProfiler(rounds=1)
    with pytest.raises(CostError, match=r"'layers.0' \(MutableConv2d\): only the latencies of"):
        profiler.profile(Space(lambda: layers(nni.choice("width", [4, 8]))), IMAGE)
    profiler.profile(Space(lambda: layers(4)), IMAGE)


def test_one_network():
    clock = Clock(lambda calls: 100 if calls < 4 else 1)
    network = nn.Sequential(Takes(clock, 2), Takes(clock, 3))
    assert LatencyProfiler(stopwatch=clock, rounds=5).measure(network, IMAGE) == pytest.approx(5)


class Sees(nn.Identity):
    """Notes under which conditions it runs."""

    def __init__(self):
        super().__init__()
        self.seen = seen = []
        self.register_forward_hook(lambda module, inputs, _: seen.append(self._look(inputs[0])))

    def __deepcopy__(self, memo):
        return self

    def _look(self, x):
        last = x.is_contiguous(memory_format=torch.channels_last)
        return tuple(x.shape), last, torch.get_num_threads(), torch.is_inference_mode_enabled()


@pytest.mark.parametrize("channels_last", [True, False])
def test_conditions_of_a_run(channels_last):
    before = torch.get_num_threads()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), sees := Sees(), nn.Dropout(0.5))
    profiler = LatencyProfiler(
        batch_size=5, threads=before + 1, channels_last=channels_last, rounds=1
    )
    assert profiler.measure(network, IMAGE) > 0
    measured = {run for run in sees.seen if run[0][0] == 5}  # others chose the memory format
    assert measured == {((5, 4, 4, 4), channels_last, before + 1, True)}
    assert torch.get_num_threads() == before
    assert network.training, "the caller's network is not changed"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'. Devices: cpu, cuda."),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0."),
        ({"threads": 0}, "threads must be at least 1, got 0."),
        ({"rounds": 0}, "rounds must be at least 1, got 0."),
        ({"repeats": 0}, "repeats must be at least 1, got 0."),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(CostError) as caught:
        LatencyProfiler(**settings)
    assert str(caught.value) == message
    LatencyProfiler(device="cpu", batch_size=1, threads=1, rounds=1, repeats=1)


def test_no_cuda():
    with pytest.raises(CostError, match="device cuda: PyTorch finds no CUDA device"):
        LatencyProfiler("cuda")


@pytest.mark.slow
def test_images_that_do_not_fit():
    profiler = LatencyProfiler(rounds=1)
    network = nn.Conv2d(3, 4, 3)
    for shape in [(4, 6, 6), (3, 2, 2)]:
        with pytest.raises(CostError) as caught:
            profiler.measure(network, shape)
        message = str(caught.value)
        assert message.startswith(f"images of shape {shape} do not fit the network (")
        assert "\n" not in message
    profiler.measure(network, (3, 3, 3))
    with pytest.raises(CostError, match="do not fit the network"):
        profiler.profile(ShuffleNetV2Space.small(affine=True), (4, 32, 32))


def test_too_few_paths_for_a_validation():
    with pytest.raises(CostError, match=r"^a validation needs at least 2 paths, got 1\.$"):
        profile(two_units, num_paths=1)
    profile(two_units, num_paths=2)


@pytest.mark.slow
def test_a_real_space(tmp_path):
    space = ShuffleNetV2Space.small(affine=True, input_size=16, num_classes=10)
    before = {name: value.clone() for name, value in space.state_dict().items()}
    rounds = []
    profiler = LatencyProfiler(threads=1, rounds=2, repeats=1)
    table = profiler.profile(
        space, (3, 16, 16), num_paths=4, name="mine", on_round=lambda: rounds.append(1)
    )
    assert len(rounds) == 2
    assert space.training
    assert not any("forward" in vars(module) for module in space.modules())
    assert all(torch.equal(space.state_dict()[name], value) for name, value in before.items())
    path_space = PathSpace.from_model_space(space)
    assert [factor.labels for factor in table.costs.factors] == [(label,) for label in path_space]
    assert all((factor.table > 0).all() for factor in table.costs.factors)
    conditions = table.conditions
    assert (conditions.device, conditions.threads, conditions.batch_size) == ("cpu", 1, 1)
    assert (conditions.input_shape, conditions.torch) == ((3, 16, 16), str(torch.__version__))

    file = tmp_path / "latency.json"
    table.save(file)
    read = read_latency_table(file)
    assert json.dumps(read.to_json()) == json.dumps(table.to_json())
    assert (read.conditions, read.validation, read.name) == (conditions, table.validation, "mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flops = build_costs(space, (3, 16, 16))["flops"]
        costs = load_latency_table(file, path_space, threads=1, batch_size=1, flops=flops)
    path = path_space.decode([[0, 1, 2, 3, 0, 1, 2, 3]])[0]
    assert costs.price(path) == table.costs.price(path)


@pytest.mark.gpu
def test_on_a_gpu():
    space = ShuffleNetV2Space.small(affine=True)
    table = LatencyProfiler("cuda", rounds=2).profile(space, (3, 32, 32), num_paths=4)
    assert table.costs.metric == "latency_ms(cuda)"
    assert table.conditions.machine == torch.cuda.get_device_name()
    assert all((factor.table > 0).all() for factor in table.costs.factors)


SPACE = PathSpace({"a": ["k3", "k5"], "ratio": [0.5, 1.0]})
CONDITIONS = LatencyConditions(
    device="cpu",
    machine="Processor 1",
    threads=2,
    batch_size=8,
    input_shape=(3, 32, 32),
    channels_last=True,
    torch="2.2",
    date="2025-01-01T00:00:00+00:00",
)
FLOPS = CostTable("flops", SPACE, 100, [Factor(("a",), np.array([9, 25]))])
FACTORS = [Factor(("a",), np.array([1.0, 2.0])), Factor(("ratio",), np.array([0.25, 0.5]))]


def content():
    table = LatencyTable(
        costs=CostTable("latency_ms(cpu)", SPACE, 3.0, FACTORS),
        conditions=CONDITIONS,
        validation=LatencyValidation.compare([4.5, 5.0], [4.0, 5.0]),
        flops=FLOPS,
        name="small",
    )
    return json.loads(json.dumps(table.to_json()))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the table above with one entry replaced; the keys lead to it."""
    monkeypatch.setattr(latency_table, "this_machine", lambda device: "Processor 1")

    def write(*keys, value=None, text=None):
        whole = content()
        inner = whole
        for key in keys[:-1]:
            inner = inner[key]
        if keys:
            inner[keys[-1]] = value
        file = tmp_path / "latency_cpu.json"
        file.write_text(json.dumps(whole) if text is None else text)
        return file

    return write


def test_a_description_for_people(write):
    assert read_latency_table(write()).describe().splitlines() == [
        "latency_ms(cpu) of small, batches of 8 x 3x32x32",
        "  Processor 1, threads: 2, channels_last: yes, PyTorch 2.2",
        "  cheapest path 4.25 ms, dearest 5.50 ms",
        "  2 random paths, 4.00 to 5.00 ms as whole networks: mean absolute error 6.2 %, "
        "Spearman 1.000",
    ]
    table = read_latency_table(write("validation", "measured_ms", value=[5.0, 5.0]))
    assert table.describe().endswith("Spearman undefined")
    table = read_latency_table(write("validation", "measured_ms", value=[5.0, 4.0]))
    assert table.describe().endswith(
        "Spearman -1.000\n  that is weak: measure again while nothing else runs on the machine"
    )


def load(file, space=SPACE, **wanted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_latency_table(file, space, **wanted)


def test_a_table_under_its_own_conditions(write):
    costs = load(write(), threads=2, batch_size=8, machine="Processor 1", flops=FLOPS)
    assert costs.price({"a": "k5", "ratio": 0.5}) == 5.25
    assert costs.metric == "latency_ms(cpu)"


def test_labels_may_come_in_another_order(write):
    turned = PathSpace({"ratio": [0.5, 1.0], "a": ["k3", "k5"]})
    costs = load(write(), turned)
    assert costs.price_many(turned.encode([{"a": "k5", "ratio": 0.5}])).tolist() == [5.25]


@pytest.mark.parametrize(
    ("wanted", "difference"),
    [
        ({"machine": "Processor 2"}, "machine Processor 1, and is used for Processor 2."),
        ({"threads": 1}, "threads 2, and is used for 1."),
        ({"batch_size": 1}, "batch size 8, and is used for 1."),
    ],
)
def test_other_conditions_warn(write, wanted, difference):
    file = write()
    with pytest.warns(LatencyWarning) as caught:
        costs = load_latency_table(file, SPACE, **wanted)
    assert [str(w.message) for w in caught] == [f"{file}: was measured with {difference}"]
    assert caught[0].filename == __file__
    assert costs.price({"a": "k3", "ratio": 0.5}) == 4.25


def test_another_machine_warns_unasked(write):
    with pytest.warns(LatencyWarning, match="machine Processor 9, and is used for Processor 1"):
        load_latency_table(write("conditions", "machine", value="Processor 9"), SPACE)


def test_an_unknown_machine_does_not(write, monkeypatch):
    monkeypatch.setattr(latency_table, "this_machine", lambda device: None)
    load(write("conditions", "machine", value="Processor 9"))


def test_other_fixed_layers_warn(write):
    other = CostTable("flops", SPACE, 90, FLOPS.factors)
    with pytest.warns(LatencyWarning, match="do 100 multiply-adds in the measured space and 90"):
        load_latency_table(write(), SPACE, flops=other)


def test_other_layers_are_another_space(write):
    other = CostTable("flops", SPACE, 100, [Factor(("a",), np.array([9, 49]))])
    with pytest.raises(CostError, match=r"labels are the same, but its layers have other sizes"):
        load(write(), flops=other)
    load(write("flops", value=None), flops=other)


@pytest.mark.parametrize(
    ("space", "difference"),
    [
        ({"a": ["k3", "k7"], "ratio": [0.5, 1.0]}, "label 'a' has the choices 'k3', 'k5' there "
         "and the choices 'k3', 'k7' here."),
        ({"a": ["k3", "k5"], "ratio": [0.5, 1]}, "label 'ratio' has the choices 0.5, 1.0 there and "
         "the choices 0.5, 1 here."),
        ({"a": ["k3", "k5"]}, "label 'ratio' has the choices 0.5, 1.0 there and no choices here."),
        ({"a": ["k3", "k5"], "ratio": [0.5, 1.0], "b": [1]}, "label 'b' has no choices there and "
         "the choices 1 here."),
    ],
)  # fmt: skip
def test_a_table_of_another_space(write, space, difference):
    file = write()
    with pytest.raises(CostError) as caught:
        load(file, PathSpace(space))
    assert str(caught.value) == f"{file}: was measured for another space: {difference}"


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["table", "factors", 0, "table", 1], NAN, "not a finite number"),
        (["table", "factors", 0, "table", 1], INFINITY, "not a finite number"),
        (["table", "factors", 0, "table", 1], None, "not a finite number"),
        (["table", "factors", 0, "table", 1], "2", "not a finite number"),
        (["table", "factors", 0, "table", 1], -0.5, "the latency -0.5 ms is negative"),
        (["table", "factors", 0, "table"], [1.0], "has shape"),
        (["table", "factors", 0, "labels"], ["c"], "label 'c' is not in the space"),
        (["table", "factors"], 5, "not a cost table"),
        (["table", "constant"], NAN, "is not finite"),
        (["table", "constant"], -1, "the latency -1 ms is negative"),
        (["table", "constant"], "1", "not a cost table"),
        (["table", "metric"], "flops", r"metric must be latency_ms\(cpu\), got 'flops'"),
        (["metric"], "flops", r"metric must be latency_ms\(cpu\)"),
        (["table"], None, "not a cost table"),
        (["conditions", "device"], "tpu", "its device is 'tpu'; known: cpu, cuda"),
        (["conditions", "threads"], "2", "its threads is '2'"),
        (["conditions", "batch_size"], None, "its batch_size is None"),
        (["conditions", "machine"], ["x"], r"its machine is \['x'\]"),
        (["conditions", "input_shape"], 5, r"is damaged \(TypeError"),
        (["conditions", "other"], 5, r"is damaged \(TypeError"),
        (["conditions"], {}, r"is damaged \(KeyError"),
        (["search_space"], {}, "is damaged .* at least one label|needs at least one label"),
        (["search_space", "a"], 5, "label 'a': 5 is not supported"),
        (["validation", "measured_ms"], [5.0, NAN], "not a number above 0"),
        (["validation", "measured_ms"], [5.0, 0.0], "not a number above 0"),
        (["validation", "measured_ms"], [5.0], "needs its prediction"),
        (["validation", "measured_ms"], ["x", "y"], "is damaged"),
        (["validation"], None, r"is damaged \(TypeError"),
        (["flops"], 5, "not a cost table"),
        (["latency_version"], 2, "has version 2; this is version 1"),
    ],
)  # fmt: skip
def test_a_damaged_table(write, keys, value, message):
    file = write(*keys, value=value)
    with pytest.raises(CostError, match=message) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", "null", "\x00", "[" * 100_000])
def test_what_is_no_table(write, text):
    file = write(text=text)
    with pytest.raises(CostError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: is not ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_truncated_table(write, tmp_path):
    text = write().read_text()
    for length in range(0, len(text), 97):
        with pytest.raises(CostError, match=r"latency_cpu.json: is not valid JSON"):
            load(write(text=text[:length]))
    load(write(text=text))
    with pytest.raises(CostError, match="no such file"):
        load(tmp_path / "other.json")


def test_figures_by_hand():
    # 1 of 10, 3 of 20 and 0 of 5 are 10, 15 and 0 percent.
    assert mape([11, 17, 5], [10, 20, 5]) == pytest.approx(25 / 3)
    # Differences of the ranks are 0, 1, -1, 0: 1 - 6 * 2 / (4 * 15).
    assert spearman([1, 3, 2, 9], [10, 20, 30, 40]) == pytest.approx(0.8)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 1], [1, 2, 3]) is None


@pytest.mark.parametrize("seed", range(5))
def test_ties_have_the_mean_of_their_ranks(seed):
    one, other = np.random.default_rng(seed).integers(0, 6, size=(2, 20))
    assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
