/* unit_timers.c - unit tests of timers.c, the heap of lazy timers behind a reactor.
 *
 * The clock is a number here, so nothing waits. The linker (--wrap) sends realloc()
 * to this file, which lets it fail when a test says so.
 * Needs C11, and a linker with --wrap (GNU ld, gold, lld). */
#define _POSIX_C_SOURCE 200809L

#include "timers.h"

#include "tap.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAPTER "the book, chapter 6, "
#define PIECES CHAPTER "\"The server, piece by piece\""

enum { MANY = 1000 };

/* ---- faults ---- */

static bool out_of_memory; /* realloc() fails */

void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size)
{
    return out_of_memory ? NULL : __real_realloc(block, size);
}

/* ---- the timers ---- */

static struct timers timers;
static struct reactor_timer many[MANY];

/* Numbers that are the same in every run. */
static unsigned random_below(unsigned limit)
{
    static uint64_t state = 2024;
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (unsigned)(state >> 33) % limit;
}

/* (Check notes every ck_assert on its way, which would be most of the time that this suite takes.) */
static void set(struct reactor_timer *timer, int64_t due_ms)
{
    if (timers_set(&timers, timer, due_ms) != 0)
        ck_abort_msg("timers_set() failed");
}

/* What makes it a heap of lazy timers: no entry is sorted before the one above it or after the
 * time at which its timer is due, and every timer knows its place. */
static void check_heap(void)
{
    for (size_t i = 1; i <= timers.count; i++) {
        const struct timer_entry *entry = &timers.heap[i];
        if (i > 1 && timers.heap[i / 2].sorted_ms > entry->sorted_ms)
            ck_abort_msg("entry %zu of %zu is sorted before entry %zu, which is above it", i, timers.count,
                         i / 2);
        if (entry->timer->place != i)
            ck_abort_msg("entry %zu: its timer takes itself to be at %zu", i, entry->timer->place);
        if (entry->sorted_ms > entry->timer->due_ms)
            ck_abort_msg("entry %zu is sorted behind its time", i);
    }
}

static void expect_none(int64_t now_ms)
{
    const struct reactor_timer *timer = timers_expired(&timers, now_ms);
    if (timer != NULL)
        ck_abort_msg("at %lld, timer %d expired, which is due at %lld", (long long)now_ms,
                     (int)(timer - many), (long long)timer->due_ms);
    check_heap();
}

static void expect_timer(int64_t now_ms, const struct reactor_timer *wanted)
{
    const struct reactor_timer *timer = timers_expired(&timers, now_ms);
    ck_assert_msg(timer != NULL, "at %lld, none expired", (long long)now_ms);
    ck_assert_int_eq(timer - many, wanted - many);
    ck_assert_uint_eq(timer->place, 0);
    check_heap();
}

/* ---- setting ---- */

START_TEST(in_order)
{
    int64_t last = 0;

    for (int i = 0; i < MANY; i++)
        set(&many[i], i * 37 % MANY);
    check_heap();
    for (int i = 0; i < MANY; i++) {
        const struct reactor_timer *timer = timers_expired(&timers, MANY);
        ck_assert_ptr_nonnull(timer);
        ck_assert_int_ge(timer->due_ms, last);
        last = timer->due_ms;
    }
    expect_none(MANY);
}
END_TEST

START_TEST(not_before_its_time)
{
    set(&many[0], 100);
    expect_none(0);
    expect_none(99);
    expect_timer(100, &many[0]);
    expect_none(100);
    expect_none(INT64_MAX);
}
END_TEST

START_TEST(in_order_when_late)
{
    set(&many[0], 10);
    set(&many[1], 20);
    set(&many[0], 30); /* put off, and so still sorted in for 10 */
    expect_timer(100, &many[1]);
    expect_timer(100, &many[0]);
    expect_none(100);
}
END_TEST

START_TEST(equal_times)
{
    bool seen[MANY] = {false};

    for (int i = 0; i < MANY; i++)
        set(&many[i], 7);
    expect_none(6);
    for (int i = 0; i < MANY; i++) {
        const struct reactor_timer *timer = timers_expired(&timers, 7);
        ck_assert_ptr_nonnull(timer);
        ck_assert_msg(!seen[timer - many], "timer %d expired twice", (int)(timer - many));
        seen[timer - many] = true;
        check_heap();
    }
    expect_none(7);
}
END_TEST

