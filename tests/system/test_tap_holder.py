"""Who holds the TAPs: the ways compared, and what tsuji-tapholder does when anything around it dies or lies.

docs/decisions/0003-tap-holder-and-supervision.md rests on this file.
"""
import os
import struct
import time
from pathlib import Path

import pytest
import tap_ways
from tap_fixture import GRACE_S, address, carrier, count_udp, join, python, start_host
from tsujilab.sandbox import until
from tsujilab.tapnode import ADMIN, PROGRAMS, SOCKET, TapNode

# linkwatch may sit on a loss of carrier for up to a second before it tells; the rest is for a busy machine.
LINKWATCH_S = 2


@pytest.fixture
def tap_host(sandbox):
    """A network namespace with a running tsuji-tapholder."""
    return start_host(sandbox)


# One frame each 10 ms. Enough to go on for long after the second reader stands, also on a busy machine.
SENT = 400
# The ways: (how often carrier is lost, what becomes of the frames that the kernel sends meanwhile).
OUTCOMES = {"plain": (1, "lost"), "queue": (0, "lost"), "dup": (0, "kept"), "holder": (0, "kept")}


@pytest.mark.parametrize("way", OUTCOMES)
def test_ways_of_holding(tap_host, way):
    """A reader's kill -9 for 0.5 s: which way keeps the carrier, and which keeps the kernel's frames, too."""
    tap, log = "tap0", tap_host.sandbox.logs / "numbers"
    if way in ("plain", "queue"):
        tap_host.run(f"ip tuntap add {tap} mode tap {'multi_queue' if way == 'queue' else ''}")
    keeper = python(tap_host, "keep", way, tap) if way in ("queue", "dup") else None
    reader = python(tap_host, "read", way, tap, log)
    address(tap_host, tap)
    until(lambda: carrier(tap_host, tap)[0], "carrier", 5)
    before = carrier(tap_host, tap)[1]
    sender = python(tap_host, "send", "192.0.2.2", SENT, 0.01)
    until(lambda: log.stat().st_size >= 4 * 20, "frames to arrive", 5)
    reader.kill()
    time.sleep(0.5)  # this time is what is measured
    seen_down = not carrier(tap_host, tap)[0]
    python(tap_host, "read", way, tap, log, name="reader-2")
    sender.wait(20)
    last = struct.pack("!I", SENT - 1)
    until(lambda: log.read_bytes()[-4:] == last, "the last frame", 10)
    data = log.read_bytes()
    numbers = {struct.unpack_from("!I", data, at)[0] for at in range(0, len(data), 4)}
    lost = SENT - len(numbers)
    print(f"{way}: carrier lost {carrier(tap_host, tap)[1] - before} times, {lost} of the kernel's frames lost")
    losses, frames = OUTCOMES[way]
    assert carrier(tap_host, tap)[1] - before == losses
    assert seen_down == bool(losses)
    if frames == "kept":
        assert lost == 0
    else:
        assert lost >= 45
    assert keeper is None or keeper.alive


def test_detached_queue_gets_nothing(tap_host):
    """The kernel spreads flows over the attached queues only: of 200 flows a detached queue gets none."""
    reader = python(tap_host, "queues", "mq0", "200", "/run/go")
    until(lambda: "ready" in reader.output(), "the queues", 10)
    address(tap_host, "mq0")
    tap_host.sh("touch /run/go")
    assert reader.wait(20) == 0
    assert reader.output().split()[-2:] == ["200", "0"]


@pytest.fixture
def node(sandbox):
    return TapNode(sandbox)


def passes(node):
    """Echo in both families between the node and the admin router, through the forwarder."""
    return all(node.node.ping(ADMIN[family], count=2) for family in ADMIN)


def carries(node):
    until(lambda: node.has_carrier("ext0") and node.has_carrier("int0"), "carrier on both TAPs", 5)
    until(lambda: passes(node), "traffic in both families", 10)


