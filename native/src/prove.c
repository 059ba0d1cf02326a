/*
 * Whether what the cache file holds of a span is what was stored: read whole and compared with its CRC, and all around
 * it that belongs to no extent with zeros. What fails is dropped, and fetched again by who needs it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci.h"
#include "piece.h"

enum { CHUNK = 64 << 10, GAP_MAX = 4096 };

/* Reads forward through a part of the cache file. */
struct reader {
  const struct blob *blob;
  uint64_t at, end; /* of what is in the buffer */
  uint8_t buffer[CHUNK];
};

/* Some of the bytes at `offset`, none at or past `limit`. NULL: they cannot be read. */
static const uint8_t *read_some(struct reader *reader, uint64_t offset, uint64_t limit, size_t *got) {
  if (offset < reader->at || offset >= reader->end) {
    size_t length = limit - offset < CHUNK ? (size_t)(limit - offset) : CHUNK;
    if (blob_read(reader->blob, reader->buffer, offset, length) != 0) return NULL;
    reader->at = offset;
    reader->end = offset + length;
  }
  uint64_t end = reader->end < limit ? reader->end : limit;
  *got = (size_t)(end - offset);
  return reader->buffer + (offset - reader->at);
}

static bool all_zero(const uint8_t *bytes, size_t length) {
  return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* [from, to) holds nothing but zeros; what the file system knows to be a hole is not read. */
static bool is_empty(struct reader *reader, uint64_t from, uint64_t to) {
  while (from < to) {
    off_t data = to - from < GAP_MAX ? (off_t)from : lseek(reader->blob->cache_fd, (off_t)from, SEEK_DATA);
    if (data < 0 && errno == ENXIO) return true;
    if (data > (off_t)from) from = (uint64_t)data;
    if (from >= to) return true;
    size_t got;
    const uint8_t *bytes = read_some(reader, from, to, &got);
    if (bytes == NULL || !all_zero(bytes, got)) return false;
    from += got;
  }
  return true;
}

/* The part of the blob that no other span has any bytes in, and the first extent of the span. */
static void surroundings(const struct span_file *file, uint32_t index, uint64_t *from, uint64_t *to, uint32_t *first) {
  const struct span *span = &file->spans[index];
  uint32_t e = *first = span_file_extent_after_tar(file, span->tar_offset);
  const struct extent *extents = file->extents;
  *from = e > 0 ? extents[e - 1].blob_offset + extents[e - 1].length : 0;
  struct piece piece;
  if (piece_at(file, span, e, &piece) && extents[e].tar_offset < span->tar_offset) *from = piece.blob_offset;
  *to = *from;
  for (; piece_at(file, span, e, &piece); e++) *to = piece.blob_offset + piece.length;
  bool goes_on = e > *first && extents[e - 1].blob_offset + extents[e - 1].length > *to;
  if (!goes_on) *to = e < file->header->extent_count ? extents[e].blob_offset : file->header->blob_size;
}

/* Where the run of pieces ends that begins with piece `e`: neighbours with no more than the rest of a block between them. */
static uint64_t run_end(const struct span_file *file, const struct span *span, uint32_t e) {
  struct piece piece;
  uint64_t end = 0;
  for (; piece_at(file, span, e, &piece) && (end == 0 || piece.blob_offset - end < GAP_MAX); e++)
    end = piece.blob_offset + piece.length;
  return end;
}

static bool sum_piece(struct reader *reader, const struct piece *piece, uint64_t limit, uint32_t *check) {
  uint64_t end = piece->blob_offset + piece->length;
  for (uint64_t at = piece->blob_offset; at < end;) {
    size_t got;
    const uint8_t *bytes = read_some(reader, at, limit, &got);
    if (bytes == NULL) return false;
    if (got > end - at) got = (size_t)(end - at);
    *check = crc32c(*check, bytes, got);
    at += got;
  }
  return true;
}

bool prove_sum(const struct blob *blob, uint32_t index, uint32_t *check) {
  const struct span_file *file = &blob->spans;
  const struct span *span = &file->spans[index];
  struct reader reader;
  reader.blob = blob;
  reader.at = reader.end = 0;
  uint64_t from, to, run = 0;
  uint32_t e;
  surroundings(file, index, &from, &to, &e);
  struct piece piece;
  bool good = true;
  *check = 0;
  for (; good && piece_at(file, span, e, &piece); e++) {
    if (piece.blob_offset >= run) run = run_end(file, span, e);
    good = is_empty(&reader, from, piece.blob_offset) && sum_piece(&reader, &piece, run, check);
    from = piece.blob_offset + piece.length;
  }
  return good && is_empty(&reader, from, to);
}

/* Makes [from, to) of the cache file zeros. */
static void make_empty(const struct blob *blob, uint64_t from, uint64_t to) {
  if (fallocate(blob->cache_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) == 0) return;
  static const uint8_t zeros[65536];
  while (from < to) { /* a file system without holes has no large ones to fill */
    size_t length = to - from < sizeof zeros ? (size_t)(to - from) : sizeof zeros;
    ssize_t written = pwrite(blob->cache_fd, zeros, length, (off_t)from);
    if (written <= 0 && errno != EINTR) return;
    if (written > 0) from += (uint64_t)written;
  }
}

/*
 * What is around the span becomes empty again. Its own bytes stay as they are: they will be overwritten, and may be read
 * meanwhile by an EROFS that was given the file when it was good.
 */
static void clear_gaps(const struct blob *blob, uint32_t index) {
  uint64_t from, to;
  uint32_t e;
  surroundings(&blob->spans, index, &from, &to, &e);
  struct piece piece;
  bool first = true;
  for (; piece_at(&blob->spans, &blob->spans.spans[index], e, &piece); e++) {
    /* Small gaps between pieces are written with them. */
    if (piece.blob_offset > from && (first || piece.blob_offset - from >= GAP_MAX))
      make_empty(blob, from, piece.blob_offset);
    from = piece.blob_offset + piece.length;
    first = false;
  }
  if (to > from) make_empty(blob, from, to);
}

static void drop(struct blob *blob, uint32_t index) {
  /* Nobody writes meanwhile; who has stored the span anew since it was read keeps it. */
  pthread_mutex_lock(&blob->write_lock);
  pthread_mutex_lock(&blob->map_lock);
  /* Changed once more since it was read: to be read again. */
  if (!stamp_look_locked(blob) && blob_is_unproved(blob, index)) {
    map_mark_dirty_locked(blob);
    map_clear_locked(blob, index);
    atomic_fetch_sub(&blob->unproved, 1);
    atomic_fetch_add(&blob->dropped, 1);
    blob->generation++;
    atomic_fetch_add(&blob->activity, 1);
    clear_gaps(blob, index);
    struct stamp stamp;
    if (stamp_take(blob, &stamp) == 0) stamp_keep_locked(blob, &stamp);
    atomic_fetch_add(&blob->activity, 1);
  }
  pthread_mutex_unlock(&blob->map_lock);
  pthread_mutex_unlock(&blob->write_lock);
}

static void believe(struct blob *blob, uint32_t index, uint64_t doubts) {
  pthread_mutex_lock(&blob->map_lock);
  uint64_t bit = 1ull << (index % 64);
  if (atomic_load(&blob->doubts) == doubts && blob_is_stored(blob, index) && !blob_has(blob, index)) {
    atomic_fetch_or_explicit(&blob->bits[index / 64], bit, memory_order_release);
    atomic_fetch_add(&blob->present, 1);
    atomic_fetch_sub(&blob->unproved, 1);
  }
  pthread_mutex_unlock(&blob->map_lock);
}

/* Believes or drops an unproved span. One that was changed again while it was read stays unproved. */
static void prove_span(struct blob *blob, uint32_t index) {
  if (!blob_is_unproved(blob, index)) return;
  pthread_mutex_lock(&blob->map_lock);
  uint64_t doubts = atomic_load(&blob->doubts);
  uint32_t wanted = blob->checks[index], found;
  pthread_mutex_unlock(&blob->map_lock);
  if (prove_sum(blob, index, &found) && found == wanted) believe(blob, index, doubts);
  else drop(blob, index);
}

/* ---- one span that a reader waits for ---- */
struct proof {
  struct task task;
  struct blob *blob;
  uint32_t span;
};

static void run_proof(struct task *task, struct worker *worker) {
  (void)worker;
  struct proof *proof = (struct proof *)task;
  prove_span(proof->blob, proof->span);
  miss_proof_ends(proof->blob, proof->span);
  blob_put(proof->blob);
  free(proof);
}

bool prove_soon_locked(struct blob *blob, uint32_t span) {
  struct proof *proof = malloc(sizeof *proof);
  if (proof == NULL) return false;
  *proof = (struct proof){.task.run = run_proof, .blob = blob, .span = span};
  blob_ref_locked(blob);
  pool_queue(&proof->task, true);
  return true;
}

/* ---- all of a blob, a span at a time, so that readers' spans come first ---- */
struct proving;
struct lane {
  struct task task;
  struct proving *proving;
};

struct proving {
  struct task begin;
  struct view *view;
  _Atomic uint32_t next, lanes_left;
  uint32_t job, dropped_before, lane_count;
  struct lane lanes[];
};

static void run_lane(struct task *task, struct worker *worker) {
  (void)worker;
  struct proving *proving = ((struct lane *)task)->proving;
  struct blob *blob = proving->view->blob;
  uint32_t count = blob->spans.header->span_count, span;
  do span = atomic_fetch_add(&proving->next, 1);
  while (span < count && !blob_is_unproved(blob, span));
  if (span < count) {
    prove_span(blob, span);
    pool_queue(task, false);
    return;
  }
  if (atomic_fetch_sub(&proving->lanes_left, 1) > 1) return;
  uint32_t job = proving->job;
  int32_t dropped = (int32_t)(atomic_load(&blob->dropped) - proving->dropped_before);
  view_put(proving->view);
  free(proving);
  post_done(job, dropped);
}

static void begin_proving(struct task *task, struct worker *worker) {
  (void)worker;
  struct proving *proving = (struct proving *)task;
  uint32_t count = proving->lane_count;
  blob_look(proving->view->blob);
  proving->dropped_before = atomic_load(&proving->view->blob->dropped);
  atomic_init(&proving->lanes_left, count);
  for (uint32_t i = 0; i < count; i++) proving->lanes[i] = (struct lane){.task.run = run_lane, .proving = proving};
  for (uint32_t i = 0; i < count; i++) pool_queue(&proving->lanes[i].task, false);
}

/* Proves all that is unproved. The job's result: how many spans were dropped meanwhile. 0, or -errno at once. */
int oci_blob_prove(uint32_t id, uint32_t job) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  int error = pool_start();
  uint32_t lanes = pool_threads();
  struct proving *proving = error == 0 ? calloc(1, sizeof *proving + lanes * sizeof proving->lanes[0]) : NULL;
  if (proving == NULL) {
    view_put(view);
    return error != 0 ? -error : -ENOMEM;
  }
  proving->begin.run = begin_proving;
  proving->view = view;
  proving->job = job;
  proving->lane_count = lanes;
  pool_queue(&proving->begin, false);
  return 0;
}
