/* Exercise 02-2, back off: a solution.
 *
 * nonblocking.c with a pause after each turn that was in vain. The pause
 * doubles from turn to turn, and begins again when there was something to do:
 * so a busy server hardly ever pauses, and an idle one hardly ever asks. */
#define _POSIX_C_SOURCE 200809L

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024,   /* the most that one connection can owe */
    ACCEPTS_PER_TURN = 64,     /* so that a crowd at the door does not keep those inside waiting */
    SHORTEST_PAUSE = 1000,     /* nanoseconds: a microsecond */
    LONGEST_PAUSE = 100000000, /* and a tenth of a second */
};

/* All connections, side by side, in no order. */
struct server {
    struct conn *conns;
    size_t count;
    size_t room;
    char buffer[BUFFER_SIZE]; /* lent to one connection after the other */
};

/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct server *server, int fd)
{
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

/* Closes connection i. The last one takes its place. */
static void drop(struct server *server, size_t i)
{
    conn_close(&server->conns[i]);
    server->conns[i] = server->conns[--server->count];
}

/* Asks the listening socket for clients. Out of descriptors, there is nothing
 * to do: it will be asked again at the next turn. Returns whether somebody came. */
static bool accept_clients(struct server *server, int listener)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = net_accept(listener);
        if (fd < 0)
            return i > 0;
        if (add(server, fd) < 0) { /* this client is turned away, and the others go on */
            net_log(fd, "turned away", errno);
            close(fd);
        }
    }
    return true;
}

/* Waits, and returns how long to wait the next time, in nanoseconds. A signal
 * ends the wait early, and that is well. */
static long back_off(long pause)
{
    const struct timespec wait = {.tv_nsec = pause};
    nanosleep(&wait, NULL);
    return pause < LONGEST_PAUSE / 2 ? 2 * pause : LONGEST_PAUSE;
}

/* Asks every connection once. During a stop, one that has been echoed all that
 * it sent is closed. Returns whether there was something to do. */
static bool serve_clients(struct server *server)
{
    bool stopping = net_stopping();
    bool overdue = net_overdue();
    bool worked = false;
    size_t i = 0;

    while (i < server->count) {
        enum conn_state state = conn_turn(&server->conns[i], server->buffer, BUFFER_SIZE);
        worked |= state != CONN_IDLE;
        if (state == CONN_CLOSED || (stopping && state == CONN_IDLE) || overdue)
            drop(server, i); /* and look at i again: another is there now */
        else
            i++;
    }
    return worked;
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "non-blocking, one thread asks every client in turn");
    net_catch_signals();
    int listener = net_listen(&options);
    if (set_nonblocking(listener) < 0)
        net_die("listening socket");

    static struct server server;
    long pause = SHORTEST_PAUSE;
    while (!net_stopping()) {
        bool came = accept_clients(&server, listener);
        bool worked = serve_clients(&server);
        pause = came || worked ? SHORTEST_PAUSE : back_off(pause);
    }
    /* Who came before the stop is served, too: a whole queue of them. */
    for (int i = 0; i < SOMAXCONN; i += ACCEPTS_PER_TURN)
        accept_clients(&server, listener);
    close(listener);
    while (server.count > 0)
        serve_clients(&server);
    free(server.conns);
    return EXIT_SUCCESS;
}
