/* Exercise 06-4, a chat across loops: a solution.
 *
 * What a client says, all others hear. Those in its own loop are told at once; to every other loop a
 * message is posted, and that loop tells its clients itself. No lock is taken.
 * Needs POSIX.1-2008 threads, and C11 atomics. */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"
#include "conn.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOMS_MOST = 64, LINE_SIZE = 256 };

/* What the loops share. A room is entered when its loop begins; it stays until all loops have ended,
 * for another may be about to post to it. */
struct house {
    atomic_int opened;
    _Atomic(struct room *) rooms[ROOMS_MOST];
};

/* The clients of one loop. Whoever is not in its thread may look at nothing in here but the reactor. */
struct room {
    struct acceptor acceptor;
    struct house *house;
    struct reactor *reactor;
    struct member *members;
    int number;
};

/* A client. */
struct member {
    struct event_handler handler;
    struct room *room;
    struct member *next;
    size_t size; /* of the line so far */
    char line[LINE_SIZE];
};

/* A line on its way into another room. */
struct message {
    struct reactor_work work;
    struct room *room;
    size_t size;
    char text[LINE_SIZE];
};

/* Ends a client that is in no list any more. */
static void show_out(struct reactor *reactor, struct member *member)
{
    reactor_remove(reactor, &member->handler);
    close(member->handler.fd);
    acceptor_resume(&member->room->acceptor, reactor);
    free(member);
}

static void leave(struct reactor *reactor, struct member *member)
{
    for (struct member **link = &member->room->members; *link != NULL; link = &(*link)->next) {
        if (*link == member) {
            *link = member->next;
            break;
        }
    }
    show_out(reactor, member);
}

/* Tells everybody in this room but from. Whoever does not listen is shown out. */
static void tell(struct reactor *reactor, struct room *room, const struct member *from, const char *text,
                 size_t size)
{
    struct member **link = &room->members;
    while (*link != NULL) {
        struct member *member = *link;
        if (member == from || send(member->handler.fd, text, size, 0) == (ssize_t)size) {
            link = &member->next;
        } else {
            *link = member->next;
            show_out(reactor, member);
        }
    }
}

/* In the thread of the other room. The message was posted here, and so it is ours. */
static void on_message(struct reactor *reactor, struct reactor_work *work)
{
    struct message *message = (struct message *)work; /* its first member */
    tell(reactor, message->room, NULL, message->text, message->size);
    free(message);
}

/* Posts a line to all rooms but this one: to each a message of its own, for each will free what it gets. */
static void tell_others(const struct room *room, const char *text, size_t size)
{
    for (int i = 0; i < ROOMS_MOST; i++) {
        struct room *other = atomic_load(&room->house->rooms[i]);
        if (other == NULL || other == room)
            continue;
        struct message *message = malloc(sizeof *message);
        if (message == NULL) {
            net_warn("out of memory: a line is lost");
            return;
        }
        message->work.run = on_message;
        message->room = other;
        message->size = size;
        memcpy(message->text, text, size);
        reactor_post(other->reactor, &message->work);
    }
}

static void on_line(struct reactor *reactor, const struct member *from, const char *text, size_t size)
{
    tell(reactor, from->room, from, text, size);
    tell_others(from->room, text, size);
}

static void on_member(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct member *member = (struct member *)handler; /* its first member */
    ssize_t got = recv(handler->fd, member->line + member->size, LINE_SIZE - member->size, 0);
    const char *end;

    if (got == 0 || (got < 0 && (reactor_stopping(reactor) || (errno != EAGAIN && errno != EINTR))) ||
        (events & REACTOR_CLOSE) != 0) {
        leave(reactor, member);
        return;
    }
    if (got > 0)
        member->size += (size_t)got;
    while ((end = memchr(member->line, '\n', member->size)) != NULL) {
        size_t size = (size_t)(end + 1 - member->line);
        on_line(reactor, member, member->line, size);
        member->size -= size;
        memmove(member->line, end + 1, member->size);
    }
    if (member->size == LINE_SIZE) /* too long to be a line of ours */
        leave(reactor, member);
}

/* Takes the client on fd into the room. Returns 0, or -1 with errno. */
static int add(struct reactor *reactor, struct acceptor *acceptor, int fd)
{
    struct room *room = (struct room *)acceptor; /* its first member */
    char text[32];
    struct member *member = calloc(1, sizeof *member);
    if (member == NULL)
        return -1;
    member->handler = (struct event_handler){fd, "member", on_member};
    member->room = room;
    snprintf(text, sizeof text, "room %d\n", room->number);
    if (set_nonblocking(fd) < 0 || send(fd, text, strlen(text), 0) < 0 ||
        reactor_register(reactor, &member->handler, REACTOR_READ) < 0) {
        free(member);
        return -1;
    }
    member->next = room->members;
    room->members = member;
    return 0;
}

/* In the thread of each loop. */
static void *open_room(struct reactor *reactor, int listener, const void *argument)
{
    struct house *house = *(struct house *const *)argument;
    struct room *room = calloc(1, sizeof *room);
    if (room == NULL)
        return NULL;
    room->house = house;
    room->reactor = reactor;
    room->number = atomic_fetch_add(&house->opened, 1);
    if (acceptor_open(&room->acceptor, reactor, listener, add) < 0) {
        free(room);
        return NULL;
    }
    atomic_store(&house->rooms[room->number], room); /* complete, and nobody has come in yet */
    return room;
}

/* The room stays: see struct house. */
static void close_room(void *opened)
{
    (void)opened;
}

int main(int argc, char **argv)
{
    static struct house house;
    struct house *const shared = &house;
    struct net_option own[] = {loops_demux, loops_count};
    struct net_options options;
    net_options(&options, argc, argv, "a chat, across loops", own, 2);
    loops_run(&options, own, &(struct application){open_room, close_room, &shared});
    for (int i = 0; i < ROOMS_MOST; i++)
        free(atomic_load(&house.rooms[i]));
    return EXIT_SUCCESS;
}
