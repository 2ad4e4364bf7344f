"""What the router's virtual machine costs: seconds to boot and to forward, megabytes, and processor time when idle.

Kernels, machine types and drivers are those of docs/decisions/0005-the-vm.md. Without KVM the guests are emulated:
seconds and processor time then say only how the cases compare, megabytes of the guest are as they would be anywhere.
Each guest forwards between two TAPs of its sandbox.
"""
import re
import sys
import time
from pathlib import Path

from tsujilab.root import REPOSITORY, installed_root
from tsujilab.sandbox import Sandbox, until
from tsujilab.vm import image as guest_image
from tsujilab.vm.console import GuestError
from tsujilab.vm.guest import Guest, Nic

sys.path.insert(0, str(Path(__file__).parents[1] / "system/vm"))

import cross

RUNS = 3
TESTPMD = "/usr/bin/dpdk-testpmd"
KERNELS = ("cloud", "generic")
# name: (machine, virtual IOMMU, driver)
WAYS = {"pc, uio_pci_generic": ("pc", None, "uio_pci_generic"), "q35, vfio-pci": ("q35", "intel", "vfio-pci")}
IDLE_WAYS = (("pc, uio_pci_generic", "poll"), ("pc, uio_pci_generic", "nap"), ("q35, vfio-pci", "interrupt"))
MACS = [f"52:54:00:00:00:0{number}" for number in range(3)]
# What a guest's megabytes may be, tried by halving.
SIZES = range(64, 257, 16)
IDLE_S = 3


def run(bench):
    tree = installed_root("trixie", "vm", "build")
    with Sandbox.create("bench-vm", lower=tree, binds=[REPOSITORY]) as sandbox:
        for number in range(2):
            sandbox.run(f"ip tuntap add tap{number} mode tap multi_queue vnet_hdr")
            sandbox.run(f"sysctl -qw net.ipv6.conf.tap{number}.disable_ipv6=1")
            sandbox.run(f"ip link set tap{number} up")
        sandbox.run("ip addr add 192.0.2.1/24 dev tap0")
        sandbox.run("ip neigh add 192.0.2.2 lladdr 52:54:00:00:00:99 dev tap0")
        program = cross.build(sandbox)
        small = {kernel: guest_image.build(sandbox, kernel, [program], plugins=()) for kernel in KERNELS}
        large = {kernel: guest_image.build(sandbox, kernel, [program, TESTPMD]) for kernel in KERNELS}
        sizes(bench, sandbox, small, large)
        for kernel in KERNELS:
            for way in WAYS:
                boots(bench, sandbox, small[kernel], kernel, way)
        for way, idle in IDLE_WAYS:
            idles(bench, sandbox, small["cloud"], way, idle)
        for kernel in KERNELS:
            bench.record("smallest memory, forwarder alone (static, 2 ports, 16 MB of 2 MB pages)", kernel, "MB",
                         [smallest(sandbox, small[kernel], forwards)])
            bench.record("smallest memory, testpmd (shared libraries, 3 ports, 32 MB of 2 MB pages)", kernel, "MB",
                         [smallest(sandbox, large[kernel], testpmd_runs)])


def sizes(bench, sandbox, small, large):
    for kernel in KERNELS:
        packed = Path(sandbox.path(small[kernel].kernel)).stat().st_size
        for what, size in (("kernel, compressed", packed), ("root with testpmd", large[kernel].unpacked_bytes),
                           ("root with a static forwarder", small[kernel].unpacked_bytes)):
            bench.record(what, kernel, "MB", [size / 1e6])


def guest(sandbox, image, way="pc, uio_pci_generic", nics=2, **options):
    machine, iommu, _ = WAYS[way]
    cables = [Nic(MACS[0], 2, tap="tap0"), Nic(MACS[1], 2, tap="tap1"), Nic(MACS[2])]
    options = {"memory_mb": 256, "hugepages_mb": 32} | options
    return Guest(sandbox, "bench", image, machine=machine, iommu=iommu, nics=cables[:nics], **options)


