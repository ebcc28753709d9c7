/* engine_emulated.c - the engine for systems whose kernel does no operations: a reactor inside, a proactor
 * outside, as Boost.Asio does it on Unix.
 *
 * poll(2) says on which sockets something can be done; the engine does it, and calls the completion handler.
 * The application does not see the difference: only that here its own
 * thread pays for each call.
 * Needs POSIX.1-2008. Try: ./proactor --engine emulated */
#ifndef _WIN32

#define _POSIX_C_SOURCE 200809L

#include "engine.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFERS = 16,
    BUFFER_SIZE = 64 * 1024,
    ACCEPTS_PER_TURN = 64, /* so that a crowd at the door does not keep those inside waiting */
    PAUSE_MS = 100,        /* out of descriptors, ask again after this long */
};

/* Where an operation is. */
enum {
    WATCHED, /* until something can be done for it */
    URGENT,  /* its turn comes without waiting */
    FAILED,  /* its turn comes, and is to have its handler called */
};

/* [state] */
/* What is pending on one descriptor, one of each direction at most. */
struct place {
    struct proactor_operation *reading; /* an accept or a receive */
    struct proactor_operation *writing;
    nfds_t entry; /* its own */
};

struct emulated {
    struct proactor *proactor;
    struct pollfd *entries; /* those who are here, the first is the wake-up */
    nfds_t count, room;
    nfds_t next;          /* where the next round begins */
    struct place *places; /* by descriptor */
    size_t place_count;
    struct queue urgent;
    struct proactor_accept *paused; /* until there is a descriptor */
    char *memory;                   /* of the buffers */
    uint32_t *free_buffers;
    uint32_t buffer_count, free_count;
    char *block;    /* of a file, while it is sent */
    bool timed;     /* a send that waits has a time limit */
    int wake_up[2]; /* a pipe */
};
/* [/state] */

/* [turns] */
/* Where an operation is noted that waits for its descriptor. */
static struct proactor_operation **watcher(const struct emulated *emulated,
                                           const struct proactor_operation *operation)
{
    struct place *place = &emulated->places[operation->socket];
    return operation->kind == ACCEPT || operation->kind == RECEIVE ? &place->reading : &place->writing;
}

/* Gives the operation its turn without waiting, to be done or to fail. */
static void hurry(struct emulated *emulated, struct proactor_operation *operation, int error)
{
    operation->state = error != 0 ? FAILED : URGENT;
    operation->error = error;
    queue_add(&emulated->urgent, operation);
}

static void watch(struct emulated *emulated, struct proactor_operation *operation)
{
    operation->state = WATCHED;
    *watcher(emulated, operation) = operation;
}

/* The pause is over, or there is a descriptor. */
static void resume_accept(struct emulated *emulated)
{
    struct proactor_accept *accept = emulated->paused;
    if (accept == NULL)
        return;
    emulated->paused = NULL;
    proactor_cancel_timer(emulated->proactor, &accept->pause);
    hurry(emulated, &accept->operation, 0);
}
/* [/turns] */

/* [places] */
/* Makes a place for descriptor fd, and an entry. Returns 0, or -1 with errno. */
static int add_place(struct emulated *emulated, int fd)
{
    if (emulated->count == emulated->room) {
        nfds_t room = emulated->room == 0 ? 64 : 2 * emulated->room;
        struct pollfd *entries = realloc(emulated->entries, room * sizeof *entries);
        if (entries == NULL)
            return -1;
        emulated->entries = entries;
        emulated->room = room;
    }
    size_t room = emulated->place_count == 0 ? 64 : emulated->place_count;
    while (room <= (size_t)fd)
        room *= 2;
    if (room > emulated->place_count) {
        struct place *places = realloc(emulated->places, room * sizeof *places);
        if (places == NULL)
            return -1;
        emulated->places = places;
        emulated->place_count = room;
    }
    emulated->places[fd] = (struct place){.entry = emulated->count};
    emulated->entries[emulated->count++] = (struct pollfd){.fd = fd};
    return 0;
}

/* The same for one on which no call shall wait. */
static int add_descriptor(struct emulated *emulated, int fd)
{
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        return -1;
    return add_place(emulated, fd);
}

/* An entry for which nothing is pending holds the complement, so that poll() leaves it alone: it would
 * report a hang-up again and again. */
static int descriptor(const struct pollfd *entry)
{
    return entry->fd >= 0 ? entry->fd : ~entry->fd;
}

