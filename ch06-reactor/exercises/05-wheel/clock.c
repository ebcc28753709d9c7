/* Exercise 06-5, given: timers on a clock that the client sets.
 *
 * Each client has a wheel of its own, with timers that are known by number, and says what time it is:
 *   set N DUE        sets timer N
 *   cancel N         cancels it
 *   now TIME         which ones are due? Answered as "expired N N..."
 *   next             when to look again?
 *   run TIME         looks whenever the wheel asks for it, until TIME: "expired N@TIME...; looks COUNT"
 *   crowd COUNT      sets timers 0 to COUNT - 1, all for a time far away
 *   churn COUNT      sets each of the crowd COUNT times, to other times
 *   nexts COUNT      asks so many times when to look again
 *   wheel            is each timer in the slot where it belongs?
 *
 * And "in MS" sets a timer of the reactor, whose wheel is of the same kind; when it has expired the
 * answer is "it is time".
 * Needs POSIX.1-2008. */
#define _POSIX_C_SOURCE 200809L

#include "acceptor.h"
#include "conn.h"
#include "loops.h"
#include "net.h"
#include "reactor.h"
#include "timers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    TIMERS_MOST = 100000,
    LINE_SIZE = 64,
    FAR_MS = 1000000, /* the times of a crowd: from here on, and as much again */
};

struct client {
    struct event_handler handler;
    struct acceptor *acceptor;
    struct reactor_timer alarm; /* a real one */
    struct timers wheel;
    struct reactor_timer *timers; /* by number */
    size_t crowd;
    size_t size; /* of the line so far */
    char line[LINE_SIZE];
};

static void drop(struct reactor *reactor, struct client *client)
{
    reactor_cancel_timer(reactor, &client->alarm);
    reactor_remove(reactor, &client->handler);
    close(client->handler.fd);
    acceptor_resume(client->acceptor, reactor);
    timers_free(&client->wheel);
    free(client->timers);
    free(client);
}

static void answer(const struct client *client, const char *text)
{
    if (send(client->handler.fd, text, strlen(text), 0) != (ssize_t)strlen(text))
        net_log(client->handler.fd, "did not take its answer", 0);
}

static void on_alarm(struct reactor *reactor, struct reactor_timer *timer)
{
    (void)reactor;
    answer((const struct client *)((const char *)timer - offsetof(struct client, alarm)), "it is time\n");
}

/* Takes out all that is due, and writes it down. */
static void take_out(struct client *client, int64_t now_ms, FILE *out, bool with_time)
{
    struct reactor_timer *timer;
    while ((timer = timers_expired(&client->wheel, now_ms)) != NULL) {
        fprintf(out, " %td", timer - client->timers);
        if (with_time)
            fprintf(out, "@%lld", (long long)now_ms);
    }
}

static void run_until(struct client *client, int64_t end_ms, FILE *out)
{
    enum { LOOKS_MOST = 100000 };
    int64_t next_ms;
    int looks = 0;

    fputs("expired", out);
    while ((next_ms = timers_next(&client->wheel)) <= end_ms && looks < LOOKS_MOST) {
        take_out(client, next_ms, out, true);
        looks++;
    }
    fprintf(out, "; looks %d\n", looks);
}

/* Follows a list. Returns how many are in it, or 0 after it has written what is wrong. */
static size_t inspect(const struct client *client, size_t slot, FILE *out)
{
    const struct timers *wheel = &client->wheel;
    size_t count = 0;
    size_t before = 0;

    for (size_t place = wheel->slots[slot]; place != 0; place = wheel->entries[place].next) {
        const struct timer_entry *entry = &wheel->entries[place];
        if (count++ == wheel->count) {
            fprintf(out, "the list of slot %zu never ends\n", slot);
            return 0;
        }
        if (entry->timer == NULL || entry->timer->place != place || entry->previous != before) {
            fprintf(out, "the list of slot %zu is broken at its entry %zu\n", slot, count);
            return 0;
        }
        int64_t due_ms = entry->timer->due_ms;
        int64_t tick = due_ms / WHEEL_TICK_MS < wheel->tick ? wheel->tick : due_ms / WHEEL_TICK_MS;
        if ((size_t)(tick % WHEEL_SLOTS) != slot || entry->slot != slot) {
            fprintf(out,
                    "timer %td is due at %lld ms, in tick %lld, and the hand is at tick %lld; it is in the "
                    "list of "
                    "slot %zu, and not of slot %zu\n",
                    entry->timer - client->timers, (long long)due_ms, (long long)(due_ms / WHEEL_TICK_MS),
                    (long long)wheel->tick, slot, (size_t)(tick % WHEEL_SLOTS));
            return 0;
        }
        before = place;
    }
    return count;
}

static void inspect_all(const struct client *client, FILE *out)
{
    size_t count = 0;
    for (size_t slot = 0; slot < WHEEL_SLOTS; slot++) {
        size_t here = client->wheel.slots[slot] == 0 ? 0 : inspect(client, slot, out);
        if (here == 0 && client->wheel.slots[slot] != 0)
            return;
        count += here;
    }
    if (count != client->wheel.count)
        fprintf(out, "%zu timers are set, and %zu are in the lists\n", client->wheel.count, count);
    else
        fputs("fine\n", out);
}

