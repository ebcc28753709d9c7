/* load.c - the load generator: clients in a closed loop, who check each byte.
 *
 * Each client sends a message, waits for its echo, and sends the next one; with
 * --pipeline it has several under way. Prints what it saw, and with --pid what
 * that cost the server, as lines of a name and a number. A wrong byte, a
 * connection that the server closed, or 10 seconds of silence end it with
 * status 1 and a message.
 * Needs Linux, for epoll and /proc.
 * Try: ./load --port 7007 --connections 50 --pid "$(pidof edge)" */
#define _POSIX_C_SOURCE 200809L

#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void die(const char *format, ...)
{
    va_list arguments;

    fputs("load: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void print_help(void)
{
    puts("Usage: load --port PORT [OPTION]...\n"
         "Loads a TCP echo server on 127.0.0.1, and checks every byte.\n\n"
         "  --pid PID          the server's process: print what the load cost it\n"
         "  --connections C    open so many (1)\n"
         "  --active A         so many of them speak, spread evenly among all (all)\n"
         "  --size S           bytes of a message (64)\n"
         "  --pipeline P       messages that a client has under way at once (1)\n"
         "  --step             all ask at the same moment, and again when all have their answers\n"
         "  --spin             never sleep, so that no server has the cost of waking the clients\n"
         "  --seconds T        measure so long (1)\n"
         "  --warmup T         and so long before that, without measuring (0.1)\n"
         "  --messages N       or until so many are answered\n"
         "  --turns            measure once for each line that comes on standard input\n"
         "  --idle             print the server's memory for each connection instead; needs --pid");
}

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);

    if (*text == '\0' || *end != '\0' || !(value >= least && value <= most)) {
        fprintf(stderr, "load: --%s %s: not a number from %.0f to %.0f\n", name, text, least, most);
        exit(2);
    }
    return value;
}

static void wrong_use(const char *why)
{
    fprintf(stderr, "load: %s; try --help\n", why);
    exit(2);
}

static struct options read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},
        {"pid", required_argument, NULL, 'i'},
        {"connections", required_argument, NULL, 'c'},
        {"active", required_argument, NULL, 'a'},
        {"size", required_argument, NULL, 's'},
        {"pipeline", required_argument, NULL, 'l'},
        {"step", no_argument, NULL, 't'},
        {"spin", no_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 'T'},
        {"warmup", required_argument, NULL, 'w'},
        {"messages", required_argument, NULL, 'm'},
        {"idle", no_argument, NULL, 'I'},
        {"turns", no_argument, NULL, 'u'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.connections = 1, .size = 64, .pipeline = 1, .warmup = 0.1, .seconds = 1};
    int option;
    int which;

    while ((option = getopt_long(argc, argv, "", known, &which)) != -1) {
        const char *name = option == '?' ? "" : known[which].name;
        switch (option) {
        case 'p':
            options.port = (uint16_t)number(name, optarg, 1, 65535);
            break;
        case 'i':
            options.pid = (pid_t)number(name, optarg, 1, 1 << 30);
            break;
        case 'c':
            options.connections = (size_t)number(name, optarg, 1, 1000000);
            break;
        case 'a':
            options.active = (size_t)number(name, optarg, 1, 1000000);
            break;
        case 's':
            options.size = (size_t)number(name, optarg, 1, 64 << 20);
            break;
        case 'l':
            options.pipeline = (size_t)number(name, optarg, 1, 100000);
            break;
        case 't':
            options.step = true;
            break;
        case 'n':
            options.spin = true;
            break;
        case 'T':
            options.seconds = number(name, optarg, 0, 3600);
            break;
        case 'w':
            options.warmup = number(name, optarg, 0, 3600);
            break;
        case 'm':
            options.messages = (uint64_t)number(name, optarg, 1, 1e15);
            break;
        case 'I':
            options.idle = true;
            break;
        case 'u':
            options.turns = true;
            break;
        case 'h':
            print_help();
            exit(EXIT_SUCCESS);
        default: /* getopt_long() has said what is wrong */
            exit(2);
        }
    }
    if (optind < argc)
        wrong_use("there is an argument too many");
    if (options.port == 0)
        wrong_use("--port is missing");
    if (options.idle && options.pid == 0)
        wrong_use("--idle needs --pid");
    if (options.active == 0)
        options.active = options.connections;
    if (options.active > options.connections)
        wrong_use("--active is more than --connections");
    return options;
}

