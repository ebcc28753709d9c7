/* Exercise 01-2, fork per client: what to start from.
 *
 * This is iterative.c, one client at a time, with the parts that you will need
 * named. Look for YOUR WORK: four places. */
#define _DEFAULT_SOURCE /* MSG_DONTWAIT, which every Unix has, but POSIX.1-2008 has not */
#define _NETBSD_SOURCE

#include "net.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Starts a process for the client on fd. Returns 0, or -1 with errno. */
static int start_child(int listener, int fd)
{
    (void)listener;
    serve(fd); /* YOUR WORK: fork(). Who closes which descriptor, and how does the child end? */
    return 0;
}

/* Ends all children, and waits for them. */
static void stop_children(void)
{
    /* YOUR WORK */
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "blocking, a process for each client");
    net_catch_signals();

    /* YOUR WORK: somebody must wait for children that have ended, while accept() waits */

    int listener = net_listen(&options);
    while (!net_stopping()) {
        int fd = net_accept(listener);
        if (fd < 0 && errno == EMFILE)
            net_pause();
        if (fd < 0)
            continue;
        if (start_child(listener, fd) < 0) {
            /* YOUR WORK: this client is turned away, and the others go on */
        }
    }
    close(listener);
    stop_children();
    return EXIT_SUCCESS;
}
