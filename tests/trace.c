/* trace.c - see trace.h. Needs ptrace(2) with PTRACE_GET_SYSCALL_INFO, of Linux 5.3. */
#define _GNU_SOURCE /* __WALL, process_vm_readv() */

#include "trace.h"

#include "tap.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

/* A stop at the begin or end of a system call shows as this signal (PTRACE_O_TRACESYSGOOD). */
enum { SYSCALL_STOP = SIGTRAP | 0x80 };

/* A server that sleeps in a call which trace_leave() has not seen the end of. */
static bool runs;

/* Waits until the server stands still, for a short time at most. Returns the signal
 * that it stopped for, or 0. Each stop sends us a SIGCHLD, for which we sleep,
 * since the server may need the processor. */
static int wait_shortly(const struct server *server, long ms)
{
    int status;
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);

    pid_t got = waitpid(server->pid, &status, __WALL | WNOHANG);
    if (got < 0)
        ck_abort_msg("waitpid: %s", strerror(errno));
    if (got > 0 && !WIFSTOPPED(status))
        ck_abort_msg("the server ended while its calls were recorded");
    if (got > 0)
        return WSTOPSIG(status);
    sigtimedwait(&child, NULL, &(const struct timespec){.tv_nsec = ms * 1000000});
    return 0;
}

/* Waits until the server stands still. Returns the signal that it stopped for,
 * or 0 when the deadline is over. */
static int wait_for_stop(const struct server *server)
{
    struct deadline deadline = deadline_start();
    int stopped_by = 0;
    while (stopped_by == 0 && !deadline_over(&deadline))
        stopped_by = wait_shortly(server, 100);
    return stopped_by;
}

/* Stops the server at the next possible moment. */
static void interrupt(const struct server *server)
{
    if (ptrace(PTRACE_INTERRUPT, server->pid, NULL, NULL) < 0)
        ck_abort_msg("PTRACE_INTERRUPT: %s", strerror(errno));
    if (wait_for_stop(server) == 0)
        ck_abort_msg("the server could not be stopped");
}

void trace_start(const struct server *server)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &child, NULL) < 0)
        ck_abort_msg("sigprocmask: %s", strerror(errno));
    if (ptrace(PTRACE_SEIZE, server->pid, NULL, PTRACE_O_TRACESYSGOOD) < 0)
        tap_skip("the server's system calls cannot be traced here: ptrace: %s", strerror(errno));
    interrupt(server);
}

/* Lets it run; a signal that stopped it is delivered. */
static void resume(const struct server *server, int stopped_by)
{
    int signal_number = stopped_by == SYSCALL_STOP || stopped_by == SIGTRAP ? 0 : stopped_by;
    if (ptrace(PTRACE_SYSCALL, server->pid, NULL, (long)signal_number) < 0)
        ck_abort_msg("PTRACE_SYSCALL: %s", strerror(errno));
}

/* Lets it run to its next stop. */
static int step(const struct server *server, int stopped_by)
{
    resume(server, stopped_by);
    return wait_for_stop(server);
}

static struct __ptrace_syscall_info call_info(const struct server *server)
{
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, server->pid, (void *)sizeof info, &info) < 0)
        tap_skip("the server's system calls cannot be read here: ptrace: %s", strerror(errno));
    return info;
}

static void note_entry(struct call *call, const struct __ptrace_syscall_info *info)
{
    call->number = (long)info->entry.nr;
    call->fd = (int)info->entry.args[0];
    call->second = info->entry.args[1];
    call->size = info->entry.args[2];
    for (size_t i = 0; i < sizeof call->arguments / sizeof *call->arguments; i++)
        call->arguments[i] = info->entry.args[i];
}

size_t trace_record(const struct server *server, struct call *calls, size_t count)
{
    size_t made = 0;
    bool entered = false; /* a call that had begun before is not recorded */
    int stopped_by = 0;

    while (made < count) {
        stopped_by = step(server, stopped_by);
        if (stopped_by == 0) {
            interrupt(server); /* it waits in a call: take it out of there */
            break;
        }
        if (stopped_by != SYSCALL_STOP)
            continue;
        struct __ptrace_syscall_info info = call_info(server);
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            entered = true;
            note_entry(&calls[made], &info);
        } else if (entered) {
            entered = false;
            calls[made++].result = (long)info.exit.rval;
        }
    }
    return made;
}

void trace_enter(const struct server *server, struct call *call)
{
    int stopped_by = 0;
    for (;;) {
        stopped_by = step(server, stopped_by);
        if (stopped_by == 0)
            ck_abort_msg("the server makes no system call, and uses the processor all the time");
        if (stopped_by != SYSCALL_STOP)
            continue;
        struct __ptrace_syscall_info info = call_info(server);
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            note_entry(call, &info);
            return;
        }
    }
}

bool trace_leave(const struct server *server, struct call *call)
{
    struct deadline deadline = deadline_start();
    if (!runs)
        resume(server, 0);
    runs = true;
    while (!deadline_over(&deadline)) {
        int stopped_by = wait_shortly(server, 2);
        if (stopped_by == SYSCALL_STOP) {
            call->result = (long)call_info(server).exit.rval;
            runs = false;
            return true;
        }
        if (stopped_by != 0)
            resume(server, stopped_by);
        else if (server_asleep(server))
            return false;
    }
    ck_abort_msg("the server neither sleeps nor comes back from system call %ld on descriptor %d",
                 call->number, call->fd);
}

void trace_read(const struct server *server, uint64_t address, void *data, size_t size)
{
    struct iovec local = {.iov_base = data, .iov_len = size};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = size};
    if (process_vm_readv(server->pid, &local, 1, &remote, 1, 0) != (ssize_t)size)
        tap_skip("the server's memory cannot be read here: %s", strerror(errno));
}

void trace_write(const struct server *server, uint64_t address, const void *data, size_t size)
{
    struct iovec local = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = size};
    if (process_vm_writev(server->pid, &local, 1, &remote, 1, 0) != (ssize_t)size)
        tap_skip("the server's memory cannot be written here: %s", strerror(errno));
}

void trace_end(const struct server *server)
{
    if (runs)
        interrupt(server);
    runs = false;
    if (ptrace(PTRACE_DETACH, server->pid, NULL, NULL) < 0)
        ck_abort_msg("PTRACE_DETACH: %s", strerror(errno));
}

bool is_of_others(long number)
{
    if (number == SYS_clock_gettime)
        return true;
    return sanitized() && (number == SYS_futex || number == SYS_madvise || number == SYS_mmap ||
                           number == SYS_munmap || number == SYS_sched_yield);
}
