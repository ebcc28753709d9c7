/* behaviour_ch06.c - what the echo server on the reactor does, with each of its
 * demultiplexers, and with several loops.
 * Whatever a demultiplexer is asked and answers is read at its system call; of kqueue
 * that can be read where it is chapter 5's kqueue_linux.c, whose calls are those of epoll.
 * Run it as behaviour_ch06 [REACTOR], the path of the server. */
#define _GNU_SOURCE /* the numbers of system calls, and the POSIX functions beside them */

#include "harness.h"
#include "tap.h"
#include "trace.h"

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
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THE_IDEA "the book, chapter 6, \"The idea\""
#define THE_API "the book, chapter 6, \"The API\""
#define THE_SERVER "the book, chapter 6, \"The server, piece by piece\""
#define WHAT_CHANGED "the book, chapter 6, \"What changed\""

/* As in the server: what one receive brings at most, whom one turn lets in, the
 * pause when descriptors are out, and how long a stop may last. */
enum { BUFFER_SIZE = 64 * 1024, MOST_ACCEPTS = 64, TICK_MS = 100, GRACE_MS = 3000 };

static const char *reactor_server = "../ch06-reactor/reactor";

/* ---- the server, with one demultiplexer or the other ---- */

/* The one that is tested; NULL: the one that the server takes by itself. */
static const char *demux;

/* The test NAME_DEMUX runs NAME() with that demultiplexer. */
#define WITH(which, test)      \
    START_TEST(which##_##test) \
    {                          \
        demux = #which;        \
        test();                \
    }                          \
    END_TEST

#define EACH(test) WITH(select, test) WITH(poll, test) WITH(epoll, test) WITH(kqueue, test)

/* Those that hand over a list with each wait, and those that tell the kernel of changes. */
#define LISTED(test) WITH(select, test) WITH(poll, test)
#define TOLD(test) WITH(epoll, test) WITH(kqueue, test)

static bool is_demux(const char *name)
{
    return demux != NULL && strcmp(demux, name) == 0;
}

/* In the server: the epoll of the first loop, if it has one, the listening
 * socket, and the sockets of its clients, in the order in which they came, since
 * the kernel gives the lowest number that is free. */
static int epoll_number;
static int listener;
enum { MOST_CLIENTS = 512 };
static int numbers[MOST_CLIENTS];
static size_t number_count;

/* What the server's descriptor is, as in "socket:[1234]". */
static void kind(const struct server *server, const char *name, char *text, size_t size)
{
    char link[300];
    snprintf(link, sizeof link, "/proc/%d/fd/%s", (int)server->pid, name);
    ssize_t length = readlink(link, text, size - 1);
    text[length < 0 ? 0 : length] = '\0';
}

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The lowest of the server's descriptors of a kind, or -1. Its clients' sockets become numbers[]. */
static int lowest(const struct server *server, const char *prefix)
{
    int found = -1;
    char folder_of[64];
    char text[64];
    snprintf(folder_of, sizeof folder_of, "/proc/%d/fd", (int)server->pid);
    DIR *descriptors = opendir(folder_of);
    if (descriptors == NULL)
        tap_skip("%s: %s", folder_of, strerror(errno));
    number_count = 0;
    for (const struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        int fd = atoi(entry->d_name); /* 0 for "." and ".." */
        kind(server, entry->d_name, text, sizeof text);
        if (fd <= STDERR_FILENO)
            continue;
        if (strncmp(text, "socket:", 7) == 0 && fd != listener && number_count < MOST_CLIENTS)
            numbers[number_count++] = fd;
        if (strncmp(text, prefix, strlen(prefix)) == 0 && (found < 0 || fd < found))
            found = fd;
    }
    closedir(descriptors);
    qsort(numbers, number_count, sizeof *numbers, by_number);
    return found;
}

static void learn_numbers(const struct server *server)
{
    lowest(server, "socket:");
}

static void choose(void)
{
    char options[40] = "";
    if (demux != NULL)
        snprintf(options, sizeof options, "--demux %s", demux);
    server_choose(reactor_server);
    server_options(options);
}

static struct server start(const struct server_setup *setup)
{
    choose();
    struct server server = server_start(setup);
    listener = -1;
    epoll_number = lowest(&server, "anon_inode:[eventpoll]");
    listener = lowest(&server, "socket:");
    ck_assert_msg(listener >= 0, "the server has no listening socket");
    return server;
}

static struct server start_with(const char *option, const char *value)
{
    return start(&(struct server_setup){.arguments = {option, value}});
}

/* A test that reads its system calls: those of kqueue_linux.c are known, those of libkqueue are not. */
static void need_known_calls(const struct server *server)
{
    char path[64];
    char line[512];
    bool known = true;
    if (!is_demux("kqueue"))
        return;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)server->pid);
    FILE *maps = fopen(path, "re");
    if (maps == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, maps) != NULL)
        known &= strstr(line, "libkqueue") == NULL;
    fclose(maps);
    if (!known || epoll_number < 0)
        tap_skip("looks at the system calls of kqueue_linux.c, and this build has another kqueue");
}

/* Connects count clients, one after the other, and has each served once. */
static void connect_served(const struct server *server, int *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        clients[i] = client_connect(server);
        ck_assert_msg(client_gets_echo(clients[i], "hello"), "client %zu of %zu got no echo", i + 1, count);
    }
    learn_numbers(server);
}

/* Each of them gets an echo. why: what has happened before. */
static void all_served(const int *clients, size_t count, const char *why)
{
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(client_gets_echo(clients[i], "and me?"), "%s, and client %zu is not served", why,
                      i + 1);
}

static void rests(const struct server *server)
{
    ck_assert_msg(eventually(!server_alive(server) || server_asleep(server)),
                  "the server does not come to rest: it spins");
    ck_assert_msg(server_alive(server), "the server has ended, on stderr: \"%s\"", server_errors(server));
}

/* The function of the C library that it waits in. */
static const char *wait_function(void)
{
    return is_demux("select") || is_demux("poll") ? demux : "epoll_wait";
}

/* ---- a turn of the loop: a wait call, and what it does then ---- */

enum { MOST_WATCHED = 4096 };

/* A wait call, and who is watched for what meanwhile: POLLIN is to read, POLLOUT to write. */
struct wait {
    struct call call;
    int limit;      /* in ms; -1: it may sleep for ever */
    size_t entries; /* those that the kernel goes through */
    size_t count;
    struct pollfd watched[MOST_WATCHED];
};

static struct wait asked;    /* the one in which the server is */
static struct wait answered; /* the one before it, which has ended */

/* What the server did between these two. */
static struct call calls[20000];
static size_t call_count;
static bool entered; /* the last one has begun, and not ended */

static bool is_select(long number)
{
#ifdef SYS_select
    if (number == SYS_select)
        return true;
#endif
    return number == SYS_pselect6;
}

static bool is_poll(long number)
{
#ifdef SYS_poll
    if (number == SYS_poll)
        return true;
#endif
    return number == SYS_ppoll;
}

static bool is_epoll(long number)
{
#ifdef SYS_epoll_wait
    if (number == SYS_epoll_wait)
        return true;
#endif
    return number == SYS_epoll_pwait;
}

static bool is_wait(const struct call *call)
{
    return is_select(call->number) || is_poll(call->number) || is_epoll(call->number);
}

static bool is_accept(const struct call *call)
{
#ifdef SYS_accept
    if (call->number == SYS_accept)
        return true;
#endif
    return call->number == SYS_accept4;
}

static void note_watched(int fd, short events)
{
    if (fd >= 0 && events != 0 && asked.count < MOST_WATCHED)
        asked.watched[asked.count++] = (struct pollfd){.fd = fd, .events = events};
}

enum { WORD_BITS = 8 * sizeof(long), MOST_WORDS = MOST_WATCHED / WORD_BITS };

/* Reads one of the sets of select(). It is not an fd_set: a server might ask for more. */
static void read_set(const struct server *server, uint64_t address, unsigned long words[MOST_WORDS])
{
    size_t count = (asked.entries + WORD_BITS - 1) / WORD_BITS;
    memset(words, 0, MOST_WORDS * sizeof *words);
    if (address != 0)
        trace_read(server, address, words, (count < MOST_WORDS ? count : MOST_WORDS) * sizeof *words);
}

static bool in_set(const unsigned long *words, size_t fd)
{
    return (words[fd / WORD_BITS] >> fd % WORD_BITS & 1) != 0;
}

/* In ms; of a struct timespec, or a struct timeval, at this address: -1 if that is 0. */
static int read_limit(const struct server *server, uint64_t address, long parts_of_ms)
{
    long time[2];
    if (address == 0)
        return -1;
    trace_read(server, address, time, sizeof time);
    return (int)(time[0] * 1000 + time[1] / parts_of_ms);
}

enum { NS_OF_MS = 1000000, US_OF_MS = 1000 };

static void read_select(const struct server *server)
{
    static unsigned long reading[MOST_WORDS];
    static unsigned long writing[MOST_WORDS];
    const uint64_t *arguments = asked.call.arguments;
    asked.entries = (size_t)arguments[0];
    asked.limit = read_limit(server, arguments[4], asked.call.number == SYS_pselect6 ? NS_OF_MS : US_OF_MS);
    read_set(server, arguments[1], reading);
    read_set(server, arguments[2], writing);
    for (size_t fd = 0; fd < asked.entries; fd++)
        note_watched((int)fd,
                     (short)((in_set(reading, fd) ? POLLIN : 0) | (in_set(writing, fd) ? POLLOUT : 0)));
}

static void read_poll(const struct server *server)
{
    static struct pollfd entries[MOST_WATCHED];
    const uint64_t *arguments = asked.call.arguments;
    asked.entries = (size_t)arguments[1];
    asked.limit =
        asked.call.number == SYS_ppoll ? read_limit(server, arguments[2], NS_OF_MS) : (int)arguments[2];
    trace_read(server, arguments[0], entries, asked.entries * sizeof *entries);
    for (size_t i = 0; i < asked.entries; i++)
        note_watched(entries[i].fd, entries[i].events);
}

/* Its list is in the kernel, which shows it. */
static void read_epoll(const struct server *server)
{
    char name[64];
    char line[256];
    asked.entries = 0;
    asked.limit = (int)asked.call.arguments[3];
    snprintf(name, sizeof name, "/proc/%d/fdinfo/%d", (int)server->pid, epoll_number);
    FILE *file = fopen(name, "re");
    if (file == NULL)
        tap_skip("%s: %s", name, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL) {
        int fd;
        uint32_t events;
        if (sscanf(line, "tfd: %d events: %x", &fd, &events) == 2)
            note_watched(fd, (short)(((events & EPOLLIN) != 0 ? POLLIN : 0) |
                                     ((events & EPOLLOUT) != 0 ? POLLOUT : 0)));
    }
    fclose(file);
}

/* Reads what the wait call in which the server stands asks for. */
static void read_question(const struct server *server)
{
    asked.count = 0;
    if (is_select(asked.call.number))
        read_select(server);
    else if (is_poll(asked.call.number))
        read_poll(server);
    else
        read_epoll(server);
    ck_assert_uint_lt(asked.count, MOST_WATCHED);
}

/* What the server waits for on a descriptor: POLLIN, POLLOUT, or 0. */
static short watched_for(int fd)
{
    int events = 0;
    for (size_t i = 0; i < asked.count; i++)
        events |= asked.watched[i].fd == fd ? asked.watched[i].events : 0;
    return (short)(events & (POLLIN | POLLOUT));
}

/* Lets a call come to its end that is not expected to wait. */
static void leave(const struct server *server, struct call *call)
{
    if (eventually(trace_leave(server, call)))
        return;
    if (is_wait(call))
        ck_abort_msg("a client has sent something, and the server sleeps");
    ck_abort_msg("the server sleeps in system call %ld on descriptor %d, and not where it waits for events",
                 call->number, call->fd);
}

/* Stops the server where a wait call begins: client, which can be served, wakes it. */
static void hold(const struct server *server, int client)
{
    bool served = false;
    char back;
    need_known_calls(server);
    trace_start(server);
    client_send(client, "x", 1);
    for (;;) {
        trace_enter(server, &asked.call);
        if (is_wait(&asked.call) && served)
            break;
        leave(server, &asked.call);
        served |= asked.call.number == SYS_recvfrom && asked.call.result > 0;
    }
    ck_assert_msg(client_receive(client, &back, 1) == 1 && back == 'x', "a client got no echo");
    read_question(server);
}

/* Lets the wait call end. False: it sleeps in it. */
static bool wait_ends(const struct server *server)
{
    call_count = 0;
    entered = false;
    return trace_leave(server, &asked.call);
}

/* Lets the server go on to where this call begins, or its next wait call. fd: -1 is any. */
static void go_to(const struct server *server, long number, int fd)
{
    for (;;) {
        if (entered) {
            leave(server, &calls[call_count]);
            call_count += !is_of_others(calls[call_count].number);
        }
        ck_assert_msg(call_count < sizeof calls / sizeof *calls, "the server does not wait any more");
        struct call *call = &calls[call_count];
        trace_enter(server, call);
        entered = true;
        if (is_wait(call) || (call->number == number && (fd < 0 || call->fd == fd)))
            return;
    }
}

