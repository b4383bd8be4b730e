"""What README and docs/ tell a reader to run does run, and what they tell to write is accepted."""

from __future__ import annotations

import dataclasses
import doctest
import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from nni.experiment.config import ExperimentConfig
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from PIL import Image
from tiny_space import TINY_DATA, TINY_SPACE

import nni_spos
from nni_spos import PathSpace, ShuffleNetV2Space, Signal, build_costs, cli
from nni_spos.data import dataset_spec
from nni_spos.data.sources.map_style import wrapped
from nni_spos.data.transforms import describe_preprocessing
from nni_spos.errors import SposError
from nni_spos.experiment import exchange
from nni_spos.modules.subnet import extract_subnet
from nni_spos.recipe import recipe
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.retraining.network import SpaceArguments, TrainedNetwork, save_network
from nni_spos.spaces import PUBLISHED, SPACES
from nni_spos.supernet import save_supernet

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "_extensions"))

import facts  # noqa: E402

FILES = [
    ROOT / "README.md",
    *(x for x in sorted(DOCS.rglob("*.md")) if "_build" not in x.parts),
]
BLOCK = re.compile(r"^```(\S+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"`nni-spos ([a-z]+)")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@dataclasses.dataclass(frozen=True)
class Page:
    """A page, with its blocks as (language, argument, text)."""

    name: str
    text: str
    blocks: list[tuple[str, str, str]]

    def __str__(self) -> str:
        return self.name

    def of(self, *languages: str) -> list[str]:
        return [text for language, _, text in self.blocks if language in languages]


def read_page(file: Path) -> Page:
    text = file.read_text(encoding="utf-8")
    blocks = [(x, argument.strip(), body) for x, argument, body in BLOCK.findall(text)]
    return Page(str(file.relative_to(ROOT)), text, blocks)


PAGES = [read_page(file) for file in FILES]
README = PAGES[0]


def with_blocks(*languages: str) -> list[Page]:
    return [page for page in PAGES if page.of(*languages)]


def page(name: str) -> Page:
    return next(x for x in PAGES if x.name == name)


# ------------------------------------------------------------------------------------- Python


def save_digits_network(place: Path) -> dict[str, Any]:
    made_from = SpaceArguments("shufflenet_small", {}, 10, 1, 16)
    path = {f"layer_{i}": "k3" for i in range(1, 9)}
    network = extract_subnet(made_from.build(), path)
    spec = dataset_spec(DataSettings("digits", image_size=16))
    images = describe_preprocessing(spec)
    trained = TrainedNetwork(network, path, {}, {}, images, made_from)
    save_network(place / "runs" / "digits" / "retrained.pt", trained)
    return {"images": torch.zeros(2, 1, 16, 16)}


def save_own_network(place: Path) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT / "examples" / "own_model"))
    from my_model import MySpace

    made_from = SpaceArguments("my_model:MySpace", {}, 10, 1, 16)
    path = {"width": 8, "block_1": "k3", "bits_1": "2w4a", "block_2": "skip", "bits_2": "8w8a"}
    network = extract_subnet(MySpace(), path)
    trained = TrainedNetwork(network, path, {}, {}, {}, made_from)
    save_network(place / "runs" / "own_model" / "retrained.pt", trained)
    return {}


def save_small_supernet(place: Path) -> dict[str, Any]:
    save_supernet(
        place / "runs" / "small" / "supernet.pt", ShuffleNetV2Space.small(num_classes=10), {}
    )
    return {}


def write_tiny_recipe(place: Path) -> dict[str, Any]:
    training = {"epochs": 1, "batch_size": 50}
    content = {
        "output": "../../runs/digits",
        "space": TINY_SPACE,
        "data": TINY_DATA,
        "supernet": training,
        "evaluation": {"recalibration_images": 50},
        "search": {"population_size": 4, "num_generations": 1},
        "retrain": training,
    }
    (place / "examples" / "recipes").mkdir(parents=True)
    (place / "examples" / "recipes" / "digits.yml").write_text(yaml.safe_dump(content))
    return {}


def write_photos(place: Path) -> dict[str, Any]:
    rows = ["file,label,part,patient"]
    for i in range(10):
        Image.new("RGB", (9, 9), (20 * i, 0, 0)).save(place / f"{i}.png")
        rows.append(f"{i}.png,{i % 2},train,p{i // 2}")
    (place / "labels.csv").write_text("\n".join(rows))
    return {}


def count_kinds(place: Path) -> dict[str, Any]:
    return {"my_accuracy": lambda path: len(set(path.values()))}


PREPARED = {
    "README.md": write_tiny_recipe,
    "docs/tutorials/first-search.md": save_digits_network,
    "docs/how-to/export.md": save_digits_network,
    "docs/how-to/published-weights.md": save_small_supernet,
    "docs/tutorials/own-network.md": save_own_network,
    "docs/how-to/trial-script.md": count_kinds,
    "docs/how-to/own-data.md": write_photos,
}
"""What the code of a page finds: files, and names that stand for something of the reader's."""

SLOW = (
    "README.md",
    "docs/how-to/compress.md",
    "docs/how-to/export.md",
    "docs/tutorials/first-search.md",
)
"""They train, or compile."""

IN_PYTHON = page("docs/tutorials/in-python.md")
"""NNI's experiments keep what they are told of a process, so these run in one of their own."""


def marked(found: Page) -> Any:
    marks = [pytest.mark.slow] if found.name in SLOW else []
    return pytest.param(found, id=found.name, marks=marks)


@pytest.fixture
def own_modules():
    """Modules of examples are imported anew by every page."""
    yield
    sys.modules.pop("my_model", None)


@pytest.fixture
def trial(monkeypatch):
    """A trial that NNI started, for the code of pages."""
    reported: list[dict[str, Any]] = []
    started = SimpleNamespace(path={"a": "k3", "b": "k5"}, report=reported.append)
    monkeypatch.setattr(exchange, "open_trial", lambda: started)
    return reported


@pytest.mark.parametrize(
    "found", [marked(x) for x in with_blocks("python", "pycon") if x is not IN_PYTHON]
)
def test_the_code_runs(found, tmp_path, monkeypatch, own_modules, trial):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # classes look up where they are from
    names = vars(module)
    names |= PREPARED.get(found.name, lambda place: {})(tmp_path)
    for number, (language, _, text) in enumerate(found.blocks):
        if language == "python":
            where = f"{found.name}, block {number}"
            exec(compile(text, where, "exec", dont_inherit=True), names)
        elif language == "pycon":
            run_doctest(text, names, found.name)
    check_what_ran(found.name, names, trial)


def run_doctest(text: str, names: dict[str, Any], where: str) -> None:
    test = doctest.DocTestParser().get_doctest(text, names, where, None, 0)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append, clear_globs=False)
    assert not said, "".join(said)
    names.update(test.globs)


def check_what_ran(name: str, names: dict[str, Any], trial: list[dict[str, Any]]) -> None:
    """The code ran to its end and did what its page says."""
    if name == "README.md":
        assert isinstance(names["network"], torch.nn.Module)
        assert 0 <= names["trained"].test["top1"] <= 100
    elif name == "docs/tutorials/first-search.md":
        assert names["logits"].shape == (2, 10)
    elif name == "docs/how-to/published-weights.md":
        assert names["network"](torch.zeros(1, 3, 16, 16)).shape == (1, 10)
    elif name == "docs/tutorials/own-network.md":
        deep = build_costs(names["Deep"](), (1, 16, 16))["flops"]
        assert deep.price({"width": 16, "depth": 3}) == 64 * (9 * 16 + 3 * 9 * 256 + 160)
        assert names["trained"].path["width"] == 8
        flops = build_costs(one_choice_behind(names["Spectrum"]()), (1, 16, 16))["flops"]
        assert flops.cheapest()[0] == 16 * 16 * 32
    elif name == "docs/tutorials/channels-and-bits.md":
        assert set(names["TwoLayers"]().simplify()) == {"width", "bits"}
    elif name == "docs/how-to/trial-script.md":
        assert trial == [{"top1": 2}]
    elif name == "docs/how-to/own-data.md":
        check_own_data(names)
    elif name.startswith("docs/develop/extend/"):
        check_component(name.rpartition("/")[2], names)


def check_own_data(names: dict[str, Any]) -> None:
    """What the page writes is taken as a data set."""
    settings = DataSettings("digits", folder=Path.cwd(), num_validation=2)
    for factory, number in ((names["Photos"], 8), (names["load"], 6), (names["Grouped"], 8)):
        dataset = wrapped(factory)(settings, file=Path("labels.csv"))
        assert len(dataset.open_training_set().targets) == number + 2
        assert dataset.says_when_images_change
    assert dataset.open_training_set().groups.tolist()[:3] == ["p0", "p0", "p1"]


def one_choice_behind(layer: torch.nn.Module) -> ModelSpace:
    class Space(ModelSpace):
        def __init__(self):
            super().__init__()
            choices = {"skip": torch.nn.Identity(), "conv": torch.nn.Conv2d(1, 1, 1)}
            self.layers = torch.nn.Sequential(layer, LayerChoice(choices, label="unit"))

        def forward(self, images):
            return self.layers(images)

    return Space()


def check_component(name: str, names: dict[str, Any]) -> None:
    """The component that a page shows does what its kind has to."""
    space = PathSpace({"a": ["k3", "k5"], "b": ["k3", "k5", "k7"]})
    if name == "space.md":
        model = names["TwoUnits"]()
        assert build_costs(model, (1, 16, 16))["flops"].cheapest()[0] > 0
    elif name == "metric.md":
        layer = SimpleNamespace(macs=1000)
        assert names["Energy"]().of_layer(layer) == pytest.approx(4.6)
    elif name == "prior.md":
        prior = names["Lean"](space, seed=0, lean=3)
        assert all(space.validate(prior.path(step)) for step in range(10))
    elif name == "search.md":
        search = names["Local"](space, {}, population_size=2, num_generations=2)
        while (path := search.ask()) is not Signal.FINISHED:
            search.tell(path, {"top1": float(len(set(path.values())))})
        assert len(search.candidates) == 4
    elif name == "technique.md":
        layer = torch.nn.Linear(2, 1, bias=False)
        technique = names["StayNear"].__new__(names["StayNear"])
        technique.settings = names["StayNear"].Settings(0.5)
        technique.begin(layer, None)
        technique.pairs[0][0].data += 1
        assert float(technique.loss(lambda *_: torch.ones(()), None, None)) == 1 + 0.5 * 2
    elif name == "exporter.md":
        assert names["Arrays"](packed=True).file == "weights.npz"
    elif name == "testing.md":
        assert len(names["searches"].CHECKS) > 3
    elif name == "dataset.md":
        images, labels = names["Stripes"](None, num_images=6).open_training_set()
        assert images.shape == (6, 1, 16, 16)
        assert images.dtype == "uint8"
        assert len(labels) == 6


@pytest.mark.slow
def test_the_code_with_nnis_experiments_runs(tmp_path):
    code = "".join(IN_PYTHON.of("python"))
    assert "epochs=60" in code
    program = tmp_path / "program.py"
    program.write_text(
        (ROOT / "tests" / "helpers" / "lightning_digits.py").read_text(encoding="utf-8")
        + code.replace("epochs=60", "epochs=1")
        + "print('best', search.top(1)[0].metrics)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program.name],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "best {'top1': 8}" in done.stdout
    assert re.search(r"^\[\{'layer_1': '(k\d|xcep)'", done.stdout, re.MULTILINE)


def test_code_is_short_enough_to_be_read():
    for found in PAGES:
        for text in found.of("python"):
            assert len([x for x in text.splitlines() if x.strip()]) <= 20, found.name


# ----------------------------------------------------------------------------------- commands


def shell_commands(text: str) -> list[list[str]]:
    """Return the words of each command after a prompt, continued lines joined."""
    joined = text.replace("\\\n", " ")
    lines = [x.removeprefix("$ ") for x in joined.splitlines() if x.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines]


@functools.cache
def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("found", with_blocks("console"), ids=str)
def test_commands_are_real(found):
    for text in found.of("console"):
        folder = ROOT
        commands = shell_commands(text)
        assert commands, "a block without a command"
        for words in commands:
            if words[0] == "cd":
                folder = folder / words[1]
                assert folder.is_dir()
            elif "nni-spos" in words:
                check_options(words[words.index("nni-spos") + 1 :], folder)
            elif words[0] == "make":
                targets = [x for x in words[1:] if "=" not in x]
                assert all(re.search(rf"^{x}:", makefile(), re.MULTILINE) for x in targets), words
            elif words[0] == "python":
                check_script(words[1:])


def check_options(arguments: list[str], folder: Path) -> None:
    try:
        options = cli._parser().parse_args(arguments)
    except SystemExit as end:
        pytest.fail(f"nni-spos {' '.join(arguments)}: exit code {end.code}")
    for name in ("recipe", "config", "space"):
        value = getattr(options, name, None)
        if value is not None:
            assert (folder / value).is_file() or (name == "space" and value in SPACES), arguments
    path = getattr(options, "path", None)
    assert path is None or path.endswith(".json") or path in PUBLISHED, arguments
    if name := getattr(options, "name", None):
        assert (ROOT / "examples" / "paper" / f"{name}.yml").is_file(), arguments


def check_script(words: list[str]) -> None:
    script = next(x for x in words if x.endswith(".py"))
    source = (ROOT / script).read_text(encoding="utf-8")
    # Options that several scripts have are in a module beside them.
    for name in re.findall(r"^from (\w+) import", source, flags=re.MULTILINE):
        if (beside := (ROOT / script).with_name(f"{name}.py")).is_file():
            source += beside.read_text(encoding="utf-8")
    after = words[words.index(script) + 1 :]
    assert all(f'"{x}"' in source for x in after if x.startswith("--")), words


def test_a_wrong_command_is_found():
    with pytest.raises(pytest.fail.Exception, match="exit code 2"):
        check_options(["train", "examples/recipes/digits.yml", "--reusme"], ROOT)
    with pytest.raises(AssertionError):
        check_options(["train", "examples/recipes/digit.yml"], ROOT)
    check_options(["train", "examples/recipes/digits.yml", "--resume"], ROOT)


def test_commands_in_the_text_are_real():
    known = {name.partition(" ")[0] for name in facts.commands()}
    named = {name for found in PAGES for name in COMMAND.findall(found.text)}
    assert named <= known
    assert "check" in named


# ------------------------------------------------------------------------------------ recipes

TRAINING = {"epochs": 1}
LEAST: dict[str, Any] = {
    "output": "runs",
    "space": {"name": "shufflenet_small"},
    "data": {"name": "digits"},
    "supernet": TRAINING,
    "retrain": TRAINING,
}
"""What a recipe must have."""

NNI_KEYS = {
    "trialCodeDirectory",
    *(
        re.sub(r"_(.)", lambda x: x[1].upper(), f.name)
        for f in dataclasses.fields(ExperimentConfig)
    ),
}


def check_piece(content: dict[str, Any]) -> None:
    """Refuse what no recipe, and no configuration of NNI, can have in it."""
    if set(content) <= NNI_KEYS:
        return
    whole = {**LEAST, **content}
    if "model" in content:
        del whole["space"]
    for section in ("supernet", "retrain"):
        if "steps" not in whole[section]:
            whole[section] = {**TRAINING, **whole[section]}
    recipe.check_recipe(whole, ROOT / "examples" / "recipes" / "page.yml")
    if "space" in whole:
        assert whole["space"]["name"] in SPACES or ":" in whole["space"]["name"]


@pytest.mark.parametrize("found", with_blocks("yaml"), ids=str)
def test_pieces_of_recipes_are_accepted(found):
    for text in found.of("yaml"):
        check_piece(yaml.safe_load(text))


@pytest.mark.parametrize(
    "content",
    [
        {"supernet": {"epoch": 3}},
        {"search": {"constraints": ["flops < 3"]}},
        {"supernett": {}},
        {"space": {"name": "fbnett"}},
        {"trialConcurency": 2},
    ],
)
def test_a_wrong_piece_is_found(content):
    with pytest.raises((SposError, AssertionError)):
        check_piece(content)


def test_the_recipe_of_the_first_search_is_that_of_the_example():
    (text,) = page("docs/tutorials/first-search.md").of("yaml")
    example = (ROOT / "examples" / "recipes" / "digits.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == yaml.safe_load(example)


def test_the_own_models_recipe_is_that_of_the_example():
    (text,) = page("docs/tutorials/own-network.md").of("yaml")
    example = (ROOT / "examples" / "own_model" / "recipe.yml").read_text(encoding="utf-8")
    shown, whole = yaml.safe_load(text), yaml.safe_load(example)
    assert list(shown) == ["space", "search"]
    for section, values in shown.items():
        assert values.items() <= whole[section].items()


# ---------------------------------------------------------------------------------- reference


def bodies(directive: str) -> dict[str, str]:
    """Return the bodies of a directive on all pages, by its argument."""
    found = [
        (argument, text)
        for x in PAGES
        for name, argument, text in x.blocks
        if name == f"{{{directive}}}"
    ]
    assert len(dict(found)) == len(found), "explained twice"
    return dict(found)


def test_every_key_of_a_recipe_is_explained():
    explained = bodies("recipe-keys")
    assert set(explained) == {*facts.SECTIONS, "techniques"}
    for section, text in explained.items():
        keys = facts.explanations(text, facts.recipe_keys(section))
        assert keys
        assert all(key.text for key in keys)


def test_a_key_that_is_not_explained_is_an_error():
    keys = [facts.Fact("a", "text"), facts.Fact("b", "text"), facts.Fact("d", "text", "A fourth.")]
    with pytest.raises(ValueError, match=r"not explained here: b; .* not in the code: c$"):
        facts.explanations("a: A letter.\nc: Another.", keys)
    explained = facts.explanations("a: A letter.\nb: Another.", keys)
    assert [key.text for key in explained] == ["A letter.", "Another.", "A fourth."]


def test_every_command_is_explained():
    assert set(bodies("command")) == set(facts.commands())
    options = {fact.name: fact for fact in facts.options(facts.commands()["baseline fixed"])}
    assert options["--choice CHOICE"].rule == "required; may be repeated"
    assert facts.command_help("baseline fixed") == "the same choice in every unit"


def test_every_option_of_a_command_has_words():
    for name, parser in facts.commands().items():
        for fact in facts.options(parser):
            assert fact.text or "{" in fact.name, f"nni-spos {name}: {fact.name}"


def test_every_space_is_explained():
    (text,) = bodies("spaces").values()
    spaces = {fact.name: fact.rule for fact in facts.explanations(text, facts.spaces())}
    assert all(name in SPACES for name in spaces)
    assert spaces["shufflenet"] == "20 units, 4^20 paths"


def test_every_published_network_is_in_the_table():
    rows = re.findall(r"^\| `([a-z-]+)` \| [\d,]+ \|", page("docs/reference/spaces.md").text, re.M)
    assert rows == list(PUBLISHED)


def test_every_error_is_explained():
    found = {fact.name: fact for fact in facts.error_classes()}
    assert found["InfeasibleError"].rule == "a kind of ConstraintError"
    assert {"SposError", "StaleWarning"} <= set(found)
    assert all(fact.text.endswith((".", "one line.")) for fact in found.values())


def test_every_file_of_an_output_folder_is_listed():
    found = {fact.name: fact.text for fact in facts.output_files()}
    assert found["costs.json"].startswith("Cost tables")
    assert {"supernets/DIGEST.pt", "search/search.jsonl", "NAME", "baselines/NAME.pt"} <= set(found)
    assert all(text.endswith(".") for text in found.values())


def test_every_part_of_the_package_says_what_is_in_it():
    parts = [part for row in facts.layers() for part in row]
    assert {"path.py", "evolution/", "cli/"} <= {part.name for part in parts}
    assert all(part.text.endswith(".") for part in parts if part.name != "_version.py")


def test_every_public_name_is_in_the_api():
    (listed, *_) = re.findall(
        r"currentmodule:: nni_spos\n(.*?)```", page("docs/reference/api.md").text, re.DOTALL
    )
    names = set(re.findall(r"^   (\w+)$", listed, re.MULTILINE))
    assert names == {name for name in nni_spos.__all__ if not name.startswith("__")}


# ------------------------------------------------------------------------------------- README


def test_the_readme_is_one_screen():
    assert len(README.text.splitlines()) <= 90


def test_the_readme_says_how_to_test_and_to_try():
    said = [words for text in README.of("console") for words in shell_commands(text)]
    assert ["make", "check", "test"] in said
    assert ["make", "demo"] in said


def test_files_that_pages_link_to_are_there():
    for file, found in zip(FILES, PAGES, strict=True):
        for link in LINK.findall(found.text):
            if "://" not in link:
                assert (file.parent / link).exists(), f"{found.name}: {link}"


@pytest.mark.parametrize("name", ["architecture", "walk", "nni", "contributing"])
def test_files_that_are_named_to_a_developer_are_there(name):
    text = page(f"docs/develop/{name}.md").text
    for file in re.findall(r"`([a-z_/]+\.(?:py|cfg))`", text):
        assert any((folder / file).exists() for folder in (ROOT, ROOT / "nni_spos")), file
