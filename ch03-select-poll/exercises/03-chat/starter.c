/* Exercise 03-3, chat: what to start from.
 *
 * A server like poll.c that still echoes, and drops who is slow to read. Look
 * for YOUR WORK: four places. */
#define _POSIX_C_SOURCE 200809L

#include "conn.h" /* set_nonblocking() */
#include "net.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
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
    bool lost; /* to be dropped */
    /* YOUR WORK: what this client has to be told yet, and how much that is */
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

/* Tells a client something. YOUR WORK: what the socket does not take is kept,
 * up to QUEUE_SIZE. Here, who is slow to read is lost at once. */
static void tell(struct client *client, const char *data, size_t size)
{
    if (send_some(client, data, size) < size)
        client->lost = true;
}

/* Receives once from client i, and echoes that. YOUR WORK: tell all others, and not the speaker. */
static void hear(struct server *server, size_t i)
{
    struct client *speaker = &server->clients[i];
    char piece[PIECE_SIZE];
    ssize_t got;
    do
        got = recv(speaker->fd, piece, sizeof piece, 0);
    while (got < 0 && errno == EINTR);

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (got <= 0)
        speaker->lost = true;
    else
        tell(speaker, piece, (size_t)got);
}

/* Gives those who are ready their turn. During a stop everyone gets one, and is
 * closed. YOUR WORK: a turn can now make others lost. When may they be dropped,
 * who waits to be writable, and who may be closed during a stop? */
static void serve_clients(struct server *server)
{
    bool stopping = net_stopping();
    size_t i = 1;

    while (i < server->count) {
        /* An error or a hang-up is reported unasked: recv() will meet it. */
        if (server->polls[i].revents == 0 && !stopping) {
            i++;
            continue;
        }
        hear(server, i);
        if (server->clients[i].lost || stopping)
            drop(server, i); /* and look at i again: another is there now */
        else
            server->polls[i++].events = POLLIN;
    }
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
