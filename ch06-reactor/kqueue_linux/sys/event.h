/* sys/event.h - for Linux, which has none: what kqueue.c includes on a BSD.
 *
 * Names, values and the struct are FreeBSD's (kqueue(2), FreeBSD 14; there the
 * struct ends with four more words for the user, ext[4]). kqueue_linux.c says
 * what the functions do, and where they differ. */
#ifndef SYS_EVENT_H
#define SYS_EVENT_H

#include <stdint.h>
#include <time.h>

/* A change, on the way in; an event, on the way out. */
struct kevent {
    uintptr_t ident;      /* what is watched: a descriptor, a signal, a process, or any number */
    short filter;         /* how: EVFILT_... Both together name an event: there is one at most of each pair */
    unsigned short flags; /* EV_... */
    unsigned int fflags;  /* NOTE_..., of the filter */
    int64_t data;         /* of the filter */
    void *udata;          /* the user's own: it comes back with the event */
};

/* clang-format off */

#define EVFILT_READ    (-1)
#define EVFILT_WRITE   (-2)
#define EVFILT_VNODE   (-4)
#define EVFILT_PROC    (-5)
#define EVFILT_SIGNAL  (-6)
#define EVFILT_TIMER   (-7)
#define EVFILT_USER   (-11)

/* What a change does */
#define EV_ADD     0x0001 /* adds the event, or sets it anew; enables it */
#define EV_DELETE  0x0002
#define EV_ENABLE  0x0004
#define EV_DISABLE 0x0008 /* keeps it, and reports nothing */

/* How an event behaves */
#define EV_ONESHOT   0x0010 /* reported once, then deleted */
#define EV_CLEAR     0x0020 /* reported once for each thing that happens, not for a state that lasts */
#define EV_RECEIPT   0x0040 /* this change is answered, with an EV_ERROR whose data is 0 */
#define EV_DISPATCH  0x0080 /* reported once, then disabled */
#define EV_KEEPUDATA 0x0200 /* this change leaves udata as it is */

/* What kevent() says */
#define EV_ERROR 0x4000 /* data is an errno: of the change that this event answers */
#define EV_EOF   0x8000 /* the end has come; fflags is the socket's error, or 0 */

/* EVFILT_READ */
#define NOTE_LOWAT     0x0001 /* data: ready from so many bytes on */
#define NOTE_FILE_POLL 0x0002 /* a file is always ready, at its end, too */

/* EVFILT_VNODE */
#define NOTE_DELETE      0x0001
#define NOTE_WRITE       0x0002
#define NOTE_EXTEND      0x0004
#define NOTE_ATTRIB      0x0008
#define NOTE_LINK        0x0010
#define NOTE_RENAME      0x0020
#define NOTE_REVOKE      0x0040
#define NOTE_OPEN        0x0080
#define NOTE_CLOSE       0x0100
#define NOTE_CLOSE_WRITE 0x0200
#define NOTE_READ        0x0400

/* EVFILT_PROC */
#define NOTE_EXIT 0x80000000U /* data: the status, as wait(2) gives it */

/* EVFILT_TIMER: the unit of data, milliseconds if none is given */
#define NOTE_SECONDS  0x0001
#define NOTE_MSECONDS 0x0002
#define NOTE_USECONDS 0x0004
#define NOTE_NSECONDS 0x0008
#define NOTE_ABSTIME  0x0010 /* data: a moment on the clock of the wall, and not an interval */

/* EVFILT_USER */
#define NOTE_FFNOP      0x00000000U /* what happens to the 24 bits of the user's own: nothing, */
#define NOTE_FFAND      0x40000000U /* and, or, or they are copied */
#define NOTE_FFOR       0x80000000U
#define NOTE_FFCOPY     0xc0000000U
#define NOTE_FFCTRLMASK 0xc0000000U
#define NOTE_FFLAGSMASK 0x00ffffffU
#define NOTE_TRIGGER    0x01000000U /* the event happens */

#define EV_SET(kev, ident_, filter_, flags_, fflags_, data_, udata_)                 \
    ((void)(*(kev) = (struct kevent){.ident = (uintptr_t)(ident_),                   \
                                     .filter = (short)(filter_),                     \
                                     .flags = (unsigned short)(flags_),              \
                                     .fflags = (unsigned int)(fflags_),              \
                                     .data = (int64_t)(data_),                       \
                                     .udata = (void *)(udata_)}))

/* clang-format on */

/* Makes a queue. Returns its descriptor, which can be watched for reading like
 * any other (poll, epoll, another kqueue), or -1 with errno: EMFILE, ENFILE, ENOMEM. */
int kqueue(void);

/* Applies changes[0] to changes[nchanges - 1] in order, then waits until
 * something has happened, and writes up to nevents events. A change that fails,
 * or has EV_RECEIPT, is answered with an EV_ERROR event; if there is one,
 * kevent() returns without waiting. Both arrays may be the same.
 * timeout: NULL waits for ever, zero not at all. With nevents 0 nothing waits.
 * Returns how many events it wrote, 0 when the time is over, or -1 with errno:
 * EBADF (not a kqueue), EINVAL (a negative count, or not a time), EINTR (all
 * changes have been applied), or that of a change for whose answer there was
 * no room: then those after it have not been applied.
 * Source: kqueue(2) of FreeBSD. */
int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout);

#endif
