/* exercise_ch07.c - checks the exercises of chapter 7.
 *
 * Usage: exercise_ch07 07-1 PROGRAM
 * What a program does with its ring is read in Linux' /proc, where the kernel says how far its heads and
 * tails are. Where the kernel has no io_uring, or it is switched off, everything is skipped. */
#define _GNU_SOURCE /* O_CLOEXEC in fopen(), and the POSIX functions beside it */

#include "harness.h"
#include "tap.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef IORING_FEAT_RECVSEND_BUNDLE /* Linux 6.10 */
#define IORING_FEAT_RECVSEND_BUNDLE (1U << 14)
#endif

#define BOOK "the book, chapter 7, "
#define RINGS BOOK "\"The rings\""
#define ORDER BOOK "\"Who writes what, and in which order\""
#define LINKED BOOK "\"Linked timeouts\""
#define LENT BOOK "\"Buffers that are lent\""
#define MULTISHOT BOOK "\"Multishot\""
#define ZERO_COPY BOOK "\"Zero copy, and when it pays\""
#define STOP BOOK "\"The stop\""

static const char *program;  /* whose exercise is checked */
static unsigned features;    /* of a ring on this kernel */
static bool knows_zero_copy; /* IORING_OP_SEND_ZC */

/* ---- what all of them need ---- */

START_TEST(still_stops)
{
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        struct server server = server_start(NULL);
        int fd = client_connect(&server);
        int status = server_stop(&server, signals[i]);
        ck_assert_msg(status == 0, "at %s the server ended with status %d, on stderr: \"%.300s\"",
                      i == 0 ? "SIGTERM" : "SIGINT", status, server_errors(&server));
        ck_assert_msg(client_ending(fd) != STILL_OPEN, "the server has ended, and a client was not closed");
    }
}
END_TEST

static void put(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

/* Requires that just this comes from the server. */
static void gets(int fd, const char *text, const char *when)
{
    char back[1000] = "";
    size_t size = strlen(text);
    size_t got = client_receive(fd, back, size);
    if (got != size || memcmp(back, text, size) != 0)
        ck_abort_msg("%s a client should get \"%.*s\", and got \"%.*s\"%s", when, (int)strcspn(text, "\n"),
                     text, (int)strcspn(back, "\n"), back, got < size ? " by the deadline" : "");
}

static void asks(int fd, const char *line, const char *answer)
{
    char when[100];
    put(fd, line);
    snprintf(when, sizeof when, "after \"%.*s\"", (int)strcspn(line, "\n"), line);
    gets(fd, answer, when);
}

/* From now on, a server that is started finds rubbish in memory that it has freed, where the C library is
 * glibc (mallopt(3); what its cache holds it would leave as it was). */
static void spoil_freed_memory(void)
{
    setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0", 1);
}

/* ---- the server's ring, as the kernel sees it ---- */

struct figures {
    unsigned submitted; /* entries that the kernel has taken */
    unsigned announced; /* entries that the server has put */
    unsigned completed; /* completions in the queue, since the ring was opened */
    unsigned seen;      /* completions that the server has taken from there */
};

/* Returns the number of the descriptor of the server's ring; 0 if it has none. */
static int ring_descriptor(const struct server *server)
{
    char path[64];
    int found = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)server->pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        tap_skip("%s: %s (this test looks at the server's ring there)", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char target[64] = "";
        if (readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) > 0 &&
            strcmp(target, "anon_inode:[io_uring]") == 0)
            found = (int)strtol(entry->d_name, NULL, 10);
    }
    closedir(folder);
    return found;
}

/* How many parts of the server's memory belong to a ring. */
static int ring_mappings(const struct server *server)
{
    char path[64];
    char line[512];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)server->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s (this test looks at the server's memory there)", path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL)
        count += strstr(line, "anon_inode:[io_uring]") != NULL;
    fclose(file);
    return count;
}

/* The kernel shows them all only while nobody is busy with the ring. */
static bool read_figures(const char *path, struct figures *figures)
{
    char line[256];
    int found = 0;
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        found += sscanf(line, "SqHead: %u", &figures->submitted) == 1 ||
                 sscanf(line, "SqTail: %u", &figures->announced) == 1 ||
                 sscanf(line, "CqHead: %u", &figures->seen) == 1 ||
                 sscanf(line, "CqTail: %u", &figures->completed) == 1;
    if (file != NULL)
        fclose(file);
    return found == 4;
}

/* The figures of a server that has nothing to do at the moment. */
static struct figures ring_figures(const struct server *server)
{
    struct figures figures = {0};
    char path[64];
    if (!eventually(server_asleep(server)))
        ck_abort_msg("there is nothing to do, and the server does not sleep");
    int fd = ring_descriptor(server);
    if (fd == 0)
        ck_abort_msg("the server has no descriptor of an io_uring");
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)server->pid, fd);
    if (!eventually(read_figures(path, &figures)))
        tap_skip("%s does not have the figures of the ring", path);
    return figures;
}

/* What was added since. */
static struct figures since(const struct server *server, struct figures before)
{
    struct figures now = ring_figures(server);
    return (struct figures){now.submitted - before.submitted, now.announced - before.announced,
                            now.completed - before.completed, now.seen - before.seen};
}

/* Requires that the server does next to nothing in the next half second (TCP may still have something to do).
 */
static void assert_waits(const struct server *server, const char *when)
{
    ck_assert_msg(eventually(server_asleep(server)), "%s the server does not sleep", when);
    struct figures before = ring_figures(server);
    poll(NULL, 0, 500);
    struct figures added = since(server, before);
    ck_assert_msg(added.completed <= 10 && added.announced <= 10,
                  "%s, in half a second there were %u new entries and %u completions", when, added.announced,
                  added.completed);
}

