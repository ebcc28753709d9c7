/* wine_proactor.c - the interface of chapter 7's proactor on the IOCP engine: runs on Windows, or under Wine.
 *
 * Cross-compiled with MinGW-w64, for which there is no Check; so it speaks TAP by itself. wine.test builds
 * and runs it. The engine is included, with some of Windows' calls replaced: they count, fail or fall short,
 * and remember what Windows insists on and Wine does not. With TEST=word, only the tests whose name contains
 * the word are run. */
#define _WIN32_WINNT 0x0600

#include <winsock2.h>

#include <fcntl.h>
#include <io.h>
#include <mswsock.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <versionhelpers.h>
#include <ws2tcpip.h>

/* ---- Windows' calls, as the engine finds them ---- */

static atomic_int updated;         /* accepted sockets that were told of it */
static atomic_int sockets_refused; /* as long as it is not 0, there are no more handles */
static atomic_int socket_calls;
static atomic_uint most_to_send;   /* 0: no limit */
static atomic_int sends_in_pieces; /* calls that were cut short */
static atomic_bool server_edition;

static int watched_setsockopt(SOCKET socket, int level, int name, const char *value, int size)
{
    updated += level == SOL_SOCKET && name == SO_UPDATE_ACCEPT_CONTEXT;
    return setsockopt(socket, level, name, value, size);
}

static SOCKET failing_socket(int family, int type, int protocol, LPWSAPROTOCOL_INFOW info, GROUP group,
                             DWORD flags)
{
    socket_calls++;
    if (sockets_refused > 0) {
        WSASetLastError(WSAEMFILE);
        return INVALID_SOCKET;
    }
    return WSASocketW(family, type, protocol, info, group, flags);
}

static int short_send(SOCKET socket, LPWSABUF buffers, DWORD count, LPDWORD sent, DWORD flags,
                      LPWSAOVERLAPPED overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
    WSABUF some = buffers[0];
    if (most_to_send > 0 && some.len > most_to_send) {
        some.len = most_to_send;
        sends_in_pieces++;
    }
    return WSASend(socket, &some, count, sent, flags, overlapped, routine);
}

#define setsockopt watched_setsockopt
#define WSASocketW failing_socket
#define WSASend short_send
#define IsWindowsServer() server_edition
#include "engine_iocp.c"
#undef setsockopt
#undef WSASocketW
#undef WSASend

#include "net.h"

/* ---- reporting ---- */

static char happened[500]; /* why the running test fails; empty: it does not */

/* Notes the first thing that went wrong in a test. */
static void wrong(int line, const char *format, ...)
{
    va_list values;
    if (happened[0] != '\0')
        return;
    int size = snprintf(happened, sizeof happened, "line %d: ", line);
    va_start(values, format);
    vsnprintf(happened + size, sizeof happened - (size_t)size, format, values);
    va_end(values);
}

#define CHECK(condition, ...)             \
    do {                                  \
        if (!(condition)) {               \
            wrong(__LINE__, __VA_ARGS__); \
            return;                       \
        }                                 \
    } while (0)

static int64_t patience_ms(void)
{
    const char *text = getenv("CK_TIMEOUT_MULTIPLIER");
    double multiplier = text != NULL ? strtod(text, NULL) : 1;
    return (int64_t)(10000 * (multiplier > 0 ? multiplier : 1));
}

/* Waits until condition is true, or for too long. Its value is the last one seen. */
#define eventually(condition)                               \
    __extension__({                                         \
        int64_t end_ = clock_ms() + patience_ms();          \
        bool seen_;                                         \
        while (!(seen_ = (condition)) && clock_ms() < end_) \
            Sleep(1);                                       \
        seen_;                                              \
    })

/* ---- the loop's side ---- */

enum { PEERS = 64, PIECES = 64 };

/* A client, as the proactor has it. What the handlers count is read by the thread of the test. */
struct peer {
    proactor_socket socket;
    struct proactor_receive receive;
    struct proactor_send send;
    struct proactor_send_file file;
    struct proactor_close close;
    struct proactor_piece pieces[PIECES];      /* received and not given back, if the test keeps them */
    atomic_int receives, sends, files, closes; /* how often a handler was called */
    atomic_int ends;                           /* receives that ended */
    atomic_int when_closed;                    /* operations that had not ended when the close did */
    atomic_int kept;
    atomic_size_t bytes;
    atomic_int error; /* the last one that a handler saw */
};

static struct world {
    struct proactor *proactor;
    struct proactor_accept accept;
    struct proactor_stop stop;
    struct proactor_timer tick;
    struct peer peers[PEERS];
    atomic_int accepted, accept_ends;
    atomic_bool keep;      /* received pieces are kept */
    atomic_bool abandoned; /* the loop ends with operations pending */
    void (*_Atomic todo)(void *);
    void *todo_argument;
    HANDLE done;
    struct sockaddr_in address;
    HANDLE thread;
    uint32_t buffers;
} world;

