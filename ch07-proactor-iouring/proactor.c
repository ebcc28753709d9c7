/* proactor.c - the loop: what is pending, the timers, the stop; proactor.h says how it is used.
 *
 * It knows no system call that sends, receives or waits: that is the engine's part.
 * And it knows no protocol: that is the completion handlers'.
 * Needs POSIX.1-2008 and C11 atomics. */
#define _POSIX_C_SOURCE 200809L

#include "proactor.h"

#include "engine.h"
#include "net.h"
#include "timers.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAST_MS = 1000 }; /* when a stop is overdue, what is pending has so long to end */

struct proactor {
    const struct engine *engine;
    void *state; /* the engine's */
    struct timers timers;
    int64_t now_ms;
    int64_t soonest_ms;            /* whoever sets a timer now sets it for then, at the soonest */
    size_t pending;                /* operations */
    struct proactor_stop *stop;    /* NULL: none has begun */
    struct proactor_timer overdue; /* then: its time is over */
    bool last_call;                /* it is, and the application has been told */
    bool over;                     /* the application has had time to act on that, too */
    struct proactor_stop *at_signals;
};

#ifndef _WIN32 /* there, net_windows.c has these two */
static int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail: the clock is there, and so is now */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
#endif

/* [begin] */
static void begin(struct proactor *proactor, struct proactor_operation *operation, enum operation_kind kind)
{
    operation->kind = (uint8_t)kind;
    operation->pending = true;
    operation->error = 0;
    proactor->pending++;
    proactor->engine->begin(proactor->state, operation);
}

void proactor_accept(struct proactor *proactor, struct proactor_accept *accept)
{
    begin(proactor, &accept->operation, ACCEPT);
}

void proactor_receive(struct proactor *proactor, struct proactor_receive *receive)
{
    receive->left = receive->limit;
    begin(proactor, &receive->operation, RECEIVE);
}

static void begin_sending(struct proactor *proactor, struct proactor_send *send, enum operation_kind kind)
{
    send->sent = 0;
    send->ending = send->copied = false;
    send->due_ms = send->timeout_ms == 0 ? INT64_MAX : proactor->now_ms + send->timeout_ms;
    begin(proactor, &send->operation, kind);
}

void proactor_send(struct proactor *proactor, struct proactor_send *send)
{
    begin_sending(proactor, send, SEND);
}

void proactor_send_file(struct proactor *proactor, struct proactor_send_file *file)
{
    file->send.data = NULL;
    file->send.operation.at_once = false;
    begin_sending(proactor, &file->send, SEND_FILE);
}

void proactor_close(struct proactor *proactor, struct proactor_close *close)
{
    begin(proactor, &close->operation, CLOSE);
}

void proactor_discard(struct proactor *proactor, proactor_socket socket)
{
    proactor->engine->discard(proactor->state, socket);
}

void proactor_cancel(struct proactor *proactor, struct proactor_operation *operation)
{
    if (operation->pending)
        proactor->engine->cancel(proactor->state, operation);
}

void proactor_give_back(struct proactor *proactor, struct proactor_piece piece)
{
    if (piece.size > 0)
        proactor->engine->give_back(proactor->state, piece);
}
/* [/begin] */

/* [completions] */
void operation_ended(struct proactor *proactor, struct proactor_operation *operation, int error)
{
    operation->error = error;
    operation->pending = false;
    proactor->pending--;
}

void operation_completed(struct proactor *proactor, struct proactor_operation *operation)
{
    if (operation->kind == CLOSE) {
        struct proactor_close *close = (struct proactor_close *)operation;
        close->completed(proactor, close);
    } else {
        as_send(operation)->completed(proactor, as_send(operation));
    }
}
/* [/completions] */

/* [timers] */
int proactor_set_timer(struct proactor *proactor, struct proactor_timer *timer, int64_t milliseconds)
{
    int64_t due_ms = proactor->now_ms + milliseconds;
    return timers_set(&proactor->timers, timer,
                      due_ms < proactor->soonest_ms ? proactor->soonest_ms : due_ms);
}

void proactor_cancel_timer(struct proactor *proactor, struct proactor_timer *timer)
{
    timers_cancel(&proactor->timers, timer);
}

int64_t proactor_now(const struct proactor *proactor)
{
    return proactor->now_ms;
}

