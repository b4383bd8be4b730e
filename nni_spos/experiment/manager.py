"""A small client of the NNI manager, on this machine or on another.

The standard library's HTTP client is enough, and unlike NNI's own modules it is imported in no
time. Proxies of the environment are not used: the manager is never behind one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nni_spos.errors import ExperimentError

TIMEOUT = 20.0
"""Seconds that one request may take."""

BLOCK = 1 << 20
"""Bytes of a file that are read at a time."""

FINAL, INTERMEDIATE = "FINAL", "PERIODICAL"
"""What a trial may report: its result, and what comes before."""

RESUMED = "ADD_RESUMED"
"""State of a trial job that a resumed manager is going to run again."""

RUNNING = ("WAITING", "RUNNING", "UNKNOWN", RESUMED)
"""States of a trial job that has not ended."""

SUCCEEDED = "SUCCEEDED"
"""State of a trial job whose command ended with exit code 0."""

KILLED = ("USER_CANCELED", "SYS_CANCELED")
"""States of a trial job that a signal ended, whoever sent it."""


@dataclass(frozen=True)
class TrialJob:
    """A trial as the manager records it.

    Parameters
    ----------
    id
        NNI's id of the trial job.
    status
        E.g. ``RUNNING``, ``SUCCEEDED``, ``FAILED``.
    parameter_id
        Id under which the tuner issued its parameters.
    parameters
        What the tuner issued: a path. None while the manager has not recorded it.
    metrics
        The final result, if the trial succeeded and reported one.
    """

    id: str
    status: str
    parameter_id: int | None
    parameters: dict[str, Any] | None
    metrics: Any

    @property
    def has_ended(self) -> bool:
        """Whether the trial will not report any more."""
        return self.status not in RUNNING

    @property
    def was_killed(self) -> bool:
        """Whether the trial was ended from outside, so that its path is not the reason."""
        return self.status in KILLED and self.metrics is None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TrialJob:
        """Read the manager's record, which holds JSON within JSON."""
        issued = record.get("hyperParameters") or []
        packed = json.loads(issued[0]) if issued else {}
        final = record.get("finalMetricData") or []
        metrics = _unpacked(final[0]["data"]) if final else None
        if isinstance(metrics, str):  # no result, and not the reason of a failure either
            metrics = {"default": metrics}
        return cls(
            id=record["trialJobId"],
            status=record["status"],
            parameter_id=packed.get("parameter_id"),
            parameters=packed.get("parameters"),
            metrics=metrics,
        )


