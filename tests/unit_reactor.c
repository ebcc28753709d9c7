/* unit_reactor.c - unit tests of the reactor library of chapter 6, on each demultiplexer that is here.
 *
 * The library is compiled here as for a server, with REACTOR_DEBUG; without it, the tests
 * of the busy-wait detector expect silence. Its handlers have real sockets and pipes; where the order
 * in a batch matters, a demultiplexer of this file's own hands out what a test has written down.
 * The linker (--wrap) sends some calls to this file, which counts them, lets them fail,
 * or does something in just the moment that matters.
 * Needs Linux, and a linker with --wrap (GNU ld, gold, lld). */
#define _GNU_SOURCE /* pipe2 */

#include "demux.h"
#include "progress.h"
#include "reactor.h"

#include "harness.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#if __has_include(<sys/event.h>)
#include <sys/event.h>
#endif

#define CHAPTER "the book, chapter 6, "
#define API CHAPTER "\"The API\""
#define PIECES CHAPTER "\"The server, piece by piece\""
#define WILD CHAPTER "\"Found in the wild\""

enum {
    BATCH = 256, /* what one wait brings at most, as the reactor has it */
    FAKE = -2,
};

/* ---- what the library calls ---- */

/* Atomic, since a compiler knows of malloc() and free() that they change nothing of ours. */
static atomic_bool watching;        /* it is at work, so that a call is its own */
static atomic_int allocations = -1; /* this many succeed, and then one fails; -1: all do */
static atomic_long held;            /* blocks that were allocated and not freed */

static bool allocation_fails(void)
{
    if (!watching || allocations < 0)
        return false;
    if (allocations-- > 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    if (allocation_fails())
        return NULL;
    if (watching)
        held++;
    return __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    if (allocation_fails())
        return NULL;
    if (watching)
        held++;
    return __real_calloc(count, size);
}

void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size)
{
    if (allocation_fails())
        return NULL;
    if (watching && block == NULL)
        held++;
    return __real_realloc(block, size);
}

void __real_free(void *block);
void __wrap_free(void *block);
void __wrap_free(void *block)
{
    if (watching && block != NULL)
        held--;
    __real_free(block);
}

static void (*before_read)(void), (*after_read)(void); /* what happens meanwhile, once */

static void happen(void (**what)(void))
{
    void (*now)(void) = *what;
    if (now == NULL)
        return;
    *what = NULL;
    now();
}

ssize_t __real_read(int fd, void *data, size_t size);
ssize_t __wrap_read(int fd, void *data, size_t size);
ssize_t __wrap_read(int fd, void *data, size_t size)
{
    happen(&before_read);
    ssize_t n = __real_read(fd, data, size);
    happen(&after_read);
    return n;
}

static atomic_uint writes;
static void (*after_write)(void);

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    writes++;
    ssize_t n = __real_write(fd, data, size);
    happen(&after_write);
    return n;
}

static void (*after_sigaction)(void);

int __real_sigaction(int number, const struct sigaction *wanted, struct sigaction *old);
int __wrap_sigaction(int number, const struct sigaction *wanted, struct sigaction *old);
int __wrap_sigaction(int number, const struct sigaction *wanted, struct sigaction *old)
{
    int result = __real_sigaction(number, wanted, old);
    happen(&after_sigaction);
    return result;
}

static atomic_uint epoll_ctls;

int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    epoll_ctls++;
    return __real_epoll_ctl(epoll, operation, fd, event);
}

static atomic_uint kevents;   /* calls */
static int next_kevent_error; /* the next one that waits does its work, and fails with this, if not 0 */

#if __has_include(<sys/event.h>)
int __real_kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
                  const struct timespec *timeout);
int __wrap_kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
                  const struct timespec *timeout);
int __wrap_kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
                  const struct timespec *timeout)
{
    kevents++;
    int count = __real_kevent(kq, changes, nchanges, events, nevents, timeout);
    if (next_kevent_error == 0 || nevents == 0)
        return count;
    errno = next_kevent_error;
    next_kevent_error = 0;
    return -1;
}
#endif

/* ---- the demultiplexer under test, with somebody who looks on ---- */

/* Stands between a reactor and its demultiplexer: lets the loop run for as many turns as a test
 * wants, ends a wait that nothing ends, and notes what goes by. */
struct watched {
    const struct demultiplexer *real;
    void *state;
    unsigned turns, most_turns; /* after so many, wait fails with ECANCELED, and the loop comes home */
    bool at_once;               /* it does not wait */
    struct deadline deadline;
    int found;      /* in the last wait */
    int timeout_ms; /* that the reactor asked for last */
    int refusal;    /* a change fails with this errno, if not 0 */
    int wait_error; /* the next wait fails with this errno, if not 0 */
    atomic_bool waiting;
};

static const struct demultiplexer *tested; /* the one that the test's name begins with */
static struct watched *watched;            /* of the reactor that was created last */

static void *watched_open(void)
{
    void *state = tested->open();
    if (state == NULL)
        return NULL;
    bool was_watching = watching; /* what we need ourselves shall not fail */
    watching = false;
    watched = calloc(1, sizeof *watched);
    ck_assert_ptr_nonnull(watched);
    watching = was_watching;
    watched->real = tested;
    watched->state = state;
    return watched;
}

static void watched_close(void *opened)
{
    struct watched *closed = opened;
    closed->real->close(closed->state);
    bool was_watching = watching;
    watching = false;
    free(closed);
    watching = was_watching;
}

static int watched_change(void *opened, int fd, uint32_t generation, unsigned before, unsigned after)
{
    const struct watched *here = opened;
    if (here->refusal != 0 && after != 0) {
        errno = here->refusal;
        return -1;
    }
    return here->real->change(here->state, fd, generation, before, after);
}

static int watched_wait(void *opened, struct ready *ready, int room, int timeout_ms)
{
    struct watched *here = opened;

    here->timeout_ms = timeout_ms;
    if (here->turns == here->most_turns) {
        errno = ECANCELED;
        return -1;
    }
    here->turns++;
    if (here->wait_error != 0) {
        errno = here->wait_error;
        here->wait_error = 0;
        return -1;
    }
    int left = here->at_once ? 0 : deadline_left_ms(&here->deadline);
    if (!here->at_once && left == 0)
        ck_abort_msg("the loop runs, and comes to no end");
    bool limited = timeout_ms < 0 || timeout_ms > left;
    atomic_store(&here->waiting, true);
    here->found = here->real->wait(here->state, ready, room, limited ? left : timeout_ms);
    atomic_store(&here->waiting, false);
    if (here->found == 0 && limited && !here->at_once && deadline_over(&here->deadline))
        ck_abort_msg("the loop waits, and nothing wakes it");
    return here->found;
}

static const struct demultiplexer watched_demultiplexer = {"watched", watched_open, watched_close,
                                                           watched_change, watched_wait};

/* ---- the reactor ---- */

static struct reactor *reactor; /* of most tests */

/* Creates a reactor on the demultiplexer that the test's name begins with. */
static struct reactor *create(void)
{
    const char *name = tcase_name();
    for (size_t i = 0; demultiplexers[i] != NULL; i++) {
        size_t length = strlen(demultiplexers[i]->name);
        if (strncmp(name, demultiplexers[i]->name, length) == 0 && name[length] == ':')
            tested = demultiplexers[i];
    }
    if (tested == NULL)
        ck_abort_msg("%s: which demultiplexer is that?", name);
    return reactor_create(&watched_demultiplexer);
}

static void begin(void)
{
    signal(SIGPIPE, SIG_IGN);
    reactor = create();
    ck_assert_msg(reactor != NULL, "reactor_create: %s", strerror(errno));
}

/* The loop runs until it is stopped. */
static void run(void)
{
    watched->most_turns = UINT_MAX;
    watched->turns = 0;
    watched->at_once = false;
    watched->deadline = deadline_start();
    ck_assert_msg(reactor_run(reactor) == 0, "reactor_run: %s", strerror(errno));
}

/* The loop runs for so many turns. */
static void run_turns(unsigned count, bool at_once)
{
    watched->most_turns = count;
    watched->turns = 0;
    watched->at_once = at_once;
    watched->deadline = deadline_start();
    ck_assert_int_eq(reactor_run(reactor), -1);
    ck_assert_msg(errno == ECANCELED, "reactor_run: %s", strerror(errno));
}

/* One turn: of what is ready now, or of what comes. */
static void turn_now(void)
{
    run_turns(1, true);
}

static void turn(void)
{
    run_turns(1, false);
}

/* ---- handlers, and who is at the other end ---- */

/* A handler under test. It notes what it is told, and does what the test wants then. */
struct peer {
    struct event_handler handler;
    int other;     /* the other end; -1: none; FAKE: there are no descriptors at all */
    unsigned told; /* all events since forget_all() */
    unsigned calls;
    unsigned order; /* of the last call, among those of all handlers and timers */
    void (*then)(struct peer *peer, unsigned events);
    struct peer *target;
    struct peer *next; /* in the list of all */
};

static struct peer *all_peers;
static unsigned sequence; /* calls of handlers and timers */

static void on_event(struct reactor *caller, struct event_handler *handler, unsigned events)
{
    struct peer *peer = (struct peer *)handler; /* its first member */

    (void)caller;
    peer->told |= events;
    peer->calls++;
    peer->order = ++sequence;
    if (peer->then != NULL)
        peer->then(peer, events);
}

/* In place of the handler of a peer that is gone: its memory is free, but nobody has used it yet. */
static void on_event_of_dead(struct reactor *caller, struct event_handler *handler, unsigned events)
{
    (void)caller, (void)handler;
    ck_abort_msg("a handler that was removed, and freed, is told of events 0x%x", events);
}

static struct peer *new_peer(int fd, int other)
{
    struct peer *peer = calloc(1, sizeof *peer);
    ck_assert_ptr_nonnull(peer);
    peer->handler = (struct event_handler){fd, "test handler", on_event};
    peer->other = other;
    peer->next = all_peers;
    all_peers = peer;
    return peer;
}

/* Closes and frees a peer that is not registered. */
static void free_peer(struct peer *peer)
{
    struct peer **link = &all_peers;
    while (*link != peer)
        link = &(*link)->next;
    *link = peer->next;
    if (peer->other >= 0)
        close(peer->other);
    if (peer->other != FAKE)
        close(peer->handler.fd);
    *(void (*volatile *)(struct reactor *, struct event_handler *, unsigned)) & peer->handler.handle_event =
        on_event_of_dead;
    free(peer);
}

static void drop(struct peer *peer)
{
    reactor_remove(reactor, &peer->handler);
    free_peer(peer);
}

static void want(struct peer *peer, unsigned events)
{
    reactor_want(reactor, &peer->handler, events);
}

static void add(struct peer *peer, unsigned events)
{
    if (reactor_register(reactor, &peer->handler, events) < 0)
        ck_abort_msg("reactor_register: descriptor %d: %s", peer->handler.fd, strerror(errno));
}

static void set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        ck_abort_msg("fcntl: %s", strerror(errno));
}

/* Two ends of a Unix socket. */
static struct peer *new_pair(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) < 0)
        ck_abort_msg("socketpair: %s", strerror(errno));
    return new_peer(ends[0], ends[1]);
}

/* The same, and the descriptor of ours has this number. */
static struct peer *new_pair_at(int number)
{
    struct peer *peer = new_pair();
    if (peer->other == number) {
        peer->other = peer->handler.fd;
    } else if (peer->handler.fd != number) {
        ck_assert_int_eq(dup2(peer->handler.fd, number), number);
        close(peer->handler.fd);
    }
    peer->handler.fd = number;
    return peer;
}

static struct peer *add_pair(unsigned events)
{
    struct peer *peer = new_pair();
    add(peer, events);
    return peer;
}

static int open_listener(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (listener < 0 || bind(listener, (struct sockaddr *)address, size) < 0 || listen(listener, 16) < 0 ||
        getsockname(listener, (struct sockaddr *)address, &size) < 0)
        ck_abort_msg("a listening socket: %s", strerror(errno));
    return listener;
}

static int connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        ck_abort_msg("connect: %s", strerror(errno));
    return fd;
}

/* Waits, without a reactor, until poll() sees these on fd. */
static void await(int fd, short what)
{
    struct deadline deadline = deadline_start();
    struct pollfd now = {.fd = fd, .events = what};
    if (poll(&now, 1, deadline_left_ms(&deadline)) != 1)
        ck_abort_msg("descriptor %d: it did not arrive", fd);
}

/* Two ends of a TCP connection. */
static struct peer *new_connection(void)
{
    struct sockaddr_in address;
    int listener = open_listener(&address);
    int other = connect_to(&address);
    await(listener, POLLIN);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        ck_abort_msg("accept: %s", strerror(errno));
    close(listener);
    set_nonblocking(fd);
    set_nonblocking(other);
    return new_peer(fd, other);
}

static struct peer *add_connection(unsigned events)
{
    struct peer *peer = new_connection();
    add(peer, events);
    return peer;
}

/* The other end says so many bytes, and they arrive. */
static void say(const struct peer *peer, int size)
{
    static const char bytes[4096];
    int before = 0;
    int now = 0;

    if (ioctl(peer->handler.fd, FIONREAD, &before) < 0 ||
        write(peer->other, bytes, (size_t)size) != (ssize_t)size)
        ck_abort_msg("descriptor %d: %s", peer->handler.fd, strerror(errno));
    if (!eventually(ioctl(peer->handler.fd, FIONREAD, &now) == 0 && now == before + size))
        ck_abort_msg("%d bytes did not arrive", size);
}

/* Takes what has come, so many bytes at most. Returns how many. */
static ssize_t hear(const struct peer *peer, size_t size)
{
    char bytes[4096];
    return read(peer->handler.fd, bytes, size < sizeof bytes ? size : sizeof bytes);
}

/* Writes to fd until it takes no more. */
static void fill(int fd)
{
    static const char bytes[65536];
    while (write(fd, bytes, sizeof bytes) > 0)
        continue;
    while (write(fd, bytes, 1) > 0)
        continue;
    if (errno != EAGAIN)
        ck_abort_msg("write: %s", strerror(errno));
}

/* Reads from fd until there is nothing. */
static void empty(int fd)
{
    char bytes[65536];
    while (read(fd, bytes, sizeof bytes) > 0)
        continue;
}

static void reset_connection(struct peer *peer)
{
    const struct linger now = {.l_onoff = 1};
    ck_assert_int_eq(setsockopt(peer->other, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(peer->other);
    peer->other = -1;
    await(peer->handler.fd, POLLIN);
}

static void close_other(struct peer *peer)
{
    close(peer->other);
    peer->other = -1;
    await(peer->handler.fd, POLLIN);
}

static void forget_all(void)
{
    for (struct peer *peer = all_peers; peer != NULL; peer = peer->next)
        peer->told = peer->calls = 0;
    sequence = 0;
}

/* In one turn, this peer is told of exactly these events, and no other peer of anything. */
static void expect(const struct peer *peer, unsigned events)
{
    forget_all();
    turn_now();
    ck_assert_msg(peer->told == events, "it was told of events 0x%x, and not of 0x%x", peer->told, events);
    for (const struct peer *other = all_peers; other != NULL; other = other->next)
        ck_assert_msg(other == peer || other->calls == 0, "descriptor %d was told, too", other->handler.fd);
}

/* Nobody is told of anything, and the demultiplexer has nothing to say. */
static void expect_nothing(void)
{
    forget_all();
    turn_now();
    ck_assert_msg(sequence == 0, "%u handlers were told of something", sequence);
    ck_assert_msg(watched->found == 0, "the demultiplexer found %d, which nobody wants to hear",
                  watched->found);
}

/* How many descriptors this process has. */
static int descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Numbers that are the same in every run. */
static unsigned random_below(unsigned limit)
{
    static uint64_t state = 2024;
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (unsigned)(state >> 33) % limit;
}

/* What handlers do then. */

static void then_hear(struct peer *peer, unsigned events)
{
    if ((events & REACTOR_READ) != 0)
        (void)hear(peer, SIZE_MAX);
}

static void then_drop_self(struct peer *peer, unsigned events)
{
    (void)events;
    drop(peer);
}

static void then_drop_target(struct peer *peer, unsigned events)
{
    (void)events;
    peer->target->target = NULL;
    drop(peer->target);
    peer->target = NULL;
    peer->then = NULL;
}

static void then_stop(struct peer *peer, unsigned events)
{
    if ((events & (REACTOR_STOP | REACTOR_CLOSE)) != 0)
        drop(peer);
    else
        reactor_stop(reactor, 10000);
}

/* ---- what is told ---- */

START_TEST(told_read)
{
    begin();
    for (int i = 0; i < 2; i++) {
        struct peer *peer = i == 0 ? add_pair(REACTOR_READ) : add_connection(REACTOR_READ);
        expect_nothing();
        say(peer, 3);
        expect(peer, REACTOR_READ);
        ck_assert_int_eq(hear(peer, 100), 3);
        expect_nothing();
        drop(peer);
    }
}
END_TEST

START_TEST(told_write)
{
    begin();
    for (int i = 0; i < 2; i++) {
        struct peer *peer = i == 0 ? add_pair(REACTOR_WRITE) : add_connection(REACTOR_WRITE);
        expect(peer, REACTOR_WRITE);
        fill(peer->handler.fd);
        expect_nothing();
        empty(peer->other);
        if (i == 1) { /* what was on its way comes after it */
            struct pollfd room = {.fd = peer->handler.fd, .events = POLLOUT};
            while (poll(&room, 1, 1) == 0)
                empty(peer->other);
        }
        expect(peer, REACTOR_WRITE);
        drop(peer);
    }
}
END_TEST

START_TEST(told_both)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ | REACTOR_WRITE);
    expect(peer, REACTOR_WRITE);
    say(peer, 1);
    expect(peer, REACTOR_READ | REACTOR_WRITE);
    fill(peer->handler.fd);
    expect(peer, REACTOR_READ);
}
END_TEST

START_TEST(told_what_is_wanted)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 1); /* and there is room */
    expect(peer, REACTOR_READ);
    want(peer, REACTOR_WRITE);
    expect(peer, REACTOR_WRITE);
    want(peer, REACTOR_READ | REACTOR_WRITE);
    expect(peer, REACTOR_READ | REACTOR_WRITE);
    want(peer, 0);
    expect_nothing();
    want(peer, REACTOR_READ);
    expect(peer, REACTOR_READ);
}
END_TEST

START_TEST(told_again)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 4);
    for (int i = 0; i < 4; i++) {
        expect(peer, REACTOR_READ);
        ck_assert_int_eq(hear(peer, 1), 1);
    }
    expect_nothing();
}
END_TEST

START_TEST(told_hang_up)
{
    begin();
    for (unsigned events = REACTOR_READ; events <= (REACTOR_READ | REACTOR_WRITE); events++) {
        struct peer *peer = add_pair(events);
        close_other(peer);
        expect(peer, events);
        drop(peer);

        peer = add_connection(events);
        reset_connection(peer);
        expect(peer, events);
        expect(peer, events); /* until somebody does something about it */
        drop(peer);
    }
}
END_TEST

START_TEST(told_pipe)
{
    int ends[2];

    begin();
    ck_assert_int_eq(pipe2(ends, O_NONBLOCK), 0);
    struct peer *peer = new_peer(ends[0], ends[1]);
    add(peer, REACTOR_READ);
    expect_nothing();
    say(peer, 1);
    expect(peer, REACTOR_READ);
    ck_assert_int_eq(hear(peer, 1), 1);
    close_other(peer);
    expect(peer, REACTOR_READ);
    drop(peer);

    ck_assert_int_eq(pipe2(ends, O_NONBLOCK), 0);
    peer = new_peer(ends[1], ends[0]);
    add(peer, REACTOR_WRITE);
    expect(peer, REACTOR_WRITE);
    fill(ends[1]);
    expect_nothing();
    close(ends[0]);
    peer->other = -1;
    expect(peer, REACTOR_WRITE);
}
END_TEST

START_TEST(told_half_close)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 5);
    shutdown(peer->other, SHUT_WR);
    expect(peer, REACTOR_READ);
    ck_assert_int_eq(hear(peer, 100), 5);
    await(peer->handler.fd, POLLIN);
    expect(peer, REACTOR_READ); /* the end */
    ck_assert_int_eq(hear(peer, 100), 0);
    want(peer, REACTOR_WRITE); /* what is still owed */
    expect(peer, REACTOR_WRITE);
    fill(peer->handler.fd);
    expect_nothing();
}
END_TEST

START_TEST(told_refused)
{
    struct sockaddr_in address;

    begin();
    close(open_listener(&address));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), -1);
    if (errno != EINPROGRESS)
        tap_skip("connect() on loopback does not wait here: %s", strerror(errno));
    struct peer *peer = new_peer(fd, -1);
    add(peer, REACTOR_WRITE);
    await(fd, POLLOUT);
    expect(peer, REACTOR_WRITE);
    ck_assert_int_eq(write(fd, "", 1), -1); /* kqueue_linux.c has taken SO_ERROR for itself: see its head */
}
END_TEST

START_TEST(told_accept)
{
    struct sockaddr_in address;

    begin();
    struct peer *peer = new_peer(open_listener(&address), -1);
    add(peer, REACTOR_READ);
    expect_nothing();
    int client = connect_to(&address);
    await(peer->handler.fd, POLLIN);
    expect(peer, REACTOR_READ);
    close(accept(peer->handler.fd, NULL, NULL));
    close(client);
    expect_nothing();
}
END_TEST

START_TEST(silent_without_wish)
{
    begin();
    struct peer *peers[] = {add_pair(0), add_connection(REACTOR_READ), add_connection(REACTOR_READ),
                            add_connection(REACTOR_WRITE)};
    say(peers[0], 1);
    say(peers[1], 1);
    turn_now();
    for (int i = 0; i < 4; i++)
        want(peers[i], 0);
    close_other(peers[1]);
    reset_connection(peers[2]);
    reset_connection(peers[3]);
    expect_nothing();
    expect_nothing();
}
END_TEST

START_TEST(duplicates)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    struct peer *twin = new_peer(dup(peer->handler.fd), -1);
    int third = dup(peer->handler.fd);
    add(twin, REACTOR_READ);
    say(peer, 1);
    forget_all();
    turn_now();
    ck_assert_uint_eq(peer->told, REACTOR_READ);
    ck_assert_uint_eq(twin->told, REACTOR_READ);

    want(twin, REACTOR_WRITE);
    forget_all();
    turn_now();
    ck_assert_uint_eq(peer->told, REACTOR_READ);
    ck_assert_uint_eq(twin->told, REACTOR_WRITE);

    drop(twin);
    expect(peer, REACTOR_READ);
    peer->other = dup(peer->other);
    drop(peer); /* the file is still open as `third` */
    expect_nothing();
    close(third);
}
END_TEST

START_TEST(number_again)
{
    begin();
    for (int i = 0; i < 10; i++) {
        struct peer *old = add_pair(REACTOR_READ | REACTOR_WRITE);
        int number = old->handler.fd;
        say(old, 1);
        if (i % 2 == 0)
            turn_now();
        drop(old);
        struct peer *peer = new_pair_at(number);
        add(peer, REACTOR_READ);
        expect_nothing();
        say(peer, 1);
        expect(peer, REACTOR_READ);
        drop(peer);
        int other[2]; /* under the same number, and none of the reactor's */
        ck_assert_int_eq(pipe2(other, O_NONBLOCK), 0);
        expect_nothing();
        close(other[0]);
        close(other[1]);
    }
}
END_TEST

/* ---- against poll() ---- */

/* What a peer that wants these events is to be told. */
static unsigned poll_says(const struct peer *peer, unsigned wanted)
{
    struct pollfd now = {.fd = peer->handler.fd, .events = POLLIN | POLLOUT};
    poll(&now, 1, 0);
    if ((now.revents & (POLLERR | POLLHUP)) != 0)
        return wanted;
    return wanted & (((now.revents & POLLIN) != 0 ? REACTOR_READ : 0U) |
                     ((now.revents & POLLOUT) != 0 ? REACTOR_WRITE : 0U));
}

START_TEST(random_steps)
{
    enum { PEERS = 12, STEPS = 3000 };
    struct peer *peers[PEERS];
    unsigned wanted[PEERS];
    bool registered[PEERS] = {false};

    begin();
    for (int i = 0; i < PEERS; i++)
        peers[i] = new_pair();
    for (int step = 0; step < STEPS; step++) {
        unsigned i = random_below(PEERS);
        struct peer *peer = peers[i];
        switch (random_below(9)) {
        case 0:
        case 1:
        case 2:
            wanted[i] = random_below(4);
            if (registered[i])
                want(peer, wanted[i]);
            else
                add(peer, wanted[i]);
            registered[i] = true;
            break;
        case 3:
            if (registered[i])
                reactor_remove(reactor, &peer->handler);
            registered[i] = false;
            break;
        case 4: /* another file with the same number */
            if (registered[i])
                reactor_remove(reactor, &peer->handler);
            registered[i] = false;
            int number = peer->handler.fd;
            free_peer(peer);
            peers[i] = new_pair_at(number);
            break;
        case 5:
            if (peer->other >= 0)
                (void)write(peer->other, "", 1);
            break;
        case 6:
            empty(peer->handler.fd);
            break;
        case 7:
            if (peer->other >= 0)
                fill(random_below(2) == 0 ? peer->handler.fd : peer->other);
            break;
        default:
            if (peer->other >= 0 && random_below(3) == 0)
                close_other(peer);
            else if (peer->other >= 0)
                empty(peer->other);
        }
        if (random_below(3) != 0)
            continue;
        forget_all();
        turn_now();
        for (int j = 0; j < PEERS; j++) {
            unsigned told = registered[j] ? poll_says(peers[j], wanted[j]) : 0;
            if (peers[j]->told != told)
                ck_abort_msg("step %d: descriptor %d was told of events 0x%x, and not of 0x%x", step,
                             peers[j]->handler.fd, peers[j]->told, told);
        }
    }
}
END_TEST

/* ---- what handlers do to each other, in one batch ---- */

START_TEST(removes_itself)
{
    begin();
    for (int i = 0; i < 3; i++) {
        struct peer *peer = add_connection(REACTOR_READ | REACTOR_WRITE);
        say(peer, 1);
        peer->then = then_drop_self;
    }
    forget_all();
    turn_now();
    ck_assert_uint_eq(sequence, 3);
    ck_assert_ptr_null(all_peers);
    expect_nothing();
}
END_TEST

START_TEST(removes_another)
{
    begin();
    struct peer *one = add_connection(REACTOR_READ);
    struct peer *other = add_connection(REACTOR_READ);
    one->target = other;
    other->target = one;
    one->then = other->then = then_drop_target; /* whoever is told first */
    say(one, 1);
    say(other, 1);
    forget_all();
    turn_now();
    ck_assert_msg(sequence == 1, "%u handlers were told: one of them had been removed before", sequence);
    ck_assert_ptr_nonnull(all_peers);
    ck_assert_ptr_null(all_peers->next);
    expect(all_peers, REACTOR_READ);
}
END_TEST

static void then_silence_target(struct peer *peer, unsigned events)
{
    (void)events;
    want(peer->target, 0);
}

START_TEST(drops_what_another_wants)
{
    begin();
    struct peer *one = add_connection(REACTOR_READ);
    struct peer *other = add_connection(REACTOR_READ);
    one->target = other;
    other->target = one;
    one->then = other->then = then_silence_target;
    say(one, 1);
    say(other, 1);
    forget_all();
    turn_now();
    ck_assert_msg(sequence == 1, "%u handlers were told: one did not want to hear it any more", sequence);
    expect(one->calls == 1 ? one : other, REACTOR_READ);
}
END_TEST

static struct peer *newcomer; /* who has come in during a batch */

/* Closes its target, as when a client is thrown out, and a new client gets the number. */
static void then_replace_target(struct peer *peer, unsigned events)
{
    int number = peer->target->handler.fd;
    then_drop_target(peer, events);
    newcomer = new_pair_at(number);
    add(newcomer, REACTOR_READ);
}

START_TEST(number_again_in_batch)
{
    begin();
    struct peer *one = add_connection(REACTOR_READ);
    struct peer *other = add_connection(REACTOR_READ);
    one->target = other;
    other->target = one;
    one->then = other->then = then_replace_target;
    say(one, 1);
    say(other, 1);
    forget_all();
    turn_now();
    ck_assert_uint_eq(newcomer->calls, 0);
    ck_assert_uint_eq(sequence, 1);
    (void)hear(newcomer->next, 1); /* the one that is left */
    expect_nothing();
    say(newcomer, 1);
    expect(newcomer, REACTOR_READ);
}
END_TEST

static void then_add_many(struct peer *peer, unsigned events)
{
    then_hear(peer, events);
    for (int i = 0; i < 200; i++)
        (void)write(add_pair(REACTOR_READ)->other, "", 1);
}

START_TEST(adds_many)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    peer->then = then_add_many;
    say(peer, 1);
    expect(peer, REACTOR_READ); /* the others are for the next turn */
    forget_all();
    run_turns(2, true); /* a kqueue brings fewer than that in one */
    for (const struct peer *added = all_peers; added != peer; added = added->next)
        ck_assert_uint_eq(added->told, REACTOR_READ);
}
END_TEST

static void then_register_again(struct peer *peer, unsigned events)
{
    (void)events;
    reactor_remove(reactor, &peer->handler);
    add(peer, REACTOR_WRITE);
    peer->then = NULL;
}

START_TEST(registers_again_in_batch)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    peer->then = then_register_again;
    say(peer, 1);
    expect(peer, REACTOR_READ);
    expect(peer, REACTOR_WRITE);
    want(peer, REACTOR_READ);
    expect(peer, REACTOR_READ);
}
END_TEST

static void then_wish_to_write(struct peer *peer, unsigned events)
{
    (void)events;
    want(peer->target, REACTOR_WRITE);
}

START_TEST(wishes_in_batch)
{
    begin();
    struct peer *one = add_connection(REACTOR_READ);
    struct peer *other = add_connection(0);
    one->target = other;
    one->then = then_wish_to_write;
    say(one, 1);
    expect(one, REACTOR_READ);
    (void)hear(one, 1);
    expect(other, REACTOR_WRITE);
}
END_TEST

START_TEST(stops_from_handler)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    peer->then = then_stop;
    say(peer, 1);
    ck_assert(!reactor_stopping(reactor));
    run();
    ck_assert(reactor_stopping(reactor));
    ck_assert_ptr_null(all_peers);
}
END_TEST

/* ---- registration ---- */

START_TEST(registers_twice)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    struct peer *impostor = new_peer(peer->handler.fd, -1);
    ck_assert_int_eq(reactor_register(reactor, &peer->handler, REACTOR_READ), -1);
    ck_assert_int_eq(errno, EEXIST);
    ck_assert_int_eq(reactor_register(reactor, &impostor->handler, REACTOR_WRITE), -1);
    ck_assert_int_eq(errno, EEXIST);
    expect_nothing();
    say(peer, 1);
    expect(peer, REACTOR_READ);
}
END_TEST

START_TEST(registers_no_descriptor)
{
    begin();
    struct peer *peer = new_peer(-1, -1);
    ck_assert_int_eq(reactor_register(reactor, &peer->handler, REACTOR_READ), -1);
    ck_assert_int_eq(errno, EBADF);
    reactor_stop(reactor, 10000);
    run();
    ck_assert_uint_eq(peer->calls, 0);
}
END_TEST

/* Whatever memory there is not, registering fails, leaves nothing, and succeeds when there is again. */
START_TEST(registers_without_memory)
{
    begin();
    int failures = 0;
    for (int succeed = 0;; succeed++, failures++) {
        struct peer *peer = new_pair_at(500); /* beyond all tables */
        watching = true;
        allocations = succeed;
        int result = reactor_register(reactor, &peer->handler, REACTOR_READ);
        int error = errno;
        watching = false;
        allocations = -1;
        say(peer, 1);
        if (result == 0) {
            expect(peer, REACTOR_READ);
            drop(peer);
            break;
        }
        ck_assert_int_eq(error, ENOMEM);
        expect_nothing();
        free_peer(peer);
    }
    ck_assert_int_ge(failures, 2);
    reactor_stop(reactor, 10000);
    run(); /* to the end at once, since nobody is there */
}
END_TEST

START_TEST(refused_at_once)
{
    begin();
    struct peer *peer = new_connection();
    watched->refusal = ENOSPC;
    ck_assert_int_eq(reactor_register(reactor, &peer->handler, REACTOR_READ), -1);
    ck_assert_int_eq(errno, ENOSPC);
    watched->refusal = 0;
    say(peer, 1);
    expect_nothing();
    add(peer, REACTOR_READ);
    expect(peer, REACTOR_READ);
}
END_TEST

static void then_go_if_told(struct peer *peer, unsigned events)
{
    ck_assert_uint_eq(events, REACTOR_CLOSE);
    drop(peer);
}

START_TEST(refused_later)
{
    begin();
    struct peer *peer = add_connection(0);
    struct peer *other = add_connection(REACTOR_READ);
    peer->then = then_go_if_told;
    want(peer, REACTOR_READ);
    say(peer, 1);
    say(other, 1);
    want(other, REACTOR_READ | REACTOR_WRITE);
    watched->refusal = ENOSPC;
    forget_all();
    other->then = then_go_if_told; /* both are told to go, and do */
    turn_now();
    ck_assert_uint_eq(sequence, 2);
    ck_assert_ptr_null(all_peers);
    watched->refusal = 0;
    expect_nothing();
}
END_TEST

/* Who is told to go and stays keeps what it had, and is not told again without end. */
START_TEST(refused_and_stays)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    want(peer, REACTOR_WRITE);
    watched->refusal = ENOSPC;
    expect(peer, REACTOR_CLOSE);
    watched->refusal = 0;
    expect_nothing();
    say(peer, 1);
    expect(peer, REACTOR_READ);
    want(peer, REACTOR_WRITE);
    expect(peer, REACTOR_WRITE);
}
END_TEST

/* Lets this process have descriptors with numbers of FD_SETSIZE and more. */
static void raise_limit(void)
{
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < FD_SETSIZE + 10) {
        limit.rlim_cur = limit.rlim_max;
        if (limit.rlim_max < FD_SETSIZE + 10 || setrlimit(RLIMIT_NOFILE, &limit) < 0)
            tap_skip("this process cannot have a descriptor FD_SETSIZE");
    }
}

START_TEST(last_of_set)
{
    begin();
    raise_limit();
    struct peer *peer = new_pair_at(FD_SETSIZE - 1);
    add(peer, REACTOR_READ | REACTOR_WRITE);
    expect(peer, REACTOR_WRITE);
    say(peer, 1);
    expect(peer, REACTOR_READ | REACTOR_WRITE);
    drop(peer);
    expect_nothing();
}
END_TEST

START_TEST(past_set)
{
    begin();
    raise_limit();
    struct peer *peer = new_pair_at(FD_SETSIZE);
    if (strcmp(tested->name, "select") == 0) {
        ck_assert_int_eq(reactor_register(reactor, &peer->handler, REACTOR_READ), -1);
        ck_assert_int_eq(errno, ERANGE);
        add(peer, 0); /* so far nobody has asked select() */
        want(peer, REACTOR_WRITE);
        expect(peer, REACTOR_CLOSE);
        drop(peer);
    } else {
        add(peer, REACTOR_READ | REACTOR_WRITE);
        expect(peer, REACTOR_WRITE);
        drop(peer);
    }
    expect_nothing();
}
END_TEST

/* epoll refuses a file: it is always ready. Source: epoll_ctl(2). */
START_TEST(cannot_be_watched)
{
    begin();
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    struct peer *peer = new_peer(dup(fileno(file)), -1);
    ck_assert_int_eq(reactor_register(reactor, &peer->handler, REACTOR_READ), -1);
    ck_assert_int_eq(errno, EPERM);
    add(peer, 0);
    want(peer, REACTOR_READ);
    expect(peer, REACTOR_CLOSE);
    drop(peer);
    expect_nothing();
}
END_TEST

START_TEST(change_is_refused)
{
    begin();
    struct peer *peer = add_pair(REACTOR_READ);
    struct peer *other = add_pair(REACTOR_WRITE);
    int number = peer->handler.fd;
    peer->then = then_go_if_told;
    close(number); /* a mistake of the program: it shall cost this handler only */
    turn_now();
    ck_assert_uint_eq(sequence, 1);
    ck_assert_ptr_eq(all_peers, other);
    ck_assert_ptr_null(other->next);
    expect(other, REACTOR_WRITE);
}
END_TEST

/* ---- changes ---- */

START_TEST(unchanged_costs_nothing)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    turn_now();
    epoll_ctls = 0;
    for (int i = 0; i < 10; i++) {
        want(peer, REACTOR_READ | REACTOR_WRITE);
        want(peer, REACTOR_READ);
        turn_now();
    }
    ck_assert_uint_eq(epoll_ctls, 0);
    want(peer, REACTOR_WRITE);
    ck_assert_uint_eq(epoll_ctls, 0);
    turn_now();
    ck_assert_uint_eq(epoll_ctls, 1);
    want(peer, 0);
    turn_now();
    ck_assert_uint_eq(epoll_ctls, 2);
    drop(peer);
    ck_assert_uint_eq(epoll_ctls, 2);
}
END_TEST

START_TEST(changes_go_along)
{
    begin();
    for (int i = 0; i < 10; i++)
        (void)add_pair(REACTOR_WRITE);
    kevents = 0;
    turn_now();
    ck_assert_uint_eq(kevents, 1);
    for (struct peer *peer = all_peers; peer != NULL; peer = peer->next)
        want(peer, REACTOR_READ);
    kevents = 0;
    turn_now();
    ck_assert_uint_eq(kevents, 1);
    expect_nothing();
}
END_TEST

START_TEST(noted_changes_are_struck_out)
{
    begin();
    struct peer *before = add_pair(REACTOR_READ);
    struct peer *peer = add_pair(REACTOR_READ);
    struct peer *after = add_pair(REACTOR_READ | REACTOR_WRITE);
    int number = peer->handler.fd;
    turn_now();
    want(peer, REACTOR_WRITE); /* the loop does not come to tell */
    drop(peer);
    struct peer *again = new_pair_at(number);
    add(again, REACTOR_READ | REACTOR_WRITE);
    drop(again);
    again = new_pair_at(number); /* another file, which nobody has asked to watch */
    expect(after, REACTOR_WRITE);
    ck_assert_int_eq(watched->found, 1);
    say(before, 1);
    forget_all();
    turn_now();
    ck_assert_uint_eq(before->told, REACTOR_READ);
    ck_assert_uint_eq(after->told, REACTOR_WRITE);
    free_peer(again);
}
END_TEST

START_TEST(failed_wait_has_taken_changes)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    turn_now();
    want(peer, REACTOR_WRITE);
    next_kevent_error = ENOMEM; /* of the wait, after the changes */
    turn_now();
    expect(peer, REACTOR_WRITE); /* and not: that there is no READ to be deleted */
}
END_TEST

/* ---- batches ---- */

/* How many handlers are called in one turn at least, if so many are ready. A kqueue tells of READ and
 * of WRITE with an event each, and must have room for both. */
static unsigned in_a_turn(void)
{
    return strcmp(tested->name, "kqueue") == 0 ? BATCH / 2 : BATCH;
}

/* Lets all handlers that there are have their turns. */
static void expect_fair_turns(unsigned crowd)
{
    unsigned round = (crowd + in_a_turn() - 1) / in_a_turn(); /* turns in which everybody could be called */

    forget_all();
    run_turns(round, true);
    for (const struct peer *peer = all_peers; peer != NULL; peer = peer->next)
        ck_assert_msg(peer->calls > 0, "descriptor %d was not called in %u turns", peer->handler.fd, round);
    run_turns(10 - round, true);
    for (const struct peer *peer = all_peers; peer != NULL; peer = peer->next)
        ck_assert_msg(peer->calls + 2 >= 10 * in_a_turn() / crowd,
                      "descriptor %d was called %u times in 10 turns", peer->handler.fd, peer->calls);
}

START_TEST(more_than_a_batch)
{
    enum { CROWD = BATCH + 50 };

    begin();
    for (int i = 0; i < CROWD; i++)
        (void)add_pair(REACTOR_WRITE);
    expect_fair_turns(CROWD);
}
END_TEST

START_TEST(crowd_with_two_events)
{
    enum { CROWD = 200 };

    begin();
    for (int i = 0; i < CROWD; i++)
        say(add_pair(REACTOR_READ | REACTOR_WRITE), 1);
    expect_fair_turns(CROWD);
}
END_TEST

/* A noisy crowd, and a batch that is full of it, does not keep a timer and a work waiting. */
static unsigned noise;

static void on_work_in_crowd(struct reactor *caller, struct reactor_work *work)
{
    (void)caller, (void)work;
    noise++;
}

START_TEST(crowd_and_post)
{
    struct reactor_work work = {.run = on_work_in_crowd};

    begin();
    for (int i = 0; i < BATCH + 50; i++)
        (void)add_pair(REACTOR_WRITE);
    turn_now();
    reactor_post(reactor, &work);
    run_turns(3, true);
    ck_assert_uint_eq(noise, 1);
}
END_TEST

START_TEST(moved_entries)
{
    enum { SOME = 6 };
    struct peer *peers[SOME];

    begin();
    for (int gone = 0; gone < SOME; gone++) {
        for (int i = 0; i < SOME; i++)
            peers[i] = add_pair(REACTOR_READ);
        drop(peers[gone]);
        for (int i = 0; i < SOME; i++) { /* each of the others still has its own */
            if (i == gone)
                continue;
            want(peers[i], REACTOR_WRITE);
            expect(peers[i], REACTOR_WRITE);
            want(peers[i], REACTOR_READ);
            expect_nothing();
            say(peers[i], 1);
            expect(peers[i], REACTOR_READ);
            (void)hear(peers[i], 1);
        }
        for (int i = 0; i < SOME; i++) {
            if (i != gone)
                drop(peers[i]);
        }
    }
}
END_TEST

/* ---- waiting ---- */

static void on_alarm_signal(int number)
{
    (void)number;
}

START_TEST(interrupted)
{
    const struct sigaction action = {.sa_handler = on_alarm_signal};
    const struct itimerval often = {{0, 1000}, {0, 1000}};

    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    turn_now();
    want(peer, REACTOR_WRITE); /* a change that cannot be made twice, where it is one filter for another */
    fill(peer->handler.fd);
    ck_assert_int_eq(__real_sigaction(SIGALRM, &action, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int i = 0; i < 5; i++) {
        turn(); /* that only the signal can end */
        ck_assert_int_eq(watched->found, 0);
    }
    setitimer(ITIMER_REAL, &(const struct itimerval){{0, 0}, {0, 0}}, NULL);
    want(peer, REACTOR_READ);
    say(peer, 1);
    expect(peer, REACTOR_READ);
}
END_TEST

START_TEST(wait_fails)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 1);
    const int passing[] = {ENOMEM, EAGAIN};
    for (int i = 0; i < 2; i++) {
        watched->wait_error = passing[i];
        forget_all();
        run_turns(2, true);
        ck_assert_uint_eq(peer->told, REACTOR_READ);
    }
    watched->wait_error = EINVAL;
    watched->turns = 0;
    ck_assert_int_eq(reactor_run(reactor), -1);
    ck_assert_int_eq(errno, EINVAL);
}
END_TEST

/* ---- a demultiplexer that hands out what a test has written down ---- */

struct change {
    int fd;
    uint32_t generation;
    unsigned before, after;
};

static struct {
    struct ready batch[16]; /* what the next wait brings */
    int count;
    bool over; /* it has */
    int room;
    struct change changes[64]; /* that the reactor has asked for */
    size_t change_count;
    int refusal; /* as in struct watched */
} script;

static void *script_open(void)
{
    return &script;
}

static void script_close(void *state)
{
    (void)state;
}

static int script_change(void *state, int fd, uint32_t generation, unsigned before, unsigned after)
{
    (void)state;
    if (script.refusal != 0 && after != 0) {
        errno = script.refusal;
        return -1;
    }
    ck_assert_uint_lt(script.change_count, sizeof script.changes / sizeof *script.changes);
    script.changes[script.change_count++] = (struct change){fd, generation, before, after};
    return 0;
}

static int script_wait(void *state, struct ready *ready, int room, int timeout_ms)
{
    (void)state, (void)timeout_ms;
    if (script.over) {
        errno = ECANCELED;
        return -1;
    }
    script.over = true;
    script.room = room;
    memcpy(ready, script.batch, (size_t)script.count * sizeof *ready);
    return script.count;
}

static const struct demultiplexer scripted = {"scripted", script_open, script_close, script_change,
                                              script_wait};

static void begin_scripted(void)
{
    reactor = reactor_create(&scripted);
    ck_assert_ptr_nonnull(reactor);
    script.change_count = 0;
}

/* A handler without a descriptor: the scripted demultiplexer asks no kernel. */
static struct peer *add_fake(int number, unsigned events)
{
    struct peer *peer = new_peer(number, FAKE);
    add(peer, events);
    return peer;
}

/* Writes down an event, with the generation that the descriptor has now. */
static void write_down(int fd, unsigned events)
{
    uint32_t generation = 0;
    for (size_t i = 0; i < script.change_count; i++) {
        if (script.changes[i].fd == fd && script.changes[i].after != 0)
            generation = script.changes[i].generation;
    }
    script.batch[script.count++] = (struct ready){fd, generation, events};
}

/* A turn, with what has been written down. */
static void play(void)
{
    script.over = false;
    sequence = 0;
    ck_assert_int_eq(reactor_run(reactor), -1);
    ck_assert_int_eq(errno, ECANCELED);
    script.count = 0;
}

static void expect_changes(size_t count, const struct change *changes)
{
    ck_assert_msg(script.change_count == count, "%zu changes, and not %zu", script.change_count, count);
    for (size_t i = 0; i < count; i++) {
        const struct change *is = &script.changes[i];
        const struct change *wanted = &changes[i];
        ck_assert_msg(is->fd == wanted->fd && is->before == wanted->before && is->after == wanted->after,
                      "change %zu is of descriptor %d from 0x%x to 0x%x, and not of %d from 0x%x to 0x%x", i,
                      is->fd, is->before, is->after, wanted->fd, wanted->before, wanted->after);
    }
    script.change_count = 0;
}

#define EXPECT_CHANGES(...)                                                      \
    expect_changes(sizeof(struct change[]){__VA_ARGS__} / sizeof(struct change), \
                   (struct change[]){__VA_ARGS__})

START_TEST(script_order)
{
    begin_scripted();
    struct peer *peers[5];
    for (int i = 0; i < 5; i++)
        peers[i] = add_fake(100 + i, REACTOR_READ | REACTOR_WRITE);
    const int order[] = {3, 0, 4, 1, 2};
    for (int i = 0; i < 5; i++)
        write_down(100 + order[i], REACTOR_READ);
    play();
    for (unsigned i = 0; i < 5; i++)
        ck_assert_uint_eq(peers[order[i]]->order, i + 1);
    ck_assert_int_eq(script.room, BATCH);
}
END_TEST

START_TEST(script_events)
{
    begin_scripted();
    struct peer *reader = add_fake(100, REACTOR_READ);
    struct peer *writer = add_fake(101, REACTOR_WRITE);
    struct peer *both = add_fake(102, REACTOR_READ | REACTOR_WRITE);
    struct peer *idle = add_fake(103, 0);
    for (int fd = 100; fd < 104; fd++)
        write_down(fd, REACTOR_READ | REACTOR_WRITE);
    play();
    ck_assert_uint_eq(reader->told, REACTOR_READ);
    ck_assert_uint_eq(writer->told, REACTOR_WRITE);
    ck_assert_uint_eq(both->told, REACTOR_READ | REACTOR_WRITE);
    ck_assert_uint_eq(idle->calls, 0);

    forget_all();
    write_down(100, REACTOR_WRITE);
    write_down(101, REACTOR_CLOSE);
    play();
    ck_assert_uint_eq(reader->calls, 0);
    ck_assert_uint_eq(writer->told, REACTOR_CLOSE);
}
END_TEST

START_TEST(script_removes_later_one)
{
    begin_scripted();
    struct peer *first = add_fake(100, REACTOR_READ);
    struct peer *second = add_fake(101, REACTOR_READ);
    struct peer *third = add_fake(102, REACTOR_READ);
    first->target = second;
    first->then = then_drop_target;
    write_down(100, REACTOR_READ);
    write_down(101, REACTOR_READ);
    write_down(102, REACTOR_READ);
    play();
    ck_assert_uint_eq(first->calls, 1);
    ck_assert_uint_eq(third->calls, 1);
    ck_assert_uint_eq(sequence, 2);
}
END_TEST

START_TEST(script_removes_earlier_one)
{
    begin_scripted();
    struct peer *first = add_fake(100, REACTOR_READ);
    struct peer *second = add_fake(101, REACTOR_READ);
    second->target = first;
    second->then = then_drop_target;
    write_down(100, REACTOR_READ);
    write_down(101, REACTOR_READ);
    play();
    ck_assert_uint_eq(sequence, 2);
    ck_assert_ptr_eq(all_peers, second);
}
END_TEST

static void then_replace_fake(struct peer *peer, unsigned events)
{
    int number = peer->target->handler.fd;
    then_drop_target(peer, events);
    newcomer = add_fake(number, REACTOR_READ);
}

START_TEST(script_stale)
{
    begin_scripted();
    struct peer *first = add_fake(100, REACTOR_READ);
    first->target = add_fake(101, REACTOR_READ);
    first->then = then_replace_fake;
    write_down(100, REACTOR_READ);
    write_down(101, REACTOR_READ); /* for the one that is gone by then */
    play();
    ck_assert_uint_eq(first->calls, 1);
    ck_assert_msg(newcomer->calls == 0, "the new one was told of the old one's event");
    write_down(101, REACTOR_READ);
    play();
    ck_assert_uint_eq(newcomer->calls, 1);

    for (int i = 0; i < 300; i++) { /* the number is used again and again */
        script.change_count = 0;
        drop(newcomer);
        newcomer = add_fake(101, REACTOR_READ);
        write_down(101, REACTOR_READ);
        play();
        ck_assert_uint_eq(newcomer->calls, 1);
    }
}
END_TEST

START_TEST(script_silenced_later_one)
{
    begin_scripted();
    struct peer *first = add_fake(100, REACTOR_READ);
    struct peer *second = add_fake(101, REACTOR_READ);
    first->target = second;
    first->then = then_silence_target;
    write_down(100, REACTOR_READ);
    write_down(101, REACTOR_READ);
    play();
    ck_assert_uint_eq(second->calls, 0);
}
END_TEST

static size_t changes_so_far; /* when the handler was left */

static void then_change_mind(struct peer *peer, unsigned events)
{
    (void)events;
    want(peer, REACTOR_WRITE);
    want(peer, 0);
    want(peer, REACTOR_READ | REACTOR_WRITE);
    if (peer->target != NULL)
        want(peer, REACTOR_READ);
    changes_so_far = script.change_count;
}

START_TEST(script_changes_once)
{
    begin_scripted();
    struct peer *same = add_fake(100, REACTOR_READ);
    struct peer *other = add_fake(101, REACTOR_READ);
    EXPECT_CHANGES({100, 0, 0, REACTOR_READ}, {101, 0, 0, REACTOR_READ});
    same->then = other->then = then_change_mind;
    same->target = same; /* it comes back to what it had */
    script.batch[0] = (struct ready){100, 0, REACTOR_READ};
    script.batch[1] = (struct ready){101, 0, REACTOR_READ};
    script.count = 2;
    play();
    ck_assert_uint_eq(sequence, 2);
    ck_assert_msg(changes_so_far == 0, "the demultiplexer was told in the middle of a batch");
    EXPECT_CHANGES({101, 0, REACTOR_READ, REACTOR_READ | REACTOR_WRITE});
    play();
    expect_changes(0, NULL);
}
END_TEST

START_TEST(script_wishes_before_and_after)
{
    begin_scripted();
    struct peer *peer = add_fake(100, 0);
    expect_changes(0, NULL);
    want(peer, REACTOR_READ);
    play();
    EXPECT_CHANGES({100, 0, 0, REACTOR_READ});
    want(peer, 0);
    play();
    EXPECT_CHANGES({100, 0, REACTOR_READ, 0});
    want(peer, REACTOR_WRITE);
    reactor_remove(reactor, &peer->handler); /* the wish goes with it, and the demultiplexer never knew */
    play();
    expect_changes(0, NULL);
    add(peer, REACTOR_WRITE);
    want(peer, REACTOR_READ);
    reactor_remove(reactor, &peer->handler);
    EXPECT_CHANGES({100, 0, 0, REACTOR_WRITE}, {100, 0, REACTOR_WRITE, 0});
    add(peer, REACTOR_READ); /* with an old wish still in the list */
    play();
    EXPECT_CHANGES({100, 0, 0, REACTOR_READ});
    want(peer, REACTOR_WRITE);
    play();
    EXPECT_CHANGES({100, 0, REACTOR_READ, REACTOR_WRITE});
}
END_TEST

START_TEST(script_many_wishes)
{
    struct peer *peers[40];

    begin_scripted();
    for (int i = 0; i < 40; i++) /* beyond the first table, so that it grows */
        peers[i] = add_fake(40 + i, 0);
    for (int i = 0; i < 40; i++)
        want(peers[i], REACTOR_READ);
    play();
    ck_assert_uint_eq(script.change_count, 40);
    script.change_count = 0;
    for (int i = 0; i < 20; i++)
        want(peers[i], 0);
    play();
    ck_assert_uint_eq(script.change_count, 20);
}
END_TEST

/* ---- timers ---- */

/* A timer under test. */
struct alarm {
    struct reactor_timer timer;
    unsigned calls;
    unsigned order;
    int64_t wanted_ms; /* when it was to expire */
    void (*then)(struct alarm *alarm);
    struct alarm *target;
};

static void on_expired(struct reactor *caller, struct reactor_timer *timer)
{
    struct alarm *alarm = (struct alarm *)timer; /* its first member */

    alarm->calls++;
    alarm->order = ++sequence;
    if (reactor_now(caller) < alarm->wanted_ms || now_ms() < alarm->wanted_ms)
        ck_abort_msg("it expired at %lld, and was set for %lld", (long long)reactor_now(caller),
                     (long long)alarm->wanted_ms);
    if (sequence > 100000)
        ck_abort_msg("there is no end to it");
    if (alarm->then != NULL)
        alarm->then(alarm);
}

static void set_alarm(struct alarm *alarm, int64_t milliseconds)
{
    alarm->timer.expired = on_expired;
    alarm->wanted_ms = reactor_now(reactor) + milliseconds;
    ck_assert_int_eq(reactor_set_timer(reactor, &alarm->timer, milliseconds), 0);
    ck_assert_int_eq(alarm->timer.due_ms, alarm->wanted_ms);
}

static void then_stop_loop(struct alarm *alarm)
{
    (void)alarm;
    reactor_stop(reactor, 10000);
}

/* Turns, until so many timers have expired in all. */
static void run_until(unsigned count)
{
    while (sequence < count)
        turn();
}

START_TEST(timer_order)
{
    static struct alarm alarms[10];

    begin();
    for (int i = 0; i < 10; i++)
        set_alarm(&alarms[i * 7 % 10], i * 7 % 10 * 3);
    alarms[9].then = then_stop_loop;
    run();
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_uint_eq(alarms[i].calls, 1);
        ck_assert_uint_eq(alarms[i].order, i + 1);
    }
}
END_TEST

START_TEST(timer_once)
{
    static struct alarm once, later;

    begin();
    set_alarm(&once, 1);
    set_alarm(&later, 3);
    run_until(2);
    ck_assert_uint_eq(once.calls, 1);
    ck_assert_uint_eq(once.timer.place, 0);
    turn_now();
    ck_assert_int_eq(watched->timeout_ms, -1);
    set_alarm(&once, 1);
    run_until(3);
    ck_assert_uint_eq(once.calls, 2);
}
END_TEST

static void then_set_again(struct alarm *alarm)
{
    if (alarm->calls < 5)
        set_alarm(alarm, 2);
}

START_TEST(timer_again_in_expired)
{
    static struct alarm alarm = {.then = then_set_again};

    begin();
    set_alarm(&alarm, 2);
    run_until(5);
    ck_assert_uint_eq(alarm.calls, 5);
    turn_now();
    ck_assert_uint_eq(alarm.calls, 5);
}
END_TEST

static void then_at_once(struct alarm *alarm)
{
    ck_assert_int_eq(reactor_set_timer(reactor, &alarm->timer, 0), 0);
}

START_TEST(timer_at_once_in_expired)
{
    static struct alarm alarm = {.then = then_at_once};
    static struct alarm others[50]; /* that are due at another time */
    static struct alarm neighbour;

    begin();
    for (int i = 0; i < 50; i++)
        set_alarm(&others[i], 1000000);
    set_alarm(&alarm, 0);
    set_alarm(&neighbour, 0);
    turn();
    ck_assert_uint_eq(alarm.calls, 1);
    ck_assert_uint_eq(neighbour.calls, 1);
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 1);
    unsigned calls = 1;
    for (int i = 0; i < 5; i++) { /* others have their turns in between */
        forget_all();
        turn();
        ck_assert_uint_eq(peer->calls, 1);
        ck_assert_uint_le(alarm.calls, calls + 1);
        calls = alarm.calls;
    }
    (void)hear(peer, 1);
    sequence = 0;
    run_until(1);
}
END_TEST

static struct alarm *survivor;

static void then_cancel_target(struct alarm *alarm)
{
    alarm->target->target = NULL;
    reactor_cancel_timer(reactor, &alarm->target->timer);
    free(alarm->target);
    survivor = alarm;
    alarm->then = NULL;
}

START_TEST(timer_cancels_another)
{
    begin();
    struct alarm *one = calloc(1, sizeof *one);
    struct alarm *other = calloc(1, sizeof *other);
    ck_assert(one != NULL && other != NULL);
    one->target = other;
    other->target = one;
    one->then = other->then = then_cancel_target;
    set_alarm(one, 0);
    set_alarm(other, 0);
    turn_now();
    ck_assert_uint_eq(sequence, 1);
    turn_now();
    ck_assert_uint_eq(sequence, 1);
    free(survivor);
}
END_TEST

START_TEST(timer_cancelled)
{
    static struct alarm alarms[3];

    begin();
    reactor_cancel_timer(reactor, &alarms[0].timer); /* it is not set: no harm */
    for (int i = 0; i < 3; i++)
        set_alarm(&alarms[i], i);
    reactor_cancel_timer(reactor, &alarms[1].timer);
    reactor_cancel_timer(reactor, &alarms[1].timer);
    run_until(2);
    turn_now();
    ck_assert_uint_eq(alarms[1].calls, 0);
    ck_assert_int_eq(watched->timeout_ms, -1);
}
END_TEST

static struct alarm silence; /* put off by then_put_off() */

static void then_put_off(struct peer *peer, unsigned events)
{
    (void)peer, (void)events;
    set_alarm(&silence, 5);
}

START_TEST(timer_put_off)
{
    begin();
    struct peer *peer = add_pair(REACTOR_READ);
    peer->then = then_put_off;
    set_alarm(&silence, 5);
    int64_t start = reactor_now(reactor);
    say(peer, 1);
    while (reactor_now(reactor) < start + 30) { /* it is told in every turn, and before timers expire */
        turn();
        ck_assert_uint_eq(silence.calls, 0);
    }
    (void)hear(peer, 1);
    peer->then = NULL;
    sequence = 0;
    run_until(1);
    ck_assert_uint_eq(silence.calls, 1);
}
END_TEST

START_TEST(timer_earlier)
{
    static struct alarm alarm;

    begin();
    set_alarm(&alarm, 1000000);
    set_alarm(&alarm, 3);
    turn_now();
    ck_assert_int_le(watched->timeout_ms, 3);
    run_until(1);
}
END_TEST

START_TEST(timer_far_away)
{
    static struct alarm alarm;

    begin();
    set_alarm(&alarm, 1000LL * 3600 * 24 * 365 * 100);
    turn_now();
    ck_assert_int_eq(watched->timeout_ms, INT_MAX);
    ck_assert_uint_eq(alarm.calls, 0);
}
END_TEST

START_TEST(timer_and_event)
{
    static struct alarm alarm;

    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 1);
    set_alarm(&alarm, 0);
    turn();
    ck_assert_uint_eq(peer->calls, 1);
    ck_assert_uint_eq(alarm.calls, 1);
    ck_assert_uint_lt(peer->order, alarm.order);
}
END_TEST

static void then_set_silence(struct peer *peer, unsigned events)
{
    then_hear(peer, events);
    set_alarm(&silence, 2);
}

START_TEST(timer_set_by_handler)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    peer->then = then_set_silence;
    say(peer, 1);
    run_until(2);
    ck_assert_uint_eq(silence.calls, 1);
}
END_TEST

static void then_free(struct alarm *alarm)
{
    free(alarm);
}

START_TEST(timer_freed)
{
    static struct alarm last;

    begin();
    for (int i = 0; i < 10; i++) {
        struct alarm *alarm = calloc(1, sizeof *alarm);
        ck_assert_ptr_nonnull(alarm);
        alarm->then = then_free;
        set_alarm(alarm, i % 3);
    }
    set_alarm(&last, 3);
    run_until(11);
}
END_TEST

START_TEST(timer_no_memory)
{
    static struct alarm alarm, other;

    begin();
    watching = true;
    allocations = 0;
    alarm.timer.expired = on_expired;
    ck_assert_int_eq(reactor_set_timer(reactor, &alarm.timer, 0), -1);
    allocations = -1;
    watching = false;
    turn_now();
    ck_assert_uint_eq(sequence, 0);
    set_alarm(&other, 0);
    turn();
    ck_assert_uint_eq(sequence, 1);
}
END_TEST

START_TEST(clock_in_turn)
{
    begin();
    for (int i = 0; i < 3; i++) {
        while (now_ms() == reactor_now(reactor))
            nap();
        int64_t before = now_ms();
        turn_now();
        ck_assert_int_ge(reactor_now(reactor), before);
        ck_assert_int_le(reactor_now(reactor), now_ms());
    }
}
END_TEST

/* ---- works ---- */

/* A work under test. */
struct task {
    struct reactor_work work;
    unsigned calls;
    unsigned order;
    int number;
    pthread_t thread;
    void (*then)(struct task *task);
};

static void on_run(struct reactor *caller, struct reactor_work *work)
{
    struct task *task = (struct task *)work; /* its first member */

    (void)caller;
    task->calls++;
    task->order = ++sequence;
    task->thread = pthread_self();
    if (task->then != NULL)
        task->then(task);
}

static void post(struct task *task)
{
    task->work.run = on_run;
    reactor_post(reactor, &task->work);
}

static void then_end(struct task *task)
{
    (void)task;
    reactor_stop(reactor, 10000);
}

START_TEST(post_in_order)
{
    static struct task tasks[100];

    begin();
    writes = 0;
    for (int i = 0; i < 100; i++)
        post(&tasks[i]);
    ck_assert_uint_eq(writes, 1);
    ck_assert_uint_eq(sequence, 0);
    turn_now();
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_uint_eq(tasks[i].calls, 1);
        ck_assert_uint_eq(tasks[i].order, i + 1);
    }
    expect_nothing();
}
END_TEST

static void *post_when_asleep(void *argument)
{
    if (!eventually(atomic_load(&watched->waiting)))
        return NULL; /* the test will say so */
    nap();
    post(argument);
    return NULL;
}

START_TEST(post_wakes)
{
    static struct task task = {.then = then_end};
    pthread_t thread;

    begin();
    ck_assert_int_eq(pthread_create(&thread, NULL, post_when_asleep, &task), 0);
    run();
    pthread_join(thread, NULL);
    ck_assert_uint_eq(task.calls, 1);
    ck_assert(pthread_equal(task.thread, pthread_self()));
}
END_TEST

static void then_post_again(struct task *task)
{
    if (task->calls > 1000)
        ck_abort_msg("the loop does nothing else any more");
    post(task);
}

START_TEST(post_from_work)
{
    static struct task task = {.then = then_post_again};

    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 1);
    post(&task);
    for (unsigned i = 1; i <= 5; i++) { /* once a turn: others have theirs */
        forget_all();
        turn_now();
        ck_assert_uint_eq(task.calls, i);
        ck_assert_uint_eq(peer->calls, 1);
    }
}
END_TEST

static struct task errand; /* posted by others */

static void then_post(struct peer *peer, unsigned events)
{
    then_hear(peer, events);
    post(&errand);
}

static void then_post_errand(struct alarm *alarm)
{
    (void)alarm;
    post(&errand);
}

START_TEST(post_from_handler)
{
    static struct alarm alarm = {.then = then_post_errand};

    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    peer->then = then_post;
    say(peer, 1);
    run_turns(2, true);
    ck_assert_uint_eq(errand.calls, 1);
    set_alarm(&alarm, 0);
    turn();
    turn_now();
    ck_assert_uint_eq(errand.calls, 2);
}
END_TEST

static void then_free_task(struct task *task)
{
    free(task);
}

START_TEST(post_freed)
{
    begin();
    for (int i = 0; i < 10; i++) {
        struct task *task = calloc(1, sizeof *task);
        ck_assert_ptr_nonnull(task);
        task->then = then_free_task;
        post(task);
    }
    turn_now();
    ck_assert_uint_eq(sequence, 10);
}
END_TEST

static struct task early, late; /* posted in just these moments */

static void post_early(void)
{
    post(&early);
}

static void post_late(void)
{
    post(&late);
}

START_TEST(post_while_woken)
{
    static struct task task, last;

    begin();
    for (unsigned i = 1; i <= 3; i++) {
        before_read = post_early;
        after_read = post_late;
        post(&task);
        run_turns(2, true);
        ck_assert_uint_eq(task.calls, i);
        ck_assert_msg(early.calls == i, "what was posted before the pipe was emptied has not run");
        ck_assert_msg(late.calls == i, "what was posted after the pipe was emptied has not run");
    }
    post(&last); /* and the bell still rings */
    turn_now();
    ck_assert_uint_eq(last.calls, 1);
}
END_TEST

/* The bell rings, and the loop wakes at once. */
static void wake_at_once(void)
{
    watched->most_turns = 1;
    watched->turns = 0;
    watched->at_once = true;
    (void)reactor_run(reactor);
}

START_TEST(post_before_bell)
{
    begin();
    after_write = wake_at_once;
    post(&errand);
    turn_now();
    ck_assert_uint_eq(errand.calls, 1);
}
END_TEST

enum { POSTERS = 4, POSTS = 50000 };

/* A thread that posts, by turns, to several loops. */
struct poster {
    struct task *tasks; /* POSTS of them */
    struct reactor *const *reactors;
    size_t reactor_count;
    pthread_t thread;
};

static atomic_int ready_posters;

static void *post_many(void *argument)
{
    const struct poster *poster = argument;

    ready_posters++;
    while (ready_posters < POSTERS) /* all at the same time */
        sched_yield();
    for (size_t i = 0; i < POSTS; i++)
        reactor_post(poster->reactors[i % poster->reactor_count], &poster->tasks[i].work);
    return NULL;
}

/* What one loop has been asked to do: only its own thread writes here. */
struct account {
    int last[POSTERS]; /* the number of the last task of each poster */
    unsigned count;
    unsigned wanted; /* after so many, it stops */
};

static struct account accounts[2];

static void keep_account(struct reactor *caller, struct reactor_work *work, struct account *account)
{
    const struct task *task = (struct task *)work;
    int poster = task->number % POSTERS;
    if (task->number <= account->last[poster])
        ck_abort_msg("task %d of a thread has run after task %d", task->number, account->last[poster]);
    account->last[poster] = task->number;
    if (++account->count == account->wanted)
        reactor_stop(caller, 10000);
}

static void on_run_first(struct reactor *caller, struct reactor_work *work)
{
    keep_account(caller, work, &accounts[0]);
}

static void on_run_second(struct reactor *caller, struct reactor_work *work)
{
    keep_account(caller, work, &accounts[1]);
}

static void start_posters(struct poster *posters, struct reactor *const *reactors, size_t reactor_count)
{
    for (int i = 0; i < POSTERS; i++) {
        posters[i].tasks = calloc(POSTS, sizeof *posters[i].tasks);
        ck_assert_ptr_nonnull(posters[i].tasks);
        posters[i].reactors = reactors;
        posters[i].reactor_count = reactor_count;
        for (int j = 0; j < POSTS; j++) {
            posters[i].tasks[j].number = (j + 1) * POSTERS + i;
            posters[i].tasks[j].work.run = (size_t)j % reactor_count == 0 ? on_run_first : on_run_second;
        }
    }
    for (int i = 0; i < POSTERS; i++)
        ck_assert_int_eq(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
}

static void join_posters(struct poster *posters)
{
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(posters[i].thread, NULL);
        free(posters[i].tasks);
    }
}

START_TEST(post_from_threads)
{
    struct poster posters[POSTERS];

    begin();
    accounts[0].wanted = POSTERS * POSTS;
    start_posters(posters, &reactor, 1);
    run();
    join_posters(posters);
    ck_assert_uint_eq(accounts[0].count, POSTERS * POSTS);
}
END_TEST

static void *run_reactor(void *argument)
{
    return reactor_run(argument) == 0 ? NULL : argument;
}

START_TEST(two_loops)
{
    struct poster posters[POSTERS];
    pthread_t thread;
    void *failed;

    begin();
    struct watched *other = watched;
    other->most_turns = UINT_MAX;
    other->deadline = deadline_start();
    struct reactor *reactors[] = {reactor, create()};
    ck_assert_ptr_nonnull(reactors[1]);
    reactor = reactors[1]; /* that of this thread */
    accounts[0].wanted = accounts[1].wanted = POSTERS * POSTS / 2;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_reactor, reactors[0]), 0);
    start_posters(posters, reactors, 2);
    run();
    pthread_join(thread, &failed);
    ck_assert_ptr_null(failed);
    join_posters(posters);
    ck_assert_uint_eq(accounts[0].count, POSTERS * POSTS / 2);
    ck_assert_uint_eq(accounts[1].count, POSTERS * POSTS / 2);
    reactor_destroy(reactors[0]);
    reactor_destroy(reactors[1]);
}
END_TEST

/* ---- signals ---- */

/* A signal under test. */
struct caught {
    struct reactor_signal signal;
    unsigned calls;
    struct reactor *by;
};

static void on_raised(struct reactor *caller, struct reactor_signal *signal)
{
    struct caught *caught = (struct caught *)signal; /* its first member */
    caught->calls++;
    caught->by = caller;
}

static void catch_signal(struct reactor *by, struct caught *caught, int number)
{
    caught->signal = (struct reactor_signal){number, on_raised};
    if (reactor_catch_signal(by, &caught->signal) < 0)
        ck_abort_msg("reactor_catch_signal: %s", strerror(errno));
}

START_TEST(signal_in_loop)
{
    static struct caught user, other;

    begin();
    catch_signal(reactor, &user, SIGUSR1);
    catch_signal(reactor, &other, SIGUSR2);
    raise(SIGUSR1);
    ck_assert_uint_eq(user.calls, 0);
    turn_now();
    ck_assert_uint_eq(user.calls, 1);
    ck_assert_uint_eq(other.calls, 0);
    expect_nothing();
    raise(SIGUSR2);
    turn_now();
    ck_assert_uint_eq(user.calls, 1);
    ck_assert_uint_eq(other.calls, 1);
}
END_TEST

START_TEST(signal_coalesced)
{
    static struct caught user;

    begin();
    catch_signal(reactor, &user, SIGUSR1);
    for (int i = 0; i < 5; i++)
        raise(SIGUSR1);
    turn_now();
    ck_assert_uint_eq(user.calls, 1);
    expect_nothing();
    ck_assert_uint_eq(user.calls, 1);
    raise(SIGUSR1);
    turn_now();
    ck_assert_uint_eq(user.calls, 2);
}
END_TEST

