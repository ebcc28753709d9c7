/* Exercise 06-3, a pool of threads: what to start from.
 *
 * "hash ROUNDS TEXT" is computed in the loop, and everybody waits for it. All other lines come back as
 * they are. Look for YOUR WORK: eleven places.
 * Needs POSIX.1-2008, and C11 atomics. */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"
#include "conn.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS = 4, LINE_SIZE = 256 };

/* YOUR WORK: a job, which the loop gives to a thread, and gets back; and a pool of THREADS threads: what
 * do the loop and the threads share, and what guards it? */

/* What the handlers of one loop share. */
struct server {
    struct acceptor acceptor;
    atomic_bool enough; /* nobody waits for results any more */
    /* YOUR WORK: the pool */
};

/* A client. */
struct connection {
    struct event_handler handler;
    struct server *server;
    /* YOUR WORK: is something being computed for it? */
    size_t size;          /* of what has come and has not been looked at */
    char line[LINE_SIZE]; /* that */
};

/* Hashes a text so many times. It takes its time: that is the point. Returns early if enough becomes
 * true; what then comes out is of no use. */
static uint64_t hash(const char *text, unsigned long rounds, const atomic_bool *enough)
{
    uint64_t h = 0xcbf29ce484222325U; /* FNV-1a */
    for (unsigned long i = 0; i < rounds; i++) {
        if (i % 1024 == 0 && atomic_load(enough))
            break;
        for (const char *c = text; *c != '\0'; c++)
            h = (h ^ (unsigned char)*c) * 0x100000001b3U;
    }
    return h;
}

/* YOUR WORK: start the threads; give them a job; and end them */

static void close_connection(struct reactor *reactor, struct connection *connection)
{
    struct server *server = connection->server;

    reactor_remove(reactor, &connection->handler);
    close(connection->handler.fd);
    acceptor_resume(&server->acceptor, reactor);
    free(connection); /* YOUR WORK: even if a thread has its job? */
}

/* Sends an answer, which is short: a client who does not even take that is lost, and this returns false. */
static bool answer(const struct connection *connection, const char *text)
{
    size_t size = strlen(text);
    return send(connection->handler.fd, text, size, 0) == (ssize_t)size;
}

/* Answers a line. Returns false if the client is lost. */
static bool on_line(const struct connection *connection, const char *line)
{
    char text[LINE_SIZE + 1];
    char *rest;
    unsigned long rounds = strncmp(line, "hash ", 5) == 0 ? strtoul(line + 5, &rest, 10) : 0;

    if (rounds > 0 && *rest == ' ') {
        uint64_t result = hash(rest + 1, rounds, &connection->server->enough); /* YOUR WORK: not here */
        snprintf(text, sizeof text, "%016" PRIx64 "\n", result);
        return answer(connection, text);
    }
    snprintf(text, sizeof text, "%s\n", line);
    return answer(connection, text);
}

/* Takes the lines that have come, one after the other. YOUR WORK: but while one is being computed, no
 * further one; and afterwards those that are here already. */
static void go_on(struct reactor *reactor, struct connection *connection)
{
    char line[LINE_SIZE];
    const char *end;

    while ((end = memchr(connection->line, '\n', connection->size)) != NULL) {
        size_t length = (size_t)(end - connection->line);
        memcpy(line, connection->line, length);
        line[length] = '\0';
        connection->size -= length + 1;
        memmove(connection->line, end + 1, connection->size);
        if (!on_line(connection, line)) {
            close_connection(reactor, connection);
            return;
        }
    }
    if (connection->size == LINE_SIZE) /* too long to be a line of ours */
        close_connection(reactor, connection);
}

/* YOUR WORK: a job is back, in the loop */

static void on_connection(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct connection *connection = (struct connection *)handler; /* its first member */

    if ((events & REACTOR_CLOSE) != 0) {
        close_connection(reactor, connection);
        return;
    }
    /* YOUR WORK: this may be a stop, while something is being computed */
    ssize_t got = recv(handler->fd, connection->line + connection->size, LINE_SIZE - connection->size, 0);
    if (got > 0) {
        connection->size += (size_t)got;
        go_on(reactor, connection);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR) || reactor_stopping(reactor)) {
        close_connection(reactor, connection);
    }
}

/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct reactor *reactor, struct acceptor *acceptor, int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return -1;
    connection->handler = (struct event_handler){fd, "connection", on_connection};
    connection->server = (struct server *)acceptor; /* its first member */
    if (set_nonblocking(fd) == 0 && reactor_register(reactor, &connection->handler, REACTOR_READ) == 0)
        return 0;
    free(connection);
    return -1;
}

static void *open_server(struct reactor *reactor, int listener, const void *argument)
{
    (void)argument;
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    /* YOUR WORK: the threads */
    if (acceptor_open(&server->acceptor, reactor, listener, add) < 0)
        net_die("acceptor");
    return server;
}

static void close_server(void *opened)
{
    struct server *server = opened;
    atomic_store(&server->enough, true);
    /* YOUR WORK: the reactor goes next, and no thread may post to it any more */
    free(server);
}

int main(int argc, char **argv)
{
    struct net_option own[] = {loops_demux, loops_count};
    struct net_options options;
    net_options(&options, argc, argv, "lines, and hashes", own, 2);
    loops_run(&options, own, &(struct application){open_server, close_server, NULL});
    return EXIT_SUCCESS;
}
