/* unit_proactor.c - unit tests of the proactor, each with every engine that works here.
 *
 * proactor.c is compiled in here, so that a test can give the loop one turn after the other; the engines are
 * as in a server, and their sockets are real ones over TCP. The linker (--wrap) sends the calls with which a
 * ring is made and submitted to this file, which can make it small, or play an older kernel. Needs Linux, and
 * a linker with --wrap (GNU ld, gold, lld). */
#define _GNU_SOURCE /* for seccomp(2), and struct tcp_info */

#include "proactor.c" /* NOLINT(bugprone-suspicious-include): for one turn of the loop */

#include "tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHAPTER "the book, chapter 7, "
#define PIECES CHAPTER "\"The server, piece by piece\""
#define WILD CHAPTER "\"Found in the wild\""

enum { KiB = 1024, MiB = 1024 * 1024, MOST = 800, CREDIT = 64 * KiB };

/* ---- small rings, and older kernels ---- */

static unsigned small_sq, small_cq;
static bool no_limits, no_single_issuer;

int __real_io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                                      struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                                      struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
    if (no_single_issuer && (params->flags & IORING_SETUP_SINGLE_ISSUER) != 0)
        return -EINVAL;
    if (small_cq != 0)
        params->cq_entries = small_cq;
    return __real_io_uring_queue_init_params(small_sq != 0 ? small_sq : entries, ring, params);
}

/* A kernel before 6.17 refuses a multishot receive with a limit: so does this one, with a flag nobody knows.
 */
static void spoil_limits(const struct io_uring *ring)
{
    for (unsigned i = *ring->sq.khead; no_limits && i != ring->sq.sqe_tail; i++) {
        struct io_uring_sqe *sqe = &ring->sq.sqes[i & *ring->sq.kring_mask];
        if (sqe->opcode == IORING_OP_RECV && sqe->file_index != 0)
            sqe->ioprio |= 1U << 15;
    }
}

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring)
{
    spoil_limits(ring);
    return __real_io_uring_submit(ring);
}

int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr)
{
    spoil_limits(ring);
    return __real_io_uring_submit_and_wait(ring, wait_nr);
}

int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
                                            unsigned wait_nr, struct __kernel_timespec *ts, sigset_t *mask);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
                                            unsigned wait_nr, struct __kernel_timespec *ts, sigset_t *mask);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
                                            unsigned wait_nr, struct __kernel_timespec *ts, sigset_t *mask)
{
    spoil_limits(ring);
    return __real_io_uring_submit_and_wait_timeout(ring, cqe, wait_nr, ts, mask);
}

/* ---- an application that notes what it is told ---- */

static struct proactor *p;
static const char *engine;
static bool is_uring, must_work;
static struct proactor_options wanted;
static struct sockaddr_in address;

static struct proactor_accept acceptor;
static int accept_ends;
static size_t client_count;
static unsigned clock_of_completions; /* counts them, so that their order is known */

/* Both ends of a connection, and what has completed on the one that the proactor has. */
struct end {
    struct proactor_receive receive;
    struct proactor_send send;
    struct proactor_close close;
    int peer; /* the other end */
    size_t received;
    unsigned pieces, receive_ends, sends, closes;
    unsigned receive_end_at, send_at, close_at;
    bool keeps; /* the pieces */
    struct proactor_piece kept[64];
    unsigned kept_count;
    bool right; /* all bytes came as the peer sent them */
    size_t largest;
};

static struct end ends[MOST];

static unsigned char pattern_of(const struct end *end, size_t position)
{
    return (unsigned char)(position * 131 + position / 251 + (size_t)(end - ends) * 17);
}

static struct end *end_of(const void *member, size_t offset)
{
    return (struct end *)((uintptr_t)member - offset);
}

static void on_piece(struct proactor *proactor, struct proactor_receive *receive, struct proactor_piece piece)
{
    struct end *end = end_of(receive, offsetof(struct end, receive));
    ck_assert_ptr_eq(proactor, p);
    ck_assert_msg(end->closes == 0, "a piece came after the close had completed");
    if (!receive->operation.pending) {
        end->receive_ends++;
        end->receive_end_at = ++clock_of_completions;
    }
    if (piece.size == 0) {
        ck_assert_msg(!receive->operation.pending,
                      "a completion without a piece, and the receive is pending");
        return;
    }
    end->pieces++;
    for (uint32_t i = 0; i < piece.size; i++)
        end->right = end->right && (unsigned char)piece.data[i] == pattern_of(end, end->received + i);
    end->received += piece.size;
    if (end->keeps)
        end->kept[end->kept_count++] = piece;
    else
        proactor_give_back(p, piece);
}

static void on_sent(struct proactor *proactor, struct proactor_send *send)
{
    struct end *end = end_of(send, offsetof(struct end, send));
    ck_assert_ptr_eq(proactor, p);
    ck_assert_msg(!send->operation.pending, "a send has completed, and is pending");
    end->sends++;
    end->send_at = ++clock_of_completions;
}

static void on_closed(struct proactor *proactor, struct proactor_close *close)
{
    struct end *end = end_of(close, offsetof(struct end, close));
    ck_assert_ptr_eq(proactor, p);
    ck_assert_int_eq(close->operation.error, 0);
    end->closes++;
    end->close_at = ++clock_of_completions;
}

static bool one_is_enough; /* the first client ends the accept */

static void on_client(struct proactor *proactor, struct proactor_accept *accept, proactor_socket client)
{
    ck_assert_ptr_eq(proactor, p);
    if (one_is_enough)
        proactor_cancel(p, &accept->operation);
    if (!accept->operation.pending) {
        accept_ends++;
        return;
    }
    struct end *end = &ends[client_count++];
    end->receive = (struct proactor_receive){{.socket = client}, on_piece, CREDIT, 0};
    end->send = (struct proactor_send){.operation.socket = client, .completed = on_sent};
    end->close = (struct proactor_close){{.socket = client}, on_closed};
    end->right = true;
}

/* ---- the loop, a turn at a time ---- */

static void on_tick(struct proactor *proactor, struct proactor_timer *timer)
{
    (void)proactor;
    (void)timer;
}

/* Gives the loop turns until the condition holds, for ten seconds at most. */
#define UNTIL(condition)                                                                   \
    do {                                                                                   \
        int64_t deadline = clock_ms() + 10000;                                             \
        while (!(condition)) {                                                             \
            one_turn(5);                                                                   \
            ck_assert_msg(clock_ms() < deadline, "waited 10 seconds for: %s", #condition); \
        }                                                                                  \
    } while (0)

static struct proactor_timer tick;

static void one_turn(int64_t most_ms)
{
    p->now_ms = clock_ms();
    ck_assert_int_eq(proactor_set_timer(p, &tick, most_ms), 0);
    ck_assert_int_eq(turn(p), 0);
}

/* Turns for so long, in which nothing that the test forbids may happen. Returns how many it took. */
static unsigned turns_for(int64_t milliseconds)
{
    unsigned count = 0;
    for (int64_t end = clock_ms() + milliseconds; clock_ms() < end; count++)
        one_turn(20);
    return count;
}

static void open_proactor(void)
{
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    wanted.engine = engine;
    p = proactor_create(&wanted);
    if (p == NULL && is_uring && !must_work)
        tap_skip("no io_uring here: %s", strerror(errno));
    ck_assert_ptr_nonnull(p);
    ck_assert_str_eq(p->engine->name, engine);
    tick = (struct proactor_timer){.expired = on_tick}; /* it is not set here, wherever it was */
    const int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listener, SOMAXCONN), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    acceptor =
        (struct proactor_accept){.operation.socket = (proactor_socket)listener, .completed = on_client};
    proactor_accept(p, &acceptor);
}

