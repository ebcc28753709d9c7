/* exercise_ch06.c - checks the exercises of chapter 6.
 *
 * Usage: exercise_ch06 06-1 PROGRAM
 * Processes, their threads and descriptors are watched in Linux' /proc, calls are counted by the fault
 * injector, and single threads held with ptrace(2); where one of these is not to be had, such a check is
 * skipped. */
#define _GNU_SOURCE /* O_CLOEXEC in fopen(), and the POSIX functions beside it */

#include "harness.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BOOK "the book, chapter 6, "
#define API BOOK "\"The API\""
#define LIVES BOOK "\"Who owns what\""
#define WANTED BOOK "\"What is wanted, and when it is said\""
#define WAYS_TO_WAIT BOOK "\"Four ways to wait\""
#define TIME BOOK "\"Time\""
#define OUTSIDE BOOK "\"From outside: work and signals\""
#define STOP BOOK "\"The stop\""
#define LOOPS BOOK "\"Several loops\""
#define IN_VAIN BOOK "\"Who wakes up in vain?\""
#define SLOW_HANDLER BOOK "\"One slow handler stalls all\""

static const char *program; /* whose exercise is checked */

/* ---- what all of them need ---- */

START_TEST(still_stops)
{
    for (int i = 0; i < 2; i++) {
        static const int signals[] = {SIGTERM, SIGINT};
        struct server server =
            server_start(&(struct server_setup){.arguments = {"--loops", i == 0 ? "3" : "1"}});
        int fds[6];
        for (size_t j = 0; j < 6; j++)
            fds[j] = client_connect(&server);
        int status = server_stop(&server, signals[i]);
        ck_assert_msg(status == 0, "at %s the server ended with status %d, on stderr: \"%.300s\"",
                      i == 0 ? "SIGTERM" : "SIGINT", status, server_errors(&server));
        for (size_t j = 0; j < 6; j++)
            ck_assert_msg(client_ending(fds[j]) != STILL_OPEN,
                          "the server has ended, and a client was not closed");
    }
}
END_TEST

static void put(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

/* The text in one line, with the ends of its lines made visible; valid until the fourth call from now. */
static const char *quoted(const char *text)
{
    static char lines[4][300];
    static unsigned turn;
    char *line = lines[turn++ % 4];
    size_t size = 0;
    for (; *text != '\0' && size + 5 < sizeof lines[0]; text++)
        size += (size_t)snprintf(line + size, 5, *text == '\n' ? "<LF>" : "%c", *text);
    line[size] = '\0';
    return line;
}

/* Requires that just this comes from the server. */
static void gets(int fd, const char *text, const char *when)
{
    char back[1000] = "";
    size_t size = strlen(text);
    size_t got = client_receive(fd, back, size);
    if (got != size || memcmp(back, text, size) != 0)
        ck_abort_msg("%s a client should get \"%s\", and got \"%s\"%s", when, quoted(text), quoted(back),
                     got < size ? " by the deadline" : "");
}

/* Sends a line, and requires this answer. */
static void asks(int fd, const char *line, const char *answer)
{
    char when[100];
    put(fd, line);
    snprintf(when, sizeof when, "after \"%.*s\"", (int)strcspn(line, "\n"), line);
    gets(fd, answer, when);
}

static bool has_heard(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, 0) > 0;
}

/* Microseconds, on a clock that nobody sets. */
static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static uint64_t waits(const struct server *server)
{
    static const char *const calls[] = {"epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect"};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        sum += server_calls(server, calls[i]);
    return sum;
}

/* How often the server waits in half a second in which nothing happens. (On a busy machine it takes longer.)
 */
static uint64_t waits_in_silence(const struct server *server)
{
    uint64_t before = waits(server);
    int64_t begin_us = now_us();
    poll(NULL, 0, 500);
    return (waits(server) - before) * 500000 / (uint64_t)(now_us() - begin_us);
}

/* From now on, a server that is started finds rubbish in memory that it has freed, where the C library is
 * glibc (mallopt(3); what its cache holds it would leave as it was). */
static void spoil_freed_memory(void)
{
    setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0", 1);
}

/* ---- threads ---- */

/* Calls visit for each thread; returns how many there are. */
static int each_thread(const struct server *server, void (*visit)(pid_t thread, char state, void *argument),
                       void *argument)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)server->pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        tap_skip("%s: %s (this test looks at threads there)", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char stat[400];
        char state = '?';
        if (entry->d_name[0] == '.')
            continue;
        snprintf(stat, sizeof stat, "%s/%.200s/stat", path, entry->d_name);
        FILE *file = fopen(stat, "re");
        if (file == NULL)
            continue; /* ended meanwhile */
        if (fscanf(file, "%*d (%*[^)]) %c", &state) == 1) {
            count++;
            visit((pid_t)strtol(entry->d_name, NULL, 10), state, argument);
        }
        fclose(file);
    }
    closedir(folder);
    return count;
}

static void count_running(pid_t thread, char state, void *argument)
{
    (void)thread;
    int *running = argument;
    *running += state == 'R' || state == 'D';
}

static int running_threads(const struct server *server)
{
    int running = 0;
    each_thread(server, count_running, &running);
    return running;
}

static void add_switches(pid_t thread, char state, void *argument)
{
    (void)state;
    unsigned long long *sum = argument;
    char path[64];
    char line[256];
    unsigned long long count;
    snprintf(path, sizeof path, "/proc/%d/status", (int)thread);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "voluntary_ctxt_switches: %llu", &count) == 1)
            *sum += count;
    }
    if (file != NULL)
        fclose(file);
}

/* How often its threads have gone to sleep so far. */
static unsigned long long sleeps(const struct server *server)
{
    unsigned long long sum = 0;
    each_thread(server, add_switches, &sum);
    return sum;
}

static void assert_sleeps(const struct server *server, const char *when)
{
    ck_assert_msg(eventually(server_asleep(server)), "%s the server does not sleep", when);
    unsigned long long before = sleeps(server);
    uint64_t count = waits_in_silence(server);
    ck_assert_msg(count == 0, "%s the loop woke up %" PRIu64 " times in half a second", when, count);
    unsigned long long woken = sleeps(server) - before;
    ck_assert_msg(woken <= 2 || sanitized(), "%s a thread woke up %llu times in half a second", when, woken);
}

/* Holds the main thread, while the others run on. */
static void hold_main_thread(const struct server *server)
{
    int status;
    if (ptrace(PTRACE_SEIZE, server->pid, NULL, NULL) < 0 ||
        ptrace(PTRACE_INTERRUPT, server->pid, NULL, NULL) < 0)
        tap_skip("ptrace: %s (this test holds a thread of the server)", strerror(errno));
    if (waitpid(server->pid, &status, __WALL) != server->pid || !WIFSTOPPED(status))
        ck_abort_msg("the server has ended, on stderr: \"%.300s\"", server_errors(server));
}

static void let_go(const struct server *server)
{
    if (ptrace(PTRACE_DETACH, server->pid, NULL, NULL) < 0)
        ck_abort_msg("ptrace: %s", strerror(errno));
}

/* ---- 06-1, an eventfd ---- */

/* What /proc tells of the server's own descriptors, those behind its standard streams. */
struct descriptors {
    int events; /* eventfds */
    int pipes;
    bool all_nonblocking; /* of the eventfds */
    bool all_cloexec;
};

static struct descriptors look_at_descriptors(const struct server *server)
{
    struct descriptors found = {.all_nonblocking = true, .all_cloexec = true};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)server->pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        tap_skip("%s: %s (this test looks at descriptors there)", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char target[200] = "";
        int fd = (int)strtol(entry->d_name, NULL, 10);
        if (fd <= STDERR_FILENO || readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) < 0)
            continue;
        found.pipes += strncmp(target, "pipe:", 5) == 0;
        if (strcmp(target, "anon_inode:[eventfd]") != 0)
            continue;
        found.events++;
        char info[100];
        unsigned flags = 0;
        snprintf(info, sizeof info, "/proc/%d/fdinfo/%d", (int)server->pid, fd);
        FILE *file = fopen(info, "re");
        if (file == NULL || fscanf(file, "pos: %*d flags: %o", &flags) != 1)
            tap_skip("%s cannot be read", info);
        fclose(file);
        found.all_nonblocking &= (flags & O_NONBLOCK) != 0;
        found.all_cloexec &= (flags & O_CLOEXEC) != 0;
    }
    closedir(folder);
    return found;
}

