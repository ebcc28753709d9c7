/* behaviour_ch01.c - what blocking I/O does, and where it ends: one client at a
 * time with one thread (iterative), or a thread for each client (threaded).
 * Run it as behaviour_ch01 [ITERATIVE [THREADED]], the paths of the two servers. */
#define _GNU_SOURCE /* the numbers of system calls, and the POSIX functions beside them */

#include "harness.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THE_IDEA "the book, chapter 1, \"The idea\""
#define THE_API "the book, chapter 1, \"The API\""
#define THE_SERVER "the book, chapter 1, \"The server, piece by piece\""

static const char *iterative = "../ch01-blocking/iterative";
static const char *threaded = "../ch01-blocking/threaded";

static struct server start_iterative(void)
{
    server_choose(iterative);
    return server_start(NULL);
}

static struct server start_threaded(void)
{
    server_choose(threaded);
    return server_start(NULL);
}

/* Which of the two numbers the C library's accept() uses differs by processor. */
static int blocked_in_accept(const struct server *server)
{
    int blocked = server_blocked_in(server, SYS_accept4);
#ifdef SYS_accept
    blocked += server_blocked_in(server, SYS_accept);
#endif
    return blocked;
}

static void close_all(const int *descriptors, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(descriptors[i]);
}

/* Connects count clients, and has each one served once. */
static void connect_served(const struct server *server, int *descriptors, size_t count)
{
    client_connect_many(server, descriptors, count);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(client_gets_echo(descriptors[i], "hello"), "client %zu of %zu got no echo", i + 1,
                      count);
}

/* A user's limit on threads (ulimit -u) also counts those of other programs. */
static void need_threads(rlim_t count)
{
    struct rlimit limit;
    if (geteuid() != 0 && getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur < 2 * count)
        tap_skip("needs %llu threads, and ulimit -u is %llu", (unsigned long long)count,
                 (unsigned long long)limit.rlim_cur);
}

/* Whether the kernel on the server's side has acknowledged all that the client
 * sent: it lies there, as the Recv-Q of `ss -tn` shows, whether the server reads or not. */
static bool kernel_has_all(int fd)
{
    int on_the_way;
    if (ioctl(fd, TIOCOUTQ, &on_the_way) < 0)
        ck_abort_msg("TIOCOUTQ: %s", strerror(errno));
    return on_the_way == 0;
}

/* ---- iterative ---- */

START_TEST(iterative_silent)
{
    struct server server = start_iterative();
    int first = client_connect(&server);
    ck_assert_msg(client_gets_echo(first, "first"), "the first client got no echo");
    int descriptors = server_descriptors(&server);

    /* From here on the first is silent. connect() returns although nobody has
     * accepted: the kernel alone answers, and keeps what the second sends. */
    int second = client_connect(&server);
    client_send(second, "second", 6);
    ck_assert_msg(eventually(kernel_has_all(second)), "the kernel did not take what the second client sent");
    ck_assert_msg(eventually(server_blocked_in(&server, SYS_recvfrom) == 1),
                  "the server is not blocked in recvfrom()");
    ck_assert_msg(server_descriptors(&server) == descriptors, "the server has accepted the second client");
    ck_assert_msg(client_hears_nothing(second, 0), "the second client got an answer");

    ck_assert_msg(client_gets_echo(first, "again"), "the first client is not served any more");
    client_finish(first);
    char back[6];
    ck_assert_msg(client_ending(first) == ENDED, "the first client's connection was not closed");
    ck_assert_msg(client_receive(second, back, sizeof back) == 6 && memcmp(back, "second", 6) == 0,
                  "the first client has gone, and the second was not served");
}
END_TEST

START_TEST(iterative_in_accept)
{
    struct server server = start_iterative();
    ck_assert_msg(eventually(blocked_in_accept(&server) == 1),
                  "without a client, the server is not blocked in accept()");

    int fd = client_connect(&server);
    ck_assert_msg(client_gets_echo(fd, "hello"), "no echo");
    close(fd);
    ck_assert_msg(eventually(blocked_in_accept(&server) == 1),
                  "its only client has gone, and the server is not back in accept()");
}
END_TEST

START_TEST(iterative_in_recv)
{
    struct server server = start_iterative();
    int fd = client_connect(&server);
    ck_assert_msg(eventually(server_blocked_in(&server, SYS_recvfrom) == 1),
                  "its client says nothing, and the server is not blocked in recvfrom()");
    ck_assert_msg(client_gets_echo(fd, "hello"), "the client spoke, and got no echo");
    ck_assert_msg(eventually(server_blocked_in(&server, SYS_recvfrom) == 1),
                  "its client is silent again, and the server is not back in recvfrom()");
}
END_TEST

