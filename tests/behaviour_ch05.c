/* behaviour_ch05.c - what kqueue does, and what it costs: one call hands over
 * changes and brings events, of sockets, timers, signals and files.
 * Tests that begin with "kqueue:" are about the interface alone, and use it
 * here, whichever kqueue the build has; the others are about the server. Those that
 * count its system calls need kqueue_linux.c, whose calls are those of epoll.
 * Run it as behaviour_ch05 [KQUEUE], the path of the server. */
#define _GNU_SOURCE /* the numbers of system calls, and the POSIX functions beside them */

#include <sys/event.h>

#include "harness.h"
#include "tap.h"
#include "trace.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THE_IDEA "the book, chapter 5, \"The idea\""
#define THE_API "the book, chapter 5, \"The API\""
#define THE_SERVER "the book, chapter 5, \"The server, piece by piece\""
#define IN_THE_WILD "the book, chapter 5, \"Found in the wild\""

/* As in the server: what one receive brings at most, whom one turn lets in, and
 * the pause when descriptors are out. */
enum { BUFFER_SIZE = 64 * 1024, MOST_ACCEPTS = 64, TICK_MS = 100 };

/* ---- kqueue itself ---- */

enum { ROOM = 8 };

static const struct timespec AT_ONCE = {.tv_sec = 0};
static const struct timespec LONG = {.tv_sec = 20}; /* waited for only where nothing comes */

static int new_queue(void)
{
    int queue = kqueue();
    ck_assert_msg(queue >= 0, "kqueue: %s", strerror(errno));
    return queue;
}

static struct kevent with_data(int ident, int filter, unsigned flags, unsigned notes, int data)
{
    struct kevent event;
    EV_SET(&event, ident, filter, flags, notes, data, 0);
    return event;
}

static struct kevent plain(int ident, int filter, unsigned flags)
{
    return with_data(ident, filter, flags, 0, 0);
}

/* Hands over one change, in a call that does nothing else. Returns 0 or an errno. */
static int try_change(int queue, struct kevent event)
{
    return kevent(queue, &event, 1, NULL, 0, NULL) == 0 ? 0 : errno;
}

static void change(int queue, struct kevent event)
{
    int error = try_change(queue, event);
    ck_assert_msg(error == 0, "filter %d, flags %#x: %s", (int)event.filter, (unsigned)event.flags,
                  strerror(error));
}

static void nothing(int queue, const char *why)
{
    struct kevent event;
    int count = kevent(queue, NULL, 0, &event, 1, &AT_ONCE);
    ck_assert_msg(count >= 0, "kevent: %s", strerror(errno));
    ck_assert_msg(count == 0, "%s, and kevent() reports filter %d, flags %#x, fflags %#x, data %lld", why,
                  (int)event.filter, (unsigned)event.flags, (unsigned)event.fflags, (long long)event.data);
}

/* The one event that there is, or comes, which must be this one. */
static struct kevent next_event(int queue, int ident, int filter)
{
    struct kevent events[ROOM];
    int count = kevent(queue, NULL, 0, events, ROOM, &LONG);
    ck_assert_msg(count == 1, "one event should come, and kevent() returned %d", count);
    ck_assert_msg(events[0].ident == (uintptr_t)ident && (int)events[0].filter == filter &&
                      (events[0].flags & EV_ERROR) == 0,
                  "the event has ident %d, filter %d, flags %#x", (int)events[0].ident, (int)events[0].filter,
                  (unsigned)events[0].flags);
    return events[0];
}

static void next_data(int queue, int ident, int filter, long long data)
{
    struct kevent event = next_event(queue, ident, filter);
    ck_assert_msg(event.data == data, "data is %lld, not %lld", (long long)event.data, data);
}

static void pair(int ends[2])
{
    ck_assert_msg(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair: %s", strerror(errno));
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
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_ge(listening, 0);
    ck_assert_int_eq(bind(listening, (struct sockaddr *)address, size), 0);
    ck_assert_int_eq(listen(listening, 16), 0);
    ck_assert_int_eq(getsockname(listening, (struct sockaddr *)address, &size), 0);
    return listening;
}

static int tcp_client(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
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

START_TEST(one_call)
{
    int ends[2];
    int queue = new_queue();
    pair(ends);
    put(ends[1], "hello");
    struct kevent events[2] = {plain(ends[0], EVFILT_READ, EV_ADD)};
    int count = kevent(queue, events, 1, events, 2, &LONG);
    ck_assert_msg(count == 1,
                  "one call hands over the change, and what happens meanwhile should come with it: "
                  "kevent() returned %d",
                  count);
    ck_assert_uint_eq(events[0].ident, (uintptr_t)ends[0]);
    ck_assert_int_eq(events[0].data, 5);
}
END_TEST

START_TEST(level)
{
    int ends[2];
    int queue = new_queue();
    pair(ends);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD));
    nothing(queue, "nothing has come");
    put(ends[1], "two");
    for (int i = 0; i < 3; i++)
        next_data(queue, ends[0], EVFILT_READ, 3);
    put(ends[1], "more");
    next_data(queue, ends[0], EVFILT_READ, 7);
    take(ends[0], 5);
    next_data(queue, ends[0], EVFILT_READ, 2);
    take(ends[0], 2);
    nothing(queue, "all has been read");
}
END_TEST

START_TEST(clear)
{
    int ends[2];
    int queue = new_queue();
    pair(ends);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD | EV_CLEAR));
    put(ends[1], "one");
    next_data(queue, ends[0], EVFILT_READ, 3);
    nothing(queue, "nothing more has come");
    take(ends[0], 1);
    nothing(queue, "a part was read, nothing more has come");
    put(ends[1], "two");
    next_data(queue, ends[0], EVFILT_READ, 5);
    nothing(queue, "nothing more has come");
}
END_TEST

START_TEST(oneshot)
{
    int ends[2];
    int queue = new_queue();
    pair(ends);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD | EV_ONESHOT));
    put(ends[1], "one");
    next_data(queue, ends[0], EVFILT_READ, 3);
    put(ends[1], "two");
    nothing(queue, "it was reported once, with EV_ONESHOT");
    ck_assert_int_eq(try_change(queue, plain(ends[0], EVFILT_READ, EV_DELETE)), ENOENT);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD | EV_ONESHOT));
    next_data(queue, ends[0], EVFILT_READ, 6);
}
END_TEST

START_TEST(dispatch)
{
#ifdef EV_DISPATCH
    int ends[2];
    int queue = new_queue();
    pair(ends);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD | EV_DISPATCH));
    put(ends[1], "one");
    next_data(queue, ends[0], EVFILT_READ, 3);
    put(ends[1], "two");
    nothing(queue, "it was reported, with EV_DISPATCH, and is disabled");
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD | EV_ENABLE | EV_DISPATCH));
    next_data(queue, ends[0], EVFILT_READ, 6);
    nothing(queue, "it was reported, with EV_DISPATCH, and is disabled");
    change(queue, plain(ends[0], EVFILT_READ, EV_DELETE)); /* it was still there */
#else
    tap_skip("this system has no EV_DISPATCH");
#endif
}
END_TEST

START_TEST(disable)
{
    int ends[2];
    int queue = new_queue();
    pair(ends);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD));
    put(ends[1], "one");
    change(queue, plain(ends[0], EVFILT_READ, EV_DISABLE));
    nothing(queue, "it is disabled");
    put(ends[1], "two");
    nothing(queue, "it is disabled");
    change(queue, plain(ends[0], EVFILT_READ, EV_ENABLE));
    next_data(queue, ends[0], EVFILT_READ, 6);
}
END_TEST

START_TEST(receipt)
{
#ifdef EV_RECEIPT
    int ends[2];
    int queue = new_queue();
    pair(ends);
    put(ends[1], "one");
    struct kevent events[ROOM] = {plain(ends[0], EVFILT_READ, EV_ADD | EV_RECEIPT),
                                  plain(ends[1], EVFILT_READ, EV_ADD | EV_RECEIPT)};
    int count = kevent(queue, events, 2, events, ROOM, &LONG);
    ck_assert_msg(count == 2, "two changes with EV_RECEIPT, and kevent() returned %d", count);
    for (int i = 0; i < 2; i++) {
        ck_assert_uint_eq(events[i].ident, (uintptr_t)ends[i]);
        ck_assert_msg((events[i].flags & EV_ERROR) != 0 && events[i].data == 0,
                      "the receipt has flags %#x, data %lld", (unsigned)events[i].flags,
                      (long long)events[i].data);
    }
    next_data(queue, ends[0], EVFILT_READ, 3);
#else
    tap_skip("this system has no EV_RECEIPT");
#endif
}
END_TEST

/* A number that no descriptor has. */
static int closed_descriptor(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_ge(fd, 0);
    close(fd);
    return fd;
}

