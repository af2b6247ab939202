/* Where changes come from, in two halves.
 *
 * A source moves bytes and knows only where transactions end; a decoder gives the bytes meaning
 * and does no I/O. So every decoder runs the same under a server, a golden file and a fuzzer.
 */
#ifndef DECODERS_DECODER_H
#define DECODERS_DECODER_H

#include "engine/change.h"

enum frame_kind {
    FRAME_DATA,     /* A piece of a transaction. */
    FRAME_COMMIT,   /* A piece that ends one: a boundary. */
    FRAME_PROGRESS, /* No body: everything up to `pos` has been sent. A boundary. */
    FRAME_RESET,    /* No body: the stream began anew behind the last boundary. */
    FRAME_PREFACE,  /* What a decoder must know that starts reading here; changes nothing else.
                     */
};

/* One message as the server sent it. Borrowed until the next read from where it came. */
struct frame {
    enum frame_kind kind;
    uint64_t seq; /* Of a boundary: its number, given by the spool. Else that of the last. */
    struct bytes pos; /* Of a boundary: where the source resumes behind it. Else empty. */
    struct bytes body;
};

/* ---- bytes ---- */

struct source;

/* What the source may forget, from what its reader holds. Each is a position, "" if none yet.
 */
struct confirmation {
    struct position received;
    struct position durable; /* The server may forget all up to here. Never ahead of truth. */
    struct position applied;
};

struct source_ops {
    const char *name;
    /* Streams everything committed behind `from`. Retries are the caller's job. ERROR_LOST if
     * the source no longer reaches back to `from`, ERROR_RETRY if it may work later. */
    bool (*open)(struct source *s, const struct position *from, struct error *err);
    /* The next message, or, after at most `wait_ms`, none: *got says which. One that is not at
     * the end of what has arrived returns at once. */
    bool (*read)(struct source *s, int wait_ms, struct frame *frame, bool *got,
                 struct error *err);
    /* Remembers what may be forgotten and sends it when due; called often, cheap. Positions
     * never go back. */
    bool (*confirm)(struct source *s, const struct confirmation *c, struct error *err);
    /* Asks the server to say soon how far it has got (a FRAME_PROGRESS). */
    bool (*probe)(struct source *s, struct error *err);
    /* Gives each frame of the preface for a reader that will start at this point. Only between
     * transactions that are sent whole. */
    bool (*preface)(struct source *s,
                    bool (*put)(void *context, const struct frame *frame, struct error *err),
                    void *context, struct error *err);
    void (*close)(struct source *s); /* Idempotent; may be opened again. */
    void (*free)(struct source *s);
};

struct source {
    const struct source_ops *ops;
};

/* ---- meaning ---- */

struct decoder;

struct decoder_ops {
    const char *name;
    /* Decodes one frame into zero or more events. ERROR_DATA if it cannot: a decoder never
     * skips what it does not understand. */
    bool (*decode)(struct decoder *d, const struct frame *frame, struct event_sink *sink,
                   struct error *err);
    void (*free)(struct decoder *d);
};

struct decoder {
    const struct decoder_ops *ops;
};

#endif
