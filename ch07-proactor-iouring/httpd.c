/* httpd.c - the second application of chapter 6 once more: HTTP/1.1 for the files of a folder.
 *
 * It does the same, and http.c, answer.c and files.c are the same bytes. But a turn of chapter 6 does
 * whatever can be done without waiting, and notes where it stopped; here the answer to each completion is the
 * next operation. Nothing is tried, nothing is done by halves, and there is no word of readiness. The file is
 * read by an operation, too: only to open it, the loop waits for the disk.
 * Needs POSIX.1-2008. Try: ./httpd --root .. --verbose, then http://127.0.0.1:7007/README.md */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64 /* files of more than 2 GiB where a long has 32 bits */

#include "answer.h"
#include "files.h"
#include "http.h"
#include "net.h"
#include "proactor.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    INPUT_SIZE = 4 * 1024,
    PIECE = 256 * 1024,          /* sent by one operation; to have sent that much is progress */
    SPARES = 64,                 /* workspaces that are kept for the next ones */
    LINGER_MS = 2000,            /* to hear the last answer out */
    LINGER_BYTES = 1024 * 1024,  /* that are thrown away meanwhile */
    GRACE_MS = 3000,             /* a stop waits this long for clients that are slow to take their bytes */
    IDLE_SECONDS_MOST = 1000000, /* --idle-timeout */
};

/* [workspace] */
/* What a connection needs from the first byte of a request until its answer has been sent. Chapter 6 lends
 * one to whoever has the turn; here all who are being answered have one at the same time, since the
 * output belongs to the engine until it has been sent. Who is idle has none. */
struct workspace {
    struct workspace *next; /* among the spare ones */
    struct http_request request;
    size_t input_used, input_size; /* what is between them has come, and has not been read */
    char input[INPUT_SIZE];
    char output[ANSWER_HEAD_MAX];
};
/* [/workspace] */

/* [server] */
struct server {
    struct proactor_stop stop;
    struct proactor_accept accept;
    struct connection *first; /* of all */
    struct root root;
    int64_t idle_ms; /* so long may a client need to begin a request, to end it, or to take of its answer */
    struct workspace *spare; /* the last one given back comes first: it is still in the processor's cache */
    size_t spares;
    struct dates dates;
};

enum phase {
    READING,   /* a request, or waiting for one */
    ANSWERING, /* a send is pending */
    LINGERING, /* all is said, and the client still speaks */
};

/* A client. */
struct connection {
    struct proactor_receive receive;
    struct proactor_send_file send; /* of a file, or of what is in the workspace alone */
    struct proactor_close close;
    struct proactor_timer timer; /* of this phase */
    struct server *server;
    struct connection *next, **link; /* in the list of all; what points to this one */
    struct workspace *workspace;     /* NULL: no request has begun */
    int64_t left;                    /* of the file, behind what is being sent */
    enum phase phase;
    bool keep_alive; /* after this answer, another request may come */
    bool finished;   /* the client sends no more */
};
/* [/server] */

/* [borrow] */
/* Gives the connection a workspace, if it has none. Returns 0, or -1 with errno. */
static int borrow(struct proactor *proactor, struct connection *connection)
{
    struct server *server = connection->server;
    struct workspace *workspace = server->spare;

    if (connection->workspace != NULL)
        return 0;
    if (workspace != NULL) {
        server->spare = workspace->next;
        server->spares--;
    } else if ((workspace = malloc(sizeof *workspace)) == NULL) {
        return -1;
    }
    workspace->input_used = workspace->input_size = 0;
    http_begin(&workspace->request);
    connection->workspace = workspace;
    /* The client has begun something, for which the time runs from now on. */
    (void)proactor_set_timer(proactor, &connection->timer, server->idle_ms); /* it is set */
    return 0;
}

static void give_back(struct connection *connection)
{
    struct server *server = connection->server;
    struct workspace *workspace = connection->workspace;

    connection->workspace = NULL;
    if (workspace == NULL || server->spares == SPARES) {
        free(workspace);
        return;
    }
    workspace->next = server->spare;
    server->spare = workspace;
    server->spares++;
}
/* [/borrow] */

/* [close] */
static void close_file(struct connection *connection)
{
    if (connection->send.file >= 0)
        close(connection->send.file);
    connection->send.file = -1;
}

