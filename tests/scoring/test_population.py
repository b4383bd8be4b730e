"""Many paths in one pass give what each gives alone, and leave the supernet as it was."""

import itertools
import warnings

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_spos.data import EvaluationBatches, open_data
from nni_spos.errors import PathError, ScoringWarning
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import MutableBatchNorm2d, MutableConv2d, channel_choice
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring import verification
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths
from nni_spos.scoring.parts import find_parts
from nni_spos.scoring.population import Reserve, Statistics, sharing
from nni_spos.scoring.prefix_tree import PrefixTree
from nni_spos.scoring.recalibration import recalibrate
from nni_spos.spaces import Form, build_space
from nni_spos.supernet import SinglePathOneShot

SETTINGS = EvaluationSettings(recalibration_images=128, batch_size=64)
SHAPE = {"num_classes": 10, "in_channels": 1, "input_size": 16}


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", augmentation="none", num_validation=200))


class Chain(ModelSpace):
    """A user's space: in-place activations outside of its units, a skip connection, a head."""

    def __init__(self):
        super().__init__()
        width, twice = channel_choice("width", 8, [0.5, 1.0]), nni.choice("twice", [4, 6])
        self.stem = nn.Sequential(
            MutableConv2d(1, width, 3, 2, 1), MutableBatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.first = MutableConv2d(width, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.second = LayerChoice(
            {"k1": nn.Conv2d(8, 8, 1), "k3": nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))},
            label="kernel",
        )
        self.norm = nn.BatchNorm2d(8)
        self.third = MutableConv2d(8, twice * 2, 3)
        self.last = MutableConv2d(twice * 2, 10, 1)

    def forward(self, x):
        x = self.relu(self.first(self.stem(x)))
        x = self.relu(self.norm(self.second(x))) + x
        return self.last(self.relu(self.third(x))).mean((2, 3))


SPACES = {
    "chain": Chain,
    "blocks": lambda: build_space("shufflenet_small", {}, Form.SUPERNET, **SHAPE),
    "channels": lambda: build_space("shufflenet_channels_small", {}, Form.SUPERNET, **SHAPE),
    "joint": lambda: build_space("shufflenet_joint_small", {}, Form.SUPERNET, **SHAPE),
    "bits": lambda: build_space("resnet_small", {}, Form.SUPERNET, **SHAPE),
    "norm per bits": lambda: build_space(
        "resnet_small", {"switchable_norm": True, "affine": True}, Form.SUPERNET, **SHAPE
    ),
    "proxylessnas": lambda: build_space("proxylessnas_small", {}, Form.SUPERNET, **SHAPE),
    "fbnet": lambda: build_space("fbnet_small", {"affine": True}, Form.SUPERNET, **SHAPE),
    "nasbench_macro": lambda: build_space("nasbench_macro", {}, Form.SUPERNET, **SHAPE),
    "channelbench": lambda: build_space(
        "channelbench_resnet", {"full_channels": [8, 12, 16, 8, 12, 4, 20]}, Form.SUPERNET, **SHAPE
    ),
}


def make_supernet(name):
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(SPACES[name]())
    for module in supernet.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.1)
    return supernet.to(memory_format=torch.channels_last)


def related_paths(space, number=8):
    """Paths that agree in their first choices, two of them in all, in no order."""
    indices = UniformPrior(space).draw(number, np.random.default_rng(3))
    half = len(space) // 2
    indices[1:4, :half] = indices[0, :half]
    indices[4] = indices[1]
    return space.decode(indices)


@pytest.fixture(params=SPACES)
def supernet(request):
    return make_supernet(request.param)


