/* conn.h - one connection of a server that never waits for a client. */
#ifndef CONN_H
#define CONN_H

#include <stddef.h>

/* A connection holds memory only while it owes bytes: what was received and
 * could not be sent, because the client is slow to read. While it owes, it
 * does not receive: so it never owes more than one receive brought, and a
 * client that does not read is held back by TCP itself. */
struct conn {
    int fd;
    char *owed;  /* NULL while nothing is owed; belongs to the connection */
    size_t sent; /* how much of owed has been sent */
    size_t size; /* how large owed is */
};

/* What a turn has come to, and what the connection waits for now. */
enum conn_state {
    CONN_IDLE,    /* nothing had come; it waits to be readable */
    CONN_DRAINED, /* what had come has been echoed, but a FIN may be behind it; it waits to be readable */
    CONN_READY,   /* the buffer was filled, so more may have come: another turn is worth while */
    CONN_OWING,   /* the socket takes no more; it waits to be writable */
    CONN_CLOSED,  /* the client has ended, or is lost: close it */
};

/* Adds O_NONBLOCK to the descriptor's flags: from then on no call on it waits.
 * Returns 0, or -1 with errno. Source: fcntl(2). */
int set_nonblocking(int fd);

/* Begins a connection on fd, which then belongs to it and becomes non-blocking.
 * Returns 0, or -1 with errno: then fd is still the caller's. */
int conn_open(struct conn *conn, int fd);

/* Does for the connection what can be done without waiting: sends what it
 * owes, or receives once and echoes that. buffer, of size bytes, serves every
 * connection in turn, and holds nothing of value between two turns; size is
 * the most that a connection will ever owe.
 * Source: recv(2), send(2); epoll(7) on what a short read says. */
enum conn_state conn_turn(struct conn *conn, char *buffer, size_t size);

/* Closes the connection and forgets what it owes. */
void conn_close(struct conn *conn);

#endif
