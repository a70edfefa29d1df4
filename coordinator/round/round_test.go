package round_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/copies"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
	"mochi/model/figures"
)

var (
	start = time.Unix(1e9, 0)
	job   = config.Job{Batch: 4, Queue: 10, Momentum: 0.99}
)

// begin is round 3 of replicas a, b and c with one group each, at step 6.
func begin(t *testing.T, save bool) (*round.Round, []*roster.Replica) {
	t.Helper()
	s := roster.New()
	var members []*roster.Replica
	for _, id := range []string{"a", "b", "c"} {
		members = append(members, s.Admit(protocol.Hello{ID: id, Name: id}, start))
	}
	s.NewRanks(members)
	return round.New(round.Plan{
		Number: 3, Members: members, Deal: [][]int{{0}, {1}, {2}}, Step: 6, Cursor: 20, Save: save,
		Copies: copies.Arrangement{Holders: [][]int{{0, 1}, {2, 0}}, Transfers: []protocol.Transfer{
			{Shard: 0, From: 0, To: []int{1}, Digest: "v0"}, {Shard: 1, From: 2, To: []int{0}},
		}},
	}, start), members
}

func vote(group int, digest string) *protocol.Ready {
	return &protocol.Ready{Round: 3, Step: 6, Digest: digest, Groups: []protocol.GroupReport{{Group: group, Figures: figures.Figures{Loss: 2}}}}
}

func report(digest string) *protocol.Applied {
	return &protocol.Applied{Round: 3, Step: 6, Digest: "q", StateDigest: digest}
}

func expect(t *testing.T, r *round.Round, want round.State) {
	t.Helper()
	if got := r.State(); got != want {
		t.Fatalf("the round is %s, not %s", got, want)
	}
}

// One step from the votes to the reports.
func TestStep(t *testing.T) {
	r, m := begin(t, false)
	expect(t, r, round.Voting)
	for i := range m {
		if !r.Awaits(m[i]) || !r.Vote(m[i], vote(i, "g")) || r.Vote(m[i], vote(i, "g")) || r.Awaits(m[i]) {
			t.Fatalf("the vote of %s counts once", m[i])
		}
	}
	if majority, others := r.CompareVotes(); !r.AllVoted() || len(majority) != 3 || len(others) != 0 {
		t.Fatal("all agree")
	}
	commit, err := r.Commit(job, 8, func(epoch float64) float64 { return epoch })
	if err != nil || commit.Step != 6 || commit.Cursor != 20 || commit.QueueStart != 0 || commit.Epoch != 2 || commit.LR != 2.5 || len(commit.Groups) != 3 {
		t.Fatalf("%+v, %v", commit, err)
	}
	r.Append(commit)
	expect(t, r, round.Appending)
	if r.Appended(5) != nil || r.Appended(6) != commit || r.Appended(6) != nil {
		t.Fatal("the log answers once")
	}
	record := r.Measure(*commit, false, start.Add(2*time.Second))
	if record.ImagesPS != 2 || record.StepMS != 2000 || record.World != 3 || record.Loss != 1.5 {
		t.Errorf("%+v", record)
	}
	r.Publish(record, start)
	expect(t, r, round.Applying)
	if r.Step() != 7 || r.Steps() != 1 || r.AllApplied() {
		t.Errorf("step %d", r.Step())
	}
	stale := report("s")
	stale.Step = 5
	if r.Applied(m[0], stale) || !r.Applied(m[0], report("s")) || !r.Applied(m[1], report("other")) {
		t.Error("reports are of the open step")
	}
	next := vote(2, "h")
	next.Step = 7
	if !r.Vote(m[2], next) || !r.AllApplied() {
		t.Error("who votes for the next step has applied this one")
	}
	reports := r.CloseStep()
	majority, others := reports.Compare()
	parameters, state := reports.Digests(majority)
	if r.Open() || len(majority) != 1 || len(others) != 1 || others[0] != m[1] || parameters != "q" || state != "s" {
		t.Errorf("%v and %v, %s", majority, others, state)
	}
	expect(t, r, round.Voting)
}

