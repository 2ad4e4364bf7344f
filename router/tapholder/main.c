/* tsuji-tapholder: holds the queues of a router's TAPs, so that carrier outlives the forwarder's
 * death.
 *
 * It runs in the tenant side's network namespace, where the TAPs are made, and does nothing but
 * wait: one thread, one epoll loop over the listening socket and at most TAPHOLDER_CLIENTS_MAX
 * connections. It never touches carrier when it ends itself: a restart while the forwarder lives is
 * not seen by anybody. Why it exists and works so:
 * docs/decisions/0003-tap-holder-and-supervision.md. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "holder.h"
#include "message.h"
#include "tap.h"

#define GRACE_MS_DEFAULT 3000u
#define GRACE_MS_MAX 60000u
#define LISTENER TAPHOLDER_CLIENTS_MAX /* its number in epoll's data, behind the clients' */

static void tell(const char *name, const char *what, int result)
{
    if (result)
        fprintf(stderr, "%s: %s: failed: %s\n", name, what, strerror(-result));
    else
        fprintf(stderr, "%s: %s\n", name, what);
}

static const struct tap_operations real_taps = {.open = tap_open,
                                                .check = tap_check,
                                                .set_carrier = tap_set_carrier,
                                                .forget = tap_forget,
                                                .drain = tap_drain,
                                                .told = tell};

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The listening socket at `path`, mode 0600. A socket left by a dead holder is replaced; a living
 * holder is not. Returns it or -errno: -EADDRINUSE another holder answers there. */
static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    int listener, probe, alive;
    mode_t mask;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || probe < 0)
        return -errno;
    alive = !connect(probe, (struct sockaddr *)&address, sizeof(address)) || errno == EAGAIN;
    close(probe);
    if (alive)
        return -EADDRINUSE;
    if (!lstat(path, &status) && S_ISSOCK(status.st_mode))
        unlink(path);
    mask = umask(0177);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, TAPHOLDER_CLIENTS_MAX) < 0)
        return -errno;
    umask(mask);
    return listener;
}

static void client_accept(int epoll, int listener, int clients[TAPHOLDER_CLIENTS_MAX])
{
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct ucred peer;
    socklen_t size = sizeof(peer);
    unsigned i = 0;

    if (connection < 0)
        return;
    while (i < TAPHOLDER_CLIENTS_MAX && clients[i] >= 0)
        i++;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    /* The file's mode is the door; this is the second lock, should somebody have opened it. */
    if (i == TAPHOLDER_CLIENTS_MAX ||
        getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
        (peer.uid != 0 && peer.uid != geteuid()) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &event) < 0) {
        close(connection);
        return;
    }
    clients[i] = connection;
}

/* Reads one message and answers it. Returns 0, or -errno when the connection has to end. */
static int client_serve(int connection, int client, struct holder *holder)
{
    struct tapholder_message message;
    int fds[TAPHOLDER_QUEUES_MAX];
    const int *reply_fds = NULL;
    unsigned fd_count, reply_fd_count = 0;
    int result = message_receive(connection, &message, fds, &fd_count, MSG_DONTWAIT);

    if (result < 0)
        return result == -EAGAIN ? 0 : result;
    result = message_check_request(&message, fd_count);
    if (result < 0) {
        fds_close(fds, fd_count);
        if (result == -EPROTO)
            return result;
        message.result = result;
    } else {
        holder_request(holder, client, now_ms(), &message, fds, &reply_fds, &reply_fd_count);
    }
    /* A peer that does not read its replies is dropped rather than waited for. */
    return message_send(connection, &message, reply_fds, reply_fd_count, MSG_DONTWAIT);
}

static int run(int listener, struct holder *holder)
{
    int clients[TAPHOLDER_CLIENTS_MAX];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = LISTENER};
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    for (unsigned i = 0; i < TAPHOLDER_CLIENTS_MAX; i++)
        clients[i] = -1;
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        return -errno;
    for (;;) {
        int count = epoll_wait(epoll, &event, 1, holder_expire(holder, now_ms()));

        if (count < 0 && errno != EINTR)
            return -errno;
        if (count <= 0)
            continue;
        if (event.data.u32 == LISTENER) {
            client_accept(epoll, listener, clients);
            continue;
        }
        int *connection = &clients[event.data.u32];
        if (client_serve(*connection, (int)event.data.u32, holder) < 0) {
            holder_client_gone(holder, (int)event.data.u32, now_ms());
            close(*connection);
            *connection = -1;
        }
    }
}

static void usage(FILE *to)
{
    fprintf(to,
            "usage: tsuji-tapholder [-g MS] [-s SOCKET]\n"
            "\n"
            "Holds the queues of a router's TAP interfaces for its forwarder, so that they keep\n"
            "carrier when the forwarder is restarted. Runs in the network namespace of the TAPs.\n"
            "\n"
            "  -g MS      how long carrier outlives the forwarder, 0..%u (default %u)\n"
            "  -s SOCKET  where forwarders connect (default %s)\n"
            "  -h         this text\n",
            GRACE_MS_MAX, GRACE_MS_DEFAULT, TAPHOLDER_SOCKET);
}

int main(int argc, char **argv)
{
    const char *path = TAPHOLDER_SOCKET;
    unsigned long grace_ms = GRACE_MS_DEFAULT;
    struct rlimit files;
    char *end;
    int option;

    while ((option = getopt(argc, argv, "g:s:h")) != -1) {
        switch (option) {
        case 'g':
            grace_ms = strtoul(optarg, &end, 10);
            if (*end || end == optarg || *optarg == '-' || grace_ms > GRACE_MS_MAX) {
                fprintf(stderr,
                        "tsuji-tapholder: -g '%s' is not a number of milliseconds from 0 to %u\n",
                        optarg, GRACE_MS_MAX);
                return 2;
            }
            break;
        case 's':
            path = optarg;
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind != argc) {
        usage(stderr);
        return 2;
    }
    /* One descriptor per queue. */
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    struct holder *holder = holder_new(&real_taps, (uint32_t)grace_ms);
    int listener = holder ? listen_at(path) : -errno;
    int result = listener < 0 ? listener : run(listener, holder);
    fprintf(stderr, "tsuji-tapholder: %s: %s%s\n", path, strerror(-result),
            result == -EADDRINUSE
                ? ": another tsuji-tapholder answers there; end it first, or give -s"
            : result == -ENOENT ? ": make the directory first, or give -s"
                                : "");
    holder_free(holder);
    return 1;
}
