/* Exercise 06-3, a pool of threads: a solution.
 *
 * "hash ROUNDS TEXT" is computed by one of four threads, and posted back to the loop. While a line is
 * being computed its client is not heard: so its answers come in order.
 * Needs POSIX.1-2008 threads, and C11 atomics. */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"
#include "conn.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS = 4, LINE_SIZE = 256 };

/* One thing to compute. */
struct job {
    struct reactor_work work; /* brings it back */
    struct job *next;         /* in the queue of the pool */
    struct reactor *reactor;
    unsigned long rounds;
    uint64_t result;
    char text[LINE_SIZE];
};

/* What the threads and the loop share. */
struct pool {
    pthread_mutex_t lock;  /* guards the queue, and is not held while something is computed */
    pthread_cond_t change; /* there is a job, or it is the end */
    struct job *jobs;      /* the first is next */
    struct job **last;
    bool closing;
    atomic_bool enough; /* nobody waits for results any more */
    pthread_t threads[THREADS];
};

/* What the handlers of one loop share. */
struct server {
    struct acceptor acceptor;
    struct pool pool;
    struct connection *left; /* closed, while a thread still had their job */
};

/* A client. */
struct connection {
    struct event_handler handler;
    struct server *server;
    struct job job;
    bool computing;          /* its job is away */
    struct connection *next; /* among those that are left */
    size_t size;             /* of what has come and has not been looked at */
    char line[LINE_SIZE];    /* that */
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

/* A thread: takes one job after the other. */
static void *compute(void *argument)
{
    struct pool *pool = argument;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->jobs == NULL && !pool->closing)
            pthread_cond_wait(&pool->change, &pool->lock);
        struct job *job = pool->jobs;
        if (job == NULL)
            break;
        pool->jobs = job->next;
        if (pool->jobs == NULL)
            pool->last = &pool->jobs;
        pthread_mutex_unlock(&pool->lock);
        job->result = hash(job->text, job->rounds, &pool->enough);
        reactor_post(job->reactor, &job->work); /* from here on it is the loop's */
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void submit(struct pool *pool, struct job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->last = job;
    pool->last = &job->next;
    pthread_cond_signal(&pool->change);
    pthread_mutex_unlock(&pool->lock);
}

/* Ends the program if it cannot start the threads. */
static void open_pool(struct pool *pool)
{
    pool->last = &pool->jobs;
    if ((errno = pthread_mutex_init(&pool->lock, NULL)) != 0 ||
        (errno = pthread_cond_init(&pool->change, NULL)) != 0)
        net_die("pool");
    for (size_t i = 0; i < THREADS; i++) {
        errno = pthread_create(&pool->threads[i], NULL, compute, pool);
        if (errno != 0)
            net_die("pthread_create");
    }
}

/* The loop has ended. The threads must end before the reactor does, since they post to it. */
static void close_pool(struct pool *pool)
{
    atomic_store(&pool->enough, true);
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->change);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->change);
    pthread_mutex_destroy(&pool->lock);
}

/* While its job is away a client is not heard, and so can be closed only when a stop lasts too long.
 * Then the loop ends, but a thread still writes to the job. */
static void close_connection(struct reactor *reactor, struct connection *connection)
{
    struct server *server = connection->server;

    reactor_remove(reactor, &connection->handler);
    close(connection->handler.fd);
    acceptor_resume(&server->acceptor, reactor);
    if (connection->computing) {
        connection->next = server->left;
        server->left = connection;
    } else {
        free(connection);
    }
}

/* Sends an answer, which is short: a client who does not even take that is lost, and this returns false. */
static bool answer(const struct connection *connection, const char *text)
{
    size_t size = strlen(text);
    return send(connection->handler.fd, text, size, 0) == (ssize_t)size;
}

static void on_computed(struct reactor *reactor, struct reactor_work *work);

/* Answers a line, or has somebody compute the answer. Returns false if the client is lost. */
static bool on_line(struct reactor *reactor, struct connection *connection, const char *line)
{
    char text[LINE_SIZE + 1];
    char *rest;
    unsigned long rounds = strncmp(line, "hash ", 5) == 0 ? strtoul(line + 5, &rest, 10) : 0;

    if (rounds > 0 && *rest == ' ') {
        struct job *job = &connection->job;
        *job = (struct job){.work.run = on_computed, .reactor = reactor, .rounds = rounds};
        snprintf(job->text, sizeof job->text, "%s", rest + 1);
        connection->computing = true;
        submit(&connection->server->pool, job);
        return true;
    }
    snprintf(text, sizeof text, "%s\n", line);
    return answer(connection, text);
}

/* Takes the lines that have come, one after the other; while one is being computed, no further one. */
static void go_on(struct reactor *reactor, struct connection *connection)
{
    char line[LINE_SIZE];
    const char *end;

    while (!connection->computing && (end = memchr(connection->line, '\n', connection->size)) != NULL) {
        size_t length = (size_t)(end - connection->line);
        memcpy(line, connection->line, length);
        line[length] = '\0';
        connection->size -= length + 1;
        memmove(connection->line, end + 1, connection->size);
        if (!on_line(reactor, connection, line)) {
            close_connection(reactor, connection);
            return;
        }
    }
    if (!connection->computing && connection->size == LINE_SIZE) /* too long to be a line of ours */
        close_connection(reactor, connection);
    else
        reactor_want(reactor, &connection->handler, connection->computing ? 0 : REACTOR_READ);
}

/* The job is back, in the loop. */
static void on_computed(struct reactor *reactor, struct reactor_work *work)
{
    struct job *job = (struct job *)work; /* its first member */
    struct connection *connection = (struct connection *)((char *)job - offsetof(struct connection, job));
    char text[32];

    connection->computing = false;
    snprintf(text, sizeof text, "%016" PRIx64 "\n", job->result);
    if (answer(connection, text))
        go_on(reactor, connection); /* with the lines that have come meanwhile */
    else
        close_connection(reactor, connection);
}

static void on_connection(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct connection *connection = (struct connection *)handler; /* its first member */

    if ((events & REACTOR_CLOSE) != 0) {
        close_connection(reactor, connection);
        return;
    }
    if (connection->computing)
        return; /* a stop, and it waits for its answer */
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
    open_pool(&server->pool);
    if (acceptor_open(&server->acceptor, reactor, listener, add) < 0)
        net_die("acceptor");
    return server;
}

static void close_server(void *opened)
{
    struct server *server = opened;
    close_pool(&server->pool);
    while (server->left != NULL) {
        struct connection *connection = server->left;
        server->left = connection->next;
        free(connection);
    }
    free(server);
}

int main(int argc, char **argv)
{
    struct net_option own[] = {loops_demux, loops_count};
    struct net_options options;
    net_options(&options, argc, argv, "lines, and a pool of threads that computes", own, 2);
    loops_run(&options, own, &(struct application){open_server, close_server, NULL});
    return EXIT_SUCCESS;
}
