/* demux.h - how a reactor waits: the event demultiplexers behind it.
 *
 *   name    triggered  limit                     cost of one wait grows with    where
 *   select  level      descriptors < FD_SETSIZE  the highest descriptor         everywhere
 *   poll    level      none                      the watched descriptors        everywhere
 *   epoll   level      none                      the ready descriptors          Linux
 *   kqueue  level      none                      the ready descriptors          BSD, macOS (*)
 *
 * (*) and Linux, over the kqueue_linux.c beside this file, or over libkqueue.
 *
 * All are level-triggered, so that one handler serves with each of them: what it
 * leaves undone is reported again. Each is a file of its own, and the only one
 * that knows its system call. Needs what the table says. */
#ifndef DEMUX_H
#define DEMUX_H

#include "reactor.h"

#include <stdint.h>

/* [ready] */
/* Something can be done on a descriptor. */
struct ready {
    int fd;
    uint32_t generation; /* as it was given to change() */
    unsigned events;     /* REACTOR_READ, REACTOR_WRITE; REACTOR_CLOSE: it cannot be watched */
};
/* [/ready] */

/* [demultiplexer] */
struct demultiplexer {
    const char *name;

    /* Returns a new state, or NULL with errno. */
    void *(*open)(void);

    void (*close)(void *state);

    /* A descriptor is watched for the events in before, and shall be for those in after; they differ,
     * and 0 stands for not watched. An error or a hang-up counts as whatever is watched for. When this
     * has returned with after = 0, the descriptor may be closed. Returns 0, or -1 with errno,
     * and nothing is watched then; only when before is 0. */
    int (*change)(void *state, int fd, uint32_t generation, unsigned before, unsigned after);

    /* Waits until something can be done, for timeout_ms milliseconds at most; -1: for ever.
     * Returns how many elements of ready it has filled, at most room; 0 also after a signal; or -1 with
     * errno. Whoever finds no room now comes first the next time. */
    int (*wait)(void *state, struct ready *ready, int room, int timeout_ms);
};
/* [/demultiplexer] */

/* [list] */
/* All that this system has, the best first; the last is NULL. */
extern const struct demultiplexer *const demultiplexers[];

/* The one with this name; the best for NULL. NULL if there is no such one here. */
const struct demultiplexer *demultiplexer_find(const char *name);
/* [/list] */

#endif
