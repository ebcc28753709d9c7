/* exercise_ch05.c - checks the exercises of chapter 5.
 *
 * Usage: exercise_ch05 05-1 PROGRAM
 * Processes are watched in Linux' /proc, and calls counted by the fault injector;
 * where neither is there, such a check is skipped. */
#define _GNU_SOURCE /* asprintf(), and the POSIX functions beside it */

#include "harness.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define API "the book, chapter 5, \"The API\""
#define PIECES "the book, chapter 5, \"The server, piece by piece\""
#define EXERCISES "the book, chapter 5, \"Exercises\", and `make hint`"

static void put(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

/* Requires that just this comes from the server. */
static void gets(int fd, const char *text, const char *when)
{
    char back[400] = "";
    size_t size = strlen(text);
    size_t got = client_receive(fd, back, size);
    ck_assert_msg(got == size && memcmp(back, text, size) == 0,
                  "%s a client should get \"%.80s\", and got \"%.80s\"", when, text, back);
}

static bool has_heard(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, 0) > 0;
}

START_TEST(still_stops)
{
    for (int i = 0; i < 2; i++) {
        static const int signals[] = {SIGTERM, SIGINT};
        struct server server = server_start(NULL);
        int fd = client_connect(&server);
        int status = server_stop(&server, signals[i]);
        ck_assert_msg(status == 0, "at %s the server ended with status %d, on stderr: \"%.300s\"",
                      i == 0 ? "SIGTERM" : "SIGINT", status, server_errors(&server));
        ck_assert_msg(client_ending(fd) != STILL_OPEN, "the server has ended, and a client was not closed");
    }
}
END_TEST

/* ---- 05-1, edges, with EV_CLEAR ---- */

START_TEST(clear_echoes)
{
    struct server server = server_start(NULL);
    int other = client_connect(&server);
    int fd = client_connect(&server);
    size_t total = (size_t)4 << 20;
    size_t back = client_echo(fd, total, 300000, 1);
    ck_assert_msg(back == total, "%zu of %zu bytes came back right", back, total);
    ck_assert_msg(client_gets_echo(other, "me too"), "another client got no echo");
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    assert_stops(&server);
}
END_TEST

START_TEST(clear_fin_with_data)
{
    struct server server = server_start(NULL);
    for (int i = 0; i < 50; i++) {
        int fd = client_connect(&server);
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

START_TEST(clear_late_reader)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fd = client_connect(&server);
    ck_assert(client_gets_echo(fd, "hello"));
    uint64_t before = server_calls(&server, "epoll_ctl");
    for (unsigned round = 0; round < 2; round++) {
        size_t size = client_flood(fd, round);
        size_t got = client_receive_pattern(fd, size, round, 0);
        ck_assert_msg(got == size, "of %zu bytes, which the client read late, %zu came back right", size,
                      got);
    }
    uint64_t changes = server_calls(&server, "epoll_ctl") - before;
    ck_assert_msg(changes == 0, "a client stopped reading twice, and that cost %llu changes",
                  (unsigned long long)changes);
    ck_assert_msg(client_gets_echo(fd, "and now?"), "afterwards the client gets no echo");
    assert_stops(&server);
}
END_TEST

START_TEST(clear_fair)
{
    struct server server = server_start(NULL);
    int greedy = client_connect(&server);
    int other = client_connect(&server);
    pid_t feeder = fork();
    if (feeder == 0) {
        for (unsigned seed = 0;; seed++) /* ends with the test, which kills it */
            client_echo(greedy, (size_t)1 << 30, 1 << 20, seed);
    }
    for (int i = 0; i < 30; i++)
        ck_assert_msg(client_gets_echo(other, "my turn?"),
                      "while a client sends without pause, another one gets no echo");
    kill(feeder, SIGKILL);
}
END_TEST

START_TEST(clear_idle)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    for (int i = 0; i < 10; i++)
        ck_assert(client_gets_echo(client_connect(&server), "hello"));
    ck_assert_msg(eventually(server_asleep(&server)), "with silent clients the server does not sleep");
    uint64_t before = server_calls(&server, "epoll_wait");
    poll(NULL, 0, 500); /* while nothing happens */
    uint64_t waits = server_calls(&server, "epoll_wait") - before;
    ck_assert_msg(waits == 0, "in half a second of silence the server woke up %llu times",
                  (unsigned long long)waits);
    assert_stops(&server);
}
END_TEST

