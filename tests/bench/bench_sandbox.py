"""How long a test waits for its machines: a sandbox, a host in it, a link, and the end of it all."""
import time

from tsujilab.sandbox import Sandbox

RUNS = 10


def run(bench):
    times = {"sandbox": [], "host": [], "link": [], "command": [], "close": []}

    def timed(name, call, *arguments):
        start = time.perf_counter()
        result = call(*arguments)
        times[name].append((time.perf_counter() - start) * 1000)
        return result

    for _ in range(RUNS):
        sandbox = timed("sandbox", Sandbox.create, "bench")
        a, b = timed("host", sandbox.host, "a"), sandbox.host("b")
        timed("link", sandbox.link, a, "eth0", b, "eth0")
        timed("command", a.run, "true")
        timed("close", sandbox.close)
    for name, values in times.items():
        bench.record(case=name, subject="namespaces", unit="ms", values=values)
