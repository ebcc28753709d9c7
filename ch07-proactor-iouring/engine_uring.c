/* engine_uring.c - the engine that is none: the kernel does the operations, through io_uring.
 *
 * Two rings in memory that is shared with the kernel: what to begin is put into the submission queue,
 * and what has come of it is taken from the completion queue. One system call hands over
 * all that was queued, and waits. Which features this kernel has is found by asking and by trying;
 * without the newer ones, the same is done with more operations.
 * Needs Linux 6.0 and liburing 2.3. Try: strace -c ./proactor, and clients who send much */
#if __has_include(<liburing.h>)

#define _GNU_SOURCE /* for liburing's header */

#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Newer than liburing 2.3. */
#ifndef IORING_RECVSEND_BUNDLE
#define IORING_RECVSEND_BUNDLE (1U << 4) /* Linux 6.10 */
#endif
#ifndef SOCKET_URING_OP_SETSOCKOPT
#define SOCKET_URING_OP_SETSOCKOPT 3 /* Linux 6.7 */
#endif

enum {
    SQ_ENTRIES = 512,
    CQ_ENTRIES = 4096,
    BUFFERS = 128,
    BUFFER_SIZE = 64 * 1024,
    STRIDE = BUFFER_SIZE + 64, /* or the first bytes of all would compete for the same lines of the cache */
    WARM = 32 * 1024,          /* so many bytes at a time are received into memory that the cache still has */
    MOST_BUFFERS = 32768,      /* the kernel's own limit */
    MOST_SENT = 1 << 30,       /* by one operation: its size has 32 bits */
    FILE_BLOCK = 64 * 1024,    /* so much of a file is read, and then sent */
    PAUSE_MS = 100,            /* out of descriptors, ask again after this long */
    OWN_DESCRIPTORS = 8,       /* what a process has open besides its clients */
    MOST_CLIENTS = 1 << 20,    /* the kernel's own limit */
};

/* A completion carries the address of its operation, or one of these. */
enum { NOBODY = 0, WAKE_UP = 1 };

static const int ON = 1; /* of an option; the kernel reads it some time later */

/* Where an operation is. */
enum {
    IN_KERNEL,
    CANCELLED, /* in the kernel, and shall end */
    WAITING,   /* for room in the submission queue */
    STARVED,   /* for a buffer to receive into */
    FAILED,    /* ended, and its handler will be called */
    NOTIFYING, /* sent, but the kernel still uses the memory */
};

/* Of files that are being sent. */
enum {
    FIXED_FD_INSTALL = 54,  /* IORING_OP_FIXED_FD_INSTALL, Linux 6.8: a descriptor for what is in the table */
    SMALL_FILE = 16 * 1024, /* up to here to copy it costs less than more system calls */
    TURN = 256 * 1024,      /* so much is sent without a copy, and then it is the next ones' turn */
};

/* What such a file waits for. */
enum {
    INSTALLING, /* a descriptor of the socket, for sendfile() */
    POLLING,    /* the socket to have room again */
    READING,    /* a block to be read */
    SENDING,    /* it to be sent */
};

/* [state] */
/* A place in the kernel's table of files, and the connection there. */
struct slot {
    struct proactor_operation *receiving, *sending; /* what is pending */
    struct proactor_operation *closing;             /* waits until they have ended */
    uint32_t notifications; /* that the memory of a send without a copy is free again */
};

struct uring {
    struct io_uring ring;
    struct proactor *proactor;
    struct queue waiting; /* to begin, when the submission queue has room; or FAILED */
    struct queue starved; /* to receive, when there is a buffer */
    struct slot *slots;
    uint32_t slot_count;
    uint32_t places;                /* how many of them are free */
    struct proactor_accept *paused; /* until there is a descriptor */
    uint32_t zero_copy_from;
    bool bounded; /* a multishot receive ends at its limit here */

    struct io_uring_buf_ring *buffer_ring;
    char *memory;     /* of the buffers, one behind the other */
    uint16_t *unused; /* a stack of those that are neither in the ring nor lent: on top the warmest */
    uint32_t unused_count, buffer_count;
    uint32_t in_ring;                              /* how many are there, as far as we have heard */
    uint32_t typical;                              /* the size of a piece, on average */
    int listener;                                  /* while an accept is pending, else -1 */
    int wake_up;                                   /* an eventfd */
    bool wakeable;                                 /* a read of it is on its way */
    uint64_t wake_ups;                             /* what is read from it */
    struct __kernel_timespec timeouts[SQ_ENTRIES]; /* of the sends in the submission queue's entries */
};
/* [/state] */

static struct slot *slot_of(const struct uring *uring, const struct proactor_operation *operation)
{
    return &uring->slots[operation->socket];
}

/* [prepare] */
/* The next entry is linked to this one, and cancels it when the time is over. */
static void link_timeout(struct uring *uring, struct io_uring_sqe *sqe, int64_t milliseconds)
{
    struct __kernel_timespec *timeout = &uring->timeouts[sqe - uring->ring.sq.sqes];
    if (milliseconds < 0)
        milliseconds = 0;
    *timeout = (struct __kernel_timespec){milliseconds / 1000, milliseconds % 1000 * 1000000};
    sqe->flags |= IOSQE_IO_LINK;
    struct io_uring_sqe *next = io_uring_get_sqe(&uring->ring);
    io_uring_prep_link_timeout(next, timeout, 0);
    next->user_data = NOBODY;
}

