/* kqueue.c - kqueue: one call hands over what changes, and brings what has happened.
 *
 * epoll_ctl() is a call of its own for each change. kevent() takes a list of
 * changes along when it waits; and it waits for more than descriptors: for
 * timers, signals, and changes of files, all in the same queue.
 * Needs a BSD or macOS; on Linux the kqueue_linux.c beside this file, or libkqueue.
 * Try: ./kqueue --port 7007 --idle-timeout 10, then nc 127.0.0.1 7007 */
#define _GNU_SOURCE /* on Linux; the next two where kevent() is native */
#define _NETBSD_SOURCE
#define _DARWIN_C_SOURCE

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
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
    GRACE_MS = 3000,         /* a stop waits this long for clients that are slow to take their bytes */
    BATCH = 256,             /* events that one call brings; more come with the next */
};

/* The place of one descriptor, and of the client who has it now. */
struct client {
    struct conn conn;
    uint32_t generation; /* how many clients have left this place */
    bool present;        /* somebody is here */
    bool owing;          /* the kernel watches for room to send, and not for what comes in */
    int64_t heard_ms;    /* when it last said something, or took something */
};

/* What greets a client: the text of a file that may change at any time. */
struct banner {
    const char *path; /* "": none */
    int fd;           /* the file as it was found last, or -1 */
    size_t size;
    char text[BUFFER_SIZE];
};

struct server {
    int kqueue;
    int listener;
    struct client *clients; /* by descriptor */
    size_t room;
    size_t count;
    struct kevent *changes; /* what the next kevent() hands over */
    int change_count;
    bool listening;       /* the listening socket is watched */
    int64_t accept_after; /* out of descriptors until then, in ms; 0: not */
    int64_t idle_ms;      /* a client that is silent so long is closed; 0: none is */
    bool stopping;
    bool overdue;              /* the grace is over */
    unsigned long long served; /* clients, so far */
    struct banner banner;
    char buffer[BUFFER_SIZE]; /* lent to one connection after the other */
};

/* [systems] */
/* Where the systems differ. What else this server uses is the same in all of
 * them: it has no EVFILT_USER, which NetBSD before 10 and OpenBSD before 7.8 lack, and
 * its timers count milliseconds, the unit that needs no flag. Source: kqueue(2)
 * of each.
 *
 * An event brings back what its change gave along: udata, a pointer, but an
 * integer on NetBSD before 10 (kqueue(2) there). Ours is a generation: a
 * descriptor alone would not tell a client from the next one in its place. */
#define UDATA(event, generation) \
    _Generic((event).udata, intptr_t : (intptr_t)(generation), default : (void *)(uintptr_t)(generation))

#ifndef EV_RECEIPT /* NetBSD 7 and OpenBSD 6.1 have none */
#define EV_RECEIPT 0
#endif

/* Before a descriptor is closed: what watches it ends with it, but libkqueue
 * cannot see that, and has to be told. Source: its BUGS.md. */
static void unwatch(int kqueue, int fd)
{
#ifdef LIBKQUEUE
    static const int16_t filters[] = {EVFILT_READ, EVFILT_WRITE, EVFILT_VNODE};
    struct kevent events[3]; /* the receipts fill it: no other event is taken out */
    for (int i = 0; i < 3; i++)
        events[i] =
            (struct kevent){.ident = (uintptr_t)fd, .filter = filters[i], .flags = EV_DELETE | EV_RECEIPT};
    if (kevent(kqueue, events, 3, events, 3, NULL) < 0)
        net_die("kevent");
#else
    (void)kqueue;
    (void)fd;
#endif
}

#ifdef SIGINFO
enum { REPORT_SIGNAL = SIGINFO }; /* Ctrl-T at a terminal of BSD or macOS */
#else
enum { REPORT_SIGNAL = SIGUSR1 };
#endif
/* [/systems] */

/* [change] */
/* Notes a change. The kernel hears of it in the call that waits next: no call is
 * made for the change alone. */
static void change(struct server *server, struct kevent event, uint32_t generation)
{
    event.udata = UDATA(event, generation);
    server->changes[server->change_count++] = event;
}

