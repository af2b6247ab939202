#include "engine/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

void file_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

bool file_read(const char *path, size_t max, struct writer *out, struct error *err)
{
    cleanup_with(file_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_SYSTEM, "open %s: %s", path, strerror(errno));
    for (size_t total = 0;;) {
        enum { STEP = 64 * 1024 };
        ssize_t got = read(fd, writer_room(out, STEP), STEP);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, ERROR_SYSTEM, "read %s: %s", path, strerror(errno));
        if (got == 0)
            return true;
        total += (size_t)got;
        if (total > max)
            return error_set(err, ERROR_SYSTEM, "%s is larger than %zu bytes", path, max);
        out->len += (size_t)got;
    }
}

bool file_write_all(int fd, const void *data, size_t len, struct error *err)
{
    const uint8_t *at = data;
    while (len > 0) {
        ssize_t done = write(fd, at, len);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return error_set(err, ERROR_DISK, "write: %s", strerror(errno));
        at += done;
        len -= (size_t)done;
    }
    return true;
}

static bool folder_of(const char *path, char *folder, size_t size, struct error *err)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);
    if (len + 2 > size)
        return error_set(err, ERROR_CONFIG, "path is too long: %s", path);
    if (slash == NULL)
        (void)snprintf(folder, size, ".");
    else
        (void)snprintf(folder, size, "%.*s", len == 0 ? 1 : (int)len, path);
    return true;
}

bool file_sync_folder(const char *folder, struct error *err)
{
    cleanup_with(file_close) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        return error_set(err, ERROR_DISK, "sync folder %s: %s", folder, strerror(errno));
    return true;
}

bool file_replace(const char *path, struct bytes content, struct error *err)
{
    char folder[PATH_MAX];
    char fresh[PATH_MAX];
    TRY(folder_of(path, folder, sizeof folder, err));
    if (snprintf(fresh, sizeof fresh, "%s.new", path) >= (int)sizeof fresh)
        return error_set(err, ERROR_CONFIG, "path is too long: %s", path);
    cleanup_with(file_close) int fd =
        open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return error_set(err, ERROR_DISK, "create %s: %s", fresh, strerror(errno));
    if (!file_write_all(fd, content.data, content.len, err))
        return error_wrap(err, "%s", fresh);
    if (fsync(fd) != 0 || rename(fresh, path) != 0)
        return error_set(err, ERROR_DISK, "replace %s: %s", path, strerror(errno));
    return file_sync_folder(folder, err);
}

bool file_make_folder(const char *path, struct error *err)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return error_set(err, ERROR_CONFIG, "path is too long: %s", path);
    for (char *at = part + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char was = *at;
        *at = '\0';
        if (mkdir(part, S_IRWXU) != 0 && errno != EEXIST)
            return error_set(err, ERROR_DISK, "make folder %s: %s", part, strerror(errno));
        *at = was;
        if (was == '\0')
            break;
    }
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        return error_set(err, ERROR_DISK, "%s is not a folder", path);
    return true;
}

bool file_free_bytes(const char *path, uint64_t *free_bytes, struct error *err)
{
    struct statvfs info;
    if (statvfs(path, &info) != 0)
        return error_set(err, ERROR_SYSTEM, "file system of %s: %s", path, strerror(errno));
    *free_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return true;
}
