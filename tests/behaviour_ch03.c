/* behaviour_ch03.c - what select() and poll() do, and what they cost: one thread
 * that sleeps in one call until the kernel says who is ready.
 * Run it as behaviour_ch03 [SELECT [POLL]], the paths of the two servers. */
#define _GNU_SOURCE /* the numbers of system calls, and the POSIX functions beside them */

#include "harness.h"
#include "tap.h"
#include "trace.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THE_IDEA "the book, chapter 3, \"The idea\""
#define THE_API "the book, chapter 3, \"The API\""
#define THE_SERVER "the book, chapter 3, \"The server, piece by piece\""
#define WATCH_IT_RUN "the book, chapter 3, \"Watch it run\""

/* As in the servers: whom one turn lets in, and the pause when descriptors are out. */
enum { MOST_ACCEPTS = 64, TICK_MS = 100 };

static const char *select_server = "../ch03-select-poll/select";
static const char *poll_server = "../ch03-select-poll/poll";

/* Which of the two is tested, and the name of its wait call. */
static bool is_select;
static const char *call_name;

/* Each test is run with both. */
#define BOTH(test)            \
    START_TEST(select_##test) \
    {                         \
        is_select = true;     \
        call_name = "select"; \
        test();               \
    }                         \
    END_TEST                  \
    START_TEST(poll_##test)   \
    {                         \
        is_select = false;    \
        call_name = "poll";   \
        test();               \
    }                         \
    END_TEST

#define POLL_ONLY(test)     \
    START_TEST(poll_##test) \
    {                       \
        is_select = false;  \
        call_name = "poll"; \
        test();             \
    }                       \
    END_TEST

/* The listening socket in the server. Its clients follow, in the order in which
 * they come, since the kernel gives the lowest number that is free. */
static int listener;

static int number(size_t client)
{
    return listener + 1 + (int)client;
}

/* The highest descriptor that the server has open. */
static int highest_descriptor(const struct server *server)
{
    char path[64];
    int highest = -1;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)server->pid);
    DIR *descriptors = opendir(path);
    if (descriptors == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        int fd = atoi(entry->d_name); /* 0 for "." and ".." */
        if (fd > highest)
            highest = fd;
    }
    closedir(descriptors);
    return highest;
}

static struct server start(const struct server_setup *setup)
{
    server_choose(is_select ? select_server : poll_server);
    struct server server = server_start(setup);
    listener = highest_descriptor(&server);
    return server;
}

/* Connects count clients, one after the other, and has each served once. So
 * they lie in the server's array in this order. */
static void connect_served(const struct server *server, int *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        clients[i] = client_connect(server);
        ck_assert_msg(client_gets_echo(clients[i], "hello"), "client %zu of %zu got no echo", i + 1, count);
    }
}

/* ---- a turn of the server: a wait call, and what it does then ---- */

/* A wait call: what the server asks, and what it is answered (revents). */
struct wait {
    struct call call;
    bool endless;   /* it may sleep for ever */
    size_t entries; /* how many the kernel goes through, and the server after it */
    size_t count;
    struct pollfd watched[4096]; /* also of select(): POLLIN is its first set, POLLOUT its second */
};

static struct wait asked;    /* the wait call in which the server is */
static struct wait answered; /* the one before it, which has ended */

/* What the server did between these two. */
static struct call calls[20000];
static size_t call_count;

static bool is_wait(const struct call *call)
{
#ifdef SYS_poll
    if (call->number == SYS_poll)
        return true;
#endif
#ifdef SYS_select
    if (call->number == SYS_select)
        return true;
#endif
    return call->number == SYS_ppoll || call->number == SYS_pselect6;
}

static bool is_accept(const struct call *call)
{
#ifdef SYS_accept
    if (call->number == SYS_accept)
        return true;
#endif
    return call->number == SYS_accept4;
}

enum { WORD_BITS = 8 * sizeof(long), MOST_WORDS = 4096 / WORD_BITS };

struct set {
    unsigned long words[MOST_WORDS];
};

/* Reads one of the sets of select(). It is not an fd_set: a server might ask for more. */
static struct set read_set(const struct server *server, uint64_t address, size_t entries)
{
    struct set set = {{0}};
    size_t words = (entries + WORD_BITS - 1) / WORD_BITS;
    if (address != 0)
        trace_read(server, address, set.words, (words < MOST_WORDS ? words : MOST_WORDS) * sizeof(long));
    return set;
}

static bool in_set(const struct set *set, size_t fd)
{
    return (set->words[fd / WORD_BITS] >> fd % WORD_BITS & 1) != 0;
}

static short set_events(const struct set *readable, const struct set *writable, size_t fd)
{
    return (short)((in_set(readable, fd) ? POLLIN : 0) | (in_set(writable, fd) ? POLLOUT : 0));
}

