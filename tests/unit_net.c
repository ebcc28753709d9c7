/* unit_net.c - unit tests of net.c, the frame that is the same in every chapter.
 *
 * net.c is compiled here exactly as for a server. The linker (--wrap) sends its
 * calls of the functions below to this file, which counts them and makes the
 * next one fail when a test wants that; all else is done for real, on real
 * sockets. Macros around an included net.c would do as well, but then it would
 * not be the net.c of the servers any more.
 * Compiled with OWN_OPTIONS for chapter 5's net.c, and with SHARED_PORT, too, for chapter 6's.
 * Needs POSIX.1-2008, and a linker with --wrap (GNU ld, gold, lld). */
#define _DEFAULT_SOURCE /* on Linux; the next one on NetBSD: for SO_REUSEPORT, which POSIX does not know */
#define _NETBSD_SOURCE

#include "net.h"

#include "harness.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHAPTER "the book, chapter 1, "
#define PIECES CHAPTER "\"The server, piece by piece\""
#define OWN "the book, chapter 5, \"What changed\""
#define SHARED "the book, chapter 6, \"What changed\""
#define WILD CHAPTER "\"Found in the wild\""

/* ---- faults ---- */

struct fault {
    int error;     /* of the next call; 0: let it happen */
    unsigned skip; /* but let so many happen before */
    unsigned calls;
};

/* Counts a call; says whether it is to fail. */
static bool fails(struct fault *fault)
{
    int error = fault->error;
    fault->calls++;
    if (error != 0 && fault->skip > 0) {
        fault->skip--;
        return false;
    }
    fault->error = 0;
    errno = error != 0 ? error : errno;
    return error != 0;
}

#define WRAP(name, parameters, arguments)                           \
    static struct fault name##_fault;                               \
    int __real_##name parameters;                                   \
    int __wrap_##name parameters;                                   \
    int __wrap_##name parameters                                    \
    {                                                               \
        return fails(&name##_fault) ? -1 : __real_##name arguments; \
    }

WRAP(socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(listen, (int fd, int backlog), (fd, backlog))
WRAP(getsockname, (int fd, struct sockaddr *address, socklen_t *size), (fd, address, size))
WRAP(sigaction, (int number, const struct sigaction *action, struct sigaction *before),
     (number, action, before))

/* Of each bind(): which port was asked for, and whether its socket had been told to share it. */
static struct {
    uint16_t port;
    bool shares;
} binds[8];
static size_t bind_count;
static int sharing_fd = -1; /* the socket that was told last */

#ifdef SO_REUSEPORT_LB
#define SHARES SO_REUSEPORT_LB
#else
#define SHARES SO_REUSEPORT
#endif

static struct fault bind_fault;
int __real_bind(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    if (bind_count < sizeof binds / sizeof *binds) {
        binds[bind_count].port = ntohs(((const struct sockaddr_in *)address)->sin_port); /* of IPv6, too */
        binds[bind_count++].shares = fd == sharing_fd;
    }
    sharing_fd = -1; /* the number may be another socket's next time */
    return fails(&bind_fault) ? -1 : __real_bind(fd, address, size);
}

static struct fault setsockopt_fault;
int __real_setsockopt(int fd, int level, int option, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    if (level == SOL_SOCKET && option == SHARES && *(const int *)value != 0)
        sharing_fd = fd;
    return fails(&setsockopt_fault) ? -1 : __real_setsockopt(fd, level, option, value, size);
}

static struct fault accept_fault;
static int signal_before_accept; /* comes when nothing waits yet; 0: none */
static int accept_error;         /* what the real accept() said */
int __real_accept(int listener, struct sockaddr *address, socklen_t *size);
int __wrap_accept(int listener, struct sockaddr *address, socklen_t *size);
int __wrap_accept(int listener, struct sockaddr *address, socklen_t *size)
{
    if (fails(&accept_fault))
        return -1;
    if (signal_before_accept != 0)
        raise(signal_before_accept);
    int fd = __real_accept(listener, address, size);
    accept_error = fd < 0 ? errno : 0;
    return fd;
}

static struct fault nanosleep_fault;
static struct timespec slept;
int __real_nanosleep(const struct timespec *wanted, struct timespec *left);
int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left);
int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left)
{
    slept = *wanted;
    if (!fails(&nanosleep_fault))
        return __real_nanosleep(wanted, left);
    if (left != NULL)
        *left = *wanted; /* a signal came at once */
    return -1;
}

/* ---- what a program that uses net.c does ---- */

static void contents(FILE *file, char *text, size_t size)
{
    ssize_t got = pread(fileno(file), text, size - 1, 0);
    text[got > 0 ? got : 0] = '\0';
}

/* From now on what this process writes to fd goes to the file that is returned. */
static FILE *redirect(int fd)
{
    FILE *file = tmpfile();
    fflush(NULL);
    if (file == NULL || dup2(fileno(file), fd) < 0)
        ck_abort_msg("redirecting: %s", strerror(errno));
    return file;
}

#ifdef OWN_OPTIONS
/* Options that only this program has, as net.c takes them from chapter 5 on. */
static struct net_option own[2];

static void read_options(struct net_options *options, int argc, char **argv)
{
    own[0] = (struct net_option){"pause", "SECONDS  rest for so long", "3"};
    own[1] = (struct net_option){"colour", "NAME  paint it so", NULL};
    net_options(options, argc, argv, "a test", own, 2);
}
#else
static void read_options(struct net_options *options, int argc, char **argv)
{
    net_options(options, argc, argv, "a test");
}
#endif

/* net_options() with these arguments behind a program's name. */
static struct net_options options_of(const char *const arguments[])
{
    static char name[] = "/some/where/echo";
    static char copies[8][64];
    static char *argv[10] = {name};
    int argc = 1;
    struct net_options options;

