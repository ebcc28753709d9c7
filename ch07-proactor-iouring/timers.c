/* timers.c - a heap of lazy timers; timers.h says how it is used.
 * Needs C11. */
#include "timers.h"

#include <stdlib.h>

/* [heap] */
static void put(struct timers *timers, size_t place, struct timer_entry entry)
{
    timers->heap[place] = entry;
    entry.timer->place = place;
}

/* Finds the place for an entry, from place upwards: whoever is due later moves down. */
static void sift_up(struct timers *timers, size_t place, struct timer_entry entry)
{
    while (place > 1 && timers->heap[place / 2].sorted_ms > entry.sorted_ms) {
        put(timers, place, timers->heap[place / 2]);
        place /= 2;
    }
    put(timers, place, entry);
}

/* The same downwards: whoever is due earlier moves up. */
static void sift_down(struct timers *timers, size_t place, struct timer_entry entry)
{
    for (;;) {
        size_t child = 2 * place;
        if (child < timers->count && timers->heap[child + 1].sorted_ms < timers->heap[child].sorted_ms)
            child++;
        if (child > timers->count || timers->heap[child].sorted_ms >= entry.sorted_ms)
            break;
        put(timers, place, timers->heap[child]);
        place = child;
    }
    put(timers, place, entry);
}

/* Puts an entry where its time belongs, and place is free. */
static void sift(struct timers *timers, size_t place, struct timer_entry entry)
{
    if (place > 1 && timers->heap[place / 2].sorted_ms > entry.sorted_ms)
        sift_up(timers, place, entry);
    else
        sift_down(timers, place, entry);
}
/* [/heap] */

/* [set] */
/* Makes room for one more. Returns 0, or -1 with ENOMEM. */
static int make_room(struct timers *timers)
{
    if (timers->count + 1 < timers->room)
        return 0;
    size_t room = timers->room == 0 ? 64 : 2 * timers->room;
    struct timer_entry *heap = realloc(timers->heap, room * sizeof *heap);
    if (heap == NULL)
        return -1;
    timers->heap = heap;
    timers->room = room;
    return 0;
}

int timers_set(struct timers *timers, struct proactor_timer *timer, int64_t due_ms)
{
    if (timer->place == 0) {
        if (make_room(timers) < 0)
            return -1;
        timers->count++;
        sift_up(timers, timers->count, (struct timer_entry){due_ms, timer});
    } else if (due_ms < timers->heap[timer->place].sorted_ms) {
        sift_up(timers, timer->place, (struct timer_entry){due_ms, timer});
    }
    timer->due_ms = due_ms; /* if that is later than it is sorted, it is moved when it comes up */
    return 0;
}
/* [/set] */

/* [cancel] */
void timers_cancel(struct timers *timers, struct proactor_timer *timer)
{
    size_t place = timer->place;
    if (place == 0)
        return;
    timer->place = 0;
    struct timer_entry last = timers->heap[timers->count--];
    if (last.timer != timer)
        sift(timers, place, last);
}
/* [/cancel] */

/* [expired] */
struct proactor_timer *timers_expired(struct timers *timers, int64_t now_ms)
{
    while (timers->count > 0 && timers->heap[1].sorted_ms <= now_ms) {
        struct proactor_timer *timer = timers->heap[1].timer;
        if (timer->due_ms == timers->heap[1].sorted_ms) {
            timers_cancel(timers, timer);
            return timer;
        }
        sift_down(timers, 1, (struct timer_entry){timer->due_ms, timer}); /* it has been put off */
    }
    return NULL;
}

int64_t timers_next(const struct timers *timers)
{
    return timers->count > 0 ? timers->heap[1].sorted_ms : INT64_MAX;
}
/* [/expired] */

void timers_free(struct timers *timers)
{
    free(timers->heap);
}
