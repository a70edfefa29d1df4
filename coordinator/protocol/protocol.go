// Package protocol is what the coordinator and the replicas say to each
// other: the job's configuration, the messages of a round and of a step, and
// the subjects they travel on. It is the only package that both import.
//
// A round is one membership: members, ranks and the deal of groups. A step is
// a transaction inside a round: every member votes Ready, the coordinator
// appends a Commit to its log and publishes it, every member applies it and
// answers Applied. A message of an older round is dropped on arrival.
package protocol

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"mochi/coordinator/protocol/config"
	"mochi/model/figures"
)

// Version is the protocol's version; both ends must have the same.
const Version = 3

// CoordinatorSubject is where a job's coordinator hears one replica, or all of them
// ("*"). Who speaks is the subject's last part, which the server of the bus has checked.
func CoordinatorSubject(job, id string) string {
	return fmt.Sprintf("mochi.%s.coordinator.%s", job, id)
}

// ReplicaSubject is where one replica listens. The coordinator sends all it
// has to say to a replica here, so a replica sees it in order.
func ReplicaSubject(job, id string) string { return fmt.Sprintf("mochi.%s.replica.%s", job, id) }

// StatusSubject answers any request with a Status.
func StatusSubject(job string) string { return fmt.Sprintf("mochi.%s.status", job) }

// CheckpointSubject is where the coordinator takes and gives checkpoints,
// piece by piece, as requests with a reply: of one replica, or of all ("*").
func CheckpointSubject(job, id string) string {
	return fmt.Sprintf("mochi.%s.checkpoint.%s", job, id)
}

