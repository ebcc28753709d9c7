/* inject.c - the fault injector; inject.h says how it is told what to do.
 *
 * A library that is loaded first (LD_PRELOAD) is asked first for every function
 * that the program calls. The ones below count the call, fail when a rule says
 * so, and else hand it on to the next library that has it: the C library, or
 * the run-time of a sanitizer. Nothing is counted before the constructor has
 * run. Needs dlsym(RTLD_NEXT): Linux and the BSDs.
 *
 * It defines the functions of POSIX exactly as POSIX declares them; so this file
 * does without _GNU_SOURCE, with which glibc declares some of them differently. */
#define _POSIX_C_SOURCE 200809L

#include "inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>
#define EPOLL_FUNCTIONS(X) X(epoll_create1) X(epoll_ctl) X(epoll_wait) X(epoll_pwait)
#else
#define EPOLL_FUNCTIONS(X)
#endif

#ifndef RTLD_NEXT
#define RTLD_NEXT ((void *)-1L) /* its value wherever it exists, see above */
#endif

#define FUNCTIONS(X)  \
    X(accept)         \
    X(accept4)        \
    X(recv)           \
    X(recvfrom)       \
    X(send)           \
    X(sendto)         \
    X(read)           \
    X(write)          \
    X(close)          \
    X(fcntl)          \
    X(socket)         \
    X(bind)           \
    X(listen)         \
    X(getsockname)    \
    X(setsockopt)     \
    X(select)         \
    X(pselect)        \
    X(poll)           \
    X(ppoll)          \
    X(nanosleep)      \
    X(sigaction)      \
    X(fork)           \
    X(pthread_create) \
    X(malloc)         \
    X(calloc)         \
    X(realloc)        \
    X(free)           \
    EPOLL_FUNCTIONS(X)

#define AS_ENUM(name) F_##name,
#define AS_TEXT(name) #name,
enum function { FUNCTIONS(AS_ENUM) FUNCTION_COUNT };
static const char *const names[] = {FUNCTIONS(AS_TEXT)};
_Static_assert((int)FUNCTION_COUNT < (int)INJECT_SLOTS, "the table has room, and an end mark");

/* ---- the next one to ask ---- */

static void *real[FUNCTION_COUNT];
static bool resolving;

/* dlsym() may ask for memory before it has told us where to get it. Such early
 * blocks come from here, and stay. */
static _Alignas(max_align_t) char early[16384];
static size_t early_used;

static void *early_block(size_t size)
{
    size_t rounded = (size + _Alignof(max_align_t) - 1) / _Alignof(max_align_t) * _Alignof(max_align_t);
    if (size > sizeof early || rounded > sizeof early - early_used)
        return NULL;
    void *block = early + early_used;
    early_used += rounded;
    return block;
}

static bool is_early(const void *block)
{
    return (uintptr_t)block - (uintptr_t)early < sizeof early;
}

/* Returns where function is; NULL while that is still being found out. */
static void *next(enum function function)
{
    if (real[function] == NULL && !resolving) {
        resolving = true; /* by one thread only: there is no other before the constructor */
        for (size_t i = 0; i < FUNCTION_COUNT; i++)
            real[i] = dlsym(RTLD_NEXT, names[i]);
        resolving = false;
    }
    return real[function];
}

/* ---- the rules ---- */

/* What a rule does to a call: nothing, less than was asked for, a signal that
 * is handled just before it, or a descriptor that has been closed; all else is
 * an errno. */
enum { PASS = 0, SHORT = -1, STOP = -2, CLOSED = -3 };

struct rule {
    enum function function;
    bool ready_only;
    unsigned long long first;
    unsigned long long last;
    int what;
};

static struct rule rules[64];
static size_t rule_count;

/* For the rules with a +: whether there is one, and the calls that count. */
static bool wants_ready[FUNCTION_COUNT];
static atomic_ullong ready_calls[FUNCTION_COUNT];

static struct inject_slot own_table[INJECT_SLOTS]; /* when nobody wants to see the counters */
static struct inject_slot *table;                  /* NULL until the constructor has run */

