"""What a failure of a TapNode costs: begin() a Trial, do harm, end() it, and read its fields."""
import time

from .probe import Flow, Probe, gaps
from .tapnode import FAMILIES, NODE, OUTSIDE, SERVER, TENANT, VM


class Trial:
    """One failure of a TapNode, measured: begin() it, do harm, then end() it. After that, per family ("ipv4", "ipv6"):

    flapped          the peer's BGP session is not the one that was there before
    withdrawn_ms     for how long the peer's kernel had no route to the tenant's prefix
    routes_lost_ms   for how long the node's kernel had no route to the outside
    out_ms, in_ms    traffic lost from the tenant's machine to the server, and back
    delay_ms         the longest that a datagram was under way
    state            "ok", "down" (no session, no traffic), or "black hole" (a session, and no traffic)
    carrier_losses   of ext0 (not per family)
    """

    def __init__(self, node):
        self.node = node

    def begin(self):
        node = self.node
        self.probes = {
            "vm": Probe(node.vm, VM.values(), SERVER.values()),
            "admin": Probe(node.admin, SERVER.values(), VM.values(), TENANT.values()),
            "node": Probe(node.node, prefixes=OUTSIDE.values()),
        }
        time.sleep(1)  # traffic that must not be lost, before the harm
        self.carrier_before = node.carrier_losses()
        self.start = time.monotonic()
        return self

    def end(self):
        seen = {name: probe.stop() for name, probe in self.probes.items()}
        # The last 0.3 s may still be under way.
        end = min(result["end"] for result in seen.values()) - 0.3
        self.carrier_losses = self.node.carrier_losses() - self.carrier_before
        self.seconds = end - self.start
        fields = ("flapped", "withdrawn_ms", "routes_lost_ms", "out_ms", "in_ms", "delay_ms", "state")
        for field in fields:
            setattr(self, field, {})
        for family in FAMILIES:
            session = self.node.peer.neighbor(NODE[family])
            up = session.get("bgpState") == "Established"
            age = session.get("bgpTimerUpMsec", 0) / 1000 if up else 0
            self.flapped[family] = age < time.monotonic() - self.start
            self.withdrawn_ms[family] = gaps(seen["admin"]["routes"][TENANT[family]], self.start, end)
            self.routes_lost_ms[family] = gaps(seen["node"]["routes"][OUTSIDE[family]], self.start, end)
            out = Flow(seen["vm"], seen["admin"], VM[family], SERVER[family], self.start, end)
            back = Flow(seen["admin"], seen["vm"], SERVER[family], VM[family], self.start, end)
            self.out_ms[family], self.in_ms[family] = out.lost_ms, back.lost_ms
            self.delay_ms[family] = max(out.delay_ms, back.delay_ms)
            passes = out.alive_at_end and back.alive_at_end
            self.state[family] = "ok" if passes else "black hole" if up else "down"
        return self

    def __str__(self):
        def both(values):
            return "/".join(str(values[family]) for family in FAMILIES)
        return (f"flapped {both(self.flapped)}, withdrawn {both(self.withdrawn_ms)} ms, routes lost "
                f"{both(self.routes_lost_ms)} ms, lost out {both(self.out_ms)} ms, in {both(self.in_ms)} ms, delay "
                f"{both(self.delay_ms)} ms, carrier losses {self.carrier_losses}, end {both(self.state)} (v4/v6)")
