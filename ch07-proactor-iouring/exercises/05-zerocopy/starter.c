/* Exercise 07-5, without a copy: what to start from.
 *
 * A server that sends numbers; the kernel copies them, and the memory is free at once. Look for YOUR WORK:
 * six places. Needs Linux 6.0 and liburing 2.3. */
#define _GNU_SOURCE /* for liburing's header */

#include "net.h"

#include <errno.h>
#include <liburing.h>
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
    /* YOUR WORK: is the kernel using it? */
    uint64_t data[BLOCK_BYTES / sizeof(uint64_t)];
};

struct client {
    struct client *next, **link; /* in the list of all, and what leads here */
    int fd;
    char line[LINE_SIZE];
    uint64_t position; /* of the next number to send */
    uint64_t left;     /* how many blocks are still to be sent */
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

/* Sends what is left of a block. YOUR WORK: without a copy. */
static void start_send(struct server *server, struct block *block)
{
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_send(sqe, block->client->fd, (const char *)block->data + block->sent,
                       sizeof block->data - block->sent, 0);
    mark(sqe, block, SEND);
}

/* Writes the next numbers into a block. */
static void fill(struct client *client, struct block *block)
{
    for (size_t i = 0; i < sizeof block->data / sizeof *block->data; i++)
        block->data[i] = client->position++;
    block->sent = 0;
}

/* YOUR WORK: may the kernel still be using the blocks? */
static void lose(struct client *client)
{
    close(client->fd);
    *client->link = client->next;
    if (client->next != NULL)
        client->next->link = client->link;
    free(client);
}

/* Sends the next block. YOUR WORK: from memory that nobody uses. And if there is none? */
static void go_on(struct server *server, struct client *client)
{
    if (client->left == 0) {
        start_receive(server, client);
        return;
    }
    struct block *block = &client->blocks[client->left-- % BLOCKS];
    fill(client, block);
    start_send(server, block);
}

/* YOUR WORK: a send without a copy has two completions. Which is this? */
static void on_sent(struct server *server, struct block *block, int result)
{
    struct client *client = block->client;

    if (result < 0) {
        lose(client);
        return;
    }
    block->sent += (size_t)result;
    if (block->sent < sizeof block->data)
        start_send(server, block);
    else
        go_on(server, client);
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
            on_sent(server, owner, done.res);
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
