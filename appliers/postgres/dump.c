/* Cutting pg_dump's script.
 *
 * A header counts only where a statement could begin: outside of quotes, dollar quotes and
 * comments, at the start of a line, after a semicolon. A function's body may hold a dump. */
#include "appliers/postgres/dump.h"

#include <string.h>

struct splitter {
    const char *at;
    const char *end;
    const char *start; /* Of the whole script. */
    struct arena *arena;
    struct writer text; /* Of the entry at hand. */
    size_t settings;    /* How much of it is settings. */
    struct bytes tablespace;
    struct bytes method;
    struct dump *out;
    size_t size; /* Entries there is room for. */
};

static struct bytes span(const char *from, const char *to)
{
    return (struct bytes){(const uint8_t *)from, (size_t)(to - from)};
}

static bool starts_with(const char *at, const char *end, const char *with)
{
    size_t len = strlen(with);
    return (size_t)(end - at) >= len && memcmp(at, with, len) == 0;
}

/* Behind the newline. */
static const char *line_end(const char *at, const char *end)
{
    const char *newline = at == end ? NULL : memchr(at, '\n', (size_t)(end - at));
    return newline == NULL ? end : newline + 1;
}

static const char *keep_text(struct arena *arena, struct bytes b)
{
    char *text = arena_array(arena, char, b.len + 1);
    if (b.len > 0)
        memcpy(text, b.data, b.len);
    return text;
}

/* ---- tokens: each gives the place behind it, or NULL if it does not end ---- */

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '_' || (c & 0x80) != 0;
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static const char *skip_quoted(const char *at, const char *end, bool escapes)
{
    char mark = *at++;
    while (at < end) {
        if (escapes && *at == '\\' && at + 1 < end)
            at += 2;
        else if (*at != mark)
            at++;
        else if (at + 1 < end && at[1] == mark)
            at += 2;
        else
            return at + 1;
    }
    return NULL;
}

/* $tag$ … $tag$. A parameter ($1) or a lone dollar is one character. */
static const char *skip_dollar(const char *at, const char *end)
{
    const char *tag_end = at + 1;
    if (tag_end < end && *tag_end >= '0' && *tag_end <= '9')
        return tag_end;
    while (tag_end < end && is_word(*tag_end))
        tag_end++;
    if (tag_end == end || *tag_end != '$')
        return at + 1;
    size_t len = (size_t)(tag_end + 1 - at);
    const char *close = memmem(tag_end + 1, (size_t)(end - tag_end - 1), at, len);
    return close == NULL ? NULL : close + len;
}

static const char *skip_comment(const char *at, const char *end)
{
    size_t depth = 0;
    while (at < end) {
        if (starts_with(at, end, "/*")) {
            depth++;
            at += 2;
        } else if (starts_with(at, end, "*/")) {
            at += 2;
            if (--depth == 0)
                return at;
        } else {
            at++;
        }
    }
    return NULL;
}

/* A word is taken whole, so that what is glued to it (E'…', a$b$) is seen for what it is. */
static const char *skip_word(const char *at, const char *end)
{
    const char *from = at;
    while (at < end && (is_word(*at) || (*at == '$' && at > from)))
        at++;
    if (at - from == 1 && (*from == 'E' || *from == 'e') && at < end && *at == '\'')
        return skip_quoted(at, end, true);
    return at;
}

static const char *skip_token(const char *at, const char *end)
{
    if (starts_with(at, end, "--"))
        return line_end(at, end);
    if (starts_with(at, end, "/*"))
        return skip_comment(at, end);
    if (*at == '\'' || *at == '"')
        return skip_quoted(at, end, false);
    if (*at == '$')
        return skip_dollar(at, end);
    if (is_word(*at))
        return skip_word(at, end);
    return at + 1;
}

static bool is_blank_token(const char *at, const char *end)
{
    return is_space(*at) || starts_with(at, end, "--") || starts_with(at, end, "/*");
}

/* ---- entries ---- */

/* What has been gathered is the entry at hand, or the preamble. */
static void end_entry(struct splitter *s)
{
    const char *sql = keep_text(s->arena, writer_view(&s->text));
    if (s->out->count == 0) {
        s->out->preamble = sql;
    } else {
        struct dump_entry *e = &s->out->entries[s->out->count - 1];
        e->sql = sql;
        e->body = sql + s->settings;
    }
    writer_clear(&s->text);
}

static struct dump_entry *new_entry(struct splitter *s)
{
    if (s->out->count == s->size) {
        size_t size = s->size == 0 ? 64 : s->size * 2;
        struct dump_entry *grown = arena_array(s->arena, struct dump_entry, size);
        if (s->out->count > 0)
            memcpy(grown, s->out->entries, s->out->count * sizeof *grown);
        s->out->entries = grown;
        s->size = size;
    }
    return &s->out->entries[s->out->count++];
}

static void begin_entry(struct splitter *s)
{
    writer_bytes(&s->text, s->tablespace);
    writer_bytes(&s->text, s->method);
    s->settings = s->text.len;
}

