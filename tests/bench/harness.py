#!/usr/bin/python3
"""Runs a benchmark suite, prints its table and writes build/bench.json.

A suite is a file tests/bench/bench_NAME.py with a function run(bench) that calls bench.record(...). The machine's
speed drifts, so what is to be compared is measured in one run, alternating, and told as median with minimum and
maximum. Nothing here asserts: a benchmark measures.
"""
import importlib.util
import json
import signal
import statistics
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "build/bench.json"
sys.path.insert(0, str(REPOSITORY / "lab"))


class Bench:
    """Collects the figures of one suite."""

    def __init__(self, suite):
        self.suite, self.rows = suite, []

    def record(self, case, subject, unit, values):
        """Takes the values of all runs of one case for one subject (what is compared), in `unit`."""
        values = [float(value) for value in values]
        if not values:
            raise ValueError(f"{self.suite}: {case}, {subject}: no values")
        self.rows.append({"suite": self.suite, "case": case, "subject": subject, "unit": unit,
                          "median": statistics.median(values), "min": min(values), "max": max(values),
                          "runs": len(values)})
        return self.rows[-1]

    def table(self):
        head = ("case", "subject", "unit", "median", "min", "max", "runs")
        lines = [head] + [tuple(f"{row[name]:.6g}" if isinstance(row[name], float) else str(row[name])
                                for name in head) for row in self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        right = {"median", "min", "max", "runs"}
        return "\n".join("  ".join(cell.rjust(width) if name in right else cell.ljust(width)
                                   for cell, width, name in zip(line, widths, head)).rstrip() for line in lines)


def suites():
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in suites():
        print("usage: make bench SUITE=name\nsuites:", *suites(), file=sys.stderr)
        sys.exit(2)
    # A suite that is told to end prints what it has measured so far.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    suite = sys.argv[1]
    spec = importlib.util.spec_from_file_location(f"bench_{suite}", Path(__file__).parent / f"bench_{suite}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    bench = Bench(suite)
    try:
        module.run(bench)
    finally:
        # What was measured before a failure is not lost.
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(bench.rows, indent=1) + "\n")
        print(bench.table())
    print(f"written: {RESULTS.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
