/* The holder's mind: which TAPs it holds, who owns them, and when carrier has to go.
 *
 * Carrier follows the word of the port's owner. A TAP whose owner has gone, or has come and not
 * said LINK yet, waits: it keeps its carrier for the grace time, then loses it. Only LINK ends the
 * wait, so a forwarder that dies at each start cannot keep carrier up by starting often.
 *
 *   state        event                 next         carrier
 *   (absent)     OPEN                  silent       off
 *   (absent)     ADOPT                 waiting      as it is
 *   any          LINK up / down        up / silent  on / off
 *   up           owner gone            waiting      kept
 *   waiting      OPEN, ADOPT           waiting      kept (the same deadline)
 *   waiting      deadline              silent       off; frames thrown away when nobody owns it
 *   any          CLOSE                 (absent)     off
 *   any          device deleted        (absent)     -      (seen at the next request)
 *
 * Single-threaded, no input or output of its own: main.c feeds it, the tests do with TAPs of paper.
 */
#ifndef TSUJI_TAPHOLDER_HOLDER_H
#define TSUJI_TAPHOLDER_HOLDER_H

#include <stdint.h>

#include "protocol.h"

/* The calls of tap.h. */
struct tap_operations {
    int (*open)(const char *name, int vnet_hdr, unsigned queues, int *ret_fds);
    int (*check)(const char *name, int vnet_hdr, unsigned queues, const int *fds);
    int (*set_carrier)(int fd, int on);
    int (*forget)(int fd);
    void (*drain)(const int *fds, unsigned queues);
    /* Told when carrier is taken or given; errors of set_carrier come here too (0 or -errno). */
    void (*told)(const char *name, const char *what, int result);
};

struct holder;

/* Returns NULL and sets errno. grace_ms: how long carrier outlives its owner. `operations` must
 * outlive it. */
struct holder *holder_new(const struct tap_operations *operations, uint32_t grace_ms);

/* Closes the descriptors; devices and carrier stay as they are. Takes NULL. */
void holder_free(struct holder *holder);

/* Handles one checked request (message_check_request) of client `client` (any number >= 0) and
 * makes *message the reply. `fds`: message->queues descriptors that came with ADOPT, the holder's
 * from now on whatever the result; else ignored. *ret_fds, *ret_fd_count: the descriptors to send
 * with the reply, which stay the holder's; 0 of them except for OPEN. */
void holder_request(struct holder *holder, int client, uint64_t now_ms,
                    struct tapholder_message *message, const int *fds, const int **ret_fds,
                    unsigned *ret_fd_count);

/* The connection of `client` has ended: its TAPs begin to wait. */
void holder_client_gone(struct holder *holder, int client, uint64_t now_ms);

/* Takes carrier from the TAPs whose deadline has passed. Returns the milliseconds until the next
 * deadline, -1 without one: the timeout of epoll_wait(2). */
int holder_expire(struct holder *holder, uint64_t now_ms);

#endif
