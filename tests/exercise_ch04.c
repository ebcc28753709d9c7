/* exercise_ch04.c - checks the exercises of chapter 4.
 *
 * Usage: exercise_ch04 04-1 PROGRAM
 * Processes and their descriptors are watched in Linux' /proc; epoll is Linux', too. */
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
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IDEA "the book, chapter 4, \"The idea\""
#define API "the book, chapter 4, \"The API\""
#define PIECES "the book, chapter 4, \"The server, piece by piece\""
#define EXERCISES "the book, chapter 4, \"Exercises\", and `make hint`"

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
    for (int i = 0; i < 2; i++) {
        static const int signals[] = {SIGTERM, SIGINT};
        struct server server = server_start(NULL);
        int fd = served_client(&server);
        int silent = served_client(&server);
        int status = server_stop(&server, signals[i]);
        ck_assert_msg(status == 0, "at %s the server ended with status %d, on stderr: \"%.300s\"",
                      i == 0 ? "SIGTERM" : "SIGINT", status, server_errors(&server));
        ck_assert_msg(client_ending(fd) == ENDED && client_ending(silent) == ENDED,
                      "the server has ended, and a client was not closed properly");
    }
}
END_TEST

/* ---- /proc ---- */

/* The number behind a name in a file of /proc, such as "Threads:" in status, or 0. */
static unsigned long long field(pid_t pid, const char *file, const char *name, int base)
{
    char path[64];
    char line[256];
    unsigned long long value = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *status = fopen(path, "re");
    if (status == NULL)
        return 0; /* ended meanwhile */
    while (fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtoull(line + strlen(name), NULL, base);
    }
    fclose(status);
    return value;
}

/* Looks for a descriptor by what /proc calls it, such as "anon_inode:[eventpoll]".
 * Returns its number, or -1. */
static int find_descriptor(const struct server *server, const char *kind)
{
    char path[300];
    char target[300];
    int found = -1;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)server->pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        tap_skip("%s: %s (this test looks at descriptors there)", path, strerror(errno));
    for (const struct dirent *entry; found < 0 && (entry = readdir(folder)) != NULL;) {
        ssize_t size = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
        if (size > 0 && (size_t)size == strlen(kind) && strncmp(target, kind, (size_t)size) == 0)
            found = atoi(entry->d_name);
    }
    closedir(folder);
    return found;
}

/* ---- 04-1, signals and timers as descriptors ---- */

/* The numbers in the last complete line of what the server reports. */
static bool reports(const struct server *server, unsigned long long clients, unsigned long long messages)
{
    const char *errors = server_errors(server);
    const char *end = strrchr(errors, '\n');
    if (end == NULL)
        return false;
    const char *line = end;
    while (line > errors && line[-1] != '\n')
        line--;
    unsigned long long c;
    unsigned long long m;
    return sscanf(line, "%llu clients, %llu messages", &c, &m) == 2 && c == clients && m == messages;
}