/* Reads what the wait call in which the server stands asks for. */
static void read_question(const struct server *server)
{
    const uint64_t *arguments = asked.call.arguments;
    bool by_pointer = is_select || asked.call.number == SYS_ppoll;
    uint64_t limit = arguments[is_select ? 4 : 2];
    asked.endless = by_pointer ? limit == 0 : (int)limit < 0;
    asked.entries = (size_t)arguments[is_select ? 0 : 1];
    asked.count = 0;
    ck_assert_uint_le(asked.entries, sizeof asked.watched / sizeof *asked.watched);
    if (!is_select) {
        asked.count = asked.entries;
        trace_read(server, arguments[0], asked.watched, asked.count * sizeof *asked.watched);
        return;
    }
    struct set readable = read_set(server, arguments[1], asked.entries);
    struct set writable = read_set(server, arguments[2], asked.entries);
    for (size_t fd = 0; fd < asked.entries; fd++) {
        short events = set_events(&readable, &writable, fd);
        if (events != 0)
            asked.watched[asked.count++] = (struct pollfd){.fd = (int)fd, .events = events};
    }
}

/* Reads what it was answered. */
static void read_answer(const struct server *server)
{
    const uint64_t *arguments = asked.call.arguments;
    if (!is_select) {
        trace_read(server, arguments[0], asked.watched, asked.count * sizeof *asked.watched);
        return;
    }
    struct set readable = read_set(server, arguments[1], asked.entries);
    struct set writable = read_set(server, arguments[2], asked.entries);
    for (size_t i = 0; i < asked.count; i++)
        asked.watched[i].revents = set_events(&readable, &writable, (size_t)asked.watched[i].fd);
}

/* What a wait call watched fd for, or NULL. */
static const struct pollfd *watch_of(const struct wait *wait, int fd)
{
    for (size_t i = 0; i < wait->count; i++) {
        if (wait->watched[i].fd == fd)
            return &wait->watched[i];
    }
    return NULL;
}

/* Lets a call come to its end that is not expected to wait. */
static void leave(const struct server *server, struct call *call)
{
    if (!eventually(trace_leave(server, call)))
        ck_abort_msg("the server sleeps in system call %ld on descriptor %d, and not in %s()", call->number,
                     call->fd, call_name);
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
    read_answer(server);
    return true;
}

