/* reactor.c - the loop: who handles what, what each wants, and whose turn it is; reactor.h
 * says how it is used.
 *
 * It knows no system call that waits: that is the demultiplexer's part. And it
 * knows no protocol: that is the handlers'.
 * Needs POSIX.1-2008. */
#define _POSIX_C_SOURCE 200809L

#include "reactor.h"

#include "demux.h"
#include "progress.h"
#include "timers.h"
#include "wakeup.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    BATCH = 256,   /* events that one wait brings; more come with the next */
    TICK_MS = 100, /* during a stop, how often everybody is told */
};

/* [slot] */
/* The place of one descriptor, and the handler that has it now. */
struct slot {
    struct event_handler *handler; /* NULL: none */
    uint32_t generation;           /* how many handlers have left this place */
    uint8_t wanted;                /* the events that the handler wants */
    uint8_t applied;               /* those that the demultiplexer knows of */
    bool changed;                  /* it is in the list of those for whom the two may differ */
    uint8_t futile;                /* in debug builds: wake-ups in a row of which nothing came */
};

struct reactor {
    const struct demultiplexer *demux;
    void *demux_state;
    struct slot *slots; /* by descriptor */
    int *changed;       /* descriptors, each once at most */
    size_t changed_count;
    size_t room; /* of slots, and of changed */
    size_t count;
    struct timers timers;
    struct wakeup wakeup;
    int64_t now_ms;
    int64_t soonest_ms; /* whoever sets a timer now sets it for then, at the soonest */
    bool stopping;
    int64_t stop_next_ms; /* when everybody is told of the stop, again */
    int64_t stop_end_ms;  /* when its time is over */
};
/* [/slot] */

static int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail: the clock is there, and so is now */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The time so many milliseconds after that; what is too far away is never. */
static int64_t later(int64_t time_ms, int64_t milliseconds)
{
    return milliseconds > INT64_MAX - time_ms ? INT64_MAX : time_ms + milliseconds;
}

/* [register] */
/* Makes a place for descriptor fd. Returns 0, or -1 with errno. */
static int make_room(struct reactor *reactor, int fd)
{
    size_t room = reactor->room == 0 ? 64 : reactor->room;
    while (room <= (size_t)fd)
        room *= 2;
    if (room > reactor->room) {
        struct slot *slots = realloc(reactor->slots, room * sizeof *slots);
        if (slots == NULL)
            return -1;
        reactor->slots = slots;
        int *changed = realloc(reactor->changed, room * sizeof *changed);
        if (changed == NULL)
            return -1;
        reactor->changed = changed;
        memset(slots + reactor->room, 0, (room - reactor->room) * sizeof *slots);
        reactor->room = room;
    }
    return 0;
}

int reactor_register(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    int fd = handler->fd;
    if (fd < 0) {
        errno = EBADF;
        return -1;
    }
    if (make_room(reactor, fd) < 0)
        return -1;
    struct slot *slot = &reactor->slots[fd];
    if (slot->handler != NULL) {
        errno = EEXIST;
        return -1;
    }
    if (events != 0 && reactor->demux->change(reactor->demux_state, fd, slot->generation, 0, events) < 0)
        return -1;
    slot->handler = handler;
    slot->wanted = slot->applied = (uint8_t)events;
    slot->futile = 0;
    reactor->count++;
    return 0;
}
/* [/register] */

/* [want] */
void reactor_want(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct slot *slot = &reactor->slots[handler->fd];

    slot->wanted = (uint8_t)events;
    if (slot->wanted != slot->applied && !slot->changed) {
        slot->changed = true;
        reactor->changed[reactor->changed_count++] = handler->fd;
    }
}

/* The one place where the demultiplexer hears of what handlers want. Whoever has
 * changed its mind and changed it back costs no call. */
static void apply_changes(struct reactor *reactor)
{
    while (reactor->changed_count > 0) {
        int fd = reactor->changed[--reactor->changed_count];
        struct slot *slot = &reactor->slots[fd];
        slot->changed = false;
        if (slot->handler == NULL || slot->wanted == slot->applied)
            continue;
        if (reactor->demux->change(reactor->demux_state, fd, slot->generation, slot->applied, slot->wanted) <
            0) {
            slot->wanted = slot->applied; /* or it would be tried again at once */
            slot->handler->handle_event(reactor, slot->handler, REACTOR_CLOSE);
        } else {
            slot->applied = slot->wanted;
        }
    }
}
/* [/want] */

/* [remove] */
void reactor_remove(struct reactor *reactor, struct event_handler *handler)
{
    struct slot *slot = &reactor->slots[handler->fd];

    if (slot->applied != 0)
        reactor->demux->change(reactor->demux_state, handler->fd, slot->generation, slot->applied, 0);
    slot->handler = NULL;
    slot->wanted = slot->applied = 0;
    slot->generation++; /* events for the old one find nobody */
    reactor->count--;
}
/* [/remove] */

/* [dispatch] */
/* The handlers of one batch may remove each other: an event is for whoever has the place
 * now only if no other has left it since, and only if it is still wanted. */
static void dispatch(struct reactor *reactor, const struct ready *ready)
{
    struct slot *slot = &reactor->slots[ready->fd];
    if (slot->handler == NULL || slot->generation != ready->generation)
        return;
    unsigned events = ready->events & (slot->wanted | REACTOR_CLOSE);
    if (events == 0)
        return;

    struct event_handler *handler = slot->handler;
    struct progress before = progress_look(ready->fd);
    handler->handle_event(reactor, handler, events);
    slot = &reactor->slots[ready->fd]; /* the table may have moved */
    if (slot->handler == handler && slot->generation == ready->generation && slot->wanted == slot->applied)
        progress_check(&slot->futile, handler, events, &before);
}

