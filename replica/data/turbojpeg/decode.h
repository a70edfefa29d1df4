// What decode.c offers to Go.
#ifndef MOCHI_TURBOJPEG_DECODE_H
#define MOCHI_TURBOJPEG_DECODE_H

#include <stddef.h>
#include <stdint.h>

enum { message_len = 200 };

struct region {
	int top, left, height, width;
};

// mochi_jpeg_decode decodes len bytes of JPEG, an image of w×h pixels by its
// header, into pix [h, w, 3]. Pixels outside the region are left as they were
// or decoded too. It returns 0, 1 where the file ends without an
// end mark and all pixels of its last scan are there, or -1 with a message.
int mochi_jpeg_decode(const uint8_t *content, size_t len, int w, int h, struct region r, uint8_t *pix, char *message);

// mochi_jpeg_version is that of the headers.
const char *mochi_jpeg_version(void);

#endif
