/* answer.c - the head of an answer; answer.h says how it is used.
 *
 * It is put together by hand, since at a hundred thousand requests a second printf() and gmtime_r() would
 * be what the server does most. Needs POSIX.1-2008. */
#define _POSIX_C_SOURCE 200809L

#include "answer.h"

#include <stddef.h>
#include <string.h>

/* [choose] */
/* The part that a range asks for: a range that ends behind the file is cut, one that begins there cannot be
 * had. Returns false then. RFC 9110, 14.1.2 */
static bool choose_range(struct answer *answer, int64_t first, int64_t last)
{
    int64_t size = answer->file.size;

    if (first < 0) { /* so many of the last bytes; if there are fewer, all */
        first = last < size ? size - last : 0;
        last = -1;
    }
    if (last < 0 || last >= size)
        last = size - 1;
    answer->first = first;
    answer->length = last - first + 1;
    return first < size;
}

/* Whether If-Range names this very file. A date tells it from another only when the second is over in
 * which it was written: until then it may be written again (RFC 9110, 8.8.2.2). */
static bool is_same_file(const struct http_request *request, const struct file *file)
{
    return request->if_range == -1 || (request->if_range == file->modified && file->modified < time(NULL));
}

/* First whether the client has it already, then which part it wants (RFC 9110, 13.2.2). A client that has a
 * part and asks for the rest says with If-Range of which file: two halves of two files would be none. */
void answer_choose(struct answer *answer, const struct http_request *request)
{
    answer->status = 200;
    answer->first = 0;
    answer->length = answer->file.size;

    if (request->if_modified_since != -1 && answer->file.modified <= request->if_modified_since)
        answer->status = 304;
    else if (request->has_range && is_same_file(request, &answer->file))
        answer->status = choose_range(answer, request->range_first, request->range_last) ? 206 : 416;
}
/* [/choose] */

/* [put] */
/* These do as stpcpy() does: the end of the text comes back, and the next one begins there.
 * Digits are found from the last to the first. */
static char *put_number(char *to, int64_t number)
{
    char digits[sizeof "9223372036854775807"];
    char *at = digits + sizeof digits;
    *--at = '\0';
    do
        *--at = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return stpcpy(to, at);
}

/* Only letters, digits and these go through: what else is in a folder's name can neither end the
 * field, nor be taken for another host. */
static char *put_path(char *to, const char *path)
{
    static const char hex[] = "0123456789ABCDEF";
    for (; *path != '\0'; path++) {
        unsigned char c = (unsigned char)*path;
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (letter || (c >= '0' && c <= '9') || strchr("/-._~", c) != NULL) {
            *to++ = (char)c;
        } else {
            *to++ = '%';
            *to++ = hex[c / 16];
            *to++ = hex[c % 16];
        }
    }
    return to;
}
/* [/put] */

/* [date] */
/* All answers of a second have the same Date, and most files that are asked for in a row the same age. */
static const char *date_text(struct date *date, time_t time)
{
    struct tm parts;

    if ((date->text[0] == '\0' || date->time != time) && gmtime_r(&time, &parts) != NULL) {
        /* In English: a program that has not asked for another locale has this one. */
        strftime(date->text, sizeof date->text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        date->time = time;
    }
    return date->text;
}
/* [/date] */

/* [write] */
/* Clients go by the number; the words are for people, who read them in the body, too. */
static const char *status_text(int status)
{
    /* clang-format off */
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "200 OK"}, {304, "304 Not Modified"},
        {206, "206 Partial Content"}, {404, "404 Not Found"},
        {301, "301 Moved Permanently"}, {400, "400 Bad Request"},
        {403, "403 Forbidden"}, {405, "405 Method Not Allowed"},
        {408, "408 Request Timeout"}, {413, "413 Content Too Large"},
        {414, "414 URI Too Long"}, {416, "416 Range Not Satisfiable"},
        {431, "431 Request Header Fields Too Large"}, {501, "501 Not Implemented"},
        {503, "503 Service Unavailable"}, {505, "505 HTTP Version Not Supported"},
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "500 Internal Server Error";
}

/* The fields about the file. Nothing was modified later than now, though some clocks would have it so.
 * Accept-Ranges tells that a download can be resumed. A 304 is about the file that the client has: it has no
 * Content-Length. */
static char *put_file(char *to, const struct answer *answer, struct dates *dates)
{
    const struct file *file = &answer->file;
    time_t modified = file->modified < dates->now.time ? file->modified : dates->now.time;

    to = stpcpy(to, "\r\nLast-Modified: ");
    to = stpcpy(to, date_text(&dates->modified, modified > 0 ? modified : 0));
    to = stpcpy(to, "\r\nAccept-Ranges: bytes");
    if (answer->status == 304)
        return to;
    to = stpcpy(to, "\r\nContent-Type: ");
    to = stpcpy(to, file->type);
    if (answer->status == 206) {
        to = stpcpy(to, "\r\nContent-Range: bytes ");
        to = put_number(to, answer->first);
        to = stpcpy(to, "-");
        to = put_number(to, answer->first + answer->length - 1);
        to = stpcpy(to, "/");
        to = put_number(to, file->size);
    }
    to = stpcpy(to, "\r\nContent-Length: ");
    return put_number(to, answer->length);
}

/* The fields of an answer without a file, whose body is a line of text: with what the client needs to ask
 * better. Location is relative, so nobody can be led to another host. */
static char *put_refusal(char *to, const struct answer *answer, const char *text)
{
    if (answer->status == 301) {
        to = stpcpy(to, "\r\nLocation: ");
        to = put_path(to, answer->path);
        to = stpcpy(to, "/");
    } else if (answer->status == 405) {
        to = stpcpy(to, "\r\nAllow: GET, HEAD");
    } else if (answer->status == 416) {
        to = stpcpy(to, "\r\nContent-Range: bytes */");
        to = put_number(to, answer->file.size);
    }
    to = stpcpy(to, "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ");
    return put_number(to, (int64_t)strlen(text) + 1);
}

/* Connection is always said: to a client of HTTP/1.0 it is news that it may ask again. The answer to HEAD
 * tells how long the body would be, and ends before it. */
char *answer_write(char *to, const struct answer *answer, struct dates *dates)
{
    const char *text = status_text(answer->status);
    bool has_file = answer->status == 200 || answer->status == 206 || answer->status == 304;

    to = stpcpy(to, "HTTP/1.1 ");
    to = stpcpy(to, text);
    to = stpcpy(to, "\r\nDate: ");
    to = stpcpy(to, date_text(&dates->now, time(NULL)));
    to = stpcpy(to, answer->keep_alive ? "\r\nConnection: keep-alive" : "\r\nConnection: close");
    to = has_file ? put_file(to, answer, dates) : put_refusal(to, answer, text);
    to = stpcpy(to, "\r\n\r\n");
    if (!has_file && !answer->head) {
        to = stpcpy(to, text);
        to = stpcpy(to, "\n");
    }
    return to;
}
/* [/write] */
