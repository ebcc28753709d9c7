/* trace.c - see trace.h. Needs ptrace(2) with PTRACE_GET_SYSCALL_INFO, of Linux 5.3. */
#define _GNU_SOURCE /* __WALL */

#include "trace.h"

#include "tap.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

/* A stop at the begin or end of a system call shows as this signal (PTRACE_O_TRACESYSGOOD). */
enum { SYSCALL_STOP = SIGTRAP | 0x80 };

/* Waits until the server stands still. Returns the signal that it stopped for,
 * or 0 when the deadline is over. Each stop sends us a SIGCHLD, for which we
 * sleep, since the server may need the processor. */
static int wait_for_stop(const struct server *server)
{
    struct deadline deadline = deadline_start();
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);

    while (!deadline_over(&deadline)) {
        int status;
        pid_t got = waitpid(server->pid, &status, __WALL | WNOHANG);
        if (got < 0)
            ck_abort_msg("waitpid: %s", strerror(errno));
        if (got > 0 && !WIFSTOPPED(status))
            ck_abort_msg("the server ended while its calls were recorded");
        if (got > 0)
            return WSTOPSIG(status);
        sigtimedwait(&child, NULL, &(const struct timespec){.tv_nsec = 100000000});
    }
    return 0;
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

/* Lets it run to its next stop; a signal that stopped it is delivered. */
static int step(const struct server *server, int stopped_by)
{
    int signal_number = stopped_by == SYSCALL_STOP || stopped_by == SIGTRAP ? 0 : stopped_by;
    if (ptrace(PTRACE_SYSCALL, server->pid, NULL, (long)signal_number) < 0)
        ck_abort_msg("PTRACE_SYSCALL: %s", strerror(errno));
    return wait_for_stop(server);
}

size_t trace_record(const struct server *server, struct call *calls, size_t count)
{
    size_t made = 0;
    bool entered = false; /* a call that had begun before is not recorded */
    int stopped_by = 0;

    while (made < count) {
        struct __ptrace_syscall_info info;
        stopped_by = step(server, stopped_by);
        if (stopped_by == 0) {
            interrupt(server); /* it waits in a call: take it out of there */
            break;
        }
        if (stopped_by != SYSCALL_STOP)
            continue;
        if (ptrace(PTRACE_GET_SYSCALL_INFO, server->pid, (void *)sizeof info, &info) < 0)
            tap_skip("the server's system calls cannot be read here: ptrace: %s", strerror(errno));
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            entered = true;
            calls[made].number = (long)info.entry.nr;
            calls[made].fd = (int)info.entry.args[0];
            calls[made].second = info.entry.args[1];
            calls[made].size = info.entry.args[2];
        } else if (entered) {
            entered = false;
            calls[made++].result = (long)info.exit.rval;
        }
    }
    return made;
}

void trace_end(const struct server *server)
{
    if (ptrace(PTRACE_DETACH, server->pid, NULL, NULL) < 0)
        ck_abort_msg("PTRACE_DETACH: %s", strerror(errno));
}
