"""How a machine gets its addresses, as its operating system would: DHCP, router advertisements, DHCPv6."""
from tsujilab.cloud.instance import CONF, RUN, LabError
from tsujilab.sandbox import until

SLAAC, STATEFUL = "slaac", "dhcpv6-stateful"


def configure(machine, interface, cloud, port, how):
    """Gives an interface the addresses of a Neutron port. how: "dhcp", or "port" to set them without asking."""
    subnets = {fixed["subnet_id"]: cloud.show("subnet", fixed["subnet_id"]) for fixed in port["fixed_ips"]}
    for version in (4, 6):
        fixed = [(f["ip_address"], subnets[f["subnet_id"]]) for f in port["fixed_ips"]
                 if subnets[f["subnet_id"]]["ip_version"] == version]
        for address, subnet in fixed:
            length = subnet["cidr"].split("/")[1]
            if how == "port" or not subnet["enable_dhcp"]:
                machine.host.run(["ip", "addr", "replace", f"{address}/{length}", "dev", interface, *(["nodad"] if version == 6 else [])])
                gateway = subnet["gateway_ip"]
                if how == "port" and gateway and gateway != address:
                    machine.host.run(["ip", f"-{version}", "route", "replace", "default", "via", gateway, "dev", interface])
        if how == "dhcp" and version == 4 and any(subnet["enable_dhcp"] for _, subnet in fixed):
            dhclient(machine, interface, 4)
        if how == "dhcp" and version == 6 and any(subnet["ipv6_address_mode"] == STATEFUL for _, subnet in fixed):
            dhclient(machine, interface, 6)


def dhclient(machine, interface, version):
    """Runs a DHCP client until it has a lease; it goes on in the background to renew it. LabError when none comes."""
    base = f"{RUN}/dhcp-{machine.name}-{interface}-{version}"
    if version == 6:
        # The client sends from the link-local address, which must have passed duplicate address detection.
        until(lambda: (row := [a for a in machine.host.json(f"ip -j -6 addr show dev {interface} scope link")[0]["addr_info"] if a]) and
              not any(a.get("tentative") for a in row), f"link-local address of {interface}", 10)
    result = machine.host.run(["dhclient", f"-{version}", "-1",
                               "-cf", f"{CONF}/dhclient.conf", "-sf", f"{CONF}/dhclient-script",
                               "-pf", f"{base}.pid", "-lf", f"{base}.leases", interface], check=False, timeout=60)
    if result.returncode:
        raise LabError(f"machine {machine.name}: no DHCPv{version} lease on {interface}: {result.stderr.strip()[-400:]}")
