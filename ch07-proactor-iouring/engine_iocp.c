/* engine_iocp.c - the engine for Windows, whose kernel has always done operations for programs, and reports
 * their ends through an I/O completion port.
 *
 * There is one port for everything. Each socket is tied to it once; each call that begins an operation brings
 * an OVERLAPPED, which is the kernel's until a completion brings it back. That holds also for a call that
 * succeeds at once, and for one that has been cancelled: one request, one completion, always. What io_uring
 * does with one multishot operation takes a request for each client and each piece here. Needs Windows Vista.
 * Try: proactor.exe --verbose, and Ctrl-C to stop it */
#ifdef _WIN32

#define _WIN32_WINNT 0x0600 /* Vista, for GetQueuedCompletionStatusEx() and CancelIoEx() */

#include "engine.h"

#include <winsock2.h>

#include <errno.h>
#include <io.h>
#include <limits.h>
#include <mswsock.h>
#include <stdlib.h>
#include <string.h>
#include <versionhelpers.h>
#include <ws2tcpip.h>

enum {
    ACCEPTS = 16, /* posted at a time; who comes beyond that waits in the listening socket's queue */
    BATCH = 64,   /* completions that one call takes */
    BUFFERS = 16, /* of BUFFER_SIZE: together they fit into a processor's cache */
    BUFFER_SIZE = 64 * 1024,
    SEND_MOST = 1024 * 1024, /* Windows locks the pages of what it sends: not too many at a time */
    FILE_BLOCK = 64 * 1024,
    PAUSE_MS = 100,  /* out of handles or memory, ask again after this long */
    DRAIN_MS = 1000, /* at the end, the kernel gives all back well within this */
    ADDRESS_SIZE = sizeof(struct sockaddr_storage) + 16, /* as AcceptEx() wants it */
};

/* With each completion comes the key that its socket was tied to the port with. Servers often let that be the
 * connection; here the OVERLAPPED says more, and the key says only that there is one. */
enum { WOKEN_UP, OPERATION };

/* Where an operation is. */
enum {
    IN_KERNEL,
    CANCELLED, /* in the kernel, and shall end */
    TOO_LATE,  /* the same, since its time is over */
    HUNGRY,    /* there is something to receive: it waits for a buffer */
    ENDED,     /* its handler will be called */
};

/* [state] */
/* What the kernel is asked for, and for which operation. It must stay where it is until its completion. */
struct request {
    OVERLAPPED overlapped; /* the first member: a completion brings its address */
    struct proactor_operation *operation;
};

/* A proactor_socket is the address of one of these. */
struct connection {
    SOCKET socket;
    struct request reading, writing;
    unsigned pending;                   /* operations but for the next one */
    struct proactor_operation *closing; /* waits until the others have ended */
    struct proactor_timer late;         /* the time limit of a send */
    TRANSMIT_FILE_BUFFERS head;         /* of the file that is being sent */
    struct iocp *iocp;
    struct connection *next, **link; /* in the list of all; what points to this one */
};

/* An accept that is posted, with the socket for a client who has not come yet. */
struct slot {
    struct request request; /* the first member */
    struct connection *client;
    char addresses[2 * ADDRESS_SIZE]; /* the kernel's; we do not look */
};

/* One accept may be pending, so there is room for one. */
struct acceptor {
    struct proactor_accept *accept; /* NULL: none is */
    SOCKET listener;
    int family;
    int error;       /* why it ends, or 0 */
    unsigned posted; /* how many of the slots */
    struct slot slots[ACCEPTS];
};

struct iocp {
    struct proactor *proactor;
    HANDLE port;
    OVERLAPPED_ENTRY completions[BATCH];
    ULONG completion_count;
    size_t in_kernel; /* requests */
    struct queue hungry, ended;
    struct connection *connections;
    struct acceptor acceptor;
    char *memory; /* of the buffers, one behind the other */
    uint32_t *free_buffers;
    uint32_t free_count;
    bool transmits; /* TransmitFile() is good here */
};

static struct connection *connection_of(const struct proactor_operation *operation)
{
    return (struct connection *)operation->socket;
}

/* One of each direction may be pending, so there is room for two, and none is allocated. */
static struct request *request_of(const struct proactor_operation *operation)
{
    struct connection *connection = connection_of(operation);
    return operation->kind == RECEIVE ? &connection->reading : &connection->writing;
}
/* [/state] */