/* A small receive buffer on the peer's side fills soon. */
static int connect_peer(int receive_buffer)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    const struct timeval ten = {.tv_sec = 10};
    if (receive_buffer > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &ten, sizeof ten);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Opens the proactor, if there is none, and a connection. */
static struct end *connection(void)
{
    if (p == NULL)
        open_proactor();
    size_t before = client_count;
    int fd = connect_peer(4096);
    UNTIL(client_count == before + 1);
    ends[before].peer = fd;
    return &ends[before];
}

/* The peer sends the next bytes of its pattern. */
static void peer_sends(const struct end *end, size_t from, size_t size)
{
    unsigned char *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = pattern_of(end, from + i);
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(end->peer, data + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            sent += (size_t)n;
        else
            one_turn(5);
    }
    free(data);
}

/* The peer reads size bytes, while the loop runs; returns whether they are those of data. */
static bool peer_gets(const struct end *end, const char *data, size_t size)
{
    char *back = malloc(size);
    size_t got = 0;
    for (int64_t deadline = clock_ms() + 10000; got < size && clock_ms() < deadline;) {
        ssize_t n = recv(end->peer, back + got, size - got, MSG_DONTWAIT);
        if (n == 0)
            break;
        if (n > 0)
            got += (size_t)n;
        else
            one_turn(5);
    }
    bool same = got == size && memcmp(back, data, size) == 0;
    free(back);
    return same;
}

static void peer_resets(struct end *end)
{
    const struct linger at_once = {1, 0};
    setsockopt(end->peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(end->peer);
}

static char *some_data(size_t size)
{
    char *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 7 + i / 253);
    return data;
}

static void begin_send(struct end *end, const char *data, size_t size, bool at_once)
{
    end->send.data = data;
    end->send.size = size;
    end->send.operation.at_once = at_once;
    proactor_send(p, &end->send);
}

