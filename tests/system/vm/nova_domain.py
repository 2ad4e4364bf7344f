"""libvirt domains with the devices that Nova gives a server with three vhost-user ports: where are they put?

The elements are those of Nova 2025.1 (nova/virt/libvirt/driver.py): virtio disk, config drive on a CD, NICs, serial
port, USB tablet, VNC, video, balloon, random numbers; the virtual IOMMU with the attributes that it always sets. No
domain is started.
"""
import re

from tsujilab.sandbox import until

URI = "qemu:///system"
ADDRESS = re.compile(r"<mac address='fa:16:3e[^>]*>.*?<address type='pci' domain='0x(\w+)' bus='0x(\w+)' "
                     r"slot='0x(\w+)' function='0x(\w+)'", re.DOTALL)


def xml(machine, viommu=False, video=True):
    """A domain on "pc" (i440fx) or "q35". viommu: hw:viommu_model=intel. video: False for hw_video_model=none."""
    bus, target = ("ide", "hda") if machine == "pc" else ("sata", "sda")
    nics = "".join(f"""<interface type='vhostuser'><mac address='fa:16:3e:00:00:0{number}'/><model type='virtio'/>
        <source type='unix' path='/run/vhu{number}' mode='server'/><driver queues='2'/></interface>"""
                   for number in range(3))
    iommu = """<iommu model='intel'><driver intremap='on' caching_mode='on' eim='on' iotlb='on' aw_bits='48'/></iommu>
        """ if viommu else ""
    return f"""<domain type='qemu'><name>router</name><memory>524288</memory><vcpu>2</vcpu>
      <memoryBacking><hugepages><page size='2048' nodeset='0' unit='KiB'/></hugepages></memoryBacking>
      <os><type machine='{machine}'>hvm</type></os>
      <features><acpi/><apic/>{"<ioapic driver='qemu'/>" if viommu else ""}</features>
      <cpu><numa><cell id='0' cpus='0-1' memory='524288' memAccess='shared'/></numa></cpu>
      <devices>
        <disk type='file' device='disk'><source file='/tmp/disk'/><target dev='vda' bus='virtio'/></disk>
        <disk type='file' device='cdrom'><source file='/tmp/disk.config'/><target dev='{target}' bus='{bus}'/></disk>
        {nics}<serial type='pty'/><input type='tablet' bus='usb'/><graphics type='vnc' autoport='yes'/>
        <video><model type='{"virtio" if video else "none"}'/></video><memballoon model='virtio'/>
        <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>{iommu}
      </devices></domain>"""


class Libvirt:
    """libvirtd of a sandbox. A context manager."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        sandbox.run("mkdir -p /run/libvirt")
        self.daemon = sandbox.start("libvirtd", "libvirtd")
        until(lambda: sandbox.run(["virsh", "-c", URI, "list"], check=False).returncode == 0, "libvirtd", 30)

    def nic_addresses(self, domain):
        """PCI addresses ("0000:00:03.0") of a domain's NICs, in their order, as libvirt assigns them."""
        self.sandbox.run("sh -c 'cat >/tmp/domain.xml'", input=domain)
        self.sandbox.run(["virsh", "-c", URI, "define", "/tmp/domain.xml"])
        try:
            defined = self.sandbox.out(["virsh", "-c", URI, "dumpxml", "--inactive", "router"])
            return ["{}:{}:{}.{}".format(*address) for address in ADDRESS.findall(defined)]
        finally:
            self.sandbox.run(["virsh", "-c", URI, "undefine", "router"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.daemon.kill()