/* Lets the server do what is to be done, and stops it where the next wait call begins. */
static void turn_ends(const struct server *server)
{
    struct call *call = calls;
    for (;; call++) {
        ck_assert_msg(call < calls + sizeof calls / sizeof *calls, "the server does not come back to %s()",
                      call_name);
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

/* Has it go on until it sleeps. */
static void until_asleep(const struct server *server)
{
    enum { MOST_TURNS = 300 };
    for (int turns = 0; turn(server); turns++)
        ck_assert_msg(turns < MOST_TURNS,
                      "nobody does anything, and %s() returned %d times: the server spins", call_name,
                      MOST_TURNS);
}

/* How often a call was made on fd in the turn. */
static size_t times(long system_call, int fd)
{
    size_t found = 0;
    for (size_t i = 0; i < call_count; i++)
        found += calls[i].number == system_call && calls[i].fd == fd;
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

/* In the turn, those whom the kernel reported were served, each once, and nobody else. */
static void served_those_reported(void)
{
    for (size_t i = 0; i < answered.count; i++) {
        const struct pollfd *watch = &answered.watched[i];
        if (watch->fd < 0 || watch->fd == listener)
            continue;
        bool ready = watch->revents != 0;
        if (watch->events == POLLIN)
            ck_assert_msg(times(SYS_recvfrom, watch->fd) == ready,
                          "descriptor %d was %sreported as ready, and the server received from it %zu times",
                          watch->fd, ready ? "" : "not ", times(SYS_recvfrom, watch->fd));
        else
            ck_assert_msg((times(SYS_sendto, watch->fd) > 0) == ready,
                          "descriptor %d was %sreported as ready, and the server sent to it %zu times",
                          watch->fd, ready ? "" : "not ", times(SYS_sendto, watch->fd));
    }
    for (size_t i = 0; i < call_count; i++) {
        if (calls[i].number == SYS_recvfrom)
            ck_assert_msg(watch_of(&answered, calls[i].fd) != NULL,
                          "the server received from descriptor %d, for which it had not waited", calls[i].fd);
    }
}

/* The wait call that begins watches the listening socket and these, each once,
 * and nothing else. */
static void watches(const int *descriptors, size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < asked.count; i++)
        found += asked.watched[i].fd >= 0;
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(watch_of(&asked, descriptors[i]) != NULL,
                      "descriptor %d, of a client that is there, is not waited for", descriptors[i]);
    ck_assert_msg(watch_of(&asked, listener) != NULL, "the listening socket is not waited for");
    ck_assert_msg(found == count + 1,
                  "%zu clients are there, and %s() waits for %zu descriptors, with the listening socket",
                  count, call_name, found);
}

/* Waits until the kernel would report the server's descriptor as ready: what a
 * client did has arrived. */
static void await_ready(const struct server *server, int fd, short events)
{
#if defined SYS_pidfd_open && defined SYS_pidfd_getfd
    int process = (int)syscall(SYS_pidfd_open, server->pid, 0);
    int copy = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, fd, 0);
    if (copy < 0)
        tap_skip("the server's descriptors cannot be examined here: pidfd_getfd: %s", strerror(errno));
    struct pollfd ready = {.fd = copy, .events = events};
    struct deadline deadline = deadline_start();
    int count = poll(&ready, 1, deadline_left_ms(&deadline));
    close(copy);
    close(process);
    ck_assert_msg(count == 1, "what a client did has not arrived at the server's descriptor %d", fd);
#else
    (void)server;
    (void)fd;
    (void)events;
    tap_skip("the server's descriptors cannot be examined here: no pidfd_getfd(2)");
#endif
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
    ck_assert_msg(asked.endless, "nothing is to be done, and %s() is called with a limit of time", call_name);
    ck_assert_msg(!turn(&server), "nobody says anything, and %s() returned %ld", call_name,
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
        ck_assert_msg(!turn(&server), "nobody says anything, and %s() returned %ld", call_name,
                      answered.call.result);
        client_send(clients[client], "hello", 5);
        woken_turn(&server);
        ck_assert_msg(answered.call.result == 1, "one client spoke, and %s() returned %ld", call_name,
                      answered.call.result);
        served_those_reported();
        ck_assert_msg(call_count == 2 && calls[0].number == SYS_recvfrom && calls[1].number == SYS_sendto,
                      "for one message the server made %zu system calls besides %s()", call_count, call_name);
        gets_back(clients[client], "hello");
    }
    trace_end(&server);
}
BOTH(message)

/* How many descriptors are watched for room to send. */
static size_t watched_for_room(void)
{
    size_t found = 0;
    for (size_t i = 0; i < asked.count; i++)
        found += (asked.watched[i].events & POLLOUT) != 0;
    return found;
}

static void write_interest(void)
{
    enum { CLIENTS = 10, UNREAD = 4 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    ck_assert_msg(watched_for_room() == 0,
                  "nothing is owed, and %zu descriptors are watched for room to send", watched_for_room());
    trace_end(&server);

    size_t taken = client_flood(clients[UNREAD], 1);
    hold(&server, clients[0]);
    until_asleep(&server);
    const struct pollfd *watch = watch_of(&asked, number(UNREAD));
    ck_assert_msg(watch != NULL, "the client that is owed bytes is not watched at all");
    ck_assert_msg(watch->events == POLLOUT, "the client that is owed bytes is watched for %s",
                  (watch->events & POLLOUT) != 0 ? "more to receive, too" : "more to receive only");
    ck_assert_msg(watched_for_room() == 1, "one client is owed bytes, and %zu are watched for room to send",
                  watched_for_room());
    ck_assert_msg(asked.endless, "a client is owed bytes, and %s() is called with a limit of time",
                  call_name);
    trace_end(&server);

    size_t right = client_receive_pattern(clients[UNREAD], taken, 1, 0);
    ck_assert_msg(right == taken, "the client sent %zu bytes, and only the first %zu came back right", taken,
                  right);
    hold(&server, clients[0]);
    until_asleep(&server);
    ck_assert_msg(watched_for_room() == 0,
                  "everything has been sent, and %zu descriptors are still watched for room to send",
                  watched_for_room());
    trace_end(&server);
}
BOTH(write_interest)

/* ---- how many ---- */

/* How often text occurs in what the server wrote to stderr. */
static int said(const struct server *server, const char *text)
{
    int found = 0;
    for (const char *at = server_errors(server); (at = strstr(at, text)) != NULL; at++)
        found++;
    return found;
}

static void set_limit(void)
{
    enum { CLIENTS = 1100 };
    static int clients[CLIENTS];
    size_t served = 0;
    struct server server = start(&(struct server_setup){.descriptors = CLIENTS + 100});
    client_connect_many(&server, clients, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++)
        send(clients[i], &i, sizeof i, MSG_NOSIGNAL); /* fails when it has been turned away */
    for (size_t i = 0; i < CLIENTS; i++) {
        size_t back = CLIENTS;
        if (client_receive(clients[i], &back, sizeof back) == sizeof back && back == i)
            served++;
        else
            ck_assert_msg(client_ending(clients[i]) != STILL_OPEN,
                          "client %zu was not served, and its connection is still open", i + 1);
    }
    printf("# %s: of %d clients at once, %zu are served\n", call_name, CLIENTS, served);
    fflush(stdout);

    size_t expected = is_select ? (size_t)(FD_SETSIZE - number(0)) : CLIENTS;
    ck_assert_msg(served == expected, "of %d clients, %zu were served and not %zu", CLIENTS, served,
                  expected);
    ck_assert_msg(said(&server, "FD_SETSIZE") == is_select, "stderr names FD_SETSIZE %d times",
                  said(&server, "FD_SETSIZE"));
    hold(&server, clients[0]);
    ck_assert_msg(asked.entries == expected + (is_select ? (size_t)number(0) : 1),
                  "%zu clients are there, and %s() is called for %zu entries", expected, call_name,
                  asked.entries);
    trace_end(&server);
}
BOTH(set_limit)

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
        printf("# %s: %4zu clients, one says something: the kernel goes through %4zu %s to find %ld\n",
               call_name, count, answered.entries, is_select ? "descriptors" : "entries",
               answered.call.result);
        size_t expected = count + (is_select ? (size_t)number(0) : 1);
        ck_assert_msg(answered.entries == expected, "with %zu clients, %s() is called for %zu, not %zu",
                      count, call_name, answered.entries, expected);
        ck_assert_int_eq(answered.call.result, 1);
        trace_end(&server);
    }

    int own = server_descriptors(&server) - (int)count;
    for (size_t i = 0; i + 1 < count; i++)
        close(clients[i]);
    ck_assert_msg(eventually(server_descriptors(&server) == own + 1),
                  "all clients but one have left, and the server has %d descriptors",
                  server_descriptors(&server));
    hold(&server, clients[count - 1]);
    printf("# %s: %4d client, the last that came:    the kernel goes through %4zu %s\n", call_name, 1,
           asked.entries, is_select ? "descriptors" : "entries");
    fflush(stdout);
    size_t expected = is_select ? count + (size_t)number(0) : 2;
    ck_assert_msg(asked.entries == expected, "one client is left, and %s() is called for %zu, not %zu",
                  call_name, asked.entries, expected);
    trace_end(&server);
}
BOTH(cost)

