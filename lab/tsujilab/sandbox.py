"""A sandbox: a machine within this one, of which nothing stays when it ends.

It has its own network, mount, pid, uts and ipc namespaces and its own file tree: an overlay of a Debian tree
(this machine's, or one made by root.py), whose changes live in memory or in a directory that the caller names.
Process 1 (sandbox_init.py) dies with its owner, even by SIGKILL, and the kernel then ends every process, network
namespace and mount in it. So no test cleans up, and none can forget to. The host's network is never touched.

Hosts are further network namespaces inside the sandbox; veth pairs link them.
"""
import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

INIT = Path(__file__).with_name("sandbox_init.py")
# What a process in a sandbox finds in its environment: nothing of the caller's.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb",
}


class CommandError(RuntimeError):
    """A command in a sandbox ended with a status other than 0."""

    def __init__(self, where, argv, result):
        self.result = result
        super().__init__(f"{where}: '{shlex.join(argv)}' ended with {result.returncode}\n"
                         f"{result.stdout}{result.stderr}".rstrip())


def until(condition, what, timeout=30, interval=0.05):
    """Calls condition() until it returns something true, and returns that; TimeoutError names `what`.

    An exception of type CommandError or OSError counts as "not yet", and the last one is told at the end.
    """
    deadline = time.monotonic() + timeout
    problem = ""
    while True:
        try:
            value = condition()
            if value:
                return value
            problem = f"last seen: {value!r}"
        except (CommandError, OSError, ValueError) as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}; {problem}")
        time.sleep(interval)


def argv_of(command):
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


class Process:
    """A program running in a sandbox. `pid` is its pid on this machine, so os.kill() hits it and nothing else."""

    def __init__(self, popen, name, log):
        self.popen, self.name, self.log = popen, name, log
        # nsenter(1) forks once, to enter the pid namespace; its child is the program.
        children = Path(f"/proc/{popen.pid}/task/{popen.pid}/children")
        found = until(lambda: popen.poll() is not None or children.read_text().split(), f"{name} to start", 10)
        self.pid = int(found[0]) if isinstance(found, list) else None

    @property
    def alive(self):
        return self.popen.poll() is None

    def kill(self, how=signal.SIGKILL):
        """Sends a signal (SIGKILL unless told) and, for those that end it, waits for the end."""
        if self.alive and self.pid:
            try:
                os.kill(self.pid, how)
            except ProcessLookupError:
                # It ended by itself; nsenter is about to.
                self.popen.wait(20)
            if how in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
                self.popen.wait(20)

    def wait(self, timeout=60):
        return self.popen.wait(timeout)

    def output(self):
        return self.log.read_text(errors="replace") if self.log else ""


class Host:
    """A network namespace in a sandbox: a machine as the network sees it."""

    def __init__(self, sandbox, name):
        self.sandbox, self.name = sandbox, name

    def _argv(self, command):
        return [*self.sandbox.enter, *(["ip", "netns", "exec", self.name] if self.name else []), *argv_of(command)]

    def __str__(self):
        return f"{self.sandbox.title}/{self.name}"

    def run(self, command, check=True, input=None, timeout=60):
        """Runs a command (a string is split as a shell splits words) and returns subprocess.CompletedProcess."""
        result = subprocess.run(self._argv(command), env=ENVIRONMENT, input=input, text=True, timeout=timeout,
                                capture_output=True, check=False, errors="replace",
                                **({} if input is not None else {"stdin": subprocess.DEVNULL}))
        if check and result.returncode != 0:
            raise CommandError(self, argv_of(command), result)
        return result

    def out(self, command, **options):
        """The standard output of run()."""
        return self.run(command, **options).stdout

    def json(self, command, **options):
        """The standard output of run(), read as JSON; empty output is an empty list."""
        return json.loads(self.out(command, **options) or "[]")

    def sh(self, script, **options):
        """Runs a script with sh -e."""
        return self.run(["sh", "-ec", script], **options)

    def start(self, command, name=None, **popen):
        """Starts a program in the background; its output goes to the log directory. It dies with the sandbox."""
        argv = argv_of(command)
        name = f"{self.name or 'sandbox'}-{name or os.path.basename(argv[0])}"
        log = self.sandbox.logs / f"{name}.log" if self.sandbox.logs else None
        with open(log or os.devnull, "ab") as output:
            child = subprocess.Popen(self._argv(argv), env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output,
                                     stderr=subprocess.STDOUT, **popen)
        self.sandbox.started.append(child)
        return Process(child, name, log)

    def ping(self, target, count=3, size=56, interval=0.1, options=""):
        """True when every one of `count` echo requests was answered."""
        result = self.run(f"ping -n -q -c {count} -i {interval} -W 1 -s {size} {options} {target}", check=False)
        return f"{count} received" in result.stdout

    def capture(self, interface, expression=""):
        """Records the first 20,000 packets of an interface in the log directory, as HOST-INTERFACE.pcap."""
        file = self.sandbox.logs / f"{self.name}-{interface}.pcap"
        process = self.start(["tcpdump", "-Z", "root", "--immediate-mode", "-U", "-n", "-s", "256", "-c", "20000",
                              "-i", interface, "-w", file, *argv_of(expression)], f"tcpdump-{interface}")
        until(lambda: "listening on" in process.output() or not process.alive, f"tcpdump on {interface}", 10)
        return process


