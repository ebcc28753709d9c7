/* exercise_ch02.c - checks the exercises of chapter 2.
 *
 * Usage: exercise_ch02 02-1 PROGRAM */
#define _POSIX_C_SOURCE 200809L

#include "harness.h"
#include "tap.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECES "the book, chapter 2, \"The server, piece by piece\""
#define IDEA "the book, chapter 2, \"The idea\""

/* ---- what every solution still has to do ---- */

START_TEST(still_echoes)
{
    struct server server = server_start(NULL);
    int other = client_connect(&server);
    int fd = client_connect(&server);
    size_t total = (size_t)4 << 20;
    size_t back = client_echo(fd, total, 100000, 1);
    ck_assert_msg(back == total, "%zu of %zu bytes came back right", back, total);
    ck_assert_msg(client_gets_echo(other, "me too"), "another client got no echo");
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    assert_stops(&server);
}
END_TEST

START_TEST(still_stops)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    ck_assert(client_gets_echo(fd, "hello\n"));
    assert_stops(&server);
    ck_assert_msg(client_ending(fd) == ENDED, "the server has ended, and the client was not closed properly");
}
END_TEST

/* ---- 02-1, count the wasted calls ---- */

/* Three clients send ten messages each, then the server is stopped. Reads the
 * line that it prints, and how many calls failed in truth. */
static void count(unsigned long long *in_vain, unsigned long long *messages, uint64_t *failures)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fds[3];
    for (int i = 0; i < 3; i++)
        fds[i] = client_connect(&server);
    for (int i = 0; i < 30; i++)
        ck_assert_msg(client_gets_echo(fds[i % 3], "a message"), "message %d got no echo", i + 1);
    for (int i = 0; i < 3; i++) { /* to leave is not a message */
        client_finish(fds[i]);
        ck_assert_msg(client_ending(fds[i]) == ENDED, "after a client's FIN it was not closed properly");
    }
    assert_stops(&server);

    const char *errors = server_errors(&server);
    size_t length = strlen(errors);
    const char *last = errors;
    for (size_t i = 0; i + 1 < length; i++) {
        if (errors[i] == '\n')
            last = errors + i + 1;
    }
    ck_assert_msg(
        sscanf(last, "%llu calls in vain, %llu messages", in_vain, messages) == 2,
        "the last line on stderr should be like \"1234 calls in vain, 30 messages\", and is: \"%.100s\"",
        last);
    *failures = server_failures(&server, "recv") + server_failures(&server, "accept");
}

START_TEST(counts_in_vain)
{
    unsigned long long in_vain;
    unsigned long long messages;
    uint64_t failures;
    count(&in_vain, &messages, &failures);
    ck_assert_msg(in_vain == failures,
                  "it counted %llu calls in vain, and %llu calls of recv() and accept() failed", in_vain,
                  (unsigned long long)failures);
}
END_TEST

START_TEST(counts_messages)
{
    unsigned long long in_vain;
    unsigned long long messages;
    uint64_t failures;
    count(&in_vain, &messages, &failures);
    ck_assert_msg(messages == 30, "30 messages were echoed one by one, and it counted %llu", messages);
}
END_TEST

/* ---- 02-2, back off ---- */

START_TEST(back_off_idle)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fd = client_connect(&server);
    ck_assert(client_gets_echo(fd, "hello"));
    uint64_t before = server_failures(&server, "accept");
    poll(NULL, 0, 1000); /* the second during which nothing happens */
    uint64_t failures = server_failures(&server, "accept") - before;
    ck_assert_msg(failures < 1000, "an idle server asked for clients %llu times in a second",
                  (unsigned long long)failures);
    ck_assert_msg(failures > 0, "an idle server did not ask for clients once in a second");
    assert_stops(&server);
}
END_TEST

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* How long a message takes to come back, in milliseconds. */
static double latency(int fd)
{
    double begin = seconds();
    ck_assert_msg(client_gets_echo(fd, "how long?"), "a message got no echo");
    return 1000 * (seconds() - begin);
}