/* Closes the descriptor. Its entry is taken by the last one. */
static void close_place(struct emulated *emulated, int fd)
{
    nfds_t entry = emulated->places[fd].entry;
    emulated->entries[entry] = emulated->entries[--emulated->count];
    emulated->places[descriptor(&emulated->entries[entry])].entry = entry;
    close(fd);
    resume_accept(emulated); /* there is a free descriptor now */
}
/* [/places] */

/* [begin] */
static void fail_watched(struct emulated *emulated, struct proactor_operation **watched)
{
    struct proactor_operation *operation = *watched;
    if (operation == NULL)
        return;
    *watched = NULL;
    hurry(emulated, operation, ECANCELED);
}

static void cancel(void *state, struct proactor_operation *operation)
{
    struct emulated *emulated = state;

    if (operation->kind == ACCEPT) { /* its last turn, for those who have come before */
        operation->at_once = true;
        if (operation->state == WATCHED) {
            *watcher(emulated, operation) = NULL;
            hurry(emulated, operation, 0);
        }
        resume_accept(emulated);
    } else if (operation->state == WATCHED) {
        fail_watched(emulated, watcher(emulated, operation));
    } else {
        operation->state = FAILED;
        operation->error = ECANCELED;
    }
}

/* The close comes behind all others of the socket in the queue. */
static void begin_close(struct emulated *emulated, struct proactor_operation *close)
{
    struct place *place = &emulated->places[close->socket];

    for (struct proactor_operation *urgent = emulated->urgent.first; urgent != NULL; urgent = urgent->next) {
        if (urgent->socket == close->socket && urgent->state == URGENT)
            cancel(emulated, urgent);
    }
    fail_watched(emulated, &place->reading);
    fail_watched(emulated, &place->writing);
    if (close->at_once) {
        const struct linger now = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt((int)close->socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    hurry(emulated, close, 0);
}

static void begin(void *state, struct proactor_operation *operation)
{
    struct emulated *emulated = state;

    if (operation->kind == CLOSE)
        begin_close(emulated, operation);
    else if (operation->kind == ACCEPT && add_descriptor(emulated, (int)operation->socket) < 0)
        hurry(emulated, operation, errno);
    else if (operation->at_once)
        hurry(emulated, operation, 0);
    else
        watch(emulated, operation);
}

static void discard(void *state, proactor_socket socket)
{
    close_place(state, (int)socket);
}
/* [/begin] */

/* [accept] */
static void on_pause_over(struct proactor *proactor, struct proactor_timer *timer)
{
    struct proactor_accept *accept =
        (struct proactor_accept *)((char *)timer - offsetof(struct proactor_accept, pause));
    (void)proactor;
    resume_accept(accept->engine);
}

static void end_accept(struct emulated *emulated, struct proactor_accept *accept, int error)
{
    close_place(emulated, (int)accept->operation.socket);
    operation_ended(emulated->proactor, &accept->operation, error);
    accept->completed(emulated->proactor, accept, 0);
}

/* Out of descriptors, to ask again at once would be to spin. */
static void pause_accept(struct emulated *emulated, struct proactor_accept *accept)
{
    accept->pause.expired = on_pause_over;
    accept->engine = emulated;
    if (proactor_set_timer(emulated->proactor, &accept->pause, PAUSE_MS) == 0)
        emulated->paused = accept;
    else
        watch(emulated, &accept->operation);
}

/* Nobody could be taken in. Returns whether to try again at once. */
static bool go_on_accepting(struct emulated *emulated, struct proactor_accept *accept, int error)
{
    if (error == EWOULDBLOCK)
        error = EAGAIN;
    switch (error) {
    case EAGAIN: /* nobody waits any more */
        if (accept->operation.at_once)
            end_accept(emulated, accept, ECANCELED);
        else
            watch(emulated, &accept->operation);
        return false;
    case EMFILE: /* this process, or the whole system, can open no more */
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        pause_accept(emulated, accept);
        return false;
    case EBADF: /* a mistake of ours: to try again would be to spin for ever */
    case EINVAL:
    case ENOTSOCK:
        end_accept(emulated, accept, error);
        return false;
    default: /* EINTR, ECONNABORTED and others: over for that client only */
        return true;
    }
}

static void take_in(struct emulated *emulated, struct proactor_accept *accept, int fd)
{
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* if it fails, the client has gone */
    if (add_descriptor(emulated, fd) < 0) {
        net_log(fd, "turned away", errno);
        close(fd);
    } else {
        accept->completed(emulated->proactor, accept, (proactor_socket)fd);
    }
}

static void do_accept(struct emulated *emulated, struct proactor_accept *operation)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept((int)operation->operation.socket, NULL, NULL);
        if (fd >= 0)
            take_in(emulated, operation, fd);
        else if (!go_on_accepting(emulated, operation, errno))
            return;
    }
    hurry(emulated, &operation->operation, 0); /* there may be more of them, behind the others' turns */
}
/* [/accept] */

