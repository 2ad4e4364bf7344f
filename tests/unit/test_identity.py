"""AS number and router-id follow from the MAC (R18), for every MAC a public cloud could hand out."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))
from tsujilab.datacentre import as_number, router_id


@pytest.mark.parametrize(("mac", "number", "identifier"), [
    ("12:34:56:de:10:3f", 4214553151, "0.222.16.63"),
    ("fa:16:3e:00:00:00", 4200000000, "0.0.0.0"),
    ("fa:16:3e:ff:ff:ff", 4216777215, "0.255.255.255"),
])
def test_identity_follows_from_the_mac(mac, number, identifier):
    assert (as_number(mac), router_id(mac)) == (number, identifier)
    # Private AS numbers of 32 bits end at 4294967294 (RFC 6996).
    assert 4200000000 <= number <= 4294967294
