"""Attaches router nodes of the lab to the networks of a flavored Neutron router, as the controller will.

A node has two trunk ports, ext and int, on empty networks made for its router (R12). Each network is a VLAN on one of
them. docs/decisions/0004-attach.md says why it is done in two ways:

- A single node takes over the router's own ports: `binding:profile` {"parent_name", "tag"} turns a router port into a
  VLAN of the node's trunk port. No further port, no further address, nothing that the tenant could see.
- A node of a pair has a port of its own on each network, a VLAN too, without port security. The router's addresses
  move between the nodes; the router's interface ports stay unbound, as records in Neutron only.

The account `tsuji` does all of it: role `service` to set binding:profile and to make ports on tenants' networks, role
`member` for its own networks and trunks. That it may read tenants' subnets, for the prefix lengths, is a line of policy
(neutron/policy.d/tsuji.yaml). The port group is written to OVN's northbound database.
"""
from dataclasses import dataclass, field
from ipaddress import ip_interface

from tsujilab.cloud.api import Cloud
from tsujilab.cloud.instance import LabError
from tsujilab.cloud.machine import Machine
from tsujilab.takeover import Takeover

SIDES = ("ext", "int")
GATEWAY, INTERFACE = "network:router_gateway", "network:router_interface"
# The first VLAN tag on a trunk port; the others follow.
FIRST_TAG = 101
# OVN's group of all ports behind which a node is; see track_nothing().
PORT_GROUP = "tsuji_nodes"


@dataclass
class Interface:
    """A node's interface on one network.

    port: the port of Neutron behind it, as a dict. mac and mtu: what the interface has. addresses: its own
    (ip_interface). gateways: addresses of the router that it holds while its node is master (pairs only).
    """
    side: str
    tag: int
    name: str
    port: dict
    mac: str
    mtu: int
    addresses: list
    gateways: list = field(default_factory=list)


@dataclass
class Node:
    """A machine with a router's trunk ports. parents, trunks: ids by side. interfaces: by the id of the port behind."""
    router_id: str
    number: int
    machine: Machine
    parents: dict
    trunks: dict
    interfaces: dict = field(default_factory=dict)

    @property
    def host(self):
        return self.machine.host

    def on(self, side):
        """Its interfaces on one side, in the order of their tags."""
        return sorted((one for one in self.interfaces.values() if one.side == side), key=lambda one: one.tag)