static void on_piece(struct proactor *proactor, struct proactor_receive *receive, struct proactor_piece piece)
{
    struct peer *peer = (struct peer *)((char *)receive - offsetof(struct peer, receive));
    peer->receives++;
    peer->bytes += piece.size;
    if (!receive->operation.pending) {
        peer->error = receive->operation.error;
        peer->ends++;
    }
    if (piece.size > 0 && world.keep)
        peer->pieces[peer->kept++ % PIECES] = piece;
    else
        proactor_give_back(proactor, piece);
}

static void on_peer_sent(struct proactor *proactor, struct proactor_send *send)
{
    struct peer *peer = (struct peer *)((char *)send - offsetof(struct peer, send));
    (void)proactor;
    peer->error = send->operation.error;
    peer->sends++;
}

static void on_file_sent(struct proactor *proactor, struct proactor_send *send)
{
    struct peer *peer = (struct peer *)((char *)send - offsetof(struct peer, file));
    (void)proactor;
    peer->error = send->operation.error;
    peer->files++;
}

static void on_peer_closed(struct proactor *proactor, struct proactor_close *close)
{
    struct peer *peer = (struct peer *)((char *)close - offsetof(struct peer, close));
    (void)proactor;
    peer->when_closed = peer->receive.operation.pending + peer->send.operation.pending;
    peer->closes++;
}

static void on_client(struct proactor *proactor, struct proactor_accept *accept, proactor_socket client)
{
    (void)proactor;
    if (!accept->operation.pending) {
        world.accept_ends++;
        return;
    }
    struct peer *peer = &world.peers[world.accepted % PEERS];
    peer->socket = client;
    peer->receive = (struct proactor_receive){{.socket = client}, on_piece, 64 * 1024, 0};
    peer->send = (struct proactor_send){.operation.socket = client, .completed = on_peer_sent};
    peer->file = (struct proactor_send_file){.send = {.operation.socket = client, .completed = on_file_sent}};
    peer->close = (struct proactor_close){{.socket = client}, on_peer_closed};
    world.accepted++;
}

/* What the thread of the test wants to have done, by the thread of the proactor. */
static void on_tick(struct proactor *proactor, struct proactor_timer *timer)
{
    void (*todo)(void *) = atomic_exchange(&world.todo, NULL);
    if (todo != NULL) {
        todo(world.todo_argument);
        SetEvent(world.done);
    }
    (void)proactor_set_timer(proactor, timer, 1);
}

static void in_loop(void (*todo)(void *), void *argument)
{
    world.todo_argument = argument;
    world.todo = todo;
    if (WaitForSingleObject(world.done, (DWORD)patience_ms()) != WAIT_OBJECT_0) {
        printf("Bail out! the loop does not go on\n");
        exit(EXIT_FAILURE);
    }
}

static void do_receive(void *peer)
{
    proactor_receive(world.proactor, &((struct peer *)peer)->receive);
}

static void do_send(void *peer)
{
    proactor_send(world.proactor, &((struct peer *)peer)->send);
}

static void do_send_file(void *peer)
{
    proactor_send_file(world.proactor, &((struct peer *)peer)->file);
}

static void do_close(void *peer)
{
    proactor_close(world.proactor, &((struct peer *)peer)->close);
}

static void do_cancel(void *operation)
{
    proactor_cancel(world.proactor, operation);
}

static void do_give_back(void *piece)
{
    proactor_give_back(world.proactor, *(struct proactor_piece *)piece);
}

static void do_stop(void *unused)
{
    (void)unused;
    proactor_cancel_timer(world.proactor, &world.tick);
    proactor_stop(world.proactor, &world.stop);
}

/* Closes all that a test has left open; or, if it wants that, leaves it to proactor_destroy(). */
static void on_stop(struct proactor *proactor, struct proactor_stop *stop)
{
    (void)stop;
    if (world.abandoned)
        return;
    proactor_cancel(proactor, &world.accept.operation);
    for (int i = 0; i < world.accepted; i++) {
        struct peer *peer = &world.peers[i];
        if (peer->closes == 0 && !peer->close.operation.pending)
            proactor_close(proactor, &peer->close);
    }
}

static void on_overdue(struct proactor *proactor, struct proactor_stop *stop)
{
    (void)proactor;
    (void)stop;
    if (!world.abandoned)
        wrong(__LINE__, "when the test was over, some operation did not end");
}

static HANDLE ready;

