/* contract.c - what every server of this book does, row by row, as tests.
 *
 * Usage: contract PROFILE.server          the server that the profile names
 *        SERVER='./mine {port}' contract  any program: {port} becomes a free port
 *        SERVER=./mine contract           a program that takes our options
 * With SERVER and a profile, the program is judged like the profile's server. The programs of profiles are
 * looked for below top_builddir (default: ..). With TEST=word, only the tests whose name contains the word
 * are run. */
#define _GNU_SOURCE /* pidfd_getfd() through syscall(), and POSIX beside it */

#include "harness.h"
#include "tap.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { KiB = 1024, MiB = 1024 * 1024, OWED_AT_MOST = 64 * KiB };

/* What the server's model cannot do, and why its chapter is not the last. */
enum limit {
    NONE = 0,
    ISOLATION = 1,    /* serves one client at a time */
    SCALE = 2,        /* cannot hold 10,000 clients at once */
    IDLE_MEMORY = 4,  /* an idle client costs more than a descriptor */
    FREE_WAITING = 8, /* burns a processor while nothing happens */
    STOP_QUEUE = 16,  /* cannot ask whether somebody waits: at a stop, those in the queue are lost */
    SET_SIZE = 32,    /* can watch descriptors below FD_SETSIZE only */
    TABLE = 64,       /* has its clients in a table of the kernel's, as large as the limit was at the start */
};

static unsigned breaks;

static bool one_at_a_time(void)
{
    return (breaks & ISOLATION) != 0;
}

/* How many descriptors the server has for itself, now that it has surely opened all of them. */
static int own_descriptors(const struct server *server)
{
    int fd = served_client(server);
    int own = server_descriptors(server) - 1;
    client_finish(fd);
    client_ending(fd);
    close(fd);
    return own;
}

static void assert_serves(const struct server *server)
{
    int fd = served_client(server);
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "a client that had finished was not closed properly");
    close(fd);
}

static void assert_ends_well(struct server *server)
{
    int status = server_stop(server, SIGTERM);
    ck_assert_msg(status == 0, "at SIGTERM the server ended with status %d, on stderr: \"%.300s\"", status,
                  server_errors(server));
}

/* The end of a test about something else: our own servers must stop well after
 * whatever has happened to them. A foreign one is judged by the stop rows only. */
static void assert_ours_stops(struct server *server)
{
    if (!server->foreign)
        assert_ends_well(server);
}

/* ---- 1. echo ---- */

static void assert_echo(size_t total, size_t piece)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    size_t back = client_echo(fd, total, piece, 1);
    ck_assert_msg(back == total,
                  "%zu of %zu bytes came back right; then a wrong byte, or the end, or nothing", back, total);
    ck_assert_msg(client_hears_nothing(fd, 20), "after the echo came more bytes, or an end");
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    assert_ours_stops(&server);
}

START_TEST(echo_nothing)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    char byte;
    client_finish(fd);
    ck_assert_msg(client_receive(fd, &byte, 1) == 0, "a client that sent nothing received something");
    ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    assert_ours_stops(&server);
}
END_TEST

START_TEST(echo_one_byte)
{
    assert_echo(1, 1);
}
END_TEST

START_TEST(echo_byte_by_byte)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    for (unsigned i = 0; i < 1000; i++) {
        unsigned char byte = pattern(2, i);
        unsigned char back = 0;
        client_send(fd, &byte, 1);
        ck_assert_msg(client_receive(fd, &back, 1) == 1, "byte %u of 1000 did not come back", i + 1);
        ck_assert_msg(back == byte, "byte %u of 1000 was %d, and came back as %d", i + 1, byte, back);
    }
    assert_ours_stops(&server);
}
END_TEST

START_TEST(echo_sizes)
{
    static const size_t sizes[] = {
        100, 4096, 16 * KiB - 1, 16 * KiB, 16 * KiB + 1, OWED_AT_MOST - 1, OWED_AT_MOST, OWED_AT_MOST + 1,
        MiB};
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t back = client_echo(fd, sizes[i], sizes[i], (unsigned)i);
        ck_assert_msg(back == sizes[i], "of a message of %zu bytes, %zu came back right", sizes[i], back);
    }
    assert_ours_stops(&server);
}
END_TEST

START_TEST(echo_large)
{
    assert_echo((size_t)64 * MiB, MiB);
}
END_TEST

START_TEST(echo_own_bytes)
{
    enum { CLIENTS = 20, SIZE = 50000 };
    struct server server = server_start(NULL);
    int slow = client_connect(&server);
    size_t taken = client_flood(slow, 99);
    if (one_at_a_time()) { /* nobody else is served until it has left */
        client_finish(slow);
        ck_assert_uint_eq(client_receive_pattern(slow, taken, 99, 0), taken);
        close(slow);
    }

    int fds[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++)
        fds[i] = client_connect(&server);
    for (unsigned i = 0; i < CLIENTS; i++) {
        size_t back = client_echo(fds[i], SIZE, SIZE, i);
        ck_assert_msg(back == SIZE, "client %u of %d got %zu of its own %d bytes", i + 1, CLIENTS, back,
                      SIZE);
        if (one_at_a_time())
            close(fds[i]);
    }

    if (!one_at_a_time()) {
        size_t back = client_receive_pattern(slow, taken, 99, 0);
        ck_assert_msg(back == taken,
                      "a client that read late, after others had been served, got %zu of its own %zu bytes",
                      back, taken);
    }
    assert_ours_stops(&server);
}
END_TEST

START_TEST(echo_v6)
{
    int probe = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (probe < 0 || bind(probe, (struct sockaddr *)&loopback, sizeof loopback) < 0)
        tap_skip("this machine has no IPv6 loopback: %s", strerror(errno));
    close(probe);

    /* The second is an IPv4 address in the form of IPv6: the longest that most people ever write. */
    static const char *const addresses[] = {"::1", "::ffff:127.0.0.1"};
    for (size_t i = 0; i < 2; i++) {
        char line[64];
        struct server server = server_start(&(struct server_setup){.address = addresses[i]});
        snprintf(line, sizeof line, "listening on [%s]:%u\n", addresses[i], server.port);
        ck_assert_str_eq(server.line, line);
        assert_serves(&server);
        assert_ours_stops(&server);
    }
}
END_TEST

/* ---- 2. half-close ---- */

START_TEST(half_close_owing)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    size_t taken = client_flood(fd, 6); /* until nothing more is taken */
    client_finish(fd);

    /* Slowly, so that the server reads the FIN while its socket is still full. */
    size_t back = 0;
    size_t step = (size_t)64 * KiB;
    for (bool right = true; right && back < taken; nap()) {
        size_t wanted = taken - back < step ? taken - back : step;
        size_t got = client_receive_pattern(fd, wanted, 6, back);
        right = got == wanted;
        back += got;
    }
    ck_assert_msg(back == taken, "the client sent %zu bytes and its FIN, and got %zu back", taken, back);
    ck_assert_msg(client_ending(fd) == ENDED,
                  "all came back, and then the connection was not closed properly");
    assert_ours_stops(&server);
}
END_TEST

START_TEST(half_close_at_once)
{
    struct server server = server_start(NULL);
    for (int i = 0; i < 200; i++) {
        static const char message[] = "the last words";
        char back[sizeof message] = "";
        const int on = 1;
        int fd = client_connect(&server);
        /* The message and the FIN leave in one segment. */
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
        client_send(fd, message, sizeof message);
        client_finish(fd);
        size_t got = client_receive(fd, back, sizeof back);
        ck_assert_msg(got == sizeof message, "client %d of 200 sent %zu bytes with its FIN, and got %zu back",
                      i + 1, sizeof message, got);
        ck_assert_msg(memcmp(message, back, got) == 0, "client %d of 200 got other bytes than it sent",
                      i + 1);
        ck_assert_msg(client_ending(fd) == ENDED, "client %d of 200 was not closed properly", i + 1);
        close(fd);
    }
    assert_ours_stops(&server);
}
END_TEST

