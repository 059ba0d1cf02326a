/*
 * Reads that have to wait. A request is parked, not a thread: it holds its fuse_req_t until every span of its range is
 * there, one of them failed, its reader was killed, its mount went away, or its deadline passed.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "oci.h"
#include "parked.h"

enum { TRIES_MAX = 3 };

struct parked_queue all_parked = TAILQ_HEAD_INITIALIZER(all_parked);
static _Atomic uint64_t next_id = 1;

static bool is_pictured(const struct parked *p, uint32_t span) {
  uint32_t at = span - p->first;
  return p->pictured != NULL && (p->pictured[at / 64] >> (at % 64)) & 1;
}

static bool has_span(const struct parked *p, uint32_t span) {
  return blob_has(p->view->blob, span) || is_pictured(p, span);
}

static bool is_ready(struct parked *p) {
  p->doubts = atomic_load(&p->view->blob->doubts);
  for (uint32_t s = p->first; s <= p->last; s++)
    if (!has_span(p, s)) return false;
  return true;
}

void unpark_locked(struct parked *p, struct parked_list *answers, int error) {
  TAILQ_REMOVE(&p->view->blob->parked, p, of_blob);
  TAILQ_REMOVE(&all_parked, p, of_all);
  p->error = error;
  TAILQ_INSERT_TAIL(answers, p, of_blob);
}

static void ask_locked(struct view *view, uint32_t span) {
  struct blob *blob = view->blob;
  struct span_state *state = &blob->states[span];
  if (state->queued != NULL) pool_hurry(state->queued);
  state->queued = NULL;
  if (state->requester != 0 || state->filling > 0) return;
  if (blob_is_unproved(blob, span) && prove_soon_locked(blob, span)) {
    state->filling++;
    return;
  }
  state->requester = view->id;
  int32_t damage = (int32_t)atomic_load(&blob->dropped);
  post_event_locked((struct event){.type = EVENT_MISS, .id = view->id, .span = span, .result = damage});
}

static void ask_missing_locked(const struct parked *p) {
  for (uint32_t s = p->first; s <= p->last; s++)
    if (!has_span(p, s)) ask_locked(p->view, s);
}

/* The reply is whole or an error: one short reply would shrink the file in the kernel's eyes for good. */
static bool reply(struct parked *p) {
  uint8_t *bytes = p->error == 0 ? malloc(p->length) : NULL;
  int error = p->error != 0 ? p->error : bytes == NULL ? EIO : 0;
  if (error == 0) error = blob_read_sure(p->view->blob, p->doubts, bytes, p->offset, p->length);
  if (error == ESTALE) {
    free(bytes);
    return false;
  }
  if (error == 0 && p->picture != NULL)
    for (uint32_t s = p->first; s <= p->last; s++)
      if (is_pictured(p, s)) scatter_copy(p->view->blob, s, p->picture, bytes, p->offset, p->length);
  if (error == 0) {
    atomic_fetch_add_explicit(&p->session->bytes_served, p->length, memory_order_relaxed);
    fuse_reply_buf(p->req, (const char *)bytes, p->length);
  } else {
    fuse_reply_err(p->req, error);
  }
  free(bytes);
  return true;
}

/* The cache file was changed under the request's hands: it waits for its spans to be proved, or fetched, once more. */
static void park_again(struct parked *p, struct parked_list *answers) {
  pthread_mutex_lock(&engine_lock);
  TAILQ_INSERT_TAIL(&p->view->blob->parked, p, of_blob);
  TAILQ_INSERT_TAIL(&all_parked, p, of_all);
  if (++p->tries > TRIES_MAX || atomic_load(&p->session->draining)) unpark_locked(p, answers, EIO);
  else if (is_ready(p)) unpark_locked(p, answers, 0);
  else {
    ask_missing_locked(p);
    deadline_watch_locked(p);
  }
  pthread_mutex_unlock(&engine_lock);
}

void answer_parked(struct parked_list *answers) {
  struct parked *p;
  while ((p = TAILQ_FIRST(answers)) != NULL) {
    TAILQ_REMOVE(answers, p, of_blob);
    if (!reply(p)) {
      park_again(p, answers);
      continue;
    }
    atomic_fetch_sub(&p->session->parked, 1); /* last: the session may go when this is 0 */
    free(p->picture);
    free(p->pictured);
    free(p);
  }
}