static void watch(struct server *server, int fd, int16_t filter, uint16_t flags, uint32_t generation)
{
    change(server, (struct kevent){.ident = (uintptr_t)fd, .filter = filter, .flags = flags}, generation);
}
/* [/change] */

/* [clock] */
/* Milliseconds on a clock that nobody sets. */
static int64_t now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        net_die("clock_gettime");
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
/* [/clock] */

/* [banner] */
static void read_banner(struct banner *banner)
{
    ssize_t got = pread(banner->fd, banner->text, sizeof banner->text, 0);
    banner->size = got > 0 ? (size_t)got : 0;
}

/* Opens the banner's file anew: it may be another file by now. When the kernel
 * confirms with a receipt that it watches the file, the text is read once more:
 * a change in between would be missed. */
static void open_banner(struct server *server)
{
    struct banner *banner = &server->banner;

    if (banner->fd >= 0) {
        unwatch(server->kqueue, banner->fd);
        close(banner->fd);
    }
    banner->size = 0;
    banner->fd = open(banner->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (banner->fd < 0)
        return; /* deleted: nobody is greeted until its folder says that it is back */
    change(server,
           (struct kevent){.ident = (uintptr_t)banner->fd,
                           .filter = EVFILT_VNODE,
                           .flags = EV_ADD | EV_CLEAR | EV_RECEIPT,
                           .fflags = NOTE_WRITE | NOTE_EXTEND | NOTE_DELETE | NOTE_RENAME},
           0);
    read_banner(banner);
}

/* Watches the banner's folder, which hears of a file that is put in its place. */
static void watch_folder(struct server *server)
{
    const char *path = server->banner.path;
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX] = ".";
    if (slash != NULL)
        snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);

    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        net_die(folder);
    change(
        server,
        (struct kevent){
            .ident = (uintptr_t)fd, .filter = EVFILT_VNODE, .flags = EV_ADD | EV_CLEAR, .fflags = NOTE_WRITE},
        0);
}

/* What the queue says of the file, or of its folder. */
static void on_banner(struct server *server, const struct kevent *event)
{
    struct banner *banner = &server->banner;
    bool of_file = banner->fd >= 0 && event->ident == (uintptr_t)banner->fd;
    bool receipt = (event->flags & EV_ERROR) != 0; /* it repeats the change, so its fflags are no news */

    if (receipt && event->data != 0)
        net_log((int)event->ident, "the banner is not watched", (int)event->data);
    if (of_file && (receipt || (event->fflags & (NOTE_DELETE | NOTE_RENAME)) == 0))
        read_banner(banner);
    else if (!receipt)
        open_banner(server);
}

/* A greeting is owed like anything else. Returns 0, or -1 with errno. */
static int greet(const struct server *server, struct conn *conn)
{
    if (server->banner.size == 0)
        return 0;
    conn->owed = malloc(server->banner.size);
    if (conn->owed == NULL)
        return -1;
    memcpy(conn->owed, server->banner.text, server->banner.size);
    conn->size = server->banner.size;
    return 0;
}
/* [/banner] */

/* [add] */
/* Makes a place for descriptor fd, and for what its clients may change in one
 * turn: at the most, one is served and leaves, and another comes. Returns 0, or
 * -1 with errno. */
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

static void set_timer(struct server *server, int fd, uint32_t generation, int64_t milliseconds)
{
    change(server,
           (struct kevent){.ident = (uintptr_t)fd,
                           .filter = EVFILT_TIMER,
                           .flags = EV_ADD | EV_ONESHOT,
                           .data = milliseconds},
           generation);
}

/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct server *server, int fd)
{
    if (make_room(server, fd) < 0)
        return -1;
    struct client *client = &server->clients[fd];
    if (conn_open(&client->conn, fd) < 0)
        return -1;
    if (greet(server, &client->conn) < 0)
        return -1;
    client->present = true;
    client->owing = false;
    server->count++;
    watch(server, fd, EVFILT_READ, EV_ADD, client->generation);
    if (server->idle_ms > 0) {
        client->heard_ms = now_ms();
        set_timer(server, fd, client->generation, server->idle_ms);
    }
    return 0;
}
/* [/add] */

