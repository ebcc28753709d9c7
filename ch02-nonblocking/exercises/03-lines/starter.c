/* Exercise 02-3, echo lines: what to start from.
 *
 * A server like nonblocking.c, whose clients have buffers of their own. It
 * still echoes whatever comes. Look for YOUR WORK: three places. */
#define _POSIX_C_SOURCE 200809L

#include "conn.h" /* set_nonblocking(), and the names of the states */
#include "net.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LONGEST_LINE = 4096,   /* bytes, with its newline */
    ACCEPTS_PER_TURN = 64, /* so that a crowd at the door does not keep those inside waiting */
};

/* text holds what was received; the first sent bytes of it have been sent.
 * YOUR WORK: which part of it may be sent now, and which has to wait? */
struct client {
    int fd;
    bool ended;  /* its FIN has come */
    size_t sent; /* 0 <= sent <= size <= LONGEST_LINE */
    size_t size; /* the end of what was received */
    char text[LONGEST_LINE];
};

/* All clients, side by side, in no order. */
struct server {
    struct client *clients;
    size_t count;
    size_t room;
};

/* Sends what is owed, as far as the socket takes it. */
static enum conn_state pay(struct client *client)
{
    while (client->sent < client->size) {
        ssize_t n = send(client->fd, client->text + client->sent, client->size - client->sent, 0);
        if (n >= 0)
            client->sent += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return CONN_OWING;
        else if (errno != EINTR)
            return CONN_CLOSED;
    }
    client->sent = client->size = 0; /* YOUR WORK: what has to stay? */
    return client->ended ? CONN_CLOSED : CONN_DRAINED;
}

/* Receives once, and sends back what came. */
static enum conn_state receive(struct client *client)
{
    ssize_t got;
    do
        got = recv(client->fd, client->text + client->size, LONGEST_LINE - client->size, 0);
    while (got < 0 && errno == EINTR);

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return CONN_IDLE;
    if (got < 0)
        return CONN_CLOSED;
    if (got == 0) {
        client->ended = true;
        return pay(client);
    }

    /* YOUR WORK: which lines are complete now? And what if one does not fit? */
    client->size += (size_t)got;
    return pay(client);
}

/* Does for the client what can be done without waiting. While it is owed
 * lines, nothing is received from it. */
static enum conn_state turn(struct client *client)
{
    return client->sent < client->size ? pay(client) : receive(client);
}

/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct server *server, int fd)
{
    if (server->count == server->room) {
        size_t room = server->room == 0 ? 64 : 2 * server->room;
        struct client *clients = realloc(server->clients, room * sizeof *clients);
        if (clients == NULL)
            return -1;
        server->clients = clients;
        server->room = room;
    }
    if (set_nonblocking(fd) < 0)
        return -1;
    struct client *client = &server->clients[server->count++];
    client->fd = fd;
    client->ended = false;
    client->sent = client->size = 0;
    return 0;
}

/* Closes client i. The last one takes its place. */
static void drop(struct server *server, size_t i)
{
    close(server->clients[i].fd);
    server->clients[i] = server->clients[--server->count];
}

/* Asks the listening socket for clients. Out of descriptors, there is nothing
 * to do: it will be asked again at the next turn. */
static void accept_clients(struct server *server, int listener)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = net_accept(listener);
        if (fd < 0)
            return;
        if (add(server, fd) < 0) { /* this client is turned away, and the others go on */
            net_log(fd, "turned away", errno);
            close(fd);
        }
    }
}

/* Asks every client once. During a stop, one that has been answered all the
 * lines that it sent is closed. */
static void serve_clients(struct server *server)
{
    bool stopping = net_stopping();
    bool overdue = net_overdue();
    size_t i = 0;

    while (i < server->count) {
        enum conn_state state = turn(&server->clients[i]);
        if (state == CONN_CLOSED || (stopping && state == CONN_IDLE) || overdue)
            drop(server, i); /* and look at i again: another is there now */
        else
            i++;
    }
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "non-blocking, echoes what comes");
    net_catch_signals();
    int listener = net_listen(&options);
    if (set_nonblocking(listener) < 0)
        net_die("listening socket");

    static struct server server;
    while (!net_stopping()) {
        accept_clients(&server, listener);
        serve_clients(&server);
    }
    /* Who came before the stop is served, too: a whole queue of them. */
    for (int i = 0; i < SOMAXCONN; i += ACCEPTS_PER_TURN)
        accept_clients(&server, listener);
    close(listener);
    while (server.count > 0)
        serve_clients(&server);
    free(server.clients);
    return EXIT_SUCCESS;
}
