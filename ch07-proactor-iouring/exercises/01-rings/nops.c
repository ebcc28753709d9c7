/* Exercise 07-1, given: a client says what is to be done with a ring.
 *
 *   open ENTRIES   opens one, of so many entries
 *   put COUNT      puts so many no-ops, numbered one after the other, or fewer if there is no room
 *   enter WAIT     hands them over, and waits for so many completions
 *   take COUNT     takes so many completions, or fewer if there are no more
 *   run COUNT      all of that, again and again, until so many no-ops are done
 *   close          closes it
 *
 * One client after the other.
 * Needs POSIX.1-2008. */
#define _POSIX_C_SOURCE 200809L

#include "net.h"
#include "ring.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A ring, and how far the numbers have got. */
struct state {
    struct ring *ring;
    uint64_t put;
    uint64_t taken;
};

static uint64_t put(struct state *state, uint64_t count)
{
    uint64_t done = 0;
    while (done < count && ring_put(state->ring, state->put)) {
        state->put++;
        done++;
    }
    return done;
}

/* Returns how many it took; when one was wrong, it has written which, and returns -1. */
static int64_t take(struct state *state, uint64_t count, FILE *out)
{
    int64_t done = 0;
    uint64_t number;
    int result;
    for (; (uint64_t)done < count && ring_take(state->ring, &number, &result); done++, state->taken++) {
        if (number != state->taken || result != 0) {
            fprintf(out, "completion %" PRIu64 " has user data %" PRIu64 " and result %d\n", state->taken,
                    number, result);
            return -1;
        }
    }
    return done;
}

static void run(struct state *state, uint64_t count, FILE *out)
{
    uint64_t end = state->taken + count;
    while (state->taken < end) {
        uint64_t given = put(state, end - state->put);
        int entered = ring_enter(state->ring, (unsigned)given);
        if (given == 0 || entered < 0 || (uint64_t)entered != given) {
            fprintf(out, "put %" PRIu64 ", entered %d\n", given, entered);
            return;
        }
        int64_t taken = take(state, given, out);
        if (taken < 0)
            return;
        if ((uint64_t)taken != given) {
            fprintf(out, "put %" PRIu64 ", took %" PRId64 "\n", given, taken);
            return;
        }
    }
    fprintf(out, "ran %" PRIu64 "\n", count);
}

static void end(struct state *state)
{
    if (state->ring != NULL)
        ring_close(state->ring);
    *state = (struct state){0};
}

static void on_line(struct state *state, const char *line, FILE *out)
{
    char word[8] = "";
    uint64_t number = 0;
    sscanf(line, "%7s %" SCNu64, word, &number);

    if (strcmp(word, "open") == 0) {
        end(state);
        state->ring = ring_open((unsigned)number);
        fprintf(out, "%s\n", state->ring != NULL ? "open" : strerror(errno));
    } else if (state->ring == NULL) {
        fputs("there is no ring\n", out);
    } else if (strcmp(word, "put") == 0) {
        fprintf(out, "put %" PRIu64 "\n", put(state, number));
    } else if (strcmp(word, "enter") == 0) {
        fprintf(out, "entered %d\n", ring_enter(state->ring, (unsigned)number));
    } else if (strcmp(word, "take") == 0) {
        int64_t taken = take(state, number, out);
        if (taken >= 0)
            fprintf(out, "took %" PRId64 "\n", taken);
    } else if (strcmp(word, "run") == 0) {
        run(state, number, out);
    } else if (strcmp(word, "close") == 0) {
        end(state);
        fputs("closed\n", out);
    } else {
        fputs("what?\n", out);
    }
}

static void serve(int fd)
{
    struct state state = {0};
    char line[64];
    FILE *in = fdopen(fd, "r");
    FILE *out = fdopen(dup(fd), "w");

    if (in == NULL || out == NULL)
        net_die("fdopen");
    while (fgets(line, sizeof line, in) != NULL && !net_stopping()) {
        on_line(&state, line, out);
        if (fflush(out) != 0)
            break;
    }
    end(&state);
    fclose(in);
    fclose(out);
}

int main(int argc, char **argv)
{
    struct net_options options;
    net_options(&options, argc, argv, "no-ops, through io_uring's rings", NULL, 0);
    net_catch_signals();
    int listener = net_listen(&options);
    while (!net_stopping()) {
        int fd = net_accept(listener);
        if (fd >= 0)
            serve(fd);
        else if (errno == EMFILE)
            net_pause();
    }
    return EXIT_SUCCESS;
}
