/* timers.h - those timers of a reactor that are set, in a hashed timing wheel.
 * Given with exercise 06-5, in place of the chapter's, whose functions it has.
 *
 *   slots    0    1    2    3   ...  255        a slot is a tick of 8 ms, and the wheel goes round in 2048 ms
 *                 |         |
 *                 41        7                   entry 41 is due in a tick like 1, 257, 513...
 *                 |
 *                 12                            and so is entry 12, in another round, perhaps
 *
 * To set or to cancel one of any number of timers is one step: it is taken out of the list of one slot,
 * or put into it. In return the lists have no order; and a slot, when its time comes, may hold timers
 * that are due in a later round.
 * Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987 (their scheme 6). */
#ifndef TIMERS_H
#define TIMERS_H

#include "reactor.h"

#include <stdint.h>

enum {
    WHEEL_TICK_MS = 8,
    WHEEL_SLOTS = 256,
};

/* A timer in the wheel, or nobody's. Entries are known by number, for the array moves when it grows. */
struct timer_entry {
    struct reactor_timer *timer; /* whose place is the number of this entry */
    size_t slot;                 /* the one in whose list it is */
    size_t previous;             /* before it in that list; 0: none, it is the first */
    size_t next;                 /* after it; 0: none. Or the next one that is nobody's */
};

struct timers {
    struct timer_entry *entries; /* entries[0] is nobody's for ever: so 0 can stand for none */
    size_t room;
    size_t count;              /* timers that are set */
    size_t nobodys;            /* the first entry that is free again; 0: none */
    size_t used;               /* entries that have been in use ever: those behind are free, too */
    size_t slots[WHEEL_SLOTS]; /* the first entry of each list; 0: none */
    int64_t tick;              /* where the hand is: the slots of the ticks before it are done */
};

/* As reactor_set_timer(), with the time on the clock. */
int timers_set(struct timers *timers, struct reactor_timer *timer, int64_t due_ms);

void timers_cancel(struct timers *timers, struct reactor_timer *timer);

/* Takes out a timer that is due at now_ms. Returns it, or NULL: none is due. Those of an earlier tick
 * come first, if the clock is looked at once a round at least. */
struct reactor_timer *timers_expired(struct timers *timers, int64_t now_ms);

/* When to look again: no later than the first timer is due, and perhaps too early, but for one timer
 * no more than once a round. INT64_MAX if no timer is set. It looks at each slot once at most, and into one
 * list. */
int64_t timers_next(const struct timers *timers);

void timers_free(struct timers *timers);

#endif
