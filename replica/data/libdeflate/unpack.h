#include <stddef.h>
#include <stdint.h>

// mochi_unpack unpacks a raw DEFLATE stream that holds exactly size bytes: 0, or what
// libdeflate says is wrong, or -1 without memory.
int mochi_unpack(const uint8_t *in, size_t len, uint8_t *out, size_t size);

// mochi_unfilter undoes PNG's filters, in place. rows: h rows of 1 + stride bytes, a
// row of zeros of stride bytes before them and 8 bytes of any value behind them; a
// pixel has bpp bytes. -1: a filter that there is not.
int mochi_unfilter(uint8_t *rows, size_t stride, size_t h, size_t bpp);