/* With a full table, a client would be taken from the queue and lost. A multishot accept may take in a whole
 * queue of them before we hear of it: so the last places are given out one by one. */
static void prepare_accept(struct uring *uring, struct io_uring_sqe *sqe,
                           const struct proactor_operation *operation)
{
    io_uring_prep_accept(sqe, (int)operation->socket, NULL, NULL, 0);
    if (uring->places > SOMAXCONN)
        sqe->ioprio |= IORING_ACCEPT_MULTISHOT;
    sqe->file_index = IORING_FILE_INDEX_ALLOC; /* into a free place of the table */
    if (operation->at_once)
        link_timeout(uring, sqe, 0);
}

static void prepare_receive(const struct uring *uring, struct io_uring_sqe *sqe,
                            const struct proactor_receive *receive)
{
    const struct proactor_operation *operation = &receive->operation;
    uint32_t most = receive->left < BUFFER_SIZE ? receive->left : BUFFER_SIZE;

    if (uring->bounded && !operation->at_once) {
        io_uring_prep_recv_multishot(sqe, (int)operation->socket, NULL, most, 0);
        sqe->ioprio |= IORING_RECVSEND_BUNDLE; /* or the last piece may go beyond the limit */
        sqe->file_index = most;                /* the limit has no field of its own in this header */
    } else {
        io_uring_prep_recv(sqe, (int)operation->socket, NULL, most, operation->at_once ? MSG_DONTWAIT : 0);
    }
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
}

