"""The router's virtual machine, as docs/decisions/0005-the-vm.md has it: drivers, interrupts, PCI slots, checksums.

The program in the guest is tests/system/vm/cross.c, a cross-connect of two ports by DPDK. Guests run under software
emulation where this machine has no KVM; nothing here depends on their speed.
"""
import re
import sys
from pathlib import Path

import pytest
from tsujilab.sandbox import until
from tsujilab.vm import image as guest_image
from tsujilab.vm.guest import Guest, Nic
from tsujilab.vm.hugepages import hugepages
from tsujilab.vm.ovs_dpdk import OvsDpdk

sys.path.insert(0, str(Path(__file__).parent / "vm"))

import cross
import nova_domain

pytestmark = pytest.mark.vm
MANAGEMENT, EXTERNAL, INTERNAL = (f"fa:16:3e:00:00:0{number}" for number in (1, 2, 3))
VLAN = 100
# (client, server) of each family, beyond the two sides of the guest.
ADDRESSES = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}


@pytest.fixture
def machine(make_sandbox):
    """A sandbox with Debian 13's QEMU, Open vSwitch, kernels and DPDK, and the image of a guest with cross."""
    sandbox = make_sandbox("vm", "trixie", ("vm", "build"))
    sandbox.image = guest_image.build(sandbox, "cloud", [cross.build(sandbox)], plugins=())
    return sandbox


@pytest.mark.proves("R12")
def test_slots_by_libvirt(machine):
    """libvirt puts the three NICs of a Nova server in PCI slots 3, 4 and 5 on i440fx, and in none of them on q35."""
    with nova_domain.Libvirt(machine) as libvirt:
        pc = libvirt.nic_addresses(nova_domain.xml("pc"))
        q35 = libvirt.nic_addresses(nova_domain.xml("q35"))
        q35_iommu = libvirt.nic_addresses(nova_domain.xml("q35", viommu=True))
        no_video = libvirt.nic_addresses(nova_domain.xml("pc", video=False))
    assert pc == ["0000:00:03.0", "0000:00:04.0", "0000:00:05.0"]
    assert q35 == q35_iommu == ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"]
    # Without a graphics card they move up: hw_video_model=none is not for this image.
    assert no_video == ["0000:00:02.0", "0000:00:03.0", "0000:00:04.0"]


def checksums(capture, source):
    """(right, wrong): layer-4 checksums, in tcpdump's opinion, of packets whose sender is `source`."""
    lines = capture.output().replace("\n    ", " ").splitlines()
    text = "\n".join(line for line in lines if f" {source}." in line.split(" > ")[0])
    return (len(re.findall(r"cksum 0x\w+ \(correct\)|udp sum ok", text)),
            len(re.findall(r"cksum 0x\w+ \(incorrect|bad udp cksum", text)))


def send(client, server, port, text):
    """The client guest sends `text` by TCP and by UDP (in a TFTP request) to `port`; returns TCP's status."""
    client.run(f"timeout 1 tftp -g -r {text} -l /tmp/nothing {server} {port}", check=False)
    return client.console.run(f"echo {text} | timeout 5 nc -w 3 {server} {port}", check=False)[1]


def receive(host, family, port):
    """Starts a TCP and a UDP server on `host` that print what they get."""
    servers = [host.start(f"socat -u {protocol}{family}-{verb}:{port}{options} STDOUT", f"{protocol}{port}")
               for protocol, verb, options in (("TCP", "LISTEN", ",reuseaddr,fork"), ("UDP", "RECV", ",reuseaddr"))]
    until(lambda: len(host.out(f"ss -Hlntu sport = :{port}").splitlines()) == 2, "the servers", 10)
    return servers


def check_checksums(ovs, router, client, server, port, mode):
    """Sends by TCP and UDP, by IPv4 and IPv6, from client to server through the router, which does `mode` (cross.c)."""
    forwarder = cross.Cross(router, 2, "nap", mode)
    for features in forwarder.negotiated():
        assert bool(features & cross.GUEST_CSUM) == (mode != "off")
        assert bool(features & cross.CSUM) == (mode == "carry")
        assert features & cross.MULTIQUEUE
    for side in ("router-ext", "router-int"):
        assert ovs.status(side)["num_of_vrings"] == "4"
    capture = server.start("tcpdump -n -l -vv -i eth0 tcp or udp", f"capture-{mode}")
    until(lambda: "listening on" in capture.output(), "tcpdump", 10)
    for family in ADDRESSES:
        check_family(client, server, capture, family, port, mode)
    capture.kill()
    if mode == "carry":
        use_all_queues(forwarder, client, server)
    counted = forwarder.stop()
    assert counted["dropped"] == 0
    # The client left checksums to its NIC; that is the point.
    assert (counted["unfinished"] > 0) == (mode != "off")


def use_all_queues(forwarder, client, server):
    """Many flows each way: Open vSwitch spreads them over the guest's queues by a hash of their addresses and ports."""
    mine, far = ADDRESSES[4]
    client.run(f"for p in $(seq 9101 9124); do timeout 1 tftp -g -r x -l /tmp/x$p {far} $p & done; wait", check=False)
    server.run(["python3", "-c", "import socket; s = socket.socket(type=socket.SOCK_DGRAM)\n"
                                 f"for p in range(9101, 9125): s.sendto(b'x', ('{mine}', p))"])
    until(lambda: all(all(queues) for queues in forwarder.counters()["received"]), "packets in all queues", 20, 0.5)