def contents(supernet):
    return {name: tensor.clone() for name, tensor in supernet.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("recalibrate", [True, False])
def test_results_are_those_of_one_path_at_a_time(supernet, data, recalibrate):
    settings = EvaluationSettings(recalibrate, 128, 64)
    paths = related_paths(PathSpace.from_model_space(supernet))
    before, was_training = contents(supernet), supernet.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = evaluate_paths(supernet, paths, data, settings)
    alone = [evaluate_path(supernet, path, data, settings) for path in paths]
    assert len({result.loss for result in alone}) > 4
    for one, other in zip(together, alone, strict=True):
        assert (one.top1, one.top5, one.num_images) == (other.top1, other.top5, other.num_images)
        assert abs(one.loss - other.loss) < 1e-5
    assert together[1] == together[4]
    after = supernet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert supernet.training == was_training
    assert not any("forward" in vars(module) for module in supernet.modules())


@pytest.mark.slow
def test_the_order_of_paths_makes_no_difference(supernet, data):
    paths = related_paths(PathSpace.from_model_space(supernet))
    forward = evaluate_paths(supernet, paths, data, SETTINGS)
    assert evaluate_paths(supernet, paths[::-1], data, SETTINGS)[::-1] == forward
    assert evaluate_paths(supernet, [], data, SETTINGS) == []


@pytest.mark.slow
def test_progress_is_told_after_every_batch_of_every_path(data):
    supernet = make_supernet("blocks")
    paths = related_paths(PathSpace.from_model_space(supernet), 5)
    shares = []
    evaluate_paths(supernet, paths, data, SETTINGS, progress=shares.append)
    # 2 batches for recalibration and 4, of 200 images, for the scores.
    assert shares == pytest.approx([n / 30 for n in range(1, 31)])
    shares = []
    settings = EvaluationSettings(recalibrate=False, batch_size=100)
    evaluate_paths(supernet, paths, data, settings, progress=shares.append)
    assert shares == pytest.approx([n / 10 for n in range(1, 11)])


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False])
def test_scoring_in_lower_precision(data, together):
    supernet = make_supernet("blocks")
    paths = related_paths(PathSpace.from_model_space(supernet), 5)
    types = set()

    def evaluate(precision):
        settings = EvaluationSettings(True, 128, 64, precision=precision)
        if together:
            return evaluate_paths(supernet, paths, data, settings)
        return [evaluate_path(supernet, path, data, settings) for path in paths]

    def note(module, _, output):
        if isinstance(module, nn.Linear):
            types.add(output.dtype)

    losses = {name: [x.loss for x in evaluate(name)] for name in ("auto", "32-true")}
    assert losses["auto"] == losses["32-true"]  # on the CPU
    with torch.nn.modules.module.register_module_forward_hook(note):
        lower = [x.loss for x in evaluate("bf16-mixed")]
    assert types == {torch.bfloat16}
    assert lower != losses["32-true"]
    assert lower == pytest.approx(losses["32-true"], rel=0.02)


def count_calls(supernet, paths, data, statistics):
    """How often each part's own layers run for all paths and one batch."""
    calls = {part.name: 0 for part in find_parts(supernet)}

    def count(name, _, __):
        calls[name] += 1

    images = next(iter(data.validation_batches(16)))
    with sharing(supernet) as run:
        # Underneath the stand-ins, where only a part that is really run gets.
        for part in find_parts(supernet):
            own = part.module.forward.args[-1]

            def counted(*inputs, name=part.name, own=own):
                calls[name] += 1
                return own(*inputs)

            stand_in = part.module.forward
            part.module.forward = type(stand_in)(stand_in.func, *stand_in.args[:-1], counted)
        order = run.trace(paths[0], images[0][:2])
        tree = PrefixTree(
            PathSpace.from_model_space(supernet), paths, [part.labels for part in order]
        )
        for name in calls:
            calls[name] = 0
        run.walk(tree, paths, [images], statistics, lambda *_: None)
    return calls, tree


def test_units_run_once_for_all_paths_that_agree_up_to_them(data):
    supernet = make_supernet("blocks")
    space = PathSpace.from_model_space(supernet)
    first = dict.fromkeys(space, "k3")
    paths = [first, {**first, "layer_8": "k5"}, {**first, "layer_8": "k7", "layer_7": "k5"}]
    calls, tree = count_calls(supernet, paths, data, Statistics.OF_SUPERNET)
    assert calls["first_conv"] == calls["features.0"] == calls["features.5"] == 1
    assert calls["features.6"] == 2
    assert calls["features.7"] == calls["conv_last"] == calls["classifier"] == 3
    assert tree.num_nodes == sum(calls.values())
    # What is behind the last norm has no statistics to gather.
    gathering, _ = count_calls(supernet, paths, data, Statistics.RECALIBRATED)
    behind = {name: number for name, number in calls.items() if gathering[name] == 0}
    assert behind == {"globalpool": 3, "dropout": 3, "classifier": 3}
    assert gathering == {**calls, **dict.fromkeys(behind, 0)}


def test_a_complete_space_has_one_node_for_every_prefix():
    space = PathSpace({f"unit_{i}": [0, 1, 2] for i in range(8)})
    paths = space.decode(space.enumerate())
    tree = PrefixTree(space, paths[::-1], [frozenset([label]) for label in space])
    assert tree.num_nodes == sum(3**depth for depth in range(1, 9)) == 9840
    assert len(tree.order) * len(space) == 52_488


