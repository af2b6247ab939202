/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <jansson.h>

#include "engine/status.h"

static void sample(struct status *s)
{
    status_init(s);
    s->migration = status_string(s, BYTES("shop"));
    s->phase = PHASE_FOLLOWING;
    s->lag.us = 12000;
    s->lag.bytes = 1234;
    s->lag.transactions = 3;
    s->position.source = position_of(BYTES("0/1529840"));
    s->position.applied = position_of(BYTES("0/1529000"));
    s->copy.rows = 2000000;
    s->copy.rows_done = 1999999;
    s->spool.disk_bytes = 8192;
    s->apply.transactions = 51234;
    s->ready.cutover = true;
    const char **reasons = arena_array(&s->arena, const char *, 1);
    reasons[0] = status_string(s, BYTES("a table is new"));
    s->ready.reasons = reasons;
    s->ready.reason_count = 1;
    struct status_table *tables = arena_array(&s->arena, struct status_table, 2);
    tables[0] = (struct status_table){
        status_string(s, BYTES("public.orders")), PHASE_FOLLOWING, 1000, 1000, 200, 0};
    tables[1] = (struct status_table){status_string(s, BYTES("public.\"a\\b\nc\"")),
                                      PHASE_COPYING,
                                      600,
                                      1000,
                                      STATUS_UNKNOWN,
                                      STATUS_UNKNOWN};
    s->tables = tables;
    s->table_count = 2;
    struct status_key *key = arena_array(&s->arena, struct status_key, 1);
    key[0] = (struct status_key){status_string(s, BYTES("id")), status_string(s, BYTES("17"))};
    struct status_stray *strays = arena_array(&s->arena, struct status_stray, 2);
    strays[0] = (struct status_stray){status_string(s, BYTES("public.orders")), 1, key,
                                      position_of(BYTES("0/9")), INT64_C(1767607872345678)};
    strays[1] = (struct status_stray){.table = "t", .time_us = STATUS_UNKNOWN};
    s->strays = strays;
    s->stray_count = 2;
}

