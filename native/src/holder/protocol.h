/*
 * What workers and the holder of their FUSE connections say to each other, version 1.
 *
 * The holder listens on the Unix socket HOLDER_SOCKET (SOCK_SEQPACKET, so a message is whole or not there) in the
 * worker's folder of mounts. It serves one connection at a time, and one after the other: while a worker's connection is
 * open the next one waits. The kernel closes it with the last thread that serves the worker's mounts, so whoever is
 * answered knows that nobody else reads from the descriptors that are held.
 *
 * The worker sends a request, then waits for its reply. All numbers are in the machine's byte order: both are on it.
 * A worker of any version says HELLO first, with the version that it speaks; a holder that does not know it replies
 * -EPROTONOSUPPORT with its own version, and closes. Layouts never change within a version.
 */
#ifndef OCI_HOLDER_PROTOCOL_H
#define OCI_HOLDER_PROTOCOL_H

#include <stdint.h>

#define HOLDER_SOCKET "holder.sock"

enum { HOLDER_VERSION = 1, HOLDER_MAGIC = 0x4f434948 /* "OCIH" */ };
enum { HOLDER_KEY = 32, HOLDER_INIT_MAX = 256, HOLDER_LIST_MAX = 64, HOLDER_HELD_MAX = 4096 };

enum holder_operation {
  HOLDER_HELLO = 1, /* argument: milliseconds without a worker after which all is closed */
  HOLDER_PUT = 2,   /* key, INIT request, and the connection's descriptor (SCM_RIGHTS). Replaces what the key had */
  HOLDER_TAKE = 3,  /* key; the reply has the INIT request and the descriptor, which stays held. -ENOENT */
  HOLDER_DROP = 4,  /* key; the descriptor is closed. -ENOENT */
  HOLDER_LIST = 5,  /* argument: how many to pass over; the reply has up to HOLDER_LIST_MAX keys */
  HOLDER_BYE = 6    /* the worker needs no holder any more: one that holds nothing ends */
};

struct holder_request {
  uint32_t magic, version, operation, argument;
  uint8_t key[HOLDER_KEY];
  uint32_t init_length;
  uint8_t init[HOLDER_INIT_MAX]; /* FUSE_INIT as the kernel sent it, header included */
};

struct holder_reply {
  uint32_t magic, version, operation;
  int32_t result; /* 0 or -errno; HOLDER_LIST: how many are held in all */
  uint32_t length; /* bytes of body */
  uint8_t body[HOLDER_LIST_MAX * HOLDER_KEY];
};

#endif