/* Lets the server do what is to be done, and stops it where the next wait call begins. */
static void turn_ends(const struct server *server)
{
    do
        go_to(server, -1, -1);
    while (!is_wait(&calls[call_count]));
    answered = asked;
    asked.call = calls[call_count];
    read_question(server);
}

/* From one wait call to the next. False: the server sleeps. */
static bool turn(const struct server *server)
{
    if (!wait_ends(server))
        return false;
    turn_ends(server);
    return true;
}

/* The same when something has happened for which the server must wake. */
static void woken_turn(const struct server *server)
{
    ck_assert_msg(eventually(turn(server)), "the server sleeps, and nothing wakes it");
}

/* Has it go on until it sleeps, and returns after how many turns. */
static int until_asleep(const struct server *server)
{
    enum { MOST_TURNS = 300 };
    int turns = 0;
    for (; turn(server); turns++)
        ck_assert_msg(turns < MOST_TURNS, "nobody does anything, and the server woke %d times: it spins",
                      MOST_TURNS);
    return turns;
}

/* How often a call was made on fd in the turn; -1: on any. */
static size_t times(long system_call, int fd)
{
    size_t found = 0;
    for (size_t i = 0; i < call_count; i++)
        found += calls[i].number == system_call && (fd < 0 || calls[i].fd == fd);
    return found;
}

/* How often what epoll watches of fd was changed in the turn; -1: of any. */
static size_t changed(int fd)
{
    size_t found = 0;
    for (size_t i = 0; i < call_count; i++)
        found += calls[i].number == SYS_epoll_ctl && (fd < 0 || (int)calls[i].arguments[2] == fd);
    return found;
}

/* How many clients came in; failed: how many calls of accept() brought nobody. */
static size_t accepted(size_t *failed)
{
    size_t came = 0;
    *failed = 0;
    for (size_t i = 0; i < call_count; i++) {
        came += is_accept(&calls[i]) && calls[i].result >= 0;
        *failed += is_accept(&calls[i]) && calls[i].result < 0;
    }
    return came;
}

/* A descriptor of our own for a socket of the server. */
static int copy_of(const struct server *server, int fd)
{
#if defined SYS_pidfd_open && defined SYS_pidfd_getfd
    int process = (int)syscall(SYS_pidfd_open, server->pid, 0);
    int copy = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, fd, 0);
    if (copy < 0)
        tap_skip("the server's descriptors cannot be examined here: pidfd_getfd: %s", strerror(errno));
    close(process);
    return copy;
#else
    (void)server;
    (void)fd;
    tap_skip("the server's descriptors cannot be examined here: no pidfd_getfd(2)");
#endif
}

/* Waits until the kernel would report the server's descriptor as ready: what a
 * client did has arrived. */
static void await_ready(const struct server *server, int fd, short events)
{
    struct pollfd ready = {.fd = copy_of(server, fd), .events = events};
    struct deadline deadline = deadline_start();
    int count = poll(&ready, 1, deadline_left_ms(&deadline));
    close(ready.fd); /* or it would stay in the server's epoll */
    ck_assert_msg(count == 1, "what a client did has not arrived at the server's descriptor %d", fd);
}

/* Waits until so many bytes are there to be received. */
static void await_bytes(const struct server *server, int fd, size_t size)
{
    int waiting = 0;
    int copy = copy_of(server, fd);
    bool came = eventually(ioctl(copy, FIONREAD, &waiting) == 0 && (size_t)waiting == size);
    close(copy);
    ck_assert_msg(came, "a client sent %zu bytes, and the kernel has taken %d", size, waiting);
}

/* Waits until so many clients stand at the door: for a listening socket, TCP_INFO counts them. */
static void await_crowd(const struct server *server, unsigned size)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    int copy = copy_of(server, listener);
    bool came =
        eventually(getsockopt(copy, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_unacked == size);
    close(copy);
    ck_assert_msg(came, "%u clients have connected, and %u wait to be accepted", size, info.tcpi_unacked);
}

static void say(const struct server *server, const int *clients, size_t client, const char *text)
{
    client_send(clients[client], text, strlen(text));
    await_ready(server, numbers[client], POLLIN);
}

static void close_client(const struct server *server, const int *clients, size_t client)
{
    close(clients[client]);
    await_ready(server, numbers[client], POLLIN);
}

static void reset_client(const struct server *server, const int *clients, size_t client)
{
    client_reset(clients[client]);
    await_ready(server, numbers[client], POLLIN);
}

static void gets_back(int client, const char *text)
{
    char back[64] = "";
    size_t size = strlen(text);
    ck_assert_msg(client_receive(client, back, size) == size && memcmp(back, text, size) == 0,
                  "a client waits for \"%s\", and \"%s\" came", text, back);
}

/* ---- waiting ---- */

/* How many threads of the server are blocked in the demultiplexer's system call. */
static int waiting_in_its_call(const struct server *server)
{
    int found = 0;
    if (is_demux("select")) {
#ifdef SYS_select
        found += server_blocked_in(server, SYS_select);
#endif
        found += server_blocked_in(server, SYS_pselect6);
    } else if (is_demux("poll")) {
#ifdef SYS_poll
        found += server_blocked_in(server, SYS_poll);
#endif
        found += server_blocked_in(server, SYS_ppoll);
    } else {
#ifdef SYS_epoll_wait
        found += server_blocked_in(server, SYS_epoll_wait);
#endif
        found += server_blocked_in(server, SYS_epoll_pwait);
    }
    return found;
}

static void waits(void)
{
    int clients[3];
    struct server server = start(NULL);
    need_known_calls(&server);
    connect_served(&server, clients, 3);
    ck_assert_msg(eventually(waiting_in_its_call(&server) == 1), "the server does not wait in %s()",
                  wait_function());
    ck_assert_msg((epoll_number >= 0) == (is_demux("epoll") || is_demux("kqueue")), "the server has %s epoll",
                  epoll_number >= 0 ? "an" : "no");
}
EACH(waits)

START_TEST(waits_with_the_best)
{
    demux = NULL;
    struct server server = start(NULL);
    ck_assert_msg(eventually(waiting_in_its_call(&server) == 1),
                  "no demultiplexer was asked for, and the server does not take epoll, the best on Linux");
}
END_TEST