/* [request] */
/* Has the handler called by the next dispatch(). */
static void end_soon(struct iocp *iocp, struct proactor_operation *operation, int error)
{
    operation->state = ENDED;
    operation->error = error;
    queue_add(&iocp->ended, operation);
}

/* Returns what the call that makes the request wants to have. */
static LPOVERLAPPED prepare(struct request *request, struct proactor_operation *operation)
{
    *request = (struct request){.operation = operation}; /* of an earlier one nothing may be left */
    return &request->overlapped;
}

/* What the call said that made a request. Success is no end: the completion comes all the same. */
static void requested(struct iocp *iocp, struct proactor_operation *operation, bool success)
{
    int error = success ? WSA_IO_PENDING : WSAGetLastError();

    if (error != WSA_IO_PENDING) {
        end_soon(iocp, operation, windows_errno(error));
        return;
    }
    operation->state = IN_KERNEL;
    iocp->in_kernel++;
}
/* [/request] */

/* [connections] */
/* Takes a new socket in, or closes it. Returns NULL with errno if that, or the call that made it, fails. */
static struct connection *add_connection(struct iocp *iocp, SOCKET socket)
{
    if (socket == INVALID_SOCKET) {
        errno = windows_errno(WSAGetLastError());
        return NULL;
    }
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL || CreateIoCompletionPort((HANDLE)socket, iocp->port, OPERATION, 0) == NULL) {
        closesocket(socket);
        free(connection);
        errno = ENOMEM;
        return NULL;
    }
    connection->socket = socket;
    connection->iocp = iocp;
    connection->next = iocp->connections;
    connection->link = &iocp->connections;
    if (connection->next != NULL)
        connection->next->link = &connection->next;
    iocp->connections = connection;
    return connection;
}

/* Nothing may be pending: the kernel would bring back requests that are no more. */
static void remove_connection(struct connection *connection)
{
    closesocket(connection->socket);
    *connection->link = connection->next;
    if (connection->next != NULL)
        connection->next->link = connection->link;
    free(connection);
}
/* [/connections] */

/* [end] */
static void resume_accepts(struct iocp *iocp);

static void finish_close(struct iocp *iocp, struct connection *connection)
{
    end_soon(iocp, connection->closing, 0);
    remove_connection(connection);
    resume_accepts(iocp); /* there is a free handle now */
}

/* An operation on a connection has ended. If it was the last one, and a close waits, the close is done. */
static void end(struct iocp *iocp, struct proactor_operation *operation, int error)
{
    struct connection *connection = connection_of(operation);

    request_of(operation)->operation = NULL;
    if (--connection->pending == 0 && connection->closing != NULL)
        finish_close(iocp, connection);
    operation_ended(iocp->proactor, operation, error);
}

static void complete_receive(struct iocp *iocp, struct proactor_receive *receive, int error)
{
    end(iocp, &receive->operation, error);
    receive->completed(iocp->proactor, receive, (struct proactor_piece){0});
}

static void complete_send(struct iocp *iocp, struct proactor_send *send, int error)
{
    const struct connection *connection = connection_of(&send->operation);

    proactor_cancel_timer(iocp->proactor, &connection_of(&send->operation)->late);
    if (error == 0 && send->last && send->sent == send->size && shutdown(connection->socket, SD_SEND) != 0)
        error = windows_errno(WSAGetLastError());
    if (send->operation.kind == SEND_FILE)
        free((void *)(uintptr_t)send->data);
    end(iocp, &send->operation, error);
    operation_completed(iocp->proactor, &send->operation);
}
/* [/end] */

/* [receive] */
/* Asks for nothing, which is there as soon as something can be received: so a client that is silent pins no
 * memory, neither a buffer of ours nor the pages that Windows would lock for it. */
static void wait_for_data(struct iocp *iocp, struct proactor_receive *receive)
{
    struct connection *connection = connection_of(&receive->operation);
    WSABUF nothing = {0, NULL};
    DWORD flags = 0;
    LPOVERLAPPED overlapped = prepare(&connection->reading, &receive->operation);
    requested(iocp, &receive->operation,
              WSARecv(connection->socket, &nothing, 1, NULL, &flags, overlapped, NULL) == 0);
}

