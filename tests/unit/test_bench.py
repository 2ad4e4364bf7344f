"""The benchmark harness counts right and refuses nonsense."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
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
