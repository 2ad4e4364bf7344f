"""tools/check counts what ran, and takes a missing result for a failure."""
import importlib.machinery
import importlib.util
import subprocess
from pathlib import Path

CHECK = Path(__file__).resolve().parents[2] / "tools/check"


def load():
    loader = importlib.machinery.SourceFileLoader("check", str(CHECK))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check", loader))
    loader.exec_module(module)
    return module


def test_counts_of_junit_files_are_added(tmp_path):
    tally = load().Tally()
    (tmp_path / "a.xml").write_text('<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1"/>'
                                    '<testsuite tests="2" failures="0" errors="0"/></testsuites>')
    tally.add_junit(tmp_path / "a.xml")
    assert str(tally) == "4 passed, 2 failed, 1 skipped"


def test_missing_and_broken_results_are_failures(tmp_path):
    tally = load().Tally()
    (tmp_path / "broken.xml").write_text("<testsuite")
    tally.add_junit(tmp_path / "broken.xml")
    tally.add_junit(tmp_path / "absent.xml")
    assert str(tally) == "0 passed, 2 failed, 0 skipped"


def test_unknown_stage_is_refused():
    result = subprocess.run([CHECK, "nonsense"], text=True, capture_output=True, check=False)
    assert result.returncode != 0 and "usage: tools/check" in result.stderr
