package gorgonia

import (
	"testing"

	"mochi/model/engine/enginetest"
)

func TestConformance(t *testing.T) { enginetest.Run(t, New) }
