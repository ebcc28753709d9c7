/* Exercise 07-1, the rings by hand: what to start from.
 *
 * The kernel opens a ring, and says how large it is and what lies where; nothing is mapped yet, and nothing
 * is ever put or taken. Look for YOUR WORK: six places.
 * Needs Linux 5.5, and C11 atomics. */
#define _GNU_SOURCE /* for syscall() and MAP_POPULATE */

#include "ring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h> /* YOUR WORK: and mmap() has a header of its own */

struct ring {
    int fd;
    struct io_uring_params params; /* its sq_off and cq_off say what lies where */

    /* YOUR WORK: the three mappings, and pointers to the heads, the tails, the flags and the entries in them.
     * Heads and tails are atomic_uint: the kernel changes them while you look. */
};

/* YOUR WORK: maps the submission queue, the completion queue, and the submission queue's entries. Returns 0,
 * or -1 with errno. */
static int map_all(struct ring *ring)
{
    (void)ring;
    return 0;
}

struct ring *ring_open(unsigned entries)
{
    struct ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL)
        return NULL;
    ring->fd = (int)syscall(SYS_io_uring_setup, entries, &ring->params);
    if (ring->fd < 0) {
        free(ring);
        return NULL;
    }
    if (map_all(ring) == 0)
        return ring;
    int error = errno;
    ring_close(ring);
    errno = error;
    return NULL;
}

/* YOUR WORK: what else has to be given back? */
void ring_close(struct ring *ring)
{
    close(ring->fd);
    free(ring);
}

/* YOUR WORK: is there room? Fill in an entry, then announce it: in this order, for the kernel too. */
bool ring_put(struct ring *ring, uint64_t user_data)
{
    (void)ring;
    (void)user_data;
    return false;
}

/* YOUR WORK: io_uring_enter(2) wants to know how many entries it shall take. */
int ring_enter(struct ring *ring, unsigned wait_for)
{
    (void)wait_for;
    return (int)syscall(SYS_io_uring_enter, ring->fd, 0, 0, 0, NULL, 0);
}

/* YOUR WORK: is there a completion? Read it, then give its place back. */
bool ring_take(struct ring *ring, uint64_t *user_data, int *result)
{
    (void)ring;
    *user_data = 0;
    *result = 0;
    return false;
}