def test_what_stays_lies_in_one_piece(data):
    """Small tensors between activations that come and go would leave the memory in pieces."""
    supernet = make_supernet("blocks")
    space = PathSpace.from_model_space(supernet)
    paths = related_paths(space, 20)
    images = torch.randn(4, 1, 16, 16)
    with sharing(supernet) as run:
        tree = PrefixTree(space, paths, [part.labels for part in run.trace(paths[0], images)])
        run.walk(tree, paths, [(images, images)], Statistics.RECALIBRATED, lambda *_: None)
    nodes = {id(node): node for nodes in tree.nodes for node in nodes}.values()
    tensors = [x for node in nodes for pair in node.statistics.values() for x in pair]
    numbers = sum(map(len, tensors))
    pieces = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    assert len(tensors) > 200
    assert len(pieces) == 1 + numbers // Reserve.SIZE
    assert sum(pieces.values()) == len(pieces) * Reserve.SIZE * 4
    places = sorted((x.data_ptr(), x.data_ptr() + 4 * len(x)) for x in tensors)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(places)), "none shared"


def test_a_reserve_gives_what_is_larger_than_its_pieces():
    reserve = Reserve()
    small = reserve.take(3, torch.device("cpu"))
    assert reserve.take(Reserve.SIZE + 1, torch.device("cpu")).shape == (Reserve.SIZE + 1,)
    assert reserve.take(2, torch.device("cpu")).data_ptr() != small.data_ptr()


def test_the_parts_of_spaces():
    names = [part.name for part in find_parts(make_supernet("joint"))]
    assert names == [
        "first_conv",
        *(f"features.{i}" for i in range(8)),
        "conv_last",
        "globalpool",
        "dropout",
        "classifier",
    ]
    for name, num_units in (("proxylessnas", 7), ("fbnet", 8), ("nasbench_macro", 8)):
        labels = {part.name: part.labels for part in find_parts(make_supernet(name))}
        assert labels == dict.fromkeys(
            ("stem", "conv_last", "globalpool", "dropout", "classifier"), frozenset()
        ) | {f"features.{i}": {f"layer_{i + 1}"} for i in range(num_units)}
    parts = {part.name: part.labels for part in find_parts(make_supernet("bits"))}
    assert list(parts) == ["stem", *(f"blocks.{i}" for i in range(6)), "globalpool", "classifier"]
    assert parts["blocks.2"] == {"bits_3", "channels_3"}
    assert parts["stem"] == frozenset()


class ChangesItsInput(Chain):
    def forward(self, x):
        x = self.first(self.stem(x)).relu_()
        return self.last(self.third(self.norm(self.second(x)))).mean((2, 3))


class OtherOrder(Chain):
    def forward(self, x):
        x = self.stem(x)
        if x.shape[1] == 4:
            self.norm(x.repeat(1, 2, 1, 1))
        return self.last(self.third(self.second(self.first(x)))).mean((2, 3))


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (ChangesItsInput, "the output of 'first' is changed in place"),
        (OtherOrder, "its layers are called in another order on some paths"),
    ],
)
def test_networks_that_cannot_share_are_scored_one_by_one(data, space, reason):
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(space())
    paths = related_paths(PathSpace.from_model_space(supernet))
    with pytest.warns(RuntimeWarning) as caught:
        together = evaluate_paths(supernet, paths, data, SETTINGS)
    assert [str(warning.message) for warning in caught] == [
        f"the paths of this network are scored one by one: {reason}."
    ]
    assert together == [evaluate_path(supernet, path, data, SETTINGS) for path in paths]
    assert not any("forward" in vars(module) for module in supernet.modules())


def test_a_path_of_another_space_is_refused_before_anything_runs(data):
    supernet = make_supernet("blocks")
    path = {f"layer_{i}": "k3" for i in range(1, 9)}
    with pytest.raises(PathError, match="'k9' is not a choice"):
        evaluate_paths(supernet, [path, {**path, "layer_3": "k9"}], data, SETTINGS)
    assert len(evaluate_paths(supernet, [path, path], data, SETTINGS)) == 2


def test_an_error_leaves_the_supernet_as_it_was(data, monkeypatch):
    supernet = make_supernet("channels")
    paths = related_paths(PathSpace.from_model_space(supernet))
    batches = [(torch.zeros(4, 3, 16, 16), None)]
    monkeypatch.setattr(EvaluationBatches, "__iter__", lambda _: iter(batches))
    with pytest.raises(RuntimeError):
        evaluate_paths(supernet, paths, data, SETTINGS)
    assert not any("forward" in vars(module) for module in supernet.modules())
    assert all(module.training for module in supernet.modules())


