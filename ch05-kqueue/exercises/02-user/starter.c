/* Exercise 05-2, a thread that wakes the loop: what to start from.
 *
 * "primes N" is computed in the loop, and everybody waits for it. All other lines
 * come back as they are. Look for YOUR WORK: four places. */
#define _GNU_SOURCE /* on Linux; the next two where kevent() is native */
#define _NETBSD_SOURCE
#define _DARWIN_C_SOURCE

#include "conn.h"
#include "net.h"

#include <errno.h>
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

enum { MOST_CLIENTS = 1000, LINE_SIZE = 256, BATCH = 64 };

/* The place of one descriptor, and of the client who has it now. */
struct client {
    bool present;
    uint32_t generation; /* how many clients have left this place */
    size_t size;         /* of the line so far */
    char line[LINE_SIZE];
};

struct server {
    int kqueue;
    int listener;
    struct client clients[MOST_CLIENTS]; /* by descriptor */
    /* YOUR WORK: what the threads share, and what guards it */
};

/* udata is a pointer, but an integer on NetBSD before 10. */
#define UDATA(event, generation) \
    _Generic((event).udata, intptr_t : (intptr_t)(generation), default : (void *)(uintptr_t)(generation))

/* Makes one change, at once. Returns 0, or -1 with errno. */
static int change(const struct server *server, struct kevent event, uint32_t generation)
{
    event.udata = UDATA(event, generation);
    return kevent(server->kqueue, &event, 1, NULL, 0, NULL);
}

static void drop(struct server *server, int fd)
{
    close(fd);
    server->clients[fd].present = false;
    server->clients[fd].generation++; /* what is under way for the old one finds nobody */
}

/* Sends a short answer. A client who does not even take that is closed. */
static void answer(struct server *server, int fd, const char *text)
{
    size_t size = strlen(text);
    if (send(fd, text, size, 0) != (ssize_t)size)
        drop(server, fd);
}

/* How many primes there are below limit. It takes its time: that is the point. */
static unsigned long count_primes(unsigned long limit)
{
    unsigned long count = 0;
    for (unsigned long n = 2; n < limit; n++) {
        unsigned long d = 2;
        while (d * d <= n && n % d != 0)
            d++;
        count += d * d > n;
    }
    return count;
}

static void on_line(struct server *server, int fd, const char *line)
{
    char text[LINE_SIZE + 2];
    char *end;
    unsigned long limit = strncmp(line, "primes ", 7) == 0 ? strtoul(line + 7, &end, 10) : 0;
    if (limit > 0) /* YOUR WORK: not here */
        snprintf(text, sizeof text, "%lu\n", count_primes(limit));
    else
        snprintf(text, sizeof text, "%s\n", line);
    answer(server, fd, text);
}

/* Events of other filters than READ. */
static void on_event(struct server *server, const struct kevent *event)
{
    (void)server; /* YOUR WORK: what has been computed goes to whoever asked, if that is still there */
    (void)event;
}

/* Receives, and acts on each whole line. Longer lines are no lines of ours. */
static void receive(struct server *server, int fd)
{
    struct client *client = &server->clients[fd];
    uint32_t generation = client->generation;
    ssize_t got = recv(fd, client->line + client->size, LINE_SIZE - client->size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        drop(server, fd);
        return;
    }
    client->size += (size_t)got;
    char *end;
    while (client->generation == generation && (end = memchr(client->line, '\n', client->size)) != NULL) {
        char line[LINE_SIZE];
        size_t length = (size_t)(end - client->line);
        memcpy(line, client->line, length);
        line[length] = '\0';
        client->size -= length + 1;
        memmove(client->line, end + 1, client->size);
        on_line(server, fd, line);
    }
    if (client->generation == generation && client->size == LINE_SIZE)
        drop(server, fd);
}

static void accept_clients(struct server *server)
{
    int fd;
    while ((fd = net_accept(server->listener)) >= 0) {
        struct client *client = &server->clients[fd < MOST_CLIENTS ? fd : 0];
        struct kevent event = {.ident = (uintptr_t)fd, .filter = EVFILT_READ, .flags = EV_ADD};
        if (fd >= MOST_CLIENTS || set_nonblocking(fd) < 0 || change(server, event, client->generation) < 0) {
            close(fd);
            continue;
        }
        client->present = true;
        client->size = 0;
    }
}

static void dispatch(struct server *server, const struct kevent *event)
{
    if (event->filter != EVFILT_READ) {
        on_event(server, event);
    } else if (event->ident == (uintptr_t)server->listener) {
        accept_clients(server);
    } else {
        const struct client *client = &server->clients[event->ident];
        if (client->present && client->generation == (uint32_t)(uintptr_t)event->udata)
            receive(server, (int)event->ident);
    }
}

int main(int argc, char **argv)
{
    static struct server server;
    static struct kevent events[BATCH];
    struct net_options options;

    net_options(&options, argc, argv, "lines, and a thread that computes", NULL, 0);
    net_catch_signals();
    server.kqueue = kqueue();
    if (server.kqueue < 0)
        net_die("kqueue");
    /* YOUR WORK: the event by which the thread wakes the loop, and the thread */
    server.listener = net_listen(&options);
    if (set_nonblocking(server.listener) < 0 ||
        change(&server,
               (struct kevent){.ident = (uintptr_t)server.listener, .filter = EVFILT_READ, .flags = EV_ADD},
               0) < 0)
        net_die("listening socket");

    while (!net_stopping()) {
        int count = kevent(server.kqueue, NULL, 0, events, BATCH, NULL);
        if (count < 0 && errno != EINTR)
            net_die("kevent");
        for (int i = 0; i < count; i++)
            dispatch(&server, &events[i]);
    }
    return EXIT_SUCCESS; /* which closes all that is open */
}
