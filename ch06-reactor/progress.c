/* progress.c - finds a busy wait; progress.h says when. Source: tcp(7), linux/tcp.h.
 * Needs Linux 4.6 to see what is sent. */
#include "progress.h"

#ifdef REACTOR_DEBUG

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#ifdef __linux__
#include <linux/tcp.h> /* its tcp_info has more than that of netinet/tcp.h */
#include <netinet/in.h>
#include <sys/socket.h>
#endif

/* [look] */
static const struct progress UNKNOWN = {UINT64_MAX, UINT64_MAX, UINT64_MAX};

struct progress progress_look(int fd)
{
#ifdef __linux__
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
        if (info.tcpi_state == 10) /* TCP_LISTEN: then unacked counts who waits to be accepted */
            return (struct progress){0, 0, info.tcpi_unacked};
        int unread = 0;
        if (ioctl(fd, FIONREAD, &unread) < 0)
            return UNKNOWN;
        return (struct progress){info.tcpi_bytes_received - (unsigned)unread,
                                 info.tcpi_bytes_acked + info.tcpi_data_segs_out, (uint64_t)unread};
    }
#endif
    int waiting = 0;
    if (ioctl(fd, FIONREAD, &waiting) < 0)
        return UNKNOWN;
    return (struct progress){0, 0, (uint64_t)waiting};
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
