/* Exercise 05-4, what is appended to a file: a solution.
 *
 * Each client gets what is appended to --file from now on, as `tail -F` shows it:
 * also when the file is renamed, deleted, made again, or cut short. */
#define _GNU_SOURCE /* on Linux; the next two where kevent() is native */
#define _NETBSD_SOURCE
#define _DARWIN_C_SOURCE

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_CLIENTS = 1000, PIECE = 16 * 1024, BATCH = 64 };

struct server {
    int kqueue;
    int listener;
    bool clients[MOST_CLIENTS]; /* by descriptor: somebody is here */
    const char *path;
    int file;     /* -1: not there now */
    off_t offset; /* how far it has been read */
};

/* Makes one change, at once. Returns 0, or -1 with errno. */
static int watch(const struct server *server, int fd, int16_t filter, uint16_t flags, unsigned notes)
{
    struct kevent event = {.ident = (uintptr_t)fd, .filter = filter, .flags = flags, .fflags = notes};
    return kevent(server->kqueue, &event, 1, NULL, 0, NULL);
}

static void drop(struct server *server, int fd)
{
    close(fd);
    server->clients[fd] = false;
}

/* A client who does not take it is closed: others do not wait, and nothing is kept. */
static void send_all(struct server *server, const char *text, size_t size)
{
    for (int fd = 0; fd < MOST_CLIENTS; fd++) {
        if (server->clients[fd] && send(fd, text, size, 0) != (ssize_t)size)
            drop(server, fd);
    }
}

/* Sends what has been appended since. */
static void send_new(struct server *server)
{
    char piece[PIECE];
    ssize_t got;
    while (server->file >= 0 && (got = pread(server->file, piece, sizeof piece, server->offset)) > 0) {
        server->offset += got;
        send_all(server, piece, (size_t)got);
    }
}

/* Opens the file that has the name now, and watches it: from then on nothing is missed. */
static void open_file(struct server *server, bool from_end)
{
    struct stat status;

    if (server->file >= 0)
        close(server->file);
    server->offset = 0;
    server->file = open(server->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (server->file >= 0 && watch(server, server->file, EVFILT_VNODE, EV_ADD | EV_CLEAR,
                                   NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB) < 0)
        net_die(server->path);
    if (from_end && server->file >= 0 && fstat(server->file, &status) == 0)
        server->offset = status.st_size;
}

/* The file has changed, or its folder. Is it still the one that has the name? */
static void on_file(struct server *server, const struct kevent *event)
{
    struct stat named;
    struct stat open_one;

    (void)event;
    bool there = stat(server->path, &named) == 0;
    if (server->file >= 0 && fstat(server->file, &open_one) == 0) {
        if (open_one.st_size < server->offset)
            server->offset = 0; /* cut short: it begins anew */
        send_new(server);       /* also the last of what a renamed file got */
        if (there && named.st_dev == open_one.st_dev && named.st_ino == open_one.st_ino)
            return;
    }
    if (there) {
        open_file(server, false);
        send_new(server); /* it has been written to before it was watched */
    }
}

/* Before the first client. The folder hears of a file that is put in the place of ours. */
static void watch_file(struct server *server)
{
    const char *slash = strrchr(server->path, '/');
    char folder[PATH_MAX] = ".";
    if (slash != NULL)
        snprintf(folder, sizeof folder, "%.*s", slash == server->path ? 1 : (int)(slash - server->path),
                 server->path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || watch(server, fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_WRITE) < 0)
        net_die(folder);
    open_file(server, true);
}

/* Clients have nothing to say. Whoever ends is closed. */
static void receive(struct server *server, int fd)
{
    char ignored[256];
    ssize_t got = recv(fd, ignored, sizeof ignored, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        drop(server, fd);
}

static void accept_clients(struct server *server)
{
    int fd;
    while ((fd = net_accept(server->listener)) >= 0) {
        if (fd >= MOST_CLIENTS || set_nonblocking(fd) < 0 || watch(server, fd, EVFILT_READ, EV_ADD, 0) < 0)
            close(fd);
        else
            server->clients[fd] = true;
    }
}

static void dispatch(struct server *server, const struct kevent *event)
{
    if (event->filter == EVFILT_VNODE)
        on_file(server, event);
    else if (event->ident == (uintptr_t)server->listener)
        accept_clients(server);
    else if (server->clients[event->ident])
        receive(server, (int)event->ident);
}

int main(int argc, char **argv)
{
    static struct server server;
    static struct kevent events[BATCH];
    struct net_option own[] = {{"file", "FILE  send what is appended to it", "log"}};
    struct net_options options;

    net_options(&options, argc, argv, "what is appended to a file", own, 1);
    net_catch_signals();
    server.path = own[0].value;
    server.file = -1;
    server.kqueue = kqueue();
    if (server.kqueue < 0)
        net_die("kqueue");
    watch_file(&server);
    server.listener = net_listen(&options);
    if (set_nonblocking(server.listener) < 0 || watch(&server, server.listener, EVFILT_READ, EV_ADD, 0) < 0)
        net_die("listening socket");

    while (!net_stopping()) {
        int count = kevent(server.kqueue, NULL, 0, events, BATCH, NULL);
        if (count < 0 && errno != EINTR)
            net_die("kevent");
        for (int i = 0; i < count; i++)
            dispatch(&server, &events[i]);
    }
    return EXIT_SUCCESS; /* which closes all that is open */
}
