/* See message.h. */
#include "message.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int interface_name_is_valid(const char name[IFNAMSIZ])
{
    size_t length = strnlen(name, IFNAMSIZ);

    if (length == 0 || length == IFNAMSIZ || !strcmp(name, ".") || !strcmp(name, ".."))
        return 0;
    for (size_t i = 0; i < length; i++)
        if (strchr("/:%", name[i]) || isspace((unsigned char)name[i]) ||
            iscntrl((unsigned char)name[i]))
            return 0;
    for (size_t i = length; i < IFNAMSIZ; i++)
        if (name[i])
            return 0;
    return 1;
}

int message_check_request(const struct tapholder_message *message, unsigned fd_count)
{
    uint32_t options = 0;
    int with_queues = 0;

    if (message->version != TAPHOLDER_VERSION || message->result != 0)
        return -EPROTO;
    switch (message->operation) {
    case TAPHOLDER_OPEN:
    case TAPHOLDER_ADOPT:
        options = TAPHOLDER_VNET_HDR;
        with_queues = 1;
        break;
    case TAPHOLDER_LINK:
        options = TAPHOLDER_UP;
        break;
    case TAPHOLDER_CLOSE:
        options = TAPHOLDER_REMOVE;
        break;
    default:
        return -EOPNOTSUPP;
    }
    if (fd_count != (message->operation == TAPHOLDER_ADOPT ? message->queues : 0))
        return -EPROTO;
    if (message->options & ~options)
        return -EOPNOTSUPP;
    if (with_queues ? message->queues < 1 || message->queues > TAPHOLDER_QUEUES_MAX
                    : message->queues != 0)
        return -EINVAL;
    return interface_name_is_valid(message->name) ? 0 : -EINVAL;
}

void fds_close(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

/* Room for the descriptors of one message, aligned as cmsg(3) wants. */
union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(TAPHOLDER_QUEUES_MAX * sizeof(int))];
};

int message_send(int socket, const struct tapholder_message *message, const int *fds,
                 unsigned fd_count, int flags)
{
    struct iovec data = {.iov_base = (void *)message, .iov_len = sizeof(*message)};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
    union control control;

    if (fd_count > TAPHOLDER_QUEUES_MAX)
        return -EINVAL;
    if (fd_count) {
        memset(&control, 0, sizeof(control));
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
    }
    if (sendmsg(socket, &header, flags | MSG_NOSIGNAL) < 0)
        return -errno;
    return 0;
}

int message_receive(int socket, struct tapholder_message *ret_message,
                    int ret_fds[TAPHOLDER_QUEUES_MAX], unsigned *ret_fd_count, int flags)
{
    struct tapholder_message message;
    struct iovec data = {.iov_base = &message, .iov_len = sizeof(message)};
    union control control;
    struct msghdr header = {.msg_iov = &data,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof(control)};
    int fds[sizeof(control) / sizeof(int)];
    unsigned count = 0;
    int bad = 0;
    ssize_t size;

    do
        size = recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            bad = 1;
            continue;
        }
        unsigned received = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds + count, CMSG_DATA(c), received * sizeof(int));
        count += received;
    }
    /* An empty message reads like the end of the connection; neither can be answered. */
    if (size == 0 || bad || size != sizeof(message) || count > TAPHOLDER_QUEUES_MAX ||
        header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        fds_close(fds, count);
        return size == 0 ? -ECONNRESET : -EPROTO;
    }
    *ret_message = message;
    memcpy(ret_fds, fds, count * sizeof(int));
    *ret_fd_count = count;
    return 0;
}
