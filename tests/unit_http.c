/* unit_http.c - unit tests of http.c, the request parser of chapter 6's second application.
 *
 * A test is a table of requests, each with its outcome. Every one of them is fed whole, cut in two at
 * every byte, byte by byte, and with another request behind it: the outcome must be the same, to the byte.
 * What is fed ends where a page begins that cannot be read, so that to read on is to fail.
 * Needs POSIX.1-2008, and mmap() of anonymous memory. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, timegm */

#include "http.h"

#include "tap.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECOND "the book, chapter 6, \"A second application\""

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { ROOM = 2 * HTTP_BODY_MAX }; /* for the largest request, and one behind it */

/* ---- requests and their outcome ---- */

struct example {
    const char *why; /* what is special about it */
    const char *text;
    size_t size;
    size_t used; /* how many of its bytes are taken */
    int status;  /* 0: it is a good request */
    bool more;   /* it is not complete */

    /* What a good request says; all zero for "GET / HTTP/1.1" with nothing but its Host. */
    const char *path; /* NULL: "/" */
    bool head, closes, has_range;
    int64_t first, last;
    time_t since, if_range; /* 0: none */
};

/* A good request. */
#define GOOD(request) .text = (request), .size = sizeof(request) - 1, .used = sizeof(request) - 1

/* One that is refused with that status, when as much as before has been taken. */
#define BAD(code, before, rest) \
    .status = (code), .text = before rest, .size = sizeof(before rest) - 1, .used = sizeof(before) - 1

/* One that is not complete. */
#define UNFINISHED(request) .more = true, GOOD(request)

#define V " HTTP/1.1\r\n"
#define H V "Host: h\r\n"
#define NEXT "GET /next" H "\r\n"

static struct http_request request; /* of the last parse() */

struct outcome {
    enum http_state state;
    size_t used;
};

/* Returns a copy of the bytes behind which nothing can be read. */
static const char *at_the_edge(const char *data, size_t size)
{
    static char *edge;
    if (edge == NULL) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        char *memory = mmap(NULL, ROOM + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory + ROOM, page, PROT_NONE) < 0)
            ck_abort_msg("no memory with an edge");
        edge = memory + ROOM;
    }
    if (size > 0)
        memcpy(edge - size, data, size);
    return edge - size;
}

/* Feeds the first bytes at once, and the others in pieces, until the parser has come to something. */
static struct outcome parse(const char *data, size_t size, size_t first, size_t piece)
{
    struct outcome outcome = {.state = HTTP_MORE};
    memset(&request, 0x5a, sizeof request); /* as memory may be that was used before */
    http_begin(&request);
    for (size_t next = first; outcome.used < size && outcome.state == HTTP_MORE; next = piece) {
        size_t left = size - outcome.used;
        size_t used = SIZE_MAX;
        next = next < left ? next : left;
        outcome.state = http_feed(&request, at_the_edge(data + outcome.used, next), next, &used);
        ck_assert_msg(used <= next, "of %zu bytes, it says, %zu were used", next, used);
        ck_assert_msg(used == next || outcome.state != HTTP_MORE, "it wants more, but left bytes");
        outcome.used += used;
    }
    return outcome;
}

/* Returns the text as it would be written in C, with the middle left out if it is long. */
static const char *quoted(const char *text, size_t size)
{
    static char quote[2048];
    size_t length = 0;
    for (size_t i = 0; i < size && length < sizeof quote - 16; i++) {
        unsigned char c = (unsigned char)text[i];
        if (size > 400 && i == 200) {
            length += (size_t)sprintf(quote + length, " ... ");
            i = size - 200;
        }
        if (c == '\r')
            length += (size_t)sprintf(quote + length, "\\r");
        else if (c == '\n')
            length += (size_t)sprintf(quote + length, "\\n");
        else if (c < ' ' || c > '~')
            length += (size_t)sprintf(quote + length, "\\%03o", c);
        else
            quote[length++] = (char)c;
    }
    quote[length] = '\0';
    return quote;
}

static const char *outcome_name(enum http_state state, int status)
{
    static char names[2][32];
    static int turn;
    char *name = names[turn++ % 2];
    snprintf(name, sizeof names[0], "%s %d",
             state == HTTP_MORE      ? "HTTP_MORE"
             : state == HTTP_REQUEST ? "HTTP_REQUEST"
                                     : "HTTP_REFUSED",
             status);
    return name;
}

