/* behaviour_ch07.c - what the echo server on the proactor does, with each of its engines.
 * Whom an engine asks for what is read at its system calls: of io_uring these say how often
 * the kernel was asked, and not for what, which is in the rings.
 * Run it as behaviour_ch07 [PROACTOR], the path of the server. */
#define _GNU_SOURCE /* the numbers of system calls, and the POSIX functions beside them */

#include "harness.h"
#include "tap.h"
#include "trace.h"

#include <dirent.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THE_API "the book, chapter 7, \"The API\""
#define MEMORY "the book, chapter 7, \"Whose memory is it?\""
#define ZERO_COPY "the book, chapter 7, \"Zero copy, and when it pays\""
#define HANDLERS "the book, chapter 7, \"The echo server, as completion handlers\""
#define LENT "the book, chapter 7, \"Buffers that are lent\""
#define CLOSE "the book, chapter 7, \"Cancel before close\""
#define THE_WAIT "the book, chapter 7, \"The wait\""
#define EMULATION "the book, chapter 7, \"The emulation\""
#define SWITCHED_OFF "the book, chapter 7, \"Where io_uring is switched off\""
#define COUNTED "the book, chapter 7, \"Counted\""
#define WILD "the book, chapter 7, \"Found in the wild\""

enum { KiB = 1024, MiB = 1024 * 1024, OWED_AT_MOST = 64 * KiB };

static const char *proactor_server = "../ch07-proactor-iouring/proactor";

/* ---- the server, with one engine or the other ---- */

/* The one that is tested; NULL: the one that the server takes by itself. */
static const char *engine;

/* The test ENGINE_NAME runs NAME() with that engine. */
#define WITH(which, test)      \
    START_TEST(which##_##test) \
    {                          \
        engine = #which;       \
        test();                \
    }                          \
    END_TEST

#define EACH(test) WITH(io_uring, test) WITH(emulated, test)

static void choose(void)
{
    char options[40] = "";
    if (engine != NULL)
        snprintf(options, sizeof options, "--engine %s", engine);
    server_choose(proactor_server);
    server_options(options);
}

static struct server start(const struct server_setup *setup)
{
    choose();
    return server_start(setup);
}

static struct server start_with(const char *option, const char *value)
{
    return start(&(struct server_setup){.arguments = {option, value}});
}

/* How many descriptors the server has for itself, now that it has surely opened all of them. */
static int own_descriptors(const struct server *server)
{
    int fd = served_client(server);
    int own = server_descriptors(server) - 1;
    client_finish(fd);
    ck_assert_msg(client_ending(fd) == ENDED, "a client that had finished was not closed properly");
    close(fd);
    return own;
}

/* All who came have left again: so must their descriptors have, on the server's side. */
static void assert_back_at(const struct server *server, int base)
{
    ck_assert_msg(eventually(server_descriptors(server) == base),
                  "all clients have left, and the server has %d descriptors, not %d as before",
                  server_descriptors(server), base);
}

/* Whether the server has a ring open. */
static bool has_ring(const struct server *server)
{
    bool found = false;
    char path[300];
    char target[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)server->pid);
    DIR *descriptors = opendir(path);
    if (descriptors == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)server->pid, entry->d_name);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = '\0';
        found |= strcmp(target, "anon_inode:[io_uring]") == 0;
    }
    closedir(descriptors);
    return found;
}

/* ---- a crowd: many clients who send and receive at the same time, all in this one thread ---- */

/* What all of them send is one long stream, repeated, which each begins at another place. Its length shares
 * no factor with a buffer's, so that bytes from elsewhere are wrong bytes. It is made
 * once, and compared by the block: at gigabytes, that counts. */
enum { PERIOD = MiB + 7, APART = 10007, BLOCK = 128 * KiB, SLOW_BLOCK = 8 * KiB };

static unsigned char stream[PERIOD + BLOCK];

struct member {
    int fd;
    unsigned number;
    bool slow; /* takes a little at a time, so that the server owes it bytes all the time */
    size_t sent, received;
};

enum { MOST_MEMBERS = 128 };
static struct member crowd[MOST_MEMBERS];

static const unsigned char *stream_at(const struct member *member, size_t position)
{
    return stream + (position + (size_t)member->number * APART) % PERIOD;
}

static void crowd_connects(const struct server *server, size_t count, bool (*slow)(unsigned number))
{
    int fds[MOST_MEMBERS];
    for (size_t i = 0; i < sizeof stream; i++)
        stream[i] = pattern(7, i % PERIOD);
    client_connect_many(server, fds, count);
    for (unsigned i = 0; i < count; i++)
        crowd[i] = (struct member){.fd = fds[i], .number = i, .slow = slow(i)};
}

static bool every_second(unsigned number)
{
    return number % 2 == 1;
}

static bool all(unsigned number)
{
    (void)number;
    return true;
}