static void idle(void)
{
    enum { CLIENTS = 20 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    ck_assert_msg(asked.limit == -1, "nothing is to be done, and the server waits for %d ms only",
                  asked.limit);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert_msg(watched_for(numbers[i]) == POLLIN, "nothing is owed, and a client is watched for%s%s",
                      (watched_for(numbers[i]) & POLLIN) != 0 ? " reading" : "",
                      (watched_for(numbers[i]) & POLLOUT) != 0 ? " writing" : "");
    ck_assert_msg(!turn(&server), "nobody says anything, and the server woke");
    trace_end(&server);
}
EACH(idle)

/* The calls for one message, which a client has sent: a receive and a send, and with
 * kqueue_linux.c one that counts what there is to receive. */
static void check_message(int fd)
{
    size_t look = is_demux("kqueue") ? times(SYS_ioctl, fd) : 0;
    ck_assert_msg(times(SYS_recvfrom, fd) == 1 && times(SYS_sendto, fd) == 1 && look <= 1 &&
                      call_count == 2 + look,
                  "for one message the server made %zu system calls, %zu of them recv(), %zu send(), %zu "
                  "epoll_ctl()",
                  call_count, times(SYS_recvfrom, -1), times(SYS_sendto, -1), changed(-1));
}

static void message(void)
{
    enum { CLIENTS = 20, ROUNDS = 3 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    for (size_t i = 0; i < ROUNDS * CLIENTS; i++) {
        size_t client = i % CLIENTS;
        ck_assert_msg(!turn(&server), "nobody says anything, and the server woke");
        client_send(clients[client], "hello", 5);
        woken_turn(&server);
        ck_assert_msg(answered.call.result == 1, "one client spoke, and %s() returned %ld", wait_function(),
                      answered.call.result);
        check_message(numbers[client]);
        gets_back(clients[client], "hello");
    }
    trace_end(&server);
}
EACH(message)

static void cost(void)
{
    static const size_t steps[] = {10, 100, 400};
    static int clients[400];
    size_t count = 0;
    bool asks_for_each = is_demux("select") || is_demux("poll");
    struct server server = start(&(struct server_setup){.descriptors = 500});
    for (size_t step = 0; step < sizeof steps / sizeof *steps; step++) {
        client_connect_many(&server, clients + count, steps[step] - count);
        for (; count < steps[step]; count++)
            ck_assert_msg(client_gets_echo(clients[count], "hello"), "client %zu got no echo", count + 1);
        learn_numbers(&server);
        hold(&server, clients[0]);
        say(&server, clients, count - 1, "x");
        woken_turn(&server);
        gets_back(clients[count - 1], "x");
        size_t looked_at = asks_for_each ? answered.entries : (size_t)answered.call.result;
        size_t expected = is_demux("select") ? (size_t)numbers[number_count - 1] + 1
                          : is_demux("poll") ? count + 2 /* the listening socket, and the wake-up's pipe */
                                             : 1;
        printf("# reactor --demux %s: %3zu clients, one says something: %3zu %s looked at\n", demux, count,
               looked_at,
               is_demux("select") ? "descriptors"
               : asks_for_each    ? "entries"
                                  : "event");
        ck_assert_msg(looked_at == expected, "of %zu clients one speaks, and %zu %s are looked at, not %zu",
                      count, looked_at, asks_for_each ? "descriptors" : "events", expected);
        ck_assert_int_eq(answered.call.result, 1);
        check_message(numbers[count - 1]);
        trace_end(&server);
    }
    fflush(stdout);
}
EACH(cost)

static void batch(void)
{
    enum { CLIENTS = 300, BATCH = 256, MOST_TURNS = 20 };
    static int clients[CLIENTS];
    static size_t served[CLIENTS];
    int turns = 0;
    struct server server = start(&(struct server_setup){.descriptors = CLIENTS + 100});
    client_connect_many(&server, clients, CLIENTS);
    all_served(clients, CLIENTS, "all have come");
    learn_numbers(&server);
    hold(&server, clients[0]);
    for (size_t i = 0; i < CLIENTS; i++)
        say(&server, clients, i, "me");
    for (; turn(&server); turns++) {
        ck_assert_msg(turns < MOST_TURNS, "%d clients spoke once, and the server woke %d times", CLIENTS,
                      turns);
        ck_assert_msg(times(SYS_recvfrom, -1) <= BATCH, "%zu receives in one turn", times(SYS_recvfrom, -1));
        for (size_t i = 0; i < CLIENTS; i++)
            served[i] += times(SYS_recvfrom, numbers[i]);
    }
    trace_end(&server);
    for (size_t i = 0; i < CLIENTS; i++) {
        ck_assert_msg(served[i] == 1,
                      "client %zu of %d spoke once, and the server received %zu times from it", i + 1,
                      CLIENTS, served[i]);
        gets_back(clients[i], "me");
    }
    /* With kqueue, a descriptor may have two events: so half as many descriptors are asked for. */
    int needed = is_demux("kqueue") ? 3 : 2;
    ck_assert_msg(turns >= 2 && turns <= needed, "%d clients spoke at once, and the server woke %d times",
                  CLIENTS, turns);
}
EACH(batch)

/* ---- what the demultiplexer is told ---- */

START_TEST(told_twice_each)
{
    enum { CLIENTS = 20, MESSAGES = 5 };
    int clients[CLIENTS];
    demux = "epoll";
    struct server server = start(&(struct server_setup){.faults = ""});
    int base = server_descriptors(&server);
    rests(&server);
    uint64_t before = server_calls(&server, "epoll_ctl");
    connect_served(&server, clients, CLIENTS);
    for (int i = 0; i < MESSAGES; i++)
        all_served(clients, CLIENTS, "all are there");
    uint64_t inside = server_calls(&server, "epoll_ctl") - before;
    ck_assert_msg(inside == CLIENTS,
                  "%d clients have come, and said %d things each: epoll_ctl() was called "
                  "%llu times",
                  CLIENTS, MESSAGES + 1, (unsigned long long)inside);
    for (size_t i = 0; i < CLIENTS; i++)
        close(clients[i]);
    ck_assert_msg(eventually(server_descriptors(&server) == base), "all have left, and descriptors are open");
    uint64_t all = server_calls(&server, "epoll_ctl") - before;
    ck_assert_msg(all == 2 * (uint64_t)CLIENTS,
                  "%d clients have come and left: epoll_ctl() was called %llu "
                  "times",
                  CLIENTS, (unsigned long long)all);
}
END_TEST

/* One client's debt, followed turn by turn. */
struct debt {
    long owed;
    size_t stalls;
    size_t changes;
};

/* After a turn: what the server owes to client 1, and whether it waits for what it must wait for. */
static void follow(struct debt *debt)
{
    int fd = numbers[1];
    bool before = debt->owed > 0;
    for (size_t i = 0; i < call_count; i++) {
        long moved = calls[i].fd == fd && calls[i].result > 0 ? calls[i].result : 0;
        debt->owed += calls[i].number == SYS_recvfrom ? moved : calls[i].number == SYS_sendto ? -moved : 0;
    }
    ck_assert_msg(debt->owed <= BUFFER_SIZE, "the server owes %ld bytes to a client, more than %d",
                  debt->owed, BUFFER_SIZE);
    bool after = debt->owed > 0;
    debt->stalls += after && !before;
    debt->changes += changed(fd);
    if (is_demux("epoll"))
        ck_assert_msg(changed(fd) == (before != after),
                      "%ld bytes are owed now, %s before, and epoll_ctl() was called %zu times", debt->owed,
                      before ? "some" : "none", changed(fd));
    if (is_demux("kqueue"))
        ck_assert_msg((changed(fd) > 0) == (before != after),
                      "%ld bytes are owed now, %s before, and %zu changes were handed over", debt->owed,
                      before ? "some" : "none", changed(fd));
    short watched = watched_for(fd);
    ck_assert_msg(watched == (after ? POLLOUT : POLLIN),
                  "%ld bytes are owed, and the client is watched for%s%s", debt->owed,
                  (watched & POLLIN) != 0 ? " reading" : "", (watched & POLLOUT) != 0 ? " writing" : "");
}

static void stall(void)
{
    static char block[65536];
    int clients[2];
    size_t sent = 0;
    size_t received = 0;
    ssize_t moved;
    struct debt debt = {0};
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    hold(&server, clients[0]);

    /* It sends and does not read, until the server owes it bytes and sleeps. */
    bool awake = true;
    while (awake || debt.owed == 0) {
        while ((moved = send(clients[1], block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
            sent += (size_t)moved;
        awake = turn(&server);
        if (awake)
            follow(&debt);
    }
    ck_assert_msg(asked.limit == -1, "a client is owed bytes, and the server waits for %d ms only",
                  asked.limit);
    /* Now it reads everything. */
    struct deadline deadline = deadline_start();
    while ((received < sent || debt.owed > 0) && !deadline_over(&deadline)) {
        while ((moved = recv(clients[1], block, sizeof block, MSG_DONTWAIT)) > 0)
            received += (size_t)moved;
        if (turn(&server))
            follow(&debt);
    }
    ck_assert_msg(received == sent, "a client sent %zu bytes and got %zu", sent, received);
    while (turn(&server))
        follow(&debt);
    trace_end(&server);
    printf("# reactor --demux %s: %zu times the client took no more for a while: %zu calls of epoll_ctl()\n",
           demux, debt.stalls, debt.changes);
    fflush(stdout);
    ck_assert_uint_ge(debt.stalls, 1);
}
EACH(stall)

/* In the turn, changes came last: they are handed over by the call that waits then. Returns how many. */
static size_t changes_come_last(void)
{
    size_t first = 0;
    while (first < call_count && calls[first].number != SYS_epoll_ctl)
        first++;
    for (size_t i = first; i < call_count; i++)
        ck_assert_msg(calls[i].number == SYS_epoll_ctl || calls[i].number == SYS_fcntl,
                      "of %zu system calls in a turn, number %zu hands over a change, and number %zu is not "
                      "a change (it is system call %ld): kevent() was called to register only",
                      call_count, first + 1, i + 1, calls[i].number);
    return changed(-1);
}

START_TEST(handed_over)
{
    enum { INSIDE = 3, COME = 5 };
    int clients[INSIDE];
    size_t changes = 0;
    demux = "kqueue";
    struct server server = start(NULL);
    connect_served(&server, clients, INSIDE);
    hold(&server, clients[0]);
    say(&server, clients, 1, "hello");
    for (int i = 0; i < COME; i++)
        client_connect(&server);
    await_crowd(&server, COME);
    say(&server, clients, 2, "hello");
    while (turn(&server))
        changes += changes_come_last();
    ck_assert_msg(changes == COME, "%d clients came, and epoll_ctl() was called %zu times", COME, changes);
    trace_end(&server);
    gets_back(clients[1], "hello");
    gets_back(clients[2], "hello");
}
END_TEST

/* ---- owing, and the end ---- */

static void owing(void)
{
    enum { CLIENTS = 10, UNREAD = 4 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    size_t taken = client_flood(clients[UNREAD], 1);
    rests(&server);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert_msg(i == UNREAD || client_gets_echo(clients[i], "and me?"), "client %zu is not served",
                      i + 1);
    size_t right = client_receive_pattern(clients[UNREAD], taken, 1, 0);
    ck_assert_msg(right == taken, "the client sent %zu bytes, and only the first %zu came back right", taken,
                  right);
    rests(&server);
    ck_assert_msg(client_gets_echo(clients[UNREAD], "again"), "the client got no echo any more");
}
EACH(owing)

static void end_with_data(void)
{
    enum { SIZE = 3 * BUFFER_SIZE + 1, WARM_UP = 16 << 20 };
    static unsigned char data[SIZE];
    int clients[2];
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    /* The kernel gives more room to a connection on which much has come. */
    size_t came = client_echo(clients[1], WARM_UP, 1 << 20, 7);
    ck_assert_msg(came == WARM_UP, "of %d bytes, sent 1 MiB at a time, %zu came back", WARM_UP, came);
    hold(&server, clients[0]);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = pattern(1, i);
    client_send(clients[1], data, SIZE);
    client_finish(clients[1]);
    await_bytes(&server, numbers[1], SIZE);
    await_ready(&server, numbers[1], POLLRDHUP);
    until_asleep(&server);
    trace_end(&server);
    size_t right = client_receive_pattern(clients[1], SIZE, 1, 0);
    ck_assert_msg(right == SIZE, "of %d bytes that came with the end, %zu came back", SIZE, right);
    ck_assert_msg(client_ending(clients[1]) == ENDED, "the connection was not closed");
    ck_assert_msg(client_gets_echo(clients[0], "and me?"), "another client is not served any more");
}
EACH(end_with_data)

static void end_owed(void)
{
    int clients[2];
    unsigned char block[65536];
    size_t sent = 0;
    struct debt debt = {0};
    struct server server = start(NULL);
    connect_served(&server, clients, 2);

    /* Just so much that the server owes a part, and its kernel has room for the FIN. */
    hold(&server, clients[0]);
    while (debt.owed == 0) {
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = pattern(1, sent + i);
        client_send(clients[1], block, sizeof block);
        sent += sizeof block;
        while (turn(&server))
            follow(&debt);
    }
    client_finish(clients[1]);
    await_ready(&server, numbers[1], POLLRDHUP);
    int turns = until_asleep(&server);
    ck_assert_msg(turns == 0, "a client that is owed bytes has ended, and the server woke %d times", turns);
    trace_end(&server);
    size_t right = client_receive_pattern(clients[1], sent, 1, 0);
    ck_assert_msg(right == sent, "a client sent %zu bytes and a FIN, and only the first %zu came back right",
                  sent, right);
    ck_assert_msg(client_ending(clients[1]) == ENDED, "all is paid, and the connection was not closed");
    ck_assert_msg(client_gets_echo(clients[0], "and me?"), "another client is not served any more");
}
EACH(end_owed)

/* ---- lost clients, and who comes in their place ---- */

/* In the turn, the client was closed, once; and the kernel was told before that its descriptor is
 * not to be watched any more. */
static void check_closed(int fd)
{
    bool told = false;
    bool closed = false;
    ck_assert_msg(times(SYS_close, fd) == 1, "a client has left, and its descriptor was closed %zu times",
                  times(SYS_close, fd));
    for (size_t i = 0; i < call_count; i++) {
        bool tells = calls[i].number == SYS_epoll_ctl && (int)calls[i].arguments[2] == fd;
        ck_assert_msg(
            !tells || !closed,
            "a descriptor was closed, and then epoll was told not to watch it: it may be another's");
        told |= tells && calls[i].second == EPOLL_CTL_DEL && calls[i].result == 0;
        closed |= calls[i].number == SYS_close && calls[i].fd == fd;
    }
    ck_assert_msg(told || epoll_number < 0, "a client has left, and was not removed from epoll before");
    ck_assert_msg(watched_for(fd) == 0, "a client has left, and is still watched");
}

static void several_leave(void)
{
    enum { CLIENTS = 8, LEAVE = 3 };
    static const size_t leaving[LEAVE] = {1, 2, 7};
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    reset_client(&server, clients, 1);
    close_client(&server, clients, 2);
    reset_client(&server, clients, 7);
    say(&server, clients, 4, "still here");
    say(&server, clients, 6, "I too");
    woken_turn(&server);
    ck_assert_int_eq(answered.call.result, LEAVE + 2);
    for (size_t i = 0; i < LEAVE; i++)
        check_closed(numbers[leaving[i]]);
    ck_assert_uint_eq(times(SYS_recvfrom, -1), LEAVE + 2);
    ck_assert_uint_eq(times(SYS_close, -1), LEAVE);
    gets_back(clients[4], "still here");
    gets_back(clients[6], "I too");
    int turns = until_asleep(&server);
    ck_assert_msg(turns == 0, "three have left, and the server woke %d times more", turns);

    /* Others come, and get the numbers of those. */
    for (size_t i = 0; i < LEAVE; i++)
        clients[leaving[i]] = client_connect(&server);
    await_crowd(&server, LEAVE);
    woken_turn(&server);
    until_asleep(&server);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert_msg(watched_for(numbers[i]) == POLLIN, "client %zu is not waited for", i + 1);
    trace_end(&server);
    all_served(clients, CLIENTS, "three have left, others came");
}
EACH(several_leave)

static void reset_owed(void)
{
    enum { CLIENTS = 4, LOST = 2 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    client_flood(clients[LOST], 1);
    hold(&server, clients[0]);
    until_asleep(&server);
    ck_assert_msg(watched_for(numbers[LOST]) == POLLOUT, "nothing is owed to it: nothing was shown");
    client_reset(clients[LOST]);
    woken_turn(&server);
    check_closed(numbers[LOST]);
    until_asleep(&server);
    trace_end(&server);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert_msg(i == LOST || client_gets_echo(clients[i], "and me?"),
                      "client %d has gone, and client %zu with it", LOST + 1, i + 1);
}
EACH(reset_owed)

START_TEST(stale_event)
{
    enum { CLIENTS = 3, LEFT = 1, CARRIER = 2 };
    int clients[CLIENTS];
    struct epoll_event stale;
    demux = "epoll";
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    close_client(&server, clients, LEFT);
    ck_assert_msg(wait_ends(&server) && asked.call.result == 1, "one has left, and %ld events are reported",
                  asked.call.result);
    trace_read(&server, asked.call.arguments[1], &stale, sizeof stale);
    turn_ends(&server);

    /* Another comes, and gets its number. */
    clients[LEFT] = client_connect(&server);
    await_crowd(&server, 1);
    woken_turn(&server);
    until_asleep(&server);
    ck_assert_msg(watched_for(numbers[LEFT]) != 0,
                  "the new client did not get the number of the one that left");

    /* In the place of an event, the old one is there. */
    say(&server, clients, CARRIER, "one ");
    ck_assert_msg(wait_ends(&server) && asked.call.result == 1, "a client spoke, and %ld events are reported",
                  asked.call.result);
    trace_write(&server, asked.call.arguments[1], &stale, sizeof stale);
    turn_ends(&server);
    ck_assert_msg(call_count == 0,
                  "an event of a client that had left was taken for one of the client with "
                  "its number: %zu system calls",
                  call_count);
    until_asleep(&server);
    trace_end(&server);
    gets_back(clients[CARRIER], "one ");
    ck_assert_msg(client_gets_echo(clients[LEFT], "hello"), "the new client is not served");
}
END_TEST

static void table_grows(void)
{
    enum { CROWD = 200 };
    int owed;
    int crowd[CROWD];
    /* With glibc, memory that has been freed is written over: who still reads it shall know. */
    setenv("MALLOC_PERTURB_", "165", 1);
    struct server server =
        start(&(struct server_setup){.descriptors = 2 * CROWD, .arguments = {"--idle-timeout", "1000"}});
    int base = server_descriptors(&server);
    connect_served(&server, &owed, 1);
    size_t taken = client_flood(owed, 1); /* what it is owed lies behind the first tables */
    client_connect_many(&server, crowd, CROWD);
    all_served(crowd, CROWD, "many have come at once");
    size_t right = client_receive_pattern(owed, taken, 1, 0);
    ck_assert_msg(right == taken, "%d more came, and of %zu bytes owed to a client only %zu came right",
                  CROWD, taken, right);
    ck_assert_msg(client_gets_echo(owed, "hello"), "the client that came first is not served");

    for (size_t i = 0; i < CROWD; i += 2)
        close(crowd[i]);
    ck_assert_msg(eventually(server_descriptors(&server) == base + 1 + CROWD / 2),
                  "half have left, and the server has %d descriptors", server_descriptors(&server));
    for (size_t i = 0; i < CROWD; i += 2)
        connect_served(&server, &crowd[i], 1);
    all_served(crowd, CROWD, "others have come in their places");
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
EACH(table_grows)

/* ---- calls that fail ---- */

/* Of three wait calls, two are interrupted. And twice there is no room to send. */
static const char *interruptions(void)
{
    enum { RULES = 60 };
    static char text[RULES * 40];
    size_t used = (size_t)snprintf(text, sizeof text, "send:3-4=EAGAIN");
    for (int i = 0; i < RULES; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " %s:%d-%d=EINTR", wait_function(),
                                 3 * i + 2, 3 * i + 3);
    return text;
}

static void interrupted(void)
{
    int clients[2];
    struct server server = start(&(struct server_setup){.faults = interruptions()});
    need_known_calls(&server);
    connect_served(&server, clients, 2);
    for (int i = 0; i < 5; i++)
        ck_assert_msg(client_gets_echo(clients[0], "a debt, twice"),
                      "a wait was interrupted, and an echo is lost");
    ck_assert_uint_eq(server_faults(&server, "send"), 2);
    ck_assert_uint_ge(server_faults(&server, wait_function()), 10);
    rests(&server);
    all_served(clients, 2, "waits were interrupted");
}
EACH(interrupted)

static void wait_fails(void)
{
    enum { FAILURES = 3 };
    int clients[2];
    char faults[64];
    /* The client who comes second, and what it says, are waited for. */
    snprintf(faults, sizeof faults, "%s:4-%d=ENOMEM", wait_function(), 4 + FAILURES - 1);
    struct server server = start(&(struct server_setup){.faults = faults});
    need_known_calls(&server);
    connect_served(&server, clients, 2);
    ck_assert_uint_eq(server_faults(&server, wait_function()), FAILURES);
    ck_assert_msg(server_calls(&server, "nanosleep") == FAILURES,
                  "a wait failed %d times for lack of memory, and the server paused %llu times", FAILURES,
                  (unsigned long long)server_calls(&server, "nanosleep"));
    rests(&server);
    all_served(clients, 2, "there was no memory to wait");
}
LISTED(wait_fails)

static unsigned calls_for(const char *function, size_t count, const char *const arguments[2]);

/* One of the calls with which a client is taken in fails: that client is turned away, and
 * nobody else. inside: how many clients are there before. */
static void turned_away(const char *function, const char *error, size_t inside, const char *timeout)
{
    enum { MOST_INSIDE = 2 };
    int clients[MOST_INSIDE];
    int later;
    char faults[64];
    const char *const arguments[2] = {timeout != NULL ? "--idle-timeout" : NULL, timeout};
    snprintf(faults, sizeof faults, "%s:%u=%s", function, calls_for(function, inside, arguments) + 1, error);
    setenv("MALLOC_PERTURB_", "165", 1); /* see table_grows() */
    struct server server =
        start(&(struct server_setup){.faults = faults, .arguments = {arguments[0], arguments[1]}});
    connect_served(&server, clients, inside);
    int before = server_descriptors(&server);
    int lost = client_connect(&server);
    ck_assert_msg(client_ending(lost) != STILL_OPEN,
                  "%s() failed for a client, and its connection stays open", function);
    ck_assert_uint_eq(server_faults(&server, function), 1);
    rests(&server);
    ck_assert_msg(server_descriptors(&server) == before,
                  "a client was turned away, and the server keeps its descriptor");
    ck_assert_msg(server_failures(&server, "close") == 0,
                  "a client was turned away, and its descriptor was closed twice");
    connect_served(&server, &later, 1);
    all_served(clients, inside, "another client was turned away");
    if (timeout != NULL)
        ck_assert_msg(client_ending(later) == ENDED, "a client is silent, and not closed");
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}

/* How often a function is called to start and to serve so many clients. */
static unsigned calls_for(const char *function, size_t count, const char *const arguments[2])
{
    enum { MOST = 2 };
    int clients[MOST];
    struct server server =
        start(&(struct server_setup){.faults = "", .arguments = {arguments[0], arguments[1]}});
    need_known_calls(&server);
    connect_served(&server, clients, count);
    rests(&server);
    unsigned made = (unsigned)server_calls(&server, function);
    server_stop(&server, SIGTERM);
    for (size_t i = 0; i < count; i++)
        close(clients[i]);
    return made;
}

static void no_memory(void)
{
    turned_away("calloc", "ENOMEM", 2, NULL);
}
EACH(no_memory)

static void not_set_up(void)
{
    turned_away("fcntl", "ENOMEM", 2, NULL);
}
EACH(not_set_up)

static void not_watched(void)
{
    turned_away("epoll_ctl", "ENOMEM", 2, NULL);
}
TOLD(not_watched)

/* Its timer has been set by then, and must not outlive it. */
START_TEST(not_watched_timer)
{
    demux = "epoll";
    turned_away("epoll_ctl", "ENOSPC", 0, "1");
}
END_TEST

START_TEST(no_timer)
{
    demux = "epoll";
    turned_away("realloc", "ENOMEM", 0, "1");
}
END_TEST

static void change_refused(void)
{
    static const char *const none[2] = {NULL, NULL};
    int clients[2];
    int later;
    char faults[64];
    unsigned controls = calls_for("epoll_ctl", 2, none);
    /* With kqueue, READ is not deleted, and WRITE not added; in between kqueue_linux.c asks whether
     * the queue is still there. */
    snprintf(faults, sizeof faults, "epoll_ctl:%u=ENOMEM epoll_ctl:%u=ENOMEM", controls + 1,
             is_demux("kqueue") ? controls + 3 : controls + 1);
    struct server server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, clients, 2);
    int before = server_descriptors(&server);
    client_flood(clients[1], 1);
    ck_assert_msg(eventually(server_faults(&server, "epoll_ctl") > 0), "nothing failed: nothing was shown");
    ck_assert_msg(eventually(!server_alive(&server) || server_descriptors(&server) == before - 1) &&
                      server_alive(&server),
                  "room to send cannot be watched, and the client is kept in vain, or the server has ended");
    ck_assert_msg(client_ending(clients[1]) != STILL_OPEN, "the client was not closed");
    ck_assert_msg(client_gets_echo(clients[0], "and me?"), "one client was lost, and another is not served");
    rests(&server);
    connect_served(&server, &later, 1);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
TOLD(change_refused)

static void door_refused(void)
{
    static const char *const none[2] = {NULL, NULL};
    int client;
    int later;
    char faults[64];
    unsigned controls = calls_for("epoll_ctl", 1, none);
    /* The listening socket is not watched any more, and then it cannot be watched again. */
    snprintf(faults, sizeof faults, "epoll_ctl:%u=ENOMEM", controls + 2);
    struct server server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, &client, 1);
    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_faults(&server, "epoll_ctl") == 1),
                  "out of descriptors, and the listening socket is not asked again");
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "let me in"),
                  "the listening socket could not be watched again, and who waits is not let in");
    connect_served(&server, &later, 1);
    ck_assert_msg(client_gets_echo(client, "and me?"), "the client inside is not served");
    rests(&server);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
TOLD(door_refused)

/* ---- fairness ---- */

static void crowd_bounded(void)
{
    enum { CROWD = 200, MOST_TURNS = 20 };
    int clients[2];
    int crowd[CROWD];
    size_t came = 0;
    size_t failed;
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    hold(&server, clients[0]);
    client_connect_many(&server, crowd, CROWD); /* the kernel connects them; the server stands still */
    await_crowd(&server, CROWD);
    for (int i = 0; i < MOST_TURNS && came < CROWD; i++) {
        say(&server, clients, 1, "x");
        woken_turn(&server);
        size_t now = accepted(&failed);
        ck_assert_msg(now <= MOST_ACCEPTS, "%zu clients were accepted while the one inside waited", now);
        ck_assert_msg(times(SYS_recvfrom, numbers[1]) == 1, "the one inside was not served in that turn");
        gets_back(clients[1], "x");
        came += now;
    }
    ck_assert_msg(came == CROWD, "of %d clients, %zu came in", CROWD, came);
    until_asleep(&server);
    trace_end(&server);
    all_served(crowd, CROWD, "a crowd has come in");
}
EACH(crowd_bounded)

/* Sends until the kernel takes no more at the moment, and takes what has come back. */
static void keep_busy(int client)
{
    static char block[65536];
    while (recv(client, block, sizeof block, MSG_DONTWAIT) > 0)
        continue;
    while (send(client, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue;
}

static void one_turn_each(void)
{
    enum { CLIENTS = 4, TURNS = 30 };
    int clients[CLIENTS];
    size_t full = 0;
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    for (int i = 0; i < TURNS; i++) {
        for (size_t busy = 1; busy <= 2; busy++) {
            keep_busy(clients[busy]);
            await_ready(&server, numbers[busy], POLLIN | POLLOUT);
        }
        say(&server, clients, 3, "x");
        woken_turn(&server);
        ck_assert_msg(times(SYS_recvfrom, numbers[3]) == 1,
                      "two clients send without pause, and another was not served in that turn");
        for (size_t busy = 1; busy <= 2; busy++)
            ck_assert_msg(times(SYS_recvfrom, numbers[busy]) <= 1,
                          "in one turn the server received %zu times from one client",
                          times(SYS_recvfrom, numbers[busy]));
        gets_back(clients[3], "x");
        for (size_t j = 0; j < call_count; j++)
            full += calls[j].number == SYS_recvfrom && calls[j].result == (long)calls[j].size;
    }
    ck_assert_msg(full > 0, "no receive filled the server's buffer: this test has shown nothing");
    trace_end(&server);
}
EACH(one_turn_each)

/* ---- out of descriptors ---- */

/* Has a client come for whom the server, which stands still, has no descriptor.
 * Returns the client, after a turn in which accept() has told so; when: before. */
static int outside(const struct server *server, int64_t *when)
{
    size_t failed;
    server_limit_descriptors(server, (unsigned)server_descriptors(server));
    int client = client_connect(server);
    client_send(client, "let me in", 9);
    await_ready(server, listener, POLLIN);
    *when = now_ms();
    woken_turn(server);
    ck_assert_uint_eq(accepted(&failed), 0);
    ck_assert_msg(failed == 1, "there is no descriptor, and accept() was called %zu times in one turn",
                  failed);
    return client;
}

static void full_unasked(void)
{
    enum { CLIENTS = 3, MESSAGES = 20, ATTEMPTS = 3, MOST_TURNS = 300 };
    int clients[CLIENTS];
    int64_t when;
    size_t failed;
    int attempts = 1;
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    int waiting = outside(&server, &when);

    for (int i = 0; i < MOST_TURNS && (i < MESSAGES || attempts < ATTEMPTS); i++) {
        ck_assert_msg(asked.limit != -1 || watched_for(listener) != 0,
                      "a client waits for a descriptor, and the server may sleep for ever");
        bool busy = i < MESSAGES;
        if (busy)
            say(&server, clients, 1, "busy");
        int64_t before = now_ms();
        woken_turn(&server);
        if (busy)
            gets_back(clients[1], "busy");
        ck_assert_uint_eq(accepted(&failed), 0);
        ck_assert_uint_le(failed, 1);
        /* A slow machine may need as long for a turn as the server leaves the listening socket alone. */
        ck_assert_msg(failed == 0 || now_ms() - when >= TICK_MS,
                      "there was no descriptor a moment ago, and accept() is called again");
        if (failed > 0) {
            when = before;
            ck_assert_msg(watched_for(listener) == 0,
                          "there is no descriptor, and the listening socket is still watched: it is ready");
        }
        attempts += (int)failed;
    }
    ck_assert_msg(attempts >= ATTEMPTS, "a client waits for a descriptor, and is not asked in again");
    trace_end(&server);
    server_limit_descriptors(&server, 1000); /* and nobody leaves */
    gets_back(waiting, "let me in");
}
EACH(full_unasked)

static void full_leaves(void)
{
    enum { CLIENTS = 3 };
    int clients[CLIENTS];
    int64_t when;
    size_t failed;
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    int waiting = outside(&server, &when);

    close_client(&server, clients, 1);
    bool left = false;
    while (!left) { /* but for a tick that comes just now, in the first turn */
        woken_turn(&server);
        left = times(SYS_close, numbers[1]) > 0;
    }
    if (accepted(&failed) == 0) { /* in that turn its event may have come before */
        ck_assert_msg(watched_for(listener) != 0,
                      "a client has left, one waits outside, and the listening socket is not watched");
        woken_turn(&server);
    }
    ck_assert_msg(accepted(&failed) == 1, "a client has left, and the one who waits outside is not let in");
    /* There is no descriptor again, and accept() says so though nobody waits: one more pause. */
    ck_assert_msg(eventually(((void)turn(&server), asked.limit == -1)),
                  "nobody waits any more, and the server waits for %d ms only", asked.limit);
    trace_end(&server);
    gets_back(waiting, "let me in");
}
EACH(full_leaves)

static void full_counted(void)
{
    enum { CLIENTS = 3, ATTEMPTS = 6 };
    int clients[CLIENTS];
    struct server server = start(&(struct server_setup){.faults = ""});
    need_known_calls(&server);
    connect_served(&server, clients, CLIENTS);
    rests(&server);
    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    uint64_t failures = server_failures(&server, "accept");
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_failures(&server, "accept") > failures), "accept() did not fail");

    int64_t wall = now_ms();
    uint64_t wakeups = server_calls(&server, wait_function());
    failures = server_failures(&server, "accept");
    ck_assert_msg(eventually(server_failures(&server, "accept") >= failures + ATTEMPTS),
                  "a client waits for a descriptor, and is not asked in again");
    wakeups = server_calls(&server, wait_function()) - wakeups;
    failures = server_failures(&server, "accept") - failures;
    wall = now_ms() - wall;
    printf("# reactor --demux %s: out of descriptors, in %lld ms: %llu calls of accept(), %llu of %s()\n",
           demux, (long long)wall, (unsigned long long)failures, (unsigned long long)wakeups,
           wait_function());
    fflush(stdout);
    /* The counters are read one after the other, while the server goes on. */
    ck_assert_msg((int64_t)failures <= wall / TICK_MS + 1, "in %lld ms accept() failed %llu times",
                  (long long)wall, (unsigned long long)failures);
    ck_assert_msg(wakeups <= 2 * failures + 2, "accept() failed %llu times, and the server woke %llu times",
                  (unsigned long long)failures, (unsigned long long)wakeups);
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "thanks"),
                  "there are descriptors again, and the client is not served");
}
EACH(full_counted)

static void full_system(void)
{
    enum { INSIDE = 2, FAILURES = 4 };
    static const char *const errors[FAILURES] = {"ENFILE", "ENOBUFS", "ENOMEM", "EMFILE"};
    int clients[INSIDE + 1];
    char faults[200];
    size_t used = 0;
    for (size_t i = 0; i < FAILURES; i++)
        used += (size_t)snprintf(faults + used, sizeof faults - used, " accept:+%zu=%s", INSIDE + 1 + i,
                                 errors[i]);
    struct server server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, clients, INSIDE);
    int64_t began = now_ms();
    connect_served(&server, clients + INSIDE, 1); /* nobody has left */
    ck_assert_uint_eq(server_faults(&server, "accept"), FAILURES);
    ck_assert_msg(now_ms() - began >= FAILURES * (TICK_MS - 1),
                  "accept() failed %d times, and was called again without a pause: all took %lld ms",
                  FAILURES, (long long)(now_ms() - began));
    all_served(clients, INSIDE + 1, "the system was short of descriptors");
}
EACH(full_system)

START_TEST(full_no_timer)
{
    static const char *const none[2] = {NULL, NULL};
    enum { FAILURES = 3 };
    int client;
    char faults[64];
    unsigned before = calls_for("realloc", 1, none);
    snprintf(faults, sizeof faults, "realloc:%u-%u=ENOMEM", before + 1, before + FAILURES);
    struct server server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, &client, 1);
    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_faults(&server, "realloc") == FAILURES),
                  "there is no memory for a timer, and nobody tries again");
    ck_assert_msg(client_gets_echo(client, "and me?"), "the client inside is not served");
    ck_assert_msg(server_calls(&server, "nanosleep") == FAILURES,
                  "no timer could be set %d times, and the server paused %llu times", FAILURES,
                  (unsigned long long)server_calls(&server, "nanosleep"));
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "let me in"), "the client is not let in");
}
END_TEST

