/* Exercise 05-1, edges, with EV_CLEAR: what to start from.
 *
 * This is kqueue.c without banner and idle timeout: level-triggered.
 * Look for YOUR WORK: six places. */
#define _GNU_SOURCE /* on Linux; the next two where kevent() is native */
#define _NETBSD_SOURCE
#define _DARWIN_C_SOURCE

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/event.h>
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
    uint32_t generation; /* how many clients have left this place */
    bool present;        /* somebody is here */
    bool owing;          /* watched for room to send, and not for what comes in */
    /* YOUR WORK: may it have more? Has it ended? */
};

struct server {
    int kqueue;
    int listener;
    struct client *clients; /* by descriptor */
    size_t room;
    size_t count;
    struct kevent *changes; /* what the next kevent() hands over */
    int change_count;
    bool listening;           /* the listening socket is watched */
    int64_t accept_after;     /* out of descriptors until then, in ms; 0: not */
    char buffer[BUFFER_SIZE]; /* lent to one connection after the other */
};

/* udata is a pointer, but an integer on NetBSD before 10. */
#define UDATA(event, generation) \
    _Generic((event).udata, intptr_t : (intptr_t)(generation), default : (void *)(uintptr_t)(generation))

/* Notes a change, for the call that waits next. */
static void watch(struct server *server, int fd, int16_t filter, uint16_t flags, uint32_t generation)
{
    struct kevent event = {.ident = (uintptr_t)fd, .filter = filter, .flags = flags};
    event.udata = UDATA(event, generation);
    server->changes[server->change_count++] = event;
}

/* Milliseconds on a clock that nobody sets. */
static int64_t now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        net_die("clock_gettime");
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Makes a place for descriptor fd, and for what its clients may change in one
 * turn. Returns 0, or -1 with errno. */
static int make_room(struct server *server, int fd)
{
    enum { CHANGES_EACH = 6, CHANGES_BESIDES = 16 };
    size_t room = server->room == 0 ? 64 : server->room;
    while (room <= (size_t)fd)
        room *= 2;
    if (room > server->room) {
        struct client *clients = realloc(server->clients, room * sizeof *clients);
        if (clients == NULL)
            return -1;
        server->clients = clients;
        struct kevent *changes =
            realloc(server->changes, (room * CHANGES_EACH + CHANGES_BESIDES) * sizeof *changes);
        if (changes == NULL)
            return -1;
        server->changes = changes;
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
    if (conn_open(&client->conn, fd) < 0)
        return -1;
    client->present = true;
    client->owing = false;
    /* YOUR WORK: both filters, once and for all */
    watch(server, fd, EVFILT_READ, EV_ADD, client->generation);
    server->count++;
    return 0;
}

/* Closes the connection, with which its events leave the queue. */
static void drop(struct server *server, struct client *client)
{
    conn_close(&client->conn);
    client->present = false;
    client->generation++; /* events for the old one find nobody */
    server->count--;
    server->accept_after = 0; /* there is a free descriptor now */
}

/* Gives a client its turn. During a stop, one that has been echoed all that it
 * sent is closed. */
static void serve(struct server *server, struct client *client)
{
    enum conn_state state = conn_turn(&client->conn, server->buffer, BUFFER_SIZE);
    if (state == CONN_CLOSED || (state == CONN_IDLE && net_stopping()) || net_overdue()) {
        drop(server, client);
        return;
    }
    /* YOUR WORK: no change any more. But who may have more is to be remembered. */
    bool owing = state == CONN_OWING;
    if (owing != client->owing) {
        int fd = client->conn.fd;
        watch(server, fd, owing ? EVFILT_READ : EVFILT_WRITE, EV_DELETE, client->generation);
        watch(server, fd, owing ? EVFILT_WRITE : EVFILT_READ, EV_ADD, client->generation);
        client->owing = owing;
    }
}

static void serve_all(struct server *server)
{
    for (size_t fd = 0; fd < server->room; fd++) {
        if (server->clients[fd].present)
            serve(server, &server->clients[fd]);
    }
}

/* Takes up to count clients from the listening socket. Out of descriptors, it is
 * left alone until a client leaves, or for one tick. */
static void accept_clients(struct server *server, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int fd = net_accept(server->listener);
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

/* Hands over what has changed, and sleeps until something can be done. Returns
 * how many events say what. */
static int wait_for_events(struct server *server, struct kevent *events)
{
    const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
    bool full = server->accept_after != 0 && now_ms() < server->accept_after;

    if (server->listener >= 0 && full == server->listening) {
        watch(server, server->listener, EVFILT_READ, full ? EV_DISABLE : EV_ADD | EV_ENABLE, 0);
        server->listening = !full;
    }
    int count = kevent(server->kqueue, server->changes, server->change_count, events, BATCH,
                       /* YOUR WORK: not if somebody may have more */ full || net_stopping() ? &tick : NULL);
    if (count < 0 && errno != EINTR)
        net_die("kevent");
    server->change_count = 0;
    return count;
}

static void dispatch(struct server *server, const struct kevent *event)
{
    if (event->ident == (uintptr_t)server->listener) {
        accept_clients(server, event->data < ACCEPTS_PER_TURN ? event->data : ACCEPTS_PER_TURN);
        return;
    }
    struct client *client = &server->clients[event->ident];
    if (!client->present || client->generation != (uint32_t)(uintptr_t)event->udata)
        return;
    if ((event->flags & EV_ERROR) != 0) {
        net_log(client->conn.fd, "lost", (int)event->data);
        drop(server, client);
        return;
    }
    serve(server, client); /* YOUR WORK: note it only */
}

static void turn(struct server *server)
{
    static struct kevent events[BATCH];
    int count = wait_for_events(server, events);
    for (int i = 0; i < count; i++)
        dispatch(server, &events[i]);
    /* YOUR WORK: who may have more gets a turn */
}

int main(int argc, char **argv)
{
    static struct server server;
    struct net_options options;
    net_options(&options, argc, argv, "kqueue, level-triggered", NULL, 0);
    net_catch_signals();
    server.kqueue = kqueue();
    if (server.kqueue < 0 || make_room(&server, server.kqueue) < 0)
        net_die("kqueue");
    server.listener = net_listen(&options);
    if (set_nonblocking(server.listener) < 0)
        net_die("listening socket");

    while (!net_stopping())
        turn(&server);
    accept_clients(&server, SOMAXCONN); /* who came before the stop is served, too */
    close(server.listener);
    server.listener = -1;
    while (server.count > 0) {
        turn(&server);
        serve_all(&server);
    }
    close(server.kqueue);
    free(server.clients);
    free(server.changes);
    return EXIT_SUCCESS;
}