#define AS_ERROR(name) {#name, name},
static const struct {
    const char *name;
    int number;
} errors[] = {AS_ERROR(EACCES) AS_ERROR(EADDRINUSE) AS_ERROR(EADDRNOTAVAIL) AS_ERROR(EAFNOSUPPORT)
                  AS_ERROR(EAGAIN) AS_ERROR(EBADF) AS_ERROR(ECONNABORTED) AS_ERROR(ECONNREFUSED)
                      AS_ERROR(ECONNRESET) AS_ERROR(EEXIST) AS_ERROR(EFAULT) AS_ERROR(EHOSTUNREACH)
                          AS_ERROR(EINTR) AS_ERROR(EINVAL) AS_ERROR(EIO) AS_ERROR(EMFILE) AS_ERROR(ENETDOWN)
                              AS_ERROR(ENETUNREACH) AS_ERROR(ENFILE) AS_ERROR(ENOBUFS) AS_ERROR(ENOENT)
                                  AS_ERROR(ENOMEM) AS_ERROR(ENOPROTOOPT) AS_ERROR(ENOSPC) AS_ERROR(ENOTCONN)
                                      AS_ERROR(ENOTSOCK) AS_ERROR(EOPNOTSUPP) AS_ERROR(EPERM) AS_ERROR(EPIPE)
                                          AS_ERROR(EPROTO) AS_ERROR(ETIMEDOUT) AS_ERROR(EWOULDBLOCK)};

static bool moves_bytes(enum function function)
{
    return function == F_recv || function == F_recvfrom || function == F_read || function == F_send ||
           function == F_sendto || function == F_write;
}

/* Whether a call would end with EAGAIN can be told for these. */
static bool can_wait(enum function function)
{
    return moves_bytes(function) || function == F_accept || function == F_accept4;
}

/* Reads K, K-L, K- or * from text up to its end, and the + before it. */
static bool parse_which(struct rule *rule, const char *text)
{
    char *end;
    rule->first = 1;
    rule->last = UINT64_MAX;
    rule->ready_only = *text == '+';
    if (rule->ready_only) {
        text++;
        wants_ready[rule->function] = true;
        if (!can_wait(rule->function))
            return false;
    }
    if (strcmp(text, "*") == 0)
        return true;
    rule->first = strtoull(text, &end, 10);
    if (end == text)
        return false;
    if (*end == '\0')
        rule->last = rule->first;
    else if (strcmp(end, "-") == 0)
        return true;
    else if (*end == '-')
        rule->last = strtoull(end + 1, &end, 10);
    return *end == '\0';
}

/* Reads FUNCTION:WHICH=WHAT; writes into text. */
static bool parse_rule(struct rule *rule, char *text)
{
    char *which = strchr(text, ':');
    char *what = strchr(text, '=');
    if (which == NULL || what == NULL || what < which)
        return false;
    *which++ = '\0';
    *what++ = '\0';

    rule->function = 0;
    while (rule->function < FUNCTION_COUNT && strcmp(names[rule->function], text) != 0)
        rule->function++;
    if (rule->function == FUNCTION_COUNT || rule->function == F_free || !parse_which(rule, which))
        return false;
    if (strcmp(what, "short") == 0) {
        rule->what = SHORT;
        return moves_bytes(rule->function);
    }
    if (strcmp(what, "closed") == 0) {
        rule->what = CLOSED;
        return rule->function == F_poll;
    }
    if (strcmp(what, "SIGTERM") == 0) {
        rule->what = STOP;
        return true;
    }
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (strcmp(errors[i].name, what) == 0) {
            rule->what = errors[i].number;
            return true;
        }
    }
    return false;
}

static void parse_rules(const char *text)
{
    while (*text != '\0') {
        char one[128];
        size_t size = strcspn(text, " ");
        if (size > 0) {
            snprintf(one, sizeof one, "%.*s", (int)size, text);
            if (rule_count == sizeof rules / sizeof *rules || !parse_rule(&rules[rule_count], one)) {
                dprintf(STDERR_FILENO, "inject: not a rule: %.*s\n", (int)size, text);
                _exit(2);
            }
            rule_count++;
        }
        text += size + (text[size] == ' ');
    }
}

