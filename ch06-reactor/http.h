/* http.h - reads HTTP/1.1 requests, and knows no socket: bytes go in, in pieces of any
 * size, and a request comes out, or the status code with which to refuse it.
 * The same bytes in chapters 6 and 7. Source: RFC 9110 and RFC 9112. */
#ifndef HTTP_H
#define HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
    HTTP_TARGET_MAX = 2048, /* bytes of a request target; beyond: 414 */
    HTTP_HEAD_MAX = 8192,   /* bytes of a request line and its fields; beyond: 431 */
    HTTP_BODY_MAX = 65536,  /* bytes of a body, which is read and thrown away; beyond: 413 */
};

/* What http_feed() has come to. */
enum http_state {
    HTTP_MORE,    /* the request is not complete */
    HTTP_REQUEST, /* it is, and is good */
    HTTP_REFUSED, /* it is not to be served; answer with request->status, and close */
};

struct http_request {
    /* what has been asked for; valid with HTTP_REQUEST */
    bool head; /* HEAD, else GET */
    char path[HTTP_TARGET_MAX +
              1];    /* decoded, without the query; begins with "/", holds no NUL, "." or ".." */
    bool keep_alive; /* the client may ask again on this connection */
    bool has_range;  /* one byte range, as it was asked for: */
    int64_t range_first,
        range_last; /* from first to last; last -1: to the end; first -1: the last range_last bytes */
    time_t if_modified_since; /* -1: not given, or no valid date */
    int status;               /* with HTTP_REFUSED: 400, 405, 413, 414, 431, 501, 505 */
    /* the parser's own: where it stands */
};

/* Makes it ready for the first byte of a request. */
void http_begin(struct http_request *request);

/* Reads on. used: gets how many of the size bytes belong to this request; those behind are the next one's. */
enum http_state http_feed(struct http_request *request, const char *data, size_t size, size_t *used);

#endif