/* ---- silence ---- */

enum { TIMEOUT_MS = 1000 }; /* of --idle-timeout 1 */

static void silent(void)
{
    struct server server = start_with("--idle-timeout", "1");
    int base = server_descriptors(&server);
    int64_t began = now_ms();
    int client = client_connect(&server);
    ck_assert_msg(client_ending(client) == ENDED, "a client says nothing, and is not closed");
    ck_assert_msg(now_ms() - began >= TIMEOUT_MS - 10, "a client was closed after %lld ms, and not %d",
                  (long long)(now_ms() - began), TIMEOUT_MS);
    ck_assert_int_eq(server_descriptors(&server), base);
    rests(&server);
}
EACH(silent)

START_TEST(silent_for_ever)
{
    struct server server = start(NULL);
    int client = client_connect(&server);
    ck_assert_msg(client_hears_nothing(client, 2 * TIMEOUT_MS),
                  "no timeout was asked for, and a client is closed");
}
END_TEST

/* One client talks while two others, one after the other, are closed for their silence. Returns
 * whether it is there still; *silence becomes the longest time between two of its words, in ms,
 * and *words how many there were. */
static bool outlives_two(const struct server *server, int64_t *silence, unsigned *words)
{
    int talker = client_connect(server);
    int64_t last = now_ms();
    *silence = 0;
    *words = 0;
    for (int i = 0; i < 2; i++) {
        int other = client_connect(server);
        while (client_hears_nothing(other, 20)) {
            int64_t before = now_ms();
            bool there = talks(talker);
            *silence = now_ms() - last > *silence ? now_ms() - last : *silence;
            last = before;
            ++*words;
            if (!there)
                return false;
        }
        close(other);
    }
    close(talker);
    return true;
}