START_TEST(next)
{
    ck_assert_int_eq(timers_next(&timers), INT64_MAX);
    set(&many[0], 50);
    set(&many[1], 20);
    ck_assert_int_eq(timers_next(&timers), 20);
    expect_timer(20, &many[1]);
    ck_assert_int_eq(timers_next(&timers), 50);
    timers_cancel(&timers, &many[0]);
    ck_assert_int_eq(timers_next(&timers), INT64_MAX);
}
END_TEST

START_TEST(set_again)
{
    set(&many[0], 10);
    for (int64_t now = 10; now < 100; now += 10) {
        expect_timer(now, &many[0]);
        set(&many[0], now + 10);
        expect_none(now);
    }
}
END_TEST

START_TEST(no_memory)
{
    int count = 0;

    out_of_memory = true;
    ck_assert_int_eq(timers_set(&timers, &many[0], 1), -1);
    ck_assert_uint_eq(many[0].place, 0);
    out_of_memory = false;
    while (timers.count + 1 < timers.room || timers.room == 0) {
        set(&many[count], MANY - count);
        count++;
    }
    out_of_memory = true;
    ck_assert_int_eq(timers_set(&timers, &many[count], 1), -1);
    ck_assert_uint_eq(many[count].place, 0);
    timers_cancel(&timers, &many[count]); /* it is not set: no harm */
    ck_assert_uint_eq(timers.count, (size_t)count);
    check_heap();

    set(&many[0], 2 * MANY); /* whoever is set needs no memory */
    set(&many[1], 0);
    expect_timer(0, &many[1]);
    out_of_memory = false;
    set(&many[1], 1);
    set(&many[count], 0);
    expect_timer(0, &many[count]);
    expect_timer(1, &many[1]);
}
END_TEST

/* ---- putting off ---- */

START_TEST(put_off_costs_nothing)
{
    struct timer_entry before[MANY + 1];

    for (int i = 0; i < MANY; i++)
        set(&many[i], 100 + random_below(MANY));
    size_t size = (timers.count + 1) * sizeof *before;
    memcpy(before, timers.heap, size);
    for (int i = 0; i < 10 * MANY; i++) {
        struct reactor_timer *timer = &many[random_below(MANY)];
        set(timer, timer->due_ms + random_below(MANY));
        if (memcmp(before, timers.heap, size) != 0)
            ck_abort_msg("entries were moved");
    }
    check_heap();
}
END_TEST

START_TEST(put_off_comes_later)
{
    set(&many[0], 10);
    set(&many[1], 20);
    set(&many[0], 15);
    set(&many[0], 30);
    expect_none(10);
    ck_assert_int_eq(timers_next(&timers), 20);
    expect_none(19);
    expect_timer(20, &many[1]);
    expect_none(29);
    expect_timer(30, &many[0]);
    expect_none(1000);
}
END_TEST

START_TEST(earlier_again)
{
    set(&many[0], 100);
    set(&many[1], 60);
    set(&many[0], 300);
    set(&many[0], 200); /* still behind the place that it has */
    expect_none(59);
    set(&many[0], 50);
    ck_assert_int_eq(timers_next(&timers), 50);
    expect_timer(50, &many[0]);
    expect_timer(60, &many[1]);

    set(&many[0], 100);
    set(&many[0], 300);
    set(&many[0], 200);
    expect_none(100);
    expect_none(199);
    expect_timer(200, &many[0]);
    expect_none(300);
}
END_TEST

/* ---- cancelling ---- */

/* Sets so many, the first of them first. */
static void set_some(int count)
{
    for (int i = 0; i < count; i++)
        set(&many[i], i);
}

START_TEST(cancel_places)
{
    enum { SOME = 40 };

    for (size_t place = 1; place <= SOME; place++) {
        set_some(SOME);
        struct reactor_timer *gone = timers.heap[place].timer;
        timers_cancel(&timers, gone);
        ck_assert_uint_eq(gone->place, 0);
        ck_assert_uint_eq(timers.count, SOME - 1);
        check_heap();
        for (int i = 0; i < SOME; i++) {
            if (&many[i] != gone)
                expect_timer(SOME, &many[i]);
        }
        expect_none(SOME);
    }
}
END_TEST

