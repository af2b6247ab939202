/* Transactions that do not fit into memory are the same as those that do. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/txn_fixture.h"

static void insert_numbered(struct fixture *f, uint64_t xid, uint64_t number, size_t filler)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    insert_into(f, &users, xid, xid, text_bytes(text), filler);
}

static void memory_stays_within_its_budget(void **state)
{
    enum { BUDGET = 256 * KIB, CHANGES = 20000, SLACK = 2 * 86 * KIB };
    struct fixture *f = *state;
    open_buffer(f, BUDGET, 0);
    begin(f, 10);
    begin(f, 11);
    for (uint64_t i = 0; i < CHANGES; i++) {
        insert_numbered(f, 10 + (i % 3 == 0), i, 150);
        assert_true(txn_buffer_bytes(f->buffer) <= BUDGET + SLACK);
    }
    commit(f, 11, 1);
    commit(f, 10, 2);
    for (int i = 0; i < 2; i++) {
        struct txn *txn = txn_buffer_take(f->buffer);
        assert_non_null(txn->spill);
        assert_true(txn->bytes > 1000000);
        uint64_t next = i == 0 ? 0 : 1;
        struct txn_cursor c;
        const struct change *change;
        txn_cursor_init(&c, txn);
        for (uint64_t n = 0; n < txn->change_count; n++) {
            assert_true(txn_cursor_next(&c, &change, &f->err));
            struct bytes id = change->after.datums[0].value;
            char text[24] = "";
            memcpy(text, id.data, id.len);
            assert_int_equal(strtoull(text, NULL, 10), next);
            next += i == 0 ? 3 : next % 3 == 1 ? 1 : 2;
        }
        assert_true(txn_cursor_next(&c, &change, &f->err));
        assert_null(change);
        txn_cursor_release(&c);
        txn_free(txn);
    }
    assert_int_equal(txn_buffer_bytes(f->buffer), 0);
}

static void the_biggest_is_spilled_even_if_committed(void **state)
{
    struct fixture *f = *state;
    open_buffer(f, 512 * KIB, 0);
    begin(f, 10);
    for (uint64_t i = 0; i < 400; i++)
        insert_numbered(f, 10, i, 1000);
    commit(f, 10, 1);
    begin(f, 11);
    for (uint64_t i = 0; i < 200; i++)
        insert_numbered(f, 11, i, 1000);
    commit(f, 11, 2);
    struct txn *first = txn_buffer_take(f->buffer);
    struct txn *second = txn_buffer_take(f->buffer);
    assert_non_null(first->spill);
    assert_null(second->spill);
    txn_free(first);
    txn_free(second);
}

/* Keeps the values it was given and looks at them again when the cursor says they will go. */
static size_t read_and_keep(struct fixture *f, uint64_t memory_max)
{
    enum { CHANGES = 3000 };
    open_buffer(f, memory_max, 0);
    begin(f, 10);
    for (uint64_t i = 0; i < CHANGES; i++)
        insert_numbered(f, 10, i, 100);
    commit(f, 10, 1);
    struct txn *txn = txn_buffer_take(f->buffer);
    assert_true((txn->spill == NULL) == (memory_max == MEMORY_PLENTY));
    struct tuple kept[CHANGES];
    size_t first = 0;
    size_t left = 0;
    struct txn_cursor c;
    const struct change *change;
    txn_cursor_init(&c, txn);
    for (size_t i = 0; i < CHANGES; i++) {
        if (txn_cursor_leaves_block(&c)) {
            left++;
            first = i;
        }
        assert_true(txn_cursor_next(&c, &change, &f->err));
        kept[i] = change->after;
        for (size_t k = first; k <= i; k += i + 1 == CHANGES ? 1 : 97) {
            char text[24];
            int len = snprintf(text, sizeof text, "%zu", k);
            assert_int_equal(kept[k].datums[0].value.len, len);
            assert_memory_equal(kept[k].datums[0].value.data, text, (size_t)len);
        }
    }
    txn_cursor_release(&c);
    txn_free(txn);
    return left;
}

static void what_a_cursor_gives_lives_as_long_as_it_says(void **state)
{
    assert_true(read_and_keep(*state, 64 * KIB) >= 3);
    assert_int_equal(read_and_keep(*state, MEMORY_PLENTY), 0);
}

/* The descriptor of the one spill file there is. */
static int spill_descriptor(void)
{
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    int found = -1;
    for (const struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        char target[512] = "";
        if (readlinkat(dirfd(folder), e->d_name, target, sizeof target - 1) > 0 &&
            strstr(target, ".spill") != NULL)
            found = (int)strtol(e->d_name, NULL, 10);
    }
    (void)closedir(folder);
    assert_int_not_equal(found, -1);
    return found;
}

