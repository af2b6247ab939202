#include "tests/unit/spool_kit.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/file.h"

enum { BODY_MAX = 320 };

int kit_setup(void **state)
{
    struct kit *k = calloc(1, sizeof *k);
    check(k != NULL);
    snprintf(k->folder, sizeof k->folder, "/tmp/spool-test-XXXXXX");
    check(mkdtemp(k->folder) != NULL);
    k->options = (struct spool_options){.path = k->folder,
                                        .identity = "system 7 slot teal",
                                        .memory_max = 64 << 20,
                                        .disk_max = UINT64_C(1) << 40,
                                        .durable = true};
    *state = k;
    return 0;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

int kit_teardown(void **state)
{
    struct kit *k = *state;
    spool_close(k->spool);
    int failed = nftw(k->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(k);
    return failed;
}

void kit_open(struct kit *k)
{
    struct error err = {0};
    if (!spool_open(&k->options, &k->spool, &err))
        fail_msg("%s", err.text);
    struct spool_extent extent;
    spool_extent(k->spool, &extent);
    if (extent.last_seq == 0 && extent.last_pos.len == 0)
        assert_true(spool_restart(k->spool, 0, &(struct position){3, "0/0"}, &err));
    k->read = k->segment = 0;
}

void kit_close(struct kit *k)
{
    spool_close(k->spool);
    k->spool = NULL;
}

struct frame kit_frame(uint64_t i, uint8_t *body, char *pos)
{
    struct frame frame = {.kind = FRAME_DATA};
    frame.body.len = (size_t)(i * 7919 % BODY_MAX);
    for (size_t at = 0; at < frame.body.len; at++)
        body[at] = (uint8_t)(i * 31 + at * at);
    frame.body.data = body;
    if (i % 4 != 3)
        return frame;
    frame.kind = i % 8 == 7 ? FRAME_PROGRESS : FRAME_COMMIT;
    frame.pos.len = (size_t)snprintf(pos, 32, "0/%llX", (unsigned long long)i);
    frame.pos.data = (const uint8_t *)pos;
    return frame;
}

uint64_t kit_seq_at(uint64_t frames) { return frames / 4; }

bool kit_try_put(struct kit *k)
{
    uint8_t body[BODY_MAX];
    char pos[32];
    bool full = true;
    struct error err = {0};
    struct frame frame = kit_frame(k->put, body, pos);
    if (!spool_append(k->spool, &frame, &full, &err))
        fail_msg("%s", err.text);
    if (full)
        return false;
    k->put++;
    assert_int_equal(frame.seq, k->seq_base + kit_seq_at(k->put));
    return true;
}

void kit_put(struct kit *k, uint64_t count)
{
    for (uint64_t end = k->put + count; k->put < end;)
        if (!kit_try_put(k))
            usleep(1000);
}

static void compare(struct kit *k, const struct frame *got)
{
    uint8_t body[BODY_MAX];
    char pos[32];
    struct frame want = kit_frame(k->read++, body, pos);
    if (got->kind != want.kind || !bytes_equal(got->body, want.body) ||
        !bytes_equal(got->pos, want.pos) || got->seq != k->seq_base + kit_seq_at(k->read))
        fail_msg("frame %llu is not what was appended", (unsigned long long)k->read - 1);
}

uint64_t kit_read(struct kit *k, uint64_t count, int wait_ms)
{
    for (uint64_t i = 0; i < count; i++) {
        struct frame frame;
        struct error err = {0};
        bool got = false;
        uint64_t before = k->segment;
        if (!spool_read(k->spool, wait_ms, &frame, &k->segment, &got, &err))
            fail_msg("%s", err.text);
        if (!got)
            return i;
        if (k->segment < before)
            fail_msg("the segment's number went back");
        compare(k, &frame);
    }
    return count;
}

void kit_wait_durable(struct kit *k)
{
    struct spool_stats stats;
    for (int i = 0; i < 10000; i++) {
        spool_stats(k->spool, &stats);
        if (stats.durable.last_seq == stats.appended.last_seq)
            return;
        usleep(1000);
    }
    fail_msg("not durable within 10 s");
}

void kit_path(const struct kit *k, uint64_t number, char path[PATH_MAX])
{
    segment_path(path, k->folder, number);
}

void kit_load(const struct kit *k, uint64_t number, struct writer *bytes)
{
    char path[PATH_MAX];
    struct error err = {0};
    kit_path(k, number, path);
    writer_clear(bytes);
    if (!file_read(path, 64 << 20, bytes, &err))
        fail_msg("%s", err.text);
}

void kit_save(const struct kit *k, uint64_t number, struct bytes bytes)
{
    char path[PATH_MAX];
    struct error err = {0};
    kit_path(k, number, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_true(file_write_all(fd, bytes.data, bytes.len, &err));
    (void)close(fd);
}

bool kit_exists(const struct kit *k, uint64_t number)
{
    char path[PATH_MAX];
    kit_path(k, number, path);
    return access(path, F_OK) == 0;
}

void kit_refused(struct kit *k, uint64_t number, enum error_kind kind, const char *text)
{
    struct writer before = {0};
    struct writer after = {0};
    struct error err = {0};
    struct spool *s = NULL;
    kit_load(k, number, &before);
    assert_false(spool_open(&k->options, &s, &err));
    kit_load(k, number, &after);
    assert_int_equal(err.kind, kind);
    if (strstr(err.text, text) == NULL)
        fail_msg("the error is: %s", err.text);
    assert_true(err.hint[0] != '\0');
    assert_true(bytes_equal(writer_view(&before), writer_view(&after)));
    writer_release(&before);
    writer_release(&after);
}
