/* http.c - reads HTTP/1.1 requests; http.h says how it is used.
 *
 * The network cuts a request where it likes, so the parser can stop behind any byte, and go on there.
 * It is a state machine: each state, a step, is one element of the grammar. A step runs over the bytes
 * that may be in its element, keeps them if they will be needed, and looks at the byte that ends it.
 * It is strict, because what two programs read differently hides a request from one of them
 * (request smuggling: RFC 9112, 11.2). Needs C11 only. */
#include "http.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* [steps] */
enum {
    START, /* before the request line: METHOD TARGET VERSION CR LF */
    METHOD,
    TARGET,
    VERSION,
    FIELD, /* before a line NAME: VALUE CR LF, or the empty line behind the last */
    NAME,
    VALUE,
    LINE_FEED,  /* between CR and LF; next_step follows */
    HEAD_READ,  /* behind the empty line; in here no byte is read */
    DATA,       /* of a body with Content-Length, or of a chunk */
    CHUNK_SIZE, /* before a line SIZE ; EXTENSION CR LF */
    CHUNK_BLANK,
    CHUNK_EXTENSION,
    CHUNK_END, /* before the CR LF behind the data of a chunk */
    COMPLETE,  /* from here on nothing is read */
    REFUSED,
};
/* [/steps] */

/* [fields] */
/* The fields that have a meaning here. The first four say to whom a request goes, and where it ends: it
 * cannot be understood without them. */
enum {
    OTHER,
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    EXPECT,
    RANGE,
    IF_RANGE,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    FIELDS,
};

/* Lists may come in several lines. Of all others the second is refused: a proxy may have gone by it. */
enum { LISTS = 1U << CONNECTION | 1U << EXPECT | 1U << IF_NONE_MATCH };

static const char *const field_names[FIELDS] = {
    "",       "host",  "content-length", "transfer-encoding", "connection",
    "expect", "range", "if-range",       "if-modified-since", "if-none-match",
};

/* Whether that field has come. */
static bool given(const struct http_request *request, int field)
{
    return (request->given & 1U << field) != 0;
}
/* [/fields] */

/* [characters] */
/* Not those of <ctype.h>: what it takes for a letter depends on the locale. */
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static bool is_letter(char c)
{
    return lower(c) >= 'a' && lower(c) <= 'z';
}

