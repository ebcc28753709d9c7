/* Exercise 07-2, a limit on silence: a solution.
 *
 * An echo server on io_uring. To each receive a timeout is linked: whichever is over first ends the other.
 * Needs Linux 5.6 and liburing 2.3. */
#define _GNU_SOURCE /* for liburing's header */

#include "net.h"

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ENTRIES = 64, BUFFER_SIZE = 4096 };

/* A completion carries the address of its client, and in the lowest bits which operation it was of. */
enum kind { NOTHING, ACCEPT, RECEIVE, SEND, KINDS = 7 };

struct client {
    struct client *next, **link; /* in the list of all, and what leads here */
    int fd;
    bool leaving; /* it is closed when it has got what it is owed */
    size_t size;  /* what it is owed */
    size_t sent;  /* of that */
    char buffer[BUFFER_SIZE];
};

struct server {
    struct io_uring ring;
    int listener;
    struct client *first;
    struct __kernel_timespec limit; /* how long a client may be silent */
};

/* Returns an entry to fill in, with room for so many others in the same submission. */
static struct io_uring_sqe *entry(struct server *server, unsigned others)
{
    while (io_uring_sq_space_left(&server->ring) <= others)
        io_uring_submit(&server->ring);
    return io_uring_get_sqe(&server->ring);
}

/* Says whose it is, after it has been prepared. */
static void mark(struct io_uring_sqe *sqe, const struct client *client, enum kind kind)
{
    io_uring_sqe_set_data64(sqe, (uintptr_t)client | kind);
}

static void start_accept(struct server *server)
{
    struct io_uring_sqe *sqe = entry(server, 0);
    io_uring_prep_accept(sqe, server->listener, NULL, NULL, SOCK_CLOEXEC);
    mark(sqe, NULL, ACCEPT);
}

/* Two entries, one chain: so they must be in the same submission. */
static void start_receive(struct server *server, struct client *client)
{
    struct io_uring_sqe *sqe = entry(server, 1);
    io_uring_prep_recv(sqe, client->fd, client->buffer, sizeof client->buffer, 0);
    sqe->flags |= IOSQE_IO_LINK;
    mark(sqe, client, RECEIVE);
    sqe = entry(server, 0);
    io_uring_prep_link_timeout(sqe, &server->limit, 0);
    mark(sqe, NULL, NOTHING); /* its completion may come when the client is gone */
}

static void start_send(struct server *server, struct client *client)
{
    struct io_uring_sqe *sqe = entry(server, 0);
    io_uring_prep_send(sqe, client->fd, client->buffer + client->sent, client->size - client->sent, 0);
    mark(sqe, client, SEND);
}

static void end(struct client *client)
{
    *client->link = client->next;
    if (client->next != NULL)
        client->next->link = client->link;
    close(client->fd);
    free(client);
}

static void on_accepted(struct server *server, int result)
{
    struct client *client = result < 0 ? NULL : malloc(sizeof *client);
    if (client != NULL) {
        *client = (struct client){.fd = result, .next = server->first, .link = &server->first};
        if (client->next != NULL)
            client->next->link = &client->next;
        server->first = client;
        start_receive(server, client);
    } else if (result >= 0) {
        close(result);
    } else if (result != -EINTR && result != -ECONNABORTED) { /* out of descriptors: all wait a while */
        net_pause();
    }
    start_accept(server);
}

static void on_received(struct server *server, struct client *client, int result)
{
    static const char farewell[] = "bye\n";

    client->sent = 0;
    if (result > 0) {
        client->size = (size_t)result;
        start_send(server, client);
    } else if (result == -ECANCELED) { /* nobody cancels it but its timeout */
        client->size = sizeof farewell - 1;
        memcpy(client->buffer, farewell, client->size);
        client->leaving = true;
        start_send(server, client);
    } else {
        end(client);
    }
}

static void on_sent(struct server *server, struct client *client, int result)
{
    if (result < 0) {
        end(client);
        return;
    }
    client->sent += (size_t)result;
    if (client->sent < client->size)
        start_send(server, client);
    else if (client->leaving)
        end(client);
    else
        start_receive(server, client);
}

static void on_completion(struct server *server, uint64_t user_data, int result)
{
    struct client *client = (struct client *)(uintptr_t)(user_data & ~(uint64_t)KINDS);
    switch ((enum kind)(user_data & KINDS)) {
    case ACCEPT:
        on_accepted(server, result);
        break;
    case RECEIVE:
        on_received(server, client, result);
        break;
    case SEND:
        on_sent(server, client, result);
        break;
    default: /* a timeout: its receive has said all */
        break;
    }
}

static void dispatch(struct server *server)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&server->ring, &cqe) == 0) {
        uint64_t user_data = cqe->user_data;
        int result = cqe->res;
        io_uring_cqe_seen(&server->ring, cqe);
        on_completion(server, user_data, result);
    }
}

int main(int argc, char **argv)
{
    static struct server server;
    struct net_option own[] = {{"limit", "MS  close a client that is silent for so long", "3600000"}};
    struct net_options options;

    net_options(&options, argc, argv, "an echo on io_uring, with a limit on silence", own, 1);
    char *rest;
    long limit_ms = strtol(own[0].value, &rest, 10);
    if (*rest != '\0' || limit_ms < 1)
        net_wrong_use(&own[0], "not a number of milliseconds");
    server.limit = (struct __kernel_timespec){limit_ms / 1000, limit_ms % 1000 * 1000000};
    net_catch_signals();
    errno = -io_uring_queue_init(ENTRIES, &server.ring, 0);
    if (errno != 0)
        net_die("io_uring_queue_init");
    server.listener = net_listen(&options);
    start_accept(&server);

    while (!net_stopping()) {
        int result = io_uring_submit_and_wait(&server.ring, 1);
        if (result < 0 && result != -EINTR && result != -EBUSY && result != -EAGAIN) {
            errno = -result;
            net_die("io_uring_submit_and_wait");
        }
        dispatch(&server);
    }
    io_uring_queue_exit(&server.ring); /* the kernel may use the clients' memory for a while yet: it stays */
    return EXIT_SUCCESS;
}
