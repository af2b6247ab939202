#include "tests/unit/options_fixture.h"

static void minimal_file_gets_the_defaults(void **state)
{
    (void)state;
    assert_int_equal(setenv("XDG_STATE_HOME", "/x/state", 1), 0);
    struct options *o = parse_text(minimal);
    assert_string_equal(o->file, "/etc/teal/teal.ini");
    assert_string_equal(o->name, "shop");
    assert_string_equal(o->state, "/x/state/teal/shop");
    assert_string_equal(o->spool_path, "/x/state/teal/shop/spool");
    assert_string_equal(o->socket, "/x/state/teal/shop/teal.sock");
    assert_string_equal(o->blue.scheme, "postgresql");
    assert_string_equal(o->blue.conninfo, "postgresql://teal@blue/shop");
    assert_string_equal(o->green.shown, "postgresql://teal@green/shop");
    assert_int_equal(o->schema_mode, SCHEMA_COPY);
    assert_null(o->pg_dump);
    assert_int_equal(o->copy_jobs, 4);
    assert_int_equal(o->copy_chunk_bytes, 64 << 20);
    assert_int_equal(o->copy_snapshot_max_us, INT64_C(900000000));
    assert_int_equal(o->lanes, 1);
    assert_int_equal(o->on_conflict, ROW_STRICT);
    assert_int_equal(o->memory_max, 256 << 20);
    assert_int_equal(o->disk_max, UINT64_C(20) << 30);
    assert_int_equal(o->ack, ACK_SPOOL);
    assert_int_equal(o->ddl_policy, DDL_HALT);
    assert_int_equal(o->cutover_max_lag_us, 1000000);
    assert_int_equal(o->cutover_max_pause_us, 3000000);
    assert_string_equal(o->cutover_fence, "auto");
    assert_true(o->cutover_guard_green);
    assert_int_equal(o->cutover_terminate_after_us, 0);
    assert_null(o->listen_host);
    assert_int_equal(o->table_count + o->hook_count + o->pooler_count, 0);
    options_free(o);
}

static void state_falls_back_to_the_home_folder(void **state)
{
    (void)state;
    assert_int_equal(setenv("XDG_STATE_HOME", "relative/is/ignored", 1), 0);
    assert_int_equal(setenv("HOME", "/home/op", 1), 0);
    struct options *o = parse_text(minimal);
    assert_string_equal(o->state, "/home/op/.local/state/teal/shop");
    options_free(o);
    assert_int_equal(unsetenv("HOME"), 0);
    expect_error(minimal, "teal.ini:1: no place for the state folder: HOME is not set");
    assert_int_equal(setenv("HOME", "/home/op", 1), 0);
    assert_int_equal(setenv("XDG_STATE_HOME", "/x/state", 1), 0);
}

static void every_key_is_read(void **state)
{
    (void)state;
    struct options *o = parse_more(
        "[schema]\nmode = existing\npg-dump = pg_dump-16\n"
        "[copy]\njobs = 8\nchunk-size = 1MiB\nsnapshot-max = 1h\n"
        "[apply]\nlanes = 3\non-conflict = skip\n"
        "[spool]\npath = /s\nmemory-max = 32MiB\ndisk-max = 1GiB\nack = target\n"
        "[ddl]\npolicy = ignore\n"
        "[cutover]\nmax-lag = 250ms\nmax-pause = 2s\nfence = read-only\nguard-green = no\n"
        "terminate-after = 5s\n"
        "[control]\nsocket = /run/t.sock\nlisten = [::1]:7654\n");
    assert_int_equal(o->schema_mode, SCHEMA_EXISTING);
    assert_string_equal(o->pg_dump, "pg_dump-16");
    assert_int_equal(o->copy_jobs, 8);
    assert_int_equal(o->copy_chunk_bytes, 1 << 20);
    assert_int_equal(o->copy_snapshot_max_us, INT64_C(3600000000));
    assert_int_equal(o->lanes, 3);
    assert_int_equal(o->on_conflict, ROW_SKIP);
    assert_string_equal(o->spool_path, "/s");
    assert_int_equal(o->memory_max, 32 << 20);
    assert_int_equal(o->disk_max, 1 << 30);
    assert_int_equal(o->ack, ACK_TARGET);
    assert_int_equal(o->ddl_policy, DDL_IGNORE);
    assert_int_equal(o->cutover_max_lag_us, 250000);
    assert_int_equal(o->cutover_max_pause_us, 2000000);
    assert_string_equal(o->cutover_fence, "read-only");
    assert_false(o->cutover_guard_green);
    assert_int_equal(o->cutover_terminate_after_us, 5000000);
    assert_string_equal(o->socket, "/run/t.sock");
    assert_string_equal(o->listen_host, "::1");
    assert_int_equal(o->listen_port, 7654);
    options_free(o);
}

