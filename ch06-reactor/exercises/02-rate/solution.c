/* Exercise 06-2, so many bytes a second: a solution.
 *
 * This is echo.c, with a bucket for each client: it is filled with so many bytes a second, and what
 * is received is taken from it. Whoever has emptied his is not heard until there is something in it.
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

/* A client. Its bucket is counted in thousandths of a byte, so that no millisecond is lost: with a
 * rate of 1 it brings one of them. */
struct connection {
    struct event_handler handler;
    struct conn conn;
    struct server *server;
    int64_t bucket;             /* in thousandths of a byte */
    int64_t filled_ms;          /* when it was filled last */
    struct reactor_timer pause; /* set while the client is not heard */
};

static int64_t at_least_1(int64_t number)
{
    return number > 0 ? number : 1;
}

/* Adds what the time since has brought. */
static void fill(struct connection *connection, const struct reactor *reactor)
{
    int64_t rate = connection->server->rate;
    int64_t most = 1000 * at_least_1(rate / 4);
    int64_t now_ms = reactor_now(reactor);
    int64_t passed_ms = now_ms - connection->filled_ms;

    connection->filled_ms = now_ms;
    /* (Divided, since a product could be too large after a month.) */
    connection->bucket =
        passed_ms >= (most - connection->bucket) / rate + 1 ? most : connection->bucket + passed_ms * rate;
}

/* Lets nothing in until the bucket holds enough again. Returns 0, or -1 with errno. */
static int pause_client(struct connection *connection, struct reactor *reactor)
{
    int64_t rate = connection->server->rate;
    int64_t missing = 1000 * at_least_1(rate / 10) - connection->bucket;

    if (reactor_set_timer(reactor, &connection->pause, (missing + rate - 1) / rate) < 0)
        return -1;
    reactor_want(reactor, &connection->handler, 0);
    return 0;
}

static void close_connection(struct reactor *reactor, struct connection *connection)
{
    reactor_cancel_timer(reactor, &connection->pause);
    reactor_remove(reactor, &connection->handler);
    conn_close(&connection->conn);
    acceptor_resume(&connection->server->acceptor, reactor); /* there is a free descriptor now */
    free(connection);
}

static void on_pause_over(struct reactor *reactor, struct reactor_timer *timer)
{
    struct connection *connection = (struct connection *)((char *)timer - offsetof(struct connection, pause));
    reactor_want(reactor, &connection->handler, REACTOR_READ);
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

/* A client's turn. During a stop there is no limit: what has come is echoed, and that is all. */
static void on_connection(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct connection *connection = (struct connection *)handler; /* its first member */
    struct server *server = connection->server;
    size_t allowed = BUFFER_SIZE;

    if (!reactor_stopping(reactor)) {
        fill(connection, reactor);
        if (connection->bucket / 1000 < BUFFER_SIZE)
            allowed = (size_t)(connection->bucket / 1000);
        if (allowed == 0 && connection->conn.owed == NULL) {
            if (pause_client(connection, reactor) < 0)
                close_connection(reactor, connection);
            return;
        }
    }
    size_t size = receivable(handler->fd, allowed);
    bool receives = connection->conn.owed == NULL;
    enum conn_state state = conn_turn(&connection->conn, server->buffer, size);

    if (state == CONN_CLOSED || (state == CONN_IDLE && reactor_stopping(reactor)) ||
        (events & REACTOR_CLOSE) != 0) {
        close_connection(reactor, connection);
        return;
    }
    if (receives && state != CONN_IDLE)
        connection->bucket -= 1000 * (int64_t)size;
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
    connection->pause.expired = on_pause_over;
    connection->server = server;
    connection->bucket = 1000 * at_least_1(server->rate / 4);
    connection->filled_ms = reactor_now(reactor);
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