START_TEST(back_off_starts_again)
{
    enum { MESSAGES = 200, LONGEST_PAUSE_MS = 100 };
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    ck_assert(client_gets_echo(fd, "hello"));
    poll(NULL, 0, 1000); /* by now it pauses as long as it ever does */
    double after_silence = latency(fd);
    double all = 0;
    for (int i = 0; i < MESSAGES; i++)
        all += latency(fd);
    printf("# a message after a second of silence took %.2f ms, one that follows another %.2f ms\n",
           after_silence, all / MESSAGES);
    fflush(stdout);
    /* No limit of time, but a ratio: each message would wait for a longest pause. */
    ck_assert_msg(all < MESSAGES * LONGEST_PAUSE_MS / 2,
                  "%d messages, one after the other, took %.0f ms each: about as long as the longest pause",
                  MESSAGES, all / MESSAGES);
    assert_stops(&server);
}
END_TEST

/* ---- 02-3, echo lines ---- */

static void assert_hears(int fd, const char *expected)
{
    char back[8192];
    size_t size = strlen(expected);
    size_t got = client_receive(fd, back, size);
    ck_assert_msg(got == size && memcmp(back, expected, size) == 0,
                  "the client should get \"%.60s\", and got %zu bytes: \"%.*s\"", expected, got,
                  got < 60 ? (int)got : 60, back);
}

static void assert_silence(int fd, const char *sent)
{
    ck_assert_msg(client_hears_nothing(fd, 100),
                  "after \"%s\", without a newline, something came back already", sent);
}

START_TEST(lines_in_pieces)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    client_send(fd, "hel", 3);
    assert_silence(fd, "hel");
    client_send(fd, "lo", 2);
    assert_silence(fd, "hello");
    client_send(fd, "\n", 1);
    assert_hears(fd, "hello\n");
    static const char text[] = "byte\nby byte\n\n";
    for (const char *byte = text; *byte != '\0'; byte++)
        client_send(fd, byte, 1);
    assert_hears(fd, text);
    assert_stops(&server);
}
END_TEST

START_TEST(lines_in_one_piece)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    client_send(fd, "one\ntwo\n\nthr", 12);
    assert_hears(fd, "one\ntwo\n\n");
    assert_silence(fd, "thr");
    client_send(fd, "ee\n", 3);
    assert_hears(fd, "three\n");
    assert_stops(&server);
}
END_TEST

START_TEST(lines_last)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    client_send(fd, "first\nno newline", 16);
    client_finish(fd);
    assert_hears(fd, "first\nno newline");
    ck_assert_msg(client_ending(fd) == ENDED, "after its last line the client was not closed properly");
    assert_stops(&server);
}
END_TEST

