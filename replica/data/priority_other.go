//go:build !linux

package data

// yieldCores does nothing where a thread has no priority of its own.
func yieldCores(int) {}
