#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci.h"

enum { BLOCK = 4096 };
static const uint64_t span_bytes_max = 1ull << 30;
static const uint64_t file_bytes_max = 1ull << 50;

static int refuse(char *error, const char *why, uint32_t at) {
  snprintf(error, OCI_ERROR_TEXT, "%s (entry %u)", why, at);
  return -EBADMSG;
}

static bool table_fits(uint64_t file_size, uint64_t offset, uint64_t count, uint64_t entry) {
  return offset <= file_size && count <= (file_size - offset) / entry;
}

static int check_header(const struct span_file *f, char *error) {
  const struct span_header *h = f->header;
  if (memcmp(h->magic, "OCISPAN1", 8) != 0) return refuse(error, "not a span file", 0);
  if (h->version != 1) return refuse(error, "unknown version", h->version);
  if (h->kind > SPAN_ZSTD_CHUNKS) return refuse(error, "unknown kind", h->kind);
  if (h->compressed_size > file_bytes_max || h->tar_size > file_bytes_max || h->blob_size > file_bytes_max)
    return refuse(error, "a size is beyond all bounds", 0);
  if (h->blob_size % BLOCK != 0) return refuse(error, "blob size is not a multiple of 4096", 0);
  if (h->span_count > 1u << 28) return refuse(error, "too many spans", h->span_count);
  if (!table_fits(f->size, h->spans_offset, h->span_count, sizeof(struct span)))
    return refuse(error, "the span table is outside of the file", 0);
  uint64_t packed = h->packed_extents_length;
  bool extents_fit = packed == 0 ? table_fits(f->size, h->extents_offset, h->extent_count, sizeof(struct extent))
                                 : table_fits(f->size, h->extents_offset, packed, 1) && h->extent_count <= packed / 3;
  if (!extents_fit) return refuse(error, "the extent table is outside of the file", 0);
  if (!table_fits(f->size, h->windows_offset, h->windows_length, 1))
    return refuse(error, "the windows are outside of the file", 0);
  return 0;
}

static const char *bad_window(const struct span_header *h, const struct span *s) {
  if (s->window_stored == 0) return s->window_length == 0 ? NULL : "a window has length but no bytes";
  if (s->window_length == 0 || s->window_length > WINDOW_MAX) return "window length";
  if (s->window_stored > WINDOW_STORED_MAX) return "stored window length";
  if (s->window_offset > h->windows_length || s->window_stored > h->windows_length - s->window_offset)
    return "a window is outside of the windows";
  return NULL;
}

static const char *bad_chunk(const struct span *s) {
  if (s->window_stored != 0 || s->window_length != 0 || s->bits != 0) return "a chunk has a window";
  if (s->window_offset > span_bytes_max - s->tar_length) return "a chunk lies too far behind its beginning";
  return NULL;
}

static const char *bad_span(const struct span_header *h, const struct span *s, const struct span *before) {
  if (s->tar_length > span_bytes_max) return "a span is too long";
  if (s->tar_offset != (before == NULL ? 0 : before->tar_offset + before->tar_length))
    return "spans do not follow one another";
  if (s->tar_offset > h->tar_size || s->tar_length > h->tar_size - s->tar_offset)
    return "a span is outside of the tar stream";
  if (s->comp_offset > h->compressed_size || s->comp_length > h->compressed_size - s->comp_offset)
    return "a span is outside of the layer";
  if (before != NULL && s->comp_offset < before->comp_offset) return "compressed offsets go back";
  if (s->blob_offset > h->blob_size || (before != NULL && s->blob_offset < before->blob_offset))
    return "blob offsets of spans go back or outside";
  if (s->bits > 7 || (s->flags & ~SPAN_FLAG_MEMBER_START) != 0) return "unknown bits or flags";
  if (h->kind != SPAN_ZSTD_STREAM && s->comp_length > span_bytes_max) return "a span's fetch is too long";
  if (h->kind == SPAN_PLAIN && s->comp_length != s->tar_length) return "a plain span changes its length";
  if (h->kind == SPAN_GZIP_CHUNKS || h->kind == SPAN_ZSTD_CHUNKS) return bad_chunk(s);
  return bad_window(h, s);
}