/* From here on it needs a buffer, but for a moment only. */
static void queue_up(struct iocp *iocp, struct proactor_receive *receive)
{
    receive->operation.state = HUNGRY;
    queue_add(&iocp->hungry, &receive->operation);
}

/* The request for nothing has been brought back. What is in the socket stays there, so to cancel loses
 * nothing. */
static void on_data(struct iocp *iocp, struct proactor_receive *receive, int error)
{
    struct proactor_operation *operation = &receive->operation;

    if (operation->state == CANCELLED || connection_of(operation)->closing != NULL)
        error = ECANCELED;
    if (error != 0)
        complete_receive(iocp, receive, error);
    else
        queue_up(iocp, receive);
}

/* What must not wait need not ask: whether something is there is seen when its turn comes. */
static void begin_receive(struct iocp *iocp, struct proactor_receive *receive)
{
    if (receive->operation.at_once)
        queue_up(iocp, receive);
    else
        wait_for_data(iocp, receive);
}

/* Receives what is there, into a buffer that is the application's from now on. The socket is non-blocking. */
static void receive_piece(struct iocp *iocp, struct proactor_receive *receive)
{
    struct proactor_operation *operation = &receive->operation;
    uint32_t buffer = iocp->free_buffers[iocp->free_count - 1];
    char *data = iocp->memory + (size_t)buffer * BUFFER_SIZE;
    int size = recv(connection_of(operation)->socket, data,
                    receive->left < BUFFER_SIZE ? (int)receive->left : BUFFER_SIZE, 0);

    if (size <= 0) {
        int error = size == 0 ? 0 : windows_errno(WSAGetLastError());
        if (error == EAGAIN && !operation->at_once)
            wait_for_data(iocp, receive);
        else
            complete_receive(iocp, receive, error);
        return;
    }
    iocp->free_count--;
    receive->left -= (uint32_t)size;
    if (receive->left == 0 || operation->at_once)
        end(iocp, operation, 0);
    else
        wait_for_data(iocp, receive); /* if there is more, it completes at once, behind the others */
    receive->completed(iocp->proactor, receive, (struct proactor_piece){data, (uint32_t)size, buffer});
}

/* Lets those who wait receive, in the order in which they came, as long as there are buffers. Whoever gets
 * one that is given back later has it by way of the next turn of the loop, which does not wait then. */
static void feed(struct iocp *iocp)
{
    struct proactor_operation *operation;
    for (int most = BATCH; most > 0 && iocp->free_count > 0; most--) {
        if ((operation = queue_take(&iocp->hungry)) == NULL)
            break;
        receive_piece(iocp, as_receive(operation));
    }
}

static void give_back(void *state, struct proactor_piece piece)
{
    struct iocp *iocp = state;
    iocp->free_buffers[iocp->free_count++] = piece.buffer;
}
/* [/receive] */

/* [send] */
/* Asks for the rest to be sent, or much of it. As long as nothing else is in the socket, Windows copies what
 * it can and reports success; then it sends from our memory. So where io_uring has to be asked for a send
 * without a copy, this is one as soon as the client is slow, and there is nothing to choose from a size on.
 */
static void send_some(struct iocp *iocp, struct proactor_send *send, const char *data, size_t size)
{
    struct connection *connection = connection_of(&send->operation);
    WSABUF some = {size < SEND_MOST ? (ULONG)size : SEND_MOST, (char *)(uintptr_t)data};
    LPOVERLAPPED overlapped = prepare(&connection->writing, &send->operation);
    requested(iocp, &send->operation, WSASend(connection->socket, &some, 1, NULL, 0, overlapped, NULL) == 0);
}

/* Sends what the socket takes now: a plain call, since a request would be kept until all of it is sent. */
static void send_at_once(struct iocp *iocp, struct proactor_send *operation)
{
    SOCKET socket = connection_of(&operation->operation)->socket;
    int size = send(socket, operation->data, operation->size < INT_MAX ? (int)operation->size : INT_MAX, 0);
    int error = size >= 0 ? 0 : windows_errno(WSAGetLastError());

    if (size > 0)
        operation->sent = (size_t)size;
    end_soon(iocp, &operation->operation, error == EAGAIN ? 0 : error);
}

static void start_send(struct iocp *iocp, struct proactor_send *send);

