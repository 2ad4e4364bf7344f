/* A cross-connect: what arrives on port 0 leaves by port 1 and the other way round, queue by queue.
 * Made to learn what a guest's drivers and virtual NICs can do; testpmd, which can neither sleep
 * nor carry a checksum mark on, cannot tell.
 *
 *   cross EAL-OPTIONS -- QUEUES poll|sleep off|ignore|carry
 *
 * sleep: when no queue has packets the thread waits for a receive interrupt (no timeout: without
 * interrupts it never wakes). Checksum marks (virtio: VIRTIO_NET_HDR_F_NEEDS_CSUM, a packet whose
 * sender left the layer-4 checksum to the NIC): off = not negotiated, so the host finishes
 * checksums before we see them; ignore = negotiated, and the mark dropped; carry = negotiated, and
 * handed on as a transmit offload.
 *
 * One thread does it all. It prints "ready", and when told to end (SIGINT, SIGTERM) one line of
 * JSON with what it counted. With SIGUSR1 it prints the line and goes on. */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_mbuf.h>
#include <rte_net.h>

enum { PORTS = 2, MAX_QUEUES = 8, BURST = 32, DESCRIPTORS = 256, IDLE_ROUNDS = 1000 };
enum { NAP_US = 100 };
enum idle_mode { IDLE_POLL, IDLE_NAP, IDLE_INTERRUPT };
enum checksum_mode { CHECKSUM_OFF, CHECKSUM_IGNORE, CHECKSUM_CARRY };

static volatile sig_atomic_t stop_wanted;
static volatile sig_atomic_t print_wanted;

static uint16_t queues;
static enum idle_mode idle_mode;
static enum checksum_mode checksums;

static struct counters {
    uint64_t received[PORTS][MAX_QUEUES];
    uint64_t sent[PORTS];
    uint64_t dropped;
    uint64_t unfinished; /* packets whose layer-4 checksum the sender left to us */
    uint64_t sleeps;
    uint64_t wakes;
} counters;

static void on_signal(int number)
{
    if (number == SIGUSR1)
        print_wanted = 1;
    else
        stop_wanted = 1;
}

static void fail(const char *what, int port, int error)
{
    printf("cross: %s, port %d: %s\n", what, port, rte_strerror(error < 0 ? -error : error));
    fflush(stdout);
    exit(1);
}