/* ---- 3. reset ---- */

START_TEST(reset_early)
{
    struct server server = server_start(NULL);
    for (int i = 0; i < 200; i++)
        client_reset(client_connect(&server)); /* often while still in the queue */
    assert_serves(&server);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(reset_after_data)
{
    struct server server = server_start(NULL);
    int bystander = one_at_a_time() ? -1 : served_client(&server);
    for (int i = 0; i < 200; i++) {
        int fd = client_connect(&server);
        client_send(fd, "half a mess", 11);
        client_reset(fd);
    }
    if (bystander >= 0)
        ck_assert_msg(client_gets_echo(bystander, "still there?"), "another client lost its connection, too");
    assert_serves(&server);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(reset_while_owed)
{
    struct server server = server_start(NULL);
    int bystander = one_at_a_time() ? -1 : served_client(&server);
    int before = server_descriptors(&server);
    int fd = client_connect(&server);
    client_flood(fd, 0);
    client_reset(fd);
    int uncertain = server_descriptors_uncertain();
    ck_assert_msg(eventually(abs(server_descriptors(&server) - before) <= uncertain),
                  "a client that was owed bytes has gone, and the server still keeps its connection");
    if (bystander >= 0)
        ck_assert_msg(client_gets_echo(bystander, "still there?"), "another client lost its connection, too");
    assert_serves(&server);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(reset_broken_pipe)
{
    /* The server finds data and a FIN, and answers a client that is no more:
     * to the first answer comes a RST, and the second one raises SIGPIPE. */
    struct server server = server_start(NULL);
    for (int i = 0; i < 20; i++) {
        static char data[60000];
        int fd = client_connect(&server);
        server_pause(&server); /* so that nothing has come back when the client closes */
        client_send(fd, data, sizeof data);
        close(fd);
        kill(server.pid, SIGCONT);
    }
    assert_serves(&server);
    assert_ours_stops(&server);
}
END_TEST

/* ---- 4. isolation ---- */

START_TEST(isolation_silent)
{
    struct server server = server_start(NULL);
    int silent = client_connect(&server);
    int half = served_client(&server); /* silent from now on */
    for (int i = 0; i < 100; i++)
        assert_serves(&server);
    ck_assert_msg(client_gets_echo(silent, "at last"), "the silent client was not answered when it spoke");
    ck_assert_msg(client_gets_echo(half, "me too"), "the silent client was not answered when it spoke again");
    assert_ours_stops(&server);
}
END_TEST

START_TEST(isolation_not_reading)
{
    struct server server = server_start(NULL);
    int full = client_connect(&server);
    client_flood(full, 0);
    for (int i = 0; i < 100; i++)
        assert_serves(&server);
}
END_TEST

START_TEST(isolation_busy)
{
    struct server server = server_start(NULL);
    int busy = client_connect(&server);
    pid_t child = fork();
    if (child == 0) {
        for (unsigned seed = 0;; seed++) /* ends with the test's process group */
            client_echo(busy, (size_t)16 * MiB, 256 * KiB, seed);
    }
    for (int i = 0; i < 100; i++)
        assert_serves(&server);
    kill(child, SIGKILL);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(isolation_is_broken)
{
    struct server server = server_start(NULL);
    int first = served_client(&server);
    int second = client_connect(&server); /* the kernel connects it, into the queue */
    client_send(second, "hello", 5);
    ck_assert_msg(client_hears_nothing(second, 200),
                  "a second client was answered while the first was connected: this server is not iterative");
    close(first);
    char back[5];
    ck_assert_msg(client_receive(second, back, 5) == 5,
                  "the first client has left, and the second still waits");
    assert_ours_stops(&server);
}
END_TEST

/* ---- 5. bounded memory ---- */

START_TEST(memory_bounded)
{
    int clients = one_at_a_time() ? 1 : 4;
    struct server server = server_start(NULL);
    assert_serves(&server);
    size_t before = server_resident(&server);

    size_t taken = 0;
    for (int i = 0; i < clients; i++)
        taken += client_flood(client_connect(&server), 0);
    taken /= (size_t)clients;
    ck_assert_msg(taken < (size_t)128 * MiB,
                  "a client that never reads sent %zu MiB, and the server still took more", taken / MiB);
    if (sanitized())
        tap_skip("a sanitizer's own memory hides the server's");

    size_t after = server_resident(&server);
    size_t each = after > before ? (after - before) / (size_t)clients : 0;
    size_t slack = (size_t)512 * KiB / (size_t)clients + 24 * KiB; /* heap, page tables, a thread's stack */
    ck_assert_msg(each <= OWED_AT_MOST + slack,
                  "%d clients that do not read cost the server %zu KiB each, where %d KiB are owed at most",
                  clients, each / KiB, OWED_AT_MOST / KiB);
}
END_TEST

/* How much the server's memory grows for each of count clients who have had
 * an echo of 16 KiB, and are silent. */
static size_t memory_per_idle_client(struct server *server, size_t count)
{
    int *fds = calloc(count, sizeof *fds);
    ck_assert_ptr_nonnull(fds);
    assert_serves(server);
    size_t before = server_resident(server);
    client_connect_many(server, fds, count);
    for (size_t i = 0; i < count; i++) {
        size_t back = client_echo(fds[i], (size_t)16 * KiB, (size_t)16 * KiB, (unsigned)i);
        ck_assert_msg(back == (size_t)16 * KiB, "client %zu of %zu got %zu of 16,384 bytes", i + 1, count,
                      back);
    }
    size_t after = server_resident(server);
    free(fds);
    return after > before ? (after - before) / count : 0;
}

START_TEST(memory_idle)
{
    if (sanitized())
        tap_skip("a sanitizer's own memory hides the server's");
    size_t clients = one_at_a_time() ? 1 : 500;
    struct server server = server_start(NULL);
    size_t each = memory_per_idle_client(&server, clients);
    size_t limit = one_at_a_time() ? (size_t)128 * KiB : (size_t)2 * KiB;
    ck_assert_msg(each <= limit, "an idle client costs the server %zu bytes", each);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(memory_idle_is_broken)
{
    if (sanitized())
        tap_skip("a sanitizer's own memory hides the server's");
    struct server server = server_start(NULL);
    size_t each = memory_per_idle_client(&server, 500);
    ck_assert_msg(each > (size_t)4 * KiB,
                  "an idle client costs only %zu bytes: this server does not keep a stack for each", each);
    ck_assert_msg(each < (size_t)128 * KiB, "an idle client costs %zu KiB, more than its whole stack",
                  each / KiB);
    assert_ours_stops(&server);
}
END_TEST

/* ---- 6. out of descriptors ---- */

static bool answered_within(int fd, int milliseconds)
{
    return !client_hears_nothing(fd, milliseconds);
}

/* How many of them have been answered. */
static int answered(const int *clients, int count)
{
    int found = 0;
    for (int i = 0; i < count; i++)
        found += answered_within(clients[i], 0);
    return found;
}

/* Takes from the server all descriptors but those that it uses: own ones, and one for each member. */
static void use_up_descriptors(const struct server *server, int own, int members)
{
    ck_assert_msg(eventually(server_descriptors(server) <= own + members) || server_is_foreign(),
                  "with %d clients inside, the server has %d descriptors", members,
                  server_descriptors(server));
    server_limit_descriptors(server, (unsigned)server_descriptors(server));

    /* Linux gives accept() its new descriptor before it waits. So where a
     * server waits there, one client may still come in; it leaves at once. */
    int last = client_connect(server);
    client_send(last, "x", 1);
    client_hears_nothing(last, 200);
    client_reset(last);
}

START_TEST(descriptors_out)
{
    enum { INSIDE = 5, OUTSIDE = 5 };
    struct server server = server_start(NULL);
    int own = own_descriptors(&server);
    int inside[INSIDE];
    int members = one_at_a_time() ? 0 : INSIDE; /* an iterative server runs out before its first client */
    for (int i = 0; i < members; i++)
        inside[i] = served_client(&server);
    use_up_descriptors(&server, own, members);

    int outside[OUTSIDE];
    for (int i = 0; i < OUTSIDE; i++) {
        outside[i] = client_connect(&server);
        client_send(outside[i], "let me in", 9);
    }
    ck_assert_msg(client_hears_nothing(outside[0], 300),
                  "a client was served, or closed, without a descriptor");
    ck_assert_msg(server_alive(&server), "the server ended when it was out of descriptors");
    for (int i = 0; i < members; i++)
        ck_assert_msg(client_gets_echo(inside[i], "and me?"),
                      "while new clients wait for a descriptor, client %d of those inside gets no echo",
                      i + 1);

    if (members > 0) { /* a descriptor comes free: one who waits gets it; of several loops, who knows which */
        close(inside[0]);
        ck_assert_msg(eventually(answered(outside, OUTSIDE) > 0),
                      "a client left, and the one who waited for a descriptor was not served");
    }
    server_limit_descriptors(&server, 1000);
    for (int i = 0; i < OUTSIDE; i++) {
        char back[9];
        ck_assert_msg(client_receive(outside[i], back, 9) == 9,
                      "there are descriptors again, and client %d of those who waited is not served", i + 1);
        close(outside[i]);
    }
    assert_ours_stops(&server);
}
END_TEST

START_TEST(descriptors_no_spin)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    assert_serves(&server);
    use_up_descriptors(&server, own_descriptors(&server), 0);
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_failures(&server, "accept") + server_failures(&server, "accept4") > 0),
                  "a client waits, there is no descriptor for it, and accept() never failed");

    uint64_t before = server_failures(&server, "accept") + server_failures(&server, "accept4");
    ck_assert(client_hears_nothing(waiting, 500));
    uint64_t failures = server_failures(&server, "accept") + server_failures(&server, "accept4") - before;
    ck_assert_msg(failures <= 50, "in half a second accept() failed %llu times",
                  (unsigned long long)failures);
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "thanks"),
                  "there are descriptors again, and the client is not served");
    assert_ours_stops(&server);
}
END_TEST

