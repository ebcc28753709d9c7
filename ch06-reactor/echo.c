/* echo.c - the echo server, as handlers of a reactor: the acceptor, and a connection for each client.
 *
 * What it does is what chapter 4's servers do. What it does not do is to wait: it says what it wants to
 * hear of, and is called.
 * Needs POSIX.1-2008. Try: ./reactor --demux poll --idle-timeout 10, then nc 127.0.0.1 7007 */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"
#include "conn.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"

#include <stdint.h>
#include <stdlib.h>

enum { BUFFER_SIZE = 64 * 1024 }; /* the most that one connection can owe */

/* [server] */
/* What the handlers of one loop share. */
struct server {
    struct acceptor acceptor;
    int64_t idle_ms;          /* a client that is silent so long is closed; 0: none is */
    char buffer[BUFFER_SIZE]; /* lent to one connection after the other */
};

/* A client. */
struct connection {
    struct event_handler handler;
    struct conn conn;
    struct reactor_timer idle;
    struct server *server;
};
/* [/server] */

/* [close] */
static void close_connection(struct reactor *reactor, struct connection *connection)
{
    reactor_cancel_timer(reactor, &connection->idle);
    reactor_remove(reactor, &connection->handler);
    conn_close(&connection->conn);
    acceptor_resume(&connection->server->acceptor, reactor); /* there is a free descriptor now */
    free(connection);
}
/* [/close] */

/* [connection] */
/* Whoever has spoken, or taken something, may be silent for as long again. */
static void on_silence(struct reactor *reactor, struct reactor_timer *timer)
{
    struct connection *connection = (struct connection *)((char *)timer - offsetof(struct connection, idle));

    /* Whoever is owed bytes is not silent: it is we who have something to say. */
    if (connection->conn.owed != NULL && reactor_set_timer(reactor, timer, connection->server->idle_ms) == 0)
        return;
    net_log(connection->conn.fd, "silent for too long", 0);
    close_connection(reactor, connection);
}

/* Gives a client its turn: one, for as much as the buffer holds; the reactor reports the rest again. */
static void on_connection(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct connection *connection = (struct connection *)handler; /* its first member */
    struct server *server = connection->server;
    enum conn_state state = conn_turn(&connection->conn, server->buffer, BUFFER_SIZE);

    if (state == CONN_CLOSED || (state == CONN_IDLE && reactor_stopping(reactor)) ||
        (events & REACTOR_CLOSE) != 0) {
        close_connection(reactor, connection);
        return;
    }
    if (server->idle_ms > 0 && state != CONN_IDLE)
        (void)reactor_set_timer(reactor, &connection->idle, server->idle_ms); /* it is set: cannot fail */

    /* While it owes, it does not receive, and what it does not receive would wake us at each turn;
     * so would the room to send while nothing is owed. */
    reactor_want(reactor, handler, state == CONN_OWING ? REACTOR_WRITE : REACTOR_READ);
}
/* [/connection] */

/* [add] */
/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct reactor *reactor, struct acceptor *acceptor, int fd)
{
    struct server *server = (struct server *)acceptor; /* its first member */
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return -1;
    connection->handler = (struct event_handler){fd, "connection", on_connection};
    connection->idle.expired = on_silence;
    connection->server = server;
    if (conn_open(&connection->conn, fd) < 0)
        goto failed;
    if (server->idle_ms > 0 && reactor_set_timer(reactor, &connection->idle, server->idle_ms) < 0)
        goto failed;
    if (reactor_register(reactor, &connection->handler, REACTOR_READ) == 0)
        return 0;
    reactor_cancel_timer(reactor, &connection->idle);
failed:
    free(connection);
    return -1;
}
/* [/add] */

/* [main] */
static void *open_server(struct reactor *reactor, int listener, const void *argument)
{
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    server->idle_ms = *(const int64_t *)argument;
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
        {"idle-timeout", "SECONDS  close a client that is silent for so long (never)", NULL},
    };
    struct net_options options;
    net_options(&options, argc, argv,
                "TCP echo server on a reactor: handlers say what they want, and are called", own, 3);

    enum { MOST_SECONDS = 1000000 };
    int64_t idle_ms = own[2].value != NULL ? 1000 * loops_number(&own[2], MOST_SECONDS) : 0;
    loops_run(&options, own, &(struct application){open_server, free, &idle_ms});
    return EXIT_SUCCESS;
}
/* [/main] */