/* All clients ask once, and have their answers. */
static struct clients *opened_and_heard(const struct options *options)
{
    struct clients *clients = clients_open(options);
    clients_run(clients, 0, 0, NULL);
    return clients;
}

/* What a connection costs that has spoken once and is now silent. A few others
 * have come and gone before, so that what the server needs only once is there. */
static void measure_idle(struct options options)
{
    options.step = true;
    options.active = options.connections;
    struct options few = options;
    if (few.connections > 100)
        few.active = few.connections = 100;
    clients_close(opened_and_heard(&few));

    int64_t before = cost_memory(options.pid);
    struct clients *clients = opened_and_heard(&options);
    int64_t after = cost_memory(options.pid);
    clients_close(clients);
    printf("memory_before_bytes %" PRId64 "\nmemory_after_bytes %" PRId64 "\nmemory_per_connection %.1f\n",
           before, after, (double)(after - before) / (double)options.connections);
}

static struct cost read_cost(const struct options *options)
{
    struct cost cost = {.cpu_ns = 0};
    if (options->pid != 0 && !cost_read(options->pid, &cost))
        die("process %d, the server, has ended", (int)options->pid);
    return cost;
}

static void report(const struct latency *latency, uint64_t messages, double ns)
{
    static const struct {
        const char *name;
        double share;
    } percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};

    printf("messages %" PRIu64 "\nseconds %.6f\nmessages_per_second %.1f\n", messages, ns / 1e9,
           (double)messages / ns * 1e9);
    for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++)
        printf("latency_%s_us %.1f\n", percentiles[i].name,
               (double)latency_percentile(latency, percentiles[i].share) / 1e3);
}

static void measure(const struct options *options, struct clients *clients)
{
    static struct latency latency;
    memset(&latency, 0, sizeof latency);
    if (options->warmup > 0)
        clients_run(clients, (int64_t)(options->warmup * 1e9), 0, NULL);

    struct cost own_before = {0};
    struct cost own_after = {0};
    cost_read(getpid(), &own_before);
    struct cost before = read_cost(options);
    int64_t begin = now_ns();
    uint64_t messages = clients_run(clients, (int64_t)(options->seconds * 1e9), options->messages, &latency);
    double ns = (double)(now_ns() - begin);
    struct cost after = read_cost(options);
    cost_read(getpid(), &own_after);

    report(&latency, messages, ns);
    printf("own_queued_share %.4f\n", (double)(own_after.queued_ns - own_before.queued_ns) / ns);
    if (options->pid == 0)
        return;
    double count = (double)messages;
    printf("cpu_ns_per_message %.1f\n", (double)(after.cpu_ns - before.cpu_ns) / count);
    printf("waits_per_message %.5f\n", (double)(after.waits - before.waits) / count);
    printf("queued_share %.4f\n", (double)(after.queued_ns - before.queued_ns) / ns);
}

/* Measures once; or, with --turns, once for each line on standard input, so
 * that several servers with their clients can take turns in short slices: what
 * else the machine does then disturbs all of them alike. */
static void measure_all(const struct options *options)
{
    struct clients *clients = clients_open(options);
    char line[16];

    if (!options->turns)
        measure(options, clients);
    while (options->turns && fgets(line, sizeof line, stdin) != NULL) {
        measure(options, clients);
        puts("end");
        if (fflush(stdout) != 0)
            die("standard output: %s", strerror(errno));
    }
    clients_close(clients);
}

int main(int argc, char **argv)
{
    struct options options = read_options(argc, argv);
    if (options.idle)
        measure_idle(options);
    else
        measure_all(&options);
    if (fflush(stdout) != 0)
        die("standard output: %s", strerror(errno));
    return EXIT_SUCCESS;
}
