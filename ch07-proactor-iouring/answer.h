/* answer.h - what is said before the bytes of a file: the head of an answer of HTTP/1.1.
 * Source: RFC 9110. */
#ifndef ANSWER_H
#define ANSWER_H

#include "files.h"
#include "http.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { ANSWER_HEAD_MAX = 8192 }; /* bytes; the path in a Location takes at most three for each of its own */

struct answer {
    int status;
    bool head;             /* asked with HEAD: no body follows */
    bool keep_alive;       /* the connection stays open */
    const char *path;      /* with 301: of the folder, without the last "/" */
    struct file file;      /* with 200, 206, 304, 416 */
    int64_t first, length; /* with 200, 206: which part of the file follows */
};

/* A time, and its text, which is made anew only when it is another one. */
struct date {
    time_t time;
    char text[sizeof "Sun, 06 Nov 1994 08:49:37 GMT"]; /* empty: none yet */
};

/* The last ones that were written; zero-initialised. One for each thread. */
struct dates {
    struct date now, modified;
};

/* Decides what of answer->file is the answer to request: sets status, first and length. */
void answer_choose(struct answer *answer, const struct http_request *request);

/* Writes the head, with its empty line, and behind it the body, where that is no file.
 * to has room for ANSWER_HEAD_MAX bytes. Returns the end of what has been written. */
char *answer_write(char *to, const struct answer *answer, struct dates *dates);

#endif
