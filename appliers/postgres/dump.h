/* pg_dump as the way to read a schema: running it, and cutting its script into entries.
 *
 * The script is cut at pg_dump's own table of contents, so that each object is one text that
 * one round trip executes as one transaction, can be skipped or put off by itself, and is named
 * in messages as pg_dump names it. */
#ifndef APPLIERS_POSTGRES_DUMP_H
#define APPLIERS_POSTGRES_DUMP_H

#include <stdatomic.h>

#include "engine/base/arena.h"
#include "engine/base/error.h"
#include "engine/base/writer.h"

struct dump_entry {
    const char *type; /* "TABLE", "FK CONSTRAINT"… */
    const char *name; /* As the header has it: "orders", "orders orders_pkey", "f(integer)". */
    const char *schema; /* "-" if it is in none. */
    const char *owner;  /* "-" if it has none. */
    const char *sql;    /* Complete: with the settings that are in force at its place. */
    const char *body;   /* The same behind the settings. */
};

struct dump {
    const char *preamble; /* The settings all entries rely on. */
    size_t count;
    struct dump_entry *entries; /* In pg_dump's order, which has what is needed first. */
};

/* Cuts one script. Everything in *out lives in `arena`. Lines that only psql understands and
 * settings that older servers lack are left out. ERROR_DATA if a quote does not end. */
must_check bool dump_split(struct bytes script, struct arena *arena, struct dump *out,
                           struct error *err);

/* The table that an INDEX, CONSTRAINT or CHECK CONSTRAINT is on, quoted as it stands there;
 * empty if it is not on a table. *only: the index is made on a partitioned table alone. */
struct bytes dump_entry_table(const struct dump_entry *entry, bool *only);

struct dump_request {
    const char *program;  /* pg_dump. */
    const char *conninfo; /* Goes into the environment: arguments can be seen by all. */
    const char *application_name;
    const char *encoding; /* The client encoding the script is executed with. */
    const char *snapshot; /* Exported by a transaction that is still open. */
    bool no_tablespaces;
    size_t exclude_count;
    const char *const *exclude; /* Tables, as patterns: dump_pattern(). */
};

/* Appends the script of one section ("pre-data", "post-data"). ERROR_RETRY if blue cannot be
 * reached or *stop becomes true, ERROR_CONFIG for what pg_dump refuses, in its own words. */
must_check bool dump_run(const struct dump_request *request, const char *section,
                         const _Atomic bool *stop, struct writer *out, struct error *err);

#endif
