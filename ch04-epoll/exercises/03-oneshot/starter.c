/* Exercise 04-3, a pool of threads on one epoll: what to start from.
 *
 * A server like level.c with threads that wait at one epoll instance; so far
 * with one thread. Look for YOUR WORK: five places. */
#define _POSIX_C_SOURCE 200809L

#include "conn.h"
#include "net.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    WORKERS = 1,             /* YOUR WORK: 4, but see first what that does */
    BUFFER_SIZE = 64 * 1024, /* the most that one connection can owe */
    ACCEPTS_PER_TURN = 64,   /* so that a crowd at the door does not keep those inside waiting */
};

/* A client. An event carries its address: so it must not be freed while another
 * thread may have an event for it. */
struct client {
    struct conn conn;
    struct client *next;
    struct client *previous;
};

struct server {
    int epoll;
    int listener;
    pthread_mutex_t lock;   /* for the list, and nothing else */
    struct client *clients; /* all of them, so that a stop can find them */
};

/* Tells epoll what to watch a descriptor for: EPOLL_CTL_ADD or EPOLL_CTL_MOD.
 * who: a client; the server for the listening socket; NULL for the stop.
 * Returns 0, or -1 with errno. */
static int watch(const struct server *server, int operation, int fd, uint32_t events, void *who)
{
    struct epoll_event event = {.events = events, .data.ptr = who};
    return epoll_ctl(server->epoll, operation, fd, &event);
}

/* Takes a client out of the list, and closes its connection. */
static void drop(struct server *server, struct client *client)
{
    pthread_mutex_lock(&server->lock);
    if (client->next != NULL)
        client->next->previous = client->previous;
    if (client->previous != NULL)
        client->previous->next = client->next;
    else
        server->clients = client->next;
    pthread_mutex_unlock(&server->lock);
    conn_close(&client->conn);
    free(client);
}

/* Takes the client on fd into the server. */
static void add(struct server *server, int fd)
{
    struct client *client = malloc(sizeof *client);
    if (client == NULL || conn_open(&client->conn, fd) < 0) {
        net_log(fd, "turned away", errno);
        free(client);
        close(fd);
        return;
    }
    pthread_mutex_lock(&server->lock);
    client->previous = NULL;
    client->next = server->clients;
    if (client->next != NULL)
        client->next->previous = client;
    server->clients = client;
    pthread_mutex_unlock(&server->lock);
    /* YOUR WORK: from here on another thread may serve this client. More than one? */
    if (watch(server, EPOLL_CTL_ADD, fd, EPOLLIN, client) < 0) {
        net_log(fd, "turned away", errno);
        drop(server, client);
    }
}

/* Asks the listening socket for clients. Out of descriptors, those who wait stay
 * in its queue: this thread waits for a while, and the others go on. */
static void accept_clients(struct server *server)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = net_accept(server->listener);
        if (fd < 0) {
            if (errno == EMFILE && !net_stopping())
                net_pause();
            break;
        }
        add(server, fd);
    }
    /* YOUR WORK: and who will ask the next time? */
}

/* Gives a client its turn. YOUR WORK: for what is it watched afterwards, and from
 * when on? */
static void serve(struct server *server, struct client *client, char *buffer)
{
    enum conn_state state = conn_turn(&client->conn, buffer, BUFFER_SIZE);
    uint32_t events = state == CONN_OWING ? EPOLLOUT : EPOLLIN;
    if (state == CONN_CLOSED || watch(server, EPOLL_CTL_MOD, client->conn.fd, events, client) < 0)
        drop(server, client);
}

/* What each thread does, until the stop. */
static void *work(void *argument)
{
    struct server *server = argument;
    char buffer[BUFFER_SIZE];

    for (;;) {
        struct epoll_event event;
        int count = epoll_wait(server->epoll, &event, 1, -1);
        if (count < 0 && errno != EINTR)
            net_die("epoll_wait");
        if (count <= 0)
            continue;
        if (event.data.ptr == NULL)
            return NULL; /* the event stays: the next thread gets it, too */
        if (event.data.ptr == server)
            accept_clients(server);
        else
            serve(server, event.data.ptr, buffer);
    }
}

/* Starts the threads. The signals that stop the server must reach the main
 * thread, and no other. Returns how many there are: some may be missing. */
static int start_threads(pthread_t *threads, struct server *server)
{
    sigset_t stops;
    sigset_t before;
    int count = 0;

    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGINT);
    sigaddset(&stops, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &stops, &before);
    for (int i = 0; i < WORKERS; i++) {
        errno = pthread_create(&threads[count], NULL, work, server);
        if (errno == 0)
            count++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return count;
}

/* The threads have ended. What has already come is still echoed. */
static void finish(struct server *server)
{
    static char buffer[BUFFER_SIZE];

    while (server->clients != NULL) {
        bool moved = false;
        for (struct client *client = server->clients, *next; client != NULL; client = next) {
            next = client->next;
            enum conn_state state = conn_turn(&client->conn, buffer, BUFFER_SIZE);
            if (state == CONN_IDLE || state == CONN_CLOSED || net_overdue())
                drop(server, client);
            else
                moved |= state != CONN_OWING;
        }
        if (!moved && server->clients != NULL)
            net_pause();
    }
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "epoll, a pool of threads shares one instance");
    net_catch_signals();
    static struct server server = {.lock = PTHREAD_MUTEX_INITIALIZER};
    server.listener = net_listen(&options);
    if (set_nonblocking(server.listener) < 0)
        net_die("listening socket");

    int stop[2]; /* nobody writes into this pipe; that it is closed is the event */
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server.epoll < 0 || pipe(stop) < 0 || watch(&server, EPOLL_CTL_ADD, stop[0], EPOLLIN, NULL) < 0 ||
        watch(&server, EPOLL_CTL_ADD, server.listener, /* YOUR WORK: the same for this one */ EPOLLIN,
              &server) < 0)
        net_die("epoll");
    pthread_t threads[WORKERS];
    int count = start_threads(threads, &server);
    if (count == 0)
        net_die("pthread_create");

    while (!net_stopping())
        pause();
    close(stop[1]);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    /* Who came before the stop is served, too: a whole queue of them. */
    for (int i = 0; i < SOMAXCONN; i += ACCEPTS_PER_TURN)
        accept_clients(&server);
    close(server.listener);
    finish(&server);
    close(stop[0]);
    close(server.epoll);
    return EXIT_SUCCESS;
}
