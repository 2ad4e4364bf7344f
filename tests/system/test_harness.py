"""The harness keeps its promises: isolation, nothing left behind even after SIGKILL, evidence after a failure."""
import os
import signal
import subprocess
import sys
from pathlib import Path

from tsujilab.sandbox import until

HERE = Path(__file__).parent


def run_inner(tmp_path, body, *options, **popen):
    """Starts pytest on a test file made of `body`, with our conftest but a log directory of its own."""
    (tmp_path / "inner_plugin.py").write_text(
        "from conftest import *\nimport conftest\nfrom pathlib import Path\n"
        f"conftest.LOGS = Path({str(tmp_path)!r}) / 'logs'\n")
    (tmp_path / "test_inner.py").write_text(body)
    return subprocess.Popen([sys.executable, "-m", "pytest", "-q", "-p", "inner_plugin", "-p", "no:cacheprovider",
                             "--rootdir", str(tmp_path), "--confcutdir", str(tmp_path), *options, "test_inner.py"],
                            cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{HERE}"},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **popen)


def processes_with(word):
    """Pids on this machine whose command line holds `word`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def mounts():
    return Path("/proc/self/mountinfo").read_text().count("\n")


def test_hosts_are_linked_by_both_families(sandbox):
    """Two hosts of a sandbox reach each other by IPv4 and IPv6, and see nothing of this machine's network."""
    a, b = sandbox.host("a"), sandbox.host("b")
    sandbox.link(a, "eth0", b, "eth0")
    for host, number in ((a, 1), (b, 2)):
        host.run(f"ip addr add 192.0.2.{number}/24 dev eth0")
        host.run(f"ip addr add 2001:db8::{number}/64 dev eth0 nodad")
    assert a.ping("192.0.2.2") and a.ping("2001:db8::2")
    assert [link["ifname"] for link in sandbox.json("ip -j link")] == ["lo"]


def test_writes_do_not_reach_this_machine(sandbox):
    """A sandbox may write anywhere in its file tree; this machine's tree stays as it was."""
    sandbox.sh("echo changed >/etc/tsuji-harness-test; rm /etc/hostname || true; echo x >>/etc/passwd")
    assert sandbox.out("cat /etc/tsuji-harness-test") == "changed\n"
    assert not Path("/etc/tsuji-harness-test").exists()
    assert "\nx\n" not in Path("/etc/passwd").read_text()


def test_sigkill_leaves_nothing(tmp_path):
    """After SIGKILL of a test run no process, mount or network namespace of it stays."""
    mark = f"27182{os.getpid()}"
    namespaces = subprocess.run(["ip", "netns"], text=True, capture_output=True, check=True).stdout
    mounted = mounts()
    inner = run_inner(tmp_path, f"""
import time
def test_forever(sandbox):
    host = sandbox.host("a")
    host.start("sleep {mark}")
    sandbox.sh("setsid sleep {mark} & ")
    print("standing", flush=True)
    time.sleep(600)
""", "-s")
    until(lambda: len([pid for pid in processes_with(mark) if pid != inner.pid]) >= 2, "the inner test to stand")
    os.kill(inner.pid, signal.SIGKILL)
    inner.wait(10)
    until(lambda: not processes_with(mark), "its processes to end", 10)
    assert subprocess.run(["ip", "netns"], text=True, capture_output=True, check=True).stdout == namespaces
    assert mounts() == mounted


def test_failure_keeps_evidence(tmp_path):
    """A failing test prints what it should have proved, and leaves state, output and captures in its log directory."""
    inner = run_inner(tmp_path, '''
def test_fails(sandbox):
    """Water flows uphill."""
    a, b = sandbox.host("a"), sandbox.host("b")
    sandbox.link(a, "eth0", b, "eth0")
    a.run("ip addr add 192.0.2.1/24 dev eth0")
    b.run("ip addr add 192.0.2.2/24 dev eth0")
    a.capture("eth0")
    assert a.ping("192.0.2.2")
    a.start("echo said by a program", "talker").wait()
    assert False
''')
    output = inner.communicate(timeout=60)[0]
    assert inner.returncode == 1, output
    assert "FAILED" in output and "Water flows uphill." in output
    directory = tmp_path / "logs/test_inner.py_test_fails/node"
    assert "192.0.2.1/24" in (directory / "a.state").read_text()
    assert "said by a program" in (directory / "a-talker.log").read_text()
    assert (directory / "a-eth0.pcap").stat().st_size > 200


def test_success_keeps_no_logs(tmp_path):
    """A passing test leaves no log directory."""
    inner = run_inner(tmp_path, '''
def test_passes(sandbox):
    """It passes."""
    sandbox.start("echo hello").wait()
''')
    output = inner.communicate(timeout=60)[0]
    assert inner.returncode == 0 and "PASSED" in output, output
    assert not list((tmp_path / "logs").glob("*"))