def test_forwarder_returns(node):
    """kill -9 of the forwarder: carrier, addresses, MAC, MTU and neighbours stay; traffic passes when it is back."""
    carries(node)
    node.node.sh("ip link set ext0 mtu 1400")
    kept = "ip -o link show ext0; ip -o addr show ext0 scope global; ip -6 -o addr show ext0 scope link"
    before, losses = node.node.sh(kept).stdout, node.carrier_losses()
    for _ in range(3):
        node.kill("forwarder")
        time.sleep(0.3)
        node.revive("forwarder")
        until(lambda: passes(node), "traffic in both families", 10)
    assert node.node.sh(kept).stdout == before
    assert node.carrier_losses() == losses
    # The last word stood: nothing is waiting to be taken away.
    time.sleep(GRACE_S + 0.5)
    assert node.carrier_losses() == losses


def test_forwarder_stays_away(node):
    """No forwarder for the grace time: carrier goes, not before and not much later, and comes back with a forwarder."""
    carries(node)
    node.kill("forwarder")
    start = time.monotonic()
    until(lambda: not node.has_carrier(), "carrier to go", 10, 0.02)
    after = time.monotonic() - start
    assert GRACE_S - 0.05 <= after <= GRACE_S + LINKWATCH_S
    until(lambda: not node.has_carrier("int0"), "carrier of int0 to go", LINKWATCH_S)
    node.node.run(f"ping -n -c 2 -W 1 {ADMIN['ipv4']}", check=False)
    node.revive("forwarder")
    carries(node)
    print(f"carrier went {after * 1000:.0f} ms after the forwarder (grace {GRACE_S} s)")


def test_port_down(node):
    """The port of a TAP goes down: so does the TAP's carrier, at once and alone, though the forwarder lives."""
    carries(node)
    node.vm.run("ip link set eth0 down")
    start = time.monotonic()
    until(lambda: not node.has_carrier("int0"), "carrier of int0 to go", 5, 0.02)
    assert time.monotonic() - start < LINKWATCH_S
    assert node.has_carrier("ext0")
    # A forwarder that returns to a port that is down brings no carrier, not even for a moment.
    losses = node.carrier_losses("int0")
    node.kill("forwarder")
    node.revive("forwarder")
    until(lambda: passes(node), "traffic over ext0", 10)
    assert not node.has_carrier("int0")
    assert node.carrier_losses("int0") == losses
    node.vm.run("ip link set eth0 up")
    carries(node)


def test_holder_dies(node):
    """kill -9 of the holder with the forwarder alive: nobody notices; the next holder gets the TAPs and holds them."""
    carries(node)
    losses = node.carrier_losses()
    node.kill("holder")
    assert passes(node)
    assert node.carrier_losses() == losses
    node.revive("holder")
    until(lambda: node.holder.output().count("port up") == 4, "the forwarder to give its TAPs to the new holder", 5)
    node.kill("forwarder")
    time.sleep(0.3)
    assert node.has_carrier()
    node.revive("forwarder")
    carries(node)
    assert node.carrier_losses() == losses


def test_both_die(node):
    """kill -9 of both: carrier goes at once, the TAPs and their addresses stay, and all is well when both are back."""
    carries(node)
    addresses = "ip -o addr show scope global"
    before = node.node.out(addresses)
    node.kill("forwarder", "holder")
    until(lambda: not node.has_carrier(), "carrier to go", LINKWATCH_S, 0.02)
    assert node.node.out(addresses) == before
    node.revive("holder", "forwarder")
    carries(node)


def test_holder_restarted_alone(node):
    """Forwarder dead, then the holder restarted: TAPs without carrier, given to the forwarder that comes."""
    carries(node)
    node.kill("forwarder")
    node.kill("holder")
    node.revive("holder")
    until(lambda: not node.has_carrier(), "carrier to go", LINKWATCH_S, 0.02)
    node.revive("forwarder")
    carries(node)


def test_second_holder_refuses(node):
    """A second holder on the same socket ends with a message and leaves the first one's socket alone."""
    second = node.node.run([PROGRAMS / "tsuji-tapholder"], check=False)
    assert second.returncode == 1
    assert "another tsuji-tapholder answers there" in second.stderr
    carries(node)


