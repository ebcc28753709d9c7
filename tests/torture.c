/* torture.c - lets every call that a server makes fail once, one at a time.
 *
 * Usage: torture          all cases of all servers (TEST=word: some servers)
 *        CASE=121 torture that case only, and what it is about
 * A scenario of four clients is played without a fault first, to count the calls
 * that the server makes once it has started. Then it is played again for each of
 * them, with that one call failing or moving fewer bytes. Whatever happens,
 * only the client whose call it was may notice; nobody gets a wrong byte;
 * nothing leaks, hangs or spins; and the stop at the end gives status 0.
 * The servers are looked for below TOP_BUILDDIR (default: ..). */
#define _POSIX_C_SOURCE 200809L

#include "harness.h"
#include "tap.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what is tortured, and how ---- */

struct target {
    const char *program;
    const char *options;
    bool waits;    /* without clients, it sleeps */
    bool blocking; /* its sockets never say EAGAIN */
    bool trusting; /* it takes EAGAIN, or less than it asked for, as a promise of an event to come */
};

static const struct target targets[] = {
    {"ch01-blocking/iterative", "", true, true, false},
    {"ch01-blocking/threaded", "", true, true, false},
    {"ch02-nonblocking/nonblocking", "", false, false, false},
    {"ch03-select-poll/select", "", true, false, false},
    {"ch03-select-poll/poll", "", true, false, false},
    {"ch04-epoll/level", "", true, false, false},
    {"ch04-epoll/edge", "", true, false, true},
    {"ch05-kqueue/kqueue", "", true, false, false},
    {"ch06-reactor/reactor", "--demux epoll", true, false, false},
    {"ch06-reactor/reactor", "--demux poll", true, false, false},
    {"ch06-reactor/reactor", "--demux select", true, false, false},
    {"ch06-reactor/reactor", "--demux kqueue", true, false, false},
    {"ch07-proactor-iouring/proactor", "--engine emulated", true, false,
     false}, /* io_uring makes no such calls */
};

struct fault {
    const char *function;
    const char *what; /* as inject.h has it */
    int victims;      /* how many clients may be lost by it */
};

static const struct fault faults[] = {
    {"accept", "EINTR", 0},
    {"accept", "EAGAIN", 0},
    {"accept", "ECONNABORTED", 0},
    {"accept", "EMFILE", 0},
    {"accept", "ENOMEM", 0},
    {"setsockopt", "EINVAL", 0},
    {"fcntl", "EINVAL", 1},
    {"malloc", "ENOMEM", 1},
    {"calloc", "ENOMEM", 1},
    {"realloc", "ENOMEM", 1},
    {"pthread_create", "EAGAIN", 1},
    {"recv", "EINTR", 0},
    {"recv", "EAGAIN", 0},
    {"recv", "short", 0},
    {"recv", "ECONNRESET", 1},
    {"send", "EINTR", 0},
    {"send", "EAGAIN", 0},
    {"send", "short", 0},
    {"send", "ECONNRESET", 1},
    {"send", "EPIPE", 1},
    {"close", "EINTR", 0},
    {"close", "EIO", 0},
    {"select", "EINTR", 0},
    {"select", "ENOMEM", 0},
    {"poll", "EINTR", 0},
    {"poll", "ENOMEM", 0},
    {"epoll_wait", "EINTR", 0},
    {"epoll_ctl", "ENOMEM", 1},
};

enum {
    TARGETS = sizeof targets / sizeof *targets,
    FAULTS = sizeof faults / sizeof *faults,
    CALLS = 24, /* of one function, at most, so that the number of a case never changes */
    CASES = TARGETS * FAULTS * CALLS,
};

/* Calls that can say EAGAIN are counted when they do not: a server that asks
 * all the time asks in vain, and how often is chance. */
static bool counted_when_ready(const char *function)
{
    return strcmp(function, "accept") == 0 || strcmp(function, "recv") == 0 || strcmp(function, "send") == 0;
}

/* ---- the clients ---- */

enum { GUESTS = 3, WORDS = 1000, SPEECH = 20000 };

struct guest {
    int fd;
    bool lost; /* the server has given it up */
};

/* The guest sends size bytes. Whether they arrive is seen by hear(). */
static void say(const struct guest *guest, unsigned seed, size_t size)
{
    static unsigned char data[SPEECH];
    for (size_t i = 0; i < size; i++)
        data[i] = pattern(seed, i);
    if (send(guest->fd, data, size, MSG_NOSIGNAL) < 0 && errno == EAGAIN)
        ck_abort_msg("the server took nothing until the deadline");
}

