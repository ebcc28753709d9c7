/* Exercise 01-3, pool of threads: a solution.
 *
 * A fixed number of threads takes clients from a queue of a fixed length. So
 * the server never grows, whoever comes; and when every worker has a silent
 * client, nobody else is served. */
#define _DEFAULT_SOURCE /* MSG_DONTWAIT, which every Unix has, but POSIX.1-2008 has not */
#define _NETBSD_SOURCE

#include "net.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Enough for echo()'s buffer and the calls below it, and no less than any
 * system's PTHREAD_STACK_MIN. The default of 8 MiB is address space only, but
 * 10,000 times that is more than many systems let a process have. */
enum { STACK_SIZE = 128 * 1024 };

enum {
    WORKERS = 4, /* threads: as many clients are served at once */
    QUEUE = 16,  /* clients that have been accepted and wait for a worker */
};

static pthread_t workers[WORKERS];

/* The queue, a ring: the first who came is the first to be served. */
static int queue[QUEUE];
static int queue_first;
static int queue_count;
static bool queue_closed;                                /* nobody will come any more */
static int working;                                      /* workers that have not ended */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for all of the above */
static pthread_cond_t queue_filled = PTHREAD_COND_INITIALIZER;
static pthread_cond_t queue_drained = PTHREAD_COND_INITIALIZER; /* by one */

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

/* Echoes until the client has sent its FIN, or is lost, or the server stops:
 * then what has already come is still echoed, and nothing more waited for.
 * Returns 0, or -1 with errno. */
static int echo(int fd)
{
    char buffer[16384];

    while (!net_overdue()) {
        ssize_t got = recv(fd, buffer, sizeof buffer, net_stopping() ? MSG_DONTWAIT : 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (got <= 0)
            return (int)got;
        if (send_all(fd, buffer, (size_t)got) < 0)
            return -1;
    }
    return 0;
}

static void serve(int fd)
{
    if (echo(fd) < 0)
        net_log(fd, "lost", errno);
    else
        net_log(fd, "served", 0);
    close(fd);
}

/* Waits until the queue has room, or the server stops. The signal that stops it
 * does not end pthread_cond_wait(): so look again now and then. */
static void wait_for_room(void)
{
    pthread_mutex_lock(&lock);
    while (queue_count == QUEUE && !net_stopping()) {
        struct timespec soon;

        clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_sec += 1;
        pthread_cond_timedwait(&queue_drained, &lock, &soon);
    }
    pthread_mutex_unlock(&lock);
}

/* Puts a client into the queue. Only the main thread does, so the room that it
 * has waited for is still there. */
static void put(int fd)
{
    pthread_mutex_lock(&lock);
    queue[(queue_first + queue_count) % QUEUE] = fd;
    queue_count++;
    pthread_cond_signal(&queue_filled);
    pthread_mutex_unlock(&lock);
}

/* Takes the client who has waited longest, and waits until there is one.
 * Returns its descriptor, or -1: nobody is there, and nobody will come. */
static int take(void)
{
    int fd = -1;

    pthread_mutex_lock(&lock);
    while (queue_count == 0 && !queue_closed)
        pthread_cond_wait(&queue_filled, &lock);
    if (queue_count > 0) {
        fd = queue[queue_first];
        queue_first = (queue_first + 1) % QUEUE;
        queue_count--;
        pthread_cond_signal(&queue_drained);
    } else {
        working--;
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

/* A worker: takes client after client, until the server stops and nobody waits any more. */
static void *work(void *unused)
{
    int fd;

    while ((fd = take()) >= 0)
        serve(fd);
    return unused;
}

/* Starts the workers. They do not take the signals that stop the server: those
 * must reach the main thread, which waits in accept(). */
static void start_workers(void)
{
    sigset_t stop_signals;
    sigset_t before;
    pthread_attr_t small;

    sigemptyset(&stop_signals);
    sigaddset(&stop_signals, SIGTERM);
    sigaddset(&stop_signals, SIGINT);
    sigaddset(&stop_signals, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &stop_signals, &before);
    errno = pthread_attr_init(&small);
    if (errno == 0)
        errno = pthread_attr_setstacksize(&small, STACK_SIZE);
    working = WORKERS;
    for (int i = 0; i < WORKERS && errno == 0; i++)
        errno = pthread_create(&workers[i], &small, work, NULL);
    if (errno != 0)
        net_die("threads"); /* before the first client: an error of start-up */
    pthread_attr_destroy(&small);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void woken(int signal_number)
{
    (void)signal_number; /* that the call ends with EINTR is all that is wanted */
}

/* Lets the workers serve those who wait, and waits until all have ended. Those
 * in recv() or send() are woken again and again, since a signal that comes just
 * before the call does not end it. */
static void stop_workers(void)
{
    pthread_mutex_lock(&lock);
    queue_closed = true;
    pthread_cond_broadcast(&queue_filled);
    while (working > 0) {
        for (int i = 0; i < WORKERS; i++)
            pthread_kill(workers[i], SIGUSR1);
        pthread_mutex_unlock(&lock);
        net_pause();
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "blocking, a pool of threads");
    net_catch_signals();

    struct sigaction action = {.sa_handler = woken};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGUSR1, &action, NULL) < 0)
        net_die("sigaction");

    int listener = net_listen(&options);
    start_workers();
    while (!net_stopping()) {
        int fd = net_accept(listener);
        if (fd >= 0)
            put(fd);
        else if (errno == EMFILE)
            net_pause();
        wait_for_room();
    }
    close(listener);
    stop_workers();
    return EXIT_SUCCESS;
}
