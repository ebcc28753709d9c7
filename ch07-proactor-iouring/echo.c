/* echo.c - the echo server, as completion handlers: for a client that has come, bytes that have been
 * received, bytes that have been sent.
 *
 * What it does is what chapter 6's server does. But no handler receives or sends: it begins
 * operations, and is called with what has come of them.
 * Needs C11. Try: ./proactor --engine emulated --idle-timeout 10, then nc 127.0.0.1 7007 */
#include "net.h"
#include "proactor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    OWED_AT_MOST = 64 * 1024, /* by one connection */
    GRACE_MS = 3000,          /* a stop waits this long for clients that are slow to take their bytes */
};

/* [server] */
struct server {
    struct proactor_stop stop;
    struct proactor_accept accept;
    struct connection *first; /* of all */
    int64_t idle_ms;          /* a client that is silent so long is closed; 0: none is */
};

/* A client. Its bytes are in three places at most, and all together within the credit of one receive:
 * in the send that is pending, in a buffer of the engine's or in memory of its own; and behind
 * that in owed, where what comes during a send is gathered for the next one. */
struct connection {
    struct proactor_receive receive;
    struct proactor_send send;
    struct proactor_close close;
    struct proactor_timer idle;
    char *owed;
    struct server *server;
    struct connection *next, **link; /* in the list of all; what points to this one */
    uint32_t owed_size;
    uint32_t buffer; /* what is being sent is in this one of the engine's, */
    bool lent;       /* if that is true; else in memory of its own */
    bool finished;   /* the client sends no more */
};
/* [/server] */

/* [close] */
static void on_closed(struct proactor *proactor, struct proactor_close *close)
{
    struct connection *connection = (struct connection *)((char *)close - offsetof(struct connection, close));
    (void)proactor;
    *connection->link = connection->next;
    if (connection->next != NULL)
        connection->next->link = connection->link;
    free(connection->owed);
    free(connection);
}

static void close_connection(struct proactor *proactor, struct connection *connection, const char *why,
                             int error)
{
    if (connection->close.operation.pending)
        return;
    net_log((int)connection->close.operation.socket, why, error);
    proactor_cancel_timer(proactor, &connection->idle);
    proactor_close(proactor, &connection->close);
}
/* [/close] */

/* [send] */
/* Gives the connection something to wait for: it is owed bytes, or may send some, or has ended. */
static void go_on(struct proactor *proactor, struct connection *connection)
{
    struct proactor_receive *receive = &connection->receive;

    if (connection->close.operation.pending || connection->send.operation.pending)
        return;
    if (connection->owed != NULL) {
        connection->send.data = connection->owed;
        connection->send.size = connection->owed_size;
        connection->send.operation.at_once = false;
        connection->owed = NULL;
        connection->owed_size = 0;
        proactor_send(proactor, &connection->send);
    } else if (connection->finished) {
        close_connection(proactor, connection, "served", 0);
    } else if (!receive->operation.pending) { /* nothing is owed: there is credit for all of it again */
        receive->operation.at_once = proactor_stopping(proactor);
        proactor_receive(proactor, receive);
    }
}

/* Keeps bytes that cannot be sent now, together with those that are kept already: behind them, or
 * before. Returns 0, or -1 with errno. */
static int keep(struct connection *connection, const char *data, size_t size, bool before)
{
    char *owed = realloc(connection->owed, connection->owed_size + size);
    if (owed == NULL)
        return -1;
    if (before)
        memmove(owed + size, owed, connection->owed_size);
    memcpy(before ? owed : owed + connection->owed_size, data, size);
    connection->owed = owed;
    connection->owed_size += (uint32_t)size;
    return 0;
}

/* The socket has taken the bytes, or as many as it has room for. */
static void on_sent(struct proactor *proactor, struct proactor_send *send)
{
    struct connection *connection = (struct connection *)((char *)send - offsetof(struct connection, send));
    int error = send->operation.error;

    /* To wait for a slow client is not what the engine's buffers are for: the rest moves to our own. */
    if (error == 0 && send->sent < send->size &&
        keep(connection, send->data + send->sent, send->size - send->sent, true) < 0)
        error = errno; /* an echo with a gap would be worse */
    char *data = (char *)send->data;
    if (connection->lent)
        proactor_give_back(proactor, (struct proactor_piece){data, (uint32_t)send->size, connection->buffer});
    else
        free(data);
    connection->lent = false;
    if (error != 0)
        close_connection(proactor, connection, "lost", error);
    else
        go_on(proactor, connection);
}
/* [/send] */

/* [receive] */
/* A receive has ended without bytes: with the client's, because of a stop, or with an error. */
static void on_end(struct proactor *proactor, struct connection *connection, int error)
{
    if (error == 0)
        connection->finished = true; /* a FIN: it may still be reading */
    if (error == 0 || error == ECANCELED)
        go_on(proactor, connection);
    else if (error == EAGAIN) /* a stop, and all that has come is echoed */
        close_connection(proactor, connection, "served", 0);
    else
        close_connection(proactor, connection, "lost", error);
}

/* The piece is ours until we give it back. Most often the socket takes it all, and the bytes never leave
 * the buffer. */
static void on_received(struct proactor *proactor, struct proactor_receive *receive,
                        struct proactor_piece piece)
{
    struct connection *connection = (struct connection *)receive; /* its first member */