/* The same for a server whose limit cannot be lowered while it runs: it starts with few descriptors, and
 * clients come until one is not served. */
START_TEST(descriptors_of_a_table)
{
    enum { FEW = 20, OUTSIDE = 5 };
    int fds[FEW + OUTSIDE];
    int members = 0;
    struct server server = server_start(&(struct server_setup){.descriptors = FEW});
    for (bool served = true; served && members < FEW;) {
        fds[members] = client_connect(&server);
        client_send(fds[members], "let me in", 9);
        char back[9];
        served = answered_within(fds[members], 500) && client_receive(fds[members], back, 9) == 9;
        members += served;
    }
    ck_assert_msg(members > 0 && members < FEW, "with %d descriptors, the server has served %d clients", FEW,
                  members);
    for (int i = members + 1; i < members + OUTSIDE; i++) {
        fds[i] = client_connect(&server);
        client_send(fds[i], "let me in", 9);
    }
    uint64_t before = server_cpu_wanted_ns(&server);
    ck_assert_msg(client_hears_nothing(fds[members], 500),
                  "a client was served, or closed, without a descriptor");
    double share = (double)(server_cpu_wanted_ns(&server) - before) / 500e6;
    ck_assert_msg(share < 0.05, "out of descriptors, the server used %.0f %% of a processor", 100 * share);
    for (int i = 0; i < members; i++)
        ck_assert_msg(client_gets_echo(fds[i], "and me?"),
                      "while new clients wait for a descriptor, client %d of those inside gets no echo",
                      i + 1);
    for (int i = 0; i < OUTSIDE; i++) { /* one leaves, and the next comes in */
        char back[9];
        close(fds[i]);
        ck_assert_msg(client_receive(fds[members + i], back, 9) == 9,
                      "client %d left, and the one who waited for a descriptor was not served", i + 1);
    }
    assert_ours_stops(&server);
}
END_TEST

