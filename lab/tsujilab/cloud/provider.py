"""Cables from hosts of the lab into its physical network: VLANs of physnet1, which is the bridge br-ex.

This is how the data centre of the demo and of the tests meets Neutron's provider networks: by the VLAN alone.
"""
import hashlib


def plug_provider(lab, host, interface, vlan):
    """A veth pair between `interface` of a host and an access port of VLAN `vlan` on br-ex. Made anew if it exists."""
    # Interface names have at most 15 characters.
    outer = "px" + hashlib.sha256(f"{host.name}/{interface}".encode()).hexdigest()[:11]
    lab.sandbox.run(["ovs-vsctl", "--if-exists", "del-port", "br-ex", outer])
    lab.sandbox.run(["ip", "link", "del", outer], check=False)
    lab.sandbox.link(lab.sandbox, outer, host, interface)
    lab.sandbox.run(["ovs-vsctl", "add-port", "br-ex", outer, f"tag={vlan}"])
    return outer


def unplug_provider(lab, outer):
    """Removes what plug_provider() made."""
    lab.sandbox.run(["ovs-vsctl", "--if-exists", "del-port", "br-ex", outer])
    lab.sandbox.run(["ip", "link", "del", outer], check=False)
