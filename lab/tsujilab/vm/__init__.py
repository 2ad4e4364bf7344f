"""Virtual machines without Nova: a guest made of Debian's kernel and a few programs, and a host switch with DPDK.

    guest.py     Guest, Nic: QEMU in a sandbox, KVM where there is, emulation else
    image.py     build(): kernel and initial RAM disk (guest_init.sh is its process 1)
    console.py   Console: the guest's serial line as a shell
    ovs_dpdk.py  OvsDpdk: Open vSwitch with vhost-user ports
    hugepages.py hugepages(): 2 MB pages for as long as a test runs
"""
