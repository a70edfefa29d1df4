package natsserver

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// serverLog turns the server's log into slog and keeps its first fatal line.
type serverLog struct {
	log   *slog.Logger
	fatal chan string // capacity 1
}

func (l *serverLog) line(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, "nats: "+strings.TrimSpace(fmt.Sprintf(format, v...)))
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
