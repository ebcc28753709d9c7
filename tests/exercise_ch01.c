/* exercise_ch01.c - checks the exercises of chapter 1.
 *
 * Usage: exercise_ch01 01-1 PROGRAM
 * Processes are watched in Linux' /proc. */
#define _GNU_SOURCE /* prctl(), and the POSIX functions beside it */

#include "harness.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IDEA "the book, chapter 1, \"The idea\""
#define API "the book, chapter 1, \"The API\""
#define PIECES "the book, chapter 1, \"The server, piece by piece\""
#define EXERCISES "the book, chapter 1, \"Exercises\", and `make hint`"

/* What exercises/01-read-timeout/flags has the exercise compiled with. */
enum { TIMEOUT_MS = 1100 };

/* What exercise 01-3 asks for. */
enum { WORKERS = 4, QUEUE = 16 };

/* ---- the server and its children ---- */

enum { MOST_CHILDREN = 64 };

/* The children of a process, those that have ended and were not waited for included. */
struct children {
    pid_t pids[MOST_CHILDREN];
    int count;
    int zombies;
    int stopped; /* by SIGSTOP */
};

static void add_child(struct children *children, const char *number, pid_t parent)
{
    char path[300];
    char text[512];
    char state;
    int its_parent;

    snprintf(path, sizeof path, "/proc/%s/stat", number);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return; /* ended meanwhile */
    const char *after_name = fgets(text, sizeof text, file) != NULL ? strrchr(text, ')') : NULL;
    if (after_name != NULL && sscanf(after_name, ") %c %d", &state, &its_parent) == 2 &&
        its_parent == (int)parent && children->count < MOST_CHILDREN) {
        children->pids[children->count++] = (pid_t)atoi(number);
        children->zombies += state == 'Z';
        children->stopped += state == 'T';
    }
    fclose(file);
}

static struct children children_of(const struct server *server)
{
    struct children children = {.count = 0};
    DIR *processes = opendir("/proc");
    if (processes == NULL)
        tap_skip("/proc: %s (this test watches processes there)", strerror(errno));
    for (const struct dirent *entry; (entry = readdir(processes)) != NULL;) {
        if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
            add_child(&children, entry->d_name, server->pid);
    }
    closedir(processes);
    return children;
}

/* A child, for the functions that watch a server. */
static struct server child_as_server(const struct server *server, pid_t pid)
{
    struct server child = *server;
    child.pid = pid;
    return child;
}

/* Processor time of the server and its children, in nanoseconds. */
static uint64_t cpu_of_all(const struct server *server)
{
    struct children children = children_of(server);
    uint64_t used = server_cpu_ns(server);
    for (int i = 0; i < children.count; i++) {
        struct server child = child_as_server(server, children.pids[i]);
        used += server_cpu_ns(&child);
    }
    return used;
}

/* Half a second in which nothing happens: this is what is measured, and waits for nothing. */
static void assert_rests(const struct server *server, const char *when)
{
    uint64_t before = cpu_of_all(server);
    int64_t begin = now_ms();
    poll(NULL, 0, 500);
    uint64_t used = (cpu_of_all(server) - before) / 1000000;
    uint64_t passed = (uint64_t)(now_ms() - begin);
    ck_assert_msg(used * 10 < passed, "%s it used %llu ms of the processor in %llu ms", when,
                  (unsigned long long)used, (unsigned long long)passed);
}

/* ---- what every solution still has to do ---- */

START_TEST(still_echoes)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    size_t total = (size_t)4 << 20;
    size_t back = client_echo(fd, total, 100000, 1);
    ck_assert_msg(back == total, "%zu of %zu bytes came back right", back, total);
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    assert_stops(&server);
}
END_TEST

/* ---- 01-1, read timeout ---- */

/* Whether the server closes a silent client, four times as late as it should at
 * most, or later where tests are given more time. */
static bool times_out(int fd)
{
    enum { LIMIT_MS = 4 * TIMEOUT_MS, USUAL_MS = 10000 };
    struct deadline deadline = deadline_start();
    int left_ms = deadline_left_ms(&deadline);
    int limit_ms = left_ms > USUAL_MS ? LIMIT_MS * (left_ms / USUAL_MS) : LIMIT_MS;
    const struct timeval limit = {.tv_sec = limit_ms / 1000, .tv_usec = limit_ms % 1000 * 1000};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0)
        ck_abort_msg("SO_RCVTIMEO: %s", strerror(errno));
    return client_ending(fd) != STILL_OPEN;
}

