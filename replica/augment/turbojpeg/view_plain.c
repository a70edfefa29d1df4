//go:build turbojpeg

#define VIEW mochi_view_plain
#include "view_body.h"
