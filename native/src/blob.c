/*
 * Layer blobs: one sparse cache file and one span bitmap per layer, shared inside the process by the cache file's path.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci.h"

static LIST_HEAD(, blob) blobs = LIST_HEAD_INITIALIZER(blobs);
/* Opening a path twice at the same time must give one blob. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;

int blob_read(const struct blob *blob, uint8_t *out, uint64_t offset, size_t length) {
  while (length > 0) {
    ssize_t got = pread(blob->cache_fd, out, length, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return EIO; /* somebody cut the cache file */
    out += got;
    offset += (uint64_t)got;
    length -= (size_t)got;
  }
  return 0;
}

void blob_commit_begin(struct blob *blob) {
  pthread_mutex_lock(&blob->map_lock);
  map_mark_dirty_locked(blob);
  blob->commits_at_work++;
  pthread_mutex_unlock(&blob->map_lock);
}

void blob_commit_end(struct blob *blob, uint32_t span, bool stored) {
  pthread_mutex_lock(&blob->map_lock);
  blob->commits_at_work--;
  if (stored) {
    blob->generation++;
    uint64_t bit = 1ull << (span % 64);
    uint64_t before = atomic_fetch_or_explicit(&blob->bits[span / 64], bit, memory_order_release);
    if ((before & bit) == 0) atomic_fetch_add(&blob->present, 1);
  }
  pthread_mutex_unlock(&blob->map_lock);
}

void blob_free(struct blob *blob) {
  map_close(blob);
  if (blob->cache_fd >= 0) close(blob->cache_fd);
  span_file_close(&blob->spans);
  pthread_mutex_destroy(&blob->map_lock);
  free(blob->states);
  free(blob->cache_path);
  free(blob);
}

/* Counts what is there; a span that gives nothing to the blob is there from the start. */
static void count_present(struct blob *blob) {
  uint32_t present = 0;
  for (uint32_t i = 0; i < blob->spans.header->span_count; i++) {
    if (!blob_has(blob, i) && !span_file_has_data(&blob->spans, i))
      atomic_fetch_or(&blob->bits[i / 64], 1ull << (i % 64));
    if (blob_has(blob, i)) present++;
  }
  atomic_store(&blob->present, present);
}

