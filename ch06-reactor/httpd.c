/* httpd.c - a second application on the same reactor: HTTP/1.1 for the files of a folder.
 *
 * The loop, the timers, the acceptor, the demultiplexers: nothing of them had to change. What is new is
 * what a connection does when its turn comes, and whom it does not wait for: a client that sends a
 * request a byte at a time, one that does not take its answer, one that asks without pause.
 * It waits for one thing: the disk. A regular file is always ready, says the kernel, and then
 * reads; no demultiplexer helps there. Chapter 7 does.
 * Needs POSIX.1-2008. Try: ./httpd --root .. --verbose, then http://127.0.0.1:7007/README.md */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64 /* files of more than 2 GiB where a long has 32 bits */

#include "acceptor.h"
#include "answer.h"
#include "conn.h"
#include "files.h"
#include "http.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if __has_include(<sys/sendfile.h>)
#include <sys/sendfile.h>
#endif

#ifndef MSG_MORE /* Linux only; elsewhere the head goes out by itself */
#define MSG_MORE 0
#endif

enum {
    INPUT_SIZE = 4 * 1024,
    SMALL_FILE = 16 * 1024,      /* up to here to copy it costs less than another system call */
    TURN_BYTES = 256 * 1024,     /* sent in one turn, so that a fast client does not keep others waiting */
    REQUEST_BYTES = 16 * 1024,   /* as which a request counts, however short its answer */
    LINGER_MS = 2000,            /* to hear the last answer out */
    LINGER_BYTES = 1024 * 1024,  /* that are thrown away meanwhile */
    IDLE_SECONDS_MOST = 1000000, /* --idle-timeout */
};

/* [workspace] */
/* What a turn needs. A loop has one, and lends it to one connection after the other. A connection that has
 * something left in it when its turn ends keeps it: so to be idle costs no memory, and to do half of
 * something costs this much, and no more. */
struct workspace {
    struct http_request request;
    bool begun;                    /* a part of the request has been read */
    size_t input_used, input_size; /* what is between them has come, and has not been read */
    size_t sent, output_size;      /* what is between them is owed */
    char input[INPUT_SIZE];
    char output[ANSWER_HEAD_MAX + SMALL_FILE];
};
/* [/workspace] */

/* [server] */
/* The same for all loops. */
struct settings {
    struct root root;
    int64_t idle_ms; /* so long may a client need to begin a request, to end it, or to take of its answer */
};

/* What the handlers of one loop share. */
struct server {
    struct acceptor acceptor;
    const struct settings *settings;
    struct workspace *spare; /* the one that is lent; NULL: the last borrower has kept it */
    struct dates dates;
};

enum phase {
    READING,   /* a request, or waiting for one */
    ANSWERING, /* what is not in the workspace is in the file */
    LINGERING, /* all is said, and the client still speaks */
};

/* A client. */
struct connection {
    struct event_handler handler;
    struct reactor_timer timer; /* of this phase */
    struct server *server;
    struct workspace *workspace; /* NULL: nothing is left over */
    enum phase phase;
    bool keep_alive;     /* after this answer, another request may come */
    int file;            /* that is being sent; -1: none */
    off_t position, end; /* what of it is still to be sent */
    size_t thrown_away;  /* while lingering */
};
/* [/server] */

/* [borrow] */
static void clear(struct workspace *workspace)
{
    workspace->begun = false;
    workspace->input_used = workspace->input_size = 0;
    workspace->sent = workspace->output_size = 0;
    http_begin(&workspace->request);
}

/* The workspace for a turn, or NULL with errno. */
static struct workspace *borrow(const struct connection *connection)
{
    struct server *server = connection->server;

    if (connection->workspace != NULL)
        return connection->workspace;
    if (server->spare == NULL) {
        server->spare = malloc(sizeof *server->spare);
        if (server->spare == NULL)
            return NULL;
        clear(server->spare);
    }
    return server->spare;
}

/* After a turn. Whoever begins to keep it has begun something, for which the time runs from now on. */
static void give_back(struct reactor *reactor, struct connection *connection, struct workspace *workspace)
{
    struct server *server = connection->server;
    bool left_over = workspace->begun || workspace->input_used < workspace->input_size ||
                     workspace->sent < workspace->output_size;

    if (left_over && connection->workspace == NULL) {
        connection->workspace = workspace;
        server->spare = NULL;
        (void)reactor_set_timer(reactor, &connection->timer, server->settings->idle_ms); /* it is set */
    } else if (!left_over && connection->workspace != NULL) {
        connection->workspace = NULL;
        if (server->spare == NULL)
            server->spare = workspace;
        else
            free(workspace);
    }
}
/* [/borrow] */

