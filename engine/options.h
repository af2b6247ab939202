/* What the operator configured: teal.ini and the command line.
 *
 * One table declares every key with its type, default, limits and help; it parses the file,
 * writes `teal init`'s commented file and the reference in README. An unknown key or section,
 * or a value out of range, is ERROR_CONFIG naming file and line. Everything lives in the
 * options' arena until options_free(). Texts that may be absent are NULL. A relative path means
 * one beside the file, so that every command finds the same place from any folder; "~/" is the
 * home folder. */
#ifndef ENGINE_OPTIONS_H
#define ENGINE_OPTIONS_H

#include "engine/base/arena.h"
#include "engine/base/writer.h"
#include "engine/change.h"

/* One side. `conninfo` is what the client library takes, with the password resolved (in a URI
 * as the query parameter "password"); it is never printed. `shown` is the same without secrets,
 * for messages. */
struct endpoint {
    const char *scheme; /* "postgresql", "mysql"; "haproxy" for that pooler's admin. */
    const char *conninfo;
    const char *shown;
    const char *password_file;    /* Where the password was read from, or NULL. */
    const char *password_command; /* Likewise. */
};

/* [table schema.table] */
struct table_column_map {
    const char *from;
    const char *to;
};
struct table_options {
    const char *name; /* On blue, unquoted: schema and table as below. */
    const char *schema;
    const char *table;
    const char *to_schema; /* On green; the same if not renamed. */
    const char *to_table;
    size_t column_count; /* 0: all columns, same names. */
    const struct table_column_map *columns;
};

/* [hook flip]: a program run at that step of a cutover. */
struct hook_options {
    const char *step;        /* "drain", "fence", "flip", "resume", "unfence". */
    const char *exec;        /* As written. */
    const char *const *argv; /* The same split, without a shell; ends with NULL. */
    int64_t timeout_us;
};

/* [pooler main]: what stands between the applications and the databases. */
struct pooler_options {
    const char *name;
    const char *kind; /* "pgbouncer", "haproxy". */
    struct endpoint admin;
    const char *config; /* The file that is rewritten; only a pgbouncer must have one. */
};

enum schema_mode { SCHEMA_COPY, SCHEMA_EXISTING };
enum spool_ack { ACK_SPOOL, ACK_TARGET };
enum ddl_policy { DDL_HALT, DDL_FORWARD, DDL_IGNORE };

struct options {
    struct arena arena;
    const char *file; /* Where it was read from. */

    const char *name;  /* [migration] */
    const char *state; /* Folder for journal, spool, socket. */
    struct endpoint blue;
    struct endpoint green;

    size_t include_count; /* [tables]: shell globs on schema.table; 0 includes: every user
                             table. */
    const char *const *include;
    size_t exclude_count;
    const char *const *exclude;
    size_t set_identity_full_count;
    const char *const *set_identity_full;
    size_t table_count;
    const struct table_options *tables;

    enum schema_mode schema_mode;
    const char
        *pg_dump;       /* [schema] pg-dump: a program or a folder of programs; NULL: search. */
    uint64_t copy_jobs; /* [copy] */
    uint64_t copy_chunk_bytes;    /* Tables above this are copied in ranges. */
    int64_t copy_snapshot_max_us; /* No snapshot is held longer. */
    uint64_t lanes;               /* [apply] */
    enum row_mode on_conflict;
    const char *spool_path; /* [spool] */
    uint64_t memory_max;    /* Of the whole engine: spool, transactions, groups. */
    uint64_t disk_max;
    uint64_t segment_bytes; /* Of the spool's files. */
    enum spool_ack ack;
    enum ddl_policy ddl_policy; /* [ddl] */
    int64_t cutover_max_lag_us; /* [cutover] */
    int64_t cutover_max_pause_us;
    const char *cutover_fence;          /* "auto", "trigger", "read-only", "hook". */
    bool cutover_guard_green;           /* Green refuses applications until the step `open`. */
    int64_t cutover_terminate_after_us; /* 0: application transactions are never killed. */
    size_t hook_count;
    const struct hook_options *hooks;
    size_t pooler_count;
    const struct pooler_options *poolers;
    const char *socket;      /* [control] */
    const char *listen_host; /* NULL: no TCP. */
    uint16_t listen_port;
};

/* Reads `path`. The hooks, poolers and other sections of CONTRACT are checked in full (known
 * keys, values) even where only later commands use them. */
must_check bool options_load(const char *path, struct options **out, struct error *err);

/* The same from memory; `path` only names it in messages. Passwords stay unresolved: no file is
 * read and no command run. */
must_check bool options_parse(const char *path, struct bytes text, struct options **out,
                              struct error *err);
void options_free(struct options *o);

/* Whether [tables] takes the table in. */
bool options_includes(const struct options *o, const char *schema, const char *table);

/* Its [table …] section, or NULL. */
const struct table_options *options_table(const struct options *o, struct bytes schema,
                                          struct bytes table);

/* The hook of that step, or NULL. */
const struct hook_options *options_hook(const struct options *o, const char *step);

/* The commented file of `teal init`. Secrets in the URIs are left out of it. ERROR_CONFIG if a
 * name or URI is not valid. */
must_check bool options_write_example(const char *name, const char *blue, const char *green,
                                      struct writer *out, struct error *err);

/* "250ms" "3s" "5m" "1h" to microseconds; "64KiB" "1GiB" "512" to bytes. */
must_check bool options_duration(const char *text, int64_t *us, struct error *err);
must_check bool options_size(const char *text, uint64_t *bytes, struct error *err);

#endif