static void prepare_send(struct uring *uring, struct io_uring_sqe *sqe, struct proactor_send *send,
                         const char *data, size_t size)
{
    int socket = (int)send->operation.socket;
    bool at_once = send->operation.at_once;

    if (size > MOST_SENT)
        size = MOST_SENT;
    if (send->ending) {
        io_uring_prep_shutdown(sqe, socket, SHUT_WR);
        sqe->flags |= IOSQE_FIXED_FILE;
        return;
    }
    if (uring->zero_copy_from > 0 && size >= uring->zero_copy_from && !at_once && !send->copied &&
        send->operation.kind == SEND) /* a block of a file is needed again for the next one */
        io_uring_prep_send_zc(sqe, socket, data, size, 0, 0);
    else
        io_uring_prep_send(sqe, socket, data, size, at_once ? MSG_DONTWAIT : 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    if (send->timeout_ms > 0)
        link_timeout(uring, sqe, send->due_ms - proactor_now(uring->proactor));
}

static void prepare_file(struct uring *uring, struct io_uring_sqe *sqe, struct proactor_send_file *file)
{
    struct proactor_send *send = &file->send;
    size_t left = send->size - send->sent;

    switch (send->ending ? SENDING : file->step) {
    case INSTALLING:
        io_uring_prep_rw(FIXED_FD_INSTALL, sqe, (int)send->operation.socket, NULL, 0, 0);
        sqe->flags |= IOSQE_FIXED_FILE;
        break;
    case POLLING:
        io_uring_prep_poll_add(sqe, (int)send->operation.socket, POLLOUT);
        sqe->flags |= IOSQE_FIXED_FILE;
        if (send->timeout_ms > 0)
            link_timeout(uring, sqe, send->due_ms - proactor_now(uring->proactor));
        break;
    case READING:
        io_uring_prep_read(sqe, file->file, (char *)(uintptr_t)send->data + file->head_size,
                           (unsigned)((left < FILE_BLOCK ? left : FILE_BLOCK) - file->head_size),
                           (uint64_t)file->offset);
        break;
    default:
        prepare_send(uring, sqe, send, send->data + file->block_sent, file->block - file->block_sent);
        break;
    }
}
/* [/prepare] */

/* [start] */
/* Puts an operation into the submission queue. Returns false if that has no room. */
static bool put(struct uring *uring, struct proactor_operation *operation)
{
    if (io_uring_sq_space_left(&uring->ring) < 2) /* a send may need a timeout, too */
        return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    struct proactor_send *send = as_send(operation);

    switch ((enum operation_kind)operation->kind) {
    case ACCEPT:
        prepare_accept(uring, sqe, operation);
        break;
    case RECEIVE:
        prepare_receive(uring, sqe, as_receive(operation));
        break;
    case SEND:
        prepare_send(uring, sqe, send, send->data + send->sent, send->size - send->sent);
        break;
    case SEND_FILE:
        prepare_file(uring, sqe, (struct proactor_send_file *)operation);
        break;
    case CLOSE:
        io_uring_prep_close_direct(sqe, (unsigned)operation->socket);
        break;
    }
    io_uring_sqe_set_data(sqe, operation);
    operation->state = IN_KERNEL;
    return true;
}

/* Begins an operation, or goes on with one, now or as soon as the submission queue has room. */
static void start(struct uring *uring, struct proactor_operation *operation)
{
    if (operation->kind == RECEIVE && uring->starved.first != NULL) {
        operation->state = STARVED; /* or those who never wait would take each buffer that comes free */
        queue_add(&uring->starved, operation);
    } else if (uring->waiting.first != NULL || !put(uring, operation)) {
        operation->state = WAITING;
        queue_add(&uring->waiting, operation);
    }
}

/* Has the handler of an operation called that is not in the kernel. */
static void fail(struct uring *uring, struct proactor_operation *operation, int error)
{
    operation->error = error;
    operation->state = FAILED;
    queue_add(&uring->waiting, operation);
}

/* Goes on with an operation that the kernel has ended too early; not if that was asked for. */
static void go_on(struct uring *uring, struct proactor_operation *operation)
{
    if (operation->state == CANCELLED)
        fail(uring, operation, ECANCELED);
    else
        start(uring, operation);
}
/* [/start] */

/* [end] */
/* An operation on a connection has ended. When it was the last one, the close can begin. */
static void end(struct uring *uring, struct proactor_operation *operation, int error)
{
    struct slot *slot = slot_of(uring, operation);
    *(operation->kind == RECEIVE ? &slot->receiving : &slot->sending) = NULL;
    if (slot->receiving == NULL && slot->sending == NULL && slot->closing != NULL)
        start(uring, slot->closing);
    operation_ended(uring->proactor, operation, error);
}

static void complete_receive(struct uring *uring, struct proactor_receive *receive, int error)
{
    end(uring, &receive->operation, error);
    receive->completed(uring->proactor, receive, (struct proactor_piece){0});
}

/* Gives back what the engine has got for sending a file. */
static void release_file(const struct proactor_send_file *file)
{
    free((void *)(uintptr_t)file->send.data);
    if (file->descriptor >= 0)
        close(file->descriptor);
}

static void complete_send(struct uring *uring, struct proactor_send *send, int error)
{
    if (send->operation.kind == SEND_FILE)
        release_file((struct proactor_send_file *)send);
    end(uring, &send->operation, error);
    operation_completed(uring->proactor, &send->operation);
}
/* [/end] */

/* [buffers] */
/* Hands the kernel the buffers that were given back last. The ring is a queue, and a pool that goes through
 * it from end to end is never in the cache when its turn comes. So in it are only as many as the
 * cache holds, filled as they were of late; who finds none waits for a moment. */
static void fill_ring(struct uring *uring)
{
    int mask = io_uring_buf_ring_mask(uring->buffer_count);
    uint32_t most = uring->typical < WARM / 2 ? WARM / (uring->typical + 1) : 1;
    int count = 0;

    while (uring->in_ring < most && uring->unused_count > 0) {
        uint16_t id = uring->unused[--uring->unused_count];
        io_uring_buf_ring_add(uring->buffer_ring, uring->memory + (size_t)id * STRIDE, BUFFER_SIZE, id, mask,
                              count++);
        uring->in_ring++;
    }
    io_uring_buf_ring_advance(uring->buffer_ring, count);
}

static void give_back(void *state, struct proactor_piece piece)
{
    struct uring *uring = state;
    ASAN_POISON_MEMORY_REGION(piece.data, piece.size);
    uring->unused[uring->unused_count++] = (uint16_t)piece.buffer;
}

/* Lets as many of those receive who found no buffer as there are buffers now, or all of them would come for
 * the same one. Some only wait for their peers and need none: then it is the next ones' turn. */
static void feed_starved(struct uring *uring)
{
    for (uint32_t most = uring->in_ring; most > 0 && uring->starved.first != NULL; most--) {
        if (!put(uring, uring->starved.first))
            return;
        (void)queue_take(&uring->starved);
    }
}
/* [/buffers] */

/* [received] */
static void on_received(struct uring *uring, struct proactor_receive *receive, int result, unsigned flags)
{
    struct proactor_operation *operation = &receive->operation;
    bool more = (flags & IORING_CQE_F_MORE) != 0;

    if (result > 0) {
        uint32_t id = flags >> IORING_CQE_BUFFER_SHIFT;
        struct proactor_piece piece = {uring->memory + (size_t)id * STRIDE, (uint32_t)result, id};
        bool closing = slot_of(uring, operation)->closing != NULL;

        uring->in_ring--;
        uring->typical = (7 * uring->typical + piece.size) / 8;
        ASAN_UNPOISON_MEMORY_REGION(piece.data, piece.size);
        receive->left -= piece.size;
        bool last = !more && !closing && (operation->at_once || receive->left == 0);
        if (last)
            end(uring, operation, 0);
        if (closing)
            give_back(uring, piece);
        else
            receive->completed(uring->proactor, receive, piece);
        if (!more && !last)
            go_on(uring, operation);
    } else if (result == -ENOBUFS && operation->state == IN_KERNEL) {
        operation->state = STARVED;
        queue_add(&uring->starved, operation);
    } else if (result == -EINTR || result == -ENOBUFS) {
        go_on(uring, operation);
    } else {
        complete_receive(uring, receive, -result);
    }
}
/* [/received] */

/* [sent] */
/* Brings notifications, which else come when the peer has taken the bytes, which may be never; and sends an
 * RST, if there is something that it has not taken. */
static void disconnect(struct uring *uring, proactor_socket socket)
{
    static const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL) {
        (void)io_uring_submit(&uring->ring);
        sqe = io_uring_get_sqe(&uring->ring);
    }
    if (sqe == NULL)
        return; /* the kernel is short of memory: then this close takes its time */
    io_uring_prep_connect(sqe, (int)socket, &nobody, sizeof nobody);
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = NOBODY;
}

