"""How a node takes the place of a flavored Neutron router: the facts on which docs/decisions/0004-attach.md rests.

The record tells the figures, `make bench SUITE=attach` measures them; here stands what must stay true.
"""
import contextlib

import pytest
from attach_scenario import FAR, Stage, replied
from lab_fixture import lab  # noqa: F401  (fixture)
from tsujilab.cloud import neutron
from tsujilab.cloud.api import ApiError
from tsujilab.cloud.attach import PORT_GROUP, attach_pair, attach_single
from tsujilab.loss import LossMeter
from tsujilab.sandbox import until
from tsujilab.takeover import Takeover

pytestmark = pytest.mark.lab


@pytest.fixture
def stage(lab, request):  # noqa: F811
    """Makes a Stage and removes it after the test: stage(number, plan, how)."""
    with contextlib.ExitStack() as stack:
        def make(*arguments, **options):
            made = Stage(lab, *arguments, **options)
            stack.callback(made.close)
            return made
        yield make


def status_of(call):
    """The HTTP status with which a call is refused, None when it is not."""
    try:
        call()
    except ApiError as error:
        return error.status
    return None


def neighbour(host, address):
    """The MAC that answers for an address, asked anew; None when nothing answers."""
    host.run(f"ip neigh flush to {address}", check=False)
    host.run(f"ping -n -c 1 -W 2 {address}", check=False)
    found = [row.get("lladdr") for row in host.json(f"ip -j neigh show to {address}")]
    return next((mac for mac in found if mac), None)


def gateways(stage):
    return {subnet["ip_version"]: subnet["gateway_ip"] for subnet in stage.subnets}


def logical_port(lab, port_id, column):  # noqa: F811
    return lab.sandbox.out(["ovn-nbctl", "get", "logical_switch_port", port_id, column]).strip()


def seen_by_tenant(stage):
    """What the tenant's `port list` shows on its network and is not its machine's or the network's own DHCP port."""
    ports = stage.red.list("port", network_id=stage.network["id"])
    return [port for port in ports if port["id"] != stage.port["id"] and port["device_owner"] != "network:distributed"]


@contextlib.contextmanager
def traffic(stage):
    """Datagrams between machine and far side in each direction and family; yields a dict that is filled at the end."""
    flows = {f"IPv{version}": (stage.address(version), FAR[version]) for version in stage.versions()}
    result, meter = {}, LossMeter(stage.machine.host, stage.far.host, flows).start()
    try:
        yield result
    finally:
        result.update(meter.stop())


def repair(lab):  # noqa: F811
    lab.run(["neutron-ovn-db-sync-util", *neutron.config(False), "--ovn-neutron_sync_mode", "repair"], "attach-sync",
            env=neutron.ENV, timeout=300)


@pytest.mark.proves("R06")
def test_single_node(lab, stage):  # noqa: F811
    """A single node takes over a router's own ports: both families, invisible to the tenant, removable at once"""
    made = stage(41, "dual")
    ports = made.interface_ports()
    assert [logical_port(lab, port["id"], "addresses") for port in ports] == ["[unknown]"] * 2
    assert [neighbour(made.machine.host, gateway) for gateway in gateways(made).values()] == [None, None]
    node = attach_single(lab, made.router["id"])
    made.route_outward(node)
    made.route_inward(node)
    assert all(made.reach().values())
    assert neighbour(made.machine.host, gateways(made)[4]) == ports[0]["mac_address"]
    assert {port["device_owner"] for port in seen_by_tenant(made)} == {"network:router_interface"}
    assert [status_of(lambda port=port: made.red.delete("port", port["id"])) for port in ports] == [409, 409]

    # Neutron's repair of OVN's database leaves all of it standing, our port group too.
    with traffic(made) as loss:
        repair(lab)
    assert {way: one.lost for way, one in loss.items()} == dict.fromkeys(loss, 0)
    members = lab.sandbox.out(["ovn-nbctl", "--bare", "--columns=ports", "find", "port_group", f"name={PORT_GROUP}"])
    assert logical_port(lab, ports[0]["id"], "_uuid") in members.split()
    assert logical_port(lab, ports[0]["id"], "parent_name") == f'"{node.parents["int"]}"'

    # Each router port is an interface of its own: to remove IPv6 does not touch IPv4.
    with traffic(made) as loss:
        made.red.put("router", made.router["id"], "remove_router_interface", subnet_id=made.subnets[1]["id"])
    assert loss["IPv4", "a>b"].lost == loss["IPv4", "b>a"].lost == 0
    made.red.put("router", made.router["id"], "remove_router_interface", subnet_id=made.subnets[0]["id"])
    made.machine.delete()
    made.red.delete("port", made.port["id"])
    assert status_of(lambda: made.red.delete("network", made.network["id"])) is None