/* Defines a test, and a row for each engine. */
#define BOTH(name)                   \
    static void name(void);          \
    START_TEST(name##_with_io_uring) \
    {                                \
        engine = "io_uring";         \
        is_uring = true;             \
        name();                      \
    }                                \
    END_TEST                         \
    START_TEST(name##_emulated)      \
    {                                \
        engine = "emulated";         \
        name();                      \
    }                                \
    END_TEST                         \
    static void name(void)

/* The end of a test: nothing that was begun is left over when all is closed, and each has completed once. */
static void close_all(void)
{
    for (size_t i = 0; i < client_count; i++) {
        if (ends[i].closes == 0)
            proactor_close(p, &ends[i].close);
    }
    for (size_t i = 0; i < client_count; i++)
        UNTIL(ends[i].closes == 1);
    proactor_cancel(p, &acceptor.operation);
    UNTIL(accept_ends == 1);
    ck_assert_uint_eq(p->pending, 0);
    turns_for(10);
    proactor_destroy(p);
    ck_assert_int_eq(accept_ends, 1);
}

/* ---- accept ---- */

BOTH(accepts_each_once)
{
    for (unsigned i = 0; i < 5; i++) {
        connection();
        ck_assert_uint_eq(client_count, i + 1);
    }
    turns_for(20);
    ck_assert_uint_eq(client_count, 5);
    ck_assert(acceptor.operation.pending);
    close_all();
}

BOTH(accept_cancelled)
{
    enum { WAITING = 100 };
    int fds[WAITING];
    connection();
    for (int i = 0; i < WAITING; i++)
        fds[i] = connect_peer(0);
    proactor_cancel(p, &acceptor.operation);
    UNTIL(accept_ends == 1);
    ck_assert_int_eq(acceptor.operation.error, ECANCELED);
    ck_assert_msg(client_count == 1 + WAITING, "%d had come before the cancel, and %zu were taken in",
                  WAITING, client_count - 1);
    int late = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_msg(connect(late, (struct sockaddr *)&address, sizeof address) < 0,
                  "the accept has ended, and the port still listens");
    for (int i = 0; i < WAITING; i++)
        close(fds[i]);
    for (size_t i = 0; i < client_count; i++)
        proactor_close(p, &ends[i].close);
    for (size_t i = 0; i < client_count; i++)
        UNTIL(ends[i].closes == 1);
    ck_assert_int_eq(accept_ends, 1);
    ck_assert_uint_eq(p->pending, 0);
}

BOTH(accept_cancelled_by_its_handler)
{
    one_is_enough = true;
    open_proactor();
    for (int i = 0; i < 5; i++)
        connect_peer(0);
    UNTIL(accept_ends == 1);
    ck_assert_int_eq(acceptor.operation.error, ECANCELED);
    ck_assert_uint_eq(client_count, 5);
    turns_for(50);
    ck_assert_int_eq(accept_ends, 1);
    for (size_t i = 0; i < client_count; i++)
        proactor_close(p, &ends[i].close);
    for (size_t i = 0; i < client_count; i++)
        UNTIL(ends[i].closes == 1);
    ck_assert_uint_eq(p->pending, 0);
}

/* What is no listening socket is the handler's affair, and not the end of the program. */
BOTH(accept_on_no_socket)
{
    open_proactor();
    proactor_cancel(p, &acceptor.operation);
    UNTIL(accept_ends == 1);
    acceptor.operation.at_once = false;
    acceptor.operation.socket = 600; /* nobody has opened this */
    proactor_accept(p, &acceptor);
    UNTIL(accept_ends == 2);
    ck_assert_int_eq(acceptor.operation.error, EBADF);
    acceptor.operation.socket = (proactor_socket)socket(AF_INET, SOCK_STREAM, 0);
    proactor_accept(p, &acceptor);
    UNTIL(accept_ends == 3);
    ck_assert_int_eq(acceptor.operation.error, EINVAL);
    ck_assert_uint_eq(p->pending, 0);
}

BOTH(accept_out_of_descriptors)
{
    enum { PLACES = 4, CLIENTS = 6 };
    struct rlimit limit, low;
    getrlimit(RLIMIT_NOFILE, &limit);
    low = limit;
    if (is_uring) { /* the table is made for this limit */
        low.rlim_cur = 8 + PLACES;
        setrlimit(RLIMIT_NOFILE, &low);
        open_proactor();
        setrlimit(RLIMIT_NOFILE, &limit);
    } else {
        open_proactor();
    }
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = connect_peer(0);
    if (!is_uring) {
        int next = dup(0);
        close(next);
        low.rlim_cur = (rlim_t)next + PLACES;
        setrlimit(RLIMIT_NOFILE, &low);
    }
    UNTIL(client_count == PLACES);
    unsigned turns = turns_for(300);
    ck_assert_msg(turns < 60, "out of descriptors, the loop turned %u times in 300 ms", turns);
    ck_assert_uint_eq(client_count, PLACES);
    proactor_close(p, &ends[0].close);
    UNTIL(client_count == PLACES + 1);
    proactor_close(p, &ends[1].close);
    UNTIL(client_count == CLIENTS);
    close_all();
    close(fds[0]);
}

/* ---- receive ---- */

BOTH(receives_what_comes)
{
    enum { TOTAL = 3 * MiB + 11 };
    struct end *end = connection();
    end->receive.limit = TOTAL;
    proactor_receive(p, &end->receive);
    ck_assert_uint_eq(end->pieces, 0); /* not from inside the call */
    peer_sends(end, 0, 5);
    UNTIL(end->received == 5);
    peer_sends(end, 5, TOTAL - 5);
    UNTIL(end->received == TOTAL);
    ck_assert(end->right);
    ck_assert_msg(end->receive_ends == 1 && !end->receive.operation.pending,
                  "all of its credit has come, and the receive has ended %u times", end->receive_ends);
    close_all();
    ck_assert_uint_eq(end->receive_ends, 1);
}

BOTH(receive_limit)
{
    struct end *end = connection();
    static const uint32_t limits[] = {1, 1000, 100000, 3, 65536, 65536, 777};
    size_t total = 0;
    peer_sends(end, 0, 100000);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        end->receive.limit = limits[i];
        proactor_receive(p, &end->receive);
        if (i == 1)
            peer_sends(end, 100000, 200000);
        total += limits[i];
        UNTIL(end->receive_ends == i + 1);
        turns_for(10);
        ck_assert_msg(end->received == total, "a credit of %u bytes, and %zu have come in all instead of %zu",
                      limits[i], end->received, total);
    }
    ck_assert(end->right);
    close_all();
}

BOTH(receive_end)
{
    struct end *end = connection();
    proactor_receive(p, &end->receive);
    peer_sends(end, 0, 100);
    shutdown(end->peer, SHUT_WR);
    UNTIL(end->receive_ends == 1);
    ck_assert_int_eq(end->receive.operation.error, 0);
    ck_assert_uint_eq(end->received, 100);
    struct end *other = connection();
    proactor_receive(p, &other->receive);
    turns_for(10);
    peer_resets(other);
    UNTIL(other->receive_ends == 1);
    ck_assert_int_eq(other->receive.operation.error, ECONNRESET);
    close_all();
}

BOTH(receive_at_once)
{
    struct end *end = connection();
    end->receive.operation.at_once = true;
    proactor_receive(p, &end->receive);
    UNTIL(end->receive_ends == 1);
    ck_assert_int_eq(end->receive.operation.error, EAGAIN);
    peer_sends(end, 0, 100);
    turns_for(10);
    proactor_receive(p, &end->receive);
    UNTIL(end->receive_ends == 2);
    ck_assert_int_eq(end->receive.operation.error, 0);
    ck_assert_uint_eq(end->received, 100);
    shutdown(end->peer, SHUT_WR);
    turns_for(10);
    proactor_receive(p, &end->receive);
    UNTIL(end->receive_ends == 3);
    ck_assert_int_eq(end->receive.operation.error, 0);
    close_all();
}

/* ---- buffers ---- */

/* Four buffers, and thirty connections who all have something to say. */
static void exhaust_buffers(void)
{
    enum { CONNECTIONS = 30, SIZE = 100000 };
    wanted.buffers = 4;
    open_proactor();
    for (int i = 0; i < CONNECTIONS; i++)
        connection();
    for (int i = 0; i < CONNECTIONS; i++) {
        ends[i].keeps = true;
        ends[i].receive.limit = SIZE;
        proactor_receive(p, &ends[i].receive);
        peer_sends(&ends[i], 0, SIZE);
    }
    /* Whoever keeps a piece gives it back a while later; all get their turn, again and again. */
    for (bool all = false; !all;) {
        turns_for(2);
        all = true;
        for (int i = CONNECTIONS - 1; i >= 0; i--) { /* in another order than they were lent */
            while (ends[i].kept_count > 0)
                proactor_give_back(p, ends[i].kept[--ends[i].kept_count]);
            all = all && ends[i].received == SIZE;
        }
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        ck_assert(ends[i].right);
        ck_assert_uint_eq(ends[i].receive_ends, 1);
    }
}

BOTH(buffers_exhausted)
{
    exhaust_buffers();
    close_all();
}

BOTH(buffers_exhausted_by_small_pieces)
{
    enum { CONNECTIONS = 30 };
    wanted.buffers = 2;
    open_proactor();
    for (int i = 0; i < CONNECTIONS; i++) {
        struct end *end = connection();
        end->keeps = i < 2; /* have both buffers */
        proactor_receive(p, &end->receive);
        peer_sends(end, 0, 1);
        turns_for(2);
    }
    turns_for(20);
    for (int i = 0; i < CONNECTIONS; i++)
        ck_assert_uint_eq(ends[i].received, i < 2);
    proactor_give_back(p, ends[0].kept[0]); /* one comes free: each of the others needs it */
    for (int i = 2; i < CONNECTIONS; i++)
        UNTIL(ends[i].received == 1);
    proactor_give_back(p, ends[1].kept[0]);
    close_all();
}

/* The receive and what ends it are begun in one turn, when there are bytes, and no buffer for them. */
BOTH(buffers_missed_in_the_same_turn)
{
    wanted.buffers = 1;
    struct end *first = connection();
    first->keeps = true;
    proactor_receive(p, &first->receive);
    peer_sends(first, 0, 1);
    UNTIL(first->pieces == 1);
    struct end *second = connection();
    struct end *third = connection();
    peer_sends(second, 0, 1);
    peer_sends(third, 0, 1);
    proactor_receive(p, &second->receive);
    proactor_receive(p, &third->receive);
    proactor_cancel(p, &second->receive.operation);
    proactor_close(p, &third->close);
    UNTIL(second->receive_ends == 1 && third->closes == 1);
    ck_assert_int_eq(second->receive.operation.error, ECANCELED);
    ck_assert_int_eq(third->receive.operation.error, ECANCELED);
    ck_assert_uint_eq(second->received + third->received, 0);
    proactor_give_back(p, first->kept[0]);
    proactor_receive(p, &second->receive);
    UNTIL(second->received == 1);
    close_all();
}

BOTH(buffers_waited_for_and_cancelled)
{
    wanted.buffers = 1;
    struct end *first = connection();
    first->keeps = true;
    proactor_receive(p, &first->receive);
    peer_sends(first, 0, 1);
    UNTIL(first->pieces == 1);
    for (int i = 1; i < 4; i++) {
        struct end *end = connection();
        proactor_receive(p, &end->receive);
        peer_sends(end, 0, 1);
    }
    turns_for(20); /* the three wait for the buffer */
    proactor_cancel(p, &ends[1].receive.operation);
    UNTIL(ends[1].receive_ends == 1);
    ck_assert_int_eq(ends[1].receive.operation.error, ECANCELED);
    ends[1].receive_ends = 0;
    proactor_receive(p, &ends[1].receive); /* it is not in any queue yet, or is just being begun */
    proactor_cancel(p, &ends[1].receive.operation);
    UNTIL(ends[1].receive_ends == 1);
    ck_assert_int_eq(ends[1].receive.operation.error, ECANCELED);
    proactor_close(p, &ends[2].close);
    UNTIL(ends[2].closes == 1);
    ck_assert_uint_eq(ends[2].receive_ends, 1);
    proactor_give_back(p, first->kept[0]);
    UNTIL(ends[3].received == 1);
    close_all();
}

#ifdef BORDERS
BOTH(buffers_are_guarded)
{
    struct end *end = connection();
    end->keeps = true;
    proactor_receive(p, &end->receive);
    peer_sends(end, 0, 4096);
    UNTIL(end->received == 4096);
    struct proactor_piece piece = end->kept[0];
    ck_assert(__asan_region_is_poisoned(piece.data, piece.size) == NULL);
    proactor_give_back(p, piece);
    ck_assert_msg(__asan_address_is_poisoned(piece.data + 8) != 0, "a piece was given back, and can be read");
    close_all();
}
#endif

/* ---- send ---- */

BOTH(sends_all)
{
    enum { SIZE = 4 * MiB };
    struct end *end = connection();
    char *data = some_data(SIZE);
    begin_send(end, data, SIZE, false);
    ck_assert_uint_eq(end->sends, 0);
    turns_for(20);
    ck_assert_uint_eq(end->sends, 0); /* the peer does not read yet */
    ck_assert_msg(peer_gets(end, data, SIZE), "of 4 MiB not all arrived, or others");
    UNTIL(end->sends == 1);
    ck_assert_uint_eq(end->send.sent, SIZE);
    ck_assert_int_eq(end->send.operation.error, 0);
    close_all();
    ck_assert_uint_eq(end->sends, 1);
    free(data);
}

BOTH(sends_at_once)
{
    enum { SIZE = 4 * MiB };
    struct end *end = connection();
    char *data = some_data(SIZE);
    begin_send(end, data, SIZE, true);
    UNTIL(end->sends == 1);
    size_t first = end->send.sent;
    ck_assert_int_eq(end->send.operation.error, 0);
    ck_assert_msg(first > 0 && first < SIZE, "the peer does not read, and %zu bytes went out at once", first);
    turns_for(20);
    ck_assert_msg(peer_gets(end, data, first), "what went out at once did not arrive");
    ck_assert_uint_eq(end->sends, 1);
    close_all();
    free(data);
}

/* Its completion may come together with the next piece, but not wait for it. */
BOTH(sends_at_once_while_receiving)
{
    struct end *end = connection();
    proactor_receive(p, &end->receive);
    turns_for(20);
    begin_send(end, "hello", 5, true);
    proactor_cancel_timer(p, &tick); /* one that is put off may end the wait when it was due at first */
    int64_t before = clock_ms();
    while (end->sends == 0 && clock_ms() - before < 3000)
        one_turn(3000);
    ck_assert_msg(clock_ms() - before < 1000, "the peer says nothing, and the send completed after %d ms",
                  (int)(clock_ms() - before));
    ck_assert_uint_eq(end->send.sent, 5);
    close_all();
}

/* More than fits into the 32 bits of the kernel's. */
BOTH(sends_more_than_fits_a_number)
{
    enum { SOME = 100000 };
    size_t size = (size_t)4 << 30;
    if (size == 0)
        tap_skip("no memory is so large here");
    struct end *end = connection();
    char *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
        tap_skip("4 GiB of memory: %s", strerror(errno));
    begin_send(end, data, size, false);
    ck_assert_msg(peer_gets(end, data, SOME), "the first bytes did not come, or others");
    ck_assert_uint_eq(end->sends, 0);
    proactor_close(p, &end->close);
    UNTIL(end->closes == 1);
    ck_assert_uint_eq(end->sends, 1);
    munmap(data, size);
    close_all();
}

BOTH(send_to_nobody)
{
    struct end *end = connection();
    peer_resets(end);
    turns_for(20);
    begin_send(end, "hello", 5, false);
    UNTIL(end->sends == 1);
    int error = end->send.operation.error;
    ck_assert_msg(error == EPIPE || error == ECONNRESET, "to a peer that has reset: %s", strerror(error));
    begin_send(end, "hello", 5,
               false); /* the first one has heard of the reset; the next would raise SIGPIPE */
    UNTIL(end->sends == 2);
    ck_assert_int_eq(end->send.operation.error, EPIPE);
    close_all();
}

BOTH(send_timeout)
{
    enum { SIZE = 4 * MiB };
    char *data = some_data(SIZE);
    struct end *end = connection();
    struct end *quick = connection();
    quick->send.timeout_ms = 60;
    begin_send(quick, data, 1000, false);
    end->send.timeout_ms = 60;
    int64_t before = clock_ms();
    begin_send(end, data, SIZE, false);
    UNTIL(quick->sends == 1);
    ck_assert_int_eq(quick->send.operation.error, 0);
    UNTIL(end->sends == 1);
    ck_assert_int_eq(end->send.operation.error, ETIMEDOUT);
    ck_assert_msg(clock_ms() - before >= 55, "after %d ms", (int)(clock_ms() - before));
    ck_assert_msg(end->send.sent > 0 && end->send.sent < SIZE, "sent: %zu", end->send.sent);
    ck_assert(peer_gets(end, data, end->send.sent));
    quick->send.timeout_ms = 0; /* the old timeout is not this one's */
    ck_assert(peer_gets(quick, data, 1000));
    begin_send(quick, data, SIZE, false);
    turns_for(150);
    ck_assert_uint_eq(quick->sends, 1);
    ck_assert(peer_gets(quick, data, SIZE));
    UNTIL(quick->sends == 2);
    close_all();
    free(data);
}

BOTH(zero_copy_owns_its_data)
{
    enum { SIZE = 2 * MiB };
    wanted.zero_copy_from = 1;
    struct end *end = connection();
    char *data = some_data(SIZE);
    char *copy = some_data(SIZE);
    begin_send(end, data, SIZE, false);
    turns_for(50);
    /* The memory is ours again at the completion, whatever the peer has read by then. */
    size_t got = 0;
    bool same = true;
    bool ours = false;
    for (int64_t deadline = clock_ms() + 10000; got < SIZE && clock_ms() < deadline;) {
        char back[16 * KiB];
        if (!ours && end->sends == 1) {
            memset(data, 'X', SIZE);
            ours = true;
        }
        ssize_t n = recv(end->peer, back, sizeof back, MSG_DONTWAIT);
        if (n > 0) {
            same = same && memcmp(back, copy + got, (size_t)n) == 0;
            got += (size_t)n;
        }
        one_turn(1);
    }
    ck_assert_msg(got == SIZE && same, "the completion came while the kernel still used the memory");
    UNTIL(end->sends == 1);
    ck_assert_uint_eq(end->send.sent, SIZE);
    close_all();
    ck_assert_uint_eq(end->sends, 1);
    free(data);
    free(copy);
}

/* What is not copied is locked in memory, and that is limited, but for the superuser. */
BOTH(zero_copy_beyond_the_limit)
{
    enum { SIZE = 4 * MiB };
    const struct rlimit little = {MiB, MiB}; /* the rings need some of it, too */
    ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &little), 0);
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
        tap_skip("cannot become another user: %s", strerror(errno));
    wanted.zero_copy_from = 1;
    struct end *end = connection();
    char *data = some_data(SIZE);
    begin_send(end, data, SIZE, false);
    ck_assert_msg(peer_gets(end, data, SIZE), "the bytes did not come, or others");
    UNTIL(end->sends == 1);
    ck_assert_int_eq(end->send.operation.error, 0);
    close_all();
    free(data);
}

