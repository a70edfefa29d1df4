// Package packets is a bad network in user space, of whole packets: the cable
// between two network devices, whose weather is set for each direction while it
// runs. It does what netem does, on kernels that lack it: what is lost is lost,
// and TCP and UDP see it as they would on a wire.
package packets

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// Weather is what happens to packets in one direction. The zero value is a good
// network.
type Weather struct {
	Cut   bool          // nothing arrives
	Loss  float64       // of packets, 0…1
	Delay time.Duration //
}

// Limits of a cable.
const (
	largest = 1 << 16 // bytes of a packet
	queued  = 1 << 12 // packets under way in one direction; what comes beside them is lost
)

// Cable joins two devices: a read gives one packet, a write takes one. It owns
// them; Close closes both.
type Cable struct {
	lanes [2]*lane // from the first to the second, and back
	wg    sync.WaitGroup
}

// Join connects two devices, in good weather. The seed draws what is lost.
func Join(a, b io.ReadWriteCloser, seed uint64) *Cable {
	c := &Cable{}
	for i, ends := range [2][2]io.ReadWriteCloser{{a, b}, {b, a}} {
		l := &lane{from: ends[0], to: ends[1], under: make(chan packet, queued), random: rand.New(rand.NewPCG(seed, uint64(i)))}
		c.lanes[i] = l
		c.wg.Go(l.take)
		c.wg.Go(l.deliver)
	}
	return c
}

// Set changes the weather: back is that from the second device to the first.
func (c *Cable) Set(back bool, w Weather) {
	l := c.lanes[0]
	if back {
		l = c.lanes[1]
	}
	l.mu.Lock()
	l.weather = w
	l.mu.Unlock()
}

// Close closes both devices. What is under way is lost.
func (c *Cable) Close() error {
	err := errors.Join(c.lanes[0].from.Close(), c.lanes[1].from.Close())
	c.wg.Wait()
	return err
}

// lane is one direction.
type lane struct {
	from, to io.ReadWriteCloser
	under    chan packet // on their way, in order

	mu      sync.Mutex
	weather Weather
	random  *rand.Rand
}

type packet struct {
	due  time.Time
	data []byte
}

// take reads packets until the device is closed.
func (l *lane) take() {
	defer close(l.under)
	buffer := make([]byte, largest)
	for {
		n, err := l.from.Read(buffer)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // the device is down for a moment; not in a busy loop
			continue
		}
		l.mu.Lock()
		w := l.weather
		lost := w.Cut || w.Loss > 0 && l.random.Float64() < w.Loss
		l.mu.Unlock()
		if lost {
			continue
		}
		select {
		case l.under <- packet{time.Now().Add(w.Delay), append([]byte(nil), buffer[:n]...)}:
		default:
		}
	}
}

// deliver writes packets when they are due. One that the device does not take is
// lost.
func (l *lane) deliver() {
	for p := range l.under {
		if wait := time.Until(p.due); wait > 0 {
			time.Sleep(wait)
		}
		_, _ = l.to.Write(p.data)
	}
}
