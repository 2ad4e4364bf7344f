/* Unit tests of message.c: what is refused before it reaches the holder, and that no descriptor
 * leaks. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "message.h"

#define GOOD(op) .version = TAPHOLDER_VERSION, .operation = TAPHOLDER_##op, .name = "ext0"

static const struct {
    const char *what;
    struct tapholder_message message;
    unsigned fd_count;
    int result;
} requests[] = {
    {"open", {GOOD(OPEN), .queues = 1}, 0, 0},
    {"open with vnet header, all queues", {GOOD(OPEN), .queues = 8, .options = 1}, 0, 0},
    {"adopt", {GOOD(ADOPT), .queues = 2}, 2, 0},
    {"link up", {GOOD(LINK), .options = TAPHOLDER_UP}, 0, 0},
    {"link down", {GOOD(LINK)}, 0, 0},
    {"close", {GOOD(CLOSE), .options = TAPHOLDER_REMOVE}, 0, 0},
    {"other version", {.version = 2, .operation = 1, .queues = 1, .name = "a"}, 0, -EPROTO},
    {"a reply", {GOOD(LINK), .result = -1}, 0, -EPROTO},
    {"operation 0", {.version = 1, .name = "a"}, 0, -EOPNOTSUPP},
    {"operation 5", {.version = 1, .operation = 5, .name = "a"}, 0, -EOPNOTSUPP},
    {"operation -1", {.version = 1, .operation = UINT32_MAX, .name = "a"}, 0, -EOPNOTSUPP},
    {"open no queue", {GOOD(OPEN)}, 0, -EINVAL},
    {"open nine queues", {GOOD(OPEN), .queues = 9}, 0, -EINVAL},
    {"open 2^32-1 queues", {GOOD(OPEN), .queues = UINT32_MAX}, 0, -EINVAL},
    {"open with descriptor", {GOOD(OPEN), .queues = 1}, 1, -EPROTO},
    {"open with link's option", {GOOD(OPEN), .queues = 1, .options = 2}, 0, -EOPNOTSUPP},
    {"adopt without descriptor", {GOOD(ADOPT), .queues = 1}, 0, -EPROTO},
    {"adopt one too few", {GOOD(ADOPT), .queues = 2}, 1, -EPROTO},
    {"adopt nothing", {GOOD(ADOPT)}, 0, -EINVAL},
    {"link with queues", {GOOD(LINK), .queues = 1}, 0, -EINVAL},
    {"link with descriptor", {GOOD(LINK)}, 1, -EPROTO},
    {"close with unknown option", {GOOD(CLOSE), .options = 8}, 0, -EOPNOTSUPP},
};

static void test_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
        int result = message_check_request(&requests[i].message, requests[i].fd_count);
        if (result != requests[i].result)
            fail_msg("%s: %d, not %d", requests[i].what, result, requests[i].result);
    }
}

static const struct {
    char name[IFNAMSIZ];
    int valid;
} names[] = {
    {"e", 1},
    {"ext0.2094", 1},
    {"fifteen-letters", 1},
    {"sixteen-letters-", 0}, /* no terminating zero */
    {"", 0},
    {".", 0},
    {"..", 0},
    {"...", 1},
    {"a/b", 0},
    {"a:b", 0},
    {"a b", 0},
    {"a\tb", 0},
    {"a\x1b[2J", 0},
    {"tap%d", 0},
    {"a\0b", 0}, /* something behind the end */
};

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (interface_name_is_valid(names[i].name) != names[i].valid)
            fail_msg("'%.16s' (%zu) should be %s", names[i].name, i,
                     names[i].valid ? "good" : "bad");
}

/* The lowest free descriptor: equal before and after means nothing leaked. */
static int next_fd(void)
{
    int fd = dup(0);

    close(fd);
    return fd;
}

struct wire {
    int ends[2];
};

static int wire_open(void **state)
{
    static struct wire wire;

    *state = &wire;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, wire.ends);
}

static int wire_close(void **state)
{
    struct wire *wire = *state;

    close(wire->ends[0]);
    close(wire->ends[1]);
    return 0;
}

static void test_there_and_back(void **state)
{
    struct wire *wire = *state;
    const struct tapholder_message sent = {GOOD(ADOPT), .queues = 2};
    struct tapholder_message received;
    int fds[2] = {open("/dev/null", O_RDONLY), open("/dev/zero", O_RDONLY)};
    int got[TAPHOLDER_QUEUES_MAX];
    unsigned count;
    char byte = 1;

    assert_int_equal(message_send(wire->ends[0], &sent, fds, 2, 0), 0);
    fds_close(fds, 2);
    assert_int_equal(message_receive(wire->ends[1], &received, got, &count, 0), 0);
    assert_memory_equal(&received, &sent, sizeof(sent));
    assert_int_equal(count, 2);
    assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    assert_int_equal(read(got[0], &byte, 1), 0);
    assert_int_equal(read(got[1], &byte, 1), 1);
    assert_int_equal(byte, 0);
    fds_close(got, count);
}

/* Sends `size` bytes with `fd_count` descriptors, as a hostile peer could. */
static void send_raw(int socket, const void *data, size_t size, unsigned fd_count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(64 * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

    if (fd_count) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memset(CMSG_DATA(&control.header), 0, fd_count * sizeof(int)); /* descriptor 0, often */
    }
    assert_int_equal(sendmsg(socket, &header, 0), size);
}

static void test_malformed(void **state)
{
    struct wire *wire = *state;
    const struct tapholder_message message = {GOOD(ADOPT), .queues = 1};
    const char garbage[4096] = "GET / HTTP/1.0";
    const struct {
        const void *data;
        size_t size;
        unsigned fd_count;
        int result;
    } cases[] = {
        {&message, sizeof(message), 1, 0},
        {&message, sizeof(message), TAPHOLDER_QUEUES_MAX, 0},
        {&message, sizeof(message), TAPHOLDER_QUEUES_MAX + 1, -EPROTO},
        {&message, sizeof(message), 64, -EPROTO},
        {&message, sizeof(message) - 1, 0, -EPROTO},
        {&message, 1, 1, -EPROTO},
        {&message, 0, 0, -ECONNRESET},
        {garbage, sizeof(garbage), 3, -EPROTO},
        {garbage, sizeof(message) + 1, 0, -EPROTO},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct tapholder_message received;
        int got[TAPHOLDER_QUEUES_MAX];
        unsigned count = 0;
        int before = next_fd();

        send_raw(wire->ends[0], cases[i].data, cases[i].size, cases[i].fd_count);
        assert_int_equal(message_receive(wire->ends[1], &received, got, &count, 0),
                         cases[i].result);
        fds_close(got, count);
        assert_int_equal(next_fd(), before);
    }
}

static void test_end_of_connection(void **state)
{
    struct wire *wire = *state;
    struct tapholder_message received;
    int got[TAPHOLDER_QUEUES_MAX];
    unsigned count;

    assert_int_equal(message_receive(wire->ends[1], &received, got, &count, MSG_DONTWAIT), -EAGAIN);
    shutdown(wire->ends[0], SHUT_WR);
    assert_int_equal(message_receive(wire->ends[1], &received, got, &count, 0), -ECONNRESET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_names),
        cmocka_unit_test_setup_teardown(test_there_and_back, wire_open, wire_close),
        cmocka_unit_test_setup_teardown(test_malformed, wire_open, wire_close),
        cmocka_unit_test_setup_teardown(test_end_of_connection, wire_open, wire_close),
    };

    return cmocka_run_group_tests_name("tapholder message", tests, NULL, NULL);
}
