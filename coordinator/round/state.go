package round

// State is where a job stands between two inputs. Each state but the last says
// what is awaited.
type State int

// The states.
//
//	Gathering ──▶ Voting ──▶ Appending ──▶ Applying ──▶ Voting …
//	    ▲                                     │
//	    └──────────── Closing ◀───────────────┘  when the round is to end
//
// A round that is to end does so at once while it is Voting or Saving. When the
// last commit is applied, or a stop was asked for, Concluding follows instead
// of Gathering: the last checkpoint is awaited, if need be by a round that only
// saves (Saving), and then the job is Finished. A job that fails is Finished
// from any state.
const (
	Gathering  State = iota // no round: replicas, their state, or a pause are awaited
	Voting                  // the votes of the members for a step
	Appending               // the log: the commit of the step is on its way to it
	Applying                // the members' reports of the commit; they compute the next step meanwhile
	Closing                 // the same, but no further step is committed: the round ends with this one
	Over                    // nothing: the round ends before another input is taken
	Saving                  // the checkpoint that a round without a step puts together
	Concluding              // the last checkpoint
	Finished                // nothing any more

	States int = iota // how many there are
)

// String is its name.
func (s State) String() string {
	return [States]string{
		"gathering", "voting", "appending", "applying", "closing", "over", "saving", "concluding", "finished",
	}[s]
}
