/* behaviour_ch02.c - what non-blocking I/O does, and what it costs: one thread
 * that never waits, asks every client in turn, and never rests.
 * Run it as behaviour_ch02 [NONBLOCKING], the path of the server. */
#define _GNU_SOURCE /* the numbers of system calls, and the POSIX functions beside them */

#include "harness.h"
#include "tap.h"
#include "trace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THE_IDEA "the book, chapter 2, \"The idea\""
#define THE_API "the book, chapter 2, \"The API\""
#define THE_SERVER "the book, chapter 2, \"The server, piece by piece\""
#define WATCH_IT_RUN "the book, chapter 2, \"Watch it run\""

/* As in the server: what one connection can owe, and whom one turn lets in. */
enum { MOST_OWED = 64 * 1024, MOST_ACCEPTS = 64 };

static const char *nonblocking = "../ch02-nonblocking/nonblocking";

static struct server start(void)
{
    server_choose(nonblocking);
    return server_start(NULL);
}

/* With the fault injector, which here only counts. */
static struct server start_counted(void)
{
    server_choose(nonblocking);
    return server_start(&(struct server_setup){.faults = ""});
}

/* Connects count clients, one after the other, and has each served once. So
 * they lie in the server's array in this order. */
static void connect_served(const struct server *server, int *descriptors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        descriptors[i] = client_connect(server);
        ck_assert_msg(client_gets_echo(descriptors[i], "hello"), "client %zu of %zu got no echo", i + 1,
                      count);
    }
}

/* ---- reading a record of system calls ---- */

static struct call calls[20000];

static void record(const struct server *server, size_t count)
{
    size_t made = trace_record(server, calls, count);
    ck_assert_msg(made == count, "after %zu calls more the server waits in system call %ld on descriptor %d",
                  made, calls[made].number, calls[made].fd);
}

static bool is_accept(const struct call *call)
{
#ifdef SYS_accept
    if (call->number == SYS_accept)
        return true;
#endif
    return call->number == SYS_accept4;
}

static bool is_on(const struct call *call, long number, int fd)
{
    return call->number == number && call->fd == fd;
}

/* Stops the server where a turn begins: it has asked for a new client in vain,
 * and now goes round those that it has. */
static void trace_turn(const struct server *server)
{
    trace_start(server);
    do
        record(server, 1);
    while (!is_accept(&calls[0]) || calls[0].result != -EAGAIN);
}

/* Returns where in a record of count calls the turn that begins at begin ends:
 * behind its last accept(). If it does not end there: count + 1. */
static size_t turn_end(size_t begin, size_t count)
{
    for (size_t i = begin; i < count; i++) {
        if (is_accept(&calls[i]) && calls[i].result < 0)
            return i + 1;
    }
    return count + 1;
}

/* Counts in the turn from begin to end how often the server received from fd. */
static size_t receives(int fd, size_t begin, size_t end)
{
    size_t found = 0;
    for (size_t i = begin; i < end; i++)
        found += is_on(&calls[i], SYS_recvfrom, fd);
    return found;
}

/* The descriptors that were received from in the turn from begin to end, each
 * once. Returns how many there are. */
static size_t asked(int *descriptors, size_t room, size_t begin, size_t end)
{
    size_t found = 0;
    for (size_t i = begin; i < end && found < room; i++) {
        if (calls[i].number == SYS_recvfrom && receives(calls[i].fd, begin, i) == 0)
            descriptors[found++] = calls[i].fd;
    }
    return found;
}

/* ---- nothing waits ---- */

START_TEST(returns_at_once)
{
    enum { CALLS = 400 };
    int client;
    size_t receives_seen = 0;
    struct server server = start();
    connect_served(&server, &client, 1);

    trace_start(&server);
    record(&server, CALLS);
    for (size_t i = 0; i < CALLS; i++) {
        bool receive = calls[i].number == SYS_recvfrom;
        ck_assert_msg(receive || is_accept(&calls[i]),
                      "nobody says anything, and the server made system call %ld", calls[i].number);
        ck_assert_msg(calls[i].result == -EAGAIN, "%s returned %ld, and not EAGAIN",
                      receive ? "recv()" : "accept()", calls[i].result);
        receives_seen += receive;
    }
    ck_assert_uint_ge(receives_seen, CALLS / 2 - 1);
    trace_end(&server);
}
END_TEST