BOTH(zero_copy_closed)
{
    enum { SIZE = 2 * MiB };
    wanted.zero_copy_from = 1;
    struct end *end = connection();
    char *data = some_data(SIZE);
    begin_send(end, data, SIZE, false);
    turns_for(50);
    int64_t before = clock_ms();
    proactor_close(p, &end->close); /* the peer does not read */
    UNTIL(end->closes == 1);
    ck_assert_msg(clock_ms() - before < 3000, "the close took %d ms", (int)(clock_ms() - before));
    ck_assert_uint_eq(end->sends, 1);
    ck_assert_uint_lt(end->send_at, end->close_at);
    close_all();
    free(data);
}

/* ---- files ---- */

static struct proactor_send_file file_send;
static unsigned files_sent;

static void on_file_sent(struct proactor *proactor, struct proactor_send *send)
{
    (void)proactor;
    ck_assert_ptr_eq(send, &file_send.send);
    files_sent++;
}

static int file_with(const char *data, size_t size)
{
    char name[] = "/tmp/unit_proactor.XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    return fd;
}

BOTH(sends_a_file)
{
    enum { SIZE = 12 * MiB, FROM = 1234 };
    struct end *end = connection();
    char *data = some_data(SIZE);
    int file = file_with(data, SIZE);
    file_send = (struct proactor_send_file){.send = {.operation.socket = end->close.operation.socket,
                                                     .completed = on_file_sent,
                                                     .size = SIZE - FROM},
                                            .file = file,
                                            .offset = FROM};
    proactor_send_file(p, &file_send);
    ck_assert_msg(peer_gets(end, data + FROM, SIZE - FROM), "the file's bytes did not come, or others");
    UNTIL(files_sent == 1);
    ck_assert_int_eq(file_send.send.operation.error, 0);
    ck_assert_uint_eq(file_send.send.sent, SIZE - FROM);

    file_send.offset = SIZE - 10; /* more is asked for than there is */
    file_send.send.size = 11;
    proactor_send_file(p, &file_send);
    UNTIL(files_sent == 2);
    ck_assert_int_eq(file_send.send.operation.error, ENODATA);

    file_send.send.size = 0; /* an empty file is none that is too short */
    proactor_send_file(p, &file_send);
    UNTIL(files_sent == 3);
    ck_assert_int_eq(file_send.send.operation.error, 0);

    file_send.offset = 0;
    file_send.send.size = SIZE;
    proactor_send_file(p, &file_send);
    turns_for(20);
    proactor_close(p, &end->close);
    UNTIL(end->closes == 1);
    ck_assert_uint_eq(files_sent, 4);
    ck_assert_int_eq(file_send.send.operation.error, ECANCELED);
    close_all();
    free(data);
}

