/*
 * Layers that only one pass from the start can read (zstd in a single frame): pieces of the compressed layer go in, in
 * order; each span's tar bytes are compared with their SHA-256 before any reader sees them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "oci.h"

enum { WINDOW_LOG_MAX = 27 };

struct stream {
  struct task task;
  struct view *view;
  ZSTD_DStream *zstd;
  uint8_t *tar; /* the span at work */
  size_t filled;
  uint32_t span;
  bool failed, busy, closed; /* busy, closed: engine_lock */
  const uint8_t *bytes;
  size_t length;
  uint32_t job;
};

static struct stream **streams; /* engine_lock; index is id - 1 */
static uint32_t stream_count, stream_capacity;

static void stream_free(struct stream *stream) {
  ZSTD_freeDStream(stream->zstd);
  free(stream->tar);
  view_put(stream->view);
  free(stream);
}

static int span_done(struct stream *stream) {
  const struct span *span = &stream->view->blob->spans.spans[stream->span];
  if (!blob_has(stream->view->blob, stream->span)) {
    uint8_t digest[32];
    sha256_of(stream->tar, stream->filled, digest);
    if (memcmp(digest, span->sha256, 32) != 0) return -EBADMSG;
    miss_span_ready(stream->view, stream->span, stream->tar);
  }
  free(stream->tar);
  stream->tar = NULL;
  stream->filled = 0;
  stream->span++;
  return 0;
}

/* Ends every span that is full: those of no bytes too. */
static int advance(struct stream *stream) {
  const struct span_file *file = &stream->view->blob->spans;
  while (stream->span < file->header->span_count && stream->filled == file->spans[stream->span].tar_length) {
    int result = span_done(stream);
    if (result != 0) return result;
  }
  return 0;
}

static int decompress(struct stream *stream) {
  const struct span_file *file = &stream->view->blob->spans;
  ZSTD_inBuffer in = {stream->bytes, stream->length, 0};
  uint8_t rest[4096]; /* what comes after the last span: padding that no file needs */
  for (;;) {
    int result = advance(stream);
    if (result != 0) return result;
    bool past = stream->span >= file->header->span_count;
    size_t size = past ? sizeof rest : file->spans[stream->span].tar_length;
    if (!past && stream->tar == NULL && (stream->tar = malloc(size)) == NULL) return -ENOMEM;
    ZSTD_outBuffer out = {past ? rest : stream->tar, size, past ? 0 : stream->filled};
    size_t before = out.pos, code = ZSTD_decompressStream(stream->zstd, &out, &in);
    if (ZSTD_isError(code)) return -EILSEQ;
    if (!past) stream->filled = out.pos;
    if (in.pos == in.size && out.pos < out.size) return advance(stream);
    if (out.pos == before && in.pos == in.size) return 0;
  }
}

static void run_push(struct task *task, struct worker *worker) {
  (void)worker;
  struct stream *stream = (struct stream *)task;
  int result = stream->failed ? -EPIPE : decompress(stream);
  if (result < 0) stream->failed = true;
  uint32_t job = stream->job;
  pthread_mutex_lock(&engine_lock);
  stream->busy = false;
  bool closed = stream->closed;
  pthread_mutex_unlock(&engine_lock);
  if (closed) stream_free(stream);
  post_done(job, result);
}

/* Returns the stream's number, or -errno. */
int oci_stream_open(uint32_t view_id) {
  struct stream *stream = calloc(1, sizeof *stream);
  if (stream == NULL) return -ENOMEM;
  stream->view = view_get(view_id);
  int result = stream->view == NULL                                            ? -EBADF
               : stream->view->blob->spans.header->kind != SPAN_ZSTD_STREAM ? -EOPNOTSUPP
                                                                               : 0;
  if (result == 0 && (stream->zstd = ZSTD_createDStream()) == NULL) result = -ENOMEM;
  if (result != 0) {
    if (stream->view != NULL) view_put(stream->view);
    free(stream);
    return result;
  }
  ZSTD_DCtx_setParameter(stream->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
  stream->task.run = run_push;
  pthread_mutex_lock(&engine_lock);
  if (stream_count == stream_capacity) {
    uint32_t capacity = stream_capacity == 0 ? 16 : stream_capacity * 2;
    struct stream **larger = realloc(streams, capacity * sizeof *streams);
    if (larger == NULL) {
      pthread_mutex_unlock(&engine_lock);
      stream_free(stream);
      return -ENOMEM;
    }
    streams = larger;
    stream_capacity = capacity;
  }
  streams[stream_count++] = stream;
  int id = (int)stream_count;
  pthread_mutex_unlock(&engine_lock);
  return id;
}

static struct stream *stream_find_locked(uint32_t id) { return id == 0 || id > stream_count ? NULL : streams[id - 1]; }

/* One push at a time. The job's result: 0, -EBADMSG (digest), -EILSEQ (not zstd), -EPIPE (failed before), -ENOMEM. */
int oci_stream_push(uint32_t id, const uint8_t *bytes, uint64_t length, uint32_t job) {
  pthread_mutex_lock(&engine_lock);
  struct stream *stream = stream_find_locked(id);
  int result = stream == NULL ? -EBADF : stream->busy ? -EBUSY : 0;
  if (result == 0) stream->busy = true;
  pthread_mutex_unlock(&engine_lock);
  if (result != 0) return result;
  stream->bytes = bytes;
  stream->length = length;
  stream->job = job;
  deadline_progress(stream->view, length);
  result = -pool_submit(&stream->task, true);
  if (result != 0) stream->busy = false;
  return result;
}

/* Returns how many spans have not been reached (0: the layer is whole), or -errno. The number is void afterwards. */
int64_t oci_stream_close(uint32_t id) {
  pthread_mutex_lock(&engine_lock);
  struct stream *stream = stream_find_locked(id);
  if (stream == NULL) {
    pthread_mutex_unlock(&engine_lock);
    return -EBADF;
  }
  streams[id - 1] = NULL;
  bool busy = stream->busy;
  stream->closed = true;
  int64_t left = (int64_t)stream->view->blob->spans.header->span_count - stream->span;
  pthread_mutex_unlock(&engine_lock);
  if (!busy) stream_free(stream);
  return left;
}