static void comments_blanks_and_line_ends_do_not_matter(void **state)
{
    (void)state;
    struct options *o = parse_text("\xEF\xBB\xBF; first\r\n  [ migration ] ; comment\r\n"
                                   "\tname=shop\t; [a-z]\r\n# other\r\n[blue] # too\n"
                                   "   uri  =  postgresql://b/d?options=a;b   ; c ; d\n\n"
                                   "[green]\nuri = postgresql://g/d");
    assert_string_equal(o->name, "shop");
    assert_string_equal(o->blue.conninfo, "postgresql://b/d?options=a;b");
    assert_string_equal(o->green.conninfo, "postgresql://g/d");
    options_free(o);
}

static void unknown_words_are_refused_with_their_line(void **state)
{
    (void)state;
    expect_more_error("[copy]\njobs = 1\njbos = 4\n",
                      "teal.ini:9: unknown key \"jbos\" in [copy]");
    expect_more_error("\n[cpoy]\n", "teal.ini:8: unknown section [cpoy]");
    expect_more_error("[hook flap]\nexec = x\n", "teal.ini:7: unknown hook \"flap\"");
    expect_more_error("[ddl]\npolicy = hlat\n",
                      "teal.ini:8: policy in [ddl]: \"hlat\" is not known");
    expect_more_error("[cutover]\nguard-green = maybe\n",
                      "teal.ini:8: guard-green in [cutover]: \"maybe\" is not known");
    expect_error("name = x\n", "teal.ini:1: key \"name\" before any section");
    struct error err = refuse_text("[copy]\njbos = 4\n");
    assert_string_equal(err.hint, "expected: jobs, chunk-size, snapshot-max");
    err = refuse_text("[ddl]\npolicy = no\n");
    assert_string_equal(err.hint, "expected: halt|forward|ignore");
}

static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    expect_more_error("[copy]\njobs = 0\n", "teal.ini:8: jobs in [copy]: 0 is out of range");
    expect_more_error("[copy]\njobs = 65\n", "teal.ini:8: jobs in [copy]: 65 is out of range");
    expect_more_error("[copy]\njobs = 4x\n",
                      "teal.ini:8: jobs in [copy]: \"4x\" is not a number");
    expect_more_error("[copy]\njobs = -1\n",
                      "teal.ini:8: jobs in [copy]: \"-1\" is not a number");
    expect_more_error("[copy]\nchunk-size = 1023KiB\n",
                      "teal.ini:8: chunk-size in [copy]: 1023KiB is out of range");
    expect_more_error("[spool]\nmemory-max = 31MiB\n",
                      "teal.ini:8: memory-max in [spool]: 31MiB is out of range");
    expect_more_error("[cutover]\nmax-pause = 0s\n",
                      "teal.ini:8: max-pause in [cutover]: 0s is out of range");
    expect_more_error("[cutover]\nmax-lag = 1 s\n",
                      "teal.ini:8: max-lag in [cutover]: \"1 s\" is not a duration");
    expect_more_error("[control]\nlisten = 127.0.0.1\n",
                      "teal.ini:8: listen in [control]: \"127.0.0.1\" is not an address");
    expect_more_error("[control]\nlisten = h:65536\n",
                      "teal.ini:8: listen in [control]: \"h:65536\" is not an address");
    expect_error("[migration]\nname = Shop\n",
                 "teal.ini:2: name in [migration]: \"Shop\" is not a name");
    struct error err = refuse_text("[copy]\nchunk-size = 1\n");
    assert_string_equal(err.hint, "expected: 1MiB to 1TiB");
}

