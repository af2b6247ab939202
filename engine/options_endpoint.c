/* Invariant: no byte of a password reaches `shown` or an error. So whatever the client library
 * could read differently from us (a raw "@" or "/" in a password, a port that is none, a key
 * spelt with %) is refused or decoded, never passed over. */
#include "engine/options_endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "engine/options_value.h"

enum { KEY_MAX = 64 };

struct parts {
    struct arena *arena;
    struct writer shown;
    bool secret; /* The text holds a password. */
    struct error *err;
};

static bool is_secret(const char *key)
{
    static const char *const keys[] = {"password",         "passwd",
                                       "sslpassword",      "scram_client_key",
                                       "scram_server_key", "oauth_client_secret"};
    for (size_t i = 0; i < array_count(keys); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

static bool is_password(const char *key)
{
    return strcmp(key, "password") == 0 || strcmp(key, "passwd") == 0;
}

static bool bad_uri(struct error *err, const char *what)
{
    (void)error_set(err, ERROR_CONFIG, "the URI is not valid: %s", what);
    return error_hint(err, "in a user or password write @ as %%40, / as %%2F, : as %%3A, %% as "
                           "%%25; or use password-file");
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | ' ');
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Every % is followed by two hex digits that are not 00. */
static bool check_escapes(const char *text, struct error *err)
{
    for (const char *at = strchr(text, '%'); at != NULL; at = strchr(at + 1, '%')) {
        int high = hex_digit(at[1]);
        int low = high < 0 ? -1 : hex_digit(at[2]);
        if (low < 0 || high + low == 0)
            return bad_uri(err, "a % without two hex digits after it");
    }
    return true;
}

/* A key of the query, decoded; one too long to be known is cut. The escapes were checked. */
static void decode_key(const char *text, size_t len, char key[KEY_MAX])
{
    size_t used = 0;
    for (size_t i = 0; i < len && used + 1 < KEY_MAX; i++) {
        if (text[i] == '%' && i + 2 < len) {
            key[used++] = (char)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
            i += 2;
        } else {
            key[used++] = text[i];
        }
    }
    key[used] = '\0';
}

/* host[:port], separated by commas; a host may be [v6]. */
static bool check_hosts(const char *at, size_t len, struct error *err)
{
    const char *end = at + len;
    while (at < end) {
        const char *close = *at == '[' ? memchr(at, ']', (size_t)(end - at)) : at;
        if (close == NULL)
            return bad_uri(err, "no closing ] after a host");
        at = close;
        while (at < end && *at != ':' && *at != ',')
            at++;
        at += at < end && *at == ':';
        while (at < end && *at >= '0' && *at <= '9')
            at++;
        if (at < end && *at != ',')
            return bad_uri(err, "a port is not a number");
        at += at < end;
    }
    return true;
}

/* Up to and excluding the path or query. */
static bool read_authority(struct parts *p, const char **at)
{
    size_t user_len = strcspn(*at, "@/");
    if ((*at)[user_len] == '@') {
        const char *colon = memchr(*at, ':', user_len);
        size_t len = colon == NULL ? user_len : (size_t)(colon - *at);
        p->secret = colon != NULL && len + 1 < user_len;
        writer_put(&p->shown, *at, len);
        writer_text(&p->shown, "@");
        *at += user_len + 1;
    }
    size_t len = strcspn(*at, "/?");
    if (memchr(*at, '@', len) != NULL)
        return bad_uri(p->err, "two @ before the host");
    TRY(check_hosts(*at, len, p->err));
    writer_put(&p->shown, *at, len);
    *at += len;
    return true;
}

static bool read_path(struct parts *p, const char **at)
{
    size_t len = strcspn(*at, "?");
    if (memchr(*at, '@', len) != NULL)
        return bad_uri(p->err, "an @ behind the host");
    writer_put(&p->shown, *at, len);
    *at += len;
    return true;
}

static bool read_query(struct parts *p, const char *at)
{
    char separator = '?';
    while (*at != '\0') {
        at++;
        size_t len = strcspn(at, "&");
        const char *equal = memchr(at, '=', len);
        if (at[-1] == '?' && *at == '\0')
            return true;
        if (equal == NULL || equal == at)
            return bad_uri(p->err, "a parameter is not key=value");
        char key[KEY_MAX];
        decode_key(at, (size_t)(equal - at), key);
        if (is_secret(key)) {
            p->secret = p->secret || is_password(key);
        } else {
            writer_u8(&p->shown, (uint8_t)separator);
            writer_put(&p->shown, at, len);
            separator = '&';
        }
        at += len;
    }
    return true;
}

static const char *uri_with_password(struct arena *a, const char *text, const char *password)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789-._~";
    cleanup_with(writer_release) struct writer uri = {0};
    const char *query = strchr(text, '?');
    const char *separator = query == NULL ? "?" : "&";
    writer_text(&uri, text);
    writer_printf(&uri, "%spassword=", query != NULL && query[1] == '\0' ? "" : separator);
    for (; *password != '\0'; password++) {
        if (strchr(plain, *password) != NULL)
            writer_u8(&uri, (uint8_t)*password);
        else
            writer_printf(&uri, "%%%02X", (unsigned)(unsigned char)*password);
    }
    return value_copy(a, writer_cstr(&uri), uri.len);
}

static bool read_uri(struct parts *p, const char *text, const char *password,
                     struct endpoint *out)
{
    static const struct {
        const char *prefix;
        const char *scheme;
    } schemes[] = {
        {"postgresql://", "postgresql"}, {"postgres://", "postgresql"}, {"mysql://", "mysql"}};
    size_t i = 0;
    while (i < array_count(schemes) &&
           strncmp(text, schemes[i].prefix, strlen(schemes[i].prefix)) != 0)
        i++;
    if (i == array_count(schemes)) {
        (void)error_set(p->err, ERROR_CONFIG, "the URI's scheme is not known");
        return error_hint(p->err, "expected: postgresql://user@host:port/database or "
                                  "mysql://user@host:port/database");
    }
    out->scheme = schemes[i].scheme;
    const char *at = text + strlen(schemes[i].prefix);
    writer_printf(&p->shown, "%s://", out->scheme);
    TRY(check_escapes(at, p->err));
    TRY(read_authority(p, &at));
    TRY(read_path(p, &at));
    TRY(read_query(p, at));
    out->conninfo = password == NULL ? text : uri_with_password(p->arena, text, password);
    return true;
}

/* One value of a conninfo string, as libpq reads it: to the next blank, or quoted. */
static bool take_value(const char **at, struct writer *value)
{
    bool quoted = **at == '\'';
    *at += quoted;
    while (**at != '\0' && (quoted ? **at != '\'' : **at != ' ' && **at != '\t')) {
        *at += **at == '\\' && (*at)[1] != '\0';
        writer_u8(value, (uint8_t) * *at);
        (*at)++;
    }
    bool closed = !quoted || **at == '\'';
    *at += quoted && closed;
    return closed;
}

static void put_value(struct writer *w, const char *value)
{
    writer_u8(w, '\'');
    for (; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\')
            writer_u8(w, '\\');
        writer_u8(w, (uint8_t)*value);
    }
    writer_u8(w, '\'');
}

static bool read_pair(struct parts *p, const char **at)
{
    char key[KEY_MAX];
    size_t len = strcspn(*at, "= \t");
    (void)snprintf(key, sizeof key, "%.*s", (int)len, *at);
    *at += len;
    *at += strspn(*at, " \t");
    cleanup_with(writer_release) struct writer value = {0};
    if (len == 0 || len >= sizeof key || *(*at)++ != '=')
        return error_set(p->err, ERROR_CONFIG, "the connection string is not key=value pairs");
    *at += strspn(*at, " \t");
    if (!take_value(at, &value))
        return error_set(p->err, ERROR_CONFIG, "the connection string lacks a closing quote");
    if (is_secret(key)) {
        p->secret = p->secret || (is_password(key) && value.len > 0);
        return true;
    }
    const char *text = writer_cstr(&value);
    if (strcmp(key, "dbname") == 0 &&
        (strchr(text, '=') != NULL || strstr(text, "://") != NULL))
        return error_set(p->err, ERROR_CONFIG, "dbname holds another connection string");
    writer_printf(&p->shown, "%s%s=", p->shown.len == 0 ? "" : " ", key);
    if (value.len > 0 && strcspn(text, " \t'\\") == value.len)
        writer_text(&p->shown, text);
    else
        put_value(&p->shown, text);
    return true;
}

static bool read_pairs(struct parts *p, const char *text, const char *password,
                       struct endpoint *out)
{
    out->scheme = "postgresql";
    for (const char *at = text + strspn(text, " \t"); *at != '\0'; at += strspn(at, " \t"))
        TRY(read_pair(p, &at));
    out->conninfo = text;
    if (password != NULL) {
        cleanup_with(writer_release) struct writer all = {0};
        writer_printf(&all, "%s password=", text);
        put_value(&all, password);
        out->conninfo = value_copy(p->arena, writer_cstr(&all), all.len);
    }
    return true;
}

static void parts_release(struct parts *p) { writer_release(&p->shown); }

bool endpoint_make(struct arena *a, const char *text, const char *password,
                   struct endpoint *out, struct error *err)
{
    cleanup_with(parts_release) struct parts p = {.arena = a, .err = err};
    for (const char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at < ' ' && *at != '\t')
            return error_set(err, ERROR_CONFIG, "a control character in the connection string");
    const char *colon = strstr(text, "://");
    const char *equal = strchr(text, '=');
    if (colon != NULL && (equal == NULL || colon < equal))
        TRY(read_uri(&p, text, password, out));
    else
        TRY(read_pairs(&p, text, password, out));
    if (p.secret &&
        (password != NULL || out->password_file != NULL || out->password_command != NULL)) {
        (void)error_set(err, ERROR_CONFIG, "the password is given twice");
        return error_hint(err, "take it out of the URI, or remove the password-… line");
    }
    out->shown = value_copy(a, writer_cstr(&p.shown), p.shown.len);
    return true;
}

/* What getline() gave, without its end; NULL if that is nothing. */
static const char *first_line(struct arena *a, FILE *in)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t len = getline(&line, &size, in);
    while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        len--;
    bool usable = len > 0 && memchr(line, '\0', (size_t)len) == NULL;
    const char *copy = usable ? value_copy(a, line, (size_t)len) : NULL;
    if (line != NULL)
        explicit_bzero(line, size);
    free(line);
    return copy;
}

