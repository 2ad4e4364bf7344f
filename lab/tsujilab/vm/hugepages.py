"""2 MB pages of this machine for a while: for OVS with DPDK, and for guests that it must reach into.

Nothing is set aside. The kernel is allowed to make such pages when a program asks (nr_overcommit_hugepages) and
takes them back when that program ends, however it ends. So a killed test leaves a limit raised, and no memory taken.
"""
import fcntl
from contextlib import contextmanager
from pathlib import Path

LIMIT = Path("/proc/sys/vm/nr_overcommit_hugepages")
LOCK = Path("/run/lock/tsuji-hugepages")


def _change(pages):
    with open(LOCK, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        LIMIT.write_text(str(max(0, int(LIMIT.read_text()) + pages)), encoding="ascii")


@contextmanager
def hugepages(megabytes):
    """Inside the with statement programs may use that many megabytes of 2 MB pages more than outside it."""
    _change(megabytes // 2)
    try:
        yield
    finally:
        _change(-(megabytes // 2))
