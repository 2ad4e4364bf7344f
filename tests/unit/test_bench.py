"""The benchmark harness counts right and refuses nonsense."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).resolve().parents[1] / "bench/harness.py"
sys.path.insert(0, str(HARNESS.parent))
from harness import Bench


def test_record_takes_median_and_spread():
    bench = Bench("s")
    row = bench.record("case", "ours", "ms", [5, 1, 3])
    assert row == {"suite": "s", "case": "case", "subject": "ours", "unit": "ms",
                   "median": 3.0, "min": 1.0, "max": 5.0, "runs": 3}
    assert "case  ours     ms         3    1    5     3" in bench.table()


def test_record_refuses_an_empty_measurement():
    with pytest.raises(ValueError, match="s: case, ours: no values"):
        Bench("s").record("case", "ours", "ms", [])


def test_a_suite_told_to_end_keeps_what_it_measured(tmp_path):
    """SIGTERM in the middle of a suite: the table and build/bench.json hold the rows so far."""
    for name in ("lab", "tests/bench"):
        (tmp_path / name).mkdir(parents=True)
    harness = tmp_path / "tests/bench/harness.py"
    harness.write_text(HARNESS.read_text())
    (tmp_path / "tests/bench/bench_slow.py").write_text(
        "import time\ndef run(bench):\n    bench.record('a', 'ours', 'ms', [1])\n    print('recorded', flush=True)\n"
        "    time.sleep(60)\n")
    with subprocess.Popen([sys.executable, harness, "slow"], text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "recorded\n"
        process.terminate()
        assert "a     ours     ms" in process.stdout.read()
    assert json.loads((tmp_path / "build/bench.json").read_text())[0]["case"] == "a"
