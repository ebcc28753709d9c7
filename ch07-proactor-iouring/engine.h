/* engine.h - who does the operations: the engines behind proactor.h.
 *
 *   name      does an operation by                                where
 *   io_uring  queueing it for the kernel, which reports the end   Linux 6.0, unless it is switched off
 *   emulated  poll(2), then doing itself what can be done         POSIX
 *   iocp      asking the kernel, which reports the end            Windows Vista
 *
 * Each is a file of its own, and the only one that knows its system calls. */
#ifndef ENGINE_H
#define ENGINE_H

#include "proactor.h"

/* [engine] */
enum operation_kind { ACCEPT, RECEIVE, SEND, SEND_FILE, CLOSE };

struct engine {
    const char *name;

    /* Returns a new state, or NULL with errno. */
    void *(*open)(struct proactor *proactor, const struct proactor_options *options);

    /* Takes everything back from the kernel, and frees the state. */
    void (*close)(void *state);

    /* Begins an operation, of whatever kind. Calls no handler. */
    void (*begin)(void *state, struct proactor_operation *operation);

    /* Asks for the end of a pending operation. Calls no handler. */
    void (*cancel)(void *state, struct proactor_operation *operation);

    void (*discard)(void *state, proactor_socket socket);
    void (*give_back)(void *state, struct proactor_piece piece);

    /* Waits until something has completed, or until wake(), timeout_ms milliseconds at most; -1: for
     * ever. Returns 0, or -1 with errno. */
    int (*wait)(void *state, int timeout_ms);

    /* Calls the handlers of what has completed. */
    void (*dispatch)(void *state);

    /* Ends the wait that goes on, or else the next one. Any thread and any signal handler may call it. */
    void (*wake)(void *state);

    /* What an errno of open() means here, and what to do about it; NULL if there is nothing to say. */
    const char *(*why)(int error);
};

/* All that this system has, the best first; the last is NULL. */
extern const struct engine *const engines[];
/* [/engine] */

/* [completions] */
/* For engines: notes that an operation has ended, with this error or 0; its handler comes next. */
void operation_ended(struct proactor *proactor, struct proactor_operation *operation, int error);

/* Calls the handler; with an operation that is not an accept, and not a receive. */
void operation_completed(struct proactor *proactor, struct proactor_operation *operation);

/* The whole operation, of which this is the beginning. */
static inline struct proactor_accept *as_accept(struct proactor_operation *operation)
{
    return (struct proactor_accept *)operation;
}

static inline struct proactor_receive *as_receive(struct proactor_operation *operation)
{
    return (struct proactor_receive *)operation;
}

static inline struct proactor_send *as_send(struct proactor_operation *operation)
{
    return (struct proactor_send *)operation;
}
/* [/completions] */

#ifdef _WIN32
/* [windows] */
/* What Windows has in the place of signals, of CLOCK_MONOTONIC and of errno; the code is in net_windows.c. */

/* Has action called, in another thread, when the program shall stop. SIG_IGN: no more, not even a call that
 * has begun, and the program is not ended either. Returns 0, or -1 with errno. Source: SetConsoleCtrlHandler,
 * Microsoft. */
int catch_signals(void (*action)(int));

/* Milliseconds. Source: GetTickCount64, Microsoft. */
int64_t clock_ms(void);

/* The errno for an error of Windows' or of Winsock's; EIO if there is no better one. */
int windows_errno(int error);
/* [/windows] */
#endif

/* [queue] */
/* Operations in the order in which they came, linked through themselves. */
struct queue {
    struct proactor_operation *first;
    struct proactor_operation **end; /* where the next one is linked in */
};

static inline void queue_add(struct queue *queue, struct proactor_operation *operation)
{
    if (queue->first == NULL)
        queue->end = &queue->first;
    operation->next = NULL;
    *queue->end = operation;
    queue->end = &operation->next;
}

/* Takes out the first one. Returns it, or NULL if there is none. */
static inline struct proactor_operation *queue_take(struct queue *queue)
{
    struct proactor_operation *first = queue->first;
    if (first != NULL)
        queue->first = first->next;
    return first;
}
/* [/queue] */

/* [borders] */
/* With the address sanitizer, whoever touches memory of a buffer that is not lent is caught. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define BORDERS
#endif
#elif defined __SANITIZE_ADDRESS__
#define BORDERS
#endif

#ifdef BORDERS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, size) ((void)(data), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(data, size) ((void)(data), (void)(size))
#endif
/* [/borders] */

#endif