def test_unprivileged_forwarder(sandbox):
    """The forwarder needs neither CAP_NET_ADMIN nor the TAPs' namespace: it has CAP_NET_RAW, for its ports."""
    node = TapNode(sandbox, wrapper=["setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all"])
    carries(node)
    effective = Path(f"/proc/{node.forwarder.pid}/status").read_text().split("CapEff:")[1].split()[0]
    assert int(effective, 16) == 1 << 13


def test_vnet_header(sandbox):
    """TAPs with virtio-net headers work alike; asking for a held TAP without them is refused, and harms nothing."""
    node = TapNode(sandbox, forwarder=["-V"])
    carries(node)
    line = tap_ways.connect(f"/proc/{sandbox.pid}/root{SOCKET}")
    assert tap_ways.request(line, tap_ways.OPEN, "ext0", queues=1) == (-17, [])
    assert passes(node)
    node.kill("forwarder")
    node.revive("forwarder")
    carries(node)


def test_multiple_queues(tap_host):
    """A TAP of four queues: flows are spread over them, and what the kernel sends waits for the next client."""
    line = join(tap_host)
    result, fds = tap_ways.request(line, tap_ways.OPEN, "mq0", queues=4)
    assert result == 0 and len(fds) == 4
    assert tap_ways.request(line, tap_ways.LINK, "mq0", tap_ways.UP)[0] == 0
    address(tap_host, "mq0")
    for fd in fds:
        os.close(fd)
    line.close()
    tap_host.run(["bash", "-c", "for port in {2001..2064}; do echo flow > /dev/udp/192.0.2.2/$port; done"])
    line = join(tap_host)
    result, fds = tap_ways.request(line, tap_ways.OPEN, "mq0", queues=4)
    counts = [count_udp(fd) for fd in fds]
    assert sum(counts) == 64
    assert sum(count > 0 for count in counts) >= 2


def test_starting_is_not_forwarding(tap_host):
    """Clients that take the TAP and die without a word do not keep carrier up, however often they come."""
    line = join(tap_host)
    tap_ways.request(line, tap_ways.OPEN, "tap0", queues=1)
    tap_ways.request(line, tap_ways.LINK, "tap0", tap_ways.UP)
    tap_host.run("ip link set tap0 up")
    until(lambda: carrier(tap_host, "tap0")[0], "carrier", 5)
    line.close()
    start = time.monotonic()
    while carrier(tap_host, "tap0")[0] and time.monotonic() < start + 10:
        line = join(tap_host)
        assert tap_ways.request(line, tap_ways.OPEN, "tap0", queues=1)[0] == 0
        line.close()
    assert GRACE_S - 0.05 <= time.monotonic() - start <= GRACE_S + LINKWATCH_S


def test_stale_frames(tap_host):
    """Frames that waited when carrier was taken are thrown away: the next forwarder sends nothing that is old."""
    line = join(tap_host)
    tap_ways.request(line, tap_ways.OPEN, "tap0", queues=1)
    tap_ways.request(line, tap_ways.LINK, "tap0", tap_ways.UP)
    address(tap_host, "tap0")
    until(lambda: carrier(tap_host, "tap0")[0], "carrier", 5)
    line.close()
    python(tap_host, "send", "192.0.2.2", 20, 0.01).wait(10)
    until(lambda: not carrier(tap_host, "tap0")[0], "carrier to go", 10)
    line = join(tap_host)
    fds = tap_ways.request(line, tap_ways.OPEN, "tap0", queues=1)[1]
    assert count_udp(fds[0]) == 0


def test_frames_wait(node):
    """A frame that the kernel sends while the forwarder is away is sent when it is back: late, not lost."""
    carries(node)
    node.kill("forwarder")
    ping = node.node.start(f"ping -n -c 5 -i 0.05 -W 3 {ADMIN['ipv4']}", "late-ping")
    time.sleep(0.4)
    node.revive("forwarder")
    ping.wait(20)
    assert "5 received" in ping.output()
