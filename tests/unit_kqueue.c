/* unit_kqueue.c - unit tests of kqueue_linux.c, each filter and each flag.
 *
 * kqueue_linux.c is compiled here exactly as for the server. What it watches are
 * real sockets, pipes, files, timers, signals and processes. The linker (--wrap)
 * sends its epoll calls and its ioctl() to this file, which counts them.
 * Needs Linux, and a linker with --wrap (GNU ld, gold, lld). */
#define _GNU_SOURCE /* accept4, pipe2 */

#include <sys/event.h>

#include "harness.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHAPTER "the book, chapter 5, "
#define API CHAPTER "\"The API\""
#define PIECES CHAPTER "\"The server, piece by piece\""
#define WILD CHAPTER "\"Found in the wild\""

enum { MANY = 64 };

/* ---- what kqueue_linux.c calls ---- */

static atomic_uint epoll_waits, epoll_ctls, ioctls;
static int next_epoll_error; /* the next epoll_ctl() fails with this, if not 0 */

int __real_epoll_wait(int epoll, struct epoll_event *events, int size, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int size, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int size, int timeout)
{
    epoll_waits++;
    return __real_epoll_wait(epoll, events, size, timeout);
}

int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    epoll_ctls++;
    if (next_epoll_error != 0) {
        errno = next_epoll_error;
        next_epoll_error = 0;
        return -1;
    }
    return __real_epoll_ctl(epoll, operation, fd, event);
}

int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
    ioctls++;
    return __real_ioctl(fd, request, argument);
}

/* ---- the queue ---- */

static int kq;                     /* the queue of most tests */
static struct kevent events[MANY]; /* what came last */
static char mark, mark2;           /* two addresses for udata */

static const struct timespec AT_ONCE = {.tv_sec = 0};
static const struct timespec LONG = {.tv_sec = 20}; /* for the failure only */

static void open_queue(void)
{
    kq = kqueue();
    ck_assert_msg(kq >= 0, "kqueue: %s", strerror(errno));
}

static struct kevent event(long long ident, int filter, unsigned flags)
{
    return (struct kevent){
        .ident = (uintptr_t)ident, .filter = (short)filter, .flags = (unsigned short)flags};
}

/* Hands over one change, in a call that does nothing else. Returns 0 or an errno. */
static int try_change(struct kevent change)
{
    int result = kevent(kq, &change, 1, NULL, 0, NULL);
    ck_assert_int_le(result, 0);
    return result < 0 ? errno : 0;
}

static void change(struct kevent change)
{
    int error = try_change(change);
    ck_assert_msg(error == 0, "ident %d, filter %d, flags 0x%x: %s", (int)change.ident, change.filter,
                  change.flags, strerror(error));
}

static void change_flags(long long ident, int filter, unsigned flags)
{
    change(event(ident, filter, flags));
}

static void change_notes(long long ident, int filter, unsigned flags, unsigned notes, long long data)
{
    struct kevent with_notes = event(ident, filter, flags);
    with_notes.fflags = notes;
    with_notes.data = data;
    change(with_notes);
}

/* What can be had at once, or after a while if there is nothing yet. */
static int fetch(int queue, int most, const struct timespec *timeout)
{
    memset(events, 0, sizeof events);
    int count = kevent(queue, NULL, 0, events, most, timeout);
    ck_assert_msg(count >= 0, "kevent: %s", strerror(errno));
    return count;
}

static void expect_nothing(void)
{
    int count = fetch(kq, MANY, &AT_ONCE);
    ck_assert_msg(
        count == 0, "%d events, the first with ident %d, filter %d, flags 0x%x, fflags 0x%x, data %d", count,
        (int)events[0].ident, events[0].filter, events[0].flags, events[0].fflags, (int)events[0].data);
}

/* Waits for events, which must be this one alone. */
static struct kevent expect(long long ident, int filter)
{
    int count = fetch(kq, MANY, &LONG);
    ck_assert_msg(count == 1, "%d events, and not one", count);
    ck_assert_int_eq(events[0].filter, filter);
    ck_assert_int_eq((long long)events[0].ident, ident);
    ck_assert_msg((events[0].flags & EV_ERROR) == 0, "an EV_ERROR: %s", strerror((int)events[0].data));
    return events[0];
}

static void expect_data(long long ident, int filter, long long data)
{
    ck_assert_int_eq(expect(ident, filter).data, data);
}

static bool is_readable(int fd)
{
    struct pollfd now = {.fd = fd, .events = POLLIN};
    return poll(&now, 1, 0) == 1 && (now.revents & POLLIN) != 0;
}

/* ---- what is watched ---- */

static int here, there; /* two ends: of a TCP connection, or of a pipe (here is read) */

