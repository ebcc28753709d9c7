/* tour.h - what the tour needs to start servers and to play their clients.
 * It does not use the harness of the tests, so that a compiler is enough. */
#ifndef TOUR_H
#define TOUR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- Time: a deadline is a value of now_ns(), which only grows ---- */

int64_t now_ns(void);
int64_t after_ms(int milliseconds);
int left_ms(int64_t deadline); /* 0 when it is over */

/* ---- Processes: none is left, however the tour ends ---- */

/* One of each at a time: the server, and strace, attached to it. */
enum child { SERVER, TRACER, CHILDREN };

/* Arranges that a signal that ends the tour ends its children first. */
void children_guard(void);

/* Prints "tour: what: why" from errno, ends all children, and exits. */
_Noreturn void die(const char *what);

/* Starts a program, with descriptor target (standard output or error) as a
 * pipe. Returns the end to read from. A program that cannot be run ends with
 * status NOT_RUN. */
int child_start(enum child which, const char *const arguments[], int target);
enum { NOT_RUN = 127 };

pid_t child_pid(enum child which);

/* Returns whether the child has ended or does so within that time; then
 * *status is as waitpid() gives it. */
bool child_ended(enum child which, int milliseconds, int *status);

/* Sends the signal, waits, and returns whether the child has ended; if not in
 * that time, it is killed. *status as above. */
bool child_end(enum child which, int signal_number, int milliseconds, int *status);

/* Reads what a child says, until the word or (with NULL) the end, and returns
 * whether that came in time. Adds to the string text, which has room for size
 * bytes. */
bool read_until(int fd, const char *word, char *text, size_t size, int milliseconds);

/* ---- Clients ---- */

enum { MESSAGE_SIZE = 64, MAX_CLIENTS = 100, MAX_ANSWERS = 1 << 20 };

struct client {
    int fd;          /* -1: it could not connect, or was lost, or has left */
    bool waiting;    /* it has asked, and the answer is not complete */
    bool answered;   /* at least once in this drive */
    size_t received; /* bytes of the answer */
    int64_t asked_ns;
    char message[MESSAGE_SIZE]; /* differs between clients, so that a mix-up is found */
};

/* Connects count clients, at once, within that time. */
void clients_connect(struct client *clients, size_t count, uint16_t port, int milliseconds);

/* Every client sends its message. */
void clients_ask(struct client *clients, size_t count);

void clients_close(struct client *clients, size_t count);

struct drive {
    size_t answers;
    size_t answered; /* clients that got an answer */
    double seconds;
    uint32_t *latency_ns; /* of each answer; overwritten by the next drive */
};

/* Takes the answers to clients that have asked, until the time (below 4 s) is
 * over, or until there are that many, at most MAX_ANSWERS. Again: a client that
 * has been answered asks again at once. A question that is open in the end
 * stays open, and the next drive goes on with it. */
struct drive drive(struct client *clients, size_t count, int milliseconds, size_t limit, bool again);

/* Sends until the server and the kernel take no more, within that time and up
 * to FLOOD_MAX bytes, and reads nothing. */
void client_flood(const struct client *client, int milliseconds);
enum { FLOOD_MAX = 64 << 20 };

#endif
