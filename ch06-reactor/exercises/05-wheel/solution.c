/* Exercise 06-5, a timing wheel: a solution.
 *
 * Timers are in the slot of the tick at which they are due, whatever the round; timers.h shows it.
 * Needs C11. */
#include "timers.h"

#include <stdlib.h>

/* Takes an entry out of the list of its slot. */
static void unlink_entry(struct timers *timers, size_t place)
{
    const struct timer_entry *entry = &timers->entries[place];
    if (entry->previous != 0)
        timers->entries[entry->previous].next = entry->next;
    else
        timers->slots[entry->slot] = entry->next;
    if (entry->next != 0)
        timers->entries[entry->next].previous = entry->previous;
}

/* Puts an entry into the list of the slot for this time. What is due before the hand is overdue: in its
 * own slot it would wait for a whole round. */
static void link_entry(struct timers *timers, size_t place, int64_t due_ms)
{
    int64_t tick = due_ms / WHEEL_TICK_MS;
    if (tick < timers->tick)
        tick = timers->tick;

    struct timer_entry *entry = &timers->entries[place];
    entry->slot = (size_t)(tick % WHEEL_SLOTS);
    entry->previous = 0;
    entry->next = timers->slots[entry->slot];
    if (entry->next != 0)
        timers->entries[entry->next].previous = place;
    timers->slots[entry->slot] = place;
}

/* Returns the number of an entry that is nobody's, or 0: no memory. */
static size_t take_entry(struct timers *timers)
{
    size_t place = timers->nobodys;
    if (place != 0) {
        timers->nobodys = timers->entries[place].next;
        return place;
    }
    if (timers->used + 1 >= timers->room) {
        size_t room = timers->room == 0 ? 64 : 2 * timers->room;
        struct timer_entry *entries = realloc(timers->entries, room * sizeof *entries);
        if (entries == NULL)
            return 0;
        timers->entries = entries;
        timers->room = room;
    }
    return ++timers->used;
}

int timers_set(struct timers *timers, struct reactor_timer *timer, int64_t due_ms)
{
    if (timer->place != 0) {
        unlink_entry(timers, timer->place);
    } else {
        size_t place = take_entry(timers);
        if (place == 0)
            return -1;
        timers->entries[place].timer = timer;
        timer->place = place;
        timers->count++;
    }
    timer->due_ms = due_ms;
    link_entry(timers, timer->place, due_ms);
    return 0;
}

void timers_cancel(struct timers *timers, struct reactor_timer *timer)
{
    size_t place = timer->place;
    if (place == 0)
        return;
    unlink_entry(timers, place);
    timers->entries[place].next = timers->nobodys;
    timers->nobodys = place;
    timers->count--;
    timer->place = 0;
}

/* Looks into the slot where the hand is. Returns a timer that is due at now_ms, or NULL. */
static struct reactor_timer *look(const struct timers *timers, int64_t now_ms)
{
    for (size_t place = timers->slots[timers->tick % WHEEL_SLOTS]; place != 0;
         place = timers->entries[place].next) {
        struct reactor_timer *timer = timers->entries[place].timer;
        if (timer->due_ms <= now_ms)
            return timer;
    }
    return NULL;
}

/* The hand goes on to now, slot by slot, and stops there: in the same tick more may become due. If it is
 * more than a round behind, one round shows it every slot. */
struct reactor_timer *timers_expired(struct timers *timers, int64_t now_ms)
{
    int64_t now = now_ms / WHEEL_TICK_MS;

    if (timers->tick <= now - WHEEL_SLOTS)
        timers->tick = now - WHEEL_SLOTS + 1;
    for (;;) {
        struct reactor_timer *timer = look(timers, now_ms);
        if (timer != NULL) {
            timers_cancel(timers, timer);
            return timer;
        }
        if (timers->tick >= now)
            return NULL;
        timers->tick++;
    }
}

int64_t timers_next(const struct timers *timers)
{
    if (timers->count == 0)
        return INT64_MAX;

    /* In the slot where the hand is, what is due in a later round is no reason to look again at once. */
    int64_t end_ms = (timers->tick + 1) * WHEEL_TICK_MS;
    int64_t next_ms = INT64_MAX;
    for (size_t place = timers->slots[timers->tick % WHEEL_SLOTS]; place != 0;
         place = timers->entries[place].next) {
        int64_t due_ms = timers->entries[place].timer->due_ms;
        if (due_ms < end_ms && due_ms < next_ms)
            next_ms = due_ms;
    }
    if (next_ms != INT64_MAX)
        return next_ms;

    /* Nobody knows of the others in which round they are due: to look is the way to find out. */
    int64_t tick = timers->tick + 1;
    while (tick < timers->tick + WHEEL_SLOTS && timers->slots[tick % WHEEL_SLOTS] == 0)
        tick++;
    return tick * WHEEL_TICK_MS;
}

void timers_free(struct timers *timers)
{
    free(timers->entries);
}
