/* fuzz_http.c - throws bytes at http.c, chapter 6's request parser, and looks whether what must always hold
 * does hold. Nobody has to know what is right for each input: it must be the same however it is cut, and what
 * is accepted must stand a second look, line by line, by code that has nothing in common with the parser.
 *
 * With libFuzzer, which looks for inputs that reach new code (needs clang):
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -DFUZZER -Ich06-reactor \
 *       tests/fuzz_http.c ch06-reactor/http.c -o fuzz && mkdir found && ./fuzz -max_len=20000 found
 * tests/fuzz_http Without it, this is a test: the inputs of a folder, each whole, and with each byte changed.
 */
#define _POSIX_C_SOURCE 200809L

#include "http.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const char *input_name = "the input"; /* for the message */

#define MUST(condition)                   \
    do {                                  \
        if (!(condition))                 \
            broken(__LINE__, #condition); \
    } while (0)

static _Noreturn void broken(int line, const char *condition)
{
    fprintf(stderr, "fuzz_http.c:%d: %s: not so: %s\n", line, input_name, condition);
    abort();
}

/* What came of one request. */
struct outcome {
    struct http_request request;
    enum http_state state;
    size_t used;
};

/* Feeds one request: in pieces of at most so many bytes, or, with most 0, of a size at random. Each piece is
 * in memory of its own, so that a sanitizer sees the parser read behind it. */
static void parse(struct outcome *outcome, const char *data, size_t size, size_t most)
{
    unsigned random = (unsigned)size;
    memset(outcome, 0xa5, sizeof *outcome);
    outcome->state = HTTP_MORE;
    outcome->used = 0;
    http_begin(&outcome->request);
    while (outcome->used < size && outcome->state == HTTP_MORE) {
        random = random * 1664525 + 1013904223;
        size_t piece = most != 0 ? most : (random >> 16) % (random >> 31 != 0 ? 5 : 300);
        size_t left = size - outcome->used;
        size_t used = SIZE_MAX;
        piece = piece < left ? piece : left;
        char byte = data[outcome->used];
        char *copy = piece > 1 ? malloc(piece) : &byte;
        if (copy == NULL)
            abort();
        memcpy(copy, data + outcome->used, piece);
        outcome->state = http_feed(&outcome->request, copy, piece, &used);
        if (copy != &byte)
            free(copy);
        MUST(used <= piece);
        MUST(used == piece || outcome->state != HTTP_MORE);
        outcome->used += used;
    }
}

static void check_same(const struct outcome *one, const struct outcome *other)
{
    const struct http_request *a = &one->request;
    const struct http_request *b = &other->request;
    MUST(one->state == other->state);
    MUST(one->used == other->used);
    if (one->state == HTTP_MORE)
        return;
    MUST(strcmp(a->path, b->path) == 0);
    MUST(a->status == b->status);
    MUST(a->head == b->head);
    MUST(a->keep_alive == b->keep_alive);
    MUST(a->has_range == b->has_range);
    MUST(!a->has_range || (a->range_first == b->range_first && a->range_last == b->range_last));
    MUST(a->if_range == b->if_range);
    MUST(a->if_modified_since == b->if_modified_since);
}

/* A path must be one that can be opened in a folder without leaving it. */
static void check_path(const char *path)
{
    MUST(memchr(path, '\0', HTTP_TARGET_MAX + 1) != NULL);
    MUST(path[0] == '/');
    MUST(strstr(path, "//") == NULL);
    for (const char *c = path; *c != '\0'; c++)
        MUST((unsigned char)*c >= ' ' && *c != 0x7f);
    for (const char *name = path; name != NULL; name = strchr(name, '/')) {
        name++;
        MUST(strncmp(name, "./", 2) != 0 && strcmp(name, ".") != 0);
        MUST(strncmp(name, "../", 3) != 0 && strcmp(name, "..") != 0);
    }
}

/* Whether a line is the field of that name. */
static unsigned is_field(const char *line, const char *end, const char *name)
{
    size_t size = strlen(name);
    return (size_t)(end - line) > size && strncasecmp(line, name, size) == 0 && line[size] == ':' ? 1 : 0;
}

/* Looks at the head of a request that has been accepted, as a suspicious proxy would. Returns its size. */
static size_t check_head(const char *data, size_t size)
{
    unsigned lines = 0, hosts = 0, lengths = 0, codings = 0;
    const char *line = data;
    const char *end = data + size;
    bool http11 = false;
    for (;;) {
        const char *feed = memchr(line, '\n', (size_t)(end - line));
        MUST(feed != NULL && feed > line && feed[-1] == '\r');
        const char *stop = feed - 1;
        for (const char *c = line; c < stop; c++)
            MUST((unsigned char)*c >= ' ' || (*c == '\t' && lines > 0));
        if (stop == line && lines > 0)
            break;
        if (stop > line && lines++ == 0) {
            MUST(stop - line >= 14 && (memcmp(line, "GET ", 4) == 0 || memcmp(line, "HEAD ", 5) == 0));
            MUST(memcmp(stop - 9, " HTTP/1.", 8) == 0);
            http11 = stop[-1] == '1';
        } else if (stop > line) {
            const char *colon = memchr(line, ':', (size_t)(stop - line));
            MUST(colon != NULL && colon > line && *line != ' ' && *line != '\t');
            MUST(colon[-1] != ' ' && colon[-1] != '\t');
            hosts += is_field(line, stop, "Host");
            lengths += is_field(line, stop, "Content-Length");
            codings += is_field(line, stop, "Transfer-Encoding");
        }
        line = feed + 1;
    }
    MUST(hosts == 1 || (hosts == 0 && !http11));
    MUST(lengths + codings <= 1);
    MUST(codings == 0 || http11);
    return (size_t)(line + 2 - data);
}

/* What must hold for any outcome. */
static void check(struct outcome *outcome, const char *data, size_t size)
{
    struct http_request *request = &outcome->request;
    size_t used = 1;

    MUST(outcome->used <= (size_t)HTTP_HEAD_MAX + HTTP_BODY_MAX);
    if (outcome->state == HTTP_MORE) {
        MUST(outcome->used == size);
        return;
    }
    MUST(http_feed(request, data, size, &used) == outcome->state && used == 0);
    if (outcome->state == HTTP_REFUSED) {
        int status = request->status;
        MUST(status == 400 || status == 405 || status == 413 || status == 414 || status == 431 ||
             status == 501 || status == 505);
        MUST(request->path[0] == '\0');
        return;
    }
    MUST(outcome->state == HTTP_REQUEST);
    MUST(request->status == 0);
    check_path(request->path);
    size_t head = check_head(data, outcome->used);
    MUST(head <= HTTP_HEAD_MAX && outcome->used - head <= HTTP_BODY_MAX);
    MUST(request->if_range >= -1 && request->if_modified_since >= -1);
    if (request->has_range) {
        MUST(!request->head);
        MUST(request->range_first >= -1 && request->range_last >= -1);
        MUST(request->range_first >= 0 || request->range_last >= 0);
        MUST(request->range_first == -1 || request->range_last == -1 ||
             request->range_first <= request->range_last);
    }
}

/* The bytes are those of a connection: as many requests as there are, one behind the other. */
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size)
{
    static struct outcome whole, single, random;
    const char *data = (const char *)bytes;
    for (;;) {
        parse(&whole, data, size, SIZE_MAX);
        parse(&single, data, size, 1);
        parse(&random, data, size, 0);
        check_same(&whole, &single);
        check_same(&whole, &random);
        check(&whole, data, size);
        if (whole.state != HTTP_REQUEST)
            return 0;
        MUST(whole.used > 0);
        data += whole.used;
        size -= whole.used;
    }
}

