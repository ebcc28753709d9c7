/* Exercise 03-3, chat: a solution.
 *
 * A turn of one client now writes to all others. So a client is not only served
 * when it is ready, and what is to be sent to it must wait somewhere: each has a
 * queue, with a bound. */
#define _POSIX_C_SOURCE 200809L

#include "conn.h" /* set_nonblocking() */
#include "net.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    PIECE_SIZE = 4096,      /* the most that is received at once */
    QUEUE_SIZE = 64 * 1024, /* the most that one client can be owed */
    ACCEPTS_PER_TURN = 64,  /* so that a crowd at the door does not keep those inside waiting */
    TICK_MS = 100,          /* after this long look again at what no event announces */
};

struct client {
    int fd;
    bool lost;   /* to be dropped when nobody walks over the array */
    char *queue; /* what it has to be told yet; NULL: nothing */
    size_t size; /* how much that is */
};

/* All clients, side by side, in no order. polls[i] says what clients[i] waits
 * for. Place 0 is the listening socket's. */
struct server {
    struct client *clients;
    struct pollfd *polls;
    size_t count;
    size_t room;
    int64_t accept_after; /* out of descriptors until then, in ms; 0: not */
};

/* Takes the client on fd, or the listening socket, into the server. Returns 0, or -1 with errno. */
static int add(struct server *server, int fd)
{
    if (server->count == server->room) {
        size_t room = server->room == 0 ? 64 : 2 * server->room;
        struct client *clients = realloc(server->clients, room * sizeof *clients);
        if (clients == NULL)
            return -1;
        server->clients = clients;
        struct pollfd *polls = realloc(server->polls, room * sizeof *polls);
        if (polls == NULL)
            return -1;
        server->polls = polls;
        server->room = room;
    }
    if (set_nonblocking(fd) < 0)
        return -1;
    server->clients[server->count] = (struct client){.fd = fd};
    server->polls[server->count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    return 0;
}

/* Closes client i. The last one takes its place. */
static void drop(struct server *server, size_t i)
{
    close(server->clients[i].fd);
    free(server->clients[i].queue);
    server->clients[i] = server->clients[--server->count];
    server->polls[i] = server->polls[server->count];
    server->accept_after = 0; /* there is a free descriptor now */
}

/* Milliseconds on a clock that nobody sets. */
static int64_t now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        net_die("clock_gettime");
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Asks the listening socket for clients. Out of descriptors, those who wait
 * stay in its queue, and keep it ready: watched, it would wake us at once and
 * for ever. So it is left alone until a client leaves, or for one tick. */
static void accept_clients(struct server *server, int listener)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = net_accept(listener);
        if (fd < 0) {
            if (errno == EMFILE)
                server->accept_after = now_ms() + TICK_MS;
            return;
        }
        if (add(server, fd) < 0) { /* this client is turned away, and the others go on */
            net_log(fd, "turned away", errno);
            close(fd);
        }
    }
}

/* Sleeps until something can be done. Returns whether polls says what. */
static bool wait_for_events(struct server *server, int listener)
{
    bool full = server->accept_after != 0 && now_ms() < server->accept_after;

    server->polls[0].fd = full ? -1 : listener; /* poll() passes over what is negative */
    if (poll(server->polls, (nfds_t)server->count, full || net_stopping() ? TICK_MS : -1) >= 0)
        return true;
    if (errno != EINTR) /* the kernel lacks memory: to try again at once would be to spin */
        net_pause();
    return false;
}

/* Sends as much as the socket takes. Returns how much that was. */
static size_t send_some(struct client *client, const char *data, size_t size)
{
    size_t sent = 0;

    while (sent < size && !client->lost) {
        ssize_t n = send(client->fd, data + sent, size - sent, 0);
        if (n >= 0)
            sent += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            break;
        else if (errno != EINTR)
            client->lost = true;
    }
    return sent;
}

/* Sends what is in the queue. */
static void pay(struct client *client)
{
    size_t sent = send_some(client, client->queue, client->size);
    client->size -= sent;
    memmove(client->queue, client->queue + sent, client->size);
    if (client->size == 0) {
        free(client->queue);
        client->queue = NULL;
    }
}

/* Tells a client something: at once if nothing is before it in the queue, and
 * what the socket does not take is kept. Who does not read, and lets the queue
 * fill up, is lost: the others shall not wait, and memory has an end. */
static void tell(struct client *client, const char *data, size_t size)
{
    size_t sent = client->queue == NULL ? send_some(client, data, size) : 0;
    if (client->lost || sent == size)
        return;
    if (client->queue == NULL)
        client->queue = malloc(QUEUE_SIZE);
    if (client->queue == NULL || size - sent > QUEUE_SIZE - client->size) {
        client->lost = true;
        return;
    }
    memcpy(client->queue + client->size, data + sent, size - sent);
    client->size += size - sent;
}

/* Receives once from client i, and tells the others. Returns whether something came. */
static bool hear(struct server *server, size_t i)
{
    struct client *speaker = &server->clients[i];
    char piece[PIECE_SIZE];
    ssize_t got;
    do
        got = recv(speaker->fd, piece, sizeof piece, 0);
    while (got < 0 && errno == EINTR);

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    if (got <= 0) {
        speaker->lost = true;
        return false;
    }
    for (size_t j = 1; j < server->count; j++) {
        if (j != i)
            tell(&server->clients[j], piece, (size_t)got);
    }
    return true;
}

/* Drops those who are lost, and says what the others wait for. Only here do
 * clients change their places: to tell everyone something is a walk over the
 * array, in the middle of another one, and both would skip the one who moves.
 * stopping: those who are owed nothing leave, too. */
static void sweep(struct server *server, bool stopping)
{
    size_t i = 1;

    while (i < server->count) {
        const struct client *client = &server->clients[i];
        if (client->lost || (stopping && client->queue == NULL) || net_overdue())
            drop(server, i); /* and look at i again: another is there now */
        else
            server->polls[i++].events = client->queue == NULL ? POLLIN : POLLIN | POLLOUT;
    }
}

/* Gives those who are ready their turn. During a stop everyone gets one. */
static void serve_clients(struct server *server)
{
    bool stopping = net_stopping();
    bool heard = false;

    for (size_t i = 1; i < server->count; i++) {
        /* An error or a hang-up is reported unasked: recv() or send() will meet it. */
        if (server->polls[i].revents == 0 && !stopping)
            continue;
        if (server->clients[i].queue != NULL)
            pay(&server->clients[i]);
        if (!server->clients[i].lost)
            heard |= hear(server, i);
    }
    sweep(server, stopping && !heard);
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "poll(), what one client says goes to all others");
    net_catch_signals();
    int listener = net_listen(&options);

    static struct server server;
    if (add(&server, listener) < 0)
        net_die("listening socket");
    while (!net_stopping()) {
        if (!wait_for_events(&server, listener))
            continue;
        if (server.polls[0].revents != 0)
            accept_clients(&server, listener);
        serve_clients(&server);
    }
    /* Who came before the stop is served, too: a whole queue of them. */
    for (int i = 0; i < SOMAXCONN; i += ACCEPTS_PER_TURN)
        accept_clients(&server, listener);
    close(listener);
    for (serve_clients(&server); server.count > 1; serve_clients(&server))
        wait_for_events(&server, -1);
    free(server.clients);
    free(server.polls);
    return EXIT_SUCCESS;
}