static void what_is_there_twice_is_refused(void **state)
{
    (void)state;
    expect_more_error("[copy]\n[ddl]\n[copy]\n",
                      "teal.ini:9: section [copy] is there twice, first in line 7");
    expect_more_error("[copy]\njobs = 1\njobs = 1\n",
                      "teal.ini:9: key \"jobs\" in [copy] is there twice, first in line 8");
    expect_more_error("[table a.b]\n[table \"a\".b]\n",
                      "teal.ini:8: section [table \"a\".b] is there twice");
    expect_more_error("[hook flip]\nexec = a\n[hook flip]\nexec = b\n",
                      "teal.ini:9: section [hook flip] is there twice");
    expect_more_error("[pooler a]\nkind = haproxy\nadmin = /a\n[pooler a]\n",
                      "teal.ini:10: section [pooler a] is there twice");
    expect_more_error("[table a.b]\nto = x.y\n[table x.y]\n",
                      "teal.ini:9: a.b and x.y become the same table");
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    expect_error("", "teal.ini: section [migration] is missing");
    expect_error("[migration]\nname = a\n[blue]\nuri = postgresql://x\n",
                 "teal.ini: section [green] is missing");
    expect_error("\n[migration]\n[blue]\n", "teal.ini:2: section [migration] lacks \"name\"");
    expect_error("[migration]\nname = a\n[blue]\n", "teal.ini:3: section [blue] lacks \"uri\"");
    expect_error("[migration]\nname = ; none\n", "teal.ini:2: name in [migration]: no value");
    expect_more_error("[hook flip]\ntimeout = 1s\n\n",
                      "teal.ini:7: section [hook] lacks \"exec\"");
    expect_more_error("[pooler a]\nkind = haproxy\n",
                      "teal.ini:7: section [pooler] lacks \"admin\"");
    expect_more_error("[pooler a]\nkind = pgbouncer\nadmin = postgresql://x/pgbouncer\n",
                      "teal.ini:7: [pooler a] lacks \"config\"");
    expect_more_error("[table]\n", "teal.ini:7: section [table] lacks a name");
    expect_more_error("[copy x]\n", "teal.ini:7: section [copy] takes no name");
    expect_more_error("[cutover]\nmax-lag = 1s\nfence = hook\n",
                      "teal.ini:9: fence = hook in [cutover] needs a section [hook fence]");
}

static void lines_that_are_no_pairs_are_refused_and_not_repeated(void **state)
{
    (void)state;
    expect_more_error("\nhunter2\n", "teal.ini:8: neither a section nor a pair");
    expect_more_error("[copy]\njobs ; = 2\n[nonsense]\n",
                      "teal.ini:8: neither a section nor a pair");
    expect_more_error("[copy]\njobs = 2\njobs ; = 2",
                      "teal.ini:9: neither a section nor a pair");
    expect_more_error("[copy\n", "teal.ini:7: a section needs a closing \"]\"");
    expect_more_error("[copy] x\n", "teal.ini:7: more text after the section's \"]\"");
    expect_more_error("[copy]\njobs = 1\x01\n", "teal.ini:8: a control character");
}

static void long_lines_are_whole_or_refused(void **state)
{
    (void)state;
    static char name[30001];
    cleanup_with(writer_release) struct writer text = {0};
    memset(name, 'a', 5000);
    writer_printf(&text, "[tables]\ninclude = %s.x\n%s", name, minimal);
    struct options *o = parse_text(writer_cstr(&text));
    assert_int_equal(strlen(o->include[0]), 5002);
    options_free(o);
    memset(name, 'a', sizeof name - 1);
    writer_clear(&text);
    writer_printf(&text, "[tables]\ninclude = %s.x\n[nonsense]\n", name);
    struct error err = refuse_text(writer_cstr(&text));
    assert_non_null(strstr(err.text, "teal.ini:2: the line is longer than"));
}

static void durations_and_sizes_have_exact_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t us;
    } durations[] = {{"250ms", 250000},
                     {"3s", 3000000},
                     {"5m", 300000000},
                     {"1h", INT64_C(3600000000)},
                     {"0s", 0}};
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"512", 512},
                 {"64KiB", 65536},
                 {"1MiB", 1 << 20},
                 {"1GiB", 1 << 30},
                 {"2TiB", UINT64_C(2) << 40}};
    static const char *const bad[] = {"",
                                      "s",
                                      "1",
                                      "1d",
                                      "-1s",
                                      "1.5s",
                                      "1 s",
                                      "1S",
                                      "1ss",
                                      "ms",
                                      "1sms",
                                      "99999999999999999999s",
                                      "9999999999999999h"};
    static const char *const bad_sizes[] = {"",
                                            "KiB",
                                            "1KB",
                                            "1kib",
                                            "-1",
                                            "1.5MiB",
                                            "0x10",
                                            "99999999999999999999",
                                            "99999999999TiB"};
    struct error err = {0};
    int64_t us = -1;
    uint64_t bytes = 0;
    for (size_t i = 0; i < array_count(durations); i++) {
        assert_true(options_duration(durations[i].text, &us, &err));
        assert_int_equal(us, durations[i].us);
    }
    for (size_t i = 0; i < array_count(sizes); i++) {
        assert_true(options_size(sizes[i].text, &bytes, &err));
        assert_int_equal(bytes, sizes[i].bytes);
    }
    for (size_t i = 0; i < array_count(bad); i++, error_clear(&err)) {
        assert_false(options_duration(bad[i], &us, &err));
        assert_int_equal(err.kind, ERROR_CONFIG);
    }
    for (size_t i = 0; i < array_count(bad_sizes); i++, error_clear(&err)) {
        assert_false(options_size(bad_sizes[i], &bytes, &err));
        assert_int_equal(err.kind, ERROR_CONFIG);
    }
}