/* ---- 07-1, the rings by hand ---- */

START_TEST(rings_open)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    asks(fd, "open 8\n", "open\n");
    int mappings = ring_mappings(&server);
    ck_assert_msg(mappings >= 2, "of the ring's memory %d parts are mapped", mappings);
    asks(fd, "take 1\n", "took 0\n");
    asks(fd, "open 0\n", "Invalid argument\n");
    asks(fd, "open 1000000\n", "Invalid argument\n");
}
END_TEST

START_TEST(rings_one)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    asks(fd, "open 8\n", "open\n");
    asks(fd, "put 1\n", "put 1\n");
    asks(fd, "enter 1\n", "entered 1\n");
    struct figures figures = ring_figures(&server);
    ck_assert_msg(figures.submitted == 1 && figures.completed == 1,
                  "the kernel has taken %u entries, and put %u completions", figures.submitted,
                  figures.completed);
    ck_assert_msg(figures.seen == 0, "nobody has asked for the completion, and its place was given back");
    asks(fd, "take 1\n", "took 1\n");
    figures = ring_figures(&server);
    ck_assert_msg(figures.seen == 1, "a completion was taken, and its place was not given back");
    asks(fd, "take 1\n", "took 0\n");
}
END_TEST

START_TEST(rings_full)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    static const char *const sizes[] = {"open 8\n", "open 5\n"}; /* the kernel rounds up */
    for (size_t i = 0; i < 2; i++) {
        asks(fd, sizes[i], "open\n");
        for (int round = 0; round < 3; round++) {
            asks(fd, "put 3\n", "put 3\n");
            asks(fd, "put 100\n", "put 5\n");
            asks(fd, "put 1\n", "put 0\n");
            asks(fd, "enter 8\n", "entered 8\n");
            asks(fd, "put 1\n", "put 1\n"); /* the kernel has taken them, so there is room */
            asks(fd, "enter 0\n", "entered 1\n");
            asks(fd, "take 100\n", "took 9\n");
        }
    }
}
END_TEST

START_TEST(rings_around)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    asks(fd, "open 8\n", "open\n");
    asks(fd, "run 100000\n", "ran 100000\n");
    struct figures figures = ring_figures(&server);
    ck_assert_msg(figures.submitted == 100000 && figures.announced == 100000,
                  "after 100000 no-ops, the submission queue's head is at %u, and its tail at %u",
                  figures.submitted, figures.announced);
    ck_assert_msg(figures.completed == 100000 && figures.seen == 100000,
                  "after 100000 no-ops, the completion queue's tail is at %u, and its head at %u",
                  figures.completed, figures.seen);
}
END_TEST

START_TEST(rings_kept)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    asks(fd, "open 4\n", "open\n"); /* so there is room for 8 completions */
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++) {
            asks(fd, "put 4\n", "put 4\n");
            asks(fd, "enter 0\n", "entered 4\n");
        }
        asks(fd, "take 100\n", "took 12\n");
    }
}
END_TEST

START_TEST(rings_closed)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    asks(fd, "open 8\n", "open\n");
    asks(fd, "close\n", "closed\n");
    int descriptors = server_descriptors(&server);
    int mappings = ring_mappings(&server);
    ck_assert_msg(mappings == 0, "a ring was closed, and %d parts of its memory are still mapped", mappings);
    for (int i = 0; i < 200; i++) {
        asks(fd, "open 64\n", "open\n");
        asks(fd, "run 1\n", "ran 1\n");
        asks(fd, "close\n", "closed\n");
    }
    ck_assert_msg(server_descriptors(&server) == descriptors,
                  "200 rings were opened and closed, and there are %d descriptors instead of %d",
                  server_descriptors(&server), descriptors);
    mappings = ring_mappings(&server);
    ck_assert_msg(mappings == 0, "200 rings were closed, and %d parts of their memory are mapped", mappings);
}
END_TEST

/* Reads the student's file, without its comments. */
static const char *source(const char *name)
{
    static char text[1 << 20];
    char path[4096];
    snprintf(path, sizeof path, "%.*s/%s", (int)(strrchr(program, '/') - program), program, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s (this test looks into the source)", path, strerror(errno));
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    char *to = text;
    for (const char *from = text; *from != '\0';) {
        const char *end = strncmp(from, "/*", 2) == 0   ? strstr(from, "*/")
                          : strncmp(from, "//", 2) == 0 ? strchr(from, '\n')
                                                        : NULL;
        if (end != NULL)
            from = *end == '*' ? end + 2 : end;
        else
            *to++ = *from++;
    }
    *to = '\0';
    return text;
}

static bool has_one_of(const char *text, const char *const words[])
{
    for (; *words != NULL; words++) {
        if (strstr(text, *words) != NULL)
            return true;
    }
    return false;
}

START_TEST(rings_order)
{
    static const char *const library[] = {"liburing.h", "io_uring_queue_init", NULL};
    static const char *const acquire[] = {"memory_order_acquire", "memory_order_seq_cst", "atomic_load(",
                                          "__ATOMIC_ACQUIRE",     "__ATOMIC_SEQ_CST",     NULL};
    static const char *const release[] = {"memory_order_release", "memory_order_seq_cst", "atomic_store(",
                                          "__ATOMIC_RELEASE",     "__ATOMIC_SEQ_CST",     NULL};
    const char *text = source("ring.c");
    ck_assert_msg(!has_one_of(text, library), "ring.c uses liburing");
    ck_assert_msg(has_one_of(text, acquire),
                  "ring.c has no acquire: what the kernel wrote before it moved a head or a tail need not be "
                  "seen after that");
    ck_assert_msg(has_one_of(text, release),
                  "ring.c has no release: the kernel may see a head or a tail before that what was written "
                  "first");
}
END_TEST

/* ---- 07-2, a limit on silence ---- */

static struct server start_with_limit(const char *limit_ms)
{
    return server_start(&(struct server_setup){.arguments = {"--limit", limit_ms}});
}

START_TEST(limit_echo)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    size_t back = client_echo(fd, 1 << 20, 10000, 3);
    ck_assert_msg(back == 1 << 20, "of a megabyte %zu bytes came back", back);
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "after its FIN, a client is not closed");
    assert_stops(&server);
}
END_TEST