/* Whether there is something left to do for a send after this result. */
static bool unfinished(const struct proactor_send *send, int result)
{
    if (result == -EINTR || (result == -EAGAIN && !send->operation.at_once))
        return true;
    return result >= 0 && send->sent < send->size && !send->operation.at_once;
}

static int error_of_send(const struct proactor_send *send, int result)
{
    if (result >= 0 || (result == -EAGAIN && send->operation.at_once))
        return 0;
    if (result == -ECANCELED && send->operation.state != CANCELLED && send->timeout_ms > 0)
        return ETIMEDOUT;
    return -result;
}

/* A result, and for a send without a copy a notification later: only then is the memory free. */
static void on_sent(struct uring *uring, struct proactor_send *send, int result, unsigned flags)
{
    struct proactor_operation *operation = &send->operation;
    struct slot *slot = slot_of(uring, operation);

    if ((flags & IORING_CQE_F_NOTIF) != 0) {
        send->notifications--;
        slot->notifications--;
        if (operation->state != NOTIFYING || send->notifications > 0)
            return;
        complete_send(uring, send, operation->error);
        return;
    }
    if ((flags & IORING_CQE_F_MORE) != 0) {
        send->notifications++;
        slot->notifications++;
        if (slot->closing != NULL)
            disconnect(uring, operation->socket);
    }
    if (result > 0)
        send->sent += (size_t)result;
    bool once_more = (result == -ENOMEM || result == -ENOBUFS) && !send->copied;
    send->copied |= once_more; /* what is not copied is locked in memory, and there is a limit of that */
    if (once_more || unfinished(send, result)) {
        go_on(uring, operation);
        return;
    }
    operation->error = error_of_send(send, result);
    if (send->last && !send->ending && operation->error == 0 && send->sent == send->size) {
        send->ending = true;
        go_on(uring, operation);
        return;
    }
    operation->state = NOTIFYING;
    if (send->notifications == 0)
        complete_send(uring, send, operation->error);
}

/* So much of a file is in the block, behind its head, and can be sent. */
static void block_read(struct proactor_send_file *file, size_t size)
{
    if (file->head_size > 0)
        memcpy((char *)(uintptr_t)file->send.data, file->head, file->head_size);
    file->block = file->head_size + size;
    file->block_sent = 0;
    file->head_size = 0;
    file->offset += (int64_t)size;
    file->step = SENDING;
}

/* Whether the rest of a file is in memory. A guess: its last byte can be had without waiting. */
static bool is_cached(const struct proactor_send_file *file)
{
    size_t rest = file->send.size - file->send.sent - file->head_size;
    char byte;
    const struct iovec last = {&byte, 1};
    return preadv2(file->file, &last, 1, file->offset + (int64_t)rest - 1, RWF_NOWAIT) == 1;
}

/* Sends what the socket takes of the head. Returns 0, or an errno. */
static int transmit_head(struct proactor_send_file *file)
{
    ssize_t n = 0;
    if (file->head_size > 0) /* it waits for the file, so as not to be a segment of its own */
        n = send(file->descriptor, file->head, file->head_size, MSG_MORE);
    if (n < 0)
        return errno;
    file->head += n;
    file->head_size -= (size_t)n;
    file->send.sent += (size_t)n;
    return file->head_size > 0 ? EAGAIN : 0;
}

/* The same with the file: without a copy, and without waiting, since it is in memory. io_uring has no
 * sendfile(), and its splice is done by threads of the kernel's, which costs more than to copy. The socket is
 * non-blocking only meanwhile: io_uring would take that for a wish not to wait. */
static int transmit(struct proactor_send_file *file)
{
    struct proactor_send *send = &file->send;
    size_t left = send->size - send->sent - file->head_size;

    (void)fcntl(file->descriptor, F_SETFL, O_RDWR | O_NONBLOCK); /* it is a socket, so this is allowed */
    int error = transmit_head(file);
    if (error == 0) {
        ssize_t n = sendfile(file->descriptor, file->file, &file->offset, left < TURN ? left : TURN);
        if (n > 0)
            send->sent += (size_t)n;
        error = n < 0 ? errno : n == 0 ? ENODATA : send->sent < send->size ? EAGAIN : 0;
    }
    (void)fcntl(file->descriptor, F_SETFL, O_RDWR);
    return error;
}

/* What comes next for a file: to send what is in memory, or else to read a block. */
static void next_step(struct uring *uring, struct proactor_send_file *file)
{
    struct proactor_send *send = &file->send;

    if (file->descriptor >= 0 && send->operation.state == IN_KERNEL && is_cached(file)) {
        int error = transmit(file);
        file->step = POLLING;
        if (error != EAGAIN && error != EINTR) {
            on_sent(uring, send, -error, 0);
            return;
        }
    } else {
        file->step = READING;
        if (send->data == NULL)
            send->data = malloc(send->size < FILE_BLOCK ? send->size : FILE_BLOCK);
        if (send->data == NULL) {
            complete_send(uring, send, ENOMEM);
            return;
        }
    }
    go_on(uring, &send->operation);
}

