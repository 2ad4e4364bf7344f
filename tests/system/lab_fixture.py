"""Fixtures of the tests that need the lab, a whole OpenStack; conftest.py imports them.

The lab must run already (`lab/lab up`, or `make check-cloud`, which makes one of its own): starting it takes longer
than a test should. Tests share it, so each makes its own things in it and deletes them.
"""

import pytest
from tsujilab.cloud import manage
from tsujilab.cloud.instance import Lab
from tsujilab.cloud.scratch import Scratch


@pytest.fixture(scope="session")
def lab(request):
    """The running lab that --lab names ("lab" unless told)."""
    named = request.config.getoption("--lab", default=None)
    lab = Lab(named or "lab")
    rows = manage.status(lab)
    missing = [row["name"] for row in rows if row["state"] != "up"]
    if not rows or missing:
        problem = f"the lab '{lab.name}' is {'not whole: ' + ', '.join(missing) if rows else 'down'}: lab/lab up"
        pytest.fail(problem) if named else pytest.skip(problem)
    return lab


@pytest.fixture
def scratch(lab):
    """Makes things in the lab as tenant red, and deletes them after the test."""
    with Scratch(lab) as made:
        yield made
