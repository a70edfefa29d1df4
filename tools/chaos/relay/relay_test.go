package relay

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// oneWay is a direction of a link on virtual time: what is written to in comes
// out of out.
func oneWay(t *testing.T, l *link, up bool) (in, out net.Conn) {
	in, from := net.Pipe()
	to, out := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.pass(ctx, to, from, up); err == nil {
			to.Close()
		}
	}()
	t.Cleanup(func() {
		cancel()
		in.Close()
		from.Close()
		to.Close()
		out.Close()
		<-done
	})
	return in, out
}

// took says how long a byte is under way.
func took(t *testing.T, in, out net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := in.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(out, b[:]); err != nil || b[0] != 7 {
		t.Fatalf("read %d, %v", b[0], err)
	}
	return time.Since(began)
}

func TestConditions(t *testing.T) {
	for name, c := range map[string]struct {
		Conditions
		want time.Duration
	}{
		"good":      {Conditions{}, 0},
		"delay":     {Conditions{Delay: 70 * time.Millisecond}, 70 * time.Millisecond},
		"loss":      {Conditions{Loss: 1}, Stall},
		"bandwidth": {Conditions{BytesPerSecond: 10}, 100 * time.Millisecond},
		"all":       {Conditions{Delay: time.Second, Loss: 1, BytesPerSecond: 2}, 1500*time.Millisecond + Stall},
		"other way": {Conditions{CutDown: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLink(1)
				in, out := oneWay(t, l, true)
				l.set(c.Conditions)
				if got := took(t, in, out); got != c.want {
					t.Errorf("a byte took %v, not %v", got, c.want)
				}
			})
		})
	}
}

// TestCut: a cut holds back bytes and the end of the stream in its direction
// alone, and healing lets both through.
func TestCut(t *testing.T) {
	for name, up := range map[string]bool{"up": true, "down": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLink(1)
				in, out := oneWay(t, l, up)
				var b [8]byte
				for i, send := range []func() error{
					func() error { _, err := in.Write([]byte("held")); return err },
					in.Close,
				} {
					l.set(Conditions{CutUp: up, CutDown: !up})
					if err := send(); err != nil {
						t.Fatal(err)
					}
					began, got := time.Now(), make(chan error, 1)
					var n int
					go func() {
						var err error
						n, err = out.Read(b[:])
						got <- err
					}()
					time.Sleep(time.Hour)
					select {
					case err := <-got:
						t.Fatalf("%d: %q, %v came through a cut", i, b[:n], err)
					default:
					}
					l.set(Conditions{})
					err := <-got
					if i == 0 && (string(b[:n]) != "held" || err != nil) || i == 1 && err != io.EOF || time.Since(began) != time.Hour {
						t.Errorf("%d: after healing: %q, %v after %v", i, b[:n], err, time.Since(began))
					}
				}
			})
		})
	}
}

// TestRelay: over real sockets, whatever the conditions do meanwhile, what comes
// out is what went in, both ways; and Close leaves nothing behind.
func TestRelay(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
				_ = c.(*net.TCPConn).CloseWrite()
			}()
		}
	}()
	r, err := Listen("127.0.0.1:0", target.Addr().String(), 5)
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{9})
	_, _ = random.Read(sent)
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		for i := 0; i < len(sent); i += 1 << 15 {
			r.Set([]Conditions{{Delay: time.Millisecond}, {BytesPerSecond: 32 << 20}, {CutUp: true}, {CutDown: true}, {}}[i>>15%5])
			_, _ = c.Write(sent[i : i+1<<15])
		}
		_ = c.(*net.TCPConn).CloseWrite()
		r.Set(Conditions{})
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came back as they were sent, or not: %v", len(got), len(sent), err)
	}
	if open, err := net.Dial("tcp", r.Addr()); err != nil {
		t.Error(err)
	} else {
		defer open.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(open); err == nil {
			t.Log("ended in order")
		}
	}
	if _, err := net.Dial("tcp", r.Addr()); err == nil {
		t.Error("it still accepts connections")
	}
}
