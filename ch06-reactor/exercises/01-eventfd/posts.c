/* Exercise 06-1, given: threads post work to the loop, and signals come.
 *
 * "post THREADS COUNT" starts so many threads, each of which posts so many works; when all have run,
 * the client is told how many came in the order in which their thread had posted them. And at
 * SIGUSR1 every client gets a line "signal". All of it comes through wakeup.c.
 * Needs POSIX.1-2008 threads. */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"
#include "conn.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS_MOST = 8, POSTS_MOST = 100000, LINE_SIZE = 64 };

struct server {
    struct acceptor acceptor;
    struct reactor_signal signal;
    struct client *clients;
};

/* A thread that posts, and how far the loop has got with its works. */
struct poster {
    pthread_t thread;
    struct client *client;
    struct post *posts;
    unsigned long next;
};

struct post {
    struct reactor_work work;
    struct poster *poster;
    unsigned long number;
};

struct client {
    struct event_handler handler;
    struct server *server;
    struct client *next;
    struct reactor *reactor;
    char line[LINE_SIZE];
    size_t size;
    struct poster posters[THREADS_MOST];
    unsigned long threads; /* 0: nothing has been posted for it, or all of it has run */
    unsigned long count;
    unsigned long ran;
    unsigned long in_order;
};

static void answer(const struct client *client, const char *text)
{
    if (send(client->handler.fd, text, strlen(text), 0) < 0)
        net_log(client->handler.fd, "lost", 0); /* the next receive will say so, too */
}

static void end_posting(struct client *client)
{
    for (unsigned long i = 0; i < client->threads; i++) {
        pthread_join(client->posters[i].thread, NULL);
        free(client->posters[i].posts);
    }
    client->threads = 0;
}

static void drop(struct reactor *reactor, struct client *client)
{
    for (struct client **link = &client->server->clients; *link != NULL; link = &(*link)->next) {
        if (*link == client) {
            *link = client->next;
            break;
        }
    }
    reactor_remove(reactor, &client->handler);
    close(client->handler.fd);
    acceptor_resume(&client->server->acceptor, reactor);
    end_posting(client);
    free(client);
}

/* A work, in the loop. */
static void run(struct reactor *reactor, struct reactor_work *work)
{
    const struct post *post = (struct post *)work; /* its first member */
    struct poster *poster = post->poster;
    struct client *client = poster->client;
    char text[LINE_SIZE];

    client->in_order += post->number == poster->next++;
    if (++client->ran < client->threads * client->count)
        return;
    snprintf(text, sizeof text, "%lu of %lu in order\n", client->in_order, client->ran);
    end_posting(client);
    answer(client, text);
    reactor_want(reactor, &client->handler, REACTOR_READ);
}

/* In a thread of its own. */
static void *post_all(void *argument)
{
    struct poster *poster = argument;
    for (unsigned long i = 0; i < poster->client->count; i++) {
        struct post *post = &poster->posts[i];
        *post = (struct post){.work.run = run, .poster = poster, .number = i};
        reactor_post(poster->client->reactor, &post->work);
    }
    return NULL;
}

static void on_line(struct client *client, const char *line)
{
    unsigned long threads;
    unsigned long count;
    if (sscanf(line, "post %lu %lu", &threads, &count) != 2 || threads < 1 || threads > THREADS_MOST ||
        count < 1 || count > POSTS_MOST) {
        answer(client, "post THREADS COUNT?\n");
        return;
    }
    client->count = count;
    client->ran = client->in_order = 0;
    client->threads = threads;
    for (unsigned long i = 0; i < threads; i++) {
        struct poster *poster = &client->posters[i];
        *poster = (struct poster){.client = client, .posts = malloc(count * sizeof *poster->posts)};
        if (poster->posts == NULL || pthread_create(&poster->thread, NULL, post_all, poster) != 0)
            net_die("a thread that posts");
    }
    reactor_want(client->reactor, &client->handler, 0); /* one thing after the other */
}

static void on_client(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct client *client = (struct client *)handler; /* its first member */

    if ((events & REACTOR_READ) == 0) { /* a stop: what has been posted still runs */
        if (client->threads == 0 || (events & REACTOR_CLOSE) != 0)
            drop(reactor, client);
        return;
    }
    ssize_t got = recv(handler->fd, client->line + client->size, LINE_SIZE - 1 - client->size, 0);
    if (got <= 0) {
        drop(reactor, client);
        return;
    }
    client->size += (size_t)got;
    client->line[client->size] = '\0';
    if (client->line[client->size - 1] == '\n' || client->size == LINE_SIZE - 1) {
        client->size = 0;
        on_line(client, client->line);
    }
}

static void on_signal(struct reactor *reactor, struct reactor_signal *signal)
{
    (void)reactor;
    const struct server *server =
        (const struct server *)((const char *)signal - offsetof(struct server, signal));
    for (const struct client *client = server->clients; client != NULL; client = client->next)
        answer(client, "signal\n");
}

static int add(struct reactor *reactor, struct acceptor *acceptor, int fd)
{
    struct server *server = (struct server *)acceptor; /* its first member */
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return -1;
    client->handler = (struct event_handler){fd, "client", on_client};
    client->server = server;
    client->reactor = reactor;
    if (set_nonblocking(fd) < 0 || reactor_register(reactor, &client->handler, REACTOR_READ) < 0) {
        free(client);
        return -1;
    }
    client->next = server->clients;
    server->clients = client;
    return 0;
}

static void *open_server(struct reactor *reactor, int listener, const void *argument)
{
    (void)argument;
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    server->signal = (struct reactor_signal){SIGUSR1, on_signal};
    if (reactor_catch_signal(reactor, &server->signal) == 0 &&
        acceptor_open(&server->acceptor, reactor, listener, add) == 0)
        return server;
    free(server);
    return NULL;
}

int main(int argc, char **argv)
{
    struct net_option own[] = {loops_demux, loops_count};
    struct net_options options;
    net_options(&options, argc, argv, "works that threads post, and signals, come to a loop", own, 2);
    loops_run(&options, own, &(struct application){open_server, free, NULL});
    return EXIT_SUCCESS;
}