/* The socket's last completion: now nothing of the connection is the engine's any more. */
static void on_closed(struct proactor *proactor, struct proactor_close *close)
{
    struct connection *connection = (struct connection *)((char *)close - offsetof(struct connection, close));

    (void)proactor;
    *connection->link = connection->next;
    if (connection->next != NULL)
        connection->next->link = connection->link;
    close_file(connection);
    give_back(connection);
    free(connection);
}

static void close_connection(struct proactor *proactor, struct connection *connection, const char *why,
                             int error)
{
    if (connection->close.operation.pending)
        return;
    net_log((int)connection->close.operation.socket, why, error);
    proactor_cancel_timer(proactor, &connection->timer);
    proactor_close(proactor, &connection->close);
}
/* [/close] */

/* [answer] */
/* Sends the head, if it has not been sent, and a piece of the file, if there is one. Both, and the
 * workspace's output, are the engine's until on_sent(). */
static void send_piece(struct proactor *proactor, struct connection *connection)
{
    struct proactor_send_file *file = &connection->send;
    size_t piece = connection->left < PIECE ? (size_t)connection->left : PIECE;

    connection->left -= (int64_t)piece;
    file->send.size = file->head_size + piece;
    file->send.last = connection->left == 0 && !connection->keep_alive;
    file->send.data = file->head;
    if (piece > 0)
        proactor_send_file(proactor, file);
    else
        proactor_send(proactor, &file->send);
}

/* Begins an answer: the head goes into the workspace, and the file, if there is one, into the connection. */
static void begin_answer(struct proactor *proactor, struct connection *connection, struct answer *answer)
{
    struct workspace *workspace = connection->workspace;
    struct proactor_send_file *file = &connection->send;

    answer->keep_alive = connection->keep_alive;
    file->file = answer->file.fd;
    if (!answer->head && (answer->status == 200 || answer->status == 206)) {
        file->offset = answer->first;
        connection->left = answer->length;
    } else {
        close_file(connection);
    }
    const char *end = answer_write(workspace->output, answer, &connection->server->dates);
    file->head = workspace->output;
    file->head_size = (size_t)(end - workspace->output);
    http_begin(&workspace->request);
    connection->phase = ANSWERING;
    send_piece(proactor, connection);
}

/* Answers with a status, and then ends the connection. */
static void refuse(struct proactor *proactor, struct connection *connection, int status)
{
    bool head = connection->workspace->request.head;

    connection->keep_alive = false;
    begin_answer(proactor, connection, &(struct answer){.status = status, .head = head, .file.fd = -1});
}

/* Answers a request that is good. */
static void serve_file(struct proactor *proactor, struct connection *connection)
{
    const struct http_request *request = &connection->workspace->request;
    struct answer answer = {.head = request->head, .path = request->path};

    net_log((int)connection->receive.operation.socket, request->path, 0);
    answer.status = files_open(&connection->server->root, request->path, &answer.file);
    if (answer.status == 200)
        answer_choose(&answer, request);
    if (answer.status == 503)
        connection->keep_alive = false; /* its own descriptor may be the one that is missing */
    begin_answer(proactor, connection, &answer);
}

/* Reads on in what has come, and begins an answer. Returns false if there is no whole request. */
static bool take_request(struct proactor *proactor, struct connection *connection)
{
    struct workspace *workspace = connection->workspace;
    size_t used = 0;

    if (workspace == NULL || workspace->input_used == workspace->input_size)
        return false;
    enum http_state state = http_feed(&workspace->request, workspace->input + workspace->input_used,
                                      workspace->input_size - workspace->input_used, &used);
    workspace->input_used += used;
    if (state == HTTP_MORE)
        return false;
    connection->keep_alive = workspace->request.keep_alive && !proactor_stopping(proactor);
    if (state == HTTP_REFUSED)
        refuse(proactor, connection, workspace->request.status);
    else
        serve_file(proactor, connection);
    return true;
}
/* [/answer] */

/* [go_on] */
/* Receives as much as there is room for. While an answer is being sent, no new receive begins: whoever
 * asks and does not read is held back by TCP. At a stop, what has come is received, and who is idle
 * is not waited for. */
