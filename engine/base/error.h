/* How functions fail.
 *
 * A function that can fail returns bool, takes `struct error *` last, and on
 * false has filled it exactly once. The kind decides what the engine does next;
 * the text says why, outermost context first; the hint, if any, is what the
 * operator should do or the statement that mends it. No allocation, no unwinding. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "engine/base/compiler.h"

enum error_kind {
    ERROR_NONE,
    ERROR_RETRY,    /* Transient: reconnect, resume from the checkpoint. */
    ERROR_CONNECT,  /* A login that cannot work as configured: password, database, TLS. */
    ERROR_CONFLICT, /* The target refuses or lacks a row. */
    ERROR_SCHEMA,   /* The two shapes of a table no longer fit. */
    ERROR_DATA,     /* Bytes we cannot interpret: stop, never guess. */
    ERROR_CONFIG,   /* The operator must change something: configuration, a grant, a setting. */
    ERROR_DISK,     /* Our own disk is full, unwritable or damaged. */
    ERROR_LOST,     /* A position is gone: slot, binlog or spool no longer reach back to it. */
    ERROR_FENCED,   /* Another engine has taken this migration over. */
    ERROR_REWOUND,  /* The target forgot commits: start again from its checkpoint. */
    ERROR_SYSTEM,   /* errno, from the operating system. */
};

enum { ERROR_TEXT_MAX = 1024 };

struct error {
    enum error_kind kind;
    char sqlstate[6]; /* From the server, or "". */
    char text[ERROR_TEXT_MAX];
    char hint[ERROR_TEXT_MAX]; /* Or "". */
};

/* "retry", "conflict"...: the `kind` of status JSON and logs. */
const char *error_kind_name(enum error_kind kind);

/* These return false, so that a failure is one line: return error_set(err, ...). */
bool error_set(struct error *err, enum error_kind kind, const char *fmt, ...) printf_like(3, 4);
bool error_wrap(struct error *err, const char *fmt, ...) printf_like(2, 3);

/* Adds the way out to an error already set. */
bool error_hint(struct error *err, const char *fmt, ...) printf_like(2, 3);

/* Forgets, so that the struct may be filled again. */
void error_clear(struct error *err);

/* The one macro that hides control flow. Safe because what a function owns it
 * declared with cleanup_with(). */
#define TRY(call)                                                                              \
    do {                                                                                       \
        if (!(call))                                                                           \
            return false;                                                                      \
    } while (0)

#endif