/* Sends the pattern from where it was until the kernel takes no more at the moment. */
static void send_pattern(int fd, size_t *sent)
{
    unsigned char block[16384];
    ssize_t taken;
    do {
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = pattern(1, *sent + i);
        taken = send(fd, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        *sent += taken > 0 ? (size_t)taken : 0;
    } while (taken > 0);
}

/* Receives size bytes, and returns how many of them are right up to the first that is not. */
static size_t receive_pattern(int fd, size_t size)
{
    unsigned char block[16384];
    size_t right = 0;
    while (right < size) {
        size_t got = client_receive(fd, block, size - right < sizeof block ? size - right : sizeof block);
        size_t i = 0;
        while (i < got && block[i] == pattern(1, right + i))
            i++;
        right += i;
        if (i == 0 || i < got)
            break;
    }
    return right;
}

/* Follows through the record what the server owes to the client on fd: what it
 * has received from it and not sent back. While it owes, it shall not receive. */
static void follow_debt(int fd, size_t count, long *owed)
{
    for (size_t i = 0; i < count; i++) {
        long moved = calls[i].result > 0 ? calls[i].result : 0;
        if (is_on(&calls[i], SYS_recvfrom, fd)) {
            ck_assert_msg(*owed == 0,
                          "the server received more from a client, before it had sent back %ld bytes", *owed);
            *owed += moved;
        } else if (is_on(&calls[i], SYS_sendto, fd)) {
            *owed -= moved;
        }
        ck_assert_msg(*owed <= MOST_OWED, "the server owes %ld bytes to a client, more than %d", *owed,
                      MOST_OWED);
    }
}

/* Has a client send, and read nothing, until a send() of the server was short.
 * The server is left standing. Returns the server's descriptor of that client. */
static int until_short_send(const struct server *server, int client, size_t *sent, long *owed)
{
    enum { ROUNDS = 50, CALLS = 100 };
    int fd = -1;
    bool is_short = false;

    for (int round = 0; round < ROUNDS && !is_short; round++) {
        send_pattern(client, sent);
        record(server, CALLS);
        for (size_t i = 0; i < CALLS; i++) {
            if (calls[i].number == SYS_recvfrom && calls[i].result > 0)
                fd = calls[i].fd;
            is_short |= is_on(&calls[i], SYS_sendto, fd) && calls[i].result < (long)calls[i].size;
        }
        follow_debt(fd, CALLS, owed);
    }
    ck_assert_msg(is_short, "the client sent %zu bytes and read none, and no send() of the server was short",
                  *sent);
    return fd;
}

START_TEST(keeps_the_rest)
{
    enum { CALLS = 100 };
    size_t sent = 0;
    long owed = 0;
    struct server server = start();
    int client = client_connect(&server);
    int other = client_connect(&server);
    ck_assert_msg(client_gets_echo(other, "hello"), "no echo");

    trace_start(&server);
    int fd = until_short_send(&server, client, &sent, &owed);
    record(&server, CALLS);
    follow_debt(fd, CALLS, &owed);
    trace_end(&server);
    ck_assert_msg(client_gets_echo(other, "hello"), "one client does not read, and another one waits");

    /* Now the client reads at last. */
    size_t right = receive_pattern(client, sent);
    ck_assert_msg(right == sent, "the client sent %zu bytes, and only the first %zu came back right", sent,
                  right);
    client_finish(client);
    ck_assert_msg(client_ending(client) == ENDED, "the connection was not closed after the client's FIN");
}
END_TEST

/* The flags of the server's descriptor, as /proc/PID/fdinfo shows them. */
static unsigned flags_of(const struct server *server, const char *descriptor)
{
    char path[320];
    char line[128];
    unsigned flags = 0;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%s", (int)server->pid, descriptor);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "flags: %o", &flags);
    fclose(file);
    return flags;
}

/* How many sockets the server has open, and how many of them would block. */
struct sockets {
    int open;
    int blocking;
};

static struct sockets sockets_of(const struct server *server)
{
    struct sockets sockets = {0};
    char path[320];
    char what[16];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)server->pid);
    DIR *descriptors = opendir(path);
    if (descriptors == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        ssize_t length = readlinkat(dirfd(descriptors), entry->d_name, what, sizeof what);
        if (length < 7 || memcmp(what, "socket:", 7) != 0 || atoi(entry->d_name) <= STDERR_FILENO)
            continue;
        sockets.open++;
        sockets.blocking += (flags_of(server, entry->d_name) & O_NONBLOCK) == 0;
    }
    closedir(descriptors);
    return sockets;
}

