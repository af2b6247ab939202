/* What the operator may grep for: one line an event on stderr.
 *
 *   2026-01-05T10:11:12.345Z info  copy.table_done table=public.orders rows=1000 seconds=0.4
 *
 * The event's name comes first (area.what), then key=value with units in the key. A value that
 * needs it is quoted. Row values, passwords and connection strings are never passed here.
 * Safe to call from every thread; a line is written whole.
 *
 * log_event("copy.table_done", LOG_INFO, "table=%s rows=%llu", name, rows) */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "engine/base/error.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below `level` are dropped. LOG_INFO until told otherwise. */
void log_set_level(enum log_level level);

/* Also hands every line that is written, without its newline, to `tap`. NULL ends it. The tap
 * is called with the log's lock held: it must be quick and must not log. */
void log_set_tap(void (*tap)(void *context, const char *line), void *context);

void log_event(const char *event, enum log_level level, const char *fmt, ...) printf_like(3, 4);

/* One line for an error: kind, sqlstate, text and hint. */
void log_error(const char *event, enum log_level level, const struct error *err);

/* `text` as a value: unchanged if it is plain, else in double quotes with \" \\ \n escaped.
 * Returns `out`, which it cuts at `size`. */
const char *log_quote(char *out, size_t size, const char *text);

#endif
