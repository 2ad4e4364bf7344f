"""What a test makes in a lab, remembered, and deleted again in reverse order."""

import uuid

from tsujilab.cloud.api import ApiError, Cloud
from tsujilab.cloud.machine import Machine


class Scratch:
    """Makes things in a lab as one account (a tenant unless told). A context manager; names never clash."""

    def __init__(self, lab, user="red"):
        self.lab, self.cloud, self.admin = lab, Cloud(lab, user), Cloud(lab, "admin")
        self.undo, self.tag = [], uuid.uuid4().hex[:6]

    def name(self, what):
        return f"{what}-{self.tag}"

    def make(self, kind, cloud=None, **fields):
        """Creates an object of Neutron and remembers it."""
        cloud = cloud or self.cloud
        made = cloud.create(kind, **fields)
        self.undo.append(lambda: cloud.delete(kind, made["id"]))
        return made

    def network(self, *cidrs, ra_mode="slaac", **fields):
        """A network with a subnet for each prefix: (network, [subnets])."""
        network = self.make("network", **{"name": self.name("net"), **fields})
        subnets = []
        for cidr in cidrs:
            version = 6 if ":" in cidr else 4
            ra = {"ipv6_ra_mode": ra_mode, "ipv6_address_mode": ra_mode} if version == 6 else {}
            subnets.append(self.make("subnet", network_id=network["id"], cidr=cidr, ip_version=version, **ra))
        return network, subnets

    def port(self, network, **fields):
        """A port, open to all that its network's members send when security is on."""
        return self.make("port", network_id=network["id"], **{"name": self.name("port"), **fields})

    def open_ports(self):
        """A security group that lets everything in, as a list for port(security_groups=...)."""
        group = self.make("security_group", name=self.name("open"))
        for version in ("IPv4", "IPv6"):
            self.make("security_group_rule", security_group_id=group["id"], direction="ingress", ethertype=version)
        return [group["id"]]

    def router(self, *subnets, flavor=None, **fields):
        """A router with an interface on each subnet; flavor: its name, else OVN's own router."""
        extra = {"flavor_id": self.cloud.list("flavor", name=flavor)[0]["id"]} if flavor else {}
        router = self.make("router", **{"name": self.name("router"), **extra, **fields})
        for subnet in subnets:
            self.cloud.put("router", router["id"], "add_router_interface", subnet_id=subnet["id"])
            self.undo.append(
                lambda subnet_id=subnet["id"]: self.cloud.put(
                    "router", router["id"], "remove_router_interface", subnet_id=subnet_id
                )
            )
        return router

    def machine(self, port, **options):
        """A machine plugged into a port (see Machine.plug)."""
        machine = Machine(self.lab, self.name(f"m{len(self.undo)}"))
        self.undo.append(machine.delete)
        return Machine.add(self.lab, machine.name, port, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        problems = []
        for undo in reversed(self.undo):
            try:
                undo()
            except ApiError as error:
                # Gone already is what we want.
                if error.status != 404:
                    problems.append(error)
        self.undo.clear()
        if problems:
            raise problems[0]
