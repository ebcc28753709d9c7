/* unit_conn.c - unit tests of conn.c, one connection of a server that never waits.
 *
 * conn.c is compiled here exactly as for a server, and its connections are real
 * ones over TCP. The linker (--wrap) sends its calls of recv, send, fcntl, close,
 * malloc and free to this file, which counts them, and plays what a test has
 * planned for them: an error, or fewer bytes than were asked for.
 * Needs POSIX.1-2008, and a linker with --wrap (GNU ld, gold, lld). */
#define _POSIX_C_SOURCE 200809L

#include "conn.h"
#include "net.h"

#include "harness.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CHAPTER "the book, chapter 2, "
#define PIECES CHAPTER "\"The server, piece by piece\""
#define WILD CHAPTER "\"Found in the wild\""

enum { BUFFER_SIZE = 65536, SMALL = 16 };

/* ---- faults ---- */

/* What becomes of one call. All zero, it happens as if it had not been planned. */
struct step {
    int error;   /* it fails with this */
    size_t most; /* it is asked for no more bytes than this */
};

/* What becomes of the next calls of one function; those after them just happen. */
struct plan {
    struct step steps[8];
    size_t next;
    unsigned calls;
};

#define PLAN(...) ((struct plan){.steps = {__VA_ARGS__}})

static bool watching; /* conn.c is at work, so that the calls are its own */

static struct step next_step(struct plan *plan)
{
    if (!watching)
        return (struct step){0};
    plan->calls++;
    if (plan->next == sizeof plan->steps / sizeof *plan->steps)
        return (struct step){0};
    return plan->steps[plan->next++];
}

static struct plan recv_plan, send_plan, fcntl_plan, malloc_plan, free_plan, close_plan;
static bool waited; /* a call was made that could have waited */

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    struct step step = next_step(&fcntl_plan);
    if (step.error != 0) {
        errno = step.error;
        return -1;
    }
    if (command != F_SETFL)
        return __real_fcntl(fd, command);
    va_list list;
    va_start(list, command);
    int flags = va_arg(list, int);
    va_end(list);
    return __real_fcntl(fd, command, flags);
}

/* Notes a call on a socket that is in blocking mode. */
static void note_waiting(int fd, int flags)
{
    int mode = __real_fcntl(fd, F_GETFL);
    if (mode >= 0 && (mode & O_NONBLOCK) == 0 && (flags & MSG_DONTWAIT) == 0)
        waited = true;
}

ssize_t __real_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags)
{
    struct step step = next_step(&recv_plan);
    note_waiting(fd, flags);
    if (step.error != 0) {
        errno = step.error;
        return -1;
    }
    return __real_recv(fd, data, step.most != 0 && step.most < size ? step.most : size, flags);
}

ssize_t __real_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags)
{
    struct step step = next_step(&send_plan);
    note_waiting(fd, flags);
    if (step.error != 0) {
        errno = step.error;
        return -1;
    }
    return __real_send(fd, data, step.most != 0 && step.most < size ? step.most : size, flags);
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    struct step step = next_step(&malloc_plan);
    if (step.error != 0) {
        errno = step.error;
        return NULL;
    }
    return __real_malloc(size);
}

void __real_free(void *block);
void __wrap_free(void *block);
void __wrap_free(void *block)
{
    if (block != NULL)
        next_step(&free_plan);
    __real_free(block);
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    next_step(&close_plan);
    return __real_close(fd);
}

/* Blocks of memory that have been allocated and not freed. */
static int held(void)
{
    return (int)(malloc_plan.calls - free_plan.calls);
}

/* ---- a connection and its client ---- */

static struct conn conn;
static int client;
static char buffer[BUFFER_SIZE];

/* The functions of conn.c, watched. */

static int watched_set_nonblocking(int fd)
{
    watching = true;
    int result = set_nonblocking(fd);
    watching = false;
    return result;
}

static int watched_open(int fd)
{
    watching = true;
    int result = conn_open(&conn, fd);
    watching = false;
    return result;
}

