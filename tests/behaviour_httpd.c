/* behaviour_httpd.c - what the second application does, seen from outside: HTTP/1.1 for the files of a
 * folder. With -DPROACTOR it is chapter 7's, else chapter 6's.
 * Where it matters how the server waits, a test runs with each demultiplexer, or each engine.
 * Run it as behaviour_httpd [HTTPD [WAY]]: the path of the server, and how the other tests have it wait. A
 * path that ends with "-iocp" is that of the program for Windows, which a script starts under Wine. */
#define _GNU_SOURCE /* the numbers of system calls, and the POSIX functions beside them */

#include "harness.h"
#include "tap.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if __has_include(<linux/capability.h>)
#include <linux/capability.h>
#endif
#if __has_include(<linux/seccomp.h>)
#include <linux/filter.h>
#include <linux/seccomp.h>
#endif

#ifdef PROACTOR
#define SECTION "the book, chapter 7, \"A second application\""
#define OPTION "engine"
enum { IN_TURNS = false }; /* what a turn does is the engine's affair */
static const char *const ways[] = {"io_uring", "emulated", "iocp"};
static const char *httpd = "../ch07-proactor-iouring/httpd";
#else
#define SECTION "the book, chapter 6, \"A second application\""
#define OPTION "demux"
enum { IN_TURNS = true };
static const char *const ways[] = {"select", "poll", "epoll", "kqueue"};
static const char *httpd = "../ch06-reactor/httpd";
#endif

enum { WAYS = sizeof ways / sizeof *ways };

/* As in the server. */
enum {
    INPUT_SIZE = 4 * 1024,
    SMALL_FILE = 16 * 1024,
    TURN_BYTES = 256 * 1024,
    REQUESTS_PER_TURN = 16,
    LINGER_MS = 2000,
};

enum {
    LARGE = 1024 * 1024,
    HUGE = 24 * 1024 * 1024, /* more than the kernel takes for a client that does not read */
    MODIFIED = 784111777,    /* Sun, 06 Nov 1994 08:49:37 GMT */
    FILES = 100,             /* of many sizes */
};

#define MODIFIED_TEXT "Sun, 06 Nov 1994 08:49:37 GMT"
#define HELLO "hello, world\n"
#define SECRET "the secret\n"

/* The server is a program for Windows, under Wine: see server_under_wine(). */
static bool on_windows;

/* For tests that no engine for Windows can pass; or Wine, though Windows might. */
static void not_on_windows(const char *why)
{
    if (on_windows)
        tap_skip("%s", why);
}

#define WINE_FOLLOWS_LINKS \
    "Wine follows symbolic links, and a program for Windows cannot see that there are any"

/* ---- the folder ---- */

static char scratch[64]; /* has the folder, and something beside it that nobody may see */
static char site[80];

static void in_site(char *full, size_t size, const char *name)
{
    snprintf(full, size, "%s/%s", site, name);
}

/* These functions are also called where no test runs. */
static void must(bool done, const char *path)
{
    if (done)
        return;
    printf("Bail out! %s: %s\n", path, strerror(errno));
    exit(EXIT_FAILURE);
}

static void set_modified(const char *full, time_t modified)
{
    const struct timespec times[2] = {{.tv_sec = modified}, {.tv_sec = modified}};
    must(utimensat(AT_FDCWD, full, times, 0) == 0, full);
}

static void make_text(const char *name, const char *text)
{
    char full[200];
    in_site(full, sizeof full, name);
    FILE *file = fopen(full, "we");
    must(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0, full);
    set_modified(full, MODIFIED);
}

/* With the pattern of a seed. */
static void make_file(const char *name, size_t size, unsigned seed)
{
    static unsigned char block[65536];
    char full[200];
    in_site(full, sizeof full, name);
    FILE *file = fopen(full, "we");
    must(file != NULL, full);
    for (size_t done = 0; done < size;) {
        size_t piece = size - done < sizeof block ? size - done : sizeof block;
        for (size_t i = 0; i < piece; i++)
            block[i] = pattern(seed, done + i);
        done += fwrite(block, 1, piece, file);
        must(!ferror(file), full);
    }
    must(fclose(file) == 0, full);
    set_modified(full, MODIFIED);
}

static void make_folder(const char *name)
{
    char full[200];
    in_site(full, sizeof full, name);
    must(mkdir(full, 0755) == 0, full);
}

static void make_link(const char *name, const char *to)
{
    char full[200];
    in_site(full, sizeof full, name);
    must(symlink(to, full) == 0, full);
}

/* Sets the attribute by which Windows hides a file, where Wine has it. That is not possible everywhere. */
static bool veiled;

static void veil(const char *name)
{
#ifdef SYS_setxattr
    char full[200];
    in_site(full, sizeof full, name);
    veiled = syscall(SYS_setxattr, full, "user.DOSATTRIB", "0x2", 3, 0) == 0;
#else
    (void)name;
#endif
}

/* The sizes around which something changes come first. */
static size_t size_of(size_t file)
{
    static const size_t sizes[] = {
        0, 1, SMALL_FILE - 1, SMALL_FILE, SMALL_FILE + 1, TURN_BYTES, TURN_BYTES + 1};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    return file < COUNT ? sizes[file] : file * 3001;
}

static void make_site(void)
{
    const char *folder = getenv("TMPDIR");
    char name[40];
    snprintf(scratch, sizeof scratch, "%s/seven-servers-XXXXXX",
             folder != NULL && strlen(folder) < 40 ? folder : "/tmp");
    must(mkdtemp(scratch) != NULL && chmod(scratch, 0755) == 0, scratch);
    snprintf(site, sizeof site, "%s/site", scratch);
    make_folder("");
    make_folder("../outside");
    make_text("../outside/secret.txt", SECRET);
    make_text("../site.txt", SECRET); /* begins as the folder does */

    make_text("hello.txt", HELLO);
    make_text("index.html", "<h1>top</h1>\n");
    make_folder("folder");
    make_text("folder/index.html", "<h1>folder</h1>\n");
    make_folder("bare");
    make_folder("nested");
    make_folder("nested/index.html");
    make_folder("a b\\%\xc3\xa9\"<");
    make_folder("a b%\xc3\xa9");
    make_text("per%cent.txt", "%\n");
    make_text("dots..txt", "..\n");
    make_file("large.bin", LARGE, 1000);
    make_file("huge.bin", HUGE, 2000);
    for (size_t i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%zu.bin", i);
        make_file(name, size_of(i), (unsigned)i);
    }

    make_text("hello\xef\xbf\xbd.txt", HELLO); /* what a decoder makes of a byte that is no UTF-8 */
    make_text("aux.html", HELLO);              /* a device's name, for most of Windows' functions */
    make_text("veiled.txt", SECRET);
    veil("veiled.txt");

    make_text(".hidden", SECRET);
    make_folder(".git");
    make_text(".git/config", SECRET);
    make_link("out.txt", "../outside/secret.txt");
    make_link("absolute.txt", "/etc/passwd");
    make_link("outside", "../outside");
    make_link("loop", "loop");
    make_link("magic", "/proc/self/cwd");
    make_link("zero", "/dev/zero");
    make_link("again.txt", "hello.txt");
    make_link("there", "folder");
    make_link("inside.html", "bare/../folder/index.html");
    char full[200];
    in_site(full, sizeof full, "fifo");
    must(mkfifo(full, 0644) == 0, full);
    make_text("denied.txt", SECRET);
    in_site(full, sizeof full, "denied.txt");
    must(chmod(full, 0) == 0, full);
    make_folder("shut");
    make_text("shut/file.txt", SECRET);
    in_site(full, sizeof full, "shut");
    must(chmod(full, 0) == 0, full);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)where;
    if (kind == FTW_DNR)
        chmod(path, 0700);
    return kind == FTW_DP || kind == FTW_D || kind == FTW_DNR ? rmdir(path) : unlink(path);
}

static void remove_site(void)
{
    char full[200];
    in_site(full, sizeof full, "shut");
    chmod(full, 0700);
    for (int tries = 0; tries < 100 && nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0; tries++)
        nap(); /* a process that has just been killed may have had its hands in it */
}

/* ---- the server ---- */

/* How the server waits that is tested; NULL: as it does by itself. */
static const char *way;

