"""Debian trees of other releases, made with debootstrap, in which sandboxes run what this machine's release lacks.

A tree is made once and kept under STATE/roots; later calls only add missing packages. Only one process at a time
changes a tree. The tree is the lower, never written layer of sandboxes.
"""
import fcntl
import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Where trees and labs are kept. Nothing outside it (and the packages that tools/install adds) stays on this machine.
STATE = Path(os.environ.get("TSUJI_STATE", "/var/lib/tsuji"))
RELEASES = ("bookworm", "trixie")


def host_release():
    """This machine's Debian code name."""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.split("=", 1)[1].strip('"')
    return "unknown"


def mirror():
    """The Debian archive that this machine's apt uses."""
    # Without fetched lists apt knows the sites, but not whose they are; so fetch them and look again.
    for refresh in (False, True):
        if refresh:
            subprocess.run(["apt-get", "update", "-q"], stdout=subprocess.DEVNULL, check=True)
        out = subprocess.run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(SITE)",
                              "Created-By: Packages"], text=True, capture_output=True, check=True).stdout
        for line in out.splitlines():
            origin, label, site = (line.split() + ["", ""])[:3]
            if (origin, label) == ("Debian", "Debian"):
                return site
    raise RuntimeError("no Debian archive among this machine's apt sources: add one to /etc/apt/sources.list")


def installed_root(release, *purposes, progress=None):
    """The path of a tree of `release` with the packages of `purposes` (tools/packages); made when absent.

    progress: called with a line of text before each long step.
    """
    if release not in RELEASES:
        raise ValueError(f"'{release}' is not one of {', '.join(RELEASES)}")
    tree = STATE / "roots" / release
    tree.parent.mkdir(parents=True, exist_ok=True)
    log = tree.parent / f"{release}.log"
    tell = progress or (lambda line: None)
    with open(tree.parent / f".{release}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (tree / "var/lib/tsuji-tree").exists():
            tell(f"debootstrap: a Debian {release} tree in {tree} (about a minute; log {log})")
            if tree.exists():
                subprocess.run(["rm", "-rf", "--one-file-system", tree], check=True)
            with open(log, "ab") as output:
                subprocess.run(["debootstrap", "--variant=minbase", "--include=ca-certificates",
                                release, tree, mirror()],
                               stdout=output, stderr=output, check=True)
            # Documentation and translations would double the tree.
            (tree / "etc/dpkg/dpkg.cfg.d/tsuji").write_text(
                "".join(f"path-exclude=/usr/share/{d}/*\n" for d in ("doc", "man", "locale", "info")))
            (tree / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
            (tree / "usr/sbin/policy-rc.d").chmod(0o755)
            (tree / "var/lib/tsuji-tree").touch()
    if purposes:
        tell(f"packages for {', '.join(purposes)} in {tree}")
        subprocess.run([REPOSITORY / "tools/install", "--root", tree, *purposes], check=True,
                       stdout=subprocess.DEVNULL)
    return tree
