package natsserver

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// serverLog turns the server's log into slog and keeps its first fatal line. What it says of
// a single connection, such as a handshake that failed, comes as often as somebody likes: of
// each address one line a minute is logged, with how many were left out.
type serverLog struct {
	log   *slog.Logger
	fatal chan string // capacity 1

	mu   sync.Mutex
	said map[string]*sayings // by address of the peer
}

// sayings are what was said of the connections of one address.
type sayings struct {
	at   time.Time // of the line that was logged last
	left int       // lines left out since
}

const (
	sayEvery  = time.Minute
	mostPeers = 1024 // whose lines are counted; those of others count as one peer's
)

// ofClient is a line about one connection: "ADDRESS:PORT - cid:7 - words".
var ofClient = regexp.MustCompile(`^(\S+):\d+ - (?:\S+ - )*?(?:"[^"]*" - )?cid:\d+ - `)

// spare says whether a line is to be left out, or else how many were since the last one.
func (l *serverLog) spare(text string, now time.Time) (spare bool, left int) {
	m := ofClient.FindStringSubmatch(text)
	if m == nil {
		return false, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said == nil {
		l.said = map[string]*sayings{}
	}
	peer := m[1]
	if l.said[peer] == nil && len(l.said) >= mostPeers {
		for p, s := range l.said {
			if now.Sub(s.at) >= sayEvery {
				delete(l.said, p)
			}
		}
		if len(l.said) >= mostPeers {
			peer = "others"
		}
	}
	s := l.said[peer]
	if s == nil {
		s = &sayings{}
		l.said[peer] = s
	}
	if now.Sub(s.at) < sayEvery {
		s.left++
		return true, 0
	}
	left, s.at, s.left = s.left, now, 0
	return false, left
}

func (l *serverLog) line(level slog.Level, format string, v []any) {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	spare, left := false, 0
	if level == slog.LevelWarn {
		spare, left = l.spare(text, time.Now())
	}
	switch {
	case spare:
	case left > 0:
		l.log.Log(context.Background(), level, "nats: "+text, "left_out", left)
	default:
		l.log.Log(context.Background(), level, "nats: "+text)
	}
}

func (l *serverLog) Noticef(format string, v ...any) { l.line(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.line(slog.LevelDebug, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.line(slog.LevelWarn, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  {}
func (l *serverLog) Tracef(format string, v ...any)  {}
func (l *serverLog) Fatalf(format string, v ...any) {
	l.line(slog.LevelError, format, v)
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
