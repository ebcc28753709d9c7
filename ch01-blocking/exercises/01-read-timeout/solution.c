/* Exercise 01-1, read timeout: a solution.
 *
 * SO_RCVTIMEO gives the wait of recv() an end. The thread still sleeps in the
 * kernel, and for no longer than TIMEOUT_MS at a time. */
#define _DEFAULT_SOURCE /* MSG_DONTWAIT, which every Unix has, but POSIX.1-2008 has not */
#define _NETBSD_SOURCE

#include "net.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* A client that is silent for so many milliseconds is closed. The compiler may
 * be told another number: -DTIMEOUT_MS=1100. */
#ifndef TIMEOUT_MS
#define TIMEOUT_MS 5000
#endif

/* Enough for echo()'s buffer and the calls below it, and no less than any
 * system's PTHREAD_STACK_MIN. The default of 8 MiB is address space only, but
 * 10,000 times that is more than many systems let a process have. */
enum { STACK_SIZE = 128 * 1024 };

/* A client and its thread. It belongs to the thread, which frees it. */
struct client {
    int fd;
    pthread_t thread;
    struct client *next;
    struct client *previous;
};

/* All clients, so that a stop can wake their threads. */
static struct client *clients;
static pthread_mutex_t clients_lock = PTHREAD_MUTEX_INITIALIZER;

/* Sends all size bytes of data; waits while the client is slow to read.
 * Returns 0, or -1 with errno. */
static int send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, 0);
        if (sent < 0 && errno != EINTR)
            return -1;
        if (sent > 0) { /* a short send is no error: the rest follows */
            data += sent;
            size -= (size_t)sent;
        }
        if (size > 0 && net_overdue()) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
    return 0;
}

/* Lets recv() on fd end with EAGAIN after TIMEOUT_MS. Returns 0, or -1 with errno. */
static int limit_wait(int fd)
{
    const struct timeval limit = {
        .tv_sec = TIMEOUT_MS / 1000,
        .tv_usec = TIMEOUT_MS % 1000 * 1000, /* less than a second, or the kernel refuses it */
    };
    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

/* Echoes until the client has sent its FIN, or is silent for too long, or is
 * lost, or the server stops: then what has already come is still echoed, and
 * nothing more waited for. Returns 0, or -1 with errno. */
static int echo(int fd)
{
    char buffer[16384];

    while (!net_overdue()) {
        ssize_t got = recv(fd, buffer, sizeof buffer, net_stopping() ? MSG_DONTWAIT : 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!net_stopping()) /* in a stop, recv() was told not to wait at all */
                net_log(fd, "timed out", 0);
            return 0;
        }
        if (got <= 0)
            return (int)got;
        if (send_all(fd, buffer, (size_t)got) < 0)
            return -1;
    }
    return 0;
}

static void *serve(void *argument)
{
    struct client *client = argument;

    if (limit_wait(client->fd) < 0 || echo(client->fd) < 0)
        net_log(client->fd, "lost", errno);
    else
        net_log(client->fd, "served", 0);
    close(client->fd);

    pthread_mutex_lock(&clients_lock);
    if (client->previous != NULL)
        client->previous->next = client->next;
    else
        clients = client->next;
    if (client->next != NULL)
        client->next->previous = client->previous;
    pthread_mutex_unlock(&clients_lock);
    free(client);
    return NULL;
}

/* Starts a thread for the client on fd. It is detached: nobody wants its
 * result, and its stack shall go when it ends, not when somebody joins it.
 * Returns 0, or an errno: no memory, or one thread too many. */
static int start_thread(int fd, const pthread_attr_t *detached)
{
    sigset_t stop_signals;
    sigset_t before;
    struct client *client = malloc(sizeof *client);
    if (client == NULL)
        return ENOMEM;

    /* A new thread inherits the mask. The signals that stop the server must
     * reach the main thread, which waits in accept(), and no other. */
    sigemptyset(&stop_signals);
    sigaddset(&stop_signals, SIGTERM);
    sigaddset(&stop_signals, SIGINT);
    sigaddset(&stop_signals, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &stop_signals, &before);
    pthread_mutex_lock(&clients_lock); /* so that it cannot end before it is in the list */
    *client = (struct client){.fd = fd, .next = clients};
    int error = pthread_create(&client->thread, detached, serve, client);
    if (error == 0) {
        if (clients != NULL)
            clients->previous = client;
        clients = client;
    } else {
        free(client);
    }
    pthread_mutex_unlock(&clients_lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static void woken(int signal_number)
{
    (void)signal_number; /* that the call ends with EINTR is all that is wanted */
}

/* Wakes every thread out of recv() or send(), until all have ended. Again and
 * again, since a signal that comes just before the call does not end it. */
static void wake_threads(void)
{
    pthread_mutex_lock(&clients_lock);
    while (clients != NULL) {
        for (struct client *client = clients; client != NULL; client = client->next)
            pthread_kill(client->thread, SIGUSR1);
        pthread_mutex_unlock(&clients_lock);
        net_pause();
        pthread_mutex_lock(&clients_lock);
    }
    pthread_mutex_unlock(&clients_lock);
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "blocking, a thread for each client");
    net_catch_signals();

    struct sigaction action = {.sa_handler = woken};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGUSR1, &action, NULL) < 0)
        net_die("sigaction");

    pthread_attr_t detached;
    errno = pthread_attr_init(&detached);
    if (errno == 0)
        errno = pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    if (errno == 0)
        errno = pthread_attr_setstacksize(&detached, STACK_SIZE);
    if (errno != 0)
        net_die("thread attributes");

    int listener = net_listen(&options);
    while (!net_stopping()) {
        int fd = net_accept(listener);
        if (fd < 0 && errno == EMFILE)
            net_pause();
        if (fd < 0)
            continue;
        int error = start_thread(fd, &detached);
        if (error != 0) { /* this client is turned away, and the others go on */
            net_log(fd, "no thread", error);
            close(fd);
        }
    }
    close(listener);
    wake_threads();
    pthread_attr_destroy(&detached);
    return EXIT_SUCCESS;
}