START_TEST(sets_nonblocking)
{
    struct sockets sockets;
    struct server server = start();
    ck_assert_msg(eventually((sockets = sockets_of(&server)).open == 1 && sockets.blocking == 0),
                  "the listening socket has no O_NONBLOCK");
    int client = client_connect(&server);
    ck_assert_msg(eventually((sockets = sockets_of(&server)).open == 2 && sockets.blocking == 0),
                  "the server has %d sockets, for itself and a client, and %d without O_NONBLOCK",
                  sockets.open, sockets.blocking);
    ck_assert_msg(client_gets_echo(client, "hello"), "no echo");
}
END_TEST

START_TEST(keeps_other_flags)
{
    enum { CALLS = 60 };
    size_t changes = 0;
    struct server server = start();
    trace_turn(&server);
    int client = client_connect(&server);
    record(&server, CALLS);

    for (size_t i = 0; i < CALLS; i++) {
        if (calls[i].number != SYS_fcntl || calls[i].second != F_SETFL)
            continue;
        long before = -1;
        for (size_t j = 0; j < i; j++) {
            if (is_on(&calls[j], SYS_fcntl, calls[i].fd) && calls[j].second == F_GETFL)
                before = calls[j].result;
        }
        ck_assert_msg(before >= 0, "F_SETFL on descriptor %d, whose flags were not asked for (F_GETFL)",
                      calls[i].fd);
        ck_assert_msg((long)calls[i].size == (before | O_NONBLOCK),
                      "the flags were %#lo and are set to %#lo, not to %#lo", (unsigned long)before,
                      (unsigned long)calls[i].size, (unsigned long)(before | O_NONBLOCK));
        changes++;
    }
    ck_assert_msg(changes == 1, "a client came, and flags were set %zu times", changes);
    trace_end(&server);
    ck_assert_msg(client_gets_echo(client, "hello"), "no echo");
}
END_TEST

/* ---- one thread for all ---- */

START_TEST(one_thread)
{
    enum { CLIENTS = 1000 };
    static int clients[CLIENTS];
    char text[16];
    char back[16];
    server_choose(nonblocking);
    struct server server = server_start(&(struct server_setup){.descriptors = 2 * CLIENTS});
    int threads = server_threads(&server);
    if (!sanitized())
        ck_assert_int_eq(threads, 1);

    client_connect_many(&server, clients, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++) {
        snprintf(text, sizeof text, "I am %04zu", i);
        client_send(clients[i], text, 9);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        snprintf(text, sizeof text, "I am %04zu", i);
        ck_assert_msg(client_receive(clients[i], back, 9) == 9, "client %zu of %d got no echo", i + 1,
                      CLIENTS);
        ck_assert_msg(memcmp(back, text, 9) == 0, "client %zu sent \"%s\" and got \"%.9s\"", i + 1, text,
                      back);
    }
    ck_assert_int_eq(server_threads(&server), threads);
}
END_TEST

