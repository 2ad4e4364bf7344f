"""TCP connections into another network namespace, from this process.

Which namespace a socket belongs to is settled when it is made. So a thread steps into the namespace, makes the
socket and ends; the connection then serves the whole process. Needs root, no helper inside.
"""

import ctypes
import http.client
import os
import socket
import threading

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def socket_in(pid, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    """A new socket in the network namespace of process `pid`; OSError when that process is gone."""
    result = []

    def work():
        try:
            with open(f"/proc/{pid}/ns/net", "rb") as namespace:
                if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns to process {pid}: {os.strerror(ctypes.get_errno())}")
            result.append(socket.socket(family, kind))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


class Connection(http.client.HTTPConnection):
    """An HTTP connection to 127.0.0.1:port as process `pid` sees it."""

    def __init__(self, pid, port, timeout=60):
        super().__init__("127.0.0.1", port, timeout=timeout)
        self.namespace_pid = pid

    def connect(self):
        self.sock = socket_in(self.namespace_pid)
        self.sock.settimeout(self.timeout)
        self.sock.connect((self.host, self.port))