// Sender is the last part of a subject, which says who sent what came there.
func Sender(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// ErrSuperseded is what reading an upload fails with when another one has begun
// in its place.
var ErrSuperseded = errors.New("the upload was given up: another one has begun")

// Message is anything that travels; exactly one field is set.
type Message struct {
	Version int    `json:"v"`
	From    string `json:"from,omitempty"` // replica id; empty from the coordinator
	Term    uint64 `json:"term,omitempty"` // of the leader, above those of all leaders before; from a replica the highest that it has heard of

	// Replica to coordinator.
	Hello     *Hello     `json:"hello,omitempty"`
	Ready     *Ready     `json:"ready,omitempty"`
	Applied   *Applied   `json:"applied,omitempty"`
	Failed    *Failed    `json:"failed,omitempty"`
	Leaving   *Leaving   `json:"leaving,omitempty"`
	Heartbeat *Heartbeat `json:"heartbeat,omitempty"`
	Recalled  *Recalled  `json:"recalled,omitempty"`

	// Of anybody to the coordinator, and its answer.
	Drain   *Drain   `json:"drain,omitempty"`
	Drained *Drained `json:"drained,omitempty"`

	// Coordinator to replica.
	Welcome  *Welcome  `json:"welcome,omitempty"`
	Refused  *Refused  `json:"refused,omitempty"`
	Round    *Round    `json:"round,omitempty"`
	Commit   *Commit   `json:"commit,omitempty"`
	Snapshot *Snapshot `json:"snapshot,omitempty"`
	Stop     *Stop     `json:"stop,omitempty"`
	Again    *Again    `json:"again,omitempty"`
	Recall   *Recall   `json:"recall,omitempty"`
}

// Position is where a state stands: after how many commits, and what it is.
type Position struct {
	Step   int64  `json:"step"`   // commits applied
	Digest string `json:"digest"` // of parameters, momentum, key encoder and buffers

	// Shards is the digest of each queue shard held and sound, "" for the others.
	Shards []string `json:"shards,omitempty"`
}

// Pending is a step that a replica voted Ready for and has not seen committed:
// it still holds the reduced gradients.
type Pending struct {
	Round  int64  `json:"round"`
	Step   int64  `json:"step"`
	Digest string `json:"digest"`
}

// Hello asks for admission. It is sent on start; once more, with Config set, when
// all is built that a round needs (engine, network, data): only then the replica
// becomes a member; and again whenever the coordinator answers Again (it has
// restarted or had given the replica up).
type Hello struct {
	ID       string    `json:"id"`              // unique to this process
	Name     string    `json:"name"`            // --name, for people
	Binary   string    `json:"binary"`          // build identity; must equal the coordinator's
	Config   string    `json:"config"`          // digest of the Config it is ready to run, "" until it is
	Data     Data      `json:"data"`            // Kind "" before the first Welcome
	Engine   string    `json:"engine"`          // engine.Info.Name
	Numerics string    `json:"numerics"`        // engine.Info.Numerics; the same for all replicas of a job
	Threads  int       `json:"threads"`         //
	BulkURL  string    `json:"bulk_url"`        // where the ring successor subscribes; "" = the coordinator's server
	Gossip   string    `json:"gossip"`          // memberlist host:port, "" when none
	State    *Position `json:"state,omitempty"` // nil: holds none
	Pending  *Pending  `json:"pending,omitempty"`

	Leader  string     `json:"leader,omitempty"`  // instance of the coordinator that it has obeyed last, "": none
	Head    *Head      `json:"head,omitempty"`    // the end of the history that it keeps; nil: it keeps none
	Round   int64      `json:"round,omitempty"`   // the last one that it heard of
	Members []string   `json:"members,omitempty"` // ids of the members of that round
	Stored  []Position `json:"stored,omitempty"`  // what its state was after the last steps that became checkpoints

	// Uploading is the step of the checkpoint that it is sending, or is about to: one
	// that was started again would not know, and ask for another in its place.
	Uploading int64 `json:"uploading,omitempty"`

	Device   string            `json:"device,omitempty"`   // engine.Info.Device
	Versions map[string]string `json:"versions,omitempty"` // engine.Info.Versions
}

// Welcome admits a replica: once it has said that it is ready (Hello.Config) it
// becomes a member at the next step boundary, with the next Round.
type Welcome struct {
	Instance string     `json:"instance"` // this run of the coordinator
	Config   config.Job `json:"config"`   // everything a replica needs to know
	Data     Data       `json:"data"`     // what the job trains on; Kind "" while the first replica's is awaited
	Gossip   []string   `json:"gossip"`   // memberlist peers to join

	// Coordinators are the addresses, HOST:PORT, of all that may lead the job; none
	// where there is only the one that was joined.
	Coordinators []string `json:"coordinators,omitempty"`
}

// Refused ends a replica: Field names what differs.
type Refused struct {
	Field string `json:"field"`
	Want  string `json:"want"`
	Got   string `json:"got"`
	Hint  string `json:"hint"`
}

// Source says where a member gets its state at the start of a round.
type Source string

// The sources.
const (
	FromSelf       Source = "self"       // what it holds is current
	FromPeer       Source = "peer"       // broadcast by Round.Donor
	FromCheckpoint Source = "checkpoint" // downloaded from the coordinator (Round.Checkpoint)
	FromSeed       Source = "seed"       // initial values from Config.Seed
)

// Member is one replica of a round. Its rank is its index in Round.Members.
type Member struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	BulkURL string `json:"bulk_url"`
	Groups  []int  `json:"groups"` // BatchNorm groups it computes, ascending, in whole units of Config.GroupsAtOnce; may be empty only when there are more members than units
	State   Source `json:"state"`
}

// Round starts a round. A replica drops whatever it was doing in an older one
// (nothing of it was applied), rebuilds the ring and runs Step.
type Round struct {
	Round      int64    `json:"round"`
	Step       int64    `json:"step"`       // the first step to run: commits so far + 1
	Cursor     int64    `json:"cursor"`     // samples committed so far
	Members    []Member `json:"members"`    // by rank
	Donor      int      `json:"donor"`      // rank that broadcasts the state, −1 when nobody needs it
	Checkpoint string   `json:"checkpoint"` // name to download for FromCheckpoint
	Reason     string   `json:"reason"`     // for people: "replica b lost: connection closed"

	// Last is the commit that the round goes on from, without its groups; nil when it
	// is not known. Who gets the state from a member has the end of the history with it.
	Last *Commit `json:"last,omitempty"`

	// Holders is who holds each queue shard in this round, by shard: ranks, the
	// owner first, who evaluates it. There is no such list unless the queue is
	// Spread.
	Holders [][]int `json:"holders,omitempty"`
	// Transfers are the copies to be made before the first step, in this order.
	// What a member holds no longer it keeps until that step is committed.
	Transfers []Transfer `json:"transfers,omitempty"`
	// Key is what the frames of the round's ring are authenticated by, 32 bytes that its
	// members alone are told; none unless --ring-security is plain.
	Key []byte `json:"key,omitempty"`
	// Save: there is no step; the members store their state as the checkpoint
	// of Step−1 and wait for another message.
	Save bool `json:"save,omitempty"`
	// Trial: there is no step; every member computes these groups of Step, in whole
	// units, answers with a Ready that has its results of them, and waits for
	// another message.
	Trial []int `json:"trial,omitempty"`
}

