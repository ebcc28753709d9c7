/* files_windows.c - POSIX's open(), openat() and fstat(), as far as files.c needs them, for Windows.
 *
 * There a path has more ways out than "..": "\" is a slash, too, "C:" a drive, "file:name" a second content
 * of the file, "NUL.txt" a device, "page.html." the same as "page.html", and "GIT~1" as ".git". Most of that
 * is made by the functions for paths. Below them is NtCreateFile(), which looks for a name in a folder that
 * is open already: it is openat(2) by another name, and so files.c can be the same bytes. Needs Windows
 * Vista. */
#ifdef _WIN32

#include "files_windows.h"

#include "http.h"

#include <windows.h>
#include <winternl.h>

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdbool.h>
#include <string.h>

/* Others may do with the file what they like, as everywhere else: also rename and remove it. */
enum { SHARE_ALL = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE };

/* [errors] */
/* files.c makes a status of it. What has no row here is a name that cannot be, or is not there. */
static int errno_of(DWORD error)
{
    switch (error) {
    case ERROR_ACCESS_DENIED:
        return EACCES;
    case ERROR_SHARING_VIOLATION: /* a program writes it, and wants to be alone */
        return EAGAIN;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
        return ENOMEM;
    case ERROR_TOO_MANY_OPEN_FILES:
        return EMFILE;
    case ERROR_CRC:
    case ERROR_IO_DEVICE:
    case ERROR_READ_FAULT:
        return EIO;
    default:
        return ENOENT;
    }
}
/* [/errors] */

/* [descriptor] */
/* The C library has 2,048 descriptors, or 8,192, however many handles there may be. */
static int descriptor_of(HANDLE handle)
{
    int fd = _open_osfhandle((intptr_t)handle, _O_RDONLY | _O_BINARY);
    if (fd < 0)
        CloseHandle(handle);
    return fd; /* if there was none: EMFILE */
}

static HANDLE handle_of(int fd)
{
    return (HANDLE)_get_osfhandle(fd);
}
/* [/descriptor] */

/* [root] */
/* In the place of the C library's, which opens no folders. This path is the one of the command line, and
 * may lead wherever it likes. */
int open(const char *path, int flags, ...)
{
    BY_HANDLE_FILE_INFORMATION about;
    HANDLE handle = CreateFileA(path, FILE_TRAVERSE | FILE_READ_ATTRIBUTES, SHARE_ALL, NULL, OPEN_EXISTING,
                                FILE_FLAG_BACKUP_SEMANTICS, NULL);

    if (handle == INVALID_HANDLE_VALUE) {
        errno = errno_of(GetLastError());
        return -1;
    }
    if ((flags & O_DIRECTORY) != 0 && (!GetFileInformationByHandle(handle, &about) ||
                                       (about.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0)) {
        CloseHandle(handle);
        errno = ENOTDIR;
        return -1;
    }
    return descriptor_of(handle);
}
/* [/root] */

/* [name] */
/* NtCreateFile() knows no drives, no devices and no "..", and takes a dot at the end for what it is. But it
 * knows the other slash, the contents behind ":", and the short names that Windows gives to files with longer
 * ones: they all have a "~". A dot or a space at the end is refused as well, since other programs cannot tell
 * such a file from another. */
static bool is_plain(const char *name)
{
    size_t size = strlen(name);
    return size > 0 && strpbrk(name, "\\:~") == NULL && name[size - 1] != '.' && name[size - 1] != ' ';
}

/* To UTF-16. Returns how many characters that are; 0 if it is not UTF-8, or not plain. What is no UTF-8 might
 * become a name that has another spelling, too. */
static int to_windows(const char *name, WCHAR *to, int room)
{
    if (!is_plain(name))
        return 0;
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, name, (int)strlen(name), to, room);
}
/* [/name] */

/* [openat] */
/* Why what has been opened is not given out, as an errno, or 0. It is looked at when it is open: what has the
 * name now may be another. A reparse point is a symbolic link, or a folder that is elsewhere, or what a
 * driver makes of it. And what Windows hides is hidden here, too. */
static int refusal_of(HANDLE handle)
{
    BY_HANDLE_FILE_INFORMATION about;

    if (!GetFileInformationByHandle(handle, &about)) /* it is nothing of a disk's */
        return ENXIO;
    if ((about.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0)
        return ELOOP;
    return (about.dwFileAttributes & FILE_ATTRIBUTE_HIDDEN) != 0 ? ENOENT : 0;
}

/* With FILE_OPEN_REPARSE_POINT a link itself is opened, and not what it leads to. Returns 0, or an errno. */
static int open_in(HANDLE folder, UNICODE_STRING *name, bool on_the_way, HANDLE *handle)
{
    OBJECT_ATTRIBUTES object = {.Length = sizeof object,
                                .RootDirectory = folder,
                                .ObjectName = name,
                                .Attributes = OBJ_CASE_INSENSITIVE};
    ACCESS_MASK access = on_the_way ? FILE_TRAVERSE | FILE_READ_ATTRIBUTES | SYNCHRONIZE : FILE_GENERIC_READ;
    ULONG options = FILE_OPEN_REPARSE_POINT | FILE_SYNCHRONOUS_IO_NONALERT;
    IO_STATUS_BLOCK result;
    NTSTATUS status = NtCreateFile(handle, access, &object, &result, NULL, 0, SHARE_ALL, FILE_OPEN,
                                   options | (on_the_way ? FILE_DIRECTORY_FILE : 0), NULL, 0);

    return status >= 0 ? 0 : errno_of(RtlNtStatusToDosError(status));
}

int openat(int folder, const char *name, int flags)
{
    WCHAR text[HTTP_TARGET_MAX];
    USHORT size = (USHORT)((size_t)to_windows(name, text, HTTP_TARGET_MAX) * sizeof *text);
    UNICODE_STRING in_folder = {size, size, text};
    HANDLE handle;

    int error =
        size == 0 ? ENOENT : open_in(handle_of(folder), &in_folder, (flags & O_DIRECTORY) != 0, &handle);
    if (error == 0) {
        error = refusal_of(handle);
        if (error == 0)
            return descriptor_of(handle);
        CloseHandle(handle);
    }
    errno = error;
    return -1;
}
/* [/openat] */

/* [status] */
static int64_t whole(DWORD high, DWORD low)
{
    return (int64_t)((uint64_t)high << 32 | low);
}

int file_status(int fd, struct file_status *status)
{
    static const int64_t second = 10000000, of_1970 = 11644473600; /* Windows counts from 1601, in 100 ns */
    BY_HANDLE_FILE_INFORMATION about;

    if (!GetFileInformationByHandle(handle_of(fd), &about)) {
        errno = errno_of(GetLastError());
        return -1;
    }
    bool folder = (about.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    const FILETIME *written = &about.ftLastWriteTime;
    *status = (struct file_status){
        .st_mode = folder ? S_IFDIR : S_IFREG,
        .st_size = whole(about.nFileSizeHigh, about.nFileSizeLow),
        .st_mtime = whole(written->dwHighDateTime, written->dwLowDateTime) / second - of_1970,
    };
    return 0;
}
/* [/status] */

char *stpcpy(char *to, const char *from)
{
    size_t size = strlen(from);
    return (char *)memcpy(to, from, size + 1) + size;
}

#else
typedef int files_windows_is_not_here; /* a file of C is never empty */
#endif