static size_t count_lines(const struct server *server)
{
    size_t lines = 0;
    for (const char *at = server_errors(server); (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    return lines;
}

static void assert_reports(const struct server *server, unsigned long long clients,
                           unsigned long long messages, const char *when)
{
    const char *errors = "";
    ck_assert_msg(eventually(reports(server, clients, messages)) || (errors = server_errors(server)) == NULL,
                  "%s a line \"%llu clients, %llu messages\" should come on stderr, where is: \"%.200s\"",
                  when, clients, messages, errors);
}

START_TEST(timer_reports)
{
    int fds[3];
    struct server server = server_start(NULL);
    for (int i = 0; i < 3; i++)
        fds[i] = client_connect(&server);
    for (int i = 0; i < 30; i++)
        ck_assert_msg(client_gets_echo(fds[i % 3], "a message"), "message %d got no echo", i + 1);
    assert_reports(&server, 3, 30, "with three clients, each of whom sent ten messages,");
    client_finish(fds[1]);
    ck_assert_msg(client_ending(fds[1]) == ENDED, "a client finished, and was not closed properly");
    assert_reports(&server, 2, 30, "after one of them has left");
    assert_stops(&server);
}
END_TEST

START_TEST(timer_repeats)
{
    struct server server = server_start(NULL);
    ck_assert_msg(eventually(count_lines(&server) >= 3),
                  "three seconds make three lines on stderr, where %zu came: \"%.200s\"",
                  count_lines(&server), server_errors(&server));
    assert_stops(&server);
}
END_TEST

static uint64_t waits(const struct server *server)
{
    return server_calls(server, "epoll_wait") + server_calls(server, "epoll_pwait");
}

START_TEST(timer_sleeps)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    served_client(&server);
    ck_assert_msg(eventually(count_lines(&server) >= 1), "no line came on stderr");
    uint64_t calls = waits(&server);
    int64_t begin = now_ms();
    poll(NULL, 0, 1500); /* the time in which nothing but the timer happens */
    calls = waits(&server) - calls;
    int64_t passed = now_ms() - begin;
    ck_assert_msg(calls <= (uint64_t)passed / 1000 + 2,
                  "nobody says anything, and epoll_wait() was called %llu times in %lld ms",
                  (unsigned long long)calls, (long long)passed);
    assert_stops(&server);
}
END_TEST

START_TEST(signal_descriptor)
{
    const unsigned long long stops = 1ULL << (SIGTERM - 1) | 1ULL << (SIGINT - 1);
    struct server server = server_start(NULL);
    ck_assert_msg(find_descriptor(&server, "anon_inode:[signalfd]") >= 0,
                  "the server has said that it is ready, and has no signalfd");
    ck_assert_msg(find_descriptor(&server, "anon_inode:[timerfd]") >= 0,
                  "the server has said that it is ready, and has no timerfd");
    unsigned long long blocked = field(server.pid, "status", "SigBlk:", 16);
    ck_assert_msg((blocked & stops) == stops,
                  "the server has said that it is ready, and does not block %s: its handler will get it, and "
                  "not the signalfd",
                  (blocked & 1ULL << (SIGTERM - 1)) == 0 ? "SIGTERM" : "SIGINT");
    ck_assert_msg((field(server.pid, "status", "SigIgn:", 16) & 1ULL << (SIGPIPE - 1)) != 0,
                  "the server does not ignore SIGPIPE any more");
    assert_stops(&server);
}
END_TEST

START_TEST(signal_grace)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    client_flood(client_connect(&server), 0);
    uint64_t calls = waits(&server);
    int64_t begin = now_ms();
    kill(server.pid, SIGTERM);
    ck_assert_msg(eventually(!server_alive(&server)),
                  "a client does not read, and the server that was to stop waits for it without end");
    int64_t passed = now_ms() - begin;
    int status = server_wait(&server);
    ck_assert_msg(status == 0, "at SIGTERM the server ended with status %d", status);
    ck_assert_msg(passed >= 2900,
                  "a client did not read yet, and the stop gave it %lld ms, not three seconds",
                  (long long)passed);
    calls = waits(&server) - calls;
    ck_assert_msg(calls < 1000, "during the stop epoll_wait() was called %llu times",
                  (unsigned long long)calls);
}
END_TEST

/* ---- 04-2, several processes at one door ---- */

enum { PROCESSES = 4 };

/* The server's children, as servers, for the functions that watch one. */
struct processes {
    struct server each[PROCESSES];
    int count; /* may be more than there is room for */
};

static struct processes processes_of(const struct server *server)
{
    struct processes processes = {.count = 0};
    DIR *folder = opendir("/proc");
    if (folder == NULL)
        tap_skip("/proc: %s (this test watches processes there)", strerror(errno));
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid <= 0 || field(pid, "status", "PPid:", 10) != (unsigned long long)server->pid)
            continue;
        if (processes.count < PROCESSES) {
            processes.each[processes.count] = *server;
            processes.each[processes.count].pid = pid;
        }
        processes.count++;
    }
    closedir(folder);
    return processes;
}

static bool all_asleep(const struct processes *processes)
{
    for (int i = 0; i < PROCESSES; i++) {
        if (!server_asleep(&processes->each[i]))
            return false;
    }
    return true;
}

static void let_sleep(const struct processes *processes)
{
    ck_assert_msg(eventually(all_asleep(processes)), "nobody says anything, and not all processes sleep");
}

static struct processes assert_processes(const struct server *server)
{
    ck_assert_msg(eventually(processes_of(server).count == PROCESSES), "the server has %d processes, not %d",
                  processes_of(server).count, PROCESSES);
    struct processes processes = processes_of(server);
    let_sleep(&processes);
    return processes;
}

