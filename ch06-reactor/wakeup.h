/* wakeup.h - what comes to a reactor from outside its loop: works that other threads
 * post, and signals.
 *
 * Both may come at any moment, also just before the loop waits. So both leave a note
 * where the loop will look, and then write a byte into a pipe that the demultiplexer
 * watches (the self-pipe trick, D. J. Bernstein): the wait ends, or does not begin.
 * A pipe exists everywhere; Linux' eventfd and kqueue's EVFILT_USER would save a
 * descriptor, and signalfd and EVFILT_SIGNAL the handler. */
#ifndef WAKEUP_H
#define WAKEUP_H

#include "reactor.h"

#include <stdatomic.h>

enum { WAKEUP_SIGNALS = 65 }; /* numbers of signals are below; no system needs more */

/* [wakeup] */
struct wakeup {
    struct event_handler handler; /* of the pipe's reading end */
    int writing_end;
    _Atomic(struct reactor_work *) posted;          /* the last comes first */
    struct reactor_signal *signals[WAKEUP_SIGNALS]; /* by number */
};
/* [/wakeup] */

/* Opens the pipe and registers its handler. Returns 0, or -1 with errno. */
int wakeup_open(struct wakeup *wakeup, struct reactor *reactor);

/* Gives the signals back and closes the pipe. */
void wakeup_close(struct wakeup *wakeup);

int wakeup_catch_signal(struct wakeup *wakeup, struct reactor_signal *signal);

void wakeup_post(struct wakeup *wakeup, struct reactor_work *work);

#endif
