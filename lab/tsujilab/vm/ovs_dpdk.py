"""Open vSwitch with DPDK in a sandbox: the host's side of vhost-user, as on a hypervisor with OVS-DPDK.

The forwarding thread (PMD) sleeps when it finds nothing to do, so that a test's machine stays usable. Ports to
network namespaces are ordinary veth pairs.
"""
from tsujilab.sandbox import until

DAEMON = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
CONTROL = "/run/openvswitch/ovs-vswitchd.ctl"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
# DPDK's log speaks of each vhost-user message; the daemon's log then says what was negotiated.
EXTRA = "--no-pci --in-memory --no-telemetry --log-level=lib.vhost.*:info"


class OvsDpdk:
    """ovsdb-server and ovs-vswitchd of a sandbox, with DPDK up. Needs hugepages(memory_mb)."""

    def __init__(self, sandbox, memory_mb=256, pmd_mask="0x1", settings=()):
        """memory_mb: DPDK's memory. pmd_mask: CPUs that forward. settings: more other_config, "name=value"."""
        self.sandbox = sandbox
        sandbox.run("mkdir -p /run/openvswitch /etc/openvswitch")
        sandbox.run(f"ovsdb-tool create /run/openvswitch/conf.db {SCHEMA}")
        self.database = sandbox.start("ovsdb-server --remote=punix:/run/openvswitch/db.sock --pidfile "
                                      "/run/openvswitch/conf.db", "ovsdb-server")
        until(lambda: sandbox.run("ovs-vsctl --no-wait init", check=False).returncode == 0, "ovsdb-server", 20)
        # per-port-memory: else the first port takes buffers for a whole hypervisor.
        config = ["dpdk-init=true", f"dpdk-extra=\"{EXTRA}\"", f"dpdk-socket-mem=\"{memory_mb}\"",
                  f"dpdk-socket-limit=\"{memory_mb}\"", f"pmd-cpu-mask=\"{pmd_mask}\"", "per-port-memory=true",
                  "pmd-sleep-max=\"200\"", *settings]
        self.ctl("--no-wait", "set", "Open_vSwitch", ".", *(f"other_config:{one}" for one in config))
        self.daemon = sandbox.start([DAEMON, f"--unixctl={CONTROL}", "unix:/run/openvswitch/db.sock"], "ovs-vswitchd")
        until(lambda: self.ctl("get", "Open_vSwitch", ".", "dpdk_initialized") == "true",
              "ovs-vswitchd with DPDK (see ovs-vswitchd.log)", 60)

    def ctl(self, *words):
        """ovs-vsctl; returns what it prints."""
        return self.sandbox.out(["ovs-vsctl", "--timeout=30", *words]).strip()

    def app(self, *words):
        """ovs-appctl to ovs-vswitchd; returns what it prints."""
        return self.sandbox.out(["ovs-appctl", "-t", CONTROL, *words]).strip()

    def bridge(self, name):
        self.ctl("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev")

    def vhost(self, bridge, name, socket, *settings):
        """A port to a guest whose QEMU serves `socket`. settings: of the Port record, "tag=100"."""
        self.ctl("add-port", bridge, name, *settings, "--", "set", "Interface", name, "type=dpdkvhostuserclient",
                 f"options:vhost-server-path={socket}")

    def veth(self, bridge, name, host, host_name="eth0", settings=(), mtu=1500):
        """A port to a network namespace, where the far end is `host_name`, without checksum offload."""
        self.sandbox.link(self.sandbox, name, host, host_name, mtu)
        self.ctl("add-port", bridge, name, *settings)

    def status(self, interface):
        """The status column of an interface: {name: value}; for vhost-user ports what was negotiated."""
        text = self.ctl("get", "Interface", interface, "status").strip("{}")
        return {key: value.strip('"') for key, _, value in (part.partition("=") for part in text.split(", ")) if key}
