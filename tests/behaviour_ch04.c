/* behaviour_ch04.c - what epoll does, level- and edge-triggered, and what it
 * costs: one thread that is told who is ready, and nothing of the others.
 * Tests that begin with "epoll:" are about the kernel's interface alone, and
 * use it here; the others are about the two servers.
 * Run it as behaviour_ch04 [LEVEL [EDGE]], the paths of the two servers. */
#define _GNU_SOURCE /* the numbers of system calls, and the POSIX functions beside them */

#include "harness.h"
#include "tap.h"
#include "trace.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
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
#include <time.h>
#include <unistd.h>

#define THE_IDEA "the book, chapter 4, \"The idea\""
#define THE_API "the book, chapter 4, \"The API\""
#define THE_SERVER "the book, chapter 4, \"The server, piece by piece\""
#define WATCH_IT_RUN "the book, chapter 4, \"Watch it run\""

/* As in the servers: what one receive brings at most, how often edge receives
 * from one client in a row, whom one turn lets in, and the pause when
 * descriptors are out. */
enum { BUFFER_SIZE = 64 * 1024, TURNS_IN_A_ROW = 4, MOST_ACCEPTS = 64, TICK_MS = 100 };

/* ---- epoll itself ---- */

static int new_epoll(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    ck_assert_msg(epoll >= 0, "epoll_create1: %s", strerror(errno));
    return epoll;
}

/* Returns 0, or what went wrong. The event carries data. */
static int control(int epoll, int operation, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, operation, fd, &event) == 0 ? 0 : errno;
}

static void add(int epoll, int fd, uint32_t events)
{
    int error = control(epoll, EPOLL_CTL_ADD, fd, events, (uint64_t)fd);
    ck_assert_msg(error == 0, "EPOLL_CTL_ADD: %s", strerror(error));
}

static void modify(int epoll, int fd, uint32_t events)
{
    int error = control(epoll, EPOLL_CTL_MOD, fd, events, (uint64_t)fd);
    ck_assert_msg(error == 0, "EPOLL_CTL_MOD: %s", strerror(error));
}

/* How many events there are now. */
static int reported_now(int epoll)
{
    struct epoll_event events[8];
    int count = epoll_wait(epoll, events, 8, 0);
    ck_assert_msg(count >= 0, "epoll_wait: %s", strerror(errno));
    return count;
}

/* Of the one descriptor that epoll watches; 0: it reports nothing. */
static uint32_t events_now(int epoll)
{
    struct epoll_event event = {.events = 0};
    ck_assert_int_ge(epoll_wait(epoll, &event, 1, 0), 0);
    return event.events;
}

static void pair(int ends[2])
{
    ck_assert_msg(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "socketpair: %s",
                  strerror(errno));
}

static void put(int fd, const char *text)
{
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void take(int fd, size_t size)
{
    char text[64];
    ck_assert_int_eq(read(fd, text, size), (ssize_t)size);
}

static int tcp_listener(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(listening, 0);
    ck_assert_int_eq(bind(listening, (struct sockaddr *)address, size), 0);
    ck_assert_int_eq(listen(listening, 16), 0);
    ck_assert_int_eq(getsockname(listening, (struct sockaddr *)address, &size), 0);
    return listening;
}

static int tcp_client(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_msg(connect(fd, (const struct sockaddr *)address, sizeof *address) == 0, "connect: %s",
                  strerror(errno));
    return fd;
}

/* ends[0] is watched, ends[1] belongs to a client. */
static void tcp_pair(int ends[2])
{
    struct sockaddr_in address;
    int listening = tcp_listener(&address);
    ends[1] = tcp_client(&address);
    ends[0] = accept(listening, NULL, NULL);
    ck_assert_int_ge(ends[0], 0);
    close(listening);
}

START_TEST(level_repeats)
{
    int ends[2];
    int epoll = new_epoll();
    pair(ends);
    add(epoll, ends[0], EPOLLIN);
    ck_assert_int_eq(reported_now(epoll), 0);
    put(ends[1], "two");
    for (int i = 1; i <= 3; i++)
        ck_assert_msg(reported_now(epoll) == 1,
                      "nobody has read, and call %d of epoll_wait() reports nothing", i);
    take(ends[0], 2);
    ck_assert_msg(reported_now(epoll) == 1, "one byte is left, and epoll_wait() reports nothing");
    take(ends[0], 1);
    ck_assert_msg(reported_now(epoll) == 0, "all has been read, and epoll_wait() reports an event");
}
END_TEST

START_TEST(edge_tells_once)
{
    int ends[2];
    int epoll = new_epoll();
    pair(ends);
    add(epoll, ends[0], EPOLLIN | EPOLLET);
    put(ends[1], "two");
    ck_assert_msg(reported_now(epoll) == 1, "something has come, and epoll_wait() reports nothing");
    ck_assert_msg(reported_now(epoll) == 0, "nothing more has come, and the event is reported again");
    take(ends[0], 1);
    ck_assert_msg(reported_now(epoll) == 0,
                  "a part was read, nothing more has come, and it is reported again");
    put(ends[1], "more");
    ck_assert_msg(reported_now(epoll) == 1, "more has come, and epoll_wait() reports nothing");
    ck_assert_int_eq(reported_now(epoll), 0);
    modify(epoll, ends[0], EPOLLIN | EPOLLET);
    ck_assert_msg(reported_now(epoll) == 1, "EPOLL_CTL_MOD does not look at what is there already");
}
END_TEST

START_TEST(edge_room)
{
    static char block[65536];
    int ends[2];
    int epoll = new_epoll();
    pair(ends);
    add(epoll, ends[0], EPOLLOUT | EPOLLET);
    ck_assert_msg(reported_now(epoll) == 1, "there is room to send from the start, and it is not reported");
    ck_assert_msg(reported_now(epoll) == 0, "there is as much room as before, and it is reported again");
    while (send(ends[0], block, sizeof block, MSG_DONTWAIT) > 0)
        continue;
    ck_assert_int_eq(reported_now(epoll), 0);
    while (recv(ends[1], block, sizeof block, MSG_DONTWAIT) > 0)
        continue;
    ck_assert_msg(reported_now(epoll) == 1,
                  "send() said EAGAIN, there is room again, and it is not reported");
    ck_assert_int_eq(reported_now(epoll), 0);
}
END_TEST

START_TEST(fin_events)
{
    int ends[2];
    int epoll = new_epoll();
    tcp_pair(ends);
    add(epoll, ends[0], EPOLLIN);
    ck_assert_int_eq(shutdown(ends[1], SHUT_WR), 0);
    ck_assert_msg(eventually(reported_now(epoll) == 1), "a FIN is not reported");
    ck_assert_msg(events_now(epoll) == EPOLLIN, "EPOLLRDHUP was not asked for; a FIN is reported as %#x",
                  events_now(epoll));
    modify(epoll, ends[0], EPOLLIN | EPOLLRDHUP);
    ck_assert_msg(events_now(epoll) == (EPOLLIN | EPOLLRDHUP), "a FIN is reported as %#x", events_now(epoll));
    put(ends[0], "still here");
    take(ends[1], 10); /* the other direction is open */

    ck_assert_int_eq(shutdown(ends[0], SHUT_WR), 0);
    ck_assert_msg(events_now(epoll) == (EPOLLIN | EPOLLRDHUP | EPOLLHUP),
                  "both directions are shut down, and that is reported as %#x", events_now(epoll));
}
END_TEST

START_TEST(rst_events)
{
    int ends[2];
    int error;
    socklen_t size = sizeof error;
    int epoll = new_epoll();
    tcp_pair(ends);
    add(epoll, ends[0], EPOLLIN | EPOLLRDHUP);
    client_reset(ends[1]);
    ck_assert_msg(eventually(reported_now(epoll) == 1), "a RST is not reported");
    ck_assert_msg(events_now(epoll) == (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP),
                  "a RST is reported as %#x", events_now(epoll));
    modify(epoll, ends[0], 0);
    ck_assert_msg(events_now(epoll) == (EPOLLERR | EPOLLHUP),
                  "nothing was asked for; a RST is reported as %#x", events_now(epoll));
    ck_assert_int_eq(getsockopt(ends[0], SOL_SOCKET, SO_ERROR, &error, &size), 0);
    ck_assert_int_eq(error, ECONNRESET);
}
END_TEST

START_TEST(oneshot)
{
    int ends[2];
    int epoll = new_epoll();
    pair(ends);
    add(epoll, ends[0], EPOLLIN | EPOLLONESHOT);
    put(ends[1], "one");
    ck_assert_msg(reported_now(epoll) == 1, "something has come, and epoll_wait() reports nothing");
    put(ends[1], "two");
    ck_assert_msg(reported_now(epoll) == 0, "an event was reported with EPOLLONESHOT, and then another one");
    ck_assert_int_eq(control(epoll, EPOLL_CTL_ADD, ends[0], EPOLLIN, 0), EEXIST); /* it is still there */
    modify(epoll, ends[0], EPOLLIN | EPOLLONESHOT);
    ck_assert_msg(reported_now(epoll) == 1, "armed again with EPOLL_CTL_MOD, and nothing is reported");
    ck_assert_int_eq(reported_now(epoll), 0);
}
END_TEST

/* In a process of its own: waits once for a client, with an epoll of its own, and says so. */
static pid_t waiter(int listening, uint32_t events, int report)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid > 0)
        return pid;
    struct epoll_event event;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (control(epoll, EPOLL_CTL_ADD, listening, events, 0) == 0 && epoll_wait(epoll, &event, 1, -1) == 1)
        put(report, "w");
    for (;;)
        pause();
}

