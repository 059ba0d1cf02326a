/*
 * A small fuzzer guided by coverage: mutates inputs, keeps those that reach code that none before reached. gcc alone is
 * needed: it calls __sanitizer_cov_trace_pc at every edge of the files under test. The sanitizers end the process; the
 * input at work then stands in the file `current`, for whoever started this.
 *
 *   fuzz TARGET SEED SECONDS COUNT FOLDER      FOLDER holds seeds/ and gets current; prints the number of executions
 *   fuzz TARGET --replay FILE FOLDER
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

enum { COVERAGE = 1 << 16, CORPUS_MAX = 4096, INPUT_MAX = 1 << 21 };

struct entry {
  uint8_t *bytes;
  size_t length;
};

static const struct fuzz_target *const targets[] = {&decode_target, &points_target, &map_target, &engine_target};
static uint8_t hit[COVERAGE], seen[COVERAGE];
static struct entry corpus[CORPUS_MAX];
static size_t corpus_count;
static uint32_t driver_state, input_state;

void __sanitizer_cov_trace_pc(void) {
  uintptr_t pc = (uintptr_t)__builtin_return_address(0);
  hit[(pc ^ (pc >> 16)) % COVERAGE] = 1;
}

/* mulberry32 */
static uint32_t next_random(uint32_t *state) {
  uint32_t mixed = *state += 0x6d2b79f5u;
  mixed = (mixed ^ (mixed >> 15)) * (mixed | 1);
  mixed ^= mixed + (mixed ^ (mixed >> 7)) * (mixed | 61);
  return mixed ^ (mixed >> 14);
}

static uint32_t pick(uint32_t below) { return below == 0 ? 0 : next_random(&driver_state) % below; }

uint32_t fuzz_random(uint32_t below) { return below == 0 ? 0 : next_random(&input_state) % below; }

void fuzz_promise(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "broken promise: %s\n", what);
  abort();
}

uint8_t *fuzz_copy(const uint8_t *bytes, size_t length) {
  uint8_t *copy = malloc(length > 0 ? length : 1);
  if (copy == NULL) abort();
  if (length > 0) memcpy(copy, bytes, length);
  return copy;
}

int fuzz_layer_of(const uint8_t *input, size_t length, struct fuzz_layer *out) {
  uint32_t spans;
  if (length < sizeof spans) return 0;
  memcpy(&spans, input, sizeof spans);
  if (spans > length - sizeof spans) return 0;
  *out = (struct fuzz_layer){input + sizeof spans, input + sizeof spans + spans, spans, length - sizeof spans - spans};
  return 1;
}

void fuzz_write_file(const char *path, const uint8_t *bytes, size_t length) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) abort();
  for (size_t done = 0; done < length;) {
    ssize_t written = write(fd, bytes + done, length - done);
    if (written <= 0) abort();
    done += (size_t)written;
  }
  close(fd);
}

static int keep(const uint8_t *bytes, size_t length) {
  if (corpus_count == CORPUS_MAX) return 0;
  corpus[corpus_count++] = (struct entry){fuzz_copy(bytes, length), length};
  return 1;
}

static uint8_t *read_file(const char *path, size_t *length) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) != 0) abort();
  uint8_t *bytes = malloc((size_t)st.st_size + 1);
  if (bytes == NULL || read(fd, bytes, (size_t)st.st_size) != st.st_size) abort();
  close(fd);
  *length = (size_t)st.st_size;
  return bytes;
}

