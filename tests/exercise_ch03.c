/* exercise_ch03.c - checks the exercises of chapter 3.
 *
 * Usage: exercise_ch03 03-1 PROGRAM */
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
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define IDEA "the book, chapter 3, \"The idea\""
#define API "the book, chapter 3, \"The API\""
#define PIECES "the book, chapter 3, \"The server, piece by piece\""
#define EXERCISES "the book, chapter 3, \"Exercises\", and `make hint`"

/* What exercises/02-idle-timeout/flags has the exercise compiled with. */
enum { IDLE_MS = 1100 };

static void let_sleep(const struct server *server)
{
    ck_assert_msg(eventually(server_asleep(server)), "nobody says anything, and the server does not sleep");
}

/* ---- what every solution still has to do ---- */

START_TEST(still_echoes)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    size_t total = (size_t)4 << 20;
    size_t back = client_echo(fd, total, 100000, 1);
    ck_assert_msg(back == total, "%zu of %zu bytes came back right", back, total);
    /* It comes now and not before: 03-2 closes who is silent, and a slow machine takes its time. */
    int other = client_connect(&server);
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

/* ---- 03-1, count what is scanned ---- */

/* What the server is to report, or has reported. */
struct scan {
    unsigned long long wake_ups, scanned, events;
};

/* Notes a wake-up of a server with so many clients inside. */
static void note(struct scan *scan, size_t inside, size_t events)
{
    scan->wake_ups++;
    scan->scanned += inside + 1; /* and the listening socket */
    scan->events += events;
}

/* Lets clients come, one after the other, and say hello: two wake-ups for each. */
static void come_in(const struct server *server, int *fds, size_t count, struct scan *scan)
{
    for (size_t i = 0; i < count; i++) {
        fds[i] = served_client(server);
        note(scan, i, 1);
        note(scan, i + 1, 1);
    }
}

static void assert_echo(int fd)
{
    ck_assert_msg(client_gets_echo(fd, "a message"), "a message got no echo");
}

/* Stops the server and compares what it reports. */
static void assert_reports(struct server *server, const struct scan *expected)
{
    let_sleep(server);
    assert_stops(server);

    const char *errors = server_errors(server);
    size_t length = strlen(errors);
    const char *last = errors;
    for (size_t i = 0; i + 1 < length; i++) {
        if (errors[i] == '\n')
            last = errors + i + 1;
    }
    struct scan scan;
    ck_assert_msg(sscanf(last, "%llu wake-ups, %llu entries scanned, %llu events", &scan.wake_ups,
                         &scan.scanned, &scan.events) == 3,
                  "the last line on stderr should be like \"65 wake-ups, 1234 entries scanned, 70 events\", "
                  "and is: \"%.100s\"",
                  last);
    ck_assert_msg(scan.wake_ups == expected->wake_ups && scan.scanned == expected->scanned &&
                      scan.events == expected->events,
                  "it counted %llu wake-ups, %llu entries scanned, %llu events;\n"
                  "there were %llu wake-ups, %llu entries scanned, %llu events",
                  scan.wake_ups, scan.scanned, scan.events, expected->wake_ups, expected->scanned,
                  expected->events);
}

START_TEST(scan_one_speaks)
{
    enum { CLIENTS = 21, MESSAGES = 50 };
    int fds[CLIENTS];
    struct scan scan = {0};
    struct server server = server_start(NULL);
    come_in(&server, fds, CLIENTS, &scan);
    for (int i = 0; i < MESSAGES; i++) {
        assert_echo(fds[CLIENTS / 2]);
        note(&scan, CLIENTS, 1);
    }
    assert_reports(&server, &scan);
}
END_TEST

START_TEST(scan_many_speak)
{
    enum { CLIENTS = 10 };
    int fds[CLIENTS];
    char back[4];
    struct scan scan = {0};
    struct server server = server_start(NULL);
    come_in(&server, fds, CLIENTS, &scan);
    let_sleep(&server);
    server_pause(&server);
    for (int i = 0; i < CLIENTS; i++)
        client_send(fds[i], "all!", sizeof back);
    kill(server.pid, SIGCONT);
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_msg(client_receive(fds[i], back, sizeof back) == sizeof back, "a message got no echo");
    note(&scan, CLIENTS, CLIENTS);
    assert_reports(&server, &scan);
}
END_TEST