START_TEST(limit_silent)
{
    struct server server = start_with_limit("100");
    int first = client_connect(&server);
    int fds[10];
    for (size_t i = 0; i < 10; i++)
        fds[i] = client_connect(&server);
    gets(first, "bye\n", "who says nothing,");
    ck_assert_msg(client_ending(first) == ENDED, "who was told \"bye\" is not closed");
    for (size_t i = 0; i < 10; i++) {
        gets(fds[i], "bye\n", "who says nothing,");
        ck_assert_msg(client_ending(fds[i]) == ENDED, "who was told \"bye\" is not closed");
    }
    assert_stops(&server);
}
END_TEST

/* Lets a client speak without pause until two silent ones, one after the other, were closed: longer than the
 * limit. Returns false if this process was held up itself, so that nothing can be said. */
static bool speaks_on(void)
{
    enum { LIMIT_MS = 1000 };
    struct server server = start_with_limit("1000");
    int fd = client_connect(&server);
    int64_t heard_ms = now_ms();
    int64_t longest_ms = 0;
    for (int i = 0; i < 2; i++) {
        char back[6] = "";
        int silent = client_connect(&server);
        struct pollfd told = {.fd = silent, .events = POLLIN};
        struct deadline deadline = deadline_start();
        while (poll(&told, 1, 20) == 0 && !deadline_over(&deadline)) {
            size_t got = 0;
            if (send(fd, "hello", 5, MSG_NOSIGNAL) == 5)
                got = client_receive(fd, back, 5);
            int64_t gap_ms = now_ms() - heard_ms;
            heard_ms += gap_ms;
            if (gap_ms > longest_ms)
                longest_ms = gap_ms;
            if (longest_ms > LIMIT_MS / 2)
                return false;
            ck_assert_msg(
                got == 5 && memcmp(back, "hello", 5) == 0,
                "a client that speaks all the time, with pauses of %d ms at most, gets no echo, but "
                "\"%.3s\": with a limit of 1000 ms, %s",
                (int)longest_ms, back, "it is closed");
        }
        gets(silent, "bye\n", "who says nothing, while another one speaks,");
    }
    assert_stops(&server);
    return true;
}

START_TEST(limit_busy)
{
    for (int i = 0; i < 5; i++) {
        if (speaks_on())
            return;
    }
    tap_skip("this machine is too busy to speak twice a second");
}
END_TEST

START_TEST(limit_slow_reader)
{
    struct server server = start_with_limit("200");
    int fd = client_connect(&server);
    size_t taken = client_flood(fd, 5);
    poll(NULL, 0, 600); /* in which it could read, and does not */
    size_t back = client_receive_pattern(fd, taken, 5, 0);
    ck_assert_msg(back == taken,
                  "a client sent %zu bytes before it read: %zu came back. It was owed them, so it was not "
                  "silent",
                  taken, back);
    gets(fd, "bye\n", "and afterwards, when it is silent,");
    assert_stops(&server);
}
END_TEST

/* Has many speak at once, while others connect: entries that belong together, and others, compete for room in
 * the submission queue. Then all are silent. Returns false as above. */
static bool crowd_is_told(size_t speakers)
{
    enum { MOST = 101, NEW = 20, LIMIT_MS = 3000 };
    int fds[MOST + NEW];
    struct server server = start_with_limit("3000");
    int64_t begin_ms = now_ms();
    client_connect_many(&server, fds, speakers);
    for (size_t i = 0; i < speakers; i++)
        put(fds[i], "hello");
    for (size_t i = 0; i < speakers; i++)
        gets(fds[i], "hello", "of a hundred");
    server_pause(&server);
    client_connect_many(&server, fds + speakers, NEW);
    for (size_t i = 0; i < speakers; i++)
        put(fds[i], "hello");
    kill(server.pid, SIGCONT);
    for (size_t i = 0; i < speakers; i++)
        gets(fds[i], "hello", "of a hundred who speak at once, while others connect,");
    if (now_ms() - begin_ms > LIMIT_MS / 2)
        return false;
    for (size_t i = 0; i < speakers + NEW; i++) {
        gets(fds[i], "bye\n", "of more than a hundred, who are silent now,");
        close(fds[i]);
    }
    assert_stops(&server);
    return true;
}

START_TEST(limit_crowd)
{
    size_t speakers = 100; /* then 101: an odd number of entries fills the queue otherwise than an even one */
    for (int i = 0; i < 6; i++) {
        speakers += crowd_is_told(speakers) ? 1 : 0;
        if (speakers > 101)
            return;
    }
    tap_skip("this machine is too busy to have 100 clients served within a second");
}
END_TEST

