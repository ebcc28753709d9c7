/* clients.c - the connections of the load generator; see load.h.
 *
 * What connection 3 sends as its message 7 is a piece of one long pattern that
 * begins at an offset made from 3 and 7. So every byte can be checked without
 * keeping a copy, and an answer that belongs to another connection or another
 * message is found, too.
 * Needs Linux for epoll. */
#define _GNU_SOURCE /* SOCK_CLOEXEC */

#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    PATTERN_OFFSETS = 65521, /* a prime: offsets repeat as late as they can */
    RECEIVE_SIZE = 256 * 1024,
    EVENTS = 512,
    STALLED_SECONDS = 10, /* a server that answers nobody for so long answers no more */
};

struct client {
    int fd;
    size_t id;
    uint64_t allowed;  /* these three are bytes since the beginning: may be sent, */
    uint64_t sent;     /* was sent, */
    uint64_t received; /* and came back */
    int64_t *asked_ns; /* when the messages under way were begun; one slot for each */
};

struct clients {
    const struct options *options;
    struct client *all;
    struct client *active;
    int epoll;
    char *pattern;
    uint64_t answered;
    uint64_t answered_by_step; /* the end of this step: so many answers */
    struct latency *latency;
};

static char received[RECEIVE_SIZE];

static const char *pattern_of(const struct clients *clients, const struct client *client, uint64_t message)
{
    return clients->pattern + (client->id * 7919 + message * 127) % PATTERN_OFFSETS;
}

static void make_pattern(struct clients *clients)
{
    size_t size = PATTERN_OFFSETS + clients->options->size;
    uint32_t random = 1;

    clients->pattern = malloc(size);
    if (clients->pattern == NULL)
        die("out of memory");
    for (size_t i = 0; i < size; i++) {
        random = random * 1664525 + 1013904223; /* Numerical Recipes' generator */
        clients->pattern[i] = (char)(random >> 24);
    }
}

/* Opens one connection, in the order of the queue that the server accepts from. */
static int connect_one(const struct options *options, size_t id)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(options->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval limit = {.tv_sec = STALLED_SECONDS};
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("connection %zu: socket: %s", id, strerror(errno));
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        die("connection %zu: TCP_NODELAY: %s", id, strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0) /* for connect(), too */
        die("connection %zu: SO_SNDTIMEO: %s", id, strerror(errno));
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        die("connection %zu: connect: %s", id, strerror(errno));
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        die("connection %zu: fcntl: %s", id, strerror(errno));
    return fd;
}

struct clients *clients_open(const struct options *options)
{
    struct clients *clients = calloc(1, sizeof *clients);
    if (clients == NULL)
        die("out of memory");
    clients->options = options;
    clients->all = calloc(options->connections, sizeof *clients->all);
    clients->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (clients->all == NULL || clients->epoll < 0)
        die("epoll_create1: %s", strerror(errno));
    make_pattern(clients);

    size_t every = options->connections / options->active;
    for (size_t i = 0; i < options->connections; i++) {
        struct client *client = &clients->all[i];
        *client = (struct client){.fd = connect_one(options, i), .id = i};
        if (i % every != 0 || i / every >= options->active)
            continue;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
        client->asked_ns = calloc(options->pipeline, sizeof *client->asked_ns);
        if (client->asked_ns == NULL || epoll_ctl(clients->epoll, EPOLL_CTL_ADD, client->fd, &event) < 0)
            die("connection %zu: epoll_ctl: %s", i, strerror(errno));
    }
    return clients;
}

static _Noreturn void lost(const struct client *client, ssize_t result)
{
    die("connection %zu: %s after %" PRIu64 " bytes", client->id,
        result == 0 ? "the server closed it" : strerror(errno), client->received);
}

/* Sends what may be sent, one call for each message, until the socket takes no more. */
static void ask(struct clients *clients, struct client *client)
{
    size_t size = clients->options->size;

    while (client->sent < client->allowed) {
        uint64_t message = client->sent / size;
        size_t offset = (size_t)(client->sent % size);
        if (offset == 0)
            client->asked_ns[message % clients->options->pipeline] = now_ns();
        ssize_t n =
            send(client->fd, pattern_of(clients, client, message) + offset, size - offset, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0)
            lost(client, -1);
        client->sent += (uint64_t)n;
    }
}

