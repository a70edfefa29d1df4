package main

import (
	"strings"
	"testing"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/quorum"
)

func TestMembersOfAGroup(t *testing.T) {
	var f cli.Faults
	got := membersOf(&f, "a=h1:4222, b=[::1]:5000/6000,c=h3:4222")
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	want := []quorum.Member{{Name: "a", Join: "h1:4222", Peer: "h1:4223"}, {Name: "b", Join: "[::1]:5000", Peer: "[::1]:6000"}, {Name: "c", Join: "h3:4222", Peer: "h3:4223"}}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct{ name, listen, want string }{
		{"b", "127.0.0.1:4222", "b"}, {"", "h3:4222", "c"}, {"", "h9:1", ""}, {"x", "h1:4222", ""},
	} {
		var f cli.Faults
		if self := selfOf(&f, got, c.name, c.listen); self.Name != c.want || (f.Err() == nil) != (c.want != "") {
			t.Errorf("%+v: %+v, %v", c, self, f.Err())
		}
	}
}

// TestBadMembers: each fault is named, with what to do.
func TestBadMembers(t *testing.T) {
	for text, says := range map[string]string{
		"a=h:1":                               "names one coordinator",
		"a=h:1,b=h:3":                         "an even number survives no more",
		"a=h:1,b=h:3,c=h:5,d=h:7":             "an even number survives no more",
		"a=h:1,a=h:3,c=h:5":                   "the name a is there twice",
		"a=h:1,b=h:2,c=h:5":                   "h:2 is where the others reach a and where replicas join b",
		"h:1,b=h:3,c=h:5":                     `"h:1" is not of the form NAME=HOST:PORT`,
		"a=h,b=h:3,c=h:5":                     "is not of the form HOST:PORT",
		"a=h:65535,b=h:3,c=h:5":               "ports in",
		"a=h:0,b=h:3,c=h:5":                   "ports in",
		"a=h:1/x,b=h:3,c=h:5":                 "the port for the other coordinators",
		"a=0.0.0.0:1,b=h:3,c=h:5":             "is no address that others reach",
		"a b=h:1,b=h:3,c=h:5":                 "is not of the form NAME=HOST:PORT",
		",,":                                  "is not of the form NAME=HOST:PORT",
		strings.Repeat("a=h:1,", 6) + "b=h:4": "a group has 3 or 5",
	} {
		var f cli.Faults
		membersOf(&f, text)
		if err := f.Err(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, which does not say %q", text, err, says)
		}
	}
}
