/* A parked request, for miss.c, which answers it, and deadline.c, which ends its waiting. */
#ifndef OCI_NODE_PARKED_H
#define OCI_NODE_PARKED_H

#include "oci.h"

struct parked {
  TAILQ_ENTRY(parked) of_blob, of_all;
  uint64_t id;
  struct fuse_req *req;
  struct session *session;
  struct view *view;
  uint64_t offset;
  size_t length;
  uint32_t first, last;
  int64_t deadline_ns, patience_ns; /* patience: from the miss, or the last sign of progress, to the deadline at most */
  int error;
  uint32_t tries;
  uint64_t doubts; /* of the blob, from before its spans were found to be there */
  /* Spans that could not be stored: their bytes, in a picture of the range, and which they are. */
  uint8_t *picture;
  uint64_t *pictured;
};
TAILQ_HEAD(parked_queue, parked);
extern struct parked_queue all_parked; /* engine_lock */

/* Takes the request out of its lists and puts it into `answers`. */
void unpark_locked(struct parked *p, struct parked_list *answers, int error);
/* Replies to each and frees it; without engine_lock. */
void answer_parked(struct parked_list *answers);

/* ---- deadline.c ---- */
/* Sets the request's deadline. False: it must end at once, because what it waits for was given up a moment ago. */
bool deadline_begin_locked(struct parked *p);
/* Sees to it that a request with a deadline, parked again, is looked at in time. */
void deadline_watch_locked(const struct parked *p);

#endif
