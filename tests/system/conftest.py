"""The harness of the system tests.

Each test gets sandboxes (lab/tsujilab/sandbox.py): machines of its own that the kernel takes down with the test,
even when it is killed. A test says in the first line of its docstring what it proves, and that line is printed with
its verdict. When it fails, the state of every host (links, addresses, routes, neighbours, sockets; both families),
the programs' output and the captures stay in build/test-logs/TEST/.
"""
import re
import shutil
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "lab"))

from lab_fixture import lab, scratch  # noqa: F401  (fixtures)
from tsujilab import root
from tsujilab.sandbox import Sandbox

LOGS = REPOSITORY / "build/test-logs"
MARKERS = {
    "proves(*rows)": "the requirement rows (R01...) that the test proves",
    "lab": "needs the lab (a whole OpenStack)",
    "vm": "boots virtual machines",
}
# What is worth knowing of a host whose test failed.
STATE_COMMANDS = ("ip -d link", "ip addr", "ip nexthop", "ip route show table all", "ip -6 route show table all",
                  "ip neigh", "ip -6 neigh", "ss -anp", "nft list ruleset")


def pytest_addoption(parser):
    parser.addoption("--keep-logs", action="store_true", help="keep the logs of tests that pass, too")
    parser.addoption("--lab", help="the running lab to use, which must then be whole (default: 'lab', if it is up)")


def pytest_configure(config):
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    setattr(item, f"report_{report.when}", report)
    if report.when == "call" or report.outcome != "passed":
        rows = [row for mark in item.iter_markers("proves") for row in mark.args]
        proves = ((item.obj.__doc__ or "").strip().splitlines() or [item.name])[0]
        report.user_properties.append(("proves", f"{' '.join(rows)}{': ' if rows else ''}{proves}"))


def pytest_report_teststatus(report):
    """One line per test, by pytest_runtest_logreport, instead of dots."""
    return (report.outcome if report.when == "call" or report.outcome != "passed" else ""), "", ""


class Narrator:
    """Prints each verdict with what it is a verdict on."""

    def __init__(self, terminal):
        self.terminal = terminal

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.outcome == "passed":
            return
        name = report.nodeid.rsplit("/", 1)[-1]
        proves = dict(report.user_properties).get("proves", "")
        skipped = report.outcome == "skipped" and isinstance(report.longrepr, tuple)
        reason = f" ({report.longrepr[2]})" if skipped else ""
        markup = {"passed": {"green": True}, "failed": {"red": True}}.get(report.outcome, {"yellow": True})
        self.terminal.ensure_newline()
        self.terminal.write(f"{report.outcome.upper():8}", **markup)
        self.terminal.write_line(f"{report.duration:6.1f} s  {name}{reason}\n                   {proves}")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal:
        session.config.pluginmanager.register(Narrator(terminal))


def save_state(sandbox):
    for host in (sandbox, *sandbox.hosts.values()):
        with open(sandbox.logs / f"{host.name or 'sandbox'}.state", "w", encoding="utf-8") as file:
            for command in STATE_COMMANDS:
                result = host.run(command, check=False)
                file.write(f"$ {command}\n{result.stdout}{result.stderr}\n")


@pytest.fixture
def logs(request):
    """The test's log directory; deleted afterwards unless the test failed."""
    directory = LOGS / re.sub(r"[^A-Za-z0-9_.=-]+", "_", request.node.nodeid.rsplit("/", 1)[-1]).strip("_")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    yield directory
    if not failed(request.node) and not request.config.getoption("--keep-logs"):
        shutil.rmtree(directory, ignore_errors=True)


def failed(item):
    return any(getattr(item, f"report_{when}", None) and getattr(item, f"report_{when}").failed
               for when in ("setup", "call"))


@pytest.fixture
def make_sandbox(request, logs):
    """make_sandbox(name="node", release=None, purposes=("test",)): a sandbox that ends with the test.

    release: a Debian code name, whose tree is made when needed; this machine's own tree when None or its own release.
    """
    sandboxes = []

    def make(name="node", release=None, purposes=("test",)):
        own = release in (None, root.host_release())
        lower = "/" if own else root.installed_root(release, *purposes)
        directory = logs / name
        directory.mkdir(exist_ok=True)
        sandboxes.append(Sandbox.create(name, lower=lower, logs=directory, binds=[REPOSITORY]))
        return sandboxes[-1]

    yield make
    for sandbox in sandboxes:
        if failed(request.node) and sandbox.popen.poll() is None:
            save_state(sandbox)
        sandbox.close()


@pytest.fixture
def sandbox(make_sandbox):
    """A sandbox with this machine's own file tree."""
    return make_sandbox()