START_TEST(event_descriptor)
{
    struct server server = server_start(&(struct server_setup){.arguments = {"--loops", "3"}});
    struct descriptors found = look_at_descriptors(&server);
    ck_assert_msg(found.events == 3 && found.pipes == 0,
                  "with three loops the server has %d eventfds, and %d ends of pipes", found.events,
                  found.pipes);
    ck_assert_msg(found.all_nonblocking, "an eventfd is not non-blocking: to empty it once too often waits");
    ck_assert_msg(found.all_cloexec, "an eventfd stays open in every program that this one starts");
    assert_stops(&server);
}
END_TEST

static const char *const demultiplexers[] = {"epoll", "poll", "select"};

START_TEST(event_posts)
{
    for (size_t i = 0; i < sizeof demultiplexers / sizeof *demultiplexers; i++) {
        struct server server =
            server_start(&(struct server_setup){.arguments = {"--demux", demultiplexers[i]}});
        int fd = client_connect(&server);
        for (int j = 0; j < 10; j++) /* each wakes a loop that sleeps */
            asks(fd, "post 1 1\n", "1 of 1 in order\n");
        asks(fd, "post 4 20000\n", "80000 of 80000 in order\n");
        assert_stops(&server);
    }
}
END_TEST

START_TEST(event_signals)
{
    for (size_t i = 0; i < sizeof demultiplexers / sizeof *demultiplexers; i++) {
        struct server server =
            server_start(&(struct server_setup){.arguments = {"--demux", demultiplexers[i]}});
        int fd = client_connect(&server);
        asks(fd, "post 1 1\n", "1 of 1 in order\n");
        for (int j = 0; j < 5; j++) {
            ck_assert_msg(eventually(server_asleep(&server)),
                          "when there is nothing to do, the server does not sleep");
            kill(server.pid, SIGUSR1);
            gets(fd, "signal\n", "after SIGUSR1");
        }
        assert_stops(&server);
    }
}
END_TEST

START_TEST(event_sleeps)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fd = client_connect(&server);
    asks(fd, "post 2 1000\n", "2000 of 2000 in order\n");
    kill(server.pid, SIGUSR1);
    gets(fd, "signal\n", "after SIGUSR1");
    assert_sleeps(&server, "after everything has come");
    assert_stops(&server);
}
END_TEST

START_TEST(event_interrupted)
{
    struct server server = server_start(&(struct server_setup){.faults = "write:1=EINTR read:2=EINTR"});
    int fd = client_connect(&server);
    for (int i = 0; i < 5; i++)
        asks(fd, "post 1 1\n", "1 of 1 in order\n");
    assert_stops(&server);
}
END_TEST

START_TEST(event_closed_once)
{
    struct server server = server_start(&(struct server_setup){.arguments = {"--loops", "2"}, .faults = ""});
    asks(client_connect(&server), "post 1 1\n", "1 of 1 in order\n");
    assert_stops(&server);
    uint64_t failures = server_failures(&server, "close");
    ck_assert_msg(failures == 0, "%" PRIu64 " calls of close() failed: what they were to close was closed",
                  failures);
}
END_TEST

/* ---- 06-2, so many bytes a second ---- */

static struct server start_with_rate(const char *rate, const char *faults)
{
    return server_start(&(struct server_setup){.arguments = {"--rate", rate}, .faults = faults});
}

/* Lets a client send a pattern and receive it, and requires that no more comes than the rate allows
 * since begin_us, when its bucket cannot have held more than a quarter of a second's worth. */