/* How often the processes have gone to sleep so far. */
static unsigned long long sleeps(const struct processes *processes)
{
    unsigned long long count = 0;
    for (int i = 0; i < PROCESSES; i++)
        count += field(processes->each[i].pid, "status", "voluntary_ctxt_switches:", 10);
    return count;
}

static int descriptors(const struct processes *processes)
{
    int count = 0;
    for (int i = 0; i < PROCESSES; i++)
        count += server_descriptors(&processes->each[i]);
    return count;
}

/* Lets clients come, each when all processes sleep, and returns how often they
 * were woken. */
enum { COMERS = 20, MOST_WOKEN = COMERS * 3 / 2 };

static unsigned long long woken_by_comers(const struct server *server, const struct processes *processes)
{
    int inside = descriptors(processes);
    let_sleep(processes);
    unsigned long long before = sleeps(processes);
    for (int i = 1; i <= COMERS; i++) {
        client_connect(server);
        ck_assert_msg(eventually(descriptors(processes) >= inside + i),
                      "all processes sleep, a client comes, and nobody accepts it");
        let_sleep(processes);
    }
    return sleeps(processes) - before;
}

START_TEST(exclusive_wakes_one)
{
    struct server server = server_start(NULL);
    struct processes processes = assert_processes(&server);
    unsigned long long woken = woken_by_comers(&server, &processes);
    printf("# %d clients came, and processes were woken %llu times\n", COMERS, woken);
    fflush(stdout);
    ck_assert_msg(woken < MOST_WOKEN,
                  "%d clients came, each when all %d processes slept; they were woken %llu times", COMERS,
                  PROCESSES, woken);
    assert_stops(&server);
}
END_TEST

static void limit_all(const struct processes *processes, unsigned more)
{
    for (int i = 0; i < PROCESSES; i++)
        server_limit_descriptors(&processes->each[i],
                                 (unsigned)server_descriptors(&processes->each[i]) + more);
}

START_TEST(exclusive_full)
{
    struct server server = server_start(&(struct server_setup){.faults = ""});
    struct processes processes = assert_processes(&server);
    limit_all(&processes, 0);
    uint64_t refused = server_failures(&server, "accept");
    int fd = client_connect(&server);
    ck_assert_msg(eventually(server_failures(&server, "accept") > refused),
                  "all processes are out of descriptors, a client comes, and accept() has not failed");
    uint64_t calls = waits(&server);
    poll(NULL, 0, 500); /* the half second in which nothing can be done */
    calls = waits(&server) - calls;
    ck_assert_msg(calls < 200,
                  "out of descriptors, the processes called epoll_wait() %llu times in half a second",
                  (unsigned long long)calls);
    ck_assert_msg(server_failures(&server, "epoll_ctl") == 0, "epoll_ctl() failed %llu times",
                  (unsigned long long)server_failures(&server, "epoll_ctl"));
    limit_all(&processes, 100);
    ck_assert_msg(client_gets_echo(fd, "at last"),
                  "there are descriptors again, and a client who waited gets no echo");
    unsigned long long woken = woken_by_comers(&server, &processes);
    ck_assert_msg(
        woken < MOST_WOKEN,
        "the processes were out of descriptors, and are not any more; now %d clients came, and they "
        "were woken %llu times",
        COMERS, woken);
    assert_stops(&server);
}
END_TEST

/* Whether the process is stopped, and so does not wait in epoll_wait() any more. */
static bool is_stopped(pid_t pid)
{
    char path[64];
    char line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *stat = fopen(path, "re");
    if (stat == NULL)
        return false;
    const char *name_end = fgets(line, sizeof line, stat) != NULL ? strrchr(line, ')') : NULL;
    fclose(stat);
    return name_end != NULL && strncmp(name_end, ") T", 3) == 0; /* "PID (NAME) STATE ..." */
}

