/* net.h - the frame of every server in this book: options, the listening
 * socket, stopping, messages. What differs between the chapters is how the
 * server waits, and that is not in here. The same bytes in every chapter from
 * this one on: new are several listening sockets on one port, and warnings. */
#ifndef NET_H
#define NET_H

#include <stdbool.h>
#include <stddef.h>

/* What the command line asked for. */
struct net_options {
    const char *address; /* where to listen: an IPv4 or IPv6 address in digits */
    const char *port;    /* 0 to 65535; with 0 the kernel chooses */
    bool share;          /* set it after net_options(): net_listen_beside() will be called */
};

/* An option that this server has besides, with a value. */
struct net_option {
    const char *name;  /* without the dashes: "idle-timeout" */
    const char *help;  /* for --help: what the value is, and what it does */
    const char *value; /* the default, and then what the command line said; may be NULL */
};

/* Reads the command line into options, and into own, of count options, at most
 * NET_OPTIONS. --verbose switches net_log() on.
 * argc, argv: as main() got them. about: what this server shows, for --help.
 * Ends the program: status 0 after --help and --version, 2 after wrong use. */
enum { NET_OPTIONS = 8 };
void net_options(struct net_options *options, int argc, char **argv, const char *about,
                 struct net_option *own, size_t count);

/* Writes "program: --option value: why" to stderr, and exits with status 2. */
_Noreturn void net_wrong_use(const struct net_option *option, const char *why);

/* Prepares to be stopped: SIGTERM and SIGINT begin the stop, SIGPIPE no
 * longer ends the program. Call it before net_listen(), whose message invites
 * others to send signals. Ends the program with status 1 on an error.
 * Source: sigaction(2), alarm(2), signal-safety(7). */
void net_catch_signals(void);

/* Opens the listening socket and prints "listening on ADDRESS:PORT".
 * Returns its descriptor, in blocking mode. Ends the program on an error, with
 * status 2 where an option was wrong, else 1. Source: listen(2), tcp(7). */
int net_listen(const struct net_options *options);

/* Opens one more listening socket on the port of listener, which was opened with
 * options.share. The kernel gives each client to one of them (SO_REUSEPORT), on
 * Linux, FreeBSD and DragonFly in about equal numbers; elsewhere one may get them
 * all, and a line on stderr says so. Returns its descriptor, in blocking mode. Ends the
 * program on an error, with status 1. Source: socket(7). */
int net_listen_beside(int listener);

/* Takes the next client from the queue of the listening socket.
 * Returns its descriptor, with TCP_NODELAY set; or -1, and errno says what to do:
 *   EAGAIN  nobody waits, or the server was asked to stop
 *   EMFILE  out of descriptors or memory. Those who wait stay in the queue:
 *           try again when something may have been freed, and not at once
 * No other errno comes out of here. Source: accept(2). */
int net_accept(int listener);

/* Waits a tenth of a second, or until a signal comes. */
void net_pause(void);

/* True from the moment that the server was asked to stop. */
bool net_stopping(void);

/* True once a stop has lasted so long that clients who do not take their
 * bytes are closed all the same (3 seconds). */
bool net_overdue(void);

/* With --verbose, writes one line about descriptor fd to stderr: what happened,
 * and why if error, an errno, is not 0. Any thread may call it. */
void net_log(int fd, const char *event, int error);

/* Writes "program: text" to stderr. Any thread may call it. */
void net_warn(const char *text);

/* Writes "program: what: why" to stderr, why from errno, and exits with status 1. */
_Noreturn void net_die(const char *what);

#endif
