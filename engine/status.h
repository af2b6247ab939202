/* What the engine says of itself: one snapshot, shown as JSON, text or metrics.
 *
 * A plain value without locks or references into the engine: whoever fills it copies in,
 * whoever shows it may take its time. What is not known is STATUS_UNKNOWN and stays so in every
 * form: null in JSON, "unknown" in text, absent from the metrics; never 0, which would be a
 * claim. */
#ifndef ENGINE_STATUS_H
#define ENGINE_STATUS_H

#include "engine/base/arena.h"
#include "engine/base/writer.h"
#include "engine/change.h"

enum { STATUS_UNKNOWN = -1 }; /* Of every int64_t below. */

enum { STATUS_STRAYS_MAX = 100 }; /* The latest; the log has all. */

enum phase {
    PHASE_NEW,
    PHASE_COPYING,
    PHASE_CATCHING_UP,
    PHASE_FOLLOWING,
    PHASE_FENCED,
    PHASE_REVERSED,
    PHASE_FINISHED,
    PHASE_HALTED,
    PHASE_STOPPED,
};
enum { PHASE_COUNT = PHASE_STOPPED + 1 };

enum direction { BLUE_TO_GREEN, GREEN_TO_BLUE };

struct status_table {
    const char *name;
    enum phase phase;
    int64_t rows_copied;
    int64_t rows_total; /* An estimate until the copy is done. */
    int64_t changes;
    int64_t conflicts;
};

struct status_key {
    const char *column;
    const char *value;
};

struct status_stray {
    const char *table;
    size_t key_count; /* 0: a table without a key. */
    const struct status_key *key;
    struct position position;
    int64_t time_us; /* Since 1970. */
};

struct status {
    struct arena arena; /* Everything below that is a pointer points in here. */
    const char *migration;
    enum phase phase;
    enum direction direction;

    struct {
        int64_t us;
        int64_t bytes;
        int64_t transactions;
    } lag;
    struct {
        struct position source;
        struct position received;
        struct position durable;
        struct position applied;
        struct position confirmed;
    } position;
    struct {
        int64_t tables;
        int64_t tables_done;
        int64_t rows;
        int64_t rows_done;
        int64_t bytes_done;
        int64_t bytes_total;
        int64_t eta_seconds;
        int64_t rows_per_second;
    } copy;
    struct {
        int64_t transactions;
        int64_t changes;
        int64_t conflicts;
        int64_t stray_writes;
    } apply;
    struct {
        int64_t memory_bytes;
        int64_t disk_bytes;
        int64_t disk_max_bytes;
    } spool;
    struct {
        bool cutover;
        bool rollback;
        size_t reason_count;
        const char *const *reasons; /* Why the next of the two is not ready. */
    } ready;

    size_t table_count;
    const struct status_table *tables;
    struct error error; /* ERROR_NONE: nothing is wrong. */
    size_t stray_count;
    const struct status_stray *strays;
};

/* Empty, and everything unknown. */
void status_init(struct status *s);
void status_free(struct status *s);

/* A copy with memory of its own. `to` is overwritten, not freed. */
void status_clone(const struct status *from, struct status *to);

/* `text` as a string of the status' own. */
const char *status_string(struct status *s, struct bytes text);

/* "catching-up", "blue-to-green"…: the words of the JSON. */
const char *phase_name(enum phase phase);
const char *direction_name(enum direction direction);

/* The object of `teal status --json`, on one line without a newline. */
void status_json(const struct status *s, struct writer *out);

/* {"kind","text","hint"}, or null. For other answers that carry an error. */
void status_error_json(const struct error *error, struct writer *out);

/* The position as a JSON value; null if there is none. */
void status_position_json(const struct position *position, struct writer *out);

/* {"ready","reasons"} of one direction. Not ready always has a reason. */
void status_ready_json(const struct status *s, bool rollback, struct writer *out);

/* For people. `bars`: a progress bar for every table in copy, at most `width` columns wide. */
void status_text(const struct status *s, bool bars, unsigned width, struct writer *out);

/* The text format of Prometheus. */
void status_metrics(const struct status *s, struct writer *out);

/* Whether `text` is UTF-8 throughout. */
bool status_is_utf8(const char *text);

#endif
