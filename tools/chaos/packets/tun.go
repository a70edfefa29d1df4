package packets

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Device makes a TUN device in a network namespace, whose packets the caller
// reads and writes. It is gone when the file is closed. It needs root.
func Device(namespace, name string) (*os.File, error) {
	type answer struct {
		file *os.File
		err  error
	}
	answers := make(chan answer)
	go func() {
		// The thread is in the namespace from here on; it ends with this goroutine.
		runtime.LockOSThread()
		f, err := device(namespace, name)
		answers <- answer{f, err}
	}()
	a := <-answers
	if a.err != nil {
		return nil, fmt.Errorf("make the network device %s in %s: %w", name, namespace, a.err)
	}
	return a.file, nil
}

// device makes it on a thread that nothing else uses.
func device(namespace, name string) (*os.File, error) {
	ns, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter the namespace: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		_ = unix.Close(fd) // the first error counts
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil // non-blocking: reads end when it is closed
}
