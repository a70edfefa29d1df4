package event_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"mochi/coordinator/event"
)

func ExampleLine() {
	e := event.Lost{Replica: event.Replica{Name: "b", ID: "b-7"}, Reason: "connection closed", Step: 12}
	line, err := event.Line(e, time.Unix(0, 0))
	fmt.Println(string(line), err)
	fmt.Println(e.Level(), event.Attrs(e))
	// Output:
	// {"event":"replica lost","time":"1970-01-01T00:00:00Z","replica":"b","id":"b-7","reason":"connection closed","step":12} <nil>
	// WARN [replica=b id=b-7 reason=connection closed step=12]
}

// A field that is left out of the line when it is zero is left out of the
// attributes, too.
func TestOmittedFields(t *testing.T) {
	for majority, want := range map[int]string{0: "[replica= id= step=0 what=state]", 2: "[replica= id= step=0 what=state majority=2]"} {
		if got := fmt.Sprint(event.Attrs(event.DigestMismatch{What: "state", Majority: majority})); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

type bare struct{ event.Info }

func (bare) EventName() string { return "bare" }

type number int

func (number) EventName() string { return "number" }
func (number) Level() slog.Level { return slog.LevelInfo }

func TestLineOfOddTypes(t *testing.T) {
	if line, err := event.Line(bare{}, time.Unix(0, 0)); err != nil || string(line) != `{"event":"bare","time":"1970-01-01T00:00:00Z"}` {
		t.Errorf("%s, %v", line, err)
	}
	if line, err := event.Line(number(1), time.Unix(0, 0)); err == nil {
		t.Errorf("%s of what has no fields", line)
	}
}
