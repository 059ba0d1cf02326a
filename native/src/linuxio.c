#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "oci.h"

struct start {
  void *(*run)(void *);
  void *argument;
};

/*
 * A thread that unmounts may hang in the kernel, unkillable, until a FUSE server answers. Should the process be killed
 * meanwhile, that server is us: its /dev/fuse descriptor closes, and the read fails, only when the last thread that
 * shares the table of descriptors is gone. So the thread that may hang must not share it.
 *
 * The price: on such a thread the doorbell is dumb, since JavaScript's event loop is woken through a descriptor.
 */
static pthread_key_t without_files;

__attribute__((constructor)) static void make_key(void) { pthread_key_create(&without_files, NULL); }

bool thread_is_without_files(void) { return pthread_getspecific(without_files) != NULL; }

static void *leave_files(void *argument) {
  struct start start = *(struct start *)argument;
  free(argument);
  if (unshare(CLONE_FILES) == 0) {
    pthread_setspecific(without_files, &without_files);
    syscall(SYS_close_range, 3u, ~0u, 0u);
  }
  return start.run(start.argument);
}

int spawn_detached_from_files(void *(*run)(void *), void *argument) {
  int error = ringer_start();
  if (error != 0) return error;
  struct start *start = malloc(sizeof *start);
  if (start == NULL) return ENOMEM;
  *start = (struct start){run, argument};
  error = spawn_thread(leave_files, start);
  if (error != 0) free(start);
  return error;
}

int write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = write(fd, text, strlen(text)) < 0 ? errno : 0;
  close(fd);
  return error;
}