START_TEST(lines_longest)
{
    static char line[4096];
    static char back[sizeof line];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    for (int i = 0; i < 3; i++) {
        client_send(fd, line, 4000);
        client_send(fd, line + 4000, sizeof line - 4000);
        size_t got = client_receive(fd, back, sizeof back);
        ck_assert_msg(got == sizeof line && memcmp(line, back, got) == 0,
                      "a line of 4,096 bytes, its newline included, is allowed, and %zu bytes came back",
                      got);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(lines_too_long)
{
    static char line[4097];
    memset(line, 'x', sizeof line);
    struct server server = server_start(NULL);
    int other = client_connect(&server);
    int fd = client_connect(&server);
    client_send(fd, "short\n", 6);
    assert_hears(fd, "short\n");
    client_send(fd, line, sizeof line - 1);
    assert_hears(fd, "line too long\n");
    ck_assert_msg(client_ending(fd) != STILL_OPEN, "a client with a line that is too long was not closed");
    ck_assert_msg(client_gets_echo(other, "me too\n"), "another client suffered from it");
    assert_stops(&server);
}
END_TEST

START_TEST(lines_read_late)
{
    enum { LINES = 100000, SIZE = 8 };
    struct server server = server_start(NULL);
    int other = client_connect(&server);
    int fd = client_connect(&server);
    size_t sent = 0;
    size_t before = server_resident(&server);
    static char text[LINES * SIZE + 1];
    for (int i = 0; i < LINES; i++)
        snprintf(text + (size_t)i * SIZE, SIZE + 1, "%07d\n", i);
    while (sent < LINES * SIZE) { /* until nothing more is taken */
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        if (poll(&room, 1, 300) == 0)
            break;
        ssize_t n = send(fd, text + sent, LINES * SIZE - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            break;
        sent += n > 0 ? (size_t)n : 0;
    }
    ck_assert_msg(client_gets_echo(other, "me too\n"), "one client does not read, and another gets no echo");
    ck_assert_msg(sanitized() || server_resident(&server) < before + (1U << 20),
                  "a client that does not read made the server grow by %zu KiB",
                  (server_resident(&server) - before) / 1024);

    static char back[LINES * SIZE];
    size_t whole = sent - sent % SIZE;
    size_t got = client_receive(fd, back, whole);
    ck_assert_msg(got == whole && memcmp(text, back, whole) == 0,
                  "of %zu bytes in lines, read late, %zu came back, or in another order", whole, got);
    assert_stops(&server);
}
END_TEST

START_TEST(lines_half)
{
    struct server server = server_start(NULL);
    int half = client_connect(&server);
    client_send(half, "half a l", 8);
    for (int i = 0; i < 20; i++) {
        int fd = client_connect(&server);
        ck_assert_msg(client_gets_echo(fd, "whole\n"),
                      "one client has sent half a line, and another gets no echo");
        close(fd);
    }
    client_send(half, "ine\n", 4);
    assert_hears(half, "half a line\n");
    assert_stops(&server);
}
END_TEST

/* ---- the tables ---- */

struct check {
    const char *exercise;
    const TTest *const *test;
    const char *name, *expected, *cause, *section;
};

static const struct check checks[] = {
    {"02-1", &counts_in_vain, "calls in vain are counted exactly",
     "The number printed is that of the calls of recv() and accept() that failed.",
     "a turn that echoed something, or the turns during the stop, or the calls of accept() are not counted "
     "right",
     PIECES},
    {"02-1", &counts_messages, "messages are counted exactly", "30 messages make 30.",
     "every turn that is not in vain is counted, the one that finds the client's FIN, too", PIECES},
    {"02-1", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte.",
     "something else than counting was changed", PIECES},
    {"02-1", &still_stops, "the stop is as before", "Status 0, and a FIN to the client.",
     "something else than counting was changed", PIECES},

    {"02-2", &back_off_idle, "an idle server asks seldom",
     "Fewer than 1,000 calls in vain in a second of silence.",
     "the pause does not grow, or the turns in vain are not recognised", IDEA},
    {"02-2", &back_off_starts_again, "the pause starts again when there is something to do",
     "A client that sends message after message does not wait for the longest pause each time.",
     "the pause is not set back to the shortest after a turn with something to do", IDEA},
    {"02-2", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte.",
     "the pause comes between two parts of one message", PIECES},
    {"02-2", &still_stops, "the stop is as before", "Status 0, and a FIN to the client.",
     "the stop waits for a pause that no signal ends", PIECES},

    {"02-3", &lines_in_pieces, "a line that comes in pieces is answered when it is complete",
     "Nothing before the newline, the whole line after it.", "what came is sent back at once", PIECES},
    {"02-3", &lines_in_one_piece, "several lines in one piece are answered, and the rest is kept",
     "Three lines come back, and the beginning of the fourth with its end.",
     "only the first newline is looked for, or what follows the last one is lost", PIECES},
    {"02-3", &lines_last, "at the FIN the last line is answered, though it has no newline",
     "All bytes come back, then the end.", "the FIN closes the connection before the rest is sent", PIECES},
    {"02-3", &lines_longest, "a line of 4,096 bytes is answered", "The longest line comes back whole.",
     "the limit is off by one: the newline counts", PIECES},
    {"02-3", &lines_too_long, "a line of more than 4,096 bytes is refused",
     "\"line too long\", and the connection is closed; others go on.",
     "a full buffer without a newline in it is not recognised, and recv() is called with a size of 0",
     PIECES},
    {"02-3", &lines_read_late, "a client that reads late gets all its lines, and costs no memory",
     "Lines come back in order; while they are owed nothing is received.",
     "what is received while lines are owed overwrites them, or is queued without a bound", PIECES},
    {"02-3", &lines_half, "a client with half a line delays nobody", "Others are answered meanwhile.",
     "the server waits for the newline", PIECES},
    {"02-3", &still_stops, "the stop is as before", "Status 0, and a FIN to the client.",
     "the stop waits for a line to be completed", PIECES},
};

int main(int argc, char **argv)
{
    struct tap_test tests[sizeof checks / sizeof *checks];
    size_t count_of_tests = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: exercise_ch02 02-1 PROGRAM\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const struct check *check = &checks[i];
        if (strcmp(check->exercise, argv[1]) == 0)
            tests[count_of_tests++] =
                (struct tap_test){check->name, *check->test, check->expected, check->cause, check->section};
    }
    if (count_of_tests == 0) {
        fprintf(stderr, "exercise_ch02: no such exercise: %s\n", argv[1]);
        return 2;
    }
    server_choose(argv[2]);
    return tap_run("", tests, count_of_tests);
}
