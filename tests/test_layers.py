"""Dependencies run one way, and the algorithm needs neither PyTorch nor NNI."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nni_spos

ROOT = Path(nni_spos.__file__).parent

# From the bottom to the top; a part imports from lower rows, parts above the recipe also from
# their own. A part that is not named here is at the top: nothing here may import it.
ROWS = [
    ["_version", "openmp", "import_path"],
    ["values", "child", "termination", "freed_memory", "owned"],
    ["errors"],
    ["files", "sealing", "user_modules", "digests", "pickled_values", "trouble"],
    ["code_digest"],
    ["path", "constraint"],
    ["cost_table"],
    ["counting"],
    ["priors", "evolution", "latency_table"],
    ["correlation", "choice_bias"],
    ["settings", "yaml_files"],
    ["recipe"],
    ["recipe_latency", "repeats", "dataset_specs", "image_digest", "identity"],
    [
        *("archives", "kept_supernets", "tensors", "progress", "plots", "locks"),
        *("stage_cost", "ranks", "printing"),
    ],
    ["agreement", "copies", "memory_format"],
    ["profilers", "mutables", "spaces"],
    ["supernet", "data", "training"],
    ["network"],
    ["experiment", "retrain", "report"],
    ["baseline"],
    ["study"],
    ["cli"],
]
RANKS = {part: rank for rank, row in enumerate(ROWS) for part in row}
PURE = RANKS["recipe"]

LIBRARIES = {part: {"numpy"} for row in ROWS[: RANKS["settings"]] for part in row}
LIBRARIES["evolution"] |= {"pymoo"}
LIBRARIES |= {part: {"numpy", "scipy"} for part in ("correlation", "choice_bias")}
LIBRARIES |= {"settings": {"schema"}, "recipe": {"schema"}, "yaml_files": {"yaml"}}

LIGHT = (".trial", ".worker_client", ".worker", ".worker_reception")
"""What a trial consists of, and a worker until it loads its supernet."""

FILES = {
    ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(ROOT.rglob("*.py"))
}


def imports(module: str, *, at_import: bool = False) -> set[str]:
    """Modules that a module imports, anywhere or only when it is itself imported."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
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

    visit(ast.parse(FILES[module].read_text(encoding="utf-8")))
    return found


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


def test_all_of_the_core_is_seen():
    core = {part(module) for module in FILES} & set(RANKS)
    assert core >= {p for row in ROWS[: PURE + 1] for p in row}


@pytest.mark.parametrize("module", FILES)
def test_no_import_from_above(module):
    own = part(module)
    rank = RANKS.get(own, len(ROWS))
    for name in imports(module):
        other = part(name)
        if not name.startswith("nni_spos") or other == own:
            continue
        other_rank = RANKS.get(other, len(ROWS))
        message = f"{module} must not import {name}"
        assert other_rank < rank or (other_rank == rank > PURE), message


@pytest.mark.parametrize("module", [m for m in FILES if RANKS.get(part(m), len(ROWS)) <= PURE])
def test_the_core_needs_few_libraries(module):
    libraries = roots(imports(module)) - set(sys.stdlib_module_names) - {"nni_spos"}
    assert libraries <= LIBRARIES[part(module)]


@pytest.mark.parametrize("module", FILES)
def test_no_import_from_the_tests(module):
    assert not roots(imports(module)) & {"tests", "conftest", "pytest", "hypothesis"}


@pytest.mark.parametrize("module", [m for m in FILES if m == "nni_spos.experiment.tuner"])
def test_the_tuner_starts_without_pytorch(module):
    # NNI gives a tuner ten seconds to connect.
    assert not roots(loaded_by(module)) & {"torch", "torchvision", "pytorch_lightning", "sklearn"}
    heavy = {name for name in loaded_by(module) if name.startswith("nni.nas")}
    assert not heavy


@pytest.mark.parametrize(
    "module", [m for m in FILES if m.startswith("nni_spos.experiment.") and m.endswith(LIGHT)]
)
def test_a_trial_starts_without_pytorch_and_nni(module):
    # Each candidate is a trial: with these libraries it would take seconds of its own.
    heavy = {"torch", "torchvision", "pytorch_lightning", "sklearn", "nni"}
    assert not roots(loaded_by(module)) & heavy


def test_the_core_is_imported_without_pytorch_and_nni():
    program = (
        "import sys, nni_spos.recipe, nni_spos.evolution, nni_spos.priors\n"
        "print([name for name in ('torch', 'nni', 'pytorch_lightning') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