/* A listening socket on loopback, and its address. */
static int open_listener(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

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

static void open_connection(void)
{
    struct sockaddr_in address;
    int listener = open_listener(&address);
    there = connect_to(&address);
    here = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (here < 0)
        ck_abort_msg("accept: %s", strerror(errno));
    close(listener);
}

/* A connection whose `here` has this number. */
static void open_connection_at(int number)
{
    open_connection();
    if (there == number)
        there = dup(there);
    if (here != number) {
        ck_assert_int_eq(dup2(here, number), number);
        close(here);
        here = number;
    }
}

static void open_pipe(void)
{
    int ends[2];
    if (pipe2(ends, O_NONBLOCK) < 0)
        ck_abort_msg("pipe: %s", strerror(errno));
    here = ends[0];
    there = ends[1];
}

/* There says so many bytes, and they arrive. */
static void say(int size)
{
    char bytes[4096] = {0};
    int before = 0;
    int now = 0;
    ck_assert_int_eq(__real_ioctl(here, FIONREAD, &before), 0);
    ck_assert_int_eq(write(there, bytes, (size_t)size), size);
    if (!eventually(__real_ioctl(here, FIONREAD, &now) == 0 && now == before + size))
        ck_abort_msg("%d bytes did not arrive", size);
}

static void hear(int size)
{
    char bytes[4096];
    ck_assert_int_eq(read(here, bytes, (size_t)size), size);
}

/* Waits until poll() sees these on `here`: without kqueue. */
static void wait_for(short what)
{
    struct pollfd now = {.fd = here, .events = what};
    if (poll(&now, 1, 20000) != 1)
        ck_abort_msg("it did not arrive");
}

static void close_with_reset(int fd)
{
    const struct linger now = {.l_onoff = 1};
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(fd);
}

/* Writes to fd until it takes no more. */
static void fill(int fd)
{
    static char bytes[65536];
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    while (write(fd, bytes, sizeof bytes) > 0)
        continue;
    while (write(fd, bytes, 1) > 0)
        continue;
    ck_assert_int_eq(errno, EAGAIN);
}

static char folder[64]; /* a new one */
static char path[128], other_path[128];
static int file;

static void open_file(void)
{
    snprintf(folder, sizeof folder, "/tmp/unit_kqueue.XXXXXX");
    if (mkdtemp(folder) == NULL)
        ck_abort_msg("%s: %s", folder, strerror(errno));
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(other_path, sizeof other_path, "%s/other", folder);
    file = open(path, O_RDWR | O_CREAT, 0600);
    if (file < 0 || write(file, "hello", 5) != 5)
        ck_abort_msg("%s: %s", path, strerror(errno));
}

static void remove_file(void)
{
    char subfolder[128];
    snprintf(subfolder, sizeof subfolder, "%s/sub", folder);
    rmdir(subfolder);
    unlink(path);
    unlink(other_path);
    rmdir(folder);
}

/* How many descriptors this process has. */
static int descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Lets so many milliseconds pass, on a timer of a queue of its own. */
static void let_pass(int milliseconds)
{
    struct kevent timer = event(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT);
    int clock = kqueue();
    timer.data = milliseconds;
    ck_assert_int_eq(kevent(clock, &timer, 1, &timer, 1, &LONG), 1);
    close(clock);
}

/* ---- READ ---- */

START_TEST(read_level)
{
    open_queue();
    open_connection();
    change_flags(here, EVFILT_READ, EV_ADD);
    expect_nothing();
    say(3);
    expect_data(here, EVFILT_READ, 3);
    expect_data(here, EVFILT_READ, 3);
    say(4);
    expect_data(here, EVFILT_READ, 7);
    hear(5);
    expect_data(here, EVFILT_READ, 2);
    hear(2);
    expect_nothing();
}
END_TEST

START_TEST(read_clear)
{
    open_queue();
    open_connection();
    change_flags(here, EVFILT_READ, EV_ADD | EV_CLEAR);
    say(3);
    expect_data(here, EVFILT_READ, 3);
    expect_nothing();
    say(2);
    expect_data(here, EVFILT_READ, 5);
    expect_nothing();
}
END_TEST

START_TEST(read_present)
{
    open_queue();
    open_connection();
    say(3);
    struct kevent add = event(here, EVFILT_READ, EV_ADD | EV_CLEAR);
    ck_assert_msg(kevent(kq, &add, 1, events, MANY, &AT_ONCE) == 1,
                  "what was there before EV_ADD was not told");
    ck_assert_int_eq(events[0].data, 3);
}
END_TEST

START_TEST(read_end_behind_data)
{
    open_queue();
    open_connection();
    change_flags(here, EVFILT_READ, EV_ADD);
    say(6);
    ck_assert_int_eq(shutdown(there, SHUT_WR), 0);
    wait_for(POLLRDHUP);
    struct kevent got = expect(here, EVFILT_READ);
    ck_assert_msg((got.flags & EV_EOF) != 0, "no EV_EOF");
    ck_assert_int_eq(got.data, 6);
    ck_assert_int_eq(got.fflags, 0);
    hear(6);
    got = expect(here, EVFILT_READ);
    ck_assert_msg((got.flags & EV_EOF) != 0, "no EV_EOF");
    ck_assert_int_eq(got.data, 0);
}
END_TEST

START_TEST(read_reset)
{
    open_queue();
    open_connection();
    change_flags(here, EVFILT_READ, EV_ADD);
    close_with_reset(there);
    wait_for(0);
    for (int i = 0; i < 2; i++) {
        struct kevent got = expect(here, EVFILT_READ);
        ck_assert_msg((got.flags & EV_EOF) != 0, "no EV_EOF");
        ck_assert_int_eq(got.fflags, ECONNRESET);
    }
}
END_TEST

START_TEST(read_listener)
{
    struct sockaddr_in address;
    open_queue();
    here = open_listener(&address);
    change_flags(here, EVFILT_READ, EV_ADD);
    expect_nothing();
    for (int i = 1; i <= 3; i++)
        connect_to(&address);
    for (int i = 3; i > 0; i--) {
        expect_data(here, EVFILT_READ, i);
        ck_assert_int_ge(accept(here, NULL, NULL), 0);
    }
    expect_nothing();
}
END_TEST

START_TEST(read_pipe)
{
    open_queue();
    open_pipe();
    change_flags(here, EVFILT_READ, EV_ADD);
    say(5);
    struct kevent got = expect(here, EVFILT_READ);
    ck_assert_int_eq(got.data, 5);
    ck_assert_int_eq(got.flags & EV_EOF, 0);
    close(there);
    got = expect(here, EVFILT_READ);
    ck_assert_int_eq(got.data, 5);
    ck_assert_int_ne(got.flags & EV_EOF, 0);
}
END_TEST

START_TEST(read_file)
{
    char bytes[16];
    open_queue();
    open_file();
    change_flags(file, EVFILT_READ, EV_ADD);
    expect_nothing();
    ck_assert_int_eq(lseek(file, 1, SEEK_SET), 1);
    change_flags(file, EVFILT_READ, EV_ADD);
    expect_data(file, EVFILT_READ, 4);
    expect_data(file, EVFILT_READ, 4);
    ck_assert_int_eq(read(file, bytes, sizeof bytes), 4);
    expect_nothing();
    int writer = open(path, O_WRONLY | O_APPEND);
    ck_assert_int_eq(write(writer, "more", 4), 4);
    expect_data(file, EVFILT_READ, 4);
    ck_assert_int_eq(lseek(file, 19, SEEK_SET), 19);
    expect_data(file, EVFILT_READ, -10);
    change_flags(file, EVFILT_READ, EV_DELETE);
    expect_nothing();
    remove_file();
}
END_TEST

START_TEST(read_file_poll)
{
    open_queue();
    open_file();
    change_notes(file, EVFILT_READ, EV_ADD, NOTE_FILE_POLL, 0);
    expect_data(file, EVFILT_READ, 0);
    change_flags(file, EVFILT_READ, EV_DISABLE);
    expect_nothing();
    change_flags(file, EVFILT_WRITE, EV_ADD);
    expect(file, EVFILT_WRITE);
    change_notes(file, EVFILT_READ, EV_ENABLE, NOTE_FILE_POLL, 0);
    change_flags(file, EVFILT_WRITE, EV_DELETE);
    expect(file, EVFILT_READ);
    remove_file();
}
END_TEST

START_TEST(read_lowat)
{
    open_queue();
    open_connection();
    change_notes(here, EVFILT_READ, EV_ADD, NOTE_LOWAT, 8);
    say(7);
    expect_nothing();
    say(1);
    expect_data(here, EVFILT_READ, 8);
}
END_TEST

/* ---- WRITE ---- */

START_TEST(write_room)
{
    open_queue();
    open_connection();
    change_flags(here, EVFILT_WRITE, EV_ADD);
    long long room = expect(here, EVFILT_WRITE).data;
    ck_assert_int_ge(room, 1024);
    char bytes[65536];
    ck_assert_int_eq(fcntl(there, F_SETFL, O_NONBLOCK), 0);
    fill(here);
    expect_nothing();
    if (!eventually(read(there, bytes, sizeof bytes) < 0 ? fetch(kq, 1, &AT_ONCE) == 1 : false))
        ck_abort_msg("there is room again, and no event");
    ck_assert_int_gt(events[0].data, 0);
}
END_TEST

START_TEST(write_pipe)
{
    open_queue();
    open_pipe();
    change_flags(there, EVFILT_WRITE, EV_ADD);
    long long room = expect(there, EVFILT_WRITE).data;
    ck_assert_int_eq(room, fcntl(there, F_GETPIPE_SZ));
    say(100);
    expect_data(there, EVFILT_WRITE, room - 100);
    close(here);
    ck_assert_int_ne(expect(there, EVFILT_WRITE).flags & EV_EOF, 0);
}
END_TEST

START_TEST(write_refused)
{
    struct sockaddr_in address;
    open_queue();
    close(open_listener(&address));
    here = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(connect(here, (struct sockaddr *)&address, sizeof address), -1);
    wait_for(POLLOUT);
    change_flags(here, EVFILT_WRITE, EV_ADD);
    struct kevent got = expect(here, EVFILT_WRITE);
    ck_assert_int_ne(got.flags & EV_EOF, 0);
    ck_assert_int_eq(got.fflags, ECONNREFUSED);
}
END_TEST

/* How many descriptors are registered in the queue's epoll, without its own. */
static int registrations(int fd)
{
    char name[64];
    char line[256];
    int count = 0;

    snprintf(name, sizeof name, "/proc/self/fdinfo/%d", kq);
    FILE *info = fopen(name, "r");
    if (info == NULL)
        ck_abort_msg("%s: %s", name, strerror(errno));
    while (fgets(line, sizeof line, info) != NULL) {
        int found;
        if (sscanf(line, "tfd: %d", &found) == 1 && found == fd)
            count++;
    }
    fclose(info);
    return count;
}

START_TEST(both_filters)
{
    open_queue();
    open_connection();
    say(2);
    change_flags(here, EVFILT_READ, EV_ADD);
    change_flags(here, EVFILT_WRITE, EV_ADD);
    ck_assert_int_eq(registrations(here), 1);
    ck_assert_int_eq(fetch(kq, MANY, &LONG), 2);
    ck_assert_int_eq(events[0].filter + events[1].filter, EVFILT_READ + EVFILT_WRITE);
    change_flags(here, EVFILT_WRITE, EV_DELETE);
    expect_data(here, EVFILT_READ, 2);
    change_flags(here, EVFILT_READ, EV_DELETE);
    ck_assert_int_eq(registrations(here), 0);
    expect_nothing();
}
END_TEST

START_TEST(both_modes)
{
    open_queue();
    open_connection();
    change_flags(here, EVFILT_READ, EV_ADD);
    change_flags(here, EVFILT_WRITE, EV_ADD | EV_CLEAR);
    expect(here, EVFILT_WRITE);
    expect_nothing();
    say(3);
    ck_assert_int_ge(fetch(kq, MANY, &LONG), 1);
    for (int i = 0; i < 3; i++)
        expect_data(here, EVFILT_READ, 3);
    ck_assert_msg(is_readable(kq), "poll() does not see what kevent() would report");
    hear(3);
    expect_nothing();
    say(1);
    ck_assert_int_ge(fetch(kq, MANY, &LONG), 1);
    change_flags(here, EVFILT_WRITE, EV_DELETE);
    expect_data(here, EVFILT_READ, 1);
}
END_TEST

/* ---- flags ---- */

START_TEST(oneshot)
{
    open_queue();
    open_connection();
    say(1);
    change_flags(here, EVFILT_READ, EV_ADD | EV_ONESHOT);
    expect(here, EVFILT_READ);
    expect_nothing();
    ck_assert_int_eq(try_change(event(here, EVFILT_READ, EV_DELETE)), ENOENT);
    change_flags(1, EVFILT_USER, EV_ADD | EV_ONESHOT);
    change_notes(1, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    expect(1, EVFILT_USER);
    ck_assert_int_eq(try_change(event(1, EVFILT_USER, EV_DELETE)), ENOENT);
    change_notes(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1);
    expect(1, EVFILT_TIMER);
    ck_assert_int_eq(try_change(event(1, EVFILT_TIMER, EV_DELETE)), ENOENT);
}
END_TEST

START_TEST(dispatch)
{
    open_queue();
    open_connection();
    say(1);
    change_flags(here, EVFILT_READ, EV_ADD | EV_DISPATCH);
    expect(here, EVFILT_READ);
    expect_nothing();
    say(1);
    expect_nothing();
    change_flags(here, EVFILT_READ, EV_ENABLE);
    expect_data(here, EVFILT_READ, 2);
    expect_nothing();
    change_flags(1, EVFILT_USER, EV_ADD | EV_DISPATCH | EV_CLEAR);
    change_notes(1, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    expect(1, EVFILT_USER);
    change_notes(1, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    expect_nothing();
    change_flags(1, EVFILT_USER, EV_ENABLE);
    expect(1, EVFILT_USER);
}
END_TEST

START_TEST(disable)
{
    open_queue();
    open_connection();
    change_flags(here, EVFILT_READ, EV_ADD | EV_DISABLE);
    say(1);
    expect_nothing();
    change_flags(here, EVFILT_READ, EV_ENABLE);
    expect(here, EVFILT_READ);
    change_flags(here, EVFILT_READ, EV_DISABLE);
    expect_nothing();
    close_with_reset(there); /* an error, which epoll tells of an empty mask, too */
    wait_for(0);
    expect_nothing();
    ck_assert_msg(!is_readable(kq), "poll() sees something");
    change_flags(here, EVFILT_READ, EV_ADD);
    expect(here, EVFILT_READ);
}
END_TEST

START_TEST(disable_pending)
{
    open_queue();
    change_flags(1, EVFILT_USER, EV_ADD | EV_CLEAR);
    change_notes(1, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    change_flags(1, EVFILT_USER, EV_DISABLE);
    ck_assert_msg(!is_readable(kq), "poll() sees an event that is disabled");
    expect_nothing();
    change_flags(1, EVFILT_USER, EV_ENABLE);
    expect(1, EVFILT_USER);
    expect_nothing();
}
END_TEST

START_TEST(receipt)
{
    open_queue();
    open_connection();
    say(1);
    struct kevent changes[] = {event(here, EVFILT_READ, EV_ADD | EV_RECEIPT),
                               event(here, EVFILT_WRITE, EV_ADD | EV_RECEIPT)};
    changes[1].udata = &mark;
    ck_assert_msg(kevent(kq, changes, 2, events, MANY, &LONG) == 2, "pending events were fetched as well");
    for (int i = 0; i < 2; i++) {
        ck_assert_int_ne(events[i].flags & EV_ERROR, 0);
        ck_assert_int_eq(events[i].data, 0);
        ck_assert_int_eq(events[i].filter, changes[i].filter);
        ck_assert_ptr_eq(events[i].udata, changes[i].udata);
    }
    ck_assert_int_eq(fetch(kq, MANY, &LONG), 2);
}
END_TEST

START_TEST(receipt_without_room)
{
    open_queue();
    struct kevent changes[] = {event(1, EVFILT_USER, EV_ADD | EV_RECEIPT),
                               event(2, EVFILT_USER, EV_ADD | EV_RECEIPT), event(3, EVFILT_USER, EV_ADD)};
    ck_assert_int_eq(kevent(kq, changes, 3, events, 1, &LONG), 1);
    ck_assert_uint_eq(events[0].ident, 1);
    ck_assert_msg(try_change(event(3, EVFILT_USER, EV_ENABLE)) == ENOENT,
                  "a change after the one that could not be answered was applied");
}
END_TEST

START_TEST(error_with_room)
{
    open_queue();
    open_connection();
    say(1);
    struct kevent changes[] = {event(here, EVFILT_READ, EV_ADD), event(here, EVFILT_WRITE, EV_DELETE),
                               event(2, EVFILT_USER, EV_ADD)};
    changes[1].udata = &mark;
    ck_assert_int_eq(kevent(kq, changes, 3, events, MANY, &LONG), 1);
    ck_assert_int_ne(events[0].flags & EV_ERROR, 0);
    ck_assert_int_eq(events[0].data, ENOENT);
    ck_assert_int_eq((long long)events[0].ident, here);
    ck_assert_int_eq(events[0].filter, EVFILT_WRITE);
    ck_assert_ptr_eq(events[0].udata, &mark);
    change_flags(2, EVFILT_USER, EV_ENABLE); /* applied, although the one before it failed */
    expect(here, EVFILT_READ);
}
END_TEST

START_TEST(error_without_room)
{
    open_queue();
    struct kevent changes[] = {event(1, EVFILT_USER, EV_ADD), event(2, EVFILT_USER, EV_DELETE),
                               event(3, EVFILT_USER, EV_ADD)};
    ck_assert_int_eq(kevent(kq, changes, 3, NULL, 0, NULL), -1);
    ck_assert_int_eq(errno, ENOENT);
    change_flags(1, EVFILT_USER, EV_ENABLE);
    ck_assert_int_eq(try_change(event(3, EVFILT_USER, EV_ENABLE)), ENOENT);
}
END_TEST

START_TEST(same_array)
{
    open_queue();
    struct kevent both[] = {event(1, EVFILT_USER, EV_ADD), event(2, EVFILT_USER, EV_DELETE),
                            event(3, EVFILT_USER, EV_DELETE), event(4, EVFILT_USER, EV_ADD)};
    ck_assert_int_eq(kevent(kq, both, 4, both, 4, &LONG), 2);
    ck_assert_uint_eq(both[0].ident, 2);
    ck_assert_uint_eq(both[1].ident, 3);
    change_flags(4, EVFILT_USER, EV_ENABLE);
}
END_TEST

START_TEST(errors)
{
    open_queue();
    open_connection();
    int closed = dup(here);
    close(closed);
    ck_assert_int_eq(try_change(event(closed, EVFILT_READ, EV_ADD)), EBADF);
    ck_assert_int_eq(try_change(event(closed, EVFILT_VNODE, EV_ADD)), EBADF);
    ck_assert_int_eq(try_change(event(INT_MAX, EVFILT_READ, EV_ADD)), EBADF);
    ck_assert_int_eq(try_change(event(-1, EVFILT_READ, EV_ADD)), EBADF);
    ck_assert_int_eq(try_change(event(-1, EVFILT_WRITE, EV_DELETE)), EBADF);
    ck_assert_int_eq(try_change(event(here, EVFILT_READ, EV_DELETE)), ENOENT);
    ck_assert_int_eq(try_change(event(here, EVFILT_READ, EV_ENABLE)), ENOENT);
    ck_assert_int_eq(try_change(event(1, EVFILT_TIMER, EV_DELETE)), ENOENT);
    ck_assert_int_eq(try_change(event(here, 0, EV_ADD)), EINVAL);
    ck_assert_int_eq(try_change(event(here, 5, EV_ADD)), EINVAL);
    ck_assert_int_eq(try_change(event(here, -3, EV_ADD)), EINVAL);
    ck_assert_int_eq(try_change(event(here, -100, EV_ADD)), EINVAL);
    ck_assert_int_eq(try_change(event(here, SHRT_MIN, EV_ADD)), EINVAL);
    ck_assert_int_eq(try_change(event(here, EVFILT_READ, EV_ADD | EV_ENABLE | EV_DISABLE)), EINVAL);
    ck_assert_int_eq(try_change(event(kq, EVFILT_READ, EV_ADD)), EINVAL);
    ck_assert_int_eq(try_change(event(0, EVFILT_SIGNAL, EV_ADD)), EINVAL);
    ck_assert_int_eq(try_change(event(1000, EVFILT_SIGNAL, EV_ADD)), EINVAL);
    next_epoll_error = ENOSPC;
    ck_assert_int_eq(try_change(event(here, EVFILT_READ, EV_ADD)), ENOSPC);
    ck_assert_int_eq(try_change(event(here, EVFILT_READ, EV_ENABLE)), ENOENT);
    ck_assert_int_eq(kevent(here, NULL, 0, events, 1, &AT_ONCE), -1);
    ck_assert_int_eq(errno, EBADF);
    ck_assert_int_eq(kevent(-1, NULL, 0, events, 1, &AT_ONCE), -1);
    ck_assert_int_eq(errno, EBADF);
    ck_assert_int_eq(kevent(kq, NULL, -1, events, 1, &AT_ONCE), -1);
    ck_assert_int_eq(errno, EINVAL);
    ck_assert_int_eq(kevent(kq, NULL, 0, events, -1, &AT_ONCE), -1);
    ck_assert_int_eq(errno, EINVAL);
}
END_TEST

START_TEST(duplicate_updates)
{
    open_queue();
    open_connection();
    struct kevent add = event(here, EVFILT_READ, EV_ADD);
    add.udata = &mark;
    change(add);
    add.udata = &mark2;
    change(add);
    say(1);
    ck_assert_ptr_eq(expect(here, EVFILT_READ).udata, &mark2);
    add.flags = EV_ENABLE | EV_KEEPUDATA;
    add.udata = NULL;
    change(add);
    ck_assert_ptr_eq(expect(here, EVFILT_READ).udata, &mark2);
    change_flags(here, EVFILT_READ, EV_DELETE);
    expect_nothing();
    ck_assert_int_eq(registrations(here), 0);
    for (int i = 1; i <= 2; i++)
        change_notes(7, EVFILT_USER, EV_ADD, 0, i);
    change_notes(7, EVFILT_USER, 0, NOTE_TRIGGER, 2);
    expect_data(7, EVFILT_USER, 2);
}
END_TEST

START_TEST(changes_in_order)
{
    open_queue();
    open_connection();
    say(1);
    struct kevent changes[] = {event(here, EVFILT_READ, EV_ADD), event(here, EVFILT_READ, EV_DELETE)};
    ck_assert_int_eq(kevent(kq, changes, 2, events, MANY, &AT_ONCE), 0);
    struct kevent reversed[] = {event(here, EVFILT_READ, EV_ADD), event(here, EVFILT_READ, EV_DELETE),
                                event(here, EVFILT_READ, EV_ADD)};
    reversed[2].udata = &mark;
    ck_assert_int_eq(kevent(kq, reversed, 3, events, MANY, &AT_ONCE), 1);
    ck_assert_ptr_eq(events[0].udata, &mark);
}
END_TEST

START_TEST(delete_pending)
{
    open_queue();
    open_connection();
    say(1);
    change_flags(here, EVFILT_READ, EV_ADD | EV_CLEAR);
    change_flags(1, EVFILT_USER, EV_ADD);
    change_notes(1, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    change_notes(1, EVFILT_TIMER, EV_ADD, 0, 1);
    if (!eventually(is_readable(kq)))
        ck_abort_msg("nothing is pending");
    let_pass(5);
    change_flags(here, EVFILT_READ, EV_DELETE);
    change_flags(1, EVFILT_USER, EV_DELETE);
    change_flags(1, EVFILT_TIMER, EV_DELETE);
    expect_nothing();
    ck_assert_msg(!is_readable(kq), "poll() still sees what has been deleted");
}
END_TEST

START_TEST(close_removes)
{
    open_queue();
    open_connection();
    say(1);
    change_flags(here, EVFILT_READ, EV_ADD);
    change_flags(here, EVFILT_WRITE, EV_ADD);
    ck_assert_int_eq(fetch(kq, MANY, &LONG), 2);
    close(here);
    expect_nothing();
    ck_assert_int_eq(try_change(event(here, EVFILT_READ, EV_DELETE)), EBADF);
}
END_TEST

START_TEST(number_used_again)
{
    open_queue();
    open_connection();
    int number = here;
    struct kevent add = event(here, EVFILT_READ, EV_ADD);
    add.udata = &mark;
    change(add);
    change_flags(here, EVFILT_WRITE, EV_ADD);
    close(here);

    open_connection_at(number);
    say(1);
    expect_nothing();
    add.udata = &mark2;
    change(add);
    ck_assert_ptr_eq(expect(here, EVFILT_READ).udata, &mark2);
    ck_assert_int_eq(try_change(event(here, EVFILT_WRITE, EV_DELETE)), ENOENT);
    expect(here, EVFILT_READ);
}
END_TEST

START_TEST(number_used_otherwise)
{
    open_queue();
    open_connection();
    int number = here;
    change_flags(here, EVFILT_READ, EV_ADD);
    close(here);
    open_connection_at(number);
    say(1);
    change_flags(here, EVFILT_WRITE, EV_ADD);
    expect(here, EVFILT_WRITE); /* and not READ, which was of the old one */
    close(here);
    open_connection_at(number);
    ck_assert_int_eq(try_change(event(here, EVFILT_WRITE, EV_ENABLE)), ENOENT);
    ck_assert_int_eq(try_change(event(here, EVFILT_WRITE, EV_DELETE)), ENOENT);
    expect_nothing();
}
END_TEST

START_TEST(number_of_other_kind)
{
    open_queue();
    open_connection();
    open_file();
    change_notes(file, EVFILT_READ, EV_ADD, NOTE_FILE_POLL, 0);
    change_notes(file, EVFILT_VNODE, EV_ADD, NOTE_WRITE, 0);
    expect(file, EVFILT_READ);
    ck_assert_int_eq(dup2(here, file), file); /* closes the file */
    say(1);
    change_flags(file, EVFILT_READ, EV_ADD);
    expect_data(file, EVFILT_READ, 1);
    hear(1);
    int writer = open(path, O_WRONLY);
    ck_assert_int_eq(write(writer, "x", 1), 1);
    expect_nothing();
    remove_file();
}
END_TEST

/* ---- the call ---- */

START_TEST(few_at_a_time)
{
    char marks[24];
    int fds[8][2];
    unsigned seen = 0;
    open_queue();
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds[i]), 0);
        ck_assert_int_eq(write(fds[i][1], "x", 1), 1);
        struct kevent add = event(fds[i][0], EVFILT_READ, EV_ADD | EV_CLEAR);
        add.udata = &marks[i];
        change(add);
        add.filter = EVFILT_WRITE;
        add.udata = &marks[8 + i];
        change(add);
        add = event(i, EVFILT_USER, EV_ADD | EV_CLEAR);
        add.udata = &marks[16 + i];
        change(add);
        add.flags = 0;
        add.fflags = NOTE_TRIGGER;
        change(add);
    }
    for (int i = 0; i < 24; i++) {
        ck_assert_msg(fetch(kq, 1, &AT_ONCE) == 1, "only %d of 24 events came, one at a time", i);
        unsigned bit = 1U << (unsigned)((char *)events[0].udata - marks);
        ck_assert_msg((seen & bit) == 0, "an event came twice");
        seen |= bit;
    }
    expect_nothing();
    ck_assert_msg(!is_readable(kq), "poll() sees something");
}
END_TEST

START_TEST(few_at_a_time_level)
{
    int fds[8][2];
    unsigned seen = 0;
    open_queue();
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds[i]), 0);
        ck_assert_int_eq(write(fds[i][1], "x", 1), 1);
        change_flags(fds[i][0], EVFILT_READ, EV_ADD);
        change_notes(i, EVFILT_USER, EV_ADD, NOTE_TRIGGER, 0);
    }
    for (int i = 0; i < 256 && seen != 0xffff; i++) {
        ck_assert_int_eq(fetch(kq, 1, &AT_ONCE), 1);
        for (unsigned j = 0; j < 8; j++) {
            if (events[0].filter == EVFILT_USER ? events[0].ident == j : (int)events[0].ident == fds[j][0])
                seen |= 1U << (events[0].filter == EVFILT_USER ? j : j + 8);
        }
    }
    ck_assert_msg(seen == 0xffff, "some events never have their turn: 0x%x", seen);
}
END_TEST