/* The test wayN_NAME runs NAME() with that one of the ways. */
#define WITH(number, test)           \
    START_TEST(way##number##_##test) \
    {                                \
        way = ways[(number) % WAYS]; \
        test();                      \
    }                                \
    END_TEST

#define EACH(test) WITH(0, test) WITH(1, test) WITH(2, test) WITH(3, test)

static struct server start(const struct server_setup *setup)
{
    char options[160];
    snprintf(options, sizeof options, "--root %s%s%s", site, way != NULL ? " --" OPTION " " : "",
             way != NULL ? way : "");
    server_choose(httpd);
    server_options(options);
    return server_start(setup);
}

static struct server start_with(const char *option, const char *value)
{
    return start(&(struct server_setup){.arguments = {option, value}});
}

static void stops_well(struct server *server)
{
    int status = server_stop(server, SIGTERM);
    const char *errors = server_errors(server);
    ck_assert_msg(status == 0, "after SIGTERM the status is %d; on stderr: %.1000s", status, errors);
    ck_assert_msg(strstr(errors, "busy wait") == NULL, "on stderr: %.1000s", errors); /* of a debug build */
}

/* How much of a processor it uses in 0.2 seconds, in which it should sleep. */
static uint64_t used_at_rest(const struct server *server)
{
    ck_assert_msg(eventually(server_asleep(server)), "the server does not come to rest: it spins");
    uint64_t before = server_cpu_ns(server);
    for (int i = 0; i < 200; i++)
        nap();
    return server_cpu_ns(server) - before;
}

/* It sleeps, and goes on sleeping: nothing wakes it while nothing happens. Under Wine it may sleep for a
 * moment when it has something to do: it waits for Wine's server. */
static void rests(const struct server *server)
{
    uint64_t used = 0;
    ck_assert_msg((used = used_at_rest(server)) < 50000000 ||
                      (on_windows && eventually((used = used_at_rest(server)) < 50000000)),
                  "nothing happens, and in 0.2 s the server used %llu ms of a processor",
                  (unsigned long long)used / 1000000);
}

/* How many it has when it has done all: it closes a file when the client may already have the last byte. */
static int descriptors_at_rest(const struct server *server)
{
    ck_assert_msg(eventually(server_asleep(server)), "the server does not come to rest: it spins");
    return server_descriptors(server);
}

/* Whether it has as many as before, as far as that can be seen: see server_descriptors_uncertain(). */
static bool has_descriptors(const struct server *server, int count)
{
    return abs(server_descriptors(server) - count) <= server_descriptors_uncertain();
}

/* ---- a client ---- */

static void say(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

/* "Host" is needed, and may be empty. */
static void ask(int fd, const char *path)
{
    char text[300];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: here\r\n\r\n", path);
    say(fd, text);
}

/* Asks for a file with one more field. */
static void ask_with(int fd, const char *path, const char *line)
{
    char text[600];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: here\r\n%s\r\n\r\n", path, line);
    say(fd, text);
}

/* The head of the last answer, with an empty line at its end; "" if the connection ended before it did. */
static char head[16384];

static const char *read_head(int fd)
{
    size_t size = 0;
    head[0] = '\0';
    while (size + 1 < sizeof head && client_receive(fd, head + size, 1) == 1) {
        head[++size] = '\0';
        if (size >= 4 && memcmp(head + size - 4, "\r\n\r\n", 4) == 0)
            return head;
    }
    head[0] = '\0';
    return head;
}

/* The value of a field in that head, until the next call; NULL if it is not there. */
static const char *field(const char *name)
{
    static char value[8192];
    char line[64];
    snprintf(line, sizeof line, "\r\n%s: ", name);
    const char *found = strstr(head, line);
    if (found == NULL)
        return NULL;
    found += strlen(line);
    snprintf(value, sizeof value, "%.*s", (int)strcspn(found, "\r"), found);
    return value;
}

static size_t length(void)
{
    const char *value = field("Content-Length");
    ck_assert_msg(value != NULL, "an answer has no Content-Length: %s", head);
    return strtoul(value, NULL, 10);
}

/* The status line of the next answer is that one. what: for messages. */
static void answered(int fd, const char *status, const char *what)
{
    char line[80];
    read_head(fd);
    snprintf(line, sizeof line, "HTTP/1.1 %s\r\n", status);
    ck_assert_msg(strncmp(head, line, strlen(line)) == 0, "%.200s: expected \"%s\", and got \"%.*s\"", what,
                  status, (int)strcspn(head, "\r"), head);
}

/* So is the body of the answer whose head has been read. */
static void has_text(int fd, const char *text, const char *what)
{
    char body[1024];
    ck_assert_msg(length() == strlen(text), "%.200s: Content-Length is %zu, and should be %zu", what,
                  length(), strlen(text));
    size_t got = client_receive(fd, body, strlen(text));
    ck_assert_msg(got == strlen(text) && memcmp(body, text, got) == 0,
                  "%.200s: the body is \"%.*s\", not \"%s\"", what, (int)got, body, text);
}

static void has_pattern(int fd, size_t size, unsigned seed, size_t position)
{
    ck_assert_msg(length() == size, "Content-Length is %zu, and should be %zu", length(), size);
    size_t right = client_receive_pattern(fd, size, seed, position);
    ck_assert_msg(right == size, "of %zu bytes, number %zu is wrong, or the last that came", size, right + 1);
}

/* The answer whose head has been read is a refusal, with a line of text. */
static void has_refusal(int fd, const char *status, const char *what)
{
    char text[80];
    snprintf(text, sizeof text, "%s\n", status);
    has_text(fd, text, what);
}

static void gets_hello(int fd)
{
    ask(fd, "/hello.txt");
    answered(fd, "200 OK", "/hello.txt");
    has_text(fd, HELLO, "/hello.txt");
}

static void gets_file(int fd, size_t file)
{
    char path[40];
    snprintf(path, sizeof path, "/%zu.bin", file);
    ask(fd, path);
    answered(fd, "200 OK", path);
    has_pattern(fd, size_of(file), (unsigned)file, 0);
}

/* The server ends the connection, and properly: with a FIN. Nothing more comes before. */
static void ended(int fd, const char *what)
{
    char more[16];
    ssize_t got = recv(fd, more, sizeof more, 0);
    ck_assert_msg(got <= 0, "%.200s: after the answer comes \"%.*s\"", what, (int)got, more);
    ck_assert_msg(got == 0, "%.200s: the connection %s", what,
                  errno == EAGAIN ? "stays open" : "was reset: what the client had not read yet may be lost");
}

static void still_open(int fd, const char *what)
{
    ck_assert_msg(client_hears_nothing(fd, 50), "%.200s: the connection was closed, or something came", what);
    gets_hello(fd);
}

/* ---- answers ---- */

START_TEST(exact)
{
    struct server server = start(NULL);
    int fd = client_connect(&server);
    ask(fd, "/hello.txt");
    read_head(fd);
    char *date = strstr(head, "\r\nDate: ");
    ck_assert_msg(date != NULL, "there is no Date: %s", head);
    memset(date + 8, 'D', strcspn(date + 8, "\r"));
    ck_assert_str_eq(head, "HTTP/1.1 200 OK\r\n"
                           "Date: DDDDDDDDDDDDDDDDDDDDDDDDDDDDD\r\n"
                           "Connection: keep-alive\r\n"
                           "Last-Modified: " MODIFIED_TEXT "\r\n"
                           "Accept-Ranges: bytes\r\n"
                           "Content-Type: text/plain; charset=utf-8\r\n"
                           "Content-Length: 13\r\n"
                           "\r\n");
    has_text(fd, HELLO, "/hello.txt");
    still_open(fd, "after an answer");
    stops_well(&server);
}
END_TEST

/* Whether an answer says that it is now, give or take a second. */
static time_t date_of(int fd)
{
    struct tm parts = {0};
    gets_hello(fd);
    const char *date = field("Date");
    ck_assert_msg(date != NULL, "there is no Date");
    const char *end = strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    ck_assert_msg(end != NULL && *end == '\0', "the Date is none: %s", date);
    return timegm(&parts);
}

START_TEST(date_goes_on)
{
    struct server server = start(NULL);
    int fd = client_connect(&server);
    time_t before = time(NULL);
    time_t first = date_of(fd);
    ck_assert_msg(first >= before && first <= time(NULL), "the Date is %lld s off",
                  (long long)(first - before));
    ck_assert_msg(eventually(date_of(fd) > first), "the Date does not go on");
}
END_TEST

START_TEST(types)
{
    static const struct {
        const char *name, *type;
    } files[] = {
        {"t.html", "text/html; charset=utf-8"},
        {"t.css", "text/css; charset=utf-8"},
        {"t.js", "text/javascript; charset=utf-8"},
        {"t.txt", "text/plain; charset=utf-8"},
        {"t.png", "image/png"},
        {"t.jpg", "image/jpeg"},
        {"t.JPG", "image/jpeg"},
        {"t.svg", "image/svg+xml"},
        {"t.json", "application/json"},
        {"t.md", "text/plain; charset=utf-8"},
        {"t.pdf", "application/pdf"},
        {"t.unknown", "application/octet-stream"},
        {"t", "application/octet-stream"},
        {"t.", "application/octet-stream"},
        {"t.gz.html", "text/html; charset=utf-8"},
        {"t.html.gz", "application/octet-stream"},
    };
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[40];
        if (on_windows && files[i].name[strlen(files[i].name) - 1] == '.') /* there, that is no name */
            continue;
        make_text(files[i].name, "x\n");
        snprintf(path, sizeof path, "/%s", files[i].name);
        ask(fd, path);
        answered(fd, "200 OK", path);
        has_text(fd, "x\n", path);
        ck_assert_str_eq(field("Content-Type"), files[i].type);
    }
}
END_TEST

/* Beyond what the server reads in one piece, beyond what it sends in one turn, and around both. */
START_TEST(sizes)
{
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < FILES; i++)
        gets_file(fd, i);
    ask(fd, "/large.bin");
    answered(fd, "200 OK", "/large.bin");
    has_pattern(fd, LARGE, 1000, 0);
    ask(fd, "/huge.bin");
    answered(fd, "200 OK", "/huge.bin");
    has_pattern(fd, HUGE, 2000, 0);
    gets_hello(fd);
    rests(&server);
    stops_well(&server);
}
END_TEST

/* Offsets and sizes that do not fit into 32 bits. Most of the file is a hole. */
START_TEST(beyond_4_gib)
{
    static const int64_t begin = 4294967296 + 1000;
    enum { END = 5000 };
    char full[200];
    char range[80];
    make_file("sparse.bin", END, 3000);
    in_site(full, sizeof full, "sparse.bin");
    int file = open(full, O_WRONLY | O_CLOEXEC);
    char end[END];
    for (size_t i = 0; i < END; i++)
        end[i] = (char)pattern(3000, 7777 + i);
    if (file < 0 || pwrite(file, end, END, begin) != END)
        tap_skip("there can be no such file here: %s", strerror(errno));
    close(file);
    struct server server = start(NULL);
    int fd = client_connect(&server);
    say(fd, "HEAD /sparse.bin HTTP/1.1\r\nHost: here\r\n\r\n");
    answered(fd, "200 OK", "/sparse.bin");
    ck_assert_str_eq(field("Content-Length"), "4294973296");
    snprintf(range, sizeof range, "Range: bytes=%lld-", (long long)begin);
    ask_with(fd, "/sparse.bin", range);
    answered(fd, "206 Partial Content", range);
    has_pattern(fd, END, 3000, 7777);
    ck_assert_str_eq(field("Content-Range"), "bytes 4294968296-4294973295/4294973296");
    ask_with(fd, "/sparse.bin", "Range: bytes=-1");
    answered(fd, "206 Partial Content", "Range: bytes=-1");
    has_pattern(fd, 1, 3000, 7777 + END - 1);
    gets_hello(fd);
    unlink(full);
}
END_TEST

START_TEST(future)
{
    char full[200];
    struct server server = start(NULL);
    int fd = client_connect(&server);
    make_text("future.txt", HELLO);
    in_site(full, sizeof full, "future.txt");
    set_modified(full, time(NULL) + 100000);
    ask(fd, "/future.txt");
    answered(fd, "200 OK", "/future.txt");
    has_text(fd, HELLO, "/future.txt");
    char date[64];
    snprintf(date, sizeof date, "%s", field("Date"));
    ck_assert_str_eq(field("Last-Modified"), date);
}
END_TEST

START_TEST(head_only)
{
    static const char *const paths[] = {"/hello.txt", "/0.bin", "/large.bin", "/folder", "/nothing", "/"};
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char text[200];
        char got[sizeof head];
        snprintf(text, sizeof text, "HEAD %s HTTP/1.1\r\nHost: here\r\n\r\n", paths[i]);
        say(fd, text);
        snprintf(got, sizeof got, "%s", read_head(fd));
        ask(fd, paths[i]); /* if a body follows the head, this is not an answer */
        read_head(fd);
        char *dates[2] = {strstr(got, "Date: "), strstr(head, "Date: ")};
        ck_assert_msg(dates[0] != NULL && dates[1] != NULL,
                      "HEAD %s: after its answer comes something else: %s", paths[i], head);
        memset(dates[0], 'D', 35);
        memset(dates[1], 'D', 35);
        ck_assert_str_eq(got, head);
        static char body[LARGE];
        ck_assert_uint_eq(client_receive(fd, body, length()), length());
    }
    say(fd, "HEAD /hello.txt HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    answered(fd, "200 OK", "HEAD");
    ended(fd, "HEAD");
    fd = client_connect(&server);
    say(fd, "HEAD http:// HTTP/1.1\r\nHost: here\r\n\r\n");
    answered(fd, "400 Bad Request", "HEAD");
    ended(fd, "a HEAD that is refused");
}
END_TEST

/* ---- folders ---- */

START_TEST(folder_index)
{
    struct server server = start(NULL);
    int fd = client_connect(&server);
    ask(fd, "/");
    answered(fd, "200 OK", "/");
    has_text(fd, "<h1>top</h1>\n", "/");
    ck_assert_str_eq(field("Content-Type"), "text/html; charset=utf-8");
    ask(fd, "/folder/?query");
    answered(fd, "200 OK", "/folder/");
    has_text(fd, "<h1>folder</h1>\n", "/folder/");
    ask(fd, "/bare/");
    answered(fd, "404 Not Found", "a folder without an index.html");
    has_refusal(fd, "404 Not Found", "/bare/");
    ask(fd, "/nested/");
    answered(fd, "404 Not Found", "a folder whose index.html is a folder");
    has_refusal(fd, "404 Not Found", "/nested/");
    ask(fd, "/hello.txt/");
    answered(fd, "404 Not Found", "a file with a slash behind");
    has_refusal(fd, "404 Not Found", "/hello.txt/");
    still_open(fd, "after a 404");
}
END_TEST

START_TEST(redirected)
{
    static const struct {
        const char *target, *location;
    } folders[] = {
        {"/folder", "/folder/"},
        {"/folder?a=b", "/folder/"},
        {"//folder", "/folder/"},
        {"http://elsewhere//folder", "/folder/"},
        {"///folder", "/folder/"},
        {"/%66older", "/folder/"},
        {"/a%20b%25%c3%a9", "/a%20b%25%C3%A9/"},
        {"/a%20b%5c%25%C3%A9%22%3c", "/a%20b%5C%25%C3%A9%22%3C/"},
    };
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        if (on_windows && strstr(folders[i].target, "%5c") != NULL) /* there, that is no name */
            continue;
        ask(fd, folders[i].target);
        answered(fd, "301 Moved Permanently", folders[i].target);
        has_refusal(fd, "301 Moved Permanently", folders[i].target);
        ck_assert_str_eq(field("Location"), folders[i].location);
    }
    still_open(fd, "after a 301");
}
END_TEST

/* ---- what may not be seen ---- */

static const struct {
    const char *target, *status;
    bool by_link;
} forbidden[] = {
    {"/../outside/secret.txt", "400 Bad Request", false},
    {"/folder/../../outside/secret.txt", "400 Bad Request", false},
    {"/%2e%2e/outside/secret.txt", "400 Bad Request", false},
    {"/.%2E/outside/secret.txt", "400 Bad Request", false},
    {"/..%2foutside/secret.txt", "400 Bad Request", false},
    {"/folder/..", "400 Bad Request", false},
    {"/%252e%252e/outside/secret.txt", "404 Not Found", false}, /* decoded once, it is a name */
    {"/..%5coutside%5csecret.txt", "404 Not Found", false},
    {"//etc/passwd", "404 Not Found", false},
    {"/../site.txt", "400 Bad Request", false},
    {"http://here/../outside/secret.txt", "400 Bad Request", false},
    {"/hello.txt%00.html", "400 Bad Request", false},
    {"/.hidden", "404 Not Found", false},
    {"/.git/config", "404 Not Found", false},
    {"/%2egit/config", "404 Not Found", false},
    {"/folder/.git", "404 Not Found", false},
    {"/out.txt", "404 Not Found", true},
    {"/outside", "404 Not Found", true},
    {"/outside/", "404 Not Found", true},
    {"/outside/secret.txt", "404 Not Found", true},
    {"/absolute.txt", "404 Not Found", true},
    {"/magic/", "404 Not Found", true},
    {"/magic/Makefile", "404 Not Found", true},
    {"/loop", "404 Not Found", false},
    {"/zero", "404 Not Found", false},
    {"/fifo", "404 Not Found", false},
    {"/nothing", "404 Not Found", false},
    {"/hello.txt/hello.txt", "404 Not Found", false},
};

