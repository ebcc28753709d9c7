/* acceptor.c - the handler of a listening socket; acceptor.h says how it is used.
 * Needs POSIX.1-2008. */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"

#include "net.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_TURN = 64, /* so that a crowd at the door does not keep those inside waiting */
    PAUSE_MS = 100,        /* out of descriptors, ask again after this long, or when one is free */
};

/* [accept] */
static void turn_away(int fd, int error)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;

    if (error == ERANGE && !atomic_flag_test_and_set(&told)) { /* demux_select.c: said once, and aloud */
        char text[80];
        snprintf(text, sizeof text, "descriptor %d: turned away: FD_SETSIZE is %d", fd, FD_SETSIZE);
        net_warn(text);
    }
    net_log(fd, "turned away", error);
    close(fd);
}

/* Out of descriptors, those who wait stay in the queue, and would wake us at once and for
 * ever: so nothing is wanted of it until there may be one. */
static void pause_accepting(struct acceptor *acceptor, struct reactor *reactor)
{
    unsigned wanted = 0;
    if (reactor_set_timer(reactor, &acceptor->pause, PAUSE_MS) < 0) {
        net_pause(); /* no memory even for a timer: all wait */
        wanted = REACTOR_READ;
    }
    reactor_want(reactor, &acceptor->handler, wanted);
}

/* Lets in those who wait, so many at the most. */
static void accept_clients(struct acceptor *acceptor, struct reactor *reactor, int most)
{
    for (int i = 0; i < most; i++) {
        int fd = net_accept(acceptor->handler.fd);
        if (fd < 0) {
            if (errno == EMFILE)
                pause_accepting(acceptor, reactor);
            return;
        }
        if (acceptor->add(reactor, acceptor, fd) < 0) /* the others go on */
            turn_away(fd, errno);
    }
}
/* [/accept] */

/* [pause] */
void acceptor_resume(struct acceptor *acceptor, struct reactor *reactor)
{
    if (acceptor->pause.place == 0)
        return;
    reactor_cancel_timer(reactor, &acceptor->pause);
    reactor_want(reactor, &acceptor->handler, REACTOR_READ);
}

static void on_pause_over(struct reactor *reactor, struct reactor_timer *timer)
{
    struct acceptor *acceptor = (struct acceptor *)((char *)timer - offsetof(struct acceptor, pause));
    reactor_want(reactor, &acceptor->handler, REACTOR_READ);
}
/* [/pause] */

/* [acceptor_open] */
static void on_event(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct acceptor *acceptor = (struct acceptor *)handler; /* its first member */

    if ((events & (REACTOR_STOP | REACTOR_CLOSE)) == 0) {
        accept_clients(acceptor, reactor, ACCEPTS_PER_TURN);
        return;
    }
    if (!reactor_stopping(reactor)) { /* it cannot be watched: the kernel is out of memory, or of watches */
        pause_accepting(acceptor, reactor);
        return;
    }
    accept_clients(acceptor, reactor,
                   SOMAXCONN); /* who came before the stop is served: a whole queue of them */
    reactor_cancel_timer(reactor, &acceptor->pause);
    reactor_remove(reactor, handler);
    close(handler->fd);
}

int acceptor_open(struct acceptor *acceptor, struct reactor *reactor, int listener,
                  int (*add)(struct reactor *reactor, struct acceptor *acceptor, int fd))
{
    *acceptor = (struct acceptor){
        .handler = {listener, "acceptor", on_event},
        .pause = {.expired = on_pause_over},
        .add = add,
    };
    return reactor_register(reactor, &acceptor->handler, REACTOR_READ);
}
/* [/acceptor_open] */
