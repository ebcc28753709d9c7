/* loops.h - runs an application on one reactor, or on several: one a thread.
 *
 * Loops share nothing: each has its own listening socket on the same port, and the
 * kernel gives a client to one of them, where it stays. So no lock is taken for a
 * message, and an application is written as if there were one loop.
 * Needs POSIX.1-2008 threads, and SO_REUSEPORT for more than one loop. */
#ifndef LOOPS_H
#define LOOPS_H

#include "net.h"
#include "reactor.h"

#include <stdint.h>

/* [application] */
/* What to do with each loop, in the thread of its reactor. */
struct application {
    /* Registers whatever shall serve the clients of listener, which is non-blocking and
     * belongs to the application from now on. Returns what close() gets, or NULL with errno. */
    void *(*open)(struct reactor *reactor, int listener, const void *argument);
    void (*close)(void *opened); /* after the loop has ended */
    const void *argument;        /* the same for all loops: nobody writes to it */
};
/* [/application] */

/* Options that loops_run() reads: a server puts copies of them first among its own, in this order. */
extern const struct net_option loops_demux, loops_count;

/* Opens the listening sockets, says where, and serves until SIGTERM or SIGINT has come and
 * the stop is over. own: the server's options, as net_options() has read them.
 * Ends the program on an error, with status 2 where an option was wrong, else 1. */
void loops_run(struct net_options *options, const struct net_option *own,
               const struct application *application);

/* The number in an option, from 1 to most. Ends the program with status 2 if it is none. */
int64_t loops_number(const struct net_option *option, int64_t most);

#endif
