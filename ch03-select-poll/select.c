/* select.c - select(), one thread that sleeps until the kernel says who is ready.
 *
 * Two sets of descriptors go in, for reading and for writing, and come back
 * with those that are ready: so they are made anew for each call. A set has
 * room for descriptors below FD_SETSIZE, and no more: others are turned away.
 * Needs any POSIX system. Try: ./select --port 7007, then nc 127.0.0.1 7007 in two terminals */
#define _POSIX_C_SOURCE 200809L

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024, /* the most that one connection can owe */
    ACCEPTS_PER_TURN = 64,   /* so that a crowd at the door does not keep those inside waiting */
    TICK_MS = 100,           /* after this long look again at what no event announces */
};

/* All connections, side by side, in no order. */
struct server {
    struct conn *conns;
    size_t count;
    size_t room;
    fd_set readable; /* what select() was asked for, and then what it answered */
    fd_set writable;
    int64_t accept_after;     /* out of descriptors until then, in ms; 0: not */
    char buffer[BUFFER_SIZE]; /* lent to one connection after the other */
};

/* [add] */
/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct server *server, int fd)
{
    if (fd >= FD_SETSIZE) { /* FD_SET() would write past the end of the set */
        static bool told;
        if (!told)
            fprintf(stderr, "select: descriptor %d: turned away: FD_SETSIZE is %d\n", fd, FD_SETSIZE);
        told = true;
        errno = EMFILE;
        return -1;
    }
    if (server->count == server->room) {
        size_t room = server->room == 0 ? 64 : 2 * server->room;
        struct conn *conns = realloc(server->conns, room * sizeof *conns);
        if (conns == NULL)
            return -1;
        server->conns = conns;
        server->room = room;
    }
    if (conn_open(&server->conns[server->count], fd) < 0)
        return -1;
    server->count++;
    return 0;
}
/* [/add] */

/* [drop] */
/* Closes connection i. The last one takes its place. */
static void drop(struct server *server, size_t i)
{
    conn_close(&server->conns[i]);
    server->conns[i] = server->conns[--server->count];
    server->accept_after = 0; /* there is a free descriptor now */
}
/* [/drop] */

/* [accept] */
/* Milliseconds on a clock that nobody sets. */
static int64_t now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        net_die("clock_gettime");
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Asks the listening socket for clients. Out of descriptors, those who wait
 * stay in its queue, and keep it ready: watched, it would wake us at once and
 * for ever. So it is left alone until a client leaves, or for one tick. */
static void accept_clients(struct server *server, int listener)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = net_accept(listener);
        if (fd < 0) {
            if (errno == EMFILE)
                server->accept_after = now_ms() + TICK_MS;
            return;
        }
        if (add(server, fd) < 0) { /* this client is turned away, and the others go on */
            net_log(fd, "turned away", errno);
            close(fd);
        }
    }
}
/* [/accept] */

/* [wait] */
/* Sleeps until something can be done. Returns whether the sets say what. */
static bool wait_for_events(struct server *server, int listener)
{
    bool full = server->accept_after != 0 && now_ms() < server->accept_after;
    int highest = -1;

    FD_ZERO(&server->readable);
    FD_ZERO(&server->writable);
    if (!full && listener >= 0) {
        FD_SET(listener, &server->readable);
        highest = listener;
    }
    for (size_t i = 0; i < server->count; i++) {
        /* There is nearly always room to send. To watch for it while nothing
         * is owed would be never to sleep. */
        const struct conn *conn = &server->conns[i];
        FD_SET(conn->fd, conn->owed == NULL ? &server->readable : &server->writable);
        if (conn->fd > highest)
            highest = conn->fd;
    }

    struct timeval tick = {.tv_usec = TICK_MS * 1000};
    if (select(highest + 1, &server->readable, &server->writable, NULL,
               full || net_stopping() ? &tick : NULL) >= 0)
        return true;
    if (errno != EINTR) /* the kernel lacks memory: to try again at once would be to spin */
        net_pause();
    return false;
}
/* [/wait] */

/* [serve] */
/* Gives those who are ready their turn. During a stop everyone gets one, and
 * one that has been echoed all that it sent is closed. */
static void serve_clients(struct server *server)
{
    bool stopping = net_stopping();
    bool overdue = net_overdue();
    size_t i = 0;

    while (i < server->count) {
        /* An error is reported as readable, or as writable: the turn will meet it. */
        int fd = server->conns[i].fd;
        if (!FD_ISSET(fd, &server->readable) && !FD_ISSET(fd, &server->writable) && !stopping) {
            i++;
            continue;
        }
        enum conn_state state = conn_turn(&server->conns[i], server->buffer, BUFFER_SIZE);
        if (state == CONN_CLOSED || (stopping && state == CONN_IDLE) || overdue)
            drop(server, i); /* and look at i again: another is there now */
        else
            i++;
    }
}
/* [/serve] */

/* [main] */
int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "select(), one thread serves those who are ready");
    net_catch_signals();
    int listener = net_listen(&options);
    if (set_nonblocking(listener) < 0)
        net_die("listening socket");
    if (listener >= FD_SETSIZE) {
        errno = EMFILE;
        net_die("listening socket");
    }

    static struct server server;
    while (!net_stopping()) {
        if (!wait_for_events(&server, listener))
            continue;
        if (FD_ISSET(listener, &server.readable))
            accept_clients(&server, listener);
        serve_clients(&server);
    }
    /* Who came before the stop is served, too: a whole queue of them. */
    for (int i = 0; i < SOMAXCONN; i += ACCEPTS_PER_TURN)
        accept_clients(&server, listener);
    close(listener);
    for (serve_clients(&server); server.count > 0; serve_clients(&server))
        wait_for_events(&server, -1);
    free(server.conns);
    return EXIT_SUCCESS;
}
/* [/main] */