static void check_forbidden(struct server *server)
{
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        if (on_windows && forbidden[i].by_link)
            continue; /* WINE_FOLLOWS_LINKS */
        int fd = client_connect(server);
        ask(fd, forbidden[i].target);
        answered(fd, forbidden[i].status, forbidden[i].target);
        has_refusal(fd, forbidden[i].status, forbidden[i].target);
        close(fd);
    }
    int fd = client_connect(server);
    gets_hello(fd);
    ask(fd, "/dots..txt"); /* and this is just a name */
    answered(fd, "200 OK", "/dots..txt");
    has_text(fd, "..\n", "/dots..txt");
    ask(fd, "/per%25cent.txt");
    answered(fd, "200 OK", "/per%25cent.txt");
    has_text(fd, "%\n", "/per%25cent.txt");
    ask(fd, "/folder/index.html");
    answered(fd, "200 OK", "/folder/index.html");
    has_text(fd, "<h1>folder</h1>\n", "/folder/index.html");
    stops_well(server);
}

START_TEST(links_inside)
{
    static const char *const paths[] = {"/there/", "/there/index.html", "/inside.html"};
    not_on_windows(WINE_FOLLOWS_LINKS);
#ifdef SYS_openat2
    const uint64_t how[3] = {O_RDONLY};
    long probe = syscall(SYS_openat2, AT_FDCWD, site, how, sizeof how);
    if (probe < 0)
        tap_skip("openat2: %s; without it no symbolic link is followed", strerror(errno));
    close((int)probe);
#else
    tap_skip("this system has no openat2(); without it no symbolic link is followed");
#endif
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        ask(fd, paths[i]);
        answered(fd, "200 OK", paths[i]);
        has_text(fd, "<h1>folder</h1>\n", paths[i]);
    }
    ask(fd, "/there");
    answered(fd, "301 Moved Permanently", "/there");
    ck_assert_str_eq(field("Location"), "/there/");
}
END_TEST

START_TEST(outside)
{
    struct server server = start(NULL);
    check_forbidden(&server);
}
END_TEST

/* From now on this process, and what it starts, gets errno from system call number. */
static void forbid(long number, int error)
{
#ifdef SECCOMP_SET_MODE_FILTER
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* the number of the call */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0)
        return;
#else
    (void)number;
    (void)error;
#endif
    tap_skip("a system call cannot be forbidden here (seccomp): %s", strerror(errno));
}

static void check_without_openat2(int error)
{
    not_on_windows("Windows has no openat2()");
#ifdef SYS_openat2
    forbid(SYS_openat2, error);
    struct server server = start(NULL);
    int fd = client_connect(&server);
    static const char *const links[] = {"/again.txt", "/there/index.html"}; /* they stay inside */
    for (size_t i = 0; i < 2; i++) {
        ask(fd, links[i]);
        answered(fd, "404 Not Found", links[i]);
        has_refusal(fd, "404 Not Found", links[i]);
    }
    int before = descriptors_at_rest(&server);
    for (int i = 0; i < 20; i++) {
        ask(fd, i % 2 == 0 ? "/folder/index.html" : "/folder/nothing");
        answered(fd, i % 2 == 0 ? "200 OK" : "404 Not Found", "a file in a folder");
        char body[64];
        client_receive(fd, body, length());
    }
    ck_assert_int_eq(descriptors_at_rest(&server), before);
    check_forbidden(&server);
#else
    (void)error;
    tap_skip("this system has no openat2()");
#endif
}

START_TEST(old_kernel)
{
    check_without_openat2(ENOSYS);
}
END_TEST

START_TEST(sandbox)
{
    check_without_openat2(EPERM);
}
END_TEST

/* A folder that becomes a link out, and a folder again, all the time: whoever looks first and opens then, is
 * late. */
START_TEST(swapped)
{
    char folder[200];
    char link[200];
    not_on_windows(WINE_FOLLOWS_LINKS);
    make_folder("swap");
    make_text("swap/secret.txt", "inside\n");
    make_link("swap-out", "../outside");
    in_site(folder, sizeof folder, "swap");
    in_site(link, sizeof link, "swap-out");
    if (renameat2(AT_FDCWD, folder, AT_FDCWD, link, RENAME_EXCHANGE) < 0)
        tap_skip("two files cannot exchange their names here: %s", strerror(errno));
    struct server server = start(NULL);
    int fd = client_connect(&server);
    pid_t swapper = fork();
    if (swapper == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (renameat2(AT_FDCWD, folder, AT_FDCWD, link, RENAME_EXCHANGE) == 0)
            ;
        _exit(1);
    }
    size_t seen = 0;
    for (int i = 0; i < 20000; i++) {
        char body[64] = "";
        ask(fd, "/swap/secret.txt");
        read_head(fd);
        client_receive(fd, body, length() < sizeof body ? length() : sizeof body - 1);
        ck_assert_msg(strstr(body, "the secret") == NULL, "a file outside of the root was given out");
        seen += strcmp(body, "inside\n") == 0;
    }
    kill(swapper, SIGKILL);
    ck_assert_msg(seen > 0, "the file inside was never given out");
}
END_TEST

/* What this process starts from now on may not read everything, though it be root's. */
static void bind_root(void)
{
#ifdef CAP_DAC_OVERRIDE
    if (geteuid() != 0 ||
        (prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE) == 0 && prctl(PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH) == 0))
        return;
#endif
    tap_skip("root may read everything, and cannot give that up here: %s", strerror(errno));
}

START_TEST(denied)
{
    static const char *const paths[] = {"/denied.txt", "/shut/file.txt", "/shut/"};
    if (geteuid() == 0)
        not_on_windows("Wine's server opens the files, and it is root's already");
    bind_root();
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        ask(fd, paths[i]);
        answered(fd, "403 Forbidden", paths[i]);
        has_refusal(fd, "403 Forbidden", paths[i]);
    }
    still_open(fd, "after a 403");
}
END_TEST

/* ---- parts, and what the client has already ---- */

START_TEST(ranges)
{
    static const struct {
        const char *range;
        size_t first, count; /* count 0: 416 */
    } cases[] = {
        {"0-0", 0, 1},
        {"0-99", 0, 100},
        {"1-1", 1, 1},
        {"3000-", 3000, 1},
        {"2999-3000", 2999, 2},
        {"2999-5000", 2999, 2},
        {"0-", 0, 3001},
        {"0-3000", 0, 3001},
        {"-1", 3000, 1},
        {"-3001", 0, 3001},
        {"-5000", 0, 3001},
        {"-99999999999999999999", 0, 3001},
        {"10-99999999999999999999", 10, 2991},
        {"3001-", 0, 0},
        {"3001-3001", 0, 0},
        {"-0", 0, 0},
        {"99999999999999999999-", 0, 0},
    };
    struct server server = start(NULL);
    int fd = client_connect(&server);
    make_file("3001.bin", 3001, 77);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[80];
        char expected[80];
        snprintf(line, sizeof line, "Range: bytes=%s", cases[i].range);
        ask_with(fd, "/3001.bin", line);
        if (cases[i].count == 0) {
            answered(fd, "416 Range Not Satisfiable", line);
            has_refusal(fd, "416 Range Not Satisfiable", line);
            snprintf(expected, sizeof expected, "bytes */3001");
        } else {
            answered(fd, "206 Partial Content", line);
            has_pattern(fd, cases[i].count, 77, cases[i].first);
            snprintf(expected, sizeof expected, "bytes %zu-%zu/3001", cases[i].first,
                     cases[i].first + cases[i].count - 1);
        }
        ck_assert_msg(field("Content-Range") != NULL, "%s: there is no Content-Range", line);
        ck_assert_str_eq(field("Content-Range"), expected);
    }
    ask_with(fd, "/huge.bin", "Range: bytes=5000000-20000000");
    answered(fd, "206 Partial Content", "/huge.bin");
    has_pattern(fd, 15000001, 2000, 5000000);
    ask_with(fd, "/0.bin", "Range: bytes=0-");
    answered(fd, "416 Range Not Satisfiable", "an empty file");
    has_refusal(fd, "416 Range Not Satisfiable", "an empty file");
    still_open(fd, "after a range");
}
END_TEST

START_TEST(whole_instead)
{
    static const char *const lines[] = {
        "Range: bytes=0-1,3-4",
        "Range: bytes=5-4",
        "Range: bytes=",
        "Range: bytes=-",
        "Range: lines=0-1",
        "Range: bytes=x-",
        "Range: bytes= 0-1",
        "Range: bytes=0-1\r\nIf-Range: \"a-tag\"",
        "Range: bytes=0-1\r\nIf-Range: Sun, 06 Nov 1994 08:49:36 GMT",
        "Range: bytes=0-1\r\nIf-Range: Sun, 06 Nov 1994 08:49:38 GMT",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT",
        "If-Modified-Since: yesterday",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-None-Match: \"a-tag\"",
    };
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        ask_with(fd, "/hello.txt", lines[i]);
        answered(fd, "200 OK", lines[i]);
        has_text(fd, HELLO, lines[i]);
    }
    ask_with(fd, "/hello.txt", "Range: bytes=7-11\r\nIf-Range: " MODIFIED_TEXT);
    answered(fd, "206 Partial Content", "If-Range with the right date");
    has_text(fd, "world", "If-Range with the right date");
}
END_TEST

START_TEST(not_modified)
{
    static const char *const lines[] = {
        "If-Modified-Since: " MODIFIED_TEXT,
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT",
        "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT",
        "If-Modified-Since: Sun Nov  6 08:49:37 1994",
        "If-Modified-Since: " MODIFIED_TEXT "\r\nRange: bytes=0-1",
    };
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        ask_with(fd, "/hello.txt", lines[i]);
        answered(fd, "304 Not Modified", lines[i]);
        ck_assert_str_eq(field("Last-Modified"), MODIFIED_TEXT);
        gets_hello(fd); /* nothing is between the two */
    }
}
END_TEST

START_TEST(descriptors)
{
    static const char *const requests[] = {
        "GET /hello.txt HTTP/1.1\r\nHost: here\r\n\r\n",
        "GET /large.bin HTTP/1.1\r\nHost: here\r\n\r\n",
        "HEAD /large.bin HTTP/1.1\r\nHost: here\r\n\r\n",
        "GET /0.bin HTTP/1.1\r\nHost: here\r\n\r\n",
        "GET /hello.txt HTTP/1.1\r\nHost: here\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
        "GET /hello.txt HTTP/1.1\r\nHost: here\r\nRange: bytes=1-2\r\n\r\n",
        "GET /hello.txt HTTP/1.1\r\nHost: here\r\nRange: bytes=99-\r\n\r\n",
        "GET /folder HTTP/1.1\r\nHost: here\r\n\r\n",
        "GET /nothing HTTP/1.1\r\nHost: here\r\n\r\n",
        "GET /fifo HTTP/1.1\r\nHost: here\r\n\r\n",
        "GET /out.txt HTTP/1.1\r\nHost: here\r\n\r\n",
    };
    static unsigned char body[LARGE];
    not_on_windows("Wine's server has them, and what closes them is tested with the other engines");
    struct server server = start(NULL);
    int fd = client_connect(&server);
    gets_hello(fd);
    int before = descriptors_at_rest(&server);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        for (int times = 0; times < 5; times++) {
            say(fd, requests[i]);
            read_head(fd);
            if (requests[i][0] == 'G' && strstr(head, " 304 ") == NULL)
                ck_assert_uint_eq(client_receive(fd, body, length()), length());
        }
        gets_hello(fd);
        int now = descriptors_at_rest(&server);
        ck_assert_msg(now == before, "after 5 times \"%.*s\" the server has %d descriptors, before %d",
                      (int)strcspn(requests[i], "\r"), requests[i], now, before);
    }
    /* a client that goes away in the middle of a file */
    for (int i = 0; i < 5; i++) {
        int client = client_connect(&server);
        ask(client, "/huge.bin");
        answered(client, "200 OK", "/huge.bin");
        client_reset(client);
    }
    ck_assert_msg(eventually(has_descriptors(&server, before)), "clients leave, and their files stay open");
    gets_hello(fd);
}
END_TEST

/* ---- refusals ---- */

#define LONG_50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define LONG_250 LONG_50 LONG_50 LONG_50 LONG_50 LONG_50
#define LONG_1000 LONG_250 LONG_250 LONG_250 LONG_250
#define LONG_2250 LONG_1000 LONG_1000 LONG_250
#define LONG_9000 LONG_2250 LONG_2250 LONG_2250 LONG_2250

#define BEHIND " /hello.txt HTTP/1.1\r\nHost: here\r\n"
#define THEN "GET /hello.txt HTTP/1.1\r\nHost: here\r\n\r\n"