static void a_damaged_spill_is_noticed(void **state)
{
    struct fixture *f = *state;
    open_buffer(f, 64 * KIB, 0);
    begin(f, 10);
    for (uint64_t i = 0; i < 1000; i++)
        insert_numbered(f, 10, i, 100);
    commit(f, 10, 1);
    assert_int_equal(pwrite(spill_descriptor(), "\xff\xff", 2, 20), 2);
    struct txn *txn = txn_buffer_take(f->buffer);
    struct txn_cursor c;
    const struct change *change;
    txn_cursor_init(&c, txn);
    error_clear(&f->err);
    assert_false(txn_cursor_next(&c, &change, &f->err));
    assert_int_equal(f->err.kind, ERROR_DATA);
    txn_cursor_release(&c);
    txn_free(txn);
}

/* ---- the model ---- */

enum { MODEL_TXNS = 4, MODEL_CHANGES = 400, MODEL_DEPTH = 5, MODEL_PARTS = 400 };

struct model_txn {
    uint64_t xid;
    uint64_t parts[MODEL_DEPTH]; /* Open parts, outermost first. */
    size_t part_starts[MODEL_DEPTH];
    size_t done_starts[MODEL_DEPTH];
    size_t depth;
    uint64_t done[MODEL_PARTS]; /* Parts that ended well, so far. */
    size_t done_count;
    uint64_t ids[MODEL_CHANGES];
    size_t count;
};

struct model {
    struct fixture *f;
    uint64_t random;
    uint64_t next_xid;
    uint64_t next_id;
    uint64_t seq;
    struct model_txn txns[MODEL_TXNS];
};

static uint32_t below(struct model *m, uint32_t n)
{
    m->random = m->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(m->random >> 33) % n;
}

static void model_begin(struct model *m, struct model_txn *t)
{
    *t = (struct model_txn){.xid = m->next_xid++};
    begin(m->f, t->xid);
}

static void model_commit(struct model *m, struct model_txn *t)
{
    struct writer w = {0};
    for (size_t i = 0; i < t->count; i++)
        writer_printf(&w, " %llu", (unsigned long long)t->ids[i]);
    commit(m->f, t->xid, ++m->seq);
    expect_txn(m->f, t->xid, m->seq, writer_cstr(&w));
    writer_release(&w);
    model_begin(m, t);
}

static void model_insert(struct model *m, struct model_txn *t)
{
    if (t->count == MODEL_CHANGES)
        return;
    uint64_t part = t->depth == 0 ? t->xid : t->parts[t->depth - 1];
    char text[24];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)m->next_id);
    size_t filler = below(m, 40) == 0 ? 100 * KIB : below(m, 6000);
    insert_into(m->f, &users, t->xid, part, text_bytes(text), filler);
    t->ids[t->count++] = m->next_id++;
}

static void model_begin_part(struct model *m, struct model_txn *t)
{
    if (t->depth == MODEL_DEPTH)
        return;
    t->part_starts[t->depth] = t->count;
    t->done_starts[t->depth] = t->done_count;
    t->parts[t->depth++] = m->next_xid++;
}

static void model_end_part(struct model_txn *t)
{
    if (t->depth > 0 && t->done_count < MODEL_PARTS)
        t->done[t->done_count++] = t->parts[--t->depth];
}

/* As the source tells it: the parts within it first, even those that ended well. */
static void model_abort_part(struct model *m, struct model_txn *t)
{
    if (t->depth == 0)
        return;
    size_t level = below(m, (uint32_t)t->depth);
    while (t->depth > level) {
        t->depth--;
        for (size_t i = t->done_starts[t->depth]; i < t->done_count; i++)
            abort_part(m->f, t->xid, t->done[i]);
        t->done_count = t->done_starts[t->depth];
        abort_part(m->f, t->xid, t->parts[t->depth]);
    }
    t->count = t->part_starts[level];
}

static void model_step(struct model *m)
{
    struct model_txn *t = &m->txns[below(m, MODEL_TXNS)];
    uint32_t what = below(m, 200);
    if (what < 1) {
        model_commit(m, t);
    } else if (what < 2) {
        abort_part(m->f, t->xid, t->xid);
        model_begin(m, t);
    } else if (what < 22) {
        model_begin_part(m, t);
    } else if (what < 32) {
        model_end_part(t);
    } else if (what < 42) {
        model_abort_part(m, t);
    } else {
        model_insert(m, t);
    }
}

static void random_parts_abort_alike_in_memory_and_spilled(void **state)
{
    enum { SEEDS = 30, STEPS = 1500 };
    struct fixture *f = *state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        open_buffer(f, seed % 3 == 0 ? MEMORY_PLENTY : 200 * KIB, 0);
        struct model m = {.f = f, .random = seed, .next_xid = 100};
        for (size_t i = 0; i < MODEL_TXNS; i++)
            model_begin(&m, &m.txns[i]);
        for (size_t i = 0; i < STEPS; i++)
            model_step(&m);
        for (size_t i = 0; i < MODEL_TXNS; i++)
            model_commit(&m, &m.txns[i]);
        assert_int_equal(txn_buffer_bytes(f->buffer), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        buffer_test(memory_stays_within_its_budget),
        buffer_test(the_biggest_is_spilled_even_if_committed),
        buffer_test(what_a_cursor_gives_lives_as_long_as_it_says),
        buffer_test(a_damaged_spill_is_noticed),
        buffer_test(random_parts_abort_alike_in_memory_and_spilled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
