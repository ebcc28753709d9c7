/* Exercise 05-2, a thread that wakes the loop: a solution.
 *
 * "primes N" is computed by a thread, which wakes the loop when it is done. All
 * other lines come back as they are. */
#define _GNU_SOURCE /* on Linux; the next two where kevent() is native */
#define _NETBSD_SOURCE
#define _DARWIN_C_SOURCE

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <pthread.h>
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
    pthread_mutex_t lock;                /* guards what follows, which both threads use */
    pthread_cond_t asked;
    struct job *jobs; /* to be computed: the first is next */
    struct job **last;
    struct job *results; /* to be sent */
    int pipe[2];         /* wakes the loop where there is no EVFILT_USER */
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

/* What somebody has asked for, and then the answer. */
struct job {
    struct job *next;
    int fd;
    uint32_t generation; /* of the client: another may have its descriptor by then */
    unsigned long number;
};

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

enum { WAKE = 1 }; /* the ident of the user event */

static int prepare_wake(struct server *server)
{
#ifdef EVFILT_USER
    return change(server, (struct kevent){.ident = WAKE, .filter = EVFILT_USER, .flags = EV_ADD | EV_CLEAR},
                  0);
#else /* NetBSD before 10, OpenBSD before 7.8: a pipe, whose events have a number that no client has */
    if (pipe(server->pipe) < 0 || set_nonblocking(server->pipe[0]) < 0)
        return -1;
    return change(
        server, (struct kevent){.ident = (uintptr_t)server->pipe[0], .filter = EVFILT_READ, .flags = EV_ADD},
        UINT32_MAX);
#endif
}

/* Any thread may call it. Several calls may be one event: the list says how much there is to do. */
static void wake(const struct server *server)
{
#ifdef EVFILT_USER
    if (change(server, (struct kevent){.ident = WAKE, .filter = EVFILT_USER, .fflags = NOTE_TRIGGER}, 0) < 0)
        net_die("kevent");
#else
    if (write(server->pipe[1], "", 1) < 0 && errno != EAGAIN)
        net_die("write");
#endif
}

static void *work(void *argument)
{
    struct server *server = argument;
    pthread_mutex_lock(&server->lock);
    for (;;) {
        while (server->jobs == NULL)
            pthread_cond_wait(&server->asked, &server->lock);
        struct job *job = server->jobs;
        server->jobs = job->next;
        if (server->jobs == NULL)
            server->last = &server->jobs;
        pthread_mutex_unlock(&server->lock);
        job->number = count_primes(job->number); /* without the lock: this is what takes long */
        pthread_mutex_lock(&server->lock);
        job->next = server->results;
        server->results = job;
        wake(server);
    }
    return NULL;
}

static void on_line(struct server *server, int fd, const char *line)
{
    char text[LINE_SIZE + 2];
    char *end;
    unsigned long limit = strncmp(line, "primes ", 7) == 0 ? strtoul(line + 7, &end, 10) : 0;
    struct job *job;
    if (limit > 0 && (job = malloc(sizeof *job)) != NULL) {
        *job = (struct job){.fd = fd, .generation = server->clients[fd].generation, .number = limit};
        pthread_mutex_lock(&server->lock);
        *server->last = job;
        server->last = &job->next;
        pthread_cond_signal(&server->asked);
        pthread_mutex_unlock(&server->lock);
        return;
    }
    snprintf(text, sizeof text, "%s\n", line);
    answer(server, fd, text);
}

/* The thread has woken us: what it has computed goes to whoever asked, if that is still there. */
static void on_event(struct server *server, const struct kevent *event)
{
    char bytes[64];
    if (event->filter == EVFILT_READ && read(server->pipe[0], bytes, sizeof bytes) < 0 && errno != EAGAIN)
        net_die("read");
    pthread_mutex_lock(&server->lock);
    struct job *job = server->results;
    server->results = NULL;
    pthread_mutex_unlock(&server->lock);
    while (job != NULL) {
        struct job *next = job->next;
        const struct client *client = &server->clients[job->fd];
        if (client->present && client->generation == job->generation) {
            char text[32];
            snprintf(text, sizeof text, "%lu\n", job->number);
            answer(server, job->fd, text);
        }
        free(job);
        job = next;
    }
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
    if (event->filter != EVFILT_READ || (uint32_t)(uintptr_t)event->udata == UINT32_MAX) {
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
    pthread_t thread;
    server.last = &server.jobs;
    errno = pthread_mutex_init(&server.lock, NULL);
    if (errno != 0 || (errno = pthread_cond_init(&server.asked, NULL)) != 0 || prepare_wake(&server) < 0 ||
        (errno = pthread_create(&thread, NULL, work, &server)) != 0)
        net_die("worker");
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