    for (; arguments[argc - 1] != NULL; argc++) {
        snprintf(copies[argc - 1], sizeof copies[0], "%s", arguments[argc - 1]);
        argv[argc] = copies[argc - 1];
    }
    read_options(&options, argc, argv);
    return options;
}
#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

struct outcome {
    int status; /* 128 plus the signal, if one ended it */
    char out[2048];
    char err[2048];
};

/* Whether start_up_onto() opens two listening sockets on one port. */
static bool share_port;

/* Returns whether a server listens. */
static bool open_sockets(struct net_options *options)
{
#ifdef SHARED_PORT
    options->share = share_port;
    int listener = net_listen(options);
    return listener >= 0 && (!share_port || net_listen_beside(listener) >= 0);
#else
    return !share_port && net_listen(options) >= 0;
#endif
}

/* Starts up as every server does, in a process of its own, and ends with 0
 * once it listens. path: where its standard output goes, NULL: into the outcome. */
static struct outcome start_up_onto(const char *path, const char *const arguments[])
{
    struct outcome outcome;
    int status;
    FILE *out = path == NULL ? tmpfile() : fopen(path, "w");
    FILE *err = tmpfile();
    if (out == NULL || err == NULL)
        ck_abort_msg("%s: %s", path == NULL ? "a temporary file" : path, strerror(errno));

    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(fileno(out), STDOUT_FILENO);
        dup2(fileno(err), STDERR_FILENO);
        struct net_options options = options_of(arguments);
        net_catch_signals();
        exit(open_sockets(&options) ? EXIT_SUCCESS : 99);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        ck_abort_msg("a child process: %s", strerror(errno));
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    contents(out, outcome.out, sizeof outcome.out);
    contents(err, outcome.err, sizeof outcome.err);
    fclose(out);
    fclose(err);
    return outcome;
}
#define START_UP(...) start_up_onto(NULL, ARGUMENTS(__VA_ARGS__))

/* Requires that it ended with status, and that stderr has one line, which
 * names the program first (or its path, as getopt_long() does) and has each of
 * what and why in it. */
static void check_refusal(const struct outcome *outcome, int status, const char *what, const char *why)
{
    const char *line = outcome->err;
    const char *end = strchr(line, '\n');
    const char *name =
        strncmp(line, "/some/where/", strlen("/some/where/")) == 0 ? line + strlen("/some/where/") : line;

    if (outcome->status != status)
        ck_abort_msg("%s, %s: ended with status %d and not with %d; stderr: %s", what, why, outcome->status,
                     status, line);
    if (strncmp(name, "echo: ", strlen("echo: ")) != 0 || end == NULL || end[1] != '\0')
        ck_abort_msg("%s, %s: stderr is not the one line \"echo: what: why\", but \"%s\"", what, why, line);
    if (strstr(line, what) == NULL || strstr(line, why) == NULL)
        ck_abort_msg("the message does not say both \"%s\" and \"%s\": %s", what, why, line);
}

/* ---- sockets ---- */

/* net_listen() in this process. line: what it prints, may be NULL. */
static int listen_with(const struct net_options *options, char line[128])
{
    char text[128];
    FILE *out = redirect(STDOUT_FILENO);
    int listener = net_listen(options);
    contents(out, line != NULL ? line : text, sizeof text);
    fclose(out);
    return listener;
}

static int listen_on(const char *address, const char *port, char line[128])
{
    return listen_with(&(struct net_options){.address = address, .port = port}, line);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        ck_abort_msg("getsockname: %s", strerror(errno));
    return ntohs(address.sin_port);
}

/* A client whose connection waits in the listener's queue. */
static int connect_to(int listener)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        ck_abort_msg("getsockname: %s", strerror(errno));
    int fd = socket(address.ss_family, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, size) < 0)
        ck_abort_msg("a client could not connect: %s", strerror(errno));
    return fd;
}

/* Requires that net_accept() fails with this errno. */
static void check_accept_fails(int listener, int expected, const char *when)
{
    errno = 0;
    int fd = net_accept(listener);
    if (fd >= 0 || errno != expected)
        ck_abort_msg("%s: net_accept() returned %d with errno %d (%s) instead of -1 with %s", when, fd, errno,
                     strerror(errno), strerror(expected));
}

static void check_passes(int from, int to, const char *text)
{
    char back[64] = "";
    size_t size = strlen(text);
    if (send(from, text, size, 0) != (ssize_t)size || client_receive(to, back, size) != size ||
        memcmp(back, text, size) != 0)
        ck_abort_msg("\"%s\" did not come through", text);
}

/* ---- options ---- */

START_TEST(options_defaults)
{
    struct net_options options = options_of(ARGUMENTS(NULL));
    ck_assert_str_eq(options.address, "127.0.0.1");
    ck_assert_str_eq(options.port, "7007");
}
END_TEST

START_TEST(options_taken)
{
    struct net_options options = options_of(ARGUMENTS("--address=::1", "--port", "1"));
    ck_assert_str_eq(options.address, "::1");
    ck_assert_str_eq(options.port, "1");
}
END_TEST

START_TEST(options_port_limits)
{
    struct outcome lowest = START_UP("--port", "0");
    if (lowest.status != 0)
        ck_abort_msg("--port 0 was refused: %s", lowest.err);
    ck_assert_str_eq(options_of(ARGUMENTS("--port", "65535")).port, "65535");
}
END_TEST

START_TEST(options_port_not_a_number)
{
    static const char *const bad[] = {"", "http", "80x", "0x50", "7 ", " 7", "+7", "-1", "-0", "8.0"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct outcome outcome = START_UP("--port", bad[i]);
        check_refusal(&outcome, 2, bad[i], "not a number from 0 to 65535");
    }
}
END_TEST

START_TEST(options_port_out_of_range)
{
    /* The last two are 80 again, to whoever keeps 16 or 64 bits of them. */
    static const char *const bad[] = {"65536", "99999", "99999999999999999999", "65616",
                                      "18446744073709551696"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct outcome outcome = START_UP("--port", bad[i]);
        check_refusal(&outcome, 2, bad[i], "not a number from 0 to 65535");
    }
}
END_TEST

