/* Exercise 06-2, so many bytes a second: what to start from.
 *
 * This is echo.c without idle timeout, and with --rate, which nobody heeds yet.
 * Look for YOUR WORK: six places.
 * Needs POSIX.1-2008. */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"
#include "conn.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>

enum { BUFFER_SIZE = 64 * 1024 }; /* the most that one connection can owe */

/* What the handlers of one loop share. */
struct server {
    struct acceptor acceptor;
    int64_t rate;             /* bytes a second, for each client */
    char buffer[BUFFER_SIZE]; /* lent to one connection after the other */
};

/* A client. */
struct connection {
    struct event_handler handler;
    struct conn conn;
    struct server *server;
    /* YOUR WORK: what is in its bucket? When was it filled last? And what ends a pause? */
};

/* YOUR WORK: fill the bucket; let the client pause, and end the pause */

static void close_connection(struct reactor *reactor, struct connection *connection)
{
    /* YOUR WORK: what may still be on its way to this connection? */
    reactor_remove(reactor, &connection->handler);
    conn_close(&connection->conn);
    acceptor_resume(&connection->server->acceptor, reactor); /* there is a free descriptor now */
    free(connection);
}

/* How many bytes the next receive will bring, if it may bring so many at most; 1 if there are none:
 * then it brings the end, or nothing. */
static size_t receivable(int fd, size_t most)
{
    int waiting = 0;
    if (ioctl(fd, FIONREAD, &waiting) < 0 || waiting < 1)
        return 1;
    return (size_t)waiting < most ? (size_t)waiting : most;
}

/* Gives a client its turn: one, for as much as the buffer holds; the reactor reports the rest again. */
static void on_connection(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct connection *connection = (struct connection *)handler; /* its first member */
    struct server *server = connection->server;

    /* YOUR WORK: how much may it bring? If nothing, when may it bring something? (In a stop, everything.) */
    size_t size = receivable(handler->fd, BUFFER_SIZE);
    enum conn_state state = conn_turn(&connection->conn, server->buffer, size);

    if (state == CONN_CLOSED || (state == CONN_IDLE && reactor_stopping(reactor)) ||
        (events & REACTOR_CLOSE) != 0) {
        close_connection(reactor, connection);
        return;
    }
    /* YOUR WORK: how much has it brought? */
    reactor_want(reactor, handler, state == CONN_OWING ? REACTOR_WRITE : REACTOR_READ);
}

/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct reactor *reactor, struct acceptor *acceptor, int fd)
{
    struct server *server = (struct server *)acceptor; /* its first member */
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return -1;
    connection->handler = (struct event_handler){fd, "connection", on_connection};
    connection->server = server;
    /* YOUR WORK: its bucket is full, at first */
    if (conn_open(&connection->conn, fd) == 0 &&
        reactor_register(reactor, &connection->handler, REACTOR_READ) == 0)
        return 0;
    free(connection);
    return -1;
}

static void *open_server(struct reactor *reactor, int listener, const void *argument)
{
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    server->rate = *(const int64_t *)argument;
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
        {"rate", "BYTES  let each client send so many a second (1000000)", "1000000"},
    };
    struct net_options options;
    net_options(&options, argc, argv, "an echo server that limits each client's rate", own, 3);

    enum { MOST = 1000000000 };
    int64_t rate = loops_number(&own[2], MOST);
    loops_run(&options, own, &(struct application){open_server, free, &rate});
    return EXIT_SUCCESS;
}