static void stream_close(FILE **stream)
{
    if (*stream != NULL)
        (void)fclose(*stream);
}

static bool read_password_file(struct arena *a, const char *path, const char **password,
                               struct error *err)
{
    cleanup_with(stream_close) FILE *in = fopen(path, "re");
    struct stat info;
    if (in == NULL || fstat(fileno(in), &info) != 0)
        return error_set(err, ERROR_CONFIG, "password-file %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return error_set(err, ERROR_CONFIG, "password-file %s is not a file", path);
    if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        (void)error_set(err, ERROR_CONFIG, "password-file %s is open to others than its owner",
                        path);
        return error_hint(err, "chmod 600 %s", path);
    }
    *password = first_line(a, in);
    if (*password == NULL)
        return error_set(err, ERROR_CONFIG, "password-file %s has no first line", path);
    return true;
}

static bool run_password_command(struct arena *a, const char *command, const char **password,
                                 struct error *err)
{
    FILE *in = popen(command, "re"); /* NOLINT(cert-env33-c): the operator's own line. */
    if (in == NULL)
        return error_set(err, ERROR_CONFIG, "password-command: %s", strerror(errno));
    *password = first_line(a, in);
    while (fgetc(in) != EOF) {
        /* A command whose output nobody reads would die of SIGPIPE and look failed. */
    }
    int status = pclose(in);
    if (status == -1)
        return error_set(err, ERROR_CONFIG, "password-command: %s", strerror(errno));
    if (WIFSIGNALED(status))
        return error_set(err, ERROR_CONFIG, "password-command was ended by signal %d",
                         WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return error_set(err, ERROR_CONFIG, "password-command exited with %d",
                         WEXITSTATUS(status));
    if (*password == NULL)
        return error_set(err, ERROR_CONFIG, "password-command printed no first line");
    return true;
}

bool endpoint_resolve(struct arena *a, struct endpoint *e, struct error *err)
{
    const char *password = NULL;
    if (e->password_file != NULL)
        TRY(read_password_file(a, e->password_file, &password, err));
    else if (e->password_command != NULL)
        TRY(run_password_command(a, e->password_command, &password, err));
    return password == NULL || endpoint_make(a, e->conninfo, password, e, err);
}