START_TEST(talker)
{
    enum { TRIES = 10 };
    demux = "epoll";
    struct server server = start(&(struct server_setup){.faults = "", .arguments = {"--idle-timeout", "1"}});
    for (int i = 0; i < TRIES; i++) {
        int64_t silence;
        unsigned words;
        int64_t began = now_ms();
        uint64_t wakeups = server_calls(&server, "epoll_wait");
        if (outlives_two(&server, &silence, &words)) {
            wakeups = server_calls(&server, "epoll_wait") - wakeups;
            /* Three come, two are closed, one is put off, once a second; and one leaves. */
            uint64_t most = words + 6 + (uint64_t)(now_ms() - began) / TIMEOUT_MS;
            ck_assert_msg(wakeups <= most, "a client said %u words, and the server woke %llu times", words,
                          (unsigned long long)wakeups);
            return;
        }
        /* On a machine with too much to do, the talker may have been silent too long. */
        ck_assert_msg(silence > TIMEOUT_MS / 2,
                      "a client that was never silent for longer than %lld ms was closed",
                      (long long)silence);
    }
    tap_skip("this machine is too slow: a client that wanted to speak all the time could not");
}
END_TEST

START_TEST(spoke_once)
{
    struct server server = start_with("--idle-timeout", "1");
    int client = client_connect(&server);
    client_hears_nothing(client, TIMEOUT_MS / 3); /* its timer runs, and will come up too early */
    int64_t spoke = now_ms();
    ck_assert_msg(client_gets_echo(client, "hello"), "no echo");
    ck_assert_msg(client_ending(client) == ENDED, "a client spoke once, then fell silent, and is not closed");
    ck_assert_msg(now_ms() - spoke >= TIMEOUT_MS - 10,
                  "a client was closed %lld ms after it had spoken, and not %d",
                  (long long)(now_ms() - spoke), TIMEOUT_MS);
}
END_TEST

START_TEST(owed_is_not_silent)
{
    struct server server = start_with("--idle-timeout", "1");
    int owed = client_connect(&server);
    size_t taken = client_flood(owed, 1);
    for (int i = 0; i < 2; i++)
        ck_assert_msg(client_ending(client_connect(&server)) == ENDED, "a silent client is not closed");
    size_t right = client_receive_pattern(owed, taken, 1, 0);
    ck_assert_msg(right == taken, "a client is owed %zu bytes, and has got %zu when it is closed", taken,
                  right);
    ck_assert_msg(client_ending(owed) == ENDED, "all is paid, the client is silent, and not closed");
}
END_TEST

static void put_off_for_nothing(void)
{
    enum { CLIENTS = 5, MESSAGES = 20 };
    int clients[CLIENTS];
    struct server server = start_with("--idle-timeout", "1000");
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    ck_assert_msg(asked.limit > 0, "no timer is set: nothing was shown");
    for (size_t i = 0; i < MESSAGES; i++) {
        client_send(clients[i % CLIENTS], "hello", 5);
        woken_turn(&server);
        check_message(numbers[i % CLIENTS]);
        gets_back(clients[i % CLIENTS], "hello");
        ck_assert_msg(!turn(&server), "nobody says anything, and the server woke");
    }

    /* And who has left has no timer any more. */
    for (size_t i = 0; i < CLIENTS; i++)
        close_client(&server, clients, i);
    woken_turn(&server);
    until_asleep(&server);
    ck_assert_msg(asked.limit == -1, "all have left, and the server waits for %d ms only", asked.limit);
    trace_end(&server);
}
EACH(put_off_for_nothing)

START_TEST(next_in_place)
{
    int first;
    setenv("MALLOC_PERTURB_", "165", 1); /* see table_grows() */
    struct server server = start_with("--idle-timeout", "1");
    int base = server_descriptors(&server);
    connect_served(&server, &first, 1);
    int place = numbers[0];
    client_hears_nothing(first, TIMEOUT_MS / 2); /* half of its time is over */
    close(first);
    ck_assert_msg(eventually(server_descriptors(&server) == base),
                  "a client has left, and its descriptor is open");
    int64_t began = now_ms();
    int second = client_connect(&server);
    ck_assert(eventually(server_descriptors(&server) == base + 1));
    learn_numbers(&server);
    ck_assert_int_eq(numbers[0], place);
    ck_assert_msg(client_ending(second) == ENDED,
                  "a client has the number of one that left, is silent, and is not closed");
    ck_assert_msg(now_ms() - began >= TIMEOUT_MS - 10,
                  "a client was closed after %lld ms, and not %d: by the timer of the one before",
                  (long long)(now_ms() - began), TIMEOUT_MS);
    rests(&server);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
END_TEST

/* ---- options ---- */

/* Each of these values ends the server with status 2 and one line that names the option. */
static void check_wrong(const char *option, const char *const *values)
{
    demux = NULL;
    choose();
    for (; *values != NULL; values++) {
        struct run run = run_program((const char *const[]){option, *values, "--port", "0", NULL});
        const char *end = strchr(run.err, '\n');
        ck_assert_msg(run.status == 2, "%s \"%s\": the status is %d", option, *values, run.status);
        ck_assert_msg(end != NULL && end[1] == '\0' && strstr(run.err, option) != NULL,
                      "%s \"%s\": on stderr is \"%s\"", option, *values, run.err);
        ck_assert_str_eq(run.out, "");
    }
}

START_TEST(wrong_demux)
{
    check_wrong("--demux", (const char *const[]){"none", "", "EPOLL", "epoll ", "pol", "iocp", NULL});
}
END_TEST

START_TEST(wrong_loops)
{
    check_wrong("--loops",
                (const char *const[]){"0", "-1", "65", "x", "", "2x", "1.5", "99999999999999999999", NULL});
}
END_TEST

START_TEST(wrong_timeouts)
{
    check_wrong("--idle-timeout",
                (const char *const[]){"0", "-1", "x", "", "1x", "1000001", "99999999999999999999", NULL});
}
END_TEST

/* ---- signals ---- */

static void stop(void)
{
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        int clients[3];
        struct server server = start(NULL);
        connect_served(&server, clients, 3);
        rests(&server);
        ck_assert_int_eq(server_stop(&server, signals[i]), 0);
        for (int j = 0; j < 3; j++)
            ck_assert_msg(client_ending(clients[j]) == ENDED, "a stop, and a client was not closed");
    }
}
EACH(stop)

static void stop_before_wait(void)
{
    /* How many clients it takes until that moment; they say something. */
    static const struct {
        const char *function;
        int call;
        int clients;
    } moments[] = {{"listen", 1, 0}, {NULL, 1, 0}, {NULL, 3, 1}, {"accept", 2, 1}};
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        char fault[64];
        snprintf(fault, sizeof fault, "%s:%d=SIGTERM",
                 moments[i].function != NULL ? moments[i].function : wait_function(), moments[i].call);
        choose();
        struct server server = server_start(&(struct server_setup){.faults = fault});
        for (int j = 0; j < moments[i].clients; j++) {
            int client = client_connect(&server);
            send(client, "hello", 5, MSG_NOSIGNAL); /* fails when it has been closed */
        }
        int status = server_wait(&server);
        ck_assert_msg(status == 0, "a signal at %s, and the status is %d", fault, status);
    }
}
EACH(stop_before_wait)