START_TEST(no_events_no_wait)
{
    open_queue();
    change_notes(1, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0);
    ck_assert_int_eq(kevent(kq, NULL, 0, NULL, 0, &LONG), 0);
    ck_assert_int_eq(kevent(kq, NULL, 0, NULL, 0, NULL), 0);
    expect(1, EVFILT_USER);
}
END_TEST

START_TEST(timeouts)
{
    struct timespec before, after;
    const struct timespec wrong[] = {{-1, 0}, {0, -1}, {0, 1000000000}};
    const struct timespec some = {0, 1900000};
    const struct timespec huge = {LONG_MAX, 0};
    open_queue();
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(kevent(kq, NULL, 0, events, 1, &wrong[i]), -1);
        ck_assert_int_eq(errno, EINVAL);
    }
    for (int i = 0; i < 50; i++) { /* a busy machine wakes late, which hides what is too early; not always */
        clock_gettime(CLOCK_MONOTONIC, &before);
        ck_assert_int_eq(fetch(kq, 1, &some), 0);
        clock_gettime(CLOCK_MONOTONIC, &after);
        long long passed = (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec;
        ck_assert_msg(passed >= some.tv_nsec, "kevent() came back %lld ns too early", some.tv_nsec - passed);
    }
    change_notes(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 5);
    ck_assert_int_eq(fetch(kq, 1, &huge), 1);
    change_notes(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 5);
    ck_assert_int_eq(fetch(kq, 1, NULL), 1);
}
END_TEST

