package coordinator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"mochi/coordinator/event"
	"mochi/coordinator/jury"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/audit"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
)

// fieldResults is what differs of a replica that computed wrongly.
const fieldResults = "results"

// NoteAudits is the name of the note about wrong arithmetic: who is left out, and the
// case in hand.
const NoteAudits = "audits"

// noteAudits stores what must be known of wrong arithmetic after a restart.
func (c *Core) noteAudits() {
	if text := c.jury.Memory(); c.audits.Every > 0 && text != c.noted {
		c.noted = text
		at := len(c.plan)
		if at > 0 {
			if _, over := c.plan[at-1].(Finish); over { // nothing comes after it
				at--
			}
		}
		c.plan = slices.Insert(c.plan, at, Action(Note{NoteAudits, text}))
	}
}

// checkCase closes a case of an earlier coordinator that this job cannot try: it
// audits no more, or its groups are others.
func (c *Core) checkCase() {
	groups := c.jury.Trial(c.history.At() + 1)
	if len(groups) == 0 {
		return
	}
	total := c.cfg.Training.Groups()
	fits := c.audits.Every > 0 && !slices.ContainsFunc(groups, func(g int) bool { return g < 0 || g >= total })
	if !fits || len(c.units(groups)) != len(groups) {
		c.jury.Close()
	}
}

// audited compares what several members computed of a step that all have voted
// for. False: they differ, so that the step is not committed; the round has ended.
func (c *Core) audited(r *round.Round) bool {
	if c.audits.Every == 0 {
		return true
	}
	deal := c.audits.Deal(r.Step(), announced(r))
	if deal.Empty() {
		return true
	}
	said, own := testimony(r, deal), map[string]bool{}
	for _, m := range r.Members() {
		if len(deal.Own[m.Rank()]) > 0 {
			own[m.ID()] = true
		}
	}
	differ := c.jury.Hear(r.Step(), said, own)
	if len(differ) == 0 {
		return true
	}
	if members := r.Members(); len(members) == 1 {
		c.contradictsItself(r, members[0], differ[0])
		return false
	}
	c.jury.Open(r.Step(), c.units(differ), said)
	c.report(event.AuditDiffers{Step: r.Step(), Groups: differ, By: concerned(r, said, differ)})
	r.End(fmt.Sprintf("step %d: members differ on the result of %s; all compute it again", r.Step(), groupsInWords(differ)))
	return false
}

// judge settles by the votes of a trial who computed wrongly.
func (c *Core) judge(r *round.Round) {
	groups := r.Plan().Trial
	said := testimony(r, audit.Trial(groups, r.World()))
	verdict := c.jury.Judge(said)
	for _, odd := range verdict.Odd {
		if r.World() == 1 {
			c.contradictsItself(r, r.Members()[0], odd.Group)
			return
		}
		c.banish(r, odd)
	}
	what := groupsInWords(groups)
	switch {
	case verdict.NotFinite:
		text := cmp.Or(c.infinite.text, "the result of "+what+" is not finite: training diverged")
		c.fail(fmt.Sprintf("step %d: %s (so say all that computed it: %s)", r.Step(), text, names(r.Members())))
		return
	case verdict.Enough:
		c.fail(fmt.Sprintf("step %d: %s computed different results of %s, again and again: their engine does not compute the same twice, or most of them are faulty; --audit 0 turns the comparison off",
			r.Step(), names(r.Members()), groupsInWords(verdict.Undecided)))
		return
	case len(verdict.Undecided) > 0:
		c.report(event.AuditUndecided{Step: r.Step(), Groups: verdict.Undecided, By: concerned(r, said, verdict.Undecided)})
	}
	r.End(fmt.Sprintf("all have computed %s of step %d again", what, r.Step()))
}

// infinite is a step that came to a NaN or an infinity.
type infinite struct {
	step  int64
	times int
	text  string
}

// maxInfinite is how often a step may come to no number, with nobody being wrong
// by a trial, until it is taken for what it is.
const maxInfinite = 3

// notFinite takes the report that a step came to no number. The training may
// have diverged, which ends the job; or one member computed wrongly. So those of
// its groups that a member says are not finite are tried first.
func (c *Core) notFinite(m *roster.Replica, f protocol.Failed) {
	step := c.history.At() + 1
	if f.Step != step || f.Round < 1 || f.Round > c.course.Last() {
		return
	}
	if len(f.Recounts) > 0 {
		s := jury.Said{ID: m.ID(), Name: m.Name(), Keys: f.Keys, Recounts: f.Recounts, Partial: true}
		for _, r := range f.Recounts {
			if r.Group >= 0 && r.Group < c.cfg.Training.Groups() {
				s.Expected = append(s.Expected, r.Group)
			}
		}
		if len(s.Expected) > 0 {
			c.jury.Accuse(step, c.units(s.Expected[:1]), s) // one unit shows as much as all
		}
	}
	r := c.course.Round()
	if !c.isMember(m) || f.Round != r.Number() || r.Ending() != "" {
		return // the first report has ended the round
	}
	if c.infinite.step != step {
		c.infinite = infinite{step: step}
	}
	c.infinite.times++
	c.infinite.text = f.Error
	if c.infinite.times > maxInfinite {
		c.fail(fmt.Sprintf("replica %s, step %d: %s", m, f.Step, f.Error))
		return
	}
	c.report(event.StepFailed{Replica: about(m), Round: f.Round, Step: f.Step, Error: f.Error})
	r.End(fmt.Sprintf("step %d failed on %s: %s", f.Step, m, f.Error))
	c.patience.StepFailed(c.now) // a pause, in which the others' reports come
}

