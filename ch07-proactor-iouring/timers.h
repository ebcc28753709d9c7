/* timers.h - those timers of a proactor that are set, the one that is due first on top.
 *
 * A binary heap: to set or to cancel one of n timers takes log2(n) steps at most, and to see
 * which is due first none. A timing wheel would do with one step, but has to be sized for
 * the times that are asked for, and is looked through while nothing is due. What is done at
 * every message is to put a timer off, and that costs neither: the timer keeps
 * its place, and is moved only when it comes up too early (a lazy timer).
 * Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987. */
#ifndef TIMERS_H
#define TIMERS_H

#include "proactor.h"

#include <stdint.h>

/* A timer in the heap, and the time for which it is sorted in: never later than it is due. */
struct timer_entry {
    int64_t sorted_ms;
    struct proactor_timer *timer;
};

struct timers {
    struct timer_entry *heap; /* heap[1] is the top; heap[i / 2] is above heap[i] */
    size_t count;
    size_t room;
};

/* As proactor_set_timer(), with the time on the clock. */
int timers_set(struct timers *timers, struct proactor_timer *timer, int64_t due_ms);

void timers_cancel(struct timers *timers, struct proactor_timer *timer);

/* Takes out a timer that is due at now_ms. Returns it, or NULL: none is due. */
struct proactor_timer *timers_expired(struct timers *timers, int64_t now_ms);

/* When to look again; INT64_MAX if no timer is set. */
int64_t timers_next(const struct timers *timers);

void timers_free(struct timers *timers);

#endif