/* Ends the test, with all that is known about it. */
static _Noreturn void wrong(const struct example *example, const char *how, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void wrong(const struct example *example, const char *how, const char *format, ...)
{
    char what[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    ck_abort_msg("%s\nfed %s: %s\nthe request: %s", example->why, how, what,
                 quoted(example->text, example->size));
    abort(); /* not reached */
}

static void check_number(const struct example *example, const char *how, const char *member, int64_t value,
                         int64_t expected)
{
    if (value != expected)
        wrong(example, how, "%s is %" PRId64 ", and not %" PRId64, member, value, expected);
}

/* What has come of an example that was fed in some way. */
static void check(const struct example *example, const char *how, struct outcome outcome)
{
    enum http_state state = example->more ? HTTP_MORE : example->status == 0 ? HTTP_REQUEST : HTTP_REFUSED;
    int status = outcome.state == HTTP_REFUSED ? request.status : 0;
    if (outcome.state != state || status != example->status)
        wrong(example, how, "%s, and not %s", outcome_name(outcome.state, status),
              outcome_name(state, example->status));
    if (outcome.used != example->used)
        wrong(example, how, "%zu bytes were used, and not %zu", outcome.used, example->used);
    if (state != HTTP_REQUEST)
        return;

    const char *path = example->path != NULL ? example->path : "/";
    if (memchr(request.path, '\0', sizeof request.path) == NULL || strcmp(request.path, path) != 0)
        wrong(example, how, "the path is \"%s\", and not \"%s\"", request.path, path);
    check_number(example, how, "head", request.head, example->head);
    check_number(example, how, "keep_alive", request.keep_alive, !example->closes);
    check_number(example, how, "has_range", request.has_range, example->has_range);
    if (example->has_range) {
        check_number(example, how, "range_first", request.range_first, example->first);
        check_number(example, how, "range_last", request.range_last, example->last);
    }
    check_number(example, how, "if_modified_since", request.if_modified_since,
                 example->since != 0 ? example->since : -1);
    if (example->has_range)
        check_number(example, how, "if_range", request.if_range,
                     example->if_range != 0 ? example->if_range : -1);
}

/* What is behind a request must be left for the next. */
static void check_with_next(const struct example *example)
{
    static const char next[] = NEXT;
    static char both[ROOM];
    size_t size = example->size + sizeof next - 1;
    memcpy(both, example->text, example->size);
    memcpy(both + example->size, next, sizeof next - 1);
    struct outcome outcome = parse(both, size, size, size);
    check(example, "with another request behind it", outcome);
    if (example->status != 0 || example->closes)
        return;
    outcome = parse(both + outcome.used, size - outcome.used, size, size);
    if (outcome.state != HTTP_REQUEST || strcmp(request.path, "/next") != 0)
        wrong(example, "with another request behind it", "that one was not found");
}

/* Feeds an example in every way. Of large ones not all cuts are tried, but all near their ends. */
static void check_example(const struct example *example)
{
    char how[80];
    size_t size = example->size;
    check(example, "whole", parse(example->text, size, size, size));
    check(example, "byte by byte", parse(example->text, size, 1, 1));
    for (size_t cut = 1; cut<size; cut += cut> 300 && size > 10000 && size - cut > 300 ? 97 : 1) {
        snprintf(how, sizeof how, "in two pieces, of which the first has %zu bytes", cut);
        check(example, how, parse(example->text, size, cut, size));
    }
    if (!example->more)
        check_with_next(example);
}

static void check_examples(const struct example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_example(&examples[i]);
}

/* Makes an example of three parts, the second repeated. */
static void check_long(const char *why, int status, const char *before, char filler, size_t fillers,
                       const char *after, size_t used)
{
    static char text[ROOM];
    struct example example = {.why = why, .text = text, .status = status};
    example.size = strlen(before) + fillers + strlen(after);
    ck_assert_uint_lt(example.size, ROOM - sizeof NEXT);
    char *filled = stpcpy(text, before);
    memset(filled, filler, fillers);
    stpcpy(filled + fillers, after);
    example.used = used != 0 ? used : example.size;
    check_example(&example);
}

/* ---- the pieces ---- */

START_TEST(requests)
{
    static const struct example examples[] = {
        {"the shortest of HTTP/1.0", GOOD("GET / HTTP/1.0\r\n\r\n"), .closes = true},
        {"the shortest of HTTP/1.1", GOOD("GET /" V "Host:\r\n\r\n")},
        {"HEAD", GOOD("HEAD /" H "\r\n"), .head = true},
        {"as curl sends it",
         GOOD("GET /a/b.html" V "Host: 127.0.0.1:7007\r\n"
              "User-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"),
         .path = "/a/b.html"},
        {"as a browser sends it",
         GOOD("GET /index.html?x=1&y=%20" V
              "Host: [::1]:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101\r\n"
              "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\n"
              "Connection: keep-alive\r\nCookie: a=b; c=\"d\"\r\nUpgrade-Insecure-Requests: 1\r\n"
              "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"),
         .path = "/index.html", .since = 784111777},
        {"with all that is understood",
         GOOD("GET /%61" V "Host: h\r\nContent-Length: 5\r\nConnection: close\r\nRange: bytes=1-2\r\n"
              "If-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
              "If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT\r\n\r\nhello"),
         .path = "/a", .closes = true, .has_range = true, .first = 1, .last = 2, .since = 784111778,
         .if_range = 784111777},
        {"names in any case, values with blanks around them, or none",
         GOOD("GET /" V "hOST:h\r\nCONTENT-length:\t 0 \t\r\ncOnNeCtIoN:CLOSE\r\nX:\r\nY: \t \r\n\r\n"),
         .closes = true},
        {"bytes that are not ASCII, in a value", GOOD("GET /" H "X: \200\377\303\244 \t.\r\n\r\n")},
        {"every character that a name may have", GOOD("GET /" H "!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n")},
        {"a name that begins as one that is understood", GOOD("GET /" H "Hos: a\r\nHosts: b\r\n\r\n")},
        {"nothing has come", UNFINISHED("")},
        {"the method only", UNFINISHED("GET")},
        {"the empty line is missing", UNFINISHED("GET /" H)},
        {"the last byte is missing", UNFINISHED("GET /" H "\r")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(pipelined)
{
    static const char all[] = "GET /1" H "Content-Length: 5\r\n\r\n12345"
                              "HEAD /2" H "\r\n"
                              "\r\nGET /3" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
                              "GET /4" H "Content-Length: 0\r\n\r\n" NEXT;
    static const char *const paths[] = {"/1", "/2", "/3", "/4", "/next"};
    for (size_t piece = 1; piece < sizeof all; piece++) {
        size_t done = 0;
        for (size_t i = 0; i < COUNT(paths); i++) {
            struct outcome outcome = parse(all + done, sizeof all - 1 - done, piece, piece);
            ck_assert_msg(outcome.state == HTTP_REQUEST, "in pieces of %zu, request %zu is %s", piece, i + 1,
                          outcome_name(outcome.state, request.status));
            ck_assert_msg(strcmp(request.path, paths[i]) == 0, "in pieces of %zu, request %zu is for %s",
                          piece, i + 1, request.path);
            done += outcome.used;
        }
        ck_assert_msg(done == sizeof all - 1, "%zu bytes were used, and not %zu", done, sizeof all - 1);
    }
}
END_TEST

START_TEST(takes_no_more)
{
    static const char good[] = "GET /good" H "\r\n";
    static const char bad[] = "POST /bad" H "\r\n";
    size_t used = SIZE_MAX;
    struct outcome outcome = parse(good, sizeof good - 1, SIZE_MAX, 1);
    ck_assert_int_eq(outcome.state, HTTP_REQUEST);
    ck_assert_int_eq(http_feed(&request, bad, sizeof bad - 1, &used), HTTP_REQUEST);
    ck_assert_msg(used == 0 && strcmp(request.path, "/good") == 0, "what came behind it changed the request");

    outcome = parse(bad, sizeof bad - 1, SIZE_MAX, 1);
    ck_assert_int_eq(outcome.state, HTTP_REFUSED);
    ck_assert_int_eq(http_feed(&request, good, sizeof good - 1, &used), HTTP_REFUSED);
    ck_assert_msg(used == 0 && request.status == 405, "what came behind it changed the refusal");
    ck_assert_msg(request.path[0] == '\0', "a request that was refused has the path %s", request.path);
}
END_TEST

START_TEST(begins_again)
{
    static const char first[] =
        "HEAD /first HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\nConnection: keep-alive\r\n"
        "Range: bytes=1-2\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        "If-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nhi";
    static const char second[] = "GET /" H "\r\n";
    static const char third[] = "GET /" V "\r\n"; /* no Host: that of the last must be forgotten */
    size_t used;
    struct outcome outcome = parse(first, sizeof first - 1, SIZE_MAX, 1);
    ck_assert_int_eq(outcome.state, HTTP_REQUEST);
    http_begin(&request);
    ck_assert_int_eq(http_feed(&request, second, sizeof second - 1, &used), HTTP_REQUEST);
    ck_assert(!request.head && request.keep_alive && !request.has_range);
    ck_assert(request.if_modified_since == -1 && request.if_range == -1 && request.status == 0);
    http_begin(&request);
    ck_assert_int_eq(http_feed(&request, third, sizeof third - 1, &used), HTTP_REFUSED);
    ck_assert_int_eq(request.status, 400);
}
END_TEST

START_TEST(any_pieces)
{
    static const char text[] =
        "\r\nGET http://Example.ORG:80/%7Eme/x%20y?q" H "Transfer-Encoding: chunked\r\nRange: bytes=10-\r\n"
        "If-Range: Sunday, 06-Nov-94 08:49:37 GMT\r\n\r\n"
        "0005;a=\"b\"\r\nhello\r\n10 ; x\r\n0123456789abcdef\r\n0\r\nT: u\r\n\r\n";
    static const struct example example = {"a bit of everything", GOOD(text),  .path = "/~me/x y",
                                           .has_range = true,     .first = 10, .last = -1,
                                           .if_range = 784111777};
    unsigned random = 1;
    for (int round = 0; round < 20000; round++) {
        char how[64];
        struct outcome outcome = {.state = HTTP_MORE};
        snprintf(how, sizeof how, "in pieces at random, round %d", round);
        http_begin(&request);
        while (outcome.used < example.size && outcome.state == HTTP_MORE) {
            random = random * 1664525 + 1013904223;
            size_t size = (random >> 24) % 40; /* 0, too */
            size_t left = example.size - outcome.used;
            size_t used = 0;
            size = size < left ? size : left;
            outcome.state = http_feed(&request, at_the_edge(text + outcome.used, size), size, &used);
            outcome.used += used;
        }
        check(&example, how, outcome);
    }
}
END_TEST

/* ---- the request line ---- */

START_TEST(empty_lines)
{
    static const struct example examples[] = {
        {"one", GOOD("\r\nGET /" H "\r\n")},
        {"four", GOOD("\r\n\r\n\r\n\r\nGET /" H "\r\n")},
        {"five", BAD(400, "\r\n\r\n\r\n\r\n", "\r\nGET /" H "\r\n")},
        {"not with a line feed only", BAD(400, "", "\nGET /" H "\r\n")},
        {"not with a carriage return only", BAD(400, "\r", "GET /" H "\r\n")},
        {"not a line with a blank", BAD(400, "", " \r\nGET /" H "\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(malformed_line)
{
    static const struct example examples[] = {
        {"HTTP/0.9", BAD(400, "GET /", "\r\n\r\n")},
        {"no version", BAD(400, "GET / ", "\r\nHost: h\r\n\r\n")},
        {"no target", BAD(400, "GET ", " HTTP/1.1\r\nHost: h\r\n\r\n")},
        {"no target, and one blank", BAD(400, "GET HTTP/1.1", "\r\nHost: h\r\n\r\n")},
        {"a blank before it", BAD(400, "", " GET /" H "\r\n")},
        {"two blanks behind the method", BAD(400, "GET ", " /" H "\r\n")},
        {"two blanks behind the target", BAD(400, "GET / ", H "\r\n")},
        {"a blank at its end", BAD(400, "GET / HTTP/1.1", " \r\nHost: h\r\n\r\n")},
        {"a tabulator for a blank", BAD(400, "GET", "\t/" H "\r\n")},
        {"another one", BAD(400, "GET /", "\tHTTP/1.1\r\nHost: h\r\n\r\n")},
        {"a method with a character that none has", BAD(400, "GE", "@T /" H "\r\n")},
        {"a NUL in the method", BAD(400, "GE", "\0T /" H "\r\n")},
        {"a NUL in the target", BAD(400, "GET /a", "\0b" H "\r\n")},
        {"a control character in the target", BAD(400, "GET /a", "\001b" H "\r\n")},
        {"DEL in the target", BAD(400, "GET /a", "\177b" H "\r\n")},
        {"NUL in the version", BAD(400, "GET / HTTP/1", "\0001\r\nHost: h\r\n\r\n")},
        {"the beginning of TLS", BAD(400, "", "\026\003\001\002\000\001\000\001\374\003\003")},
        {"http in small letters", BAD(400, "GET / http/1.1", "\r\nHost: h\r\n\r\n")},
        {"a version of two digits", BAD(400, "GET / HTTP/1.10", "\r\nHost: h\r\n\r\n")},
        {"another one", BAD(400, "GET / HTTP/11.1", "\r\nHost: h\r\n\r\n")},
        {"a version without a digit", BAD(400, "GET / HTTP/1.x", "\r\nHost: h\r\n\r\n")},
        {"a version without a point", BAD(400, "GET / HTTP/1-1", "\r\nHost: h\r\n\r\n")},
        {"another protocol", BAD(400, "GET / ICAP/1.1", "\r\nHost: h\r\n\r\n")},
        {"a version that does not end", BAD(400, "GET / HTTP/", "\r\nHost: h\r\n\r\n")},
        {"a response", BAD(400, "HTTP", "/1.1 200 OK\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(other_versions)
{
    static const struct example examples[] = {
        {"HTTP/2.0", BAD(505, "GET / HTTP/2.0", "\r\nHost: h\r\n\r\n")},
        {"HTTP/1.2", BAD(505, "GET / HTTP/1.2", "\r\nHost: h\r\n\r\n")},
        {"HTTP/0.9", BAD(505, "GET / HTTP/0.9", "\r\nHost: h\r\n\r\n")},
        {"HTTP/9.9", BAD(505, "GET / HTTP/9.9", "\r\nHost: h\r\n\r\n")},
        {"a method that is not served, too", BAD(505, "PUT / HTTP/3.0", "\r\nHost: h\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(other_methods)
{
    static const struct example examples[] = {
        {"POST", BAD(405, "POST /" H "\r\n", "")},
        {"PUT", BAD(405, "PUT /" H "\r\n", "")},
        {"DELETE", BAD(405, "DELETE /" H "\r\n", "")},
        {"OPTIONS", BAD(405, "OPTIONS /" H "\r\n", "")},
        {"CONNECT", BAD(405, "CONNECT /" H "\r\n", "")},
        {"TRACE", BAD(405, "TRACE /" H "\r\n", "")},
        {"PATCH", BAD(405, "PATCH /" H "\r\n", "")},
        {"a method nobody knows", BAD(501, "BREW /" H "\r\n", "")},
        {"small letters are another method", BAD(501, "get /" H "\r\n", "")},
        {"the beginning of a method", BAD(501, "GE /" H "\r\n", "")},
        {"more than a method", BAD(501, "GETS /" H "\r\n", "")},
        {"every character that a method may have", BAD(501, "!#$%&'*+-.^_`|~09azAZ /" H "\r\n", "")},
        {"refused before its body", BAD(405, "POST /" H "Content-Length: 3\r\n\r\n", "abc")},
        {"refused before its body, too",
         BAD(405, "POST /" H "Transfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n")},
        {"a body that is too large does not count",
         BAD(405, "PUT /" H "Content-Length: 99999999\r\n\r\n", "")},
        {"nor does a coding", BAD(405, "PUT /" H "Transfer-Encoding: gzip, chunked\r\n\r\n", "")},
    };
    check_examples(examples, COUNT(examples));
    check_long("a method longer than any buffer", 501, "", 'X', 5000, " /" H "\r\n", 0);
}
END_TEST

START_TEST(malformed_first)
{
    static const struct example examples[] = {
        {"POST without a Host", BAD(400, "POST /" V "\r\n", "")},
        {"POST with a bad field", BAD(400, "POST /" H "X", " : y\r\n\r\n")},
        {"POST with two lengths", BAD(400, "POST /" H "Content-Length: 1\r\nContent-Length: 1", "\r\n\r\nx")},
        {"a coding we do not know, and a length",
         BAD(400, "GET /" H "Content-Length: 9\r\nTransfer-Encoding: x, chunked\r\n\r\n", "")},
        {"OPTIONS for the server as a whole", BAD(400, "OPTIONS *", H "\r\n")},
        {"CONNECT to a proxy", BAD(400, "CONNECT h:443", V "Host: h:443\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(head_of_refused)
{
    static const char refused[] = "HEAD /" H "Content-Length: 1000000\r\n\r\n";
    struct outcome outcome = parse(refused, sizeof refused - 1, SIZE_MAX, 1);
    ck_assert_int_eq(outcome.state, HTTP_REFUSED);
    ck_assert_int_eq(request.status, 413);
    ck_assert_msg(request.head, "the answer to HEAD must not have a body, even if it is a refusal");
}
END_TEST

/* ---- the target ---- */

START_TEST(decoded)
{
    static const struct example examples[] = {
        {"a letter", GOOD("GET /%41%6a%6A" H "\r\n"), .path = "/Ajj"},
        {"a blank", GOOD("GET /a%20b" H "\r\n"), .path = "/a b"},
        {"UTF-8", GOOD("GET /%C3%A4%ff" H "\r\n"), .path = "/\303\244\377"},
        {"bytes that are not ASCII, as they are", GOOD("GET /\303\244" H "\r\n"), .path = "/\303\244"},
        {"? and # are a part of the path if they are encoded", GOOD("GET /%3f%23?x" H "\r\n"), .path = "/?#"},
        {"once, and not twice", GOOD("GET /%2541%25" H "\r\n"), .path = "/%41%"},
        {"nor what decoding has made", GOOD("GET /%252e%252e/a" H "\r\n"), .path = "/%2e%2e/a"},
        {"+ is a +", GOOD("GET /a+b" H "\r\n"), .path = "/a+b"},
        {"a backslash is a character", GOOD("GET /a\\..\\b" H "\r\n"), .path = "/a\\..\\b"},
        {"an encoded one, too", GOOD("GET /a%5C..%5cb" H "\r\n"), .path = "/a\\..\\b"},
        {"what a URI must not have, but does", GOOD("GET /\"<>[]^`{|}" H "\r\n"), .path = "/\"<>[]^`{|}"},
        {"a colon", GOOD("GET /a:b@c" H "\r\n"), .path = "/a:b@c"},
        {"no digits", BAD(400, "GET /%", H "\r\n")},
        {"one digit", BAD(400, "GET /%4", H "\r\n")},
        {"one digit, before the query", BAD(400, "GET /%4?1", H "\r\n")},
        {"no hexadecimal digit", BAD(400, "GET /%4g", H "\r\n")},
        {"another one", BAD(400, "GET /%g4x", H "\r\n")},
        {"a sign for a digit", BAD(400, "GET /%+4", H "\r\n")},
        {"twice %", BAD(400, "GET /%%41", H "\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(unwelcome)
{
    static const struct example examples[] = {
        {"NUL would end the path", BAD(400, "GET /a%00.html", H "\r\n")},
        {"a slash is no separator if it is encoded", BAD(400, "GET /a%2fb", H "\r\n")},
        {"the same", BAD(400, "GET /a%2Fb", H "\r\n")},
        {"a line feed writes into the log", BAD(400, "GET /a%0ab", H "\r\n")},
        {"a carriage return, too", BAD(400, "GET /a%0d", H "\r\n")},
        {"an escape to the terminal that shows the log", BAD(400, "GET /%1b[2J", H "\r\n")},
        {"DEL", BAD(400, "GET /%7f", H "\r\n")},
        {"a fragment", BAD(400, "GET /a", "#b" H "\r\n")},
        {"a fragment in the query", BAD(400, "GET /a?b", "#c" H "\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(climbing)
{
    static const struct example examples[] = {
        {"..", BAD(400, "GET /..", H "\r\n")},
        {"../", BAD(400, "GET /../", H "\r\n")},
        {"../ on the way", BAD(400, "GET /a/../../etc/passwd", H "\r\n")},
        {"../ even if it stays inside", BAD(400, "GET /a/../b", H "\r\n")},
        {".. at the end", BAD(400, "GET /a/b/..", H "\r\n")},
        {".. before a query", BAD(400, "GET /a/..?x", H "\r\n")},
        {"a point", BAD(400, "GET /.", H "\r\n")},
        {"a point on the way", BAD(400, "GET /a/./b", H "\r\n")},
        {"both points encoded", BAD(400, "GET /%2e%2e/etc/passwd", H "\r\n")},
        {"one of them encoded", BAD(400, "GET /.%2E/etc/passwd", H "\r\n")},
        {"the other one", BAD(400, "GET /a/%2e./b", H "\r\n")},
        {"a point, encoded", BAD(400, "GET /a/%2e", H "\r\n")},
        {"encoded, with an encoded slash", BAD(400, "GET /%2e%2e%2fetc", H "\r\n")},
        {"behind two slashes", BAD(400, "GET //../etc", H "\r\n")},
        {"in the absolute form", BAD(400, "GET http://h/../etc", H "\r\n")},
        {"in the absolute form, encoded", BAD(400, "GET http://h/%2e%2e/etc", H "\r\n")},
        {"three points are a name", GOOD("GET /.../a" H "\r\n"), .path = "/.../a"},
        {"points before a name", GOOD("GET /..a/.b" H "\r\n"), .path = "/..a/.b"},
        {"points behind a name", GOOD("GET /a../b." H "\r\n"), .path = "/a../b."},
        {"points in the query", GOOD("GET /a?/../b" H "\r\n"), .path = "/a"},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(slashes)
{
    static const struct example examples[] = {
        {"at the beginning", GOOD("GET //etc/passwd" H "\r\n"), .path = "/etc/passwd"},
        {"many", GOOD("GET /////a////b//" H "\r\n"), .path = "/a/b/"},
        {"in the absolute form", GOOD("GET http://h//etc" H "\r\n"), .path = "/etc"},
        {"one at the end stays", GOOD("GET /a/" H "\r\n"), .path = "/a/"},
        {"those of a query are none", GOOD("GET /a?b//c" H "\r\n"), .path = "/a"},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(queries)
{
    static const struct example examples[] = {
        {"a query", GOOD("GET /a?b=c&d" H "\r\n"), .path = "/a"},
        {"an empty one", GOOD("GET /a?" H "\r\n"), .path = "/a"},
        {"with another ?", GOOD("GET /?a?b" H "\r\n")},
        {"with what would be malformed in the path", GOOD("GET /?%zz%00%2f/.." H "\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(absolute_form)
{
    static const struct example examples[] = {
        {"a path", GOOD("GET http://example.org/a%20b?c" H "\r\n"), .path = "/a b"},
        {"no path", GOOD("GET http://example.org" H "\r\n")},
        {"no path, but a query", GOOD("GET http://example.org?/a" H "\r\n")},
        {"the scheme in large letters", GOOD("GET HTTP://EXAMPLE.ORG:8080/A" H "\r\n"), .path = "/A"},
        {"an address", GOOD("GET http://[::1]:80/a" H "\r\n"), .path = "/a"},
        {"HTTP/1.0 without a Host", GOOD("GET http://h/a HTTP/1.0\r\n\r\n"), .path = "/a", .closes = true},
        {"Host is required nevertheless", BAD(400, "GET http://h/a" V "\r\n", "")},
        {"no host", BAD(400, "GET http:///a", H "\r\n")},
        {"nothing but the scheme", BAD(400, "GET http://", H "\r\n")},
        {"a port only", BAD(400, "GET http://:80/a", H "\r\n")},
        {"a user: who writes one wants to deceive", BAD(400, "GET http://h@evil/a", H "\r\n")},
        {"a host with an encoded character", BAD(400, "GET http://%68/a", H "\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(other_forms)
{
    static const struct example examples[] = {
        {"the server as a whole", BAD(400, "GET *", H "\r\n")},
        {"an authority", BAD(400, "GET h:80", H "\r\n")},
        {"a path without its slash", BAD(400, "GET index.html", H "\r\n")},
        {"an encoded slash at its beginning", BAD(400, "GET %2findex.html", H "\r\n")},
        {"a query", BAD(400, "GET ?a", H "\r\n")},
        {"HTTP with TLS", BAD(400, "GET https://h/", H "\r\n")},
        {"a file", BAD(400, "GET file:///etc/passwd", H "\r\n")},
        {"a scheme that does not end", BAD(400, "GET http:/", H "\r\n")},
        {"the beginning of the scheme", BAD(400, "GET http", H "\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(target_limit)
{
    check_long("2048 bytes, all for the query", 0, "GET /?", 'x', HTTP_TARGET_MAX - 2, H "\r\n", 0);
    check_long("2049 bytes", 414, "GET /?", 'x', HTTP_TARGET_MAX - 1, H "\r\n", 4 + HTTP_TARGET_MAX);
    check_long("much more", 414, "GET /?", 'x', 20000, H "\r\n", 4 + HTTP_TARGET_MAX);
    check_long("2049 bytes of a method that is not served", 414, "PUT /?", 'x', HTTP_TARGET_MAX - 1, H "\r\n",
               4 + HTTP_TARGET_MAX);
    check_long("2049 bytes, the last of which is malformed: first it is that", 400, "GET /?", 'x',
               HTTP_TARGET_MAX - 2, "\t", 4 + HTTP_TARGET_MAX);

    char path[HTTP_TARGET_MAX + 1];
    char text[HTTP_TARGET_MAX + 64];
    memset(path, 'x', HTTP_TARGET_MAX);
    path[0] = '/';
    path[HTTP_TARGET_MAX] = '\0';
    struct example example = {"2048 bytes of a path", .text = text, .path = path};
    example.size = example.used = (size_t)snprintf(text, sizeof text, "GET %s" H "\r\n", path);
    check_example(&example);
}
END_TEST

/* ---- fields ---- */

START_TEST(hosts)
{
    static const struct example examples[] = {
        {"none", BAD(400, "GET /" V "\r\n", "")},
        {"none, but other fields", BAD(400, "GET /" V "X-Host: h\r\nHos: h\r\n\r\n", "")},
        {"none, in HTTP/1.0", GOOD("GET / HTTP/1.0\r\n\r\n"), .closes = true},
        {"two that differ", BAD(400, "GET /" V "Host: a\r\nHost: b", "\r\n\r\n")},
        {"two that are the same", BAD(400, "GET /" H "Host: h", "\r\n\r\n")},
        {"two, the first empty", BAD(400, "GET /" V "Host:\r\nhost: h", "\r\n\r\n")},
        {"two in one field", BAD(400, "GET /" V "Host: a, b", "\r\n\r\n")},
        {"two in one field, without a blank", BAD(400, "GET /" V "Host: a,b", "\r\n\r\n")},
        {"two, in HTTP/1.0", BAD(400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b", "\r\n\r\n")},
        {"in a trailer it comes too late",
         BAD(400, "GET /" V "Transfer-Encoding: chunked\r\n\r\n", "0\r\nHost: h\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(host_characters)
{
    static const struct example examples[] = {
        {"empty", GOOD("GET /" V "Host: \r\n\r\n")},
        {"a name and a port", GOOD("GET /" V "Host: www.Example-1.org:8080\r\n\r\n")},
        {"an underscore", GOOD("GET /" V "Host: my_service\r\n\r\n")},
        {"an address of IPv6", GOOD("GET /" V "Host: [2001:db8::1]:80\r\n\r\n")},
        {"a blank", BAD(400, "GET /" V "Host: a b", "\r\n\r\n")},
        {"a slash", BAD(400, "GET /" V "Host: h/../x", "\r\n\r\n")},
        {"a user", BAD(400, "GET /" V "Host: a@b", "\r\n\r\n")},
        {"a query", BAD(400, "GET /" V "Host: h?x", "\r\n\r\n")},
        {"a line feed, encoded", BAD(400, "GET /" V "Host: h%0a", "\r\n\r\n")},
        {"a quote", BAD(400, "GET /" V "Host: \"h\"", "\r\n\r\n")},
        {"not ASCII", BAD(400, "GET /" V "Host: \303\244", "\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(bare_lf)
{
    static const struct example examples[] = {
        {"behind the request line", BAD(400, "GET / HTTP/1.1", "\nHost: h\r\n\r\n")},
        {"behind a field", BAD(400, "GET /" V "Host: h", "\n\r\n")},
        {"behind a field that means nothing", BAD(400, "GET /" H "X: y", "\nZ: z\r\n\r\n")},
        {"in a value, with a field behind it", BAD(400, "GET /" H "X: y", "\nContent-Length: 5\r\n\r\n")},
        {"for the empty line", BAD(400, "GET /" H, "\n")},
        {"behind a name", BAD(400, "GET /" H "X", "\n\r\n")},
        {"behind a colon", BAD(400, "GET /" H "X:", "\n\r\n")},
        {"everywhere", BAD(400, "GET / HTTP/1.1", "\nHost: h\n\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(bare_cr)
{
    static const struct example examples[] = {
        {"in a value", BAD(400, "GET /" H "X: a\r", "b\r\n\r\n")},
        {"behind the request line", BAD(400, "GET / HTTP/1.1\r", "Host: h\r\n\r\n")},
        {"twice behind a field", BAD(400, "GET /" V "Host: h\r", "\r\n\r\n")},
        {"in the target", BAD(400, "GET /", "\rX HTTP/1.1\r\nHost: h\r\n\r\n")},
        {"for the empty line", BAD(400, "GET /" H "\r", "GET /x" H "\r\n")},
        {"behind a name", BAD(400, "GET /" H "X", "\r: y\r\n\r\n")},
        {"everywhere", BAD(400, "GET / HTTP/1.1\r", "Host: h\r\r")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(folded)
{
    static const struct example examples[] = {
        {"with a blank", BAD(400, "GET /" H "X: y\r\n", " z\r\n\r\n")},
        {"with a tabulator", BAD(400, "GET /" H "X: y\r\n", "\tz\r\n\r\n")},
        {"a value that begins in the second line", BAD(400, "GET /" V "Host:\r\n", " h\r\n\r\n")},
        {"a coding in the second line",
         BAD(400, "GET /" H "Transfer-Encoding:", "\r\n chunked\r\n\r\n0\r\n\r\n")},
        {"the first line", BAD(400, "GET /" V, " Host: h\r\n\r\n")},
        {"a line of blanks", BAD(400, "GET /" H, " \r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(malformed_names)
{
    static const struct example examples[] = {
        {"a blank before the colon", BAD(400, "GET /" H "Content-Length", " : 5\r\n\r\n")},
        {"a tabulator before the colon", BAD(400, "GET /" H "X", "\t: 5\r\n\r\n")},
        {"no name", BAD(400, "GET /" H, ": y\r\n\r\n")},
        {"no colon", BAD(400, "GET /" H "Xy", "\r\n\r\n")},
        {"a NUL", BAD(400, "GET /" H "X", "\0: y\r\n\r\n")},
        {"two words", BAD(400, "GET /" H "X", " Y: z\r\n\r\n")},
        {"a character that no name has", BAD(400, "GET /" H "X", "/Y: z\r\n\r\n")},
        {"a bracket", BAD(400, "GET /" H "X", "(y): z\r\n\r\n")},
        {"a byte that is not ASCII", BAD(400, "GET /" H "X", "\303\244: z\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(control_characters)
{
    static const struct example examples[] = {
        {"NUL", BAD(400, "GET /" H "X: a", "\0b\r\n\r\n")},
        {"NUL in the Host", BAD(400, "GET /" V "Host: a", "\0b\r\n\r\n")},
        {"NUL at the beginning", BAD(400, "GET /" H "X:", "\0\r\n\r\n")},
        {"vertical tabulator", BAD(400, "GET /" H "X: a", "\013b\r\n\r\n")},
        {"form feed before chunked", BAD(400, "GET /" H "Transfer-Encoding: ", "\014chunked\r\n\r\n")},
        {"escape", BAD(400, "GET /" H "X: a", "\033[0m\r\n\r\n")},
        {"DEL", BAD(400, "GET /" H "X: a", "\177\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(head_limit)
{
    size_t line = strlen("GET /" H "X: ");
    size_t fill = HTTP_HEAD_MAX - line - strlen("\r\n\r\n");
    check_long("8192 bytes", 0, "GET /" H "X: ", 'x', fill, "\r\n\r\n", 0);
    check_long("8193 bytes", 431, "GET /" H "X: ", 'x', fill + 1, "\r\n\r\n", HTTP_HEAD_MAX);
    check_long("8193 bytes, one of a name", 431, "GET /" H, 'x', fill + 2, ":y\r\n\r\n", HTTP_HEAD_MAX);
    check_long("8192 bytes, with an empty line before them", 0, "\r\nGET /" H "X: ", 'x', fill - 2,
               "\r\n\r\n", 0);
    check_long("8193 bytes, with an empty line before them", 431, "\r\nGET /" H "X: ", 'x', fill - 1,
               "\r\n\r\n", HTTP_HEAD_MAX);
    check_long("much more", 431, "GET /" H "X: ", 'x', 30000, "\r\n\r\n", HTTP_HEAD_MAX);
    check_long("a method that does not end", 431, "", 'X', 30000, "", HTTP_HEAD_MAX);
    check_long("a version that does not end", 431, "GET / ", 'X', 30000, "", HTTP_HEAD_MAX);
    check_long("a head of 8192 bytes has a body, too", 0, "GET /" H "Content-Length: 3\r\nX: ", 'x',
               fill - strlen("Content-Length: 3\r\n"), "\r\n\r\nabc", 0);
}
END_TEST

START_TEST(value_limit)
{
    check_long("256 bytes of a Host", 0, "GET /" V "Host: ", 'h', HTTP_VALUE_MAX, "\r\n\r\n", 0);
    check_long("257 bytes of a Host", 431, "GET /" V "Host: ", 'h', HTTP_VALUE_MAX + 1, "\r\n\r\n",
               strlen("GET /" V "Host: ") + HTTP_VALUE_MAX + 1);
    check_long("a length with too many noughts", 431, "GET /" H "Content-Length: ", '0', 300, "5\r\n\r\n",
               strlen("GET /" H "Content-Length: ") + 301);
    check_long("a coding behind a long list", 431, "GET /" H "Transfer-Encoding: ", ',', 300,
               "chunked\r\n\r\n", strlen("GET /" H "Transfer-Encoding: ") + 307);
    check_long("a long list of ranges only means nothing", 0, "GET /" H "Range: bytes=", '1', 300,
               "-\r\n\r\n", 0);
    check_long("a long date, too", 0, "GET /" H "If-Modified-Since: ", ' ', 300, "x\r\n\r\n", 0);
    check_long("a long entity tag is one, and not ours", 0, "GET /" H "Range: bytes=0-1\r\nIf-Range: \"", 'x',
               300, "\"\r\n\r\n", 0);
    check_long("what is not understood may be longer", 0, "GET /" H "Cookie: ", 'x', 3000, "\r\n\r\n", 0);
    check_long("a long name, too", 0, "GET /" H, 'x', 3000, ": y\r\n\r\n", 0);
    check_long("blanks before a value do not count", 0, "GET /" V "Host:", ' ', 300, "h\r\n\r\n", 0);
}
END_TEST

START_TEST(connections)
{
    static const struct example examples[] = {
        {"HTTP/1.1", GOOD("GET /" H "\r\n")},
        {"HTTP/1.1, close", GOOD("GET /" H "Connection: close\r\n\r\n"), .closes = true},
        {"HTTP/1.1, keep-alive", GOOD("GET /" H "Connection: keep-alive\r\n\r\n")},
        {"HTTP/1.0", GOOD("GET / HTTP/1.0\r\nHost: h\r\n\r\n"), .closes = true},
        {"HTTP/1.0, keep-alive", GOOD("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")},
        {"HTTP/1.0, close", GOOD("GET / HTTP/1.0\r\nConnection: close\r\n\r\n"), .closes = true},
        {"close is stronger", GOOD("GET /" H "Connection: keep-alive, close\r\n\r\n"), .closes = true},
        {"in two lines, too", GOOD("GET /" H "Connection: close\r\nConnection: keep-alive\r\n\r\n"),
         .closes = true},
        {"and in HTTP/1.0", GOOD("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"), .closes = true},
        {"in a list", GOOD("GET /" H "Connection: Upgrade ,\tCLOSE\t, x\r\n\r\n"), .closes = true},
        {"in a list with empty members", GOOD("GET /" H "Connection: ,, ,close,\r\n\r\n"), .closes = true},
        {"an empty list", GOOD("GET /" H "Connection:\r\n\r\n")},
        {"the beginning of the word", GOOD("GET /" H "Connection: clos\r\n\r\n")},
        {"more than the word", GOOD("GET /" H "Connection: closed, xclose, close x\r\n\r\n")},
        {"another field", GOOD("GET /" H "Proxy-Connection: close\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

/* ---- bodies ---- */

START_TEST(lengths)
{
    static const struct example examples[] = {
        {"no byte", GOOD("GET /" H "Content-Length: 0\r\n\r\n")},
        {"one byte", GOOD("GET /" H "Content-Length: 1\r\n\r\nx")},
        {"a body that looks like a request",
         GOOD("GET /a" H "Content-Length: 17\r\n\r\nGET / HTTP/1.1\r\n\r"), .path = "/a"},
        {"noughts before it", GOOD("GET /" H "Content-Length: 0005\r\n\r\nhello")},
        {"a body of line feeds and NULs", GOOD("GET /" H "Content-Length: 4\r\n\r\n\n\0\n\0")},
        {"HEAD", GOOD("HEAD /" H "Content-Length: 2\r\n\r\nhi"), .head = true},
        {"HTTP/1.0", GOOD("GET / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi"), .closes = true},
        {"the last byte is missing", UNFINISHED("GET /" H "Content-Length: 5\r\n\r\nhell")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(malformed_lengths)
{
    static const struct example examples[] = {
        {"no digit", BAD(400, "GET /" H "Content-Length:", "\r\n\r\n")},
        {"a sign", BAD(400, "GET /" H "Content-Length: +5", "\r\n\r\nhello")},
        {"less than nothing", BAD(400, "GET /" H "Content-Length: -5", "\r\n\r\nhello")},
        {"hexadecimal", BAD(400, "GET /" H "Content-Length: 0x5", "\r\n\r\nhello")},
        {"a letter behind it", BAD(400, "GET /" H "Content-Length: 5a", "\r\n\r\nhello")},
        {"a blank in it", BAD(400, "GET /" H "Content-Length: 5 5", "\r\n\r\nhello")},
        {"a fraction", BAD(400, "GET /" H "Content-Length: 5.0", "\r\n\r\nhello")},
        {"a digit that is not ASCII", BAD(400, "GET /" H "Content-Length: \331\245", "\r\n\r\nhello")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(several_lengths)
{
    static const struct example examples[] = {
        {"two that differ", BAD(400, "GET /" H "Content-Length: 5\r\nContent-Length: 6", "\r\n\r\nhello!")},
        {"two that are the same",
         BAD(400, "GET /" H "Content-Length: 5\r\nContent-Length: 5", "\r\n\r\nhello")},
        {"two, the first nought",
         BAD(400, "GET /" H "Content-Length: 0\r\nContent-Length: 5", "\r\n\r\nhello")},
        {"a list", BAD(400, "GET /" H "Content-Length: 5, 5", "\r\n\r\nhello")},
        {"a list without blanks", BAD(400, "GET /" H "Content-Length: 5,5", "\r\n\r\nhello")},
        {"an empty member", BAD(400, "GET /" H "Content-Length: 5,", "\r\n\r\nhello")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(length_limit)
{
    static const struct example examples[] = {
        {"65537", BAD(413, "GET /" H "Content-Length: 65537\r\n\r\n", "x")},
        {"2^31", BAD(413, "GET /" H "Content-Length: 2147483648\r\n\r\n", "")},
        {"2^32", BAD(413, "GET /" H "Content-Length: 4294967296\r\n\r\n", "")},
        {"2^32 + 5", BAD(413, "GET /" H "Content-Length: 4294967301\r\n\r\n", "hello")},
        {"2^63", BAD(413, "GET /" H "Content-Length: 9223372036854775808\r\n\r\n", "")},
        {"2^64", BAD(413, "GET /" H "Content-Length: 18446744073709551616\r\n\r\n", "")},
        {"2^64 + 5", BAD(413, "GET /" H "Content-Length: 18446744073709551621\r\n\r\n", "hello")},
        {"10^40",
         BAD(413, "GET /" H "Content-Length: 10000000000000000000000000000000000000000\r\n\r\n", "")},
    };
    check_examples(examples, COUNT(examples));
    check_long("65536", 0, "GET /" H "Content-Length: 65536\r\n\r\n", 'x', HTTP_BODY_MAX, "", 0);
}
END_TEST

#define CHUNKED "GET /" H "Transfer-Encoding: chunked\r\n\r\n"

START_TEST(chunks)
{
    static const struct example examples[] = {
        {"none", GOOD(CHUNKED "0\r\n\r\n")},
        {"one", GOOD(CHUNKED "5\r\nhello\r\n0\r\n\r\n")},
        {"several", GOOD(CHUNKED "1\r\na\r\n2\r\nbc\r\nA\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n")},
        {"sizes with noughts", GOOD(CHUNKED "0001\r\na\r\n0000\r\n\r\n")},
        {"data that looks like chunks", GOOD(CHUNKED "5\r\n0\r\n\r\n\r\n0\r\n\r\n")},
        {"two digits", GOOD(CHUNKED "1f\r\n0123456789012345678901234567890\r\n0\r\n\r\n")},
        {"the word in any case", GOOD("GET /" H "transfer-encoding: ChunkeD\r\n\r\n1\r\na\r\n0\r\n\r\n")},
        {"HEAD", GOOD("HEAD /" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), .head = true},
        {"an extension", GOOD(CHUNKED "1;a\r\nx\r\n0;b=c\r\n\r\n")},
        {"an extension with blanks and quotes", GOOD(CHUNKED "1 ;\ta = \"b;c\" \r\nx\r\n0\r\n\r\n")},
        {"the last line is missing", UNFINISHED(CHUNKED "1\r\na\r\n0\r\n")},
        {"the last byte is missing", UNFINISHED(CHUNKED "1\r\na\r\n0\r\n\r")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(malformed_chunks)
{
    static const struct example examples[] = {
        {"no size", BAD(400, CHUNKED, "\r\n\r\n")},
        {"no size, but an extension", BAD(400, CHUNKED, ";a\r\n\r\n")},
        {"a sign", BAD(400, CHUNKED, "+1\r\na\r\n0\r\n\r\n")},
        {"less than nothing", BAD(400, CHUNKED, "-1\r\na\r\n0\r\n\r\n")},
        {"0x", BAD(400, CHUNKED "0", "x1\r\na\r\n0\r\n\r\n")},
        {"no hexadecimal digit", BAD(400, CHUNKED "1", "g\r\na\r\n0\r\n\r\n")},
        {"a blank before the size", BAD(400, CHUNKED, " 1\r\na\r\n0\r\n\r\n")},
        {"a blank behind it, and no extension", BAD(400, CHUNKED "1 ", "\r\na\r\n0\r\n\r\n")},
        {"a second size", BAD(400, CHUNKED "1 ", "1\r\na\r\n0\r\n\r\n")},
        {"a line feed alone behind the size", BAD(400, CHUNKED "1", "\na\r\n0\r\n\r\n")},
        {"a line feed alone behind an extension", BAD(400, CHUNKED "1;a", "\na\r\n0\r\n\r\n")},
        {"a carriage return alone in an extension", BAD(400, CHUNKED "1;a\r", "b\r\na\r\n0\r\n\r\n")},
        {"NUL in an extension", BAD(400, CHUNKED "1;a", "\0\r\na\r\n0\r\n\r\n")},
        {"a line feed alone behind the data", BAD(400, CHUNKED "1\r\na", "\n0\r\n\r\n")},
        {"a carriage return alone behind the data", BAD(400, CHUNKED "1\r\na\r", "0\r\n\r\n")},
        {"more data than the size says", BAD(400, CHUNKED "1\r\na", "b\r\n0\r\n\r\n")},
        {"the empty line is missing", BAD(400, CHUNKED "0\r\nGET", " /x" H "\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(chunk_limit)
{
    static const struct example examples[] = {
        {"a chunk of 65537", BAD(413, CHUNKED "1000", "1\r\n")},
        {"a chunk of 2^32 + 1", BAD(413, CHUNKED "10000", "0001\r\na\r\n0\r\n\r\n")},
        {"a chunk of 2^64 + 1", BAD(413, CHUNKED "10000", "000000000001\r\na\r\n0\r\n\r\n")},
        {"a chunk of 2^63", BAD(413, CHUNKED "8000", "000000000000\r\n")},
    };
    check_examples(examples, COUNT(examples));
    size_t end = strlen(CHUNKED) + HTTP_BODY_MAX;
    check_long("65536 bytes, with two sizes", 0, CHUNKED "fff3\r\n", 'x', 0xfff3, "\r\n0\r\n\r\n", 0);
    check_long("65537 bytes, with two sizes", 413, CHUNKED "fff4\r\n", 'x', 0xfff4, "\r\n0\r\n\r\n", end);
    check_long("65536 bytes, with an extension", 0, CHUNKED "0;", 'x', 65530, "\r\n\r\n", 0);
    check_long("65537 bytes, with an extension", 413, CHUNKED "0;", 'x', 65531, "\r\n\r\n", end);
    check_long("65536 bytes of noughts", 0, CHUNKED, '0', 65532, "\r\n\r\n", 0);
    check_long("65537 bytes of noughts", 413, CHUNKED, '0', 65533, "\r\n\r\n", end);
    check_long("65536 bytes, with a trailer", 0, CHUNKED "0\r\nX:", 'x', 65527, "\r\n\r\n", 0);
    check_long("65537 bytes, with a trailer", 413, CHUNKED "0\r\nX:", 'x', 65528, "\r\n\r\n", end);
}
END_TEST

START_TEST(trailers)
{
    static const struct example examples[] = {
        {"one", GOOD(CHUNKED "0\r\nX: y\r\n\r\n")},
        {"a length comes too late", GOOD(CHUNKED "0\r\nContent-Length: 5\r\n\r\n")},
        {"so does everything", GOOD(CHUNKED "0\r\nConnection: close\r\nHost: i\r\nTransfer-Encoding: gzip\r\n"
                                            "Range: bytes=1-2\r\nExpect: 100-continue\r\n\r\n")},
        {"no name", BAD(400, CHUNKED "0\r\n", ": y\r\n\r\n")},
        {"no colon", BAD(400, CHUNKED "0\r\nX", "\r\n\r\n")},
        {"a line feed alone", BAD(400, CHUNKED "0\r\nX: y", "\n\r\n")},
        {"folded", BAD(400, CHUNKED "0\r\nX: y\r\n", " z\r\n\r\n")},
        {"NUL", BAD(400, CHUNKED "0\r\nX: ", "\0\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(two_framings)
{
    static const struct example examples[] = {
        {"the length first",
         BAD(400, "GET /" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n")},
        {"the coding first",
         BAD(400, "GET /" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "0\r\n\r\n")},
        {"a length of nought",
         BAD(400, "GET /" H "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n")},
        {"a length that is too large",
         BAD(400, "GET /" H "Content-Length: 65537\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n")},
        {"HTTP/1.0 has no codings",
         BAD(400, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(codings)
{
    static const struct example examples[] = {
        {"a coding before chunked", BAD(501, "GET /" H "Transfer-Encoding: gzip, chunked\r\n\r\n", "")},
        {"without a blank", BAD(501, "GET /" H "Transfer-Encoding: gzip,Chunked\r\n\r\n", "")},
        {"chunked twice", BAD(501, "GET /" H "Transfer-Encoding: chunked, chunked\r\n\r\n", "")},
        {"only another coding: its end cannot be known",
         BAD(400, "GET /" H "Transfer-Encoding: gzip", "\r\n\r\n0\r\n\r\n")},
        {"another coding behind chunked", BAD(400, "GET /" H "Transfer-Encoding: chunked, gzip", "\r\n\r\n")},
        {"none", BAD(400, "GET /" H "Transfer-Encoding:", "\r\n\r\n")},
        {"identity", BAD(400, "GET /" H "Transfer-Encoding: identity", "\r\n\r\n")},
        {"a word that ends with chunked", BAD(400, "GET /" H "Transfer-Encoding: xchunked", "\r\n\r\n")},
        {"a word that begins with chunked", BAD(400, "GET /" H "Transfer-Encoding: chunkedx", "\r\n\r\n")},
        {"in quotes", BAD(400, "GET /" H "Transfer-Encoding: \"chunked\"", "\r\n\r\n")},
        {"with a parameter", BAD(400, "GET /" H "Transfer-Encoding: chunked;a=b", "\r\n\r\n")},
        {"in two lines", BAD(400, "GET /" H "Transfer-Encoding: gzip, chunked\r\nTransfer-Encoding: chunked",
                             "\r\n\r\n0\r\n\r\n")},
        {"twice chunked in two lines",
         BAD(400, "GET /" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "\r\n\r\n0\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

#define EXPECT "Expect: 100-continue\r\n"

START_TEST(expectations)
{
    /* The body, if it comes, belongs to no request: the connection is to be closed. */
    static const struct example examples[] = {
        {"with a length", GOOD("GET /" H EXPECT "Content-Length: 5\r\n\r\n"), .closes = true},
        {"with chunks", GOOD("GET /" H "Transfer-Encoding: chunked\r\nexpect: 100-Continue\r\n\r\n"),
         .closes = true},
        {"without a body nobody waits", GOOD("GET /" H EXPECT "\r\n")},
        {"with an empty body, too", GOOD("GET /" H "Content-Length: 0\r\n" EXPECT "\r\n")},
        {"HTTP/1.0 knows none", GOOD("GET / HTTP/1.0\r\n" EXPECT "Content-Length: 2\r\n\r\nhi"),
         .closes = true},
        {"something else", GOOD("GET /" H "Expect: 200-ok\r\nContent-Length: 2\r\n\r\nhi")},
        {"a body that is too large", BAD(413, "GET /" H EXPECT "Content-Length: 65537\r\n\r\n", "")},
        {"another method", BAD(405, "PUT /" H EXPECT "Content-Length: 5\r\n\r\n", "")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

/* ---- ranges and dates ---- */

START_TEST(ranges)
{
    static const struct example examples[] = {
        {"from, to", GOOD("GET /" H "Range: bytes=5-10\r\n\r\n"), .has_range = true, .first = 5, .last = 10},
        {"one byte", GOOD("GET /" H "Range: bytes=0-0\r\n\r\n"), .has_range = true, .first = 0, .last = 0},
        {"from", GOOD("GET /" H "Range: bytes=5-\r\n\r\n"), .has_range = true, .first = 5, .last = -1},
        {"the last", GOOD("GET /" H "Range: bytes=-5\r\n\r\n"), .has_range = true, .first = -1, .last = 5},
        {"the last 0", GOOD("GET /" H "Range: bytes=-0\r\n\r\n"), .has_range = true, .first = -1, .last = 0},
        {"the unit in any case", GOOD("GET /" H "range: Bytes=1-2 \r\n\r\n"), .has_range = true, .first = 1,
         .last = 2},
        {"2^63 - 1", GOOD("GET /" H "Range: bytes=9223372036854775806-9223372036854775807\r\n\r\n"),
         .has_range = true, .first = INT64_MAX - 1, .last = INT64_MAX},
        {"more than that", GOOD("GET /" H "Range: bytes=9223372036854775808-18446744073709551616\r\n\r\n"),
         .has_range = true, .first = INT64_MAX, .last = INT64_MAX},
        {"much more", GOOD("GET /" H "Range: bytes=1-99999999999999999999999999999999\r\n\r\n"),
         .has_range = true, .first = 1, .last = INT64_MAX},
        {"the last, and many", GOOD("GET /" H "Range: bytes=-99999999999999999999999999999999\r\n\r\n"),
         .has_range = true, .first = -1, .last = INT64_MAX},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(ignored_ranges)
{
    static const struct example examples[] = {
        {"several", GOOD("GET /" H "Range: bytes=0-1,5-6\r\n\r\n")},
        {"one, in a list", GOOD("GET /" H "Range: bytes=0-1,\r\n\r\n")},
        {"another unit", GOOD("GET /" H "Range: lines=0-1\r\n\r\n")},
        {"no unit", GOOD("GET /" H "Range: 0-1\r\n\r\n")},
        {"nothing", GOOD("GET /" H "Range:\r\n\r\n")},
        {"the unit only", GOOD("GET /" H "Range: bytes=\r\n\r\n")},
        {"a hyphen only", GOOD("GET /" H "Range: bytes=-\r\n\r\n")},
        {"no hyphen", GOOD("GET /" H "Range: bytes=5\r\n\r\n")},
        {"the last before the first", GOOD("GET /" H "Range: bytes=5-4\r\n\r\n")},
        {"two hyphens", GOOD("GET /" H "Range: bytes=5--6\r\n\r\n")},
        {"less than nothing", GOOD("GET /" H "Range: bytes=--5\r\n\r\n")},
        {"a sign", GOOD("GET /" H "Range: bytes=+5-6\r\n\r\n")},
        {"a blank", GOOD("GET /" H "Range: bytes=5 -6\r\n\r\n")},
        {"another blank", GOOD("GET /" H "Range: bytes =5-6\r\n\r\n")},
        {"a letter", GOOD("GET /" H "Range: bytes=5-6a\r\n\r\n")},
        {"HEAD has no ranges", GOOD("HEAD /" H "Range: bytes=5-6\r\n\r\n"), .head = true},
        {"two fields", BAD(400, "GET /" H "Range: bytes=5-6\r\nRange: bytes=5-6", "\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(if_ranges)
{
    static const struct example examples[] = {
        {"a date", GOOD("GET /" H "Range: bytes=5-\r\nIf-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"),
         .has_range = true, .first = 5, .last = -1, .if_range = 784111777},
        {"before the range", GOOD("GET /" H "If-Range: Sun Nov  6 08:49:37 1994\r\nRange: bytes=5-\r\n\r\n"),
         .has_range = true, .first = 5, .last = -1, .if_range = 784111777},
        {"an entity tag is none of ours", GOOD("GET /" H "Range: bytes=5-\r\nIf-Range: \"abc\"\r\n\r\n")},
        {"before the range", GOOD("GET /" H "If-Range: \"abc\"\r\nRange: bytes=5-\r\n\r\n")},
        {"a weak one", GOOD("GET /" H "Range: bytes=5-\r\nIf-Range: W/\"abc\"\r\n\r\n")},
        {"nothing", GOOD("GET /" H "Range: bytes=5-\r\nIf-Range:\r\n\r\n")},
        {"no date", GOOD("GET /" H "Range: bytes=5-\r\nIf-Range: Sun, 31 Nov 1994 08:49:37 GMT\r\n\r\n")},
        {"without a range", GOOD("GET /" H "If-Range: \"abc\"\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

#define SINCE "GET /" H "If-Modified-Since: "

START_TEST(dates)
{
    static const struct example examples[] = {
        {"the format of today", GOOD(SINCE "Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"), .since = 784111777},
        {"that of RFC 850", GOOD(SINCE "Sunday, 06-Nov-94 08:49:37 GMT\r\n\r\n"), .since = 784111777},
        {"that of asctime()", GOOD(SINCE "Sun Nov  6 08:49:37 1994\r\n\r\n"), .since = 784111777},
        {"with a day of two digits", GOOD(SINCE "Wed Nov 16 08:49:37 1994\r\n\r\n"), .since = 784975777},
        {"with blanks around it", GOOD(SINCE "\t Sun, 06 Nov 1994 08:49:37 GMT \t\r\n\r\n"),
         .since = 784111777},
        {"a second of 1970", GOOD(SINCE "Thu, 01 Jan 1970 00:00:01 GMT\r\n\r\n"), .since = 1},
        {"29 February", GOOD(SINCE "Tue, 29 Feb 2000 12:00:00 GMT\r\n\r\n"), .since = 951825600},
        {"a leap second", GOOD(SINCE "Sat, 31 Dec 2016 23:59:60 GMT\r\n\r\n"), .since = 1483228800},
        {"an entity tag goes first",
         GOOD(SINCE "Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-None-Match: \"a\"\r\n\r\n")},
        {"in two lines, and before it", GOOD("GET /" H "If-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n"
                                             "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n")},
        {"HEAD", GOOD("HEAD /" H "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"), .head = true,
         .since = 784111777},
        {"two fields", BAD(400, SINCE "Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-Modified-Since: x", "\r\n\r\n")},
    };
    check_examples(examples, COUNT(examples));
}
END_TEST

START_TEST(no_dates)
{
    static const char *const none[] = {
        "",
        "x",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 Nov 1994 08:49:37 GMTx",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 -8:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, -6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 32 Dec 1994 08:49:37 GMT",
        "Sun, 29 Feb 1995 08:49:37 GMT",
        "Sun, 29 Feb 2100 08:49:37 GMT",
        "Sun, 30 Feb 2000 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 ovD 1994 08:49:37 GMT",
        "Sun, 06 XYZ 1994 08:49:37 GMT",
        "Sun, 06 Nov 1969 08:49:37 GMT",
        "Sun, 06 Nov -199 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06-Nov--4 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37",
        "Sun Nov  6 08:49:37",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
    };
    for (size_t i = 0; i < COUNT(none); i++) {
        char text[256];
        struct example example = {.why = "no date: it is ignored", .text = text};
        example.size = example.used = (size_t)snprintf(text, sizeof text, SINCE "%s\r\n\r\n", none[i]);
        check_example(&example);
    }
}
END_TEST

/* Feeds a date of some format. Returns if_modified_since. */
static time_t parsed_date(const char *format, time_t time)
{
    char date[64];
    char text[256];
    struct tm parts;
    gmtime_r(&time, &parts);
    if (strftime(date, sizeof date, format, &parts) == 0)
        ck_abort_msg("no date could be made by %s", format);
    size_t size = (size_t)snprintf(text, sizeof text, SINCE "%s\r\n\r\n", date);
    struct outcome outcome = parse(text, size, size, size);
    ck_assert_msg(outcome.state == HTTP_REQUEST, "%s is refused", date);
    return request.if_modified_since;
}

START_TEST(every_day)
{
    static const time_t LAST = sizeof(time_t) > 4 ? 13569465600 : INT32_MAX; /* 2400 */
    for (time_t time = 0; time < LAST; time += 86400 - 1) {                  /* another second, each day */
        time_t parsed = parsed_date("%a, %d %b %Y %H:%M:%S GMT", time);
        ck_assert_msg(parsed == time, "%jd became %jd", (intmax_t)time, (intmax_t)parsed);
        parsed = parsed_date("%a %b %e %H:%M:%S %Y", time);
        ck_assert_msg(parsed == time, "asctime: %jd became %jd", (intmax_t)time, (intmax_t)parsed);
    }
}
END_TEST

START_TEST(short_years)
{
    time_t now = time(NULL);
    struct tm parts;
    gmtime_r(&now, &parts);
    for (int years = -49; years <= 49; years++) { /* from now; those before 1970 are none */
        struct tm date = {.tm_year = parts.tm_year + years, .tm_mon = 5, .tm_mday = 15};
        time_t time = timegm(&date);
        time_t parsed = parsed_date("%A, %d-%b-%y %H:%M:%S GMT", time);
        ck_assert_msg(parsed == (time < 0 ? -1 : time), "in %d years: %jd became %jd", years, (intmax_t)time,
                      (intmax_t)parsed);
    }
}
END_TEST

int main(void)
{
    /* In here, since what START_TEST makes is a variable, and no constant. */
    const struct tap_test tests[] = {
        {"request: what clients send is understood", requests,
         "each of these requests, cut anywhere: HTTP_MORE until its last byte, then HTTP_REQUEST",
         "the parser goes on at the wrong place after a cut, or takes a name or a blank too literally",
         SECOND},
        {"request: ends where the next one begins", pipelined,
         "used counts the bytes of one request, with its body, so that the next is found behind it",
         "the rest of what was received was thrown away with the first request, or a body was not skipped",
         SECOND},
        {"request: after its end no more is taken", takes_no_more,
         "the same outcome, and used is 0, until http_begin()",
         "the loop looks at the bytes before it looks at the state", SECOND},
        {"request: nothing is left over for the next", begins_again,
         "http_begin() makes the struct as new: no Host, no range, no HEAD of the request before",
         "a member is not reset, so that one client's request on the connection changes the next", SECOND},
        {"request: pieces of any size", any_pieces, "the outcome does not depend on how the network cuts",
         "a step expects to find all of its element in one piece", SECOND},

        {"request line: some empty lines may come before it", empty_lines,
         "up to four lines of CR LF are passed over; clients once sent one behind a body",
         "they are taken for a request, or are passed over without a limit", SECOND},
        {"request line: malformed", malformed_line,
         "400 at the byte that is wrong: METHOD SP TARGET SP HTTP/1.x CR LF, and nothing else",
         "sscanf() or strtok(), for which any blanks are one, read the line", SECOND},
        {"request line: other versions", other_versions, "505 for HTTP/x.y that is not 1.0 or 1.1",
         "only the first digit is looked at, or none", SECOND},
        {"method: GET and HEAD are served", other_methods,
         "behind the head, 405 for the other methods of HTTP, and 501 for what is none",
         "methods are compared in any case, or by their first letters", SECOND},
        {"method: what is malformed is refused first", malformed_first,
         "400, which says that the client is broken, and not 405, which says that we do not serve this",
         "the method was refused before the rest was read", SECOND},
        {"method: HEAD is known when it is refused", head_of_refused, "head is set with HTTP_REFUSED, too",
         "the method is stored when all is well", SECOND},

        {"target: is decoded once", decoded,
         "%XX becomes a byte, and what comes of that is not decoded again",
         "sscanf(\"%2x\") takes signs and blanks; or the loop goes back to the byte that it has decoded",
         SECOND},
        {"target: no NUL, no encoded slash, no control character", unwelcome,
         "400: the path would end at the NUL, have another folder, or write lines into a log",
         "what has been decoded is not looked at again", SECOND},
        {"target: does not climb out of the folder", climbing,
         "400 for each segment that is . or .. after decoding; names with points in them are names",
         "the dots are looked for before the path is decoded, or \"..\" by strstr()", SECOND},
        {"target: several slashes are one", slashes,
         "no // in the path: behind a folder, openat() would take \"/etc\" for an absolute path",
         "only the first slash is removed, and the second makes the path absolute", SECOND},
        {"target: the query is cut off", queries,
         "the path ends at the first ?, and the query may be anything",
         "the query is decoded and checked as if it were a part of the path", SECOND},
        {"target: the absolute form", absolute_form, "the path of the URI; its host is checked as Host is",
         "a target is taken for a path, whatever it begins with", SECOND},
        {"target: other forms are refused", other_forms, "400 for * and authorities, and for other schemes",
         "the first character is skipped without a look at it", SECOND},
        {"target: 2048 bytes, and not one more", target_limit, "414 at the first byte beyond",
         "> where >= is meant, or no limit, and the byte is written behind the buffer", SECOND},

        {"host: exactly one", hosts, "400 in HTTP/1.1 if there is none, and always if there are two",
         "the last of two counts here, and the first for the proxy in front: whose request is it?", SECOND},
        {"host: no strange characters", host_characters,
         "400 for all that is not in names, addresses and ports",
         "the value is not looked at, but used in a path, in a log or in an answer", SECOND},
        {"fields: a line feed alone ends no line", bare_lf, "400 at the line feed",
         "the end of a line is where memchr() finds a \\n: others see one field where we see two", SECOND},
        {"fields: a carriage return alone ends no line", bare_cr, "400 at what comes behind it",
         "\\r is passed over wherever it is", SECOND},
        {"fields: are not continued in the next line", folded, "400 for a line that begins with a blank",
         "it is taken for another field, or for a part of the one before: proxies may do the other", SECOND},
        {"fields: malformed names", malformed_names, "400: a name is a token, and the colon follows at once",
         "the blank is trimmed: \"Content-Length : 5\" is a length here, and another field elsewhere",
         SECOND},
        {"fields: no control characters", control_characters, "400 for NUL and its like, in every value",
         "strchr() or strcmp() on what a client sent: they stop at a NUL", SECOND},
        {"head: 8192 bytes, and not one more", head_limit, "431 at the first byte beyond, wherever it is",
         "one piece is compared with the limit, and not the sum of all; or > where >= is meant", SECOND},
        {"head: values that matter have a limit, too", value_limit,
         "431 for a Host, a length or a coding of more than 256 bytes; other fields may be longer",
         "what does not fit is cut off, and the rest means something else", SECOND},
        {"connection: is kept alive, or not", connections,
         "1.1 is kept unless close is in the list, 1.0 is not unless keep-alive is",
         "strstr() finds words in words, and strcmp() finds none in a list", SECOND},

        {"length: the body is read and thrown away", lengths,
         "so many bytes belong to the request, whatever they are",
         "a body is not expected with GET, and so is taken for the next request", SECOND},
        {"length: malformed", malformed_lengths, "400: digits, and nothing else",
         "strtol() or atoi(): they take signs and blanks, and ignore what is behind the digits", SECOND},
        {"length: exactly one", several_lengths, "400 for a second one, even if it says the same",
         "the last counts here, and the first elsewhere: what is between them is a request for one of the "
         "two",
         SECOND},
        {"length: 65536 bytes, and no overflow", length_limit,
         "413 at once if it is more, however many digits it has",
         "the number has wrapped around to a small one, and the rest of the body becomes requests", SECOND},
        {"chunks: are read and thrown away", chunks, "sizes, extensions and data, up to the chunk of size 0",
         "a size, or its line, does not survive a cut; or the data are searched for a CR LF", SECOND},
        {"chunks: malformed", malformed_chunks, "400 at the byte that is wrong: hexadecimal digits, CR LF",
         "strtol() with base 16: it takes blanks, signs and 0x, and proxies may not", SECOND},
        {"chunks: 65536 bytes, with all that is around them", chunk_limit,
         "413 when a size, or all together, is more: sizes, extensions and trailers count",
         "only the data are counted: then a client can send extensions for ever", SECOND},
        {"trailers: are read, and mean nothing", trailers, "fields behind the last chunk change nothing",
         "they are taken for fields of the head, after everything was decided by those", SECOND},
        {"coding: not with a length, and not in HTTP/1.0", two_framings,
         "400: who sends both wants two servers to disagree where the request ends (CL.TE, TE.CL)",
         "one of the two was preferred, as RFC 9112 allows to a server that then closes", SECOND},
        {"coding: chunked, or none", codings,
         "501 for codings that we do not have; 400 if chunked is not the last, for then nobody knows the end",
         "strstr(value, \"chunked\")", SECOND},
        {"expect: is answered before the body", expectations,
         "the request is complete behind the head, and the connection is not kept: nobody waits for a 100",
         "the parser waits for the body, and the client for a 100 Continue: both until a timeout", SECOND},

        {"range: one, as it was asked for", ranges, "from, to, the last bytes, and no overflow",
         "a number that is too large wraps around, and means other bytes", SECOND},
        {"range: others are ignored", ignored_ranges,
         "no range: the client gets the whole file, which is right",
         "what was read up to the mistake was used", SECOND},
        {"range: only if the file is still the same", if_ranges,
         "the range counts for a date, which is compared later; with an entity tag the whole file is sent",
         "If-Range was not looked at: the client puts half of one file behind half of another", SECOND},
        {"date: three formats", dates, "seconds since 1970 from each format that HTTP has had",
         "only the format of today is read", SECOND},
        {"date: what is none is ignored", no_dates, "-1, as if the field had not come",
         "the parts are not checked: mktime() makes 1 December of 31 November", SECOND},
        {"date: every day until 2400", every_day, "the seconds of the C library for the same date",
         "leap years: those that 100 divides are none, unless 400 does", SECOND},
        {"date: a year of two digits is near", short_years,
         "not more than 50 years from now, in the past or future", "1900 was added", SECOND},
    };
    return tap_run("", tests, COUNT(tests));
}