static void member_sends(struct member *member, size_t total)
{
    size_t left = total - member->sent;
    ssize_t n = send(member->fd, stream_at(member, member->sent), left < BLOCK ? left : BLOCK,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    ck_assert_msg(n >= 0 || errno == EAGAIN, "client %u had sent %zu bytes, and then could not: %s",
                  member->number, member->sent, strerror(errno));
    member->sent += n > 0 ? (size_t)n : 0;
}

static void member_receives(struct member *member)
{
    static unsigned char back[BLOCK];
    ssize_t n = recv(member->fd, back, member->slow ? SLOW_BLOCK : BLOCK, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    ck_assert_msg(n > 0, "client %u had got %zu bytes back, and then %s", member->number, member->received,
                  n == 0 ? "the end" : strerror(errno));
    const unsigned char *right = stream_at(member, member->received);
    if (memcmp(back, right, (size_t)n) != 0) {
        size_t i = 0;
        while (back[i] == right[i])
            i++;
        ck_abort_msg("byte %zu that came back to client %u is wrong", member->received + i, member->number);
    }
    member->received += (size_t)n;
}

/* Each of the crowd sends total bytes and gets them back, byte exact, and then its end. Returns the most
 * threads that the server was seen to have meanwhile. The limit of time is for standing still. */
static int crowd_exchanges(const struct server *server, size_t count, size_t total)
{
    struct pollfd ready[MOST_MEMBERS];
    struct deadline deadline = deadline_start();
    int most_threads = 0;
    size_t left = count;

    for (unsigned round = 0; left > 0; round++) {
        for (size_t i = 0; i < count; i++) {
            const struct member *member = &crowd[i];
            bool done = member->received == total;
            ready[i] = (struct pollfd){done ? -1 : member->fd, POLLIN, 0};
            ready[i].events |= member->sent < total ? POLLOUT : 0;
        }
        if (poll(ready, count, deadline_left_ms(&deadline)) <= 0) {
            for (size_t i = 0; i < count; i++)
                ck_assert_msg(crowd[i].received == total,
                              "nothing moves any more: client %zu has sent %zu bytes and got %zu back", i,
                              crowd[i].sent, crowd[i].received);
        }
        for (size_t i = 0; i < count; i++) {
            struct member *member = &crowd[i];
            if ((ready[i].revents & POLLOUT) != 0)
                member_sends(member, total);
            if ((ready[i].revents & ~POLLOUT) != 0) {
                member_receives(member);
                left -= member->received == total;
                deadline = deadline_start();
            }
        }
        if (round % 64 == 0) {
            int threads = server_threads(server);
            most_threads = threads > most_threads ? threads : most_threads;
        }
    }
    return most_threads;
}

static void crowd_leaves(size_t count)
{
    for (size_t i = 0; i < count; i++)
        client_finish(crowd[i].fd);
    for (size_t i = 0; i < count; i++) {
        char more;
        ck_assert_msg(client_receive(crowd[i].fd, &more, 1) == 0, "client %zu got more than it had sent", i);
        ck_assert_msg(client_ending(crowd[i].fd) == ENDED, "client %zu finished, and was not closed properly",
                      i);
        close(crowd[i].fd);
    }
}

static void crowd_echo(struct server *server, size_t count, size_t total, bool (*slow)(unsigned number))
{
    int base = own_descriptors(server);
    crowd_connects(server, count, slow);
    crowd_exchanges(server, count, total);
    crowd_leaves(count);
    assert_back_at(server, base);
    assert_stops(server);
}

static void hundred(void)
{
    struct server server = start_with("--buffers", "16");
    crowd_echo(&server, 100, (size_t)(sanitized() ? 1 : 64) * MiB, every_second);
}
EACH(hundred)

static void thirty_one_buffer(void)
{
    enum { CLIENTS = 30 };
    struct server server = start_with("--buffers", "1");
    int base = own_descriptors(&server);
    int fds[CLIENTS];
    static unsigned char sent[OWED_AT_MOST];
    client_connect_many(&server, fds, CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++) { /* all have spoken before the first one reads */
        for (size_t at = 0; at < sizeof sent; at++)
            sent[at] = pattern(i, at);
        client_send(fds[i], sent, sizeof sent);
    }
    for (unsigned i = CLIENTS; i-- > 0;) {
        size_t right = client_receive_pattern(fds[i], sizeof sent, i, 0);
        ck_assert_msg(right == sizeof sent, "of 64 KiB, %zu bytes came back right to client %u of %d", right,
                      i + 1, CLIENTS);
        close(fds[i]);
    }
    assert_back_at(&server, base);
    assert_stops(&server);
}
EACH(thirty_one_buffer)

static void debtors_one_buffer(void)
{
    enum { DEBTORS = 3 };
    struct server server = start_with("--buffers", "1");
    int debtors[DEBTORS];
    size_t owed[DEBTORS];
    for (unsigned i = 0; i < DEBTORS; i++) {
        debtors[i] = client_connect(&server);
        owed[i] = client_flood(debtors[i], i);
    }
    client_finish(debtors[0]); /* a hang-up is no reason to ask again and again, either */
    int other = client_connect(&server);
    size_t back = client_echo(other, MiB, 10000, 99);
    ck_assert_msg(back == MiB, "some do not read, and somebody else got %zu of %d bytes", back, MiB);
    ck_assert_msg(eventually(server_asleep(&server)),
                  "those who are owed bytes do not read, and the server does not come to rest");
    for (unsigned i = 0; i < DEBTORS; i++) {
        size_t right = client_receive_pattern(debtors[i], owed[i], i, 0);
        ck_assert_msg(right == owed[i], "a client that had not read for a while got %zu of %zu bytes", right,
                      owed[i]);
    }
    ck_assert_msg(client_ending(debtors[0]) == ENDED, "a client had finished, and was not closed properly");
    assert_stops(&server);
}
EACH(debtors_one_buffer)

/* ---- a storm: clients who come, speak and vanish at any moment ---- */

struct visitor {
    int fd;        /* -1: not here */
    unsigned seed; /* of this visit: nobody else has the same bytes */
    size_t sent, received;
    bool finished; /* has sent FIN */
};

enum { VISITORS = 40, STEADY = 8, MOST_OWED = 32 * KiB, MOST_WORDS = 4 * KiB };
static struct visitor visitors[VISITORS];
static unsigned visits;

/* The same numbers in each run: a test that fails shall fail again. */
static unsigned chance(unsigned below)
{
    static uint64_t state = 20070707;
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (unsigned)(state >> 33) % below;
}

static void visitor_comes(const struct server *server, struct visitor *visitor)
{
    *visitor = (struct visitor){.fd = client_connect(server), .seed = ++visits};
}

static void visitor_vanishes(struct visitor *visitor)
{
    client_reset(visitor->fd);
    visitor->fd = -1;
}

static void visitor_speaks(struct visitor *visitor)
{
    unsigned char words[MOST_WORDS];
    size_t size = 1 + chance(chance(2) == 0 ? 32 : MOST_WORDS);
    if (visitor->finished || visitor->sent - visitor->received + size > MOST_OWED)
        return;
    for (size_t i = 0; i < size; i++)
        words[i] = pattern(visitor->seed, visitor->sent + i);
    client_send(visitor->fd, words, size);
    visitor->sent += size;
}

/* Takes what is there, and looks whether it is this visitor's own. */
static void visitor_listens(struct visitor *visitor)
{
    unsigned char back[2 * MOST_WORDS];
    ssize_t n = recv(visitor->fd, back, sizeof back, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    ck_assert_msg(n >= 0, "visit %u was ended by the server: %s", visitor->seed, strerror(errno));
    for (ssize_t i = 0; i < n; i++)
        ck_assert_msg(back[i] == pattern(visitor->seed, visitor->received + (size_t)i),
                      "in visit %u, byte %zu that came back is not what was sent", visitor->seed,
                      visitor->received + (size_t)i);
    visitor->received += (size_t)n;
    ck_assert_msg(visitor->received <= visitor->sent, "visit %u got back more than was sent", visitor->seed);
    if (n > 0)
        return;
    ck_assert_msg(visitor->finished && visitor->received == visitor->sent,
                  "visit %u was ended after %zu of %zu bytes", visitor->seed, visitor->received,
                  visitor->sent);
    close(visitor->fd);
    visitor->fd = -1;
}

static void visitor_acts(const struct server *server, struct visitor *visitor)
{
    bool steady = visitor < visitors + STEADY;
    unsigned deed = chance(steady ? 6 : 9);
    if (visitor->fd < 0) {
        visitor_comes(server, visitor);
        if (!steady && deed == 0)
            visitor_vanishes(visitor); /* before a word is said */
    } else if (deed < 3) {
        visitor_speaks(visitor);
    } else if (deed < 6) {
        visitor_listens(visitor);
    } else if (deed == 6) {
        visitor_speaks(visitor);
        visitor_vanishes(visitor); /* before the answer, or with it */
    } else if (deed == 7) {
        visitor_vanishes(visitor);
    } else if (!visitor->finished) {
        visitor_speaks(visitor);
        client_finish(visitor->fd);
        visitor->finished = true;
    }
}

static void storm(void)
{
    struct server server = start_with("--buffers", "4");
    int base = own_descriptors(&server);
    int steps = sanitized() ? 5000 : 12000;
    bool paused = false;
    for (size_t i = 0; i < VISITORS; i++)
        visitors[i].fd = -1;
    for (int i = 0; i < steps; i++) {
        if (i % 200 == 0) { /* now and then a lot has happened when the server looks */
            if (paused)
                server_signal(&server, SIGCONT);
            else
                server_pause(&server);
            paused = !paused;
        }
        visitor_acts(&server, &visitors[chance(VISITORS)]);
    }
    server_signal(&server, SIGCONT);
    for (size_t i = 0; i < VISITORS; i++) {
        struct visitor *visitor = &visitors[i];
        if (visitor->fd < 0)
            continue;
        if (!visitor->finished)
            client_finish(visitor->fd);
        size_t left = visitor->sent - visitor->received;
        size_t right = client_receive_pattern(visitor->fd, left, visitor->seed, visitor->received);
        ck_assert_msg(right == left, "of the last %zu bytes of visit %u, %zu came back right", left,
                      visitor->seed, right);
        ck_assert_msg(client_ending(visitor->fd) == ENDED, "visit %u was not closed properly", visitor->seed);
        close(visitor->fd);
    }
    assert_back_at(&server, base);
    assert_stops(&server);
}
EACH(storm)

/* ---- system calls, counted ---- */

struct tally {
    size_t waits, receives, sends, vain, others;
};

static struct tally counted;

static bool is_wait(long number)
{
#ifdef SYS_poll
    if (number == SYS_poll)
        return true;
#endif
    return number == SYS_ppoll || number == SYS_io_uring_enter;
}

static void count(const struct call *call)
{
    if (is_of_others(call->number))
        return;
    if (is_wait(call->number))
        counted.waits++;
    else if (call->number == SYS_recvfrom || call->number == SYS_recvmsg || call->number == SYS_read)
        counted.receives++;
    else if (call->number == SYS_sendto || call->number == SYS_sendmsg || call->number == SYS_write)
        counted.sends++;
    else
        counted.others++;
    counted.vain += !is_wait(call->number) && call->result == -EAGAIN;
}

enum { MESSAGE = 64 };

/* Clients who say a word, and the next one as soon as they have the answer. */
struct speakers {
    const int *fds;
    size_t count;
    unsigned *said; /* how many words, by each */
    size_t answered;
};

static void says_next(struct speakers *speakers, size_t i)
{
    char word[MESSAGE];
    memset(word, (int)('0' + (i + ++speakers->said[i]) % 64), sizeof word);
    client_send(speakers->fds[i], word, sizeof word);
}

/* Has those say their next word who have an answer, while the server stands still. Returns how many. */
static size_t go_on(struct speakers *speakers)
{
    size_t answered = 0;
    for (size_t i = 0; i < speakers->count; i++) {
        char back[MESSAGE];
        int there = 0;
        if (ioctl(speakers->fds[i], FIONREAD, &there) < 0 || there < MESSAGE)
            continue;
        ck_assert_uint_eq(client_receive(speakers->fds[i], back, MESSAGE), MESSAGE);
        ck_assert_msg(back[MESSAGE - 1] == (char)('0' + (i + speakers->said[i]) % 64),
                      "client %zu got another one's word back", i + 1);
        says_next(speakers, i);
        answered++;
    }
    return answered;
}

/* Lets the call end that the server is in; if it sleeps in it, somebody has to say something. */
static void leave(const struct server *server, struct call *call, struct speakers *speakers)
{
    struct deadline deadline = deadline_start();
    while (!trace_leave(server, call)) {
        size_t answered = go_on(speakers);
        speakers->answered += answered;
        if (answered > 0)
            deadline = deadline_start();
        ck_assert_msg(!deadline_over(&deadline), "%zu clients have spoken, and the server sleeps",
                      speakers->count);
    }
}

/* Counts the server's calls for that many answers, or a few more. The server is stopped where each begins, so
 * that all clients are faster than it is: at each wait, there is a word from everyone who has been answered.
 * Returns how many answers there were. */
static size_t count_calls(const struct server *server, const int *fds, size_t size, size_t wanted)
{
    struct call call;
    bool counting = false; /* at first it may hear of things that were before */
    struct speakers speakers = {fds, size, calloc(size, sizeof *speakers.said), 0};
    ck_assert_ptr_nonnull(speakers.said);
    trace_start(server);
    for (size_t i = 0; i < size; i++)
        says_next(&speakers, i);
    for (;;) {
        trace_enter(server, &call);
        if (is_wait(call.number)) {
            speakers.answered += go_on(&speakers);
            if (counting && speakers.answered >= wanted)
                break;
            if (!counting && speakers.answered >= 3 * size) {
                counting = true;
                counted = (struct tally){0};
                speakers.answered = 0;
            }
        }
        leave(server, &call, &speakers);
        if (counting)
            count(&call);
    }
    trace_end(server);
    free(speakers.said);
    return speakers.answered;
}

enum { SPEAKERS = 50, MESSAGES = 1000 };

static size_t count_speakers(void)
{
    int fds[SPEAKERS];
    struct server server = start(NULL);
    for (size_t i = 0; i < SPEAKERS; i++)
        fds[i] = served_client(&server);
    return count_calls(&server, fds, SPEAKERS, MESSAGES);
}

START_TEST(io_uring_batches)
{
    engine = "io_uring";
    size_t answers = count_speakers();
    ck_assert_msg(counted.waits * 20 <= answers,
                  "for %zu messages, %d under way, io_uring_enter was called %zu times: %.1f messages a call",
                  answers, SPEAKERS, counted.waits, (double)answers / (double)counted.waits);
    ck_assert_msg(counted.receives + counted.sends + counted.others == 0,
                  "besides, there were %zu calls that receive, %zu that send and %zu others",
                  counted.receives, counted.sends, counted.others);
}
END_TEST

START_TEST(emulated_batches)
{
    engine = "emulated";
    size_t answers = count_speakers();
    ck_assert_msg(counted.receives == answers && counted.sends == answers && counted.vain == 0,
                  "for %zu messages there were %zu calls that receive and %zu that send, %zu of them in vain",
                  answers, counted.receives, counted.sends, counted.vain);
    ck_assert_msg(counted.others == 0, "besides, there were %zu other calls", counted.others);
    ck_assert_msg(counted.waits * 40 <= answers,
                  "for %zu messages, %d under way, poll() was called %zu times", answers, SPEAKERS,
                  counted.waits);
}
END_TEST

/* How often the server went to sleep. */
static unsigned long sleeps(const struct server *server)
{
    char path[64];
    char line[200];
    unsigned long number = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)server->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL &&
           sscanf(line, "voluntary_ctxt_switches: %lu", &number) != 1)
        continue;
    fclose(file);
    return number;
}

static void silent_cost_nothing(void)
{
    enum { SILENT = 1000, WORDS = 50 };
    int silent[SILENT];
    struct server server =
        start(&(struct server_setup){.arguments = {"--buffers", "1"}, .descriptors = SILENT + 100});
    client_connect_many(&server, silent, SILENT);
    int active = served_client(&server);
    size_t back = client_echo(active, MiB, 10000, 1);
    ck_assert_msg(back == MiB, "beside %d silent clients, one got %zu of %d bytes back", SILENT, back, MiB);
    ck_assert_msg(eventually(server_asleep(&server)),
                  "nobody says anything, and the server does not come to rest");
    unsigned long before = sleeps(&server);
    ck_assert(client_hears_nothing(active, 200));
    unsigned long woken = sleeps(&server) - before;
    ck_assert_msg(woken == 0, "nobody said anything for 200 ms, and the server woke %lu times", woken);
    size_t words = count_calls(&server, &active, 1, WORDS);
    size_t calls = counted.waits + counted.receives + counted.sends + counted.others;
    ck_assert_msg(calls <= 4 * words,
                  "beside %d silent clients one said %zu words, for which the server made %zu calls", SILENT,
                  words, calls);
}
EACH(silent_cost_nothing)

static void one_thread(void)
{
    struct server server = start(NULL);
    close(served_client(&server));
    int before = server_threads(&server);
    ck_assert_msg(before == 1 || sanitized(), "the server has %d threads", before);
    crowd_connects(&server, 100, every_second);
    int most = crowd_exchanges(&server, 100, 2 * MiB);
    ck_assert_msg(most <= before, "a hundred clients were served, and the server had %d threads", most);
    crowd_leaves(100);
    assert_stops(&server);
}
EACH(one_thread)

/* Far more than the submission queue has room for. */
static void all_at_once(void)
{
    enum { MOST = 5000 };
    static int fds[MOST];
    size_t clients = sanitized() ? 1000 : MOST;
    struct server server = start(&(struct server_setup){.descriptors = MOST + 100});
    int base = own_descriptors(&server);
    client_connect_many(&server, fds, clients);
    for (unsigned i = 0; i < clients; i++)
        client_send(fds[i], &i, sizeof i); /* so that all have been taken in */
    for (unsigned i = 0; i < clients; i++) {
        unsigned back;
        ck_assert_msg(client_receive(fds[i], &back, sizeof back) == sizeof back && back == i,
                      "of %zu clients, number %u got no echo", clients, i + 1);
    }
    server_pause(&server);
    for (unsigned i = 0; i < clients; i++)
        client_send(fds[i], &i, sizeof i);
    server_signal(&server, SIGCONT);
    for (unsigned i = 0; i < clients; i++) {
        unsigned back = 0;
        ck_assert_msg(client_receive(fds[i], &back, sizeof back) == sizeof back,
                      "%zu clients spoke at once, and number %u got no echo", clients, i + 1);
        ck_assert_msg(back == i, "%zu clients spoke at once, and number %u got the echo of number %u",
                      clients, i + 1, back + 1);
    }
    server_pause(&server);
    for (size_t i = 0; i < clients; i++)
        close(fds[i]);
    server_signal(&server, SIGCONT);
    assert_back_at(&server, base);
    assert_stops(&server);
}
EACH(all_at_once)

/* ---- the stop, out of buffers ---- */

/* Stops the server where it begins to wait. Then nothing is left to do: client, which is served, has its
 * answer. */
static struct call hold(const struct server *server, int client)
{
    struct call call = {0};
    char back;
    trace_start(server);
    client_send(client, "x", 1); /* gets it out of the call in which it was interrupted */
    for (struct deadline deadline = deadline_start(); !deadline_over(&deadline);) {
        trace_enter(server, &call);
        if (is_wait(call.number) && !client_hears_nothing(client, 0))
            break;
        while (!trace_leave(server, &call) && !deadline_over(&deadline))
            continue;
    }
    ck_assert_msg(client_receive(client, &back, 1) == 1, "a client got no echo");
    return call;
}

/* Lets the wait end, since clients have come or spoken, and has the server told to stop before it looks at
 * them. All of them get their words, and the end. */
static void stop_behind_wait(struct server *server, struct call *call, const int *fds, size_t size)
{
    ck_assert_msg(eventually(trace_leave(server, call)), "clients have spoken, and the server sleeps");
    server_signal(server, SIGTERM);
    trace_end(server);
    for (unsigned i = 0; i < size; i++) {
        unsigned back;
        ck_assert_msg(client_receive(fds[i], &back, sizeof back) == sizeof back && back == i,
                      "client %u of %zu had spoken before the stop, and got no echo", i + 1, size);
        ck_assert_msg(client_ending(fds[i]) == ENDED, "client %u was not closed properly", i + 1);
    }
    int status = server_wait(server);
    ck_assert_msg(status == 0, "the server ended with status %d", status);
}

enum { STOPPED = 50 };

static void stop_as_they_speak(void)
{
    int fds[STOPPED];
    struct server server = start_with("--buffers", "1");
    for (size_t i = 0; i < STOPPED; i++)
        fds[i] = served_client(&server);
    struct call call = hold(&server, fds[0]);
    for (unsigned i = 0; i < STOPPED; i++)
        client_send(fds[i], &i, sizeof i);
    stop_behind_wait(&server, &call, fds, STOPPED);
}
EACH(stop_as_they_speak)

static void stop_as_they_come(void)
{
    int fds[STOPPED];
    struct server server = start_with("--buffers", "1");
    struct call call = hold(&server, served_client(&server));
    client_connect_many(&server, fds, STOPPED);
    for (unsigned i = 0; i < STOPPED; i++)
        client_send(fds[i], &i, sizeof i);
    stop_behind_wait(&server, &call, fds, STOPPED);
}
EACH(stop_as_they_come)

/* ---- without io_uring ---- */

START_TEST(the_best)
{
    struct server server = start(NULL);
    const char *errors = server_errors(&server);
    if (strstr(errors, " cannot be used: ") != NULL)
        tap_skip("%.*s", (int)strcspn(errors, "\n"), errors);
    ck_assert_msg(has_ring(&server), "io_uring can be used here, and the server has no ring");
    ck_assert_msg(errors[0] == '\0', "there is nothing to complain of, and on stderr is \"%s\"", errors);
    served_client(&server);
}
END_TEST

static void assert_one_line(const char *errors, const char *names)
{
    const char *end = strchr(errors, '\n');
    ck_assert_msg(end != NULL && end[1] == '\0', "on stderr should be one line, and is \"%s\"", errors);
    ck_assert_msg(strstr(errors, "io_uring cannot be used") != NULL && strstr(errors, names) != NULL,
                  "the line does not name io_uring, and \"%s\": \"%s\"", names, errors);
}

static void without_io_uring(int error, const char *names)
{
    forbid_call(SYS_io_uring_setup, error);
    struct server server = start(NULL);
    assert_one_line(server_errors(&server), names);
    ck_assert_msg(strstr(server_errors(&server), "emulated") != NULL,
                  "the line does not say what is done instead: \"%s\"", server_errors(&server));
    ck_assert(!has_ring(&server));
    int fd = client_connect(&server);
    size_t back = client_echo(fd, MiB, 10000, 1);
    ck_assert_msg(back == MiB, "without io_uring a client got %zu of %d bytes back", back, MiB);
    close(fd);
    assert_stops(&server);
    assert_one_line(server_errors(&server), names);

    struct run run = run_program((const char *const[]){"--engine", "io_uring", "--port", "0", NULL});
    ck_assert_msg(run.status == 1, "--engine io_uring was asked for, and cannot be had: the status is %d",
                  run.status);
    ck_assert_str_eq(run.out, "");
    assert_one_line(run.err, names);
}

START_TEST(forbidden)
{
    without_io_uring(EPERM, "kernel.io_uring_disabled");
}
END_TEST

START_TEST(unknown)
{
    without_io_uring(ENOSYS, "seccomp");
}
END_TEST

/* ---- silence ---- */

/* Somebody else says nothing and is closed. Until then, and once more, talker speaks: returns false if it got
 * no answer. The longest time between two of its words is told, since on a busy machine it may be us who were
 * silent. */
static bool talks_until_closed(int talker, int other, int64_t *silence)
{
    int64_t last = now_ms();
    *silence = 0;
    for (bool closed = false; !closed;) {
        closed = !client_hears_nothing(other, 20);
        bool answered = talks(talker);
        *silence = now_ms() - last > *silence ? now_ms() - last : *silence;
        last = now_ms();
        if (!answered)
            return false;
    }
    return true;
}

static void silent(void)
{
    enum { TRIES = 10, TIMEOUT_MS = 1000 };
    struct server server = start_with("--idle-timeout", "1");
    int base = own_descriptors(&server);
    for (int i = 0; i < TRIES; i++) {
        int64_t silence;
        int talker = served_client(&server); /* is here for longer than the other one */
        int64_t began = now_ms();
        int other = client_connect(&server);
        bool served = talks_until_closed(talker, other, &silence);
        if (silence > TIMEOUT_MS / 2) {
            close(talker);
            close(other);
            continue;
        }
        ck_assert_msg(served, "a client that was never silent for longer than %lld ms was closed",
                      (long long)silence);
        ck_assert_msg(client_ending(other) == ENDED, "a silent client was not closed properly");
        ck_assert_msg(now_ms() - began >= TIMEOUT_MS - 10, "a client was closed after %lld ms, and not %d",
                      (long long)(now_ms() - began), TIMEOUT_MS);
        /* Who has been closed may not be heard any more, least of all in the place of the next one. */
        int next = client_connect(&server);
        (void)!send(other, "from before", 11, MSG_NOSIGNAL);
        ck_assert_msg(client_gets_echo(next, "hello"), "a client came after another had been closed, and got "
                                                       "not its own words back");
        ck_assert_msg(client_hears_nothing(next, 50), "a client got words back that it had not said");
        close(talker);
        close(other);
        close(next);
        assert_back_at(&server, base);
        assert_stops(&server);
        return;
    }
    tap_skip("this machine is too slow: a client that wanted to speak all the time could not");
}
EACH(silent)

static void owed_is_not_silent(void)
{
    struct server server = start_with("--idle-timeout", "1");
    int owed = client_connect(&server);
    size_t taken = client_flood(owed, 1);
    ck_assert_msg(client_ending(client_connect(&server)) == ENDED, "a silent client is not closed");
    size_t right = client_receive_pattern(owed, taken, 1, 0);
    ck_assert_msg(right == taken, "a client is owed %zu bytes, and has got %zu when it is closed", taken,
                  right);
    ck_assert_msg(client_ending(owed) == ENDED, "all is paid, the client is silent, and not closed");
}
EACH(owed_is_not_silent)

/* ---- without a copy ---- */

static void zero_copy(void)
{
    struct server server = start_with("--zero-copy", "1024");
    crowd_echo(&server, 10, (size_t)(sanitized() ? 2 : 16) * MiB, all);
}
EACH(zero_copy)

/* All of them send until the server and the kernel take no more, and read nothing. */
static void flood_together(const struct server *server, const int *fds, size_t size)
{
    static const char block[64 * KiB];
    for (bool taken = true; taken;) {
        taken = false;
        for (size_t i = 0; i < size; i++) {
            while (send(fds[i], block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
                taken = true;
        }
        ck_assert_msg(eventually(server_asleep(server)), "the server does not come to rest");
    }
}

static void zero_copy_reset(void)
{
    enum { CLIENTS = 8, ROUNDS = 6 };
    struct server server = start_with("--zero-copy", "1024");
    int base = own_descriptors(&server);
    int steady = client_connect(&server);
    size_t owed = client_flood(steady, 1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        int fds[CLIENTS];
        client_connect_many(&server, fds, CLIENTS);
        flood_together(&server, fds, CLIENTS);
        for (size_t i = 0; i < CLIENTS; i++)
            client_reset(fds[i]);
        assert_back_at(&server, base + 1);
        int other = client_connect(&server);
        size_t back = client_echo(other, MiB, 50000, 2);
        ck_assert_msg(back == MiB, "some clients reset, and another one got %zu of %d bytes back", back, MiB);
        close(other);
        assert_back_at(&server, base + 1);
    }
    size_t right = client_receive_pattern(steady, owed, 1, 0);
    ck_assert_msg(right == owed, "some clients reset, and another one that was owed %zu bytes got %zu", owed,
                  right);
    client_finish(steady);
    ck_assert_msg(client_ending(steady) == ENDED, "a client had finished, and was not closed properly");
    close(steady);
    assert_back_at(&server, base);
    assert_stops(&server);
}
EACH(zero_copy_reset)

/* ---- the start and the end ---- */

static void restarts(void)
{
    enum { TIMES = 20 };
    char port[8];
    struct server server = start(NULL);
    snprintf(port, sizeof port, "%u", server.port);
    for (int i = 0; i < TIMES; i++) {
        int silent = served_client(&server);
        int busy = client_connect(&server);
        client_send(busy, "and here I am", 13);
        assert_stops(&server);
        server = start_with("--port", port); /* fails if the port is in use */
        ck_assert_int_eq(client_ending(silent), ENDED);
        close(silent);
        close(busy);
    }
    assert_stops(&server);
}
EACH(restarts)

/* Each of these values ends the server with status 2 and one line that names the option. */
static void check_wrong(const char *option, const char *const *values)
{
    choose();
    for (; *values != NULL; values++) {
        struct run run = run_program((const char *const[]){option, *values, "--port", "0", NULL});
        const char *end = strchr(run.err, '\n');
        ck_assert_msg(run.status == 2, "%s \"%s\": the status is %d", option, *values, run.status);
        ck_assert_msg(end != NULL && end[1] == '\0' && strstr(run.err, option) != NULL,
                      "%s \"%s\": on stderr is \"%s\"", option, *values, run.err);
        ck_assert_str_eq(run.out, "");
    }
}

START_TEST(wrong_engine)
{
    check_wrong("--engine",
                (const char *const[]){"magic", "", "iocp", "IO_URING", "io_uring ", "emul", NULL});
}
END_TEST

START_TEST(wrong_buffers)
{
    check_wrong("--buffers", (const char *const[]){"0", "-1", "x", "", "1x", "1.5", "32769", "4294967297",
                                                   "99999999999999999999", NULL});
}
END_TEST

START_TEST(wrong_zero_copy)
{
    check_wrong("--zero-copy", (const char *const[]){"0", "-1", "x", "", "1k", "65537", "4294967297",
                                                     "99999999999999999999", NULL});
}
END_TEST

START_TEST(wrong_timeouts)
{
    check_wrong("--idle-timeout",
                (const char *const[]){"0", "-1", "x", "", "1x", "1000001", "99999999999999999999", NULL});
}
END_TEST

START_TEST(help)
{
    static const char *const options[] = {"--engine NAME", "--idle-timeout SECONDS", "--buffers N",
                                          "--zero-copy BYTES"};
    choose();
    struct run run = run_program((const char *const[]){"--help", NULL});
    ck_assert_int_eq(run.status, 0);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        ck_assert_msg(strstr(run.out, options[i]) != NULL, "--help does not name %s: \"%s\"", options[i],
                      run.out);
}
END_TEST

/* ---- all of them ---- */

static const char *const engine_names[] = {"io_uring", "emulated"};
enum { ENGINES = sizeof engine_names / sizeof *engine_names };

#define ON_EACH(test) {&io_uring_##test, &emulated_##test}, NULL
#define ON_URING(test) {&io_uring_##test, NULL}, NULL
#define ON_EMULATED(test) {NULL, &emulated_##test}, NULL
#define ONCE(test) {NULL}, &test

/* clang-format off */
static const struct tap_row rows[] = {
    {ON_EACH(hundred), "a hundred clients with 64 MiB each, half of them slow, share 16 buffers",
     "All at once, each byte exact: whoever reads slowly is waited for without a buffer.",
     "Who finds no buffer is forgotten; a short send is taken for all; or sends overtake each other.", LENT},
    {ON_EACH(thirty_one_buffer), "--buffers 1: thirty who send 64 KiB at once get it back",
     "They receive one after the other, each into the same buffer.",
     "Out of buffers (ENOBUFS), a receive has ended, and begins again only when its own client is answered.", LENT},
    {ON_EACH(debtors_one_buffer), "--buffers 1: who does not read holds no buffer, and costs nothing",
     "Three do not read, one of them has finished: another one is served, and then the server sleeps.",
     "The buffer waits for the slow client, together with the bytes in it; or the wait is woken again and again.", LENT},
    {ON_EACH(stop_as_they_speak), "--buffers 1: who stands in line for a buffer at the stop is echoed",
     "Fifty speak, one of them gets the buffer, and in the same turn the stop comes: each gets its bytes, and the end.",
     "Only receives that are in the kernel are cancelled; those that wait for a buffer are lost, or wait for ever.",
     CLOSE},
    {ON_EACH(stop_as_they_come), "--buffers 1: who comes in the same turn as the stop is echoed",
     "Fifty are let in, and told to stop before they could receive: each gets its bytes, and the end.",
     "A receive finds no buffer and is cancelled: its client is closed with the error of the first, and not heard once\n"
     "more.",
     CLOSE},

    {ON_EACH(storm), "a storm: clients come, speak, and reset at any moment, and nobody gets another one's bytes",
     "Thousands of visits of 40 clients at a time, who reset before, during and after their words, or finish. Each byte\n"
     "that comes back is the client's own, and at the end all descriptors are closed.",
     "A completion that has no buffer (an end, a reset) is taken for one with buffer 0, which then is lent twice; or a\n"
     "connection is freed before its last completion.", WILD},

    {ON_URING(batches), "fifty who speak all the time are answered with few calls of io_uring_enter",
     "Each says 64 bytes, and the next ones when it has the answer; the server is the slowest of all. 20 messages or more\n"
     "go through in one call, and no other system call is made.",
     "Each operation is submitted on its own, which needs a call for each; or the loop takes one completion at a time.",
     COUNTED},
    {ON_EMULATED(batches), "fifty who speak all the time cost a receive and a send each, and none in vain",
     "poll() says where bytes are: they are received once and sent at once, without asking for room. However few buffers\n"
     "there are, one poll() is enough for all who have spoken.",
     "After each piece it is tried again, until EAGAIN; or the send waits for poll(); or those who find no buffer do.",
     EMULATION},
    {ON_EACH(silent_cost_nothing), "--buffers 1: a thousand silent clients cost no system call and hold no buffer",
     "Beside them, one client gets a megabyte back. Then the server sleeps, and nothing wakes it until the client says 50\n"
     "words: four calls or fewer for each.",
     "A buffer is lent to each receive when it begins; or the wait has a limit, though no timer is set.",
     LENT},
    {ON_EACH(one_thread), "one thread serves a hundred clients who send and receive",
     "The kernel can always try without waiting, and needs no workers (iou-wrk).",
     "IOSQE_ASYNC, or an operation that io_uring can only do in a thread of its own.", THE_WAIT},
    {ON_EACH(all_at_once), "five thousand who speak at once are served, each",
     "That is more than the submission queue has room for, and far more than there are buffers: each waits for its turn.",
     "io_uring_get_sqe() returns NULL, and nobody looks.", WILD},

    {ONCE(the_best), "without --engine, io_uring where it works",
     "The server has a ring, and nothing to complain of.",
     "The list of engines has another order.", THE_API},
    {ONCE(forbidden), "io_uring is forbidden (EPERM): one line says so, and the emulation serves",
     "The line names kernel.io_uring_disabled and what is done instead. Who asked for io_uring gets status 1.",
     "The server ends; or says nothing, and is slower; or overrules a wish.", SWITCHED_OFF},
    {ONCE(unknown), "io_uring is hidden (ENOSYS): one line says so, and the emulation serves",
     "The line names the seccomp filter. Who asked for io_uring gets status 1.",
     "Only EPERM is expected, and this is fatal.", SWITCHED_OFF},

    {ON_EACH(silent), "--idle-timeout: who is silent is closed, who speaks is not",
     "After a second the client gets its end, though a receive was pending; and nobody hears of it any more.",
     "A descriptor is closed with its receive pending: no FIN goes out, and the old client's bytes come to the next one.",
     CLOSE},
    {ON_EACH(owed_is_not_silent), "--idle-timeout: who is owed bytes is not silent",
     "It takes its bytes later than a silent client is closed, and gets all of them. Then it is silent.",
     "The timer looks at what comes in, and not at what has to go out.", HANDLERS},

    {ON_EACH(zero_copy), "--zero-copy: slow readers get their own bytes",
     "The memory is the kernel's until the notification: what is sent again after that has other bytes in it.",
     "The result of the send is taken for its end, and the memory is used again too early.", ZERO_COPY},
    {ON_EACH(zero_copy_reset), "--zero-copy: who resets while the kernel has the memory costs only itself",
     "Eight are owed bytes and reset, twice. Their descriptors are closed, and the others get their bytes.",
     "After an error a notification comes, too; who does not wait for it frees memory that is in use.", MEMORY},

    {ON_EACH(restarts), "restarted twenty times on its port, while clients are connected",
     "The stop ends all that is pending, so that the port is free at once.",
     "The kernel takes a ring apart after the process has gone, and an accept in it keeps the port (EADDRINUSE).",
     THE_WAIT},
    {ONCE(wrong_engine), "wrong use: --engine", "Status 2, and one line that names the option.",
     "The name is compared by its beginning; or the best one is taken instead.", THE_API},
    {ONCE(wrong_buffers), "wrong use: --buffers", "Status 2, and one line that names the option.",
     "atoi(), or no upper limit.", THE_API},
    {ONCE(wrong_zero_copy), "wrong use: --zero-copy", "Status 2, and one line that names the option.",
     "atoi(), or no upper limit: more than a connection is ever owed is never sent.", THE_API},
    {ONCE(wrong_timeouts), "wrong use: --idle-timeout", "Status 2, and one line that names the option.",
     "atoi(), or no upper limit.", THE_API},
    {ONCE(help), "--help names the options of its own",
     "--engine, --idle-timeout, --buffers and --zero-copy, with the names of their values.",
     "An option is missing in the table.", THE_API},
};
/* clang-format on */

enum { ROWS = sizeof rows / sizeof *rows };

int main(int argc, char **argv)
{
    if (argc > 1)
        proactor_server = argv[1];
    return tap_run_rows("proactor", "engine", engine_names, ENGINES, rows, ROWS);
}
