"""How a machine gets its addresses, as its operating system would: DHCP, router advertisements, DHCPv6."""

from tsujilab.cloud.instance import CONF, RUN, LabError
from tsujilab.sandbox import until

SLAAC, STATELESS, STATEFUL = "slaac", "dhcpv6-stateless", "dhcpv6-stateful"


def configure(machine, interface, cloud, port, how):
    """Gives an interface the addresses of a Neutron port. how: "dhcp", or "port" to set them without asking."""
    subnets = {fixed["subnet_id"]: cloud.show("subnet", fixed["subnet_id"]) for fixed in port["fixed_ips"]}
    for version in (4, 6):
        fixed = [
            (f["ip_address"], subnets[f["subnet_id"]])
            for f in port["fixed_ips"]
            if subnets[f["subnet_id"]]["ip_version"] == version
        ]
        for address, subnet in fixed:
            length = subnet["cidr"].split("/")[1]
            if how == "port" or not subnet["enable_dhcp"]:
                machine.host.run(
                    [
                        "ip",
                        "addr",
                        "replace",
                        f"{address}/{length}",
                        "dev",
                        interface,
                        *(["nodad"] if version == 6 else []),
                    ]
                )
                gateway = subnet["gateway_ip"]
                if how == "port" and gateway and gateway != address:
                    machine.host.run(
                        ["ip", f"-{version}", "route", "replace", "default", "via", gateway, "dev", interface]
                    )
        if how == "dhcp" and version == 4 and any(subnet["enable_dhcp"] for _, subnet in fixed):
            dhclient(machine, interface, 4)
        if how == "dhcp" and version == 6 and any(subnet["ipv6_address_mode"] == STATEFUL for _, subnet in fixed):
            dhclient(machine, interface, 6)
    if (
        how == "dhcp"
        and any(subnet["ipv6_address_mode"] in (SLAAC, STATELESS) for subnet in subnets.values())
        and advertised(cloud, subnets)
    ):
        wait_advertised(machine, interface)


def advertised(cloud, subnets):
    """Whether OVN sends router advertisements for one of the subnets: a router without a flavor has an interface there.
    (For other routers a machine does not wait: its address comes when their first advertisement does.)"""
    for subnet in subnets.values():
        for port in cloud.list("port", network_id=subnet["network_id"], device_owner="network:router_interface"):
            if any(f["subnet_id"] == subnet["id"] for f in port["fixed_ips"]) and subnet["ip_version"] == 6:
                if not cloud.show("router", port["device_id"])["flavor_id"]:
                    return True
    return False


def wait_advertised(machine, interface):
    """Waits until the interface has a usable global IPv6 address; LabError after 15 s."""

    def usable():
        rows = machine.host.json(f"ip -j -6 addr show dev {interface} scope global")
        found = [address for row in rows for address in row.get("addr_info", [])]
        return found and not any(address.get("tentative") for address in found)

    try:
        until(usable, f"a router advertisement on {interface} of {machine.name}", 15)
    except TimeoutError as error:
        raise LabError(f"{error}: OVN should send one; see 'lab/lab logs ovn-controller'") from error


def dhclient(machine, interface, version):
    """Runs a DHCP client until it has a lease; it goes on in the background to renew it. LabError when none comes."""
    base = f"{RUN}/dhcp-{machine.name}-{interface}-{version}"
    if version == 6:
        # The client sends from the link-local address, which must have passed duplicate address detection.
        until(
            lambda: (
                (
                    row := [
                        a
                        for a in machine.host.json(f"ip -j -6 addr show dev {interface} scope link")[0]["addr_info"]
                        if a
                    ]
                )
                and not any(a.get("tentative") for a in row)
            ),
            f"link-local address of {interface}",
            10,
        )
    result = machine.host.run(
        [
            "dhclient",
            f"-{version}",
            "-1",
            "-cf",
            f"{CONF}/dhclient.conf",
            "-sf",
            f"{CONF}/dhclient-script",
            "-pf",
            f"{base}.pid",
            "-lf",
            f"{base}.leases",
            interface,
        ],
        check=False,
        timeout=60,
    )
    if result.returncode:
        raise LabError(
            f"machine {machine.name}: no DHCPv{version} lease on {interface}: {result.stderr.strip()[-400:]}"
        )