/* The guest receives these bytes, or is lost; it gets no wrong ones, and does not wait for ever. */
static void hear(struct guest *guest, unsigned seed, size_t size)
{
    static unsigned char data[SPEECH];
    size_t heard = 0;
    while (heard < size && !guest->lost) {
        ssize_t got = recv(guest->fd, data, size - heard, 0);
        if (got < 0 && errno == EAGAIN)
            ck_abort_msg("a client waits: it got %zu of %zu bytes, and then neither more nor an end", heard,
                         size);
        for (ssize_t i = 0; i < got; i++, heard++) {
            if (data[i] != pattern(seed, heard))
                ck_abort_msg("a client got a wrong byte, number %zu of %zu", heard, size);
        }
        guest->lost = got <= 0;
    }
}

/* Nothing more comes, but the end. */
static void hear_end(struct guest *guest)
{
    char byte;
    ssize_t got = recv(guest->fd, &byte, 1, 0);
    if (got > 0)
        ck_abort_msg("a client got a byte too many");
    if (got < 0 && errno == EAGAIN)
        ck_abort_msg("the server did not close the connection of a client that had finished");
    guest->lost = guest->lost || got < 0;
}

/* ---- the scenario ---- */

static const struct target *target;

/* Once the server asks or waits for clients, it has started; what follows may fail. */
static void wait_until_started(const struct server *server)
{
    if (!eventually(target->waits ? server_asleep(server) : server_calls(server, "accept") > 0))
        ck_abort_msg("it never asked for a client");
}

/* It waits, and makes no call meanwhile. */
static bool is_idle(const struct server *server)
{
    uint64_t before = server_calls(server, "accept");
    return server_asleep(server) && server_calls(server, "accept") == before;
}

/* All clients talk, the first ones at the same time, and finish. Returns how many were lost. */
static int play_crowd(const struct server *server)
{
    struct guest guests[GUESTS] = {{.lost = false}};
    int lost = 0;

    for (unsigned i = 0; i < GUESTS; i++) {
        guests[i].fd = client_connect(server);
        say(&guests[i], i, WORDS);
    }
    for (unsigned i = 0; i < GUESTS; i++) {
        struct guest *guest = &guests[i];
        hear(guest, i, WORDS);
        say(guest, 10 + i, SPEECH);
        hear(guest, 10 + i, SPEECH);
        say(guest, 20 + i, WORDS);
        shutdown(guest->fd, SHUT_WR); /* fails when it is lost */
        hear(guest, 20 + i, WORDS);
        hear_end(guest);
        close(guest->fd);
        lost += guest->lost;
    }
    return lost;
}

/* After the clients have gone the server is as it was before. */
static void check_nothing_left(struct server *server, int descriptors, int threads)
{
    bool closed = eventually(!server_alive(server) || server_descriptors(server) == descriptors);
    if (!server_alive(server))
        ck_abort_msg("it ended, with status %d; on stderr: %.2000s", server_wait(server),
                     server_errors(server));
    if (!closed)
        ck_abort_msg("it held %d descriptors before its clients came, and %d after they had gone",
                     descriptors, server_descriptors(server));
    if (!sanitized() && !eventually(server_threads(server) == threads))
        ck_abort_msg("it had %d threads before its clients came, and %d after they had gone", threads,
                     server_threads(server));
    if (target->waits && !eventually(is_idle(server)))
        ck_abort_msg("nobody is there, and yet it does not wait: it spins, or hangs elsewhere");
}

/* Plays the scenario, with that fault to come, or none (NULL). */
static void play(struct server *server, const struct fault *fault)
{
    wait_until_started(server);
    int descriptors = server_descriptors(server);
    int threads = server_threads(server);
    int lost = play_crowd(server);
    check_nothing_left(server, descriptors, threads);

    struct guest last = {.fd = client_connect(server)};
    say(&last, 30, WORDS);
    hear(&last, 30, WORDS);
    if (fault != NULL && server_faults(server, fault->function) > 0)
        shutdown(last.fd, SHUT_WR); /* a stop with a client takes longer, and would show nothing new */
    int status = server_stop(server, SIGTERM);
    if (status != 0)
        ck_abort_msg("it ended with status %d and not with 0; on stderr: %.2000s", status,
                     server_errors(server));
    hear_end(&last);
    lost += last.lost;
    int victims = fault != NULL ? fault->victims : 0;
    if (lost > victims)
        ck_abort_msg("%d clients were lost, and %d may be", lost, victims);
    if (server_errors(server)[0] != '\0')
        ck_abort_msg("it wrote to stderr: %.2000s", server_errors(server));
}

