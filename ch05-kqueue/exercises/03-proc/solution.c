/* Exercise 05-3, a process that ends: a solution.
 *
 * Each line is a command; when it has ended, its client gets the status. Nobody
 * waits for it: the queue tells. */
#define _GNU_SOURCE /* on Linux; the next two where kevent() is native */
#define _NETBSD_SOURCE
#define _DARWIN_C_SOURCE

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CLIENTS = 1000, LINE_SIZE = 256, BATCH = 64 };

/* The place of one descriptor, and of the client who has it now. */
struct client {
    bool present;
    uint32_t generation; /* how many clients have left this place */
    size_t size;         /* of the line so far */
    char line[LINE_SIZE];
};

struct server {
    int kqueue;
    int listener;
    struct client clients[MOST_CLIENTS]; /* by descriptor */
    struct command *commands;            /* those that run */
};

/* udata is a pointer, but an integer on NetBSD before 10. */
#define UDATA(event, generation) \
    _Generic((event).udata, intptr_t : (intptr_t)(generation), default : (void *)(uintptr_t)(generation))

/* Makes one change, at once. Returns 0, or -1 with errno. */
static int change(const struct server *server, struct kevent event, uint32_t generation)
{
    event.udata = UDATA(event, generation);
    return kevent(server->kqueue, &event, 1, NULL, 0, NULL);
}

static void drop(struct server *server, int fd)
{
    close(fd);
    server->clients[fd].present = false;
    server->clients[fd].generation++; /* what is under way for the old one finds nobody */
}

/* Sends a short answer. A client who does not even take that is closed. */
static void answer(struct server *server, int fd, const char *text)
{
    size_t size = strlen(text);
    if (send(fd, text, size, 0) != (ssize_t)size)
        drop(server, fd);
}

/* A command that runs, and for whom. */
struct command {
    struct command *next;
    pid_t process;
    int fd;
    uint32_t generation; /* of the client: another may have its descriptor by then */
};

/* Begins to run a command of the shell. Returns its process, or -1. */
static pid_t run(const char *command)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGPIPE, SIG_DFL);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return child;
}

static void report(struct server *server, int fd, int status)
{
    char text[64];
    if (WIFEXITED(status))
        snprintf(text, sizeof text, "status %d\n", WEXITSTATUS(status));
    else
        snprintf(text, sizeof text, "signal %d\n", WTERMSIG(status));
    answer(server, fd, text);
}

/* The command has ended: it is reaped, so that it does not stay as a zombie, and its
 * status goes to whoever asked, if that is still there. */
static void end(struct server *server, pid_t process)
{
    struct command **link = &server->commands;
    while (*link != NULL && (*link)->process != process)
        link = &(*link)->next;
    struct command *command = *link;
    int status;
    if (command == NULL || waitpid(process, &status, 0) != process)
        return;
    const struct client *client = &server->clients[command->fd];
    if (client->present && client->generation == command->generation)
        report(server, command->fd, status);
    *link = command->next;
    free(command);
}

static void on_line(struct server *server, int fd, const char *line)
{
    struct command *command = malloc(sizeof *command);
    if (command == NULL || (command->process = run(line)) < 0) {
        free(command);
        answer(server, fd, "cannot run it\n");
        return;
    }
    command->fd = fd;
    command->generation = server->clients[fd].generation;
    command->next = server->commands;
    server->commands = command;
    struct kevent event = {.ident = (uintptr_t)command->process,
                           .filter = EVFILT_PROC,
                           .flags = EV_ADD | EV_ONESHOT,
                           .fflags = NOTE_EXIT};
    if (change(server, event, 0) < 0) { /* ESRCH: it has ended already, and there will be no event */
        if (errno != ESRCH)
            kill(command->process, SIGKILL);
        end(server, command->process);
    }
}

static void on_event(struct server *server, const struct kevent *event)
{
    end(server, (pid_t)event->ident);
}

/* Receives, and acts on each whole line. Longer lines are no lines of ours. */
static void receive(struct server *server, int fd)
{
    struct client *client = &server->clients[fd];
    uint32_t generation = client->generation;
    ssize_t got = recv(fd, client->line + client->size, LINE_SIZE - client->size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        drop(server, fd);
        return;
    }
    client->size += (size_t)got;
    char *end;
    while (client->generation == generation && (end = memchr(client->line, '\n', client->size)) != NULL) {
        char line[LINE_SIZE];
        size_t length = (size_t)(end - client->line);
        memcpy(line, client->line, length);
        line[length] = '\0';
        client->size -= length + 1;
        memmove(client->line, end + 1, client->size);
        on_line(server, fd, line);
    }
    if (client->generation == generation && client->size == LINE_SIZE)
        drop(server, fd);
}

static void accept_clients(struct server *server)
{
    int fd;
    while ((fd = net_accept(server->listener)) >= 0) {
        struct client *client = &server->clients[fd < MOST_CLIENTS ? fd : 0];
        struct kevent event = {.ident = (uintptr_t)fd, .filter = EVFILT_READ, .flags = EV_ADD};
        if (fd >= MOST_CLIENTS || set_nonblocking(fd) < 0 || change(server, event, client->generation) < 0) {
            close(fd);
            continue;
        }
        client->present = true;
        client->size = 0;
    }
}

static void dispatch(struct server *server, const struct kevent *event)
{
    if (event->filter != EVFILT_READ) {
        on_event(server, event);
    } else if (event->ident == (uintptr_t)server->listener) {
        accept_clients(server);
    } else {
        const struct client *client = &server->clients[event->ident];
        if (client->present && client->generation == (uint32_t)(uintptr_t)event->udata)
            receive(server, (int)event->ident);
    }
}

int main(int argc, char **argv)
{
    static struct server server;
    static struct kevent events[BATCH];
    struct net_options options;

    net_options(&options, argc, argv, "each line is a command", NULL, 0);
    net_catch_signals();
    server.kqueue = kqueue();
    if (server.kqueue < 0)
        net_die("kqueue");
    server.listener = net_listen(&options);
    if (set_nonblocking(server.listener) < 0 ||
        change(&server,
               (struct kevent){.ident = (uintptr_t)server.listener, .filter = EVFILT_READ, .flags = EV_ADD},
               0) < 0)
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
