/* See holder.h, with the table of states. */
#include "holder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"

#define NOBODY (-1)

struct tap {
    char name[IFNAMSIZ]; /* "" when the place is free */
    int fds[TAPHOLDER_QUEUES_MAX];
    unsigned queues;
    int vnet_hdr;
    int owner; /* client number, or NOBODY */
    int up;    /* LINK was "up", or it was adopted and may be */
    int waiting;
    uint64_t deadline_ms; /* when waiting */
};

struct holder {
    const struct tap_operations *operations;
    uint32_t grace_ms;
    struct tap taps[TAPHOLDER_TAPS_MAX];
};

struct holder *holder_new(const struct tap_operations *operations, uint32_t grace_ms)
{
    struct holder *holder = calloc(1, sizeof(*holder));

    if (holder) {
        holder->operations = operations;
        holder->grace_ms = grace_ms;
    }
    return holder;
}

void holder_free(struct holder *holder)
{
    if (!holder)
        return;
    for (unsigned i = 0; i < TAPHOLDER_TAPS_MAX; i++)
        if (holder->taps[i].name[0])
            fds_close(holder->taps[i].fds, holder->taps[i].queues);
    free(holder);
}

static struct tap *tap_find(struct holder *holder, const char *name)
{
    for (unsigned i = 0; i < TAPHOLDER_TAPS_MAX; i++)
        if (!strcmp(holder->taps[i].name, name))
            return &holder->taps[i];
    return NULL;
}

static void tap_release(struct tap *tap)
{
    fds_close(tap->fds, tap->queues);
    memset(tap, 0, sizeof(*tap));
}

/* The TAP of that name; one whose device has been deleted, renamed or moved is let go first, for
 * its descriptors lead nowhere. */
static struct tap *tap_find_alive(struct holder *holder, const char *name)
{
    struct tap *tap = tap_find(holder, name);

    if (tap && holder->operations->check(tap->name, tap->vnet_hdr, tap->queues, tap->fds) < 0) {
        holder->operations->told(tap->name, "device is gone", 0);
        tap_release(tap);
        tap = NULL;
    }
    return tap;
}

static int tap_change_carrier(struct holder *holder, struct tap *tap, int on, const char *why)
{
    int result = holder->operations->set_carrier(tap->fds[0], on);

    holder->operations->told(tap->name, why, result);
    return result;
}

static void tap_wait(struct holder *holder, struct tap *tap, uint64_t now_ms)
{
    if (tap->up && !tap->waiting) {
        tap->waiting = 1;
        tap->deadline_ms = now_ms + holder->grace_ms;
    }
}

/* Puts a TAP that nobody holds yet into a free place. Returns NULL when there is none. */
static struct tap *tap_add(struct holder *holder, const struct tapholder_message *message)
{
    struct tap *tap = tap_find(holder, "");

    if (tap) {
        memcpy(tap->name, message->name, IFNAMSIZ);
        tap->queues = message->queues;
        tap->vnet_hdr = !!(message->options & TAPHOLDER_VNET_HDR);
        tap->owner = NOBODY;
    }
    return tap;
}

static int request_open(struct holder *holder, struct tap *tap, int client,
                        const struct tapholder_message *message, struct tap **ret_tap)
{
    int vnet_hdr = !!(message->options & TAPHOLDER_VNET_HDR);
    int result;

    if (tap && (tap->vnet_hdr != vnet_hdr || tap->queues != message->queues))
        return -EEXIST;
    if (!tap) {
        int fds[TAPHOLDER_QUEUES_MAX];

        if (!tap_find(holder, ""))
            return -ENOSPC;
        result = holder->operations->open(message->name, vnet_hdr, message->queues, fds);
        if (result < 0)
            return result;
        tap = tap_add(holder, message);
        memcpy(tap->fds, fds, message->queues * sizeof(int));
    }
    tap->owner = client;
    *ret_tap = tap;
    return 0;
}

