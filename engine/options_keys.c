#include "engine/options_keys.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define MS  UINT64_C(1000)
#define S   (1000 * MS)
#define H   (3600 * S)

#define IN(field)         .offset = offsetof(struct options, field)
#define LIST(list, total) IN(list), .count = offsetof(struct options, total)
#define LIMITS(low, high) .min = (low), .max = (high)
#define SECTION(keys_of)  .keys = (keys_of), .key_count = array_count(keys_of)

static const struct key migration_keys[] = {
    {.name = "name",
     .type = KEY_NAME,
     .required = true,
     IN(name),
     .help = "Names slot, publication and checkpoint: 1 to 40 of a-z, 0-9 and _."},
    {.name = "state",
     .type = KEY_PATH,
     IN(state),
     .sample = "/var/lib/teal/shop",
     .help =
         "Folder for journal, certificates, and by default spool and socket. If not given:\n"
         "$XDG_STATE_HOME/teal/NAME, or ~/.local/state/teal/NAME."},
};

static const struct key blue_keys[] = {
    {.name = "uri",
     .type = KEY_SECRET,
     .required = true,
     IN(blue.conninfo),
     .help =
         "postgresql://user@host:port/database?sslmode=... or mysql://user@host:port/database"},
    {.name = "password-file",
     .type = KEY_PATH,
     IN(blue.password_file),
     .sample = "/etc/teal/blue.password",
     .help = "Its first line is the password. Only its owner may have access."},
    {.name = "password-command",
     .type = KEY_SECRET,
     IN(blue.password_command),
     .sample = "pass show teal/blue",
     .help = "Run by /bin/sh; the first line it prints is the password."},
};

static const struct key green_keys[] = {
    {.name = "uri",
     .type = KEY_SECRET,
     .required = true,
     IN(green.conninfo),
     .help = "Of the same kind as blue's."},
    {.name = "password-file",
     .type = KEY_PATH,
     IN(green.password_file),
     .sample = "/etc/teal/green.password",
     .help = "Its first line is the password. Only its owner may have access."},
    {.name = "password-command",
     .type = KEY_SECRET,
     IN(green.password_command),
     .sample = "pass show teal/green",
     .help = "Run by /bin/sh; the first line it prints is the password."},
};

static const struct key tables_keys[] = {
    {.name = "include",
     .type = KEY_GLOBS,
     LIST(include, include_count),
     .sample = "public.*, sales.*",
     .help = "Shell patterns on schema.table. If not given: every user table."},
    {.name = "exclude",
     .type = KEY_GLOBS,
     LIST(exclude, exclude_count),
     .sample = "public.tmp_*",
     .help = "Leaves out again what matches."},
    {.name = "set-identity-full",
     .type = KEY_TABLES,
     LIST(set_identity_full, set_identity_full_count),
     .sample = "public.log, \"Sales\".\"Order Items\"",
     .help = "Tables without a key whose REPLICA IDENTITY teal may set to FULL on blue."},
};

static const struct key table_keys[] = {
    {.name = "to",
     .type = KEY_TABLE,
     .offset = 0,
     .sample = "public.purchase",
     .help = "Its name on green. If not given: the same."},
    {.name = "columns",
     .type = KEY_COLUMNS,
     .offset = 0,
     .sample = "id, placed_at -> created_at, total",
     .help = "The columns taken over and, after ->, their names on green. If not given: all."},
};

static const struct key schema_keys[] = {
    {.name = "mode",
     .type = KEY_CHOICE,
     IN(schema_mode),
     .words = "copy|existing",
     .fallback = "copy",
     .help = "copy: create on green what is missing. existing: you made the tables."},
    {.name = "pg-dump",
     .type = KEY_TEXT,
     IN(pg_dump),
     .sample = "/usr/lib/postgresql/16/bin",
     .help = "The pg_dump to use, or its folder. If not given: the newest that is found."},
};

static const struct key copy_keys[] = {
    {.name = "jobs",
     .type = KEY_COUNT,
     IN(copy_jobs),
     LIMITS(1, 64),
     .fallback = "4",
     .help = "How many tables, or ranges of them, are copied at once."},
    {.name = "chunk-size",
     .type = KEY_SIZE,
     IN(copy_chunk_bytes),
     LIMITS(MIB, TIB),
     .fallback = "64MiB",
     .help = "A table above this is copied in ranges."},
    {.name = "snapshot-max",
     .type = KEY_DURATION,
     IN(copy_snapshot_max_us),
     LIMITS(S, 24 * H),
     .fallback = "15m",
     .help =
         "No snapshot is held longer on the source than this and the parts under way; a table\n"
         "without a key is copied in one."},
};

static const struct key apply_keys[] = {
    {.name = "lanes",
     .type = KEY_COUNT,
     IN(lanes),
     LIMITS(1, 64),
     .fallback = "1",
     .help = "How many connections apply transactions."},
    {.name = "on-conflict",
     .type = KEY_CHOICE,
     IN(on_conflict),
     .words = "halt|overwrite|skip",
     .fallback = "halt",
     .help = "A row that is not as the source says. overwrite and skip count and report it."},
};

