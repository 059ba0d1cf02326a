#include "points.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define WINDOW_BYTES 32768
/* Level 6 takes 0.6 ms beside the 6 ms of inflating the 2 MiB before it and stores a tenth less than level 1 in 0.25 ms;
   level 9 takes 2.4 ms for one more hundredth. */
#define WINDOW_LEVEL 6
#define ZSTD_WINDOW_LOG_MAX 27

struct oci_points {
	int kind;
	int between; /* no member or frame has begun since the last one ended */
	uint64_t members;
	z_stream inflate;
	z_stream deflate;
	ZSTD_DStream *zstd;
	const char *problem;
	uint8_t window[WINDOW_BYTES];
};

void oci_points_close(struct oci_points *points)
{
	if (points == NULL)
		return;
	if (points->kind == OCI_POINTS_GZIP) {
		inflateEnd(&points->inflate);
		deflateEnd(&points->deflate);
	}
	ZSTD_freeDStream(points->zstd);
	free(points);
}

struct oci_points *oci_points_open(int kind)
{
	struct oci_points *points = calloc(1, sizeof(*points));

	if (points == NULL)
		return NULL;
	points->kind = kind;
	points->between = 1;
	points->problem = "";
	if (kind == OCI_POINTS_GZIP) {
		int made = inflateInit2(&points->inflate, 15 + 16) == Z_OK &&
			   deflateInit2(&points->deflate, WINDOW_LEVEL, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK;
		if (made)
			return points;
	} else {
		points->zstd = ZSTD_createDStream();
		if (points->zstd != NULL &&
		    !ZSTD_isError(ZSTD_DCtx_setParameter(points->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX)))
			return points;
	}
	oci_points_close(points);
	return NULL;
}

static int gzip_failure(struct oci_points *points, int code)
{
	points->problem = points->inflate.msg != NULL ? points->inflate.msg : "broken deflate data";
	return code == Z_MEM_ERROR ? OCI_POINTS_NO_MEMORY : OCI_POINTS_BAD_DATA;
}

static int step_gzip(struct oci_points *points, int stop_at_block, int *unused_bits)
{
	z_stream *stream = &points->inflate;

	for (;;) {
		if (stream->avail_in == 0 && points->between)
			return OCI_POINTS_INPUT;
		if (points->between && points->members > 0 && stream->next_in[0] != 0x1f)
			return OCI_POINTS_TRAILING;
		points->between = 0;

		int code = inflate(stream, stop_at_block ? Z_BLOCK : Z_NO_FLUSH);

		if (code == Z_STREAM_END) {
			points->members += 1;
			points->between = 1;
			if (inflateReset(stream) != Z_OK)
				return gzip_failure(points, Z_STREAM_ERROR);
			return OCI_POINTS_MEMBER_END;
		}
		if (code == Z_DATA_ERROR && points->members > 0 && stream->total_out == 0 && stream->total_in <= 2)
			return OCI_POINTS_TRAILING;
		if (code != Z_OK && code != Z_BUF_ERROR)
			return gzip_failure(points, code);
		if (stop_at_block && (stream->data_type & 128) != 0 && (stream->data_type & 64) == 0) {
			*unused_bits = stream->data_type & 7;
			return OCI_POINTS_BLOCK;
		}
		if (stream->avail_out == 0)
			return OCI_POINTS_OUTPUT;
		if (stream->avail_in == 0)
			return OCI_POINTS_INPUT;
	}
}

static int step_zstd(struct oci_points *points, ZSTD_inBuffer *in, ZSTD_outBuffer *out)
{
	while (in->pos < in->size || !points->between) {
		size_t consumed = in->pos;
		size_t produced = out->pos;
		size_t left;

		points->between = 0;
		left = ZSTD_decompressStream(points->zstd, out, in);
		if (ZSTD_isError(left)) {
			ZSTD_ErrorCode code = ZSTD_getErrorCode(left);

			points->problem = ZSTD_getErrorName(left);
			if (code == ZSTD_error_frameParameter_windowTooLarge)
				return OCI_POINTS_WINDOW_TOO_LARGE;
			return code == ZSTD_error_memory_allocation ? OCI_POINTS_NO_MEMORY : OCI_POINTS_BAD_DATA;
		}
		if (left == 0) {
			points->members += 1;
			points->between = 1;
			return OCI_POINTS_MEMBER_END;
		}
		if (out->pos == out->size)
			return OCI_POINTS_OUTPUT;
		if (in->pos == consumed && out->pos == produced)
			break;
	}
	return OCI_POINTS_INPUT;
}

void oci_points_step(struct oci_points *points, const uint8_t *in, size_t in_len, uint8_t *out,
			    size_t out_len, int stop_at_block, struct oci_points_result *result)
{
	memset(result, 0, sizeof(*result));
	if (points->kind == OCI_POINTS_GZIP) {
		int unused_bits = 0;

		points->inflate.next_in = (Bytef *)in;
		points->inflate.avail_in = (uInt)in_len;
		points->inflate.next_out = out;
		points->inflate.avail_out = (uInt)out_len;
		result->status = step_gzip(points, stop_at_block, &unused_bits);
		result->consumed = in_len - points->inflate.avail_in;
		result->produced = out_len - points->inflate.avail_out;
		result->unused_bits = unused_bits;
	} else {
		ZSTD_inBuffer from = { in, in_len, 0 };
		ZSTD_outBuffer to = { out, out_len, 0 };

		result->status = step_zstd(points, &from, &to);
		result->consumed = from.pos;
		result->produced = to.pos;
	}
}

int32_t oci_points_window(struct oci_points *points, uint8_t *out, size_t out_len, uint32_t *inflated)
{
	uInt length = 0;
	z_stream *stream = &points->deflate;

	*inflated = 0;
	if (points->kind != OCI_POINTS_GZIP || inflateGetDictionary(&points->inflate, points->window, &length) != Z_OK)
		return -1;
	if (length == 0)
		return 0;
	if (deflateReset(stream) != Z_OK)
		return -1;
	stream->next_in = points->window;
	stream->avail_in = length;
	stream->next_out = out;
	stream->avail_out = (uInt)out_len;
	if (deflate(stream, Z_FINISH) != Z_STREAM_END)
		return -1;
	*inflated = length;
	return (int32_t)(out_len - stream->avail_out);
}

const char *oci_points_problem(const struct oci_points *points)
{
	return points->problem;
}

int oci_points_limit_memory(uint64_t bytes)
{
	struct rlimit limit = { bytes, bytes };

	return setrlimit(RLIMIT_DATA, &limit) == 0 ? 0 : errno;
}
