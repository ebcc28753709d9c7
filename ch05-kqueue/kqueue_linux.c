/* kqueue_linux.c - kqueue(2) for Linux: BSD's model, built on Linux' own.
 *
 * The descriptor of a queue is that of an epoll. So it can be polled, and
 * watched by other queues, and there is one rule: whatever is ready shows in
 * the epoll. What is watched how:
 *   READ, WRITE, sockets and pipes   epoll itself, one registration for both
 *   TIMER          one timerfd a queue, set to the first of all its timers
 *   SIGNAL         a signal handler, which counts, and writes to an eventfd
 *   VNODE, and READ of a file, which is no matter for epoll   one inotify a queue
 *   PROC           a pidfd each
 *   USER, and whatever is ready already and cannot be told again by epoll
 *                  a list of events to look at, and an eventfd, readable while it is not empty
 * kevent() costs one epoll_wait(), one epoll_ctl() for a change of READ or WRITE,
 * and for an event of READ one ioctl(), which gives `data`.
 *
 * It follows kqueue(2) of FreeBSD 14. Known differences:
 *  1. A queue is closed without our knowing: what it holds (a few descriptors, its
 *     memory) is given back by the next kqueue(). It is closed on exec.
 *  2. A descriptor that is closed leaves the queue with the last descriptor of its
 *     file: where there are others (dup, fork), EV_DELETE before close(), else epoll
 *     goes on watching, wakes us, and cannot be told to stop (epoll(7)).
 *  3. EV_ADD of an event that is there sets its flags anew, too, and not only its
 *     fflags, data and udata. EV_ADD comes back in flags, as on NetBSD and macOS
 *     (not with USER); an EV_ERROR event has the flags of its change. As there, a
 *     change without EV_ADD, too, sets udata (but for EV_KEEPUDATA) and fflags.
 *  4. EV_EOF's fflags take the error from the socket: SO_ERROR and recv() do not
 *     give it again. NOTE_LOWAT sets SO_RCVLOWAT of the socket; WRITE has none.
 *  5. READ and WRITE of one descriptor, one of them with EV_CLEAR: what happens to
 *     one may show the other again, if that is ready.
 *  6. `data` of READ: 1 for a kqueue, and others that Linux does not count for.
 *     Of WRITE: for a socket, bytes as the kernel counts them, with its own overhead.
 *  7. SIGNAL installs a handler, which calls the one before it. So the disposition
 *     must be set before EV_ADD (else: EV_ADD again); where it is the default
 *     action and that ends or stops the process, nothing is recorded. A blocked
 *     signal is recorded when it is unblocked. An ignored one is recorded, but it may
 *     end a sleep() or a poll() with EINTR, and exec finds it at its default.
 *  8. VNODE: a rename or unlink of one link is told to all; a truncation is a
 *     NOTE_WRITE; NOTE_REVOKE comes from an unmount only.
 *  9. PROC: NOTE_EXIT only; data is the status of our own children, else 0.
 * 10. Timeouts are rounded up to milliseconds. NOTE_ABSTIME does not follow a clock that is set.
 * 11. No AIO, EMPTY, PROCDESC, FS.
 * Threads: all may use a queue, and a change wakes those that wait. A lock
 * a queue, held while events are told, never while waiting.
 * Needs Linux 5.3 (pidfd_open) and /proc. Try: the Makefile's kqueue, or
 *   cc -std=c11 -Ikqueue_linux -o kqueue kqueue.c kqueue_linux.c conn.c net.c */
#define _GNU_SOURCE /* struct tcp_info, EPOLLRDHUP, F_GETPIPE_SZ, syscall */

#include <sys/event.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHAINS = 1024,   /* of the hash table of timers, signals, processes and users */
    BATCH = 256,     /* events that one epoll_wait() brings */
    SIGNALS = _NSIG, /* signal numbers are below */
    PERMANENT = EV_ADD | EV_ONESHOT | EV_CLEAR | EV_DISPATCH, /* flags that an event keeps */
};

static const int64_t NEVER = INT64_MAX;

/* [knote] */
/* One event that somebody wants to hear of; BSD's kernels call it a knote. It is
 * in one table always (by descriptor, or in a chain of the hash table), and in
 * the list of those to be looked at while it may be ready. */
struct knote {
    struct kevent event; /* as it was set */
    bool disabled;
    bool listed;
    struct knote *before, *after; /* in that list */
    struct knote *next;           /* in its chain */
    /* TIMER */
    int64_t deadline, period; /* in ns of CLOCK_MONOTONIC; period 0: fires once */
    size_t place;             /* in the heap, from 1; 0: not in it */
    /* SIGNAL: how many had been raised when it was reported last */
    unsigned long seen;
    /* USER */
    bool triggered;
    /* PROC */
    int pidfd;
    /* VNODE, and READ of a file */
    bool file;
    int watch;          /* inotify's, or -1 */
    struct stat status; /* as it was seen last */
    unsigned notes;     /* what has happened since */
    struct knote *next_file;
};

/* Who is behind a descriptor in our epoll. */
enum source { USERS_OWN, WAKE, CLOCK, FILES, A_SIGNAL };

enum { READING, WRITING, VNODE, FILTERS_EACH };

/* What is watched of one descriptor. */
struct slot {
    uint32_t generation; /* which of the files that had this number epoll watches */
    uint32_t mask;       /* for what; 0: epoll does not have it */
    enum source source;
    int number;    /* of A_SIGNAL */
    bool listener; /* found to be a listening socket */
    int error;     /* taken from the socket */
    struct knote *knotes[FILTERS_EACH];
};

struct kqueue {
    int epoll;
    struct kqueue *older; /* in the list of all queues */
    atomic_int calls;     /* of kevent() that are under way */
    bool known;           /* epoll has taken a change in this call: so it is still ours */
    pthread_mutex_t lock;
    struct slot *slots; /* by descriptor */
    size_t room;
    struct knote *chains[CHAINS];
    struct knote *first, *last; /* the list of those to be looked at */
    size_t listed;
    int wake; /* an eventfd: readable, if woken */
    bool woken;
    int clock;           /* a timerfd */
    int64_t alarm;       /* what it is set to, or NEVER */
    struct knote **heap; /* the timers, the first one at 1 */
    size_t timers, heap_room;
    int inotify; /* or -1 */
    struct knote *files;
};
/* [/knote] */

/* Each filter is four functions, much as in BSD's kernels (filterops: attach
 * and touch, event, detach). */
struct filter {
    /* Begins to watch (fresh), or takes a change. Returns 0 or an errno. */
    int (*set)(struct kqueue *, struct knote *, const struct kevent *change, bool fresh);
    /* Whether it is ready, and what to report: fills in fflags, data, and EV_EOF. Changes
     * nothing. events: what epoll has said of the descriptor, 0: nothing, ask. */
    bool (*ready)(struct kqueue *, struct knote *, uint32_t events, struct kevent *report);
    /* It was reported, and has EV_CLEAR: what has happened is over. May be NULL. */
    void (*clear)(struct kqueue *, struct knote *, const struct kevent *report);
    /* Ends the watching. Returns 0, or an errno if it had ended before. May be NULL. */
    int (*end)(struct kqueue *, struct knote *);
};