START_TEST(errors_answered)
{
    int ends[2];
    int queue = new_queue();
    pair(ends);
    int nobody = closed_descriptor();
    struct kevent events[ROOM] = {plain(ends[0], EVFILT_READ, EV_ADD),
                                  plain(ends[0], EVFILT_WRITE, EV_DELETE), plain(nobody, EVFILT_READ, EV_ADD),
                                  plain(ends[1], EVFILT_READ, EV_ADD)};
    int count = kevent(queue, events, 4, events, ROOM, &LONG);
    ck_assert_msg(count == 2, "two of four changes are wrong, and kevent() returned %d", count);
    for (int i = 0; i < 2; i++)
        ck_assert_msg((events[i].flags & EV_ERROR) != 0, "an answer without EV_ERROR");
    ck_assert_uint_eq(events[0].ident, (uintptr_t)ends[0]);
    ck_assert_int_eq(events[0].data, ENOENT);
    ck_assert_uint_eq(events[1].ident, (uintptr_t)nobody);
    ck_assert_int_eq(events[1].data, EBADF);
    put(ends[0], "the last change");
    next_data(queue, ends[1], EVFILT_READ, 15);
    take(ends[1], 15);
    put(ends[1], "the first");
    next_data(queue, ends[0], EVFILT_READ, 9);
}
END_TEST

START_TEST(errors_without_room)
{
    int ends[2];
    int queue = new_queue();
    pair(ends);
    struct kevent changes[] = {plain(ends[0], EVFILT_READ, EV_ADD), plain(ends[0], EVFILT_WRITE, EV_DELETE),
                               plain(ends[1], EVFILT_READ, EV_ADD)};
    ck_assert_msg(kevent(queue, changes, 3, NULL, 0, NULL) == -1,
                  "a change is wrong, there is no room to say so, and kevent() does not fail");
    ck_assert_int_eq(errno, ENOENT);
    put(ends[0], "x");
    nothing(queue, "the change after the wrong one was not to be made");
    put(ends[1], "x");
    next_data(queue, ends[0], EVFILT_READ, 1);
}
END_TEST

START_TEST(listening_data)
{
    enum { CLIENTS = 3 };
    struct sockaddr_in address;
    int queue = new_queue();
    int listening = tcp_listener(&address);
    change(queue, plain(listening, EVFILT_READ, EV_ADD));
    nothing(queue, "nobody has come");
    for (int i = 0; i < CLIENTS; i++)
        tcp_client(&address);
    ck_assert_msg(eventually(next_event(queue, listening, EVFILT_READ).data == CLIENTS),
                  "%d clients wait, and data is %lld", CLIENTS,
                  (long long)next_event(queue, listening, EVFILT_READ).data);
    for (int i = CLIENTS; i > 0; i--) {
        next_data(queue, listening, EVFILT_READ, i);
        ck_assert_int_ge(accept(listening, NULL, NULL), 0);
    }
    nothing(queue, "all have been accepted");
}
END_TEST

START_TEST(end_behind_data)
{
    int ends[2];
    struct kevent event;
    int queue = new_queue();
    tcp_pair(ends);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD));
    put(ends[1], "last words");
    ck_assert_int_eq(shutdown(ends[1], SHUT_WR), 0);
    ck_assert_msg(eventually(((event = next_event(queue, ends[0], EVFILT_READ)).flags & EV_EOF) != 0),
                  "the end has come, and no EV_EOF");
    ck_assert_msg(event.data == 10, "with EV_EOF, 10 bytes are to be read, and data is %lld",
                  (long long)event.data);
    ck_assert_msg(event.fflags == 0, "it ended without an error, and fflags is %d", (int)event.fflags);
    take(ends[0], 10);
    event = next_event(queue, ends[0], EVFILT_READ);
    ck_assert_msg((event.flags & EV_EOF) != 0 && event.data == 0, "flags %#x, data %lld",
                  (unsigned)event.flags, (long long)event.data);
    put(ends[0], "still here");
    take(ends[1], 10); /* the other direction is open */
}
END_TEST

START_TEST(reset_error)
{
    int ends[2];
    int queue = new_queue();
    tcp_pair(ends);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD));
    client_reset(ends[1]);
    struct kevent event = next_event(queue, ends[0], EVFILT_READ);
    ck_assert_msg((event.flags & EV_EOF) != 0, "a RST, and no EV_EOF");
    ck_assert_msg(event.fflags == ECONNRESET, "a RST, and fflags is %d", (int)event.fflags);
}
END_TEST

START_TEST(room_data)
{
    static char block[65536];
    int ends[2];
    int buffer;
    socklen_t size = sizeof buffer;
    int queue = new_queue();
    pair(ends);
    ck_assert_int_eq(getsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &buffer, &size), 0);
    change(queue, plain(ends[0], EVFILT_WRITE, EV_ADD));
    for (int i = 0; i < 2; i++) { /* as long as there is room */
        struct kevent event = next_event(queue, ends[0], EVFILT_WRITE);
        ck_assert_msg(event.data > 0 && event.data <= buffer, "the buffer has %d bytes, and data is %lld",
                      buffer, (long long)event.data);
    }
    while (send(ends[0], block, sizeof block, MSG_DONTWAIT) > 0)
        continue;
    nothing(queue, "there is no room");
    while (recv(ends[1], block, sizeof block, MSG_DONTWAIT) > 0)
        continue;
    next_event(queue, ends[0], EVFILT_WRITE);
}
END_TEST

START_TEST(periodic)
{
    int queue = new_queue();
    int other = new_queue();
    change(queue, with_data(1, EVFILT_TIMER, EV_ADD, 0, 10));
    change(other, with_data(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 100));
    next_data(other, 1, EVFILT_TIMER, 1);
    struct kevent event = next_event(queue, 1, EVFILT_TIMER);
    ck_assert_msg(event.data >= 5, "a timer of 10 ms was left alone for 100 ms, and data is %lld",
                  (long long)event.data);
    next_event(queue, 1, EVFILT_TIMER);
    change(queue, plain(1, EVFILT_TIMER, EV_DELETE));
}
END_TEST

START_TEST(once)
{
    int queue = new_queue();
    change(queue, with_data(7, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 10));
    next_data(queue, 7, EVFILT_TIMER, 1);
    ck_assert_int_eq(try_change(queue, plain(7, EVFILT_TIMER, EV_DELETE)), ENOENT);
}
END_TEST

START_TEST(signals_counted)
{
    int queue = new_queue();
    ck_assert(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
    change(queue, plain(SIGUSR1, EVFILT_SIGNAL, EV_ADD));
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(kill(getpid(), SIGUSR1), 0);
    next_data(queue, SIGUSR1, EVFILT_SIGNAL, 3);
    nothing(queue, "no signal has come since");
    ck_assert_int_eq(kill(getpid(), SIGUSR1), 0);
    next_data(queue, SIGUSR1, EVFILT_SIGNAL, 1);
}
END_TEST

START_TEST(user)
{
#if defined EVFILT_USER && defined NOTE_TRIGGER
    int queue = new_queue();
    int error = try_change(queue, plain(1, EVFILT_USER, EV_ADD | EV_CLEAR));
    if (error == EINVAL)
        tap_skip("this system has no EVFILT_USER");
    ck_assert_int_eq(error, 0);
    nothing(queue, "it was not triggered");
    change(queue, with_data(1, EVFILT_USER, 0, NOTE_TRIGGER, 0));
    next_event(queue, 1, EVFILT_USER);
    nothing(queue, "it was reported, with EV_CLEAR");
#else
    tap_skip("this system has no EVFILT_USER");
#endif
}
END_TEST

static char folder[128]; /* a new one, and files in it */
static char path[160];
static char other_path[160];

static void make_folder(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/seven-servers-XXXXXX",
             parent != NULL && strlen(parent) < 64 ? parent : "/tmp");
    ck_assert_msg(mkdtemp(folder) != NULL, "%s: %s", folder, strerror(errno));
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(other_path, sizeof other_path, "%s/other", folder);
}

static void remove_folder(void)
{
    unlink(path);
    unlink(other_path);
    rmdir(folder);
}

/* Opens the file as it is, if it is there, and writes text from its start on. */
static void write_file(const char *name, int flags, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | flags, 0600);
    ck_assert_msg(fd >= 0, "%s: %s", name, strerror(errno));
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* What has happened to the file, as one event says. */
static void next_notes(int queue, int fd, unsigned notes)
{
    struct kevent event = next_event(queue, fd, EVFILT_VNODE);
    ck_assert_msg(event.fflags == notes, "fflags is %#x, not %#x", (unsigned)event.fflags, notes);
    nothing(queue, "nothing more has happened");
}

START_TEST(file_notes)
{
    int queue = new_queue();
    make_folder();
    write_file(path, 0, "hello");
    int fd = open(path, O_RDONLY);
    change(queue, with_data(fd, EVFILT_VNODE, EV_ADD | EV_CLEAR,
                            NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB | NOTE_RENAME | NOTE_DELETE, 0));
    nothing(queue, "nothing has happened");
    write_file(path, O_APPEND, " world");
    next_notes(queue, fd, NOTE_WRITE | NOTE_EXTEND);
    write_file(path, 0, "HELLO");
    next_notes(queue, fd, NOTE_WRITE);
    ck_assert_int_eq(chmod(path, 0640), 0);
    next_notes(queue, fd, NOTE_ATTRIB);
    ck_assert_int_eq(rename(path, other_path), 0);
    next_notes(queue, fd, NOTE_RENAME);
    ck_assert_int_eq(unlink(other_path), 0);
    next_notes(queue, fd, NOTE_DELETE);
    remove_folder();
}
END_TEST

START_TEST(folder_notes)
{
    int queue = new_queue();
    make_folder();
    int fd = open(folder, O_RDONLY | O_DIRECTORY);
    change(queue, with_data(fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_WRITE, 0));
    write_file(path, 0, "new");
    next_notes(queue, fd, NOTE_WRITE);
    write_file(path, 0, "NEW");
    nothing(queue, "a file was written to, and no name in the folder has changed");
    ck_assert_int_eq(rename(path, other_path), 0);
    next_notes(queue, fd, NOTE_WRITE);
    ck_assert_int_eq(unlink(other_path), 0);
    next_notes(queue, fd, NOTE_WRITE);
    remove_folder();
}
END_TEST