START_TEST(no_room)
{
    enum { CLIENTS = 80 };
    int clients[CLIENTS];
    size_t lost = 0;
    char rule[64];
    struct server server = start_counted();
    /* The array of clients grows for the second time, and there is no memory for it. */
    snprintf(rule, sizeof rule, "realloc:%llu=ENOMEM",
             (unsigned long long)server_calls(&server, "realloc") + 2);
    server_stop(&server, SIGTERM);
    server = server_start(&(struct server_setup){.faults = rule});
    for (size_t i = 0; i < CLIENTS; i++) {
        char back;
        clients[i] = client_connect(&server);
        send(clients[i], "x", 1, MSG_NOSIGNAL);
        lost += client_receive(clients[i], &back, 1) != 1;
    }
    ck_assert_msg(server_faults(&server, "realloc") == 1, "realloc() was called %llu times only",
                  (unsigned long long)server_calls(&server, "realloc"));
    ck_assert_msg(lost == 1, "there was no memory for one of %d clients, and %zu were lost", CLIENTS, lost);
    for (size_t i = 0; i < CLIENTS; i++) {
        char back;
        send(clients[i], "y", 1, MSG_NOSIGNAL);
        lost -= client_receive(clients[i], &back, 1) != 1;
    }
    ck_assert_msg(lost == 0, "more clients were lost than the one for whom there was no memory");
}
END_TEST

START_TEST(one_receive_each)
{
    enum { CLIENTS = 4, CALLS = 60 };
    int clients[CLIENTS];
    int descriptors[CLIENTS + 1];
    size_t sent = 0;
    size_t full = 0;
    struct server server = start();
    connect_served(&server, clients, CLIENTS);

    trace_turn(&server);
    send_pattern(clients[1], &sent); /* more than the server can receive at once */
    record(&server, CALLS);
    for (size_t begin = 0, end; (end = turn_end(begin, CALLS)) <= CALLS; begin = end) {
        size_t found = asked(descriptors, CLIENTS + 1, begin, end);
        for (size_t i = 0; i < found; i++)
            ck_assert_msg(receives(descriptors[i], begin, end) == 1,
                          "in one turn, the server received %zu times from the same client",
                          receives(descriptors[i], begin, end));
    }
    for (size_t i = 0; i < CALLS; i++)
        full += calls[i].number == SYS_recvfrom && calls[i].result == (long)calls[i].size;
    ck_assert_msg(full > 0, "no receive filled the server's buffer: this test has shown nothing");
    trace_end(&server);
}
END_TEST

/* Whether the record of count calls has the server close fd. */
static bool is_closed(int fd, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_on(&calls[i], SYS_close, fd))
            return true;
    }
    return false;
}

START_TEST(nobody_skipped)
{
    enum { CLIENTS = 5, CALLS = 80 };
    int clients[CLIENTS];
    int descriptors[CLIENTS + 1];
    char back;
    size_t turns = 0;
    struct server server = start();
    connect_served(&server, clients, CLIENTS);

    trace_turn(&server);
    close(clients[1]);
    client_send(clients[CLIENTS - 1], "x", 1); /* the last, which takes the place that is free */
    record(&server, CALLS);

    size_t found = asked(descriptors, CLIENTS + 1, 0, CALLS);
    ck_assert_uint_eq(found, CLIENTS);
    for (size_t begin = 0, end; (end = turn_end(begin, CALLS)) <= CALLS; begin = end, turns++) {
        for (size_t i = 0; i < found; i++) {
            size_t times = receives(descriptors[i], begin, end);
            bool left = is_closed(descriptors[i], CALLS);
            ck_assert_msg(times == (left && turns > 0 ? 0 : 1),
                          "in turn %zu after a client left, %s was asked %zu times", turns,
                          left ? "that one" : "another one", times);
        }
    }
    ck_assert_uint_gt(turns, 2);
    trace_end(&server);
    ck_assert_msg(client_receive(clients[CLIENTS - 1], &back, 1) == 1 && back == 'x', "no echo");
}
END_TEST

START_TEST(bounded_accepts)
{
    enum { CROWD = 200, CALLS = 2000 };
    int inside;
    int crowd[CROWD];
    size_t accepted = 0;
    size_t since = 0;
    struct server server = start();
    connect_served(&server, &inside, 1);

    trace_start(&server);
    client_connect_many(&server, crowd, CROWD); /* the kernel connects them; the server stands still */
    record(&server, CALLS);
    int fd = -1; /* of the one inside: the first that is received from */
    for (size_t i = 0; i < CALLS; i++) {
        if (fd < 0 && calls[i].number == SYS_recvfrom)
            fd = calls[i].fd;
        if (is_on(&calls[i], SYS_recvfrom, fd))
            since = 0;
        if (is_accept(&calls[i]) && calls[i].result >= 0) {
            accepted++;
            since++;
        }
        ck_assert_msg(since <= MOST_ACCEPTS, "%zu clients were accepted while the one inside waited", since);
    }
    ck_assert_msg(accepted == CROWD, "in %d calls, %zu of %d clients were accepted", CALLS, accepted, CROWD);
    trace_end(&server);
}
END_TEST

