"""A program for tests/system/test_tap_holder.py, run inside a sandbox: a TAP's reader, and keepers of TAPs, in each of
the ways that docs/decisions/0003 compares.

    tap_ways.py read WAY NAME FILE   opens the TAP in this way and appends the UDP payload of each frame to FILE
    tap_ways.py keep WAY NAME        what another process does to keep the TAP's carrier, in this way

WAY: plain   a persistent TAP, no keeper
     queue   IFF_MULTI_QUEUE; the keeper holds a second, detached queue
     dup     the reader opens it and gives the keeper a copy of its descriptor, and gets it back when restarted
     holder  tsuji-tapholder, by its protocol
"""
import fcntl
import os
import select
import socket
import struct
import sys
import time

TUNSETIFF, TUNSETPERSIST, TUNSETQUEUE = 0x400454CA, 0x400454CB, 0x400454D9
IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE, IFF_DETACH_QUEUE = 0x2, 0x1000, 0x100, 0x400
IFREQ = struct.Struct("16sH22x")
DUP_SOCKET = "/run/tap-dup.sock"
HOLDER_SOCKET = "/run/tsuji/tapholder.sock"
# struct tapholder_message of router/tapholder/protocol.h
MESSAGE = struct.Struct("=IIIIi16s")
OPEN, ADOPT, LINK, CLOSE = 1, 2, 3, 4
UP = 2


def tun_open(name, flags=0):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), IFF_TAP | IFF_NO_PI | flags))
    fcntl.ioctl(fd, TUNSETPERSIST, 1)
    return fd


def detach(fd):
    fcntl.ioctl(fd, TUNSETQUEUE, IFREQ.pack(b"", IFF_DETACH_QUEUE))


def connect(path, patience=5):
    deadline = time.monotonic() + patience
    while True:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            line.connect(path)
            return line
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def request(line, operation, name, options=0, queues=0, fds=()):
    """One request to tsuji-tapholder; returns (result, descriptors)."""
    socket.send_fds(line, [MESSAGE.pack(1, operation, options, queues, 0, name.encode())], list(fds))
    data, received, _, _ = socket.recv_fds(line, MESSAGE.size + 1, 8)
    if not data:
        raise ConnectionResetError("the holder hung up")
    return MESSAGE.unpack(data)[4], received


def reader_open(way, name):
    """The TAP's descriptor, and what has to stay open with it."""
    if way == "plain":
        return tun_open(name), None
    if way == "queue":
        return tun_open(name, IFF_MULTI_QUEUE), None
    if way == "dup":
        line = connect(DUP_SOCKET)
        kept = socket.recv_fds(line, 1, 1)[1]
        fd = kept[0] if kept else tun_open(name)
        socket.send_fds(line, [b"x"], [fd])
        return fd, line
    line = connect(HOLDER_SOCKET)
    result, fds = request(line, OPEN, name, queues=1)
    if result or request(line, LINK, name, UP)[0]:
        raise OSError(-result, "tsuji-tapholder refused")
    return fds[0], line


def read(way, name, file):
    fd, _line = reader_open(way, name)
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    print("ready", flush=True)
    while True:
        select.select([fd], [], [])
        try:
            frame = os.read(fd, 2048)
        except BlockingIOError:
            continue
        # IPv4 and UDP headers of fixed size: 14 + 20 + 8 bytes.
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP:
            os.write(output, frame[42:46])


def keep(way, name):
    if way == "queue":
        fd = tun_open(name, IFF_MULTI_QUEUE)
        detach(fd)
        print("ready", flush=True)
        while True:
            time.sleep(60)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(DUP_SOCKET)
    listener.listen()
    print("ready", flush=True)
    kept = []
    while True:
        line, _ = listener.accept()
        socket.send_fds(line, [b"x"], kept)
        fresh = socket.recv_fds(line, 1, 1)[1]
        for fd in kept:
            os.close(fd)
        kept = fresh


def send(address, count, period):
    """Sends `count` numbered datagrams, one each `period` seconds."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    due = time.monotonic()
    for number in range(count):
        try:
            sock.sendto(struct.pack("!I", number), (address, 9))
        except OSError:
            pass  # the interface has no carrier: a datagram lost
        due += period
        time.sleep(max(0, due - time.monotonic()))


def queues(name, count, go):
    """Opens one attached and one detached queue, waits for the file `go`, sends `count` flows, and prints how many
    frames each queue got."""
    attached, detached = tun_open(name, IFF_MULTI_QUEUE), tun_open(name, IFF_MULTI_QUEUE)
    detach(detached)
    print("ready", flush=True)
    while not os.path.exists(go):
        time.sleep(0.02)
    got = {attached: 0, detached: 0}
    for port in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", 20000 + port))
        sock.sendto(b"flow", ("192.0.2.2", 9))
        for fd in got:
            try:
                while True:
                    frame = os.read(fd, 2048)
                    got[fd] += frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP
            except OSError:
                pass
    print(got[attached], got[detached], flush=True)


if __name__ == "__main__":
    verb, arguments = sys.argv[1], sys.argv[2:]
    if verb == "read":
        read(*arguments)
    elif verb == "keep":
        keep(*arguments)
    elif verb == "send":
        send(arguments[0], int(arguments[1]), float(arguments[2]))
    elif verb == "queues":
        queues(arguments[0], int(arguments[1]), arguments[2])
