"""Measures, on a host, what a failure costs: one-way loss in both families, and for how long a route was missing.

The program (`python3 probe.py …`, run in a host's namespace) sends a numbered datagram every 10 ms to each target,
notes every datagram that it receives, and looks every 20 ms whether the kernel's main table has given prefixes. At
SIGTERM it prints what it saw as one line of JSON. One-way, because a lost answer and a lost question are different
faults; datagrams carry their send time, for all hosts of a sandbox have one clock.

The classes are the caller's side: Probe starts and ends the program, Flow and gaps() read its result.
"""
import ipaddress
import json
import select
import signal
import socket
import struct
import sys
import time

PORT = 4950
PERIOD = 0.01
DATAGRAM = struct.Struct("!IQ")  # number, send time (CLOCK_MONOTONIC, ns)


class Probe:
    """The program on `host`. sources: local addresses to send from; targets: addresses to send to, in the same order;
    prefixes: routes to watch. All are strings, IPv4 or IPv6."""

    def __init__(self, host, sources=(), targets=(), prefixes=()):
        plan = {"sources": list(sources), "targets": list(targets), "prefixes": list(prefixes)}
        self.process = host.start(["/usr/bin/python3", "-I", "-S", __file__, json.dumps(plan)], "probe")
        self.result = None

    def stop(self):
        """Ends the program and returns what it saw:
        {"sent": {target: count}, "received": {source: [[number, sent s, received s], …]},
        "routes": {prefix: [[time s, present], …]}, "end": time s}; times are time.monotonic()."""
        if self.result is None:
            self.process.kill(signal.SIGTERM)
            lines = self.process.output().splitlines()
            if not lines or not lines[-1].startswith("{"):
                raise RuntimeError(f"{self.process.name} printed no result: {self.process.output()[-500:]}")
            self.result = json.loads(lines[-1])
        return self.result


class Flow:
    """What became of the datagrams of one direction and family between two times."""

    def __init__(self, sender, receiver, source, target, start, end):
        """sender, receiver: results of Probe.stop(); source, target: addresses; start, end: time.monotonic()."""
        arrived = {number: (sent, received) for number, sent, received in receiver["received"].get(source, [])}
        times = sender["times"][target]
        self.sent = [number for number, sent in enumerate(times) if start <= sent < end]
        self.missing = [number for number in self.sent if number not in arrived]
        # A lost datagram stands for the time until the next one, which on a busy machine is more than a period.
        self.lost_ms = round(sum(times[n + 1] - times[n] for n in self.missing if n + 1 < len(times)) * 1000)
        delays = (arrived[number][1] - arrived[number][0] for number in self.sent if number in arrived)
        self.delay_ms = round(max(delays, default=0) * 1000)
        # Over the last second before the end, whose datagrams had the time to arrive.
        last = [number for number, sent in enumerate(times) if end - 1 <= sent < end]
        self.alive_at_end = bool(last) and sum(number in arrived for number in last) > len(last) / 2


def gaps(transitions, start, end):
    """Milliseconds between two times during which a route was missing. transitions: result["routes"][prefix]."""
    total, present, since = 0.0, True, start
    for at, now in [*transitions, [end, True]]:
        at = min(max(at, start), end)
        if not present:
            total += at - since
        present, since = now, at
    return round(total * 1000)


# From here on: the program.

def table_reader(prefix):
    """A function that tells whether the kernel's main table has the prefix. It reads one file of /proc, which costs
    some microseconds; a route whose only way out is down is still in the table, as with ip-route(8)."""
    network = ipaddress.ip_network(prefix)
    if network.version == 4:
        file = "/proc/net/route"
        wanted = f"\t{int.from_bytes(network.network_address.packed, sys.byteorder):08X}\t"
        mask = f"\t{int.from_bytes(network.netmask.packed, sys.byteorder):08X}\t"

        def matches(line):
            return wanted in line and mask in line
    else:
        file = "/proc/net/ipv6_route"
        start = f"{network.network_address.packed.hex()} {network.prefixlen:02x} "

        def matches(line):
            return line.startswith(start)

    def present():
        with open(file, encoding="ascii") as table:
            return any(matches(line) for line in table)
    return present


def listener(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, PORT))
    sock.setblocking(False)
    return sock


def main():
    plan = json.loads(sys.argv[1])
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    sockets = [listener(address) for address in plan["sources"]]
    readers = {prefix: table_reader(prefix) for prefix in plan["prefixes"]}
    times = {target: [] for target in plan["targets"]}
    received, routes = {}, {prefix: [] for prefix in readers}
    tick, due = 0, time.monotonic()
    while not ended:
        now = time.monotonic()
        if now >= due:
            for sock, target in zip(sockets, plan["targets"]):
                sent = time.monotonic()
                try:
                    sock.sendto(DATAGRAM.pack(len(times[target]), int(sent * 1e9)), (target, PORT))
                except OSError:
                    pass  # no route, or no neighbour: it counts as sent and lost
                times[target].append(sent)
            if tick % 2 == 0:
                for prefix, present in readers.items():
                    seen = present()
                    if not routes[prefix] or routes[prefix][-1][1] != seen:
                        routes[prefix].append([time.monotonic(), seen])
            tick, due = tick + 1, max(due + PERIOD, now)
            continue
        for sock in select.select(sockets, [], [], due - now)[0]:
            try:
                data, address = sock.recvfrom(64)
            except OSError:
                continue  # an ICMP error for a datagram of ours
            if len(data) == DATAGRAM.size:
                number, sent = DATAGRAM.unpack(data)
                received.setdefault(address[0], []).append([number, sent / 1e9, time.monotonic()])
    print(json.dumps({"times": times, "received": received, "routes": routes, "end": time.monotonic()}))


if __name__ == "__main__":
    main()
