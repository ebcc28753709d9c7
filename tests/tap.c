/* tap.c - see tap.h. TAP: https://testanything.org/tap-specification.html */
#include "tap.h"

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

/* Check carries one string from the test's process to ours. This one means: skipped. */
#define SKIP_MARK "SKIP: "

enum { TEST_SECONDS = 60 };

void tap_skip_at(const char *file, int line, const char *format, ...)
{
    char why[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    _ck_assert_failed(file, line, "skip", SKIP_MARK "%s", why);
    abort(); /* not reached: the call above ends the test */
}

const char *tap_skipped(const char *message)
{
    const char *mark = strstr(message, SKIP_MARK);
    return mark != NULL ? mark + strlen(SKIP_MARK) : NULL;
}

/* Writes text as TAP comments, each of its lines behind the label's column. */
static void explain(const char *label, const char *text)
{
    while (text != NULL) {
        const char *end = strchr(text, '\n');
        int length = end != NULL ? (int)(end - text) : (int)strlen(text);
        printf("#   %-13s %.*s\n", label, length, text);
        label = "";
        text = end != NULL ? end + 1 : NULL;
    }
}

static void explain_failure(const struct tap_test *test, TestResult *result)
{
    char happened[4096];
    const char *file = tr_lfile(result);
    const char *slash = file != NULL ? strrchr(file, '/') : NULL;

    snprintf(happened, sizeof happened, "%s\n(%s:%d)", tr_msg(result), slash != NULL ? slash + 1 : file,
             tr_lno(result));
    explain("expected:", test->expected);
    explain("happened:", happened);
    explain("likely cause:", test->cause);
    explain("read on:", test->section);
}

/* Runs first in a test's process: killed like this program, it takes its servers along. */
static void end_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* Runs one test. Returns whether it passed or was skipped. */
static bool run(const char *prefix, const struct tap_test *test, size_t number)
{
    Suite *suite = suite_create(test->name);
    TCase *tcase = tcase_create(test->name);
    tcase_set_timeout(tcase, TEST_SECONDS);
    tcase_add_checked_fixture(tcase, end_with_parent, NULL);
    tcase_add_test(tcase, test->test);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_SILENT);

    bool fine = false;
    TestResult **results = srunner_results(runner);
    if (results == NULL || srunner_ntests_run(runner) != 1) {
        printf("not ok %zu - %s%s\n#   Check did not run it\n", number, prefix, test->name);
    } else if (tr_rtype(results[0]) == CK_PASS) {
        fine = true;
        printf("ok %zu - %s%s\n", number, prefix, test->name);
    } else if (tap_skipped(tr_msg(results[0])) != NULL) {
        fine = true;
        printf("ok %zu - %s%s # SKIP %s\n", number, prefix, test->name, tap_skipped(tr_msg(results[0])));
    } else {
        printf("not ok %zu - %s%s\n", number, prefix, test->name);
        explain_failure(test, results[0]);
    }
    fflush(stdout);
    free(results);
    srunner_free(runner);
    return fine;
}

int tap_run(const char *prefix, const struct tap_test *tests, size_t count)
{
    const char *wanted = getenv("TEST");
    size_t selected = 0;
    size_t failed = 0;

    for (size_t i = 0; i < count; i++)
        selected += wanted == NULL || strstr(tests[i].name, wanted) != NULL;
    if (selected == 0) {
        fprintf(stderr, "no test has \"%s\" in its name\n", wanted != NULL ? wanted : "");
        return EXIT_FAILURE;
    }
    printf("1..%zu\n", selected);
    fflush(stdout);
    for (size_t i = 0, number = 0; i < count; i++) {
        if (wanted == NULL || strstr(tests[i].name, wanted) != NULL)
            failed += !run(prefix, &tests[i], ++number);
    }
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int tap_run_rows(const char *program, const char *option, const char *const *ways, size_t count,
                 const struct tap_row *rows, size_t row_count)
{
    enum { NAME = 200 };
    struct tap_test *tests = calloc(row_count * TAP_WAYS, sizeof *tests);
    char(*names)[NAME] = calloc(row_count * TAP_WAYS, sizeof *names);
    size_t test_count = 0;

    if (tests == NULL || names == NULL)
        abort();
    for (const struct tap_row *row = rows; row < rows + row_count; row++) {
        for (size_t which = 0; which < (row->once != NULL ? 1 : count); which++) {
            const TTest *const *test = row->once != NULL ? row->once : row->tests[which];
            if (test == NULL || (row->once == NULL && ways[which] == NULL))
                continue;
            if (row->once != NULL)
                snprintf(names[test_count], NAME, "%s: %s", program, row->name);
            else
                snprintf(names[test_count], NAME, "%s --%s %s: %s", program, option, ways[which], row->name);
            tests[test_count] =
                (struct tap_test){names[test_count], *test, row->expected, row->cause, row->section};
            test_count++;
        }
    }
    int status = tap_run("", tests, test_count);
    free(tests);
    free(names);
    return status;
}
