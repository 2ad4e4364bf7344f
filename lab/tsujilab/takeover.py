"""A router's addresses move between the nodes of a pair: what VRRP does at a change of master, and nothing else of it.

Who becomes master and when is the test's decision; what is measured is the move itself. On the host that becomes
master, acquire() adds the addresses and announces them: gratuitous ARP (RFC 5227), unsolicited neighbour
advertisements with the override flag (RFC 4861). An address with a MAC of its own (RFC 5798's virtual MAC, or a Neutron
port's) sits on a macvlan over the interface, which is up only while it is held; one without sits on the interface.

This file is also the program that runs in the host's namespace and keeps the work to a few milliseconds:
python3 takeover.py PLAN, commands on standard input, one answer each.
"""
import ipaddress
import json
import socket
import struct
import subprocess
import sys
import threading
import time

# Seconds after the move at which the announcement is repeated. Linux ignores a gratuitous ARP within a second of the
# entry's last change (locktime).
REPEATS = (0.2, 1.2)


def arp(mac, address, operation):
    """A gratuitous ARP frame; operation: 1 request, 2 reply."""
    return (b"\xff" * 6 + mac + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, operation) + mac + address
            + (b"\0" * 6 if operation == 1 else b"\xff" * 6) + address)


def advertisement(mac, address):
    """An unsolicited neighbour advertisement to all nodes: router and override flags, target link-layer address."""
    target = socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = struct.pack("!BBHI", 136, 0, 0, 0xA0000000) + address + b"\x02\x01" + mac
    summed = address + target + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + address + target
    return b"\x33\x33\0\0\0\x01" + mac + b"\x86\xdd" + header + body


class Holder:
    """The program's side. plan: {"interface", "gateways": [{"address": "10.0.0.1/24", "mac": None or a MAC}]}."""

    def __init__(self, plan):
        self.interface, self.gateways = plan["interface"], plan["gateways"]
        macs = sorted({one["mac"] for one in self.gateways if one["mac"]})
        self.devices = {mac: f"gw{number}" for number, mac in enumerate(macs)}
        self.epoch = 0
        for mac, device in self.devices.items():
            subprocess.run(["ip", "link", "add", device, "link", self.interface, "address", mac, "type", "macvlan",
                            "mode", "bridge"], check=True)
            # The kernel gives it a link-local address when it comes up, and would examine that for a second first.
            with open(f"/proc/sys/net/ipv6/conf/{device}/accept_dad", "w", encoding="ascii") as setting:
                setting.write("0")

    def _device(self, gateway):
        return self.devices.get(gateway["mac"], self.interface)

    def _batch(self, lines):
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)

    def acquire(self):
        lines = [f"link set {device} up" for device in self.devices.values()]
        for one in self.gateways:
            nodad = " nodad" if ":" in one["address"] else ""
            lines.append(f"addr replace {one['address']} dev {self._device(one)}{nodad}")
        self._batch(lines)
        self.announce()
        self.epoch += 1
        threading.Thread(target=self._repeat, args=(self.epoch,), daemon=True).start()

    def _repeat(self, epoch):
        begun = time.monotonic()
        for delay in REPEATS:
            time.sleep(max(0, begun + delay - time.monotonic()))
            if epoch != self.epoch:
                return
            self.announce()

    def announce(self):
        for one in self.gateways:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((self._device(one), 0))
                mac = raw.getsockname()[4]
                address = ipaddress.ip_interface(one["address"]).ip
                if address.version == 4:
                    raw.send(arp(mac, address.packed, 1))
                    raw.send(arp(mac, address.packed, 2))
                else:
                    raw.send(advertisement(mac, address.packed))

    def release(self):
        self.epoch += 1
        self._batch([f"link set {device} down" for device in self.devices.values()]
                    + [f"addr del {one['address']} dev {self.interface}" for one in self.gateways if not one["mac"]])


class Takeover:
    """The test's side: one interface of one host. gateways: [(ip_interface, MAC or None)]."""

    def __init__(self, host, interface, gateways):
        wanted = [{"address": str(address), "mac": mac} for address, mac in gateways]
        plan = {"interface": interface, "gateways": wanted}
        self.process = subprocess.Popen(host._argv(["python3", __file__, json.dumps(plan)]), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if line != "done\n":
            raise RuntimeError(f"takeover: {line or 'ended'}")

    def __call__(self, what):
        """what: "acquire", "announce" or "release"; returns when it is done."""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def main():
    holder = Holder(json.loads(sys.argv[1]))
    print("done", flush=True)
    for line in sys.stdin:
        getattr(holder, line.strip())()
        print("done", flush=True)


if __name__ == "__main__":
    main()