static int is_name(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void load_seeds(const char *folder) {
  struct dirent **names;
  int count = scandir(folder, &names, is_name, alphasort);
  for (int i = 0; i < count; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
    size_t length;
    uint8_t *bytes = read_file(path, &length);
    if (length <= INPUT_MAX) keep(bytes, length);
    free(bytes);
    free(names[i]);
  }
  if (count > 0) free(names);
}

static const uint64_t borders[] = {0, 1, 7, 8, 255, 4095, 4096, 4097, 32768, 65535, 65536, 1u << 30, UINT32_MAX,
                                   1ull << 32, 1ull << 50, INT64_MAX, UINT64_MAX};

/* Half of the places lie in the first kilobyte, where headers are. */
static size_t place(size_t length) {
  size_t reach = pick(2) == 0 && length > 1024 ? 1024 : length;
  return pick((uint32_t)reach);
}

static size_t mutate_once(uint8_t *bytes, size_t length) {
  if (length == 0) {
    bytes[0] = (uint8_t)pick(256);
    return 1;
  }
  size_t at = place(length), width = (size_t)1 << pick(4), piece = 1 + pick(64);
  uint64_t number = borders[pick(sizeof borders / sizeof borders[0])];
  switch (pick(9)) {
  case 0: bytes[at] ^= (uint8_t)(1u << pick(8)); return length;
  case 1: bytes[at] = (uint8_t)pick(256); return length;
  case 2: bytes[at] = (uint8_t)(bytes[at] + pick(33) - 16); return length;
  case 3:
  case 4:
    at -= at % 4;
    if (at + width <= length) memcpy(bytes + at, &number, width);
    return length;
  case 5: return at;
  case 6:
    if (at + piece > length) return length;
    memmove(bytes + at, bytes + at + piece, length - at - piece);
    return length - piece;
  case 7:
    if (length + piece > INPUT_MAX || at + piece > length) return length;
    memmove(bytes + at + piece, bytes + at, length - at);
    return length + piece;
  default: {
    const struct entry *other = &corpus[pick((uint32_t)corpus_count)];
    if (other->length == 0) return length;
    size_t from = place(other->length), room = length - at;
    piece = piece * 8 < room ? piece * 8 : room;
    if (piece > other->length - from) piece = other->length - from;
    memcpy(bytes + at, other->bytes + from, piece);
    return length;
  }
  }
}

/* Whether the input reached code that none before reached. */
static int run_one(const struct fuzz_target *target, const uint8_t *bytes, size_t length) {
  memset(hit, 0, sizeof hit);
  input_state = (uint32_t)length;
  uint8_t *copy = fuzz_copy(bytes, length);
  target->run(copy, length);
  free(copy);
  int fresh = 0;
  for (size_t i = 0; i < COVERAGE; i++) {
    fresh |= hit[i] & ~seen[i];
    seen[i] |= hit[i];
  }
  return fresh;
}

/* The input at work, in a file: its length, then its bytes. */
static uint8_t *map_current(const char *folder) {
  char path[4096];
  snprintf(path, sizeof path, "%s/current", folder);
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  size_t size = sizeof(uint64_t) + INPUT_MAX + 64;
  if (fd < 0 || ftruncate(fd, (off_t)size) != 0) abort();
  void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (map == MAP_FAILED) abort();
  return map;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static uint64_t campaign(const struct fuzz_target *target, double seconds, uint64_t count, const char *folder) {
  uint8_t *current = map_current(folder), *bytes = current + sizeof(uint64_t);
  uint64_t done = 0;
  double end = now() + seconds;
  size_t seeds = corpus_count;
  for (; done < count && now() < end; done++) {
    /* Each seed as it is, then mutations; what was found last is tried more often. */
    size_t base = done < seeds ? (size_t)done
                  : pick(2)    ? pick((uint32_t)corpus_count)
                               : corpus_count - 1 - pick((uint32_t)(corpus_count < 16 ? corpus_count : 16));
    size_t length = corpus[base].length;
    memcpy(bytes, corpus[base].bytes, length);
    if (done >= seeds)
      for (uint32_t left = 1 + pick(5); left > 0; left--) length = mutate_once(bytes, length);
    memcpy(current, &(uint64_t){length}, sizeof(uint64_t));
    if (run_one(target, bytes, length) && done >= seeds) keep(bytes, length);
  }
  return done;
}

static const struct fuzz_target *find_target(const char *name) {
  for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
    if (strcmp(targets[i]->name, name) == 0) return targets[i];
  return NULL;
}

static const char *work_folder(const char *folder) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/work", folder);
  if (mkdir(path, 0700) != 0) abort();
  return path;
}

int main(int argc, char **argv) {
  const struct fuzz_target *target = argc > 1 ? find_target(argv[1]) : NULL;
  if (target != NULL && argc == 5 && strcmp(argv[2], "--replay") == 0) {
    size_t length;
    uint8_t *bytes = read_file(argv[3], &length);
    target->start(work_folder(argv[4]));
    run_one(target, bytes, length);
    free(bytes);
    printf("1\n");
    return 0;
  }
  if (target == NULL || argc != 6) {
    fprintf(stderr, "usage: fuzz TARGET SEED SECONDS COUNT FOLDER | fuzz TARGET --replay FILE FOLDER\n");
    return 2;
  }
  driver_state = (uint32_t)strtoul(argv[2], NULL, 10);
  char seeds[4096];
  snprintf(seeds, sizeof seeds, "%s/seeds", argv[5]);
  load_seeds(seeds);
  if (corpus_count == 0) keep((const uint8_t *)"", 0);
  target->start(work_folder(argv[5]));
  printf("%llu\n", (unsigned long long)campaign(target, atof(argv[3]), strtoull(argv[4], NULL, 10), argv[5]));
  return 0;
}
