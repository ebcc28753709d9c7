/* conn.c - one connection of a server that never waits; conn.h says how it is used.
 * Needs POSIX.1-2008. */
#define _POSIX_C_SOURCE 200809L

#include "conn.h"

#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* [set_nonblocking] */
int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -1;
    return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -1 : 0;
}
/* [/set_nonblocking] */

/* [conn_open] */
int conn_open(struct conn *conn, int fd)
{
    *conn = (struct conn){.fd = fd};
    return set_nonblocking(fd);
}
/* [/conn_open] */

/* [send_some] */
/* Sends until all is gone or the socket takes no more.
 * Returns how many bytes it took, or -1 with errno. */
static ssize_t send_some(int fd, const char *data, size_t size)
{
    size_t sent = 0;

    while (sent < size) {
        ssize_t n = send(fd, data + sent, size - sent, 0);
        if (n >= 0)
            sent += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            break;
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)sent;
}
/* [/send_some] */

static enum conn_state lost(const struct conn *conn)
{
    net_log(conn->fd, "lost", errno);
    return CONN_CLOSED;
}

/* [pay] */
/* Sends what is owed. */
static enum conn_state pay(struct conn *conn)
{
    ssize_t sent = send_some(conn->fd, conn->owed + conn->sent, conn->size - conn->sent);
    if (sent < 0)
        return lost(conn);
    conn->sent += (size_t)sent;
    if (conn->sent < conn->size)
        return CONN_OWING;

    free(conn->owed);
    conn->owed = NULL;
    return CONN_READY; /* what the client sent meanwhile has not been read */
}
/* [/pay] */

/* [echo] */
/* Receives once and sends that back. Most often the socket takes it all, and
 * the bytes never leave the buffer. */
static enum conn_state echo(struct conn *conn, char *buffer, size_t size)
{
    ssize_t got;
    do
        got = recv(conn->fd, buffer, size, 0);
    while (got < 0 && errno == EINTR);

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return CONN_IDLE;
    if (got < 0)
        return lost(conn);
    if (got == 0) {
        /* A FIN: the client sends no more, but may still be reading. Nothing
         * is owed, or we would not have received; so this is the end. */
        net_log(conn->fd, "served", 0);
        return CONN_CLOSED;
    }

    size_t received = (size_t)got;
    ssize_t sent = send_some(conn->fd, buffer, received);
    if (sent < 0)
        return lost(conn);
    if ((size_t)sent < received) {
        conn->sent = 0;
        conn->size = received - (size_t)sent;
        conn->owed = malloc(conn->size);
        if (conn->owed == NULL)
            return lost(conn); /* an echo with a gap would be worse */
        memcpy(conn->owed, buffer + sent, conn->size);
        return CONN_OWING;
    }
    return received < size ? CONN_DRAINED : CONN_READY;
}
/* [/echo] */

/* [conn_turn] */
enum conn_state conn_turn(struct conn *conn, char *buffer, size_t size)
{
    return conn->owed != NULL ? pay(conn) : echo(conn, buffer, size);
}

void conn_close(struct conn *conn)
{
    close(conn->fd);
    free(conn->owed);
}
/* [/conn_turn] */