static DWORD WINAPI run_loop(void *unused)
{
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int size = sizeof world.address;

    (void)unused;
    world.proactor = proactor_create(&(struct proactor_options){.engine = "iocp", .buffers = world.buffers});
    SOCKET listener = socket(AF_INET, SOCK_STREAM, 0);
    if (world.proactor == NULL || bind(listener, (const struct sockaddr *)&any, sizeof any) < 0 ||
        listen(listener, SOMAXCONN) < 0 ||
        getsockname(listener, (struct sockaddr *)&world.address, &size) < 0)
        net_die("the test's listening socket");
    world.stop = (struct proactor_stop){patience_ms(), on_stop, on_overdue};
    world.accept = (struct proactor_accept){.completed = on_client};
    world.accept.operation.socket = (proactor_socket)listener;
    world.tick.expired = on_tick;
    proactor_accept(world.proactor, &world.accept);
    (void)proactor_set_timer(world.proactor, &world.tick, 1);
    SetEvent(ready);
    (void)proactor_run(world.proactor);
    return 0;
}

static void begin_world(uint32_t buffers)
{
    memset(&world, 0, sizeof world);
    world.buffers = buffers;
    world.done = CreateEventW(NULL, FALSE, FALSE, NULL);
    world.thread = CreateThread(NULL, 0, run_loop, NULL, 0, NULL);
    WaitForSingleObject(ready, INFINITE);
}

/* Ends the loop as it is. Whoever hears of a completion from now on is called too often. */
static void end_world(void)
{
    in_loop(do_stop, NULL);
    WaitForSingleObject(world.thread, INFINITE);
    CloseHandle(world.thread);
    CloseHandle(world.done);
    proactor_destroy(world.proactor);
}

/* ---- the clients' side ---- */

static SOCKET connect_client(void)
{
    SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    DWORD limit = (DWORD)patience_ms();
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, (const char *)&limit, sizeof limit);
    if (connect(client, (const struct sockaddr *)&world.address, sizeof world.address) < 0) {
        closesocket(client);
        return INVALID_SOCKET;
    }
    return client;
}

/* Connects, and returns when the proactor's side is there, too. */
static SOCKET connect_to(struct peer **peer)
{
    int before = world.accepted;
    SOCKET client = connect_client();
    (void)eventually(world.accepted > before);
    *peer = &world.peers[before];
    return client;
}

static char pattern(size_t position)
{
    return (char)((position * 2654435761U) >> 13);
}

static void fill(char *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        data[i] = pattern(i);
}