def test_added_port(lab, stage):  # noqa: F811
    """A port that the tenant made and added keeps its addresses in OVN: silent while unbound, OVN answers once bound"""
    made = stage(42, "dual", "port")
    (port,) = made.interface_ports()
    assert port["mac_address"] in logical_port(lab, port["id"], "addresses")
    assert "unknown" not in logical_port(lab, port["id"], "addresses")
    gateway = gateways(made)[4]
    # Neutron's own setting ([ovn_nb_global] ignore_lsp_down, false by default) keeps OVN from giving out the MAC of a
    # port behind which there is nobody.
    assert neighbour(made.machine.host, gateway) is None
    lab.sandbox.run(["ovn-nbctl", "--wait=hv", "set", "nb_global", ".", "options:ignore_lsp_down=true"])
    try:
        assert neighbour(made.machine.host, gateway) == port["mac_address"]
    finally:
        lab.sandbox.run(["ovn-nbctl", "--wait=hv", "set", "nb_global", ".", "options:ignore_lsp_down=false"])
    node = attach_single(lab, made.router["id"])
    made.route_outward(node)
    made.route_inward(node)
    assert all(made.reach().values())
    # The node is deaf now, and yet there is an answer.
    node.host.run(f"ip link set {node.on('int')[0].name} down")
    assert neighbour(made.machine.host, gateway) == port["mac_address"]


def test_subnet_router_anycast(sandbox):
    """A Linux router answers for the lowest address of a prefix in which it has any address, unless that is a /128"""
    tenant, standby = sandbox.host("tenant"), sandbox.host("standby")
    sandbox.link(tenant, "eth0", standby, "eth0")
    tenant.run("ip addr add 2001:db8:1::9/64 dev eth0 nodad")
    standby.sh("sysctl -qw net.ipv6.conf.all.forwarding=1; ip addr add 2001:db8:1::5/64 dev eth0 nodad")
    until(lambda: neighbour(tenant, "2001:db8:1::"), "an answer for the anycast address")
    standby.sh("""
        ip addr del 2001:db8:1::5/64 dev eth0
        ip addr add 2001:db8:1::5/128 dev eth0 nodad
        ip -6 route add 2001:db8:1::/64 dev eth0""")
    assert neighbour(tenant, "2001:db8:1::") is None
    assert neighbour(tenant, "2001:db8:1::5")


@pytest.mark.proves("R23")
def test_pair(lab, stage):  # noqa: F811
    """A pair moves the router's addresses without loss; answers may return through the other node"""
    made = stage(43, "dual")
    nodes = attach_pair(lab, made.router["id"])
    made.route_pair(nodes)
    # The standby has no IPv6 address in the tenant's prefix, so it does not answer for Neutron's default gateway,
    # which is the subnet-router anycast address.
    assert gateways(made)[6].endswith("::")
    assert [neighbour(made.machine.host, gateway) for gateway in gateways(made).values()] == [None, None]
    inside = [node.on("int")[0] for node in nodes]
    takers = [Takeover(node.host, one.name, [(address, None) for address in one.gateways])
              for node, one in zip(nodes, inside)]
    try:
        takers[0]("acquire")
        made.route_inward(nodes[0])
        assert all(made.reach().values())
        assert {neighbour(made.machine.host, gateway) for gateway in gateways(made).values()} == {inside[0].mac}

        with traffic(made) as loss:
            takers[1]("acquire")
            takers[0]("release")
        assert {way: one.lost for way, one in loss.items()} == dict.fromkeys(loss, 0)
        assert {neighbour(made.machine.host, gateway) for gateway in gateways(made).values()} == {inside[1].mac}

        # Outward through node 1, inward still through node 0.
        assert all(made.reach().values())
        rows = lab.sandbox.out(["ovn-nbctl", "get", "port_group", PORT_GROUP, "ports"]).strip()
        lab.sandbox.run(["ovn-nbctl", "--wait=hv", "clear", "port_group", PORT_GROUP, "ports"])
        until(lambda: not replied(made.machine.host, made.address(4), FAR[4], 0),
              "OVN's connection tracking to drop answers that come through the other node", 10)
        lab.sandbox.run(["ovn-nbctl", "--wait=hv", "set", "port_group", PORT_GROUP, f"ports={rows}"])
        assert replied(made.machine.host, made.address(4), FAR[4], 10)
    finally:
        for taker in takers:
            taker.close()

    foreign = [port for port in seen_by_tenant(made) if port["project_id"] != made.red.project]
    assert {port["id"] for port in foreign} == {one.port["id"] for one in inside}
    assert [status_of(lambda port=port: made.red.delete("port", port["id"])) for port in foreign] == [409, 409]
    renamed = [status_of(lambda port=port: made.red.update("port", port["id"], name="mine")) for port in foreign]
    assert renamed == [403, 403]
    for port in made.interface_ports():
        made.red.put("router", made.router["id"], "remove_router_interface", port_id=port["id"])
    made.machine.delete()
    made.red.delete("port", made.port["id"])
    assert status_of(lambda: made.red.delete("network", made.network["id"])) == 409
    for node, one in zip(nodes, inside):
        made.attacher.release(node, one)
    assert status_of(lambda: made.red.delete("network", made.network["id"])) is None
