/* tour_process.c - the servers and straces that the tour starts; see tour.h.
 * Where the system has it, PR_SET_PDEATHSIG ends them with a tour that was
 * killed. */
#define _POSIX_C_SOURCE 200809L

#include "tour.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __has_include
#if __has_include(<sys/prctl.h>)
#include <sys/prctl.h> /* Linux: PR_SET_PDEATHSIG, PR_SET_PTRACER */
#endif
#endif

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t after_ms(int milliseconds)
{
    return now_ns() + (int64_t)milliseconds * 1000000;
}

/* Rounded up, so that waiting so long is enough. */
int left_ms(int64_t deadline)
{
    int64_t left = deadline - now_ns();
    return left > 0 ? (int)((left + 999999) / 1000000) : 0;
}

/* Process ids, 0 when there is none. The signal handler reads them; so they
 * change only while the signals that it handles are blocked. */
static volatile sig_atomic_t children[CHILDREN];

static sigset_t ending_signals;

/* Called by the signal handler too: uses async-signal-safe functions only. The
 * tracer goes first, since it could hold the server's end up. */
static void kill_children(void)
{
    for (int which = CHILDREN - 1; which >= 0; which--) {
        if (children[which] != 0) {
            kill(children[which], SIGKILL);
            waitpid(children[which], NULL, 0);
        }
    }
}

static void on_ending_signal(int signal_number)
{
    kill_children();
    signal(signal_number, SIG_DFL);
    raise(signal_number); /* whoever started the tour sees how it ended */
}

_Noreturn void die(const char *what)
{
    int error = errno;
    sigprocmask(SIG_BLOCK, &ending_signals, NULL);
    kill_children();
    fprintf(stderr, "tour: %s: %s\n", what, strerror(error));
    exit(EXIT_FAILURE);
}

void children_guard(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction old;

    sigemptyset(&ending_signals);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&ending_signals, signals[i]);
    const struct sigaction action = {.sa_handler = on_ending_signal, .sa_mask = ending_signals};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        if (sigaction(signals[i], NULL, &old) < 0)
            die("sigaction");
        if (old.sa_handler != SIG_IGN && sigaction(signals[i], &action, NULL) < 0) /* nohup stays nohup */
            die("sigaction");
    }
    /* A server that went away, or a closed standard output, is found where it is written to. */
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        die("signal");
}

/* In the child: becomes the program, which says what it has to say to out. */
static _Noreturn void become(const char *const arguments[], int out, int target, pid_t parent)
{
#ifdef PR_SET_PDEATHSIG
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(NOT_RUN);
#endif
    (void)parent;
#ifdef PR_SET_PTRACER
    /* Where the Yama module lets a process be traced by its ancestors only,
     * this allows strace, a sibling. Elsewhere it fails, and is not needed. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
#endif
    signal(SIGPIPE, SIG_DFL); /* what is ignored stays so; what is caught does not */
    sigprocmask(SIG_UNBLOCK, &ending_signals, NULL);
    if (dup2(out, target) >= 0)
        execvp(arguments[0], (char *const *)(uintptr_t)arguments);
    dprintf(STDERR_FILENO, "tour: %s: %s\n", arguments[0], strerror(errno));
    _exit(NOT_RUN);
}

int child_start(enum child which, const char *const arguments[], int target)
{
    int ends[2];
    pid_t parent = getpid();

    if (pipe(ends) < 0)
        die("pipe");
    for (int i = 0; i < 2; i++) {
        if (fcntl(ends[i], F_SETFD, FD_CLOEXEC) < 0)
            die("fcntl");
    }
    sigprocmask(SIG_BLOCK, &ending_signals, NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(arguments, ends[1], target, parent);
    if (pid < 0)
        die("fork");
    children[which] = pid;
    sigprocmask(SIG_UNBLOCK, &ending_signals, NULL);
    close(ends[1]);
    return ends[0];
}

pid_t child_pid(enum child which)
{
    return children[which];
}

bool child_ended(enum child which, int milliseconds, int *status)
{
    int64_t deadline = after_ms(milliseconds);

    for (;;) {
        sigprocmask(SIG_BLOCK, &ending_signals, NULL);
        bool ended = waitpid(children[which], status, WNOHANG) == children[which];
        if (ended)
            children[which] = 0;
        sigprocmask(SIG_UNBLOCK, &ending_signals, NULL);
        if (ended || left_ms(deadline) == 0)
            return ended;
        poll(NULL, 0, 1);
    }
}

bool child_end(enum child which, int signal_number, int milliseconds, int *status)
{
    kill(children[which], signal_number);
    if (child_ended(which, milliseconds, status))
        return true;
    kill(children[which], SIGKILL);
    while (!child_ended(which, milliseconds, status))
        continue;
    return false;
}

bool read_until(int fd, const char *word, char *text, size_t size, int milliseconds)
{
    int64_t deadline = after_ms(milliseconds);
    size_t length = strlen(text);

    while (left_ms(deadline) > 0 && length + 1 < size) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, left_ms(deadline)) <= 0)
            continue;
        ssize_t got = read(fd, text + length, size - length - 1);
        if (got <= 0)
            return got == 0 && word == NULL;
        length += (size_t)got;
        text[length] = '\0';
        if (word != NULL && strstr(text, word) != NULL)
            return true;
    }
    return false;
}
