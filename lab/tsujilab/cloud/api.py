"""The cloud's REST interfaces as one account, from this machine, without an OpenStack library.

An openstack command costs two seconds, a call here some tens of milliseconds; and tests run on a host that has no
OpenStack packages.
"""

import json
import urllib.parse

from tsujilab.cloud.instance import LabError
from tsujilab.cloud.netns import Connection

# Service -> port and path prefix of its API.
SERVICES = {
    "identity": (5000, "/v3"),
    "network": (9696, "/v2.0"),
    "compute": (8774, "/v2.1"),
    "image": (9292, "/v2"),
    "placement": (8778, ""),
}


class ApiError(LabError):
    """An answer with a status of 400 or more; `status` and `text` hold it."""

    def __init__(self, call, status, text):
        self.status, self.text = status, text
        super().__init__(f"{call}: {status} {text[:500]}")


class Cloud:
    """One account's view: Cloud(lab, "admin" | "red" | "blue" | "tsuji").

    create("router", name="r1") and friends speak to Neutron; call() to any service. Objects are the dicts of the API.
    """

    def __init__(self, lab, user, project=None, password="secret"):
        self.lab, self.user = lab, user
        self.project_name = project or {"admin": "admin", "red": "red-cell", "blue": "blue-cell"}.get(user, user)
        self.password = password
        self.token = self.project = None
        self.roles = []

    def log_in(self):
        """Gets a token."""
        scope = {"project": {"name": self.project_name, "domain": {"id": "default"}}}
        account = {"name": self.user, "domain": {"id": "default"}, "password": self.password}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": account}}, "scope": scope}}
        status, headers, text = self._exchange("identity", "POST", "/auth/tokens", body, {})
        if status != 201:
            raise ApiError(f"log in as {self.user} in {self.project_name}", status, text)
        token = json.loads(text)["token"]
        self.token, self.project = headers["X-Subject-Token"], token["project"]["id"]
        self.roles = sorted(role["name"] for role in token["roles"])

    def _exchange(self, service, method, path, body, headers):
        port, prefix = SERVICES[service]
        connection = Connection(self.lab.sandbox.pid, port, timeout=120)
        try:
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            connection.request(
                method, prefix + path, data, {"Content-Type": kind, "Accept": "application/json", **headers}
            )
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode(errors="replace")
        except OSError as error:
            raise LabError(
                f"{method} {service}{path}: no answer on 127.0.0.1:{port} ({error}); 'lab/lab status' shows what runs"
            ) from error
        finally:
            connection.close()

    def call(self, service, method, path, body=None, headers=None):
        """One request; returns the decoded answer, None when it is empty; ApiError from status 400 on."""
        if not self.token:
            self.log_in()
        extra = {"X-Auth-Token": self.token, "OpenStack-API-Version": "compute 2.95", **(headers or {})}
        status, _, text = self._exchange(service, method, path, body, extra)
        if status == 401:
            self.log_in()
            status, _, text = self._exchange(service, method, path, body, {**extra, "X-Auth-Token": self.token})
        if status >= 400:
            raise ApiError(f"{self.user}: {method} {service}{path}", status, text)
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text

    @staticmethod
    def _path(kind, key=None):
        plural = kind[:-1] + "ies" if kind.endswith("y") else kind + "s"
        return (
            "/"
            + {"qos_policies": "qos/policies"}.get(plural, plural)
            .replace("security_groups", "security-groups")
            .replace("security_group_rules", "security-group-rules")
            + (f"/{key}" if key else "")
        )

    def create(self, kind, **fields):
        """Makes an object of Neutron: create("network", name="n"). A field "a__b" is sent as "a:b"."""
        return self.call("network", "POST", self._path(kind), {kind: _fields(fields)})[kind]

    def show(self, kind, key):
        return self.call("network", "GET", self._path(kind, key))[kind]

    def list(self, kind, **filters):
        """All objects of a kind that match: list("port", device_id=...)."""
        query = urllib.parse.urlencode(_fields(filters), doseq=True)
        plural = kind[:-1] + "ies" if kind.endswith("y") else kind + "s"
        return self.call("network", "GET", self._path(kind) + (f"?{query}" if query else ""))[plural]

    def update(self, kind, key, **fields):
        return self.call("network", "PUT", self._path(kind, key), {kind: _fields(fields)})[kind]

    def delete(self, kind, key):
        self.call("network", "DELETE", self._path(kind, key))

    def put(self, kind, key, action, **body):
        """An action on an object: put("router", id, "add_router_interface", subnet_id=...)."""
        return self.call("network", "PUT", f"{self._path(kind, key)}/{action}", _fields(body))


def _fields(fields):
    return {key.replace("__", ":"): value for key, value in fields.items()}