/* How many of these processes are blocked in epoll_wait(). */
static int blocked(const pid_t *waiters, int count)
{
    int found = 0;
    for (int i = 0; i < count; i++) {
        const struct server process = {.pid = waiters[i]};
#ifdef SYS_epoll_wait
        found += server_blocked_in(&process, SYS_epoll_wait);
#endif
        found += server_blocked_in(&process, SYS_epoll_pwait);
    }
    return found;
}

/* Adds to *woken how many have said that they were woken; returns the sum. */
static int count_woken(int report, int *woken)
{
    char text[16];
    ssize_t got = read(report, text, sizeof text);
    *woken += got > 0 ? (int)got : 0;
    return *woken;
}

START_TEST(exclusive)
{
    enum { WAITERS = 4 };
    static const uint32_t asked_for[] = {EPOLLIN, EPOLLIN | EPOLLEXCLUSIVE};
    for (size_t i = 0; i < 2; i++) {
        pid_t waiters[WAITERS];
        struct sockaddr_in address;
        int report[2];
        int woken = 0;
        int listening = tcp_listener(&address);
        ck_assert_int_eq(pipe2(report, O_NONBLOCK | O_CLOEXEC), 0);
        for (int j = 0; j < WAITERS; j++)
            waiters[j] = waiter(listening, asked_for[i], report[1]);
        ck_assert_msg(eventually(blocked(waiters, WAITERS) == WAITERS), "not all wait in epoll_wait()");

        tcp_client(&address);
        ck_assert_msg(eventually(count_woken(report[0], &woken) > 0 &&
                                 count_woken(report[0], &woken) + blocked(waiters, WAITERS) == WAITERS),
                      "a client came, and nobody was woken");
        printf("# epoll: of %d processes that wait for a client, one client wakes %d%s\n", WAITERS, woken,
               i == 0 ? "" : " with EPOLLEXCLUSIVE");
        fflush(stdout);
        /* epoll_ctl(2) promises that one or more are woken. */
        ck_assert_msg(i == 0 ? woken == WAITERS : woken < WAITERS,
                      "a client came, and of %d who waited %d were woken%s", WAITERS, woken,
                      i == 0 ? "" : ", with EPOLLEXCLUSIVE");
    }
}
END_TEST

START_TEST(last_descriptor)
{
    int ends[2];
    struct epoll_event event;
    int epoll = new_epoll();
    pair(ends);
    add(epoll, ends[0], EPOLLIN);
    int copy = dup(ends[0]);
    int number_before = ends[0];
    close(ends[0]);
    put(ends[1], "x");
    ck_assert_msg(epoll_wait(epoll, &event, 1, 0) == 1,
                  "the descriptor was closed, a copy of it is open, and nothing is reported");
    ck_assert_msg(event.data.u64 == (uint64_t)number_before,
                  "the event carries %llu, and not the descriptor that was closed",
                  (unsigned long long)event.data.u64);
    ck_assert_int_eq(control(epoll, EPOLL_CTL_DEL, number_before, 0, 0), EBADF); /* nobody can take it out */
    close(copy);
    ck_assert_msg(reported_now(epoll) == 0, "all copies are closed, and an event is reported");
}
END_TEST

START_TEST(handed_out)
{
    int first[2];
    int second[2];
    int third[2];
    struct epoll_event events[4];
    int epoll = new_epoll();
    pair(first);
    pair(second);
    add(epoll, first[0], EPOLLIN);
    add(epoll, second[0], EPOLLIN);
    put(first[1], "x");
    put(second[1], "x");
    ck_assert_int_eq(epoll_wait(epoll, events, 4, 0), 2);
    int left = second[0];
    close(left); /* while the first event is handled */
    pair(third);
    ck_assert_int_eq(third[0], left);
    add(epoll, third[0], EPOLLIN);
    ck_assert_msg(events[1].data.u64 == (uint64_t)third[0],
                  "the second event is not about the number that a new socket has now");
    ck_assert_msg(recv(third[0], events, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN,
                  "something has come for the new socket: this test has shown nothing");
}
END_TEST

START_TEST(takes_turns)
{
    enum { SOCKETS = 3 };
    int ends[SOCKETS][2];
    int times[SOCKETS] = {0};
    struct epoll_event event;
    int epoll = new_epoll();
    for (int i = 0; i < SOCKETS; i++) {
        pair(ends[i]);
        ck_assert_int_eq(control(epoll, EPOLL_CTL_ADD, ends[i][0], EPOLLIN, (uint64_t)i), 0);
        put(ends[i][1], "x");
    }
    for (int i = 0; i < 2 * SOCKETS; i++) {
        ck_assert_int_eq(epoll_wait(epoll, &event, 1, 0), 1);
        times[event.data.u64]++;
    }
    for (int i = 0; i < SOCKETS; i++)
        ck_assert_msg(times[i] == 2, "in %d calls for one event each, socket %d of %d was reported %d times",
                      2 * SOCKETS, i + 1, SOCKETS, times[i]);
}
END_TEST

START_TEST(nested)
{
    int ends[2];
    int inner = new_epoll();
    int outer = new_epoll();
    pair(ends);
    add(inner, ends[0], EPOLLIN);
    add(outer, inner, EPOLLIN);
    ck_assert_int_eq(reported_now(outer), 0);
    put(ends[1], "x");
    struct pollfd readable = {.fd = inner, .events = POLLIN};
    ck_assert_msg(poll(&readable, 1, 0) == 1, "an epoll with an event is not readable for poll()");
    ck_assert_msg(reported_now(outer) == 1, "an epoll with an event is not readable for another epoll");
    take(ends[0], 1);
    ck_assert_int_eq(reported_now(outer), 0);
    ck_assert_int_eq(control(inner, EPOLL_CTL_ADD, outer, EPOLLIN, 0), ELOOP);
}
END_TEST

START_TEST(control_errors)
{
    int ends[2];
    FILE *file = tmpfile();
    int epoll = new_epoll();
    pair(ends);
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(control(epoll, EPOLL_CTL_MOD, ends[0], EPOLLIN, 0), ENOENT);
    ck_assert_int_eq(control(epoll, EPOLL_CTL_DEL, ends[0], EPOLLIN, 0), ENOENT);
    add(epoll, ends[0], EPOLLIN);
    ck_assert_int_eq(control(epoll, EPOLL_CTL_ADD, ends[0], EPOLLIN, 0), EEXIST);
    ck_assert_int_eq(control(epoll, EPOLL_CTL_ADD, fileno(file), EPOLLIN, 0), EPERM);
    ck_assert_int_eq(control(epoll, EPOLL_CTL_ADD, epoll, EPOLLIN, 0), EINVAL);
    close(ends[0]);
    ck_assert_int_eq(control(epoll, EPOLL_CTL_ADD, ends[0], EPOLLIN, 0), EBADF);
    fclose(file);
}
END_TEST

/* ---- the servers ---- */

static const char *level_server = "../ch04-epoll/level";
static const char *edge_server = "../ch04-epoll/edge";

/* Which of the two is tested. */
static bool is_edge;
static const char *model;

#define LEVEL(test)          \
    START_TEST(level_##test) \
    {                        \
        is_edge = false;     \
        model = "level";     \
        test();              \
    }                        \
    END_TEST

#define EDGE(test)          \
    START_TEST(edge_##test) \
    {                       \
        is_edge = true;     \
        model = "edge";     \
        test();             \
    }                       \
    END_TEST

/* Each test is run with both. */
#define BOTH(test) LEVEL(test) EDGE(test)

/* The listening socket in the server, and the descriptors of its clients: they
 * follow its epoll, in the order in which they come, since the kernel gives the
 * lowest number that is free. */
static int listener;
static int epoll_number;

static int number(size_t client)
{
    return epoll_number + 1 + (int)client;
}

/* What the server's descriptor is, as in "socket:[1234]". */
static void kind(const struct server *server, int fd, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)server->pid, fd);
    ssize_t length = readlink(path, text, size - 1);
    text[length < 0 ? 0 : length] = '\0';
}

/* How many descriptors of a kind the server has; *last becomes the highest. */
static int count_kind(const struct server *server, const char *prefix, int *last)
{
    int found = 0;
    char path[64];
    char text[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)server->pid);
    DIR *descriptors = opendir(path);
    if (descriptors == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    *last = -1;
    for (const struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        int fd = atoi(entry->d_name); /* 0 for "." and ".." */
        kind(server, fd, text, sizeof text);
        if (fd <= STDERR_FILENO || strncmp(text, prefix, strlen(prefix)) != 0)
            continue;
        found++;
        *last = fd > *last ? fd : *last;
    }
    closedir(descriptors);
    return found;
}

static struct server start(const struct server_setup *setup)
{
    server_choose(is_edge ? edge_server : level_server);
    struct server server = server_start(setup);
    /* The line on stdout comes before the epoll. */
    ck_assert_msg(eventually(count_kind(&server, "anon_inode:[eventpoll]", &epoll_number) > 0),
                  "the server has no epoll");
    ck_assert_int_eq(count_kind(&server, "socket:", &listener), 1);
    return server;
}

/* Connects count clients, one after the other, and has each served once. */
static void connect_served(const struct server *server, int *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        clients[i] = client_connect(server);
        ck_assert_msg(client_gets_echo(clients[i], "hello"), "client %zu of %zu got no echo", i + 1, count);
    }
}

static void rests(const struct server *server)
{
    ck_assert_msg(eventually(server_asleep(server)), "the server does not come to rest");
}

/* ---- what the server's epoll watches, as the kernel shows it ---- */

struct watch {
    int fd;
    uint32_t events;
    uint64_t data;
};

enum { MOST_WATCHES = 2048 };

struct watches {
    size_t count;
    struct watch of[MOST_WATCHES];
};