static atomic_int handled;

static void count_handled(int number)
{
    (void)number;
    handled++;
}

static atomic_bool was_interrupted;

static void *interrupt(void *thread)
{
    while (!was_interrupted) { /* the first ones may come before it sleeps */
        pthread_kill(*(pthread_t *)thread, SIGUSR2);
        nap();
    }
    return NULL;
}

START_TEST(interrupted)
{
    struct sigaction action = {.sa_handler = count_handled, .sa_flags = SA_RESTART};
    pthread_t self = pthread_self();
    pthread_t thread;
    open_queue();
    sigaction(SIGUSR2, &action, NULL);
    struct kevent add = event(1, EVFILT_USER, EV_ADD);
    ck_assert_int_eq(pthread_create(&thread, NULL, interrupt, &self), 0);
    int result = kevent(kq, &add, 1, events, MANY, &LONG);
    int error = errno;
    was_interrupted = true;
    pthread_join(thread, NULL);
    ck_assert_msg(result == -1, "a handler was called %d times, and kevent() slept on", handled);
    ck_assert_int_eq(error, EINTR);
    change_flags(1, EVFILT_USER, EV_ENABLE); /* the change has been applied */
}
END_TEST

START_TEST(closed_queue)
{
    open_queue();
    struct kevent add = event(1, EVFILT_USER, EV_ADD);
    close(kq);
    ck_assert_int_eq(kevent(kq, NULL, 0, events, 1, &AT_ONCE), -1);
    ck_assert_int_eq(errno, EBADF);
    ck_assert_int_eq(kevent(kq, &add, 1, NULL, 0, NULL), -1);
    ck_assert_int_eq(errno, EBADF);
    open_pipe();
    ck_assert_int_eq(dup2(here, kq), kq);
    ck_assert_int_eq(kevent(kq, &add, 1, events, 1, &AT_ONCE), -1);
    ck_assert_int_eq(errno, EBADF);
    close(kq);
    int old = kq;
    open_queue();
    ck_assert_int_eq(kq, old);
    ck_assert_int_eq(try_change(event(1, EVFILT_USER, EV_ENABLE)), ENOENT);
}
END_TEST

START_TEST(queues_do_not_leak)
{
    open_file();
    open_queue();
    close(kq);
    int before = 0;
    for (int i = 0; i < 20; i++) {
        open_queue();
        change_notes(1, EVFILT_TIMER, EV_ADD, 0, 1000);
        change_notes(file, EVFILT_VNODE, EV_ADD, NOTE_WRITE, 0);
        change_notes(getpid(), EVFILT_PROC, EV_ADD, NOTE_EXIT, 0);
        change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
        close(kq);
        if (i == 0)
            before = descriptors();
    }
    ck_assert_int_eq(descriptors(), before);
    remove_file();
}
END_TEST

START_TEST(pollable)
{
    open_queue();
    open_connection();
    change_flags(here, EVFILT_READ, EV_ADD);
    change_flags(1, EVFILT_USER, EV_ADD | EV_CLEAR);
    change_notes(2, EVFILT_TIMER, EV_ADD, 0, 10000000);
    ck_assert_msg(!is_readable(kq), "readable, although nothing is ready");
    say(1);
    ck_assert_msg(is_readable(kq), "not readable, with a READ event");
    hear(1);
    ck_assert_msg(!is_readable(kq), "readable, although all has been read");
    change_notes(1, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    ck_assert_msg(is_readable(kq), "not readable, with a USER event");
    expect(1, EVFILT_USER);
    ck_assert_msg(!is_readable(kq), "readable, although the USER event has been fetched");
    change_notes(2, EVFILT_TIMER, EV_ADD, 0, 1);
    if (!eventually(is_readable(kq)))
        ck_abort_msg("not readable, with a TIMER event");
    expect(2, EVFILT_TIMER);
    signal(SIGUSR1, SIG_IGN);
    change_flags(2, EVFILT_TIMER, EV_DELETE);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    raise(SIGUSR1);
    ck_assert_msg(is_readable(kq), "not readable, with a SIGNAL event");
    expect(SIGUSR1, EVFILT_SIGNAL);
    ck_assert_msg(!is_readable(kq), "readable, although the signal has been fetched");
}
END_TEST

START_TEST(nested)
{
    open_queue();
    int inner = kq;
    change_flags(1, EVFILT_USER, EV_ADD | EV_CLEAR);
    open_queue();
    int outer = kq;
    change_flags(inner, EVFILT_READ, EV_ADD);
    expect_nothing();
    kq = inner;
    change_notes(1, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    kq = outer;
    ck_assert_int_ge(expect(inner, EVFILT_READ).data, 1);
    kq = inner;
    expect(1, EVFILT_USER);
    kq = outer;
    expect_nothing();
}
END_TEST

START_TEST(several_queues)
{
    open_queue();
    open_connection();
    int first = kq;
    change_flags(here, EVFILT_READ, EV_ADD | EV_ONESHOT);
    change_flags(1, EVFILT_USER, EV_ADD | EV_CLEAR);
    open_queue();
    change_flags(here, EVFILT_READ, EV_ADD);
    change_flags(1, EVFILT_USER, EV_ADD | EV_CLEAR);
    say(1);
    change_notes(1, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    ck_assert_int_eq(fetch(first, MANY, &LONG), 1);
    ck_assert_int_eq(fetch(first, MANY, &AT_ONCE), 0);
    ck_assert_int_eq(fetch(kq, MANY, &LONG), 2);
    change_flags(1, EVFILT_USER, EV_DELETE);
    kq = first;
    change_flags(1, EVFILT_USER, EV_ENABLE);
}
END_TEST

static void *trigger_later(void *unused)
{
    struct kevent trigger = event(1, EVFILT_USER, 0);
    (void)unused;
    trigger.fflags = NOTE_TRIGGER;
    let_pass(5);
    return kevent(kq, &trigger, 1, NULL, 0, NULL) == 0 ? &mark : NULL;
}

START_TEST(other_thread)
{
    pthread_t thread;
    void *result;
    open_queue();
    change_flags(1, EVFILT_USER, EV_ADD | EV_CLEAR);
    ck_assert_int_eq(pthread_create(&thread, NULL, trigger_later, NULL), 0);
    ck_assert_int_eq(fetch(kq, MANY, NULL), 1); /* at the end of a limit it would be found in any case */
    pthread_join(thread, &result);
    ck_assert_ptr_eq(result, &mark);
}
END_TEST

static int status_of(pid_t child)
{
    int status;
    if (waitpid(child, &status, 0) != child)
        ck_abort_msg("waitpid: %s", strerror(errno));
    return status;
}

START_TEST(not_inherited)
{
    open_queue();
    open_file();
    change_notes(1, EVFILT_TIMER, EV_ADD, 0, 5);
    change_notes(file, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_WRITE, 0);
    pid_t child = fork();
    if (child == 0)
        _exit(kevent(kq, NULL, 0, events, 1, &AT_ONCE) == -1 && errno == EBADF && fcntl(kq, F_GETFD) < 0 ? 0
                                                                                                         : 1);
    ck_assert_msg(status_of(child) == 0, "the child has the queue");
    expect(1, EVFILT_TIMER); /* the parent's is as it was */
    change_flags(1, EVFILT_TIMER, EV_DELETE);
    ck_assert_int_eq(write(file, "x", 1), 1);
    expect(file, EVFILT_VNODE);
    remove_file();
}
END_TEST

START_TEST(costs)
{
    open_queue();
    open_connection();
    struct kevent add = event(here, EVFILT_READ, EV_ADD);
    epoll_ctls = 0;
    change(add);
    ck_assert_msg(epoll_ctls == 1, "%u epoll_ctl() for one change", epoll_ctls);
    say(1);
    epoll_waits = epoll_ctls = ioctls = 0;
    expect(here, EVFILT_READ);
    ck_assert_msg(epoll_waits == 1, "%u epoll_wait() for one kevent()", epoll_waits);
    ck_assert_msg(epoll_ctls == 0, "%u epoll_ctl() for none", epoll_ctls);
    ck_assert_msg(ioctls == 1, "%u ioctl() for one event", ioctls);

    int number = here; /* closed, and a new connection with its number: as in a server */
    close(here);
    open_connection_at(number);
    epoll_ctls = 0;
    change(add);
    ck_assert_msg(epoll_ctls == 1, "%u epoll_ctl() for a number that is used again", epoll_ctls);
}
END_TEST

/* ---- TIMER ---- */

START_TEST(timer_oneshot)
{
    open_queue();
    change_notes(7, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 10);
    expect_nothing();
    expect_data(7, EVFILT_TIMER, 1);
    change_notes(8, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 0);
    expect_data(8, EVFILT_TIMER, 1);
    let_pass(20);
    expect_nothing();
}
END_TEST

START_TEST(timer_periodic)
{
    open_queue();
    change_notes(7, EVFILT_TIMER, EV_ADD, 0, 2);
    struct kevent got = expect(7, EVFILT_TIMER);
    ck_assert_int_ge(got.data, 1);
    ck_assert_int_ne(got.flags & EV_CLEAR, 0);
    let_pass(20);
    ck_assert_int_ge(expect(7, EVFILT_TIMER).data, 9);
    expect(7, EVFILT_TIMER);
    change_flags(7, EVFILT_TIMER, EV_DELETE);
    let_pass(10);
    expect_nothing();
}
END_TEST

START_TEST(timer_disabled)
{
    open_queue();
    change_notes(7, EVFILT_TIMER, EV_ADD, 0, 2);
    change_flags(7, EVFILT_TIMER, EV_DISABLE);
    let_pass(20);
    expect_nothing();
    change_flags(7, EVFILT_TIMER, EV_ENABLE);
    ck_assert_int_ge(expect(7, EVFILT_TIMER).data, 9);
}
END_TEST

START_TEST(timer_units)
{
    struct timespec now;
    open_queue();
    change_notes(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_NSECONDS, 3000000);
    change_notes(2, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_USECONDS, 6000);
    change_notes(3, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_MSECONDS, 9);
    change_notes(4, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_SECONDS, 1);
    expect_nothing();
    for (unsigned i = 1; i <= 4; i++) {
        ck_assert_int_eq(fetch(kq, 1, &LONG), 1);
        ck_assert_uint_eq(events[0].ident, i);
        ck_assert_int_eq(events[0].fflags, 0);
    }
    clock_gettime(CLOCK_REALTIME, &now);
    change_notes(5, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_ABSTIME | NOTE_SECONDS, now.tv_sec + 3600);
    expect_nothing();
    change_notes(5, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_ABSTIME | NOTE_SECONDS, now.tv_sec - 5);
    expect_data(5, EVFILT_TIMER, 1);
    struct kevent wrong = event(6, EVFILT_TIMER, EV_ADD);
    wrong.data = -1;
    ck_assert_int_eq(try_change(wrong), EINVAL);
    wrong.data = 1;
    wrong.fflags = NOTE_SECONDS | NOTE_USECONDS;
    ck_assert_int_eq(try_change(wrong), EINVAL);
    wrong.fflags = NOTE_SECONDS;
    wrong.data = INT64_MAX;
    change(wrong);
    expect_nothing();
}
END_TEST

START_TEST(timer_again)
{
    open_queue();
    change_notes(7, EVFILT_TIMER, EV_ADD, 0, 1);
    if (!eventually(is_readable(kq)))
        ck_abort_msg("it does not fire");
    change_notes(7, EVFILT_TIMER, EV_ADD, 0, 3600000);
    expect_nothing();
    ck_assert_msg(!is_readable(kq), "readable, although no timer has fired");
    change_flags(7, EVFILT_TIMER, EV_DELETE);
    change_notes(1, EVFILT_TIMER, EV_ADD, 0, 1);
    change_notes(2, EVFILT_TIMER, EV_ADD, 0, 1);
    let_pass(5);
    ck_assert_int_eq(fetch(kq, 1, &AT_ONCE), 1); /* the other one has fired, too */
    unsigned fetched = (unsigned)events[0].ident;
    change_flags(fetched, EVFILT_TIMER, EV_DELETE);
    change_notes(3 - fetched, EVFILT_TIMER, EV_ADD, 0, 3600000);
    expect_nothing();
    change_notes(3 - fetched, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1);
    expect_data(3 - fetched, EVFILT_TIMER, 1);
}
END_TEST

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Timers of eight times, in disorder. When to add them all took longer than from one
 * time to the next, their order is nobody's fault: then again, further apart. */
START_TEST(timer_many)
{
    enum { TIMERS = 2000, TIMES = 8 };
    int64_t took;
    int64_t apart = 10000;
    open_queue();
    int before = descriptors();
    do {
        apart *= 2;
        took = now_us();
        for (unsigned i = 0; i < TIMERS; i++)
            change_notes(i, EVFILT_TIMER, EV_ADD | EV_ONESHOT, NOTE_USECONDS, (1 + i * 7919 % TIMES) * apart);
        took = now_us() - took;
    } while (took >= apart);
    for (unsigned i = 0; i < TIMERS; i += 3)
        change_flags(i, EVFILT_TIMER, EV_DELETE);
    ck_assert_int_eq(descriptors(), before);
    unsigned last = 0;
    for (unsigned i = 0; i < TIMERS; i++) {
        if (i % 3 == 0)
            continue; /* as many as have been left */
        ck_assert_int_eq(fetch(kq, 1, &LONG), 1);
        ck_assert_uint_ne(events[0].ident % 3, 0);
        unsigned time = (unsigned)events[0].ident * 7919 % TIMES;
        ck_assert_msg(time >= last, "one of time %u came after one of time %u", time, last);
        last = time;
    }
    expect_nothing();
}
END_TEST

/* ---- SIGNAL ---- */

START_TEST(signal_counts)
{
    open_queue();
    signal(SIGUSR1, SIG_IGN);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    expect_nothing();
    for (int i = 0; i < 3; i++)
        kill(getpid(), SIGUSR1);
    struct kevent got = expect(SIGUSR1, EVFILT_SIGNAL);
    ck_assert_int_eq(got.data, 3);
    ck_assert_int_ne(got.flags & EV_CLEAR, 0);
    expect_nothing();
    kill(getpid(), SIGUSR1);
    expect_data(SIGUSR1, EVFILT_SIGNAL, 1);
}
END_TEST

START_TEST(signal_disposition)
{
    struct sigaction action = {.sa_handler = count_handled};
    struct sigaction after;
    open_queue();
    sigaction(SIGUSR1, &action, NULL);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    raise(SIGUSR1);
    raise(SIGUSR1);
    ck_assert_msg(handled == 2, "the handler was called %d times, for 2 signals", handled);
    expect_data(SIGUSR1, EVFILT_SIGNAL, 2);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_DELETE);
    raise(SIGUSR1);
    ck_assert_int_eq(handled, 3);
    expect_nothing();
    sigaction(SIGUSR1, NULL, &after);
    ck_assert_msg(after.sa_handler == count_handled, "the handler from before is not back");
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    signal(SIGUSR1, SIG_IGN); /* takes ours away: EV_ADD again puts it back */
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    raise(SIGUSR1);
    expect_data(SIGUSR1, EVFILT_SIGNAL, 1);
    ck_assert_int_eq(handled, 3);
}
END_TEST

START_TEST(signal_disabled)
{
    open_queue();
    signal(SIGUSR1, SIG_IGN);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_DISABLE);
    raise(SIGUSR1);
    expect_nothing();
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ENABLE);
    expect_data(SIGUSR1, EVFILT_SIGNAL, 1);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD | EV_ONESHOT);
    raise(SIGUSR1);
    expect(SIGUSR1, EVFILT_SIGNAL);
    raise(SIGUSR1);
    expect_nothing();
}
END_TEST