/* A block of a file has been read, or some of it sent. */
static void on_file(struct uring *uring, struct proactor_send_file *file, int result, unsigned flags)
{
    struct proactor_send *send = &file->send;

    if (send->ending) {
        on_sent(uring, send, result, flags);
    } else if (file->step == INSTALLING) {
        file->descriptor = result >= 0 ? result : -1;
        next_step(uring, file);
    } else if (file->step == POLLING && result > 0) {
        next_step(uring, file);
    } else if (file->step == POLLING) {
        complete_send(uring, send, error_of_send(send, result));
    } else if (file->step == SENDING) {
        if (result > 0)
            file->block_sent += (size_t)result;
        if (file->block_sent == file->block)
            file->step = READING;
        on_sent(uring, send, result, flags);
    } else if (result > 0) {
        block_read(file, (size_t)result);
        go_on(uring, &send->operation);
    } else if (result == -EINTR || result == -EAGAIN) {
        go_on(uring, &send->operation);
    } else {
        complete_send(uring, send, result == 0 ? ENODATA : -result);
    }
}
/* [/sent] */

/* [accepted] */
/* Cancels an operation that the kernel has, now: a call of its own, which needs no room in any queue, and no
 * completion. The operation completes with ECANCELED, or otherwise if that was sooner. */
static void cancel_in_kernel(struct uring *uring, struct proactor_operation *operation)
{
    struct io_uring_sync_cancel_reg what = {.addr = (uintptr_t)operation};

    operation->state = CANCELLED;
    while (io_uring_sq_ready(&uring->ring) > 0 && io_uring_submit(&uring->ring) > 0)
        continue;                                             /* what is not submitted cannot be found */
    (void)io_uring_register_sync_cancel(&uring->ring, &what); /* ENOENT: it has ended */
}

static void resume_accept(struct uring *uring)
{
    struct proactor_accept *accept = uring->paused;
    if (accept == NULL || uring->places == 0) /* without a place, a client would be lost */
        return;
    uring->paused = NULL;
    proactor_cancel_timer(uring->proactor, &accept->pause);
    start(uring, &accept->operation);
}

static void free_place(struct uring *uring, proactor_socket socket)
{
    uring->slots[socket] = (struct slot){0};
    uring->places++;
    resume_accept(uring);
}

static void on_pause_over(struct proactor *proactor, struct proactor_timer *timer)
{
    struct proactor_accept *accept =
        (struct proactor_accept *)((char *)timer - offsetof(struct proactor_accept, pause));
    (void)proactor;
    resume_accept(accept->engine);
}

/* A client's socket has inherited TCP_NODELAY from the listening one, unless it came before that had it.
 * On a kernel that does not know this operation, such a client does without. */
static void set_no_delay(struct uring *uring, int client)
{
    static const uint32_t option[] = {IPPROTO_TCP, TCP_NODELAY}; /* its fields have no names in this header */
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL)
        return;
    io_uring_prep_rw(IORING_OP_URING_CMD, sqe, client, NULL, 0, SOCKET_URING_OP_SETSOCKOPT);
    memcpy(&sqe->addr, option, sizeof option);
    sqe->file_index = sizeof ON;
    sqe->addr3 = (uintptr_t)&ON;
    sqe->flags = IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = NOBODY;
}

static void end_accept(struct uring *uring, struct proactor_accept *accept, int error)
{
    close(uring->listener);
    uring->listener = -1;
    operation_ended(uring->proactor, &accept->operation, error);
    accept->completed(uring->proactor, accept, 0);
}

/* The accept ended by itself. Out of descriptors, to begin it again at once would be to spin. */
static void go_on_accepting(struct uring *uring, struct proactor_accept *accept, int error)
{
    if (uring->places == 0) { /* until one is free, and not sooner: this client would be lost */
        uring->paused = accept;
        return;
    }
    switch (error) {
    case EMFILE: /* the process, the table, or the whole system is full */
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        accept->pause.expired = on_pause_over;
        accept->engine = uring;
        if (proactor_set_timer(uring->proactor, &accept->pause, PAUSE_MS) == 0) {
            uring->paused = accept;
            return;
        }
        break;
    case EBADF: /* a mistake of ours: to try again would be to spin for ever */
    case EINVAL:
    case ENOTSOCK:
        end_accept(uring, accept, error);
        return;
    default: /* over for that client only, or cancelled: those who have come before are taken in */
        break;
    }
    start(uring, &accept->operation);
}

static void on_accepted(struct uring *uring, struct proactor_accept *accept, int result, unsigned flags)
{
    const struct proactor_operation *operation = &accept->operation;

    if (result >= 0) {
        uring->places--;
        set_no_delay(uring, result);
        accept->completed(uring->proactor, accept, (proactor_socket)result);
    }
    if ((flags & IORING_CQE_F_MORE) != 0) {
        if (uring->places == SOMAXCONN) /* go on one by one */
            cancel_in_kernel(uring, &accept->operation);
        return;
    }
    if (result == -ECANCELED && operation->at_once && operation->state != CANCELLED)
        end_accept(uring, accept, ECANCELED); /* all who came before have been taken in */
    else
        go_on_accepting(uring, accept, result < 0 ? -result : 0);
}
/* [/accepted] */

