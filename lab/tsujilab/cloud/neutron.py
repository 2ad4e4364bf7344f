"""Neutron with ML2/OVN and the driver of this repository, and the flavors with which tenants ask for its routers.

neutron-server, not the separate API, RPC and maintenance programs: one start loads the code once (seconds and memory
on a small machine), and the driver still lives in several processes.
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
        flavor = (cloud.list("flavor", name=name) or
                  [cloud.create("flavor", name=name, service_type="L3_ROUTER_NAT", description=description, enabled=True)])[0]
        if not flavor["service_profiles"]:
            profile = cloud.create("service_profile", driver=DRIVER, metainfo=metainfo, description=name, enabled=True)
            cloud.call("network", "POST", f"/flavors/{flavor['id']}/service_profiles", {"service_profile": {"id": profile["id"]}})


def before(lab):
    for directory in ("/var/lib/neutron", "/run/lock/neutron"):
        lab.path(directory).mkdir(exist_ok=True)


def tasks(nova=False):
    return [
        migrations("neutron", "neutron-common", ["neutron-db-manage", *config(False), "upgrade", "heads"]),
        Service("neutron", ["neutron-server", *config(nova)],
                ("neutron-schema", "keystone", "ovn-northd", *(["rabbitmq"] if nova else [])), env=ENV, before=before,
                ready=serves_http(9696), timeout=180, url="http://127.0.0.1:9696"),
        Step("flavors", make_flavors, ("neutron", "accounts"), lambda lab: repr((DRIVER, FLAVORS))),
    ]