START_TEST(signal_two_queues)
{
    open_queue();
    int first = kq;
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    open_queue();
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    change_flags(SIGUSR2, EVFILT_SIGNAL, EV_ADD);
    raise(SIGUSR1);
    raise(SIGUSR2);
    ck_assert_int_eq(fetch(kq, MANY, &LONG), 2);
    ck_assert_int_eq(fetch(first, MANY, &LONG), 1);
    ck_assert_int_eq(events[0].data, 1);
}
END_TEST

static void *send_signal(void *thread)
{
    let_pass(20);
    return pthread_kill(*(pthread_t *)thread, SIGUSR1) == 0 ? &mark : NULL;
}

START_TEST(signal_wakes)
{
    pthread_t self = pthread_self();
    pthread_t thread;
    open_queue();
    signal(SIGUSR1, SIG_IGN);
    change_flags(SIGUSR1, EVFILT_SIGNAL, EV_ADD);
    ck_assert_int_eq(pthread_create(&thread, NULL, send_signal, &self), 0);
    expect_data(SIGUSR1, EVFILT_SIGNAL, 1); /* and not EINTR */
    pthread_join(thread, NULL);
}
END_TEST

START_TEST(signal_default)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGTERM, SIG_DFL);
        open_queue();
        change_flags(SIGTERM, EVFILT_SIGNAL, EV_ADD);
        raise(SIGTERM);
        _exit(0);
    }
    int status = status_of(child);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "the process outlived SIGTERM");

    open_queue();
    change_flags(SIGCHLD, EVFILT_SIGNAL, EV_ADD); /* whose default is to do nothing */
    child = fork();
    if (child == 0)
        _exit(3);
    expect_data(SIGCHLD, EVFILT_SIGNAL, 1);
    ck_assert_int_eq(WEXITSTATUS(status_of(child)), 3);
}
END_TEST

/* ---- USER ---- */