/* [close] */
static void close_connection(struct reactor *reactor, struct connection *connection)
{
    reactor_cancel_timer(reactor, &connection->timer);
    reactor_remove(reactor, &connection->handler);
    if (connection->file >= 0)
        close(connection->file);
    close(connection->handler.fd);
    acceptor_resume(&connection->server->acceptor, reactor); /* there is a free descriptor now */
    free(connection->workspace);
    free(connection);
}
/* [/close] */

/* [answer] */
/* Begins an answer: the head goes into the workspace, and the file, if there is one, into the connection. */
static void begin_answer(struct connection *connection, struct workspace *workspace, struct answer *answer)
{
    answer->keep_alive = connection->keep_alive;
    if (!answer->head && (answer->status == 200 || answer->status == 206)) {
        connection->file = answer->file.fd;
        connection->position = answer->first;
        connection->end = answer->first + answer->length;
    } else if (answer->file.fd >= 0) {
        close(answer->file.fd);
    }
    const char *end = answer_write(workspace->output, answer, &connection->server->dates);
    workspace->output_size = (size_t)(end - workspace->output);
    workspace->sent = 0;
    workspace->begun = false;
    http_begin(&workspace->request); /* now: others may have the workspace before the answer has been sent */
    connection->phase = ANSWERING;
}

/* Answers with a status, and then ends the connection. */
static void refuse(struct connection *connection, struct workspace *workspace, int status)
{
    connection->keep_alive = false;
    begin_answer(connection, workspace,
                 &(struct answer){.status = status, .head = workspace->request.head, .file.fd = -1});
}

/* Answers a request that is good. */
static void serve_file(struct connection *connection, struct workspace *workspace)
{
    const struct http_request *request = &workspace->request;
    struct answer answer = {.head = request->head, .path = request->path};

    net_log(connection->handler.fd, request->path, 0);
    answer.status = files_open(&connection->server->settings->root, request->path, &answer.file);
    if (answer.status == 200)
        answer_choose(&answer, request);
    if (answer.status == 503)
        connection->keep_alive = false; /* its own descriptor may be the one that is missing */
    begin_answer(connection, workspace, &answer);
}

static void end_answer(struct connection *connection)
{
    if (connection->file >= 0)
        close(connection->file);
    connection->file = -1;
    connection->position = connection->end = 0;
    connection->phase = READING;
}
/* [/answer] */