/* How many bytes come right, until the end or size. */
static size_t receive_pattern(SOCKET client, size_t size)
{
    static char data[65536];
    size_t got = 0;
    while (got < size) {
        int n = recv(client, data, sizeof data, 0);
        for (int i = 0; i < n; i++) {
            if (data[i] != pattern(got + (size_t)i))
                return got + (size_t)i;
        }
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    return got;
}

static void reset(SOCKET client)
{
    const struct linger now = {1, 0};
    setsockopt(client, SOL_SOCKET, SO_LINGER, (const char *)&now, sizeof now);
    closesocket(client);
}

/* ---- accept ---- */

static void accept_each_once(void)
{
    SOCKET clients[50];
    for (int i = 0; i < 50; i++)
        clients[i] = connect_client();
    CHECK(eventually(world.accepted == 50), "50 clients connected, and %d came in", world.accepted);
    Sleep(50);
    CHECK(world.accepted == 50, "50 clients connected, and %d came in", world.accepted);
    for (int i = 0; i < 50; i++)
        closesocket(clients[i]);
}

static void accept_updates(void)
{
    struct peer *peer;
    struct sockaddr_in mine;
    struct sockaddr_in theirs;
    int size = sizeof mine;
    BOOL on = FALSE;

    updated = 0;
    SOCKET client = connect_to(&peer);
    CHECK(updated == 1,
          "SO_UPDATE_ACCEPT_CONTEXT was set on %d sockets; without it, shutdown() and getpeername() "
          "fail on Windows with WSAENOTCONN",
          updated);
    SOCKET socket = ((struct connection *)peer->socket)->socket;
    CHECK(getsockname(client, (struct sockaddr *)&mine, &size) == 0 &&
              getpeername(socket, (struct sockaddr *)&theirs, &size) == 0 && mine.sin_port == theirs.sin_port,
          "getpeername() does not know the client: error %d", WSAGetLastError());
    size = sizeof on;
    CHECK(getsockopt(socket, IPPROTO_TCP, TCP_NODELAY, (char *)&on, &size) == 0 && on,
          "TCP_NODELAY is not set");
    CHECK(shutdown(socket, SD_SEND) == 0, "shutdown() fails: error %d", WSAGetLastError());
    closesocket(client);
}

static void accept_cancelled(void)
{
    enum { CLIENTS = 40 }; /* more than are posted */
    SOCKET clients[CLIENTS];

    sockets_refused = 1; /* each accept that ends is the last one in its slot: the others wait in the queue */
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = connect_client();
    CHECK(eventually(world.accepted == ACCEPTS), "%d accepts were posted, and %d clients came in", ACCEPTS,
          world.accepted);
    in_loop(do_cancel, &world.accept.operation);
    CHECK(eventually(world.accept_ends == 1), "the accept was cancelled, and has not ended");
    sockets_refused = 0;
    CHECK(world.accepted == CLIENTS, "%d clients had come before the accept was cancelled, and %d came in",
          CLIENTS, world.accepted);
    CHECK(world.accept.operation.error == ECANCELED, "error %d", world.accept.operation.error);
    CHECK(connect_client() == INVALID_SOCKET, "the accept has ended, and the listening socket is open");
    for (int i = 0; i < CLIENTS; i++)
        closesocket(clients[i]);
}

static void accept_out_of_handles(void)
{
    SOCKET clients[ACCEPTS + 1];
    sockets_refused = 1;
    for (int i = 0; i <= ACCEPTS; i++)
        clients[i] = connect_client();
    CHECK(eventually(world.accepted == ACCEPTS), "with handles for %d clients, %d came in", ACCEPTS,
          world.accepted);
    int before = socket_calls;
    Sleep(500);
    CHECK(world.accepted == ACCEPTS, "a client came in without a handle");
    CHECK(socket_calls - before <= 20, "out of handles, there were %d attempts in half a second",
          socket_calls - before);
    CHECK(!world.accept_ends, "out of handles, the accept ended");
    sockets_refused = 0;
    CHECK(eventually(world.accepted == ACCEPTS + 1),
          "there are handles again, and the client does not come in");
    for (int i = 0; i <= ACCEPTS; i++)
        closesocket(clients[i]);
}

/* ---- receive ---- */

static void receive_limit(void)
{
    static char data[300000];
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    u_long non_blocking = 1;
    fill(data, sizeof data);
    ioctlsocket(client, (long)FIONBIO, &non_blocking);
    int taken = send(client, data, sizeof data, 0);
    CHECK(taken > 100000, "the kernel took only %d bytes", taken);

    for (int i = 1; i <= 3; i++) {
        peer->receive.limit = 33333;
        in_loop(do_receive, peer);
        CHECK(eventually(peer->ends == i), "a receive of 33,333 bytes has not ended");
        Sleep(20);
        CHECK(peer->bytes == 33333U * (unsigned)i && peer->ends == i && peer->error == 0,
              "after %d receives with a limit of 33,333 bytes %u had come; there were %d ends, the last with "
              "error %d",
              i, (unsigned)peer->bytes, peer->ends, peer->error);
    }
    closesocket(client);
}

static void receive_at_once(void)
{
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    peer->receive.operation.at_once = true;
    in_loop(do_receive, peer);
    CHECK(eventually(peer->ends == 1) && peer->error == EAGAIN, "nothing was there: %d ends, error %d",
          peer->ends, peer->error);
    send(client, "hello", 5, 0);
    for (int i = 2; peer->bytes == 0 && i < 1000; i++) {
        in_loop(do_receive, peer);
        CHECK(eventually(peer->ends == i), "a receive did not end");
    }
    CHECK(peer->bytes == 5 && peer->error == 0, "%u bytes, error %d", (unsigned)peer->bytes, peer->error);
    closesocket(client);
}

static void receive_ends(void)
{
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    in_loop(do_receive, peer);
    send(client, "bye", 3, 0);
    shutdown(client, SD_SEND);
    CHECK(eventually(peer->ends == 1) && peer->error == 0 && peer->bytes == 3,
          "after 3 bytes and a FIN: %d ends, error %d, %u bytes", peer->ends, peer->error,
          (unsigned)peer->bytes);
    closesocket(client);

    client = connect_to(&peer);
    in_loop(do_receive, peer);
    reset(client);
    CHECK(eventually(peer->ends == 1) && peer->error == ECONNRESET, "after a reset: %d ends, error %d",
          peer->ends, peer->error);
}

/* ---- buffers ---- */

static void buffers_of_silent_clients(void)
{
    enum { CLIENTS = 20 };
    struct peer *peers[CLIENTS];
    SOCKET clients[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_to(&peers[i]);
        in_loop(do_receive, peers[i]);
    }
    for (int i = 0; i < CLIENTS; i++) {
        send(clients[i], "x", 1, 0);
        CHECK(eventually(peers[i]->bytes == 1),
              "%d receives are pending on one buffer, and that of client %d gets nothing", CLIENTS, i + 1);
    }
    for (int i = 0; i < CLIENTS; i++)
        closesocket(clients[i]);
}

static int receiving(struct peer **peers, int count)
{
    int have = 0;
    for (int i = 0; i < count; i++)
        have += peers[i]->bytes > 0;
    return have;
}

static void buffers_exhausted(void)
{
    enum { CLIENTS = 8, BUFFERS_HERE = 2 };
    struct peer *peers[CLIENTS];
    SOCKET clients[CLIENTS];
    world.keep = true;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_to(&peers[i]);
        in_loop(do_receive, peers[i]);
    }
    for (int i = 0; i < CLIENTS; i++) {
        char own[10];
        memset(own, 'a' + i, sizeof own);
        send(clients[i], own, sizeof own, 0);
    }
    CHECK(eventually(receiving(peers, CLIENTS) == BUFFERS_HERE), "with 2 buffers, %d clients received",
          receiving(peers, CLIENTS));
    for (int given = 0; given < CLIENTS; given++) {
        int who = 0;
        while (who < CLIENTS && peers[who]->kept == 0)
            who++;
        CHECK(who < CLIENTS, "a buffer is free, and nobody receives");
        for (int i = 0; i < 10; i++)
            CHECK(peers[who]->pieces[0].data[i] == 'a' + who,
                  "the buffer that client %d was lent has been given to another one", who + 1);
        int expected = given + 1 + BUFFERS_HERE < CLIENTS ? given + 1 + BUFFERS_HERE : CLIENTS;
        peers[who]->kept = 0;
        in_loop(do_give_back, &peers[who]->pieces[0]);
        CHECK(eventually(receiving(peers, CLIENTS) == expected),
              "%d buffers were given back, and %d clients have received", given + 1,
              receiving(peers, CLIENTS));
    }
    for (int i = 0; i < CLIENTS; i++)
        closesocket(clients[i]);
}

