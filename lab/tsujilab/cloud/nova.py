"""What `lab up --nova` adds: RabbitMQ, Glance, Placement, Nova with libvirt and QEMU, and an image to boot.

Servers are emulated, or run by KVM where /dev/kvm exists. Messages need not outlive the lab: RabbitMQ starts empty.
"""

import datetime

from tsujilab.cloud import image
from tsujilab.cloud.api import Cloud
from tsujilab.cloud.database import migrations
from tsujilab.cloud.graph import Step
from tsujilab.cloud.instance import CONF, RUN
from tsujilab.cloud.keystone import uwsgi
from tsujilab.cloud.service import Service, answers, serves_http, serves_tcp
from tsujilab.sandbox import until

VIRT = f"{RUN}/nova-virt.conf"
NOVA = ["--config-file", f"{CONF}/nova.conf", "--config-file", VIRT]
BINARIES = ("nova-conductor", "nova-scheduler", "nova-compute")
# Name -> vCPUs and MB of memory. A disk of 0 is for administrators only.
FLAVORS = {"tiny": (1, 128), "small": (1, 512)}


def make_files(lab, _):
    """Directories, and configuration that stands at fixed places or depends on this machine."""
    kvm = lab.path("/dev/kvm").exists()
    lab.path(VIRT).write_text(f"[libvirt]\nvirt_type = {'kvm' if kvm else 'qemu'}\n")
    for file in ("libvirtd.conf", "qemu.conf"):
        lab.path(f"/etc/libvirt/{file}").write_text((CONF / file).read_text())
    lab.sandbox.run("mkdir -p /run/lock/nova /var/lib/nova/instances /var/lib/glance/images /run/libvirt")
    lab.sandbox.run("install -d -o rabbitmq -g rabbitmq /run/rabbitmq /var/log/rabbitmq")


def rabbitmq():
    # One scheduler thread that does not spin while it waits.
    env = {
        "RABBITMQ_NODENAME": "rabbit@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": "/run/rabbitmq",
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
    }
    return Service(
        "rabbitmq",
        ["rabbitmq-server"],
        ("files", "nova-files"),
        env=env,
        ready=serves_tcp(5672),
        timeout=120,
        url="amqp://127.0.0.1:5672",
    )


def wait_ready(lab, _):
    """Waits until conductor, scheduler and compute have reported since this start of the lab."""
    admin = Cloud(lab, "admin")
    started = {service.name: service.uptime(lab) for service in services() if service.name in BINARIES}
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)

    def reported():
        rows = {row["binary"]: row for row in admin.call("compute", "GET", "/os-services")["services"]}
        return all(
            name in rows
            and rows[name]["state"] == "up"
            and rows[name]["updated_at"]
            and datetime.datetime.fromisoformat(rows[name]["updated_at"])
            > now - datetime.timedelta(seconds=uptime or 0)
            for name, uptime in started.items()
        )

    until(reported, "Nova's conductor, scheduler and compute to report; see 'lab/lab logs nova-compute'", 180, 1)


def wait_host(lab, _):
    """Waits until the scheduler knows this machine."""
    admin = Cloud(lab, "admin")
    manage = ["nova-manage", *NOVA, "cell_v2"]
    until(
        lambda: admin.call("compute", "GET", "/os-hypervisors")["hypervisors"],
        "nova-compute's record of this machine",
        180,
        1,
    )
    lab.run([*manage, "discover_hosts"], "nova-hosts")


def make_flavors(lab, _):
    admin = Cloud(lab, "admin")
    have = {flavor["name"] for flavor in admin.call("compute", "GET", "/flavors")["flavors"]}
    for name, (vcpus, ram) in FLAVORS.items():
        if name not in have:
            admin.call("compute", "POST", "/flavors", {"flavor": {"name": name, "vcpus": vcpus, "ram": ram, "disk": 1}})


def services():
    return [task for task in tasks() if isinstance(task, Service)]


def tasks():
    base = ("nova-schema", "rabbitmq", "nova-files")
    return [
        Step("nova-files", make_files),
        rabbitmq(),
        migrations("glance", "glance-common", ["glance-manage", "--config-file", f"{CONF}/glance-api.conf", "db_sync"]),
        migrations(
            "placement",
            "placement-common",
            ["placement-manage", "--config-file", f"{CONF}/placement.conf", "db", "sync"],
        ),
        migrations(
            "nova",
            "nova-common",
            ["nova-manage", *NOVA, "api_db", "sync"],
            [
                "nova-manage",
                *NOVA,
                "cell_v2",
                "map_cell0",
                "--database_connection",
                "mysql+pymysql://os:os@127.0.0.1/nova_cell0?charset=utf8",
            ],
            ["nova-manage", *NOVA, "db", "sync"],
            once=[["nova-manage", *NOVA, "cell_v2", "create_cell", "--name", "cell1"]],
            databases=("nova_api", "nova_cell0", "nova"),
            needs=("nova-files",),
        ),
        Service(
            "glance",
            ["glance-api", "--config-file", f"{CONF}/glance-api.conf"],
            ("glance-schema", "keystone", "nova-files"),
            ready=serves_http(9292),
            url="http://127.0.0.1:9292",
        ),
        uwsgi(
            "placement",
            8778,
            "/usr/bin/placement-api",
            {"OS_PLACEMENT_CONFIG_DIR": CONF},
            ("placement-schema", "keystone"),
        ),
        Service(
            "nova-api",
            ["nova-api", *NOVA],
            (*base, "keystone"),
            ready=serves_http(8774),
            timeout=180,
            url="http://127.0.0.1:8774/v2.1",
        ),
        Service("nova-conductor", ["nova-conductor", *NOVA], base),
        Service("nova-scheduler", ["nova-scheduler", *NOVA], (*base, "placement", "catalogue")),
        Service("libvirtd", ["libvirtd"], ("nova-files",), ready=answers("virsh", "-c", "qemu:///system", "version")),
        Service(
            "nova-compute",
            ["nova-compute", *NOVA],
            (*base, "libvirtd", "placement", "catalogue", "neutron", "nova-conductor", "ovs-bridges"),
        ),
        Step("nova-ready", wait_ready, ("nova-compute", "nova-scheduler", "nova-api", "accounts")),
        Step("nova-host", wait_host, ("nova-ready",), lambda lab: "1", "this machine becomes a compute host"),
        Step("nova-flavors", make_flavors, ("nova-api", "accounts", "catalogue"), lambda lab: repr(FLAVORS)),
        Step("image", image.publish, ("glance", "catalogue"), lambda lab: image.digest(), "a small image to boot"),
    ]