static struct inject_slot *open_table(void)
{
    const char *path = getenv("INJECT_COUNTS");
    if (path == NULL)
        return own_table;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *shared =
        fd < 0 ? MAP_FAILED : mmap(NULL, sizeof own_table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) {
        dprintf(STDERR_FILENO, "inject: %s: %s\n", path, strerror(errno));
        _exit(2);
    }
    close(fd);
    return shared;
}

__attribute__((constructor)) static void start(void)
{
    const char *text = getenv("INJECT");
    if (text != NULL)
        parse_rules(text);
    next(F_close); /* now, and not in a thread or in a signal handler */
    struct inject_slot *opened = open_table();
    for (size_t i = 0; i < FUNCTION_COUNT; i++)
        snprintf(opened[i].function, sizeof opened[i].function, "%s", names[i]);
    table = opened;
}

/* ---- a call ---- */

/* Says whether a call on fd would end with EAGAIN. */
static bool would_wait(enum function function, int fd, int flags)
{
    bool sends = function == F_send || function == F_sendto || function == F_write;
    struct pollfd ready = {.fd = fd, .events = sends ? POLLOUT : POLLIN};
    int mode = ((int (*)(int, int, ...))next(F_fcntl))(fd, F_GETFL, NULL);
    bool waits = (mode & O_NONBLOCK) == 0 && (flags & MSG_DONTWAIT) == 0;
    return !waits && ((int (*)(struct pollfd *, nfds_t, int))next(F_poll))(&ready, 1, 0) == 0;
}

/* Counts a call on fd, and says what is to become of it. For an error, errno is set. */
static int begin_on(enum function function, int fd, int flags)
{
    if (table == NULL)
        return PASS;
    unsigned long long call = atomic_fetch_add(&table[function].calls, 1) + 1;
    unsigned long long ready_call = 0;
    if (wants_ready[function] && !would_wait(function, fd, flags))
        ready_call = atomic_fetch_add(&ready_calls[function], 1) + 1;

    for (size_t i = 0; i < rule_count; i++) {
        const struct rule *rule = &rules[i];
        unsigned long long number = rule->ready_only ? ready_call : call;
        if (rule->function != function || number < rule->first || number > rule->last)
            continue;
        atomic_fetch_add(&table[function].faults, 1);
        if (rule->what == STOP) {
            raise(SIGTERM); /* its handler has run when this returns */
            return PASS;
        }
        if (rule->what > PASS) {
            atomic_fetch_add(&table[function].failures, 1);
            errno = rule->what;
        }
        return rule->what;
    }
    return PASS;
}

static int begin(enum function function)
{
    return begin_on(function, -1, 0);
}

static void note_failure(enum function function, bool failed)
{
    if (failed && table != NULL)
        atomic_fetch_add(&table[function].failures, 1);
}