/* [cancel] */
/* It waits in the queue for a buffer: takes it out. */
static void cancel_starved(struct uring *uring, struct proactor_operation *operation)
{
    struct proactor_operation **link = &uring->starved.first;
    while (*link != operation)
        link = &(*link)->next;
    *link = operation->next;
    if (operation->next == NULL)
        uring->starved.end = link;
    fail(uring, operation, ECANCELED);
}

/* A cancelled accept begins once more, with a timeout of 0: it takes in who is there, and ends. */
static void cancel_accept(struct uring *uring, struct proactor_accept *accept)
{
    accept->operation.at_once = true;
    if (accept->operation.state == IN_KERNEL)
        cancel_in_kernel(uring, &accept->operation);
    resume_accept(uring);
}

static void cancel(void *state, struct proactor_operation *operation)
{
    struct uring *uring = state;

    if (operation->kind == ACCEPT) {
        cancel_accept(uring, as_accept(operation));
    } else if (operation->state == IN_KERNEL) {
        cancel_in_kernel(uring, operation);
    } else if (operation->state == STARVED) {
        cancel_starved(uring, operation);
    } else if (operation->state == WAITING) { /* in the other queue, where it may stay */
        operation->state = FAILED;
        operation->error = ECANCELED;
    }
}

/* Takes it out of the table, which closes it: a call of its own, too, since nobody waits for it. */
static void discard(void *state, proactor_socket socket)
{
    struct uring *uring = state;
    int nothing = -1;
    (void)io_uring_register_files_update(&uring->ring, (unsigned)socket, &nothing, 1);
    free_place(uring, socket);
}

/* Cancels one by one, though one call could cancel all on a descriptor: for that, the kernel looks through
 * everything that is pending, of all connections. */
static void begin_close(struct uring *uring, struct proactor_operation *operation)
{
    struct slot *slot = slot_of(uring, operation);

    slot->closing = operation;
    if (slot->receiving != NULL)
        cancel(uring, slot->receiving);
    if (slot->sending != NULL)
        cancel(uring, slot->sending);
    if (slot->notifications > 0 || operation->at_once)
        disconnect(uring, operation->socket);
    if (slot->receiving == NULL && slot->sending == NULL)
        start(uring, operation);
}
/* [/cancel] */

/* [begin] */
/* Gets memory for a small file. Most often it is in memory already: then it is read here, and only sent by
 * the kernel. Returns false if there is no memory. */
static bool open_small(struct proactor_send_file *file)
{
    size_t size = file->send.size - file->head_size;
    char *data = malloc(file->send.size + 1); /* not even nothing is NULL */
    if (data == NULL)
        return false;
    file->send.data = data;
    const struct iovec rest = {data + file->head_size, size};
    if (size == 0 || preadv2(file->file, &rest, 1, file->offset, RWF_NOWAIT) == (ssize_t)size)
        block_read(file, size);
    return true;
}

static void begin(void *state, struct proactor_operation *operation)
{
    struct uring *uring = state;
    bool has_memory = true;

    switch ((enum operation_kind)operation->kind) {
    case ACCEPT: /* accepted sockets inherit TCP_NODELAY; an error comes from the accept, too */
        uring->listener = (int)operation->socket;
        (void)setsockopt(uring->listener, IPPROTO_TCP, TCP_NODELAY, &ON, sizeof ON);
        break;
    case CLOSE:
        begin_close(uring, operation);
        return;
    case SEND_FILE: {
        struct proactor_send_file *file = (struct proactor_send_file *)operation;
        bool small = file->send.size <= SMALL_FILE;
        file->descriptor = -1;
        file->block = file->block_sent = 0;
        file->step = small ? READING : INSTALLING;
        has_memory = !small || open_small(file);
        break;
    }
    default:
        break;
    }
    if (operation->kind == RECEIVE)
        slot_of(uring, operation)->receiving = operation;
    else if (operation->kind != ACCEPT)
        slot_of(uring, operation)->sending = operation;
    if (has_memory)
        start(uring, operation);
    else
        fail(uring, operation, ENOMEM);
}
/* [/begin] */

/* [dispatch] */
static void on_completion(struct uring *uring, const struct io_uring_cqe *cqe)
{
    struct proactor_operation *operation = io_uring_cqe_get_data(cqe);
    int result = cqe->res;

    switch ((enum operation_kind)operation->kind) {
    case ACCEPT:
        on_accepted(uring, as_accept(operation), result, cqe->flags);
        break;
    case RECEIVE:
        on_received(uring, as_receive(operation), result, cqe->flags);
        break;
    case SEND:
        on_sent(uring, as_send(operation), result, cqe->flags);
        break;
    case SEND_FILE:
        on_file(uring, (struct proactor_send_file *)operation, result, cqe->flags);
        break;
    case CLOSE:
        free_place(uring, operation->socket);
        operation_ended(uring->proactor, operation, result < 0 ? -result : 0);
        operation_completed(uring->proactor, operation);
        break;
    }
}

