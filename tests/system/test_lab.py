"""The lab itself: accounts, tenants apart from each other, the driver, machines with real packets."""

import re

import pytest
from tsujilab.cloud import keystone, manage
from tsujilab.cloud.api import ApiError, Cloud
from tsujilab.cloud.ovn import NB
from tsujilab.sandbox import until

pytestmark = pytest.mark.lab
SERVER = """
import socket, sys
s = socket.create_server(("::", 5001), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
c, _ = s.accept()
n = 0
while data := c.recv(65536):
    n += len(data)
c.sendall(str(n).encode())
"""
CLIENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], 5001), 10)
s.sendall(b"x" * 1000000)
s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode())
"""


def openstack(lab, command, user="red"):
    """The real openstack command as one of the accounts."""
    return lab.sandbox.out(f"env OS_CLOUD={user} openstack {command}", timeout=120)


def refused(call, *arguments, **fields):
    """The HTTP status with which a call is refused, 0 when it is not."""
    try:
        call(*arguments, **fields)
    except ApiError as error:
        return error.status
    return 0


def driver_log(lab, router):
    """What the driver wrote about a router: the events in order."""
    text = "".join(service.log(lab).read_text() for service in manage.services() if service.name == "neutron")
    return re.findall(rf"networking_tsuji\.driver .*Tsuji router {router}.*?: (\w+)$", text, re.MULTILINE)


def logical_router(lab, router):
    return lab.sandbox.out(
        f"ovn-nbctl --db={NB} --bare --columns=name find logical_router name=neutron-{router}"
    ).strip()


def transfer(source, target, address):
    """Sends 1,000,000 bytes by TCP and returns how many the other machine counted."""
    server = target.host.start(["python3", "-c", SERVER], "tcp-server")
    until(lambda: "listening" in server.output() or not server.alive, "the server", 10)
    return int(source.host.out(["python3", "-c", CLIENT, address]))


def test_accounts(lab):
    """Every account of the lab gets a token with just its own roles"""
    for user, (_, roles) in keystone.ACCOUNTS.items():
        if user in ("red", "blue", "tsuji"):
            cloud = Cloud(lab, user)
            cloud.log_in()
            assert cloud.roles == sorted({*roles, "reader"})
            assert openstack(lab, "token issue -f value -c project_id", user).strip() == cloud.project
    assert "admin" in openstack(lab, "role assignment list --names -f value -c Role --user admin", "admin")


@pytest.mark.proves("R08")
def test_tenants_are_apart(lab, scratch):
    """A tenant sees neither another tenant's nor the service project's networks, ports and routers"""
    red, blue, tsuji = scratch.cloud, Cloud(lab, "blue"), Cloud(lab, "tsuji")
    network, (subnet,) = scratch.network("10.1.0.0/24")
    router = scratch.router(subnet, flavor="tsuji")
    port = scratch.port(network)
    shadow = scratch.make("network", cloud=tsuji, name=scratch.name("shadow"))
    shadow_port = scratch.make("port", cloud=tsuji, network_id=shadow["id"], port_security_enabled=False)
    for kind, made in (("network", network), ("subnet", subnet), ("port", port), ("router", router)):
        key = made["id"]
        assert red.show(kind, key)["id"] == key
        assert refused(blue.show, kind, key) == 404
        assert refused(blue.delete, kind, key) == 404
        assert key not in [found["id"] for found in blue.list(kind)]
    for tenant in (red, blue):
        assert refused(tenant.show, "network", shadow["id"]) == 404
        assert refused(tenant.show, "port", shadow_port["id"]) == 404
        assert shadow_port["id"] not in [found["id"] for found in tenant.list("port")]


@pytest.mark.proves("R06")
def test_flavored_router_reaches_the_driver(lab, scratch):
    """openstack router create --flavor tsuji, add subnet, remove, delete reach the driver; OVN makes no router"""
    _, (subnet,) = scratch.network("10.1.0.0/24")
    name = scratch.name("flavored")
    router = openstack(lab, f"router create --flavor tsuji {name} -f value -c id").split()[-1]
    try:
        openstack(lab, f"router add subnet {name} {subnet['id']}")
        assert driver_log(lab, router) == ["after_create", "after_create"]
        assert logical_router(lab, router) == ""
        openstack(lab, f"router remove subnet {name} {subnet['id']}")
    finally:
        openstack(lab, f"router delete {name}")
    assert driver_log(lab, router) == ["after_create", "after_create", "after_delete", "after_delete"]


@pytest.mark.proves("R07")
def test_plain_router_stays_ovns(lab, scratch):
    """A router without a flavor is OVN's, with its NAT; the driver leaves it alone"""
    name = scratch.name("plain")
    router = openstack(lab, f"router create {name} -f value -c id").split()[-1]
    try:
        assert logical_router(lab, router) == f"neutron-{router}"
    finally:
        openstack(lab, f"router delete {name}")
    assert driver_log(lab, router) == []
    assert logical_router(lab, router) == ""