START_TEST(timeout_silent)
{
    struct server server = server_start(NULL);
    int64_t begin = now_ms();
    int fd = client_connect(&server);
    int after_words = served_client(&server);
    ck_assert_msg(times_out(fd), "a client that said nothing was not closed");
    int64_t passed = now_ms() - begin;
    /* The kernel counts in ticks of up to 10 ms. */
    ck_assert_msg(passed >= TIMEOUT_MS - 20, "it was closed after %lld ms; TIMEOUT_MS is %d",
                  (long long)passed, TIMEOUT_MS);
    ck_assert_msg(times_out(after_words),
                  "a client that said something, and then nothing more, was not closed");
    assert_stops(&server);
}
END_TEST

/* Says something every third of the timeout, for more than two of them. Returns
 * whether the client stayed; silence: how long, at most, the server can have waited. */
static bool speaks_in_time(int fd, int64_t *silence)
{
    int64_t begin = now_ms();
    int64_t last = begin;
    *silence = 0;
    while (now_ms() - begin < 2 * TIMEOUT_MS + TIMEOUT_MS / 3) {
        poll(NULL, 0, TIMEOUT_MS / 3);
        if (!client_gets_echo(fd, "still here"))
            return false;
        int64_t now = now_ms();
        if (now - last > *silence)
            *silence = now - last;
        last = now;
    }
    return true;
}

START_TEST(timeout_active)
{
    struct server server = server_start(NULL);
    int silent = client_connect(&server); /* closed meanwhile: that is nothing to the other */
    for (struct deadline deadline = deadline_start(); !deadline_over(&deadline);) {
        int64_t silence;
        int fd = client_connect(&server);
        bool stayed = speaks_in_time(fd, &silence);
        if (stayed || silence < TIMEOUT_MS) {
            ck_assert_msg(stayed, "a client that spoke every %d ms was closed", TIMEOUT_MS / 3);
            ck_assert_msg(times_out(silent), "one client spoke, and a silent one stayed");
            assert_stops(&server);
            return;
        }
        close(fd); /* this machine was so busy that the client itself was late: again */
    }
    tap_skip("this machine is too busy to speak every %d ms", TIMEOUT_MS / 3);
}
END_TEST

START_TEST(timeout_logged)
{
    struct server server = server_start(&(struct server_setup){.arguments = {"--verbose"}});
    int leaver = served_client(&server);
    client_finish(leaver);
    ck_assert_msg(client_ending(leaver) == ENDED, "a client finished, and was not closed properly");
    int silent = client_connect(&server);
    ck_assert_msg(times_out(silent), "a client that said nothing was not closed");
    int stopped = served_client(&server);
    assert_stops(&server);
    close(stopped);

    int count = 0;
    for (const char *at = server_errors(&server); (at = strstr(at, "timed out")) != NULL; at++)
        count++;
    ck_assert_msg(count == 1,
                  "of three clients one was silent for too long, one left, one was there at the stop;\n"
                  "--verbose says \"timed out\" %d times: %.400s",
                  count, server_errors(&server));
}
END_TEST

START_TEST(timeout_sleeps)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fd = client_connect(&server);
    ck_assert_msg(times_out(fd), "a client that said nothing was not closed");
    unsigned long long calls = 0;
    static const char *const functions[] = {"recv",  "recvfrom", "read",     "poll",
                                            "ppoll", "select",   "nanosleep"};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        calls += server_calls(&server, functions[i]);
    ck_assert_msg(calls <= 10, "to wait for one silent client it made %llu calls", calls);
    assert_stops(&server);
}
END_TEST

