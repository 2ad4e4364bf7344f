"""A machine of a tenant without QEMU: a network namespace whose interfaces are bound to Neutron ports.

A port is plugged as Nova's VIF driver does it: a veth pair, its one end in br-int with external_ids:iface-id, from
which ovn-controller binds the port; the other end is the machine's interface, with the port's MAC address. Packets,
DHCP, security groups and the port's status are then the real thing.

The record of what is plugged is Open vSwitch's own database (external_ids:lab-machine): nothing can disagree with it.
"""

import json
import uuid

from tsujilab.cloud.api import ApiError, Cloud
from tsujilab.cloud.guest import configure
from tsujilab.cloud.instance import RUN, LabError
from tsujilab.cloud.vlans import Vlans
from tsujilab.sandbox import Host, until


def interfaces(lab, column="lab-machine", value=None):
    """Rows of Open vSwitch's Interface table that carry an external id: [{"name": …, the external ids}]."""
    match = f"external_ids:{column}" + ("!=[]" if value is None else f"={value}")
    found = json.loads(
        lab.sandbox.out(["ovs-vsctl", "-f", "json", "--columns=name,external_ids", "find", "interface", match])
    )
    rows = [{"name": name, **dict(ids[1])} for name, ids in found["data"]]
    return [row for row in rows if column in row]


