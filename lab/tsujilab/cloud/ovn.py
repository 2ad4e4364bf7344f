"""Open vSwitch with the userspace datapath, and OVN, on one machine: databases, switch, northd, controller.

The daemons are started one by one: ovs-ctl insists on the kernel's module. The switch's own database lives in the
sandbox's /run, since its ports (namespaces, taps) end with the sandbox too; OVN's two databases are kept.
"""

from tsujilab.cloud.graph import Step
from tsujilab.cloud.instance import KEPT
from tsujilab.cloud.service import Service, answers

OVS, OVN = "/run/openvswitch", "/run/ovn"
NB, SB = "tcp:127.0.0.1:6641", "tcp:127.0.0.1:6642"
SWITCH = f"unix:{OVS}/db.sock"
# Not the alternative /usr/sbin/ovs-vswitchd: with openvswitch-switch-dpdk installed that is the DPDK build, with which
# Neutron binds every port as vhost-user.
VSWITCHD = "/usr/lib/openvswitch-switch/ovs-vswitchd"


def database(name, port=None):
    """An OVN database server, northbound ("nb") or southbound ("sb")."""
    file = f"{KEPT}/ovn/ovn{name}_db.db"

    def before(lab):
        lab.path(OVN).mkdir(exist_ok=True)
        lab.path(f"{KEPT}/ovn").mkdir(exist_ok=True)
        if not lab.path(file).exists():
            lab.sandbox.run(f"ovsdb-tool create {file} /usr/share/ovn/ovn-{name}.ovsschema")
        elif (
            lab.sandbox.out(f"ovsdb-tool needs-conversion {file} /usr/share/ovn/ovn-{name}.ovsschema").strip() == "yes"
        ):
            lab.sandbox.run(f"ovsdb-tool convert {file} /usr/share/ovn/ovn-{name}.ovsschema")

    return Service(
        f"ovn-{name}",
        [
            "ovsdb-server",
            file,
            f"--remote=punix:{OVN}/ovn{name}_db.sock",
            f"--remote=ptcp:{port}:127.0.0.1",
            f"--unixctl={OVN}/ovn{name}_db.ctl",
            f"--pidfile={OVN}/ovn{name}_db.pid",
            "-vconsole:info",
        ],
        before=before,
        url=f"tcp:127.0.0.1:{port}",
        ready=answers("ovsdb-client", "-t", "5", "list-dbs", f"unix:{OVN}/ovn{name}_db.sock"),
    )


def make_switch_database(lab):
    lab.path(OVS).mkdir(exist_ok=True)
    if not lab.path(f"{OVS}/conf.db").exists():
        lab.sandbox.run(f"ovsdb-tool create {OVS}/conf.db /usr/share/openvswitch/vswitch.ovsschema")


def settings(lab, _):
    """What must stand before the switch starts."""
    external = {
        "system-id": lab.name,
        "hostname": lab.name,
        "ovn-remote": SB,
        "ovn-encap-type": "geneve",
        "ovn-encap-ip": "127.0.0.1",
        "ovn-bridge": "br-int",
        "ovn-bridge-datapath-type": "netdev",
        "ovn-bridge-mappings": "physnet1:br-ex",
        "ovn-cms-options": "enable-chassis-as-gw",
    }
    lab.sandbox.run(["ovs-vsctl", "--no-wait", "init"])
    # Without segmentation offload in userspace, packets whose checksum the kernel left to the device are dropped:
    # ping works and TCP does not.
    lab.sandbox.run(
        [
            "ovs-vsctl",
            "--no-wait",
            "set",
            "open",
            ".",
            "other_config:userspace-tso-enable=true",
            *(f'external_ids:{key}="{value}"' for key, value in external.items()),
        ]
    )


def bridges(lab, _):
    for bridge, mode in (("br-int", "secure"), ("br-ex", "standalone")):
        lab.sandbox.run(
            [
                "ovs-vsctl",
                "--may-exist",
                "add-br",
                bridge,
                "--",
                "set",
                "bridge",
                bridge,
                "datapath_type=netdev",
                f"fail-mode={mode}",
            ]
        )
        lab.sandbox.run(["ip", "link", "set", bridge, "up"])


def tasks():
    return [
        Service(
            "ovs-db",
            [
                "ovsdb-server",
                f"{OVS}/conf.db",
                f"--remote=punix:{OVS}/db.sock",
                f"--pidfile={OVS}/ovsdb-server.pid",
                "-vconsole:info",
            ],
            before=make_switch_database,
            ready=answers("ovsdb-client", "-t", "5", "list-dbs", SWITCH),
        ),
        Step("ovs-settings", settings, ("ovs-db",)),
        Service(
            "ovs-switch",
            [VSWITCHD, SWITCH, f"--pidfile={OVS}/ovs-vswitchd.pid", "-vconsole:info"],
            ("ovs-settings",),
            ready=answers("ovs-appctl", "-T", "5", "version"),
        ),
        Step("ovs-bridges", bridges, ("ovs-switch",)),
        database("nb", 6641),
        database("sb", 6642),
        Service(
            "ovn-northd",
            [
                "ovn-northd",
                f"--ovnnb-db=unix:{OVN}/ovnnb_db.sock",
                f"--ovnsb-db=unix:{OVN}/ovnsb_db.sock",
                f"--pidfile={OVN}/ovn-northd.pid",
                "-vconsole:info",
            ],
            ("ovn-nb", "ovn-sb"),
            ready=answers("ovn-appctl", "-T", "5", "-t", "ovn-northd", "version"),
        ),
        Service(
            "ovn-controller",
            ["ovn-controller", SWITCH, f"--pidfile={OVN}/ovn-controller.pid", "-vconsole:info"],
            ("ovs-bridges", "ovn-sb"),
            ready=answers("ovn-appctl", "-T", "5", "-t", "ovn-controller", "version"),
        ),
    ]