/* So much of a file has been sent, which may have been of its head. */
static void move_on(struct proactor_send_file *file, size_t size)
{
    size_t head = size < file->head_size ? size : file->head_size;
    file->head += head;
    file->head_size -= head;
    file->offset += (int64_t)(size - head);
}

/* A result, and for the rest another request: unless the end has been asked for. A stream may take less than
 * it was asked to, and a request never was for more than SEND_MOST. */
static void on_sent(struct iocp *iocp, struct proactor_send *send, DWORD size, int error)
{
    struct proactor_operation *operation = &send->operation;
    struct proactor_send_file *file = (struct proactor_send_file *)send;

    send->sent += size;
    if (operation->kind == SEND_FILE && send->data != NULL)
        file->block_sent += size;
    else if (operation->kind == SEND_FILE)
        move_on(file, size);
    if (error == 0 && send->sent < send->size) {
        if (operation->state == IN_KERNEL && connection_of(operation)->closing == NULL) {
            start_send(iocp, send);
            return;
        }
        error = ECANCELED;
    }
    complete_send(iocp, send, error == ECANCELED && operation->state == TOO_LATE ? ETIMEDOUT : error);
}

/* Windows has time limits for blocking calls only. */
static void on_late(struct proactor *proactor, struct proactor_timer *timer)
{
    struct connection *connection = (struct connection *)((char *)timer - offsetof(struct connection, late));
    struct proactor_operation *operation = connection->writing.operation;

    (void)proactor;
    if (operation->state != IN_KERNEL)
        return;
    operation->state = TOO_LATE;
    CancelIoEx((HANDLE)connection->socket, &connection->writing.overlapped);
}
/* [/send] */

/* [file] */
/* Where a file operation begins is a part of its OVERLAPPED. */
static void set_offset(LPOVERLAPPED overlapped, int64_t offset)
{
    overlapped->Offset = (DWORD)offset;
    overlapped->OffsetHigh = (DWORD)(offset >> 32);
}

/* The kernel reads and sends, and no byte comes through here. */
static void transmit(struct iocp *iocp, struct proactor_send_file *file, HANDLE handle)
{
    struct proactor_operation *operation = &file->send.operation;
    struct connection *connection = connection_of(operation);
    size_t left = file->send.size - file->send.sent - file->head_size;
    LARGE_INTEGER whole = {.QuadPart = 0};

    if (!GetFileSizeEx(handle, &whole) || whole.QuadPart <= file->offset) {
        end_soon(iocp, operation, whole.QuadPart == 0 ? EIO : ENODATA);
        return;
    }
    if ((uint64_t)(whole.QuadPart - file->offset) < left)
        left = (size_t)(whole.QuadPart - file->offset);
    LPOVERLAPPED overlapped = prepare(&connection->writing, operation);
    set_offset(overlapped, file->offset);
    connection->head =
        (TRANSMIT_FILE_BUFFERS){.Head = (void *)(uintptr_t)file->head, .HeadLength = (DWORD)file->head_size};
    requested(iocp, operation,
              TransmitFile(connection->socket, handle, left < INT_MAX - 1 ? (DWORD)left : INT_MAX - 1, 0,
                           overlapped, file->head_size > 0 ? &connection->head : NULL, 0));
}

/* Sends on from the block that was read last, or reads the next one. */
static void send_block(struct iocp *iocp, struct proactor_send_file *file, HANDLE handle)
{
    struct proactor_send *send = &file->send;
    size_t left = send->size - send->sent;

    if (file->block_sent == file->block) {
        OVERLAPPED from = {0};
        DWORD size = 0;
        set_offset(&from, file->offset);
        char *data = (char *)(uintptr_t)send->data;
        size_t head = file->head_size;
        if (head > 0)
            memcpy(data, file->head, head);
        bool read = ReadFile(handle, data + head, (DWORD)((left < FILE_BLOCK ? left : FILE_BLOCK) - head),
                             &size, &from);
        if (size == 0) {
            end_soon(iocp, &send->operation, read || GetLastError() == ERROR_HANDLE_EOF ? ENODATA : EIO);
            return;
        }
        file->offset += size;
        file->block = head + size;
        file->block_sent = 0;
        file->head_size = 0;
    }
    send_some(iocp, send, send->data + file->block_sent, file->block - file->block_sent);
}

