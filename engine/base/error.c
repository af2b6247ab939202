#include "engine/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what);
    abort();
}

static const char *const kind_names[] = {
    [ERROR_NONE] = "none",         [ERROR_RETRY] = "retry",     [ERROR_CONNECT] = "connect",
    [ERROR_CONFLICT] = "conflict", [ERROR_SCHEMA] = "schema",   [ERROR_DATA] = "data",
    [ERROR_CONFIG] = "config",     [ERROR_DISK] = "disk",       [ERROR_LOST] = "lost",
    [ERROR_FENCED] = "fenced",     [ERROR_REWOUND] = "rewound", [ERROR_SYSTEM] = "system",
};

const char *error_kind_name(enum error_kind kind)
{
    check((size_t)kind < array_count(kind_names));
    return kind_names[kind];
}

bool error_set(struct error *err, enum error_kind kind, const char *fmt, ...)
{
    check(kind != ERROR_NONE);
    check(err->kind == ERROR_NONE); /* Set once; add context with error_wrap(). */
    err->kind = kind;
    err->hint[0] = '\0';
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    return false;
}

bool error_wrap(struct error *err, const char *fmt, ...)
{
    check(err->kind != ERROR_NONE);
    char inner[ERROR_TEXT_MAX];
    memcpy(inner, err->text, sizeof inner);
    va_list args;
    va_start(args, fmt);
    int used = vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof err->text)
        (void)snprintf(err->text + used, sizeof err->text - (size_t)used, ": %s", inner);
    return false;
}

bool error_hint(struct error *err, const char *fmt, ...)
{
    check(err->kind != ERROR_NONE);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->hint, sizeof err->hint, fmt, args);
    va_end(args);
    return false;
}

void error_clear(struct error *err) { *err = (struct error){.kind = ERROR_NONE}; }