START_TEST(limit_leavers)
{
    enum { ROUNDS = 20, CLIENTS = 50 };
    spoil_freed_memory();
    struct server server = server_start(NULL);
    int stays = client_connect(&server);
    for (int round = 0; round < ROUNDS; round++) {
        int fds[CLIENTS];
        client_connect_many(&server, fds, CLIENTS);
        for (size_t i = 0; i < CLIENTS; i++) {
            put(fds[i], "hello");
            gets(fds[i], "hello", "which comes and goes");
            if (i % 2 == 0)
                client_reset(fds[i]);
            else
                close(fds[i]);
        }
        ck_assert_msg(
            client_gets_echo(stays, "and I?"), "others went, and one who stays gets no echo%s%.200s",
            server_alive(&server) ? "" : "; the server has ended, on stderr: ", server_errors(&server));
    }
    assert_stops(&server);
}
END_TEST

START_TEST(limit_waits)
{
    enum { CLIENTS = 50 };
    int fds[CLIENTS];
    struct server server = server_start(NULL);
    client_connect_many(&server, fds, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++) {
        put(fds[i], "hello");
        gets(fds[i], "hello", "of 50");
    }
    assert_waits(&server, "while 50 clients are silent, and the limit is an hour,");
    assert_stops(&server);
}
END_TEST

/* ---- 07-3, a bundle ---- */

enum { BUFFER = 256, ALL_BUFFERS = 64 * BUFFER };

static struct server start_on_kernel(const char *which)
{
    return server_start(&(struct server_setup){.arguments = {"--kernel", which}});
}

/* Sends size bytes so that they are there when the server looks, and requires that they come back. Returns
 * how many completions that took. */
static unsigned echo_at_once(struct server *server, int fd, size_t size, unsigned seed)
{
    static unsigned char message[2 * ALL_BUFFERS];
    for (size_t i = 0; i < size; i++)
        message[i] = pattern(seed, i);
    struct figures before = ring_figures(server);
    server_pause(server);
    client_send(fd, message, size);
    kill(server->pid, SIGCONT);
    size_t back = client_receive_pattern(fd, size, seed, 0);
    if (back != size)
        ck_abort_msg("of %zu bytes, %zu came back before a wrong one, or the deadline", size, back);
    return since(server, before).completed;
}

START_TEST(bundle_echo)
{
    static const size_t sizes[] = {1, 255, 256, 257, 512, 8191, 8192, 8193, 16383, 16384, 16385, 20000};
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        echo_at_once(&server, fd, sizes[i], i);
    assert_stops(&server);
}
END_TEST

static void need_bundles(void)
{
    if ((features & IORING_FEAT_RECVSEND_BUNDLE) == 0)
        tap_skip("this kernel has no bundles: Linux 6.10 has");
}

START_TEST(bundle_one_completion)
{
    need_bundles();
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    static const size_t sizes[] = {32 * BUFFER, ALL_BUFFERS, 300};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned completions = echo_at_once(&server, fd, sizes[i], i);
        ck_assert_msg(completions <= 6,
                      "%zu bytes were there at once, in %zu buffers: to receive and to send them took %u "
                      "completions, instead of two or a few",
                      sizes[i], (sizes[i] + BUFFER - 1) / BUFFER, completions);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(bundle_returned)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    size_t back = client_echo(fd, 1 << 20, 1000, 1);
    ck_assert_msg(back == 1 << 20, "of a megabyte, in pieces of 1000 bytes, %zu bytes came back", back);
    for (unsigned i = 0; i < 20; i++)
        echo_at_once(&server, fd, 1 + i * 500, i);
    need_bundles();
    unsigned completions = echo_at_once(&server, fd, ALL_BUFFERS, 7);
    ck_assert_msg(
        completions <= 6,
        "after a megabyte, a message that needs all buffers took %u completions: are they all in the "
        "pool?",
        completions);
    assert_stops(&server);
}
END_TEST

START_TEST(bundle_clients)
{
    enum { CLIENTS = 20, ROUNDS = 10 };
    int fds[CLIENTS];
    struct server server = server_start(NULL);
    client_connect_many(&server, fds, CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++)
        ck_assert_msg(client_gets_echo(fds[i], "hello"), "a client gets no echo");
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned char message[3000];
        server_pause(&server);
        for (unsigned i = 0; i < CLIENTS; i++) {
            size_t size = 100 + i * 140;
            for (size_t j = 0; j < size; j++)
                message[j] = pattern(i + round, j);
            client_send(fds[i], message, size);
        }
        kill(server.pid, SIGCONT);
        for (unsigned i = 0; i < CLIENTS; i++) {
            size_t size = 100 + i * 140;
            size_t back = client_receive_pattern(fds[i], size, i + round, 0);
            ck_assert_msg(back == size,
                          "20 clients sent at once, more than the pool has room for: one got %zu of its %zu "
                          "bytes before a wrong one, or the deadline",
                          back, size);
        }
    }
    assert_stops(&server);
}
END_TEST

START_TEST(bundle_old)
{
    struct server server = start_on_kernel("old");
    int fd = client_connect(&server);
    for (unsigned i = 0; i < 5; i++) {
        unsigned completions = echo_at_once(&server, fd, 32 * (size_t)BUFFER, i);
        ck_assert_msg(
            completions >= 32,
            "the ring does not have IORING_FEAT_RECVSEND_BUNDLE, and 32 buffers took %u completions: "
            "there was a bundle",
            completions);
    }
    assert_stops(&server);
}
END_TEST

/* ---- 07-4, datagrams ---- */

enum { LONGEST = 1024 };

/* Returns a socket that sends to the server, and hears from nobody else; each call on it is limited by the
 * deadline. */
