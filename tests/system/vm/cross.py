"""Builds cross.c (see there) in a sandbox, and runs it in a guest."""
import json
import re
import shlex
from pathlib import Path

from tsujilab.sandbox import until

SOURCE = Path(__file__).with_name("cross.c")
PROGRAM = "/tmp/cross"
# Linked statically, it is 2 MB and loads no driver but these.
LIBRARIES = ("net_virtio", "bus_pci", "bus_vdev", "mempool_ring", "ethdev", "net", "mbuf", "mempool", "rcu", "ring",
             "meter", "pci", "kvargs", "telemetry", "eal", "log")
# Bits of virtio's features (virtio 1.2, 5.1.3): we may send, and will take, packets without their checksum; queues.
CSUM, GUEST_CSUM, MULTIQUEUE = 1 << 0, 1 << 1, 1 << 22


def build(sandbox):
    """Compiles it for the sandbox's release (purposes vm and build); returns its path in the sandbox."""
    flags = sandbox.out("pkg-config --cflags libdpdk").split()
    sandbox.run(["gcc", "-O2", "-s", "-static", "-std=gnu17", "-Wall", "-Wextra", *flags, "-o", PROGRAM, SOURCE,
                 "-Wl,--whole-archive", *(f"-l:librte_{name}.a" for name in LIBRARIES), "-Wl,--no-whole-archive",
                 *shlex.split("-lnuma -lm -lpthread -ldl")])
    return PROGRAM


class Cross:
    """It runs in `guest`, on the guest's first CPU, over the two NICs that a DPDK driver holds."""

    def __init__(self, guest, queues=1, idle="nap", checksums="off", options="--iova-mode=pa", wait=True):
        """queues, idle, checksums: cross.c's arguments. options: more EAL options. wait: until it says "ready"."""
        self.guest = guest
        guest.run("rm -f /tmp/cross.log")
        guest.run(f"(cross -l 0 -m 16 --no-telemetry --no-shconf --log-level=pmd.net.virtio.*:debug {options} -- "
                  f"{queues} {idle} {checksums} >/tmp/cross.log 2>&1; echo ended $? >>/tmp/cross.log) &")
        if wait:
            until(lambda: "\nready\n" in self.log() or self.ended(), f"cross in {guest.name}", 60, 0.2)
            if self.ended():
                raise RuntimeError(f"cross in {guest.name} ended: {self.log()[-1000:]}")

    def log(self):
        return self.guest.run("cat /tmp/cross.log")

    def ended(self):
        """True when the program has ended; its log then tells why."""
        return self.guest.run("tail -n 1 /tmp/cross.log", check=False).startswith("ended ")

    def negotiated(self):
        """What each of the two ports and its host agreed on, as bits of virtio features."""
        return [int(bits, 16) for bits in re.findall(r"features after negotiate = ([0-9a-f]+)", self.log())[-2:]]

    def _lines(self):
        return [line for line in self.log().splitlines() if line.startswith("{")]

    def counters(self):
        """What it has counted so far: a dict, see cross.c. In interrupt mode the question itself wakes it."""
        known = len(self._lines())
        self.guest.run("kill -USR1 $(pidof cross)")
        until(lambda: len(self._lines()) > known, "cross to answer", 20, 0.1)
        return json.loads(self._lines()[-1])

    def stop(self):
        """Ends it and returns what it has counted."""
        self.guest.run("kill -INT $(pidof cross)")
        until(self.ended, "cross to end", 20, 0.1)
        return json.loads(self._lines()[-1])
