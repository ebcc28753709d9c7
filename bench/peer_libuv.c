/* peer_libuv.c - the same echo on libuv.
 *
 * As its documentation has it: uv_read_start with a buffer that all clients
 * share, which is safe since the answer is sent from within the callback by
 * uv_try_write. Only what the socket does not take at once is copied and left
 * to uv_write; until that is done, reading is stopped.
 * Needs libuv 1.x. Try: ./peer_libuv --port 7007 */
#define _POSIX_C_SOURCE 200809L

#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/* What is owed to a client; the bytes follow it. */
struct rest {
    uv_write_t request;
    char bytes[];
};

static bool nodelay;
static char buffer[PEER_BUFFER];

static void must(int error, const char *what)
{
    if (error < 0) {
        fprintf(stderr, "peer_libuv: %s: %s\n", what, uv_strerror(error));
        exit(EXIT_FAILURE);
    }
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void end(uv_stream_t *client)
{
    if (!uv_is_closing((uv_handle_t *)client))
        uv_close((uv_handle_t *)client, on_closed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *space)
{
    (void)handle;
    (void)suggested;
    *space = uv_buf_init(buffer, sizeof buffer);
}

static void on_read(uv_stream_t *client, ssize_t count, const uv_buf_t *data);

static void on_written(uv_write_t *request, int error)
{
    uv_stream_t *client = request->handle;

    free(request); /* it is the first member of its struct rest */
    if (error < 0 || uv_read_start(client, on_alloc, on_read) < 0)
        end(client);
}

static void owe(uv_stream_t *client, const char *bytes, size_t size)
{
    struct rest *rest = malloc(sizeof *rest + size);
    if (rest == NULL) {
        end(client);
        return;
    }
    memcpy(rest->bytes, bytes, size);
    uv_buf_t data = uv_buf_init(rest->bytes, (unsigned)size);
    uv_read_stop(client);
    if (uv_write(&rest->request, client, &data, 1, on_written) < 0) {
        free(rest);
        end(client);
    }
}

static void on_read(uv_stream_t *client, ssize_t count, const uv_buf_t *data)
{
    if (count < 0)
        end(client);
    if (count <= 0)
        return;
    uv_buf_t answer = uv_buf_init(data->base, (unsigned)count);
    int sent = uv_try_write(client, &answer, 1);
    if (sent < 0 && sent != UV_EAGAIN)
        end(client);
    else if (sent < count)
        owe(client, data->base + (sent > 0 ? sent : 0), (size_t)(count - (sent > 0 ? sent : 0)));
}

static void on_connection(uv_stream_t *listener, int error)
{
    if (error < 0)
        return;
    uv_tcp_t *client = malloc(sizeof *client);
    if (client == NULL)
        return;
    must(uv_tcp_init(listener->loop, client), "uv_tcp_init");
    if (uv_accept(listener, (uv_stream_t *)client) < 0) {
        end((uv_stream_t *)client);
        return;
    }
    if (nodelay)
        uv_tcp_nodelay(client, 1);
    if (uv_read_start((uv_stream_t *)client, on_alloc, on_read) < 0)
        end((uv_stream_t *)client);
}

int main(int argc, char **argv)
{
    uv_tcp_t listener;
    char about[64];
    snprintf(about, sizeof about, "libuv %s, for the bench", uv_version_string());
    int fd = peer_listen(argc, argv, about, &nodelay);

    must(uv_tcp_init(uv_default_loop(), &listener), "uv_tcp_init");
    must(uv_tcp_open(&listener, fd), "uv_tcp_open");
    must(uv_listen((uv_stream_t *)&listener, SOMAXCONN, on_connection), "uv_listen");
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