static void set(struct client *client, size_t number, int64_t due_ms)
{
    if (timers_set(&client->wheel, &client->timers[number], due_ms) < 0)
        net_die("timers_set");
}

/* Sets the timers of the crowd, one after the other, to times that depend on the round. */
static void set_crowd(struct client *client, size_t round)
{
    for (size_t i = 0; i < client->crowd; i++) {
        if ((i + round) % 3 == 0)
            timers_cancel(&client->wheel, &client->timers[i]);
        set(client, i, FAR_MS + (int64_t)((i * 7919 + round * 104729) % FAR_MS));
    }
}

static void on_line(struct reactor *reactor, struct client *client, const char *line, FILE *out)
{
    char word[LINE_SIZE] = "";
    unsigned long number = 0;
    long long time = 0;
    sscanf(line, "%63s %lu %lld", word, &number, &time);

    if (strcmp(word, "now") == 0 || strcmp(word, "run") == 0)
        time = (long long)number;
    else if ((strcmp(word, "crowd") == 0 ? number - 1 : number) >= TIMERS_MOST && strcmp(word, "in") != 0)
        word[0] = '\0';

    if (strcmp(word, "set") == 0) {
        set(client, number, time);
        fputs("set\n", out);
    } else if (strcmp(word, "cancel") == 0) {
        timers_cancel(&client->wheel, &client->timers[number]);
        fputs("cancelled\n", out);
    } else if (strcmp(word, "now") == 0) {
        fputs("expired", out);
        take_out(client, time, out, false);
        fputs("\n", out);
    } else if (strcmp(word, "run") == 0) {
        run_until(client, time, out);
    } else if (strcmp(word, "crowd") == 0) {
        client->crowd = number;
        set_crowd(client, 0);
        fputs("set\n", out);
    } else if (strcmp(word, "churn") == 0) {
        for (size_t i = 1; i <= number; i++)
            set_crowd(client, i);
        fputs("set\n", out);
    } else if (strcmp(word, "next") == 0 || strcmp(word, "nexts") == 0) {
        int64_t next_ms = timers_next(&client->wheel);
        for (size_t i = 1; i < number; i++)
            next_ms = timers_next(&client->wheel);
        if (next_ms == INT64_MAX)
            fputs("never\n", out);
        else
            fprintf(out, "next %lld\n", (long long)next_ms);
    } else if (strcmp(word, "wheel") == 0) {
        inspect_all(client, out);
    } else if (strcmp(word, "in") == 0 && reactor_set_timer(reactor, &client->alarm, (int64_t)number) == 0) {
        return; /* answered when it has expired */
    } else {
        fputs("what?\n", out);
    }
}

static void on_client(struct reactor *reactor, struct event_handler *handler, unsigned events)
{
    struct client *client = (struct client *)handler; /* its first member */
    ssize_t got = recv(handler->fd, client->line + client->size, LINE_SIZE - client->size, 0);
    const char *end;

    if (got == 0 || (got < 0 && (reactor_stopping(reactor) || (errno != EAGAIN && errno != EINTR))) ||
        (events & REACTOR_CLOSE) != 0) {
        drop(reactor, client);
        return;
    }
    if (got > 0)
        client->size += (size_t)got;
    while ((end = memchr(client->line, '\n', client->size)) != NULL) {
        char line[LINE_SIZE];
        char *text = NULL;
        size_t text_size;
        size_t length = (size_t)(end - client->line);
        memcpy(line, client->line, length);
        line[length] = '\0';
        client->size -= length + 1;
        memmove(client->line, end + 1, client->size);

        FILE *out = open_memstream(&text, &text_size);
        if (out == NULL)
            net_die("open_memstream");
        on_line(reactor, client, line, out);
        if (fclose(out) != 0)
            net_die("open_memstream");
        answer(client, text);
        free(text);
    }
    if (client->size == LINE_SIZE) /* too long to be a line of ours */
        drop(reactor, client);
}

static int add(struct reactor *reactor, struct acceptor *acceptor, int fd)
{
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return -1;
    client->handler = (struct event_handler){fd, "client", on_client};
    client->acceptor = acceptor;
    client->alarm.expired = on_alarm;
    client->timers = calloc(TIMERS_MOST, sizeof *client->timers);
    if (client->timers != NULL && set_nonblocking(fd) == 0 &&
        reactor_register(reactor, &client->handler, REACTOR_READ) == 0)
        return 0;
    free(client->timers);
    free(client);
    return -1;
}

static void *open_clock(struct reactor *reactor, int listener, const void *argument)
{
    (void)argument;
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);
    if (acceptor != NULL && acceptor_open(acceptor, reactor, listener, add) == 0)
        return acceptor;
    free(acceptor);
    return NULL;
}

int main(int argc, char **argv)
{
    struct net_option own[] = {loops_demux, loops_count};
    struct net_options options;
    net_options(&options, argc, argv, "timers, on a clock that the client sets", own, 2);
    loops_run(&options, own, &(struct application){open_clock, free, NULL});
    return EXIT_SUCCESS;
}
