/* peer_libevent.c - the same echo on libevent's bufferevents.
 *
 * As its book has it: the read callback moves the whole input buffer to the
 * output buffer, without a copy; reading is off while more is owed than our own
 * servers would owe, and on again once the output has drained. The base is made
 * as cheap as its documentation allows for one thread: no locks, and changes of
 * interest are gathered (EPOLL_USE_CHANGELIST).
 * Needs libevent 2.1. Try: ./peer_libevent --port 7007 */
#define _POSIX_C_SOURCE 200809L

#include "peer.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <stdio.h>
#include <stdlib.h>

static bool nodelay;

static void on_read(struct bufferevent *client, void *context)
{
    struct evbuffer *output = bufferevent_get_output(client);

    (void)context;
    if (evbuffer_add_buffer(output, bufferevent_get_input(client)) < 0)
        bufferevent_free(client);
    else if (evbuffer_get_length(output) >= PEER_BUFFER)
        bufferevent_disable(client, EV_READ);
}

/* The output has drained. */
static void on_write(struct bufferevent *client, void *context)
{
    (void)context;
    if ((bufferevent_get_enabled(client) & EV_READ) == 0)
        bufferevent_enable(client, EV_READ);
}

static void on_event(struct bufferevent *client, short what, void *context)
{
    (void)context;
    if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) != 0)
        bufferevent_free(client);
}

static void on_connection(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                          int size, void *context)
{
    (void)address;
    (void)size;
    (void)context;
    struct bufferevent *client =
        bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
    if (client == NULL) {
        evutil_closesocket(fd);
        return;
    }
    if (nodelay)
        peer_nodelay(fd);
    bufferevent_set_max_single_read(client, PEER_BUFFER); /* the default of 16 KiB would cost it calls */
    bufferevent_set_max_single_write(client, PEER_BUFFER);
    bufferevent_setcb(client, on_read, on_write, on_event, NULL);
    bufferevent_enable(client, EV_READ | EV_WRITE);
}

int main(int argc, char **argv)
{
    char about[64];
    snprintf(about, sizeof about, "libevent %s, for the bench", event_get_version());
    int fd = peer_listen(argc, argv, about, &nodelay);
    struct event_config *config = event_config_new();

    if (config == NULL || evutil_make_socket_nonblocking(fd) < 0 ||
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) < 0)
        net_die("event_config");
    struct event_base *base = event_base_new_with_config(config);
    if (base == NULL || evconnlistener_new(base, on_connection, NULL, LEV_OPT_CLOSE_ON_EXEC, 0, fd) == NULL)
        net_die("evconnlistener_new");
    event_config_free(config);
    return event_base_dispatch(base) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
