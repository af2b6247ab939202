#include "engine/control_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/file.h"

enum { BACKLOG = 64 };

static bool address_of(const char *path, struct sockaddr_un *address, struct error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len < sizeof address->sun_path) {
        memcpy(address->sun_path, path, len + 1);
        return true;
    }
    (void)error_set(err, ERROR_CONFIG, "the path of the control socket is too long: %s", path);
    return error_hint(err, "set [control] socket to a path of at most %zu bytes",
                      sizeof address->sun_path - 1);
}

static bool make_folder(const char *path, struct error *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path)
        return true;
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    return file_make_folder(folder, err);
}

static bool in_use(const char *path, struct error *err)
{
    (void)error_set(err, ERROR_CONFIG, "another engine is running: it answers on %s", path);
    return error_hint(err, "teal status shows it; two migrations need two names or sockets");
}

static bool take_lock(struct control_socket *s, struct error *err)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s.lock", s->path);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (s->lock < 0)
        return error_set(err, ERROR_CONFIG, "create %s: %s", path, strerror(errno));
    if (flock(s->lock, LOCK_EX | LOCK_NB) == 0)
        return true;
    if (errno == EWOULDBLOCK)
        return in_use(s->path, err);
    return error_set(err, ERROR_CONFIG, "lock %s: %s", path, strerror(errno));
}

/* With the lock held, so nobody else is about to do the same. Somebody who listens without it
 * is left alone too. */
static bool remove_stale(const struct sockaddr_un *address, struct error *err)
{
    struct stat info;
    const char *path = address->sun_path;
    if (lstat(path, &info) != 0)
        return errno == ENOENT ||
               error_set(err, ERROR_CONFIG, "look at %s: %s", path, strerror(errno));
    if (!S_ISSOCK(info.st_mode))
        return error_set(err, ERROR_CONFIG, "%s exists and is not a socket", path);
    cleanup_with(file_close) int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, ERROR_SYSTEM, "socket: %s", strerror(errno));
    if (connect(fd, (const void *)address, sizeof *address) == 0 || errno != ECONNREFUSED)
        return in_use(path, err);
    if (unlink(path) != 0)
        return error_set(err, ERROR_CONFIG, "remove %s: %s", path, strerror(errno));
    return true;
}

/* Linux takes the mode of the file from the socket, so that it never exists with a wider one;
 * elsewhere chmod() narrows it before listen(). */
static bool listen_at(struct control_socket *s, const struct sockaddr_un *address,
                      struct error *err)
{
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0)
        return error_set(err, ERROR_SYSTEM, "socket: %s", strerror(errno));
    if (fchmod(s->fd, S_IRUSR | S_IWUSR) != 0 ||
        bind(s->fd, (const void *)address, sizeof *address) != 0 ||
        chmod(s->path, S_IRUSR | S_IWUSR) != 0 || listen(s->fd, BACKLOG) != 0)
        return error_set(err, ERROR_CONFIG, "listen on %s: %s", s->path, strerror(errno));
    return true;
}

bool control_socket_open(const char *path, struct control_socket *out, struct error *err)
{
    struct control_socket s = {.path = path, .lock = -1, .fd = -1};
    struct sockaddr_un address;
    bool open = address_of(path, &address, err) && make_folder(path, err) &&
                take_lock(&s, err) && remove_stale(&address, err) &&
                listen_at(&s, &address, err);
    if (!open) {
        file_close(&s.fd);
        file_close(&s.lock);
        return false;
    }
    *out = s;
    return true;
}

void control_socket_close(struct control_socket *s)
{
    if (s->lock >= 0)
        (void)unlink(s->path);
    file_close(&s->fd);
    file_close(&s->lock);
}
