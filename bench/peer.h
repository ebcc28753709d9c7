/* peer.h - what the peers share. They take net.c of chapter 2 for the command
 * line and the listening socket, so that these are the same as the servers'. A
 * peer is ended by its signal at once: it has nobody to be gentle with. */
#ifndef PEER_H
#define PEER_H

#ifdef __cplusplus
#define _Noreturn [[noreturn]] /* how C++ spells it */
extern "C" {
#endif
#include "net.h"
#ifdef __cplusplus
}
#endif

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

enum {
    PEER_BUFFER = 64 * 1024, /* as in our servers: the most that is received at once, and owed to a client */
};

/* Reads the command line, which may begin with --nagle, and listens.
 * Returns the listening socket; nodelay says whether to set TCP_NODELAY. */
static inline int peer_listen(int argc, char **argv, const char *about, bool *nodelay)
{
    struct net_options options;

    *nodelay = !(argc > 1 && strcmp(argv[1], "--nagle") == 0);
    if (!*nodelay) {
        argv[1] = argv[0];
        argc--;
        argv++;
    }
    net_options(&options, argc, argv, about);
    signal(SIGPIPE, SIG_IGN);
    return net_listen(&options);
}

/* Has small answers sent at once. An error means that the client has gone. */
static inline void peer_nodelay(int fd)
{
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

#endif
