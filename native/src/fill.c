/* Fetched bytes become present spans: verify, inflate, scatter, answer; one task per span on the inflate threads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oci.h"

struct fill;
struct fill_task {
  struct task task;
  struct fill *fill;
  uint32_t span;
};

struct fill {
  struct view *view;
  const uint8_t *bytes; /* JavaScript keeps them alive until the job is done */
  uint8_t *results;     /* one status per span; same */
  uint32_t job, first, count;
  _Atomic uint32_t left;
  struct fill_task tasks[];
};

static bool has_digest(const uint8_t *bytes, uint64_t length, const struct span *span) {
  uint8_t digest[32];
  sha256_of(bytes, length, digest);
  return memcmp(digest, span->sha256, 32) == 0;
}

static enum fill_status fill_span(struct fill *fill, uint32_t index, struct worker *worker) {
  struct blob *blob = fill->view->blob;
  if (blob_has(blob, index)) return FILL_PRESENT;
  const struct span *span = &blob->spans.spans[index];
  const uint8_t *bytes = fill->bytes + (span->comp_offset - blob->spans.spans[fill->first].comp_offset);
  bool chunks = span_file_has_chunks(&blob->spans);
  if (!chunks && !has_digest(bytes, span->comp_length, span)) return FILL_DIGEST_MISMATCH;
  const uint8_t *tar = worker_decode(worker, &blob->spans, index, bytes, span->comp_length);
  /* Of a chunk only what comes out is known, so bytes that do not inflate are as likely wrong on the way. */
  if (tar == NULL) return chunks ? FILL_DIGEST_MISMATCH : FILL_INFLATE_ERROR;
  if (chunks && !has_digest(tar, span->tar_length, span)) return FILL_DIGEST_MISMATCH;
  return miss_span_ready(fill->view, index, tar);
}

static void run_fill(struct task *task, struct worker *worker) {
  struct fill_task *mine = (struct fill_task *)task;
  struct fill *fill = mine->fill;
  uint32_t span = mine->span;
  miss_fill_runs(fill->view, span, task);
  enum fill_status status = fill_span(fill, span, worker);
  miss_fill_ends(fill->view, span); /* after wrong bytes, who waits goes on waiting: JavaScript asks again, or fails them */
  fill->results[span - fill->first] = (uint8_t)status;
  if (atomic_fetch_sub(&fill->left, 1) > 1) return;
  uint32_t job = fill->job;
  view_put(fill->view);
  free(fill);
  post_done(job, 0);
}

static int check_fill(const struct span_file *file, uint32_t first, uint32_t last, uint64_t length) {
  if (file->header->kind == SPAN_ZSTD_STREAM) return -EOPNOTSUPP;
  if (first > last || last >= file->header->span_count) return -ERANGE;
  const struct span *spans = file->spans;
  for (uint32_t i = first; i <= last; i++)
    if (spans[i].comp_offset - spans[first].comp_offset + spans[i].comp_length > length) return -EMSGSIZE;
  return 0;
}

/* `bytes`: the layer's bytes from the first span's compressed offset to the end of the last. 0, or -errno at once. */
int oci_fill(uint32_t view_id, uint32_t first, uint32_t last, const uint8_t *bytes, uint64_t length, uint8_t *results,
             uint32_t job) {
  struct view *view = view_get(view_id);
  if (view == NULL) return -EBADF;
  int result = check_fill(&view->blob->spans, first, last, length);
  uint32_t count = last - first + 1;
  struct fill *fill = result == 0 ? malloc(sizeof *fill + count * sizeof fill->tasks[0]) : NULL;
  if (fill == NULL) {
    view_put(view);
    return result != 0 ? result : -ENOMEM;
  }
  fill->view = view;
  fill->bytes = bytes;
  fill->results = results;
  fill->job = job;
  fill->first = first;
  fill->count = count;
  atomic_init(&fill->left, count);
  deadline_progress(view, length);
  for (uint32_t i = 0; i < count; i++) {
    fill->tasks[i] = (struct fill_task){.task.run = run_fill, .fill = fill, .span = first + i};
    bool awaited = miss_fill_begins(view, first + i, &fill->tasks[i].task);
    /* Without threads nothing can go on; the task is run here rather than lost. */
    if (pool_submit(&fill->tasks[i].task, awaited) != 0) run_fill(&fill->tasks[i].task, NULL);
  }
  return 0;
}