START_TEST(iterative_in_send)
{
    struct server server = start_iterative();
    int first = client_connect(&server);
    size_t taken = client_flood(first, 0);
    ck_assert_msg(eventually(server_blocked_in(&server, SYS_sendto) == 1),
                  "a client sent %zu bytes and reads none, and the server is not blocked in sendto()", taken);

    int second = client_connect(&server);
    client_send(second, "second", 6);
    ck_assert_msg(eventually(kernel_has_all(second)), "the kernel did not take what the second client sent");
    ck_assert_int_eq(server_blocked_in(&server, SYS_sendto), 1);
    ck_assert_msg(client_hears_nothing(second, 0), "the second client got an answer");

    char back[6];
    client_reset(first);
    ck_assert_msg(client_receive(second, back, sizeof back) == 6 && memcmp(back, "second", 6) == 0,
                  "the client that did not read has gone, and the second was not served");
}
END_TEST

/* Waits until some of the clients got an answer.
 * Returns the index of the last of them; answered says how many they are. */
static size_t who_got_answer(struct pollfd *clients, size_t count, size_t *answered)
{
    size_t who = 0;
    struct deadline deadline = deadline_start();
    if (poll(clients, count, deadline_left_ms(&deadline)) <= 0)
        ck_abort_msg("several clients are waiting, and none of them is served");
    *answered = 0;
    for (size_t i = 0; i < count; i++) {
        if (clients[i].revents != 0) {
            who = i;
            ++*answered;
        }
    }
    return who;
}

START_TEST(iterative_one_thread)
{
    enum { CLIENTS = 50 };
    int descriptors[CLIENTS];
    struct pollfd clients[CLIENTS];
    struct server server = start_iterative();
    int threads = server_threads(&server);
    if (!sanitized())
        ck_assert_int_eq(threads, 1);

    client_connect_many(&server, descriptors, CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct pollfd){.fd = descriptors[i], .events = POLLIN};
        client_send(clients[i].fd, "x", 1);
    }
    for (size_t left = CLIENTS; left > 0; left--) {
        char back;
        size_t answered;
        size_t who = who_got_answer(clients, left, &answered);
        ck_assert_msg(answered == 1, "of %zu clients that are waiting, %zu were served at once", left,
                      answered);
        ck_assert_int_eq(server_threads(&server), threads);
        ck_assert_msg(client_receive(clients[who].fd, &back, 1) == 1 && back == 'x', "a wrong answer");
        close(clients[who].fd); /* and now the next one */
        clients[who] = clients[left - 1];
    }
}
END_TEST

/* ---- threaded ---- */

START_TEST(threaded_silent)
{
    struct server server = start_threaded();
    int first = client_connect(&server);
    ck_assert_msg(client_gets_echo(first, "first"), "the first client got no echo");
    int second = client_connect(&server);
    ck_assert_msg(client_gets_echo(second, "second"), "the first client is silent, and the second waits");
    ck_assert_msg(client_gets_echo(first, "first"), "the first client, silent for a while, is not served");
}
END_TEST

START_TEST(threaded_unread)
{
    struct server server = start_threaded();
    int first = client_connect(&server);
    size_t taken = client_flood(first, 0);
    ck_assert_msg(eventually(server_blocked_in(&server, SYS_sendto) == 1),
                  "a client sent %zu bytes and reads none, and no thread is blocked in sendto()", taken);

    int second = client_connect(&server);
    ck_assert_msg(client_gets_echo(second, "second"), "one client does not read, and another one waits");
    ck_assert_int_eq(server_blocked_in(&server, SYS_sendto), 1);
}
END_TEST

/* How many threads the server has without a client: the main one. With the
 * first thread that the server makes, a sanitizer makes one of its own. */
static int threads_without_clients(const struct server *server)
{
    int first = client_connect(server);
    ck_assert_msg(client_gets_echo(first, "hello"), "the first client got no echo");
    int threads = server_threads(server) - 1;
    if (!sanitized())
        ck_assert_int_eq(threads, 1);
    close(first);
    ck_assert_msg(eventually(server_threads(server) == threads), "the thread has not ended with its client");
    return threads;
}