static void check(const struct clients *clients, const struct client *client, const char *got, size_t count,
                  uint64_t message, size_t offset)
{
    const char *expected = pattern_of(clients, client, message) + offset;
    size_t i = 0;

    if (memcmp(got, expected, count) == 0)
        return;
    while (got[i] == expected[i])
        i++;
    die("connection %zu: byte %zu of message %" PRIu64 " came back as 0x%02x instead of 0x%02x", client->id,
        offset + i, message, (unsigned char)got[i], (unsigned char)expected[i]);
}

/* Goes through what has come, message by message. */
static void take(struct clients *clients, struct client *client, size_t count)
{
    const struct options *options = clients->options;
    const char *got = received;

    if (client->received + count > client->sent)
        die("connection %zu: %" PRIu64 " bytes came back, and only %" PRIu64 " were sent", client->id,
            client->received + count, client->sent);
    while (count > 0) {
        uint64_t message = client->received / options->size;
        size_t offset = (size_t)(client->received % options->size);
        size_t part = options->size - offset < count ? options->size - offset : count;
        check(clients, client, got, part, message, offset);
        got += part;
        count -= part;
        client->received += part;
        if (offset + part < options->size)
            return;
        clients->answered++;
        if (clients->latency != NULL)
            latency_add(clients->latency,
                        (uint64_t)(now_ns() - client->asked_ns[message % options->pipeline]));
        if (!options->step)
            client->allowed += options->size;
    }
}

/* Receives until a short read. The events are edge-triggered, and in epoll(7) a
 * short read is as good as EAGAIN. */
static void hear(struct clients *clients, struct client *client)
{
    for (;;) {
        ssize_t n = recv(client->fd, received, sizeof received, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0)
            lost(client, n);
        take(clients, client, (size_t)n);
        if ((size_t)n < sizeof received)
            return;
    }
}

/* All active clients may send another pipeline-full, and do. */
static void ask_all(struct clients *clients)
{
    const struct options *options = clients->options;
    size_t every = options->connections / options->active;

    for (size_t i = 0; i < options->active; i++) {
        struct client *client = &clients->all[i * every];
        client->allowed += options->pipeline * options->size;
        ask(clients, client);
    }
    clients->answered_by_step += options->active * options->pipeline;
}

uint64_t clients_run(struct clients *clients, int64_t ns, uint64_t messages, struct latency *latency)
{
    static struct epoll_event events[EVENTS];
    const struct options *options = clients->options;
    uint64_t before = clients->answered;
    int64_t end = now_ns() + ns;
    int64_t heard = now_ns();
    bool over = false;

    clients->latency = latency;
    if (clients->answered_by_step == 0 || options->step) /* the first time, or the next step */
        ask_all(clients);
    while (!over) {
        int count = epoll_wait(clients->epoll, events, EVENTS, options->spin ? 0 : 1000);
        int64_t now = now_ns();
        if (count < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        if (count > 0)
            heard = now;
        else if (now - heard > (int64_t)STALLED_SECONDS * 1000000000)
            die("no answer within %d seconds, after %" PRIu64 " messages", STALLED_SECONDS,
                clients->answered);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (events[i].events & ~(unsigned)EPOLLOUT)
                hear(clients, client);
            ask(clients, client);
        }
        uint64_t answered = clients->answered - before;
        over = answered > 0 && (now >= end || (messages > 0 && answered >= messages));
        if (options->step && clients->answered < clients->answered_by_step)
            over = false; /* measured are whole steps only: nothing is under way at their ends */
        else if (options->step && !over)
            ask_all(clients);
    }
    return clients->answered - before;
}

void clients_close(struct clients *clients)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    for (size_t i = 0; i < clients->options->connections; i++) {
        setsockopt(clients->all[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(clients->all[i].fd);
        free(clients->all[i].asked_ns);
    }
    close(clients->epoll);
    free(clients->all);
    free(clients->pattern);
    free(clients);
}
