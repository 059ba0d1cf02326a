/*
 * The map of a cache file: which spans are in it, and how their bytes can be told from others. A file of its own:
 *
 *   0   8  magic "OCIMAP02"      8  4 version (2)     12  4 flags: bit 0: clean
 *   16  8  blob size            24  4 span count      28  4 zero
 *   32 32  layer digest         64 32 SHA-256 of the span file's header and tables
 *   96  8  inode of the cache file
 *   104 8  mtime, 112 8 ctime (ns), 120 8 blocks of the cache file when it was marked clean
 *   128 4  CRC32C of all of the above and below, when it was marked clean
 *   256    one bit per span, 64-bit words, little-endian
 *   then   CRC32C of what each span gives to the blob, 32 bits each
 *
 * It is written by pwrite and kept in memory, not mapped: a map that somebody cuts must not kill the process.
 *
 * Clean, and the cache file has not changed since: what the bits say is believed. Else each span that is there is
 * *unproved* until its bytes were read and fit their CRC. See "What the cache believes" in src/native/README.md for the
 * order of writes that this rests on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci.h"

enum { MAP_HEADER = 256, MAP_CLEAN = 1 };

struct map_header {
  char magic[8];
  uint32_t version, flags;
  uint64_t blob_size;
  uint32_t span_count, zero;
  uint8_t layer_sha256[32], fingerprint[32];
  uint64_t cache_inode;
  int64_t mtime_ns, ctime_ns, blocks;
  uint32_t check;
} __attribute__((packed));

_Static_assert(sizeof(struct map_header) == 132, "map header");

static size_t word_count(const struct blob *blob) { return ((size_t)blob->spans.header->span_count + 63) / 64; }

static size_t map_size(const struct blob *blob) {
  return MAP_HEADER + word_count(blob) * 8 + (size_t)blob->spans.header->span_count * 4;
}

/* Where the disk has no room for the map, the cache forgets at the end, nothing else. */
static void write_map(struct blob *blob, const void *bytes, size_t length, size_t offset) {
  if (blob->map_lost) return;
  if (blob->map_fd >= 0 && pwrite(blob->map_fd, bytes, length, (off_t)offset) == (ssize_t)length) return;
  blob->map_lost = true;
  /* What is on the disk says less than is there, or as much: but a bit without its CRC must not stay. */
  if (blob->map_fd >= 0 && ftruncate(blob->map_fd, 0) != 0) { /* then its spans are found unproved, and false */
  }
}

static uint32_t check_of(const struct blob *blob, struct map_header header) {
  header.check = 0;
  uint32_t crc = crc32c(0, &header, sizeof header);
  crc = crc32c(crc, blob->stored, word_count(blob) * 8);
  return crc32c(crc, blob->checks, (size_t)blob->spans.header->span_count * 4);
}

static void write_header(struct blob *blob, uint32_t flags, const struct stamp *stamp) {
  const struct span_header *h = blob->spans.header;
  struct map_header header = {.magic = "OCIMAP0", .version = 2, .flags = flags, .blob_size = h->blob_size,
                              .span_count = h->span_count, .cache_inode = blob->inode};
  header.magic[7] = '2';
  memcpy(header.layer_sha256, h->layer_sha256, 32);
  memcpy(header.fingerprint, blob->fingerprint, 32);
  if (stamp != NULL) {
    header.mtime_ns = stamp->mtime_ns;
    header.ctime_ns = stamp->ctime_ns;
    header.blocks = stamp->blocks;
    header.check = check_of(blob, header);
  }
  write_map(blob, &header, sizeof header, 0);
}

/* Bits and checks as they are in memory: whatever became of the file meanwhile. */
static void write_body(struct blob *blob) {
  write_map(blob, blob->stored, word_count(blob) * 8, MAP_HEADER);
  write_map(blob, blob->checks, (size_t)blob->spans.header->span_count * 4, MAP_HEADER + word_count(blob) * 8);
}