static int datagram_socket(const struct server *server)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(server->port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(server->port)};
    bool is_v6 = inet_pton(AF_INET, server->address, &v4.sin_addr) != 1;
    if (is_v6 && inet_pton(AF_INET6, server->address, &v6.sin6_addr) != 1)
        ck_abort_msg("%s is no address", server->address);
    struct deadline deadline = deadline_start();
    struct timeval limit = {.tv_sec = deadline_left_ms(&deadline) / 1000 + 1};
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
        connect(fd, is_v6 ? (const struct sockaddr *)&v6 : (const struct sockaddr *)&v4,
                is_v6 ? sizeof v6 : sizeof v4) < 0)
        ck_abort_msg("a socket for UDP: %s", strerror(errno));
    return fd;
}

static void send_datagram(int fd, size_t size, unsigned seed)
{
    unsigned char data[8 * LONGEST];
    for (size_t i = 0; i < size; i++)
        data[i] = pattern(seed, i);
    if (send(fd, data, size, 0) != (ssize_t)size)
        ck_abort_msg("send: %s", strerror(errno));
}

/* Requires that this datagram comes next. */
static void hears_datagram(int fd, size_t size, unsigned seed, const char *when)
{
    unsigned char data[8 * LONGEST];
    ssize_t got = recv(fd, data, sizeof data, 0);
    if (got < 0)
        ck_abort_msg("%s a datagram of %zu bytes does not come back: %s", when, size, strerror(errno));
    if (got != (ssize_t)size)
        ck_abort_msg("%s a datagram of %zu bytes should come back, and one of %zd came", when, size, got);
    for (size_t i = 0; i < size; i++) {
        if (data[i] != pattern(seed, i))
            ck_abort_msg("%s byte %zu of a datagram of %zu comes back wrong", when, i, size);
    }
}

START_TEST(udp_echo)
{
    static const char *const addresses[] = {"127.0.0.1", "::1"};
    static const size_t sizes[] = {1, 2, 100, 1000, LONGEST - 1, LONGEST, 0, 5};
    for (size_t i = 0; i < 2; i++) {
        struct server server = server_start(&(struct server_setup){.address = addresses[i]});
        int fd = datagram_socket(&server);
        for (unsigned j = 0; j < 100; j++) {
            size_t size = sizes[j % (sizeof sizes / sizeof *sizes)];
            send_datagram(fd, size, j);
            hears_datagram(fd, size, j, "one after the other,");
        }
        assert_stops(&server);
    }
}
END_TEST

START_TEST(udp_one_receive)
{
    enum { COUNT = 200 };
    struct server server = server_start(NULL);
    int fd = datagram_socket(&server);
    send_datagram(fd, 10, 0);
    hears_datagram(fd, 10, 0, "at first,");
    struct figures before = ring_figures(&server);
    for (unsigned i = 0; i < COUNT; i++) {
        send_datagram(fd, 100, i);
        hears_datagram(fd, 100, i, "one after the other,");
    }
    struct figures added = since(&server, before);
    ck_assert_msg(added.announced <= COUNT + COUNT / 10,
                  "%d datagrams took %u entries: one each for the answer, and the others for a receive that "
                  "was begun again",
                  COUNT, added.announced);
    assert_stops(&server);
}
END_TEST

START_TEST(udp_crowd)
{
    enum { SENDERS = 4, EACH = 16, ROUNDS = 20 };
    struct server server = server_start(NULL);
    int fds[SENDERS];
    for (size_t i = 0; i < SENDERS; i++)
        fds[i] = datagram_socket(&server);
    for (unsigned round = 0; round < ROUNDS; round++) {
        server_pause(&server);
        for (unsigned j = 0; j < EACH; j++) {
            for (unsigned i = 0; i < SENDERS; i++)
                send_datagram(fds[i], 50 + 10 * i + j, round + SENDERS * j + i);
        }
        kill(server.pid, SIGCONT);
        for (unsigned i = 0; i < SENDERS; i++) {
            for (unsigned j = 0; j < EACH; j++)
                hears_datagram(fds[i], 50 + 10 * i + j, round + SENDERS * j + i,
                               "of 64, from four senders, who had sent before the server looked,");
        }
    }
    assert_waits(&server, "when all is answered,");
    assert_stops(&server);
}
END_TEST

/* ptrace(2) on the server. */
static void trace(const struct server *server, enum __ptrace_request what)
{
    if (ptrace(what, server->pid, NULL, NULL) < 0)
        tap_skip("ptrace: %s (this test stops the server between two instructions)", strerror(errno));
}

/* Waits until the traced server stops. Returns false if it sleeps instead. */
static bool stops(const struct server *server)
{
    struct deadline deadline = deadline_start();
    int status;
    for (unsigned i = 1; !deadline_over(&deadline); i++) {
        if (waitpid(server->pid, &status, __WALL | WNOHANG) == server->pid) {
            if (!WIFSTOPPED(status))
                ck_abort_msg("the server has ended, on stderr: \"%.300s\"", server_errors(server));
            return true;
        }
        if (i % 1000 == 0 && server_asleep(server))
            return false;
    }
    ck_abort_msg("the server neither stops nor sleeps");
}

static void halt(const struct server *server)
{
    trace(server, PTRACE_INTERRUPT);
    while (!stops(server)) {
    }
}

/* Lets the server, which has been halted, go on for so many instructions. Returns how many it were until it
 * slept, and halts it again. */
static unsigned long go_on_for(const struct server *server, unsigned long most)
{
    unsigned long count = 0;
    while (count < most) {
        trace(server, PTRACE_SINGLESTEP);
        if (!stops(server)) {
            halt(server);
            break;
        }
        count++;
    }
    return count;
}

/* Sends a few, and halts the server while it answers them, each time at another instruction; then others
 * come, which the kernel receives before the program goes on. */
