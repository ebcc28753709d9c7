/* Exercise 07-4, datagrams: a solution.
 *
 * An echo server for UDP, on io_uring: one receive brings all datagrams, each in a buffer of the pool, and
 * each is sent back from there. Needs Linux 6.0 and liburing 2.3. */
#define _GNU_SOURCE /* for liburing's header */

#include "net.h"

#include <errno.h>
#include <liburing.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ENTRIES = 64,
    LONGEST = 1024, /* of what is echoed */
    BUFFERS = 16,   /* a power of two */
};

/* What is received lies in a buffer as the kernel has put it: a head, the sender's address, the datagram. An
 * answer is sent from there, so it is in use until that is done. */
struct buffer {
    char data[sizeof(struct io_uring_recvmsg_out) + sizeof(struct sockaddr_storage) + LONGEST];
    struct msghdr answer;
    struct iovec payload;
};

struct server {
    struct io_uring ring;
    int socket;
    bool receiving;       /* the kernel has the one receive that there is */
    struct msghdr wanted; /* how much room there is for an address */
    unsigned free;        /* so many buffers are in the ring, as far as we have heard */
    struct io_uring_buf_ring *buffer_ring;
    struct buffer buffers[BUFFERS];
};

/* A completion carries the number of its buffer, or this. */
enum { RECEIVE = BUFFERS };

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

/* Once, for as many datagrams as come. */
static void start_receive(struct server *server)
{
    if (server->receiving || server->free == 0)
        return;
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_recvmsg_multishot(sqe, server->socket, &server->wanted, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT; /* of group 0 */
    io_uring_sqe_set_data64(sqe, RECEIVE);
    server->receiving = true;
}

static void give_back(struct server *server, unsigned id)
{
    struct buffer *buffer = &server->buffers[id];
    io_uring_buf_ring_add(server->buffer_ring, buffer->data, sizeof buffer->data, (unsigned short)id,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(server->buffer_ring, 1);
    server->free++;
}

static void open_buffers(struct server *server)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    server->buffer_ring = aligned_alloc(page, page); /* which is more than enough */
    if (server->buffer_ring == NULL)
        net_die("memory");
    io_uring_buf_ring_init(server->buffer_ring);
    struct io_uring_buf_reg what = {.ring_addr = (uintptr_t)server->buffer_ring, .ring_entries = BUFFERS};
    errno = -io_uring_register_buf_ring(&server->ring, &what, 0);
    if (errno != 0)
        net_die("io_uring_register_buf_ring");
    for (unsigned id = 0; id < BUFFERS; id++)
        give_back(server, id);
}

/* Sends a datagram back to where it came from. What did not fit is lost, so the rest is no echo. */
static void answer(struct server *server, unsigned id, int size)
{
    struct buffer *buffer = &server->buffers[id];
    struct io_uring_recvmsg_out *head = io_uring_recvmsg_validate(buffer->data, size, &server->wanted);
    if (head == NULL || (head->flags & MSG_TRUNC) != 0) {
        give_back(server, id);
        return;
    }
    buffer->payload = (struct iovec){io_uring_recvmsg_payload(head, &server->wanted),
                                     io_uring_recvmsg_payload_length(head, size, &server->wanted)};
    buffer->answer = (struct msghdr){.msg_name = io_uring_recvmsg_name(head),
                                     .msg_namelen = head->namelen,
                                     .msg_iov = &buffer->payload,
                                     .msg_iovlen = 1};
    struct io_uring_sqe *sqe = entry(server);
    io_uring_prep_sendmsg(sqe, server->socket, &buffer->answer, 0);
    io_uring_sqe_set_data64(sqe, id);
}

static void on_completion(struct server *server, const struct io_uring_cqe *cqe)
{
    if (cqe->user_data != RECEIVE) { /* sent, or not, which is all the same with UDP */
        give_back(server, (unsigned)cqe->user_data);
        return;
    }
    if ((cqe->flags & IORING_CQE_F_MORE) == 0) /* out of buffers, or an error of a datagram before */
        server->receiving = false;
    if ((cqe->flags & IORING_CQE_F_BUFFER) == 0)
        return;
    server->free--;
    if (cqe->res < 0)
        give_back(server, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    else
        answer(server, cqe->flags >> IORING_CQE_BUFFER_SHIFT, cqe->res);
}

static void dispatch(struct server *server)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&server->ring, &cqe) == 0) {
        on_completion(server, cqe);
        io_uring_cqe_seen(&server->ring, cqe);
    }
    start_receive(server);
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
    server.wanted.msg_namelen = sizeof(struct sockaddr_storage);
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
    free(server.buffer_ring);
    return EXIT_SUCCESS;
}
