"""A router node of real parts around a stand-in forwarder, its admin router and a tenant's machine.

    vm ── pint ┐ ports                        ports: where the forwarder runs (the management side)
               ├ stand-in ── TAPs ── node     node:  the tenant side: TAPs, tsuji-tapholder, FRR
    admin ─ pext┘                             admin: the admin router, dynamic neighbours, a server's addresses

It is there to kill parts of it: node.kill(…), node.revive(…). What that costs is measured by trial.py.
"""
import os
import signal
from pathlib import Path

from .frr import FRR
from .sandbox import until

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("TSUJI_BUILD", REPOSITORY / "build/gcc")) / "router/tapholder"
SOCKET = "/run/tsuji/tapholder.sock"
FAMILIES = ("ipv4", "ipv6")
NODE = {"ipv4": "169.254.0.100", "ipv6": "fd00:aaaa::100"}
ADMIN = {"ipv4": "169.254.0.10", "ipv6": "fd00:aaaa::10"}
VM = {"ipv4": "10.1.1.10", "ipv6": "2001:db8:1::10"}
SERVER = {"ipv4": "198.51.100.1", "ipv6": "2001:db8:ff::1"}
TENANT = {"ipv4": "10.1.1.0/24", "ipv6": "2001:db8:1::/64"}
OUTSIDE = {"ipv4": "198.51.100.0/24", "ipv6": "2001:db8:ff::/64"}
# The killable parts. A pair is killed at the same time.
PARTS = ("forwarder", "zebra", "bgpd", "bfdd")

NODE_BGPD = """
ip prefix-list TENANT seq 5 permit {TENANT[ipv4]}
ipv6 prefix-list TENANT seq 5 permit {TENANT[ipv6]}
route-map TENANT permit 10
 match ip address prefix-list TENANT
route-map TENANT permit 20
 match ipv6 address prefix-list TENANT
route-map ALL permit 10
router bgp 4214553151
 bgp router-id 0.222.16.63
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 {restart}
 neighbor ADMIN peer-group
 neighbor ADMIN remote-as 64512
 neighbor ADMIN timers 3 9
 neighbor ADMIN timers connect 1
 {bfd}
 neighbor {ADMIN[ipv4]} peer-group ADMIN
 neighbor {ADMIN[ipv6]} peer-group ADMIN
 address-family ipv4 unicast
  table-map ALL
  redistribute connected route-map TENANT
  neighbor {ADMIN[ipv4]} activate
 exit-address-family
 address-family ipv6 unicast
  table-map ALL
  redistribute connected route-map TENANT
  neighbor {ADMIN[ipv6]} activate
 exit-address-family
"""
NODE_BFDD = """
bfd
 peer {ADMIN[ipv4]}
 exit
 peer {ADMIN[ipv6]} local-address {NODE[ipv6]}
 exit
exit
"""
ADMIN_BGPD = """
router bgp 64512
 bgp router-id 192.0.2.10
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 neighbor RED4 peer-group
 neighbor RED4 remote-as external
 neighbor RED4 timers 3 9
 {bfd4}
 neighbor RED6 peer-group
 neighbor RED6 remote-as external
 neighbor RED6 timers 3 9
 {bfd6}
 bgp listen range 169.254.0.0/22 peer-group RED4
 bgp listen range fd00:aaaa::/64 peer-group RED6
 address-family ipv4 unicast
  network {OUTSIDE[ipv4]}
  neighbor RED4 activate
 exit-address-family
 address-family ipv6 unicast
  network {OUTSIDE[ipv6]}
  neighbor RED6 activate
 exit-address-family
"""


# What follows zebra's death, for bgpd does not give a new zebra its routes again:
#   none     only the dead daemons are started again
#   restart  bgpd is restarted, too
#   resync   bgpd is waited for at the new zebra, then told "table-map" again, which makes it send all its routes
POLICIES = ("none", "restart", "resync")
# With a policy, zebra gets this many seconds (-K) before it sweeps the routes that its predecessor left in the kernel.
KEEP_S = 20


