/* edge.c - epoll, edge-triggered: the kernel tells what has changed, once.
 *
 * An event says that something has come since the last one, and is not
 * repeated. So the server must remember who may still have something: it keeps
 * a list of those who are ready, adds whom an event names, and takes a client
 * out when a call has said that nothing more is there.
 * Needs Linux 2.6.27. Try: ./edge --port 7007, then nc 127.0.0.1 7007 in two terminals */
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
    TURNS_IN_A_ROW = 4,      /* for one who sends much: its socket is in the caches just now */
    ACCEPTS_PER_TURN = 64,   /* so that a crowd at the door does not keep those inside waiting */
    TICK_MS = 100,           /* after this long look again at what no event announces */
    BATCH = 256,             /* events that one call brings; more come with the next */
};

/* The place of one descriptor, and of the client who has it now. */
struct client {
    struct conn conn;
    uint32_t generation; /* how many clients have left this place */
    bool present;        /* somebody is here */
    bool ready;          /* and is in the list of those who are ready */
    bool ended;          /* a FIN, an error or an urgent byte has come, perhaps behind data */
};

struct server {
    int epoll;
    struct client *clients; /* by descriptor */
    int *ready;             /* the descriptors of those to whom a turn is due */
    size_t ready_count;
    size_t room; /* of clients, and of ready */
    size_t count;
    bool knocking;            /* somebody may be waiting to be accepted */
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
/* Tells epoll to watch a descriptor, once and for all: for what comes in, for
 * room to send, for urgent bytes and for the end. Returns 0, or -1 with errno. */
static int watch(const struct server *server, int fd, uint64_t id)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u64 = id};
    return epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event);
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
        server->clients = clients;
        int *ready = realloc(server->ready, room * sizeof *ready);
        if (ready == NULL)
            return -1;
        server->ready = ready;
        memset(clients + server->room, 0, (room - server->room) * sizeof *clients);
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
    if (conn_open(&client->conn, fd) < 0 || watch(server, fd, identity(fd, client->generation)) < 0)
        return -1;
    client->present = true;
    client->ended = false;
    server->count++;
    return 0;
}
/* [/add] */

/* [drop] */
/* Closes the connection; with its last descriptor it leaves epoll, too. */
static void drop(struct server *server, struct client *client)
{
    conn_close(&client->conn);
    client->present = false;
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

/* Asks the listening socket for clients. The event that announced them is not
 * repeated: until a call has said that nobody waits, somebody may. Out of
 * descriptors, to ask again at once would be to spin: so it is left alone until
 * a client leaves, or for one tick. */
static void accept_clients(struct server *server, int listener)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = net_accept(listener);
        if (fd < 0) {
            if (errno == EMFILE)
                server->accept_after = now_ms() + TICK_MS;
            else
                server->knocking = false;
            return;
        }
        if (add(server, fd) < 0) { /* this client is turned away, and the others go on */
            net_log(fd, "turned away", errno);
            close(fd);
        }
    }
}
/* [/accept] */

/* [ready] */
/* Puts a client into the list of those to whom a turn is due. */
static void mark_ready(struct server *server, struct client *client)
{
    if (client->ready)
        return;
    client->ready = true;
    server->ready[server->ready_count++] = client->conn.fd;
}
/* [/ready] */

/* [wait] */
/* Sleeps until something can be done, and notes whom the events name. Does not
 * sleep while a turn is due to somebody. */
static void wait_for_events(struct server *server)
{
    static struct epoll_event events[BATCH];
    bool full = server->accept_after != 0 && now_ms() < server->accept_after;
    int timeout = full || net_stopping() ? TICK_MS : -1;

    if (server->ready_count > 0 || (server->knocking && !full))
        timeout = 0;
    int count = epoll_wait(server->epoll, events, BATCH, timeout);
    if (count < 0 && errno != EINTR)
        net_die("epoll_wait");
    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == LISTENER) {
            server->knocking = true;
            continue;
        }
        struct client *client = find(server, events[i].data.u64);
        if (client == NULL)
            continue;
        if (events[i].events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
            client->ended = true;
        mark_ready(server, client);
    }
}
/* [/wait] */

/* [serve] */
/* Gives a client its turn, or some if it sends much. Returns whether another
 * one is due to it. */
static bool serve(struct server *server, struct client *client)
{
    bool stopping = net_stopping();
    enum conn_state state;
    int turns = 0;
    do
        state = conn_turn(&client->conn, server->buffer, BUFFER_SIZE);
    while (state == CONN_READY && ++turns < TURNS_IN_A_ROW);

    if (state == CONN_CLOSED || (state == CONN_IDLE && stopping) || net_overdue()) {
        drop(server, client);
        return false;
    }
    /* A short read says that nothing more has come, unless what has come is
     * the end, or an urgent byte, at which a read stops. */
    return state == CONN_READY || (state == CONN_DRAINED && (client->ended || stopping));
}

/* Serves each of those who are ready, and none of them for long: one who sends
 * without pause stays in the list, and is served again after the others. */
static void serve_clients(struct server *server)
{
    size_t due = server->ready_count;

    server->ready_count = 0;
    for (size_t i = 0; i < due; i++) {
        struct client *client = &server->clients[server->ready[i]];
        client->ready = false;
        if (serve(server, client))
            mark_ready(server, client);
    }
}

static void serve_all(struct server *server)
{
    for (size_t fd = 0; fd < server->room; fd++) {
        if (server->clients[fd].present)
            mark_ready(server, &server->clients[fd]);
    }
    serve_clients(server);
}
/* [/serve] */

/* [main] */
int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "epoll, edge-triggered: one thread serves those who have become ready");
    net_catch_signals();
    int listener = net_listen(&options);
    if (set_nonblocking(listener) < 0)
        net_die("listening socket");

    static struct server server;
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server.epoll < 0 || watch(&server, listener, LISTENER) < 0)
        net_die("epoll");
    while (!net_stopping()) {
        wait_for_events(&server);
        if (server.knocking && (server.accept_after == 0 || now_ms() >= server.accept_after))
            accept_clients(&server, listener);
        serve_clients(&server);
    }
    /* Who came before the stop is served, too: a whole queue of them. */
    for (int i = 0; i < SOMAXCONN; i += ACCEPTS_PER_TURN)
        accept_clients(&server, listener);
    server.knocking = false;
    close(listener);
    for (serve_all(&server); server.count > 0; serve_all(&server))
        wait_for_events(&server);
    close(server.epoll);
    free(server.clients);
    free(server.ready);
    return EXIT_SUCCESS;
}
/* [/main] */
