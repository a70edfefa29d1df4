package run

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// NewLog writes what changes to errs, one line each, for the logs of a
// service.
func NewLog(errs io.Writer, verbose bool) *slog.Logger {
	return slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: AtLevel(slog.LevelInfo, verbose)}))
}

// AtLevel is the level of a log that is quiet unless --verbose.
func AtLevel(quiet slog.Level, verbose bool) slog.Level {
	if verbose {
		return slog.LevelDebug
	}
	return quiet
}

// PlainLog is a slog.Handler for people: "round 2  world 3  reason …" between
// the lines of a progress.
type PlainLog struct {
	Progress *Progress
	Level    slog.Level
	attrs    []slog.Attr
}

// order is that of the attributes people look for; others stand between.
func order(key string) int {
	first := []string{"round", "world", "replica", "name", "step"}
	if i := slices.Index(first, key); i >= 0 {
		return i - len(first)
	}
	switch key {
	case "reason", "why", "cause", "error", "err":
		return 1
	}
	return 0
}

// Enabled implements slog.Handler.
func (h PlainLog) Enabled(_ context.Context, level slog.Level) bool { return level >= h.Level }

// Handle implements slog.Handler.
func (h PlainLog) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	slices.SortStableFunc(attrs, func(a, b slog.Attr) int { return order(a.Key) - order(b.Key) })
	text := r.Message
	switch {
	case r.Level >= slog.LevelError:
		text = "error: " + text
	case r.Level >= slog.LevelWarn:
		text = "warning: " + text
	}
	for _, a := range attrs {
		value := a.Value.String()
		switch {
		case value == "" || a.Key == "job" || a.Key == "coordinator" || a.Key == "id":
		case a.Key == r.Message: // "round 2", not "round  round 2"
			text += " " + value
		default:
			text += fmt.Sprintf("  %s %s", a.Key, value)
		}
	}
	h.Progress.Say("%s", text)
	return nil
}

// WithAttrs implements slog.Handler.
func (h PlainLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = append(slices.Clip(h.attrs), attrs...)
	return h
}

// WithGroup implements slog.Handler; groups are not shown.
func (h PlainLog) WithGroup(string) slog.Handler { return h }