static bool belongs(const struct blob *blob, const struct map_header *have) {
  const struct span_header *h = blob->spans.header;
  return memcmp(have->magic, "OCIMAP02", 8) == 0 && have->version == 2 && have->blob_size == h->blob_size &&
         have->span_count == h->span_count && memcmp(have->layer_sha256, h->layer_sha256, 32) == 0 &&
         memcmp(have->fingerprint, blob->fingerprint, 32) == 0 && have->cache_inode == blob->inode;
}

/* Reads the map into memory. False: it is not this cache file's, or not whole. */
static bool read_map(struct blob *blob, struct map_header *header) {
  size_t words = word_count(blob), count = blob->spans.header->span_count;
  struct stat st;
  if (fstat(blob->map_fd, &st) != 0 || st.st_size != (off_t)map_size(blob)) return false;
  if (pread(blob->map_fd, header, sizeof *header, 0) != (ssize_t)sizeof *header || !belongs(blob, header)) return false;
  if (pread(blob->map_fd, blob->stored, words * 8, MAP_HEADER) != (ssize_t)(words * 8)) return false;
  if (pread(blob->map_fd, blob->checks, count * 4, MAP_HEADER + (off_t)words * 8) != (ssize_t)(count * 4)) return false;
  /* Bits past the last span would be counted as present: a map with such bits is not ours. */
  return count % 64 == 0 || (blob->stored[words - 1] >> (count % 64)) == 0;
}

/* Begins anew, with an empty cache file. A crash in between leaves a map that is not whole. */
static int reset(struct blob *blob, bool cache_is_new) {
  size_t words = word_count(blob), count = blob->spans.header->span_count;
  for (size_t i = 0; i < words; i++) blob->stored[i] = 0;
  memset(blob->checks, 0, count * 4);
  if (blob->map_fd >= 0 && ftruncate(blob->map_fd, 0) != 0) return -errno;
  int result = cache_is_new ? 0 : blob_renew_cache(blob);
  if (result != 0) return result;
  int error = blob->map_fd < 0 ? ENOSPC : posix_fallocate(blob->map_fd, 0, (off_t)map_size(blob));
  if (error == EOPNOTSUPP || error == EINVAL)
    error = ftruncate(blob->map_fd, (off_t)map_size(blob)) == 0 ? 0 : errno;
  blob->map_lost = error != 0;
  if (error != 0 && blob->map_fd >= 0 && ftruncate(blob->map_fd, 0) != 0) return -errno;
  write_header(blob, 0, NULL);
  blob->marked_dirty = true;
  return 0;
}

static int open_map(struct blob *blob, const char *map_path) {
  int fd = open(map_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno == ENOSPC || errno == EDQUOT ? 0 : -errno;
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    int error = errno == EWOULDBLOCK ? EBUSY : errno; /* EBUSY: another process serves this cache file */
    close(fd);
    return -error;
  }
  blob->map_fd = fd;
  return 0;
}

int map_open(struct blob *blob, const char *map_path, bool cache_is_new, bool verify) {
  size_t words = word_count(blob), count = blob->spans.header->span_count;
  blob->stored = calloc(words + 1, sizeof *blob->stored);
  blob->bits = calloc(words + 1, sizeof *blob->bits);
  blob->checks = calloc(count + 1, sizeof *blob->checks);
  if (blob->stored == NULL || blob->bits == NULL || blob->checks == NULL) return -ENOMEM;
  int result = open_map(blob, map_path);
  if (result != 0) return result;
  struct map_header header;
  bool whole = blob->map_fd >= 0 && !cache_is_new && read_map(blob, &header);
  if (!whole) result = reset(blob, cache_is_new);
  if (result != 0) return result;
  struct stamp stamp;
  result = stamp_take(blob, &stamp);
  if (result != 0) return result;
  bool believed = whole && !verify && (header.flags & MAP_CLEAN) != 0 && header.check == check_of(blob, header) &&
                  header.mtime_ns == stamp.mtime_ns && header.ctime_ns == stamp.ctime_ns &&
                  header.blocks == stamp.blocks;
  stamp_keep_locked(blob, &stamp);
  uint32_t present = 0, unproved = 0;
  for (uint32_t s = 0; s < count; s++) {
    bool stored = (blob->stored[s / 64] >> (s % 64)) & 1;
    /* A span that gives nothing to the blob is there from the start. */
    bool good = stored ? believed : !span_file_has_data(&blob->spans, s);
    if (good) blob->bits[s / 64] |= 1ull << (s % 64);
    present += good;
    unproved += stored && !good;
  }
  atomic_store(&blob->present, present);
  atomic_store(&blob->unproved, unproved);
  /* Proved spans are worth a new mark at the end, though nothing will have been written. */
  blob->stale = whole && !believed;
  return 0;
}