/* A head, and the rest of a file behind it, which is not in memory for the second one, and for which there is
 * no descriptor the third time: three ways for an engine to send it. Then the end. */
BOTH(sends_a_head)
{
    enum { HEAD = 5000, SIZE = 3 * MiB };
    char *data = some_data(HEAD + SIZE);
    for (int round = 0; round < 6; round++) {
        size_t size = round % 2 == 0 ? SIZE : 1; /* large, or small */
        struct end *end = connection();
        struct rlimit limit;
        int file = file_with(data + HEAD, size);
        ck_assert_int_eq(fdatasync(file), 0);
        if (round / 2 == 1)
            (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        getrlimit(RLIMIT_NOFILE, &limit);
        if (round / 2 == 2)
            setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, limit.rlim_max});
        files_sent = 0;
        file_send = (struct proactor_send_file){.file = file, .head = data, .head_size = HEAD};
        file_send.send =
            (struct proactor_send){.operation = {.socket = end->close.operation.socket,
                                                 .at_once = true}, /* which makes no difference */
                                   .completed = on_file_sent,
                                   .size = HEAD + size,
                                   .last = true};
        proactor_send_file(p, &file_send);
        ck_assert_msg(peer_gets(end, data, HEAD + size), "the head or the file did not come, or others");
        UNTIL(files_sent == 1);
        setrlimit(RLIMIT_NOFILE, &limit);
        ck_assert_int_eq(file_send.send.operation.error, 0);
        ck_assert_uint_eq(file_send.send.sent, HEAD + size);
        char byte;
        ck_assert_msg(recv(end->peer, &byte, 1, 0) == 0, "the peer does not hear of the end");
        proactor_receive(p, &end->receive); /* and what it says is heard still */
        peer_sends(end, 0, 100);
        UNTIL(end->received == 100);
        proactor_close(p, &end->close);
        UNTIL(end->closes == 1);
        close(file);
    }
    close_all();
    free(data);
}

/* The last send, and a close that forgets what the peer has not taken. */
BOTH(ends_at_last)
{
    enum { SIZE = 8 * MiB };
    char *data = some_data(SIZE);
    struct end *end = connection();
    char byte;
    end->send.last = true;
    begin_send(end, data, SIZE, false);
    ck_assert_msg(peer_gets(end, data, SIZE), "the bytes did not come, or others");
    UNTIL(end->sends == 1);
    ck_assert_int_eq(end->send.operation.error, 0);
    ck_assert_msg(recv(end->peer, &byte, 1, 0) == 0, "the peer does not hear of the end");

    end = connection();
    begin_send(end, data, SIZE, false);
    turns_for(20);
    ck_assert_uint_eq(end->sends, 0);
    end->close.operation.at_once = true;
    proactor_close(p, &end->close);
    UNTIL(end->closes == 1);
    ssize_t n;
    while ((n = recv(end->peer, data, SIZE, 0)) > 0)
        continue;
    ck_assert_msg(n < 0 && errno == ECONNRESET, "the close was not at once: %s",
                  n == 0 ? "FIN" : strerror(errno));

    end = connection(); /* and the same if nothing is pending, but something has not been taken */
    begin_send(end, data, SIZE, true);
    UNTIL(end->sends == 1);
    end->close.operation.at_once = true;
    proactor_close(p, &end->close);
    UNTIL(end->closes == 1);
    while ((n = recv(end->peer, data, SIZE, 0)) > 0)
        continue;
    ck_assert_msg(n < 0 && errno == ECONNRESET, "the second close was not at once: %s",
                  n == 0 ? "FIN" : strerror(errno));
    close_all();
    free(data);
}

/* ---- cancel and close ---- */

