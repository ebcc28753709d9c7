/* cost.c - what a process has cost so far; see load.h.
 *
 * The CPU time comes from the process's CPU-time clock. It is the sum of what
 * /proc/PID/task/TID/schedstat has in its first field, but brought up to this
 * moment: the file may be a tick (up to 4 ms) behind for a thread that runs.
 * Needs Linux 4.14 for /proc/PID/smaps_rollup. */
#define _POSIX_C_SOURCE 200809L

#include "load.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The number after a label at the start of one of the file's lines; -1 if there is none. */
static int64_t number_after(const char *path, const char *label)
{
    char line[256];
    int64_t number = -1;
    FILE *file = fopen(path, "r");

    if (file == NULL)
        return -1;
    while (number < 0 && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, label, strlen(label)) == 0)
            number = strtoll(line + strlen(label), NULL, 10);
    }
    fclose(file);
    return number;
}

/* The second number of schedstat: ns of waiting for a processor; 0 if the kernel does not count it. */
static int64_t queued_ns(const char *path)
{
    int64_t queued = 0;
    FILE *file = fopen(path, "r");

    if (file == NULL)
        return 0;
    if (fscanf(file, "%*d %" SCNd64, &queued) != 1)
        queued = 0;
    fclose(file);
    return queued;
}

bool cost_read(pid_t pid, struct cost *cost)
{
    clockid_t clock;
    struct timespec cpu;
    char path[64];

    *cost = (struct cost){.cpu_ns = 0};
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        return false;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char file[sizeof path + sizeof task->d_name + sizeof "/schedstat"];
        if (task->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s/status", path, task->d_name);
        int64_t waits = number_after(file, "voluntary_ctxt_switches:");
        cost->waits += waits > 0 ? waits : 0; /* a thread may have ended meanwhile */
        snprintf(file, sizeof file, "%s/%s/schedstat", path, task->d_name);
        cost->queued_ns += queued_ns(file);
    }
    closedir(tasks);
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &cpu) < 0)
        return false;
    cost->cpu_ns = (int64_t)cpu.tv_sec * 1000000000 + cpu.tv_nsec;
    return true;
}

int64_t cost_memory(pid_t pid)
{
    enum { SAME = 5, LIMIT = 200 }; /* so many equal readings in a row; at most so many, 10 ms apart */
    const struct timespec pause = {.tv_nsec = 10000000};
    char path[64];
    int64_t before = -1;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    for (int i = 0, same = 0; i < LIMIT && same < SAME; i++) {
        int64_t kilobytes = number_after(path, "Private_Dirty:");
        if (kilobytes < 0)
            die("%s cannot be read: the server has ended, or the kernel is older than Linux 4.14", path);
        same = kilobytes == before ? same + 1 : 0;
        before = kilobytes;
        nanosleep(&pause, NULL);
    }
    return before * 1024;
}
