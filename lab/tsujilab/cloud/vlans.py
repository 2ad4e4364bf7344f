"""VLAN interfaces of a machine whose port is a trunk parent.

A guest has them from its kernel's 8021q. The kernel of this machine may have none, so a private Open vSwitch bridge
in the userspace datapath plays that part: the trunk's end is plugged into it, and each VLAN interface is an internal
port with a tag, moved into the machine's namespace. Tag 0 is the untagged interface of the parent itself.
"""

import hashlib
import json

from tsujilab.cloud.instance import LabError
from tsujilab.sandbox import until


class Vlans:
    """The VLAN interfaces over one interface of a machine."""

    def __init__(self, machine, interface):
        self.machine, self.interface = machine, interface
        # Interface names have at most 15 characters.
        self.bridge = "vl" + hashlib.sha256(f"{machine.name}/{interface}".encode()).hexdigest()[:11]

    def _vsctl(self, *words):
        return self.machine.lab.sandbox.out(["ovs-vsctl", *map(str, words)])

    def make(self, raw):
        """Makes the bridge with `raw`, the trunk's end, in it."""
        self._vsctl(
            "--may-exist",
            "add-br",
            self.bridge,
            "--",
            "set",
            "bridge",
            self.bridge,
            "datapath_type=netdev",
            "fail-mode=standalone",
            "other_config:mac-table-size=4096",
            "--",
            "--may-exist",
            "add-port",
            self.bridge,
            raw,
        )
        self.machine.lab.sandbox.run(["ip", "link", "set", raw, "up"])

    def exists(self):
        return self.bridge in self._vsctl("list-br").split()

    def all(self):
        """{tag: {"name": port of the bridge, "lab-interface": name in the machine, "lab-port": Neutron port or ""}}."""
        if not self.exists():
            return {}
        found = json.loads(
            self._vsctl(
                "-f",
                "json",
                "--columns=name,external_ids",
                "find",
                "interface",
                f"external_ids:lab-vlans={self.bridge}",
            )
        )
        rows = [{"name": name, **dict(ids[1])} for name, ids in found["data"]]
        return {int(row["lab-tag"]): row for row in rows}

    def add(self, tag, mac, addresses=(), name=None, mtu=1442, port_id=""):
        """A VLAN interface (name: INTERFACE.TAG unless told) with a MAC, an MTU and addresses like "10.0.0.1/24".

        For a port that Neutron binds by binding:profile {"parent_name", "tag"} give the tag and the MAC of that port.
        Returns its name.
        """
        if not self.exists():
            raise LabError(f"{self.interface} of {self.machine.name} was not plugged as a trunk (machine add --trunk)")
        name = name or f"{self.interface}.{tag}"
        outer = "vi" + hashlib.sha256(f"{self.bridge}/{tag}".encode()).hexdigest()[:11]
        ids = {"lab-vlans": self.bridge, "lab-tag": tag, "lab-interface": name, "lab-port": port_id or "-"}
        self._vsctl(
            "--may-exist",
            "add-port",
            self.bridge,
            outer,
            f"tag={tag}",
            "--",
            "set",
            "interface",
            outer,
            "type=internal",
            *(f'external_ids:{key}="{value}"' for key, value in ids.items()),
        )
        sandbox, host = self.machine.lab.sandbox, self.machine.host
        until(lambda: sandbox.run(["ip", "link", "show", outer], check=False).returncode == 0, f"interface {outer}", 10)
        # The tap's end stays with the switch; the device goes to the machine.
        sandbox.run(["ip", "link", "set", outer, "netns", self.machine.name])
        host.run(["ip", "link", "set", outer, "name", name, "address", mac, "mtu", mtu])
        host.run(["ip", "link", "set", name, "up"])
        for address in addresses:
            host.run(["ip", "addr", "add", address, "dev", name, *(["nodad"] if ":" in address else [])])
        return name

    def delete(self, tag):
        """Removes one VLAN interface."""
        row = self.all().get(tag)
        if row:
            self._vsctl("--if-exists", "del-port", self.bridge, row["name"])

    def remove(self):
        """Removes all of them and the bridge."""
        self._vsctl("--if-exists", "del-br", self.bridge)