/* Completes the failed ones, and starts as many of the others as there is room for. */
static void start_waiting(struct uring *uring)
{
    struct proactor_operation *const *end = uring->waiting.end;

    for (bool last = uring->waiting.first == NULL; !last;) {
        struct proactor_operation *operation = queue_take(&uring->waiting);
        last = &operation->next == end;
        if (operation->state == WAITING) {
            if (!put(uring, operation))
                queue_add(&uring->waiting, operation);
        } else if (operation->kind == RECEIVE) {
            complete_receive(uring, as_receive(operation), operation->error);
        } else if (as_send(operation)->notifications > 0) {
            operation->state = NOTIFYING;
        } else {
            complete_send(uring, as_send(operation), operation->error);
        }
    }
}

static void dispatch(void *state)
{
    struct uring *uring = state;
    struct io_uring *ring = &uring->ring;

    start_waiting(uring);
    do {
        struct io_uring_cqe *cqe;
        unsigned head;
        unsigned count = 0;
        io_uring_for_each_cqe(ring, head, cqe)
        {
            count++;
            if (cqe->user_data == WAKE_UP)
                uring->wakeable = false;
            else if (cqe->user_data != NOBODY)
                on_completion(uring, cqe);
        }
        io_uring_cq_advance(ring, count);
        /* What found no room in the completion queue has been kept by the kernel. */
    } while (io_uring_cq_has_overflow(ring) && io_uring_get_events(ring) == 0);
}
/* [/dispatch] */

/* [wait] */
/* Asks to be woken, by a read from the eventfd. Returns false if the submission queue has no room. */
static bool make_wakeable(struct uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL)
        return false;
    io_uring_prep_read(sqe, uring->wake_up, &uring->wake_ups, sizeof uring->wake_ups, 0);
    sqe->user_data = WAKE_UP;
    return true;
}

static int wait_for_completions(void *state, int timeout_ms)
{
    struct uring *uring = state;
    struct io_uring_cqe *cqe;
    int result;

    if (!uring->wakeable)
        uring->wakeable = make_wakeable(uring);
    fill_ring(uring);
    feed_starved(uring);
    if (uring->waiting.first != NULL || !uring->wakeable ||
        (uring->starved.first != NULL && uring->in_ring > 0))
        timeout_ms = 0; /* it is the next ones' turn */
    if (timeout_ms < 0) {
        result = io_uring_submit_and_wait(&uring->ring, 1);
    } else {
        struct __kernel_timespec timeout = {timeout_ms / 1000, (int64_t)timeout_ms % 1000 * 1000000};
        result = io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &timeout, NULL);
    }
    /* EBUSY, EAGAIN: the kernel wants completions to be taken first, or is short of memory. */
    if (result < 0 && result != -EINTR && result != -ETIME && result != -EBUSY && result != -EAGAIN) {
        errno = -result;
        return -1;
    }
    return 0;
}

static void wake(void *state)
{
    const struct uring *uring = state;
    const uint64_t one = 1;
    (void)!write(uring->wake_up, &one, sizeof one); /* if it fails, the loop has been woken 2^64 times */
}
/* [/wait] */

/* [close] */
/* The kernel ends a ring some time after its last descriptor is closed. Until then an accept keeps the
 * port, and a receive may write: so all is cancelled before, and waited for. */
static void close_uring(void *state)
{
    struct uring *uring = state;
    struct io_uring_sync_cancel_reg all = {.flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL,
                                           .timeout = {.tv_sec = 1}};

    (void)io_uring_register_sync_cancel(&uring->ring, &all);
    (void)io_uring_get_events(&uring->ring); /* what is cancelled ends in here */
    for (uint32_t i = 0; i < uring->slot_count; i++) {
        if (uring->slots[i].sending != NULL && uring->slots[i].sending->kind == SEND_FILE)
            release_file((struct proactor_send_file *)uring->slots[i].sending);
    }
    (void)io_uring_unregister_files(&uring->ring);
    io_uring_queue_exit(&uring->ring);
    if (uring->wake_up >= 0)
        close(uring->wake_up);
    if (uring->listener >= 0)
        close(uring->listener);
    free(uring->buffer_ring);
    if (uring->memory != NULL)
        ASAN_UNPOISON_MEMORY_REGION(uring->memory, (size_t)uring->buffer_count * STRIDE);
    free(uring->memory);
    free(uring->unused);
    free(uring->slots);
    free(uring);
}
/* [/close] */

/* [open] */
/* A ring for one thread, which asks for its completions when it waits; or what this kernel has of that. */
static int open_ring(struct io_uring *ring)
{
    static const unsigned attempts[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                                        IORING_SETUP_COOP_TASKRUN, 0};
    int result = -EINVAL;

    for (size_t i = 0; i < sizeof attempts / sizeof *attempts && result == -EINVAL; i++) {
        struct io_uring_params params = {
            .flags = attempts[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL,
            .cq_entries = CQ_ENTRIES,
        };
        result = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
    }
    if (result == 0)
        (void)io_uring_register_ring_fd(ring); /* saves a little in each call, where it is known */
    return result;
}

/* A table of the kernel's for as many clients as the process may have descriptors. */
static int open_slots(struct uring *uring)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    rlim_t count = limit.rlim_cur > OWN_DESCRIPTORS ? limit.rlim_cur - OWN_DESCRIPTORS : 1;
    if (count > MOST_CLIENTS)
        count = MOST_CLIENTS;
    uring->places = (uint32_t)count;
    uring->slots = calloc(count, sizeof *uring->slots);
    if (uring->slots == NULL)
        return -ENOMEM;
    uring->slot_count = uring->places;
    return io_uring_register_files_sparse(&uring->ring, (unsigned)count);
}