/* [send] */
/* Whether a call has failed only for now. */
static bool is_for_now(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* Copies the rest of the file, which is small, into the workspace. Returns as pread() does. */
static ssize_t load(struct connection *connection, struct workspace *workspace)
{
    if (workspace->sent == workspace->output_size)
        workspace->sent = workspace->output_size = 0; /* of this answer, or of the last borrower's */
    ssize_t got = pread(connection->file, workspace->output + workspace->output_size,
                        (size_t)(connection->end - connection->position), connection->position);
    if (got > 0) {
        connection->position += got;
        workspace->output_size += (size_t)got;
    }
    return got;
}

/* Sends at most size bytes of the file. Returns as send() does, or 0: it has no more. */
static ssize_t send_file(struct connection *connection, size_t size)
{
#if __has_include(<sys/sendfile.h>)
    /* From the kernel's cache to the socket: the bytes do not come by here. */
    return sendfile(connection->handler.fd, connection->file, &connection->position, size);
#else
    char piece[SMALL_FILE];
    ssize_t got =
        pread(connection->file, piece, size < sizeof piece ? size : sizeof piece, connection->position);
    ssize_t sent = got > 0 ? send(connection->handler.fd, piece, (size_t)got, 0) : got;
    if (sent > 0)
        connection->position += sent; /* what the socket did not take is read once more */
    return sent;
#endif
}

/* Sends once: of the workspace, or if that is empty, at most limit bytes of the file. Returns as send()
 * does, or 0: the file has become shorter. */
static ssize_t send_once(struct connection *connection, struct workspace *workspace, off_t limit)
{
    off_t rest = connection->end - connection->position;
    if (rest > 0 && rest <= SMALL_FILE) {
        ssize_t got = load(connection, workspace);
        if (got <= 0)
            return got;
        rest -= got;
    }
    if (workspace->sent == workspace->output_size)
        return send_file(connection, (size_t)(rest < limit ? rest : limit));

    /* The head of a large file waits for the file, so as not to be a segment of its own. */
    ssize_t sent = send(connection->handler.fd, workspace->output + workspace->sent,
                        workspace->output_size - workspace->sent, rest > 0 ? MSG_MORE : 0);
    if (sent > 0)
        workspace->sent += (size_t)sent;
    return sent;
}

enum sending { SENT, BLOCKED, LOST };

/* Sends of the answer what the socket takes, within the budget of the turn. */
static enum sending send_answer(struct reactor *reactor, struct connection *connection,
                                struct workspace *workspace, off_t *budget)
{
    while (workspace->sent < workspace->output_size || connection->position < connection->end) {
        if (*budget <= 0)
            return BLOCKED;
        ssize_t sent = send_once(connection, workspace, *budget);
        if (sent < 0 && is_for_now(errno))
            return BLOCKED;
        if (sent <= 0) {
            net_log(connection->handler.fd, sent == 0 ? "its file has become shorter" : "lost",
                    sent == 0 ? 0 : errno);
            return LOST;
        }
        *budget -= sent;
        (void)reactor_set_timer(reactor, &connection->timer, connection->server->settings->idle_ms);
    }
    end_answer(connection);
    return SENT;
}
/* [/send] */

/* [receive] */
/* Receives once, if there is something. Returns false if the connection is over. */
static bool receive(const struct connection *connection, struct workspace *workspace)
{
    workspace->input_used = workspace->input_size = 0; /* else it may be the last borrower's */
    ssize_t got = recv(connection->handler.fd, workspace->input, sizeof workspace->input, 0);
    if (got < 0 && is_for_now(errno))
        return true;
    if (got <= 0) {
        net_log(connection->handler.fd, got == 0 ? "served" : "lost", got == 0 ? 0 : errno);
        return false;
    }
    workspace->input_size = (size_t)got;
    return true;
}
/* [/receive] */

/* [linger] */
/* After the last answer. close() would be wrong here: if something has come that nobody has read, the kernel
 * then sends an RST, at which the client's kernel throws away what the client has not read yet: the answer.
 * So the client is told that this is the end, and what it still sends is thrown away, for a while. */
static unsigned linger(struct reactor *reactor, struct connection *connection, struct workspace *workspace)
{
    workspace->input_used = workspace->input_size = 0;
    if (shutdown(connection->handler.fd, SHUT_WR) < 0)
        return 0;
    connection->phase = LINGERING;
    (void)reactor_set_timer(reactor, &connection->timer, LINGER_MS);
    return REACTOR_READ;
}

static unsigned throw_away(struct connection *connection, struct workspace *workspace)
{
    if (!receive(connection, workspace))
        return 0;
    connection->thrown_away += workspace->input_size;
    workspace->input_size = 0;
    return connection->thrown_away < LINGER_BYTES ? REACTOR_READ : 0;
}
/* [/linger] */

/* [turn] */
/* Reads on in what has come, and begins an answer. Returns false if there is no whole request. */
static bool take_request(const struct reactor *reactor, struct connection *connection,
                         struct workspace *workspace)
{
    size_t used = 0;
    if (workspace->input_used == workspace->input_size)
        return false;
    enum http_state state = http_feed(&workspace->request, workspace->input + workspace->input_used,
                                      workspace->input_size - workspace->input_used, &used);
    workspace->input_used += used;
    workspace->begun = state == HTTP_MORE;
    if (state == HTTP_MORE)
        return false;
    connection->keep_alive = workspace->request.keep_alive && !reactor_stopping(reactor);
    if (state == HTTP_REFUSED)
        refuse(connection, workspace, workspace->request.status);
    else
        serve_file(connection, workspace);
    return true;
}

/* Does for a client what can be done without waiting, and not too much of it. While it is owed something, it
 * is not listened to: whoever asks and does not read is held back by TCP. Returns what it waits for;
 * 0: it is over. */
static unsigned turn(struct reactor *reactor, struct connection *connection, struct workspace *workspace)
{
    off_t budget = TURN_BYTES;

    if (connection->phase == LINGERING)
        return throw_away(connection, workspace);
    if (connection->phase == READING && workspace->input_used == workspace->input_size &&
        !receive(connection, workspace))
        return 0;
    while (budget > 0) {
        if (connection->phase == READING) {
            if (!take_request(reactor, connection, workspace))
                return REACTOR_READ;
            budget -= REQUEST_BYTES;
        }
        enum sending sending = send_answer(reactor, connection, workspace, &budget);
        if (sending != SENT)
            return sending == BLOCKED ? REACTOR_WRITE : 0;
        if (!connection->keep_alive)
            return linger(reactor, connection, workspace);
    }
    /* There is room to send, so the next turn comes at once, but after those of the others. */
    return workspace->input_used < workspace->input_size ? REACTOR_WRITE : REACTOR_READ;
}
/* [/turn] */

/* [connection] */
static void serve(struct reactor *reactor, struct connection *connection)
{
    struct workspace *workspace = borrow(connection);
    if (workspace == NULL) {
        net_log(connection->handler.fd, "lost", errno);
        close_connection(reactor, connection);
        return;
    }
    bool answering = connection->phase == ANSWERING;
    unsigned wants = turn(reactor, connection, workspace);
    if (answering && connection->phase == READING && wants == REACTOR_READ && !workspace->begun &&
        reactor_stopping(reactor))
        wants = linger(reactor, connection, workspace); /* what has come meanwhile has not been read */
    if (wants == 0)
        clear(workspace); /* what is left over is of no use any more */
    give_back(reactor, connection, workspace);
    bool idle = connection->phase == READING && connection->workspace == NULL;
    if (wants == 0 || (idle && reactor_stopping(reactor)))
        close_connection(reactor, connection);
    else
        reactor_want(reactor, &connection->handler, wants);
}

static void on_connection(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct connection *connection = (struct connection *)handler; /* its first member */

    if ((events & REACTOR_CLOSE) != 0)
        close_connection(reactor, connection);
    else
        serve(reactor, connection);
}

/* Its time is over. The timer has just been taken out, so there is room to set it again. */
static void on_timer(struct reactor *reactor, struct reactor_timer *timer)
{
    struct connection *connection = (struct connection *)((char *)timer - offsetof(struct connection, timer));
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    if (connection->phase == READING && connection->workspace != NULL &&
        reactor_set_timer(reactor, timer, connection->server->settings->idle_ms) == 0) {
        refuse(connection, connection->workspace, 408);
        serve(reactor, connection);
        return;
    }
    /* Whoever does not take its answer does not take its end, either: the kernel forgets both. */
    if (connection->phase == ANSWERING)
        (void)setsockopt(connection->handler.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    net_log(connection->handler.fd, "silent for too long", 0);
    close_connection(reactor, connection);
}
/* [/connection] */

/* [add] */
/* Takes the client on fd into the server. Returns 0, or -1 with errno. */
static int add(struct reactor *reactor, struct acceptor *acceptor, int fd)
{
    struct server *server = (struct server *)acceptor; /* its first member */
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return -1;
    connection->handler = (struct event_handler){fd, "connection", on_connection};
    connection->timer.expired = on_timer;
    connection->server = server;
    connection->file = -1;
    if (set_nonblocking(fd) < 0 ||
        reactor_set_timer(reactor, &connection->timer, server->settings->idle_ms) < 0)
        goto failed;
    if (reactor_register(reactor, &connection->handler, REACTOR_READ) == 0)
        return 0;
    reactor_cancel_timer(reactor, &connection->timer);
failed:
    free(connection);
    return -1;
}
/* [/add] */

/* [main] */
static void *open_server(struct reactor *reactor, int listener, const void *argument)
{
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    server->settings = argument;
    if (acceptor_open(&server->acceptor, reactor, listener, add) == 0)
        return server;
    free(server);
    return NULL;
}

static void close_server(void *opened)
{
    struct server *server = opened;
    free(server->spare);
    free(server);
}

int main(int argc, char **argv)
{
    struct net_option own[] = {
        loops_demux,
        loops_count,
        {"root", "DIR  the folder whose files are given out (.)", "."},
        {"idle-timeout", "SECONDS  so long may a client be silent, or slow (60)", "60"},
    };
    struct net_options options;
    net_options(&options, argc, argv, "HTTP/1.1 for the files of a folder, on the same reactor", own, 4);

    struct settings settings = {.idle_ms = 1000 * loops_number(&own[3], IDLE_SECONDS_MOST)};
    if (files_root(&settings.root, own[2].value) < 0)
        net_wrong_use(&own[2], strerror(errno));
    loops_run(&options, own, &(struct application){open_server, close_server, &settings});
    close(settings.root.fd);
    return EXIT_SUCCESS;
}
/* [/main] */