START_TEST(threaded_one_each)
{
    enum { CLIENTS = 1000 };
    int clients[CLIENTS];
    need_threads(CLIENTS);
    server_choose(threaded);
    struct server server = server_start(&(struct server_setup){.descriptors = 2 * CLIENTS});
    int threads = threads_without_clients(&server);
    connect_served(&server, clients, CLIENTS);
    ck_assert_int_eq(server_threads(&server), threads + CLIENTS);
}
END_TEST

START_TEST(threaded_blocked)
{
    enum { CLIENTS = 40 };
    int clients[CLIENTS];
    struct server server = start_threaded();
    client_connect_many(&server, clients, CLIENTS);
    ck_assert_msg(eventually(server_blocked_in(&server, SYS_recvfrom) == CLIENTS),
                  "%d threads are blocked in recvfrom(), not one for each of %d silent clients",
                  server_blocked_in(&server, SYS_recvfrom), CLIENTS);
    ck_assert_msg(eventually(blocked_in_accept(&server) == 1), "no thread is blocked in accept()");
}
END_TEST

START_TEST(threaded_ended)
{
    enum { CLIENTS = 40 };
    int clients[CLIENTS];
    struct server server = start_threaded();
    int threads = threads_without_clients(&server);

    connect_served(&server, clients, CLIENTS);
    client_finish(clients[0]); /* one that takes its leave, one that breaks off, the others just close */
    ck_assert_msg(client_ending(clients[0]) == ENDED,
                  "a client sent its FIN, and the server did not close the connection");
    ck_assert_msg(eventually(server_threads(&server) == threads + CLIENTS - 1),
                  "one of %d clients has left, and %d threads are there", CLIENTS, server_threads(&server));
    client_reset(clients[1]);
    ck_assert_msg(eventually(server_threads(&server) == threads + CLIENTS - 2),
                  "two of %d clients have left, and %d threads are there", CLIENTS, server_threads(&server));
    close_all(clients + 2, CLIENTS - 2);
    ck_assert_msg(eventually(server_threads(&server) == threads),
                  "all clients have left, and %d threads are there instead of %d", server_threads(&server),
                  threads);
}
END_TEST

/* Bytes of address space in use: VmSize. */
static size_t address_space(const struct server *server)
{
    char path[64];
    unsigned long pages;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)server->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL || fscanf(file, "%lu", &pages) != 1)
        tap_skip("%s cannot be read", path);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* glibc reserves 64 MiB of addresses for each heap, and makes one for a few
 * threads. With one for all, what is left are the stacks. */
static struct server start_with_one_heap(void)
{
    if (sanitized())
        tap_skip("a sanitizer has its own memory, many times that of the server");
    setenv("MALLOC_ARENA_MAX", "1", 1);
    return start_threaded();
}

START_TEST(threaded_small_stack)
{
    enum { CLIENTS = 100, MOST_KIB = 256 };
    int clients[CLIENTS];
    struct server server = start_with_one_heap();
    size_t before = address_space(&server);
    size_t resident = server_resident(&server);

    connect_served(&server, clients, CLIENTS);
    size_t each = (address_space(&server) - before) / CLIENTS / 1024;
    size_t used = server_resident(&server) - resident;
    printf("# threaded: a thread takes %zu KiB of addresses, and %zu KiB of memory\n", each,
           used / CLIENTS / 1024);
    fflush(stdout);
    ck_assert_msg(each <= MOST_KIB, "each thread takes %zu KiB of address space, more than %d KiB", each,
                  MOST_KIB);
}
END_TEST

START_TEST(threaded_no_stack_left)
{
    enum { CLIENTS = 200, ROUNDS = 6 };
    int clients[CLIENTS];
    struct server server = start_with_one_heap();
    int threads = server_threads(&server);
    size_t before = 0;
    size_t after = 0;

    for (int round = 0; round < ROUNDS; round++) {
        connect_served(&server, clients, CLIENTS);
        close_all(clients, CLIENTS);
        ck_assert_msg(eventually(server_threads(&server) == threads),
                      "all clients have left, and %d threads are there", server_threads(&server));
        after = address_space(&server);
        if (round == 0) /* the C library keeps some stacks for the threads to come */
            before = after;
    }
    size_t grown = after > before ? (after - before) / 1024 : 0;
    ck_assert_msg(grown < (size_t)CLIENTS * 64,
                  "%d threads have ended, and %zu KiB of address space are gone", (ROUNDS - 1) * CLIENTS,
                  grown);
}
END_TEST