START_TEST(timeout_leaves_nothing)
{
    enum { CLIENTS = 20 };
    int clients[CLIENTS];
    struct server server = server_start(NULL);
    int descriptors = server_descriptors(&server);
    int threads = server_threads(&server);
    client_connect_many(&server, clients, CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_msg(times_out(clients[i]), "silent client %d of %d was not closed", i + 1, CLIENTS);
    ck_assert_msg(eventually(server_descriptors(&server) == descriptors),
                  "%d silent clients were closed, and %d descriptors are open, not %d", CLIENTS,
                  server_descriptors(&server), descriptors);
    /* A sanitizer makes a thread of its own with the first one. */
    ck_assert_msg(eventually(server_threads(&server) <= threads + sanitized()),
                  "%d silent clients were closed, and %d threads are there, not %d", CLIENTS,
                  server_threads(&server), threads);
    assert_stops(&server);
}
END_TEST

START_TEST(timeout_stop)
{
    struct server server = server_start(NULL);
    int fd = served_client(&server);
    assert_stops(&server);
    ck_assert_msg(client_ending(fd) != STILL_OPEN, "the server has ended, and a client was not told");
}
END_TEST

/* ---- 01-2, fork per client ---- */

static void assert_children(const struct server *server, int count, const char *when)
{
    ck_assert_msg(eventually(children_of(server).count == count),
                  "%s the server has %d children, %d of them ended and not waited for; there should be %d",
                  when, children_of(server).count, children_of(server).zombies, count);
}

START_TEST(fork_one_each)
{
    struct server server = server_start(NULL);
    int threads = server_threads(&server);
    for (int i = 1; i <= 5; i++) {
        served_client(&server); /* and is silent from now on */
        ck_assert_msg(children_of(&server).count == i,
                      "clients inside, silent since their first word: %d; children: %d", i,
                      children_of(&server).count);
    }
    ck_assert_int_eq(server_threads(&server), threads);
    assert_stops(&server);
}
END_TEST

START_TEST(fork_isolated)
{
    struct server server = server_start(NULL);
    int silent = client_connect(&server);
    int unread = client_connect(&server);
    client_flood(unread, 0);
    for (int i = 0; i < 5; i++)
        ck_assert_msg(client_gets_echo(client_connect(&server), "me too"),
                      "one client is silent, one reads nothing, and another gets no echo");
    ck_assert_msg(client_gets_echo(silent, "at last"), "the silent client, now speaking, got no echo");
}
END_TEST

START_TEST(fork_reaped)
{
    enum { CLIENTS = 40 };
    int clients[CLIENTS];
    struct server server = server_start(NULL);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = served_client(&server);
    assert_children(&server, CLIENTS, "with 40 clients");
    /* All end while the parent cannot look: then one SIGCHLD stands for many. */
    siginfo_t stopped;
    kill(server.pid, SIGSTOP);
    ck_assert_int_eq(waitid(P_PID, (id_t)server.pid, &stopped, WSTOPPED), 0);
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
    bool ended = eventually(children_of(&server).zombies == CLIENTS);
    int zombies = children_of(&server).zombies;
    kill(server.pid, SIGCONT);
    ck_assert_msg(ended || zombies == 0, "%d clients have left, and only %d children have ended", CLIENTS,
                  zombies);
    assert_children(&server, 0, "after the last client has left, and none has come,");
    ck_assert_msg(server_errors(&server)[0] == '\0', "the children have ended, and on stderr is: \"%.200s\"",
                  server_errors(&server));
    served_client(&server);
    assert_stops(&server);
}
END_TEST

START_TEST(fork_parent_closes)
{
    struct server server = server_start(NULL);
    int before = server_descriptors(&server);
    int fd = served_client(&server);
    for (int i = 0; i < 9; i++)
        served_client(&server);
    ck_assert_msg(eventually(server_descriptors(&server) == before),
                  "with 10 clients inside, the parent has %d descriptors, and %d without any",
                  server_descriptors(&server), before);
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED,
                  "a client finished, and did not see the end: somebody still holds its connection");
    assert_stops(&server);
}
END_TEST

