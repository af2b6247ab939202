/* HTTP/1.1 as far as one question and one answer need it: no reuse, no redirects. The answer is
 * gathered whole, within a bound, and taken apart only once it is complete; its end is told by
 * Content-Length, by the last chunk, or by the end of the stream. */
#include "tools/client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"

enum {
    ANSWER_MAX_BYTES = 64 * 1024 * 1024,
    READ_STEP = 64 * 1024,
    BUSY_PAUSE_MS = 10,
};

/* ---- the connection ---- */

static bool too_late(struct error *err)
{
    return error_set(err, ERROR_RETRY, "the engine has not answered in time");
}

static bool wait_for(int fd, short events, int64_t deadline, struct error *err)
{
    for (;;) {
        int64_t left_ms = (deadline - clock_mono_us() + 999) / 1000;
        if (left_ms <= 0)
            return too_late(err);
        struct pollfd p = {.fd = fd, .events = events};
        int ready = poll(&p, 1, left_ms > 1000 ? 1000 : (int)left_ms);
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return error_set(err, ERROR_SYSTEM, "poll: %s", strerror(errno));
    }
}

static bool connect_failed(const char *path, struct error *err)
{
    bool nobody = errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR;
    bool denied = errno == EACCES || errno == EPERM;
    if (nobody)
        return error_set(err, ERROR_CONNECT, "no engine is running (nobody answers on %s)",
                         path);
    return error_set(err, denied ? ERROR_CONFIG : ERROR_SYSTEM, "connect to %s: %s", path,
                     strerror(errno));
}

/* A full queue of an engine that is busy is worth waiting for. */
static bool open_stream(const char *path, int64_t deadline, int *fd, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return error_set(err, ERROR_CONFIG, "the path of the control socket is too long: %s",
                         path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return error_set(err, ERROR_SYSTEM, "socket: %s", strerror(errno));
    while (connect(*fd, (const void *)&address, sizeof address) != 0) {
        if (errno != EAGAIN && errno != EINTR)
            return connect_failed(path, err);
        if (clock_mono_us() >= deadline)
            return too_late(err);
        (void)poll(NULL, 0, BUSY_PAUSE_MS);
    }
    return true;
}

static bool send_all(int fd, struct bytes data, int64_t deadline, struct error *err)
{
    while (data.len > 0) {
        TRY(wait_for(fd, POLLOUT, deadline, err));
        ssize_t sent = send(fd, data.data, data.len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return error_set(err, ERROR_RETRY, "the engine went away: %s", strerror(errno));
        if (sent > 0) {
            data.data += sent;
            data.len -= (size_t)sent;
        }
    }
    return true;
}

static bool receive(int fd, struct writer *answer, int64_t deadline, bool *end,
                    struct error *err)
{
    TRY(wait_for(fd, POLLIN, deadline, err));
    ssize_t got = recv(fd, writer_room(answer, READ_STEP), READ_STEP, 0);
    if (got < 0 && errno != EAGAIN && errno != EINTR)
        return error_set(err, ERROR_RETRY, "the engine went away: %s", strerror(errno));
    *end = got == 0;
    answer->len += got > 0 ? (size_t)got : 0;
    if (answer->len > ANSWER_MAX_BYTES)
        return error_set(err, ERROR_DATA, "the answer is longer than %d bytes",
                         ANSWER_MAX_BYTES);
    return true;
}

/* ---- the answer ---- */

struct head {
    int code;
    bool chunked;
    bool has_length;
    size_t length;
    size_t size; /* Bytes of the head with the blank line; 0: not all there yet. */
};

static bool bad_answer(struct error *err)
{
    return error_set(err, ERROR_DATA, "the answer is not HTTP");
}

static unsigned digit_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - (unsigned)'0';
    c |= 0x20; /* Lower case. */
    return c >= 'a' && c <= 'f' ? c - (unsigned)'a' + 10 : UINT_MAX;
}

/* Digits only, and at most what an answer may have. */
static bool parse_size(struct bytes text, unsigned base, size_t *value)
{
    size_t total = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = digit_of(text.data[i]);
        if (digit >= base || total > ANSWER_MAX_BYTES)
            return false;
        total = total * base + digit;
    }
    *value = total;
    return text.len > 0 && total <= ANSWER_MAX_BYTES;
}

/* The next line without its CR LF. False: it is not complete. */
static bool next_line(struct reader *r, struct bytes *line)
{
    const uint8_t *newline = memchr(r->at, '\n', reader_left(r));
    if (newline == NULL)
        return false;
    *line = reader_take(r, (size_t)(newline - r->at) + 1);
    line->len--;
    if (line->len > 0 && line->data[line->len - 1] == '\r')
        line->len--;
    return true;
}

static bool parse_status_line(struct bytes line, struct head *head)
{
    static const char version[] = "HTTP/1.";
    const size_t at = sizeof version + 1; /* "HTTP/1.1 200…" */
    size_t code = 0;
    if (line.len < at + 3 || memcmp(line.data, version, sizeof version - 1) != 0 ||
        !parse_size((struct bytes){line.data + at, 3}, 10, &code))
        return false;
    head->code = (int)code;
    return code >= 200 && code <= 599;
}