static const struct filter *filter_of(int number);
static void unwatch_file(struct kqueue *kq, struct knote *knote);

static int64_t now_of(clockid_t id)
{
    struct timespec now;
    if (clock_gettime(id, &now) < 0)
        abort(); /* only for a clock that is none */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- The list of those to be looked at ---- */

static void enlist(struct kqueue *kq, struct knote *knote)
{
    if (knote->listed)
        return;
    knote->listed = true;
    knote->before = kq->last;
    knote->after = NULL;
    *(kq->last != NULL ? &kq->last->after : &kq->first) = knote;
    kq->last = knote;
    kq->listed++;
}

static void delist(struct kqueue *kq, struct knote *knote)
{
    if (!knote->listed)
        return;
    knote->listed = false;
    *(knote->before != NULL ? &knote->before->after : &kq->first) = knote->after;
    *(knote->after != NULL ? &knote->after->before : &kq->last) = knote->before;
    kq->listed--;
}

/* Lets the epoll be ready while the list is not empty: for who polls the queue,
 * for other threads, and for the next call. */
static void set_wake(struct kqueue *kq)
{
    eventfd_t value = 1;

    if (kq->woken == (kq->listed > 0))
        return;
    if ((kq->woken ? eventfd_read(kq->wake, &value) : eventfd_write(kq->wake, value)) < 0)
        return; /* not ours any more: closed by one who closes all */
    kq->woken = !kq->woken;
}

/* ---- Descriptors in epoll: READ and WRITE, and what we need ourselves ---- */

/* Makes a slot for descriptor fd. Returns 0 or an errno. */
static int make_slot(struct kqueue *kq, int fd)
{
    size_t room = kq->room == 0 ? 64 : kq->room;
    while (room <= (size_t)fd)
        room *= 2;
    if (room > kq->room) {
        struct slot *slots = realloc(kq->slots, room * sizeof *slots);
        if (slots == NULL)
            return ENOMEM;
        memset(slots + kq->room, 0, (room - kq->room) * sizeof *slots);
        kq->slots = slots;
        kq->room = room;
    }
    return 0;
}

/* [control] */
/* epoll_ctl() with what an event shall carry: which descriptor, and which of the files
 * that have had its number. An event of an older one is nobody's. */
static int control(struct kqueue *kq, int operation, int fd, uint32_t mask)
{
    struct slot *slot = &kq->slots[fd];
    uint32_t generation = slot->generation + (operation == EPOLL_CTL_ADD);
    struct epoll_event event = {.events = mask, .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd};

    if (epoll_ctl(kq->epoll, operation, fd, &event) < 0)
        return errno;
    kq->known = true;
    slot->mask = operation == EPOLL_CTL_DEL ? 0 : mask;
    if (operation == EPOLL_CTL_ADD) {
        slot->generation = generation;
        slot->listener = false;
        slot->error = 0;
    }
    return 0;
}
/* [/control] */

/* [interest] */
/* What epoll shall watch a descriptor for. Edge-triggered is what EV_CLEAR asks
 * for; epoll knows one mode for a descriptor, so if only one filter asks for it,
 * an edge puts the other one into the list, where it stays until it is not ready. */
static uint32_t interest(const struct slot *slot)
{
    static const uint32_t masks[] = {[READING] = EPOLLIN | EPOLLRDHUP, [WRITING] = EPOLLOUT};
    uint32_t mask = 0;
    bool edge = false;

    for (int i = READING; i <= WRITING; i++) {
        if (slot->knotes[i] != NULL && !slot->knotes[i]->disabled) {
            mask |= masks[i];
            edge |= (slot->knotes[i]->event.flags & EV_CLEAR) != 0;
        }
    }
    return edge ? mask | EPOLLET : mask;
}
/* [/interest] */

/* Descriptor fd has turned out to be of another file: what was watched of the
 * closed one has ended, but for `except`, which is of the new one. */
static void drop_stale(struct kqueue *kq, int fd, const struct knote *except)
{
    struct slot *slot = &kq->slots[fd];

    slot->mask = 0;
    for (int i = 0; i < FILTERS_EACH; i++) {
        struct knote *knote = slot->knotes[i];
        if (knote != NULL && knote != except) {
            slot->knotes[i] = NULL;
            delist(kq, knote);
            unwatch_file(kq, knote);
            free(knote);
        }
    }
}

/* Puts a new descriptor of our own into epoll, if mask is not 0. Returns 0 or an errno. */
static int add_own(struct kqueue *kq, int fd, enum source source, uint32_t mask)
{
    if (fd < 0)
        return errno;
    int error = make_slot(kq, fd);
    if (error != 0)
        return error;
    drop_stale(kq, fd, NULL);
    kq->slots[fd].source = source;
    return mask != 0 ? control(kq, EPOLL_CTL_ADD, fd, mask) : 0;
}

/* [adjust] */
/* Tells epoll what has changed in the slot; adding: by an EV_ADD, of knote. A
 * close() has not been told to us, only to epoll: it shows when epoll does
 * not know what we think it has. When nothing seems to change, it is that most
 * often (a new connection has the number of a closed one), else an event that
 * is added twice. Returns 0 or an errno. */
static int adjust(struct kqueue *kq, int fd, const struct knote *knote, bool adding)
{
    struct slot *slot = &kq->slots[fd];
    uint32_t wanted = interest(slot);
    int error;

    if (wanted == 0) { /* not an empty mask: with that, epoll would still tell errors */
        error = slot->mask == 0 ? 0 : control(kq, EPOLL_CTL_DEL, fd, 0);
        slot->mask = 0;
        return error;
    }
    if (slot->mask == 0)
        return control(kq, EPOLL_CTL_ADD, fd, wanted);
    if (adding && wanted == slot->mask) {
        error = control(kq, EPOLL_CTL_ADD, fd, wanted);
        if (error == 0) {
            drop_stale(kq, fd, knote);
            slot->mask = wanted;
            return wanted == interest(slot) ? 0 : control(kq, EPOLL_CTL_MOD, fd, interest(slot));
        }
        if (error != EEXIST)
            return error;
    }
    error = control(kq, EPOLL_CTL_MOD, fd, wanted); /* also looks again whether it is ready now */
    if (error == ENOENT && adding) {
        drop_stale(kq, fd, knote);
        return control(kq, EPOLL_CTL_ADD, fd, interest(slot));
    }
    return error;
}
/* [/adjust] */

/* ---- VNODE, and READ of a file: inotify ---- */

/* inotify tells of a file what kqueue asks of a descriptor, and finds the file
 * through /proc, whatever its name is now. */
static const struct {
    uint32_t told;
    unsigned note;
} MEANINGS[] = {
    {IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO, NOTE_WRITE},
    {IN_MOVED_FROM | IN_MOVED_TO, NOTE_EXTEND}, /* of a directory; a file's is seen by its size */
    {IN_MOVE_SELF, NOTE_RENAME},
    {IN_DELETE_SELF, NOTE_DELETE},
    {IN_UNMOUNT, NOTE_REVOKE},
    {IN_OPEN, NOTE_OPEN},
    {IN_CLOSE_NOWRITE, NOTE_CLOSE},
    {IN_CLOSE_WRITE, NOTE_CLOSE_WRITE},
    {IN_ACCESS, NOTE_READ},
};

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Begins, or changes, the watching of knote's file. One inotify has one watch of a file, so
 * masks are added; each knote picks its notes. Returns 0 or an errno. */
static int watch_file(struct kqueue *kq, struct knote *knote)
{
    char path[32];
    uint32_t mask = IN_MODIFY | IN_ATTRIB | IN_MASK_ADD;
    for (size_t i = 0; i < sizeof MEANINGS / sizeof *MEANINGS; i++) {
        if (knote->event.filter == EVFILT_VNODE && (knote->event.fflags & MEANINGS[i].note) != 0)
            mask |= MEANINGS[i].told;
    }
    if ((knote->event.fflags & NOTE_LINK) != 0)
        mask |= IN_CREATE | IN_DELETE; /* of directories in a directory */

    if (fstat((int)knote->event.ident, &knote->status) < 0)
        return errno;
    if (kq->inotify < 0) {
        kq->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        int error = add_own(kq, kq->inotify, FILES, EPOLLIN);
        if (error != 0) {
            if (kq->inotify >= 0)
                close(kq->inotify);
            kq->inotify = -1;
            return error;
        }
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", (int)knote->event.ident);
    knote->watch = inotify_add_watch(kq->inotify, path, mask & ~(uint32_t)IN_UNMOUNT);
    return knote->watch < 0 ? errno : 0;
}

static void unwatch_file(struct kqueue *kq, struct knote *knote)
{
    bool shared = false;

    for (struct knote **link = &kq->files; *link != NULL;) {
        if (*link == knote) {
            *link = knote->next_file;
        } else {
            shared |= (*link)->watch == knote->watch;
            link = &(*link)->next_file;
        }
    }
    if (!shared && knote->watch >= 0)
        inotify_rm_watch(kq->inotify, knote->watch); /* fails if the file is gone: fine */
    knote->watch = -1;
}

/* Something has been told of knote's file: notes what that means. The link count says
 * what inotify does not: an open file that is unlinked is only an IN_ATTRIB.
 * Returns false if the descriptor is not of that file any more. */
static bool note_file(struct kqueue *kq, struct knote *knote, uint32_t told)
{
    struct stat was = knote->status;
    struct stat *is = &knote->status;

    if (fstat((int)knote->event.ident, is) < 0 || !same_file(is, &was))
        return false;
    for (size_t i = 0; i < sizeof MEANINGS / sizeof *MEANINGS; i++)
        knote->notes |= (told & MEANINGS[i].told) != 0 ? MEANINGS[i].note : 0;
    if (is->st_size > was.st_size && S_ISREG(is->st_mode))
        knote->notes |= NOTE_EXTEND;
    if (is->st_nlink != was.st_nlink)
        knote->notes |= NOTE_LINK;
    if (is->st_nlink < was.st_nlink && !S_ISDIR(is->st_mode))
        knote->notes |= NOTE_DELETE;
    if (S_ISDIR(is->st_mode) && is->st_nlink == 0)
        knote->notes |= NOTE_DELETE;
    if ((told & IN_ATTRIB) != 0 && (is->st_nlink == was.st_nlink || is->st_mode != was.st_mode ||
                                    is->st_uid != was.st_uid || is->st_gid != was.st_gid))
        knote->notes |= NOTE_ATTRIB;
    if (!knote->disabled)
        enlist(kq, knote);
    return true;
}

/* Reads what inotify has to tell. */
static void hear_files(struct kqueue *kq)
{
    _Alignas(struct inotify_event) char buffer[4096];
    ssize_t size = read(kq->inotify, buffer, sizeof buffer);

    for (ssize_t at = 0; at < size;) {
        const struct inotify_event *event = (const void *)(buffer + at);
        /* Too much has happened, and some of it was not kept: anything may have changed. */
        bool lost = (event->mask & IN_Q_OVERFLOW) != 0;
        /* With a name, it is about a file in a folder, whose content is names only. */
        uint32_t told = event->len == 0 ? event->mask : event->mask & ~(uint32_t)(IN_MODIFY | IN_ATTRIB);
        int stale = -1;
        for (struct knote *knote = kq->files; knote != NULL; knote = knote->next_file) {
            if (knote->watch == event->wd && (event->mask & IN_IGNORED) != 0)
                knote->watch = -1;
            else if ((lost || knote->watch == event->wd) &&
                     !note_file(kq, knote, lost ? IN_MODIFY | IN_ATTRIB : told))
                stale = (int)knote->event.ident;
        }
        if (stale >= 0)
            drop_stale(kq, stale, NULL);
        at += (ssize_t)(sizeof *event + event->len);
    }
}

static int set_vnode(struct kqueue *kq, struct knote *knote, const struct kevent *change, bool fresh)
{
    struct stat was = knote->status;
    struct stat is;

    if (fstat((int)change->ident, &is) < 0)
        return errno;
    if (!fresh && !same_file(&is, &was)) { /* a new file under the number of a closed one */
        if ((change->flags & EV_ADD) == 0)
            return ENOENT;
        unwatch_file(kq, knote);
        fresh = true;
    }
    knote->event.fflags = change->fflags;
    int error = watch_file(kq, knote);
    if (error != 0)
        return error;
    if (fresh) {
        knote->notes = 0;
        knote->next_file = kq->files;
        kq->files = knote;
    } else {
        knote->status = was; /* compared with what has been told of, and not with now */
    }
    return 0;
}

static bool vnode_ready(struct kqueue *kq, struct knote *knote, uint32_t events, struct kevent *report)
{
    (void)kq, (void)events;
    report->fflags = knote->notes & knote->event.fflags;
    return report->fflags != 0;
}

static void clear_vnode(struct kqueue *kq, struct knote *knote, const struct kevent *report)
{
    (void)kq, (void)report;
    knote->notes = 0;
}

/* ---- READ and WRITE ---- */

static int set_descriptor(struct kqueue *kq, struct knote *knote, const struct kevent *change, bool fresh)
{
    int fd = (int)change->ident;
    int lowat = (int)change->data;

    if (change->filter == EVFILT_READ && (change->fflags & NOTE_LOWAT) != 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof lowat) < 0)
        return errno;
    int error = adjust(kq, fd, knote, (change->flags & EV_ADD) != 0);
    if (error != EPERM) {
        if (knote->file && error == 0 && !knote->disabled) {
            unwatch_file(kq, knote);
            knote->file = false;
        }
        return error;
    }

    /* A file is always ready for poll() and epoll(7), so epoll refuses it. kqueue
     * knows better: READ waits at its end, until it grows. */
    if (fresh || !knote->file) {
        knote->file = true;
        knote->next_file = kq->files;
        kq->files = knote;
    }
    knote->event.fflags = change->fflags;
    if (watch_file(kq, knote) != 0)
        knote->watch = -1; /* not a file that changes */
    return 0;
}

/* READ of a file: `data` is how far it is to the end, and may be negative. */
static bool file_ready(struct knote *knote, struct kevent *report)
{
    struct stat status;
    int fd = (int)knote->event.ident;

    if (knote->event.filter == EVFILT_WRITE)
        return true;
    if (fstat(fd, &status) < 0)
        return false;
    off_t at = lseek(fd, 0, SEEK_CUR);
    report->data = status.st_size - (at < 0 ? 0 : at);
    return report->data != 0 || (knote->event.fflags & NOTE_FILE_POLL) != 0 || S_ISCHR(status.st_mode);
}

/* [data] */
/* Bytes that wait to be read; of a listening socket, connections that wait to be accepted. */
static int64_t readable(struct slot *slot, int fd)
{
    int bytes = 0;
    struct tcp_info info;
    socklen_t size = sizeof info;

    if (!slot->listener && ioctl(fd, FIONREAD, &bytes) == 0)
        return bytes;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 || info.tcpi_state != TCP_LISTEN)
        return 1; /* something, and Linux does not say how much */
    slot->listener = true;
    return info.tcpi_unacked > 0 ? info.tcpi_unacked : 1;
}

