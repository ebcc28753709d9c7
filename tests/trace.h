/* trace.h - records the system calls of a server one by one, in order.
 *
 * What a server asks of the kernel, and what it is answered, is the same on a
 * busy machine as on an idle one. So a test that reads the record can say "once
 * a turn" or "never before", and needs no clock. Between two records the server
 * stands still, and a test can arrange what it will meet next.
 * Needs Linux 5.3, and the right to trace a child (ptrace(2)); else the test is
 * skipped. Of a server with several threads, only the first is recorded. */
#ifndef TRACE_H
#define TRACE_H

#include "harness.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct call {
    long number;           /* which: SYS_recvfrom and the like, from <sys/syscall.h> */
    int fd;                /* its first argument: for calls on a socket, the descriptor */
    uint64_t size;         /* its third argument: for these, how many bytes at most */
    uint64_t second;       /* its second argument: for fcntl(), the command */
    long result;           /* what it returned, or a negative errno: -EAGAIN */
    uint64_t arguments[6]; /* as the kernel takes them */
};

/* Stops the server where it is. */
void trace_start(const struct server *server);

/* Lets it run until it has made count calls, writes them to calls, and stops it again.
 * Returns how many were made: fewer than count only when the server waits in
 * a call, and the deadline is over. */
size_t trace_record(const struct server *server, struct call *calls, size_t count);

/* Lets it run to where its next call begins, and stops it there: all of call is
 * known but the result. */
void trace_enter(const struct server *server, struct call *call);

/* Lets it run to the end of that call, and stops it there. Returns false when
 * it sleeps in the call instead: then it is not stopped, and wakes when there
 * is something for it; call this again to be there. */
bool trace_leave(const struct server *server, struct call *call);

/* Copies size bytes from the server's memory at address, or to it. */
void trace_read(const struct server *server, uint64_t address, void *data, size_t size);
void trace_write(const struct server *server, uint64_t address, const void *data, size_t size);

/* Whether such a call is no business of the server's, but of the C library's or of a sanitizer's. */
bool is_of_others(long number);

/* Lets it go on, unwatched. */
void trace_end(const struct server *server);

#endif
