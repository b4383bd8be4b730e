"""Reports of a small search: what they say, in both formats, and what they refuse."""

from __future__ import annotations

import html
import importlib.resources
import re
from html.parser import HTMLParser

import pytest
import yaml
from small_report import BEST, COSTS, OUTCOMES, SPACE, write_run

from nni_spos.cli import main
from nni_spos.cost_table import CostTable
from nni_spos.costs.stored import save_costs
from nni_spos.files.sealing import open_record, seal_record
from nni_spos.files.tensors import save_tensors
from nni_spos.path import PathSpace
from nni_spos.process.stage_cost import StageCost
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import load_recipe
from nni_spos.report import gather_report, write_report
from nni_spos.search.run_record import RunRecorder

HOSTILE = "<script>alert('$x_1')</script>|*b*"
VOID = {"meta", "br", "img", "link"}


class Page(HTMLParser):
    """Tags, attributes, ids and cells of a page; tags must be closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def page_of(run, **arguments) -> tuple[Page, str]:
    recipe = arguments.pop("recipe", run.recipe)
    file = write_report(gather_report(run.folder, recipe=recipe, **arguments))
    assert file == run.folder / "report.html"
    text = file.read_text(encoding="utf-8")
    return Page(text), text


def test_the_tables_say_what_the_journal_says(run):
    page, text = page_of(run)
    assert ["1", "70.00", "1.131k", "100", "1", "k3 4 k3"] in page.rows
    assert ["5", "40.00", "1.112k", "100", "1", "k3 2 k5"] in page.rows
    assert ["1", "layer_1: k3, bits_1: 4", "130", "100"] in page.rows
    assert ["layer_2", "k3", "1", "0"] in page.rows
    assert ["all layers without a choice", "", "1k", "0"] in page.rows
    assert ["sum", "", "1.131k", "100"] in page.rows
    assert ["constraints", "flops <= 2k"] in page.rows
    assert "5 candidates with a result in 2 generations, 1 failed." in text
    assert "A candidate failed: out of &lt;memory&gt;" in text
    assert "--against" in text


def test_the_top_can_be_shorter(run):
    report = gather_report(run.folder, recipe=run.recipe, count=2)
    assert [c.metrics["top1"] for c in report.top] == [70.0, 60.0]
    assert gather_report(run.folder, recipe=run.recipe, count=0).best.path == BEST


def test_the_page_needs_nothing_else(run):
    page, text = page_of(run)
    links = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href")]
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "http" not in text
    assert not re.search(r"@import|url\((?!#)", text)
    assert ("meta", "name", "viewport") in page.attributes
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {link[1:] for link in links if link.startswith("#")}
    assert used | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_every_drawing_is_described(run):
    page, _ = page_of(run)
    labels = [v for tag, name, v in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(labels) == page.tags.count("svg") == 1 + 1 + 1 + 1 + len(SPACE)
    assert all(len(label) > 20 for label in labels)


@pytest.mark.slow
def test_the_same_search_is_the_same_page(run):
    assert page_of(run)[1] == page_of(run)[1]


def test_a_limit_on_another_cost_has_a_drawing_of_its_own(tmp_path):
    run = write_run(tmp_path / "w", constraints=["50 <= bitops <= 320", "flops <= 2k"])
    page, text = page_of(run)
    labels = [v for tag, name, v in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert sum("against BitOps" in label for label in labels) == 1
    assert sum("against multiply-adds" in label for label in labels) == 1
    assert "50 &lt;= bitops &lt;= 320" in text
    assert "flops &lt;= 2k" in text
    (header,) = [row for row in page.rows if row[0] == "rank"]
    assert header[1:4] == ["top-1 accuracy (%)", "BitOps", "multiply-adds"]


def test_a_limit_that_is_not_used_is_noted_and_drawn(run, tmp_path):
    page, text = page_of(run)
    labels = [v for tag, name, v in page.attributes if (tag, name) == ("svg", "aria-label")]
    (rise,) = [label for label in labels if label.startswith("Rising line")]
    assert rise.endswith("which ends at 70 with 56.5 % of 'flops <= 2k'.")
    assert "The best path uses 56 % of the limit of flops (1.131k of 2k). Paths that" in text
    assert "1 failed, 1 not tried." in text
    page, text = page_of(write_run(tmp_path / "share", constraints=["flops <= 84.2%"]))
    assert "The best path uses 99.9 % of 'flops <= 1.13165k'." in html.unescape(text)
    assert "of the limit of flops" not in text
    for name, limits in (("none", []), ("lower", ["flops >= 1k"])):
        page, text = page_of(write_run(tmp_path / name, constraints=limits))
        assert "Rising line" not in text


def test_hostile_names_are_only_text(tmp_path):
    space = PathSpace({HOSTILE: ["$\\bad$", "b&<i>"]})
    costs = {"flops": CostTable("flops", space, 5)}
    outcomes = [(("$\\bad$",), 0, 1.0), (("b&<i>",), 1, 2.0)]
    run = write_run(tmp_path / "w", outcomes, space=space, costs=costs)
    page, text = page_of(run)
    assert not {"script", "i"} & set(page.tags)
    assert "<script" not in text
    assert [HOSTILE, "b&<i>", "0"] in page.rows
    file = write_report(gather_report(run.folder, recipe=run.recipe), format="md")
    markdown = file.read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "&lt;script&gt;alert('$x\\_1')&lt;/script&gt;\\|\\*b\\*" in markdown


def test_markdown_and_its_drawings(run, tmp_path):
    report = gather_report(run.folder, recipe=run.recipe)
    file = write_report(report, tmp_path / "out" / "mine.md", "md")
    text = file.read_text(encoding="utf-8")
    assert "| 1 | 70.00 | 1.131k | 100 | 1 | k3 4 k3 |" in text
    assert "| sum |  | 1.131k | 100 |" in text
    drawn = re.findall(r"\]\(<(.*?)>\)", text)
    folder = tmp_path / "out" / "mine_files"
    assert sorted(drawn) == sorted(f"mine_files/{x.name}" for x in folder.iterdir())
    assert len(drawn) == 7
    for svg in folder.iterdir():
        assert svg.read_text(encoding="utf-8").startswith("<svg xmlns=")
    tables = [x for x in text.split("\n\n") if x.startswith("|")]
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_stages_without_records_say_so(run):
    page, _ = page_of(run)
    assert [
        "training of the supernet",
        "not recorded",
        "not recorded",
        "",
        "there is no supernet.pt yet",
    ] in page.rows
    assert ["together", "not recorded", "not recorded", "", ""] in page.rows


@pytest.mark.slow
def test_stages_with_records(run):
    recipe = load_recipe(run.recipe)
    cost = {"seconds": 75.0, "peak_memory_bytes": 3 * 2**30, "device": "a GPU"}
    save_tensors(recipe.checkpoint, {"cost": cost})
    RunRecorder(SearchFolder(run.folder), recipe, 0).add(StageCost(5.0, 2**20, "cpu"))
    test = {"top1": 81.5}
    cost_of_it = {**cost, "seconds": 3600}
    network = {"path": BEST, "test": test, "cost": cost_of_it}
    network["task"] = {"name": "classification"}
    save_tensors(recipe.files.retrained, network)
    page, text = page_of(run, recipe=None)
    assert ["training of the supernet", "1 min 15 s", "3 GiB", "a GPU", ""] in page.rows
    assert ["search: evaluation of all candidates", "5.0 s", "1 MiB", "cpu", ""] in page.rows
    name = "retraining of the best path"
    assert [name, "1 h 0 min", "3 GiB", "a GPU", "test: top-1 81.50 %"] in page.rows
    assert ["together", "1 h 1 min", "3 GiB", "a GPU", ""] in page.rows
    assert "--recipe" not in text, "the record names it"

    save_tensors(recipe.files.retrained, {**network, "path": {**BEST, "bits_1": 2}, "cost": None})
    page, _ = page_of(run)
    row = ["retraining of another path", "not recorded", "not recorded", "", "test: top-1 81.50 %"]
    assert row in page.rows
    recipe.checkpoint.write_bytes(b"no tensors")
    assert any("supernet.pt cannot be read" in row for row in page_of(run)[0].rows)


def test_a_search_whose_recipe_is_gone_has_a_report(run):
    page, text = page_of(run, recipe=None)
    assert "--recipe FILE names it" in text
    assert not any("sum" in row for row in page.rows)
    assert ["1", "70.00", "1.131k", "100", "1", "k3 4 k3"] in page.rows


def test_costs_that_have_changed_are_not_divided(run):
    changed = CostTable("flops", SPACE, 7, COSTS["flops"].factors)
    save_costs(load_recipe(run.recipe), SPACE, {**COSTS, "flops": changed})
    report = gather_report(run.folder, recipe=run.recipe)
    assert list(report.fixed_costs) == ["bitops"]
    assert any("tables of flops are not those of the search" in note for note in report.notes)


def test_a_random_search_is_compared(run, tmp_path):
    other = write_run(tmp_path / "r", OUTCOMES[:4], algorithm="random", constraints=[])
    _, text = page_of(run, against=other.folder)
    assert "random search: best 60, mean from 55 in the first to 58 in the last" in text
    assert "evolution: best 70, mean from 55 in the first to 56 in the last" in text
    assert "had other limits: none" in text
    assert "+10" in text


def test_another_supernet_is_not_compared(run, tmp_path, capsys):
    other = write_run(tmp_path / "r", settings={"supernet": {"epochs": 2}})
    before = sorted(run.folder.iterdir())
    assert main(["report", str(run.folder), "--against", str(other.folder)]) == 2
    line = capsys.readouterr().err
    assert "another supernet or objective (supernet differ)" in line
    assert line.count("\n") == 1
    assert sorted(run.folder.iterdir()) == before


def damage(run, **changes):
    header, *lines = run.journal.read_text().splitlines()
    record = open_record(lines[0].encode())[0] | changes
    lines[0] = seal_record(record).decode().strip()  # whoever damaged it made it look right
    run.journal.write_text("\n".join([header, *lines]) + "\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": {"layer_1": "k3"}}, "the path has no choice for bits_1, layer_2"),
        ({"metrics": {"top1": "high"}}, "candidate 0 has a result or a cost"),
        ({"metrics": {"loss": 1.0}}, "candidate 0 has a result or a cost"),
        ({"costs": {"flops": 1}}, "has a result or a cost that is missing"),
    ],
)
def test_a_damaged_journal_is_one_line(run, capsys, changes, message):
    damage(run, **changes)
    assert main(["report", str(run.folder)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (run.folder / "report.html").exists()


def test_what_cannot_be_reported_is_one_line(run, tmp_path, capsys):
    def refused(*arguments):
        assert main(["report", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        return captured.err

    assert "neither a folder nor an NNI experiment" in refused("nothing-here")
    assert "no such file" in refused(run.folder, "--recipe", tmp_path / "no.yml")
    own = yaml.safe_load(run.recipe.read_text())
    file = tmp_path / "other.yml"
    file.write_text(yaml.safe_dump({**own, "output": "other"}))
    other = PathSpace({"x": [1]})
    save_costs(load_recipe(file), other, {"flops": CostTable("flops", other, 1)})
    assert "other.yml: is of another space" in refused(run.folder, "--recipe", file)
    empty = write_run(tmp_path / "e", OUTCOMES[2:3])
    assert "no candidate is finished yet" in refused(empty.folder, "--recipe", empty.recipe)
    assert "cannot be written" in refused(
        run.folder, "--recipe", run.recipe, "--output", run.journal / "x.html"
    )


@pytest.mark.slow
def test_the_command_line(run, tmp_path, capsys):
    file = tmp_path / "page.html"
    arguments = ["--recipe", str(run.recipe), "--output", str(file), "--top", "1"]
    assert main(["report", str(run.folder), *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {file}"
    assert "The best 1<" in file.read_text(encoding="utf-8")
    assert main(["report", str(run.folder), "--format", "md"]) == 0
    assert (run.folder / "report.md").is_file()
    assert (run.folder / "report_files" / "path.svg").is_file()


@pytest.mark.slow
def test_many_labels_and_candidates_stay_small(tmp_path):
    space = PathSpace({f"layer_{i}": ["k3", "k5", "k7"] for i in range(40)})
    costs = {"flops": CostTable("flops", space, 5)}
    rows = space.decode([[(i >> j) % 3 for j in range(40)] for i in range(3000)])
    outcomes = [(tuple(path.values()), i // 100, float(i % 97)) for i, path in enumerate(rows)]
    run = write_run(tmp_path / "w", outcomes, space=space, costs=costs)
    _, text = page_of(run)
    assert len(text) < 900_000


def test_the_templates_are_part_of_the_package():
    folder = importlib.resources.files("nni_spos.report") / "templates"
    assert {file.name for file in folder.iterdir()} == {"report.html", "report.css"}
