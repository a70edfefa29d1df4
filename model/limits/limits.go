// Package limits holds the ranges of settings that more than one part checks:
// a job's configuration before anything is started, the method and its loss
// when they are made, a benchmark of the loss. Each comparison and its wording
// stand here once. The package imports nothing of the project.
package limits

// Report is told what is wrong with a setting: its name as a flag and a YAML
// key, and a text for fmt.Sprintf that says what is wrong and what to do.
type Report func(setting, format string, args ...any)

// Ranges of single settings.
const (
	bnGroup     Range = "at least 2 and at most 16777216"
	queue       Range = "at least 1 and at most 1073741824"
	synthetic   Range = "at least 0 and at most 16777216" // each of N, s, s2
	momentum    Range = "at least 0 and below 1"
	weightDecay Range = "at least 0"
	temperature Range = "above 0"
)

// BNGroup checks g, the samples of a BatchNorm group.
func BNGroup(g int, fault Report) {
	if g < 2 {
		fault("bn-group", "%d: BatchNorm needs at least 2 samples in a group", g)
		return
	}
	bnGroup.Whole("bn-group", int64(g), fault)
}

// Queue checks K, the length of the queue.
func Queue(k int, fault Report) { queue.Whole("queue", int64(k), fault) }

// Momentum checks m of the key encoder.
func Momentum(m float64, fault Report) { momentum.Number("momentum", m, fault) }

// SGDMomentum checks μ of the optimiser.
func SGDMomentum(mu float64, fault Report) { momentum.Number("sgd-momentum", mu, fault) }

// WeightDecay checks λ.
func WeightDecay(lambda float64, fault Report) { weightDecay.Number("weight-decay", lambda, fault) }

// Temperature checks τ.
func Temperature(tau float64, fault Report) { temperature.Number("temperature", tau, fault) }

// MoCHi checks (N, s, s′): how many hard negatives of a queue of k keys to mix
// from, how many synthetic negatives from pairs, how many from the query. What
// is wrong with k itself is Queue's to say.
func MoCHi(n, s, s2, k int, fault Report) {
	good := true
	for _, f := range []struct {
		name  string
		value int
	}{{"N", n}, {"s", s}, {"s2", s2}} {
		if !synthetic.holds(float64(f.value)) {
			fault("mochi", "%s = %d must be %s", f.name, f.value, synthetic)
			good = false
		}
	}
	switch {
	case k >= 1 && n > k:
		fault("mochi", "N = %d hard negatives of a queue of %d; N must not exceed queue", n, k)
	case good && n == 0 && (s > 0 || s2 > 0):
		fault("mochi", "%d,%d,%d asks for synthetic negatives (s, s2) without hard ones to mix (N = 0)", n, s, s2)
	}
}