START_TEST(udp_interrupted)
{
    enum { FIRST = 14, SECOND = 20, ROUNDS = 12 };
    if (sanitized())
        tap_skip("under a sanitizer, it would take too long to go through the program step by step");
    unsigned long whole = ULONG_MAX; /* how many instructions all of it takes */
    struct server server = server_start(NULL);
    int first = datagram_socket(&server);
    int second = datagram_socket(&server);
    ring_figures(&server); /* it sleeps */
    trace(&server, PTRACE_SEIZE);
    for (unsigned round = 0; round <= ROUNDS; round++) {
        halt(&server);
        for (unsigned i = 0; i < FIRST; i++)
            send_datagram(first, 40, round + i);
        unsigned long count = go_on_for(&server, round == 0 ? whole : whole * round / (ROUNDS + 1));
        if (round == 0)
            whole = count;
        for (unsigned i = 0; i < SECOND; i++)
            send_datagram(second, 60, round + i);
        do /* (the last step may still be reported) */
            trace(&server, PTRACE_CONT);
        while (stops(&server));
        for (unsigned i = 0; i < FIRST; i++)
            hears_datagram(first, 40, round + i, "when others come while it is answered,");
        for (unsigned i = 0; i < SECOND; i++)
            hears_datagram(second, 60, round + i, "which comes while others are answered,");
    }
    halt(&server);
    trace(&server, PTRACE_DETACH);
    assert_stops(&server);
}
END_TEST

START_TEST(udp_too_long)
{
    struct server server = server_start(NULL);
    int fd = datagram_socket(&server);
    for (unsigned i = 0; i < 50; i++) { /* more than there are buffers */
        send_datagram(fd, LONGEST + 1 + i * 100, i);
        if (i % 10 == 9) {
            send_datagram(fd, 20, i);
            hears_datagram(fd, 20, i, "after ten that are too long,");
        }
    }
    assert_waits(&server, "after datagrams that are too long");
    assert_stops(&server);
}
END_TEST

START_TEST(udp_gone)
{
    struct server server = server_start(NULL);
    int fd = datagram_socket(&server);
    for (unsigned i = 0; i < 50; i++) {
        int gone = datagram_socket(&server);
        server_pause(&server);
        send_datagram(gone, 100, i);
        close(gone); /* the answer finds nobody, and that is told to the server's socket */
        kill(server.pid, SIGCONT);
        send_datagram(fd, 100, i);
        hears_datagram(fd, 100, i, "when another sender has gone,");
    }
    assert_waits(&server, "when senders have gone");
    assert_stops(&server);
}
END_TEST

START_TEST(udp_stops)
{
    struct server server = server_start(NULL);
    int fd = datagram_socket(&server);
    send_datagram(fd, 10, 0);
    hears_datagram(fd, 10, 0, "at first,");
    assert_stops(&server);
}
END_TEST

/* ---- 07-5, without a copy ---- */

enum { BLOCK = 64 * 1024 };

/* Requires that the numbers of so many blocks come, from number first on. */
static void gets_numbers(int fd, size_t blocks, uint64_t first, const char *when)
{
    static uint64_t block[BLOCK / sizeof(uint64_t)];
    for (size_t i = 0; i < blocks; i++) {
        size_t got = client_receive(fd, block, sizeof block);
        if (got != sizeof block)
            ck_abort_msg("%s a client has got %zu of %zu blocks by the deadline", when, i, blocks);
        for (size_t j = 0; j < sizeof block / sizeof *block; j++, first++) {
            if (block[j] != first)
                ck_abort_msg("%s a client should get number %" PRIu64 ", and got %" PRIu64
                             ": is that memory of a later block, or of nobody?",
                             when, first, block[j]);
        }
    }
}

static const uint64_t A_BLOCK = BLOCK / sizeof(uint64_t);

START_TEST(zero_numbers)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    put(fd, "send 1\n");
    gets_numbers(fd, 1, 0, "who reads at once,");
    put(fd, "send 200\n");
    gets_numbers(fd, 200, A_BLOCK, "who reads at once,");
    assert_stops(&server);
}
END_TEST

START_TEST(zero_notified)
{
    enum { COUNT = 100 };
    if (!knows_zero_copy)
        tap_skip("this kernel has no IORING_OP_SEND_ZC: Linux 6.0 has");
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    put(fd, "send 1\n");
    gets_numbers(fd, 1, 0, "who reads at once,");
    ck_assert_msg(client_hears_nothing(fd, 50), "a client asked for one block, and gets more");
    struct figures before = ring_figures(&server);
    put(fd, "send 100\n");
    gets_numbers(fd, COUNT, A_BLOCK, "who reads at once,");
    ck_assert_msg(
        eventually(since(&server, before).completed >= since(&server, before).announced + COUNT - 1),
        "100 blocks were sent with %u entries, and %u completions: no notifications, so there was a "
        "copy",
        since(&server, before).announced, since(&server, before).completed);
    assert_stops(&server);
}
END_TEST