START_TEST(exclusive_each_serves)
{
    struct server server = server_start(NULL);
    struct processes processes = assert_processes(&server);
    for (int i = 0; i < PROCESSES; i++) {
        for (int j = 0; j < PROCESSES; j++) {
            if (j == i)
                continue;
            kill(processes.each[j].pid, SIGSTOP);
            ck_assert_msg(eventually(is_stopped(processes.each[j].pid)), "a process could not be stopped");
        }
        int fd = client_connect(&server);
        bool served = client_gets_echo(fd, "hello");
        for (int j = 0; j < PROCESSES; j++)
            kill(processes.each[j].pid, SIGCONT);
        ck_assert_msg(served, "all processes but one are stopped, and that one does not serve a new client");
        let_sleep(&processes);
    }
    assert_stops(&server);
}
END_TEST

START_TEST(exclusive_stops)
{
    int fds[COMERS];
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* whom the server leaves behind becomes ours */
    struct server server = server_start(NULL);
    assert_processes(&server);
    for (int i = 0; i < COMERS; i++)
        fds[i] = served_client(&server);
    assert_stops(&server);
    pid_t left = waitpid(-1, NULL, WNOHANG);
    ck_assert_msg(left < 0, "the server has ended, and a process of it %s",
                  left == 0 ? "still runs" : "was not waited for");
    for (int i = 0; i < COMERS; i++)
        ck_assert_msg(client_ending(fds[i]) == ENDED, "client %d was not closed properly", i + 1);
}
END_TEST

/* ---- 04-3, a pool of threads on one epoll ---- */

enum { WORKERS = 4 };

static int waiting_threads(const struct server *server)
{
    int count = server_blocked_in(server, SYS_epoll_pwait);
#ifdef SYS_epoll_wait
    count += server_blocked_in(server, SYS_epoll_wait);
#endif
    return count;
}

static void let_wait(const struct server *server)
{
    ck_assert_msg(eventually(waiting_threads(server) == WORKERS),
                  "nobody says anything, and %d threads wait in epoll_wait(), not %d",
                  waiting_threads(server), WORKERS);
}

START_TEST(oneshot_threads)
{
    struct server server = server_start(NULL);
    let_wait(&server);
    for (int i = 0; i < 20; i++)
        served_client(&server);
    let_wait(&server);
    assert_stops(&server);
}
END_TEST

/* What an epoll instance watches its sockets for, as /proc has it: how many there
 * are, and what they have in common. */
struct watched {
    int sockets;
    unsigned events;
};

static struct watched watched_by(const struct server *server)
{
    struct watched watched = {.events = ~0U};
    int epoll = find_descriptor(server, "anon_inode:[eventpoll]");
    if (epoll < 0)
        ck_abort_msg("the server has no epoll instance");
    char path[64];
    char line[256];
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)server->pid, epoll);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL) {
        int fd;
        unsigned events;
        char target[32] = "";
        if (sscanf(line, "tfd: %d events: %x", &fd, &events) != 2)
            continue;
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)server->pid, fd);
        if (readlink(path, target, sizeof target - 1) < 0 || strncmp(target, "socket:", 7) != 0)
            continue; /* the server may use a pipe for itself */
        watched.sockets++;
        watched.events &= events;
    }
    fclose(file);
    return watched;
}

START_TEST(oneshot_armed)
{
    enum { CLIENTS = 5 };
    struct server server = server_start(NULL);
    for (int i = 0; i < CLIENTS; i++)
        served_client(&server);
    let_wait(&server);
    struct watched watched = watched_by(&server);
    ck_assert_msg(watched.sockets == CLIENTS + 1, "%d clients and the listening socket: epoll watches %d",
                  CLIENTS, watched.sockets);
    ck_assert_msg((watched.events & EPOLLONESHOT) != 0,
                  "all threads wait, and a socket is watched without EPOLLONESHOT");
    ck_assert_msg((watched.events & EPOLLIN) != 0,
                  "all threads wait, and a socket is not armed: nobody will hear of it any more");
    assert_stops(&server);
}
END_TEST

START_TEST(oneshot_rearms)
{
    enum { MESSAGES = 100 };
    struct server server = server_start(&(struct server_setup){.faults = ""});
    int fd = served_client(&server);
    let_wait(&server);
    uint64_t before = server_calls(&server, "epoll_ctl");
    for (int i = 0; i < MESSAGES; i++)
        ck_assert_msg(client_gets_echo(fd, "a message"), "message %d of a client got no echo", i + 1);
    let_wait(&server);
    uint64_t calls = server_calls(&server, "epoll_ctl") - before;
    ck_assert_msg(calls == MESSAGES, "%d messages came one by one, and epoll_ctl() was called %llu times",
                  MESSAGES, (unsigned long long)calls);
    assert_stops(&server);
}
END_TEST

