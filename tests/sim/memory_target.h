/* A target in memory: its database, its checkpoint, and what its server does with what comes in
 * over a connection.
 *
 * The checkpoint moves as it does on PostgreSQL: a transaction's first statement names the
 * epoch and the seq it starts from, and fails if they are others. That statement also locks it:
 * a second connection waits there until the first has ended. A connection that was lost may
 * live on here for a while and work off what it had received (`orphan`).
 *
 * Commits are durable late, unless a transaction asks for it; a crash goes back to the last one
 * that is. */
#ifndef TESTS_SIM_MEMORY_TARGET_H
#define TESTS_SIM_MEMORY_TARGET_H

#include "appliers/applier.h"
#include "tests/sim/model.h"
#include "tests/sim/random.h"

enum op_kind { OP_BEGIN, OP_ROWS, OP_COMMIT };

/* One thing sent to the server. */
struct op {
    enum op_kind kind;
    uint64_t epoch;
    uint64_t from;
    struct checkpoint to; /* OP_BEGIN; of OP_COMMIT the seq. */
    bool durable;
    enum batch_kind batch;
    uint8_t table;
    uint32_t shape; /* The table's, when the statement was made. */
    uint32_t count;
    struct model_change *rows; /* Owned. */
    enum error_kind result;    /* Once executed. */
    const char *why;
};

/* The server's end of a connection. */
struct memory_connection {
    struct op *ops; /* In the order sent; before `executed` they have their results. */
    size_t count;
    size_t room;
    size_t executed;
    bool in_transaction;
    bool is_aborted;  /* Skips up to the next commit. */
    struct op opened; /* The OP_BEGIN. */
    struct model_db work;
    bool has_changed;
    uint64_t conflicts; /* Of rows, in this transaction. */
};

/* A row that is not as the source has it, and up to which seq that is excused. */
struct taint {
    uint8_t table;
    struct model_row row; /* By its key; without a key: the whole table. */
    uint64_t until;
};

enum { TAINTS_MAX = 64 };

struct durable_state {
    struct model_db db;
    struct checkpoint checkpoint;
};

struct memory_target {
    struct chance *chance;
    struct model_db db;
    struct checkpoint checkpoint;
    struct durable_state durable;
    uint32_t shape[TABLES]; /* Grows whenever the table is altered. */
    uint8_t width[TABLES];
    bool is_broken[TABLES];    /* Lacks a column for now. */
    bool refuses_commits;      /* As a deferred constraint does. */
    bool in_window;            /* What was copied is not yet a state of the source. */
    unsigned failure_permille; /* Of transient failures of a statement. */
    struct memory_connection orphan;
    bool has_orphan;
    bool is_overtaken;     /* The checkpoint was read while the orphan lived. */
    uint64_t late_commits; /* Of an overtaken orphan. */
    uint64_t conflicts;    /* Committed. */
    uint64_t highest;      /* Seq that was ever committed. */
    size_t taint_count;
    struct taint taints[TAINTS_MAX];
    void *context;
    void (*committed)(void *context); /* The checkpoint has moved. */
};

void target_init(struct memory_target *t, struct chance *chance);
void target_release(struct memory_target *t);

/* Executes the next op. */
void target_execute(struct memory_target *t, struct memory_connection *c);
/* Ends a connection: its transaction is undone. */
void connection_end(struct memory_connection *c);
void connection_release(struct memory_connection *c);
/* Where a lock is needed that the orphan may hold. */
void target_end_orphan(struct memory_target *t);

/* Raises the epoch, durably. */
void target_claim(struct memory_target *t);
void target_crash(struct memory_target *t);
void target_make_durable(struct memory_target *t);
void target_taint(struct memory_target *t, unsigned table, const struct model_row *row,
                  uint64_t until);
bool target_is_tainted(const struct memory_target *t, unsigned table,
                       const struct model_row *row);

/* A row that was tainted takes the values that an update leaves out along to its new key. */
void target_taint_moved(struct memory_target *t, const struct model_change *c,
                        const struct model_row *from, const struct model_row *to);

#endif
