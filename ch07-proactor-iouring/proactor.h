/* proactor.h - asynchronous operations after the Proactor pattern (Pyarali, Harrison, Schmidt and
 * Jordan, "Proactor: An Object Behavioral Pattern for Demultiplexing and Dispatching
 * Handlers for Asynchronous Events", 1997), with its names:
 *
 *   asynchronous operation            is begun here, and done by somebody else
 *   asynchronous operation processor  does it: the kernel, or an engine in its place
 *   completion handler                is told that it is done, and what came of it
 *   proactor                          waits for completions, and dispatches them
 *
 * A reactor's handler is told that it may receive; a completion handler gets what has been
 * received. So from the beginning to the completion somebody else works with
 * your memory, and much of what follows says whose it is, and until when.
 *
 * Operations and timers are structs of yours, most often members of something larger,
 * zero-initialised: the proactor allocates none of them and frees none of them. To begin an
 * operation cannot fail, and calls nobody: whatever becomes of it, its handler
 * is told, by the loop. All belongs to the thread that created the proactor. Needs C11. */
#ifndef PROACTOR_H
#define PROACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct proactor;

/* [operation] */
/* A connection as the engine knows it: a descriptor, a place in a table of the kernel's, a SOCKET. */
typedef uintptr_t proactor_socket;

/* What all operations have in common. */
struct proactor_operation {
    struct proactor_operation *next; /* the engine's */
    proactor_socket socket;          /* set it: on which */
    int error;                       /* for the handler: 0, or an errno; ECANCELED: it was cancelled */
    bool pending;                    /* it has begun, and not ended: hands off */
    bool at_once;                    /* set it: to do what can be done now, and not to wait for the rest */
    uint8_t kind, state;             /* the engine's */
};
/* [/operation] */

/* [timers] */
/* Something to do later, once. Zero-initialised but for expired, it is not set. */
struct proactor_timer {
    void (*expired)(struct proactor *proactor, struct proactor_timer *timer); /* it may set the timer again */
    int64_t due_ms;                                                           /* on proactor_now()'s clock */
    size_t place;                                                             /* the proactor's; 0: not set */
};

/* Sets a timer to expire in that many milliseconds, whether or not it is set already: to
 * put it off costs one assignment, so do it at every message. Returns 0, or -1
 * with ENOMEM, which comes only if the timer was not set. */
int proactor_set_timer(struct proactor *proactor, struct proactor_timer *timer, int64_t milliseconds);

/* From now on it does not expire, and may be freed. No harm if it is not set. */
void proactor_cancel_timer(struct proactor *proactor, struct proactor_timer *timer);

/* Milliseconds, on a clock that nobody sets, when this turn of the loop began. */
int64_t proactor_now(const struct proactor *proactor);
/* [/timers] */

/* [accept] */
struct proactor_accept {
    struct proactor_operation operation; /* its socket: the listening one, as the system knows it */

    /* A client has come in: with TCP_NODELAY, and from now on yours to close. Or, if the operation is not
     * pending any more: none has, and the listening socket is closed. */
    void (*completed)(struct proactor *proactor, struct proactor_accept *accept, proactor_socket client);
    struct proactor_timer pause; /* the engine's, and so is the next */
    void *engine;
};

/* Takes in every client that comes, with a completion for each; have one accept pending. It ends when it is
 * cancelled, after those who came before that, or with the listening socket's error. Out of descriptors
 * (EMFILE, ENFILE, ENOBUFS, ENOMEM), the clients wait until one is closed, or 100 ms.
 * Source: accept(2), io_uring_prep_multishot_accept_direct(3). */
void proactor_accept(struct proactor *proactor, struct proactor_accept *accept);
/* [/accept] */

/* [receive] */
/* Received bytes, in a buffer that the engine has lent: yours until you give it back. */
struct proactor_piece {
    char *data;
    uint32_t size;   /* 0: there is no buffer */
    uint32_t buffer; /* the engine's */
};

struct proactor_receive {
    struct proactor_operation operation;

    /* A piece has come. It is the last one if the operation is not pending any more; without error, a
     * last piece of 0 bytes is the end of what the peer sends. */
    void (*completed)(struct proactor *proactor, struct proactor_receive *receive,
                      struct proactor_piece piece);
    uint32_t limit; /* set it: bytes, more than 0 */
    uint32_t left;  /* the engine's */
};

/* Receives whatever comes, with a completion for each piece, until limit bytes have come in all;
 * at_once: at most one piece, or EAGAIN if nothing is there. The limit is a credit, and a hard bound on
 * what you may owe to this peer: give a new one when you have sent it, and TCP will
 * hold back whoever does not read.
 * Errors: ECONNRESET, ETIMEDOUT and others of recv(2). */
void proactor_receive(struct proactor *proactor, struct proactor_receive *receive);

/* Gives a piece's buffer back. All connections share few of them, and without a free one nobody
 * receives: so do not keep a buffer while you wait for a peer, but copy what you still need. */
void proactor_give_back(struct proactor *proactor, struct proactor_piece piece);
/* [/receive] */

