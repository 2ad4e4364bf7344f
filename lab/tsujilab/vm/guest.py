"""Guests: virtual machines under QEMU, in a sandbox, driven over their serial console.

A guest boots an image of image.py with any number of virtio NICs on TAPs or on vhost-user sockets. Where this
machine has /dev/kvm it is used; else QEMU emulates (TCG), which is right in everything but speed. QEMU dies with its
sandbox. Its PCI slots can be given as libvirt, and so Nova, would give them (pci_slots).
"""
import os
import time
from dataclasses import dataclass

from tsujilab.sandbox import until
from tsujilab.vm.console import Console

QEMU = "/usr/bin/qemu-system-x86_64"
# A CPU with what Debian's DPDK is built for (x86-64-v2: SSE4.2, POPCNT); QEMU's default, qemu64, lacks it.
EMULATED_CPU = "Nehalem"


@dataclass
class Nic:
    """A virtio NIC. One of tap and socket is set, or neither: then its cable ends nowhere.

    mac: its address. queues: queue pairs. tap: a TAP interface of the sandbox, made with multi_queue when queues > 1.
    socket: path, in the sandbox, of the vhost-user socket that QEMU serves (OVS: dpdkvhostuserclient). slot: number
    of the PCI slot on the root bus. properties: more properties of QEMU's virtio-net-pci, "iommu_platform=on".
    """
    mac: str
    queues: int = 1
    tap: str | None = None
    socket: str | None = None
    slot: int | None = None
    properties: str = ""

    def arguments(self, number, machine):
        """QEMU's words for it. On q35 a NIC without a slot sits behind a root port of its own, as libvirt does it."""
        name, words = f"nic{number}", []
        if self.socket:
            words += ["-chardev", f"socket,id={name}c,path={self.socket},server=on,wait=off",
                      "-netdev", f"vhost-user,id={name}n,chardev={name}c,queues={self.queues}"]
        elif self.tap:
            words += ["-netdev", f"tap,id={name}n,ifname={self.tap},script=no,downscript=no,queues={self.queues}"]
        else:
            words += ["-netdev", f"hubport,id={name}n,hubid={number}"]
        # One vector per queue, one for the control queue and one for configuration changes: libvirt's 2N + 2.
        several = f",mq=on,vectors={2 * self.queues + 2}" if self.queues > 1 else ""
        device = f"virtio-net-pci,id={name},netdev={name}n,mac={self.mac}{several}"
        if self.slot is not None:
            device += f",addr={self.slot:#x}"
        elif machine == "q35":
            words += ["-device", f"pcie-root-port,id={name}p,chassis={number + 1},multifunction=on,"
                                 f"addr=0x2.{number:#x}"]
            device += f",bus={name}p"
        return [*words, "-device", device + ("," + self.properties if self.properties else "")]