static void listen_on(struct proactor *proactor, struct connection *connection)
{
    struct proactor_receive *receive = &connection->receive;

    if (connection->workspace != NULL)
        connection->workspace->input_used = connection->workspace->input_size = 0;
    receive->limit = connection->phase == READING ? INPUT_SIZE : LINGER_BYTES;
    receive->operation.at_once =
        proactor_stopping(proactor) && connection->phase == READING && connection->workspace == NULL;
    proactor_receive(proactor, receive);
}

/* Gives the connection something to wait for: its answer, or more of what the client has to say. */
static void go_on(struct proactor *proactor, struct connection *connection)
{
    const struct proactor_receive *receive = &connection->receive;

    if (connection->close.operation.pending || connection->phase == ANSWERING)
        return;
    if (connection->phase == READING && take_request(proactor, connection))
        return;
    if (connection->finished || (!receive->operation.pending && receive->limit == LINGER_BYTES))
        close_connection(proactor, connection, "served", 0);
    else if (!receive->operation.pending)
        listen_on(proactor, connection);
}

/* After the last answer. To close now would be wrong: if something has come that nobody has read, the kernel
 * then sends an RST, at which the client's kernel throws away what the client has not read yet: the answer.
 * So the client has been told that this is the end, and what it still sends is thrown away, for a while. */
static void linger(struct proactor *proactor, struct connection *connection)
{
    connection->phase = LINGERING;
    give_back(connection);
    (void)proactor_set_timer(proactor, &connection->timer, LINGER_MS); /* it is set */
}

/* A piece has been sent, or is lost, and the output is ours again. */
static void on_sent(struct proactor *proactor, struct proactor_send *send)
{
    struct connection *connection = (struct connection *)((char *)send - offsetof(struct connection, send));

    if (send->operation.error != 0) {
        close_connection(proactor, connection, "lost", send->operation.error);
        return;
    }
    (void)proactor_set_timer(proactor, &connection->timer, connection->server->idle_ms); /* it is set */
    connection->send.head_size = 0;
    if (connection->left > 0) {
        send_piece(proactor, connection);
        return;
    }
    close_file(connection);
    connection->phase = READING;
    if (!connection->keep_alive)
        linger(proactor, connection);
    else if (connection->workspace->input_used == connection->workspace->input_size)
        give_back(connection);
    go_on(proactor, connection);
}
/* [/go_on] */

/* [receive] */
/* A receive has ended without bytes: with the client's, because of a stop, or with an error. */
static void on_end(struct proactor *proactor, struct connection *connection, int error)
{
    if (error == EAGAIN) /* a stop, and nothing has come */
        close_connection(proactor, connection, "served", 0);
    else if (error != 0 && error != ECANCELED)
        close_connection(proactor, connection, "lost", error);
    connection->finished = error == 0; /* a FIN: it may still be reading */
    go_on(proactor, connection);
}

/* The piece is ours until we give it back, which is at once: there is room for all of the receive's credit
 * in the workspace, where it waits until what came before has been answered. */
static void on_received(struct proactor *proactor, struct proactor_receive *receive,
                        struct proactor_piece piece)
{
    struct connection *connection = (struct connection *)receive; /* its first member */

    if (piece.size == 0) {
        on_end(proactor, connection, receive->operation.error);
        return;
    }
    if (connection->phase != LINGERING && borrow(proactor, connection) == 0) {
        struct workspace *workspace = connection->workspace;
        memcpy(workspace->input + workspace->input_size, piece.data, piece.size);
        workspace->input_size += piece.size;
    } else if (connection->phase != LINGERING) {
        close_connection(proactor, connection, "lost", errno);
    }
    proactor_give_back(proactor, piece);
    go_on(proactor, connection);
}

/* Its time is over. The timer has just been taken out, so there is room to set it again. */
static void on_timer(struct proactor *proactor, struct proactor_timer *timer)
{
    struct connection *connection = (struct connection *)((char *)timer - offsetof(struct connection, timer));

    if (connection->phase == READING && connection->workspace != NULL &&
        proactor_set_timer(proactor, timer, connection->server->idle_ms) == 0) {
        refuse(proactor, connection, 408);
        return;
    }
    /* Whoever does not take its answer does not take its end, either: the kernel forgets both. */
    connection->close.operation.at_once = connection->phase == ANSWERING;
    close_connection(proactor, connection, "silent for too long", 0);
}
/* [/receive] */