START_TEST(stop_blocked)
{
    static const int signals[] = {SIGTERM, SIGINT};
    sigset_t blocked;
    sigset_t before;
    sigemptyset(&blocked);
    for (int i = 0; i < 2; i++)
        sigaddset(&blocked, signals[i]);
    for (int i = 0; i < 2; i++) {
        sigprocmask(SIG_BLOCK, &blocked, &before); /* the server inherits it */
        struct server server = start(NULL);
        sigprocmask(SIG_SETMASK, &before, NULL);
        ck_assert_int_eq(server_stop(&server, signals[i]), 0);
    }
}
END_TEST

static void stop_ready(void)
{
    enum { INSIDE = 40, OUTSIDE = 200 }; /* more than two turns let in */
    int clients[INSIDE + OUTSIDE];
    struct server server = start(NULL);
    connect_served(&server, clients, INSIDE);
    hold(&server, clients[0]);
    for (size_t i = 0; i < INSIDE; i++)
        say(&server, clients, i, "last words");
    for (size_t i = INSIDE; i < INSIDE + OUTSIDE; i++) {
        clients[i] = client_connect(&server);
        client_send(clients[i], "last words", 10);
    }
    await_crowd(&server, OUTSIDE);
    kill(server.pid, SIGTERM);
    trace_end(&server);
    for (size_t i = 0; i < INSIDE + OUTSIDE; i++) {
        gets_back(clients[i], "last words");
        ck_assert_msg(client_ending(clients[i]) == ENDED, "client %zu was not closed as it should be", i + 1);
    }
    ck_assert_int_eq(server_wait(&server), 0);
}
EACH(stop_ready)

/* Has a client send so much that the server owes it bytes, and nothing that has not arrived. */
static size_t send_until_owed(const struct server *server, int client, unsigned seed)
{
    unsigned char block[65536];
    size_t sent = 0;
    uint64_t before = server_failures(server, "send"); /* EAGAIN */
    while (server_failures(server, "send") == before) {
        int under_way = 0;
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = pattern(seed, sent + i);
        client_send(client, block, sizeof block);
        sent += sizeof block;
        ck_assert_msg(eventually(ioctl(client, SIOCOUTQ, &under_way) == 0 && under_way == 0),
                      "%d bytes of a client do not arrive", under_way);
        rests(server);
    }
    return sent;
}

/* Clients who are owed bytes; the stop comes, with so many signals; then they read. */
static void stop_with_debts(const struct server_setup *setup, int signals)
{
    enum { CLIENTS = 5 };
    int clients[CLIENTS];
    size_t sent[CLIENTS];
    struct server server = start(setup);
    connect_served(&server, clients, CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++)
        sent[i] = send_until_owed(&server, clients[i], i);
    for (int i = 0; i < signals; i++) {
        kill(server.pid, i % 2 == 0 ? SIGTERM : SIGINT);
        rests(&server); /* between two, it has done what the first one says */
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        size_t right = client_receive_pattern(clients[i], sent[i], i, 0);
        ck_assert_msg(right == sent[i],
                      "%zu bytes had arrived before the stop, and the first %zu came back right", sent[i],
                      right);
        ck_assert_msg(client_ending(clients[i]) == ENDED, "client %u was not closed as it should be", i + 1);
    }
    ck_assert_int_eq(server_wait(&server), 0);
}

static void stop_owed(void)
{
    stop_with_debts(&(struct server_setup){.faults = ""}, 1);
}
EACH(stop_owed)

START_TEST(stop_again)
{
    stop_with_debts(&(struct server_setup){.faults = ""}, 10);
}
END_TEST

/* A child of this process: echoes on its own connection, until that ends. */
static pid_t pump(const struct server *server, size_t piece)
{
    int client = client_connect(server);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        client_echo(client, SIZE_MAX, piece, 1);
        _exit(0);
    }
    close(client);
    return pid;
}

static void stop_under_load(void)
{
    enum { PUMPS = 4, RECEIVES = 2000 };
    pid_t pumps[PUMPS];
    struct server server = start(&(struct server_setup){.faults = ""});
    for (size_t i = 0; i < PUMPS; i++)
        pumps[i] = pump(&server, i % 2 == 0 ? 100 : 1 << 20);
    ck_assert_msg(eventually(server_calls(&server, "recv") > RECEIVES), "the server does not serve");
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
    for (size_t i = 0; i < PUMPS; i++)
        ck_assert_msg(eventually(waitpid(pumps[i], NULL, WNOHANG) == pumps[i]),
                      "the server has ended, and a client has not seen it");
}
EACH(stop_under_load)

START_TEST(stop_over)
{
    struct server server = start(&(struct server_setup){.faults = ""});
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
    unsigned closes = (unsigned)server_calls(&server, "close");
    /* Once more, with a signal that comes in the last call of close(), when all is over. */
    char fault[64];
    snprintf(fault, sizeof fault, "close:%u=SIGTERM", closes);
    server = start(&(struct server_setup){.faults = fault});
    int status = server_stop(&server, SIGTERM);
    ck_assert_uint_eq(server_faults(&server, "close"), 1);
    ck_assert_msg(status == 0, "a second signal came when the stop was over, and the status is %d", status);
}
END_TEST