/* ---- 05-2, a thread that wakes the loop ---- */

#define LONG_JOB "primes 3000000\n" /* a second or so, far longer than an echo */

START_TEST(user_others_meanwhile)
{
    struct server server = server_start(NULL);
    int asks = client_connect(&server);
    int asks_too = client_connect(&server);
    int other = client_connect(&server);
    put(other, "hello\n");
    gets(other, "hello\n", "before anything is computed");
    put(asks, LONG_JOB);
    poll(NULL, 0, 50);            /* so that it has begun */
    put(asks_too, "primes 10\n"); /* it has to wait for the thread, but not the loop for that */
    for (int i = 0; i < 10; i++) {
        put(other, "still there?\n");
        gets(other, "still there?\n", "while a number is computed");
        ck_assert_msg(!has_heard(asks), "the number was computed before another client got its line");
    }
    put(asks, "and mine?\n"); /* an echo overtakes the number: that one comes when it is ready */
    gets(asks, "and mine?\n216816\n", "of two lines");
    assert_stops(&server);
}
END_TEST

START_TEST(user_own_numbers)
{
    enum { CLIENTS = 20 };
    static const struct {
        const char *line;
        const char *answer;
    } sums[] = {{"primes 10\n", "4\n"},
                {"primes 100\n", "25\n"},
                {"primes 10000\n", "1229\n"},
                {"primes 3\n", "1\n"}};
    struct server server = server_start(NULL);
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = client_connect(&server);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < CLIENTS; i++)
            put(fds[i], sums[(i + round) % 4].line);
        for (int i = 0; i < CLIENTS; i++)
            gets(fds[i], sums[(i + round) % 4].answer, "of its own number");
    }
    assert_stops(&server);
}
END_TEST

START_TEST(user_leaver)
{
    struct server server = server_start(NULL);
    int stays = client_connect(&server);
    int leaves = client_connect(&server);
    put(leaves, LONG_JOB);
    poll(NULL, 0, 50);
    client_reset(leaves);
    put(stays, "x\n");
    gets(stays, "x\n", "while a number is computed");
    int newcomer = client_connect(&server); /* gets the lowest free descriptor */
    put(newcomer, "hello\n");
    gets(newcomer, "hello\n", "in the place of one who left");
    put(stays, "primes 10\n"); /* comes after the other number has been computed */
    gets(stays, "4\n", "after the other number");
    ck_assert_msg(client_hears_nothing(newcomer, 100), "a client got a number that it has not asked for");
    assert_stops(&server);
}
END_TEST

START_TEST(user_sleeps)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fd = client_connect(&server);
    put(fd, "primes 100\n");
    gets(fd, "25\n", "of its own number");
    ck_assert_msg(server_threads(&server) >= 2, "the server has only one thread");
    ck_assert_msg(eventually(server_asleep(&server)),
                  "when there is nothing to do, the server does not sleep");
    uint64_t before = server_calls(&server, "epoll_wait") + server_calls(&server, "poll");
    poll(NULL, 0, 500); /* while nothing happens */
    uint64_t waits = server_calls(&server, "epoll_wait") + server_calls(&server, "poll") - before;
    ck_assert_msg(waits == 0, "in half a second of silence the loop woke up %llu times",
                  (unsigned long long)waits);
    assert_stops(&server);
}
END_TEST

/* ---- 05-3, a process that ends ---- */

/* How many children of the server are zombies. */
static int zombies(const struct server *server)
{
    DIR *folder = opendir("/proc");
    int count = 0;
    if (folder == NULL)
        tap_skip("no /proc: this test looks for zombies there");
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[300];
        char state;
        int parent;
        snprintf(path, sizeof path, "/proc/%.200s/stat", entry->d_name);
        FILE *file = entry->d_name[0] >= '0' && entry->d_name[0] <= '9' ? fopen(path, "re") : NULL;
        if (file == NULL)
            continue;
        if (fscanf(file, "%*d (%*[^)]) %c %d", &state, &parent) == 2 && state == 'Z' && parent == server->pid)
            count++;
        fclose(file);
    }
    closedir(folder);
    return count;
}