    if (piece.size == 0) {
        on_end(proactor, connection, receive->operation.error);
        return;
    }
    if (connection->server->idle_ms > 0) /* it is set, so this cannot fail */
        (void)proactor_set_timer(proactor, &connection->idle, connection->server->idle_ms);
    if (!connection->send.operation.pending) {
        connection->buffer = piece.buffer;
        connection->lent = true;
        connection->send.data = piece.data;
        connection->send.size = piece.size;
        connection->send.operation.at_once = true;
        proactor_send(proactor, &connection->send);
        return;
    }
    /* One send at a time, or they might overtake each other. */
    if (keep(connection, piece.data, piece.size, false) < 0)
        close_connection(proactor, connection, "lost", errno);
    proactor_give_back(proactor, piece);
}

/* Whoever has spoken may be silent for as long again; and whoever is owed bytes is not silent: it is we
 * who have something to say. */
static void on_silence(struct proactor *proactor, struct proactor_timer *timer)
{
    struct connection *connection = (struct connection *)((char *)timer - offsetof(struct connection, idle));

    if (connection->send.operation.pending &&
        proactor_set_timer(proactor, timer, connection->server->idle_ms) == 0)
        return;
    close_connection(proactor, connection, "silent for too long", 0);
}
/* [/receive] */

/* [accept] */
static void on_accepted(struct proactor *proactor, struct proactor_accept *accept, proactor_socket client)
{
    struct server *server = (struct server *)((char *)accept - offsetof(struct server, accept));

    if (!accept->operation.pending) {
        errno = accept->operation.error;
        if (errno != ECANCELED) /* that is the stop */
            net_die("accept");
        return;
    }
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL ||
        (server->idle_ms > 0 && proactor_set_timer(proactor, &connection->idle, server->idle_ms) < 0)) {
        net_log((int)client, "turned away", errno);
        free(connection);
        proactor_discard(proactor, client);
        return;
    }
    net_log((int)client, "connected", 0);
    connection->receive = (struct proactor_receive){{.socket = client}, on_received, OWED_AT_MOST, 0};
    connection->send = (struct proactor_send){.operation.socket = client, .completed = on_sent};
    connection->close = (struct proactor_close){{.socket = client}, on_closed};
    connection->idle.expired = on_silence;
    connection->server = server;
    connection->next = server->first;
    connection->link = &server->first;
    if (connection->next != NULL)
        connection->next->link = &connection->next;
    server->first = connection;
    go_on(proactor, connection);
}
/* [/accept] */

/* [stop] */
/* Ends what waits. Each connection then receives what has come already, and is closed when that is echoed. */
static void on_stop(struct proactor *proactor, struct proactor_stop *stop)
{
    struct server *server = (struct server *)stop; /* its first member */
    proactor_cancel(proactor, &server->accept.operation);
    for (struct connection *connection = server->first; connection != NULL; connection = connection->next)
        proactor_cancel(proactor, &connection->receive.operation);
}

static void on_overdue(struct proactor *proactor, struct proactor_stop *stop)
{
    struct server *server = (struct server *)stop; /* its first member */
    for (struct connection *connection = server->first; connection != NULL; connection = connection->next)
        close_connection(proactor, connection, "takes too long", 0);
}
/* [/stop] */

/* [main] */
/* The number in an option, from 1 to most; 0 if it was not given. Ends the program if it is none. */
static int64_t number(const struct net_option *option, int64_t most)
{
    if (option->value == NULL)
        return 0;
    char *end;
    errno = 0;
    long value = strtol(option->value, &end, 10);
    if (errno != 0 || *end != '\0' || end == option->value || value < 1 || value > most)
        net_wrong_use(option, "not a whole number that makes sense here");
    return value;
}

int main(int argc, char **argv)
{
    struct net_option own[] = {
        {"engine", "NAME  io_uring, iocp or emulated (the best that works here)", NULL},
        {"idle-timeout", "SECONDS  close a client that is silent for so long (never)", NULL},
        {"buffers", "N  share so many buffers among all clients (what fits a processor's cache)", NULL},
        {"zero-copy", "BYTES  from this size on, send without a copy to clients who are slow (never)", NULL},
    };
    struct net_options options;
    net_options(&options, argc, argv,
                "TCP echo server on a proactor: operations are begun, and handlers told when they are done",
                own, 4);

    struct server server = {.stop = {GRACE_MS, on_stop, on_overdue}};
    server.idle_ms = 1000 * number(&own[1], 1000000);
    struct proactor *proactor = proactor_create(&(struct proactor_options){
        own[0].value, (uint32_t)number(&own[2], 32768), (uint32_t)number(&own[3], OWED_AT_MOST)});
    if (proactor == NULL && errno == ENOENT)
        net_wrong_use(&own[0], "this system has no such engine");
    if (proactor == NULL)
        return EXIT_FAILURE; /* a line has said why */
    if (proactor_stop_at_signals(proactor, &server.stop) < 0)
        net_die("signals");
    server.accept = (struct proactor_accept){.completed = on_accepted};
    server.accept.operation.socket = (proactor_socket)net_listen(&options);
    proactor_accept(proactor, &server.accept);
    if (proactor_run(proactor) < 0)
        net_die("proactor");
    proactor_destroy(proactor);
    return EXIT_SUCCESS;
}
/* [/main] */
