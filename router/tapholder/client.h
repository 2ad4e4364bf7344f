/* A forwarder's side of tsuji-tapholder (protocol.h): a connection is one descriptor.
 *
 * Each call sends one request and waits for its reply, at most TAPHOLDER_REPLY_MS; it is for the
 * forwarder's configuration thread, never for a worker. The holder never sends anything unasked, so
 * the descriptor becomes readable only when the holder is gone: poll it, then reconnect and adopt.
 *
 *   start:          connect, open each TAP, begin to forward, link(up) each
 *   port changes:   link(up or down)
 *   holder gone:    keep forwarding; connect again (every second, say), adopt each TAP, link
 *   TAP goes away:  close
 *
 * The descriptors work in whatever network namespace the forwarder runs, and it needs no privilege
 * for them. They are non-blocking; keep them so. A frame that the kernel sends while no forwarder
 * runs waits in the queue (tx queue length of the TAP: 500 or 1,000 frames) and is read by the next
 * one. */
#ifndef TSUJI_TAPHOLDER_CLIENT_H
#define TSUJI_TAPHOLDER_CLIENT_H

#include <stdbool.h>

#include "protocol.h"

#define TAPHOLDER_REPLY_MS 1000

/* Connects to the holder at `path`. Returns the connection (close(2) it) or -errno: -ENOENT or
 * -ECONNREFUSED no holder runs there, -EACCES, -ENAMETOOLONG. */
int tapholder_connect(const char *path);

/* Gets the queues of the TAP `name`, which is made when absent, and becomes its owner. options:
 * TAPHOLDER_VNET_HDR or 0. ret_fds: `queues` descriptors, the caller's to close; untouched on
 * failure. Returns 0 or -errno: -EEXIST held with other options or queues, -EBUSY a stranger holds
 * the TAP, -EINVAL bad name or queues, or the interface is no such TAP, -ENOSPC too many TAPs,
 * -ETIMEDOUT no reply, -ECONNRESET the holder is gone. After -ETIMEDOUT and -EPROTO close the
 * connection. */
int tapholder_open(int connection, const char *name, uint32_t options, uint32_t queues,
                   int *ret_fds);

/* Gives copies of the queues of a TAP to a holder that was restarted, and becomes its owner; say
 * tapholder_link() next. Returns 0 or -errno: -EEXIST it holds that TAP already (open instead),
 * -ESTALE the TAP has another name, namespace or other options, -EBADFD it was deleted. */
int tapholder_adopt(int connection, const char *name, uint32_t options, uint32_t queues,
                    const int *fds);

/* Says that the port behind the TAP is up, and frames are being forwarded, or that it is down.
 * Returns 0 or -errno: -ENOENT not held, -EPERM another connection owns it, -EBADFD deleted. */
int tapholder_link(int connection, const char *name, bool up);

/* Ends the holding of a TAP and takes its carrier off; remove: the TAP ends when the caller closes
 * its own descriptors. Returns 0 or -errno as tapholder_link(). */
int tapholder_close(int connection, const char *name, bool remove);

#endif
