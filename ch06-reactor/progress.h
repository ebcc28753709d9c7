/* progress.h - finds a busy wait, in builds with REACTOR_DEBUG; others leave no trace of it.
 *
 * A handler that is woken again and again and does nothing about it burns a processor
 * and shows nothing: room to send is watched while nothing is owed, or the door
 * while there is no descriptor for who stands there. The kernel knows what was received, sent
 * and accepted; if nothing was in FUTILE_MOST wake-ups in a row, one line on stderr names the handler.
 * For TCP on Linux 4.1 or newer; of others the kernel says only how much waits, and that may be as
 * much as before because more has come. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "reactor.h"

#include <stdint.h>

enum { FUTILE_MOST = 200 };

/* What has passed through a descriptor. */
struct progress {
    uint64_t taken;   /* bytes that the program has received */
    uint64_t given;   /* bytes that it has sent, whether or not they are on their way */
    uint64_t waiting; /* bytes, or clients, that wait for it */
};

#ifdef REACTOR_DEBUG

struct progress progress_look(int fd);

/* After a handler was called for these events: counts in futile how often in a row nothing had come of it. */
void progress_check(uint8_t *futile, const struct event_handler *handler, unsigned events,
                    const struct progress *before);

#else

static inline struct progress progress_look(int fd)
{
    (void)fd;
    return (struct progress){0};
}

static inline void progress_check(uint8_t *futile, const struct event_handler *handler, unsigned events,
                                  const struct progress *before)
{
    *futile = 0;
    (void)handler;
    (void)events;
    (void)before;
}

#endif

#endif
