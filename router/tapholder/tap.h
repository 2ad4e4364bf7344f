/* One TAP device by its queue descriptors: the tun(4) calls that the holder needs.
 * The functions keep no state. They act in the calling process's network namespace. */
#ifndef TSUJI_TAPHOLDER_TAP_H
#define TSUJI_TAPHOLDER_TAP_H

/* Opens all `queues` queues of the persistent TAP `name`, which is made when absent; carrier is off
 * afterwards. The descriptors are non-blocking and close-on-exec, and the caller's; more than one
 * queue makes it a multi-queue TAP. vnet_hdr: frames carry a struct virtio_net_hdr (10 bytes).
 * Returns 0 or -errno: -EBUSY somebody holds its queues, -EINVAL it is no TAP, or one made with
 * another kind of queue; none is left open then. */
int tap_open(const char *name, int vnet_hdr, unsigned queues, int *ret_fds);

/* Whether `fds` are queues of the living TAP `name` of this namespace with just these properties.
 * Returns 0, -EBADFD (the device is gone), -ESTALE (renamed, in another namespace, or of other
 * properties), -EINVAL (not a tun descriptor). */
int tap_check(const char *name, int vnet_hdr, unsigned queues, const int *fds);

/* Sets carrier by one of the TAP's attached queues. Returns 0 or -errno (-EBADFD: device gone). */
int tap_set_carrier(int fd, int on);

/* Lets the TAP end with its last descriptor. Returns 0 or -errno. */
int tap_forget(int fd);

/* Throws away what the kernel has queued, so that a forwarder that returns much later does not send
 * stale frames. Bounded by the ring (at most 65,536 frames). */
void tap_drain(const int *fds, unsigned queues);

#endif
