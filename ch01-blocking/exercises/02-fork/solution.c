/* Exercise 01-2, fork per client: a solution.
 *
 * Every call waits, and only the process of that client waits. Nothing is
 * shared, so nothing need be locked, and a child that dies takes one client with
 * it. The price is a process for each one who is connected. */
#define _DEFAULT_SOURCE /* MSG_DONTWAIT, which every Unix has, but POSIX.1-2008 has not */
#define _NETBSD_SOURCE

#include "net.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* One client more is turned away, as when fork() fails. */
enum { MOST_CHILDREN = 1000 };

/* All children, so that a stop can end them. The handler of SIGCHLD changes it:
 * whoever else looks at it blocks that signal. */
static volatile pid_t children[MOST_CHILDREN];
static volatile int child_count;

/* Sends all size bytes of data; waits while the client is slow to read.
 * Returns 0, or -1 with errno. */
static int send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, 0);
        if (sent < 0 && errno != EINTR)
            return -1;
        if (sent > 0) { /* a short send is no error: the rest follows */
            data += sent;
            size -= (size_t)sent;
        }
        if (size > 0 && net_overdue()) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
    return 0;
}

/* Echoes until the client has sent its FIN, or is lost, or the server stops:
 * then what has already come is still echoed, and nothing more waited for.
 * Returns 0, or -1 with errno. */
static int echo(int fd)
{
    char buffer[16384];

    while (!net_overdue()) {
        ssize_t got = recv(fd, buffer, sizeof buffer, net_stopping() ? MSG_DONTWAIT : 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (got <= 0)
            return (int)got;
        if (send_all(fd, buffer, (size_t)got) < 0)
            return -1;
    }
    return 0;
}

static void serve(int fd)
{
    if (echo(fd) < 0)
        net_log(fd, "lost", errno);
    else
        net_log(fd, "served", 0);
    close(fd);
}

/* Waits for all children that have ended: several may have, for one signal. */
static void reap(int signal_number)
{
    (void)signal_number;
    int saved = errno; /* of whatever was interrupted */
    pid_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        int i = 0;
        while (i < child_count && children[i] != pid)
            i++;
        if (i < child_count)
            children[i] = children[--child_count];
    }
    errno = saved;
}

/* Blocks what would come between fork() and the notes about it: the end of the
 * child, and the stop. before: the mask to set back. */
static void block_signals(sigset_t *before)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGALRM);
    sigprocmask(SIG_BLOCK, &signals, before);
}

/* In the child: serves the client, and ends. */
static _Noreturn void be_child(int listener, int fd, const sigset_t *mask)
{
    close(listener);
    child_count = 0; /* its brothers are not its children */
    if (net_stopping())
        alarm(1); /* an alarm is not inherited, and the parent's counts the time of the stop */
    sigprocmask(SIG_SETMASK, mask, NULL);
    serve(fd);
    _exit(EXIT_SUCCESS); /* and not exit(): what stdio has to write, the parent writes */
}

/* Starts a process for the client on fd. Returns 0, or -1 with errno. */
static int start_child(int listener, int fd)
{
    sigset_t before;
    pid_t pid = -1;

    block_signals(&before);
    if (child_count == MOST_CHILDREN)
        errno = EAGAIN;
    else
        pid = fork();
    if (pid == 0)
        be_child(listener, fd, &before);
    int error = errno;
    if (pid > 0)
        children[child_count++] = pid;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid < 0 ? -1 : 0;
}

/* Ends all children, and waits for them. They stop as this program does: the
 * handlers, too, are inherited. */
static void stop_children(void)
{
    sigset_t before;

    block_signals(&before);
    for (int i = 0; i < child_count; i++)
        kill(children[i], SIGTERM);
    while (child_count > 0)
        sigsuspend(&before); /* until reap(), or another handler, has run */
    sigprocmask(SIG_SETMASK, &before, NULL);
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "blocking, a process for each client");
    net_catch_signals();

    struct sigaction action = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGCHLD, &action, NULL) < 0)
        net_die("sigaction");

    int listener = net_listen(&options);
    while (!net_stopping()) {
        int fd = net_accept(listener);
        if (fd < 0 && errno == EMFILE)
            net_pause();
        if (fd < 0)
            continue;
        if (start_child(listener, fd) < 0) /* this client is turned away, and the others go on */
            net_log(fd, "no process", errno);
        close(fd); /* the child has its own: only when both are closed does the client see the end */
    }
    close(listener);
    stop_children();
    return EXIT_SUCCESS;
}
