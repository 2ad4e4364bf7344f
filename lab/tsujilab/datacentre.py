"""A data centre for the lab: a top-of-rack switch, a server behind it, and the admin routers of one VRF. All real FRR.

    server ── top-of-rack ──┬── admin1 ──┐
     (AS 65000)             └── admin2 ──┴── VRF network: 169.254.0.0/22 and a ULA prefix (requirements R02, R03)

The admin routers listen on the VRF network for eBGP from whatever tenant router appears (dynamic neighbours), take
what tenants may announce, and offer what the top-of-rack switch announces. They are configured once and never again.
"""
import ipaddress
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network

from .frr import FRR

TOR_AS = 65000
ADMIN_AS = 65010
SERVER_NETWORKS = (ip_network("198.51.100.0/24"), ip_network("2001:db8:d::/64"))
# On the VRF network admin routers sit at .0.10, .0.11, ...; Neutron gives tenant routers addresses from .1.0 on.
VRF_NETWORKS = (ip_network("169.254.0.0/22"), ip_network("fd00:a9fe::/64"))
FIRST_ADMIN = 10


def nth(network, number):
    """The number-th address of a network, with its prefix length."""
    return ip_interface(f"{network[number]}/{network.prefixlen}")


@dataclass
class Router:
    """A host with FRR; `vrf` are its addresses on the VRF network (IPv4, IPv6), if it has any."""
    host: object
    frr: FRR
    vrf: tuple = ()


def as_number(mac):
    """The AS number of the router whose management port has this MAC (R18): 4200000000 + its low 24 bits."""
    return 4200000000 + int(mac.replace(":", "")[-6:], 16)


def router_id(mac):
    """The BGP identifier of that router (R18): the MAC's low 24 bits as an IPv4 address."""
    return str(ipaddress.IPv4Address(int(mac.replace(":", "")[-6:], 16)))


def enable_routing(host):
    host.sh("""
        sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        # Multipath by ports too, and answers to traceroute as fast as it asks.
        sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
        sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0""")


def source_config(addresses):
    """zebra's configuration to send from addresses[4] and addresses[6] along routes that BGP learned.

    Else ICMP errors would come from a link-local address of the VRF network, which nobody may forward: path MTU
    discovery and traceroute would break.
    """
    return "\n".join(
        line for version, address in addresses.items() for line in (
            f"route-map source{version} permit 10",
            f" set src {address}",
            f"{'ip' if version == 4 else 'ipv6'} protocol bgp route-map source{version}"))


def add_addresses(host, interface, *addresses):
    """Addresses for a host's interface; IPv6 at once, without duplicate address detection."""
    for address in addresses:
        host.run(f"ip addr add {address} dev {interface}{' nodad' if address.version == 6 else ''}")


class DataCentre:
    """Builds it on `sandbox`; plug(host, interface_name) cables a host to the VRF network. start() brings BGP up."""

    def __init__(self, sandbox, plug, admin_routers=2, prefix=""):
        self.sandbox, self.prefix = sandbox, prefix
        self.tor_host = self._host("tor")
        self.server = self._host("server")
        self._connect_server()
        self.admins, links = [], []
        for number in range(admin_routers):
            host = self._host(f"admin{number + 1}")
            ends = self._link_to_tor(host, number)
            plug(host, "vrf")
            vrf = tuple(nth(network, FIRST_ADMIN + number) for network in VRF_NETWORKS)
            add_addresses(host, "vrf", *vrf)
            enable_routing(host)
            own = {address.version: address.ip for address in ends[1]}
            frr = FRR(host, zebra=source_config(own), bgpd=self._admin_config(own, ends))
            self.admins.append(Router(host, frr, vrf))
            links.append(ends)
        self.tor = Router(self.tor_host, FRR(self.tor_host, bgpd=self._tor_config(links)))

    def admin_addresses(self):
        """Where tenant routers find the admin routers on the VRF network, both families."""
        return [address for admin in self.admins for address in admin.vrf]

    def _host(self, name):
        return self.sandbox.host(self.prefix + name)

    def start(self):
        """Starts every FRR and waits until the top-of-rack switch has a session with each admin router."""
        for router in (self.tor, *self.admins):
            router.frr.start()
        for number in range(len(self.admins)):
            for address in self._ends(number)[1]:
                self.tor.frr.established(str(address.ip))
        return self

    def _connect_server(self):
        self.sandbox.link(self.tor_host, "server", self.server, "eth0")
        enable_routing(self.tor_host)
        for network in SERVER_NETWORKS:
            add_addresses(self.tor_host, "server", nth(network, 1))
            add_addresses(self.server, "eth0", nth(network, 10))
            self.server.run(f"ip -{network.version} route add default via {network[1]}")

    def _ends(self, number):
        """The addresses of the link to admin router `number`: (v4, v6) at the top-of-rack switch, (v4, v6) at it."""
        networks = ip_network(f"192.0.2.{2 * number}/31"), ip_network(f"2001:db8:0:{number}::/127")
        return tuple(tuple(nth(network, end) for network in networks) for end in (0, 1))

    def _link_to_tor(self, host, number):
        self.sandbox.link(self.tor_host, f"admin{number + 1}", host, "tor")
        ends = self._ends(number)
        add_addresses(self.tor_host, f"admin{number + 1}", *ends[0])
        add_addresses(host, "tor", *ends[1])
        return ends

    def _tor_config(self, links):
        neighbors = [address.ip for _, admin in links for address in admin]
        return "\n".join([
            f"router bgp {TOR_AS}",
            " bgp router-id 192.0.2.0",
            " no bgp ebgp-requires-policy",
            " no bgp default ipv4-unicast",
            " bgp bestpath as-path multipath-relax",
            " timers bgp 3 9",
            *(line for neighbor in neighbors for line in
              (f" neighbor {neighbor} remote-as {ADMIN_AS}", f" neighbor {neighbor} timers connect 1")),
            *(line for network in SERVER_NETWORKS for line in (
                f" address-family ipv{network.version} unicast",
                f"  network {network}",
                *(f"  neighbor {one} activate" for one in neighbors if one.version == network.version),
                " exit-address-family"))])

    def _admin_config(self, own, ends):
        lines = [
            "ip prefix-list tenants seq 5 deny 0.0.0.0/0 le 7",
            "ip prefix-list tenants seq 10 permit any",
            "ipv6 prefix-list tenants seq 5 deny ::/0 le 15",
            "ipv6 prefix-list tenants seq 10 permit any",
            "route-map from-tenants permit 10",
            " match ip address prefix-list tenants",
            "route-map from-tenants permit 20",
            " match ipv6 address prefix-list tenants",
            f"router bgp {ADMIN_AS}",
            f" bgp router-id {own[4]}",
            " no bgp ebgp-requires-policy",
            " no bgp default ipv4-unicast",
            " bgp bestpath as-path multipath-relax",
            " timers bgp 3 9",
            " bgp listen limit 2000"]
        for network, (tor, _) in zip(VRF_NETWORKS, zip(*ends)):
            group = f"tenants{network.version}"
            lines += [
                f" neighbor {tor.ip} remote-as {TOR_AS}",
                f" neighbor {tor.ip} timers connect 1",
                f" neighbor {group} peer-group",
                f" neighbor {group} remote-as external",
                f" bgp listen range {network} peer-group {group}",
                f" address-family ipv{network.version} unicast",
                f"  neighbor {tor.ip} activate",
                f"  neighbor {group} activate",
                f"  neighbor {group} route-map from-tenants in",
                " exit-address-family"]
        return "\n".join(lines)