START_TEST(fork_child_closes)
{
    struct server server = server_start(NULL);
    int own = server_descriptors(&server); /* three standard streams and the listening socket */
    for (int i = 0; i < 5; i++)
        served_client(&server);
    struct children children = children_of(&server);
    ck_assert_msg(children.count > 0, "the server has no children");
    for (int i = 0; i < children.count; i++) {
        struct server child = child_as_server(&server, children.pids[i]);
        ck_assert_msg(server_descriptors(&child) == own,
                      "a child has %d descriptors: three standard streams and its client make %d",
                      server_descriptors(&child), own);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(fork_killed)
{
    struct server server = server_start(NULL);
    int first = served_client(&server);
    struct children children = children_of(&server);
    ck_assert_msg(children.count == 1, "one client is served, and the number of children is %d",
                  children.count);
    int second = served_client(&server);

    kill(children.pids[0], SIGKILL);
    ck_assert_msg(client_ending(first) != STILL_OPEN, "its process was killed, and the client still waits");
    ck_assert_msg(client_gets_echo(second, "still here"), "one child was killed, and another client suffers");
    assert_children(&server, 1, "after one of two children was killed,");
    served_client(&server);
    assert_stops(&server);
}
END_TEST

START_TEST(fork_fails)
{
    struct server server = server_start(&(struct server_setup){.faults = "fork:2=EAGAIN"});
    int descriptors = server_descriptors(&server);
    int first = served_client(&server);
    ck_assert_msg(server_calls(&server, "fork") == 1, "for the first client fork() was called %llu times",
                  (unsigned long long)server_calls(&server, "fork"));
    int second = client_connect(&server);
    ck_assert_msg(client_ending(second) != STILL_OPEN,
                  "fork() failed for the second client, and its connection is still open");
    ck_assert_uint_eq(server_failures(&server, "fork"), 1);
    ck_assert_msg(client_gets_echo(first, "still here"), "the first client is not served any more");
    served_client(&server);
    ck_assert_msg(eventually(server_descriptors(&server) == descriptors),
                  "fork() has failed once, and the parent has %d descriptors, not %d",
                  server_descriptors(&server), descriptors);
    /* No stop here: kill(-1, SIGTERM), from who takes -1 for a child, would end all that the user runs. */
}
END_TEST

START_TEST(fork_rests)
{
    struct server server = server_start(NULL);
    close(served_client(&server)); /* whose end interrupts the parent */
    served_client(&server);
    served_client(&server);
    assert_children(&server, 2, "with two silent clients");
    assert_rests(&server, "with two silent clients");
    assert_stops(&server);
}
END_TEST

START_TEST(fork_stop)
{
    enum { SILENT = 10 };
    int silent[SILENT];
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* whom the server leaves behind becomes ours */
    struct server server = server_start(NULL);
    for (int i = 0; i < SILENT; i++)
        silent[i] = served_client(&server);
    int unread = client_connect(&server);
    client_flood(unread, 0); /* this one is granted a few seconds */
    assert_stops(&server);

    /* Children of ours now are the children of the server that it has not waited for. */
    int status;
    pid_t left = waitpid(-1, &status, WNOHANG);
    ck_assert_msg(left < 0, "the server has ended, and a child of it %s",
                  left == 0 ? "still runs" : "was not waited for");
    for (int i = 0; i < SILENT; i++)
        ck_assert_msg(client_ending(silent[i]) == ENDED, "silent client %d was not closed properly", i + 1);
}
END_TEST

/* Whether a signal has reached a child that is stopped: it waits there, or the child has ended. */
static bool is_signalled(const struct server *server, pid_t pid)
{
    char path[64];
    char line[256];
    unsigned long long waiting = 0;
    if (children_of(server).count == 0 || children_of(server).zombies != 0)
        return true;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return true;
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "ShdPnd: %llx", &waiting);
    fclose(file);
    return waiting != 0;
}

START_TEST(fork_stop_echoes)
{
    enum { SIZE = 10000 };
    unsigned char sent[SIZE];
    unsigned char back[SIZE];
    struct server server = server_start(NULL);
    int fd = served_client(&server);
    struct children children = children_of(&server);
    ck_assert_msg(children.count == 1, "one client is served, and the number of children is %d",
                  children.count);
    for (size_t i = 0; i < SIZE; i++)
        sent[i] = pattern(5, i);
    kill(children.pids[0], SIGSTOP); /* so that the data is there before the stop is */
    ck_assert_msg(eventually(children_of(&server).stopped == 1), "the child could not be stopped");
    client_send(fd, sent, SIZE);
    kill(server.pid, SIGTERM);
    bool signalled = eventually(is_signalled(&server, children.pids[0]));
    kill(children.pids[0], SIGCONT);
    ck_assert_msg(signalled, "the parent was told to stop, and no signal has reached its child");
    size_t got = client_receive(fd, back, SIZE);
    ck_assert_msg(got == SIZE && memcmp(sent, back, SIZE) == 0,
                  "%d bytes had come before the stop, and %zu were echoed", SIZE, got);
    ck_assert_msg(client_ending(fd) == ENDED, "after its echo the client was not closed properly");
    ck_assert_int_eq(server_wait(&server), 0);
}
END_TEST

/* ---- 01-3, pool ---- */

/* A sanitizer makes a thread of its own. */
static bool has_all_threads(const struct server *server)
{
    int threads = server_threads(server);
    return threads == 1 + WORKERS || (sanitized() && threads == 1 + WORKERS + 1);
}

START_TEST(pool_threads)
{
    enum { CLIENTS = WORKERS + QUEUE };
    struct server server = server_start(NULL);
    ck_assert_msg(eventually(has_all_threads(&server)),
                  "without a client the number of threads is %d; the main one and %d workers make %d",
                  server_threads(&server), WORKERS, 1 + WORKERS);
    int clients[CLIENTS];
    for (int i = 0; i < WORKERS; i++)
        clients[i] = served_client(&server);
    client_connect_many(&server, clients + WORKERS, CLIENTS - WORKERS);
    ck_assert_msg(has_all_threads(&server), "with %d clients the number of threads is %d", CLIENTS,
                  server_threads(&server));
    for (int i = 0; i < CLIENTS; i++) {
        ck_assert_msg(client_gets_echo(clients[i], "my turn"), "client %d of %d got no echo", i + 1, CLIENTS);
        close(clients[i]);
    }
    ck_assert_msg(has_all_threads(&server), "after %d clients the number of threads is %d", CLIENTS,
                  server_threads(&server));
    assert_stops(&server);
}
END_TEST

START_TEST(pool_isolated)
{
    struct server server = server_start(NULL);
    served_client(&server);
    served_client(&server); /* two are silent */
    int unread = client_connect(&server);
    client_flood(unread, 0);
    for (int i = 0; i < 5; i++) {
        int fd = client_connect(&server);
        ck_assert_msg(client_gets_echo(fd, "me too"),
                      "two clients are silent, one reads nothing, and the last of %d workers serves nobody",
                      WORKERS);
        close(fd);
    }
}
END_TEST

START_TEST(pool_order)
{
    enum { WAITING = 6 };
    int inside[WORKERS];
    int waiting[WAITING];
    struct server server = server_start(NULL);
    for (int i = 0; i < WORKERS; i++)
        inside[i] = served_client(&server);
    for (int i = 0; i < WAITING; i++) {
        waiting[i] = client_connect(&server);
        client_send(waiting[i], "x", 1);
    }
    for (int i = 0; i < WAITING; i++)
        ck_assert_msg(client_hears_nothing(waiting[i], i == 0 ? 100 : 0),
                      "with %d clients inside, another is served: there are more than %d workers", WORKERS,
                      WORKERS);

    close(inside[0]); /* so one worker is free, and takes one after the other */
    for (int i = 0; i < WAITING; i++) {
        char back;
        struct pollfd answers[WAITING];
        for (int k = 0; k < WAITING; k++)
            answers[k] = (struct pollfd){.fd = k < i ? -1 : waiting[k], .events = POLLIN};
        struct deadline deadline = deadline_start();
        ck_assert_msg(poll(answers, WAITING, deadline_left_ms(&deadline)) > 0,
                      "a worker is free, and none of %d who wait is served", WAITING - i);
        for (int k = i + 1; k < WAITING; k++)
            ck_assert_msg(answers[k].revents == 0,
                          "the one who came as number %d of those who wait was served before number %d",
                          k + 1, i + 1);
        ck_assert_msg(client_receive(waiting[i], &back, 1) == 1, "client %d of those who wait got no echo",
                      i + 1);
        close(waiting[i]);
    }
    assert_stops(&server);
}
END_TEST

/* Fills the workers, then the queue, then brings CROWD more. Returns once the
 * queue is full, with the descriptors that the server has without clients. */
enum { CROWD = 20, ALL = WORKERS + QUEUE + CROWD };

static int fill(const struct server *server, int clients[ALL])
{
    int own = server_descriptors(server);
    for (int i = 0; i < WORKERS; i++)
        clients[i] = served_client(server);
    client_connect_many(server, clients + WORKERS, ALL - WORKERS);
    ck_assert_msg(
        eventually(server_descriptors(server) >= own + WORKERS + QUEUE),
        "%d clients have come, and the server has accepted only %d of them: %d workers and a queue\n"
        "of %d have room for %d",
        ALL, server_descriptors(server) - own, WORKERS, QUEUE, WORKERS + QUEUE);
    return own;
}

START_TEST(pool_bound)
{
    int clients[ALL];
    struct server server = server_start(NULL);
    int own = fill(&server, clients);
    for (int i = 0; i < 300; i++) { /* a third of a second: an unbounded queue needs much less */
        int accepted = server_descriptors(&server) - own;
        ck_assert_msg(
            accepted <= WORKERS + QUEUE + 1,
            "%d clients are inside: %d workers, a queue of %d, and at most one in the hands of the\n"
            "main thread make %d",
            accepted, WORKERS, QUEUE, WORKERS + QUEUE + 1);
        nap();
    }
    assert_rests(&server, "with a full queue");
    for (int i = 0; i < ALL; i++) {
        ck_assert_msg(client_gets_echo(clients[i], "my turn"), "client %d of %d was never served", i + 1,
                      ALL);
        close(clients[i]);
    }
    ck_assert_msg(eventually(server_descriptors(&server) == own),
                  "all clients have left, and the server has %d descriptors, not %d",
                  server_descriptors(&server), own);
    served_client(&server);
    assert_stops(&server);
}
END_TEST

START_TEST(pool_rests)
{
    struct server server = server_start(NULL);
    close(served_client(&server));
    assert_rests(&server, "without a client");
    served_client(&server);
    assert_rests(&server, "with one silent client");
    assert_stops(&server);
}
END_TEST

START_TEST(pool_survives)
{
    struct server server = server_start(NULL);
    for (int i = 0; i < 10 * WORKERS; i++) {
        int fd = i % 2 == 0 ? served_client(&server) : client_connect(&server);
        client_reset(fd);
    }
    for (int i = 0; i < WORKERS; i++) /* all stay */
        ck_assert_msg(client_gets_echo(client_connect(&server), "hello"),
                      "many clients have reset their connections, and of %d workers only %d still serve",
                      WORKERS, i);
    assert_stops(&server);
}
END_TEST

START_TEST(pool_stop_idle)
{
    struct server server = server_start(NULL);
    close(served_client(&server));
    assert_stops(&server);
}
END_TEST

START_TEST(pool_stop_full)
{
    int clients[ALL];
    struct server server = server_start(NULL);
    fill(&server, clients);
    assert_stops(&server);
    ck_assert_msg(client_ending(clients[0]) == ENDED, "a silent client was not closed properly");
}
END_TEST

START_TEST(pool_stop_drains)
{
    enum { WAITING = 8 };
    int waiting[WAITING];
    struct server server = server_start(NULL);
    int own = server_descriptors(&server);
    for (int i = 0; i < WORKERS; i++)
        served_client(&server);
    for (int i = 0; i < WAITING; i++) {
        waiting[i] = client_connect(&server);
        client_send(waiting[i], "waiting", 7);
    }
    ck_assert_msg(eventually(server_descriptors(&server) == own + WORKERS + WAITING),
                  "%d clients wait, and the server has accepted %d of them", WAITING,
                  server_descriptors(&server) - own - WORKERS);
    assert_stops(&server);
    for (int i = 0; i < WAITING; i++) {
        char back[7];
        ck_assert_msg(client_receive(waiting[i], back, sizeof back) == sizeof back &&
                          memcmp(back, "waiting", sizeof back) == 0,
                      "client %d of the queue had sent something before the stop, and it was not echoed",
                      i + 1);
        ck_assert_msg(client_ending(waiting[i]) == ENDED, "client %d of the queue was not closed properly",
                      i + 1);
    }
}
END_TEST

/* ---- the tables ---- */

struct check {
    const char *exercise;
    const TTest *const *test;
    const char *name, *expected, *cause, *section;
};

static const struct check checks[] = {
    {"01-1", &timeout_silent, "a client that says nothing is closed after TIMEOUT_MS",
     "recv() ends after TIMEOUT_MS (here 1100), not earlier and not much later, and the connection is\n"
     "closed. So too for a client that has said something before.",
     "Never closed: SO_RCVTIMEO is not set, or setsockopt() refused it (a tv_usec of a million or more:\n"
     "EDOM), or both numbers are 0, which means no limit. Too early: the part of a second is left out. Too "
     "late: a\n"
     "number of your own instead of TIMEOUT_MS.",
     API},
    {"01-1", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte, and then the end.",
     "EAGAIN or a short recv() is taken for the end.", PIECES},
    {"01-1", &timeout_active, "a client that speaks in time stays",
     "One who speaks every 366 ms is still there after 2.5 s, and a silent one beside it is closed.",
     "The time is counted from the start of the connection, not from the last byte; or one clock, or\n"
     "one thread that waits, serves for all clients.",
     EXERCISES},
    {"01-1", &timeout_logged, "\"timed out\" is said of silent clients only",
     "With --verbose, net_log(fd, \"timed out\", 0) for the client that was silent for too long; not for "
     "the\n"
     "one that sent its FIN, nor for the one that was connected at the stop.",
     "recv() returns -1 with EAGAIN when the time is over, and 0 at the end of the stream; in a stop it is\n"
     "told not to wait (MSG_DONTWAIT), and EAGAIN then means: nothing more has come.",
     PIECES},
    {"01-1", &timeout_sleeps, "waiting for a silent client takes no more than a few calls",
     "The thread is blocked in recv() until the time is over: one call, or two.",
     "A loop asks again and again, with MSG_DONTWAIT or a short pause, and looks at the clock.", IDEA},
    {"01-1", &timeout_leaves_nothing, "clients that were closed leave no descriptor and no thread behind",
     "After 20 clients have timed out, the server has what it had before.",
     "The way out for a client that timed out passes by close(), or by the end of the thread.", PIECES},
    {"01-1", &timeout_stop, "the stop is as before", "Status 0, and a silent client is told.",
     "EINTR no longer ends the wait: the thread goes back into recv() and does not look at net_stopping().",
     PIECES},

    {"01-2", &fork_one_each, "each client has a process of its own",
     "Five clients, five children, and no thread more than before.",
     "fork() is not called, or the child goes on into the parent's loop and accepts clients itself: it must\n"
     "end with _exit() when its client has gone.",
     EXERCISES},
    {"01-2", &fork_isolated, "a client that is silent, or does not read, delays nobody",
     "The process of that client waits; the parent accepts, and the other children serve.",
     "The parent waits for a child (waitpid without WNOHANG) before it accepts the next client.", IDEA},
    {"01-2", &fork_reaped, "children that have ended are waited for, though nobody comes",
     "40 children end at once, and soon none is left, not even as a zombie.",
     "Zombies are there until somebody calls waitpid(). One SIGCHLD may stand for many children, so call\n"
     "it in a loop, with WNOHANG; and call it from the handler, as accept() may not return for hours. And\n"
     "if a message is on stderr: a child that goes on after its client, instead of _exit(), comes back into\n"
     "the parent's loop.",
     EXERCISES},
    {"01-2", &fork_parent_closes, "the parent keeps no client's descriptor",
     "As many descriptors with clients as without; and a client that finishes sees the end.",
     "After fork() both processes have the connection open, and FIN is sent when the last one closes it.",
     EXERCISES},
    {"01-2", &fork_child_closes, "a child keeps nothing but its client",
     "A child has the standard streams and its client, and not the listening socket.",
     "The child inherits all that is open: the listening socket, which it must close, or else the port is\n"
     "taken as long as the child lives; and clients that the parent has not closed.",
     EXERCISES},
    {"01-2", &fork_killed, "a child that is killed costs its own client only",
     "Its client sees the end, the others are served, and no zombie stays.",
     "The parent holds the connection too, or takes the death of a child for an error of its own.",
     EXERCISES},
    {"01-2", &fork_fails, "when fork() fails, that client is closed and the others go on",
     "fork() gives EAGAIN at the limit of processes. The client is closed, so that it knows.",
     "-1 is not looked at, the descriptor is not closed, or the error ends the server. Never let -1 come\n"
     "into the list of children: kill(-1, SIGTERM) is sent to every process that you own.",
     PIECES},
    {"01-2", &fork_rests, "waiting is free", "The parent sleeps in accept(), the children in recv().",
     "The parent asks again and again whether a child has ended, or waits with a listening socket that\n"
     "does not block.",
     IDEA},
    {"01-2", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte, and then the end.",
     "Both processes receive from the client, and each gets a part.", PIECES},
    {"01-2", &fork_stop_echoes, "at the stop, what has come is still echoed",
     "The parent is told to stop while 10,000 bytes wait for the child: they come back, then the end.",
     "The children are ended with SIGKILL, or with a signal whose handler they have set back.", PIECES},
    {"01-2", &fork_stop, "the stop ends all children, and leaves none behind",
     "SIGTERM to the parent: each child is told, and waited for; then the parent ends with status 0. A\n"
     "client that does not read has a few seconds.",
     "A signal to the parent does not reach its children: it must send each of them one (and not\n"
     "kill(0, ...), which also reaches who started the server). If it ends before they have, they live on.",
     PIECES},

    {"01-3", &pool_threads, "the number of threads does not change",
     "The main thread and 4 workers, with no client, with 20, and after them.",
     "A thread is started for each client, or started late, or a worker ends with its client.", EXERCISES},
    {"01-3", &pool_isolated, "4 workers serve 4 clients at once",
     "Three clients who are silent or do not read keep three workers; the fourth serves the others.",
     "A lock is held while a client is served, or only one worker is woken.", IDEA},
    {"01-3", &pool_order, "who came first is served first",
     "With 4 clients inside the others wait; as a worker becomes free, they are served in the order in "
     "which\n"
     "they came.",
     "The queue is a stack, the last one in is the first one out; or the place in the ring is wrong.",
     EXERCISES},
    {"01-3", &pool_bound, "with the queue full nobody is accepted, and all are served later",
     "Of 40 clients 20, or 21, are inside. The others wait in the kernel's queue, which costs nothing, and\n"
     "are served when their turn comes.",
     "The queue has no bound, or the main thread closes whom it has no room for, or spins until there is\n"
     "room, or is not woken when a place becomes free.",
     EXERCISES},
    {"01-3", &pool_rests, "waiting is free", "Workers without a client sleep, and so does the main thread.",
     "A worker asks the queue again and again. pthread_cond_wait() sleeps until somebody has put something "
     "in.",
     IDEA},
    {"01-3", &pool_survives, "a worker survives its clients",
     "After 40 clients who reset their connections all 4 workers still serve.",
     "The thread ends, or leaves the lock locked, when recv() or send() fails.", PIECES},
    {"01-3", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte, and then the end.",
     "Workers share a buffer, or two get the same client.", PIECES},
    {"01-3", &pool_stop_idle, "the stop wakes workers who wait for a client",
     "Status 0, though nobody will ever come: the flag is set and the condition broadcast.",
     "pthread_cond_wait() is not ended by a signal. And pthread_cond_signal() wakes one of them only.",
     PIECES},
    {"01-3", &pool_stop_full, "the stop wakes a main thread that waits for room",
     "Status 0, with 4 silent clients, a full queue and a crowd before the door.",
     "pthread_cond_wait() is not ended by a signal: the main thread must look at net_stopping() now and\n"
     "then. Or the workers in recv() are woken only once, or not at all.",
     PIECES},
    {"01-3", &pool_stop_drains, "at the stop, those in the queue are still echoed what they have sent",
     "8 clients in the queue have sent something: they get it back, then the end, and the status is 0.",
     "A worker ends as soon as the flag is set, though the queue is not empty.", PIECES},
};

int main(int argc, char **argv)
{
    struct tap_test tests[sizeof checks / sizeof *checks];
    size_t count = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: exercise_ch01 01-1 PROGRAM\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const struct check *check = &checks[i];
        if (strcmp(check->exercise, argv[1]) == 0)
            tests[count++] =
                (struct tap_test){check->name, *check->test, check->expected, check->cause, check->section};
    }
    if (count == 0) {
        fprintf(stderr, "exercise_ch01: no such exercise: %s\n", argv[1]);
        return 2;
    }
    server_choose(argv[2]);
    return tap_run("", tests, count);
}