static void read_watches(const struct server *server, struct watches *watches)
{
    char path[64];
    char line[256];
    unsigned long long data;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)server->pid, epoll_number);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    watches->count = 0;
    while (watches->count < MOST_WATCHES && fgets(line, sizeof line, file) != NULL) {
        struct watch *watch = &watches->of[watches->count];
        if (sscanf(line, "tfd: %d events: %x data: %llx", &watch->fd, &watch->events, &data) != 3)
            continue;
        watch->data = data;
        watch->events &= ~(uint32_t)(EPOLLERR | EPOLLHUP); /* reported in any case */
        watches->count++;
    }
    fclose(file);
}

static const struct watch *find_watch(const struct watches *watches, int fd)
{
    for (size_t i = 0; i < watches->count; i++) {
        if (watches->of[i].fd == fd)
            return &watches->of[i];
    }
    return NULL;
}

/* ---- a turn of the server: a wait call, and what it does then ---- */

enum { MOST_EVENTS = 1024 };

/* A wait call, what it is answered, and what epoll watches meanwhile. */
struct wait {
    struct call call;
    int limit; /* in ms; -1: it may sleep for ever */
    struct epoll_event events[MOST_EVENTS];
    struct watches watches;
};

static struct wait asked;    /* the wait call in which the server is */
static struct wait answered; /* the one before it, which has ended */

/* What the server did between these two. */
static struct call calls[20000];
static size_t call_count;

static bool is_wait(const struct call *call)
{
#ifdef SYS_epoll_wait
    if (call->number == SYS_epoll_wait)
        return true;
#endif
    return call->number == SYS_epoll_pwait;
}

static bool is_accept(const struct call *call)
{
#ifdef SYS_accept
    if (call->number == SYS_accept)
        return true;
#endif
    return call->number == SYS_accept4;
}

static void read_question(const struct server *server)
{
    asked.limit = (int)asked.call.arguments[3];
    read_watches(server, &asked.watches);
}

/* What a wait call that has ended reported of fd; 0: nothing. */
static uint32_t reported(const struct wait *wait, int fd)
{
    uint32_t events = 0;
    const struct watch *watch = find_watch(&wait->watches, fd);
    for (long i = 0; watch != NULL && i < wait->call.result; i++)
        events |= wait->events[i].data.u64 == watch->data ? wait->events[i].events : 0;
    return events;
}

/* Lets a call come to its end that is not expected to wait. */
static void leave(const struct server *server, struct call *call)
{
    if (eventually(trace_leave(server, call)))
        return;
    if (is_wait(call))
        ck_abort_msg("a client has sent something, and the server sleeps in epoll_wait()");
    ck_abort_msg("the server sleeps in system call %ld on descriptor %d, and not in epoll_wait()",
                 call->number, call->fd);
}

/* Stops the server where a wait call begins: client, which can be served, wakes it. */
static void hold(const struct server *server, int client)
{
    bool served = false;
    char back;
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
    if (!trace_leave(server, &asked.call))
        return false;
    ck_assert_int_le(asked.call.result, MOST_EVENTS);
    if (asked.call.result > 0)
        trace_read(server, asked.call.arguments[1], asked.events,
                   (size_t)asked.call.result * sizeof *asked.events);
    return true;
}

/* Lets the server do what is to be done, and stops it where the next wait call begins. */
static void turn_ends(const struct server *server)
{
    struct call *call = calls;
    for (;; call++) {
        ck_assert_msg(call < calls + sizeof calls / sizeof *calls,
                      "the server does not come back to epoll_wait()");
        trace_enter(server, call);
        if (is_wait(call))
            break;
        leave(server, call);
    }
    call_count = (size_t)(call - calls);
    answered = asked;
    asked.call = *call;
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
        ck_assert_msg(turns < MOST_TURNS,
                      "nobody does anything, and epoll_wait() returned %d times: the server spins",
                      MOST_TURNS);
    return turns;
}

/* How often a call was made on fd in the turn. */
static size_t times(long system_call, int fd)
{
    size_t found = 0;
    for (size_t i = 0; i < call_count; i++)
        found += calls[i].number == system_call && calls[i].fd == fd;
    return found;
}