START_TEST(all_in_one)
{
    enum { SOURCES = 4 };
    int ends[2];
    struct kevent events[ROOM];
    int queue = new_queue();
    pair(ends);
    make_folder();
    write_file(path, 0, "hello");
    int fd = open(path, O_RDONLY);
    ck_assert(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
    const struct kevent changes[SOURCES] = {
        plain(ends[0], EVFILT_READ, EV_ADD | EV_ONESHOT),
        with_data(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1),
        plain(SIGUSR1, EVFILT_SIGNAL, EV_ADD),
        with_data(fd, EVFILT_VNODE, EV_ADD | EV_CLEAR, NOTE_WRITE, 0),
    };
    ck_assert_int_eq(kevent(queue, changes, SOURCES, NULL, 0, NULL), 0);
    put(ends[1], "x");
    ck_assert_int_eq(kill(getpid(), SIGUSR1), 0);
    write_file(path, 0, "HELLO");
    int seen[SOURCES] = {0};
    for (int came = 0; came < SOURCES;) {
        int count = kevent(queue, NULL, 0, events, ROOM, &LONG);
        ck_assert_msg(count > 0, "four things have happened, and %d were reported", came);
        for (int i = 0; i < count; i++) {
            for (int j = 0; j < SOURCES; j++)
                seen[j] += events[i].filter == changes[j].filter && events[i].ident == changes[j].ident;
        }
        came += count;
    }
    for (int i = 0; i < SOURCES; i++)
        ck_assert_msg(seen[i] == 1, "of filter %d, %d events came", (int)changes[i].filter, seen[i]);
    remove_folder();
}
END_TEST

START_TEST(close_removes)
{
    int ends[2];
    int again[2];
    int queue = new_queue();
    pair(ends);
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD));
    put(ends[1], "x");
    next_data(queue, ends[0], EVFILT_READ, 1);
    close(ends[0]);
    nothing(queue, "the descriptor is closed");
    ck_assert_int_eq(try_change(queue, plain(ends[0], EVFILT_READ, EV_DELETE)), EBADF);
    pair(again);
    ck_assert_int_eq(again[0], ends[0]);
    put(again[1], "x");
    nothing(queue, "another socket has the number of one that was watched");
}
END_TEST

START_TEST(added_twice)
{
    int ends[2];
    int queue = new_queue();
    struct kevent events[ROOM];
    const uintptr_t given = 42;
    uintptr_t back;
    pair(ends);
    put(ends[1], "x");
    change(queue, plain(ends[0], EVFILT_READ, EV_ADD));
    struct kevent add = plain(ends[0], EVFILT_READ, EV_ADD);
    memcpy(&add.udata, &given, sizeof given); /* a pointer, or an integer */
    change(queue, add);
    int count = kevent(queue, NULL, 0, events, ROOM, &LONG);
    ck_assert_msg(count == 1, "it was added twice, and reported %d times", count);
    memcpy(&back, &events[0].udata, sizeof back);
    ck_assert_msg(back == given, "it was added again with another udata, and the first comes back");
}
END_TEST

START_TEST(nested)
{
    int ends[2];
    int inner = new_queue();
    int outer = new_queue();
    pair(ends);
    change(inner, plain(ends[0], EVFILT_READ, EV_ADD));
    change(outer, plain(inner, EVFILT_READ, EV_ADD));
    nothing(outer, "the inner queue has no event");
    put(ends[1], "x");
    struct pollfd readable = {.fd = inner, .events = POLLIN};
    ck_assert_msg(poll(&readable, 1, 0) == 1, "a queue with an event is not readable for poll()");
    next_event(outer, inner, EVFILT_READ);
    take(ends[0], 1);
    nothing(outer, "the inner queue has no event");
}
END_TEST

/* ---- the server ---- */

static const char *kqueue_server = "../ch05-kqueue/kqueue";

/* In the server: its queue, which is an epoll (-1: it is another kqueue), the
 * listening socket, and the sockets of its clients, in the order in which they
 * came, since the kernel gives the lowest number that is free. */
static int queue_number;
static int listener;
enum { MOST_CLIENTS = 256 };
static int numbers[MOST_CLIENTS];
static size_t number_count;

/* Tests that look at the server's system calls. */
static void need_own_kqueue(void)
{
#if defined LIBKQUEUE || !defined __linux__
    tap_skip("counts the system calls of kqueue_linux.c, and this build has another kqueue");
#endif
    if (queue_number < 0)
        tap_skip("the server has no epoll: it is not over kqueue_linux.c");
}

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

static struct server start(const struct server_setup *setup)
{
    server_choose(kqueue_server);
    struct server server = server_start(setup);
    listener = -1;
    queue_number = lowest(&server, "anon_inode:[eventpoll]");
    listener = lowest(&server, "socket:");
    ck_assert_msg(listener >= 0, "the server has no listening socket");
    return server;
}

static struct server start_with(const char *option, const char *value)
{
    return start(&(struct server_setup){.arguments = {option, value}});
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

static void rests(const struct server *server)
{
    ck_assert_msg(eventually(server_asleep(server)), "the server does not come to rest: it spins");
}

/* What the server's queue watches a descriptor for, as the kernel shows its epoll:
 * EPOLLIN, EPOLLOUT, or 0. */
static uint32_t watched_for(const struct server *server, int fd)
{
    char name[64];
    char line[256];
    uint32_t events = 0;
    snprintf(name, sizeof name, "/proc/%d/fdinfo/%d", (int)server->pid, queue_number);
    FILE *file = fopen(name, "re");
    if (file == NULL)
        tap_skip("%s: %s", name, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL) {
        int watched;
        uint32_t mask;
        if (sscanf(line, "tfd: %d events: %x", &watched, &mask) == 2 && watched == fd)
            events = mask & (EPOLLIN | EPOLLOUT);
    }
    fclose(file);
    return events;
}

/* ---- a turn of the server: from one wait call to the next ---- */

static struct call asked;    /* the wait call in which the server is */
static struct call answered; /* the one before it, which has ended */

/* What the server did between these two. */
static struct call calls[20000];
static size_t call_count;
static bool entered; /* the last one has begun, and not ended */

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

/* In ms; -1: it may sleep for ever. */
static int limit(void)
{
    return (int)asked.arguments[3];
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
    need_own_kqueue();
    trace_start(server);
    client_send(client, "x", 1);
    for (;;) {
        trace_enter(server, &asked);
        if (is_wait(&asked) && served)
            break;
        leave(server, &asked);
        served |= asked.number == SYS_recvfrom && asked.result > 0;
    }
    ck_assert_msg(client_receive(client, &back, 1) == 1 && back == 'x', "a client got no echo");
}

/* Lets the wait call end. False: it sleeps in it. */
static bool wait_ends(const struct server *server)
{
    call_count = 0;
    entered = false;
    return trace_leave(server, &asked);
}

/* Lets the server go on to where this call begins, or its next wait call. fd: -1 is any. */
static void go_to(const struct server *server, long number, int fd)
{
    for (;;) {
        if (entered)
            leave(server, &calls[call_count++]);
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
    asked = calls[call_count];
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

/* How often what is watched of fd was changed in the turn; -1: of any. */
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

static void gets_back(int client, const char *text)
{
    char back[64] = "";
    size_t size = strlen(text);
    ck_assert_msg(client_receive(client, back, size) == size && memcmp(back, text, size) == 0,
                  "a client waits for \"%s\", and \"%s\" came", text, back);
}

/* ---- one call for changes and events ---- */

START_TEST(idle)
{
    enum { CLIENTS = 20 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    ck_assert_msg(limit() == -1, "nothing is to be done, and the server waits for %d ms only", limit());
    ck_assert_msg(!turn(&server), "nobody says anything, and the server woke");
    trace_end(&server);
}
END_TEST

START_TEST(message)
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
        ck_assert_msg(times(SYS_recvfrom, -1) == 1 && times(SYS_sendto, -1) == 1 &&
                          times(SYS_recvfrom, numbers[client]) == 1,
                      "for one message there were %zu calls of recv() and %zu of send()",
                      times(SYS_recvfrom, -1), times(SYS_sendto, -1));
        ck_assert_msg(changed(-1) == 0, "for one message epoll_ctl() was called %zu times", changed(-1));
        gets_back(clients[client], "hello");
    }
    printf("# kqueue: a message is 1 epoll_wait(), %zu ioctl(), 1 recv(), 1 send(), and no epoll_ctl()\n",
           times(SYS_ioctl, -1));
    fflush(stdout);
    trace_end(&server);
}
END_TEST

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
    enum { INSIDE = 4, COME = 5 };
    int clients[INSIDE];
    size_t changes = 0;
    struct server server = start(NULL);
    connect_served(&server, clients, INSIDE);
    hold(&server, clients[0]);
    say(&server, clients, 1, "hello");
    for (int i = 0; i < COME; i++)
        client_connect(&server);
    await_crowd(&server, COME);
    say(&server, clients, 2, "hello");
    close_client(&server, clients, 3);
    while (turn(&server))
        changes += changes_come_last();
    ck_assert_msg(changes == COME, "%d clients came, and epoll_ctl() was called %zu times", COME, changes);
    trace_end(&server);
    gets_back(clients[1], "hello");
    gets_back(clients[2], "hello");
}
END_TEST

START_TEST(door_counted)
{
    enum { COME = 5 };
    int client;
    int crowd[COME];
    size_t failed;
    struct server server = start(NULL);
    connect_served(&server, &client, 1);
    hold(&server, client);
    client_connect_many(&server, crowd, COME);
    await_crowd(&server, COME);
    woken_turn(&server);
    size_t came = accepted(&failed);
    ck_assert_msg(came == COME && failed == 0,
                  "data says that %d wait, and in that turn %zu were let in, and accept() found nobody %zu "
                  "times",
                  COME, came, failed);
    until_asleep(&server);
    trace_end(&server);
    for (size_t i = 0; i < COME; i++)
        ck_assert_msg(client_gets_echo(crowd[i], "hello"), "client %zu is not served", i + 1);
}
END_TEST

START_TEST(crowd_bounded)
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
    for (size_t i = 0; i < CROWD; i++)
        ck_assert_msg(client_gets_echo(crowd[i], "hello"), "client %zu of the crowd is not served", i + 1);
}
END_TEST

