/* demux_poll.c - poll(2) behind a reactor: an array with an entry for each that is watched.
 *
 * Needs any POSIX system. */
#define _POSIX_C_SOURCE 200809L

#include "demux.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

/* What the reactor has to know of a descriptor, and where its entry is. */
struct place {
    uint32_t generation;
    nfds_t entry;
};

struct state {
    struct pollfd *entries;
    nfds_t count;
    nfds_t room;
    nfds_t next;          /* where to begin to look at what is ready */
    struct place *places; /* by descriptor */
    size_t places_room;
};

/* [poll_open] */
static void *open_poll(void)
{
    return calloc(1, sizeof(struct state));
}

static void close_poll(void *opened)
{
    struct state *state = opened;
    free(state->entries);
    free(state->places);
    free(state);
}
/* [/poll_open] */

/* [poll_change] */
/* Makes room for one more entry, and a place for descriptor fd. Returns 0, or -1 with errno. */
static int make_room(struct state *state, int fd)
{
    if (state->count == state->room) {
        nfds_t room = state->room == 0 ? 64 : 2 * state->room;
        struct pollfd *entries = realloc(state->entries, room * sizeof *entries);
        if (entries == NULL)
            return -1;
        state->entries = entries;
        state->room = room;
    }
    size_t room = state->places_room == 0 ? 64 : state->places_room;
    while (room <= (size_t)fd)
        room *= 2;
    if (room > state->places_room) {
        struct place *places = realloc(state->places, room * sizeof *places);
        if (places == NULL)
            return -1;
        state->places = places;
        state->places_room = room;
    }
    return 0;
}

static int change(void *opened, int fd, uint32_t generation, unsigned before, unsigned after)
{
    struct state *state = opened;

    if (before == 0) {
        if (make_room(state, fd) < 0)
            return -1;
        state->places[fd] = (struct place){generation, state->count};
        state->entries[state->count++] = (struct pollfd){.fd = fd};
    }
    nfds_t entry = state->places[fd].entry;
    if (after == 0) { /* the last one takes its place */
        state->entries[entry] = state->entries[--state->count];
        state->places[state->entries[entry].fd].entry = entry;
    } else {
        state->entries[entry].events = (short)(((after & REACTOR_READ) != 0 ? POLLIN : 0) |
                                               ((after & REACTOR_WRITE) != 0 ? POLLOUT : 0));
    }
    return 0;
}
/* [/poll_change] */

/* [poll_wait] */
/* POLLERR, POLLHUP and POLLNVAL are reported whether asked for or not, and the next call
 * on the descriptor says what they are about: so they count as whatever is watched for. */
static unsigned events_of(const struct pollfd *entry)
{
    short happened = entry->revents;
    if ((happened & (POLLERR | POLLHUP | POLLNVAL)) != 0)
        happened = entry->events;
    return ((happened & POLLIN) != 0 ? REACTOR_READ : 0U) | ((happened & POLLOUT) != 0 ? REACTOR_WRITE : 0U);
}

static int wait_poll(void *opened, struct ready *ready, int room, int timeout_ms)
{
    struct state *state = opened;

    int left = poll(state->entries, state->count, timeout_ms);
    if (left < 0)
        return errno == EINTR ? 0 : -1;

    int count = 0;
    nfds_t next = state->next; /* not always from 0: the last ones would wait for ever behind a full batch */
    for (nfds_t i = 0; i < state->count && left > 0 && count < room; i++, next++) {
        if (next >= state->count)
            next = 0;
        const struct pollfd *entry = &state->entries[next];
        if (entry->revents != 0) {
            ready[count++] = (struct ready){entry->fd, state->places[entry->fd].generation, events_of(entry)};
            left--;
        }
    }
    state->next = next;
    return count;
}
/* [/poll_wait] */

extern const struct demultiplexer demux_poll;
const struct demultiplexer demux_poll = {"poll", open_poll, close_poll, change, wait_poll};