/* How often what epoll watches fd for was changed in the turn. */
static size_t changes(int fd)
{
    size_t found = 0;
    for (size_t i = 0; i < call_count; i++)
        found += calls[i].number == SYS_epoll_ctl && (int)calls[i].arguments[2] == fd;
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

/* How many of the calls on fd were receives that did not fill the server's buffer. */
static size_t short_receives(int fd)
{
    size_t count = 0;
    for (size_t i = 0; i < call_count; i++)
        count +=
            calls[i].number == SYS_recvfrom && calls[i].fd == fd && calls[i].result != (long)calls[i].size;
    return count;
}

/* In the turn, each client whom the kernel reported was served, and nobody
 * for long: edge goes on with one who fills its buffer, but not for ever. One
 * who was not reported may have been due from the turn before, where that is
 * not reported again. */
static void served_those_reported(void)
{
    for (size_t i = 0; i < answered.watches.count; i++) {
        int fd = answered.watches.of[i].fd;
        if (fd == listener)
            continue;
        bool ready = reported(&answered, fd) != 0;
        size_t received = times(SYS_recvfrom, fd);
        ck_assert_msg(
            received <= (is_edge ? TURNS_IN_A_ROW : 1) && short_receives(fd) <= 1,
            "in one turn, the server received %zu times from descriptor %d, and %zu of them did not "
            "fill its buffer",
            received, fd, short_receives(fd));
        bool served = received > 0 || times(SYS_sendto, fd) > 0;
        ck_assert_msg(served || !ready, "descriptor %d was reported as ready, and the server did nothing",
                      fd);
        ck_assert_msg(ready || !served || is_edge, "descriptor %d was not reported as ready, and was served",
                      fd);
    }
}

/* epoll watches the listening socket and these, each once, and nothing else. */
static void watches_only(const int *descriptors, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(find_watch(&asked.watches, descriptors[i]) != NULL,
                      "descriptor %d, of a client that is there, is not watched", descriptors[i]);
    ck_assert_msg(find_watch(&asked.watches, listener) != NULL, "the listening socket is not watched");
    ck_assert_msg(asked.watches.count == count + 1,
                  "%zu clients are there, and epoll watches %zu descriptors, with the listening socket",
                  count, asked.watches.count);
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

static void say(const struct server *server, const int *clients, size_t client, const char *text)
{
    client_send(clients[client], text, strlen(text));
    await_ready(server, number(client), POLLIN);
}

static void close_client(const struct server *server, const int *clients, size_t client)
{
    close(clients[client]);
    await_ready(server, number(client), POLLIN);
}

static void gets_back(int client, const char *text)
{
    char back[64] = "";
    size_t size = strlen(text);
    ck_assert_msg(client_receive(client, back, size) == size && memcmp(back, text, size) == 0,
                  "a client sent \"%s\", and \"%s\" came back", text, back);
}

/* ---- waiting ---- */

static void idle(void)
{
    enum { CLIENTS = 20 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);

    hold(&server, clients[0]);
    ck_assert_msg(asked.limit == -1, "nothing is to be done, and epoll_wait() has a limit of %d ms",
                  asked.limit);
    ck_assert_msg(!turn(&server), "nobody says anything, and epoll_wait() returned %ld",
                  answered.call.result);
    trace_end(&server);
}
BOTH(idle)

static void message(void)
{
    enum { CLIENTS = 20, ROUNDS = 3 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);

    hold(&server, clients[0]);
    for (size_t i = 0; i < ROUNDS * CLIENTS; i++) {
        size_t client = i % CLIENTS;
        ck_assert_msg(!turn(&server), "nobody says anything, and epoll_wait() returned %ld",
                      answered.call.result);
        client_send(clients[client], "hello", 5);
        woken_turn(&server);
        ck_assert_msg(answered.call.result == 1, "one client spoke, and epoll_wait() returned %ld",
                      answered.call.result);
        ck_assert_msg(call_count == 2 && times(SYS_recvfrom, number(client)) == 1 &&
                          times(SYS_sendto, number(client)) == 1,
                      "for one message the server made %zu system calls besides epoll_wait(), %zu of them "
                      "epoll_ctl(), %zu recv()",
                      call_count, changes(number(client)), times(SYS_recvfrom, number(client)));
        gets_back(clients[client], "hello");
    }
    trace_end(&server);
}
BOTH(message)

static void cost(void)
{
    static const size_t steps[] = {10, 100, 1000};
    static int clients[1000];
    size_t count = 0;
    struct server server = start(&(struct server_setup){.descriptors = 1100});
    for (size_t step = 0; step < sizeof steps / sizeof *steps; step++) {
        client_connect_many(&server, clients + count, steps[step] - count);
        for (; count < steps[step]; count++)
            ck_assert_msg(client_gets_echo(clients[count], "hello"), "client %zu got no echo", count + 1);
        hold(&server, clients[0]);
        say(&server, clients, count - 1, "x");
        woken_turn(&server);
        gets_back(clients[count - 1], "x");
        printf("# %s: %4zu clients, one says something: epoll_wait() hands over %ld event, "
               "and the server receives from %zu\n",
               model, count, answered.call.result, call_count / 2);
        ck_assert_msg(answered.call.result == 1, "%zu clients, one speaks, and epoll_wait() returned %ld",
                      count, answered.call.result);
        ck_assert_msg(call_count == 2, "for one message of %zu clients, the server made %zu system calls",
                      count, call_count);
        ck_assert_uint_eq(asked.watches.count, count + 1);
        trace_end(&server);
    }
    fflush(stdout);
}
BOTH(cost)

static void batch(void)
{
    /* More than one call brings, and more than a table of 1,024 would hold. */
    enum { CLIENTS = 1100 };
    static int clients[CLIENTS];
    static size_t served[CLIENTS];
    long events = 0;
    int wakeups = 0;
    struct server server = start(&(struct server_setup){.descriptors = CLIENTS + 100});
    client_connect_many(&server, clients, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert_msg(client_gets_echo(clients[i], "hello"), "client %zu got no echo", i + 1);
    hold(&server, clients[0]);
    for (size_t i = 0; i < CLIENTS; i++)
        say(&server, clients, i, "me");
    for (; turn(&server); wakeups++) {
        events += answered.call.result;
        for (size_t i = 0; i < CLIENTS; i++)
            served[i] += times(SYS_recvfrom, number(i));
        ck_assert_msg(wakeups < CLIENTS, "%d clients speak at once, and the server has woken %d times",
                      CLIENTS, wakeups);
    }
    trace_end(&server);
    for (size_t i = 0; i < CLIENTS; i++) {
        ck_assert_msg(served[i] == 1,
                      "client %zu of %d spoke once, and the server received %zu times from it", i + 1,
                      CLIENTS, served[i]);
        gets_back(clients[i], "me");
    }
    printf("# %s: %d clients speak at once: %d wake-ups, %ld events\n", model, CLIENTS, wakeups, events);
    fflush(stdout);
    ck_assert_msg(events == CLIENTS, "%d clients spoke once, and %ld events were handed over", CLIENTS,
                  events);
}
BOTH(batch)

/* ---- what epoll is told ---- */

static void one_control_each(void)
{
    enum { CLIENTS = 20, MESSAGES = 5 };
    int clients[CLIENTS];
    struct server server = start(&(struct server_setup){.faults = ""});
    int base = server_descriptors(&server);
    connect_served(&server, clients, CLIENTS);
    for (size_t i = 0; i < MESSAGES * CLIENTS; i++)
        ck_assert_msg(client_gets_echo(clients[i % CLIENTS], "hello"), "no echo");
    for (size_t i = 0; i < CLIENTS; i++) {
        if (i % 2 == 0)
            client_reset(clients[i]);
        else
            close(clients[i]);
    }
    ck_assert_msg(eventually(server_descriptors(&server) == base),
                  "all clients have left, and the server has %d descriptors more than before",
                  server_descriptors(&server) - base);
    printf("# %s: %d clients, %d messages each: %llu calls of epoll_ctl(), one of them for the listening "
           "socket\n",
           model, CLIENTS, MESSAGES + 1, (unsigned long long)server_calls(&server, "epoll_ctl"));
    fflush(stdout);
    ck_assert_msg(server_calls(&server, "epoll_ctl") == 1 + CLIENTS,
                  "%d clients came, spoke and left, and epoll_ctl() was called %llu times", CLIENTS,
                  (unsigned long long)server_calls(&server, "epoll_ctl"));
}
BOTH(one_control_each)

/* One client's debt, followed turn by turn. */
struct debt {
    long owed;
    size_t stalls;
    size_t changes;
};

/* After a turn: what the server owes to client 1, and whether epoll has been told what it must know. */
static void follow(struct debt *debt)
{
    int fd = number(1);
    bool before = debt->owed > 0;
    for (size_t i = 0; i < call_count; i++) {
        long moved = calls[i].fd == fd && calls[i].result > 0 ? calls[i].result : 0;
        debt->owed += calls[i].number == SYS_recvfrom ? moved : calls[i].number == SYS_sendto ? -moved : 0;
    }
    ck_assert_msg(debt->owed <= BUFFER_SIZE, "the server owes %ld bytes to a client, more than %d",
                  debt->owed, BUFFER_SIZE);
    bool after = debt->owed > 0;
    debt->stalls += after && !before;
    debt->changes += changes(fd);
    ck_assert_msg(changes(fd) == (!is_edge && before != after),
                  "%ld bytes are owed now, %s before, and epoll_ctl() was called %zu times", debt->owed,
                  before ? "some" : "none", changes(fd));
    const struct watch *watch = find_watch(&asked.watches, fd);
    ck_assert_msg(watch != NULL, "a client that is there is not watched");
    if (!is_edge)
        ck_assert_msg((watch->events & (EPOLLIN | EPOLLOUT)) == (after ? EPOLLOUT : EPOLLIN),
                      "%ld bytes are owed, and the client is watched for %#x", debt->owed, watch->events);
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
    printf("# %s: %zu times the client took no more for a while: %zu calls of epoll_ctl()\n", model,
           debt.stalls, debt.changes);
    fflush(stdout);
    ck_assert_uint_ge(debt.stalls, 1);
    ck_assert_uint_eq(debt.changes, is_edge ? 0 : 2 * debt.stalls);
}
BOTH(stall)

static void watched(void)
{
    enum { CLIENTS = 6 };
    int clients[CLIENTS];
    int highest;
    char text[64];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    for (size_t i = 0; i < CLIENTS; i++) {
        const struct watch *watch = find_watch(&asked.watches, number(i));
        uint32_t expected = is_edge ? EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET : EPOLLIN;
        ck_assert_msg(watch != NULL, "client %zu is not watched", i + 1);
        ck_assert_msg(watch->events == expected, "a client that owes nothing is watched for %#x, not %#x",
                      watch->events, expected);
    }
    close_client(&server, clients, 1);
    close_client(&server, clients, CLIENTS - 1);
    until_asleep(&server);
    watches_only((const int[]){number(0), number(2), number(3), number(4)}, 4);
    kind(&server, number(1), text, sizeof text);
    ck_assert_msg(text[0] == '\0', "the client has left, and its descriptor is still open: %s", text);
    ck_assert_msg(count_kind(&server, "anon_inode:[eventpoll]", &highest) == 1,
                  "the server has %d descriptors of epoll",
                  count_kind(&server, "anon_inode:[eventpoll]", &highest));
    trace_end(&server);
}
BOTH(watched)

/* ---- nothing is missed, and nothing spins ---- */

/* How many of the calls on fd were sends for which there was no room. */
static size_t stalled_sends(int fd)
{
    size_t count = 0;
    for (size_t i = 0; i < call_count; i++)
        count += calls[i].number == SYS_sendto && calls[i].fd == fd && calls[i].result == -EAGAIN;
    return count;
}

static void whole_message(void)
{
    static const size_t sizes[] = {
        1, BUFFER_SIZE - 1, BUFFER_SIZE, BUFFER_SIZE + 1, 2 * BUFFER_SIZE, 3 * BUFFER_SIZE + 1};
    enum { WARM_UP = 16 << 20 };
    static unsigned char data[4 * BUFFER_SIZE];
    int clients[2];
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    /* The kernel gives more room to a connection on which much has come. */
    size_t came = client_echo(clients[1], WARM_UP, 1 << 20, 7);
    ck_assert_msg(came == WARM_UP, "of %d bytes, sent 1 MiB at a time, %zu came back", WARM_UP, came);
    hold(&server, clients[0]);

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t receives = 0;
        size_t stalls = 0;
        for (size_t j = 0; j < sizes[i]; j++)
            data[j] = pattern((unsigned)i, j);
        client_send(clients[1], data, sizes[i]);
        await_bytes(&server, number(1), sizes[i]); /* nothing more will come, and wake the server */
        woken_turn(&server);
        do {
            receives += times(SYS_recvfrom, number(1));
            stalls += stalled_sends(number(1));
        } while (turn(&server));
        size_t right = client_receive_pattern(clients[1], sizes[i], (unsigned)i, 0);
        ck_assert_msg(right == sizes[i], "of a message of %zu bytes, %zu came back", sizes[i], right);
        /* A receive that was short has said that there is no more; one that was not, has not. */
        size_t expected = is_edge ? sizes[i] / BUFFER_SIZE + 1 : (sizes[i] + BUFFER_SIZE - 1) / BUFFER_SIZE;
        /* And who has paid its debts asks what has come meanwhile. edge is told of room to send, too,
         * whether it waits for that or not, and then asks in vain. */
        size_t most = expected + stalls + (is_edge ? 2 : 0);
        ck_assert_msg(receives >= expected && receives <= most,
                      "for %zu bytes the server called recv() %zu times, and not %zu", sizes[i], receives,
                      expected);
    }
    trace_end(&server);
    ck_assert_uint_eq(client_echo(clients[1], 1 << 20, 1 << 20, 9), 1 << 20);
}
BOTH(whole_message)

static void owing(void)
{
    enum { CLIENTS = 10, UNREAD = 4 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    size_t taken = client_flood(clients[UNREAD], 1);
    hold(&server, clients[0]);
    until_asleep(&server);
    ck_assert_msg(asked.limit == -1, "a client is owed bytes, and epoll_wait() has a limit of %d ms",
                  asked.limit);
    say(&server, clients, 1, "and me?");
    woken_turn(&server);
    gets_back(clients[1], "and me?");
    /* What the client sends into a closed window may still arrive: an edge or two, and no spin. */
    int woken = 0;
    while (turn(&server) && woken < 10)
        woken++;
    ck_assert_msg(woken < 10, "one client is owed bytes, and epoll_wait() returned %ld, again and again",
                  answered.call.result);
    trace_end(&server);

    size_t right = client_receive_pattern(clients[UNREAD], taken, 1, 0);
    ck_assert_msg(right == taken, "the client sent %zu bytes, and only the first %zu came back right", taken,
                  right);
    hold(&server, clients[0]);
    until_asleep(&server);
    ck_assert_msg(asked.limit == -1, "nothing is owed, and epoll_wait() has a limit of %d ms", asked.limit);
    trace_end(&server);
    ck_assert_msg(client_gets_echo(clients[UNREAD], "again"), "the client got no echo any more");
}
BOTH(owing)

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
    await_ready(&server, number(1), POLLRDHUP);
    int turns = until_asleep(&server);
    ck_assert_msg(turns <= is_edge,
                  "a client that is owed bytes has ended, and epoll_wait() returned %d times", turns);
    trace_end(&server);
    size_t right = client_receive_pattern(clients[1], sent, 1, 0);
    ck_assert_msg(right == sent, "a client sent %zu bytes and a FIN, and only the first %zu came back right",
                  sent, right);
    ck_assert_msg(client_ending(clients[1]) == ENDED, "all is paid, and the connection was not closed");
    ck_assert_msg(client_gets_echo(clients[0], "and me?"), "another client is not served any more");
}
BOTH(end_owed)

/* Client 1 has ended: it is closed, and the server sleeps. */
static void is_closed(const struct server *server, const int *clients, const char *text)
{
    until_asleep(server);
    ck_assert_msg(find_watch(&asked.watches, number(1)) == NULL,
                  "the client has ended, and the server sleeps with its connection open");
    trace_end(server);
    gets_back(clients[1], text);
    ck_assert_msg(client_ending(clients[1]) == ENDED, "the connection did not end");
    ck_assert_msg(client_gets_echo(clients[0], "and me?"), "another client is not served any more");
}

static void end_with_data(void)
{
    int clients[2];
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    hold(&server, clients[0]);
    client_send(clients[1], "bye", 3);
    client_finish(clients[1]);
    await_ready(&server, number(1), POLLRDHUP);
    woken_turn(&server);
    ck_assert_int_eq(answered.call.result, 1);
    is_closed(&server, clients, "bye");
}
BOTH(end_with_data)

static void end_meanwhile(void)
{
    int clients[2];
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    hold(&server, clients[0]);
    client_send(clients[1], "bye", 3);
    ck_assert_msg(eventually(wait_ends(&server)), "a client spoke, and the server sleeps");
    ck_assert_msg((reported(&asked, number(1)) & EPOLLRDHUP) == 0, "no FIN was sent, and one is reported");
    client_finish(clients[1]); /* after the event, and before the server receives */
    await_ready(&server, number(1), POLLRDHUP);
    turn_ends(&server);
    is_closed(&server, clients, "bye");
}
BOTH(end_meanwhile)

static void end_later(void)
{
    int clients[2];
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    hold(&server, clients[0]);
    client_send(clients[1], "bye", 3);
    woken_turn(&server);
    until_asleep(&server);
    client_finish(clients[1]);
    woken_turn(&server);
    is_closed(&server, clients, "bye");
}
BOTH(end_later)

/* ---- lost clients ---- */

/* One client is lost. The others are served, and the server sleeps again. */
static void only_that_one(const struct server *server, const int *clients, size_t lost, size_t count)
{
    int left[16] = {0};
    size_t stay = 0;
    ck_assert_msg(times(SYS_close, number(lost)) == 1,
                  "the connection of the client that was lost was closed %zu times",
                  times(SYS_close, number(lost)));
    for (size_t i = 0; i < count; i++) {
        if (i != lost)
            left[stay++] = number(i);
    }
    watches_only(left, stay);
    until_asleep(server);
    trace_end(server);
    for (size_t i = 0; i < count; i++) {
        if (i != lost)
            ck_assert_msg(client_gets_echo(clients[i], "and me?"),
                          "client %zu was lost, and client %zu with it", lost + 1, i + 1);
    }
}

static void reset_idle(void)
{
    enum { CLIENTS = 5, LOST = 2 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    client_reset(clients[LOST]);
    await_ready(&server, number(LOST), POLLIN);
    woken_turn(&server);
    ck_assert_msg((reported(&answered, number(LOST)) & (EPOLLERR | EPOLLHUP)) == (EPOLLERR | EPOLLHUP),
                  "a RST is reported as %#x", reported(&answered, number(LOST)));
    served_those_reported();
    only_that_one(&server, clients, LOST, CLIENTS);
}
BOTH(reset_idle)

static void reset_owed(void)
{
    enum { CLIENTS = 5, LOST = 2 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    client_flood(clients[LOST], 1);
    hold(&server, clients[0]);
    until_asleep(&server);
    client_reset(clients[LOST]);
    woken_turn(&server);
    only_that_one(&server, clients, LOST, CLIENTS);
}
BOTH(reset_owed)

/* ---- leaving and coming ---- */

static void several_leave(void)
{
    enum { CLIENTS = 8, LEAVE = 3 };
    static const size_t leaving[LEAVE] = {1, 2, 7};
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    for (size_t i = 0; i < LEAVE; i++)
        close_client(&server, clients, leaving[i]);
    say(&server, clients, 4, "still here");
    say(&server, clients, 6, "I too");
    woken_turn(&server);
    ck_assert_int_eq(answered.call.result, LEAVE + 2);
    served_those_reported();
    for (size_t i = 0; i < LEAVE; i++)
        ck_assert_msg(times(SYS_close, number(leaving[i])) == 1, "a client that left was closed %zu times",
                      times(SYS_close, number(leaving[i])));
    watches_only((const int[]){number(0), number(3), number(4), number(5), number(6)}, CLIENTS - LEAVE);
    gets_back(clients[4], "still here");
    gets_back(clients[6], "I too");

    /* Others come, and get the numbers of those. */
    for (size_t i = 0; i < LEAVE; i++)
        clients[leaving[i]] = client_connect(&server);
    await_ready(&server, listener, POLLIN);
    woken_turn(&server);
    until_asleep(&server);
    ck_assert_uint_eq(asked.watches.count, CLIENTS + 1);
    trace_end(&server);
    for (size_t i = 0; i < CLIENTS; i++)
        ck_assert_msg(client_gets_echo(clients[i], "hello"), "client %zu is not served", i + 1);
}
BOTH(several_leave)

static void stale_event(void)
{
    enum { CLIENTS = 3, LEFT = 1, CARRIER = 2 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    close_client(&server, clients, LEFT);
    ck_assert_msg(wait_ends(&server) && asked.call.result == 1, "one has left, and %ld events are reported",
                  asked.call.result);
    struct epoll_event stale = asked.events[0];
    turn_ends(&server);

    /* Another comes, and gets its number. */
    clients[LEFT] = client_connect(&server);
    await_ready(&server, listener, POLLIN);
    woken_turn(&server);
    until_asleep(&server);
    ck_assert_msg(find_watch(&asked.watches, number(LEFT)) != NULL,
                  "the new client did not get the number of the one that left");

    /* What a handler that closes another's descriptor would bring about: in the
     * place of an event, the old one is there. */
    say(&server, clients, CARRIER, "one ");
    ck_assert_msg(wait_ends(&server) && asked.call.result == 1, "a client spoke, and %ld events are reported",
                  asked.call.result);
    trace_write(&server, asked.call.arguments[1], &stale, sizeof stale);
    turn_ends(&server);
    ck_assert_msg(times(SYS_recvfrom, number(LEFT)) == 0 && times(SYS_sendto, number(LEFT)) == 0 &&
                      times(SYS_close, number(LEFT)) == 0,
                  "an event of a client that had left was taken for one of the client with its number");
    say(&server, clients, CARRIER, "two"); /* an edge that was lost comes again with more */
    woken_turn(&server);
    until_asleep(&server);
    trace_end(&server);
    gets_back(clients[CARRIER], "one two");
    ck_assert_msg(client_gets_echo(clients[LEFT], "hello"), "the new client is not served");
}
BOTH(stale_event)

static void table_grows(void)
{
    enum { CROWD = 200 };
    int owed;
    int crowd[CROWD];
    /* With glibc, memory that has been freed is written over: who still reads it shall know. */
    setenv("MALLOC_PERTURB_", "165", 1);
    struct server server = start(&(struct server_setup){.descriptors = 2 * CROWD});
    int base = server_descriptors(&server);
    connect_served(&server, &owed, 1);
    size_t taken = client_flood(owed, 1); /* what it is owed lies behind the first table */
    connect_served(&server, crowd, CROWD);
    size_t right = client_receive_pattern(owed, taken, 1, 0);
    ck_assert_msg(right == taken, "%d more came, and of %zu bytes owed to a client only %zu came right",
                  CROWD, taken, right);
    ck_assert_msg(client_gets_echo(owed, "hello"), "the client that came first is not served");
    for (size_t i = 0; i < CROWD; i++)
        ck_assert_msg(client_gets_echo(crowd[i], "again"), "client %zu is not served", i + 1);

    for (size_t i = 0; i < CROWD; i += 2)
        close(crowd[i]);
    ck_assert_msg(eventually(server_descriptors(&server) == base + 1 + CROWD / 2),
                  "half have left, and the server has %d descriptors", server_descriptors(&server));
    for (size_t i = 0; i < CROWD; i += 2)
        connect_served(&server, &crowd[i], 1);
    for (size_t i = 0; i < CROWD; i++)
        ck_assert_msg(client_gets_echo(crowd[i], "again"), "client %zu is not served", i + 1);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
BOTH(table_grows)

/* ---- a wait call that fails, and the stop ---- */

static void interrupted(void)
{
    enum { FIRST = 10, LAST = 49 };
    int client;
    struct server server = start(&(struct server_setup){.faults = "epoll_wait:10-49=EINTR"});
    connect_served(&server, &client, 1);
    for (;;) {
        rests(&server);
        if (server_calls(&server, "epoll_wait") == FIRST - 1)
            break;
        ck_assert_msg(server_calls(&server, "epoll_wait") < FIRST, "epoll_wait() is called again and again");
        ck_assert_msg(client_gets_echo(client, "hello"), "no echo");
    }
    uint64_t receives = server_calls(&server, "recv");
    uint64_t accepts = server_calls(&server, "accept");
    ck_assert_msg(client_gets_echo(client, "hello"), "no echo");
    ck_assert_msg(eventually(server_calls(&server, "epoll_wait") == LAST + 1),
                  "epoll_wait() was interrupted, and called %llu times, not %d",
                  (unsigned long long)server_calls(&server, "epoll_wait"), LAST + 1);
    rests(&server);
    ck_assert_uint_eq(server_faults(&server, "epoll_wait"), LAST - FIRST + 1);
    ck_assert_msg(server_calls(&server, "recv") == receives + 1,
                  "epoll_wait() was interrupted, which says nothing, and recv() was called %llu times",
                  (unsigned long long)(server_calls(&server, "recv") - receives));
    ck_assert_uint_eq(server_calls(&server, "accept"), accepts);
    ck_assert_msg(client_gets_echo(client, "again"), "epoll_wait() was interrupted, and there was no echo");
}
BOTH(interrupted)

static void stop(void)
{
    int clients[3];
    struct server server = start(NULL);
    connect_served(&server, clients, 3);
    rests(&server);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
    ck_assert_msg(client_ending(clients[0]) == ENDED, "a stop, and a client was not closed");

    server = start(&(struct server_setup){.faults = "epoll_wait:3=SIGTERM"});
    connect_served(&server, clients, 1);
    ck_assert_msg(eventually(server_faults(&server, "epoll_wait") == 1), "no signal came: nothing was shown");
    ck_assert_int_eq(server_wait(&server), 0);
}
BOTH(stop)

static void stop_ready(void)
{
    enum { INSIDE = 40, OUTSIDE = 100 }; /* more than one turn lets in */
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
    await_ready(&server, listener, POLLIN);
    kill(server.pid, SIGTERM);
    trace_end(&server);
    for (size_t i = 0; i < INSIDE + OUTSIDE; i++) {
        gets_back(clients[i], "last words");
        ck_assert_msg(client_ending(clients[i]) == ENDED, "client %zu was not closed as it should be", i + 1);
    }
    ck_assert_int_eq(server_wait(&server), 0);
}
BOTH(stop_ready)

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

static void stop_owed(void)
{
    enum { CLIENTS = 5 };
    int clients[CLIENTS];
    size_t sent[CLIENTS];
    struct server server = start(&(struct server_setup){.faults = ""});
    connect_served(&server, clients, CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++)
        sent[i] = send_until_owed(&server, clients[i], i);
    kill(server.pid, SIGTERM);
    for (unsigned i = 0; i < CLIENTS; i++) {
        size_t right = client_receive_pattern(clients[i], sent[i], i, 0);
        ck_assert_msg(right == sent[i],
                      "%zu bytes had arrived before the stop, and the first %zu came back right", sent[i],
                      right);
        ck_assert_msg(client_ending(clients[i]) == ENDED, "client %u was not closed as it should be", i + 1);
    }
    ck_assert_int_eq(server_wait(&server), 0);
}
BOTH(stop_owed)

/* ---- out of descriptors ---- */

/* What epoll watches the listening socket for. */
static uint32_t listening_for(void)
{
    const struct watch *watch = find_watch(&asked.watches, listener);
    ck_assert_msg(watch != NULL, "the listening socket is not in epoll any more");
    return watch->events;
}

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

/* How often the server slept in the turn, where nobody can wake it. */
static size_t paused(void)
{
    size_t found = 0;
    for (size_t i = 0; i < call_count; i++)
        found += calls[i].number == SYS_nanosleep || calls[i].number == SYS_clock_nanosleep;
    return found;
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
        ck_assert_msg(asked.limit != -1 || (!is_edge && listening_for() == EPOLLIN),
                      "a client waits for a descriptor, and the server may sleep for ever");
        bool busy = i < MESSAGES;
        if (busy)
            say(&server, clients, 1, "busy");
        int64_t before = now_ms();
        woken_turn(&server);
        if (busy)
            gets_back(clients[1], "busy");
        ck_assert_msg(paused() == 0, "there is no descriptor for one client, and the server sleeps for all");
        ck_assert_uint_eq(accepted(&failed), 0);
        ck_assert_uint_le(failed, 1);
        /* A slow machine may need as long for a turn as the server leaves the listening socket alone. */
        ck_assert_msg(failed == 0 || now_ms() - when >= TICK_MS,
                      "there was no descriptor a moment ago, and accept() is called again");
        if (failed > 0) {
            when = before;
            ck_assert_msg(is_edge || listening_for() == 0,
                          "there is no descriptor, and the listening socket is still watched: it is ready");
        }
        attempts += (int)failed;
    }
    ck_assert_msg(attempts >= ATTEMPTS, "a client waits for a descriptor, and is not asked in again");
    trace_end(&server);
    server_limit_descriptors(&server, 1000); /* and nobody leaves */
    gets_back(waiting, "let me in");
}
BOTH(full_unasked)

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
        left = times(SYS_close, number(1)) > 0;
    }
    ck_assert_msg(asked.limit == (is_edge ? 0 : -1),
                  "a client has left, one waits outside, and epoll_wait() has a limit of %d ms", asked.limit);
    ck_assert_msg(listening_for() != 0,
                  "a client has left, one waits outside, and the listening socket is not watched");
    woken_turn(&server);
    ck_assert_msg(accepted(&failed) == 1, "a client has left, and the one who waits outside is not let in");
    trace_end(&server);
    gets_back(waiting, "let me in");
}
BOTH(full_leaves)

static void full_system(void)
{
    /* The whole system is short of descriptors for a while; nobody leaves here. */
    enum { FAILURES = 3 };
    int inside;
    struct server server = start(&(struct server_setup){.faults = "accept:+2-4=ENFILE"});
    connect_served(&server, &inside, 1);
    rests(&server);
    uint64_t waits = server_calls(&server, "epoll_wait");
    uint64_t controls = server_calls(&server, "epoll_ctl");
    int waiting = client_connect(&server);
    ck_assert_msg(client_gets_echo(waiting, "let me in"),
                  "there are descriptors again, nobody has left, and the one who waits is not let in");
    waits = server_calls(&server, "epoll_wait") - waits;
    controls = server_calls(&server, "epoll_ctl") - controls;
    ck_assert_uint_eq(server_faults(&server, "accept"), FAILURES);
    /* One for each, in which it is left alone; and one more to serve. */
    ck_assert_msg(waits > FAILURES, "accept() failed %d times, and epoll_wait() was called only %llu times",
                  FAILURES, (unsigned long long)waits);
    ck_assert_msg(controls == (is_edge ? 1 : 1 + 2 * FAILURES),
                  "accept() failed %d times, a client came in, and epoll_ctl() was called %llu times",
                  FAILURES, (unsigned long long)controls);
}
BOTH(full_system)

static void full_counted(void)
{
    enum { CLIENTS = 3, ATTEMPTS = 10 };
    int clients[CLIENTS];
    struct server server = start(&(struct server_setup){.faults = ""});
    connect_served(&server, clients, CLIENTS);
    rests(&server);
    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    uint64_t failures = server_failures(&server, "accept");
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_failures(&server, "accept") > failures), "accept() did not fail");

    int64_t wall = now_ms();
    uint64_t cpu = server_cpu_ns(&server);
    uint64_t waits = server_calls(&server, "epoll_wait");
    uint64_t controls = server_calls(&server, "epoll_ctl");
    failures = server_failures(&server, "accept");
    ck_assert_msg(eventually(server_failures(&server, "accept") >= failures + ATTEMPTS),
                  "a client waits for a descriptor, and is not asked in again");
    waits = server_calls(&server, "epoll_wait") - waits;
    controls = server_calls(&server, "epoll_ctl") - controls;
    failures = server_failures(&server, "accept") - failures;
    cpu = server_cpu_ns(&server) - cpu;
    wall = now_ms() - wall;
    printf("# %s: out of descriptors, in %lld ms: %llu calls of accept(), %llu of epoll_ctl(), %llu of "
           "epoll_wait(), %.1f ms of processor time\n",
           model, (long long)wall, (unsigned long long)failures, (unsigned long long)controls,
           (unsigned long long)waits, (double)cpu / 1e6);
    fflush(stdout);
    /* The counters are read one after the other, while the server goes on. */
    ck_assert_msg((int64_t)failures <= wall / TICK_MS + 1, "in %lld ms accept() failed %llu times",
                  (long long)wall, (unsigned long long)failures);
    ck_assert_msg(is_edge ? controls == 0 : controls <= 2 * failures + 2,
                  "accept() failed %llu times, and epoll_ctl() was called %llu times",
                  (unsigned long long)failures, (unsigned long long)controls);
    ck_assert_msg(waits <= 2 * failures + 2,
                  "accept() failed %llu times, and epoll_wait() returned %llu times",
                  (unsigned long long)failures, (unsigned long long)waits);
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "thanks"),
                  "there are descriptors again, and the client is not served");
}
BOTH(full_counted)

