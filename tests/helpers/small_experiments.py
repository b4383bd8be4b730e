"""A small recipe and latency table on disk, and stand-ins for NNI's manager and dispatcher."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import yaml

from nni_spos.cost_table import CostTable, Factor
from nni_spos.costs.stored import load_costs, save_costs
from nni_spos.evolution import Signal
from nni_spos.latency.table import (
    LatencyConditions,
    LatencyTable,
    LatencyValidation,
    this_machine,
)
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import build_search

# 0.5 and 1.0: NNI hands 1.0 on as 1.
SPACE = PathSpace({"a": ["k3", "k5", "k7"], "b": ["k3", "k5", "k7"], "ratio": [0.5, 1.0, 2.0, 4.0]})


def write_recipe(folder: Path, name: str = "recipe.yml", **search) -> Path:
    """Write a recipe and its cost table, which then need not be built."""
    content = {
        "output": "output",
        "space": {"name": "shufflenet"},
        "data": {"name": "digits"},
        "supernet": {"epochs": 1},
        "retrain": {"epochs": 1},
        "search": {"population_size": 6, "num_generations": 3, "top_k": 3, **search},
    }
    file = folder / name
    file.write_text(yaml.safe_dump(content))
    factors = [Factor((label,), np.arange(len(SPACE[label]))) for label in SPACE]
    save_costs(load_recipe(file), SPACE, {"flops": CostTable("flops", SPACE, 1, factors)})
    return file


def save_table(file, device="cpu", scale=1.0, machine=None, space=SPACE, **changes) -> None:
    """Write a latency table: 1 ms, and half a millisecond for each place."""
    factors = [Factor((label,), 0.5 * scale * np.arange(len(space[label]))) for label in space]
    table = LatencyTable(
        costs=CostTable(f"latency_ms({device})", space, 1.0, factors),
        conditions=LatencyConditions(
            device=device,
            machine=machine or this_machine(device) or "unknown",
            threads=1,
            batch_size=1,
            input_shape=(1, 8, 8),
            channels_last=True,
            torch="2.2",
            date="2025-01-01T00:00:00+00:00",
        ),
        validation=LatencyValidation.compare([1.0, 2.0], [1.0, 2.0]),
        **changes,
    )
    table.save(file)


def score(path: dict) -> float:
    """Scores without ties."""
    return float(sum(7**i * place for i, place in enumerate(SPACE.key(path))))


def reference(recipe_file: Path, fails=lambda path: False):
    """Run the recipe's search in this process; the paths that `fails` picks are failures."""
    recipe = load_recipe(recipe_file)
    search = build_search(recipe.search, *load_costs(recipe))
    while not isinstance(path := search.ask(), Signal):
        if fails(path):
            search.tell_failure(path, "planned")
        else:
            search.tell(path, {"top1": score(path)})
    return search


class FakeManager:
    """The part of NNI's REST interface that we use, with whatever jobs a test puts in."""

    def __init__(self):
        self.jobs: dict[str, dict] = {}
        self.metrics: dict[str, dict] = {}
        self.intermediate: dict[str, dict | list[dict]] = {}
        self.logs: dict[str, bytes] = {}
        self.num_downloads = 0
        self.status: object = {"status": "RUNNING", "errors": []}
        self.profile = {"id": "abcd", "params": {"maxTrialNumber": 99, "trialConcurrency": 2}}
        self.puts: list[tuple[str, dict]] = []
        self.refusals = 0
        handler = type("Handler", (_Handler,), {"manager": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def add_job(self, job_id, parameters, status="RUNNING", parameter_id=0, metrics=None):
        packed = {"parameter_id": parameter_id, "parameters": parameters}
        text = json.dumps(packed).replace("1.0", "1")  # as JavaScript does
        record = {"trialJobId": job_id, "status": status, "hyperParameters": [text]}
        if metrics is not None:
            record["finalMetricData"] = [{"data": json.dumps(json.dumps(metrics))}]
            self.metrics[job_id] = metrics
        self.jobs[job_id] = record

    @property
    def reports(self) -> list[tuple[dict, dict]]:
        """The metrics that trials sent, and the results in them."""
        sent = [json.loads(content["metric"]) for _, content in self.puts]
        return [(metric, json.loads(metric["value"])) for metric in sent]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    manager: FakeManager

    def do_GET(self):
        parts = urlsplit(self.path)
        if parts.path.startswith("/logs/"):
            return self._send_log(parts.path.removeprefix("/logs/"))
        kind, _, name = parts.path.removeprefix("/api/v1/nni/").partition("/")
        if self.manager.refusals:
            self.manager.refusals -= 1
            return self._answer("busy", 500)
        answers = {
            "check-status": lambda: self.manager.status,
            "experiment": lambda: self.manager.profile,
            "trial-jobs": lambda: (
                self.manager.jobs.get(name, "") if name else list(self.manager.jobs.values())
            ),
            "metric-data": lambda: self._metrics(name, parts.query),
        }
        return self._answer(answers[kind]()) if kind in answers else self._answer("", 404)

    def _metrics(self, name, query):
        if query == "type=PERIODICAL":
            found = self.manager.intermediate.get(name)
            values = found if isinstance(found, list) else [] if found is None else [found]
            return [{"data": json.dumps(json.dumps(value))} for value in values]
        found = self.manager.metrics.get(name)
        return [{"data": json.dumps(json.dumps(found))}] if found else []

    def _send_log(self, name):
        self.manager.num_downloads += name.endswith(".pt")
        self._answer(self.manager.logs.get(name, "<html>NNI's page</html>"))

    def do_PUT(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.manager.puts.append((self.path, content))
        self._answer("")

    def _answer(self, content, code=200):
        self.send_response(code)
        self.end_headers()
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass
