/* The source's database itself, asked on an ordinary connection of its own: what the stream
 * cannot tell. One thread at a time uses an origin. */
#ifndef DECODERS_ORIGIN_H
#define DECODERS_ORIGIN_H

#include "engine/change.h"

/* What identifies a stream: a spool or checkpoint of another one is never continued. */
struct stream_identity {
    char text[256]; /* "postgresql 7301… shop teal_shop 0/1529840": one line, comparable. */
    struct position start; /* Where the stream began: all behind it will be or was sent. */
};

/* How far the source is, as it says itself. */
struct origin_probe {
    struct position pos;    /* All committed by now is before it. */
    int64_t server_time_us; /* The source's clock when it said so, since 1970. */
    uint64_t bytes_behind;  /* Of its log between the position asked about and `pos`. */
};

struct origin;

struct origin_ops {
    const char *name;
    bool (*open)(struct origin *o,
                 struct error *err); /* May be called again after a failure. */
    /* What stands on the source from an earlier run: false in *found if nothing does. Refuses
     * (ERROR_CONFIG) what has our names but is not ours; ERROR_LOST if the slot is gone or
     * invalidated although the migration began. */
    bool (*find)(struct origin *o, struct stream_identity *identity, bool *found,
                 struct error *err);
    /* Whether anything of the migration is there. Changes nothing. */
    bool (*exists)(struct origin *o, bool *exists, struct error *err);
    /* Makes what the stream needs and starts it. *snapshot (text, the copy driver's) sees
     * exactly what was committed before identity->start, and can be used until
     * release_snapshot(). */
    bool (*create)(struct origin *o, struct stream_identity *identity, char *snapshot,
                   size_t snapshot_size, struct error *err);
    void (*release_snapshot)(struct origin *o);
    /* Whether the stream can still give everything behind `from`: ERROR_LOST if not,
     * ERROR_FENCED while somebody else is reading it. */
    bool (*reaches_back)(struct origin *o, const struct position *from, struct error *err);
    bool (*probe)(struct origin *o, const struct position *since, struct origin_probe *p,
                  struct error *err);
    /* Commits barrier number `id`: it comes back in the stream behind all committed before. */
    bool (*barrier)(struct origin *o, uint64_t id, struct error *err);
    /* Removes all that create() made. */
    bool (*remove)(struct origin *o, struct error *err);
    /* True if position a is at or behind b (a >= b). */
    bool (*reaches)(const struct position *a, const struct position *b);
    void (*close)(struct origin *o);
    void (*free)(struct origin *o);
};

struct origin {
    const struct origin_ops *ops;
};

#endif
