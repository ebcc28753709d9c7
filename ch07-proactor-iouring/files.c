/* files.c - finds and opens files below a folder; files.h says how it is used.
 *
 * A path that looks harmless may lead anywhere: any part of it may be a symbolic link. To look first,
 * with realpath() say, and to open then, is a race: in between, a folder can become a link. So the
 * question and the opening are one call.
 * Needs POSIX.1-2008; better with openat2(), Linux 5.6. */
#define _DEFAULT_SOURCE /* syscall(): the C library has no openat2() */
#define _FILE_OFFSET_BITS 64

#include "files.h"

#include "http.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#if __has_include(<linux/openat2.h>)
#include <linux/openat2.h>
#include <sys/syscall.h>
#endif

/* Without O_NONBLOCK, to open a FIFO would wait until somebody writes to it; without O_NOCTTY, to open a
 * terminal could make it ours. To a regular file neither makes a difference. */
enum { FLAGS = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC };

/* [beneath] */
/* Opens a path, of which no ".." and no symbolic link may lead out of the root (EXDEV), nor be one of those
 * links in /proc that are none, and lead to whatever a process has open. */
static int open_beneath(int root, const char *path)
{
#ifdef SYS_openat2
    const struct open_how how = {.flags = FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd;
    int tries = 16; /* EAGAIN: somebody, anywhere, renamed something while a link's ".." was followed */
    do
        fd = syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && --tries > 0);
    return (int)fd;
#else
    (void)root;
    (void)path;
    errno = ENOSYS;
    return -1;
#endif
}

/* The same everywhere: a folder at a time, none of which may be a symbolic link (ELOOP). */
static int open_step_by_step(int root, const char *path)
{
    char name[HTTP_TARGET_MAX + 1];
    int folder = root;

    for (;;) {
        size_t size = strcspn(path, "/");
        bool last = path[size] == '\0';
        memcpy(name, path, size);
        name[size] = '\0';
        int fd = openat(folder, name, FLAGS | O_NOFOLLOW | (last ? 0 : O_DIRECTORY));
        int error = errno;
        if (folder != root)
            close(folder);
        errno = error;
        if (fd < 0 || last)
            return fd;
        folder = fd;
        path += size + 1;
    }
}
/* [/beneath] */

/* [root] */
/* Whether openat2() works is found out by a call: an old kernel does not know it, and a sandbox
 * may forbid what it does not know. */
int files_root(struct root *root, const char *path)
{
    root->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root->fd < 0)
        return -1;
    int probe = open_beneath(root->fd, ".");
    root->beneath = probe >= 0;
    if (probe >= 0)
        close(probe);
    return 0;
}
/* [/root] */

/* [type] */
/* What a browser makes of a file depends on its type, and on nothing in the file. What is asked for most
 * comes first. Text is said to be UTF-8: without a word, browsers still guess an alphabet of the last
 * century. */
static const char *type_of(const char *path)
{
    /* clang-format off */
    static const struct {
        const char *suffix, *type;
    } types[] = {
        {".html", "text/html; charset=utf-8"}, {".css", "text/css; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"}, {".txt", "text/plain; charset=utf-8"},
        {".png", "image/png"}, {".jpg", "image/jpeg"},
        {".svg", "image/svg+xml"}, {".json", "application/json"},
        {".woff2", "font/woff2"}, {".webp", "image/webp"},
        {".gif", "image/gif"}, {".ico", "image/vnd.microsoft.icon"},
        {".jpeg", "image/jpeg"}, {".xml", "application/xml"},
        {".pdf", "application/pdf"}, {".wasm", "application/wasm"},
        {".mp4", "video/mp4"}, {".md", "text/plain; charset=utf-8"},
        {".c", "text/plain; charset=utf-8"}, {".h", "text/plain; charset=utf-8"},
        {".patch", "text/plain; charset=utf-8"},
    };
    /* clang-format on */
    const char *suffix = strrchr(path, '.');
    for (size_t i = 0; suffix != NULL && i < sizeof types / sizeof *types; i++) {
        if (strcasecmp(suffix, types[i].suffix) == 0)
            return types[i].type;
    }
    return "application/octet-stream";
}
/* [/type] */

/* [open] */
/* 403 tells that there is something. 404 tells nothing, also of what lies behind a link out of the root. */
static int status_of(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
        return 403;
    case EIO:
        return 500;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN: /* somebody renames folders just now */
    case EINTR:
        return 503;
    default: /* ENOENT, ENOTDIR, EXDEV, ELOOP, ENAMETOOLONG, ENXIO (a socket, or a device of nobody) */
        return 404;
    }
}

/* What is not regular has no size and no end, or does something when it is read. */
static int take(int fd, const char *path, struct file *file)
{
    struct stat status;
    int result = 404;

    if (fstat(fd, &status) < 0)
        result = status_of(errno);
    else if (S_ISDIR(status.st_mode))
        result = 301;
    else if (S_ISREG(status.st_mode))
        result = 200;
    if (result == 200)
        *file = (struct file){fd, type_of(path), status.st_size, status.st_mtime};
    else
        close(fd);
    return result;
}

int files_open(const struct root *root, const char *path, struct file *file)
{
    static const char index[] = "index.html";
    char full[HTTP_TARGET_MAX + sizeof index];
    bool of_folder = strrchr(path, '/')[1] == '\0';

    file->fd = -1;
    if (strstr(path, "/.") != NULL) /* hidden: .git, .ssh; whoever starts a server in their home wants that */
        return 404;
    if (of_folder) {
        stpcpy(stpcpy(full, path), index);
        path = full;
    }
    path++; /* without its slash it is relative, to the root */
    int fd = root->beneath ? open_beneath(root->fd, path) : open_step_by_step(root->fd, path);
    int status = fd < 0 ? status_of(errno) : take(fd, path, file);
    return status == 301 && of_folder ? 404 : status; /* an index.html that is a folder has its slash */
}
/* [/open] */
