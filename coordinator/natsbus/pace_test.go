package natsbus

import (
	"testing"
	"time"
)

// Over lines of every rate and length: a piece is small enough to leave the line
// free again soon, or the smallest there is; a short, fast line gets the largest;
// and once the pace is found nothing is sent again before it can have arrived.
func TestPaceFitsTheLine(t *testing.T) {
	for _, rate := range []float64{8e3, 50e3, 200e3, 1e6, 10e6, 1e9} { // bytes/s
		for _, trip := range []time.Duration{0, 20 * time.Millisecond, 90 * time.Millisecond} {
			p := newPace()
			lost := 0
			for i := range 100 {
				took := trip + time.Duration(float64(p.piece)/rate*float64(time.Second))
				if took > p.timeout {
					p.silent()
					if i >= 10 {
						lost++
					}
					continue
				}
				p.answered(took, p.piece)
			}
			took := trip + time.Duration(float64(p.piece)/rate*float64(time.Second))
			if took > 2*slowPiece && p.piece > leastPiece {
				t.Errorf("%g bytes/s, %v: a piece of %d bytes takes %v", rate, trip, p.piece, took)
			}
			if rate >= 10e6 && trip <= 20*time.Millisecond && p.piece != pieceBytes {
				t.Errorf("%g bytes/s, %v: pieces of %d bytes only", rate, trip, p.piece)
			}
			if lost > 0 {
				t.Errorf("%g bytes/s, %v: %d pieces were sent again", rate, trip, lost)
			}
		}
	}
}