static void buffers_and_close(void)
{
    struct peer *full;
    struct peer *hungry;
    SOCKET first = connect_to(&full);
    SOCKET second = connect_to(&hungry);
    world.keep = true;
    in_loop(do_receive, full);
    send(first, "x", 1, 0);
    CHECK(eventually(full->kept == 1), "nothing was received");
    in_loop(do_receive, hungry);
    send(second, "x", 1, 0);
    Sleep(100);
    CHECK(hungry->receives == 0, "it received without a buffer");
    in_loop(do_close, hungry);
    CHECK(eventually(hungry->closes == 1), "a connection that waits for a buffer cannot be closed");
    CHECK(hungry->ends == 1 && hungry->error == ECANCELED && hungry->bytes == 0,
          "%d ends, error %d, %u bytes", hungry->ends, hungry->error, (unsigned)hungry->bytes);
    in_loop(do_give_back, &full->pieces[0]);
    closesocket(first);
    closesocket(second);
}

/* ---- send ---- */

static char large[8 << 20];

static void send_large(void)
{
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    fill(large, sizeof large);
    peer->send.data = large;
    peer->send.size = sizeof large;
    in_loop(do_send, peer);
    Sleep(100);
    CHECK(peer->sends == 0, "nobody has read, and a send of 8 MiB is complete");
    size_t got = receive_pattern(client, sizeof large);
    CHECK(got == sizeof large, "of 8 MiB, %u bytes came right", (unsigned)got);
    CHECK(eventually(peer->sends == 1) && peer->error == 0 && peer->send.sent == sizeof large,
          "%d completions, error %d, %u bytes sent", peer->sends, peer->error, (unsigned)peer->send.sent);
    closesocket(client);
}

static void send_short(void)
{
    most_to_send = 1000;
    sends_in_pieces = 0;
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    fill(large, 100000);
    peer->send.data = large;
    peer->send.size = 100000;
    in_loop(do_send, peer);
    size_t got = receive_pattern(client, 100000);
    most_to_send = 0;
    CHECK(got == 100000, "sends were short, and of 100,000 bytes %u came right", (unsigned)got);
    CHECK(sends_in_pieces > 90, "no send was short");
    CHECK(eventually(peer->sends == 1) && peer->error == 0, "%d completions, error %d", peer->sends,
          peer->error);
    closesocket(client);
}

static void send_at_once_takes_part(void)
{
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    fill(large, sizeof large);
    peer->send.operation.at_once = true;
    peer->send.data = large;
    peer->send.size = sizeof large;
    int calls = 0;
    size_t all = 0;
    do { /* Windows may take more than there is room for, if there is some */
        in_loop(do_send, peer);
        calls++;
        CHECK(eventually(peer->sends == calls) && peer->error == 0, "%d completions, error %d", peer->sends,
              peer->error);
        all += peer->send.sent;
    } while (peer->send.sent == sizeof large && calls < 100);
    CHECK(all < 100 * sizeof large, "nobody reads, and the socket takes all");
    closesocket(client);
}

static void send_too_late(void)
{
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    peer->send.data = large;
    peer->send.size = sizeof large;
    peer->send.timeout_ms = 200;
    int64_t begin = clock_ms();
    in_loop(do_send, peer);
    CHECK(eventually(peer->sends == 1), "a send with a time limit of 200 ms has not ended");
    CHECK(peer->error == ETIMEDOUT && clock_ms() - begin >= 150, "error %d, after %d ms", peer->error,
          (int)(clock_ms() - begin));
    closesocket(client);
}

