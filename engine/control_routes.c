#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/control_loop.h"
#include "engine/control_page.h"

enum {
    EVENTS_BEHIND_MAX = 256 * 1024, /* Bytes a slow client of /events may be behind. */
    EVENTS_INPUT_MAX = 64 * 1024,   /* Bytes we read from one, to no purpose. */
    EVENTS_SILENCE_MAX_S = 10,
};

static const int64_t barrier_timeout_us = 60 * INT64_C(1000000);
static const int64_t barrier_timeout_max_us = 3600 * INT64_C(1000000);

static const char type_json[] = "application/json";
static const char type_text[] = "text/plain; charset=utf-8";
static const char type_html[] = "text/html; charset=utf-8";
static const char type_metrics[] = "text/plain; version=0.0.4; charset=utf-8";
static const char type_events[] = "text/event-stream";

/* ---- answers ---- */

static void add_header(struct evhttp_request *request, const char *name, const char *value)
{
    check(evhttp_add_header(evhttp_request_get_output_headers(request), name, value) == 0);
}

static void reply(struct evhttp_request *request, int code, const char *type, struct bytes body)
{
    add_header(request, "Content-Type", type);
    add_header(request, "Cache-Control", "no-store");
    add_header(request, "X-Content-Type-Options", "nosniff");
    struct evbuffer *buffer = evbuffer_new();
    check(buffer != NULL);
    if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD) {
        char length[32];
        (void)snprintf(length, sizeof length, "%zu", body.len);
        add_header(request, "Content-Length", length);
    } else {
        check(evbuffer_add(buffer, body.data, body.len) == 0);
    }
    evhttp_send_reply(request, code, NULL, buffer);
    evbuffer_free(buffer);
}

static void reply_writer(struct evhttp_request *request, int code, const char *type,
                         struct writer *body)
{
    if (type == type_json)
        writer_u8(body, '\n');
    reply(request, code, type, writer_view(body));
    writer_release(body);
}

static void reply_error(struct evhttp_request *request, int code, const struct error *error)
{
    struct writer body = {0};
    writer_text(&body, "{\"error\":");
    status_error_json(error, &body);
    writer_u8(&body, '}');
    reply_writer(request, code, type_json, &body);
}

static void refuse(struct evhttp_request *request, int code, enum error_kind kind,
                   const char *text)
{
    struct error error = {0};
    (void)error_set(&error, kind, "%s", text);
    reply_error(request, code, &error);
}

/* ---- queries ---- */

/* The duration named `name` in the query; `*us` stays if it is not there. */
static bool query_duration(struct evhttp_request *request, const char *name, int64_t *us,
                           struct error *err)
{
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(request));
    struct evkeyvalq values;
    if (query == NULL)
        return true;
    if (evhttp_parse_query_str(query, &values) != 0)
        return error_set(err, ERROR_CONFIG, "the query cannot be read");
    const char *text = evhttp_find_header(&values, name);
    bool ok = text == NULL || options_duration(text, us, err);
    evhttp_clear_headers(&values);
    return ok || error_wrap(err, "%s", name);
}

/* ---- reading ---- */

static void get_live(struct control *c, struct evhttp_request *request)
{
    (void)c;
    reply(request, 200, type_text, BYTES("ok\n"));
}

static bool is_ready(const struct status *s, int64_t max_lag_us, struct writer *reason)
{
    if (s->phase != PHASE_FOLLOWING && s->phase != PHASE_REVERSED)
        writer_printf(reason, "the phase is %s\n", phase_name(s->phase));
    else if (s->lag.us == STATUS_UNKNOWN)
        writer_text(reason, "the lag is unknown\n");
    else if (s->lag.us > max_lag_us)
        writer_printf(reason, "the lag is %.3f s, above %.3f s\n", (double)s->lag.us / 1e6,
                      (double)max_lag_us / 1e6);
    else
        return true;
    return false;
}

static void get_ready(struct control *c, struct evhttp_request *request)
{
    struct error error = {0};
    int64_t max_lag_us = c->options->cutover_max_lag_us;
    if (!query_duration(request, "lag", &max_lag_us, &error)) {
        reply_error(request, 400, &error);
        return;
    }
    cleanup_with(status_free) struct status s;
    control_snapshot(c, &s);
    struct writer body = {0};
    bool ready = is_ready(&s, max_lag_us, &body);
    if (ready)
        writer_text(&body, "ok\n");
    reply_writer(request, ready ? 200 : 503, type_text, &body);
}

static void reply_switch(struct control *c, struct evhttp_request *request, bool rollback)
{
    cleanup_with(status_free) struct status s;
    control_snapshot(c, &s);
    struct writer body = {0};
    status_ready_json(&s, rollback, &body);
    bool ready = rollback ? s.ready.rollback : s.ready.cutover;
    reply_writer(request, ready ? 200 : 503, type_json, &body);
}

static void get_cutover_ready(struct control *c, struct evhttp_request *request)
{
    reply_switch(c, request, false);
}

