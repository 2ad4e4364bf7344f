"""A service of the lab: a program that runs in the sandbox, has its own log, and says when it is ready.

It is started by a shell that notes its pid and start time in the sandbox's /run before it turns into the program.
So there is no moment in which a service runs unrecorded, and the note goes away with the sandbox.
"""

import os
import shlex
import time
from dataclasses import dataclass, field

from tsujilab.cloud.instance import RUN, LabError, tail
from tsujilab.cloud.netns import Connection, socket_in

START = """
(trap '' HUP; exec setsid sh -c 'read -r stat </proc/$$/stat; echo "$stat" >"$0"; exec "$@"' "$0" "$@") \\
    >>"$LOG" 2>&1 </dev/null &
"""


@dataclass
class Service:
    """argv: the program. needs: names of tasks before it. before(lab): makes what it needs. ready(lab): true when it
    serves. after(lab): what must be set in it each time it started. url: what a person connects to."""

    name: str
    argv: list
    needs: tuple = ()
    env: dict = field(default_factory=dict)
    before: object = None
    ready: object = None
    after: object = None
    timeout: int = 90
    url: str = ""

    def note(self, lab):
        return lab.path(f"{RUN}/{self.name}.stat")

    def pid(self, lab):
        """Its pid as the sandbox counts, or None when it does not run."""
        try:
            noted = self.note(lab).read_text().split()
            now = lab.path(f"/proc/{noted[0]}/stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            return None
        # Field 22 of stat is the start time; the shell's name has no spaces, the program's may.
        return int(noted[0]) if noted[21] == now[19] and now[0] != "Z" else None

    def uptime(self, lab):
        """Seconds since its start, or None."""
        pid = self.pid(lab)
        if not pid:
            return None
        started = int(lab.path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")

    def log(self, lab):
        return lab.logs / f"{self.name}.log"

    def start(self, lab):
        """Starts it unless it runs, and waits until it serves; LabError with the end of its log when it does not."""
        began = time.monotonic()
        if not self.pid(lab):
            if self.before:
                self.before(lab)
            log = self.log(lab)
            words = ["env", *(f"{key}={value}" for key, value in self.env.items()), *map(str, self.argv)]
            lab.sandbox.run(["env", f"LOG={log}", "sh", "-ec", START, f"{RUN}/{self.name}.stat", *words])
        self.wait(lab, began)
        if self.after:
            self.after(lab)

    def wait(self, lab, began):
        """Waits until it serves."""
        seen = False
        while True:
            if self.pid(lab):
                seen = True
                if not self.ready or self.ready(lab):
                    return
            elif seen or time.monotonic() - began > 5:
                raise LabError(f"{self.name} ended; log {self.log(lab)}, its end:{tail(self.log(lab))}")
            if time.monotonic() - began > self.timeout:
                raise LabError(
                    f"{self.name} runs but does not serve after {self.timeout} s; log {self.log(lab)}, "
                    f"its end:{tail(self.log(lab))}"
                )
            time.sleep(0.1)

    def signal(self, lab, how="TERM"):
        """Sends it a signal when it runs."""
        pid = self.pid(lab)
        if pid:
            lab.sandbox.run(["kill", f"-{how}", str(pid)], check=False)

    def __str__(self):
        return f"{self.name}: {shlex.join(map(str, self.argv))}"


def serves_http(port, path="/"):
    """A readiness check: an HTTP server answers on 127.0.0.1:port, with anything but an internal error."""

    def ready(lab):
        try:
            connection = Connection(lab.sandbox.pid, port, timeout=30)
            connection.request("GET", path)
            status = connection.getresponse().status
            connection.close()
            return status < 500
        except OSError:
            return False

    return ready


def serves_tcp(port):
    """A readiness check: 127.0.0.1:port accepts a connection."""

    def ready(lab):
        try:
            with socket_in(lab.sandbox.pid) as connection:
                connection.connect(("127.0.0.1", port))
            return True
        except OSError:
            return False

    return ready


def answers(*argv):
    """A readiness check: a command in the lab ends with 0."""
    return lambda lab: lab.sandbox.run(list(argv), check=False).returncode == 0