START_TEST(scan_some_leave)
{
    enum { CLIENTS = 10 };
    int fds[CLIENTS];
    struct scan scan = {0};
    struct server server = server_start(NULL);
    come_in(&server, fds, CLIENTS, &scan);
    for (size_t i = 0; i < CLIENTS / 2; i++) {
        client_finish(fds[i]);
        ck_assert_msg(client_ending(fds[i]) == ENDED, "a client finished, and was not closed properly");
        note(&scan, CLIENTS - i, 1);
    }
    for (size_t i = CLIENTS / 2; i < CLIENTS; i++) {
        assert_echo(fds[i]);
        note(&scan, CLIENTS / 2, 1);
    }
    assert_reports(&server, &scan);
}
END_TEST

/* ---- 03-2, idle timeout ---- */

/* Whether the server closes the client, four times as late as it should at most,
 * or later where tests are given more time. */
static bool times_out(int fd)
{
    enum { LIMIT_MS = 4 * IDLE_MS, USUAL_MS = 10000 };
    struct deadline deadline = deadline_start();
    int left_ms = deadline_left_ms(&deadline);
    int limit_ms = left_ms > USUAL_MS ? LIMIT_MS * (left_ms / USUAL_MS) : LIMIT_MS;
    const struct timeval limit = {.tv_sec = limit_ms / 1000, .tv_usec = limit_ms % 1000 * 1000};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0)
        ck_abort_msg("SO_RCVTIMEO: %s", strerror(errno));
    return client_ending(fd) != STILL_OPEN;
}

/* Since when: the checker's clock and the server's may round differently. */
static void assert_in_time(int64_t since, const char *who)
{
    int64_t passed = now_ms() - since;
    ck_assert_msg(passed >= IDLE_MS - 2, "%s was closed after %lld ms; IDLE_MS is %d", who, (long long)passed,
                  IDLE_MS);
}

START_TEST(idle_silent)
{
    struct server server = server_start(NULL);
    int64_t begin = now_ms();
    int fd = client_connect(&server);
    ck_assert_msg(times_out(fd), "a client that said nothing was not closed, and nobody else was there");
    assert_in_time(begin, "a client that said nothing");
    fd = client_connect(&server);
    poll(NULL, 0, IDLE_MS / 2); /* the half of its time; then it begins anew */
    begin = now_ms();
    assert_echo(fd);
    ck_assert_msg(times_out(fd), "a client that said something, and then nothing more, was not closed");
    assert_in_time(begin, "a client that had said something");
    assert_stops(&server);
}
END_TEST

/* Says something every tenth of the timeout, for more than two of them. Returns
 * whether the client stayed; idle: for how long, at most, the server can have
 * seen nothing of it. */
static bool speaks_in_time(int fd, int64_t *idle)
{
    int64_t begin = now_ms();
    int64_t last = begin;
    *idle = 0;
    while (now_ms() - begin < 2 * IDLE_MS + IDLE_MS / 3) {
        poll(NULL, 0, IDLE_MS / 10);
        bool heard = client_gets_echo(fd, "still here");
        int64_t now = now_ms();
        if (now - last > *idle)
            *idle = now - last;
        last = now;
        if (!heard)
            return false;
    }
    return true;
}

START_TEST(idle_active)
{
    struct server server = server_start(NULL);
    for (struct deadline deadline = deadline_start(); !deadline_over(&deadline);) {
        int64_t idle;
        int fd = client_connect(&server);
        int silent = client_connect(&server);
        bool stayed = speaks_in_time(fd, &idle);
        if (stayed || idle < IDLE_MS) {
            ck_assert_msg(stayed, "a client that spoke every %d ms was closed", IDLE_MS / 10);
            char byte;
            ck_assert_msg(
                recv(silent, &byte, 1, MSG_DONTWAIT) == 0,
                "one client spoke every %d ms, for more than two timeouts, and a silent one is still there",
                IDLE_MS / 10);
            assert_stops(&server);
            return;
        }
        close(fd); /* this machine was so busy that the client itself was late: again */
        close(silent);
    }
    tap_skip("this machine is too busy to speak every %d ms", IDLE_MS / 10);
}
END_TEST

