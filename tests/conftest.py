"""Before any of our packages is imported: shapes and types in signatures are checked at every call."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import final

import hypothesis
import jaxtyping
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

sys.path.insert(0, str(Path(__file__).parent))

from checked_calls import check_calls

PACKAGES = ("pipeline", "storage_schemas", "teachers", "trainer")
LONGEST = ("test_demo.py", "test_lost_workers.py", "test_oracle_resolutions.py", "test_faults.py")
"""Files of tests that take minutes, the longest first. They are begun first, so that no process waits for one alone."""
SHARING = ("reliability",)
"""Folders whose tests share servers and caches that take long to make; of others, those of one file do."""

if early := [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
    raise RuntimeError(f"imported before their checks were switched on: {', '.join(early)}")

check_calls(PACKAGES)

# the same examples in every run, and no limit on the time of one: the machine may be busy
busy = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=busy)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def flushed_by_nobody() -> Iterator[None]:
    """Let nothing in this process wait for the disk: no test cuts the power, and processes of their own still do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Run a test as production runs: without the checks of shapes and types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@final
class Together(LoadFileScheduling):
    """Keeps the tests of a file in one process, and those that share more than a file's."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return next((folder for folder in SHARING if folder in file.split("/")), file)


@pytest.hookimpl(optionalhook=True)  # there is none where xdist is switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Say which tests stay together."""
    return Together(config, log)
