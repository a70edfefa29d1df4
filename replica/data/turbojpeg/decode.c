//go:build turbojpeg

#include "decode.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

// Progressive files may hold any number of scans over one image; decoders
// without a limit can be kept busy for hours by a few kilobytes.
enum { max_scans = 500 };

// Beyond the region's edge libjpeg upsamples colour as if the image ended
// there. Two columns are enough to keep that outside; eight keep alignment.
enum { margin = 8 };

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#ifndef LIBJPEG_TURBO_VERSION
#define LIBJPEG_TURBO_VERSION unknown
#endif
const char *mochi_jpeg_version(void) { return TEXT(LIBJPEG_TURBO_VERSION); }

struct decoder {
	struct jpeg_decompress_struct info;
	struct jpeg_error_mgr errors;
	struct jpeg_progress_mgr progress;
	struct jpeg_source_mgr source;
	jmp_buf failed;
	char *message; // of message_len bytes
	int unended;   // the file had no end mark: it was given one
};

static void fail(j_common_ptr info) {
	struct decoder *d = (struct decoder *)info->client_data;
	char text[JMSG_LENGTH_MAX];
	info->err->format_message(info, text);
	snprintf(d->message, message_len, "%s", text);
	longjmp(d->failed, 1);
}

// Damage that libjpeg papers over with grey is an error here, as it is for
// Go's decoder; oddities of a header are not.
static void emit(j_common_ptr info, int level) {
	if (level >= 0) return;
	struct decoder *d = (struct decoder *)info->client_data;
	if (d->unended && info->err->msg_code == JWRN_HIT_MARKER) {
		snprintf(d->message, message_len, "the file is cut short");
		longjmp(d->failed, 1);
	}
	switch (info->err->msg_code) {
	case JWRN_ARITH_BAD_CODE:
	case JWRN_HIT_MARKER:
	case JWRN_HUFF_BAD_CODE:
	case JWRN_JPEG_EOF:
	case JWRN_MUST_RESYNC:
	case JWRN_NOT_SEQUENTIAL:
		fail(info);
	}
}

static void refuse_many_scans(j_common_ptr info) {
	j_decompress_ptr in = (j_decompress_ptr)info;
	if (in->input_scan_number > max_scans) {
		struct decoder *d = (struct decoder *)info->client_data;
		snprintf(d->message, message_len, "more than %d scans", max_scans);
		longjmp(d->failed, 1);
	}
}

static void nothing(j_decompress_ptr info) { (void)info; }

static void cut_short(j_decompress_ptr info) {
	struct decoder *d = (struct decoder *)info->client_data;
	snprintf(d->message, message_len, "the file is cut short");
	longjmp(d->failed, 1);
}

// ended gives a file that ends the mark that it lacks, once. Where pixels are missing
// libjpeg warns that it met the mark too early.
static boolean ended(j_decompress_ptr info) {
	static const JOCTET mark[2] = {0xff, JPEG_EOI};
	struct decoder *d = (struct decoder *)info->client_data;
	if (d->unended) cut_short(info);
	d->unended = 1;
	info->src->next_input_byte = mark;
	info->src->bytes_in_buffer = sizeof mark;
	return TRUE;
}

static void skip(j_decompress_ptr info, long n) {
	if (n <= 0) return;
	if ((unsigned long)n > info->src->bytes_in_buffer) cut_short(info);
	info->src->next_input_byte += n;
	info->src->bytes_in_buffer -= n;
}

// cmyk_row converts a row to RGB as PIL does, which takes every file for one
// of Adobe's: 255 is no ink.
static void cmyk_row(const uint8_t *in, uint8_t *out, int n) {
	for (int i = 0; i < n; i++) {
		unsigned white = in[4 * i + 3];
		for (int c = 0; c < 3; c++) {
			unsigned t = (255 - in[4 * i + c]) * white + 128;
			out[3 * i + c] = white - ((t + (t >> 8)) >> 8);
		}
	}
}