@pytest.mark.parametrize("ra_mode", ["slaac", "dhcpv6-stateful"])
def test_machines_exchange_packets(lab, scratch, ra_mode):
    """Two machines of one network get their addresses by OVN's DHCP and advertisements; ICMP and TCP pass"""
    network, subnets = scratch.network("10.1.0.0/24", "2001:db8:1::/64", ra_mode=ra_mode)
    scratch.router(*subnets)
    group = scratch.open_ports()
    ports = [scratch.port(network, security_groups=group) for _ in range(2)]
    machines = [scratch.machine(port) for port in ports]
    for machine, port in zip(machines, ports):
        wanted = {fixed["ip_address"] for fixed in port["fixed_ips"]}
        interface = machine.describe()[0]
        assert {address.split("/")[0] for address in interface["addresses"]} == wanted
        assert (interface["mac"], interface["mtu"]) == (port["mac_address"], network["mtu"])
        assert scratch.cloud.show("port", port["id"])["status"] == "ACTIVE"
    for fixed in ports[1]["fixed_ips"]:
        address = fixed["ip_address"]
        until(lambda address=address: machines[0].host.ping(address), f"echo replies from {address}", 10)
        # The biggest packet, unfragmented: the MTU is true.
        assert machines[0].host.ping(address, size=network["mtu"] - (48 if ":" in address else 28), options="-M do")
        assert transfer(machines[0], machines[1], address) == 1000000


def test_security_groups_hold(lab, scratch):
    """A machine whose security group lets nothing in is not reachable, and reaches others"""
    network, _ = scratch.network("10.1.0.0/24")
    closed = scratch.port(network, security_groups=[scratch.make("security_group", name=scratch.name("closed"))["id"]])
    opened = scratch.port(network, security_groups=scratch.open_ports())
    inside, outside = scratch.machine(closed), scratch.machine(opened)
    assert inside.host.ping(opened["fixed_ips"][0]["ip_address"])
    assert not outside.host.ping(closed["fixed_ips"][0]["ip_address"])


@pytest.mark.proves("R13")
def test_trunk_machine(lab, scratch):
    """A trunk's machine is on two more networks by VLAN, one added while it runs, and loses one again"""
    parent_network, _ = scratch.network("10.1.0.0/24")
    networks = [scratch.network(f"10.{number}.0.0/24")[0] for number in (2, 3)]
    group = scratch.open_ports()
    parent = scratch.port(parent_network, security_groups=group)
    subports = [scratch.port(network, security_groups=group) for network in networks]
    peers = [scratch.port(network, security_groups=group) for network in networks]
    sub = [
        {"port_id": port["id"], "segmentation_type": "vlan", "segmentation_id": 101 + n}
        for n, port in enumerate(subports)
    ]
    trunk = scratch.make("trunk", port_id=parent["id"], sub_ports=sub[:1])
    machine = scratch.machine(parent, trunk=True)
    assert [row["interface"] for row in machine.describe()] == ["eth0", "eth0.101"]
    scratch.cloud.put("trunk", trunk["id"], "add_subports", sub_ports=sub[1:])
    machine.sync_trunk()
    for peer in peers:
        assert machine.host.ping(peer["fixed_ips"][0]["ip_address"]) is False
        scratch.machine(peer)
        assert machine.host.ping(peer["fixed_ips"][0]["ip_address"], size=1414, options="-M do")
    scratch.cloud.put("trunk", trunk["id"], "remove_subports", sub_ports=[{"port_id": subports[0]["id"]}])
    machine.sync_trunk()
    assert [row["interface"] for row in machine.describe()] == ["eth0", "eth0.102"]