/* Room in the buffer, in bytes: at least one, or this would not be called. */
static int64_t writable(int fd)
{
    uint32_t memory[SK_MEMINFO_VARS];
    socklen_t size = sizeof memory;
    int used = 0;
    int64_t room = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) == 0) {
        uint32_t queued = memory[SK_MEMINFO_WMEM_QUEUED];
        uint32_t sent = memory[SK_MEMINFO_WMEM_ALLOC];
        room = (int64_t)memory[SK_MEMINFO_SNDBUF] - (queued > sent ? queued : sent);
    } else if (ioctl(fd, FIONREAD, &used) == 0) {
        room = (int64_t)fcntl(fd, F_GETPIPE_SZ) - used;
    }
    return room > 0 ? room : 1;
}
/* [/data] */

/* The error of the socket. Linux gives it once: it is kept, for all who ask here. */
static unsigned socket_error(struct slot *slot, int fd)
{
    int error = 0;
    socklen_t size = sizeof error;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error != 0)
        slot->error = error;
    return (unsigned)slot->error;
}

static bool is_socket(int fd)
{
    int type;
    socklen_t size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

/* [eof] */
static bool descriptor_ready(struct kqueue *kq, struct knote *knote, uint32_t events, struct kevent *report)
{
    int fd = (int)knote->event.ident;
    struct slot *slot = &kq->slots[fd];
    bool reading = knote->event.filter == EVFILT_READ;

    if (knote->file)
        return file_ready(knote, report);
    if (events == 0) { /* the bits of poll() are those of epoll */
        struct pollfd now = {.fd = fd, .events = (short)(reading ? POLLIN | POLLRDHUP : POLLOUT)};
        if (poll(&now, 1, 0) < 1 || (now.revents & POLLNVAL) != 0)
            return false;
        events = (uint32_t)(unsigned short)now.revents;
    }
    if ((events & ((reading ? EPOLLIN | EPOLLRDHUP : EPOLLOUT) | EPOLLHUP | EPOLLERR)) == 0)
        return false;

    /* The end may have come behind data: `data` says how much is to be read before it. For
     * one who writes into a pipe, Linux calls the end an error. */
    bool end = (events & (reading ? EPOLLRDHUP | EPOLLHUP : EPOLLHUP)) != 0;
    if (!reading && !end)
        end = (events & EPOLLERR) != 0 && !is_socket(fd);
    if (end) {
        report->flags |= EV_EOF;
        report->fflags = (events & EPOLLERR) != 0 ? socket_error(slot, fd) : (unsigned)slot->error;
    }
    report->data = reading ? readable(slot, fd) : writable(fd);
    if (end && !reading && (events & EPOLLOUT) == 0)
        report->data = 0;
    return true;
}
/* [/eof] */

static int end_descriptor(struct kqueue *kq, struct knote *knote)
{
    int error = adjust(kq, (int)knote->event.ident, NULL, false);
    return error == EPERM ? 0 : error; /* of a file; the other filter goes on */
}

/* ---- PROC: a pidfd is readable when its process has ended ---- */

static int set_process(struct kqueue *kq, struct knote *knote, const struct kevent *change, bool fresh)
{
    int error = 0;

    if ((change->flags & EV_ADD) != 0 && change->fflags != NOTE_EXIT)
        return EINVAL; /* Linux tells nobody but a tracer of fork and exec */
    if (fresh) {
        knote->pidfd = (int)syscall(SYS_pidfd_open, (pid_t)change->ident, 0); /* close-on-exec by itself */
        error = add_own(kq, knote->pidfd, USERS_OWN, 0);
        if (error == 0)
            kq->slots[knote->pidfd].knotes[READING] = knote;
        else if (knote->pidfd >= 0)
            close(knote->pidfd);
    }
    /* It ends once. And it is told by epoll as long as it is not reported: not by an edge. */
    knote->event.flags = (knote->event.flags | EV_ONESHOT) & (unsigned short)~EV_CLEAR;
    return error != 0 ? error : adjust(kq, knote->pidfd, knote, false);
}

/* Looks at the status of a child, and leaves it to be waited for. */
static bool process_ready(struct kqueue *kq, struct knote *knote, uint32_t events, struct kevent *report)
{
    siginfo_t info = {.si_pid = 0};

    (void)kq;
    if (events == 0)
        return false; /* epoll says so itself */
    report->flags |= EV_EOF | EV_CLEAR;
    report->fflags = NOTE_EXIT;
    if (waitid(P_PID, (id_t)knote->event.ident, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid != 0) {
        report->data = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
        report->data |= info.si_code == CLD_DUMPED ? WCOREFLAG : 0;
    }
    return true;
}

static int end_process(struct kqueue *kq, struct knote *knote)
{
    kq->slots[knote->pidfd].knotes[READING] = NULL;
    int error = adjust(kq, knote->pidfd, NULL, false);
    close(knote->pidfd);
    return error;
}

/* ---- TIMER: a heap, and a timerfd for the first ---- */

static void put(struct kqueue *kq, size_t place, struct knote *knote)
{
    kq->heap[place] = knote;
    knote->place = place;
}

/* Moves the timer at this place to where it belongs, and sets the timerfd. */
static void sift(struct kqueue *kq, size_t place)
{
    struct knote *knote = kq->heap[place];

    for (; place > 1 && kq->heap[place / 2]->deadline > knote->deadline; place /= 2)
        put(kq, place, kq->heap[place / 2]);
    for (size_t child; (child = 2 * place) <= kq->timers; place = child) {
        if (child < kq->timers && kq->heap[child + 1]->deadline < kq->heap[child]->deadline)
            child++;
        if (kq->heap[child]->deadline >= knote->deadline)
            break;
        put(kq, place, kq->heap[child]);
    }
    put(kq, place, knote);
}

/* Sets the timerfd to the first timer: setting it also takes back what it has said. */
static void set_alarm(struct kqueue *kq, bool again)
{
    int64_t alarm = kq->timers > 0 ? kq->heap[1]->deadline : NEVER;
    struct itimerspec when = {.it_value = {0}}; /* never */

    if (alarm == kq->alarm && !again)
        return;
    kq->alarm = alarm;
    if (alarm != NEVER) {
        when.it_value.tv_sec = (time_t)(alarm / 1000000000);
        when.it_value.tv_nsec = (long)(alarm % 1000000000);
    }
    timerfd_settime(kq->clock, TFD_TIMER_ABSTIME, &when, NULL); /* cannot fail: the time is one */
}

static void stop_timer(struct kqueue *kq, struct knote *knote)
{
    size_t place = knote->place;

    if (place == 0)
        return;
    knote->place = 0;
    struct knote *last = kq->heap[kq->timers--];
    if (last != knote) {
        put(kq, place, last);
        sift(kq, place);
    }
    set_alarm(kq, false);
}

/* Returns 0 or an errno. */
static int start_timer(struct kqueue *kq, struct knote *knote)
{
    if (kq->timers + 2 > kq->heap_room) {
        size_t room = kq->heap_room == 0 ? 16 : 2 * kq->heap_room;
        struct knote **heap = realloc(kq->heap, room * sizeof(void *));
        if (heap == NULL)
            return ENOMEM;
        kq->heap = heap;
        kq->heap_room = room;
    }
    put(kq, ++kq->timers, knote);
    sift(kq, kq->timers);
    set_alarm(kq, false);
    return 0;
}

/* The timerfd has fired. Whoever is due goes to the list; a periodic timer comes
 * back when it is reported, so that one which is not fetched costs nothing. */
static void hear_clock(struct kqueue *kq)
{
    int64_t now = now_of(CLOCK_MONOTONIC);

    while (kq->timers > 0 && kq->heap[1]->deadline <= now) {
        struct knote *knote = kq->heap[1];
        struct knote *last = kq->heap[kq->timers--];
        knote->place = 0;
        if (last != knote) {
            put(kq, 1, last);
            sift(kq, 1);
        }
        if (!knote->disabled)
            enlist(kq, knote);
    }
    set_alarm(kq, true);
}

/* The nanoseconds that data means, or -1 if it means none. */
static int64_t interval(const struct kevent *change)
{
    const int64_t most = INT64_MAX / 4; /* 73 years */
    int64_t unit;

    switch (change->fflags & ~(unsigned)NOTE_ABSTIME) {
    case NOTE_SECONDS:
        unit = 1000000000;
        break;
    case NOTE_USECONDS:
        unit = 1000;
        break;
    case NOTE_NSECONDS:
        unit = 1;
        break;
    case 0:
    case NOTE_MSECONDS:
        unit = 1000000;
        break;
    default:
        return -1;
    }
    if (change->data < 0)
        return -1;
    return change->data > most / unit ? most : change->data * unit;
}

static int set_timer(struct kqueue *kq, struct knote *knote, const struct kevent *change, bool fresh)
{
    if ((change->flags & EV_ADD) == 0 && !fresh)
        return 0;
    struct kevent whole = *change;
    bool absolute = (change->fflags & NOTE_ABSTIME) != 0;
    if (change->data == 0 && (change->flags & EV_ONESHOT) == 0)
        whole.data = 1;
    int64_t time = interval(&whole);
    if (time < 0)
        return EINVAL;

    stop_timer(kq, knote); /* also forgets that it has fired */
    delist(kq, knote);
    int64_t now = now_of(CLOCK_MONOTONIC);
    if (absolute) {
        time -= now_of(CLOCK_REALTIME);
        time = time < 0 ? 0 : time;
    } else {
        knote->event.flags |= EV_CLEAR;
    }
    knote->deadline = now + time;
    knote->period = absolute || (change->flags & EV_ONESHOT) != 0 ? 0 : time;
    return start_timer(kq, knote);
}

static bool timer_ready(struct kqueue *kq, struct knote *knote, uint32_t events, struct kevent *report)
{
    (void)kq, (void)events;
    if (knote->place != 0 || knote->deadline == NEVER)
        return false; /* it runs; or it is over */
    report->data = 1;
    if (knote->period > 0) /* how often it would have fired by now */
        report->data += (now_of(CLOCK_MONOTONIC) - knote->deadline) / knote->period;
    return true;
}

static void clear_timer(struct kqueue *kq, struct knote *knote, const struct kevent *report)
{
    knote->deadline = knote->period == 0 ? NEVER : knote->deadline + report->data * knote->period;
    if (knote->deadline != NEVER)
        start_timer(kq, knote); /* cannot fail: there was room for it before */
}

/* ---- SIGNAL ---- */

/* [signal] */
/* Of each signal: a disposition belongs to the process and not to a queue, and a
 * handler can find nothing but what is static. */
static struct {
    atomic_ulong raised; /* how often, since it is watched */
    _Atomic int eventfd; /* all queues that watch the signal have it, edge-triggered: each
                            write is an edge, and nobody reads. Made once, and kept. */
    bool made;
    unsigned watchers;       /* under queues_lock */
    struct sigaction before; /* what would have happened */
} signals[SIGNALS];

/* Counts, tells all queues, and does what would have been done without us. */
static void on_signal(int number, siginfo_t *info, void *context)
{
    int error = errno;
    const struct sigaction *before = &signals[number].before;

    atomic_fetch_add(&signals[number].raised, 1);
    eventfd_write(signals[number].eventfd, 1); /* that it fails is not to be had */
    if ((before->sa_flags & SA_SIGINFO) != 0)
        before->sa_sigaction(number, info, context);
    else if (before->sa_handler != SIG_IGN && before->sa_handler != SIG_DFL)
        before->sa_handler(number);
    errno = error;
}

/* Puts our handler before the one that is there. Not before an action that ends
 * or stops the process (it shall happen), nor an ignored SIGCHLD (which means that
 * children need not be waited for; FreeBSD does not record it either). */
static void catch_signal(int number)
{
    struct sigaction action;

    if (sigaction(number, NULL, &action) < 0)
        return;
    bool plain = (action.sa_flags & SA_SIGINFO) == 0;
    if (!plain && action.sa_sigaction == on_signal)
        return;
    if (plain && action.sa_handler == SIG_DFL && number != SIGCHLD && number != SIGURG &&
        number != SIGWINCH && number != SIGCONT)
        return;
    if (plain && action.sa_handler == SIG_IGN && number == SIGCHLD)
        return;
    signals[number].before = action;
    if (plain && (action.sa_handler == SIG_IGN || action.sa_handler == SIG_DFL))
        action.sa_flags |= SA_RESTART; /* as if nothing had been called */
    action.sa_flags = (action.sa_flags & ~(int)SA_RESETHAND) | SA_SIGINFO;
    action.sa_sigaction = on_signal;
    sigaction(number, &action, NULL); /* cannot fail where it could be read, but for SIGKILL and SIGSTOP */
}

static void release_signal(int number)
{
    struct sigaction action;
    if (sigaction(number, NULL, &action) == 0 && (action.sa_flags & SA_SIGINFO) != 0 &&
        action.sa_sigaction == on_signal)
        sigaction(number, &signals[number].before, NULL);
}
/* [/signal] */

/* All queues, from the one that was made last; under the lock, as is who watches which signal. */
static struct kqueue *queues;
static pthread_mutex_t queues_lock = PTHREAD_MUTEX_INITIALIZER;

static int set_signal(struct kqueue *kq, struct knote *knote, const struct kevent *change, bool fresh)
{
    if (change->ident == 0 || change->ident >= SIGNALS)
        return EINVAL;
    int number = (int)change->ident;
    int error = 0;

    pthread_mutex_lock(&queues_lock);
    if (!signals[number].made)
        signals[number].eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int fd = signals[number].eventfd;
    signals[number].made = fd >= 0;
    if (fresh)
        error = add_own(kq, fd, A_SIGNAL, EPOLLIN | EPOLLET);
    if (error == 0) {
        kq->slots[fd].number = number;
        knote->event.flags |= EV_CLEAR;
        if (fresh) {
            knote->seen = signals[number].raised;
            signals[number].watchers++;
        }
        catch_signal(number);
    }
    pthread_mutex_unlock(&queues_lock);
    return error;
}

static bool signal_ready(struct kqueue *kq, struct knote *knote, uint32_t events, struct kevent *report)
{
    (void)kq, (void)events;
    report->data = (int64_t)(signals[knote->event.ident].raised - knote->seen);
    return report->data != 0;
}

static void clear_signal(struct kqueue *kq, struct knote *knote, const struct kevent *report)
{
    (void)kq;
    knote->seen += (unsigned long)report->data;
}

static int end_signal(struct kqueue *kq, struct knote *knote)
{
    int number = (int)knote->event.ident;

    pthread_mutex_lock(&queues_lock);
    control(kq, EPOLL_CTL_DEL, signals[number].eventfd, 0);
    if (--signals[number].watchers == 0)
        release_signal(number);
    pthread_mutex_unlock(&queues_lock);
    return 0;
}

/* ---- USER ---- */

static int set_user(struct kqueue *kq, struct knote *knote, const struct kevent *change, bool fresh)
{
    unsigned given = change->fflags & NOTE_FFLAGSMASK;

    (void)kq;
    switch (fresh ? NOTE_FFCOPY : change->fflags & NOTE_FFCTRLMASK) {
    case NOTE_FFAND:
        knote->event.fflags &= given;
        break;
    case NOTE_FFOR:
        knote->event.fflags |= given;
        break;
    case NOTE_FFCOPY:
        knote->event.fflags = given;
        break;
    default:
        break;
    }
    knote->event.data = change->data;
    knote->event.flags &= (unsigned short)~EV_ADD;
    knote->triggered |= (change->fflags & NOTE_TRIGGER) != 0;
    return 0;
}

static bool user_ready(struct kqueue *kq, struct knote *knote, uint32_t events, struct kevent *report)
{
    (void)kq, (void)events;
    report->fflags = knote->event.fflags;
    report->data = knote->event.data;
    return knote->triggered;
}

static void clear_user(struct kqueue *kq, struct knote *knote, const struct kevent *report)
{
    (void)kq, (void)report;
    knote->triggered = false;
}

/* ---- Changes ---- */

/* Whether kq's descriptor is still its own: epoll knows the eventfd that was put into it. */
static bool alive(const struct kqueue *kq)
{
    struct epoll_event event = {
        .events = EPOLLIN, .data.u64 = (uint64_t)kq->slots[kq->wake].generation << 32 | (uint32_t)kq->wake};
    return epoll_ctl(kq->epoll, EPOLL_CTL_MOD, kq->wake, &event) == 0;
}

static const struct filter FILTERS[] = {
    [-EVFILT_READ] = {set_descriptor, descriptor_ready, NULL, end_descriptor},
    [-EVFILT_WRITE] = {set_descriptor, descriptor_ready, NULL, end_descriptor},
    [-EVFILT_VNODE] = {set_vnode, vnode_ready, clear_vnode, NULL},
    [-EVFILT_PROC] = {set_process, process_ready, NULL, end_process},
    [-EVFILT_SIGNAL] = {set_signal, signal_ready, clear_signal, end_signal},
    [-EVFILT_TIMER] = {set_timer, timer_ready, clear_timer, NULL},
    [-EVFILT_USER] = {set_user, user_ready, clear_user, NULL},
};

/* NULL if there is none of this number. */
static const struct filter *filter_of(int number)
{
    size_t index = (size_t) - (int64_t)number;
    if (number >= 0 || index >= sizeof FILTERS / sizeof *FILTERS || FILTERS[index].set == NULL)
        return NULL;
    return &FILTERS[index];
}

static bool of_descriptor(const struct kevent *event)
{
    return event->filter >= EVFILT_VNODE; /* READ, WRITE, VNODE */
}

/* Where the knote of this event is linked from, or would be: a slot, or a chain.
 * NULL with errno if ident is not an open descriptor and has to be one. */
static struct knote **find(struct kqueue *kq, const struct kevent *event)
{
    static const int places[] = {
        [-EVFILT_READ] = READING, [-EVFILT_WRITE] = WRITING, [-EVFILT_VNODE] = VNODE};
    unsigned number = (unsigned)-event->filter;

    if (of_descriptor(event)) {
        if (event->ident >= kq->room) {
            if (event->ident > INT_MAX) /* else a slot for it would be made, and for all below */
                errno = EBADF;
            if (event->ident > INT_MAX || fcntl((int)event->ident, F_GETFD) < 0)
                return NULL;
            errno = make_slot(kq, (int)event->ident);
            if (errno != 0)
                return NULL;
        }
        return &kq->slots[event->ident].knotes[places[number]];
    }
    struct knote **link = &kq->chains[(event->ident ^ event->ident >> 10 ^ number) % CHAINS];
    while (*link != NULL && ((*link)->event.ident != event->ident || (*link)->event.filter != event->filter))
        link = &(*link)->next;
    return link;
}

/* Whether the error says that a descriptor is not the one any more that was watched. */
static bool closed(int error)
{
    return error == EBADF || error == ENOENT;
}

/* Ends knote and forgets it. Returns 0, or an errno if it had ended before. */
static int drop(struct kqueue *kq, struct knote *knote)
{
    const struct filter *filter = filter_of(knote->event.filter);
    struct knote **link = find(kq, &knote->event);

    *link = knote->next;
    delist(kq, knote);
    stop_timer(kq, knote);
    unwatch_file(kq, knote);
    int error = filter->end != NULL ? filter->end(kq, knote) : 0;
    if (of_descriptor(&knote->event) && closed(error))
        drop_stale(kq, (int)knote->event.ident, NULL);
    free(knote);
    return error;
}

/* [change] */
/* Adds an event that is not there yet. Returns its knote, or NULL with errno. */
static struct knote *add(struct kqueue *kq, struct knote **link, const struct kevent *change)
{
    struct knote *knote = calloc(1, sizeof *knote);
    if (knote == NULL)
        return NULL;
    knote->event = *change;
    knote->event.flags &= PERMANENT;
    knote->disabled = (change->flags & EV_DISABLE) != 0;
    knote->watch = -1;
    *link = knote;
    int error = filter_of(change->filter)->set(kq, knote, change, true);
    if (error != 0) {
        *find(kq, change) = NULL; /* anew: the slots may have moved */
        free(knote);
        errno = error;
        return NULL;
    }
    return knote;
}

/* Applies one change. Returns 0 or an errno. */
static int apply(struct kqueue *kq, const struct kevent *change)
{
    const struct filter *filter = filter_of(change->filter);
    const unsigned both = EV_ENABLE | EV_DISABLE;
    struct kevent report;

    if (filter == NULL || (change->flags & both) == both ||
        ((change->flags & EV_ADD) != 0 && (change->flags & EV_KEEPUDATA) != 0))
        return EINVAL;
    struct knote **link = find(kq, change);
    if (link == NULL)
        return errno;
    struct knote *knote = *link;
    if (knote == NULL && ((change->flags & EV_ADD) == 0 || (change->flags & EV_DELETE) != 0))
        return of_descriptor(change) && fcntl((int)change->ident, F_GETFD) < 0 ? EBADF : ENOENT;
    if ((change->flags & EV_DELETE) != 0)
        return drop(kq, knote);

    if (knote == NULL) {
        knote = add(kq, link, change);
        if (knote == NULL)
            return errno;
    } else {
        if ((change->flags & EV_ADD) != 0)
            knote->event.flags = change->flags & PERMANENT;
        if ((change->flags & EV_KEEPUDATA) == 0)
            knote->event.udata = change->udata;
        if ((change->flags & (EV_DISABLE | EV_ENABLE | EV_ADD)) != 0)
            knote->disabled = (change->flags & EV_DISABLE) != 0;
        int error = filter->set(kq, knote, change, false);
        if (of_descriptor(change) && closed(error))
            drop_stale(kq, (int)change->ident, NULL);
        if (error != 0)
            return error;
        if (knote->disabled)
            delist(kq, knote);
    }
    /* It may be ready already; what is in epoll is told by epoll. */
    if (!knote->disabled && (filter->clear != NULL || knote->file) && filter->ready(kq, knote, 0, &report))
        enlist(kq, knote);
    return 0;
}

/* Applies changes, and writes answers; *full: until there was no room for one.
 * Returns how many, or -1 with errno. */
static int apply_all(struct kqueue *kq, const struct kevent *changes, int nchanges, struct kevent *events,
                     int nevents, bool *full)
{
    int answers = 0;

    for (int i = 0; i < nchanges; i++) {
        struct kevent change = changes[i]; /* before an answer is written over it: see kevent() */
        int error = apply(kq, &change);
        if (error == 0 && (change.flags & EV_RECEIPT) == 0)
            continue;
        if (error != 0 && !alive(kq)) { /* it was not the change that failed */
            errno = EBADF;
            return -1;
        }
        if (answers == nevents) {
            *full = true;
            errno = error;
            return error != 0 ? -1 : answers;
        }
        change.flags |= EV_ERROR;
        change.data = error;
        events[answers++] = change;
    }
    return answers;
}
/* [/change] */

/* ---- Events ---- */

/* [report] */
/* Writes the event of knote to where *at is, if it is ready, and does what its flags
 * say is to happen then. */
static bool report(struct kqueue *kq, struct knote *knote, uint32_t events, struct kevent *at)
{
    const struct filter *filter = filter_of(knote->event.filter);
    struct kevent event = knote->event;

    event.fflags = 0;
    event.data = 0;
    if (!filter->ready(kq, knote, events, &event))
        return false;
    *at = event;
    if ((event.flags & EV_ONESHOT) != 0) {
        drop(kq, knote);
        return true;
    }
    if ((event.flags & EV_CLEAR) != 0 && filter->clear != NULL)
        filter->clear(kq, knote, &event);
    if ((event.flags & EV_DISPATCH) != 0) {
        knote->disabled = true;
        delist(kq, knote);
        if (filter->clear == NULL && !knote->file)
            adjust(kq, (int)event.ident, knote, false);
    }
    return true;
}
/* [/report] */

/* Reports those in the list that are ready. A state that lasts stays in it, at the end. */
static int report_listed(struct kqueue *kq, struct kevent *events, int room)
{
    int count = 0;

    for (size_t i = kq->listed; i > 0 && count < room; i--) {
        struct knote *knote = kq->first;
        bool lasts = (knote->event.flags & (EV_CLEAR | EV_ONESHOT | EV_DISPATCH)) == 0;
        delist(kq, knote);
        if (of_descriptor(&knote->event) && !knote->file && knote->event.filter != EVFILT_VNODE &&
            (kq->slots[knote->event.ident].mask & EPOLLET) == 0)
            continue; /* it is level-triggered by now: epoll tells */
        if (knote->disabled || !report(kq, knote, 0, &events[count]))
            continue;
        count++;
        if (lasts)
            enlist(kq, knote);
    }
    return count;
}

/* [dispatch] */
/* epoll has something to say about descriptor fd. An edge is told only once: whom it does not
 * fit any more, and whoever is ready for longer than it, goes to the list. */
static int dispatch(struct kqueue *kq, int fd, uint32_t happened, struct kevent *events, int room)
{
    int count = 0;

    for (int i = READING; i <= WRITING; i++) {
        struct slot *slot = &kq->slots[fd];
        struct knote *knote = slot->knotes[i];
        if (knote == NULL || knote->disabled || knote->listed)
            continue;
        bool edge = (slot->mask & EPOLLET) != 0;
        if (edge && (count == room || (knote->event.flags & EV_CLEAR) == 0))
            enlist(kq, knote);
        else if (count < room)
            count += report(kq, knote, happened, &events[count]);
    }
    return count;
}

/* Writes what `ready` means to events, which has room for so many. Returns how many. */
static int tell(struct kqueue *kq, const struct epoll_event *ready, int n, struct kevent *events, int room)
{
    int count = 0;

    for (int i = 0; i < n; i++) {
        int fd = (int)(uint32_t)ready[i].data.u64;
        struct slot *slot = &kq->slots[fd];
        if (slot->generation != ready[i].data.u64 >> 32)
            continue; /* of a file that is closed, and still open elsewhere */
        if (slot->source == USERS_OWN) {
            count += dispatch(kq, fd, ready[i].events, events + count, room - count);
        } else if (slot->source == CLOCK) {
            hear_clock(kq);
        } else if (slot->source == FILES) {
            hear_files(kq);
        } else if (slot->source == A_SIGNAL) {
            struct kevent name = {.ident = (uintptr_t)slot->number, .filter = EVFILT_SIGNAL};
            struct knote *knote = *find(kq, &name);
            if (knote != NULL && !knote->disabled)
                enlist(kq, knote);
        }
    }
    return count + report_listed(kq, events + count, room - count);
}
/* [/dispatch] */

/* [wait] */
/* The milliseconds from now to the deadline, rounded up. */
static int until(int64_t deadline)
{
    if (deadline == NEVER)
        return -1;
    int64_t left = deadline == 0 ? 0 : deadline - now_of(CLOCK_MONOTONIC);
    if (left <= 0)
        return 0;
    return left > (int64_t)INT_MAX * 1000000 ? INT_MAX : (int)((left + 999999) / 1000000);
}

/* The moment that timeout means: NEVER, 0 for at once, or -1 if it is not a time. */
static int64_t deadline_of(const struct timespec *timeout)
{
    if (timeout == NULL)
        return NEVER;
    if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)
        return -1;
    if (timeout->tv_sec == 0 && timeout->tv_nsec == 0)
        return 0;
    if (timeout->tv_sec > NEVER / 1000000000 / 2)
        return NEVER; /* 146 years */
    return now_of(CLOCK_MONOTONIC) + (int64_t)timeout->tv_sec * 1000000000 + timeout->tv_nsec;
}

/* Waits until there is something to report. deadline: NEVER, or 0: at once. The lock
 * is held, but while we sleep. */
static int wait_for_events(struct kqueue *kq, struct kevent *events, int nevents, int64_t deadline)
{
    /* A descriptor may have two events. Whoever is taken out of epoll and then finds no room would be
     * among the first again the next time, and others never. */
    int most = nevents < 2 * BATCH ? (nevents + 1) / 2 : BATCH;
    struct epoll_event ready[BATCH];
    bool interrupted = false;

    for (;;) {
        int timeout = kq->listed > 0 || interrupted ? 0 : until(deadline);
        pthread_mutex_unlock(&kq->lock);
        int n = epoll_wait(kq->epoll, ready, most, timeout);
        int error = errno;
        pthread_mutex_lock(&kq->lock);
        if (n < 0 && error != EINTR) {
            errno = EBADF; /* it was closed, and something else may have its number */
            return -1;
        }
        int count = tell(kq, ready, n, events, nevents);
        if (count > 0)
            return count;
        if (interrupted) {
            errno = EINTR;
            return -1;
        }
        interrupted = n < 0; /* look once more: by a signal, perhaps, that is watched */
        if (!interrupted && deadline != NEVER && until(deadline) == 0)
            return 0;
    }
}
/* [/wait] */

/* ---- Queues ---- */

/* Frees a queue whose epoll is closed. First the descriptors: after a fork, what is
 * done with them would be done to the parent's. */
static void destroy(struct kqueue *kq)
{
    int *const own[] = {&kq->wake, &kq->clock, &kq->inotify};

    kq->epoll = -1;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (*own[i] >= 0)
            close(*own[i]);
        *own[i] = -1;
    }
    for (size_t i = 0; i < CHAINS; i++) {
        while (kq->chains[i] != NULL)
            drop(kq, kq->chains[i]);
    }
    for (size_t fd = 0; fd < kq->room; fd++)
        drop_stale(kq, (int)fd, NULL);
    free(kq->heap);
    free(kq->slots);
    pthread_mutex_destroy(&kq->lock);
    free(kq);
}

