/* engines.c - which engines this system has. The compiler knows by their headers.
 * Needs C11 and __has_include (gcc 5, clang). */
#include "engine.h"

/* [list] */
extern const struct engine engine_uring, engine_iocp, engine_emulated;

const struct engine *const engines[] = {
#if __has_include(<liburing.h>)
    &engine_uring,
#endif
#ifdef _WIN32
    &engine_iocp,
#else
    &engine_emulated,
#endif
    NULL,
};
/* [/list] */