/* ---- leaving and coming ---- */

static void one_leaves(void)
{
    enum { CLIENTS = 5 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    close_client(&server, clients, 1);
    say(&server, clients, CLIENTS - 1, "last"); /* it takes the place that is free */
    woken_turn(&server);

    ck_assert_int_eq(answered.call.result, 2);
    served_those_reported();
    ck_assert_msg(times(SYS_close, number(1)) == 1, "the client that left was closed %zu times",
                  times(SYS_close, number(1)));
    watches((const int[]){number(0), number(2), number(3), number(4)}, 4);
    gets_back(clients[CLIENTS - 1], "last");
    ck_assert_msg(!turn(&server), "one has left, all is done, and %s() returned %ld", call_name,
                  answered.call.result);
    trace_end(&server);
}
BOTH(one_leaves)

static void several_leave(void)
{
    enum { CLIENTS = 8 };
    static const size_t leaving[] = {1, 2, 6, 7};
    static const size_t staying[] = {0, 3, 4, 5};
    enum { PART = CLIENTS / 2 };
    int clients[CLIENTS];
    int left[PART];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    for (size_t i = 0; i < PART; i++) {
        close_client(&server, clients, leaving[i]);
        left[i] = number(staying[i]);
    }
    say(&server, clients, 5, "still here");
    woken_turn(&server);

    ck_assert_int_eq(answered.call.result, PART + 1);
    served_those_reported();
    for (size_t i = 0; i < PART; i++)
        ck_assert_msg(times(SYS_close, number(leaving[i])) == 1, "a client that left was closed %zu times",
                      times(SYS_close, number(leaving[i])));
    watches(left, PART);
    gets_back(clients[5], "still here");

    for (size_t i = 0; i < PART; i++)
        say(&server, clients, staying[i], i % 2 == 0 ? "one" : "another");
    woken_turn(&server);
    ck_assert_int_eq(answered.call.result, PART);
    served_those_reported();
    for (size_t i = 0; i < PART; i++)
        gets_back(clients[staying[i]], i % 2 == 0 ? "one" : "another");
    trace_end(&server);
}
BOTH(several_leave)

static void others_come(void)
{
    enum { CLIENTS = 5 };
    int clients[CLIENTS];
    size_t failed;
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    close_client(&server, clients, CLIENTS - 1);
    woken_turn(&server);
    served_those_reported();
    watches((const int[]){number(0), number(1), number(2), number(3)}, 4);

    /* The next gets the descriptor and the place of the one that left, in the
     * turn in which the server learns that another has left, too. */
    clients[CLIENTS - 1] = client_connect(&server);
    client_send(clients[CLIENTS - 1], "new", 3);
    await_ready(&server, listener, POLLIN);
    close_client(&server, clients, 1);
    woken_turn(&server);
    ck_assert_uint_eq(accepted(&failed), 1);
    ck_assert_int_eq(answered.call.result, 2);
    served_those_reported();
    watches((const int[]){number(0), number(2), number(3), number(4)}, 4);

    await_ready(&server, number(CLIENTS - 1), POLLIN);
    woken_turn(&server);
    ck_assert_int_eq(answered.call.result, 1);
    served_those_reported();
    gets_back(clients[CLIENTS - 1], "new");
    ck_assert_msg(!turn(&server), "all is done, and %s() returned %ld", call_name, answered.call.result);
    trace_end(&server);
}
BOTH(others_come)

/* ---- a wait call that fails ---- */

/* Starts a server whose third wait call fails, and all up to this one. A client
 * has been let in after the first, and served after the second. */
static struct server start_failing(int last, const char *error)
{
    char faults[64];
    snprintf(faults, sizeof faults, "%s:3-%d=%s", call_name, last, error);
    return start(&(struct server_setup){.faults = faults});
}

/* The wait calls have failed, and the server has done nothing meanwhile. */
static void nothing_done(const struct server *server, int last)
{
    ck_assert_msg(eventually(server_calls(server, call_name) == (uint64_t)last + 1),
                  "%s() failed, and was called %llu times, not %d", call_name,
                  (unsigned long long)server_calls(server, call_name), last + 1);
    ck_assert_msg(eventually(server_asleep(server)), "the server does not come to rest");
    ck_assert_uint_eq(server_faults(server, call_name), (uint64_t)last - 2);
    ck_assert_msg(server_failures(server, "recv") == 0,
                  "%s() failed, and told nothing; but the server called recv() %llu times, in vain",
                  call_name, (unsigned long long)server_failures(server, "recv"));
    ck_assert_msg(server_failures(server, "accept") == 1,
                  "%s() failed, and told nothing; but the server called accept() %llu times, in vain",
                  call_name, (unsigned long long)server_failures(server, "accept") - 1);
}

static void interrupted(void)
{
    enum { LAST = 40 };
    struct server server = start_failing(LAST, "EINTR");
    int client = client_connect(&server);
    ck_assert_msg(client_gets_echo(client, "hello"), "no echo");
    nothing_done(&server, LAST);
    ck_assert_msg(client_gets_echo(client, "again"), "%s() was interrupted, and then there was no echo",
                  call_name);
}
BOTH(interrupted)

static void no_memory(void)
{
    enum { LAST = 5 };
    struct server server = start_failing(LAST, "ENOMEM");
    int client = client_connect(&server);
    ck_assert_msg(client_gets_echo(client, "hello"), "no echo");
    nothing_done(&server, LAST);
    ck_assert_msg(server_calls(&server, "nanosleep") == LAST - 2,
                  "%s() failed %d times for lack of memory, and the server paused %llu times", call_name,
                  LAST - 2, (unsigned long long)server_calls(&server, "nanosleep"));
    ck_assert_msg(client_gets_echo(client, "again"), "%s() lacked memory, and then there was no echo",
                  call_name);
}
BOTH(no_memory)

static void stop(void)
{
    int clients[3];
    struct server server = start(NULL);
    connect_served(&server, clients, 3);
    ck_assert_msg(eventually(server_asleep(&server)), "the server does not come to rest");
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
    ck_assert_msg(client_ending(clients[0]) == ENDED, "a stop, and a client was not closed");

    char faults[64];
    snprintf(faults, sizeof faults, "%s:3=SIGTERM", call_name);
    server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, clients, 1);
    ck_assert_msg(eventually(server_faults(&server, call_name) == 1), "no signal came: nothing was shown");
    ck_assert_int_eq(server_wait(&server), 0);
}
BOTH(stop)

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
    watches(left, stay);
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
    ck_assert_int_eq(answered.call.result, 1);
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
    const struct pollfd *watch = watch_of(&asked, number(LOST));
    ck_assert_msg(watch != NULL && watch->events == POLLOUT, "the client is not watched for room to send");

    client_reset(clients[LOST]);
    woken_turn(&server);
    served_those_reported();
    only_that_one(&server, clients, LOST, CLIENTS);
}
BOTH(reset_owed)

