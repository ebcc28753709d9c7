/* peer_libev.c - the same echo on libev.
 *
 * libev tells who is ready, and leaves reading and writing to us. So this is
 * what its documentation's example does: one ev_io for a client, recv and send
 * in its callback. While something is owed, the watcher waits for EV_WRITE only.
 * Needs libev 4. Try: ./peer_libev --port 7007 */
#define _POSIX_C_SOURCE 200809L

#include "peer.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct client {
    ev_io watcher; /* the first member: a pointer to it is one to the client */
    char *owed;
    size_t sent;
    size_t size;
};

static bool nodelay;
static char buffer[PEER_BUFFER];

static void end(struct ev_loop *loop, struct client *client)
{
    ev_io_stop(loop, &client->watcher);
    close(client->watcher.fd);
    free(client->owed);
    free(client);
}

static void wait_for(struct ev_loop *loop, struct client *client, int events)
{
    ev_io_stop(loop, &client->watcher);
    ev_io_modify(&client->watcher, events);
    ev_io_start(loop, &client->watcher);
}

/* Keeps what the socket did not take. */
static void owe(struct ev_loop *loop, struct client *client, const char *bytes, size_t size)
{
    client->owed = malloc(size);
    if (client->owed == NULL) {
        end(loop, client);
        return;
    }
    memcpy(client->owed, bytes, size);
    client->sent = 0;
    client->size = size;
    wait_for(loop, client, EV_WRITE);
}

static void pay(struct ev_loop *loop, struct client *client)
{
    ssize_t sent = send(client->watcher.fd, client->owed + client->sent, client->size - client->sent, 0);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        end(loop, client);
        return;
    }
    client->sent += sent > 0 ? (size_t)sent : 0;
    if (client->sent < client->size)
        return;
    free(client->owed);
    client->owed = NULL;
    wait_for(loop, client, EV_READ);
}

static void on_ready(struct ev_loop *loop, ev_io *watcher, int events)
{
    struct client *client = (struct client *)watcher;

    (void)events;
    if (client->owed != NULL) {
        pay(loop, client);
        return;
    }
    ssize_t got = recv(watcher->fd, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        end(loop, client);
        return;
    }
    ssize_t sent = send(watcher->fd, buffer, (size_t)got, 0);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        end(loop, client);
    else if (sent < got)
        owe(loop, client, buffer + (sent > 0 ? sent : 0), (size_t)(got - (sent > 0 ? sent : 0)));
}

static void on_connection(struct ev_loop *loop, ev_io *watcher, int events)
{
    int fd;

    (void)events;
    while ((fd = accept(watcher->fd, NULL, NULL)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        if (client == NULL || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
            free(client);
            close(fd);
            continue;
        }
        if (nodelay)
            peer_nodelay(fd);
        ev_io_init(&client->watcher, on_ready, fd, EV_READ);
        ev_io_start(loop, &client->watcher);
    }
}

int main(int argc, char **argv)
{
    ev_io watcher;
    char about[64];
    snprintf(about, sizeof about, "libev %d.%d, for the bench", ev_version_major(), ev_version_minor());
    int fd = peer_listen(argc, argv, about, &nodelay);
    struct ev_loop *loop = ev_default_loop(0);

    if (loop == NULL || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        net_die("ev_default_loop");
    ev_io_init(&watcher, on_connection, fd, EV_READ);
    ev_io_start(loop, &watcher);
    ev_run(loop, 0);
    return EXIT_SUCCESS;
}