START_TEST(proc_others_meanwhile)
{
    struct server server = server_start(NULL);
    char folder[] = "/tmp/exercise-XXXXXX";
    ck_assert(mkdtemp(folder) != NULL);
    char line[100];
    int lasts = client_connect(&server);
    int other = client_connect(&server);
    snprintf(line, sizeof line, "while test ! -e %s/go; do sleep 0.05; done; exit 3\n", folder);
    put(lasts, line);
    for (int i = 0; i < 5; i++) {
        put(other, "exit 7\n");
        gets(other, "status 7\n", "while another client's command runs");
    }
    put(lasts, "exit 4\n"); /* a second one of the same client */
    gets(lasts, "status 4\n", "while its first command runs");
    ck_assert_msg(!has_heard(lasts), "the first command was reported before it had ended");
    snprintf(line, sizeof line, "%s/go", folder);
    ck_assert(close(open(line, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) == 0);
    gets(lasts, "status 3\n", "when its command has ended");
    unlink(line);
    rmdir(folder);
    assert_stops(&server);
}
END_TEST

START_TEST(proc_how)
{
    struct server server = server_start(NULL);
    int fd = client_connect(&server);
    put(fd, "exit 0\n");
    gets(fd, "status 0\n", "after \"exit 0\"");
    put(fd, "exit 255\n");
    gets(fd, "status 255\n", "after \"exit 255\"");
    put(fd, "kill -9 $$\n");
    gets(fd, "signal 9\n", "after a command that kills itself");
    assert_stops(&server);
}
END_TEST

START_TEST(proc_many)
{
    enum { CLIENTS = 10, COMMANDS = 10 };
    struct server server = server_start(NULL);
    int fds[CLIENTS];
    char line[32];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = client_connect(&server);
    for (int j = 0; j < COMMANDS; j++) {
        for (int i = 0; i < CLIENTS; i++) {
            snprintf(line, sizeof line, "exit %d\n", i);
            put(fds[i], line);
        }
    }
    for (int j = 0; j < COMMANDS; j++) {
        for (int i = 0; i < CLIENTS; i++) {
            snprintf(line, sizeof line, "status %d\n", i);
            gets(fds[i], line, "of many commands at once");
        }
    }
    ck_assert_msg(eventually(zombies(&server) == 0), "%d commands have ended, and are zombies still",
                  zombies(&server));
    assert_stops(&server);
}
END_TEST

START_TEST(proc_leaver)
{
    struct server server = server_start(NULL);
    int stays = client_connect(&server);
    int leaves = client_connect(&server);
    put(leaves, "sleep 0.5; exit 9\n");
    poll(NULL, 0, 50);
    client_reset(leaves);
    put(stays, "exit 1\n");
    gets(stays, "status 1\n", "while another client's command runs");
    int newcomer = client_connect(&server); /* gets the lowest free descriptor */
    put(newcomer, "exit 2\n");
    gets(newcomer, "status 2\n", "in the place of one who left");
    put(stays, "sleep 1; exit 5\n"); /* ends after the other one */
    gets(stays, "status 5\n", "after a while");
    ck_assert_msg(client_hears_nothing(newcomer, 100), "a client was told of a command that is not its own");
    ck_assert_msg(zombies(&server) == 0, "the command of a client that left is a zombie");
    assert_stops(&server);
}
END_TEST

/* ---- 05-4, what is appended to a file ---- */

static char folder[] = "/tmp/exercise-XXXXXX";
static char file[60];
static char other_file[60];

static void remove_files(void)
{
    unlink(file);
    unlink(other_file);
    rmdir(folder);
}

/* A folder of its own, for the file and for another name. */
static void make_folder(void)
{
    ck_assert(mkdtemp(folder) != NULL);
    snprintf(file, sizeof file, "%s/log", folder);
    snprintf(other_file, sizeof other_file, "%s/log.old", folder);
    atexit(remove_files);
}

static void append(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_msg(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path,
                  strerror(errno));
    close(fd);
}

/* Starts it on the file, with two clients who have got everything so far. */
static struct server tail(int clients[2], const char *faults)
{
    struct server server =
        server_start(&(struct server_setup){.arguments = {"--file", file}, .faults = faults});
    for (int i = 0; i < 2; i++)
        clients[i] = client_connect(&server);
    ck_assert_msg(eventually(server_descriptors(&server) >= 0 && server_asleep(&server)),
                  "with silent clients the server does not sleep");
    return server;
}

static void both_get(const int clients[2], const char *text, const char *when)
{
    for (int i = 0; i < 2; i++)
        gets(clients[i], text, when);
}

START_TEST(tail_appended)
{
    int clients[2];
    make_folder();
    append(file, "what was there before\n");
    struct server server = tail(clients, NULL);
    append(file, "one\n");
    both_get(clients, "one\n", "after something was appended");
    append(file, "two\n");
    append(file, "three\n");
    both_get(clients, "two\nthree\n", "after something was appended");
    assert_stops(&server);
}
END_TEST

START_TEST(tail_renamed)
{
    int clients[2];
    make_folder();
    append(file, "before\n");
    struct server server = tail(clients, NULL);
    for (int i = 0; i < 3; i++) {
        append(file, "to the old one\n");
        ck_assert(rename(file, other_file) == 0);
        append(other_file, "late\n");
        both_get(clients, "to the old one\nlate\n", "after the file was renamed, and written to once more,");
        append(file, "to the new one\n");
        both_get(clients, "to the new one\n", "after another file was put in its place");
        append(file, "more\n");
        both_get(clients, "more\n", "of the new file");
    }
    assert_stops(&server);
}
END_TEST

START_TEST(tail_deleted)
{
    int clients[2];
    make_folder();
    append(file, "before\n");
    struct server server = tail(clients, NULL);
    ck_assert(unlink(file) == 0);
    append(file, "anew\n");
    both_get(clients, "anew\n", "after the file was deleted, and made again,");
    append(other_file, "prepared\n"); /* renamed over: never a moment without the file */
    ck_assert(rename(other_file, file) == 0);
    both_get(clients, "prepared\n", "after another file was renamed over it");
    append(file, "more\n");
    both_get(clients, "more\n", "of the new file");
    assert_stops(&server);
}
END_TEST

START_TEST(tail_cut)
{
    int clients[2];
    make_folder();
    append(file, "a long line that was there before\n");
    struct server server = tail(clients, NULL);
    ck_assert(truncate(file, 0) == 0);
    ck_assert_msg(eventually(server_asleep(&server)), "the server does not sleep");
    poll(NULL, 0, 100); /* or else what is written next may hide the cut */
    append(file, "anew\n");
    both_get(clients, "anew\n", "after the file was cut short");
    assert_stops(&server);
}
END_TEST

START_TEST(tail_not_there_yet)
{
    int clients[2];
    make_folder();
    struct server server = tail(clients, NULL);
    append(file, "here I am\n");
    both_get(clients, "here I am\n", "when a file came that was not there at the start");
    assert_stops(&server);
}
END_TEST

START_TEST(tail_idle)
{
    int clients[2];
    make_folder();
    append(file, "before\n");
    append(other_file, "before\n");
    struct server server = tail(clients, "");
    uint64_t before = server_calls(&server, "epoll_wait");
    for (int i = 0; i < 50; i++) {
        append(other_file, "nothing of interest\n");
        poll(NULL, 0, 10);
    }
    /* On Linux the queue's own kernel, inotify, may wake up for it; that the server does not follow it is
     * seen by what it asks of the file. */
    uint64_t waits = server_calls(&server, "epoll_wait") - before;
    ck_assert_msg(waits <= 55, "while nothing happened to the file the server woke up %llu times",
                  (unsigned long long)waits);
    before = server_calls(&server, "epoll_wait");
    poll(NULL, 0, 500); /* while nothing happens at all */
    waits = server_calls(&server, "epoll_wait") - before;
    ck_assert_msg(waits == 0, "in half a second of silence the server woke up %llu times",
                  (unsigned long long)waits);
    append(file, "now\n");
    both_get(clients, "now\n", "after something was appended");
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
    {"05-1", &clear_echoes, "a message longer than the buffer comes back whole",
     "4 MiB in large pieces come back, byte for byte.",
     "one turn for each event: what is left behind is not reported again", API},
    {"05-1", &clear_fin_with_data, "a FIN that comes with the last bytes is met",
     "The bytes are echoed, and the client is closed.",
     "the turns end at a short read; the FIN behind it was in the same event, and there is no other (EV_EOF)",
     API},
    {"05-1", &clear_late_reader, "a client that reads late gets all, and costs no change",
     "Both filters stay on, with EV_CLEAR. Nothing is handed over when a client stops reading, nor when it "
     "goes on.",
     "filters are still added and deleted; or what came while the client was owed bytes is never read",
     PIECES},
    {"05-1", &clear_fair, "a client that sends without pause keeps nobody waiting",
     "Another client gets its echo.", "a client is served until it has nothing more, before anybody else",
     EXERCISES},
    {"05-1", &clear_idle, "silent clients wake nobody",
     "When nobody says anything, the loop sleeps in its call.",
     "a client stays noted as ready although it has nothing; or EV_CLEAR is missing with WRITE, which is "
     "nearly always "
     "ready",
     API},
    {"05-1", &still_stops, "the stop is as before", "Status 0, and an end for each client.",
     "what the loop waits for is not waited for in the stop", EXERCISES},

    {"05-2", &user_others_meanwhile, "while a number is computed, others are answered",
     "A line comes back at once, also to the client who asks.",
     "it is computed in the loop; or the loop waits for the thread, or for a lock that the thread holds "
     "meanwhile",
     EXERCISES},
    {"05-2", &user_own_numbers, "each gets its own number", "20 clients, five numbers each.",
     "results that are ready together are taken for one, since their wake-ups were one event", API},
    {"05-2", &user_leaver, "who has left gets nothing, and neither does the next one in its place",
     "The number of a client that has left is thrown away.",
     "the result carries a descriptor and no generation", "the book, chapter 4, \"Who is meant: identity\""},
    {"05-2", &user_sleeps, "a thread, and nobody who looks whether it is done",
     "Two threads at least; when there is nothing to do, all sleep, and none wakes up by itself.",
     "the loop asks again and again, with a limit on the wait", API},
    {"05-2", &still_stops, "the stop is as before", "Status 0, and an end for each client.",
     "the main thread waits for the other one", EXERCISES},

    {"05-3", &proc_others_meanwhile, "while a command runs, others are answered",
     "Commands of several clients run at the same time, and two of the same client.",
     "waitpid() in the loop waits", EXERCISES},
    {"05-3", &proc_how, "how a command ended is told", "\"status 255\", or \"signal 9\".",
     "the status of waitpid() is not taken apart with WIFEXITED() and its like", "waitpid(2)"},
    {"05-3", &proc_many, "a hundred commands at once are all reported, and reaped",
     "Each client gets its own statuses; no zombie is left.",
     "commands that end before they are watched give ESRCH and no event; waitpid(-1) takes the status of "
     "another",
     "kqueue(2), on EVFILT_PROC"},
    {"05-3", &proc_leaver, "who has left is told nothing, and neither is the next one in its place",
     "The command is reaped, and its status thrown away.",
     "the command remembers a descriptor and no generation; or it is forgotten with its client",
     "the book, chapter 4, \"Who is meant: identity\""},
    {"05-3", &still_stops, "the stop is as before", "Status 0, and an end for each client.",
     "the stop waits for commands", EXERCISES},

    {"05-4", &tail_appended, "what is appended goes to all",
     "Two clients get it, and nothing of what was there before.",
     "the file is read from its beginning; or only once", PIECES},
    {"05-4", &tail_renamed, "a file that is renamed, and another in its place",
     "The rest of the old one, then the new one from its beginning.",
     "only the file is watched, and not its folder; or the old one is closed before it was read to its end",
     PIECES},
    {"05-4", &tail_deleted, "a file that is deleted and made again, or renamed over",
     "The new one from its beginning.",
     "a file of the same name is taken for the same file: compare st_dev and st_ino", PIECES},
    {"05-4", &tail_cut, "a file that is cut short", "What is written afterwards.",
     "the offset is behind its end, and nothing is ever read again", EXERCISES},
    {"05-4", &tail_not_there_yet, "a file that is not there at the start",
     "It is sent from its beginning when it comes.", "the start fails; or nobody watches the folder",
     EXERCISES},
    {"05-4", &tail_idle, "while nothing happens, nobody looks", "No wake-up without a cause.",
     "a timer, or a limit on the wait", API},
    {"05-4", &still_stops, "the stop is as before", "Status 0, and an end for each client.",
     "a signal is lost", EXERCISES},
};

int main(int argc, char **argv)
{
    struct tap_test tests[sizeof checks / sizeof *checks];
    size_t count_of_tests = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: exercise_ch05 05-1 PROGRAM\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const struct check *check = &checks[i];
        if (strcmp(check->exercise, argv[1]) == 0)
            tests[count_of_tests++] =
                (struct tap_test){check->name, *check->test, check->expected, check->cause, check->section};
    }
    if (count_of_tests == 0) {
        fprintf(stderr, "exercise_ch05: no such exercise: %s\n", argv[1]);
        return 2;
    }
    server_choose(argv[2]);
    return tap_run("", tests, count_of_tests);
}
