/* files_windows.h - what files.c and answer.c want of POSIX, and Windows' C library does not have. Both are
 * compiled as they are: with gcc's option `-include files_windows.h` they begin with this. The code is in
 * files_windows.c. */
#ifndef FILES_WINDOWS_H
#define FILES_WINDOWS_H

#define _WIN32_WINNT 0x0600  /* Vista, as in the other files for Windows */
#define _FILE_OFFSET_BITS 64 /* as in files.c */

#include <stdint.h>
#include <sys/stat.h>

/* [posix] */
/* Flags of open(). A folder on Windows has no FIFOs and no terminals in it, and what O_NOFOLLOW and O_CLOEXEC
 * ask for is done without them. */
enum { O_NONBLOCK = 0, O_NOCTTY = 0, O_NOFOLLOW = 0, O_CLOEXEC = 0, O_DIRECTORY = 0x1000000 };

/* Opens what has this name in the folder, a descriptor. Without O_DIRECTORY it may be a folder all the same.
 * Returns a descriptor, or -1 with errno: ELOOP for a reparse point, ENOENT for a name that means more than
 * itself, or stands for another one. Source: NtCreateFile, Microsoft. */
int openat(int folder, const char *name, int flags);

struct file_status {
    unsigned st_mode;
    int64_t st_size;
    int64_t st_mtime;
};

/* Returns 0, or -1 with errno. Source: GetFileInformationByHandle, Microsoft. */
int file_status(int fd, struct file_status *status);

char *stpcpy(char *to, const char *from);
/* [/posix] */

/* The C library's fstat() does not know folders, and in older versions the time is an hour off in summer. */
#undef stat
#undef fstat
#define stat file_status
#define fstat file_status

#endif
