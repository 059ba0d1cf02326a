/*
 * One span's compressed bytes to its tar bytes. zlib, libdeflate and zstd are the only parsers of hostile structure
 * here; the bytes were already compared with the span's SHA-256, but for those of chunks, whose output is compared
 * instead. libdeflate takes the spans that begin and end inside of one gzip member, which are nearly all; what it does
 * not make whole zlib decides about.
 */
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "oci.h"
#include "splice.h"

enum { KEEP_MAX = 8 << 20, GZIP_TRAILER = 8, RAW = -15, GZIP = 31 };

struct buffer {
  uint8_t *bytes;
  size_t capacity;
};

struct worker {
  z_stream zlib;
  bool zlib_ready;
  ZSTD_DCtx *zstd;
  struct libdeflate_decompressor *deflate;
  struct buffer out, stream;
  uint8_t window[WINDOW_MAX];
  uint8_t stored[WINDOW_STORED_MAX];
};

struct worker *worker_create(void) { return calloc(1, sizeof(struct worker)); }

static bool reserve(struct buffer *buffer, size_t length) {
  /* One huge span must not keep its memory for ever. */
  if (length <= buffer->capacity && (buffer->capacity <= KEEP_MAX || length > KEEP_MAX)) return true;
  free(buffer->bytes);
  buffer->capacity = length > 0 ? length : 1;
  buffer->bytes = malloc(buffer->capacity);
  if (buffer->bytes == NULL) buffer->capacity = 0;
  return buffer->bytes != NULL;
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
  feed(z, bytes, length, w->out.bytes, span->tar_length);
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

/* How many bits of its last byte belong to a span that ends inside of its member; 0: it has the member's end. */
static unsigned last_byte_bits(const struct span_file *file, uint32_t index) {
  if (index + 1 >= file->header->span_count) return 0;
  const struct span *next = &file->spans[index + 1];
  if ((next->flags & SPAN_FLAG_MEMBER_START) != 0) return 0;
  return next->bits > 0 ? next->bits : 8;
}

/* The span by libdeflate, behind its window; NULL: zlib must look at it. */
static const uint8_t *decode_spliced(struct worker *w, const struct span_file *file, uint32_t index, const uint8_t *bytes,
                                     size_t length) {
  const struct span *span = &file->spans[index];
  if ((span->flags & SPAN_FLAG_MEMBER_START) != 0) return NULL; /* has a header */
  if (w->deflate == NULL && (w->deflate = libdeflate_alloc_decompressor()) == NULL) return NULL;
  size_t window = span->window_stored > 0 ? span->window_length : 0, whole = window + span->tar_length, got;
  if (window > 0 && !load_window(w, file, span)) return NULL;
  if (!reserve(&w->stream, window + length + SPLICE_EXTRA) || !reserve(&w->out, whole)) return NULL;
  const struct splice splice = {bytes, length, span->bits, last_byte_bits(file, index)};
  size_t stream = splice_stream(w->stream.bytes, w->window, window, &splice);
  if (stream == 0) return NULL;
  enum libdeflate_result result =
      libdeflate_deflate_decompress(w->deflate, w->stream.bytes, stream, w->out.bytes, whole, &got);
  return result == LIBDEFLATE_SUCCESS && got == whole ? w->out.bytes + window : NULL;
}

static bool decode_zstd(struct worker *w, const struct span *span, const uint8_t *bytes, size_t length) {
  if (w->zstd == NULL) w->zstd = ZSTD_createDCtx();
  if (w->zstd == NULL) return false;
  size_t got = ZSTD_decompressDCtx(w->zstd, w->out.bytes, span->tar_length, bytes, length);
  return !ZSTD_isError(got) && got == span->tar_length;
}

/* A chunk may stand behind others in its member, and what follows it there does not count. */
static bool decode_gzip_chunk(struct worker *w, const uint8_t *bytes, size_t length, size_t wanted) {
  z_stream *z = &w->zlib;
  if (!zlib_begin(w, GZIP)) return false;
  feed(z, bytes, length, w->out.bytes, wanted);
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
  ZSTD_outBuffer out = {.dst = w->out.bytes, .size = wanted};
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
  if (!reserve(&w->out, wanted)) return NULL;
  bool good = file->header->kind == SPAN_GZIP_CHUNKS ? decode_gzip_chunk(w, bytes, length, wanted)
                                                     : decode_zstd_chunk(w, bytes, length, wanted);
  return good ? w->out.bytes + span->window_offset : NULL;
}

const uint8_t *worker_decode(struct worker *worker, const struct span_file *file, uint32_t index, const uint8_t *bytes,
                             size_t length) {
  const struct span *span = &file->spans[index];
  if (file->header->kind == SPAN_PLAIN) return length == span->tar_length ? bytes : NULL;
  if (worker == NULL) return NULL;
  if (span_file_has_chunks(file)) return decode_chunk(worker, file, span, bytes, length);
  const uint8_t *tar = file->header->kind == SPAN_GZIP ? decode_spliced(worker, file, index, bytes, length) : NULL;
  if (tar != NULL) return tar;
  if (!reserve(&worker->out, span->tar_length)) return NULL;
  bool good = file->header->kind == SPAN_GZIP         ? decode_gzip(worker, file, span, bytes, length)
              : file->header->kind == SPAN_ZSTD_FRAMES ? decode_zstd(worker, span, bytes, length)
                                                       : false;
  return good ? worker->out.bytes : NULL;
}