@pytest.fixture
def account(lab):
    """account(*roles): a cloud client of a new user in the service project with just these roles."""
    admin, made = Cloud(lab, "admin"), []

    def make(*roles):
        name = f"trial-{'-'.join(roles)}"
        project = keystone.ensure(admin, "projects", "tsuji")
        user = keystone.ensure(admin, "users", name, domain_id="default", password="secret")
        made.append(user)
        for role in roles:
            admin.call(
                "identity", "PUT", f"/projects/{project}/users/{user}/roles/{keystone.ensure(admin, 'roles', role)}"
            )
        return Cloud(lab, name, "tsuji")

    yield make
    for user in made:
        admin.call("identity", "DELETE", f"/users/{user}")


def test_the_service_account_needs_each_role(lab, scratch, account):
    """The service project's account can do its work with the roles member and service, and with neither alone"""
    network, (subnet,) = scratch.network("10.1.0.0/24")
    router = scratch.router(subnet, flavor="tsuji")
    (port,) = scratch.cloud.list("port", device_id=router["id"])

    def own_network(cloud):
        scratch.make("network", cloud=cloud, name=scratch.name("shadow"))

    def own_trunk(cloud):
        shadow = scratch.make("network", cloud=Cloud(lab, "tsuji"), name=scratch.name("shadow"))
        parent = scratch.make("port", cloud=cloud, network_id=shadow["id"], port_security_enabled=False)
        scratch.make("trunk", cloud=cloud, port_id=parent["id"])

    calls = {
        "own network": own_network,
        "own trunk": own_trunk,
        "flavor": lambda cloud: cloud.show("flavor", router["flavor_id"]),
        "router": lambda cloud: cloud.show("router", router["id"]),
        "subnet": lambda cloud: cloud.show("subnet", subnet["id"]),
        "tenant's port": lambda cloud: cloud.show("port", port["id"]),
        "binding:profile": lambda cloud: cloud.update("port", port["id"], binding__profile={}),
        "port on tenant's network": lambda cloud: scratch.make(
            "port", cloud=cloud, network_id=network["id"], port_security_enabled=False
        ),
    }

    def failing(cloud):
        return {what for what, call in calls.items() if refused(call, cloud)}

    assert failing(Cloud(lab, "tsuji")) == set()
    assert failing(account("service")) == {"own network", "own trunk", "flavor"}
    assert failing(account("member")) == {
        "router",
        "subnet",
        "tenant's port",
        "binding:profile",
        "port on tenant's network",
    }


def test_the_service_account_has_no_more(lab, scratch):
    """The service project's account can't change routers, quotas, or make provider networks"""
    network, (subnet,) = scratch.network("10.1.0.0/24")
    router = scratch.router(subnet, flavor="tsuji")
    tsuji = Cloud(lab, "tsuji")
    assert refused(tsuji.update, "router", router["id"], description="x") == 403
    assert refused(tsuji.delete, "router", router["id"]) == 403
    assert refused(tsuji.delete, "subnet", subnet["id"]) == 403
    assert refused(tsuji.update, "network", network["id"], name="x") == 403
    assert refused(tsuji.create, "network", provider__network_type="vlan", provider__physical_network="physnet1") == 403
    assert refused(tsuji.call, "network", "PUT", f"/quotas/{scratch.cloud.project}", {"quota": {"port": 1}}) == 403