static void get_rollback_ready(struct control *c, struct evhttp_request *request)
{
    reply_switch(c, request, true);
}

static void get_status(struct control *c, struct evhttp_request *request)
{
    cleanup_with(status_free) struct status s;
    control_snapshot(c, &s);
    struct writer body = {0};
    status_json(&s, &body);
    reply_writer(request, 200, type_json, &body);
}

enum { WIDTH_DEFAULT = 80 };

/* What `teal status` shows people: ?width=COLUMNS, and &bars=1 on a terminal. */
static void get_status_text(struct control *c, struct evhttp_request *request)
{
    struct evkeyvalq values;
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(request));
    unsigned long width = WIDTH_DEFAULT;
    bool bars = false;
    if (query != NULL && evhttp_parse_query_str(query, &values) == 0) {
        const char *text = evhttp_find_header(&values, "width");
        if (text != NULL)
            width = strtoul(text, NULL, 10);
        bars = evhttp_find_header(&values, "bars") != NULL;
        evhttp_clear_headers(&values);
    }
    cleanup_with(status_free) struct status s;
    control_snapshot(c, &s);
    struct writer body = {0};
    status_text(&s, bars, width > 20 && width < 1000 ? (unsigned)width : WIDTH_DEFAULT, &body);
    reply_writer(request, 200, type_text, &body);
}

static void get_metrics(struct control *c, struct evhttp_request *request)
{
    cleanup_with(status_free) struct status s;
    control_snapshot(c, &s);
    struct writer body = {0};
    status_metrics(&s, &body);
    reply_writer(request, 200, type_metrics, &body);
}

static void get_page(struct control *c, struct evhttp_request *request)
{
    (void)c;
    struct writer body = {0};
    control_page_write(&body);
    add_header(request, "Content-Security-Policy", control_page_policy);
    reply_writer(request, 200, type_html, &body);
}

/* ---- events ---- */

void control_status_event(struct control *c, struct writer *out)
{
    cleanup_with(status_free) struct status s;
    control_snapshot(c, &s);
    writer_text(out, "event: status\ndata: ");
    status_json(&s, out);
    writer_text(out, "\n\n");
}

bool control_has_clients(const struct control *c)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (c->clients[i].request != NULL)
            return true;
    return false;
}

/* A client that does not read misses events, and is cut off when it has read nothing for a
 * while. */
static void send_event(struct client *client, struct bytes text)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(client->request);
    struct bufferevent *stream = evhttp_connection_get_bufferevent(connection);
    if (evbuffer_get_length(bufferevent_get_output(stream)) > EVENTS_BEHIND_MAX)
        return;
    struct evbuffer *buffer = evbuffer_new();
    check(buffer != NULL && evbuffer_add(buffer, text.data, text.len) == 0);
    evhttp_send_reply_chunk(client->request, buffer);
    evbuffer_free(buffer);
}

void control_broadcast(struct control *c, struct bytes text)
{
    for (size_t i = 0; i < CLIENTS_MAX && text.len > 0; i++)
        if (c->clients[i].request != NULL)
            send_event(&c->clients[i], text);
}

/* The library has already parted the request from a connection that failed; then it is ours to
 * free. */
static void on_client_gone(struct evhttp_connection *connection, void *context)
{
    (void)connection;
    struct client *client = context;
    struct evhttp_request *request = client->request;
    client->request = NULL;
    if (evhttp_request_get_connection(request) == NULL)
        evhttp_request_free(request);
    board_listen(client->control->board, control_has_clients(client->control));
}

static void end_events(struct client *client)
{
    struct evhttp_request *request = client->request;
    client->request = NULL;
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), NULL, NULL);
    evhttp_send_reply_end(request);
}

static void get_events(struct control *c, struct evhttp_request *request)
{
    struct client *client = c->clients;
    while (client < c->clients + CLIENTS_MAX && client->request != NULL)
        client++;
    if (client == c->clients + CLIENTS_MAX || c->stopping) {
        refuse(request, 503, ERROR_RETRY, "no more clients of /events can be served");
        return;
    }
    const struct timeval silence = {.tv_sec = EVENTS_SILENCE_MAX_S};
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    struct bufferevent *stream = evhttp_connection_get_bufferevent(connection);
    (void)bufferevent_set_timeouts(stream, NULL, &silence); /* It has nothing more to say. */
    bufferevent_setwatermark(stream, EV_READ, 0, EVENTS_INPUT_MAX);
    add_header(request, "Content-Type", type_events);
    add_header(request, "Cache-Control", "no-store");
    add_header(request, "Connection", "close");
    client->request = request;
    evhttp_connection_set_closecb(connection, on_client_gone, client);
    evhttp_send_reply_start(request, 200, "OK");
    board_listen(c->board, true);
    struct writer event = {0};
    control_status_event(c, &event);
    send_event(client, writer_view(&event));
    writer_release(&event);
}

/* ---- commands ---- */

