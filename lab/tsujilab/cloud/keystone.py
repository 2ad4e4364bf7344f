"""Keystone, and the accounts of the lab.

All passwords are "secret": nothing outside the lab's network namespace can reach it.
"""

from tsujilab.cloud.api import Cloud
from tsujilab.cloud.database import migrations, version_of
from tsujilab.cloud.graph import Step
from tsujilab.cloud.instance import CONF, KEPT
from tsujilab.cloud.service import Service, serves_http

URL = "http://127.0.0.1:5000/v3"
ENV = {"OS_KEYSTONE_CONFIG_DIR": CONF, "OS_KEYSTONE_CONFIG_FILES": f"{CONF}/keystone.conf"}
MANAGE = ["keystone-manage", "--config-file", f"{CONF}/keystone.conf"]
# Account -> project and roles. docs/lab.md says why `tsuji` has each of its roles; test_lab.py proves it.
ACCOUNTS = {
    "red": ("red-cell", ("member",)),
    "blue": ("blue-cell", ("member",)),
    "tsuji": ("tsuji", ("member", "service")),
    "neutron": ("service", ("service", "admin")),
    "nova": ("service", ("service", "admin")),
    "glance": ("service", ("service", "admin")),
    "placement": ("service", ("service", "admin")),
}
SERVICES = {"network": ("neutron", "http://127.0.0.1:9696")}
NOVA_SERVICES = {
    "compute": ("nova", "http://127.0.0.1:8774/v2.1"),
    "image": ("glance", "http://127.0.0.1:9292"),
    "placement": ("placement", "http://127.0.0.1:8778"),
}


def make_keys(lab, _):
    """The keys of tokens and credentials."""
    lab.path(f"{KEPT}/keystone").mkdir(exist_ok=True)
    for what in ("fernet_setup", "credential_setup"):
        lab.run([*MANAGE, what, "--keystone-user", "root", "--keystone-group", "root"], "keystone-keys")


def bootstrap(lab, _):
    """The account admin, the catalogue's entry of Keystone itself, and the default roles."""
    urls = [word for kind in ("admin", "internal", "public") for word in (f"--bootstrap-{kind}-url", URL)]
    lab.run(
        [*MANAGE, "bootstrap", "--bootstrap-password", "secret", "--bootstrap-region-id", "RegionOne", *urls],
        "keystone-bootstrap",
    )


def ensure(cloud, kind, name, **fields):
    """The id of an object of Keystone, made when absent. kind: "projects", "users", "roles"."""
    found = cloud.call("identity", "GET", f"/{kind}?name={name}")[kind]
    return (found or [cloud.call("identity", "POST", f"/{kind}", {kind[:-1]: {"name": name, **fields}})[kind[:-1]]])[0][
        "id"
    ]


def make_accounts(lab, _):
    cloud = Cloud(lab, "admin")
    roles = {role: ensure(cloud, "roles", role) for role in ("member", "service", "admin")}
    for user, (project, granted) in ACCOUNTS.items():
        project_id = ensure(cloud, "projects", project, domain_id="default")
        user_id = ensure(cloud, "users", user, domain_id="default", password="secret")
        for role in granted:
            cloud.call("identity", "PUT", f"/projects/{project_id}/users/{user_id}/roles/{roles[role]}")


def make_catalogue(services):
    """An act: the endpoints of services in Keystone's catalogue."""

    def act(lab, _):
        cloud = Cloud(lab, "admin")
        have = {service["type"]: service["id"] for service in cloud.call("identity", "GET", "/services")["services"]}
        for kind, (name, url) in services.items():
            service = (
                have.get(kind)
                or cloud.call("identity", "POST", "/services", {"service": {"type": kind, "name": name}})["service"][
                    "id"
                ]
            )
            if cloud.call("identity", "GET", f"/endpoints?service_id={service}")["endpoints"]:
                continue
            for interface in ("internal", "public"):
                cloud.call(
                    "identity",
                    "POST",
                    "/endpoints",
                    {"endpoint": {"service_id": service, "interface": interface, "url": url, "region_id": "RegionOne"}},
                )

    return act


def uwsgi(name, port, script, env, needs):
    """A WSGI service under uWSGI, as Debian runs them."""
    return Service(
        name,
        ["uwsgi", "--ini", f"{CONF}/uwsgi.ini", "--http-socket", f"127.0.0.1:{port}", "--wsgi-file", script],
        needs,
        env=env,
        ready=serves_http(port),
        url=f"http://127.0.0.1:{port}",
    )


def tasks(nova=False):
    services = {**SERVICES, **(NOVA_SERVICES if nova else {})}
    return [
        Step("keystone-keys", make_keys, (), lambda lab: "1"),
        migrations("keystone", "keystone", [*MANAGE, "db_sync"]),
        Step("keystone-bootstrap", bootstrap, ("keystone-schema", "keystone-keys"), version_of("keystone")),
        uwsgi("keystone", 5000, "/usr/bin/keystone-wsgi-public", ENV, ("keystone-bootstrap",)),
        Step("accounts", make_accounts, ("keystone",), lambda lab: repr(ACCOUNTS), "projects, users, roles"),
        Step("catalogue", make_catalogue(services), ("accounts",), lambda lab: repr(services)),
    ]
