/* Exercise 06-6, edges behind levels: a solution.
 *
 * epoll(7), edge-triggered, behind an interface that is level-triggered. A descriptor is added once, for
 * everything, and never changed. What an edge has announced is remembered until poll(2) says that it is
 * over; and only those are asked whom somebody is waiting for: the hot ones.
 * Needs Linux 2.6.27. */
#if __has_include(<sys/epoll.h>)

#include "demux.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BATCH = 256 }; /* events that one call brings */

/* What is known of a descriptor. */
struct place {
    uint32_t generation;
    unsigned wanted; /* what it is watched for */
    unsigned may;    /* what was announced, and has not been found to be over */
    size_t
        hot; /* where it is among the hot ones, plus 1; 0: it is not, since it may nothing that is wanted */
};

struct state {
    int epoll;
    struct place *places; /* by descriptor */
    struct pollfd *hot;
    size_t room; /* of places, and of hot */
    size_t hot_count;
    size_t next; /* where to begin to report */
    struct epoll_event events[BATCH];
};

static void *open_epoll(void)
{
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (state->epoll < 0) {
        free(state);
        return NULL;
    }
    return state;
}

static void close_epoll(void *opened)
{
    struct state *state = opened;
    close(state->epoll);
    free(state->places);
    free(state->hot);
    free(state);
}

/* Makes a place for descriptor fd. Returns 0, or -1 with errno. */
static int make_room(struct state *state, int fd)
{
    size_t room = state->room == 0 ? 64 : state->room;
    while (room <= (size_t)fd)
        room *= 2;
    if (room > state->room) {
        struct place *places = realloc(state->places, room * sizeof *places);
        if (places == NULL)
            return -1;
        state->places = places;
        struct pollfd *hot = realloc(state->hot, room * sizeof *hot);
        if (hot == NULL)
            return -1;
        state->hot = hot;
        memset(places + state->room, 0, (room - state->room) * sizeof *places);
        state->room = room;
    }
    return 0;
}

/* Puts a descriptor among the hot ones, or takes it out, after something has changed. */
static void sort_in(struct state *state, int fd)
{
    struct place *place = &state->places[fd];
    unsigned events = place->may & place->wanted;

    if (events != 0) {
        if (place->hot == 0) {
            place->hot = ++state->hot_count;
            state->hot[place->hot - 1].fd = fd;
        }
        state->hot[place->hot - 1].events = (short)(((events & REACTOR_READ) != 0 ? POLLIN : 0) |
                                                    ((events & REACTOR_WRITE) != 0 ? POLLOUT : 0));
    } else if (place->hot != 0) { /* the last one takes its place */
        state->hot[place->hot - 1] = state->hot[--state->hot_count];
        state->places[state->hot[place->hot - 1].fd].hot = place->hot;
        place->hot = 0;
    }
}

static int change(void *opened, int fd, uint32_t generation, unsigned before, unsigned after)
{
    struct state *state = opened;

    if (before == 0) { /* whatever can be done already counts as an edge, and will be announced */
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                                    .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd};
        if (make_room(state, fd) < 0 || epoll_ctl(state->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            return -1;
        state->places[fd] = (struct place){.generation = generation};
    }
    state->places[fd].wanted = after;
    sort_in(state, fd);
    return after == 0 ? epoll_ctl(state->epoll, EPOLL_CTL_DEL, fd, NULL) : 0;
}

/* Asks the hot ones, and forgets what is over. What comes after that is a new edge. Returns 0, or -1
 * with errno. */
static int ask(struct state *state)
{
    if (state->hot_count == 0)
        return 0;
    if (poll(state->hot, state->hot_count, 0) < 0)
        return errno == EINTR ? 0 : -1;
    for (size_t i = state->hot_count; i-- > 0;) { /* backwards, since the last one may take its place */
        const struct pollfd *hot = &state->hot[i];
        if ((hot->revents & (POLLERR | POLLHUP | POLLNVAL)) != 0)
            continue; /* the next call on it, whichever, says why */
        short over = (short)(hot->events & ~hot->revents);
        state->places[hot->fd].may &=
            ~(((over & POLLIN) != 0 ? REACTOR_READ : 0U) | ((over & POLLOUT) != 0 ? REACTOR_WRITE : 0U));
        sort_in(state, hot->fd);
    }
    return 0;
}

/* Takes in what epoll announces. Returns 0, or -1 with errno. */
static int listen_to_edges(struct state *state, int timeout_ms)
{
    int count = epoll_wait(state->epoll, state->events, BATCH, timeout_ms);
    if (count < 0)
        return errno == EINTR ? 0 : -1;
    for (int i = 0; i < count; i++) {
        int fd = (int)(uint32_t)state->events[i].data.u64;
        uint32_t happened = state->events[i].events;
        if ((happened & (EPOLLERR | EPOLLHUP)) != 0)
            happened |= EPOLLIN | EPOLLOUT;
        state->places[fd].may |= ((happened & EPOLLIN) != 0 ? REACTOR_READ : 0U) |
                                 ((happened & EPOLLOUT) != 0 ? REACTOR_WRITE : 0U);
        sort_in(state, fd);
    }
    return 0;
}

static int wait_epoll(void *opened, struct ready *ready, int room, int timeout_ms)
{
    struct state *state = opened;

    if (ask(state) < 0 || listen_to_edges(state, state->hot_count > 0 ? 0 : timeout_ms) < 0)
        return -1;
    int count = 0;
    for (size_t i = 0; i < state->hot_count && count < room; i++, state->next++) {
        if (state->next >= state->hot_count) /* not always from 0, so that everybody has a turn */
            state->next = 0;
        int fd = state->hot[state->next].fd;
        const struct place *place = &state->places[fd];
        ready[count++] = (struct ready){fd, place->generation, place->may & place->wanted};
    }
    return count;
}

extern const struct demultiplexer demux_epoll;
const struct demultiplexer demux_epoll = {"epoll", open_epoll, close_epoll, change, wait_epoll};

#else
typedef int epoll_is_not_here; /* a file of C is never empty */
#endif