/* How long the engine may wait: until a timer is due. */
static int timeout_ms(const struct proactor *proactor)
{
    int64_t next = timers_next(&proactor->timers);
    if (next == INT64_MAX)
        return -1;
    int64_t left = next - clock_ms();
    return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

/* One that is set for at once in here waits for a later turn, or there would be no end. */
static void expire_timers(struct proactor *proactor)
{
    struct proactor_timer *timer;
    proactor->soonest_ms = proactor->now_ms + 1;
    while ((timer = timers_expired(&proactor->timers, proactor->now_ms)) != NULL)
        timer->expired(proactor, timer);
    proactor->soonest_ms = 0;
}
/* [/timers] */

/* [stop] */
/* First the application hears of it, and then has some time to see its closes completed. */
static void on_overdue(struct proactor *proactor, struct proactor_timer *timer)
{
    if (proactor->last_call) {
        proactor->over = true;
        return;
    }
    proactor->last_call = true;
    proactor->stop->overdue(proactor, proactor->stop);
    (void)proactor_set_timer(proactor, timer, LAST_MS); /* there is room: it has just been taken out */
}

void proactor_stop(struct proactor *proactor, struct proactor_stop *stop)
{
    if (proactor->stop != NULL)
        return;
    proactor->stop = stop;
    proactor->overdue.expired = on_overdue;
    proactor->now_ms = clock_ms();
    if (proactor_set_timer(proactor, &proactor->overdue, stop->grace_ms) < 0)
        proactor->over = true; /* who stops without memory stops at once */
    stop->begun(proactor, stop);
}

bool proactor_stopping(const struct proactor *proactor)
{
    return proactor->stop != NULL;
}

/* A signal handler is told its number and nothing else: this is the one place where the
 * library needs something global. */
static _Atomic(struct proactor *) to_be_stopped;
static atomic_bool stop_asked;

static void note_signal(int number)
{
    int saved = errno;
    struct proactor *proactor = atomic_load(&to_be_stopped);
    (void)number;
    atomic_store(&stop_asked, true); /* first the note, then the bell */
    if (proactor != NULL)
        proactor->engine->wake(proactor->state);
    errno = saved;
}

#ifndef _WIN32
static int catch_signals(void (*action)(int))
{
    static const int numbers[] = {SIGTERM, SIGINT};
    struct sigaction wanted = {.sa_handler = action, .sa_flags = SA_RESTART};
    sigset_t all;

    sigemptyset(&wanted.sa_mask);
    sigemptyset(&all);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        sigaddset(&all, numbers[i]);
        if (sigaction(numbers[i], &wanted, NULL) < 0)
            return -1;
    }
    return sigprocmask(SIG_UNBLOCK, &all, NULL); /* whoever started this program may have left them blocked */
}
#endif

int proactor_stop_at_signals(struct proactor *proactor, struct proactor_stop *stop)
{
    proactor->at_signals = stop;
    atomic_store(&stop_asked, false);
    atomic_store(&to_be_stopped, proactor);
    return catch_signals(note_signal);
}
/* [/stop] */

/* [run] */
/* One turn of the loop. Returns 0, or -1 with errno. */
static int turn(struct proactor *proactor)
{
    if (proactor->engine->wait(proactor->state, timeout_ms(proactor)) < 0)
        return -1;
    proactor->now_ms = clock_ms(); /* handlers set their timers by it */
    proactor->engine->dispatch(proactor->state);
    expire_timers(proactor);
    if (proactor->at_signals != NULL && atomic_exchange(&stop_asked, false))
        proactor_stop(proactor, proactor->at_signals);
    return 0;
}

int proactor_run(struct proactor *proactor)
{
    proactor->now_ms = clock_ms();
    while (proactor->stop == NULL || (proactor->pending > 0 && !proactor->over)) {
        if (turn(proactor) < 0)
            return -1;
    }
    return 0;
}
/* [/run] */

/* [create] */
/* Says that an engine does not work here, why, and which one does its work then. */
static void warn(const struct engine *engine, int error, const char *instead)
{
    char text[300];
    const char *why = engine->why(error);
    snprintf(text, sizeof text, "%s cannot be used: %s%s%s%s%s", engine->name, strerror(error),
             why != NULL ? ": " : "", why != NULL ? why : "", instead != NULL ? "; instead: " : "",
             instead != NULL ? instead : "");
    net_warn(text);
}

struct proactor *proactor_create(const struct proactor_options *options)
{
    struct proactor *proactor = calloc(1, sizeof *proactor);
    if (proactor == NULL)
        return NULL;
    proactor->now_ms = clock_ms();
    errno = ENOENT;
    for (size_t i = 0; engines[i] != NULL; i++) {
        if (options->engine != NULL && strcmp(engines[i]->name, options->engine) != 0)
            continue;
        proactor->engine = engines[i];
        proactor->state = engines[i]->open(proactor, options);
        if (proactor->state != NULL)
            return proactor;
        int error = errno;
        const struct engine *next = options->engine == NULL ? engines[i + 1] : NULL;
        warn(engines[i], error, next != NULL ? next->name : NULL);
        errno = error;
    }
    free(proactor);
    return NULL;
}

void proactor_destroy(struct proactor *proactor)
{
    if (proactor->at_signals != NULL) {
        atomic_store(&to_be_stopped, NULL);
        (void)catch_signals(SIG_IGN); /* one that comes now shall not end in the middle what is ending */
    }
    proactor->engine->close(proactor->state);
    timers_free(&proactor->timers);
    free(proactor);
}
/* [/create] */
