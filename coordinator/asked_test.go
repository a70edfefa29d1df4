package coordinator

import (
	"errors"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/protocol"
)

// What is not asked for never begins, and what is not often; who cannot know better is to
// come again.
func TestUploadsAreAskedFor(t *testing.T) {
	a := &asked{
		head:    10,
		list:    []ask{{from: "a", step: 10}},
		sending: map[string]int64{"a": 0, "b": 0, "c": 12, "d": 8},
	}
	for _, c := range []struct {
		from string
		step int64
		want string // "": it may; "yet": it is to come again
	}{
		{"a", 10, ""},
		{"a", 9, "nobody has asked"},
		{"b", 10, "nobody has asked"},
		{"c", 12, "yet"},              // the log may get it back
		{"c", 11, "nobody has asked"}, //
		{"d", 8, "nobody has asked"},  // the core did not want it
		{"stranger", 10, "yet"},       // its Hello was not heard
		{"stranger", 1 << 40, "yet"},  //
	} {
		err := a.wants(c.from, c.step)
		switch {
		case c.want == "" && err != nil, c.want == "yet" && !errors.Is(err, protocol.ErrNotYet),
			c.want != "" && c.want != "yet" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s, step %d: %v, want %q", c.from, c.step, err, c.want)
		}
	}
	if now := time.Now(); !a.mayComeLocked("late", now) || !a.mayComeLocked("late", now.Add(helloWithin-1)) || a.mayComeLocked("late", now.Add(helloWithin)) {
		t.Errorf("who says no Hello may not come again for %v", helloWithin)
	}
	for range mostBegun {
		if err := a.begins("a", 10); err != nil {
			t.Fatal(err)
		}
	}
	if a.wants("a", 10) == nil || a.begins("a", 10) == nil {
		t.Errorf("it begins more than %d times", mostBegun)
	}
}