START_TEST(options_wrong_use)
{
    static const char *const uses[][3] = {
        {"--flavour"}, {"-x"}, {"--port"}, {"--verbose", "--address"}, {"7007"}, {"--verbose", "and", "so"},
    };
    static const char *const named[] = {"flavour", "x", "port", "address", "7007", "and"};
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        struct outcome outcome = START_UP(uses[i][0], uses[i][1], uses[i][2]);
        check_refusal(&outcome, 2, "", named[i]);
    }
}
END_TEST

START_TEST(options_help)
{
    static const char *const words[] = {"Usage: echo", "a test",    "--address",
                                        "--port",      "--verbose", "--version"};
    struct outcome outcome = START_UP("--help");
    ck_assert_int_eq(outcome.status, 0);
    ck_assert_str_eq(outcome.err, "");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strstr(outcome.out, words[i]) == NULL)
            ck_abort_msg("--help does not say \"%s\":\n%s", words[i], outcome.out);
    }
}
END_TEST

#ifdef OWN_OPTIONS
START_TEST(own_taken)
{
    options_of(ARGUMENTS("--colour", "red", "--port", "0", "--pause=12"));
    ck_assert_str_eq(own[0].value, "12");
    ck_assert_str_eq(own[1].value, "red");
}
END_TEST

START_TEST(own_defaults)
{
    options_of(ARGUMENTS("--verbose"));
    ck_assert_str_eq(own[0].value, "3");
    ck_assert_msg(own[1].value == NULL, "an option that was not given has the value %s", own[1].value);
}
END_TEST

START_TEST(own_help)
{
    struct outcome outcome = START_UP("--help");
    if (strstr(outcome.out, "--pause SECONDS  rest for so long") == NULL ||
        strstr(outcome.out, "--colour NAME  paint it so") == NULL)
        ck_abort_msg("--help does not explain the options that this server has of its own:\n%s", outcome.out);
}
END_TEST

START_TEST(own_without_value)
{
    struct outcome outcome = START_UP("--pause");
    check_refusal(&outcome, 2, "pause", "requires an argument");
}
END_TEST

START_TEST(own_refused)
{
    struct outcome outcome = {.status = -1};
    FILE *err = tmpfile();
    ck_assert(err != NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(fileno(err), STDERR_FILENO);
        options_of(ARGUMENTS("--pause", "soon"));
        net_wrong_use(&own[0], "not a number");
    }
    int status;
    ck_assert(child > 0 && waitpid(child, &status, 0) == child);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    contents(err, outcome.err, sizeof outcome.err);
    fclose(err);
    check_refusal(&outcome, 2, "--pause soon", "not a number");
}
END_TEST
#endif

START_TEST(options_version)
{
    struct outcome outcome = START_UP("--version");
    ck_assert_int_eq(outcome.status, 0);
    ck_assert_str_eq(outcome.err, "");
    if (strncmp(outcome.out, "echo (Seven Servers) ", strlen("echo (Seven Servers) ")) != 0)
        ck_abort_msg("--version wrote to stdout: \"%s\"", outcome.out);
}
END_TEST

/* ---- the listening socket ---- */

START_TEST(listen_bad_address)
{
    static const char *const bad[] = {"nonsense", "localhost", "", "127.0.0.256", "::g", "127.0.0.1:7007"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct outcome outcome = START_UP("--port", "0", "--address", bad[i]);
        check_refusal(&outcome, 2, bad[i], "not an IPv4 or IPv6 address");
    }
}
END_TEST

START_TEST(listen_announces_ipv4)
{
    char line[128];
    char expected[128];
    int listener = listen_on("127.0.0.1", "0", line);
    uint16_t port = port_of(listener);
    ck_assert_uint_ne(port, 0);
    snprintf(expected, sizeof expected, "listening on 127.0.0.1:%u\n", port);
    ck_assert_str_eq(line, expected);
}
END_TEST

static void need_ipv6(void)
{
    const struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&loopback, sizeof loopback) < 0)
        tap_skip("no IPv6 here: %s", strerror(errno));
    close(fd);
}

START_TEST(listen_announces_ipv6)
{
    char line[128];
    char expected[128];
    need_ipv6();
    int listener = listen_on("::1", "0", line);
    struct sockaddr_in6 bound;
    socklen_t size = sizeof bound;
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&bound, &size), 0);
    snprintf(expected, sizeof expected, "listening on [::1]:%u\n", ntohs(bound.sin6_port));
    ck_assert_str_eq(line, expected);
    int client = connect_to(listener);
    check_passes(client, net_accept(listener), "over IPv6");
}
END_TEST

START_TEST(listen_restarts_on_its_port)
{
    char port[8];
    int listener = listen_on("127.0.0.1", "0", NULL);
    snprintf(port, sizeof port, "%u", port_of(listener));
    int client = connect_to(listener);
    int fd = net_accept(listener);
    char byte;

    /* The side that closes first is the one whose port stays in TIME_WAIT. */
    close(fd);
    ck_assert_int_eq(recv(client, &byte, 1, 0), 0);
    close(client);
    close(listener);
    struct outcome outcome = START_UP("--port", port);
    if (outcome.status != 0)
        ck_abort_msg("the server did not start again on port %s: %s", port, outcome.err);
}
END_TEST

START_TEST(listen_port_in_use)
{
    char port[8];
    snprintf(port, sizeof port, "%u", port_of(listen_on("127.0.0.1", "0", NULL)));
    struct outcome outcome = START_UP("--port", port);
    check_refusal(&outcome, 1, port, strerror(EADDRINUSE));
    ck_assert_str_eq(outcome.out, "");
}
END_TEST