static void on_raised_stop(struct reactor *caller, struct reactor_signal *signal)
{
    (void)signal;
    reactor_stop(caller, 10000);
}

static void *kill_when_asleep(void *argument)
{
    (void)argument;
    if (eventually(atomic_load(&watched->waiting))) {
        nap();
        kill(getpid(), SIGTERM);
    }
    return NULL;
}

START_TEST(signal_wakes)
{
    static struct reactor_signal term = {SIGTERM, on_raised_stop};
    pthread_t thread;

    begin();
    ck_assert_int_eq(reactor_catch_signal(reactor, &term), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, kill_when_asleep, NULL), 0);
    run();
    pthread_join(thread, NULL);
}
END_TEST

START_TEST(signal_was_blocked)
{
    static struct caught user;
    sigset_t one;

    begin();
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    raise(SIGUSR1);
    catch_signal(reactor, &user, SIGUSR1);
    turn_now();
    ck_assert_uint_eq(user.calls, 1);
    raise(SIGUSR1);
    turn_now();
    ck_assert_uint_eq(user.calls, 2);
}
END_TEST

static void raise_user(void)
{
    raise(SIGUSR1);
}

START_TEST(signal_at_once)
{
    static struct caught user;

    begin();
    after_sigaction = raise_user;
    catch_signal(reactor, &user, SIGUSR1);
    turn_now();
    ck_assert_uint_eq(user.calls, 1);
}
END_TEST

START_TEST(signal_while_woken)
{
    static struct caught user;

    begin();
    catch_signal(reactor, &user, SIGUSR1);
    before_read = raise_user;
    post(&errand);
    run_turns(2, true);
    ck_assert_uint_eq(user.calls, 1);
    after_read = raise_user;
    post(&errand);
    run_turns(2, true);
    ck_assert_uint_eq(user.calls, 2);
    expect_nothing();
}
END_TEST

START_TEST(signal_before_bell)
{
    static struct caught user;

    begin();
    catch_signal(reactor, &user, SIGUSR1);
    turn_now(); /* whoever has to allocate something has done it */
    after_write = wake_at_once;
    raise(SIGUSR1);
    turn_now();
    ck_assert_uint_eq(user.calls, 1);
}
END_TEST

START_TEST(signal_of_two)
{
    static struct caught first, second;

    begin();
    struct watched *of_first = watched;
    struct reactor *reactors[] = {reactor, create()};
    struct watched *of_second = watched;
    ck_assert_ptr_nonnull(reactors[1]);
    catch_signal(reactors[0], &first, SIGUSR1);
    catch_signal(reactors[1], &second, SIGUSR1);
    raise(SIGUSR1);
    post(&errand); /* the first one wakes up, too */
    watched = of_first;
    turn_now();
    ck_assert_uint_eq(errand.calls, 1);
    ck_assert_msg(first.calls == 0, "the first one took the signal, which was the second one's by then");
    reactor = reactors[1];
    watched = of_second;
    turn_now();
    ck_assert_uint_eq(second.calls, 1);
    ck_assert_ptr_eq(second.by, reactors[1]);

    reactor_destroy(reactors[0]); /* the signal is not its own to give back */
    raise(SIGUSR1);
    turn_now();
    ck_assert_uint_eq(second.calls, 2);
    reactor_destroy(reactors[1]);
}
END_TEST

START_TEST(signal_handed_over)
{
    static struct caught first, second;

    begin();
    struct reactor *reactors[] = {reactor, create()};
    ck_assert_ptr_nonnull(reactors[1]);
    catch_signal(reactors[0], &first, SIGUSR1);
    raise(SIGUSR1); /* it is noted, and the first has no time to look */
    catch_signal(reactors[1], &second, SIGUSR1);
    reactor = reactors[1];
    turn_now();
    ck_assert_uint_eq(second.calls, 1);
    reactor_destroy(reactors[0]);
    reactor_destroy(reactors[1]);
}
END_TEST

START_TEST(signal_given_back)
{
    static struct caught user, again;
    struct sigaction action;

    begin();
    catch_signal(reactor, &user, SIGUSR1);
    ck_assert_int_eq(__real_sigaction(SIGUSR1, NULL, &action), 0);
    ck_assert_ptr_ne(action.sa_handler, SIG_DFL);
    raise(SIGUSR1);
    reactor_destroy(reactor); /* before it has looked */
    ck_assert_int_eq(__real_sigaction(SIGUSR1, NULL, &action), 0);
    ck_assert_ptr_eq(action.sa_handler, SIG_DFL);

    begin();
    catch_signal(reactor, &again, SIGUSR1);
    post(&errand);
    turn_now();
    ck_assert_uint_eq(errand.calls, 1);
    ck_assert_msg(again.calls == 0, "it was told of a signal that had come before its time");
}
END_TEST

START_TEST(signal_that_cannot_be)
{
    static struct caught user;
    const int numbers[] = {0, -1, 65, 1000, INT_MAX, SIGKILL, SIGSTOP};

    begin();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        user.signal = (struct reactor_signal){numbers[i], on_raised};
        ck_assert_int_eq(reactor_catch_signal(reactor, &user.signal), -1);
        ck_assert_int_eq(errno, EINVAL);
    }
    catch_signal(reactor, &user, SIGRTMAX);
    raise(SIGRTMAX);
    turn_now();
    ck_assert_uint_eq(user.calls, 1);
    reactor_destroy(reactor); /* and gives back what it had, and nothing else */
}
END_TEST

START_TEST(signal_pipe_full)
{
    enum { MORE_THAN_A_PIPE = 70000 };
    static struct caught user;

    begin();
    catch_signal(reactor, &user, SIGUSR1);
    errno = ENOTTY;
    for (int i = 0; i < MORE_THAN_A_PIPE; i++)
        raise(SIGUSR1); /* does not wait */
    ck_assert_msg(errno == ENOTTY, "a signal handler has changed errno");
    turn_now();
    ck_assert_uint_eq(user.calls, 1);
    expect_nothing();
    raise(SIGUSR1);
    turn_now();
    ck_assert_uint_eq(user.calls, 2);
}
END_TEST

/* ---- stopping ---- */

static void then_go_after_three(struct peer *peer, unsigned events)
{
    if (events == REACTOR_STOP && peer->calls == 3)
        drop(peer);
}

static unsigned stops, closes; /* of peers that are gone by the end */

static void then_count(struct peer *peer, unsigned events)
{
    stops += (events & REACTOR_STOP) != 0;
    closes += (events & REACTOR_CLOSE) != 0;
    then_hear(peer, events);
    if ((events & REACTOR_CLOSE) != 0)
        drop(peer);
}

static void then_go_at_stop(struct peer *peer, unsigned events)
{
    stops += (events & REACTOR_STOP) != 0;
    if ((events & REACTOR_STOP) != 0)
        drop(peer);
}

START_TEST(stop_told_to_all)
{
    begin();
    struct peer *idle = add_connection(0);
    add_connection(REACTOR_READ)->then = then_go_at_stop;
    add_connection(REACTOR_WRITE)->then = then_go_at_stop;
    idle->then = then_go_after_three;
    turn_now();
    reactor_stop(reactor, 10000);
    int64_t start = now_ms();
    run();
    ck_assert_uint_eq(stops, 2);
    ck_assert_ptr_null(all_peers);
    ck_assert_int_ge(now_ms() - start, 200); /* ten times a second: not more often */
}
END_TEST

START_TEST(stop_goes_on_serving)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    reactor_stop(reactor, 10000);
    expect(peer, REACTOR_STOP);
    say(peer, 1);
    expect(peer, REACTOR_READ);
    (void)hear(peer, 1);
    expect_nothing();
    peer->then = then_go_at_stop;
    run();
    ck_assert_uint_eq(stops, 1);
}
END_TEST

static int low_number;

static void then_bring_newcomer(struct peer *peer, unsigned events)
{
    if (newcomer == NULL) {
        newcomer = new_pair_at(low_number);
        newcomer->then = then_go_at_stop;
        add(newcomer, REACTOR_READ);
    }
    then_go_at_stop(peer, events);
}

START_TEST(stop_and_newcomer)
{
    begin();
    low_number = dup(0); /* those with lower numbers are told first: it has had its turn */
    struct peer *peer = add_connection(REACTOR_READ);
    peer->then = then_bring_newcomer;
    reactor_stop(reactor, 2000);
    run();
    ck_assert_uint_eq(stops, 2);
    ck_assert_ptr_null(all_peers);
}
END_TEST

START_TEST(stop_grace_over)
{
    enum { GRACE_MS = 30 };

    begin();
    for (int i = 0; i < 2; i++)
        add_connection(i == 0 ? 0 : REACTOR_READ)->then = then_count;
    struct peer *stubborn = add_connection(REACTOR_READ);
    turn_now();
    int64_t start = now_ms();
    reactor_stop(reactor, GRACE_MS);
    run();
    ck_assert_int_ge(now_ms() - start, GRACE_MS);
    ck_assert_uint_eq(stops, 2);
    ck_assert_uint_eq(closes, 2);
    ck_assert_uint_eq(stubborn->told, REACTOR_STOP | REACTOR_CLOSE);
    ck_assert_uint_eq(stubborn->calls, 2);
    ck_assert_msg(watched->timeout_ms <= GRACE_MS, "it waited for %d ms, and the grace is %d",
                  watched->timeout_ms, GRACE_MS);
}
END_TEST

START_TEST(stop_without_grace)
{
    begin();
    add_connection(REACTOR_READ)->then = then_count;
    reactor_stop(reactor, 0);
    run();
    ck_assert_uint_le(stops, 1);
    ck_assert_uint_eq(closes, 1);
    ck_assert_ptr_null(all_peers);
}
END_TEST

START_TEST(stop_twice)
{
    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    reactor_stop(reactor, 10000);
    expect(peer, REACTOR_STOP);
    reactor_stop(reactor, 0);
    expect_nothing(); /* neither the end, nor a STOP before its time */
    peer->then = then_go_at_stop;
    run();
    ck_assert_uint_eq(stops, 1);
}
END_TEST

START_TEST(stop_before_run)
{
    static struct alarm alarm;

    begin();
    set_alarm(&alarm, 1000000); /* keeps nobody */
    reactor_stop(reactor, 200);
    run();
    ck_assert_uint_eq(watched->turns, 0);
    run(); /* again: it is over */
    ck_assert_uint_eq(watched->turns, 0);
}
END_TEST

static void then_drop_target_at_stop(struct peer *peer, unsigned events)
{
    if ((events & REACTOR_STOP) != 0)
        then_drop_target(peer, events);
}

START_TEST(stop_and_removal)
{
    begin();
    struct peer *one = add_connection(REACTOR_READ);
    struct peer *other = add_connection(REACTOR_READ);
    one->target = other;
    other->target = one;
    one->then = other->then = then_drop_target_at_stop;
    reactor_stop(reactor, 10000);
    turn_now();
    ck_assert_uint_eq(sequence, 1);
    all_peers->then = then_go_at_stop;
    run();
    ck_assert_uint_eq(stops, 1);
}
END_TEST

START_TEST(stop_from_anywhere)
{
    static struct alarm alarm = {.then = then_stop_loop};
    static struct task task = {.then = then_end};
    static struct reactor_signal user = {SIGUSR1, on_raised_stop};

    for (int i = 0; i < 3; i++) {
        begin();
        ck_assert_int_eq(reactor_catch_signal(reactor, &user), 0);
        add_connection(REACTOR_READ)->then = then_go_at_stop;
        if (i == 0)
            set_alarm(&alarm, 1);
        else if (i == 1)
            post(&task);
        else
            raise(SIGUSR1);
        run();
        reactor_destroy(reactor);
    }
    ck_assert_uint_eq(stops, 3);
}
END_TEST

/* ---- creating ---- */

/* A reactor comes and goes. (A closed queue of kqueue_linux.c is given back by the next one.) */
static void create_and_destroy(void)
{
    begin();
    (void)add_pair(REACTOR_READ);
    turn_now();
    drop(all_peers);
    reactor_destroy(reactor);
}

START_TEST(create_without_descriptors)
{
    struct rlimit limit;

    create_and_destroy();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct rlimit tight = limit;
    int before = descriptors();
    bool created = false;
    int failures = 0;
    while (!created) {
        int first_free = dup(0);
        close(first_free);
        tight.rlim_cur = (rlim_t)first_free + (rlim_t)failures;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &tight), 0);
        errno = 0;
        struct reactor *made = create();
        created = made != NULL;
        ck_assert_msg(created || errno == EMFILE, "%s", strerror(errno));
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (created)
            reactor_destroy(made);
        else
            failures++;
    }
    ck_assert_int_ge(failures, 2);
    create_and_destroy();
    ck_assert_int_eq(descriptors(), before);
}
END_TEST

/* The same without a handler, and its blocks are counted. */
static void create_and_count(void)
{
    watching = true;
    struct reactor *made = create();
    if (made != NULL)
        reactor_destroy(made);
    watching = false;
    ck_assert_ptr_nonnull(made);
}

START_TEST(create_without_memory)
{
    create_and_count();
    int descriptors_before = descriptors();
    long held_before = held;
    int failures = 0;
    for (bool created = false; !created; failures += !created) {
        watching = true;
        allocations = failures;
        struct reactor *made = create();
        int error = errno;
        allocations = -1;
        created = made != NULL;
        if (created)
            reactor_destroy(made);
        watching = false;
        ck_assert_msg(created || error == ENOMEM, "%s", strerror(error));
    }
    ck_assert_int_ge(failures, 3);
    create_and_count();
    ck_assert_msg(held == held_before, "%ld blocks of memory are left", held - held_before);
    ck_assert_int_eq(descriptors(), descriptors_before);
}
END_TEST

static int first_forgotten; /* registered, set and posted, and never told */

static void forget_alarm(struct alarm *alarm)
{
    (void)alarm;
    first_forgotten++;
}

START_TEST(destroy_forgets)
{
    static struct alarm alarm = {.then = forget_alarm};
    static struct task task;

    begin();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 1);
    set_alarm(&alarm, 0);
    post(&task);
    reactor_destroy(reactor);
    ck_assert_uint_eq(peer->calls, 0);
    ck_assert_int_eq(first_forgotten, 0);
    ck_assert_uint_eq(task.calls, 0);
    ck_assert_int_eq(hear(peer, 10), 1); /* its descriptor is open */
}
END_TEST