/* [receive] */
static void end_receive(struct emulated *emulated, struct proactor_receive *receive, int error)
{
    operation_ended(emulated->proactor, &receive->operation, error);
    receive->completed(emulated->proactor, receive, (struct proactor_piece){0});
}

static void do_receive(struct emulated *emulated, struct proactor_receive *receive)
{
    struct proactor_operation *operation = &receive->operation;
    if (emulated->free_count == 0) { /* somebody gives one back, and then it is this one's turn */
        if (operation->at_once)
            hurry(emulated, operation, 0);
        else
            watch(emulated, operation);
        return;
    }
    uint32_t buffer = emulated->free_buffers[emulated->free_count - 1];
    char *data = emulated->memory + (size_t)buffer * BUFFER_SIZE;
    size_t most = receive->left < BUFFER_SIZE ? receive->left : BUFFER_SIZE;
    ASAN_UNPOISON_MEMORY_REGION(data, BUFFER_SIZE);

    ssize_t size;
    do
        size = recv((int)operation->socket, data, most, 0);
    while (size < 0 && errno == EINTR);
    bool nothing = size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (size <= 0) {
        ASAN_POISON_MEMORY_REGION(data, BUFFER_SIZE);
        if (nothing && !operation->at_once)
            watch(emulated, operation);
        else
            end_receive(emulated, receive, size == 0 ? 0 : nothing ? EAGAIN : errno);
        return;
    }
    emulated->free_count--;
    receive->left -= (uint32_t)size;
    if (receive->left == 0 || operation->at_once)
        operation_ended(emulated->proactor, operation, 0);
    else
        watch(emulated, operation); /* now, since the handler may cancel it */
    receive->completed(emulated->proactor, receive, (struct proactor_piece){data, (uint32_t)size, buffer});
}

/* The last one given back is lent first: it is still in the processor's cache. */
static void give_back(void *state, struct proactor_piece piece)
{
    struct emulated *emulated = state;
    ASAN_POISON_MEMORY_REGION(emulated->memory + (size_t)piece.buffer * BUFFER_SIZE, BUFFER_SIZE);
    emulated->free_buffers[emulated->free_count++] = piece.buffer;
}
/* [/receive] */

