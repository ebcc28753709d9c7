/* http.h - reads HTTP/1.1 requests, and knows no socket: bytes go in, in pieces of any
 * size, and a request comes out, or the status code with which to refuse it.
 * The same bytes in chapters 6 and 7. Source: RFC 9110 and RFC 9112.
 *
 * Why not a library? In Debian 12, http-parser 2.9 has had no maintainer since 2020 (its
 * issue 522), llhttp comes only as Node's package, picohttpparser only inside Perl's
 * HTTP::Parser::XS and h2o; libmicrohttpd and libevent's evhttp are whole servers, with a loop
 * of their own. And no such parser does the half that matters most to a file server: the path. */
#ifndef HTTP_H
#define HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
    HTTP_TARGET_MAX = 2048, /* bytes of a request target; beyond: 414 */
    HTTP_HEAD_MAX = 8192,   /* bytes of a request line and its fields; beyond: 431 */
    HTTP_BODY_MAX = 65536,  /* bytes of a body, with its chunk sizes and trailers; beyond: 413 */
    HTTP_VALUE_MAX = 256,   /* bytes of a value without which a request cannot be understood; beyond: 431 */
};

/* What http_feed() has come to. */
enum http_state {
    HTTP_MORE,    /* the request is not complete */
    HTTP_REQUEST, /* it is, and is good */
    HTTP_REFUSED, /* it is not to be served; answer with request->status, and close */
};

/* [http_request] */
struct http_request {
    /* What has been asked for; valid with HTTP_REQUEST. path is further down. */
    bool head;       /* HEAD, else GET; valid with HTTP_REFUSED too, if it is known by then */
    bool keep_alive; /* the client may ask again on this connection; else say that you close it */

    /* One range of bytes, of a GET, as it was asked for: from first to last; last -1: to the end;
     * first -1: the last range_last bytes, which may be 0. INT64_MAX stands for more than that, too. */
    bool has_range;
    int64_t range_first, range_last;
    time_t if_range;          /* not -1: the range counts only if the file was last modified then */
    time_t if_modified_since; /* -1: not given, or to be ignored */

    int status; /* with HTTP_REFUSED: 400, 405 (send Allow), 413, 414, 431, 501, 505 */

    /* The parser's own: where it stands */
    int step, next_step;
    int field;           /* whose value is being read */
    unsigned given;      /* the fields that have come, a bit each */
    bool http11;         /* not HTTP/1.0 */
    bool in_body;        /* the head is complete */
    bool chunked;        /* the body comes in chunks */
    bool close, persist; /* Connection: close, Connection: keep-alive */
    bool expects;        /* Expect: 100-continue */
    int64_t left;        /* bytes of the body, or of the chunk, that are still to come */
    size_t room;         /* bytes that the head, or the body, may still have */
    size_t length;       /* of the element that is being read: a target in path, others in text */

    /* At the end, since http_begin() need not clear them. path is decoded, without the query, and ends
     * with a NUL; it begins with "/", and holds no "//", no segment "." or "..", no control character. */
    char path[HTTP_TARGET_MAX + 1];
    char text[HTTP_VALUE_MAX + 1]; /* the parser's own, too */
};
/* [/http_request] */

/* Makes it ready for the first byte of a request. */
void http_begin(struct http_request *request);

/* Reads on. used: gets how many of the size bytes belong to this request. With HTTP_MORE all do. Those
 * behind an HTTP_REQUEST are the next one's: answer, then http_begin() again, and feed them. With
 * HTTP_REFUSED they are those before the byte that was too much. Until then it takes no more, and
 * returns the same again.
 *
 * Expect: 100-continue is answered by the answer itself, since no body changes it: the request is
 * complete before its body, and keep_alive is false. Source: RFC 9110, 10.1.1. */
enum http_state http_feed(struct http_request *request, const char *data, size_t size, size_t *used);

#endif