static const struct key spool_keys[] = {
    {.name = "path",
     .type = KEY_PATH,
     IN(spool_path),
     .sample = "/var/lib/teal/shop/spool",
     .help = "Its folder. If not given: spool in the state folder."},
    {.name = "memory-max",
     .type = KEY_SIZE,
     IN(memory_max),
     LIMITS(32 * MIB, TIB),
     .fallback = "256MiB",
     .help = "Memory of the whole engine for what is in flight."},
    {.name = "disk-max",
     .type = KEY_SIZE,
     IN(disk_max),
     LIMITS(64 * KIB, 1024 * TIB),
     .fallback = "20GiB",
     .help = "What the spool may take on disk."},
    {.name = "segment-size",
     .type = KEY_SIZE,
     IN(segment_bytes),
     LIMITS(64 * KIB, GIB),
     .fallback = "32MiB",
     .help = "Of its files: what was applied is deleted file by file."},
    {.name = "ack",
     .type = KEY_CHOICE,
     IN(ack),
     .words = "spool|target",
     .fallback = "spool",
     .help = "When the source may forget: once it is durable in the spool, or on the target."},
};

static const struct key ddl_keys[] = {
    {.name = "policy",
     .type = KEY_CHOICE,
     IN(ddl_policy),
     .words = "halt|forward|ignore",
     .fallback = "halt",
     .help = "When the shape of a table changes on the source."},
};

static const struct key cutover_keys[] = {
    {.name = "max-lag",
     .type = KEY_DURATION,
     IN(cutover_max_lag_us),
     LIMITS(MS, 24 * H),
     .fallback = "1s",
     .help = "A cutover does not start above it."},
    {.name = "max-pause",
     .type = KEY_DURATION,
     IN(cutover_max_pause_us),
     LIMITS(10 * MS, H),
     .fallback = "3s",
     .help = "A cutover is undone if the write pause would exceed it."},
    {.name = "fence",
     .type = KEY_WORD,
     IN(cutover_fence),
     .words = "auto|trigger|read-only|hook",
     .fallback = "auto",
     .help = "How writes are refused; hook leaves it to [hook fence]."},
    {.name = "guard-green",
     .type = KEY_FLAG,
     IN(cutover_guard_green),
     .fallback = "yes",
     .help = "Refuse writes of applications on green until it is opened."},
    {.name = "terminate-after",
     .type = KEY_DURATION,
     IN(cutover_terminate_after_us),
     LIMITS(MS, H),
     .sample = "2s",
     .help = "End application transactions open for longer. If not given: none is ended."},
};

static const struct key hook_keys[] = {
    {.name = "exec",
     .type = KEY_ARGV,
     .required = true,
     .offset = 0,
     .sample = "/etc/teal/flip --fast",
     .help = "Program and arguments, without a shell. TEAL_* is in its environment; an exit\n"
             "other than 0 vetoes."},
    {.name = "timeout",
     .type = KEY_DURATION,
     .offset = offsetof(struct hook_options, timeout_us),
     LIMITS(10 * MS, H),
     .fallback = "2s",
     .help = "After it the hook's process group is killed and the step has failed."},
};

static const struct key pooler_keys[] = {
    {.name = "kind",
     .type = KEY_WORD,
     .required = true,
     .offset = offsetof(struct pooler_options, kind),
     .words = "pgbouncer|haproxy",
     .sample = "pgbouncer",
     .help = "What it is."},
    {.name = "admin",
     .type = KEY_SECRET,
     .required = true,
     .offset = offsetof(struct pooler_options, admin.conninfo),
     .sample = "postgresql://admin@bouncer:6432/pgbouncer",
     .help = "pgbouncer: the URI of its console. haproxy: its admin socket."},
    {.name = "config",
     .type = KEY_PATH,
     .offset = offsetof(struct pooler_options, config),
     .sample = "/etc/pgbouncer/databases.ini",
     .help = "The file with [databases], which a flip rewrites. A pgbouncer must have it."},
};

static const struct key control_keys[] = {
    {.name = "socket",
     .type = KEY_PATH,
     IN(socket),
     .sample = "/run/teal/shop.sock",
     .help =
         "Unix socket, mode 0600: everything. If not given: teal.sock in the state folder."},
    {.name = "listen",
     .type = KEY_LISTEN,
     IN(listen_host),
     .sample = "127.0.0.1:7654",
     .help = "Read-only over TCP: /livez /readyz /metrics /status and the page. If not given: "
             "off."},
};

const struct section option_sections[SECTION_COUNT] = {
    {.name = "migration", SECTION(migration_keys)},
    {.name = "blue", .help = "The side that has the data now.", SECTION(blue_keys)},
    {.name = "green", .help = "The side that shall have it.", SECTION(green_keys)},
    {.name = "tables", SECTION(tables_keys)},
    {.name = "table",
     .home = HOME_TABLE,
     .argument = "public.orders",
     .help = "One table that is not the same on green; as many sections as needed.",
     SECTION(table_keys)},
    {.name = "schema", SECTION(schema_keys)},
    {.name = "copy", SECTION(copy_keys)},
    {.name = "apply", SECTION(apply_keys)},
    {.name = "spool", SECTION(spool_keys)},
    {.name = "ddl", SECTION(ddl_keys)},
    {.name = "cutover", SECTION(cutover_keys)},
    {.name = "hook",
     .home = HOME_HOOK,
     .argument = "flip",
     .help = "A program run at a step of a cutover: drain, fence, flip, resume, unfence.",
     SECTION(hook_keys)},
    {.name = "pooler",
     .home = HOME_POOLER,
     .argument = "main",
     .help = "A pooler or proxy that teal switches by itself; as many as needed.",
     SECTION(pooler_keys)},
    {.name = "control", SECTION(control_keys)},
};