/* ---- epoll_ctl() fails ---- */

static void add_fails(void)
{
    /* The first is for the listening socket, two for those inside. */
    enum { INSIDE = 2, LOST = 2 };
    int inside[INSIDE];
    int lost[LOST];
    int later;
    struct server server = start(&(struct server_setup){.faults = "epoll_ctl:4=ENOMEM epoll_ctl:5=ENOSPC"});
    connect_served(&server, inside, INSIDE);
    int before = server_descriptors(&server);
    for (size_t i = 0; i < LOST; i++) {
        lost[i] = client_connect(&server);
        ck_assert_msg(client_ending(lost[i]) != STILL_OPEN,
                      "epoll cannot watch a client, and its connection stays open");
    }
    ck_assert_uint_eq(server_faults(&server, "epoll_ctl"), LOST);
    ck_assert_int_eq(server_descriptors(&server), before);
    connect_served(&server, &later, 1);
    for (size_t i = 0; i < INSIDE; i++)
        ck_assert_msg(client_gets_echo(inside[i], "and me?"),
                      "epoll could not watch a new client, and client %zu is not served", i + 1);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
BOTH(add_fails)

static void modify_fails(void)
{
    int clients[2];
    int later;
    struct server server = start(&(struct server_setup){.faults = "epoll_ctl:4=ENOMEM"});
    connect_served(&server, clients, 2);
    int before = server_descriptors(&server);
    client_flood(clients[1], 1);
    ck_assert_msg(eventually(server_faults(&server, "epoll_ctl") == 1), "nothing failed: nothing was shown");
    ck_assert_msg(eventually(server_descriptors(&server) == before - 1),
                  "epoll cannot be told to watch for room, and the client is kept in vain");
    ck_assert_msg(client_ending(clients[1]) != STILL_OPEN, "the client was not closed");
    ck_assert_msg(client_gets_echo(clients[0], "and me?"), "one client was lost, and another is not served");
    rests(&server);
    connect_served(&server, &later, 1);
}
LEVEL(modify_fails)

static void modify_listener_fails(void)
{
    enum { FAILURES = 3 };
    int client;
    struct server server = start(&(struct server_setup){.faults = "epoll_ctl:3-5=ENOMEM"});
    connect_served(&server, &client, 1);
    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_calls(&server, "epoll_ctl") > 2 + FAILURES),
                  "epoll could not be told to leave the listening socket alone, and is not told again");
    ck_assert_uint_eq(server_faults(&server, "epoll_ctl"), FAILURES);
    /* Each time the listening socket is still watched, and brings one more call of accept(). */
    ck_assert_msg(server_calls(&server, "nanosleep") == FAILURES,
                  "epoll_ctl() failed %d times, and the server paused %llu times", FAILURES,
                  (unsigned long long)server_calls(&server, "nanosleep"));
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "let me in"), "the client is not let in");
    ck_assert_msg(client_gets_echo(client, "and me?"), "the client inside is not served");
}
LEVEL(modify_listener_fails)

