/* Exercise 07-1, the rings by hand: a solution.
 *
 * Two rings in memory that is shared with the kernel. Each has a head, which whoever takes moves on, and a
 * tail, which whoever puts moves on. They only ever grow, and the lowest bits of them say which entry is
 * meant. What stands in an entry is written before the tail that announces it (release), and read after it
 * (acquire). Needs Linux 5.5, and C11 atomics. */
#define _GNU_SOURCE /* for syscall() and MAP_POPULATE */

#include "ring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A part of the kernel's memory. */
struct mapping {
    void *start;
    size_t size;
};

struct ring {
    int fd;
    struct mapping submission, completion, entries;
    unsigned sq_entries;
    unsigned put; /* since the last ring_enter() */

    atomic_uint *sq_head; /* the kernel moves it */
    atomic_uint *sq_tail; /* we move it */
    atomic_uint *sq_flags;
    unsigned sq_mask;
    unsigned *sq_array; /* which entry comes at this place */
    struct io_uring_sqe *sqes;

    atomic_uint *cq_head; /* we move it */
    atomic_uint *cq_tail; /* the kernel moves it */
    unsigned cq_mask;
    const struct io_uring_cqe *cqes;
};

/* Maps a part of the ring. Returns 0, or -1 with errno. */
static int map(int fd, struct mapping *mapping, size_t size, off_t part)
{
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, part);
    if (start == MAP_FAILED)
        return -1;
    *mapping = (struct mapping){start, size};
    return 0;
}

static void unmap(const struct mapping *mapping)
{
    if (mapping->start != NULL)
        munmap(mapping->start, mapping->size);
}

/* What the kernel says lies so far into the mapping. */
static void *at(const struct mapping *mapping, uint32_t offset)
{
    return (char *)mapping->start + offset;
}

static int map_all(struct ring *ring, const struct io_uring_params *params)
{
    const struct io_sqring_offsets *sq = &params->sq_off;
    const struct io_cqring_offsets *cq = &params->cq_off;

    if (map(ring->fd, &ring->submission, sq->array + params->sq_entries * sizeof(unsigned),
            IORING_OFF_SQ_RING) < 0 ||
        map(ring->fd, &ring->completion, cq->cqes + params->cq_entries * sizeof(struct io_uring_cqe),
            IORING_OFF_CQ_RING) < 0 ||
        map(ring->fd, &ring->entries, params->sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES) < 0)
        return -1;
    ring->sq_entries = params->sq_entries;
    ring->sq_head = at(&ring->submission, sq->head);
    ring->sq_tail = at(&ring->submission, sq->tail);
    ring->sq_flags = at(&ring->submission, sq->flags);
    ring->sq_mask = *(unsigned *)at(&ring->submission, sq->ring_mask);
    ring->sq_array = at(&ring->submission, sq->array);
    ring->sqes = ring->entries.start;
    ring->cq_head = at(&ring->completion, cq->head);
    ring->cq_tail = at(&ring->completion, cq->tail);
    ring->cq_mask = *(unsigned *)at(&ring->completion, cq->ring_mask);
    ring->cqes = at(&ring->completion, cq->cqes);
    return 0;
}

struct ring *ring_open(unsigned entries)
{
    struct io_uring_params params = {0};
    struct ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL)
        return NULL;
    ring->fd = (int)syscall(SYS_io_uring_setup, entries, &params);
    if (ring->fd < 0) {
        free(ring);
        return NULL;
    }
    if (map_all(ring, &params) == 0)
        return ring;
    int error = errno;
    ring_close(ring);
    errno = error;
    return NULL;
}

void ring_close(struct ring *ring)
{
    unmap(&ring->entries);
    unmap(&ring->completion);
    unmap(&ring->submission);
    close(ring->fd);
    free(ring);
}

bool ring_put(struct ring *ring, uint64_t user_data)
{
    /* Nobody else moves the tail. The head says up to where the kernel has read: an acquire, so that nothing
     * is written there before. */
    unsigned tail = atomic_load_explicit(ring->sq_tail, memory_order_relaxed);
    if (tail - atomic_load_explicit(ring->sq_head, memory_order_acquire) == ring->sq_entries)
        return false;

    unsigned place = tail & ring->sq_mask;
    struct io_uring_sqe *sqe = &ring->sqes[place];
    memset(sqe, 0, sizeof *sqe); /* what was here before is not to be done again */
    sqe->opcode = IORING_OP_NOP;
    sqe->user_data = user_data;
    ring->sq_array[place] = place;
    atomic_store_explicit(ring->sq_tail, tail + 1, memory_order_release);
    ring->put++;
    return true;
}

int ring_enter(struct ring *ring, unsigned wait_for)
{
    unsigned flags = wait_for > 0 ? IORING_ENTER_GETEVENTS : 0;
    long taken = syscall(SYS_io_uring_enter, ring->fd, ring->put, wait_for, flags, NULL, 0);
    if (taken > 0)
        ring->put -= (unsigned)taken;
    return (int)taken;
}

bool ring_take(struct ring *ring, uint64_t *user_data, int *result)
{
    unsigned head = atomic_load_explicit(ring->cq_head, memory_order_relaxed);
    if (head == atomic_load_explicit(ring->cq_tail, memory_order_acquire)) {
        /* Nothing is here. Does the kernel have more? There is room for it now. */
        if ((atomic_load_explicit(ring->sq_flags, memory_order_relaxed) & IORING_SQ_CQ_OVERFLOW) == 0)
            return false;
        if (syscall(SYS_io_uring_enter, ring->fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0) < 0 ||
            head == atomic_load_explicit(ring->cq_tail, memory_order_acquire))
            return false;
    }
    const struct io_uring_cqe *cqe = &ring->cqes[head & ring->cq_mask];
    *user_data = cqe->user_data;
    *result = cqe->res;
    atomic_store_explicit(ring->cq_head, head + 1, memory_order_release); /* read before it is given back */
    return true;
}
