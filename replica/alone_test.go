package replica_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mochi/coordinator/protocol"
	"mochi/replica"
	"mochi/replica/data"
)

// distant is a coordinator that says nothing, and to which there may be no
// connection.
type distant struct {
	mute
	away atomic.Bool
	wake atomic.Int64 // until then (Unix time, ns) no look ends: the process stands still
	said chan protocol.Message
}

func (d *distant) Connected() bool {
	time.Sleep(time.Until(time.Unix(0, d.wake.Load())))
	return !d.away.Load()
}

func (d *distant) Send(_ context.Context, m protocol.Message) error {
	if m.Leaving != nil {
		d.said <- m
	}
	return nil
}

// runs starts a replica and returns how it ends.
func runs(t *testing.T, d *distant, orphaned time.Duration) (*replica.Replica, <-chan error) {
	d.said = make(chan protocol.Message, 1)
	r := replica.New(replica.Config{ID: "r", Link: d, Ring: alone, Data: &data.Set{}, Orphaned: orphaned})
	ended := make(chan error, 1)
	go func() { ended <- r.Run(t.Context()) }()
	return r, ended
}

// A replica ends when it has had no connection for so long, and not because of
// shorter gaps.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &distant{}
		_, ended := runs(t, d, time.Minute)
		for range 10 {
			d.away.Store(true)
			time.Sleep(50 * time.Second)
			d.away.Store(false)
			time.Sleep(20 * time.Second)
		}
		select {
		case err := <-ended:
			t.Fatalf("gaps of 50 s ended it: %v", err)
		default:
		}
		d.away.Store(true)
		start := time.Now()
		if err := <-ended; !errors.Is(err, replica.ErrOrphaned) {
			t.Errorf("ended with %v", err)
		}
		if waited := time.Since(start); waited < time.Minute-time.Second || waited > time.Minute+3*time.Second {
			t.Errorf("ended after %v", waited)
		}
	})
}

// One that stood still itself and then finds nobody has slept through the end; it
// does not wait as long as one whose coordinator has died.
func TestSleptThroughTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &distant{}
		_, ended := runs(t, d, time.Hour)
		time.Sleep(10 * time.Second)
		d.away.Store(true)
		d.wake.Store(time.Now().Add(20 * time.Minute).UnixNano())
		time.Sleep(20*time.Minute + 2*time.Second)
		start := time.Now()
		if err := <-ended; !errors.Is(err, replica.ErrOrphaned) {
			t.Errorf("ended with %v", err)
		}
		if waited := time.Since(start); waited < 20*time.Second || waited > 40*time.Second {
			t.Errorf("ended %v after it woke", waited)
		}
	})
}

// A leaver goes when its grace is over, whatever the coordinator says, and has
// said how long that is.
func TestGraceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &distant{}
		r, ended := runs(t, d, 0)
		time.Sleep(time.Second)
		start := time.Now()
		r.Leave("test", 20*time.Second)
		if m := <-d.said; m.Leaving.GraceMS != 20000 {
			t.Errorf("said %+v", m.Leaving)
		}
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
		if waited := time.Since(start); waited > 20*time.Second {
			t.Errorf("left after %v", waited)
		}
	})
}

// A leaver that reaches nobody goes at once while it has nothing to hand over, and after a
// few seconds otherwise; a connection that comes back in time is waited for.
func TestLeaverReachesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &distant{}
		r, ended := runs(t, d, 0)
		time.Sleep(time.Second)
		d.away.Store(true)
		start := time.Now()
		r.Leave("test", 0)
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
		if waited := time.Since(start); waited > time.Second {
			t.Errorf("with nothing to hand over it left after %v", waited)
		}
	})
	for _, blip := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := &distant{}
			r, ended := runs(t, d, 0)
			time.Sleep(time.Second)
			replica.Build(r)
			d.away.Store(true)
			start := time.Now()
			r.Leave("test", 0)
			time.Sleep(3 * time.Second)
			want := replica.Farewell
			if blip {
				d.away.Store(false)
				time.Sleep(2 * time.Second)
				d.away.Store(true)
				want += 5 * time.Second
			}
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
			if waited := time.Since(start); waited < replica.Farewell || waited > want+2*time.Second {
				t.Errorf("with a state (back meanwhile: %v) it left after %v", blip, waited)
			}
		})
	}
}