/* ---- the cases ---- */

/* How often each function was called before the first client, and then. */
struct count {
    uint64_t before;
    uint64_t during;
};

static struct server start(const char *rule)
{
    static char path[512];
    const char *folder = getenv("TOP_BUILDDIR");
    snprintf(path, sizeof path, "%s/%s", folder != NULL ? folder : "..", target->program);
    if (access(path, X_OK) < 0)
        tap_skip("%s: %s", path, strerror(errno));
    server_options(target->options);
    return server_start(&(const struct server_setup){.command = path, .faults = rule});
}

static void count_calls(struct count counts[FAULTS])
{
    struct server server = start("");
    wait_until_started(&server);
    for (size_t i = 0; i < FAULTS; i++) {
        if (!counted_when_ready(faults[i].function))
            counts[i].before = server_calls(&server, faults[i].function);
    }
    play(&server, NULL);
    for (size_t i = 0; i < FAULTS; i++) {
        uint64_t calls = server_calls(&server, faults[i].function);
        if (counted_when_ready(faults[i].function))
            calls -= server_failures(&server, faults[i].function);
        counts[i].during = calls - counts[i].before;
    }
}

static bool applies(const struct fault *fault)
{
    if (target->blocking && strcmp(fault->what, "EAGAIN") == 0)
        return !counted_when_ready(fault->function);
    /* An edge-triggered server may believe the kernel: after "nothing there" or
     * a short read there will be an event. The injector would be lying to it. */
    if (target->trusting && counted_when_ready(fault->function) &&
        (strcmp(fault->what, "EAGAIN") == 0 ||
         (strcmp(fault->what, "short") == 0 && strcmp(fault->function, "recv") == 0)))
        return false;
    /* A sanitizer's library has thread-local data, and glibc ends the program
     * when there is no memory for that: with calloc() and realloc() it asks. */
    bool of_threads = strcmp(fault->function, "calloc") == 0 || strcmp(fault->function, "realloc") == 0;
    return !sanitized() || !of_threads;
}

static int case_number(const struct fault *fault, unsigned call)
{
    return (int)((size_t)(target - targets) * FAULTS + (size_t)(fault - faults)) * CALLS + (int)call;
}

static const char *wanted; /* CASE: a number, or NULL for all */

static void describe(const struct fault *fault, unsigned call, const char *rule)
{
    printf("# case %d: %s %s: call %u of %s() after the start: %s (INJECT=\"%s\")\n",
           case_number(fault, call), target->program, target->options, call, fault->function, fault->what,
           rule);
}

/* How a case ends; the exit status of its process. 1 is Check's, for a failure
 * that it has been told of. */
enum ending_of_case { MET = 0, NOT_MET = 3 };

/* Plays one case in a process of its own, so that nothing is left of it.
 * Returns whether the server made that call at all, this time. */
static bool play_case(const struct fault *fault, unsigned call, const struct count *count)
{
    char rule[64];
    int status;
    if (counted_when_ready(fault->function))
        snprintf(rule, sizeof rule, "%s:+%u=%s", fault->function, call, fault->what);
    else
        snprintf(rule, sizeof rule, "%s:%llu=%s", fault->function, (unsigned long long)count->before + call,
                 fault->what);

    if (wanted != NULL)
        describe(fault, call, rule);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct server server = start(rule);
        play(&server, fault);
        _exit(server_faults(&server, fault->function) > 0 ? MET : NOT_MET);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        ck_abort_msg("a child process: %s", strerror(errno));
    int ending = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (ending != MET && ending != NOT_MET) {
        if (wanted == NULL)
            describe(fault, call, rule);
        printf("# once more: make torture CASE=%d\n", case_number(fault, call));
        fflush(stdout);
        ck_abort_msg("case %d failed", case_number(fault, call)); /* Check has heard why already */
    }
    return ending == MET;
}

static void torture(const struct target *chosen)
{
    struct count counts[FAULTS] = {{0, 0}};
    int played = 0;
    int met = 0;
    target = chosen;
    count_calls(counts);

    for (const struct fault *fault = faults; fault < faults + FAULTS; fault++) {
        const struct count *count = &counts[fault - faults];
        if (!applies(fault))
            continue;
        for (unsigned call = 1; call <= count->during && call <= CALLS; call++) {
            if (wanted != NULL && case_number(fault, call) != atoi(wanted))
                continue;
            played++;
            met += play_case(fault, call, count);
        }
    }
    if (wanted != NULL && met == 0)
        tap_skip("case %s: the server does not make that call so often", wanted);
    printf("# %s %s: %d cases; in %d of them the call was made, and failed\n", target->program,
           target->options, played, met);
    fflush(stdout);
    /* How many pieces a message comes in is chance; so a few may be missed. */
    if (met < played * 3 / 4)
        ck_abort_msg("this server does not make those calls: the cases have shown nothing");
}

