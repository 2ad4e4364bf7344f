/* tapholder-standin: a stand-in for the forwarder, for tests only.
 *
 * It does what a restart of the forwarder depends on and nothing else: gets TAPs from
 * tsuji-tapholder, relays frames between each TAP and a port (an AF_PACKET socket on an interface
 * of its own network namespace), says whether the port is up, and hands its TAPs to a holder that
 * was restarted. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client.h"

#define PAIRS_MAX 16
#define TICK_MS 50 /* how often ports and a lost holder are looked at */
#define BATCH 64   /* frames of one direction before the others get their turn */
#define VNET_HEADER_BYTES 10

struct pair {
    const char *tap_name;
    const char *port_name;
    int tap;
    int port;
    int up; /* what the holder was told; -1: nothing yet */
};

static const char *holder_path = TAPHOLDER_SOCKET;
static uint32_t options;
static struct pair pairs[PAIRS_MAX];
static int pair_count;

static void fail(const char *what, const char *object, int result)
{
    fprintf(stderr, "tapholder-standin: %s: %s: %s\n", object, what, strerror(-result));
    exit(1);
}

static int port_open(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = (int)if_nametoindex(name)};
    struct packet_mreq promiscuous = {.mr_ifindex = address.sll_ifindex,
                                      .mr_type = PACKET_MR_PROMISC};
    int on = 1;
    int port = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (port < 0 || !address.sll_ifindex ||
        setsockopt(port, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0 ||
        setsockopt(port, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)) <
            0 ||
        bind(port, (struct sockaddr *)&address, sizeof(address)) < 0)
        fail("cannot open the port", name, -errno);
    return port;
}

static int port_is_up(const struct pair *pair)
{
    struct ifreq request = {0};

    strncpy(request.ifr_name, pair->port_name, IFNAMSIZ - 1);
    return !ioctl(pair->port, SIOCGIFFLAGS, &request) && (request.ifr_flags & IFF_RUNNING) != 0;
}

static void relay(const struct pair *pair, int to_port)
{
    static char frame[65536 + VNET_HEADER_BYTES];
    const int with_header = (options & TAPHOLDER_VNET_HDR) != 0;
    char header[VNET_HEADER_BYTES] = {0};
    struct iovec parts[2] = {{.iov_base = header, .iov_len = sizeof(header)},
                             {.iov_base = frame, .iov_len = sizeof(frame)}};

    for (int i = 0; i < BATCH; i++) {
        struct iovec *first = with_header ? parts : parts + 1;
        ssize_t size;

        parts[1].iov_len = sizeof(frame);
        if (to_port)
            size = readv(pair->tap, first, with_header ? 2 : 1);
        else
            size = read(pair->port, frame, sizeof(frame));
        if (size <= 0)
            return;
        parts[1].iov_len = (size_t)size - (to_port && with_header ? sizeof(header) : 0);
        memset(header, 0, sizeof(header));
        /* A full queue or a port that is down loses the frame, as on a wire. */
        if (to_port)
            (void)!write(pair->port, frame, parts[1].iov_len);
        else
            (void)!writev(pair->tap, first, with_header ? 2 : 1);
    }
}

/* Waits for a holder, then gets or gives back every TAP. Returns the connection. */
static int holder_join(int connection)
{
    if (connection < 0)
        return connection;
    for (struct pair *pair = pairs; pair < pairs + pair_count; pair++) {
        int result;

        if (pair->tap >= 0)
            result = tapholder_adopt(connection, pair->tap_name, options, 1, &pair->tap);
        else
            result = tapholder_open(connection, pair->tap_name, options, 1, &pair->tap);
        if (result == -ECONNRESET || result == -ETIMEDOUT) {
            close(connection);
            return -1;
        }
        if (result < 0)
            fail("tsuji-tapholder refused the TAP", pair->tap_name, result);
        pair->up = -1;
    }
    return connection;
}

/* Tells the holder of ports that have changed. Returns 0 or -errno. */
static int ports_tell(int connection)
{
    for (struct pair *pair = pairs; pair < pairs + pair_count; pair++) {
        int up = port_is_up(pair);

        if (up == pair->up)
            continue;
        int result = tapholder_link(connection, pair->tap_name, up);
        if (result < 0)
            return result;
        pair->up = up;
    }
    return 0;
}

static void run(void)
{
    struct pollfd polled[1 + 2 * PAIRS_MAX];
    int connection = -1;

    for (;;) {
        if (connection < 0)
            connection = holder_join(tapholder_connect(holder_path));
        if (connection >= 0 && ports_tell(connection) < 0) {
            close(connection);
            connection = -1;
        }
        polled[0] = (struct pollfd){.fd = connection, .events = POLLIN};
        for (int i = 0; i < pair_count; i++) {
            polled[1 + 2 * i] = (struct pollfd){.fd = pairs[i].tap, .events = POLLIN};
            /* Frames for a TAP that is not there yet stay in the port's socket. */
            polled[2 + 2 * i] =
                (struct pollfd){.fd = pairs[i].tap < 0 ? -1 : pairs[i].port, .events = POLLIN};
        }
        if (poll(polled, (nfds_t)(1 + 2 * pair_count), TICK_MS) <= 0)
            continue;
        if (polled[0].revents) {
            fprintf(stderr, "tapholder-standin: the holder is gone\n");
            close(connection);
            connection = -1;
        }
        for (int i = 0; i < pair_count; i++) {
            if (polled[1 + 2 * i].revents & POLLIN)
                relay(&pairs[i], 1);
            if (polled[2 + 2 * i].revents & POLLIN)
                relay(&pairs[i], 0);
        }
    }
}

int main(int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "s:V")) != -1) {
        if (option == 's')
            holder_path = optarg;
        else if (option == 'V')
            options = TAPHOLDER_VNET_HDR;
        else
            return 2;
    }
    for (; optind < argc && pair_count < PAIRS_MAX; optind++) {
        char *separator = strchr(argv[optind], '=');

        if (!separator)
            break;
        *separator = '\0';
        pairs[pair_count++] = (struct pair){.tap_name = argv[optind],
                                            .port_name = separator + 1,
                                            .tap = -1,
                                            .port = port_open(separator + 1),
                                            .up = -1};
    }
    if (optind != argc || !pair_count) {
        fprintf(stderr, "usage: tapholder-standin [-s SOCKET] [-V] TAP=PORT...\n"
                        "  -V  the TAPs carry a struct virtio_net_hdr\n");
        return 2;
    }
    run();
}
