/* Exercise 03-2, idle timeout: what to start from.
 *
 * This is poll.c as it is. Look for YOUR WORK: five places. */
#define _POSIX_C_SOURCE 200809L

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A client that is idle for so many milliseconds is closed. The compiler may
 * be told another number: -DIDLE_MS=1100. */
#ifndef IDLE_MS
#define IDLE_MS 60000
#endif

enum {
    BUFFER_SIZE = 64 * 1024, /* the most that one connection can owe */
    ACCEPTS_PER_TURN = 64,   /* so that a crowd at the door does not keep those inside waiting */
    TICK_MS = 100,           /* after this long look again at what no event announces */
};

/* All connections, side by side, in no order. polls[i] says what conns[i] waits
 * for. Place 0 is the listening socket's. */
struct server {
    struct conn *conns;
    struct pollfd *polls;
    /* YOUR WORK: when did each client last get something done? */
    size_t count;
    size_t room;
    int64_t accept_after;     /* out of descriptors until then, in ms; 0: not */
    char buffer[BUFFER_SIZE]; /* lent to one connection after the other */
};

/* Milliseconds on a clock that nobody sets. */
static int64_t now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        net_die("clock_gettime");
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Takes the client on fd, or the listening socket, into the server. Returns 0, or -1 with errno. */
static int add(struct server *server, int fd)
{
    if (server->count == server->room) {
        size_t room = server->room == 0 ? 64 : 2 * server->room;
        struct conn *conns = realloc(server->conns, room * sizeof *conns);
        if (conns == NULL)
            return -1;
        server->conns = conns;
        struct pollfd *polls = realloc(server->polls, room * sizeof *polls);
        if (polls == NULL)
            return -1;
        server->polls = polls;
        server->room = room;
    }
    if (conn_open(&server->conns[server->count], fd) < 0)
        return -1;
    /* YOUR WORK: and when did this one? */
    server->polls[server->count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    return 0;
}

/* Closes connection i. The last one takes its place. */
static void drop(struct server *server, size_t i)
{
    conn_close(&server->conns[i]);
    server->conns[i] = server->conns[--server->count];
    server->polls[i] = server->polls[server->count];
    /* YOUR WORK: what else moves? */
    server->accept_after = 0; /* there is a free descriptor now */
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

/* Sleeps until something can be done. Returns whether polls says what. */
static bool wait_for_events(struct server *server, int listener)
{
    bool full = server->accept_after != 0 && now_ms() < server->accept_after;

    server->polls[0].fd = full ? -1 : listener; /* poll() passes over what is negative */
    /* YOUR WORK: for how long may poll() sleep? */
    if (poll(server->polls, (nfds_t)server->count, full || net_stopping() ? TICK_MS : -1) >= 0)
        return true;
    if (errno != EINTR) /* the kernel lacks memory: to try again at once would be to spin */
        net_pause();
    return false;
}

/* Gives those who are ready their turn. During a stop everyone gets one, and
 * one that has been echoed all that it sent is closed. */
static void serve_clients(struct server *server)
{
    bool stopping = net_stopping();
    bool overdue = net_overdue();
    size_t i = 1;

    while (i < server->count) {
        /* An error or a hang-up is reported unasked: the turn will meet it. */
        /* YOUR WORK: nothing has come, or something was done: what follows? */
        if (server->polls[i].revents == 0 && !stopping) {
            i++;
            continue;
        }
        enum conn_state state = conn_turn(&server->conns[i], server->buffer, BUFFER_SIZE);
        if (state == CONN_CLOSED || (stopping && state == CONN_IDLE) || overdue) {
            drop(server, i); /* and look at i again: another is there now */
            continue;
        }
        /* There is nearly always room to send. To watch for it while nothing
         * is owed would be never to sleep. */
        server->polls[i++].events = state == CONN_OWING ? POLLOUT : POLLIN;
    }
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "poll(), one thread serves those who are ready");
    net_catch_signals();
    int listener = net_listen(&options);

    static struct server server;
    if (add(&server, listener) < 0)
        net_die("listening socket");
    while (!net_stopping()) {
        if (!wait_for_events(&server, listener))
            continue;
        if (server.polls[0].revents != 0)
            accept_clients(&server, listener);
        serve_clients(&server);
    }
    /* Who came before the stop is served, too: a whole queue of them. */
    for (int i = 0; i < SOMAXCONN; i += ACCEPTS_PER_TURN)
        accept_clients(&server, listener);
    close(listener);
    for (serve_clients(&server); server.count > 1; serve_clients(&server))
        wait_for_events(&server, -1);
    free(server.conns);
    free(server.polls);
    return EXIT_SUCCESS;
}