/* ---- owing ---- */

/* One client's debt, followed turn by turn. */
struct debt {
    long owed;
    size_t stalls;
    size_t changes;
};

/* After a turn: what the server owes to client 1, and whether its queue has been told what it must know. */
static void follow(const struct server *server, struct debt *debt)
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
    ck_assert_msg((changed(fd) > 0) == (before != after),
                  "%ld bytes are owed now, %s before, and epoll_ctl() was called %zu times", debt->owed,
                  before ? "some" : "none", changed(fd));
    uint32_t watched = watched_for(server, fd);
    ck_assert_msg(watched == (after ? EPOLLOUT : EPOLLIN),
                  "%ld bytes are owed, and the client is watched for%s%s", debt->owed,
                  (watched & EPOLLIN) != 0 ? " READ" : "", (watched & EPOLLOUT) != 0 ? " WRITE" : "");
}

START_TEST(stall)
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
            follow(&server, &debt);
    }
    ck_assert_msg(limit() == -1, "a client is owed bytes, and the server waits for %d ms only", limit());
    /* Now it reads everything. */
    struct deadline deadline = deadline_start();
    while ((received < sent || debt.owed > 0) && !deadline_over(&deadline)) {
        while ((moved = recv(clients[1], block, sizeof block, MSG_DONTWAIT)) > 0)
            received += (size_t)moved;
        if (turn(&server))
            follow(&server, &debt);
    }
    ck_assert_msg(received == sent, "a client sent %zu bytes and got %zu", sent, received);
    while (turn(&server))
        follow(&server, &debt);
    trace_end(&server);
    printf("# kqueue: %zu times the client took no more for a while: %zu calls of epoll_ctl()\n", debt.stalls,
           debt.changes);
    fflush(stdout);
    ck_assert_uint_ge(debt.stalls, 1);
}
END_TEST

START_TEST(owing)
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
END_TEST

/* ---- the end ---- */

START_TEST(end_with_data)
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
END_TEST

START_TEST(end_owed)
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
            follow(&server, &debt);
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
END_TEST

/* Client LOST has left or is lost. The others are served, and the server sleeps. */
enum { SEVERAL = 5, LOST = 2 };

static void only_that_one(const struct server *server, const int *clients)
{
    ck_assert_msg(times(SYS_close, numbers[LOST]) == 1, "its connection was closed %zu times",
                  times(SYS_close, numbers[LOST]));
    ck_assert_msg(changed(-1) == 0,
                  "with its descriptor a client leaves the queue, and epoll_ctl() was called %zu times",
                  changed(-1));
    until_asleep(server);
    ck_assert_uint_eq(watched_for(server, numbers[LOST]), 0);
    trace_end(server);
    for (size_t i = 0; i < SEVERAL; i++)
        ck_assert_msg(i == LOST || client_gets_echo(clients[i], "and me?"),
                      "client %d has gone, and client %zu with it", LOST + 1, i + 1);
}

START_TEST(leaves)
{
    int clients[SEVERAL];
    struct server server = start(NULL);
    connect_served(&server, clients, SEVERAL);
    hold(&server, clients[0]);
    close_client(&server, clients, LOST);
    woken_turn(&server);
    only_that_one(&server, clients);
}
END_TEST

START_TEST(reset_idle)
{
    int clients[SEVERAL];
    struct server server = start(NULL);
    connect_served(&server, clients, SEVERAL);
    hold(&server, clients[0]);
    client_reset(clients[LOST]);
    await_ready(&server, numbers[LOST], POLLIN);
    woken_turn(&server);
    only_that_one(&server, clients);
}
END_TEST

START_TEST(reset_owed)
{
    int clients[SEVERAL];
    struct server server = start(NULL);
    connect_served(&server, clients, SEVERAL);
    client_flood(clients[LOST], 1);
    hold(&server, clients[0]);
    until_asleep(&server);
    client_reset(clients[LOST]);
    woken_turn(&server);
    only_that_one(&server, clients);
}
END_TEST

/* ---- whose event it is ---- */

enum { PAGE = 4096 };

/* The event in this memory of the server that says that so many bytes wait on fd; 0 if there is none. */
static uint64_t find_event_in(const struct server *server, uint64_t from, uint64_t to, int fd, int64_t size)
{
    unsigned char page[PAGE + sizeof(struct kevent)]; /* one may begin in it and end in the next */
    for (uint64_t at = from; at < to; at += PAGE) {
        size_t there = to - at < sizeof page ? (size_t)(to - at) : sizeof page;
        trace_read(server, at, page, there);
        for (size_t i = 0; i + sizeof(struct kevent) <= there; i += sizeof(void *)) {
            struct kevent event;
            memcpy(&event, page + i, sizeof event);
            if (event.ident == (uintptr_t)fd && event.filter == EVFILT_READ && event.data == size)
                return at + i;
        }
    }
    return 0;
}

/* The same in all that may be written to, but for the stack, which has copies. */
static uint64_t find_event(const struct server *server, int fd, int64_t size)
{
    const uint64_t most = 64 << 20; /* what a sanitizer keeps is larger */
    char name[64];
    char line[512];
    uint64_t found = 0;
    snprintf(name, sizeof name, "/proc/%d/maps", (int)server->pid);
    FILE *maps = fopen(name, "re");
    if (maps == NULL)
        tap_skip("%s: %s", name, strerror(errno));
    while (found == 0 && fgets(line, sizeof line, maps) != NULL) {
        unsigned long from;
        unsigned long to;
        if (strstr(line, " rw-p ") != NULL && strstr(line, "[stack]") == NULL &&
            sscanf(line, "%lx-%lx", &from, &to) == 2 && to - from <= most)
            found = find_event_in(server, from, to, fd, size);
    }
    fclose(maps);
    ck_assert_msg(found != 0, "that %lld bytes wait is nowhere in the server's memory", (long long)size);
    return found;
}

START_TEST(stale_event)
{
    enum { CLIENTS = 3, LEFT = 1, CARRIER = 2 };
    int clients[CLIENTS];
    struct kevent stale;
    struct server server = start(NULL);
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    say(&server, clients, LEFT, "goodbye");
    ck_assert_msg(wait_ends(&server), "a client spoke, and the server sleeps");
    go_to(&server, SYS_recvfrom, numbers[LEFT]);
    trace_read(&server, find_event(&server, numbers[LEFT], 7), &stale, sizeof stale);
    turn_ends(&server);
    gets_back(clients[LEFT], "goodbye");
    close_client(&server, clients, LEFT);
    until_asleep(&server);

    /* Another comes, and gets its number. */
    clients[LEFT] = client_connect(&server);
    await_crowd(&server, 1);
    woken_turn(&server);
    until_asleep(&server);
    ck_assert_msg(watched_for(&server, numbers[LEFT]) != 0,
                  "the new client did not get the number of the one that left");
    trace_end(&server);
    hold(&server, clients[0]); /* before it waits, and not in the wait: so both come in one batch */

    /* What a batch may bring, in which a client leaves and another comes: in the
     * place of the second event, the old one is there. */
    say(&server, clients, 0, "x");
    say(&server, clients, CARRIER, "the bearer");
    ck_assert_msg(wait_ends(&server) && asked.result == 2, "two spoke, and epoll_wait() returned %ld",
                  asked.result);
    go_to(&server, SYS_recvfrom, -1);
    ck_assert_int_eq(calls[call_count].fd, numbers[0]);
    trace_write(&server, find_event(&server, numbers[CARRIER], 10), &stale, sizeof stale);
    turn_ends(&server);
    ck_assert_msg(times(SYS_recvfrom, numbers[LEFT]) == 0 && times(SYS_close, numbers[LEFT]) == 0,
                  "an event of a client that had left was taken for one of the client with its number");
    until_asleep(&server);
    trace_end(&server);
    gets_back(clients[CARRIER], "the bearer");
    ck_assert_msg(client_gets_echo(clients[LEFT], "hello"), "the new client is not served");
}
END_TEST

START_TEST(table_grows)
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
    size_t taken = client_flood(owed, 1); /* what it is owed lies behind the first table */
    client_connect_many(&server, crowd, CROWD);
    for (size_t i = 0; i < CROWD; i++)
        ck_assert_msg(client_gets_echo(crowd[i], "hello"), "client %zu is not served", i + 1);
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
    for (size_t i = 0; i < CROWD; i++)
        ck_assert_msg(client_gets_echo(crowd[i], "again"), "client %zu is not served", i + 1);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
