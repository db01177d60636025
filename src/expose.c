/* expose: the counters of a zone as Prometheus text, summed over all members.
 * It decides nothing. Rows that carry the same label (a node whose key was
 * changed) are one series; what former nodes of a row had counted stands
 * under node="", so a sum over nodes never falls.
 *
 * SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "hall.h"

enum { LABEL = NODE_ID_MAX * 2 + 1 };           /* escaped */

struct text {                       /* what fits is written, all is counted */
  char  *at;
  size_t cap, size;
};

struct page {
  struct drover_router *r;
  struct text *out;
  uint32_t count;                   /* rows */
  uint16_t next[NODE_MAX + 1];      /* the next row of the same label, or 0 */
  uint8_t  spoken[NODE_MAX + 1];    /* 1: another row speaks for its label */
};


static void print(struct text *t, const char *fmt, ...)
  __attribute__((format(printf, 2, 3)));

/* As snprintf: past the cap nothing is written and everything counted, so
 * the caller learns how much room it needs in one call. vsnprintf's NUL
 * falls on room that the next piece overwrites. */
static void print(struct text *t, const char *fmt, ...) {
  size_t room = t->size < t->cap ? t->cap - t->size : 0;
  va_list args;
  va_start(args, fmt);
  int wrote = vsnprintf(room ? t->at + t->size : NULL, room, fmt, args);
  va_end(args);
  t->size += wrote > 0 ? (size_t)wrote : 0;
}


static void head(struct text *t, const char *name, const char *type,
                 const char *help) {
  print(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}


/* ---- rows as series ---- */

/* Labels of Prometheus escape the backslash, the quote and the newline (which
 * no id has). */
static void label_of(const struct page *p, uint32_t row, char *out) {
  drover_node_text text;
  if (row == 0 || node_table_read(&p->r->table, row, &text, 1) != DROVER_OK)
    text.id[0] = '\0';
  for (const char *c = text.id; *c; c++) {
    if (*c == '\\' || *c == '"')
      *out++ = '\\';
    *out++ = *c;
  }
  *out = '\0';
}


static int gone(const struct page *p, uint32_t row) {
  return atom_get_u32(&p->r->table.rows[row].state) == DROVER_REMOVED;
}


/* Rows of one label become a chain; its head speaks for it: the first row that
 * is in use, or else the first. */
static void join_labels(struct page *p) {
  uint64_t label[NODE_MAX + 1];
  for (uint32_t i = 1; i <= p->count; i++) {
    label[i] = atom_get_u64(&p->r->table.own[i].label);
    uint32_t head = 1;
    while (head < i && (p->spoken[head] || label[head] != label[i]))
      head++;
    if (head == i)
      continue;
    int better = gone(p, i) < gone(p, head);
    uint32_t first = better ? i : head, second = better ? head : i;
    p->spoken[second] = 1;
    p->next[i] = better ? (uint16_t)head : p->next[head];
    if (!better)
      p->next[first] = (uint16_t)i;
  }
}


/* Rows are summed here from tally_sum()'s copies, so plain reads: tally.c's
 * sum is over members, this one over rows of a label. */
static void add(struct tally_node *to, const struct tally_node *from) {
  for (int i = 0; i < TALLY_TOKENS; i++)
    to->tokens[i] += from->tokens[i];
  to->dollars += from->dollars;
  for (int i = 0; i < ERR_KINDS; i++) {
    to->attempts[i] += from->attempts[i];
    to->outcomes[i] += from->outcomes[i];
  }
}


/* The counters of a series: all rows of the label. Row 0 is the empty label:
 * requests that reached no node, and all former nodes. 0: not a series. */
static int series(const struct page *p, uint32_t row, struct tally_node *out) {
  struct tally_node one;
  if (p->spoken[row])
    return 0;
  tally_sum(&p->r->tally, row, out);
  for (uint32_t i = 1; row == 0 && i <= p->count; i++) {
    tally_base(&p->r->tally, i, &one);
    add(out, &one);
  }
  for (uint32_t i = p->next[row]; i; i = p->next[i]) {
    tally_sum(&p->r->tally, i, &one);
    add(out, &one);
  }
  return 1;
}


/* ---- the parts of the page ---- */

/* Zeroes are left out but for `ok` of each node: a series of 22 kinds for
 * 512 nodes would be mostly zeroes, and rate() needs one that exists from
 * the start. */
static void kinds(const struct page *p, const char *name, const char *label,
                  const char *help, int attempts) {
  head(p->out, name, "counter", help);
  for (uint32_t row = 0; row <= p->count; row++) {
    struct tally_node sum;
    char id[LABEL];
    if (!series(p, row, &sum))
      continue;
    label_of(p, row, id);
    const uint64_t *of = attempts ? sum.attempts : sum.outcomes;
    for (int kind = 0; kind < ERR_KINDS; kind++)
      if (of[kind] || (kind == 0 && row))
        print(p->out, "%s{node=\"%s\",%s=\"%s\"} %llu\n", name, id, label,
              err_row_word(kind), (unsigned long long)of[kind]);
  }
}


/* Prometheus wants the lines of one metric together; hence two passes over
 * the rows for tokens and dollars. */
static void used(const struct page *p) {
  static const char *const types[] = { "input", "output", "cached" };
  head(p->out, "drover_tokens_total", "counter", "Tokens by the nodes' usage.");
  for (uint32_t row = 0; row <= p->count; row++) {
    struct tally_node sum;
    char id[LABEL];
    if (!series(p, row, &sum))
      continue;
    label_of(p, row, id);
    for (int i = 0; i < TALLY_TOKENS; i++)
      if (row || sum.tokens[i])
        print(p->out, "drover_tokens_total{node=\"%s\",type=\"%s\"} %llu\n", id,
              types[i], (unsigned long long)sum.tokens[i]);
  }
  head(p->out, "drover_cost_dollars_total", "counter",
       "Cost by the nodes' prices.");
  for (uint32_t row = 0; row <= p->count; row++) {
    struct tally_node sum;
    char id[LABEL];
    if (!series(p, row, &sum) || (!row && !(sum.dollars > 0)))
      continue;
    label_of(p, row, id);
    print(p->out, "drover_cost_dollars_total{node=\"%s\"} %.9g\n", id,
          sum.dollars);
  }
}


/* In flight is asked of the cells, not of the row's advisory word: a scrape
 * is the place where a drift would be seen. The row numbers of one label are
 * summed, its state is that of the row that speaks for it. */
static void gauges(const struct page *p) {
  head(p->out, "drover_inflight", "gauge", "Requests in flight.");
  for (uint32_t row = 1; row <= p->count; row++) {
    char id[LABEL];
    if (p->spoken[row])
      continue;
    label_of(p, row, id);
    uint32_t on = 0;
    for (uint32_t i = row; i; i = p->next[i])
      on += drover_inflight(p->r, i);
    print(p->out, "drover_inflight{node=\"%s\"} %u\n", id, on);
  }
  head(p->out, "drover_node_state", "gauge",
       "0 up, 1 probing, 2 out, 3 draining.");
  for (uint32_t row = 1; row <= p->count; row++) {
    char id[LABEL];
    if (gone(p, row) || p->spoken[row])
      continue;
    label_of(p, row, id);
    print(p->out, "drover_node_state{node=\"%s\"} %u\n", id,
          atom_get_u32(&p->r->table.rows[row].state));
  }
}


struct histogram {
  const char *name, *help;
  const double *bounds;
  const uint64_t *buckets;          /* `count` + 1, the last past all bounds */
  int count;
  double sum;
};


/* Buckets are cumulative in the text and single in memory, where an
 * observation touches one word. _count is taken from the same pass, so that
 * it always equals the +Inf bucket. */
static void histogram(struct text *t, const struct histogram *h) {
  uint64_t below = 0;
  head(t, h->name, "histogram", h->help);
  for (int i = 0; i < h->count; i++) {
    below += h->buckets[i];
    print(t, "%s_bucket{le=\"%g\"} %llu\n", h->name, h->bounds[i],
          (unsigned long long)below);
  }
  below += h->buckets[h->count];
  print(t, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n",
        h->name, (unsigned long long)below, h->name, h->sum, h->name,
        (unsigned long long)below);
}


/* `router` and `node` are what the two may have in flight; these are always
 * there. The others are scope_kind, when they ever refused. */
static void refusals(struct text *out, const uint64_t *refused) {
  static const char *const scopes[TALLY_SCOPES] = {
    "router", "tenant", "model", "node", "key" };
  static const char *const kinds[TALLY_KINDS] = {
    NULL, "_concurrent", "_rpm", "_tpm", "_dollars_per_day",
    "_dollars_per_month", "_upstream", "_table" };
  head(out, "drover_limit_refusals_total", "counter",
       "Requests or nodes refused by a limit.");
  for (uint32_t scope = 0; scope < TALLY_SCOPES; scope++) {
    for (uint32_t kind = 1; kind < TALLY_KINDS; kind++) {
      uint64_t count = refused[tally_limit(scope, kind)];
      int bare = kind == DROVER_LIMIT_CONCURRENT &&
                 (scope == DROVER_SCOPE_ROUTER || scope == DROVER_SCOPE_NODE);
      if (count || bare)
        print(out, "drover_limit_refusals_total{limit=\"%s%s\"} %llu\n",
              scopes[scope], bare ? "" : kinds[kind],
              (unsigned long long)count);
    }
  }
}


/* Calls of drover_count() that operators watch. */
static void counts(struct text *out, const uint64_t *count) {
  static const struct { int of; const char *name, *help; } all[] = {
    { DROVER_PANIC, "drover_panic_total",
      "Decisions in which nodes that are out took part." },
    { DROVER_RETRY_DENIED, "drover_retry_denied_total",
      "Retries that the budget did not allow." },
    { DROVER_STREAM_QUIRK, "drover_stream_quirks_total",
      "Streams that ended well, but not as the protocol says." },
    { DROVER_USAGE_ESTIMATED, "drover_usage_estimated_total",
      "Successes whose usage was estimated: the node gave none." },
    { DROVER_STORE_ERROR, "drover_limit_store_errors_total",
      "Renewals of shared limits that failed." },
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    head(out, all[i].name, "counter", all[i].help);
    print(out, "%s %llu\n", all[i].name,
          (unsigned long long)count[all[i].of]);
  }
}


/* Metrics of the router itself, by no node. Names follow OpenTelemetry's and
 * the inference gateway's where they have one, so that dashboards made for
 * those fit. */
static void whole(const struct page *p) {
  struct tally_router sum;
  tally_sum_router(&p->r->tally, &sum);
  refusals(p->out, sum.refused);
  histogram(p->out, &(struct histogram){
    "drover_overhead_seconds", "What the router added to a request.",
    tally_overhead_bounds, sum.overhead, TALLY_OVERHEAD, sum.overhead_sum });
  histogram(p->out, &(struct histogram){
    "gen_ai_server_time_to_first_token_seconds",
    "From the request to its first token, as the caller saw it.",
    tally_first_bounds, sum.first, TALLY_FIRST, sum.first_sum });
  counts(p->out, sum.counts);
  head(p->out, "inference_requests_pending", "gauge",
       "Requests that wait for a slot.");
  print(p->out, "inference_requests_pending %u\n", drover_waiting(p->r));
}


/* The counters move while the page is written: each line is right by itself,
 * sums over lines may differ by what happened meanwhile. The page struct
 * (some 1.5 KiB) lives on the stack: nothing is allocated in a scrape. */
long drover_expose(drover_router *r, char *buf, size_t cap) {
  struct text out = { buf, cap, 0 };
  struct page p = { .r = r, .out = &out,
                    .count = atom_get_u32(r->table.count) };
  join_labels(&p);
  kinds(&p, "drover_requests_total", "outcome", "Requests, by how they ended.",
        0);
  kinds(&p, "drover_attempts_total", "kind",
        "Bodies sent to a node, by how that ended.", 1);
  gauges(&p);
  used(&p);
  whole(&p);
  return (long)out.size;
}