BOTH(cancels_one_operation)
{
    enum { SIZE = 4 * MiB };
    struct end *end = connection();
    char *data = some_data(SIZE);
    proactor_receive(p, &end->receive);
    begin_send(end, data, SIZE, false);
    turns_for(20);
    proactor_cancel(p, &end->receive.operation);
    ck_assert_uint_eq(end->receive_ends, 0); /* not from inside the call */
    UNTIL(end->receive_ends == 1);
    ck_assert_int_eq(end->receive.operation.error, ECANCELED);
    turns_for(10);
    ck_assert_uint_eq(end->sends, 0);
    proactor_cancel(p, &end->send.operation);
    UNTIL(end->sends == 1);
    ck_assert_int_eq(end->send.operation.error, ECANCELED);
    ck_assert(peer_gets(end, data, end->send.sent));
    proactor_cancel(p, &end->receive.operation); /* no harm */

    proactor_receive(p, &end->receive);
    proactor_cancel(p, &end->receive.operation); /* it has not even been submitted */
    UNTIL(end->receive_ends == 2);
    ck_assert_int_eq(end->receive.operation.error, ECANCELED);
    proactor_receive(p, &end->receive);
    peer_sends(end, 0, 100);
    UNTIL(end->received == 100);
    close_all();
    ck_assert_uint_eq(end->receive_ends, 3);
    free(data);
}

BOTH(closes_after_all_has_ended)
{
    enum { SIZE = 4 * MiB };
    struct end *end = connection();
    char *data = some_data(SIZE);
    proactor_receive(p, &end->receive);
    begin_send(end, data, SIZE, false);
    turns_for(20);
    peer_sends(end, 0, 100); /* comes at the same time */
    proactor_close(p, &end->close);
    ck_assert_uint_eq(end->receive_ends + end->sends + end->closes, 0);
    UNTIL(end->closes == 1);
    ck_assert_uint_eq(end->receive_ends, 1);
    ck_assert_uint_eq(end->sends, 1);
    ck_assert_int_eq(end->send.operation.error, ECANCELED);
    ck_assert_msg(end->close_at > end->receive_end_at && end->close_at > end->send_at,
                  "the close completed before what was pending had ended");
    struct end *next = connection(); /* most often in the same place */
    proactor_receive(p, &next->receive);
    peer_sends(next, 0, 1000);
    UNTIL(next->received == 1000);
    ck_assert(next->right);
    close_all();
    free(data);
}

BOTH(closes_at_once)
{
    struct end *end = connection();
    char byte;
    proactor_receive(p, &end->receive);
    proactor_close(p, &end->close); /* what was begun just now ends first */
    UNTIL(end->closes == 1);
    ck_assert_uint_eq(end->receive_ends, 1);
    ck_assert_int_eq(recv(end->peer, &byte, 1, 0), 0); /* a FIN has come */
    close_all();
}

BOTH(no_piece_after_close)
{
    struct end *end = connection();
    proactor_receive(p, &end->receive);
    turns_for(10);
    peer_sends(end, 0, 1000);
    poll(NULL, 0, 20);
    proactor_close(p, &end->close);
    UNTIL(end->closes == 1);
    ck_assert_uint_eq(end->pieces, 0);
    ck_assert_uint_eq(end->receive_ends, 1);
    close_all();
}

BOTH(discards)
{
    open_proactor();
    int fd = connect_peer(0);
    char byte;
    UNTIL(client_count == 1);
    proactor_discard(p, ends[0].close.operation.socket);
    ck_assert_msg(recv(fd, &byte, 1, 0) == 0, "a discarded socket is not closed");
    client_count = 0;
    connection();
    close_all();
}

/* ---- many at once ---- */

static void many_at_once(size_t count)
{
    while (client_count < count)
        connection();
    for (size_t i = 0; i < count; i++) { /* all in one turn */
        begin_send(&ends[i], "hello", 5, false);
        ends[i].receive.limit = 10;
        proactor_receive(p, &ends[i].receive);
        unsigned char data[10];
        for (size_t j = 0; j < sizeof data; j++)
            data[j] = pattern_of(&ends[i], j);
        ck_assert_int_eq(send(ends[i].peer, data, sizeof data, 0), sizeof data);
    }
    for (size_t i = 0; i < count; i++) {
        UNTIL(ends[i].received == 10 && ends[i].sends == 1);
        ck_assert(ends[i].right);
        ck_assert_uint_eq(ends[i].receive_ends, 1);
    }
    for (size_t i = 0; i < count; i++)
        ck_assert(peer_gets(&ends[i], "hello", 5));
    close_all();
}

BOTH(more_than_the_submission_queue_holds)
{
    small_sq = 8;
    many_at_once(200);
}

BOTH(more_than_the_completion_queue_holds)
{
    enum { WAITING = 100 };
    small_sq = small_cq = 16;
    open_proactor();
    for (int i = 0; i < WAITING; i++) /* a completion for each, in one go */
        ends[i].peer = connect_peer(0);
    UNTIL(client_count == WAITING);
    many_at_once(700);
}

BOTH(waiting_for_room_and_cancelled)
{
    enum { CONNECTIONS = 50 };
    small_sq = 8;
    for (int i = 0; i < CONNECTIONS; i++)
        connection();
    for (int i = 0; i < CONNECTIONS; i++)
        proactor_receive(p, &ends[i].receive);
    for (int i = 0; i < CONNECTIONS; i += 2)
        proactor_cancel(p, &ends[i].receive.operation);
    for (int i = 0; i < CONNECTIONS; i += 2)
        UNTIL(ends[i].receive_ends == 1);
    for (int i = 1; i < CONNECTIONS; i += 2) {
        peer_sends(&ends[i], 0, 10);
        UNTIL(ends[i].received == 10);
    }
    close_all();
}

/* ---- older kernels ---- */

/* From now on the kernel is an older one, which must do as well. */
static void io_uring_must_work(void)
{
    engine = "io_uring";
    is_uring = must_work = true;
    struct proactor *newest = proactor_create(&(struct proactor_options){.engine = engine});
    if (newest == NULL)
        tap_skip("no io_uring here: %s", strerror(errno));
    proactor_destroy(newest);
}

START_TEST(without_limits)
{
    io_uring_must_work();
    no_limits = true;
    struct end *end = connection();
    end->receive.limit = 1000;
    peer_sends(end, 0, 5000);
    for (unsigned i = 1; i <= 5; i++) {
        proactor_receive(p, &end->receive);
        UNTIL(end->receive_ends == i);
        ck_assert_uint_eq(end->received, (size_t)1000 * i);
    }
    ck_assert(end->right);
    end->receive.limit = 300000;
    proactor_receive(p, &end->receive);
    peer_sends(end, 5000, 300000);
    UNTIL(end->received == 305000);
    ck_assert(end->right);
    close_all();
}
END_TEST

START_TEST(without_single_issuer)
{
    io_uring_must_work();
    no_single_issuer = no_limits = true;
    many_at_once(100);
}
END_TEST

/* Has every later io_uring_setup(2) of this process fail. */
static void block_io_uring(int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        tap_skip("seccomp: %s", strerror(errno));
    (void)syscall(SYS_io_uring_setup, 0, NULL);
    if (errno != error)
        tap_skip("it is blocked here already, in another way: %s", strerror(errno));
}