START_TEST(idle_moved)
{
    struct server server = server_start(NULL);
    int first = served_client(&server);
    int last = served_client(&server);
    poll(NULL, 0, IDLE_MS * 2 / 3); /* two thirds of its time; then it begins anew */
    int64_t begin = now_ms();
    assert_echo(last);
    client_finish(first);
    ck_assert_msg(client_ending(first) != STILL_OPEN, "a client finished, and was not closed");
    ck_assert_msg(times_out(last), "the first client left, the last one was silent, and was not closed");
    assert_in_time(begin, "the last client, which had taken the place of the first,");
    assert_stops(&server);
}
END_TEST

START_TEST(idle_unread)
{
    struct server server = server_start(NULL);
    int before = server_descriptors(&server);
    client_flood(client_connect(&server), 0);
    ck_assert_msg(eventually(server_descriptors(&server) == before),
                  "a client that sends, and does not read, was not closed");
    served_client(&server);
    assert_stops(&server);
}
END_TEST

START_TEST(idle_sleeps)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fd = served_client(&server);
    uint64_t before = server_calls(&server, "poll");
    ck_assert_msg(times_out(fd), "a client that had said something, and then nothing more, was not closed");
    let_sleep(&server);
    uint64_t calls = server_calls(&server, "poll") - before;
    ck_assert_msg(calls <= 5, "to wait for the end of one client's time poll() was called %llu times",
                  (unsigned long long)calls);
    before = server_calls(&server, "poll");
    poll(NULL, 0, IDLE_MS / 2); /* the time in which nothing happens */
    calls = server_calls(&server, "poll") - before;
    ck_assert_msg(calls == 0, "nobody is there, and poll() was called %llu times in half of IDLE_MS",
                  (unsigned long long)calls);
    assert_stops(&server);
}
END_TEST

START_TEST(idle_logged)
{
    struct server server = server_start(&(struct server_setup){.arguments = {"--verbose"}});
    int leaver = served_client(&server);
    client_finish(leaver);
    ck_assert_msg(client_ending(leaver) == ENDED, "a client finished, and was not closed properly");
    ck_assert_msg(times_out(client_connect(&server)), "a client that said nothing was not closed");
    int stopped = served_client(&server);
    assert_stops(&server);
    close(stopped);

    int count = 0;
    for (const char *at = server_errors(&server); (at = strstr(at, "timed out")) != NULL; at++)
        count++;
    ck_assert_msg(count == 1,
                  "of three clients one was idle for too long, one left, one was there at the stop;\n"
                  "--verbose says \"timed out\" %d times: %.400s",
                  count, server_errors(&server));
}
END_TEST

/* ---- 03-3, chat ---- */

static void assert_hears(int fd, const char *expected, const char *who)
{
    char back[256];
    size_t size = strlen(expected);
    size_t got = client_receive(fd, back, size);
    ck_assert_msg(got == size && memcmp(back, expected, size) == 0,
                  "%s should hear \"%s\", and heard %zu bytes: \"%.*s\"", who, expected, got, (int)got, back);
}

static void say(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

/* An echo server has not to be waited for until the deadline. */
static void assert_no_echo(int speaker, int other)
{
    struct deadline deadline = deadline_start();
    struct pollfd fds[] = {{.fd = other, .events = POLLIN}, {.fd = speaker, .events = POLLIN}};
    poll(fds, 2, deadline_left_ms(&deadline));
    ck_assert_msg(fds[0].revents != 0 || fds[1].revents == 0,
                  "a client said something, and heard it itself; another one, who should, did not");
}

/* Connects count clients, and returns when each is known to be inside: all
 * others have heard of it. */
static void meet(const struct server *server, int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fds[i] = client_connect(server);
        if (i == 0) /* nobody hears it, or perhaps the next one, who is at the door */
            continue;
        char word[32];
        snprintf(word, sizeof word, "welcome, %zu\n", i);
        say(fds[i], word);
        assert_no_echo(fds[i], fds[0]);
        for (size_t j = 0; j < i; j++)
            assert_hears(fds[j], word, "a client that was there already");
    }
}