/* Windows but for its server editions transmits two files at a time, in the whole system: there, two clients
 * that do not read would keep all others waiting, and a copy is the smaller evil. */
static void start_send(struct iocp *iocp, struct proactor_send *send)
{
    struct proactor_send_file *file = (struct proactor_send_file *)send;

    if (send->operation.kind == SEND)
        send_some(iocp, send, send->data + send->sent, send->size - send->sent);
    else if (send->data == NULL)
        transmit(iocp, file, (HANDLE)_get_osfhandle(file->file));
    else
        send_block(iocp, file, (HANDLE)_get_osfhandle(file->file));
}

/* Where there is no request to wait for, the handler is called all the same by the loop, and not from here.
 */
static void begin_send(struct iocp *iocp, struct proactor_send *send)
{
    struct connection *connection = connection_of(&send->operation);

    connection->late.expired = on_late;
    if (send->operation.kind == SEND_FILE) {
        struct proactor_send_file *file = (struct proactor_send_file *)send;
        file->block = file->block_sent = 0;
        if (!iocp->transmits)
            send->data = malloc(FILE_BLOCK);
        if (!iocp->transmits && send->data == NULL) {
            end_soon(iocp, &send->operation, ENOMEM);
            return;
        }
    }
    if (send->size == 0)
        end_soon(iocp, &send->operation, 0);
    else if (send->operation.kind == SEND && send->operation.at_once)
        send_at_once(iocp, send);
    else if (send->timeout_ms > 0 &&
             proactor_set_timer(iocp->proactor, &connection->late, send->timeout_ms) < 0)
        end_soon(iocp, &send->operation, ENOMEM);
    else
        start_send(iocp, send);
}
/* [/file] */

/* [accept] */
/* Posts an accept: unlike accept(2), it is given the socket that is to become the client's. Returns 0, or an
 * errno. */
static int post_accept(struct iocp *iocp, struct slot *slot)
{
    struct acceptor *acceptor = &iocp->acceptor;
    DWORD received;
    slot->client = add_connection(iocp, WSASocketW(acceptor->family, SOCK_STREAM, IPPROTO_TCP, NULL, 0,
                                                   WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT));
    if (slot->client == NULL)
        return errno;
    /* No room for data: with some, a client who connects and says nothing would never be accepted. */
    if (!AcceptEx(acceptor->listener, slot->client->socket, slot->addresses, 0, ADDRESS_SIZE, ADDRESS_SIZE,
                  &received, prepare(&slot->request, &acceptor->accept->operation)) &&
        WSAGetLastError() != ERROR_IO_PENDING) {
        int error = windows_errno(WSAGetLastError());
        remove_connection(slot->client);
        slot->client = NULL;
        return error;
    }
    acceptor->posted++;
    iocp->in_kernel++;
    return 0;
}

/* No more is posted. What is posted ends, and then the accept does. */
static void end_accept(struct iocp *iocp, int error)
{
    struct acceptor *acceptor = &iocp->acceptor;

    if (acceptor->error != 0)
        return;
    acceptor->error = error;
    proactor_cancel_timer(iocp->proactor, &acceptor->accept->pause);
    if (acceptor->posted > 0)
        CancelIoEx((HANDLE)acceptor->listener, NULL);
    else
        end_soon(iocp, &acceptor->accept->operation, error);
}

static void on_pause_over(struct proactor *proactor, struct proactor_timer *timer);

/* Posts as many as there are slots. Out of handles or memory, to try again at once would be to spin. */
static void post_accepts(struct iocp *iocp)
{
    struct proactor_accept *accept = iocp->acceptor.accept;

    for (int i = 0; i < ACCEPTS; i++) {
        struct slot *slot = &iocp->acceptor.slots[i];
        int error = slot->client == NULL ? post_accept(iocp, slot) : 0;
        if (error == EBADF || error == EINVAL || error == ENOTSOCK) {
            end_accept(iocp, error); /* a mistake of ours: it will not go away */
            return;
        }
        if (error != 0) { /* without memory for a timer, the next close resumes it */
            accept->pause.expired = on_pause_over;
            (void)proactor_set_timer(iocp->proactor, &accept->pause, PAUSE_MS);
            return;
        }
    }
    proactor_cancel_timer(iocp->proactor, &accept->pause);
}

