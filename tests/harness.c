/* harness.c - see harness.h. Watching a process needs Linux' /proc (proc(5)). */
#define _GNU_SOURCE /* prlimit(), and the POSIX functions beside it */

#include "harness.h"

#include "inject.h"
#include "tap.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DEADLINE_MS = 10000, QUIET_MS = 300 };

static const char *chosen;

/* The counters of the server that runs; NULL without the fault injector. */
static struct inject_slot *counters;

/* ---- waiting ---- */

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct deadline deadline_start(void)
{
    const char *text = getenv("CK_TIMEOUT_MULTIPLIER");
    double multiplier = text != NULL ? strtod(text, NULL) : 1;
    return (struct deadline){.end_ms = now_ms() + (int64_t)(DEADLINE_MS * (multiplier > 0 ? multiplier : 1))};
}

bool deadline_over(const struct deadline *deadline)
{
    return now_ms() >= deadline->end_ms;
}

int deadline_left_ms(const struct deadline *deadline)
{
    int64_t left = deadline->end_ms - now_ms();
    return left > 0 ? (int)left : 0;
}

void nap(void)
{
    nanosleep(&(const struct timespec){.tv_nsec = 1000000}, NULL);
}

bool sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#endif
#endif
    return false;
}

/* ---- starting ---- */

void server_choose(const char *command)
{
    chosen = command;
}

/* Options that every start of the chosen server gets, before those of a test. */
static const char *own_options[5];
static size_t own_count;

void server_options(const char *options)
{
    static char words[200];
    snprintf(words, sizeof words, "%s", options);
    own_count = 0;
    for (char *word = strtok(words, " "); word != NULL && own_count < 4; word = strtok(NULL, " "))
        own_options[own_count++] = word;
}

static bool under_wine;

/* Now and then, Wine does not start a program: its status is 1, and Wine says why, or nothing. Ours always
 * say why they end with that status. */
static bool failed_by_wine(int status, const char *errors)
{
    return under_wine && status == 1 && (errors[0] == '\0' || strncmp(errors, "wine", 4) == 0);
}

void server_under_wine(void)
{
    under_wine = true;
}

void server_signal(const struct server *server, int signal_number)
{
    kill(server->pid, under_wine && signal_number == SIGTERM ? SIGINT : signal_number);
}

bool server_is_foreign(void)
{
    /* A path may have a space in it, too. */
    return strstr(chosen, "{port}") != NULL || (strchr(chosen, ' ') != NULL && access(chosen, X_OK) < 0);
}

/* A port that was free a moment ago. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        ck_abort_msg("no free port: %s", strerror(errno));
    close(fd);
    return ntohs(address.sin_port);
}

/* The shell command with every {port} replaced. The caller frees it. */
static char *foreign_command(const char *command, uint16_t port)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    if (stream == NULL)
        ck_abort_msg("open_memstream: %s", strerror(errno));

    fputs("exec ", stream);
    for (const char *hole; (hole = strstr(command, "{port}")) != NULL; command = hole + strlen("{port}"))
        fprintf(stream, "%.*s%u", (int)(hole - command), command, port);
    fputs(command, stream);
    fclose(stream);
    return text;
}

/* Opens a file that has no name any more once the test has ended. */
static int temporary(char *path, size_t size)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, size, "%s/seven-servers-XXXXXX", folder != NULL && strlen(folder) < 40 ? folder : "/tmp");
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        ck_abort_msg("%s: %s", path, strerror(errno));
    return fd;
}

static void map_counters(char *path, size_t size)
{
    int fd = temporary(path, size);
    if (ftruncate(fd, INJECT_SLOTS * sizeof *counters) < 0)
        ck_abort_msg("%s: %s", path, strerror(errno));
    counters = mmap(NULL, INJECT_SLOTS * sizeof *counters, PROT_READ, MAP_SHARED, fd, 0);
    if (counters == MAP_FAILED)
        ck_abort_msg("mmap: %s", strerror(errno));
    close(fd);
}