/* ---- fairness ---- */

static void bounded_accepts(void)
{
    enum { CROWD = 200, MOST_TURNS = 20 };
    int clients[2];
    int crowd[CROWD];
    size_t came = 0;
    size_t failed;
    long announced = 0;
    struct server server = start(NULL);
    connect_served(&server, clients, 2);
    hold(&server, clients[0]);
    client_connect_many(&server, crowd, CROWD); /* the kernel connects them; the server stands still */
    await_ready(&server, listener, POLLIN);

    for (int i = 0; i < MOST_TURNS && came < CROWD; i++) {
        say(&server, clients, 1, "x");
        woken_turn(&server);
        size_t now = accepted(&failed);
        announced += reported(&answered, listener) != 0;
        ck_assert_msg(now <= MOST_ACCEPTS, "%zu clients were accepted while the one inside waited", now);
        ck_assert_msg(times(SYS_recvfrom, number(1)) == 1, "the one inside was not served in that turn");
        gets_back(clients[1], "x");
        came += now;
    }
    ck_assert_msg(came == CROWD, "of %d clients, %zu came in", CROWD, came);
    ck_assert_msg(!is_edge || announced == 1, "%d clients came at once, and were announced %ld times", CROWD,
                  announced);
    until_asleep(&server);
    trace_end(&server);
    for (size_t i = 0; i < CROWD; i++)
        ck_assert_msg(client_gets_echo(crowd[i], "hello"), "client %zu of the crowd is not served", i + 1);
}
BOTH(bounded_accepts)