class Sandbox(Host):
    """The machine itself, and as a Host its first network namespace. A context manager."""

    def __init__(self, name, pid, logs=None, popen=None):
        self.enter = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "--"]
        self.pid, self.popen, self.hosts, self.started = pid, popen, {}, []
        self.logs = Path(logs) if logs else None
        super().__init__(self, None)
        self.name = None
        self.title = name

    def __str__(self):
        return self.title

    @classmethod
    def create(cls, name, lower="/", upper=None, binds=(), logs=None, outlive=False, in_place=False,
               host_network=False):
        """Makes a sandbox and waits until it stands.

        lower: the Debian tree it shows. upper: a directory that keeps what is written (else memory, gone with it).
        binds: directories of this machine to show, writable, at the same path. logs: directory for output of
        programs. outlive: it stays when the caller ends (the lab); else it dies with the caller's thread.
        in_place: write into `lower` itself. host_network: no network of its own, to install packages.
        """
        plan = {"name": name, "lower": str(lower), "upper": str(upper) if upper else None,
                "in_place": in_place, "host_network": host_network,
                "binds": [str(path) for path in (*binds, *([logs] if logs else []))]}
        argv = ["unshare", *([] if host_network else ["--net"]), "--mount", "--pid", "--uts", "--ipc", "--fork",
                "--kill-child",
                "/usr/bin/python3", "-I", "-S", str(INIT), json.dumps(plan)]
        if not outlive:
            argv = ["setpriv", "--pdeathsig", "KILL", *argv]
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 env=ENVIRONMENT, start_new_session=True)
        if child.stdout.readline() != b"ready\n":
            child.kill()
            reason = child.stderr.read().decode(errors="replace").strip()
            raise RuntimeError(f"sandbox {name}: {reason or 'did not start'}")
        init = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])
        return cls(name, init, logs, child)

    def host(self, name):
        """A new host, with its loopback up and IPv4 and IPv6 forwarding off."""
        self.run(f"ip netns add {name}")
        host = self.hosts[name] = Host(self, name)
        host.run("ip link set lo up")
        return host

    def link(self, a, a_name, b, b_name, mtu=1500):
        """A cable: a veth pair between two hosts, up at both ends, its offloads off (DPDK's af_packet ignores them)."""
        ends = [["mtu", mtu, *(["netns", host.name] if host.name else [])] for host in (a, b)]
        self.run(["ip", "link", "add", a_name, *ends[0], "type", "veth", "peer", "name", b_name, *ends[1]])
        for host, name in ((a, a_name), (b, b_name)):
            host.run(f"ethtool -K {name} tx off rx off tso off gso off gro off", check=False)
            host.run(f"ip link set dev {name} up")

    def path(self, inside):
        """Where a file of the sandbox is for this machine's programs. No absolute symbolic link may be on the way."""
        return f"/proc/{self.pid}/root{inside}"

    def close(self):
        """Ends everything in it. Never fails; may be called twice."""
        if self.popen and self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(20)
            for child in self.started:
                child.wait(20)
        elif not self.popen:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