static enum conn_state watched_turn(size_t size)
{
    watching = true;
    enum conn_state state = conn_turn(&conn, buffer, size);
    watching = false;
    return state;
}

static void watched_close(void)
{
    watching = true;
    conn_close(&conn);
    watching = false;
}

/* Forgets the plans, and what has been counted. */
static void start_counting(void)
{
    const struct plan none = {.calls = 0};
    recv_plan = send_plan = fcntl_plan = malloc_plan = free_plan = close_plan = none;
    waited = false;
}

static void limit_buffer(int fd, int which, int size)
{
    if (size > 0 && setsockopt(fd, SOL_SOCKET, which, &size, sizeof size) < 0)
        ck_abort_msg("setsockopt: %s", strerror(errno));
}

/* Connects client and conn. With room not 0, the kernel holds only about that
 * many bytes between them. */
static void open_pair(int room)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const struct timeval limit = {.tv_sec = 10}; /* for the failure only */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    limit_buffer(client, SO_RCVBUF, room);

    if (listener < 0 || client < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 ||
        listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&address, &size) < 0 ||
        connect(client, (struct sockaddr *)&address, size) < 0 ||
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0)
        ck_abort_msg("a pair of sockets: %s", strerror(errno));
    int fd = accept(listener, NULL, NULL);
    limit_buffer(fd, SO_SNDBUF, room);
    if (fd < 0 || watched_open(fd) < 0)
        ck_abort_msg("conn_open: %s", strerror(errno));
    close(listener);
    net_catch_signals(); /* as every server does: no SIGPIPE */
    start_counting();
}

static unsigned char pattern_of(size_t position)
{
    return pattern(1, position);
}

/* The client sends bytes first to first + size - 1 of the pattern, and they arrive. */
static void client_writes(size_t first, size_t size)
{
    static char data[BUFFER_SIZE];
    static char seen[BUFFER_SIZE];
    for (size_t i = 0; i < size; i++)
        data[i] = (char)pattern_of(first + i);
    if (write(client, data, size) != (ssize_t)size)
        ck_abort_msg("the client could not send: %s", strerror(errno));
    if (!eventually(recv(conn.fd, seen, size, MSG_PEEK | MSG_DONTWAIT) == (ssize_t)size))
        ck_abort_msg("%zu bytes did not arrive", size);
}

static void client_reads(size_t first, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char byte;
        ssize_t got = read(client, &byte, 1);
        if (got != 1)
            ck_abort_msg("of %zu bytes only %zu came back: %s", size, i, got < 0 ? strerror(errno) : "end");
        if (byte != pattern_of(first + i))
            ck_abort_msg("byte %zu of the echo is wrong", first + i);
    }
}

static void client_reads_nothing(void)
{
    struct pollfd something = {.fd = client, .events = POLLIN};
    ck_assert_msg(poll(&something, 1, 0) == 0, "the client got something that it had not sent");
}

/* Waits until what the client has done can be seen on conn's socket. */
static void wait_for(short events)
{
    struct pollfd done = {.fd = conn.fd, .events = events};
    if (poll(&done, 1, 10000) != 1)
        ck_abort_msg("the client's end did not arrive");
}

static void client_ends(void)
{
    ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
}