START_TEST(chat_all_others)
{
    enum { CLIENTS = 6 };
    int fds[CLIENTS];
    struct server server = server_start(NULL);
    meet(&server, fds, CLIENTS);
    for (int i = 0; i < CLIENTS; i++) {
        char word[32];
        snprintf(word, sizeof word, "%d says this\n", i);
        say(fds[i], word);
        for (int j = 0; j < CLIENTS; j++) {
            if (j != i)
                assert_hears(fds[j], word, "each of the others");
        }
    }
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_msg(client_hears_nothing(fds[i], 50),
                      "client %d heard everything already, and then something more: its own words?", i);
    assert_stops(&server);
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_msg(client_ending(fds[i]) == ENDED, "at the stop a client was not closed properly");
}
END_TEST

START_TEST(chat_goodbye)
{
    int fds[3];
    struct server server = server_start(NULL);
    meet(&server, fds, 3);
    say(fds[0], "goodbye");
    client_finish(fds[0]);
    ck_assert_msg(client_ending(fds[0]) != STILL_OPEN, "a client finished, and was not closed");
    assert_hears(fds[1], "goodbye", "one who stays");
    assert_hears(fds[2], "goodbye", "another who stays");
    say(fds[2], "who was that?");
    assert_hears(fds[1], "who was that?", "one who stays");
    assert_stops(&server);
}
END_TEST

/* While the server cannot look, every third client says something, and another
 * third leaves. Then all who stay have to hear all words of the others. */
static void leave_at_once(const struct server *server, void leave(int fd))
{
    enum { CLIENTS = 30 };
    int fds[CLIENTS];
    meet(server, fds, CLIENTS);
    let_sleep(server);
    server_pause(server);
    size_t words = 0;
    for (int i = 0; i < CLIENTS; i++) {
        if (i % 3 == 0) {
            say(fds[i], "0123456789");
            words++;
        } else if (i % 3 == 1) {
            leave(fds[i]);
        }
    }
    kill(server->pid, SIGCONT);
    for (int i = 0; i < CLIENTS; i++) {
        char heard[400];
        size_t expected = 10 * (i % 3 == 0 ? words - 1 : words);
        if (i % 3 == 1)
            continue;
        size_t got = client_receive(fds[i], heard, expected);
        ck_assert_msg(got == expected,
                      "ten clients spoke as ten others left; client %d of thirty heard %zu bytes, not %zu", i,
                      got, expected);
        ck_assert_msg(client_hears_nothing(fds[i], 10),
                      "ten clients spoke as ten others left; client %d of thirty heard more than that", i);
    }
}

START_TEST(chat_resets)
{
    struct server server = server_start(NULL);
    leave_at_once(&server, client_reset);
    assert_stops(&server);
}
END_TEST

START_TEST(chat_leavers)
{
    struct server server = server_start(NULL);
    leave_at_once(&server, client_finish);
    assert_stops(&server);
}
END_TEST

enum { PIECE = 16384 };

/* Says a piece of the pattern, and lets one who listens receive it, so that it
 * never falls behind. Returns whether it came. */
static bool speak(int speaker, int listener, size_t position)
{
    static unsigned char piece[PIECE];
    for (size_t i = 0; i < PIECE; i++)
        piece[i] = pattern(1, position + i);
    client_send(speaker, piece, PIECE);
    return client_receive_pattern(listener, PIECE, 1, position) == PIECE;
}

/* The first of three clients speaks, the second one hears, and the third reads
 * nothing, until its socket takes no more: then the rest of the last piece is
 * in its queue. Returns how much was said. */