/* [drop] */
/* Closes the connection. What the queue watches of its descriptor ends with
 * it, but not the timer, which only bears the same number: the next client here
 * sets it anew. If it fires before, it finds nobody. */
static void drop(struct server *server, struct client *client)
{
    unwatch(server->kqueue, client->conn.fd);
    conn_close(&client->conn);
    client->present = false;
    client->generation++; /* events for the old one find nobody */
    server->count--;
    server->served++;
    server->accept_after = 0; /* there is a free descriptor now */
}
/* [/drop] */

/* [serve] */
/* Gives a client its turn, and notes when it begins to wait for something else.
 * During a stop, one that has been echoed all that it sent is closed. */
static void serve(struct server *server, struct client *client)
{
    enum conn_state state = conn_turn(&client->conn, server->buffer, BUFFER_SIZE);
    if (state == CONN_CLOSED || (state == CONN_IDLE && server->stopping) || server->overdue) {
        drop(server, client);
        return;
    }
    if (server->idle_ms > 0 && state != CONN_IDLE)
        client->heard_ms = now_ms(); /* the timer is set again only when it fires */

    /* While it owes, it does not receive, and what it does not receive would
     * wake us at each turn; so would the room to send while nothing is owed. */
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
/* [/serve] */

/* [accept] */
/* Takes up to count clients from the listening socket. Out of
 * descriptors, those who wait stay in its queue, and keep it ready: watched, it
 * would wake us at once and for ever. So it is left alone until a client
 * leaves, or for one tick. */
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
        } else if (server->clients[fd].conn.owed != NULL) {
            serve(server, &server->clients[fd]); /* its greeting */
        }
    }
}

/* The event says how many wait: so many are let in, and no call is made in vain. */
static void on_listener(struct server *server, const struct kevent *event)
{
    if ((event->flags & EV_ERROR) != 0) { /* it could not be watched again: as if out of descriptors */
        server->listening = false;
        server->accept_after = now_ms() + TICK_MS;
        return;
    }
    accept_clients(server, event->data < ACCEPTS_PER_TURN ? event->data : ACCEPTS_PER_TURN);
}
/* [/accept] */

/* [timer] */
/* The timer was set when the client came, or when it fired last. Whoever has
 * spoken meanwhile has the rest of the time; whoever is owed bytes is not silent:
 * it is we who have something to say. */
static void on_timer(struct server *server, struct client *client)
{
    int64_t left = client->heard_ms + server->idle_ms - now_ms();
    if (client->conn.owed != NULL)
        left = server->idle_ms;
    if (left > 0) {
        set_timer(server, client->conn.fd, client->generation, left);
    } else {
        net_log(client->conn.fd, "silent for too long", 0);
        drop(server, client);
    }
}
/* [/timer] */

/* [signal] */
/* A signal is an event like others. The queue records it although it is
 * ignored: no handler runs, nothing is interrupted, and none is missed between
 * two calls. */
static void watch_signals(struct server *server)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, REPORT_SIGNAL};
    sigset_t none;

    sigemptyset(&none); /* whoever started us may have blocked some */
    if (sigprocmask(SIG_SETMASK, &none, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        net_die("signals");
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        if (signal(signals[i], SIG_IGN) == SIG_ERR)
            net_die("signals");
        watch(server, signals[i], EVFILT_SIGNAL, EV_ADD, 0);
    }
}

static void on_signal(struct server *server, int number)
{
    if (number == SIGTERM || number == SIGINT)
        server->stopping = true;
    else
        fprintf(stderr, "kqueue: clients: %zu now, %llu before\n", server->count, server->served);
}
/* [/signal] */

/* [wait] */
/* Hands over what has changed, and sleeps until something can be done. Returns
 * how many events say what. An interrupted call has taken the changes, too. */
static int wait_for_events(struct server *server, struct kevent *events)
{
    const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
    bool full = server->accept_after != 0 && now_ms() < server->accept_after;

    if (server->listener >= 0 && full == server->listening) {
        watch(server, server->listener, EVFILT_READ, full ? EV_DISABLE : EV_ADD | EV_ENABLE, 0);
        server->listening = !full;
    }
    int count = kevent(server->kqueue, server->changes, server->change_count, events, BATCH,
                       full || server->stopping ? &tick : NULL);
    if (count < 0 && errno != EINTR)
        net_die("kevent");
    server->change_count = 0;
    return count;
}
/* [/wait] */

