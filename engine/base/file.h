/* Whole small files, durably; and the folders they live in. The only place that knows how a
 * file becomes durable: write, fsync, rename, fsync the folder. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "engine/base/error.h"
#include "engine/base/writer.h"

/* Appends the file's content to `out`. A file longer than `max` bytes, or none: ERROR_SYSTEM.
 */
must_check bool file_read(const char *path, size_t max, struct writer *out, struct error *err);

/* Replaces the file by `content` in one step: after a crash it is the old or the new one. Mode
 * 0600. ERROR_DISK if it cannot. */
must_check bool file_replace(const char *path, struct bytes content, struct error *err);

/* Makes the folder and its missing parents, mode 0700. */
must_check bool file_make_folder(const char *path, struct error *err);

/* Makes what happened to names in `folder` (created, renamed, removed) durable. */
must_check bool file_sync_folder(const char *folder, struct error *err);

/* Free bytes on the file system that holds `path`. */
must_check bool file_free_bytes(const char *path, uint64_t *free_bytes, struct error *err);

/* Writes all of `data` at the descriptor's position; ERROR_DISK, with errno's text. */
must_check bool file_write_all(int fd, const void *data, size_t len, struct error *err);

/* For cleanup_with(): closes unless it is -1. */
void file_close(int *fd);

#endif