/* Sends until the kernel takes no more at the moment, and takes what has come back. */
static void keep_busy(int client)
{
    static char block[65536];
    while (recv(client, block, sizeof block, MSG_DONTWAIT) > 0)
        continue;
    while (send(client, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue;
}

static void one_receive(void)
{
    enum { TURNS = 30 };
    int clients[3];
    size_t full = 0;
    struct server server = start(NULL);
    connect_served(&server, clients, 3);
    hold(&server, clients[0]);

    for (int i = 0; i < TURNS; i++) {
        keep_busy(clients[1]);
        await_ready(&server, number(1), POLLIN | POLLOUT);
        say(&server, clients, 2, "x");
        woken_turn(&server);
        served_those_reported();
        ck_assert_msg(times(SYS_recvfrom, number(2)) == 1,
                      "one client sends without pause, and another was not served in that turn");
        gets_back(clients[2], "x");
        for (size_t j = 0; j < call_count; j++)
            full += calls[j].number == SYS_recvfrom && calls[j].result == (long)calls[j].size;
    }
    ck_assert_msg(full > 0, "no receive filled the server's buffer: this test has shown nothing");
    trace_end(&server);
}
BOTH(one_receive)

/* ---- the table ---- */

#define EPOLL_ROW(test, name, expected, cause)         \
    {                                                  \
        "epoll: " name, test, expected, cause, THE_API \
    }
#define LEVEL_ROW(test, name, expected, cause, section)        \
    {                                                          \
        "level: " name, level_##test, expected, cause, section \
    }
#define ROWS(test, name, expected, cause, section)           \
    LEVEL_ROW(test, name, expected, cause, section),         \
    {                                                        \
        "edge: " name, edge_##test, expected, cause, section \
    }

/* What START_TEST defines is no constant expression: so the table is made here. */
int main(int argc, char **argv)
{
    /* clang-format off */
    const struct tap_test tests[] = {
        EPOLL_ROW(level_repeats, "level-triggered, an event is reported until it has been dealt with",
                  "As long as a byte is there to be read, each call of epoll_wait() says so.",
                  "EPOLLET was asked for; or not all was read."),
        EPOLL_ROW(edge_tells_once, "edge-triggered, an event is reported once, and again when more comes",
                  "epoll_wait() says that something has come, and then nothing, though it has not been read. More\n"
                  "that comes is reported; and EPOLL_CTL_MOD has epoll look again at what is there.",
                  "EPOLLET was not asked for."),
        EPOLL_ROW(edge_room, "edge-triggered, room to send is reported at once, and again after EAGAIN",
                  "A new socket has room: that is one event. The next comes when send() has said EAGAIN and there\n"
                  "is room again.",
                  "EPOLLOUT without EPOLLET is reported as long as there is room, which is nearly always."),
        EPOLL_ROW(fin_events, "a FIN is EPOLLIN, with EPOLLRDHUP when asked for, and no EPOLLHUP",
                  "Half of the connection is closed: bytes can still be sent, so it has not been hung up. EPOLLHUP\n"
                  "comes when both directions are shut down.",
                  "EPOLLRDHUP is reported only to who asks for it."),
        EPOLL_ROW(rst_events, "a RST is EPOLLERR and EPOLLHUP, asked for or not",
                  "The connection is lost in both directions. EPOLLIN comes with it, so that who only reads finds\n"
                  "the error, too.",
                  "The peer's close() sent a FIN and not a RST."),
        EPOLL_ROW(oneshot, "EPOLLONESHOT reports once, until EPOLL_CTL_MOD arms it again",
                  "After one event the descriptor is still in epoll, and silent, whatever comes.",
                  "The descriptor was not armed again, or with EPOLL_CTL_ADD, which fails (EEXIST)."),
        EPOLL_ROW(exclusive, "of several who wait for one socket, EPOLLEXCLUSIVE wakes one",
                  "Four processes wait, each with an epoll of its own. A client wakes all four; with\n"
                  "EPOLLEXCLUSIVE, one.",
                  "All wake, one gets the client, the others have woken for nothing: a thundering herd."),
        EPOLL_ROW(last_descriptor, "a socket leaves epoll with its last descriptor",
                  "epoll watches the open socket and not the number. While a copy (dup, fork) is open, events go\n"
                  "on, under a number that may be another's by now, and nobody can take it out.",
                  "The copy was closed as well."),
        EPOLL_ROW(handed_out, "an event that was handed over stays, though its descriptor is another's now",
                  "Two events came with one call. While the first is handled, the second's descriptor is closed,\n"
                  "and a new socket gets its number: the second event looks as if it were about the new one.",
                  "The kernel cannot take an event back. So it must carry more than a descriptor: a generation."),
        EPOLL_ROW(takes_turns, "when a call has no room for all events, the next goes on with the others",
                  "Three are ready, and each call may report one: after six calls, each has been reported twice.",
                  "Not all of them were ready."),
        EPOLL_ROW(nested, "an epoll with an event is readable, also for another epoll",
                  "An epoll can be watched by poll() and by epoll; but not in a circle (ELOOP).",
                  "The inner one has no event."),
        EPOLL_ROW(control_errors, "epoll_ctl names each mistake",
                  "ADD twice: EEXIST. MOD or DEL of what is not there: ENOENT. A regular file, which is always\n"
                  "ready: EPERM. Itself: EINVAL. A closed descriptor: EBADF.",
                  "The result of epoll_ctl() was not looked at."),

        ROWS(idle, "silent clients wake nobody",
             "With 20 silent clients epoll_wait() has no limit of time, and the server sleeps in it.",
             "Something is watched that is always ready, such as room to send, level-triggered; or a timeout of 0\n"
             "when nobody has a turn due.",
             THE_IDEA),
        ROWS(message, "one message is one wake-up and two calls more",
             "A client speaks: epoll_wait() returns 1, then recv() and send() for that client, and nothing more.\n"
             "A receive that did not fill the buffer has said that nothing is left. The server sleeps again.",
             "Receiving until EAGAIN, which costs a call for each message; or telling epoll each time what it\n"
             "knows already.",
             THE_IDEA),
        ROWS(cost, "the cost follows those who are ready, not those who are watched",
             "Among 10, 100 and 1,000 clients one speaks: each time epoll_wait() hands over one event, and two\n"
             "calls follow.",
             "After a wake-up the server goes through all its clients, as with select() and poll().", WATCH_IT_RUN),
        ROWS(batch, "when 1,100 speak at once, each is served once",
             "One call brings a batch of events, the next call those for whom there was no room. Each client is\n"
             "reported once, received from once, and served.",
             "Only the first event is looked at, or a batch is longer than the array; or a table with room for\n"
             "1,024 clients, where one more is closed without a word.",
             THE_SERVER),
        ROWS(one_control_each, "one call of epoll_ctl for each client who always reads",
             "20 clients come, say six things each, and leave: 21 calls, one of them for the listening socket. With\n"
             "its last descriptor a socket leaves epoll by itself.",
             "EPOLL_CTL_MOD after each event; or EPOLL_CTL_DEL before each close().", THE_SERVER),
        LEVEL_ROW(stall, "two calls of epoll_ctl for each time that a client takes no more",
             "When the server begins to owe a client bytes, it watches for room to send, and for nothing else;\n"
             "when they are paid, for what the client says again. In between epoll is told nothing.",
             "EPOLL_CTL_MOD at each event; or room to send is still watched for when nothing is owed.", THE_SERVER),
        {"edge: no call of epoll_ctl when a client takes no more", edge_stall,
             "All that can happen was asked for once. When send() says EAGAIN, the next room is reported.",
             "EPOLL_CTL_MOD at each event, or when a client begins to owe: needed level-triggered only.", THE_SERVER},
        ROWS(watched, "epoll watches those who are there, and nobody else",
             "level: EPOLLIN. edge: EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLRDHUP, EPOLLET. Who has left is not in epoll any\n"
             "more, its descriptor is closed, and there is one epoll.",
             "A connection is shut down and not closed; or a second epoll is made, and forgotten.", THE_SERVER),
        ROWS(whole_message, "a message longer than the buffer arrives whole, and no receive is wasted",
             "64 KiB and 1 byte are there, with one event: two receives. The second is short: nothing more is\n"
             "there, and the server need not ask again.",
             "Edge-triggered, receiving once for each event: the rest stays in the kernel for ever, since nothing\n"
             "more comes to announce it. Or receiving until EAGAIN, once too often for each message.",
             THE_SERVER),
        ROWS(owing, "who is owed bytes wakes the server when there is room, and not before",
             "A client does not read. The server sleeps without a limit of time, and serves the others. When the\n"
             "client reads, everything comes; then room to send wakes nobody.",
             "Room to send is watched for while nothing is owed, or what the client says while it is owed: both\n"
             "are reported again and again. Or the room is not watched for at all.",
             THE_SERVER),
        ROWS(end_owed, "who ends while it is owed bytes gets them all, and the server sleeps meanwhile",
             "The FIN comes while the client is owed bytes. It is no reason to close, and no reason to wake more\n"
             "than once. When the client has read everything, the connection is closed.",
             "Closing at EPOLLRDHUP; or asking for EPOLLRDHUP level-triggered while bytes are owed: it is reported\n"
             "without end.",
             THE_SERVER),
        ROWS(end_with_data, "a FIN that comes with data in one event is not lost",
             "The last words and the FIN are there when the server wakes: one event for both. The words are echoed,\n"
             "and the connection is closed.",
             "Edge-triggered: the receive was short, so the server sleeps; the FIN was in the same event, and will\n"
             "not be reported again. EPOLLRDHUP in that event says so. Or: closing at EPOLLRDHUP, before the\n"
             "words have been received.",
             THE_SERVER),
        ROWS(end_meanwhile, "a FIN that comes between the event and the receive is not lost",
             "The event told of data only. The FIN comes before the server receives, and is an event of its own.",
             "Events of a client who is being served are thrown away.", THE_SERVER),
        ROWS(end_later, "a FIN that comes alone closes the connection",
             "The client has been served, the server sleeps, the FIN wakes it: recv() returns 0.",
             "EPOLLONESHOT without EPOLL_CTL_MOD after the event: the descriptor stays silent for ever.", THE_SERVER),
        ROWS(reset_idle, "a client that resets is lost, and nobody else",
             "A RST is reported as EPOLLIN, EPOLLERR and EPOLLHUP: recv() fails, the connection is closed, the\n"
             "others go on, and the server sleeps.",
             "EPOLLERR is taken for an error of epoll, and ends the server; or the client is kept.", THE_SERVER),
        ROWS(reset_owed, "a client that resets while it is owed bytes is lost, and nobody else",
             "EPOLLERR and EPOLLHUP are reported, asked for or not. send() fails, the connection is closed, and the\n"
             "server sleeps.",
             "Only EPOLLIN is looked at: level-triggered, the error is reported without end; edge-triggered, it is\n"
             "never seen.",
             THE_SERVER),
        ROWS(several_leave, "several leave in one batch, and others get their descriptors",
             "Three leave, and two speak, in one batch: each is dealt with once. Then three come, have the same\n"
             "descriptors, and are served.",
             "A handler that closes another's descriptor; or the new client inherits what was noted of the old.",
             THE_SERVER),
        ROWS(stale_event, "an event of one who has left never touches who has its descriptor now",
             "An old event comes after its client has left and a new one has got the descriptor. The event carries\n"
             "the generation of the old client, and nothing is done.",
             "The event carries only the descriptor, or a pointer to a place that is another's now; or the\n"
             "generation is not counted on, or not compared.",
             THE_SERVER),
        ROWS(table_grows, "the table of clients grows while they are served",
             "200 come while one is owed bytes: the table moves in memory, and nobody notices.",
             "epoll holds pointers into an array that realloc() has moved; or the descriptor is an index into\n"
             "an array that is too short for it.",
             THE_SERVER),
        ROWS(interrupted, "after an interrupted wait, nothing is done",
             "EINTR: nothing has been reported. epoll_wait() is called again, and nothing else.",
             "EINTR ends the server; or the events of the call before are gone through once more.", THE_SERVER),
        ROWS(stop, "a signal ends the wait, also one that comes just before it",
             "SIGTERM wakes epoll_wait() (EINTR). When it is caught after the server has looked whether to stop,\n"
             "and before it waits, a second signal follows a second later.",
             "The race between the check and the call: the signal is caught, and then nothing ends the wait.",
             THE_SERVER),
        ROWS(stop_ready, "who is ready at the stop is served, and then closed",
             "40 clients have spoken, 100 more are at the door, and the signal comes: each of them gets its words\n"
             "back, and the end.",
             "The loop ends with the signal, and what has come is forgotten.", THE_SERVER),
        ROWS(stop_owed, "who is owed bytes at the stop gets them",
             "Five clients have not read. The signal comes, then they read: all that had arrived comes back.",
             "Everything is closed at once; or nobody wakes when there is room again.", THE_SERVER),
        ROWS(full_unasked, "out of descriptors, the listening socket is left alone for a while",
             "accept() fails with EMFILE, and somebody still waits. level: the listening socket is watched for\n"
             "nothing; edge: it is not asked. Those inside are served; a tenth of a second later it is tried once.\n"
             "When the limit is raised, the one who waits is let in.",
             "level: the listening socket is ready, and watched: epoll_wait() returns at once for ever. edge: the\n"
             "event is not repeated: who forgets that somebody waits lets nobody in.",
             THE_SERVER),
        ROWS(full_leaves, "out of descriptors, who waits is let in when somebody leaves",
             "With the descriptor that comes free, the listening socket is asked again, at once.",
             "Nothing but the clock ends the time in which it is left alone.", THE_SERVER),
        ROWS(full_system, "out of descriptors, who waits is let in though nobody leaves",
             "The whole system was short of descriptors (ENFILE), and is no more. level takes the listening socket's\n"
             "interest away and gives it back each time, edge never calls epoll_ctl().",
             "It is asked again only when one of the server's own clients leaves; or only EMFILE is expected.",
             THE_SERVER),
        ROWS(full_counted, "out of descriptors, a second costs ten calls of accept",
             "A tenth of a second lies between two tries. Hardly any processor time is used.",
             "The listening socket stays ready, accept() fails, and the loop asks again at once: 143,555 times\n"
             "in 0.2 s in a server that was measured.",
             THE_SERVER),
        ROWS(add_fails, "a client whom epoll cannot watch is turned away, and nobody else",
             "EPOLL_CTL_ADD fails for lack of memory (ENOMEM), or because the user watches too many descriptors\n"
             "(ENOSPC): that client is closed, and the next is let in.",
             "The error ends the server; or the client is kept, and never heard.", THE_SERVER),
        LEVEL_ROW(modify_fails, "a client for whom epoll cannot change the interest is lost, and nobody else",
             "EPOLL_CTL_MOD fails with ENOMEM. The server could not hear of room to send: the client is closed.",
             "The result is not looked at: the client is still watched for what it says, and wakes the server\n"
             "without end.",
             THE_SERVER),
        LEVEL_ROW(modify_listener_fails, "an interest of the listening socket that cannot be changed makes no spin",
             "Out of descriptors, and EPOLL_CTL_MOD fails with ENOMEM, three times. The server pauses, and tries\n"
             "again.",
             "The result is not looked at: the listening socket is still watched, and wakes the server without end.",
             THE_SERVER),
        ROWS(bounded_accepts, "a crowd at the door does not keep those inside waiting",
             "200 clients come at once. In each turn at most 64 are let in, and the one inside is served. edge: they\n"
             "were announced once, and all come in.",
             "accept() until EAGAIN, without a bound; or edge-triggered, once for each event: the others stay\n"
             "outside.",
             THE_SERVER),
        ROWS(one_receive, "a client that sends without pause does not keep others waiting",
             "level receives once from each that is ready, edge four times at most, however much there is: then\n"
             "it is the next one's turn. level: what is left is reported again. edge: the client stays in the list.",
             "\"Drain until EAGAIN\" in one loop: one that sends fast enough keeps all others waiting. Or a client is\n"
             "in the list twice.",
             THE_SERVER),
    };
    /* clang-format on */

    if (argc > 1)
        level_server = argv[1];
    if (argc > 2)
        edge_server = argv[2];
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