static void blocked(int error, const char *says)
{
    char text[1000] = "";
    int ends_of_pipe[2];
    block_io_uring(error);
    ck_assert_int_eq(pipe(ends_of_pipe), 0);
    dup2(ends_of_pipe[1], STDERR_FILENO);
    p = proactor_create(&(struct proactor_options){.engine = "io_uring"});
    ck_assert(p == NULL && errno == error);
    ssize_t size = read(ends_of_pipe[0], text, sizeof text - 1);
    ck_assert_msg(size > 0 && strstr(text, says) != NULL, "the message is: %s", text);
    ck_assert_ptr_eq(strchr(text, '\n'), text + size - 1);

    p = proactor_create(&(struct proactor_options){0});
    ck_assert_ptr_nonnull(p);
    ck_assert_str_eq(p->engine->name, "emulated");
    memset(text, 0, sizeof text);
    size = read(ends_of_pipe[0], text, sizeof text - 1);
    ck_assert_msg(size > 0 && strstr(text, says) != NULL && strstr(text, "emulated") != NULL,
                  "the message is: %s", text);
    ck_assert_ptr_eq(strchr(text, '\n'), text + size - 1);
}

START_TEST(blocked_by_a_filter)
{
    blocked(EPERM, "io_uring_disabled");
}
END_TEST

START_TEST(blocked_as_unknown)
{
    blocked(ENOSYS, "seccomp");
}
END_TEST

START_TEST(short_of_locked_memory)
{
    blocked(ENOMEM, "ulimit -l");
}
END_TEST

/* ---- timers and the stop ---- */

static int expired_order[8];
static int expired_count;
static struct proactor_timer timers[8];

static void on_expired(struct proactor *proactor, struct proactor_timer *timer)
{
    (void)proactor;
    expired_order[expired_count++] = (int)(timer - timers);
}

static unsigned hurried;

static void on_hurry(struct proactor *proactor, struct proactor_timer *timer)
{
    hurried++;
    ck_assert_int_eq(proactor_set_timer(proactor, timer, 0), 0);
}

BOTH(timers_without_a_pause)
{
    open_proactor();
    for (int i = 1; i < 8; i++) {
        timers[i].expired = on_expired;
        ck_assert_int_eq(proactor_set_timer(p, &timers[i], 100000), 0);
    }
    timers[0].expired = on_hurry;
    ck_assert_int_eq(proactor_set_timer(p, &timers[0], 0), 0);
    for (unsigned i = 0; i < 20; i++) {
        unsigned before = hurried;
        one_turn(50);
        ck_assert_uint_le(hurried, before + 1);
    }
    ck_assert_uint_ge(hurried, 10);
}

BOTH(timers_in_order)
{
    open_proactor();
    p->now_ms = clock_ms();
    int64_t begin = clock_ms();
    static const int due[] = {40, 10, 30, 20, 25};
    for (int i = 0; i < 5; i++) {
        timers[i].expired = on_expired;
        ck_assert_int_eq(proactor_set_timer(p, &timers[i], due[i]), 0);
    }
    proactor_cancel_timer(p, &timers[3]);
    ck_assert_int_eq(proactor_set_timer(p, &timers[1], 60), 0); /* put off */
    UNTIL(expired_count == 4);
    ck_assert_int_ge(clock_ms() - begin, 60);
    ck_assert(expired_order[0] == 4 && expired_order[1] == 2 && expired_order[2] == 0 &&
              expired_order[3] == 1);
    close_all();
}

static int begun, overdue;

static void on_begun(struct proactor *proactor, struct proactor_stop *stop)
{
    (void)stop;
    begun++;
    proactor_cancel(proactor, &acceptor.operation);
}

static void on_stop_overdue(struct proactor *proactor, struct proactor_stop *stop)
{
    (void)stop;
    overdue++;
    for (size_t i = 0; i < client_count; i++)
        proactor_close(proactor, &ends[i].close);
}

BOTH(stops_when_nothing_is_pending)
{
    struct proactor_stop stop = {5000, on_begun, on_stop_overdue};
    open_proactor();
    ck_assert_int_eq(proactor_stop_at_signals(p, &stop), 0);
    raise(SIGTERM);
    raise(SIGINT);
    int64_t before = clock_ms();
    ck_assert_int_eq(proactor_run(p), 0);
    ck_assert_int_lt(clock_ms() - before, 2000);
    ck_assert(begun == 1 && overdue == 0 && accept_ends == 1);
    proactor_destroy(p);
    raise(SIGTERM); /* somebody is impatient, while this program frees its memory */
}

BOTH(stops_when_time_is_over)
{
    struct proactor_stop stop = {100, on_begun, on_stop_overdue};
    struct end *end = connection();
    proactor_receive(p, &end->receive);
    proactor_stop(p, &stop);
    proactor_stop(p, &stop);
    ck_assert(proactor_stopping(p));
    int64_t before = clock_ms();
    ck_assert_int_eq(proactor_run(p), 0);
    int64_t took = clock_ms() - before;
    ck_assert_msg(took >= 95 && took < 1000, "the stop took %d ms", (int)took);
    ck_assert(begun == 1 && overdue == 1 && end->closes == 1 && end->receive_ends == 1);
    proactor_destroy(p);
}

BOTH(waiting_is_free)
{
    struct end *end = connection();
    struct end *gone = connection(); /* with nothing pending */
    proactor_receive(p, &end->receive);
    peer_resets(gone);
    turns_for(20);
    unsigned turns = turns_for(300); /* each waits for 20 ms, if nothing happens */
    ck_assert_msg(turns < 40, "nothing happened, and the loop turned %u times", turns);
    close_all();
}

