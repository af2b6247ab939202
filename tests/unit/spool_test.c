#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "tests/unit/spool_kit.h"

enum { MANY = 20000, TINY_MEMORY = 32 << 10 };

static struct spool_stats stats_of(const struct kit *k)
{
    struct spool_stats stats;
    spool_stats(k->spool, &stats);
    return stats;
}

static void frames_come_back_from_memory(void **state)
{
    struct kit *k = *state;
    kit_open(k);
    assert_int_equal(kit_read(k, 1, 0), 0);
    kit_put(k, 1);
    assert_int_equal(kit_read(k, 1, 0), 1); /* A data frame, at once: nothing has sealed it. */
    kit_put(k, MANY);
    assert_int_equal(kit_read(k, MANY, 1000), MANY);
    assert_int_equal(kit_read(k, 1, 0), 0);
}

static void frames_come_back_from_disk_when_memory_is_bounded(void **state)
{
    struct kit *k = *state;
    k->options.memory_max = TINY_MEMORY;
    kit_open(k);
    kit_put(k, MANY);
    kit_wait_durable(k);
    assert_true(stats_of(k).memory_bytes <= TINY_MEMORY);
    assert_int_equal(kit_read(k, MANY / 2, 1000), MANY / 2);
    kit_put(k, MANY);
    assert_int_equal(kit_read(k, MANY + MANY / 2, 1000), MANY + MANY / 2);
    kit_put(k, 10);
    assert_int_equal(kit_read(k, 10, 1000), 10);
    assert_true(stats_of(k).memory_bytes <= TINY_MEMORY * 2);
}

static void reopening_gives_all_frames_and_continues_the_seq(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    kit_open(k);
    for (int i = 0; i < 3; i++) {
        kit_put(k, 400);
        assert_true(spool_begin_segment(k->spool, &err));
        assert_true(spool_begin_segment(k->spool, &err)); /* Makes no gap. */
        kit_put(k, 402);
        kit_close(k);
        kit_open(k);
        struct spool_stats stats = stats_of(k);
        assert_int_equal(stats.appended.first_seq, 1);
        assert_int_equal(stats.appended.last_seq, kit_seq_at(k->put));
        assert_int_equal(stats.durable.last_seq, kit_seq_at(k->put));
        char pos[32];
        snprintf(pos, sizeof pos, "0/%llX", (unsigned long long)(k->put / 4 * 4 - 1));
        assert_string_equal(stats.appended.last_pos.text, pos);
        assert_int_equal(kit_read(k, k->put + 1, 0), k->put);
    }
}

static void a_frame_longer_than_memory_passes(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    k->options.memory_max = TINY_MEMORY;
    enum { LONG = 1 << 20 };
    uint8_t *body = malloc(LONG);
    assert_non_null(body);
    for (size_t i = 0; i < LONG; i++)
        body[i] = (uint8_t)(i * i >> 7);
    kit_open(k);
    for (int i = 0; i < 4; i++) {
        struct frame frame = {.kind = FRAME_COMMIT, .pos = BYTES("0/1"), .body = {body, LONG}};
        bool full = true;
        while (full) {
            assert_true(spool_append(k->spool, &frame, &full, &err));
            usleep(1000);
        }
    }
    kit_wait_durable(k);
    for (int i = 0; i < 4; i++) {
        struct frame frame;
        bool got = false;
        assert_true(spool_read(k->spool, 1000, &frame, &k->segment, &got, &err));
        assert_true(got);
        assert_true(bytes_equal(frame.body, (struct bytes){body, LONG}));
    }
    free(body);
}

static void a_preface_is_given_where_it_stands(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    kit_open(k);
    kit_put(k, 8);
    assert_true(spool_begin_segment(k->spool, &err));
    struct frame preface = {.kind = FRAME_PREFACE, .body = BYTES("relation")};
    bool full = true;
    assert_true(spool_append(k->spool, &preface, &full, &err));
    assert_int_equal(preface.seq, 2);
    kit_put(k, 8);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(kit_read(k, 8, 100), 8);
        struct frame frame;
        bool got = false;
        assert_true(spool_read(k->spool, 100, &frame, &k->segment, &got, &err));
        assert_true(got && frame.kind == FRAME_PREFACE && frame.seq == 2);
        assert_true(bytes_equal(frame.body, preface.body));
        assert_int_equal(k->segment, 2);
        assert_int_equal(kit_read(k, 8, 100), 8);
        kit_close(k);
        kit_open(k);
    }
}

/* Five segments of 100 boundaries. */
static void fill_segments(struct kit *k)
{
    struct error err = {0};
    kit_open(k);
    for (int i = 0; i < 5; i++) {
        if (i > 0)
            assert_true(spool_begin_segment(k->spool, &err));
        kit_put(k, 400);
        kit_wait_durable(k);
    }
}

