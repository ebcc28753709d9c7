/* tour_client.c - the clients of the tour; see tour.h. */
#define _POSIX_C_SOURCE 200809L

#include "tour.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A socket that takes no byte for so long takes no more. */
enum { STALLED_MS = 100 };

static void client_close(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->waiting = false;
}

/* A connection that is being made, in non-blocking mode, or -1. */
static int begin_connect(uint16_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0)
        die("socket");
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        die("client socket");
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

void clients_connect(struct client *clients, size_t count, uint16_t port, int milliseconds)
{
    int64_t deadline = after_ms(milliseconds);

    for (size_t i = 0; i < count; i++) {
        clients[i] = (struct client){.fd = begin_connect(port)};
        memset(clients[i].message, (int)i + 1, MESSAGE_SIZE);
    }
    for (size_t i = 0; i < count; i++) {
        struct pollfd done = {.fd = clients[i].fd, .events = POLLOUT};
        if (clients[i].fd >= 0 && (poll(&done, 1, left_ms(deadline)) <= 0 || done.revents != POLLOUT))
            client_close(&clients[i]);
    }
}

void clients_close(struct client *clients, size_t count)
{
    for (size_t i = 0; i < count; i++)
        client_close(&clients[i]);
}

static void client_ask(struct client *client)
{
    client->asked_ns = now_ns();
    client->received = 0;
    client->waiting = true;
    if (send(client->fd, client->message, MESSAGE_SIZE, 0) != MESSAGE_SIZE)
        client_close(client); /* the socket's buffer is empty, so it has room: this is an error */
}

void clients_ask(struct client *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (clients[i].fd >= 0)
            client_ask(&clients[i]);
    }
}

/* Receives what there is. Returns whether the answer is complete. */
static bool client_listen(struct client *client)
{
    char answer[MESSAGE_SIZE];
    ssize_t got = recv(client->fd, answer, MESSAGE_SIZE - client->received, 0);

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return false;
    if (got <= 0 || memcmp(answer, client->message, (size_t)got) != 0) {
        client_close(client); /* the server's end of it, or not our bytes */
        return false;
    }
    client->received += (size_t)got;
    if (client->received < MESSAGE_SIZE)
        return false;
    client->waiting = false;
    client->answered = true;
    return true;
}

struct drive drive(struct client *clients, size_t count, int milliseconds, size_t limit, bool again)
{
    static uint32_t latency_ns[MAX_ANSWERS];
    struct pollfd watched[MAX_CLIENTS];
    struct drive result = {.latency_ns = latency_ns};
    int64_t begin = now_ns();
    int64_t deadline = after_ms(milliseconds);

    for (size_t i = 0; i < count; i++)
        clients[i].answered = false;
    while (result.answers < limit && left_ms(deadline) > 0) {
        for (size_t i = 0; i < count; i++) /* poll() passes over a descriptor of -1 */
            watched[i] = (struct pollfd){.fd = clients[i].waiting ? clients[i].fd : -1, .events = POLLIN};
        if (poll(watched, (nfds_t)count, left_ms(deadline)) <= 0)
            continue;
        for (size_t i = 0; i < count && result.answers < limit; i++) {
            if (watched[i].revents == 0 || !client_listen(&clients[i]))
                continue;
            latency_ns[result.answers++] = (uint32_t)(now_ns() - clients[i].asked_ns);
            if (again)
                client_ask(&clients[i]);
        }
    }
    result.seconds = (double)(now_ns() - begin) / 1e9;
    for (size_t i = 0; i < count; i++)
        result.answered += clients[i].answered;
    return result;
}

void client_flood(const struct client *client, int milliseconds)
{
    static const char bytes[65536];
    int64_t deadline = after_ms(milliseconds);
    struct pollfd room = {.fd = client->fd, .events = POLLOUT};
    ssize_t sent = 0;

    while (sent < FLOOD_MAX && left_ms(deadline) > 0 && poll(&room, 1, STALLED_MS) > 0) {
        ssize_t taken = send(client->fd, bytes, sizeof bytes, 0);
        if (taken < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return;
        sent += taken > 0 ? taken : 0;
    }
}