static int open_cache(struct blob *blob, bool *is_new) {
  blob->cache_fd = open(blob->cache_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (blob->cache_fd < 0) return -errno;
  struct stat st;
  if (fstat(blob->cache_fd, &st) != 0) return -errno;
  if (!S_ISREG(st.st_mode)) return -EINVAL;
  blob->device = st.st_dev;
  blob->inode = st.st_ino;
  *is_new = false;
  if ((uint64_t)st.st_size == blob->spans.header->blob_size) return 0;
  *is_new = true; /* or of another size: what it holds is worth nothing */
  if (ftruncate(blob->cache_fd, 0) != 0) return -errno;
  return ftruncate(blob->cache_fd, (off_t)blob->spans.header->blob_size) == 0 ? 0 : -errno;
}

int blob_new(const char *span_path, const char *cache_path, struct blob **out, char *error) {
  struct blob *blob = calloc(1, sizeof *blob);
  if (blob == NULL) return -ENOMEM;
  blob->cache_fd = blob->map_fd = blob->spans.fd = -1;
  blob->refs = 1;
  pthread_mutex_init(&blob->map_lock, NULL);
  TAILQ_INIT(&blob->parked);
  int result = span_file_open(span_path, &blob->spans, error);
  if (result == 0 && (blob->cache_path = strdup(cache_path)) == NULL) result = -ENOMEM;
  if (result == 0) {
    blob->states = calloc(blob->spans.header->span_count + 1u, sizeof *blob->states);
    if (blob->states == NULL) result = -ENOMEM;
  }
  if (result == 0) *out = blob;
  else blob_free(blob);
  return result;
}

static int blob_create(const char *span_path, const char *cache_path, const char *map_path, struct blob **out,
                       char *error) {
  struct blob *blob;
  bool is_new = false;
  int result = blob_new(span_path, cache_path, &blob, error);
  if (result != 0) return result;
  result = open_cache(blob, &is_new);
  if (result == 0) result = map_open(blob, map_path, is_new);
  if (result != 0) {
    blob_free(blob);
    return result;
  }
  count_present(blob);
  *out = blob;
  return 0;
}

/* The living blob of a path, with a reference; one whose file was deleted or replaced does not count. */
static struct blob *blob_find(const char *cache_path) {
  struct stat st;
  if (lstat(cache_path, &st) != 0) return NULL;
  struct blob *blob, *found = NULL;
  pthread_mutex_lock(&engine_lock);
  LIST_FOREACH(blob, &blobs, link) {
    if (blob->refs == 0 || strcmp(blob->cache_path, cache_path) != 0) continue;
    if (blob->device != st.st_dev || blob->inode != st.st_ino) continue;
    blob->refs++;
    found = blob;
    break;
  }
  pthread_mutex_unlock(&engine_lock);
  return found;
}

void blob_ref_locked(struct blob *blob) { blob->refs++; }

static bool blob_drop_locked(struct blob *blob) {
  if (--blob->refs > 0) return false;
  LIST_REMOVE(blob, link);
  return true;
}

/* With open_lock held: a blob that is no longer listed must not hold the map's lock any more, or an open would fail. */
static bool blob_put_locked(struct blob *blob) {
  pthread_mutex_lock(&engine_lock);
  bool last = blob_drop_locked(blob);
  pthread_mutex_unlock(&engine_lock);
  if (last) map_close(blob);
  return last;
}

void blob_put(struct blob *blob) {
  pthread_mutex_lock(&open_lock);
  bool last = blob_put_locked(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(blob);
}

struct closing {
  struct blob *blob;
  uint32_t job;
};

static void *sync_and_put(void *argument) {
  struct closing closing = *(struct closing *)argument;
  free(argument);
  int error = map_sync(closing.blob);
  blob_put(closing.blob);
  post_done(closing.job, -error);
  return NULL;
}

int blob_sync_and_put(struct blob *blob, uint32_t job) {
  struct closing *closing = malloc(sizeof *closing);
  if (closing == NULL) return ENOMEM;
  *closing = (struct closing){.blob = blob, .job = job};
  int error = spawn_thread(sync_and_put, closing);
  if (error != 0) free(closing);
  return error;
}

/* The caller's span file must cut the layer as the blob's own does. */
static int same_spans(const struct blob *blob, const char *span_path, char *error) {
  struct span_file other;
  uint8_t ours[32], theirs[32];
  int result = span_file_open(span_path, &other, error);
  if (result != 0) return result;
  span_file_fingerprint(&blob->spans, ours);
  span_file_fingerprint(&other, theirs);
  span_file_close(&other);
  if (memcmp(ours, theirs, 32) == 0) return 0;
  snprintf(error, OCI_ERROR_TEXT, "the cache file is in use with another span file");
  return -EBUSY;
}

static void publish(struct blob *blob) {
  pthread_mutex_lock(&engine_lock);
  LIST_INSERT_HEAD(&blobs, blob, link);
  pthread_mutex_unlock(&engine_lock);
}

int blob_open(const char *span_path, const char *cache_path, const char *map_path, struct blob **out, char *error) {
  pthread_mutex_lock(&open_lock);
  struct blob *blob = blob_find(cache_path);
  bool found = blob != NULL, last = false;
  int result = found ? same_spans(blob, span_path, error)
                     : blob_create(span_path, cache_path, map_path, &blob, error);
  if (result == 0 && !found) publish(blob);
  if (result != 0 && found) last = blob_put_locked(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(blob);
  if (result == 0) *out = blob;
  return result;
}

int blob_replace(struct blob *blob, const char *source_path, const char *map_path) {
  pthread_mutex_lock(&open_lock);
  struct blob *living = blob_find(blob->cache_path);
  bool last = living != NULL && blob_put_locked(living);
  int result = living != NULL ? -EBUSY : map_open(blob, map_path, true);
  /* The map names the source's inode: until that stands at the cache's path, whoever opens it believes nothing. */
  if (result == 0) result = map_fill(blob);
  if (result == 0 && rename(source_path, blob->cache_path) != 0) result = -errno;
  if (result == 0) publish(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(living);
  return result;
}
