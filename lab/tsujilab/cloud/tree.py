"""The Debian tree below the lab, made or completed with progress that a person can watch."""

import contextlib
import re
import shutil
import subprocess
import threading

from tsujilab.cloud.instance import RELEASE, LabError, tail
from tsujilab.root import STATE, installed_root

EVERY_S = 10
# The tree with Nova's packages, and what apt fetches on the way.
NEEDED_MB = 3500


def told_since(file, offset):
    """What was written to a log since `offset` (bytes); empty when there is no such file."""
    try:
        with open(file, "rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def size(file):
    return file.stat().st_size if file.exists() else 0


@contextlib.contextmanager
def watched(tell):
    """Tells every ten seconds how far debootstrap and apt are."""
    base = STATE / "roots" / f"{RELEASE}.log"
    packages = STATE / "roots" / RELEASE / "var/log/tsuji-install.log"
    start = {file: size(file) for file in (base, packages)}
    ended = threading.Event()

    def watch():
        while not ended.wait(EVERY_S):
            new = told_since(packages, start[packages])
            total = re.findall(r"(\d+) newly installed", new)
            if total:
                fetched, unpacked, ready = (
                    len(re.findall(rf"^{word}", new, re.MULTILINE))
                    for word in (r"Get:\d+ \S+ \S+ \S+ \S+ \S+ \S+ \[", "Unpacking ", "Setting up ")
                )
                tell(f"packages: {fetched} fetched, {unpacked} unpacked, {ready} ready of {total[-1]}")
                continue
            lines = [line for line in told_since(base, start[base]).splitlines() if line.startswith("I: ")]
            if lines:
                tell(f"debootstrap: {lines[-1][3:]}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def ready_tree(nova, tell):
    """The path of the tree, with what the lab needs in it; LabError says which log to read."""
    purposes = ["lab", *(["nova"] if nova else [])]
    if not (STATE / "roots" / RELEASE / "var/lib/tsuji-tree").exists():
        if not shutil.which("debootstrap"):
            raise LabError("debootstrap, which makes the lab's Debian tree, is not installed: run 'tools/install host'")
        STATE.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(STATE).free >> 20
        if free < NEEDED_MB:
            raise LabError(
                f"{STATE} has {free} MB free, and the lab's Debian tree takes {NEEDED_MB}: "
                "make room, or name another place by TSUJI_STATE"
            )
    try:
        with watched(tell):
            return installed_root(RELEASE, *purposes, progress=tell)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        base = STATE / "roots" / f"{RELEASE}.log"
        packages = STATE / "roots" / RELEASE / "var/log/tsuji-install.log"
        log = packages if packages.exists() else base
        raise LabError(
            f"the Debian {RELEASE} tree could not be completed ({error}); log {log}, its end:{tail(log)}\n"
            "'lab/lab up' goes on where it stopped; it needs a Debian archive"
        ) from error
