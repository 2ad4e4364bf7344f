/* Reading, checking and writing the messages of protocol.h, with descriptors (SCM_RIGHTS).
 * Shared by the holder and its clients; no state, any thread. */
#ifndef TSUJI_TAPHOLDER_MESSAGE_H
#define TSUJI_TAPHOLDER_MESSAGE_H

#include "protocol.h"

/* Checks what a peer sent as a request: version, operation, the options and queues that belong to
 * it, the name as the kernel would, and `fd_count` against the operation. Pure.
 * Returns 0, -EPROTO (malformed), -EOPNOTSUPP (unknown operation or option), -EINVAL (name,
 * queues). */
int message_check_request(const struct tapholder_message *message, unsigned fd_count);

/* Sends one message and copies of `fd_count` descriptors (at most TAPHOLDER_QUEUES_MAX), which stay
 * the caller's. `flags` as for send(2). Returns 0 or -errno. */
int message_send(int socket, const struct tapholder_message *message, const int *fds,
                 unsigned fd_count, int flags);

/* Receives one message. On success ret_fds[0..*ret_fd_count) are the caller's to close; otherwise
 * none is left open. `flags` as for recv(2). Returns 0, -ECONNRESET (end of connection), -EPROTO
 * (wrong size, too many descriptors, other ancillary data) or -errno of recvmsg(2). */
int message_receive(int socket, struct tapholder_message *ret_message,
                    int ret_fds[TAPHOLDER_QUEUES_MAX], unsigned *ret_fd_count, int flags);

/* Closes `count` descriptors. */
void fds_close(const int *fds, unsigned count);

/* True for names that the kernel takes literally: 1..15 characters, not "." or "..", no '/', ':',
 * white space, and no '%', which TUNSETIFF would take as a pattern; zeros up to the end. */
int interface_name_is_valid(const char name[IFNAMSIZ]);

#endif
