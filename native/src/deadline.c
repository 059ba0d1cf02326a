/*
 * No read waits for ever, whatever JavaScript does: each parked request has a deadline of its own. It counts from the
 * miss, and moves on as bytes of the request's layer arrive: a slow link is no hanging one. What arrives must come at
 * PACE bytes per deadline at least, so that a source cannot keep a reader by dripping.
 */
#include <errno.h>
#include <time.h>

#include "parked.h"

enum { PACE = 8 << 20 };
/*
 * A read-ahead that fails makes the kernel ask again at once for the page that its reader wants: that second request
 * must not wait as long as the first.
 */
static const int64_t refusal_ns = 500000000;

static pthread_cond_t watchdog_wakes;
static bool watchdog_runs;
static int64_t watchdog_until = INT64_MAX;

static void expire_locked(struct parked *p, int64_t now, struct parked_list *late) {
  struct blob *blob = p->view->blob;
  for (uint32_t s = p->first; s <= p->last; s++) {
    if (blob_has(blob, s)) continue;
    /* Whoever was asked has had its time: the next read asks again. */
    if (blob->states[s].requester == p->view->id) blob->states[s].requester = 0;
    blob->states[s].refuser = p->view->id;
    blob->states[s].refused_until_ns = now + refusal_ns;
  }
  unpark_locked(p, late, EIO);
}

static void *watch(void *unused) {
  pthread_mutex_lock(&engine_lock);
  for (;;) {
    struct parked_list late = TAILQ_HEAD_INITIALIZER(late);
    struct parked *p, *next;
    int64_t now = now_ns();
    watchdog_until = INT64_MAX;
    for (p = TAILQ_FIRST(&all_parked); p != NULL; p = next) {
      next = TAILQ_NEXT(p, of_all);
      if (p->deadline_ns <= now) expire_locked(p, now, &late);
      else if (p->deadline_ns < watchdog_until) watchdog_until = p->deadline_ns;
    }
    if (!TAILQ_EMPTY(&late)) {
      pthread_mutex_unlock(&engine_lock);
      answer_parked(&late);
      pthread_mutex_lock(&engine_lock);
    } else if (watchdog_until == INT64_MAX) {
      pthread_cond_wait(&watchdog_wakes, &engine_lock);
    } else {
      struct timespec until = {watchdog_until / 1000000000, watchdog_until % 1000000000};
      pthread_cond_timedwait(&watchdog_wakes, &engine_lock, &until);
    }
  }
  return unused;
}

static bool watchdog_start_locked(void) {
  if (watchdog_runs) return true;
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&watchdog_wakes, &attributes);
  pthread_condattr_destroy(&attributes);
  watchdog_runs = spawn_thread(watch, NULL) == 0;
  return watchdog_runs;
}

static bool refused_locked(const struct parked *p, int64_t now) {
  const struct span_state *states = p->view->blob->states;
  for (uint32_t s = p->first; s <= p->last; s++)
    if (states[s].refuser == p->view->id && states[s].refused_until_ns > now && !blob_has(p->view->blob, s)) return true;
  return false;
}

bool deadline_begin_locked(struct parked *p) {
  const struct span_file *spans = &p->view->blob->spans;
  int64_t now = now_ns();
  if (!watchdog_start_locked() || refused_locked(p, now)) return false;
  /* A span that is larger than a request should be has as much more time; of a stream only its pace counts. */
  uint64_t largest = 0;
  for (uint32_t s = p->first; s <= p->last && spans->header->kind != SPAN_ZSTD_STREAM; s++)
    if (spans->spans[s].comp_length > largest) largest = spans->spans[s].comp_length;
  p->patience_ns = p->session->deadline_ns * (int64_t)(1 + largest / PACE);
  p->deadline_ns = now + p->patience_ns;
  deadline_watch_locked(p);
  return true;
}

void deadline_watch_locked(const struct parked *p) {
  if (p->deadline_ns < watchdog_until) pthread_cond_signal(&watchdog_wakes);
}

void deadline_progress(struct view *view, uint64_t bytes) {
  pthread_mutex_lock(&engine_lock);
  int64_t now = now_ns();
  struct parked *p;
  TAILQ_FOREACH(p, &view->blob->parked, of_blob) {
    if (p->view != view) continue;
    int64_t later = p->deadline_ns + (int64_t)((double)bytes / PACE * (double)p->session->deadline_ns);
    int64_t latest = now + p->patience_ns;
    p->deadline_ns = later < latest ? later : latest;
  }
  pthread_mutex_unlock(&engine_lock);
}

/* Bytes of the layer have arrived and are looked through, though none of them may be wanted. */
int oci_progress(uint32_t id, uint64_t bytes) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  deadline_progress(view, bytes);
  view_put(view);
  return 0;
}