/* A function that returns -1 with errno when it fails. */
#define INTERPOSE(name, parameters, arguments)                     \
    int name parameters                                            \
    {                                                              \
        if (begin(F_##name) != PASS)                               \
            return -1;                                             \
        int result = ((int(*) parameters)next(F_##name))arguments; \
        note_failure(F_##name, result < 0);                        \
        return result;                                             \
    }

INTERPOSE(socket, (int domain, int type, int protocol), (domain, type, protocol))
INTERPOSE(bind, (int fd, const struct sockaddr *addr, socklen_t size), (fd, addr, size))
INTERPOSE(listen, (int fd, int backlog), (fd, backlog))
INTERPOSE(getsockname, (int fd, struct sockaddr *addr, socklen_t *size), (fd, addr, size))
INTERPOSE(setsockopt, (int fd, int level, int option, const void *value, socklen_t size),
          (fd, level, option, value, size))
INTERPOSE(select, (int count, fd_set *in, fd_set *out, fd_set *urgent, struct timeval *limit),
          (count, in, out, urgent, limit))
INTERPOSE(pselect,
          (int count, fd_set *in, fd_set *out, fd_set *urgent, const struct timespec *limit,
           const sigset_t *mask),
          (count, in, out, urgent, limit, mask))
INTERPOSE(ppoll, (struct pollfd * fds, nfds_t count, const struct timespec *limit, const sigset_t *mask),
          (fds, count, limit, mask))
INTERPOSE(nanosleep, (const struct timespec *wanted, struct timespec *left), (wanted, left))
INTERPOSE(sigaction, (int number, const struct sigaction *action, struct sigaction *before),
          (number, action, before))
INTERPOSE(fork, (void), ())
#ifdef __linux__
INTERPOSE(epoll_create1, (int flags), (flags))
INTERPOSE(epoll_ctl, (int epoll, int what, int fd, struct epoll_event *event), (epoll, what, fd, event))
INTERPOSE(epoll_wait, (int epoll, struct epoll_event *events, int count, int limit),
          (epoll, events, count, limit))
INTERPOSE(epoll_pwait, (int epoll, struct epoll_event *events, int count, int limit, const sigset_t *mask),
          (epoll, events, count, limit, mask))
#endif

/* Finds the descriptor of its last entry closed, when a rule says so: POLLNVAL. */
int poll(struct pollfd *fds, nfds_t count, int limit)
{
    int what = begin(F_poll);
    if (what > PASS)
        return -1;
    if (what == CLOSED && count > 0)
        ((int (*)(int))next(F_close))(fds[count - 1].fd);
    int ready = ((int (*)(struct pollfd *, nfds_t, int))next(F_poll))(fds, count, limit);
    note_failure(F_poll, ready < 0);
    return ready;
}

int accept(int fd, struct sockaddr *addr, socklen_t *size)
{
    if (begin_on(F_accept, fd, 0) != PASS)
        return -1;
    int accepted = ((int (*)(int, struct sockaddr *, socklen_t *))next(F_accept))(fd, addr, size);
    note_failure(F_accept, accepted < 0);
    return accepted;
}

int accept4(int fd, struct sockaddr *addr, socklen_t *size, int flags)
{
    if (begin_on(F_accept4, fd, 0) != PASS)
        return -1;
    int accepted =
        ((int (*)(int, struct sockaddr *, socklen_t *, int))next(F_accept4))(fd, addr, size, flags);
    note_failure(F_accept4, accepted < 0);
    return accepted;
}

/* One byte less than size, but at least one. */
static size_t less(size_t size)
{
    return size > 1 ? size - 1 : size;
}

/* What to ask for so that a receive gets one byte less than it could. Waits
 * as the receive itself would have done. */
static size_t less_than_waits(int fd, void *data, size_t size, int flags)
{
    ssize_t waiting = ((ssize_t(*)(int, void *, size_t, int))next(F_recv))(fd, data, size, flags | MSG_PEEK);
    return less(waiting > 0 ? (size_t)waiting : size);
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    int what = begin_on(F_recv, fd, flags);
    if (what > PASS)
        return -1;
    if (what == SHORT)
        size = less_than_waits(fd, data, size, flags);
    ssize_t got = ((ssize_t(*)(int, void *, size_t, int))next(F_recv))(fd, data, size, flags);
    note_failure(F_recv, got < 0);
    return got;
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *from, socklen_t *from_size)
{
    int what = begin_on(F_recvfrom, fd, flags);
    if (what > PASS)
        return -1;
    if (what == SHORT)
        size = less_than_waits(fd, data, size, flags);
    ssize_t got = ((ssize_t(*)(int, void *, size_t, int, struct sockaddr *, socklen_t *))next(F_recvfrom))(
        fd, data, size, flags, from, from_size);
    note_failure(F_recvfrom, got < 0);
    return got;
}

ssize_t read(int fd, void *data, size_t size)
{
    int what = begin_on(F_read, fd, 0);
    if (what > PASS)
        return -1;
    if (what == SHORT)
        size = less_than_waits(fd, data, size, 0);
    ssize_t got = ((ssize_t(*)(int, void *, size_t))next(F_read))(fd, data, size);
    note_failure(F_read, got < 0);
    return got;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    int what = begin_on(F_send, fd, flags);
    if (what > PASS)
        return -1;
    if (what == SHORT)
        size = less(size);
    ssize_t sent = ((ssize_t(*)(int, const void *, size_t, int))next(F_send))(fd, data, size, flags);
    note_failure(F_send, sent < 0);
    return sent;
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t to_size)
{
    int what = begin_on(F_sendto, fd, flags);
    if (what > PASS)
        return -1;
    if (what == SHORT)
        size = less(size);
    ssize_t sent = ((ssize_t(*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))next(
        F_sendto))(fd, data, size, flags, to, to_size);
    note_failure(F_sendto, sent < 0);
    return sent;
}

ssize_t write(int fd, const void *data, size_t size)
{
    int what = begin_on(F_write, fd, 0);
    if (what > PASS)
        return -1;
    if (what == SHORT)
        size = less(size);
    ssize_t sent = ((ssize_t(*)(int, const void *, size_t))next(F_write))(fd, data, size);
    note_failure(F_write, sent < 0);
    return sent;
}

/* The descriptor is gone in any case, as close(2) says for Linux. */
int close(int fd)
{
    int what = begin(F_close);
    int result = ((int (*)(int))next(F_close))(fd);
    if (what != PASS) {
        errno = what;
        return -1;
    }
    note_failure(F_close, result < 0);
    return result;
}

int fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *); /* an int or a pointer, or not there: as the C library does it */
    va_end(list);
    if (begin(F_fcntl) != PASS)
        return -1;
    int result = ((int (*)(int, int, ...))next(F_fcntl))(fd, command, argument);
    note_failure(F_fcntl, result < 0);
    return result;
}

/* Its other name in programs built with _FILE_OFFSET_BITS=64. */
int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

/* Returns its error, and leaves errno alone. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    int before = errno;
    int what = begin(F_pthread_create);
    if (what != PASS) {
        errno = before;
        return what;
    }
    int result = ((int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))next(
        F_pthread_create))(thread, attributes, run, argument);
    note_failure(F_pthread_create, result != 0);
    return result;
}

/* ---- memory ---- */

void *malloc(size_t size)
{
    if (begin(F_malloc) != PASS)
        return NULL;
    void *(*allocate)(size_t) = (void *(*)(size_t))next(F_malloc);
    void *block = allocate != NULL ? allocate(size) : early_block(size);
    note_failure(F_malloc, block == NULL);
    return block;
}

void *calloc(size_t count, size_t size)
{
    if (begin(F_calloc) != PASS)
        return NULL;
    void *(*allocate)(size_t, size_t) = (void *(*)(size_t, size_t))next(F_calloc);
    void *block = allocate != NULL ? allocate(count, size) : early_block(count * size);
    note_failure(F_calloc, block == NULL);
    return block;
}

void *realloc(void *block, size_t size)
{
    if (begin(F_realloc) != PASS)
        return NULL;
    void *(*allocate)(void *, size_t) = (void *(*)(void *, size_t))next(F_realloc);
    if (is_early(block) || allocate == NULL) {
        void *copy = allocate != NULL ? allocate(NULL, size) : early_block(size);
        size_t room = is_early(block) ? sizeof early - (size_t)((char *)block - early) : 0;
        if (copy != NULL && room > 0)
            memcpy(copy, block, size < room ? size : room);
        return copy;
    }
    void *larger = allocate(block, size);
    note_failure(F_realloc, larger == NULL && size > 0);
    return larger;
}

void free(void *block)
{
    if (block != NULL) /* so that allocations and frees can be compared */
        begin(F_free);
    void (*release)(void *) = (void (*)(void *))next(F_free);
    if (release != NULL && !is_early(block))
        release(block);
}