#ifndef FUZZER

enum { INPUT_MAX = 1024 * 1024 };

/* Puts, in place of each byte in turn, those that mean something, and takes the byte away. */
static unsigned long change_each_byte(unsigned char *data, size_t size)
{
    static const unsigned char special[] = "\0\t\n\r \"#%,-./09:;=?\177\377";
    unsigned long runs = 0;
    for (size_t i = 0; i < size && size < 2000;
         i++) { /* no large ones: it would take long, and show nothing new */
        unsigned char byte = data[i];
        for (size_t j = 0; j < sizeof special - 1; j++, runs++) {
            data[i] = special[j];
            LLVMFuzzerTestOneInput(data, size);
        }
        memmove(data + i, data + i + 1, size - i - 1);
        LLVMFuzzerTestOneInput(data, size - 1);
        memmove(data + i + 1, data + i, size - i - 1);
        data[i] = byte;
        runs++;
    }
    return runs;
}

/* Runs one file. Returns how many inputs were made of it. */
static unsigned long run_file(const char *path)
{
    static unsigned char data[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    input_name = path;
    LLVMFuzzerTestOneInput(data, size);
    return 1 + change_each_byte(data, size);
}

int main(int argc, char **argv)
{
    char name[4096];
    const char *top_srcdir = getenv("top_srcdir");
    snprintf(name, sizeof name, "%s/tests/fuzz_http", top_srcdir != NULL ? top_srcdir : ".");
    const char *folder = argc > 1 ? argv[1] : name;
    DIR *files = opendir(folder);
    unsigned long inputs = 0;
    unsigned long count = 0;

    puts("1..1");
    if (files == NULL) {
        perror(folder);
        return EXIT_FAILURE;
    }
    for (const struct dirent *entry = readdir(files); entry != NULL; entry = readdir(files)) {
        char path[sizeof name + 256];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        inputs += run_file(path);
        count++;
    }
    closedir(files);
    printf("%s 1 - http.c: what must always hold does, for %lu inputs made of %lu files\n",
           count > 0 ? "ok" : "not ok", inputs, count);
    return count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
