package evaluate

import (
	"fmt"
	"math"
	"testing"

	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

// classes is a data set without images.
type classes []int32

func (c classes) Len() int                                          { return len(c) }
func (c classes) Classes() int                                      { return 2 }
func (c classes) Label(i int) int32                                 { return c[i] }
func (c classes) Path(i int) string                                 { return fmt.Sprint(i) }
func (c classes) Decode(int, *data.Decoder) (*augment.Image, error) { panic("no image") }

// Two queries on a circle. 0°, of class 0, has only keys of its own class near
// it; 180°, of class 1, has 170° of its own class and 200° of the other.
func TestProxyTaskOfGeometry(t *testing.T) {
	at := func(degrees ...float64) (v []float32) {
		for _, d := range degrees {
			v = append(v, float32(math.Cos(d*math.Pi/180)), float32(math.Sin(d*math.Pi/180)))
		}
		return v
	}
	cos := func(degrees ...float64) (mean float64) {
		for _, d := range degrees {
			mean += math.Cos(d*math.Pi/180) / float64(len(degrees))
		}
		return mean
	}
	eng, _, err := engines.Open("gorgonia", engine.Config{Precision: engine.FP32, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	st := &checkpoint.State{K: 4, Dim: 2, Queue: at(10, 100, 170, 200), QueueLabels: []int32{0, 0, 1, 0}}
	cfg := config.Job{Temperature: 0.2, QueueShards: 2}
	for _, c := range []struct {
		oracle           bool
		key              [2]float64 // degrees from their queries
		mochi            config.MoCHi
		proxy, hard, neg float64
	}{
		{false, [2]float64{20, 5}, config.MoCHi{}, 0.5, 0.5, cos(10, 100, 170, 200, 170, 80, 10, 20)},
		{true, [2]float64{20, 5}, config.MoCHi{}, 1, 1, (cos(170) + cos(170, 80, 20)) / 2},
		{true, [2]float64{20, 25}, config.MoCHi{}, 0.5, 0.5, (cos(170) + cos(170, 80, 20)) / 2},
		// h′ of 0° and 170° lies 85° to 170° from 0°; of 180° and 200°, 10° to 20°
		// from 180°.
		{true, [2]float64{20, 5}, config.MoCHi{N: 1, S2: 64}, 1, 1, (cos(170) + cos(170, 80, 20)) / 2},
		{true, [2]float64{150, 5}, config.MoCHi{N: 1, S2: 64}, 1, 0.5, (cos(170) + cos(170, 80, 20)) / 2},
	} {
		r := GeometryResult{Images: 2}
		k := at(c.key[0], 180+c.key[1])
		if err := r.proxy(eng, st, all(classes{0, 1}, 0), at(0, 180), k, GeometryOptions{Job: cfg, MoCHi: c.mochi, Oracle: c.oracle}); err != nil {
			t.Fatal(err)
		}
		for _, f := range []struct {
			name      string
			got, want float64
		}{{"proxy_acc", r.Proxy, c.proxy}, {"proxy_acc_hard", r.ProxyHard, c.hard}, {"pos_sim", r.PosSim, cos(c.key[:]...)}, {"neg_sim", r.NegSim, c.neg}} {
			if math.Abs(f.got-f.want) > 1e-6 {
				t.Errorf("%+v: %s %g, want %g", c, f.name, f.got, f.want)
			}
		}
	}
}