/* Starts the server with faults; it must survive them and serve the next client. */
static void assert_survives(const char *faults)
{
    struct server server = server_start(&(struct server_setup){.faults = faults});
    for (int i = 0; i < 6; i++) { /* some of these meet the fault */
        int fd = client_connect(&server);
        send(fd, "hello", 5, MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        client_ending(fd);
        close(fd);
    }
    ck_assert_msg(server_alive(&server), "the server ended after %s; on stderr: \"%.300s\"", faults,
                  server_errors(&server));
    assert_serves(&server);
    assert_ours_stops(&server);
}

START_TEST(descriptors_other_exhaustion)
{
    assert_survives("accept:1-2=ENFILE accept4:1-2=ENFILE");
    assert_survives("accept:1-2=ENOBUFS accept4:1-2=ENOBUFS");
    assert_survives("accept:1-2=ENOMEM accept4:1-2=ENOMEM");
}
END_TEST

/* ---- 7. errors of a connection ---- */

START_TEST(errors_accept)
{
    assert_survives("accept:1=EINTR accept:2=ECONNABORTED accept:3=EPROTO accept:5=EAGAIN "
                    "accept4:1=EINTR accept4:2=ECONNABORTED accept4:3=EPROTO accept4:5=EAGAIN");
}
END_TEST

START_TEST(errors_receive)
{
    assert_survives("recv:1=ECONNRESET recv:2=ETIMEDOUT recv:3=EHOSTUNREACH recv:4=ENOMEM recv:5=EAGAIN");
}
END_TEST

START_TEST(errors_send)
{
    assert_survives("send:1=EPIPE send:2=ECONNRESET send:3=ENOBUFS send:4=ETIMEDOUT");
}
END_TEST

START_TEST(errors_interrupted)
{
    struct server server = server_start(&(struct server_setup){
        .faults = "recv:1=EINTR recv:3=EINTR recv:5=EINTR send:1=EINTR send:3=EINTR "
                  "select:2=EINTR pselect:2=EINTR poll:2=EINTR ppoll:2=EINTR epoll_wait:2=EINTR"});
    int fd = client_connect(&server);
    size_t back = client_echo(fd, MiB, 10000, 3);
    ck_assert_msg(back == MiB, "calls were interrupted by signals, and %zu of %d bytes came back right", back,
                  MiB);
    close(fd);
    assert_serves(&server);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(errors_paused)
{
    /* The kernel may end a waiting call with EINTR when a stopped process goes
     * on; signal(7) lists which. */
    struct server server = server_start(NULL);
    int fd = served_client(&server);
    for (int i = 0; i < 20; i++) {
        server_pause(&server);
        kill(server.pid, SIGCONT);
        ck_assert_msg(client_gets_echo(fd, "on we go"), "after SIGSTOP and SIGCONT the client gets no echo");
    }
    assert_ours_stops(&server);
}
END_TEST

START_TEST(errors_short_send)
{
    struct server server = server_start(&(struct server_setup){.faults = "send:*=short"});
    int fd = client_connect(&server);
    size_t back = client_echo(fd, MiB, 30000, 4);
    ck_assert_msg(back == MiB, "sends were short, and %zu of %d bytes came back right", back, MiB);
    assert_ours_stops(&server);
}
END_TEST

static void our_options_only(void)
{
    if (server_is_foreign())
        tap_skip("needs options that only our own servers have");
}

/* ---- 8. stop ---- */

START_TEST(stop_idle)
{
    static const int signals[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < 2; i++) {
        struct server server = server_start(NULL);
        if ((breaks & FREE_WAITING) == 0) /* so that the signal finds it inside a call that waits */
            ck_assert_msg(eventually(server_asleep(&server)),
                          "nothing happens, and the server does not come to rest");
        int status = server_stop(&server, signals[i]);
        ck_assert_msg(status == 0, "an idle server ended with status %d at %s", status,
                      i == 0 ? "SIGTERM" : "SIGINT");
    }
}
END_TEST

START_TEST(stop_silent_clients)
{
    struct server server = server_start(NULL);
    int first = served_client(&server);
    for (int i = 0; i < 50 && !one_at_a_time(); i++)
        served_client(&server);
    assert_ends_well(&server);
    ck_assert_msg(client_ending(first) != STILL_OPEN, "the server has ended, and the client was not told");
}
END_TEST

/* Whether the server has neither closed nor reset this connection, as the
 * client's kernel knows, though the client has not read all that came. */
static bool still_connected(int fd)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    ck_assert(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
    return info.tcpi_state == TCP_ESTABLISHED;
}

/* How much the client's kernel has still to deliver. */
static size_t undelivered(int fd)
{
    int bytes = 0;
    ck_assert(ioctl(fd, SIOCOUTQ, &bytes) == 0);
    return (size_t)bytes;
}

START_TEST(stop_silent_beside_slow)
{
    struct server server = server_start(NULL);
    int silent = served_client(&server);
    int slow = client_connect(&server);
    client_flood(slow, 0); /* keeps the stop waiting for a while */
    server_signal(&server, SIGTERM);
    ck_assert_msg(client_ending(silent) == ENDED,
                  "the server was told to stop, and a silent client was not closed");
    poll(NULL, 0, 100); /* were both closed at the same time, the other's end arrives now */
    ck_assert_msg(still_connected(slow),
                  "a silent client was closed only together with one that does not read");
    ck_assert_msg(server_wait(&server) == 0, "the server did not end with status 0");
}
END_TEST

START_TEST(stop_echoes)
{
    enum { SIZE = 70000 }; /* more than a server receives at once */
    struct server server = server_start(NULL);
    int fd = served_client(&server);
    static unsigned char sent[SIZE];
    static unsigned char back[SIZE];
    for (size_t i = 0; i < SIZE; i++)
        sent[i] = pattern(5, i);
    bool delivered = false;
    for (int tries = 0; !delivered && tries < 10; tries++) {
        client_echo(fd, (size_t)4 * MiB, 64 * KiB, 6); /* the kernels learn to take so much in at once */
        server_pause(&server);                         /* so that the data is there before the signal is */
        client_send(fd, sent, SIZE);
        delivered = eventually(undelivered(fd) == 0);
        if (!delivered) {
            kill(server.pid, SIGCONT);
            ck_assert(client_receive(fd, back, SIZE) == SIZE);
        }
    }
    if (!delivered)
        tap_skip("the server's kernel does not take %d bytes in at once", SIZE);
    server_signal(&server, SIGTERM);
    kill(server.pid, SIGCONT);
    size_t got = client_receive(fd, back, SIZE);
    ck_assert_msg(got == SIZE && memcmp(sent, back, SIZE) == 0,
                  "%d bytes had come before the server was told to stop, and it echoed %zu", SIZE, got);
    ck_assert_msg(client_ending(fd) == ENDED, "after its echo the client was not closed properly");
    int status = server_wait(&server);
    ck_assert_msg(status == 0, "the server ended with status %d", status);
}
END_TEST

/* Clients connect and send while the server cannot see them; when it can, it
 * has been told to stop. Returns how many of them are echoed. */
static size_t echoes_from_queue(size_t clients)
{
    enum { MOST = 200 };
    int fds[MOST];
    size_t echoed = 0;
    struct server server = server_start(NULL);
    /* The thread sanitizer may lose a signal that comes as a program begins its first wait. */
    ck_assert_msg((breaks & FREE_WAITING) != 0 || eventually(server_asleep(&server)),
                  "without clients the server does not sleep");
    server_pause(&server);
    client_connect_many(&server, fds, clients); /* by the kernel, into the queue */
    for (size_t i = 0; i < clients; i++)
        client_send(fds[i], "hello", 5);
    server_signal(&server, SIGTERM);
    kill(server.pid, SIGCONT);
    for (size_t i = 0; i < clients; i++) {
        char back[5];
        echoed += client_receive(fds[i], back, 5) == 5;
        ck_assert_msg(client_ending(fds[i]) != STILL_OPEN,
                      "the server was told to stop, and client %zu was not closed", i + 1);
    }
    ck_assert_msg(server_wait(&server) == 0, "the server did not end with status 0");
    return echoed;
}

START_TEST(stop_queue)
{
    enum { CLIENTS = 200 };
    size_t echoed = echoes_from_queue(CLIENTS);
    ck_assert_msg(echoed == CLIENTS,
                  "%d clients had connected and sent 5 bytes when the stop began, and %zu got them back",
                  CLIENTS, echoed);
}
END_TEST

START_TEST(stop_queue_is_broken)
{
    size_t echoed = echoes_from_queue(1);
    ck_assert_msg(echoed == 0,
                  "a client that waited in the queue when the stop began was echoed: this server can ask who "
                  "waits there");
}
END_TEST

START_TEST(stop_not_reading)
{
    struct server server = server_start(NULL);
    client_flood(client_connect(&server), 0);
    assert_ends_well(&server);
}
END_TEST

START_TEST(stop_refuses)
{
    struct server server = server_start(NULL);
    int slow = client_connect(&server);
    client_flood(slow, 0); /* keeps the stop waiting for a while */
    server_signal(&server, SIGTERM);
    ck_assert_msg(eventually(!client_can_connect(&server)),
                  "while it stops, the server still takes new clients");
    ck_assert_msg(still_connected(slow), "new clients were refused only when the old ones had been closed");
    ck_assert_msg(server_wait(&server) == 0, "the server did not end with status 0");
}
END_TEST

START_TEST(stop_refuses_is_broken)
{
    struct server server = server_start(NULL);
    int slow = client_connect(&server);
    client_flood(slow, 0);
    server_signal(&server, SIGTERM);
    int late = client_connect(&server);
    poll(NULL, 0, 300); /* a while, in which it could have closed both */
    ck_assert_msg(still_connected(slow), "the only client was closed at once, though it was owed bytes");
    ck_assert_msg(client_ending(late) != STILL_OPEN,
                  "the stop is over, and a client that came too late is not closed");
    ck_assert_msg(server_wait(&server) == 0, "the server did not end with status 0");
}
END_TEST

START_TEST(stop_twice)
{
    struct server server = server_start(NULL);
    client_flood(served_client(&server), 0); /* keeps the stop waiting for a while */
    server_signal(&server, SIGTERM);
    server_signal(&server, SIGINT);
    server_signal(&server, SIGTERM);
    int status = server_wait(&server);
    ck_assert_msg(status == 0, "at a second signal the server ended with status %d", status);
}
END_TEST

START_TEST(stop_port_free)
{
    our_options_only();
    struct server server = server_start(NULL);
    char port[8];
    snprintf(port, sizeof port, "%u", server.port);
    int fd = served_client(&server);
    assert_ends_well(&server); /* the server closes first: TIME_WAIT is on its side */
    client_ending(fd);
    close(fd);
    struct server again = server_start(&(struct server_setup){.arguments = {"--port", port}});
    assert_serves(&again);
    assert_ours_stops(&again);
}
END_TEST

/* ---- 9. start-up ---- */

static void assert_one_line(const struct run *run)
{
    const char *end = strchr(run->err, '\n');
    ck_assert_msg(end != NULL && end[1] == '\0' && end != run->err,
                  "stderr should hold one line, and holds: \"%s\"", run->err);
    ck_assert_msg(run->out[0] == '\0', "stdout should be empty, and holds: \"%s\"", run->out);
}

START_TEST(startup_wrong_use)
{
    static const char *const wrong[][4] = {
        {"--port", "99999"},
        {"--port", "65536"},
        {"--port", "-1"},
        {"--port", ""},
        {"--port", "7007x"},
        {"--port", " 7007"},
        {"--port", "+7"},
        {"--port", "http"},
        {"--port"},
        {"--address"},
        {"--nonsense"},
        {"-x"},
        {"--address", "nonsense"},
        {"--address", ""},
        {"--address", "256.0.0.1"},
        {"7007"},
        {"--verbose=yes"},
        {"--port", "0", "extra"},
    };
    our_options_only();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct run run = run_program(wrong[i]);
        ck_assert_msg(run.status == 2, "%s %s: the exit status was %d; on stderr: \"%s\"", wrong[i][0],
                      wrong[i][1] != NULL ? wrong[i][1] : "", run.status, run.err);
        assert_one_line(&run);
    }
}
END_TEST

START_TEST(startup_port_in_use)
{
    our_options_only();
    struct server server = server_start(NULL);
    char port[8];
    snprintf(port, sizeof port, "%u", server.port);
    struct run run = run_program((const char *[]){"--port", port, NULL});
    ck_assert_msg(run.status == 1, "the port was in use, and the exit status %d", run.status);
    assert_one_line(&run);
    ck_assert_msg(strstr(run.err, port) != NULL && strstr(run.err, strerror(EADDRINUSE)) != NULL,
                  "the message should name the port and the reason, and is: \"%s\"", run.err);
    assert_serves(&server);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(startup_not_ours)
{
    our_options_only();
    /* 192.0.2.1 is for documentation (RFC 5737): no machine has it. */
    struct run run = run_program((const char *[]){"--address", "192.0.2.1", "--port", "0", NULL});
    ck_assert_msg(run.status == 1, "the address was not this machine's, and the exit status %d", run.status);
    assert_one_line(&run);
}
END_TEST

START_TEST(startup_no_privilege)
{
    our_options_only();
    if (geteuid() == 0 && setuid(65534) < 0)
        tap_skip("setuid: %s", strerror(errno));
    struct run run = run_program((const char *[]){"--help", NULL});
    if (run.status != 0)
        tap_skip("a user without privileges cannot run the program where it is");

    struct sockaddr_in low = {
        .sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int probe = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(probe, (struct sockaddr *)&low, sizeof low) == 0 || errno != EACCES)
        tap_skip("on this machine, everybody may use port 7");
    run = run_program((const char *[]){"--port", "7", NULL});
    ck_assert_msg(run.status == 1, "there was no privilege for port 7, and the exit status was %d",
                  run.status);
    assert_one_line(&run);
}
END_TEST

START_TEST(startup_help)
{
    static const char *const options[] = {"--help", "--version"};
    our_options_only();
    for (size_t i = 0; i < 2; i++) {
        struct run run = run_program((const char *[]){options[i], NULL});
        ck_assert_msg(run.status == 0 && run.out[0] != '\0' && run.err[0] == '\0',
                      "%s: status %d, %zu bytes on stdout, %zu on stderr", options[i], run.status,
                      strlen(run.out), strlen(run.err));
    }
}
END_TEST

START_TEST(startup_line)
{
    our_options_only();
    struct server server = server_start(NULL);
    char line[64];
    snprintf(line, sizeof line, "listening on 127.0.0.1:%u\n", server.port);
    ck_assert_str_eq(server.line, line);
    assert_serves(&server);
    ck_assert_msg(server_errors(&server)[0] == '\0', "without --verbose it wrote to stderr: \"%s\"",
                  server_errors(&server));
    assert_ours_stops(&server);
}
END_TEST

/* ---- 10. no leaks ---- */

static void visit(const struct server *server, int count)
{
    for (int i = 0; i < count; i++) {
        int fd = client_connect(server);
        ck_assert_msg(client_gets_echo(fd, "x"), "client %d got no echo", i + 1);
        if (i % 3 == 0)
            client_reset(fd);
        else
            close(fd);
    }
}

START_TEST(leaks)
{
    struct server server = server_start(NULL);
    int descriptors = own_descriptors(&server);
    int threads = server_threads(&server) + (sanitized() ? 1 : 0); /* a sanitizer starts its own, later */
    visit(&server, 2000); /* the heap and the caches of the C library reach their size */
    size_t before = server_resident(&server);
    visit(&server, 8000);
    int uncertain = server_descriptors_uncertain();
    ck_assert_msg(eventually(abs(server_descriptors(&server) - descriptors) <= uncertain),
                  "%d descriptors at first, and %d after 10,000 clients have come and gone", descriptors,
                  server_descriptors(&server));
    ck_assert_msg(server_is_foreign() || eventually(server_threads(&server) <= threads),
                  "%d threads at first, and %d after 10,000 clients have come and gone", threads,
                  server_threads(&server));
    size_t after = server_resident(&server);
    if (!sanitized())
        ck_assert_msg(after <= before + (size_t)192 * KiB,
                      "8,000 clients came and went, and left %zu bytes each", (after - before) / 8000);
    assert_ours_stops(&server);
}
END_TEST

/* ---- 11. waiting is free ---- */

enum { NEXT_TO_NOTHING = 2 }; /* per cent of a processor */

/* The share of a processor, in per cent, that the server wants while 100 clients are silent:
 * what it uses, and what it waits for because others use it. Others may disturb that, but not always. */
static double share_while_silent(const struct server *server)
{
    for (int i = 0; i < 100; i++) {
        if (one_at_a_time() && i > 0)
            client_connect(server);
        else
            served_client(server);
    }
    const int milliseconds = 500;
    double least = 0;
    for (int i = 0; i == 0 || (i < 3 && least >= NEXT_TO_NOTHING); i++) {
        uint64_t before = server_cpu_wanted_ns(server);
        poll(NULL, 0, milliseconds); /* the time during which nothing happens */
        double share = 100 * (double)(server_cpu_wanted_ns(server) - before) / (milliseconds * 1e6);
        if (i == 0 || share < least)
            least = share;
    }
    return least;
}

START_TEST(waiting_free)
{
    struct server server = server_start(NULL);
    double share = share_while_silent(&server);
    ck_assert_msg(share < NEXT_TO_NOTHING,
                  "100 clients said nothing, and the server used %.0f %% of a processor", share);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(waiting_is_broken)
{
    struct server server = server_start(NULL);
    double share = share_while_silent(&server);
    ck_assert_msg(share > 80,
                  "while nothing happened the server wanted only %.0f %% of a processor: it waits, and that "
                  "is another model",
                  share);
    assert_ours_stops(&server);
}
END_TEST

/* ---- 12. no stalls ---- */

/* The server's end of the connection, as a descriptor of this process; -1 where
 * that is not possible. */
static int server_end(const struct server *server, int client)
{
    struct sockaddr_in mine = {0};
    socklen_t size = sizeof mine;
    int found = -1;
#if defined(SYS_pidfd_open) && defined(SYS_pidfd_getfd)
    int process = (int)syscall(SYS_pidfd_open, server->pid, 0);
    if (process < 0 || getsockname(client, (struct sockaddr *)&mine, &size) < 0)
        return -1;
    for (int number = 0; number < 100 && found < 0; number++) {
        struct sockaddr_in peer = {0};
        size = sizeof peer;
        int fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);
        if (fd < 0)
            continue;
        if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 && peer.sin_port == mine.sin_port)
            found = fd;
        else
            close(fd);
    }
    close(process);
#else
    (void)server;
    (void)client;
    (void)mine;
    (void)size;
#endif
    return found;
}

START_TEST(stalls_nodelay)
{
    struct server server = server_start(NULL);
    int fd = served_client(&server);
    int end = server_end(&server, fd);
    if (end < 0)
        tap_skip("the server's descriptors cannot be examined here (pidfd_getfd(2))");
    int on = 0;
    socklen_t size = sizeof on;
    ck_assert(getsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, &size) == 0);
    close(end);
    ck_assert_msg(on != 0, "TCP_NODELAY is not set on the client's socket");
    assert_ours_stops(&server);
}
END_TEST

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sends size bytes in one call, and returns how long the echo takes, in microseconds. */
static double round_trip(int fd, size_t size)
{
    static char data[100000];
    static char back[sizeof data];
    struct timespec begin;
    struct timespec end;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    client_send(fd, data, size);
    size_t got = client_receive(fd, back, size);
    clock_gettime(CLOCK_MONOTONIC, &end);
    ck_assert_msg(got == size, "of a message of %zu bytes, %zu came back", size, got);
    return (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) / 1e3;
}

