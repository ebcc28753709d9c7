/* files.h - finds and opens the files of one folder, and nothing outside of it. */
#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* The folder. */
struct root {
    int fd;
    bool beneath; /* the kernel can keep a path inside it: openat2(2) */
};

/* A regular file that has been opened. */
struct file {
    int fd; /* -1: none */
    const char *type;
    int64_t size;
    time_t modified;
};

/* Opens the folder. Returns 0, or -1 with errno. Once open, any thread may use it. */
int files_root(struct root *root, const char *path);

/* Opens the file for a path as http_feed() gives it: it begins with "/", and has no "//" and no "..".
 * For one that ends with "/" it is the folder's index.html. Returns the status of the answer:
 *   200  file is open; the caller closes file->fd
 *   301  it is a folder, whose path ends with "/"
 *   403  the permission to read it is missing
 *   404  it does not exist, is no regular file, is hidden, or a symbolic link leads out of the root
 *   500  the disk cannot be read
 *   503  out of descriptors or memory: later it may be there
 * Where openat2(2) is missing, no symbolic link is followed, and a folder in the path must be readable.
 * Source: openat2(2), open(2). */
int files_open(const struct root *root, const char *path, struct file *file);

#endif