static bool parse_header(struct bytes line, struct head *head)
{
    const uint8_t *colon = memchr(line.data, ':', line.len);
    if (colon == NULL)
        return false;
    size_t name = (size_t)(colon - line.data);
    struct bytes value = {colon + 1, line.len - name - 1};
    while (value.len > 0 && (value.data[0] == ' ' || value.data[0] == '\t'))
        value = (struct bytes){value.data + 1, value.len - 1};
    while (value.len > 0 && value.data[value.len - 1] == ' ')
        value.len--;
    const char *key = (const char *)line.data;
    if (name == strlen("Content-Length") && strncasecmp(key, "Content-Length", name) == 0) {
        head->has_length = true;
        return parse_size(value, 10, &head->length);
    }
    if (name == strlen("Transfer-Encoding") &&
        strncasecmp(key, "Transfer-Encoding", name) == 0) {
        head->chunked = true;
        return value.len == 7 && strncasecmp((const char *)value.data, "chunked", 7) == 0;
    }
    return true;
}

static bool parse_head(struct bytes answer, struct head *head, struct error *err)
{
    struct reader r = reader_of(answer);
    struct bytes line;
    *head = (struct head){0};
    struct head found = {0};
    if (!next_line(&r, &line))
        return true;
    if (!parse_status_line(line, &found))
        return bad_answer(err);
    while (next_line(&r, &line)) {
        if (line.len == 0) {
            found.size = answer.len - reader_left(&r);
            *head = found;
            return true;
        }
        if (!parse_header(line, &found))
            return bad_answer(err);
    }
    return true;
}

/* Walks the chunks in `data`, appending them to `out` unless it is NULL. *complete says whether
 * the last one was seen. */
static bool walk_chunks(struct bytes data, struct writer *out, bool *complete,
                        struct error *err)
{
    struct reader r = reader_of(data);
    struct bytes line;
    *complete = false;
    while (next_line(&r, &line)) {
        const uint8_t *extension = line.len == 0 ? NULL : memchr(line.data, ';', line.len);
        if (extension != NULL)
            line.len = (size_t)(extension - line.data);
        size_t size = 0;
        if (!parse_size(line, 16, &size))
            return bad_answer(err);
        if (size == 0) {
            *complete = true; /* Trailers say nothing to us. */
            return true;
        }
        if (reader_left(&r) < size + 2)
            return true;
        struct bytes chunk = reader_take(&r, size);
        if (!bytes_equal(reader_take(&r, 2), BYTES("\r\n")))
            return bad_answer(err);
        if (out != NULL)
            writer_bytes(out, chunk);
    }
    return true;
}

static bool is_complete(struct bytes answer, const struct head *head, bool *complete,
                        struct error *err)
{
    *complete = false;
    if (head->size == 0)
        return true;
    struct bytes rest = {answer.data + head->size, answer.len - head->size};
    if (head->chunked)
        return walk_chunks(rest, NULL, complete, err);
    *complete = head->has_length && rest.len >= head->length;
    return true;
}

static bool gather(int fd, struct writer *answer, struct head *head, int64_t deadline,
                   struct error *err)
{
    bool complete = false;
    while (!complete) {
        bool end = false;
        TRY(receive(fd, answer, deadline, &end, err));
        if (head->size == 0)
            TRY(parse_head(writer_view(answer), head, err));
        TRY(is_complete(writer_view(answer), head, &complete, err));
        bool until_end = head->size > 0 && !head->chunked && !head->has_length;
        if (end && !complete && !until_end)
            return error_set(err, ERROR_RETRY,
                             "the engine went away in the middle of an answer");
        complete = complete || end;
    }
    return true;
}

static bool ask(int fd, const char *method, const char *path, int64_t deadline,
                struct error *err)
{
    cleanup_with(writer_release) struct writer request = {0};
    writer_printf(&request,
                  "%s %s HTTP/1.1\r\nHost: teal\r\nConnection: close\r\n"
                  "Content-Length: 0\r\n\r\n",
                  method, path);
    return send_all(fd, writer_view(&request), deadline, err);
}

bool client_call(const char *socket_path, const char *method, const char *path,
                 int64_t timeout_us, int *code, struct writer *body, struct error *err)
{
    int64_t deadline = clock_mono_us() + timeout_us;
    cleanup_with(file_close) int fd = -1;
    cleanup_with(writer_release) struct writer answer = {0};
    struct head head = {0};
    TRY(open_stream(socket_path, deadline, &fd, err));
    TRY(ask(fd, method, path, deadline, err));
    TRY(gather(fd, &answer, &head, deadline, err));
    struct bytes rest = {answer.data + head.size, answer.len - head.size};
    *code = head.code;
    if (head.chunked) {
        bool complete;
        return walk_chunks(rest, body, &complete, err);
    }
    if (head.has_length)
        rest.len = head.length;
    writer_bytes(body, rest);
    return true;
}