static int check_spans(const struct span_file *f, uint64_t *tar_end, char *error) {
  *tar_end = 0;
  for (uint32_t i = 0; i < f->header->span_count; i++) {
    const char *why = bad_span(f->header, &f->spans[i], i == 0 ? NULL : &f->spans[i - 1]);
    if (why != NULL) return refuse(error, why, i);
    *tar_end = f->spans[i].tar_offset + f->spans[i].tar_length;
  }
  return 0;
}

static int check_extents(const struct span_file *f, uint64_t tar_end, char *error) {
  uint64_t tar_next = 0, blob_next = 0;
  for (uint32_t i = 0; i < f->header->extent_count; i++) {
    const struct extent *e = &f->extents[i];
    if (e->length == 0) return refuse(error, "an extent is empty", i);
    if (e->tar_offset < tar_next || e->blob_offset < blob_next) return refuse(error, "extents overlap or go back", i);
    if (e->tar_offset > tar_end || e->length > tar_end - e->tar_offset)
      return refuse(error, "an extent is in no span", i);
    if (e->blob_offset > f->header->blob_size || e->length > f->header->blob_size - e->blob_offset)
      return refuse(error, "an extent is outside of the blob", i);
    tar_next = e->tar_offset + e->length;
    blob_next = e->blob_offset + e->length;
  }
  return 0;
}

static int read_exactly(int fd, void *out, size_t length, uint64_t offset) {
  uint8_t *at = out;
  while (length > 0) {
    ssize_t got = pread(fd, at, length, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) return -EIO;
    at += got;
    offset += (uint64_t)got;
    length -= (size_t)got;
  }
  return 0;
}

static int read_table(int fd, void **table, size_t length, uint64_t offset) {
  *table = malloc(length + 1);
  return *table == NULL ? -ENOMEM : read_exactly(fd, *table, length, offset);
}

/* A number in groups of seven bits, the low ones first, the eighth bit set on all bytes but the last. */
static bool take_number(const uint8_t **at, const uint8_t *end, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; shift < 56 && *at < end; shift += 7) {
    uint8_t byte = *(*at)++;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

static int unpack_extents(struct span_file *file, const uint8_t *at, const uint8_t *end, char *error) {
  uint64_t tar = 0, blob = 0;
  for (uint32_t i = 0; i < file->header->extent_count; i++) {
    uint64_t tar_gap, blob_gap, length;
    if (!take_number(&at, end, &tar_gap) || !take_number(&at, end, &blob_gap) || !take_number(&at, end, &length))
      return refuse(error, "a packed extent is cut off", i);
    /* Each number is below 2^56, each sum was: nothing overflows. */
    file->extents[i] = (struct extent){tar + tar_gap, blob + blob_gap, length};
    tar += tar_gap + length;
    blob += blob_gap + length;
    if (tar > file_bytes_max || blob > file_bytes_max) return refuse(error, "an extent is beyond all bounds", i);
  }
  return at == end ? 0 : refuse(error, "bytes follow the packed extents", file->header->extent_count);
}

static int read_packed_extents(struct span_file *file, char *error) {
  const struct span_header *h = file->header;
  uint8_t *packed = NULL;
  file->extents = malloc(h->extent_count * sizeof(struct extent) + 1);
  int result = file->extents == NULL ? -ENOMEM : 0;
  if (result == 0) result = read_table(file->fd, (void **)&packed, h->packed_extents_length, h->extents_offset);
  if (result == 0) result = unpack_extents(file, packed, packed + h->packed_extents_length, error);
  free(packed);
  return result;
}

static int read_extents(struct span_file *file, char *error) {
  const struct span_header *h = file->header;
  if (h->packed_extents_length > 0) return read_packed_extents(file, error);
  return read_table(file->fd, (void **)&file->extents, h->extent_count * sizeof(struct extent), h->extents_offset);
}

static int read_header(struct span_file *file, char *error) {
  struct stat st;
  if (fstat(file->fd, &st) != 0) return -errno;
  if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(struct span_header))
    return refuse(error, "shorter than its header", 0);
  file->size = (uint64_t)st.st_size;
  int result = read_table(file->fd, (void **)&file->header, sizeof *file->header, 0);
  return result != 0 ? result : check_header(file, error);
}