static void tables_are_taken_in_by_globs_on_the_whole_name(void **state)
{
    (void)state;
    struct options *o = parse_text(minimal);
    assert_true(options_includes(o, "public", "orders"));
    options_free(o);
    o = parse_more("[tables]\ninclude = public.*, \"Sales\".\"Order Items\" ,s?.t[12],"
                   "\"a*\".\"b,c\"\nexclude = public.tmp_*, *.old\n"
                   "set-identity-full = public.log, \"My S\".\"T\"\"x\"\n");
    assert_true(options_includes(o, "public", "orders"));
    assert_false(options_includes(o, "public", "tmp_1"));
    assert_false(options_includes(o, "public", "old"));
    assert_true(options_includes(o, "Sales", "Order Items"));
    assert_false(options_includes(o, "sales", "Order Items"));
    assert_true(options_includes(o, "s1", "t2"));
    assert_false(options_includes(o, "s1", "t3"));
    assert_true(options_includes(o, "a*", "b,c"));
    assert_false(options_includes(o, "ab", "b,c"));
    assert_int_equal(o->set_identity_full_count, 2);
    assert_string_equal(o->set_identity_full[0], "public.log");
    assert_string_equal(o->set_identity_full[1], "My S.T\"x");
    options_free(o);
    expect_more_error(
        "[tables]\ninclude = orders\n",
        "teal.ini:8: include in [tables]: \"orders\" cannot match a schema.table");
    expect_more_error("[tables]\ninclude = a.*,\n",
                      "teal.ini:8: include in [tables]: the list has an empty item");
    expect_more_error("[tables]\nexclude = \"a.*\n",
                      "teal.ini:8: exclude in [tables]: a quoted name has no closing \"");
    expect_more_error("[tables]\nset-identity-full = log\n",
                      "teal.ini:8: set-identity-full in [tables]: \"log\" is not the name of a "
                      "table");
}

static void tables_and_columns_are_mapped(void **state)
{
    (void)state;
    struct options *o = parse_more(
        "[table public.orders]\nto = public.purchase\n"
        "columns = id, placed_at -> created_at,\"To, tal\"->total\n"
        "[table \"Sales ]\".\"A table whose name is longer than fifty bytes: 0123456789\"]\n"
        "[table s.t] ; comment\nto = \"S\".\"T\"\n");
    assert_int_equal(o->table_count, 3);
    const struct table_options *t = options_table(o, BYTES("public"), BYTES("orders"));
    assert_non_null(t);
    assert_string_equal(t->name, "public.orders");
    assert_string_equal(t->to_schema, "public");
    assert_string_equal(t->to_table, "purchase");
    assert_int_equal(t->column_count, 3);
    assert_string_equal(t->columns[0].from, "id");
    assert_string_equal(t->columns[0].to, "id");
    assert_string_equal(t->columns[1].from, "placed_at");
    assert_string_equal(t->columns[1].to, "created_at");
    assert_string_equal(t->columns[2].from, "To, tal");
    assert_string_equal(t->columns[2].to, "total");
    t = options_table(o, BYTES("Sales ]"),
                      BYTES("A table whose name is longer than fifty bytes: 0123456789"));
    assert_non_null(t);
    assert_int_equal(t->column_count, 0);
    assert_string_equal(t->to_schema, "Sales ]");
    t = options_table(o, BYTES("s"), BYTES("t"));
    assert_non_null(t);
    assert_string_equal(t->to_schema, "S");
    assert_null(options_table(o, BYTES("public"), BYTES("order")));
    options_free(o);
    expect_more_error("[table a]\n", "teal.ini:7: \"a\" is not the name of a table");
    expect_more_error("[table a.b.c]\n", "teal.ini:7: \"a.b.c\" is not the name of a table");
    expect_more_error("[table a.b]\ncolumns = id, id -> x\n",
                      "teal.ini:8: columns in [table]: id is there twice");
    expect_more_error("[table a.b]\ncolumns = id, x -> id\n",
                      "teal.ini:8: columns in [table]: two columns become id");
    expect_more_error("[table a.b]\ncolumns = id -> \n",
                      "teal.ini:8: columns in [table]: \"id ->\" is not a column");
    expect_more_error("[table a.b]\nto = b\n",
                      "teal.ini:8: to in [table]: \"b\" is not the name of a table");
}

