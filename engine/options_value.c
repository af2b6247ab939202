#include "engine/options_value.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME_MAX_BYTES = 40 };

static const char blanks[] = " \t";

const char *value_copy(struct arena *a, const char *text, size_t len)
{
    char *copy = arena_array(a, char, len + 1);
    memcpy(copy, text, len);
    return copy;
}

const char *value_format(struct arena *a, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = NULL;
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    check(len >= 0);
    const char *copy = value_copy(a, text, (size_t)len);
    free(text);
    return copy;
}

static bool is_quote(char c) { return c == '"' || c == '`'; }

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool value_name(const char *text, struct error *err)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");
    if (len == 0 || len > NAME_MAX_BYTES || text[len] != '\0') {
        (void)error_set(err, ERROR_CONFIG, "\"%.80s\" is not a name", text);
        return error_hint(err, "a name has 1 to %d of a-z, 0-9 and _", NAME_MAX_BYTES);
    }
    return true;
}

/* The digits at the front; false if there are none or they do not fit. */
static bool take_digits(const char **at, uint64_t *out)
{
    *out = 0;
    if (!is_digit(**at))
        return false;
    for (; is_digit(**at); (*at)++)
        if (__builtin_mul_overflow(*out, (uint64_t)10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(**at - '0'), out))
            return false;
    return true;
}

bool value_count(const char *text, uint64_t *out, struct error *err)
{
    const char *at = text;
    if (!take_digits(&at, out) || *at != '\0')
        return error_set(err, ERROR_CONFIG, "\"%.80s\" is not a number", text);
    return true;
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* Digits and a unit to the smallest unit; false also above INT64_MAX. */
static bool scale(const char *text, const struct unit *units, size_t count, uint64_t *out)
{
    uint64_t number = 0;
    if (!take_digits(&text, &number))
        return false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, units[i].name) == 0)
            return !__builtin_mul_overflow(number, units[i].factor, out) && *out <= INT64_MAX;
    return false;
}

bool options_duration(const char *text, int64_t *us, struct error *err)
{
    static const struct unit units[] = {
        {"ms", 1000}, {"s", 1000000}, {"m", 60000000}, {"h", UINT64_C(3600000000)}};
    uint64_t value = 0;
    if (!scale(text, units, array_count(units), &value)) {
        (void)error_set(err, ERROR_CONFIG, "\"%.80s\" is not a duration", text);
        return error_hint(err, "a whole number and its unit: 250ms, 3s, 5m, 1h");
    }
    *us = (int64_t)value;
    return true;
}

bool options_size(const char *text, uint64_t *bytes, struct error *err)
{
    static const struct unit units[] = {{"", 1},
                                        {"KiB", UINT64_C(1) << 10},
                                        {"MiB", UINT64_C(1) << 20},
                                        {"GiB", UINT64_C(1) << 30},
                                        {"TiB", UINT64_C(1) << 40}};
    uint64_t value = 0;
    if (!scale(text, units, array_count(units), &value)) {
        (void)error_set(err, ERROR_CONFIG, "\"%.80s\" is not a size", text);
        return error_hint(err, "a whole number of bytes, or with a unit: 64KiB, 256MiB, 1GiB");
    }
    *bytes = value;
    return true;
}

/* Up to the next comma outside quotes, or the end. */
static size_t item_len(const char *at)
{
    char quote = '\0';
    size_t len = 0;
    for (; at[len] != '\0' && (quote != '\0' || at[len] != ','); len++)
        if (quote == '\0' && is_quote(at[len]))
            quote = at[len];
        else if (at[len] == quote)
            quote = '\0';
    return len;
}

bool value_list(struct arena *a, const char *text, struct text_list *out, struct error *err)
{
    size_t most = 1;
    for (const char *at = text; *at != '\0'; at++)
        most += *at == ',';
    *out = (struct text_list){.items = arena_array(a, const char *, most)};
    for (const char *at = text;; at++) {
        size_t whole = item_len(at);
        size_t skip = strspn(at, blanks);
        size_t len = whole;
        while (len > skip && strchr(blanks, at[len - 1]) != NULL)
            len--;
        if (skip >= len) {
            (void)error_set(err, ERROR_CONFIG, "the list has an empty item");
            return error_hint(err, "expected: items separated by single commas");
        }
        out->items[out->count++] = value_copy(a, at + skip, len - skip);
        at += whole;
        if (*at == '\0')
            return true;
    }
}

/* Appends the quoted text at *at, which begins with its quote, without quotes; a doubled quote
 * is one. With `escape`, what fnmatch() would interpret is escaped. */
static bool take_quoted(const char **at, bool escape, struct writer *out, struct error *err)
{
    char quote = **at;
    size_t before = out->len;
    for ((*at)++; **at != '\0'; (*at)++) {
        if (**at == quote && (*at)[1] != quote)
            break;
        *at += **at == quote;
        if (escape && strchr("*?[]\\", **at) != NULL)
            writer_u8(out, '\\');
        writer_u8(out, (uint8_t) * *at);
    }
    if (**at != quote)
        return error_set(err, ERROR_CONFIG, "a quoted name has no closing %c", quote);
    if (out->len == before)
        return error_set(err, ERROR_CONFIG, "a quoted name is empty");
    (*at)++;
    return true;
}