/* [send] */
struct proactor_send {
    struct proactor_operation operation;
    void (*completed)(struct proactor *proactor, struct proactor_send *send);
    const char *data; /* set it: the engine's until the completion */
    size_t size;
    size_t sent;         /* how many bytes the socket has taken */
    uint32_t timeout_ms; /* set it: ETIMEDOUT after this long; 0: no limit */
    bool last;           /* set it: nothing follows, and behind the last byte the peer is told so (FIN) */
    bool ending : 1;     /* the engine's, and so are the next */
    bool copied : 1;
    uint16_t notifications;
    int64_t due_ms;
};

/* Sends all of data, with one completion when the socket has taken it and the memory is not needed any
 * more; at_once: what the socket takes now, perhaps not all, and without error, perhaps nothing.
 * Have one send pending on a socket, since several might overtake each other. After
 * an error, sent says how much went out before.
 * Errors: EPIPE, ECONNRESET and others of send(2); ETIMEDOUT. */
void proactor_send(struct proactor *proactor, struct proactor_send *send);

struct proactor_send_file {
    struct proactor_send send; /* data is the engine's; size: of the head, and the bytes of the file */
    int file;                  /* a descriptor of a regular file, open until the completion */
    int64_t offset;            /* where to begin; the engine moves it on */
    const char *head;          /* what goes out before the file, or NULL; the engine's until the completion */
    size_t head_size;          /* 16 KiB at most; the engine counts it down */
    size_t block, block_sent;  /* the engine's, and so are the next */
    int descriptor;
    uint8_t step;
};

/* As proactor_send(), with a head and at least one byte of a file: the two share a segment.
 * Errors: also EIO and others of read(2), and ENODATA if the file is shorter than was said. at_once makes
 * no difference. */
void proactor_send_file(struct proactor *proactor, struct proactor_send_file *file);
/* [/send] */

/* [close] */
struct proactor_close {
    struct proactor_operation operation;
    void (*completed)(struct proactor *proactor, struct proactor_close *close); /* the socket is no more */
};

/* Cancels whatever is pending on the socket, and closes it when all that has ended; at_once: what the peer
 * has not taken yet is forgotten (RST), else the system sends it still. No piece comes any more, and this
 * completion is the socket's last. Source: io_uring_prep_cancel_fd(3), close(2). */
void proactor_close(struct proactor *proactor, struct proactor_close *close);

/* Closes a socket on which no operation was ever begun: for a client that you cannot serve. */
void proactor_discard(struct proactor *proactor, proactor_socket socket);

/* Asks that a pending operation, other than a close, shall end soon: with ECANCELED, unless it ends by
 * itself meanwhile. What its last completion says is true in both cases; no harm if
 * it is not pending. Source: io_uring_register_sync_cancel(3). */
void proactor_cancel(struct proactor *proactor, struct proactor_operation *operation);
/* [/close] */

/* [running] */
/* How to stop: what the application does about it. */
struct proactor_stop {
    int64_t grace_ms;

    /* The stop has begun. Cancel the accept; receive at_once what has come, and send it; close. */
    void (*begun)(struct proactor *proactor, struct proactor_stop *stop);

    /* grace_ms later something is still pending: close all that is open. */
    void (*overdue)(struct proactor *proactor, struct proactor_stop *stop);
};

/* Begins the stop. A second call changes nothing. */
void proactor_stop(struct proactor *proactor, struct proactor_stop *stop);

/* Has the loop begin the stop at SIGTERM and SIGINT. One proactor of the process may ask for it. After
 * proactor_destroy() both are ignored, as the program is most likely at its end. Returns 0, or -1 with errno.
 * Source: sigaction(2). */
int proactor_stop_at_signals(struct proactor *proactor, struct proactor_stop *stop);

/* True from the beginning of the stop. */
bool proactor_stopping(const struct proactor *proactor);

/* Waits for completions and calls their handlers, until a stop has begun and no operation is pending, or
 * its time is long over. In a handler everything is allowed: to begin and to cancel
 * operations, to free one that is not pending. Returns 0, or -1 with errno if the
 * engine cannot wait. */
int proactor_run(struct proactor *proactor);
/* [/running] */

/* [create] */
/* What to create; zero-initialised, all as it is best. */
struct proactor_options {
    const char *engine;      /* its name; NULL: the best that works here */
    uint32_t buffers;        /* how many the engine has to lend; 0: as many as it thinks best */
    uint32_t zero_copy_from; /* sends of so many bytes or more, not at_once, leave out the copy; 0: none do.
                              * When the socket has taken all, such a send still waits for the memory: until
                              * the peer has the bytes, or the close, and whatever the time limit is */
};

/* Returns a proactor, or NULL with errno. One line on stderr names an engine that does not work here,
 * and why; if none was asked for, the next best is tried. Errors: ENOENT: this system has no
 * such engine; ENOMEM; or the engine's: ENOSYS, EPERM, ENOMEM, EINVAL. On POSIX systems SIGPIPE is
 * ignored from now on. A child of fork() cannot use it, and keeps its sockets open until exec() or its end.
 */
struct proactor *proactor_create(const struct proactor_options *options);

/* Ends a proactor that does not run: nobody is called any more, sockets are closed. When
 * it returns, no memory of yours is in use. */
void proactor_destroy(struct proactor *proactor);
/* [/create] */

#endif
