/* net_windows.c - the frame of chapter 7's servers on Windows: what net.c is elsewhere; net.h says how it is
 * used. Only what these servers need of it; and what proactor.c has from POSIX: a clock, and being stopped.
 * Needs Windows Vista, and getopt_long(), which MinGW-w64 has. */
#ifdef _WIN32

#define _WIN32_WINNT 0x0600 /* Vista, for SRWLOCK */

#include "net.h"

#include "engine.h"

#include <winsock2.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <io.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ws2tcpip.h>

#define VERSION "1.0"

/* An IPv6 address in digits, with the number of its interface, fits. */
enum { ADDRESS_SIZE = 64 };

static const char *program = "server";
static bool verbose;

/* [errors] */
/* Windows' C library has no words for the newer ones among these. */
static const struct {
    int windows, number;
    const char *text;
} errors[] = {
    {WSAEWOULDBLOCK, EAGAIN, "Resource temporarily unavailable"},
    {ERROR_OPERATION_ABORTED, ECANCELED, "Operation canceled"},
    {WSAECONNRESET, ECONNRESET, "Connection reset by peer"},
    {WSAECONNABORTED, ECONNRESET, "Connection reset by peer"},
    {WSAENETRESET, ECONNRESET, "Connection reset by peer"},
    {ERROR_NETNAME_DELETED, ECONNRESET,
     "Connection reset by peer"}, /* a reset, before Winsock translates it */
    {WSAESHUTDOWN, EPIPE, "Broken pipe"},
    {WSAETIMEDOUT, ETIMEDOUT, "Connection timed out"},
    {ERROR_SEM_TIMEOUT, ETIMEDOUT, "Connection timed out"}, /* the same of WSAETIMEDOUT */
    {WSAEHOSTUNREACH, EHOSTUNREACH, "No route to host"},
    {WSAENOTCONN, ENOTCONN, "Transport endpoint is not connected"},
    {WSAEMFILE, EMFILE, "Too many open files"},
    {WSAENOBUFS, ENOBUFS, "No buffer space available"},
    {ERROR_NOT_ENOUGH_MEMORY, ENOMEM, "Cannot allocate memory"},
    {WSAENOTSOCK, ENOTSOCK, "Socket operation on non-socket"},
    {ERROR_INVALID_HANDLE, EBADF, "Bad file descriptor"},
    {WSAEINVAL, EINVAL, "Invalid argument"},
    {WSAEADDRINUSE, EADDRINUSE, "Address already in use"},
    {WSAEADDRNOTAVAIL, EADDRNOTAVAIL, "Cannot assign requested address"},
    {WSAEACCES, EACCES, "Permission denied"},
    {0, ENODATA, "No data available"},
};

/* Most of the time this is asked about one of the first. */
int windows_errno(int error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (errors[i].windows == error)
            return errors[i].number;
    }
    return EIO;
}

/* The words of net.c's messages, so that whoever reads them need not know two languages. */
static const char *text_of(int error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (errors[i].number == error)
            return errors[i].text;
    }
    return strerror(error);
}
/* [/errors] */

/* [messages] */
/* fd is half of an address here: one that no other connection has at the same time. */
void net_log(int fd, const char *event, int error)
{
    if (verbose)
        fprintf(stderr, "%s: connection %x: %s%s%s\n", program, (unsigned)fd, event, error != 0 ? ": " : "",
                error != 0 ? text_of(error) : "");
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
    fail(EXIT_FAILURE, what, "", text_of(errno));
}

/* Winsock's errors are not in errno. */
static _Noreturn void die_of_winsock(const char *what)
{
    errno = windows_errno(WSAGetLastError());
    net_die(what);
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
    printf("\nCtrl-C stops it, and so does the end of its input, if that is a pipe.\n");
}

/* Not what strtol() takes besides: spaces, a sign. */
static bool is_port(const char *text)
{
    char *end;
    errno = 0;
    long port = strtol(text, &end, 10);
    return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && port <= 65535;
}

/* Lines end with one character, as on the other systems: programs read them. And only the name is left of the
 * path of this program, which getopt_long() names, too. */
static void name_program(char **argv)
{
    _setmode(_fileno(stdout), _O_BINARY);
    _setmode(_fileno(stderr), _O_BINARY);
    for (char *slash; (slash = strpbrk(argv[0], "/\\")) != NULL;)
        argv[0] = slash + 1;
    program = argv[0];
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
    name_program(argv);
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

/* [listen] */
/* The whole line at once: a program may be waiting for it. */
static void announce(SOCKET listener)
{
    struct sockaddr_storage bound;
    int size = sizeof bound;
    char host[ADDRESS_SIZE];
    char port[sizeof "65535"];

    if (getsockname(listener, (struct sockaddr *)&bound, &size) < 0 ||
        getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        die_of_winsock("getnameinfo");
    bool v6 = bound.ss_family == AF_INET6;
    printf("listening on %s%s%s:%s\n", v6 ? "[" : "", host, v6 ? "]" : "", port);
    if (fflush(stdout) != 0)
        net_die("standard output");
}

/* Windows gives a port whose connections are in TIME_WAIT to whoever asks, and SO_REUSEADDR means there to
 * take a port from a program that listens on it. This option prevents that; its price is that also a
 * connection of an earlier run that is still alive keeps the port. Source: "Using SO_REUSEADDR and
 * SO_EXCLUSIVEADDRUSE", Microsoft. */
int net_listen(const struct net_options *options)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    const BOOL on = TRUE;
    const DWORD off = 0;
    struct addrinfo *addr;
    WSADATA winsock;

    if (WSAStartup(MAKEWORD(2, 2), &winsock) != 0)
        die_of_winsock("WSAStartup");
    if (getaddrinfo(options->address, options->port, &hints, &addr) != 0)
        fail(2, "--address", options->address, "not an IPv4 or IPv6 address such as 127.0.0.1 or ::1");
    SOCKET listener = socket(addr->ai_family, SOCK_STREAM, 0);
    if (listener == INVALID_SOCKET ||
        setsockopt(listener, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (const char *)&on, sizeof on) < 0)
        die_of_winsock("socket");
    if (addr->ai_family ==
        AF_INET6) /* IPv4 addresses in the form of IPv6, too; only Windows has to be asked */
        setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, (const char *)&off, sizeof off);
    if (bind(listener, addr->ai_addr, (int)addr->ai_addrlen) < 0 || listen(listener, SOMAXCONN) < 0) {
        char where[ADDRESS_SIZE + sizeof " port 65535"];
        snprintf(where, sizeof where, "%s port %s", options->address, options->port);
        fail(EXIT_FAILURE, "cannot listen on", where, text_of(windows_errno(WSAGetLastError())));
    }
    freeaddrinfo(addr);
    announce(listener);
    return (int)listener; /* a handle has 32 significant bits, also where a SOCKET has 64 */
}
/* [/listen] */

/* [stop] */
static SRWLOCK stop_lock = SRWLOCK_INIT;
static void (*stop_action)(int) = SIG_IGN;

/* The lock is held during the call, so that whoever takes the action away can free what it uses. */
static void stop(void)
{
    AcquireSRWLockExclusive(&stop_lock);
    if (stop_action != SIG_IGN)
        stop_action(SIGTERM);
    ReleaseSRWLockExclusive(&stop_lock);
}

/* Windows calls it in a thread of its own. When it returns from these three events, the process is ended at
 * once; so it does not return, and the end of main() ends it. Source: HandlerRoutine, Microsoft. */
static BOOL WINAPI on_control(DWORD event)
{
    stop();
    if (event == CTRL_CLOSE_EVENT || event == CTRL_LOGOFF_EVENT || event == CTRL_SHUTDOWN_EVENT)
        Sleep(INFINITE);
    return TRUE;
}

/* A program without a console cannot be sent a control event. But whoever started it may hold the other end
 * of its standard input, and let go of it. */
static DWORD WINAPI read_input(void *input)
{
    char bytes[64];
    DWORD size;
    while (ReadFile(input, bytes, sizeof bytes, &size, NULL) && size > 0)
        continue;
    stop();
    return 0;
}

int catch_signals(void (*action)(int))
{
    static HANDLE reader;
    HANDLE input = GetStdHandle(STD_INPUT_HANDLE);

    AcquireSRWLockExclusive(&stop_lock);
    stop_action = action;
    ReleaseSRWLockExclusive(&stop_lock);
    if (action == SIG_IGN) /* an event still comes to on_control(), or it would end the program */
        return 0;
    SetConsoleCtrlHandler(NULL, FALSE); /* whoever started this program may have had Ctrl-C ignored */
    if (reader == NULL && GetFileType(input) == FILE_TYPE_PIPE)
        reader = CreateThread(NULL, 0, read_input, input, 0, NULL);
    if ((reader != NULL || GetFileType(input) != FILE_TYPE_PIPE) && SetConsoleCtrlHandler(on_control, TRUE))
        return 0;
    errno = ENOMEM;
    return -1;
}

/* It goes in steps of ten to sixteen milliseconds, which for our timers is fine enough. */
int64_t clock_ms(void)
{
    return (int64_t)GetTickCount64();
}
/* [/stop] */

#else
typedef int net_windows_is_not_here; /* a file of C is never empty */
#endif
