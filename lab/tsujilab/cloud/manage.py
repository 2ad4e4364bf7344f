"""up, down, reset, status: the life of a lab."""

import os
import signal
from pathlib import Path

from tsujilab.cloud import database, keystone, neutron, ovn
from tsujilab.cloud import nova as nova_services
from tsujilab.cloud.graph import Step, run_all
from tsujilab.cloud.instance import CONF, RUN
from tsujilab.cloud.service import Service
from tsujilab.cloud.tree import ready_tree
from tsujilab.root import REPOSITORY
from tsujilab.sandbox import until


def files(lab, _):
    """What programs in the lab look for at fixed places."""
    lab.path("/etc/hosts").write_text(f"127.0.0.1 localhost {lab.name}\n::1 localhost\n")
    lab.path("/etc/openstack").mkdir(exist_ok=True)
    lab.path("/etc/openstack/clouds.yaml").write_text((CONF / "clouds.yaml").read_text())
    lab.path("/etc/neutron/policy.d/tsuji.yaml").write_text((REPOSITORY / "neutron/policy.d/tsuji.yaml").read_text())


def tasks(nova=False):
    """All that `up` does in the sandbox."""
    return [
        Step("files", files),
        *ovn.tasks(),
        *database.tasks(),
        *keystone.tasks(nova),
        *neutron.tasks(nova),
        *(nova_services.tasks() if nova else []),
    ]


def services(nova=False):
    return [task for task in tasks(nova) if isinstance(task, Service)]


def has_nova(lab):
    """Whether the running lab was started with Nova."""
    return lab.path(f"{RUN}/nova").exists()


def up(lab, tell, nova=False):
    """Starts the lab, or what is missing of it."""
    with lab.locked(tell):
        running = lab.find()
        if running and nova and not has_nova(lab):
            tell("the lab runs without Nova: it is stopped first, since packages may be added below it")
            stop(lab, tell)
            running = None
        if not running:
            lab.create(ready_tree(nova, tell))
            if nova:
                lab.path(f"{RUN}/nova").touch()
        run_all(lab, tasks(has_nova(lab)), tell)


def stop(lab, tell):
    """Ends all services, databases in order, then the sandbox with whatever is left."""
    sandbox = lab.find()
    if not sandbox:
        return False
    clean = [service for service in services(has_nova(lab)) if service.name in ("mariadb", "ovn-nb", "ovn-sb")]
    for service in clean:
        service.signal(lab)
    try:
        until(lambda: not any(service.pid(lab) for service in clean), "databases to close", 20, 0.1)
    except TimeoutError:
        tell("a database did not close within 20 s; it is killed")
    # unshare(1), the parent, ends with it; waiting for both means that nothing is left behind.
    status = Path(f"/proc/{sandbox.pid}/status").read_text()
    parent = int(status.partition("PPid:")[2].split()[0])
    os.kill(sandbox.pid, signal.SIGKILL)
    family = [sandbox.pid, *([parent] if parent > 1 else [])]
    until(lambda: all(map(gone, family)), f"the sandbox of lab '{lab.name}' to end", 20)
    return True


def gone(pid):
    """Whether a process of this machine has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def down(lab, tell):
    """Stops the lab; its databases stay."""
    with lab.locked(tell):
        return stop(lab, tell)


def reset(lab, tell):
    """Stops the lab and deletes what it kept; the Debian tree stays."""
    with lab.locked(tell):
        stop(lab, tell)
        lab.delete_files()


def memory(lab):
    """MB of memory (PSS) by program in the lab's pid namespace: {pid in the lab: MB}."""
    sizes = {}
    for entry in lab.path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines = (entry / "smaps_rollup").read_text().splitlines()
                sizes[int(entry.name)] = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
            except (OSError, ValueError):
                continue
    return sizes


def family(lab, pid):
    """A process and all that descend from it, as pids in the lab."""
    children = {}
    for entry in lab.path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
            except (OSError, ValueError):
                continue
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def status(lab):
    """A dict for each service: name, state ("up", "starting", "down"), pid, uptime_s, memory_mb, url, log."""
    if not lab.find():
        return []
    sizes, rows = memory(lab), []
    for service in services(has_nova(lab)):
        pid = service.pid(lab)
        state = "down" if not pid else "up" if not service.ready or service.ready(lab) else "not serving"
        rows.append(
            {
                "name": service.name,
                "state": state,
                "pid": pid,
                "uptime_s": round(service.uptime(lab) or 0),
                "memory_mb": round(sum(sizes.get(child, 0) for child in family(lab, pid)), 1) if pid else 0,
                "url": service.url,
                "log": str(service.log(lab)),
            }
        )
    return rows
