/* What a spool makes of files that are not as it left them. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "tests/unit/spool_kit.h"

/* Only a boundary wakes the flusher: four frames, the last of them one, are one block. */
enum { BLOCKS = 3, PER_BLOCK = 4 };

/* One segment of three blocks, each made durable before the next was written, and a copy of it.
 */
struct sample {
    struct writer whole;
    struct writer broken;
    size_t ends[BLOCKS + 1]; /* Of the header, of block 1… */
};

static void sample_make(struct kit *k, struct sample *s)
{
    *s = (struct sample){0};
    kit_open(k);
    for (int i = 0; i <= BLOCKS; i++) {
        kit_load(k, 1, &s->whole);
        s->ends[i] = s->whole.len;
        if (i == BLOCKS)
            break;
        kit_put(k, PER_BLOCK);
        kit_wait_durable(k);
    }
    kit_close(k);
    kit_load(k, 1, &s->whole);
    s->ends[BLOCKS] = s->whole.len;
    log_set_level(LOG_ERROR);
}

static void sample_drop(struct sample *s)
{
    writer_release(&s->whole);
    writer_release(&s->broken);
    log_set_level(LOG_INFO);
}

/* The whole file with one byte changed. */
static void save_flipped(struct kit *k, struct sample *s, size_t at)
{
    writer_clear(&s->broken);
    writer_bytes(&s->broken, writer_view(&s->whole));
    s->broken.data[at] ^= 0x41;
    kit_save(k, 1, writer_view(&s->broken));
}

/* It opens, holds `frames` frames, and takes more behind them that are there afterwards. */
static void assert_holds(struct kit *k, uint64_t frames)
{
    struct spool_extent extent;
    kit_open(k);
    spool_extent(k->spool, &extent);
    assert_int_equal(extent.last_seq, kit_seq_at(frames));
    assert_int_equal(kit_read(k, UINT64_MAX, 0), frames);
    k->put = frames;
    kit_put(k, 4);
    kit_close(k);
    kit_open(k);
    assert_int_equal(kit_read(k, UINT64_MAX, 0), frames + 4);
    kit_close(k);
}

static void a_tail_torn_at_any_byte_is_cut(void **state)
{
    struct kit *k = *state;
    struct sample s;
    sample_make(k, &s);
    assert_true(s.ends[0] < s.ends[1] && s.ends[2] < s.ends[3]);
    for (size_t len = s.ends[2]; len < s.ends[3]; len++) {
        kit_save(k, 1, (struct bytes){s.whole.data, len});
        assert_holds(k, 2 * PER_BLOCK);
    }
    sample_drop(&s);
}

static void any_wrong_byte_in_the_last_block_cuts_it(void **state)
{
    struct kit *k = *state;
    struct sample s;
    sample_make(k, &s);
    for (size_t at = s.ends[2]; at < s.ends[3]; at++) {
        save_flipped(k, &s, at);
        assert_holds(k, 2 * PER_BLOCK);
    }
    sample_drop(&s);
}

static void a_file_extended_by_zeros_is_cut(void **state)
{
    struct kit *k = *state;
    struct sample s;
    sample_make(k, &s);
    writer_bytes(&s.broken, writer_view(&s.whole));
    for (int i = 0; i < 5000; i++)
        writer_u8(&s.broken, 0);
    kit_save(k, 1, writer_view(&s.broken));
    assert_holds(k, 3 * PER_BLOCK);
    sample_drop(&s);
}

static void any_wrong_byte_before_is_refused(void **state)
{
    struct kit *k = *state;
    struct sample s;
    sample_make(k, &s);
    for (size_t at = 0; at < s.ends[2]; at++) {
        char text[64] = "";
        save_flipped(k, &s, at);
        size_t block = at < s.ends[1] ? s.ends[0] : s.ends[1];
        if (at >= s.ends[0])
            snprintf(text, sizeof text, "0001.spool is damaged at byte %zu", block);
        kit_refused(k, 1, ERROR_LOST, text);
    }
    sample_drop(&s);
}