BOTH(destroyed_with_operations_pending)
{
    enum { SIZE = 4 * MiB };
    const int on = 1;
    char *data = some_data(SIZE);
    int file = file_with(data, SIZE);
    int descriptors = 0;
    for (int i = 0; i < 20; i++) { /* what ends a little later is not always seen */
        struct end *end = connection();
        struct end *lazy = connection(); /* is in the middle of a file */
        char byte;
        proactor_receive(p, &end->receive);
        file_send = (struct proactor_send_file){.file = file};
        file_send.send = (struct proactor_send){
            .operation.socket = lazy->close.operation.socket, .completed = on_file_sent, .size = SIZE};
        proactor_send_file(p, &file_send);
        turns_for(5);
        proactor_destroy(p);
        p = NULL;
        close(lazy->peer);
        ck_assert_int_eq(recv(end->peer, &byte, 1, 0), 0);
        close(end->peer);
        int again = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(again, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        ck_assert_msg(bind(again, (struct sockaddr *)&address, sizeof address) == 0 && listen(again, 1) == 0,
                      "the proactor is destroyed, and the port is not free");
        close(again);
        int open_now = 0;
        for (int fd = 0; fd < 100; fd++)
            open_now += fcntl(fd, F_GETFD) >= 0;
        ck_assert_msg(i == 0 || open_now == descriptors, "%d descriptors are open now, and were %d", open_now,
                      descriptors);
        descriptors = open_now;
    }
    free(data);
}

#define ROWS(name, text, expected, cause, section)                       \
    {"io_uring: " text, name##_with_io_uring, expected, cause, section}, \
    {                                                                    \
        "emulated: " text, name##_emulated, expected, cause, section     \
    }

int main(void)
{
    const struct tap_test tests[] = {
        ROWS(accepts_each_once, "accept: each client once",
             "one completion for each client, and the accept stays pending",
             "a multishot accept that ended was not begun again", PIECES),
        ROWS(accept_cancelled, "accept: after a cancel, those who came before are taken in",
             "all who wait in the queue, one last completion, and a closed port",
             "the queue was closed with clients in it", PIECES),
        ROWS(accept_cancelled_by_its_handler, "accept: its own handler cancels it",
             "those who are in the queue, and one last completion",
             "the cancel takes it for one that waits, and it is queued twice", PIECES),
        ROWS(accept_on_no_socket, "accept: what is no listening socket", "EBADF or EINVAL, for the handler",
             "the engine ends the program, or frees a place that was never made", PIECES),
        ROWS(accept_out_of_descriptors, "accept: out of descriptors, it waits, and goes on when one is free",
             "no spin, and the next client when one has left",
             "the accept is begun again at once, fails, and so on; or never again", WILD),
        ROWS(receives_what_comes, "receive: each byte once and in order",
             "3 MiB, piece by piece, and one end",
             "a piece is handed on twice, or two in the wrong order; or a multishot receive that ended early "
             "was not begun again",
             PIECES),
        ROWS(receive_limit, "receive: the limit is a hard bound",
             "not a byte more than the credit, and the rest with the next one",
             "the limit is looked at after a piece has come", PIECES),
        ROWS(receive_end, "receive: the end, and a reset", "a last piece of 0 bytes, or ECONNRESET",
             "a buffer is taken from a completion that has none", WILD),
        ROWS(receive_at_once, "receive: at once", "EAGAIN when nothing is there", "it waits all the same",
             PIECES),
        ROWS(buffers_exhausted, "buffers: few for thirty connections",
             "every connection gets all of its bytes, however few buffers there are",
             "who found no buffer is not begun again, or only one of them", WILD),
        ROWS(buffers_exhausted_by_small_pieces, "buffers: one comes free, and serves all who wait",
             "one after the other", "only the connection that gave it back goes on", WILD),
        ROWS(buffers_missed_in_the_same_turn, "buffers: none, and a cancel or a close in the same turn",
             "ECANCELED, and the close completes",
             "who finds no buffer is taken for one that may wait for it", PIECES),
        ROWS(buffers_waited_for_and_cancelled, "buffers: who waits for one can be cancelled and closed",
             "the cancel and the close complete", "only what is in the kernel is cancelled", PIECES),
#ifdef BORDERS
        ROWS(buffers_are_guarded, "buffers: what is not lent cannot be read",
             "the address sanitizer knows whose the memory is", "a piece is used after it was given back",
             PIECES),
#endif
        ROWS(sends_all, "send: all of it, with one completion", "a short send is continued",
             "the result was taken for all", WILD),
        ROWS(sends_at_once, "send: at once, what the socket takes", "a part, and no waiting",
             "it waits for the peer", PIECES),
        ROWS(sends_at_once_while_receiving, "send: at once, while a receive is pending",
             "a completion, whether or not the peer goes on", "it waits for the next piece", PIECES),
        ROWS(sends_more_than_fits_a_number, "send: 4 GiB", "the first bytes come, and no completion",
             "the size is cut to 32 bits, which leave 0", PIECES),
        ROWS(send_to_nobody, "send: to a peer that has reset", "EPIPE or ECONNRESET, and no signal",
             "SIGPIPE ends the program", WILD),
        ROWS(send_timeout, "send: its timeout ends it, and no other", "ETIMEDOUT, in time",
             "the timeout is not linked to its send", PIECES),
        ROWS(zero_copy_owns_its_data, "zero copy: the memory is the kernel's until the notification",
             "what the peer gets is what was sent", "the first completion was taken for the last", PIECES),
        ROWS(zero_copy_beyond_the_limit, "zero copy: more than may be locked in memory",
             "all of it comes, copied", "ENOMEM is taken for the end of the connection", PIECES),
        ROWS(zero_copy_closed, "zero copy: a close does not wait for a peer that does not read",
             "the notification is forced", "the close waits for a notification that never comes", PIECES),
        ROWS(sends_a_file, "file: its bytes, an end too early, and a close",
             "the file's bytes from the offset on; ENODATA", "a short read or send was taken for all",
             PIECES),
        ROWS(sends_a_head, "file: its head, whether or not it is in memory, and the end",
             "the head's bytes, the file's, FIN; then the peer is heard still",
             "the head is forgotten, or sent again after a short send; or the copy, which is made when there "
             "is no descriptor or "
             "no page, begins at the wrong place",
             PIECES),
        ROWS(ends_at_last, "send: the last one, and a close at once", "FIN behind the bytes; RST before them",
             "the end is told before all is sent, or not at all", PIECES),
        ROWS(cancels_one_operation, "cancel: one operation, and no other",
             "ECANCELED, once, and the socket can be used",
             "all of the socket's operations are cancelled; or what is not submitted yet is not found",
             PIECES),
        ROWS(closes_after_all_has_ended, "close: after all has ended",
             "the completion of the close is the last", "the socket is closed with operations pending", WILD),
        ROWS(closes_at_once, "close: right after something has begun", "it ends first, and a FIN goes out",
             "close() with a receive pending sends no FIN", WILD),
        ROWS(no_piece_after_close, "close: no piece comes after it", "what has come meanwhile is dropped",
             "a piece is handed to a connection that has been given up", PIECES),
        ROWS(discards, "discard: closes a socket that nobody wants", "an end, and its place is free",
             "its place in the table leaks", PIECES),
        ROWS(more_than_the_submission_queue_holds, "many: more operations than the submission queue holds",
             "they wait for room", "io_uring_get_sqe() returned NULL", WILD),
        ROWS(more_than_the_completion_queue_holds, "many: more completions than the completion queue holds",
             "none is lost", "the kernel keeps what does not fit, and nobody asks for it", PIECES),
        ROWS(waiting_for_room_and_cancelled, "many: who waits for room can be cancelled",
             "ECANCELED, and the others go on", "only what is in the kernel is cancelled", PIECES),
        {"io_uring: older: without limits of a multishot receive", without_limits,
         "the limit is kept all the same", "EINVAL was taken for an error of the connection", WILD},
        {"io_uring: older: without SINGLE_ISSUER and the rest", without_single_issuer,
         "a plain ring does, too", "the kernel's version was compared", WILD},
        {"blocked: EPERM gives a message, and the emulation", blocked_by_a_filter,
         "one line that names the setting", "the program ends", PIECES},
        {"blocked: ENOSYS, too", blocked_as_unknown, "one line that names the filter", "the program ends",
         PIECES},
        {"blocked: ENOMEM, too", short_of_locked_memory, "one line that names the limit", "the program ends",
         PIECES},
        ROWS(timers_without_a_pause, "timers: one that is set for at once by its handler",
             "it expires in the next turn", "the loop never comes to anything else", PIECES),
        ROWS(timers_in_order, "timers: in order, put off, cancelled", "each at its time",
             "a timer is relative to the wait before", PIECES),
        ROWS(stops_when_nothing_is_pending, "stop: at a signal, when nothing is pending any more",
             "once, and soon", "the signal does not wake the loop", PIECES),
        ROWS(stops_when_time_is_over, "stop: when its time is over", "the application is told, and closes",
             "the stop waits for ever", PIECES),
        ROWS(waiting_is_free, "waiting is free", "the loop sleeps while nothing happens",
             "something is always ready", PIECES),
        ROWS(destroyed_with_operations_pending, "destroy: takes everything back from the kernel",
             "connections are closed, and the port is free at once",
             "an accept that is still pending keeps the port", PIECES),
    };
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
