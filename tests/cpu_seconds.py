"""What tests cost: `python -m pytest -n auto -p tests.cpu_seconds` prints processor seconds by function and file.

Those of the process that runs a test and of the processes that it waited for, from set-up to the end of tear-down.
"""

import os
from collections import Counter
from collections.abc import Generator

import pytest

NAME = "processor seconds"
# Functions and files that are printed.
MOST = 40
_begun = pytest.StashKey[float]()


class Costs:
    """The seconds by function, gathered where reports arrive."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.cases: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            place = report.nodeid.split("[")[0]
            self.seconds[place] += dict(report.user_properties).get(NAME, 0.0)
            self.cases[place] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        files: Counter[str] = Counter()
        for place, seconds in self.seconds.items():
            files[place.split("::")[0]] += seconds
        cases, total = sum(self.cases.values()), sum(self.seconds.values())
        terminalreporter.section(f"{total:.1f} {NAME} in {cases} cases, without what starts and collects")
        for place, seconds in [*files.most_common(MOST), *self.seconds.most_common(MOST)]:
            many = f" ({self.cases[place]} cases)" if place in self.cases else ""
            terminalreporter.write_line(f"{seconds:8.2f} {place}{many}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Costs())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_begun] = _now()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, object, object]:
    if call.when == "teardown" and _begun in item.stash:
        item.user_properties.append((NAME, _now() - item.stash[_begun]))
    return (yield)


def _now() -> float:
    """Return the seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])
