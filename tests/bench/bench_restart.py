"""The restart matrix: what is lost when forwarder, zebra, bgpd and bfdd die, each and in pairs, and return.

Each cell is a node of its own (lab/tsujilab/tapnode.py): SIGKILL, 0.5 s as a supervisor needs, return, and 30 s to
look for what stays broken. BFD off and on, FRR of Debian 12 and 13; where zebra dies, under each policy for what
follows (tapnode.POLICIES). Traffic is one datagram per 10 ms, way and family. A figure is the worse of IPv4 and IPv6;
the lines printed on the way show both. Cells mostly wait, so several run at a time.

TSUJI_BENCH_RELEASES=bookworm,trixie and TSUJI_BENCH_PARALLEL=6 may be set.
"""
import itertools
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tsujilab import root
from tsujilab.sandbox import Sandbox
from tsujilab.tapnode import PARTS, POLICIES, REPOSITORY, TapNode
from tsujilab.trial import Trial

RETURN_S = 0.5
WATCH_S = 30
# The failures that the design leans on are measured this often, the others once.
RUNS = 3
KEY_FAILURES = {("forwarder",), ("zebra",), ("bgpd",), ("bfdd",)}
MEASURES = {
    "lost, tenant to server": ("ms", lambda trial: max(trial.out_ms.values())),
    "lost, server to tenant": ("ms", lambda trial: max(trial.in_ms.values())),
    "prefix withdrawn at the peer": ("ms", lambda trial: max(trial.withdrawn_ms.values())),
    "routes out of the node's kernel": ("ms", lambda trial: max(trial.routes_lost_ms.values())),
    "sessions lost": ("of 2", lambda trial: sum(trial.flapped.values())),
    "black hole at the end": ("of 2", lambda trial: list(trial.state.values()).count("black hole")),
}


class Cell:
    """One failure under one set of conditions."""

    def __init__(self, release, parts, bfd, policy="resync", return_s=RETURN_S, graceful=False):
        self.release, self.parts, self.bfd, self.policy = release, parts, bfd, policy
        self.return_s, self.graceful = return_s, graceful

    def __str__(self):
        words = [" + ".join(self.parts), {None: "BFD off", "bfdd": "BFD on", "bgpd": "BFD by bgpd"}[self.bfd]]
        if "zebra" in self.parts and "bgpd" not in self.parts:
            words.append(f"policy {self.policy}")
        if self.return_s != RETURN_S:
            words.append(f"back after {self.return_s:g} s")
        if self.graceful:
            words.append("graceful restart")
        return ", ".join(words)

    @property
    def runs(self):
        usual = self.return_s == RETURN_S and not self.graceful and self.bfd != "bgpd"
        return RUNS if self.parts in KEY_FAILURES and usual else 1

    def measure(self, lower):
        """Returns the FRR version and the ended Trial."""
        with tempfile.TemporaryDirectory() as logs, \
                Sandbox.create("restart", lower=lower, logs=logs, binds=[REPOSITORY]) as sandbox:
            node = TapNode(sandbox).route(bfd=self.bfd, policy=self.policy, graceful=self.graceful)
            version = node.frr.ask("bgpd", "show version").split()[1]
            trial = Trial(node).begin()
            node.kill(*self.parts)
            time.sleep(self.return_s)
            node.revive(*self.parts)
            time.sleep(max(0, trial.start + WATCH_S - time.monotonic()))
            return version, trial.end()


def cells(releases):
    """The matrix: 10 failures x BFD x policy where zebra dies without bgpd, and some more questions.

    BFD on: the node's bfdd is configured with the admin routers; BFD by bgpd: "neighbor … bfd" on the node, too.
    """
    failures = [(part,) for part in PARTS] + list(itertools.combinations(PARTS, 2))
    for parts, bfd, release in itertools.product(failures, (None, "bfdd"), releases):
        policies = POLICIES if "zebra" in parts and "bgpd" not in parts else ("resync",)
        for policy in policies:
            yield Cell(release, parts, bfd, policy)
    for bfd, release in itertools.product((None, "bfdd"), releases):
        yield Cell(release, ("forwarder",), bfd, return_s=2)
        yield Cell(release, ("bgpd",), bfd, graceful=True)
    for part, release in itertools.product(PARTS, releases):
        yield Cell(release, (part,), "bgpd", return_s=2 if part == "forwarder" else RETURN_S)


def run(bench):
    releases = os.environ.get("TSUJI_BENCH_RELEASES", ",".join(root.RELEASES)).split(",")
    lowers = {release: "/" if release == root.host_release() else root.installed_root(release, "test", progress=print)
              for release in releases}
    # Each cell once, then the key ones again, so that no cell's runs share one busy minute of the machine.
    plan = [cell for run in range(RUNS) for cell in cells(releases) if run < cell.runs]
    results, printing, done = {}, threading.Lock(), itertools.count(1)

    def measure(cell):
        version, trial = cell.measure(lowers[cell.release])
        with printing:
            results.setdefault((f"FRR {version}", str(cell)), []).append(trial)
            print(f"[{next(done)}/{len(plan)}] FRR {version}: {cell}: {trial}", flush=True)

    with ThreadPoolExecutor(int(os.environ.get("TSUJI_BENCH_PARALLEL", "6"))) as pool:
        futures = [pool.submit(measure, cell) for cell in plan]
    problems = [f"{cell}: {future.exception()}" for cell, future in zip(plan, futures) if future.exception()]
    for (subject, case), trials in results.items():
        for measure_name, (unit, value) in MEASURES.items():
            bench.record(case=f"{case}: {measure_name}", subject=subject, unit=unit, values=map(value, trials))
    if problems:
        raise RuntimeError(f"{len(problems)} of {len(plan)} cells could not be measured, the first: {problems[0]}")