START_TEST(many_reactors)
{
    create_and_destroy();
    int before = descriptors();
    for (int i = 0; i < 20; i++)
        create_and_destroy();
    ck_assert_int_eq(descriptors(), before);
}
END_TEST

START_TEST(not_inherited)
{
    enum { SOME = 64 };
    bool open[SOME];

    for (int fd = 0; fd < SOME; fd++)
        open[fd] = fcntl(fd, F_GETFD) >= 0;
    begin();
    for (int fd = 0; fd < SOME; fd++) {
        int flags = fcntl(fd, F_GETFD);
        ck_assert_msg(open[fd] || flags < 0 || (flags & FD_CLOEXEC) != 0,
                      "descriptor %d stays open in a program that this one starts", fd);
    }
}
END_TEST

/* ---- the busy-wait detector ---- */

static FILE *messages; /* where stderr goes */

static void capture_messages(void)
{
    messages = tmpfile();
    ck_assert_ptr_nonnull(messages);
    ck_assert_int_eq(dup2(fileno(messages), STDERR_FILENO), STDERR_FILENO);
}

static const char *said(void)
{
    static char text[1000];
    ssize_t size = pread(fileno(messages), text, sizeof text - 1, 0);
    text[size > 0 ? size : 0] = '\0';
    return text;
}

/* One line names the handler; in a build without the detector there is none. */
static void expect_named(const struct peer *peer, const char *what)
{
    char line[200] = "";
#ifdef REACTOR_DEBUG
    snprintf(line, sizeof line,
             "reactor: busy wait: test handler on descriptor %d was woken %d times to %s, and did nothing\n",
             peer->handler.fd, FUTILE_MOST, what);
#else
    (void)peer, (void)what;
#endif
    ck_assert_str_eq(said(), line);
}

static void expect_silence(void)
{
    ck_assert_str_eq(said(), "");
}

START_TEST(busy_writer)
{
    begin();
    capture_messages();
    struct peer *peer = add_connection(REACTOR_READ | REACTOR_WRITE);
    run_turns(FUTILE_MOST - 1, true);
    expect_silence();
    run_turns(2 * FUTILE_MOST, true); /* said once is enough */
    expect_named(peer, "write");
}
END_TEST

START_TEST(busy_reader)
{
    begin();
    capture_messages();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 100);
    run_turns(FUTILE_MOST + 10, true);
    expect_named(peer, "read");
}
END_TEST

START_TEST(busy_acceptor)
{
    struct sockaddr_in address;

    begin();
    capture_messages();
    struct peer *peer = new_peer(open_listener(&address), -1);
    add(peer, REACTOR_READ);
    int client = connect_to(&address);
    await(peer->handler.fd, POLLIN);
    run_turns(FUTILE_MOST + 10, true);
    close(client);
    expect_named(peer, "read");
}
END_TEST

/* From now on its number is another handler's. */
START_TEST(busy_and_new)
{
    begin();
    capture_messages();
    struct peer *peer = add_connection(REACTOR_WRITE);
    run_turns(FUTILE_MOST - 10, true);
    reactor_remove(reactor, &peer->handler);
    add(peer, REACTOR_WRITE);
    run_turns(FUTILE_MOST - 10, true);
    expect_silence();
}
END_TEST

static void then_hear_sometimes(struct peer *peer, unsigned events)
{
    (void)events;
    if (peer->calls % (FUTILE_MOST / 2) == 0)
        (void)hear(peer, 1);
}

START_TEST(busy_no_more)
{
    begin();
    capture_messages();
    struct peer *peer = add_connection(REACTOR_READ);
    say(peer, 10);
    peer->then = then_hear_sometimes;
    run_turns(5 * FUTILE_MOST, true);
    expect_silence();
}
END_TEST

static void then_hear_one(struct peer *peer, unsigned events)
{
    (void)events;
    (void)hear(peer, 1);
}

START_TEST(slow_reader)
{
    begin();
    capture_messages();
    struct peer *peers[] = {add_connection(REACTOR_READ), add_pair(REACTOR_READ)};
    for (int i = 0; i < 2; i++) {
        say(peers[i], 4 * FUTILE_MOST);
        peers[i]->then = then_hear_one;
    }
    run_turns(4 * FUTILE_MOST, true);
    expect_nothing();
    expect_silence();
}
END_TEST

static void then_say_one(struct peer *peer, unsigned events)
{
    (void)events;
    if (write(peer->handler.fd, "", 1) < 0)
        want(peer, 0);
}

START_TEST(slow_writer)
{
    begin();
    capture_messages();
    struct peer *peers[] = {add_connection(REACTOR_WRITE), add_pair(REACTOR_WRITE)};
    const int small = 1; /* as small as it can be, so that soon nothing is sent, and only kept */
    setsockopt(peers[0]->other, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    peers[0]->then = peers[1]->then = then_say_one;
    run_turns(20 * FUTILE_MOST, true);
    expect_silence();
}
END_TEST

static void then_accept_one(struct peer *peer, unsigned events)
{
    (void)events;
    close(accept(peer->handler.fd, NULL, NULL));
}

START_TEST(slow_acceptor)
{
    enum { WAITING = 10, CLIENTS = 2 * FUTILE_MOST };
    struct sockaddr_in address;
    static int clients[CLIENTS];

    begin();
    capture_messages();
    struct peer *peer = new_peer(open_listener(&address), -1);
    peer->then = then_accept_one;
    add(peer, REACTOR_READ);
    for (int i = 0; i < CLIENTS; i++) { /* there are always as many, but not the same ones */
        clients[i] = connect_to(&address);
        if (i >= WAITING)
            turn_now();
    }
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
    expect_silence();
}
END_TEST

static int passes; /* of the ball */

/* Takes the ball, and passes it on. */
static void then_return_ball(struct peer *peer, unsigned events)
{
    char ball[64];
    (void)events;
    if (read(peer->handler.fd, ball, sizeof ball) == (ssize_t)sizeof ball) {
        passes++;
        if (write(peer->handler.fd, ball, sizeof ball) != (ssize_t)sizeof ball)
            ck_abort_msg("write: %s", strerror(errno));
    }
}

START_TEST(ping_pong)
{
    enum { PASSES = 10000 };

    begin();
    capture_messages();
    for (int i = 0; i < 2; i++) {
        struct peer *peer = i == 0 ? new_connection() : new_pair();
        struct peer *partner = new_peer(peer->other, -1);
        peer->other = -1;
        peer->then = partner->then = then_return_ball;
        add(peer, REACTOR_READ);
        add(partner, REACTOR_READ);
        char ball[64] = {0};
        ck_assert_int_eq(write(peer->handler.fd, ball, sizeof ball), sizeof ball);
        for (passes = 0; passes < PASSES;)
            turn();
        drop(peer);
        drop(partner);
    }
    expect_silence();
}
END_TEST

static void then_count_datagram(struct peer *peer, unsigned events)
{
    (void)events;
    passes += hear(peer, 100) == 5;
    (void)write(peer->other, "hello", 5); /* there is always one more, of the same size */
}

START_TEST(datagrams)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    int other = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

    begin();
    capture_messages();
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    ck_assert_int_eq(connect(other, (struct sockaddr *)&address, size), 0);
    struct peer *peer = new_peer(fd, other);
    peer->then = then_count_datagram;
    add(peer, REACTOR_READ);
    ck_assert_int_eq(write(other, "hello", 5), 5);
    ck_assert_int_eq(write(other, "hello", 5), 5);
    while (passes < 2 * FUTILE_MOST)
        turn();
    expect_silence();
}
END_TEST

START_TEST(busy_poster)
{
    static struct task task = {.then = then_post_again};

    begin();
    capture_messages();
    post(&task);
    run_turns(2 * FUTILE_MOST, true);
    ck_assert_uint_eq(task.calls, 2 * FUTILE_MOST);
    expect_silence();
}
END_TEST

/* ---- the list ---- */

START_TEST(found_by_name)
{
    static const char *const names[] = {"select", "poll", "epoll", "kqueue"};
    size_t count = 0;

    while (demultiplexers[count] != NULL)
        count++;
    ck_assert_uint_ge(count, 2);
    ck_assert_ptr_eq(demultiplexer_find(NULL), demultiplexers[0]);
    for (size_t i = 0; i < count; i++)
        ck_assert_ptr_eq(demultiplexer_find(demultiplexers[i]->name), demultiplexers[i]);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct demultiplexer *found = demultiplexer_find(names[i]);
        if (i < 2)
            ck_assert_ptr_nonnull(found);
        if (found != NULL)
            ck_assert_str_eq(found->name, names[i]);
    }
    ck_assert_ptr_null(demultiplexer_find("devpoll"));
    ck_assert_ptr_null(demultiplexer_find(""));
    ck_assert_ptr_null(demultiplexer_find("sel"));
}
END_TEST

/* ---- the tests ---- */

struct library_test {
    const char *only; /* for this demultiplexer; NULL: for each */
    struct tap_test test;
};

/* Adds the test, under a name that begins with that of the demultiplexer: begin() reads it there. */
static void add_test(struct tap_test *tests, size_t count, const struct tap_test *test,
                     const char *demultiplexer)
{
    static TTest functions[1000];
    static char names[1000][120];

    if (count == sizeof names / sizeof *names)
        abort();
    snprintf(names[count], sizeof names[count], "%s: %s", demultiplexer, test->name);
    functions[count] = *test->test;
    functions[count].name = names[count];
    tests[count] = *test;
    tests[count].name = names[count];
    tests[count].test = &functions[count];
}

