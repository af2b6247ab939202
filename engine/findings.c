#include "engine/findings.h"

#include <jansson.h>
#include <stdarg.h>

static const char *const names[] = {"error", "warning", "info"};

/* ---- collecting ---- */

static const char *text_of(struct findings *f, const char *fmt, va_list args) printf_like(2, 0);

static const char *text_of(struct findings *f, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, fmt, args);
    check(need >= 0);
    char *text = arena_array(&f->arena, char, (size_t)need + 1);
    (void)vsnprintf(text, (size_t)need + 1, fmt, again);
    va_end(again);
    return text;
}

const char *findings_text(struct findings *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const char *text = text_of(f, fmt, args);
    va_end(args);
    return text;
}

void finding_add(struct findings *f, enum severity severity, const char *code,
                 const char *object, const char *fmt, ...)
{
    struct finding *finding = arena_new(&f->arena, struct finding);
    va_list args;
    va_start(args, fmt);
    finding->text = text_of(f, fmt, args);
    va_end(args);
    finding->severity = severity;
    finding->code = code;
    finding->object = findings_text(f, "%s", object);
    finding->fix = "";
    if (f->first[severity] == NULL)
        f->first[severity] = finding;
    else
        f->last[severity]->next = finding;
    f->last[severity] = finding;
    f->newest = finding;
    f->count[severity]++;
}

void finding_fix(struct findings *f, const char *fmt, ...)
{
    check(f->newest != NULL);
    va_list args;
    va_start(args, fmt);
    f->newest->fix = text_of(f, fmt, args);
    va_end(args);
}

void findings_free(struct findings *f)
{
    arena_clear(&f->arena);
    *f = (struct findings){0};
}

/* ---- for people ---- */

enum { TEXT_WIDTH = 92, INDENT = 4 };

static const char *const headings[] = {"errors", "warnings", "notes"};
static const char *const colours[] = {"\033[31m", "\033[33m", "\033[36m"};

/* The text in lines of TEXT_WIDTH, broken at spaces; later lines stand under the first. */
static void print_wrapped(const char *lead, const char *text, FILE *out)
{
    size_t start = INDENT + strlen(lead);
    size_t at = start;
    fprintf(out, "%*s%s", INDENT, "", lead);
    while (*text != '\0') {
        size_t word = strcspn(text, " ");
        if (at > start && at + 1 + word > TEXT_WIDTH) {
            fprintf(out, "\n%*s", (int)start, "");
            at = start;
        } else if (at > start) {
            fputc(' ', out);
            at++;
        }
        fprintf(out, "%.*s", (int)word, text);
        at += word;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

/* A fix is copied by people: it stays in one line. */
static void print_finding(const struct finding *finding, int width, bool colour, FILE *out)
{
    fprintf(out, "  %s%-*s%s  %s\n", colour ? colours[finding->severity] : "", width,
            finding->code, colour ? "\033[0m" : "", finding->object);
    print_wrapped("", finding->text, out);
    if (finding->fix[0] != '\0')
        fprintf(out, "%*sfix: %s\n", INDENT, "", finding->fix);
}

static int code_width(const struct findings *f)
{
    size_t width = 0;
    for (size_t s = 0; s < SEVERITY_COUNT; s++)
        for (const struct finding *x = f->first[s]; x != NULL; x = x->next)
            width = strlen(x->code) > width ? strlen(x->code) : width;
    return (int)width;
}

static void print_bytes(const char *label, int64_t bytes, const char *tail, FILE *out)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    if (bytes == UNKNOWN_SIZE) {
        fprintf(out, "  %-16s unknown\n", label);
        return;
    }
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < array_count(units); unit++)
        value /= 1024;
    fprintf(out, "  %-16s %.*f %s%s\n", label, unit == 0 ? 0 : 1, value, units[unit], tail);
}

static void print_seconds(const char *label, int64_t seconds, const char *tail, FILE *out)
{
    if (seconds == UNKNOWN_SIZE)
        fprintf(out, "  %-16s unknown\n", label);
    else if (seconds < 120)
        fprintf(out, "  %-16s %lld s%s\n", label, (long long)seconds, tail);
    else if (seconds < 7200)
        fprintf(out, "  %-16s %lld min%s\n", label, (long long)seconds / 60, tail);
    else if (seconds < 172800)
        fprintf(out, "  %-16s %lld h%s\n", label, (long long)seconds / 3600, tail);
    else
        fprintf(out, "  %-16s %lld days%s\n", label, (long long)seconds / 86400, tail);
}

