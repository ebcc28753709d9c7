/* progress.c - finds a busy wait; progress.h says when. Source: tcp(7), linux/tcp.h.
 * Sees something on Linux 4.1 and newer. */
#include "progress.h"

#ifdef REACTOR_DEBUG

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#ifdef __linux__
#include <linux/sockios.h>
#include <linux/tcp.h> /* its tcp_info has more than that of netinet/tcp.h */
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#endif

/* [look] */
static const struct progress UNKNOWN = {UINT64_MAX, UINT64_MAX, UINT64_MAX};

struct progress progress_look(int fd)
{
#ifdef __linux__
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    int unread = 0;
    int unacknowledged = 0;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
        if (info.tcpi_state == 10) /* TCP_LISTEN: then unacked counts who waits to be accepted */
            return (struct progress){0, 0, info.tcpi_unacked};
        if (ioctl(fd, SIOCINQ, &unread) == 0 && ioctl(fd, SIOCOUTQ, &unacknowledged) == 0)
            return (struct progress){info.tcpi_bytes_received - (unsigned)unread,
                                     info.tcpi_bytes_acked + (unsigned)unacknowledged, (uint64_t)unread};
    }
#else
    (void)fd;
#endif
    return UNKNOWN;
}
/* [/look] */

/* [check] */
void progress_check(uint8_t *futile, const struct event_handler *handler, unsigned events,
                    const struct progress *before)
{
    struct progress after = progress_look(handler->fd);
    bool same = memcmp(before, &after, sizeof after) == 0;

    if (!same || memcmp(before, &UNKNOWN, sizeof UNKNOWN) == 0) {
        *futile = 0;
        return;
    }
    if (++*futile == FUTILE_MOST)
        fprintf(stderr, "reactor: busy wait: %s on descriptor %d was woken %d times to %s, and did nothing\n",
                handler->name, handler->fd, FUTILE_MOST,
                events == REACTOR_READ    ? "read"
                : events == REACTOR_WRITE ? "write"
                                          : "read and write");
    if (*futile > FUTILE_MOST)
        *futile = FUTILE_MOST + 1; /* said once is enough */
}
/* [/check] */

#else
typedef int progress_unused; /* a file of C is never empty */
#endif