class Manager:
    """Requests to a running NNI manager.

    Parameters
    ----------
    port
        Port of its web page.
    prefix
        NNI's ``--url_prefix``, usually empty.
    host
        Name or address of its machine.

    Every method raises ExperimentError if the manager cannot be reached or refuses.
    """

    def __init__(self, port: int, prefix: str = "", host: str = "127.0.0.1"):
        self.port = port
        self.host = host
        self.url = f"http://{host}:{port}/{prefix.strip('/')}".rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @classmethod
    def from_channel(cls, channel: str) -> Manager:
        """Find the manager by the address that it gives to its tuner, a trial or a machine.

        Parameters
        ----------
        channel
            ``ws://localhost:PORT/[PREFIX/]tuner``, ``http://localhost:PORT/[PREFIX/]env/...`` or
            ``ws://HOST:PORT/[PREFIX/]platform/...``.
        """
        parts = urllib.parse.urlsplit(channel)
        if parts.port is None:
            raise ExperimentError(f"NNI gave an address without a port: {channel!r}.")
        path = parts.path.removesuffix("/tuner").partition("/env/")[0].partition("/platform/")[0]
        # What NNI calls localhost listens on IPv4, and the name may stand for IPv6 first.
        is_here = parts.hostname in (None, "localhost")
        return cls(parts.port, path, "127.0.0.1" if is_here else str(parts.hostname))

    def status(self) -> tuple[str, list[str]]:
        """Return the experiment's status, e.g. ``RUNNING`` or ``DONE``, and its errors."""
        answer = self._request("GET", "/check-status")
        if not isinstance(answer, Mapping):  # text while the manager starts
            return "INITIALIZING", []
        return answer["status"], list(answer.get("errors", []))

    def experiment(self) -> dict[str, Any]:
        """Return the experiment's profile; its configuration is under ``params``."""
        return self._mapping("/experiment")

    def trial_jobs(self) -> list[TrialJob]:
        """Return every trial job in the order of submission."""
        answer = self._request("GET", "/trial-jobs")
        if not isinstance(answer, list):
            raise ExperimentError(f"{self.url}: is not an NNI manager.")
        return [TrialJob.from_record(record) for record in answer]

    def trial_job(self, job_id: str) -> TrialJob | None:
        """Return one trial job, or None while the manager has no record of it."""
        answer = self._request("GET", f"/trial-jobs/{urllib.parse.quote(job_id)}")
        return TrialJob.from_record(answer) if answer else None

    def has_reported(self, job_id: str) -> bool:
        """Whether the manager has a final result of a trial job, however the job ended."""
        return bool(self._metrics(job_id, FINAL))

    def final_result(self, job_id: str) -> Any:
        """Return what a trial job reported last as its result, also if it failed then, or None."""
        records = self._metrics(job_id, FINAL)
        return _unpacked(records[-1]["data"]) if records else None

    def intermediate_results(self, job_id: str) -> list[Any]:
        """Return what a trial job reported before its result, in this order."""
        return [_unpacked(record["data"]) for record in self._metrics(job_id, INTERMEDIATE)]

    def report(
        self, job_id: str, parameter_id: int | None, value: str, channel: str, kind: str = FINAL
    ) -> None:
        """Report what a trial found, in the words of NNI's own client of a trial.

        Parameters
        ----------
        job_id, parameter_id
            NNI's id of the trial, and the id under which the tuner issued its parameters.
        value
            What is reported, as JSON.
        channel
            The address that NNI gave the trial, of this manager.
        kind
            `FINAL`, the result, or `INTERMEDIATE`.
        """
        metric = {
            "parameter_id": parameter_id,
            "trial_job_id": job_id,
            "type": kind,
            "sequence": 0,
            "value": value,
        }
        path = urllib.parse.urlsplit(channel).path
        command = {"type": "metric", "metric": json.dumps(metric)}
        self._send("PUT", f"http://{self.host}:{self.port}{path}", command)

    def set_max_trial_number(self, number: int) -> None:
        """Change how many trials the experiment may have: it is done when so many have ended."""
        profile = self.experiment()
        profile["params"]["maxTrialNumber"] = number
        self._request("PUT", "/experiment?update_type=MAX_TRIAL_NUM", profile)

    def read_log(self, name: str) -> Any:
        """Return the content of a JSON file in the experiment's folder ``log``; None without it."""
        answer = self._send("GET", f"{self.url}/logs/{urllib.parse.quote(name)}", None)
        return None if isinstance(answer, str) else answer  # NNI's page stands for a missing file

    def download_log(self, name: str, num_bytes: int) -> Iterator[bytes]:
        """Read a file in the experiment's folder ``log`` block by block, at most `num_bytes`."""
        request = urllib.request.Request(f"{self.url}/logs/{urllib.parse.quote(name)}")
        with self._open(request) as response:
            while num_bytes > 0 and (block := response.read(min(BLOCK, num_bytes))):
                num_bytes -= len(block)
                yield block

    def export(self) -> list[dict[str, Any]]:
        """Return what ``nnictl experiment export`` writes: parameter, value and trial job."""
        answer = self._request("GET", "/export-data")
        for row in answer:
            row["value"] = _unpacked(row["value"])
        return answer

    def _mapping(self, path: str) -> dict[str, Any]:
        answer = self._request("GET", path)
        if not isinstance(answer, dict):
            raise ExperimentError(f"{self.url}: is not an NNI manager, or is still starting.")
        return answer

    def _metrics(self, job_id: str, kind: str) -> Any:
        job = urllib.parse.quote(job_id)
        return self._request("GET", f"/metric-data/{job}?type={kind}") or []

    def _request(self, method: str, path: str, content: Any = None) -> Any:
        return self._send(method, f"{self.url}/api/v1/nni{path}", content)

    def _send(self, method: str, url: str, content: Any) -> Any:
        """Send a request; the answer is read as JSON if it is JSON, else returned as text."""
        request = urllib.request.Request(
            url,
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        with self._open(request) as response:
            text = response.read().decode()
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text

    @contextlib.contextmanager
    def _open(self, request: urllib.request.Request) -> Iterator[Any]:
        """Send a request; what goes wrong, also while the answer is read, is an ExperimentError."""
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                yield response
        except urllib.error.HTTPError as problem:
            reason = f"{problem.code} {problem.reason}"
            path = urllib.parse.urlsplit(request.full_url).path.removeprefix("/api/v1/nni")
            raise ExperimentError(
                f"the NNI manager refused {request.get_method()} {path}: {reason}."
            ) from None
        except (OSError, ValueError, http.client.HTTPException) as problem:
            cause = problem.reason if isinstance(problem, urllib.error.URLError) else problem
            place = f"port {self.port}" + ("" if self.host == "127.0.0.1" else f" of {self.host}")
            raise ExperimentError(
                f"the NNI manager on {place} cannot be reached ({cause})."
            ) from None


def _unpacked(value: Any) -> Any:
    """Read JSON that was made into text once or more; what is no JSON stays text.

    A trial may report anything: it must not keep the records of all others from being read.
    """
    while isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
