//go:build !linux

package allreduce

// wantLargePages: only Linux is asked.
func wantLargePages([]float32) {}
