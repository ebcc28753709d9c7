/* iterative.c - blocking I/O, one client at a time.
 *
 * Every call waits until it is done. The program reads like a conversation,
 * and while it talks to one client, all others wait.
 * Needs any POSIX system. Try: ./iterative --port 7007, then: nc 127.0.0.1 7007 */
#define _DEFAULT_SOURCE /* MSG_DONTWAIT, which every Unix has, but POSIX.1-2008 has not */
#define _NETBSD_SOURCE

#include "net.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* [send_all] */
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
/* [/send_all] */

/* [echo] */
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
/* [/echo] */

/* [serve] */
static void serve(int fd)
{
    if (echo(fd) < 0)
        net_log(fd, "lost", errno);
    else
        net_log(fd, "served", 0);
    close(fd);
}
/* [/serve] */

/* [main] */
int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "blocking, one client at a time");
    net_catch_signals();
    int listener = net_listen(&options);

    while (!net_stopping()) {
        int fd = net_accept(listener);
        if (fd >= 0)
            serve(fd);
        else if (errno == EMFILE)
            net_pause();
    }
    close(listener);
    return EXIT_SUCCESS;
}
/* [/main] */