START_TEST(listen_failing_calls)
{
    static const struct {
        struct fault *fault;
        int error;
    } calls[] = {
        {&sigaction_fault, EINVAL},  {&socket_fault, EMFILE},       {&socket_fault, EAFNOSUPPORT},
        {&setsockopt_fault, ENOMEM}, {&bind_fault, EACCES},         {&bind_fault, EADDRNOTAVAIL},
        {&listen_fault, EADDRINUSE}, {&getsockname_fault, ENOBUFS},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        calls[i].fault->error = calls[i].error;
        struct outcome outcome = START_UP("--port", "0");
        calls[i].fault->error = 0;
        check_refusal(&outcome, 1, "echo: ", strerror(calls[i].error));
        if (outcome.out[0] != '\0')
            ck_abort_msg("it said \"%s\" and yet failed", outcome.out);
    }
}
END_TEST

START_TEST(listen_says_where_it_cannot)
{
    bind_fault.error = EACCES;
    struct outcome outcome = START_UP("--address", "127.0.0.1", "--port", "80");
    check_refusal(&outcome, 1, "127.0.0.1 port 80", strerror(EACCES));
}
END_TEST

START_TEST(listen_output_full)
{
    if (access("/dev/full", W_OK) < 0)
        tap_skip("/dev/full: %s", strerror(errno));
    struct outcome outcome = start_up_onto("/dev/full", ARGUMENTS("--port", "0"));
    check_refusal(&outcome, 1, "standard output", strerror(ENOSPC));
}
END_TEST

#ifdef SHARED_PORT
/* ---- one port for several listening sockets ---- */

static int listen_shared(const char *address, const char *port, char line[128])
{
    return listen_with(&(struct net_options){.address = address, .port = port, .share = true}, line);
}

static bool shares(int fd)
{
    int on = 0;
    socklen_t size = sizeof on;
    if (getsockopt(fd, SOL_SOCKET, SHARES, &on, &size) < 0)
        ck_abort_msg("getsockopt: %s", strerror(errno));
    return on != 0;
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

START_TEST(shared_only_if_asked)
{
    struct net_options options = options_of(ARGUMENTS("--port", "0"));
    ck_assert_msg(!options.share, "nobody asked for it, and the port is to be shared");
    int listener = listen_with(&options, NULL);
    ck_assert_msg(!shares(listener), "nobody asked for it, and the socket shares its port");
    ck_assert_uint_eq(bind_count, 1);
}
END_TEST

START_TEST(shared_before_bind)
{
    char line[128];
    char expected[128];
    int before = open_descriptors();
    int listener = listen_shared("127.0.0.1", "0", line);
    uint16_t port = port_of(listener);
    ck_assert_msg(shares(listener), "the listening socket does not share its port");
    ck_assert_msg(bind_count == 2, "bind() was called %zu times: once to try, and once to have it",
                  bind_count);
    ck_assert_msg(!binds[0].shares && binds[0].port == 0,
                  "the first try was for port %u, with a socket that shares", binds[0].port);
    ck_assert_msg(binds[1].shares, "the socket was not told to share its port before bind()");
    ck_assert_msg(binds[1].port == port, "the second bind() was for port %u, and the socket has %u",
                  binds[1].port, port);
    ck_assert_msg(open_descriptors() == before + 1, "%d descriptors more are open: the first one, too",
                  open_descriptors() - before);
    snprintf(expected, sizeof expected, "listening on 127.0.0.1:%u\n", port);
    ck_assert_str_eq(line, expected);
}
END_TEST

START_TEST(shared_port_asked_for)
{
    char port[8];
    int listener = listen_on("127.0.0.1", "0", NULL);
    snprintf(port, sizeof port, "%u", port_of(listener));
    close(listener);
    bind_count = 0;
    listener = listen_shared("127.0.0.1", port, NULL);
    ck_assert_uint_eq(bind_count, 2);
    for (size_t i = 0; i < 2; i++)
        ck_assert_uint_eq(binds[i].port, port_of(listener));
}
END_TEST

START_TEST(shared_in_use)
{
    for (int i = 0; i < 2; i++) {
        char port[8];
        int listener = i == 0 ? listen_on("127.0.0.1", "0", NULL) : listen_shared("127.0.0.1", "0", NULL);
        snprintf(port, sizeof port, "%u", port_of(listener));
        share_port = true;
        struct outcome outcome = START_UP("--port", port);
        check_refusal(&outcome, 1, port, strerror(EADDRINUSE));
        ck_assert_str_eq(outcome.out, "");
        share_port = false; /* and a server that wants it for itself */
        outcome = START_UP("--port", port);
        check_refusal(&outcome, 1, port, strerror(EADDRINUSE));
    }
}
END_TEST

START_TEST(shared_taken_meanwhile)
{
    char port[8];
    int listener = listen_on("127.0.0.1", "0", NULL);
    snprintf(port, sizeof port, "%u", port_of(listener));
    close(listener);
    share_port = true;
    bind_fault = (struct fault){.error = EADDRINUSE, .skip = 1};
    struct outcome outcome = START_UP("--port", port);
    check_refusal(&outcome, 1, port, strerror(EADDRINUSE));
    ck_assert_str_eq(outcome.out, "");
}
END_TEST

/* Opens a second socket beside a first one. Clients who come get through to one of the two, and to both. */
static void check_beside(const char *address)
{
    enum { CLIENTS = 64 };
    struct sockaddr_storage names[2] = {{0}};
    size_t came[2] = {0};
    bind_count = 0;
    int listeners[2] = {listen_shared(address, "0", NULL)};
    listeners[1] = net_listen_beside(listeners[0]);
    for (size_t i = 0; i < 2; i++) {
        socklen_t size = sizeof names[i];
        ck_assert_int_eq(getsockname(listeners[i], (struct sockaddr *)&names[i], &size), 0);
        ck_assert_msg((fcntl(listeners[i], F_GETFL) & O_NONBLOCK) == 0, "a socket is not in blocking mode");
        ck_assert_msg(shares(listeners[i]), "a listening socket does not share its port");
    }
    ck_assert_msg(listeners[0] != listeners[1], "the second is the first");
    ck_assert_msg(memcmp(&names[0], &names[1], sizeof *names) == 0,
                  "the second has another address or port than the first");
    ck_assert_msg(bind_count == 3 && binds[2].shares,
                  "the second was not told to share its port before bind()");

    for (size_t i = 0; i < 2; i++)
        ck_assert_int_eq(fcntl(listeners[i], F_SETFL, O_NONBLOCK), 0);
    for (size_t i = 0; i < CLIENTS; i++) {
        int client = connect_to(listeners[0]);
        int fd = net_accept(listeners[0]);
        size_t whose = fd >= 0 ? 0 : 1;
        if (fd < 0)
            fd = net_accept(listeners[1]);
        ck_assert_msg(fd >= 0, "a client came, and is at neither of the two sockets");
        came[whose]++;
        check_passes(client, fd, "there");
        close(fd);
        close(client);
    }
#ifdef __linux__
    ck_assert_msg(came[0] > 0 && came[1] > 0, "of %d clients, %zu came to the first, and %zu to the second",
                  CLIENTS, came[0], came[1]);
#endif
}

START_TEST(beside)
{
    check_beside("127.0.0.1");
}
END_TEST

START_TEST(beside_ipv6)
{
    need_ipv6();
    check_beside("::1");
}
END_TEST

START_TEST(shared_failing_calls)
{
    static const struct {
        const char *name;
        struct fault *fault;
        int error;
        unsigned most; /* as often it is called: for the try, the first socket and the second */
    } calls[] = {
        {"socket", &socket_fault, EMFILE, 3},
        {"setsockopt", &setsockopt_fault, ENOPROTOOPT, 5},
        {"bind", &bind_fault, EACCES, 3},
        {"listen", &listen_fault, EADDRINUSE, 2},
        {"getsockname", &getsockname_fault, ENOBUFS, 3},
    };
    share_port = true;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (unsigned call = 0; call < calls[i].most; call++) {
            *calls[i].fault = (struct fault){.error = calls[i].error, .skip = call};
            struct outcome outcome = START_UP("--port", "0");
            if (outcome.status == 0)
                ck_abort_msg("call %u of %s() failed, or was not made, and the server goes on", call + 1,
                             calls[i].name);
            check_refusal(&outcome, 1, "echo: ", strerror(calls[i].error));
        }
        *calls[i].fault = (struct fault){0};
    }
    struct outcome outcome = START_UP("--port", "0");
    ck_assert_msg(outcome.status == 0, "nothing failed, and the status is %d: %s", outcome.status,
                  outcome.err);
}
END_TEST
#endif

/* ---- signals ---- */

START_TEST(signals_begin_a_stop)
{
    static const int stops[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        pid_t child = fork();
        if (child == 0) {
            net_catch_signals();
            bool before = net_stopping();
            raise(stops[i]);
            _exit(before ? 1 : net_stopping() ? 0 : 2);
        }
        int status;
        if (child < 0 || waitpid(child, &status, 0) != child)
            ck_abort_msg("a child process: %s", strerror(errno));
        if (WIFSIGNALED(status))
            ck_abort_msg("signal %d ended the process", WTERMSIG(status));
        if (WEXITSTATUS(status) != 0)
            ck_abort_msg("signal %d: net_stopping() was %s", stops[i],
                         WEXITSTATUS(status) == 1 ? "true before it" : "false after it");
    }
}
END_TEST

START_TEST(signals_do_not_restart)
{
    static const int stops[] = {SIGTERM, SIGINT, SIGALRM};
    net_catch_signals();
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct sigaction action;
        ck_assert_int_eq(sigaction(stops[i], NULL, &action), 0);
        if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)
            ck_abort_msg("signal %d is not caught", stops[i]);
        if ((action.sa_flags & SA_RESTART) != 0)
            ck_abort_msg("signal %d is caught with SA_RESTART", stops[i]);
    }
}
END_TEST

START_TEST(signals_blocked_before)
{
    sigset_t stops;
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    ck_assert_int_eq(sigprocmask(SIG_BLOCK, &stops, NULL), 0);
    net_catch_signals();
    raise(SIGTERM);
    ck_assert_msg(net_stopping(), "SIGTERM is still blocked, and so the server cannot be stopped");
}
END_TEST

START_TEST(signals_asked_twice)
{
    net_catch_signals();
    for (int i = 0; i < 10; i++)
        raise(i % 2 == 0 ? SIGTERM : SIGINT);
    ck_assert(net_stopping());
    ck_assert_msg(!net_overdue(),
                  "the time of grace was over at once, since the stop was asked for ten times");
}
END_TEST

START_TEST(signals_sigpipe)
{
    int pair[2];
    net_catch_signals();
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    close(pair[1]);
    ck_assert_int_eq(send(pair[0], "x", 1, 0), -1);
    ck_assert_int_eq(errno, EPIPE);
}
END_TEST

START_TEST(signals_just_before_a_call)
{
    /* The limit is for the failure only: without it accept() would never end. */
    const struct timeval limit = {.tv_sec = 5};
    int listener = listen_on("127.0.0.1", "0", NULL);
    ck_assert_int_eq(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    net_catch_signals();

    signal_before_accept = SIGTERM;
    check_accept_fails(listener, EAGAIN, "a signal");
    if (accept_error != EINTR)
        ck_abort_msg("the signal was lost: accept() waited for 5 s and more (%s)", strerror(accept_error));
    ck_assert(net_stopping());
}
END_TEST

START_TEST(signals_ticks)
{
    net_catch_signals();
    ck_assert_msg(!net_overdue(), "net_overdue() was true before any stop");
    raise(SIGTERM);
    for (int second = 0; second < 3; second++) {
        if (net_overdue())
            ck_abort_msg("net_overdue() was true after %d s", second);
        if (alarm(0) != 1)
            ck_abort_msg("%d s after the signal, no alarm was set for the next second", second);
        raise(SIGALRM);
    }
    ck_assert_msg(net_overdue(), "net_overdue() was false after 3 s");
    ck_assert_msg(alarm(0) == 1, "the alarms ended with the time of grace: a call that starts now may hang");
}
END_TEST

/* ---- accept ---- */

START_TEST(accept_takes_a_client)
{
    int listener = listen_on("127.0.0.1", "0", NULL);
    int client = connect_to(listener);
    int fd = net_accept(listener);
    ck_assert_int_ge(fd, 0);
    check_passes(client, fd, "there");
    check_passes(fd, client, "and back");
}
END_TEST

/* Errors that are not the server's own: a signal, a client that has gone again,
 * and what accept(2) calls network errors of the new socket. */
static const int harmless[] = {EINTR,     ECONNABORTED, EPROTO,      EPERM,      ENETDOWN,
                               ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENOPROTOOPT};

START_TEST(accept_goes_on)
{
    int listener = listen_on("127.0.0.1", "0", NULL);
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        int client = connect_to(listener);
        accept_fault.error = harmless[i];
        int fd = net_accept(listener);
        if (fd < 0)
            ck_abort_msg("after \"%s\", the next client was not taken", strerror(harmless[i]));
        check_passes(client, fd, "next");
    }
}
END_TEST

START_TEST(accept_ends_with_a_stop)
{
    int listener = listen_on("127.0.0.1", "0", NULL);
    ck_assert_int_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    net_catch_signals();
    raise(SIGTERM);
    accept_fault = (struct fault){.error = EINTR};
    check_accept_fails(listener, EAGAIN, "a stop");
    ck_assert_msg(accept_fault.calls == 1, "accept() was called again although the server shall stop");
}
END_TEST

START_TEST(accept_nobody)
{
    int listener = listen_on("127.0.0.1", "0", NULL);
    ck_assert_int_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    check_accept_fails(listener, EAGAIN, "nobody waits");
}
END_TEST

START_TEST(accept_mistakes)
{
    static const int errors[] = {EBADF, EINVAL, ENOTSOCK};
    int listener = listen_on("127.0.0.1", "0", NULL);
    ck_assert_int_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            FILE *message = redirect(STDERR_FILENO);
            accept_fault.error = errors[i];
            net_accept(listener);
            fclose(message);
            _exit(99);
        }
        if (child < 0 || waitpid(child, &status, 0) != child)
            ck_abort_msg("a child process: %s", strerror(errno));
        if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_FAILURE)
            ck_abort_msg("after \"%s\" the server went on: it would ask again for ever", strerror(errors[i]));
    }
}
END_TEST

START_TEST(accept_exhausted)
{
    static const int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
    int listener = listen_on("127.0.0.1", "0", NULL);
    ck_assert_int_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        accept_fault.error = errors[i];
        check_accept_fails(listener, EMFILE, strerror(errors[i]));
    }
}
END_TEST

START_TEST(accept_exhausted_for_real)
{
    int listener = listen_on("127.0.0.1", "0", NULL);
    int client = connect_to(listener);
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t before = limit.rlim_cur;

    limit.rlim_cur = (rlim_t)client + 1;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (dup(listener) >= 0)
        ;
    check_accept_fails(listener, EMFILE, "no descriptor left");
    limit.rlim_cur = before;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int fd = net_accept(listener);
    ck_assert_msg(fd >= 0, "the client was not in the queue any more");
    check_passes(client, fd, "still here");
}
END_TEST

START_TEST(accept_nodelay)
{
    int listener = listen_on("127.0.0.1", "0", NULL);
    connect_to(listener);
    int fd = net_accept(listener);
    int on = 0;
    socklen_t size = sizeof on;
    ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
    ck_assert_msg(on != 0, "the accepted socket has no TCP_NODELAY");
}
END_TEST

START_TEST(accept_nodelay_fails)
{
    int listener = listen_on("127.0.0.1", "0", NULL);
    int client = connect_to(listener);
    setsockopt_fault.error = EINVAL;
    int fd = net_accept(listener);
    ck_assert_msg(fd >= 0, "the client was turned away since TCP_NODELAY could not be set");
    ck_assert_int_eq(setsockopt_fault.error, 0);
    check_passes(client, fd, "still served");
}
END_TEST

/* ---- pause and messages ---- */

START_TEST(pause_once)
{
    nanosleep_fault = (struct fault){.error = EINTR};
    net_pause();
    ck_assert_int_eq(slept.tv_sec, 0);
    ck_assert_int_eq(slept.tv_nsec, 100000000);
    ck_assert_msg(nanosleep_fault.calls == 1, "the pause went on after a signal had ended it");
}
END_TEST

START_TEST(log_silent)
{
    char text[256];
    options_of(ARGUMENTS(NULL));
    FILE *err = redirect(STDERR_FILENO);
    net_log(5, "connected", 0);
    net_log(5, "lost", ECONNRESET);
    contents(err, text, sizeof text);
    ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(log_verbose)
{
    char text[256];
    char expected[256];
    options_of(ARGUMENTS("--verbose"));
    FILE *err = redirect(STDERR_FILENO);
    net_log(5, "connected", 0);
    net_log(5, "lost", ECONNRESET);
    contents(err, text, sizeof text);
    snprintf(expected, sizeof expected, "echo: descriptor 5: connected\necho: descriptor 5: lost: %s\n",
             strerror(ECONNRESET));
    ck_assert_str_eq(text, expected);
}
END_TEST

#ifdef SHARED_PORT
START_TEST(warn_line)
{
    char text[256];
    options_of(ARGUMENTS(NULL)); /* without --verbose */
    FILE *err = redirect(STDERR_FILENO);
    net_warn("something is not as it should be: 5 %s");
    contents(err, text, sizeof text);
    ck_assert_str_eq(text, "echo: something is not as it should be: 5 %s\n");
}
END_TEST
#endif

int main(void)
{
    /* In here, since what START_TEST makes is a variable, and no constant. */
    const struct tap_test tests[] = {
        {"options: without any, 127.0.0.1 port 7007", options_defaults,
         "a server that is started without options listens where the README says, and for this machine only",
         "another default; or 0.0.0.0, which opens a test program to the network", PIECES},
        {"options: --address and --port are taken, with a space or with =", options_taken,
         "the values of the command line, as they were given", "optarg was copied before it was set", PIECES},
        {"options: ports 0 and 65535 are ports", options_port_limits,
         "0 asks the kernel to choose, 65535 is the largest", "< where <= was meant", PIECES},
        {"options: a port that is not a number ends with status 2 and one line", options_port_not_a_number,
         "exit status 2, and one line on stderr that names the value",
         "strtol() skips blanks and takes a sign, and stops without complaint at the first letter:\n"
         "look at the first character and at where it stopped",
         WILD},
        {"options: a port past 65535 ends with status 2 and one line", options_port_out_of_range,
         "exit status 2, and one line on stderr that names the value",
         "atoi() or a cast to uint16_t, which keep the lowest bits; or strtol() without a look at errno and\n"
         "at the range",
         WILD},
        {"options: wrong use ends with status 2 and one line that says what is wrong", options_wrong_use,
         "exit status 2 (wrong use), and one line on stderr that names what was wrong",
         "two messages for one mistake, or none: getopt_long() prints its own when opterr is not 0; "
         "arguments\n"
         "after the options are in argv[optind]",
         PIECES},
        {"options: --help explains every option on stdout", options_help,
         "status 0 and the text on stdout, so that it can be piped into a pager",
         "the text went to stderr, or an option was added without a line for it", PIECES},
#ifdef OWN_OPTIONS
        {"options: a server's own are taken, with a space or with =", own_taken,
         "the values of the command line, each with its option",
         "the option's place in the table was not that in "
         "the server's list",
         OWN},
        {"options: a server's own keep their defaults when they are not given", own_defaults,
         "the value that the server gave, which may be NULL", "the values were cleared first", OWN},
        {"options: --help explains a server's own, too", own_help, "a line for each option of the server",
         "only the options of every server are printed", OWN},
        {"options: one of the server's own without its value ends with status 2 and one line",
         own_without_value, "exit status 2, and one line on stderr that names the option",
         "has_arg was not required_argument", OWN},
        {"options: a value that a server refuses ends with status 2 and one line", own_refused,
         "exit status 2, and one line: the program, the option, the value, and why",
         "exit status 1, which is for "
         "what goes wrong with right use",
         OWN},
#endif
        {"options: --version", options_version, "status 0 and a line with the version on stdout",
         "the text went to stderr", PIECES},
        {"listen: an address that is none ends with status 2 and one line", listen_bad_address,
         "exit status 2, at once, and one line on stderr that names the value",
         "without AI_NUMERICHOST getaddrinfo() asks a name server, and may wait for it for a minute", PIECES},
        {"listen: port 0 announces the port that the kernel chose", listen_announces_ipv4,
         "one line on stdout, with the address and port that the socket really has: the harness reads it",
         "the port of the options was printed, and not that of getsockname(); or stdout was not flushed",
         PIECES},
        {"listen: an IPv6 address is announced in brackets, and serves", listen_announces_ipv6,
         "listening on [::1]:PORT; without the brackets nobody can tell the port from the address",
         "a struct sockaddr_in, which has no room for an IPv6 address", PIECES},
        {"listen: the port is free again at once after a stop (SO_REUSEADDR)", listen_restarts_on_its_port,
         "a server that is started again gets its port, although old connections are in TIME_WAIT",
         "SO_REUSEADDR was not set, or only after bind()", WILD},
        {"listen: a port in use ends with status 1 and one line", listen_port_in_use,
         "exit status 1, and one line on stderr with the port and the reason",
         "the error of bind() was not looked at; or SO_REUSEPORT, with which two servers share a port "
         "unknowingly",
         PIECES},
        {"listen: each call that fails at the start ends with status 1 and one line", listen_failing_calls,
         "exit status 1 and one line on stderr with the reason, and no line on stdout",
         "a return value was not looked at", PIECES},
        {"listen: the message says which address and port are refused", listen_says_where_it_cannot,
         "who is refused a port (below 1024, or in use) learns which", "perror(\"bind\") knows neither",
         PIECES},
        {"listen: when the line cannot be written, the start fails", listen_output_full,
         "exit status 1 and one line: a script that waits for the line would wait for ever",
         "printf() only fills a buffer; whether it could be written is known after fflush()", PIECES},
#ifdef SHARED_PORT
        {"listen: the port is shared only if that is asked for", shared_only_if_asked,
         "net_options() says no, one bind(), and a socket without SO_REUSEPORT",
         "SO_REUSEPORT is set on every socket: two servers that are started by mistake share the clients",
         SHARED},
        {"listen: a port to be shared is tried without sharing, then bound with it", shared_before_bind,
         "two calls of bind(): the first, without SO_REUSEPORT, finds whether the port is free, and which "
         "one\n"
         "where 0 was asked for; its socket is closed. The second is for that port, and shares it.",
         "SO_REUSEPORT was set after bind(), or on the first socket, too; or port 0 was bound twice, which\n"
         "gives two ports",
         SHARED},
        {"listen: a port that was asked for is tried, and then shared", shared_port_asked_for,
         "both calls of bind() are for that port", "port 0 was tried, whatever was asked for", SHARED},
        {"listen: a port in use is found although sockets share ports", shared_in_use,
         "exit status 1, and one line on stderr: both for a port that is shared by the other server, and "
         "for\n"
         "one that is not",
         "a socket with SO_REUSEPORT binds to a port that another such socket has, of the same user: the "
         "second\n"
         "server starts, and takes half of the clients. One without it must try first.",
         SHARED},
        {"listen: a port that is taken between the try and the bind ends with status 1 and one line",
         shared_taken_meanwhile, "exit status 1, and one line on stderr with the port",
         "only the first bind() was looked at", SHARED},
        {"listen: a second socket beside the first has its address and port, and gets clients", beside,
         "the same name, SO_REUSEPORT before bind(), blocking mode; of 64 clients each socket gets some, "
         "and\n"
         "nobody is lost",
         "the options were used again, with port 0 in them; or listen() was forgotten", SHARED},
        {"listen: a second socket beside the first, with IPv6", beside_ipv6, "the same over ::1",
         "a struct sockaddr_in, which has no room for an IPv6 address", SHARED},
        {"listen: with a shared port, each call that fails ends with status 1 and one line",
         shared_failing_calls,
         "socket(), setsockopt(), bind(), listen(), getsockname(), the first, the second, the third call of\n"
         "each: exit status 1, and one line on stderr with the reason",
         "a return value was not looked at", SHARED},
#endif
        {"signals: SIGTERM and SIGINT begin a stop", signals_begin_a_stop,
         "net_stopping() turns true; the process goes on, to end by itself", "one of them was not caught",
         PIECES},
        {"signals: a blocking call ends when a stop is asked for (no SA_RESTART)", signals_do_not_restart,
         "the handlers are set without SA_RESTART, so that accept() and recv() return with EINTR",
         "signal(), which sets SA_RESTART on Linux and BSD: the call goes on waiting as if nothing had been",
         WILD},
        {"signals: stop the server also when whoever started it had blocked them", signals_blocked_before,
         "the mask, which a program inherits, is cleared at the start", "only the handlers were set", PIECES},
        {"signals: to ask for the stop twice does not shorten the time of grace", signals_asked_twice,
         "net_overdue() is false until three seconds have passed, however many signals came",
         "every signal was counted as a second", PIECES},
        {"signals: a write to a client that has gone is an error, not the end (SIGPIPE)", signals_sigpipe,
         "send() fails with EPIPE and the process lives on",
         "SIGPIPE was left at its default, which ends the process", WILD},
        {"signals: one that comes just before a blocking call is not lost", signals_just_before_a_call,
         "a second later another signal ends the call, and the stop goes on",
         "a flag is set by the handler, tested by the loop, and the call blocks after the test: the handler\n"
         "must ask for a further signal (alarm), or the call be told by a descriptor",
         PIECES},
        {"signals: a stop is overdue after three seconds, counted by alarms", signals_ticks,
         "net_overdue() turns true with the fourth signal, and every signal asks for the next one",
         "the handler forgot to ask for the next alarm, or the count is off by one", PIECES},
        {"accept: a client in the queue is taken", accept_takes_a_client, "a descriptor that bytes pass over",
         "the wrong descriptor was returned", PIECES},
        {"accept: what went wrong with one client does not keep the next one waiting", accept_goes_on,
         "the next client's descriptor, after any error that is not the server's own: a signal, a client\n"
         "that has gone, a network error that waited on the new socket",
         "an error of accept() was taken for the server's end, or for \"nobody waits\"", WILD},
        {"accept: a signal ends it when it asks for a stop", accept_ends_with_a_stop,
         "-1 with EAGAIN, so that the loop sees that it shall stop",
         "EINTR was answered with another accept()", PIECES},
        {"accept: nobody there is EAGAIN", accept_nobody,
         "-1 with EAGAIN from a non-blocking listening socket", "EAGAIN and EWOULDBLOCK were not looked at",
         PIECES},
        {"accept: out of descriptors or memory is EMFILE: go on later", accept_exhausted,
         "-1 with EMFILE for EMFILE, ENFILE, ENOBUFS and ENOMEM: the client is still in the queue, and "
         "accept()\n"
         "would fail again at once",
         "one of the four was forgotten: then the server spins", WILD},
        {"accept: a client that found no descriptor is served when there is one", accept_exhausted_for_real,
         "the client stays in the queue, and the next accept takes it",
         "EMFILE was answered with closing the listening socket, or by exit", WILD},
        {"accept: an error that is the server's own mistake ends it", accept_mistakes,
         "exit status 1: a listening socket that is none will never be one",
         "every unknown error was answered with another accept(): the server spins for ever", PIECES},
        {"accept: the client's socket has TCP_NODELAY", accept_nodelay,
         "small answers leave at once, and do not wait for the acknowledgement of the one before",
         "TCP_NODELAY was not set, or set on the listening socket of a system that does not inherit it",
         WILD},
        {"accept: a client whose TCP_NODELAY cannot be set is served all the same", accept_nodelay_fails,
         "the descriptor; the option is for speed only, and fails when the client has already gone",
         "a failed setsockopt() was taken for a failed accept()", PIECES},
        {"pause: a tenth of a second, and no more after a signal", pause_once,
         "one nanosleep() of 0.1 s that is not taken up again",
         "a loop around nanosleep(): then a stop waits for the pause to end", PIECES},
        {"log: silent without --verbose", log_silent, "nothing on stderr", "the option was not looked at",
         PIECES},
        {"log: with --verbose, a line with the descriptor, what happened and why", log_verbose,
         "\"program: descriptor N: what: why\", and no why where there is none",
         "errno was printed and not the argument", PIECES},
#ifdef SHARED_PORT
        {"warn: one line with the program's name, also without --verbose", warn_line,
         "\"program: text\", as it is",
         "it was left to --verbose; or the text was taken for a format, and a % in it for a conversion",
         SHARED},
#endif
    };
    return tap_run("", tests, sizeof tests / sizeof *tests);
}