/* ---- what it costs ---- */

/* The value behind name in /proc/PID/status. */
static unsigned long long status_of(const struct server *server, const char *name)
{
    char path[64];
    char line[256];
    unsigned long long value = 0;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/status", (int)server->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            value = strtoull(line + strlen(name), NULL, 10);
            found = true;
        }
    }
    fclose(file);
    if (!found)
        tap_skip("%s does not show %s", path, name);
    return value;
}

/* R: runs or is about to; S: sleeps; T: was stopped by a signal (proc(5)). */
static char state_of(const struct server *server)
{
    char path[64];
    char state = '?';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)server->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL || fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        tap_skip("%s cannot be read", path);
    fclose(file);
    return state;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

START_TEST(never_sleeps)
{
    enum { CLIENTS = 3, CALLS = 50000 };
    int clients[CLIENTS];
    struct server server = start_counted();
    connect_served(&server, clients, CLIENTS);
    int unread = client_connect(&server);
    client_flood(unread, 0);

    unsigned long long slept = status_of(&server, "voluntary_ctxt_switches:");
    uint64_t asked_before = server_failures(&server, "recv");
    uint64_t cpu = server_cpu_ns(&server);
    double wall = seconds();
    char state;
    ck_assert_msg(eventually((state = state_of(&server)) != 'R' ||
                             server_failures(&server, "recv") - asked_before >= CALLS),
                  "%llu failed calls of recv(), and no more",
                  (unsigned long long)(server_failures(&server, "recv") - asked_before));
    wall = seconds() - wall;
    cpu = server_cpu_ns(&server) - cpu;
    slept = status_of(&server, "voluntary_ctxt_switches:") - slept;

    printf("# nonblocking: with nothing to do, %.0f %% of a processor\n", (double)cpu / wall / 1e7);
    fflush(stdout);
    ck_assert_msg(state == 'R', "the server sleeps (state %c)", state);
    ck_assert_int_eq(server_blocked_in(&server, SYS_recvfrom) + server_blocked_in(&server, SYS_sendto), 0);
    ck_assert_msg(slept < CALLS / 1000, "in %d calls, the server gave the processor away %llu times", CALLS,
                  slept);
}
END_TEST

/* The failed calls of recv() and accept(), read while the server stands still. */
struct wasted {
    uint64_t receives;
    uint64_t accepts;
};

static struct wasted wasted_by(const struct server *server)
{
    kill(server->pid, SIGSTOP);
    ck_assert_msg(eventually(state_of(server) == 'T'), "SIGSTOP did not stop the server");
    struct wasted wasted = {
        .receives = server_failures(server, "recv"),
        .accepts = server_failures(server, "accept"),
    };
    kill(server->pid, SIGCONT);
    return wasted;
}

START_TEST(wasted_calls)
{
    static const size_t steps[] = {0, 1, 10, 100};
    enum { TURNS = 1000 };
    int clients[100];
    size_t connected = 0;
    struct server server = start_counted();

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        size_t count = steps[i];
        connect_served(&server, clients + connected, count - connected);
        connected = count;

        struct wasted before = wasted_by(&server);
        double wall = seconds();
        ck_assert_msg(eventually(server_failures(&server, "accept") - before.accepts >= TURNS),
                      "%zu clients are silent, and accept() is not called any more", count);
        wall = seconds() - wall;
        struct wasted after = wasted_by(&server);
        uint64_t turns = after.accepts - before.accepts;
        uint64_t asked_in_vain = after.receives - before.receives;
        printf("# nonblocking: %3zu silent clients, %3.0f wasted calls in each of %.0f turns a second: "
               "%.0f wasted calls a second\n",
               count, (double)(turns + asked_in_vain) / (double)turns, (double)turns / wall,
               (double)(turns + asked_in_vain) / wall);
        fflush(stdout);
        /* The server was stopped in the middle of a turn. */
        ck_assert_msg(asked_in_vain + count >= turns * count && asked_in_vain <= (turns + 1) * count,
                      "%zu clients are silent, and in %llu turns recv() failed %llu times, not once for each",
                      count, (unsigned long long)turns, (unsigned long long)asked_in_vain);
    }
}
END_TEST