static int read_tables(struct span_file *file, char *error) {
  const struct span_header *h = file->header;
  uint64_t tar_end = 0;
  int result = read_table(file->fd, (void **)&file->spans, h->span_count * sizeof(struct span), h->spans_offset);
  if (result == 0) result = read_extents(file, error);
  if (result == 0) result = check_spans(file, &tar_end, error);
  return result != 0 ? result : check_extents(file, tar_end, error);
}

int span_file_open(const char *path, struct span_file *file, char *error) {
  memset(file, 0, sizeof *file);
  file->fd = open(path, O_RDONLY | O_CLOEXEC);
  if (file->fd < 0) return -errno;
  int result = read_header(file, error);
  if (result == 0) result = read_tables(file, error);
  if (result != 0) {
    span_file_close(file);
  } else if (file->header->windows_length == 0) {
    close(file->fd);
    file->fd = -1;
  }
  return result;
}

void span_file_close(struct span_file *file) {
  if (file->fd >= 0) close(file->fd);
  free(file->header);
  free(file->spans);
  free(file->extents);
  memset(file, 0, sizeof *file);
  file->fd = -1;
}

bool span_file_window(const struct span_file *file, const struct span *span, uint8_t *out) {
  return read_exactly(file->fd, out, span->window_stored, file->header->windows_offset + span->window_offset) == 0;
}

void span_file_fingerprint(const struct span_file *file, uint8_t digest[32]) {
  struct sha256 ctx;
  sha256_init(&ctx);
  sha256_update(&ctx, file->header, sizeof *file->header);
  sha256_update(&ctx, file->spans, file->header->span_count * sizeof(struct span));
  sha256_update(&ctx, file->extents, file->header->extent_count * sizeof(struct extent));
  sha256_final(&ctx, digest);
}

uint32_t span_file_extent_after_tar(const struct span_file *file, uint64_t tar_offset) {
  uint32_t low = 0, high = file->header->extent_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    const struct extent *e = &file->extents[middle];
    if (e->tar_offset + e->length > tar_offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

/* The span that holds a byte of the tar stream; the caller knows that one does. */
static uint32_t span_of_tar(const struct span_file *file, uint64_t tar_offset) {
  uint32_t low = 0, high = file->header->span_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    const struct span *s = &file->spans[middle];
    if (s->tar_offset + s->tar_length > tar_offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

bool span_file_range(const struct span_file *file, uint64_t offset, uint64_t length, uint32_t *first, uint32_t *last) {
  uint64_t end = offset + length;
  uint32_t low = 0, high = file->header->extent_count;
  while (low < high) { /* the first extent that ends after the offset */
    uint32_t middle = low + (high - low) / 2;
    const struct extent *e = &file->extents[middle];
    if (e->blob_offset + e->length > offset) high = middle;
    else low = middle + 1;
  }
  if (low == file->header->extent_count || file->extents[low].blob_offset >= end) return false;
  const struct extent *e = &file->extents[low];
  *first = span_of_tar(file, e->tar_offset + (offset > e->blob_offset ? offset - e->blob_offset : 0));
  high = file->header->extent_count;
  while (low < high) { /* the first extent that begins at or after the end */
    uint32_t middle = low + (high - low) / 2;
    if (file->extents[middle].blob_offset >= end) high = middle;
    else low = middle + 1;
  }
  e = &file->extents[low - 1];
  uint64_t reach = e->blob_offset + e->length < end ? e->length : end - e->blob_offset;
  *last = span_of_tar(file, e->tar_offset + reach - 1);
  return true;
}

bool span_file_has_data(const struct span_file *file, uint32_t span) {
  const struct span *s = &file->spans[span];
  uint32_t i = span_file_extent_after_tar(file, s->tar_offset);
  return i < file->header->extent_count && file->extents[i].tar_offset < s->tar_offset + s->tar_length;
}
