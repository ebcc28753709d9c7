/* ring.h - io_uring's two rings, without liburing; for one thread. */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stdint.h>

struct ring;

/* Opens a ring with room for at least so many entries in its submission queue. Returns it, or NULL with
 * errno: EINVAL for 0 entries, or too many. */
struct ring *ring_open(unsigned entries);

/* Closes its descriptor, and gives back all memory that was mapped. */
void ring_close(struct ring *ring);

/* Puts a no-op into the submission queue. Returns false if the queue is full: as long as the kernel has not
 * taken any. */
bool ring_put(struct ring *ring, uint64_t user_data);

/* Has the kernel take all that was put, and waits until at least so many completions are in the completion
 * queue. Returns how many it has taken, or -1 with errno. */
int ring_enter(struct ring *ring, unsigned wait_for);

/* Takes the oldest completion. Returns false if there is none: neither in the completion queue, nor among
 * those that the kernel has kept because the queue was full. */
bool ring_take(struct ring *ring, uint64_t *user_data, int *result);

#endif
