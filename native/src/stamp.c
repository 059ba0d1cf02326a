/*
 * Whether the cache file is still as we left it. Between our own writes its stamp (size, times, blocks) stands still, so
 * that anybody else's write, cut or extension is seen by one fstat per read, and what the file holds is then proved anew
 * before it is served. While we write ourselves the times move; only lost blocks and a lost end are seen then.
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci.h"

static int64_t ns_of(struct timespec ts) { return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec; }

int stamp_take(const struct blob *blob, struct stamp *stamp) {
  struct stat st;
  if (fstat(blob->cache_fd, &st) != 0) return -errno;
  *stamp = (struct stamp){st.st_size, ns_of(st.st_mtim), ns_of(st.st_ctim), st.st_blocks};
  return 0;
}

void stamp_keep_locked(struct blob *blob, const struct stamp *stamp) {
  atomic_store(&blob->kept_mtime_ns, stamp->mtime_ns);
  atomic_store(&blob->kept_ctime_ns, stamp->ctime_ns);
  atomic_store(&blob->kept_blocks, stamp->blocks);
}

bool stamp_is_kept(const struct blob *blob, const struct stamp *stamp) {
  /* Not the blocks: file systems add and merge them when they write back. */
  return stamp->size == (int64_t)blob->spans.header->blob_size && stamp->mtime_ns == atomic_load(&blob->kept_mtime_ns) &&
         stamp->ctime_ns == atomic_load(&blob->kept_ctime_ns);
}

/* Nothing of the file is believed any more, but what it lacks is still known to be missing. */
static void disbelieve_locked(struct blob *blob) {
  uint32_t count = blob->spans.header->span_count, present = 0, unproved = 0;
  for (uint32_t s = 0; s < count; s++) {
    uint64_t bit = 1ull << (s % 64);
    if (blob_is_stored(blob, s)) {
      atomic_fetch_and(&blob->bits[s / 64], ~bit);
      unproved++;
    } else if (blob_has(blob, s)) present++;
  }
  atomic_store(&blob->present, present);
  atomic_store(&blob->unproved, unproved);
  blob->generation++;
  blob->stale = true;
  /* Before the new stamp is kept: a reader who finds the file unchanged by that finds the doubt too. */
  atomic_fetch_add(&blob->doubts, 1);
  uint64_t size = blob->spans.header->blob_size;
  struct stamp stamp;
  if (stamp_take(blob, &stamp) != 0) return;
  if ((uint64_t)stamp.size != size && ftruncate(blob->cache_fd, (off_t)size) == 0) stamp_take(blob, &stamp);
  stamp_keep_locked(blob, &stamp);
}

/* ext4 moves blocks from one count to another while it writes back, and a look may fall between the two. */
static bool has_lost_blocks(const struct blob *blob, struct stamp *stamp) {
  int64_t kept = atomic_load(&blob->kept_blocks);
  return stamp->blocks < kept && (stamp_take(blob, stamp) != 0 || stamp->blocks < kept);
}

bool stamp_look_locked(struct blob *blob) {
  struct stamp stamp;
  bool writing = atomic_load(&blob->writing);
  bool changed = stamp_take(blob, &stamp) != 0 || (uint64_t)stamp.size != blob->spans.header->blob_size ||
                 (writing ? has_lost_blocks(blob, &stamp) : !stamp_is_kept(blob, &stamp));
  if (changed) disbelieve_locked(blob);
  else if (!writing) stamp_keep_locked(blob, &stamp);
  return changed;
}

void blob_look(struct blob *blob) {
  pthread_mutex_lock(&blob->map_lock);
  stamp_look_locked(blob);
  pthread_mutex_unlock(&blob->map_lock);
}

uint64_t blob_commit_begin(struct blob *blob) {
  pthread_mutex_lock(&blob->write_lock);
  pthread_mutex_lock(&blob->map_lock);
  stamp_look_locked(blob);
  map_mark_dirty_locked(blob);
  atomic_store(&blob->writing, true);
  atomic_fetch_add(&blob->activity, 1);
  uint64_t doubts = atomic_load(&blob->doubts);
  pthread_mutex_unlock(&blob->map_lock);
  return doubts;
}

static void store_locked(struct blob *blob, uint32_t span, uint32_t check, bool sure) {
  bool had = blob_has(blob, span), was_stored = blob_is_stored(blob, span);
  blob->generation++;
  map_set_locked(blob, span, check);
  if (had) return;
  if (!sure) {
    /* The file was changed while the span was written, which may have met it too: it is proved like the others. */
    if (!was_stored) atomic_fetch_add(&blob->unproved, 1);
    return;
  }
  atomic_fetch_or_explicit(&blob->bits[span / 64], 1ull << (span % 64), memory_order_release);
  atomic_fetch_add(&blob->present, 1);
  if (was_stored) atomic_fetch_sub(&blob->unproved, 1);
}

void blob_commit_end(struct blob *blob, uint64_t doubts, uint32_t span, bool stored, uint32_t check) {
  pthread_mutex_lock(&blob->map_lock);
  struct stamp stamp;
  if (stamp_take(blob, &stamp) == 0) {
    /* Our own writes only add blocks. */
    if ((uint64_t)stamp.size != blob->spans.header->blob_size || has_lost_blocks(blob, &stamp)) disbelieve_locked(blob);
    else stamp_keep_locked(blob, &stamp);
  }
  if (stored) store_locked(blob, span, check, atomic_load(&blob->doubts) == doubts);
  atomic_fetch_add(&blob->activity, 1);
  atomic_store(&blob->writing, false);
  bool complete = stored && atomic_load(&blob->present) == blob->spans.header->span_count;
  pthread_mutex_unlock(&blob->map_lock);
  pthread_mutex_unlock(&blob->write_lock);
  /* Marked clean now, it need not be read through after a crash of this process. */
  if (complete) blob_sync_soon(blob);
}

/* One look without a lock, for the hit path. What is written meanwhile by ourselves makes it a weaker one. */
static bool looks_changed(const struct blob *blob) {
  uint32_t activity = atomic_load(&blob->activity);
  bool busy = atomic_load(&blob->writing);
  struct stamp stamp;
  if (stamp_take(blob, &stamp) != 0 || (uint64_t)stamp.size != blob->spans.header->blob_size) return true;
  if (stamp_is_kept(blob, &stamp)) return false;
  busy = busy || atomic_load(&blob->writing) || atomic_load(&blob->activity) != activity;
  return !busy || stamp.blocks < atomic_load(&blob->kept_blocks);
}

int blob_read_sure(struct blob *blob, uint64_t doubts, uint8_t *out, uint64_t offset, size_t length) {
  int error = blob_read(blob, out, offset, length);
  if (error == 0 && !looks_changed(blob)) return atomic_load(&blob->doubts) == doubts ? 0 : ESTALE;
  pthread_mutex_lock(&blob->map_lock);
  bool changed = stamp_look_locked(blob);
  if (error != 0 && !changed) disbelieve_locked(blob); /* the disk gives an error: what it holds is fetched again */
  pthread_mutex_unlock(&blob->map_lock);
  if (changed || error != 0) pool_start();
  return changed || error != 0 || atomic_load(&blob->doubts) != doubts ? ESTALE : 0;
}