static size_t speak_until_owed(const struct server *server, const int *fds)
{
    const size_t most = (size_t)64 << 20;
    uint64_t before = server_failures(server, "send");
    size_t said = 0;
    while (server_failures(server, "send") == before) {
        ck_assert_msg(said < most, "%zu MiB were said to one who does not read, and no send() failed",
                      said >> 20);
        ck_assert_msg(speak(fds[0], fds[1], said), "one does not read, and another does not hear all");
        said += PIECE;
    }
    return said;
}

START_TEST(chat_late_reader)
{
    int fds[3];
    struct server server = server_start(&(struct server_setup){.faults = ""});
    meet(&server, fds, 3);
    size_t said = speak_until_owed(&server, fds);
    size_t heard = client_receive_pattern(fds[2], said, 1, 0);
    ck_assert_msg(heard == said,
                  "of %zu bytes, all but the last %d of which its socket took, a late reader heard %zu, or "
                  "heard them in another order",
                  said, PIECE, heard);
    ck_assert_msg(speak(fds[0], fds[2], said), "one who was late, and is not any more, does not hear all");
    assert_stops(&server);
}
END_TEST

/* Receives what comes of the pattern, from position on, until nothing has come
 * for a while. Returns how many bytes were right. */
static size_t hear_what_waits(int fd, size_t position)
{
    static char waiting[65536];
    size_t heard = 0;
    while (!client_hears_nothing(fd, 100)) {
        ssize_t size = recv(fd, waiting, sizeof waiting, MSG_PEEK | MSG_DONTWAIT);
        if (size <= 0)
            break;
        size_t right = client_receive_pattern(fd, (size_t)size, 1, position + heard);
        heard += right;
        if (right < (size_t)size)
            break;
    }
    return heard;
}

START_TEST(chat_order)
{
    int fds[3];
    struct server server = server_start(&(struct server_setup){.faults = ""});
    meet(&server, fds, 3);
    size_t said = speak_until_owed(&server, fds);
    /* When the server looks again, there is room in the socket and something in
     * the queue, and the speaker has said something more. */
    let_sleep(&server);
    server_pause(&server);
    size_t heard = hear_what_waits(fds[2], 0);
    char piece[1000];
    for (size_t i = 0; i < sizeof piece; i++)
        piece[i] = (char)pattern(1, said + i);
    client_send(fds[0], piece, sizeof piece);
    said += sizeof piece;
    kill(server.pid, SIGCONT);
    heard += client_receive_pattern(fds[2], said - heard, 1, heard);
    ck_assert_msg(heard == said,
                  "something was in the queue of a late reader, and more was said: byte %zu of %zu that it "
                  "heard was lost, or another one",
                  heard + 1, said);
    assert_stops(&server);
}
END_TEST

/* The first one reads nothing, the last one speaks: when the first is dropped,
 * it is the speaker who moves to its place. */
START_TEST(chat_no_reader)
{
    enum { MOST = 48 << 20 };
    int fds[3];
    struct server server = server_start(NULL);
    meet(&server, fds, 3);
    let_sleep(&server);
    int inside = server_descriptors(&server);
    size_t before = server_resident(&server);
    size_t largest = before;
    size_t said = 0;
    while (said < MOST && server_descriptors(&server) == inside) {
        ck_assert_msg(speak(fds[2], fds[1], said),
                      "one does not read, and after %zu KiB another does not hear all any more", said >> 10);
        said += PIECE;
        size_t now = server_resident(&server);
        largest = now > largest ? now : largest;
    }
    ck_assert_msg(sanitized() || largest < before + (1U << 20),
                  "one who does not read made the server grow by %zu KiB", (largest - before) / 1024);
    ck_assert_msg(said < MOST, "%zu MiB were said to one who does not read, and it was not dropped",
                  said >> 20);
    ck_assert_msg(speak(fds[2], fds[1], said), "one was dropped, and another does not hear all any more");
    ck_assert_msg(client_hears_nothing(fds[2], 50),
                  "one was dropped while another spoke, and the speaker heard its own words");
    assert_stops(&server);
}
END_TEST