static void command(struct control *c, struct evhttp_request *request, enum command command,
                    int64_t timeout_us)
{
    struct error error = {0};
    unsigned slot = 0;
    while (slot < COMMANDS_MAX && c->taken[slot])
        slot++;
    if (c->stopping)
        refuse(request, 503, ERROR_RETRY, "the engine is stopping");
    else if (slot == COMMANDS_MAX)
        refuse(request, 503, ERROR_RETRY, "too many commands at a time");
    else if (!board_run(c->board, command, slot, timeout_us, &error))
        reply_error(request, 503, &error);
    else {
        c->taken[slot] = true;
        c->waiting[slot] = request;
    }
}

static void post_barrier(struct control *c, struct evhttp_request *request)
{
    struct error error = {0};
    int64_t timeout_us = barrier_timeout_us;
    if (!query_duration(request, "timeout", &timeout_us, &error)) {
        reply_error(request, 400, &error);
        return;
    }
    if (timeout_us > barrier_timeout_max_us)
        timeout_us = barrier_timeout_max_us;
    command(c, request, COMMAND_BARRIER, timeout_us);
}

static void post_hold(struct control *c, struct evhttp_request *request)
{
    command(c, request, COMMAND_HOLD, 0);
}

static void post_resume(struct control *c, struct evhttp_request *request)
{
    command(c, request, COMMAND_RESUME, 0);
}

static void post_stop(struct control *c, struct evhttp_request *request)
{
    reply(request, 200, type_json, BYTES("{\"ok\":true}\n"));
    c->host.stop(c->host.engine);
}

static void post_later(struct control *c, struct evhttp_request *request)
{
    (void)c;
    refuse(request, 501, ERROR_CONFIG, "this engine cannot reverse");
}

void control_answer_job(struct control *c, const struct job *job)
{
    struct evhttp_request *request = c->waiting[job->slot];
    c->waiting[job->slot] = NULL;
    c->taken[job->slot] = false;
    if (request == NULL)
        return;
    if (!job->ok) {
        reply_error(request, job->error.kind == ERROR_RETRY ? 503 : 409, &job->error);
        return;
    }
    struct writer body = {0};
    writer_text(&body, "{\"ok\":true");
    if (job->command == COMMAND_BARRIER) {
        writer_text(&body, ",\"position\":");
        status_position_json(&job->position, &body);
    }
    writer_u8(&body, '}');
    reply_writer(request, 200, type_json, &body);
}

void control_dismiss(struct control *c)
{
    for (unsigned slot = 0; slot < COMMANDS_MAX; slot++) {
        struct evhttp_request *request = c->waiting[slot];
        c->waiting[slot] = NULL;
        if (request != NULL)
            refuse(request, 503, ERROR_RETRY, "the engine is stopping");
    }
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (c->clients[i].request != NULL)
            end_events(&c->clients[i]);
}

/* ---- routes ---- */

struct route {
    const char *path;
    bool writes;  /* POST, else GET. */
    bool streams; /* Has no end, so that HEAD makes no sense. */
    void (*answer)(struct control *c, struct evhttp_request *request);
};

static const struct route routes[] = {
    {"/", .answer = get_page},
    {"/livez", .answer = get_live},
    {"/readyz", .answer = get_ready},
    {"/cutover-ready", .answer = get_cutover_ready},
    {"/rollback-ready", .answer = get_rollback_ready},
    {"/status", .answer = get_status},
    {"/status.txt", .answer = get_status_text},
    {"/metrics", .answer = get_metrics},
    {"/events", .streams = true, .answer = get_events},
    {"/barrier", .writes = true, .answer = post_barrier},
    {"/hold", .writes = true, .answer = post_hold},
    {"/resume", .writes = true, .answer = post_resume},
    {"/stop", .writes = true, .answer = post_stop},
    {"/arm-reverse", .writes = true, .answer = post_later},
    {"/reverse", .writes = true, .answer = post_later},
};

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; path != NULL && i < array_count(routes); i++)
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    return NULL;
}

static bool method_fits(const struct route *route, enum evhttp_cmd_type method)
{
    if (route->writes)
        return method == EVHTTP_REQ_POST;
    return method == EVHTTP_REQ_GET || (method == EVHTTP_REQ_HEAD && !route->streams);
}

void control_route(struct evhttp_request *request, void *context)
{
    const struct door *door = context;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const struct route *route = uri == NULL ? NULL : find_route(evhttp_uri_get_path(uri));
    if (route == NULL) {
        refuse(request, 404, ERROR_CONFIG, "there is nothing at this path");
    } else if (!method_fits(route, evhttp_request_get_command(request))) {
        add_header(request, "Allow", route->writes ? "POST" : "GET");
        refuse(request, 405, ERROR_CONFIG, "this path does not take this method");
    } else if (route->writes && door->read_only) {
        refuse(request, 403, ERROR_CONFIG, "commands are taken over the socket only");
    } else {
        route->answer(door->control, request);
    }
}