// Spread says whether the queue's shards are spread over the members, as
// Holders has it. Otherwise every member holds and evaluates all of them.
func (r *Round) Spread() bool { return len(r.Holders) > 0 }

// Transfer brings a queue shard to members that lack it.
type Transfer struct {
	Shard  int    `json:"shard"`
	From   int    `json:"from"` // rank
	To     []int  `json:"to"`   // ranks
	Digest string `json:"digest"`
}

// GroupReport is what one BatchNorm group contributed to a step: sums over its
// queries.
type GroupReport struct {
	Group int `json:"group"`
	figures.Figures
}

// NotFinite is a Recount's digest of numbers of which one is NaN or infinite.
const NotFinite = "not finite"

// Recount is one member's result of a group that another computes too, or it
// itself twice (package audit). It has two parts, since the second follows from
// the keys of the whole batch, and thus from what other members computed.
type Recount struct {
	Group int    `json:"group"`
	Key   string `json:"key"`   // digest of the group's keys and their statistics; NotFinite
	Query string `json:"query"` // digest of gradients, statistics and figures, which follow from Ready.Keys; NotFinite
}

// Ready is a member's vote: it holds the reduced gradients of a step.
type Ready struct {
	Round  int64              `json:"round"`
	Step   int64              `json:"step"`
	Digest string             `json:"digest"` // of the reduced gradients and statistics; equal on all members
	Groups []GroupReport      `json:"groups"`
	BusyMS float64            `json:"busy_ms"` // time spent computing its groups; what groups are dealt by
	Phases map[string]float64 `json:"phases"`  // ms by name, of what came before the vote

	// CPU is the processor time, in ms, of --probe, and of those phases that are there only because
	// a step is a transaction.
	CPU map[string]float64 `json:"cpu,omitempty"`

	// Recounts are its results of the groups that are computed twice, those dealt
	// to it and those that it computed besides; Keys is the digest of the keys of
	// the batch that they follow from. In a trial (Round.Trial) they are all that a
	// vote has.
	Recounts []Recount `json:"recounts,omitempty"`
	Keys     string    `json:"keys,omitempty"`

	Sums *Sums `json:"sums,omitempty"` // nil: nobody looked
}

// Sums is what a member's second look at a part of its additions found, when it
// added up a step's gradients around the ring (allreduce.Check).
type Sums struct {
	Wrong int    `json:"wrong,omitempty"` // elements that it added wrongly, or that changed in its hands
	Sent  uint64 `json:"sent,string"`     // hash of what it passed on to the member of the next rank
	Got   uint64 `json:"got,string"`      // hash of what came from the member of the rank before: that one's Sent
}

// Commit makes a step final. It carries the momentum-encoder update (Momentum
// and the digest of the reduced gradients it follows from).
type Commit struct {
	Step       int64         `json:"step"`            // commits so far, this one included
	Round      int64         `json:"round"`           // the round that computed it
	Term       uint64        `json:"term,omitempty"`  // of the leader that logged it
	Chain      string        `json:"chain,omitempty"` // running digest of this commit and all before it (Link)
	Seal       string        `json:"seal,omitempty"`  // by which a coordinator knows that one of this job logged it (Head.Sealed); "" where there are no keys
	Epoch      int           `json:"epoch"`
	Cursor     int64         `json:"cursor"` // samples committed before this step; it covers [Cursor, Cursor+Batch)
	Batch      int           `json:"batch"`
	QueueStart int           `json:"queue_start"` // slot of the first key; Batch slots with wrap-around
	LR         float64       `json:"lr"`
	Momentum   float64       `json:"momentum"`             // m
	Digest     string        `json:"digest"`               // of the reduced gradients
	Groups     []GroupReport `json:"groups"`               // by group
	Checkpoint bool          `json:"checkpoint,omitempty"` // rank 0 uploads its state after applying
	EndRound   bool          `json:"end_round,omitempty"`  // wait for the next Round before another step
	Final      bool          `json:"final,omitempty"`      // the last step of the job or before an orderly stop
}

