"""The demo, as a newcomer runs it."""
import re
import subprocess

import pytest
from conftest import REPOSITORY


@pytest.mark.lab
@pytest.mark.proves("R01", "R05", "R06")
def test_demo_shows_traffic_without_nat_and_clears_up(lab):
    """The demo: a tenant with plain openstack commands reaches the data centre, IPv4 and IPv6, without NAT; twice."""
    for _ in range(2):
        result = subprocess.run([REPOSITORY / "lab/demo", "--name", lab.name], text=True, capture_output=True,
                                timeout=400, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        # Four pings (two directions, two families) without loss; the server names the tenant's own address twice.
        assert result.stdout.count(" 0% packet loss") == 4
        assert re.search(r"you are 10\.1\.0\.\d+", result.stdout)
        assert re.search(r"you are \[?2001:0?db8:", result.stdout, re.IGNORECASE)
        # Traceroute names every router on the way, none by a link-local address.
        traces = re.findall(r"\$ traceroute .*?\n\n", result.stdout, re.DOTALL)
        assert len(traces) == 2 and all("169.254." not in trace and "*" not in trace for trace in traces), traces
    result = subprocess.run([REPOSITORY / "lab/demo", "--name", lab.name, "--clear"], text=True, capture_output=True,
                            timeout=200, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    names = [row["name"] for row in lab.sandbox.json("ip -json netns")]
    assert not [name for name in names if name.startswith("demo-")]
