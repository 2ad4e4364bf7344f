"""Real servers in the lab: Nova, libvirt and QEMU."""

import pytest
from tsujilab.cloud import manage
from tsujilab.sandbox import until

pytestmark = pytest.mark.lab


@pytest.fixture
def nova(lab):
    """The lab, which must have been started with Nova."""
    if not manage.has_nova(lab):
        pytest.skip(f"the lab '{lab.name}' runs without Nova: lab/lab up --nova")
    return lab


def openstack(lab, command):
    return lab.sandbox.out(f"env OS_CLOUD=red openstack {command}", timeout=400)


def test_server_answers(nova, scratch):
    """openstack server create boots a server that answers pings by IPv4 and IPv6 and runs its user data"""
    network, subnets = scratch.network("10.1.0.0/24", "2001:db8:1::/64")
    scratch.router(*subnets)
    port = scratch.port(network, security_groups=scratch.open_ports())
    machine = scratch.machine(scratch.port(network))
    name = scratch.name("server")
    script = nova.path(f"/tmp/{name}")
    script.write_text("echo user data has run on $(hostname)\n")
    create = f"server create --image tiny --flavor tiny --port {port['id']} --user-data /tmp/{name} --wait {name}"
    try:
        assert "ACTIVE" in openstack(nova, f"{create} -f value -c status")
        for fixed in port["fixed_ips"]:
            address = fixed["ip_address"]
            until(lambda address=address: machine.host.ping(address), f"echo replies from {address}", 120)
        until(lambda: "tiny: ready" in openstack(nova, f"console log show {name}"), "the server to be ready", 120, 2)
        assert "user data has run" in openstack(nova, f"console log show {name}")
        assert scratch.cloud.show("port", port["id"])["status"] == "ACTIVE"
    finally:
        openstack(nova, f"server delete --wait {name}")