static const struct {
    const char *request, *status;
} hostile[] = {
    {"HELLO\r\n\r\n", "400 Bad Request"},
    {"GET\r\n\r\n", "400 Bad Request"},
    {"GET /hello.txt\r\n\r\n", "400 Bad Request"},
    {" GET" BEHIND "\r\n", "400 Bad Request"},
    {"GET  /hello.txt HTTP/1.1\r\nHost: here\r\n\r\n", "400 Bad Request"},
    {"GET /hello.txt HTTP/1.1\nHost: here\n\n", "400 Bad Request"},
    {"GET /hello.txt HTTP/1.1\r\n\r\n", "400 Bad Request"},
    {"GET /hello.txt HTTP/1.1\r\nHost: here\r\nHost: there\r\n\r\n", "400 Bad Request"},
    {"GET /hello.txt HTTP/1.1\r\nHost: a, b\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND "No colon\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND "Space : before\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND " folded: x\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND "X: a\rb\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "400 Bad Request"},
    {"GET" BEHIND "Content-Length: -1\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND "Content-Length: 0x1\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND "Transfer-Encoding: chunked, gzip\r\n\r\n", "400 Bad Request"},
    {"GET" BEHIND "Transfer-Encoding: chunked\r\n\r\nx\r\n", "400 Bad Request"},
    {"GET" BEHIND "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501 Not Implemented"},
    {"GET hello.txt HTTP/1.1\r\nHost: here\r\n\r\n", "400 Bad Request"},
    {"GET * HTTP/1.1\r\nHost: here\r\n\r\n", "400 Bad Request"},
    {"GET https://here/hello.txt HTTP/1.1\r\nHost: here\r\n\r\n", "400 Bad Request"},
    {"GET /hello.txt#top HTTP/1.1\r\nHost: here\r\n\r\n", "400 Bad Request"},
    {"GET /%zz HTTP/1.1\r\nHost: here\r\n\r\n", "400 Bad Request"},
    {"GET /folder%0d%0aX:y HTTP/1.1\r\nHost: here\r\n\r\n", "400 Bad Request"},
    {"GET /" LONG_2250 " HTTP/1.1\r\nHost: here\r\n\r\n", "414 URI Too Long"},
    {"GET" BEHIND "X: " LONG_9000 "\r\n\r\n", "431 Request Header Fields Too Large"},
    {"GET /hello.txt HTTP/1.1\r\nHost: " LONG_1000 "\r\n\r\n", "431 Request Header Fields Too Large"},
    {"GET" BEHIND "Content-Length: 65537\r\n\r\n", "413 Content Too Large"},
    {"GET" BEHIND "Content-Length: 99999999999999999999\r\n\r\n", "413 Content Too Large"},
    {"GET" BEHIND "Transfer-Encoding: chunked\r\n\r\n10001\r\n", "413 Content Too Large"},
    {"POST" BEHIND "Content-Length: 3\r\n\r\nabc", "405 Method Not Allowed"},
    {"DELETE" BEHIND "\r\n", "405 Method Not Allowed"},
    {"OPTIONS" BEHIND "\r\n", "405 Method Not Allowed"},
    {"CONNECT" BEHIND "\r\n", "405 Method Not Allowed"},
    {"get" BEHIND "\r\n", "501 Not Implemented"},
    {"BREW" BEHIND "\r\n", "501 Not Implemented"},
    {"GET /hello.txt HTTP/2.0\r\nHost: here\r\n\r\n", "505 HTTP Version Not Supported"},
    {"GET /hello.txt HTTP/0.9\r\nHost: here\r\n\r\n", "505 HTTP Version Not Supported"},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request"},
    {"GET /hello.txt HTTP/1.1 x\r\nHost: here\r\n\r\n", "400 Bad Request"},
    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 Bad Request"}, /* TLS */
};

/* Sends a request in pieces, and stops when there is an answer. */
static void say_in_pieces(int fd, const char *text, size_t piece)
{
    for (size_t size = strlen(text); size > 0 && client_hears_nothing(fd, 0);) {
        size_t now = size < piece ? size : piece;
        client_send(fd, text, now);
        text += now;
        size -= now;
    }
}

static void check_hostile(size_t piece)
{
    struct server server = start(NULL);
    int before = server_descriptors(&server);
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        int fd = client_connect(&server);
        say_in_pieces(fd, hostile[i].request, piece);
        answered(fd, hostile[i].status, hostile[i].request);
        has_refusal(fd, hostile[i].status, hostile[i].request);
        ck_assert_msg(field("Connection") != NULL, "%.100s: the answer does not say that it is the last",
                      hostile[i].request);
        ck_assert_str_eq(field("Connection"), "close");
        const char *allow = field("Allow");
        if (strncmp(hostile[i].status, "405", 3) == 0)
            ck_assert_msg(allow != NULL && strcmp(allow, "GET, HEAD") == 0, "a 405 says Allow: %s",
                          allow != NULL ? allow : "nothing");
        ended(fd, hostile[i].request);
        close(fd);
    }
    ck_assert_msg(eventually(has_descriptors(&server, before)),
                  "the server keeps descriptors of who has left");
    int fd = client_connect(&server);
    gets_hello(fd);
    stops_well(&server);
}

START_TEST(hostile_whole)
{
    check_hostile(SIZE_MAX);
}
END_TEST

START_TEST(hostile_bytes)
{
    check_hostile(1);
}
END_TEST

/* The client is still sending when the answer is there: it gets it, and the end, and no RST. */
START_TEST(heard_out)
{
    static const char more[100000];
    struct server server = start(NULL);
    int fd = client_connect(&server);
    server_pause(&server);
    say(fd, "GET" BEHIND "Content-Length: 100000\r\n\r\n");
    client_send(fd, more, sizeof more);
    kill(server.pid, SIGCONT);
    answered(fd, "413 Content Too Large", "a large body");
    has_refusal(fd, "413 Content Too Large", "a large body");
    ended(fd, "a large body");
    close(fd);
    stops_well(&server);
}
END_TEST

/* But not for ever: neither one who stays, nor one who goes on. */
START_TEST(heard_out_for_a_while)
{
    static const char more[1024 * 1024];
    struct server server = start_with("--verbose", NULL);
    int before = server_descriptors(&server);
    int fd = client_connect(&server);
    say(fd, "BREW" BEHIND "\r\n");
    answered(fd, "501 Not Implemented", "BREW");
    int64_t begin = now_ms();
    ck_assert_msg(eventually(strstr(server_errors(&server), "silent for too long") != NULL &&
                             has_descriptors(&server, before)),
                  "a client that stays is kept for ever");
    ck_assert_msg(now_ms() - begin >= LINGER_MS / 2, "a client that stays is given no time");

    fd = client_connect(&server);
    say(fd, "BREW" BEHIND "\r\n");
    answered(fd, "501 Not Implemented", "BREW");
    ssize_t sent = 0;
    for (int i = 0; i < 100 && sent >= 0; i++)
        sent = send(fd, more, sizeof more, MSG_NOSIGNAL);
    ck_assert_msg(sent < 0 && errno != EAGAIN,
                  "the server takes a hundred megabytes behind a request that it refused");
    ck_assert_msg(eventually(has_descriptors(&server, before)), "it is kept for ever");
    stops_well(&server);
}
END_TEST

/* A body is nothing that a file needs. It is passed over, and the next request is behind it. */
START_TEST(bodies)
{
    static const char *const requests[] = {
        "GET" BEHIND "Content-Length: 39\r\n\r\nGET /large.bin HTTP/1.1\r\nHost: here\r\n\r\n",
        "GET" BEHIND
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00a;x=y\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        "GET" BEHIND "Content-Length: 0\r\n\r\n",
        "\r\nGET" BEHIND "\r\n",
        "GET http://here/hello.txt HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        "GET HTTP://here:7007/hello.txt?a=b HTTP/1.1\r\nHost:\r\n\r\n",
    };
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        for (size_t piece = 1; piece < 1000; piece *= 7) {
            say_in_pieces(fd, requests[i], piece);
            answered(fd, "200 OK", requests[i]);
            has_text(fd, HELLO, requests[i]);
        }
    }
    say(fd, "GET" BEHIND "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    answered(fd, "200 OK", "Expect: 100-continue");
    has_text(fd, HELLO, "Expect: 100-continue");
    say(fd, "hello");
    ended(fd, "Expect: 100-continue");
}
END_TEST

/* ---- one connection, and many requests ---- */

static void keep_alive(void)
{
    static const struct {
        const char *request;
        bool stays;
    } requests[] = {
        {"GET" BEHIND "\r\n", true},
        {"GET" BEHIND "Connection: keep-alive\r\n\r\n", true},
        {"GET" BEHIND "Connection: close\r\n\r\n", false},
        {"GET" BEHIND "Connection: x, CLOSE\r\n\r\n", false},
        {"GET /hello.txt HTTP/1.0\r\n\r\n", false},
        {"GET /hello.txt HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET /hello.txt HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
    };
    struct server server = start(NULL);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        const char *request = requests[i].request;
        int fd = client_connect(&server);
        for (int times = 0; times < (requests[i].stays ? 3 : 1); times++) {
            say(fd, request);
            answered(fd, "200 OK", request);
            has_text(fd, HELLO, request);
            ck_assert_msg(field("Connection") != NULL, "%s: there is no Connection", request);
            ck_assert_str_eq(field("Connection"), requests[i].stays ? "keep-alive" : "close");
        }
        if (requests[i].stays)
            still_open(fd, request);
        else
            ended(fd, request);
        close(fd);
    }
    rests(&server);
    stops_well(&server);
}
EACH(keep_alive)

/* The client has said all, and still listens. */
START_TEST(half_closed)
{
    struct server server = start(NULL);
    int fd = client_connect(&server);
    ask(fd, "/huge.bin");
    ask(fd, "/hello.txt");
    client_finish(fd);
    answered(fd, "200 OK", "/huge.bin");
    has_pattern(fd, HUGE, 2000, 0);
    answered(fd, "200 OK", "/hello.txt");
    has_text(fd, HELLO, "/hello.txt");
    ended(fd, "after a FIN");
    fd = client_connect(&server);
    say(fd, "GET /hello.txt HT");
    client_finish(fd);
    ended(fd, "a FIN in the middle of a request");
}
END_TEST

static void pipelined(void)
{
    enum { TIMES = 3 };
    struct server server = start(NULL);
    int fd = client_connect(&server);
    say(fd, THEN "HEAD" BEHIND "\r\nGET /folder HTTP/1.1\r\nHost: here\r\n\r\n" THEN);
    answered(fd, "200 OK", "the first of four");
    has_text(fd, HELLO, "the first of four");
    answered(fd, "200 OK", "the second of four");
    answered(fd, "301 Moved Permanently", "the third of four");
    has_refusal(fd, "301 Moved Permanently", "the third of four");
    answered(fd, "200 OK", "the last of four");
    has_text(fd, HELLO, "the last of four");
    for (int times = 0; times < TIMES; times++) {
        ask(fd, "/large.bin"); /* it does not fit into a turn */
        ask(fd, "/1.bin");
        say(fd, "GET /hello.txt HT");
        answered(fd, "200 OK", "/large.bin");
        has_pattern(fd, LARGE, 1000, 0);
        answered(fd, "200 OK", "/1.bin");
        has_pattern(fd, 1, 1, 0);
        say(fd, "TP/1.1\r\nHost: here\r\n\r\n");
        answered(fd, "200 OK", "a request that came in two halves");
        has_text(fd, HELLO, "a request that came in two halves");
    }
    rests(&server);
}
EACH(pipelined)

/* More than one turn answers, more than one receive brings. */
static void pipelined_many(void)
{
    enum { MANY = 1000 };
    static char text[MANY * 40];
    size_t size = 0;
    struct server server = start(NULL);
    int fd = client_connect(&server);
    for (int i = 0; i < MANY; i++)
        size += (size_t)snprintf(text + size, sizeof text - size, "GET /3.bin HTTP/1.1\r\nHost:\r\n\r\n");
    client_send(fd, text, size);
    for (int i = 0; i < MANY; i++) {
        answered(fd, "200 OK", "one of a thousand");
        has_pattern(fd, size_of(3), 3, 0);
    }
    still_open(fd, "after a thousand");
    rests(&server);
}
EACH(pipelined_many)

START_TEST(pipelined_error)
{
    static const char *const bad[] = {"GET  /\r\n\r\n", "POST" BEHIND "\r\n",
                                      "GET" BEHIND "Connection: close\r\n\r\n"};
    static const char *const status[] = {"400 Bad Request", "405 Method Not Allowed", "200 OK"};
    struct server server = start(NULL);
    for (size_t i = 0; i < 3; i++) {
        char text[400];
        char body[64];
        int fd = client_connect(&server);
        snprintf(text, sizeof text, "%s%s%s", THEN, bad[i], THEN);
        say(fd, text);
        answered(fd, "200 OK", "the one before the last");
        has_text(fd, HELLO, "the one before the last");
        answered(fd, status[i], bad[i]);
        client_receive(fd, body, length());
        ended(fd, bad[i]);
        close(fd);
    }
}
END_TEST

