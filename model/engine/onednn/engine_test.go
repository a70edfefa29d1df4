//go:build onednn

package onednn

import (
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.RunPromise(t, New, enginetest.Promise{SameBits: 2}) }

func TestConformanceBF16(t *testing.T) {
	open(t, engine.BF16, 1) // or skip
	enginetest.RunPromise(t, New, enginetest.Promise{SameBits: 2, Precision: engine.BF16})
}