static int open_buffers(struct uring *uring, uint32_t wanted)
{
    uint32_t count = 1;
    while (count < (wanted > 0 ? wanted : BUFFERS) && count < MOST_BUFFERS)
        count *= 2; /* as the ring needs it */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = count * sizeof(struct io_uring_buf);
    uring->buffer_ring = aligned_alloc(page, (size + page - 1) / page * page);
    uring->memory = aligned_alloc(64, (size_t)count * STRIDE);
    uring->unused = calloc(count, sizeof *uring->unused);
    if (uring->buffer_ring == NULL || uring->memory == NULL || uring->unused == NULL)
        return -ENOMEM;
    memset(uring->memory, 0, (size_t)count * STRIDE); /* it is real from now on */
    ASAN_POISON_MEMORY_REGION(uring->memory, (size_t)count * STRIDE);
    for (uring->buffer_count = 0; uring->buffer_count < count; uring->buffer_count++)
        uring->unused[uring->unused_count++] = (uint16_t)uring->buffer_count;
    io_uring_buf_ring_init(uring->buffer_ring);
    return io_uring_register_buf_ring(
        &uring->ring,
        &(struct io_uring_buf_reg){.ring_addr = (uintptr_t)uring->buffer_ring, .ring_entries = count}, 0);
}

/* Of what cannot be done without, sends without a copy are the newest; newer still shows itself when tried.
 */
static int check_operations(struct uring *uring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&uring->ring);
    bool known = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_SEND_ZC);
    io_uring_free_probe(probe);
    return known ? 0 : -EINVAL;
}

/* Whether a multishot receive can have a limit: tried on what is no socket. EINVAL comes first if it cannot.
 */
static bool has_limits(struct uring *uring)
{
    const struct proactor_receive receive = {.operation.socket = (proactor_socket)uring->wake_up, .left = 1};
    struct io_uring_cqe *cqe;

    uring->bounded = true;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring); /* a new ring has room */
    prepare_receive(uring, sqe, &receive);
    sqe->flags &= (uint8_t)~IOSQE_FIXED_FILE;
    if (io_uring_submit_and_wait(&uring->ring, 1) < 0 || io_uring_peek_cqe(&uring->ring, &cqe) < 0)
        return false;
    bool known = cqe->res != -EINVAL;
    io_uring_cqe_seen(&uring->ring, cqe);
    return known;
}

static void *open_uring(struct proactor *proactor, const struct proactor_options *options)
{
    struct uring *uring = calloc(1, sizeof *uring);
    if (uring == NULL)
        return NULL;
    uring->proactor = proactor;
    uring->listener = -1;
    uring->zero_copy_from = options->zero_copy_from;
    int result = open_ring(&uring->ring);
    if (result < 0) {
        free(uring);
        errno = -result;
        return NULL;
    }
    uring->wake_up = eventfd(0, EFD_CLOEXEC);
    result = uring->wake_up < 0 ? -errno : 0;
    if (result == 0)
        result = check_operations(uring);
    if (result == 0)
        result = open_slots(uring);
    if (result == 0)
        result = open_buffers(uring, options->buffers);
    if (result == 0 && signal(SIGPIPE, SIG_IGN) == SIG_ERR) /* sendfile() would raise it */
        result = -errno;
    if (result == 0) {
        uring->bounded = has_limits(uring);
        return uring;
    }
    close_uring(uring);
    errno = -result;
    return NULL;
}
/* [/open] */

/* [why] */
static const char *why(int error)
{
    static char text[160];
    char setting[8] = "?";

    switch (error) {
    case EPERM: /* a container's seccomp filter says the same as the setting does */
    case EACCES: {
        int file = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
        ssize_t size = file < 0 ? 0 : read(file, setting, sizeof setting - 1);
        setting[size > 0 ? size : 1] = '\0';
        setting[strcspn(setting, "\n")] = '\0';
        close(file);
        snprintf(text, sizeof text,
                 "kernel.io_uring_disabled is %s; where that is 0, a seccomp filter, as in most containers",
                 setting);
        return text;
    }
    case ENOSYS:
        return "this kernel has none, or a seccomp filter hides it, as in most containers";
    case ENOMEM:
        return "raise the limit of locked memory, ulimit -l";
    case EINVAL:
        return "this kernel is older than Linux 6.0";
    default:
        return NULL;
    }
}
/* [/why] */

extern const struct engine engine_uring;
const struct engine engine_uring = {
    "io_uring", open_uring,           close_uring, begin, cancel, discard,
    give_back,  wait_for_completions, dispatch,    wake,  why,
};

#else
typedef int uring_is_not_here; /* a file of C is never empty */
#endif
