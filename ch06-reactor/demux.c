/* demux.c - which demultiplexers this system has. The compiler knows by their headers.
 * Needs C11 and __has_include (gcc 5, clang). */
#include "demux.h"

#include <string.h>

/* [list] */
extern const struct demultiplexer demux_select, demux_poll, demux_epoll, demux_kqueue;

const struct demultiplexer *const demultiplexers[] = {
#if __has_include(<sys/epoll.h>)
    &demux_epoll,
#endif
#if __has_include(<sys/event.h>)
    &demux_kqueue,
#endif
    &demux_poll,   &demux_select, NULL,
};
/* [/list] */

const struct demultiplexer *demultiplexer_find(const char *name)
{
    if (name == NULL)
        return demultiplexers[0];
    for (size_t i = 0; demultiplexers[i] != NULL; i++) {
        if (strcmp(demultiplexers[i]->name, name) == 0)
            return demultiplexers[i];
    }
    return NULL;
}
