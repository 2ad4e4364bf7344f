"""The data centre of the lab, and the stand-in node, on one bridge: what the demo shows, without an OpenStack."""
from ipaddress import ip_interface

import pytest
from tsujilab.datacentre import SERVER_NETWORKS, DataCentre, add_addresses
from tsujilab.plain_node import PlainNode
from tsujilab.sandbox import until

MAC = "12:34:56:de:10:3f"
TENANT = (ip_interface("10.1.0.1/24"), ip_interface("2001:db8:7:1::1/64"))
VRF = (ip_interface("169.254.1.5/22"), ip_interface("fd00:a9fe::1:5/64"))


def plug_into_bridge(sandbox):
    """A VRF network that is a bridge; returns the plug() that DataCentre wants."""
    sandbox.sh("ip link add vrfnet type bridge; ip link set dev vrfnet up")
    count = iter(range(100))

    def plug(host, interface):
        port = f"vrf{next(count)}"
        sandbox.link(sandbox, port, host, interface)
        sandbox.run(f"ip link set dev {port} master vrfnet")
    return plug


@pytest.mark.proves("R01", "R02", "R03", "R18", "R20", "R21")
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_tenant_is_reached_without_nat(make_sandbox, release):
    """A tenant and a server behind the top-of-rack switch reach each other over two admin routers, IPv4 and IPv6."""
    sandbox = make_sandbox(release=release)
    plug = plug_into_bridge(sandbox)
    centre = DataCentre(sandbox, plug)

    host, machine = sandbox.host("node"), sandbox.host("machine")
    plug(host, "vrf")
    add_addresses(host, "vrf", *VRF)
    sandbox.link(host, "tenant", machine, "eth0")
    add_addresses(host, "tenant", *TENANT)
    for gateway in TENANT:
        add_addresses(machine, "eth0", ip_interface(f"{gateway.ip + 9}/{gateway.network.prefixlen}"))
        machine.run(f"ip -{gateway.version} route add default via {gateway.ip}")
    node = PlainNode(host, MAC, centre.admin_addresses(), {"tenant": TENANT})
    # The admin routers run first and are told nothing of the node: it is a dynamic neighbour.
    centre.start()
    node.start()
    assert node.as_number == 4214553151

    for address, network in zip(TENANT, SERVER_NETWORKS):
        server, machine_ip = network[10], address.ip + 9
        until(lambda server=server: machine.ping(server), f"the machine to reach {server}")
        until(lambda machine_ip=machine_ip: centre.server.ping(machine_ip), f"the server to reach {machine_ip}")
        route = until(lambda network=network, address=address: len(
            host.json(f"ip -json -{address.version} route show {network}")[0].get("nexthops", [])) == 2,
            f"two next hops to {network} in the node")
        assert route
        # What the node itself sends to the data centre, ICMP errors too, comes from its tenant address.
        assert f"src {address.ip} " in host.out(f"ip route get {server}")
        # The server sees the tenant's own address.
        seen = who_asks(centre.server, machine, server)
        assert seen == str(machine_ip)
    tor = centre.tor.frr.json("show bgp ipv4 unicast 10.1.0.0/24 json")
    assert tor["paths"][0]["aspath"]["string"] == "65010 4214553151"


def who_asks(server, client, address):
    """The address from which `server` sees a TCP connection of `client`."""
    bracketed = f"[{address}]" if address.version == 6 else str(address)
    family = "TCP6" if address.version == 6 else "TCP4"
    listener = server.start(["socat", f"{family}-LISTEN:7777,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"], "socat")
    try:
        answer = until(lambda: client.out(["socat", "-u", f"{family}:{bracketed}:7777", "-"]).strip(), "an answer", 10)
    finally:
        listener.kill()
    if address.version == 6:
        return str(ip_interface(answer.strip("[]")).ip)
    return answer
