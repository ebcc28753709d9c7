/* loops.c - runs an application on one reactor or on several; loops.h says how it is used.
 * Needs POSIX.1-2008 threads. */
#define _POSIX_C_SOURCE 200809L

#include "loops.h"

#include "conn.h"
#include "demux.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum {
    LOOPS_MOST = 64,
    GRACE_MS = 3000, /* a stop waits this long for clients that are slow to take their bytes */
};

/* [options] */
const struct net_option loops_demux = {
    "demux", "NAME  wait with select, poll, epoll or kqueue (the best that is here)", NULL};
const struct net_option loops_count = {"loops", "N  serve with so many threads, a loop in each (1)", "1"};

int64_t loops_number(const struct net_option *option, int64_t most)
{
    char *end;
    errno = 0;
    long number = strtol(option->value, &end, 10);
    if (errno != 0 || *end != '\0' || end == option->value || number < 1 || number > most)
        net_wrong_use(option, "not a whole number that makes sense here");
    return number;
}
/* [/options] */

/* [loop] */
struct loop {
    struct reactor *reactor;
    int listener;
    const struct application *application;
    struct reactor_work stop; /* to be posted */
    pthread_t thread;
};

static void *run(void *argument)
{
    struct loop *loop = argument;
    void *opened = loop->application->open(loop->reactor, loop->listener, loop->application->argument);

    if (opened == NULL)
        net_die("application");
    if (reactor_run(loop->reactor) < 0)
        net_die("reactor");
    loop->application->close(opened);
    return NULL;
}
/* [/loop] */

/* [stop] */
/* Who stops all loops at a signal. */
struct stopper {
    struct reactor_signal signal;
    struct loop *loops;
    size_t count;
};

static void stop(struct reactor *reactor, struct reactor_work *work)
{
    (void)work;
    reactor_stop(reactor, GRACE_MS);
}

/* Runs in the first loop. The others belong to other threads: they are asked by post, and once only,
 * since a work is the reactor's from then on. */
static void on_stop_signal(struct reactor *reactor, struct reactor_signal *signal)
{
    const struct stopper *stopper = (struct stopper *)signal; /* its first member */

    reactor_stop(reactor, GRACE_MS);
    for (size_t i = 1; i < stopper->count; i++) {
        struct loop *loop = &stopper->loops[i];
        if (loop->stop.run == NULL) {
            loop->stop.run = stop;
            reactor_post(loop->reactor, &loop->stop);
        }
    }
}

/* When the reactors are destroyed, signals get their default action back: one that comes
 * then would end the process as if the stop had failed. From now on it stays pending. */
static void hold_signals(void)
{
    sigset_t stops;
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &stops, NULL); /* fails for a wrong first argument only */
}
/* [/stop] */

/* [loops_run] */
static void prepare(struct loop *loops, size_t count, struct net_options *options,
                    const struct demultiplexer *demultiplexer, const struct application *application)
{
    for (size_t i = 0; i < count; i++) {
        loops[i].reactor = reactor_create(demultiplexer);
        loops[i].application = application;
        if (loops[i].reactor == NULL)
            net_die("reactor");
    }
    static struct stopper stoppers[] = {{{SIGTERM, on_stop_signal}, NULL, 0},
                                        {{SIGINT, on_stop_signal}, NULL, 0}};
    for (size_t i = 0; i < 2; i++) { /* before the line is printed that invites others to send them */
        stoppers[i].loops = loops;
        stoppers[i].count = count;
        if (reactor_catch_signal(loops[0].reactor, &stoppers[i].signal) < 0)
            net_die("signals");
    }
    options->share = count > 1;
    for (size_t i = 0; i < count; i++) {
        loops[i].listener = i == 0 ? net_listen(options) : net_listen_beside(loops[0].listener);
        if (set_nonblocking(loops[i].listener) < 0)
            net_die("listening socket");
    }
}

void loops_run(struct net_options *options, const struct net_option *own,
               const struct application *application)
{
    static struct loop loops[LOOPS_MOST];
    const struct demultiplexer *demultiplexer = demultiplexer_find(own[0].value);
    if (demultiplexer == NULL)
        net_wrong_use(&own[0], "this system has no such demultiplexer");
    size_t count = (size_t)loops_number(&own[1], LOOPS_MOST);

    /* Writing to a client that has gone is an error of that connection (EPIPE). */
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        net_die("signals");
    prepare(loops, count, options, demultiplexer, application);
    for (size_t i = 1; i < count; i++) {
        errno = pthread_create(&loops[i].thread, NULL, run, &loops[i]);
        if (errno != 0)
            net_die("pthread_create");
    }
    run(&loops[0]);
    for (size_t i = 1; i < count; i++)
        pthread_join(loops[i].thread, NULL);
    hold_signals();
    for (size_t i = 0; i < count; i++)
        reactor_destroy(loops[i].reactor);
}
/* [/loops_run] */
