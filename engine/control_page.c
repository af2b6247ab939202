#include "engine/control_page.h"

/* Everything the page shows comes from names in a database: it is only ever set as text. The
 * policy is the second lock on the same door. */
const char control_page_policy[] =
    "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/* clang-format off */
static const char head[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>teal</title>\n<style>\n"
    ":root { color-scheme: light dark; --line: #8884; --soft: #888; --teal: #0a8a8a; --bad: #c0392b }\n"
    "@media (prefers-color-scheme: dark) { :root { --teal: #3cc; --bad: #ff7b6b } }\n"
    "body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }\n"
    "h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1rem; margin: 2rem 0 .5rem }\n"
    "#phase { color: var(--teal) } .bad, #phase.bad { color: var(--bad) } .soft { color: var(--soft) }\n"
    "dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; margin: 1rem 0 }\n"
    "dt { color: var(--soft) } dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }\n"
    "table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }\n"
    "th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line) }\n"
    ".number { text-align: right } progress { width: 100%; min-width: 6rem; accent-color: var(--teal) }\n"
    "#error { border-left: .3rem solid var(--bad); padding: .2rem 1rem; margin: 1rem 0 }\n"
    "[hidden] { display: none }\n"
    "</style>\n</head>\n";

static const char body[] =
    "<body>\n<h1><span id=\"migration\">teal</span> <span id=\"phase\"></span></h1>\n"
    "<div id=\"direction\" class=\"soft\"></div>\n"
    "<div id=\"lost\" class=\"bad\" role=\"alert\" hidden>The engine does not answer. What you see is old.</div>\n"
    "<div id=\"error\" role=\"alert\" hidden><b id=\"kind\"></b> <span id=\"text\"></span><div id=\"hint\"></div></div>\n"
    "<dl id=\"facts\"></dl>\n"
    "<h2>Positions</h2>\n<dl id=\"positions\"></dl>\n"
    "<h2>Tables</h2>\n<table>\n<thead><tr><th>table<th>phase<th>copy<th class=\"number\">rows"
    "<th class=\"number\">changes<th class=\"number\">conflicts</tr></thead>\n<tbody id=\"tables\"></tbody>\n</table>\n"
    "<noscript>This page needs JavaScript; <a href=\"/status\">/status</a> does not.</noscript>\n";

static const char script_words[] =
    "<script>\n'use strict';\n"
    "const $ = id => document.getElementById(id);\n"
    "const count = n => n == null ? 'unknown' : n.toLocaleString('en');\n"
    "const size = n => {\n"
    "  if (n == null) return 'unknown';\n"
    "  let unit = 0;\n"
    "  for (; n >= 1024 && unit < 4; unit++) n /= 1024;\n"
    "  return (unit ? n.toFixed(1) : n) + ' ' + ['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit];\n"
    "};\n"
    "const time = s => s == null ? 'unknown' : s < 1 ? Math.round(s * 1000) + ' ms'\n"
    "  : s < 60 ? s.toFixed(1) + ' s' : Math.floor(s / 60) + ' min ' + Math.floor(s % 60) + ' s';\n"
    "const make = (tag, text, name) => {\n"
    "  const e = document.createElement(tag);\n"
    "  e.textContent = text;\n"
    "  if (name) e.className = name;\n"
    "  return e;\n"
    "};\n"
    "const list = (id, facts) => $(id).replaceChildren(\n"
    "  ...facts.flatMap(([name, value]) => [make('dt', name), make('dd', value)]));\n"
    "const bar = t => {\n"
    "  const cell = make('td', '');\n"
    "  if (t.rows_total == null || t.rows_copied == null) return cell;\n"
    "  const p = make('progress', '');\n"
    "  p.max = Math.max(t.rows_total, t.rows_copied, 1);\n"
    "  p.value = t.phase == 'copying' || t.phase == 'new' ? t.rows_copied : p.max;\n"
    "  cell.append(p);\n"
    "  return cell;\n"
    "};\n"
    "const row = t => {\n"
    "  const r = make('tr', '');\n"
    "  r.append(make('td', t.name), make('td', t.phase, t.phase == 'halted' ? 'bad' : ''), bar(t),\n"
    "    make('td', count(t.rows_copied), 'number'), make('td', count(t.changes), 'number'),\n"
    "    make('td', count(t.conflicts), 'number' + (t.conflicts ? ' bad' : '')));\n"
    "  return r;\n"
    "};\n";

static const char script_show[] =
    "const show = s => {\n"
    "  document.title = s.migration + ' ' + s.phase;\n"
    "  $('migration').textContent = s.migration;\n"
    "  $('phase').textContent = s.phase;\n"
    "  $('phase').className = s.phase == 'halted' ? 'bad' : '';\n"
    "  $('direction').textContent = s.direction.replaceAll('-', ' ') + ', teal ' + s.teal;\n"
    "  $('error').hidden = !s.error;\n"
    "  $('kind').textContent = s.error ? s.error.kind : '';\n"
    "  $('text').textContent = s.error ? s.error.text : '';\n"
    "  $('hint').textContent = s.error && s.error.hint || '';\n"
    "  const c = s.copy, a = s.apply, ready = s.ready;\n"
    "  list('facts', [\n"
    "    ['lag', time(s.lag.seconds) + ', ' + size(s.lag.bytes) + ', transactions: ' + count(s.lag.transactions)],\n"
    "    ['copy', count(c.tables_done) + ' of ' + count(c.tables) + ' tables, ' + count(c.rows_done) + ' of ' +\n"
    "      count(c.rows) + ' rows' + (s.phase == 'copying' && c.eta_seconds != null ? ', ' + time(c.eta_seconds) + ' left' : '')],\n"
    "    ['applied', 'transactions: ' + count(a.transactions) + ', changes: ' + count(a.changes) + ', conflicts: ' +\n"
    "      count(a.conflicts) + ', stray writes: ' + count(a.stray_writes)],\n"
    "    ['spool', size(s.spool.memory_bytes) + ' in memory, ' + size(s.spool.disk_bytes) + ' of ' +\n"
    "      size(s.spool.disk_max_bytes) + ' on disk'],\n"
    "    ['ready', ready.cutover ? 'for cutover' : ready.rollback ? 'for rollback' : 'no'],\n"
    "    ...ready.reasons.map(text => ['', text])]);\n"
    "  list('positions', Object.entries(s.position).map(([name, p]) => [name, p ?? 'unknown']));\n"
    "  $('tables').replaceChildren(...s.tables.map(row));\n"
    "};\n"
    "const tick = async () => {\n"
    "  try {\n"
    "    const answer = await fetch('/status', { cache: 'no-store', signal: AbortSignal.timeout(5000) });\n"
    "    if (!answer.ok) throw new Error(answer.status);\n"
    "    show(await answer.json());\n"
    "    $('lost').hidden = true;\n"
    "  } catch { $('lost').hidden = false; }\n"
    "  setTimeout(tick, 1000);\n"
    "};\n"
    "tick();\n</script>\n</body>\n</html>\n";
/* clang-format on */

void control_page_write(struct writer *out)
{
    writer_text(out, head);
    writer_text(out, body);
    writer_text(out, script_words);
    writer_text(out, script_show);
}