static bool is_plain(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

/* The identifier at *at, quoted or plain. */
static bool take_identifier(struct arena *a, const char **at, const char **out,
                            struct error *err)
{
    cleanup_with(writer_release) struct writer name = {0};
    if (is_quote(**at))
        TRY(take_quoted(at, false, &name, err));
    else
        for (; is_plain(**at); (*at)++)
            writer_u8(&name, (uint8_t) * *at);
    *out = value_copy(a, writer_cstr(&name), name.len);
    return true;
}

bool value_table(struct arena *a, const char *text, struct table_name *out, struct error *err)
{
    const char *at = text;
    TRY(take_identifier(a, &at, &out->schema, err));
    bool dot = *at == '.';
    at += dot;
    TRY(take_identifier(a, &at, &out->table, err));
    if (!dot || *at != '\0' || *out->schema == '\0' || *out->table == '\0') {
        (void)error_set(err, ERROR_CONFIG, "\"%.200s\" is not the name of a table", text);
        return error_hint(err, "expected: schema.table, where a name with other characters "
                               "than letters, digits, _ and $ is in double quotes");
    }
    return true;
}

bool value_column(struct arena *a, const char *text, struct table_column_map *out,
                  struct error *err)
{
    const char *at = text;
    TRY(take_identifier(a, &at, &out->from, err));
    out->to = out->from;
    at += strspn(at, blanks);
    if (strncmp(at, "->", 2) == 0) {
        at += 2;
        at += strspn(at, blanks);
        TRY(take_identifier(a, &at, &out->to, err));
    }
    if (*at != '\0' || *out->from == '\0' || *out->to == '\0') {
        (void)error_set(err, ERROR_CONFIG, "\"%.200s\" is not a column", text);
        return error_hint(err, "expected: name, or name -> its name on green");
    }
    return true;
}

bool value_glob(struct arena *a, const char *text, const char **out, struct error *err)
{
    cleanup_with(writer_release) struct writer glob = {0};
    bool whole = false; /* Can match a name with a dot in it. */
    const char *at = text;
    while (*at != '\0' && strchr(blanks, *at) == NULL) {
        whole = whole || *at == '.' || *at == '*';
        if (!is_quote(*at))
            writer_u8(&glob, (uint8_t)*at++);
        else if (!take_quoted(&at, true, &glob, err))
            return false;
    }
    if (*at != '\0')
        return error_set(err, ERROR_CONFIG, "\"%.200s\": a blank must be quoted", text);
    if (!whole) {
        (void)error_set(err, ERROR_CONFIG, "\"%.200s\" cannot match a schema.table", text);
        return error_hint(err, "expected: a pattern on the whole name, as in public.%.200s",
                          text);
    }
    *out = value_copy(a, writer_cstr(&glob), glob.len);
    return true;
}

/* One argument, up to a blank outside quotes. */
static bool take_argument(const char **at, struct writer *out, struct error *err)
{
    char quote = '\0';
    for (; **at != '\0' && (quote != '\0' || strchr(blanks, **at) == NULL); (*at)++) {
        if (**at == quote) {
            quote = '\0';
        } else if (quote == '\0' && (**at == '"' || **at == '\'')) {
            quote = **at;
        } else {
            *at += **at == '\\' && quote != '\'' && (*at)[1] != '\0';
            writer_u8(out, (uint8_t) * *at);
        }
    }
    if (quote != '\0')
        return error_set(err, ERROR_CONFIG, "no closing %c", quote);
    return true;
}

bool value_argv(struct arena *a, const char *text, const char *const **out, struct error *err)
{
    cleanup_with(writer_release) struct writer argument = {0};
    const char **argv = arena_array(a, const char *, strlen(text) / 2 + 2);
    size_t count = 0;
    for (const char *at = text + strspn(text, blanks); *at != '\0'; at += strspn(at, blanks)) {
        writer_clear(&argument);
        TRY(take_argument(&at, &argument, err));
        argv[count++] = value_copy(a, writer_cstr(&argument), argument.len);
    }
    if (count == 0 || argv[0][0] == '\0')
        return error_set(err, ERROR_CONFIG, "names no program");
    *out = argv;
    return true;
}

bool value_listen(struct arena *a, const char *text, const char **host, uint16_t *port,
                  struct error *err)
{
    const char *colon = strrchr(text, ':');
    const char *digits = colon == NULL ? "" : colon + 1;
    uint64_t number = 0;
    bool good =
        take_digits(&digits, &number) && *digits == '\0' && number >= 1 && number <= UINT16_MAX;
    size_t len = colon == NULL ? 0 : (size_t)(colon - text);
    bool bracketed = len > 2 && text[0] == '[' && text[len - 1] == ']';
    *host = value_copy(a, text + bracketed, len - (bracketed ? 2 : 0));
    good = good && len > 0 && strcspn(*host, " \t[]/") == strlen(*host) &&
           (bracketed || strchr(*host, ':') == NULL);
    if (!good) {
        (void)error_set(err, ERROR_CONFIG, "\"%.200s\" is not an address", text);
        return error_hint(err, "expected: host:port, as in 127.0.0.1:7654 or [::1]:7654");
    }
    *port = (uint16_t)number;
    return true;
}
