"""The fast tests on every supported Python, and with the lowest versions that setup.cfg allows.

``nox --list`` shows the sessions, ``nox --session lowest`` runs one. Each makes an environment of
about 5 GB. Install nox in an environment of its own: it needs a newer filelock than NNI allows.
"""

from __future__ import annotations

import configparser
from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
EXTRAS = ("test", "nsga2")
FAST = ("-W", "ignore", "-m", "pytest", "-n", "logical", "--dist", "worksteal")
FAST += ("-m", "not (nni or spawn or slow or gpu)")
THREADS = {"OMP_NUM_THREADS": "1"}

nox.options.error_on_missing_interpreters = False


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the fast tests with the newest versions of everything."""
    session.install("--editable", f".[{','.join(EXTRAS)}]")
    session.run("python", *FAST, *session.posargs, env=THREADS)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the fast tests with every declared dependency at its lower bound."""
    file = Path(session.create_tmp()) / "lowest.txt"
    file.write_text("".join(f"{line}\n" for line in lower_bounds(Path("setup.cfg"))))
    session.install("--editable", f".[{','.join(EXTRAS)}]", "--constraint", str(file))
    session.run("python", *FAST, *session.posargs, env=THREADS)


def lower_bounds(file: Path) -> list[str]:
    """Return what setup.cfg requires, each at exactly its lower bound."""
    content = configparser.ConfigParser()
    content.read(file, encoding="utf-8")
    listed = [content["options"]["install_requires"]]
    listed += [content["options.extras_require"][extra] for extra in EXTRAS]
    lines = [line.strip() for text in listed for line in text.splitlines()]
    return [line.replace(">=", "==") for line in lines if ">=" in line and line[0] != "#"]