static void print_sizes(const struct sizes *s, FILE *out)
{
    fprintf(out, "sizes\n");
    if (s->tables != UNKNOWN_SIZE)
        fprintf(out, "  %-16s %lld, about %lld rows\n", "tables", (long long)s->tables,
                (long long)(s->rows_estimate < 0 ? 0 : s->rows_estimate));
    print_bytes("data", s->bytes, "", out);
    print_bytes("indexes", s->index_bytes, "", out);
    print_seconds("copy", s->copy_seconds_estimate, ", estimated", out);
    print_bytes("blue's log", s->wal_bytes_per_second, "/s, sampled", out);
    print_bytes("spool, free", s->spool_free_bytes, "", out);
    print_seconds("spool, full in", s->spool_seconds_until_full,
                  " at that rate if nothing were applied, estimated", out);
}

void findings_print(const struct findings *f, const struct sizes *s, bool colour, FILE *out)
{
    int width = code_width(f);
    for (size_t i = 0; i < SEVERITY_COUNT; i++) {
        if (f->count[i] == 0)
            continue;
        fprintf(out, "%s%s (%zu)%s\n", colour ? "\033[1m" : "", headings[i], f->count[i],
                colour ? "\033[0m" : "");
        for (const struct finding *x = f->first[i]; x != NULL; x = x->next)
            print_finding(x, width, colour, out);
        fputc('\n', out);
    }
    print_sizes(s, out);
    fprintf(out, "\n%s\n",
            findings_ok(f) ? "ok: nothing found that would break the migration"
                           : "not ok: mend the errors above, then check again");
}

/* ---- for programs ---- */

static json_t *number(int64_t value)
{
    return value == UNKNOWN_SIZE ? json_null() : json_integer(value);
}

/* Names in a database need not be UTF-8; what is not reads as "?". */
static json_t *text_json(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    char plain[1024];
    size_t len = 0;
    for (; *text != '\0' && len + 1 < sizeof plain; text++)
        plain[len++] = *text;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)plain[i] >= 0x80)
            plain[i] = '?';
    return json_stringn(plain, len);
}

static void set(json_t *object, const char *key, json_t *value)
{
    check(json_object_set_new(object, key, value) == 0);
}

static json_t *findings_json(const struct findings *f)
{
    json_t *list = json_array();
    for (size_t i = 0; i < SEVERITY_COUNT; i++) {
        for (const struct finding *x = f->first[i]; x != NULL; x = x->next) {
            json_t *o = json_object();
            set(o, "severity", json_string(names[x->severity]));
            set(o, "code", json_string(x->code));
            set(o, "object", text_json(x->object));
            set(o, "text", text_json(x->text));
            set(o, "fix", text_json(x->fix));
            check(json_array_append_new(list, o) == 0);
        }
    }
    return list;
}

static json_t *sizes_json(const struct sizes *s)
{
    json_t *o = json_object();
    set(o, "tables", number(s->tables));
    set(o, "rows_estimate", number(s->rows_estimate));
    set(o, "bytes", number(s->bytes));
    set(o, "index_bytes", number(s->index_bytes));
    set(o, "copy_seconds_estimate", number(s->copy_seconds_estimate));
    set(o, "wal_bytes_per_second", number(s->wal_bytes_per_second));
    set(o, "spool_free_bytes", number(s->spool_free_bytes));
    set(o, "spool_seconds_until_full", number(s->spool_seconds_until_full));
    set(o, "blue_wal_free_bytes", number(s->blue_wal_free_bytes));
    return o;
}

bool findings_print_json(const struct findings *f, const struct sizes *s, FILE *out)
{
    json_t *root = json_object();
    set(root, "ok", json_boolean(findings_ok(f)));
    set(root, "findings", findings_json(f));
    set(root, "sizes", sizes_json(s));
    bool written = json_dumpf(root, out, JSON_COMPACT) == 0 && fputc('\n', out) != EOF;
    json_decref(root);
    return written && fflush(out) == 0;
}