END_TEST

/* ---- kevent() that is interrupted, and changes that are refused ---- */

/* Every second kevent() is interrupted: the first wait of it, and the look that kqueue_linux.c
 * takes then. And twice there is no room to send. */
static const char *interruptions(void)
{
    enum { RULES = 60 };
    static char text[RULES * 32];
    size_t used = (size_t)snprintf(text, sizeof text, "send:3-4=EAGAIN");
    for (int i = 0; i < RULES; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " epoll_wait:%d-%d=EINTR", 3 * i + 2,
                                 3 * i + 3);
    return text;
}

START_TEST(interrupted)
{
    int clients[2];
    struct server server = start(&(struct server_setup){.faults = interruptions()});
    need_own_kqueue();
    connect_served(&server, clients, 2);
    for (int i = 0; i < 5; i++)
        ck_assert_msg(client_gets_echo(clients[0], "a debt, twice"),
                      "kevent() was interrupted, and an echo is lost");
    ck_assert_uint_eq(server_faults(&server, "send"), 2);
    ck_assert_uint_ge(server_faults(&server, "epoll_wait"), 10);
    rests(&server);
    for (int i = 0; i < 2; i++)
        ck_assert_msg(client_gets_echo(clients[i], "again"), "client %d is not served any more", i + 1);
}
END_TEST

/* How many calls of epoll_ctl() it takes to start and to serve so many clients. */
static unsigned controls_for(size_t count)
{
    int clients[ROOM];
    struct server server = start(&(struct server_setup){.faults = ""});
    need_own_kqueue();
    connect_served(&server, clients, count);
    rests(&server);
    unsigned controls = (unsigned)server_calls(&server, "epoll_ctl");
    server_stop(&server, SIGTERM);
    for (size_t i = 0; i < count; i++)
        close(clients[i]);
    return controls;
}

START_TEST(add_refused)
{
    enum { INSIDE = 2 };
    int inside[INSIDE];
    int later;
    char faults[64];
    snprintf(faults, sizeof faults, "epoll_ctl:%u=ENOMEM", controls_for(INSIDE) + 1);
    struct server server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, inside, INSIDE);
    int before = server_descriptors(&server);
    int lost = client_connect(&server);
    ck_assert_msg(client_ending(lost) != STILL_OPEN,
                  "a client cannot be watched, and its connection stays open");
    ck_assert_uint_eq(server_faults(&server, "epoll_ctl"), 1);
    ck_assert_int_eq(server_descriptors(&server), before);
    connect_served(&server, &later, 1);
    for (size_t i = 0; i < INSIDE; i++)
        ck_assert_msg(client_gets_echo(inside[i], "and me?"),
                      "a new client could not be watched, and client %zu is not served", i + 1);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
END_TEST

START_TEST(change_refused)
{
    int clients[2];
    int later;
    char faults[64];
    unsigned controls = controls_for(2);
    /* READ is not deleted, and WRITE not added; in between kqueue_linux.c asks whether the queue is still
     * there. */
    snprintf(faults, sizeof faults, "epoll_ctl:%u=ENOMEM epoll_ctl:%u=ENOMEM", controls + 1, controls + 3);
    struct server server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, clients, 2);
    int before = server_descriptors(&server);
    client_flood(clients[1], 1);
    ck_assert_msg(eventually(server_faults(&server, "epoll_ctl") == 2), "nothing failed: nothing was shown");
    ck_assert_msg(eventually(!server_alive(&server) || server_descriptors(&server) == before - 1) &&
                      server_alive(&server),
                  "room to send cannot be watched, and the client is kept in vain, or the server has ended");
    ck_assert_msg(client_ending(clients[1]) != STILL_OPEN, "the client was not closed");
    ck_assert_msg(client_gets_echo(clients[0], "and me?"), "one client was lost, and another is not served");
    rests(&server);
    connect_served(&server, &later, 1);
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
END_TEST

START_TEST(door_refused)
{
    int client;
    int later;
    char faults[64];
    unsigned controls = controls_for(1);
    /* The listening socket is disabled, and then not enabled again. */
    snprintf(faults, sizeof faults, "epoll_ctl:%u=ENOMEM", controls + 2);
    struct server server = start(&(struct server_setup){.faults = faults});
    connect_served(&server, &client, 1);
    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_calls(&server, "epoll_ctl") > controls),
                  "out of descriptors, and the listening socket is still watched");
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "let me in"), "the client is not let in");
    ck_assert_uint_eq(server_faults(&server, "epoll_ctl"), 1);
    connect_served(&server, &later, 1);
    ck_assert_msg(client_gets_echo(client, "and me?"), "the client inside is not served");
}
END_TEST

/* ---- silence ---- */

enum { TIMEOUT_MS = 1000 }; /* of --idle-timeout 1 */

START_TEST(silent)
{
    struct server server = start_with("--idle-timeout", "1");
    int base = server_descriptors(&server);
    int64_t began = now_ms();
    int client = client_connect(&server);
    ck_assert_msg(client_ending(client) == ENDED, "a client says nothing, and is not closed");
    ck_assert_msg(now_ms() - began >= TIMEOUT_MS - 10, "a client was closed after %lld ms, and not %d",
                  (long long)(now_ms() - began), TIMEOUT_MS);
    ck_assert_int_eq(server_descriptors(&server), base);

    server_stop(&server, SIGTERM);
    server = start(NULL);
    client = client_connect(&server);
    ck_assert_msg(client_hears_nothing(client, 2 * TIMEOUT_MS),
                  "no timeout was asked for, and a client is closed");
}
END_TEST

/* One client talks while two others, one after the other, are closed for their silence. Returns
 * whether it is there still; *silence becomes the longest time between two of its words, in ms. */