START_TEST(torture_iterative)
{
    torture(&targets[0]);
}
END_TEST

START_TEST(torture_threaded)
{
    torture(&targets[1]);
}
END_TEST

START_TEST(torture_nonblocking)
{
    torture(&targets[2]);
}
END_TEST

START_TEST(torture_select)
{
    torture(&targets[3]);
}
END_TEST

START_TEST(torture_poll)
{
    torture(&targets[4]);
}
END_TEST

START_TEST(torture_level)
{
    torture(&targets[5]);
}
END_TEST

START_TEST(torture_edge)
{
    torture(&targets[6]);
}
END_TEST

START_TEST(torture_kqueue)
{
    torture(&targets[7]);
}
END_TEST

START_TEST(torture_reactor_epoll)
{
    torture(&targets[8]);
}
END_TEST

START_TEST(torture_reactor_poll)
{
    torture(&targets[9]);
}
END_TEST

START_TEST(torture_reactor_select)
{
    torture(&targets[10]);
}
END_TEST

START_TEST(torture_reactor_kqueue)
{
    torture(&targets[11]);
}
END_TEST

START_TEST(torture_proactor_emulated)
{
    torture(&targets[12]);
}
END_TEST

#define EXPECTED                                                                                           \
    "of four clients at most the one whose call failed is lost; nobody gets a wrong byte; no descriptor\n" \
    "and no thread is left over; the server waits, serves the next client, and stops with status 0"
#define CAUSE                                                                                               \
    "an error return that was not looked at, or was taken for the server's end, or after which something\n" \
    "was not closed or freed. The case above says which call of which function it is (tests/inject.h)"
#define SECTION(n) "the book, chapter " #n ", \"What the tests check\""

int main(void)
{
    /* In here, since what START_TEST makes is a variable, and no constant. */
    const struct tap_test tests[TARGETS] = {
        {"iterative: survives every failing call", torture_iterative, EXPECTED, CAUSE, SECTION(1)},
        {"threaded: survives every failing call", torture_threaded, EXPECTED, CAUSE, SECTION(1)},
        {"nonblocking: survives every failing call", torture_nonblocking, EXPECTED, CAUSE, SECTION(2)},
        {"select: survives every failing call", torture_select, EXPECTED, CAUSE, SECTION(3)},
        {"poll: survives every failing call", torture_poll, EXPECTED, CAUSE, SECTION(3)},
        {"level: survives every failing call", torture_level, EXPECTED, CAUSE, SECTION(4)},
        {"edge: survives every failing call", torture_edge, EXPECTED, CAUSE, SECTION(4)},
        {"kqueue: survives every failing call", torture_kqueue, EXPECTED, CAUSE, SECTION(5)},
        {"reactor --demux epoll: survives every failing call", torture_reactor_epoll, EXPECTED, CAUSE,
         SECTION(6)},
        {"reactor --demux poll: survives every failing call", torture_reactor_poll, EXPECTED, CAUSE,
         SECTION(6)},
        {"reactor --demux select: survives every failing call", torture_reactor_select, EXPECTED, CAUSE,
         SECTION(6)},
        {"reactor --demux kqueue: survives every failing call", torture_reactor_kqueue, EXPECTED, CAUSE,
         SECTION(6)},
        {"proactor --engine emulated: survives every failing call", torture_proactor_emulated, EXPECTED,
         CAUSE, SECTION(7)},
    };

    setenv("TSAN_OPTIONS", "atexit_sleep_ms=0", 0); /* or each case takes a second more */
    wanted = getenv("CASE");
    if (wanted == NULL || *wanted == '\0') {
        wanted = NULL;
        return tap_run("", tests, TARGETS);
    }
    char *end;
    long number = strtol(wanted, &end, 10);
    if (*end != '\0' || number < 1 || number > CASES) {
        fprintf(stderr, "CASE=%s: not a number from 1 to %d\n", wanted, CASES);
        return 2;
    }
    return tap_run("", &tests[(number - 1) / (FAULTS * CALLS)], 1);
}