/* Makes the answer of poll() that has just ended, of this descriptor, be this alone. */
static void report(const struct server *server, int fd, short revents)
{
    const struct pollfd *watch = watch_of(&asked, fd);
    ck_assert_msg(watch != NULL && watch->revents != 0, "descriptor %d is not reported", fd);
    struct pollfd changed = {.fd = fd, .events = watch->events, .revents = revents};
    size_t place = (size_t)(watch - asked.watched);
    trace_write(server, asked.call.arguments[0] + place * sizeof changed, &changed, sizeof changed);
    asked.watched[place] = changed;
}

/* Linux reports a reset as readable, and as error and hang-up besides; others
 * report only these. */
static void error_alone(void)
{
    enum { CLIENTS = 5, HUNG_UP = 2, ERROR = 4 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    client_reset(clients[HUNG_UP]);
    await_ready(&server, number(HUNG_UP), POLLIN);
    client_reset(clients[ERROR]);
    await_ready(&server, number(ERROR), POLLIN);
    ck_assert_msg(wait_ends(&server), "two clients are lost, and poll() does not return");
    report(&server, number(HUNG_UP), POLLHUP);
    report(&server, number(ERROR), POLLERR);
    turn_ends(&server);

    ck_assert_msg(times(SYS_close, number(HUNG_UP)) == 1,
                  "POLLHUP was reported, and no connection was closed");
    ck_assert_msg(times(SYS_close, number(ERROR)) == 1, "POLLERR was reported, and no connection was closed");
    served_those_reported();
    watches((const int[]){number(0), number(1), number(3)}, 3);
    until_asleep(&server);
    trace_end(&server);
}
POLL_ONLY(error_alone)

static void not_open(void)
{
    enum { CLIENTS = 3, LOST = 2 };
    int clients[CLIENTS];
    /* Each client takes two calls, and the next one finds the descriptor closed. */
    char faults[64];
    snprintf(faults, sizeof faults, "poll:%d=closed", 2 * CLIENTS + 2);
    struct server server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, clients, CLIENTS);
    int before = server_descriptors(&server);
    ck_assert_uint_eq(server_faults(&server, "poll"), 0);

    ck_assert_msg(client_gets_echo(clients[0], "hello"), "no echo");
    ck_assert_msg(client_ending(clients[LOST]) == ENDED,
                  "the descriptor was closed, and its client is still there");
    ck_assert_msg(eventually(server_asleep(&server)),
                  "a descriptor was closed, and poll() returns again and again");
    ck_assert_uint_eq(server_faults(&server, "poll"), 1);
    for (size_t i = 0; i < LOST; i++)
        ck_assert_msg(client_gets_echo(clients[i], "and me?"),
                      "one descriptor was closed, and client %zu is not served", i + 1);
    uint64_t calls_before = server_calls(&server, "poll");
    ck_assert_msg(client_gets_echo(clients[0], "hello"), "no echo");
    ck_assert_msg(eventually(server_asleep(&server)), "the server does not come to rest");
    ck_assert_msg(server_calls(&server, "poll") - calls_before <= 2,
                  "for one message, poll() was called %llu times",
                  (unsigned long long)(server_calls(&server, "poll") - calls_before));
    ck_assert_int_eq(server_descriptors(&server), before - 1);
    int another = client_connect(&server);
    ck_assert_msg(client_gets_echo(another, "hello"), "a client that came later got no echo");
}
POLL_ONLY(not_open)

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