static bool outlives_two(const struct server *server, int64_t *silence)
{
    int talker = client_connect(server);
    int64_t last = now_ms();
    *silence = 0;
    for (int i = 0; i < 2; i++) {
        int other = client_connect(server);
        while (client_hears_nothing(other, 20)) {
            int64_t before = now_ms();
            bool there = talks(talker);
            *silence = now_ms() - last > *silence ? now_ms() - last : *silence;
            last = before;
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
    struct server server = start_with("--idle-timeout", "1");
    for (int i = 0; i < TRIES; i++) {
        int64_t silence;
        if (outlives_two(&server, &silence))
            return;
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
    client_hears_nothing(client, TIMEOUT_MS / 3); /* its timer runs, and will fire too early */
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

START_TEST(timer_left_alone)
{
    enum { CLIENTS = 5, MESSAGES = 10 };
    int clients[CLIENTS];
    struct server server = start_with("--idle-timeout", "1000000");
    connect_served(&server, clients, CLIENTS);
    hold(&server, clients[0]);
    for (size_t i = 0; i < MESSAGES; i++) {
        say(&server, clients, i % CLIENTS, "hello");
        woken_turn(&server);
        gets_back(clients[i % CLIENTS], "hello");
        ck_assert_msg(times(SYS_timerfd_settime, -1) == 0 && changed(-1) == 0,
                      "for one message a timer was set %zu times", times(SYS_timerfd_settime, -1));
    }
    trace_end(&server);
}
END_TEST

START_TEST(next_in_place)
{
    int first;
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
}
END_TEST

/* Whether no timer of the server runs, as the kernel shows its timerfd. */
static bool no_timer_runs(const struct server *server, int timerfd)
{
    char name[64];
    char line[128];
    bool runs = false;
    snprintf(name, sizeof name, "/proc/%d/fdinfo/%d", (int)server->pid, timerfd);
    FILE *file = fopen(name, "re");
    if (file == NULL)
        tap_skip("%s: %s", name, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL)
        runs |= strncmp(line, "it_value:", 9) == 0 && strstr(line, "(0, 0)") == NULL;
    fclose(file);
    return !runs;
}

START_TEST(timer_ends)
{
    enum { CLIENTS = 3, IN_A_ROW = 20 };
    int clients[CLIENTS];
    int found = 0;
    struct server server = start_with("--idle-timeout", "1");
    connect_served(&server, clients, CLIENTS);
    need_own_kqueue();
    int timerfd = lowest(&server, "anon_inode:[timerfd]");
    ck_assert_msg(timerfd >= 0 && !no_timer_runs(&server, timerfd), "no timer runs: nothing was shown");
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
    /* A timer that is periodic does not run for an instant when it has fired: so look several times. */
    ck_assert_msg(
        eventually((found = server_asleep(&server) && no_timer_runs(&server, timerfd) ? found + 1 : 0) ==
                   IN_A_ROW),
        "all clients have left, and a timer runs on and on");
}
END_TEST

START_TEST(wrong_timeouts)
{
    static const char *const values[] = {"0", "-1", "x", "", "1x", "1000001", "99999999999999999999"};
    server_choose(kqueue_server);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct run run = run_program((const char *const[]){"--idle-timeout", values[i], "--port", "0", NULL});
        const char *end = strchr(run.err, '\n');
        ck_assert_msg(run.status == 2, "--idle-timeout \"%s\": the status is %d", values[i], run.status);
        ck_assert_msg(end != NULL && end[1] == '\0' && strstr(run.err, "--idle-timeout") != NULL,
                      "--idle-timeout \"%s\": on stderr is \"%s\"", values[i], run.err);
        ck_assert_str_eq(run.out, "");
    }
}
END_TEST

/* ---- signals ---- */

START_TEST(stop)
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
END_TEST

START_TEST(stop_before_wait)
{
    /* How many clients it takes until that moment, of whom the first says something. */
    static const struct {
        const char *fault;
        int clients;
    } moments[] = {{"listen:1=SIGTERM", 0},
                   {"epoll_wait:1=SIGTERM", 0},
                   {"epoll_wait:3=SIGTERM", 1},
                   {"accept:2=SIGTERM", 2}};
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        server_choose(kqueue_server);
        struct server server = server_start(&(struct server_setup){.faults = moments[i].fault});
        for (int j = 0; j < moments[i].clients; j++) {
            int client = client_connect(&server);
            if (j == 0)
                client_send(client, "hello", 5);
        }
        int status = server_wait(&server);
        ck_assert_msg(status == 0, "a signal at %s, and the status is %d", moments[i].fault, status);
    }
}
END_TEST

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

START_TEST(stop_ready)
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
END_TEST

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

START_TEST(stop_owed)
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
END_TEST

START_TEST(statistics)
{
    int clients[3];
    struct server server = start(NULL);
    int base = server_descriptors(&server);
    connect_served(&server, clients, 3);
    close(clients[1]);
    ck_assert(eventually(server_descriptors(&server) == base + 2));
    rests(&server);
    kill(server.pid, SIGUSR1);
    ck_assert_msg(eventually(strcmp(server_errors(&server), "kqueue: clients: 2 now, 1 before\n") == 0),
                  "two clients are there, one has left, and on stderr is \"%s\"", server_errors(&server));
    ck_assert_msg(client_gets_echo(clients[0], "and me?"), "SIGUSR1, and a client is not served any more");
    close(clients[0]);
    ck_assert(eventually(server_descriptors(&server) == base + 1));
    rests(&server);
    kill(server.pid, SIGUSR1);
    ck_assert_msg(eventually(strstr(server_errors(&server), "kqueue: clients: 1 now, 2 before\n") != NULL),
                  "asked again, and on stderr is \"%s\"", server_errors(&server));
    rests(&server);
    ck_assert_msg(client_gets_echo(clients[2], "and me?"), "SIGUSR1, and a client is not served any more");
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
}
END_TEST

/* ---- the banner ---- */

static struct server start_with_banner(void)
{
    return start_with("--banner", path);
}

/* The next client is greeted with text, and then served. */
static void greets(const struct server *server, const char *text)
{
    rests(server); /* it has heard of the file */
    int client = client_connect(server);
    if (text[0] != '\0')
        gets_back(client, text);
    ck_assert_msg(client_gets_echo(client, "thanks"), "after the greeting \"%s\" there is no echo", text);
    close(client);
}

START_TEST(greeted)
{
    make_folder();
    write_file(path, 0, "Welcome.\n");
    struct server server = start_with_banner();
    greets(&server, "Welcome.\n");
    greets(&server, "Welcome.\n");
    rests(&server); /* it does not look at the file all the time */
    ck_assert_int_eq(server_stop(&server, SIGTERM), 0);
    remove_folder();
}
END_TEST

START_TEST(rewritten)
{
    make_folder();
    write_file(path, 0, "Welcome.\n");
    struct server server = start_with_banner();
    greets(&server, "Welcome.\n");
    write_file(path, O_TRUNC, "Good day.\n");
    greets(&server, "Good day.\n");
    write_file(path, O_APPEND, "And come in.\n");
    greets(&server, "Good day.\nAnd come in.\n");
    write_file(path, 0, "GOOD DAY.\n");
    greets(&server, "GOOD DAY.\nAnd come in.\n");
    write_file(path, O_TRUNC, "");
    greets(&server, "");
    remove_folder();
}
END_TEST

START_TEST(renamed_over)
{
    make_folder();
    write_file(path, 0, "Welcome.\n");
    struct server server = start_with_banner();
    int base = server_descriptors(&server);
    for (int i = 0; i < 2; i++) {
        write_file(other_path, 0, "Another file.\n");
        ck_assert_int_eq(rename(other_path, path), 0);
        greets(&server, "Another file.\n");
        write_file(path, 0, "ANOTHER FILE.\n"); /* it is watched in its turn */
        greets(&server, "ANOTHER FILE.\n");
    }
    ck_assert_msg(eventually(server_descriptors(&server) == base),
                  "the server keeps %d descriptors of old files", server_descriptors(&server) - base);
    remove_folder();
}
END_TEST

START_TEST(renamed_at_once)
{
    enum { TIMES = 20 };
    make_folder();
    for (int i = 0; i < TIMES; i++) {
        write_file(path, O_TRUNC, "Welcome.\n");
        write_file(other_path, 0, "Another file.\n");
        struct server server = start_with_banner();
        ck_assert_int_eq(rename(other_path, path), 0); /* it listens, and has perhaps not waited yet */
        greets(&server, "Another file.\n");
        server_stop(&server, SIGTERM);
    }
    remove_folder();
}
END_TEST

START_TEST(deleted)
{
    make_folder();
    write_file(path, 0, "Welcome.\n");
    struct server server = start_with_banner();
    ck_assert_int_eq(unlink(path), 0);
    greets(&server, "");
    write_file(path, 0, "I am back.\n");
    greets(&server, "I am back.\n");
    ck_assert_int_eq(rename(path, other_path), 0); /* away */
    greets(&server, "");
    remove_folder();
}
END_TEST

START_TEST(created_later)
{
    make_folder();
    struct server server = start_with_banner();
    greets(&server, "");
    write_file(path, 0, "Here I am.\n");
    greets(&server, "Here I am.\n");
    write_file(path, O_TRUNC, "Once more.\n");
    greets(&server, "Once more.\n");
    remove_folder();
}
END_TEST

START_TEST(changed_while_opened)
{
    int client;
    make_folder();
    write_file(path, 0, "Welcome.\n");
    struct server server = start_with_banner();
    client = client_connect(&server);
    gets_back(client, "Welcome.\n");
    hold(&server, client);
    write_file(other_path, 0, "Second.\n");
    ck_assert_int_eq(rename(other_path, path), 0);
    ck_assert_msg(eventually(wait_ends(&server)), "the file is another, and the server sleeps");
    /* It has read the new file, and asks to watch it. */
    for (int i = 0; i < 3; i++) {
        go_to(&server, SYS_inotify_add_watch, -1);
        if (calls[call_count].number == SYS_inotify_add_watch)
            break;
    }
    ck_assert_msg(calls[call_count].number == SYS_inotify_add_watch, "the new file is not watched");
    write_file(path, 0, "Third!.\n");
    turn_ends(&server);
    until_asleep(&server);
    trace_end(&server);
    greets(&server, "Third!.\n");
    remove_folder();
}
END_TEST

START_TEST(large_banner)
{
    static char text[BUFFER_SIZE + 1];
    static char back[BUFFER_SIZE];
    make_folder();
    memset(text, 'x', BUFFER_SIZE);
    text[BUFFER_SIZE - 1] = '\n';
    write_file(path, 0, text);
    /* The first client takes nothing for a while: its greeting is owed. */
    struct server server =
        start(&(struct server_setup){.arguments = {"--banner", path}, .faults = "send:1-3=EAGAIN"});
    for (int i = 0; i < 2; i++) {
        int client = client_connect(&server);
        client_send(client, "hello", 5);
        size_t got = client_receive(client, back, BUFFER_SIZE);
        ck_assert_msg(got == BUFFER_SIZE && memcmp(back, text, BUFFER_SIZE) == 0,
                      "of a greeting of %d bytes, %zu came", BUFFER_SIZE, got);
        gets_back(client, "hello");
    }
    ck_assert_uint_eq(server_faults(&server, "send"), 3);
    rests(&server);

    /* And who never reads it costs nothing. */
    int unread = client_connect(&server);
    client_flood(unread, 1);
    rests(&server);
    int last = client_connect(&server);
    ck_assert_uint_eq(client_receive(last, back, BUFFER_SIZE), BUFFER_SIZE);
    remove_folder();
}
END_TEST

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

START_TEST(full_unasked)
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
        ck_assert_msg(limit() != -1 || watched_for(&server, listener) != 0,
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
            ck_assert_msg(watched_for(&server, listener) == 0,
                          "there is no descriptor, and the listening socket is still watched: it is ready");
        }
        attempts += (int)failed;
    }
    ck_assert_msg(attempts >= ATTEMPTS, "a client waits for a descriptor, and is not asked in again");
    trace_end(&server);
    server_limit_descriptors(&server, 1000); /* and nobody leaves */
    gets_back(waiting, "let me in");
}
END_TEST

START_TEST(full_leaves)
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
    ck_assert_msg(watched_for(&server, listener) != 0,
                  "a client has left, one waits outside, and the listening socket is not watched");
    woken_turn(&server);
    ck_assert_msg(accepted(&failed) == 1, "a client has left, and the one who waits outside is not let in");
    trace_end(&server);
    gets_back(waiting, "let me in");
}
END_TEST

