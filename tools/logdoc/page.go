package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// rooms are the folders that may log events; stepLine is the type of a
// committed step's line.
var (
	rooms    = []string{"coordinator", "cmd"}
	stepLine = [2]string{"cmd/mochi/run", "StepLine"}
)

const intro = `# log.jsonl

<!-- Written by tools/logdoc from the types behind the lines: go generate ./coordinator/event -->

RUN/log.jsonl has one JSON object a line: one for each committed step, and one for each event. When it has 32 MiB it becomes a segment, log.000001.jsonl and so on, and begins anew: the segments and then the file have all lines. Names and fields stay; new ones may come, so a reader should let pass what it does not know. A line with the field ` + "`event`" + ` is an event, any other a step. Where a step was run again after a fault it has its line once: the bits are the same.

`

const stepIntro = `## A committed step

In the figures of the loss, which are means over the batch, q is a query, k its key, and n a negative of the queue; L is the loss.

`

const eventsIntro = `## Events

Every event has two fields more: ` + "`event`" + `, its name, and ` + "`time`" + `, when it was logged (RFC 3339, nanoseconds, UTC). The coordinator's log on stderr shows the events that are its own too, at the level given here.

`

// page is the whole of docs/log.md.
func page(root string) (string, error) {
	s, err := readSources(root, rooms)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(intro)
	b.WriteString(stepIntro)
	step, err := s.fields(stepLine[0], stepLine[1])
	if err != nil {
		return "", err
	}
	writeFields(&b, step)
	b.WriteString(eventsIntro)
	events, err := s.events()
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(events, func(a, b eventType) int { return cmp.Compare(a.name, b.name) })
	for i, e := range events {
		if i == 0 || events[i-1].name != e.name {
			fmt.Fprintf(&b, "### %s\n\n", e.name)
		}
		fmt.Fprintf(&b, "%s. %s\n\n", e.level, e.doc)
		writeFields(&b, e.fields)
	}
	return strings.TrimRight(b.String(), "\n") + "\n", nil
}

func writeFields(b *strings.Builder, fields []field) {
	b.WriteString("| field | type | meaning |\n|---|---|---|\n")
	for _, f := range fields {
		meaning := f.meaning
		if f.optional {
			meaning += "; may be absent"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.name, f.kind, strings.ReplaceAll(meaning, "|", `\|`))
	}
	b.WriteString("\n")
}
