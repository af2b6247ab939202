/* What a check found, and what a migration will take.
 *
 * A finding names one thing, says what is wrong with it and, where a statement or a setting
 * mends it, gives that. An error would break the migration, a warning may surprise, an info is
 * what one should have read. Everything lives in the list's arena. */
#ifndef ENGINE_FINDINGS_H
#define ENGINE_FINDINGS_H

#include <stdio.h>

#include "engine/base/arena.h"

enum severity { SEVERITY_ERROR, SEVERITY_WARNING, SEVERITY_INFO };
enum { SEVERITY_COUNT = 3 };

struct finding {
    enum severity severity;
    const char *code;   /* "table.no_identity": for programs, never changes. */
    const char *object; /* "public.orders", "blue". */
    const char *text;
    const char *fix; /* Or "". */
    struct finding *next;
};

/* Zeroed: empty. */
struct findings {
    struct arena arena;
    struct finding *first[SEVERITY_COUNT]; /* Each in the order added. */
    struct finding *last[SEVERITY_COUNT];
    struct finding *newest;
    size_t count[SEVERITY_COUNT];
};

/* Numbers that may be unknown are UNKNOWN_SIZE. */
enum { UNKNOWN_SIZE = -1 };
struct sizes {
    int64_t tables;
    int64_t rows_estimate;
    int64_t bytes; /* Of tables without their indexes. */
    int64_t index_bytes;
    int64_t copy_seconds_estimate;
    int64_t wal_bytes_per_second; /* Of blue's log, sampled. */
    int64_t spool_free_bytes;
    int64_t spool_seconds_until_full; /* At that rate, if nothing were applied. */
    int64_t blue_wal_free_bytes;
};
#define SIZES_UNKNOWN                                                                          \
    ((struct sizes){UNKNOWN_SIZE, UNKNOWN_SIZE, UNKNOWN_SIZE, UNKNOWN_SIZE, UNKNOWN_SIZE,      \
                    UNKNOWN_SIZE, UNKNOWN_SIZE, UNKNOWN_SIZE, UNKNOWN_SIZE})

/* `code` must be a literal; the other texts are copied. */
void finding_add(struct findings *f, enum severity severity, const char *code,
                 const char *object, const char *fmt, ...) printf_like(5, 6);
/* Gives the newest finding its fix. */
void finding_fix(struct findings *f, const char *fmt, ...) printf_like(2, 3);
void findings_free(struct findings *f);

/* A text formatted into the arena. */
const char *findings_text(struct findings *f, const char *fmt, ...) printf_like(2, 3);

static inline bool findings_ok(const struct findings *f)
{
    return f->count[SEVERITY_ERROR] == 0;
}

/* For people: the worst first, the sizes last. Colours if `colour`. */
void findings_print(const struct findings *f, const struct sizes *s, bool colour, FILE *out);
/* For programs: one JSON object and a newline. False if `out` did not take it. */
must_check bool findings_print_json(const struct findings *f, const struct sizes *s, FILE *out);

#endif