/* How often the server slept in the turn, where nobody can wake it. */
static size_t paused(void)
{
    size_t found = 0;
    for (size_t i = 0; i < call_count; i++)
        found += calls[i].number == SYS_nanosleep || calls[i].number == SYS_clock_nanosleep;
    return found;
}

static void full_unwatched(void)
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
        /* A slow machine may need as long for a turn as the server leaves the listening socket alone. */
        ck_assert_msg(watch_of(&asked, listener) == NULL || now_ms() - when >= TICK_MS,
                      "there was no descriptor a moment ago, and the listening socket is watched again");
        ck_assert_msg(!asked.endless || watch_of(&asked, listener) != NULL,
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
        if (failed > 0)
            when = before;
        attempts += (int)failed;
    }
    ck_assert_msg(attempts >= ATTEMPTS, "a client waits for a descriptor, and is not asked in again");
    trace_end(&server);
    server_limit_descriptors(&server, 1000);
    gets_back(waiting, "let me in");
}
BOTH(full_unwatched)

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
    ck_assert_msg(watch_of(&asked, listener) != NULL,
                  "a client has left, one waits outside, and the listening socket is not watched");
    ck_assert_msg(asked.endless, "a client has left, and %s() is called with a limit of time", call_name);
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
    ck_assert_msg(eventually(server_asleep(&server)), "the server does not come to rest");
    uint64_t waits = server_calls(&server, call_name);
    int waiting = client_connect(&server);
    ck_assert_msg(client_gets_echo(waiting, "let me in"),
                  "there are descriptors again, nobody has left, and the one who waits is not let in");
    waits = server_calls(&server, call_name) - waits;
    ck_assert_uint_eq(server_faults(&server, "accept"), FAILURES);

    /* A wait without the listening socket and one with it for each; and to let in and to serve. */
    ck_assert_msg(waits >= 2 * FAILURES, "accept() failed %d times, and %s() was called only %llu times",
                  FAILURES, call_name, (unsigned long long)waits);
}
BOTH(full_system)