START_TEST(oneshot_streams)
{
    struct server server = server_start(NULL);
    for (unsigned i = 1; i <= 8; i++) {
        int fd = client_connect(&server);
        size_t total = (size_t)1 << 20;
        size_t back = client_echo(fd, total, 40 * i, i);
        ck_assert_msg(back == total,
                      "a client sends without pause: byte %zu of %zu that came back was another one, or none",
                      back + 1, total);
        client_finish(fd);
        ck_assert_msg(client_ending(fd) == ENDED, "the client finished, and was not closed properly");
    }
    assert_stops(&server);
}
END_TEST

/* Clients in processes of their own stream at the same time, so that the threads do. */
START_TEST(oneshot_together)
{
    enum { CLIENTS = 6 };
    pid_t clients[CLIENTS];
    struct server server = server_start(NULL);
    for (int i = 0; i < CLIENTS; i++) {
        int fd = client_connect(&server);
        clients[i] = fork();
        if (clients[i] < 0)
            ck_abort_msg("fork: %s", strerror(errno));
        if (clients[i] == 0)
            _exit(client_echo(fd, 1 << 20, 1000, (unsigned)i) == 1 << 20 ? 0 : 1);
        close(fd);
    }
    int wrong = 0;
    for (int i = 0; i < CLIENTS; i++) {
        int status;
        wrong += waitpid(clients[i], &status, 0) < 0 || status != 0;
    }
    ck_assert_msg(wrong == 0, "%d clients sent at the same time, and %d did not get their own bytes back",
                  CLIENTS, wrong);
    assert_stops(&server);
}
END_TEST

START_TEST(oneshot_late_reader)
{
    struct server server = server_start(NULL);
    int late = client_connect(&server);
    size_t sent = client_flood(late, 1);
    let_wait(&server);
    ck_assert_msg(client_gets_echo(client_connect(&server), "me too"),
                  "one client does not read, and another gets no echo");
    size_t back = client_receive_pattern(late, sent, 1, 0);
    ck_assert_msg(back == sent, "a client that reads late got %zu of %zu bytes", back, sent);
    ck_assert_msg(client_gets_echo(late, "and now?"),
                  "a client that has read all late gets no echo any more");
    assert_stops(&server);
}
END_TEST