static void on_pause_over(struct proactor *proactor, struct proactor_timer *timer)
{
    struct proactor_accept *accept =
        (struct proactor_accept *)((char *)timer - offsetof(struct proactor_accept, pause));
    (void)proactor;
    post_accepts(accept->engine);
}

/* Posts those that are missing: after a close there may be what they need. */
static void resume_accepts(struct iocp *iocp)
{
    const struct acceptor *acceptor = &iocp->acceptor;
    if (acceptor->accept != NULL && acceptor->posted < ACCEPTS && acceptor->error == 0)
        post_accepts(iocp);
}

/* Makes a client's socket one like any other. Returns false if the client has gone. */
static bool open_client(SOCKET socket, SOCKET listener)
{
    const BOOL on = TRUE;
    u_long non_blocking = 1;

    /* Until this, shutdown() and getpeername() do not know that the socket is connected. */
    return (listener == INVALID_SOCKET || setsockopt(socket, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT,
                                                     (const char *)&listener, sizeof listener) == 0) &&
           setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, (const char *)&on, sizeof on) == 0 &&
           ioctlsocket(socket, (long)FIONBIO, &non_blocking) == 0;
}

/* During the handler the slot counts as posted still: so an accept that is cancelled in there ends after it.
 */
static void on_accepted(struct iocp *iocp, struct slot *slot, int error)
{
    struct acceptor *acceptor = &iocp->acceptor;
    struct proactor_accept *accept = acceptor->accept;
    struct connection *client = slot->client;

    slot->client = NULL;
    if (error == 0 && open_client(client->socket, acceptor->listener))
        accept->completed(iocp->proactor, accept, (proactor_socket)client);
    else /* it was cancelled, or the client has gone while it waited */
        remove_connection(client);
    acceptor->posted--;
    if (acceptor->error == 0)
        post_accepts(iocp);
    else if (acceptor->posted == 0)
        end_soon(iocp, &accept->operation, acceptor->error);
}

/* Those who came before the accept was cancelled have not all met one that was posted. */
static void take_in_the_last(struct iocp *iocp, struct proactor_accept *accept, SOCKET listener)
{
    u_long non_blocking = 1;
    ioctlsocket(listener, (long)FIONBIO, &non_blocking);
    for (;;) {
        SOCKET socket = WSAAccept(listener, NULL, NULL, NULL, 0);
        if (socket == INVALID_SOCKET && WSAGetLastError() == WSAECONNRESET)
            continue;
        struct connection *client = add_connection(iocp, socket);
        if (client == NULL)
            return;
        if (open_client(socket, INVALID_SOCKET))
            accept->completed(iocp->proactor, accept, (proactor_socket)client);
        else
            remove_connection(client);
    }
}

static void finish_accept(struct iocp *iocp, struct proactor_accept *accept, int error)
{
    SOCKET listener = (SOCKET)accept->operation.socket;

    if (error == ECANCELED)
        take_in_the_last(iocp, accept, listener);
    closesocket(listener);
    iocp->acceptor.accept = NULL;
    operation_ended(iocp->proactor, &accept->operation, error);
    accept->completed(iocp->proactor, accept, 0);
}

static void begin_accept(struct iocp *iocp, struct proactor_accept *accept)
{
    struct acceptor *acceptor = &iocp->acceptor;
    SOCKET listener = (SOCKET)accept->operation.socket;
    struct sockaddr_storage bound;
    int size = sizeof bound;

    *acceptor = (struct acceptor){.accept = accept, .listener = listener};
    accept->engine = iocp;
    if (getsockname(listener, (struct sockaddr *)&bound, &size) < 0 ||
        CreateIoCompletionPort((HANDLE)listener, iocp->port, OPERATION, 0) == NULL) {
        end_accept(iocp, windows_errno(WSAGetLastError()));
        return;
    }
    acceptor->family = bound.ss_family;
    post_accepts(iocp);
}
/* [/accept] */

