"""A stand-in for a router node: plain Linux and FRR, configured from the same facts as Tsuji's own node will be.

It has one interface on the VRF network, from which it peers with every admin router, and one on each tenant network,
which it announces with the tenant's own addresses. No NAT.
"""
from .datacentre import ADMIN_AS, as_number, enable_routing, router_id, source_config
from .frr import FRR


class PlainNode:
    """On `host`, whose interfaces exist and have their addresses.

    mac: the MAC from which AS number and router-id follow. vrf: its own addresses on the VRF network (ip_interface).
    admins: the admin routers' addresses there. tenants: its addresses on tenant networks (ip_interface, gateways).
    """

    def __init__(self, host, mac, vrf, admins, tenants):
        self.host, self.mac, self.vrf, self.admins, self.tenants = host, mac, vrf, admins, tenants
        self.as_number = as_number(mac)
        enable_routing(host)
        sources = {}
        for address in tenants:
            sources.setdefault(address.version, address.ip)
        self.frr = FRR(host, zebra=source_config(sources), bgpd=self._config())

    def start(self):
        """Starts FRR and waits for the session with every admin router."""
        self.frr.start()
        for admin in self.admins:
            self.frr.established(str(admin.ip))
        return self

    def _config(self):
        lines = []
        for version, keyword in ((4, "ip"), (6, "ipv6")):
            # Only the tenant's own networks leave (R22), each exactly: no default route, nothing shorter or longer.
            mine = [address.network for address in self.tenants if address.version == version]
            lines += [f"{keyword} prefix-list mine permit {network}" for network in mine] or \
                     [f"{keyword} prefix-list mine deny any"]
            lines += [f"route-map announce{version} permit 10", f" match {keyword} address prefix-list mine"]
        lines += [
            f"router bgp {self.as_number}",
            f" bgp router-id {router_id(self.mac)}",
            " no bgp default ipv4-unicast",
            " bgp bestpath as-path multipath-relax",
            " timers bgp 3 9"]
        for version in (4, 6):
            neighbors = [admin.ip for admin in self.admins if admin.version == version]
            for neighbor in neighbors:
                # Listeners never dial, and FRR's own retry is two minutes.
                lines += [f" neighbor {neighbor} remote-as {ADMIN_AS}", f" neighbor {neighbor} timers connect 1"]
            lines += [f" address-family ipv{version} unicast"]
            lines += [f"  network {address.network}" for address in self.tenants if address.version == version]
            for neighbor in neighbors:
                lines += [f"  neighbor {neighbor} activate",
                          f"  neighbor {neighbor} route-map announce{version} out",
                          f"  neighbor {neighbor} route-map accept in"]
            lines += [" exit-address-family"]
        # What the data centre offers in this VRF is for it to decide (R05).
        return "\n".join([*lines, "route-map accept permit 10"])