/* Names and methods are tokens (RFC 9110, 5.6.2). Most of them are of letters and hyphens. */
static bool is_token(char c)
{
    return is_letter(c) || c == '-' || is_digit(c) || (c != '\0' && strchr("!#$%&'*+.^_`|~", c) != NULL);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Bytes from 128 on are visible, too: they mean nothing to us, and harm nobody. */
static bool is_visible(char c)
{
    return (unsigned char)c > ' ' && c != '\x7f';
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    return lower(c) >= 'a' && lower(c) <= 'f' ? lower(c) - 'a' + 10 : -1;
}

/* Whether a text is this word, which is in lower case, in whatever case. */
static bool same(const char *text, size_t size, const char *word)
{
    size_t i = 0;
    while (i < size && word[i] != '\0' && lower(text[i]) == word[i])
        i++;
    return i == size && word[i] == '\0';
}
/* [/characters] */

/* [transitions] */
/* What follows here returns where to go on reading, as the steps do, so that a step can end with it. */

/* Begins a step, which has read nothing of its element yet. */
static void go(struct http_request *request, int step)
{
    request->step = step;
    request->length = 0;
}

/* At a CR: an LF must follow, and then that step. RFC 9112, 2.2 would allow to take an LF alone for the
 * end of a line; but what is one line to a proxy in front of us would then be two here. */
static const char *end_line(struct http_request *request, int next_step, const char *at)
{
    request->step = LINE_FEED;
    request->next_step = next_step;
    return at + 1;
}

/* Says no. Nothing is taken any more: where the next request would begin is not known. */
static const char *refuse(struct http_request *request, int status, const char *at)
{
    request->step = REFUSED;
    request->status = status;
    request->path[0] = '\0';
    return at;
}

/* Appends to text what is between two places of the input: the only copy that is made of it. What
 * does not fit is counted, so that length says that something is missing. */
static void keep(struct http_request *request, const char *from, const char *to)
{
    size_t size = (size_t)(to - from);
    if (request->length < HTTP_VALUE_MAX) {
        size_t room = HTTP_VALUE_MAX - request->length;
        memcpy(request->text + request->length, from, size < room ? size : room);
    }
    request->length += size;
}
/* [/transitions] */

/* [host] */
/* Whether all characters are those of a host and its port: a name as in the DNS, or an address. RFC 3986
 * would allow commas, too; but "a, b" is two hosts, which a proxy has made one field. */
static bool is_host(const char *at, const char *end)
{
    while (at < end && (is_letter(*at) || is_digit(*at) || *at == '.' || *at == ':' || *at == '-' ||
                        *at == '_' || *at == '~' || *at == '[' || *at == ']'))
        at++;
    return at == end;
}
/* [/host] */

/* [path] */
/* Returns what %XX stands for, or NUL if it is not welcome. An encoded "/" is not: it is a character of a
 * name (RFC 3986, 2.2), and no file has such a name; and decoded, "..%2f" would climb past a proxy that
 * looked for "../". Control characters are not: NUL would end the path, and LF a line in a log. */
static char unescape(const char *digits)
{
    int high = hex_digit(digits[0]);
    int low = hex_digit(digits[1]);
    int byte = high * 16 + low;
    bool welcome = high >= 0 && low >= 0 && byte >= ' ' && byte != '\x7f' && byte != '/';
    return (char)(welcome ? byte : '\0');
}

/* Whether a segment is "." or "..". Clients resolve them before they ask; who sends one wants out. */
static bool has_dot_segment(const char *path)
{
    for (const char *slash = path; slash != NULL; slash = strchr(slash + 1, '/')) {
        size_t size = strcspn(slash + 1, "/");
        if ((size == 1 || size == 2) && strncmp(slash + 1, "..", size) == 0)
            return true;
    }
    return false;
}

/* Makes the target in request->path into a path, in place, since it only becomes shorter. First decodes,
 * then looks for dots, for "%2e" is a dot, too; and decodes once, for "%252e" is none. Several
 * slashes become one: whoever opens "//etc/passwd" in a folder, without its first slash, has
 * opened an absolute path. Returns whether it is a path. */
static bool decode_target(struct http_request *request)
{
    const char *from = request->path;
    const char *end = from + request->length;
    char *to = request->path;

    if (*from != '/') { /* absolute-form: http://host/path */
        if (request->length < 7 || !same(from, 7, "http://"))
            return false;
        const char *host = from += 7;
        while (from < end && *from != '/' && *from != '?')
            from++;
        if (host == from || *host == ':' || !is_host(host, from))
            return false;
    }
    *to++ = '/';
    for (; from < end && *from != '?'; from++) {
        char c = *from;
        if (c == '%') {
            if (end - from < 3)
                return false;
            c = unescape(from + 1);
            if (c == '\0')
                return false;
            from += 2;
        }
        if (c != '/' || to[-1] != '/')
            *to++ = c;
    }
    *to = '\0';
    return !has_dot_segment(request->path);
}
/* [/path] */

/* [request_line] */
/* Some clients send an empty line behind a body, so there may be some before the request. */
static const char *read_start(struct http_request *request, const char *at)
{
    enum { EMPTY_LINES_MAX = 4 };
    if (*at == '\r' && HTTP_HEAD_MAX - request->room < 2 * EMPTY_LINES_MAX)
        return end_line(request, START, at);
    go(request, METHOD);
    return at;
}

/* A method that is not served is noted only: until the head is complete, it may still turn out to be
 * malformed, and then it is not even a request. */
static const char *read_method(struct http_request *request, const char *at, const char *end)
{
    /* Those of RFC 9110, and PATCH. The first two are served. */
    static const char *const methods[] = {"GET",     "HEAD",    "POST",  "PUT",  "DELETE",
                                          "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    const char *from = at;
    while (at < end && is_token(*at))
        at++;
    keep(request, from, at);
    if (at == end)
        return at;
    if (*at != ' ' || request->length == 0)
        return refuse(request, 400, at);

    size_t i = 0;
    size_t count = sizeof methods / sizeof *methods;
    while (i < count &&
           (strlen(methods[i]) != request->length || memcmp(methods[i], request->text, request->length) != 0))
        i++;
    request->head = i == 1;
    if (i > 1)
        request->status = i < count ? 405 : 501; /* not allowed; not known */
    go(request, TARGET);
    return at + 1;
}

/* A target must not have a "#": a fragment is the client's own. */
static bool is_target(char c)
{
    return is_visible(c) && c != '#';
}

/* The target is kept in path, and decoded there when it is complete. */
static const char *read_target(struct http_request *request, const char *at, const char *end)
{
    const char *from = at;
    size_t room = HTTP_TARGET_MAX - request->length;
    const char *limit = (size_t)(end - at) > room ? at + room : end;
    while (at < limit && is_target(*at))
        at++;
    memcpy(request->path + request->length, from, (size_t)(at - from));
    request->length += (size_t)(at - from);
    if (at == end)
        return at;
    if (is_target(*at))
        return refuse(request, 414, at);
    if (*at != ' ' || request->length == 0 || !decode_target(request))
        return refuse(request, 400, at);
    go(request, VERSION);
    return at + 1;
}

/* There is no HTTP/1.2. If there were, it could be served as 1.1 (RFC 9110, 2.5). */
static const char *read_version(struct http_request *request, const char *at, const char *end)
{
    const char *text = request->text;
    const char *from = at;
    while (at < end && is_visible(*at))
        at++;
    keep(request, from, at);
    if (at == end)
        return at;
    if (*at != '\r' || request->length != 8 || memcmp(text, "HTTP/", 5) != 0 || !is_digit(text[5]) ||
        text[6] != '.' || !is_digit(text[7]))
        return refuse(request, 400, at);
    if (text[5] != '1' || text[7] > '1')
        return refuse(request, 505, at);
    request->http11 = text[7] == '1';
    return end_line(request, FIELD, at);
}
/* [/request_line] */

/* [values] */
/* Reads decimal digits, as many as there are, and moves at behind them. Returns the number; INT64_MAX if
 * it is greater; -1 if there is no digit. */
static int64_t read_number(const char **at, const char *end)
{
    int64_t number = *at < end && is_digit(**at) ? 0 : -1;
    for (; *at < end && is_digit(**at); (*at)++) {
        int digit = **at - '0';
        number = number > (INT64_MAX - digit) / 10 ? INT64_MAX : number * 10 + digit;
    }
    return number;
}

/* Whether a word is in a list with commas. */
static bool lists(const char *at, const char *end, const char *word)
{
    while (at < end) {
        while (at < end && (is_blank(*at) || *at == ','))
            at++;
        const char *from = at;
        while (at < end && *at != ',')
            at++;
        const char *to = at;
        while (to > from && is_blank(to[-1]))
            to--;
        if (same(from, (size_t)(to - from), word))
            return true;
    }
    return false;
}

/* Takes one range of bytes. All else is ignored, as RFC 9110, 14.2 allows: the client gets the whole file. */
static void read_range(struct http_request *request, const char *at, const char *end)
{
    if (end - at < 6 || !same(at, 6, "bytes="))
        return;
    at += 6;
    int64_t first = read_number(&at, end);
    if (at == end || *at++ != '-')
        return;
    int64_t last = read_number(&at, end);
    if (at < end || (first < 0 && last < 0) || (first >= 0 && last >= 0 && last < first))
        return;
    request->has_range = true;
    request->range_first = first;
    request->range_last = last;
}
/* [/values] */

/* [date] */
/* A year of two digits is one of the last 50 years, or of the next (RFC 9110, 5.6.7). */
static int full_year(int year)
{
    int now = 1970 + (int)(time(NULL) / 31556952); /* the seconds of a year, on average */
    year += now - now % 100;
    return year > now + 50 ? year - 100 : year;
}

/* Returns the seconds since 1970, or -1 if there is no such date from then on. month is 0 to 11. */
static time_t to_time(int year, int month, int day, int hour, int minute, int second)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int month_days = before[month + 1] - before[month] + (leap && month == 1 ? 1 : 0);
    if (year < 1970 || day < 1 || day > month_days || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
        second < 0 || second > 60)
        return -1;

    int leap_days = (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400 - 477; /* 477 before 1970 */
    int64_t days = 365 * (year - 1970) + leap_days + before[month] + (leap && month > 1 ? 1 : 0) + day - 1;
    int64_t seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    time_t result = (time_t)seconds; /* which may have 32 bits only */
    return result == seconds ? result : -1;
}

/* Reads a date in one of the three formats that HTTP has had (RFC 9110, 5.6.7). Returns -1 if it is none.
 * The weekday says nothing new. strptime() would expect the names of the locale. */
static time_t read_date(const char *text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char name[4] = "";
    int year = 0, day = 0, hour = 0, minute = 0, second = 0;
    int size = 0; /* set if all matched */

    if (sscanf(text, "%*[^,], %2d %3c %4d %2d:%2d:%2d GMT%n", /* Sun, 06 Nov 1994 08:49:37 GMT */
               &day, name, &year, &hour, &minute, &second, &size) < 6) {
        if (sscanf(text, "%*[^,], %2d-%3c-%2d %2d:%2d:%2d GMT%n", /* Sunday, 06-Nov-94 08:49:37 GMT */
                   &day, name, &year, &hour, &minute, &second, &size) == 6)
            year = year < 0 ? -1 : full_year(year);
        else if (sscanf(text, "%*3c %3c %2d %2d:%2d:%2d %4d%n", /* Sun Nov  6 08:49:37 1994 */
                        name, &day, &hour, &minute, &second, &year, &size) < 6)
            return -1;
    }
    const char *month = strstr(months, name);
    if (size == 0 || text[size] != '\0' || month == NULL || (month - months) % 3 != 0)
        return -1;
    return to_time(year, (int)(month - months) / 3, day, hour, minute, second);
}
/* [/date] */

/* [take_value] */
/* We know no coding but chunked, and answer 501 to others. But if chunked is not the last, nobody can know
 * where the body ends, and the request is malformed (RFC 9112, 6.3). */
static int take_coding(struct http_request *request, const char *value, size_t size)
{
    request->chunked = same(value, size, "chunked");
    if (request->chunked)
        return 0;
    return size > 7 && same(value + size - 7, 7, "chunked") && !is_token(value[size - 8]) ? 0 : 400;
}

/* Takes what is of interest from a field that has been read. Returns 0, or the status of a refusal. */
static int take_value(struct http_request *request)
{
    const char *value = request->text;
    int field = request->field;
    if (given(request, field) && (LISTS & 1U << field) == 0)
        return 400;
    request->given |= 1U << field;
    if (request->length > HTTP_VALUE_MAX)
        return field <= CONNECTION ? 431 : 0; /* without the others the answer is only longer */

    size_t size = request->length;
    while (size > 0 && is_blank(value[size - 1]))
        size--;
    request->text[size] = '\0';
    const char *end = value + size;

    switch (field) {
    case HOST:
        return is_host(value, end) ? 0 : 400;
    case CONTENT_LENGTH:
        request->left = read_number(&value, end);
        return request->left >= 0 && value == end ? 0 : 400;
    case TRANSFER_ENCODING:
        return take_coding(request, value, size);
    case CONNECTION:
        request->close = request->close || lists(value, end, "close");
        request->persist = request->persist || lists(value, end, "keep-alive");
        return 0;
    case EXPECT:
        request->expects = request->expects || (request->http11 && lists(value, end, "100-continue"));
        return 0;
    case RANGE:
        read_range(request, value, end);
        return 0;
    case IF_RANGE:
        request->if_range = read_date(value);
        return 0;
    case IF_MODIFIED_SINCE:
        request->if_modified_since = read_date(value);
        return 0;
    default:
        return 0;
    }
}
/* [/take_value] */

/* [read_fields] */
/* A line that begins with a blank continued the one before, until RFC 7230 ended that. There are programs
 * of both kinds: one sees two fields where another sees one. So it is refused. */
static const char *read_field(struct http_request *request, const char *at)
{
    if (*at == '\r')
        return end_line(request, HEAD_READ, at);
    if (is_blank(*at))
        return refuse(request, 400, at);
    go(request, NAME);
    return at;
}

static int find_field(const char *name, size_t size)
{
    char first = lower(*name); /* tells most names apart, at once */
    int field = FIELDS - 1;
    while (field > OTHER && (field_names[field][0] != first || !same(name, size, field_names[field])))
        field--;
    return field;
}

/* The colon follows at once: "Content-Length : 5" is a length to some, and a field with another name
 * to others (RFC 9112, 5.1). */
static const char *read_name(struct http_request *request, const char *at, const char *end)
{
    const char *from = at;
    while (at < end && is_token(*at))
        at++;
    keep(request, from, at);
    if (at == end)
        return at;
    if (*at != ':' || request->length == 0)
        return refuse(request, 400, at);

    /* What a trailer says comes too late: it must not change where the request ends. */
    request->field = request->in_body ? OTHER : find_field(request->text, request->length);
    go(request, VALUE);
    return at + 1;
}

/* Blanks around a value do not belong to it. Those inside do; other control characters are nowhere. */
static const char *read_value(struct http_request *request, const char *at, const char *end)
{
    if (request->length == 0)
        while (at < end && is_blank(*at))
            at++;
    const char *from = at;
    while (at < end && (is_visible(*at) || is_blank(*at)))
        at++;
    if (request->field != OTHER)
        keep(request, from, at);
    if (at == end)
        return at;
    if (*at != '\r')
        return refuse(request, 400, at);
    int status = request->field != OTHER ? take_value(request) : 0;
    return status != 0 ? refuse(request, status, at) : end_line(request, FIELD, at);
}
/* [/read_fields] */

/* [finish_head] */
/* Decides what needs all fields. First whether the request is malformed; only then whether we serve it.
 * Two statements about the length of the body are how requests are smuggled, so they are refused even
 * where the RFC says which one counts; and HTTP/1.0 has no codings. */
static void finish_head(struct http_request *request)
{
    bool coded = given(request, TRANSFER_ENCODING);
    bool has_body = coded || request->left > 0;

    if ((request->http11 && !given(request, HOST)) ||
        (coded && (given(request, CONTENT_LENGTH) || !request->http11)))
        request->status = 400;
    else if (request->status == 0 && coded && !request->chunked)
        request->status = 501;
    else if (request->status == 0 && request->left > HTTP_BODY_MAX)
        request->status = 413;
    if (request->status != 0) {
        refuse(request, request->status, NULL);
        return;
    }
    request->keep_alive = !request->close && (request->http11 || request->persist);
    if (request->head || (given(request, IF_RANGE) && request->if_range == -1))
        request->has_range = false; /* If-Range with an entity tag: we give out none, so it is not ours */
    if (given(request, IF_NONE_MATCH))
        request->if_modified_since = -1; /* RFC 9110, 13.1.3 */
    if (has_body && request->expects) {
        request->keep_alive = false; /* the client sends the body when it likes, or never */
        has_body = false;
    }
    request->in_body = true;
    request->room = HTTP_BODY_MAX;
    go(request, coded ? CHUNK_SIZE : DATA);
    if (!has_body)
        request->step = COMPLETE;
}
/* [/finish_head] */

/* [body] */
/* A body is thrown away, but its end has to be found: there the next request begins. */
static const char *read_data(struct http_request *request, const char *at, const char *end)
{
    int64_t size = end - at < request->left ? end - at : request->left;
    request->left -= size;
    if (request->left == 0)
        request->step = request->chunked ? CHUNK_END : COMPLETE;
    return at + size;
}

/* A size is refused when it becomes too large, so it cannot overflow. All chunks together are
 * limited as the body is, by request->room. */
static const char *read_chunk_size(struct http_request *request, const char *at)
{
    int digit = hex_digit(*at);
    if (digit >= 0) {
        request->left = request->left * 16 + digit;
        request->length++;
        return request->left > HTTP_BODY_MAX ? refuse(request, 413, at) : at + 1;
    }
    if (request->length == 0)
        return refuse(request, 400, at);
    go(request, CHUNK_BLANK);
    return at;
}

/* Behind the size: "5 ; name=value". An extension is passed over, whatever it says, up to its CR. An LF alone
 * in it is what some programs take for the end of the line, so it is refused. Blanks without an
 * extension are none of the grammar's. */
static const char *read_chunk_line(struct http_request *request, const char *at)
{
    if (*at == '\r' && (request->step == CHUNK_EXTENSION || request->length == 0))
        return end_line(request, request->left == 0 ? FIELD : DATA, at);
    if (*at == ';')
        request->step = CHUNK_EXTENSION;
    else if (!is_blank(*at) && (request->step == CHUNK_BLANK || !is_visible(*at)))
        return refuse(request, 400, at);
    request->length++;
    return at + 1;
}
/* [/body] */

/* [advance] */
/* Reads at least one byte, or makes a step without one. Returns where to go on. */
static const char *advance(struct http_request *request, const char *at, const char *end)
{
    switch (request->step) {
    case START:
        return read_start(request, at);
    case METHOD:
        return read_method(request, at, end);
    case TARGET:
        return read_target(request, at, end);
    case VERSION:
        return read_version(request, at, end);
    case FIELD:
        return read_field(request, at);
    case NAME:
        return read_name(request, at, end);
    case VALUE:
        return read_value(request, at, end);
    case DATA:
        return read_data(request, at, end);
    case CHUNK_SIZE:
        return read_chunk_size(request, at);
    case CHUNK_BLANK:
    case CHUNK_EXTENSION:
        return read_chunk_line(request, at);
    case CHUNK_END:
        return *at == '\r' ? end_line(request, CHUNK_SIZE, at) : refuse(request, 400, at);
    default: /* LINE_FEED */
        if (*at != '\n')
            return refuse(request, 400, at);
        go(request, request->next_step);
        return at + 1;
    }
}
/* [/advance] */

/* [http_feed] */
void http_begin(struct http_request *request)
{
    memset(request, 0, offsetof(struct http_request, path));
    request->step = START;
    request->room = HTTP_HEAD_MAX;
    request->if_range = -1;
    request->if_modified_since = -1;
    request->path[0] = '\0';
}

/* A step gets no more than there is room for, so that none has to look at the limits of head and body. */
enum http_state http_feed(struct http_request *request, const char *data, size_t size, size_t *used)
{
    *used = 0;
    while (*used < size && request->step < COMPLETE) {
        const char *at = data + *used;
        size_t piece = size - *used < request->room ? size - *used : request->room;
        const char *next =
            piece > 0 ? advance(request, at, at + piece) : refuse(request, request->in_body ? 413 : 431, at);
        request->room -= (size_t)(next - at);
        *used += (size_t)(next - at);
        if (request->step == HEAD_READ && request->in_body)
            request->step = COMPLETE; /* these were the trailers */
        else if (request->step == HEAD_READ)
            finish_head(request);
    }
    if (request->step == COMPLETE)
        return HTTP_REQUEST;
    return request->step == REFUSED ? HTTP_REFUSED : HTTP_MORE;
}
/* [/http_feed] */