START_TEST(cancel_moves_up)
{
    /* The last entry takes the place of one that is in another branch, and is due before the one above it. */
    const int64_t due[] = {1, 100, 2, 110, 120, 3, 4, 130, 140, 150, 160, 5};
    enum { SOME = sizeof due / sizeof *due };

    for (int i = 0; i < SOME; i++)
        set(&many[i], due[i]);
    timers_cancel(&timers, &many[7]); /* whose place is under 110 */
    check_heap();
    expect_timer(1, &many[0]);
    expect_timer(2, &many[2]);
    expect_timer(3, &many[5]);
    expect_timer(4, &many[6]);
    expect_timer(5, &many[11]);
    expect_none(99);
}
END_TEST

START_TEST(cancel_twice)
{
    struct reactor_timer never = {.place = 0};

    timers_cancel(&timers, &never);
    set_some(3);
    timers_cancel(&timers, &never);
    timers_cancel(&timers, &many[0]);
    timers_cancel(&timers, &many[0]);
    ck_assert_uint_eq(timers.count, 2);
    expect_timer(10, &many[1]);
    timers_cancel(&timers, &many[1]); /* it has expired */
    expect_timer(10, &many[2]);
    timers_cancel(&timers, &many[2]);
    ck_assert_uint_eq(timers.count, 0);
}
END_TEST

START_TEST(cancel_put_off)
{
    set_some(3);
    set(&many[0], 100);
    set(&many[1], 200);
    timers_cancel(&timers, &many[0]);
    expect_timer(2, &many[2]);
    set(&many[0], 150);
    expect_timer(150, &many[0]);
    expect_timer(200, &many[1]);
}
END_TEST

START_TEST(cancelled_is_freed)
{
    struct reactor_timer *timer = calloc(1, sizeof *timer);
    ck_assert_ptr_nonnull(timer);
    set_some(10);
    set(timer, 5);
    set(timer, 6);
    timers_cancel(&timers, timer);
    free(timer); /* the address sanitizer sees who still looks at it */
    for (int i = 0; i < 10; i++)
        expect_timer(10, &many[i]);
    expect_none(10);
}
END_TEST

/* ---- against a model that is as simple as can be ---- */

static int64_t model[MANY]; /* when each is due; -1: not set */

/* Takes out all that are due. */
static void expire_all(int64_t now_ms)
{
    const struct reactor_timer *timer;

    while ((timer = timers_expired(&timers, now_ms)) != NULL) {
        int64_t *due_ms = &model[timer - many];
        if (*due_ms < 0)
            ck_abort_msg("timer %d is not set", (int)(timer - many));
        if (*due_ms > now_ms)
            ck_abort_msg("timer %d expired at %lld, and is due at %lld", (int)(timer - many),
                         (long long)now_ms, (long long)*due_ms);
        *due_ms = -1;
    }
    for (int i = 0; i < MANY; i++) {
        if (model[i] >= 0 && model[i] <= now_ms)
            ck_abort_msg("timer %d was due at %lld, now %lld", i, (long long)model[i], (long long)now_ms);
    }
}

START_TEST(random_steps)
{
    enum { STEPS = 100000 };
    int64_t now_ms = 0;

    for (int i = 0; i < MANY; i++)
        model[i] = -1;
    for (int step = 0; step < STEPS; step++) {
        unsigned i = random_below(MANY);
        switch (random_below(16)) {
        case 0:
            now_ms += random_below(30);
            expire_all(now_ms);
            break;
        case 1:
        case 2:
        case 3:
            timers_cancel(&timers, &many[i]);
            model[i] = -1;
            break;
        case 4: /* earlier, or anything if it is not set */
            model[i] = model[i] > now_ms ? model[i] - random_below(2) : now_ms + random_below(10);
            set(&many[i], model[i]);
            break;
        default: /* put off, most often: or set */
            model[i] = now_ms + 100 + random_below(1000);
            set(&many[i], model[i]);
        }
        if ((timers_next(&timers) == INT64_MAX) != (timers.count == 0))
            ck_abort_msg("%zu timers, and the next at %lld", timers.count, (long long)timers_next(&timers));
        if (step % 100 == 0)
            check_heap();
    }
    expire_all(INT64_MAX);
    ck_assert_uint_eq(timers.count, 0);
}
END_TEST