/* [cancel] */
/* To cancel is to ask: the completion is still to come, and until then the request is the kernel's. */
static void cancel(void *state, struct proactor_operation *operation)
{
    struct iocp *iocp = state;

    if (operation->kind == ACCEPT) {
        if (operation->state != ENDED)
            end_accept(iocp, ECANCELED);
    } else if (operation->state == HUNGRY) {
        struct proactor_operation **link = &iocp->hungry.first;
        while (*link != operation)
            link = &(*link)->next;
        *link = operation->next;
        if (operation->next == NULL)
            iocp->hungry.end = link;
        end_soon(iocp, operation, ECANCELED);
    } else if (operation->state == IN_KERNEL) {
        operation->state = CANCELLED;
        CancelIoEx((HANDLE)connection_of(operation)->socket, &request_of(operation)->overlapped);
    }
}

/* The socket stays open until everything on it has been brought back: closesocket() would make the kernel end
 * it as well, but how is not the same everywhere, and the number of the socket could be another's by then. */
static void begin_close(struct iocp *iocp, struct proactor_operation *operation)
{
    struct connection *connection = connection_of(operation);

    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    connection->closing = operation;
    if (operation->at_once)
        (void)setsockopt(connection->socket, SOL_SOCKET, SO_LINGER, (const char *)&now, sizeof now);
    if (connection->reading.operation != NULL)
        cancel(iocp, connection->reading.operation);
    if (connection->writing.operation != NULL)
        cancel(iocp, connection->writing.operation);
    if (connection->pending == 0)
        finish_close(iocp, connection);
}

static void discard(void *state, proactor_socket socket)
{
    struct iocp *iocp = state;
    remove_connection((struct connection *)socket);
    resume_accepts(iocp);
}
/* [/cancel] */

/* [dispatch] */
static void begin(void *state, struct proactor_operation *operation)
{
    struct iocp *iocp = state;

    operation->state = IN_KERNEL;
    if (operation->kind != ACCEPT && operation->kind != CLOSE) {
        request_of(operation)->operation = operation;
        connection_of(operation)->pending++;
    }
    switch ((enum operation_kind)operation->kind) {
    case ACCEPT:
        begin_accept(iocp, as_accept(operation));
        break;
    case RECEIVE:
        begin_receive(iocp, as_receive(operation));
        break;
    case SEND:
    case SEND_FILE:
        begin_send(iocp, as_send(operation));
        break;
    case CLOSE:
        begin_close(iocp, operation);
        break;
    }
}

/* The completion says which request, and that it has ended. What came of it, one asks for. */
static void on_completion(struct iocp *iocp, struct request *request)
{
    struct proactor_operation *operation = request->operation;
    SOCKET socket = operation->kind == ACCEPT ? (SOCKET)operation->socket : connection_of(operation)->socket;
    DWORD size = 0;
    DWORD flags;
    int error = WSAGetOverlappedResult(socket, &request->overlapped, &size, FALSE, &flags)
                    ? 0
                    : windows_errno(WSAGetLastError());

    iocp->in_kernel--;
    if (operation->kind == ACCEPT)
        on_accepted(iocp, (struct slot *)request, error);
    else if (operation->kind == RECEIVE)
        on_data(iocp, as_receive(operation), error);
    else
        on_sent(iocp, as_send(operation), size, error);
}

/* Calls the handler of an operation that is not in the kernel. */
static void complete(struct iocp *iocp, struct proactor_operation *operation)
{
    switch ((enum operation_kind)operation->kind) {
    case ACCEPT:
        finish_accept(iocp, as_accept(operation), operation->error);
        break;
    case RECEIVE:
        complete_receive(iocp, as_receive(operation), operation->error);
        break;
    case SEND:
    case SEND_FILE:
        complete_send(iocp, as_send(operation), operation->error);
        break;
    case CLOSE:
        operation_ended(iocp->proactor, operation, 0);
        operation_completed(iocp->proactor, operation);
        break;
    }
}

static void dispatch(void *state)
{
    struct iocp *iocp = state;
    struct queue ended = iocp->ended;

    iocp->ended.first = NULL; /* what handlers add now has its turn the next time */
    for (struct proactor_operation *operation; (operation = queue_take(&ended)) != NULL;)
        complete(iocp, operation);
    for (ULONG i = 0; i < iocp->completion_count; i++) {
        const OVERLAPPED_ENTRY *completion = &iocp->completions[i];
        if (completion->lpCompletionKey == OPERATION)
            on_completion(iocp, (struct request *)completion->lpOverlapped);
    }
    iocp->completion_count = 0;
    feed(iocp);
}
/* [/dispatch] */

