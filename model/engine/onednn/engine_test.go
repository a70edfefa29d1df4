//go:build onednn

package onednn

import (
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.RunPromise(t, New, enginetest.Promise{SameBits: 2}) }

// Below the level of bf16 dot products convolutions are computed in fp32.
func TestConformanceBF16(t *testing.T) {
	eachLevel(t, mkAVX2, func(t *testing.T, _ int) {
		enginetest.RunPromise(t, New, enginetest.Promise{SameBits: 2, Precision: engine.BF16})
	})
}