static void hooks_and_poolers_are_read(void **state)
{
    (void)state;
    struct options *o = parse_more(
        "[hook flip]\nexec = /etc/teal/flip  --to \"two words\" 'a\\b' c\\ d \"\"\ntimeout = "
        "30s\n"
        "[hook drain]\nexec = drain\n[hook fence]\nexec = f\n"
        "[cutover]\nfence = hook\n"
        "[pooler main]\nkind = pgbouncer\nadmin = postgresql://admin:hunter2@b:6432/pgbouncer\n"
        "config = bouncer.ini\n"
        "[pooler edge]\nkind = haproxy\nadmin = /run/haproxy.sock\n");
    assert_int_equal(o->hook_count, 3);
    const struct hook_options *h = options_hook(o, "flip");
    assert_non_null(h);
    static const char *const argv[] = {"/etc/teal/flip", "--to", "two words",
                                       "a\\b",           "c d",  ""};
    for (size_t i = 0; i < array_count(argv); i++)
        assert_string_equal(h->argv[i], argv[i]);
    assert_null(h->argv[array_count(argv)]);
    assert_int_equal(h->timeout_us, 30000000);
    assert_int_equal(options_hook(o, "drain")->timeout_us, 2000000);
    assert_null(options_hook(o, "resume"));
    assert_int_equal(o->pooler_count, 2);
    assert_string_equal(o->poolers[0].name, "main");
    assert_string_equal(o->poolers[0].kind, "pgbouncer");
    assert_string_equal(o->poolers[0].admin.shown, "postgresql://admin@b:6432/pgbouncer");
    assert_string_equal(o->poolers[0].config, "/etc/teal/bouncer.ini");
    assert_string_equal(o->poolers[1].admin.scheme, "haproxy");
    assert_string_equal(o->poolers[1].admin.conninfo, "/run/haproxy.sock");
    options_free(o);
    expect_more_error("[hook flip]\nexec = \"a\n", "teal.ini:8: exec in [hook]: no closing \"");
    expect_more_error("[pooler a]\nkind = pgbouncer\nadmin = hunter2\nconfig = x\n",
                      "teal.ini:7: admin of [pooler a]: the connection string is not key=value "
                      "pairs");
}

static void paths_are_beside_the_file(void **state)
{
    (void)state;
    struct options *o = parse_more("[spool]\npath = spool\n[control]\nsocket = ~/t.sock\n");
    assert_string_equal(o->spool_path, "/etc/teal/spool");
    assert_string_equal(o->socket, "/home/op/t.sock");
    options_free(o);
    char long_path[256] = "[copy]\n[control]\nsocket = /";
    memset(long_path + strlen(long_path), 's', 120);
    char text[1024];
    (void)snprintf(text, sizeof text, "%s%s", minimal, long_path);
    struct error err = refuse_text(text);
    assert_non_null(strstr(err.text, "teal.ini:9: the socket's path is longer than 107 bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minimal_file_gets_the_defaults),
        cmocka_unit_test(state_falls_back_to_the_home_folder),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(comments_blanks_and_line_ends_do_not_matter),
        cmocka_unit_test(unknown_words_are_refused_with_their_line),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(what_is_there_twice_is_refused),
        cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(lines_that_are_no_pairs_are_refused_and_not_repeated),
        cmocka_unit_test(long_lines_are_whole_or_refused),
        cmocka_unit_test(durations_and_sizes_have_exact_units),
        cmocka_unit_test(tables_are_taken_in_by_globs_on_the_whole_name),
        cmocka_unit_test(tables_and_columns_are_mapped),
        cmocka_unit_test(hooks_and_poolers_are_read),
        cmocka_unit_test(paths_are_beside_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
