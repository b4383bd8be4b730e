"""What is left to do when a process of pytest-xdist ends that was not told to."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how the process ended, and let pytest-xdist not wait for what it had done.

    pytest-xdist 3.8 gives all groups of such a process to others, also those that are done. Who is
    given one of these gets nothing to do, ends nothing, and so is never given anything again.
    """
    if not error:
        return
    process = node.gateway._io.popen
    print(f"\n{node.gateway.id} (process {process.pid}) ended with {process.wait()}")
    scheduler = node.config.pluginmanager.get_plugin("dsession").sched
    groups = getattr(scheduler, "assigned_work", {}).get(node, {})
    for name in [name for name, tests in groups.items() if all(tests.values())]:
        del groups[name]
