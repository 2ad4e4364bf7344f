"""The life of a lab: up, killed parts, an interrupted up, down and nothing left behind.

These tests disturb, so they have a lab of their own beside the running one; which shows, too, that two labs don't
meet.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tsujilab.cloud import manage
from tsujilab.cloud.api import Cloud
from tsujilab.cloud.instance import Lab, init_of
from tsujilab.cloud.machine import Machine
from tsujilab.root import REPOSITORY
from tsujilab.sandbox import until

pytestmark = pytest.mark.lab
COMMAND = REPOSITORY / "lab/lab"


def command(lab, *words, check=True):
    return subprocess.run(
        [COMMAND, "--name", lab.name, *words], text=True, capture_output=True, check=check, timeout=600
    )


def cut_up(lab, line):
    """Starts `up` and kills it, with SIGKILL, when it has told `line`."""
    cut = subprocess.Popen([COMMAND, "--name", lab.name, "up"], stderr=subprocess.PIPE, text=True)
    assert any(line in told for told in cut.stderr), f"up ended without '{line}'"
    cut.send_signal(signal.SIGKILL)
    cut.wait()


@pytest.fixture(scope="module")
def own(lab):
    """A lab of the tests' own, up; its first up was killed while migrations ran, and begun again."""
    mine = Lab(f"{lab.name}-life")
    command(mine, "reset")
    cut_up(mine, "neutron-schema: database migrations")
    until(lambda: mine.sandbox.run("pgrep -f db-manage", check=False).returncode == 1, "the migration to end, too", 5)
    command(mine, "up")
    yield mine
    command(mine, "reset")


def rows_of(lab):
    """Exit code of `status -j`, and its rows by service."""
    result = command(lab, "status", "-j", check=False)
    return result.returncode, {row["name"]: row for row in json.loads(result.stdout)["services"]}


def processes_in(namespace):
    """The processes of this machine that are in a pid namespace (its link, "pid:[…]"), and nsenters into it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and namespace in (
                os.readlink(entry / "ns/pid"),
                os.readlink(entry / "ns/pid_for_children"),
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_first_up_may_be_killed(own):
    """A lab whose first up was killed in the middle of its migrations is whole after the next up"""
    code, rows = rows_of(own)
    assert code == 0 and len(rows) == len(manage.services())
    assert {flavor["name"] for flavor in Cloud(own, "red").list("flavor")} == {"tsuji", "tsuji-ha"}


def test_killed_services_are_told_and_healed(own):
    """kill -9 of any service shows in status with exit code 1; the next up restarts just those, and the cloud works"""
    code, before = rows_of(own)
    assert code == 0 and {row["state"] for row in before.values()} == {"up"}
    victims = ["mariadb", "ovn-sb", "neutron"]
    for service in manage.services():
        if service.name in victims:
            service.signal(own, "KILL")
            until(lambda service=service: not service.pid(own), f"{service.name} to end", 10)
    code, rows = rows_of(own)
    assert code == 1 and all(rows[name]["state"] == "down" for name in victims)
    command(own, "up")
    code, after = rows_of(own)
    assert code == 0, after
    assert [name for name in after if after[name]["pid"] != before[name]["pid"]] == [n for n in after if n in victims]
    red = Cloud(own, "red")
    network = red.create("network", name="after-the-kill")
    port = red.create("port", network_id=network["id"])
    machine = Machine.add(own, "m1", port)
    assert red.show("port", port["id"])["status"] == "ACTIVE"
    machine.delete()
    red.delete("port", port["id"])
    red.delete("network", network["id"])


def test_up_twice_changes_nothing(own):
    """up of a lab that is up leaves every process alone"""
    _, before = rows_of(own)
    command(own, "up")
    _, after = rows_of(own)
    assert {name: row["pid"] for name, row in before.items()} == {name: row["pid"] for name, row in after.items()}


def test_data_outlives_down_and_a_killed_up(own):
    """What tenants made is there after down and up, though that up was killed in the middle and begun again"""
    red = Cloud(own, "red")
    network = red.create("network", name="kept")
    command(own, "down")
    # Some services run by then and others don't.
    cut_up(own, "mariadb: ready")
    assert rows_of(own)[0] == 1
    second = subprocess.Popen([COMMAND, "--name", own.name, "up"], stderr=subprocess.DEVNULL)
    command(own, "up")
    assert second.wait(300) == 0
    assert rows_of(own)[0] == 0
    assert Cloud(own, "red").show("network", network["id"])["name"] == "kept"
    Cloud(own, "red").delete("network", network["id"])


def test_down_leaves_nothing(own, lab):
    """down ends every process, network namespace and mount of the lab, and touches no other lab"""
    network = Cloud(own, "red").create("network", name="left")
    Machine.add(own, "m1", Cloud(own, "red").create("port", network_id=network["id"])).host.start("sleep 1000")
    sandbox = own.sandbox
    namespace = os.readlink(f"/proc/{sandbox.pid}/ns/pid")
    assert len(processes_in(namespace)) > 10
    began = time.monotonic()
    command(own, "down")
    assert time.monotonic() - began < 60
    assert init_of(own.upper) is None
    assert processes_in(namespace) == []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                assert str(own.upper) not in (entry / "mountinfo").read_text()
            except OSError:
                continue
    assert rows_of(own) == (1, {})
    assert all(row["state"] == "up" for row in manage.status(lab))
    command(own, "reset")
    assert sorted(file.name for file in own.directory.iterdir()) == ["lock"]
