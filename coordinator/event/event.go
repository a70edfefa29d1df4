// Package event lists what the coordinator tells people and scripts besides
// the committed steps: each event is a type, and one line of log.jsonl and one
// line of the coordinator's own log whenever it happens. docs/log.md lists
// them all; it is generated from the types of this package and of those that
// log events of their own (go generate ./coordinator/event).
//
// To add an event: a struct with a comment, that embeds its level and has a
// field for each of its data, tagged with the name it has in log.jsonl and
// commented; its method EventName; and the Report where it happens. Then
// regenerate the page: its test fails until that is done.
//
// Names and fields of an event are read by scripts: they stay.
package event

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"
)

//go:generate go run mochi/tools/logdoc -o ../../docs/log.md

// Event is something that people should know. The fields of the type behind it
// are its data, by their JSON tags.
type Event interface {
	EventName() string // in log.jsonl: "replica lost"
	Level() slog.Level // how much it matters
}

// Info is embedded in an event that tells how the job goes on.
type Info struct{}

// Warning is embedded in one that tells what is wrong while the job goes on.
type Warning struct{}

// Error is embedded in one that ends the job.
type Error struct{}

// Level implements Event.
func (Info) Level() slog.Level { return slog.LevelInfo }

// Level implements Event.
func (Warning) Level() slog.Level { return slog.LevelWarn }

// Level implements Event.
func (Error) Level() slog.Level { return slog.LevelError }

// Line is an event as a line of log.jsonl, without the newline: one object that
// begins with its name ("event") and its time (RFC 3339, UTC).
func Line(e Event, at time.Time) ([]byte, error) {
	head, err := json.Marshal(struct {
		Event string `json:"event"`
		Time  string `json:"time"`
	}{e.EventName(), at.UTC().Format(time.RFC3339Nano)})
	if err != nil {
		return nil, err
	}
	fields, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("event %q: %w", e.EventName(), err)
	}
	if fields[0] != '{' {
		return nil, fmt.Errorf("event %q is no struct: %s", e.EventName(), fields)
	}
	if string(fields) == "{}" {
		return head, nil
	}
	head[len(head)-1] = ','
	return append(head, fields[1:]...), nil
}

// Attrs are the data of an event for a logger, in the order of the fields.
func Attrs(e Event) []slog.Attr {
	var attrs []slog.Attr
	v := reflect.ValueOf(e)
	for _, f := range reflect.VisibleFields(v.Type()) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" || name == "-" {
			continue
		}
		value := v.FieldByIndex(f.Index)
		if options == "omitempty" && value.IsZero() {
			continue
		}
		attrs = append(attrs, slog.Any(name, value.Interface()))
	}
	return attrs
}
