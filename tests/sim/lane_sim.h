/* One life of the engine's heart: who takes part in it, and what is checked of it. */
#ifndef TESTS_SIM_LANE_SIM_H
#define TESTS_SIM_LANE_SIM_H

#include "engine/lane.h"
#include "engine/txn_buffer.h"
#include "tests/sim/memory_applier.h"
#include "tests/sim/memory_source.h"

/* The time of the copy: what stands in a table is from between two states. */
struct window {
    bool is_open;
    uint64_t first[TABLES];
    uint64_t last[TABLES];
    uint64_t end;
};

struct sim {
    uint64_t seed;
    bool is_printed;
    struct chance chance;
    struct memory_source source;
    struct memory_target target;
    struct memory_applier applier;
    struct txn_buffer *buffer;
    struct lane *lane;
    struct judge judge;
    struct window window;
    enum row_mode mode;
    char folder[64];
    uint64_t memory_max;
    uint64_t group_bytes_max;
    unsigned trouble;  /* Per mille and step. */
    unsigned troubles; /* Bits of kinds. */

    size_t next_event;
    size_t released; /* Events before this are no longer kept. */
    uint64_t mark_seq;
    uint64_t mark_segment;
    uint64_t boundary; /* The last one fed. */

    uint64_t applied; /* The last transaction told. */
    uint64_t expected[VERSIONS_MAX];
    uint64_t counted[VERSIONS_MAX];
    uint64_t conflicts;
    bool is_troubled; /* A halt has a reason. */
    bool was_claimed;
    bool has_crashed;
};

/* -- checks -- */

extern uint64_t checked_seed; /* For the message. */

/* Says what did not hold, and ends. */
void ensure(bool holds, const char *fmt, ...) printf_like(2, 3);

void sim_same_state(const struct sim *s);
void sim_check_told(const struct sim *s);
void sim_check_failure(struct sim *s, const struct error *err);
/* What lane, target and judge call; the context is the sim. */
void sim_on_committed(void *context);
void sim_on_applied(void *context, const struct txn *txn);
void sim_on_counted(void *context, const struct relation *rel, uint64_t changes);
void sim_on_conflict(void *context, const struct relation *rel,
                     const struct row_result *result);
enum verdict sim_judge(struct judge *judge, const struct txn *txn, const struct relation *rel);

/* -- the engine's part: what engine/engine.c and engine/apply.c do -- */

void sim_start(struct sim *s);
void sim_stop(struct sim *s);
void sim_restart(struct sim *s);
void sim_feed(struct sim *s, unsigned events);
void sim_work(struct sim *s, bool idle);
void sim_move_checkpoint(struct sim *s);
void sim_release(struct sim *s);
void sim_reopen(struct sim *s);
void sim_try_again(struct sim *s, bool mended);
void sim_close_window(struct sim *s);

#endif
