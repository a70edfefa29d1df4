package coordinator

import (
	"fmt"
	"slices"
	"strings"

	"mochi/coordinator/round"
)

// kind is what an Input is about: a message by what it says, anything else by
// its type.
type kind int

const (
	hello kind = iota
	ready
	applied
	failed
	leaving
	heartbeat
	drain
	recalled
	nothing // a message that says none of these

	lost
	hint
	appended
	appendFailed
	led
	adopted
	arriving
	stored
	storeFailed
	tick
	stopRequested

	kinds int = iota
)

// String is its name in the table.
func (k kind) String() string {
	return [kinds]string{
		"hello", "ready", "applied", "failed", "leaving", "heartbeat", "drain", "recalled", "nothing",
		"lost", "hint", "appended", "append-failed", "led", "adopted", "arriving", "stored", "store-failed", "tick", "stop-requested",
	}[k]
}

// verdict is what is done with an input.
type verdict string

const (
	take  verdict = "take"  // its handler takes it
	drop  verdict = "drop"  // it is stale, or nobody waits for it
	never verdict = "never" // it cannot arrive then: whoever calls Step is wrong
)

// inputs says which input may arrive in which state of the job (round.State),
// and what is done with it: Core.Step looks here and nowhere else.
//
// A message of a replica that is not admitted does not get this far: it is
// answered with Again. One of a replica that is admitted counts as a sign of
// life even if it is dropped. Whether a message that is taken belongs to this
// round and this step is for its handler to see: it may be older than the
// state.
//
//   - hello: replicas come and go as they like. One that comes while a round is
//     at work waits for the next.
//   - ready counts while votes are awaited, and while the step before is being
//     applied, from a member that is through already. While a commit is on its
//     way to the log all votes are in, so that another one is stale.
//   - applied is a member's report while a step is being applied. In every
//     state it may be the answer to a commit that was sent again to a replica
//     outside the round.
//   - failed ends its round. That something is wrong for good, or that a
//     checkpoint could not be put together, counts in every state.
//   - leaving, lost: before an append a lost member ends the round at once,
//     during it after the commit; one that leaves ends it after a commit.
//   - heartbeat tells how a replica gets on. That one waits for a message that
//     was lost is worth a look only while the round waits for it as well.
//   - drain is what leaving is, said by somebody else.
//   - recalled is a part of the commits that the log has lost, asked for between
//     rounds.
//   - nothing is what a later version of the protocol may say.
//   - appended and append-failed answer the one Append that there can be. An
//     answer twice is dropped; a failure that nobody caused cannot be.
//   - led answers Lead, which may be asked for at any time; adopted answers Adopt,
//     which only happens between rounds.
//   - arriving, stored and store-failed: checkpoints are on their way beside the steps.
//   - hint, tick: a replica may fall silent whatever the others do.
//   - stop-requested ends the job after the commit that comes next, or at once
//     when there is no round.
//
// Two states have no column: over does not last until another input arrives,
// and a job that is finished takes nothing.
var inputs = readTable(`
                gathering  voting  appending  applying  closing  saving  concluding
hello           take       take    take       take      take     take    take
ready           drop       take    drop       take      take     drop    drop
applied         take       take    take       take      take     take    take
failed          take       take    take       take      take     take    take
leaving         take       take    take       take      take     take    take
heartbeat       take       take    take       take      take     take    take
drain           take       take    take       take      take     take    take
recalled        take       drop    drop       drop      drop     drop    drop
nothing         drop       drop    drop       drop      drop     drop    drop
lost            take       take    take       take      take     take    take
hint            take       take    take       take      take     take    take
appended        drop       drop    take       drop      drop     drop    drop
append-failed   never      never   take       never     never    never   never
led             take       take    take       take      take     take    take
adopted         take       never   never      never     never    never   never
arriving        take       take    take       take      take     take    take
stored          take       take    take       take      take     take    take
store-failed    take       take    take       take      take     take    take
tick            take       take    take       take      take     take    take
stop-requested  take       take    take       take      take     take    take
`)

// table is a verdict for every kind of input in every state.
type table [kinds][round.States]verdict

// readTable reads a table as it is written above. What is missing in it is
// missing in the result; what it does not know is a bug of this file.
func readTable(text string) (t table) {
	var columns []round.State
	for line := range strings.Lines(strings.TrimSpace(text)) {
		fields := strings.Fields(line)
		if columns == nil {
			for _, name := range fields {
				columns = append(columns, named[round.State](round.States, name))
			}
			continue
		}
		k := named[kind](kinds, fields[0])
		for i, v := range fields[1:] {
			if !slices.Contains([]verdict{take, drop, never}, verdict(v)) {
				panic(fmt.Sprintf("coordinator: no verdict %q", v))
			}
			t[k][columns[i]] = verdict(v)
		}
	}
	return t
}

// named finds one of n numbered things by its name.
func named[T interface {
	~int
	fmt.Stringer
}](n int, name string) T {
	for i := range n {
		if T(i).String() == name {
			return T(i)
		}
	}
	panic(fmt.Sprintf("coordinator: nothing is named %q in the table", name))
}