class TapNode:
    """The machines, TAPs, holder and forwarder, with addresses; tell route() to start BGP.

    grace_ms: for how long the holder keeps carrier without a forwarder. forwarder: further arguments of the stand-in,
    and before its name, a command that runs it (`wrapper`).
    """

    def __init__(self, sandbox, grace_ms=3000, forwarder=(), wrapper=()):
        if not (PROGRAMS / "tapholder-standin").exists():
            raise RuntimeError(f"no {PROGRAMS}/tapholder-standin: run 'make build'")
        self.sandbox, self.grace_ms = sandbox, grace_ms
        self.command = [*wrapper, PROGRAMS / "tapholder-standin", "-s", SOCKET, *forwarder, "ext0=pext", "int0=pint"]
        self.node, self.ports, self.admin, self.vm = (sandbox.host(n) for n in ("node", "ports", "admin", "vm"))
        for host in (self.node, self.admin, self.vm):
            host.sh("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0")
        for host in (self.node, self.admin):
            host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        sandbox.link(self.ports, "pext", self.admin, "eth0")
        sandbox.link(self.ports, "pint", self.vm, "eth0")
        sandbox.sh(f"mkdir -p -m 0700 {os.path.dirname(SOCKET)}")
        self.start_holder()
        self.start_forwarder()
        self.address()

    def route(self, bfd=None, policy="resync", graceful=False, keep_s=None):
        """Starts FRR on the node and on the admin router and waits until traffic passes between vm and server.

        bfd: None, or who asks the node's bfdd for the sessions: "bgpd" (neighbor … bfd), or "bfdd", whose own
        configuration lists them; the admin router always has "neighbor … bfd" then. With "bgpd", FRR 10.2 to 10.3.0
        never starts a session again that BFD took down (da4a7b0356 mends it in 10.3.1).
        policy: one of POLICIES. graceful: BGP graceful restart on the node.
        keep_s: zebra's -K; None: KEEP_S, but no -K at all with policy "none".
        """
        keep_s = keep_s or (KEEP_S if policy != "none" else None)
        self.bfd, self.policy = bfd, policy
        words = {"TENANT": TENANT, "OUTSIDE": OUTSIDE, "ADMIN": ADMIN, "NODE": NODE}
        self.frr = FRR(self.node, bfdd=NODE_BFDD.format(**words) if bfd == "bfdd" else "",
                       options={"zebra": f"-K{keep_s}" if keep_s else ""},
                       bgpd=NODE_BGPD.format(bfd="neighbor ADMIN bfd" if bfd == "bgpd" else "",
                                             restart="bgp graceful-restart" if graceful else "", **words))
        self.peer = FRR(self.admin, bfdd="", bgpd=ADMIN_BGPD.format(
            bfd4="neighbor RED4 bfd" if bfd else "", bfd6="neighbor RED6 bfd" if bfd else "", **words))
        self.frr.start()
        self.peer.start()
        self.settle()
        return self

    def start_holder(self):
        self.holder = self.node.start([PROGRAMS / "tsuji-tapholder", "-g", self.grace_ms, "-s", SOCKET], "tapholder")

    def start_forwarder(self):
        self.forwarder = self.ports.start(self.command, "forwarder")

    def address(self):
        """What the agent does in a real node: addresses of the TAPs, which the forwarder has had made."""
        until(lambda: {"ext0", "int0"} <= {link["ifname"] for link in self.node.json("ip -json link")}, "the TAPs", 10)
        self.node.sh(f"""
            ip link set ext0 up; ip link set int0 up
            ip addr add {NODE['ipv4']}/22 dev ext0; ip addr add {NODE['ipv6']}/64 dev ext0
            ip addr add 10.1.1.1/24 dev int0; ip addr add 2001:db8:1::1/64 dev int0""")
        self.admin.sh(f"""
            ip addr add {ADMIN['ipv4']}/22 dev eth0; ip addr add {ADMIN['ipv6']}/64 dev eth0
            ip addr add {SERVER['ipv4']}/32 dev lo; ip addr add {SERVER['ipv6']}/128 dev lo""")
        self.vm.sh(f"""
            ip addr add {VM['ipv4']}/24 dev eth0; ip addr add {VM['ipv6']}/64 dev eth0
            ip route add default via 10.1.1.1; ip route add default via 2001:db8:1::1""")

    def settle(self, timeout=40):
        """Waits for sessions, routes on both sides, and a passing echo in both families."""
        for family in FAMILIES:
            self.frr.established(ADMIN[family], timeout)
            self.peer.established(NODE[family], timeout)
            if self.bfd:
                self.frr.bfd_up(ADMIN[family], timeout)
            self.frr.route(OUTSIDE[family], timeout)
            self.peer.route(TENANT[family], timeout)
            until(lambda family=family: self.vm.ping(SERVER[family], count=1), f"{family} traffic", timeout)

    def process(self, part):
        return {"forwarder": self.forwarder, "holder": self.holder}.get(part) or self.frr.daemon(part)

    def kill(self, *parts):
        """SIGKILL to all the parts before any is waited for, so that a pair dies at once."""
        processes = [self.process(part) for part in parts]
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            process.wait(20)

    def revive(self, *parts):
        """What a supervisor does for dead parts, by the node's policy."""
        if "holder" in parts:
            self.start_holder()
        if "forwarder" in parts:
            self.start_forwarder()
        if "zebra" in parts:
            self.frr.restart("zebra")
        for part in ("bfdd", "bgpd"):
            if part in parts or (part == "bgpd" and "zebra" in parts and self.policy == "restart"):
                self.frr.restart(part)
        if "zebra" in parts and "bgpd" not in parts and self.policy == "resync":
            self.resync()

    def resync(self):
        """Makes bgpd give a new zebra all its routes, without a word to the neighbours.

        It waits for bgpd to come back to zebra, which FRR 8.4 does after up to 10 s and 10.3 after 1 s. Entering
        "table-map" again, though it is there already, announces the whole table (bgp_table_map_set() in bgpd).
        """
        until(lambda: "\nbgp " in self.frr.ask("zebra", "show zebra client summary"), "bgpd to come back to zebra",
              KEEP_S, 0.2)
        for family in FAMILIES:
            self.frr.vtysh("configure", "router bgp 4214553151", f"address-family {family} unicast", "table-map ALL")

    def carrier_losses(self, interface="ext0"):
        return int(self.node.out(f"cat /sys/class/net/{interface}/carrier_down_count"))

    def has_carrier(self, interface="ext0"):
        return self.node.out(f"cat /sys/class/net/{interface}/carrier").strip() == "1"