/* What START_TEST defines is no constant expression: so the table is made here. */
int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        {"recv with nothing there returns at once with EAGAIN, and so does accept", returns_at_once,
         "With a silent client, each system call of the server is an accept() or a recv(), and each\n"
         "returns EAGAIN: nothing there, ask again.",
         "A socket is not in non-blocking mode, and the server waits in it; or EAGAIN is taken for an error\n"
         "of the connection.",
         THE_API},
        {"a short send keeps the rest, and receives no more while it owes", keeps_the_rest,
         "A client that does not read fills the socket: send() takes less than it was given, then EAGAIN.\n"
         "The rest is kept, never more than 64 KiB; until it is sent the server does not receive from this\n"
         "client. When the client reads at last, it gets every byte.",
         "The result of send() is not compared with what was asked for; or the server goes on receiving, "
         "and\n"
         "keeps more and more for a client that may never read; or it tries again at once, for ever.",
         THE_SERVER},
        {"the listening socket and each client's have O_NONBLOCK", sets_nonblocking,
         "On Linux an accepted socket does not inherit O_NONBLOCK from the listening one: each needs its "
         "own.",
         "fcntl() was forgotten for one of them. It works until the first client is silent.", THE_API},
        {"O_NONBLOCK is added, and other flags stay", keeps_other_flags,
         "F_GETFL, then F_SETFL with the same flags and O_NONBLOCK.",
         "F_SETFL replaces all flags at once: with O_NONBLOCK alone, it wipes those that others have set.",
         THE_API},
        {"one thread holds 1,000 clients", one_thread,
         "1,000 clients are connected at once, each says something, each gets its own words back, and\n"
         "there is one thread.",
         "A fixed limit of clients; or a buffer that is shared by two clients still holds the words of the "
         "other.",
         THE_IDEA},
        {"without memory for one more, that client is turned away, and nobody else", no_room,
         "realloc() fails once while 80 clients come. The one who did not fit is closed, the array stays as "
         "it\n"
         "was, and the next one gets a place.",
         "The result of realloc() is stored before it is looked at: the array is lost, and all with it.",
         THE_SERVER},
        {"each turn receives once from a client, however much it sends", one_receive_each,
         "A client that sends without end gets one recv() a turn, like everybody.",
         "Receiving until EAGAIN before the next client is looked at: one that sends fast enough keeps all\n"
         "others waiting.",
         THE_SERVER},
        {"one leaves, and nobody is skipped or asked twice", nobody_skipped,
         "The last connection in the array takes the place of the one that left, and is asked in the same "
         "turn.",
         "The loop goes on to the next place after a removal, and skips the one that has just moved there.",
         THE_SERVER},
        {"a crowd at the door does not keep those inside waiting", bounded_accepts,
         "200 clients come at once. After at most 64 of them, the one inside is asked again.",
         "accept() until EAGAIN, without a bound: while clients come faster than they are accepted, nobody "
         "is\n"
         "served.",
         THE_SERVER},
        {"it never sleeps: idle, it burns a processor", never_sleeps,
         "A limit of this model. Nothing tells the server that somebody has something to say, so it asks,\n"
         "for ever: always in state R, never giving the processor away.",
         "A socket blocks; or the loop rests between two turns, which costs every client that much latency.",
         THE_IDEA},
        {"each client more is one wasted call more in each turn", wasted_calls,
         "A limit of this model. With n silent clients, each turn is one accept() and n recv(), all in vain.",
         "Not everybody is asked in each turn, or somebody more than once.", WATCH_IT_RUN},
    };

    if (argc > 1)
        nonblocking = argv[1];
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
