/* demux_select.c - select(2) behind a reactor: two sets, copied for each wait.
 *
 * A set has room for descriptors below FD_SETSIZE; others are refused when they are to be added.
 * Needs any POSIX system. */
#define _POSIX_C_SOURCE 200809L

#include "demux.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/select.h>

struct state {
    fd_set reading, writing;          /* what is watched */
    uint32_t generations[FD_SETSIZE]; /* of what is */
    int end;                          /* one more than the highest descriptor watched */
    int next;                         /* where to begin to look at what is ready */
};

/* [select_open] */
static void *open_select(void)
{
    struct state *state = calloc(1, sizeof *state);
    if (state != NULL) {
        FD_ZERO(&state->reading);
        FD_ZERO(&state->writing);
    }
    return state;
}
/* [/select_open] */

/* [select_change] */
static int change(void *opened, int fd, uint32_t generation, unsigned before, unsigned after)
{
    struct state *state = opened;
    (void)before;

    if (fd >= FD_SETSIZE) { /* FD_SET() would write past the end of the set */
        errno = ERANGE;
        return -1;
    }
    FD_CLR(fd, &state->reading);
    FD_CLR(fd, &state->writing);
    if ((after & REACTOR_READ) != 0)
        FD_SET(fd, &state->reading);
    if ((after & REACTOR_WRITE) != 0)
        FD_SET(fd, &state->writing);
    state->generations[fd] = generation;
    if (after != 0 && fd >= state->end)
        state->end = fd + 1;
    while (state->end > 0 && !FD_ISSET(state->end - 1, &state->reading) &&
           !FD_ISSET(state->end - 1, &state->writing))
        state->end--;
    return 0;
}
/* [/select_change] */

/* [select_wait] */
static int wait_select(void *opened, struct ready *ready, int room, int timeout_ms)
{
    struct state *state = opened;
    fd_set readable = state->reading; /* the call leaves in them who is ready */
    fd_set writable = state->writing;
    struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};

    int left = select(state->end, &readable, &writable, NULL, timeout_ms < 0 ? NULL : &timeout);
    if (left < 0)
        return errno == EINTR ? 0 : -1;

    int count = 0;
    int fd = state->next; /* not always from 0: the last ones would wait for ever behind a full batch */
    for (int i = 0; i < state->end && left > 0 && count < room; i++, fd++) {
        if (fd >= state->end)
            fd = 0;
        unsigned events =
            (FD_ISSET(fd, &readable) ? REACTOR_READ : 0U) | (FD_ISSET(fd, &writable) ? REACTOR_WRITE : 0U);
        if (events != 0) {
            ready[count++] = (struct ready){fd, state->generations[fd], events};
            left -= events == (REACTOR_READ | REACTOR_WRITE) ? 2 : 1;
        }
    }
    state->next = fd;
    return count;
}
/* [/select_wait] */

extern const struct demultiplexer demux_select;
const struct demultiplexer demux_select = {"select", open_select, free, change, wait_select};
