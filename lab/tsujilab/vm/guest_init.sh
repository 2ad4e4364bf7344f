#!/bin/busybox sh
# Process 1 of a test guest: mounts what programs expect, then a root shell on the serial console, driven by vm.py.
# The kernel command line may say: hugepages=N (the kernel's own word, pages of 2 MB).
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/bin:/usr/sbin HOME=/root TERM=dumb
# The kernel leaves its first root writable by all, which DPDK refuses to load drivers from.
chmod 755 /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/hugepages /dev/pts /run /tmp
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t tmpfs tmpfs /run
# Programs read the names of a NIC and its driver here; printk must not cut their lines in two.
echo 1 >/proc/sys/kernel/printk
# No echo: what the console shows is only what commands print.
stty -F /dev/ttyS0 -echo -onlcr 2>/dev/null
echo "guest up $(cut -d' ' -f1 /proc/uptime)"
exec setsid sh -c 'exec sh -i </dev/ttyS0 >/dev/ttyS0 2>&1'
