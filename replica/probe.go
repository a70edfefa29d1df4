package replica

import (
	"math"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model"
	"mochi/model/network"
	"mochi/model/probe"
	"mochi/replica/checkpoint"
	"mochi/replica/criterion"
	"mochi/replica/input"
	"mochi/replica/reduction"
)

// onlineProbe is the linear classifier of --probe, which learns from the features of
// the queries and changes nothing that they follow from. nil is a job without one:
// all methods then do nothing.
type onlineProbe struct {
	*probe.Online
	batch    int       // B
	full     float64   // the job's learning rate
	features []float32 // [n·g, F] of the unit in hand
	groups   int       // n
}

// digits is to which part of 1 the sums of the probe's losses are told: a vote of many
// groups has no room for more (TestMessagesFit of the configuration).
const digits = 1e4

func newOnlineProbe(job config.Job, net *network.Network, groups int) *onlineProbe {
	if !job.Probe {
		return nil
	}
	return &onlineProbe{
		Online: probe.NewOnline(net.FeatureDim, job.Labels),
		batch:  job.Batch, full: job.LR, groups: groups,
		features: make([]float32, groups*job.BNGroup*net.FeatureDim),
	}
}

// size is the length of a group's gradients.
func (o *onlineProbe) size() int {
	if o == nil {
		return 0
	}
	return o.Size()
}

// learn computes what the groups of a unit, whose queries were encoded last, add to the
// probe's gradients, grads [n, size()], and puts its figures into their reports [n].
// classes are those of the whole batch.
func (o *onlineProbe) learn(t *phases, moco *model.MoCo, classes []int32, rows criterion.Rows, grads []float32, reports []protocol.GroupReport) {
	if o == nil {
		return
	}
	moco.Features(o.features)
	t.work(protocol.MeasureProbe, func() {
		samples, size := (rows.Hi-rows.Lo)/o.groups, o.Size()
		width := samples * o.Dim()
		for j := range reports {
			first := rows.Lo + j*samples
			loss, right := o.Gradients(o.features[j*width:(j+1)*width], classes[first:first+samples], o.batch, grads[j*size:(j+1)*size])
			reports[j].ProbeLoss, reports[j].ProbeAcc = math.Round(loss*digits)/digits, float64(right)
		}
	})
}

// apply makes a step of it final, with the rate that the encoder has in it.
func (o *onlineProbe) apply(t *phases, sum []float32, lr float64) {
	if o != nil {
		t.work(protocol.MeasureProbe, func() { o.Update(sum, lr/o.full) })
	}
}

// learnProbe is learn for the unit whose first group is first.
func (s *session) learnProbe(t *phases, batch *input.Step, first int, terms reduction.Terms, reports []protocol.GroupReport) {
	g := s.job.BNGroup
	rows := criterion.Rows{Lo: first * g, Hi: (first + len(reports)) * g}
	s.model.probe.learn(t, s.model.moco, batch.Classes, rows, terms.Besides, reports)
}

// state is what a checkpoint has of it.
func (o *onlineProbe) state() *checkpoint.Probe {
	if o == nil {
		return nil
	}
	p := &checkpoint.Probe{Classes: o.Classes(), Features: o.Dim()}
	p.Params, p.Momentum = o.State()
	return p
}

// restore takes it from a checkpoint. One of a job without a probe, or of other classes,
// says nothing to this one, which then begins anew.
func (o *onlineProbe) restore(p *checkpoint.Probe) {
	switch {
	case o == nil:
	case p == nil || p.Classes != o.Classes() || p.Features != o.Dim():
		o.Reset()
	default:
		o.SetState(p.Params, p.Momentum)
	}
}

// reset begins anew.
func (o *onlineProbe) reset() { o.restore(nil) }