def forwarder(router, way, idle="nap"):
    for mac in MACS[:2]:
        router.bind(mac, WAYS[way][2])
    return cross.Cross(router, 2, idle)


def boots(bench, sandbox, image, kernel, way):
    shell, first = [], []
    for _ in range(RUNS):
        with guest(sandbox, image, way) as router:
            ping = sandbox.start("ping -n -i 0.05 192.0.2.2", "ping")
            packets = packet_counter(sandbox)
            shell.append(router.shell().boot_s)
            forwarder(router, way)
            until(lambda packets=packets: packet_counter(sandbox) > packets, "the first forwarded packet", 60, 0.02)
            first.append(time.monotonic() - router.started)
            ping.kill()
    bench.record("start of QEMU to shell", f"{kernel}, {way}", "s", shell)
    bench.record("start of QEMU to the first forwarded packet", f"{kernel}, {way}", "s", first)


def packet_counter(sandbox):
    """Packets that the guest has sent to tap1."""
    return int(sandbox.out("cat /sys/class/net/tap1/statistics/rx_packets"))


def idles(bench, sandbox, image, way, idle):
    in_guest, on_host, memory = [], [], []
    with guest(sandbox, image, way, shared="memfd") as router:
        program = forwarder(router.shell(), way, idle)
        for _ in range(RUNS):
            before, start, host = program.counters()["cpu_ms"], time.monotonic(), processor_s(router.process.pid)
            time.sleep(IDLE_S)
            took = time.monotonic() - start
            on_host.append((processor_s(router.process.pid) - host) / took * 100)
            in_guest.append((program.counters()["cpu_ms"] - before) / (time.monotonic() - start) / 10)
            memory.append(pss_mb(router.process.pid))
    bench.record("idle: processor time of the forwarder, in the guest", f"{way}, {idle}", "%", in_guest)
    bench.record("idle: processor time of QEMU", f"{way}, {idle}", "%", on_host)
    bench.record("memory of QEMU (Pss), guest of 256 MB", f"{way}, {idle}", "MB", memory)


def processor_s(pid):
    """Seconds of processor time that a process has used (clock ticks are 10 ms on Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def pss_mb(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return sum(int(kb) for kb in re.findall(r"^(?:Pss|\w+_Hugetlb): +(\d+)", text, re.MULTILINE)) / 1024


def smallest(sandbox, image, works):
    """The least of SIZES with which works(sandbox, image, megabytes) is true; it is for the largest, or it fails."""
    low, high = 0, len(SIZES) - 1
    while low < high:
        middle = (low + high) // 2
        if works(sandbox, image, SIZES[middle]):
            high = middle
        else:
            low = middle + 1
    if low == len(SIZES) - 1 and not works(sandbox, image, SIZES[low]):
        raise RuntimeError(f"{SIZES[low]} MB are not enough")
    return SIZES[low]


def forwards(sandbox, image, megabytes):
    try:
        with guest(sandbox, image, memory_mb=megabytes, hugepages_mb=16) as router:
            forwarder(router.shell(), "pc, uio_pci_generic")
            return True
    except (GuestError, RuntimeError, TimeoutError):
        return False


def testpmd_runs(sandbox, image, megabytes):
    try:
        with guest(sandbox, image, nics=3, memory_mb=megabytes, hugepages_mb=32, cpus=2) as router:
            router.shell()
            for mac in MACS:
                router.bind(mac, "uio_pci_generic")
            router.run("(dpdk-testpmd -l 0-1 -m 32 --no-telemetry -- --total-num-mbufs=4096 --rxq=1 --txq=1 "
                       "--auto-start --stats-period=1 </dev/null >/tmp/log 2>&1; echo ended >>/tmp/log) &")
            until(lambda: re.search("Port statistics|ended", router.run("cat /tmp/log")), "testpmd", 40, 0.5)
            return "Port statistics" in router.run("cat /tmp/log")
    except (GuestError, RuntimeError, TimeoutError):
        return False