/* [send] */
/* Sends data until all is gone or the socket takes no more. Returns 0, or an errno. */
static int send_some(struct proactor_send *operation, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send((int)operation->operation.socket, data, size, 0);
        if (n < 0 && errno != EINTR)
            return errno == EWOULDBLOCK ? EAGAIN : errno;
        if (n > 0) {
            operation->sent += (size_t)n;
            data += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

/* The same with a head, and bytes of a file. What the socket does not take is read again the next time. */
static int send_file(struct emulated *emulated, struct proactor_send_file *file)
{
    struct proactor_send *send = &file->send;

    while (send->sent < send->size) {
        size_t left = send->size - send->sent;
        size_t before = send->sent;
        size_t head = file->head_size;
        ssize_t n = pread(file->file, emulated->block + head,
                          (left < BUFFER_SIZE ? left : BUFFER_SIZE) - head, file->offset);
        if (n <= 0 && !(n < 0 && errno == EINTR))
            return n == 0 ? ENODATA : errno;
        if (head > 0)
            memcpy(emulated->block, file->head, head);
        int error = n > 0 ? send_some(send, emulated->block, head + (size_t)n) : 0;
        size_t sent = send->sent - before;
        head = sent < head ? sent : head;
        file->head += head;
        file->head_size -= head;
        file->offset += (int64_t)(sent - head);
        if (error != 0)
            return error;
    }
    return 0;
}

static void do_send(struct emulated *emulated, struct proactor_send *send)
{
    struct proactor_operation *operation = &send->operation;
    int error = operation->kind == SEND_FILE
                    ? send_file(emulated, (struct proactor_send_file *)send)
                    : send_some(send, send->data + send->sent, send->size - send->sent);

    if (error == EAGAIN && !(operation->at_once && operation->kind == SEND)) {
        watch(emulated, operation);
        return;
    }
    if (error == 0 && send->last && shutdown((int)operation->socket, SHUT_WR) < 0)
        error = errno;
    operation_ended(emulated->proactor, operation, error == EAGAIN ? 0 : error);
    operation_completed(emulated->proactor, operation);
}
/* [/send] */

/* [dispatch] */
static void end_failed(struct emulated *emulated, struct proactor_operation *operation)
{
    if (operation->kind == ACCEPT) { /* it has not even begun, and has no place */
        close((int)operation->socket);
        operation_ended(emulated->proactor, operation, operation->error);
        as_accept(operation)->completed(emulated->proactor, as_accept(operation), 0);
    } else if (operation->kind == RECEIVE) {
        end_receive(emulated, as_receive(operation), operation->error);
    } else {
        operation_ended(emulated->proactor, operation, operation->error);
        operation_completed(emulated->proactor, operation);
    }
}

/* Does what can be done for an operation that is neither watched nor in the queue now. */
static void take_turn(struct emulated *emulated, struct proactor_operation *operation)
{
    switch ((enum operation_kind)operation->kind) {
    case ACCEPT:
        do_accept(emulated, as_accept(operation));
        break;
    case RECEIVE:
        do_receive(emulated, as_receive(operation));
        break;
    case SEND:
    case SEND_FILE:
        do_send(emulated, as_send(operation));
        break;
    case CLOSE:
        close_place(emulated, (int)operation->socket);
        operation_ended(emulated->proactor, operation, 0);
        operation_completed(emulated->proactor, operation);
        break;
    }
}

/* Those whose turn was due when this began: each may bring another one, for the next time. */
static void take_urgent_turns(struct emulated *emulated)
{
    struct proactor_operation *const *end = emulated->urgent.end;
    for (bool last = emulated->urgent.first == NULL; !last;) {
        struct proactor_operation *operation = queue_take(&emulated->urgent);
        last = &operation->next == end;
        if (operation->state == FAILED)
            end_failed(emulated, operation);
        else
            take_turn(emulated, operation);
    }
}

/* Takes a watched operation out of its place, and gives it its turn. */
static void take_watched(struct emulated *emulated, struct proactor_operation **watched)
{
    struct proactor_operation *operation = *watched;
    *watched = NULL;
    operation->state = URGENT; /* its handlers may cancel it */
    take_turn(emulated, operation);
}

/* One socket has been waited for, and this is what poll() said of it. An error or a hang-up counts as
 * whatever is watched for: the call says what it is about. */
static void take_turns_of(struct emulated *emulated, int fd, short happened)
{
    if ((happened & ~POLLOUT) != 0 && emulated->places[fd].reading != NULL)
        take_watched(emulated, &emulated->places[fd].reading);
    struct place *place = &emulated->places[fd]; /* only now: the table may have moved */
    if (place->writing == NULL)
        return;
    struct proactor_send *send = as_send(place->writing);
    if ((happened & ~POLLIN) != 0) {
        take_watched(emulated, &place->writing);
    } else if (send->due_ms <= proactor_now(emulated->proactor)) {
        place->writing = NULL;
        hurry(emulated, &send->operation, ETIMEDOUT);
    }
}

static void dispatch(void *state)
{
    struct emulated *emulated = state;
    char bytes[64];

    if (emulated->entries[0].revents != 0) {
        while (read(emulated->wake_up[0], bytes, sizeof bytes) > 0)
            continue;
    }
    /* Not always from the first on: the last ones would wait for ever when there are too few buffers. */
    for (nfds_t left = emulated->count; left > 0; left--) {
        if (emulated->next >= emulated->count)
            emulated->next = 0;
        const struct pollfd *entry = &emulated->entries[emulated->next++];
        if (entry != emulated->entries && (entry->revents != 0 || emulated->timed))
            take_turns_of(emulated, descriptor(entry), entry->revents);
        if (emulated->free_count == 0) /* what has come is sent, and the next ones find buffers */
            take_urgent_turns(emulated);
    }
    emulated->next++;
    take_urgent_turns(emulated);
}
/* [/dispatch] */

/* [wait] */
/* What each entry is to be woken by; returns when the first of the sends is due, or INT64_MAX. */
static int64_t choose_events(struct emulated *emulated)
{
    int64_t due_ms = INT64_MAX;

    for (nfds_t i = 1; i < emulated->count; i++) {
        struct pollfd *entry = &emulated->entries[i];
        int fd = descriptor(entry);
        const struct place *place = &emulated->places[fd];
        bool reads = place->reading != NULL && (emulated->free_count > 0 || place->reading->kind == ACCEPT);
        entry->events = (short)((reads ? POLLIN : 0) | (place->writing != NULL ? POLLOUT : 0));
        entry->fd = entry->events != 0 ? fd : ~fd;
        entry->revents = 0;
        if (place->writing != NULL && as_send(place->writing)->due_ms < due_ms)
            due_ms = as_send(place->writing)->due_ms;
    }
    return due_ms;
}

static int wait_for_events(void *state, int timeout_ms)
{
    const struct timespec tenth = {.tv_nsec = 100000000};
    struct emulated *emulated = state;
    int64_t due_ms = choose_events(emulated);
    emulated->timed = due_ms != INT64_MAX;
    int64_t left = due_ms - proactor_now(emulated->proactor);

    if (emulated->urgent.first != NULL || left < 0)
        timeout_ms = 0;
    else if (emulated->timed && (timeout_ms < 0 || left < timeout_ms))
        timeout_ms = left < INT_MAX ? (int)left : INT_MAX;
    if (poll(emulated->entries, emulated->count, timeout_ms) >= 0 || errno == EINTR)
        return 0;
    if (errno != ENOMEM && errno != EAGAIN)
        return -1;
    nanosleep(&tenth, NULL); /* the kernel lacks memory: to try again at once would be to spin */
    return 0;
}

static void wake(void *state)
{
    const struct emulated *emulated = state;
    (void)!write(emulated->wake_up[1], "", 1); /* if the pipe is full, the loop will wake all the same */
}
/* [/wait] */

/* [open] */
static void close_emulated(void *state)
{
    struct emulated *emulated = state;
    for (nfds_t i = 0; i < emulated->count; i++)
        close(descriptor(&emulated->entries[i])); /* the first is the reading end of the pipe */
    close(emulated->wake_up[1]);
    if (emulated->memory != NULL)
        ASAN_UNPOISON_MEMORY_REGION(emulated->memory, (size_t)emulated->buffer_count * BUFFER_SIZE);
    free(emulated->memory);
    free(emulated->free_buffers);
    free(emulated->block);
    free(emulated->entries);
    free(emulated->places);
    free(emulated);
}

static int open_buffers(struct emulated *emulated, uint32_t count)
{
    emulated->buffer_count = count;
    emulated->memory = malloc((size_t)count * BUFFER_SIZE);
    emulated->free_buffers = malloc(count * sizeof *emulated->free_buffers);
    emulated->block = malloc(BUFFER_SIZE);
    if (emulated->memory == NULL || emulated->free_buffers == NULL || emulated->block == NULL)
        return -1;
    for (uint32_t buffer = 0; buffer < count; buffer++)
        give_back(emulated, (struct proactor_piece){.buffer = buffer});
    return 0;
}

static void *open_emulated(struct proactor *proactor, const struct proactor_options *options)
{
    struct emulated *emulated = calloc(1, sizeof *emulated);
    if (emulated == NULL)
        return NULL;
    emulated->proactor = proactor;
    if (pipe(emulated->wake_up) < 0) {
        free(emulated);
        return NULL;
    }
    bool opened = add_place(emulated, emulated->wake_up[0]) == 0;
    for (int i = 0; i < 2; i++) /* a new pipe has no flags that this could wipe */
        opened = opened && fcntl(emulated->wake_up[i], F_SETFL, O_NONBLOCK) == 0 &&
                 fcntl(emulated->wake_up[i], F_SETFD, FD_CLOEXEC) == 0;
    if (opened && open_buffers(emulated, options->buffers > 0 ? options->buffers : BUFFERS) == 0 &&
        signal(SIGPIPE, SIG_IGN) !=
            SIG_ERR) { /* to send to a client that has gone is an error of that client */
        emulated->entries[0].events = POLLIN;
        return emulated;
    }
    int error = errno;
    close_emulated(emulated);
    errno = error;
    return NULL;
}

static const char *why(int error)
{
    (void)error;
    return NULL;
}
/* [/open] */

extern const struct engine engine_emulated;
const struct engine engine_emulated = {
    "emulated", open_emulated,   close_emulated, begin, cancel, discard,
    give_back,  wait_for_events, dispatch,       wake,  why,
};

#else
typedef int emulated_is_not_here; /* a file of C is never empty */
#endif