static void send_to_nobody(void)
{
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    peer->send.data = large;
    peer->send.size = sizeof large;
    in_loop(do_send, peer);
    Sleep(100); /* Wine may forget a request that it has just taken when the reset comes */
    reset(client);
    CHECK(eventually(peer->sends == 1), "the client has gone, and the send has not ended");
    CHECK(peer->error == ECONNRESET || peer->error == EPIPE, "error %d", peer->error);
}

static void send_a_file(void)
{
    enum { SIZE = 3000000, OFFSET = 1000 };
    char name[] = "wine_proactor_XXXXXX";
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    char *data = malloc(OFFSET + SIZE);
    CHECK(data != NULL, "no memory");
    memset(data, 0, OFFSET);
    fill(data + OFFSET, SIZE);
    int file = _open(_mktemp(name), O_CREAT | O_RDWR | O_BINARY | _O_TEMPORARY, S_IREAD | S_IWRITE);
    CHECK(file >= 0 && _write(file, data, OFFSET + SIZE) == OFFSET + SIZE, "the file cannot be written");
    free(data);

    peer->file.file = file;
    peer->file.offset = OFFSET;
    peer->file.send.size = SIZE;
    in_loop(do_send_file, peer);
    size_t got = receive_pattern(client, SIZE);
    CHECK(got == SIZE, "of a file, %u of %d bytes came right", (unsigned)got, SIZE);
    CHECK(eventually(peer->files == 1) && peer->error == 0, "%d completions, error %d", peer->files,
          peer->error);

    peer->file.offset = OFFSET;
    peer->file.send.size = SIZE + 1;
    in_loop(do_send_file, peer);
    got = receive_pattern(client, SIZE);
    CHECK(eventually(peer->files == 2) && peer->error == ENODATA && got == SIZE,
          "the file is a byte too short: %d completions, error %d, %u bytes", peer->files, peer->error,
          (unsigned)got);

    peer->file.offset = OFFSET + SIZE;
    peer->file.send.size = 0;
    in_loop(do_send_file, peer);
    CHECK(eventually(peer->files == 3) && peer->error == 0 && peer->file.send.sent == 0,
          "nothing, at the end of the file: %d completions, error %d", peer->files, peer->error);
    _close(file);
    closesocket(client);
}

static void send_a_file_by_windows(void)
{
    send_a_file();
}

/* ---- cancel and close ---- */

static void cancel_receive(void)
{
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    in_loop(do_receive, peer);
    in_loop(do_cancel, &peer->receive.operation);
    CHECK(eventually(peer->ends == 1) && peer->error == ECANCELED, "%d ends, error %d", peer->ends,
          peer->error);
    in_loop(do_cancel, &peer->receive.operation); /* no harm */
    send(client, "hello", 5, 0);
    Sleep(50);
    CHECK(peer->receives == 1, "a receive that was cancelled goes on");
    in_loop(do_receive, peer);
    CHECK(eventually(peer->bytes == 5), "after a receive was cancelled, the next one gets %u of 5 bytes",
          (unsigned)peer->bytes);
    closesocket(client);
}

static void cancel_send(void)
{
    struct peer *peer;
    SOCKET client = connect_to(&peer);
    peer->send.data = large;
    peer->send.size = sizeof large;
    in_loop(do_send, peer);
    in_loop(do_receive, peer); /* goes on */
    in_loop(do_cancel, &peer->send.operation);
    CHECK(eventually(peer->sends == 1) && peer->error == ECANCELED, "%d completions, error %d", peer->sends,
          peer->error);
    CHECK(peer->send.sent < sizeof large && peer->ends == 0, "%u bytes sent; %d receives ended",
          (unsigned)peer->send.sent, peer->ends);
    closesocket(client);
}

static void close_waits(void)
{
    enum { CLIENTS = 30 };
    struct peer *peers[CLIENTS];
    SOCKET clients[CLIENTS];
    fill(large, sizeof large);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_to(&peers[i]);
        peers[i]->send.data = large;
        peers[i]->send.size = sizeof large;
        in_loop(do_receive, peers[i]);
        in_loop(do_send, peers[i]);
    }
    for (int i = 0; i < CLIENTS; i++)
        in_loop(do_close, peers[i]);
    for (int i = 0; i < CLIENTS; i++) {
        struct peer *peer = peers[i];
        CHECK(eventually(peer->closes == 1), "a close is not complete");
        CHECK(peer->when_closed == 0 && peer->ends == 1 && peer->sends == 1,
              "when the close was complete, %d operations had not ended: %d receives and %d sends had",
              peer->when_closed, peer->ends, peer->sends);
        (void)receive_pattern(clients[i], sizeof large);
        char byte;
        CHECK(recv(clients[i], &byte, 1, 0) <= 0, "the connection was closed, and the client was not told");
    }
    Sleep(50);
    for (int i = 0; i < CLIENTS; i++)
        CHECK(peers[i]->closes == 1 && peers[i]->ends == 1 && peers[i]->sends == 1,
              "%d closes, %d ends, %d sends", peers[i]->closes, peers[i]->ends, peers[i]->sends);
    for (int i = 0; i < CLIENTS; i++)
        closesocket(clients[i]);
}