static void assert_limited(int fd, size_t total, int64_t rate, int64_t begin_us, const char *when)
{
    enum { PIECE = 65536, CLOCK_US = 2000 }; /* the server's clock has ticks of a millisecond */
    static unsigned char buffer[PIECE];
    struct deadline deadline = deadline_start();
    size_t sent = 0;
    size_t received = 0;

    while (received < total && !deadline_over(&deadline)) {
        struct pollfd ready = {.fd = fd, .events = (short)(POLLIN | (sent < total ? POLLOUT : 0))};
        if (poll(&ready, 1, deadline_left_ms(&deadline)) <= 0)
            continue;
        if ((ready.revents & POLLOUT) != 0) {
            size_t size = total - sent < PIECE ? total - sent : PIECE;
            for (size_t i = 0; i < size; i++)
                buffer[i] = pattern(7, sent + i);
            ssize_t n = send(fd, buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += n > 0 ? (size_t)n : 0;
        }
        ssize_t n = recv(fd, buffer, PIECE, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            ck_abort_msg("%s: after %zu of %zu bytes the connection ended", when, received, total);
        for (ssize_t i = 0; i < n; i++, received++) {
            if (buffer[i] != pattern(7, received)) /* (a ck_assert each would take longer than the server) */
                ck_abort_msg("%s: byte %zu came back wrong", when, received);
        }
        int64_t passed_us = now_us() - begin_us + CLOCK_US;
        int64_t allowed = rate / 4 + rate * passed_us / 1000000;
        if ((int64_t)received > allowed)
            ck_abort_msg("%s: after %.3f s, %zu bytes had come back: at %" PRId64
                         " a second, and with %" PRId64 " that it may have saved, no more than %" PRId64
                         " can have",
                         when, (double)passed_us / 1e6, received, rate, rate / 4, allowed);
    }
    ck_assert_msg(received == total, "%s: after %zu of %zu bytes no more came", when, received, total);
}

START_TEST(rate_kept)
{
    struct server server = start_with_rate("1000000", NULL);
    int64_t begin_us = now_us();
    int fd = client_connect(&server);
    assert_limited(fd, 1200000, 1000000, begin_us, "a client that sends without pause");
    assert_stops(&server);
}
END_TEST

START_TEST(rate_saved)
{
    struct server server = start_with_rate("1000000", NULL);
    int fd = client_connect(&server);
    size_t back = client_echo(fd, 100000, 10000, 1);
    ck_assert_msg(back == 100000, "of 100000 bytes %zu came back", back);
    poll(NULL, 0, 700); /* the time in which it may save */
    assert_limited(fd, 600000, 1000000, now_us(), "a client that has been silent for a while");
    assert_stops(&server);
}
END_TEST

START_TEST(rate_slow)
{
    struct server server = start_with_rate("3", NULL);
    int fd = client_connect(&server);
    put(fd, "abcd");
    gets(fd, "abcd", "with 3 bytes a second");
    assert_stops(&server);
}
END_TEST

START_TEST(rate_own_bucket)
{
    enum { CLIENTS = 400 };
    static int fds[CLIENTS];
    struct server server = start_with_rate("10", NULL);
    client_connect_many(&server, fds, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        put(fds[i], "ab");
    for (size_t i = 0; i < CLIENTS; i++)
        gets(fds[i], "ab", "of 400, each of whom has a full bucket,");
    assert_stops(&server);
}
END_TEST

START_TEST(rate_sleeps)
{
    struct server server = start_with_rate("10", "");
    int fd = client_connect(&server);
    for (int i = 0; i < 100; i++)
        put(fd, "0123456789");
    gets(fd, "0123", "with 10 bytes a second");
    uint64_t count = waits_in_silence(&server);
    ck_assert_msg(count <= 30,
                  "a client has sent more than it may: while it waits, the loop woke up %" PRIu64
                  " times in half a second, for 5 bytes",
                  count);
    ck_assert_msg(server_calls(&server, "nanosleep") == 0,
                  "a handler slept (nanosleep), and all clients waited with it");
    assert_stops(&server);
}
END_TEST

START_TEST(rate_few_pauses)
{
    struct server server = start_with_rate("1000000", "");
    int fd = client_connect(&server);
    uint64_t before = waits(&server);
    int64_t begin_us = now_us();
    size_t back = client_echo(fd, 1000000, 1000000, 1);
    ck_assert_msg(back == 1000000, "of 1000000 bytes %zu came back", back);
    uint64_t count = waits(&server) - before;
    double seconds = (double)(now_us() - begin_us) / 1e6;
    ck_assert_msg((double)count <= 300 + 100 * seconds,
                  "the loop woke up %" PRIu64 " times in %.2f s, that is, for every few bytes", count,
                  seconds);
    assert_stops(&server);
}
END_TEST

START_TEST(rate_stop)
{
    enum { CLIENTS = 10 };
    static const char text[64 << 20] = "";
    int fds[CLIENTS];
    spoil_freed_memory();
    struct server server = start_with_rate("1", NULL);
    int stays = client_connect(&server);
    pid_t feeder = fork(); /* it sends and never reads: so the stop lasts */
    if (feeder == 0) {
        client_send(stays, text, sizeof text);
        for (;;)
            pause();
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        fds[i] = client_connect(&server);
        put(fds[i], "what was said before the stop");
    }
    for (size_t i = 0; i < CLIENTS; i++)
        gets(fds[i], "w", "which has sent more than it may");
    int status = server_stop(&server, SIGTERM);
    kill(feeder, SIGKILL);
    ck_assert_msg(status == 0,
                  "clients were waiting for their buckets when SIGTERM came, and the server ended with "
                  "status %d, on stderr: \"%.300s\"",
                  status, server_errors(&server));
    for (size_t i = 0; i < CLIENTS; i++) {
        gets(fds[i], "hat was said before the stop", "during the stop");
        ck_assert_msg(client_ending(fds[i]) == ENDED, "during the stop a client was not closed properly");
    }
}
END_TEST

START_TEST(rate_echoes)
{
    struct server server = start_with_rate("100000000", "");
    int fd = client_connect(&server);
    size_t back = client_echo(fd, (size_t)4 << 20, 300000, 1);
    ck_assert_msg(back == (size_t)4 << 20, "of 4 MiB, %zu bytes came back right", back);
    size_t size = client_flood(fd, 2);
    uint64_t count = waits_in_silence(&server);
    ck_assert_msg(count <= 20,
                  "a client does not read, and the loop woke up %" PRIu64 " times in half a second", count);
    size_t got = client_receive_pattern(fd, size, 2, 0);
    ck_assert_msg(got == size, "of %zu bytes, which the client read late, %zu came back right", size, got);
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    assert_stops(&server);
}
END_TEST

/* ---- 06-3, a pool of threads ---- */

enum { THREADS = 4 };

static const char MIDDLE_JOB[] = "hash 10000000 x\n";             /* far longer than an echo */
static const char ENDLESS_JOB[] = "hash 1000000000000000000 x\n"; /* it would take centuries */

static void hash_answer(char answer[20], const char *text, unsigned long rounds)
{
    uint64_t h = 0xcbf29ce484222325U;
    for (unsigned long i = 0; i < rounds; i++) {
        for (const char *c = text; *c != '\0'; c++)
            h = (h ^ (unsigned char)*c) * 0x100000001b3U;
    }
    snprintf(answer, 20, "%016" PRIx64 "\n", h);
}

/* (These two leave the server to the harness, which kills it: its stop would take three seconds.) */
START_TEST(pool_others_meanwhile)
{
    struct server server = server_start(NULL);
    int computes = client_connect(&server);
    int other = client_connect(&server);
    asks(other, "hello\n", "hello\n");
    put(computes, ENDLESS_JOB);
    for (int i = 0; i < 20; i++) {
        put(other, "still there?\n");
        gets(other, "still there?\n", "while a line without end is computed");
        nap();
    }
}
END_TEST

START_TEST(pool_at_once)
{
    struct server server = server_start(NULL);
    char answer[20];
    hash_answer(answer, "x", 10000000);
    for (int i = 0; i < THREADS - 1; i++)
        put(client_connect(&server), ENDLESS_JOB);
    int other = client_connect(&server);
    put(other, MIDDLE_JOB);
    gets(other, answer, "while three other lines are computed");
}
END_TEST

START_TEST(pool_threads)
{
    enum { CLIENTS = 40 };
    int fds[CLIENTS];
    char answer[20];
    if (sanitized())
        tap_skip("a sanitizer may have a thread of its own");
    struct server server = server_start(NULL);
    hash_answer(answer, "pool", 100000);
    asks(client_connect(&server), "hash 100000 pool\n", answer);
    ck_assert_msg(eventually(server_threads(&server) == THREADS + 1),
                  "the server has %d threads: the loop's and %d are wanted", server_threads(&server),
                  THREADS);
    for (size_t i = 0; i < CLIENTS; i++) {
        fds[i] = client_connect(&server);
        put(fds[i], "hash 100000 pool\n");
    }
    int most = 0;
    for (size_t i = 0; i < CLIENTS; i++) {
        int threads = server_threads(&server);
        most = threads > most ? threads : most;
        gets(fds[i], answer, "of its own line");
    }
    ck_assert_msg(most == THREADS + 1,
                  "with %d lines to compute there were up to %d threads: the loop's and %d are wanted",
                  CLIENTS, most, THREADS);
    assert_stops(&server);
}
END_TEST

START_TEST(pool_order)
{
    char expected[200];
    char a[20];
    char b[20];
    struct server server = server_start(NULL);
    hash_answer(a, "a", 3000000);
    hash_answer(b, "b", 1);
    snprintf(expected, sizeof expected, "%s%splain\n%slast\n", a, b, b);
    for (int i = 0; i < 5; i++) {
        int fd = client_connect(&server);
        asks(fd, "hash 3000000 a\nhash 1 b\nplain\nhash 1 b\nlast\n", expected);
        put(fd, "hash 1 b\n");
        client_finish(fd);
        gets(fd, b, "which has finished");
        ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    }
    assert_stops(&server);
}
END_TEST

START_TEST(pool_many)
{
    enum { CLIENTS = 20, LINES = 30 };
    int fds[CLIENTS];
    char line[64];
    char text[16];
    char answer[20];
    struct server server = server_start(NULL);
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = client_connect(&server);
    for (int j = 1; j <= LINES; j++) {
        for (int i = 0; i < CLIENTS; i++) {
            snprintf(line, sizeof line, "hash %d client%d\n", j * 100, i);
            put(fds[i], line);
        }
    }
    for (int j = 1; j <= LINES; j++) {
        for (int i = 0; i < CLIENTS; i++) {
            snprintf(text, sizeof text, "client%d", i);
            hash_answer(answer, text, (unsigned long)j * 100);
            gets(fds[i], answer, "of its own lines, and in their order,");
        }
    }
    assert_stops(&server);
}
END_TEST

START_TEST(pool_leaver)
{
    char answer[20];
    hash_answer(answer, "x", 10000000);
    spoil_freed_memory();
    struct server server = server_start(NULL);
    int stays = client_connect(&server);
    for (int i = 0; i < 5; i++) {
        int leaves = client_connect(&server);
        put(leaves, MIDDLE_JOB);
        asks(stays, "hello\n", "hello\n"); /* so that it has begun */
        client_reset(leaves);
        int newcomer = client_connect(&server);
        asks(newcomer, "hello\n", "hello\n");
        asks(stays, MIDDLE_JOB, answer); /* ends after the other one */
        ck_assert_msg(client_hears_nothing(newcomer, 50), "a client got an answer that it has not asked for");
        close(newcomer);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(pool_loop_answers)
{
    struct server server = server_start(NULL);
    int computes = client_connect(&server);
    int other = client_connect(&server);
    char answer[20];
    hash_answer(answer, "x", 10000000);
    put(computes, MIDDLE_JOB);
    asks(other, "hello\n", "hello\n"); /* so that it has begun */
    hold_main_thread(&server);
    bool too_late = has_heard(computes); /* then this proves nothing, and no harm is done */
    ck_assert_msg(eventually(running_threads(&server) == 0), "a thread never stops computing");
    ck_assert_msg(too_late || client_hears_nothing(computes, 200),
                  "the loop's thread was held, and yet a client got its answer: another thread has sent it");
    let_go(&server);
    gets(computes, answer, "when the loop goes on");
    assert_stops(&server);
}
END_TEST

START_TEST(pool_sleeps)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    char answer[20];
    hash_answer(answer, "x", 10000000);
    asks(client_connect(&server), MIDDLE_JOB, answer);
    assert_sleeps(&server, "when there is nothing to compute");
    assert_stops(&server);
}
END_TEST

START_TEST(pool_stop_waits)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    int other = client_connect(&server);
    char answer[20];
    hash_answer(answer, "x", 10000000);
    put(fd, MIDDLE_JOB);
    asks(other, "hello\n", "hello\n"); /* so that it has begun */
    int status = server_stop(&server, SIGTERM);
    ck_assert_msg(status == 0, "a line was being computed at SIGTERM, and the server ended with status %d",
                  status);
    gets(fd, answer, "whose line was being computed at SIGTERM");
    ck_assert_msg(client_ending(fd) == ENDED, "the client got its answer, and was not closed properly");
}
END_TEST

START_TEST(pool_stop_overdue)
{
    spoil_freed_memory();
    struct server server = server_start(&(struct server_setup){.arguments = {"--loops", "2"}});
    for (int i = 0; i < 8; i++) {
        int fd = client_connect(&server);
        put(fd, ENDLESS_JOB);
    }
    int other = client_connect(&server);
    asks(other, "hello\n", "hello\n");
    assert_stops(&server);
}
END_TEST

/* ---- 06-4, a chat across loops ---- */

enum { MEMBERS_MOST = 64 };

/* The clients of a chat, and the room in which each is. */
struct chat {
    int fds[MEMBERS_MOST];
    int rooms[MEMBERS_MOST];
    int count;
};

/* Connects clients until there are some in each room. Which room it is, the kernel decides. */
static struct chat enter(const struct server *server, int rooms, int in_each)
{
    struct chat chat = {.count = 0};
    int present[MEMBERS_MOST] = {0};
    for (int complete = 0; complete < rooms && chat.count < MEMBERS_MOST; chat.count++) {
        char greeting[] = "room 0\n";
        int fd = client_connect(server);
        size_t got = client_receive(fd, greeting, strlen(greeting));
        int room = greeting[5] - '0';
        ck_assert_msg(got == strlen(greeting) && strncmp(greeting, "room ", 5) == 0 && room >= 0 &&
                          room < rooms,
                      "with %d loops, a client was greeted with \"%.20s\"", rooms, greeting);
        chat.fds[chat.count] = fd;
        chat.rooms[chat.count] = room;
        complete += ++present[room] == in_each;
        if (chat.count == MEMBERS_MOST - 1 && complete < rooms)
            tap_skip("the kernel gave %d clients to %d of %d loops", MEMBERS_MOST, complete, rooms);
    }
    return chat;
}

static struct server start_loops(const char *count)
{
    return server_start(&(struct server_setup){.arguments = {"--loops", count}});
}

/* The index of a client in a room, after skipping some. (enter() has seen to it that there is one.) */
static int in_room(const struct chat *chat, int room, int skip)
{
    int i = 0;
    while (chat->rooms[i] != room || skip-- > 0)
        i++;
    return i;
}

START_TEST(chat_heard)
{
    struct server server = start_loops("2");
    struct chat chat = enter(&server, 2, 2);
    for (int speaker = 0; speaker < chat.count; speaker++) {
        char line[40];
        snprintf(line, sizeof line, "I am client number %d\n", speaker);
        put(chat.fds[speaker], line);
        for (int i = 0; i < chat.count; i++) {
            char when[80];
            snprintf(when, sizeof when, "when somebody in room %d speaks, in room %d", chat.rooms[speaker],
                     chat.rooms[i]);
            if (i != speaker)
                gets(chat.fds[i], line, when);
        }
    }
    for (int i = 0; i < chat.count; i++) /* all have spoken, and nobody has been told twice, or of itself */
        ck_assert_msg(client_hears_nothing(chat.fds[i], i == 0 ? 100 : 0),
                      "a client heard a line twice, or its own");
    assert_stops(&server);
}
END_TEST

START_TEST(chat_order)
{
    enum { LINES = 500 };
    struct server server = start_loops("3");
    struct chat chat = enter(&server, 3, 1);
    char line[40];
    for (int j = 0; j < LINES; j++) {
        snprintf(line, sizeof line, "line %d\n", j);
        put(chat.fds[0], line);
    }
    for (int j = 0; j < LINES; j++) {
        snprintf(line, sizeof line, "line %d\n", j);
        for (int i = 1; i < chat.count; i++)
            gets(chat.fds[i], line, "of 500 lines, in each of three rooms,");
    }
    assert_stops(&server);
}
END_TEST

/* Reads a line of "SENDER NUMBER". Returns false at the end, or at the deadline. */
static bool read_line(FILE *stream, int *sender, int *number)
{
    char line[64];
    return fgets(line, sizeof line, stream) != NULL && sscanf(line, "%d %d", sender, number) == 2;
}

START_TEST(chat_all_talk)
{
    enum { LINES = 40 };
    struct server server = start_loops("3");
    struct chat chat = enter(&server, 3, 2);
    char line[40];
    for (int j = 0; j < LINES; j++) {
        for (int i = 0; i < chat.count; i++) {
            snprintf(line, sizeof line, "%d %d\n", i, j);
            put(chat.fds[i], line);
        }
    }
    for (int i = 0; i < chat.count; i++) {
        int next[MEMBERS_MOST] = {0};
        FILE *stream = fdopen(chat.fds[i], "r");
        ck_assert(stream != NULL);
        for (int j = 0; j < (chat.count - 1) * LINES; j++) {
            int sender = -1;
            int number = -1;
            ck_assert_msg(read_line(stream, &sender, &number),
                          "all talk, and client %d heard only %d of %d lines", i, j,
                          (chat.count - 1) * LINES);
            ck_assert_msg(sender >= 0 && sender < chat.count && sender != i && number == next[sender],
                          "client %d heard line %d of client %d, and line %d was next", i, number, sender,
                          sender >= 0 && sender < chat.count ? next[sender] : -1);
            next[sender]++;
        }
        fclose(stream);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(chat_own_thread)
{
    struct server server = start_loops("2");
    struct chat chat = enter(&server, 2, 2);
    int speakers[2];
    int listeners[2];
    for (int room = 0; room < 2; room++) {
        speakers[room] = in_room(&chat, room, 0);
        listeners[room] = in_room(&chat, room, 1);
    }
    ck_assert_msg(eventually(server_asleep(&server)), "when nobody speaks, the server does not sleep");
    hold_main_thread(&server);
    put(chat.fds[speakers[0]], "from room 0\n");
    put(chat.fds[speakers[1]], "from room 1\n");
    ck_assert_msg(eventually(has_heard(chat.fds[listeners[0]]) || has_heard(chat.fds[listeners[1]])),
                  "one of two loops was held, and the other one stood still, too");
    int free = has_heard(chat.fds[listeners[0]]) ? 0 : 1; /* the room whose loop runs */
    const char *first = free == 0 ? "from room 0\n" : "from room 1\n";
    const char *second = free == 0 ? "from room 1\n" : "from room 0\n";
    char line[] = "from room ?\n";
    bool right = client_receive(chat.fds[listeners[free]], line, strlen(line)) == strlen(line) &&
                 strcmp(line, first) == 0 && client_hears_nothing(chat.fds[listeners[1 - free]], 200);
    ck_assert_msg(right,
                  "a loop was held, and one of its clients heard something: another thread has sent it");
    let_go(&server);
    gets(chat.fds[speakers[1 - free]], first, "of the loop that was held");
    gets(chat.fds[speakers[free]], second, "of the loop that ran");
    assert_stops(&server);
}
END_TEST

START_TEST(chat_leavers)
{
    enum { ROUNDS = 60 };
    spoil_freed_memory();
    struct server server = start_loops("3");
    struct chat chat = enter(&server, 3, 2);
    char line[40];
    for (int j = 0; j < ROUNDS; j++) {
        int leavers[6];
        for (size_t i = 0; i < 6; i++)
            leavers[i] = client_connect(&server);
        for (int i = 0; i < 3; i++) {
            snprintf(line, sizeof line, "%d %d\n", i, j);
            put(chat.fds[i], line);
        }
        for (size_t i = 0; i < 6; i++)
            client_reset(leavers[i]);
    }
    FILE *stream = fdopen(chat.fds[3], "r");
    ck_assert(stream != NULL);
    for (int j = 0; j < 3 * ROUNDS; j++) {
        int sender;
        int number;
        ck_assert_msg(read_line(stream, &sender, &number),
                      "while others come and go, a client heard %d of %d lines; on stderr: \"%.300s\"", j,
                      3 * ROUNDS, server_errors(&server));
    }
    fclose(stream);
    assert_stops(&server);
}
END_TEST

START_TEST(chat_no_locks)
{
    static const char *const locks[] = {"pthread_mutex_lock(", "pthread_rwlock_", "pthread_spin_lock(",
                                        "mtx_lock(", "sem_wait("};
    char path[4096];
    static char text[1 << 20];
    snprintf(path, sizeof path, "%.*s/server.c", (int)(strrchr(program, '/') - program), program);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s (this test looks into the source)", path, strerror(errno));
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++)
        ck_assert_msg(strstr(text, locks[i]) == NULL, "server.c has a call of %s", locks[i]);
}
END_TEST

START_TEST(chat_sleeps)
{
    struct server server = server_start(&(struct server_setup){.arguments = {"--loops", "2"}, .faults = ""});
    struct chat chat = enter(&server, 2, 1);
    put(chat.fds[0], "hello\n");
    for (int i = 1; i < chat.count; i++)
        gets(chat.fds[i], "hello\n", "in both rooms");
    assert_sleeps(&server, "when nobody speaks");
    assert_stops(&server);
}
END_TEST

/* True once the client has been closed by the server; what it has heard meanwhile is thrown away. */
static bool has_ended(int fd)
{
    char thrown_away[4096];
    ssize_t got;
    do
        got = recv(fd, thrown_away, sizeof thrown_away, MSG_DONTWAIT);
    while (got > 0);
    return got == 0 || errno != EAGAIN;
}

START_TEST(chat_stop)
{
    spoil_freed_memory();
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* what is on its way at the end is lost, and may be */
    for (int i = 0; i < 3; i++) {
        enum { LINES_MORE = 1000 };
        struct server server = start_loops("3");
        struct chat chat = enter(&server, 3, 1);
        int more = 0;
        kill(server.pid, SIGTERM);
        /* Whoever speaks keeps its loop alive; the others end, and then it goes on for a while. */
        for (struct deadline deadline = deadline_start(); more < LINES_MORE && !deadline_over(&deadline);) {
            bool all_ended = true;
            if (send(chat.fds[0], "and so on, and so on\n", 21, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
                errno != EAGAIN)
                break;
            for (int j = 1; j < chat.count; j++)
                all_ended = has_ended(chat.fds[j]) && all_ended;
            more += all_ended;
        }
        int status = server_stop(&server, SIGTERM);
        ck_assert_msg(status == 0,
                      "a client went on to speak after SIGTERM: status %d, on stderr: \"%.300s\"", status,
                      server_errors(&server));
        for (int j = 0; j < chat.count; j++)
            close(chat.fds[j]);
    }
}
END_TEST

/* ---- 06-5, a timing wheel ---- */

enum { ROUND_MS = 2048 };

static int start_clock(struct server *server)
{
    *server = server_start(NULL);
    return client_connect(server);
}

/* Sends a line that is written like printf()'s, and requires this answer. */
static void tells(int fd, const char *answer, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void tells(int fd, const char *answer, const char *format, ...)
{
    char line[100];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    asks(fd, line, answer);
}

static void set_timer(int fd, int number, long long due_ms)
{
    tells(fd, "set\n", "set %d %lld\n", number, due_ms);
}

/* Receives a line, without its end. */
static void receive_line(int fd, char *line, size_t size)
{
    size_t got = 0;
    while (got + 1 < size && client_receive(fd, line + got, 1) == 1 && line[got] != '\n')
        got++;
    line[got] = '\0';
}

/* Requires that each timer is in its slot. */
static void assert_wheel(int fd, const char *when)
{
    char text[400];
    put(fd, "wheel\n");
    receive_line(fd, text, sizeof text);
    ck_assert_msg(strcmp(text, "fine") == 0, "%s: %s", when, text);
}

/* Looks at the wheel, and requires that these expire, in whichever order. numbers: " 1 2 3", of one digit. */
static void assert_expire(int fd, long long time_ms, const char *numbers, const char *when)
{
    char line[40];
    char text[400];
    snprintf(line, sizeof line, "now %lld\n", time_ms);
    put(fd, line);
    receive_line(fd, text, sizeof text);
    bool right = strlen(text) == strlen("expired") + strlen(numbers);
    for (size_t i = 1; i < strlen(numbers); i += 2)
        right = right && strchr(text, numbers[i]) != NULL;
    ck_assert_msg(right, "%s; at %lld ms the answer should be \"expired%s\", and was \"%.100s\"", when,
                  time_ms, numbers, text);
}

START_TEST(wheel_slots)
{
    struct server server;
    int fd = start_clock(&server);
    set_timer(fd, 1, 1000);
    set_timer(fd, 2, 1000 + ROUND_MS);
    set_timer(fd, 3, 1);
    set_timer(fd, 4, 2047);
    set_timer(fd, 5, 999999);
    assert_wheel(fd, "after some timers were set");
    set_timer(fd, 1, 1500);
    set_timer(fd, 5, 20);
    assert_wheel(fd, "after some were set to other times");
    asks(fd, "now 1500\n", "expired 3 5 1\n");
    set_timer(fd, 6, 300);
    set_timer(fd, 7, 1500 + 10 * ROUND_MS);
    assert_wheel(fd, "after the clock went on, and some more were set, one of them overdue");
    assert_stops(&server);
}
END_TEST

START_TEST(wheel_rounds)
{
    struct server server;
    int fd = start_clock(&server);
    for (int i = 0; i < 4; i++)
        set_timer(fd, i, 500 + (long long)i * ROUND_MS);
    for (int i = 0; i < 4; i++) {
        char answer[20];
        snprintf(answer, sizeof answer, "expired %d\n", i);
        tells(fd, "expired\n", "now %d\n", 499 + i * ROUND_MS);
        tells(fd, answer, "now %d\n", 500 + i * ROUND_MS);
        tells(fd, "expired\n", "now %d\n", 501 + i * ROUND_MS);
    }
    asks(fd, "next\n", "never\n");
    assert_stops(&server);
}
END_TEST

START_TEST(wheel_within_a_tick)
{
    struct server server;
    int fd = start_clock(&server);
    set_timer(fd, 1, 801);
    set_timer(fd, 2, 807);
    set_timer(fd, 3, 804);
    asks(fd, "now 800\n", "expired\n");
    asks(fd, "now 801\n", "expired 1\n");
    set_timer(fd, 4, 802);
    asks(fd, "now 803\n", "expired 4\n");
    asks(fd, "now 806\n", "expired 3\n");
    asks(fd, "now 807\n", "expired 2\n");
    assert_stops(&server);
}
END_TEST

START_TEST(wheel_skips)
{
    struct server server;
    int fd = start_clock(&server);
    for (int i = 0; i < 20; i++)
        set_timer(fd, i, 10 + (long long)i * 40);
    asks(fd, "now 400\n", "expired 0 1 2 3 4 5 6 7 8 9\n");
    asks(fd, "now 2000\n", "expired 10 11 12 13 14 15 16 17 18 19\n");
    set_timer(fd, 1, 2100);
    set_timer(fd, 2, 3000);
    set_timer(fd, 3, 100000);
    assert_expire(fd, 99999, " 1 2", "the clock went on by many rounds");
    asks(fd, "now 100000\n", "expired 3\n");
    assert_stops(&server);
}
END_TEST

START_TEST(wheel_overdue)
{
    struct server server;
    int fd = start_clock(&server);
    asks(fd, "now 5000\n", "expired\n");
    set_timer(fd, 1, 4000);
    set_timer(fd, 2, 5000);
    set_timer(fd, 3, 4990);
    assert_expire(fd, 5000, " 1 2 3", "at 5000 ms, timers were set for 4000, 5000 and 4990 ms");
    assert_stops(&server);
}
END_TEST

START_TEST(wheel_cancelled)
{
    struct server server;
    int fd = start_clock(&server);
    for (int i = 0; i < 9; i++)
        set_timer(fd, i, 1000 + i % 3); /* three times: all in the list of one slot */
    for (int i = 0; i < 9; i += 4)      /* its first, one in the middle, its last */
        tells(fd, "cancelled\n", "cancel %d\n", i);
    tells(fd, "cancelled\n", "cancel %d\n", 4);
    assert_wheel(fd, "after three of nine timers in one slot were cancelled");
    set_timer(fd, 1, 50);
    set_timer(fd, 2, 9000);
    assert_expire(fd, 1000, " 1 3 6", "timers 3 and 6 were left as they were, and timer 1 was set to 50 ms");
    assert_wheel(fd, "after some have expired");
    assert_stops(&server);
}
END_TEST

START_TEST(wheel_next)
{
    struct server server;
    int fd = start_clock(&server);
    static const long long dues[] = {3, 8, 500, 2047, 2048, 2049, 10000, 30001, 30002, 70007};
    enum { COUNT = sizeof dues / sizeof *dues, LOOKS_MOST = 70007 / ROUND_MS + 5 * COUNT };
    char text[1000];

    asks(fd, "next\n", "never\n");
    for (int i = 0; i < COUNT; i++)
        set_timer(fd, i, dues[i]);
    put(fd, "run 100000\n");
    receive_line(fd, text, sizeof text);
    const char *rest = strstr(text, "; looks ");
    ck_assert_msg(rest != NULL, "the server's answer was \"%.300s\"", text);
    for (int i = 0; i < COUNT; i++) {
        char exactly[40];
        snprintf(exactly, sizeof exactly, " %d@%lld", i, dues[i]);
        ck_assert_msg(strstr(text, exactly) != NULL,
                      "timer %d is due at %lld ms, and did not expire then, to those who look whenever "
                      "timers_next() says: \"%.300s\"",
                      i, dues[i], text);
    }
    long looks = strtol(rest + strlen("; looks "), NULL, 10);
    ck_assert_msg(looks <= LOOKS_MOST,
                  "%d timers, the last of them in 35 rounds, made for %ld looks%s; %d would be plenty", COUNT,
                  looks, looks >= 100000 ? ", and no end" : "", LOOKS_MOST);
    assert_stops(&server);
}
END_TEST

START_TEST(wheel_cost)
{
    struct server server;
    int fd = start_clock(&server);
    asks(fd, "crowd 100000\n", "set\n");
    size_t before = server_resident(&server);
    asks(fd, "churn 20\n", "set\n");
    size_t after = server_resident(&server);
    ck_assert_msg(
        after < before + ((size_t)4 << 20) || sanitized(),
        "100000 timers were set 20 times, and %zu MiB more are in use: cancelled ones leave something behind",
        (after - before) >> 20);
    put(fd, "nexts 50000\n");
    char answer[5] = "";
    ck_assert_msg(client_receive(fd, answer, 4) == 4,
                  "with 100000 timers, 50000 calls of timers_next() were not done by the deadline");
    assert_stops(&server);
}
END_TEST

START_TEST(wheel_reactor)
{
    enum { CLIENTS = 20 };
    int fds[CLIENTS];
    int64_t begin_us[CLIENTS];
    struct server server = server_start(&(struct server_setup){.faults = ""});
    for (int i = 0; i < CLIENTS; i++) {
        char line[20];
        fds[i] = client_connect(&server);
        snprintf(line, sizeof line, "in %d\n", 50 + 37 * (CLIENTS - i));
        begin_us[i] = now_us();
        put(fds[i], line);
    }
    for (int i = CLIENTS - 1; i >= 0; i--) {
        gets(fds[i], "it is time\n", "whose time has come");
        int64_t passed_us = now_us() - begin_us[i];
        ck_assert_msg(passed_us >= 1000 * (50 + 37 * (CLIENTS - i) - 1),
                      "a timer of %d ms expired after %.1f ms", 50 + 37 * (CLIENTS - i),
                      (double)passed_us / 1000);
    }
    put(fds[0], "in 1000000\n");
    asks(fds[1], "next\n", "never\n"); /* so that the other line has been read */
    uint64_t count = waits_in_silence(&server);
    ck_assert_msg(count <= 5,
                  "the only timer is due in a quarter of an hour, and the loop woke up %" PRIu64
                  " times in half a second",
                  count);
    assert_stops(&server);
}
END_TEST

/* ---- 06-6, edges behind levels ---- */

/* The events for which the server's epoll watches, from fdinfo: how many descriptors, and how many of them
 * edge-triggered. */
struct watched {
    int count;
    int edges;
};

static struct watched watched_by(const struct server *server)
{
    struct watched watched = {0, 0};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fdinfo", (int)server->pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        tap_skip("%s: %s (this test looks at descriptors there)", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[400];
        char line[256];
        unsigned events;
        snprintf(name, sizeof name, "%s/%.200s", path, entry->d_name);
        FILE *file = entry->d_name[0] != '.' ? fopen(name, "re") : NULL;
        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            if (sscanf(line, "tfd: %*d events: %x", &events) == 1) {
                watched.count++;
                watched.edges += (events & 1U << 31) != 0;
            }
        }
        if (file != NULL)
            fclose(file);
    }
    closedir(folder);
    return watched;
}

START_TEST(edge_triggered)
{
    struct server server = server_start(NULL);
    for (int i = 0; i < 5; i++)
        served_client(&server);
    struct watched watched = watched_by(&server);
    ck_assert_msg(
        watched.count >= 7 && watched.edges == watched.count,
        "the listening socket, the wake-up and 5 clients are watched: %d descriptors, and %d of them "
        "edge-triggered",
        watched.count, watched.edges);
    assert_stops(&server);
}
END_TEST

START_TEST(edge_repeats)
{
    struct server server = server_start(NULL);
    int other = client_connect(&server);
    int fd = client_connect(&server);
    size_t total = (size_t)4 << 20;
    size_t back = client_echo(fd, total, 300000, 1);
    ck_assert_msg(back == total, "of %zu bytes %zu came back right", total, back);
    ck_assert_msg(client_gets_echo(other, "me too"), "another client got no echo");
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    assert_stops(&server);
}
END_TEST

START_TEST(edge_fin_with_data)
{
    struct server server = server_start(NULL);
    for (int i = 0; i < 50; i++) {
        int fd = served_client(&server);
        char back[16];
        server_pause(&server); /* so that both are there in one event */
        client_send(fd, "the last words", 14);
        client_finish(fd);
        kill(server.pid, SIGCONT);
        ck_assert_msg(client_receive(fd, back, 14) == 14, "what came with the FIN was not echoed");
        ck_assert_msg(client_ending(fd) == ENDED, "the FIN came with data, and the client was never closed");
        close(fd);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(edge_late_reader)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fd = served_client(&server);
    uint64_t before = server_calls(&server, "epoll_ctl");
    for (unsigned round = 0; round < 2; round++) {
        size_t size = client_flood(fd, round);
        ck_assert_msg(eventually(server_asleep(&server)),
                      "while a client does not read, the server does not sleep");
        uint64_t count = waits_in_silence(&server); /* (the client's system may go on asking for room) */
        ck_assert_msg(count <= 20,
                      "while a client does not read, the server woke up %" PRIu64 " times in half a second",
                      count);
        size_t got = client_receive_pattern(fd, size, round, 0);
        ck_assert_msg(got == size, "of %zu bytes, which the client read late, %zu came back right", size,
                      got);
    }
    uint64_t changes = server_calls(&server, "epoll_ctl") - before;
    ck_assert_msg(changes == 0,
                  "a client stopped reading twice, and that cost %" PRIu64 " calls of epoll_ctl()", changes);
    ck_assert_msg(client_gets_echo(fd, "and now?"), "afterwards the client gets no echo");
    assert_stops(&server);
}
END_TEST

START_TEST(edge_crowd)
{
    enum { CLIENTS = 600 };
    static int fds[CLIENTS];
    struct server server = server_start(NULL);
    served_client(&server);
    server_pause(&server);
    client_connect_many(&server, fds, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        put(fds[i], "all at once");
    kill(server.pid, SIGCONT);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < CLIENTS; i++)
            gets(fds[i], "all at once", "of 600, all of whom are ready at the same time,");
        server_pause(&server);
        for (size_t i = 0; i < CLIENTS; i++)
            put(fds[i], "all at once");
        kill(server.pid, SIGCONT);
    }
    for (size_t i = 0; i < CLIENTS; i++)
        close(fds[i]);
    ck_assert_msg(client_gets_echo(client_connect(&server), "hello"), "after them, a client got no echo");
    assert_stops(&server);
}
END_TEST

START_TEST(edge_fair)
{
    enum { CLIENTS = 300, TURNS = 10 * CLIENTS };
    static int fds[CLIENTS];
    /* Each receive fails with EAGAIN, so that whoever has sent something is ready for ever. */
    struct server server = server_start(&(struct server_setup){.faults = "recv:*=EAGAIN"});
    int before = server_descriptors(&server);
    client_connect_many(&server, fds, CLIENTS);
    ck_assert_msg(eventually(server_descriptors(&server) == before + CLIENTS),
                  "of %d clients %d were accepted", CLIENTS, server_descriptors(&server) - before);
    for (size_t i = 0; i < CLIENTS; i++)
        put(fds[i], "x");
    ck_assert_msg(eventually(server_calls(&server, "recv") >= TURNS),
                  "300 clients have sent something which no handler receives, and after %" PRIu64
                  " calls of recv() they were not reported any more",
                  server_calls(&server, "recv"));
    client_connect(&server);
    ck_assert_msg(eventually(server_descriptors(&server) == before + CLIENTS + 1),
                  "while 300 clients are ready all the time, a new one is not accepted");
    assert_stops(&server);
}
END_TEST

START_TEST(edge_successor)
{
    struct server server = server_start(NULL);
    for (int i = 0; i < 50; i++) {
        int fd = served_client(&server);
        server_pause(&server);
        client_send(fd, "unheard", 7);
        client_reset(fd); /* all of it is there at once: the connection is lost with something to read */
        int successor = client_connect(&server);
        client_send(successor, "in its place", 12);
        kill(server.pid, SIGCONT);
        gets(successor, "in its place", "that has the descriptor of one who was lost");
        close(successor);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(edge_out_of_descriptors)
{
    enum { CLIENTS = 30, LIMIT = 24 };
    int fds[CLIENTS];
    struct server server = server_start(&(struct server_setup){.descriptors = LIMIT, .faults = ""});
    for (size_t i = 0; i < CLIENTS; i++) {
        fds[i] = client_connect(&server);
        put(fds[i], "hello");
    }
    gets(fds[0], "hello", "which came first");
    ck_assert_msg(eventually(server_descriptors(&server) == LIMIT),
                  "the server does not let all in whom it could");
    uint64_t count = waits_in_silence(&server);
    ck_assert_msg(count <= 60, "out of descriptors, the server woke up %" PRIu64 " times in half a second",
                  count);
    for (size_t i = 0; i < CLIENTS; i++) {
        if (i > 0)
            gets(fds[i], "hello", "which waited until there was a descriptor");
        close(fds[i]);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(edge_idle)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    for (int i = 0; i < 100; i++)
        served_client(&server);
    assert_sleeps(&server, "with 100 silent clients");
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
    {"06-1", &event_descriptor, "one eventfd for each loop, and no pipe",
     "As many eventfds as loops, non-blocking, and closed at exec.",
     "pipe() still makes two descriptors; or eventfd() got no flags", OUTSIDE},
    {"06-1", &event_posts, "what threads post is run, in order, and once",
     "80000 works from four threads; and single ones, which find the loop asleep.",
     "write() wants eight bytes for an eventfd, and fails with EINVAL for fewer: nobody is woken",
     "eventfd(2)"},
    {"06-1", &event_signals, "a signal wakes a loop that sleeps",
     "Five signals, and five times a handler is called.",
     "the signal handler writes one byte; or the eventfd is never emptied, and never rings again",
     "eventfd(2)"},
    {"06-1", &event_sleeps, "an eventfd that has been heard is silent",
     "When all has been run, the loop sleeps.",
     "it is not read, or not with eight bytes: level-triggered, it is reported for ever", IN_VAIN},
    {"06-1", &event_interrupted, "a call that was interrupted is made again",
     "EINTR from write() or read(), once, costs nothing.", "one of the loops around the calls is gone",
     OUTSIDE},
    {"06-1", &event_closed_once, "it is closed once", "No close() fails.",
     "handler.fd and writing_end are the same descriptor now; with several threads, a second close() may be "
     "that "
     "of a descriptor that somebody else has just opened",
     LIVES},
    {"06-1", &still_stops, "the stop is as before", "Status 0 within the deadline, also with three loops.",
     "the first loop posts the stop to the others, and they are not woken", STOP},

    {"06-2", &rate_kept, "no client gets more than its rate",
     "At any time no more than the rate, plus what the bucket can hold.",
     "what is received is not taken from the bucket; or the bucket is filled again with each turn", TIME},
    {"06-2", &rate_saved, "and can save no more than a quarter of a second's worth",
     "After a silence, the bucket is full, and not fuller.", "the bucket has no limit", TIME},
    {"06-2", &rate_slow, "a slow rate is a rate, too", "3 bytes a second: the fourth byte after a second.",
     "a quarter of 3, or a tenth, is 0, and a bucket that holds nothing lets nobody in", TIME},
    {"06-2", &rate_own_bucket, "each client has its own bucket",
     "400 clients send 2 bytes each, at 10 bytes a second: each gets them at once.",
     "the bucket is in struct server, and all drink from it", LIVES},
    {"06-2", &rate_sleeps, "while a client has to wait, the loop sleeps",
     "It wakes up for its timer, and no handler sleeps itself.",
     "the client is still wanted for reading, and level-triggered: what it has sent is reported again and "
     "again",
     WANTED},
    {"06-2", &rate_few_pauses, "a pause lasts until it is worth while",
     "A tenth of a second's worth, so ten pauses in a second at most.",
     "the pause ends with the first byte, a millisecond later", TIME},
    {"06-2", &rate_stop, "the stop does not wait for buckets",
     "What has come is echoed, without limit, and the timer of who is closed does not expire.",
     "the limit holds during the stop, too; or a connection is freed with its timer set (its memory is "
     "filled with "
     "rubbish here, so that this is seen)",
     STOP},
    {"06-2", &rate_echoes, "the echo is as before", "4 MiB, a client that reads late, a half-close.",
     "a client that owes is let in; or one that has paid is not", WANTED},
    {"06-2", &still_stops, "so is the stop", "Status 0, and an end for each client.",
     "a client who pauses is not told", STOP},

    {"06-3", &pool_others_meanwhile, "while a line is computed, others are answered",
     "Twenty answers to another client, at once.",
     "hash() is called in a handler; or the loop waits for a thread, or for a lock that one holds while it "
     "computes",
     SLOW_HANDLER},
    {"06-3", &pool_at_once, "four lines are computed at the same time",
     "Three without end, and one that is ready soon.",
     "there are too few threads; or the lock is held while something is computed", SLOW_HANDLER},
    {"06-3", &pool_threads, "by four threads, however many ask", "Five threads in all, from the start.",
     "a thread is started for each line", "the book, chapter 1, \"The idea\""},
    {"06-3", &pool_order, "a client's answers come in the order of its lines",
     "A long line, then short ones, in one piece: answered one after the other; and after a FIN, too.",
     "the next line is taken while one is being computed; or those behind it are forgotten, for no event "
     "will "
     "announce them again",
     WANTED},
    {"06-3", &pool_many, "each client gets its own answers", "20 clients, 30 lines each.",
     "a result is in a place that two jobs share; or a job is queued twice", OUTSIDE},
    {"06-3", &pool_leaver, "who has left gets nothing, nor does who comes in its place",
     "The job comes back, and its client has gone.",
     "the connection was freed while a thread had its job (freed memory is filled with rubbish here)", LIVES},
    {"06-3", &pool_loop_answers, "it is the loop that answers",
     "While the loop's thread is held, no client gets anything.",
     "the thread that has computed calls send(): post it to the loop", OUTSIDE},
    {"06-3", &pool_sleeps, "a pool that has nothing to do sleeps", "No wake-up, of any thread.",
     "a thread asks again and again, instead of waiting for a condition variable", "pthread_cond_wait(3)"},
    {"06-3", &pool_stop_waits, "the stop waits for what is being computed",
     "The answer still comes, then the end, then status 0.",
     "a client is closed at REACTOR_STOP although its "
     "answer is on its way",
     STOP},
    {"06-3", &pool_stop_overdue, "but not for ever", "Jobs without end; status 0 after 3 seconds.",
     "the pool is joined before it is told that it is enough; or a thread posts to a reactor that is gone",
     STOP},
    {"06-3", &still_stops, "the stop is as before", "Status 0, and an end for each client.",
     "the threads of the pool are not woken, and joined in vain", STOP},

    {"06-4", &chat_heard, "what one says, all others hear, in both rooms",
     "Each line once, and not to its speaker.", "it is told in the own room only", LOOPS},
    {"06-4", &chat_order, "in the order in which it was said", "500 lines, in each of three rooms.",
     "the same work was posted to two reactors: each has its own list, and a work has one link", OUTSIDE},
    {"06-4", &chat_all_talk, "when all talk, all is heard",
     "Each hears each line of all others, once, in order.",
     "a message is used again, or freed, while it is on its way", OUTSIDE},
    {"06-4", &chat_own_thread, "a loop's clients are its own",
     "While a loop is held, its clients hear nothing, and those of the other go on.",
     "a thread walks through the list of another one; or waits for it", LOOPS},
    {"06-4", &chat_leavers, "while others come and go", "All lines arrive, and the server stays.",
     "a message knows a client, who may have gone when it arrives (freed memory is filled with rubbish here)",
     LIVES},
    {"06-4", &chat_no_locks, "server.c takes no lock",
     "Loops share nothing but an array of places, which are atomic.",
     "a lock guards what does not have to be shared", LOOPS},
    {"06-4", &chat_sleeps, "when nobody speaks, all loops sleep", "No wake-up without a cause.",
     "a loop looks again and again, with a timer, for what others have left", IN_VAIN},
    {"06-4", &chat_stop, "a stop, and somebody who goes on to speak", "Status 0.",
     "a loop has ended and its room was freed, while another one was about to post to it", STOP},
    {"06-4", &still_stops, "the stop is as before", "Status 0, and an end for each client.",
     "a loop waits for another", STOP},

    {"06-5", &wheel_slots, "each timer is in the slot of its tick",
     "Slot due_ms / WHEEL_TICK_MS % WHEEL_SLOTS; what is overdue, where the hand is.",
     "link_entry() puts all into one slot; or set again, a timer stays where it was", TIME},
    {"06-5", &wheel_rounds, "a timer waits for its round",
     "Four timers in one slot, a round apart: one each round.",
     "a slot's whole list is taken out, and nobody looks at due_ms", TIME},
    {"06-5", &wheel_within_a_tick, "and for its millisecond",
     "Four timers in the same tick, one after the other.",
     "the hand goes on from a slot although its tick is not over: what is left there waits for a round",
     TIME},
    {"06-5", &wheel_skips, "no slot is passed over",
     "The clock may go on by some ticks, or by many rounds, between two looks.",
     "only the slot of now is looked at; or the hand goes round and round to catch up, or not far enough",
     TIME},
    {"06-5", &wheel_overdue, "what is overdue comes at once",
     "A timer set for the past expires with the next look.",
     "it was put into the slot of its time, where the hand has been: it comes a round later", TIME},
    {"06-5", &wheel_cancelled, "a timer may be cancelled, or set again", "Whatever its place in the list.",
     "the first entry of a list has none before it, and slots[] must change", TIME},
    {"06-5", &wheel_next, "timers_next() is never too late, and seldom too early",
     "Who looks just then sees each timer at its millisecond; and wakes up in vain once a round for each at "
     "most.",
     "a slot's tick is taken for the time at which its timers are due, in whichever round; or the slot where "
     "the "
     "hand is, is reported for ever",
     TIME},
    {"06-5", &wheel_cost, "whatever the number of timers", "100000 timers do not make any step longer.",
     "a list of all timers is looked through; or one is kept in order", TIME},
    {"06-5", &wheel_reactor, "the reactor's own timers", "Twenty clocks, none early; and no ticking.",
     "the wheel is looked at in each tick, though nothing is in there", IN_VAIN},
    {"06-5", &still_stops, "the stop is as before", "Status 0, and an end for each client.",
     "a timer is lost", STOP},

    {"06-6", &edge_triggered, "every descriptor is watched for edges",
     "EPOLLET for all, in one epoll_ctl() each.", "EPOLLET is missing", "the book, chapter 4, \"The API\""},
    {"06-6", &edge_repeats, "what a handler leaves undone is reported again",
     "4 MiB in large pieces come back: a handler receives once for each event.",
     "the edge is forgotten once it has been reported", WAYS_TO_WAIT},
    {"06-6", &edge_fin_with_data, "a FIN that comes with the last bytes is met",
     "The bytes are echoed, and the client is closed.", "the event was taken for over after its first report",
     WAYS_TO_WAIT},
    {"06-6", &edge_late_reader, "a client that reads late gets all, and costs no change",
     "No epoll_ctl(), no wake-up while it does not read, and no edge lost.",
     "epoll_ctl() is called when the wish changes; or what was announced while nobody wanted it is forgotten",
     WAYS_TO_WAIT},
    {"06-6", &edge_crowd, "600 are ready at once", "All are served, 256 in a batch.",
     "whoever finds no room in the batch is forgotten", WAYS_TO_WAIT},
    {"06-6", &edge_fair, "who is always ready keeps nobody waiting",
     "300 clients whose handlers leave everything undone, and the listening socket is reported, too.",
     "while somebody is to be reported again, epoll is not asked; or a batch always begins with the same "
     "ones, and "
     "has no room for the others",
     WAYS_TO_WAIT},
    {"06-6", &edge_successor, "who comes in the place of another inherits nothing",
     "A descriptor that is used again begins anew.",
     "what was remembered of a descriptor outlives change() to 0",
     "the book, chapter 6, \"Dispatch, by generation\""},
    {"06-6", &edge_out_of_descriptors, "out of descriptors, the queue is not lost",
     "The acceptor wants nothing for a while, and then finds those who still wait: no new edge announces "
     "them.",
     "what is ready when something is wanted again, is not reported", WAYS_TO_WAIT},
    {"06-6", &edge_idle, "silent clients wake nobody", "With 100 of them, the loop sleeps in epoll_wait().",
     "nobody asks whether it is over: a descriptor that was ready once is reported for ever; or the limit of "
     "the "
     "wait is 0 although nothing is ready",
     IN_VAIN},
    {"06-6", &still_stops, "the stop is as before", "Status 0, and an end for each client.",
     "the wake-up is a descriptor like any other: its edges, too, are announced once", STOP},
};

int main(int argc, char **argv)
{
    struct tap_test tests[sizeof checks / sizeof *checks];
    size_t count_of_tests = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: exercise_ch06 06-1 PROGRAM\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const struct check *check = &checks[i];
        if (strcmp(check->exercise, argv[1]) == 0)
            tests[count_of_tests++] =
                (struct tap_test){check->name, *check->test, check->expected, check->cause, check->section};
    }
    if (count_of_tests == 0) {
        fprintf(stderr, "exercise_ch06: no such exercise: %s\n", argv[1]);
        return 2;
    }
    program = argv[2];
    server_choose(program);
    return tap_run("", tests, count_of_tests);
}