// Applied reports the state after a commit. The coordinator compares.
type Applied struct {
	Round       int64    `json:"round"`
	Step        int64    `json:"step"`
	Digest      string   `json:"digest"`            // of the query parameters
	StateDigest string   `json:"state_digest"`      // of everything but the queue, as Position.Digest
	Shards      []string `json:"shards"`            // digest of each queue shard, "" where it is not held
	Damaged     []int    `json:"damaged,omitempty"` // shards that no longer match their own checksums

	Phases map[string]float64 `json:"phases,omitempty"` // as those of Ready, of what came after the vote
	CPU    map[string]float64 `json:"cpu,omitempty"`    // likewise
}

// Phases of a step, as Ready and Applied measure them, that are there because a
// step is a transaction, and that in which it is applied. Before them come load,
// key_forward, gather, query and reduce, and audit where there is one.
const (
	MeasureDigest  = "digest"  // of the sums
	MeasureVote    = "vote"    // it is sent
	MeasureCommit  = "commit"  // it is waited for: the other votes, the log, the way there and back
	MeasureApply   = "apply"   //
	MeasureApplied = "applied" // digests of the state, and the queue's checksums
)

// MeasureProbe is the phase of what --probe costs, before the vote and after it.
const MeasureProbe = "probe"

// Failed reports that a step could not be finished; nothing was applied.
type Failed struct {
	Round   int64  `json:"round"`
	Step    int64  `json:"step"`
	Suspect string `json:"suspect,omitempty"`  // id of the peer that did not answer, if one is known
	Fatal   bool   `json:"fatal"`              // trying again would not help anybody: the training diverged, the deal does not fit
	Leaves  bool   `json:"leaves,omitempty"`   // trouble of this replica's own (memory, files, a device): it ends with the error, the others go on
	Follows bool   `json:"follows,omitempty"`  // another member found the failure and reports it itself
	NoState bool   `json:"no_state,omitempty"` // it holds no usable state any more: the next round must bring one
	Error   string `json:"error"`

	// NotFinite: the step came to a NaN or an infinity, by divergence or by wrong
	// arithmetic (Fatal as well). Recounts are those of its own groups that have one,
	// with Keys as in Ready; "" where the keys were not gathered.
	NotFinite bool      `json:"not_finite,omitempty"`
	Recounts  []Recount `json:"recounts,omitempty"`
	Keys      string    `json:"keys,omitempty"`

	// Damaged are queue shards that it was to send and that no longer match
	// their own checksums.
	Damaged []int `json:"damaged,omitempty"`

	// Unsaved is the step whose checkpoint this replica was to upload and could
	// not put together, 0 when none. It counts whatever Round is.
	Unsaved int64 `json:"unsaved,omitempty"`
}

// Leaving announces an orderly leave: the member takes part until a Commit
// with EndRound, then goes.
type Leaving struct {
	Reason string `json:"reason"`
	// GraceMS is how long it can wait for that, in ms; 0: as long as it takes. A
	// step that would take longer is given up, and run again without it.
	GraceMS int64 `json:"grace_ms,omitempty"`
}

// Drain asks the coordinator to let replicas go as if each had said Leaving. It
// is answered with Drained, at once; whoever wants to know when they have gone
// asks again.
type Drain struct {
	Replica string `json:"replica"` // name or id
	GraceMS int64  `json:"grace_ms,omitempty"`
}

// Drained answers a Drain.
type Drained struct {
	Leaving []string `json:"leaving"` // ids of those of that name that are still here
	Left    []string `json:"left"`    // ids of those that were let go at once
	Others  []string `json:"others"`  // names of all others, for people
}

// HeartbeatEvery is how often a replica shows life.
const HeartbeatEvery = 200 * time.Millisecond

// Phases of a replica, as heartbeats name them. In the first two it waits for
// the coordinator: a member that stays in one of them although the coordinator
// waits for it has lost a message. In all others it is at work.
const (
	PhaseReady   = "ready"   // it voted
	PhaseWaiting = "waiting" // it has nothing to do: it is ready for a round, or reported Failed

	PhaseBuilding  = "building"  // engine, network and data for the job, after the first Welcome
	PhasePreparing = "preparing" // the state, the ring and the shards of a round
	PhaseComputing = "computing" // a step, up to its vote
	PhaseApplying  = "applying"  // a commit
	PhaseSaving    = "saving"    // a checkpoint is put together
	PhaseUploading = "uploading" // a checkpoint that the step loop waits for travels
)