/* Whoever is called after the loop has ended writes into memory that the application may have freed. */
static void destroy_takes_back(void)
{
    struct peer *peers[10];
    SOCKET clients[10];
    for (int i = 0; i < 10; i++) {
        clients[i] = connect_to(&peers[i]);
        peers[i]->send.data = large;
        peers[i]->send.size = sizeof large;
        in_loop(do_receive, peers[i]);
        in_loop(do_send, peers[i]);
    }
    world.abandoned = true;
    world.stop.grace_ms = 0;
    end_world();
    for (int i = 0; i < 10; i++)
        CHECK(peers[i]->receives == 0 && peers[i]->sends == 0, "a handler was called");
    for (int i = 0; i < 10; i++) {
        (void)receive_pattern(clients[i], sizeof large);
        char byte;
        CHECK(recv(clients[i], &byte, 1, 0) <= 0, "the proactor was destroyed, and a socket is open");
        closesocket(clients[i]);
    }
    begin_world(0);
}

/* ---- the loop ---- */

static struct proactor_timer timers[3];
static atomic_int order[3];
static atomic_int expired;

static void on_expired(struct proactor *proactor, struct proactor_timer *timer)
{
    (void)proactor;
    order[expired++ % 3] = (int)(timer - timers);
}

static void set_timers(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) {
        timers[i] = (struct proactor_timer){.expired = on_expired};
        (void)proactor_set_timer(world.proactor, &timers[i], 100 + 60 * (2 - i));
    }
    proactor_cancel_timer(world.proactor, &timers[1]);
    proactor_cancel_timer(world.proactor, &world.tick); /* nothing else wakes the loop */
    (void)proactor_set_timer(world.proactor, &world.tick, 500);
}

static void timers_expire(void)
{
    expired = 0;
    int64_t begin = clock_ms();
    in_loop(set_timers, NULL);
    CHECK(eventually(expired == 2), "two timers were set, and %d expired", expired);
    CHECK(order[0] == 2 && order[1] == 0, "timers expired in another order than they were due");
    CHECK(clock_ms() - begin >= 200, "220 ms were over after %d", (int)(clock_ms() - begin));
}

static DWORD WINAPI wake_soon(void *state)
{
    Sleep(100);
    engine_iocp.wake(state);
    return 0;
}

static void woken_up(void)
{
    void *state = engine_iocp.open(NULL, &(struct proactor_options){0});
    engine_iocp.wake(state); /* before the wait is as good as during it */
    CHECK(engine_iocp.wait(state, 60000) == 0, "the wait failed");
    engine_iocp.dispatch(state);
    int64_t begin = clock_ms();
    HANDLE thread = CreateThread(NULL, 0, wake_soon, state, 0, NULL);
    CHECK(engine_iocp.wait(state, 60000) == 0, "the wait failed");
    int64_t waited = clock_ms() - begin;
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
    CHECK(waited >= 50 && waited < 50000, "woken after 100 ms, the wait took %d", (int)waited);
    engine_iocp.dispatch(state);
    engine_iocp.close(state);
}

