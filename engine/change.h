/* What flows through the engine: rows changed by transactions, in commit order.
 *
 * Nothing here knows PostgreSQL or MySQL. A decoder produces these, an applier consumes them,
 * and everything between only moves and compares them.
 *
 * Order. The spool numbers every boundary of the stream (a commit, or progress with nothing to
 * apply) with a `seq`: 1, 2, 3… in commit order, for ever, across restarts. The engine compares
 * only seqs. A position is the source's own word for the same place; the engine stores it,
 * prints it and hands it back, and never looks inside.
 *
 * Lifetimes. A `struct event` and all it points to is borrowed: valid until the sink returns.
 * A relation lives as long as the decoder that described it; it is immutable, and a change of
 * shape is a new one. */
#ifndef ENGINE_CHANGE_H
#define ENGINE_CHANGE_H

#include "engine/base/bytes.h"
#include "engine/base/error.h"

/* A position as text: PostgreSQL "0/1529840". */
enum { POSITION_MAX = 256 };

struct position {
    uint16_t len;
    char text[POSITION_MAX]; /* Always NUL-terminated; "" is no position. */
};

enum datum_kind {
    DATUM_NULL,
    DATUM_TEXT,
    DATUM_UNCHANGED, /* Not sent (TOAST, partial row image): keep the target's. Never NULL. */
};

struct datum {
    enum datum_kind kind;
    struct bytes value;
};

struct column {
    struct bytes name;
    uint32_t type; /* The source's type id. */
    int32_t typmod;
    bool in_key; /* Part of the replica identity. */
};

/* What identifies a row in the before image. */
enum identity {
    IDENTITY_NONE, /* Updates and deletes cannot be followed. */
    IDENTITY_KEY,  /* The columns that are in_key. */
    IDENTITY_FULL, /* The whole row; no key. */
};

/* Our own tables travel in the stream too. */
enum relation_role { ROLE_USER, ROLE_BARRIER, ROLE_OURS };

/* One version of a table's shape. */
struct relation {
    uint32_t id;      /* The source's id of the table. */
    uint32_t version; /* Unique among all relations of one decoder; grows. */
    enum relation_role role;
    enum identity identity;
    struct bytes schema;
    struct bytes name;
    uint16_t column_count;
    const struct column *columns;
};

/* Which columns of a row image mean anything. A key image still has one datum per column, and
 * the ones outside the key read as null: never match on them. */
enum image { IMAGE_NONE, IMAGE_KEY, IMAGE_ROW };

struct tuple {
    enum image image;
    uint16_t count; /* As many as the relation has columns; 0 if IMAGE_NONE. */
    const struct datum *datums;
};

enum change_kind { CHANGE_INSERT, CHANGE_UPDATE, CHANGE_DELETE, CHANGE_TRUNCATE };

struct change {
    enum change_kind kind;
    const struct relation *relation; /* TRUNCATE: the first of `truncated`. */
    struct tuple before; /* Update and delete; absent on an update that kept its key. */
    struct tuple after;  /* Insert and update. */

    /* TRUNCATE only. */
    uint32_t truncated_count;
    const struct relation *const *truncated;
    bool restart_identity;
};

/* What to do with a row that is not as the source says: report it, make it so, leave it. */
enum row_mode { ROW_STRICT, ROW_OVERWRITE, ROW_SKIP };

/* What a decoder says. One struct and one switch, not nine callbacks. */
enum event_kind {
    EVENT_BEGIN,  /* A transaction's first piece. */
    EVENT_CHANGE, /* In transaction `xid`, made by its part `subxid` (== xid for the top). */
    EVENT_COMMIT, /* Complete; seq and pos are the frame's. */
    EVENT_ABORT,  /* subxid == xid: all of it; else what that part has changed. Unknown: no-op.
                   */
    EVENT_PROGRESS, /* Nothing to apply up to here; seq and pos are the frame's. */
    EVENT_RESET,    /* The stream began anew: whatever is open will be sent again in full. */
};

struct event {
    enum event_kind kind;
    uint64_t xid;
    uint64_t subxid;
    uint64_t seq;
    struct bytes pos;
    int64_t commit_time_us; /* COMMIT: microseconds since 1970, the source's clock. */
    const struct change *change;
};

/* Takes events in the order decoded. Must copy what it keeps. */
struct event_sink {
    bool (*put)(struct event_sink *sink, const struct event *event, struct error *err);
};

static inline struct position position_of(struct bytes text)
{
    struct position p = {.len = (uint16_t)text.len};
    check(text.len < POSITION_MAX);
    if (text.len > 0)
        memcpy(p.text, text.data, text.len);
    return p;
}

static inline struct bytes position_bytes(const struct position *p)
{
    return (struct bytes){(const uint8_t *)p->text, p->len};
}

#endif
