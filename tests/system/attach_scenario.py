"""A stage for the questions of docs/decisions/0004-attach.md: a tenant's network behind a flavored router.

    tenant's machine ── network of project red-cell ── router node(s) ── VRF network ── far machine

Used by test_attach.py and by tests/bench/bench_attach.py. Nodes forward by the Linux kernel; static routes stand in
for BGP. Several stages may stand in one lab at a time; each has a number that sets its prefixes.
"""
import ipaddress
import time

from tsujilab.cloud.api import ApiError, Cloud
from tsujilab.cloud.attach import GATEWAY, INTERFACE, Attacher, detach
from tsujilab.cloud.machine import Machine
from tsujilab.sandbox import until

VRF = {4: "169.254.0.0/22", 6: "fd00:a9fe::/64"}
FAR_VRF = {4: "169.254.0.10", 6: "fd00:a9fe::a"}
# What the far machine stands for: something in the data centre.
FAR = {4: "198.51.100.1", 6: "2001:db8:d::1"}
# Addressing plan: number of IPv4 and IPv6 subnets on the network, and the IPv4 prefix length.
PLANS = {"v4": (1, 0, 24), "dual": (1, 1, 24), "two+two": (2, 2, 24), "/29": (1, 1, 29)}


def far_machine(lab):
    """The machine on the VRF network and that network, made when absent. Returns (Machine, network)."""
    cloud = Cloud(lab, "admin")
    found = cloud.list("network", name="attach-vrf")
    if found:
        return Machine(lab, "attach-far"), found[0]
    network = cloud.create("network", name="attach-vrf", router__external=True)
    pools = {4: ("169.254.1.0", "169.254.3.254"), 6: ("fd00:a9fe::1:0", "fd00:a9fe::1:ffff")}
    for version, (start, end) in pools.items():
        cloud.create("subnet", network_id=network["id"], cidr=VRF[version], ip_version=version, gateway_ip=None,
                     enable_dhcp=False, allocation_pools=[{"start": start, "end": end}])
    port = cloud.create("port", network_id=network["id"], name="attach-far", port_security_enabled=False,
                        fixed_ips=[{"ip_address": address} for address in FAR_VRF.values()])
    machine = Machine.add(lab, "attach-far", port, addresses="port", wait=False)
    for version, address in FAR.items():
        machine.host.run(f"ip -{version} addr add {address} dev lo")
    return machine, network


