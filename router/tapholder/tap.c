/* See tap.h. What the calls do was read in drivers/net/tun.c of Linux 6.1 to 6.18 and tried by
 * tests/system/test_tap_holder.py. */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "message.h"

/* Since Linux 6.2; older kernels ignore it and raise carrier for the moment until tap_open() takes
 * it off again. */
#ifndef IFF_NO_CARRIER
#define IFF_NO_CARRIER 0x0040
#endif

static int tap_flags(int vnet_hdr, unsigned queues)
{
    return IFF_TAP | IFF_NO_PI | (vnet_hdr ? IFF_VNET_HDR : 0) | (queues > 1 ? IFF_MULTI_QUEUE : 0);
}

int tap_open(const char *name, int vnet_hdr, unsigned queues, int *ret_fds)
{
    struct ifreq request = {.ifr_flags = (short)(tap_flags(vnet_hdr, queues) | IFF_NO_CARRIER)};
    int fds[TAPHOLDER_QUEUES_MAX];
    unsigned count;
    int result = 0;

    if (queues < 1 || queues > TAPHOLDER_QUEUES_MAX || strlen(name) >= IFNAMSIZ)
        return -EINVAL;
    strcpy(request.ifr_name, name);
    for (count = 0; count < queues && !result; count++) {
        fds[count] = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fds[count] < 0) {
            result = -errno;
            break;
        }
        if (ioctl(fds[count], TUNSETIFF, &request) < 0)
            result = -errno;
    }
    if (!result)
        result = tap_set_carrier(fds[0], 0);
    /* Persistence keeps addresses and routes when holder and forwarder are dead at once. */
    if (!result && ioctl(fds[0], TUNSETPERSIST, 1) < 0)
        result = -errno;
    if (result) {
        fds_close(fds, count);
        return result;
    }
    memcpy(ret_fds, fds, queues * sizeof(int));
    return 0;
}

/* Compares the descriptor's namespace with ours: a TAP can be moved while it is held. */
static int tap_is_here(int fd)
{
    struct stat its, ours;
    int namespace_fd = ioctl(fd, TUNGETDEVNETNS);
    int here;

    if (namespace_fd < 0)
        return 0;
    here = !fstat(namespace_fd, &its) && !stat("/proc/self/ns/net", &ours) &&
           its.st_dev == ours.st_dev && its.st_ino == ours.st_ino;
    close(namespace_fd);
    return here;
}

int tap_check(const char *name, int vnet_hdr, unsigned queues, const int *fds)
{
    const short cared = IFF_TAP | IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;

    for (unsigned i = 0; i < queues; i++) {
        struct ifreq request = {0};
        struct stat status;

        /* Only the tun device: to other drivers the number of TUNGETIFF may mean anything. */
        if (fstat(fds[i], &status) < 0 || !S_ISCHR(status.st_mode) ||
            status.st_rdev != makedev(10, 200))
            return -EINVAL;
        if (ioctl(fds[i], TUNGETIFF, &request) < 0)
            return -errno;
        if (strncmp(request.ifr_name, name, IFNAMSIZ) != 0 ||
            (request.ifr_flags & cared) != tap_flags(vnet_hdr, queues) || !tap_is_here(fds[i]))
            return -ESTALE;
    }
    return 0;
}

int tap_set_carrier(int fd, int on)
{
    return ioctl(fd, TUNSETCARRIER, &on) < 0 ? -errno : 0;
}

int tap_forget(int fd)
{
    return ioctl(fd, TUNSETPERSIST, 0) < 0 ? -errno : 0;
}

void tap_drain(const int *fds, unsigned queues)
{
    char frame[64];

    for (unsigned i = 0; i < queues; i++) {
        /* The flag is shared with whoever gave us the descriptor, and could have been cleared. */
        if (fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0)
            continue;
        for (unsigned n = 0; n < 65536 && read(fds[i], frame, sizeof(frame)) >= 0; n++)
            continue;
    }
}