static void client_resets(void)
{
    const struct linger now = {.l_onoff = 1};
    ck_assert_int_eq(setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(client);
    wait_for(0); /* an error is always told */
}

static const char *state_name(enum conn_state state)
{
    static const char *const names[] = {
        [CONN_READY] = "CONN_READY", [CONN_DRAINED] = "CONN_DRAINED", [CONN_IDLE] = "CONN_IDLE",
        [CONN_OWING] = "CONN_OWING", [CONN_CLOSED] = "CONN_CLOSED",
    };
    return names[state];
}

/* One turn with a buffer of that size, which must end so. */
static void check_turn(size_t size, enum conn_state expected)
{
    enum conn_state state = watched_turn(size);
    if (state != expected)
        ck_abort_msg("the turn ended with %s and not with %s", state_name(state), state_name(expected));
    ck_assert_msg(!waited, "a call was made on a socket in blocking mode: it could have waited");
}

/* Brings the connection to owe the last owed of size bytes; the client has got the rest. */
static void make_it_owe(size_t size, size_t owed)
{
    client_writes(0, size);
    send_plan = PLAN({.most = size - owed}, {.error = EAGAIN});
    if (size == owed)
        send_plan = PLAN({.error = EAGAIN});
    check_turn(BUFFER_SIZE, CONN_OWING);
    client_reads(0, size - owed);
    client_reads_nothing();
}

/* ---- opening ---- */

START_TEST(nonblocking_keeps_flags)
{
    int fd = open("/dev/null", O_WRONLY | O_APPEND);
    int before = fcntl(fd, F_GETFL);
    ck_assert_int_eq(watched_set_nonblocking(fd), 0);
    int after = fcntl(fd, F_GETFL);
    ck_assert_msg((after & O_NONBLOCK) != 0, "O_NONBLOCK is not set");
    ck_assert_msg((after & O_APPEND) != 0, "O_APPEND was set before, and is gone");
    ck_assert_int_eq(after, before | O_NONBLOCK);
}
END_TEST

START_TEST(nonblocking_fails)
{
    int fd = open("/dev/null", O_WRONLY);
    fcntl_plan = PLAN({.error = 0}, {.error = EINVAL});
    errno = 0;
    ck_assert_msg(watched_set_nonblocking(fd) == -1 && errno == EINVAL,
                  "F_SETFL failed, and nobody was told");
    fcntl_plan = PLAN({.error = EBADF});
    errno = 0;
    ck_assert_msg(watched_set_nonblocking(fd) == -1 && errno == EBADF, "F_GETFL failed, and nobody was told");
    ck_assert_msg(fcntl_plan.calls == 1, "F_SETFL was called with the -1 of F_GETFL for flags");
    close(fd);
    ck_assert_int_eq(watched_set_nonblocking(fd), -1);
    ck_assert_int_eq(errno, EBADF);
}
END_TEST

START_TEST(open_is_cheap)
{
    open_pair(0);
    int fd = conn.fd;
    memset(&conn, 0x5a, sizeof conn); /* as memory may be that was used before */
    ck_assert_int_eq(watched_open(fd), 0);
    ck_assert_int_eq(conn.fd, fd);
    ck_assert_ptr_null(conn.owed);
    ck_assert_msg(malloc_plan.calls == 0, "memory was allocated for a connection that owes nothing");
    ck_assert_msg((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, "the socket is in blocking mode");
    check_turn(BUFFER_SIZE, CONN_IDLE);
}
END_TEST

START_TEST(open_fails)
{
    open_pair(0);
    fcntl_plan = PLAN({.error = 0}, {.error = ENOMEM});
    errno = 0;
    ck_assert_int_eq(watched_open(conn.fd), -1);
    ck_assert_int_eq(errno, ENOMEM);
    ck_assert_msg(close_plan.calls == 0, "the descriptor was closed; but it is still the caller's");
}
END_TEST

/* ---- the echo ---- */

START_TEST(turn_without_data)
{
    open_pair(0);
    check_turn(BUFFER_SIZE, CONN_IDLE);
    ck_assert_msg(recv_plan.calls == 1, "recv() was called %u times and not once", recv_plan.calls);
    ck_assert_uint_eq(send_plan.calls, 0);
}
END_TEST

START_TEST(turn_echoes)
{
    open_pair(0);
    client_writes(0, 1000);
    check_turn(BUFFER_SIZE, CONN_DRAINED);
    client_reads(0, 1000);
    client_writes(1000, 1);
    check_turn(BUFFER_SIZE, CONN_DRAINED);
    client_reads(1000, 1);
    client_reads_nothing();
    ck_assert_msg(malloc_plan.calls == 0, "memory was allocated although nothing was owed");
}
END_TEST

START_TEST(turn_full_buffer)
{
    open_pair(0);
    client_writes(0, 2 * SMALL + 1);
    check_turn(SMALL, CONN_READY);
    check_turn(SMALL, CONN_READY);
    check_turn(SMALL, CONN_DRAINED);
    client_reads(0, 2 * SMALL + 1);
}
END_TEST

START_TEST(turn_receives_once)
{
    open_pair(0);
    client_writes(0, 10 * SMALL);
    check_turn(SMALL, CONN_READY);
    ck_assert_msg(recv_plan.calls == 1, "recv() was called %u times in one turn", recv_plan.calls);
    client_reads(0, SMALL);
    client_reads_nothing();
}
END_TEST

START_TEST(turn_receive_interrupted)
{
    open_pair(0);
    client_writes(0, 100);
    recv_plan = PLAN({.error = EINTR}, {.error = EINTR});
    check_turn(BUFFER_SIZE, CONN_DRAINED);
    client_reads(0, 100);
}
END_TEST

/* ---- short sends ---- */

START_TEST(send_short)
{
    open_pair(0);
    client_writes(0, 1000);
    send_plan = PLAN({.most = 1}, {.most = 10}, {.most = 500});
    check_turn(BUFFER_SIZE, CONN_DRAINED);
    client_reads(0, 1000);
    client_reads_nothing();
    ck_assert_uint_eq(send_plan.calls, 4);
}
END_TEST

START_TEST(send_interrupted)
{
    open_pair(0);
    client_writes(0, 1000);
    send_plan = PLAN({.error = EINTR}, {.most = 10}, {.error = EINTR});
    check_turn(BUFFER_SIZE, CONN_DRAINED);
    client_reads(0, 1000);
    client_reads_nothing();
}
END_TEST

START_TEST(send_takes_nothing)
{
    open_pair(0);
    make_it_owe(1000, 1000);
    check_turn(BUFFER_SIZE, CONN_READY);
    client_reads(0, 1000);
}
END_TEST

START_TEST(send_keeps_the_rest)
{
    open_pair(0);
    make_it_owe(1000, 400);
    memset(buffer, 'x', sizeof buffer); /* other connections have used it meanwhile */
    check_turn(BUFFER_SIZE, CONN_READY);
    client_reads(600, 400);
    client_reads_nothing();
}
END_TEST

START_TEST(send_larger_than_the_socket)
{
    open_pair(4096);
    client_writes(0, BUFFER_SIZE);
    check_turn(BUFFER_SIZE, CONN_OWING);
    size_t owed = conn.size - conn.sent;
    if (owed == 0 || owed >= BUFFER_SIZE)
        ck_abort_msg("it owes %zu of %d bytes after a send that was short", owed, BUFFER_SIZE);

    for (size_t read_so_far = 0; read_so_far < BUFFER_SIZE; read_so_far += 1024) {
        client_reads(read_so_far, 1024);
        memset(buffer, 'x', sizeof buffer);
        watched_turn(sizeof buffer);
    }
    ck_assert_int_eq(held(), 0);
    check_turn(BUFFER_SIZE, CONN_IDLE);
}
END_TEST

START_TEST(send_error_closes)
{
    static const int errors[] = {EPIPE, ECONNRESET, ETIMEDOUT, EHOSTUNREACH};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        open_pair(0);
        client_writes(0, 10);
        send_plan = PLAN({.error = errors[i]});
        check_turn(BUFFER_SIZE, CONN_CLOSED);
        watched_close();
    }
}
END_TEST

START_TEST(send_to_a_reset_client)
{
    open_pair(0);
    make_it_owe(100, 100);
    client_resets();
    check_turn(BUFFER_SIZE, CONN_CLOSED); /* ECONNRESET tells of the reset */
    watched_close();

    open_pair(0);
    make_it_owe(100, 100);
    client_resets();
    int error;
    socklen_t size = sizeof error;
    ck_assert_int_eq(getsockopt(conn.fd, SOL_SOCKET, SO_ERROR, &error, &size), 0); /* somebody heard of it */
    check_turn(BUFFER_SIZE, CONN_CLOSED);                                          /* EPIPE */
}
END_TEST

/* ---- owing ---- */

START_TEST(owing_does_not_receive)
{
    open_pair(0);
    make_it_owe(1000, 400);
    client_writes(1000, 500);
    unsigned before = recv_plan.calls;
    send_plan = PLAN({.error = EAGAIN}, {.error = EAGAIN}, {.most = 100}, {.error = EAGAIN});
    for (int i = 0; i < 3; i++)
        check_turn(BUFFER_SIZE, CONN_OWING);
    ck_assert_msg(recv_plan.calls == before, "it received while it owed: then what it owes has no limit");
}
END_TEST

START_TEST(owing_has_a_limit)
{
    size_t sent = 0;
    open_pair(4096);
    ck_assert_int_eq(fcntl(client, F_SETFL, O_NONBLOCK), 0);
    for (int turn = 0; turn < 1000; turn++) {
        char data[4096] = "";
        ssize_t n = write(client, data, sizeof data);
        sent += n > 0 ? (size_t)n : 0;
        enum conn_state state = watched_turn(8192);
        ck_assert_msg(state != CONN_CLOSED, "the connection was given up");
        if (conn.owed != NULL && conn.size - conn.sent > 8192)
            ck_abort_msg("it owes %zu bytes, and the limit is 8192", conn.size - conn.sent);
        ck_assert_msg(held() <= 1, "it holds %d blocks of memory", held());
    }
    ck_assert_msg(conn.owed != NULL, "it owes nothing to a client that sent %zu bytes and read none", sent);
}
END_TEST

START_TEST(owing_holds_memory)
{
    open_pair(0);
    for (int i = 0; i < 3; i++) {
        make_it_owe(1000, 400);
        ck_assert_msg(held() == 1, "it holds %d blocks of memory while it owes", held());
        check_turn(BUFFER_SIZE, CONN_READY);
        ck_assert_msg(held() == 0, "all is paid, and it holds %d blocks of memory", held());
        ck_assert_ptr_null(conn.owed);
        client_reads(600, 400);
    }
}
END_TEST

START_TEST(owing_is_paid_in_pieces)
{
    open_pair(0);
    make_it_owe(1000, 900);
    send_plan =
        PLAN({.most = 1}, {.error = EAGAIN}, {.most = 2}, {.error = EINTR}, {.most = 300}, {.error = EAGAIN});
    check_turn(BUFFER_SIZE, CONN_OWING);
    client_reads(100, 1);
    check_turn(BUFFER_SIZE, CONN_OWING);
    client_reads(101, 302);
    check_turn(BUFFER_SIZE, CONN_READY);
    client_reads(403, 597);
    client_reads_nothing();
}
END_TEST

START_TEST(owing_then_more)
{
    open_pair(0);
    make_it_owe(1000, 400);
    client_writes(1000, 500);
    check_turn(BUFFER_SIZE, CONN_READY); /* the 500 have not been looked at */
    check_turn(BUFFER_SIZE, CONN_DRAINED);
    client_reads(600, 900);
}
END_TEST

START_TEST(owing_out_of_memory)
{
    open_pair(0);
    client_writes(0, 1000);
    send_plan = PLAN({.most = 600}, {.error = EAGAIN});
    malloc_plan = PLAN({.error = ENOMEM});
    check_turn(BUFFER_SIZE, CONN_CLOSED);
    watched_close();
    ck_assert_uint_eq(close_plan.calls, 1);
    ck_assert_msg(free_plan.calls == 0, "something was freed that had never been allocated");
    client_reads(0, 600);
    char byte;
    ck_assert_msg(read(client, &byte, 1) <= 0, "bytes came after the gap");
}
END_TEST

/* ---- the end ---- */

START_TEST(end_closes)
{
    open_pair(0);
    client_writes(0, 10);
    client_ends();
    check_turn(BUFFER_SIZE, CONN_DRAINED);
    wait_for(POLLIN);
    check_turn(BUFFER_SIZE, CONN_CLOSED);
    client_reads(0, 10);
}
END_TEST

START_TEST(end_while_owing)
{
    open_pair(0);
    make_it_owe(1000, 400);
    client_ends();
    wait_for(POLLIN);
    send_plan = PLAN({.most = 100}, {.error = EAGAIN});
    check_turn(BUFFER_SIZE, CONN_OWING);
    check_turn(BUFFER_SIZE, CONN_READY);
    check_turn(BUFFER_SIZE, CONN_CLOSED);
    client_reads(600, 400);
}
END_TEST

START_TEST(receive_error_closes)
{
    static const int errors[] = {ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENOMEM};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        open_pair(0);
        recv_plan = PLAN({.error = errors[i]});
        check_turn(BUFFER_SIZE, CONN_CLOSED);
        ck_assert_uint_eq(send_plan.calls, 0);
        watched_close();
    }
    open_pair(0);
    client_writes(0, 10);
    client_resets();
    check_turn(BUFFER_SIZE, CONN_CLOSED);
}
END_TEST

