/* Unit tests of client.c against replies that a holder would not give, and one that never comes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "message.h"

#define REPLY .version = TAPHOLDER_VERSION, .operation = TAPHOLDER_OPEN, .name = "ext0"

static const struct {
    const char *what;
    struct tapholder_message reply;
    unsigned fd_count;
    int result;
} replies[] = {
    {"good", {REPLY}, 1, 0},
    {"refused", {REPLY, .result = -EBUSY}, 0, -EBUSY},
    {"no descriptor", {REPLY}, 0, -EPROTO},
    {"two descriptors", {REPLY}, 2, -EPROTO},
    {"refused, with descriptor", {REPLY, .result = -EBUSY}, 1, -EPROTO},
    {"positive result", {REPLY, .result = 7}, 1, -EPROTO},
    {"of another TAP", {.version = 1, .operation = 1, .name = "int0"}, 1, -EPROTO},
    {"to another request", {.version = 1, .operation = 3, .name = "ext0"}, 1, -EPROTO},
    {"of another version", {.version = 9, .operation = 1, .name = "ext0"}, 1, -EPROTO},
};

static int next_fd(void)
{
    int fd = dup(0);

    close(fd);
    return fd;
}

static void test_replies(void **state)
{
    const int fds[2] = {0, 0};

    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(*replies); i++) {
        int ends[2], tap = -1, before = next_fd();

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
        /* The reply waits there before the request is sent. */
        message_send(ends[1], &replies[i].reply, fds, replies[i].fd_count, 0);
        if (tapholder_open(ends[0], "ext0", 0, 1, &tap) != replies[i].result)
            fail_msg("%s", replies[i].what);
        assert_int_equal(tap >= 0, replies[i].result == 0);
        if (tap >= 0)
            close(tap);
        close(ends[0]);
        close(ends[1]);
        assert_int_equal(next_fd(), before);
    }
}

static void test_silence_and_end(void **state)
{
    const struct timeval patience = {.tv_usec = 20000};
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(tapholder_link(ends[0], "ext0", true), -ETIMEDOUT);
    close(ends[1]);
    assert_int_equal(tapholder_link(ends[0], "ext0", true), -ECONNRESET);
    close(ends[0]);
}

static void test_bad_arguments(void **state)
{
    int tap;
    char path[200];

    (void)state;
    /* Refused before anything is sent: -1 is no connection. */
    assert_int_equal(tapholder_open(-1, "a-name-too-long-for-linux", 0, 1, &tap), -EINVAL);
    assert_int_equal(tapholder_open(-1, "tap%d", 0, 1, &tap), -EINVAL);
    assert_int_equal(tapholder_open(-1, "ext0", 0, 9, &tap), -EINVAL);
    assert_int_equal(tapholder_open(-1, "ext0", TAPHOLDER_UP, 1, &tap), -EOPNOTSUPP);
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(tapholder_connect(path), -ENAMETOOLONG);
    assert_int_equal(tapholder_connect("/nonexistent/socket"), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_silence_and_end),
        cmocka_unit_test(test_bad_arguments),
    };

    return cmocka_run_group_tests_name("tapholder client", tests, NULL, NULL);
}
