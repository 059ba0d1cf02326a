/*
 * The indexer's decompressor: inflates a gzip or zstd layer step by step and tells where a reader may begin again.
 * It knows nothing of tar and keeps nothing of the output; src/index decides where spans are cut.
 */
#ifndef OCI_POINTS_H
#define OCI_POINTS_H

#include <stddef.h>
#include <stdint.h>

enum oci_points_kind { OCI_POINTS_GZIP = 1, OCI_POINTS_ZSTD = 2 };

enum oci_points_status {
	OCI_POINTS_INPUT = 0,      /* all input is consumed: give more */
	OCI_POINTS_OUTPUT = 1,     /* the output buffer is full: call again */
	OCI_POINTS_BLOCK = 2,      /* asked for only: a deflate block that is not a member's last ended here */
	OCI_POINTS_MEMBER_END = 3, /* a gzip member or zstd frame ended here, checksum verified */
	OCI_POINTS_TRAILING = 4,   /* what follows the last gzip member is none: the rest is not ours */
	OCI_POINTS_BAD_DATA = -1,
	OCI_POINTS_NO_MEMORY = -2,
	OCI_POINTS_WINDOW_TOO_LARGE = -3 /* a zstd frame asks for more than 128 MiB of window */
};

/* Filled by oci_points_step; 32 bytes. */
struct oci_points_result {
	uint64_t consumed;
	uint64_t produced;
	int32_t status;
	int32_t unused_bits; /* BLOCK: how many high bits of the last consumed byte belong to the next block (0 … 7) */
	uint64_t reserved;
};

struct oci_points;

struct oci_points *oci_points_open(int kind);
void oci_points_close(struct oci_points *points);

/* Inflates from in[0 … in_len) to out[0 … out_len) until something in enum oci_points_status happens. */
void oci_points_step(struct oci_points *points, const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len,
		     int stop_at_block, struct oci_points_result *result);

/* After BLOCK: the up to 32 KiB of output before it, as raw deflate, to out (≥ 40 KiB). Returns the stored length and
 * sets *inflated; 0 when there is no output before; -1 on failure. */
int32_t oci_points_window(struct oci_points *points, uint8_t *out, size_t out_len, uint32_t *inflated);

/* After BAD_DATA: what zlib or zstd said. Static text. */
const char *oci_points_problem(const struct oci_points *points);

/* Bounds this process's writable private memory (RLIMIT_DATA). Returns 0 or an errno. */
int oci_points_limit_memory(uint64_t bytes);

#endif
