/* Exercise 07-4, datagrams: what to start from.
 *
 * An echo server for UDP, on io_uring: it receives a datagram, sends it back, receives the next. Look for
 * YOUR WORK: five places. Needs Linux 6.0 and liburing 2.3. */
#define _GNU_SOURCE /* for liburing's header */

#include "net.h"

#include <errno.h>
#include <liburing.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    ENTRIES = 64,
    LONGEST = 1024, /* of what is echoed */
    BUFFERS = 16,   /* YOUR WORK: nobody has any yet */
};

struct server {
    struct io_uring ring;
    int socket;
    char data[LONGEST];
    struct sockaddr_storage from;
    struct iovec payload;
    struct msghdr message;
};

/* What a completion carries. */
enum { RECEIVE, SEND };

/* Opens the socket, and says where. Ends the program on an error. */
static int open_socket(const struct net_options *options)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found;
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];

    if (getaddrinfo(options->address, options->port, &hints, &found) != 0) {
        errno = EINVAL;
        net_die(options->address);
    }
    int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        net_die(options->address);
    freeaddrinfo(found);
    if (getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        net_die("getnameinfo");
    printf(address.ss_family == AF_INET6 ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host, port);
    if (fflush(stdout) != 0)
        net_die("stdout");
    return fd;
}

static struct io_uring_sqe *entry(struct server *server)
{
    while (io_uring_sq_space_left(&server->ring) == 0)
        io_uring_submit(&server->ring);
    return io_uring_get_sqe(&server->ring);
}

/* YOUR WORK: one receive, for as many datagrams as come. Each needs a buffer. What lies where in it? */
static void start_receive(struct server *server)
{
    server->payload = (struct iovec){server->data, sizeof server->data};
    server->message = (struct msghdr){.msg_name = &server->from,
                                      .msg_namelen = sizeof server->from,
                                      .msg_iov = &server->payload,
                                      .msg_iovlen = 1};
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_recvmsg(sqe, server->socket, &server->message, 0);
    io_uring_sqe_set_data64(sqe, RECEIVE);
}

/* YOUR WORK: opens a ring of BUFFERS buffers. */
static void open_buffers(struct server *server)
{
    (void)server;
}

/* Sends a datagram back to where it came from. What did not fit is lost, so the rest is no echo.
 * YOUR WORK: other datagrams come meanwhile. What does this one need for itself, and until when? */
static void answer(struct server *server, int size)
{
    if ((server->message.msg_flags & MSG_TRUNC) != 0) {
        start_receive(server);
        return;
    }
    server->payload.iov_len = (size_t)size;
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_sendmsg(sqe, server->socket, &server->message, 0);
    io_uring_sqe_set_data64(sqe, SEND);
}

/* YOUR WORK: when does the receive end, and when can it begin again? */
static void on_completion(struct server *server, const struct io_uring_cqe *cqe)
{
    if (cqe->user_data == RECEIVE && cqe->res >= 0)
        answer(server, cqe->res);
    else /* sent, or not, which is all the same with UDP */
        start_receive(server);
}

static void dispatch(struct server *server)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&server->ring, &cqe) == 0) {
        on_completion(server, cqe);
        io_uring_cqe_seen(&server->ring, cqe);
    }
}

int main(int argc, char **argv)
{
    static struct server server;
    struct net_options options;

    net_options(&options, argc, argv, "an echo of datagrams, on io_uring", NULL, 0);
    net_catch_signals();
    errno = -io_uring_queue_init(ENTRIES, &server.ring, 0);
    if (errno != 0)
        net_die("io_uring_queue_init");
    open_buffers(&server);
    server.socket = open_socket(&options);
    start_receive(&server);

    while (!net_stopping()) {
        int result = io_uring_submit_and_wait(&server.ring, 1);
        if (result < 0 && result != -EINTR && result != -EBUSY && result != -EAGAIN) {
            errno = -result;
            net_die("io_uring_submit_and_wait");
        }
        dispatch(&server);
    }
    io_uring_queue_exit(&server.ring);
    return EXIT_SUCCESS;
}
