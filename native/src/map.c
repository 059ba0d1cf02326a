/*
 * The span bitmap of a cache file: which spans are there, as a file of its own that is mapped and shared.
 *
 *   0   8  magic "OCIMAP01"      8  4 version (1)     12  4 flags: bit 0: clean (data reached the disk before the bits)
 *   16  8  blob size            24  4 span count      28  4 zero
 *   32 32  layer digest         64 36 boot id as text          100 4 zero
 *   104 32 SHA-256 of the span file's header and tables        136 8 inode of the cache file
 *   256    one bit per span, 64-bit words, little-endian
 *
 * A map written under this boot is right even after a crash of the process: both files are in the page cache. After a
 * reboot it is believed only when it was marked clean; otherwise all is discarded and fetched again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci.h"

enum { MAP_HEADER = 256, MAP_CLEAN = 1, BOOT_ID = 36 };

struct map_header {
  char magic[8];
  uint32_t version, flags;
  uint64_t blob_size;
  uint32_t span_count, zero;
  uint8_t layer_sha256[32];
  char boot_id[BOOT_ID];
  uint32_t zero2;
  uint8_t fingerprint[32];
  uint64_t cache_inode;
} __attribute__((packed));

static int read_boot_id(char out[BOOT_ID]) {
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  ssize_t got = read(fd, out, BOOT_ID);
  close(fd);
  return got == BOOT_ID ? 0 : -EIO;
}

static bool map_belongs(const struct blob *blob, const struct map_header *have, const struct map_header *want) {
  (void)blob;
  if (memcmp(have->magic, want->magic, 8) != 0 || have->version != want->version) return false;
  if (have->blob_size != want->blob_size || have->span_count != want->span_count) return false;
  if (memcmp(have->layer_sha256, want->layer_sha256, 32) != 0) return false;
  if (memcmp(have->fingerprint, want->fingerprint, 32) != 0 || have->cache_inode != want->cache_inode) return false;
  return (have->flags & MAP_CLEAN) != 0 || memcmp(have->boot_id, want->boot_id, BOOT_ID) == 0;
}

/* Maps the file, or plain memory when the disk has no room for it: the cache then forgets at the end, nothing else. */
static int map_memory(struct blob *blob, int fd) {
  int error = fd < 0 ? ENOSPC : posix_fallocate(fd, 0, (off_t)blob->map_size);
  if (error == EOPNOTSUPP || error == EINVAL) error = ftruncate(fd, (off_t)blob->map_size) == 0 ? 0 : errno;
  bool anonymous = error != 0;
  void *map = mmap(NULL, blob->map_size, PROT_READ | PROT_WRITE, anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED,
                   anonymous ? -1 : fd, 0);
  if (map == MAP_FAILED) return -errno;
  blob->map = map;
  blob->bits = (_Atomic uint64_t *)(void *)(blob->map + MAP_HEADER);
  if (anonymous && fd >= 0) {
    if (ftruncate(fd, 0) != 0) { /* an old map stays; its inode number of the cache file tells it is stale */
    }
  }
  blob->map_fd = fd;
  blob->map_in_memory = anonymous;
  return 0;
}

static int punch_cache(const struct blob *blob) {
  if (ftruncate(blob->cache_fd, 0) != 0) return -errno;
  return ftruncate(blob->cache_fd, (off_t)blob->spans.header->blob_size) == 0 ? 0 : -errno;
}

/* Bits past the last span would be counted as present: a map with such bits is not ours. */
static bool bits_are_sane(const struct blob *blob) {
  uint32_t tail = blob->spans.header->span_count % 64, words = (blob->spans.header->span_count + 63) / 64;
  return tail == 0 || (atomic_load(&blob->bits[words - 1]) >> tail) == 0;
}

int map_open(struct blob *blob, const char *map_path, bool cache_is_new) {
  const struct span_header *h = blob->spans.header;
  struct map_header want = {.magic = "OCIMAP0", .version = 1, .blob_size = h->blob_size, .span_count = h->span_count};
  want.magic[7] = '1';
  memcpy(want.layer_sha256, h->layer_sha256, 32);
  span_file_fingerprint(&blob->spans, want.fingerprint);
  want.cache_inode = blob->inode;
  int result = read_boot_id(want.boot_id);
  if (result != 0) return result;
  blob->map_size = MAP_HEADER + ((size_t)h->span_count + 63) / 64 * 8;
  int fd = open(map_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0 && errno != ENOSPC && errno != EDQUOT) return -errno;
  struct stat st = {0};
  if (fd >= 0 && (flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &st) != 0)) {
    int saved = errno == EWOULDBLOCK ? EBUSY : errno; /* EBUSY: another process serves this cache file */
    close(fd);
    return -saved;
  }
  bool keep = !cache_is_new && st.st_size == (off_t)blob->map_size;
  result = map_memory(blob, fd);
  if (result < 0) {
    if (fd >= 0) close(fd);
    return result;
  }
  struct map_header *have = (struct map_header *)(void *)blob->map;
  keep = keep && !blob->map_in_memory && map_belongs(blob, have, &want) && bits_are_sane(blob);
  if (keep) return 0;
  /* The header last: a crash in between leaves a map that is discarded again. */
  memset(blob->map, 0, blob->map_size);
  result = cache_is_new ? 0 : punch_cache(blob);
  memcpy(blob->map, &want, sizeof want);
  blob->marked_dirty = true;
  return result;
}

int map_fill(struct blob *blob) {
  if (blob->map_in_memory) return -ENOSPC;
  uint32_t count = blob->spans.header->span_count;
  for (uint32_t i = 0; i < count; i++) atomic_fetch_or(&blob->bits[i / 64], 1ull << (i % 64));
  atomic_store(&blob->present, count);
  return 0;
}

void map_mark_dirty_locked(struct blob *blob) {
  if (blob->marked_dirty) return;
  struct map_header *header = (struct map_header *)(void *)blob->map;
  header->flags &= ~(uint32_t)MAP_CLEAN;
  read_boot_id(header->boot_id);
  /* On the disk before any new bit can be: else a power cut would leave a bit whose data never arrived. */
  if (blob->map_fd >= 0) msync(blob->map, blob->map_size, MS_SYNC);
  blob->marked_dirty = true;
}

int map_sync(struct blob *blob) {
  pthread_mutex_lock(&blob->map_lock);
  uint64_t generation = blob->generation;
  bool needed = blob->marked_dirty && blob->map_fd >= 0;
  pthread_mutex_unlock(&blob->map_lock);
  if (!needed) return 0;
  if (fdatasync(blob->cache_fd) != 0) return errno;
  if (msync(blob->map, blob->map_size, MS_SYNC) != 0) return errno;
  int error = 0;
  pthread_mutex_lock(&blob->map_lock);
  if (blob->commits_at_work == 0 && blob->generation == generation) {
    ((struct map_header *)(void *)blob->map)->flags |= MAP_CLEAN;
    if (msync(blob->map, blob->map_size, MS_SYNC) != 0) error = errno;
    blob->marked_dirty = false;
  }
  pthread_mutex_unlock(&blob->map_lock);
  return error;
}

void map_close(struct blob *blob) {
  if (blob->map != NULL) munmap(blob->map, blob->map_size);
  if (blob->map_fd >= 0) close(blob->map_fd);
  blob->map = NULL;
  blob->map_fd = -1;
}
