"""tsuji-tapholder's socket: who may talk to it, what it refuses, and that nobody can make it fail or leak."""
import socket
from pathlib import Path

import pytest
import tap_ways
from tap_fixture import WAYS, join, socket_file, start_host
from tsujilab.sandbox import until
from tsujilab.tapnode import PROGRAMS, SOCKET


@pytest.fixture
def tap_host(sandbox):
    """A network namespace with a running tsuji-tapholder."""
    return start_host(sandbox)


def test_device_deleted(tap_host):
    """A TAP deleted under the holder is made anew at the next request."""
    line = join(tap_host)
    tap_ways.request(line, tap_ways.OPEN, "tap0", queues=1)
    tap_host.run("ip link del tap0")
    assert tap_ways.request(line, tap_ways.LINK, "tap0", tap_ways.UP)[0] == -2
    assert tap_ways.request(line, tap_ways.OPEN, "tap0", queues=1)[0] == 0
    assert tap_ways.request(line, tap_ways.LINK, "tap0", tap_ways.UP)[0] == 0
    assert tap_ways.request(line, tap_ways.CLOSE, "tap0", 4)[0] == 0


MESSAGES = {
    "empty": b"",
    "short": b"\1",
    "one byte too few": tap_ways.MESSAGE.pack(1, 1, 0, 1, 0, b"x")[:-1],
    "one byte too many": tap_ways.MESSAGE.pack(1, 1, 0, 1, 0, b"x") + b"\0",
    "60,000 bytes": b"A" * 60000,
    "another version": tap_ways.MESSAGE.pack(2, 1, 0, 1, 0, b"x"),
    "a reply": tap_ways.MESSAGE.pack(1, 1, 0, 1, -1, b"x"),
}
# What is answered with an error and goes on: (operation, name, options, queues) → errno
REQUESTS = {
    (1, "tap%d", 0, 1): 22, (1, "a/b", 0, 1): 22, (1, "..", 0, 1): 22, (1, "", 0, 1): 22, (1, "a b", 0, 1): 22,
    (1, "0123456789abcdef", 0, 1): 22, (1, "tap0", 0, 0): 22, (1, "tap0", 0, 9): 22, (1, "tap0", 0, 2**32 - 1): 22,
    (1, "tap0", 128, 1): 95, (9, "tap0", 0, 0): 95, (3, "tap0", 2, 0): 2, (4, "tap0", 0, 0): 2,
    (1, "lo", 0, 1): 22,  # exists, and is no TAP
}


def test_hostile_clients(tap_host):
    """Garbage, false names, stolen descriptors, a crowd: each is refused, nothing leaks, the holder serves on."""
    descriptors = Path(f"/proc/{tap_host.holder.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for what, data in MESSAGES.items():
        with join(tap_host) as line:
            line.settimeout(5)
            socket.send_fds(line, [data], [0, 0, 0])
            assert line.recv(100) == b"", what
    with join(tap_host) as line:
        for (operation, name, options, queues), error in REQUESTS.items():
            assert tap_ways.request(line, operation, name, options, queues)[0] == -error, (operation, name)
        with open("/dev/null", "rb") as null:
            assert tap_ways.request(line, tap_ways.ADOPT, "tap0", queues=1, fds=[null.fileno()])[0] == -22
            assert tap_ways.request(line, tap_ways.ADOPT, "tap0", queues=2, fds=[null.fileno()] * 2)[0] == -22
        stranger = join(tap_host)
        assert tap_ways.request(line, tap_ways.OPEN, "tap0", queues=1)[0] == 0
        assert tap_ways.request(stranger, tap_ways.LINK, "tap0", tap_ways.UP)[0] == -1
        assert tap_ways.request(stranger, tap_ways.CLOSE, "tap0")[0] == -1
        stranger.close()
        assert tap_ways.request(line, tap_ways.CLOSE, "tap0", 4)[0] == 0
    crowd = []
    for _ in range(20):
        crowd.append(join(tap_host))
    for line in crowd:
        line.settimeout(5)
        line.send(tap_ways.MESSAGE.pack(1, 3, 0, 0, 0, b"nobody")) if line in crowd[:8] else None
    assert [len(line.recv(100)) for line in crowd] == [tap_ways.MESSAGE.size] * 8 + [0] * 12
    for line in crowd:
        line.close()
    until(lambda: len(list(descriptors.iterdir())) == before, "the holder to close what the clients left", 5)
    assert tap_host.holder.alive


def test_adopts_only_its_own(tap_host):
    """A TAP of another namespace, or under a false name, is not adopted."""
    other = tap_host.sandbox.host("other")
    program = ("import sys; sys.path.insert(0, {!r}); import tap_ways as t; line = t.connect({!r}); "
               "fd = t.tun_open('tap9'); print(t.request(line, t.ADOPT, {!r}, queues=1, fds=[fd])[0])")
    for place, name, expected in ((other, "tap9", "-116"), (tap_host, "tap8", "-116"), (tap_host, "tap9", "0")):
        result = place.run(["/usr/bin/python3", "-I", "-c", program.format(str(WAYS.parent), SOCKET, name)])
        assert result.stdout.strip() == expected, (place, name)


def test_rights(tap_host):
    """The socket is root's alone."""
    assert socket_file(tap_host).stat().st_mode & 0o777 == 0o600
    program = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect({SOCKET!r})"
    command = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-I", "-c", program]
    tap_host.sandbox.sh("chmod 711 /run/tsuji")
    refused = tap_host.run(command, check=False)
    assert "PermissionError" in refused.stderr
    # Should somebody open the door, the second lock holds: the connection is ended unserved.
    tap_host.sandbox.sh(f"chmod 666 {SOCKET}")
    program = (f"import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect({SOCKET!r}); "
               "s.settimeout(5); print(len(s.recv(100)))")
    assert tap_host.run([*command[:-1], program]).stdout.strip() == "0"


def test_usage(tap_host):
    """-h prints the options that the manual page describes; wrong options end with 2 and a reason."""
    text = tap_host.out([PROGRAMS / "tsuji-tapholder", "-h"])
    page = (Path(__file__).parents[2] / "docs/man/tsuji-tapholder.8").read_text()
    for option in ("-g", "-s", "-h"):
        assert option in text
        assert option.replace("-", "\\-") in page
    wrong = tap_host.run([PROGRAMS / "tsuji-tapholder", "-g", "soon"], check=False)
    assert wrong.returncode == 2 and "'soon' is not a number" in wrong.stderr