int main(void)
{
    const struct library_test library_tests[] = {
        {NULL,
         {"READ when something has come", told_read, "no event, then READ, and none when it has been read",
          "the events were mixed up", API}},
        {NULL,
         {"WRITE while there is room", told_write, "WRITE, none when the buffers are full, and WRITE again",
          "the events were mixed up", API}},
        {NULL,
         {"READ and WRITE together", told_both, "both in one turn, and each alone",
          "only one of the two was looked at", API}},
        {NULL,
         {"only what is wanted is told", told_what_is_wanted, "READ or WRITE, as the handler wants just now",
          "a change did not reach the demultiplexer, or an event was passed on as it came", PIECES}},
        {NULL,
         {"what is left undone is told again", told_again, "READ in each turn, until the last byte is read",
          "registered edge-triggered (EPOLLET, EV_CLEAR)", PIECES}},
        {NULL,
         {"a hang-up is told as what is wanted", told_hang_up,
          "READ, WRITE or both, as wanted, after a close and after a reset",
          "EPOLLHUP and EPOLLERR stand alone, without EPOLLIN, or POLLERR was not looked at", PIECES}},
        {NULL,
         {"both ends of a pipe", told_pipe,
          "READ at the end of what was written, WRITE when nobody reads any more",
          "POLLHUP alone is what the end of a pipe looks like, and POLLERR a pipe without a reader", PIECES}},
        {NULL,
         {"a half-close is an end to read, and not to write", told_half_close,
          "READ for the end, and then WRITE alone", "a FIN was taken for a hang-up", WILD}},
        {NULL,
         {"a connection that is refused", told_refused, "WRITE, and the next call says why",
          "POLLERR was not looked at", API}},
        {NULL, {"READ of a listening socket", told_accept, "READ while somebody waits", "see: READ", API}},
        {NULL,
         {"a handler that wants nothing costs nothing", silent_without_wish,
          "nothing is found, even if its client has hung up",
          "it is still watched, for no events: but errors are always told, and the loop spins", WILD}},
        {NULL,
         {"two descriptors of one file", duplicates,
          "each is told of what its handler wants, and none when it is removed",
          "it was left to close() to end the watching, but the file is still open under another number",
          PIECES}},
        {NULL,
         {"a number that is used again is another descriptor", number_again,
          "only what the new handler wants", "something of the old descriptor stayed in the demultiplexer",
          WILD}},
        {NULL,
         {"3,000 random steps, as poll(2) sees them", random_steps,
          "in each turn, each handler is told of what poll() says at that moment",
          "a case that the other tests do not know", PIECES}},

        {NULL,
         {"a handler removes itself, and is freed", removes_itself, "each is called once",
          "the loop looks at a handler after it has called it", PIECES}},
        {NULL,
         {"a handler removes another later in the batch", removes_another, "one of the two is called",
          "the batch holds pointers to handlers, and one of them is free by then", WILD}},
        {NULL,
         {"a handler drops what another wants in the batch", drops_what_another_wants,
          "one of the two is called", "the event was passed on as it came", PIECES}},
        {NULL,
         {"a number is used again in the batch", number_again_in_batch,
          "the new handler is not told of what has happened to the old one",
          "an event is matched by its descriptor alone, and not by its generation", WILD}},
        {NULL,
         {"a handler adds many", adds_many,
          "all are told in the next turn, or in two if a batch holds fewer, though the table has moved",
          "a pointer into the table was kept over the call of a handler", PIECES}},
        {NULL,
         {"a handler is removed and registered again in the batch", registers_again_in_batch,
          "from then on it is told of what it wants now", "the wish that it had before stayed", PIECES}},
        {NULL,
         {"a handler changes what another wants", wishes_in_batch, "WRITE in the next turn",
          "changes are applied only for the handler that was called", PIECES}},
        {NULL, {"a handler stops the loop", stops_from_handler, "reactor_run() returns 0", "see: stop", API}},

        {NULL,
         {"registering twice is refused", registers_twice, "EEXIST, and the first one is told as before",
          "the second handler took the place of the first, or its wishes", API}},
        {NULL,
         {"registering no descriptor is refused", registers_no_descriptor, "EBADF",
          "the number is an index into a table", API}},
        {NULL,
         {"registering without memory leaves nothing", registers_without_memory,
          "ENOMEM, whatever allocation fails; then it succeeds",
          "the table was lost, or the descriptor is watched without a handler", PIECES}},
        {NULL,
         {"registering that the demultiplexer refuses leaves nothing", refused_at_once,
          "its errno, and nobody is told", "the handler was noted before the demultiplexer was asked",
          PIECES}},
        {NULL,
         {"a change that the demultiplexer refuses", refused_later, "REACTOR_CLOSE, to those concerned",
          "the error was dropped: the handler waits for ever", PIECES}},
        {NULL,
         {"a change that is refused, and the handler stays", refused_and_stays,
          "REACTOR_CLOSE once, and then the events that it had before",
          "it is tried again at once, and for ever; or taken for done", PIECES}},
        {NULL,
         {"descriptor FD_SETSIZE - 1", last_of_set, "it is served",
          "the last one of a set was refused, or is not looked at", PIECES}},
        {NULL,
         {"descriptor FD_SETSIZE", past_set, "select: ERANGE, or REACTOR_CLOSE; others serve it",
          "FD_SET() wrote past the end of the set", WILD}},
        {"epoll",
         {"a file is refused", cannot_be_watched, "EPERM, or REACTOR_CLOSE when it is wanted later",
          "the result of epoll_ctl() was not looked at", API}},
        {"kqueue",
         {"a change that the kernel refuses", change_is_refused, "REACTOR_CLOSE, and others are served",
          "EV_ERROR was taken for an event, or for an error of the loop", PIECES}},

        {"epoll",
         {"a wish that is taken back costs no system call", unchanged_costs_nothing,
          "one epoll_ctl() for each change that is left at the end of a turn",
          "epoll_ctl() in each reactor_want()", PIECES}},
        {"kqueue",
         {"changes go along with the wait", changes_go_along, "one kevent() a turn",
          "a kevent() for each change", PIECES}},
        {NULL,
         {"removed before the loop has waited", noted_changes_are_struck_out,
          "nothing of it reaches the kernel, where its number may be another file's by then",
          "the change was left in the list that goes along with the next wait", PIECES}},
        {"kqueue",
         {"a wait that fails has taken the changes", failed_wait_has_taken_changes,
          "WRITE, as if it had not failed", "the changes are handed over twice: what is deleted is not there",
          PIECES}},

        {NULL,
         {"more are ready than a batch holds", more_than_a_batch,
          "in so many turns as everybody could be called in, everybody is; and in ten, all about as often",
          "the demultiplexer always begins to look at the first one", PIECES}},
        {NULL,
         {"many are ready for READ and WRITE at once", crowd_with_two_events,
          "in so many turns as everybody could be called in, everybody is; and in ten, all about as often",
          "who had no room for both events in one batch is told of the same ones again in the next", PIECES}},
        {NULL,
         {"a crowd does not keep a work waiting", crowd_and_post, "it runs within three turns",
          "see: more are ready than a batch holds", PIECES}},
        {NULL,
         {"one is removed, and the others keep theirs", moved_entries,
          "each of the others is told of what it wants",
          "the last entry of an array went into the gap, and a change of it goes to where it was", PIECES}},

        {NULL,
         {"a signal that interrupts the wait", interrupted, "the loop goes on",
          "EINTR was taken for an error", WILD}},
        {NULL,
         {"a wait that fails", wait_fails,
          "for want of memory it is tried again; other errors end reactor_run()",
          "a server ends because the machine was short of memory for a moment", PIECES}},

        {NULL,
         {"timers expire in order", timer_order, "each once, in the order of their times, not too early",
          "see unit_timers", PIECES}},
        {NULL,
         {"a timer expires once", timer_once, "once, and then the loop waits for ever",
          "it stayed in the heap, or the loop goes on to wake for it", API}},
        {NULL,
         {"a timer is set again when it has expired", timer_again_in_expired, "five times, 2 ms apart",
          "its place was not given back before it was called", API}},
        {NULL,
         {"a timer that is set for at once by itself", timer_at_once_in_expired,
          "once a turn: others have their turns in between",
          "expired timers are called until there is none, and there is always one", PIECES}},
        {NULL,
         {"a timer cancels another that is due", timer_cancels_another, "one of the two expires",
          "those that are due were collected before they were called", PIECES}},
        {NULL,
         {"a timer that is cancelled", timer_cancelled, "it does not expire, and the loop waits for ever",
          "it was left in the heap", API}},
        {NULL,
         {"a timer that is put off at each message", timer_put_off,
          "not while messages come, but then at its time",
          "timers expire before events are dispatched; or the time that was set last is not looked at",
          PIECES}},
        {NULL,
         {"a timer that is wanted earlier", timer_earlier, "at the earlier time",
          "the loop sleeps until the time for which it was set first", PIECES}},
        {NULL,
         {"a timer in a hundred years", timer_far_away, "the loop waits for INT_MAX ms",
          "a number of milliseconds that does not fit an int", PIECES}},
        {NULL,
         {"a timer and an event in one turn", timer_and_event, "the event first, then the timer",
          "timers expire before events: a client is closed for its silence that has just spoken", PIECES}},
        {NULL,
         {"a timer that a handler sets", timer_set_by_handler, "it expires, though nothing else happens",
          "how long to wait was worked out before the handlers were called", PIECES}},
        {NULL,
         {"a timer is freed when it expires", timer_freed, "each once",
          "the loop looks at it after it has called it", PIECES}},
        {NULL, {"a timer without memory", timer_no_memory, "-1, and it is not set", "see unit_timers", API}},
        {NULL,
         {"the time is that of the turn", clock_in_turn, "not before the turn, and not in the future",
          "the clock is not looked at after the wait", API}},

        {NULL,
         {"works run in order, and wake once", post_in_order, "100 works, in order, after one byte",
          "the list is taken last first, and has to be turned round; or each post writes to the pipe",
          PIECES}},
        {NULL,
         {"a work from another thread wakes the loop", post_wakes, "it runs, in the thread of the loop",
          "nobody rings: the loop sleeps until something else happens", PIECES}},
        {NULL,
         {"a work that posts itself", post_from_work, "once a turn: others have their turns",
          "works are run until there is none, and there is always one", PIECES}},
        {NULL,
         {"a work that a handler or a timer posts", post_from_handler, "it runs in the turn after",
          "posted to a list that only other threads' posts wake", API}},
        {NULL,
         {"a work is freed when it runs", post_freed, "each once",
          "the next one was looked up in a work that is gone", PIECES}},
        {NULL,
         {"a work posted while the loop wakes", post_while_woken, "it runs in this turn or the next",
          "a lost wake-up: the list was taken before the pipe was emptied", PIECES}},
        {NULL,
         {"a work is noted before the bell rings", post_before_bell, "it runs, though the loop wakes at once",
          "the loop wakes, finds nothing, and sleeps again", PIECES}},
        {NULL,
         {"works of four threads", post_from_threads, "200,000, each once, those of a thread in order",
          "the list is not changed in one atomic step, or a wake-up was lost", PIECES}},
        {NULL,
         {"two loops, and works of four threads for both", two_loops, "each loop runs its own",
          "loops share something", PIECES}},

        {NULL,
         {"a signal is told in the loop", signal_in_loop,
          "once, in the next turn, and only to who asked for it",
          "called from the signal handler, where almost nothing is allowed", PIECES}},
        {NULL,
         {"a signal that comes five times", signal_coalesced, "told once", "each byte in the pipe counts",
          API}},
        {NULL,
         {"a signal wakes the loop", signal_wakes, "the loop stops",
          "it came just before the loop waited, and left no trace that ends the wait", PIECES}},
        {NULL,
         {"a signal that was blocked", signal_was_blocked, "it is told, once unblocked",
          "whoever started the program had it blocked, and that is inherited", PIECES}},
        {NULL,
         {"a signal as soon as it is caught", signal_at_once, "told in the next turn",
          "the handler was installed before it knew where to write", PIECES}},
        {NULL,
         {"a signal while the loop wakes", signal_while_woken, "told in this turn or the next",
          "a lost signal: the notes were looked at before the pipe was emptied", PIECES}},
        {NULL,
         {"a signal is noted before the bell rings", signal_before_bell,
          "it is told, though the loop wakes at once", "the loop wakes, finds nothing, and sleeps again",
          PIECES}},
        {NULL,
         {"a signal that two reactors ask for", signal_of_two,
          "told to the last that asked, also after the "
          "other has been destroyed",
          "whoever looks first takes it; or the first one gives back what it has no more", API}},
        {NULL,
         {"a signal that is handed over", signal_handed_over,
          "one that is noted by then is told to the new one", "the note is there, but nobody rings", PIECES}},
        {NULL,
         {"a signal is given back", signal_given_back,
          "its default action; and the next reactor is told of nothing that came before it",
          "the action, or the note, was left as it was", API}},
        {NULL,
         {"a signal that cannot be caught", signal_that_cannot_be, "EINVAL for 0, 65, SIGKILL, SIGSTOP",
          "the number is an index into a table", API}},
        {NULL,
         {"a signal while the pipe is full", signal_pipe_full,
          "it does not wait, keeps errno, and is told once", "the writing end is in blocking mode", PIECES}},

        {NULL,
         {"stop: all are told, ten times a second", stop_told_to_all,
          "REACTOR_STOP, also to who wants nothing, until they have gone",
          "only those with an event hear of it; or they are told in each turn", PIECES}},
        {NULL,
         {"stop: events are told as before", stop_goes_on_serving, "READ, in between",
          "what is still owed cannot be sent any more", PIECES}},
        {NULL,
         {"stop: who is registered during it is told, too", stop_and_newcomer, "REACTOR_STOP",
          "it is told once, and to those who are there", PIECES}},
        {NULL,
         {"stop: REACTOR_CLOSE when the grace is over", stop_grace_over,
          "once, to each that is still there; and the loop ends, though one stays",
          "a client that does not read keeps the program from ending", PIECES}},
        {NULL,
         {"stop: without grace", stop_without_grace, "REACTOR_CLOSE, and the end", "0 was taken for no limit",
          API}},
        {NULL,
         {"stop: a second call changes nothing", stop_twice, "neither the grace nor the next STOP",
          "an impatient user sends SIGTERM again and again, and nobody is told the rest", API}},
        {NULL,
         {"stop: before the loop runs", stop_before_run, "reactor_run() returns at once, without waiting",
          "the wake-up's own handler was counted; or a timer keeps the loop", API}},
        {NULL,
         {"stop: a handler removes another that would be told", stop_and_removal, "one of the two is told",
          "handlers were collected before they were called", PIECES}},
        {NULL,
         {"stop: from a timer, a work, and a signal", stop_from_anywhere, "the loop ends", "see: stop", API}},

        {NULL,
         {"create: out of descriptors", create_without_descriptors,
          "EMFILE, whatever fails, and nothing stays open", "one end of the pipe stays open", PIECES}},
        {NULL,
         {"create: out of memory", create_without_memory, "ENOMEM, whatever fails, and nothing is left",
          "what had been made before was not freed", PIECES}},
        {NULL,
         {"destroy: nobody is called", destroy_forgets, "handlers, timers and works are forgotten",
          "they were told, or their descriptors closed", API}},
        {NULL,
         {"destroy: gives everything back", many_reactors, "as many descriptors as before",
          "the pipe, or the demultiplexer's descriptor, stays open", PIECES}},
        {NULL,
         {"its descriptors are not inherited", not_inherited, "all are closed on exec",
          "a program that is started keeps the pipe open", PIECES}},

        {NULL,
         {"busy wait: room to send, and nothing to be sent", busy_writer, "one line with the handler's name",
          "WRITE was left on after the last byte had been sent", PIECES}},
        {NULL,
         {"busy wait: bytes that nobody reads", busy_reader, "one line with the handler's name",
          "READ was left on while there is no buffer", PIECES}},
        {NULL,
         {"busy wait: an acceptor that does not accept", busy_acceptor, "one line with the handler's name",
          "out of descriptors, and the listening socket is still watched", WILD}},
        {NULL,
         {"busy wait: each handler counts anew", busy_and_new, "no line",
          "the count stayed when the handler had gone", PIECES}},
        {NULL,
         {"busy wait: a byte now and then", busy_no_more, "no line", "not in a row, but in all", PIECES}},
        {NULL,
         {"no busy wait: a slow reader", slow_reader, "no line, at one byte a turn",
          "only the number of events was counted", PIECES}},
        {NULL,
         {"no busy wait: a slow writer", slow_writer, "no line, at one byte a turn, sent or only kept",
          "what the kernel has taken, and could not send yet, was not counted", PIECES}},
        {NULL,
         {"no busy wait: a slow acceptor", slow_acceptor, "no line, at one client a turn",
          "who waits was compared with the turn before", PIECES}},
        {NULL,
         {"no busy wait: 10,000 messages to and fro", ping_pong, "no line",
          "bytes that wait are as many as before: others have come", PIECES}},
        {NULL,
         {"no busy wait: datagrams of one size", datagrams, "no line", "FIONREAD is the size of the next one",
          PIECES}},
        {NULL,
         {"no busy wait: a work in every turn", busy_poster, "no line",
          "a byte waits in the wake-up's pipe each time: another one", PIECES}},
    };
    const struct tap_test other_tests[] = {
        {"scripted: a batch is dispatched in its order", script_order, "3, 0, 4, 1, 2; and room for 256",
         "sorted, or from the end", PIECES},
        {"scripted: only what is wanted, and REACTOR_CLOSE always", script_events,
         "READ, WRITE, or both; none of what is not wanted", "the event was passed on as it came", PIECES},
        {"scripted: a handler removes a later one", script_removes_later_one,
         "the second is not called, the third is", "the batch holds pointers to handlers", WILD},
        {"scripted: a handler removes an earlier one", script_removes_earlier_one, "both have been called",
         "something of a handler was kept over the batch", PIECES},
        {"scripted: an event of an older generation", script_stale,
         "the new handler is told only of its own; also after 300 others",
         "an event is matched by its descriptor alone; or the generation has too few bits", WILD},
        {"scripted: a handler drops what a later one wants", script_silenced_later_one,
         "the second is not called", "the event was passed on as it came", PIECES},
        {"scripted: changes are told once, after the batch", script_changes_once,
         "one change, and none for who comes back to what it had",
         "the demultiplexer is told in each reactor_want()", PIECES},
        {"scripted: from what, to what", script_wishes_before_and_after,
         "each change goes on from the one before; who was removed is not heard of again",
         "a wish of the handler that had the number before stayed in the list", PIECES},
        {"scripted: many wishes in one turn", script_many_wishes, "40 changes, and then 20",
         "the list is too short, or was not moved along when the table grew", PIECES},
        {"demux: found by name", found_by_name, "each by its own, the first for NULL, and none else",
         "a part of a name was taken for it", API},
    };
    enum { LIBRARY = sizeof library_tests / sizeof *library_tests, DEMULTIPLEXERS_MOST = 8 };
    static struct tap_test tests[LIBRARY * DEMULTIPLEXERS_MOST];
    size_t count = 0;

    for (size_t i = 0; i < sizeof other_tests / sizeof *other_tests; i++)
        tests[count++] = other_tests[i];
    for (size_t i = 0; demultiplexers[i] != NULL; i++) {
        const char *name = demultiplexers[i]->name;
        for (size_t j = 0; j < LIBRARY; j++) {
            if (library_tests[j].only == NULL || strcmp(library_tests[j].only, name) == 0) {
                add_test(tests, count, &library_tests[j].test, name);
                count++;
            }
        }
    }
    return tap_run("", tests, count);
}