static void full_counted(void)
{
    enum { CLIENTS = 3, WAITS = 20 };
    int clients[CLIENTS];
    struct server server = start(&(struct server_setup){.faults = ""});
    connect_served(&server, clients, CLIENTS);
    ck_assert_msg(eventually(server_asleep(&server)), "the server does not come to rest");
    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    uint64_t failures = server_failures(&server, "accept");
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_failures(&server, "accept") > failures), "accept() did not fail");

    uint64_t waits = server_calls(&server, call_name);
    uint64_t cpu = server_cpu_ns(&server);
    int64_t wall = now_ms();
    failures = server_failures(&server, "accept");
    ck_assert_msg(eventually(server_calls(&server, call_name) >= waits + WAITS),
                  "a client waits for a descriptor, and is not asked in again");
    wall = now_ms() - wall;
    cpu = server_cpu_ns(&server) - cpu;
    waits = server_calls(&server, call_name) - waits;
    failures = server_failures(&server, "accept") - failures;
    printf("# %s: out of descriptors, in %lld ms: %llu calls of %s(), %llu of accept(), %.1f ms of processor "
           "time\n",
           call_name, (long long)wall, (unsigned long long)waits, call_name, (unsigned long long)failures,
           (double)cpu / 1e6);
    fflush(stdout);
    ck_assert_msg(4 * failures <= 3 * waits, "%s() returned %llu times, and accept() failed %llu times",
                  call_name, (unsigned long long)waits, (unsigned long long)failures);
    ck_assert_msg(cpu / 1000000 < (uint64_t)wall / 2 + 1,
                  "in %lld ms the server used %llu ms of processor time", (long long)wall,
                  (unsigned long long)cpu / 1000000);
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "thanks"),
                  "there are descriptors again, and the client is not served");
}
BOTH(full_counted)

/* ---- fairness ---- */

static void bounded_accepts(void)
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
    await_ready(&server, listener, POLLIN);

    for (int i = 0; i < MOST_TURNS && came < CROWD; i++) {
        say(&server, clients, 1, "x");
        woken_turn(&server);
        size_t now = accepted(&failed);
        ck_assert_msg(now <= MOST_ACCEPTS, "%zu clients were accepted while the one inside waited", now);
        ck_assert_msg(times(SYS_recvfrom, number(1)) == 1, "the one inside was not served in that turn");
        gets_back(clients[1], "x");
        came += now;
    }
    ck_assert_msg(came == CROWD, "of %d clients, %zu came in", CROWD, came);
    trace_end(&server);
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
    enum { TURNS = 10 };
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

#define POLL_ROW(test, name, expected, cause, section)       \
    {                                                        \
        "poll: " name, poll_##test, expected, cause, section \
    }
