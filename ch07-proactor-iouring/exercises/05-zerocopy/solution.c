/* Exercise 07-5, without a copy: a solution.
 *
 * A server that sends numbers, from the memory in which it has written them: the kernel makes no copy. So
 * that memory is the kernel's until it says that it does not need it any more. Needs Linux 6.0 and
 * liburing 2.3. */
#define _GNU_SOURCE /* for liburing's header */

#include "net.h"

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ENTRIES = 64, BLOCKS = 4, BLOCK_BYTES = 64 * 1024, LINE_SIZE = 64 };

/* A completion carries the address of its client, or of its block, and in the lowest bits which operation it
 * was of. */
enum kind { ACCEPT, RECEIVE, SEND, KINDS = 7 };

struct client;

/* Memory to send from. */
struct block {
    struct client *client;
    size_t sent;
    unsigned uses; /* sends of which not everything has been heard */
    uint64_t data[BLOCK_BYTES / sizeof(uint64_t)];
};

struct client {
    struct client *next, **link; /* in the list of all, and what leads here */
    int fd;
    char line[LINE_SIZE];
    uint64_t position; /* of the next number to send */
    uint64_t left;     /* how many blocks are still to be sent */
    bool sending;      /* one send at a time, or they might overtake each other */
    struct block blocks[BLOCKS];
};

struct server {
    struct io_uring ring;
    int listener;
    struct client *first;
};

static struct io_uring_sqe *entry(struct server *server)
{
    while (io_uring_sq_space_left(&server->ring) == 0)
        io_uring_submit(&server->ring);
    return io_uring_get_sqe(&server->ring);
}

/* Says whose it is, after it has been prepared. */
static void mark(struct io_uring_sqe *sqe, const void *owner, enum kind kind)
{
    io_uring_sqe_set_data64(sqe, (uintptr_t)owner | kind);
}

static void start_accept(struct server *server)
{
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_accept(sqe, server->listener, NULL, NULL, SOCK_CLOEXEC);
    mark(sqe, NULL, ACCEPT);
}

static void start_receive(struct server *server, struct client *client)
{
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_recv(sqe, client->fd, client->line, sizeof client->line - 1, 0);
    mark(sqe, client, RECEIVE);
}

/* Sends what is left of a block. */
static void start_send(struct server *server, struct block *block)
{
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_send_zc(sqe, block->client->fd, (const char *)block->data + block->sent,
                          sizeof block->data - block->sent, 0, 0);
    block->uses++;
    mark(sqe, block, SEND);
}

/* Writes the next numbers into a block. */
static void fill(struct client *client, struct block *block)
{
    for (size_t i = 0; i < sizeof block->data / sizeof *block->data; i++)
        block->data[i] = client->position++;
    block->sent = 0;
}

/* Frees a client who is lost, when the kernel uses none of his blocks any more. */
static void free_lost(struct client *client)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        if (client->blocks[i].uses > 0)
            return;
    }
    *client->link = client->next;
    if (client->next != NULL)
        client->next->link = client->link;
    free(client);
}

/* What the socket has taken may still be on its way, out of the blocks. */
static void lose(struct client *client)
{
    close(client->fd);
    client->fd = -1;
    free_lost(client);
}

/* Sends the next block from memory that nobody uses. If there is none, a notification will lead here. */
static void go_on(struct server *server, struct client *client)
{
    if (client->sending)
        return;
    if (client->left == 0) {
        start_receive(server, client);
        return;
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        struct block *block = &client->blocks[i];
        if (block->uses == 0) {
            fill(client, block);
            client->left--;
            client->sending = true;
            start_send(server, block);
            return;
        }
    }
}

/* A send is over when its result has come; the memory is free when its notification has come, too. */
static void on_sent(struct server *server, struct block *block, int result, unsigned flags)
{
    struct client *client = block->client;

    if ((flags & IORING_CQE_F_MORE) == 0)
        block->uses--;
    if ((flags & IORING_CQE_F_NOTIF) != 0) {
        if (client->fd < 0)
            free_lost(client);
        else if (block->uses == 0 && client->left > 0)
            go_on(server, client);
        return;
    }
    client->sending = false;
    if (result < 0) {
        lose(client);
        return;
    }
    block->sent += (size_t)result;
    if (block->sent < sizeof block->data) { /* one more, with a notification of its own */
        client->sending = true;
        start_send(server, block);
    } else {
        go_on(server, client);
    }
}

static void on_accepted(struct server *server, int result)
{
    struct client *client = result < 0 ? NULL : calloc(1, sizeof *client);
    if (client != NULL) {
        client->fd = result;
        client->next = server->first;
        client->link = &server->first;
        if (client->next != NULL)
            client->next->link = &client->next;
        server->first = client;
        for (size_t i = 0; i < BLOCKS; i++)
            client->blocks[i].client = client;
        start_receive(server, client);
    } else if (result >= 0) {
        close(result);
    } else if (result != -EINTR && result != -ECONNABORTED) { /* out of descriptors: all wait a while */
        net_pause();
    }
    start_accept(server);
}

/* A line says how many blocks the client wants. It comes in one piece, or the client is no friend of ours. */
static void on_received(struct server *server, struct client *client, int result)
{
    unsigned long count;
    if (result <= 0 || sscanf(client->line, "send %lu", &count) != 1 || count == 0) {
        lose(client);
        return;
    }
    memset(client->line, 0, sizeof client->line);
    client->left = count;
    go_on(server, client);
}

static void dispatch(struct server *server)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&server->ring, &cqe) == 0) {
        const struct io_uring_cqe done = {cqe->user_data, cqe->res, cqe->flags};
        void *owner = (void *)(uintptr_t)(done.user_data & ~(uint64_t)KINDS);
        io_uring_cqe_seen(&server->ring, cqe);
        switch ((enum kind)(done.user_data & KINDS)) {
        case ACCEPT:
            on_accepted(server, done.res);
            break;
        case RECEIVE:
            on_received(server, owner, done.res);
            break;
        default:
            on_sent(server, owner, done.res, done.flags);
            break;
        }
    }
}

int main(int argc, char **argv)
{
    static struct server server;
    struct net_options options;

    net_options(&options, argc, argv, "numbers, as many as one wants, on io_uring", NULL, 0);
    net_catch_signals();
    errno = -io_uring_queue_init(ENTRIES, &server.ring, 0);
    if (errno != 0)
        net_die("io_uring_queue_init");
    server.listener = net_listen(&options);
    /* Clients' sockets inherit that. So little room, that sends are short now and then. */
    setsockopt(server.listener, SOL_SOCKET, SO_SNDBUF, &(int){BLOCK_BYTES}, sizeof(int));
    start_accept(&server);

    while (!net_stopping()) {
        int result = io_uring_submit_and_wait(&server.ring, 1);
        if (result < 0 && result != -EINTR && result != -EBUSY && result != -EAGAIN) {
            errno = -result;
            net_die("io_uring_submit_and_wait");
        }
        dispatch(&server);
    }
    io_uring_queue_exit(&server.ring); /* what is on its way still needs the clients' memory */
    return EXIT_SUCCESS;
}
