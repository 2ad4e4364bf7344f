"""A stand-in for a router node: plain Linux and FRR, configured from the same facts as Tsuji's own node will be.

It has one interface on the VRF network, from which it peers with every admin router, and interfaces on tenants'
networks, which it announces with the tenant's own addresses. No NAT.
"""
from .datacentre import ADMIN_AS, as_number, enable_routing, router_id, source_config
from .frr import FRR


class PlainNode:
    """On `host`, whose interfaces exist and have their addresses.

    mac: the MAC from which AS number and router-id follow. admins: the admin routers' addresses on the VRF network.
    tenants: {interface: [its addresses as ip_interface]}. advertise: the interfaces on which hosts are to configure
    IPv6 themselves (SLAAC), so that router advertisements are sent there.
    """

    def __init__(self, host, mac, admins, tenants, advertise=()):
        self.host, self.mac, self.admins, self.tenants, self.advertise = host, mac, admins, tenants, advertise
        self.as_number = as_number(mac)
        enable_routing(host)
        self.frr = FRR(host, zebra=self._zebra_config(), bgpd=self._bgpd_config())

    def start(self):
        """Starts FRR and waits for the session with every admin router."""
        self.frr.start()
        for admin in self.admins:
            self.frr.established(str(admin.ip))
        return self

    def addresses(self, version):
        """Its own addresses of one family on tenants' networks."""
        return [address for addresses in self.tenants.values() for address in addresses if address.version == version]

    def _zebra_config(self):
        sources = {version: self.addresses(version)[0].ip for version in (4, 6) if self.addresses(version)}
        lines = [source_config(sources)]
        for interface in self.advertise:
            lines += [f"interface {interface}", " no ipv6 nd suppress-ra", " ipv6 nd ra-interval 4"]
            lines += [f" ipv6 nd prefix {address.network}" for address in self.tenants[interface]
                      if address.version == 6]
        return "\n".join(lines)

    def _bgpd_config(self):
        lines = []
        for version, keyword in ((4, "ip"), (6, "ipv6")):
            # Only the tenant's own networks leave (R22), each exactly: no default route, nothing shorter or longer.
            mine = [f"permit {address.network}" for address in self.addresses(version)] or ["deny any"]
            lines += [f"{keyword} prefix-list mine {rule}" for rule in mine]
            lines += [f"route-map announce{version} permit 10", f" match {keyword} address prefix-list mine"]
        lines += [
            # What the data centre offers in this VRF is for it to decide (R05).
            "route-map accept permit 10",
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
            lines += [f"  network {address.network}" for address in self.addresses(version)]
            for neighbor in neighbors:
                lines += [f"  neighbor {neighbor} activate",
                          f"  neighbor {neighbor} route-map announce{version} out",
                          f"  neighbor {neighbor} route-map accept in"]
            lines += [" exit-address-family"]
        return "\n".join(lines)
