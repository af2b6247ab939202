/* A source that lived a random life: the events a decoder would say of it, and the state it was
 * in at every boundary.
 *
 * Transactions are made one after the other, each valid on what the ones before it left, and
 * their events are then interleaved. Among them are parts and whole transactions that were
 * aborted, barriers, tables of ours, progress, and a stream that begins anew and sends again
 * what was open. */
#ifndef TESTS_SIM_MEMORY_SOURCE_H
#define TESTS_SIM_MEMORY_SOURCE_H

#include "tests/sim/model.h"
#include "tests/sim/random.h"

enum { BOUNDARIES_MAX = 64, SEGMENT_EVENTS = 24 };

struct source_options {
    unsigned transactions;
    unsigned big;   /* Bytes of the column that may be left out. */
    bool is_copied; /* Its beginning is a copy: see update(). */
    bool reshapes;  /* Tables take on their second shape on the way. */
};

struct source_txn {
    uint64_t xid;
    uint64_t seq; /* 0: aborted. */
    uint64_t barrier;
    unsigned change_count; /* Of user tables, in what was not aborted. */
    const struct change **changes;
};

struct memory_source {
    struct arena arena;
    size_t event_count;
    struct event *events;
    uint64_t last_seq;
    struct model_db states[BOUNDARIES_MAX];             /* By seq; 0: at the start. */
    const struct source_txn *committed[BOUNDARIES_MAX]; /* By seq; NULL: progress. */
};

void source_make(struct memory_source *s, const struct source_options *options,
                 struct chance *chance);
/* Keeps memory for the next. */
void source_clear(struct memory_source *s);

/* All it says, an event a line. */
void source_print(const struct memory_source *s);

struct position source_position(uint64_t seq);

#endif