class Machine:
    """A machine in the running lab. `host` runs commands in it."""

    def __init__(self, lab, name):
        if not name or len(name) > 40 or "/" in name or name.startswith((".", "-")):
            raise LabError(f"'{name}' can't name a machine")
        self.lab, self.name, self.host = lab, name, Host(lab.sandbox, name)

    @classmethod
    def all(cls, lab):
        """The machines of the lab, by name."""
        names = {row["lab-machine"] for row in interfaces(lab)} | {
            file.name[8:] for file in lab.path(RUN).glob("machine-*")
        }
        return {name: cls(lab, name) for name in sorted(names)}

    @classmethod
    def add(cls, lab, name, port=None, trunk=False, addresses="dhcp", wait=True):
        """Makes the machine unless it exists, and plugs a port (its id or dict) when one is given."""
        machine = cls(lab, name)
        if not machine.exists():
            lab.path(f"{RUN}/machine-{name}").touch()
            lab.sandbox.run(["ip", "netns", "add", name])
            machine.host.run("ip link set lo up")
            # Addresses that routers advertise are the machine's own concern; forwarding stays off.
            machine.host.run("sysctl -qw net.ipv6.conf.default.accept_ra=1 net.ipv6.conf.default.addr_gen_mode=0")
        if port:
            machine.plug(port, trunk=trunk, addresses=addresses, wait=wait)
        return machine

    @property
    def device_id(self):
        """What its ports say in device_id, as a server's UUID would."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.machine.{self.lab.name}"))

    def exists(self):
        return self.lab.path(f"/run/netns/{self.name}").exists()

    def ports(self):
        """Its plugged ports: [{"name": outer end, "iface-id": port id, "lab-interface": name inside, …}]."""
        return [row for row in interfaces(self.lab, value=self.name) if row.get("lab-machine") == self.name]

    def plug(self, port, interface=None, trunk=False, addresses="dhcp", wait=True):
        """Binds a Neutron port to a new interface (eth0, eth1 … unless named) and returns the port as Neutron sees it.

        addresses: "dhcp" as the port's subnets say, "port" sets Neutron's fixed addresses without asking, None leaves
        the interface bare. trunk: the machine can have VLAN interfaces over it (`vlans(interface)`), and gets those
        of the Neutron trunk of which the port is the parent. wait: until Neutron says ACTIVE.
        """
        cloud = Cloud(self.lab, "admin")
        port = port if isinstance(port, dict) else cloud.show("port", port)
        have = self.ports()
        interface = interface or next(
            f"eth{n}" for n in range(100) if f"eth{n}" not in [row["lab-interface"] for row in have]
        )
        taken = interfaces(self.lab, "iface-id", port["id"])
        if taken:
            raise LabError(
                f"port {port['id']} is plugged already, into machine {taken[0].get('lab-machine', '(none)')}"
            )
        outer, mtu = f"tap{port['id'][:11]}", cloud.show("network", port["network_id"])["mtu"]
        sandbox = self.lab.sandbox
        sandbox.run(["ip", "link", "del", outer], check=False)
        inner = interface if not trunk else f"raw{port['id'][:11]}"
        # A trunk's parent must pass tagged frames of the parent's MTU.
        sandbox.run(
            [
                "ip",
                "link",
                "add",
                outer,
                "mtu",
                mtu + (4 if trunk else 0),
                "type",
                "veth",
                "peer",
                "name",
                inner,
                "mtu",
                mtu + (4 if trunk else 0),
                *([] if trunk else ["address", port["mac_address"], "netns", self.name]),
            ]
        )
        # The kernel would leave checksums to a device that a namespace's capture or an AF_PACKET program never sees.
        (sandbox if trunk else self.host).run(f"ethtool -K {inner} tx off", check=False)
        sandbox.run(["ip", "link", "set", outer, "up"])
        # Nova says so before it plugs: Neutron lets no port become ACTIVE that was unbound
        # when OVN reported it up.
        cloud.update(
            "port",
            port["id"],
            binding__host_id=self.lab.name,
            **({} if port["device_id"] else {"device_id": self.device_id, "device_owner": "compute:nova"}),
        )
        ids = {
            "iface-id": port["id"],
            "attached-mac": port["mac_address"],
            "iface-status": "active",
            "lab-machine": self.name,
            "lab-interface": interface,
        }
        sandbox.run(
            [
                "ovs-vsctl",
                "--may-exist",
                "add-port",
                "br-int",
                outer,
                "--",
                "set",
                "interface",
                outer,
                *(f'external_ids:{key}="{value}"' for key, value in ids.items()),
            ]
        )
        if trunk:
            vlans = Vlans(self, interface)
            vlans.make(inner)
            vlans.add(0, port["mac_address"], name=interface, mtu=mtu)
        else:
            self.host.run(["ip", "link", "set", interface, "up"])
        if wait:
            port = self.wait_active(cloud, port["id"])
        if addresses:
            configure(self, interface, cloud, port, addresses)
        if trunk:
            self.sync_trunk(interface, port, addresses, cloud)
        return port

    def wait_active(self, cloud, port_id, timeout=30):
        """Waits until Neutron says that a port is ACTIVE, and returns it."""

        def active():
            port = cloud.show("port", port_id)
            return port if port["status"] == "ACTIVE" else None

        try:
            return until(active, f"port {port_id} to become ACTIVE", timeout, 0.2)
        except TimeoutError as error:
            raise LabError(f"{error}; see 'lab/lab logs ovn-controller' and 'lab/lab logs neutron'") from error

    def vlans(self, interface="eth0"):
        """The VLAN interfaces over a port plugged as trunk."""
        return Vlans(self, interface)

    def sync_trunk(self, interface="eth0", port=None, addresses="dhcp", cloud=None):
        """Makes a VLAN interface for each subport of the Neutron trunk, and removes those of subports that are gone."""
        cloud = cloud or Cloud(self.lab, "admin")
        port_id = (
            port["id"] if port else next(row["iface-id"] for row in self.ports() if row["lab-interface"] == interface)
        )
        trunks = cloud.list("trunk", port_id=port_id)
        subports = {sub["segmentation_id"]: sub["port_id"] for trunk in trunks for sub in trunk["sub_ports"]}
        vlans = self.vlans(interface)
        have = vlans.all()
        # Those without a Neutron port were added by hand: they are not the trunk's.
        for tag in [
            tag for tag, row in have.items() if row["lab-port"] != "-" and subports.get(tag) != row["lab-port"]
        ]:
            vlans.delete(tag)
            del have[tag]
        for tag, sub_id in sorted(subports.items()):
            if tag in have:
                continue
            sub = self.wait_active(cloud, sub_id)
            name = vlans.add(
                tag, sub["mac_address"], port_id=sub_id, mtu=cloud.show("network", sub["network_id"])["mtu"]
            )
            if addresses:
                configure(self, name, cloud, sub, addresses)

    def unplug(self, interface="eth0"):
        """Takes a port away from the machine; Neutron's port stays and goes DOWN."""
        for row in self.ports():
            if row["lab-interface"] == interface:
                self.vlans(interface).remove()
                self.lab.sandbox.run(["ovs-vsctl", "--if-exists", "del-port", "br-int", row["name"]])
                self.lab.sandbox.run(["ip", "link", "del", row["name"]], check=False)
                self.release(row["iface-id"])

    def release(self, port_id):
        """Tells Neutron that the port is no longer this machine's, as Nova does."""
        cloud = Cloud(self.lab, "admin")
        try:
            port = cloud.show("port", port_id)
            owner = {"device_id": "", "device_owner": ""} if port["device_id"] == self.device_id else {}
            cloud.update("port", port_id, binding__host_id="", **owner)
        except ApiError as error:
            if error.status != 404:
                raise

    def delete(self):
        """Ends the machine: its programs, interfaces and namespace. Neutron's ports stay."""
        for row in self.ports():
            self.unplug(row["lab-interface"])
        if self.exists():
            for pid in self.lab.sandbox.out(["ip", "netns", "pids", self.name]).split():
                self.lab.sandbox.run(["kill", "-9", pid], check=False)
            self.lab.sandbox.run(["ip", "netns", "del", self.name])
        self.lab.path(f"{RUN}/machine-{self.name}").unlink(missing_ok=True)

    def describe(self):
        """What `lab/machine list` shows: [{"interface", "port", "addresses"}]."""
        if not self.exists():
            return []
        rows = {row["ifname"]: row for row in self.host.json("ip -j addr")}
        known = {row["lab-interface"]: row["iface-id"] for row in self.ports()}
        for interface in list(known):
            known.update(
                {
                    row["lab-interface"]: row["lab-port"]
                    for row in self.vlans(interface).all().values()
                    if row["lab-interface"] != interface
                }
            )
        return [
            {
                "interface": name,
                "port": known.get(name, ""),
                "mac": row.get("address", ""),
                "mtu": row["mtu"],
                "addresses": [f"{a['local']}/{a['prefixlen']}" for a in row["addr_info"] if a["scope"] != "link"],
            }
            for name, row in rows.items()
            if name != "lo"
        ]