static void on_interrupt(fuse_req_t req, void *id) { miss_interrupted(fuse_req_userdata(req), (uintptr_t)id); }

void miss_park(struct session *session, struct view *view, fuse_req_t req, uint64_t offset, size_t length,
               uint32_t first, uint32_t last) {
  struct parked_list answers = TAILQ_HEAD_INITIALIZER(answers);
  struct parked *p = calloc(1, sizeof *p);
  if (p == NULL) {
    fuse_reply_err(req, EIO);
    return;
  }
  *p = (struct parked){.req = req, .session = session, .view = view, .offset = offset, .length = length,
                       .first = first, .last = last, .id = atomic_fetch_add(&next_id, 1)};
  atomic_fetch_add(&session->parked, 1);
  /* Not under engine_lock: libfuse calls on_interrupt with the request's lock held. Found by number, since the parked
   * request may be gone when the kernel's word about its killed reader arrives. */
  fuse_req_interrupt_func(req, on_interrupt, (void *)(uintptr_t)p->id);
  pthread_mutex_lock(&engine_lock);
  TAILQ_INSERT_TAIL(&view->blob->parked, p, of_blob);
  TAILQ_INSERT_TAIL(&all_parked, p, of_all);
  if (is_ready(p)) unpark_locked(p, &answers, 0); /* came in between look and lock */
  else if (atomic_load(&session->draining) || !deadline_begin_locked(p)) unpark_locked(p, &answers, EIO);
  else if (fuse_req_interrupted(req)) unpark_locked(p, &answers, EINTR);
  else ask_missing_locked(p);
  pthread_mutex_unlock(&engine_lock);
  answer_parked(&answers);
}

void miss_interrupted(struct session *session, uint64_t id) {
  struct parked_list answers = TAILQ_HEAD_INITIALIZER(answers);
  struct parked *p;
  pthread_mutex_lock(&engine_lock);
  TAILQ_FOREACH(p, &all_parked, of_all) {
    if (p->id != id || p->session != session) continue;
    unpark_locked(p, &answers, EINTR);
    break;
  }
  pthread_mutex_unlock(&engine_lock);
  answer_parked(&answers);
}

/* Gives the bytes of a span that the disk has no room for to a request that waits for it. */
static void picture_locked(struct parked *p, uint32_t span, const uint8_t *tar) {
  if (p->picture == NULL) {
    uint8_t *picture = malloc(p->length);
    uint64_t *pictured = calloc((p->last - p->first) / 64 + 1, sizeof *pictured);
    if (picture == NULL || pictured == NULL) {
      free(picture);
      free(pictured);
      return;
    }
    p->picture = picture;
    p->pictured = pictured;
  }
  scatter_into(p->view->blob, span, tar, p->picture, p->offset, p->length);
  p->pictured[(span - p->first) / 64] |= 1ull << ((span - p->first) % 64);
}

enum fill_status miss_span_ready(struct view *view, uint32_t span, const uint8_t *tar) {
  struct blob *blob = view->blob;
  struct parked_list answers = TAILQ_HEAD_INITIALIZER(answers);
  bool stored = blob_has(blob, span);
  if (!stored) {
    uint32_t check;
    uint64_t doubts = blob_commit_begin(blob);
    stored = scatter_span(blob, span, tar, &check) == 0;
    blob_commit_end(blob, doubts, span, stored, check);
  }
  pthread_mutex_lock(&engine_lock);
  blob->states[span].requester = 0;
  struct parked *p, *next;
  for (p = TAILQ_FIRST(&blob->parked); p != NULL; p = next) {
    next = TAILQ_NEXT(p, of_blob);
    if (span < p->first || span > p->last) continue;
    if (!stored) picture_locked(p, span, tar);
    if (is_ready(p)) unpark_locked(p, &answers, 0);
    else ask_missing_locked(p); /* no memory for the picture: ask again */
  }
  pthread_mutex_unlock(&engine_lock);
  answer_parked(&answers);
  return stored ? FILL_PRESENT : FILL_NO_SPACE;
}