static void wait_first_seq(const struct kit *k, uint64_t seq)
{
    for (int i = 0; i < 5000 && stats_of(k).appended.first_seq != seq; i++)
        usleep(1000);
    assert_int_equal(stats_of(k).appended.first_seq, seq);
}

static void release_deletes_only_what_may_go(void **state)
{
    struct kit *k = *state;
    fill_segments(k);
    spool_release(k->spool, 500, 3);
    usleep(20000);
    assert_true(kit_exists(k, 1)); /* The reader has not been there. */
    assert_int_equal(kit_read(k, 2000, 100), 2000);
    assert_int_equal(k->segment, 5);
    uint64_t disk = stats_of(k).disk_bytes;
    spool_release(k->spool, 99, 2);
    wait_first_seq(k, 201); /* By the first call; this takes nothing back. */
    assert_false(kit_exists(k, 1) || kit_exists(k, 2));
    assert_true(kit_exists(k, 3) && kit_exists(k, 4));
    assert_true(stats_of(k).disk_bytes < disk);
    spool_release(k->spool, 500, 99);
    wait_first_seq(k, 401);
    assert_true(kit_exists(k, 5)); /* Never the current one. */
    kit_close(k);
    k->read = 1600;
    struct error err = {0};
    assert_true(spool_open(&k->options, &k->spool, &err));
    assert_int_equal(stats_of(k).appended.first_seq, 401);
    assert_int_equal(stats_of(k).appended.last_seq, 500);
    assert_int_equal(kit_read(k, 401, 0), 400);
}

static void release_waits_for_seq_and_for_the_next_file(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    kit_open(k);
    kit_put(k, 400);
    kit_wait_durable(k);
    assert_int_equal(kit_read(k, 400, 100), 400);
    assert_true(spool_begin_segment(k->spool, &err));
    spool_release(k->spool, 99, 2);
    usleep(20000);
    spool_release(k->spool, 100, 2);
    usleep(20000);
    assert_true(kit_exists(k, 1)); /* Nothing says yet where segment 2 begins. */
    kit_put(k, 4);
    wait_first_seq(k, 101);
    assert_false(kit_exists(k, 1));
}

static void a_full_disk_bound_refuses_until_released(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    k->options.disk_max = 200 << 10;
    k->options.segment_bytes = 20 << 10;
    kit_open(k);
    bool refused = false;
    while (!refused) {
        refused = !kit_try_put(k) && (usleep(20000), !kit_try_put(k));
        if (k->put % 4 == 0 && spool_wants_segment(k->spool))
            assert_true(spool_begin_segment(k->spool, &err));
        assert_true(k->put < 100000);
    }
    kit_wait_durable(k);
    assert_true(stats_of(k).disk_bytes <= k->options.disk_max);
    assert_int_equal(kit_read(k, k->put, 100), k->put);
    spool_release(k->spool, kit_seq_at(k->put), k->segment);
    kit_put(k, 100);
    assert_int_equal(kit_read(k, 100, 100), 100);
}

static void a_disk_that_refuses_is_reported_and_tried_again(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    struct rlimit old;
    log_set_level(LOG_ERROR + 1);
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    kit_open(k);
    kit_put(k, 400);
    kit_wait_durable(k);
    struct rlimit tight = {4096, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    kit_put(k, 4); /* The first boundary wakes the flusher; more might be refused already. */
    for (int i = 0; i < 5000 && spool_healthy(k->spool, &err); i++)
        usleep(1000);
    assert_int_equal(err.kind, ERROR_DISK);
    assert_non_null(strstr(err.text, k->folder));
    assert_non_null(strstr(err.text, "File too large"));
    assert_true(err.hint[0] != '\0');
    uint8_t body[512];
    char pos[32];
    struct frame frame = kit_frame(3, body, pos);
    bool full = true;
    error_clear(&err);
    assert_false(spool_append(k->spool, &frame, &full, &err));
    assert_int_equal(err.kind, ERROR_DISK);
    assert_int_equal(stats_of(k).durable.last_seq, 100);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    kit_wait_durable(k);
    error_clear(&err);
    assert_true(spool_healthy(k->spool, &err));
    kit_put(k, 400);
    assert_int_equal(kit_read(k, 804, 100), 804);
    kit_close(k);
    kit_open(k);
    assert_int_equal(kit_read(k, 805, 0), 804);
    log_set_level(LOG_INFO);
}

static void restart_drops_all_and_begins_behind_a_boundary(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    fill_segments(k);
    kit_close(k);
    assert_true(spool_open(&k->options, &k->spool, &err));
    assert_true(spool_restart(k->spool, 7000, &(struct position){3, "9/9"}, &err));
    struct spool_stats stats = stats_of(k);
    assert_int_equal(stats.appended.first_seq, 7001);
    assert_int_equal(stats.durable.last_seq, 7000);
    assert_string_equal(stats.durable.last_pos.text, "9/9");
    assert_false(kit_exists(k, 1) || kit_exists(k, 5));
    kit_close(k);
    kit_open(k);
    assert_int_equal(stats_of(k).appended.last_seq, 7000);
    assert_string_equal(stats_of(k).appended.last_pos.text, "9/9");
    k->put = 0;
    k->seq_base = 7000;
    kit_put(k, 100);
    assert_int_equal(kit_read(k, 101, 0), 100);
}

static void without_a_disk_memory_is_the_bound(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    k->options.durable = false;
    k->options.memory_max = 1 << 20;
    k->options.segment_bytes = 100 << 10;
    kit_open(k);
    while (kit_try_put(k))
        assert_true(k->put < 100000);
    assert_true(k->put > 1000);
    assert_true(stats_of(k).memory_bytes <= 1 << 20);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(kit_read(k, 100, 0), 100);
        for (int added = 0; added < 100; added++) {
            (void)kit_try_put(k);
            if (k->put % 4 == 0 && spool_wants_segment(k->spool))
                assert_true(spool_begin_segment(k->spool, &err));
        }
        spool_release(k->spool, kit_seq_at(k->read), k->segment);
    }
    assert_true(k->segment > 10);
    assert_true(stats_of(k).appended.first_seq > 1000);
    assert_int_equal(stats_of(k).durable.last_seq, 0);
    assert_int_equal(stats_of(k).disk_bytes, 0);
    assert_false(kit_exists(k, 1));
}