static void counters_print(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"received\": [");
    for (int port = 0; port < PORTS; port++) {
        printf("%s[", port ? ", " : "");
        for (int queue = 0; queue < queues; queue++)
            printf("%s%" PRIu64, queue ? ", " : "", counters.received[port][queue]);
        printf("]");
    }
    printf("], \"sent\": [%" PRIu64 ", %" PRIu64 "], \"dropped\": %" PRIu64
           ", \"unfinished\": %" PRIu64 ", \"sleeps\": %" PRIu64 ", \"wakes\": %" PRIu64
           ", \"cpu_ms\": %ld}\n",
           counters.sent[0], counters.sent[1], counters.dropped, counters.unfinished,
           counters.sleeps, counters.wakes,
           (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
               (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000);
    fflush(stdout);
}

static void port_open(uint16_t port)
{
    struct rte_eth_dev_info info;
    int error = rte_eth_dev_info_get(port, &info);
    if (error)
        fail("no information", port, error);
    struct rte_eth_conf conf = {.intr_conf.rxq = idle_mode == IDLE_INTERRUPT};
    if (checksums != CHECKSUM_OFF)
        conf.rxmode.offloads = RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
    if (checksums == CHECKSUM_CARRY)
        conf.txmode.offloads = RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
    if ((conf.rxmode.offloads & ~info.rx_offload_capa) ||
        (conf.txmode.offloads & ~info.tx_offload_capa))
        fail("the host offers no checksum offload", port, ENOTSUP);
    if (queues > info.max_rx_queues || queues > info.max_tx_queues)
        fail("the host offers fewer queues", port, EINVAL);
    error = rte_eth_dev_configure(port, queues, queues, &conf);
    if (error)
        fail(idle_mode == IDLE_INTERRUPT ? "cannot be configured with receive interrupts"
                                         : "cannot be configured",
             port, error);

    char name[32];
    snprintf(name, sizeof name, "port%u", port);
    struct rte_mempool *pool = rte_pktmbuf_pool_create(name, 2 * DESCRIPTORS * queues - 1, 32, 0,
                                                       RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    if (!pool)
        fail("no memory for packets", port, rte_errno);
    for (uint16_t queue = 0; queue < queues; queue++) {
        error = rte_eth_rx_queue_setup(port, queue, DESCRIPTORS, SOCKET_ID_ANY, NULL, pool);
        if (!error)
            error = rte_eth_tx_queue_setup(port, queue, DESCRIPTORS, SOCKET_ID_ANY, NULL);
        if (error)
            fail("no queue", port, error);
    }
    error = rte_eth_dev_start(port);
    if (error)
        fail("does not start", port, error);
    rte_eth_promiscuous_enable(port);
    for (uint16_t queue = 0; idle_mode == IDLE_INTERRUPT && queue < queues; queue++) {
        error =
            rte_eth_dev_rx_intr_ctl_q(port, queue, RTE_EPOLL_PER_THREAD, RTE_INTR_EVENT_ADD, NULL);
        if (error)
            fail("has no receive interrupt", port, error);
    }
}

/* Turns the receive mark "checksum not there yet" into the request to finish it. The sender has
 * left the sum of the pseudo header in the field, which is what the next one to finish it expects.
 */
static void checksum_carry(struct rte_mbuf *packet)
{
    struct rte_net_hdr_lens lengths;
    uint32_t type = rte_net_get_ptype(packet, &lengths, RTE_PTYPE_ALL_MASK);
    uint64_t flags = RTE_ETH_IS_IPV4_HDR(type) ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
    switch (type & RTE_PTYPE_L4_MASK) {
    case RTE_PTYPE_L4_TCP:
        flags |= RTE_MBUF_F_TX_TCP_CKSUM;
        break;
    case RTE_PTYPE_L4_UDP:
        flags |= RTE_MBUF_F_TX_UDP_CKSUM;
        break;
    default:
        return;
    }
    packet->l2_len = lengths.l2_len;
    packet->l3_len = lengths.l3_len;
    packet->ol_flags |= flags;
}

static unsigned queue_forward(uint16_t port, uint16_t queue)
{
    struct rte_mbuf *packets[BURST];
    uint16_t count = rte_eth_rx_burst(port, queue, packets, BURST);
    if (!count)
        return 0;
    counters.received[port][queue] += count;
    for (uint16_t i = 0; i < count; i++) {
        if ((packets[i]->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_NONE) {
            counters.unfinished++;
            if (checksums == CHECKSUM_CARRY)
                checksum_carry(packets[i]);
        }
    }
    uint16_t sent = rte_eth_tx_burst(!port, queue, packets, count);
    counters.sent[!port] += sent;
    counters.dropped += count - sent;
    rte_pktmbuf_free_bulk(packets + sent, count - sent);
    return count;
}

static unsigned forward(void)
{
    unsigned count = 0;
    for (uint16_t port = 0; port < PORTS; port++)
        for (uint16_t queue = 0; queue < queues; queue++)
            count += queue_forward(port, queue);
    return count;
}

static void interrupts(int (*set)(uint16_t port, uint16_t queue))
{
    for (uint16_t port = 0; port < PORTS; port++)
        for (uint16_t queue = 0; queue < queues; queue++) {
            int error = set(port, queue);
            if (error)
                fail("cannot switch its receive interrupt", port, error);
        }
}

/* Sleeps once; the caller goes on napping until packets come. */
static void nap(void)
{
    const struct timespec time = {.tv_nsec = NAP_US * 1000};
    counters.sleeps++;
    nanosleep(&time, NULL);
}

static void wait_for_packets(void)
{
    struct rte_epoll_event events[PORTS * MAX_QUEUES];
    interrupts(rte_eth_dev_rx_intr_enable);
    /* A packet that came before the interrupt was on raises none. */
    if (!forward()) {
        counters.sleeps++;
        if (rte_epoll_wait_interruptible(RTE_EPOLL_PER_THREAD, events, RTE_DIM(events), -1) > 0)
            counters.wakes++;
    }
    interrupts(rte_eth_dev_rx_intr_disable);
}

/* Returns the place of `word` among `count` words, or -1. */
static int word_index(const char *word, const char *const *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(word, words[i]))
            return (int)i;
    return -1;
}

static bool arguments_read(int argc, char **argv)
{
    static const char *const idle_words[] = {"poll", "nap", "interrupt"};
    static const char *const checksum_words[] = {"off", "ignore", "carry"};
    if (argc != 4 || atoi(argv[1]) < 1 || atoi(argv[1]) > MAX_QUEUES)
        return false;
    int idle = word_index(argv[2], idle_words, RTE_DIM(idle_words));
    int checksum = word_index(argv[3], checksum_words, RTE_DIM(checksum_words));
    if (idle < 0 || checksum < 0)
        return false;
    queues = (uint16_t)atoi(argv[1]);
    idle_mode = (enum idle_mode)idle;
    checksums = (enum checksum_mode)checksum;
    return true;
}

int main(int argc, char **argv)
{
    int used = rte_eal_init(argc, argv);
    if (used < 0)
        fail("DPDK does not start", -1, rte_errno);
    if (!arguments_read(argc - used, argv + used) || rte_eth_dev_count_avail() < PORTS) {
        printf("usage: cross EAL-OPTIONS -- QUEUES poll|nap|interrupt off|ignore|carry (and two "
               "ports)\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    for (uint16_t port = 0; port < PORTS; port++)
        port_open(port);
    /* The kernel may stretch a nap by this long, 50 us unless told. */
    prctl(PR_SET_TIMERSLACK, 1000UL);
    printf("ready\n");
    fflush(stdout);
    for (unsigned idle = 0; !stop_wanted;) {
        idle = forward() ? 0 : idle + 1;
        if (idle_mode != IDLE_POLL && idle >= IDLE_ROUNDS) {
            if (idle_mode == IDLE_INTERRUPT)
                wait_for_packets();
            else
                nap();
        }
        if (print_wanted) {
            print_wanted = 0;
            counters_print();
        }
    }
    counters_print();
    for (uint16_t port = 0; port < PORTS; port++)
        rte_eth_dev_stop(port);
    return 0;
}
