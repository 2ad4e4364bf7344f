"""FRR on a host of a sandbox: the real daemons, in the foreground, each a Process that a test can kill and restart.

One instance per host, kept apart by pathspace (`-N HOST`): its sockets are in /run/frr/HOST of the sandbox's tree,
its configuration is one file per daemon in /etc/frr/HOST. The same class drives FRR 8.4 (Debian 12) and 10.3
(Debian 13). What differs between them is handled here:

- 10.x has mgmtd, which holds the configuration of staticd; it ignores the pathspace and reads /etc/frr/staticd.conf,
  hence an /etc/frr of its own for each host: ip-netns(8) shows /etc/netns/HOST/frr there.
- zebra's -K takes its seconds attached ("-K40"): in 10.x the argument is optional, and "-K 40" means 500 seconds.
- A client of zebra that finds no socket tries again only after 10 s, so zebra is started first and waited for.

Nothing supervises the daemons: what dies stays dead until the test restarts it. That is the point of a test.
"""
import json
import shlex
import socket
from pathlib import Path

from .sandbox import until

# The order in which daemons start. Each that is not in the release, or has no configuration, is left out.
DAEMONS = ("mgmtd", "zebra", "staticd", "bfdd", "bgpd")
PROGRAMS = "/usr/lib/frr"
# Not zebra.conf, which zebra would read by itself.
ZEBRA_FILE = "frr.conf"