START_TEST(close_frees)
{
    open_pair(0);
    make_it_owe(1000, 400);
    int fd = conn.fd;
    watched_close();
    ck_assert_msg(held() == 0, "what it owed is still allocated");
    ck_assert_msg(close_plan.calls == 1, "close() was called %u times", close_plan.calls);
    ck_assert_msg(fcntl(fd, F_GETFL) == -1 && errno == EBADF, "the descriptor is still open");
    char byte;
    ck_assert_msg(read(client, &byte, 1) == 0, "the client was not told of the end");
}
END_TEST

START_TEST(messages_are_quiet)
{
    char text[64];
    FILE *err = tmpfile();
    ck_assert_ptr_nonnull(err);
    ck_assert_int_ge(dup2(fileno(err), STDERR_FILENO), 0);
    open_pair(0);
    recv_plan = PLAN({.error = ECONNRESET});
    check_turn(BUFFER_SIZE, CONN_CLOSED);
    ck_assert_msg(pread(fileno(err), text, sizeof text, 0) == 0, "it wrote to stderr without --verbose");
}
END_TEST

int main(void)
{
    /* In here, since what START_TEST makes is a variable, and no constant. */
    const struct tap_test tests[] = {
        {"set_nonblocking: adds O_NONBLOCK and keeps the other flags", nonblocking_keeps_flags,
         "the descriptor has all the flags that it had before, and O_NONBLOCK",
         "fcntl(fd, F_SETFL, O_NONBLOCK) without F_GETFL first: it sets all flags, and so wipes O_APPEND",
         WILD},
        {"set_nonblocking: says so when it fails", nonblocking_fails,
         "-1 with errno, from either call of fcntl()",
         "the result of fcntl() was not looked at: the socket stays in blocking mode, and one day a call on\n"
         "it stops the whole server",
         PIECES},
        {"conn_open: no memory, and a socket that does not wait", open_is_cheap,
         "an idle connection costs its descriptor and a few bytes",
         "a buffer was allocated for every connection; or a field was not initialised", PIECES},
        {"conn_open: when it fails, the descriptor is still the caller's", open_fails,
         "-1 with errno, and no close()",
         "both closed it: the second close() hits whoever got the number since", PIECES},
        {"turn: without data it returns at once (EAGAIN is no error)", turn_without_data,
         "one recv(), EAGAIN, CONN_IDLE", "EAGAIN was taken for an error, or the socket is in blocking mode",
         PIECES},
        {"turn: what came is sent back", turn_echoes, "each byte once and in order, and CONN_DRAINED",
         "the number of bytes received and the size of the buffer were mixed up", PIECES},
        {"turn: a full buffer means that more may have come", turn_full_buffer,
         "CONN_READY after a full buffer, CONN_DRAINED after less than that",
         "an event loop that is told CONN_DRAINED too early leaves the rest lying in the socket", PIECES},
        {"turn: receives once, so that no client keeps the others waiting", turn_receives_once,
         "one recv() in a turn, however much has come",
         "a loop until EAGAIN: a fast client never gives it back", PIECES},
        {"turn: a receive that a signal interrupts is tried again", turn_receive_interrupted,
         "EINTR is no error, and no bytes are lost", "EINTR was taken for an error of the connection", WILD},
        {"send: a short send is continued", send_short, "every byte, in as many sends as it takes",
         "the number that send() returns was not looked at: it may take less than it was given", WILD},
        {"send: one that a signal interrupts is tried again", send_interrupted,
         "EINTR is no error, and no byte is sent twice", "after EINTR the send began again at the first byte",
         WILD},
        {"send: a socket that takes nothing leaves all of it owed", send_takes_nothing,
         "EAGAIN leaves the whole message owed; it goes out later",
         "EAGAIN was taken for an error; or -1 was added to the count", PIECES},
        {"send: what the socket did not take is kept, and sent later", send_keeps_the_rest,
         "the bytes from the first that was not taken, in memory of the connection's own",
         "the rest was kept in the loop's buffer, which another connection overwrites; or copied from its "
         "start",
         WILD},
        {"send: a message larger than the socket's buffer arrives whole", send_larger_than_the_socket,
         "64 KiB through a socket that holds 4, byte for byte", "the rest was dropped", WILD},
        {"send: an error closes the connection", send_error_closes, "CONN_CLOSED",
         "an error was taken for EAGAIN: then the server asks for ever", PIECES},
        {"send: a client that has reset costs its own connection only", send_to_a_reset_client,
         "CONN_CLOSED by ECONNRESET, or by EPIPE and no signal", "SIGPIPE was not ignored", WILD},
        {"owing: receives nothing until all is paid", owing_does_not_receive,
         "no recv() while bytes are owed: TCP's own window then stops the client (backpressure)",
         "received and owed at once: the memory for it grows without a limit", WILD},
        {"owing: never more than the buffer's size", owing_has_a_limit,
         "at most the size of one receive is owed, however long the client floods and does not read",
         "the new bytes were appended to those owed", WILD},
        {"owing: memory is held while bytes are owed, and no longer", owing_holds_memory,
         "one block while it owes, none after", "the block was not freed when the last byte was sent",
         PIECES},
        {"owing: is paid in pieces, in order", owing_is_paid_in_pieces,
         "each send goes on where the last one stopped, over EINTR and EAGAIN",
         "how much has been sent was not added up", PIECES},
        {"owing: after it, what came meanwhile is echoed", owing_then_more,
         "CONN_READY when all is paid: nobody has looked yet whether more has come",
         "CONN_IDLE: an edge-triggered loop never hears of those bytes again", PIECES},
        {"owing: without memory the connection is closed, and nothing leaks", owing_out_of_memory,
         "CONN_CLOSED: an echo with a gap would be worse than none",
         "the result of malloc() was not looked at, or the rest was thrown away", PIECES},
        {"end: the client's FIN closes the connection", end_closes, "the echo, and CONN_CLOSED",
         "recv() returning 0 was taken for \"nothing there\"", PIECES},
        {"end: a FIN while bytes are owed: first all is paid", end_while_owing,
         "a client that has sent its FIN may still read (half-close), and gets all of it",
         "closed at the FIN, with bytes still owed", WILD},
        {"end: an error of recv() closes the connection", receive_error_closes, "CONN_CLOSED",
         "the error was taken for EAGAIN, or was fatal for the server", WILD},
        {"conn_close: closes the descriptor and frees what is owed", close_frees, "no leak of either",
         "only close(), and the memory of a client that was lost while it was owed bytes leaks", WILD},
        {"messages: none without --verbose", messages_are_quiet,
         "nothing on stderr for a client that is lost",
         "perror() for every connection fills the log of a busy server", PIECES},
    };
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