static void one_block_of_memory_is_never_a_dead_end(void **state)
{
    struct kit *k = *state;
    for (int durable = 0; durable < 2; durable++) {
        k->options.durable = durable;
        k->options.memory_max = 1;
        kit_open(k);
        k->put = k->segment = 0;
        for (int i = 0; i < 2000; i++) {
            while (!kit_try_put(k))
                (void)kit_read(k, 1, 0);
        }
        kit_read(k, k->put - k->read, 1000);
        assert_int_equal(k->read, k->put);
        kit_close(k);
    }
}

/* ---- threads ---- */

enum { RUN = 200000 };

static void *produce(void *kit)
{
    struct kit *k = kit;
    struct error err = {0};
    while (k->put < RUN) {
        uint8_t body[512];
        char pos[32];
        struct frame frame = kit_frame(k->put, body, pos);
        bool full = true;
        check(spool_append(k->spool, &frame, &full, &err));
        if (full)
            usleep(500);
        k->put += !full;
        if (k->put % 4 == 0 && spool_wants_segment(k->spool))
            check(spool_begin_segment(k->spool, &err));
    }
    return NULL;
}

static void run_threads(struct kit *k, bool durable, uint64_t memory_max)
{
    k->options.durable = durable;
    k->options.memory_max = memory_max;
    k->options.segment_bytes = 4 << 20;
    k->put = k->segment = 0;
    kit_open(k);
    struct kit reader = *k;
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, produce, k), 0);
    while (reader.read < RUN) {
        (void)kit_read(&reader, 1000, 10);
        if (reader.read % 3000 < 1000)
            spool_release(k->spool, kit_seq_at(reader.read), reader.segment);
        if (memory_max < 1 << 20 && reader.read < RUN / 4)
            usleep(2000); /* Falls behind, then catches up. */
    }
    assert_int_equal(pthread_join(producer, NULL), 0);
    assert_int_equal(kit_read(&reader, 1, 0), 0);
    if (durable)
        kit_wait_durable(k);
    kit_close(k);
}

static void two_threads_share_it_in_memory(void **state)
{
    run_threads(*state, false, 8 << 20);
}
static void two_threads_share_it_durably(void **state) { run_threads(*state, true, 64 << 20); }
static void two_threads_share_it_over_the_disk(void **state)
{
    run_threads(*state, true, 512 << 10);
}

#define kit_test(name) cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(frames_come_back_from_memory),
        kit_test(frames_come_back_from_disk_when_memory_is_bounded),
        kit_test(reopening_gives_all_frames_and_continues_the_seq),
        kit_test(a_frame_longer_than_memory_passes),
        kit_test(a_preface_is_given_where_it_stands),
        kit_test(release_deletes_only_what_may_go),
        kit_test(release_waits_for_seq_and_for_the_next_file),
        kit_test(a_full_disk_bound_refuses_until_released),
        kit_test(a_disk_that_refuses_is_reported_and_tried_again),
        kit_test(restart_drops_all_and_begins_behind_a_boundary),
        kit_test(without_a_disk_memory_is_the_bound),
        kit_test(one_block_of_memory_is_never_a_dead_end),
        kit_test(two_threads_share_it_in_memory),
        kit_test(two_threads_share_it_durably),
        kit_test(two_threads_share_it_over_the_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