// Heartbeat shows life, at an interval of HeartbeatEvery, and progress: Done is
// raised whenever a piece of work is finished, however small. A replica whose
// heartbeat stays the same while it is at work and not waiting for Peers hangs.
type Heartbeat struct {
	Instance string `json:"instance"` // the coordinator it believes in
	Round    int64  `json:"round"`
	Step     int64  `json:"step"`
	Phase    string `json:"phase"`
	Done     int64  `json:"done,omitempty"`  // pieces of work finished since it started: units, collectives, broadcasts
	Peers    bool   `json:"peers,omitempty"` // it waits for other members, in a collective
}

// Again answers a message of a replica that the coordinator does not know.
type Again struct {
	Instance string `json:"instance"`
}

// Snapshot asks a replica outside a step to upload its state as the checkpoint
// of Step: the member that should have done so was lost. A replica that stands
// elsewhere ignores it.
type Snapshot struct {
	Step int64 `json:"step"`
}

// Stop ends the job for a replica.
type Stop struct {
	Reason string `json:"reason"`
	Failed bool   `json:"failed"` // the job failed: exit non-zero
}

// Status answers a request on StatusSubject.
type Status struct {
	Job       string         `json:"job"`
	Phase     string         `json:"phase"` // waiting, running, stopping, done, failed
	Reason    string         `json:"reason"`
	Since     string         `json:"since,omitempty"` // RFC 3339: since when Reason has been so
	Step      int64          `json:"step"`
	Steps     int64          `json:"steps"` // of the whole job
	Epoch     int            `json:"epoch"`
	Round     int64          `json:"round"`
	World     int            `json:"world"`
	Loss      float64        `json:"loss"`
	ImagesPS  float64        `json:"images_per_s"`
	Data      Data           `json:"data"`
	Replicas  []ReplicaState `json:"replicas"`
	Queue     QueueState     `json:"queue"`
	Audits    AuditState     `json:"audits"`
	StartedAt string         `json:"started_at"` // RFC 3339
	Term      uint64         `json:"term"`       // of the leader: it rises with every start of one

	Insecure bool `json:"insecure,omitempty"` // whoever reaches the coordinator may come (--insecure)

	Group *GroupState `json:"group,omitempty"` // of coordinators; none where one is alone
}

// QueueState is the negative queue in a Status.
type QueueState struct {
	Copies  string       `json:"copies"`           // all, or R
	Pairs   string       `json:"pairs"`            // all, or shard: what pairs of hard negatives are drawn from
	Shards  []ShardState `json:"shards,omitempty"` // by shard; none when every member holds all, or between rounds
	Repairs int          `json:"repairs"`          // copies that differed and were replaced, since this coordinator started
	Moved   int          `json:"moved"`            // copies sent because members came and went, likewise
}

// AuditState is how often groups were computed twice in a Status, in the whole job
// (of what came after the last checkpoint, a coordinator that was killed may have
// forgotten).
type AuditState struct {
	Every   int64    `json:"every"`              // every member is audited once in so many steps; 0: never
	Done    int      `json:"done"`               // groups computed twice and compared
	Failed  int      `json:"failed"`             // of those, that differed
	LeftOut []string `json:"left_out,omitempty"` // replicas left out for wrong results: name (id)
}

// ShardState is who holds a shard of the queue, by id.
type ShardState struct {
	Owner  string   `json:"owner"`
	Copies []string `json:"copies"`
}

// ReplicaState is one replica in a Status.
type ReplicaState struct {
	ID     string  `json:"id"`
	Name   string  `json:"name"`
	Engine string  `json:"engine"`
	State  string  `json:"state"`            // building, joining, waiting, excluded, member, leaving, standby
	Why    string  `json:"why,omitempty"`    // it is excluded, or waits; in words
	Until  string  `json:"until,omitempty"`  // RFC 3339: how long it is excluded or waits
	Faults int     `json:"faults,omitempty"` // rounds that failed because of it, or of a peer and it, lately
	Phase  string  `json:"phase,omitempty"`  // what it does, by its last heartbeat
	Since  string  `json:"since,omitempty"`  // RFC 3339: its last progress
	Rank   int     `json:"rank"`             // −1 when not in the round
	Groups int     `json:"groups"`
	StepMS float64 `json:"step_ms"` // its own computation, smoothed

	Device   string            `json:"device"`   // what the engine runs on
	Versions map[string]string `json:"versions"` // of driver and libraries, by name: driver, cuda, cudnn, cublas, nvrtc; onednn
}