static json_t *json_of(const struct status *s)
{
    struct writer w = {0};
    status_json(s, &w);
    assert_null(memchr(w.data, '\n', w.len));
    json_error_t error;
    json_t *root = json_loadb((const char *)w.data, w.len, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(root);
    writer_release(&w);
    return root;
}

/* Exactly these keys, in this order. */
static void assert_keys(json_t *object, const char *expected)
{
    struct writer w = {0};
    const char *key;
    json_t *value;
    assert_true(json_is_object(object));
    json_object_foreach(object, key, value)
        writer_printf(&w, "%s%s", w.len == 0 ? "" : " ", key);
    assert_string_equal(writer_cstr(&w), expected);
    writer_release(&w);
}

static void json_has_exactly_the_keys_of_the_contract(void **state)
{
    (void)state;
    struct status s;
    sample(&s);
    (void)error_set(&s.error, ERROR_CONFLICT, "a row is missing");
    json_t *root = json_of(&s);
    assert_keys(root,
                "teal migration phase direction lag position copy apply spool ready tables "
                "error strays");
    assert_keys(json_object_get(root, "lag"), "seconds bytes transactions");
    assert_keys(json_object_get(root, "position"), "source received durable applied confirmed");
    assert_keys(json_object_get(root, "copy"),
                "tables tables_done rows rows_done bytes_done bytes_total eta_seconds "
                "rows_per_second");
    assert_keys(json_object_get(root, "apply"), "transactions changes conflicts stray_writes");
    assert_keys(json_object_get(root, "spool"), "memory_bytes disk_bytes disk_max_bytes");
    assert_keys(json_object_get(root, "ready"), "cutover rollback reasons");
    assert_keys(json_array_get(json_object_get(root, "tables"), 0),
                "name phase rows_copied rows_total changes conflicts");
    assert_keys(json_object_get(root, "error"), "kind text hint");
    assert_keys(json_array_get(json_object_get(root, "strays"), 0), "table key position time");
    json_decref(root);
    status_free(&s);
}

static void json_carries_the_values(void **state)
{
    (void)state;
    struct status s;
    sample(&s);
    struct writer w = {0};
    status_json(&s, &w);
    const char *text = writer_cstr(&w);
    assert_non_null(strstr(text, "\"migration\":\"shop\",\"phase\":\"following\","
                                 "\"direction\":\"blue-to-green\",\"lag\":{\"seconds\":0.012,"
                                 "\"bytes\":1234,\"transactions\":3}"));
    assert_non_null(strstr(text, "\"source\":\"0/1529840\",\"received\":null"));
    assert_non_null(strstr(text, "\"ready\":{\"cutover\":true,\"rollback\":false,"
                                 "\"reasons\":[\"a table is new\"]}"));
    assert_non_null(strstr(text, "{\"name\":\"public.orders\",\"phase\":\"following\","
                                 "\"rows_copied\":1000,\"rows_total\":1000,\"changes\":200,"
                                 "\"conflicts\":0}"));
    assert_non_null(strstr(text,
                           "{\"table\":\"public.orders\",\"key\":{\"id\":\"17\"},"
                           "\"position\":\"0/9\",\"time\":\"2026-01-05T10:11:12.345Z\"}"));
    assert_non_null(
        strstr(text, "{\"table\":\"t\",\"key\":null,\"position\":null,\"time\":null}"));
    assert_non_null(strstr(text, "\"error\":null"));
    writer_release(&w);
    status_free(&s);
}

static void what_is_unknown_is_null_and_what_is_zero_is_zero(void **state)
{
    (void)state;
    struct status s;
    status_init(&s);
    s.copy.rows = 0;
    json_t *root = json_of(&s);
    static const char *const groups[] = {"lag", "position", "copy", "apply", "spool"};
    for (size_t i = 0; i < array_count(groups); i++) {
        const char *key;
        json_t *value;
        json_object_foreach(json_object_get(root, groups[i]), key, value)
        {
            if (strcmp(groups[i], "copy") == 0 && strcmp(key, "rows") == 0)
                assert_int_equal(json_integer_value(value), 0);
            else
                assert_true(json_is_null(value));
        }
    }
    json_decref(root);

    s.lag.us = 0;
    root = json_of(&s);
    json_t *seconds = json_object_get(json_object_get(root, "lag"), "seconds");
    assert_true(json_is_number(seconds));
    assert_true(json_number_value(seconds) == 0);
    json_decref(root);
    status_free(&s);
}

static void names_that_are_not_utf8_do_not_break_json_or_metrics(void **state)
{
    (void)state;
    struct status s;
    status_init(&s);
    struct status_table table = {"public.caf\xe9", PHASE_FOLLOWING, 1, 1, 1, 1};
    s.tables = &table;
    s.table_count = 1;
    json_t *root = json_of(&s);
    json_t *name = json_object_get(json_array_get(json_object_get(root, "tables"), 0), "name");
    assert_string_equal(json_string_value(name), "public.caf?");
    json_decref(root);
    struct writer w = {0};
    status_metrics(&s, &w);
    assert_non_null(strstr(writer_cstr(&w), "{table=\"public.caf?\"} 1\n"));
    writer_release(&w);
    status_free(&s);
}

static void readiness_of_the_other_switch_names_the_direction(void **state)
{
    (void)state;
    struct status s;
    status_init(&s);
    struct writer w = {0};
    status_ready_json(&s, true, &w);
    assert_string_equal(writer_cstr(&w),
                        "{\"ready\":false,\"reasons\":[\"blue takes the writes: "
                        "nothing to roll back\"]}");
    writer_clear(&w);
    status_ready_json(&s, false, &w);
    assert_string_equal(writer_cstr(&w),
                        "{\"ready\":false,\"reasons\":[\"the phase is new\"]}");
    writer_clear(&w);
    s.ready.cutover = true;
    status_ready_json(&s, false, &w);
    assert_string_equal(writer_cstr(&w), "{\"ready\":true,\"reasons\":[]}");
    writer_release(&w);
    status_free(&s);
}

static void a_clone_survives_its_original(void **state)
{
    (void)state;
    struct status s;
    struct status copy;
    struct writer before = {0};
    struct writer after = {0};
    sample(&s);
    status_json(&s, &before);
    status_clone(&s, &copy);
    status_free(&s);
    status_json(&copy, &after);
    assert_string_equal(writer_cstr(&before), writer_cstr(&after));
    writer_release(&before);
    writer_release(&after);
    status_free(&copy);
}

static void metrics_leave_out_what_is_unknown(void **state)
{
    (void)state;
    struct status s;
    struct writer w = {0};
    sample(&s);
    status_metrics(&s, &w);
    const char *text = writer_cstr(&w);
    assert_non_null(strstr(text, "# TYPE teal_lag_seconds gauge\nteal_lag_seconds 0.012000\n"));
    assert_non_null(strstr(text, "# TYPE teal_apply_transactions_total counter\n"
                                 "teal_apply_transactions_total 51234\n"));
    assert_non_null(strstr(text, "\nteal_build_info{version=\"" TEAL_VERSION "\"} 1\n"));
    assert_non_null(strstr(text, "\nteal_phase{phase=\"following\"} 1\n"));
    assert_non_null(strstr(text, "\nteal_phase{phase=\"catching-up\"} 0\n"));
    assert_non_null(strstr(text, "\nteal_ready{what=\"cutover\"} 1\n"));
    assert_non_null(strstr(text, "\nteal_ready{what=\"rollback\"} 0\n"));
    assert_null(strstr(text, "teal_apply_changes_total")); /* Unknown. */
    assert_null(strstr(text, "-1"));
    writer_release(&w);
    status_free(&s);
}

static void metrics_escape_labels(void **state)
{
    (void)state;
    struct status s;
    struct writer w = {0};
    sample(&s);
    status_metrics(&s, &w);
    const char *text = writer_cstr(&w);
    assert_non_null(strstr(text, "teal_table_changes_total{table=\"public.orders\"} 200\n"));
    assert_non_null(
        strstr(text, "teal_table_rows_copied{table=\"public.\\\"a\\\\b\\nc\\\"\"} 600\n"));
    /* Its changes are not known. */
    assert_null(strstr(text, "teal_table_changes_total{table=\"public.\\\""));
    writer_release(&w);
    status_free(&s);
}

static bool any_line_longer_than(const char *text, size_t width)
{
    for (; *text != '\0'; text += strcspn(text, "\n") + 1)
        if (strcspn(text, "\n") > width)
            return true;
    return false;
}

static void text_draws_bars_only_when_asked_and_within_the_width(void **state)
{
    (void)state;
    struct status s;
    struct writer w = {0};
    sample(&s);
    status_text(&s, false, 0, &w);
    assert_non_null(strstr(writer_cstr(&w), " 60% 600 of 1,000 rows\n"));
    assert_null(strchr(writer_cstr(&w), '['));
    writer_clear(&w);
    status_text(&s, true, 80, &w);
    assert_non_null(strstr(writer_cstr(&w), "[###"));
    assert_false(any_line_longer_than(writer_cstr(&w), 80));
    writer_clear(&w);
    status_text(&s, true, 40, &w);
    assert_null(strchr(writer_cstr(&w), '['));
    writer_release(&w);
    status_free(&s);
}

static void text_says_unknown_and_never_sends_control_characters(void **state)
{
    (void)state;
    struct status s;
    struct writer w = {0};
    sample(&s);
    (void)error_set(&s.error, ERROR_SCHEMA, "column \x1b[31mx");
    (void)error_hint(&s.error, "alter it");
    status_text(&s, true, 100, &w);
    const char *text = writer_cstr(&w);
    assert_non_null(strstr(text, "lag        12 ms, 1.2 KiB, transactions: 3\n"));
    assert_non_null(strstr(text, "received   unknown\n"));
    assert_non_null(strstr(text, "changes: unknown"));
    assert_non_null(strstr(text, "error      schema: column ?[31mx\n"));
    assert_non_null(strstr(text, "do         alter it\n"));
    assert_non_null(strstr(text, "public.\"a\\b?c\""));
    writer_release(&w);
    status_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_exactly_the_keys_of_the_contract),
        cmocka_unit_test(json_carries_the_values),
        cmocka_unit_test(what_is_unknown_is_null_and_what_is_zero_is_zero),
        cmocka_unit_test(names_that_are_not_utf8_do_not_break_json_or_metrics),
        cmocka_unit_test(readiness_of_the_other_switch_names_the_direction),
        cmocka_unit_test(a_clone_survives_its_original),
        cmocka_unit_test(metrics_leave_out_what_is_unknown),
        cmocka_unit_test(metrics_escape_labels),
        cmocka_unit_test(text_draws_bars_only_when_asked_and_within_the_width),
        cmocka_unit_test(text_says_unknown_and_never_sends_control_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
