package protocol

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"mochi/coordinator/protocol/config"
)

// A message of another kind that is added has bounds, too.
func TestEveryPartIsChecked(t *testing.T) {
	var c checks
	known := c.parts(Message{})
	typ := reflect.TypeOf(Message{})
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Type.Kind() != reflect.Pointer {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !slices.ContainsFunc(known, func(p part) bool { return p.name == name }) {
			t.Errorf("%s is not checked", name)
		}
		var m Message
		reflect.ValueOf(&m).Elem().Field(i).Set(reflect.New(f.Type.Elem()))
		for _, p := range c.parts(m) {
			if p.there != (p.name == name) {
				t.Errorf("with %s set, %s is there: %v", name, p.name, p.there)
			}
		}
	}
}

// What each of these says, and of which field it is told.
func TestValidateNamesTheField(t *testing.T) {
	job := config.Default() // 4 groups, 16 shards
	long := strings.Repeat("x", 1<<17)
	for text, want := range map[string]string{
		`{"from":"a b","again":{}}`:                                          "from",
		`{"from":"` + long + `"}`:                                            "from",
		`{"from":"a","term":18446744073709551615}`:                           "term",
		`{"from":"a","failed":{"damaged":[-1]}}`:                             "failed/damaged",
		`{"from":"a","failed":{"damaged":[16]}}`:                             "failed/damaged",
		`{"from":"a","failed":{"damaged":[1,1]}}`:                            "names one twice",
		`{"from":"a","failed":{"suspect":"$SYS.>"}}`:                         "failed/suspect",
		`{"from":"a","failed":{"error":"` + long + `"}}`:                     "failed/error",
		`{"from":"a","ready":{"groups":[{"group":4}]}}`:                      "ready/groups",
		`{"from":"a","ready":{"step":-1}}`:                                   "ready/step",
		`{"from":"a","ready":{"busy_ms":-1}}`:                                "ready/busy_ms",
		`{"from":"a","ready":{"recounts":[{"group":-1}]}}`:                   "ready/recounts.group",
		`{"from":"a","applied":{"shards":["x"]}}`:                            "applied/shards",
		`{"from":"a","hello":{}}`:                                            "hello/id",
		`{"from":"a","hello":{"id":"a","round":281474976710656}}`:            "hello/round",
		`{"from":"a","hello":{"id":"a","head":{"first":2,"step":1}}}`:        "hello/head.step",
		`{"from":"a","leaving":{"grace_ms":9223372036854775807}}`:            "leaving/grace_ms",
		`{"from":"a","recalled":{"commits":[{"step":0}]}}`:                   "recalled/step",
		`{"from":"a","leaving":{},"heartbeat":{}}`:                           "2 things at once",
		`{"round":{"step":1,"donor":0}}`:                                     "round/donor",
		`{"round":{"step":1,"donor":-1,"checkpoint":"../x"}}`:                "round/checkpoint",
		`{"round":{"step":1,"donor":-1,"members":[{"id":"a","state":"x"}]}}`: "round/members.state",
		`{"round":{"step":1,"donor":-1,"holders":[[0]]}}`:                    "round/holders",
		`{"round":{"step":1,"donor":-1,"transfers":[{"shard":99}]}}`:         "round/transfers.shard",
		`{"round":{"step":1,"donor":-1,"key":"AAAA"}}`:                       "round/key",
		`{"commit":{"step":1,"batch":129}}`:                                  "commit/batch",
		`{"commit":{"step":1,"queue_start":16384}}`:                          "commit/queue_start",
		`{"commit":{"step":1,"lr":-1}}`:                                      "commit/lr",
		`{"welcome":{"config":{"queue":1073741825}}}`:                        "welcome/config",
	} {
		var m Message
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		if err := m.Validate(BoundsOf(job)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) || len(err.Error()) > 4096 {
			t.Errorf("%.80s: %v, want %q", text, err, want)
		}
	}
	for _, m := range []Message{
		{From: "a", Heartbeat: &Heartbeat{}},
		{From: "a", Ready: &Ready{Round: 1, Step: 1, Groups: []GroupReport{{Group: 3}}}},
		{From: "a", Applied: &Applied{Round: 1, Step: 1, Shards: make([]string, 16), Damaged: []int{15}}},
		{Welcome: &Welcome{Config: job}},
		{Round: &Round{Round: 1, Step: 1, Donor: -1, Members: []Member{{ID: "a", Groups: []int{0, 1, 2, 3}, State: FromSeed}}}},
		{Commit: &Commit{Step: 1, Round: 1, Batch: 128, LR: 0.03, Momentum: 0.999, Groups: []GroupReport{{Group: 0}}}},
		{},
	} {
		if err := m.Validate(BoundsOf(job)); err != nil {
			t.Error(err)
		}
		if err := m.Validate(AnyJob()); err != nil {
			t.Error(err)
		}
	}
}

// FuzzMessage is about what a replica gets: whatever is decoded is told to be in
// bounds or not, and what is says the same when it is encoded again.
func FuzzMessage(f *testing.F) {
	f.Add(`{"v":3,"term":1,"welcome":{"instance":"x","config":{"batch":4},"gossip":["a:1"]}}`)
	f.Add(`{"round":{"round":1,"step":1,"members":[{"id":"a","groups":[0],"state":"seed"}],"donor":-1,"holders":[[0]],"transfers":[{"shard":0,"from":0,"to":[0]}],"trial":[1]}}`)
	f.Add(`{"commit":{"step":1,"round":1,"batch":4,"groups":[{"group":1,"loss":1e308}],"lr":0.1}}`)
	f.Add(`{"from":"a","recalled":{"from":1,"commits":[{"step":1}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var m Message
		if Decode([]byte(text), &m) != nil {
			return
		}
		for _, b := range []Bounds{AnyJob(), BoundsOf(config.Default())} {
			if m.Validate(b) != nil {
				continue
			}
			again, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var back Message
			if err := json.Unmarshal(again, &back); err != nil || back.Validate(b) != nil {
				t.Fatalf("%s: %v, %v", again, err, back.Validate(b))
			}
		}
	})
}
