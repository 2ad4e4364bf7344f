"""How a node takes the place of a flavored Neutron router: every way, what it costs, what a change of master loses.

Needs a lab that is up: TSUJI_LAB names it ("lab" unless told). TSUJI_ATTACH says which parts run: "ways", "moves" or
both ("ways,moves", the default). docs/decisions/0004-attach.md reads the table.

Times depend on the machine and on what else it does. What "moves" says of loss is counted datagrams, one per 10 ms,
times 10 ms; the row "no move" tells how much of it is the machine's own.
"""
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from attach_scenario import FAR, Stage
from tsujilab.cloud.attach import GATEWAY, INTERFACE, attach_pair, attach_single
from tsujilab.cloud.instance import Lab
from tsujilab.loss import LossMeter
from tsujilab.takeover import Takeover

MOVES = 5
# Way of adding interfaces and addressing plan; a port can't hold two IPv4 addresses, so "two+two" is by subnet only.
CELLS = [("subnet", "dual"), ("subnet", "two+two"), ("subnet", "/29"), ("port", "dual"), ("port", "/29"),
         ("subnet", "v4"), ("port", "v4")]


class Writes:
    """Counts the calls with which an account changes something."""

    def __init__(self, cloud):
        self.count, self.cloud, self.original = 0, cloud, cloud.call
        cloud.call = self.call

    def close(self):
        """Stops counting and returns the count."""
        self.cloud.call = self.original
        return self.count

    def call(self, service, method, *arguments, **options):
        self.count += method != "GET"
        return self.original(service, method, *arguments, **options)


def hold(node):
    """The node answers for the router's addresses, as master does."""
    takers = [Takeover(node.host, one.name, [(address, None) for address in one.gateways]) for one in node.on("int")]
    for taker in takers:
        taker("acquire")
    return takers


def take_own_subport(attacher, nodes):
    """A single node by a subport of its own, to compare: the router's interface ports stay unbound."""
    attacher.bind(nodes[0], attacher.router_ports(GATEWAY)[0])
    ports = attacher.router_ports(INTERFACE)
    gateways = [address for port in ports for address in attacher.addresses(port)]
    wanted = [{"subnet_id": ip["subnet_id"]} for port in ports for ip in port["fixed_ips"] if "." in ip["ip_address"]]
    attacher.add_own_port(nodes[0], "int", ports[0]["network_id"], gateways, wanted)
    attacher.wait_up(nodes[0])
    attacher.track_nothing(nodes[0])


WAYS = {
    "single, router's ports": lambda attacher, nodes: attacher.take_single(nodes[0]),
    "single, own subport": take_own_subport,
    "pair": lambda attacher, nodes: attacher.take_pair(nodes),
    "pair, no addresses": lambda attacher, nodes: attacher.take_pair(nodes, own_addresses=False),
}


def cell(bench, stage, nodes, name):
    """One way on one stage: does it carry packets, what does it take. Leaves the stage as it was."""
    case = f"add {stage.how}, {stage.plan}"
    before = stage.admin.list("port", network_id=stage.network["id"])
    # What the previous way left in the machine's neighbour table is not this one's affair.
    stage.machine.host.run("ip neigh flush all")
    writes, began = Writes(stage.attacher.cloud), time.monotonic()
    WAYS[name](stage.attacher, nodes)
    bench.record(f"{case}: attach to all networks", name, "s", [time.monotonic() - began])
    bench.record(f"{case}: writing calls", name, "calls", [writes.close()])
    takers = []
    try:
        used = [node for node in nodes if node.interfaces]
        if name == "single, router's ports":
            stage.route_outward(used[0])
        else:
            stage.route_pair(used, own_addresses="no addresses" not in name)
            takers = hold(used[0])
        stage.route_inward(used[0])
        found = stage.reach(5)
        bench.record(f"{case}: of {len(found)} ways carry packets", name, "ways", [sum(found.values())])
        after = stage.admin.list("port", network_id=stage.network["id"])
        bench.record(f"{case}: ports added there", name, "ports", [len(after) - len(before)])
        addresses = sum("." in ip["ip_address"] for port in after for ip in port["fixed_ips"])
        bench.record(f"{case}: IPv4 addresses in use there", name, "addresses", [addresses])
    finally:
        for taker in takers:
            taker.close()
    began = time.monotonic()
    for node in nodes:
        for interface in list(node.interfaces.values()):
            stage.attacher.release(node, interface)
    bench.record(f"{case}: release", name, "s", [time.monotonic() - began])


def ways(bench, lab):
    for number, (how, plan) in enumerate(CELLS):
        stage = Stage(lab, 60 + number, plan, how)
        try:
            nodes = [stage.attacher.make_node(number) for number in (0, 1)]
            for name in WAYS:
                if plan == "/29" or "no addresses" not in name:
                    cell(bench, stage, nodes, name)
        finally:
            stage.close()


