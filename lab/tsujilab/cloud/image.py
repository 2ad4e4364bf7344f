"""A small image for servers in the lab: Debian's cloud kernel with a busybox in its initial RAM file system.

It asks for addresses by DHCP, takes IPv6 addresses that are advertised, runs the user data of the config drive as a
shell script, and prints what it has on the console. Kernel and RAM file system are images of their own in Glance.
"""

import hashlib

from tsujilab.cloud.api import Cloud
from tsujilab.cloud.instance import CONF, LabError

NAME, BUILT = "tiny", "/var/lib/lab/image"
SCRIPTS = ("image-make", "image-init")


def digest():
    """Changes when the image has to be made anew."""
    return hashlib.sha256(b"".join((CONF / name).read_bytes() for name in SCRIPTS)).hexdigest()


def upload(lab, admin, name, form, file, **properties):
    """Puts a file of the lab into Glance and returns the image's id."""
    made = admin.call(
        "image",
        "POST",
        "/images",
        {
            "name": name,
            "disk_format": form,
            "visibility": "public",
            "container_format": form if form != "raw" else "bare",
            **properties,
        },
    )
    admin.call("image", "PUT", f"/images/{made['id']}/file", lab.path(file).read_bytes())
    return made["id"]


def publish(lab, _):
    """Builds the image in the lab and puts it into Glance; replaces an older one."""
    lab.run(["sh", CONF / "image-make", BUILT, CONF / "image-init"], "image")
    admin = Cloud(lab, "admin")
    for old in admin.call("image", "GET", "/images")["images"]:
        if old["name"].startswith(NAME):
            admin.call("image", "DELETE", f"/images/{old['id']}")
    kernel = upload(lab, admin, f"{NAME}-kernel", "aki", f"{BUILT}/vmlinuz")
    initrd = upload(lab, admin, f"{NAME}-initrd", "ari", f"{BUILT}/initrd")
    image = upload(
        lab,
        admin,
        NAME,
        "raw",
        f"{BUILT}/disk",
        kernel_id=kernel,
        ramdisk_id=initrd,
        os_command_line="console=ttyS0 quiet",
        hw_cdrom_bus="scsi",
        hw_scsi_model="virtio-scsi",
        hw_rng_model="virtio",
    )
    if admin.call("image", "GET", f"/images/{image}")["status"] != "active":
        raise LabError(f"Glance did not take the image {NAME}: see 'lab/lab logs glance'")
