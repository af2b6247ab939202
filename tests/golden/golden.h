/* Captured streams, and what a decoder makes of them as text.
 *
 * tests/golden/postgres/NAME.pgoutput was captured from a real server (make-postgres says how)
 * and NAME.expected was made of it by expected.py, which shares no code with the decoder. */
#ifndef TESTS_GOLDEN_GOLDEN_H
#define TESTS_GOLDEN_GOLDEN_H

#include "decoders/decoder.h"
#include "engine/base/map.h"
#include "engine/base/writer.h"

struct golden {
    const char *path;
    struct writer file;
    struct frame
        *frames; /* Of PostgreSQL; positions and seqs as a source and a spool give them. */
    char (*positions)[24];
    size_t count;
};

/* Calls `test` with each golden stream there is; fails if there is none. */
void golden_each(void (*test)(const struct golden *g));

/* The text of NAME.expected. */
void golden_expected(const struct golden *g, struct writer *out);

/* Writes one event. `shapes` holds what was last said of each table, so that only changes of it
 * are said; NULL says all of it each time. */
void golden_describe(struct writer *out, const struct event *event, struct map *shapes);
void golden_forget_shapes(struct map *shapes);

/* A sink that keeps every event as text. */
struct teller {
    struct event_sink sink;
    struct writer text;
    struct map shapes;
    size_t events;
};

void teller_init(struct teller *t);
void teller_release(struct teller *t);

#endif
