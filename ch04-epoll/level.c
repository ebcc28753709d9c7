/* level.c - epoll, level-triggered: the kernel keeps what we wait for, and tells who is ready.
 *
 * poll() is given the whole list at each call, and it is read from end to end.
 * epoll keeps the list: it is told what changes, and gives back those who are
 * ready and no others. One who is silent costs nothing, however many they are.
 * Needs Linux 2.6.27. Try: ./level --port 7007, then nc 127.0.0.1 7007 in two terminals */
#define _POSIX_C_SOURCE 200809L

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_SIZE = 64 * 1024, /* the most that one connection can owe */
    ACCEPTS_PER_TURN = 64,   /* so that a crowd at the door does not keep those inside waiting */
    TICK_MS = 100,           /* after this long look again at what no event announces */
    BATCH = 256,             /* events that one call brings; more come with the next */
};

/* The place of one descriptor, and of the client who has it now. */
struct client {
    struct conn conn;
    uint32_t events;     /* what epoll was asked to watch for; 0: nobody is here */
    uint32_t generation; /* how many clients have left this place */
};

struct server {
    int epoll;
    struct client *clients; /* by descriptor */
    size_t room;
    size_t count;
    bool listening;           /* epoll watches the listening socket */
    int64_t accept_after;     /* out of descriptors until then, in ms; 0: not */
    char buffer[BUFFER_SIZE]; /* lent to one connection after the other */
};

/* [identity] */
/* What an event carries. A descriptor alone is not enough: its client may have
 * left, and another come in its place, before we get to the event. */
static uint64_t identity(int fd, uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint32_t)fd;
}

static const uint64_t LISTENER = UINT64_MAX; /* no descriptor has this number */

/* The client that an event is about, or NULL if it has left. */
static struct client *find(const struct server *server, uint64_t id)
{
    struct client *client = &server->clients[(uint32_t)id];
    return client->generation == id >> 32 ? client : NULL;
}
/* [/identity] */

/* [watch] */
/* Tells epoll what to watch a descriptor for: EPOLL_CTL_ADD or EPOLL_CTL_MOD.
 * Returns 0, or -1 with errno. */
static int watch(const struct server *server, int operation, int fd, uint32_t events, uint64_t id)
{
    struct epoll_event event = {.events = events, .data.u64 = id};
    return epoll_ctl(server->epoll, operation, fd, &event);
}
/* [/watch] */

/* [add] */
/* Makes a place for descriptor fd. Returns 0, or -1 with errno. */
static int make_room(struct server *server, int fd)
{
    size_t room = server->room == 0 ? 64 : server->room;
    while (room <= (size_t)fd)
        room *= 2;
    if (room > server->room) {
        struct client *clients = realloc(server->clients, room * sizeof *clients);
        if (clients == NULL)
            return -1;
        memset(clients + server->room, 0, (room - server->room) * sizeof *clients);
        server->clients = clients;
        server->room = room;
    }
    return 0;
}

/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct server *server, int fd)
{
    if (make_room(server, fd) < 0)
        return -1;
    struct client *client = &server->clients[fd];
    if (conn_open(&client->conn, fd) < 0 ||
        watch(server, EPOLL_CTL_ADD, fd, EPOLLIN, identity(fd, client->generation)) < 0)
        return -1;
    client->events = EPOLLIN;
    server->count++;
    return 0;
}
/* [/add] */

/* [drop] */
/* Closes the connection; with its last descriptor it leaves epoll, too. */
static void drop(struct server *server, struct client *client)
{
    conn_close(&client->conn);
    client->events = 0;
    client->generation++; /* events for the old one find nobody */
    server->count--;
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
/* Sleeps until something can be done. Returns how many events say what. */
static int wait_for_events(struct server *server, int listener, struct epoll_event *events)
{
    bool full = server->accept_after != 0 && now_ms() < server->accept_after;

    if (listener >= 0 && full == server->listening) {
        if (watch(server, EPOLL_CTL_MOD, listener, full ? 0 : EPOLLIN, LISTENER) == 0)
            server->listening = !full;
        else
            net_pause(); /* the kernel lacks memory: to try again at once would be to spin */
    }
    int count = epoll_wait(server->epoll, events, BATCH, server->listening && !net_stopping() ? -1 : TICK_MS);
    if (count < 0 && errno != EINTR)
        net_die("epoll_wait");
    return count;
}
/* [/wait] */

/* [serve] */
/* Gives a client its turn, and tells epoll when it begins to wait for something
 * else. During a stop, one that has been echoed all that it sent is closed. */
static void serve(struct server *server, struct client *client)
{
    enum conn_state state = conn_turn(&client->conn, server->buffer, BUFFER_SIZE);
    if (state == CONN_CLOSED || (state == CONN_IDLE && net_stopping()) || net_overdue()) {
        drop(server, client);
        return;
    }
    /* There is nearly always room to send. To watch for it while nothing is
     * owed would be never to sleep. */
    uint32_t events = state == CONN_OWING ? EPOLLOUT : EPOLLIN;
    if (events == client->events)
        return;
    int fd = client->conn.fd;
    if (watch(server, EPOLL_CTL_MOD, fd, events, identity(fd, client->generation)) < 0) {
        net_log(fd, "lost", errno);
        drop(server, client);
        return;
    }
    client->events = events;
}

static void serve_all(struct server *server)
{
    for (size_t fd = 0; fd < server->room; fd++) {
        if (server->clients[fd].events != 0)
            serve(server, &server->clients[fd]);
    }
}
/* [/serve] */

/* [main] */
int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "epoll, level-triggered: one thread serves those who are ready");
    net_catch_signals();
    int listener = net_listen(&options);
    if (set_nonblocking(listener) < 0)
        net_die("listening socket");

    static struct server server;
    static struct epoll_event events[BATCH];
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server.epoll < 0 || watch(&server, EPOLL_CTL_ADD, listener, EPOLLIN, LISTENER) < 0)
        net_die("epoll");
    server.listening = true;
    while (!net_stopping()) {
        int count = wait_for_events(&server, listener, events);
        for (int i = 0; i < count; i++) {
            struct client *client;
            if (events[i].data.u64 == LISTENER)
                accept_clients(&server, listener);
            else if ((client = find(&server, events[i].data.u64)) != NULL)
                serve(&server, client);
        }
    }
    /* Who came before the stop is served, too: a whole queue of them. */
    for (int i = 0; i < SOMAXCONN; i += ACCEPTS_PER_TURN)
        accept_clients(&server, listener);
    close(listener);
    for (serve_all(&server); server.count > 0; serve_all(&server))
        wait_for_events(&server, -1, events);
    close(server.epoll);
    free(server.clients);
    return EXIT_SUCCESS;
}
/* [/main] */