class FRR:
    """FRR's daemons on `host` (sandbox.Host).

    bgpd, bfdd, staticd, zebra: configuration text of that daemon, or None not to run it (zebra always runs).
    options: further arguments per daemon, e.g. {"zebra": "-K40"}.
    """

    def __init__(self, host, bgpd=None, bfdd=None, staticd=None, zebra="", options=None):
        self.host, self.sandbox = host, host.sandbox
        self.space = host.name or "sandbox"
        self.options = dict(options or {})
        self.processes = {}
        programs = Path(f"/proc/{self.sandbox.pid}/root{PROGRAMS}")
        if not (programs / "zebra").exists():
            raise RuntimeError(f"{host}: no FRR in this Debian tree: install it with tools/install (package frr)")
        texts = {"mgmtd": "", "zebra": zebra, "staticd": staticd, "bfdd": bfdd, "bgpd": bgpd}
        self.texts = {name: texts[name] for name in DAEMONS if texts[name] is not None and (programs / name).exists()}
        self.configure()

    def configure(self, **texts):
        """Writes the daemons' configuration files, those in `texts` (daemon=text) anew. Takes effect at a (re)start."""
        self.texts.update(texts)
        # Seen as /etc/frr by everything started with ip-netns-exec(8), that is by every program of the host.
        files = f"/etc/netns/{self.host.name}/frr" if self.host.name else "/etc/frr"
        script = [f"mkdir -p {files}/{self.space} /run/frr/{self.space}", f": > {files}/{self.space}/vtysh.conf"]
        for daemon, text in self.texts.items():
            text = f"hostname {self.space}\n{text}\n"
            file = ZEBRA_FILE if daemon == "zebra" else f"{daemon}.conf"
            script.append(f"printf %s {shlex.quote(text)} > {files}/{self.space}/{file}")
        # staticd of 10.x is configured by mgmtd, which ignores the pathspace.
        script.append(f"ln -sf {self.space}/staticd.conf {files}/staticd.conf")
        script.append(f"chown -R frr:frr {files} /run/frr/{self.space}; chmod 755 /run/frr /run/frr/{self.space}")
        self.sandbox.sh("\n".join(script))
        return self

    def start(self):
        """Starts every daemon that is not running, waits until each answers, and returns self."""
        for together in (("mgmtd", "zebra"), ("staticd", "bfdd", "bgpd")):
            fresh = [name for name in together if name in self.texts and not self.running(name)]
            for name in fresh:
                self._spawn(name)
            for name in fresh:
                self.wait_ready(name)
            if "zebra" in fresh:
                self._configure_zebra()
        return self

    def _configure_zebra(self):
        """Gives zebra its configuration by vtysh: in 10.x part of it is mgmtd's, and zebra's own file can't have it."""
        if self.texts["zebra"].strip():
            file = f"/etc/frr/{self.space}/{ZEBRA_FILE}"
            result = self.host.run(["vtysh", "-N", self.space, "-f", file], check=False)
            if result.returncode or "%" in result.stdout:
                raise RuntimeError(f"{self.host}: zebra refused its configuration:\n{result.stdout}{result.stderr}")

    def restart(self, daemon, options=None, wait=True):
        """Kills (SIGKILL) one daemon if it runs, starts it, returns its Process. options: its new further arguments."""
        if options is not None:
            self.options[daemon] = options
        if self.running(daemon):
            self.processes[daemon].kill()
        self._spawn(daemon)
        if wait:
            self.wait_ready(daemon)
            if daemon == "zebra":
                self._configure_zebra()
        return self.processes[daemon]

    def daemon(self, name):
        """The Process of a daemon (.pid, .alive, .kill(signal), .output())."""
        return self.processes[name]

    def running(self, name):
        return name in self.processes and self.processes[name].alive

    def stop(self):
        """Kills every daemon, without a word to the neighbours: a power cut."""
        for process in self.processes.values():
            process.kill()

    def _spawn(self, name):
        command = (f"{PROGRAMS}/{name} -N {self.space} -i /run/frr/{self.space}/{name}.pid --log stdout "
                   f" --limit-fds 1024 {self.options.get(name, '')}")
        # A socket that the killed one left would look as if the new one answered.
        self._socket(name).unlink(missing_ok=True)
        self.processes[name] = self.host.start(command, name)

    def _socket(self, name):
        return Path(f"/proc/{self.sandbox.pid}/root/run/frr/{self.space}/{name}.vty")

    def wait_ready(self, name, timeout=20):
        """Waits until a daemon answers commands, which it does after reading its configuration."""
        def answers():
            if not self.running(name):
                raise RuntimeError(f"{self.host}: {name} ended at start:\n{self.processes[name].output()[-2000:]}")
            return "FRRouting" in self.ask(name, "show version")
        until(answers, f"{name} on {self.host} to answer", timeout, 0.02)

    # What it says. vtysh() and json() go through the real vtysh; ask() straight to a daemon, which costs a hundredth.

    def vtysh(self, *commands):
        """The output of vtysh commands, e.g. vtysh("show bgp summary") or vtysh("configure", "router bgp", …)."""
        return self.host.out(["vtysh", "-N", self.space, *(word for line in commands for word in ("-c", line))])

    def json(self, command):
        """The result of a vtysh command that prints JSON (give its "json" keyword)."""
        return json.loads(self.vtysh(command) or "{}")

    def ask(self, daemon, command, timeout=5):
        """The output of a command sent to one daemon over the socket that vtysh uses; OSError when nobody is there."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout)
            line.connect(str(self._socket(daemon)))
            for word in ("enable", command):
                line.sendall(word.encode() + b"\0")
                answer = b""
                # An answer ends with three zero bytes and a status byte.
                while len(answer) < 4 or answer[-4:-1] != b"\0\0\0":
                    more = line.recv(65536)
                    if not more:
                        raise ConnectionResetError(f"{self.host}: {daemon} hung up")
                    answer += more
            return answer[:-4].decode(errors="replace")

    def neighbor(self, peer):
        """bgpd's view of a neighbour as a dict ("bgpState", "connectionsEstablished", "lastResetDueTo", …)."""
        return json.loads(self.ask("bgpd", f"show bgp neighbors {peer} json") or "{}").get(peer, {})

    def established(self, peer, timeout=30):
        """Waits until the session with the peer (its address) is Established; returns neighbor(peer)."""
        def up():
            state = self.neighbor(peer)
            return state.get("bgpState") == "Established" and state
        return until(up, f"the BGP session {self.host} → {peer} to be Established", timeout)

    def not_established(self, peer, timeout=30):
        """Waits until the session with the peer is anything but Established."""
        until(lambda: self.neighbor(peer).get("bgpState") != "Established",
              f"the BGP session {self.host} → {peer} to go down", timeout)

    def bfd_up(self, peer, timeout=30):
        """Waits until the BFD session with the peer is up."""
        until(lambda: any(one.get("peer") == peer and one.get("status") == "up"
                          for one in json.loads(self.ask("bfdd", "show bfd peers json") or "[]")),
              f"the BFD session {self.host} → {peer} to be up", timeout)

    def route(self, prefix, timeout=30):
        """Waits until the kernel of the host has a route to the prefix; returns it as `ip -json route` shows it."""
        family = "-6" if ":" in prefix else "-4"
        return until(lambda: self.host.json(f"ip -json {family} route show {prefix}"),
                     f"a route to {prefix} in {self.host}", timeout)[0]