class Guest:
    """A running guest. A context manager.

    boot_s: seconds from QEMU's start to the shell, where `shell()` was called.
    """

    def __init__(self, sandbox, name, image, nics=(), memory_mb=512, cpus=1, machine="q35", iommu=None, command_line="",
                 hugepages_mb=0, shared="", cpu=None, host=None, extra=()):
        """Starts QEMU and returns at once; shell() waits for the guest.

        machine: "q35" or "pc" (i440fx). iommu: None, "intel" or "virtio". command_line: more words for the kernel.
        hugepages_mb: memory that the guest's kernel keeps as 2 MB pages. shared: "" for private memory; "memfd" or
        "hugetlb" for memory that a vhost-user peer can map, in ordinary or in 2 MB pages of this machine.
        cpu: QEMU's CPU model. host: the network namespace with the TAPs (the sandbox's own unless given).
        """
        self.sandbox, self.name, self.image, self.nics = sandbox, name, image, list(nics)
        self.socket_path = f"/run/{name}.console"
        kvm = os.path.exists("/dev/kvm")
        accelerator = "kvm,kernel-irqchip=split" if kvm else "tcg,thread=multi,tb-size=128"
        words = [QEMU, "-name", name, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                 "-machine", machine, "-accel", accelerator, "-cpu", cpu or ("host" if kvm else EMULATED_CPU),
                 "-smp", str(cpus), "-m", str(memory_mb), "-kernel", image.kernel, "-initrd", image.initramfs,
                 "-append", self._command_line(iommu, hugepages_mb, command_line)]
        if shared:
            # prealloc as libvirt does: pages promised but not yet taken make DPDK misjudge what it may have.
            words += ["-object", f"memory-backend-memfd,id=ram,size={memory_mb}M,share=on"
                                 + (",hugetlb=on,hugetlbsize=2M,prealloc=on" if shared == "hugetlb" else ""),
                      "-machine", "memory-backend=ram"]
        log = f",logfile={sandbox.logs}/{name}-console.log" if sandbox.logs else ""
        words += ["-chardev", f"socket,id=console,path={self.socket_path},server=on,wait=off{log}",
                  "-serial", "chardev:console"]
        # Before the NICs: they are behind it.
        if iommu == "intel":
            words += ["-device", "intel-iommu,intremap=on,caching-mode=on,eim=on,device-iotlb=on,aw-bits=48"]
        elif iommu == "virtio":
            words += ["-device", "virtio-iommu-pci,addr=0x1e"]
        for number, nic in enumerate(self.nics):
            words += nic.arguments(number, machine)
        self.started = time.monotonic()
        self.process = (host or sandbox).start([*words, *extra], f"qemu-{name}")
        self.boot_s = None
        # At once: what a guest prints while nobody listens is lost.
        until(lambda: os.path.exists(sandbox.path(self.socket_path)) or not self.process.alive,
              f"QEMU of {name} to start", 20)
        if not self.process.alive:
            raise RuntimeError(f"{name}: QEMU ended: {self.process.output()[-500:]}")
        self.console = Console(name, sandbox.path(self.socket_path))

    @staticmethod
    def _command_line(iommu, hugepages_mb, more):
        # no_timer_check is what the kernel does by itself on KVM: an emulator short of processor time misses the ticks
        # that the kernel counts at start, and it then panics ("timer doesn't work through Interrupt-remapped IO-APIC").
        words = ["console=ttyS0", "quiet", "panic=-1", "no_timer_check"]
        if iommu == "intel":
            words.append("intel_iommu=on")
        if hugepages_mb:
            words.append(f"hugepages={hugepages_mb // 2}")
        return " ".join([*words, more])

    def shell(self, timeout=90):
        """Waits until the guest's shell answers, and returns self."""
        self.console.expect(r"guest up [0-9.]+\n", timeout)
        self.boot_s = time.monotonic() - self.started
        self.run("PS1= PS2=")
        return self

    def run(self, command, check=True, timeout=60):
        """Output of one line of shell in the guest."""
        return self.console.run(command, check, timeout)[0]

    def bind(self, mac, driver):
        """Gives the NIC with this MAC to a driver; returns its PCI address. Afterwards Linux shows no MAC for it."""
        self.run("modprobe virtio_net")
        # vfio asks for its IOMMU module by name, which no udev or kmod of ours answers.
        self.run(f"modprobe {driver}{' && modprobe vfio_iommu_type1' if driver == 'vfio-pci' else ''}")
        address = self.pci_address(mac)
        self.run(f"echo {driver} >/sys/bus/pci/devices/{address}/driver_override")
        self.run(f"echo {address} >/sys/bus/pci/devices/{address}/driver/unbind")
        self.run(f"echo {address} >/sys/bus/pci/drivers_probe")
        found = self.run(f"basename $(readlink /sys/bus/pci/devices/{address}/driver)", check=False).strip()
        if found != driver:
            raise RuntimeError(f"{self.name}: {driver} did not take {address} ({mac}): {self.run('dmesg | tail -n 5')}")
        return address

    def pci_address(self, mac):
        """PCI address ("0000:00:03.0") of the NIC with this MAC, which virtio_net must hold."""
        name = f"$(dirname $(grep -l {mac} /sys/class/net/*/address))"
        return self.run(f"basename $(readlink -f {name}/device/..)").strip()

    def close(self):
        self.console.close()
        self.process.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