/* Two blocks written with one sync may reach the disk in any order. */
static void a_torn_group_is_cut_though_its_end_is_good(void **state)
{
    struct kit *k = *state;
    struct sample s;
    uint8_t body[512];
    char pos[32];
    sample_make(k, &s);
    writer_bytes(&s.broken, (struct bytes){s.whole.data, s.ends[1]});
    struct writer content = {0};
    struct writer stored = {0};
    for (uint64_t i = 0; i < 2; i++) {
        writer_clear(&content);
        for (uint64_t n = 0; n < PER_BLOCK; n++) {
            struct frame frame = kit_frame((i + 1) * PER_BLOCK + n, body, pos);
            segment_put_frame(writer_room(&content, segment_frame_size(&frame)), &frame);
            content.len += segment_frame_size(&frame);
        }
        struct segment_block b = {.offset = s.broken.len,
                                  .synced = s.ends[1],
                                  .seq_before = kit_seq_at((i + 1) * PER_BLOCK),
                                  .frames = PER_BLOCK};
        segment_pack(1, writer_view(&content), &b, &stored);
        writer_bytes(&s.broken, writer_view(&stored));
    }
    kit_save(k, 1, writer_view(&s.broken));
    assert_holds(k, 3 * PER_BLOCK); /* The group was made as the spool makes it. */
    s.broken.data[s.ends[1] + 50] ^= 1;
    kit_save(k, 1, writer_view(&s.broken));
    assert_holds(k, PER_BLOCK);
    writer_release(&content);
    writer_release(&stored);
    sample_drop(&s);
}

static void put_noise(struct writer *out, size_t len)
{
    uint64_t x = 88172645463325252;
    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        writer_u8(out, (uint8_t)(x >> 32));
    }
}

/* A frame may carry a block of a spool file; torn, it must not look like damage. */
static void a_block_inside_a_frame_is_no_block(void **state)
{
    struct kit *k = *state;
    struct error err = {0};
    struct sample s;
    sample_make(k, &s);
    struct writer body = {0};
    struct writer inner = {0};
    uint8_t content[5];
    segment_put_frame(content, &(struct frame){.kind = FRAME_RESET});
    /* One that would prove, if it counted, that the torn block had been durable. */
    struct segment_block b = {.offset = 77, .synced = s.ends[BLOCKS] + 1, .frames = 1};
    segment_pack(1, (struct bytes){content, sizeof content}, &b, &inner);
    put_noise(&body, 3000); /* Keeps LZ4 from packing what is in it. */
    writer_bytes(&body, writer_view(&inner));
    put_noise(&body, 100);
    kit_open(k);
    struct frame frame = {
        .kind = FRAME_COMMIT, .pos = BYTES("0/F"), .body = writer_view(&body)};
    bool full = true;
    assert_true(spool_append(k->spool, &frame, &full, &err));
    kit_close(k);
    kit_load(k, 1, &s.broken);
    assert_non_null(memmem(s.broken.data, s.broken.len, inner.data, inner.len));
    s.broken.data[s.broken.len - 1] ^= 1;
    kit_save(k, 1, writer_view(&s.broken));
    assert_holds(k, 3 * PER_BLOCK);
    writer_release(&body);
    writer_release(&inner);
    sample_drop(&s);
}

static void another_identity_is_refused(void **state)
{
    struct kit *k = *state;
    struct sample s;
    sample_make(k, &s);
    k->options.identity = "system 8 slot teal";
    kit_refused(k, 1, ERROR_LOST, "another stream: system 7 slot teal");
    sample_drop(&s);
}

static void fill_segments(struct kit *k, int count)
{
    struct error err = {0};
    kit_open(k);
    for (int i = 0; i < count; i++) {
        if (i > 0)
            assert_true(spool_begin_segment(k->spool, &err));
        kit_put(k, PER_BLOCK);
        kit_wait_durable(k);
        kit_put(k, PER_BLOCK);
        kit_wait_durable(k);
    }
    kit_close(k);
}

