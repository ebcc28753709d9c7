/* floor.c - the cheapest echo there can be here: recv and send, and nothing else.
 *
 * It is told how many clients will come and how much each sends at a time, so
 * it never has to find out who is ready: it serves all in turn, in the order in
 * which they came. The load generator sends in the same order. So nearly every
 * recv finds its bytes; one that does not waits for them, and is not called
 * again. No call is in vain, and none asks who is ready. How often a recv waited
 * is in the results, as for every server: about once for each time that all
 * clients have been served. It is a measure, not a server: a client that stays
 * silent stops it.
 *
 * Usage: floor [CLIENTS [BYTES [EVERY]]] [OPTION]...
 *   CLIENTS  accept so many, then begin (1)
 *   BYTES    one turn of one client: message size times pipelining (64)
 *   EVERY    only each EVERYth client speaks; the others are held, and never looked at (1)
 * The options are those of the servers. Needs any POSIX system.
 * Try: ./floor 2 --port 7007, then nc 127.0.0.1 7007 in two terminals */
#define _POSIX_C_SOURCE 200809L

#include "net.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BUFFER_SIZE = 64 * 1024 };

static char buffer[BUFFER_SIZE];

/* A client that ends, or is lost, ends the floor: the measurement is over. */
static size_t checked(ssize_t result, const char *what)
{
    if (result == 0 || (result < 0 && (errno == ECONNRESET || errno == EPIPE)))
        exit(EXIT_SUCCESS);
    if (result < 0)
        net_die(what);
    return (size_t)result;
}

/* [serve] */
/* Echoes one turn of a client: bytes bytes. */
static void serve(int fd, size_t bytes)
{
    while (bytes > 0) {
        size_t got = checked(recv(fd, buffer, bytes < BUFFER_SIZE ? bytes : BUFFER_SIZE, 0), "recv");
        for (size_t sent = 0; sent < got;)
            sent += checked(send(fd, buffer + sent, got - sent, 0), "send");
        bytes -= got;
    }
}
/* [/serve] */

/* Takes the numbers off the front of the command line. */
static void take_numbers(size_t *numbers, int count, int *argc, char ***argv)
{
    char *name = (*argv)[0];

    for (int i = 0; i<count && * argc> 1 && (*argv)[1][0] != '-'; i++) {
        char *end;
        numbers[i] = strtoul((*argv)[1], &end, 10);
        if (*end != '\0' || numbers[i] == 0) {
            fprintf(stderr, "%s: %s: not a number from 1\n", name, (*argv)[1]);
            exit(2);
        }
        (*argc)--;
        (*argv)++;
        (*argv)[0] = name;
    }
}

int main(int argc, char **argv)
{
    struct net_options options;
    size_t numbers[3] = {1, 64, 1};
    take_numbers(numbers, 3, &argc, &argv);
    net_options(&options, argc, argv,
                "recv and send on clients in turn, a measure of the least that an echo costs");
    signal(SIGPIPE, SIG_IGN);
    int listener = net_listen(&options);

    size_t speaking = 0;
    int *fds = malloc(numbers[0] * sizeof *fds);
    if (fds == NULL)
        net_die("malloc");
    for (size_t i = 0; i < numbers[0]; i++) {
        int fd = net_accept(listener);
        if (fd < 0)
            net_die("accept");
        if (i % numbers[2] == 0)
            fds[speaking++] = fd;
    }
    for (;;) {
        for (size_t i = 0; i < speaking; i++)
            serve(fds[i], numbers[1]);
    }
}
