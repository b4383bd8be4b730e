"""Users who have only the wheel have everything: nothing is read from the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import nni_spos
from nni_spos.project.examples import EXAMPLES

ROOT = Path(__file__).parents[2]
SOURCES = (
    "nni_spos", "examples", "search_spaces", "setup.py", "setup.cfg", "pyproject.toml",
    "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "noxfile.py",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.spawn]


def run(command, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def pip(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]


def build_wheel(source: Path, place: Path) -> Path:
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", place)
    run(pip("wheel", *options, source), source)
    (wheel,) = place.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The repository, in a folder in which it may be built."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "runs")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the installed package alone."""
    place = tmp_path_factory.mktemp("installed")
    run(pip("install", "--no-deps", "--no-index", "--target", place, wheel), place)
    return place


@pytest.fixture
def spos(installed, tmp_path):
    """Run ``nni-spos`` from an empty folder, which is returned in `spos.folder`."""
    (tmp_path / "work").mkdir()

    def call(*arguments: str, folder: Path = tmp_path / "work") -> str:
        command = [sys.executable, "-m", "nni_spos.cli", *arguments]
        return run(command, folder, PYTHONPATH=str(installed), HOME=str(tmp_path))

    call.folder = tmp_path / "work"
    return call


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_every_file_that_the_code_reads(wheel):
    found = files_of(wheel)
    for folder in ("nni_spos", "examples", "search_spaces"):
        for file in (ROOT / folder).rglob("*"):
            name = file.relative_to(ROOT).as_posix()
            is_generated = "__pycache__" in name or name.startswith("examples/runs/")
            is_for_the_page_of_the_repository = file.suffix == ".png"
            if file.is_dir() or is_generated or is_for_the_page_of_the_repository:
                continue
            if name == "search_spaces/generate.py":
                continue
            inside = name if folder == "nni_spos" else f"nni_spos/{name}"
            assert found.get(inside) == file.read_bytes(), inside
    assert {name.partition("/")[0].partition("-")[0] for name in found} == {"nni_spos"}


def test_a_source_distribution_makes_the_same_wheel(source, wheel, tmp_path):
    program = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run([sys.executable, "-c", program, str(tmp_path / "dist")], source)
    (packed,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        # Python 3.10.12, 3.11.4 and later know what a name may lead to.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path / "unpacked", **safe)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = files_of(build_wheel(unpacked, tmp_path / "wheel"))
    first = files_of(wheel)
    assert again.keys() == first.keys()
    assert [name for name in first if again[name] != first[name]] == []


def test_it_is_the_installed_package_that_runs(spos, installed):
    program = "import nni_spos; print(nni_spos.__file__)"
    found = run([sys.executable, "-c", program], spos.folder, PYTHONPATH=str(installed))
    assert Path(found.strip()).is_relative_to(installed)
    assert not Path(nni_spos.__file__).is_relative_to(installed)


@pytest.mark.parametrize("name", ["digits", "own_model", "image_folder"])
def test_a_project_is_accepted(spos, name):
    """`tests.test_examples` checks the others, which say the same in the repository."""
    assert "nni-spos check spos.yml" in spos("new", "mine", "--example", name)
    assert "spos.yml: valid; " in spos("check", "spos.yml", folder=spos.folder / "mine")


def test_a_project_of_each_example_is_written(spos):
    for name in EXAMPLES:
        spos("new", name, "--example", name)
        assert {"README.md", "recipe.yml"} < {x.name for x in (spos.folder / name).iterdir()}


def test_the_examples_are_listed(spos):
    assert [line.split()[0] for line in spos("new", "--list").splitlines()] == list(EXAMPLES)


def test_the_experiments_of_the_paper_are_there(spos):
    lines = spos("experiment", "--list").splitlines()
    assert [line.split()[0] for line in lines] == [
        file.stem for file in sorted((ROOT / "examples" / "paper").glob("*.yml"))
    ]
    steps = spos("experiment", "fig2", "--scale", "full", "--dry-run")
    assert str(spos.folder / "runs" / "paper" / "fig2" / "full") in steps
    assert list(spos.folder.iterdir()) == []


def test_spaces_and_published_networks_are_there(spos):
    content = json.loads(spos("profile", "shufflenet", "--path", "shufflenet-spos", "--json"))
    assert content["path"] == {"flops": 322_918_720, "params": 3_558_464}


def test_a_search_and_its_report(spos):
    spos("new", "mine")
    folder = spos.folder / "mine"
    recipe = (folder / "recipe.yml").read_text()
    (folder / "recipe.yml").write_text(recipe.replace("epochs: 60", "epochs: 1"))
    spos("train", "recipe.yml", "--paths", "1", folder=folder)
    spos("search", "recipe.yml", "--output", "best.json", folder=folder)
    spos("report", "output/search", folder=folder)
    assert "<html" in (folder / "output" / "search" / "report.html").read_text()
