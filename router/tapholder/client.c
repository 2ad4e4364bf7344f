/* See client.h. */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "message.h"

int tapholder_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval patience = {.tv_sec = TAPHOLDER_REPLY_MS / 1000,
                                     .tv_usec = TAPHOLDER_REPLY_MS % 1000 * 1000};
    int connection;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connection < 0)
        return -errno;
    if (setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
        connect(connection, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int result = -errno;
        close(connection);
        return result;
    }
    return connection;
}

/* One request and its reply. expected: descriptors that must come with a good reply, to ret_fds. */
static int transact(int connection, struct tapholder_message *message, const char *name,
                    const int *fds, unsigned fd_count, int *ret_fds, unsigned expected)
{
    struct tapholder_message reply;
    int received[TAPHOLDER_QUEUES_MAX];
    unsigned received_count;
    int result;

    if (strlen(name) >= IFNAMSIZ)
        return -EINVAL;
    strcpy(message->name, name);
    message->version = TAPHOLDER_VERSION;
    result = message_check_request(message, fd_count);
    if (result < 0)
        return result;
    result = message_send(connection, message, fds, fd_count, 0);
    if (!result)
        result = message_receive(connection, &reply, received, &received_count, 0);
    if (result < 0)
        return result == -EAGAIN ? -ETIMEDOUT : result == -EPIPE ? -ECONNRESET : result;
    if (reply.version != TAPHOLDER_VERSION || reply.operation != message->operation ||
        strncmp(reply.name, message->name, IFNAMSIZ) != 0 || reply.result > 0 ||
        received_count != (reply.result ? 0 : expected)) {
        fds_close(received, received_count);
        return -EPROTO;
    }
    if (!reply.result && expected)
        memcpy(ret_fds, received, expected * sizeof(int));
    return reply.result;
}

int tapholder_open(int connection, const char *name, uint32_t options, uint32_t queues,
                   int *ret_fds)
{
    struct tapholder_message message = {
        .operation = TAPHOLDER_OPEN, .options = options, .queues = queues};

    return transact(connection, &message, name, NULL, 0, ret_fds, queues);
}

int tapholder_adopt(int connection, const char *name, uint32_t options, uint32_t queues,
                    const int *fds)
{
    struct tapholder_message message = {
        .operation = TAPHOLDER_ADOPT, .options = options, .queues = queues};

    return transact(connection, &message, name, fds, queues, NULL, 0);
}

int tapholder_link(int connection, const char *name, bool up)
{
    struct tapholder_message message = {.operation = TAPHOLDER_LINK,
                                        .options = up ? TAPHOLDER_UP : 0};

    return transact(connection, &message, name, NULL, 0, NULL, 0);
}

int tapholder_close(int connection, const char *name, bool remove)
{
    struct tapholder_message message = {.operation = TAPHOLDER_CLOSE,
                                        .options = remove ? TAPHOLDER_REMOVE : 0};

    return transact(connection, &message, name, NULL, 0, NULL, 0);
}