START_TEST(chat_short_sends)
{
    int fds[3];
    struct server server = server_start(&(struct server_setup){.faults = "send:*=short"});
    meet(&server, fds, 3);
    for (size_t said = 0; said < 40 * (size_t)PIECE; said += PIECE) {
        ck_assert_msg(speak(fds[0], fds[1], said),
                      "each send() took less than it could, and a client did not "
                      "hear all, or in another order");
        ck_assert_msg(
            client_receive_pattern(fds[2], PIECE, 1, said) == PIECE,
            "each send() took less than it could, and a client did not hear all, or in another order");
    }
    assert_stops(&server);
}
END_TEST

START_TEST(chat_sleeps)
{
    int fds[3];
    struct server server = server_start(&(struct server_setup){.faults = ""});
    meet(&server, fds, 3);
    size_t said = speak_until_owed(&server, fds);
    for (int i = 0; i < 2; i++) {
        uint64_t calls = server_calls(&server, "poll");
        poll(NULL, 0, 500); /* the half second in which nothing happens */
        calls = server_calls(&server, "poll") - calls;
        ck_assert_msg(calls < 50, "nobody speaks, %s, and poll() was called %llu times in half a second",
                      i == 0 ? "one does not read" : "nobody is owed anything", (unsigned long long)calls);
        ck_assert_msg(client_receive_pattern(fds[2], i == 0 ? said : 0, 1, 0) == (i == 0 ? said : 0),
                      "a late reader does not hear all");
    }
    assert_stops(&server);
}
END_TEST

START_TEST(chat_stop)
{
    int fds[3];
    struct server server = server_start(&(struct server_setup){.faults = ""});
    meet(&server, fds, 3);
    size_t said = speak_until_owed(&server, fds);
    kill(server.pid, SIGTERM);
    ck_assert_msg(client_ending(fds[1]) == ENDED,
                  "at the stop one who is owed nothing was not closed properly");
    size_t heard = client_receive_pattern(fds[2], said, 1, 0);
    ck_assert_msg(heard == said, "of %zu bytes said before the stop a late reader heard %zu", said, heard);
    ck_assert_msg(client_ending(fds[2]) == ENDED,
                  "the late reader has heard all, and was not closed properly");
    int status = server_wait(&server);
    ck_assert_msg(status == 0, "at SIGTERM the server ended with status %d", status);
}
END_TEST

/* ---- the tables ---- */

struct check {
    const char *exercise;
    const TTest *const *test;
    const char *name, *expected, *cause, *section;
};

