//go:build onednn

package onednn

import (
	"testing"

	"mochi/model/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.RunPromise(t, New, enginetest.Promise{SameBits: 2}) }
