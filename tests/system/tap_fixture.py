"""What the tests of tsuji-tapholder share: a namespace with a running holder, and a client of it in this process."""
import os
import socket
from pathlib import Path

import tap_ways
from tsujilab.sandbox import until
from tsujilab.tapnode import PROGRAMS, SOCKET

WAYS = Path(tap_ways.__file__)
# The holder's default.
GRACE_S = 3


def python(host, *arguments, name=None):
    process = host.start(["/usr/bin/python3", "-I", WAYS, *arguments], name or f"tap_ways-{arguments[0]}")
    if arguments[0] in ("read", "keep"):
        until(lambda: "ready" in process.output(), f"tap_ways {arguments} to be ready", 10)
    return process


def carrier(host, name):
    """(has carrier, how often it was lost)"""
    words = host.out(f"cat /sys/class/net/{name}/carrier /sys/class/net/{name}/carrier_down_count").split()
    return words[0] == "1", int(words[1])


def address(host, tap):
    """Addresses a TAP, and a neighbour behind it that needs no ARP."""
    host.sh(f"ip link set {tap} up; ip addr add 192.0.2.1/24 dev {tap}")
    host.run(f"ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev {tap}")


def start_host(sandbox):
    """A network namespace with a running tsuji-tapholder, whose Process is its .holder."""
    host = sandbox.host("node")
    sandbox.sh("mkdir -m 0700 /run/tsuji")
    host.holder = host.start([PROGRAMS / "tsuji-tapholder"], "tapholder")
    until(lambda: socket_file(host).exists(), "the holder's socket", 5)
    return host


def socket_file(host):
    """The holder's socket, as this process can reach it."""
    return Path(f"/proc/{host.sandbox.pid}/root{SOCKET}")


def join(host):
    """A connection to the holder."""
    return tap_ways.connect(str(socket_file(host)))


def count_udp(fd):
    count = 0
    while True:
        try:
            frame = os.read(fd, 2048)
        except BlockingIOError:
            return count
        count += frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP
