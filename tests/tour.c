/* tour.c - every server of the book, driven by the same clients, in one table.
 *
 * Each server is started, measured from outside, and ended, one after the
 * other. Nothing here knows what a figure ought to be: all are measured now.
 *
 * Needs POSIX.1-2008. Where the system has them, also: /proc/PID/task for the
 * threads, clock_getcpuclockid() for the CPU time, strace for the system calls,
 * /proc/loadavg, and PR_SET_PDEATHSIG so that no server outlives a tour that
 * was killed. Where one is missing, its column says so.
 * Try: make tour, or ./tour in the tests folder of the build. */
#define _POSIX_C_SOURCE 200809L

#include "tour.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The servers, in the order of the book. A new one needs a line here only. */
static const struct model {
    int chapter;
    const char *folder;
    const char *name;
    const char *notice;
    const char *engine; /* of the proactor; the row bears its name, and may be missing on this machine */
} models[] = {
    {1, "ch01-blocking", "iterative", "one client at a time: all others wait until it has left", NULL},
    {1, "ch01-blocking", "threaded", "nobody waits for another; see how many threads that takes", NULL},
    {2, "ch02-nonblocking", "nonblocking",
     "one thread asks all in turn; see its calls, and the CPU in silence", NULL},
    {3, "ch03-select-poll", "select", "one thread sleeps until somebody is ready; only so many fit in a set",
     NULL},
    {3, "ch03-select-poll", "poll", "the same, for any number; all are looked through at each call", NULL},
    {4, "ch04-epoll", "level", "the kernel keeps the list, and names only those who are ready", NULL},
    {4, "ch04-epoll", "edge", "and says so once, so that the server keeps in mind who is ready", NULL},
    {5, "ch05-kqueue", "kqueue", "changes go along with the call that waits, for files and signals, too",
     NULL},
    {6, "ch06-reactor", "reactor",
     "the loop is a library; what it costs over edge is a call through a pointer", NULL},
    {7, "ch07-proactor-iouring", "proactor",
     "proactor on io_uring: the kernel receives and sends; with many at once, few calls", "io_uring"},
    {7, "ch07-proactor-iouring", "proactor", "the same proactor where there is no io_uring: made of poll",
     "emulated"},
};
enum { MODELS = sizeof models / sizeof *models };

static const char *label(const struct model *model)
{
    return model->engine != NULL ? model->engine : model->name;
}

/* The load, the same for all; a server takes about 3 seconds. */
enum {
    STAYING = MAX_CLIENTS, /* clients that ask once, and stay */
    ASKING = 50,           /* clients that ask again and again */
    PATIENT = 10,          /* clients that do so while another one refuses to read */

    SILENCE_MS = 500, /* how long the CPU time is measured */
    SLICES = 8,       /* the rate is that of the best of so many slices of the time, */
    SLICE_MS = 100,   /* since other work may take the processors away for some */
    WARM_UP_MS = 100, /* latencies in this time are not counted */
    LATENCY_MS = 500, /* latencies in this time are */
    TRACED = 500,     /* answers while strace counts, if there are so many in TRACED_MS */
    TRACED_MS = 500,

    /* The longest waits: for a server to be ready, to exit when it has closed
     * its standard output, and to end when it is told to; for strace to
     * attach and to report, for connections, for one more client to be answered
     * (again, ANSWER_ROUNDS times), for a flood. */
    START_MS = 5000,
    EXIT_MS = 200,
    STOP_MS = 3000,
    ATTACH_MS = 2000,
    CONNECT_MS = 400,
    ANSWER_MS = 400,
    ANSWER_ROUNDS = 5,
    FLOOD_MS = 1000,
};

/* ---- The figures of a server: a row of the table ---- */

enum { CELL_SIZE = 16, TROUBLE_SIZE = 128 };

enum column { SERVED, THREADS, CALLS, CPU, RATE, RATE_CLIENTS, P50, P99, COLUMNS };

struct row {
    char cells[COLUMNS][CELL_SIZE];
    char trouble[TROUBLE_SIZE]; /* what went wrong, or "" */
};

struct run {
    uint16_t port;
    struct client clients[STAYING];
    struct row row;
};

static void put(struct run *run, enum column column, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(run->row.cells[column], CELL_SIZE, format, values);
    va_end(values);
}

/* How many threads the server has, or -1 where the system does not tell. */
static int count_threads(void)
{
    char path[64];
    int threads = 0;

    snprintf(path, sizeof path, "/proc/%d/task", (int)child_pid(SERVER));
    DIR *folder = opendir(path);
    if (folder == NULL)
        return -1;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        threads += entry->d_name[0] != '.';
    closedir(folder);
    return threads;
}

/* CPU time that the server has used, or -1 where the system does not tell. */
static double cpu_seconds(void)
{
#if defined _POSIX_CPUTIME && _POSIX_CPUTIME >= 0
    clockid_t clock;
    struct timespec used;

    if (clock_getcpuclockid(child_pid(SERVER), &clock) == 0 && clock_gettime(clock, &used) == 0)
        return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
#endif
    return -1;
}

/* Clients come, say something, and stay. */
static void measure_serving(struct run *run)
{
    size_t answered = 0;

    clients_connect(run->clients, STAYING, run->port, CONNECT_MS);
    clients_ask(run->clients, STAYING);
    for (int round = 0; round < ANSWER_ROUNDS && answered < STAYING; round++) {
        size_t more = drive(run->clients, STAYING, ANSWER_MS, STAYING - answered, false).answered;
        if (more == 0)
            break;
        answered += more;
    }
    put(run, SERVED, "%zu", answered);
    int threads = count_threads();
    if (threads >= 0)
        put(run, THREADS, "%d", threads);
}

/* They say nothing, answered or not. */
static void measure_silence(struct run *run)
{
    double before = cpu_seconds();
    int64_t begin = now_ns();

    poll(NULL, 0, SILENCE_MS);
    if (before >= 0)
        put(run, CPU, "%.1f", 100e9 * (cpu_seconds() - before) / (double)(now_ns() - begin));
}

/* Adds up the column "calls" of strace's summary, whose lines are: % time,
 * seconds, microseconds per call, calls, sometimes errors, name. */
static long sum_calls(char *report)
{
    long sum = 0;
    long calls;

    for (char *line = strtok(report, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strstr(line, "total") == NULL && sscanf(line, "%*f %*f %*d %ld", &calls) == 1)
            sum += calls;
    }
    return sum;
}

/* One of them speaks, with strace attached to the server. */
static void measure_calls(struct run *run)
{
    static char report[1 << 16];
    char pid[16];
    const char *const arguments[] = {"strace", "-f", "-c", "-p", pid, NULL};
    struct client *speaker = run->clients;
    int status;

    while (speaker < run->clients + STAYING && (speaker->fd < 0 || speaker->waiting))
        speaker++;
    if (speaker == run->clients + STAYING)
        return; /* nobody was served */

    report[0] = '\0';
    snprintf(pid, sizeof pid, "%d", (int)child_pid(SERVER));
    int from = child_start(TRACER, arguments, STDERR_FILENO);
    put(run, CALLS, "timed out");
    if (read_until(from, "attached", report, sizeof report, ATTACH_MS)) {
        clients_ask(speaker, 1);
        size_t answers = drive(speaker, 1, TRACED_MS, TRACED, true).answers;
        kill(child_pid(TRACER), SIGINT);
        if (answers > 0 && read_until(from, NULL, report, sizeof report, ATTACH_MS))
            put(run, CALLS, "%.1f", (double)sum_calls(report) / (double)answers);
        child_end(TRACER, SIGKILL, ATTACH_MS, &status);
    } else if (child_end(TRACER, SIGKILL, ATTACH_MS, &status) && WIFEXITED(status)) {
        put(run, CALLS, WEXITSTATUS(status) == NOT_RUN ? "no strace" : "no ptrace");
    }
    close(from);
}

/* They leave, and others come who ask and ask again. */
static void measure_rate(struct run *run)
{
    double best = 0;
    size_t answered = 0; /* clients, in the slice in which the most were */

    clients_close(run->clients, STAYING);
    clients_connect(run->clients, ASKING, run->port, CONNECT_MS);
    clients_ask(run->clients, ASKING);
    for (int slice = 0; slice < SLICES; slice++) {
        struct drive result = drive(run->clients, ASKING, SLICE_MS, MAX_ANSWERS, true);
        double rate = (double)result.answers / result.seconds;
        best = rate > best ? rate : best;
        answered = result.answered > answered ? result.answered : answered;
    }
    put(run, RATE, "%.1f", best / 1000);
    put(run, RATE_CLIENTS, "%zu", answered);
    clients_close(run->clients, ASKING);
}

static int compare_latencies(const void *left, const void *right)
{
    const uint32_t *a = left;
    const uint32_t *b = right;
    return (*a > *b) - (*a < *b);
}

/* One comes who asks for a lot and does not read the answer; after it, others who
 * ask and ask again. A client that is never answered waits for ever, and one of
 * PATIENT clients is more than the hundredth part that p99 leaves out. */
static void measure_latency(struct run *run)
{
    struct client *refusing = &run->clients[PATIENT];

    clients_connect(refusing, 1, run->port, CONNECT_MS);
    if (refusing->fd >= 0)
        client_flood(refusing, FLOOD_MS);
    clients_connect(run->clients, PATIENT, run->port, CONNECT_MS);
    clients_ask(run->clients, PATIENT);
    drive(run->clients, PATIENT, WARM_UP_MS, MAX_ANSWERS, true);
    struct drive result = drive(run->clients, PATIENT, LATENCY_MS, MAX_ANSWERS, true);
    qsort(result.latency_ns, result.answers, sizeof *result.latency_ns, compare_latencies);
    put(run, P50, "stalled");
    put(run, P99, "stalled");
    if (result.answers > 0)
        put(run, P50, "%.3f", result.latency_ns[result.answers / 2] / 1e6);
    if (result.answered == PATIENT)
        put(run, P99, "%.3f", result.latency_ns[result.answers * 99 / 100] / 1e6);
    clients_close(run->clients, PATIENT + 1);
}

/* ---- The table ---- */

static void flush_output(void)
{
    if (fflush(stdout) != 0)
        die("standard output");
}

/* On a terminal, shows what is being done; NULL clears the line again. */
static void progress(const char *name, const char *doing)
{
    if (!isatty(STDOUT_FILENO))
        return;
    printf("\r%70s\r", "");
    if (doing != NULL)
        printf("   %-12s %s ...", name, doing);
    flush_output();
}

/* How many processes wanted a processor in the last minute: other work makes
 * every time longer, so a reader ought to know of it. */
static void print_load(void)
{
    double load;
    FILE *file = fopen("/proc/loadavg", "r");
    if (file == NULL)
        return;
    if (fscanf(file, "%lf", &load) == 1)
        printf(", load average %.1f", load);
    fclose(file);
}

static void print_head(void)
{
    struct utsname system;
    if (uname(&system) < 0)
        die("uname");
    printf("Each server in turn, driven by the same clients with messages of %d bytes.\nThis machine: ",
           MESSAGE_SIZE);
#ifdef _SC_NPROCESSORS_ONLN
    printf("%ld processors, ", sysconf(_SC_NPROCESSORS_ONLN));
#endif
    printf("%s %s, %s", system.sysname, system.release, system.machine);
    print_load();
    printf(".\n\n               | %3d clients come, and stay            | %2d ask again    | %2d as well, "
           "while\n"
           "               |                   1 speaks:   silent: | and again       | one never reads\n"
           "               |                   calls per    CPU, %% |   1,000         |    latency, ms\n"
           "Ch Server      | served  threads    message  of a core |  msgs/s  served |     p50      p99\n"
           "---------------+---------------------------------------+-----------------+------------------\n",
           STAYING, ASKING, PATIENT);
    flush_output();
}

static void print_row(const struct model *model, const struct row *row)
{
    const char(*cells)[CELL_SIZE] = row->cells;

    progress(NULL, NULL);
    printf("%2d %-12s| %6s  %7s  %9s  %9s | %7s  %6s | %7s  %7s\n", model->chapter, label(model),
           cells[SERVED], cells[THREADS], cells[CALLS], cells[CPU], cells[RATE], cells[RATE_CLIENTS],
           cells[P50], cells[P99]);
    flush_output();
}

/* ---- A server, from its start to its end ---- */

static const struct step {
    const char *doing;
    void (*measure)(struct run *run);
} steps[] = {
    {"serving clients that stay", measure_serving},
    {"keeping silent clients", measure_silence},
    {"counting system calls", measure_calls},
    {"answering all the time", measure_rate},
    {"facing a client that never reads", measure_latency},
};

/* Describes how a process ended, as waitpid() tells it. */
static void tell_end(char *text, const char *when, int status)
{
    if (WIFSIGNALED(status))
        snprintf(text, TROUBLE_SIZE, "%s: signal %d (%s)", when, WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(text, TROUBLE_SIZE, "%s: exit status %d", when, WEXITSTATUS(status));
}

/* Starts the server and waits for its line "listening on 127.0.0.1:PORT".
 * Returns its standard output, which is to stay open while it runs, or -1. */
static int start_server(struct run *run, const char *path, const char *engine)
{
    const char *const arguments[] = {path, "--port", "0", engine != NULL ? "--engine" : NULL, engine, NULL};
    char line[128] = "";
    int status;
    int out = child_start(SERVER, arguments, STDOUT_FILENO);
    bool spoke = read_until(out, "\n", line, sizeof line, START_MS);
    const char *colon = strrchr(line, ':');

    if (spoke && strncmp(line, "listening on ", strlen("listening on ")) == 0 && colon != NULL) {
        run->port = (uint16_t)strtoul(colon + 1, NULL, 10);
        return out;
    }
    if (child_ended(SERVER, EXIT_MS, &status)) {
        tell_end(run->row.trouble, "did not start", status);
    } else {
        child_end(SERVER, SIGTERM, STOP_MS, &status);
        snprintf(run->row.trouble, TROUBLE_SIZE, "did not say that it is listening");
    }
    close(out);
    return -1;
}

/* Takes all measures, as long as the server lives. A measure in which it ended
 * is worth nothing. */
static void measure(struct run *run, const char *name)
{
    int status;
    char when[64];

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct row before = run->row;
        progress(name, steps[i].doing);
        steps[i].measure(run);
        if (child_ended(SERVER, 0, &status)) {
            run->row = before;
            snprintf(when, sizeof when, "ended while %s", steps[i].doing);
            tell_end(run->row.trouble, when, status);
            clients_close(run->clients, STAYING);
            return;
        }
    }
    if (!child_end(SERVER, SIGTERM, STOP_MS, &status))
        snprintf(run->row.trouble, TROUBLE_SIZE, "did not stop, and had to be killed");
    else if (status != 0)
        tell_end(run->row.trouble, "stopped badly", status);
}

/* The row of one server. Returns NULL, or why there is none. */
static const char *tour(const struct model *model, struct row *row)
{
    static struct run run;
    char path[128];

    run = (struct run){.port = 0};
    for (size_t i = 0; i < STAYING; i++)
        run.clients[i].fd = -1;
    for (int column = 0; column < COLUMNS; column++)
        put(&run, (enum column)column, "-");

    snprintf(path, sizeof path, "../%s/%s", model->folder, model->name);
    if (access(path, F_OK) < 0)
        return "not built here";
    progress(label(model), "starting");
    int out = start_server(&run, path, model->engine);
    if (out < 0 && model->engine != NULL)
        return "cannot be used here, as the line above says";
    if (out >= 0) {
        measure(&run, label(model));
        close(out);
    }
    *row = run.row;
    return NULL;
}

static void print_notes(void)
{
    printf("\nWhat to notice, and the chapter that tells why:\n");
    for (size_t i = 0; i < MODELS; i++)
        printf("   %-12s  %s (chapter %d)\n", label(&models[i]), models[i].notice, models[i].chapter);
    printf(
        "\nAll was measured just now, msgs/s in the best of %d slices of %d ms. Other work on the machine,\n"
        "which the load average shows, makes figures vary: compare the rows with each other.\n",
        SLICES, SLICE_MS);
    flush_output();
}

int main(void)
{
    static struct row rows[MODELS];
    int built = 0;
    int failed = 0;

    children_guard();
    print_head();
    for (size_t i = 0; i < MODELS; i++) {
        const char *missing = tour(&models[i], &rows[i]);
        if (missing != NULL) {
            printf("%2d %-12s| %s\n", models[i].chapter, label(&models[i]), missing);
            flush_output();
            continue;
        }
        print_row(&models[i], &rows[i]);
        built++;
    }
    print_notes();
    for (size_t i = 0; i < MODELS; i++) {
        if (rows[i].trouble[0] == '\0')
            continue;
        fprintf(stderr, "tour: %s: %s\n", label(&models[i]), rows[i].trouble);
        failed++;
    }
    if (built == 0)
        fprintf(stderr, "tour: no server was found: start it with `make tour`\n");
    return built > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
