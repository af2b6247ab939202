#include "engine/spill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/base/file.h"

static const char name_pattern[] = "txn-??????.spill";
static const char name_template[] = "txn-XXXXXX.spill";
enum { NAME_SUFFIX_LEN = sizeof ".spill" - 1 };

struct spill {
    int fd;
    uint64_t end;
    char path[PATH_MAX]; /* Where it was made; for messages. */
};

static void folder_close(DIR **folder)
{
    if (*folder != NULL)
        (void)closedir(*folder);
}

bool spill_prepare(const char *folder, struct error *err)
{
    TRY(file_make_folder(folder, err));
    cleanup_with(folder_close) DIR *names = opendir(folder);
    if (names == NULL)
        return error_set(err, ERROR_DISK, "open spill folder %s: %s", folder, strerror(errno));
    for (const struct dirent *entry = readdir(names); entry != NULL; entry = readdir(names)) {
        if (fnmatch(name_pattern, entry->d_name, 0) != 0)
            continue;
        if (unlinkat(dirfd(names), entry->d_name, 0) != 0 && errno != ENOENT)
            return error_set(err, ERROR_DISK, "delete %s/%s: %s", folder, entry->d_name,
                             strerror(errno));
    }
    return true;
}

bool spill_new(const char *folder, struct spill **out, struct error *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, name_template) >= (int)sizeof path)
        return error_set(err, ERROR_CONFIG, "path is too long: %s", folder);
    int fd = mkostemps(path, NAME_SUFFIX_LEN, O_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_DISK, "create spill file %s: %s", path, strerror(errno));
    if (unlink(path) != 0) {
        int reason = errno;
        file_close(&fd);
        return error_set(err, ERROR_DISK, "delete %s: %s", path, strerror(reason));
    }
    struct spill *s = calloc(1, sizeof *s);
    check(s != NULL);
    s->fd = fd;
    memcpy(s->path, path, sizeof path);
    *out = s;
    return true;
}

void spill_free(struct spill *s)
{
    if (s == NULL)
        return;
    file_close(&s->fd);
    free(s);
}

void spill_pack(struct bytes content, struct writer *stored, struct spill_block *block)
{
    writer_clear(stored);
    int packed = 0;
    if (content.len > 1 && content.len <= LZ4_MAX_INPUT_SIZE)
        packed = LZ4_compress_default((const char *)content.data,
                                      (char *)writer_room(stored, content.len),
                                      (int)content.len, (int)content.len - 1);
    if (packed > 0)
        stored->len = (size_t)packed;
    else
        writer_bytes(stored, content);
    block->content_len = content.len;
    block->stored_len = stored->len;
    block->hash = XXH3_64bits(stored->data, stored->len);
}

bool spill_unpack(struct bytes stored, const struct spill_block *block, uint8_t *content)
{
    if (stored.len != block->stored_len || XXH3_64bits(stored.data, stored.len) != block->hash)
        return false;
    if (stored.len == block->content_len) {
        memcpy(content, stored.data, stored.len);
        return true;
    }
    if (stored.len > block->content_len || block->content_len > LZ4_MAX_INPUT_SIZE)
        return false;
    int len = LZ4_decompress_safe((const char *)stored.data, (char *)content, (int)stored.len,
                                  (int)block->content_len);
    return len >= 0 && (uint64_t)len == block->content_len;
}

bool spill_append(struct spill *s, struct bytes content, struct spill_block *block,
                  struct error *err)
{
    check(content.len > 0);
    cleanup_with(writer_release) struct writer stored = {0};
    spill_pack(content, &stored, block);
    block->offset = s->end;
    /* From the end as we know it: a write that failed half-way may have left bytes behind it.
     */
    if (lseek(s->fd, (off_t)s->end, SEEK_SET) < 0)
        return error_set(err, ERROR_DISK, "seek in %s: %s", s->path, strerror(errno));
    if (!file_write_all(s->fd, stored.data, stored.len, err))
        return error_wrap(err, "spill to %s", s->path);
    s->end += stored.len;
    return true;
}

bool spill_read(const struct spill *s, const struct spill_block *block, uint8_t *content,
                struct error *err)
{
    cleanup_with(writer_release) struct writer stored = {0};
    uint8_t *room = writer_room(&stored, block->stored_len);
    while (stored.len < block->stored_len) {
        ssize_t got = pread(s->fd, room + stored.len, block->stored_len - stored.len,
                            (off_t)(block->offset + stored.len));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, ERROR_DISK, "read %s: %s", s->path, strerror(errno));
        if (got == 0)
            break;
        stored.len += (size_t)got;
    }
    if (!spill_unpack(writer_view(&stored), block, content))
        return error_set(err, ERROR_DATA, "spill file %s is damaged at byte %llu", s->path,
                         (unsigned long long)block->offset);
    return true;
}

void spill_cut(struct spill *s, uint64_t end)
{
    check(end <= s->end);
    s->end = end;
}