START_TEST(zero_late_reader)
{
    struct server server = server_start(NULL);
    for (int i = 0; i < 5; i++) {
        int fd = client_connect(&server);
        put(fd, "send 200\n");
        ck_assert_msg(eventually(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) > 0),
                      "a client asked for 200 blocks, and nothing comes");
        assert_waits(&server, "while a client does not read");
        gets_numbers(fd, 200, 0, "who has read nothing for a while,");
        put(fd, "send 10\n");
        gets_numbers(fd, 10, 200 * A_BLOCK, "who has read nothing for a while, and asks again,");
        close(fd);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(zero_others)
{
    struct server server = server_start(NULL);
    int late = client_connect(&server);
    put(late, "send 200\n");
    for (int i = 0; i < 10; i++) {
        int fd = client_connect(&server);
        put(fd, "send 20\n");
        gets_numbers(fd, 20, 0, "while another one does not read,");
        close(fd);
    }
    gets_numbers(late, 200, 0, "who read after all others,");
    assert_stops(&server);
}
END_TEST

START_TEST(zero_finished)
{
    enum { CLIENTS = 10, BLOCKS = 2 };
    int fds[CLIENTS];
    spoil_freed_memory();
    struct server server = server_start(NULL);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < CLIENTS; i++) {
            fds[i] = client_connect(&server);
            put(fds[i], "send 2\n");
            client_finish(fds[i]);
        }
        ck_assert_msg(eventually(server_asleep(&server)),
                      "while clients do not read, the server does not sleep");
        int other = client_connect(&server); /* whose memory may be that of another, who was freed */
        put(other, "send 7\n");
        gets_numbers(other, 7, 0, "who comes after others");
        close(other);
        for (size_t i = 0; i < CLIENTS; i++) {
            gets_numbers(fds[i], BLOCKS, 0, "who has said that it asks no more, and reads late,");
            ck_assert_msg(client_ending(fds[i]) == ENDED, "a client has got all, and is not closed");
        }
    }
    assert_stops(&server);
}
END_TEST

START_TEST(zero_leavers)
{
    enum { CLIENTS = 60 };
    spoil_freed_memory();
    struct server server = server_start(NULL);
    int descriptors = server_descriptors(&server);
    for (int i = 0; i < CLIENTS; i++) {
        int fd = client_connect(&server);
        put(fd, "send 100\n");
        if (i % 3 == 0)
            ck_assert_msg(eventually(server_asleep(&server)),
                          "while a client does not read, the server does not sleep");
        if (i % 2 == 0)
            client_reset(fd);
        else
            close(fd);
    }
    int fd = client_connect(&server);
    put(fd, "send 20\n");
    gets_numbers(fd, 20, 0, "who comes after 60 who left");
    close(fd);
    ck_assert_msg(eventually(server_descriptors(&server) == descriptors),
                  "61 clients have left, and there are %d descriptors instead of %d",
                  server_descriptors(&server), descriptors);
    assert_stops(&server);
}
END_TEST

/* ---- the table ---- */

