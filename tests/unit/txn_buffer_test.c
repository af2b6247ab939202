/* Transactions out of events: what is kept, in which order, and in which form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/base/arena.h"
#include "tests/unit/txn_fixture.h"

/* ---- what is kept ---- */

static void interleaved_transactions_come_in_commit_order(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    insert(f, 10, 10, "a");
    begin(f, 11);
    insert(f, 11, 11, "b");
    insert(f, 10, 10, "c");
    commit(f, 11, 1);
    insert(f, 10, 10, "d");
    commit(f, 10, 2);
    assert_false(txn_buffer_is_empty(f->buffer));
    expect_txn(f, 11, 1, " b");
    expect_txn(f, 10, 2, " a c d");
    assert_true(txn_buffer_is_empty(f->buffer));
    assert_null(txn_buffer_take(f->buffer));
    assert_int_equal(txn_buffer_bytes(f->buffer), 0);
}

static void a_commit_without_changes_is_given(void **state)
{
    struct fixture *f = *state;
    commit(f, 10, 1);
    expect_txn(f, 10, 1, "");
}

static void an_aborted_transaction_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    insert(f, 10, 10, "a");
    insert(f, 10, 12, "b");
    abort_part(f, 10, 10);
    abort_part(f, 99, 99);
    assert_int_equal(txn_buffer_bytes(f->buffer), 0);
    begin(f, 10);
    insert(f, 10, 12, "c");
    commit(f, 10, 1);
    expect_txn(f, 10, 1, " c");
}

static void an_aborted_part_takes_all_behind_its_first_change(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    insert(f, 10, 10, "a");
    insert(f, 10, 11, "b");
    insert(f, 10, 12, "c");
    insert(f, 10, 11, "d");
    abort_part(f, 10, 99);
    abort_part(f, 10, 12);
    abort_part(f, 10, 11);
    abort_part(f, 10, 12);
    insert(f, 10, 10, "e");
    insert(f, 10, 13, "f");
    insert(f, 10, 11, "g");
    abort_part(f, 10, 11);
    abort_part(f, 99, 98);
    commit(f, 10, 1);
    expect_txn(f, 10, 1, " a e f");
}

static void a_part_aborted_before_any_other_change_leaves_an_empty_transaction(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    insert(f, 10, 11, "a");
    abort_part(f, 10, 11);
    assert_int_equal(txn_buffer_bytes(f->buffer), 0);
    commit(f, 10, 1);
    expect_txn(f, 10, 1, "");
}

static void a_reset_drops_what_is_open_and_keeps_what_is_committed(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    insert(f, 10, 10, "a");
    begin(f, 11);
    insert(f, 11, 11, "b");
    commit(f, 11, 1);
    reset(f);
    begin(f, 10);
    insert(f, 10, 10, "c");
    commit(f, 10, 2);
    expect_txn(f, 11, 1, " b");
    expect_txn(f, 10, 2, " c");
}

static void what_the_target_has_is_dropped(void **state)
{
    struct fixture *f = *state;
    open_buffer(f, MEMORY_PLENTY, 5);
    begin(f, 10);
    insert(f, 10, 10, "a");
    commit(f, 10, 5);
    commit(f, 11, 5);
    progress(f, 5);
    assert_true(txn_buffer_is_empty(f->buffer));
    assert_int_equal(txn_buffer_bytes(f->buffer), 0);
    uint64_t seq;
    struct position pos;
    assert_false(txn_buffer_progress(f->buffer, &seq, &pos));
    commit(f, 12, 6);
    expect_txn(f, 12, 6, "");
}

static void a_transaction_without_beginning_may_only_be_skipped(void **state)
{
    struct fixture *f = *state;
    open_buffer(f, MEMORY_PLENTY, 5);
    insert(f, 10, 10, "a");
    insert(f, 10, 11, "b");
    abort_part(f, 10, 11);
    commit(f, 10, 5);
    insert(f, 12, 12, "c");
    abort_part(f, 12, 12);
    insert(f, 13, 13, "d");
    assert_int_equal(txn_buffer_oldest_segment(f->buffer, 42), 42);
    struct event event = commit_event(13, 6);
    assert_false(try_put(f, &event));
    assert_int_equal(f->err.kind, ERROR_DATA);
    assert_string_equal(f->err.text, "transaction 13 has no beginning in the spool");
    assert_true(txn_buffer_is_empty(f->buffer));
}

static void a_second_beginning_is_refused(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    assert_false(try_put(f, &(struct event){.kind = EVENT_BEGIN, .xid = 10}));
    assert_int_equal(f->err.kind, ERROR_DATA);
}

static void progress_waits_for_what_was_committed_before(void **state)
{
    struct fixture *f = *state;
    uint64_t seq = 0;
    struct position pos;
    assert_false(txn_buffer_progress(f->buffer, &seq, &pos));
    begin(f, 10);
    progress(f, 1);
    progress(f, 2);
    assert_true(txn_buffer_progress(f->buffer, &seq, &pos));
    assert_int_equal(seq, 2);
    assert_string_equal(pos.text, "0/CD");
    assert_false(txn_buffer_progress(f->buffer, &seq, &pos));
    commit(f, 10, 3);
    progress(f, 4);
    assert_false(txn_buffer_progress(f->buffer, &seq, &pos));
    expect_txn(f, 10, 3, "");
    assert_true(txn_buffer_progress(f->buffer, &seq, &pos));
    assert_int_equal(seq, 4);
    progress(f, 5);
    commit(f, 11, 6);
    expect_txn(f, 11, 6, "");
    assert_false(txn_buffer_progress(f->buffer, &seq, &pos));
}

static void our_own_tables_are_not_stored(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    insert_into(f, &barriers, 10, 10, BYTES("18446744073709551615"), 0);
    insert_into(f, &ours, 10, 10, BYTES("1"), 0);
    commit(f, 10, 1);
    struct txn *txn = txn_buffer_take(f->buffer);
    assert_true(txn->barrier == UINT64_MAX);
    assert_int_equal(txn->change_count, 0);
    txn_free(txn);
    begin(f, 11);
    struct datum datums[] = {{DATUM_TEXT, BYTES_INIT("18446744073709551616")},
                             {DATUM_NULL, {0}}};
    struct change change = {
        .kind = CHANGE_UPDATE, .relation = &barriers, .after = {IMAGE_ROW, 2, datums}};
    struct event event = {.kind = EVENT_CHANGE, .xid = 11, .subxid = 11, .change = &change};
    assert_false(try_put(f, &event));
    assert_int_equal(f->err.kind, ERROR_DATA);
}

static void a_barrier_of_an_aborted_part_is_none(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    insert_into(f, &barriers, 10, 11, BYTES("7"), 0);
    abort_part(f, 10, 11);
    commit(f, 10, 1);
    struct txn *txn = txn_buffer_take(f->buffer);
    assert_int_equal(txn->barrier, 0);
    txn_free(txn);
}

static void the_oldest_segment_is_that_of_the_oldest_open_transaction(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(txn_buffer_oldest_segment(f->buffer, 9), 9);
    txn_buffer_at_segment(f->buffer, 3);
    begin(f, 10);
    txn_buffer_at_segment(f->buffer, 4);
    begin(f, 11);
    assert_int_equal(txn_buffer_oldest_segment(f->buffer, 9), 3);
    commit(f, 10, 1);
    assert_int_equal(txn_buffer_oldest_segment(f->buffer, 9), 4);
    abort_part(f, 11, 11);
    assert_int_equal(txn_buffer_oldest_segment(f->buffer, 9), 9);
    struct txn *txn = txn_buffer_take(f->buffer);
    assert_int_equal(txn->first_segment, 3);
    txn_free(txn);
}

/* ---- the serialised form ---- */

static void put_change(struct fixture *f, uint64_t xid, const struct change *change)
{
    put(f, &(struct event){.kind = EVENT_CHANGE, .xid = xid, .subxid = xid, .change = change});
}

static void assert_tuple(const struct tuple *a, const struct tuple *b)
{
    assert_int_equal(a->image, b->image);
    assert_int_equal(a->count, b->count);
    for (uint16_t i = 0; i < a->count; i++) {
        assert_int_equal(a->datums[i].kind, b->datums[i].kind);
        assert_true(bytes_equal(a->datums[i].value, b->datums[i].value));
    }
}