START_TEST(user_trigger)
{
    open_queue();
    change_flags(7, EVFILT_USER, EV_ADD | EV_CLEAR);
    change_flags(8, EVFILT_USER, EV_ADD);
    expect_nothing();
    change_notes(7, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    change_notes(7, EVFILT_USER, 0, NOTE_TRIGGER, 0);
    expect(7, EVFILT_USER);
    expect_nothing();
    change_flags(7, EVFILT_USER, EV_ENABLE); /* looks again */
    expect_nothing();
    change_notes(8, EVFILT_USER, 0, NOTE_TRIGGER, 44);
    expect_data(8, EVFILT_USER, 44);
    expect_data(8, EVFILT_USER, 44);
}
END_TEST

START_TEST(user_notes)
{
    static const struct {
        unsigned notes, result;
    } steps[] = {
        {NOTE_FFNOP | 0xff0000, 0x00f00f},  {NOTE_FFAND | 0x00ffff, 0x00f00f},
        {NOTE_FFAND | 0x00000f, 0x00000f},  {NOTE_FFOR | 0x000ff0, 0x000fff},
        {NOTE_FFCOPY | 0x123456, 0x123456},
    };
    open_queue();
    change_notes(7, EVFILT_USER, EV_ADD | EV_CLEAR, 0x00f00f, 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        change_notes(7, EVFILT_USER, 0, steps[i].notes | NOTE_TRIGGER, 0);
        ck_assert_int_eq(expect(7, EVFILT_USER).fflags, steps[i].result);
    }
}
END_TEST

/* ---- VNODE ---- */

static const unsigned ALL_NOTES =
    NOTE_DELETE | NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB | NOTE_LINK | NOTE_RENAME;

static void watch_file(void)
{
    open_queue();
    open_file();
    change_notes(file, EVFILT_VNODE, EV_ADD | EV_CLEAR, ALL_NOTES, 0);
    expect_nothing();
}

static void expect_notes(unsigned notes)
{
    unsigned got = expect(file, EVFILT_VNODE).fflags;
    ck_assert_msg(got == notes, "fflags is 0x%x, and not 0x%x", got, notes);
    expect_nothing();
}

START_TEST(vnode_write)
{
    watch_file();
    ck_assert_int_eq(pwrite(file, "HE", 2, 0), 2);
    expect_notes(NOTE_WRITE);
    ck_assert_int_eq(pwrite(file, "longer than it was", 18, 0), 18);
    expect_notes(NOTE_WRITE | NOTE_EXTEND);
    ck_assert_int_eq(ftruncate(file, 0), 0);
    expect_notes(NOTE_WRITE);
    remove_file();
}
END_TEST

START_TEST(vnode_attrib)
{
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    watch_file();
    ck_assert_int_eq(fchmod(file, 0640), 0);
    expect_notes(NOTE_ATTRIB);
    ck_assert_int_eq(futimens(file, times), 0);
    expect_notes(NOTE_ATTRIB);
    remove_file();
}
END_TEST

START_TEST(vnode_link)
{
    watch_file();
    ck_assert_int_eq(link(path, other_path), 0);
    expect_notes(NOTE_LINK);
    ck_assert_int_eq(fchmod(file, 0640), 0);
    ck_assert_int_eq(unlink(other_path), 0);
    expect_notes(NOTE_LINK | NOTE_DELETE | NOTE_ATTRIB);
    remove_file();
}
END_TEST

START_TEST(vnode_rename)
{
    watch_file();
    ck_assert_int_eq(rename(path, other_path), 0);
    expect_notes(NOTE_RENAME);
    ck_assert_int_eq(pwrite(file, "x", 1, 0), 1); /* it is watched under its new name */
    expect_notes(NOTE_WRITE);
    remove_file();
}
END_TEST

START_TEST(vnode_delete)
{
    watch_file();
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_ne(expect(file, EVFILT_VNODE).fflags & NOTE_DELETE, 0);
    close(open(path, O_RDWR | O_CREAT, 0600)); /* another one */
    expect_nothing();
    close(file);
    file = open(path, O_RDWR);
    change_notes(file, EVFILT_VNODE, EV_ADD | EV_CLEAR, ALL_NOTES, 0);
    int other = open(other_path, O_RDWR | O_CREAT, 0600);
    close(other);
    ck_assert_int_eq(rename(other_path, path), 0); /* over it */
    ck_assert_int_ne(expect(file, EVFILT_VNODE).fflags & NOTE_DELETE, 0);
    remove_file();
}
END_TEST

START_TEST(vnode_wanted_only)
{
    open_queue();
    open_file();
    change_notes(file, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_ATTRIB, 0);
    ck_assert_int_eq(pwrite(file, "x", 1, 0), 1);
    expect_nothing();
    ck_assert_int_eq(fchmod(file, 0640), 0);
    expect_notes(NOTE_ATTRIB);
    change_notes(file, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_WRITE, 0);
    ck_assert_int_eq(fchmod(file, 0600), 0);
    expect_nothing();
    ck_assert_int_eq(pwrite(file, "x", 1, 0), 1);
    expect_notes(NOTE_WRITE);
    remove_file();
}
END_TEST

START_TEST(vnode_two_descriptors)
{
    watch_file();
    int second = open(path, O_RDONLY);
    change_notes(second, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_DELETE, 0);
    ck_assert_int_eq(pwrite(file, "x", 1, 0), 1);
    expect_notes(NOTE_WRITE);
    change_flags(second, EVFILT_VNODE, EV_DELETE);
    ck_assert_int_eq(pwrite(file, "x", 1, 0), 1);
    expect_notes(NOTE_WRITE);
    remove_file();
}
END_TEST

START_TEST(vnode_lasts)
{
    open_queue();
    open_file();
    change_notes(file, EVFILT_VNODE, EV_ADD, NOTE_WRITE | NOTE_ATTRIB, 0);
    ck_assert_int_eq(pwrite(file, "x", 1, 0), 1);
    ck_assert_int_eq(expect(file, EVFILT_VNODE).fflags, NOTE_WRITE);
    ck_assert_int_eq(fchmod(file, 0640), 0);
    if (!eventually(expect(file, EVFILT_VNODE).fflags == (NOTE_WRITE | NOTE_ATTRIB)))
        ck_abort_msg("without EV_CLEAR the notes are not kept");
    change_notes(file, EVFILT_VNODE, EV_ADD | EV_DISPATCH | EV_CLEAR, NOTE_WRITE | NOTE_ATTRIB, 0);
    expect(file, EVFILT_VNODE);
    ck_assert_int_eq(pwrite(file, "x", 1, 0), 1);
    expect_nothing();
    change_notes(file, EVFILT_VNODE, EV_ENABLE, NOTE_WRITE | NOTE_ATTRIB, 0);
    ck_assert_int_eq(expect(file, EVFILT_VNODE).fflags, NOTE_WRITE);
    remove_file();
}
END_TEST

START_TEST(vnode_folder)
{
    char subfolder[128];
    open_queue();
    open_file();
    close(file);
    file = open(folder, O_RDONLY | O_DIRECTORY);
    change_notes(file, EVFILT_VNODE, EV_ADD | EV_CLEAR, ALL_NOTES, 0);
    expect_nothing();
    close(open(other_path, O_RDWR | O_CREAT, 0600));
    expect_notes(NOTE_WRITE);
    ck_assert_int_eq(rename(other_path, path), 0);
    ck_assert_int_ne(expect(file, EVFILT_VNODE).fflags & NOTE_WRITE, 0);
    snprintf(subfolder, sizeof subfolder, "%s/sub", folder);
    ck_assert_int_eq(mkdir(subfolder, 0700), 0);
    expect_notes(NOTE_WRITE | NOTE_LINK);
    ck_assert_int_eq(rmdir(subfolder), 0);
    expect_notes(NOTE_WRITE | NOTE_LINK);
    remove_file();
}
END_TEST

START_TEST(vnode_closed)
{
    watch_file();
    int old = file;
    close(file);
    ck_assert_int_eq(chmod(path, 0640), 0);
    expect_nothing();
    open_connection();
    file = open(path, O_RDWR);
    ck_assert_int_eq(dup2(file, old), old);
    file = old;
    ck_assert_int_eq(pwrite(file, "x", 1, 0), 1);
    change_notes(file, EVFILT_VNODE, EV_ADD | EV_CLEAR, ALL_NOTES, 0);
    ck_assert_int_eq(fchmod(file, 0600), 0);
    expect_notes(NOTE_ATTRIB);
    remove_file();
}
END_TEST

/* ---- PROC ---- */

static int release[2]; /* a child ends when its writing end is closed */

static pid_t open_child(int status)
{
    if (pipe(release) < 0)
        ck_abort_msg("pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        ck_abort_msg("fork: %s", strerror(errno));
    if (child == 0) {
        char byte;
        close(release[1]);
        if (read(release[0], &byte, 1) != 0)
            _exit(1);
        _exit(status);
    }
    return child;
}

START_TEST(process_exit)
{
    open_queue();
    pid_t child = open_child(42);
    change_notes(child, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0);
    expect_nothing();
    close(release[1]);
    struct kevent got = expect(child, EVFILT_PROC);
    ck_assert_int_eq(got.fflags, NOTE_EXIT);
    ck_assert_msg(WIFEXITED((int)got.data) && WEXITSTATUS((int)got.data) == 42, "data is 0x%x",
                  (int)got.data);
    ck_assert_int_ne(got.flags & EV_EOF, 0);
    expect_nothing();
    ck_assert_int_eq(WEXITSTATUS(status_of(child)), 42); /* it is still to be waited for */
    ck_assert_int_eq(try_change(event(child, EVFILT_PROC, EV_DELETE)), ENOENT);
}
END_TEST

START_TEST(process_killed)
{
    open_queue();
    pid_t child = open_child(0);
    change_notes(child, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0);
    change_notes(child, EVFILT_PROC, EV_DISABLE, NOTE_EXIT, 0);
    kill(child, SIGKILL);
    siginfo_t info;
    waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
    expect_nothing();
    change_notes(child, EVFILT_PROC, EV_ENABLE, NOTE_EXIT, 0);
    struct kevent got = expect(child, EVFILT_PROC);
    ck_assert_int_eq(WTERMSIG((int)got.data), SIGKILL);
    status_of(child);

    child = open_child(7); /* that has ended before it is watched */
    close(release[1]);
    waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
    change_notes(child, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0);
    ck_assert_int_eq(WEXITSTATUS((int)expect(child, EVFILT_PROC).data), 7);
    status_of(child);
    struct kevent gone = event(child, EVFILT_PROC, EV_ADD);
    gone.fflags = NOTE_EXIT;
    ck_assert_int_eq(try_change(gone), ESRCH);
}
END_TEST

START_TEST(process_deleted)
{
    open_queue();
    int before = descriptors();
    pid_t child = open_child(0);
    change_notes(child, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0);
    change_flags(child, EVFILT_PROC, EV_DELETE);
    close(release[1]);
    status_of(child);
    expect_nothing();
    close(release[0]);
    ck_assert_int_eq(descriptors(), before);
}
END_TEST

int main(void)
{
    const struct tap_test tests[] = {
        {"READ: reports while bytes wait, and how many", read_level,
         "an event in each call, with data as it is now, until all is read; then none",
         "registered edge-triggered (EPOLLET) without EV_CLEAR; or data is kept from the first event", API},
        {"READ: with EV_CLEAR, once for what has come", read_clear,
         "one event, and the next when more has come", "EPOLLET is what EV_CLEAR asks of epoll", API},
        {"READ: what waits already is told", read_present, "an event in the call that adds it",
         "events were fetched before the changes were applied", API},
        {"READ: EV_EOF comes with what is still to be read", read_end_behind_data,
         "EV_EOF with data 6, and after they are read with data 0",
         "the end replaced the data: whoever closes at EV_EOF loses the last bytes", WILD},
        {"READ: after a reset, fflags is the error", read_reset, "EV_EOF and ECONNRESET, in each event",
         "getsockopt(SO_ERROR) gives it only once: it has to be kept", API},
        {"READ: of a listening socket, data counts who waits", read_listener, "3, 2, 1, and then no event",
         "FIONREAD knows no listening socket; TCP_INFO does", PIECES},
        {"READ: of a pipe, and its end", read_pipe,
         "5 bytes; then 5 bytes and EV_EOF, when nobody writes any more", "EPOLLHUP is the end of a pipe",
         API},
        {"READ: of a file, data is how far it is to the end", read_file,
         "4 bytes, none at its end, 4 when it has grown; negative behind the end",
         "epoll refuses files (EPERM), and poll() would say that they are ready always", API},
        {"READ: of a file with NOTE_FILE_POLL is always ready", read_file_poll,
         "an event at its end, with data 0", "the note was not kept", API},
        {"READ: NOTE_LOWAT waits for so many bytes", read_lowat, "no event for 7 bytes, one for 8",
         "SO_RCVLOWAT was not set", API},
        {"WRITE: reports while there is room, and how much", write_room,
         "room, none when it is full, and again when the "
         "other end has read",
         "data of another socket option; or EPOLLOUT is not asked for", API},
        {"WRITE: of a pipe, its room, and EV_EOF when nobody reads", write_pipe,
         "the pipe's size, less what waits in it; EV_EOF", "a pipe without a reader is an EPOLLERR", API},
        {"WRITE: a connection that is refused", write_refused, "EV_EOF, and ECONNREFUSED in fflags",
         "EPOLLERR was not looked at", API},
        {"READ and WRITE: share one registration in epoll", both_filters,
         "both events, and after one filter is deleted those of the other",
         "EPOLL_CTL_ADD twice (EEXIST), or EPOLL_CTL_DEL for one of two", PIECES},
        {"READ and WRITE: one with EV_CLEAR, and one without", both_modes,
         "WRITE once, READ in each call while bytes wait",
         "epoll has one mode for both: the edge was all that READ ever got, or WRITE came in each call",
         PIECES},
        {"EV_ONESHOT: reports once, and deletes", oneshot, "one event, then ENOENT for EV_DELETE",
         "only disabled; or still in epoll", API},
        {"EV_DISPATCH: reports once, and disables", dispatch, "one event, and after EV_ENABLE another one",
         "only EV_ONESHOT was thought of; or EV_ENABLE did not look again", API},
        {"EV_DISABLE: keeps the event and reports nothing", disable,
         "nothing while disabled, not even an error; what is ready at EV_ENABLE is told",
         "an empty mask is left in epoll, which then still tells EPOLLERR and EPOLLHUP", API},
        {"EV_DISABLE: of an event that is pending", disable_pending, "nothing, until EV_ENABLE; then once",
         "what is in the list was reported all the same, or was forgotten", API},
        {"EV_RECEIPT: each change is answered, and no event fetched", receipt,
         "two answers with EV_ERROR and data 0; the pending events come with the next call",
         "answers and events in one call: then nobody could tell one from the other", API},
        {"EV_RECEIPT: without room for the answer, it ends there", receipt_without_room,
         "one answer, and the third change is not applied", "the loop over the changes went on", API},
        {"EV_ERROR: a change that fails is answered", error_with_room,
         "one event: ident, filter and udata of the change, EV_ERROR, and ENOENT in data; the others are "
         "applied",
         "kevent() returned -1, or left the changes after it alone", API},
        {"EV_ERROR: without room, kevent() fails", error_without_room,
         "-1 and ENOENT; those after it are not applied", "the error was dropped: a server never hears of it",
         API},
        {"kevent: changes and events in one array", same_array, "two answers, and all changes applied",
         "an answer was written over a change that was still to be read", API},
        {"kevent: what is wrong with a change", errors,
         "the errno that kqueue(2) documents, and nothing left behind",
         "a knote was left behind by a change that failed; or the number was not looked at", API},
        {"EV_ADD: of what is there updates it", duplicate_updates,
         "one event, with the new udata, and nothing after one "
         "EV_DELETE",
         "a second knote was made", API},
        {"kevent: changes are applied in order", changes_in_order,
         "added and deleted: none; and added again: one", "changes were collected by descriptor", API},
        {"EV_DELETE: of an event that is pending", delete_pending, "no event, and poll() sees none",
         "it was left in the list: its memory is free by now", API},
        {"close: removes the descriptor's events", close_removes, "no event; EBADF for EV_DELETE",
         "what epoll forgets by itself was reported from a list of our own", API},
        {"close: a number that is used again is another event", number_used_again,
         "nothing, until it is added; then with the new udata, and the old WRITE is gone",
         "the knotes of the closed one were taken for those of the new one", WILD},
        {"close: a number that is used again for another filter", number_used_otherwise,
         "WRITE alone; and ENOENT for an event of the closed one",
         "READ of the closed one was registered again, for the new one", WILD},
        {"close: a number that comes to another kind of file", number_of_other_kind,
         "READ of the socket, and no VNODE of the file", "it was still taken for a file", WILD},
        {"kevent: room for one event, and nothing is lost", few_at_a_time, "24 events, each once, one a call",
         "an edge was taken from epoll and not reported, because there was no room for it", PIECES},
        {"kevent: room for one event, and all have their turn", few_at_a_time_level,
         "each of 16 events within 256 calls", "those of one kind were always told first", PIECES},
        {"kevent: with no room it does not wait", no_events_no_wait, "0 at once, and the event stays",
         "nevents was not looked at", API},
        {"kevent: its timeout", timeouts, "EINVAL for what is no time; never too early; NULL waits",
         "milliseconds rounded down; or an overflow", API},
        {"kevent: EINTR, and the changes are applied", interrupted, "-1 and EINTR, and the event is there",
         "the changes were given up", API},
        {"kevent: of a queue that is closed", closed_queue, "EBADF; and a new queue with its number is empty",
         "the table still had the old one", API},
        {"kqueue: closed queues give back what they held", queues_do_not_leak,
         "as many descriptors after 20 queues as after one", "nobody looks after queues that were closed",
         PIECES},
        {"kqueue: can be polled", pollable,
         "readable when an event is pending, and only then, whatever its filter",
         "events are kept in a list that epoll knows nothing of", PIECES},
        {"kqueue: can be watched by another", nested,
         "a READ event of the inner queue, until its events are fetched", "see: can be polled", API},
        {"kqueue: several in one process", several_queues, "each has its own events",
         "state in static variables", API},
        {"kqueue: a change of another thread wakes who waits", other_thread, "the USER event",
         "the list was filled, and nobody told who sleeps in epoll_wait()", PIECES},
        {"kqueue: is not inherited by a child", not_inherited, "EBADF in the child; the parent's goes on",
         "parent and child share an epoll, a timerfd and an inotify after fork()", API},
        {"kqueue: what a call costs", costs,
         "one epoll_ctl() a change, one epoll_wait() a kevent(), one ioctl() a READ event",
         "EPOLL_CTL_MOD before EPOLL_CTL_ADD, or the other way round", PIECES},
        {"TIMER: once, after so many milliseconds", timer_oneshot,
         "one event with data 1, and not before its time", "seconds; or the timer was set again", API},
        {"TIMER: again and again, and how often", timer_periodic,
         "data counts what has passed since it was fetched last",
         "it was not armed again after it had been reported", API},
        {"TIMER: goes on while it is disabled", timer_disabled,
         "no event, and after EV_ENABLE one with data 9 or more", "EV_DISABLE stopped it", API},
        {"TIMER: its units, and NOTE_ABSTIME", timer_units,
         "in the order of their times; EINVAL for two units", "the unit was not looked at", API},
        {"TIMER: added again, it starts again", timer_again, "what has fired before is forgotten",
         "it was left in the list, or the timerfd was not set back", API},
        {"TIMER: many, in order, with one timerfd", timer_many,
         "each in its turn, no descriptor more than before", "a timerfd each; or a heap out of order",
         PIECES},
        {"SIGNAL: an ignored one is recorded, and counted", signal_counts, "one event, data 3",
         "signalfd: signals of one number are one, while they are pending", API},
        {"SIGNAL: a handler is called as well", signal_disposition,
         "the handler, and the event; after EV_DELETE the handler "
         "alone",
         "our handler took the place of the one before it", API},
        {"SIGNAL: disabled, it is counted, and told later", signal_disabled, "data 1 after EV_ENABLE",
         "what came meanwhile was forgotten", API},
        {"SIGNAL: each queue hears of it", signal_two_queues, "data 1 in both",
         "one queue took it from the other", API},
        {"SIGNAL: wakes who waits, and is no EINTR", signal_wakes, "the event",
         "EINTR was returned without a look at what has come", API},
        {"SIGNAL: the default action happens", signal_default,
         "SIGTERM ends the process; SIGCHLD is recorded", "our handler took the place of the default action",
         API},
        {"USER: happens when it is triggered", user_trigger,
         "with EV_CLEAR once, without in each call, with its data", "NOTE_TRIGGER was not looked at", API},
        {"USER: fflags are kept, combined and copied", user_notes, "the 24 bits as kqueue(2) says",
         "and instead of or", API},
        {"VNODE: NOTE_WRITE, and NOTE_EXTEND when it grows", vnode_write, "exactly what has happened",
         "the size was not compared", API},
        {"VNODE: NOTE_ATTRIB", vnode_attrib, "NOTE_ATTRIB for a mode and for times",
         "IN_ATTRIB was not asked for", API},
        {"VNODE: NOTE_LINK", vnode_link, "NOTE_LINK for a new link, and NOTE_DELETE for one that is gone",
         "inotify says only IN_ATTRIB: the link count has to be compared", API},
        {"VNODE: NOTE_RENAME, and it goes on", vnode_rename, "NOTE_RENAME, and then NOTE_WRITE",
         "the name was watched, and not the file", API},
        {"VNODE: NOTE_DELETE, also by a rename over it", vnode_delete, "NOTE_DELETE while the file is open",
         "inotify says IN_DELETE_SELF only when nobody has it open any more", API},
        {"VNODE: only what was asked for", vnode_wanted_only,
         "no event for a write when NOTE_ATTRIB is asked for", "inotify's mask was taken for the knote's",
         API},
        {"VNODE: two descriptors of one file", vnode_two_descriptors,
         "each has its own notes, also after the other is deleted",
         "inotify has one watch of a file: its mask was replaced, or it was removed", API},
        {"VNODE: without EV_CLEAR the notes last", vnode_lasts,
         "the note again in each call, and others join it", "cleared without being asked to", API},
        {"VNODE: of a folder", vnode_folder, "NOTE_WRITE for a new name, NOTE_LINK for a new folder",
         "IN_CREATE and IN_DELETE were not asked for", API},
        {"VNODE: of a descriptor that is closed", vnode_closed, "nothing, until it is added anew",
         "the watch outlives the descriptor: who it is has to be looked at", API},
        {"PROC: NOTE_EXIT, with the status", process_exit,
         "one event with the status, and the child still to be waited for",
         "waitid() without WNOWAIT takes it away", API},
        {"PROC: killed, and one that has ended before", process_killed,
         "the signal; the status of a zombie; ESRCH when it is gone", "the status is si_status alone", API},
        {"PROC: deleted, it gives its descriptor back", process_deleted, "no event and no descriptor",
         "the pidfd was not closed", API},
    };
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