def block(kernel, channels=8):
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, 1, kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class Units(ModelSpace):
    """Two units, whose forward sub-classes write."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.a = LayerChoice({"k3": block(3), "k5": block(5)}, label="a")
        self.b = LayerChoice({"k3": block(3), "skip": nn.Identity()}, label="b")
        self.layers = nn.Sequential(block(3), self.a)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)
        self.seen = []

    def forward(self, x):
        return self.head(self.b(self.body(self.stem(x))).mean((2, 3)))

    def body(self, x):
        return self.a(x)


class LayerByLayer(Units):
    def body(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Twice(Units):
    def body(self, x):
        return self.a(self.a(x))


class NormTwice(Units):
    def body(self, x):
        return self.norm(self.a(self.norm(x)))


class Remembers(Units):
    def body(self, x):
        self.seen.append(x.mean())
        return self.a(x)


class Draws(Units):
    def body(self, x):
        return self.a(x) + torch.rand(1)


class ChangesImages(Units):
    def forward(self, x):
        return super().forward(x.mul_(0.5))


COUNTER = [0.0]
CALLS = itertools.count()


class OutsideVariable(Units):
    def body(self, x):
        COUNTER[0] += 1.0
        return self.a(x) * COUNTER[0]


class HiddenState(Units):
    """What it keeps is in no module, list or number."""

    def body(self, x):
        return self.a(x) * (1.0 + next(CALLS))


class ConvOfTwoNorms(Units):
    """One convolution in two Sequentials, each with a norm of its own."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(8, 8, 3, 1, 1)
        self.one = nn.Sequential(conv, nn.BatchNorm2d(8))
        self.other = nn.Sequential(conv, nn.BatchNorm2d(8))

    def body(self, x):
        x = self.a(x)
        return self.one(x).relu() + self.other(2 * x).relu()


class BetweenConvAndNorm(Units):
    """What is between a convolution and its norm is used beside."""

    def body(self, x):
        y = self.one[0](self.a(x))
        return (self.one[1](y) + y).relu()

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8))


def score_both_ways(space, data):
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(space())
    labels = PathSpace.from_model_space(supernet)
    paths = labels.decode(labels.enumerate())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        together = evaluate_paths(supernet, paths, data, SETTINGS)
    reasons = [str(w.message) for w in caught if "one by one" in str(w.message)]
    return together, [evaluate_path(supernet, path, data, SETTINGS) for path in paths], reasons


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (LayerByLayer, "a BatchNorm is called outside of the module that holds it"),
        (Twice, "a BatchNorm of 'a' is called more than once"),
        (NormTwice, "a BatchNorm of 'norm' is called more than once"),
        (Remembers, "the space changes its 'seen' in the forward pass"),
        (ChangesImages, "the images are changed in place"),
    ],
)
def test_what_a_run_shows_ends_sharing(data, space, reason):
    together, alone, reasons = score_both_ways(space, data)
    assert len(reasons) == 1
    assert reason in reasons[0]
    assert together == alone


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (Draws, "draws random numbers"),
        (OutsideVariable, "other outputs each time"),
        (HiddenState, "other outputs each time"),
    ],
)
def test_networks_that_are_no_function_of_their_images_do_not_share(data, space, reason):
    _, _, reasons = score_both_ways(space, data)
    assert len(reasons) == 1
    assert reason in reasons[0]


@pytest.mark.parametrize("space", [Units, ConvOfTwoNorms])
def test_networks_of_units_share(data, space):
    together, alone, reasons = score_both_ways(space, data)
    assert reasons == []
    assert together == alone


def test_what_is_between_a_convolution_and_its_norm_may_be_used_beside(data):
    together, alone, _ = score_both_ways(BetweenConvAndNorm, data)
    assert together == alone


class RunningSum:
    """An object that is no module."""

    def __init__(self):
        self.total = {"sum": 0.0}


class ObjectState(Units):
    def __init__(self):
        super().__init__()
        self.kept = RunningSum()

    def body(self, x):
        x = self.a(x)
        self.kept.total["sum"] = self.kept.total["sum"] * 0.5 + float(x.mean())
        return x + self.kept.total["sum"]


