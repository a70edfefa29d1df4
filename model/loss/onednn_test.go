//go:build onednn

package loss

import (
	"mochi/model/engine"
	"mochi/model/engine/onednn"
)

func init() {
	if eng, err := onednn.New(engine.Config{Threads: 1}); err == nil {
		contrasts["onednn"] = eng.Contrast()
	}
}