/* The signals that a thread blocks, as a set of bits; bit 0 is signal 1. */
static unsigned long long blocked_signals(const struct server *server, const char *thread)
{
    char path[320];
    char line[256];
    unsigned long long set = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%s/status", (int)server->pid, thread);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        ck_abort_msg("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "SigBlk: %llx", &set);
    fclose(file);
    return set;
}

/* Whether the main thread blocks none of these signals, and every other thread
 * all of them. wrong: the thread for which it is not so, and what it blocks. */
struct mask {
    int thread;
    unsigned long long blocked;
};

static bool only_main_takes(const struct server *server, unsigned long long signals, struct mask *wrong)
{
    char path[64];
    bool right = true;
    snprintf(path, sizeof path, "/proc/%d/task", (int)server->pid);
    DIR *threads = opendir(path);
    if (threads == NULL)
        tap_skip("%s: %s", path, strerror(errno));
    for (const struct dirent *thread; right && (thread = readdir(threads)) != NULL;) {
        if (thread->d_name[0] == '.')
            continue;
        *wrong = (struct mask){atoi(thread->d_name), blocked_signals(server, thread->d_name) & signals};
        right = wrong->blocked == (wrong->thread == (int)server->pid ? 0 : signals);
    }
    closedir(threads);
    return right;
}

START_TEST(threaded_signals)
{
    enum { CLIENTS = 20 };
    const unsigned long long stops = 1ULL << (SIGTERM - 1) | 1ULL << (SIGINT - 1) | 1ULL << (SIGALRM - 1);
    int clients[CLIENTS];
    struct mask wrong;
    struct server server = start_threaded();
    connect_served(&server, clients, CLIENTS);

    /* The main thread may not yet have set its mask back after the last client. */
    ck_assert_msg(
        eventually(only_main_takes(&server, stops, &wrong)),
        "of SIGINT, SIGALRM and SIGTERM (%#llx), %s blocks %#llx: SigBlk in /proc/%d/task/%d/status", stops,
        wrong.thread == (int)server.pid ? "the main thread" : "a client's thread", wrong.blocked,
        (int)server.pid, wrong.thread);
}
END_TEST

START_TEST(threaded_stop)
{
    enum { SILENT = 100 };
    int silent[SILENT];
    struct server server = start_threaded();
    connect_served(&server, silent, SILENT);
    int unread_client = client_connect(&server);
    client_flood(unread_client, 0);
    ck_assert_msg(eventually(server_blocked_in(&server, SYS_recvfrom) == SILENT &&
                             server_blocked_in(&server, SYS_sendto) == 1),
                  "not every thread is blocked");

    kill(server.pid, SIGTERM);
    for (size_t i = 0; i < SILENT; i++)
        ck_assert_msg(client_ending(silent[i]) == ENDED, "silent client %zu of %d was not closed", i + 1,
                      SILENT);
    /* The one that does not read has a few seconds of grace, for itself alone. */
    ck_assert_msg(server_alive(&server) && server_blocked_in(&server, SYS_sendto) == 1,
                  "the silent clients were closed only after the one that does not read");
    ck_assert_int_eq(server_wait(&server), 0);
}
END_TEST

START_TEST(threaded_no_thread)
{
    server_choose(threaded);
    struct server server = server_start(&(struct server_setup){.faults = "pthread_create:2=EAGAIN"});
    int first = client_connect(&server);
    ck_assert_msg(client_gets_echo(first, "first"), "the first client got no echo");

    int second = client_connect(&server);
    ck_assert_msg(client_ending(second) != STILL_OPEN,
                  "pthread_create() failed for the second client, and its connection is still open");
    close(second);
    ck_assert_msg(client_gets_echo(first, "first"), "the first client is not served any more");
    ck_assert_uint_eq(server_failures(&server, "pthread_create"), 1);
    int third = client_connect(&server);
    ck_assert_msg(client_gets_echo(third, "third"), "the third client got no echo");
}
END_TEST