/* Tells every handler that there is. */
static void dispatch_all(struct reactor *reactor, unsigned event)
{
    for (size_t fd = 0; fd < reactor->room; fd++) {
        struct event_handler *handler = reactor->slots[fd].handler;
        if (handler != NULL)
            handler->handle_event(reactor, handler, event);
    }
}
/* [/dispatch] */

/* [run] */
/* How long the demultiplexer may wait: until a timer is due. */
static int timeout_ms(const struct reactor *reactor)
{
    int64_t next = timers_next(&reactor->timers);
    if (reactor->stopping && reactor->stop_next_ms < next)
        next = reactor->stop_next_ms;
    if (next == INT64_MAX)
        return -1;
    int64_t left = next - clock_ms();
    return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

/* One that is set for at once in here waits for a later turn, or there would be no end. */
static void expire_timers(struct reactor *reactor)
{
    struct reactor_timer *timer;
    reactor->soonest_ms = reactor->now_ms + 1;
    while ((timer = timers_expired(&reactor->timers, reactor->now_ms)) != NULL)
        timer->expired(reactor, timer);
    reactor->soonest_ms = 0;
}

/* Tells everybody of the stop. Returns false when its time is over. */
static bool go_on_stopping(struct reactor *reactor)
{
    if (reactor->now_ms >= reactor->stop_end_ms) {
        dispatch_all(reactor, REACTOR_CLOSE);
        return false;
    }
    if (reactor->now_ms >= reactor->stop_next_ms) {
        int64_t next = reactor->now_ms + TICK_MS;
        reactor->stop_next_ms = next < reactor->stop_end_ms ? next : reactor->stop_end_ms;
        dispatch_all(reactor, REACTOR_STOP);
    }
    return reactor->count > 1; /* the wake-up's handler stays */
}

/* Returns how many are ready, or -1 with errno. If the kernel lacks memory, to try again at
 * once would be to spin; other errors are mistakes of this program, and last. */
static int wait_for_events(const struct reactor *reactor, struct ready *ready)
{
    const struct timespec tenth = {.tv_nsec = 100000000};

    int count = reactor->demux->wait(reactor->demux_state, ready, BATCH, timeout_ms(reactor));
    if (count < 0 && (errno == ENOMEM || errno == EAGAIN)) {
        nanosleep(&tenth, NULL);
        count = 0;
    }
    return count;
}

int reactor_run(struct reactor *reactor)
{
    struct ready ready[BATCH];

    reactor->now_ms = clock_ms();
    while (!reactor->stopping || go_on_stopping(reactor)) {
        apply_changes(reactor);
        int count = wait_for_events(reactor, ready);
        if (count < 0)
            return -1;
        reactor->now_ms = clock_ms();
        for (int i = 0; i < count; i++)
            dispatch(reactor, &ready[i]);
        expire_timers(reactor);
    }
    return 0;
}

void reactor_stop(struct reactor *reactor, int64_t grace_ms)
{
    if (reactor->stopping)
        return;
    reactor->stopping = true;
    reactor->stop_next_ms = reactor->now_ms;
    reactor->stop_end_ms = later(clock_ms(), grace_ms);
}

bool reactor_stopping(const struct reactor *reactor)
{
    return reactor->stopping;
}
/* [/run] */

/* [timers] */
int reactor_set_timer(struct reactor *reactor, struct reactor_timer *timer, int64_t milliseconds)
{
    int64_t due_ms = later(reactor->now_ms, milliseconds);
    return timers_set(&reactor->timers, timer, due_ms < reactor->soonest_ms ? reactor->soonest_ms : due_ms);
}

void reactor_cancel_timer(struct reactor *reactor, struct reactor_timer *timer)
{
    timers_cancel(&reactor->timers, timer);
}

int64_t reactor_now(const struct reactor *reactor)
{
    return reactor->now_ms;
}
/* [/timers] */

/* [outside] */
int reactor_catch_signal(struct reactor *reactor, struct reactor_signal *signal)
{
    return wakeup_catch_signal(&reactor->wakeup, signal);
}

void reactor_post(struct reactor *reactor, struct reactor_work *work)
{
    wakeup_post(&reactor->wakeup, work);
}
/* [/outside] */

/* [create] */
struct reactor *reactor_create(const struct demultiplexer *demultiplexer)
{
    struct reactor *reactor = calloc(1, sizeof *reactor);
    if (reactor == NULL)
        return NULL;
    reactor->demux = demultiplexer;
    reactor->now_ms = clock_ms();
    reactor->demux_state = demultiplexer->open();
    if (reactor->demux_state != NULL) {
        if (wakeup_open(&reactor->wakeup, reactor) == 0)
            return reactor;
        demultiplexer->close(reactor->demux_state);
    }
    free(reactor->slots);
    free(reactor->changed);
    free(reactor);
    return NULL;
}

void reactor_destroy(struct reactor *reactor)
{
    wakeup_close(&reactor->wakeup);
    reactor->demux->close(reactor->demux_state);
    timers_free(&reactor->timers);
    free(reactor->slots);
    free(reactor->changed);
    free(reactor);
}
/* [/create] */