static void read_rows(j_decompress_ptr info, JDIMENSION bottom, uint8_t *row, size_t stride) {
	while (info->output_scanline < bottom) {
		JSAMPROW rows[4];
		JDIMENSION n = bottom - info->output_scanline;
		if (n > 4) n = 4;
		for (JDIMENSION i = 0; i < n; i++) rows[i] = row + i * stride;
		row += stride * jpeg_read_scanlines(info, rows, n);
	}
}

static void read_rgb(j_decompress_ptr info, const struct region *r, uint8_t *pix) {
	size_t stride = (size_t)info->image_width * 3;
	JDIMENSION left = 0, width = info->image_width;
	if (r->width < (int)width) {
		int from = r->left > margin ? r->left - margin : 0;
		int to = r->left + r->width + margin;
		left = from;
		width = (to < (int)info->image_width ? to : (int)info->image_width) - from;
		jpeg_crop_scanline(info, &left, &width);
	}
	if (r->top > 0) jpeg_skip_scanlines(info, r->top);
	JDIMENSION bottom = r->top + r->height;
	read_rows(info, bottom, pix + r->top * stride + left * 3, stride);
	// The rest is only parsed, so that a damaged file is one whatever region
	// is wanted. (To skip the last row as well would end the parsing, too.)
	if (bottom == info->output_height) return;
	jpeg_skip_scanlines(info, info->output_height - 1 - bottom);
	read_rows(info, info->output_height, pix + (info->output_height - 1) * stride + left * 3, stride);
}

static void read_cmyk(j_decompress_ptr info, uint8_t *pix) {
	JSAMPARRAY line = info->mem->alloc_sarray((j_common_ptr)info, JPOOL_IMAGE, info->image_width * 4, 1);
	while (info->output_scanline < info->output_height) {
		uint8_t *out = pix + (size_t)info->output_scanline * info->image_width * 3;
		jpeg_read_scanlines(info, line, 1);
		cmyk_row(line[0], out, info->image_width);
	}
}

int mochi_jpeg_decode(const uint8_t *content, size_t len, int w, int h, struct region r, uint8_t *pix, char *message) {
	struct decoder d;
	memset(&d, 0, sizeof d);
	d.message = message;
	d.info.err = jpeg_std_error(&d.errors);
	d.errors.error_exit = fail;
	d.errors.emit_message = emit;
	d.info.client_data = &d;
	// A new decompressor for each image: one that is used again keeps the
	// tables of the image before, and a file that lacks its own would decode
	// by luck. It costs 3 µs.
	if (setjmp(d.failed)) {
		jpeg_destroy_decompress(&d.info);
		return -1;
	}
	jpeg_create_decompress(&d.info);
	d.source.next_input_byte = content;
	d.source.bytes_in_buffer = len;
	d.source.init_source = nothing;
	d.source.fill_input_buffer = ended;
	d.source.skip_input_data = skip;
	d.source.resync_to_restart = jpeg_resync_to_restart;
	d.source.term_source = nothing;
	d.info.src = &d.source;
	d.progress.progress_monitor = refuse_many_scans;
	d.info.progress = &d.progress;

	jpeg_read_header(&d.info, TRUE);
	if ((int)d.info.image_width != w || (int)d.info.image_height != h) {
		snprintf(message, message_len, "the header says %dx%d, then %ux%u", w, h, d.info.image_width, d.info.image_height);
		longjmp(d.failed, 1);
	}
	int four = d.info.num_components == 4;
	d.info.out_color_space = four ? JCS_CMYK : JCS_RGB;
	jpeg_start_decompress(&d.info);
	if (four) {
		read_cmyk(&d.info, pix);
	} else {
		read_rgb(&d.info, &r, pix);
	}
	jpeg_finish_decompress(&d.info);
	jpeg_destroy_decompress(&d.info);
	return d.unended;
}
