"""MariaDB, small: one server for all services, each with a database of its own.

SQLite won't do: Neutron's migrations alter constraints, and ML2/OVN writes from several processes. Commits go to
the operating system and not to the disk (flush_method nosync, flush at commit 2): killing the server loses nothing,
a crash of the machine may; a lab is then made anew by `lab reset`.
"""

from tsujilab.cloud.graph import Step
from tsujilab.cloud.instance import CONF, KEPT
from tsujilab.cloud.service import Service, answers

DATA = f"{KEPT}/mysql"
SOCKET = "/run/mysqld/mysqld.sock"


def make_data(lab, done):
    if done is None:
        lab.sandbox.run(["rm", "-rf", DATA])
        lab.run(
            ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={DATA}", "--skip-test-db"],
            "database-files",
        )


def before(lab):
    lab.sandbox.run("install -d -o mysql -g mysql /run/mysqld")


def sql(lab, statements):
    """Runs SQL as the database's administrator and returns the rows as text."""
    return lab.sandbox.out(["mariadb", "--no-defaults", "-S", SOCKET, "-N", "-B"], input=statements)


def make_account(lab, _):
    sql(
        lab,
        "CREATE USER IF NOT EXISTS os@localhost IDENTIFIED BY 'os'; CREATE USER IF NOT EXISTS os@'127.0.0.1' "
        "IDENTIFIED BY 'os'; GRANT ALL ON *.* TO os@localhost; GRANT ALL ON *.* TO os@'127.0.0.1';",
    )


def version_of(package):
    """A `once` for steps: the installed version of a package in the lab."""
    return lambda lab: lab.sandbox.out(["dpkg-query", "-W", "-f", "${Version}", package])


def migrations(name, package, *commands, once=(), env=None, databases=None, needs=()):
    """A step: the schema of one service. Begun anew when it was cut the first time; repeated for a newer package.

    once: commands that follow the first time only.
    """

    def act(lab, done):
        for database in databases or (name,):
            if done is None:
                sql(lab, f"DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database} CHARACTER SET utf8mb3;")
        for command in (*commands, *(once if done is None else ())):
            lab.run(command, f"{name}-migrations", env=env)

    return Step(f"{name}-schema", act, ("database-account", *needs), version_of(package), "database migrations")


def tasks():
    return [
        Step("database-files", make_data, (), lambda lab: "1", "an empty MariaDB"),
        Service(
            "mariadb",
            ["mariadbd", f"--defaults-file={CONF}/mariadb.cnf"],
            ("database-files",),
            before=before,
            ready=answers("mariadb-admin", "--no-defaults", "-S", SOCKET, "--connect-timeout=2", "ping"),
            url="mysql://os:os@127.0.0.1:3306",
        ),
        Step("database-account", make_account, ("mariadb",), lambda lab: "1"),
    ]