START_TEST(oneshot_leavers)
{
    enum { CLIENTS = 50 };
    int fds[CLIENTS];
    struct server server = server_start(NULL);
    let_wait(&server);
    int before = server_descriptors(&server);
    client_connect_many(&server, fds, CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_msg(client_gets_echo(fds[i], "hello"), "%d clients came at once, and client %d got no echo",
                      CLIENTS, i + 1);
    for (int i = 0; i < CLIENTS; i++) {
        if (i % 2 == 0)
            client_reset(fds[i]);
        else
            client_finish(fds[i]);
    }
    ck_assert_msg(eventually(server_descriptors(&server) == before),
                  "all clients have left, and the server has %d descriptors, not %d",
                  server_descriptors(&server), before);
    let_wait(&server);
    served_client(&server);
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
    {"04-1", &signal_descriptor, "signals and time come through descriptors",
     "A signalfd, a timerfd, and SIGTERM and SIGINT blocked when the server says that it is ready.",
     "one of them is missing; or the signals are not blocked, or after net_listen() only, or "
     "net_catch_signals(), which unblocks all, comes after it",
     API},
    {"04-1", &timer_reports, "each second the server reports what is true",
     "\"3 clients, 30 messages\", and when one has left, \"2 clients, 30 messages\".",
     "other turns than those that end with CONN_DRAINED are counted, or who has left still is", EXERCISES},
    {"04-1", &timer_repeats, "the reports go on though nothing happens", "A line each second.",
     "the timer has no it_interval; or a line is written only when somebody says something", API},
    {"04-1", &timer_sleeps, "between the reports the server sleeps", "One wake-up for each line.",
     "the timerfd is not read: it stays readable, and epoll says so for ever", API},
    {"04-1", &signal_grace, "a stop lasts three to four seconds, and no longer",
     "One who does not read is granted three seconds; then the server ends, and meanwhile it sleeps.",
     "the end of the grace period is not noticed, since nobody handles the timer's events during the stop; "
     "or "
     "the signalfd is not read, and stays readable",
     EXERCISES},
    {"04-1", &still_stops, "SIGTERM and SIGINT stop the server", "Status 0, and a FIN to each client.",
     "only one of the two signals is in the set, or nobody reads the signalfd", API},
    {"04-1", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte.",
     "an event of a client is taken for one of the signalfd or timerfd, or the other way round", PIECES},

    {"04-2", &exclusive_wakes_one, "a client who comes wakes one process",
     "Twenty clients, some twenty wake-ups.",
     "the listening socket is watched without EPOLLEXCLUSIVE: each process is woken, and all but one in vain",
     API},
    {"04-2", &exclusive_full, "out of descriptors no process spins, and afterwards all is as before",
     "The listening socket is not watched for a while, then again, exclusively; no call of epoll_ctl() "
     "fails.",
     "EPOLL_CTL_MOD, which EPOLLEXCLUSIVE does not allow; or the flag is forgotten when it is added again",
     PIECES},
    {"04-2", &exclusive_each_serves, "each of the processes serves",
     "Three of four are stopped, and the fourth serves who comes.",
     "a process does not watch the listening socket, or they share an epoll instance", EXERCISES},
    {"04-2", &exclusive_stops, "the stop ends all processes",
     "Status 0, no process left, a FIN to each client.",
     "the stop is not passed on, or not all processes are waited for", EXERCISES},
    {"04-2", &still_echoes, "the echo is as before", "4 MiB come back, byte for byte.",
     "something else than the watching was changed", PIECES},

    {"04-3", &oneshot_threads, "four threads wait at one epoll instance",
     "When nobody says anything, all four are blocked in epoll_wait().",
     "WORKERS is not 4 yet; or a thread waits for a lock; or a socket stays readable, and nobody serves it",
     IDEA},
    {"04-3", &oneshot_armed, "each socket is watched with EPOLLONESHOT, and armed",
     "In /proc/PID/fdinfo each client and the listening socket has EPOLLIN and EPOLLONESHOT.",
     "the flag is forgotten with EPOLL_CTL_ADD, or with EPOLL_CTL_MOD, or nobody re-arms", API},
    {"04-3", &oneshot_rearms, "each message costs one re-arming",
     "100 messages one by one, 100 calls of epoll_ctl().",
     "none: the socket is not disarmed by its event; more: it is armed before and after the turn", API},
    {"04-3", &oneshot_streams, "a client that sends without pause gets its bytes in order",
     "A megabyte in small pieces comes back, byte for byte, eight times.",
     "two threads serve the same client: EPOLLONESHOT is missing, or the client is re-armed before its turn "
     "is "
     "over; or the listening socket is not re-armed",
     EXERCISES},
    {"04-3", &oneshot_together, "clients that send at the same time get their own bytes",
     "Six clients, each its own megabyte.", "the threads share a buffer", PIECES},
    {"04-3", &oneshot_late_reader, "a client that reads late gets all",
     "While it is owed bytes it is armed for EPOLLOUT, and afterwards for EPOLLIN.",
     "it is always armed for EPOLLIN; or a turn that ends with CONN_OWING does not re-arm it", PIECES},
    {"04-3", &oneshot_leavers, "clients who leave leave nothing behind",
     "Fifty come at once and leave, by a FIN or a reset; descriptors and threads are as before.",
     "the listening socket or a client was not re-armed, or who has left is not dropped", PIECES},
    {"04-3", &still_stops, "the stop ends all threads", "Status 0, and a FIN to each client.",
     "one thread takes the event of the stop away from the others", EXERCISES},
};

int main(int argc, char **argv)
{
    struct tap_test tests[sizeof checks / sizeof *checks];
    size_t count_of_tests = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: exercise_ch04 04-1 PROGRAM\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const struct check *check = &checks[i];
        if (strcmp(check->exercise, argv[1]) == 0)
            tests[count_of_tests++] =
                (struct tap_test){check->name, *check->test, check->expected, check->cause, check->section};
    }
    if (count_of_tests == 0) {
        fprintf(stderr, "exercise_ch04: no such exercise: %s\n", argv[1]);
        return 2;
    }
    server_choose(argv[2]);
    return tap_run("", tests, count_of_tests);
}