/* Nobody is at work on the span for this view any more: its readers get the error, others ask for themselves. */
static void span_ended_locked(struct view *view, uint32_t span, int error, struct parked_list *answers) {
  struct blob *blob = view->blob;
  if (error != 0 && blob->states[span].requester == view->id) blob->states[span].requester = 0;
  struct parked *p, *next;
  for (p = TAILQ_FIRST(&blob->parked); p != NULL; p = next) {
    next = TAILQ_NEXT(p, of_blob);
    if (span < p->first || span > p->last || has_span(p, span)) continue;
    if (error != 0 && p->view == view) unpark_locked(p, answers, error);
    else ask_locked(p->view, span);
  }
}

void miss_span_failed(struct view *view, uint32_t span, int error) {
  struct parked_list answers = TAILQ_HEAD_INITIALIZER(answers);
  pthread_mutex_lock(&engine_lock);
  span_ended_locked(view, span, error, &answers);
  pthread_mutex_unlock(&engine_lock);
  answer_parked(&answers);
}

bool miss_fill_begins(struct view *view, uint32_t span, struct task *task) {
  pthread_mutex_lock(&engine_lock);
  struct span_state *state = &view->blob->states[span];
  state->filling++;
  bool awaited = state->requester != 0;
  if (!awaited && state->queued == NULL) state->queued = task;
  pthread_mutex_unlock(&engine_lock);
  return awaited;
}

void miss_fill_runs(struct view *view, uint32_t span, const struct task *task) {
  pthread_mutex_lock(&engine_lock);
  struct span_state *state = &view->blob->states[span];
  if (state->queued == task) state->queued = NULL;
  pthread_mutex_unlock(&engine_lock);
}

void miss_fill_ends(struct view *view, uint32_t span) {
  struct parked_list answers = TAILQ_HEAD_INITIALIZER(answers);
  pthread_mutex_lock(&engine_lock);
  view->blob->states[span].filling--;
  span_ended_locked(view, span, 0, &answers);
  pthread_mutex_unlock(&engine_lock);
  answer_parked(&answers);
}

void miss_proof_ends(struct blob *blob, uint32_t span) {
  struct parked_list answers = TAILQ_HEAD_INITIALIZER(answers);
  struct parked *p, *next;
  pthread_mutex_lock(&engine_lock);
  blob->states[span].filling--;
  for (p = TAILQ_FIRST(&blob->parked); p != NULL; p = next) {
    next = TAILQ_NEXT(p, of_blob);
    if (span < p->first || span > p->last) continue;
    if (is_ready(p)) unpark_locked(p, &answers, 0);
    else ask_missing_locked(p);
  }
  pthread_mutex_unlock(&engine_lock);
  answer_parked(&answers);
}

void miss_view_gone_locked(struct view *view) {
  struct parked_list none = TAILQ_HEAD_INITIALIZER(none);
  for (uint32_t s = 0; s < view->blob->spans.header->span_count; s++)
    if (view->blob->states[s].requester == view->id) span_ended_locked(view, s, EIO, &none);
}

void miss_fail_session(struct session *session) {
  struct parked_list answers = TAILQ_HEAD_INITIALIZER(answers);
  struct parked *p, *next;
  pthread_mutex_lock(&engine_lock);
  for (p = TAILQ_FIRST(&all_parked); p != NULL; p = next) {
    next = TAILQ_NEXT(p, of_all);
    if (p->session == session) unpark_locked(p, &answers, EIO);
  }
  pthread_mutex_unlock(&engine_lock);
  answer_parked(&answers);
}

struct failure {
  uint32_t view, span;
  int error;
};

static int fail_span(void *argument) {
  const struct failure *failure = argument;
  struct view *view = view_get(failure->view);
  if (view == NULL) return -EBADF;
  bool known = failure->span < view->blob->spans.header->span_count;
  if (known) miss_span_failed(view, failure->span, failure->error > 0 ? failure->error : EIO);
  view_put(view);
  return known ? 0 : -ERANGE;
}

/* JavaScript could not get a span: `error` to the readers who came through this view. */
int oci_fail(uint32_t view, uint32_t span, int error) {
  struct failure failure = {view, span, error};
  return native_call(fail_span, &failure);
}