/* Around fork(): a queue is not inherited by the child (kqueue(2)), which would
 * share the epoll with its parent, but not the rest. */
static void before_fork(void)
{
    pthread_mutex_lock(&queues_lock);
}

static void parent_after_fork(void)
{
    pthread_mutex_unlock(&queues_lock);
}

static void child_after_fork(void)
{
    pthread_mutex_unlock(&queues_lock);
    while (queues != NULL) {
        struct kqueue *kq = queues;
        queues = kq->older;
        if (alive(kq))
            close(kq->epoll);
        destroy(kq);
    }
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, parent_after_fork, child_after_fork);
}

/* Frees the queues that have been closed. */
static void sweep(void)
{
    struct kqueue *dead = NULL;

    pthread_mutex_lock(&queues_lock);
    for (struct kqueue **link = &queues; *link != NULL;) {
        struct kqueue *kq = *link;
        if (kq->calls == 0 && !alive(kq)) {
            *link = kq->older;
            kq->older = dead;
            dead = kq;
        } else {
            link = &kq->older;
        }
    }
    pthread_mutex_unlock(&queues_lock);
    while (dead != NULL) {
        struct kqueue *kq = dead;
        dead = kq->older;
        destroy(kq);
    }
}

/* [kqueue] */
int kqueue(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, watch_forks);
    sweep();
    struct kqueue *kq = calloc(1, sizeof *kq);
    if (kq == NULL)
        return -1;
    kq->inotify = kq->wake = kq->clock = -1;
    kq->alarm = NEVER;
    pthread_mutex_init(&kq->lock, NULL);
    kq->epoll = epoll_create1(EPOLL_CLOEXEC);
    int fd = kq->epoll;
    int error = fd < 0 ? errno : 0;
    if (error == 0) {
        kq->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        error = add_own(kq, kq->wake, WAKE, EPOLLIN);
    }
    if (error == 0) {
        kq->clock = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        error = add_own(kq, kq->clock, CLOCK, EPOLLIN);
    }
    if (error != 0) {
        if (fd >= 0)
            close(fd);
        destroy(kq);
        errno = error;
        return -1;
    }
    pthread_mutex_lock(&queues_lock);
    kq->older = queues;
    queues = kq;
    pthread_mutex_unlock(&queues_lock);
    return fd;
}
/* [/kqueue] */

/* [kevent] */
int kevent(int fd, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout)
{
    pthread_mutex_lock(&queues_lock);
    struct kqueue *kq = queues;
    while (kq != NULL && kq->epoll != fd)
        kq = kq->older;
    if (kq != NULL)
        kq->calls++;
    pthread_mutex_unlock(&queues_lock);
    if (kq == NULL) {
        errno = EBADF;
        return -1;
    }

    pthread_mutex_lock(&kq->lock);
    int64_t deadline = deadline_of(timeout);
    bool full = nevents == 0;
    kq->known = false;
    int count = -1;
    if (nchanges < 0 || nevents < 0 || deadline < 0)
        errno = EINVAL;
    else
        count = apply_all(kq, changes, nchanges, events, nevents, &full);
    if (count == 0 && nevents == 0 && !kq->known && !alive(kq)) {
        errno = EBADF; /* nothing else would have told */
        count = -1;
    }
    if (count == 0 && !full)
        count = wait_for_events(kq, events, nevents, deadline);
    set_wake(kq);
    pthread_mutex_unlock(&kq->lock);
    kq->calls--;
    return count;
}
/* [/kevent] */
