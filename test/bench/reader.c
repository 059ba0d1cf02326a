// reader CACHED UNCACHED STOP
//
// Reads pages of two files until the file STOP is there, and compares each with what it has to hold: pages of CACHED at
// random, all the time, and every 700 ms the first page of the next 2 MiB of UNCACHED. Prints, in milliseconds,
// "cached AT TOOK" and "uncached AT TOOK" for each read that took more than 5, and at the end "READS ERRORS WRONG".
//
// reader make MEBIBYTES SEED   writes such a file to standard output
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { page = 4096, stride = 2 << 20, slow_ms = 5, pause_ns = 200000, uncached_pause_ms = 700 };

struct file {
  const char *name, *path;
  uint64_t seed;
  long reads, errors, wrong;
};
static const char *stop;
static pthread_mutex_t printing = PTHREAD_MUTEX_INITIALIZER;

static uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

static void fill(uint64_t *words, uint64_t seed, long index) {
  for (int i = 0; i < page / 8; i++) words[i] = mix(seed * 1000003 + (uint64_t)index * (page / 8) + (uint64_t)i);
}

static double now_ms(clockid_t clock) {
  struct timespec at;
  clock_gettime(clock, &at);
  return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static void read_page(struct file *file, int fd, long index) {
  uint64_t got[page / 8], wanted[page / 8];
  fill(wanted, file->seed, index);
  double begun = now_ms(CLOCK_MONOTONIC);
  long length = pread(fd, got, page, index * page);
  double took = now_ms(CLOCK_MONOTONIC) - begun;
  file->reads++;
  if (length != page) file->errors++;
  else if (memcmp(got, wanted, page) != 0) file->wrong++;
  if (took < slow_ms && length == page) return;
  pthread_mutex_lock(&printing);
  printf("%s %.1f %.1f%s\n", file->name, now_ms(CLOCK_REALTIME) - took, took, length == page ? "" : " FAILED");
  fflush(stdout);
  pthread_mutex_unlock(&printing);
}

static void *run(void *argument) {
  struct file *file = argument;
  struct stat st;
  int fd = open(file->path, O_RDONLY);
  if (fd < 0 || fstat(fd, &st) != 0) exit(2);
  posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  int cached = strcmp(file->name, "cached") == 0;
  uint64_t random = file->seed;
  for (long turn = 0; access(stop, F_OK) != 0; turn++) {
    random = mix(random);
    long pages = st.st_size / page;
    read_page(file, fd, cached ? (long)(random % (uint64_t)pages) : turn * (stride / page) % pages);
    struct timespec pause = {0, cached ? pause_ns : uncached_pause_ms * 1000000l};
    nanosleep(&pause, NULL);
  }
  return NULL;
}

static int make(long mebibytes, uint64_t seed) {
  uint64_t words[page / 8];
  for (long index = 0; index < mebibytes * (1 << 20) / page; index++) {
    fill(words, seed, index);
    if (fwrite(words, page, 1, stdout) != 1) return 1;
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  if (strcmp(argv[1], "make") == 0) return make(atol(argv[2]), strtoull(argv[3], NULL, 10));
  struct file files[] = {{.name = "cached", .path = argv[1], .seed = 1}, {.name = "uncached", .path = argv[2], .seed = 2}};
  pthread_t threads[2];
  stop = argv[3];
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, run, &files[i]);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  long errors = files[0].errors + files[1].errors, wrong = files[0].wrong + files[1].wrong;
  printf("%ld %ld %ld\n", files[0].reads + files[1].reads, errors, wrong);
  return errors + wrong == 0 ? 0 : 1;
}