def test_a_refusal_to_share_is_remembered_and_leaves_no_trace(data):
    """A later generation that happens to agree would be scored together."""
    supernet = SinglePathOneShot().mutate_model(ObjectState())
    space = PathSpace.from_model_space(supernet)
    paths = space.decode(space.enumerate())
    alone = [evaluate_path(supernet, path, data, SETTINGS) for path in paths]
    for generation in (paths, paths[:1], paths[::-1]):
        with pytest.warns(ScoringWarning, match="one by one"):
            together = evaluate_paths(supernet, generation, data, SETTINGS)
        expected = [alone[paths.index(path)] for path in generation]
        assert together == expected
        assert supernet.kept.total["sum"] == 0.0


def test_paths_that_share_more_than_any_before_are_tried(data, monkeypatch):
    supernet = SinglePathOneShot().mutate_model(Units())
    compared = []
    real = verification._run_alone
    monkeypatch.setattr(
        verification,
        "_run_alone",
        lambda net, path, *rest: compared.append(path) or real(net, path, *rest),
    )
    paths = [{"a": a, "b": b} for a in ("k3", "k5") for b in ("k3", "skip")]
    evaluate_paths(supernet, [paths[0], paths[3]], data, SETTINGS)  # they share the stem only
    assert compared == [paths[0], paths[3]]
    evaluate_paths(supernet, [paths[0], paths[3]], data, SETTINGS)
    number = len(compared)
    evaluate_paths(supernet, [paths[3], paths[0], paths[1]], data, SETTINGS)
    assert compared[number:] == [paths[0], paths[1]]
    evaluate_paths(supernet, paths, data, SETTINGS)
    assert len(compared) == number + 2


class FunctionalNorm(Units):
    def body(self, x):
        norm = self.norm
        x = torch.nn.functional.batch_norm(x, norm.running_mean, norm.running_var)
        return self.a(x)


def test_a_norm_that_is_not_called_keeps_its_statistics(data):
    supernet = SinglePathOneShot().mutate_model(FunctionalNorm())
    supernet.norm.running_mean.fill_(0.25)
    network = extract_subnet(supernet, {"a": "k3", "b": "skip"})
    recalibrate(network, data.recalibration_batches(64, 32, 0))
    assert network.norm.running_mean.tolist() == [0.25] * 8
    assert not torch.equal(network.stem[1].running_mean, supernet.stem[1].running_mean)


def test_hooks_of_a_unit_are_kept_for_the_layer_of_a_path(data):
    supernet = SinglePathOneShot().mutate_model(Units())
    supernet.a.register_forward_hook(lambda module, inputs, output: output + 1.0)
    images = torch.randn(2, 1, 8, 8)
    path = {"a": "k3", "b": "skip"}
    network = extract_subnet(supernet, path).eval()
    bare = SinglePathOneShot().mutate_model(Units())
    bare.load_state_dict(supernet.state_dict())
    other = extract_subnet(bare, path).eval()
    assert len(network.a._forward_hooks) == 1
    assert not torch.equal(network(images), other(images))


class Collects(Units):
    """Takes what an object collects, of which a pass that shares leaves some out."""

    def __init__(self):
        super().__init__()
        self.kept = RunningSum()
        self.join = nn.Linear(8 * 3, 8)
        self.a.register_forward_hook(self.keep)
        self.b.register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        self.kept.total[len(self.kept.total)] = output.mean((2, 3))

    def forward(self, x):
        self.kept.total.clear()
        x = self.b(self.a(self.stem(x)))
        features = torch.cat([*self.kept.total.values(), x.mean((2, 3))], 1)
        return self.head(self.join(features))


def test_what_fails_together_is_scored_alone_or_raises_what_it_raises_alone(data):
    supernet = SinglePathOneShot().mutate_model(Collects())
    space = PathSpace.from_model_space(supernet)
    paths = space.decode(space.enumerate())
    with (
        pytest.warns(ScoringWarning, match="one by one"),
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
    ):
        evaluate_paths(supernet, paths, data, SETTINGS)


class OwnNorm(nn.BatchNorm2d):
    """Normalises by a function, with a momentum that must be a number; counts no batches."""

    def forward(self, x):
        return torch.nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training, float(self.momentum), self.eps,
        )  # fmt: skip


def test_a_norm_of_the_users_own_is_recalibrated(data):
    own, usual = (nn.Sequential(kind(1)) for kind in (OwnNorm, nn.BatchNorm2d))
    for network in (own, usual):
        recalibrate(network, data.recalibration_batches(64, 32, 0))
    assert own[0].running_mean.item() == pytest.approx(usual[0].running_mean.item())
    assert own[0].running_var.item() == pytest.approx(usual[0].running_var.item())
    assert own[0].running_var.item() != 1.0
    assert own[0].momentum == 0.1