static const struct check {
    const char *exercise;
    const TTest *const *test;
    const char *name;
    const char *expected;
    const char *cause;
    const char *section;
} checks[] = {
    {"07-1", &rings_open, "a ring is opened", "Its memory is mapped, and nothing is in there yet.",
     "mmap() is missing, or was told another length, or another offset", RINGS},
    {"07-1", &rings_one, "one no-op", "Put, taken by the kernel, completed, taken by you.",
     "the tail was not moved on; or io_uring_enter() was told to take none", RINGS},
    {"07-1", &rings_full, "a full submission queue takes no more, and again when the kernel has taken some",
     "As many as the kernel says in params.sq_entries, which may be more than were asked for.",
     "nobody compares tail and head; or what counts was a number of yours, and not what the kernel has taken",
     RINGS},
    {"07-1", &rings_around, "100000 no-ops, in a ring of 8", "Each completes once, in order.",
     "the place is not tail & mask; or the array does not say which entry stands there", RINGS},
    {"07-1", &rings_kept, "what finds no room in the completion queue is not lost",
     "12 completions, and room for 8: the kernel keeps 4, and hands them over when it is asked.",
     "nobody looks at IORING_SQ_CQ_OVERFLOW, or nobody calls io_uring_enter() then", RINGS},
    {"07-1", &rings_closed, "closed, it leaves nothing behind", "No descriptor, and no mapping.",
     "a munmap() is missing, or has another length than the mmap()", RINGS},
    {"07-1", &rings_order, "with an acquire and a release, and without liburing",
     "An entry is written before the tail that announces it, and read after it.",
     "heads and tails are read and written like other variables", ORDER},
    {"07-1", &still_stops, "the stop is as before", "Status 0, and an end for the client.",
     "ring_take() or ring_enter() waits for what will never come", RINGS},

    {"07-2", &limit_echo, "an echo, as before", "A megabyte comes back.",
     "the timeout's completion is taken for one of a receive", LINKED},
    {"07-2", &limit_silent, "who is silent is told bye, and closed", "After 100 ms.",
     "the receive has no timeout; or its result, -ECANCELED, is taken for the end of the connection", LINKED},
    {"07-2", &limit_busy, "who speaks is not", "Each receive has the whole limit.",
     "the limit is for the connection, and not for a receive; or it began once", LINKED},
    {"07-2", &limit_slow_reader, "who is owed bytes is not silent", "All of them come, however late.",
     "the send has a timeout, too", LINKED},
    {"07-2", &limit_crowd, "when the submission queue is full again and again",
     "Each of 120 clients has its limit.",
     "a receive and its timeout are in different submissions: that is no chain", LINKED},
    {"07-2", &limit_leavers, "clients come and go", "One who stays is served.",
     "the timeout's completion comes when its client was freed (freed memory is filled with rubbish here)",
     LINKED},
    {"07-2", &limit_waits, "while all are silent, nothing happens", "No entry, and no completion.",
     "timeouts are short, and begun again and again", LINKED},
    {"07-2", &still_stops, "the stop is as before", "Status 0, and an end for the client.",
     "-EINTR is taken for something else", STOP},

    {"07-3", &bundle_echo, "messages of all lengths come back",
     "In whichever buffers they are, and whatever the order of these.",
     "the buffer behind number 11 is not number 12, but the next in the ring; or a last, partly filled one "
     "was "
     "forgotten",
     LENT},
    {"07-3", &bundle_one_completion, "many buffers, one completion",
     "What is there is received at once, and sent at once.",
     "IORING_RECVSEND_BUNDLE is not in the entry's ioprio", LENT},
    {"07-3", &bundle_returned, "all buffers go back", "After a megabyte, all of them are in the pool.",
     "only the first of a bundle was given back; or the last one was not, since it was not full", LENT},
    {"07-3", &bundle_clients, "20 clients, each with its own bytes",
     "More than the pool has room for, and nobody is forgotten.",
     "-ENOBUFS is taken for the end of the connection", LENT},
    {"07-3", &bundle_old, "without the feature, a buffer at a time",
     "The ring's features decide, not the kernel's version.",
     "IORING_FEAT_RECVSEND_BUNDLE is not looked at, or elsewhere than in server->ring.features", LENT},
    {"07-3", &still_stops, "the stop is as before", "Status 0, and an end for the client.",
     "-EINTR is taken for something else", STOP},

    {"07-4", &udp_echo, "datagrams come back", "Of 0 to 1024 bytes, over IPv4 and IPv6.",
     "the buffer has no room for the head, the address and 1024 bytes; or an empty datagram is taken for the "
     "end",
     LENT},
    {"07-4", &udp_one_receive, "one receive for all of them", "An entry for each answer, and no other.",
     "the receive is not a multishot, or is begun again though IORING_CQE_F_MORE says that it goes on",
     MULTISHOT},
    {"07-4", &udp_crowd, "64 at once, with 16 buffers, from four senders",
     "Each gets back what it has sent, in order.",
     "the receive ended for want of buffers (-ENOBUFS), and nobody began it again; or several answers share "
     "one "
     "struct msghdr",
     LENT},
    {"07-4", &udp_interrupted, "others come while an answer is on its way", "Nothing is mixed up.",
     "a buffer went back into the ring before its answer was sent", LENT},
    {"07-4", &udp_too_long, "what is too long is lost, and costs nothing",
     "Nobody gets a part of it, and its buffer goes back.",
     "MSG_TRUNC is not looked at, or the buffer is not given back then", LENT},
    {"07-4", &udp_gone, "senders who have gone", "The others are answered.",
     "the receive ended with an error that was another's, and nobody began it again", MULTISHOT},
    {"07-4", &udp_stops, "the stop is as before", "Status 0.", "-EINTR is taken for something else", STOP},

    {"07-5", &zero_numbers, "the numbers come", "In order, however many.",
     "a notification is taken for a result, or the other way round", ZERO_COPY},
    {"07-5", &zero_notified, "without a copy", "Two completions for each send.",
     "io_uring_prep_send() instead of io_uring_prep_send_zc()", ZERO_COPY},
    {"07-5", &zero_late_reader, "a block is filled again only when nobody uses it",
     "What waits in the kernel's queue is your memory. While a client does not read, nothing happens.",
     "a block was filled after the first completion, or after the first of two notifications", ZERO_COPY},
    {"07-5", &zero_others, "one who does not read keeps nobody waiting", "Each has blocks of its own.",
     "the server waits for a notification, in whichever way", ZERO_COPY},
    {"07-5", &zero_finished, "memory outlives the connection",
     "A client asks no more, and is closed; what it is owed is on its way.",
     "the client was freed with its connection (freed memory is filled with rubbish here)", ZERO_COPY},
    {"07-5", &zero_leavers, "clients who leave", "The server stays, and no descriptor is lost.",
     "a notification came for a client who was freed; or a client is closed only when there is none to come",
     ZERO_COPY},
    {"07-5", &still_stops, "the stop is as before", "Status 0, and an end for the client.",
     "-EINTR is taken for something else", STOP},
};

/* Finds out what this kernel has. Returns NULL, or why there is no io_uring here. */
static const char *why_no_ring(void)
{
    enum { OPERATIONS = 256 };
    static union {
        struct io_uring_probe probe;
        char room[sizeof(struct io_uring_probe) + OPERATIONS * sizeof(struct io_uring_probe_op)];
    } known;
    struct io_uring_params params = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 1, &params);
    if (fd < 0 && errno == ENOSYS)
        return "this kernel has no io_uring, or a seccomp filter hides it, as in most containers";
    if (fd < 0 && (errno == EPERM || errno == EACCES))
        return "io_uring is switched off here: by kernel.io_uring_disabled, or a seccomp filter, as in most "
               "containers";
    if (fd < 0)
        return strerror(errno);
    features = params.features;
    if (syscall(SYS_io_uring_register, fd, IORING_REGISTER_PROBE, &known, OPERATIONS) == 0)
        knows_zero_copy = known.probe.last_op >= IORING_OP_SEND_ZC &&
                          (known.probe.ops[IORING_OP_SEND_ZC].flags & IO_URING_OP_SUPPORTED) != 0;
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    struct tap_test tests[sizeof checks / sizeof *checks];
    size_t count_of_tests = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: exercise_ch07 07-1 PROGRAM\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const struct check *check = &checks[i];
        if (strcmp(check->exercise, argv[1]) == 0)
            tests[count_of_tests++] =
                (struct tap_test){check->name, *check->test, check->expected, check->cause, check->section};
    }
    if (count_of_tests == 0) {
        fprintf(stderr, "exercise_ch07: no such exercise: %s\n", argv[1]);
        return 2;
    }
    const char *why = why_no_ring();
    if (why != NULL) {
        printf("1..0 # SKIP %s\n", why);
        return EXIT_SUCCESS;
    }
    program = argv[2];
    server_choose(program);
    return tap_run("", tests, count_of_tests);
}
