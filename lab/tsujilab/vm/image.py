"""Builds what a QEMU guest boots: a kernel of a Debian tree and an initramfs with the few programs a test needs.

The guest has no disk: its root is the initramfs (busybox, the wanted programs with the libraries they name, the
wanted kernel modules with the modules they need). Everything comes from the packages of the sandbox's tree, so what
boots here is what a real image of that release would contain, and building it takes about a second. /init
(guest_init.sh) mounts the usual file systems and gives a root shell on the serial console, which guest.py drives.

The cpio archive is written here and not by cpio(1), for it needs device nodes and owners that no file here has.
"""
import lzma
import os
import stat
from dataclasses import dataclass
from pathlib import Path

INIT = Path(__file__).with_name("guest_init.sh")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# DPDK loads each driver of this directory at start; only those named in `plugins` go into the image.
PLUGINS = f"/{LIBRARIES}/dpdk/pmds-25.0"
# What every DPDK program on virtio needs: buses, the driver, and the ring behind its buffers.
VIRTIO_PLUGINS = ("librte_bus_pci", "librte_bus_vdev", "librte_net_virtio", "librte_mempool_ring")
# Drivers by which DPDK gets at a PCI device, virtual IOMMUs, and what a tenant's machine uses instead.
MODULES = ("uio_pci_generic", "vfio-pci", "vfio_iommu_type1", "virtio_iommu", "virtio_net", "tun")


@dataclass(frozen=True)
class GuestImage:
    """Paths of this machine, release of the kernel ("6.12.0+deb13-cloud-amd64"), bytes of the unpacked root."""
    kernel: str
    initramfs: str
    release: str
    unpacked_bytes: int


class Archive:
    """A cpio archive (format "newc") in memory. Parents of an entry are made when absent."""

    def __init__(self):
        self.chunks, self.names, self.size = [], set(), 0

    def _entry(self, name, mode, data=b"", device=(0, 0)):
        fields = (len(self.names) + 1, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, 0, len(data), 0, 0, *device,
                  len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        for part in (header, data):
            self.chunks.append(part + b"\0" * (-len(part) % 4))
        self.names.add(name)

    def _parents(self, name):
        parent = os.path.dirname(name)
        if parent and parent not in self.names:
            self.directory(parent)

    def directory(self, name):
        self._parents(name)
        self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o755):
        if name not in self.names:
            self._parents(name)
            self._entry(name, stat.S_IFREG | mode, data)
            self.size += len(data)

    def link(self, name, target):
        self._parents(name)
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def console(self):
        """The one device node that the kernel opens before /init runs."""
        self.directory("dev")
        self._entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))

    def bytes(self):
        self._entry("TRAILER!!!", 0)
        return b"".join(self.chunks)


def kernel_release(sandbox, kernel):
    """The newest release in the tree of the "cloud" or the "generic" kernel."""
    suffix = {"cloud": "-cloud-amd64", "generic": "-amd64"}[kernel]
    found = [name for name in os.listdir(sandbox.path("/lib/modules"))
             if name.endswith(suffix) and (kernel == "cloud") == ("-cloud-" in name)]
    if not found:
        raise FileNotFoundError(f"no {kernel} kernel in {sandbox}: tools/packages, purpose vm")
    return max(found)


def libraries(sandbox, files):
    """The shared libraries that programs and libraries need, {path in the image: path in the sandbox}."""
    found = {}
    # A static program makes ldd fail with "not a dynamic executable", which here means: needs nothing.
    for line in sandbox.run(["ldd", *files], check=False).stdout.splitlines():
        words = line.split()
        path = words[2] if "=>" in words and len(words) > 2 else words[0] if words else ""
        if path.startswith("/") and not line.endswith(":"):
            found["lib64/" + os.path.basename(path) if "/ld-linux" in path
                  else f"{LIBRARIES}/{os.path.basename(path)}"] = path
    return found


def modules(sandbox, release, names):
    """Modules with those they need: ({path in the image: content}, content of modules.dep)."""
    base = f"usr/lib/modules/{release}"
    listed = sandbox.out(["modprobe", "-S", release, "--show-depends", "--all", "--ignore-install", *names])
    wanted = {line.split()[1].split(f"/{release}/")[1] for line in listed.splitlines() if line.startswith("insmod ")}
    files, lines = {}, []
    for line in Path(sandbox.path(f"/{base}/modules.dep")).read_text(encoding="ascii").splitlines():
        if line.split(":")[0] in wanted:
            lines.append(line.replace(".ko.xz", ".ko"))
    for module in sorted(wanted):
        packed = Path(sandbox.path(f"/{base}/{module}")).read_bytes()
        # busybox cannot load compressed modules.
        files[f"{base}/{module.removesuffix('.xz')}"] = lzma.decompress(packed) if module.endswith(".xz") else packed
    return files, "\n".join(lines) + "\n"


def build(sandbox, kernel="cloud", programs=(), plugins=VIRTIO_PLUGINS, files=None, names=MODULES):
    """Builds an image from the tree of `sandbox` (which needs purpose "vm") and returns a GuestImage.

    kernel: "cloud" or "generic". programs: paths in the sandbox of programs to include with their libraries.
    plugins: names of DPDK drivers. files: {path in the image: path in the sandbox} of further files.
    names: kernel modules to include; none is loaded unless the guest is told to.
    """
    release = kernel_release(sandbox, kernel)
    archive = Archive()
    archive.console()
    for name in ("bin", "sbin", "lib"):
        archive.link(name, f"usr/{name}")
    for name in ("proc", "sys", "tmp", "run", "root", "usr/bin", "usr/sbin", "lib64", "etc"):
        archive.directory(name)
    archive.link("var/run", "/run")
    archive.file("init", INIT.read_bytes())
    contents = {f"usr/bin/{os.path.basename(program)}": program for program in (*programs, "/bin/busybox")}
    # Beside the program's other libraries; EAL is told nothing, it looks in the directory of its own release.
    contents |= {f"{PLUGINS[1:]}/{name}.so": f"{PLUGINS}/{name}.so" for name in plugins}
    contents |= libraries(sandbox, list(contents.values())) | dict(files or {})
    real = sandbox.out(["realpath", "-e", *contents.values()]).splitlines()
    first = {}
    for name, source in zip(contents, real, strict=True):
        # A driver under two names must stay one file, or the loader takes it for two and registers it twice.
        if first.setdefault(source, name) != name:
            archive.link(name, f"/{first[source]}")
        else:
            archive.file(name, Path(sandbox.path(source)).read_bytes())
    found, dependencies = modules(sandbox, release, names)
    for name, data in found.items():
        archive.file(name, data, 0o644)
    archive.file(f"usr/lib/modules/{release}/modules.dep", dependencies.encode(), 0o644)
    target = f"/tmp/guest-{kernel}-{os.getpid()}-{len(archive.chunks)}-{archive.size}.cpio"
    Path(sandbox.path(target)).write_bytes(archive.bytes())
    return GuestImage(f"/boot/vmlinuz-{release}", target, release, archive.size)
