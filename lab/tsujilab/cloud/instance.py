"""One lab by its name: where its files are, and the sandbox in which it runs.

Nothing records whether a lab runs: process 1 of its sandbox carries the lab's directory in its arguments, so the
kernel's process table is the record. It can't be stale, whatever was killed when.

    STATE/labs/NAME/tree   what the lab wrote over the Debian tree: databases, configuration, keys
    STATE/labs/NAME/log    one log for each service and each step
    STATE/labs/NAME/lock   held while up, down or reset work
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from tsujilab.root import REPOSITORY, STATE
from tsujilab.sandbox import ENVIRONMENT, INIT, Host, Sandbox

RELEASE = "trixie"
CONF = REPOSITORY / "lab/conf"
# Inside the sandbox: what belongs to this run only (a memory file system) and what stays.
RUN, KEPT = "/run/lab", "/var/lib/lab"


class LabError(RuntimeError):
    """What failed, with which object, why, and what to do: text for a person."""


def tail(file, lines=12):
    """The last lines of a log, indented; empty text when there is none."""
    try:
        text = Path(file).read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "".join(f"\n    {line[:300]}" for line in text)


def init_of(upper):
    """The pid of process 1 of the sandbox that writes to directory `upper`, or None."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # unshare(1), its parent, has the same arguments behind its own.
        if len(argv) < 5 or not argv[0].endswith(b"python3") or os.fsdecode(argv[3]) != str(INIT):
            continue
        with contextlib.suppress(ValueError):
            if json.loads(argv[4]).get("upper") == str(upper):
                return int(entry.name)
    return None


class Lab:
    """A lab by its name; it may be up or down."""

    def __init__(self, name="lab"):
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise LabError(f"'{name}' can't name a lab: use up to 31 small letters, digits and '-', a letter first")
        self.name = name
        self.directory = STATE / "labs" / name
        self.logs = self.directory / "log"
        self._sandbox = None

    @property
    def upper(self):
        return self.directory / "tree"

    @property
    def sandbox(self):
        """The running sandbox; LabError when the lab is down."""
        found = self.find()
        if not found:
            raise LabError(f"the lab '{self.name}' is not running: start it with 'lab/lab up'")
        return found

    def find(self):
        """The running sandbox, or None."""
        if self._sandbox and Path(f"/proc/{self._sandbox.pid}/ns/net").exists():
            return self._sandbox
        pid = init_of(self.upper)
        self._sandbox = Sandbox(self.name, pid, self.logs) if pid else None
        return self._sandbox

    def create(self, tree):
        """Makes the sandbox over the Debian tree `tree`."""
        for directory in (self.upper, self.logs):
            directory.mkdir(parents=True, exist_ok=True)
        try:
            self._sandbox = Sandbox.create(
                self.name, lower=tree, upper=self.upper, logs=self.logs, binds=[REPOSITORY], outlive=True
            )
        except RuntimeError as error:
            raise LabError(
                f"{error}\nThe lab's files are in {self.directory}; it must be on a file system that can be "
                "the upper layer of an overlay (ext4, xfs, btrfs, tmpfs), with room."
            ) from error
        for directory in (RUN, KEPT):
            self.path(directory).mkdir(exist_ok=True)
        return self._sandbox

    def path(self, inside):
        """How this machine reaches the file `inside` (absolute) of the running lab."""
        return Path(f"/proc/{self.sandbox.pid}/root{inside}")

    def host(self, name):
        """A network namespace of the lab that exists already."""
        return Host(self.sandbox, name)

    def run(self, argv, log, env=None, timeout=600):
        """Runs a command to its end, output to the log named `log`; LabError with the log's end when it fails."""
        file = self.logs / f"{log}.log"
        words = ["env", *(f"{key}={value}" for key, value in (env or {}).items()), *map(str, argv)]
        # Killed with this process, even by SIGKILL: a migration must not go on beside the one that a next `up` begins.
        mortal = ["setpriv", "--pdeathsig", "KILL"]
        result = subprocess.run(
            [*mortal, *self.sandbox.enter, *mortal, "sh", "-c", 'exec "$@" >>"$0" 2>&1', file, *words],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
        if result.returncode:
            raise LabError(
                f"{log}: '{' '.join(map(str, argv))[:200]}' ended with {result.returncode}; "
                f"log {file}, its end:{tail(file)}"
            )

    @contextlib.contextmanager
    def locked(self, tell):
        """Only one process at a time changes a lab."""
        if os.geteuid() != 0:
            raise LabError("the lab makes namespaces and mounts: run it as root")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"can't make {self.directory}: {error.strerror}; TSUJI_STATE names another place") from error
        with open(self.directory / "lock", "w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"another process is changing the lab '{self.name}': waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def delete_files(self):
        """Removes all that the lab kept, except the lock."""
        for directory in (self.upper, self.logs):
            shutil.rmtree(directory, ignore_errors=False) if directory.exists() else None