def check_family(client, server, capture, family, port, mode):
    mine, far = ADDRESSES[family]
    text = f"by-{mode}-{family}"
    programs = receive(server, family, port)
    status = send(client, far, port, text)
    if mode == "ignore":
        # So this test does see it when nobody finishes a checksum: a SYN and a request at least, all wrong.
        until(lambda: checksums(capture, mine)[1] >= 2, f"packets from {mine}", 10)
        assert status != 0 and checksums(capture, mine)[0] == 0
    else:
        assert status == 0
        for program in programs:
            until(lambda program=program: text in program.output(), f"what was sent ({text})", 10)
        right, wrong = checksums(capture, mine)
        assert right >= 4 and wrong == 0
    for program in programs:
        program.kill()


@pytest.mark.proves("R12", "R26")
def test_path(machine):
    """A router guest with multi-queue NICs forwards over vhost-user and finishes or carries on checksums, v4 and v6."""
    with hugepages(1024):
        ovs = OvsDpdk(machine)
        server = machine.host("server")
        # Both of the router's ports carry VLANs, as trunk ports do; machines beyond them see none.
        for bridge in ("ext", "int"):
            ovs.bridge(bridge)
        ovs.veth("ext", "veth", server, settings=(f"tag={VLAN}",))
        ovs.vhost("ext", "router-ext", "/run/router-ext")
        ovs.vhost("int", "router-int", "/run/router-int")
        ovs.vhost("int", "client", "/run/client", f"tag={VLAN}")
        for port in ("router-ext", "router-int"):
            # One forwarding thread serves all of the guest's queues.
            ovs.ctl("set", "Interface", port, "other_config:tx-steering=hash")
        router = Guest(machine, "router", machine.image, machine="pc", memory_mb=192, hugepages_mb=32, shared="hugetlb",
                       command_line="intel_iommu=on", nics=[
                           Nic(MANAGEMENT, slot=3), Nic(EXTERNAL, 2, socket="/run/router-ext", slot=4),
                           Nic(INTERNAL, 2, socket="/run/router-int", slot=5)])
        client = Guest(machine, "client", machine.image, machine="pc", memory_mb=128, shared="hugetlb",
                       nics=[Nic("52:54:00:00:00:01", socket="/run/client")])
        router.shell()
        addresses = [router.bind(mac, "uio_pci_generic") for mac in (EXTERNAL, INTERNAL)]
        assert [router.pci_address(MANAGEMENT), *addresses] == ["0000:00:03.0", "0000:00:04.0", "0000:00:05.0"]

        client.shell()
        client.run("modprobe virtio_net && echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad && ip link set eth0 up")
        for family, (mine, far) in ADDRESSES.items():
            length = 24 if family == 4 else 64
            client.run(f"ip addr add {mine}/{length} dev eth0")
            server.run(f"ip addr add {far}/{length} dev eth0{' nodad' if family == 6 else ''}")

        # This driver cannot wake a sleeper, and says so.
        refused = cross.Cross(router, 2, "interrupt", wait=False)
        until(refused.ended, "cross to refuse", 30, 0.2)
        assert "cannot be configured with receive interrupts, port 0: Operation not supported" in refused.log()

        for port, mode in enumerate(("off", "carry", "ignore"), 9001):
            check_checksums(ovs, router, client, server, port, mode)


@pytest.mark.proves("R26")
def test_interrupts(machine):
    """With q35, a virtual IOMMU and vfio-pci a forwarder sleeps until a packet comes: no packet, no wake-up."""
    for number in range(2):
        machine.run(f"ip tuntap add tap{number} mode tap multi_queue vnet_hdr")
        machine.run(f"ip link set tap{number} up")
        # Nothing but what the test sends.
        machine.run(f"sysctl -qw net.ipv6.conf.tap{number}.disable_ipv6=1")
    machine.run("ip addr add 192.0.2.1/24 dev tap0")
    machine.run("ip neigh add 192.0.2.2 lladdr 52:54:00:00:00:02 dev tap0")
    router = Guest(machine, "router", machine.image, machine="q35", iommu="intel", memory_mb=192, hugepages_mb=32,
                   nics=[Nic(EXTERNAL, 2, tap="tap0"), Nic(INTERNAL, 2, tap="tap1")]).shell()
    addresses = [router.bind(mac, "vfio-pci") for mac in (EXTERNAL, INTERNAL)]
    assert addresses == ["0000:01:00.0", "0000:02:00.0"]
    forwarder = cross.Cross(router, 2, "interrupt")
    capture = machine.start("tcpdump -n -l -i tap1 icmp", "capture")
    until(lambda: "listening on" in capture.output(), "tcpdump", 10)

    # Asking wakes it once; between two questions with no packet it slept once and was woken once, by the second.
    until(lambda: router.run("cut -d' ' -f3 /proc/$(pidof cross)/stat").strip() == "S", "cross to sleep", 20)
    before = forwarder.counters()
    router.run("sleep 2")
    idle = forwarder.counters()
    assert idle["sleeps"] - before["sleeps"] <= 1 and idle["wakes"] == before["wakes"]

    machine.run("ping -n -c 5 -i 0.3 -W 1 192.0.2.2", check=False)
    until(lambda: capture.output().count("echo request") == 5, "five packets through a sleeping forwarder", 20)
    after = forwarder.counters()
    assert after["sent"][1] - idle["sent"][1] == 5 and after["dropped"] == 0
    # An interrupt may already be on its way when the thread looks once more, hence two.
    assert 1 <= after["wakes"] - idle["wakes"] <= 10
    assert "vfio-msix[1](0000:01:00.0)" in router.run("cat /proc/interrupts")
