/* harness.h - starts a server, watches it from outside, and plays its clients.
 *
 * Every function here ends the calling test with an explanation when it cannot
 * do what it says, so that a test reads as a story without error handling.
 * Waiting is always for an observed state, with a deadline that grows with
 * CK_TIMEOUT_MULTIPLIER. Watching uses Linux' /proc; elsewhere those functions
 * skip the test. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- the server under test ---- */

struct server {
    pid_t pid;
    uint16_t port;
    char address[64]; /* "127.0.0.1", "::1" */
    char line[128];   /* what it printed when it was ready */
    int errors;       /* a file without a name that its stderr goes to */
    bool foreign;     /* started from SERVER: promises less, see server_start */
};

/* How to start it; zero-initialised, everything is as a user would have it. */
struct server_setup {
    const char *arguments[8]; /* after --address and --port, NULL-terminated */
    const char *address;      /* NULL: 127.0.0.1 */
    unsigned descriptors;     /* RLIMIT_NOFILE, 0: as it is */
    const char *faults;       /* for the fault injector, see inject.c; NULL: none */
    const char *command;      /* NULL: the server named by server_choose() */
};

/* Says which server server_start() starts: the path of a program that follows
 * the contract's command line, or, when it contains "{port}" or a space, a shell
 * command of any kind: {port} is replaced by a free port. */
void server_choose(const char *command);

/* Options, four words at most, that every start of a server of ours gets before those of its setup. */
void server_options(const char *options);

/* Says that the chosen server is a program for Windows, under Wine. SIGTERM ends Wine, and so such a server
 * is sent SIGINT instead, which becomes a console control event. Tests that need the fault injector, or a
 * limit of descriptors, are skipped. */
void server_under_wine(void);

/* True when the chosen server was given as a shell command: it need not know
 * our options nor print a line when it is ready. */
bool server_is_foreign(void);

/* Starts it, and returns when it takes connections. setup may be NULL.
 * The server is ended with the test, however the test ends. */
struct server server_start(const struct server_setup *setup);

/* Sends the signal, waits until the process has ended, and returns its status
 * as a shell gives it: the exit status, or 128 plus the signal that ended it. */
int server_stop(struct server *server, int signal_number);

/* Stops it with SIGTERM; its status must be 0. */
void assert_stops(struct server *server);

/* Sends the signal, and does not wait. */
void server_signal(const struct server *server, int signal_number);

/* Waits until the server has ended by itself, and returns its status as above. */
int server_wait(struct server *server);

/* Stops the process with SIGSTOP, and returns when none of its threads runs. The
 * kernel still connects clients for it. SIGCONT lets it go on. */
void server_pause(const struct server *server);

/* True while the process lives. */
bool server_alive(const struct server *server);

/* What it has written to stderr so far, valid until the next call. */
const char *server_errors(const struct server *server);

/* Runs the chosen program to its end, without waiting for it to be ready: for
 * wrong use. Up to 4 KiB of each stream are kept. */
struct run {
    int status; /* as server_stop() gives it */
    char out[4096];
    char err[4096];
};
struct run run_program(const char *const arguments[]);

/* Has a system call fail with this error, here and in all servers that are started from now on, as a
 * container's filter does; skips the test where that cannot be had. */
void forbid_call(long system_call, int error);

/* ---- what can be seen of it from outside ---- */

int server_threads(const struct server *server);
int server_descriptors(const struct server *server);

/* By how many the two counts of a comparison may differ without a reason in the server: Wine's own process
 * opens a descriptor for a socket when it needs one, and may close it while the socket is open. Else 0. */
int server_descriptors_uncertain(void);
uint64_t server_cpu_ns(const struct server *server); /* user and system time of all its threads */

/* The time for which its threads have used a processor, or waited for one that
 * others used. Threads that have ended are not counted. */
uint64_t server_cpu_wanted_ns(const struct server *server);
size_t server_resident(const struct server *server); /* bytes of memory in use */