// banish removes a member that computed wrongly, for good.
func (c *Core) banish(r *round.Round, odd jury.Odd) {
	who := event.Replica{Name: odd.Name, ID: odd.ID}
	c.report(event.AuditFailed{
		Replica: who, Step: r.Step(), Group: odd.Group, Got: odd.Got, Want: odd.Want, Agree: odd.Agree, Sound: c.jury.Sound(odd.ID),
	})
	c.leavesForGood(r, who, fmt.Sprintf("%s (%s) computed a wrong result of group %d at step %d (audit)", who.Name, who.ID, odd.Group, r.Step()))
}

// leavesForGood leaves a member out that computed wrongly.
func (c *Core) leavesForGood(r *round.Round, who event.Replica, why string) {
	namesake := slices.ContainsFunc(c.roster.All(), func(o *roster.Replica) bool { return o.ID() != who.ID && o.Name() == who.Name })
	c.jury.Ban(who.ID, who.Name, why, !namesake)
	m := c.roster.Get(who.ID)
	if m == nil {
		return // it went meanwhile
	}
	c.upload.LostBy(m.ID(), c.now)
	c.roster.Remove(m)
	r.Remove(m)
	r.End(why + "; it is left out")
	c.send(m.ID(), protocol.Message{Refused: wrongArithmetic(m.Hello(), why)})
}

// wrongArithmetic tells a replica that it was left out.
func wrongArithmetic(h protocol.Hello, why string) *protocol.Refused {
	return &protocol.Refused{
		Field: fieldResults, Want: "those of the others", Got: "wrong ones",
		Hint: why + ": its processor, GPU or memory is faulty. Mend or replace it; the job takes it back under another --name",
	}
}

// contradictsItself ends a round whose only member computed a group twice and got
// two results. There is nobody else to go on with, so it runs the step again.
func (c *Core) contradictsItself(r *round.Round, m *roster.Replica, group int) {
	c.report(event.AuditFailed{Replica: about(m), Step: r.Step(), Group: group, Sound: c.jury.Sound(m.ID())})
	if n, enough := c.patience.Mismatch(); enough {
		c.fail(fmt.Sprintf("step %d: %s computed a group twice and got two results, %d times in a row: its processor, GPU or memory is faulty, or its engine does not compute the same twice (--audit 0 turns the comparison off)", r.Step(), m, n))
		return
	}
	r.End(fmt.Sprintf("step %d: %s computed group %d twice and got two results", r.Step(), m, group))
}

// awaitsThird says that a round of these candidates makes no sense: they are the
// two that compute differently, each the same each time.
func (c *Core) awaitsThird(candidates []*roster.Replica) string {
	var ids []string
	for _, m := range candidates {
		ids = append(ids, m.ID())
	}
	step := c.history.At() + 1
	if !c.jury.Awaits(step, ids) {
		return ""
	}
	return fmt.Sprintf("waiting for a third replica: %s compute %s of step %d differently, each the same again, so one of them is faulty; a third decides, or stop the one that you suspect",
		names(candidates), groupsInWords(c.jury.Trial(step)), step)
}

// testimony is what the members of a round have said in their votes of what is
// computed twice.
func testimony(r *round.Round, deal audit.Deal) []jury.Said {
	var said []jury.Said
	for _, m := range r.Members() {
		v, own, again := r.VoteOf(m), deal.Own[m.Rank()], deal.Again[m.Rank()]
		if len(own)+len(again) == 0 {
			continue
		}
		said = append(said, jury.Said{ID: m.ID(), Name: m.Name(), Keys: v.Keys, Recounts: v.Recounts, Expected: slices.Concat(own, again)})
	}
	return said
}

// announced are the members with which a round began, as it was announced.
func announced(r *round.Round) []protocol.Member {
	var list []protocol.Member
	for rank, m := range r.Plan().Members {
		list = append(list, protocol.Member{ID: m.ID(), Name: m.Name(), Groups: r.Plan().Deal[rank]})
	}
	return list
}

// units are all groups of the units that some groups belong to.
func (c *Core) units(groups []int) (all []int) {
	for _, g := range groups {
		first := g - g%c.audits.Unit
		if slices.Contains(all, first) {
			continue
		}
		for i := range c.audits.Unit {
			all = append(all, first+i)
		}
	}
	return all
}

// concerned names the members that said something of some groups.
func concerned(r *round.Round, said []jury.Said, groups []int) string {
	var list []string
	for _, m := range r.Members() {
		if slices.ContainsFunc(said, func(s jury.Said) bool {
			return s.ID == m.ID() && slices.ContainsFunc(groups, func(g int) bool { return slices.Contains(s.Expected, g) })
		}) {
			list = append(list, m.Name())
		}
	}
	return strings.Join(list, " ")
}

func names(members []*roster.Replica) string {
	var list []string
	for _, m := range members {
		list = append(list, m.String())
	}
	return strings.Join(list, " and ")
}

// groupsInWords is "group 3", or "groups 3 4".
func groupsInWords(groups []int) string {
	text := strings.Trim(fmt.Sprint(groups), "[]")
	if len(groups) == 1 {
		return "group " + text
	}
	return "groups " + text
}