START_TEST(full_counted)
{
    enum { CLIENTS = 3, ATTEMPTS = 10 };
    int clients[CLIENTS];
    struct server server = start(&(struct server_setup){.faults = ""});
    need_own_kqueue();
    connect_served(&server, clients, CLIENTS);
    rests(&server);
    server_limit_descriptors(&server, (unsigned)server_descriptors(&server));
    uint64_t failures = server_failures(&server, "accept");
    int waiting = client_connect(&server);
    ck_assert_msg(eventually(server_failures(&server, "accept") > failures), "accept() did not fail");

    int64_t wall = now_ms();
    uint64_t waits = server_calls(&server, "epoll_wait");
    failures = server_failures(&server, "accept");
    ck_assert_msg(eventually(server_failures(&server, "accept") >= failures + ATTEMPTS),
                  "a client waits for a descriptor, and is not asked in again");
    waits = server_calls(&server, "epoll_wait") - waits;
    failures = server_failures(&server, "accept") - failures;
    wall = now_ms() - wall;
    printf("# kqueue: out of descriptors, in %lld ms: %llu calls of accept(), %llu of epoll_wait()\n",
           (long long)wall, (unsigned long long)failures, (unsigned long long)waits);
    fflush(stdout);
    /* The counters are read one after the other, while the server goes on. */
    ck_assert_msg((int64_t)failures <= wall / TICK_MS + 1, "in %lld ms accept() failed %llu times",
                  (long long)wall, (unsigned long long)failures);
    ck_assert_msg(waits <= 2 * failures + 2, "accept() failed %llu times, and the server woke %llu times",
                  (unsigned long long)failures, (unsigned long long)waits);
    server_limit_descriptors(&server, 1000);
    ck_assert_msg(client_gets_echo(waiting, "thanks"),
                  "there are descriptors again, and the client is not served");
}
END_TEST

/* ---- the table ---- */

#define KQUEUE_ROW(test, name, expected, cause)         \
    {                                                   \
        "kqueue: " name, test, expected, cause, THE_API \
    }
#define ROW(test, name, expected, cause, section)           \
    {                                                       \
        "the server: " name, test, expected, cause, section \
    }