// A round that is to end waits for what is under way, and for nothing else.
func TestEnding(t *testing.T) {
	r, m := begin(t, false)
	for i := range m {
		r.Vote(m[i], vote(i, "g"))
	}
	commit, _ := r.Commit(job, 0, func(float64) float64 { return 0 })
	r.Append(commit)
	r.Remove(m[1])
	r.End("b is gone")
	r.End("another reason")
	expect(t, r, round.Appending)
	r.Publish(r.Measure(*r.Appended(6), false, start), start)
	expect(t, r, round.Closing)
	if r.Awaits(m[1]) || !r.Awaits(m[0]) || r.Ending() != "b is gone" {
		t.Errorf("ending: %s", r.Ending())
	}
	r.Applied(m[0], report("s"))
	r.Excuse(m[2])
	if !r.AllApplied() {
		t.Error("one was excused, one is gone")
	}
	r.CloseStep()
	expect(t, r, round.Over)

	r, _ = begin(t, false)
	r.End("at once")
	expect(t, r, round.Over)
	r, _ = begin(t, true)
	expect(t, r, round.Saving)
	r.End("saved")
	expect(t, r, round.Over)
	r, m = begin(t, false)
	for _, member := range m {
		r.Remove(member)
	}
	expect(t, r, round.Over)
}

// What cannot be committed says whose fault it is.
func TestFaultyVotes(t *testing.T) {
	for _, c := range []struct {
		group int
		loss  float64
		want  string
	}{{1, math.NaN(), "training diverged"}, {1, math.Inf(1), "training diverged"}, {2, 1, "was dealt [1]"}} {
		r, m := begin(t, false)
		for i := range m {
			v := vote(i, "g")
			if i == 1 {
				v.Groups[0] = protocol.GroupReport{Group: c.group, Figures: figures.Figures{Loss: c.loss}}
			}
			r.Vote(m[i], v)
		}
		if _, err := r.Commit(job, 0, func(float64) float64 { return 0 }); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "b (b)") {
			t.Errorf("%v, want %q of b", err, c.want)
		}
	}
}

// Who holds a shard, as members go.
func TestHolders(t *testing.T) {
	r, m := begin(t, false)
	if got := r.HoldersOf(1, m); !slices.Equal(got, []*roster.Replica{m[2], m[0]}) {
		t.Errorf("the owner first: %v", got)
	}
	if got := fmt.Sprint(r.TransfersTo(m[1]), r.TransfersTo(m[0])); got != "[{0 0 [1] v0}] []" {
		t.Errorf("%s: of one it is not known what it is", got)
	}
	m[2].Leave()
	if !r.StayersCover() {
		t.Error("a holds shard 1 as well")
	}
	m[0].Leave()
	if r.StayersCover() {
		t.Error("shard 1 leaves with a and c")
	}
	r.Remove(m[2])
	if got := fmt.Sprint(r.Shards()); got != "[{a [b]} {a []}]" {
		t.Errorf("%s", got)
	}
}

// What is measured of a step before and after its vote is in one record: the
// slowest member's, but of the wait for the commit the last voter's, which waits
// for nobody else; processor time is the sum.
func TestMeasurements(t *testing.T) {
	r, m := begin(t, false)
	for i, ms := range []float64{5, 9, 7} {
		v := vote(i, "g")
		v.Phases = map[string]float64{"query": ms}
		v.CPU = map[string]float64{protocol.MeasureDigest: ms}
		r.Vote(m[i], v)
	}
	commit, err := r.Commit(job, 8, func(float64) float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	r.Append(commit)
	r.Publish(r.Measure(*r.Appended(6), false, start), start)
	for i, ms := range []float64{4, 1, 2} {
		a := report("s")
		a.Phases = map[string]float64{protocol.MeasureCommit: ms, protocol.MeasureApplied: ms}
		a.CPU = map[string]float64{protocol.MeasureApplied: ms}
		r.Applied(m[i], a)
	}
	record := r.CloseStep().Record
	if want := map[string]float64{"query": 9, protocol.MeasureCommit: 1, protocol.MeasureApplied: 4}; !maps.Equal(record.Phases, want) {
		t.Errorf("phases %v, want %v", record.Phases, want)
	}
	if want := map[string]float64{protocol.MeasureDigest: 21, protocol.MeasureApplied: 7}; !maps.Equal(record.CPU, want) {
		t.Errorf("processor time %v, want %v", record.CPU, want)
	}
}
