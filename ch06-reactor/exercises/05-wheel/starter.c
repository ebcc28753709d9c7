/* Exercise 06-5, a timing wheel: what to start from.
 *
 * All timers are in the list of slot 0, and it is looked through for whatever is due. That works, and
 * costs. Look for YOUR WORK: three places.
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

/* Puts an entry into the list of the slot for this time. */
static void link_entry(struct timers *timers, size_t place, int64_t due_ms)
{
    (void)due_ms; /* YOUR WORK: which slot is it? And which, if the hand has passed that one? */
    struct timer_entry *entry = &timers->entries[place];
    entry->slot = 0;
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

/* Returns the timer that is due first, or NULL: none is set. */
static struct reactor_timer *first(const struct timers *timers)
{
    struct reactor_timer *found = NULL;
    for (size_t place = timers->slots[0]; place != 0; place = timers->entries[place].next) {
        struct reactor_timer *timer = timers->entries[place].timer;
        if (found == NULL || timer->due_ms < found->due_ms)
            found = timer;
    }
    return found;
}

/* YOUR WORK: let the hand go on to now_ms, slot by slot. What if that is far? And when it is there, is the
 * last slot done? */
struct reactor_timer *timers_expired(struct timers *timers, int64_t now_ms)
{
    struct reactor_timer *timer = first(timers);
    if (timer == NULL || timer->due_ms > now_ms)
        return NULL;
    timers_cancel(timers, timer);
    return timer;
}

/* YOUR WORK: which is the next slot that may have something? And what about the one where the hand is? */
int64_t timers_next(const struct timers *timers)
{
    const struct reactor_timer *timer = first(timers);
    return timer != NULL ? timer->due_ms : INT64_MAX;
}

void timers_free(struct timers *timers)
{
    free(timers->entries);
}
