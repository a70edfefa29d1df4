package data

import (
	"runtime"
	"syscall"
)

// yieldCores makes the calling goroutine's thread, which no other goroutine
// will use, give way to threads of normal priority: on Linux the nice value
// belongs to a thread. It stays nice to the thread's end. Where it is not
// allowed, nothing changes.
func yieldCores(nice int) {
	runtime.LockOSThread()
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), nice)
}