/* [dispatch] */
/* The client that an event is about, or NULL if it has left. */
static struct client *find(const struct server *server, const struct kevent *event)
{
    struct client *client = &server->clients[event->ident];
    return client->present && client->generation == (uint32_t)(uintptr_t)event->udata ? client : NULL;
}

/* Each kind of event finds its handler by its filter. */
static void dispatch(struct server *server, const struct kevent *event)
{
    if (event->filter == EVFILT_SIGNAL) {
        on_signal(server, (int)event->ident);
    } else if (event->filter == EVFILT_VNODE) {
        on_banner(server, event);
    } else if (event->ident == (uintptr_t)server->kqueue) {
        server->overdue = true; /* the timer of the stop, or there is none */
    } else if (event->ident == (uintptr_t)server->listener) {
        on_listener(server, event);
    } else {
        struct client *client = find(server, event);
        if (client == NULL)
            return;
        if ((event->flags & EV_ERROR) != 0) { /* a change for it was refused */
            net_log(client->conn.fd, "lost", (int)event->data);
            drop(server, client);
        } else if (event->filter == EVFILT_TIMER) {
            on_timer(server, client);
        } else {
            /* EV_EOF does not say that nothing more is to be read: data bytes
             * may wait before the end. The turns read them, and then meet it. */
            serve(server, client);
        }
    }
}

static void turn(struct server *server)
{
    static struct kevent events[BATCH];
    int count = wait_for_events(server, events);
    for (int i = 0; i < count; i++)
        dispatch(server, &events[i]);
}
/* [/dispatch] */

/* [main] */
/* Returns the option's value in milliseconds. */
static int64_t to_ms(const struct net_option *option)
{
    enum { MOST_SECONDS = 1000000 };
    char *end;
    errno = 0;
    long seconds = strtol(option->value, &end, 10);
    if (errno != 0 || *end != '\0' || end == option->value || seconds < 1 || seconds > MOST_SECONDS)
        net_wrong_use(option, "not a number from 1 to 1000000");
    return (int64_t)seconds * 1000;
}

int main(int argc, char **argv)
{
    static struct server server;
    struct net_option own[] = {
        {"idle-timeout", "SECONDS  close a client that is silent for so long (never)", NULL},
        {"banner", "FILE  greet each client with this text", ""},
    };
    struct net_options options;
    net_options(&options, argc, argv, "kqueue: one call hands over changes and brings events", own, 2);
    if (own[0].value != NULL)
        server.idle_ms = to_ms(&own[0]);

    server.kqueue = kqueue();
    server.listener = -1;
    if (server.kqueue < 0 || make_room(&server, server.kqueue) < 0)
        net_die("kqueue");
    server.banner.path = own[1].value;
    server.banner.fd = -1;
    watch_signals(&server);
    if (server.banner.path[0] != '\0')
        watch_folder(&server);
    /* The only call that registers and does not wait: whoever reads that we
     * listen may send a signal, or change the banner, at once. */
    if (kevent(server.kqueue, server.changes, server.change_count, NULL, 0, NULL) < 0)
        net_die("kevent");
    server.change_count = 0;
    if (server.banner.path[0] != '\0')
        open_banner(&server);
    server.listener = net_listen(&options);
    if (set_nonblocking(server.listener) < 0)
        net_die("listening socket");

    while (!server.stopping)
        turn(&server);
    accept_clients(&server, SOMAXCONN); /* who came before the stop is served, too: a whole queue of them */
    unwatch(server.kqueue, server.listener);
    close(server.listener);
    server.listener = -1;
    set_timer(&server, server.kqueue, 0, GRACE_MS);
    while (server.count > 0) {
        turn(&server); /* first, so that the kernel hears of them before any is closed */
        serve_all(&server);
    }
    close(server.kqueue);
    free(server.clients);
    free(server.changes);
    return EXIT_SUCCESS;
}
/* [/main] */
