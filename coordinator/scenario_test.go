package coordinator

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/figures"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what the core does now")

// TestScenarios replays the histories in testdata. A file is a sequence of
// blocks: commands, a line "----", and what the core does. The commands are
// methods of scenario; "*" stands for every member of the round.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("scenarios: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { replay(t, file) })
	}
}

func replay(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := newScenario(t)
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		input, want, _ := strings.Cut(strings.TrimSpace(block), "\n----")
		s.out = nil
		for line := range strings.Lines(input) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				s.command(line)
			}
		}
		got := strings.Join(merge(s.out), "\n")
		fmt.Fprintf(&out, "%s\n", strings.TrimSpace(input+"\n----\n"+got)+"\n")
		if got != strings.TrimSpace(want) && !*update {
			t.Fatalf("after\n%s\nthe core did\n%s\nnot\n%s", input, got, strings.TrimSpace(want))
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// merge joins equal messages to several replicas into one line.
func merge(lines []string) []string {
	var out []string
	for _, line := range lines {
		to, what, sent := strings.Cut(line, " <- ")
		if n := len(out) - 1; sent && n >= 0 {
			if all, same, ok := strings.Cut(out[n], " <- "); ok && same == what {
				out[n] = all + " " + to + " <- " + what
				continue
			}
		}
		out = append(out, line)
	}
	return out
}

type scenario struct {
	t    *testing.T
	core *Core
	cfg  CoreConfig
	now  time.Time
	out  []string
	args map[string]string

	beats int64
}

func newScenario(t *testing.T) *scenario {
	return &scenario{
		t: t, now: time.Unix(1e9, 0),
		cfg: CoreConfig{
			Instance: "one", Binary: "build", ConfigDigest: "cfg",
			Training: config.Job{
				Batch: 4, BNGroup: 1, Queue: 10, Pairs: "shard", Epochs: 2, Steps: 1000, Momentum: 0.99, MinReplicas: 1,
			},
			Limits: Limits{Joins: -1},                                                    // whoever comes joins at once
			LR:     func(epoch float64) float64 { return 0.1 / (math.Floor(epoch) + 1) }, // constant inside an epoch
		},
	}
}

func (s *scenario) step(in Input) {
	if s.core == nil {
		s.core = NewCore(s.cfg)
	}
	plan := s.core.Step(s.now, in)
	for _, a := range plan.Actions {
		s.out = append(s.out, show(a))
		if note, ok := a.(Note); ok {
			s.cfg.Audits = note.Text // what a restart finds
		}
	}
}

func (s *scenario) num(key string, def int64) int64 {
	v, ok := s.args[key]
	if !ok {
		return def
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		s.t.Fatalf("%s=%s: %v", key, v, err)
	}
	return n
}

func (s *scenario) str(key, def string) string {
	if v, ok := s.args[key]; ok {
		return v
	}
	return def
}

func (s *scenario) members(names string) []string {
	if names != "*" {
		return strings.Split(names, ",")
	}
	var ids []string
	if r := s.core.course.Round(); r != nil {
		for _, m := range r.Members() {
			ids = append(ids, m.ID())
		}
	}
	return ids
}

func (s *scenario) from(id string, m protocol.Message) {
	m.Version, m.From = protocol.Version, id
	s.step(Received{m})
}

// current is the round's number and the step it votes on.
func (s *scenario) current() (round, step int64) {
	if r := s.core.course.Round(); r != nil {
		return r.Number(), r.Step()
	}
	return s.core.course.Last(), s.core.history.At() + 1
}

func (s *scenario) command(line string) {
	fields := strings.Fields(line)
	name := fields[0]
	var who string
	s.args = map[string]string{}
	for _, f := range fields[1:] {
		if k, v, ok := strings.Cut(f, "="); ok {
			s.args[k] = v
		} else {
			who = f
		}
	}
	if name != "tick" && name != "pass" {
		s.now = s.now.Add(10 * time.Millisecond)
	}
	switch name {
	case "job":
		s.job()
	case "restart": // what a new coordinator would know
		s.restart()
	case "hello":
		for id := range strings.SplitSeq(who, ",") {
			s.hello(id)
		}
	case "ready":
		for _, id := range s.members(who) {
			s.ready(id)
		}
	case "applied":
		for _, id := range s.members(who) {
			s.applied(id)
		}
	case "step": // a whole step without trouble
		for _, id := range s.members("*") {
			s.ready(id)
		}
		s.step(Appended{s.core.history.At() + 1})
		for _, id := range s.members("*") {
			s.applied(id)
		}
	case "appended":
		s.step(Appended{s.num("step", s.core.history.At()+1)})
	case "append-failed":
		s.step(AppendFailed{Step: s.core.history.At() + 1, Fenced: who == "fenced", Error: "no luck"})
	case "lost":
		s.step(Lost{who, "connection closed"})
	case "unsaved":
		round, step := s.current()
		s.from(who, protocol.Message{Failed: &protocol.Failed{Round: s.num("round", round), Step: step, Unsaved: s.num("step", s.core.history.At()), Error: "ring"}})
	case "hint":
		s.step(Hint{who, true})
	case "failed":
		round, step := s.current()
		s.from(who, protocol.Message{Failed: &protocol.Failed{
			Round: s.num("round", round), Step: s.num("step", step), Suspect: s.str("suspect", ""),
			Fatal: s.num("fatal", 0) > 0, NoState: s.num("nostate", 0) > 0, Leaves: s.num("leaves", 0) > 0, Error: s.str("error", "timeout"),
		}})
	case "infinite": // groups=0,1: these of its own came to no number; key=1: so did their keys
		s.infinite(who)
	case "leave":
		grace := must(time.ParseDuration(s.str("grace", "0s")))
		s.from(who, protocol.Message{Leaving: &protocol.Leaving{GraceMS: grace.Milliseconds()}})
	case "drain":
		grace := must(time.ParseDuration(s.str("grace", "0s")))
		s.from("op", protocol.Message{Drain: &protocol.Drain{Replica: who, GraceMS: grace.Milliseconds()}})
	case "beat":
		round, step := s.current()
		for _, id := range s.members(who) {
			s.from(id, protocol.Message{Heartbeat: &protocol.Heartbeat{
				Round: s.num("round", round), Step: s.num("step", step), Phase: s.str("phase", "computing"),
				Done: s.num("done", 0), Peers: s.num("peers", 0) > 0,
			}})
		}
	case "pass": // time, with everybody alive and getting on
		d := must(time.ParseDuration(who))
		for ; d > 0; d -= min(d, time.Second) {
			s.now = s.now.Add(min(d, time.Second))
			for _, m := range s.core.roster.All() {
				s.beats++
				s.from(m.ID(), protocol.Message{Heartbeat: &protocol.Heartbeat{Phase: "computing", Done: s.beats}})
			}
			s.step(Tick{})
		}
	case "tick":
		s.now = s.now.Add(must(time.ParseDuration(who)))
		s.step(Tick{Stood: must(time.ParseDuration(s.str("stood", "0s")))})
	case "arriving":
		s.step(Arriving{From: who, Step: s.num("step", 0)})
	case "stored":
		s.step(Stored{Name: "step-" + who, Step: int64(must(strconv.Atoi(who)))})
	case "store-failed":
		s.step(StoreFailed{Step: int64(must(strconv.Atoi(who))), Error: "disk full"})
	case "recalled":
		s.recalled(who)
	case "adopted":
		s.step(Adopted{})
	case "led":
		s.step(Led{uint64(must(strconv.Atoi(who)))})
	case "stop":
		s.step(StopRequested{"interrupt"})
	case "reason":
		s.out = append(s.out, s.core.course.Explain())
	case "status":
		st := s.core.Status()
		s.out = append(s.out, fmt.Sprintf("%s step=%d/%d epoch=%d round=%d world=%d", st.Phase, st.Step, st.Steps, st.Epoch, st.Round, st.World))
		for v, shard := range st.Queue.Shards {
			s.out = append(s.out, fmt.Sprintf("  shard %d: %s %v", v, shard.Owner, shard.Copies))
		}
		if a := st.Audits; a.Every > 0 {
			s.out = append(s.out, fmt.Sprintf("  audits every %d steps: %d done, %d failed, left out %v", a.Every, a.Done, a.Failed, a.LeftOut))
		}
		if q := st.Queue; q.Repairs > 0 {
			s.out = append(s.out, fmt.Sprintf("  %d repaired", q.Repairs))
		}
		for _, r := range st.Replicas {
			line := fmt.Sprintf("  %s %s rank=%d groups=%d", r.ID, r.State, r.Rank, r.Groups)
			if r.Faults > 0 {
				line += fmt.Sprintf(" faults=%d", r.Faults)
			}
			if until, err := time.Parse(time.RFC3339, r.Until); err == nil {
				line += fmt.Sprintf(" for=%v (%s)", until.Sub(s.now).Round(time.Second), r.Why)
			}
			s.out = append(s.out, line)
		}
	default:
		s.t.Fatalf("unknown command %q", line)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// job sets the configuration; checkpoint=c and head=h with commits c+1…h in
// the log, whose gradients have the digest g<step>.
func (s *scenario) job() {
	t := &s.cfg.Training
	t.MinReplicas = int(s.num("min", 1))
	t.MaxReplicas = int(s.num("max", 0))
	t.Batch, t.GroupsAtOnce = int(s.num("groups", 4)), int(s.num("at-once", 1))
	t.Steps = s.num("steps", 1000)
	t.CheckpointEvery = s.num("every", 0)
	if every := s.num("audit", 0); every > 0 { // each member in one step of so many
		t.Audit = 1 / float64(every)
	}
	t.QueueCopies, t.Pairs, t.QueueShards = s.str("copies", "all"), "shard", int(s.num("shards", 1))
	if n := s.num("train", 0); n > 0 {
		s.cfg.Data = protocol.Data{Kind: "idx", Train: int(n), Classes: 10, Digest: "data", JPEG: "turbo"}
	}
	s.cfg.Checkpoint, s.cfg.Head, s.cfg.Tail = nil, nil, nil
	if c := s.num("checkpoint", 0); c > 0 {
		s.cfg.Checkpoint = &Checkpoint{Name: fmt.Sprintf("step-%d", c), Step: c, Cursor: c * int64(t.Batch)}
	}
	head := s.num("head", 0)
	for step := s.num("checkpoint", 0) + 1; step <= head; step++ {
		s.cfg.Tail = append(s.cfg.Tail, s.commit(step, "g", uint64(s.num("term", 0))))
	}
	s.cfg.Term, s.cfg.Since, s.cfg.Recorded = uint64(s.num("term", 0)), uint64(s.num("since", 0)), s.num("recorded", 0)
	s.cfg.Rebuild = s.num("rebuild", 0) > 0
	if head > 0 {
		last := s.commit(head, "g", uint64(s.num("term", 0)))
		s.cfg.Head = &last
	}
	s.cfg.Limits.RebalanceMin = int(s.num("rebalance", 0))
	if s.cfg.Limits.Joins = time.Duration(s.num("joins", -1)); s.cfg.Limits.Joins > 0 {
		s.cfg.Limits.Joins *= time.Second
	}
	s.cfg.Limits.GiveUp = time.Duration(s.num("give-up", 0)) * time.Second
	if s.num("cold", 0) > 0 {
		s.cfg.Limits.Grace = -1
	}
	s.core = NewCore(s.cfg)
}

func (s *scenario) restart() {
	old := s.core.history
	s.cfg.Instance, s.cfg.Data, s.cfg.Round = "two", s.core.data, s.core.course.Last()
	s.cfg.Checkpoint, s.cfg.Head, s.cfg.Tail = old.Checkpoint(), old.Last(), nil
	for step := range old.Head() {
		logged, ok := old.Logged(step + 1)
		cursor, _ := old.CursorAfter(step + 1)
		if batch := s.cfg.Training.Batch; ok {
			s.cfg.Tail = append(s.cfg.Tail, protocol.Commit{Step: step + 1, Batch: batch, Cursor: cursor - int64(batch), Digest: logged.Digest, Term: logged.Term, Chain: logged.Chain})
		}
	}
	s.core = NewCore(s.cfg)
}

// hello: step=n holds the state after n; pending=n voted for n, too.
func (s *scenario) hello(id string) {
	h := protocol.Hello{
		ID: id, Name: s.str("name", strings.ToUpper(id)), Binary: s.str("binary", "build"), Config: s.str("config", "cfg"),
		Numerics: s.str("numerics", ""),
		Data:     protocol.Data{Kind: "idx", Train: int(s.num("train", 40)), Classes: int(s.num("classes", 10)), Digest: s.str("data", "data"), JPEG: s.str("jpeg", "turbo")},
	}
	if step := s.num("step", -1); step >= 0 {
		h.State = &protocol.Position{Step: step, Digest: s.str("digest", fmt.Sprintf("s%d", step))}
	}
	if h.State != nil && s.args["holds"] != "" { // holds=0,2: these shards
		h.State.Shards = make([]string, s.cfg.Training.QueueShards)
		for v := range strings.SplitSeq(s.args["holds"], ",") {
			h.State.Shards[must(strconv.Atoi(v))] = fmt.Sprintf("v%s.%d", v, h.State.Step)
		}
	}
	if step := s.num("pending", -1); step >= 0 {
		h.Pending = &protocol.Pending{Round: s.num("round", 3), Step: step, Digest: s.str("gradients", fmt.Sprintf("g%d", step))}
	}
	h.Round, h.Leader = s.num("round", 0), s.str("leader", "")
	if all := s.str("members", ""); all != "" {
		h.Members = strings.Split(all, ",")
	}
	if head := s.num("head", 0); head > 0 { // it keeps the commits first…head, of the history with digests of=g
		last := s.commit(head, s.str("of", "g"), uint64(s.num("logged", 0)))
		h.Head = &protocol.Head{First: s.num("first", 1), Step: head, Term: last.Term, Chain: last.Chain}
	}
	s.step(Received{protocol.Message{
		Version: int(s.num("v", protocol.Version)), From: id, Term: uint64(s.num("term", 0)), Hello: &h,
	}})
}

// commit is that of a step, in the history whose gradients have digests that begin so.
func (s *scenario) commit(step int64, of string, term uint64) protocol.Commit {
	var c protocol.Commit
	for n := int64(1); n <= step; n++ {
		batch := s.cfg.Training.Batch
		c = protocol.Commit{
			Step: n, Round: 3, Term: term, Batch: batch, Cursor: (n - 1) * int64(batch), Digest: fmt.Sprintf("%s%d", of, n), Chain: c.Chain,
		}
		c.Chain = c.Link(c.Chain)
	}
	return c
}

// recalled: from=a to=b sends those commits.
func (s *scenario) recalled(id string) {
	a := &protocol.Recalled{From: s.num("from", 1)}
	for step := a.From; step <= s.num("to", 0); step++ {
		a.Commits = append(a.Commits, s.commit(step, s.str("of", "g"), uint64(s.num("logged", 0))))
	}
	s.from(id, protocol.Message{Recalled: a})
}

func (s *scenario) ready(id string) {
	round, step := s.current()
	round, step = s.num("round", round), s.num("step", step)
	v := protocol.Ready{Round: round, Step: step, Digest: s.str("digest", fmt.Sprintf("g%d", step))}
	v.Phases = map[string]float64{"query": 5}
	loss := 2.0
	if s.str("loss", "") == "nan" {
		loss = math.NaN()
	}
	if m, r := s.core.roster.Get(id), s.core.course.Round(); m != nil && r != nil && m.Rank() >= 0 {
		for _, g := range r.Groups(m) {
			v.Groups = append(v.Groups, protocol.GroupReport{Group: g, Figures: figures.Figures{Loss: loss, Proxy: 1}})
		}
	}
	v.Recounts, v.Keys = s.recounts(id)
	if s.args["sums"] != "" || s.args["sent"] != "" || s.args["got"] != "" { // what its second look found
		v.Sums = &protocol.Sums{Wrong: int(s.num("sums", 0)), Sent: uint64(s.num("sent", 0)), Got: uint64(s.num("got", 0))}
	}
	v.BusyMS = float64(s.num("ms", 10)) * float64(len(v.Groups))
	s.from(id, protocol.Message{Ready: &v})
}

func (s *scenario) applied(id string) {
	round, step := s.current()
	if s.core.course.Round() != nil {
		step--
	}
	step = s.num("step", step)
	a := &protocol.Applied{
		Round: s.num("round", round), Step: step, Digest: "q" + strconv.FormatInt(step, 10),
		StateDigest: s.str("digest", fmt.Sprintf("s%d", step)), Shards: []string{s.str("shard", "0")},
	}
	if s.cfg.Training.Copies() > 0 {
		a.Shards = s.shards(id, step)
		if bad := s.num("bad", -1); bad >= 0 { // shard bad has changed
			a.Shards[bad] = "flipped"
		}
		if bad := s.num("damaged", -1); bad >= 0 { // and its holder knows
			a.Shards[bad], a.Damaged = "flipped", []int{int(bad)}
		}
	}
	s.from(id, protocol.Message{Applied: a})
}

// show prints an action as the scenario files have it.
func show(a Action) string {
	switch a := a.(type) {
	case Append:
		c, anew := a.Commit, ""
		if a.Anew {
			anew = " anew"
		}
		return fmt.Sprintf("append %d%s round=%d epoch=%d cursor=%d slot=%d lr=%.3g digest=%s groups=%d", c.Step, anew, c.Round, c.Epoch, c.Cursor, c.QueueStart, c.LR, c.Digest, len(c.Groups))
	case Record:
		replayed := ""
		if a.Replayed {
			replayed = " replayed"
		}
		return fmt.Sprintf("record %d world=%d loss=%.3g proxy=%.3g state=%s%s", a.Commit.Step, a.World, a.Loss, a.Proxy, a.StateDigest, replayed)
	case Report:
		var fields []string
		for _, attr := range event.Attrs(a.Event) {
			fields = append(fields, attr.String())
		}
		slices.Sort(fields)
		return fmt.Sprintf("event %q %s", a.Event.EventName(), strings.Join(fields, " "))
	case Remember:
		return "remember " + a.Data.Kind
	case Note:
		return "note " + a.Name
	case Reserve:
		return fmt.Sprintf("reserve round %d", a.Round)
	case Lead:
		return fmt.Sprintf("lead above %d", a.Above)
	case Adopt:
		return fmt.Sprintf("adopt %d to %d", a.Commits[0].Step, a.Commits[len(a.Commits)-1].Step)
	case Finish:
		how := "ok"
		if a.Failed {
			how = "failed"
		}
		if a.Fenced {
			how += " (fenced)"
		}
		if a.Short {
			how += " (the log is short)"
		}
		return fmt.Sprintf("finish %s: %s", how, a.Reason)
	case Send:
		return a.To + " <- " + showMessage(a.Message)
	}
	return fmt.Sprintf("%T", a)
}

func showMessage(m protocol.Message) string {
	switch {
	case m.Welcome != nil:
		return "welcome from " + m.Welcome.Instance
	case m.Refused != nil:
		return fmt.Sprintf("refused: %s is %q, not %q", m.Refused.Field, m.Refused.Got, m.Refused.Want)
	case m.Round != nil:
		r := m.Round
		text := fmt.Sprintf("round %d step=%d cursor=%d", r.Round, r.Step, r.Cursor)
		for _, member := range r.Members {
			text += fmt.Sprintf(" %s:%s%v", member.ID, member.State, member.Groups)
		}
		if r.Donor >= 0 {
			text += fmt.Sprintf(" donor=%d", r.Donor)
		}
		text += strings.TrimRight(" "+r.Checkpoint, " ")
		for v, ranks := range r.Holders {
			text += fmt.Sprintf(" shard%d:%v", v, ranks)
		}
		for _, t := range r.Transfers {
			text += fmt.Sprintf(" send%d:%d→%v", t.Shard, t.From, t.To)
		}
		if r.Save {
			text += " save"
		}
		if len(r.Trial) > 0 {
			text += fmt.Sprintf(" trial%v", r.Trial)
		}
		return text
	case m.Commit != nil:
		text := fmt.Sprintf("commit %d", m.Commit.Step)
		if m.Commit.Checkpoint {
			text += " +checkpoint"
		}
		if m.Commit.EndRound {
			text += " +end"
		}
		if m.Commit.Final {
			text += " +final"
		}
		return text
	case m.Stop != nil:
		return fmt.Sprintf("stop failed=%v: %s", m.Stop.Failed, m.Stop.Reason)
	case m.Again != nil:
		return "again"
	case m.Recall != nil:
		return fmt.Sprintf("recall from %d", m.Recall.From)
	case m.Snapshot != nil:
		return fmt.Sprintf("snapshot %d", m.Snapshot.Step)
	case m.Drained != nil:
		return fmt.Sprintf("leaving %v, left %v, others %v", m.Drained.Leaving, m.Drained.Left, m.Drained.Others)
	}
	return fmt.Sprintf("%+v", m)
}