/* How many of its threads are blocked in the system call with this number
 * (SYS_recvfrom, from <sys/syscall.h>). */
int server_blocked_in(const struct server *server, long system_call);

/* True if all its threads sleep, in a call that waits. */
bool server_asleep(const struct server *server);

/* Raises or lowers the server's limit on descriptors while it runs. */
void server_limit_descriptors(const struct server *server, unsigned limit);

/* How often it has called a function, counted by the fault injector: start it
 * with faults not NULL ("" counts only). */
uint64_t server_calls(const struct server *server, const char *function);

/* How many of these calls failed, whatever the reason. */
uint64_t server_failures(const struct server *server, const char *function);

/* How many of these calls the fault injector made fail, or cut short. */
uint64_t server_faults(const struct server *server, const char *function);

/* ---- clients ---- */

/* Connects; the descriptor is in blocking mode, and each call on it is limited
 * by the deadline. */
int client_connect(const struct server *server);

/* Whether a connection can be made at all. */
bool client_can_connect(const struct server *server);

/* Connects count clients at once, each to descriptors[i]. */
void client_connect_many(const struct server *server, int *descriptors, size_t count);

/* Sends all of data. */
void client_send(int fd, const void *data, size_t size);

/* Receives until size bytes, or the end, or the deadline.
 * Returns how many came. */
size_t client_receive(int fd, void *data, size_t size);

/* Sends total bytes of a pattern and receives at the same time; checks every
 * byte that comes back. piece: how many to send and receive at most in one call.
 * Returns how many bytes came back right before the end, a wrong byte, or the deadline. */
size_t client_echo(int fd, size_t total, size_t piece, unsigned seed);

/* The pattern of client_echo: byte number position of the stream of this seed. */
unsigned char pattern(unsigned seed, size_t position);

/* Sends text, and returns whether it comes back within the deadline. */
bool client_gets_echo(int fd, const char *text);

/* A new client that has been answered once: the server has taken it in. */
int served_client(const struct server *server);

/* Whether a client gets an echo; false, too, if it has been closed. */
bool talks(int client);

/* Sends the pattern of this seed until the server takes no more for a while,
 * and reads nothing. Returns how many bytes the server and the kernel took. */
size_t client_flood(int fd, unsigned seed);

/* Receives total bytes of the pattern of this seed, from position on. Returns how
 * many came right before the end, a wrong byte, or the deadline. */
size_t client_receive_pattern(int fd, size_t total, unsigned seed, size_t position);

void client_finish(int fd); /* sends FIN: shutdown(SHUT_WR) */
void client_reset(int fd);  /* sends RST: SO_LINGER 0 and close() */

/* How the connection ended, or that it has not, by the deadline. Data that is
 * still waiting is read and thrown away. */
enum ending { STILL_OPEN, ENDED, RESET };
enum ending client_ending(int fd);

/* True if nothing at all comes from the server in that many milliseconds. */
bool client_hears_nothing(int fd, int milliseconds);

/* ---- waiting ---- */

/* Evaluates condition every millisecond, until it is true or the deadline is
 * over. Its value is the last one seen. */
#define eventually(condition)                                        \
    __extension__({                                                  \
        struct deadline deadline_ = deadline_start();                \
        bool seen_;                                                  \
        while (!(seen_ = (condition)) && !deadline_over(&deadline_)) \
            nap();                                                   \
        seen_;                                                       \
    })

struct deadline {
    int64_t end_ms; /* on CLOCK_MONOTONIC */
};
int64_t now_ms(void);                 /* on a clock that nobody sets */
struct deadline deadline_start(void); /* 10 s, times CK_TIMEOUT_MULTIPLIER */
bool deadline_over(const struct deadline *deadline);
int deadline_left_ms(const struct deadline *deadline);
void nap(void); /* a millisecond */

/* True if the programs were built with a sanitizer, under which memory and
 * threads say nothing about the server. */
bool sanitized(void);

#endif
