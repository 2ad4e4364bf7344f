/* Unit tests of holder.c, with TAPs of paper: carrier, owners, deadlines, limits, and no leaked
 * descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "holder.h"
#include "message.h"

/* The one TAP of most tests, as the kernel would see it. */
static struct {
    int open_result, check_result, carrier_result;
    int opened, drained, forgotten;
    int carrier; /* 1 on, 0 off, -1 never set */
} paper;

static int paper_open(const char *name, int vnet_hdr, unsigned queues, int *ret_fds)
{
    (void)name, (void)vnet_hdr;
    if (paper.open_result)
        return paper.open_result;
    for (unsigned i = 0; i < queues; i++)
        ret_fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    paper.opened++;
    paper.carrier = 0;
    return 0;
}

static int paper_check(const char *name, int vnet_hdr, unsigned queues, const int *fds)
{
    (void)name, (void)vnet_hdr;
    for (unsigned i = 0; i < queues; i++)
        assert_true(fcntl(fds[i], F_GETFD) >= 0);
    return paper.check_result;
}

static int paper_set_carrier(int fd, int on)
{
    assert_true(fcntl(fd, F_GETFD) >= 0);
    if (!paper.carrier_result)
        paper.carrier = on;
    return paper.carrier_result;
}

static int paper_forget(int fd)
{
    (void)fd;
    paper.forgotten++;
    return 0;
}

static void paper_drain(const int *fds, unsigned queues)
{
    (void)fds, (void)queues;
    paper.drained++;
}

static void paper_told(const char *name, const char *what, int result)
{
    (void)name, (void)what, (void)result;
}

static const struct tap_operations operations = {paper_open,   paper_check, paper_set_carrier,
                                                 paper_forget, paper_drain, paper_told};
static int first_free;

static int next_fd(void)
{
    int fd = dup(0);

    close(fd);
    return fd;
}

static int holder_setup(void **state)
{
    memset(&paper, 0, sizeof(paper));
    paper.carrier = -1;
    first_free = next_fd();
    *state = holder_new(&operations, 3000);
    return *state ? 0 : -1;
}

static int holder_teardown(void **state)
{
    holder_free(*state);
    return next_fd() == first_free ? 0 : -1;
}

/* One request; returns its result. */
static int ask(struct holder *holder, int client, uint64_t now_ms, int operation, uint32_t options,
               uint32_t queues, const char *name)
{
    struct tapholder_message message = {.version = TAPHOLDER_VERSION,
                                        .operation = (uint32_t)operation,
                                        .options = options,
                                        .queues = queues};
    int fds[TAPHOLDER_QUEUES_MAX];
    const int *ret_fds = NULL;
    unsigned count = 99;

    snprintf(message.name, sizeof(message.name), "%s", name);
    for (unsigned i = 0; operation == TAPHOLDER_ADOPT && i < queues; i++)
        fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    holder_request(holder, client, now_ms, &message, fds, &ret_fds, &count);
    assert_int_equal(count, operation == TAPHOLDER_OPEN && !message.result ? queues : 0);
    return message.result;
}

#define OPEN(client, at) ask(holder, client, at, TAPHOLDER_OPEN, 0, 1, "ext0")
#define ADOPT(client, at) ask(holder, client, at, TAPHOLDER_ADOPT, 0, 1, "ext0")
#define LINK(client, at, up)                                                                       \
    ask(holder, client, at, TAPHOLDER_LINK, (up) ? TAPHOLDER_UP : 0, 0, "ext0")
#define CLOSE(client, at, options) ask(holder, client, at, TAPHOLDER_CLOSE, options, 0, "ext0")

static void test_carrier_follows_the_word(void **state)
{
    struct holder *holder = *state;

    assert_int_equal(OPEN(0, 0), 0);
    assert_int_equal(paper.carrier, 0);
    assert_int_equal(LINK(0, 10, 1), 0);
    assert_int_equal(paper.carrier, 1);
    assert_int_equal(holder_expire(holder, 1000000), -1);
    assert_int_equal(paper.carrier, 1);
    assert_int_equal(LINK(0, 20, 0), 0);
    assert_int_equal(paper.carrier, 0);
}

static void test_grace(void **state)
{
    struct holder *holder = *state;

    OPEN(0, 0);
    LINK(0, 0, 1);
    holder_client_gone(holder, 0, 1000);
    assert_int_equal(holder_expire(holder, 1000), 3000);
    assert_int_equal(holder_expire(holder, 3999), 1);
    assert_int_equal(paper.carrier, 1);
    assert_int_equal(holder_expire(holder, 4000), -1);
    assert_int_equal(paper.carrier, 0);
    assert_int_equal(paper.drained, 1);
    /* And given back, from the queue that was kept. */
    assert_int_equal(OPEN(1, 60000), 0);
    assert_int_equal(paper.carrier, 0);
    assert_int_equal(LINK(1, 60001, 1), 0);
    assert_int_equal(paper.carrier, 1);
    assert_int_equal(paper.opened, 1);
}

static void test_return_within_grace(void **state)
{
    struct holder *holder = *state;

    OPEN(0, 0);
    LINK(0, 0, 1);
    holder_client_gone(holder, 0, 1000);
    OPEN(0, 1500);
    LINK(0, 1600, 1);
    assert_int_equal(holder_expire(holder, 100000), -1);
    assert_int_equal(paper.carrier, 1);
    assert_int_equal(paper.drained, 0);
}