class Attacher:
    """Makes, attaches and removes the nodes of one router of a lab."""

    def __init__(self, lab, router_id):
        self.lab, self.router_id, self.short = lab, router_id, router_id[:8]
        self.cloud = Cloud(lab, "tsuji")
        self._mtus, self._prefixes = {}, {}

    # Nodes and their trunk ports.

    def make_node(self, number=0, name=None):
        """A machine with both trunk ports plugged; on a network, nothing yet."""
        machine = Machine.add(self.lab, name or self.machine_name(number))
        # Two interfaces may be on one segment (see attach_single): each answers for its own addresses only.
        machine.host.sh("""
            sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
            sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
            sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_ra=0""")
        node = Node(self.router_id, number, machine, {}, {})
        for side in SIDES:
            network = self._ensure("network", f"rtvm-{side}-{self.short}", port_security_enabled=False)
            port = self._ensure("port", f"rtvm-{side}-trunk-port-{self.short}-{number}", network_id=network["id"])
            trunk = self._ensure("trunk", f"vrtvm-{side}-trunk-{self.short}-{number}", port_id=port["id"])
            machine.plug(port, interface=side, trunk=True, addresses=None, wait=False)
            node.parents[side], node.trunks[side] = port["id"], trunk["id"]
        return node

    def _ensure(self, kind, name, **fields):
        """An object of the service project by its name, made when absent."""
        found = self._ours(kind, name)
        return found[0] if found else self.cloud.create(kind, name=name, **fields)

    def _ours(self, kind, name):
        return self.cloud.list(kind, name=name, project_id=self._project())

    def machine_name(self, number):
        return f"rtvm-{self.short}-{number}"

    def _project(self):
        if not self.cloud.project:
            self.cloud.log_in()
        return self.cloud.project

    def remove(self, machines=()):
        """Removes every node of the router, found by name: its VLANs, trunks, ports and networks. Repeatable.

        machines: names of machines that don't have their usual name.
        """
        numbers = {number for number in (0, 1) if Machine(self.lab, self.machine_name(number)).exists()}
        for name in (*machines, *(self.machine_name(number) for number in numbers)):
            Machine(self.lab, name).delete()
        for number in (0, 1):
            for port in self._ours("port", f"rtvm-ext-{self.short}-{number}"):
                self.cloud.delete("port", port["id"])
        for side in SIDES:
            networks = self._ours("network", f"rtvm-{side}-{self.short}")
            for parent in [port for network in networks for port in self.cloud.list("port", network_id=network["id"])]:
                for port in self.router_ports():
                    if port["binding:profile"].get("parent_name") == parent["id"]:
                        self.cloud.update("port", port["id"], binding__profile={})
                for trunk in self.cloud.list("trunk", port_id=parent["id"]):
                    self.cloud.delete("trunk", trunk["id"])
                    for subport in trunk["sub_ports"]:
                        self.cloud.delete("port", subport["port_id"])
                if parent["project_id"] == self._project():
                    self.cloud.delete("port", parent["id"])
            for network in networks:
                self.cloud.delete("network", network["id"])

    # What Neutron says.

    def router_ports(self, owner=None):
        """The router's ports, those of interfaces and gateways alike, oldest first: role `service` sees them all."""
        owners = [owner] if owner else [GATEWAY, INTERFACE]
        ports = [port for one in owners for port in self.cloud.list("port", device_id=self.router_id, device_owner=one)]
        return sorted(ports, key=lambda port: (port["created_at"], port["id"]))

    def mtu(self, network_id):
        if network_id not in self._mtus:
            self._mtus[network_id] = self.cloud.show("network", network_id)["mtu"]
        return self._mtus[network_id]

    def addresses(self, port):
        """A port's fixed addresses with the prefix lengths of their subnets."""
        for ip in port["fixed_ips"]:
            if ip["subnet_id"] not in self._prefixes:
                self._prefixes[ip["subnet_id"]] = self.cloud.show("subnet", ip["subnet_id"])["cidr"].split("/")[1]
        return [ip_interface(f"{ip['ip_address']}/{self._prefixes[ip['subnet_id']]}") for ip in port["fixed_ips"]]

    def free_tag(self, node, side):
        """The lowest VLAN tag that the node has no interface for."""
        used = {one.tag for one in node.on(side)}
        return next(tag for tag in range(FIRST_TAG, 4095) if tag not in used)

    # The two ways.

    def bind(self, node, port, tag=None):
        """Single node: the router's own port becomes a VLAN of the node's trunk port."""
        side = "ext" if port["device_owner"] == GATEWAY else "int"
        tag = tag or self.free_tag(node, side)
        profile = {"parent_name": node.parents[side], "tag": tag}
        port = self.cloud.update("port", port["id"], binding__profile=profile)
        return self._add(node, Interface(side, tag, f"{side}.{tag}", port, port["mac_address"],
                                         self.mtu(port["network_id"]), self.addresses(port)))

    def add_own_port(self, node, side, network_id, gateways=(), fixed_ips=None, tag=None):
        """Node of a pair: a port of its own on a network. fixed_ips: as Neutron's; None leaves them to Neutron.

        On a tenant's network it is a subport of the trunk, which keeps the tenant from deleting it. On the VRF network,
        which is not the tenant's, binding:profile does: it's a call less, and the trunk API refuses a network whose
        MTU is above that of the parent's network, as a VLAN network's is above an overlay's.

        On a tenant's network it takes no IPv6 address but the link-local one: Linux routers answer for the
        subnet-router anycast address of every prefix they have an address in, and Neutron's default gateway_ip of an
        IPv6 subnet is just that address. A standby would answer for the gateway.
        """
        tag = tag or self.free_tag(node, side)
        fields = {"fixed_ips": fixed_ips} if fixed_ips is not None else {}
        if side == "ext":
            fields["binding__profile"] = {"parent_name": node.parents[side], "tag": tag}
        port = self.cloud.create("port", network_id=network_id, name=f"rtvm-{side}-{self.short}-{node.number}",
                                 port_security_enabled=False, **fields)
        if side == "int":
            self.cloud.put("trunk", node.trunks[side], "add_subports", sub_ports=[
                {"port_id": port["id"], "segmentation_type": "vlan", "segmentation_id": tag}])
        own = [address for address in self.addresses(port) if side == "ext" or address.version == 4]
        return self._add(node, Interface(side, tag, f"{side}.{tag}", port, port["mac_address"], self.mtu(network_id),
                                         own, list(gateways)))

    def take_single(self, node):
        """A single node takes over all ports of the router that it has not yet.

        A network with several subnets has several router ports (Neutron makes one for each IPv4 subnet and one for all
        IPv6 subnets). Each becomes an interface of its own, so that removing one subnet leaves the others alone.
        """
        for port in self.router_ports():
            if port["id"] not in node.interfaces:
                self.bind(node, port)
        self._settle(node)
        for interface in node.interfaces.values():
            self.announce(node, interface)

    def take_pair(self, nodes, own_addresses=True):
        """Two nodes get an interface on each network of the router; neither holds the router's addresses yet.

        Node 0 takes the gateway port as a single node does, node 1 has a port of its own there: each has an address
        to speak BGP from, and none is idle. own_addresses: an IPv4 address for each node on each tenant network.
        """
        networks = {}
        for port in self.router_ports(INTERFACE):
            networks.setdefault(port["network_id"], []).append(port)
        for node in nodes:
            for port in self.router_ports(GATEWAY):
                if node.number == 0:
                    self.bind(node, port)
                else:
                    self.add_own_port(node, "ext", port["network_id"])
            for network_id, ports in networks.items():
                gateways = [address for port in ports for address in self.addresses(port)]
                subnets = [ip["subnet_id"] for port in ports for ip in port["fixed_ips"] if "." in ip["ip_address"]]
                wanted = [{"subnet_id": subnet} for subnet in subnets] if own_addresses else []
                self.add_own_port(node, "int", network_id, gateways, wanted)
            self._settle(node)

    def announce(self, node, interface):
        """Tells a network who has the interface's addresses now.

        A subnet that was removed and added again has a new router port, with a new MAC: machines that still use the old
        one would take up to 45 s to find out.
        """
        taker = Takeover(node.host, interface.name, [(address, None) for address in interface.addresses])
        taker("announce")
        taker.close()

    def _settle(self, node):
        self.wait_up(node)
        self.track_nothing(node)

    def wait_up(self, node, timeout=30):
        """Waits until OVN has bound all ports of a node; LabError names the one that it has not.

        OVN is asked, for Neutron's status of a port may stay DOWN when its parent changes.
        """
        for interface in node.interfaces.values():
            port_id = interface.port["id"]
            result = self.lab.sandbox.run(["ovn-nbctl", "-t", str(timeout), "wait-until", "Logical_Switch_Port",
                                           port_id, "up=true"], check=False, timeout=timeout + 30)
            if result.returncode:
                raise LabError(f"{node.machine.name}: OVN did not bind port {port_id} ({interface.name}) within "
                               f"{timeout} s; see 'lab/lab logs ovn-controller'")

    def track_nothing(self, node):
        """Takes a node's ports out of OVN's connection tracking, by a port group with stateless rules.

        Where any port of a network has a security group, OVN tracks connections at every port of it, and drops what it
        takes for an answer without a question: what left through another node, or another port of the same node. The
        group carries none of Neutron's marks, so Neutron's database sync leaves it alone.
        """
        nbctl = ["ovn-nbctl", "--wait=hv", "-t", "30"]
        rules = [word for direction, side in (("from-lport", "inport"), ("to-lport", "outport")) for word in
                 ("--", "--may-exist", "acl-add", PORT_GROUP, direction, "2000", f"{side} == @{PORT_GROUP} && ip",
                  "allow-stateless")]
        if self.lab.sandbox.run(["ovn-nbctl", "get", "port_group", PORT_GROUP, "name"], check=False).returncode:
            self.lab.sandbox.run([*nbctl, "pg-add", PORT_GROUP, *rules])
        rows = [self.lab.sandbox.out(["ovn-nbctl", "--bare", "--columns=_uuid", "find", "logical_switch_port",
                                      f"name={port_id}"]).strip() for port_id in node.interfaces]
        self.lab.sandbox.run([*nbctl, "add", "port_group", PORT_GROUP, "ports", *rows])

    def _add(self, node, interface):
        node.machine.vlans(interface.side).add(
            interface.tag, interface.mac, [str(address) for address in interface.addresses], name=interface.name,
            mtu=interface.mtu, port_id=interface.port["id"])
        node.interfaces[interface.port["id"]] = interface
        return interface

    def release(self, node, interface):
        """Takes the node off one network; what is Tsuji's own there is deleted, the router's port is let go."""
        port_id = interface.port["id"]
        if node.machine.exists():
            node.machine.vlans(interface.side).delete(interface.tag)
        node.interfaces.pop(port_id, None)
        found = self.cloud.list("port", id=port_id)
        if not found:
            return
        if found[0]["device_owner"] in (GATEWAY, INTERFACE):
            self.cloud.update("port", port_id, binding__profile={})
            return
        if interface.side == "int":
            self.cloud.put("trunk", node.trunks["int"], "remove_subports", sub_ports=[{"port_id": port_id}])
        self.cloud.delete("port", port_id)


def attach_single(lab, router_id, name=None):
    """A node for a router that is to have one: its gateway and interface ports as they are now. Returns the Node."""
    attacher = Attacher(lab, router_id)
    if not attacher.router_ports():
        raise LabError(f"router {router_id} has neither gateway nor interfaces: 'openstack router set "
                       "--external-gateway' and 'openstack router add subnet' come first")
    node = attacher.make_node(0, name)
    attacher.take_single(node)
    return node


def attach_pair(lab, router_id, own_addresses=True, names=(None, None)):
    """Two nodes for a router that is to have a pair; see Attacher.take_pair(). Returns (Node, Node)."""
    attacher = Attacher(lab, router_id)
    nodes = tuple(attacher.make_node(number, names[number]) for number in (0, 1))
    attacher.take_pair(nodes, own_addresses)
    return nodes


def detach(lab, router_id, machines=()):
    """Undoes attach_single() or attach_pair(); machines: names that were given to them."""
    Attacher(lab, router_id).remove(machines)
