/* tap.h - runs Check tests and reports each in TAP, with a lesson where one fails.
 *
 * Check can write TAP itself, but knows no SKIP, and cannot say more about a
 * failure than the test did. Here every test is a Check test of its own suite,
 * run in a process of its own, and comes with what a student needs who sees it fail. */
#ifndef TAP_H
#define TAP_H

#include <check.h>
#include <stddef.h>

struct tap_test {
    const char *name;     /* a statement of what holds, for example "echo: an empty message" */
    const TTest *test;    /* from START_TEST */
    const char *expected; /* what should have happened, and why */
    const char *cause;    /* the mistake that most often makes this test fail */
    const char *section;  /* where the book explains it */
};

/* Runs tests[0] to tests[count - 1], in order, each with a limit of a minute
 * (times CK_TIMEOUT_MULTIPLIER). prefix goes before each name: the server's
 * name, or "". With TEST in the environment, only tests whose name contains it.
 * Returns the exit status for main(): 0, or 1 if a test failed. */
int tap_run(const char *prefix, const struct tap_test *tests, size_t count);

enum { TAP_WAYS = 4 };

/* A test that runs once, or with each of several ways in which a server can wait. */
struct tap_row {
    const TTest *const *tests[TAP_WAYS]; /* one for each way */
    const TTest *const *once;            /* or this one, not with a certain way */
    const char *name, *expected, *cause, *section;
};

/* Runs tests[0] to tests[count - 1] of each row as tap_run() does, by the name "program --option way: name",
 * or "program: name". count is TAP_WAYS at most; a way that is NULL is left out. */
int tap_run_rows(const char *program, const char *option, const char *const *ways, size_t count,
                 const struct tap_row *rows, size_t row_count);

/* Ends the test that calls it as skipped: neither passed nor failed. */
#define tap_skip(...) tap_skip_at(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void tap_skip_at(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Why a test was skipped, from Check's message; NULL if it was not. */
const char *tap_skipped(const char *message);

#endif