/* What START_TEST defines is no constant expression: so the table is made here. */
int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        {"iterative: a second client waits while the first is silent", iterative_silent,
         "A limit of this model. The kernel connects the second client, and keeps its bytes; but the one\n"
         "thread is blocked in recvfrom() for the first. When the first ends, the second is served.",
         "The server leaves its first client before the client has left: an echo of one message is not\n"
         "the end of a conversation. Only recv() returning 0 is.",
         THE_IDEA},
        {"iterative: without a client, it is blocked in accept", iterative_in_accept,
         "accept() waits until somebody comes; /proc/PID/syscall shows the thread in it. After a client\n"
         "has gone, the server waits in accept() for the next.",
         "After serving a client the loop does not come back to accept(); or the listening socket does not "
         "block.",
         THE_API},
        {"iterative: while its client is silent, it is blocked in recvfrom", iterative_in_recv,
         "recv() waits until the client says something. The kernel calls it recvfrom, and shows the\n"
         "thread asleep in it.",
         "recv() was told not to wait (MSG_DONTWAIT, O_NONBLOCK, SO_RCVTIMEO), and the server does "
         "something\n"
         "else meanwhile.",
         THE_API},
        {"iterative: a client that does not read blocks it in sendto", iterative_in_send,
         "A limit of this model. send() waits until the client makes room by reading; whoever comes next\n"
         "waits with the server.",
         "send() was told not to wait, or bytes are kept somewhere without a bound.", THE_IDEA},
        {"iterative: one thread serves 50 clients, one after the other", iterative_one_thread,
         "All 50 are connected, and all have sent something. There is one answer at a time, and no other\n"
         "before that client has left.",
         "A process or a thread is started for each client: that is another model.", THE_IDEA},
        {"threaded: a second client does not wait while the first is silent", threaded_silent,
         "The thread of the first client waits for it; the second has a thread of its own.",
         "A thread is waited for (pthread_join) before the next client is accepted, or one lock is held\n"
         "while a client is served.",
         THE_IDEA},
        {"threaded: a client that does not read delays nobody else", threaded_unread,
         "The thread of that client is blocked in sendto(); the others go on.",
         "One lock is held while a client is served, or the main thread itself sends.", THE_IDEA},
        {"threaded: 1,000 clients make 1,001 threads", threaded_one_each,
         "The main thread accepts; each client is served by a thread of its own, and all are there at once.",
         "A fixed number of threads or of clients; or a thread which cannot be made is not noticed.",
         THE_IDEA},
        {"threaded: each thread is blocked in recvfrom, the main thread in accept", threaded_blocked,
         "With 40 silent clients the kernel shows 40 threads asleep in recvfrom(), and one in accept().",
         "recv() does not wait, or some thread waits for a lock instead of its client.", THE_API},
        {"threaded: a thread ends with its client", threaded_ended,
         "Whether the client sends its FIN, resets or closes: its thread ends, and at last the main thread\n"
         "is alone.",
         "The thread's loop does not end when recv() returns 0, or not when it returns -1.", THE_SERVER},
        {"threaded: a stack is small", threaded_small_stack,
         "A thread of this server needs a buffer of 16 KiB and little else, so its stack is 128 KiB.",
         "Without pthread_attr_setstacksize() a stack takes 8 MiB of addresses (ulimit -s); 10,000 of them\n"
         "are 80 GiB, more than many systems grant.",
         THE_SERVER},
        {"threaded: a thread that has ended leaves no stack behind", threaded_no_stack_left,
         "1,000 threads that have ended leave the address space as large as it was.",
         "A thread that is neither joined nor detached keeps its stack for ever, since somebody might still\n"
         "ask for its result. top shows VIRT growing.",
         THE_SERVER},
        {"threaded: only the main thread takes the signals that stop it", threaded_signals,
         "Each client's thread blocks SIGTERM, SIGINT and SIGALRM, and the main thread none: a signal to\n"
         "the process wakes the thread that waits in accept().",
         "A thread inherits its mask from the one that makes it: block before pthread_create(), and set\n"
         "the mask back after it.",
         THE_SERVER},
        {"threaded: a stop wakes every blocked thread", threaded_stop,
         "SIGTERM closes 100 silent clients at once. The one that does not read has a few seconds, then\n"
         "it is closed too, and the server exits with status 0.",
         "Threads are woken only once, and one that goes back into send() stays there; or one after the\n"
         "other, so that the slowest delays the rest.",
         THE_SERVER},
        {"threaded: when no thread can be made, that client is closed and the others go on",
         threaded_no_thread,
         "pthread_create() gives EAGAIN when a limit is reached. That client's connection is closed, so "
         "that\n"
         "it knows; those inside and those who come later are served.",
         "The result of pthread_create() is not checked, the descriptor leaks, or the error ends the server.",
         THE_SERVER},
    };

    if (argc > 1)
        iterative = argv[1];
    if (argc > 2)
        threaded = argv[2];
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