static void test_starting_often_is_not_forwarding(void **state)
{
    struct holder *holder = *state;

    OPEN(0, 0);
    LINK(0, 0, 1);
    holder_client_gone(holder, 0, 1000);
    for (uint64_t at = 1500; at < 4000; at += 500) {
        OPEN(0, at);
        holder_client_gone(holder, 0, at + 100);
    }
    OPEN(0, 3990);
    holder_expire(holder, 4000);
    assert_int_equal(paper.carrier, 0);
    /* The one that is there now reads its frames itself. */
    assert_int_equal(paper.drained, 0);
}

static void test_port_down_stays_down(void **state)
{
    struct holder *holder = *state;

    OPEN(0, 0);
    LINK(0, 0, 0);
    holder_client_gone(holder, 0, 1000);
    assert_int_equal(holder_expire(holder, 1000), -1);
    OPEN(0, 1500);
    assert_int_equal(paper.carrier, 0);
}

static void test_adopt(void **state)
{
    struct holder *holder = *state;

    assert_int_equal(ADOPT(0, 0), 0);
    assert_int_equal(paper.carrier, -1);
    assert_int_equal(ADOPT(0, 0), -EEXIST);
    assert_int_equal(LINK(0, 1, 1), 0);
    assert_int_equal(holder_expire(holder, 10000), -1);
    assert_int_equal(CLOSE(0, 10001, 0), 0);
    /* Adopted, and then not a word. */
    assert_int_equal(ADOPT(0, 20000), 0);
    holder_expire(holder, 23000);
    assert_int_equal(paper.carrier, 0);
    paper.check_result = -ESTALE;
    assert_int_equal(ask(holder, 0, 0, TAPHOLDER_ADOPT, 0, 8, "int0"), -ESTALE);
}

static void test_owner(void **state)
{
    struct holder *holder = *state;

    assert_int_equal(LINK(0, 0, 1), -ENOENT);
    OPEN(0, 0);
    assert_int_equal(LINK(1, 0, 1), -EPERM);
    assert_int_equal(CLOSE(1, 0, 0), -EPERM);
    LINK(0, 0, 1);
    /* The next forwarder comes before the last one has gone. */
    assert_int_equal(OPEN(1, 10), 0);
    holder_client_gone(holder, 0, 20);
    assert_int_equal(holder_expire(holder, 20), -1);
    assert_int_equal(LINK(0, 30, 0), -EPERM);
    assert_int_equal(LINK(1, 30, 1), 0);
}

static void test_close(void **state)
{
    struct holder *holder = *state;

    OPEN(0, 0);
    LINK(0, 0, 1);
    assert_int_equal(CLOSE(0, 0, 0), 0);
    assert_int_equal(paper.carrier, 0);
    assert_int_equal(paper.forgotten, 0);
    assert_int_equal(CLOSE(0, 0, 0), -ENOENT);
    OPEN(0, 0);
    assert_int_equal(CLOSE(0, 0, TAPHOLDER_REMOVE), 0);
    assert_int_equal(paper.forgotten, 1);
}

static void test_other_options(void **state)
{
    struct holder *holder = *state;

    OPEN(0, 0);
    assert_int_equal(ask(holder, 0, 0, TAPHOLDER_OPEN, TAPHOLDER_VNET_HDR, 1, "ext0"), -EEXIST);
    assert_int_equal(ask(holder, 0, 0, TAPHOLDER_OPEN, 0, 2, "ext0"), -EEXIST);
    assert_int_equal(OPEN(0, 0), 0);
}

static void test_device_deleted(void **state)
{
    struct holder *holder = *state;

    OPEN(0, 0);
    LINK(0, 0, 1);
    paper.check_result = -EBADFD;
    assert_int_equal(LINK(0, 0, 1), -ENOENT);
    paper.check_result = 0;
    assert_int_equal(OPEN(0, 0), 0);
    assert_int_equal(paper.opened, 2);
}

static void test_errors_of_the_kernel(void **state)
{
    struct holder *holder = *state;

    paper.open_result = -EBUSY;
    assert_int_equal(OPEN(0, 0), -EBUSY);
    paper.open_result = 0;
    OPEN(0, 0);
    paper.carrier_result = -EPERM;
    assert_int_equal(LINK(0, 0, 1), -EPERM);
}

static void test_limit(void **state)
{
    struct holder *holder = *state;
    char name[IFNAMSIZ];

    for (unsigned i = 0; i < TAPHOLDER_TAPS_MAX; i++) {
        snprintf(name, sizeof(name), "t%u", i);
        assert_int_equal(ask(holder, 0, 0, TAPHOLDER_OPEN, 0, 1, name), 0);
    }
    assert_int_equal(OPEN(0, 0), -ENOSPC);
    assert_int_equal(ADOPT(0, 0), -ENOSPC);
    assert_int_equal(ask(holder, 0, 0, TAPHOLDER_CLOSE, 0, 0, "t7"), 0);
    assert_int_equal(OPEN(0, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, holder_setup, holder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_carrier_follows_the_word),
        TEST(test_grace),
        TEST(test_return_within_grace),
        TEST(test_starting_often_is_not_forwarding),
        TEST(test_port_down_stays_down),
        TEST(test_adopt),
        TEST(test_owner),
        TEST(test_close),
        TEST(test_other_options),
        TEST(test_device_deleted),
        TEST(test_errors_of_the_kernel),
        TEST(test_limit),
    };

    return cmocka_run_group_tests_name("tapholder holder", tests, NULL, NULL);
}
