/* demux_kqueue.c - kqueue(2) behind a reactor: changes go along with the call that waits.
 *
 * An event is an entry for each filter, READ and WRITE.
 * Needs a BSD or macOS; on Linux the kqueue_linux.c beside this file, or libkqueue. */
#if __has_include(<sys/event.h>)

#define _GNU_SOURCE /* on Linux; the next two where kevent() is native */
#define _NETBSD_SOURCE
#define _DARWIN_C_SOURCE

#include "demux.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/event.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256 }; /* events that one call brings */

struct state {
    int kqueue;
    struct kevent *changes; /* what the next kevent() hands over */
    int change_count;
    int room;    /* of changes: enough for all that can be noted before the next wait */
    int watched; /* descriptors */
    struct kevent events[BATCH];
};

/* An event brings back what its change gave along: udata, a pointer, but an
 * integer on NetBSD before 10. */
#define UDATA(event, generation) \
    _Generic((event).udata, intptr_t : (intptr_t)(generation), default : (void *)(uintptr_t)(generation))

/* [kqueue_open] */
static void *open_kqueue(void)
{
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->kqueue = kqueue();
    if (state->kqueue < 0) {
        free(state);
        return NULL;
    }
    return state;
}

static void close_kqueue(void *opened)
{
    struct state *state = opened;
    close(state->kqueue);
    free(state->changes);
    free(state);
}
/* [/kqueue_open] */

/* [kqueue_change] */
/* Between two waits a descriptor is added and changed once at most: that is four changes of a
 * filter. (When it is removed, they are gone.) Returns 0, or -1 with errno. */
static int make_room(struct state *state)
{
    enum { CHANGES_EACH = 4 };
    if (state->watched * CHANGES_EACH >= state->room) {
        int room = state->room == 0 ? 64 * CHANGES_EACH : 2 * state->room;
        struct kevent *changes = realloc(state->changes, (size_t)room * sizeof *changes);
        if (changes == NULL)
            return -1;
        state->changes = changes;
        state->room = room;
    }
    state->watched++;
    return 0;
}

static struct kevent filter_change(int fd, int which, uint16_t flags, uint32_t generation)
{
    struct kevent event = {.ident = (uintptr_t)fd, .flags = flags};
    event.filter = which == REACTOR_READ ? EVFILT_READ : EVFILT_WRITE;
    event.udata = UDATA(event, generation);
    return event;
}

/* Its descriptor may be closed at once: what is noted of it is struck out, and what the
 * kernel knows of it is taken back with a call of its own. */
static void forget(struct state *state, int fd, unsigned before)
{
    int kept = 0;
    for (int i = 0; i < state->change_count; i++) {
        if (state->changes[i].ident != (uintptr_t)fd)
            state->changes[kept++] = state->changes[i];
    }
    bool noted = kept < state->change_count;
    state->change_count = kept;
    state->watched--;
    for (int which = REACTOR_READ; which <= REACTOR_WRITE; which++) {
        struct kevent event = filter_change(fd, which, EV_DELETE, 0);
        if ((before & (unsigned)which) != 0 || noted) /* ENOENT: the kernel has not heard of it yet */
            (void)kevent(state->kqueue, &event, 1, NULL, 0, NULL);
    }
}

static int change(void *opened, int fd, uint32_t generation, unsigned before, unsigned after)
{
    struct state *state = opened;

    if (after == 0) {
        forget(state, fd, before);
        return 0;
    }
    if (before == 0 && make_room(state) < 0)
        return -1;
    for (int which = REACTOR_READ; which <= REACTOR_WRITE; which++) {
        if (((before ^ after) & (unsigned)which) != 0)
            state->changes[state->change_count++] =
                filter_change(fd, which, (after & (unsigned)which) != 0 ? EV_ADD : EV_DELETE, generation);
    }
    return 0;
}
/* [/kqueue_change] */

/* [kqueue_wait] */
static int wait_kqueue(void *opened, struct ready *ready, int room, int timeout_ms)
{
    struct state *state = opened;
    const struct timespec timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};

    int count = kevent(state->kqueue, state->changes, state->change_count, state->events,
                       room < BATCH ? room : BATCH, timeout_ms < 0 ? NULL : &timeout);
    state->change_count = 0; /* a call that was interrupted, or failed to wait, has taken them, too */
    if (count < 0 && errno != EINTR)
        return -1;
    for (int i = 0; i < count; i++) {
        const struct kevent *event = &state->events[i];
        unsigned events = event->filter == EVFILT_READ ? REACTOR_READ : REACTOR_WRITE;
        if ((event->flags & EV_ERROR) != 0) /* a change for it was refused */
            events = REACTOR_CLOSE;
        ready[i] = (struct ready){(int)event->ident, (uint32_t)(uintptr_t)event->udata, events};
    }
    return count < 0 ? 0 : count;
}
/* [/kqueue_wait] */

extern const struct demultiplexer demux_kqueue;
const struct demultiplexer demux_kqueue = {"kqueue", open_kqueue, close_kqueue, change, wait_kqueue};

#else
typedef int kqueue_is_not_here; /* a file of C is never empty */
#endif