/* [accept] */
static void on_accepted(struct proactor *proactor, struct proactor_accept *accept, proactor_socket client)
{
    struct server *server = (struct server *)((char *)accept - offsetof(struct server, accept));

    if (!accept->operation.pending) {
        errno = accept->operation.error;
        if (errno != ECANCELED) /* that is the stop */
            net_die("accept");
        return;
    }
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL || proactor_set_timer(proactor, &connection->timer, server->idle_ms) < 0) {
        net_log((int)client, "turned away", errno);
        free(connection);
        proactor_discard(proactor, client);
        return;
    }
    net_log((int)client, "connected", 0);
    connection->receive = (struct proactor_receive){{.socket = client}, on_received, INPUT_SIZE, 0};
    connection->send.send = (struct proactor_send){.operation.socket = client, .completed = on_sent};
    connection->send.file = -1;
    connection->close = (struct proactor_close){{.socket = client}, on_closed};
    connection->timer.expired = on_timer;
    connection->server = server;
    connection->next = server->first;
    connection->link = &server->first;
    if (connection->next != NULL)
        connection->next->link = &connection->next;
    server->first = connection;
    go_on(proactor, connection);
}
/* [/accept] */

/* [stop] */
/* Ends what waits. Each connection then receives what has come already, and is closed when that has been
 * answered. */
static void on_stop(struct proactor *proactor, struct proactor_stop *stop)
{
    struct server *server = (struct server *)stop; /* its first member */

    proactor_cancel(proactor, &server->accept.operation);
    for (struct connection *connection = server->first; connection != NULL; connection = connection->next) {
        if (connection->phase != LINGERING)
            proactor_cancel(proactor, &connection->receive.operation);
    }
}

static void on_overdue(struct proactor *proactor, struct proactor_stop *stop)
{
    struct server *server = (struct server *)stop; /* its first member */

    for (struct connection *connection = server->first; connection != NULL; connection = connection->next)
        close_connection(proactor, connection, "takes too long", 0);
}
/* [/stop] */

/* [main] */
/* The number in an option, from 1 to most. Ends the program with status 2 if it is none. */
static int64_t number(const struct net_option *option, int64_t most)
{
    char *end;
    errno = 0;
    long value = strtol(option->value, &end, 10);
    if (errno != 0 || *end != '\0' || end == option->value || value < 1 || value > most)
        net_wrong_use(option, "not a whole number that makes sense here");
    return value;
}

int main(int argc, char **argv)
{
    struct net_option own[] = {
        {"engine", "NAME  io_uring, iocp or emulated (the best that works here)", NULL},
        {"root", "DIR  the folder whose files are given out (.)", "."},
        {"idle-timeout", "SECONDS  so long may a client be silent, or slow (60)", "60"},
    };
    struct net_options options;
    net_options(&options, argc, argv, "HTTP/1.1 for the files of a folder, on the proactor", own, 3);

    struct server server = {.stop = {GRACE_MS, on_stop, on_overdue}};
    server.idle_ms = 1000 * number(&own[2], IDLE_SECONDS_MOST);
    if (files_root(&server.root, own[1].value) < 0)
        net_wrong_use(&own[1], strerror(errno));
    struct proactor *proactor = proactor_create(&(struct proactor_options){.engine = own[0].value});
    if (proactor == NULL && errno == ENOENT)
        net_wrong_use(&own[0], "this system has no such engine");
    if (proactor == NULL)
        return EXIT_FAILURE; /* a line has said why */
    if (proactor_stop_at_signals(proactor, &server.stop) < 0)
        net_die("signals");
    server.accept = (struct proactor_accept){.completed = on_accepted};
    server.accept.operation.socket = (proactor_socket)net_listen(&options);
    proactor_accept(proactor, &server.accept);
    if (proactor_run(proactor) < 0)
        net_die("proactor");
    proactor_destroy(proactor);
    for (struct workspace *spare; (spare = server.spare) != NULL; free(spare))
        server.spare = spare->next;
    close(server.root.fd);
    return EXIT_SUCCESS;
}
/* [/main] */