START_TEST(crowd)
{
    enum { CROWD = 100000 };
    static struct reactor_timer timer[CROWD];
    int left = 0;

    for (int i = 0; i < CROWD; i++)
        set(&timer[i], 1000 + random_below(CROWD));
    check_heap();
    for (int i = 0; i < CROWD; i++) {
        if (i % 3 == 0)
            timers_cancel(&timers, &timer[i]);
        else if (i % 3 == 1)
            set(&timer[i], timer[i].due_ms + random_below(CROWD));
        left += i % 3 != 0;
    }
    check_heap();
    int64_t now_ms = 0;
    while (timers.count > 0) {
        const struct reactor_timer *expired;
        int64_t before_ms = now_ms;
        now_ms += 1 + random_below(100);
        while ((expired = timers_expired(&timers, now_ms)) != NULL) {
            left--;
            if (expired->due_ms <= before_ms || expired->due_ms > now_ms || (expired - timer) % 3 == 0)
                ck_abort_msg("at %lld, timer %d expired, which is due at %lld", (long long)now_ms,
                             (int)(expired - timer), (long long)expired->due_ms);
        }
    }
    ck_assert_int_eq(left, 0);
}
END_TEST

int main(void)
{
    const struct tap_test tests[] = {
        {"timers: expire in the order of their times", in_order, "1,000 timers, in order",
         "an entry was not moved up when it was set, or not down when the top was taken", PIECES},
        {"timers: none expires before its time", not_before_its_time, "at 100, not at 99, and once",
         "< instead of <=; or the top is taken without a look at its time", PIECES},
        {"timers: many that are due at the same time", equal_times, "each once, in any order",
         "equal entries were taken for the same one", PIECES},
        {"timers: which is the next", next, "the earliest time, and INT64_MAX when none is set",
         "the loop sleeps for as long as this says", PIECES},
        {"timers: one that has expired is set again", set_again, "every 10 ms",
         "its place was not set to 0 when it was taken out", PIECES},
        {"timers: no memory for one more", no_memory,
         "-1, and it is not set; those that are set can still be put off, and expire",
         "count was raised before there was room; or the heap was lost with a failed realloc()", PIECES},
        {"timers: to put one off costs nothing", put_off_costs_nothing,
         "10,000 times, and no entry of the heap is touched",
         "each message of each client moves its timer through the heap", PIECES},
        {"timers: one that is put off comes at its new time", put_off_comes_later,
         "at the new time, once, and behind the others",
         "it was not sorted in anew when it came up too early, or was taken all the same", PIECES},
        {"timers: in order also when the loop comes late", in_order_when_late,
         "the one that was due at 20 comes before the one that was put off to 30",
         "one that comes up for a time that is not its own any more expires, since it is due as well",
         PIECES},
        {"timers: one that is put off, and then wanted earlier", earlier_again,
         "at the last time that was set",
         "only a later time was thought of; or it was compared with the time that was set before, and not "
         "with "
         "the place in the heap",
         PIECES},
        {"timers: cancel, whatever its place", cancel_places, "all others, in order",
         "the last entry went into the gap, and its timer does not know", PIECES},
        {"timers: cancel, and the last entry has to move up", cancel_moves_up, "all others, in order",
         "who fills a gap was only moved down", PIECES},
        {"timers: cancel twice, or what is not set", cancel_twice, "nothing happens",
         "a place of 0 is no place in the heap", PIECES},
        {"timers: cancel one that is put off", cancel_put_off, "it does not expire, and can be set anew",
         "its old entry stayed", PIECES},
        {"timers: who is cancelled may be freed", cancelled_is_freed, "nobody looks at it any more",
         "an entry that points to it stayed in the heap", PIECES},
        {"timers: a crowd of 100,000", crowd,
         "each of those that are left, when the clock has come to its time",
         "what holds for a few does not for many: an order that is only nearly one", PIECES},
        {"timers: 100,000 random steps", random_steps, "what a simple list of times says, too",
         "a case that the other tests do not know", PIECES},
    };
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
