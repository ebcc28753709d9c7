/* wakeup.c - works from other threads, and signals; wakeup.h says how it is used.
 * Needs POSIX.1-2008 and C11 atomics. */
#define _POSIX_C_SOURCE 200809L

#include "wakeup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

/* [wake] */
/* Safe in a signal handler. If the pipe is full, the loop will wake all the same. */
static void wake(int writing_end)
{
    ssize_t n;
    do
        n = write(writing_end, "", 1);
    while (n < 0 && errno == EINTR);
}

static void drain(int reading_end)
{
    char bytes[256];
    ssize_t n;
    do
        n = read(reading_end, bytes, sizeof bytes);
    while (n == sizeof bytes || (n < 0 && errno == EINTR));
}
/* [/wake] */

/* [post] */
/* A list that threads add to at its head, and that the loop takes whole: no lock is needed. Only
 * who finds it empty wakes the loop, since the others' wake-up is still on its way. */
void wakeup_post(struct wakeup *wakeup, struct reactor_work *work)
{
    struct reactor_work *head = atomic_load(&wakeup->posted);
    do
        work->next = head;
    while (!atomic_compare_exchange_weak(&wakeup->posted, &head, work));
    if (head == NULL)
        wake(wakeup->writing_end);
}

static void run_posted(struct wakeup *wakeup, struct reactor *reactor)
{
    struct reactor_work *last_first = atomic_exchange(&wakeup->posted, NULL);
    struct reactor_work *first = NULL;

    while (last_first != NULL) { /* turn it round */
        struct reactor_work *next = last_first->next;
        last_first->next = first;
        first = last_first;
        last_first = next;
    }
    while (first != NULL) {
        struct reactor_work *work = first;
        first = work->next; /* now, since the work may be gone after it has run */
        work->run(reactor, work);
    }
}
/* [/post] */

/* [signals] */
/* A signal handler is told its number and nothing else: this is the one place where the
 * library needs something global. */
static struct {
    atomic_int wake_up; /* the pipe to write to, plus 1; 0: the signal is nobody's */
    atomic_bool came;
} caught[WAKEUP_SIGNALS];

static void note_signal(int number)
{
    int saved = errno;
    int wake_up = atomic_load(&caught[number].wake_up);

    atomic_store(&caught[number].came, true); /* first the note, then the bell */
    if (wake_up != 0)
        wake(wake_up - 1);
    errno = saved;
}

/* Has the process do this at the signal. Returns 0, or -1 with errno. */
static int set_action(int number, void (*action)(int))
{
    struct sigaction wanted = {.sa_handler = action, .sa_flags = SA_RESTART};
    sigemptyset(&wanted.sa_mask);
    return sigaction(number, &wanted, NULL);
}

int wakeup_catch_signal(struct wakeup *wakeup, struct reactor_signal *signal)
{
    int number = signal->number;
    sigset_t one;

    if (number <= 0 || number >= WAKEUP_SIGNALS) {
        errno = EINVAL;
        return -1;
    }
    /* First where to ring: it may come at once. */
    int before = atomic_exchange(&caught[number].wake_up, wakeup->writing_end + 1);
    if (set_action(number, note_signal) < 0) {
        atomic_store(&caught[number].wake_up, before);
        return -1;
    }
    wakeup->signals[number] = signal;
    if (atomic_load(&caught[number].came)) /* another reactor had it, and has not looked yet */
        wake(wakeup->writing_end);
    sigemptyset(&one);
    sigaddset(&one, number); /* whoever started this program may have left it blocked */
    errno = pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    return errno == 0 ? 0 : -1;
}

static void report_signals(struct wakeup *wakeup, struct reactor *reactor)
{
    for (int number = 1; number < WAKEUP_SIGNALS; number++) {
        struct reactor_signal *signal = wakeup->signals[number];
        bool ours = signal != NULL && atomic_load(&caught[number].wake_up) == wakeup->writing_end + 1;
        if (ours && atomic_exchange(&caught[number].came, false))
            signal->raised(reactor, signal);
    }
}

/* Gives back those signals that no other reactor has asked for since. */
static void release_signals(const struct wakeup *wakeup)
{
    for (int number = 1; number < WAKEUP_SIGNALS; number++) {
        int ours = wakeup->writing_end + 1;
        if (wakeup->signals[number] != NULL &&
            atomic_compare_exchange_strong(&caught[number].wake_up, &ours, 0)) {
            (void)set_action(number, SIG_DFL); /* it was possible to catch it, so this is, too */
            atomic_store(&caught[number].came, false);
        }
    }
}
/* [/signals] */

/* [wakeup_open] */
/* The pipe is emptied first: what is noted after that rings again. */
static void on_wake_up(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct wakeup *wakeup = (struct wakeup *)handler; /* its first member */

    if ((events & REACTOR_READ) == 0)
        return; /* a stop: whoever still works may need it */
    drain(handler->fd);
    report_signals(wakeup, reactor);
    run_posted(wakeup, reactor);
}

int wakeup_open(struct wakeup *wakeup, struct reactor *reactor)
{
    int ends[2];

    if (pipe(ends) < 0)
        return -1;
    wakeup->handler = (struct event_handler){ends[0], "wake-up", on_wake_up};
    wakeup->writing_end = ends[1];
    for (int i = 0; i < 2; i++) {
        if (fcntl(ends[i], F_SETFL, O_NONBLOCK) < 0 || fcntl(ends[i], F_SETFD, FD_CLOEXEC) < 0)
            goto failed; /* a new pipe has no flags that this could wipe */
    }
    if (reactor_register(reactor, &wakeup->handler, REACTOR_READ) == 0)
        return 0;
failed:
    close(ends[0]);
    close(ends[1]);
    return -1;
}

void wakeup_close(struct wakeup *wakeup)
{
    release_signals(wakeup);
    close(wakeup->handler.fd);
    close(wakeup->writing_end);
}
/* [/wakeup_open] */
