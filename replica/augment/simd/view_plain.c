//go:build simd

#define VIEW mochi_view_plain
#include "view_body.h"
