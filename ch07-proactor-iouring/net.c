/* net.c - the frame of every server in this book; net.h says how it is used.
 * Needs POSIX.1-2008, and getopt_long(), which every Unix has. */
#define _DEFAULT_SOURCE /* on Linux; the next two elsewhere: for SO_REUSEPORT, which POSIX does not know */
#define _NETBSD_SOURCE
#define _DARWIN_C_SOURCE

#include "net.h"

#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define VERSION "1.0"

/* A stop waits this long for clients that are slow to take their bytes. */
enum { GRACE_SECONDS = 3 };

/* An IPv6 address in digits, with the name of its interface, fits. */
enum { ADDRESS_SIZE = 64 };

static const char *program = "server";
static bool verbose;

/* Seconds since the stop began, counted from 1; 0 while there is none. */
static atomic_int stop_ticks;

/* [messages] */
void net_log(int fd, const char *event, int error)
{
    char why[128] = "";

    if (!verbose)
        return;
    if (error != 0 && strerror_r(error, why, sizeof why) != 0)
        snprintf(why, sizeof why, "error %d", error);
    fprintf(stderr, "%s: descriptor %d: %s%s%s\n", program, fd, event, *why ? ": " : "", why);
}

void net_warn(const char *text)
{
    fprintf(stderr, "%s: %s\n", program, text);
}

static _Noreturn void fail(int status, const char *what, const char *value, const char *why)
{
    fprintf(stderr, "%s: %s%s%s: %s\n", program, what, *value ? " " : "", value, why);
    exit(status);
}

void net_die(const char *what)
{
    fail(EXIT_FAILURE, what, "", strerror(errno));
}
/* [/messages] */

/* [options] */
void net_wrong_use(const struct net_option *option, const char *why)
{
    char name[64];
    snprintf(name, sizeof name, "--%s", option->name);
    fail(2, name, option->value, why);
}

static void print_help(const char *about, const struct net_option *own, size_t count)
{
    printf("Usage: %s [OPTION]...\n"
           "%s.\n\n"
           "  --address ADDR  listen on this IPv4 or IPv6 address (127.0.0.1)\n"
           "  --port PORT     listen on this port; 0 lets the kernel choose (7007)\n"
           "  --verbose       write a line to stderr for each event\n"
           "  --help          print this and exit\n"
           "  --version       print the version and exit\n",
           program, about);
    for (size_t i = 0; i < count; i++)
        printf("  --%s %s\n", own[i].name, own[i].help);
}

static bool is_port(const char *text)
{
    char *end;
    errno = 0;
    long port = strtol(text, &end, 10);
    return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && port <= 65535;
}

void net_options(struct net_options *options, int argc, char **argv, const char *about,
                 struct net_option *own, size_t count)
{
    enum { COMMON = 5, OWN = 256 }; /* an option of its own is OWN plus its place */
    struct option known[COMMON + NET_OPTIONS + 1] = {
        {"address", required_argument, NULL, 'a'}, {"port", required_argument, NULL, 'p'},
        {"verbose", no_argument, NULL, 'v'},       {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
    };
    for (size_t i = 0; i < count; i++)
        known[COMMON + i] = (struct option){own[i].name, required_argument, NULL, OWN + (int)i};

    char *slash = strrchr(argv[0], '/');
    if (slash != NULL)
        argv[0] = slash + 1; /* getopt_long() names the program, too */
    program = argv[0];
    *options = (struct net_options){.address = "127.0.0.1", .port = "7007"};

    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'a':
            options->address = optarg;
            break;
        case 'p':
            if (!is_port(optarg))
                fail(2, "--port", optarg, "not a number from 0 to 65535");
            options->port = optarg;
            break;
        case 'v':
            verbose = true;
            break;
        case 'h':
            print_help(about, own, count);
            exit(EXIT_SUCCESS);
        case 'V':
            printf("%s (Seven Servers) %s\n", program, VERSION);
            exit(EXIT_SUCCESS);
        default:
            if (option < OWN) /* getopt_long() has said what is wrong */
                exit(2);
            own[option - OWN].value = optarg;
        }
    }
    if (optind < argc)
        fail(2, "unexpected argument", argv[optind], "try --help");
}
/* [/options] */

/* [signals] */
/* A signal that comes just before a blocking call does not interrupt it, and
 * the call would wait for ever. So the handler asks for a SIGALRM a second
 * later, and again, until the program has ended: one of them will hit. The
 * same ticks count how long the stop has lasted; to ask for it twice does not
 * shorten the time that clients have. */
static void on_stop(int signal_number)
{
    if (signal_number == SIGALRM || !net_stopping()) {
        atomic_fetch_add(&stop_ticks, 1);
        alarm(1);
    }
}

void net_catch_signals(void)
{
    static const int stops[] = {SIGTERM, SIGINT, SIGALRM};
    struct sigaction action = {.sa_handler = on_stop}; /* no SA_RESTART: calls shall end with EINTR */
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        if (sigaction(stops[i], &action, NULL) < 0)
            net_die("sigaction");
    }

    /* Writing to a client that has gone is an error of that connection (EPIPE),
     * not the end of the server. */
    action.sa_handler = SIG_IGN;
    if (sigaction(SIGPIPE, &action, NULL) < 0)
        net_die("sigaction");

    /* Whoever started this program may have left signals blocked. */
    if (sigprocmask(SIG_SETMASK, &action.sa_mask, NULL) < 0)
        net_die("sigprocmask");
}

