/* Exercise 06-6, edges behind levels: what to start from.
 *
 * This is demux_epoll.c: level-triggered, and a call of epoll_ctl() for each change. Look for YOUR WORK:
 * five places.
 * Needs Linux 2.6.27. */
#if __has_include(<sys/epoll.h>)

#include "demux.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BATCH = 256 }; /* events that one call brings */

/* YOUR WORK: what has to be remembered of a descriptor, when an edge is announced only once? */

struct state {
    int epoll;
    /* YOUR WORK: and which descriptors have to be reported again? */
    struct epoll_event events[BATCH];
};

static void *open_epoll(void)
{
    struct state *state = malloc(sizeof *state);
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
    free(state);
}

/* YOUR WORK: once added, for everything and edge-triggered, nothing is changed. But what a descriptor is
 * wanted for has to be known, and it may be ready for that already. */
static int change(void *opened, int fd, uint32_t generation, unsigned before, unsigned after)
{
    const struct state *state = opened;
    struct epoll_event event = {
        .events = ((after & REACTOR_READ) != 0 ? (uint32_t)EPOLLIN : 0) |
                  ((after & REACTOR_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0),
        .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd,
    };
    /* Not EPOLL_CTL_MOD to no events: a hang-up would be reported all the same, and for ever. */
    int operation = before == 0 ? EPOLL_CTL_ADD : after == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    return epoll_ctl(state->epoll, operation, fd, &event);
}

/* YOUR WORK: what was ready is to be reported until it is over. Who knows whether it is? And how long may
 * epoll_wait() sleep meanwhile? */
static int wait_epoll(void *opened, struct ready *ready, int room, int timeout_ms)
{
    struct state *state = opened;

    int count = epoll_wait(state->epoll, state->events, room < BATCH ? room : BATCH, timeout_ms);
    if (count < 0)
        return errno == EINTR ? 0 : -1;
    for (int i = 0; i < count; i++) {
        uint64_t identity = state->events[i].data.u64;
        uint32_t happened = state->events[i].events;
        if ((happened & (EPOLLERR | EPOLLHUP)) != 0) /* the next call on it, whichever, says why */
            happened |= EPOLLIN | EPOLLOUT;
        /* YOUR WORK: this may be an event that is not wanted now, and will be later */
        ready[i] = (struct ready){(int)(uint32_t)identity, (uint32_t)(identity >> 32),
                                  ((happened & EPOLLIN) != 0 ? REACTOR_READ : 0U) |
                                      ((happened & EPOLLOUT) != 0 ? REACTOR_WRITE : 0U)};
    }
    return count;
}

extern const struct demultiplexer demux_epoll;
const struct demultiplexer demux_epoll = {"epoll", open_epoll, close_epoll, change, wait_epoll};

#else
typedef int epoll_is_not_here; /* a file of C is never empty */
#endif