/* [wait] */
/* One call takes many completions, as one io_uring_enter() does. */
static int wait_for_completions(void *state, int timeout_ms)
{
    struct iocp *iocp = state;
    bool more = iocp->ended.first != NULL || (iocp->hungry.first != NULL && iocp->free_count > 0);
    DWORD timeout = more ? 0 : timeout_ms < 0 ? INFINITE : (DWORD)timeout_ms;

    if (GetQueuedCompletionStatusEx(iocp->port, iocp->completions, BATCH, &iocp->completion_count, timeout,
                                    FALSE))
        return 0;
    iocp->completion_count = 0;
    if (GetLastError() == WAIT_TIMEOUT)
        return 0;
    errno = windows_errno((int)GetLastError());
    return -1;
}

static void wake(void *state)
{
    const struct iocp *iocp = state;
    (void)PostQueuedCompletionStatus(iocp->port, 0, WOKEN_UP, NULL); /* it fails only for want of memory */
}
/* [/wait] */

/* [close] */
/* Takes all requests back. Returns false if the kernel still has some. */
static bool drain(struct iocp *iocp)
{
    while (iocp->in_kernel > 0) {
        if (!GetQueuedCompletionStatusEx(iocp->port, iocp->completions, BATCH, &iocp->completion_count,
                                         DRAIN_MS, FALSE))
            return false;
        for (ULONG i = 0; i < iocp->completion_count; i++)
            iocp->in_kernel -= iocp->completions[i].lpCompletionKey == OPERATION;
    }
    return true;
}

/* The memory, the application's too, is ours only when the end of all that uses it has been heard. */
static void close_iocp(void *state)
{
    struct iocp *iocp = state;
    struct connection *connection;
    SOCKET listener = iocp->acceptor.accept != NULL ? iocp->acceptor.listener : INVALID_SOCKET;

    if (listener != INVALID_SOCKET)
        CancelIoEx((HANDLE)listener, NULL);
    for (connection = iocp->connections; connection != NULL; connection = connection->next)
        CancelIoEx((HANDLE)connection->socket, NULL);
    bool drained = drain(iocp);
    if (listener != INVALID_SOCKET)
        closesocket(listener);
    for (connection = iocp->connections; connection != NULL; connection = connection->next)
        closesocket(connection->socket);
    CloseHandle(iocp->port);
    WSACleanup();
    if (!drained) /* lost memory does less harm than memory that somebody writes to */
        return;
    while ((connection = iocp->connections) != NULL) {
        struct proactor_operation *writing = connection->writing.operation;
        if (writing != NULL && writing->kind == SEND_FILE)
            free((void *)(uintptr_t)as_send(writing)->data);
        iocp->connections = connection->next;
        free(connection);
    }
    free(iocp->memory);
    free(iocp->free_buffers);
    free(iocp);
}
/* [/close] */

/* [open] */
static void *open_iocp(struct proactor *proactor, const struct proactor_options *options)
{
    uint32_t count = options->buffers > 0 ? options->buffers : BUFFERS;
    WSADATA winsock;
    struct iocp *iocp = calloc(1, sizeof *iocp);
    if (iocp == NULL)
        return NULL;
    iocp->proactor = proactor;
    iocp->transmits = IsWindowsServer();
    iocp->memory = malloc((size_t)count * BUFFER_SIZE);
    iocp->free_buffers = malloc(count * sizeof *iocp->free_buffers);
    iocp->port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1);
    if (iocp->memory != NULL && iocp->free_buffers != NULL && iocp->port != NULL &&
        WSAStartup(MAKEWORD(2, 2), &winsock) == 0) {
        while (iocp->free_count < count) {
            iocp->free_buffers[iocp->free_count] = iocp->free_count;
            iocp->free_count++;
        }
        return iocp;
    }
    if (iocp->port != NULL)
        CloseHandle(iocp->port);
    free(iocp->memory);
    free(iocp->free_buffers);
    free(iocp);
    errno = ENOMEM;
    return NULL;
}

static const char *why(int error)
{
    (void)error;
    return NULL;
}
/* [/open] */

extern const struct engine engine_iocp;
const struct engine engine_iocp = {
    "iocp",   open_iocp, close_iocp, begin, cancel, discard, give_back, wait_for_completions,
    dispatch, wake,      why,
};

#else
typedef int iocp_is_not_here; /* a file of C is never empty */
#endif
