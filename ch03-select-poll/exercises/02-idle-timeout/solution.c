/* Exercise 03-2, idle timeout: a solution.
 *
 * poll.c with a third array: when something was last done for each client. Its
 * minimum says when poll() has to wake up at the latest. To look for that takes
 * a walk over all clients, but poll() takes one anyway. */
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
 * for, and active[i] when something was last done for it. Place 0 is the
 * listening socket's. */
struct server {
    struct conn *conns;
    struct pollfd *polls;
    int64_t *active; /* in ms */
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
        int64_t *active = realloc(server->active, room * sizeof *active);
        if (active == NULL)
            return -1;
        server->active = active;
        server->room = room;
    }
    if (conn_open(&server->conns[server->count], fd) < 0)
        return -1;
    server->active[server->count] = now_ms();
    server->polls[server->count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    return 0;
}

/* Closes connection i. The last one takes its place. */
static void drop(struct server *server, size_t i)
{
    conn_close(&server->conns[i]);
    server->conns[i] = server->conns[--server->count];
    server->polls[i] = server->polls[server->count];
    server->active[i] = server->active[server->count];
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

/* For how long poll() may sleep, in ms, or -1: until the first of those who are
 * idle has been so for too long. Later is too late, and earlier is in vain. */
static int longest_sleep(const struct server *server, bool full)
{
    int64_t now = now_ms();
    int64_t end = full || net_stopping() ? now + TICK_MS : INT64_MAX;

    for (size_t i = 1; i < server->count; i++) {
        if (server->active[i] + IDLE_MS < end)
            end = server->active[i] + IDLE_MS;
    }
    if (end == INT64_MAX)
        return -1;
    return end > now ? (int)(end - now) : 0;
}

/* Sleeps until something can be done. Returns whether polls says what. */
static bool wait_for_events(struct server *server, int listener)
{
    bool full = server->accept_after != 0 && now_ms() < server->accept_after;

    server->polls[0].fd = full ? -1 : listener; /* poll() passes over what is negative */
    if (poll(server->polls, (nfds_t)server->count, longest_sleep(server, full)) >= 0)
        return true;
    if (errno != EINTR) /* the kernel lacks memory: to try again at once would be to spin */
        net_pause();
    return false;
}

/* Gives those who are ready their turn, and closes those who have been idle for
 * too long. During a stop everyone gets a turn, and one that has been
 * echoed all that it sent is closed. */
static void serve_clients(struct server *server)
{
    bool stopping = net_stopping();
    bool overdue = net_overdue();
    int64_t now = now_ms();
    size_t i = 1;

    while (i < server->count) {
        /* An error or a hang-up is reported unasked: the turn will meet it. */
        if (server->polls[i].revents == 0 && !stopping) {
            if (now - server->active[i] < IDLE_MS) {
                i++;
                continue;
            }
            net_log(server->conns[i].fd, "timed out", 0);
            drop(server, i);
            continue;
        }
        enum conn_state state = conn_turn(&server->conns[i], server->buffer, BUFFER_SIZE);
        if (state == CONN_CLOSED || (stopping && state == CONN_IDLE) || overdue) {
            drop(server, i); /* and look at i again: another is there now */
            continue;
        }
        if (state != CONN_IDLE)
            server->active[i] = now;
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
    free(server.active);
    return EXIT_SUCCESS;
}