static void errors_have_numbers(void)
{
    static const int pairs[][2] = {{WSAECONNRESET, ECONNRESET},
                                   {ERROR_NETNAME_DELETED, ECONNRESET},
                                   {WSAEMFILE, EMFILE},
                                   {ERROR_OPERATION_ABORTED, ECANCELED},
                                   {WSAEWOULDBLOCK, EAGAIN},
                                   {WSAENOBUFS, ENOBUFS},
                                   {ERROR_NOT_ENOUGH_MEMORY, ENOMEM},
                                   {12345678, EIO}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        CHECK(windows_errno(pairs[i][0]) == pairs[i][1], "error %d becomes %d", pairs[i][0],
              windows_errno(pairs[i][0]));
}

/* ---- the table ---- */

/* clang-format off */
static const struct {
    void (*test)(void);
    uint32_t buffers; /* 0: as many as the engine thinks best */
    const char *name, *expected, *cause;
} tests[] = {
    {accept_each_once, 0, "iocp: accept: each client comes in once, also those beyond the accepts that are posted",
     "50 clients connect, and there are 50 completions.", "an accept that has ended is not posted again, or its completion is handled twice"},
    {accept_updates, 0, "iocp: accept: the socket is told that it is connected",
     "SO_UPDATE_ACCEPT_CONTEXT, then TCP_NODELAY; the socket knows its peer.", "AcceptEx() alone leaves the socket in its default state"},
    {accept_cancelled, 0, "iocp: accept: cancelled, it ends after those who came before",
     "40 clients are connected, 16 accepts were posted: all come in, then ECANCELED, then nobody can connect.",
     "CancelIoEx() ends the accepts that are posted; those in the listening socket's queue are forgotten"},
    {accept_out_of_handles, 0, "iocp: accept: out of handles, clients wait, and the loop does not spin",
     "WSAEMFILE ends nothing; after a pause it is tried again.", "the accept is posted again at once, or never"},
    {receive_limit, 0, "iocp: receive: the limit is a hard bound",
     "Of more bytes, exactly as many come as there is credit for, and the receive ends once.", "the buffer's size, not what is left of the limit, goes into recv()"},
    {receive_at_once, 0, "iocp: receive: at once, with EAGAIN or a piece", "It does not wait.", "it was posted, and waits"},
    {receive_ends, 0, "iocp: receive: a FIN is the end, a reset is ECONNRESET",
     "The last piece of 0 bytes has error 0 after a FIN.", "a completion with 0 bytes is taken for the end, or an error is not looked at"},
    {buffers_of_silent_clients, 1, "iocp: buffers: a client that is silent has none",
     "20 receives are pending with one buffer, and each gets what comes.", "a buffer is bound to each receive that is pending"},
    {buffers_exhausted, 2, "iocp: buffers: all lent, the others wait, and each gets one that is given back",
     "Two clients at a time, then the next; nobody's bytes change while they are lent.",
     "a buffer is taken that is lent; or those who wait are not asked again"},
    {buffers_and_close, 1, "iocp: buffers: who waits for one can be closed", "ECANCELED, then the close.",
     "only what is in the kernel is cancelled"},
    {send_large, 0, "iocp: send: 8 MiB, whole and in order, with one completion", "The completion comes when the socket has taken all.",
     "the first completion is taken for the end"},
    {send_short, 0, "iocp: send: short sends are continued", "The rest follows.", "the number of bytes of the completion is not looked at"},
    {send_at_once_takes_part, 0, "iocp: send: at once, what there is room for", "It does not wait for the rest.",
     "the send is posted"},
    {send_too_late, 0, "iocp: send: a time limit", "ETIMEDOUT when it is over.", "nothing cancels the send"},
    {send_to_nobody, 0, "iocp: send: to a client that has gone", "ECONNRESET or EPIPE.", "the error is not looked at"},
    {send_a_file, 0, "iocp: send: a file, block by block", "The bytes from the offset on; ENODATA if the file ends too early; and no bytes at all, which is no error.",
     "the block is read anew for each send"},
    {send_a_file_by_windows, 0, "iocp: send: a file, by TransmitFile()", "The same on a server edition of Windows.",
     "the offset is not in the OVERLAPPED"},
    {cancel_receive, 0, "iocp: cancel: a receive", "ECANCELED once, and no byte is lost.", "the receive that follows gets the completion of the cancelled one"},
    {cancel_send, 0, "iocp: cancel: a send", "ECANCELED once; a receive on the same socket goes on.", "all that is pending on the socket is cancelled"},
    {close_waits, 0, "iocp: close: complete when all else has ended",
     "Receives and sends are pending; each ends once, and then the close does.", "CancelIoEx() is not waited for"},
    {destroy_takes_back, 0, "iocp: destroy: takes everything back, and calls nobody", "Sockets are closed.",
     "memory is freed while the kernel has requests"},
    {timers_expire, 0, "iocp: loop: timers expire in order, with nothing else to wake it", "The wait ends when one is due.",
     "the timeout is not passed on"},
    {woken_up, 0, "iocp: loop: another thread ends a wait", "PostQueuedCompletionStatus() does, before and during it.",
     "the completion is taken for one of an operation"},
    {errors_have_numbers, 0, "iocp: errors: Windows' errors become those of POSIX", "As recv(2) and others name them.", "a number is missing in the table"},
};
/* clang-format on */

int main(void)
{
    const char *only = getenv("TEST");
    int failed = 0;
    int number = 0;
    WSADATA winsock;

    setvbuf(stdout, NULL, _IONBF, 0);
    _setmode(_fileno(stdout), _O_BINARY);
    WSAStartup(MAKEWORD(2, 2), &winsock);
    ready = CreateEventW(NULL, FALSE, FALSE, NULL);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (only != NULL && strstr(tests[i].name, only) == NULL)
            continue;
        happened[0] = '\0';
        sockets_refused = 0;
        most_to_send = 0;
        server_edition = tests[i].test == send_a_file_by_windows;
        begin_world(tests[i].buffers);
        tests[i].test();
        sockets_refused = 0;
        end_world();
        failed += happened[0] != '\0';
        printf("%s %d - %s\n", happened[0] != '\0' ? "not ok" : "ok", ++number, tests[i].name);
        if (happened[0] != '\0')
            printf("#   expected:     %s\n#   happened:     %s\n#   likely cause: %s\n"
                   "#   read on:      the book, chapter 7, \"The server, piece by piece\"\n",
                   tests[i].expected, happened, tests[i].cause);
    }
    printf("1..%d\n", number);
    return failed > 0;
}