START_TEST(sigpipe)
{
    int clients[2];
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    for (int i = 0; i < 3; i++) {
        kill(server.pid, SIGPIPE);
        rests(&server);
        ck_assert_msg(server_alive(&server), "SIGPIPE has ended the server");
    }
    all_served(clients, 2, "SIGPIPE has come");
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
END_TEST

/* A client does not read, and the stop comes: it lasts for as long as it may, and no longer. */
static void check_grace(struct server *server, int client)
{
    client_flood(client, 1);
    rests(server);
    int64_t began = now_ms();
    ck_assert_int_eq(server_stop(server, SIGTERM), 0);
    ck_assert_msg(now_ms() - began >= GRACE_MS - 10,
                  "a client has not taken its bytes, and the server has ended after %lld ms, not %d",
                  (long long)(now_ms() - began), GRACE_MS);
}

START_TEST(grace)
{
    int client;
    struct server server = start(NULL);
    connect_served(&server, &client, 1);
    check_grace(&server, client);
}
END_TEST

/* ---- several loops ---- */

enum { MOST_LOOPS = 64 };

/* The threads of the server that wait in a demultiplexer. */
static pid_t loops[MOST_LOOPS];
static size_t loop_count;

static void contents_of(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    size_t got = file != NULL ? fread(text, 1, size - 1, file) : 0;
    text[got] = '\0';
    if (file != NULL)
        fclose(file);
}

static size_t learn_loops(const struct server *server)
{
    char path[400];
    char text[256];
    snprintf(path, sizeof path, "/proc/%d/task", (int)server->pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    loop_count = 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char *end;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/syscall", (int)server->pid, entry->d_name);
        contents_of(path, text, sizeof text);
        struct call call = {.number = strtol(text, &end, 10)};
        if (end != text && is_wait(&call) && loop_count < MOST_LOOPS)
            loops[loop_count++] = (pid_t)strtol(entry->d_name, NULL, 10);
    }
    closedir(folder);
    qsort(loops, loop_count, sizeof *loops, by_number);
    return loop_count;
}

/* How often a thread has gone to sleep. */
static unsigned long sleeps_of(const struct server *server, pid_t thread)
{
    char path[64];
    char text[4096];
    snprintf(path, sizeof path, "/proc/%d/task/%d/status", (int)server->pid, (int)thread);
    contents_of(path, text, sizeof text);
    const char *line = strstr(text, "\nvoluntary_ctxt_switches:");
    if (line != NULL)
        return strtoul(line + strlen("\nvoluntary_ctxt_switches:"), NULL, 10);
    tap_skip("%s does not say how often a thread has slept", path);
}

static struct server start_loops(const char *count)
{
    size_t wanted = strtoul(count, NULL, 10);
    struct server server = start_with("--loops", count);
    need_known_calls(&server);
    ck_assert_msg(eventually(learn_loops(&server) == wanted), "--loops %s, and %zu threads wait for events",
                  count, loop_count);
    return server;
}

/* How many loops have slept once more than before; found is the last of them. */
static size_t woken_loops(const struct server *server, const unsigned long *before, size_t *found)
{
    size_t woken = 0;
    for (size_t i = 0; i < loop_count; i++) {
        if (sleeps_of(server, loops[i]) != before[i]) {
            woken++;
            *found = i;
        }
    }
    return woken;
}

/* Which loop serves a client: the one whose thread wakes when it says something. */
static size_t loop_of(const struct server *server, int client)
{
    unsigned long before[MOST_LOOPS] = {0};
    size_t found = 0;
    rests(server);
    for (size_t i = 0; i < loop_count; i++)
        before[i] = sleeps_of(server, loops[i]);
    ck_assert_msg(client_gets_echo(client, "whose?"), "a client got no echo");
    rests(server);
    /* A thread that loses its processor just as it falls asleep has not slept yet, but looks like it. */
    (void)eventually(woken_loops(server, before, &found) > 0);
    size_t woken = woken_loops(server, before, &found);
    ck_assert_msg(woken == 1, "one client spoke, and %zu of %zu threads woke", woken, loop_count);
    return found;
}

/* Connects clients until each of count loops has one: clients[i] is served by loop i. */
static void one_for_each_loop(const struct server *server, int *clients, size_t count)
{
    enum { MOST = 400 };
    size_t missing = count;
    for (size_t i = 0; i < count; i++)
        clients[i] = -1;
    for (int i = 0; i < MOST && missing > 0; i++) {
        int client = client_connect(server);
        ck_assert_msg(client_gets_echo(client, "hello"), "a client got no echo");
        size_t loop = loop_of(server, client);
        ck_assert_uint_lt(loop, count);
        if (clients[loop] < 0) {
            clients[loop] = client;
            missing--;
        } else {
            close(client);
        }
    }
    ck_assert_msg(missing == 0, "%d clients have come, and %zu of %zu loops have served none", MOST, missing,
                  count);
    rests(server);
}

/* How many sockets listen on the server's port. */
static size_t listening_sockets(const struct server *server)
{
    char path[64];
    char line[512];
    size_t found = 0;
    snprintf(path, sizeof path, "/proc/%d/net/tcp", (int)server->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned port;
        unsigned state;
        if (sscanf(line, " %*d: %*x:%x %*x:%*x %x", &port, &state) == 2 && port == server->port)
            found += state == TCP_LISTEN;
    }
    fclose(file);
    return found;
}

START_TEST(loops_have_their_own)
{
    static const char *const counts[] = {"1", "2", "5", "64"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct server server = start_loops(counts[i]);
        size_t wanted = strtoul(counts[i], NULL, 10);
        ck_assert_msg(listening_sockets(&server) == wanted, "--loops %s, and %zu sockets listen on the port",
                      counts[i], listening_sockets(&server));
        ck_assert_msg(sanitized() || server_threads(&server) == (int)wanted,
                      "--loops %s, and there are %d "
                      "threads",
                      counts[i], server_threads(&server));
        ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
    }
}
END_TEST

static void loops_share_clients(void)
{
    enum { CLIENTS = 64, LOOPS = 4 };
    int clients[CLIENTS];
    size_t served[LOOPS] = {0};
    struct server server = start_loops("4");
    connect_served(&server, clients, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++) {
        size_t loop = loop_of(&server, clients[i]);
        served[loop]++;
        for (int j = 0; j < 2; j++)
            ck_assert_msg(loop_of(&server, clients[i]) == loop, "a client has moved to another loop");
    }
    printf("# reactor --demux %s --loops 4: of %d clients, the loops serve %zu, %zu, %zu and %zu\n", demux,
           CLIENTS, served[0], served[1], served[2], served[3]);
    fflush(stdout);
    for (size_t i = 0; i < LOOPS; i++)
        ck_assert_msg(served[i] > 0, "%d clients have come, and loop %zu serves none", CLIENTS, i + 1);
}
EACH(loops_share_clients)

/* One thread of the server, for the tracer. */
static struct server thread_of(const struct server *server, pid_t thread)
{
    struct server of = *server;
    of.pid = thread;
    return of;
}

START_TEST(loops_share_nothing)
{
    int clients[2];
    struct call call;
    struct server server = start_loops("2");
    one_for_each_loop(&server, clients, 2);
    for (size_t i = 0; i < 2; i++) {
        /* One loop has received, and stands still before it sends. */
        struct server thread = thread_of(&server, loops[i]);
        trace_start(&thread);
        client_send(clients[i], "for the one", 11);
        for (trace_enter(&thread, &call); call.number != SYS_sendto; trace_enter(&thread, &call))
            leave(&thread, &call);
        /* The other one goes on. */
        for (int j = 0; j < 3; j++)
            ck_assert_msg(client_gets_echo(clients[1 - i], "for another"),
                          "one loop is held up, and a client of another is not served");
        trace_end(&thread);
        gets_back(clients[i], "for the one");
    }
}
END_TEST

START_TEST(loops_without_lock)
{
    enum { CALLS = 4000 };
    int clients[2];
    pid_t pumps[2];
    demux = "epoll";
    if (sanitized())
        tap_skip("a sanitizer takes locks of its own");
    struct server server = start_loops("2");
    one_for_each_loop(&server, clients, 2);
    for (size_t i = 0; i < 2; i++) { /* both are busy at the same time */
        pumps[i] = fork();
        ck_assert_int_ge(pumps[i], 0);
        if (pumps[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            client_echo(clients[i], SIZE_MAX, 100, 1);
            _exit(0);
        }
    }
    trace_start(&server);
    size_t made = trace_record(&server, calls, CALLS);
    trace_end(&server);
    size_t messages = 0;
    size_t locks = 0;
    for (size_t i = 0; i < made; i++) {
        messages += calls[i].number == SYS_sendto;
        locks += calls[i].number == SYS_futex;
    }
    for (size_t i = 0; i < 2; i++) {
        kill(pumps[i], SIGKILL);
        waitpid(pumps[i], NULL, 0);
    }
    printf("# reactor --loops 2: in %zu system calls of one loop, %zu sends, and %zu waits for a lock\n",
           made, messages, locks);
    fflush(stdout);
    ck_assert_uint_eq(made, CALLS);
    ck_assert_msg(messages > CALLS / 5, "%zu messages only: nothing was shown", messages);
    ck_assert_msg(locks == 0, "for %zu messages, a loop has waited for a lock %zu times", messages, locks);
}
END_TEST

START_TEST(loops_port_in_use)
{
    static const char *const both[][2] = {{"2", "2"}, {"2", "1"}, {"1", "2"}};
    for (size_t i = 0; i < sizeof both / sizeof *both; i++) {
        char port[8];
        int clients[8];
        struct server server = start_loops(both[i][0]);
        snprintf(port, sizeof port, "%u", server.port);
        struct run run = run_program((const char *const[]){"--port", port, "--loops", both[i][1], NULL});
        ck_assert_msg(run.status == 1,
                      "one server with %s loops, and another with %s on the same port: the status is %d",
                      both[i][0], both[i][1], run.status);
        ck_assert_msg(strstr(run.err, port) != NULL && strstr(run.err, strerror(EADDRINUSE)) != NULL,
                      "on stderr is \"%s\"", run.err);
        connect_served(&server, clients, 8);
        ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
    }
}
END_TEST

static void loops_stop(void)
{
    enum { LOOPS = 3, CLIENTS = 60 };
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        int clients[CLIENTS];
        struct server server = start_loops("3");
        one_for_each_loop(&server, clients, LOOPS);
        connect_served(&server, clients + LOOPS, CLIENTS - LOOPS);
        ck_assert_int_eq(server_stop(&server, signals[i]), 0);
        for (int j = 0; j < CLIENTS; j++)
            ck_assert_msg(client_ending(clients[j]) == ENDED, "a stop, and a client was not closed");
    }
}
EACH(loops_stop)

START_TEST(loops_stop_queue)
{
    enum { CLIENTS = 300 };
    int clients[CLIENTS];
    struct server server = start_loops("3");
    server_pause(&server);
    for (size_t i = 0; i < CLIENTS; i++) { /* the kernel gives them to the three sockets */
        clients[i] = client_connect(&server);
        client_send(clients[i], "last words", 10);
    }
    kill(server.pid, SIGTERM);
    kill(server.pid, SIGCONT);
    for (size_t i = 0; i < CLIENTS; i++) {
        gets_back(clients[i], "last words");
        ck_assert_msg(client_ending(clients[i]) == ENDED, "client %zu was not closed as it should be", i + 1);
    }
    ck_assert_int_eq(server_wait(&server), 0);
}
END_TEST

START_TEST(loops_stop_owed)
{
    stop_with_debts(&(struct server_setup){.faults = "", .arguments = {"--loops", "2"}}, 10);
}
END_TEST

START_TEST(loops_signal_any)
{
    enum { LOOPS = 3 };
    for (size_t i = 0; i < LOOPS; i++) {
        int clients[LOOPS];
        struct server server = start_loops("3");
        one_for_each_loop(&server, clients, LOOPS);
        ck_assert_int_eq(syscall(SYS_tgkill, server.pid, loops[i], SIGTERM), 0);
        int status = server_wait(&server);
        ck_assert_msg(status == 0, "a signal for thread %zu of %d, and the status is %d", i + 1, LOOPS,
                      status);
        for (size_t j = 0; j < LOOPS; j++)
            ck_assert_msg(client_ending(clients[j]) == ENDED,
                          "a signal for thread %zu of %d, and the client of loop %zu is not closed", i + 1,
                          LOOPS, j + 1);
    }
}
END_TEST

START_TEST(loops_told_once)
{
    int clients[2];
    struct server server = start_loops("2");
    one_for_each_loop(&server, clients, 2);
    int first = loops[0] == server.pid ? 0 : 1;
    size_t taken = client_flood(clients[first], 1);
    rests(&server);

    /* The other loop stands still; it is told to stop, and the first one goes on for its client. */
    struct server thread = thread_of(&server, loops[1 - first]);
    trace_start(&thread);
    for (int i = 0; i < 3; i++) {
        unsigned long sleeps = sleeps_of(&server, server.pid);
        kill(server.pid, SIGTERM);
        ck_assert_msg(eventually(sleeps_of(&server, server.pid) > sleeps), "a signal, and nobody wakes");
    }
    trace_end(&thread);
    ck_assert_msg(client_ending(clients[1 - first]) == ENDED, "a client of the other loop was not closed");
    size_t right = client_receive_pattern(clients[first], taken, 1, 0);
    ck_assert_msg(right > 0, "a client was owed bytes, and got none");
    int status = server_wait(&server);
    ck_assert_msg(status == 0, "three signals came, and the status is %d", status);
}
END_TEST

START_TEST(loops_grace)
{
    int clients[2];
    struct server server = start_loops("2");
    one_for_each_loop(&server, clients, 2);
    int other = loops[0] == server.pid ? 1 : 0;
    check_grace(&server, clients[other]);
}
END_TEST

/* How many of them have been answered. */
static size_t answered_of(const int *clients, size_t count)
{
    char back[16];
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += recv(clients[i], back, sizeof back, MSG_PEEK | MSG_DONTWAIT) > 0;
    return found;
}

START_TEST(loops_full)
{
    enum { WAITING = 8, MOST_GAPS = 100 };
    int clients[2];
    int others[MOST_GAPS];
    int waiting[WAITING];
    struct server server = start_loops("2");
    one_for_each_loop(&server, clients, 2);
    learn_numbers(&server);
    int gaps = numbers[number_count - 1] + 1 - server_descriptors(&server);
    ck_assert_int_le(gaps, MOST_GAPS);
    connect_served(&server, others, (size_t)gaps);
    rests(&server);

    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    for (size_t i = 0; i < WAITING; i++) {
        waiting[i] = client_connect(&server);
        client_send(waiting[i], "let me in", 9);
    }
    all_served(clients, 2, "out of descriptors");
    ck_assert_uint_eq(answered_of(waiting, WAITING), 0);
    close(clients[0]); /* one comes free, in one loop; and then nobody leaves any more */
    ck_assert_msg(eventually(answered_of(waiting, WAITING) > 0),
                  "a descriptor has come free, and of those who wait nobody is let in");
    ck_assert_uint_eq(answered_of(waiting, WAITING), 1);
    ck_assert_msg(client_gets_echo(clients[1], "and me?"), "who is inside is not served");
    server_limit_descriptors(&server, 1000);
    for (size_t i = 0; i < WAITING; i++)
        gets_back(waiting[i], "let me in");
}
END_TEST

/* ---- the table ---- */

/* The same test with each demultiplexer: what START_TEST defines is a variable, and so this holds
 * where it is. NULL: not with that one. */
enum { SELECT, POLL, EPOLL, KQUEUE, DEMUXES };
static const char *const demux_names[DEMUXES] = {"select", "poll", "epoll", "kqueue"};

#define ON_EACH(test) {&select_##test, &poll_##test, &epoll_##test, &kqueue_##test}, NULL
#define ON_LISTED(test) {&select_##test, &poll_##test, NULL, NULL}, NULL
#define ON_TOLD(test) {NULL, NULL, &epoll_##test, &kqueue_##test}, NULL
#define ON_EPOLL(test) {[EPOLL] = &test}, NULL
#define ON_KQUEUE(test) {[KQUEUE] = &test}, NULL
#define ONCE(test) {NULL}, &test

/* clang-format off */
static const struct tap_row rows[] = {
    {ON_EACH(waits), "it waits in the system call of its demultiplexer",
     "select(), poll() or epoll_wait(); with kqueue_linux.c epoll_wait(), too.",
     "--demux is read, and then the default is taken.", THE_API},
    {ONCE(waits_with_the_best), "without --demux it waits with the best that is here",
     "On Linux that is epoll: its cost follows those who are ready.",
     "The list of demultiplexers has another order.", THE_API},
    {ON_EACH(idle), "silent clients wake nobody",
     "With 20 silent clients the wait has no limit of time, they are watched for reading, and the server sleeps.",
     "A timeout where no timer is set; or room to send is watched while nothing is owed.", THE_IDEA},
    {ON_EACH(message), "one message is one wake-up and two calls more",
     "A client speaks: one event, one receive, one send. Nothing that is watched changes, and nothing is handed over.",
     "The demultiplexer is told after each event what it knows already; or a call of kevent() for each change.",
     THE_SERVER},
    {ON_EACH(cost), "the cost of a wait is that of its demultiplexer",
     "Of 10, 100 and 400 clients one speaks. poll() goes through all, select() through all descriptors below the\n"
     "highest, epoll and kqueue name the one. The handlers do the same work with each.",
     "The reactor goes through all its handlers after each wait.", THE_IDEA},
    {ON_EACH(batch), "when 300 speak at once, each is served once",
     "A turn takes 256 events at most, the next one the others: two wake-ups (kqueue_linux.c: three).",
     "Those for whom there was no room are forgotten; or the first ones come first each time.", THE_SERVER},

    {ON_EPOLL(told_twice_each), "epoll_ctl is called twice for each client who always reads",
     "20 clients come, say six things each, and leave: 40 calls, one when a handler is registered, one when it is\n"
     "removed.",
     "reactor_want() calls epoll_ctl() at once, whether something is different or not.", THE_SERVER},
    {ON_EACH(stall), "a client is watched for writing while it is owed bytes, and for reading while it is not",
     "When it takes no more it is watched for room, and for nothing else; when it is paid, for what it says. epoll_ctl()\n"
     "is called once for each of these moments, and kevent() not at all.",
     "Room to send is watched after all has been sent: the loop spins. Or what the client sends is, while it is owed.",
     THE_SERVER},
    {ON_KQUEUE(handed_over), "changes are handed over in the call that waits",
     "Five clients come, and two speak: five changes, all of them at the end of a turn, with the next wait.",
     "kevent() is called for each change, as epoll_ctl() would be: a system call each.", THE_API},

    {ON_EACH(owing), "a client that does not read is owed its bytes, and the others are served",
     "Nine others are served meanwhile. Then everything comes back, and the client is served again.",
     "The handler waits in send(); or room is not watched for, or afterwards what the client says is not.", THE_SERVER},
    {ON_EACH(end_with_data), "what came with the end is echoed",
     "192 KiB and a FIN at once. All of it comes back, then the connection is closed.",
     "A hang-up or an end in the event is taken for \"close now\".", THE_SERVER},
    {ON_EACH(end_owed), "who ends while it is owed bytes gets them all, and the server sleeps meanwhile",
     "Reading is not watched, so the end wakes nobody. When all is paid, it is found, and the connection closed.",
     "Reading stays watched: the end is reported without end. Or it closes a client that is owed bytes.", THE_SERVER},
    {ON_EACH(several_leave), "several leave and are reset in one batch with others who speak",
     "Two RSTs, a FIN and two messages in one batch: each is dealt with once. Who has left is removed from the\n"
     "demultiplexer, and then closed. Three come, get the same descriptors, and are served.",
     "An error event ends the server; or a descriptor is closed first and removed then: it may be another's by then.",
     THE_SERVER},
    {ON_EACH(reset_owed), "a client that resets while it is owed bytes is lost, and nobody else",
     "The error counts as room to send: send() fails, and the connection is closed.",
     "An error or a hang-up counts as something to read, for which the handler does not wait: it is reported for ever.",
     THE_API},
    {ON_EPOLL(stale_event), "an event of one who has left never touches who has its descriptor now",
     "An event comes with the generation of the one before: nothing is done.",
     "The descriptor alone says whose event it is; or the generation is not counted on when a handler is removed.",
     THE_SERVER},
    {ON_EACH(table_grows), "the tables grow while clients are served",
     "200 come at once while one is owed bytes: the tables move in memory, and nobody notices.",
     "Somebody keeps a pointer into a table that realloc() has moved.", THE_SERVER},

    {ON_EACH(interrupted), "after an interrupted wait, nothing is done",
     "EINTR: no event. The loop goes on, and changes that went along with the wait have been taken.",
     "EINTR ends the server; or what was reported before is gone through once more.", THE_API},
    {ON_LISTED(wait_fails), "a wait that fails for want of memory is tried again after a while",
     "ENOMEM, three times: three pauses, and then a client is let in and served.",
     "It ends the server; or it is tried again at once.", THE_API},
    {ON_EACH(no_memory), "a client for whom there is no memory is turned away, and nobody else",
     "calloc() fails: that client is closed, its descriptor is free again, and the next is let in.",
     "The descriptor stays open on the way out: it leaks. Or the server ends.", THE_SERVER},
    {ON_EACH(not_set_up), "a client whose socket cannot be made non-blocking is turned away, and nobody else",
     "fcntl() fails: that client is closed, and the next is let in.",
     "The descriptor stays open on the way out; or the client is kept, and the loop waits in recv() for it.", THE_SERVER},
    {ON_TOLD(not_watched), "a client that cannot be watched is turned away, and nobody else",
     "epoll_ctl() fails (or, with kqueue, the change is refused): that client is closed, and the next is let in.",
     "The result is not looked at: the client stays, and is never heard.", THE_SERVER},
    {ONCE(not_watched_timer), "a client that cannot be watched leaves no timer behind",
     "Its timer was set before. It is cancelled: the memory is freed, and a second later nothing happens.",
     "The connection is freed with its timer still set, and the timer expires.", THE_SERVER},
    {ONCE(no_timer), "a client for whom no timer can be set is turned away, and nobody else",
     "realloc() fails when the first timer is set: that client is closed, and the next is let in, with a timer.",
     "The client is kept without a timer, and may be silent for ever.", THE_SERVER},
    {ON_TOLD(change_refused), "a client for whom a change is refused is lost, and nobody else",
     "Room to send cannot be watched: the handler gets REACTOR_CLOSE, and closes the connection.",
     "REACTOR_CLOSE is not looked at: the client is kept, and never gets its bytes.", THE_API},
    {ON_TOLD(door_refused), "when the listening socket cannot be watched again, that is tried once more",
     "After a pause it cannot be watched (ENOMEM). A tenth of a second later it is tried again, and who waits is let in.",
     "REACTOR_CLOSE is taken for the stop: the listening socket is closed, and the server goes on without it.",
     THE_SERVER},

    {ON_EACH(crowd_bounded), "a crowd at the door does not keep those inside waiting",
     "200 clients come at once. In each turn at most 64 are let in, and the one inside is served.",
     "accept() until EAGAIN, without a bound.", THE_SERVER},
    {ON_EACH(one_turn_each), "a client that sends without pause does not keep others waiting",
     "One receive for each in a turn, however much there is: what is left is reported again.",
     "The handler receives until EAGAIN: one that sends fast enough keeps all others waiting.", THE_SERVER},

    {ON_EACH(full_unasked), "out of descriptors, the listening socket is left alone for a while",
     "accept() fails with EMFILE, and somebody still waits: nothing is wanted of the listening socket, and a timer is\n"
     "set. Those inside are served. When the limit is raised, the one who waits is let in.",
     "It is ready, and watched: every wait ends at once. Or it is not watched again when the pause is over.", THE_SERVER},
    {ON_EACH(full_leaves), "out of descriptors, who waits is let in when somebody leaves",
     "With the descriptor that comes free, the listening socket is watched again, at once, and no timer is left.",
     "Nothing but the clock ends the pause.", THE_SERVER},
    {ON_EACH(full_counted), "out of descriptors, a second costs ten calls of accept",
     "A tenth of a second lies between two tries, and two wake-ups.",
     "The listening socket stays ready, accept() fails, and the loop asks again at once: 143,555 times in 0.2 s in a\n"
     "server that was measured.", THE_SERVER},
    {ON_EACH(full_system), "when the whole system is short of descriptors, who waits is let in though nobody leaves",
     "ENFILE, ENOBUFS, ENOMEM, EMFILE: a pause each, then the client is served.",
     "The pause ends only when one of the server's own clients leaves; or only EMFILE is expected.", THE_SERVER},

    {ONCE(full_no_timer), "out of descriptors and of memory, the server pauses all the same",
     "No timer can be set, three times: it sleeps for a tenth of a second each time, and tries again.",
     "The result of reactor_set_timer() is not looked at: the door stays shut for ever. Or nothing is done: it spins.",
     THE_SERVER},

    {ON_EACH(silent), "a silent client is closed when its time is over, and not before",
     "--idle-timeout 1: closed after a second, and the server sleeps again.",
     "The timer is not set; or the wait's limit is not in the unit of its system call.", THE_SERVER},
    {ONCE(silent_for_ever), "without --idle-timeout a silent client is not closed",
     "Two seconds, and it is still there.", "0 is taken for a time.", THE_SERVER},
    {ONCE(talker), "a client that talks is not closed, and its timer wakes hardly anybody",
     "While two others are closed for their silence, one after the other, it gets its echo. Its timer, put off with each\n"
     "message, comes up once a second.",
     "The timer is not put off; or something looks at all timers many times a second.", THE_SERVER},
    {ONCE(spoke_once), "a client that spoke and then falls silent has its whole time, and is closed",
     "The timer was put off when it spoke.",
     "It is put off only where it was set to come up earlier; or a timer that came up too early is forgotten.", THE_SERVER},
    {ONCE(owed_is_not_silent), "a client that is owed bytes is not silent",
     "It does not read, and says nothing, for two seconds and more: it is kept, and gets all. Then it is silent, and\n"
     "closed.",
     "The timer closes whomever it finds; or it is not set again for one that was owed bytes.", THE_SERVER},
    {ON_EACH(put_off_for_nothing), "to put a timer off costs no system call",
     "With --idle-timeout a message is one wake-up and two calls more, as without. When all have left, no timer is set.",
     "The kernel is told of a timer at each message (timerfd, EVFILT_TIMER); or the timer of one who left runs on.",
     THE_API},
    {ONCE(next_in_place), "the timer of one who left does not hit the next client in its place",
     "Who leaves after half a second takes its timer along. The next has one of its own, and its whole time.",
     "The connection is freed with its timer still set.", THE_SERVER},

    {ONCE(wrong_demux), "a wrong --demux ends the server, with status 2 and one line",
     "A name that is none, nothing at all, and what this system does not have.",
     "The default is taken silently; or only the first letters are compared.", THE_SERVER},
    {ONCE(wrong_loops), "a wrong --loops ends the server, with status 2 and one line",
     "0, -1, 65, x, nothing at all, 2x, 1.5, and what no number can hold.",
     "atoi(), which takes anything; or strtol(), and its end, or errno, was not looked at.", THE_SERVER},
    {ONCE(wrong_timeouts), "a wrong --idle-timeout ends the server, with status 2 and one line",
     "0, -1, x, 1x, 1000001, nothing at all, and what no number can hold.",
     "atoi(), which takes anything; or strtol(), and its end, or errno, was not looked at.", THE_SERVER},

    {ON_EACH(stop), "SIGTERM and SIGINT stop the server",
     "The clients are closed, and the status is 0.",
     "One of the two is not caught: its default action ends the process, status 143 or 130.", THE_SERVER},
    {ON_EACH(stop_before_wait), "a signal that comes before the wait is not lost",
     "Before the line is printed, before the first wait, in the middle of a turn: the signal's byte is in the pipe.",
     "A flag is set by the handler, looked at by the loop, and the wait begins after that; or signals are caught only\n"
     "after the line on stdout that invites others to send them.",
     THE_API},
    {ONCE(stop_blocked), "signals that were blocked when the server was started stop it",
     "Whoever started it had blocked them, and a program inherits that. They are unblocked.",
     "Blocked, a signal stays pending.", THE_API},
    {ON_EACH(stop_ready), "who is ready at the stop is served, and then closed",
     "40 clients have spoken, 200 more are at the door, and the signal comes: each of them gets its words back, and\n"
     "the end.",
     "The loop ends with the signal; or the listening socket is closed with those who wait in its queue.", THE_SERVER},
    {ON_EACH(stop_owed), "who is owed bytes at the stop gets them",
     "Five clients have not read. The signal comes, then they read: all that had arrived comes back.",
     "Everything is closed at once; or nobody wakes when there is room again.", THE_SERVER},
    {ONCE(stop_again), "a second signal, and a tenth, take no time away from who is owed bytes",
     "The stop goes on as it has begun: all that had arrived comes back, and the status is 0.",
     "The second signal ends the server, or shortens the time.", THE_SERVER},
    {ON_EACH(stop_under_load), "a signal stops a server that has much to do",
     "Four clients send without pause. The stop is not kept waiting, and the status is 0.",
     "The wake-up's turn does not come while others are ready; or a client that goes on sending is never closed.",
     THE_SERVER},
    {ONCE(stop_over), "a signal that comes when the stop is over does no harm",
     "The loops have ended, and their reactors are destroyed: the last call of close() is interrupted by SIGTERM. The\n"
     "status is 0.",
     "reactor_destroy() brings the signal's default action back, which ends the process: status 143.", THE_SERVER},
    {ONCE(sigpipe), "SIGPIPE does not end the server",
     "It is ignored: that a client has gone is told by send(), with EPIPE.",
     "Its default action ends the process, status 141.", THE_SERVER},
    {ONCE(grace), "a client that never reads holds up a stop for three seconds, and not for less",
     "It has that long to take its bytes. Then the connection is closed, and the status is 0.",
     "The stop waits for ever; or it does not wait at all.", THE_SERVER},

    {ONCE(loops_have_their_own), "--loops N has N threads, and N sockets that listen on the port",
     "1, 2, 5 and 64: as many threads wait for events, and as many lines of /proc/net/tcp have the port.",
     "All loops have the same listening socket in their demultiplexers: a client wakes all of them.", THE_IDEA},
    {ON_EACH(loops_share_clients), "--loops: clients are spread over the loops, and each stays where it is",
     "64 clients: each wakes one of four threads when it speaks, always the same; and no thread is without clients.",
     "One loop accepts, and keeps them all; or a loop watches the descriptors of another.", THE_IDEA},
    {ONCE(loops_share_nothing), "--loops: what one loop has received is not touched by another",
     "A loop stands still between receiving and sending. The other one serves its clients, and then both have got their\n"
     "own bytes.",
     "The buffer is one for all loops.", THE_SERVER},
    {ONCE(loops_without_lock), "--loops: no lock is taken for a message",
     "Two loops are busy at the same time, and none of them ever waits for the other (futex).",
     "The loops share something: a buffer, a table, a counter behind a mutex.", THE_IDEA},
    {ONCE(loops_port_in_use), "--loops: a second server on the port is refused, although sockets share it",
     "Two and two loops, two and one, one and two: status 1, and a line with the port and the reason.",
     "SO_REUSEPORT lets the second server bind, and it takes half of the clients.", WHAT_CHANGED},
    {ON_EACH(loops_stop), "--loops: a stop ends all loops",
     "60 clients in three loops are closed, and the status is 0.",
     "The first loop ends, and the others are not told; or they are told by a flag, and sleep.", THE_SERVER},
    {ONCE(loops_stop_queue), "--loops: who waits in any of the queues at the stop is served",
     "The server stands still, 300 clients come and speak, then the signal: each gets its words back, and the end.",
     "Some loops close their listening socket without a last accept().", THE_SERVER},
    {ONCE(loops_stop_owed), "--loops: who is owed bytes at the stop gets them, whichever loop it is in",
     "Five clients in two loops have not read. Ten signals come, then they read: all comes back.",
     "The process ends with the first loop; or the second signal shortens the time.", THE_SERVER},
    {ONCE(loops_signal_any), "--loops: a signal stops the server whichever thread it comes to",
     "The kernel may choose any. Sent to the first, the second, the third: all clients are closed, and the status is 0.",
     "The handler looks at something of its own thread; or threads have signals blocked.", THE_SERVER},
    {ONCE(loops_told_once), "--loops: a loop that has been told to stop is not told again before it could listen",
     "One loop stands still while three signals come. The work that asks it to stop is posted once: it belongs to that\n"
     "reactor until it has run.",
     "It is posted again: a list that leads into itself, and a loop that goes through it for ever.", THE_SERVER},
    {ONCE(loops_grace), "--loops: a client that never reads holds up a stop for three seconds, whichever loop it is in",
     "The first loop has nothing to do any more; the other one waits for its client, and then the process ends.",
     "The process ends with the first loop.", THE_SERVER},
    {ONCE(loops_full), "--loops: out of descriptors, who waits is let in when somebody leaves another loop",
     "Nobody tells the loops of each other's descriptors: a tenth of a second later each tries again by itself.",
     "The pause ends only when one of the loop's own clients leaves.", THE_SERVER},
};
/* clang-format on */

enum { ROWS = sizeof rows / sizeof *rows };

int main(int argc, char **argv)
{
    if (argc > 1)
        reactor_server = argv[1];
    return tap_run_rows("reactor", "demux", demux_names, DEMUXES, rows, ROWS);
}
