//go:build onednn

package loss

import "mochi/model/engine/onednn"

func init() { contrasts["onednn"] = onednn.NewContrast() }