def first_packet(bench, lab):
    """From the tenant's `router add subnet` to the first answer, the node being there; and the calls for it."""
    stage = Stage(lab, 70, "v4", interfaces=False)
    try:
        node = attach_single(lab, stage.router["id"])
        stage.route_outward(node)
        stage.route_inward(node)
        writes, counts, times, removals = Writes(stage.attacher.cloud), [], [], []
        for _ in range(3):
            writes.count, began = 0, time.monotonic()
            stage.add_interfaces()
            interface = stage.attacher.bind(node, stage.attacher.router_ports(INTERFACE)[0])
            stage.attacher.wait_up(node)
            stage.attacher.track_nothing(node)
            stage.attacher.announce(node, interface)
            times.append(stage.first_reply() - began)
            counts.append(writes.count)
            stage.red.put("router", stage.router["id"], "remove_router_interface", subnet_id=stage.subnets[0]["id"])
            began = time.monotonic()
            stage.attacher.release(node, interface)
            removals.append(time.monotonic() - began)
        bench.record("add subnet: to the first packet", "single, router's ports", "s", times)
        bench.record("add subnet: writing calls", "single, router's ports", "calls", counts)
        bench.record("remove subnet: after the tenant's call", "single, router's ports", "s", removals)
        times, counts, removals = [], [], []
        for _ in range(3):
            writes.count, began = 0, time.monotonic()
            stage.add_interfaces()
            (port,) = stage.attacher.router_ports(INTERFACE)
            interface = stage.attacher.add_own_port(node, "int", stage.network["id"], stage.attacher.addresses(port),
                                                   [{"subnet_id": stage.subnets[0]["id"]}])
            stage.attacher.track_nothing(node)
            (taker,) = hold(node)
            times.append(stage.first_reply() - began)
            counts.append(writes.count)
            taker.close()
            stage.red.put("router", stage.router["id"], "remove_router_interface", subnet_id=stage.subnets[0]["id"])
            began = time.monotonic()
            stage.attacher.release(node, interface)
            removals.append(time.monotonic() - began)
        bench.record("add subnet: to the first packet", "node of a pair", "s", times)
        bench.record("add subnet: writing calls", "node of a pair", "calls", counts)
        bench.record("remove subnet: after the tenant's call", "node of a pair", "s", removals)
    finally:
        stage.close()


def cable(stage, node, state):
    """Cuts a node's cables ("down"), or mends them ("up"): its configuration stays as it is."""
    names = [f"tap{parent[:11]}" for parent in node.parents.values()]
    stage.lab.sandbox.sh("\n".join(f"ip link set {name} {state}" for name in names))


def move(stage, nodes, takers, old, kind):
    """One change of master from nodes[old] to the other, under traffic.

    Returns {way: Loss} and {way: ms from the new master's claim to the first datagram}.
    """
    new = 1 - old
    flows = {f"IPv{version}": (stage.address(version), FAR[version]) for version in (4, 6)}
    # The first second is for whatever the previous move left behind.
    assert all(stage.reach().values()), f"no traffic before the move: {kind}"
    meter = LossMeter(stage.machine.host, stage.far.host, flows).start()
    time.sleep(1)
    if kind == "death":
        cable(stage, nodes[old], "down")
    claim = time.monotonic()
    if kind != "no move":
        takers[new]("acquire")
        stage.route_inward(nodes[new])
        takers[old]("release")
    time.sleep(2)
    result = meter.stop()
    if kind == "death":
        cable(stage, nodes[old], "up")
    return result, {way: (loss.first_after(claim) - claim) * 1000 for way, loss in result.items()}


def moves(bench, lab):
    stage = Stage(lab, 80, "dual")
    try:
        nodes = attach_pair(lab, stage.router["id"])
        stage.route_pair(nodes)
        inside = [node.on("int")[0] for node in nodes]
        macs = {ip["ip_address"]: port["mac_address"] for port in stage.interface_ports() for ip in port["fixed_ips"]}
        modes = {
            "own MAC": lambda address: None,
            "virtual MAC": lambda address: "00:00:5e:00:01:07" if address.version == 4 else "00:00:5e:00:02:07",
            "router port's MAC": lambda address: macs[str(address.ip)],
        }
        for mode, mac_of in modes.items():
            takers = [Takeover(node.host, one.name, [(address, mac_of(address)) for address in one.gateways])
                      for node, one in zip(nodes, inside)]
            takers[0]("acquire")
            stage.route_inward(nodes[0])
            master = 0
            for kind in ("no move", "planned", "death"):
                losses, silences = {}, {}
                for _ in range(MOVES if kind != "no move" else 2):
                    result, silent = move(stage, nodes, takers, master, kind)
                    master = master if kind == "no move" else 1 - master
                    for (family, way), loss in result.items():
                        name = f"{family} {'out' if way == 'a>b' else 'in'}"
                        losses.setdefault(name, []).append(loss.lost * 10)
                        silences.setdefault(name, []).append(silent[family, way])
                for name, values in losses.items():
                    bench.record(f"{kind}, {name}: loss", mode, "ms", values)
                if kind == "death":
                    # The loss has the time in it that the script takes to cut the cables; this has not.
                    for name in ("IPv4 out", "IPv6 out"):
                        bench.record(f"{kind}, {name}: claim to first packet", mode, "ms", silences[name])
            takers[master]("release")
            for taker, node in zip(takers, nodes):
                taker.close()
                node.host.sh("for device in gw0 gw1; do ip link del $device 2>/dev/null || true; done")
                stage.route_pair([node])
    finally:
        stage.close()


def run(bench):
    lab = Lab(os.environ.get("TSUJI_LAB", "lab"))
    parts = os.environ.get("TSUJI_ATTACH", "ways,moves").split(",")
    if "moves" in parts:
        moves(bench, lab)
    if "ways" in parts:
        first_packet(bench, lab)
        ways(bench, lab)
