/* What a forwarder and tsuji-tapholder say to each other.
 *
 * One unix socket of type SOCK_SEQPACKET: one message is one request or one reply, always a whole
 * `struct tapholder_message`, in host byte order (it never leaves the machine). Every request is
 * answered by one reply with the same operation and name and the result; a message of another size
 * or version, or descriptors where none belong, ends the connection.
 *
 *   OPEN    give me the queues of this TAP; made when absent, carrier off. Reply: descriptors.
 *   ADOPT   here are the queues of a TAP that I hold (the holder was restarted). Request:
 * descriptors. LINK    the port behind this TAP is up (option UP) or down: carrier follows at once.
 *   CLOSE   hold it no longer; option REMOVE: and let the TAP go when its last descriptor closes.
 *
 * OPEN and ADOPT make the connection the owner of the TAP; LINK and CLOSE are for the owner only.
 * When the owner's connection ends, or it owns a TAP and has not said LINK, carrier is kept for the
 * grace time and then taken away, until an owner says LINK again. */
#ifndef TSUJI_TAPHOLDER_PROTOCOL_H
#define TSUJI_TAPHOLDER_PROTOCOL_H

#include <net/if.h>
#include <stdint.h>

#define TAPHOLDER_SOCKET "/run/tsuji/tapholder.sock"
#define TAPHOLDER_VERSION 1u
#define TAPHOLDER_QUEUES_MAX 8u
/* What a peer can make the holder keep. 1,024 TAPs are far more than the networks of one router. */
#define TAPHOLDER_TAPS_MAX 1024u
#define TAPHOLDER_CLIENTS_MAX 8u

#define TAPHOLDER_OPERATIONS(X) X(OPEN, 1) X(ADOPT, 2) X(LINK, 3) X(CLOSE, 4)
enum tapholder_operation {
#define X(name, number) TAPHOLDER_##name = number,
    TAPHOLDER_OPERATIONS(X)
#undef X
};

enum tapholder_option {
    TAPHOLDER_VNET_HDR = 1u << 0, /* OPEN, ADOPT: frames carry a struct virtio_net_hdr */
    TAPHOLDER_UP = 1u << 1,       /* LINK */
    TAPHOLDER_REMOVE = 1u << 2,   /* CLOSE */
};

struct tapholder_message {
    uint32_t version;    /* TAPHOLDER_VERSION */
    uint32_t operation;  /* enum tapholder_operation */
    uint32_t options;    /* enum tapholder_option */
    uint32_t queues;     /* OPEN, ADOPT: how many, 1..TAPHOLDER_QUEUES_MAX; else 0 */
    int32_t result;      /* in a reply: 0 or -errno; in a request 0 */
    char name[IFNAMSIZ]; /* of the interface, padded with zeros */
};

#endif