/* The last place of `mark` in [from, to). */
static const char *find_last(const char *from, const char *to, const char *mark)
{
    size_t len = strlen(mark);
    for (const char *at = to; at >= from + len; at--)
        if (memcmp(at - len, mark, len) == 0)
            return at - len;
    return NULL;
}

/* "-- Name: orders; Type: TABLE; Schema: public; Owner: bob[; Tablespace: fast]". A name may
 * hold any of the marks, so it is read from the right. */
static bool parse_header(struct splitter *s, const char *from, const char *to)
{
    static const char name_mark[] = "-- Name: ";
    if (!starts_with(from, to, name_mark))
        return false;
    from += strlen(name_mark);
    const char *owner = find_last(from, to, "; Owner: ");
    const char *schema = owner == NULL ? NULL : find_last(from, owner, "; Schema: ");
    const char *type = schema == NULL ? NULL : find_last(from, schema, "; Type: ");
    if (type == NULL)
        return false;
    end_entry(s);
    struct dump_entry *e = new_entry(s);
    const char *tablespace = find_last(owner, to, "; Tablespace: ");
    e->name = keep_text(s->arena, span(from, type));
    e->type = keep_text(s->arena, span(type + strlen("; Type: "), schema));
    e->schema = keep_text(s->arena, span(schema + strlen("; Schema: "), owner));
    e->owner = keep_text(
        s->arena, span(owner + strlen("; Owner: "), tablespace == NULL ? to : tablespace));
    begin_entry(s);
    return true;
}

/* Three lines: "--", the header, "--". */
static bool take_header(struct splitter *s)
{
    const char *header = s->at + strlen("--\n");
    if (!starts_with(s->at, s->end, "--\n"))
        return false;
    const char *below = line_end(header, s->end);
    if (!starts_with(below, s->end, "--\n") || !parse_header(s, header, below - 1))
        return false;
    s->at = below + strlen("--\n");
    return true;
}

/* Where a statement may begin: a header, or a line that is for psql or for later entries. */
static bool take_line(struct splitter *s)
{
    if (take_header(s))
        return true;
    const char *next = line_end(s->at, s->end);
    if (starts_with(s->at, s->end, "SET default_tablespace"))
        s->tablespace = span(s->at, next);
    else if (starts_with(s->at, s->end, "SET default_table_access_method"))
        s->method = span(s->at, next);
    else if (*s->at != '\\' && !starts_with(s->at, s->end, "SET transaction_timeout"))
        return false;
    s->at = next;
    return true;
}

static bool split(struct splitter *s, struct error *err)
{
    bool between = true; /* No statement has begun. */
    while (s->at < s->end) {
        bool at_line = s->at == s->start || s->at[-1] == '\n';
        if (between && at_line && take_line(s))
            continue;
        const char *next = skip_token(s->at, s->end);
        if (next == NULL)
            return error_set(err, ERROR_DATA, "pg_dump's output ends inside a quote (%s)",
                             s->out->count == 0 ? "before the first entry"
                                                : s->out->entries[s->out->count - 1].name);
        between = *s->at == ';' || (between && is_blank_token(s->at, s->end));
        writer_bytes(&s->text, span(s->at, next));
        s->at = next;
    }
    end_entry(s);
    return true;
}

bool dump_split(struct bytes script, struct arena *arena, struct dump *out, struct error *err)
{
    *out = (struct dump){.preamble = ""};
    if (script.len == 0)
        return true;
    const char *text = (const char *)script.data;
    struct splitter s = {
        .at = text, .end = text + script.len, .start = text, .arena = arena, .out = out};
    bool ok = split(&s, err);
    writer_release(&s.text);
    return ok;
}

/* ---- what an entry is on ---- */

/* Up to the next space outside of quotes. */
static struct bytes next_word(const char **at, const char *end)
{
    while (*at < end && (is_space(**at) || starts_with(*at, end, "--"))) {
        *at = is_space(**at) ? *at + 1 : line_end(*at, end);
    }
    const char *from = *at;
    while (*at < end && !is_space(**at)) {
        const char *next = skip_token(*at, end);
        *at = next == NULL ? end : next;
    }
    return span(from, *at);
}

struct bytes dump_entry_table(const struct dump_entry *entry, bool *only)
{
    *only = false;
    bool index = strcmp(entry->type, "INDEX") == 0;
    if (!index && strcmp(entry->type, "CONSTRAINT") != 0 &&
        strcmp(entry->type, "CHECK CONSTRAINT") != 0)
        return (struct bytes){0};
    const char *at = entry->body;
    const char *end = at + strlen(at);
    struct bytes verb = next_word(&at, end);
    struct bytes word = next_word(&at, end);
    if (!index && (!bytes_equal(verb, BYTES("ALTER")) || !bytes_equal(word, BYTES("TABLE"))))
        return (struct bytes){0};
    while (index && word.len > 0 && !bytes_equal(word, BYTES("ON")))
        word = next_word(&at, end);
    word = next_word(&at, end);
    if (!bytes_equal(word, BYTES("ONLY")))
        return word;
    *only = index;
    return next_word(&at, end);
}