/* ---- those who do not read, and those who wait ---- */

static void not_reading(void)
{
    struct server server = start(NULL);
    int lazy = client_connect(&server);
    int fd = client_connect(&server);
    ask(lazy, "/huge.bin");
    ck_assert_msg(eventually(!client_hears_nothing(lazy, 0)), "no answer begins");
    for (int i = 0; i < 20; i++) {
        gets_hello(fd);
        gets_file(fd, 50);
    }
    rests(&server);
    answered(lazy, "200 OK", "/huge.bin");
    has_pattern(lazy, HUGE, 2000, 0);
    gets_hello(lazy);
    rests(&server);
    stops_well(&server);
}
EACH(not_reading)

/* Asks and asks, and does not read: TCP takes what fits, and then the client has to wait. */
static void asks_without_reading(void)
{
    static const char one[] = "GET /1.bin HTTP/1.1\r\nHost:\r\nX: " LONG_1000 "\r\n\r\n";
    enum { MOST = 50000 };
    struct server server = start(NULL);
    int fd = client_connect(&server);
    int other = client_connect(&server);
    gets_hello(other);
    size_t before = server_resident(&server);
    size_t whole = 0;
    size_t part = 0;
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    while (whole < MOST) {
        ssize_t sent = send(fd, one + part, sizeof one - 1 - part, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN && poll(&room, 1, 300) == 0)
            break;
        part += sent > 0 ? (size_t)sent : 0;
        whole += part == sizeof one - 1;
        part %= sizeof one - 1;
    }
    ck_assert_msg(whole < MOST, "%d requests were taken from a client that does not read", MOST);
    size_t after = server_resident(&server);
    gets_hello(other);
    rests(&server);
    ck_assert_msg(sanitized() || after < before + 512 * 1024,
                  "for one client that does not read, %zu KiB more are in use", (after - before) / 1024);
    for (size_t i = 0; i < whole; i++) { /* the rest of the last one can be sent when some have been read */
        answered(fd, "200 OK", "one of many");
        has_pattern(fd, 1, 1, 0);
        ssize_t sent =
            part > 0 ? send(fd, one + part, sizeof one - 1 - part, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        part += sent > 0 ? (size_t)sent : 0;
        whole += part == sizeof one - 1;
        part %= sizeof one - 1;
    }
    still_open(fd, "after all answers");
}
EACH(asks_without_reading)

START_TEST(idle_memory)
{
    enum { CLIENTS = 500 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    if (sanitized())
        tap_skip("a sanitizer has memory of its own");
    client_connect_many(&server, clients, CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        gets_hello(clients[i]);
    size_t before = server_resident(&server);
    client_connect_many(&server, clients, CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        gets_hello(clients[i]);
    size_t after = server_resident(&server);
    ck_assert_msg(after < before + CLIENTS * 1024,
                  "%d more clients that are idle, and %zu KiB more are in use", CLIENTS,
                  (after - before) / 1024);
}
END_TEST

/* Each of a hundred asks for something else, and the answers are read when all have asked. */
static void no_cross_talk(void)
{
    enum { ROUNDS = 3 };
    int clients[FILES];
    struct server server = start(NULL);
    client_connect_many(&server, clients, FILES);
    int lazy = client_connect(&server);
    ask(lazy, "/huge.bin"); /* it has lent and returned what the others get */
    ck_assert_msg(eventually(!client_hears_nothing(lazy, 0)), "no answer begins");
    for (size_t round = 0; round < ROUNDS; round++) {
        char path[40];
        for (size_t i = 0; i < FILES; i++) {
            snprintf(path, sizeof path, "/%zu.bin", (i + round * 31) % FILES);
            ask(clients[i], path);
        }
        for (size_t i = 0; i < FILES; i++) {
            size_t file = (i + round * 31) % FILES;
            snprintf(path, sizeof path, "client %zu asks for /%zu.bin", i, file);
            answered(clients[i], "200 OK", path);
            has_pattern(clients[i], size_of(file), (unsigned)file, 0);
        }
    }
    answered(lazy, "200 OK", "/huge.bin");
    has_pattern(lazy, HUGE, 2000, 0);
    stops_well(&server);
}
EACH(no_cross_talk)

static void thousand(void)
{
    enum { CLIENTS = 900 }; /* as many as select() can watch, with their files */
    static int clients[CLIENTS];
    struct server server = start(NULL);
    client_connect_many(&server, clients, CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        ask(clients[i], "/hello.txt");
    for (int i = 0; i < CLIENTS; i++) {
        answered(clients[i], "200 OK", "one of many");
        has_text(clients[i], HELLO, "one of many");
    }
    rests(&server);
    stops_well(&server);
}
EACH(thousand)

/* ---- time ---- */

static void silent(void)
{
    struct server server = start_with("--idle-timeout", "1");
    int64_t begin = now_ms();
    int silent = client_connect(&server);
    int idle = client_connect(&server);
    gets_hello(idle);
    ended(silent, "a client that never says anything");
    ended(idle, "a client that is idle");
    ck_assert_msg(now_ms() - begin >= 1000, "a silent client was closed after %lld ms, and has 1000",
                  (long long)(now_ms() - begin));
    stops_well(&server);
}
EACH(silent)

static void half_a_request(void)
{
    static const char *const requests[] = {"G", "\r\n", "GET /hello.txt HTTP/1.1\r\nHost: here\r\n",
                                           "GET" BEHIND "Content-Length: 5\r\n\r\nhell", THEN "GET /"};
    enum { COUNT = sizeof requests / sizeof *requests };
    int clients[COUNT];
    struct server server = start_with("--idle-timeout", "1");
    client_connect_many(&server, clients, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        say(clients[i], requests[i]);
    answered(clients[COUNT - 1], "200 OK", "a whole request");
    has_text(clients[COUNT - 1], HELLO, "a whole request");
    for (size_t i = 0; i < COUNT; i++) {
        answered(clients[i], "408 Request Timeout", requests[i]);
        has_refusal(clients[i], "408 Request Timeout", requests[i]);
        ck_assert_str_eq(field("Connection"), "close");
        ended(clients[i], requests[i]);
        close(clients[i]);
    }
    stops_well(&server);
}
EACH(half_a_request)

/* A byte every tenth of a second: never silent, and never done. */
static void slowloris(void)
{
    static const char text[] =
        "GET /hello.txt HTTP/1.1\r\nHost: here\r\nX-Slow: "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct server server = start_with("--idle-timeout", "1");
    int fd = client_connect(&server);
    size_t sent = 0;
    int64_t begin = now_ms();
    do
        client_send(fd, text + sent, 1);
    while (++sent < sizeof text - 1 && client_hears_nothing(fd, 100));
    ck_assert_msg(sent < sizeof text - 1, "%zu bytes, one at a time, in %lld ms, and it may go on", sent,
                  (long long)(now_ms() - begin));
    ck_assert_msg(now_ms() - begin >= 900, "it was given %lld ms only", (long long)(now_ms() - begin));
    answered(fd, "408 Request Timeout", "a byte at a time");
    has_refusal(fd, "408 Request Timeout", "a byte at a time");
    ended(fd, "a byte at a time");
    close(fd);
    stops_well(&server);
}
EACH(slowloris)

static void never_reads(void)
{
    struct server server = start(&(struct server_setup){.arguments = {"--idle-timeout", "1", "--verbose"}});
    int before = server_descriptors(&server);
    int fd = client_connect(&server);
    ask(fd, "/huge.bin");
    ck_assert_msg(eventually(server_descriptors(&server) >= before + 2) || on_windows,
                  "the file is not open");
    int64_t begin = now_ms();
    ck_assert_msg(eventually(strstr(server_errors(&server), "silent for too long") != NULL &&
                             has_descriptors(&server, before)),
                  "a client that does not read is kept for ever");
    ck_assert_msg(now_ms() - begin >= 500, "it was given %lld ms only", (long long)(now_ms() - begin));
    ck_assert_msg(client_ending(fd) != STILL_OPEN, "the connection stays open");
    stops_well(&server);
}
EACH(never_reads)

/* It takes more than twice its time, and takes something all the time. */
START_TEST(slow_but_reads)
{
    static unsigned char block[1024 * 1024];
    struct server server = start_with("--idle-timeout", "1");
    int fd = client_connect(&server);
    ask(fd, "/huge.bin");
    answered(fd, "200 OK", "/huge.bin");
    for (size_t position = 0; position < HUGE; position += sizeof block) {
        for (int64_t until = now_ms() + 120; now_ms() < until;)
            nap();
        size_t got = client_receive(fd, block, sizeof block);
        ck_assert_msg(got == sizeof block && block[77] == pattern(2000, position + 77),
                      "a client that reads slowly, but reads, was given up after %zu bytes", position + got);
    }
}
END_TEST

/* ---- turns ---- */

static struct call calls[4000];

#define OTHERS "folder/index.html"

static bool opens_file(const struct call *call)
{
#ifdef SYS_openat2
    if (call->number == SYS_openat2)
        return true;
#endif
    return call->number == SYS_openat;
}

static bool is_fstat(const struct call *call)
{
#ifdef SYS_fstat
    if (call->number == SYS_fstat)
        return true;
#endif
#ifdef SYS_newfstatat
    if (call->number == SYS_newfstatat)
        return true;
#endif
    return call->number == SYS_statx;
}

/* Has the server answer a request while its calls are recorded: the wait, and then count. */
static void record(const struct server *server, int fd, const char *request, size_t count)
{
    if (sanitized())
        tap_skip("a sanitizer makes system calls of its own");
    not_on_windows("Wine makes system calls of its own");
    ck_assert(eventually(server_asleep(server)));
    trace_start(server);
    say(fd, request);
    ck_assert_uint_eq(trace_record(server, calls, count + 1), count + 1);
    trace_end(server);
}

START_TEST(cost_small)
{
    if (!IN_TURNS)
        tap_skip("the engine receives and sends");
    struct server server = start(NULL);
    int fd = client_connect(&server);
    gets_hello(fd);
    record(&server, fd, THEN, 6);
    ck_assert_msg(calls[1].number == SYS_recvfrom && opens_file(&calls[2]) && is_fstat(&calls[3]) &&
                      calls[4].number == SYS_pread64 && calls[5].number == SYS_sendto &&
                      calls[6].number == SYS_close,
                  "to answer with a small file is not: receive, open, ask for its size, read, send, close");
    answered(fd, "200 OK", "/hello.txt");
    has_text(fd, HELLO, "/hello.txt");
    ck_assert_int_eq(calls[5].result, (long)(strlen(head) + strlen(HELLO)));

    record(&server, fd, "GET" BEHIND "If-Modified-Since: " MODIFIED_TEXT "\r\n\r\n", 5);
    ck_assert_msg(calls[1].number == SYS_recvfrom && opens_file(&calls[2]) && is_fstat(&calls[3]) &&
                      calls[4].number == SYS_close && calls[5].number == SYS_sendto,
                  "to say 304 is not: receive, open, ask for its time, close, send");
    answered(fd, "304 Not Modified", "/hello.txt");
}
END_TEST

START_TEST(cost_large)
{
    if (!IN_TURNS)
        tap_skip("the engine receives and sends");
    struct server server = start(NULL);
    int fd = client_connect(&server);
    gets_hello(fd);
    record(&server, fd, "GET /11.bin HTTP/1.1\r\nHost: here\r\n\r\n", 6);
    if (calls[5].number != SYS_sendfile)
        tap_skip("built without sendfile()");
    ck_assert_msg(
        calls[1].number == SYS_recvfrom && opens_file(&calls[2]) && is_fstat(&calls[3]) &&
            calls[4].number == SYS_sendto && calls[6].number == SYS_close,
        "to answer with a larger file is not: receive, open, ask for its size, send, sendfile, close");
    ck_assert_msg((calls[4].arguments[3] & MSG_MORE) != 0, "the head goes out in a segment of its own");
    answered(fd, "200 OK", "/11.bin");
    has_pattern(fd, size_of(11), 11, 0);
}
END_TEST

/* Whether the call opens the other's file. */
static bool opens_others(const struct server *server, const struct call *call)
{
    char path[sizeof OTHERS - 1] = "";
    if (opens_file(call))
        trace_read(server, call->second, path, sizeof path);
    return memcmp(path, OTHERS, sizeof path) == 0;
}

/* Two ask while the server stands still. The first has much to get; records what happens until the other's
 * turn. Returns how many calls that were. */
static size_t until_other(const struct server *server, const char *request)
{
    if (sanitized())
        tap_skip("a sanitizer makes system calls of its own");
    not_on_windows("Wine makes system calls of its own");
    int first = client_connect(server);
    int other = client_connect(server);
    gets_hello(first);
    gets_hello(other);
    ck_assert(eventually(server_asleep(server)));
    trace_start(server);
    say(first, request);
    ask(other, "/" OTHERS);
    size_t count = 0;
    bool found = false;
    while (count < sizeof calls / sizeof *calls && !found) {
        trace_enter(server, &calls[count]);
        found = opens_others(server, &calls[count]);
        if (!eventually(trace_leave(server, &calls[count])))
            ck_abort_msg("the server sleeps, and a client has asked");
        count++;
    }
    ck_assert_msg(found, "after %zu system calls the other client has not had its turn", count);
    trace_end(server);
    return count;
}

START_TEST(turn_of_bytes)
{
    if (!IN_TURNS)
        tap_skip("the engine receives and sends");
    struct server server = start(NULL);
    size_t count = until_other(&server, "GET /huge.bin HTTP/1.1\r\nHost: here\r\n\r\n");
    long sent = 0;
    for (size_t i = 0; i < count; i++)
        sent += calls[i].number == SYS_sendfile || calls[i].number == SYS_sendto ? calls[i].result : 0;
    ck_assert_msg(sent > 0 && sent <= TURN_BYTES + 1024,
                  "%ld bytes went to one client before the other's turn", sent);
}
END_TEST

START_TEST(turn_of_requests)
{
    enum { MANY = 80 };
    char text[MANY * (sizeof THEN - 1) + 1];
    for (size_t i = 0; i < MANY; i++)
        memcpy(text + i * (sizeof THEN - 1), THEN, sizeof THEN);
    struct server server = start(NULL);
    size_t count = until_other(&server, text);
    int opened = 0;
    for (size_t i = 0; i + 1 < count; i++) /* the last one is the other's */
        opened += opens_file(&calls[i]);
    ck_assert_msg(opened > 0 && opened <= REQUESTS_PER_TURN,
                  "%d requests of one client were answered before the other's turn", opened);
}
END_TEST

/* ---- shortage ---- */

/* io_uring has the clients in a table, as large as the limit was at the start: so it starts with few. Then
 * one is let in when another leaves, and for a file there may be a descriptor all the time. */
static void out_of_places(void)
{
    enum { FEW = 20 };
    int clients[FEW];
    int inside = 0;
    struct server server = start(&(struct server_setup){.descriptors = FEW});
    do {
        clients[inside] = client_connect(&server);
        ask(clients[inside], "/hello.txt");
    } while (!client_hears_nothing(clients[inside], 500) && ++inside < FEW);
    ck_assert_msg(inside > 0 && inside < FEW, "with %d descriptors, %d clients are inside", FEW, inside);
    rests(&server);
    for (int i = 0; i < inside; i++) {
        answered(clients[i], "200 OK", "one inside");
        has_text(clients[i], HELLO, "one inside");
    }
    gets_hello(clients[0]);
    close(clients[0]);
    answered(clients[inside], "200 OK", "who waited, when somebody has left");
    has_text(clients[inside], HELLO, "who waited");
    server_limit_descriptors(&server, 3);
    ask(clients[inside], "/hello.txt");
    answered(clients[inside], "503 Service Unavailable", "out of descriptors");
    has_refusal(clients[inside], "503 Service Unavailable", "out of descriptors");
    ck_assert_str_eq(field("Connection"), "close");
    ended(clients[inside], "out of descriptors");
    server_limit_descriptors(&server, FEW);
    stops_well(&server);
}

static void out_of_descriptors(void)
{
    if (way != NULL && strcmp(way, "io_uring") == 0) {
        out_of_places();
        return;
    }
    struct server server = start(NULL);
    int inside = client_connect(&server);
    gets_hello(inside);
    int used = descriptors_at_rest(&server);
    server_limit_descriptors(&server, (unsigned)used);
    int waiting = client_connect(&server);
    ask(waiting, "/hello.txt");
    ask(inside, "/hello.txt");
    answered(inside, "503 Service Unavailable", "out of descriptors");
    has_refusal(inside, "503 Service Unavailable", "out of descriptors");
    ck_assert_str_eq(field("Connection"), "close");
    ended(inside, "out of descriptors");
    close(inside); /* what it had goes to the one who waits, and there is none for a file */
    answered(waiting, "503 Service Unavailable", "out of descriptors");
    has_refusal(waiting, "503 Service Unavailable", "out of descriptors");
    ended(waiting, "out of descriptors");
    close(waiting);

    inside = client_connect(&server);
    ck_assert_msg(eventually(server_descriptors(&server) == used),
                  "a client is not let in, and there is a descriptor");
    waiting = client_connect(&server);
    ask(waiting, "/hello.txt");
    rests(&server);
    server_limit_descriptors(&server, 100);
    answered(waiting, "200 OK", "who waited, when descriptors are there again");
    has_text(waiting, HELLO, "who waited");
    gets_hello(inside);
    rests(&server);
    stops_well(&server);
}
EACH(out_of_descriptors)

START_TEST(no_memory)
{
    char rule[64];
    struct server server = start(&(struct server_setup){.faults = ""});
    unsigned long long before = server_calls(&server, "malloc");
    stops_well(&server);
    if (sanitized())
        tap_skip("a sanitizer has memory of its own");

    snprintf(rule, sizeof rule, "malloc:%llu=ENOMEM", before + 1);
    server = start(&(struct server_setup){.faults = rule});
    int fd = client_connect(&server);
    ask(fd, "/hello.txt");
    enum ending ending = client_ending(fd);
    ck_assert_uint_eq(server_faults(&server, "malloc"), 1);
    ck_assert_msg(ending != STILL_OPEN, "a client for whom there is no memory is kept");
    fd = client_connect(&server);
    gets_hello(fd);
    stops_well(&server);
}
END_TEST

static void short_calls(void)
{
    struct server server = start(&(struct server_setup){
        .faults = "recv:1=EINTR recv:2=EAGAIN recv:5-=short send:2=EINTR send:3=EAGAIN send:4-=short"});
    int fd = client_connect(&server);
    for (int i = 0; i < 5; i++) {
        gets_hello(fd);
        gets_file(fd, 3);
        gets_file(fd, 99);
        ask(fd, "/large.bin");
        ask(fd, "/1.bin");
        answered(fd, "200 OK", "/large.bin");
        has_pattern(fd, LARGE, 1000, 0);
        answered(fd, "200 OK", "/1.bin");
        has_pattern(fd, 1, 1, 0);
    }
    stops_well(&server);
}
EACH(short_calls)

static void shrinks(void)
{
    char full[200];
    make_file("shrinks.bin", HUGE, 2000);
    in_site(full, sizeof full, "shrinks.bin");
    struct server server = start(NULL);
    int fd = client_connect(&server);
    int other = client_connect(&server);
    gets_hello(fd);
    gets_hello(other);
    int before = descriptors_at_rest(&server);
    ask(fd, "/shrinks.bin");
    answered(fd, "200 OK", "/shrinks.bin");
    ck_assert_uint_eq(length(), HUGE);
    ck_assert_int_eq(truncate(full, 1000), 0);
    size_t right = client_receive_pattern(fd, HUGE, 2000, 0);
    ck_assert_msg(right < HUGE, "the file was cut, and all of it has come");
    ck_assert_msg(client_ending(fd) != STILL_OPEN,
                  "the rest of a file that is not there any more is waited for");
    gets_hello(other);
    ck_assert_msg(eventually(has_descriptors(&server, before - 1)), "the file stays open");
    ask(other, "/shrinks.bin");
    answered(other, "200 OK", "what is left of it");
    has_pattern(other, 1000, 2000, 0);
    stops_well(&server);
}
EACH(shrinks)

START_TEST(changes)
{
    char full[200];
    char new_one[200];
    make_file("grows.bin", HUGE, 2000);
    make_file("new.bin", 10, 3);
    in_site(full, sizeof full, "grows.bin");
    in_site(new_one, sizeof new_one, "new.bin");
    struct server server = start(NULL);
    int fd = client_connect(&server);
    ask(fd, "/grows.bin");
    answered(fd, "200 OK", "/grows.bin");
    int file = open(full, O_WRONLY | O_APPEND | O_CLOEXEC);
    ck_assert_msg(file >= 0 && write(file, SECRET, 11) == 11, "%s: %s", full, strerror(errno));
    close(file);
    has_pattern(fd, HUGE, 2000, 0);
    gets_hello(fd); /* what has been appended is not sent */
    ask(fd, "/grows.bin");
    answered(fd, "200 OK", "/grows.bin");
    ck_assert_uint_eq(length(), HUGE + 11);
    ck_assert_int_eq(rename(new_one, full), 0); /* as an editor saves */
    size_t right = client_receive_pattern(fd, HUGE, 2000, 0);
    ck_assert_msg(right == HUGE, "while a file is sent another takes its name, and byte %zu is wrong", right);
    ck_assert_uint_eq(client_receive(fd, full, 11), 11);
    ask(fd, "/grows.bin");
    answered(fd, "200 OK", "/grows.bin");
    has_pattern(fd, 10, 3, 0);
}
END_TEST

/* ---- the end ---- */

static void stop_idle(void)
{
    struct server server = start(NULL);
    int silent = client_connect(&server);
    int idle = client_connect(&server);
    gets_hello(idle);
    int64_t begin = now_ms();
    stops_well(&server);
    ck_assert_msg(now_ms() - begin < 1500 || sanitized(),
                  "nobody was owed anything, and the stop took %lld ms", (long long)(now_ms() - begin));
    ended(silent, "a client that never said anything");
    ended(idle, "a client that was idle");
    ck_assert(!client_can_connect(&server));
}
EACH(stop_idle)

static void stop_during_answer(void)
{
    struct server server = start(NULL);
    int fd = client_connect(&server);
    ask(fd, "/huge.bin");
    answered(fd, "200 OK", "/huge.bin");
    ask(fd, "/hello.txt"); /* if it is not read any more, to close on it would be a reset */
    server_signal(&server, SIGTERM);
    ck_assert_msg(eventually(!client_can_connect(&server)), "after SIGTERM the server still listens");
    has_pattern(fd, HUGE, 2000, 0);
    if (!IN_TURNS) { /* it looks once more, and so it is read, and answered */
        answered(fd, "200 OK", "the answer to what came before the stop");
        has_text(fd, HELLO, "the answer to what came before the stop");
        ck_assert_str_eq(field("Connection"), "close");
    }
    ended(fd, "the answer at the stop");
    close(fd);
    int status = server_wait(&server);
    ck_assert_msg(status == 0, "the status is %d", status);
}
EACH(stop_during_answer)

/* A stop calls everybody, and most have nothing to say. What is in the buffer then is somebody else's. */
static void stop_in_silence(void)
{
    struct server server = start(NULL);
    int lingering = client_connect(&server);
    ask_with(lingering, "/hello.txt", "Connection: close");
    answered(lingering, "200 OK", "the last request of its connection");
    int idle = client_connect(&server);
    gets_hello(idle);
    int other = client_connect(&server);
    static const char request[] = "GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n";
    char text[300];
    snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s%s%s",
             3 * strlen(request), request, request, request);
    client_send(other, text, strlen(text));
    answered(other, "200 OK", "a request with a body");
    server_signal(&server, SIGTERM);
    char byte;
    ck_assert_msg(client_receive(idle, &byte, 1) == 0, "a client that has asked for nothing got an answer");
    close(lingering);
    close(other);
    ck_assert_int_eq(server_wait(&server), 0);
}
EACH(stop_in_silence)

/* What has come is answered, with the word that it is the last; even if nobody has accepted the client yet.
 */
static void stop_asked(void)
{
    enum { CLIENTS = 100 };
    int clients[CLIENTS];
    struct server server = start(NULL);
    client_connect_many(&server, clients, CLIENTS / 2);
    for (int i = 0; i < CLIENTS / 2; i++)
        gets_hello(clients[i]);
    server_pause(&server);
    client_connect_many(&server, clients + CLIENTS / 2, CLIENTS / 2);
    for (int i = 0; i < CLIENTS; i++)
        ask(clients[i], "/hello.txt");
    server_signal(&server, SIGTERM);
    kill(server.pid, SIGCONT);
    for (int i = 0; i < CLIENTS; i++) {
        answered(clients[i], "200 OK", "asked before the stop");
        has_text(clients[i], HELLO, "asked before the stop");
        if (i >= CLIENTS / 2) /* those who are inside may have their turn before the signal has its own */
            ck_assert_str_eq(field("Connection"), "close");
        ended(clients[i], "asked before the stop");
        close(clients[i]);
    }
    ck_assert_int_eq(server_wait(&server), 0);
}
EACH(stop_asked)

START_TEST(stop_never_reads)
{
    struct server server = start(NULL);
    int lazy = client_connect(&server);
    int half = client_connect(&server);
    int refused = client_connect(&server);
    ask(lazy, "/huge.bin");
    answered(lazy, "200 OK", "/huge.bin");
    say(half, "GET /");
    say(refused, "BREW" BEHIND "\r\n");
    answered(refused, "501 Not Implemented", "BREW");
    int64_t begin = now_ms();
    stops_well(&server);
    ck_assert_msg(now_ms() - begin < 4500 || sanitized(), "the stop took %lld ms",
                  (long long)(now_ms() - begin));
}
END_TEST

START_TEST(stop_int)
{
    struct server server = start(NULL);
    int fd = client_connect(&server);
    gets_hello(fd);
    int status = server_stop(&server, SIGINT);
    ck_assert_msg(status == 0, "after SIGINT the status is %d", status);
}
END_TEST

/* Whoever is impatient sends it again and again: while something is owed, and until it has ended. */
START_TEST(stop_again)
{
    struct server server = start(NULL);
    int fd = client_connect(&server);
    ask(fd, "/huge.bin");
    answered(fd, "200 OK", "/huge.bin");
    server_signal(&server, SIGTERM);
    ck_assert_msg(eventually(!client_can_connect(&server)), "after SIGTERM the server still listens");
    server_signal(&server, SIGTERM);
    has_pattern(fd, HUGE, 2000, 0);
    do
        server_signal(&server, SIGTERM);
    while (server_alive(&server));
    int status = server_wait(&server);
    ck_assert_msg(status == 0, "after SIGTERM, and more of them, the status is %d", status);
}
END_TEST

START_TEST(clients_vanish)
{
    struct server server = start(NULL);
    int before = server_descriptors(&server);
    for (int i = 0; i < 20; i++) {
        int fd = client_connect(&server);
        ask(fd, i % 2 == 0 ? "/huge.bin" : "/hello.txt");
        if (i % 4 < 2)
            client_reset(fd);
        else
            close(fd);
        fd = client_connect(&server);
        say(fd, "GET /hello");
        client_reset(fd);
    }
    ck_assert_msg(eventually(has_descriptors(&server, before)),
                  "clients have gone, and descriptors are left");
    int fd = client_connect(&server);
    gets_hello(fd);
    stops_well(&server);
}
END_TEST

/* ---- several loops, and how it is started ---- */

static void loops(void)
{
    enum { CLIENTS = 64 };
    int clients[CLIENTS];
    if (!IN_TURNS)
        tap_skip("there is one loop");
    struct server server = start_with("--loops", "4");
    client_connect_many(&server, clients, CLIENTS);
    ck_assert_msg(eventually(server_threads(&server) >= 4) && (sanitized() || server_threads(&server) == 4),
                  "there are %d threads", server_threads(&server)); /* a sanitizer may have one more */
    for (size_t i = 0; i < CLIENTS; i++)
        say(clients[i], "GET /hello.txt HT");
    ck_assert(eventually(server_asleep(&server))); /* now each loop has halves of requests in its memory */
    for (size_t i = 0; i < CLIENTS; i++)
        say(clients[i], "TP/1.1\r\nHost: here\r\n\r\n");
    for (size_t i = 0; i < CLIENTS; i++) {
        answered(clients[i], "200 OK", "two halves of a request");
        has_text(clients[i], HELLO, "two halves of a request");
    }
    for (size_t round = 0; round < 3; round++) {
        char path[40];
        for (size_t i = 0; i < CLIENTS; i++) {
            snprintf(path, sizeof path, "/%zu.bin", i + round);
            ask(clients[i], path);
        }
        for (size_t i = 0; i < CLIENTS; i++) {
            snprintf(path, sizeof path, "client %zu", i);
            answered(clients[i], "200 OK", path);
            has_pattern(clients[i], size_of(i + round), (unsigned)(i + round), 0);
        }
    }
    rests(&server);
    stops_well(&server);
}
EACH(loops)

static void wrong(const char *a, const char *b, const char *message)
{
    server_choose(httpd);
    server_options("");
    const char *const arguments[] = {"--port", "0", a, b, NULL};
    struct run run = run_program(arguments);
    ck_assert_msg(run.status == 2, "%s %s: the status is %d; on stderr: %s", a, b != NULL ? b : "",
                  run.status, run.err);
    ck_assert_msg(run.out[0] == '\0', "%s: on stdout: %s", a, run.out);
    ck_assert_msg(strstr(run.err, message) != NULL, "%s %s: on stderr there is no \"%s\": %s", a,
                  b != NULL ? b : "", message, run.err);
}

START_TEST(wrong_use)
{
    char file[200];
    in_site(file, sizeof file, "hello.txt");
    wrong("--root", "/no/such/folder", "--root /no/such/folder: ");
    wrong("--root", file, "--root ");
    wrong("--root", "", "--root");
    wrong("--idle-timeout", "0", "--idle-timeout 0: ");
    wrong("--idle-timeout", "1x", "--idle-timeout 1x: ");
    wrong("--idle-timeout", "-1", "--idle-timeout -1: ");
    wrong("--" OPTION, "magic", "--" OPTION " magic: ");
    wrong("--loops", "0", IN_TURNS ? "--loops 0: " : "loops");
    wrong("--what", NULL, "what");
    wrong("folder", NULL, "folder");
}
END_TEST

START_TEST(help)
{
    server_choose(httpd);
    server_options("");
    const char *const arguments[] = {"--help", NULL};
    char way_help[32];
    snprintf(way_help, sizeof way_help, "--%s NAME", OPTION);
    const char *const words[] = {"--root DIR", way_help, IN_TURNS ? "--loops N" : "--address",
                                 "--idle-timeout SECONDS", "--port"};
    struct run run = run_program(arguments);
    ck_assert_int_eq(run.status, 0);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        ck_assert_msg(strstr(run.out, words[i]) != NULL, "--help does not say %s: %s", words[i], run.out);
}
END_TEST

START_TEST(verbose)
{
    struct server server = start_with("--verbose", NULL);
    int fd = client_connect(&server);
    gets_hello(fd);
    ck_assert_msg(eventually(strstr(server_errors(&server), "/hello.txt") != NULL), "on stderr: %s",
                  server_errors(&server));
}
END_TEST

/* ---- Windows ---- */

static const char *const no_names[] = {
    "/..%5coutside%5csecret.txt", /* "\" is a slash */
    "/folder%5cindex.html",
    "/folder%5c..%5c..%5coutside%5csecret.txt",
    "/%5cetc%5cpasswd",
    "/%5c%5c.%5cZ:%5cetc%5cpasswd",
    "/%3f%3f%5cZ:%5cetc%5cpasswd",
    "/Z:", /* a drive */
    "/Z:/etc/passwd",
    "/Z:%5cetc%5cpasswd",
    "/C:/windows/win.ini",
    "/C:hello.txt",
    "/hello.txt:", /* another content of the file, or the same one */
    "/hello.txt::$DATA",
    "/.git::$INDEX_ALLOCATION/config",
    "/folder::$INDEX_ALLOCATION/index.html",
    "/NUL", /* devices, in any folder */
    "/nul.txt",
    "/CON",
    "/folder/CON",
    "/CONIN$",
    "/COM1",
    "/lpt1.txt",
    "/hello.txt.", /* that the end is cut off */
    "/hello.txt%20",
    "/hello.txt%20.%20.",
    "/folder./index.html",
    "/folder%20/index.html",
    "/hello.txt./",
    "/_GIT~IBP/config", /* Wine's short name for .git; Windows' would be GIT~1 */
    "/GIT~1/config",
    "/.GIT/config",
    "/hell*.txt", /* patterns, of which "<" and ">" are two more */
    "/hello.%3c",
    "/hello.t%3ft",
    "/%22hello.txt%22",
    "/%c0%ae%c0%ae/outside/secret.txt", /* what is no UTF-8 */
    "/hello%ff.txt",
};

START_TEST(other_spellings)
{
    if (!on_windows)
        tap_skip("elsewhere these are names like any other");
    struct server server = start(NULL);
    for (size_t i = 0; i < sizeof no_names / sizeof *no_names; i++) {
        int fd = client_connect(&server);
        ask(fd, no_names[i]);
        answered(fd, "404 Not Found", no_names[i]);
        has_refusal(fd, "404 Not Found", no_names[i]);
        still_open(fd, no_names[i]);
        close(fd);
    }
    int fd = client_connect(&server);
    ask(fd, "/aux.html"); /* NtCreateFile() takes it for what it is here */
    answered(fd, "200 OK", "/aux.html");
    has_text(fd, HELLO, "/aux.html");
    ask(fd, "/HELLO.TXT");
    answered(fd, "200 OK", "/HELLO.TXT");
    has_text(fd, HELLO, "/HELLO.TXT");
    stops_well(&server);
}
END_TEST

START_TEST(hidden_by_attribute)
{
    if (!on_windows)
        tap_skip("only Windows has such an attribute");
    if (!veiled)
        tap_skip("Wine has it in an extended attribute, and this file system has none");
    struct server server = start(NULL);
    int fd = client_connect(&server);
    ask(fd, "/veiled.txt");
    answered(fd, "404 Not Found", "a hidden file");
    has_refusal(fd, "404 Not Found", "a hidden file");
    still_open(fd, "a hidden file");
}
END_TEST

/* What Wine shows as a reparse point is a folder with another file system. */
START_TEST(reparse_points)
{
    struct stat root;
    struct stat proc;
    if (!on_windows)
        tap_skip("only Windows has such");
    if (stat("/", &root) < 0 || stat("/proc", &proc) < 0 || root.st_dev == proc.st_dev)
        tap_skip("there is no folder with another file system here");
    snprintf(site, sizeof site, "/");
    struct server server = start(NULL);
    int fd = client_connect(&server);
    static const char *const paths[] = {"/proc", "/proc/", "/proc/version"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        ask(fd, paths[i]);
        answered(fd, "404 Not Found", paths[i]);
        has_refusal(fd, "404 Not Found", paths[i]);
    }
    ask(fd, "/etc/passwd"); /* this is not elsewhere */
    answered(fd, "200 OK", "/etc/passwd");
}
END_TEST

/* ---- the list ---- */

#define ON_EACH(test) {&way0_##test, &way1_##test, &way2_##test, &way3_##test}, NULL
#define ONCE(test) {NULL}, &test

/* clang-format off */
static const struct tap_row rows[] = {
    {ONCE(exact), "a file comes with a head that says what it is",
     "The status line, Date, Connection, Last-Modified, Accept-Ranges, Content-Type, Content-Length, an empty line, the\n"
     "bytes.",
     "A field is missing, or a line ends with LF alone.", SECTION},
    {ONCE(date_goes_on), "the Date is now, and goes on",
     "In an answer it is the second in which that is written; a later answer has a later one.",
     "The text is made once, and kept.", SECTION},
    {ONCE(types), "the Content-Type is that of the suffix",
     "In upper case, too; what is not known is application/octet-stream.",
     "The first dot is looked for, not the last; or the comparison stops early.", SECTION},
    {ONCE(sizes), "files of all sizes come whole",
     "Nothing, one byte, around 16 KiB, which is copied, around 256 KiB, which is a turn, 1 MiB, 24 MiB: every byte, and\n"
     "then the server rests.",
     "A limit is off by one; or the interest in room to send stays when all is sent.", SECTION},
    {ONCE(beyond_4_gib), "a file of more than 4 GiB has its size, and its end",
     "Content-Length, and the range of its last bytes: each of them.",
     "A size or an offset is cut to 32 bits.", SECTION},
    {ONCE(future), "nothing was modified later than now",
     "A file with a date of tomorrow: Last-Modified is the Date (RFC 9110, 8.8.2.1).",
     "The file's time is taken as it is.", SECTION},
    {ONCE(head_only), "HEAD has the head of GET, and no body",
     "For a file, a folder, and what is not there: the same head, and the next answer follows at once.",
     "The body follows: the client takes it for its next answer.", SECTION},

    {ONCE(folder_index), "a folder is its index.html, or 404",
     "/, and /folder/. A folder without an index.html is not listed.",
     "The folder itself is read, or listed; or a file with a slash behind it is found.", SECTION},
    {ONCE(redirected), "a folder without the last slash is 301, with its path",
     "Location has the slash, one at its begin, and %XX for whatever is not a letter or a digit.",
     "The target is copied: //folder is a host to a browser; or \" and CR LF come back as they came.", SECTION},

    {ONCE(links_inside), "a symbolic link that stays inside the root is followed",
     "To a folder, to a file, also with \"..\" in it: openat2() keeps the path beneath the root.",
     "O_NOFOLLOW refuses every link.", SECTION},
    {ONCE(outside), "no file outside of the root is given out",
     "\"..\" in all spellings, symbolic links that lead out, /proc/self, what is hidden, and what is no regular file: 400\n"
     "or 404, and nobody waits for a FIFO.",
     "The path is looked at, and then opened: a symbolic link leads out. Or open() waits for the FIFO's writer.", SECTION},
    {ONCE(old_kernel), "where openat2 does not exist, no file outside of the root is given out",
     "With ENOSYS from openat2() the path is opened step by step, and no symbolic link is followed.",
     "Only the last part is opened with O_NOFOLLOW; or a folder on the way stays open.", SECTION},
    {ONCE(sandbox), "where openat2 is forbidden, files are given out all the same",
     "A sandbox that does not know the call answers EPERM: then as on an old kernel.",
     "Only ENOSYS is expected, and EPERM is 403 for every file.", SECTION},
    {ONCE(swapped), "a folder that becomes a symbolic link at the wrong moment lets nobody out",
     "While a folder and a link exchange their names, 20,000 requests get the file inside, or 404.",
     "The path is looked at, with realpath() say, and opened then: in between it is another.", SECTION},
    {ONCE(denied), "what may not be read is 403",
     "A file, a file in a folder, the index.html of a folder, without permission.",
     "errno is not looked at.", SECTION},

    {ONCE(ranges), "a range is 206 with just these bytes, or 416",
     "From the begin, to the end, the last ones, beyond the end, numbers without measure: Content-Range and each byte.",
     "The end is off by one: in HTTP the last byte belongs to the range.", SECTION},
    {ONCE(whole_instead), "what is no single range, or is out of date, gets the whole file",
     "Several ranges, none at all, other units; If-Range with another date or a tag; If-Modified-Since in vain.",
     "A range that cannot be read is 400, or 416; or If-Range is not looked at.", SECTION},
    {ONCE(not_modified), "who has the file already gets 304, and no body",
     "If-Modified-Since with that date, or a later one, in all three formats; the next answer follows at once.",
     "Dates are compared as texts; or Content-Length and the body come along.", SECTION},
    {ONCE(descriptors), "no answer leaves a descriptor open",
     "200, 206, 301, 304, 404, 416, HEAD, and clients that leave in the middle: as many descriptors as before.",
     "The file is closed when its bytes have been sent, and in a 304 none are.", SECTION},

    {ONCE(hostile_whole), "what is not HTTP is refused, and the connection ends",
     "43 requests, each with its status. The answer arrives, then the end, and the next client is served.",
     "It is taken for something that it is not. See unit_http.", SECTION},
    {ONCE(hostile_bytes), "what is not HTTP is refused, also a byte at a time",
     "The same 43, each byte sent by itself: the network cuts where it likes.",
     "What has come is looked at as if it were all.", SECTION},
    {ONCE(heard_out), "a refusal reaches a client that is still sending",
     "A body of 100,000 bytes is too large, and is on its way: the client gets the 413, and a FIN, and no RST.",
     "close() with bytes that nobody has read sends an RST, and the answer may be lost.", SECTION},
    {ONCE(heard_out_for_a_while), "after a refusal a client is heard out for a while, and not for ever",
     "One that stays is closed after two seconds; one that sends on and on, after a megabyte.",
     "It is waited for its FIN, without a limit.", SECTION},
    {ONCE(bodies), "the body of a GET is passed over, and the next request is found behind it",
     "With a length, in chunks, cut anywhere; and the answer to Expect: 100-continue is the last of its connection.",
     "What is in the body is taken for a request: that is how requests are smuggled.", SECTION},

    {ON_EACH(keep_alive), "a connection stays open, or is closed, as the client wishes",
     "HTTP/1.1: it stays, but for Connection: close. HTTP/1.0: it is closed, but for Connection: keep-alive. The answer\n"
     "says so.",
     "Connection is compared as one word, and is a list; or HTTP/1.0 is not looked at.", SECTION},
    {ONCE(half_closed), "a client that has sent its FIN gets all its answers",
     "It asks twice and says no more: both answers come whole, then the end.",
     "The FIN is taken for the end of the connection.", SECTION},
    {ON_EACH(pipelined), "requests in one segment are answered in order, each",
     "Four at once; three, of which the first does not fit into a turn, and the last comes in two halves.",
     "What is in the buffer behind the first request is thrown away; or it waits for a READ event that does not come.", SECTION},
    {ON_EACH(pipelined_many), "a thousand requests at once are answered in order, each",
     "They are more than one receive brings and one turn answers.",
     "At the end of a turn what is left in the buffer is forgotten: nobody wakes for it.", SECTION},
    {ONCE(pipelined_error), "behind a refusal, or Connection: close, nothing is answered",
     "The one before it is, it is, and then comes the end, though another request has come.",
     "After the error the parser reads on, in the middle of something.", SECTION},

    {ON_EACH(not_reading), "a client that does not read its answer delays nobody",
     "24 MiB wait for it; the others get theirs, and the server rests. Then it reads, and gets every byte.",
     "The answer is sent in a loop, until all is gone.", SECTION},
    {ON_EACH(asks_without_reading), "who asks on and on, and does not read, is not listened to",
     "TCP holds it back, and the server holds one workspace for it. When it reads, each request is answered.",
     "Answers are collected in memory; or reading goes on while something is owed.", SECTION},
    {ONCE(idle_memory), "a connection that is idle holds no buffer",
     "500 clients more, each served once: less than 1 KiB for each.",
     "The buffers are part of the connection.", SECTION},
    {ON_EACH(no_cross_talk), "each of a hundred clients gets its own bytes",
     "All ask for something else, and read when all have asked; one does not read, and has given its workspace back.",
     "What one client has left in the workspace is met by the next one.", SECTION},
    {ON_EACH(thousand), "900 clients at once are served",
     "All ask, then all read.",
     "Descriptors above a limit; or a table that does not grow.", SECTION},

    {ON_EACH(silent), "a silent client is closed when its time is over",
     "With --idle-timeout 1: one that has never said anything, and one that has been served, without a word.",
     "No timer is set for a client that has not begun; or 408 is sent to one that is idle.", SECTION},
    {ON_EACH(half_a_request), "half a request is 408 when its time is over",
     "Half a head, half a body, an empty line, half of a second request.",
     "Only the time between two requests is limited.", SECTION},
    {ON_EACH(slowloris), "a request that comes a byte at a time is 408 when its time is over",
     "The time runs from the first byte to the last: whoever sends a byte now and then gets no more.",
     "The timer is set again at each byte, so a client can hold its connection for ever (slowloris).", SECTION},
    {ON_EACH(never_reads), "a client that does not take its answer is given up",
     "After a second without progress the connection is reset, and its file closed.",
     "While something is owed, no timer runs.", SECTION},
    {ONCE(slow_but_reads), "a client that takes its answer slowly is not given up",
     "It needs three seconds for 24 MiB, and takes something all the time.",
     "The timer is not set again when bytes have been sent.", SECTION},

    {ONCE(cost_small), "a small file costs six system calls",
     "recv, openat2, fstat, pread, send, close; head and body in one. A 304 costs five.",
     "Head and body are sent one after the other; or the demultiplexer is told of something at each request.", SECTION},
    {ONCE(cost_large), "a larger file costs six system calls, and its head waits for it",
     "recv, openat2, fstat, send with MSG_MORE, sendfile, close.",
     "Without MSG_MORE the head is a small segment by itself.", SECTION},
    {ONCE(turn_of_bytes), "in one turn a client gets 256 KiB at most",
     "It would take 24 MiB; then the others have their turn.",
     "The file is sent until the socket takes no more: one that reads fast keeps all others waiting.", SECTION},
    {ONCE(turn_of_requests), "in one turn a client gets 16 answers at most",
     "It has asked 80 times in one segment; then the others have their turn.",
     "All that is in the buffer is answered, however much that is.", SECTION},

    {ON_EACH(out_of_descriptors), "out of descriptors a request is 503, and who waits is let in later",
     "For a file there is no descriptor: 503, and the connection is closed. The one who waits is served when there is one\n"
     "again, and meanwhile the server rests.",
     "404, as if the file were not there; or the listening socket is asked on and on.", SECTION},
    {ONCE(no_memory), "a client for whom there is no memory is closed, and nobody else",
     "malloc() fails when a workspace is needed. The next client is served.",
     "The result is not looked at.", SECTION},
    {ON_EACH(short_calls), "short calls lose nothing",
     "Every receive and every send does a byte less than it could, some are interrupted, some would have to wait.",
     "send() is taken to send all; or EINTR for an error.", SECTION},
    {ON_EACH(shrinks), "a file that becomes shorter while it is sent ends its connection",
     "24 MiB were promised, and are not there any more: the client sees the end too early. Others are served.",
     "sendfile() returns 0, and is called again, for ever; or zeros make up for what is missing.", SECTION},
    {ONCE(changes), "a file that grows, or is replaced, while it is sent comes as it was promised",
     "As many bytes as Content-Length says, of the file that was opened.",
     "It is sent to its end, and the client takes the rest for its next answer; or it is opened anew for each piece.", SECTION},

    {ON_EACH(stop_idle), "SIGTERM closes who is idle, and ends the server at once",
     "The listening socket is closed, the status is 0, and nobody is waited for.",
     "The connection waits for its timer.", SECTION},
    {ON_EACH(stop_during_answer), "at the stop an answer that has begun is finished",
     "24 MiB: the server does not listen any more, and every byte arrives.",
     "All connections are closed with the signal.", SECTION},
    {ON_EACH(stop_in_silence), "at the stop nobody is answered what another has asked",
     "One lingers, one is idle, and one has sent a body that looks like requests: who is idle gets the end.",
     "Nothing was received, and what the last one left in the buffer is read as this one's.", SECTION},
    {ON_EACH(stop_asked), "who has asked before the stop is answered",
     "100 clients have asked, half of them wait to be accepted: each gets its file, Connection: close, and the end.",
     "The listening socket is closed with a queue behind it; or what has come is not read any more.", SECTION},
    {ONCE(stop_never_reads), "a stop lasts three seconds at most",
     "One does not read, one has sent half a request, one was refused and stays: the status is 0.",
     "The last client is waited for.", SECTION},
    {ONCE(stop_int), "SIGINT stops the server, too", "The status is 0.", "Only SIGTERM is caught.", SECTION},
    {ONCE(stop_again), "a second signal changes nothing", "They come while an answer is sent, and on until the end: every byte arrives, the status is 0.",
     "The handler is there for one signal; the second one does what it does by itself.", SECTION},
    {ONCE(clients_vanish), "clients that vanish cost their own connection only",
     "They reset or close it, before, in, and behind their answers: no SIGPIPE, no descriptor left.",
     "EPIPE ends the server; or a file stays open.", SECTION},

    {ONCE(other_spellings), "on Windows no other spelling of a name finds anything",
     "\\, drives, the contents behind a colon, devices, dots and spaces at the end, short names, patterns, and what is no\n"
     "UTF-8: 404 each.",
     "A path goes through CreateFile(), or CON to a device; or \"~\" finds what is hidden.", SECTION},
    {ONCE(hidden_by_attribute), "on Windows, what Windows hides is hidden", "A file with this attribute: 404.",
     "Only the dot at its begin hides a file.", SECTION},
    {ONCE(reparse_points), "on Windows no reparse point is followed",
     "Under Wine, a folder with another file system is one: 404 for it, and for what is in it.",
     "It is opened without FILE_OPEN_REPARSE_POINT, or nobody looks what has been opened.", SECTION},

    {ON_EACH(loops), "with --loops 4 each client gets its own bytes",
     "Four threads, 64 clients, each asks three times.",
     "A buffer, or the text of a date, is one for all loops.", SECTION},
    {ONCE(wrong_use), "wrong use ends the server with status 2 and one line",
     "A root that does not exist, or is a file; numbers that are none; options that nobody knows.",
     "The folder is opened only when somebody asks.", SECTION},
    {ONCE(help), "--help names the options", "--root, --idle-timeout, --port and the others; the status is 0.",
     "An option was added, and the list was not.", SECTION},
    {ONCE(verbose), "--verbose writes the path of each request", "The line is on stderr.", "Nothing is written.", SECTION},
};
/* clang-format on */

enum { ROWS = sizeof rows / sizeof *rows };

int main(int argc, char **argv)
{
    const char *chosen[WAYS];

    if (argc > 1)
        httpd = argv[1];
    if (argc > 2)
        way = argv[2];
    const char *suffix = strrchr(httpd, '-');
    on_windows = suffix != NULL && strcmp(suffix, "-iocp") == 0;
    if (on_windows)
        server_under_wine();
    for (size_t i = 0; i < WAYS; i++)
        chosen[i] = on_windows == (strcmp(ways[i], "iocp") == 0) ? ways[i] : NULL;
    make_site();
    int status = tap_run_rows("httpd", OPTION, chosen, WAYS, rows, ROWS);
    remove_site();
    return status;
}