static void every_kind_of_change_comes_back_as_it_was(void **state)
{
    struct fixture *f = *state;
    static uint8_t long_text[3 * 64 * KIB];
    memset(long_text, 'q', sizeof long_text);
    static const size_t lengths[] = {0, 1, 251, 252, 253, 254, 255, 256, 65536, 196608};
    struct arena a = {0};
    struct change made[3 * array_count(lengths)];
    size_t count = 0;
    begin(f, 10);
    for (size_t i = 0; i < array_count(lengths); i++) {
        struct datum *d = arena_array(&a, struct datum, 4);
        d[0] = (struct datum){DATUM_TEXT, {long_text, lengths[i]}};
        d[1] = (struct datum){.kind = i % 2 == 0 ? DATUM_NULL : DATUM_UNCHANGED};
        d[2] = (struct datum){.kind = DATUM_TEXT, .value = {long_text, i}};
        struct tuple row = {IMAGE_ROW, 2, d};
        struct tuple key = {IMAGE_KEY, 2, d + 2};
        made[count++] =
            (struct change){.kind = CHANGE_INSERT, .relation = &users, .after = row};
        made[count++] = (struct change){
            .kind = CHANGE_UPDATE, .relation = &users, .before = key, .after = row};
        made[count++] =
            (struct change){.kind = CHANGE_DELETE, .relation = &users, .before = key};
    }
    for (size_t i = 0; i < count; i++)
        put_change(f, 10, &made[i]);
    commit(f, 10, 1);
    struct txn *txn = txn_buffer_take(f->buffer);
    struct txn_cursor c;
    const struct change *change;
    txn_cursor_init(&c, txn);
    for (size_t i = 0; i < count; i++) {
        assert_true(txn_cursor_next(&c, &change, &f->err));
        assert_int_equal(change->kind, made[i].kind);
        assert_ptr_equal(change->relation, made[i].relation);
        assert_tuple(&change->before, &made[i].before);
        assert_tuple(&change->after, &made[i].after);
        assert_false(txn_cursor_leaves_block(&c));
    }
    assert_true(txn_cursor_next(&c, &change, &f->err));
    assert_null(change);
    txn_cursor_release(&c);
    txn_free(txn);
    arena_clear(&a);
}

static void a_truncate_names_the_users_tables(void **state)
{
    struct fixture *f = *state;
    const struct relation *truncated[] = {&ours, &users, &barriers};
    struct change change = {.kind = CHANGE_TRUNCATE,
                            .relation = &ours,
                            .truncated_count = 3,
                            .truncated = truncated,
                            .restart_identity = true};
    begin(f, 10);
    put_change(f, 10, &change);
    change.truncated_count = 1;
    put_change(f, 10, &change);
    commit(f, 10, 1);
    struct txn *txn = txn_buffer_take(f->buffer);
    assert_int_equal(txn->change_count, 1);
    struct txn_cursor c;
    const struct change *got;
    txn_cursor_init(&c, txn);
    assert_true(txn_cursor_next(&c, &got, &f->err));
    assert_int_equal(got->kind, CHANGE_TRUNCATE);
    assert_int_equal(got->truncated_count, 1);
    assert_ptr_equal(got->truncated[0], &users);
    assert_ptr_equal(got->relation, &users);
    assert_true(got->restart_identity);
    txn_cursor_release(&c);
    txn_free(txn);
}

static void a_taken_transaction_counts_until_it_is_freed(void **state)
{
    struct fixture *f = *state;
    begin(f, 10);
    insert(f, 10, 10, "a");
    commit(f, 10, 1);
    struct txn *txn = txn_buffer_take(f->buffer);
    assert_true(txn_buffer_bytes(f->buffer) > 0);
    txn_buffer_free(f->buffer);
    f->buffer = NULL;
    txn_free(txn);
    open_buffer(f, MEMORY_PLENTY, 0);
    assert_int_equal(txn_buffer_bytes(f->buffer), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        buffer_test(interleaved_transactions_come_in_commit_order),
        buffer_test(a_commit_without_changes_is_given),
        buffer_test(an_aborted_transaction_leaves_nothing),
        buffer_test(an_aborted_part_takes_all_behind_its_first_change),
        buffer_test(a_part_aborted_before_any_other_change_leaves_an_empty_transaction),
        buffer_test(a_reset_drops_what_is_open_and_keeps_what_is_committed),
        buffer_test(what_the_target_has_is_dropped),
        buffer_test(a_transaction_without_beginning_may_only_be_skipped),
        buffer_test(a_second_beginning_is_refused),
        buffer_test(progress_waits_for_what_was_committed_before),
        buffer_test(our_own_tables_are_not_stored),
        buffer_test(a_barrier_of_an_aborted_part_is_none),
        buffer_test(the_oldest_segment_is_that_of_the_oldest_open_transaction),
        buffer_test(every_kind_of_change_comes_back_as_it_was),
        buffer_test(a_truncate_names_the_users_tables),
        buffer_test(a_taken_transaction_counts_until_it_is_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
