/* What a value in teal.ini may look like, below the level of keys. Texts go into the arena;
 * every failure is ERROR_CONFIG and says what was expected. */
#ifndef ENGINE_OPTIONS_VALUE_H
#define ENGINE_OPTIONS_VALUE_H

#include "engine/base/arena.h"
#include "engine/options.h"

struct text_list {
    size_t count;
    const char **items;
};

/* An item of a qualified name, unquoted. */
struct table_name {
    const char *schema;
    const char *table;
};

const char *value_copy(struct arena *a, const char *text, size_t len);
const char *value_format(struct arena *a, const char *fmt, ...) printf_like(2, 3);

/* [a-z0-9_]{1,40} */
must_check bool value_name(const char *text, struct error *err);

/* Splits at commas outside quotes, and trims. */
must_check bool value_list(struct arena *a, const char *text, struct text_list *out,
                           struct error *err);

/* A shell glob on schema.table: what was quoted is escaped, so that it means itself. */
must_check bool value_glob(struct arena *a, const char *text, const char **out,
                           struct error *err);

/* schema.table, each quoted as in SQL where it needs it. Letters keep their case. */
must_check bool value_table(struct arena *a, const char *text, struct table_name *out,
                            struct error *err);

/* column, or column -> other */
must_check bool value_column(struct arena *a, const char *text, struct table_column_map *out,
                             struct error *err);

/* Splits at blanks; quotes and a backslash keep one from splitting. Ends with a NULL. */
must_check bool value_argv(struct arena *a, const char *text, const char *const **out,
                           struct error *err);

/* host:port, [v6]:port */
must_check bool value_listen(struct arena *a, const char *text, const char **host,
                             uint16_t *port, struct error *err);

/* Digits, and nothing else. */
must_check bool value_count(const char *text, uint64_t *out, struct error *err);

#endif
