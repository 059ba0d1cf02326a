/*
 * One span's compressed bytes to its tar bytes. zlib and zstd are the only parsers of hostile structure here; the
 * bytes were already compared with the span's SHA-256, but for those of chunks, whose output is compared instead.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "oci.h"

enum { KEEP_MAX = 8 << 20, GZIP_TRAILER = 8, RAW = -15, GZIP = 31 };

struct worker {
  z_stream zlib;
  bool zlib_ready;
  ZSTD_DCtx *zstd;
  uint8_t *out;
  size_t capacity;
  uint8_t window[WINDOW_MAX];
  uint8_t stored[WINDOW_STORED_MAX];
};

struct worker *worker_create(void) { return calloc(1, sizeof(struct worker)); }

static bool reserve(struct worker *w, size_t length) {
  /* One huge span must not keep its memory for ever. */
  if (length <= w->capacity && (w->capacity <= KEEP_MAX || length > KEEP_MAX)) return true;
  free(w->out);
  w->capacity = length > 0 ? length : 1;
  w->out = malloc(w->capacity);
  if (w->out == NULL) w->capacity = 0;
  return w->out != NULL;
}

static bool zlib_begin(struct worker *w, int mode) {
  if (w->zlib_ready) return inflateReset2(&w->zlib, mode) == Z_OK;
  memset(&w->zlib, 0, sizeof w->zlib);
  w->zlib_ready = inflateInit2(&w->zlib, mode) == Z_OK;
  return w->zlib_ready;
}

static void feed(z_stream *z, const uint8_t *bytes, size_t length, uint8_t *out, size_t room) {
  z->next_in = (uint8_t *)bytes;
  z->avail_in = (uInt)length;
  z->next_out = out;
  z->avail_out = (uInt)room;
}

/* The window is stored as raw deflate and must inflate to exactly its length. */
static bool load_window(struct worker *w, const struct span_file *file, const struct span *span) {
  if (!span_file_window(file, span, w->stored) || !zlib_begin(w, RAW)) return false;
  feed(&w->zlib, w->stored, span->window_stored, w->window, span->window_length);
  int code = inflate(&w->zlib, Z_FINISH);
  return code == Z_STREAM_END && w->zlib.avail_out == 0;
}

static bool begin_mid_member(struct worker *w, const struct span_file *file, const struct span *span,
                             const uint8_t **bytes, size_t *length) {
  bool windowed = span->window_stored > 0;
  if (windowed && !load_window(w, file, span)) return false;
  if (!zlib_begin(w, RAW)) return false;
  if (span->bits > 0) {
    if (*length == 0) return false;
    if (inflatePrime(&w->zlib, 8 - span->bits, **bytes >> span->bits) != Z_OK) return false;
    (*bytes)++;
    (*length)--;
  }
  return !windowed || inflateSetDictionary(&w->zlib, w->window, span->window_length) == Z_OK;
}

/* Members follow one another: raw deflate to the first member's end, its trailer, then whole members with headers. */
static bool decode_gzip(struct worker *w, const struct span_file *file, const struct span *span, const uint8_t *bytes,
                        size_t length) {
  z_stream *z = &w->zlib;
  bool raw = (span->flags & SPAN_FLAG_MEMBER_START) == 0;
  if (raw ? !begin_mid_member(w, file, span, &bytes, &length) : !zlib_begin(w, GZIP)) return false;
  feed(z, bytes, length, w->out, span->tar_length);
  while (z->avail_out > 0) {
    int code = inflate(z, Z_NO_FLUSH);
    if (code == Z_OK && (z->avail_in > 0 || z->avail_out == 0)) continue;
    if (code != Z_STREAM_END) return false;
    if (z->avail_out == 0) break;
    if (raw) {
      if (z->avail_in < GZIP_TRAILER) return false;
      z->next_in += GZIP_TRAILER;
      z->avail_in -= GZIP_TRAILER;
    }
    raw = false;
    if (z->avail_in == 0) return false;
    const uint8_t *rest = z->next_in;
    size_t rest_length = z->avail_in, room = z->avail_out;
    uint8_t *out = z->next_out;
    if (!zlib_begin(w, GZIP)) return false;
    feed(z, rest, rest_length, out, room);
  }
  return true;
}

static bool decode_zstd(struct worker *w, const struct span *span, const uint8_t *bytes, size_t length) {
  if (w->zstd == NULL) w->zstd = ZSTD_createDCtx();
  if (w->zstd == NULL) return false;
  size_t got = ZSTD_decompressDCtx(w->zstd, w->out, span->tar_length, bytes, length);
  return !ZSTD_isError(got) && got == span->tar_length;
}

/* A chunk may stand behind others in its member, and what follows it there does not count. */
static bool decode_gzip_chunk(struct worker *w, const uint8_t *bytes, size_t length, size_t wanted) {
  z_stream *z = &w->zlib;
  if (!zlib_begin(w, GZIP)) return false;
  feed(z, bytes, length, w->out, wanted);
  while (z->avail_out > 0) {
    int code = inflate(z, Z_NO_FLUSH);
    if (code == Z_OK && (z->avail_in > 0 || z->avail_out == 0)) continue;
    return code == Z_STREAM_END && z->avail_out == 0;
  }
  return true;
}

static bool decode_zstd_chunk(struct worker *w, const uint8_t *bytes, size_t length, size_t wanted) {
  if (w->zstd == NULL) w->zstd = ZSTD_createDCtx();
  if (w->zstd == NULL) return false;
  ZSTD_DCtx_reset(w->zstd, ZSTD_reset_session_only);
  ZSTD_inBuffer in = {.src = bytes, .size = length};
  ZSTD_outBuffer out = {.dst = w->out, .size = wanted};
  bool good = true;
  while (good && out.pos < wanted) {
    size_t before = out.pos, got = ZSTD_decompressStream(w->zstd, &out, &in);
    /* The end of the input, or of the frame: the chunk must be whole. */
    if (ZSTD_isError(got) || got == 0 || (in.pos == in.size && out.pos == before)) good = out.pos == wanted;
  }
  if (ZSTD_sizeof_DCtx(w->zstd) > KEEP_MAX) {
    ZSTD_freeDCtx(w->zstd);
    w->zstd = NULL;
  }
  return good;
}

static const uint8_t *decode_chunk(struct worker *w, const struct span_file *file, const struct span *span,
                                   const uint8_t *bytes, size_t length) {
  size_t wanted = span->window_offset + span->tar_length;
  if (!reserve(w, wanted)) return NULL;
  bool good = file->header->kind == SPAN_GZIP_CHUNKS ? decode_gzip_chunk(w, bytes, length, wanted)
                                                     : decode_zstd_chunk(w, bytes, length, wanted);
  return good ? w->out + span->window_offset : NULL;
}

const uint8_t *worker_decode(struct worker *worker, const struct span_file *file, uint32_t index, const uint8_t *bytes,
                             size_t length) {
  const struct span *span = &file->spans[index];
  if (file->header->kind == SPAN_PLAIN) return length == span->tar_length ? bytes : NULL;
  if (worker == NULL) return NULL;
  if (span_file_has_chunks(file)) return decode_chunk(worker, file, span, bytes, length);
  if (!reserve(worker, span->tar_length)) return NULL;
  bool good = file->header->kind == SPAN_GZIP         ? decode_gzip(worker, file, span, bytes, length)
              : file->header->kind == SPAN_ZSTD_FRAMES ? decode_zstd(worker, span, bytes, length)
                                                       : false;
  return good ? worker->out : NULL;
}