/* In the child: becomes the server. */
static _Noreturn void become(const char *const arguments[], int out, int err,
                             const struct server_setup *setup, const char *counts)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the server never outlives the test */
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    for (int fd = STDERR_FILENO + 1; fd < 1024; fd++) /* so that tests may count the server's own */
        close(fd);
    if (setup->descriptors != 0) {
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = setup->descriptors < limit.rlim_max ? setup->descriptors : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (setup->faults != NULL) {
        const char *library = getenv("INJECT_LIBRARY");
        setenv("LD_PRELOAD", library != NULL ? library : "./inject.so", 1);
        setenv("INJECT", setup->faults, 1);
        setenv("INJECT_COUNTS", counts, 1);
        setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
    }
    execv(arguments[0], (char *const *)(uintptr_t)arguments);
    dprintf(STDERR_FILENO, "%s: %s\n", arguments[0], strerror(errno));
    _exit(127);
}

/* Waits for the line "listening on ADDRESS:PORT", and takes the port from it.
 * Returns whether it came. */
static bool read_ready_line(struct server *server, int out)
{
    struct deadline deadline = deadline_start();
    size_t size = 0;

    while (size + 1 < sizeof server->line && !deadline_over(&deadline)) {
        struct pollfd ready = {.fd = out, .events = POLLIN};
        if (poll(&ready, 1, deadline_left_ms(&deadline)) <= 0)
            continue;
        ssize_t got = read(out, server->line + size, 1);
        if (got <= 0)
            return false;
        if (server->line[size++] == '\n')
            break;
    }
    server->line[size] = '\0';
    const char *colon = strrchr(server->line, ':');
    if (strncmp(server->line, "listening on ", strlen("listening on ")) != 0 || colon == NULL)
        return false;
    server->port = (uint16_t)strtoul(colon + 1, NULL, 10);
    return true;
}

struct server server_start(const struct server_setup *setup)
{
    static const struct server_setup plain;
    if (setup == NULL)
        setup = &plain;
    if (setup->command != NULL)
        chosen = setup->command;

    struct server server = {.foreign = server_is_foreign()};
    snprintf(server.address, sizeof server.address, "%s",
             setup->address != NULL ? setup->address : "127.0.0.1");
    if (server.foreign && (setup->arguments[0] != NULL || setup->address != NULL || setup->faults != NULL))
        tap_skip("needs options that only our own servers have");
    if (under_wine && setup->faults != NULL)
        tap_skip("the fault injector does not know Windows' calls");

    const char *arguments[20] = {chosen, "--address", server.address, "--port", "0"};
    char *command = NULL;
    if (server.foreign) {
        server.port = free_port();
        command = foreign_command(chosen, server.port);
        arguments[0] = "/bin/sh";
        arguments[1] = "-c";
        arguments[2] = command;
        arguments[3] = NULL;
    } else {
        for (size_t i = 0; i < own_count; i++)
            arguments[5 + i] = own_options[i];
        for (size_t i = 0; i < sizeof setup->arguments / sizeof *setup->arguments; i++)
            arguments[5 + own_count + i] = setup->arguments[i];
    }

    char counts[64] = "";
    if (setup->faults != NULL)
        map_counters(counts, sizeof counts);
    int out[2];
    char errors_path[64];
    server.errors = temporary(errors_path, sizeof errors_path);
    unlink(errors_path);
    if (pipe2(out, O_CLOEXEC) < 0)
        ck_abort_msg("pipe: %s", strerror(errno));
    server.pid = fork();
    if (server.pid < 0)
        ck_abort_msg("fork: %s", strerror(errno));
    if (server.pid == 0)
        become(arguments, out[1], server.errors, setup, counts);
    close(out[1]);

    bool ready = server.foreign ? eventually(!server_alive(&server) || client_can_connect(&server)) &&
                                      client_can_connect(&server)
                                : read_ready_line(&server, out[0]);
    if (counts[0] != '\0')
        unlink(counts);
    if (!ready) {
        static int more_tries = 2;
        const char *errors = server_errors(&server);
        if (server_alive(&server)) {
            kill(server.pid, SIGKILL);
        } else if (failed_by_wine(server_wait(&server), errors) && more_tries-- > 0) {
            close(out[0]);
            close(server.errors);
            return server_start(setup);
        }
        bool asked = false;
        for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
            asked = asked || (arguments[i] != NULL && strcmp(arguments[i], "--engine") == 0);
        if (asked && strstr(errors, " cannot be used: ") != NULL) /* this machine does not have it */
            tap_skip("%.*s", (int)strcspn(errors, "\n"), errors);
        if (server.line[0] != '\0')
            ck_abort_msg("the server did not get ready: %s; its first line: \"%.100s\"", chosen, server.line);
        ck_abort_msg("the server did not get ready: %s%s%.400s", chosen,
                     errors[0] != '\0' ? "; on stderr: " : "; it said nothing", errors);
    }
    free(command);
    if (counters != NULL && counters[0].function[0] == '\0')
        tap_skip("the fault injector could not be loaded into the server");
    /* out[0] stays open: a server that writes more shall not get SIGPIPE */
    return server;
}

/* ---- ending ---- */

static int shell_status(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int server_wait(struct server *server)
{
    struct deadline whole = deadline_start();
    int limit_ms = deadline_left_ms(&whole);
    int status = 0;
    if (!eventually(waitpid(server->pid, &status, WNOHANG) == server->pid))
        ck_abort_msg("the server had not ended %.1f s later", limit_ms / 1000.0);
    return shell_status(status);
}

int server_stop(struct server *server, int signal_number)
{
    struct deadline deadline = deadline_start();
    server_signal(server, signal_number);

    /* The thread sanitizer runs a handler only after the call that the thread is
     * in. A signal that comes just before a blocking call would so wait for ever,
     * and the alarm with it that the handler asks for; a second one ends the call. */
    for (int ms = 1; sanitized() && !server->foreign && server_alive(server) && !deadline_over(&deadline);
         ms++) {
        nap();
        if (ms % 100 == 0)
            kill(server->pid, signal_number);
    }
    return server_wait(server);
}

void assert_stops(struct server *server)
{
    int status = server_stop(server, SIGTERM);
    ck_assert_msg(status == 0, "at SIGTERM the server ended with status %d, on stderr: \"%.300s\"", status,
                  server_errors(server));
}

void server_pause(const struct server *server)
{
    siginfo_t info = {.si_pid = 0};
    kill(server->pid, SIGSTOP);
    if (waitid(P_PID, (id_t)server->pid, &info, WSTOPPED) < 0)
        ck_abort_msg("the server cannot be stopped: %s", strerror(errno));
}

bool server_alive(const struct server *server)
{
    siginfo_t info = {.si_pid = 0};
    return waitid(P_PID, (id_t)server->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

static void read_all(int fd, char *text, size_t size)
{
    size_t used = 0;
    ssize_t got;
    while (used + 1 < size && (got = pread(fd, text + used, size - 1 - used, (off_t)used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
}

const char *server_errors(const struct server *server)
{
    static char text[65536];
    read_all(server->errors, text, sizeof text);
    return text;
}

static struct run run_once(const char *const arguments[])
{
    static const struct server_setup plain;
    char out_path[64];
    char err_path[64];
    const char *all[20] = {chosen};
    for (size_t i = 0; i < own_count; i++)
        all[i + 1] = own_options[i];
    for (size_t i = 0; i < 14 && arguments[i] != NULL; i++)
        all[own_count + i + 1] = arguments[i];

    int out = temporary(out_path, sizeof out_path);
    int err = temporary(err_path, sizeof err_path);
    unlink(out_path);
    unlink(err_path);
    struct server program = {.pid = fork()};
    if (program.pid < 0)
        ck_abort_msg("fork: %s", strerror(errno));
    if (program.pid == 0)
        become(all, out, err, &plain, "");

    struct run run = {.status = server_wait(&program)};
    read_all(out, run.out, sizeof run.out);
    read_all(err, run.err, sizeof run.err);
    close(out);
    close(err);
    return run;
}

struct run run_program(const char *const arguments[])
{
    struct run run = run_once(arguments);
    for (int tries = 1; tries < 3 && failed_by_wine(run.status, run.err); tries++)
        run = run_once(arguments);
    return run;
}

void forbid_call(long system_call, int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)system_call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        tap_skip("seccomp: %s", strerror(errno));
    errno = 0;
    if (syscall(system_call, 0, NULL, 0, 0, 0, 0) != -1 || errno != error)
        tap_skip("this system call is forbidden here already, in another way: %s", strerror(errno));
}

/* ---- watching ---- */

/* Reads the start of a file; an empty text where it cannot be read, as when
 * the thread that it tells of has ended. */
static void contents(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    text[0] = '\0';
    if (fd >= 0) {
        read_all(fd, text, size);
        close(fd);
    }
}

/* Calls visit for each entry of /proc/PID/NAME; returns how many there were. */
static int each_entry(const struct server *server, const char *name,
                      void (*visit)(const char *path, void *argument), void *argument)
{
    char path[64];
    int count = 0;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)server->pid, name);
    DIR *folder = opendir(path);
    if (folder == NULL)
        tap_skip("%s: %s (this test watches the server through Linux' /proc)", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (visit != NULL) {
            char full[400];
            snprintf(full, sizeof full, "%s/%s", path, entry->d_name);
            visit(full, argument);
        }
    }
    closedir(folder);
    return count;
}

int server_threads(const struct server *server)
{
    return each_entry(server, "task", NULL, NULL);
}

/* A ring may have a table of descriptors that are in no other list: those in use are lines of a number, a
 * colon and a name. */
static void add_ring_files(const char *descriptor, void *argument)
{
    int *count = argument;
    char target[64] = "";
    char path[450];
    char line[300];
    unsigned number;

    if (readlink(descriptor, target, sizeof target - 1) < 0 || strcmp(target, "anon_inode:[io_uring]") != 0)
        return;
    const char *name = strrchr(descriptor, '/');
    snprintf(path, sizeof path, "%.*s/../fdinfo%s", (int)(name - descriptor), descriptor, name);
    FILE *file = fopen(path, "re");
    bool in_table = false;
    while (file != NULL && fgets(line, sizeof line, file) != NULL && strncmp(line, "UserBufs:", 9) != 0) {
        *count += in_table && sscanf(line, " %u: ", &number) == 1;
        in_table = in_table || strncmp(line, "UserFiles:", 10) == 0;
    }
    if (file != NULL)
        fclose(file);
}

int server_descriptors(const struct server *server)
{
    int in_rings = 0;
    return each_entry(server, "fd", add_ring_files, &in_rings) + in_rings;
}

int server_descriptors_uncertain(void)
{
    return under_wine ? 2 : 0;
}

uint64_t server_cpu_ns(const struct server *server)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(server->pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
        tap_skip("the processor time of another process cannot be read here");
    return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

static void add_wanted(const char *task, void *argument)
{
    uint64_t *sum = argument;
    char path[450];
    char text[128];
    unsigned long long used = 0;
    unsigned long long waited = 0;

    snprintf(path, sizeof path, "%s/schedstat", task);
    contents(path, text, sizeof text);
    if (sscanf(text, "%llu %llu", &used, &waited) == 2)
        *sum += used + waited;
}

uint64_t server_cpu_wanted_ns(const struct server *server)
{
    uint64_t sum = 0;
    if (access("/proc/self/schedstat", R_OK) < 0)
        tap_skip("/proc/self/schedstat: %s", strerror(errno));
    each_entry(server, "task", add_wanted, &sum);
    return sum;
}

size_t server_resident(const struct server *server)
{
    char path[64];
    unsigned long size;
    unsigned long resident;

    snprintf(path, sizeof path, "/proc/%d/statm", (int)server->pid);
    char text[128];
    contents(path, text, sizeof text);
    if (sscanf(text, "%lu %lu", &size, &resident) != 2)
        tap_skip("%s cannot be read", path);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

struct blocked {
    long system_call;
    int count;
};

static void count_blocked(const char *task, void *argument)
{
    struct blocked *blocked = argument;
    char path[450];
    char *end;

    snprintf(path, sizeof path, "%s/syscall", task);
    char text[256];
    contents(path, text, sizeof text);
    long number = strtol(text, &end, 10);
    blocked->count += end != text && number == blocked->system_call;
}

int server_blocked_in(const struct server *server, long system_call)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)server->pid);
    if (access(path, R_OK) < 0)
        tap_skip("%s: %s", path, strerror(errno));

    struct blocked blocked = {.system_call = system_call};
    each_entry(server, "task", count_blocked, &blocked);
    return blocked.count;
}

static void count_asleep(const char *task, void *argument)
{
    int *asleep = argument;
    char path[450];
    char text[256];

    snprintf(path, sizeof path, "%s/stat", task);
    contents(path, text, sizeof text);
    const char *name_end = strrchr(text, ')'); /* "PID (NAME) STATE ...", and a name may hold anything */
    *asleep += name_end != NULL && strncmp(name_end, ") S", 3) == 0;
}

bool server_asleep(const struct server *server)
{
    int asleep = 0;
    int threads = each_entry(server, "task", count_asleep, &asleep);
    return asleep == threads;
}

void server_limit_descriptors(const struct server *server, unsigned limit)
{
    struct rlimit limits;
    if (under_wine)
        tap_skip("Windows has no such limit, and under Wine another process has the sockets");
    if (prlimit(server->pid, RLIMIT_NOFILE, NULL, &limits) < 0)
        tap_skip("prlimit: %s", strerror(errno));
    limits.rlim_cur = limit;
    if (prlimit(server->pid, RLIMIT_NOFILE, &limits, NULL) < 0)
        tap_skip("prlimit: %s", strerror(errno));
}

static const struct inject_slot *slot(const char *function)
{
    if (counters == NULL)
        ck_abort_msg("the server was started without the fault injector");
    for (size_t i = 0; i < INJECT_SLOTS && counters[i].function[0] != '\0'; i++) {
        if (strcmp(counters[i].function, function) == 0)
            return &counters[i];
    }
    ck_abort_msg("the fault injector does not know %s()", function);
}

uint64_t server_calls(const struct server *server, const char *function)
{
    (void)server;
    return atomic_load(&slot(function)->calls);
}

uint64_t server_failures(const struct server *server, const char *function)
{
    (void)server;
    return atomic_load(&slot(function)->failures);
}

uint64_t server_faults(const struct server *server, const char *function)
{
    (void)server;
    return atomic_load(&slot(function)->faults);
}

/* ---- clients ---- */

/* A socket with the test's deadline on every call, and the server's address. */
static int client_socket(const struct server *server, struct sockaddr_storage *address, socklen_t *size)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    *address = (struct sockaddr_storage){0};

    if (inet_pton(AF_INET, server->address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(server->port);
        *size = sizeof *v4;
    } else if (inet_pton(AF_INET6, server->address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(server->port);
        *size = sizeof *v6;
    } else {
        ck_abort_msg("not an address: %s", server->address);
    }

    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        ck_abort_msg("socket: %s", strerror(errno));
    struct deadline deadline = deadline_start();
    int left = deadline_left_ms(&deadline);
    const struct timeval limit = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        ck_abort_msg("setsockopt: %s", strerror(errno));
    return fd;
}

bool client_can_connect(const struct server *server)
{
    struct sockaddr_storage address;
    socklen_t size;
    int fd = client_socket(server, &address, &size);
    bool connected = connect(fd, (struct sockaddr *)&address, size) == 0;
    close(fd);
    return connected;
}

int client_connect(const struct server *server)
{
    struct sockaddr_storage address;
    socklen_t size;
    int fd = client_socket(server, &address, &size);
    if (connect(fd, (struct sockaddr *)&address, size) < 0)
        ck_abort_msg("a client could not connect: %s", strerror(errno));
    return fd;
}

/* Makes room for count descriptors more in this process, and in the servers
 * that it starts from now on. */
static void need_descriptors(size_t count)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        ck_abort_msg("getrlimit: %s", strerror(errno));
    if (limit.rlim_max < count + 64)
        tap_skip("needs %zu descriptors, and the hard limit is %llu (ulimit -Hn)", count + 64,
                 (unsigned long long)limit.rlim_max);
    if (limit.rlim_cur < count + 64) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
            tap_skip("setrlimit: %s", strerror(errno));
    }
}

void client_connect_many(const struct server *server, int *descriptors, size_t count)
{
    struct sockaddr_storage address;
    socklen_t size;

    need_descriptors(count);
    for (size_t i = 0; i < count; i++) {
        descriptors[i] = client_socket(server, &address, &size);
        fcntl(descriptors[i], F_SETFL, O_NONBLOCK);
        if (connect(descriptors[i], (struct sockaddr *)&address, size) < 0 && errno != EINPROGRESS)
            ck_abort_msg("client %zu of %zu could not connect: %s", i + 1, count, strerror(errno));
    }
    struct deadline deadline = deadline_start();
    for (size_t i = 0; i < count; i++) {
        struct pollfd done = {.fd = descriptors[i], .events = POLLOUT};
        int error = ETIMEDOUT;
        socklen_t length = sizeof error;
        if (poll(&done, 1, deadline_left_ms(&deadline)) == 1)
            getsockopt(descriptors[i], SOL_SOCKET, SO_ERROR, &error, &length);
        if (error != 0)
            ck_abort_msg("client %zu of %zu could not connect: %s", i + 1, count, strerror(error));
        fcntl(descriptors[i], F_SETFL, 0);
    }
}

void client_send(int fd, const void *data, size_t size)
{
    const char *rest = data;
    while (size > 0) {
        ssize_t sent = send(fd, rest, size, MSG_NOSIGNAL);
        if (sent < 0)
            ck_abort_msg("a client could not send: %s",
                         errno == EAGAIN ? "the server took nothing until the deadline" : strerror(errno));
        rest += sent;
        size -= (size_t)sent;
    }
}

size_t client_receive(int fd, void *data, size_t size)
{
    size_t received = 0;
    while (received < size) {
        ssize_t got = recv(fd, (char *)data + received, size - received, 0);
        if (got <= 0)
            break;
        received += (size_t)got;
    }
    return received;
}

unsigned char pattern(unsigned seed, size_t position)
{
    /* No period that a buffer's size could hide, and different for each client. */
    uint64_t x = ((uint64_t)seed << 40) + position;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    return (unsigned char)(x >> 56);
}

size_t client_echo(int fd, size_t total, size_t piece, unsigned seed)
{
    struct deadline deadline = deadline_start();
    size_t sent = 0;
    size_t received = 0;
    unsigned char *buffer = malloc(piece);
    if (buffer == NULL)
        ck_abort_msg("malloc: %s", strerror(errno));

    while (received < total && !deadline_over(&deadline)) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (sent < total)
            ready.events |= POLLOUT;
        if (poll(&ready, 1, deadline_left_ms(&deadline)) <= 0)
            continue;
        if (ready.revents & POLLOUT) {
            size_t size = total - sent < piece ? total - sent : piece;
            for (size_t i = 0; i < size; i++)
                buffer[i] = pattern(seed, sent + i);
            ssize_t n = send(fd, buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0)
                sent += (size_t)n;
        }
        if (ready.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t n = recv(fd, buffer, piece, MSG_DONTWAIT);
            if (n == 0 || (n < 0 && errno != EAGAIN))
                break;
            size_t i = 0;
            while (n > 0 && i < (size_t)n && buffer[i] == pattern(seed, received + i))
                i++;
            received += i;
            if (n > 0 && i < (size_t)n)
                break;
            if (n > 0)
                deadline = deadline_start(); /* the limit is for standing still */
        }
    }
    free(buffer);
    return received;
}

bool client_gets_echo(int fd, const char *text)
{
    char back[256];
    size_t size = strlen(text);
    client_send(fd, text, size);
    return client_receive(fd, back, size) == size && memcmp(back, text, size) == 0;
}

int served_client(const struct server *server)
{
    int fd = client_connect(server);
    ck_assert_msg(client_gets_echo(fd, "hello"), "a new client said hello and got no echo");
    return fd;
}

bool talks(int client)
{
    char back;
    return send(client, "x", 1, MSG_NOSIGNAL) == 1 && recv(client, &back, 1, 0) == 1;
}

size_t client_flood(int fd, unsigned seed)
{
    unsigned char block[65536];
    const size_t most = (size_t)256 << 20;
    size_t taken = 0;
    size_t filled = 0; /* how far into the stream block has been written */

    while (taken < most) {
        for (; filled < taken + sizeof block; filled++)
            block[filled % sizeof block] = pattern(seed, filled);
        size_t from = taken % sizeof block;
        ssize_t sent = send(fd, block + from, sizeof block - from, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            taken += (size_t)sent;
            continue;
        }
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        if (errno != EAGAIN || poll(&room, 1, QUIET_MS) == 0)
            break;
    }
    return taken;
}

size_t client_receive_pattern(int fd, size_t total, unsigned seed, size_t position)
{
    unsigned char block[65536];
    size_t received = 0;

    while (received < total) {
        size_t wanted = total - received < sizeof block ? total - received : sizeof block;
        size_t got = client_receive(fd, block, wanted);
        for (size_t i = 0; i < got; i++) {
            if (block[i] != pattern(seed, position + received + i))
                return received + i;
        }
        received += got;
        if (got < wanted)
            break;
    }
    return received;
}

void client_finish(int fd)
{
    if (shutdown(fd, SHUT_WR) < 0)
        ck_abort_msg("shutdown: %s", strerror(errno));
}

void client_reset(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now) < 0)
        ck_abort_msg("SO_LINGER: %s", strerror(errno));
    close(fd);
}

enum ending client_ending(int fd)
{
    char thrown_away[65536];
    for (;;) {
        ssize_t got = recv(fd, thrown_away, sizeof thrown_away, 0);
        if (got == 0)
            return ENDED;
        if (got < 0)
            return errno == EAGAIN ? STILL_OPEN : RESET;
    }
}

bool client_hears_nothing(int fd, int milliseconds)
{
    struct pollfd something = {.fd = fd, .events = POLLIN};
    return poll(&something, 1, milliseconds) == 0;
}