class Stage:
    """The tenant's side: network, subnets, router with its interfaces and gateway, one machine.

    plan: a key of PLANS. how: "subnet" or "port", the way in which the tenant adds interfaces.
    """

    def __init__(self, lab, number, plan="dual", how="subnet", flavor="tsuji", interfaces=True):
        self.lab, self.number, self.plan, self.how = lab, number, plan, how
        self.red, self.admin = Cloud(lab, "red"), Cloud(lab, "admin")
        self.far, self.vrf = far_machine(lab)
        self._open_security_group()
        self.network = self.red.create("network", name=f"attach-{number}")
        self.subnets = [self._subnet(version, index) for version, index in self._numbering()]
        # The machine comes first, so that it has an address in the smallest subnet too.
        self.port = self.red.create("port", network_id=self.network["id"], name=f"attach-{number}", fixed_ips=[
            {"subnet_id": subnet["id"]} for subnet in self.subnets])
        self.machine = Machine.add(lab, f"attach-{number}", self.port, addresses="port", wait=False)
        flavors = {one["name"]: one["id"] for one in self.red.list("flavor")}
        self.router = self.red.create("router", name=f"attach-{number}", flavor_id=flavors[flavor])
        self.red.update("router", self.router["id"], external_gateway_info={"network_id": self.vrf["id"]})
        self.attacher = Attacher(lab, self.router["id"])
        if interfaces:
            self.add_interfaces()

    def _open_security_group(self):
        group = next(one for one in self.red.list("security_group", name="default"))
        for family in ("IPv4", "IPv6"):
            try:
                self.red.create("security_group_rule", security_group_id=group["id"], direction="ingress",
                                ethertype=family)
            except ApiError as error:
                if error.status != 409:
                    raise

    def _numbering(self):
        v4, v6, _ = PLANS[self.plan]
        return [(4, index) for index in range(v4)] + [(6, index) for index in range(v6)]

    def _subnet(self, version, index):
        length = PLANS[self.plan][2]
        cidr = f"10.{self.number}.{index}.0/{length}" if version == 4 else f"2001:db8:{self.number:x}:{index:x}::/64"
        modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"} if version == 6 else {}
        return self.red.create("subnet", network_id=self.network["id"], cidr=cidr, ip_version=version, **modes)

    def add_interfaces(self):
        """What the tenant does to connect the network; returns the router's interface ports."""
        if self.how == "subnet":
            for subnet in self.subnets:
                self.red.put("router", self.router["id"], "add_router_interface", subnet_id=subnet["id"])
        else:
            # One port may hold one IPv4 address and any number of IPv6 ones; SLAAC subnets join each port unasked, so
            # only the first port may have them, and further IPv4 subnets can't be added by port next to them.
            first = [next(one for one in self.subnets if one["ip_version"] == 4),
                     *(one for one in self.subnets if one["ip_version"] == 6)]
            port = self.red.create("port", network_id=self.network["id"], name=f"gateway-{self.number}", fixed_ips=[
                {"subnet_id": one["id"], **({"ip_address": one["gateway_ip"]} if one["ip_version"] == 4 else {})}
                for one in first])
            self.red.put("router", self.router["id"], "add_router_interface", port_id=port["id"])
        return self.interface_ports()

    def interface_ports(self):
        return self.attacher.router_ports(INTERFACE)

    def gateway_port(self):
        return self.attacher.router_ports(GATEWAY)[0]

    def address(self, version, index=0):
        """An address of the tenant's machine."""
        found = [ipaddress.ip_address(ip["ip_address"]) for ip in self.port["fixed_ips"]]
        return str(sorted(address for address in found if address.version == version)[index])

    def versions(self):
        return sorted({subnet["ip_version"] for subnet in self.subnets})

    def route_inward(self, node):
        """The far machine's routes to the tenant's prefixes lead to this node: BGP's part."""
        via = {address.version: address.ip for one in node.on("ext") for address in one.addresses}
        for subnet in self.subnets:
            version = subnet["ip_version"]
            self.far.host.run(f"ip -{version} route replace {subnet['cidr']} via {via[version]}")

    def route_outward(self, node):
        """The node's routes to the far side."""
        node.host.sh("\n".join(f"ip -{version} route replace {FAR[version]} via {FAR_VRF[version]}"
                               for version in (4, 6)))

    def route_pair(self, nodes, own_addresses=True):
        """The routes of both nodes, and what they need to know of networks on which a standby has no address."""
        for node in nodes:
            self.route_outward(node)
            inside = node.on("int")[0].name
            for subnet in self.subnets:
                if subnet["ip_version"] == 6 or not own_addresses:
                    node.host.run(f"ip -{subnet['ip_version']} route replace {subnet['cidr']} dev {inside}")

    def reach(self, timeout=10):
        """Which ways carry packets: {("out" | "in", IP version, subnet index): bool}; waits up to `timeout` each."""
        ways = {}
        for version in self.versions():
            for index in range(len([one for one in self.subnets if one["ip_version"] == version])):
                own = self.address(version, index)
                ways["out", version, index] = replied(self.machine.host, own, FAR[version], timeout)
                ways["in", version, index] = replied(self.far.host, FAR[version], own, timeout)
        return ways

    def first_reply(self, version=4, timeout=60):
        """Waits until the far side answers the tenant's machine; returns the time (monotonic)."""
        until(lambda: self.machine.host.ping(FAR[version], 1, options=f"-I {self.address(version)}"),
              f"{FAR[version]} to answer {self.machine.name}", timeout, 0.02)
        return time.monotonic()

    def close(self):
        """Removes all of it that is left, the router's nodes first."""
        detach(self.lab, self.router["id"])
        self.machine.delete()
        for port in self.interface_ports():
            self.red.put("router", self.router["id"], "remove_router_interface", port_id=port["id"])
        self.red.delete("router", self.router["id"])
        if self.red.list("network", id=self.network["id"]):
            for port in self.red.list("port", network_id=self.network["id"]):
                if not port["device_owner"].startswith("network:"):
                    self.admin.delete("port", port["id"])
            self.red.delete("network", self.network["id"])


def replied(host, source, target, timeout):
    try:
        return until(lambda: host.ping(target, options=f"-I {source}"), f"{target} to answer {source}", timeout)
    except TimeoutError:
        return False
