"""A root shell behind a serial line: send a command, wait for what it prints and for its status.

The line is a Unix socket that QEMU serves. The shell at its other end echoes nothing (guest_init.sh), so all that
comes back is output. One command at a time.
"""
import re
import socket
import time


class GuestError(RuntimeError):
    """A command in a guest ended with a status other than 0, or the guest did not say what was waited for."""


class Console:
    """The near end of the line. `text`: what came since the last command, undecoded control characters included."""

    def __init__(self, name, path, timeout=10):
        self.name, self.text, self.serial = name, "", 0
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.socket.connect(path)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def send(self, line):
        self.socket.sendall(line.encode() + b"\n")

    def expect(self, pattern, timeout=60):
        """Reads until the regular expression `pattern` is found; returns the match; what preceded it is in .before."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.text)):
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise GuestError(f"{self.name}: not within {timeout} s: {pattern!r}; the console's end: "
                                 f"{self.text[-2000:]}") from None
            if not data:
                raise GuestError(f"{self.name}: QEMU ended; the console's end: {self.text[-2000:]}")
            self.text += data.decode(errors="replace").replace("\r", "")
        self.before, self.text = self.text[:found.start()], self.text[found.end():]
        return found

    def run(self, command, check=True, timeout=60):
        """Runs a line of shell; returns (output, status); GuestError when the status is not 0, if check is set."""
        self.serial += 1
        self.send(f"{command}\necho \"@{self.serial}=$?@\"")
        status = int(self.expect(rf"@{self.serial}=(\d+)@\n", timeout).group(1))
        if check and status:
            raise GuestError(f"{self.name}: '{command}' ended with {status}\n{self.before}")
        return self.before, status

    def close(self):
        self.socket.close()
