/* The sequences of one server and where exactly they stand. */
#ifndef APPLIERS_POSTGRES_SEQUENCES_H
#define APPLIERS_POSTGRES_SEQUENCES_H

#include "engine/base/arena.h"
#include "engine/postgres/pg.h"

struct sequence {
    uint32_t oid;
    const char *schema;
    const char *name;
    const char *owner_schema; /* The column it belongs to; NULL: none. */
    const char *owner_table;
    const char *owner_column;
    int64_t increment;
    int64_t min;
    int64_t max;
    bool cycles;
    bool may_read;
    bool may_set;

    /* After sequences_read(). */
    int64_t last;
    bool called; /* False: `last` is the value that comes next. */
};

struct sequences {
    struct arena arena;
    size_t count;
    struct sequence *list; /* Sorted by schema and name. */
};

/* All of them except the system's, teal's and those that extensions bring. */
must_check bool sequences_list(PGconn *pg, struct sequences *out, struct error *err);
void sequences_release(struct sequences *s);

/* NULL if there is none. */
struct sequence *sequences_find(const struct sequences *s, const char *schema,
                                const char *name);
struct sequence *sequences_find_owned(const struct sequences *s, const char *schema,
                                      const char *table, const char *column);

/* Fills `last` and `called` of these. Fails if one was dropped since it was listed:
 * sequences_vanished(). All must be may_read. */
must_check bool sequences_read(PGconn *pg, struct sequence *const *list, size_t count,
                               struct error *err);
bool sequences_vanished(const struct error *err);

#endif
