"""Dependencies run one way, and the algorithm needs neither PyTorch nor NNI."""

import ast
import functools
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import nni_spos

ROOT = Path(nni_spos.__file__).parent

# From the bottom to the top; a part imports from lower rows only. The package itself, which only
# prepares what is imported from it, is at the bottom.
ROWS = [
    ["_version", "values"],
    ["process", "errors"],
    ["", "files"],
    ["path", "constraint", "display", "components"],
    ["cost_table", "recipe", "project"],
    ["metrics", "tasks"],
    ["counting", "prediction", "ranks"],
    ["priors", "evolution"],
    ["mutables", "data"],
    ["modules", "spaces"],
    ["conversion"],
    ["profilers", "scoring"],
    ["training"],
    ["export"],
    ["latency"],
    ["supernet"],
    ["costs"],
    ["search"],
    ["retraining", "report", "worker"],
    ["baseline", "ranking", "experiment", "compression", "importing", "deployment"],
    ["study", "testing"],
    ["cli"],
]
RANKS = {part: rank for rank, row in enumerate(ROWS) for part in row}
SHOWN = RANKS.keys() - {"", "_version"}
"""What a reader of the architecture has to know of."""
DOCS = ROOT.parent / "docs"

ALGORITHM = {"numpy"}
LIBRARIES = {
    "errors": set(),
    "values": set(),
    "files": {"numpy", "torch", "yaml"},
    "path": ALGORITHM,
    "constraint": set(),
    "components": set(),
    "cost_table": ALGORITHM,
    "metrics": ALGORITHM,
    "counting": ALGORITHM,
    "prediction": ALGORITHM | {"scipy"},
    "priors": ALGORITHM,
    "evolution": ALGORITHM | {"pymoo"},
    "recipe": {"schema", "PIL"},
    "tasks": {"numpy", "torch", "torchmetrics", "torchvision"},
    "project": set(),
    "display": {"matplotlib", "numpy", "tqdm"},
}
"""What the algorithm and what everything speaks may import, the standard library aside."""

HEAVY = {"torch", "torchvision", "pytorch_lightning", "sklearn"}
DRAWING = {"matplotlib", "scipy", "pandas"}
LIGHT = {
    # NNI gives a tuner ten seconds to connect.
    "nni_spos.experiment.tuner": HEAVY | {"nni.nas"},
    # Each candidate is a trial: with these libraries it would take seconds of its own.
    "nni_spos.tasks.classification": HEAVY | {"nni"},
    "nni_spos.experiment.trial": HEAVY | {"nni"},
    # A worker listens before it loads its supernet.
    "nni_spos.worker.client": HEAVY | {"nni"},
    "nni_spos.worker.service": HEAVY | {"nni"},
    "nni_spos.worker.reception": HEAVY | {"nni"},
    # Help, and what is wrong with a recipe, are there at once.
    "nni_spos.cli": HEAVY | DRAWING | {"nni"},
    "nni_spos.ranks": HEAVY | {"nni"},
    "nni_spos.experiment.check": HEAVY | DRAWING | {"nni"},
    "nni_spos.experiment.start": HEAVY | DRAWING | {"nni"},
    # What was found is shown without what found it; charts are drawn by functions of their own.
    "nni_spos.search.results": HEAVY | DRAWING | {"nni"},
    "nni_spos.search.running": HEAVY | DRAWING | {"nni"},
    "nni_spos.report.rendering": HEAVY | DRAWING | {"nni"},
    "nni_spos.costs.prior_report": HEAVY | DRAWING | {"nni"},
    "nni_spos.priors.building": HEAVY | DRAWING | {"nni"},
    # What is in this process counts as the memory of a runtime; the keys of formats are asked for.
    "nni_spos.deployment.runner": HEAVY | DRAWING | {"nni"},
    "nni_spos.export.onnx_format": HEAVY | DRAWING | {"nni"},
    # Costs need PyTorch and NNI, which bring pytorch_lightning, and nothing of data.
    "nni_spos.profilers": {"torchvision", "sklearn", "matplotlib", "scipy"},
    "nni_spos.supernet.building": {"sklearn", "matplotlib", "scipy"},
}
"""What a module must not import when it is imported itself."""

FILES = {
    ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(ROOT.rglob("*.py"))
}


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str, *, at_import: bool = False) -> frozenset[str]:
    """Modules that a module imports, anywhere, for types too, or when it is itself imported."""
    found = set()

    def visit(node):
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: write imports in full"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in FILES else node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree(module))
    return frozenset(found)


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def loaded_by(module: str) -> set[str]:
    """Everything that importing a module imports, as far as our own modules say."""
    loaded, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in loaded:
            continue
        loaded.add(name)
        if name in FILES:
            waiting += imports(name, at_import=True)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return loaded


def roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle, if there are any."""
    done, way = set(), []

    def visit(module: str) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module in done:
            return []
        way.append(module)
        for name in sorted(graph[module]):
            if found := visit(name):
                return found
        done.add(way.pop())
        return []

    return next((found for module in graph if (found := visit(module))), [])


@pytest.fixture(scope="module", autouse=True)
def read():
    """Read all modules before the first test, which would else take the time of all."""
    for module in FILES:
        imports(module)


def test_imports_go_down():
    assert {part(module) for module in FILES} == set(RANKS)
    wrong = [
        f"{module} imports {name}"
        for module in FILES
        for name in imports(module)
        if name.startswith("nni_spos")
        and part(name) != part(module)
        and RANKS[part(name)] >= RANKS[part(module)]
    ]
    assert not wrong


def test_the_picture_has_all_parts_in_the_order_of_the_rows():
    svg = ET.parse(DOCS / "pictures" / "architecture.svg")
    texts = svg.findall("{*}g[@text-anchor='middle']/{*}text")
    heights = {(x.text or "").partition(":")[0]: int(x.attrib["y"]) for x in texts}
    assert set(heights) == SHOWN
    assert len(heights) == len(texts)
    wrong = [
        f"{one} is drawn below {other}"
        for one, other in itertools.permutations(SHOWN, 2)
        if RANKS[one] > RANKS[other] and heights[one] > heights[other]
    ]
    assert not wrong


def test_the_page_of_the_picture_speaks_of_all_parts():
    text = (DOCS / "develop" / "architecture.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", text)) >= SHOWN


def test_no_modules_import_each_other():
    graph = {module: imports(module) & FILES.keys() for module in FILES}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    assert not circle(graph)


def test_each_part_imports_what_it_may():
    for module in FILES:
        libraries = roots(imports(module)) - set(sys.stdlib_module_names) - {"nni_spos"}
        assert not libraries & {"tests", "conftest", "pytest", "hypothesis"}, module
        if (known := LIBRARIES.get(part(module))) is not None:
            assert libraries <= known, module


@pytest.mark.parametrize("module", LIGHT)
def test_tuner_and_trials_start_light(module):
    loaded = loaded_by(module)
    heavy = [x for x in LIGHT[module] if any(f"{name}.".startswith(f"{x}.") for name in loaded)]
    assert not heavy


def test_the_algorithm_starts_light():
    program = (
        "import sys, nni_spos.recipe.recipe, nni_spos.evolution, nni_spos.priors\n"
        "print([name for name in ('torch', 'nni', 'pytorch_lightning') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