static void a_missing_segment_is_refused(void **state)
{
    struct kit *k = *state;
    char path[PATH_MAX];
    fill_segments(k, 3);
    kit_path(k, 2, path);
    assert_int_equal(unlink(path), 0);
    kit_refused(k, 3, ERROR_LOST, "one is missing");
}

static void a_segment_under_another_name_is_refused(void **state)
{
    struct kit *k = *state;
    struct writer bytes = {0};
    fill_segments(k, 2);
    kit_load(k, 1, &bytes);
    kit_save(k, 2, writer_view(&bytes));
    kit_refused(k, 2, ERROR_LOST, "not made under this name");
    writer_release(&bytes);
}

/* Reads until an error and returns it; `frames` says how many came before. */
static struct error read_to_error(struct kit *k, uint64_t *frames)
{
    struct error err = {0};
    bool got = true;
    assert_true(spool_open(&k->options, &k->spool, &err));
    for (*frames = 0; got; ++*frames) {
        struct frame frame;
        if (!spool_read(k->spool, 0, &frame, &k->segment, &got, &err))
            break;
    }
    kit_close(k);
    return err;
}

static void damage_in_an_earlier_segment_is_found_when_read(void **state)
{
    struct kit *k = *state;
    struct writer whole = {0};
    uint64_t frames = 0;
    fill_segments(k, 3);
    kit_load(k, 2, &whole);
    whole.data[whole.len - 3] ^= 1;
    kit_save(k, 2, writer_view(&whole));
    struct error err = read_to_error(k, &frames);
    assert_int_equal(err.kind, ERROR_DATA);
    assert_non_null(strstr(err.text, "0002.spool is damaged at byte"));
    assert_int_equal(frames, 3 * PER_BLOCK);
    writer_release(&whole);
}

static void an_earlier_segment_that_lost_its_last_block_is_found(void **state)
{
    struct kit *k = *state;
    struct writer whole = {0};
    uint64_t frames = 0;
    fill_segments(k, 3);
    kit_load(k, 2, &whole);
    const uint8_t *last = memmem(whole.data, whole.len, "TSBK", 4);
    assert_non_null(last);
    last = memmem(last + 4, whole.len - (size_t)(last + 4 - whole.data), "TSBK", 4);
    assert_non_null(last);
    kit_save(k, 2, (struct bytes){whole.data, (size_t)(last - whole.data)});
    struct error err = read_to_error(k, &frames);
    assert_int_equal(err.kind, ERROR_DATA);
    assert_non_null(strstr(err.text, "does not continue the segment before"));
    assert_int_equal(frames, 3 * PER_BLOCK);
    writer_release(&whole);
}

static void other_files_in_the_folder_are_left_alone(void **state)
{
    struct kit *k = *state;
    struct sample s;
    char path[PATH_MAX + 8];
    sample_make(k, &s);
    kit_path(k, 2, path);
    size_t len = strlen(path); /* What a crash while making a segment leaves. */
    snprintf(path + len, sizeof path - len, ".new");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    assert_holds(k, 3 * PER_BLOCK);
    assert_int_equal(access(path, F_OK), 0);
    sample_drop(&s);
}

#define kit_test(name) cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(a_tail_torn_at_any_byte_is_cut),
        kit_test(any_wrong_byte_in_the_last_block_cuts_it),
        kit_test(a_file_extended_by_zeros_is_cut),
        kit_test(any_wrong_byte_before_is_refused),
        kit_test(a_torn_group_is_cut_though_its_end_is_good),
        kit_test(a_block_inside_a_frame_is_no_block),
        kit_test(another_identity_is_refused),
        kit_test(a_missing_segment_is_refused),
        kit_test(a_segment_under_another_name_is_refused),
        kit_test(damage_in_an_earlier_segment_is_found_when_read),
        kit_test(an_earlier_segment_that_lost_its_last_block_is_found),
        kit_test(other_files_in_the_folder_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
