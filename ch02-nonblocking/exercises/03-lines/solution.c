/* Exercise 02-3, echo lines: a solution.
 *
 * A line is sent back when it is complete. Until then its beginning is kept,
 * so a connection now needs a buffer of its own: that is the price of caring
 * about what the bytes mean. */
#define _POSIX_C_SOURCE 200809L

#include "conn.h" /* set_nonblocking(), and the names of the states */
#include "net.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LONGEST_LINE = 4096,   /* bytes, with its newline */
    ACCEPTS_PER_TURN = 64, /* so that a crowd at the door does not keep those inside waiting */
};

/* text holds, in this order: what has been sent, what is owed (whole lines),
 * and the beginning of a line that is not complete yet. */
struct client {
    int fd;
    bool ended;   /* its FIN has come */
    size_t sent;  /* 0 <= sent <= whole <= size <= LONGEST_LINE */
    size_t whole; /* the end of the last complete line */
    size_t size;  /* the end of what was received */
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
    while (client->sent < client->whole) {
        ssize_t n = send(client->fd, client->text + client->sent, client->whole - client->sent, 0);
        if (n >= 0)
            client->sent += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return CONN_OWING;
        else if (errno != EINTR)
            return CONN_CLOSED;
    }
    client->size -= client->whole;
    memmove(client->text, client->text + client->whole, client->size);
    client->sent = client->whole = 0;
    return client->ended ? CONN_CLOSED : CONN_DRAINED;
}

/* Says so to a client whose line does not fit. Whether that arrives or not,
 * it is the end: where the next line would begin, nobody knows. */
static enum conn_state refuse(struct client *client)
{
    static const char message[] = "line too long\n";
    if (send(client->fd, message, sizeof message - 1, 0) < 0)
        net_log(client->fd, "line too long", errno);
    return CONN_CLOSED;
}

/* Receives once, and sends back the lines that are complete now. */
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
    if (got == 0) { /* the last line need not have a newline */
        client->ended = true;
        client->whole = client->size;
        return pay(client);
    }

    /* What was kept holds no newline: only what has just come may. */
    size_t old = client->size;
    client->size += (size_t)got;
    for (size_t i = old; i < client->size; i++) {
        if (client->text[i] == '\n')
            client->whole = i + 1;
    }
    if (client->whole == 0 && client->size == LONGEST_LINE)
        return refuse(client);
    return pay(client);
}

/* Does for the client what can be done without waiting. While it is owed
 * lines, nothing is received from it. */
static enum conn_state turn(struct client *client)
{
    return client->sent < client->whole ? pay(client) : receive(client);
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
    client->sent = client->whole = client->size = 0;
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
    net_options(&options, argc, argv, "non-blocking, echoes whole lines");
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
