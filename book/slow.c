/* slow.c - an application of chapter 6's reactor that breaks its one rule: to answer a client that
 * says hello, its handler computes for a while, and meanwhile nobody else is called.
 *
 * Not to be copied: besides, an answer that does not fit into the socket at once is lost.
 * Needs POSIX.1-2008. Try: ./slow --compute 2000, then say hello with one nc 127.0.0.1 7007, and
 * something else with another. */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"
#include "conn.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct server {
    struct acceptor acceptor;
    int64_t compute_ms;
};

struct connection {
    struct event_handler handler;
    struct server *server;
};

static int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* [compute] */
/* In real servers: to hash a password, to compress a file, to sort a table. */
static void compute(int fd, int64_t milliseconds)
{
    int64_t end = clock_ms() + milliseconds;

    net_log(fd, "computes", 0);
    while (clock_ms() < end)
        continue;
}

static void on_connection(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    const struct server *server = ((struct connection *)handler)->server;
    bool told_to_stop = (events & (REACTOR_STOP | REACTOR_CLOSE)) != 0;
    char message[4096];
    ssize_t size = recv(handler->fd, message, sizeof message, 0);

    if (size >= 5 && memcmp(message, "hello", 5) == 0)
        compute(handler->fd, server->compute_ms); /* everybody else waits */
    if (size > 0) {
        net_log(handler->fd, "answers", 0);
        size = send(handler->fd, message, (size_t)size, 0);
    }
    if (size > 0 || (size < 0 && errno == EAGAIN && !told_to_stop))
        return;
    reactor_remove(reactor, handler);
    close(handler->fd);
    free(handler);
}
/* [/compute] */

static int add(struct reactor *reactor, struct acceptor *acceptor, int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);

    if (connection == NULL)
        return -1;
    connection->handler = (struct event_handler){fd, "connection", on_connection};
    connection->server = (struct server *)acceptor; /* its first member */
    if (set_nonblocking(fd) == 0 && reactor_register(reactor, &connection->handler, REACTOR_READ) == 0)
        return 0;
    free(connection);
    return -1;
}

static void *open_server(struct reactor *reactor, int listener, const void *argument)
{
    struct server *server = calloc(1, sizeof *server);

    if (server == NULL)
        return NULL;
    server->compute_ms = *(const int64_t *)argument;
    if (acceptor_open(&server->acceptor, reactor, listener, add) == 0)
        return server;
    free(server);
    return NULL;
}

int main(int argc, char **argv)
{
    struct net_option own[] = {
        loops_demux,
        loops_count,
        {"compute", "MS  compute for so long when a client says hello (300)", "300"},
    };
    struct net_options options;
    net_options(&options, argc, argv, "a handler that takes long", own, 3);

    enum { MOST_MS = 10000 };
    int64_t compute_ms = loops_number(&own[2], MOST_MS);
    loops_run(&options, own, &(struct application){open_server, free, &compute_ms});
    return EXIT_SUCCESS;
}
