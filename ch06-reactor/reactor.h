/* reactor.h - an event loop after the Reactor pattern (Douglas C. Schmidt, "Reactor: An
 * Object Behavioral Pattern for Demultiplexing and Dispatching Handles for
 * Synchronous Events", 1995), with his names:
 *
 *   handle               a descriptor
 *   event demultiplexer  waits until something can be done: demux.h has four
 *   event handler        is told what can be done on its descriptor, and does it
 *   reactor              knows who handles what, waits, and dispatches
 *
 * A handler says which events it wants, and is called while they last
 * (level-triggered): what it leaves undone is reported again. It must never wait
 * in there: all others would wait with it.
 *
 * Handlers, timers and works are structs of yours, most often a member of
 * something larger: the reactor allocates none of them and frees none of them.
 * A reactor belongs to the thread that runs it; from other threads only
 * reactor_post() may be called. Needs POSIX.1-2008 and C11 atomics. */
#ifndef REACTOR_H
#define REACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reactor;
struct demultiplexer;

/* [events] */
enum {
    REACTOR_READ = 1,  /* to receive or accept will not wait: there is something, an end, or an error */
    REACTOR_WRITE = 2, /* to send will not wait: there is room, or an error */
    REACTOR_STOP = 4,  /* the reactor stops: finish, and remove yourself. Comes ten times a second */
    REACTOR_CLOSE = 8, /* remove yourself now: a stop lasts too long, or you cannot be watched any more */
};
/* [/events] */

/* [handler] */
/* One descriptor, and what to do when something happens to it. */
struct event_handler {
    int fd;
    const char *name; /* of its kind, for messages: "connection" */

    /* events: some of those that it wants, or REACTOR_STOP, or REACTOR_CLOSE. In here everything is
     * allowed: to remove this handler or any other and to free it, to register new ones, to stop. */
    void (*handle_event)(struct reactor *reactor, struct event_handler *handler, unsigned events);
};
/* [/handler] */

/* Returns a reactor that waits with this demultiplexer, or NULL with errno.
 * Errors: ENOMEM, EMFILE, ENFILE. */
struct reactor *reactor_create(const struct demultiplexer *demultiplexer);

/* Ends a reactor that does not run: handlers, timers and works are forgotten, and
 * nobody is called. Their descriptors stay open. No thread may post any more. */
void reactor_destroy(struct reactor *reactor);

/* [registration] */
/* Takes a handler in. events: what it wants, REACTOR_READ, REACTOR_WRITE, both, or 0.
 * handler->fd must be open, non-blocking, and registered with no handler yet.
 * Returns 0, or -1 with errno: ENOMEM, or what the demultiplexer says (select(2): ERANGE
 * from FD_SETSIZE on; epoll_ctl(2), kevent(2)). */
int reactor_register(struct reactor *reactor, struct event_handler *handler, unsigned events);

/* Changes what a registered handler wants. The loop tells the demultiplexer before
 * it waits next, and only if something is different then; an event that has been
 * dropped meanwhile is not reported any more. If the demultiplexer cannot,
 * the handler gets REACTOR_CLOSE. */
void reactor_want(struct reactor *reactor, struct event_handler *handler, unsigned events);

/* Takes a registered handler out: from now on it is not called, even if an event for it is
 * on its way. Then it may be freed, and its descriptor closed, in that order or the
 * other; but not closed before. */
void reactor_remove(struct reactor *reactor, struct event_handler *handler);
/* [/registration] */

/* [running] */
/* Waits and dispatches until reactor_stop() has been called and every handler has
 * been removed, or its time is over. Returns 0, or -1 with errno if the
 * demultiplexer cannot wait. */
int reactor_run(struct reactor *reactor);

/* Begins the stop: every handler gets REACTOR_STOP, also one that is registered
 * later. Those still there after grace_ms milliseconds get REACTOR_CLOSE once,
 * and the loop ends. A second call changes nothing. */
void reactor_stop(struct reactor *reactor, int64_t grace_ms);

/* True from then on. */
bool reactor_stopping(const struct reactor *reactor);
/* [/running] */

/* [timers] */
/* Something to do later, once. Zero-initialised but for expired, it is not set. */
struct reactor_timer {
    void (*expired)(struct reactor *reactor, struct reactor_timer *timer); /* it may set the timer again */
    int64_t due_ms;                                                        /* on reactor_now()'s clock */
    size_t place;                                                          /* the reactor's; 0: not set */
};

/* Sets a timer to expire in that many milliseconds, whether or not it is set already: to
 * put it off costs one assignment, so do it at every message. Returns 0, or -1
 * with ENOMEM, which comes only if the timer was not set. */
int reactor_set_timer(struct reactor *reactor, struct reactor_timer *timer, int64_t milliseconds);

/* From now on it does not expire, and may be freed. No harm if it is not set. */
void reactor_cancel_timer(struct reactor *reactor, struct reactor_timer *timer);

/* Milliseconds, on a clock that nobody sets, when this turn of the loop began; before
 * reactor_run(), when the reactor was created. Timers are counted from then. */
int64_t reactor_now(const struct reactor *reactor);
/* [/timers] */

/* [outside] */
/* What to do when a signal has come. */
struct reactor_signal {
    int number;
    void (*raised)(struct reactor *reactor, struct reactor_signal *signal); /* in the loop, as any handler */
};

/* Has the loop call signal->raised after the signal has come, however often it came
 * meanwhile; until reactor_destroy(), which brings its default action back. A signal belongs to one
 * reactor of the process, the last that asked. Returns 0, or -1 with errno:
 * EINVAL for a signal that cannot be caught. Source: sigaction(2). */
int reactor_catch_signal(struct reactor *reactor, struct reactor_signal *signal);

/* Something to do in the thread of a reactor. */
struct reactor_work {
    void (*run)(struct reactor *reactor, struct reactor_work *work); /* it may free or post the work */
    struct reactor_work *next;                                       /* the reactor's */
};

/* Has the loop run the work soon. Any thread may call this, and it cannot fail; what one
 * thread posts runs in order. The work belongs to the reactor until it runs. What is posted when
 * the loop is about to end may not be run; and every call must have returned before reactor_destroy(). */
void reactor_post(struct reactor *reactor, struct reactor_work *work);
/* [/outside] */

#endif
