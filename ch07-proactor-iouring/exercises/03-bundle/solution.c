/* Exercise 07-3, a bundle: a solution.
 *
 * An echo server on io_uring. A receive takes as many buffers as the bytes that are there need, and has one
 * completion; where the kernel knows no bundles, it takes one buffer.
 * Needs Linux 5.19 and liburing 2.3. */
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

#ifndef IORING_FEAT_RECVSEND_BUNDLE /* newer than liburing 2.3: Linux 6.10 */
#define IORING_FEAT_RECVSEND_BUNDLE (1U << 14)
#endif
#ifndef IORING_RECVSEND_BUNDLE
#define IORING_RECVSEND_BUNDLE (1U << 4) /* in an entry's ioprio */
#endif

enum {
    ENTRIES = 64,
    BUFFERS = 64, /* a power of two */
    BUFFER_SIZE = 256,
};

/* A completion carries the address of its client, and in the lowest bits which operation it was of. */
enum kind { ACCEPT, RECEIVE, SEND, KINDS = 7 };

struct client {
    struct client *next, **link; /* in the list of all, and what leads here */
    int fd;
    size_t size; /* what it is owed */
    size_t sent; /* of that */
    char owed[BUFFERS * BUFFER_SIZE];
};

/* Buffers that all clients share. The ring says in which order the kernel takes them. */
struct pool {
    struct io_uring_buf_ring *ring;
    unsigned position[BUFFERS]; /* where in the ring a buffer was put */
    unsigned tail;              /* how many were put there so far */
    char memory[BUFFERS][BUFFER_SIZE];
};

struct server {
    struct io_uring ring; /* its features say what this kernel can do */
    int listener;
    struct client *first;
    struct pool pool;
};

/* Puts a buffer into the ring, behind the others. */
static void give_back(struct pool *pool, unsigned id)
{
    pool->position[id] = pool->tail++;
    io_uring_buf_ring_add(pool->ring, pool->memory[id], BUFFER_SIZE, (unsigned short)id,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(pool->ring, 1);
}

/* The order is as mixed at the start as it will be after a day. */
static void open_pool(struct server *server)
{
    struct pool *pool = &server->pool;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    pool->ring = aligned_alloc(page, page); /* which is more than enough */
    if (pool->ring == NULL)
        net_die("memory");
    io_uring_buf_ring_init(pool->ring);
    struct io_uring_buf_reg what = {.ring_addr = (uintptr_t)pool->ring, .ring_entries = BUFFERS};
    errno = -io_uring_register_buf_ring(&server->ring, &what, 0);
    if (errno != 0)
        net_die("io_uring_register_buf_ring");
    for (unsigned i = 0; i < BUFFERS; i++)
        give_back(pool, (i * 37 + 11) % BUFFERS);
}

static struct io_uring_sqe *entry(struct server *server)
{
    while (io_uring_sq_space_left(&server->ring) == 0)
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
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_accept(sqe, server->listener, NULL, NULL, SOCK_CLOEXEC);
    mark(sqe, NULL, ACCEPT);
}

/* As many buffers as there are, at most: a client has room for that. */
static void start_receive(struct server *server, struct client *client)
{
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_recv(sqe, client->fd, NULL, sizeof client->owed, 0);
    if ((server->ring.features & IORING_FEAT_RECVSEND_BUNDLE) != 0)
        sqe->ioprio |= IORING_RECVSEND_BUNDLE;
    sqe->flags |= IOSQE_BUFFER_SELECT; /* of group 0 */
    mark(sqe, client, RECEIVE);
}

static void start_send(struct server *server, struct client *client)
{
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_send(sqe, client->fd, client->owed + client->sent, client->size - client->sent, 0);
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

/* Copies what was received, and gives the buffers back. They were filled in the order in which they are in
 * the ring, from this one on, and each but the last is full. */
static void take(struct pool *pool, struct client *client, unsigned id, size_t size)
{
    for (size_t taken = 0; taken < size; taken += BUFFER_SIZE) {
        unsigned next = pool->ring->bufs[(pool->position[id] + 1) % BUFFERS].bid;
        size_t piece = size - taken < BUFFER_SIZE ? size - taken : BUFFER_SIZE;
        memcpy(client->owed + taken, pool->memory[id], piece);
        give_back(pool, id);
        id = next;
    }
    client->size = size;
    client->sent = 0;
}

static void on_received(struct server *server, struct client *client, int result, unsigned flags)
{
    if (result > 0) {
        take(&server->pool, client, flags >> IORING_CQE_BUFFER_SHIFT, (size_t)result);
        start_send(server, client);
    } else if (result == -ENOBUFS) { /* others have them, whose completions come next */
        start_receive(server, client);
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
    else
        start_receive(server, client);
}

static void dispatch(struct server *server)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&server->ring, &cqe) == 0) {
        const struct io_uring_cqe done = {cqe->user_data, cqe->res, cqe->flags};
        struct client *client = (struct client *)(uintptr_t)(done.user_data & ~(uint64_t)KINDS);
        io_uring_cqe_seen(&server->ring, cqe);
        switch ((enum kind)(done.user_data & KINDS)) {
        case ACCEPT:
            on_accepted(server, done.res);
            break;
        case RECEIVE:
            on_received(server, client, done.res, done.flags);
            break;
        default:
            on_sent(server, client, done.res);
            break;
        }
    }
}

int main(int argc, char **argv)
{
    static struct server server;
    struct net_option own[] = {{"kernel", "new or old: old, and it says that it knows no bundles", "new"}};
    struct net_options options;

    net_options(&options, argc, argv, "an echo on io_uring, which receives bundles", own, 1);
    net_catch_signals();
    errno = -io_uring_queue_init(ENTRIES, &server.ring, 0);
    if (errno != 0)
        net_die("io_uring_queue_init");
    if (strcmp(own[0].value, "old") == 0)
        server.ring.features &= ~IORING_FEAT_RECVSEND_BUNDLE;
    open_pool(&server);
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
    free(server.pool.ring);
    return EXIT_SUCCESS;
}
