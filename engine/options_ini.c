/* inih splits the pairs and strips their comments. The lines are ours, because inih as packaged
 * does not hand on line numbers, does not report empty sections, cuts section names at 49 bytes
 * and takes the rest of an overlong line for a line of its own: each would let a wrong
 * configuration pass for a right one. */
#include "engine/options_ini.h"

#include <ini.h>

#include "engine/base/writer.h"

enum { LINE_MAX_BYTES = 16 * 1024 };

/* Debian's build has its limits as variables; where it has not, this is NULL and the reader
 * refuses what does not fit into the buffer it is given. */
extern int ini_max_line __attribute__((weak)); /* NOLINT(readability-redundant-declaration) */

struct lines {
    struct bytes left;
    struct ini_sink *sink;
    struct error *err;
    struct writer head;
    bool open; /* inih has a line of which it has not yet said what it is. */
    bool failed;
};

static bool is_blank(uint8_t c) { return c == ' ' || c == '\t' || c == '\r'; }

static struct bytes trim(struct bytes b)
{
    while (b.len > 0 && is_blank(b.data[0]))
        b = (struct bytes){b.data + 1, b.len - 1};
    while (b.len > 0 && is_blank(b.data[b.len - 1]))
        b.len--;
    return b;
}

static bool has_control(struct bytes b)
{
    for (size_t i = 0; i < b.len; i++)
        if ((b.data[i] < ' ' && b.data[i] != '\t') || b.data[i] == 0x7f)
            return true;
    return false;
}

static struct bytes next_raw(struct lines *l)
{
    static const struct bytes mark = BYTES_INIT("\xEF\xBB\xBF");
    const uint8_t *end = memchr(l->left.data, '\n', l->left.len);
    size_t len = end == NULL ? l->left.len : (size_t)(end - l->left.data);
    struct bytes line = {l->left.data, len};
    size_t used = len + (end != NULL);
    l->left = (struct bytes){l->left.data + used, l->left.len - used};
    if (l->sink->line++ == 0 && line.len >= mark.len &&
        memcmp(line.data, mark.data, mark.len) == 0)
        line = (struct bytes){line.data + mark.len, line.len - mark.len};
    return trim(line);
}

/* The bracket that closes a head, which may have quoted ones before it. */
static size_t head_end(struct bytes line)
{
    uint8_t quote = 0;
    for (size_t i = 1; i < line.len; i++) {
        uint8_t c = line.data[i];
        if (quote != 0)
            quote = c == quote ? 0 : quote;
        else if (c == '"' || c == '`')
            quote = c;
        else if (c == ']')
            return i;
    }
    return line.len;
}

static bool take_section(struct lines *l, struct bytes line)
{
    size_t end = head_end(line);
    if (end == line.len)
        return error_set(l->err, ERROR_CONFIG, "a section needs a closing \"]\"");
    struct bytes after = trim((struct bytes){line.data + end + 1, line.len - end - 1});
    if (after.len > 0 && after.data[0] != ';' && after.data[0] != '#')
        return error_set(l->err, ERROR_CONFIG, "more text after the section's \"]\"");
    writer_clear(&l->head);
    writer_bytes(&l->head, trim((struct bytes){line.data + 1, end - 1}));
    return l->sink->section(l->sink, writer_cstr(&l->head), l->err);
}

/* Never repeats the line: it may hold a password. */
static bool not_a_pair(struct error *err)
{
    (void)error_set(err, ERROR_CONFIG, "neither a section nor a pair");
    return error_hint(err, "expected: [section], key = value, or a comment after \";\"");
}

/* True and *pair is one for inih; or false at the end or after a failure. */
static bool next_pair(struct lines *l, struct bytes *pair)
{
    while (!l->failed && l->left.len > 0) {
        struct bytes line = next_raw(l);
        *pair = line;
        if (line.len == 0 || line.data[0] == ';' || line.data[0] == '#')
            continue;
        if (has_control(line))
            l->failed = !error_set(l->err, ERROR_CONFIG, "a control character");
        else if (line.data[0] == '[')
            l->failed = !take_section(l, line);
        else if (memchr(line.data, '=', line.len) == NULL)
            l->failed = !not_a_pair(l->err);
        else
            return true;
    }
    return false;
}

static bool close_line(struct lines *l)
{
    if (l->open && !l->failed)
        l->failed = !not_a_pair(l->err);
    l->open = false;
    return !l->failed;
}

static char *read_line(char *out, int room, void *context)
{
    struct lines *l = context;
    struct bytes pair = {0};
    if (!close_line(l) || !next_pair(l, &pair))
        return NULL;
    if (pair.len + sizeof "\n" > (size_t)room) {
        l->failed = !error_set(l->err, ERROR_CONFIG, "the line is longer than %d bytes",
                               room - (int)sizeof "\n");
        return NULL;
    }
    memcpy(out, pair.data, pair.len);
    memcpy(out + pair.len, "\n", sizeof "\n");
    l->open = true;
    return out;
}

static int take_pair(void *context, const char *section, const char *key, const char *value)
{
    struct lines *l = context;
    (void)section;
    l->open = false;
    if (!l->failed)
        l->failed = !l->sink->pair(l->sink, key, value, l->err);
    return !l->failed;
}

bool ini_read(struct bytes text, struct ini_sink *sink, struct error *err)
{
    struct lines l = {.left = text, .sink = sink, .err = err};
    sink->line = 0;
    if (&ini_max_line != NULL)
        ini_max_line = LINE_MAX_BYTES;
    int status = ini_parse_stream(read_line, &l, take_pair, &l);
    writer_release(&l.head);
    check(status >= 0); /* Out of memory. */
    return close_line(&l);
}