bool net_stopping(void)
{
    return atomic_load(&stop_ticks) > 0;
}

bool net_overdue(void)
{
    return atomic_load(&stop_ticks) > GRACE_SECONDS;
}
/* [/signals] */

/* [listen] */
static void announce(int listener)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    char host[ADDRESS_SIZE];
    char port[sizeof "65535"];

    if (getsockname(listener, (struct sockaddr *)&bound, &size) < 0)
        net_die("getsockname");
    int error = getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
                            NI_NUMERICHOST | NI_NUMERICSERV);
    if (error != 0)
        fail(EXIT_FAILURE, "getnameinfo", "", gai_strerror(error));

    bool v6 = bound.ss_family == AF_INET6;
    printf("listening on %s%s%s:%s\n", v6 ? "[" : "", host, v6 ? "]" : "", port);
    if (fflush(stdout) != 0)
        net_die("standard output");
}

/* Opens a socket and binds it to addr, or to addr together with others. Returns -1
 * with errno if the address cannot be had; ends the program on other errors. */
static int bind_to(const struct sockaddr *addr, socklen_t size, bool share)
{
    int listener = socket(addr->sa_family, SOCK_STREAM, 0);
    if (listener < 0)
        net_die("socket");

    /* Connections of an earlier run may still be in TIME_WAIT; without this,
     * they would keep the port from a server that is started again. */
    const int on = 1;
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        net_die("SO_REUSEADDR");
#ifdef SO_REUSEPORT_LB /* FreeBSD, where the plain one does not spread clients */
    if (share && setsockopt(listener, SOL_SOCKET, SO_REUSEPORT_LB, &on, sizeof on) < 0)
        net_die("SO_REUSEPORT_LB");
#else
    if (share && setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
        net_die("SO_REUSEPORT");
#endif
    if (bind(listener, addr, size) < 0) {
        int error = errno;
        close(listener);
        errno = error;
        return -1;
    }
    return listener;
}

/* The same with a port that is to be shared. A socket that shares would bind to
 * a port that a server like this one has already, and take half of its clients:
 * so one that does not share tries first, and finds the port where 0 was asked for. */
static int bind_shared(const struct sockaddr *addr, socklen_t size)
{
    struct sockaddr_storage bound;
    socklen_t bound_size = sizeof bound;
    int alone = bind_to(addr, size, false);
    if (alone < 0)
        return -1;
    if (getsockname(alone, (struct sockaddr *)&bound, &bound_size) < 0)
        net_die("getsockname");
    close(alone);
    return bind_to((struct sockaddr *)&bound, bound_size, true);
}

int net_listen(const struct net_options *options)
{
    const struct addrinfo hints = {
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, /* never wait for a name server */
        .ai_socktype = SOCK_STREAM,
    };
    struct addrinfo *addr;
    int error = getaddrinfo(options->address, options->port, &hints, &addr);
    if (error != 0)
        fail(2, "--address", options->address, "not an IPv4 or IPv6 address such as 127.0.0.1 or ::1");

    int listener = options->share ? bind_shared(addr->ai_addr, addr->ai_addrlen)
                                  : bind_to(addr->ai_addr, addr->ai_addrlen, false);
    if (listener < 0 || listen(listener, SOMAXCONN) < 0) {
        char where[ADDRESS_SIZE + sizeof " port 65535"];
        snprintf(where, sizeof where, "%s port %s", options->address, options->port);
        fail(EXIT_FAILURE, "cannot listen on", where, strerror(errno));
    }
    freeaddrinfo(addr);
    announce(listener);
    return listener;
}

int net_listen_beside(int listener)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;

    if (getsockname(listener, (struct sockaddr *)&bound, &size) < 0)
        net_die("getsockname");
    int another = bind_to((struct sockaddr *)&bound, size, true);
    if (another < 0 || listen(another, SOMAXCONN) < 0)
        net_die("cannot listen on the same port");
#if !defined __linux__ && !defined SO_REUSEPORT_LB && !defined __DragonFly__
    net_warn("this system may give all clients to one of the listening sockets");
#endif
    return another;
}
/* [/listen] */

/* [accept] */
int net_accept(int listener)
{
    int fd;

    while ((fd = accept(listener, NULL, NULL)) < 0) {
        if (errno == EWOULDBLOCK) /* POSIX lets the two differ */
            errno = EAGAIN;
        switch (errno) {
        case EAGAIN: /* nobody waits */
            return -1;
        case EMFILE: /* this process, or the whole system, can open no more */
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            errno = EMFILE;
            return -1;
        case EBADF: /* a mistake of ours: to try again would be to spin for ever */
        case EINVAL:
        case ENOTSOCK:
            net_die("accept");
        default: /* EINTR, ECONNABORTED, and on Linux whatever network error waited on the
                  * new socket: it is over for that client only, and the next one shall not wait */
            if (net_stopping()) {
                errno = EAGAIN;
                return -1;
            }
        }
    }

    /* An answer goes out at once, and does not wait until the client has
     * acknowledged the one before. On failure the client has already gone, as
     * the next call on fd will tell. */
    const int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        net_log(fd, "TCP_NODELAY", errno);
    net_log(fd, "connected", 0);
    return fd;
}

void net_pause(void)
{
    const struct timespec tenth = {.tv_nsec = 100000000};
    nanosleep(&tenth, NULL);
}
/* [/accept] */
