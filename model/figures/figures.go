// Package figures is the record of what a step measured about its loss: one
// struct from the loss of a BatchNorm group, through a replica's vote and the
// coordinator's commit, to a line of log.jsonl. A figure that is added to it
// travels all that way by itself.
//
// While they travel, figures are sums over queries, so that those of several
// groups add up whoever computed them; Mean makes of them what people read. The
// names in JSON are those of log.jsonl in both forms.
package figures

// Figures are sums over queries, or the means that Mean makes of them. q is a
// query, k its key, n a real negative (a key of the queue).
type Figures struct {
	Loss      float64 `json:"loss"`           // L
	Proxy     float64 `json:"proxy_acc"`      // 1 when q·k exceeds every q·n: the query's key outranks all real negatives
	ProxyHard float64 `json:"proxy_acc_hard"` // and all synthetic ones too

	PosSim     float64 `json:"pos_sim"`     // q·k
	NegSim     float64 `json:"neg_sim"`     // mean q·n over the real negatives
	HardestSim float64 `json:"hardest_sim"` // largest q·n over the real negatives
	HardSim    float64 `json:"hard_sim"`    // mean q·n over the N hardest; 0 without mixing

	// Spread is the standard deviation of the queries per dimension, its mean
	// over dimensions, against 1/√d: 1 when they are spread over the whole sphere,
	// √(1 − mean cosine) in general, 0 when all are alike (collapse).
	Spread float64 `json:"spread"`

	TrainAcc float64 `json:"train_acc,omitempty"` // of --supervised: 1 when the logit of the sample's class is the highest

	ProbeLoss float64 `json:"probe_loss,omitempty"` // cross-entropy of the classifier of --probe
	ProbeAcc  float64 `json:"probe_acc,omitempty"`  // 1 when that classifies the query rightly, before it has learned from it
}

// Add adds the sums of other queries.
func (f *Figures) Add(o Figures) {
	f.Loss += o.Loss
	f.Proxy += o.Proxy
	f.ProxyHard += o.ProxyHard
	f.PosSim += o.PosSim
	f.NegSim += o.NegSim
	f.HardestSim += o.HardestSim
	f.HardSim += o.HardSim
	f.Spread += o.Spread
	f.TrainAcc += o.TrainAcc
	f.ProbeLoss += o.ProbeLoss
	f.ProbeAcc += o.ProbeAcc
}

// Mean is f, sums over so many queries, as means; f itself when there are none.
func (f Figures) Mean(queries int) Figures {
	if queries < 1 {
		return f
	}
	n := float64(queries)
	return Figures{
		Loss: f.Loss / n, Proxy: f.Proxy / n, ProxyHard: f.ProxyHard / n,
		PosSim: f.PosSim / n, NegSim: f.NegSim / n, HardestSim: f.HardestSim / n, HardSim: f.HardSim / n,
		Spread: f.Spread / n, TrainAcc: f.TrainAcc / n, ProbeLoss: f.ProbeLoss / n, ProbeAcc: f.ProbeAcc / n,
	}
}