START_TEST(stalls_two_pieces)
{
    /* Larger than a buffer of 16 KiB, and than one of 64 KiB: such a message goes
     * out in pieces, the last of which is small. No limit of time, but a ratio,
     * of medians in one run: a delayed ACK makes it several hundred. */
    enum { ROUNDS = 41, SIZES = 3 };
    static const size_t sizes[SIZES] = {10000, 20000, 100000};
    double times[SIZES][ROUNDS];
    struct server server = server_start(NULL);
    int fd = client_connect(&server);

    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < SIZES; i++)
            times[i][round] = round_trip(fd, sizes[i]);
    }
    for (int i = 0; i < SIZES; i++)
        qsort(times[i], ROUNDS, sizeof times[i][0], by_size);
    for (int i = 1; i < SIZES; i++) {
        double ratio = times[i][ROUNDS / 2] / times[0][ROUNDS / 2];
        ck_assert_msg(ratio < 50,
                      "a message of %zu bytes takes %.0f microseconds, %.0f times as long as one of %zu",
                      sizes[i], times[i][ROUNDS / 2], ratio, sizes[0]);
    }
    assert_ours_stops(&server);
}
END_TEST

/* ---- 13. scale ---- */

START_TEST(scale)
{
    size_t count = sanitized() ? 1000 : 10000;
    int *fds = calloc(count, sizeof *fds);
    ck_assert_ptr_nonnull(fds);
    struct server server = server_start(&(struct server_setup){.descriptors = (unsigned)count + 100});
    client_connect_many(&server, fds, count);
    for (size_t i = 0; i < count; i++)
        client_send(fds[i], &i, sizeof i);
    for (size_t i = 0; i < count; i++) {
        size_t back = count;
        ck_assert_msg(client_receive(fds[i], &back, sizeof back) == sizeof back && back == i,
                      "of %zu clients at once, client %zu got no echo, or another's", count, i + 1);
    }
    for (size_t i = 0; i < count; i++)
        client_reset(fds[i]);
    free(fds);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(set_size)
{
    enum { CLIENTS = 2000, RESERVED = 16 }; /* descriptors that the server may need for itself */
    static int fds[CLIENTS];
    size_t served = 0;
    struct server server = server_start(&(struct server_setup){.descriptors = CLIENTS + 100});
    client_connect_many(&server, fds, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        send(fds[i], &i, sizeof i, MSG_NOSIGNAL); /* fails when it has been turned away */
    for (size_t i = 0; i < CLIENTS; i++) {
        size_t back = CLIENTS;
        size_t got = client_receive(fds[i], &back, sizeof back);
        ck_assert_msg(got == 0 || (got == sizeof back && back == i),
                      "client %zu got another's echo, or a part", i + 1);
        served += got > 0;
        if (got == 0)
            ck_assert_msg(client_ending(fds[i]) != STILL_OPEN,
                          "client %zu was not served, and its connection is still open", i + 1);
    }
    ck_assert_msg(served >= FD_SETSIZE - RESERVED && served < FD_SETSIZE,
                  "a set has room for %d descriptors, and of %d clients %zu were served", FD_SETSIZE, CLIENTS,
                  served);
    const char *line = strstr(server_errors(&server), "FD_SETSIZE");
    ck_assert_msg(line != NULL, "stderr does not name FD_SETSIZE, and holds: \"%s\"", server_errors(&server));
    for (size_t i = 0; i < CLIENTS; i++)
        client_reset(fds[i]);
    assert_serves(&server);
    assert_ours_stops(&server);
}
END_TEST

START_TEST(scale_is_broken)
{
    enum { CLIENTS = 200 };
    struct server server = server_start(NULL);
    int fds[CLIENTS];
    client_connect_many(&server, fds, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        client_send(fds[i], &i, sizeof i);
    for (size_t i = 0; i < CLIENTS; i++) { /* in the order in which they came */
        size_t back = CLIENTS;
        ck_assert_msg(client_receive(fds[i], &back, sizeof back) == sizeof back && back == i,
                      "client %zu of %d got no echo, or another's", i + 1, CLIENTS);
        if (i + 1 < CLIENTS)
            ck_assert_msg(client_hears_nothing(fds[i + 1], 1), "client %zu was served while client %zu was",
                          i + 2, i + 1);
        close(fds[i]);
    }
    assert_ours_stops(&server);
}
END_TEST

/* ---- the table ---- */

struct row {
    enum limit limit;         /* what the server's model may break by design */
    bool shows_limit;         /* the test runs only where it does; else only where it does not */
    const TTest *const *test; /* START_TEST's name is a variable, whose value no initialiser may have */
    const char *name, *expected, *cause, *section;
};

#define CONTRACT(point) "the book, introduction, \"The contract\", point " point

/* clang-format off */
static const struct row rows[] = {
    {NONE, false, &echo_nothing, "echo: a client that sends nothing gets nothing, and an end",
     "0 bytes in, 0 bytes out; after the client's FIN the server closes.",
     "the end of the input, recv() == 0, is taken for \"no data yet\"", CONTRACT("1")},
    {NONE, false, &echo_one_byte, "echo: one byte",
     "A byte that a client sends comes back to it, once.", "the server waits for a full buffer or a line", CONTRACT("1")},
    {NONE, false, &echo_byte_by_byte, "echo: a byte at a time",
     "Each byte comes back before the next is sent.", "the server waits for more before it answers", CONTRACT("1")},
    {NONE, false, &echo_sizes, "echo: messages around the size of a buffer",
     "Messages a byte smaller or larger than a buffer come back whole.",
     "a message that fills the buffer exactly, or exceeds it, is handled wrongly at its border", CONTRACT("1")},
    {NONE, false, &echo_large, "echo: 64 MiB, a megabyte at a time",
     "Each byte comes back once and in order, however many there are.",
     "a short send was taken for a whole one: send() returned less than asked, and the rest was dropped", CONTRACT("1")},
    {NONE, false, &echo_own_bytes, "echo: each client gets its own bytes",
     "What a client sent comes back to that client and to nobody else.",
     "a buffer or an index is shared between connections that are served in turn", CONTRACT("1")},
    {NONE, false, &echo_v6, "echo: over IPv6",
     "--address ::1 listens on IPv6, and prints \"listening on [::1]:PORT\".",
     "the address family is fixed to AF_INET instead of what getaddrinfo() found", CONTRACT("1")},

    {NONE, false, &half_close_owing, "half-close: after a client's FIN, all that it is owed still comes",
     "A client sends until nothing more is taken, then its FIN, then reads: it gets every byte, then the end.",
     "the server closes when it sees the FIN (or a hang-up event), although it still has bytes to send", CONTRACT("2")},
    {NONE, false, &half_close_at_once, "half-close: a message and a FIN in one segment",
     "The message is echoed, then the connection closed.",
     "the end of the input is handled before the data that came with it", CONTRACT("2")},

    {NONE, false, &reset_early, "reset: clients who leave before they say a word",
     "A client that resets costs its own connection only.",
     "an error from accept() or from the first recv() ends the server", CONTRACT("3")},
    {NONE, false, &reset_after_data, "reset: clients who leave after they have sent",
     "A client that resets costs its own connection only.",
     "ECONNRESET or EPIPE is taken for an error of the server", CONTRACT("3")},
    {NONE, false, &reset_while_owed, "reset: a client who leaves while it is owed bytes",
     "A client that resets costs its own connection only.",
     "the failure of a send that was continued later is not handled", CONTRACT("3")},
    {NONE, false, &reset_broken_pipe, "reset: sending to a client who has gone does not end the server",
     "send() to a client that has gone fails with EPIPE, and that connection is closed.",
     "SIGPIPE is not ignored: its default action ends the process (status 141 in a shell)", CONTRACT("3")},

    {ISOLATION, false, &isolation_silent, "isolation: a client that says nothing delays nobody",
     "100 other clients are served while two are connected and silent.",
     "the server waits in recv() for one client while others have something to say", CONTRACT("4")},
    {ISOLATION, false, &isolation_not_reading, "isolation: a client that does not read delays nobody",
     "100 other clients are served while one does not take its bytes.",
     "the server waits in send() until that client reads", CONTRACT("4")},
    {ISOLATION, false, &isolation_busy, "isolation: a client that sends without pause delays nobody",
     "100 other clients are served while one sends and receives megabytes.",
     "the server stays with one connection for as long as that has data", CONTRACT("4")},
    {ISOLATION, true, &isolation_is_broken, "isolation, broken by design: a second client waits for the first",
     "An iterative server answers a second client only when the first has left. That is its limit.",
     "the server serves clients at the same time, and so is not iterative", "the book, chapter 1, \"The idea\""},

    {NONE, false, &memory_bounded, "memory: a client that does not read is owed at most 64 KiB",
     "Past 64 KiB owed, the server stops reading from that client, whom TCP then holds back.",
     "the server goes on reading and queues what it cannot send, without a bound", CONTRACT("5")},
    {IDLE_MEMORY, false, &memory_idle, "memory: an idle client holds no buffer",
     "A client that has been answered and is silent costs the server less than 2 KiB.",
     "each connection has a buffer of its own, for as long as it lasts", CONTRACT("5")},
    {IDLE_MEMORY, true, &memory_idle_is_broken, "memory, broken by design: an idle client holds a thread's stack",
     "A thread for each client costs the pages of its stack, whether it has something to do or not.",
     "the server does not keep a thread for each client, and so shows another model", "the book, chapter 1, \"The idea\""},

    {TABLE, false, &descriptors_out, "out of descriptors: those inside are served, those outside wait",
     "Without a free descriptor the server goes on with the clients that it has; those who wait are served later.",
     "EMFILE from accept() ends the server, blocks it, or costs the waiting client its connection", CONTRACT("6")},
    {FREE_WAITING | TABLE, false, &descriptors_no_spin, "out of descriptors: the server does not spin",
     "accept() fails with EMFILE, and the server tries again later, not at once.",
     "the listening socket stays readable, accept() fails, and the loop asks again without a pause", CONTRACT("6")},
    {TABLE, true, &descriptors_of_a_table, "out of descriptors, started with few: those inside are served, those outside wait",
     "When its table is full, the server goes on with the clients that it has, and waits; the others are served later.",
     "an accept into a full table takes the client from the queue, and loses it; or is begun again at once", CONTRACT("6")},
    {NONE, false, &descriptors_other_exhaustion, "out of descriptors: ENFILE, ENOBUFS and ENOMEM are no end either",
     "The server goes on when the whole system is short of descriptors or memory.",
     "only EMFILE is expected from accept(); its like end the server", CONTRACT("6")},

    {NONE, false, &errors_accept, "errors: EINTR, ECONNABORTED, EPROTO and EAGAIN from accept()",
     "accept() may report what happened to one client; the next one is served.",
     "every error of accept() is taken for the end", CONTRACT("7")},
    {NONE, false, &errors_receive, "errors: a failing recv() costs one connection",
     "That client is closed; the server goes on.", "an error of recv() ends the server", CONTRACT("7")},
    {NONE, false, &errors_send, "errors: a failing send() costs one connection",
     "That client is closed; the server goes on.", "an error of send() ends the server", CONTRACT("7")},
    {NONE, false, &errors_interrupted, "errors: calls interrupted by a signal are made again",
     "EINTR means \"nothing has happened yet\": the call is made again, and no byte is lost or doubled.",
     "EINTR is taken for an error of the connection, or for the end", CONTRACT("7")},
    {NONE, false, &errors_paused, "errors: a server that was stopped and continued goes on",
     "After SIGSTOP and SIGCONT the clients are served as before.",
     "the wait call returned with EINTR, which is taken for an error", CONTRACT("7")},
    {NONE, false, &errors_short_send, "errors: short sends are continued",
     "send() may take less than asked; the rest follows.",
     "the return value of send() is only compared with -1", CONTRACT("7")},

    {NONE, false, &stop_idle, "stop: SIGTERM and SIGINT end an idle server with status 0",
     "The server ends by itself, with status 0.",
     "the signal's default action ends the process (status 143 or 130), or a blocked call is not woken", CONTRACT("8")},
    {NONE, false, &stop_silent_clients, "stop: clients who say nothing do not hold it up",
     "Every waiting call is woken, the clients are closed, the status is 0.",
     "a thread or the loop still waits for a client that says nothing", CONTRACT("8")},
    {ISOLATION, false, &stop_silent_beside_slow, "stop: a silent client does not wait for a slow one",
     "Who is owed nothing is closed at once; the grace is for those who have bytes to take.",
     "a silent client is closed only when the grace is over", CONTRACT("8")},
    {NONE, false, &stop_echoes, "stop: what has been received is echoed first",
     "Data that came before the signal comes back; then the connection is closed with a FIN, not a reset.",
     "the server closes without reading what waits in the socket: unread data turns the close into a reset", CONTRACT("8")},
    {STOP_QUEUE, false, &stop_queue, "stop: who came before it is served first",
     "The clients that the kernel had connected when the signal came get their echoes, however many they are.",
     "the listening socket is closed without a last accept(), or after a few: that resets who waits in its queue", CONTRACT("8")},
    {STOP_QUEUE, true, &stop_queue_is_broken, "stop, broken by design: who still waits in the queue is lost",
     "A blocking accept() cannot be asked whether somebody waits; so a stop closes the queue with those in it.",
     "the listening socket is non-blocking, and so shows another model", "the book, chapter 1, \"The server, piece by piece\""},
    {NONE, false, &stop_not_reading, "stop: a client that never reads does not prevent it",
     "After a grace of some seconds, a client that does not take its bytes is closed all the same.",
     "the stop waits for the last byte, for ever", CONTRACT("8")},
    {ISOLATION, true, &stop_refuses_is_broken, "stop, broken by design: while it lasts, new clients still get into the queue",
     "A server that talks to one client until the end closes its listening socket after that: who comes late is then reset.",
     "the listening socket is closed by somebody who does not talk to a client: this server is not iterative", "the book, chapter 1, \"The idea\""},
    {ISOLATION, false, &stop_refuses, "stop: while it lasts, new clients are refused",
     "The listening socket is closed first.", "the listening socket is closed last, or by the end of the process", CONTRACT("8")},
    {NONE, false, &stop_twice, "stop: a second signal does no harm",
     "Impatient users press Ctrl-C again: the stop goes on, and the status is 0.",
     "the handler resets itself (SA_RESETHAND), so that the second signal kills", CONTRACT("8")},
    {NONE, false, &stop_port_free, "stop: the port can be used again at once",
     "A server that is started again on the same port listens, though old connections are in TIME_WAIT.",
     "SO_REUSEADDR is not set before bind()", CONTRACT("8")},

    {NONE, false, &startup_wrong_use, "start-up: wrong use gets one clear line and status 2",
     "Unknown options, missing values, bad ports and addresses: one line on stderr, nothing on stdout, status 2.",
     "atoi() or a cast turns a bad number into some port; or the error is found too late", CONTRACT("9")},
    {NONE, false, &startup_port_in_use, "start-up: a port in use is said so",
     "One line that names the port and the reason, and status 1.",
     "the error of bind() is not reported, or without the port", CONTRACT("9")},
    {NONE, false, &startup_not_ours, "start-up: an address that is not this machine's is said so",
     "One line, and status 1.", "the error of bind() is not checked", CONTRACT("9")},
    {NONE, false, &startup_no_privilege, "start-up: a port without the privilege for it is said so",
     "One line, and status 1.", "the error of bind() is not checked", CONTRACT("9")},
    {NONE, false, &startup_help, "start-up: --help and --version write to stdout and end with 0",
     "What was asked for is no error: stdout, and status 0.", "the help is written to stderr, or with a failing status", CONTRACT("9")},
    {NONE, false, &startup_line, "start-up: the line that says where it listens",
     "\"listening on 127.0.0.1:PORT\" on stdout, with the port that the kernel chose, and nothing on stderr.",
     "the line is not flushed, or shows the port asked for (0)", CONTRACT("9")},

    {NONE, false, &leaks, "leaks: after 10,000 clients, descriptors, threads and memory are back",
     "Nothing of a client remains when it has gone.",
     "a path on which the connection ends early leaves its descriptor open, its thread unjoined, or its memory", CONTRACT("10")},

    {FREE_WAITING, false, &waiting_free, "waiting: 100 silent clients cost no processor time",
     "While nothing happens, the server sleeps in the kernel.",
     "the server polls: it asks again and again instead of waiting", CONTRACT("11")},
    {FREE_WAITING, true, &waiting_is_broken, "waiting, broken by design: an idle server burns a processor",
     "A server that asks every client in turn never sleeps. That is its limit.",
     "the server waits somewhere, and so shows another model", "the book, chapter 2, \"The idea\""},

    {NONE, false, &stalls_nodelay, "stalls: answers do not wait for an acknowledgement",
     "TCP_NODELAY is set on each client's socket: Nagle's algorithm does not hold back an answer.",
     "TCP_NODELAY is not set: an answer in two pieces waits for the client's delayed ACK", CONTRACT("12")},
    {NONE, false, &stalls_two_pieces, "stalls: a message that goes out in two pieces is not held up",
     "A message of 20,000 or 100,000 bytes takes not much longer than one of 10,000.",
     "without TCP_NODELAY the last piece waits for the client's ACK, and the client delays it", CONTRACT("12")},

    {SCALE | SET_SIZE, false, &scale, "scale: 10,000 clients at once",
     "10,000 clients are connected at the same time, and each gets its echo.",
     "a fixed table of clients, or a limit of threads or descriptors, is reached", CONTRACT("13")},
    {SCALE, true, &scale_is_broken, "scale, broken by design: of many clients at once, one is served",
     "200 clients are connected, and get their echoes one after the other, as each leaves.",
     "the server serves clients at the same time, and so is not iterative", "the book, chapter 1, \"The idea\""},
    {SET_SIZE, true, &set_size, "scale, broken by design: clients past FD_SETSIZE are closed at once, and one line says so",
     "2,000 clients come. Those whose descriptor fits into a set are served; the others are closed before they are\n"
     "served, and stderr says why. When some have left, new ones are served again.",
     "FD_SET() with a descriptor that does not fit writes past the end of the set; or the server ends at such a\n"
     "client, or leaves it without a word", "the book, chapter 3, \"The API\""},
};
/* clang-format on */

/* Reads a profile: "program PATH", "options WORD...", "breaks WORD" and "system wine" lines. Returns the
 * path. */
static const char *read_profile(const char *path, char *options, size_t options_size)
{
    static const struct {
        const char *word;
        enum limit limit;
    } words[] = {{"isolation", ISOLATION},
                 {"scale", SCALE},
                 {"idle-memory", IDLE_MEMORY},
                 {"free-waiting", FREE_WAITING},
                 {"stop-queue", STOP_QUEUE},
                 {"set-size", SET_SIZE},
                 {"table", TABLE}};
    static char program[512];
    const char *top = getenv("top_builddir");
    char line[256];
    FILE *file = fopen(path, "re");

    if (file == NULL) {
        fprintf(stderr, "contract: %s: %s\n", path, strerror(errno));
        exit(EXIT_FAILURE);
    }
    while (fgets(line, sizeof line, file) != NULL) {
        char key[16];
        char value[200];
        if (sscanf(line, "%15s %199s", key, value) != 2 || key[0] == '#')
            continue;
        if (strcmp(key, "options") == 0) {
            snprintf(options, options_size, "%s", line + strlen("options "));
            options[strcspn(options, "\n")] = '\0';
        }
        if (strcmp(key, "program") == 0)
            snprintf(program, sizeof program, "%s/%s", top != NULL ? top : "..", value);
        if (strcmp(key, "system") == 0 && strcmp(value, "wine") == 0)
            server_under_wine();
        for (size_t i = 0; strcmp(key, "breaks") == 0 && i < sizeof words / sizeof *words; i++)
            breaks |= strcmp(value, words[i].word) == 0 ? words[i].limit : 0U;
    }
    fclose(file);
    return program;
}

/* Whether the server can be started at all; else one line says why not, or why that does not matter here. */
START_TEST(can_start)
{
    server_start(NULL);
}
END_TEST

static bool starts(const char *program, bool *lacking)
{
    Suite *suite = suite_create("start");
    TCase *tcase = tcase_create("start");
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, can_start);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_SILENT);
    bool started = srunner_ntests_failed(runner) == 0;
    if (!started) {
        TestResult **failures = srunner_failures(runner);
        char message[600];
        snprintf(message, sizeof message, "%s", tr_msg(failures[0]));
        for (char *newline; (newline = strchr(message, '\n')) != NULL;)
            *newline = ' ';
        const char *skipped = tap_skipped(message);
        *lacking = skipped != NULL;
        if (skipped != NULL)
            printf("1..0 # SKIP %s\n", skipped);
        else
            printf("Bail out! %s%s\n", message,
                   strpbrk(program, " {") != NULL && strstr(program, "{port}") == NULL
                       ? "; SERVER has no {port}: does it listen on the port that is put there?"
                       : "");
        free(failures);
    }
    srunner_free(runner);
    return started;
}

int main(int argc, char **argv)
{
    const char *program = getenv("SERVER");
    struct tap_test tests[sizeof rows / sizeof *rows];
    size_t count = 0;
    char prefix[600] = "";
    char options[256] = "";

    if (argc > 2 || (argc == 1 && program == NULL)) {
        fprintf(stderr,
                "usage: contract PROFILE.server, or SERVER='./mine {port}' contract [PROFILE.server]\n");
        return 2;
    }
    if (argc == 2) {
        const char *of_profile = read_profile(argv[1], options, sizeof options);
        if (program == NULL && access(of_profile, F_OK) < 0) {
            printf("1..0 # SKIP %s: not built here; the table of ./configure says why\n", of_profile);
            return EXIT_SUCCESS;
        }
        if (program == NULL) {
            program = of_profile;
            server_options(options);
        } else {
            options[0] = '\0';
        }
    }
    if (strpbrk(program, " {") == NULL) {
        const char *slash = strrchr(program, '/');
        snprintf(prefix, sizeof prefix, "%s%s%s: ", slash != NULL ? slash + 1 : program,
                 options[0] != '\0' ? " " : "", options);
    }
    server_choose(program);
    bool lacking = false;
    if (!starts(program, &lacking))
        return lacking ? EXIT_SUCCESS : EXIT_FAILURE;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        bool broken = (breaks & row->limit) != 0;
        if (row->shows_limit == broken || row->limit == NONE)
            tests[count++] =
                (struct tap_test){row->name, *row->test, row->expected, row->cause, row->section};
    }
    return tap_run(prefix, tests, count);
}
