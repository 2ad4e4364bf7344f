"""Process 1 of a sandbox: makes the file tree, pivots into it, says "ready", then reaps orphans until killed.

Started by sandbox.py under unshare(1), in new network, mount, pid, uts and ipc namespaces; argument: the plan in
JSON. It imports everything before the pivot, for the tree that it enters may hold another Python.
"""
import json
import os
import signal
import subprocess
import sys

# A directory that every Debian tree has and nothing uses; covered only in our own mount namespace.
STAGE = "/mnt"


def sh(*argv):
    subprocess.run(argv, check=True)


def mount(fstype, target, *options):
    os.makedirs(target, exist_ok=True)
    sh("mount", "-t", fstype, *(["-o", ",".join(options)] if options else []), fstype, target)


def make_tree(plan):
    """Mounts an overlay of plan["lower"], returns its mount point; writes go to plan["upper"], or to memory."""
    mount("tmpfs", STAGE, "mode=755")
    upper = plan["upper"] or STAGE
    tree = f"{STAGE}/root"
    if plan["in_place"]:
        os.makedirs(tree)
        sh("mount", "--bind", plan["lower"], tree)
        return tree
    for directory in (f"{upper}/upper", f"{upper}/work", tree):
        os.makedirs(directory, exist_ok=True)
    mount("overlay", tree, f"lowerdir={plan['lower']}", f"upperdir={upper}/upper", f"workdir={upper}/work")
    return tree


def fill_tree(tree, plan):
    mount("proc", f"{tree}/proc")
    mount("sysfs", f"{tree}/sys")
    if os.path.isdir("/sys/fs/cgroup"):
        sh("mount", "--rbind", "/sys/fs/cgroup", f"{tree}/sys/fs/cgroup")
    sh("mount", "--rbind", "/dev", f"{tree}/dev")
    mount("tmpfs", f"{tree}/dev/shm")
    mount("hugetlbfs", f"{tree}/dev/hugepages")
    mount("tmpfs", f"{tree}/run", "mode=755")
    mount("tmpfs", f"{tree}/tmp", "mode=1777")
    os.makedirs(f"{tree}/run/lock", exist_ok=True)
    for source in plan["binds"]:
        os.makedirs(tree + source, exist_ok=True)
        sh("mount", "--bind", source, tree + source)


def enter_tree(tree):
    os.makedirs(f"{tree}/.old", exist_ok=True)
    os.chdir(tree)
    sh("pivot_root", ".", ".old")
    os.chdir("/")
    sh("umount", "-l", "/.old")
    os.rmdir("/.old")


def main():
    plan = json.loads(sys.argv[1])
    sh("mount", "--make-rprivate", "/")
    if not plan["host_network"]:
        sh("ip", "link", "set", "lo", "up")
    tree = make_tree(plan)
    fill_tree(tree, plan)
    enter_tree(tree)
    sh("hostname", plan["name"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(1, b"ready\n")
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