static int request_adopt(struct holder *holder, struct tap *tap, int client, uint64_t now_ms,
                         const struct tapholder_message *message, const int *fds)
{
    int result = holder->operations->check(message->name, !!(message->options & TAPHOLDER_VNET_HDR),
                                           message->queues, fds);

    if (!result && tap)
        result = -EEXIST;
    if (!result) {
        tap = tap_add(holder, message);
        if (!tap)
            result = -ENOSPC;
    }
    if (result < 0) {
        fds_close(fds, message->queues);
        return result;
    }
    memcpy(tap->fds, fds, message->queues * sizeof(int));
    tap->owner = client;
    /* Carrier may be on: should the owner say no word, it goes after the grace time. */
    tap->up = 1;
    tap_wait(holder, tap, now_ms);
    return 0;
}

static int request_link(struct holder *holder, struct tap *tap, int up)
{
    tap->up = up;
    tap->waiting = 0;
    return tap_change_carrier(holder, tap, up,
                              up ? "port up: carrier on" : "port down: carrier off");
}

static int request_close(struct holder *holder, struct tap *tap, int forget)
{
    int result = tap_change_carrier(holder, tap, 0, "closed: carrier off");

    if (!result && forget)
        result = holder->operations->forget(tap->fds[0]);
    tap_release(tap);
    return result;
}

void holder_request(struct holder *holder, int client, uint64_t now_ms,
                    struct tapholder_message *message, const int *fds, const int **ret_fds,
                    unsigned *ret_fd_count)
{
    struct tap *tap = tap_find_alive(holder, message->name);
    int result = -EOPNOTSUPP;

    *ret_fd_count = 0;
    switch (message->operation) {
    case TAPHOLDER_OPEN:
        result = request_open(holder, tap, client, message, &tap);
        if (!result) {
            *ret_fds = tap->fds;
            *ret_fd_count = tap->queues;
        }
        break;
    case TAPHOLDER_ADOPT:
        result = request_adopt(holder, tap, client, now_ms, message, fds);
        break;
    case TAPHOLDER_LINK:
    case TAPHOLDER_CLOSE:
        if (!tap)
            result = -ENOENT;
        else if (tap->owner != client)
            result = -EPERM;
        else if (message->operation == TAPHOLDER_LINK)
            result = request_link(holder, tap, !!(message->options & TAPHOLDER_UP));
        else
            result = request_close(holder, tap, !!(message->options & TAPHOLDER_REMOVE));
        break;
    }
    message->result = result;
}

void holder_client_gone(struct holder *holder, int client, uint64_t now_ms)
{
    for (unsigned i = 0; i < TAPHOLDER_TAPS_MAX; i++) {
        struct tap *tap = &holder->taps[i];

        if (!tap->name[0] || tap->owner != client)
            continue;
        tap->owner = NOBODY;
        tap_wait(holder, tap, now_ms);
        holder->operations->told(
            tap->name, tap->waiting ? "forwarder gone: carrier kept for now" : "forwarder gone", 0);
    }
}

int holder_expire(struct holder *holder, uint64_t now_ms)
{
    uint64_t next_ms = UINT64_MAX;

    for (unsigned i = 0; i < TAPHOLDER_TAPS_MAX; i++) {
        struct tap *tap = &holder->taps[i];

        if (!tap->waiting)
            continue;
        if (tap->deadline_ms > now_ms) {
            next_ms = tap->deadline_ms < next_ms ? tap->deadline_ms : next_ms;
            continue;
        }
        tap->waiting = tap->up = 0;
        tap_change_carrier(holder, tap, 0, "no forwarder said the port is up: carrier off");
        if (tap->owner == NOBODY)
            holder->operations->drain(tap->fds, tap->queues);
    }
    if (next_ms == UINT64_MAX)
        return -1;
    return next_ms - now_ms > INT32_MAX ? INT32_MAX : (int)(next_ms - now_ms);
}