#define ROWS(test, name, expected, cause, section) \
    {"select: " name, select_##test, expected, cause, section}, POLL_ROW(test, name, expected, cause, section)

/* What START_TEST defines is no constant expression: so the table is made here. */
int main(int argc, char **argv)
{
    /* clang-format off */
    const struct tap_test tests[] = {
        ROWS(idle, "silent clients wake nobody",
             "With 20 silent clients the wait call has no limit of time, and the server sleeps in it.",
             "A timeout of 0, or a short one \"to be safe\"; or something is watched that is always ready.",
             THE_IDEA),
        ROWS(message, "one message is one wake-up and two calls more",
             "A client speaks: the wait call returns 1, then recv() and send() for that client, and nothing\n"
             "for the 19 others. The server sleeps again.",
             "The sets of select() are not made anew before the call; or the server asks everybody after each\n"
             "wake-up; or it receives until EAGAIN.",
             THE_IDEA),
        ROWS(write_interest, "room to send is watched for only while bytes are owed",
             "A client that does not read is watched for room to send, and for nothing else; nobody else is.\n"
             "When it has read everything, it is watched for what it says again. In between the server sleeps.",
             "There is nearly always room to send: who watches for it while nothing is owed never sleeps. The\n"
             "same holds for what can be received but will not be, because bytes are owed first.",
             THE_SERVER),
        {"select: clients past FD_SETSIZE are turned away, with one message", select_set_limit,
         "An fd_set has room for descriptors below FD_SETSIZE (1,024). Of 1,100 clients those that fit are\n"
         "served, the others closed at once, and stderr says why, once.",
         "FD_SET() does not check: past its end it writes over whatever is there. Or the check is there, and\n"
         "says nothing.",
         THE_API},
        {"poll: clients past FD_SETSIZE are served like the others", poll_set_limit,
         "poll() gets an array of any length: all of 1,100 clients are served.",
         "An array of a fixed size; or a limit that only select() has.", THE_API},
        {"select: the kernel goes through every descriptor up to the highest", select_cost,
         "A limit of this call. With 10, 100 and 1,000 clients, the first argument is the highest descriptor\n"
         "plus 1, to find the one that is ready; and when all but the last have left it is still as high.",
         "The first argument is one too small, so that the highest is never seen; or always FD_SETSIZE.",
         WATCH_IT_RUN},
        {"poll: the kernel goes through every entry", poll_cost,
         "A limit of this call. With 10, 100 and 1,000 clients the array has one entry for each, and one for\n"
         "the listening socket; and when all but one have left, two.",
         "Entries of clients that have left stay in the array; or all that was allocated is handed over.",
         WATCH_IT_RUN},
        ROWS(one_leaves, "one leaves, and nobody is skipped or served twice",
             "The last client in the array takes the place of the one that left, and is served in the same turn\n"
             "if it is ready. Nobody waits for the one that left any more.",
             "The loop goes on to the next place after a removal, and skips the one that has just moved there;\n"
             "or of two arrays only one is moved.",
             THE_SERVER),
        ROWS(several_leave, "several leave in the same turn, the last in the array too",
             "Four of eight leave at once, and a fifth speaks: each of them is served once, and the four that\n"
             "stay are waited for, and get their own words back.",
             "The number of clients is read before the loop, or the loop skips who has moved; or what moves is\n"
             "itself to be removed.",
             THE_SERVER),
        ROWS(others_come, "an event of one that left never touches the one in its place",
             "A client leaves, and the next gets its descriptor and its place. It is served when the kernel\n"
             "reports it, and not by what was reported of the other.",
             "revents of a new entry is not set to 0; or the sets are looked at for a descriptor that was not in\n"
             "them when select() was called.",
             THE_SERVER),
        ROWS(interrupted, "after an interrupted wait, old results are not looked at",
             "EINTR: nothing has been reported. The wait call is made again, and nothing else.",
             "revents, or the sets, still hold what they held before, and are taken for an answer; or EINTR ends\n"
             "the server.",
             THE_SERVER),
        ROWS(no_memory, "a wait call that lacks memory is made again, after a pause",
             "ENOMEM: the server goes on, but does not ask again at once, since that would be to spin.",
             "Every error of the wait call ends the server; or none makes it pause.", THE_SERVER),
        ROWS(stop, "a signal ends the wait, also one that comes just before it",
             "SIGTERM wakes the wait call (EINTR). When it is caught after the server has looked whether to stop,\n"
             "and before it waits, a second signal follows a second later.",
             "The race between the check and the call: the signal is caught, and then nothing ends the wait.",
             THE_SERVER),
        ROWS(reset_idle, "a client that resets is lost, and nobody else",
             "A reset is reported as readable (and by poll() as POLLERR and POLLHUP): recv() fails, the\n"
             "connection is closed, the others go on, and the server sleeps.",
             "The error is taken for the end of the server; or the entry stays, and is reported again and again.",
             THE_SERVER),
        ROWS(reset_owed, "a client that resets while it is owed bytes is lost, and nobody else",
             "The client is watched for room to send. Its reset is reported, send() fails, the connection is\n"
             "closed, and the server sleeps.",
             "Only POLLIN, or only the set for reading, is looked at: the error is reported again and again, or\n"
             "nobody sees it.",
             THE_SERVER),
        POLL_ROW(error_alone, "POLLHUP and POLLERR count without POLLIN",
             "These are reported unasked. The turn that follows meets the error, and the connection is closed.",
             "revents is compared with POLLIN or POLLOUT only: where nothing else comes with it, the error is\n"
             "never handled, and poll() returns at once for ever.",
             THE_API),
        POLL_ROW(not_open, "POLLNVAL costs one connection only",
             "An entry whose descriptor is not open is reported as POLLNVAL. recv() fails with EBADF, and that\n"
             "connection is given up.",
             "POLLNVAL is not looked at: poll() returns at once for ever; or it ends the server.", THE_API),
        ROWS(full_unwatched, "out of descriptors, the listening socket is not watched",
             "accept() fails with EMFILE, and the listening socket stays ready. So it is left out of the next\n"
             "wait, which has a limit of time, while those inside are served; then it is tried once.",
             "The listening socket is watched all the time: the wait call returns at once for ever.", THE_SERVER),
        ROWS(full_leaves, "out of descriptors, who waits is let in when somebody leaves",
             "With the descriptor that comes free, the listening socket is watched again, at once.",
             "Nothing but the clock ends the time without the listening socket.", THE_SERVER),
        ROWS(full_system, "out of descriptors, who waits is let in though nobody leaves",
             "The whole system was short of descriptors (ENFILE), and is no more. The listening socket is tried\n"
             "again after a while, and not before.",
             "The listening socket is watched again only when one of the server's own clients leaves; or only\n"
             "EMFILE is expected.",
             THE_SERVER),
        ROWS(full_counted, "out of descriptors, a second costs ten calls of accept",
             "Of two wait calls, one leaves the listening socket out and sleeps its time; accept() follows the\n"
             "other. Hardly any processor time is used.",
             "The listening socket stays ready, accept() fails, and the loop asks again at once: 143,555 times\n"
             "in 0.2 s in a server that was measured.",
             THE_SERVER),
        ROWS(bounded_accepts, "a crowd at the door does not keep those inside waiting",
             "200 clients come at once. In each turn at most 64 are let in, and the one inside is served.",
             "accept() until EAGAIN, without a bound: while clients come fast enough, nobody is served.",
             THE_SERVER),
        ROWS(one_receive, "a client that sends without pause gets one receive a turn",
             "Each turn receives once from each that is ready, however much there is: then it is the next one's\n"
             "turn. What is left is reported again.",
             "Receiving until EAGAIN before the next client is looked at: one that sends fast enough keeps all\n"
             "others waiting.",
             THE_SERVER),
    };
    /* clang-format on */

    if (argc > 1)
        select_server = argv[1];
    if (argc > 2)
        poll_server = argv[2];
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
