"""Neutron with ML2/OVN and the driver of this repository, and the flavors with which tenants ask for its routers.

It runs as Debian 13 ships it: the API under uWSGI in two processes, and the OVN maintenance worker. The older
neutron-server with several workers loses places in ML2/OVN's hash ring (each worker removes the others' when their
start times differ by a second), and Neutron says itself that uWSGI is its only supported loader. The RPC server and
the periodic workers serve agents, of which ML2/OVN has none: they are left out, for time and memory.
"""

from tsujilab.cloud.api import Cloud
from tsujilab.cloud.database import migrations
from tsujilab.cloud.graph import Step
from tsujilab.cloud.instance import CONF
from tsujilab.cloud.service import Service, serves_http
from tsujilab.root import REPOSITORY

DRIVER = "networking_tsuji.driver.TsujiDriver"
ENV = {"PYTHONPATH": REPOSITORY / "neutron"}
# Name of the flavor -> what its service profile says about the router.
FLAVORS = {
    "tsuji": ('{"ha": false}', "A router of your own: one node"),
    "tsuji-ha": ('{"ha": true}', "A router of your own: a pair of nodes"),
}


def config(nova):
    files = ["neutron.conf", *(["neutron-nova.conf"] if nova else [])]
    return [word for file in files for word in ("--config-file", f"{CONF}/{file}")]


def make_flavors(lab, _):
    """Flavors and service profiles that name the driver."""
    cloud = Cloud(lab, "admin")
    for name, (metainfo, description) in FLAVORS.items():
        flavor = (
            cloud.list("flavor", name=name)
            or [cloud.create("flavor", name=name, service_type="L3_ROUTER_NAT", description=description, enabled=True)]
        )[0]
        if not flavor["service_profiles"]:
            profile = cloud.create("service_profile", driver=DRIVER, metainfo=metainfo, description=name, enabled=True)
            cloud.call(
                "network",
                "POST",
                f"/flavors/{flavor['id']}/service_profiles",
                {"service_profile": {"id": profile["id"]}},
            )


def before(lab):
    for directory in ("/var/lib/neutron", "/run/lock/neutron"):
        lab.path(directory).mkdir(exist_ok=True)


def tasks(nova=False):
    needs = ("files", "neutron-schema", "keystone", "ovn-northd", *(["rabbitmq"] if nova else []))
    return [
        migrations("neutron", "neutron-common", ["neutron-db-manage", *config(False), "upgrade", "heads"]),
        Service(
            "neutron",
            [
                "uwsgi",
                "--ini",
                f"{CONF}/uwsgi.ini",
                "--processes",
                "2",
                "--threads",
                "1",
                "--http-socket",
                "127.0.0.1:9696",
                "--wsgi-file",
                "/usr/bin/neutron-api",
                "--pyargv",
                " ".join(map(str, config(nova))),
            ],
            needs,
            env=ENV,
            before=before,
            ready=serves_http(9696),
            timeout=180,
            url="http://127.0.0.1:9696",
        ),
        Service("neutron-ovn", ["neutron-ovn-maintenance-worker", *config(nova)], needs, env=ENV, before=before),
        Step("flavors", make_flavors, ("neutron", "accounts"), lambda lab: repr((DRIVER, FLAVORS))),
    ]