static const struct check checks[] = {
    {"03-1", &scan_one_speaks, "one speaks among silent ones: the counts are exact",
     "A message is one wake-up and one event; it costs an entry for each client, and one for the listening "
     "socket.",
     "only the marked entries are counted, or the listening socket's is not, or a call that a signal "
     "interrupted is",
     API},
    {"03-1", &scan_many_speak, "ten speak at the same moment: the counts are exact",
     "Ten messages that wait already are one wake-up with ten events.",
     "each wake-up is counted as one event, or each event as a wake-up", API},
    {"03-1", &scan_some_leave, "half of the clients leave: the counts are exact",
     "A FIN is an event; an entry that is gone is not scanned any more.",
     "the entries are counted before or after others than those that poll() was given", PIECES},
    {"03-1", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte.",
     "something else than counting was changed", PIECES},
    {"03-1", &still_stops, "the stop is as before", "Status 0, and a FIN to the client.",
     "something else than counting was changed", PIECES},

    {"03-2", &idle_silent, "a silent client is closed when its time is over, and not before",
     "It is closed IDLE_MS after its last word, or after its coming, though nobody else says anything.",
     "poll() sleeps until somebody says something; or the time runs from the coming, not from the last word",
     API},
    {"03-2", &idle_active, "an active client stays, and a silent one beside it is closed",
     "Who speaks in time stays; that poll() is woken all the time does not save who is silent.",
     "the timeout is taken for over only if poll() returns 0, or a client's time does not begin anew", API},
    {"03-2", &idle_moved, "who takes another's place in the array keeps its own time",
     "It is closed IDLE_MS after its own last word.",
     "drop() moves the last client to the free place, and its time stays where it was", PIECES},
    {"03-2", &idle_unread, "a client that does not read is closed",
     "What it is owed keeps memory: it is idle, too.", "only those who are owed nothing are looked at",
     PIECES},
    {"03-2", &idle_sleeps, "poll() sleeps until a client's time is over, without a tick",
     "One silent client, one wake-up; without clients none.",
     "poll() is given a fixed limit, or a limit though nobody is there", API},
    {"03-2", &idle_logged, "--verbose says who timed out, and nobody else",
     "One client of three timed out: one line.", "each end is logged as a timeout, or none is", EXERCISES},
    {"03-2", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte.",
     "something else than the timeout was changed", PIECES},
    {"03-2", &still_stops, "the stop is as before", "Status 0, and a FIN to the client.",
     "the stop waits until clients have timed out", PIECES},

    {"03-3", &chat_all_others, "what one says goes to all others, and not to itself",
     "Six clients speak in turn; each hears the five others, in order.",
     "what was received is echoed; or the loop over the others leaves one out, or not the speaker",
     EXERCISES},
    {"03-3", &chat_goodbye, "what was said before a FIN is still told",
     "The others hear the goodbye, and go on.",
     "a client that has ended is closed before what it sent has been received", PIECES},
    {"03-3", &chat_leavers, "all who stay hear everything while others leave",
     "Ten speak, ten send a FIN at the same moment, and the twenty who stay miss nothing.",
     "a client is dropped while a loop walks over the array: the last one moves, and is skipped", PIECES},
    {"03-3", &chat_resets, "all who stay hear everything while others are reset",
     "Ten speak, ten are reset at the same moment, and the twenty who stay miss nothing.",
     "send() fails, the client is dropped inside the loop that tells all, and the last one, which moves to "
     "its "
     "place, is skipped; or the speaker moves",
     PIECES},
    {"03-3", &chat_late_reader, "one who is slow to read for a while misses nothing",
     "What the socket does not take waits in the queue, and comes in order.",
     "the rest of a short send is lost, or nobody waits for POLLOUT",
     "the book, chapter 2, \"The server, piece by piece\""},
    {"03-3", &chat_order, "what is said comes after what is in the queue",
     "Somebody is owed something, there is room in its socket, and more is said: all is heard in order.",
     "send() is called although the queue is not empty, and overtakes it", EXERCISES},
    {"03-3", &chat_no_reader, "one who does not read is dropped, and costs no memory",
     "Its queue overflows, it is dropped, and the others hear everything.",
     "the queue has no bound; or the server waits, or stops to receive, for one who does not read", IDEA},
    {"03-3", &chat_short_sends, "a send that takes less than it could loses nothing",
     "All is heard, in order.", "what a short send left is lost, or sent twice",
     "the book, chapter 2, \"The server, piece by piece\""},
    {"03-3", &chat_sleeps, "the server sleeps while nobody speaks",
     "poll() does not return, whether somebody is owed something or nobody is.",
     "POLLOUT is watched for while nothing is owed", IDEA},
    {"03-3", &chat_stop, "what is in the queues at a stop is still sent",
     "Who is owed nothing is closed at once, and who is owed something after it has been sent.",
     "all are closed at once, or all wait for the slowest", PIECES},
};

int main(int argc, char **argv)
{
    struct tap_test tests[sizeof checks / sizeof *checks];
    size_t count_of_tests = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: exercise_ch03 03-1 PROGRAM\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const struct check *check = &checks[i];
        if (strcmp(check->exercise, argv[1]) == 0)
            tests[count_of_tests++] =
                (struct tap_test){check->name, *check->test, check->expected, check->cause, check->section};
    }
    if (count_of_tests == 0) {
        fprintf(stderr, "exercise_ch03: no such exercise: %s\n", argv[1]);
        return 2;
    }
    server_choose(argv[2]);
    return tap_run("", tests, count_of_tests);
}