void map_mark_dirty_locked(struct blob *blob) {
  if (blob->marked_dirty) return;
  write_header(blob, 0, NULL);
  /* On the disk before any data can be: else a power cut would leave changed data under a clean mark. */
  if (blob->map_fd >= 0) fdatasync(blob->map_fd);
  blob->marked_dirty = true;
}

void map_set_locked(struct blob *blob, uint32_t span, uint32_t check) {
  size_t word = span / 64;
  blob->checks[span] = check;
  write_map(blob, &blob->checks[span], 4, MAP_HEADER + word_count(blob) * 8 + (size_t)span * 4);
  blob->stored[word] |= 1ull << (span % 64);
  write_map(blob, &blob->stored[word], 8, MAP_HEADER + word * 8);
}

void map_clear_locked(struct blob *blob, uint32_t span) {
  size_t word = span / 64;
  blob->stored[word] &= ~(1ull << (span % 64));
  write_map(blob, &blob->stored[word], 8, MAP_HEADER + word * 8);
}

int map_fill_locked(struct blob *blob, const uint32_t *checks) {
  uint32_t count = blob->spans.header->span_count;
  for (uint32_t s = 0; s < count; s++) {
    blob->bits[s / 64] |= 1ull << (s % 64);
    if (span_file_has_data(&blob->spans, s)) blob->stored[s / 64] |= 1ull << (s % 64);
  }
  memcpy(blob->checks, checks, (size_t)count * 4);
  atomic_store(&blob->present, count);
  write_body(blob);
  return blob->map_lost ? -ENOSPC : 0;
}

int map_sync(struct blob *blob) {
  pthread_mutex_lock(&blob->map_lock);
  uint64_t generation = blob->generation;
  bool needed = (blob->marked_dirty || blob->stale) && !blob->map_lost;
  if (needed) write_body(blob);
  pthread_mutex_unlock(&blob->map_lock);
  if (!needed) return 0;
  if (fdatasync(blob->cache_fd) != 0 || fdatasync(blob->map_fd) != 0) return errno;
  int error = 0;
  pthread_mutex_lock(&blob->map_lock);
  struct stamp stamp;
  /* What somebody else has changed, or nobody has looked at, must not be believed the next time. */
  bool clean = !atomic_load(&blob->writing) && blob->generation == generation && atomic_load(&blob->unproved) == 0 &&
               stamp_take(blob, &stamp) == 0 && stamp_is_kept(blob, &stamp);
  if (clean) {
    write_header(blob, MAP_CLEAN, &stamp);
    blob->marked_dirty = blob->stale = false;
    if (blob->map_lost) error = ENOSPC;
  }
  pthread_mutex_unlock(&blob->map_lock);
  /* Without the lock: who begins to store now takes the mark away again, and sees to the disk itself. */
  if (clean && error == 0 && fdatasync(blob->map_fd) != 0) error = errno;
  return error;
}

void map_close(struct blob *blob) {
  if (blob->map_fd >= 0) close(blob->map_fd);
  blob->map_fd = -1;
}
