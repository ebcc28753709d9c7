/* acceptor.h - the handler of a listening socket: who comes in is given to the application.
 *
 * (Douglas C. Schmidt, "Acceptor and Connector", 1997.) */
#ifndef ACCEPTOR_H
#define ACCEPTOR_H

#include "reactor.h"

/* [acceptor] */
struct acceptor {
    struct event_handler handler;
    struct reactor_timer pause; /* set: out of descriptors, nothing is wanted of the listening socket */

    /* Takes in the client on fd. Returns 0; or -1 with errno, and the acceptor closes fd. */
    int (*add)(struct reactor *reactor, struct acceptor *acceptor, int fd);
};
/* [/acceptor] */

/* Registers the acceptor of a listening socket, which is non-blocking, and from now on its own: it
 * closes it at a stop. Returns 0, or -1 with errno as reactor_register(). */
int acceptor_open(struct acceptor *acceptor, struct reactor *reactor, int listener,
                  int (*add)(struct reactor *reactor, struct acceptor *acceptor, int fd));

/* Call it when a descriptor has been closed: somebody may be waiting for one. */
void acceptor_resume(struct acceptor *acceptor, struct reactor *reactor);

#endif
