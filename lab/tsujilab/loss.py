"""Counts what two hosts lose of what they send each other, in each direction and family on its own.

Both ends send a numbered UDP datagram on every flow at a fixed interval and note what they receive and when. Ping
could not tell which direction lost.

This file is also the program that runs in each host's namespace: python3 loss.py PLAN. A first line on its standard
input ("stop") stops it sending, a second ("end") ends it; then it prints what it sent and received as JSON.
"""
import json
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise


@dataclass
class Loss:
    """One direction of one flow: sent and lost datagrams; gap_ms: the longest time without one, less the interval.

    times: when each datagram that arrived did (seconds, time.monotonic()).
    """
    sent: int
    lost: int
    gap_ms: float
    times: list

    def first_after(self, moment):
        """When the first datagram after a moment arrived; infinity when none did."""
        return next((one for one in self.times if one > moment), float("inf"))


class LossMeter:
    """Flows between hosts a and b: {name: (address at a, address at b)}; runs from start() to stop()."""

    def __init__(self, a, b, flows, interval_ms=10):
        self.hosts, self.flows, self.interval_ms = (a, b), flows, interval_ms
        self.processes = []

    def start(self):
        for end, host in enumerate(self.hosts):
            plan = {"interval": self.interval_ms / 1000, "flows": [
                {"name": name, "local": pair[end], "remote": pair[1 - end], "port": 40000 + number}
                for number, (name, pair) in enumerate(self.flows.items())]}
            self.processes.append(subprocess.Popen(host._argv(["python3", __file__, json.dumps(plan)]), text=True,
                                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in self.processes:
            process.stdout.readline()
        return self

    def stop(self):
        """Ends the flows and returns {(name, "a>b" or "b>a"): Loss}."""
        ends = []
        # Both stop sending before either stops receiving, so what is on its way still counts.
        for word in ("stop", "end"):
            for process in self.processes:
                process.stdin.write(word + "\n")
                process.stdin.flush()
            for process in self.processes:
                process.stdout.readline()
        for process in self.processes:
            process.stdin.close()
            ends.append(json.loads(process.stdout.read()))
            process.wait(30)
        result = {}
        for name in self.flows:
            for sender, receiver, direction in ((0, 1, "a>b"), (1, 0, "b>a")):
                sent = ends[sender]["sent"][name]
                got = sorted(ends[receiver]["received"][name])
                times = sorted(moment for number, moment in got)
                gap = max((later - earlier for earlier, later in pairwise(times)), default=float("inf"))
                # What was sent before the other end stood does not count, unless nothing ever arrived.
                counted = set(range(got[0][0] if got else 0, sent))
                lost = len(counted - {number for number, _ in got})
                result[name, direction] = Loss(len(counted), lost, max(0.0, gap * 1000 - self.interval_ms), times)
        return result


def exchange(plan):
    """Sends until the first line on standard input, receives until a little after the second; returns the record."""
    sockets, sent, received = {}, {}, {}
    for flow in plan["flows"]:
        family = socket.AF_INET6 if ":" in flow["local"] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((flow["local"], flow["port"]))
        sockets[sock] = flow
        sent[flow["name"]], received[flow["name"]] = 0, []
    print("ready", flush=True)
    due, sending, end = time.monotonic(), True, float("inf")
    while (now := time.monotonic()) < end:
        if now >= due and sending:
            for sock, flow in sockets.items():
                number = sent[flow["name"]]
                sent[flow["name"]] += 1
                try:
                    sock.sendto(number.to_bytes(4, "big"), (flow["remote"], flow["port"]))
                except OSError:
                    pass  # It counts as sent: no route, or no buffer, is a loss too.
            due += plan["interval"]
        wait = max(0.0, min(due if sending else now + 0.1, end) - time.monotonic())
        readable, _, _ = select.select([*sockets, sys.stdin], [], [], wait)
        for sock in readable:
            if sock is sys.stdin:
                if sys.stdin.readline().strip() == "stop":
                    sending = False
                    print("stopped", flush=True)
                else:
                    end = min(end, time.monotonic() + 0.3)
                continue
            try:
                data = sock.recv(64)
            except OSError:
                continue  # An ICMP error for what was sent before.
            received[sockets[sock]["name"]].append((int.from_bytes(data, "big"), time.monotonic()))
    return {"sent": sent, "received": received}


def main():
    record = exchange(json.loads(sys.argv[1]))
    print("ended", flush=True)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
