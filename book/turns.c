/* turns.c - the echo server of chapter 6, and what its parts say to each other, a line on stderr for each:
 *
 *   405.662  reactor  connection  handle_event(READ)
 *
 * milliseconds since the first, who calls, who is called, and with what; a call of the system has no
 * third. The sources are the chapter's, unchanged: the linker puts these functions in front of theirs
 * (--wrap), a demultiplexer of ours goes in front of the one that was asked for, and a handler in front
 * of each that is registered. scripts/turns.py draws a figure from it.
 *
 * Needs Linux, and a linker that knows --wrap. Try: ./turns, then nc 127.0.0.1 7007 */
#define _POSIX_C_SOURCE 200809L

#include "demux.h"
#include "reactor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DESCRIPTORS = 1024 };

typedef void handle_event(struct reactor *reactor, struct event_handler *handler, unsigned events);

static const struct demultiplexer *real_demux;
static handle_event *real_handlers[DESCRIPTORS];
static const char *names[DESCRIPTORS]; /* of the handlers, by descriptor */
static const char *running = "main";   /* who makes the calls now */

/* ---- A line ---- */

static void say(const char *called, const char *format, ...)
{
    static struct timespec begin;
    struct timespec now;
    va_list arguments;
    int error = errno;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (begin.tv_sec == 0)
        begin = now;
    double milliseconds =
        (double)(now.tv_sec - begin.tv_sec) * 1000 + (double)(now.tv_nsec - begin.tv_nsec) / 1e6;
    fprintf(stderr, "%.3f\t%s\t%s\t", milliseconds, running, called);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    errno = error;
}

static const char *in_words(unsigned events)
{
    static const char *const words[] = {"none", "READ", "WRITE", "READ, WRITE"};
    return events >= REACTOR_CLOSE ? "CLOSE" : events >= REACTOR_STOP ? "STOP" : words[events];
}

/* Returns result. */
static long said(const char *call, long result)
{
    if (result < 0)
        say("", "%s = %s", call, errno == EAGAIN ? "EAGAIN" : errno == EINTR ? "EINTR" : strerror(errno));
    else
        say("", "%s = %ld", call, result);
    return result;
}

/* Whoever runs from now on; returns who did. */
static const char *enter(const char *who)
{
    const char *before = running;
    running = who;
    return before;
}

/* ---- A demultiplexer in front of another ---- */

static void *open_demux(void)
{
    return real_demux->open();
}

static void close_demux(void *state)
{
    real_demux->close(state);
}

static int change(void *state, int fd, uint32_t generation, unsigned before, unsigned after)
{
    char words[64];
    snprintf(words, sizeof words, "change(%d: %s to ", fd, in_words(before));
    say("demultiplexer", "%s%s)", words, in_words(after));

    const char *caller = enter("demultiplexer");
    int result = real_demux->change(state, fd, generation, before, after);
    enter(caller);
    return result;
}

static int wait_demux(void *state, struct ready *ready, int room, int timeout_ms)
{
    say("demultiplexer", "wait()");
    const char *caller = enter("demultiplexer");
    int count = real_demux->wait(state, ready, room, timeout_ms);
    for (int i = 0; i < count; i++)
        say(caller, "ready: %d, %s", ready[i].fd, in_words(ready[i].events));
    enter(caller);
    return count;
}

const struct demultiplexer *__real_demultiplexer_find(const char *name);
const struct demultiplexer *__wrap_demultiplexer_find(const char *name)
{
    static struct demultiplexer ours;

    real_demux = __real_demultiplexer_find(name);
    ours = (struct demultiplexer){"ours", open_demux, close_demux, change, wait_demux};
    return real_demux == NULL ? NULL : &ours;
}

/* ---- A handler in front of each ---- */

static void traced(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    handle_event *real = real_handlers[handler->fd];

    enter("reactor");
    say(names[handler->fd], "handle_event(%s)", in_words(events));
    enter(names[handler->fd]);
    real(reactor, handler, events);
    say("reactor", "return");
    enter("reactor");
}

int __real_reactor_register(struct reactor *reactor, struct event_handler *handler, unsigned events);
int __wrap_reactor_register(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    if (handler->fd >= DESCRIPTORS) {
        errno = ENOMEM;
        return -1;
    }
    real_handlers[handler->fd] = handler->handle_event;
    names[handler->fd] = handler->name;
    handler->handle_event = traced;

    say("reactor", "reactor_register(%d, %s)", handler->fd, in_words(events));
    const char *caller = enter("reactor");
    int result = __real_reactor_register(reactor, handler, events);
    enter(caller);
    return result;
}

void __real_reactor_want(struct reactor *reactor, struct event_handler *handler, unsigned events);
void __wrap_reactor_want(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    say("reactor", "reactor_want(%s)", in_words(events));
    __real_reactor_want(reactor, handler, events);
}

void __real_reactor_remove(struct reactor *reactor, struct event_handler *handler);
void __wrap_reactor_remove(struct reactor *reactor, struct event_handler *handler)
{
    say("reactor", "reactor_remove()");
    const char *caller = enter("reactor");
    __real_reactor_remove(reactor, handler);
    enter(caller);
}

int __real_reactor_run(struct reactor *reactor);
int __wrap_reactor_run(struct reactor *reactor)
{
    enter("reactor");
    return __real_reactor_run(reactor);
}

/* ---- The calls of the system ---- */

int __real_accept(int fd, struct sockaddr *restrict address, socklen_t *restrict size);
int __wrap_accept(int fd, struct sockaddr *restrict address, socklen_t *restrict size)
{
    return (int)said("accept", __real_accept(fd, address, size));
}

ssize_t __real_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags)
{
    return said("recv", __real_recv(fd, data, size, flags));
}

ssize_t __real_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags)
{
    return said("send", __real_send(fd, data, size, flags));
}

int __real_close(int fd);
int __wrap_close(int fd)
{
    return (int)said("close", __real_close(fd));
}

int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    static const char *const calls[] = {"epoll_ctl(ADD)", "epoll_ctl(DEL)", "epoll_ctl(MOD)"};
    return (int)said(calls[operation - EPOLL_CTL_ADD], __real_epoll_ctl(epoll, operation, fd, event));
}

int __real_epoll_wait(int epoll, struct epoll_event *events, int room, int timeout_ms);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int room, int timeout_ms)
{
    return (int)said("epoll_wait", __real_epoll_wait(epoll, events, room, timeout_ms));
}