/* What START_TEST defines is no constant expression: so the table is made here. */
int main(int argc, char **argv)
{
    /* clang-format off */
    const struct tap_test tests[] = {
        KQUEUE_ROW(one_call, "one call hands over a change and brings what has happened",
                   "A socket with 5 bytes is added, and the same kevent() reports it, with data 5.",
                   "The changes are made after the waiting; or kevent() with changes does not wait."),
        KQUEUE_ROW(level, "READ is reported until all has been read, and data counts the bytes",
                   "As long as a byte waits, each call says so, and how many wait now.",
                   "EV_CLEAR was asked for; or data is what came last, and not what waits."),
        KQUEUE_ROW(clear, "with EV_CLEAR, READ is reported once for what has come",
                   "It is told once, and again when more comes; data is all that waits.",
                   "EV_CLEAR was not asked for; or it is taken to mean that what was told has been read."),
        KQUEUE_ROW(oneshot, "EV_ONESHOT reports once, and deletes",
                   "After one event nothing is watched: EV_DELETE says ENOENT, and EV_ADD begins anew.",
                   "It was taken for EV_DISPATCH, which keeps the event."),
        KQUEUE_ROW(dispatch, "EV_DISPATCH reports once, and disables",
                   "After one event it is silent, until it is enabled. EV_ADD | EV_ENABLE does that everywhere.",
                   "It was taken for EV_ONESHOT, which deletes the event."),
        KQUEUE_ROW(disable, "EV_DISABLE keeps an event and reports nothing; EV_ENABLE looks at what is there",
                   "What came while it was disabled is told when it is enabled.",
                   "What had happened before EV_DISABLE is still told."),
        KQUEUE_ROW(receipt, "EV_RECEIPT answers each change, and fetches no event",
                   "Two changes: two EV_ERROR events with data 0. The socket that is ready is reported by the next call.",
                   "With room for more than the answers, an event could come among them."),
        KQUEUE_ROW(errors_answered, "a change that is refused is answered with EV_ERROR, and the others are made",
                   "Two of four are wrong: ENOENT and EBADF in data, ident says whose; the first and the last are made.",
                   "An answer is taken for an event: data is not a number of bytes then, but an errno."),
        KQUEUE_ROW(errors_without_room, "with no room for the answer kevent() fails, and the changes after that one are not made",
                   "It returns -1 with ENOENT. The first change was made, the third was not.",
                   "An array for events has no room, and changes that may fail are handed over."),
        KQUEUE_ROW(listening_data, "data of a listening socket says how many wait",
                   "3, then 2, then 1, and no event when all are in.",
                   "data is taken for a number of bytes."),
        KQUEUE_ROW(end_behind_data, "EV_EOF comes while data is still to be read",
                   "Ten bytes and a FIN: one event with EV_EOF and data 10. fflags is 0: no error. The other direction is open.",
                   "EV_EOF is taken for the end of what can be read."),
        KQUEUE_ROW(reset_error, "after a RST, EV_EOF comes with the error in fflags",
                   "fflags is ECONNRESET.",
                   "The error was taken from the socket before (SO_ERROR), which gives it once."),
        KQUEUE_ROW(room_data, "WRITE is reported while there is room to send, and data is how much",
                   "At most what the buffer holds; nothing when it is full; again when the other side has read.",
                   "WRITE is always ready but for a full buffer: watched while nothing is owed, it spins."),
        KQUEUE_ROW(periodic, "a timer fires again and again, and data counts how often",
                   "Left alone for 100 ms, a timer of 10 ms is one event, and data says how often it has fired.",
                   "An event is taken for one interval."),
        KQUEUE_ROW(once, "with EV_ONESHOT a timer fires once",
                   "One event with data 1; then it is gone: EV_DELETE says ENOENT.",
                   "EV_ONESHOT was forgotten."),
        KQUEUE_ROW(signals_counted, "a signal that is ignored is counted",
                   "Three signals: one event with data 3.",
                   "Its action was left at the default, which ends the process before kevent() says anything."),
        KQUEUE_ROW(user, "USER is reported when it is triggered",
                   "NOTE_TRIGGER from anywhere in the process; with EV_CLEAR, once.",
                   "NetBSD before 10 and OpenBSD before 7.8 have no EVFILT_USER: a pipe does the same."),
        KQUEUE_ROW(file_notes, "VNODE tells what happens to a file",
                   "NOTE_WRITE, with NOTE_EXTEND when it grows, NOTE_ATTRIB, NOTE_RENAME, NOTE_DELETE, one by one.",
                   "A file is watched by its descriptor and not by its name: a new file with the name is another."),
        KQUEUE_ROW(folder_notes, "VNODE of a folder tells of names, and not of what is in the files",
                   "NOTE_WRITE when a file is made, renamed or deleted in it; nothing when one is written to.",
                   "A folder's content is its names."),
        KQUEUE_ROW(all_in_one, "a socket, a timer, a signal and a file in one queue",
                   "Four changes with one call, then four events; filter and ident say which is which.",
                   "An event is known by its ident alone: signal 10 is not descriptor 10."),
        KQUEUE_ROW(close_removes, "with its descriptor a socket leaves the queue",
                   "After close() nothing is reported, also not for the next socket with that number.",
                   "There is a copy of the descriptor (dup, fork)."),
        KQUEUE_ROW(added_twice, "what is added twice is there once, with the udata of the second",
                   "EV_ADD of what is there changes it: no EEXIST, and one event.",
                   "It was taken for epoll's EPOLL_CTL_ADD."),
        KQUEUE_ROW(nested, "a queue with an event is readable, also for another queue",
                   "poll() says so, and a READ event of another kqueue.",
                   "The inner one has no event."),

        ROW(idle, "silent clients wake nobody",
            "With 20 silent clients the wait has no limit of time, and the server sleeps in it.",
            "A timeout where nothing is to be looked at; or something is watched that is always ready.",
            THE_IDEA),
        ROW(message, "one message is one wake-up, and nothing to hand over",
            "A client speaks: one event, one receive, one send, no change. READ stays as it is.",
            "The filter is added anew after each event; or EV_ONESHOT, which makes that necessary; or a receive until EAGAIN.",
            THE_IDEA),
        ROW(handed_over, "changes are handed over in the call that waits",
            "Five clients come, two speak, one leaves: five changes, all of them at the end of a turn, with the next wait.",
            "kevent() is called for each change, as epoll_ctl() would be: a system call each.",
            THE_SERVER),
        ROW(door_counted, "as many clients are let in as data says",
            "Five wait: five calls of accept() in one turn, and none that finds nobody.",
            "accept() until EAGAIN, one call too many each time; or one client for each event, a wake-up each.",
            THE_SERVER),
        ROW(crowd_bounded, "a crowd at the door does not keep those inside waiting",
            "200 clients come at once. In each turn at most 64 are let in, and the one inside is served.",
            "data says 200, and is taken at its word.", THE_SERVER),
        ROW(stall, "a client is watched for WRITE while it is owed bytes, and for READ while it is not",
            "When it takes no more: READ away, WRITE added. When all is paid, the reverse. In between nothing changes.",
            "WRITE is left on, and room to send wakes the server at each turn; or READ is, and what the client sends does.",
            THE_SERVER),
        ROW(owing, "a client that does not read is owed its bytes, and the others are served",
            "Nine others are served meanwhile. Then everything comes back, and the client is served again.",
            "Room to send is not watched for, or what it says is not watched for afterwards.", THE_SERVER),
        ROW(end_with_data, "what came with the end is echoed",
            "192 KiB and a FIN: one event with EV_EOF and data. All of it comes back, then the connection is closed.",
            "EV_EOF is taken for \"close now\"; or the client is served once more and then closed, and data was more than\n"
            "one receive brings.",
            IN_THE_WILD),
        ROW(end_owed, "who ends while it is owed bytes gets them all, and the server sleeps meanwhile",
            "READ is not watched, so the end wakes nobody. When all is paid, it is found, and the connection closed.",
            "READ stays watched: EV_EOF is reported without end; or EV_EOF closes a client that is owed bytes.",
            IN_THE_WILD),
        ROW(leaves, "who leaves is closed, and that is all",
            "With its descriptor a client leaves the queue: nothing need be handed over.",
            "EV_DELETE before close(), a change in vain; or for a descriptor that is another's by then.", THE_SERVER),
        ROW(reset_idle, "a client that resets is lost, and nobody else",
            "EV_EOF, and the receive fails: the connection is closed, the others go on, and the server sleeps.",
            "The error ends the server; or the client is kept, and reported again and again.", THE_SERVER),
        ROW(reset_owed, "a client that resets while it is owed bytes is lost, and nobody else",
            "WRITE brings EV_EOF, the send fails, the connection is closed.",
            "EV_EOF is looked at for READ only.", THE_SERVER),
        ROW(stale_event, "an event of one who has left never touches who has its descriptor now",
            "An event carries the generation of its client in udata. It is an old one: nothing is done.",
            "udata is not looked at, or does not change when a client leaves: a descriptor says nothing of who has it.",
            THE_SERVER),
        ROW(table_grows, "the tables grow while clients are served",
            "200 come at once while one is owed bytes: clients and changes move in memory, and nobody notices.",
            "udata is a pointer into a table that realloc() has moved; or the list of changes is too short for a turn.",
            THE_SERVER),
        ROW(interrupted, "kevent() that is interrupted has taken the changes",
            "EINTR: no event, but the changes are made. They are not handed over again, and nothing ends.",
            "They are: EV_DELETE of what is not there any more is answered with ENOENT, and costs the client. Or EINTR\n"
            "ends the server.",
            THE_SERVER),
        ROW(add_refused, "a client that cannot be watched is turned away, and nobody else",
            "EV_ADD is answered with EV_ERROR and ENOMEM: that client is closed, and the next is let in.",
            "EV_ERROR is not looked at: the client stays, and is never heard. Or it ends the server.", THE_SERVER),
        ROW(change_refused, "a client for whom a change is refused is lost, and nobody else, and once",
            "Two changes of one client are refused: two EV_ERROR events, and by the second it has been closed.",
            "EV_ERROR is not looked at; or who has left is not: it is closed a second time, and whoever has the\n"
            "descriptor by then with it.",
            THE_SERVER),
        ROW(door_refused, "when the listening socket cannot be watched again, that is tried once more",
            "EV_ERROR for the listening socket: a tenth of a second later the change is made again.",
            "EV_ERROR is taken for an event, data, an errno, for the number of clients who wait, and the door stays shut.",
            THE_SERVER),
        ROW(silent, "a silent client is closed when its time is over, and not before",
            "--idle-timeout 1: closed after a second. Without the option: never.",
            "The timer is not set; or its unit is not the millisecond.", THE_SERVER),
        ROW(talker, "a client that talks is not closed",
            "While two others are closed for their silence, one after the other, it gets its echo.",
            "The timer closes whomever it finds; it should ask first when the client was last heard.", THE_SERVER),
        ROW(spoke_once, "a client that spoke and then falls silent has its whole time, and is closed",
            "The timer fires, finds that it has spoken, and is set again for the rest of the time.",
            "A timer with EV_ONESHOT is gone when it has fired, and is not set again.", THE_SERVER),
        ROW(owed_is_not_silent, "a client that is owed bytes is not silent",
            "It does not read, and says nothing, for two seconds and more: it is kept, and gets all. Then it is silent, and\n"
            "closed.",
            "The timer asks only when the client was last heard; or it is not set again for one that was owed bytes.",
            THE_SERVER),
        ROW(timer_left_alone, "a message sets no timer",
            "What is noted is the time. The timer is set when a client comes, and when it has fired.",
            "The timer is set anew with each message: a change, and with kqueue_linux.c a system call.", THE_SERVER),
        ROW(next_in_place, "the timer of one who left does not hit the next client in its place",
            "Who leaves after half a second leaves a timer behind, with its number. The next has a timer of its own, and its\n"
            "whole time.",
            "The timer is taken for the new client's; or the new client's is not set.", THE_SERVER),
        ROW(timer_ends, "when all have left, no timer runs",
            "The timer of who has left fires once more, finds nobody, and is gone.",
            "Without EV_ONESHOT it fires for ever, and wakes the server each time.", THE_SERVER),
        ROW(wrong_timeouts, "a wrong --idle-timeout ends the server, with status 2 and one line",
            "0, -1, x, 1x, 1000001, nothing at all, and what no number can hold.",
            "atoi(), which takes anything; or strtol(), and its end, or errno, was not looked at.", THE_SERVER),
        ROW(stop, "SIGTERM and SIGINT stop the server",
            "EVFILT_SIGNAL reports them, the clients are closed, and the status is 0.",
            "The signal was not set to be ignored: its default action ends the process, status 143 or 130.", THE_SERVER),
        ROW(stop_before_wait, "a signal that comes before the wait is not lost",
            "Before the first wait, between two, or in the middle of a turn: the queue has recorded it.",
            "The signal is ignored from the start, and the queue hears of it only with the first wait, after the line on\n"
            "stdout that invites others.",
            THE_SERVER),
        ROW(stop_blocked, "signals that were blocked when the server was started stop it",
            "Whoever started it had blocked them, and a program inherits that. They are unblocked.",
            "Blocked, a signal stays pending; over kqueue_linux.c nothing is recorded then.", THE_SERVER),
        ROW(stop_ready, "who is ready at the stop is served, and then closed",
            "40 clients have spoken, 200 more are at the door, and the signal comes: each of them gets its words\n"
            "back, and the end.",
            "The loop ends with the signal, and what has come is forgotten.", THE_SERVER),
        ROW(stop_owed, "who is owed bytes at the stop gets them",
            "Five clients have not read. The signal comes, then they read: all that had arrived comes back.",
            "Everything is closed at once; or nobody wakes when there is room again.", THE_SERVER),
        ROW(statistics, "SIGUSR1 has it write how many clients there are, and nothing else",
            "A line on stderr each time; all are served as before.",
            "The signal is taken for a stop; or its action was left at the default, which ends the process.", THE_SERVER),
        ROW(greeted, "with --banner each client is greeted, and then served",
            "The text of the file comes first, then the echo. The server sleeps in between.",
            "A receipt for the change that watches the file is taken for an event of the file; or the file is read once\n"
            "for each client.",
            THE_SERVER),
        ROW(rewritten, "a banner that is rewritten in place greets the next client",
            "Made anew, longer, overwritten, empty: NOTE_WRITE, and it is read again.",
            "The file is not watched; or EV_ONESHOT, and only the first change is seen.", THE_SERVER),
        ROW(renamed_over, "a banner that is renamed over greets the next client, and is watched in its turn",
            "Most editors write a new file and rename it: the old one is NOTE_DELETE, its folder NOTE_WRITE.",
            "The old file is read again, which nobody sees any more; or it stays open; or the new one is not watched.",
            THE_SERVER),
        ROW(renamed_at_once, "a banner that is renamed over as soon as the server listens greets the next client",
            "Its folder is watched before the file is opened: whatever comes in its place afterwards is seen.",
            "The file is opened, then the folder is watched: what is renamed in between is never seen.", THE_SERVER),
        ROW(deleted, "a banner that is deleted greets nobody, until it is back",
            "No greeting, and no error. When the file is made again, its folder says so.",
            "The text of the file that is gone is kept; or nobody hears that it is back.", THE_SERVER),
        ROW(created_later, "a banner that is not there yet greets as soon as it is",
            "The server starts without it, and hears of it from the folder.",
            "A file that is not there ends the server; or it is looked for at the start only.", THE_SERVER),
        ROW(changed_while_opened, "a banner that changes between reading and watching is read once more",
            "The file was opened and read; before the change that watches it is made, it is rewritten. The receipt comes, and\n"
            "the text is read again.",
            "Read, then watched: what happens in between nobody reports.", THE_SERVER),
        ROW(large_banner, "a large greeting is owed to who takes it slowly",
            "64 KiB, and no room to send three times: the greeting comes whole, and then the echo.",
            "The greeting is sent once, and the rest forgotten; or the client's words are echoed into it.", THE_SERVER),
        ROW(full_unasked, "out of descriptors, the listening socket is left alone for a while",
            "accept() fails with EMFILE, and somebody still waits: EV_DISABLE. Those inside are served; a tenth of a second\n"
            "later it is tried once. When the limit is raised, the one who waits is let in.",
            "The listening socket is ready, and watched: kevent() returns at once for ever.", THE_SERVER),
        ROW(full_leaves, "out of descriptors, who waits is let in when somebody leaves",
            "With the descriptor that comes free, the listening socket is watched again, at once.",
            "Nothing but the clock ends the time in which it is left alone.", THE_SERVER),
        ROW(full_counted, "out of descriptors, a second costs ten calls of accept",
            "A tenth of a second lies between two tries, and two wake-ups.",
            "The listening socket stays ready, accept() fails, and the loop asks again at once.", THE_SERVER),
    };
    /* clang-format on */

    if (argc > 1)
        kqueue_server = argv[1];
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
