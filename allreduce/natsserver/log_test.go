package natsserver

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// What fails again and again from one address is told once a minute, with how often.
func TestConnectionsAreToldNowAndThen(t *testing.T) {
	l := &serverLog{}
	now := time.Unix(1000, 0)
	logged, left := 0, 0
	for i := range 1200 { // 20 a second
		for _, host := range []string{"10.0.0.1", "[2001:db8::1]"} {
			spare, n := l.spare(fmt.Sprintf("%s:%d - cid:%d - TLS handshake error: EOF", host, 4000+i, i), now)
			if !spare {
				logged, left = logged+1, left+n
			}
		}
		now = now.Add(50 * time.Millisecond)
	}
	if _, n := l.spare("10.0.0.1:5 - cid:9 - TLS handshake error: EOF", now); n != 1199 {
		t.Errorf("%d lines were left out in a minute, want 1199", n)
	}
	if logged != 2 || left != 0 {
		t.Errorf("%d lines in a minute, want one of each address", logged)
	}
	for range 3 {
		if spare, _ := l.spare("Error listening on port", now); spare {
			t.Error("a line about no connection is left out")
		}
	}
	for i := range 3 * mostPeers {
		l.spare(fmt.Sprintf("10.1.%d.%d:1 - cid:1 - x", i/256, i%256), now)
	}
	if len(l.said) > mostPeers+1 {
		t.Errorf("%d addresses are remembered", len(l.said))
	}
	var out bytes.Buffer
	l = &serverLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	for range 5 {
		l.Errorf("%s - TLS handshake error: %v", "127.0.0.1:7 - cid:3", "EOF")
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines of 5:\n%s", n, out.String())
	}
}
