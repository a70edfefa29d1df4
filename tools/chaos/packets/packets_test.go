package packets_test

import (
	"encoding/binary"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mochi/tools/chaos/packets"
)

// ends are a cable between two devices, and the ends that a test holds.
func ends(t *testing.T) (c *packets.Cable, a, b *os.File) {
	t.Helper()
	pair := func() (*os.File, *os.File) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	}
	a, first := pair()
	b, second := pair()
	c = packets.Join(first, second, 1)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		a.Close()
		b.Close()
	})
	return c, a, b
}

func send(t *testing.T, f *os.File, n int) {
	t.Helper()
	if _, err := f.Write(binary.BigEndian.AppendUint32(nil, uint32(n))); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, f *os.File) int {
	t.Helper()
	buffer := make([]byte, 100)
	n, err := f.Read(buffer)
	if err != nil || n != 4 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	return int(binary.BigEndian.Uint32(buffer))
}

// Packets arrive whole and in order, in both directions, late in a delay; what is
// sent into a cut is lost, and only in its direction.
func TestCable(t *testing.T) {
	c, a, b := ends(t)
	for i := range 100 {
		send(t, a, i)
		send(t, b, -i&0xffff)
	}
	for i := range 100 {
		if n, m := receive(t, b), receive(t, a); n != i || m != -i&0xffff {
			t.Fatalf("%d and %d, not %d", n, m, i)
		}
	}
	c.Set(false, packets.Weather{Cut: true})
	send(t, a, 1)
	send(t, b, 2)
	if n := receive(t, a); n != 2 {
		t.Errorf("%d, against a cut of the other direction", n)
	}
	c.Set(false, packets.Weather{Delay: 30 * time.Millisecond})
	began := time.Now()
	// The first one may still be lost: it was sent during the cut, and is taken
	// when the cable gets to it. Those after it are not.
	send(t, a, 3)
	n := receive(t, b)
	if n == 1 {
		n = receive(t, b)
	}
	if took := time.Since(began); n != 3 || took < 30*time.Millisecond {
		t.Errorf("%d after %v", n, took)
	}
}

// As much is lost as was asked for.
func TestLoss(t *testing.T) {
	c, a, b := ends(t)
	c.Set(false, packets.Weather{Loss: 0.25})
	const all = 4000
	arrived := make(chan int)
	go func() {
		got := 0
		for receive(t, b) != all {
			got++
		}
		arrived <- got
	}()
	for i := range all {
		send(t, a, i)
	}
	c.Set(false, packets.Weather{})
	send(t, a, all)
	if got := <-arrived; got < all*7/10 || got > all*8/10 {
		t.Errorf("%d of %d arrived", got, all)
	}
}
